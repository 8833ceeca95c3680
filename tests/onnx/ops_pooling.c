/* SPDX-License-Identifier: MIT
 *
 * ops_pooling.c - pools: what the windows show, reduced. */
#include "windows.h"

#include <math.h>

/* The number of x's entries that each window shows, those of the padding counted or not. */
static mb_tensor shown_count(call *c, mb_tensor x, const windows *w)
{
    bool padding = attribute_int(c, "count_include_pad", 0) != 0;
    mb_shape shape = mb_shape_of(x);
    shape.dim[0] = shape.dim[1] = 1;
    mb_tensor ones = mb_ones(c->mb, mb_dtype_of(x), shape);
    windows counted = *w;
    for (int i = 0; padding && i < w->space; i++) {
        ones = padded(ones, 2 + i, w->before[i], w->after[i], 1);
        counted.before[i] = counted.after[i] = 0;
    }
    return mb_sum(look(ones, &counted, 0), MB_AXES(3));
}

static void average_pool_op(call *c)
{
    mb_tensor x = input(c, 0);
    windows w;
    if (!x.ctx || !windows_of(c, &w, mb_shape_of(x), NULL))
        return;
    mb_tensor sum = mb_sum(look(x, &w, 0), MB_AXES(3));
    give(c, 0, placed(mb_div(sum, shown_count(c, x, &w)), &w));
}

/* For each entry of x its number; the fast axis is the last one, or the first of space. */
static mb_tensor entry_numbers(call *c, mb_shape x)
{
    mb_shape shape = x;
    mb_axes order = {.count = x.rank, .axis = {0, 1}};
    bool columns_first = attribute_int(c, "storage_order", 0) != 0;
    for (int i = 2; i < x.rank; i++) {
        shape.dim[i] = columns_first ? x.dim[x.rank + 1 - i] : x.dim[i];
        order.axis[i] = columns_first ? x.rank + 1 - i : i;
    }
    int64_t count = 1;
    for (int i = 0; i < x.rank; i++)
        count *= x.dim[i];
    return mb_permute(mb_reshape(mb_iota(c->mb, MB_INT32, count), shape), order);
}

static void max_pool_op(call *c)
{
    mb_tensor x = input(c, 0);
    windows w;
    if (!x.ctx || !windows_of(c, &w, mb_shape_of(x), NULL))
        return;
    mb_tensor shown = look(x, &w, is_float(x) ? -INFINITY : -2147483648.0);
    give(c, 0, placed(mb_max(shown, MB_AXES(3)), &w));
    if (!wanted(c, 1))
        return;
    mb_tensor at = mb_unsqueeze(mb_argmax(shown, 3), 3);
    mb_tensor numbers = mb_take_along(look(entry_numbers(c, mb_shape_of(x)), &w, 0), at);
    give_as(c, 1, placed(mb_squeeze(numbers, 3), &w), ELEM_INT64);
}

/* Values put back where they were found. The numbers count the entries of the pool's own input, whose size is
 * that without output_shape. */
static void max_unpool_op(call *c)
{
    mb_tensor x = input(c, 0), at = input(c, 1);
    windows w;
    if (!x.ctx || !at.ctx || !window_attributes(c, &w, mb_shape_of(x).rank, NULL))
        return;
    mb_shape shape = mb_shape_of(x);
    int64_t count = shape.dim[0] * shape.dim[1];
    for (int i = 0; i < w.space; i++) {
        shape.dim[2 + i] = (shape.dim[2 + i] - 1) * w.stride[i] + w.kernel[i] - w.before[i] - w.after[i];
        count *= shape.dim[2 + i];
    }
    mb_tensor flat = mb_scatter_add(flattened(x, 0, shape.rank), flattened(at, 0, shape.rank), 0, count);
    mb_tensor y = mb_reshape(flat, shape);
    int n = 0;
    int64_t *sizes = has(c, 2) ? host_ints(c, 2, &n) : NULL;
    for (int i = 0; sizes && i < n; i++)
        y = padded(y, i, 0, sizes[i] - shape.dim[i], 0);
    give(c, 0, y);
}

/* Over `size` neighbouring channels: x / (bias + alpha / size sum of squares)^beta. */
static void lrn_op(call *c)
{
    mb_tensor x = input(c, 0);
    int64_t size = attribute_int(c, "size", 1), channels = mb_dim(x, 1);
    mb_tensor squares = padded(mb_square(x), 1, (size - 1) / 2, size / 2, 0), sum = {0};
    for (int64_t i = 0; i < size; i++) {
        mb_tensor part = mb_slice(squares, 1, i, channels, 1);
        sum = i == 0 ? part : mb_add(sum, part);
    }
    sum =
        mb_add(mb_mul(sum, attribute_float(c, "alpha", 1e-4) / (double)size), attribute_float(c, "bias", 1));
    give(c, 0, mb_div(x, mb_pow(sum, attribute_float(c, "beta", 0.75))));
}

const op pooling_ops[] = {
    {"AveragePool", average_pool_op, false},
    {"LRN", lrn_op, false},
    {"MaxPool", max_pool_op, true},
    {"MaxUnpool", max_unpool_op, true},
    {0},
};
