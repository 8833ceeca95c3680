/* SPDX-License-Identifier: MIT
 * rules_structure.c - derivatives of movement, reductions, contractions and indexing. Each adjoint is again
 * one of these ops: slice and pad, sum and broadcast, take and scatter_add, contract and contract. */
#include <math.h>

#include "autograd/rules.h"

mb_tensor mb__operand(const mb__applied *s, int i)
{
    return i < 3 ? s->in[i] : mb__handle(s->ctx, mb__in(s->ctx, &s->node, i));
}

static mb_shape shape_of(const mb__node *n)
{
    mb_shape shape = {n->rank, {0}};
    memcpy(shape.dim, n->dim, sizeof shape.dim);
    return shape;
}

static mb_tensor permute_back(const mb__applied *s, mb_tensor g)
{
    const int64_t *axes = mb__attrs(s->ctx, &s->node);
    mb_axes order = {s->node.rank, false, {0}};
    for (int i = 0; i < s->node.rank; i++)
        order.axis[axes[i]] = i;
    return mb_permute(g, order);
}

static mb_tensor concat_part(const mb__applied *s, int i, mb_tensor g)
{
    int axis = (int)mb__attrs(s->ctx, &s->node)[0];
    int64_t start = 0;
    for (int j = 0; j < i; j++)
        start += mb__at(s->ctx, mb__in(s->ctx, &s->node, j))->dim[axis];
    int64_t count = mb__at(s->ctx, mb__in(s->ctx, &s->node, i))->dim[axis];
    return mb_slice(g, axis, count ? start : 0, count, 1);
}

mb_tensor mb__zero_or_nan(const mb__applied *s)
{
    mb_dtype dtype = (mb_dtype)s->node.dtype;
    return mb_where(mb_eq(s->out, s->out), mb__const(s->ctx, dtype, 0),
                    mb__const(s->ctx, dtype, (double)NAN));
}

mb_tensor mb__max_share(const mb__applied *s, mb_tensor v)
{
    mb_dtype dtype = (mb_dtype)s->node.dtype;
    mb_tensor hit = mb_eq(s->in[0], s->out);
    mb_tensor ties = mb__reduce(MB_OP_SUM, mb_cast(hit, dtype), (uint32_t)mb__attrs(s->ctx, &s->node)[0]);
    return mb_where(hit, mb_div(v, ties), mb__zero_or_nan(s));
}

/* The other operand against the cotangent: labels keep their sizes, the roles of a, b and the result rotate.
 */
static mb_tensor contract_back(const mb__applied *s, int i, mb_tensor g)
{
    const int64_t *attrs = mb__attrs(s->ctx, &s->node);
    int labels = (int)attrs[0];
    int64_t axes[3 * 24];
    for (int l = 0; l < labels; l++) {
        const int64_t *x = attrs + 1 + 3 * l;
        axes[3 * l] = i ? x[0] : x[2];
        axes[3 * l + 1] = i ? x[2] : x[1];
        axes[3 * l + 2] = i ? x[1] : x[0];
    }
    return i ? mb__contract(s->in[0], g, labels, axes) : mb__contract(g, s->in[1], labels, axes);
}

mb_tensor mb__rule_reverse(const mb__applied *s, int i, mb_tensor g)
{
    mb_context *ctx = s->ctx;
    const mb__node *n = &s->node;
    mb__node x = *mb__at(ctx, mb__in(ctx, n, i)); /* a copy: recording moves the tape */
    int64_t attrs[2 * MB_MAX_RANK] = {0};
    if (n->nattr <= 2 * MB_MAX_RANK)
        memcpy(attrs, mb__attrs(ctx, n), n->nattr * sizeof *attrs);
    switch (n->op) {
    case MB_OP_CAST:
        return mb_cast(g, (mb_dtype)x.dtype);
    case MB_OP_ALIAS:
        return g;
    case MB_OP_RESHAPE:
        return mb_reshape(g, shape_of(&x));
    case MB_OP_PERMUTE:
        return permute_back(s, g);
    case MB_OP_BROADCAST:
        return mb__sum_to(g, x.rank, x.dim);
    case MB_OP_SLICE:
        return mb__pad_all(g, attrs, attrs + n->rank, x.dim);
    case MB_OP_PAD:
        return mb__slice_all(g, attrs, attrs + n->rank, x.dim);
    case MB_OP_CONCAT:
        return concat_part(s, i, g);
    case MB_OP_SUM:
        return mb_broadcast(g, shape_of(&x));
    case MB_OP_MAX:
        return mb__max_share(s, g);
    case MB_OP_CUMSUM:
        return mb_cumsum(g, (int)attrs[0], !attrs[1]);
    case MB_OP_CONTRACT:
        return contract_back(s, i, g);
    case MB_OP_TAKE:
        return i ? mb__poison(ctx) : mb_scatter_add(g, s->in[1], (int)attrs[0], x.dim[attrs[0]]);
    case MB_OP_SCATTER_ADD:
        return i ? mb__poison(ctx) : mb_take(g, s->in[1], (int)attrs[0]);
    default:
        return mb__poison(ctx);
    }
}

mb_tensor mb__rule_forward(const mb__applied *s, mb_tensor t)
{
    if (s->node.op == MB_OP_MAX)
        return mb__reduce(MB_OP_SUM, mb__max_share(s, t), (uint32_t)mb__attrs(s->ctx, &s->node)[0]);
    return mb__poison(s->ctx);
}
