/* SPDX-License-Identifier: MIT
 * reduce.c - reductions. On the tape, reduced axes stay with size 1; a reshape drops them. */
#include <math.h>

#include "tensor/internal.h"

mb_tensor mb__reduce(int op, mb_tensor x, uint32_t mask)
{
    mb_context *ctx = x.ctx;
    if (mb__halved(x))
        return mb__narrow(mb__reduce(op, mb__wide(x), mask), x);
    const mb__node *n = mb__at(ctx, x.id);
    int64_t dim[MB_MAX_RANK], attr = mask;
    bool trivial = true;
    for (int i = 0; i < n->rank; i++) {
        trivial &= !(mask >> i & 1) || n->dim[i] == 1;
        dim[i] = mask >> i & 1 ? 1 : n->dim[i];
    }
    if (trivial)
        return x;
    return mb__record(ctx, op, (mb_dtype)n->dtype, n->rank, dim, &x, 1, &attr, 1);
}

/* The set of axes as bits; false after reporting. */
bool mb__axes_mask(const char *op, mb_tensor x, mb_axes axes, uint32_t *mask)
{
    int rank = mb__at(x.ctx, x.id)->rank;
    *mask = 0;
    if (axes.count < 0) {
        *mask = (1u << rank) - 1;
        return true;
    }
    if (axes.count > MB_MAX_RANK) {
        mb__error(x.ctx, MB_INVALID, "%s: got %d axes", op, axes.count);
        return false;
    }
    for (int i = 0; i < axes.count; i++) {
        int a = mb__axis(op, x, axes.axis[i]);
        if (a < 0)
            return false;
        if (*mask >> a & 1) {
            mb__error(x.ctx, MB_INVALID, "%s: axis %d is named twice", op, a);
            return false;
        }
        *mask |= 1u << a;
    }
    return true;
}

mb_tensor mb__drop_axes(mb_tensor x, uint32_t mask)
{
    if (!x.id)
        return x;
    const mb__node *n = mb__at(x.ctx, x.id);
    mb_shape s = {0, {0}};
    for (int i = 0; i < n->rank; i++)
        if (!(mask >> i & 1))
            s.dim[s.rank++] = n->dim[i];
    return mb_reshape(x, s);
}

static mb_tensor reduce(const char *name, int op, mb_tensor x, mb_axes axes, bool floats, int64_t *reduced)
{
    mb_tensor poison;
    mb_context *ctx = mb__enter(name, (const mb_tensor *[]){&x}, 1, &poison);
    uint32_t mask;
    if (!ctx)
        return poison;
    if (mb__at(ctx, x.id)->dtype == MB_BOOL)
        x = mb_cast(x, MB_INT32);
    if (!x.id || !mb__axes_mask(name, x, axes, &mask))
        return mb__poison(ctx);
    const mb__node *n = mb__at(ctx, x.id);
    if (!(floats ? mb__is_float(n->dtype) : mb__is_number(n->dtype))) {
        char a[256];
        mb__error(ctx, MB_INVALID, "%s: got %s; wanted %s", name, mb__tensor_text(a, sizeof a, x),
                  floats ? "floats" : "floats or int32; convert with mb_cast");
        return mb__poison(ctx);
    }
    if (reduced) {
        *reduced = 1;
        for (int i = 0; i < n->rank; i++)
            if (mask >> i & 1)
                *reduced *= n->dim[i];
    }
    mb_tensor y = mb__reduce(op, x, mask);
    return axes.keep ? y : mb__drop_axes(y, mask);
}

mb_tensor mb_sum_at(const char *site, mb_tensor x, mb_axes axes)
{
    MB_SITE(x.ctx, site);
    return reduce("sum", MB_OP_SUM, x, axes, false, NULL);
}

mb_tensor mb_mean_at(const char *site, mb_tensor x, mb_axes axes)
{
    MB_SITE(x.ctx, site);
    if (mb__halved(x))
        return mb__narrow(mb_mean(mb__wide(x), axes), x);
    int64_t count;
    mb_tensor s = reduce("mean", MB_OP_SUM, x, axes, true, &count);
    if (!s.id || count == 1)
        return s;
    mb_tensor divisor =
        mb__const(s.ctx, (mb_dtype)mb__at(s.ctx, s.id)->dtype, count ? (double)count : (double)NAN);
    return mb_div(s, divisor); /* by the rounded 1 / count, a mean of ones would not be 1 */
}

mb_tensor mb_variance_at(const char *site, mb_tensor x, mb_axes axes)
{
    MB_SITE(x.ctx, site);
    if (mb__halved(x))
        return mb__narrow(mb_variance(mb__wide(x), axes), x);
    mb_axes keep = axes;
    keep.keep = true;
    mb_tensor centred = mb_sub(x, mb_mean(x, keep));
    return mb_mean(mb_mul(centred, centred), axes);
}

mb_tensor mb_max_at(const char *site, mb_tensor x, mb_axes axes)
{
    MB_SITE(x.ctx, site);
    return reduce("max", MB_OP_MAX, x, axes, false, NULL);
}

/* In the other order, and back: -x, and of integers -1 - x, which no integer is too small for. */
static mb_tensor opposite(mb_tensor x)
{
    bool integers = x.id && mb_valid(x) && mb_dtype_of(x) == MB_INT32;
    return integers ? mb_sub(mb__const_like(x, -1), x) : mb_neg(x);
}

mb_tensor mb_min_at(const char *site, mb_tensor x, mb_axes axes)
{
    MB_SITE(x.ctx, site);
    return opposite(reduce("min", MB_OP_MAX, opposite(x), axes, false, NULL));
}

mb_tensor mb_any_at(const char *site, mb_tensor x, mb_axes axes)
{
    MB_SITE(x.ctx, site);
    mb_tensor count = reduce("any", MB_OP_MAX, mb_cast(x, MB_BOOL), axes, false, NULL);
    return mb_lt(mb__const_like(count, 0), count); /* of nothing: the least integer */
}

mb_tensor mb_all_at(const char *site, mb_tensor x, mb_axes axes)
{
    MB_SITE(x.ctx, site);
    return mb_not(mb_any(mb_not(mb_cast(x, MB_BOOL)), axes));
}

static mb_tensor argmax(const char *name, mb_tensor x, int axis, bool least)
{
    mb_tensor poison;
    mb_context *ctx = mb__enter(name, (const mb_tensor *[]){&x}, 1, &poison);
    if (!ctx || (axis = mb__axis(name, x, axis)) < 0)
        return poison;
    const mb__node *n = mb__at(ctx, x.id);
    if (n->dim[axis] == 0 || n->dim[axis] > INT32_MAX || !mb__is_number(n->dtype)) {
        char a[256];
        mb__error(ctx, MB_INVALID, "%s: got %s; wanted numbers, from 1 to 2147483647 along axis %d", name,
                  mb__tensor_text(a, sizeof a, x), axis);
        return mb__poison(ctx);
    }
    x = least ? opposite(mb__wide(x)) : mb__wide(x);
    if (!x.id)
        return x;
    n = mb__at(ctx, x.id);
    int64_t dim[MB_MAX_RANK], attr = axis;
    memcpy(dim, n->dim, sizeof dim);
    dim[axis] = 1;
    return mb__drop_axes(mb__record(ctx, MB_OP_ARGMAX, MB_INT32, n->rank, dim, &x, 1, &attr, 1), 1u << axis);
}

mb_tensor mb_argmax_at(const char *site, mb_tensor x, int axis)
{
    MB_SITE(x.ctx, site);
    return argmax("argmax", x, axis, false);
}

mb_tensor mb_argmin_at(const char *site, mb_tensor x, int axis)
{
    MB_SITE(x.ctx, site);
    return argmax("argmin", x, axis, true);
}

mb_tensor mb_cumsum_at(const char *site, mb_tensor x, int axis, bool reverse)
{
    MB_ENTER(site, "cumsum", &x);
    if ((axis = mb__axis("cumsum", x, axis)) < 0)
        return poison;
    if (mb__halved(x))
        return mb__narrow(mb_cumsum(mb__wide(x), axis, reverse), x);
    const mb__node *n = mb__at(ctx, x.id);
    if (!mb__is_number(n->dtype)) {
        mb__error(ctx, MB_INVALID, "cumsum: got %s; wanted numbers; convert with mb_cast",
                  mb_dtype_name((mb_dtype)n->dtype));
        return mb__poison(ctx);
    }
    int64_t dim[MB_MAX_RANK];
    memcpy(dim, n->dim, sizeof dim);
    return mb__record(ctx, MB_OP_CUMSUM, (mb_dtype)n->dtype, n->rank, dim, &x, 1, (int64_t[]){axis, reverse},
                      2);
}

static mb_tensor cummax(const char *name, mb_tensor x, int axis, bool reverse, bool least)
{
    mb_tensor poison;
    mb_context *ctx = mb__enter(name, (const mb_tensor *[]){&x}, 1, &poison);
    if (!ctx || (axis = mb__axis(name, x, axis)) < 0)
        return poison;
    mb_dtype dtype = (mb_dtype)mb__at(ctx, x.id)->dtype;
    if (!mb__is_number((int)dtype)) {
        mb__error(ctx, MB_INVALID, "%s: got %s; wanted numbers; convert with mb_cast", name,
                  mb_dtype_name(dtype));
        return mb__poison(ctx);
    }
    if (mb__halved(x))
        return mb__narrow(cummax(name, mb__wide(x), axis, reverse, least), x);
    x = reverse ? mb_flip(x, axis) : x;
    x = least ? opposite(x) : x;
    mb_shape shape = mb_shape_of(x); /* a copy: recording moves the tape */
    int64_t attr = axis;
    mb_tensor y = mb__record(ctx, MB_OP_CUMMAX, dtype, shape.rank, shape.dim, &x, 1, &attr, 1);
    y = least ? opposite(y) : y;
    return reverse ? mb_flip(y, axis) : y;
}

mb_tensor mb_cummax_at(const char *site, mb_tensor x, int axis, bool reverse)
{
    MB_SITE(x.ctx, site);
    return cummax("cummax", x, axis, reverse, false);
}

mb_tensor mb_cummin_at(const char *site, mb_tensor x, int axis, bool reverse)
{
    MB_SITE(x.ctx, site);
    return cummax("cummin", x, axis, reverse, true);
}

mb_tensor mb__sum_to(mb_tensor t, int rank, const int64_t *dim)
{
    if (!t.id)
        return t;
    const mb__node *n = mb__at(t.ctx, t.id);
    uint32_t mask = 0;
    for (int i = 0; i < n->rank; i++) {
        int j = i - (n->rank - rank);
        if (j < 0 || (dim[j] == 1 && n->dim[i] != 1))
            mask |= 1u << i;
    }
    mb_shape s = {rank, {0}};
    memcpy(s.dim, dim, (size_t)rank * sizeof *dim);
    return mb_reshape(mask ? mb__reduce(MB_OP_SUM, t, mask) : t, s);
}
