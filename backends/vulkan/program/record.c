/* SPDX-License-Identifier: MIT
 *
 * record.c - a program's dispatches as commands. They are cut into batches that a device finishes in a
 * fraction of a second. A loop of few dispatches is recorded step by step, like what is around it; of any
 * other a block of steps is recorded once, to be submitted again and again. So what is recorded depends on
 * the sizes of bodies, not on how many steps there are.
 */
#include <stdio.h>

#include "backends/plan/label.h"
#include "backends/vulkan/program/program.h"

/* Dispatches of a block of steps, unless one step has more. */
enum { BLOCK = 256 };

typedef struct recorder {
    mb__vk_program *p; /* the outermost */
    mb__vk *v;
    int used; /* of its command buffers */
    VkCommandBuffer commands;
    bool open, fresh;         /* commands are being recorded; since a barrier there were none */
    VkPipeline bound;         /* by the commands */
    double cost;              /* of the commands */
    int dispatches, barriers; /* in them */
    int64_t times;            /* that what is recorded now is run, by repetitions around it */
    bool timed, failed;
} recorder;

/* ---- batches ---- */

static void add_act(recorder *r, mb__vk_act act)
{
    mb__vk_program *p = r->p;
    mb__vk_act *grown = mb__bump_grow(&p->pool, p->acts, p->act_count, &p->act_capacity, sizeof *grown);
    if (!grown) {
        r->failed = true;
        return;
    }
    p->acts = grown;
    grown[p->act_count++] = act;
}

/* One that was allocated for an earlier recording, or a new one. */
static bool next_commands(recorder *r)
{
    mb__vk_program *p = r->p;
    if (r->used == p->batch_count) {
        VkCommandBuffer *grown =
            mb__bump_grow(&p->pool, p->batches, p->batch_count, &p->batch_capacity, sizeof *grown);
        if (!grown)
            return false;
        p->batches = grown;
        VkCommandBufferAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                            .commandPool = r->v->command_pool,
                                            .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
                                            .commandBufferCount = 1};
        if (!VK(r->v, r->v->f.vkAllocateCommandBuffers(r->v->device, &info, &grown[r->used])))
            return false;
        p->batch_count++;
    }
    r->commands = p->batches[r->used++];
    return true;
}

static void copy_tables(recorder *r, const mb__vk_program *p)
{
    if (p->table_bytes)
        mb__vk_table_copy(r->v, r->commands, p->table_at, p->table_bytes);
    for (const mb__vk_program *body = p->bodies; body; body = body->next_body)
        copy_tables(r, body);
}

static void reset_queries(recorder *r, const mb__vk_program *p)
{
    if (r->timed)
        r->v->f.vkCmdResetQueryPool(r->commands, p->queries, 0, 2 * (uint32_t)p->dispatch_count);
}

static void begin_batch(recorder *r)
{
    mb__vk *v = r->v;
    bool first = r->used == 0;
    VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                      .flags =
                                          r->times > 1 ? VK_COMMAND_BUFFER_USAGE_SIMULTANEOUS_USE_BIT : 0};
    if (r->failed || !next_commands(r) || !VK(v, v->f.vkBeginCommandBuffer(r->commands, &begin))) {
        r->failed = true;
        return;
    }
    r->open = r->fresh = true;
    r->bound = VK_NULL_HANDLE;
    r->cost = 0;
    r->dispatches = r->barriers = 0;
    mb__vk_barrier(v, r->commands); /* after whatever ran before */
    if (first && !v->table.mapped) {
        copy_tables(r, r->p);
        mb__vk_barrier(v, r->commands);
    }
    v->f.vkCmdBindDescriptorSets(r->commands, VK_PIPELINE_BIND_POINT_COMPUTE, v->pipeline_layout, 0, 1,
                                 &v->set, 0, NULL);
}

static void end_batch(recorder *r, bool last)
{
    mb__vk *v = r->v;
    if (!r->open)
        return;
    if (last) { /* the host may look */
        VkMemoryBarrier seen = {.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
                                .srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT,
                                .dstAccessMask = VK_ACCESS_HOST_READ_BIT};
        v->f.vkCmdPipelineBarrier(r->commands, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
                                  VK_PIPELINE_STAGE_HOST_BIT, 0, 1, &seen, 0, NULL, 0, NULL);
    }
    if (r->failed || !VK(v, v->f.vkEndCommandBuffer(r->commands))) {
        r->failed = true;
        v->f.vkResetCommandBuffer(r->commands, 0); /* one that is half recorded cannot be begun anew */
    } else {
        add_act(r, (mb__vk_act){.commands = r->commands,
                                .dispatches = r->dispatches,
                                .barriers = r->barriers,
                                .cost = r->cost});
    }
    r->open = false;
}

static void barrier(recorder *r)
{
    if (r->fresh || r->failed)
        return;
    mb__vk_barrier(r->v, r->commands);
    r->barriers++;
    r->fresh = true;
}

/* ---- dispatches ---- */

static void label(recorder *r, const mb__vk_program *p, int step)
{
    char text[160], what[64];
    const char *place = p->plan->steps[step].site;
    mb__step_label(p->plan, step, what, sizeof what);
    snprintf(text, sizeof text, "%s, %.80s", what, place ? place : "?");
    VkDebugUtilsLabelEXT info = {.sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_LABEL_EXT, .pLabelName = text};
    r->v->begin_label(r->commands, &info);
}

/* Of a loop: the dispatch that its steps begin with. */
static void record_dispatch(recorder *r, const mb__vk_program *p, int i)
{
    mb__vk *v = r->v;
    const mb__vk_dispatch *d = &p->dispatches[i];
    bool timed = r->timed && !d->body;
    if (d->pipeline->pipeline != r->bound)
        v->f.vkCmdBindPipeline(r->commands, VK_PIPELINE_BIND_POINT_COMPUTE, d->pipeline->pipeline);
    r->bound = d->pipeline->pipeline;
    uint64_t own = p->table_at / 4,
             other = d->body ? d->body->table_at / 4 + d->body->list : mb__vk_outermost(p)->table_at / 4;
    uint32_t push[2] = {(uint32_t)(own + d->region), (uint32_t)other};
    v->f.vkCmdPushConstants(r->commands, v->pipeline_layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, sizeof push,
                            push);
    if (v->labels)
        label(r, p, d->step);
    if (timed)
        v->f.vkCmdWriteTimestamp(r->commands, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, p->queries,
                                 2 * (uint32_t)i);
    v->f.vkCmdDispatch(r->commands, d->x, d->y, 1);
    if (timed)
        v->f.vkCmdWriteTimestamp(r->commands, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, p->queries,
                                 2 * (uint32_t)i + 1);
    if (v->labels)
        v->end_label(r->commands);
    r->fresh = false;
    r->dispatches++;
}

/* Dispatches between two barriers do not access each other's values, so they may run in any order;
 * `backwards` records them so, for tests of just that. */
static void record_between(recorder *r, const mb__vk_program *p, int first, int end)
{
    for (int j = first; j < end && !r->failed; j++)
        record_dispatch(r, p, r->v->backwards ? end - 1 - (j - first) : j);
}

static void record_loop(recorder *r, const mb__vk_program *p, int i);

static void record_program(recorder *r, const mb__vk_program *p)
{
    /* Two adjacent batches together cost more than one batch may. */
    double least = 2 * p->own_cost / (VK_BATCHES_MOST - 2),
           most = r->v->batch_cost < least ? least : r->v->batch_cost;
    for (int i = 0; i < p->dispatch_count && !r->failed;) {
        if (p->dispatches[i].body) {
            record_loop(r, p, i++);
            continue;
        }
        if (p->dispatches[i].host) {
            end_batch(r, true);
            add_act(r, (mb__vk_act){.host = ++i});
            begin_batch(r);
            continue;
        }
        int end = i + 1; /* of what runs between two barriers */
        double more = p->dispatches[i].cost;
        while (end < p->dispatch_count && !p->barrier[end])
            more += p->dispatches[end++].cost;
        if (r->cost > 0 && r->cost + more > most) {
            end_batch(r, false);
            begin_batch(r);
        } else {
            barrier(r);
        }
        record_between(r, p, i, end);
        r->cost += more;
        i = end;
    }
}

/* ---- loops ---- */

static void record_steps(recorder *r, const mb__vk_program *p, int i, int64_t steps)
{
    const mb__vk_program *body = p->dispatches[i].body;
    for (int64_t t = 0; t < steps && !r->failed; t++) {
        barrier(r);
        reset_queries(r, body);
        record_dispatch(r, p, i);
        record_program(r, body);
    }
}

/* Steps that are recorded one after the other: all, if they are few. */
static int64_t block_of(const recorder *r, const mb__vk_program *body)
{
    double by_count = BLOCK / (1 + body->commands), steps = (double)body->loop->steps;
    double by_cost = body->all_cost > 0 ? r->v->batch_cost / body->all_cost : steps;
    double block = by_count < by_cost ? by_count : by_cost;
    return r->timed || block < 1 ? 1 : block < steps ? (int64_t)block : body->loop->steps;
}

/* The copy of a body's part of the table, where the host does not write it itself. */
static VkCommandBuffer record_patch(recorder *r, const mb__vk_program *body)
{
    mb__vk *v = r->v;
    VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    if (r->failed || v->table.mapped)
        return VK_NULL_HANDLE;
    if (!next_commands(r) || !VK(v, v->f.vkBeginCommandBuffer(r->commands, &begin))) {
        r->failed = true;
        return VK_NULL_HANDLE;
    }
    mb__vk_barrier(v, r->commands);
    mb__vk_table_copy(v, r->commands, body->table_at, body->table_bytes);
    if (!VK(v, v->f.vkEndCommandBuffer(r->commands))) {
        r->failed = true;
        v->f.vkResetCommandBuffer(r->commands, 0);
    }
    return r->commands;
}

/* Whether steps of a loop can be left out: those of the outermost program, of which the host knows where all
 * that they read and write lies. */
static bool can_leave(const mb__vk_program *p, const mb__loop *l)
{
    return !p->around && (l->until >= 0 || l->idle >= 0);
}

static void record_loop(recorder *r, const mb__vk_program *p, int i)
{
    const mb__vk_program *body = p->dispatches[i].body;
    int64_t steps = body->loop->steps, block = block_of(r, body), times = r->times;
    if (block == steps && !r->timed) {
        record_steps(r, p, i, steps);
        return;
    }
    bool leave = can_leave(p, body->loop); /* then the host looks on the way */
    end_batch(r, leave);
    VkCommandBuffer patch = leave ? record_patch(r, body) : VK_NULL_HANDLE;
    int repetition = r->p->act_count;
    add_act(
        r, (mb__vk_act){.times = steps / block, .block = block, .left = leave ? body : NULL, .patch = patch});
    r->times *= steps / block;
    begin_batch(r);
    record_steps(r, p, i, block);
    end_batch(r, leave);
    if (!r->failed && r->timed)
        r->p->acts[r->p->act_count - 1].timed = body;
    if (!r->failed)
        r->p->acts[repetition].end = r->p->act_count;
    r->times = times;
    begin_batch(r);
    record_steps(r, p, i, steps % block);
}

/* ---- all of it ---- */

static void find_barriers(const mb__vk_program *p)
{
    mb__vk_hazards(p, p->barrier);
    for (const mb__vk_program *body = p->bodies; body; body = body->next_body)
        if (body->barrier)
            find_barriers(body);
}

bool mb__vk_record(mb__vk_program *p)
{
    recorder r = {.p = p, .v = p->v, .times = 1, .timed = p->queries != VK_NULL_HANDLE};
    p->act_count = 0;
    find_barriers(p);
    begin_batch(&r);
    if (!r.failed)
        reset_queries(&r, p);
    record_program(&r, p);
    end_batch(&r, true);
    if (!r.failed && r.timed)
        p->acts[p->act_count - 1].timed = p;
    if (!r.failed) /* else it is recorded anew when it is next run */
        p->generation = p->v->generation;
    p->v->host->counters->recordings++;
    return !r.failed;
}
