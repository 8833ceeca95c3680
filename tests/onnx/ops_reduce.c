/* SPDX-License-Identifier: MIT
 *
 * ops_reduce.c - reductions, running sums, softmax. */
#include "compose.h"

/* ---- along axes ---- */

/* No axes: all of them, or none at all where the attribute says so. */
static mb_axes reduced_axes(call *c)
{
    mb_axes axes = axes_from(c, "axes", 1);
    if (axes.count <= 0)
        axes.count = attribute_int(c, "noop_with_empty_axes", 0) ? 0 : -1;
    axes.keep = attribute_int(c, "keepdims", 1) != 0;
    return axes;
}

#define REDUCTION(name, expression)                                                                          \
    static void name##_op(call *c)                                                                           \
    {                                                                                                        \
        mb_tensor x = input(c, 0);                                                                           \
        mb_axes axes = reduced_axes(c);                                                                      \
        if (x.ctx)                                                                                           \
            give(c, 0, expression);                                                                          \
    }

REDUCTION(reduce_sum, mb_sum(x, axes))
REDUCTION(reduce_mean, mb_mean(x, axes))
REDUCTION(reduce_max, mb_max(x, axes))
REDUCTION(reduce_min, mb_min(x, axes))
REDUCTION(reduce_prod, mb_prod(x, axes))
REDUCTION(reduce_l1, mb_sum(mb_abs(x), axes))
REDUCTION(reduce_l2, mb_sqrt(mb_sum(mb_square(x), axes)))
REDUCTION(reduce_log_sum, mb_log(mb_sum(x, axes)))
REDUCTION(reduce_log_sum_exp, mb_logsumexp(x, axes))
REDUCTION(reduce_sum_square, mb_sum(mb_square(x), axes))

static void global_pool(call *c, bool largest)
{
    mb_tensor x = input(c, 0);
    mb_axes axes = {.keep = true};
    for (int i = 2; i < mb_shape_of(x).rank; i++)
        axes.axis[axes.count++] = i;
    give(c, 0, largest ? mb_max(x, axes) : mb_mean(x, axes));
}

static void global_average_pool_op(call *c)
{
    global_pool(c, false);
}

static void global_max_pool_op(call *c)
{
    global_pool(c, true);
}

/* ---- along one axis ---- */

/* exclusive: each sum without its own entry: the sums, one entry later. */
static void cum_sum_op(call *c)
{
    mb_tensor x = input(c, 0);
    int axis = axis_of(host_int(c, 1, 0), mb_shape_of(x).rank);
    bool reverse = attribute_int(c, "reverse", 0) != 0, exclusive = attribute_int(c, "exclusive", 0) != 0;
    mb_tensor y = mb_cumsum(x, axis, reverse);
    if (exclusive)
        y = padded(y, axis, reverse ? -1 : 1, reverse ? 1 : -1, 0);
    give(c, 0, y);
}

/* Up to opset 12 all axes from `axis` on are taken as one. */
static void softmax_like(call *c, mb_tensor (*f)(const char *where, mb_tensor x, int axis))
{
    mb_tensor x = input(c, 0);
    mb_shape shape = mb_shape_of(x);
    int axis = axis_of(attribute_int(c, "axis", c->opset < 13 ? 1 : -1), shape.rank);
    if (c->opset >= 13)
        give(c, 0, f(MB_HERE, x, axis));
    else
        give(c, 0, mb_reshape(f(MB_HERE, flattened(x, axis, shape.rank), axis), shape));
}

static void softmax_op(call *c)
{
    softmax_like(c, mb_softmax_at);
}

static void log_softmax_op(call *c)
{
    softmax_like(c, mb_log_softmax_at);
}

const op reduce_ops[] = {
    {"CumSum", cum_sum_op, false},
    {"GlobalAveragePool", global_average_pool_op, false},
    {"GlobalMaxPool", global_max_pool_op, true},
    {"LogSoftmax", log_softmax_op, false},
    {"ReduceL1", reduce_l1_op, false},
    {"ReduceL2", reduce_l2_op, false},
    {"ReduceLogSum", reduce_log_sum_op, false},
    {"ReduceLogSumExp", reduce_log_sum_exp_op, false},
    {"ReduceMax", reduce_max_op, true},
    {"ReduceMean", reduce_mean_op, false},
    {"ReduceMin", reduce_min_op, true},
    {"ReduceProd", reduce_prod_op, false},
    {"ReduceSum", reduce_sum_op, false},
    {"ReduceSumSquare", reduce_sum_square_op, false},
    {"Softmax", softmax_op, false},
    {0},
};
