/* SPDX-License-Identifier: MIT
 *
 * ops_movement.c - the same elements in other places. */
#include "compose.h"

/* 0: the size there was, unless allowzero; -1: what is left. */
static mb_shape reshaped(const call *c, mb_shape from, const int64_t *sizes, int n)
{
    mb_shape to = shape_of_sizes(sizes, n);
    for (int i = 0; i < to.rank; i++)
        if (to.dim[i] == 0 && !attribute_int(c, "allowzero", 0) && i < from.rank)
            to.dim[i] = from.dim[i];
    return to;
}

static void reshape_op(call *c)
{
    mb_tensor x = input(c, 0);
    int n = 0;
    const int64_t *sizes = c->n_in > 1 ? host_ints(c, 1, &n) : attribute_ints(c, "shape", &n);
    if (x.ctx && (sizes || n == 0))
        give(c, 0, mb_reshape(x, reshaped(c, mb_shape_of(x), sizes, n)));
}

static void flatten_op(call *c)
{
    mb_tensor x = input(c, 0);
    int rank = mb_shape_of(x).rank, axis = axis_of(attribute_int(c, "axis", 1), rank);
    int64_t rows = 1;
    for (int i = 0; i < axis; i++)
        rows *= mb_dim(x, i);
    give(c, 0, mb_reshape(x, MB_SHAPE(rows, rows > 0 ? mb_count(x) / rows : 0)));
}

static void transpose_op(call *c)
{
    mb_tensor x = input(c, 0);
    mb_axes order = axes_from(c, "perm", -1);
    int rank = mb_shape_of(x).rank;
    for (int i = 0; order.count < 0 && i < rank; i++)
        order.axis[i] = rank - 1 - i;
    order.count = rank;
    give(c, 0, mb_permute(x, order));
}

/* marked[i]: axis i is among them. */
static void mark(mb_axes axes, int rank, bool marked[MB_MAX_RANK])
{
    for (int i = 0; i < MB_MAX_RANK; i++)
        marked[i] = false;
    for (int i = 0; i < axes.count; i++) {
        int axis = axis_of(axes.axis[i], rank);
        if (axis >= 0 && axis < MB_MAX_RANK)
            marked[axis] = true;
    }
}

static void squeeze_op(call *c)
{
    mb_tensor x = input(c, 0);
    mb_axes axes = axes_from(c, "axes", 1);
    int rank = mb_shape_of(x).rank;
    bool marked[MB_MAX_RANK];
    mark(axes, rank, marked);
    for (int i = rank - 1; i >= 0; i--)
        if (axes.count < 0 ? mb_dim(x, i) == 1 : marked[i])
            x = mb_squeeze(x, i);
    give(c, 0, x);
}

static void unsqueeze_op(call *c)
{
    mb_tensor x = input(c, 0);
    mb_axes axes = axes_from(c, "axes", 1);
    int rank = mb_shape_of(x).rank + axes.count;
    bool marked[MB_MAX_RANK];
    mark(axes, rank, marked);
    for (int i = 0; i < rank && i < MB_MAX_RANK; i++)
        if (marked[i])
            x = mb_unsqueeze(x, i);
    give(c, 0, x);
}

static void expand_op(call *c)
{
    mb_tensor x = input(c, 0);
    int n;
    int64_t *sizes = host_ints(c, 1, &n);
    if (!x.ctx || !sizes)
        return;
    mb_shape from = mb_shape_of(x), to = shape_of_sizes(sizes, n);
    while (to.rank < from.rank) { /* the sizes broadcast with x's, in both directions */
        for (int i = to.rank++; i > 0; i--)
            to.dim[i] = to.dim[i - 1];
        to.dim[0] = 1;
    }
    for (int i = 0; i < from.rank; i++)
        if (to.dim[to.rank - from.rank + i] == 1)
            to.dim[to.rank - from.rank + i] = from.dim[i];
    give(c, 0, mb_broadcast(x, to));
}

/* Repeats along an axis: a new axis of that size in front of it. */
static mb_tensor repeated(mb_tensor x, int axis, int64_t times)
{
    mb_tensor y = mb_unsqueeze(x, axis);
    mb_shape shape = mb_shape_of(y);
    shape.dim[axis] = times;
    return flattened(mb_broadcast(y, shape), axis, axis + 2);
}

static void tile_op(call *c)
{
    mb_tensor x = input(c, 0);
    int n;
    int64_t *times = host_ints(c, 1, &n);
    if (!x.ctx || !times)
        return;
    for (int i = 0; i < n; i++)
        x = repeated(x, i, times[i]);
    give(c, 0, x);
}

static void concat_op(call *c)
{
    mb_tensor *xs = ARENA_NEW(c->run->memory, mb_tensor, c->n_in);
    for (int i = 0; i < c->n_in; i++)
        xs[i] = input(c, i);
    give(c, 0, mb_concat(xs, c->n_in, (int)attribute_int(c, "axis", 1)));
}

static void split_op(call *c)
{
    mb_tensor x = input(c, 0);
    int axis = axis_of(attribute_int(c, "axis", 0), mb_shape_of(x).rank), n = 0;
    const int64_t *sizes = has(c, 1) ? host_ints(c, 1, &n) : attribute_ints(c, "split", &n);
    int64_t size = mb_dim(x, axis), each = (size + c->n_out - 1) / c->n_out, start = 0;
    for (int i = 0; i < c->n_out; i++) {
        int64_t count = sizes && i < n ? sizes[i] : size - start < each ? size - start : each;
        give(c, i, mb_slice(x, axis, start, count, 1));
        start += count;
    }
}

/* ---- slices ---- */

static int64_t within(int64_t i, int64_t low, int64_t high)
{
    return i < low ? low : i > high ? high : i;
}

/* As Python's x[start:end:step] on an axis: bounds beyond its ends are moved to them. */
static mb_tensor sliced(mb_tensor x, int axis, int64_t start, int64_t end, int64_t step)
{
    int64_t size = mb_dim(x, axis), low = step > 0 ? 0 : -1, high = step > 0 ? size : size - 1;
    start = within(start < 0 ? start + size : start, low < 0 ? 0 : low, high);
    end = end < -size ? low : within(end < 0 ? end + size : end, low, high);
    int64_t count = step > 0 ? (end - start + step - 1) / step : (start - end - step - 1) / -step;
    return mb_slice(x, axis, count > 0 ? start : 0, count > 0 ? count : 0, step);
}

/* Bounds are attributes up to opset 9. */
static void slice_op(call *c)
{
    mb_tensor x = input(c, 0);
    int n, ends, steps = 0;
    const int64_t *start = c->n_in > 1 ? host_ints(c, 1, &n) : attribute_ints(c, "starts", &n);
    const int64_t *end = c->n_in > 1 ? host_ints(c, 2, &ends) : attribute_ints(c, "ends", &ends);
    const int64_t *step = has(c, 4) ? host_ints(c, 4, &steps) : NULL;
    mb_axes axes = axes_from(c, "axes", 3);
    if (!x.ctx || !start || !end)
        return;
    for (int i = 0; i < n; i++) {
        int axis = axis_of(axes.count < 0 ? i : axes.axis[i], mb_shape_of(x).rank);
        x = sliced(x, axis, start[i], end[i], step ? step[i] : 1);
    }
    give(c, 0, x);
}

/* ---- padding ---- */

/* For each entry of the padded axis the one of x that it shows: the nearest, or mirrored at the ends. */
static mb_tensor padded_from_inside(call *c, mb_tensor x, int axis, int64_t before, int64_t after)
{
    int64_t size = mb_dim(x, axis), out = size + before + after;
    bool mirror = attribute_is(c, "mode", "reflect", "constant");
    int64_t *from = ARENA_NEW(c->run->memory, int64_t, out > 0 ? out : 0);
    for (int64_t i = 0; i < out; i++) {
        int64_t at = i - before, last = size - 1;
        if (mirror && at < 0)
            at = -at;
        if (mirror && at > last)
            at = 2 * last - at;
        from[i] = within(at, 0, last);
    }
    return mb_take(x, ints(c, MB_SHAPE(out), from), axis);
}

/* By the value that is given, which may be differentiated, or is an attribute up to opset 10. */
static mb_tensor padded_with(call *c, mb_tensor x, int axis, int64_t before, int64_t after)
{
    if (!has(c, 2) || before < 0 || after < 0)
        return padded(x, axis, before, after,
                      has(c, 2) ? *read_reals(c, input(c, 2)) : attribute_float(c, "value", 0));
    mb_tensor value = mb_reshape(input(c, 2), MB_SHAPE0);
    mb_shape head = mb_shape_of(x), tail = head;
    head.dim[axis] = before;
    tail.dim[axis] = after;
    return mb_concat(((mb_tensor[]){mb_broadcast(value, head), x, mb_broadcast(value, tail)}), 3, axis);
}

static void pad_op(call *c)
{
    mb_tensor x = input(c, 0);
    int n = 0, rank = mb_shape_of(x).rank;
    const int64_t *pads = c->n_in > 1 ? host_ints(c, 1, &n) : attribute_ints(c, "pads", &n);
    bool constant = attribute_is(c, "mode", "constant", "constant");
    if (!x.ctx || n != 2 * rank)
        return;
    for (int i = 0; i < rank; i++) {
        int64_t before = pads[i], after = pads[rank + i];
        if (before == 0 && after == 0)
            continue;
        x = constant ? padded_with(c, x, i, before, after) : padded_from_inside(c, x, i, before, after);
    }
    give(c, 0, x);
}

/* ---- blocks of space as channels ---- */

static void depth_to_space_op(call *c)
{
    mb_tensor x = input(c, 0);
    int64_t b = attribute_int(c, "blocksize", 1), n = mb_dim(x, 0), h = mb_dim(x, 2), w = mb_dim(x, 3);
    int64_t depth = mb_dim(x, 1) / (b * b);
    if (attribute_is(c, "mode", "CRD", "DCR"))
        x = mb_permute(mb_reshape(x, MB_SHAPE(n, depth, b, b, h, w)), MB_AXES(0, 1, 4, 2, 5, 3));
    else
        x = mb_permute(mb_reshape(x, MB_SHAPE(n, b, b, depth, h, w)), MB_AXES(0, 3, 4, 1, 5, 2));
    give(c, 0, mb_reshape(x, MB_SHAPE(n, depth, h * b, w * b)));
}

static void space_to_depth_op(call *c)
{
    mb_tensor x = input(c, 0);
    int64_t b = attribute_int(c, "blocksize", 1), n = mb_dim(x, 0), depth = mb_dim(x, 1);
    int64_t h = mb_dim(x, 2) / b, w = mb_dim(x, 3) / b;
    x = mb_permute(mb_reshape(x, MB_SHAPE(n, depth, h, b, w, b)), MB_AXES(0, 3, 5, 1, 2, 4));
    give(c, 0, mb_reshape(x, MB_SHAPE(n, depth * b * b, h, w)));
}

const op movement_ops[] = {
    {"Concat", concat_op, true},
    {"DepthToSpace", depth_to_space_op, true},
    {"Expand", expand_op, true},
    {"Flatten", flatten_op, true},
    {"Pad", pad_op, true},
    {"Reshape", reshape_op, true},
    {"Slice", slice_op, true},
    {"SpaceToDepth", space_to_depth_op, true},
    {"Split", split_op, true},
    {"Squeeze", squeeze_op, true},
    {"Tile", tile_op, true},
    {"Transpose", transpose_op, true},
    {"Unsqueeze", unsqueeze_op, true},
    {0},
};
