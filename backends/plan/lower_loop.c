/* SPDX-License-Identifier: MIT
 * lower_loop.c - a scan becomes a loop: where each input and output of the body lies, step by step. */
#include "backends/plan/lower.h"

/* Bytes of the plan's element sizes, as elements of a value. */
static int64_t as_elements(const mb__lowering *l, int64_t bytes)
{
    int64_t size = (int64_t)l->backend->element_size(MB_FLOAT32);
    return (bytes + size - 1) / size;
}

/* Where input i lies, the scan's operand of that number. */
static mb__port input_port(mb__lowering *l, const mb__gnode *scan, const mb__gloop *g, int i)
{
    const mb__gnode *x = &l->g->nodes[scan->in[i]];
    mb__port p = {mb__lower_value_of(l, x->base), x->offset, 0};
    if (i >= g->carries && i < g->carries + g->slices)
        p.step = x->dim[0] ? mb__gcount(x) / x->dim[0] : 0;
    return p;
}

/* The same of output i, whose RESULT may be gone, if nothing read it; every entry then lies at one place. */
static mb__port output_port(mb__lowering *l, const mb__gloop *g, int32_t result, int i)
{
    const mb__gnode *out = &g->body.nodes[g->body.outputs[i]];
    if (result < 0)
        return (mb__port){mb__lower_value(l, (mb_dtype)out->dtype, mb__gcount(out), MB_IN_ARENA, -1), 0, 0};
    return (mb__port){mb__lower_value_of(l, result), 0, i < g->carries ? 0 : mb__gcount(out)};
}

/* Whether step s of a body reads carry `in` and writes its next value `out` at the same elements, each by one
 * lane alone: a kernel as arena.c wants it, or a product that adds. */
static bool adds_in_place(const mb__step *s, int32_t in, int32_t out, int64_t count)
{
    if (s->kind == MB_STEP_PRODUCT)
        return s->u.product->adds && s->u.product->c.value == out;
    if (s->kind != MB_STEP_KERNEL)
        return false;
    const mb__kernel *k = &s->u.kernel;
    const mb__view *read = NULL, *written = NULL;
    int reads = 0, writes = 0;
    for (int i = 0; i < k->instr_count; i++)
        if (k->instrs[i].op == MB_K_LOAD && k->instrs[i].view.value == in)
            read = &k->instrs[i].view, reads++;
    for (int i = 0; i < k->store_count; i++) {
        const mb__store *to = &k->stores[i];
        const mb__instr *from = &k->instrs[mb__kernel_origin(k, to->instr)];
        if (to->view.value == out && to->mode == MB_STORE && !to->per_row)
            written = &to->view, writes++;
        if (from->op == MB_K_LOAD && from->view.value == in)
            return false; /* a copy may be made when the next value is there already */
    }
    return reads == 1 && writes == 1 && mb__numel(k->dim, k->rank) == count &&
           read->offset == written->offset && !memcmp(read->stride, written->stride, sizeof read->stride);
}

/* Whether one step alone accesses the carry and its next value, which is then written in place of the carry.
 */
static bool stays_in_place(mb__plan *body, int carry)
{
    int32_t in = -1, out = -1, value;
    const mb__step *found = NULL;
    for (int i = 0; i < body->value_count; i++)
        if (body->values[i].index == carry && body->values[i].storage != MB_IN_ARENA)
            *(body->values[i].storage == MB_IN_INPUT ? &in : &out) = i;
    for (int s = 0; s < body->step_count && out >= 0; s++)
        for (int i = 0; mb__step_value(&body->steps[s], i, &value); i++) {
            if (value < 0 || (value != in && value != out))
                continue;
            if (found && found != &body->steps[s])
                return false;
            found = &body->steps[s];
        }
    if (!found || !adds_in_place(found, in, out, body->values[out].count))
        return false;
    body->values[out].onto = in;
    return true;
}

/* Carry i, which stays where the last value goes: the first one is put there. */
static void keep_in_place(mb__lowering *l, const mb__gnode *scan, mb__loop *loop, int i)
{
    const mb__gnode *x = &l->g->nodes[scan->in[i]];
    mb__view from = {loop->in[i].value, loop->in[i].offset, {0}}, to = {loop->out[i].value, 0, {0}};
    memcpy(from.stride, x->stride, sizeof from.stride);
    mb__row_major(x->dim, x->rank, to.stride);
    if (mb__gcount(x))
        mb__lower_copy(l, scan->site, (mb_dtype)x->dtype, x->rank, x->dim, &from, &to);
    loop->in[i] = loop->out[i];
    loop->swap[i][0] = loop->swap[i][1] = loop->out[i].value;
}

void mb__lower_scan(mb__lowering *l, int32_t id)
{
    const mb__gnode *scan = &l->g->nodes[id];
    const mb__gloop *g = &l->g->loops[scan->attr[0]];
    int inputs = scan->nin, outputs = g->carries + g->stacks;
    mb__loop *loop = mb__bump_get(l->pool, sizeof *loop);
    mb__port *in = mb__bump_get(l->pool, (size_t)(inputs + outputs + 1) * sizeof *in);
    int32_t(*swap)[2] = mb__bump_get(l->pool, (size_t)(g->carries + 1) * sizeof *swap);
    int32_t *results = mb__bump_get(l->g->bump, (size_t)(outputs + 1) * sizeof *results);
    if (!loop || !in || !swap || !results) {
        l->failed = true;
        return;
    }
    for (int i = 0; i < outputs; i++)
        results[i] = -1;
    for (int i = id + 1; i < l->g->count; i++)
        if (l->g->nodes[i].op == MB_OP_RESULT && l->g->nodes[i].in[0] == id)
            results[l->g->nodes[i].attr[0]] = i;
    *loop = (mb__loop){.body = g->plan,
                       .steps = g->steps,
                       .backwards = g->backwards,
                       .until = g->until,
                       .idle = g->idle,
                       .kept = mb__lower_keep(l, g->kept, (size_t)(g->stacks + 1) * sizeof *g->kept),
                       .carries = g->carries,
                       .inputs = inputs,
                       .outputs = outputs,
                       .in = in,
                       .out = in + inputs,
                       .swap = swap};
    for (int i = 0; i < inputs; i++)
        loop->in[i] = input_port(l, scan, g, i);
    for (int i = 0; i < outputs; i++)
        loop->out[i] = output_port(l, g, results[i], i);
    for (int i = 0; i < g->carries && !l->failed; i++) {
        const mb__gnode *out = &g->body.nodes[g->body.outputs[i]];
        if (l->passes & MB_PASS_INPLACE && stays_in_place(g->plan, i)) {
            keep_in_place(l, scan, loop, i);
            continue;
        }
        for (int k = 0; k < 2; k++)
            swap[i][k] = g->steps > 1 + k
                             ? mb__lower_value(l, (mb_dtype)out->dtype, mb__gcount(out), MB_IN_ARENA, -1)
                             : -1;
    }
    loop->arena = mb__lower_value(l, MB_FLOAT32, as_elements(l, g->plan->arena_bytes + 64), MB_IN_ARENA, -1);
    l->plan->flops += (uint64_t)g->steps * g->plan->flops;
    mb__step *s = l->failed ? NULL : mb__lower_step(l, MB_STEP_LOOP, scan->site);
    if (s)
        s->u.loop = loop;
}
