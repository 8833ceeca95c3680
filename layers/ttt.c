/* SPDX-License-Identifier: MIT
 *
 * ttt.c - parameters of the test-time-training layer. Its forward pass is in ttt_apply.c.
 */
#include "layers/ttt.h"

#include <string.h>

enum { SCANNED = 16 }; /* steps, from which on they are a scan */

static mb_switch decide(mb_switch wanted, bool automatic)
{
    return wanted == MB_AUTO ? (automatic ? MB_ON : MB_OFF) : wanted;
}

static bool check_options(mb_params *p, const mb_ttt_options *o)
{
    mb_context *ctx = mb_params_context(p);
    if (!mb__check_heads(p, "mb_ttt", o->dim, o->heads))
        return false;
    if (o->inner_steps < 0 || o->inner_steps > 1000000 || o->inner_batch < 0)
        mb_fail(
            ctx, MB_INVALID,
            "mb_ttt: inner_steps %d, inner_batch %lld: neither may be negative, and 10^6 steps are the most",
            o->inner_steps, (long long)o->inner_batch);
    else if (o->learner < MB_LEARNER_LINEAR || o->learner > MB_LEARNER_CUSTOM)
        mb_fail(ctx, MB_INVALID, "mb_ttt: %d is not a kind of learner", (int)o->learner);
    else if (o->learner == MB_LEARNER_CUSTOM && (!o->custom.apply || !o->custom.weights || o->custom.n < 1))
        mb_fail(ctx, MB_INVALID, "mb_ttt: a custom learner needs a function and at least one weight");
    else if (o->keep_every < MB_KEEP_LOG)
        mb_fail(ctx, MB_INVALID,
                "mb_ttt: keep_every is %lld; wanted a number of steps, MB_KEEP_SQRT or MB_KEEP_LOG",
                (long long)o->keep_every);
    else if (o->inner_rule < MB_INNER_SGD || o->inner_rule > MB_INNER_ADAM)
        mb_fail(ctx, MB_INVALID, "mb_ttt: %d is not an inner rule", (int)o->inner_rule);
    else
        return true;
    return false;
}

/* [H, shape...] */
static mb_shape with_heads(int64_t heads, mb_shape shape)
{
    mb_shape s = {shape.rank + 1, {heads}};
    memcpy(s.dim + 1, shape.dim, (size_t)shape.rank * sizeof shape.dim[0]);
    return s;
}

/* Copies the learner's shapes and creates its initial weights, unless they are zero. */
static bool make_learner(mb_params *p, mb_ttt *layer)
{
    const mb_ttt_options *o = &layer->options;
    mb_learner_weight rows[4];
    if (o->learner == MB_LEARNER_CUSTOM) {
        layer->learner = o->custom;
    } else {
        bool bias = o->encoder_bias == MB_ON;
        layer->learner.apply = o->learner == MB_LEARNER_LINEAR ? mb__learner_linear : mb__learner_mlp;
        layer->learner.n = mb__learner_rows(o->learner, o->dim / o->heads, bias, rows);
        layer->learner.weights = rows;
    }
    int n = layer->learner.n;
    layer->shapes = mb_params_alloc(p, (size_t)n * sizeof *layer->shapes);
    layer->start = mb_params_alloc(p, 5 * (size_t)n * sizeof *layer->start);
    if (!layer->shapes || !layer->start)
        return false;
    layer->weights = layer->start + n;
    layer->gradients = layer->weights + n;
    layer->state1 = layer->gradients + n;
    layer->state2 = layer->state1 + n;
    for (int i = 0; i < n; i++) {
        const mb_learner_weight *w = &layer->learner.weights[i];
        if (w->shape.rank < 0 || w->shape.rank > MB_MAX_RANK - 2) {
            mb_fail(mb_params_context(p), MB_INVALID,
                    "mb_ttt: weight %d of the learner has %d axes, at most %d can be", i, w->shape.rank,
                    MB_MAX_RANK - 2);
            return false;
        }
        layer->shapes[i] = w->shape;
        if (o->learned_start != MB_ON)
            continue;
        mb_shape shape = with_heads(o->heads, w->shape);
        layer->start[i] = w->no_decay ? mb_param_no_decay(p, w->name, shape, w->init)
                                      : mb_param(p, w->name, shape, w->init);
    }
    layer->learner.weights = NULL; /* the caller's array need not stay valid */
    layer->options.custom.weights = NULL;
    return true;
}

static void make_views(mb_params *p, mb_ttt *layer)
{
    int64_t D = layer->options.dim, H = layer->options.heads, dh = D / H;
    mb_init kernel = mb_init_lecun(D), zeros = mb_init_zeros();
    layer->psi_k = mb_param(p, "psi_k", MB_SHAPE(H, D, dh), kernel);
    layer->psi_b = mb_param_no_decay(p, "psi_b", MB_SHAPE(H, dh), zeros);
    layer->phi_k = mb_param(p, "phi_k", MB_SHAPE(H, D, dh), kernel);
    layer->phi_b = mb_param_no_decay(p, "phi_b", MB_SHAPE(H, dh), zeros);
    layer->g_k = mb_param(p, "g_k", MB_SHAPE(H, dh, D), kernel);
    layer->g_bias = mb_param_no_decay(p, "g_bias", MB_SHAPE(1, D), zeros);
    layer->h_k = mb_param(p, "h_k", MB_SHAPE(H, dh, D), kernel);
    layer->h_bias = mb_param_no_decay(p, "h_bias", MB_SHAPE(1, D), zeros);
    if (layer->options.decoder_norm != MB_ON)
        return;
    layer->norm_scale = mb_param_no_decay(p, "norm_scale", MB_SHAPE(H, D), mb_init_ones());
    layer->norm_bias = mb_param_no_decay(p, "norm_bias", MB_SHAPE(H, D), zeros);
}

mb_ttt *mb_ttt_new_at(const char *site, mb_params *p, const char *name, mb_ttt_options options)
{
    MB_SITE(mb_params_context(p), site);
    if (!p || !check_options(p, &options))
        return NULL;
    size_t T = (size_t)options.inner_steps;
    mb_ttt *layer = mb_params_alloc(p, sizeof *layer);
    double *lr = mb_params_alloc(p, (T ? T : 1) * sizeof *lr);
    if (!layer || !lr)
        return NULL;
    for (size_t t = 0; t < T; t++)
        lr[t] = options.inner_lr ? options.inner_lr[t] : 1;

    bool linear = options.learner == MB_LEARNER_LINEAR;
    options.decoder_norm = decide(options.decoder_norm, !linear);
    options.learned_start = decide(options.learned_start, !linear);
    options.scan = decide(options.scan, options.inner_steps >= SCANNED);
    options.encoder_bias = decide(options.encoder_bias, !linear);
    options.inner_lr = lr;
    layer->options = options;
    layer->lr = lr;
    if (mb_params_enter(p, name) != MB_OK)
        return NULL;
    make_views(p, layer);
    bool made = make_learner(p, layer);
    mb_params_leave(p);
    return made && mb_error(mb_params_context(p)) == MB_OK ? layer : NULL;
}

int mb_ttt_inner_steps(const mb_ttt *layer)
{
    return layer ? layer->options.inner_steps : 0;
}

void mb_ttt_set_inner_lr(mb_ttt *layer, int t, double lr)
{
    if (layer && mb__right_thread(layer->psi_k.ctx, "mb_ttt_set_inner_lr") && t >= 0 &&
        t < layer->options.inner_steps)
        layer->lr[t] = lr;
}
