/* SPDX-License-Identifier: MIT
 * channel_norm.c - norms with a scale for each channel, over batches and over groups of channels; dropout. */
#include "layers/conv.h"
#include "layers/internal.h"

/* channels as an axis of x from 0 on, or -1 after reporting: also where scale or bias is not [C]. */
static int channel_axis(const char *name, mb_tensor x, int channels, mb_tensor scale, mb_tensor bias)
{
    mb_shape s = mb_shape_of(x);
    int axis = channels < 0 ? channels + s.rank : channels;
    mb_dtype dtype = mb_dtype_of(x);
    char text[MB__SHAPE_TEXT], other[MB__SHAPE_TEXT];
    if (axis < 0 || axis >= s.rank || !mb__is_floats(dtype)) {
        mb_fail(x.ctx, MB_INVALID, "%s: got %s %s, channels on axis %d; wanted floats with that axis", name,
                mb__shape(text, x), mb_dtype_name(dtype), channels);
        return -1;
    }
    const mb_tensor affine[2] = {scale, bias};
    for (int i = 0; i < 2; i++) {
        mb_shape a = mb_shape_of(affine[i]);
        if (!affine[i].ctx || (a.rank == 1 && a.dim[0] == s.dim[axis]))
            continue;
        mb_fail(x.ctx, MB_INVALID, "%s: got x %s, channels on axis %d, and %s %s; wanted [%lld]", name,
                mb__shape(text, x), axis, i ? "bias" : "scale", mb__shape(other, affine[i]),
                (long long)s.dim[axis]);
        return -1;
    }
    return axis;
}

/* t: [C] with an axis for each of x's, of size 1 but for the channels. */
static mb_tensor along(mb_tensor x, int axis, mb_tensor t)
{
    mb_shape s = {mb_shape_of(x).rank, {1, 1, 1, 1, 1, 1, 1, 1}};
    s.dim[axis] = mb_dim(x, axis);
    return mb_reshape(t, s);
}

static mb_tensor scale_and_shift(mb_tensor y, int axis, mb_tensor scale, mb_tensor bias)
{
    if (scale.ctx && mb_valid(y))
        y = mb_mul(y, along(y, axis, mb__as(scale, y)));
    if (bias.ctx && mb_valid(y))
        y = mb_add(y, along(y, axis, mb__as(bias, y)));
    return y;
}

static mb_axes all_but(int rank, int axis, bool keep)
{
    mb_axes axes = {0, keep, {0}};
    for (int i = 0; i < rank; i++)
        if (i != axis)
            axes.axis[axes.count++] = i;
    return axes;
}

/* Of halves, means and variances are float32, and what has x's size is half: see norm.c. */
static mb_tensor minus(mb_tensor x, mb_tensor mean)
{
    return mb__narrow(mb_sub(mb__wide(x), mean), x);
}

static mb_tensor mean_square(mb_tensor centred, mb_axes axes)
{
    return mb_mean(mb_square(mb__wide(centred)), axes);
}

/* (x - mean) / sqrt(variance + eps) */
static mb_tensor standard(mb_tensor centred, mb_tensor variance, double eps)
{
    if (!mb_valid(centred) || !mb_valid(variance))
        return mb__failed(centred.ctx);
    mb_tensor factor = mb_rsqrt(mb_add(variance, mb__literal(variance, eps)));
    return mb__narrow(mb_mul(mb__wide(centred), factor), centred);
}

mb_tensor mb_batch_normalize_at(const char *site, mb_tensor x, int channels, mb_tensor scale, mb_tensor bias,
                                double eps, mb_tensor *mean, mb_tensor *variance)
{
    if (mean)
        *mean = (mb_tensor){0};
    if (variance)
        *variance = (mb_tensor){0};
    MB__APPLY(site, "batch_normalize", {"x", x, MB__NEEDED}, {"scale", scale, MB__OPTIONAL},
              {"bias", bias, MB__OPTIONAL});
    int axis = channel_axis("batch_normalize", x, channels, scale, bias);
    if (axis < 0)
        return (mb_tensor){0};
    mb_axes rest = all_but(mb_shape_of(x).rank, axis, true);
    mb_tensor m = mb_mean(mb__wide(x), rest), centred = minus(x, m), v = mean_square(centred, rest);
    if (mean)
        *mean = mb_reshape(m, MB_SHAPE(mb_dim(x, axis)));
    if (variance)
        *variance = mb_reshape(v, MB_SHAPE(mb_dim(x, axis)));
    return scale_and_shift(standard(centred, v, eps), axis, scale, bias);
}

mb_tensor mb_group_normalize_at(const char *site, mb_tensor x, int channels, int64_t groups, mb_tensor scale,
                                mb_tensor bias, double eps)
{
    MB__APPLY(site, "group_normalize", {"x", x, MB__NEEDED}, {"scale", scale, MB__OPTIONAL},
              {"bias", bias, MB__OPTIONAL});
    int axis = channel_axis("group_normalize", x, channels, scale, bias);
    if (axis < 0)
        return (mb_tensor){0};
    mb_shape s = mb_shape_of(x), split = s;
    if (axis == 0 || s.rank == MB_MAX_RANK || groups < 1 || s.dim[axis] % groups) {
        char text[MB__SHAPE_TEXT];
        mb_fail(x.ctx, MB_INVALID,
                "group_normalize: got x %s, channels on axis %d, %lld groups; wanted examples on axis 0, at "
                "most 7 "
                "axes, and groups that divide the channels",
                mb__shape(text, x), axis, (long long)groups);
        return (mb_tensor){0};
    }
    split.dim[axis] = groups;
    for (int i = split.rank++; i > axis + 1; i--)
        split.dim[i] = split.dim[i - 1];
    split.dim[axis + 1] = s.dim[axis] / groups;
    mb_axes rest = {0, true, {0}};
    for (int i = 1; i < split.rank; i++)
        if (i != axis)
            rest.axis[rest.count++] = i;
    mb_tensor y = mb_reshape(x, split), centred = minus(y, mb_mean(mb__wide(y), rest));
    y = standard(centred, mean_square(centred, rest), eps);
    return scale_and_shift(mb_reshape(y, s), axis, scale, bias);
}

/* ---- layers ---- */

/* Enters the name, and makes a scale of ones and a bias of zeros; false after an error. */
static bool begin(mb_params *p, const char *layer, const char *name, int64_t channels, int64_t groups,
                  mb_tensor *scale, mb_tensor *bias)
{
    if (!p)
        return false;
    if (channels < 1 || groups < 1 || channels % groups) {
        mb_fail(mb_params_context(p), MB_INVALID,
                "%s: channels %lld, groups %lld: wanted 1 or more, and groups that divide the channels",
                layer, (long long)channels, (long long)groups);
        return false;
    }
    if (mb_params_enter(p, name) != MB_OK)
        return false;
    *scale = mb_param_no_decay(p, "scale", MB_SHAPE(channels), mb_init_ones());
    *bias = mb_param_no_decay(p, "bias", MB_SHAPE(channels), mb_init_zeros());
    return true;
}

/* A parameter that is not trained. */
static mb_tensor running(mb_params *p, const char *name, int64_t channels, mb_init init)
{
    mb_tensor t = mb_param_no_decay(p, name, MB_SHAPE(channels), init);
    int last = mb_params_count(p) - 1;
    if (mb_valid(t))
        mb_params_freeze(p, mb_params_name(p, last));
    return t;
}

mb_batch_norm mb_batch_norm_new_at(const char *site, mb_params *p, const char *name, int64_t channels)
{
    MB_SITE(mb_params_context(p), site);
    mb_batch_norm layer = {.eps = 1e-5, .momentum = 0.1};
    if (!begin(p, "mb_batch_norm", name, channels, 1, &layer.scale, &layer.bias))
        return layer;
    layer.mean = running(p, "mean", channels, mb_init_zeros());
    layer.variance = running(p, "variance", channels, mb_init_ones());
    mb_params_leave(p);
    return layer;
}

/* r + momentum (t - r) */
static void move_towards(mb_tensor r, mb_tensor t, double momentum)
{
    if (mb_valid(r) && mb_valid(t))
        mb_assign(r, mb_add(r, mb_mul(mb_sub(mb_stop_gradient(t), r), mb__literal(r, momentum))));
}

mb_tensor mb_batch_norm_apply_at(const char *site, mb_batch_norm layer, mb_tensor x, int channels,
                                 bool training)
{
    MB__APPLY(site, "batch_norm", {"x", x, MB__NEEDED}, {"layer.scale", layer.scale, MB__NEEDED},
              {"layer.bias", layer.bias, MB__OPTIONAL}, {"layer.mean", layer.mean, MB__NEEDED},
              {"layer.variance", layer.variance, MB__NEEDED});
    int axis = channel_axis("batch_norm", x, channels, layer.scale, layer.mean);
    if (axis < 0)
        return (mb_tensor){0};
    if (!training) {
        mb_tensor centred = minus(x, along(x, axis, layer.mean));
        return scale_and_shift(standard(centred, along(x, axis, layer.variance), layer.eps), axis,
                               layer.scale, layer.bias);
    }
    mb_tensor mean, variance;
    mb_tensor y = mb_batch_normalize(x, axis, layer.scale, layer.bias, layer.eps, &mean, &variance);
    if (!mb_valid(y) || mb_count(x) == 0)
        return y;
    double n = (double)mb_count(x) / (double)mb_dim(x, axis);
    move_towards(layer.mean, mean, layer.momentum);
    if (n > 1)
        variance = mb_mul(variance, mb__literal(variance, n / (n - 1)));
    move_towards(layer.variance, variance, layer.momentum);
    return y;
}

mb_group_norm mb_group_norm_new_at(const char *site, mb_params *p, const char *name, int64_t channels,
                                   int64_t groups)
{
    MB_SITE(mb_params_context(p), site);
    mb_group_norm layer = {.groups = groups, .eps = 1e-5};
    if (begin(p, "mb_group_norm", name, channels, groups, &layer.scale, &layer.bias))
        mb_params_leave(p);
    return layer;
}

mb_tensor mb_group_norm_apply_at(const char *site, mb_group_norm layer, mb_tensor x, int channels)
{
    MB__APPLY(site, "group_norm", {"x", x, MB__NEEDED}, {"layer.scale", layer.scale, MB__NEEDED},
              {"layer.bias", layer.bias, MB__OPTIONAL});
    return mb_group_normalize(x, channels, layer.groups, layer.scale, layer.bias, layer.eps);
}

/* ---- dropout ---- */

mb_tensor mb_dropout_at(const char *site, mb_tensor x, mb_key key, double p, bool training)
{
    MB__APPLY(site, "dropout", {"x", x, MB__NEEDED});
    mb_dtype dtype = mb_dtype_of(x);
    if (!(p >= 0 && p <= 1) || !mb__is_floats(dtype)) {
        mb_fail(x.ctx, MB_INVALID, "dropout: got p %g of %s; wanted 0 to 1, and floats", p,
                mb_dtype_name(dtype));
        return (mb_tensor){0};
    }
    if (!training)
        return x;
    mb_dtype drawn = mb__is_half((int)dtype) ? MB_FLOAT32 : dtype;
    mb_tensor dropped = mb_lt(mb_uniform(x.ctx, key, drawn, mb_shape_of(x)), mb_scalar(x.ctx, drawn, p));
    return mb_where(dropped, mb__literal(x, 0), mb_mul(x, p < 1 ? 1 / (1 - p) : 0));
}
