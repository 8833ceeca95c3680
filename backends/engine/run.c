/* SPDX-License-Identifier: MIT
 * run.c - runs a segment: finds or makes its plan, binds inputs, scalars and new memory for the results.
 */
#include "backends/engine/state.h"

size_t mb__arena_bytes(const mb__plan *plan)
{
    return (size_t)plan->arena_bytes + 64; /* values of no bytes have a place too */
}

static mb_status arena_for(mb__engine_state *st, const mb__plan *plan)
{
    size_t wanted = mb__arena_bytes(plan);
    if (wanted <= st->arena_bytes)
        return MB_OK;
    if (st->arena)
        st->backend->memory_free(st->backend_state, st->arena, st->arena_bytes);
    st->arena = NULL;
    st->arena_bytes = 0;
    mb_status status = st->backend->memory_new(st->backend_state, wanted, &st->arena);
    if (status == MB_OK)
        st->arena_bytes = wanted;
    return status;
}

static void drop_fresh(mb_context *ctx, mb__engine_state *st, uint32_t count)
{
    while (count)
        mb__buffer_release(ctx, st->fresh[--count]);
}

static bool bind(mb_context *ctx, mb__engine_state *st, const mb__segment *s)
{
    if (!mb__reserve(ctx, (void **)&st->inputs, &st->input_capacity, (uint64_t)s->input_count + 1,
                     sizeof *st->inputs) ||
        !mb__reserve(ctx, (void **)&st->outputs, &st->output_capacity, (uint64_t)s->output_count + 1,
                     sizeof *st->outputs) ||
        !mb__reserve(ctx, (void **)&st->fresh, &st->fresh_capacity, (uint64_t)s->output_count + 1,
                     sizeof(*st->fresh)))
        return false;
    for (uint32_t i = 0; i < s->input_count; i++)
        st->inputs[i] = ctx->nodes[s->inputs[i]].value->memory;
    for (uint32_t i = 0; i < s->output_count; i++) {
        st->fresh[i] = mb__buffer_for(ctx, &ctx->nodes[s->outputs[i]]);
        if (!st->fresh[i]) {
            drop_fresh(ctx, st, i);
            return false;
        }
        st->outputs[i] = st->fresh[i]->memory;
    }
    return true;
}

static void count(mb__engine_state *st, const mb__segment *s, const mb__plan *plan)
{
    st->stats.flushes++;
    st->stats.last_nodes = s->count;
    st->stats.last_steps = (uint64_t)plan->step_count;
    st->stats.last_flops = plan->flops;
    st->stats.last_arena_bytes = (uint64_t)plan->arena_bytes;
    st->stats.last_slices = plan->slices ? (uint64_t)plan->slices : 1;
}

/* Allocates the plan's arena and runs it. Results are bound first, so that reclaiming does not free their
 * memory. */
static mb_status attempt(mb__engine_state *st, const mb__segment *s, const mb__cached *c)
{
    mb_status status = arena_for(st, &c->plan);
    if (status != MB_OK)
        return status;
    mb__binding binding = {st->arena, st->inputs, st->outputs, s->scalars};
    st->busy = true;
    status = st->backend->run(st->backend_state, c->program, &binding);
    st->busy = false;
    if (status == MB_OK)
        count(st, s, &c->plan);
    return status;
}

static mb_status plan_and_run(mb_context *ctx, mb__engine_state *st, const mb__segment *s)
{
    mb__cached *c = NULL;
    mb_status status = mb__plan_for(ctx, s, &c);
    return status == MB_OK ? attempt(st, s, c) : status;
}

mb_status mb__compute(mb_context *ctx, mb__engine_state *st, uint32_t targets)
{
    mb__segment *s = &st->segment;
    if (!mb__segment_of(ctx, s, targets) || !bind(ctx, st, s))
        return mb_error(ctx);
    mb_status status = plan_and_run(ctx, st, s);
    if (status == MB_NO_MEMORY && mb__reclaim(ctx))
        status = plan_and_run(ctx, st, s);
    if (status != MB_OK) {
        drop_fresh(ctx, st, s->output_count);
        return status == MB_NO_MEMORY
                   ? mb__error(ctx, status,
                               "out of memory for a plan of %u nodes and its intermediate values", s->count)
                   : status;
    }
    for (uint32_t i = 0; i < s->output_count; i++)
        ctx->nodes[s->outputs[i]].value = st->fresh[i];
    return MB_OK;
}
