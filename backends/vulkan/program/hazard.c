/* SPDX-License-Identifier: MIT
 *
 * hazard.c - where barriers are needed: before a dispatch that reads what one since the last barrier wrote,
 * or writes what one since then read or wrote. A barrier waits for everything, so one serves all that came
 * before. A loop stands between two.
 */
#include "backends/vulkan/program/program.h"

/* What is accessed: bytes of the arena, or a value outside of it. */
typedef struct accessed {
    int32_t space;
    int64_t first, end;
} accessed;

static accessed where(const mb__vk_program *p, int32_t value)
{
    if (value < p->plan->value_count && p->plan->values[value].storage == MB_IN_ARENA) {
        const mb__value *v = &p->plan->values[value];
        int64_t bytes = v->count * (int64_t)mb__vk_element_size((mb_dtype)v->dtype);
        return (accessed){-1, v->offset, v->offset + bytes};
    }
    return (accessed){value, 0, 1};
}

bool mb__vk_conflict(const mb__vk_program *p, const mb__vk_access *a, const mb__vk_access *b)
{
    if (!a->written && !b->written)
        return false;
    accessed x = where(p, a->value), y = where(p, b->value);
    return x.space == y.space && x.first < y.end && y.first < x.end;
}

void mb__vk_hazards(const mb__vk_program *p, bool *before)
{
    int open = 0; /* the first access since the last barrier */
    for (int i = 0; i < p->dispatch_count; i++) {
        const mb__vk_dispatch *d = &p->dispatches[i];
        before[i] =
            i > 0 && (p->v->every_barrier || p->queries || d->body || d[-1].body || d->host || d[-1].host);
        for (int j = 0; j < d->access_count && !before[i]; j++)
            for (int k = open; k < d->access_first && !before[i]; k++)
                before[i] = mb__vk_conflict(p, &p->accesses[d->access_first + j], &p->accesses[k]);
        if (before[i])
            open = d->access_first;
    }
}
