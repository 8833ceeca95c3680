/* SPDX-License-Identifier: MIT
 *
 * mttt_model.c - the images, the vision transformer and its optimiser, as the flags say. */
#include <stdlib.h>
#include <string.h>

#include "mttt.h"

/* Streams of random numbers, folded into the seed. */
enum { STREAM_TOKENS = 1, STREAM_TEST_TOKENS = 2 };

/* ---- making it ---- */

static mb_images *open_images(run *r, const char *images, const char *labels, int64_t limit)
{
    char *images_path = path_in(set.data, images), *labels_path = path_in(set.data, labels);
    mb_images *d = mb_images_open(r->mb, (mb_images_options){.images = images_path,
                                                             .labels = labels_path,
                                                             .limit = limit,
                                                             .mean = MB_FASHION_MNIST_MEAN,
                                                             .std = MB_FASHION_MNIST_STD,
                                                             .classes = CLASSES,
                                                             .seed = (uint64_t)set.seed});
    check(r);
    free(images_path);
    free(labels_path);
    return d;
}

/* How many steps there are. */
static void plan_steps(run *r)
{
    int64_t count = mb_images_count(r->train);
    r->per_epoch = count / set.batch; /* the rest of an epoch, below a batch, is left out */
    if (set.batch / r->ranks % set.accumulate)
        die("--accumulate %lld does not divide --batch %lld%s", (long long)set.accumulate,
            (long long)(set.batch / r->ranks), r->ranks > 1 ? ", a rank's share" : "");
    if (r->per_epoch == 0)
        die("--batch %lld is above the %lld images there are", (long long)set.batch, (long long)count);
    r->total = r->per_epoch * set.epochs;
    if (r->total > INT32_MAX) /* what a checkpoint can count */
        die("%lld epochs of %lld steps are more than %d steps: fewer --epochs, or a larger --batch",
            (long long)set.epochs, (long long)r->per_epoch, INT32_MAX);
}

/* Of --keep-every. */
static int64_t keep_every(void)
{
    char *end;
    long long k = strtoll(set.keep_every, &end, 10);
    if (strcmp(set.keep_every, "sqrt") == 0)
        return MB_KEEP_SQRT;
    if (strcmp(set.keep_every, "log") == 0)
        return MB_KEEP_LOG;
    if (!*set.keep_every || *end || k < 1 || k > 1000)
        die("--keep-every: wanted a number from 1 to 1000, sqrt or log; got \"%s\"", set.keep_every);
    return k;
}

static mb_switch switched(const char *name)
{
    bool on = strcmp(name, "on") == 0 || strcmp(name, "frozen") == 0;
    return on ? MB_ON : strcmp(name, "off") == 0 ? MB_OFF : MB_AUTO;
}

/* Of the learners' names, those that are no test-time training. */
static mb_mixer_kind kind_of(const char *learner)
{
    static const struct {
        const char *name;
        mb_mixer_kind kind;
    } kinds[] = {{"softmax", MB_MIXER_SOFTMAX},
                 {"linear-attention", MB_MIXER_LINEAR},
                 {"adaptive-attention", MB_MIXER_ADAPTIVE},
                 {"kernel", MB_MIXER_CUSTOM}};
    for (int i = 0; i < COUNT(kinds); i++)
        if (strcmp(kinds[i].name, learner) == 0)
            return kinds[i].kind;
    return MB_MIXER_TTT;
}

static mb_mixer_options mixer(const double *inner_lr)
{
    mb_mixer_options m = {
        .kind = kind_of(set.learner), .heads = set.heads, .make = kernel_mixer, .user = &set.heads};
    m.ttt = (mb_ttt_options){.learner = strcmp(set.learner, "mlp") == 0 ? MB_LEARNER_MLP : MB_LEARNER_LINEAR,
                             .inner_steps = (int)set.inner_steps,
                             .inner_batch = set.inner_batch,
                             .inner_lr = inner_lr,
                             .decoder_norm = switched(set.decoder_norm),
                             .learned_start = switched(set.learned_start),
                             .scan = set.scan ? MB_ON : MB_AUTO,
                             .keep_every = keep_every()};
    return m;
}

/* Of --learned-start frozen: the learners' weights stay as they were drawn. */
static void freeze_starts(const run *r)
{
    static const char *const weights[] = {"W1", "b1", "W2", "b2"};
    for (int i = 0; i < mb_params_count(r->params); i++) {
        const char *name = mb_params_name(r->params, i), *last = strrchr(name, '.') + 1;
        for (int w = 0; w < COUNT(weights); w++)
            if (strstr(name, ".ttt.") && strcmp(last, weights[w]) == 0)
                mb_params_freeze(r->params, name);
    }
}

static void make_model(run *r)
{
    int64_t height = mb_images_height(r->train), width = mb_images_width(r->train);
    if (mb_images_height(r->test) != height || mb_images_width(r->test) != width)
        die("--data: images of %lld by %lld for training, of %lld by %lld for the test", (long long)height,
            (long long)width, (long long)mb_images_height(r->test), (long long)mb_images_width(r->test));
    if (height % set.patch || width % set.patch)
        die("--patch %lld does not divide images of %lld by %lld", (long long)set.patch, (long long)height,
            (long long)width);
    double *inner_lr = malloc((size_t)(set.inner_steps + 1) * sizeof *inner_lr);
    if (!inner_lr)
        die("out of memory");
    for (int64_t t = 0; t < set.inner_steps; t++)
        inner_lr[t] = set.inner_lr;
    bool learned = strcmp(set.positions, "learned") == 0;
    r->params = mb_params_new(r->mb, (uint64_t)set.seed);
    r->vit = mb_vit_new(r->params, "vit",
                        (mb_vit_options){.tokens = height / set.patch * (width / set.patch),
                                         .patch_values = set.patch * set.patch,
                                         .dim = set.dim,
                                         .depth = set.depth,
                                         .hidden = set.hidden,
                                         .classes = CLASSES,
                                         .mixer = mixer(inner_lr),
                                         .checkpoint = set.checkpoint,
                                         /* zeros learn slower in so few epochs */
                                         .head_init = mb_init_xavier(set.dim, CLASSES),
                                         .positions = learned ? MB_POSITIONS_LEARNED : MB_POSITIONS_SINCOS2D,
                                         .rows = height / set.patch});
    free(inner_lr);
    if (strcmp(set.learned_start, "frozen") == 0)
        freeze_starts(r);
}

/* Parameters and state are assigned what they are, in a scope, whose end stores it: after that the first step
 * is recorded from stored values, as all others are, and has their plan. */
static void store_start(run *r)
{
    mb_scope scope = mb_scope_begin(r->mb);
    for (int i = 0; i < mb_params_count(r->params); i++)
        mb_assign(mb_params_tensor(r->params, i), mb_stop_gradient(mb_params_tensor(r->params, i)));
    for (int i = 0; i < mb_optimizer_state_count(r->optimizer); i++) {
        mb_tensor t = mb_optimizer_state_tensor(r->optimizer, i);
        mb_assign(t, mb_zeros(r->mb, mb_dtype_of(t), mb_shape_of(t)));
    }
    mb_scope_end(scope);
}

void build(run *r)
{
    r->train = open_images(r, "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", set.train_images);
    r->test = open_images(r, "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz", set.test_images);
    plan_steps(r);
    make_model(r);
    r->optimizer =
        mb_adamw(r->params, (mb_adamw_options){.lr = set.lr,
                                               .weight_decay = set.weight_decay,
                                               .clip_norm = set.clip,
                                               .loss_scale = strcmp(set.dtype, "float16") == 0,
                                               .schedule = mb_schedule_warmup_cosine(set.warmup, r->total)});
    store_start(r);
    check(r);
    r->inner_losses = (int)set.depth * mb_vit_losses(r->vit);
    r->losses = calloc((size_t)r->inner_losses + 1, sizeof *r->losses);
    r->inner_loss = calloc(2 * (size_t)r->inner_losses + 1, sizeof *r->inner_loss);
    r->logits = calloc((size_t)set.batch * CLASSES, sizeof *r->logits);
    if (!r->losses || !r->inner_loss || !r->logits)
        die("out of memory");
}

void demolish(run *r)
{
    mb_loader_close(r->training);
    mb_loader_close(r->testing);
    mb_images_close(r->train);
    mb_images_close(r->test);
    mb_optimizer_free(r->optimizer);
    mb_params_free(r->params);
    free(r->losses);
    free(r->inner_loss);
    free(r->logits);
    free(r->checkpoint);
    mb_status status = mb_close(r->mb);
    if (status != MB_OK)
        die("%s", mb_status_name(status));
}

/* ---- batches ---- */

static mb_loader *open_loader(const run *r, const mb_images *images, mb_loader_options o)
{
    mb_column columns[2];
    mb_images_columns(images, columns);
    o.columns = columns;
    o.column_count = COUNT(columns);
    o.rows = mb_images_count(images);
    o.batch = set.batch;
    o.threads = 1; /* makes the next batch while this one is computed */
    mb_loader *l = mb_loader_open(r->mb, o);
    check(r);
    return l;
}

void begin_training(run *r, int64_t step)
{
    r->training = open_loader(r, r->train,
                              (mb_loader_options){.last = MB_LAST_DROP,
                                                  .key = mb_key_of((uint64_t)set.seed),
                                                  .step = step,
                                                  .shard = r->rank,
                                                  .shards = r->ranks});
}

void begin_test(run *r)
{
    r->testing = open_loader(r, r->test, (mb_loader_options){.in_order = true});
}

/* Of another rank. */
void skip_test_batch(run *r)
{
    const void *batch[2];
    mb_loader_next_memory(r->testing, batch, NULL);
    check(r);
}

void end_test(run *r)
{
    mb_loader_close(r->testing);
    r->testing = NULL;
}

/* ---- applying it ---- */

/* Of --dtype. */
static mb_dtype half(void)
{
    return set.dtype[0] == 'b' ? MB_BFLOAT16 : strcmp(set.dtype, "float16") == 0 ? MB_FLOAT16 : MB_FLOAT32;
}

/* x: [B,28,28], y: [B]; n: the step, or the batch of the test, for the order of tokens. */
static answer predict(const run *r, mb_tensor x, mb_tensor y, uint64_t stream, int64_t n, mb_tensor *losses)
{
    mb_key key = mb_key_fold(mb_key_fold(mb_key_of((uint64_t)set.seed), stream), (uint64_t)n);
    mb_tensor logits = mb_vit_apply(r->vit, mb_patchify(mb_cast(x, half()), set.patch), key, losses);
    logits = mb_cast(logits, MB_FLOAT32);
    for (int i = 0; losses && i < r->inner_losses; i++)
        losses[i] = mb_cast(losses[i], MB_FLOAT32);
    mb_tensor right = mb_eq(mb_argmax(logits, -1), y);
    return (answer){y, logits, mb_cross_entropy(logits, y), mb_sum(mb_cast(right, MB_INT32), MB_ALL)};
}

answer on_training_batch(const run *r, int64_t step, const void *const batch[2], int64_t part,
                         mb_tensor *losses)
{
    int64_t count = set.batch / r->ranks / set.accumulate, height = mb_images_height(r->train),
            width = mb_images_width(r->train);
    const float *pixels = batch[0];
    const int32_t *labels = batch[1];
    mb_tensor x =
        mb_from(r->mb, MB_FLOAT32, MB_SHAPE(count, height, width), pixels + part * count * height * width);
    mb_tensor y = mb_from(r->mb, MB_INT32, MB_SHAPE(count), labels + part * count);
    return predict(r, x, y, STREAM_TOKENS, step, losses);
}

int64_t on_test_batch(const run *r, double *loss, double *correct)
{
    float loss_value = 0;
    int32_t correct_value = 0;
    mb_scope scope = mb_scope_begin(r->mb);
    mb_tensor columns[2];
    int64_t count, batch = mb_loader_step(r->testing);
    mb_loader_next(r->testing, columns, &count);
    answer a = predict(r, columns[0], columns[1], STREAM_TEST_TOKENS, batch, NULL);
    mb_watch(a.loss, &loss_value, sizeof loss_value);
    mb_watch(a.logits, r->logits, (size_t)count * CLASSES * sizeof *r->logits);
    mb_read(a.correct, &correct_value, sizeof correct_value);
    mb_scope_end(scope);
    check(r);
    *loss = loss_value;
    *correct = correct_value;
    return count;
}
