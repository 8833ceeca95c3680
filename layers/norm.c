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

/* x / sqrt(mean(x^2) + eps). Of halves, what is added up, and what is one number a row, is float32; what has
 * x's size is half, since derivatives keep it. */
static mb_tensor to_unit_mean_square(mb_tensor x, double eps)
{
    mb_tensor square = mb_mean(mb_square(mb__wide(x)), MB_KEEP(-1));
    mb_tensor factor = mb_rsqrt(mb_add(square, mb__literal(square, eps)));
    return mb__narrow(mb_mul(mb__wide(x), factor), x);
}

mb_tensor mb_layer_normalize_at(const char *site, mb_tensor x, mb_tensor scale, mb_tensor bias, double eps)
{
    MB__APPLY(site, "layer_normalize", {"x", x, MB__NEEDED}, {"scale", scale, MB__OPTIONAL},
              {"bias", bias, MB__OPTIONAL});
    mb_tensor centred = mb__narrow(mb_sub(mb__wide(x), mb_mean(mb__wide(x), MB_KEEP(-1))), x);
    return scale_and_shift(to_unit_mean_square(centred, eps), mb__as(scale, x), mb__as(bias, x));
}

mb_tensor mb_rms_normalize_at(const char *site, mb_tensor x, mb_tensor scale, double eps)
{
    MB__APPLY(site, "rms_normalize", {"x", x, MB__NEEDED}, {"scale", scale, MB__OPTIONAL});
    return scale_and_shift(to_unit_mean_square(x, eps), mb__as(scale, x), (mb_tensor){0});
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
    MB__APPLY(site, "layer_norm", {"x", x, MB__NEEDED}, {"layer.scale", layer.scale, MB__NEEDED},
              {"layer.bias", layer.bias, MB__OPTIONAL});
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
    MB__APPLY(site, "rms_norm", {"x", x, MB__NEEDED}, {"layer.scale", layer.scale, MB__NEEDED});
    mb_tensor y = {0};
    if (check_dim(x, layer.scale, "rms_norm"))
        y = mb_rms_normalize(x, layer.scale, layer.eps);
    return y;
}
