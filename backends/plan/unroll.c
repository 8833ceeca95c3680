/* SPDX-License-Identifier: MIT
 *
 * unroll.c - loops of a graph as all their steps, one after the other: for backends that have no loops, and
 * to compare loops with.
 */
#include "backends/plan/graph.h"

typedef struct unroller {
    mb__graph fresh;
    bool failed;
} unroller;

static int32_t append(unroller *u, const mb__gnode *x)
{
    int32_t id = mb__graph_append(&u->fresh, x);
    if (id < 0)
        u->failed = true;
    return id < 0 ? 0 : id;
}

static void *memory(unroller *u, size_t bytes)
{
    void *p = mb__bump_get(u->fresh.bump, bytes);
    if (!p)
        u->failed = true;
    return p;
}

/* A node of another op, dtype and place of `like`. */
static int32_t make(unroller *u, int op, const mb__gnode *like, int rank, const int64_t *dim,
                    const int32_t *in, int nin, const int64_t *attr, int nattr)
{
    int32_t id = mb__graph_make(&u->fresh, op, like->dtype, like->site, rank, dim, in, nin, attr, nattr);
    if (id < 0)
        u->failed = true;
    return id < 0 ? 0 : id;
}

/* Entry t of the first axis, without that axis. */
static int32_t entry(unroller *u, int32_t xs, int64_t t)
{
    mb__gnode x = u->fresh.nodes[xs];
    int64_t attr[2 * MB_MAX_RANK] = {t}, dim[MB_MAX_RANK];
    memcpy(dim, x.dim, sizeof dim);
    dim[0] = 1;
    for (int i = 0; i < x.rank; i++)
        attr[x.rank + i] = 1;
    int32_t part = make(u, MB_OP_SLICE, &x, x.rank, dim, &xs, 1, attr, 2 * x.rank);
    return u->failed ? 0 : make(u, MB_OP_RESHAPE, &x, x.rank - 1, x.dim + 1, &part, 1, NULL, 0);
}

/* Tensors of one shape along a new first axis. */
static int32_t stack(unroller *u, int32_t *parts, int64_t count)
{
    mb__gnode x = u->fresh.nodes[parts[0]];
    int64_t dim[MB_MAX_RANK] = {1}, axis = 0;
    memcpy(dim + 1, x.dim, (size_t)x.rank * sizeof *dim);
    for (int64_t t = 0; t < count && !u->failed; t++)
        parts[t] = make(u, MB_OP_RESHAPE, &x, x.rank + 1, dim, &parts[t], 1, NULL, 0);
    dim[0] = count;
    return u->failed ? 0 : make(u, MB_OP_CONCAT, &x, x.rank + 1, dim, parts, (int)count, &axis, 1);
}

/* One step of the body; at: its inputs, then its outputs. */
static void one_step(unroller *u, const mb__graph *body, const int32_t *in, int32_t *out, int32_t *map)
{
    for (int i = 0; i < body->count && !u->failed; i++) {
        mb__gnode x = body->nodes[i];
        if (x.op == MB_OP_BUFFER) {
            map[i] = in[x.bind];
            continue;
        }
        int32_t *old = x.in;
        if (!(x.in = memory(u, (size_t)(x.nin + 1) * sizeof *x.in)))
            return;
        for (int j = 0; j < x.nin; j++)
            x.in[j] = map[old[j]];
        map[i] = append(u, &x);
    }
    for (int i = 0; i < body->output_count; i++)
        out[i] = map[body->outputs[i]];
}

/* results: the nodes of the loop's results. */
static void steps(unroller *u, const mb__gloop *l, const int32_t *operands, int32_t *results)
{
    int inputs = l->carries + l->slices + l->captures, outputs = l->carries + l->stacks;
    int32_t *in = memory(u, (size_t)(inputs + 1) * sizeof *in),
            *out = memory(u, (size_t)(outputs + 1) * sizeof *out);
    int32_t *map = memory(u, (size_t)(l->body.count + 1) * sizeof *map);
    int32_t *parts = memory(u, (size_t)(l->stacks * l->steps + 1) * sizeof *parts);
    if (u->failed)
        return;
    memcpy(in, operands, (size_t)inputs * sizeof *in);
    for (int64_t s = 0; s < l->steps && !u->failed; s++) {
        int64_t t = l->backwards ? l->steps - 1 - s : s;
        for (int i = 0; i < l->slices && !u->failed; i++)
            in[l->carries + i] = entry(u, operands[l->carries + i], t);
        one_step(u, &l->body, in, out, map);
        memcpy(in, out, (size_t)l->carries * sizeof *in);
        for (int i = 0; i < l->stacks; i++)
            parts[i * l->steps + t] = out[l->carries + i];
    }
    memcpy(results, in, (size_t)l->carries * sizeof *in);
    for (int i = 0; i < l->stacks && !u->failed; i++)
        results[l->carries + i] = stack(u, parts + i * l->steps, l->steps);
}

mb_status mb__unroll(mb__graph *g)
{
    if (!g->loop_count)
        return MB_OK;
    unroller u = {.fresh = *g};
    u.fresh.nodes = NULL;
    u.fresh.count = u.fresh.capacity = u.fresh.loop_count = 0;
    int32_t *map = memory(&u, (size_t)(g->count + 1) * sizeof *map);
    int32_t **results = memory(&u, (size_t)(g->loop_count + 1) * sizeof *results);
    for (int i = 0; i < g->loop_count && !u.failed; i++)
        if (mb__unroll(&g->loops[i].body) != MB_OK)
            return MB_NO_MEMORY;
    for (int i = 0; i < g->count && !u.failed; i++) {
        mb__gnode x = g->nodes[i];
        int32_t *in = memory(&u, (size_t)(x.nin + 1) * sizeof *in);
        for (int j = 0; in && j < x.nin; j++)
            in[j] = x.op == MB_OP_RESULT ? 0 : map[x.in[j]];
        if (u.failed)
            break;
        if (x.op == MB_OP_SCAN) {
            const mb__gloop *l = &g->loops[x.attr[0]];
            results[x.attr[0]] = memory(&u, (size_t)(l->carries + l->stacks + 1) * sizeof **results);
            if (!u.failed)
                steps(&u, l, in, results[x.attr[0]]);
        } else if (x.op == MB_OP_RESULT) {
            map[i] = results[g->nodes[x.in[0]].attr[0]][x.attr[0]];
        } else {
            x.in = in;
            map[i] = append(&u, &x);
        }
    }
    for (int i = 0; i < g->output_count && !u.failed; i++)
        u.fresh.outputs[i] = map[g->outputs[i]];
    if (u.failed)
        return MB_NO_MEMORY;
    *g = u.fresh;
    return MB_OK;
}
