/* SPDX-License-Identifier: MIT
 * memory.c - the context's allocator and its counters. */
#include <stdlib.h>
#include <sys/mman.h>

#include "tensor/internal.h"

/* Large blocks are aligned to huge pages and advise the kernel to use them: arenas are read and written from
 * end to end at every step.
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

const mb_allocator mb__default_allocator = {default_alloc, default_realloc, default_free, NULL};

void mb__took(mb_context *ctx, size_t size)
{
    ctx->allocations++;
    ctx->bytes += size;
    if (ctx->bytes > ctx->peak_bytes)
        ctx->peak_bytes = ctx->bytes;
}

void *mb__try_alloc(mb_context *ctx, size_t size)
{
    void *p = ctx->allocator.alloc(ctx->allocator.user, size ? size : 1);
    if (p)
        mb__took(ctx, size);
    return p;
}

/* Frees what the engine keeps only for speed. Whether anything was freed, so that another try may succeed. */
static bool reclaimed(mb_context *ctx)
{
    return ctx->engine && ctx->engine->reclaim(ctx);
}

void *mb__alloc_raw(mb_context *ctx, size_t size)
{
    void *p = mb__try_alloc(ctx, size);
    if (!p && reclaimed(ctx))
        p = mb__try_alloc(ctx, size);
    if (!p)
        mb__error(ctx, MB_NO_MEMORY, "out of memory: %zu bytes wanted", size);
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
    if (!q && reclaimed(ctx))
        q = ctx->allocator.realloc(ctx->allocator.user, p, old_size, size ? size : 1);
    if (!q) {
        mb__error(ctx, MB_NO_MEMORY, "out of memory: %zu bytes wanted", size);
        return NULL;
    }
    ctx->bytes -= old_size;
    mb__took(ctx, size);
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

bool mb__reserve(mb_context *ctx, void **array, uint32_t *capacity, uint64_t need, size_t item)
{
    if (need <= *capacity)
        return true;
    uint64_t next = *capacity + *capacity / 2 + 64;
    if (next < need)
        next = need;
    if (next > UINT32_MAX || next * item > PTRDIFF_MAX) {
        mb__error(ctx, MB_NO_MEMORY, "out of memory: the tape cannot hold %llu entries",
                  (unsigned long long)need);
        return false;
    }
    void *p = mb__realloc(ctx, *array, (size_t)*capacity * item, (size_t)next * item);
    if (!p)
        return false;
    *array = p;
    *capacity = (uint32_t)next;
    return true;
}
