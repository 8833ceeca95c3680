/* SPDX-License-Identifier: MIT
 *
 * pads.c - sums of tensors that are zero but for a part each. Such are the adjoints of slices: a loop over
 * the steps of a sequence leaves one for each step, of the sequence's full size, and adding them up is
 * quadratic. The pads of a tree of additions whose parts do not meet become one pad of many operands, which
 * is linear.
 */
#include <string.h>

#include "backends/plan/graph.h"

enum { SETS_MOST = 8 }; /* of parts that do not meet: as many windows may overlap at an element */

typedef struct leaf {
    int32_t node, set; /* -1: not a pad, or one for which there is no set */
} leaf;

typedef struct adder {
    mb__graph *g, fresh;
    int32_t *uses, *map;
    bool *inner; /* an addition that is part of the tree of a later one */
    int32_t *stack;
    leaf *leaves;
    int leaf_count;
    int set_size[SETS_MOST];
    bool failed;
} adder;

static bool same_space(const mb__gnode *a, const mb__gnode *b)
{
    return a->dtype == b->dtype && a->rank == b->rank &&
           !memcmp(a->dim, b->dim, (size_t)a->rank * sizeof *a->dim);
}

static bool is_part(const adder *u, int32_t i, const mb__gnode *root)
{
    const mb__gnode *n = &u->g->nodes[i];
    return n->op == MB_OP_PAD && n->nin == 1 && u->uses[i] == 1 && same_space(n, root);
}

/* Whether the steps before + k step, k < size, of two pads along an axis have none in common. */
static bool apart_on_axis(int64_t before_a, int64_t step_a, int64_t size_a, int64_t before_b, int64_t step_b,
                          int64_t size_b)
{
    if (size_a == 0 || size_b == 0)
        return true;
    int64_t end_a = before_a + (size_a - 1) * step_a, end_b = before_b + (size_b - 1) * step_b;
    int64_t low_a = before_a < end_a ? before_a : end_a, high_a = before_a < end_a ? end_a : before_a,
            low_b = before_b < end_b ? before_b : end_b, high_b = before_b < end_b ? end_b : before_b;
    int64_t stride_a = step_a < 0 ? -step_a : step_a, stride_b = step_b < 0 ? -step_b : step_b;
    return high_a < low_b || high_b < low_a ||
           (stride_a == stride_b && stride_a > 0 && (low_a - low_b) % stride_a != 0);
}

static bool apart(const mb__graph *g, int32_t a, int32_t b)
{
    const mb__gnode *x = &g->nodes[a], *y = &g->nodes[b];
    const int64_t *dim_x = g->nodes[x->in[0]].dim, *dim_y = g->nodes[y->in[0]].dim;
    int rank = x->rank;
    for (int i = 0; i < rank; i++)
        if (apart_on_axis(x->attr[i], x->attr[rank + i], dim_x[i], y->attr[i], y->attr[rank + i], dim_y[i]))
            return true;
    return false;
}

/* The terms of the tree of additions with this root, in order. */
static void list_terms(adder *u, int32_t root)
{
    const mb__gnode *nodes = u->g->nodes;
    int top = 0;
    u->leaf_count = 0;
    u->stack[top++] = root;
    while (top) {
        int32_t i = u->stack[--top];
        if (i == root || u->inner[i]) {
            u->stack[top++] = nodes[i].in[1];
            u->stack[top++] = nodes[i].in[0];
        } else {
            u->leaves[u->leaf_count++] = (leaf){i, -1};
        }
    }
}

/* Gives each pad the first set in which it meets none; whether any set has more than one. */
static bool find_sets(adder *u, int32_t root)
{
    memset(u->set_size, 0, sizeof u->set_size);
    bool found = false;
    for (int i = 0; i < u->leaf_count; i++) {
        leaf *l = &u->leaves[i];
        if (!is_part(u, l->node, &u->g->nodes[root]))
            continue;
        bool meets[SETS_MOST] = {false};
        for (int k = 0; k < i; k++)
            if (u->leaves[k].set >= 0 && !meets[u->leaves[k].set])
                meets[u->leaves[k].set] = !apart(u->g, u->leaves[k].node, l->node);
        for (int s = 0; s < SETS_MOST && l->set < 0; s++)
            if (!meets[s])
                l->set = s;
        if (l->set >= 0)
            found |= ++u->set_size[l->set] > 1;
    }
    return found;
}

/* ---- the new graph ---- */

static int32_t emit(adder *u, const mb__gnode *n)
{
    int32_t id = mb__graph_append(&u->fresh, n);
    if (id < 0)
        u->failed = true;
    return id < 0 ? 0 : id;
}

/* A node like `like`, of another op and n operands, which the caller fills in. */
static mb__gnode like_of(adder *u, const mb__gnode *like, int op, int n, int nattr, int64_t **attr)
{
    mb__gnode x = *like;
    x.op = (uint16_t)op;
    x.nin = n;
    x.nattr = nattr;
    x.in = mb__bump_get(u->g->bump, (size_t)(n + 1) * sizeof *x.in);
    *attr = mb__bump_get(u->g->bump, (size_t)(nattr + 1) * sizeof **attr);
    x.attr = *attr;
    u->failed |= !x.in || !*attr;
    return x;
}

static int32_t emit_set(adder *u, const mb__gnode *root, int set)
{
    int rank = root->rank, n = u->set_size[set], at = 0;
    int64_t *attr;
    mb__gnode pad = like_of(u, root, MB_OP_PAD, n, 2 * rank * n, &attr);
    for (int i = 0; i < u->leaf_count && !u->failed; i++)
        if (u->leaves[i].set == set) {
            const mb__gnode *part = &u->g->nodes[u->leaves[i].node];
            pad.in[at] = u->map[part->in[0]];
            memcpy(attr + 2 * (size_t)rank * (size_t)at++, part->attr, 2 * (size_t)rank * sizeof *attr);
        }
    return u->failed ? 0 : emit(u, &pad);
}

static int32_t emit_sum(adder *u, const mb__gnode *root, int32_t sum, int32_t term)
{
    int64_t *attr;
    if (sum < 0)
        return term;
    mb__gnode add = like_of(u, root, MB_OP_ADD, 2, 0, &attr);
    if (u->failed)
        return 0;
    add.in[0] = sum;
    add.in[1] = term;
    return emit(u, &add);
}

static int32_t emit_tree(adder *u, int32_t id)
{
    const mb__gnode *root = &u->g->nodes[id];
    int32_t sum = -1;
    for (int i = 0; i < u->leaf_count && !u->failed; i++)
        if (u->leaves[i].set < 0 || u->set_size[u->leaves[i].set] == 1)
            sum = emit_sum(u, root, sum, u->map[u->leaves[i].node]);
    for (int s = 0; s < SETS_MOST && !u->failed; s++)
        if (u->set_size[s] > 1)
            sum = emit_sum(u, root, sum, emit_set(u, root, s));
    return sum;
}

static void emit_copy(adder *u, int32_t id)
{
    mb__gnode n = u->g->nodes[id];
    n.in = mb__bump_get(u->g->bump, (size_t)(n.nin + 1) * sizeof *n.in);
    if (!n.in) {
        u->failed = true;
        return;
    }
    for (int j = 0; j < n.nin; j++)
        n.in[j] = u->map[u->g->nodes[id].in[j]];
    u->map[id] = emit(u, &n);
}

/* Which additions are part of another's tree; whether there is a pad in any. */
static bool find_trees(adder *u)
{
    const mb__graph *g = u->g;
    bool pads = false;
    for (int i = 0; i < g->count; i++)
        for (int j = 0; j < g->nodes[i].nin; j++)
            u->uses[g->nodes[i].in[j]]++;
    for (int i = 0; i < g->output_count; i++)
        u->uses[g->outputs[i]]++;
    for (int i = 0; i < g->count; i++)
        for (int j = 0; g->nodes[i].op == MB_OP_ADD && j < 2; j++) {
            int32_t o = g->nodes[i].in[j];
            u->inner[o] =
                g->nodes[o].op == MB_OP_ADD && u->uses[o] == 1 && same_space(&g->nodes[o], &g->nodes[i]);
            pads |= is_part(u, o, &g->nodes[i]);
        }
    return pads;
}

mb_status mb__gather_pads(mb__graph *g)
{
    adder u = {.g = g, .fresh = *g};
    size_t n = (size_t)g->count + 1;
    u.uses = mb__bump_get(g->bump, n * sizeof *u.uses);
    u.map = mb__bump_get(g->bump, n * sizeof *u.map);
    u.inner = mb__bump_get(g->bump, n * sizeof *u.inner);
    u.stack = mb__bump_get(g->bump, n * sizeof *u.stack);
    u.leaves = mb__bump_get(g->bump, n * sizeof *u.leaves);
    if (!u.uses || !u.map || !u.inner || !u.stack || !u.leaves)
        return MB_NO_MEMORY;
    if (!find_trees(&u))
        return MB_OK;
    u.fresh.nodes = NULL;
    u.fresh.count = u.fresh.capacity = 0;
    for (int i = 0; i < g->count && !u.failed; i++) {
        bool root = g->nodes[i].op == MB_OP_ADD && !u.inner[i];
        if (root)
            list_terms(&u, i);
        if (root && u.leaf_count > 1 && find_sets(&u, i))
            u.map[i] = emit_tree(&u, i);
        else
            emit_copy(&u, i); /* what is then left without a reader is dropped later */
    }
    if (u.failed)
        return MB_NO_MEMORY;
    for (int i = 0; i < g->output_count; i++)
        g->outputs[i] = u.map[g->outputs[i]];
    *g = u.fresh;
    return MB_OK;
}
