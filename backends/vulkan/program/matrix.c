/* SPDX-License-Identifier: MIT
 *
 * matrix.c - Cholesky factors and triangular solves. Matrices up to a block are one dispatch, for all of the
 * batch; larger ones go block by block, and what the rest gets of each block is a dispatch for all of the
 * rest. So no dispatch waits for another group, and none takes longer for a larger n but by its number of
 * groups.
 */
#include "backends/vulkan/program/program.h"

enum { BLOCK = 32, TILE = 32, FACTOR_SHARED = 1280 }; /* as the shaders have it */

/* A matrix for each of the batch: from an element of the first one on, by strides. */
typedef struct piece {
    int32_t value;
    int64_t at, row, column;
    const int64_t *batch; /* strides */
} piece;

typedef struct batch {
    mb__vk_program *p;
    int step;
    const mb__other *o;
    int64_t matrices;
} batch;

static piece piece_of(const mb__other *o, const mb__view *v)
{
    return (piece){v->value, v->offset, v->stride[o->axis], v->stride[o->axis + 1], v->stride};
}

/* From an element of each matrix on. */
static piece part(piece x, int64_t row, int64_t column)
{
    x.at += row * x.row + column * x.column;
    return x;
}

static piece turned(piece x)
{
    int64_t row = x.row;
    x.row = x.column;
    x.column = row;
    return x;
}

/* What a dispatch does: a kernel's operands, sizes and own word, as its source describes them. */
typedef struct work {
    const char *kernel;
    piece a, b, out;
    int64_t m, n, k, own;
    uint32_t local;
    int64_t groups; /* for all matrices */
    double cost;
} work;

/* The groups [first, first + count). */
static bool add_groups(const batch *x, const work *w, mb__vk_pipeline *pipeline, int64_t first, int64_t count)
{
    mb__vk_program *p = x->p;
    const piece *pieces[3] = {&w->a, &w->b, &w->out};
    mb__vk_slot slots[3];
    for (int i = 0; i < 3; i++)
        slots[i] = (mb__vk_slot){pieces[i]->value, pieces[i]->at};
    uint32_t region = mb__vk_region(p, slots, 3);
    mb__vk_param(p, x->matrices);
    mb__vk_param(p, first);
    for (int i = 0; i < 3; i++) {
        mb__vk_param(p, pieces[i]->row);
        mb__vk_param(p, pieces[i]->column);
    }
    mb__vk_param(p, w->m);
    mb__vk_param(p, w->n);
    mb__vk_param(p, w->k);
    mb__vk_param(p, w->own);
    mb__vk_param(p, x->o->axis);
    for (int axis = 0; axis < x->o->axis; axis++) {
        mb__vk_param(p, x->o->out_dim[axis]);
        for (int i = 0; i < 3; i++)
            mb__vk_param(p, pieces[i]->batch[axis]);
    }
    mb__vk_accesses(p, w->a.value, false);
    mb__vk_accesses(p, w->b.value, false);
    mb__vk_accesses(p, w->out.value, false); /* what was written by the dispatch before */
    mb__vk_accesses(p, w->out.value, true);
    mb__vk_dispatch_add(p, pipeline, region, count, x->step, w->cost * (double)count / (double)w->groups);
    return !p->failed;
}

/* In as many dispatches as it takes for none to be too long. */
static bool add_work(const batch *x, const work *w)
{
    const mb__vk *v = x->p->v;
    mb__vk_pipeline *pipeline = mb__vk_pipeline_named(x->p, x->step, w->kernel, x->o->dtype, w->local);
    if (!pipeline)
        return false;
    double pieces = v->caps.processor ? 1 : w->cost / (2 * v->batch_cost) + 1;
    int64_t most = (int64_t)((double)w->groups / pieces) + 1;
    for (int64_t first = 0; first < w->groups; first += most)
        if (!add_groups(x, w, pipeline, first, w->groups - first < most ? w->groups - first : most))
            return false;
    return true;
}

static uint32_t widest(const batch *x)
{
    return x->p->v->caps.processor ? 32 : mb__vk_widest(x->p->v);
}

/* The factor of blocks of n rows; `after`: of ones that are not the first in their matrix. */
static bool add_factor(const batch *x, piece from, piece to, int64_t n, bool after)
{
    uint32_t lanes = mb__vk_power_up(n, BLOCK), local = lanes, most = mb__vk_widest(x->p->v);
    while (2 * local <= most && 2 * local * (lanes + 1) <= FACTOR_SHARED)
        local *= 2;
    int64_t share = local / lanes;
    work w = {"factor", to, from, to, n, n, n, lanes + (after ? 256 : 0), local, 0, 0};
    w.groups = (x->matrices + share - 1) / share;
    w.cost = 4.0 * (double)(x->matrices * n * n) * (double)n;
    return add_work(x, &w);
}

/* to = a^-1 from, for n columns of k rows. */
static bool add_substitute(const batch *x, piece a, piece from, piece to, int64_t k, int64_t n, bool unit)
{
    work w = {"substitute", a, from, to, k, n, k, unit, widest(x), 0, 0};
    w.groups = (x->matrices * n + w.local - 1) / w.local;
    w.cost = 4.0 * (double)(x->matrices * n * k) * (double)k;
    return add_work(x, &w);
}

/* to -= a b; `lower`: but above the diagonal. */
static bool add_subtract(const batch *x, piece a, piece b, piece to, int64_t m, int64_t n, int64_t k,
                         bool lower)
{
    work w = {"subtract", a, b, to, m, n, k, lower, widest(x), 0, 0};
    w.groups = x->matrices * ((m + TILE - 1) / TILE) * ((n + TILE - 1) / TILE);
    w.cost = 2.0 * (double)(x->matrices * m * n) * (double)k;
    return add_work(x, &w);
}

enum { COPY, COPY_LOWER, SPREAD_NAN };
static bool add_elements(const batch *x, piece from, piece to, int64_t m, int64_t n, int kind)
{
    work w = {"triangle", from, from, to, m, n, 0, kind, widest(x), 0, 0};
    w.groups = (x->matrices * m * n + w.local - 1) / w.local;
    w.cost = 8.0 * (double)(x->matrices * m * n);
    return add_work(x, &w);
}

static bool add_cholesky(const batch *x)
{
    const mb__other *o = x->o;
    int64_t n = o->out_dim[o->axis];
    piece a = piece_of(o, &o->in), l = piece_of(o, &o->out);
    if (n <= BLOCK)
        return add_factor(x, a, l, n, false);
    bool ok = add_elements(x, a, l, n, n, COPY_LOWER);
    for (int64_t at = 0, done, rest; ok && at < n; at = done) {
        done = n - at < BLOCK ? n : at + BLOCK;
        rest = n - done;
        piece block = part(l, at, at), below = part(l, done, at);
        ok = add_factor(x, block, block, done - at, at > 0) &&
             (!rest ||
              (add_substitute(x, block, turned(below), turned(below), done - at, rest, false) &&
               add_subtract(x, below, turned(below), part(l, done, done), rest, rest, done - at, true)));
    }
    return ok && add_elements(x, l, l, n, n, SPREAD_NAN);
}

/* Of an upper triangle rows and columns are counted from the end. */
static bool add_triangular_solve(const batch *x)
{
    const mb__other *o = x->o;
    int64_t n = o->out_dim[o->axis], m = o->out_dim[o->axis + 1];
    piece a = piece_of(o, &o->in), b = piece_of(o, &o->index), to = piece_of(o, &o->out);
    if (o->flag) {
        a = part(a, n - 1, n - 1), b = part(b, n - 1, 0), to = part(to, n - 1, 0);
        a.row = -a.row, a.column = -a.column, b.row = -b.row, to.row = -to.row;
    }
    if (n <= BLOCK)
        return add_substitute(x, a, b, to, n, m, o->unit);
    bool ok = add_elements(x, b, to, n, m, COPY);
    for (int64_t at = 0, done; ok && at < n; at = done) {
        done = n - at < BLOCK ? n : at + BLOCK;
        piece rows = part(to, at, 0);
        ok = add_substitute(x, part(a, at, at), rows, rows, done - at, m, o->unit) &&
             (done == n ||
              add_subtract(x, part(a, done, at), rows, part(to, done, 0), n - done, m, done - at, false));
    }
    return ok;
}

bool mb__vk_add_matrix(mb__vk_program *p, int step, const mb__other *o)
{
    batch x = {p, step, o, mb__numel(o->out_dim, o->axis)};
    return o->op == MB_OP_CHOLESKY ? add_cholesky(&x) : add_triangular_solve(&x);
}
