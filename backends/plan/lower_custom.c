/* SPDX-License-Identifier: MIT
 * lower_custom.c - an op of the user's becomes a step: where each operand and result lies, position by
 * position. */
#include "backends/plan/lower.h"

static mb__core_view operand_view(mb__lowering *l, int32_t id, int core)
{
    const mb__gnode *n = &l->g->nodes[id];
    mb__core_view v = {
        .view = {mb__lower_value_of(l, n->base), n->offset, {0}}, .dtype = n->dtype, .rank = (uint8_t)core};
    memcpy(v.view.stride, n->stride, sizeof v.view.stride);
    memcpy(v.dim, n->dim + n->rank - core, (size_t)core * sizeof *v.dim);
    return v;
}

void mb__lower_custom(mb__lowering *l, int32_t id)
{
    const mb__gnode *n = &l->g->nodes[id];
    mb__call call = mb__call_unpack(n->attr, (mb_dtype)n->dtype);
    const mb_custom_op_spec *spec = &call.op->spec;
    mb__custom c = {.op = call.op, .loops = call.loops, .nattr = call.nattr};
    memcpy(c.loop, n->dim, (size_t)c.loops * sizeof *c.loop);
    memcpy(c.attrs, call.attrs, sizeof c.attrs);
    for (int i = 0; i < n->nin; i++)
        c.in[i] = operand_view(l, n->in[i], spec->core_in[i]);
    int64_t at = n->offset;
    for (int r = 0; r < spec->results; r++) {
        mb__core_view *v = &c.out[r];
        *v = (mb__core_view){.view = {mb__lower_value_of(l, n->base), at, {0}},
                             .dtype = n->dtype,
                             .rank = (uint8_t)call.out[r].rank};
        memcpy(v->dim, call.out[r].dim, sizeof v->dim);
        memcpy(v->view.stride, n->stride, (size_t)c.loops * sizeof *v->view.stride);
        mb__row_major(v->dim, v->rank, v->view.stride + c.loops);
        at += mb__numel(v->dim, v->rank);
    }
    mb__step *s = l->failed ? NULL : mb__lower_step(l, MB_STEP_CUSTOM, n->site);
    if (s)
        s->u.custom = mb__lower_keep(l, &c, sizeof c);
}
