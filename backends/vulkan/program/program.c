/* SPDX-License-Identifier: MIT
 *
 * program.c - the lifetime of a program. Compiling creates the pipelines, the dispatches and the program's
 * part of the table; the first run records the commands, and later runs only patch the table and submit.
 */
#include "backends/vulkan/program/program.h"

mb__vk_program *mb__vk_program_new(mb__vk *v, const mb__plan *plan)
{
    mb__bump pool = {.host = v->host};
    mb__vk_program *p = mb__bump_get(&pool, sizeof *p);
    if (!p) {
        mb__bump_free(&pool);
        return NULL;
    }
    *p = (mb__vk_program){.v = v, .pool = pool, .plan = plan};
    for (int i = 0; i < plan->scalar_count * VK_SCALAR_WORDS; i++)
        mb__vk_add_word(p, 0, -1, 0);
    return p;
}

/* Links all table words that hold the address of one value. */
static bool chain_slots(mb__vk_program *p)
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
        p->bound[i] = (mb__vk_memory){UINT32_MAX, 0, 0};
    }
    for (uint32_t i = 0; i < p->word_count; i++)
        if (p->slot_value[i] >= 0) {
            p->shift[i] = p->slot_shift[i];
            p->slot_next[i] = p->slot_first[p->slot_value[i]];
            p->slot_first[p->slot_value[i]] = (int32_t)i;
        }
    return true;
}

/* Frees what is needed only while a program is compiled. */
static void free_words(mb__vk_program *p)
{
    mb__host_free(p->v->host, p->words, p->word_room * sizeof *p->words);
    mb__host_free(p->v->host, p->slot_value, p->slot_room * sizeof *p->slot_value);
    mb__host_free(p->v->host, p->slot_shift, p->shift_room * sizeof *p->slot_shift);
    p->words = p->slot_shift = NULL;
    p->slot_value = NULL;
    p->word_room = p->slot_room = p->shift_room = 0;
}

bool mb__vk_program_finish(mb__vk_program *p)
{
    if (p->failed || !chain_slots(p))
        return false;
    if (p->scratch_bytes && !(p->scratch_memory = mb__vk_memory_new(p->v, p->scratch_bytes)))
        return false;
    uint64_t bytes = (p->word_count + 1) * sizeof *p->words;
    if (!mb__vk_idle(p->v) || !mb__vk_table_new(p->v, bytes, &p->table_at))
        return false;
    p->table_bytes = bytes;
    if (p->word_count)
        memcpy(mb__vk_table_at(p->v, p->table_at), p->words, p->word_count * sizeof *p->words);
    free_words(p);
    return true;
}

void mb__vk_discard(mb__vk_program *p)
{
    if (!p)
        return;
    mb__vk *v = p->v;
    mb__vk_settle(v);
    for (int i = 0; i < p->batch_count && !v->hung; i++)
        v->f.vkFreeCommandBuffers(v->device, v->command_pool, 1, &p->batches[i]);
    if (p->queries && !v->hung)
        v->f.vkDestroyQueryPool(v->device, p->queries, NULL);
    if (p->table_bytes)
        mb__vk_table_free(v, p->table_at, p->table_bytes);
    if (p->scratch_memory)
        mb__vk_memory_free(v, p->scratch_memory);
    free_words(p);
    mb__bump pool = p->pool;
    mb__bump_free(&pool);
}
