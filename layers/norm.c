/* SPDX-License-Identifier: MIT
 *
 * norm.c - normalisation over the last axis, as functions and as layers.
 */
#include "layers/internal.h"

static mb_tensor scale_and_shift(mb_tensor y, mb_tensor scale, mb_tensor bias)
{
    if (scale.ctx)
        y = mb_mul(y, scale);
    if (bias.ctx)
        y = mb_add(y, bias);
    return y;
}

/* Halves are normalised in float32. */
static mb_tensor wide(mb_tensor parameter)
{
    return mb__is_half_tensor(parameter) ? mb_cast(parameter, MB_FLOAT32) : parameter;
}

mb_tensor mb_layer_normalize_at(const char *site, mb_tensor x, mb_tensor scale, mb_tensor bias, double eps)
{
    MB_SITE(x.ctx, site);
    if (!mb__usable(x))
        return mb__refused(x);
    if (mb__is_half_tensor(x))
        return mb_cast(mb_layer_normalize(mb_cast(x, MB_FLOAT32), wide(scale), wide(bias), eps),
                       mb_dtype_of(x));
    mb_tensor centred = mb_sub(x, mb_mean(x, MB_KEEP(-1)));
    mb_tensor variance = mb_mean(mb_square(centred), MB_KEEP(-1));
    mb_tensor y = mb_mul(centred, mb_rsqrt(mb_add(variance, mb__literal(x, eps))));
    y = scale_and_shift(y, scale, bias);
    return y;
}

mb_tensor mb_rms_normalize_at(const char *site, mb_tensor x, mb_tensor scale, double eps)
{
    MB_SITE(x.ctx, site);
    if (!mb__usable(x))
        return mb__refused(x);
    if (mb__is_half_tensor(x))
        return mb_cast(mb_rms_normalize(mb_cast(x, MB_FLOAT32), wide(scale), eps), mb_dtype_of(x));
    mb_tensor square = mb_mean(mb_square(x), MB_KEEP(-1));
    mb_tensor y = mb_mul(x, mb_rsqrt(mb_add(square, mb__literal(x, eps))));
    y = scale_and_shift(y, scale, (mb_tensor){0});
    return y;
}

static bool check_size(mb_params *p, const char *layer, int64_t dim)
{
    if (dim < 1)
        mb_fail(mb_params_context(p), MB_INVALID, "%s: dim %lld: must be 1 or more", layer, (long long)dim);
    return dim >= 1;
}

mb_layer_norm mb_layer_norm_new_at(const char *site, mb_params *p, const char *name, int64_t dim)
{
    MB_SITE(mb_params_context(p), site);
    mb_layer_norm layer = {.eps = 1e-6};
    if (!p || !check_size(p, "mb_layer_norm", dim) || mb_params_enter(p, name) != MB_OK)
        return layer;
    layer.scale = mb_param_no_decay(p, "scale", MB_SHAPE(dim), mb_init_ones());
    layer.bias = mb_param_no_decay(p, "bias", MB_SHAPE(dim), mb_init_zeros());
    mb_params_leave(p);
    return layer;
}

/* Checks the sizes: a scale of size 1 would broadcast silently. */
static bool check_dim(mb_tensor x, mb_tensor scale, const char *layer)
{
    if (mb_shape_of(x).rank >= 1 && (!mb_valid(scale) || mb_dim(x, -1) == mb_dim(scale, 0)))
        return true;
    mb_fail(x.ctx, MB_INVALID, "%s: the last axis of x has size %lld, the layer %lld", layer,
            (long long)mb_dim(x, -1), (long long)mb_dim(scale, 0));
    return false;
}

mb_tensor mb_layer_norm_apply_at(const char *site, mb_layer_norm layer, mb_tensor x)
{
    MB_SITE(x.ctx, site);
    if (!mb__usable(x))
        return mb__refused(x);
    mb_tensor y = {0};
    if (check_dim(x, layer.scale, "layer_norm"))
        y = mb_layer_normalize(x, layer.scale, layer.bias, layer.eps);
    return y;
}

mb_rms_norm mb_rms_norm_new_at(const char *site, mb_params *p, const char *name, int64_t dim)
{
    MB_SITE(mb_params_context(p), site);
    mb_rms_norm layer = {.eps = 1e-6};
    if (!p || !check_size(p, "mb_rms_norm", dim) || mb_params_enter(p, name) != MB_OK)
        return layer;
    layer.scale = mb_param_no_decay(p, "scale", MB_SHAPE(dim), mb_init_ones());
    mb_params_leave(p);
    return layer;
}

mb_tensor mb_rms_norm_apply_at(const char *site, mb_rms_norm layer, mb_tensor x)
{
    MB_SITE(x.ctx, site);
    if (!mb__usable(x))
        return mb__refused(x);
    mb_tensor y = {0};
    if (check_dim(x, layer.scale, "rms_norm"))
        y = mb_rms_normalize(x, layer.scale, layer.eps);
    return y;
}
