/* SPDX-License-Identifier: MIT
 *
 * rules.c - update rules and clipping as functions of tensors. The optimisers record them too, so a step is
 * the same in inner and outer loops.
 */
#include "optim/internal.h"

#include <math.h>

static mb_tensor literal(mb_context *ctx, mb_dtype dtype, double value)
{
    return mb_full(ctx, dtype, MB_SHAPE0, value);
}

mb_tensor mb__safe_sqrt(mb_tensor x)
{
    mb_dtype dtype = mb_dtype_of(x);
    mb_tensor zero = literal(x.ctx, dtype, 0), one = literal(x.ctx, dtype, 1);
    mb_tensor none = mb_eq(x, zero);
    return mb__substitute(mb_sqrt(x), mb_where(none, zero, mb_sqrt(mb_where(none, one, x))));
}

static bool have_results(mb_context *ctx, const char *name, bool room)
{
    if (!room)
        mb_fail(ctx, MB_INVALID, "%s: a pointer for a result is NULL", name);
    return room;
}

/* ------------------------------------------------------------------------------------------- updates -- */

mb_tensor mb_sgd_update_at(const char *site, mb_tensor parameter, mb_tensor gradient, mb_tensor lr)
{
    MB_SITE(parameter.ctx, site);
    return mb_sub(parameter, mb_mul(lr, gradient));
}

mb_tensor mb_momentum_update_at(const char *site, mb_tensor parameter, mb_tensor gradient, mb_tensor lr,
                                mb_tensor velocity, double momentum, bool nesterov, mb_tensor *new_velocity)
{
    MB_SITE(parameter.ctx, site);
    mb_context *ctx = mb__context_of((mb_tensor[]){parameter, gradient, velocity}, 3);
    if (new_velocity)
        *new_velocity = (mb_tensor){0};
    if (!ctx || !have_results(ctx, "mb_momentum_update", new_velocity != NULL))
        return (mb_tensor){0};
    const mb__range range = mb__below_1("momentum", momentum);
    mb__check_ranges(ctx, "mb_momentum_update", &range, 1);
    mb_tensor mu = literal(ctx, mb_dtype_of(gradient), momentum);
    mb_tensor v = mb_add(mb_mul(mu, velocity), gradient);
    mb_tensor direction = nesterov ? mb_add(gradient, mb_mul(mu, v)) : v;
    mb_tensor updated = mb_sgd_update(parameter, direction, lr);
    *new_velocity = v;
    return updated;
}

mb__adam_terms mb__adam_terms_of(mb_context *ctx, mb_dtype dtype, mb_tensor lr, double lr_value, int64_t t,
                                 double beta1, double beta2, double eps)
{
    double correction = 1 - pow(beta1, (double)t);
    mb__adam_terms k = {
        .beta1 = literal(ctx, dtype, beta1),
        .beta2 = literal(ctx, dtype, beta2),
        .rest1 = literal(ctx, dtype, 1 - beta1),
        .rest2 = literal(ctx, dtype, 1 - beta2),
        .eps = literal(ctx, dtype, eps),
        .root = mb_scalar(ctx, dtype, 1 / sqrt(1 - pow(beta2, (double)t))),
    };
    if (lr.ctx)
        k.rate = mb_mul(lr, mb_scalar(ctx, dtype, 1 / correction));
    else
        k.rate = mb_scalar(ctx, dtype, lr_value / correction);
    return k;
}

mb_tensor mb__adam_rule(const mb__adam_terms *k, mb_tensor parameter, mb_tensor gradient, mb_tensor *m,
                        mb_tensor *v)
{
    *m = mb_add(mb_mul(k->beta1, *m), mb_mul(k->rest1, gradient));
    *v = mb_add(mb_mul(k->beta2, *v), mb_mul(k->rest2, mb_square(gradient)));
    mb_tensor scale = mb_add(mb_mul(mb__safe_sqrt(*v), k->root), k->eps);
    return mb_sub(parameter, mb_mul(k->rate, mb_div(*m, scale)));
}

/* 1 / (1 - beta^t), without cancellation. t: 0-d, of the dtype that is wanted. */
static mb_tensor correction(mb_tensor t, double beta)
{
    mb_tensor power = mb_mul(t, literal(t.ctx, mb_dtype_of(t), log(beta)));
    return beta > 0 ? mb_recip(mb_neg(mb_expm1(power))) : literal(t.ctx, mb_dtype_of(t), 1);
}

void mb__adam_terms_at_step(mb__adam_terms *k, mb_tensor lr, mb_tensor number, double beta1, double beta2)
{
    k->rate = mb_mul(lr, correction(number, beta1));
    k->root = mb_sqrt(correction(number, beta2));
}

/* An update with the step's number as one of the two: a tensor, or a number. */
static mb_tensor adam_update(const char *name, mb_tensor parameter, mb_tensor gradient, mb_tensor lr,
                             mb_tensor m, mb_tensor v, mb_tensor step, int64_t t,
                             const mb_adam_options *options, mb_tensor *new_m, mb_tensor *new_v)
{
    mb_adam_options o = options ? *options : (mb_adam_options){0};
    mb_context *ctx = mb__context_of((mb_tensor[]){parameter, gradient, lr, m, v, step}, 6);
    mb_tensor updated = {0};
    if (!ctx || !have_results(ctx, name, new_m && new_v)) {
        if (new_m)
            *new_m = updated;
        if (new_v)
            *new_v = updated;
        return updated;
    }
    double beta1 = mb__option(o.beta1, MB__BETA1), beta2 = mb__option(o.beta2, MB__BETA2),
           eps = mb__option(o.eps, MB__EPS);
    mb_dtype dtype = mb_dtype_of(gradient);
    if (t < 1) {
        mb_fail(ctx, MB_INVALID, "%s: step t = %lld, wanted 1 or more", name, (long long)t);
    } else if (!lr.ctx) {
        mb_fail(ctx, MB_INVALID, "%s: lr is not a tensor; mb_scalar makes one of a number", name);
    } else if (mb__check_adam(ctx, name, beta1, beta2, eps)) {
        mb__adam_terms k = mb__adam_terms_of(ctx, dtype, lr, 0, t, beta1, beta2, eps);
        if (step.ctx)
            mb__adam_terms_at_step(&k, lr, mb_cast(step, dtype), beta1, beta2);
        updated = mb__adam_rule(&k, parameter, gradient, &m, &v);
    }
    *new_m = m;
    *new_v = v;
    return updated;
}

mb_tensor mb_adam_update_at(const char *site, mb_tensor parameter, mb_tensor gradient, mb_tensor lr,
                            mb_tensor m, mb_tensor v, int64_t t, const mb_adam_options *options,
                            mb_tensor *new_m, mb_tensor *new_v)
{
    MB_SITE(parameter.ctx, site);
    return adam_update("mb_adam_update", parameter, gradient, lr, m, v, (mb_tensor){0}, t, options, new_m,
                       new_v);
}

mb_tensor mb_adam_update_in_scan_at(const char *site, mb_tensor parameter, mb_tensor gradient, mb_tensor lr,
                                    mb_tensor m, mb_tensor v, mb_tensor t, const mb_adam_options *options,
                                    mb_tensor *new_m, mb_tensor *new_v)
{
    MB_SITE(parameter.ctx, site);
    if (!t.ctx && parameter.ctx)
        mb_fail(parameter.ctx, MB_INVALID,
                "mb_adam_update_in_scan: t is not a tensor; mb_scan_step gives one");
    return adam_update("mb_adam_update_in_scan", parameter, gradient, lr, m, v, t, 1, options, new_m, new_v);
}

/* ------------------------------------------------------------------------------------------ clipping -- */

/* Of n tensors together; its power and sum are []. */
static mb__squares squares_of(const mb_tensor *gs, int n)
{
    mb__squares s = mb__squares_of(gs, n, UINT32_MAX);
    if (n == 1) {
        s.sum = mb_reshape(s.sum, MB_SHAPE0);
        s.power = mb_reshape(s.power, MB_SHAPE0);
    }
    return s;
}

mb_tensor mb_global_norm_at(const char *site, const mb_tensor *gs, int n)
{
    MB_SITE(gs ? gs->ctx : NULL, site);
    mb_context *ctx = gs ? mb__context_of(gs, n) : NULL;
    if (!ctx)
        return (mb_tensor){0};
    mb__squares s = squares_of(gs, n);
    mb_tensor norm = mb__squares_norm(s, mb__squares_root(s));
    return norm;
}

mb_tensor mb_clip_norm_at(const char *site, const mb_tensor *gs, int n, double max_norm, mb_tensor *clipped)
{
    MB_SITE(gs ? gs->ctx : NULL, site);
    mb_context *ctx = gs ? mb__context_of(gs, n) : NULL;
    if (!ctx || !have_results(ctx, "mb_clip_norm", clipped != NULL))
        return (mb_tensor){0};
    if (!(max_norm > 0))
        mb_fail(ctx, MB_INVALID, "mb_clip_norm: max_norm is %g, wanted more than 0", max_norm);
    mb__squares s = squares_of(gs, n);
    mb_tensor root = mb__squares_root(s), norm = mb__squares_norm(s, root);
    mb_tensor most = mb_scalar(ctx, mb_dtype_of(norm), max_norm), one = literal(ctx, mb_dtype_of(norm), 1);
    /* In two factors, power and most / root: the norm may overflow where no clipped element does. NaN is not
     * within, and spreads. */
    mb_tensor within = mb_le(norm, most), first = mb_where(within, one, s.power);
    mb_tensor second = mb_where(within, one, mb_div(most, root));
    for (int i = 0; i < n; i++)
        clipped[i] = mb_mul(mb_mul(gs[i], first), second);
    return norm;
}

mb_tensor mb_clip_value_at(const char *site, mb_tensor g, double limit)
{
    MB_SITE(g.ctx, site);
    if (!(limit >= 0))
        mb_fail(g.ctx, MB_INVALID, "mb_clip_value: limit is %g, wanted 0 or more", limit);
    return mb_minimum(mb_maximum(g, -limit), limit);
}
