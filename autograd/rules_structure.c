/* SPDX-License-Identifier: MIT
 *
 * rules_structure.c - derivatives of movement, reductions, contractions and indexing: for each op its reverse
 * rule, its forward rule if it is not linear, and its batching rule. Each adjoint is again one of these ops:
 * slice and pad, window and fold, sum and broadcast, take and scatter_add, contract and contract. On a batch,
 * [K, ...], what an op does along its axes it does one axis further back.
 */
#include "autograd/rules.h"
#include "tensor/windows.h"

#define REVERSE(NAME) static mb_tensor NAME##_reverse(const mb__applied *s, int i, mb_tensor g)
#define FORWARD(NAME) static mb_tensor NAME##_forward(const mb__applied *s, int i, mb_tensor t)
#define BATCH(NAME)   static mb_tensor NAME##_batch(const mb__applied *s, const mb__operand *in, int64_t K)

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

/* The op itself on other operands, with a shape of [K, that of the result]. */
static mb_tensor batched_op(const mb__applied *s, const mb_tensor *in, const int64_t *attrs, int64_t K)
{
    mb_shape shape = mb__batched_shape(&s->node, K);
    return mb__record(s->ctx, s->node.op, (mb_dtype)s->node.dtype, shape.rank, shape.dim, in, s->node.nin,
                      attrs, s->node.nattr);
}

/* ---- the same value: alias, barrier, substitute ---- */

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
    return batched_op(s, &in[0].t, NULL, K);
}
/* What is waited for may have any shape. */
BATCH(barrier)
{
    mb_tensor ts[3] = {mb__batched(in[0], K), in[1].t};
    if (s->node.nin > 2)
        ts[2] = mb__batched(in[2], K);
    return batched_op(s, ts, NULL, K);
}
BATCH(substitute)
{
    return batched_op(s, (mb_tensor[]){mb__batched(in[0], K), mb__batched(in[1], K)}, NULL, K);
}

/* ---- movement ---- */

REVERSE(reshape)
{
    mb__node x = operand(s, i);
    return mb_reshape(g, shape_of(&x));
}
BATCH(reshape)
{
    return mb_reshape(in[0].t, mb__batched_shape(&s->node, K));
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
    (void)K;
    mb_axes order = {s->node.rank + 1, false, {0}};
    for (int k = 0; k < s->node.rank; k++)
        order.axis[k + 1] = (int)attr(s, k) + 1;
    return mb_permute(in[0].t, order);
}

REVERSE(broadcast)
{
    mb__node x = operand(s, i);
    return mb__sum_to(g, x.rank, x.dim);
}
BATCH(broadcast)
{
    return mb_broadcast(mb__batch_aligned(s, in[0].t), mb__batched_shape(&s->node, K));
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
    along a = ranges(s, 1);
    return mb__slice_all(in[0].t, a.start, a.step, mb__batched_shape(&s->node, K).dim);
}

REVERSE(pad)
{
    mb__node x = operand(s, i);
    along a = ranges(s, 0);
    return mb__slice_all(g, a.start, a.step, x.dim);
}
BATCH(pad)
{
    along a = ranges(s, 1);
    return mb__pad_all(in[0].t, a.start, a.step, mb__batched_shape(&s->node, K).dim);
}

static mb_window window_of(const mb__applied *s, int64_t size)
{
    return (mb_window){size, attr(s, 1), attr(s, 2)};
}

REVERSE(window)
{
    int axis = (int)attr(s, 0);
    return mb__fold(g, axis, window_of(s, s->node.dim[axis + 1]), operand(s, i).dim[axis]);
}
BATCH(window)
{
    (void)K;
    int axis = (int)attr(s, 0);
    return mb__unfold(in[0].t, axis + 1, window_of(s, s->node.dim[axis + 1]), s->node.dim[axis]);
}

REVERSE(fold)
{
    mb__node x = operand(s, i);
    int axis = (int)attr(s, 0);
    return mb__unfold(g, axis, window_of(s, x.dim[axis + 1]), x.dim[axis]);
}
BATCH(fold)
{
    (void)K;
    int axis = (int)attr(s, 0);
    return mb__fold(in[0].t, axis + 1, window_of(s, operand(s, 0).dim[axis + 1]), s->node.dim[axis]);
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

BATCH(concat)
{
    mb_context *ctx = s->ctx;
    MB_TEMPORARY(ctx);
    mb_tensor *parts = mb__temporary(ctx, s->node.nin * sizeof *parts), joined = mb__poison(ctx);
    for (int i = 0; parts && i < s->node.nin && mb_error(ctx) == MB_OK; i++)
        parts[i] = mb__batched(in[i], K);
    if (parts && mb_error(ctx) == MB_OK)
        joined = mb_concat(parts, s->node.nin, (int)attr(s, 0) + 1);
    return joined;
}

/* ---- reductions ---- */

REVERSE(sum)
{
    mb__node x = operand(s, i);
    return mb_broadcast(g, shape_of(&x));
}
BATCH(reduce)
{
    (void)K;
    return mb__reduce(s->node.op, in[0].t, (uint32_t)attr(s, 0) << 1);
}

/* What is compared with x is not the result, but the same of x again: the result may have been computed by an
 * earlier flush, and x, if it was not kept, is computed anew, in other kernels, to other last bits. Then no
 * entry would be the largest. Where both are in one flush they are one. */
static mb_tensor result_again(const mb__applied *s)
{
    mb_tensor x = s->in[0];
    return s->node.op == MB_OP_CUMMAX ? mb_cummax(x, (int)attr(s, 0), false)
                                      : mb__reduce(s->node.op, x, (uint32_t)attr(s, 0));
}

/* v / (number of entries equal to the maximum) at those entries, 0 elsewhere; NaN at all entries if the
 * maximum is NaN. v may have an axis of directions in front. */
static mb_tensor max_share(const mb__applied *s, mb_tensor v)
{
    mb_tensor hit = mb_eq(s->in[0], result_again(s));
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
    mb_tensor share = max_share(s, t);
    int lead = share.id ? mb__at(s->ctx, share.id)->rank - s->node.rank : 0;
    return share.id ? mb__reduce(MB_OP_SUM, share, (uint32_t)attr(s, 0) << lead) : share;
}

BATCH(argmax)
{
    const int64_t axis = attr(s, 0) + 1;
    return batched_op(s, &in[0].t, &axis, K);
}
/* Of the last axis. */
BATCH(argsort)
{
    const int64_t attrs[2] = {attr(s, 0), attr(s, 1)};
    return batched_op(s, &in[0].t, attrs, K);
}

REVERSE(cumsum)
{
    (void)i;
    return mb_cumsum(g, (int)attr(s, 0), !attr(s, 1));
}
BATCH(cumsum)
{
    (void)K;
    return mb_cumsum(in[0].t, (int)attr(s, 0) + 1, attr(s, 1) != 0);
}

/* For each element of the result, which element of x it is: the last one so far that equals it, where a NaN
 * equals a NaN. Along the axis the positions of such elements only grow, so that their running maximum is
 * that position. */
static mb_tensor cummax_index(const mb__applied *s)
{
    mb_context *ctx = s->ctx;
    mb_shape full = shape_of(&s->node), line = {s->node.rank, {0}};
    int axis = (int)attr(s, 0);
    int64_t inner = 1;
    for (int k = 0; k < full.rank; k++)
        line.dim[k] = k == axis ? full.dim[k] : 1;
    for (int k = axis + 1; k < full.rank; k++)
        inner *= full.dim[k];
    mb_tensor at = mb_reshape(mb_iota(ctx, MB_INT32, full.dim[axis]), line);
    mb_tensor x = s->in[0], same = mb_or(mb_eq(x, result_again(s)), mb_not(mb_eq(x, x)));
    mb_tensor hit = mb_where(same, at, mb__const(ctx, MB_INT32, 0));
    mb_tensor back = mb_mul(mb_sub(at, mb_cummax(hit, axis, false)), mb__const(ctx, MB_INT32, (double)inner));
    mb_tensor all = mb_reshape(mb_iota(ctx, MB_INT32, mb__numel(full.dim, full.rank)), full);
    return mb_sub(all, back);
}
REVERSE(cummax)
{
    (void)i;
    mb_shape full = shape_of(&s->node);
    mb_tensor flat = mb_reshape(mb_add(g, mb__zero_or_nan(s)), MB_SHAPE(-1));
    mb_tensor index = mb_reshape(cummax_index(s), MB_SHAPE(-1));
    return mb_reshape(mb_scatter_add(flat, index, 0, mb__numel(full.dim, full.rank)), full);
}
/* Of K tangents at once, t is [K, shape of x]. */
FORWARD(cummax)
{
    (void)i;
    int lead = mb_shape_of(t).rank - s->node.rank;
    int64_t count = mb__numel(s->node.dim, s->node.rank);
    mb_tensor rows = mb_reshape(t, lead ? MB_SHAPE(mb_dim(t, 0), count) : MB_SHAPE(count));
    return mb_add(mb_take(rows, cummax_index(s), lead), mb__zero_or_nan(s));
}
BATCH(cummax)
{
    (void)K;
    return mb_cummax(in[0].t, (int)attr(s, 0) + 1, false);
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
/* With one more label, which belongs to what is batched. */
BATCH(contract)
{
    (void)K;
    const int64_t *attrs = mb__attrs(s->ctx, &s->node);
    int labels = (int)attrs[0];
    int64_t axes[3 * LABELS_MOST];
    if (labels >= LABELS_MOST) {
        mb__error(s->ctx, MB_INVALID, "contract: no label is left for a batch");
        return mb__poison(s->ctx);
    }
    for (int l = 0; l < labels; l++)
        for (int k = 0; k < 3; k++) {
            int64_t axis = attrs[1 + 3 * l + k];
            axes[3 * l + k] = axis >= 0 && (k == 2 || in[k].batched) ? axis + 1 : axis;
        }
    for (int k = 0; k < 3; k++)
        axes[3 * labels + k] = k == 2 || in[k].batched ? 0 : -1;
    return mb__contract(in[0].t, in[1].t, labels + 1, axes);
}

/* ---- by index; the index itself is int32 and has no derivative ---- */

REVERSE(take)
{
    mb__node x = operand(s, i);
    return mb_scatter_add(g, s->in[1], (int)attr(s, 0), x.dim[attr(s, 0)]);
}

/* [K, shape of index] -> positions in K times `size` entries. An index outside of [0, size) would be one of
 * another example: it is clamped here, as the op would. */
static mb_tensor flat_index(const mb__applied *s, mb_tensor index, int64_t K, int64_t size)
{
    mb_context *ctx = s->ctx;
    int64_t all;
    if (__builtin_mul_overflow(K, size, &all) || all > INT32_MAX) {
        mb__error(ctx, MB_INVALID,
                  "%s: an axis of %lld entries for each of %lld examples; 2^31 - 1 are the most",
                  mb__ops[s->node.op].name, (long long)size, (long long)K);
        return mb__poison(ctx);
    }
    mb_shape row = {mb__at(ctx, index.id)->rank, {K, 1, 1, 1, 1, 1, 1, 1}};
    mb_tensor last = mb__const(ctx, MB_INT32, (double)(size - 1)), zero = mb__const(ctx, MB_INT32, 0);
    mb_tensor base = mb_mul(mb_iota(ctx, MB_INT32, K), mb__const(ctx, MB_INT32, (double)size));
    return mb_add(mb_reshape(base, row), mb_maximum(mb_minimum(index, last), zero));
}

/* The axes [first, first + count) of t behind the next `more`. */
static mb_tensor exchanged(mb_tensor t, int first, int count, int more)
{
    mb_axes order = {mb__at(t.ctx, t.id)->rank, false, {0, 1, 2, 3, 4, 5, 6, 7}};
    for (int k = 0; k < count + more; k++)
        order.axis[first + k] = first + (k < more ? count + k : k - more);
    return mb_permute(t, order);
}

/* [K, size, ...] as [K * size, ...] */
static mb_tensor joined(mb_tensor t)
{
    const mb__node *n = mb__at(t.ctx, t.id);
    mb_shape flat = {n->rank - 1, {n->dim[0] * n->dim[1]}};
    memcpy(flat.dim + 1, n->dim + 2, (size_t)(n->rank - 2) * sizeof *n->dim);
    return mb_reshape(t, flat);
}

/* With an index for each example, of entries of its own: of the axes of all examples, end to end. */
BATCH(take)
{
    mb__node x = operand(s, 0), index = operand(s, 1);
    int axis = (int)attr(s, 0);
    if (!in[1].batched)
        return mb_take(in[0].t, in[1].t, axis + 1);
    if (!in[0].batched) {
        mb_tensor t = mb_take(in[0].t, in[1].t, axis);
        return t.id ? mb__move_axis(t, axis, 0) : t;
    }
    if (!x.dim[axis]) /* the index is empty, too */
        return mb_full(s->ctx, (mb_dtype)s->node.dtype, mb__batched_shape(&s->node, K), 0);
    mb_tensor flat = mb__move_axis(in[0].t, axis + 1, 1), t = {0};
    if (flat.id)
        t = mb_take(joined(flat), flat_index(s, in[1].t, K, x.dim[axis]), 0);
    return t.id ? exchanged(t, 1, index.rank, axis) : mb__poison(s->ctx);
}

REVERSE(scatter_add)
{
    (void)i;
    return mb_take(g, s->in[1], (int)attr(s, 0));
}
BATCH(scatter_add)
{
    mb_context *ctx = s->ctx;
    int axis = (int)attr(s, 0), rank = operand(s, 1).rank;
    int64_t size = s->node.dim[axis];
    if (!in[1].batched)
        return mb_scatter_add(in[0].t, in[1].t, axis + 1, size);
    mb_shape shape = mb__batched_shape(&s->node, K), flat = shape;
    if (!size) /* the index is empty, too */
        return mb_full(ctx, (mb_dtype)s->node.dtype, shape, 0);
    mb_tensor updates = mb__batched(in[0], K), index = flat_index(s, in[1].t, K, size);
    if (!updates.id || !index.id)
        return mb__poison(ctx);
    updates = exchanged(updates, 1, axis, rank);
    mb_tensor t = mb_scatter_add(updates, index, 0, K * size);
    memmove(flat.dim + 2, flat.dim + 1, (size_t)axis * sizeof *flat.dim);
    flat.dim[1] = size; /* K, the axis, then those before it */
    t = mb_reshape(t, flat);
    return t.id ? mb__move_axis(t, 1, axis + 1) : t;
}

/* ---- ops of the user's, whose derivatives are those of a custom_gradient around them ---- */

/* The examples are one more loop axis. */
BATCH(call)
{
    mb_tensor all[MB_CUSTOM_OPERANDS];
    mb__call c = mb__call_unpack(mb__attrs(s->ctx, &s->node), (mb_dtype)s->node.dtype);
    int64_t words[MB_CALL_WORDS];
    for (int i = 0; i < s->node.nin; i++)
        if (!(all[i] = mb__batched(in[i], K)).id)
            return mb__poison(s->ctx);
    c.loops++;
    int count = mb__call_pack(&c, words);
    mb_shape shape = mb__batched_shape(&s->node, K);
    return mb__record(s->ctx, MB_OP_CALL, (mb_dtype)s->node.dtype, shape.rank, shape.dim, all, s->node.nin,
                      words, count);
}

/* ---- the table; stop_gradient, argmax and argsort are constant, and have no rules. Leaves are one for all
 * examples; scans are recorded again as a whole (batch.c). ---- */

#define LINEAR(NAME)                                                                                         \
    {                                                                                                        \
        NAME##_reverse, NULL, NAME##_batch                                                                   \
    }

const mb__rule mb__rules_structure[MB_OP_COUNT] = {
    [MB_OP_ALIAS] = {same_reverse, same_forward, same_batch},
    [MB_OP_STOP] = {NULL, NULL, same_batch},
    [MB_OP_BARRIER] = {same_reverse, same_forward, barrier_batch},
    [MB_OP_SUBSTITUTE] = {same_reverse, same_forward, substitute_batch},
    [MB_OP_RESHAPE] = LINEAR(reshape),
    [MB_OP_PERMUTE] = LINEAR(permute),
    [MB_OP_BROADCAST] = LINEAR(broadcast),
    [MB_OP_SLICE] = LINEAR(slice),
    [MB_OP_PAD] = LINEAR(pad),
    [MB_OP_WINDOW] = LINEAR(window),
    [MB_OP_FOLD] = LINEAR(fold),
    [MB_OP_CONCAT] = LINEAR(concat),
    [MB_OP_SUM] = {sum_reverse, NULL, reduce_batch},
    [MB_OP_MAX] = {max_reverse, max_forward, reduce_batch},
    [MB_OP_ARGMAX] = {NULL, NULL, argmax_batch},
    [MB_OP_ARGSORT] = {NULL, NULL, argsort_batch},
    [MB_OP_CUMSUM] = LINEAR(cumsum),
    [MB_OP_CUMMAX] = {cummax_reverse, cummax_forward, cummax_batch},
    [MB_OP_CONTRACT] = LINEAR(contract),
    [MB_OP_TAKE] = LINEAR(take),
    [MB_OP_SCATTER_ADD] = LINEAR(scatter_add),
    [MB_OP_CALL] = {NULL, NULL, call_batch},
};
