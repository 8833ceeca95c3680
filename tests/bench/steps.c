/* SPDX-License-Identifier: MIT
 *
 * steps.c - times one training step of a model: loss, gradients (through the inner loop, where there is one),
 * clipping, AdamW, and the loss read back. torch_steps.py is the same in PyTorch, compare runs both.
 *
 *     steps MODEL [--batch 64] [--tokens 49] [--dim 128] [--heads 2] [--depth 4] [--inner-steps 1]
 *                 [--threads 2] [--steps 20] [--warm-up 3] [--forward-only] [--backend NAME] [--check]
 * [--double]
 *                 [--scan] [--keep-every K] [--checkpoint] [--dtype float32|bfloat16|float16]
 *                 [--arena-mb N]
 *
 * --arena-mb: mb_options.arena_bytes, in MiB: in slices of the batch, where a step would take more; 0: as
 * where nothing is said.
 *
 * --dtype: what vision transformers compute in; their parameters are float32.
 *
 * --scan: inner steps as one scan, whose derivative stores the weights of every K-th. --checkpoint: each
 * block is one.
 *
 * MODEL: mttt-linear | mttt-mlp | linear-attention | softmax-attention | icl | convnet.
 *
 * Prints one line of JSON:
 *   median_ms, min_ms     a step, from the first recorded op to the loss in the program's hands
 *   record_ms             the part of a median step before the flush: recording and differentiation
 *   first_ms, plan_ms     the first step, and what all plans took to make
 *   peak_mb               the process's largest resident size
 *   forecast_mb, held_mb  what mb_forecast said before the first step that a step would hold at most, and
 * what was held at most, in the context's memory (on a device: in the device's) arena_mb, nodes, plan_steps,
 * gflop   of the plan of a step plans, allocations    plans made in all; heap allocations of a timed step
 *   peak_gflops           the rate of a product of matrices of 2048 by 2048 in this process
 *   peak_share            gflop over the median step and that rate
 *
 * icl is the linear transformer of "Linear attention is (maybe) all you need" (Ahn et al. 2310.01082): 3
 * layers, d = 5, prompts of 20 pairs, 1000 fresh prompts a step, Adam(.9,.9). Of the flags, only --steps,
 * --threads,
 * --backend and the last two apply to it.
 *
 * convnet is that of examples/convnet.c, on images of 28 by 28: of the flags, --batch applies, too.
 *
 * --check starts from the closed-form values of pattern() instead of random ones, takes 3 steps and prints
 * their losses, to be compared with PyTorch's; --double does all in float64. */
#include <moebius.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { PATCH_VALUES = 16, CLASSES = 10, CHECK_STEPS = 3, MOST_STEPS = 100000 };
enum { SIDE = 28, CHANNELS = 32, FEATURES = SIDE / 4 * SIDE / 4 * 2 * CHANNELS };
enum { ICL_D = 5, ICL_PAIRS = 20, ICL_LAYERS = 3, ICL_PROMPTS = 1000 };

typedef struct bench {
    const char *model, *backend, *half;
    int64_t batch, tokens, dim, heads, depth, inner_steps, threads, steps;
    int64_t keep, warm_up, arena_mb;
    bool forward_only, check, full, scan, checkpoint; /* full: float64 */
    mb_context *mb;
    mb_dtype dtype;
    mb_params *params;
    mb_optimizer *optimizer;
    mb_tensor (*loss)(struct bench *b, uint64_t step);
    mb_vit *vit;           /* of transformers */
    mb_conv conv[2];       /* of convnet */
    mb_batch_norm norm[2]; /* ... */
    mb_linear head;        /* ... */
    mb_tensor x, y;        /* [B,N,PATCH_VALUES] or [B,SIDE,SIDE,1], int32 [B] */
    mb_costs costs;        /* of a step */
    mb_tensor P, Q;        /* icl: [L,d,d] */
    mb_tensor mx, mw;      /* icl with --check: the prompts' x [prompts,n+1,d] and w [prompts,d,1] */
} bench;

static _Noreturn void die(const char *what, const char *more)
{
    fprintf(stderr, "steps: %s%s\n", what, more);
    exit(2);
}

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* ---- closed-form values, the same in torch_steps.py ---- */

/* base + scale sin(0.7 (i + 1) + 1.3 tag) */
static mb_tensor pattern(bench *b, mb_shape shape, int64_t tag, double scale, double base)
{
    int64_t n = 1;
    for (int i = 0; i < shape.rank; i++)
        n *= shape.dim[i];
    double *values = malloc((size_t)n * sizeof *values);
    if (!values)
        die("no memory", "");
    for (int64_t i = 0; i < n; i++)
        values[i] = base + scale * sin(0.7 * (double)(i + 1) + 1.3 * (double)tag);
    mb_tensor t = mb_cast(mb_from(b->mb, MB_FLOAT64, shape, values), b->dtype);
    mb_eval(&t, 1);
    free(values);
    return t;
}

/* A parameter's tag is the sum of its name's bytes. */
static void pattern_parameters(bench *b)
{
    for (int i = 0; i < mb_params_count(b->params); i++) {
        const char *name = mb_params_name(b->params, i);
        int64_t tag = 0;
        for (const char *c = name; *c; c++)
            tag += (unsigned char)*c;
        bool scale = strstr(name, "scale") != NULL;
        mb_tensor t = mb_params_tensor(b->params, i);
        mb_assign(t, pattern(b, mb_shape_of(t), tag, 0.1, scale ? 1 : 0));
    }
}

static void make_data(bench *b, mb_shape shape)
{
    b->x = b->check ? pattern(b, shape, 0, 1, 0) : mb_normal(b->mb, mb_key_of(1), b->dtype, shape);
    int32_t *labels = malloc((size_t)b->batch * sizeof *labels);
    if (!labels)
        die("no memory", "");
    for (int64_t i = 0; i < b->batch; i++)
        labels[i] = (int32_t)((7 * i + 3) % CLASSES);
    b->y = mb_from(b->mb, MB_INT32, MB_SHAPE(b->batch), labels);
    free(labels);
    mb_eval(&b->x, 1); /* drawn once, kept */
}

/* ---- vision transformers ---- */

static void make_vit(bench *b)
{
    mb_mixer_options mixer = {.heads = b->heads};
    if (strncmp(b->model, "mttt", 4) == 0) {
        mixer.kind = MB_MIXER_TTT;
        mixer.ttt.learner = strcmp(b->model, "mttt-mlp") == 0 ? MB_LEARNER_MLP : MB_LEARNER_LINEAR;
        mixer.ttt.inner_steps = (int)b->inner_steps;
        mixer.ttt.scan = b->scan ? MB_ON : MB_OFF;
        mixer.ttt.keep_every = b->keep;
    } else {
        mixer.kind = strcmp(b->model, "linear-attention") == 0 ? MB_MIXER_LINEAR : MB_MIXER_SOFTMAX;
    }
    b->vit = mb_vit_new(b->params, "",
                        (mb_vit_options){
                            .tokens = b->tokens,
                            .patch_values = PATCH_VALUES,
                            .dim = b->dim,
                            .depth = b->depth,
                            .classes = CLASSES,
                            .mixer = mixer,
                            .checkpoint = b->checkpoint,
                            .positions_init = mb_init_normal(0.02),
                            .head_init = mb_init_uniform(1 / sqrt((double)b->dim)),
                        });
    mb_params_set_decay(b->params, "", true); /* as torch.optim.AdamW */
    b->optimizer = mb_adamw(b->params, (mb_adamw_options){.lr = 1e-3, .weight_decay = 1e-4, .clip_norm = 1});

    make_data(b, MB_SHAPE(b->batch, b->tokens, PATCH_VALUES));
}

static mb_tensor vit_loss(bench *b, uint64_t step)
{
    (void)step;
    mb_tensor x = b->half ? mb_cast(b->x, b->half[0] == 'b' ? MB_BFLOAT16 : MB_FLOAT16) : b->x;
    return mb_cross_entropy(mb_cast(mb_vit_apply(b->vit, x, MB_NO_KEY, NULL), b->dtype), b->y);
}

/* ---- a convolutional network, channels last ---- */

static void make_convnet(bench *b)
{
    for (int i = 0; i < 2; i++) {
        int64_t out = CHANNELS << i;
        b->conv[i] =
            mb_conv2d_new(b->params, i ? "conv2" : "conv1",
                          (mb_conv_layer_options){.in = i ? CHANNELS : 1,
                                                  .out = out,
                                                  .size = {3},
                                                  .conv = {.padding = {1, 1}, .channels_last = true}});
        b->norm[i] = mb_batch_norm_new(b->params, i ? "norm2" : "norm1", out);
    }
    b->head = mb_linear_new(b->params, "head", FEATURES, CLASSES);
    mb_params_set_decay(b->params, "", true); /* as torch.optim.AdamW */
    b->optimizer = mb_adamw(b->params, (mb_adamw_options){.lr = 1e-3, .weight_decay = 1e-4, .clip_norm = 1});
    make_data(b, MB_SHAPE(b->batch, SIDE, SIDE, 1));
}

static mb_tensor convnet_loss(bench *b, uint64_t step)
{
    mb_tensor z = b->x;
    for (int i = 0; i < 2; i++) {
        z = mb_batch_norm_apply(b->norm[i], mb_conv2d_apply(b->conv[i], z), -1, true);
        z = mb_max_pool2d(mb_relu(z), (mb_pool_options){.size = {2}, .channels_last = true});
    }
    z = mb_reshape(z, MB_SHAPE(b->batch, FEATURES));
    z = mb_dropout(z, mb_key_fold(mb_key_of(5), step), 0.25, !b->check);
    return mb_cross_entropy(mb_linear_apply(b->head, z), b->y);
}

/* ---- in-context learning ---- */

static void make_icl(bench *b)
{
    mb_shape shape = MB_SHAPE(ICL_LAYERS, ICL_D, ICL_D);
    b->P = mb_param(b->params, "P", shape, mb_init_normal(0.05));
    b->Q = mb_param(b->params, "Q", shape, mb_init_normal(0.05));
    b->optimizer =
        mb_adam(b->params, (mb_adam_options){.lr = 0.02, .beta1 = 0.9, .beta2 = 0.9, .clip_norm = 1});
    if (b->check) {
        b->mx = pattern(b, MB_SHAPE(ICL_PROMPTS, ICL_PAIRS + 1, ICL_D), 1, 1, 0);
        b->mw = pattern(b, MB_SHAPE(ICL_PROMPTS, ICL_D, 1), 2, 1, 0);
    }
}

/* [d,d] of layer l -> [d+1,d+1], `corner` in the last place */
static mb_tensor widen(mb_tensor t, int l, double corner)
{
    t = mb_squeeze(mb_slice(t, 0, l, 1, 1), 0);
    t = mb_pad(mb_pad(t, 0, 0, 1), 1, 0, 1);
    if (corner == 0)
        return t;
    mb_tensor one = mb_full(t.ctx, mb_dtype_of(t), MB_SHAPE(1, 1), corner);
    return mb_add(t, mb_pad(mb_pad(one, 0, ICL_D, 0), 1, ICL_D, 0));
}

/* Rows of z are tokens (x_i, y_i); the last has 0 for its y. Z <- Z + Z (P S Q / n)^T with S = sum_i z_i
 * z_i^T over the n pairs; the last entry, negated, predicts y. */
static mb_tensor icl_loss(bench *b, uint64_t step)
{
    mb_key key = mb_key_fold(mb_key_of(3), step);
    int64_t n = ICL_PAIRS, d = ICL_D, B = ICL_PROMPTS;
    mb_tensor x = b->check ? b->mx : mb_normal(b->mb, mb_key_fold(key, 0), b->dtype, MB_SHAPE(B, n + 1, d));
    mb_tensor w = b->check ? b->mw : mb_normal(b->mb, mb_key_fold(key, 1), b->dtype, MB_SHAPE(B, d, 1));
    mb_tensor y = mb_matmul(x, w); /* [B,n+1,1] */
    mb_tensor columns[2] = {x, mb_pad(mb_slice(y, 1, 0, n, 1), 1, 0, 1)};
    mb_tensor z = mb_concat(columns, 2, 2); /* [B,n+1,d+1] */
    for (int l = 0; l < ICL_LAYERS; l++) {
        mb_tensor pairs = mb_slice(z, 1, 0, n, 1);
        mb_tensor S = mb_matmul(mb_transpose(pairs), pairs); /* [B,d+1,d+1] */
        mb_tensor M = mb_matmul(mb_matmul(widen(b->P, l, 1), S), mb_mul(widen(b->Q, l, 0), 1.0 / (double)n));
        z = mb_add(z, mb_matmul(z, mb_transpose(M)));
    }
    mb_tensor answer = mb_slice(mb_slice(z, 1, n, 1, 1), 2, d, 1, 1);
    return mb_mean(mb_square(mb_add(answer, mb_slice(y, 1, n, 1, 1))), MB_ALL);
}

/* ---- timing ---- */

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int64_t n)
{
    qsort(values, (size_t)n, sizeof *values, by_size);
    return values[n / 2];
}

/* Initial values of parameters and optimizer, once more in a scope that ends, as steps leave them: so the
 * first step has the plan of all others. */
static void store_initial(bench *b)
{
    mb_tensor first = mb_params_tensor(b->params, 0);
    mb_eval(&first, 1);
    mb_scope scope = mb_scope_begin(b->mb);
    for (int i = 0; i < mb_params_count(b->params); i++) {
        mb_tensor t = mb_params_tensor(b->params, i);
        mb_assign(t, mb_mul(t, 1.0));
    }
    for (int i = 0; i < mb_optimizer_state_count(b->optimizer); i++) {
        mb_tensor t = mb_optimizer_state_tensor(b->optimizer, i);
        mb_assign(t, mb_zeros(b->mb, b->dtype, mb_shape_of(t)));
    }
    mb_scope_end(scope);
}

/* One step. Writes the milliseconds until the flush. */
static double step(bench *b, int64_t number, double *record)
{
    double begun = now_ms();
    mb_scope scope = mb_scope_begin(b->mb);
    mb_tensor loss = b->loss(b, (uint64_t)number);
    if (!b->forward_only)
        mb_step(b->optimizer, loss);
    *record = now_ms() - begun;
    if (!b->costs.nodes && !b->check)
        mb_forecast(b->mb, &loss, 1, &b->costs);
    double value = mb_item(loss); /* the flush: the assignments of mb_step are stored with it */
    mb_scope_end(scope);
    return value;
}

static void check_error(const bench *b)
{
    if (mb_error(b->mb) != MB_OK)
        die("", mb_message(b->mb));
}

static void run_check(bench *b)
{
    double record;
    pattern_parameters(b);
    printf("{\"model\": \"%s\", \"params\": %lld, \"losses\": [", b->model,
           (long long)mb_params_size(b->params));
    for (int64_t i = 0; i < CHECK_STEPS + 1; i++)
        printf("%s%.17g", i ? ", " : "", step(b, i, &record));
    printf("]}\n");
    check_error(b);
}

/* GFLOP/s of a product of matrices of 2048 by 2048, best of 5: what this machine gives to the largest work of
 * the kind, at the moment, on the threads in use. It goes where the backend sends it: OpenBLAS, or loops of
 * its own. */
static double product_rate(const bench *b)
{
    enum { N = 2048, TIMES = 5 };
    double best = 0;
    mb_scope scope = mb_scope_begin(b->mb);
    mb_tensor x = mb_normal(b->mb, mb_key_of(1), b->dtype, MB_SHAPE(N, N));
    mb_eval(&x, 1);
    for (int i = 0; i <= TIMES; i++) {
        mb_tensor y = mb_matmul(x, x);
        double begun = now_ms();
        mb_eval(&y, 1);
        mb_tensor corner = mb_slice(mb_slice(y, 0, 0, 1, 1), 1, 0, 1, 1); /* a device is waited for */
        mb_item(corner);
        double rate = 2.0 * N * N * N / (now_ms() - begun) * 1e-6;
        best = i && rate > best ? rate : best; /* the first makes the plan */
    }
    mb_scope_end(scope);
    return best;
}

static void run_timed(bench *b)
{
    double *ms = calloc((size_t)b->steps, sizeof *ms), *record = calloc((size_t)b->steps, sizeof *record);
    double ignored, first = now_ms(), loss = 0;
    uint64_t allocations = 0;
    if (!ms || !record)
        die("no memory", "");
    store_initial(b);
    for (int64_t i = -b->warm_up; i < b->steps; i++) {
        double begun = now_ms();
        loss = step(b, i + b->warm_up, i < 0 ? &ignored : &record[i]);
        if (i == -b->warm_up)
            first = now_ms() - first;
        if (i == -1)
            allocations = mb_get_stats(b->mb).allocations;
        if (i >= 0)
            ms[i] = now_ms() - begun;
        check_error(b);
    }
    mb_stats s = mb_get_stats(b->mb);
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double middle = median(ms, b->steps), rate = product_rate(b);
    check_error(b);
    printf("{\"model\": \"%s\", \"backend\": \"%s\", \"threads\": %lld, ", b->model, mb_backend_name(b->mb),
           (long long)b->threads);
    printf("\"batch\": %lld, \"tokens\": %lld, \"dim\": %lld, \"heads\": %lld, \"depth\": %lld, "
           "\"inner_steps\": %lld, \"forward_only\": %s, \"params\": %lld, ",
           (long long)b->batch, (long long)b->tokens, (long long)b->dim, (long long)b->heads,
           (long long)b->depth, (long long)b->inner_steps, b->forward_only ? "true" : "false",
           (long long)mb_params_size(b->params));
    printf(
        "\"median_ms\": %.3f, \"min_ms\": %.3f, \"record_ms\": %.3f, \"first_ms\": %.1f, \"plan_ms\": %.1f, "
        "\"peak_mb\": %ld, \"forecast_mb\": %.1f, \"held_mb\": %.1f, \"arena_mb\": %.1f, ",
        middle, ms[0], median(record, b->steps), first, s.plan_seconds * 1e3, usage.ru_maxrss / 1024,
        (double)b->costs.peak_bytes / 1048576,
        (double)(s.device_bytes ? s.device_bytes : s.peak_bytes) / 1048576,
        (double)s.last_arena_bytes / 1048576);
    printf("\"nodes\": %llu, \"plan_steps\": %llu, \"gflop\": %.2f, \"plans\": %llu, \"allocations\": %.2f, "
           "\"peak_gflops\": %.1f, \"peak_share\": %.3f, \"loss\": %.6f}\n",
           (unsigned long long)s.last_nodes, (unsigned long long)s.last_steps, (double)s.last_flops * 1e-9,
           (unsigned long long)s.plans, (double)(s.allocations - allocations) / (double)b->steps, rate,
           (double)s.last_flops * 1e-6 / middle / rate, loss);
    free(ms);
    free(record);
}

/* ---- the command line ---- */

static bool dtype_named(bench *b, const char *name)
{
    b->half = strcmp(name, "float32") == 0 ? NULL : name;
    return !b->half || strcmp(name, "bfloat16") == 0 || strcmp(name, "float16") == 0;
}

static void parse(bench *b, int argc, char **argv)
{
    const struct {
        const char *name;
        int64_t *to;
    } numbers[] = {
        {"--batch", &b->batch},     {"--tokens", &b->tokens},    {"--dim", &b->dim},
        {"--heads", &b->heads},     {"--depth", &b->depth},      {"--inner-steps", &b->inner_steps},
        {"--threads", &b->threads}, {"--steps", &b->steps},      {"--keep-every", &b->keep},
        {"--warm-up", &b->warm_up}, {"--arena-mb", &b->arena_mb}};
    const struct {
        const char *name;
        bool *to;
    } switches[] = {{"--forward-only", &b->forward_only},
                    {"--check", &b->check},
                    {"--double", &b->full},
                    {"--scan", &b->scan},
                    {"--checkpoint", &b->checkpoint}};
    for (int i = 1; i < argc; i++) {
        bool known = false;
        for (size_t k = 0; !known && k < sizeof numbers / sizeof *numbers; k++)
            if (strcmp(argv[i], numbers[k].name) == 0 && i + 1 < argc) {
                char *end;
                *numbers[k].to = strtoll(argv[++i], &end, 10);
                if (*end || *numbers[k].to < 0)
                    die("not a number: ", argv[i]);
                known = true;
            }
        for (size_t k = 0; !known && k < sizeof switches / sizeof *switches; k++)
            if (strcmp(argv[i], switches[k].name) == 0)
                known = *switches[k].to = true;
        if (known)
            continue;
        if (strcmp(argv[i], "--backend") == 0 && i + 1 < argc)
            b->backend = argv[++i];
        else if (strcmp(argv[i], "--dtype") == 0 && i + 1 < argc && dtype_named(b, argv[i + 1]))
            i++;
        else if (argv[i][0] != '-' && !b->model)
            b->model = argv[i];
        else
            die("what is ", argv[i]);
    }
    static const char *const models[] = {"mttt-linear",       "mttt-mlp", "linear-attention",
                                         "softmax-attention", "icl",      "convnet"};
    bool known = false;
    for (size_t k = 0; b->model && k < sizeof models / sizeof *models; k++)
        known |= strcmp(b->model, models[k]) == 0;
    if (!known)
        die("wanted: mttt-linear | mttt-mlp | linear-attention | softmax-attention | icl | convnet", "");
    if (b->steps < 1 || b->steps > MOST_STEPS)
        die("--steps: wanted 1 to 100000", "");
}

int main(int argc, char **argv)
{
    bench b = {.batch = 64,
               .tokens = 49,
               .dim = 128,
               .heads = 2,
               .depth = 4,
               .inner_steps = 1,
               .threads = 2,
               .steps = 20,
               .warm_up = 3};
    parse(&b, argc, argv);
    b.dtype = b.full ? MB_FLOAT64 : MB_FLOAT32;
    b.mb = mb_open_with(&(mb_options){
        .backend = b.backend, .threads = (int)b.threads, .arena_bytes = (size_t)b.arena_mb << 20});
    check_error(&b);
    b.params = mb_params_new_with(b.mb, 42, b.dtype);
    bool icl = strcmp(b.model, "icl") == 0, convnet = strcmp(b.model, "convnet") == 0;
    b.loss = icl ? icl_loss : convnet ? convnet_loss : vit_loss;
    (icl ? make_icl : convnet ? make_convnet : make_vit)(&b);
    check_error(&b);
    if (b.check)
        run_check(&b);
    else
        run_timed(&b);
    mb_optimizer_free(b.optimizer);
    mb_params_free(b.params);
    return mb_close(b.mb) == MB_OK ? 0 : 1;
}
