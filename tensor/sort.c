/* SPDX-License-Identifier: MIT
 * sort.c - what is made of argsort. */
#include <math.h>

#include "tensor/internal.h"

mb_tensor mb_sort_at(const char *site, mb_tensor x)
{
    MB_SITE(x.ctx, site);
    return mb_take_along(x, mb_argsort(x));
}

/* t with axis `from` at place `to`; the others stay in order. */
static mb_tensor moved(mb_tensor t, int from, int to)
{
    mb_axes order = {mb_shape_of(t).rank, false, {0}};
    for (int i = 0, k = 0; i < order.count; i++) {
        k += k == from;
        order.axis[i] = i == to ? from : k++;
    }
    return mb_permute(t, order);
}

mb_tensor mb_topk_at(const char *site, mb_tensor x, int64_t k, int axis, bool largest, mb_tensor *index)
{
    if (index)
        *index = mb__poison(x.ctx);
    MB_ENTER(site, "topk", &x);
    if ((axis = mb__axis("topk", x, axis)) < 0)
        return poison;
    const mb__node *m = mb__at(ctx, x.id);
    int64_t n = m->dim[axis];
    if (k < 0 || k > n || !mb__is_number(m->dtype)) {
        char a[256];
        mb__error(ctx, MB_INVALID,
                  "topk: got %s and k = %lld; wanted numbers, and of axis %d at most all %lld entries",
                  mb__tensor_text(a, sizeof a, x), (long long)k, axis, (long long)n);
        return mb__poison(ctx);
    }
    int last = m->rank - 1;
    mb_tensor row = moved(x, axis, last), order = mb_slice(mb__leading(site, row, largest, k), -1, 0, k, 1);
    if (index)
        *index = moved(order, last, axis);
    return moved(mb_take_along(row, order), last, axis);
}

/* Between two neighbours by their distances, so that infinite ones stay. */
static mb_tensor quantile_of(mb_tensor sorted, double q)
{
    int64_t n = mb_dim(sorted, -1), low = (int64_t)floor(q * (double)(n - 1)),
            high = low + 1 < n ? low + 1 : low;
    double weight = q * (double)(n - 1) - (double)low;
    mb_tensor a = mb_squeeze(mb_slice(sorted, -1, low, 1, 1), -1),
              b = mb_squeeze(mb_slice(sorted, -1, high, 1, 1), -1);
    mb_tensor top = mb_squeeze(mb_slice(sorted, -1, n - 1, 1, 1), -1); /* NaN if any is */
    mb_tensor y = a;
    if (weight > 0)
        y = mb_add(mb_mul(a, mb__const_like(a, 1 - weight)), mb_mul(b, mb__const_like(b, weight)));
    return mb_where(mb_eq(top, top), y, top);
}

mb_tensor mb_quantile_at(const char *site, mb_tensor x, double q, int axis)
{
    MB_ENTER(site, "quantile", &x);
    if ((axis = mb__axis("quantile", x, axis)) < 0)
        return poison;
    const mb__node *n = mb__at(ctx, x.id);
    if (!(q >= 0 && q <= 1) || !mb__is_float(n->dtype) || n->dim[axis] == 0) {
        char a[256];
        mb__error(ctx, MB_INVALID,
                  "quantile: got %s, axis %d, and q = %g; wanted floats, entries, and q from 0 to 1",
                  mb__tensor_text(a, sizeof a, x), axis, q);
        return mb__poison(ctx);
    }
    int last = n->rank - 1;
    return mb__narrow(quantile_of(mb_sort(moved(mb__wide(x), axis, last)), q), x);
}

mb_tensor mb_median_at(const char *site, mb_tensor x, int axis)
{
    MB_SITE(x.ctx, site);
    return mb_quantile(x, 0.5, axis);
}
