/* SPDX-License-Identifier: MIT
 * context.c - allocating and freeing a context. */
#include "tensor/internal.h"

atomic_uint mb__forks;

static void forked(void)
{
    atomic_fetch_add_explicit(&mb__forks, 1, memory_order_relaxed);
}

static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, forked); /* if it fails, a forked child is taken for its parent */
}

mb_context *mb__context_new(const mb_allocator *allocator)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    mb_allocator a = allocator ? *allocator : mb__default_allocator;
    mb_context *ctx = a.alloc(a.user, sizeof *ctx);
    if (!ctx)
        return NULL;
    memset(ctx, 0, sizeof *ctx);
    ctx->allocator = a;
    ctx->thread = pthread_self();
    ctx->process = atomic_load_explicit(&mb__forks, memory_order_relaxed);
    ctx->next_serial = 2;
    mb__took(ctx, sizeof *ctx);
    bool ok = mb__reserve(ctx, (void **)&ctx->nodes, &ctx->node_capacity, 64, sizeof *ctx->nodes) &&
              mb__reserve(ctx, (void **)&ctx->operands, &ctx->operand_capacity, 64, sizeof *ctx->operands) &&
              mb__reserve(ctx, (void **)&ctx->attrs, &ctx->attr_capacity, 64, sizeof *ctx->attrs) &&
              mb__reserve(ctx, (void **)&ctx->scopes, &ctx->scope_capacity, 8, sizeof *ctx->scopes);
    if (!ok) {
        mb__context_free(ctx);
        return NULL;
    }
    ctx->nodes[0] = (mb__node){.op = MB_OP_POISON};
    ctx->node_count = 1;
    ctx->scopes[0] = (mb__scope_mark){.serial = 1, .nodes = 1};
    ctx->scope_count = 1;
    return ctx;
}

void mb__context_free(mb_context *ctx)
{
    if (!ctx)
        return;
    for (uint32_t i = 0; i < ctx->node_count; i++)
        mb__buffer_drop(ctx, ctx->nodes[i].value);
    for (uint32_t i = 0; i < ctx->variable_count; i++)
        mb__buffer_drop(ctx, ctx->variables[i].value);
    if (ctx->engine)
        ctx->engine->close(ctx);
    mb__free(ctx, ctx->nodes, ctx->node_capacity * sizeof *ctx->nodes);
    mb__free(ctx, ctx->operands, ctx->operand_capacity * sizeof *ctx->operands);
    mb__free(ctx, ctx->attrs, ctx->attr_capacity * sizeof *ctx->attrs);
    mb__free(ctx, ctx->scopes, ctx->scope_capacity * sizeof *ctx->scopes);
    mb__free(ctx, ctx->variables, ctx->variable_capacity * sizeof *ctx->variables);
    mb__free(ctx, ctx->changes, ctx->change_capacity * sizeof *ctx->changes);
    mb__free(ctx, ctx->watches, ctx->watch_capacity * sizeof *ctx->watches);
    mb__custom_ops_free(ctx);
    mb__free(ctx, ctx->regions, ctx->region_capacity * sizeof *ctx->regions);
    mb__brackets_free(ctx);
    mb__taps_free(ctx);
    mb__free(ctx, ctx->copies, ctx->copy_capacity * sizeof *ctx->copies);
    for (uint32_t i = 0; i < ctx->site_capacity; i++)
        if (ctx->sites[i])
            mb__free(ctx, ctx->sites[i], strlen(ctx->sites[i]) + 1);
    mb__free(ctx, ctx->sites, ctx->site_capacity * sizeof *ctx->sites);
    for (uint32_t i = 0; i < ctx->sweep_capacity; i++) {
        const mb__scratch *w = &ctx->sweeps[i];
        mb__free(ctx, w->grad, w->grad_capacity * sizeof *w->grad);
        mb__free(ctx, w->depends, w->depends_capacity);
        mb__free(ctx, w->needed, w->needed_capacity);
        mb__free(ctx, w->parts, w->part_capacity); /* counted in bytes */
    }
    mb__free(ctx, ctx->sweeps, ctx->sweep_capacity * sizeof *ctx->sweeps);
    mb__temporaries_free(ctx);
    mb__free(ctx, ctx->begins, ctx->begin_capacity * sizeof *ctx->begins);
    mb__free(ctx, ctx->ids, ctx->id_capacity * sizeof *ctx->ids);
    mb_allocator a = ctx->allocator;
    a.free(a.user, ctx, sizeof *ctx);
}

void mb__buffer_drop(mb_context *ctx, mb__buffer *b)
{
    if (b && --b->refs == 0)
        ctx->engine->release(ctx, b);
}
