/* SPDX-License-Identifier: MIT
 * rules_shared.c - functions that rules of both tables use. */
#include <math.h>

#include "autograd/rules.h"

mb_shape mb__batched_shape(const mb__node *n, int64_t K)
{
    mb_shape shape = {n->rank + 1, {K}};
    memcpy(shape.dim + 1, n->dim, (size_t)n->rank * sizeof *n->dim);
    return shape;
}

mb_tensor mb__batch_aligned(const mb__applied *s, mb_tensor t)
{
    const mb__node *n = mb__at(s->ctx, t.id);
    int missing = s->node.rank + 1 - n->rank;
    if (missing <= 0)
        return t;
    mb_shape shape = {s->node.rank + 1, {n->dim[0]}};
    for (int i = 1; i < shape.rank; i++)
        shape.dim[i] = i <= missing ? 1 : n->dim[i - missing];
    return mb_reshape(t, shape);
}

void mb__no_axis_left(mb_context *ctx, const mb__node *n)
{
    char text[128];
    mb__error(ctx, MB_INVALID, "vmap: %s has %d axes; the examples want one more, and %d is the most",
              mb__shape_text(text, sizeof text, n->dim, n->rank), n->rank, MB_MAX_RANK);
}

mb_tensor mb__batched(mb__operand o, int64_t K)
{
    const mb__node *n = mb__at(o.t.ctx, o.t.id);
    if (!o.batched && n->rank == MB_MAX_RANK) {
        mb__no_axis_left(o.t.ctx, n);
        return mb__poison(o.t.ctx);
    }
    return o.batched ? o.t : mb_broadcast(o.t, mb__batched_shape(n, K));
}

mb_tensor mb__move_axis(mb_tensor t, int from, int to)
{
    mb_axes order = {mb__at(t.ctx, t.id)->rank, false, {0}};
    for (int i = 0, k = 0; i < order.count; i++) {
        k += k == from;
        order.axis[i] = i == to ? from : k++;
    }
    return mb_permute(t, order);
}

mb_tensor mb__zero_or_nan(const mb__applied *s)
{
    mb_dtype dtype = (mb_dtype)s->node.dtype;
    return mb_where(mb_eq(s->out, s->out), mb__const(s->ctx, dtype, 0),
                    mb__const(s->ctx, dtype, (double)NAN));
}
