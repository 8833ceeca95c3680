/* SPDX-License-Identifier: MIT
 *
 * ops_index.c - entries chosen by indices that are given, or by their rank in order. */
#include "compose.h"

#include <string.h>

static void gather_op(call *c)
{
    mb_tensor x = input(c, 0), index = input(c, 1);
    int axis = axis_of(attribute_int(c, "axis", 0), mb_shape_of(x).rank);
    give(c, 0, mb_take(x, from_first(index, mb_dim(x, axis)), axis));
}

static void gather_elements_op(call *c)
{
    mb_tensor x = input(c, 0), index = input(c, 1);
    int axis = axis_of(attribute_int(c, "axis", 0), mb_shape_of(x).rank);
    give(c, 0, mb_gather(x, from_first(index, mb_dim(x, axis)), axis));
}

/* The last axis of index holds a position in x's axes from `first` on; the one number for it, row-major. */
static mb_tensor flat_position(mb_tensor index, mb_shape x, int first)
{
    int last = mb_shape_of(index).rank - 1, k = (int)mb_dim(index, last);
    mb_tensor flat = {0};
    for (int j = 0; j < k; j++) {
        mb_tensor part = mb_squeeze(mb_slice(index, last, j, 1, 1), last);
        part = from_first(part, x.dim[first + j]);
        flat = j == 0 ? part : mb_add(mb_mul(flat, (double)x.dim[first + j]), part);
    }
    return flat;
}

/* Axes in front are a batch, each with indices of its own: its number leads the position. */
static void gather_nd_op(call *c)
{
    mb_tensor x = input(c, 0), index = input(c, 1);
    if (!x.ctx || !index.ctx)
        return;
    mb_shape shape = mb_shape_of(x), chosen = mb_shape_of(index);
    int batch = (int)attribute_int(c, "batch_dims", 0), k = (int)mb_dim(index, -1);
    mb_tensor flat = flat_position(index, shape, batch);
    int64_t inner = 1, rows = 1;
    for (int i = batch; i < batch + k; i++)
        inner *= shape.dim[i];
    for (int i = 0; i < batch; i++)
        rows *= shape.dim[i];
    mb_shape lead = shape_of_sizes(shape.dim, batch), result = shape_of_sizes(chosen.dim, chosen.rank - 1);
    mb_tensor row = mb_reshape(mb_iota(c->mb, MB_INT32, rows), lead);
    while (mb_shape_of(row).rank < result.rank)
        row = mb_unsqueeze(row, mb_shape_of(row).rank);
    flat = mb_add(flat, mb_mul(row, (double)inner));
    give(c, 0, mb_take(flattened(x, 0, batch + k), flat, 0));
}

/* ---- scattering ---- */

/* Of one update after another, for products: entries hit more than once take each in turn. */
static mb_tensor scatter_products(mb_tensor x, mb_tensor index, mb_tensor updates)
{
    int64_t size = mb_dim(x, 0);
    for (int64_t k = 0; k < mb_count(index); k++) {
        mb_tensor at = mb_slice(index, 0, k, 1, 1), factor = mb_slice(updates, 0, k, 1, 1);
        mb_tensor hit = mb_scatter_add(mb_add(mb_mul(factor, 0.0), 1.0), at, 0, size);
        mb_tensor product = mb_mul(x, mb_scatter_add(factor, at, 0, size));
        x = mb_where(mb_lt(literal_like(hit, 0.5), hit), product, x);
    }
    return x;
}

/* x: [n, ...], index: [k], updates: [k, ...]. */
static mb_tensor scattered(call *c, mb_tensor x, mb_tensor index, mb_tensor updates)
{
    const char *how = attribute_text(c, "reduction", "none");
    int64_t size = mb_dim(x, 0);
    if (strcmp(how, "add") == 0)
        return mb_add(x, mb_scatter_add(updates, index, 0, size));
    if (strcmp(how, "mul") == 0)
        return scatter_products(x, index, updates);
    mb_tensor hits = mb_scatter_add(mb_ones(c->mb, MB_INT32, mb_shape_of(updates)), index, 0, size);
    return mb_where(mb_lt(literal_like(hits, 0), hits), mb_scatter_add(updates, index, 0, size), x);
}

static void scatter_elements_op(call *c)
{
    mb_tensor x = input(c, 0), index = input(c, 1), updates = input(c, 2);
    if (!x.ctx || !index.ctx || !updates.ctx)
        return;
    mb_shape shape = mb_shape_of(x);
    const char *how = attribute_text(c, "reduction", "none");
    int axis = axis_of(attribute_int(c, "axis", 0), shape.rank);
    if (strcmp(how, "mul") != 0) {
        mb_tensor at = from_first(index, shape.dim[axis]);
        give(c, 0,
             strcmp(how, "add") ? mb_scatter(x, at, updates, axis)
                                : mb_scatter_add_along(x, at, updates, axis));
        return;
    }
    mb_tensor flat = {0};
    for (int i = 0; i < shape.rank; i++) {
        mb_tensor at = i == axis ? from_first(index, shape.dim[i])
                                 : along(mb_iota(c->mb, MB_INT32, mb_dim(index, i)), i, shape.rank);
        flat = i == 0 ? at : mb_add(mb_mul(flat, (double)shape.dim[i]), at);
    }
    flat = flattened(mb_broadcast(flat, mb_shape_of(index)), 0, shape.rank);
    mb_tensor y = scattered(c, flattened(x, 0, shape.rank), flat, flattened(updates, 0, shape.rank));
    give(c, 0, mb_reshape(y, shape));
}

static void scatter_nd_op(call *c)
{
    mb_tensor x = input(c, 0), index = input(c, 1), updates = input(c, 2);
    if (!x.ctx || !index.ctx || !updates.ctx)
        return;
    mb_shape shape = mb_shape_of(x);
    int k = (int)mb_dim(index, -1), lead = mb_shape_of(index).rank - 1;
    mb_tensor flat = flattened(flat_position(index, shape, 0), 0, lead);
    mb_tensor y = scattered(c, flattened(x, 0, k), flat, flattened(updates, 0, lead));
    give(c, 0, mb_reshape(y, shape));
}

/* ---- by rank in order ---- */

static void top_k_op(call *c)
{
    mb_tensor x = input(c, 0);
    int axis = axis_of(attribute_int(c, "axis", -1), mb_shape_of(x).rank);
    int64_t k = host_int(c, 1, attribute_int(c, "k", 1));
    mb_tensor index, top = mb_topk(x, k, axis, attribute_int(c, "largest", 1) != 0, &index);
    give(c, 0, top);
    give_as(c, 1, index, ELEM_INT64);
}

/* The last of equal ones is the first from behind. */
static void arg_extreme(call *c, bool largest)
{
    mb_tensor x = input(c, 0);
    int axis = axis_of(attribute_int(c, "axis", 0), mb_shape_of(x).rank);
    bool from_behind = attribute_int(c, "select_last_index", 0) != 0;
    x = from_behind ? mb_flip(x, axis) : x;
    mb_tensor at = largest ? mb_argmax(x, axis) : mb_argmin(x, axis);
    if (from_behind)
        at = mb_sub((double)(mb_dim(x, axis) - 1), at);
    if (attribute_int(c, "keepdims", 1))
        at = mb_unsqueeze(at, axis);
    give_as(c, 0, at, ELEM_INT64);
}

static void arg_max_op(call *c)
{
    arg_extreme(c, true);
}

static void arg_min_op(call *c)
{
    arg_extreme(c, false);
}

/* 1 at the largest entry along an axis; up to opset 12 all axes from there on are taken as one. */
static void hardmax_op(call *c)
{
    mb_tensor x = input(c, 0);
    mb_shape shape = mb_shape_of(x);
    int axis = axis_of(attribute_int(c, "axis", c->opset < 13 ? 1 : -1), shape.rank);
    mb_tensor rows = c->opset < 13 ? flattened(x, axis, shape.rank) : moved(x, axis, shape.rank - 1);
    int last = mb_shape_of(rows).rank - 1;
    mb_tensor hot = mb_cast(mb_one_hot(mb_argmax(rows, last), mb_dim(rows, last)), mb_dtype_of(x));
    give(c, 0, c->opset < 13 ? mb_reshape(hot, shape) : moved(hot, last, axis));
}

static void one_hot_op(call *c)
{
    mb_tensor index = input(c, 0), values = input(c, 2);
    int64_t depth = elem_is_float(elem_of(c, 1)) ? (int64_t)host_real(c, 1, 0) : host_int(c, 1, 0);
    if (!index.ctx || !values.ctx)
        return;
    int rank = mb_shape_of(index).rank + 1;
    if (is_float(index))
        index = mb_cast(index, MB_INT32);
    mb_tensor hot = mb_one_hot(from_first(index, depth), depth);
    mb_tensor off = mb_squeeze(mb_slice(values, 0, 0, 1, 1), 0),
              on = mb_squeeze(mb_slice(values, 0, 1, 1, 1), 0);
    hot = moved(mb_where(hot, on, off), rank - 1, axis_of(attribute_int(c, "axis", -1), rank));
    give_as(c, 0, hot, elem_of(c, 2));
}

/* Of time steps below the row's length the order is turned round; the others stay. */
static void reverse_sequence_op(call *c)
{
    mb_tensor x = input(c, 0), lengths = input(c, 1);
    if (!x.ctx || !lengths.ctx)
        return;
    int batch = (int)attribute_int(c, "batch_axis", 1), time = (int)attribute_int(c, "time_axis", 0);
    mb_shape shape = mb_shape_of(x);
    mb_tensor at = along(mb_iota(c->mb, MB_INT32, shape.dim[time]), time, shape.rank);
    mb_tensor length = along(lengths, batch, shape.rank);
    at = mb_where(mb_lt(at, length), mb_sub(mb_sub(length, at), 1.0), at);
    give(c, 0, mb_gather(x, mb_broadcast(at, shape), time));
}

const op index_ops[] = {
    {"ArgMax", arg_max_op, true},
    {"ArgMin", arg_min_op, true},
    {"Gather", gather_op, true},
    {"GatherElements", gather_elements_op, true},
    {"GatherND", gather_nd_op, true},
    {"Hardmax", hardmax_op, true},
    {"OneHot", one_hot_op, true},
    {"ReverseSequence", reverse_sequence_op, true},
    {"Scatter", scatter_elements_op, false},
    {"ScatterElements", scatter_elements_op, false},
    {"ScatterND", scatter_nd_op, false},
    {"TopK", top_k_op, true},
    {0},
};
