/* SPDX-License-Identifier: MIT
 *
 * program.c - what a program keeps from its making to its end. Compiling makes the pipelines, the dispatches
 * and the program's part of the table; the first run records the commands, and later runs only patch the
 * table and submit.
 */
#include "backends/vulkan/program/program.h"

bool mb__vk_chain_slots(mb__vk_program *p)
{
    int count = p->plan->value_count + p->scratch_count;
    p->slot_first = mb__bump_get(&p->pool, ((size_t)count + 1) * sizeof *p->slot_first);
    p->slot_next = mb__bump_get(&p->pool, ((size_t)p->word_count + 1) * sizeof *p->slot_next);
    p->shift = mb__bump_get(&p->pool, ((size_t)p->word_count + 1) * sizeof *p->shift);
    p->bound = mb__bump_get(&p->pool, ((size_t)count + 1) * sizeof *p->bound);
    if (!p->slot_first || !p->slot_next || !p->shift || !p->bound)
        return false;
    for (int i = 0; i < count; i++) {
        p->slot_first[i] = -1;
        p->bound[i] = (mb__vk_place){UINT32_MAX, 0, 0};
    }
    for (uint32_t i = 0; i < p->word_count; i++)
        if (p->slot_value[i] >= 0) {
            p->shift[i] = p->slot_shift[i];
            p->slot_next[i] = p->slot_first[p->slot_value[i]];
            p->slot_first[p->slot_value[i]] = (int32_t)i;
        }
    return true;
}

void mb__vk_free_words(mb__vk_program *p)
{
    mb__free(p->v->ctx, p->words, p->word_room * sizeof *p->words);
    mb__free(p->v->ctx, p->slot_value, p->slot_room * sizeof *p->slot_value);
    mb__free(p->v->ctx, p->slot_shift, p->shift_room * sizeof *p->slot_shift);
    p->words = p->slot_shift = NULL;
    p->slot_value = NULL;
    p->word_room = p->slot_room = p->shift_room = 0;
}

void mb__vk_discard(mb_context *ctx, void *state, void *program)
{
    mb__vk *v = state;
    mb__vk_program *p = program;
    mb__vk_settle(v);
    for (int i = 0; i < p->slice_count && !v->hung; i++)
        v->f.vkFreeCommandBuffers(v->device, v->command_pool, 1, &p->slices[i]);
    if (p->queries && !v->hung)
        v->f.vkDestroyQueryPool(v->device, p->queries, NULL);
    if (p->table_bytes)
        mb__vk_table_free(v, p->table_at, p->table_bytes);
    if (p->scratch_memory)
        mb__vk_memory_free(ctx, v, p->scratch_memory, p->scratch_bytes);
    mb__vk_free_words(p);
    mb__bump pool = p->pool;
    mb__bump_free(&pool);
}
