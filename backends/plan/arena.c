/* SPDX-License-Identifier: MIT
 *
 * arena.c - where intermediate values lie in the arena. A value is alive from the step that first writes it
 * to the last step that accesses it; a kernel's result reuses the memory of an operand whose last use is
 * that kernel, if both are accessed element by element in the same order. Best fit among the free gaps
 * (gaps.h); linear in steps and values, times the gaps.
 */
#include "backends/plan/backend.h"
#include "backends/plan/gaps.h"
#include "backends/plan/graph.h"

enum { ALIGN = 64 };

/* Of a value: its place is not yet chosen; is its own; is free again, or another's. */
enum { UNPLACED, PLACED, GONE };

typedef struct placer {
    mb__plan *plan;
    const mb__backend *backend;
    mb__bump *bump;
    uint8_t *state; /* of each value */
    mb__gap *gaps;
    uint32_t gap_count;
    int gap_capacity;
    int64_t top, apart; /* bytes left free behind each value */
    bool failed;
} placer;

static bool loop_value(const mb__loop *l, int i, int32_t *value)
{
    int ports = l->inputs + l->outputs;
    if (i < ports)
        *value = i < l->inputs ? l->in[i].value : l->out[i - l->inputs].value;
    else if (i < ports + 2 * l->carries)
        *value = l->swap[(i - ports) / 2][(i - ports) % 2];
    else
        *value = l->arena;
    return i <= ports + 2 * l->carries;
}

static bool custom_value(const mb__custom *c, int i, int32_t *value)
{
    const mb_custom_op_spec *s = &c->op->spec;
    if (i >= s->operands + s->results)
        return false;
    *value = i < s->operands ? c->in[i].view.value : c->out[i - s->operands].view.value;
    return true;
}

bool mb__step_value(const mb__step *s, int i, int32_t *value)
{
    switch (s->kind) {
    case MB_STEP_KERNEL: {
        const mb__kernel *k = &s->u.kernel;
        if (i >= k->instr_count + k->store_count)
            return false;
        *value = i < k->instr_count ? k->instrs[i].view.value : k->stores[i - k->instr_count].view.value;
        return true;
    }
    case MB_STEP_PRODUCT:
        *value = i == 0 ? s->u.product->a.value : i == 1 ? s->u.product->b.value : s->u.product->c.value;
        return i < 3;
    case MB_STEP_OTHER:
        *value = i == 0 ? s->u.other->in.value : i == 1 ? s->u.other->index.value : s->u.other->out.value;
        return i < 3;
    case MB_STEP_LOOP:
        return loop_value(s->u.loop, i, value);
    case MB_STEP_CUSTOM:
        return custom_value(s->u.custom, i, value);
    default:
        *value = s->u.zero;
        return i < 1;
    }
}

static int64_t bytes_of(const placer *p, const mb__value *v)
{
    int64_t b = v->count * (int64_t)p->backend->element_size((mb_dtype)v->dtype);
    return (b + ALIGN - 1) / ALIGN * ALIGN + p->apart;
}

static int64_t take(placer *p, int64_t size)
{
    uint64_t at;
    if (mb__gap_take(p->gaps, &p->gap_count, (uint64_t)size, &at))
        return (int64_t)at;
    const mb__gap *last = p->gap_count ? &p->gaps[p->gap_count - 1] : NULL;
    if (last && last->offset + last->bytes == (uint64_t)p->top) { /* the last one grows */
        p->gap_count--;
        p->top = (int64_t)last->offset;
    }
    p->top += size;
    return p->top - size;
}

static void give(placer *p, int64_t offset, int64_t size)
{
    if (!size)
        return;
    mb__gap *grown = mb__bump_grow(p->bump, p->gaps, (int)p->gap_count, &p->gap_capacity, sizeof *grown);
    if (!grown) {
        p->failed = true;
        return;
    }
    p->gaps = grown;
    mb__gap_give(p->gaps, &p->gap_count, (uint64_t)offset, (uint64_t)size);
}

int32_t mb__kernel_origin(const mb__kernel *k, int32_t instr)
{
    while (k->instrs[instr].op == MB_K_COPY ||
           (k->instrs[instr].op == MB_OP_CAST && k->instrs[instr].dtype == k->instrs[instr].from))
        instr = k->instrs[instr].in[0];
    return instr;
}

/* The operand whose place a store may take: read by exactly the same view, for the last time, and not itself
 * stored. */
static int32_t operand_to_replace(const placer *p, const mb__kernel *k, const mb__store *s, int step)
{
    const mb__value *v = &p->plan->values[s->view.value];
    if (s->mode != MB_STORE || s->per_row || v->storage != MB_IN_ARENA || v->first != step || v->onto >= 0)
        return -1;
    int64_t covered = mb__numel(k->dim, k->rank);
    if (covered != v->count)
        return -1;
    for (int i = 0; i < k->instr_count; i++) {
        const mb__instr *in = &k->instrs[i];
        if (in->op != MB_K_LOAD)
            continue;
        const mb__value *u = &p->plan->values[in->view.value];
        if (u->storage != MB_IN_ARENA || u->last != step || u->first == step ||
            p->state[in->view.value] == GONE || u->count != v->count ||
            p->backend->element_size((mb_dtype)u->dtype) != p->backend->element_size((mb_dtype)v->dtype) ||
            in->view.offset != s->view.offset ||
            memcmp(in->view.stride, s->view.stride, sizeof in->view.stride))
            continue;
        bool ok = true;
        for (int j = 0; ok && j < k->instr_count; j++)
            ok = j == i || k->instrs[j].op != MB_K_LOAD || k->instrs[j].view.value != in->view.value;
        for (int j = 0; ok && j < k->store_count; j++)
            ok = mb__kernel_origin(k, k->stores[j].instr) != i &&
                 (&k->stores[j] == s || p->plan->values[k->stores[j].view.value].onto != in->view.value);
        if (ok)
            return in->view.value;
    }
    return -1;
}

/* When each value is first and last accessed. */
static void lifetimes(mb__plan *plan)
{
    int32_t value;
    for (int s = 0; s < plan->step_count; s++)
        for (int i = 0; mb__step_value(&plan->steps[s], i, &value); i++)
            if (value >= 0) {
                mb__value *v = &plan->values[value];
                if (v->first < 0)
                    v->first = s;
                v->last = s;
            }
}

/* Results that take the place of an operand, which then lives on under their name. */
static void place_onto(placer *p, int step)
{
    const mb__kernel *k = &p->plan->steps[step].u.kernel;
    for (int i = 0; i < k->store_count; i++) {
        const mb__store *s = &k->stores[i];
        int32_t u = operand_to_replace(p, k, s, step);
        if (u < 0)
            continue;
        p->plan->values[s->view.value].onto = u;
        p->plan->values[s->view.value].offset = p->plan->values[u].offset;
        p->state[s->view.value] = PLACED;
        p->state[u] = GONE;
    }
}

static void place_new(placer *p, int step)
{
    int32_t value;
    for (int i = 0; mb__step_value(&p->plan->steps[step], i, &value); i++)
        if (value >= 0 && p->plan->values[value].storage == MB_IN_ARENA && p->state[value] == UNPLACED) {
            p->plan->values[value].offset = take(p, bytes_of(p, &p->plan->values[value]));
            p->state[value] = PLACED;
        }
}

static void give_back(placer *p, int step)
{
    int32_t value;
    for (int i = 0; mb__step_value(&p->plan->steps[step], i, &value); i++)
        if (value >= 0 && p->plan->values[value].storage == MB_IN_ARENA &&
            p->plan->values[value].last == step && p->state[value] == PLACED) {
            give(p, p->plan->values[value].offset, bytes_of(p, &p->plan->values[value]));
            p->state[value] = GONE;
        }
}

mb_status mb__place_values(mb__plan *plan, const mb__backend *backend, unsigned passes, mb__bump *scratch)
{
    placer p = {.plan = plan,
                .backend = backend,
                .bump = scratch,
                .state = mb__bump_get(scratch, (size_t)plan->value_count + 1),
                .apart = passes & MB_PASS_GUARD ? MB_GUARD_BYTES : 0};
    if (!p.state)
        return MB_NO_MEMORY;
    lifetimes(plan);
    for (int s = 0; s < plan->step_count && !p.failed; s++) {
        if (plan->steps[s].kind == MB_STEP_KERNEL && passes & MB_PASS_INPLACE)
            place_onto(&p, s);
        place_new(&p, s);
        if (passes & MB_PASS_REUSE)
            give_back(&p, s);
    }
    plan->arena_bytes = p.top;
    return p.failed ? MB_NO_MEMORY : MB_OK;
}
