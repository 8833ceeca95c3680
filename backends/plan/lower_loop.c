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
    for (int i = 0; i < g->carries; i++)
        for (int k = 0; k < 2; k++) {
            const mb__gnode *out = &g->body.nodes[g->body.outputs[i]];
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
