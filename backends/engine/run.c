/* SPDX-License-Identifier: MIT
 * run.c - a segment computed: its plan found or made, inputs, scalars and new memory for the results bound,
 * run. */
#include "backends/engine/state.h"

static bool bind(mb_context *ctx, mb__engine_state *st, const mb__plan *plan, uint32_t count)
{
    if (!mb__reserve(ctx, (void **)&st->inputs, &st->input_room, (uint64_t)plan->input_count + 1,
                     sizeof *st->inputs) ||
        !mb__reserve(ctx, (void **)&st->outputs, &st->output_room, (uint64_t)plan->output_count + 1,
                     sizeof *st->outputs) ||
        !mb__reserve(ctx, (void **)&st->fresh, &st->fresh_room, (uint64_t)plan->output_count + 1,
                     sizeof(*st->fresh)) ||
        !mb__reserve(ctx, (void **)&st->scalars, &st->scalar_room, (uint64_t)plan->scalar_count + 1,
                     sizeof *st->scalars))
        return false;
    size_t arena = plan->arena_bytes > 64 ? (size_t)plan->arena_bytes
                                          : 64; /* never none: values of no bytes have a place too */
    if (arena > st->arena_bytes) {
        if (st->arena)
            st->backend->memory_free(ctx, st->backend_state, st->arena, st->arena_bytes);
        st->arena_bytes = 0;
        st->arena = st->backend->memory_new(ctx, st->backend_state, arena);
        if (!st->arena)
            return false;
        st->arena_bytes = arena;
    }
    int inputs = 0, outputs = 0, scalars = 0;
    for (uint32_t i = 0; i < count; i++) {
        mb__node *n = &ctx->nodes[st->list[i]];
        if (n->value) {
            st->inputs[inputs++] = n->value->memory;
            continue;
        }
        if (n->op == MB_OP_SCALAR)
            st->scalars[scalars++] = n->bind.scalar;
        else if (n->op == MB_OP_RANDOM)
            memcpy(&st->scalars[scalars++], &n->bind.key, 8);
        if (st->mark[st->list[i]] & 1) {
            mb__buffer *b = mb__buffer_new(ctx, (mb_dtype)n->dtype, mb__numel(n->dim, n->rank));
            if (!b) {
                while (outputs)
                    mb__buffer_release(ctx, st->fresh[--outputs]);
                return false;
            }
            st->fresh[outputs] = b;
            st->outputs[outputs++] = b->memory;
        }
    }
    return true;
}

mb_status mb__compute(mb_context *ctx, mb__engine_state *st, uint32_t targets)
{
    uint32_t count;
    if (!mb__segment_collect(ctx, st, targets, &count))
        return ctx->status;
    st->key_bytes = 0;
    for (uint32_t i = 0; i < count; i++) {
        st->dense[st->list[i]] = i;
        if (!mb__segment_key_node(ctx, st, &ctx->nodes[st->list[i]], st->mark[st->list[i]] & 1))
            return ctx->status;
    }
    mb__cached *c = mb__plan_for(ctx, count, mb__hash(st->key, st->key_bytes));
    if (!c || !bind(ctx, st, &c->plan, count))
        return mb_error(ctx) != MB_OK ? ctx->status
                                      : mb__error(ctx, MB_NO_MEMORY, "out of memory while planning");
    mb__binding binding = {st->arena, st->inputs, st->outputs, st->scalars};
    mb_status status = st->backend->run(ctx, st->backend_state, c->program, &binding);
    int outputs = 0;
    for (uint32_t i = 0; i < count; i++) {
        mb__node *n = &ctx->nodes[st->list[i]];
        if (n->value || !(st->mark[st->list[i]] & 1))
            continue;
        if (status == MB_OK)
            n->value = st->fresh[outputs++];
        else
            mb__buffer_release(ctx, st->fresh[outputs++]);
    }
    st->stats.flushes++;
    st->stats.last_nodes = count;
    st->stats.last_steps = (uint64_t)c->plan.step_count;
    st->stats.last_flops = c->plan.flops;
    st->stats.last_arena_bytes = (uint64_t)c->plan.arena_bytes;
    return status;
}
