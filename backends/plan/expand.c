/* SPDX-License-Identifier: MIT
 *
 * expand.c - puts other ops in the place of folds.
 *
 * A fold adds the elements of overlapping windows up in one axis: pad the j-th of each window, and add. Where
 * the windows come from a contraction they need not be made. With stride 1 and windows of K,
 *
 *     y[i] = sum_j g[i - j d, j],  g[o, j] = sum_c a[c, j] b[o, c]
 *          = sum_{j, c} a[c, K - 1 - j] p[i + j d, c],  p = b with (K - 1) d zeros in front and as many
 * behind
 *
 * is a contraction again, over windows of b: so the derivative of a convolution by its input is a convolution
 * of the cotangent, and a transposed convolution is one. What is sliced off the result is sliced off b.
 */
#include "backends/plan/graph.h"

typedef struct expander {
    mb__graph *old, fresh;
    int32_t *uses, *map; /* of old nodes */
    bool failed;
} expander;

static int32_t append(expander *u, const mb__gnode *n)
{
    int32_t id = mb__graph_append(&u->fresh, n);
    if (id < 0)
        u->failed = true;
    return id < 0 ? 0 : id;
}

static const mb__gnode *at(const expander *u, int32_t id)
{
    return &u->fresh.nodes[id];
}

/* A node of the dtype and site of `like`. */
static int32_t make(expander *u, int op, mb__gnode like, int rank, const int64_t *dim, const int32_t *in,
                    int nin, const int64_t *attr, int nattr)
{
    int32_t id = mb__graph_make(&u->fresh, op, like.dtype, like.site, rank, dim, in, nin, attr, nattr);
    if (id < 0)
        u->failed = true;
    return id < 0 ? 0 : id;
}

/* Elements start, start + step, ... of one axis, `count` of them; or, for MB_OP_PAD, the places where those
 * of x go in an axis of `count`. */
static int32_t along(expander *u, int op, int32_t x, int axis, int64_t start, int64_t step, int64_t count)
{
    mb__gnode n = *at(u, x);
    int64_t attr[2 * MB_MAX_RANK] = {0};
    for (int i = 0; i < n.rank; i++)
        attr[n.rank + i] = 1;
    if (start == 0 && step == 1 && n.dim[axis] == count)
        return x;
    attr[axis] = start;
    attr[n.rank + axis] = step;
    n.dim[axis] = count;
    return make(u, op, n, n.rank, n.dim, &x, 1, attr, 2 * n.rank);
}

/* ---- as pads and additions ---- */

static int32_t add_up(expander *u, const mb__gnode *fold, int32_t x)
{
    int axis = (int)fold->attr[0];
    int64_t size = at(u, x)->dim[axis + 1], narrow[MB_MAX_RANK];
    memcpy(narrow, fold->dim, sizeof narrow);
    narrow[axis] = at(u, x)->dim[axis];
    int32_t sum = 0;
    for (int64_t j = 0; j < size && !u->failed; j++) {
        int32_t part = along(u, MB_OP_SLICE, x, axis + 1, j, 1, 1);
        part = u->failed ? 0 : make(u, MB_OP_RESHAPE, *fold, fold->rank, narrow, &part, 1, NULL, 0);
        part = u->failed ? 0
                         : along(u, MB_OP_PAD, part, axis, j * fold->attr[2], fold->attr[1], fold->dim[axis]);
        if (j > 0 && !u->failed)
            part = make(u, MB_OP_ADD, *fold, fold->rank, fold->dim, (int32_t[]){sum, part}, 2, NULL, 0);
        sum = part;
    }
    return sum;
}

/* ---- as a contraction ---- */

/* The label of an axis of a contraction's result. */
static int label_of(const mb__gnode *contract, int axis)
{
    int l = 0;
    while (contract->attr[3 + 3 * l] != axis)
        l++;
    return l;
}

/* Whether the windows are of one operand, and the places in them of the other: returns that one, or -1. */
static int weights_of(const expander *u, const mb__gnode *fold, const mb__gnode *x)
{
    if (x->op != MB_OP_CONTRACT || u->uses[fold->in[0]] != 1 || fold->attr[1] != 1)
        return -1;
    int axis = (int)fold->attr[0];
    const int64_t *window = x->attr + 1 + 3 * label_of(x, axis),
                  *place = x->attr + 1 + 3 * label_of(x, axis + 1);
    for (int p = 0; p < 2; p++)
        if (place[p] >= 0 && place[1 - p] < 0 && window[1 - p] >= 0 && window[p] < 0 &&
            at(u, x->in[1 - p])->rank < MB_MAX_RANK)
            return p;
    return -1;
}

/* p: as returned by weights_of. */
static int32_t convolve(expander *u, const mb__gnode *fold, mb__gnode x, int p)
{
    int axis = (int)fold->attr[0], labels = (int)x.attr[0], q = 1 - p;
    int window = label_of(&x, axis), place = label_of(&x, axis + 1);
    int64_t attr[1 + 3 * 24], *label = attr + 1, n = fold->dim[axis], dilation = fold->attr[2];
    memcpy(attr, x.attr, (size_t)x.nattr * sizeof *attr);
    int on_p = (int)label[3 * place + p], on_q = (int)label[3 * window + q];
    int64_t size = x.dim[axis + 1], reach = (size - 1) * dilation;
    int32_t in[2] = {x.in[0], x.in[1]};
    in[p] = along(u, MB_OP_SLICE, in[p], on_p, size - 1, size == 1 ? 1 : -1, size);
    in[q] = u->failed ? 0 : along(u, MB_OP_PAD, in[q], on_q, reach, 1, n + reach);
    if (u->failed)
        return 0;
    mb__gnode b = *at(u, in[q]);
    for (int i = b.rank++; i > on_q + 1; i--)
        b.dim[i] = b.dim[i - 1];
    b.dim[on_q] = n;
    b.dim[on_q + 1] = size;
    in[q] = make(u, MB_OP_WINDOW, b, b.rank, b.dim, &in[q], 1, (int64_t[]){on_q, 1, dilation}, 3);
    for (int l = 0; l < labels; l++) {
        label[3 * l + q] += label[3 * l + q] > on_q;
        label[3 * l + 2] -= label[3 * l + 2] > axis;
    }
    label[3 * place + q] = on_q + 1;
    label[3 * place + 2] = -1;
    return u->failed ? 0 : make(u, MB_OP_CONTRACT, *fold, fold->rank, fold->dim, in, 2, attr, x.nattr);
}

/* A slice of what a fold has become: of the operands. */
static int32_t slice_operands(expander *u, const mb__gnode *slice, mb__gnode x)
{
    int32_t in[2] = {x.in[0], x.in[1]};
    for (int i = 0; i < slice->rank; i++) {
        const int64_t *label = x.attr + 1 + 3 * label_of(&x, i);
        for (int s = 0; s < 2 && !u->failed; s++)
            if (label[s] >= 0)
                in[s] = along(u, MB_OP_SLICE, in[s], (int)label[s], slice->attr[i],
                              slice->attr[slice->rank + i], slice->dim[i]);
    }
    return u->failed ? 0 : make(u, MB_OP_CONTRACT, *slice, slice->rank, slice->dim, in, 2, x.attr, x.nattr);
}

/* ---- the graph ---- */

static int32_t renewed(expander *u, const mb__gnode *n, bool products)
{
    mb__gnode copy = *n;
    copy.in = mb__bump_get(u->fresh.bump, (size_t)(n->nin + 1) * sizeof *copy.in);
    if (!copy.in) {
        u->failed = true;
        return 0;
    }
    for (int j = 0; j < n->nin; j++)
        copy.in[j] = u->map[n->in[j]];
    const mb__gnode *x = n->nin ? at(u, copy.in[0]) : NULL;
    if (n->op == MB_OP_FOLD) {
        int p = products ? weights_of(u, n, x) : -1;
        return p >= 0 ? convolve(u, n, *x, p) : add_up(u, n, copy.in[0]);
    }
    if (n->op == MB_OP_SLICE && x->op == MB_OP_CONTRACT && u->old->nodes[n->in[0]].op == MB_OP_FOLD &&
        u->uses[n->in[0]] == 1)
        return slice_operands(u, n, *x);
    return append(u, &copy);
}

mb_status mb__expand(mb__graph *g, unsigned passes)
{
    expander u = {.old = g, .fresh = *g};
    int folds = 0;
    for (int i = 0; i < g->count; i++)
        folds += g->nodes[i].op == MB_OP_FOLD;
    if (!folds)
        return MB_OK;
    u.fresh.nodes = NULL;
    u.fresh.count = u.fresh.capacity = 0;
    u.uses = mb__bump_get(g->bump, (size_t)(g->count + 1) * sizeof *u.uses);
    u.map = mb__bump_get(g->bump, (size_t)(g->count + 1) * sizeof *u.map);
    if (!u.uses || !u.map)
        return MB_NO_MEMORY;
    for (int i = 0; i < g->count; i++)
        for (int j = 0; j < g->nodes[i].nin; j++)
            u.uses[g->nodes[i].in[j]]++;
    for (int i = 0; i < g->output_count; i++)
        u.uses[g->outputs[i]]++;
    for (int i = 0; i < g->count && !u.failed; i++)
        u.map[i] = renewed(&u, &g->nodes[i], passes & MB_PASS_SIMPLIFY);
    if (u.failed)
        return MB_NO_MEMORY;
    for (int i = 0; i < g->output_count; i++)
        u.fresh.outputs[i] = u.map[g->outputs[i]];
    *g = u.fresh;
    return MB_OK;
}
