/* SPDX-License-Identifier: MIT
 *
 * lift.c - tangents with one more axis in front, K directions: the linear ops on such a tangent, where every
 * other operand is as it was. What an op does along its axes it does one axis further back. */
#include "autograd/rules.h"

/* [K, shape of the node] */
static mb_shape lifted_shape(const mb__node *n, int64_t K)
{
    mb_shape shape = {n->rank + 1, {K}};
    memcpy(shape.dim + 1, n->dim, (size_t)n->rank * sizeof *n->dim);
    return shape;
}

/* t: [K, ...] of an operand with fewer axes than the result, with axes of size 1 after the first, so that it
 * broadcasts as the operand did. */
mb_tensor mb__lift_aligned(const mb__applied *s, mb_tensor t)
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

/* The contraction with one more label, which belongs to the tangent and the result. */
static mb_tensor lift_contract(const mb__applied *s, int operand, mb_tensor t)
{
    const int64_t *attrs = mb__attrs(s->ctx, &s->node);
    int labels = (int)attrs[0];
    int64_t axes[3 * 24];
    if (labels >= 24) {
        mb__error(s->ctx, MB_INVALID, "contract: no label is left for a batch of directions");
        return mb__poison(s->ctx);
    }
    for (int l = 0; l < labels; l++)
        for (int k = 0; k < 3; k++) {
            int64_t axis = attrs[1 + 3 * l + k];
            axes[3 * l + k] = axis >= 0 && (k == 2 || k == operand) ? axis + 1 : axis;
        }
    int64_t *lead = axes + 3 * labels;
    lead[operand] = lead[2] = 0;
    lead[1 - operand] = -1;
    return operand ? mb__contract(s->in[0], t, labels + 1, axes)
                   : mb__contract(t, s->in[1], labels + 1, axes);
}

/* A slice or a pad: the first half of the attributes are starts, the second are steps. */
static mb_tensor lift_range(const mb__applied *s, mb_tensor t, int64_t K)
{
    const int64_t *attrs = mb__attrs(s->ctx, &s->node);
    int rank = s->node.rank;
    int64_t start[MB_MAX_RANK] = {0}, step[MB_MAX_RANK] = {1};
    memcpy(start + 1, attrs, (size_t)rank * sizeof *attrs);
    memcpy(step + 1, attrs + rank, (size_t)rank * sizeof *attrs);
    mb_shape to = lifted_shape(&s->node, K);
    return s->node.op == MB_OP_SLICE ? mb__slice_all(t, start, step, to.dim)
                                     : mb__pad_all(t, start, step, to.dim);
}

static mb_tensor lift_permute(const mb__applied *s, mb_tensor t)
{
    const int64_t *axes = mb__attrs(s->ctx, &s->node);
    mb_axes order = {s->node.rank + 1, false, {0}};
    for (int i = 0; i < s->node.rank; i++)
        order.axis[i + 1] = (int)axes[i] + 1;
    return mb_permute(t, order);
}

/* The tangent of a maximum: the mean of t over the entries that share it. */
static mb_tensor lift_max(const mb__applied *s, mb_tensor t)
{
    mb_tensor share = mb__max_share(s, t);
    return share.id ? mb__reduce(MB_OP_SUM, share, (uint32_t)mb__attrs(s->ctx, &s->node)[0] << 1) : share;
}

mb_tensor mb__lift_linear(const mb__applied *s, int operand, mb_tensor t, int64_t K)
{
    mb_context *ctx = s->ctx;
    const mb__node *n = &s->node;
    if (!t.id)
        return t;
    int64_t attr = n->nattr ? mb__attrs(ctx, n)[0] : 0;
    switch (n->op) {
    case MB_OP_CAST:
        return mb_cast(t, (mb_dtype)n->dtype);
    case MB_OP_ALIAS:
        return t;
    case MB_OP_RESHAPE:
        return mb_reshape(t, lifted_shape(n, K));
    case MB_OP_PERMUTE:
        return lift_permute(s, t);
    case MB_OP_BROADCAST:
        return mb_broadcast(mb__lift_aligned(s, t), lifted_shape(n, K));
    case MB_OP_SLICE:
    case MB_OP_PAD:
        return lift_range(s, t, K);
    case MB_OP_SUM:
        return mb__reduce(MB_OP_SUM, t, (uint32_t)attr << 1);
    case MB_OP_MAX:
        return lift_max(s, t);
    case MB_OP_CUMSUM:
        return mb_cumsum(t, (int)attr + 1, mb__attrs(ctx, n)[1] != 0);
    case MB_OP_CONTRACT:
        return lift_contract(s, operand, t);
    case MB_OP_TAKE:
        return mb_take(t, s->in[1], (int)attr + 1);
    case MB_OP_SCATTER_ADD:
        return mb_scatter_add(t, s->in[1], (int)attr + 1, n->dim[attr]);
    default:
        return mb__poison(ctx);
    }
}
