/* SPDX-License-Identifier: MIT
 * norm.c - Euclidean norms, computed so that no square overflows or underflows. */
#include <math.h>

#include "tensor/internal.h"

/* The largest magnitude of x. It only scales: a norm is m |x / m| for any m, so derivatives of every order
 * are right with m taken as constant. */
mb_tensor mb__magnitude(mb_tensor x, mb_axes keep)
{
    return mb_stop_gradient(mb_max(mb_abs(x), keep));
}

/* The divisor: the largest magnitude, or 1 where that is 0, infinite, NaN or over no elements. */
mb_tensor mb__norm_scale(mb_tensor magnitude)
{
    mb_dtype dtype = mb_dtype_of(magnitude);
    if (!magnitude.id)
        return magnitude;
    mb_context *ctx = magnitude.ctx;
    mb_tensor positive = mb_lt(mb__const(ctx, dtype, 0), magnitude);
    mb_tensor finite = mb_lt(magnitude, mb__const(ctx, dtype, (double)INFINITY));
    return mb_where(mb_and(positive, finite), magnitude, mb__const(ctx, dtype, 1));
}

/* sqrt of a sum of squares of x / scale. That is 1 or more unless all elements are 0: then 1, with derivative
 * 0.
 */
mb_tensor mb__norm_root(mb_tensor squares, mb_tensor magnitude)
{
    if (!squares.id || !magnitude.id)
        return squares;
    mb_context *ctx = squares.ctx;
    mb_dtype dtype = mb_dtype_of(squares);
    mb_tensor none = mb_le(magnitude, mb__const(ctx, dtype, 0));
    return mb_sqrt(mb_where(none, mb__const(ctx, dtype, 1), squares));
}

/* root times scale, and 0 where all are 0. */
mb_tensor mb__norm_of_root(mb_tensor root, mb_tensor scale, mb_tensor magnitude)
{
    if (!root.id || !magnitude.id)
        return root;
    mb_tensor zero = mb__const(root.ctx, mb_dtype_of(root), 0);
    return mb_where(mb_le(magnitude, zero), zero, mb_mul(root, scale));
}

mb_tensor mb_norm_at(const char *site, mb_tensor x, mb_axes axes)
{
    MB_ENTER(site, "norm", &x);
    if (!mb__is_float(mb__at(ctx, x.id)->dtype)) {
        char a[256];
        mb__error(ctx, MB_INVALID, "norm: got %s; wanted float32 or float64",
                  mb__tensor_text(a, sizeof a, x));
        return poison;
    }
    mb_axes keep = axes;
    keep.keep = true;
    mb_tensor magnitude = mb__magnitude(x, keep), scale = mb__norm_scale(magnitude);
    mb_tensor unit = mb_div(x, scale);
    mb_tensor root = mb__norm_root(mb_sum(mb_mul(unit, unit), keep), magnitude);
    mb_tensor y = mb__norm_of_root(root, scale, magnitude);
    if (!axes.keep && y.id) /* sums of one element each: drops the axes */
        y = mb_sum(y, axes);
    return y;
}
