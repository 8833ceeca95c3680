/* SPDX-License-Identifier: MIT
 *
 * guard.c - MB_GUARD=1, for tests: the bytes between each value and the next are filled with a pattern before
 * a run and checked after it. A kernel that wrote past its value is an error that names the step. Values then
 * share no memory, so that no value overwrites the pattern.
 */
#include "backends/vulkan/program/program.h"

enum { PATTERN = 0xa5 };

/* The guard bytes after value i; NULL: it is not in memory visible to the host. */
static unsigned char *band(const mb__vk_program *p, const mb__binding *b, int i, size_t *bytes)
{
    const mb__value *v = &p->plan->values[i];
    const mb__vk_memory *m = v->storage == MB_IN_OUTPUT && !p->around ? b->outputs[v->index]
                             : v->storage == MB_IN_ARENA              ? b->arena
                                                                      : NULL;
    if (!m || !p->v->blocks[m->block].mapped || v->first < 0)
        return NULL;
    uint64_t size = (uint64_t)v->count * mb__vk_element_size((mb_dtype)v->dtype);
    uint64_t end = v->storage == MB_IN_ARENA ? (size + 63) / 64 * 64 + MB_GUARD_BYTES : m->bytes;
    *bytes = (size_t)(end - size);
    return p->v->blocks[m->block].mapped + m->offset + (v->storage == MB_IN_ARENA ? (uint64_t)v->offset : 0) +
           size;
}

void mb__vk_guard_fill(const mb__vk_program *p, const mb__binding *b)
{
    size_t bytes;
    for (int i = 0; i < p->plan->value_count; i++) {
        unsigned char *at = band(p, b, i, &bytes);
        if (at)
            memset(at, PATTERN, bytes);
    }
    for (const mb__vk_program *body = p->bodies; body; body = body->next_body) {
        mb__vk_memory arena = mb__vk_place_of(p, b, body->loop->arena);
        mb__vk_guard_fill(body, &(mb__binding){.arena = &arena});
    }
}

bool mb__vk_guard_check(const mb__vk_program *p, const mb__binding *b)
{
    size_t bytes;
    for (int i = 0; i < p->plan->value_count; i++) {
        const unsigned char *at = band(p, b, i, &bytes);
        for (size_t j = 0; at && j < bytes; j++)
            if (at[j] != PATTERN) {
                const mb__value *v = &p->plan->values[i];
                return mb__vk_fail(p->v, MB_BACKEND, p->plan->steps[v->first].site,
                                   "vulkan: byte %zu behind a value of %lld %s was written to", j,
                                   (long long)v->count, mb_dtype_name((mb_dtype)v->dtype));
            }
    }
    for (const mb__vk_program *body = p->bodies; body; body = body->next_body) {
        mb__vk_memory arena = mb__vk_place_of(p, b, body->loop->arena);
        if (!mb__vk_guard_check(body, &(mb__binding){.arena = &arena}))
            return false;
    }
    return true;
}
