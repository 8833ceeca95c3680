/* SPDX-License-Identifier: MIT */
#include "compose.h"

mb_tensor literal_like(mb_tensor x, double value)
{
    return mb_full(x.ctx, mb_dtype_of(x), MB_SHAPE0, value);
}

mb_tensor ints(call *c, mb_shape shape, const int64_t *numbers)
{
    int64_t count = 1;
    for (int i = 0; i < shape.rank; i++)
        count *= shape.dim[i];
    int32_t *small = ARENA_NEW(c->run->memory, int32_t, count);
    for (int64_t i = 0; i < count; i++) {
        small[i] = (int32_t)numbers[i];
        if (small[i] != numbers[i])
            return leave(c, "integers beyond int32");
    }
    return mb_from(c->mb, MB_INT32, shape, small);
}

mb_tensor floats(call *c, mb_dtype dtype, mb_shape shape, const double *numbers)
{
    mb_tensor t = mb_from(c->mb, MB_FLOAT64, shape, numbers);
    return dtype == MB_FLOAT64 ? t : mb_cast(t, dtype);
}

/* ---- numbers ---- */

bool is_float(mb_tensor x)
{
    return mb_dtype_of(x) == MB_FLOAT32 || mb_dtype_of(x) == MB_FLOAT64;
}

static bool narrow_range(int elem, double *low, double *high)
{
    static const struct {
        int elem;
        double low, high;
    } ranges[] = {
        {ELEM_UINT8, 0, 255}, {ELEM_INT8, -128, 127}, {ELEM_UINT16, 0, 65535}, {ELEM_INT16, -32768, 32767}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (ranges[i].elem == elem) {
            *low = ranges[i].low;
            *high = ranges[i].high;
            return true;
        }
    return false;
}

mb_tensor wrapped(mb_tensor x, int elem)
{
    double low, high;
    if (!narrow_range(elem, &low, &high))
        return x;
    mb_tensor shifted = mb_sub(x, low);
    return mb_add(mb_mod(shifted, high - low + 1), low);
}

mb_tensor saturated(mb_tensor x, int elem)
{
    double low, high;
    if (!narrow_range(elem, &low, &high))
        return x;
    return mb_minimum(mb_maximum(x, low), high);
}

mb_tensor divided_to_zero(mb_tensor a, mb_tensor b)
{
    return mb_floor_divide(mb_sub(a, mb_fmod(a, b)), b);
}

mb_tensor exclusive_or(mb_tensor a, mb_tensor b)
{
    return mb_and(mb_or(a, b), mb_not(mb_and(a, b)));
}

mb_tensor equal(mb_tensor a, mb_tensor b)
{
    return mb_dtype_of(a) == MB_BOOL ? mb_not(exclusive_or(a, b)) : mb_eq(a, b);
}

/* ---- shapes ---- */

mb_tensor moved(mb_tensor x, int from, int to)
{
    mb_axes order = {.count = mb_shape_of(x).rank};
    for (int i = 0, next = 0; i < order.count; i++) {
        if (next == from)
            next++;
        order.axis[i] = i == to ? from : next++;
    }
    return mb_permute(x, order);
}

mb_tensor padded(mb_tensor x, int axis, int64_t before, int64_t after, double value)
{
    int64_t cut = (before < 0 ? -before : 0), size = mb_dim(x, axis);
    if (before < 0 || after < 0)
        x = mb_slice(x, axis, cut, size - cut + (after < 0 ? after : 0), 1);
    before = before < 0 ? 0 : before;
    after = after < 0 ? 0 : after;
    if (before == 0 && after == 0)
        return x;
    if (value == 0)
        return mb_pad(x, axis, before, after);
    mb_shape shape = mb_shape_of(x);
    shape.dim[axis] = before;
    mb_tensor head = mb_full(x.ctx, mb_dtype_of(x), shape, value);
    shape.dim[axis] = after;
    mb_tensor tail = mb_full(x.ctx, mb_dtype_of(x), shape, value);
    return mb_concat(((mb_tensor[]){head, x, tail}), 3, axis);
}

mb_shape shape_of_sizes(const int64_t *sizes, int rank)
{
    mb_shape s = {.rank = rank <= MB_MAX_RANK ? rank : MB_MAX_RANK};
    for (int i = 0; i < s.rank; i++)
        s.dim[i] = sizes[i];
    return s;
}

mb_tensor flattened(mb_tensor x, int first, int end)
{
    mb_shape from = mb_shape_of(x), to = {.rank = 0};
    for (int i = 0; i < first; i++)
        to.dim[to.rank++] = from.dim[i];
    int64_t joined = 1;
    for (int i = first; i < end; i++)
        joined *= from.dim[i];
    to.dim[to.rank++] = joined;
    for (int i = end; i < from.rank; i++)
        to.dim[to.rank++] = from.dim[i];
    return mb_reshape(x, to);
}

mb_tensor along(mb_tensor v, int axis, int rank)
{
    mb_shape shape = {.rank = rank};
    for (int i = 0; i < rank; i++)
        shape.dim[i] = i == axis ? mb_count(v) : 1;
    return mb_reshape(v, shape);
}

mb_tensor from_first(mb_tensor index, int64_t size)
{
    return mb_where(mb_lt(index, literal_like(index, 0)), mb_add(index, (double)size), index);
}
