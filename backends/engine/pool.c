/* SPDX-License-Identifier: MIT
 *
 * pool.c - values in the backend's memory, pooled by size, so that a repeated step allocates nothing.
 *
 * Used and unused buffers together hold little more than the recent peak of the used ones: beyond that,
 * buffers are freed, least recently used first. So a program whose sizes keep changing does not fill the
 * memory.
 */
#include "backends/engine/state.h"

enum { POOL_SLACK = 64 << 20 }; /* unused bytes that are always allowed */

/* Rounds up to a multiple of an eighth of a power of two: at most 12.5 % is wasted. *class: the size class.
 */
static size_t rounded(size_t bytes, int *class)
{
    size_t size = 256;
    int c = 0;
    while (size < bytes && c < MB_POOL_CLASSES - 1) {
        size *= 2;
        c++;
    }
    *class = c;
    if (size < bytes)
        return (bytes + 4095) & ~(size_t)4095;
    size_t step = size / 16;
    return step < 64 ? size : (bytes + step - 1) / step * step;
}

size_t mb__pool_rounded(size_t bytes)
{
    int class;
    return rounded(bytes, &class);
}

/* ---- the pool ---- */

uint32_t mb__pool_unused(const mb_context *ctx, size_t bytes)
{
    const mb__engine_state *st = ctx->engine_state;
    uint32_t count = 0;
    int class;
    rounded(bytes, &class);
    for (const mb__buffer *b = st->pool[class]; b; b = b->next)
        count += b->bytes == bytes;
    return count;
}

static void pool_unlink(mb__engine_state *st, mb__buffer *b, int class)
{
    *(b->prev ? &b->prev->next : &st->pool[class]) = b->next;
    if (b->next)
        b->next->prev = b->prev;
    *(b->older ? &b->older->newer : &st->released_first) = b->newer;
    *(b->newer ? &b->newer->older : &st->released_last) = b->older;
    b->next = b->prev = b->older = b->newer = NULL;
    st->pool_bytes -= b->bytes;
}

static mb__buffer *pool_take(mb__engine_state *st, size_t bytes, int class)
{
    mb__buffer *b = st->pool[class];
    while (b && b->bytes != bytes)
        b = b->next;
    if (b)
        pool_unlink(st, b, class);
    return b;
}

static void pool_put(mb__engine_state *st, mb__buffer *b)
{
    int class;
    rounded(b->bytes, &class);
    b->prev = NULL;
    b->next = st->pool[class];
    if (b->next)
        b->next->prev = b;
    st->pool[class] = b;
    b->newer = NULL;
    b->older = st->released_last;
    *(b->older ? &b->older->newer : &st->released_first) = b;
    st->released_last = b;
    st->pool_bytes += b->bytes;
}

static void discard(mb_context *ctx, mb__buffer *b)
{
    mb__engine_state *st = ctx->engine_state;
    st->backend->memory_free(st->backend_state, b->memory, b->bytes);
    mb__free(ctx, b, sizeof *b);
}

static void pool_trim(mb_context *ctx, size_t most)
{
    mb__engine_state *st = ctx->engine_state;
    while (st->pool_bytes > most) {
        mb__buffer *b = st->released_first;
        int class;
        rounded(b->bytes, &class);
        pool_unlink(st, b, class);
        discard(ctx, b);
    }
}

void mb__pool_clear(mb_context *ctx)
{
    pool_trim(ctx, 0);
}

mb_status mb__pool_get(mb_context *ctx, size_t bytes, mb__buffer **buffer)
{
    mb__engine_state *st = ctx->engine_state;
    int class;
    bytes = rounded(bytes, &class);
    mb__buffer *b = pool_take(st, bytes, class);
    if (!b) {
        void *memory;
        b = mb__try_alloc(ctx, sizeof *b);
        mb_status status = b ? st->backend->memory_new(st->backend_state, bytes, &memory) : MB_NO_MEMORY;
        if (status != MB_OK) {
            mb__free(ctx, b, sizeof *b);
            return status;
        }
        *b = (mb__buffer){.bytes = bytes, .memory = memory};
    }
    b->refs = 1;
    st->live_bytes += bytes;
    st->live_peak[0] = st->live_bytes > st->live_peak[0] ? st->live_bytes : st->live_peak[0];
    *buffer = b;
    return MB_OK;
}

void mb__buffer_release(mb_context *ctx, mb__buffer *b)
{
    mb__engine_state *st = ctx->engine_state;
    st->live_bytes -= b->bytes;
    pool_put(st, b);
    size_t peak = st->live_peak[st->live_peak[1] > st->live_peak[0]], most = peak + peak / 4 + POOL_SLACK;
    pool_trim(ctx, most > st->live_bytes ? most - st->live_bytes : 0);
}

void mb__pool_flushed(mb_context *ctx)
{
    enum { SPAN = 64 };
    mb__engine_state *st = ctx->engine_state;
    if (++st->flushes_of_peak < SPAN)
        return;
    st->flushes_of_peak = 0;
    st->live_peak[1] = st->live_peak[0];
    st->live_peak[0] = st->live_bytes;
}
