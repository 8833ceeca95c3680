/* SPDX-License-Identifier: MIT
 * buffers.c - values in the backend's memory, pooled by size so that a step that repeats takes none from the
 * heap. */
#include "backends/engine/state.h"

/* Sizes grow by eighths of a power of two: at most 12.5 % is wasted. Class of the rounded size, or -1. */
static size_t rounded(size_t bytes, int *class)
{
    size_t size = 256;
    int c = 0;
    while (size < bytes && c < MB_POOL_CLASSES - 1) {
        size *= 2;
        c++;
    }
    if (size < bytes) {
        *class = MB_POOL_CLASSES - 1;
        return (bytes + 4095) & ~(size_t)4095;
    }
    *class = c;
    size_t step = size / 16;
    return step < 64 ? size : (bytes + step - 1) / step * step;
}

mb__buffer *mb__buffer_new(mb_context *ctx, mb_dtype dtype, int64_t count)
{
    mb__engine_state *st = ctx->engine_state;
    int class;
    size_t bytes = rounded((size_t)count * st->backend->element_size(dtype), &class);
    for (mb__buffer **p = &st->pool[class]; *p; p = &(*p)->next)
        if ((*p)->bytes == bytes) {
            mb__buffer *b = *p;
            *p = b->next;
            b->next = NULL;
            b->refs = 1;
            return b;
        }
    mb__buffer *b = mb__alloc(ctx, sizeof *b);
    if (!b)
        return NULL;
    b->refs = 1;
    b->bytes = bytes;
    b->memory = st->backend->memory_new(ctx, st->backend_state, bytes);
    if (!b->memory) {
        mb__free(ctx, b, sizeof *b);
        return NULL;
    }
    return b;
}

void mb__buffer_release(mb_context *ctx, mb__buffer *b)
{
    mb__engine_state *st = ctx->engine_state;
    int class;
    rounded(b->bytes, &class);
    b->next = st->pool[class];
    st->pool[class] = b;
}

void mb__pool_clear(mb_context *ctx)
{
    mb__engine_state *st = ctx->engine_state;
    for (int c = 0; c < MB_POOL_CLASSES; c++)
        while (st->pool[c]) {
            mb__buffer *b = st->pool[c];
            st->pool[c] = b->next;
            st->backend->memory_free(ctx, st->backend_state, b->memory, b->bytes);
            mb__free(ctx, b, sizeof *b);
        }
}
