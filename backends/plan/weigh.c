/* SPDX-License-Identifier: MIT
 *
 * weigh.c - what of a placed plan's arena loops keep for one another, and how many steps run.
 *
 * A value that a loop wrote and a later loop reads is there for the second one's sake: the carries of a scan
 * that its derivative begins from, stacks. All others come and go between steps. The arena is divided at the
 * step at which most of it is in use; the arena of a loop's body, which is one of its values, at the body's.
 */
#include "backends/plan/backend.h"
#include "backends/plan/graph.h"

typedef struct weigher {
    const mb__plan *plan;
    const mb__backend *backend;
    int64_t *used, *kept; /* by step: bytes that come into use there, less those that no longer are */
    bool *from_loop;      /* by value: a loop wrote it; ... */
    bool *to_loop;        /* ... and a later one reads it */
    bool *replaced;       /* another value is written in its place by its last step */
} weigher;

static void mark_kept(weigher *w, int step)
{
    const mb__plan *plan = w->plan;
    if (plan->steps[step].kind != MB_STEP_LOOP)
        return;
    const mb__loop *l = plan->steps[step].u.loop;
    for (int i = 0; i < l->inputs; i++)
        if (l->in[i].value >= 0)
            w->to_loop[l->in[i].value] |= w->from_loop[l->in[i].value];
    for (int i = 0; i < l->outputs; i++)
        if (l->out[i].value >= 0)
            w->from_loop[l->out[i].value] = true;
}

static void add_value(weigher *w, int value)
{
    const mb__value *v = &w->plan->values[value];
    if (v->storage != MB_IN_ARENA || v->first < 0)
        return;
    int64_t bytes = v->count * (int64_t)w->backend->element_size((mb_dtype)v->dtype);
    int end = w->replaced[value] ? v->last : v->last + 1;
    w->used[v->first] += bytes;
    w->used[end] -= bytes;
    if (w->to_loop[value]) {
        w->kept[v->first] += bytes;
        w->kept[end] -= bytes;
    }
}

/* Steps that run at step s; what the body of a loop keeps is added where it runs. */
static mb_status weigh_step(weigher *w, int s, mb__bump *scratch, uint64_t *steps)
{
    *steps = 1;
    if (w->plan->steps[s].kind != MB_STEP_LOOP)
        return MB_OK;
    const mb__loop *l = w->plan->steps[s].u.loop;
    mb__weight body;
    mb_status status = mb__weigh(l->body, w->backend, scratch, &body);
    if (status != MB_OK)
        return status;
    *steps = (uint64_t)l->steps * body.steps;
    w->kept[s] += body.loop_bytes;
    w->kept[s + 1] -= body.loop_bytes;
    return MB_OK;
}

/* What is kept at the step that uses most. */
static int64_t kept_at_most(const weigher *w)
{
    int64_t used = 0, kept = 0, most = -1, kept_then = 0;
    for (int s = 0; s < w->plan->step_count; s++) {
        used += w->used[s];
        kept += w->kept[s];
        if (used < most || (used == most && kept <= kept_then))
            continue;
        most = used;
        kept_then = kept;
    }
    return kept_then;
}

mb_status mb__weigh(const mb__plan *plan, const mb__backend *backend, mb__bump *scratch, mb__weight *weight)
{
    size_t steps = (size_t)plan->step_count + 2, values = (size_t)plan->value_count + 1;
    weigher w = {plan,
                 backend,
                 mb__bump_get(scratch, steps * sizeof *w.used),
                 mb__bump_get(scratch, steps * sizeof *w.kept),
                 mb__bump_get(scratch, values),
                 mb__bump_get(scratch, values),
                 mb__bump_get(scratch, values)};
    *weight = (mb__weight){0};
    if (!w.used || !w.kept || !w.from_loop || !w.to_loop || !w.replaced)
        return MB_NO_MEMORY;
    for (int v = 0; v < plan->value_count; v++)
        if (plan->values[v].onto >= 0)
            w.replaced[plan->values[v].onto] = true;
    for (int s = 0; s < plan->step_count; s++)
        mark_kept(&w, s);
    for (int v = 0; v < plan->value_count; v++)
        add_value(&w, v);
    for (int s = 0; s < plan->step_count; s++) {
        uint64_t ran;
        mb_status status = weigh_step(&w, s, scratch, &ran);
        if (status != MB_OK)
            return status;
        weight->steps += ran;
    }
    weight->loop_bytes = kept_at_most(&w);
    return MB_OK;
}
