/* SPDX-License-Identifier: MIT
 *
 * ops_norm.c - normalisations and dropout. */
#include "compose.h"

static mb_tensor normalized(mb_tensor x, mb_tensor mean, mb_tensor variance, double epsilon)
{
    return mb_mul(mb_sub(x, mean), mb_rsqrt(mb_add(variance, epsilon)));
}

/* scale and bias have one entry a channel, axis 1. */
static mb_tensor scaled(call *c, mb_tensor x, int scale, int bias)
{
    int rank = mb_shape_of(x).rank;
    return mb_add(mb_mul(x, along(input(c, scale), 1, rank)), along(input(c, bias), 1, rank));
}

/* Outputs 1 and 2 in training mode: running mean and variance, moved towards the batch's. */
static void batch_norm_op(call *c)
{
    mb_tensor x = input(c, 0), mean = input(c, 3), variance = input(c, 4);
    if (!x.ctx || !mean.ctx || !variance.ctx)
        return;
    int rank = mb_shape_of(x).rank;
    if (attribute_int(c, "training_mode", 0)) {
        mb_axes axes = {.count = 1, .axis = {0}};
        for (int i = 2; i < rank; i++)
            axes.axis[axes.count++] = i;
        double keep = attribute_float(c, "momentum", 0.9);
        mb_tensor own_mean = mb_mean(x, axes), own_variance = mb_variance(x, axes);
        give(c, 1, mb_add(mb_mul(mean, keep), mb_mul(own_mean, 1 - keep)));
        give(c, 2, mb_add(mb_mul(variance, keep), mb_mul(own_variance, 1 - keep)));
        mean = own_mean;
        variance = own_variance;
    }
    mb_tensor y =
        normalized(x, along(mean, 1, rank), along(variance, 1, rank), attribute_float(c, "epsilon", 1e-5));
    give(c, 0, scaled(c, y, 1, 2));
}

static void instance_norm_op(call *c)
{
    mb_tensor x = input(c, 0);
    mb_axes axes = {.keep = true};
    for (int i = 2; i < mb_shape_of(x).rank; i++)
        axes.axis[axes.count++] = i;
    mb_tensor y = normalized(x, mb_mean(x, axes), mb_variance(x, axes), attribute_float(c, "epsilon", 1e-5));
    give(c, 0, scaled(c, y, 1, 2));
}

/* Over the axes from `axis` on, with mb_layer_normalize: they are joined to one last axis. */
static void layer_norm_op(call *c)
{
    mb_tensor x = input(c, 0), scale = input(c, 1);
    if (!x.ctx || !scale.ctx)
        return;
    mb_shape shape = mb_shape_of(x), reduced = shape;
    int axis = axis_of(attribute_int(c, "axis", -1), shape.rank);
    double epsilon = attribute_float(c, "epsilon", 1e-5);
    mb_tensor rows = flattened(x, axis, shape.rank), none = {0};
    scale = flattened(scale, 0, mb_shape_of(scale).rank);
    mb_tensor bias = has(c, 2) ? flattened(input(c, 2), 0, mb_shape_of(input(c, 2)).rank) : none;
    give(c, 0, mb_reshape(mb_layer_normalize(rows, scale, bias, epsilon), shape));
    for (int i = axis; i < shape.rank; i++)
        reduced.dim[i] = 1;
    give(c, 1, mb_reshape(mb_mean(rows, MB_KEEP(axis)), reduced));
    mb_tensor variance = mb_variance(rows, MB_KEEP(axis));
    give(c, 2, mb_reshape(mb_rsqrt(mb_add(variance, epsilon)), reduced));
}

/* (x - mean) / (standard deviation + 1e-9) */
static void mean_variance_op(call *c)
{
    mb_tensor x = input(c, 0);
    mb_axes axes = axes_from(c, "axes", -1);
    if (axes.count < 0)
        axes = (mb_axes){.count = 3, .axis = {0, 2, 3}};
    axes.keep = true;
    mb_tensor deviation = mb_add(mb_sqrt(mb_variance(x, axes)), 1e-9);
    give(c, 0, mb_div(mb_sub(x, mb_mean(x, axes)), deviation));
}

/* Which entries fall out is the generator's own; with a ratio of 0 or outside of training none does. */
static void dropout_op(call *c)
{
    mb_tensor x = input(c, 0);
    int n = 0;
    bool training = false;
    if (has(c, 2))
        training = *host_ints(c, 2, &n) != 0;
    if (training && host_real(c, 1, 0.5) != 0) {
        leave(c, "random draws");
        return;
    }
    give(c, 0, mb_alias(x));
    give(c, 1, mb_full(c->mb, MB_BOOL, mb_shape_of(x), 1));
}

const op norm_ops[] = {
    {"BatchNormalization", batch_norm_op, false},           {"Dropout", dropout_op, true},
    {"InstanceNormalization", instance_norm_op, false},     {"LayerNormalization", layer_norm_op, false},
    {"MeanVarianceNormalization", mean_variance_op, false}, {0},
};
