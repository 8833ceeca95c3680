/* SPDX-License-Identifier: MIT
 *
 * linear_transformer_train.c - the experiments themselves: a training run with its measurements on the way,
 * and the distribution of gradients before the first step. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "linear_transformer.h"

const setting settings[SETTINGS] = {
    {"1", "Setting 1: n = 20, normal", 20, NORMAL, {0.02, 0.02}, 1},
    {"2", "Setting 2: n = 5, normal", 5, NORMAL, {0.01, 0.005}, 1},
    {"3", "Setting 3: n = 20, heavy tails", 20, GAMMA, {0.02, 0.02}, 1},
    {"sphere", "Sphere: n = 20, no tails", 20, UNIT, {5, 0.1}, 0.1},
};
const char *const optimizer_names[OPTIMIZERS] = {"sgd", "adam"};

/* Uses of a seed. */
enum { STREAM_BATCHES, STREAM_NOISE, STREAM_REFERENCE };
enum { SPECTRAL_EVERY = 20, LANCZOS_STEPS = 12 };

/* ---- prompts and model ---- */

/* In each prompt, a linear function w is to be found from n pairs (x, w.x). */
typedef struct prompts {
    mb_tensor z, answer; /* tokens [B,n+1,D+1], w.x of the last one [B,1] */
} prompts;

static prompts draw_prompts(mb_context *mb, const setting *s, mb_key key)
{
    mb_key keys[] = {mb_key_fold(key, 0), mb_key_fold(key, 1), mb_key_fold(key, 2)};
    int64_t n = s->pairs;
    mb_shape shape = MB_SHAPE(set.prompts, n + 1, D), lengths = MB_SHAPE(set.prompts, n + 1, 1);
    mb_tensor x = s->inputs == NORMAL ? mb_normal(mb, keys[0], MB_FLOAT32, shape)
                                      : mb_sphere(mb, keys[0], MB_FLOAT32, shape);
    if (s->inputs == GAMMA) /* of squared length 1 in the mean, as on the sphere, and 10 in variance */
        x = mb_mul(x, mb_sqrt(mb_gamma(mb, keys[1], MB_FLOAT32, lengths, 0.1, 10)));
    mb_tensor w = mb_normal(mb, keys[2], MB_FLOAT32, MB_SHAPE(set.prompts, D, 1));
    mb_tensor y = mb_squeeze(mb_matmul(x, w), 2);
    return (prompts){mb_prompt_tokens(x, mb_slice(y, 1, 0, n, 1)), mb_slice(y, 1, n, 1, 1)};
}

static mb_linear_transformer_options model(int depth)
{
    return (mb_linear_transformer_options){.dim = D, .layers = depth, .sparse = true};
}

/* theta: all of P and Q, flat -> [B,1]: squared errors of the predictions. */
static mb_tensor errors_of(mb_tensor theta, int depth, prompts p)
{
    mb_linear_transformer t = mb_linear_transformer_view(theta, model(depth));
    return mb_square(mb_sub(mb_linear_transformer_predict(t, p.z), p.answer));
}

static mb_tensor loss_of(mb_tensor theta, int depth, prompts p)
{
    return mb_mean(errors_of(theta, depth, p), MB_ALL);
}

/* ---- a training run ---- */

typedef struct run {
    trial *t;
    const setting *s;
    int depth;
    mb_context *mb;
    mb_params *params;
    mb_optimizer *optimizer;
    mb_tensor theta, before; /* parameters [p]; those before the last step, for its direction */
    prompts test;
} run;

static void open_run(run *r, uint64_t seed)
{
    mb_options options = {.backend = *set.backend ? set.backend : NULL, .threads = 1};
    mb_linear_transformer_options m = model(r->depth);
    mb_shape shape = MB_SHAPE(mb_linear_transformer_size(&m));
    r->mb = mb_open_with(&options);
    r->params = mb_params_new(r->mb, seed);
    r->theta = mb_param(r->params, "theta", shape, mb_init_normal(0.05));
    r->before = mb_variable(r->mb, MB_FLOAT32, shape);
}

static void close_run(run *r)
{
    if (mb_error(r->mb) != MB_OK)
        die("%s", mb_message(r->mb));
    mb_optimizer_free(r->optimizer);
    mb_params_free(r->params);
    mb_close(r->mb);
}

static void measure_loss(run *r, int64_t step)
{
    enum { GROUPS = 20 };
    int64_t n = set.prompts, groups = n < GROUPS ? n : GROUPS;
    float *errors = malloc((size_t)n * sizeof *errors);
    double sum[GROUPS] = {0}, total = 0;
    if (!errors)
        die("out of memory");
    mb_scope scope = mb_scope_begin(r->mb);
    mb_read(errors_of(r->theta, r->depth, r->test), errors, (size_t)n * sizeof *errors);
    mb_scope_end(scope);
    for (int64_t i = 0; i < n; i++) {
        sum[i * groups / n] += errors[i];
        total += errors[i];
    }
    free(errors);
    qsort(sum, (size_t)groups, sizeof *sum, by_size);
    series_add(&r->t->measure[LOSS], (double)step, total / (double)n);
    series_add(&r->t->measure[TYPICAL], (double)step, sum[groups / 2] * (double)groups / (double)n);
}

/* Along the step from `before` to `theta`, at `before`. */
static void measure_smoothness(run *r, int64_t step)
{
    float curvature, slope;
    mb_scope scope = mb_scope_begin(r->mb);
    mb_tensor f = loss_of(r->before, r->depth, r->test), u = mb_sub(r->theta, r->before), g, second;
    u = mb_div(u, mb_global_norm(&u, 1));
    mb_directional(f, &r->before, &u, 1, NULL, &second);
    mb_grad(f, &r->before, 1, &g);
    mb_watch(second, &curvature, sizeof curvature);
    mb_read(mb_global_norm(&g, 1), &slope, sizeof slope);
    mb_scope_end(scope);
    series_add(&r->t->measure[SMOOTH], (double)step, curvature);
    series_add(&r->t->measure[GRADIENT], (double)step, slope);
}

static void measure_spectral_norm(run *r, int64_t step)
{
    double least, most;
    mb_scope scope = mb_scope_begin(r->mb);
    mb_extreme_eigenvalues(loss_of(r->theta, r->depth, r->test), &r->theta, 1, LANCZOS_STEPS,
                           mb_key_of((uint64_t)step), &least, &most);
    mb_scope_end(scope);
    series_add(&r->t->measure[SPECTRAL], (double)step, fmax(fabs(least), fabs(most)));
}

/* Of an even number, the median is the lower of the two in the middle, as in the paper's code. */
static void measure_condition(run *r, int64_t step)
{
    int64_t n = mb_count(r->theta);
    float *diagonal = malloc((size_t)n * sizeof *diagonal);
    double *size = malloc((size_t)n * sizeof *size);
    if (!diagonal || !size)
        die("out of memory");
    mb_scope scope = mb_scope_begin(r->mb);
    mb_tensor d;
    mb_hessian_diagonal(loss_of(r->theta, r->depth, r->test), &r->theta, 1, &d);
    mb_read(d, diagonal, (size_t)n * sizeof *diagonal);
    mb_scope_end(scope);
    for (int64_t i = 0; i < n; i++)
        size[i] = fabs(diagonal[i]);
    qsort(size, (size_t)n, sizeof *size, by_size);
    series_add(&r->t->measure[CONDITION], (double)step, size[n - 1] / size[(n - 1) / 2]);
    free(diagonal);
    free(size);
}

static bool due(int64_t step, int64_t every, int64_t until)
{
    return every > 0 && step <= until && step % every == 0;
}

void run_trial(trial *t)
{
    run r = {.t = t, .s = &settings[t->setting], .depth = t->depth};
    double started = now();
    open_run(&r, (uint64_t)t->seed);
    /* The prediction is a polynomial of degree 3^layers or so in the prompt's entries: a prompt far in the
     * tail can take a deep model's gradient beyond float32. Such a batch counts for nothing, and is counted:
     * a step of momentum alone would carry the model further out, where no gradient calls it back. */
    mb_sgd_options sgd = {.lr = t->lr, .momentum = 0.9, .clip_norm = r.s->clip, .skip = true};
    mb_adam_options adam = {.lr = t->lr, .beta1 = 0.9, .beta2 = 0.9, .clip_norm = r.s->clip, .skip = true};
    r.optimizer = t->optimizer == SGD ? mb_sgd(r.params, sgd) : mb_adam(r.params, adam);
    r.test = draw_prompts(r.mb, r.s, mb_key_of((uint64_t)set.test_seed));
    mb_eval((mb_tensor[]){r.test.z, r.test.answer}, 2);

    mb_key key = mb_key_fold(mb_key_of((uint64_t)t->seed), STREAM_BATCHES);
    for (int64_t step = 0; step < t->steps && !stop_wanted() && mb_error(r.mb) == MB_OK; step++) {
        bool smooth = step < set.smooth_until && due(step, t->dense ? 1 : set.smooth_every, t->steps);
        if (due(step, set.evaluate_every, t->steps))
            measure_loss(&r, step);
        if (step > 0 && due(step, set.condition_every, set.condition_until))
            measure_condition(&r, step);
        if (t->dense && due(step, SPECTRAL_EVERY, set.smooth_until))
            measure_spectral_norm(&r, step);
        mb_scope scope = mb_scope_begin(r.mb);
        if (smooth)
            mb_assign(r.before, r.theta);
        prompts batch = draw_prompts(r.mb, r.s, mb_key_fold(key, (uint64_t)step));
        mb_tensor norm;
        float size; /* of the gradient */
        mb_step_norm(r.optimizer, loss_of(r.theta, r.depth, batch), &norm);
        mb_watch(norm, &size, sizeof size);
        mb_scope_end(scope); /* everything is computed here */
        if (smooth && isfinite(size))
            measure_smoothness(&r, step);
        jobs_advance(t->depth);
    }
    t->skipped = mb_optimizer_skipped(r.optimizer);
    t->complete = !stop_wanted();
    if (t->complete)
        measure_loss(&r, t->steps);
    close_run(&r);
    t->seconds = now() - started;
}

int64_t trial_units(const trial *t)
{
    return t->steps * t->depth;
}

/* ---- noise ---- */

static void moments(noise *n)
{
    double sum = 0, m2 = 0, m3 = 0, m4 = 0, count = (double)n->n;
    for (int64_t i = 0; i < n->n; i++)
        sum += n->norm[i];
    n->mean = sum / count;
    for (int64_t i = 0; i < n->n; i++) {
        double e = n->norm[i] - n->mean;
        m2 += e * e / count;
        m3 += e * e * e / count;
        m4 += e * e * e * e / count;
    }
    n->deviation = sqrt(m2);
    n->skewness = m3 / pow(m2, 1.5);
    n->kurtosis = m4 / (m2 * m2) - 3;
    double *sorted = malloc((size_t)n->n * sizeof *sorted);
    if (!sorted)
        die("out of memory");
    memcpy(sorted, n->norm, (size_t)n->n * sizeof *sorted);
    qsort(sorted, (size_t)n->n, sizeof *sorted, by_size);
    n->tail = sorted[n->n - 1] / sorted[n->n / 2];
    free(sorted);
}

void run_noise(noise *n)
{
    run r = {.s = &settings[n->setting], .depth = n->depth};
    open_run(&r, (uint64_t)n->seed);
    mb_key key = mb_key_of((uint64_t)n->seed);
    mb_tensor full = mb_variable(r.mb, MB_FLOAT32, mb_shape_of(r.theta)), g;
    n->norm = calloc((size_t)set.noise + 1, sizeof *n->norm);
    if (!n->norm)
        die("out of memory");
    /* First the gradient of many prompts: the mean of that of so many batches. */
    for (int64_t k = -set.noise_reference; k < set.noise && !stop_wanted() && mb_error(r.mb) == MB_OK; k++) {
        mb_scope scope = mb_scope_begin(r.mb);
        mb_key stream = mb_key_fold(key, k < 0 ? STREAM_REFERENCE : STREAM_NOISE);
        prompts batch = draw_prompts(r.mb, r.s, mb_key_fold(stream, (uint64_t)k));
        mb_grad(loss_of(r.theta, r.depth, batch), &r.theta, 1, &g);
        mb_tensor e = mb_sub(g, full);
        if (k < 0)
            mb_assign(full, mb_add(full, mb_div(g, (double)set.noise_reference)));
        else
            n->norm[n->n++] = mb_item(mb_global_norm(&e, 1));
        mb_scope_end(scope);
        jobs_advance(n->depth);
    }
    close_run(&r);
    n->complete = n->n == set.noise && n->n > 1;
    if (n->complete)
        moments(n);
}

int64_t noise_units(const noise *n)
{
    return (set.noise + set.noise_reference) * n->depth;
}
