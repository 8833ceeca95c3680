/* SPDX-License-Identifier: MIT
 *
 * rules_structure.c - derivatives of movement, reductions, contractions and indexing: for each op its reverse
 * rule, its forward rule if it is not linear, and its batching rule. Each adjoint is again one of these ops:
 * slice and pad, sum and broadcast, take and scatter_add, contract and contract. A batching rule, for
 * tangents [K, ...], applies the op one axis further back.
 */
#include "autograd/rules.h"

#define REVERSE(NAME) static mb_tensor NAME##_reverse(const mb__applied *s, int i, mb_tensor g)
#define FORWARD(NAME) static mb_tensor NAME##_forward(const mb__applied *s, int i, mb_tensor t)
#define BATCH(NAME)   static mb_tensor NAME##_batch(const mb__applied *s, int i, mb_tensor t, int64_t K)

static mb_shape shape_of(const mb__node *n)
{
    mb_shape shape = {n->rank, {0}};
    memcpy(shape.dim, n->dim, sizeof shape.dim);
    return shape;
}

/* A copy: recording moves the tape. */
static mb__node operand(const mb__applied *s, int i)
{
    return *mb__at(s->ctx, mb__in(s->ctx, &s->node, i));
}

/* The k-th attribute of the node. */
static int64_t attr(const mb__applied *s, int k)
{
    return mb__attrs(s->ctx, &s->node)[k];
}

/* ---- the same value: alias, barrier ---- */

REVERSE(same)
{
    (void)s, (void)i;
    return g;
}
FORWARD(same)
{
    (void)s, (void)i;
    return t;
}
BATCH(same)
{
    (void)s, (void)i, (void)K;
    return t;
}

/* ---- movement ---- */

REVERSE(reshape)
{
    mb__node x = operand(s, i);
    return mb_reshape(g, shape_of(&x));
}
BATCH(reshape)
{
    (void)i;
    return mb_reshape(t, mb__batched_shape(&s->node, K));
}

REVERSE(permute)
{
    (void)i;
    mb_axes order = {s->node.rank, false, {0}};
    for (int k = 0; k < s->node.rank; k++)
        order.axis[attr(s, k)] = k;
    return mb_permute(g, order);
}
BATCH(permute)
{
    (void)i, (void)K;
    mb_axes order = {s->node.rank + 1, false, {0}};
    for (int k = 0; k < s->node.rank; k++)
        order.axis[k + 1] = (int)attr(s, k) + 1;
    return mb_permute(t, order);
}

REVERSE(broadcast)
{
    mb__node x = operand(s, i);
    return mb__sum_to(g, x.rank, x.dim);
}
BATCH(broadcast)
{
    (void)i;
    return mb_broadcast(mb__batch_aligned(s, t), mb__batched_shape(&s->node, K));
}

/* A slice and a pad: the first half of the attributes are starts, the second are steps. */
typedef struct along {
    int64_t start[MB_MAX_RANK], step[MB_MAX_RANK];
} along;

static along ranges(const mb__applied *s, int lead)
{
    int rank = s->node.rank;
    along a = {{0}, {1}};
    memcpy(a.start + lead, mb__attrs(s->ctx, &s->node), (size_t)rank * sizeof *a.start);
    memcpy(a.step + lead, mb__attrs(s->ctx, &s->node) + rank, (size_t)rank * sizeof *a.step);
    return a;
}

REVERSE(slice)
{
    mb__node x = operand(s, i);
    along a = ranges(s, 0);
    return mb__pad_all(g, a.start, a.step, x.dim);
}
BATCH(slice)
{
    (void)i;
    along a = ranges(s, 1);
    return mb__slice_all(t, a.start, a.step, mb__batched_shape(&s->node, K).dim);
}

REVERSE(pad)
{
    mb__node x = operand(s, i);
    along a = ranges(s, 0);
    return mb__slice_all(g, a.start, a.step, x.dim);
}
BATCH(pad)
{
    (void)i;
    along a = ranges(s, 1);
    return mb__pad_all(t, a.start, a.step, mb__batched_shape(&s->node, K).dim);
}

/* Its forward rule is in the sweep, which has the tangents of all operands. */
REVERSE(concat)
{
    int axis = (int)attr(s, 0);
    int64_t start = 0, count = operand(s, i).dim[axis];
    for (int j = 0; j < i; j++)
        start += operand(s, j).dim[axis];
    return mb_slice(g, axis, count ? start : 0, count, 1);
}

/* ---- reductions ---- */

REVERSE(sum)
{
    mb__node x = operand(s, i);
    return mb_broadcast(g, shape_of(&x));
}
BATCH(sum)
{
    (void)i, (void)K;
    return mb__reduce(MB_OP_SUM, t, (uint32_t)attr(s, 0) << 1);
}

/* v / (number of entries equal to the maximum) at those entries, 0 elsewhere; NaN at all entries if the
 * maximum is NaN. v may have an axis of directions in front. */
static mb_tensor max_share(const mb__applied *s, mb_tensor v)
{
    mb_tensor hit = mb_eq(s->in[0], s->out);
    mb_tensor ties = mb__reduce(MB_OP_SUM, mb_cast(hit, (mb_dtype)s->node.dtype), (uint32_t)attr(s, 0));
    return mb_where(hit, mb_div(v, ties), mb__zero_or_nan(s));
}
REVERSE(max)
{
    (void)i;
    return max_share(s, g);
}
FORWARD(max)
{
    (void)i;
    return mb__reduce(MB_OP_SUM, max_share(s, t), (uint32_t)attr(s, 0));
}
BATCH(max)
{
    (void)i, (void)K;
    mb_tensor share = max_share(s, t);
    return share.id ? mb__reduce(MB_OP_SUM, share, (uint32_t)attr(s, 0) << 1) : share;
}

REVERSE(cumsum)
{
    (void)i;
    return mb_cumsum(g, (int)attr(s, 0), !attr(s, 1));
}
BATCH(cumsum)
{
    (void)i, (void)K;
    return mb_cumsum(t, (int)attr(s, 0) + 1, attr(s, 1) != 0);
}

/* ---- contractions ---- */

enum { LABELS_MOST = 24 };

/* The other operand contracted with the cotangent: labels keep their sizes, and a, b and the result swap
 * roles.
 */
REVERSE(contract)
{
    const int64_t *attrs = mb__attrs(s->ctx, &s->node);
    int labels = (int)attrs[0];
    int64_t axes[3 * LABELS_MOST];
    for (int l = 0; l < labels; l++) {
        const int64_t *x = attrs + 1 + 3 * l;
        axes[3 * l] = i ? x[0] : x[2];
        axes[3 * l + 1] = i ? x[2] : x[1];
        axes[3 * l + 2] = i ? x[1] : x[0];
    }
    return i ? mb__contract(s->in[0], g, labels, axes) : mb__contract(g, s->in[1], labels, axes);
}
/* One more label, on the tangent and the result. */
BATCH(contract)
{
    (void)K;
    const int64_t *attrs = mb__attrs(s->ctx, &s->node);
    int labels = (int)attrs[0];
    int64_t axes[3 * LABELS_MOST];
    if (labels >= LABELS_MOST) {
        mb__error(s->ctx, MB_INVALID, "contract: no label is left for a batch of directions");
        return mb__poison(s->ctx);
    }
    for (int l = 0; l < labels; l++)
        for (int k = 0; k < 3; k++) {
            int64_t axis = attrs[1 + 3 * l + k];
            axes[3 * l + k] = axis >= 0 && (k == 2 || k == i) ? axis + 1 : axis;
        }
    int64_t *lead = axes + 3 * labels;
    lead[i] = lead[2] = 0;
    lead[1 - i] = -1;
    return i ? mb__contract(s->in[0], t, labels + 1, axes) : mb__contract(t, s->in[1], labels + 1, axes);
}

/* ---- by index; the index itself is int32 and has no derivative ---- */

REVERSE(take)
{
    mb__node x = operand(s, i);
    return mb_scatter_add(g, s->in[1], (int)attr(s, 0), x.dim[attr(s, 0)]);
}
BATCH(take)
{
    (void)i, (void)K;
    return mb_take(t, s->in[1], (int)attr(s, 0) + 1);
}

REVERSE(scatter_add)
{
    (void)i;
    return mb_take(g, s->in[1], (int)attr(s, 0));
}
BATCH(scatter_add)
{
    (void)i, (void)K;
    return mb_scatter_add(t, s->in[1], (int)attr(s, 0) + 1, s->node.dim[attr(s, 0)]);
}

/* ---- the table; stop_gradient, argmax and argsort are constant, and have no rules ---- */

#define LINEAR(NAME)                                                                                         \
    {                                                                                                        \
        NAME##_reverse, NULL, NAME##_batch                                                                   \
    }

const mb__rule mb__rules_structure[MB_OP_COUNT] = {
    [MB_OP_ALIAS] = LINEAR(same),
    [MB_OP_BARRIER] = {same_reverse, same_forward, same_batch},
    [MB_OP_RESHAPE] = LINEAR(reshape),
    [MB_OP_PERMUTE] = LINEAR(permute),
    [MB_OP_BROADCAST] = LINEAR(broadcast),
    [MB_OP_SLICE] = LINEAR(slice),
    [MB_OP_PAD] = LINEAR(pad),
    [MB_OP_CONCAT] = {concat_reverse, NULL, NULL},
    [MB_OP_SUM] = LINEAR(sum),
    [MB_OP_MAX] = {max_reverse, max_forward, max_batch},
    [MB_OP_CUMSUM] = LINEAR(cumsum),
    [MB_OP_CONTRACT] = LINEAR(contract),
    [MB_OP_TAKE] = LINEAR(take),
    [MB_OP_SCATTER_ADD] = LINEAR(scatter_add),
};
