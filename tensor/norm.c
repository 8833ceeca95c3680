/* SPDX-License-Identifier: MIT
 * norm.c - Euclidean norms, of which no square overflows or vanishes. */
#include <math.h>

#include "tensor/tape.h"

/* The largest magnitude of x, which only scales: a norm is m |x / m|, whatever m is, so that m counts as
 * constant and the derivatives are right to every order. */
mb_tensor mb__magnitude(const char *where, mb_tensor x, mb_axes keep)
{
    return mb_stop_gradient_at(where, mb_max_at(where, mb_abs_at(where, x), keep));
}

/* By what to divide: the largest magnitude, or 1 where that is 0, infinite, NaN or of nothing. */
mb_tensor mb__norm_scale(const char *where, mb_tensor magnitude)
{
    mb_dtype dtype = mb_dtype_of(magnitude);
    if (!magnitude.id)
        return magnitude;
    mb_context *ctx = magnitude.ctx;
    mb_tensor positive = mb_lt_at(where, mb__const(ctx, where, dtype, 0), magnitude);
    mb_tensor finite = mb_lt_at(where, magnitude, mb__const(ctx, where, dtype, (double)INFINITY));
    return mb_where_at(where, mb_and_at(where, positive, finite), magnitude, mb__const(ctx, where, dtype, 1));
}

/* sqrt of a sum of squares of x / scale, which is 1 or more but where all are 0: there 1, with derivative 0.
 */
mb_tensor mb__norm_root(const char *where, mb_tensor squares, mb_tensor magnitude)
{
    if (!squares.id || !magnitude.id)
        return squares;
    mb_context *ctx = squares.ctx;
    mb_dtype dtype = mb_dtype_of(squares);
    mb_tensor none = mb_le_at(where, magnitude, mb__const(ctx, where, dtype, 0));
    return mb_sqrt_at(where, mb_where_at(where, none, mb__const(ctx, where, dtype, 1), squares));
}

/* root times scale, and 0 where all are 0. */
mb_tensor mb__norm_of_root(const char *where, mb_tensor root, mb_tensor scale, mb_tensor magnitude)
{
    if (!root.id || !magnitude.id)
        return root;
    mb_tensor zero = mb__const(root.ctx, where, mb_dtype_of(root), 0);
    return mb_where_at(where, mb_le_at(where, magnitude, zero), zero, mb_mul_at(where, root, scale));
}

mb_tensor mb_norm_at(const char *where, mb_tensor x, mb_axes axes)
{
    mb_tensor poison;
    mb_context *ctx = mb__enter(where, "norm", (const mb_tensor *[]){&x}, 1, &poison);
    if (!ctx)
        return poison;
    if (!mb__is_float(mb__at(ctx, x.id)->dtype)) {
        char a[256];
        mb__error(ctx, MB_INVALID, where, "norm: got %s; wanted float32 or float64",
                  mb__tensor_text(a, sizeof a, x));
        return poison;
    }
    mb_axes keep = axes;
    keep.keep = true;
    const char *call = mb__call_begin(ctx, "norm");
    mb_tensor magnitude = mb__magnitude(where, x, keep), scale = mb__norm_scale(where, magnitude);
    mb_tensor unit = mb_div_at(where, x, scale);
    mb_tensor root = mb__norm_root(where, mb_sum_at(where, mb_mul_at(where, unit, unit), keep), magnitude);
    mb_tensor y = mb__norm_of_root(where, root, scale, magnitude);
    if (!axes.keep && y.id) /* of one element each: only the axes go */
        y = mb_sum_at(where, y, axes);
    return mb__call_end(ctx, call, y);
}
