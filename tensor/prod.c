/* SPDX-License-Identifier: MIT
 * prod.c - products over axes and running ones, as rounds of products of halves: so their derivatives are
 * those of mb_mul, which divides by nothing. */
#include "tensor/internal.h"

/* x with axis of size n -> with axis of size 1 */
static mb_tensor multiplied(mb_tensor x, int axis, int64_t n)
{
    mb_tensor odd = {0};
    for (; n > 1; n /= 2) {
        mb_tensor low = mb_slice(x, axis, 0, n / 2, 1), high = mb_slice(x, axis, n / 2, n / 2, 1);
        if (n % 2) {
            mb_tensor last = mb_slice(x, axis, n - 1, 1, 1);
            odd = odd.ctx ? mb_mul(odd, last) : last;
        }
        x = mb_mul(low, high);
    }
    return odd.ctx ? mb_mul(x, odd) : x;
}

mb_tensor mb_prod_at(const char *site, mb_tensor x, mb_axes axes)
{
    MB_ENTER(site, "prod", &x);
    uint32_t mask;
    if (!mb__axes_mask("prod", x, axes, &mask))
        return poison;
    if (mb__halved(x))
        return mb__narrow(mb_prod(mb__wide(x), axes), x);
    mb_tensor y = mb__at(ctx, x.id)->dtype == MB_BOOL ? mb_cast(x, MB_INT32) : x;
    for (int axis = 0, rank = mb_shape_of(x).rank; axis < rank; axis++) {
        mb_shape shape = mb_shape_of(y);
        if (!(mask >> axis & 1))
            continue;
        int64_t n = shape.dim[axis];
        shape.dim[axis] = 1;
        y = n ? multiplied(y, axis, n) : mb_full(ctx, mb_dtype_of(y), shape, 1);
        if (!y.id)
            return y;
    }
    return axes.keep ? y : mb__drop_axes(y, mask);
}

/* Hillis and Steele (1986): after a round, each entry is the product of twice as many up to it. */
mb_tensor mb_cumprod_at(const char *site, mb_tensor x, int axis, bool reverse)
{
    MB_ENTER(site, "cumprod", &x);
    if ((axis = mb__axis("cumprod", x, axis)) < 0)
        return poison;
    if (mb__halved(x))
        return mb__narrow(mb_cumprod(mb__wide(x), axis, reverse), x);
    const mb__node *m = mb__at(ctx, x.id);
    int64_t n = m->dim[axis];
    if (!mb__is_number(m->dtype)) {
        mb__error(ctx, MB_INVALID, "cumprod: got %s; wanted numbers; convert with mb_cast",
                  mb_dtype_name((mb_dtype)m->dtype));
        return mb__poison(ctx);
    }
    mb_tensor y = x;
    for (int64_t done = 1; done < n; done *= 2) {
        mb_tensor first = mb_slice(y, axis, 0, n - done, 1), last = mb_slice(y, axis, done, n - done, 1);
        mb_tensor product = mb_mul(first, last);
        mb_tensor parts[2] = {mb_slice(y, axis, 0, done, 1), product};
        if (reverse) {
            parts[0] = product;
            parts[1] = mb_slice(y, axis, n - done, done, 1);
        }
        y = mb_concat(parts, 2, axis);
    }
    return y;
}
