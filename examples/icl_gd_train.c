/* SPDX-License-Identifier: MIT
 *
 * icl_gd_train.c - what is trained: step sizes of gradient descent, through the steps, and attention layers,
 * which are compared with it on the way and afterwards. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "icl_gd.h"

/* The paper's, as in the authors' code. */
const model models[MODELS] = {
    {"one", "1 layer", 1, true, false, 1e-3, 0.001, 0},
    {"two", "2 layers, tied", 2, true, true, 1e-3, 0.001, 0},
    {"five", "5 layers", 5, false, true, 5e-4, 10, 0},
};

/* Uses of a seed. */
enum { STREAM_TRAINING, STREAM_VALIDATION, STREAM_STEP_SIZES, STREAM_SWEEP };

/* Step sizes are trained in units in which they are near 1, so that one learning rate suits both. */
static const double eta_unit = 10, gamma_unit = 0.1;

static mb_context *open_context(void)
{
    mb_options options = {.backend = *set.backend ? set.backend : NULL, .threads = 1};
    return mb_open_with(&options);
}

static mb_key key_of(int64_t seed, int stream, int64_t n)
{
    return mb_key_fold(mb_key_fold(mb_key_of((uint64_t)seed), (uint64_t)stream), (uint64_t)n);
}

static void stop_at_error(const mb_context *mb)
{
    if (mb_error(mb) != MB_OK)
        die("%s", mb_message(mb));
}

static drawing as_trained(mb_dtype dtype, int64_t count)
{
    return (drawing){.dtype = dtype, .count = count, .inputs = UNIFORM, .x_scale = 1, .w_scale = 1};
}

/* ---- step sizes ---- */

/* The rates as numbers of this context. */
static descent descent_of(mb_context *mb, const baseline *b, mb_dtype dtype)
{
    const model *m = &models[b->model];
    double *lists[2] = {(double *)b->eta, (double *)b->gamma};
    mb_tensor rates[2];
    for (int i = 0; i < 2; i++) {
        mb_tensor all = mb_from(mb, MB_FLOAT64, MB_SHAPE(m->layers), lists[i]);
        rates[i] = mb_cast(m->tied ? mb_reshape(mb_slice(all, 0, 0, 1, 1), MB_SHAPE0) : all, dtype);
    }
    return (descent){m->layers, rates[0], b->plus ? rates[1] : (mb_tensor){0}};
}

static double relative_error(const double *a, const double *b, int n)
{
    double error = 0, size = 0;
    for (int i = 0; i < n; i++) {
        error = fmax(error, fabs(a[i] - b[i]));
        size = fmax(size, fabs(b[i]));
    }
    return error / size;
}

/* d loss / d eta through the explicit steps, themselves made by mb_grad, against that through the weights. */
static void compare_gradients(mb_context *mb, baseline *b)
{
    mb_scope scope = mb_scope_begin(mb);
    tasks t = draw_tasks(mb, key_of(set.first_seed, STREAM_STEP_SIZES, -1), as_trained(MB_FLOAT64, 256));
    descent d = descent_of(mb, b, MB_FLOAT64);
    mb_tensor rates[2] = {d.eta, d.gamma}, through_steps[2], through_weights[2];
    int kinds = b->plus ? 2 : 1, n = (int)mb_count(d.eta);
    mb_grad(loss_of(descend(d, t), t), rates, kinds, through_steps);
    mb_grad(loss_of(mb_self_attention_predict(constructed(d), tokens_of(t)), t), rates, kinds,
            through_weights);
    double errors[2] = {NAN, NAN};
    for (int i = 0; i < kinds; i++) {
        double a[MOST_LAYERS], c[MOST_LAYERS];
        mb_read(through_steps[i], a, (size_t)n * sizeof *a);
        mb_read(through_weights[i], c, (size_t)n * sizeof *c);
        errors[i] = relative_error(a, c, n);
    }
    b->eta_error = errors[0];
    b->gamma_error = errors[1];
    mb_scope_end(scope);
}

void run_baseline(baseline *b)
{
    const model *m = &models[b->model];
    mb_context *mb = open_context();
    mb_params *p = mb_params_new(mb, 0);
    mb_shape shape = m->tied ? MB_SHAPE0 : MB_SHAPE(m->layers);
    mb_tensor eta = mb_param(p, "eta", shape, mb_init_zeros()), gamma = {0};
    mb_assign(eta, mb_full(mb, MB_FLOAT32, shape, 0.2));
    if (b->plus) {
        gamma = mb_param(p, "gamma", shape, mb_init_zeros());
        mb_assign(gamma, mb_full(mb, MB_FLOAT32, shape, 0.2));
    }
    int64_t steps = baseline_units(b) / m->layers;
    mb_optimizer *adam =
        mb_adam(p, (mb_adam_options){.lr = 0.03, .schedule = mb_schedule_warmup_cosine(0, steps)});
    for (int64_t step = 0; step < steps && !stop_wanted() && mb_error(mb) == MB_OK; step++) {
        mb_scope scope = mb_scope_begin(mb);
        tasks t = draw_tasks(mb, key_of(set.first_seed, STREAM_STEP_SIZES, step),
                             as_trained(MB_FLOAT32, set.batch));
        descent d = {m->layers, mb_mul(eta, eta_unit), gamma};
        if (b->plus)
            d.gamma = mb_mul(gamma, gamma_unit);
        mb_step(adam, loss_of(descend(d, t), t));
        mb_scope_end(scope);
        jobs_advance(m->layers);
    }
    float rates[MOST_LAYERS];
    size_t bytes = (size_t)mb_count(eta) * sizeof *rates;
    mb_read(eta, rates, bytes);
    for (int i = 0; i < m->layers; i++)
        b->eta[i] = rates[m->tied ? 0 : i] * eta_unit;
    if (b->plus) {
        mb_read(gamma, rates, bytes);
        for (int i = 0; i < m->layers; i++)
            b->gamma[i] = rates[m->tied ? 0 : i] * gamma_unit;
    }
    tasks validation =
        draw_tasks(mb, key_of(set.first_seed, STREAM_VALIDATION, 0), as_trained(MB_FLOAT32, set.validation));
    b->loss = mb_item(loss_of(descend(descent_of(mb, b, MB_FLOAT32), validation), validation));
    compare_gradients(mb, b);
    stop_at_error(mb);
    b->complete = !stop_wanted();
    mb_optimizer_free(adam);
    mb_params_free(p);
    mb_close(mb);
}

int64_t baseline_units(const baseline *b)
{
    const model *m = &models[b->model];
    int64_t unknowns = m->tied ? 1 : m->layers; /* a rate for each layer takes longer */
    return set.gd_steps * unknowns * m->layers;
}

/* ---- attention ---- */

typedef struct run {
    trial *t;
    const model *m;
    mb_context *mb;
    mb_self_attention layer;
    tasks validation;
    mb_tensor guess, sensitivity; /* the baseline's on the validation tasks: [B,1], [B,1,D] */
} run;

static const baseline *reference(const trial *t)
{
    return models[t->model].plus ? t->plus : t->gd;
}

/* Half the trained layer and half the construction, both as products P and Q of their factors, and in the
 * same scale: that P and Q may be multiplied by beta and 1/beta is the one freedom that is left (2212.07677,
 * section 3). share: 0 is the trained one, 1 the construction. */
static mb_linear_transformer between(const run *r, mb_tensor share)
{
    mb_linear_transformer a = mb_self_attention_products(r->layer);
    mb_linear_transformer b =
        mb_self_attention_products(constructed(descent_of(r->mb, reference(r->t), MB_FLOAT32)));
    mb_tensor inputs = mb_slice(mb_slice(a.Q, -1, 0, D, 1), -2, 0, D, 1);
    mb_tensor beta = mb_div(mb_sum(mb_mul(inputs, mb_eye(r->mb, MB_FLOAT32, D)), MB_ALL), (double)D);
    mb_tensor P = mb_mul(a.P, beta), Q = mb_div(a.Q, beta);
    a.P = mb_add(P, mb_mul(share, mb_sub(b.P, P)));
    a.Q = mb_add(Q, mb_mul(share, mb_sub(b.Q, Q)));
    return a;
}

/* On the validation tasks. */
static void measure(run *r, int64_t step)
{
    const model *m = r->m;
    float value[MEASURES] = {0};
    mb_scope scope = mb_scope_begin(r->mb);
    tasks t = r->validation;
    mb_tensor z = tokens_of(t), guess = mb_self_attention_predict(r->layer, z), s;
    mb_grad(guess, &t.query, 1, &s);
    mb_tensor difference = mb_sub(s, r->sensitivity);
    mb_axes last = MB_AXES(1, 2);
    mb_tensor lengths = mb_sqrt(mb_mul(mb_sum(mb_square(s), last), mb_sum(mb_square(r->sensitivity), last)));
    mb_tensor cosine = mb_div(mb_sum(mb_mul(s, r->sensitivity), last), lengths);
    mb_tensor all[MEASURES] = {
        [LOSS] = loss_of(guess, t),
        [DIFFERENCE] = mb_mean(mb_abs(mb_sub(guess, r->guess)), MB_ALL),
        [COSINE] = mb_mean(cosine, MB_ALL),
        [DISTANCE] = mb_mean(mb_sqrt(mb_sum(mb_square(difference), last)), MB_ALL),
    };
    if (m->tied)
        all[INTERPOLATED] = loss_of(
            mb_linear_transformer_predict(between(r, mb_full(r->mb, MB_FLOAT32, MB_SHAPE0, 0.5)), z), t);
    int n = m->tied ? MEASURES : INTERPOLATED;
    for (int i = 0; i < n; i++)
        mb_watch(all[i], &value[i], sizeof *value);
    mb_eval(all, n);
    mb_scope_end(scope);
    for (int i = 0; i < n; i++)
        series_add(&r->t->measure[i], (double)step, value[i]);
}

/* ---- beyond what it was trained on ---- */

/* Losses of the trained layer, gradient descent and GD++ on the same tasks. */
static void out_of_distribution(run *r, int sweep, double scale, drawing how)
{
    mb_scope scope = mb_scope_begin(r->mb);
    how.dtype = MB_FLOAT32;
    how.count = set.validation;
    tasks t = draw_tasks(r->mb, key_of(set.first_seed, STREAM_SWEEP, sweep), how);
    mb_tensor z = tokens_of(t);
    mb_tensor guess[CURVES] = {
        [TRAINED] = mb_self_attention_predict(r->layer, z),
        [PLAIN] = mb_self_attention_predict(constructed(descent_of(r->mb, r->t->gd, MB_FLOAT32)), z),
        [PLUS] = mb_self_attention_predict(constructed(descent_of(r->mb, r->t->plus, MB_FLOAT32)), z)};
    for (int i = 0; i < CURVES; i++)
        series_add(&r->t->sweep[sweep][i], scale, mb_item(loss_of(guess[i], t)));
    mb_scope_end(scope);
}

/* The layers again and again, each time `damping` of the way; one row for each time. */
static void roll_out(run *r)
{
    enum { TIMES = 50 };
    const double damping = 0.75;
    tasks t = r->validation;
    const mb_self_attention layers[CURVES] = {[TRAINED] = r->layer,
                                              [PLAIN] = constructed(descent_of(r->mb, r->t->gd, MB_FLOAT32)),
                                              [PLUS] =
                                                  constructed(descent_of(r->mb, r->t->plus, MB_FLOAT32))};
    for (int i = 0; i < CURVES; i++) {
        mb_linear_transformer once = mb_self_attention_products(layers[i]);
        once.options.scale = damping;
        once.options.layers = 1; /* the first is all of them */
        mb_tensor z = tokens_of(t);
        for (int k = 1; k <= TIMES && !stop_wanted(); k++) {
            mb_scope scope = mb_scope_begin(r->mb);
            mb_tensor next = mb_linear_transformer_apply(once, z);
            mb_tensor guess = mb_neg(mb_reshape(mb_slice(mb_slice(next, 1, PAIRS, 1, 1), 2, D, 1, 1),
                                                MB_SHAPE(set.validation, 1)));
            series_add(&r->t->sweep[ROLL_OUT][i], k, mb_item(loss_of(guess, t)));
            z = mb_detach(next);
            mb_scope_end(scope);
        }
    }
}

static void sweep(run *r)
{
    for (int i = 0; i <= 50; i++) {
        double scale = 0.5 + 0.03 * i;
        out_of_distribution(r, SCALE_X, scale, (drawing){.x_scale = scale, .w_scale = 1});
        out_of_distribution(r, SCALE_MIXED, scale,
                            (drawing){.inputs = MIXED, .x_scale = scale, .w_scale = 1});
    }
    for (int i = 0; i <= 45; i++) {
        double scale = 0.5 + 0.1 * i;
        out_of_distribution(r, SCALE_W, scale, (drawing){.x_scale = 1, .w_scale = scale});
    }
    if (!r->m->tied)
        return;
    for (int i = 0; i <= 20; i++) {
        double share = 0.05 * i;
        mb_scope scope = mb_scope_begin(r->mb);
        mb_linear_transformer mixed = between(r, mb_scalar(r->mb, MB_FLOAT32, share));
        mb_tensor guess = mb_linear_transformer_predict(mixed, tokens_of(r->validation));
        series_add(&r->t->sweep[MIX][TRAINED], share, mb_item(loss_of(guess, r->validation)));
        mb_scope_end(scope);
    }
    roll_out(r);
}

void run_trial(trial *t)
{
    const model *m = &models[t->model];
    run r = {.t = t, .m = m, .mb = open_context()};
    double started = now();
    mb_params *p = mb_params_new(r.mb, (uint64_t)t->seed);
    r.layer = mb_self_attention_new(
        p, "attention",
        (mb_self_attention_options){.dim = D, .layers = m->layers, .tied = m->tied, .clip = m->clip});
    /* Prompts far in the tail can take a deep layer's gradient beyond float32. Such a batch counts for
     * nothing, and is counted; an optimiser that saw it would never be rid of it. */
    mb_optimizer *adam = mb_adam(
        p,
        (mb_adam_options){.lr = m->lr, .beta1 = 0.9, .beta2 = 0.98, .clip_norm = m->clip_norm, .skip = true});
    r.validation = draw_tasks(r.mb, key_of(set.first_seed, STREAM_VALIDATION, 0),
                              as_trained(MB_FLOAT32, set.validation));
    r.guess = descend(descent_of(r.mb, reference(t), MB_FLOAT32), r.validation);
    mb_grad(r.guess, &r.validation.query, 1, &r.sensitivity);
    tasks *v = &r.validation;
    mb_eval((mb_tensor[]){v->x, v->query, v->y, v->answer, r.guess, r.sensitivity}, 6); /* kept */

    for (int64_t step = 0; step < t->steps && !stop_wanted() && mb_error(r.mb) == MB_OK; step++) {
        if (step % set.every == 0)
            measure(&r, step);
        mb_scope scope = mb_scope_begin(r.mb);
        tasks batch =
            draw_tasks(r.mb, key_of(t->seed, STREAM_TRAINING, step), as_trained(MB_FLOAT32, set.batch));
        mb_step(adam, loss_of(mb_self_attention_predict(r.layer, tokens_of(batch)), batch));
        mb_scope_end(scope); /* everything is computed here */
        jobs_advance(m->layers);
    }
    t->skipped = mb_optimizer_skipped(adam);
    t->complete = !stop_wanted();
    if (t->complete) {
        measure(&r, t->steps);
        sweep(&r);
    }
    stop_at_error(r.mb);
    mb_optimizer_free(adam);
    mb_params_free(p);
    mb_close(r.mb);
    t->seconds = now() - started;
}

int64_t trial_units(const trial *t)
{
    return t->steps * models[t->model].layers;
}
