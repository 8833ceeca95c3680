/* SPDX-License-Identifier: MIT
 *
 * run.c - running a program: the first run records the commands, in submit batches; every run updates the
 * table for values whose addresses have changed, and submits.
 */
#include <stdio.h>

#include "backends/vulkan/program/program.h"

/* ---- recording ---- */

static bool begin_batch(mb__vk_program *p, int i)
{
    mb__vk *v = p->v;
    if (i == p->batch_count) {
        VkCommandBufferAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                            .commandPool = v->command_pool,
                                            .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
                                            .commandBufferCount = 1};
        if (!VK(v, v->f.vkAllocateCommandBuffers(v->device, &info, &p->batches[i])))
            return false;
        p->batch_count++;
    }
    VkCommandBuffer cb = p->batches[i];
    VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    if (!VK(v, v->f.vkBeginCommandBuffer(cb, &begin)))
        return false;
    mb__vk_barrier(v, cb); /* after whatever ran before */
    if (i == 0 && p->table_bytes && !v->table.mapped) {
        mb__vk_table_copy(v, cb, p->table_at, p->table_bytes);
        mb__vk_barrier(v, cb);
    }
    if (i == 0 && p->queries)
        v->f.vkCmdResetQueryPool(cb, p->queries, 0, 2 * (uint32_t)p->dispatch_count);
    v->f.vkCmdBindDescriptorSets(cb, VK_PIPELINE_BIND_POINT_COMPUTE, v->pipeline_layout, 0, 1, &v->set, 0,
                                 NULL);
    return true;
}

static bool end_batch(mb__vk_program *p, int i, bool last)
{
    mb__vk *v = p->v;
    if (last) { /* makes results visible to the host */
        VkMemoryBarrier seen = {.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
                                .srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT,
                                .dstAccessMask = VK_ACCESS_HOST_READ_BIT};
        v->f.vkCmdPipelineBarrier(p->batches[i], VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
                                  VK_PIPELINE_STAGE_HOST_BIT, 0, 1, &seen, 0, NULL, 0, NULL);
    }
    return VK(v, v->f.vkEndCommandBuffer(p->batches[i]));
}

static void record_dispatch(mb__vk_program *p, VkCommandBuffer cb, int i, VkPipeline *bound)
{
    mb__vk *v = p->v;
    const mb__vk_dispatch *d = &p->dispatches[i];
    if (d->pipeline != *bound)
        v->f.vkCmdBindPipeline(cb, VK_PIPELINE_BIND_POINT_COMPUTE, d->pipeline);
    *bound = d->pipeline;
    uint32_t scalars = (uint32_t)(p->table_at / 4), push[2] = {scalars + d->region, scalars};
    v->f.vkCmdPushConstants(cb, v->pipeline_layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, sizeof push, push);
    if (v->labels) {
        char text[160], label[64];
        const char *place = p->plan->steps[d->step].site;
        mb__step_label(p->plan, d->step, label, sizeof label);
        snprintf(text, sizeof text, "%s, %.80s", label, place ? place : "?");
        VkDebugUtilsLabelEXT info = {.sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_LABEL_EXT, .pLabelName = text};
        v->begin_label(cb, &info);
    }
    if (p->queries)
        v->f.vkCmdWriteTimestamp(cb, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, p->queries, 2 * (uint32_t)i);
    v->f.vkCmdDispatch(cb, d->x, d->y, 1);
    if (p->queries)
        v->f.vkCmdWriteTimestamp(cb, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, p->queries, 2 * (uint32_t)i + 1);
    if (v->labels)
        v->end_label(cb);
}

/* Commands are split into submit batches that a device finishes in a fraction of a second. Dispatches between
 * two barriers do not access each other's values, so they may run in any order; `backwards` reverses it, to
 * test that. */
static bool record(mb__vk_program *p)
{
    mb__vk *v = p->v;
    double most = v->batch_cost, total = 0, cost = 0;
    for (int i = 0; i < p->dispatch_count; i++)
        total += p->dispatches[i].cost;
    /* Two adjacent batches together cost more than one batch may. */
    most = most < 2 * total / (VK_BATCHES_MOST - 2) ? 2 * total / (VK_BATCHES_MOST - 2) : most;
    bool *before = mb__host_alloc(v->host, (size_t)p->dispatch_count + 1);
    if (!before)
        return false;
    mb__vk_hazards(p, before);
    p->barriers = 0;
    int current = 0;
    bool ok = begin_batch(p, 0);
    VkPipeline bound = VK_NULL_HANDLE;
    for (int i = 0; ok && i < p->dispatch_count;) {
        int end = i + 1; /* no barrier stands in [i, end) */
        double more = p->dispatches[i].cost;
        while (end < p->dispatch_count && !before[end])
            more += p->dispatches[end++].cost;
        if (cost > 0 && cost + more > most && current + 1 < VK_BATCHES_MOST) {
            ok = end_batch(p, current, false) && begin_batch(p, ++current);
            bound = VK_NULL_HANDLE;
            cost = 0;
        } else if (i > 0) {
            mb__vk_barrier(v, p->batches[current]);
            p->barriers++;
        }
        for (int j = i; ok && j < end; j++) {
            int which = v->backwards ? end - 1 - (j - i) : j;
            record_dispatch(p, p->batches[current], which, &bound);
        }
        cost += more;
        i = end;
    }
    ok = ok && end_batch(p, current, true);
    if (!ok && current < p->batch_count) /* a half-recorded one must be reset */
        v->f.vkResetCommandBuffer(p->batches[current], 0);
    mb__host_free(v->host, before, (size_t)p->dispatch_count + 1);
    p->batches_used = ok ? current + 1 : 0;
    if (ok) /* else the next run records again */
        p->generation = v->generation;
    v->host->counters->recordings++;
    return ok;
}

/* ---- time stamps ---- */

static bool make_queries(mb__vk_program *p)
{
    mb__vk *v = p->v;
    if (p->queries || v->period == 0 || !v->host->timed || p->untimed)
        return true;
    VkQueryPoolCreateInfo info = {.sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO,
                                  .queryType = VK_QUERY_TYPE_TIMESTAMP,
                                  .queryCount = 2 * (uint32_t)p->dispatch_count};
    if (VK(v, v->f.vkCreateQueryPool(v->device, &info, NULL, &p->queries)))
        return true;
    p->queries = VK_NULL_HANDLE;
    return false;
}

static bool read_queries(mb__vk_program *p)
{
    mb__vk *v = p->v;
    for (int i = 0; i < p->dispatch_count; i++) {
        uint64_t ticks[2];
        if (!VK(v, v->f.vkGetQueryPoolResults(v->device, p->queries, 2 * (uint32_t)i, 2, sizeof ticks, ticks,
                                              8, VK_QUERY_RESULT_64_BIT | VK_QUERY_RESULT_WAIT_BIT)))
            return false;
        v->host->timed(v->host->user, p->plan, p->dispatches[i].step,
                       1e-9 * v->period * (double)((ticks[1] - ticks[0]) & v->ticks));
    }
    return true;
}

/* ---- running ---- */

static mb__vk_memory place_of(const mb__vk_program *p, const mb__binding *b, int value)
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

/* A number as each type that a kernel may read it in; a key's bits as they are. */
static void put_scalar(const mb__scalar *s, uint32_t *w)
{
    if (s->is_key) {
        memcpy(w + 2, &s->u.key, 8);
        return;
    }
    double x = s->u.number;
    float f = (float)x;
    int32_t n = x >= 2147483647.0 ? INT32_MAX : x > -2147483648.0 ? (int32_t)x : INT32_MIN;
    memcpy(w, &f, 4);
    memcpy(w + 1, &n, 4);
    memcpy(w + 2, &x, 8);
}

static void bind_values(mb__vk_program *p, const mb__binding *b)
{
    uint32_t *table = mb__vk_table_at(p->v, p->table_at);
    int count = p->plan->value_count + p->scratch_count;
    for (int i = 0; i < count; i++) {
        if (p->slot_first[i] < 0)
            continue;
        mb__vk_memory now = place_of(p, b, i);
        if (now.block == p->bound[i].block && now.offset == p->bound[i].offset)
            continue;
        p->bound[i] = now;
        for (int32_t w = p->slot_first[i]; w >= 0; w = p->slot_next[w]) {
            table[w] = now.block;
            table[w + 1] = (uint32_t)(now.offset / 4) + p->shift[w];
        }
    }
    for (int i = 0; i < p->plan->scalar_count; i++)
        put_scalar(&b->scalars[i], table + i * VK_SCALAR_WORDS);
}

static bool submit_all(mb__vk_program *p)
{
    for (int i = 0; i < p->batches_used; i++)
        if (!mb__vk_submit(p->v, p->batches[i], i + 1 == p->batches_used))
            return false;
    return true;
}

bool mb__vk_run(mb__vk_program *p, const mb__binding *binding)
{
    mb__vk *v = p->v;
    if (!mb__vk_idle(v))
        return false;
    if (p->dispatch_count == 0)
        return true;
    bind_values(p, binding);
    if (v->guard)
        mb__vk_guard_fill(p, binding);
    if (p->generation != v->generation && (!make_queries(p) || !record(p)))
        return false;
    if (!submit_all(p))
        return false;
    v->host->counters->last_dispatches = (uint64_t)p->dispatch_count;
    v->host->counters->last_barriers = (uint64_t)p->barriers;
    if (p->queries && !(mb__vk_idle(v) && read_queries(p)))
        return false;
    return !v->guard || (mb__vk_idle(v) && mb__vk_guard_check(p, binding));
}
