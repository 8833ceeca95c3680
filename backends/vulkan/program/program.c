/* SPDX-License-Identifier: MIT
 *
 * program.c - the lifetime of a program. Compiling creates the pipelines, the dispatches and the program's
 * part of the table; the first run records the commands, and later runs only patch the table and submit.
 */
#include "backends/vulkan/program/program.h"

static mb__vk_program *new_in(mb__vk *v, const mb__plan *plan, mb__vk_program *around, const mb__loop *loop)
{
    mb__bump pool = {.host = v->host};
    mb__vk_program *p = mb__bump_get(&pool, sizeof *p);
    if (!p) {
        mb__bump_free(&pool);
        return NULL;
    }
    *p = (mb__vk_program){.v = v, .pool = pool, .plan = plan, .around = around, .loop = loop};
    for (int i = 0; i < plan->scalar_count * VK_SCALAR_WORDS && !around; i++)
        mb__vk_add_word(p, 0, -1, 0);
    mb__vk_program **last = &p->bodies;
    for (int s = 0; s < plan->step_count; s++) {
        if (plan->steps[s].kind != MB_STEP_LOOP)
            continue;
        const mb__loop *inner = plan->steps[s].u.loop;
        if (!(*last = new_in(v, inner->body, p, inner))) {
            mb__vk_discard(p);
            return NULL;
        }
        last = &(*last)->next_body;
    }
    return p;
}

mb__vk_program *mb__vk_program_new(mb__vk *v, const mb__plan *plan)
{
    return new_in(v, plan, NULL, NULL);
}

const mb__vk_program *mb__vk_outermost(const mb__vk_program *p)
{
    while (p->around)
        p = p->around;
    return p;
}

size_t mb__vk_program_bytes(const mb__vk_program *p)
{
    size_t bytes = p->pool.total + p->table_bytes + p->scratch_bytes + p->pipeline_bytes;
    for (const mb__vk_program *body = p->bodies; body; body = body->next_body)
        bytes += mb__vk_program_bytes(body);
    return bytes;
}

/* ---- where values lie ---- */

mb__vk_memory mb__vk_place_of(const mb__vk_program *p, const mb__binding *b, int value)
{
    if (value >= p->plan->value_count) {
        const mb__vk_scratch_value *s = &p->scratch[value - p->plan->value_count];
        return (mb__vk_memory){p->scratch_memory->block, p->scratch_memory->offset + s->offset, 0};
    }
    const mb__value *v = &p->plan->values[value];
    const mb__vk_memory *m = v->storage == MB_IN_INPUT    ? b->inputs[v->index]
                             : v->storage == MB_IN_OUTPUT ? b->outputs[v->index]
                                                          : b->arena;
    return (mb__vk_memory){m->block, m->offset + (v->storage == MB_IN_ARENA ? (uint64_t)v->offset : 0), 0};
}

/* Of a body, values whose place the device sets. */
static bool moves(const mb__vk_program *p, int32_t value)
{
    return p->around && value < p->plan->value_count && p->plan->values[value].storage != MB_IN_ARENA;
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
        if (p->slot_value[i] >= 0 && !moves(p, p->slot_value[i])) {
            p->shift[i] = p->slot_shift[i];
            p->slot_next[i] = p->slot_first[p->slot_value[i]];
            p->slot_first[p->slot_value[i]] = (int32_t)i;
        }
    return true;
}

/* ---- end of its making ---- */

/* Frees what is needed only while a program is compiled. */
static void free_words(mb__vk_program *p)
{
    mb__host_free(p->v->host, p->words, p->word_capacity * sizeof *p->words);
    mb__host_free(p->v->host, p->slot_value, p->slot_capacity * sizeof *p->slot_value);
    mb__host_free(p->v->host, p->slot_shift, p->shift_capacity * sizeof *p->slot_shift);
    p->words = p->slot_shift = NULL;
    p->slot_value = NULL;
    p->word_capacity = p->slot_capacity = p->shift_capacity = 0;
}

static void count_work(mb__vk_program *p)
{
    for (int i = 0; i < p->dispatch_count; i++) {
        const mb__vk_dispatch *d = &p->dispatches[i];
        p->all_cost += d->cost;
        p->own_cost += d->body ? 0 : d->cost;
        p->commands += d->body ? (double)d->body->loop->steps * (1 + d->body->commands) : 1;
    }
}

bool mb__vk_program_finish(mb__vk_program *p)
{
    if (p->failed || !chain_slots(p) || !(p->barrier = mb__bump_get(&p->pool, (size_t)p->dispatch_count + 1)))
        return false;
    count_work(p);
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
    for (mb__vk_program *body = p->bodies, *next; body; body = next) {
        next = body->next_body;
        mb__vk_discard(body);
    }
    if (p->batch_count && !v->hung)
        v->f.vkFreeCommandBuffers(v->device, v->command_pool, (uint32_t)p->batch_count, p->batches);
    if (p->queries && !v->hung)
        v->f.vkDestroyQueryPool(v->device, p->queries, NULL);
    if (p->table_bytes)
        mb__vk_table_free(v, p->table_at, p->table_bytes);
    if (p->scratch_memory)
        mb__vk_memory_free(v, p->scratch_memory);
    for (int i = 0; i < p->dispatch_count; i++)
        if (p->dispatches[i].pipeline)
            mb__vk_pipeline_release(v, p->dispatches[i].pipeline);
    mb__vk_pipelines_trim(v);
    free_words(p);
    mb__bump pool = p->pool;
    mb__bump_free(&pool);
}
