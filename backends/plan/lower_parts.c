/* SPDX-License-Identifier: MIT
 * lower_parts.c - a plan's values and steps, while it is made. */
#include "backends/plan/lower.h"

int32_t mb__lower_value(mb__lowering *l, mb_dtype dtype, int64_t count, int storage, int32_t index)
{
    mb__value *grown =
        mb__bump_grow(l->g->bump, l->plan->values, l->plan->value_count, &l->value_capacity, sizeof *grown);
    if (!grown) {
        l->failed = true;
        return 0;
    }
    l->plan->values = grown;
    grown[l->plan->value_count] = (mb__value){.dtype = (uint8_t)dtype,
                                              .storage = (uint8_t)storage,
                                              .index = index,
                                              .count = count,
                                              .first = -1,
                                              .last = -1,
                                              .onto = -1};
    return l->plan->value_count++;
}

mb__step *mb__lower_step(mb__lowering *l, int kind, const char *site)
{
    mb__step *grown =
        mb__bump_grow(l->g->bump, l->plan->steps, l->plan->step_count, &l->step_capacity, sizeof *grown);
    if (!grown) {
        l->failed = true;
        return NULL;
    }
    l->plan->steps = grown;
    mb__step *s = &grown[l->plan->step_count++];
    memset(s, 0, sizeof *s);
    s->kind = kind;
    s->site = site;
    return s;
}

/* A copy of its own in the plan's memory. */
void *mb__lower_keep(mb__lowering *l, const void *p, size_t bytes)
{
    void *copy = mb__bump_get(l->pool, bytes);
    if (!copy)
        l->failed = true;
    return copy && bytes ? memcpy(copy, p, bytes) : copy;
}

void mb__lower_kernel_step(mb__lowering *l, const char *site, mb__kernel *k)
{
    k->instrs = mb__lower_keep(l, k->instrs, (size_t)k->instr_count * sizeof *k->instrs);
    k->stores = mb__lower_keep(l, k->stores, (size_t)k->store_count * sizeof *k->stores);
    mb__step *s = l->failed ? NULL : mb__lower_step(l, MB_STEP_KERNEL, site);
    if (s)
        s->u.kernel = *k;
}

/* The value that holds a node's storage. */
int32_t mb__lower_value_of(mb__lowering *l, int32_t node)
{
    const mb__gnode *n = &l->g->nodes[node];
    if (l->value[node] < 0)
        l->value[node] = n->op == MB_OP_BUFFER
                             ? mb__lower_value(l, (mb_dtype)n->dtype, mb__gcount(n), MB_IN_INPUT, n->bind)
                         : n->output >= 0
                             ? mb__lower_value(l, (mb_dtype)n->dtype, mb__gcount(n), MB_IN_OUTPUT, n->output)
                             : mb__lower_value(l, (mb_dtype)n->dtype, mb__gcount(n), MB_IN_ARENA, -1);
    return l->value[node];
}
