/* SPDX-License-Identifier: MIT
 * lower.c - the schedule of groups and single nodes becomes a list of steps. Groups are kernels, contractions
 * products, scans loops; every other op, and parts that are joined, is done here. */
#include "backends/plan/lower.h"

static mb__view node_view(mb__lowering *l, int32_t id)
{
    const mb__gnode *n = &l->g->nodes[id];
    mb__view v = {mb__lower_value_of(l, n->base), n->offset, {0}};
    memcpy(v.stride, n->stride, sizeof v.stride);
    return v;
}

/* A kernel that copies node `from` (any base, generated ones too) into a view. */
static void copy_node(mb__lowering *l, const char *site, int32_t from, const mb__view *to)
{
    const mb__gnode *n = &l->g->nodes[from], *b = &l->g->nodes[n->base];
    mb__instr in = {.op = MB_K_LOAD,
                    .dtype = n->dtype,
                    .from = n->dtype,
                    .in = {-1, -1, -1},
                    .bind = b->bind,
                    .site = site};
    in.view.value = -1;
    switch (b->op) {
    case MB_OP_CONST:
        in.op = MB_K_CONST;
        memcpy(&in.number, b->attr, sizeof in.number);
        break;
    case MB_OP_SCALAR:
        in.op = MB_K_SCALAR;
        break;
    case MB_OP_IOTA:
        in.op = MB_K_IOTA;
        break;
    case MB_OP_RANDOM:
        in.op = MB_K_RANDOM;
        break;
    default:
        in.view.value = mb__lower_value_of(l, n->base);
    }
    if (in.op == MB_K_LOAD || in.op == MB_K_IOTA || in.op == MB_K_RANDOM) {
        in.view.offset = n->offset;
        memcpy(in.view.stride, n->stride, sizeof in.view.stride);
    }
    mb__lower_store(l, site, n->rank, n->dim, &in, to);
}

static void matrix_op(mb__lowering *l, const mb__gnode *n, mb__other *o)
{
    double size = (double)n->dim[n->rank - 2], all = size * (double)mb__gcount(n);
    o->axis = n->rank - 2;
    o->flag = n->nattr && n->attr[0];
    o->unit = n->nattr && n->attr[1];
    l->plan->flops += (uint64_t)(n->op == MB_OP_CHOLESKY ? all / 3 : all);
}

static void lower_single(mb__lowering *l, int32_t id)
{
    const mb__gnode *n = &l->g->nodes[id];
    if (n->op == MB_OP_CONTRACT) {
        mb__lower_contract(l, id);
        return;
    }
    if (n->op == MB_OP_RESULT)
        return; /* its scan writes it */
    if (n->op == MB_OP_SCAN) {
        mb__lower_scan(l, id);
        return;
    }
    if (n->op == MB_OP_CALL) {
        mb__lower_custom(l, id);
        return;
    }
    mb__view out = node_view(l, id);
    if (l->failed)
        return;
    if (n->op == MB_OP_PAD || n->op == MB_OP_CONCAT) {
        int64_t covered = 0; /* the parts of a pad do not meet */
        for (int j = 0; j < n->nin; j++)
            covered += mb__gcount(&l->g->nodes[n->in[j]]);
        if (n->op == MB_OP_PAD && covered < mb__gcount(n)) {
            mb__step *s = mb__lower_step(l, MB_STEP_ZERO, n->site);
            if (!s)
                return;
            s->u.zero = out.value;
        }
        for (int j = 0; j < n->nin && !l->failed; j++) {
            const mb__gnode *x = &l->g->nodes[n->in[j]];
            mb__view to = out;
            const int64_t *at = n->op == MB_OP_PAD ? n->attr + 2 * n->rank * j : NULL;
            for (int i = 0; at && i < n->rank; i++) {
                to.offset += at[i] * out.stride[i];
                to.stride[i] = at[n->rank + i] * out.stride[i];
            }
            if (mb__gcount(x))
                copy_node(l, n->site, n->in[j], &to);
            if (n->op == MB_OP_CONCAT)
                out.offset += x->dim[n->attr[0]] * out.stride[n->attr[0]];
        }
        return;
    }
    bool sorts = n->op == MB_OP_ARGSORT;
    mb__other o = {.op = n->op,
                   .dtype = n->dtype,
                   .axis = n->nattr && !sorts ? (int)n->attr[0] : n->rank - 1,
                   .wanted = sorts ? n->attr[1] : 0,
                   .out = out};
    const mb__gnode *x = &l->g->nodes[n->in[0]];
    o.dtype = x->dtype;
    o.flag = sorts ? n->attr[0] : n->op == MB_OP_CUMSUM && n->attr[1];
    if (mb__is_kind(n->op, MB_KIND_MATRIX))
        matrix_op(l, n, &o);
    o.out_rank = n->rank;
    memcpy(o.out_dim, n->dim, sizeof o.out_dim);
    o.in = node_view(l, n->in[0]);
    o.in_rank = x->rank;
    memcpy(o.in_dim, x->dim, sizeof o.in_dim);
    o.index.value = -1;
    if (n->nin > 1) {
        const mb__gnode *i = &l->g->nodes[n->in[1]];
        o.index = node_view(l, n->in[1]);
        o.index_rank = i->rank;
        memcpy(o.index_dim, i->dim, sizeof o.index_dim);
    }
    mb__step *s = l->failed ? NULL : mb__lower_step(l, MB_STEP_OTHER, n->site);
    if (s)
        s->u.other = mb__lower_keep(l, &o, sizeof o);
}

mb_status mb__lower(mb__graph *g, mb__fusion *f, const mb__backend *backend, unsigned passes, mb__bump *pool,
                    mb__plan *plan)
{
    mb__lowering l = {.g = g, .f = f, .backend = backend, .passes = passes, .pool = pool, .plan = plan};
    l.value = mb__bump_get(g->bump, (size_t)(g->count + 1) * sizeof *l.value);
    l.instr_of = mb__bump_get(g->bump, (size_t)(g->count + 1) * sizeof *l.instr_of);
    if (!l.value || !l.instr_of)
        return MB_NO_MEMORY;
    for (int i = 0; i < g->count; i++)
        l.value[i] = l.instr_of[i] = -1;
    for (int i = 0; i < f->schedule_count && !l.failed; i++) {
        if (f->schedule[i] >= 0)
            mb__lower_group(&l, f->schedule[i]);
        else
            lower_single(&l, -1 - f->schedule[i]);
    }
    plan->values = mb__lower_keep(&l, plan->values, (size_t)plan->value_count * sizeof *plan->values);
    plan->steps = mb__lower_keep(&l, plan->steps, (size_t)plan->step_count * sizeof *plan->steps);
    plan->input_count = g->input_count;
    plan->output_count = g->output_count;
    plan->scalar_count = g->scalar_count;
    return l.failed ? MB_NO_MEMORY : MB_OK;
}
