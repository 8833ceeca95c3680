/* SPDX-License-Identifier: MIT
 *
 * forecast.c - a flush as far as its plan, and what the rest of it would take: buffers for the results that
 * the pool does not have, and the arena, where it is not large enough. Both are asked for in this order, as
 * run.c does; the old arena goes before the new one comes.
 */
#include <stdlib.h>

#include "backends/engine/state.h"
#include "tensor/door.h"

/* ---- what is there ---- */

static uint64_t held(const mb_context *ctx)
{
    const mb__engine_state *st = ctx->engine_state;
    return st->backend->foresee ? st->counters.device_bytes : ctx->bytes;
}

static int by_address(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t) * (mb__buffer *const *)a, y = (uintptr_t) * (mb__buffer *const *)b;
    return (x > y) - (x < y);
}

/* Bytes of the buffers in a list, each counted once, of those that are not in `others`, which is sorted. */
static uint64_t distinct_bytes(mb__buffer **list, size_t n, mb__buffer *const *others, size_t other_count)
{
    uint64_t bytes = 0;
    if (n)
        qsort(list, n, sizeof(*list), by_address);
    for (size_t i = 0, k = 0; i < n; i++) {
        while (k < other_count && (uintptr_t)others[k] < (uintptr_t)list[i])
            k++;
        bool again = i > 0 && list[i] == list[i - 1], other = k < other_count && others[k] == list[i];
        bytes += again || other ? 0 : list[i]->bytes;
    }
    return bytes;
}

/* Values of variables; what else the segment reads; and the rest of what lives. */
static bool count_values(mb_context *ctx, const mb__segment *s, mb_costs *c)
{
    MB_TEMPORARY(ctx);
    const mb__engine_state *st = ctx->engine_state;
    mb__buffer **variables = mb__temporary(ctx, (ctx->variable_count + (size_t)1) * sizeof(*variables)),
               **inputs = mb__temporary(ctx, (s->input_count + (size_t)1) * sizeof(*inputs));
    if (!variables || !inputs)
        return false;
    size_t n = 0;
    for (uint32_t i = 0; i < ctx->variable_count; i++)
        if (ctx->variables[i].value)
            variables[n++] = ctx->variables[i].value;
    c->variable_bytes = distinct_bytes(variables, n, NULL, 0);
    for (uint32_t i = 0; i < s->input_count; i++)
        inputs[i] = ctx->nodes[s->inputs[i]].value;
    c->input_bytes = distinct_bytes(inputs, s->input_count, variables, n);
    c->live_bytes = st->live_bytes - c->variable_bytes - c->input_bytes;
    return true;
}

/* ---- what is to come ---- */

static int by_size(const void *a, const void *b)
{
    size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return (x > y) - (x < y);
}

/* Of sorted sizes those that the pool has no buffer for, in place; how many there are. */
static int without_pooled(const mb_context *ctx, size_t *sizes, int n)
{
    int missing = 0;
    for (int i = 0; i < n;) {
        int same = i;
        while (same < n && sizes[same] == sizes[i])
            same++;
        int wanted = same - i, there = (int)mb__pool_unused(ctx, sizes[i]);
        size_t size = sizes[i];
        for (int k = there; k < wanted; k++)
            sizes[missing++] = size;
        i = same;
    }
    return missing;
}

/* What the allocator, or the device, will be asked for beyond what is held. */
static mb_status growth(const mb__engine_state *st, const mb__plan *plan, size_t *sizes, int n,
                        uint64_t *more)
{
    size_t arena = mb__arena_bytes(plan);
    bool larger = arena > st->arena_bytes;
    if (larger)
        sizes[n++] = arena;
    if (st->backend->foresee)
        return st->backend->foresee(st->backend_state, sizes, n, larger ? st->arena : NULL, more);
    *more = 0;
    for (int i = 0; i < n; i++)
        *more += sizes[i];
    if (larger)
        *more -= *more > st->arena_bytes ? st->arena_bytes : *more;
    return MB_OK;
}

static mb_status count_plan(mb_context *ctx, const mb__segment *s, const mb__cached *plan, mb_costs *c)
{
    MB_TEMPORARY(ctx);
    const mb__engine_state *st = ctx->engine_state;
    size_t *sizes = mb__temporary(ctx, (s->output_count + (size_t)2) * sizeof *sizes);
    if (!sizes)
        return ctx->status;
    for (uint32_t i = 0; i < s->output_count; i++) {
        const mb__node *n = &ctx->nodes[s->outputs[i]];
        sizes[i] = mb__pool_rounded((size_t)mb__numel(n->dim, n->rank) *
                                    st->backend->element_size((mb_dtype)n->dtype));
        c->result_bytes += sizes[i];
    }
    qsort(sizes, s->output_count, sizeof *sizes, by_size);
    uint64_t more;
    mb__weight weight;
    mb__bump scratch = {.host = &st->host};
    mb_status status =
        growth(st, &plan->plan, sizes, without_pooled(ctx, sizes, (int)s->output_count), &more);
    c->peak_bytes = status == MB_OK ? held(ctx) + more : 0;
    if (status == MB_OK)
        status = mb__weigh(&plan->plan, st->backend, &scratch, &weight);
    mb__bump_free(&scratch);
    if (status != MB_OK)
        return status;
    c->loop_bytes = (uint64_t)weight.loop_bytes;
    c->temporary_bytes = (uint64_t)(plan->plan.arena_bytes - weight.loop_bytes);
    c->plan_bytes = plan->bytes;
    c->steps = weight.steps;
    c->flops = plan->plan.flops;
    c->nodes = s->count;
    return MB_OK;
}

/* ---- the forecast ---- */

static mb_status weigh_targets(mb_context *ctx, uint32_t targets, mb_costs *c)
{
    mb__engine_state *st = ctx->engine_state;
    mb__segment *s = &st->segment;
    if (!mb__segment_of(ctx, s, targets))
        return ctx->status;
    mb__cached *plan = NULL;
    double before = st->stats.plan_seconds;
    mb_status status = mb__plan_for(ctx, s, &plan);
    if (status == MB_NO_MEMORY && mb__reclaim(ctx))
        status = mb__plan_for(ctx, s, &plan);
    c->plan_seconds = st->stats.plan_seconds - before;
    if (status == MB_OK && count_values(ctx, s, c))
        status = count_plan(ctx, s, plan, c);
    if (status == MB_NO_MEMORY)
        return mb__error(ctx, status, "forecast: out of memory for a plan of %u nodes", s->count);
    return ctx->status != MB_OK ? ctx->status : status;
}

static mb_status forecast(mb_context *ctx, const uint32_t *ids, int n, mb_costs *c)
{
    mb__engine_state *st = ctx->engine_state;
    if (st->opened != MB_OK)
        return mb__error(ctx, st->opened,
                         "forecast: this context's backend could not be opened; close it and open another");
    uint32_t targets;
    if (!mb__targets_of(ctx, ids, n, &targets))
        return ctx->status;
    c->held_bytes = c->peak_bytes = held(ctx);
    if (targets) {
        mb_status status = weigh_targets(ctx, targets, c);
        if (status != MB_OK)
            return status;
    } else {
        st->segment.input_count = 0;
        if (!count_values(ctx, &st->segment, c))
            return ctx->status;
    }
    c->held_bytes = held(ctx);
    uint64_t told = c->variable_bytes + c->input_bytes + c->live_bytes + c->result_bytes + c->loop_bytes +
                    c->temporary_bytes;
    c->other_bytes = c->peak_bytes > told ? c->peak_bytes - told : 0;
    return MB_OK;
}

mb_status mb_forecast_at(const char *site, mb_context *ctx, const mb_tensor *ts, int n, mb_costs *costs)
{
    if (costs)
        *costs = (mb_costs){0};
    MB_DOOR(ctx, site, MB_THREAD);
    if (!ctx)
        return MB_INVALID;
    if (ctx->status != MB_OK)
        return ctx->status;
    if (!costs || n < 0 || (n && !ts))
        return mb__error(ctx, MB_INVALID, "forecast: got %d tensors at %s, and %s for the costs", n,
                         ts ? "an address" : "NULL", costs ? "room" : "NULL");
    MB_TEMPORARY(ctx);
    uint32_t *ids = mb__temporary(ctx, ((size_t)n + 1) * sizeof *ids);
    for (int i = 0; ids && i < n; i++) {
        mb_tensor poison;
        if (ts[i].ctx != ctx)
            return mb__error(ctx, MB_INVALID, "forecast: number %d of %d %s", i + 1, n,
                             ts[i].ctx ? "belongs to another context" : "is not a tensor");
        if (!mb__enter("forecast", (const mb_tensor *[]){&ts[i]}, 1, &poison) ||
            !(ids[i] = mb__resolve(ctx, ts[i])))
            return ctx->status;
    }
    mb_costs c = {0};
    mb_status status = ids ? forecast(ctx, ids, n, &c) : ctx->status;
    if (status == MB_OK)
        *costs = c;
    return status;
}
