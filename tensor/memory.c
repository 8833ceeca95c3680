/* SPDX-License-Identifier: MIT
 * memory.c - the context's allocator and its counters. */
#include <stdlib.h>
#include <sys/mman.h>

#include "tensor/tape.h"

/* Large blocks are aligned to huge pages, and ask for them: arenas are walked from end to end at every step.
 */
static void *default_alloc(void *user, size_t size)
{
    (void)user;
    const size_t huge = (size_t)2 << 20;
    if (size < 2 * huge)
        return malloc(size);
    void *p = NULL;
    if (posix_memalign(&p, huge, size))
        return NULL;
    madvise(p, size / huge * huge, MADV_HUGEPAGE);
    return p;
}
static void *default_realloc(void *user, void *p, size_t old_size, size_t size)
{
    (void)user;
    (void)old_size;
    return realloc(p, size);
}
static void default_free(void *user, void *p, size_t size)
{
    (void)user;
    (void)size;
    free(p);
}

static const mb_allocator default_allocator = {default_alloc, default_realloc, default_free, NULL};

static void took(mb_context *ctx, size_t size)
{
    ctx->allocations++;
    ctx->bytes += size;
    if (ctx->bytes > ctx->peak_bytes)
        ctx->peak_bytes = ctx->bytes;
}

void *mb__alloc_raw(mb_context *ctx, size_t size)
{
    void *p = ctx->allocator.alloc(ctx->allocator.user, size ? size : 1);
    if (!p)
        mb__error(ctx, MB_NO_MEMORY, NULL, "out of memory: %zu bytes wanted", size);
    else
        took(ctx, size);
    return p;
}

void *mb__alloc(mb_context *ctx, size_t size)
{
    void *p = mb__alloc_raw(ctx, size);
    if (p)
        memset(p, 0, size ? size : 1);
    return p;
}

void *mb__realloc(mb_context *ctx, void *p, size_t old_size, size_t size)
{
    if (!p)
        return mb__alloc(ctx, size);
    void *q = ctx->allocator.realloc(ctx->allocator.user, p, old_size, size ? size : 1);
    if (!q) {
        mb__error(ctx, MB_NO_MEMORY, NULL, "out of memory: %zu bytes wanted", size);
        return NULL;
    }
    ctx->bytes -= old_size;
    took(ctx, size);
    if (size > old_size)
        memset((char *)q + old_size, 0, size - old_size);
    return q;
}

void mb__free(mb_context *ctx, void *p, size_t size)
{
    if (!p)
        return;
    ctx->bytes -= size;
    ctx->allocator.free(ctx->allocator.user, p, size ? size : 1);
}

bool mb__reserve(mb_context *ctx, void **array, uint32_t *room, uint64_t need, size_t item)
{
    if (need <= *room)
        return true;
    uint64_t next = *room + *room / 2 + 64;
    if (next < need)
        next = need;
    if (next > UINT32_MAX || next * item > PTRDIFF_MAX) {
        mb__error(ctx, MB_NO_MEMORY, NULL, "out of memory: the tape cannot hold %llu entries",
                  (unsigned long long)need);
        return false;
    }
    void *p = mb__realloc(ctx, *array, (size_t)*room * item, (size_t)next * item);
    if (!p)
        return false;
    *array = p;
    *room = (uint32_t)next;
    return true;
}

mb_context *mb__context_new(const mb_allocator *allocator)
{
    mb_allocator a = allocator ? *allocator : default_allocator;
    mb_context *ctx = a.alloc(a.user, sizeof *ctx);
    if (!ctx)
        return NULL;
    memset(ctx, 0, sizeof *ctx);
    ctx->allocator = a;
    ctx->thread = pthread_self();
    ctx->next_serial = 2;
    took(ctx, sizeof *ctx);
    bool ok = mb__reserve(ctx, (void **)&ctx->nodes, &ctx->node_room, 64, sizeof *ctx->nodes) &&
              mb__reserve(ctx, (void **)&ctx->operands, &ctx->operand_room, 64, sizeof *ctx->operands) &&
              mb__reserve(ctx, (void **)&ctx->attrs, &ctx->attr_room, 64, sizeof *ctx->attrs) &&
              mb__reserve(ctx, (void **)&ctx->scopes, &ctx->scope_room, 8, sizeof *ctx->scopes);
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
    mb__free(ctx, ctx->nodes, ctx->node_room * sizeof *ctx->nodes);
    mb__free(ctx, ctx->operands, ctx->operand_room * sizeof *ctx->operands);
    mb__free(ctx, ctx->attrs, ctx->attr_room * sizeof *ctx->attrs);
    mb__free(ctx, ctx->scopes, ctx->scope_room * sizeof *ctx->scopes);
    mb__free(ctx, ctx->variables, ctx->variable_room * sizeof *ctx->variables);
    mb__free(ctx, ctx->pending, ctx->pending_room * sizeof *ctx->pending);
    mb__free(ctx, ctx->watches, ctx->watch_room * sizeof *ctx->watches);
    mb__free(ctx, ctx->scratch, ctx->scratch_bytes);
    mb__free(ctx, ctx->ids, ctx->id_room * sizeof *ctx->ids);
    mb_allocator a = ctx->allocator;
    a.free(a.user, ctx, sizeof *ctx);
}

void mb__buffer_drop(mb_context *ctx, mb__buffer *b)
{
    if (b && --b->refs == 0)
        ctx->engine->release(ctx, b);
}
