/* SPDX-License-Identifier: MIT
 *
 * norm.c - Euclidean norms, of which no square overflows or vanishes.
 *
 * Squares are summed of x times a power of two, which changes nothing but exponents. It is 1 unless the sum
 * of the squares as they are is very large or very small; that tells how large x is even where it is not the
 * sum.
 */
#include <math.h>

#include "tensor/internal.h"

/* Of float32 and float64: from which sum of squares on which power of two. Each brings the sum of the squares
 * of up to 2^30 numbers that have such a sum, or one that overflows, between the normal numbers; squares that
 * vanish beside it are less than its rounding. The first is for sums that have lost all or much to underflow.
 * A derivative meets 1 / power and 1 / norm, one after the other: there is room for that as well. */
static const struct {
    int from, power;
} ranges[2][4] = {
    {{INT32_MIN, 86}, {-120, 45}, {-60, 0}, {100, -80}},
    {{INT32_MIN, 700}, {-1000, 375}, {-500, 0}, {900, -650}},
};

static mb_tensor power_for(mb_tensor squares)
{
    if (!squares.id)
        return squares;
    mb_dtype dtype = mb_dtype_of(squares);
    mb_context *ctx = squares.ctx;
    int row = dtype == MB_FLOAT64;
    mb_tensor power = mb__const(ctx, dtype, ldexp(1, ranges[row][0].power));
    for (int i = 1; i < 4; i++) {
        mb_tensor below = mb_lt(squares, mb__const(ctx, dtype, ldexp(1, ranges[row][i].from)));
        power = mb_where(below, power, mb__const(ctx, dtype, ldexp(1, ranges[row][i].power)));
    }
    return power;
}

/* Of each tensor times factor, where there is one, and all of them together. */
static mb_tensor sum_of_squares(const mb_tensor *xs, int n, uint32_t mask, mb_tensor factor)
{
    mb_tensor all = {0};
    for (int i = 0; i < n; i++) {
        mb_tensor x = factor.ctx ? mb_mul(xs[i], factor) : xs[i], square = mb_mul(x, x);
        if (!square.id)
            return square;
        uint32_t every = (1u << mb__at(x.ctx, x.id)->rank) - 1;
        mb_tensor sum = mb__reduce(MB_OP_SUM, square, mask & every);
        if (n > 1)
            sum = mb__drop_axes(sum, every);
        all = i ? mb_add(all, sum) : sum;
    }
    return all;
}

mb__squares mb__squares_of(const mb_tensor *xs, int n, uint32_t mask)
{
    mb__squares s = {.power = power_for(sum_of_squares(xs, n, mask, (mb_tensor){0}))};
    s.sum = sum_of_squares(xs, n, mask, s.power);
    return s;
}

/* 1 where all are 0, whose derivative is 0. */
mb_tensor mb__squares_root(mb__squares s)
{
    if (!s.sum.id)
        return s.sum;
    mb_dtype dtype = mb_dtype_of(s.sum);
    mb_tensor none = mb_le(s.sum, mb__const(s.sum.ctx, dtype, 0));
    return mb_sqrt(mb_where(none, mb__const(s.sum.ctx, dtype, 1), s.sum));
}

mb_tensor mb__squares_norm(mb__squares s, mb_tensor root)
{
    if (!root.id)
        return root;
    mb_tensor zero = mb__const(root.ctx, mb_dtype_of(root), 0);
    return mb_where(mb_le(s.sum, zero), zero, mb_div(root, s.power));
}

mb_tensor mb_norm_at(const char *site, mb_tensor x, mb_axes axes)
{
    MB_SITE(x.ctx, site);
    mb_tensor poison;
    uint32_t mask;
    mb_context *ctx = mb__enter("norm", (const mb_tensor *[]){&x}, 1, &poison);
    if (!ctx)
        return poison;
    if (!mb__is_float(mb__at(ctx, x.id)->dtype)) {
        char a[256];
        mb__error(ctx, MB_INVALID, "norm: got %s; wanted floats", mb__tensor_text(a, sizeof a, x));
        return poison;
    }
    if (!mb__axes_mask("norm", x, axes, &mask))
        return mb__poison(ctx);
    if (mb__halved(x))
        return mb__narrow(mb_norm(mb__wide(x), axes), x);
    mb__squares s = mb__squares_of(&x, 1, mask);
    mb_tensor y = mb__squares_norm(s, mb__squares_root(s));
    return axes.keep ? y : mb__drop_axes(y, mask);
}
