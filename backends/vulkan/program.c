/* SPDX-License-Identifier: MIT
 *
 * program.c - a plan as recorded commands. Compiling makes the pipelines, the dispatches and the program's
 * part of the table; the first run records the commands, and later runs only patch the table and submit.
 */
#include <stdio.h>
#include <stdlib.h>

#include "backends/vulkan/vulkan.h"

enum { SCALAR_WORDS = 4 };

/* ---- putting it together ---- */

static void add_word(mb__vk_program *p, uint32_t word, int32_t value, uint32_t shift)
{
    mb_context *ctx = p->v->ctx;
    if (!mb__reserve(ctx, (void **)&p->words, &p->word_room, (uint64_t)p->word_count + 1, sizeof *p->words) ||
        !mb__reserve(ctx, (void **)&p->slot_value, &p->slot_room, (uint64_t)p->word_count + 1,
                     sizeof *p->slot_value) ||
        !mb__reserve(ctx, (void **)&p->slot_shift, &p->shift_room, (uint64_t)p->word_count + 1,
                     sizeof *p->slot_shift)) {
        p->failed = true;
        return;
    }
    p->words[p->word_count] = word;
    p->slot_shift[p->word_count] = shift;
    p->slot_value[p->word_count++] = value;
}

/* Elements of a value are 4 bytes, or 8 where they are float64; of scratch the writer says so by its views.
 */
static int words_each(const mb__vk_program *p, int32_t value)
{
    return value < p->plan->value_count && p->plan->values[value].dtype == MB_FLOAT64 ? 2 : 1;
}

uint32_t mb__vk_region(mb__vk_program *p, const mb__vk_slot *slots, int count)
{
    uint32_t at = p->word_count;
    p->touching = p->touch_count;
    for (int i = 0; i < count; i++) {
        add_word(p, 0, slots[i].value, (uint32_t)(slots[i].offset * words_each(p, slots[i].value)));
        add_word(p, 0, -1, 0);
    }
    return at;
}

void mb__vk_param(mb__vk_program *p, int64_t x)
{
    if (x > UINT32_MAX || x < INT32_MIN) {
        mb__error(p->v->ctx, MB_BACKEND, NULL, "vulkan: a size or stride of %lld is too large", (long long)x);
        p->failed = true;
    }
    add_word(p, (uint32_t)x, -1, 0);
}

void mb__vk_touches(mb__vk_program *p, int32_t value, bool written)
{
    mb__vk_touch *grown = mb__bump_grow(&p->pool, p->touches, p->touch_count, &p->touch_room, sizeof *grown);
    if (!grown) {
        p->failed = true;
        return;
    }
    p->touches = grown;
    grown[p->touch_count++] = (mb__vk_touch){value, written};
}

void mb__vk_dispatch_add(mb__vk_program *p, VkPipeline pipeline, uint32_t region, int64_t groups, int step,
                         double cost)
{
    mb__vk_dispatch *grown =
        mb__bump_grow(&p->pool, p->dispatches, p->dispatch_count, &p->dispatch_room, sizeof *grown);
    int64_t most = p->v->caps.groups, x = groups < most ? groups : most, y = x ? (groups + x - 1) / x : 0;
    if (!grown || y > most) {
        if (grown)
            mb__error(p->v->ctx, MB_BACKEND, p->plan->steps[step].where,
                      "vulkan: %lld groups are more than a dispatch takes", (long long)groups);
        p->failed = true;
        return;
    }
    p->dispatches = grown;
    grown[p->dispatch_count++] = (mb__vk_dispatch){.pipeline = pipeline,
                                                   .region = region,
                                                   .x = (uint32_t)x,
                                                   .y = (uint32_t)y,
                                                   .touch_first = p->touching,
                                                   .touch_count = p->touch_count - p->touching,
                                                   .step = step,
                                                   .cost = cost};
}

int32_t mb__vk_scratch(mb__vk_program *p, uint64_t bytes)
{
    bytes = bytes ? bytes : 1; /* values of no bytes have a place too */
    mb__vk_scratch_value *grown =
        mb__bump_grow(&p->pool, p->scratch, p->scratch_count, &p->scratch_room, sizeof *grown);
    if (!grown) {
        p->failed = true;
        return 0;
    }
    p->scratch = grown;
    grown[p->scratch_count] = (mb__vk_scratch_value){p->scratch_bytes, bytes};
    p->scratch_bytes += (bytes + VK_ALIGN - 1) / VK_ALIGN * VK_ALIGN;
    return p->plan->value_count + p->scratch_count++;
}

bool mb__vk_add_fill(mb__vk_program *p, int step, int32_t value, double number)
{
    const mb__value *v = &p->plan->values[value];
    mb__instr in = {.op = MB_K_CONST,
                    .dtype = v->dtype,
                    .from = v->dtype,
                    .in = {-1, -1, -1},
                    .bind = -1,
                    .number = number};
    in.view.value = -1;
    mb__store st = {.instr = 0, .mode = MB_STORE};
    st.view.value = value;
    st.view.stride[0] = 1;
    mb__kernel k = {.rank = 1,
                    .inner = 1,
                    .dim = {v->count},
                    .instrs = &in,
                    .stores = &st,
                    .instr_count = 1,
                    .store_count = 1};
    return mb__vk_add_kernel(p, step, &k);
}

/* Chains of the table words that say where a value lies. */
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

static void free_words(mb__vk_program *p)
{
    mb__free(p->v->ctx, p->words, p->word_room * sizeof *p->words);
    mb__free(p->v->ctx, p->slot_value, p->slot_room * sizeof *p->slot_value);
    mb__free(p->v->ctx, p->slot_shift, p->shift_room * sizeof *p->slot_shift);
    p->words = p->slot_shift = NULL;
    p->slot_value = NULL;
    p->word_room = p->slot_room = p->shift_room = 0;
}

static bool build(mb__vk_program *p)
{
    const mb__plan *plan = p->plan;
    for (int s = 0; s < plan->step_count; s++) { /* what a kernel computes in between has a type as well */
        const mb__step *step = &plan->steps[s];
        for (int i = 0; step->kind == MB_STEP_KERNEL && i < step->u.kernel.instr_count; i++)
            if (!mb__vk_has_type(p->v, step->where, (mb_dtype)step->u.kernel.instrs[i].dtype))
                return false;
    }
    for (int i = 0; i < plan->value_count; i++)
        if (!mb__vk_has_type(p->v, NULL, (mb_dtype)plan->values[i].dtype))
            return false;
    for (int i = 0; i < plan->scalar_count * SCALAR_WORDS; i++)
        add_word(p, 0, -1, 0);
    for (int s = 0; s < plan->step_count && !p->failed; s++) {
        const mb__step *step = &plan->steps[s];
        bool ok = step->kind == MB_STEP_KERNEL    ? mb__vk_add_kernel(p, s, &step->u.kernel)
                  : step->kind == MB_STEP_PRODUCT ? mb__vk_add_product(p, s, &step->u.product)
                  : step->kind == MB_STEP_OTHER   ? mb__vk_add_other(p, s, &step->u.other)
                                                  : mb__vk_add_fill(p, s, step->u.zero, 0);
        if (!ok)
            return false;
    }
    if (p->failed || !chain_slots(p))
        return false;
    if (p->scratch_bytes) {
        p->scratch_memory = mb__vk_memory_new(p->v->ctx, p->v, p->scratch_bytes);
        if (!p->scratch_memory)
            return false;
    }
    uint64_t bytes = (p->word_count + 1) * sizeof *p->words;
    if (!mb__vk_idle(p->v) || !mb__vk_table_new(p->v, bytes, &p->table_at))
        return false;
    p->table_bytes = bytes;
    if (p->word_count)
        memcpy(mb__vk_table_at(p->v, p->table_at), p->words, p->word_count * sizeof *p->words);
    return true;
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
    free_words(p);
    mb__bump pool = p->pool;
    mb__bump_free(&pool);
}

void *mb__vk_compile(mb_context *ctx, void *state, const mb__plan *plan, size_t *bytes)
{
    mb__vk *v = state;
    mb__bump pool = {.ctx = ctx};
    mb__vk_program *p = mb__bump_get(&pool, sizeof *p);
    if (!p) {
        mb__bump_free(&pool);
        return NULL;
    }
    *p = (mb__vk_program){.v = v, .pool = pool, .plan = plan};
    if (!build(p)) {
        if (mb_error(ctx) == MB_OK && !v->refused)
            mb__error(ctx, MB_NO_MEMORY, NULL, "vulkan: out of memory while compiling a plan");
        mb__vk_discard(ctx, v, p);
        return NULL;
    }
    free_words(p);
    mb__vk_heard(v);
    *bytes = p->pool.total + p->table_bytes + p->scratch_bytes;
    return p;
}

/* ---- recording ---- */

static bool begin_slice(mb__vk_program *p, int i)
{
    mb__vk *v = p->v;
    if (i == p->slice_count) {
        VkCommandBufferAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                            .commandPool = v->command_pool,
                                            .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
                                            .commandBufferCount = 1};
        if (!VK(v, v->f.vkAllocateCommandBuffers(v->device, &info, &p->slices[i])))
            return false;
        p->slice_count++;
    }
    VkCommandBuffer cb = p->slices[i];
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

static bool end_slice(mb__vk_program *p, int i, bool last)
{
    mb__vk *v = p->v;
    if (last) { /* the host may look */
        VkMemoryBarrier seen = {.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
                                .srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT,
                                .dstAccessMask = VK_ACCESS_HOST_READ_BIT};
        v->f.vkCmdPipelineBarrier(p->slices[i], VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
                                  VK_PIPELINE_STAGE_HOST_BIT, 0, 1, &seen, 0, NULL, 0, NULL);
    }
    return VK(v, v->f.vkEndCommandBuffer(p->slices[i]));
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
        const char *place = p->plan->steps[d->step].where;
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

/* Commands are cut into slices that a device finishes in a fraction of a second. Dispatches between two
 * barriers do not touch each other's values, so they may run in any order; `backwards` records them so, for
 * tests of just that. */
static bool record(mb__vk_program *p)
{
    mb__vk *v = p->v;
    double slice = v->slice, total = 0, cost = 0;
    for (int i = 0; i < p->dispatch_count; i++)
        total += p->dispatches[i].cost;
    /* Two slices beside each other hold more than one's cost. */
    slice = slice < 2 * total / (VK_SLICES_MOST - 2) ? 2 * total / (VK_SLICES_MOST - 2) : slice;
    bool *before = mb__alloc(v->ctx, (size_t)p->dispatch_count + 1);
    if (!before)
        return false;
    mb__vk_hazards(p, before);
    p->barriers = 0;
    int current = 0;
    bool ok = begin_slice(p, 0);
    VkPipeline bound = VK_NULL_HANDLE;
    for (int i = 0; ok && i < p->dispatch_count;) {
        int end = i + 1; /* of what runs between two barriers */
        double more = p->dispatches[i].cost;
        while (end < p->dispatch_count && !before[end])
            more += p->dispatches[end++].cost;
        if (cost > 0 && cost + more > slice && current + 1 < VK_SLICES_MOST) {
            ok = end_slice(p, current, false) && begin_slice(p, ++current);
            bound = VK_NULL_HANDLE;
            cost = 0;
        } else if (i > 0) {
            mb__vk_barrier(v, p->slices[current]);
            p->barriers++;
        }
        for (int j = i; ok && j < end; j++) {
            int which = v->backwards ? end - 1 - (j - i) : j;
            record_dispatch(p, p->slices[current], which, &bound);
        }
        cost += more;
        i = end;
    }
    ok = ok && end_slice(p, current, true);
    mb__free(v->ctx, before, (size_t)p->dispatch_count + 1);
    p->slices_used = ok ? current + 1 : 0;
    if (ok) /* else it is recorded anew when it is next run */
        p->generation = v->generation;
    mb__vk_stats(v)->recordings++;
    return ok;
}

/* ---- time stamps ---- */

static bool make_queries(mb__vk_program *p)
{
    mb__vk *v = p->v;
    if (p->queries || v->period == 0 || !mb__profiling(v->ctx))
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
        mb__profile_add(v->ctx, p->plan, p->dispatches[i].step,
                        1e-9 * v->period * (double)((ticks[1] - ticks[0]) & v->ticks));
    }
    return true;
}

/* ---- running ---- */

static mb__vk_place place_of(const mb__vk_program *p, const mb__binding *b, int value)
{
    if (value >= p->plan->value_count) {
        const mb__vk_scratch_value *s = &p->scratch[value - p->plan->value_count];
        return (mb__vk_place){p->scratch_memory->block, p->scratch_memory->offset + s->offset, 0};
    }
    const mb__value *v = &p->plan->values[value];
    const mb__vk_place *m = v->home == MB_IN_INPUT    ? b->inputs[v->index]
                            : v->home == MB_IN_OUTPUT ? b->outputs[v->index]
                                                      : b->arena;
    return (mb__vk_place){m->block, m->offset + (v->home == MB_IN_ARENA ? (uint64_t)v->offset : 0), 0};
}

static void bind_values(mb__vk_program *p, const mb__binding *b)
{
    uint32_t *table = mb__vk_table_at(p->v, p->table_at);
    int count = p->plan->value_count + p->scratch_count;
    for (int i = 0; i < count; i++) {
        if (p->slot_first[i] < 0)
            continue;
        mb__vk_place now = place_of(p, b, i);
        if (now.block == p->bound[i].block && now.offset == p->bound[i].offset)
            continue;
        p->bound[i] = now;
        for (int32_t w = p->slot_first[i]; w >= 0; w = p->slot_next[w]) {
            table[w] = now.block;
            table[w + 1] = (uint32_t)(now.offset / 4) + p->shift[w];
        }
    }
    for (int i = 0; i < p->plan->scalar_count; i++) {
        double x = b->scalars[i];
        float f = (float)x;
        int32_t n = x >= 2147483647.0 ? INT32_MAX : x > -2147483648.0 ? (int32_t)x : INT32_MIN;
        uint32_t *w = table + i * SCALAR_WORDS;
        memcpy(w, &f, 4);
        memcpy(w + 1, &n, 4);
        memcpy(w + 2, &x, 8);
    }
}

mb_status mb__vk_run(mb_context *ctx, void *state, void *program, const mb__binding *binding)
{
    mb__vk *v = state;
    mb__vk_program *p = program;
    if (v->lost)
        return mb__error(ctx, MB_BACKEND, NULL, "vulkan: the device was lost");
    if (!mb__vk_idle(v))
        return ctx->status;
    if (p->dispatch_count == 0)
        return MB_OK;
    bind_values(p, binding);
    if (v->guard)
        mb__vk_guard_fill(p, binding);
    if (p->generation != v->generation && (!make_queries(p) || !record(p)))
        return ctx->status;
    for (int i = 0; i < p->slices_used; i++)
        if (!mb__vk_submit(v, p->slices[i], i + 1 == p->slices_used))
            return ctx->status;
    mb_stats *s = mb__vk_stats(v);
    s->last_dispatches = (uint64_t)p->dispatch_count;
    s->last_barriers = (uint64_t)p->barriers;
    if (p->queries && mb__vk_idle(v))
        read_queries(p);
    if (v->guard && mb__vk_idle(v))
        mb__vk_guard_check(p, binding);
    mb__vk_heard(v);
    return ctx->status;
}

const mb__backend mb__backend_vulkan = {
    .version = MB_BACKEND_VERSION,
    .name = "vulkan",
    .fuses = true,
    .strided = true,
    .open = mb__vk_open,
    .close = mb__vk_close,
    .element_size = mb__vk_element_size,
    .memory_new = mb__vk_memory_new,
    .memory_free = mb__vk_memory_free,
    .upload = mb__vk_upload,
    .download = mb__vk_download,
    .compile = mb__vk_compile,
    .discard = mb__vk_discard,
    .run = mb__vk_run,
};
