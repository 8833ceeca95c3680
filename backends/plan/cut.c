/* SPDX-License-Identifier: MIT
 *
 * cut.c - along which axis an op's operands and result are cut, where a graph is to run in parts (slices.c).
 *
 * A tensor that is cut along an axis has, in each of the parts, an equal run of its entries, in their order.
 */
#include "backends/plan/slices.h"

/* As many elements lie before both axes, so that the parts are the same runs of elements. */
int mb__cut_reshaped(const mb__gnode *x, const mb__gnode *to, int k, int64_t parts)
{
    int64_t before = mb__numel(x->dim, k), so_far = 1;
    for (int i = 0; i < to->rank && so_far <= before; so_far *= to->dim[i++])
        if (so_far == before && to->dim[i] != 1)
            return to->dim[i] % parts == 0 ? i : MB_CUT_NONE;
    return MB_CUT_NONE;
}

static int cut_permuted(const mb__gnode *n, int k)
{
    int i = 0;
    while (n->attr[i] != k)
        i++;
    return i;
}

/* An axis that is as it was: of a slice, or of an operand of a pad, at `at`. */
static int cut_untouched(const mb__gnode *x, const mb__gnode *n, const int64_t *at, int k)
{
    return x->dim[k] == n->dim[k] && at[k] == 0 && at[n->rank + k] == 1 ? k : MB_CUT_NONE;
}

/* Windows of an axis are two in their place. */
static int cut_windows(const mb__gnode *n, int k)
{
    return k == n->attr[0] ? MB_CUT_NONE : k < n->attr[0] ? k : k + 1;
}
static int cut_folded(const mb__gnode *n, int k)
{
    return k == n->attr[0] || k == n->attr[0] + 1 ? MB_CUT_NONE : k < n->attr[0] ? k : k - 1;
}

/* Aligned at the last axis. */
static int cut_broadcast(const mb__gnode *x, const mb__gnode *n, int k)
{
    int i = k + n->rank - x->rank;
    return n->dim[i] == x->dim[k] ? i : MB_CUT_NONE;
}

/* The label of axis k of a contraction's operand 0 or 1, or of its result, 2; -1. */
static int label_of(const mb__gnode *n, int side, int k)
{
    for (int l = 0; l < n->attr[0]; l++)
        if (n->attr[1 + 3 * l + side] == k)
            return l;
    return -1;
}

static int cut_contracted(const mb__gnode *n, int j, int k)
{
    int l = label_of(n, j, k);
    int64_t to = l < 0 ? -1 : n->attr[1 + 3 * l + 2];
    return l < 0 ? MB_CUT_NONE : to < 0 ? MB_CUT_ADDED : (int)to;
}

/* In what is taken, the index's axes are in the place of the axis that it chooses from. */
static int cut_taken(const mb__gnode *n, const mb__gnode *index, int j, int k)
{
    int axis = (int)n->attr[0];
    if (j == 1)
        return axis + k;
    return k == axis ? MB_CUT_NONE : k < axis ? k : k - 1 + index->rank;
}
static int cut_scattered(const mb__gnode *n, const mb__gnode *index, int j, int k)
{
    int axis = (int)n->attr[0];
    if (j == 1 || (k >= axis && k < axis + index->rank))
        return MB_CUT_ADDED;
    return k < axis ? k : k - index->rank + 1;
}

static int cut_view(const mb__gnode *x, const mb__gnode *n, int k, int64_t parts)
{
    switch (n->op) {
    case MB_OP_RESHAPE:
        return mb__cut_reshaped(x, n, k, parts);
    case MB_OP_PERMUTE:
        return cut_permuted(n, k);
    case MB_OP_BROADCAST:
        return cut_broadcast(x, n, k);
    case MB_OP_SLICE:
        return cut_untouched(x, n, n->attr, k);
    case MB_OP_WINDOW:
        return cut_windows(n, k);
    case MB_OP_BARRIER:
        return k;
    default:
        return MB_CUT_NONE;
    }
}

static int cut_joined(const mb__gnode *x, const mb__gnode *n, int k)
{
    switch (n->op) {
    case MB_OP_PAD:
        return n->nin == 1 ? cut_untouched(x, n, n->attr, k) : MB_CUT_NONE;
    case MB_OP_CONCAT:
        return k == n->attr[0] ? MB_CUT_NONE : k;
    case MB_OP_FOLD:
        return cut_folded(n, k);
    default:
        return MB_CUT_NONE;
    }
}

static int cut_reduced(const mb__gnode *n, int k)
{
    return n->dim[k] != 1 ? k : n->op == MB_OP_SUM ? MB_CUT_ADDED : MB_CUT_NONE;
}

int mb__cut_of(const mb__graph *g, const mb__gnode *n, int j, int k, int64_t parts)
{
    const mb__gnode *x = &g->nodes[n->in[j]];
    if (n->op >= MB_OP_COUNT)
        return MB_CUT_NONE;
    if (mb__is_elementwise(n->op))
        return cut_broadcast(x, n, k);
    switch ((mb__kind)mb__ops[n->op].kind) {
    case MB_KIND_VIEW:
        return cut_view(x, n, k, parts);
    case MB_KIND_JOIN:
        return cut_joined(x, n, k);
    case MB_KIND_REDUCE:
        return cut_reduced(n, k);
    case MB_KIND_CONTRACT:
        return cut_contracted(n, j, k);
    case MB_KIND_AXIS:
        return k == (n->op == MB_OP_ARGSORT ? n->rank - 1 : n->attr[0]) ? MB_CUT_NONE : k;
    case MB_KIND_INDEX:
        return n->op == MB_OP_TAKE ? cut_taken(n, &g->nodes[n->in[1]], j, k)
                                   : cut_scattered(n, &g->nodes[n->in[1]], j, k);
    case MB_KIND_IDENTITY:
        return k;
    case MB_KIND_MATRIX:
        return k < n->rank - 2 ? k : MB_CUT_NONE;
    default:
        return MB_CUT_NONE;
    }
}

/* ---- the other way ---- */

/* Of a contraction whose operand `from` is cut along k. */
static int operand_contracted(const mb__gnode *n, int j, int from, int k)
{
    return (int)n->attr[1 + 3 * label_of(n, from, k) + j];
}

/* Of take and scatter_add, whose operand 1 is the index. */
static int operand_indexed(const mb__graph *g, const mb__gnode *n, int j, int from, int k)
{
    int axis = (int)n->attr[0], rank = g->nodes[n->in[1]].rank;
    bool take = n->op == MB_OP_TAKE;
    if (from == j)
        return k;
    if (from == 1) /* j is 0 */
        return take ? MB_CUT_NONE : axis + k;
    return !take && k >= axis && k < axis + rank ? k - axis : MB_CUT_NONE;
}

int mb__cut_operand(const mb__graph *g, const mb__gnode *n, int j, int from, int k, int to)
{
    const mb__gnode *x = &g->nodes[n->in[j]];
    int i;
    if (j == from)
        return k;
    if (mb__is_elementwise(n->op)) {
        i = to - (n->rank - x->rank);
        return i < 0 || x->dim[i] != n->dim[to] ? MB_CUT_NONE : i;
    }
    switch ((mb__kind)mb__ops[n->op].kind) {
    case MB_KIND_CONTRACT:
        return operand_contracted(n, j, from, k);
    case MB_KIND_INDEX:
        return operand_indexed(g, n, j, from, k);
    case MB_KIND_JOIN:
    case MB_KIND_MATRIX:
        return to;
    default:
        return MB_CUT_NONE;
    }
}
