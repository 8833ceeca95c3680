/* SPDX-License-Identifier: MIT
 * buffers.c - memory for a value; if there is none, what is kept for speed is freed. */
#include "backends/engine/state.h"

bool mb__reclaim(mb_context *ctx)
{
    mb__engine_state *st = ctx->engine_state;
    if (st->busy || !(st->newest || st->pool_bytes || st->arena))
        return false;
    mb__cache_clear(ctx);
    mb__pool_clear(ctx);
    if (st->arena)
        st->backend->memory_free(st->backend_state, st->arena, st->arena_bytes);
    st->arena = NULL;
    st->arena_bytes = 0;
    return true;
}

static mb__buffer *buffer_of(mb_context *ctx, const char *site, const char *op, mb_dtype dtype,
                             const int64_t *dim, int rank, int64_t count)
{
    mb__engine_state *st = ctx->engine_state;
    if (st->opened != MB_OK || !st->backend_state) {
        mb__error_at(ctx, st->opened != MB_OK ? st->opened : MB_BACKEND, site,
                     "%s: this context's backend could not be opened; close it and open another", op);
        return NULL;
    }
    size_t bytes = (size_t)count * st->backend->element_size(dtype);
    char shape[128] = "";
    if (rank >= 0)
        mb__shape_text(shape, sizeof shape, dim, rank);
    if (st->limits.buffer_bytes && bytes > st->limits.buffer_bytes) {
        mb__error_at(ctx, MB_BACKEND, site,
                     "%s: a value %s of %zu bytes; the %s backend's device takes at most %llu in one value",
                     op, shape, bytes, st->backend->name, (unsigned long long)st->limits.buffer_bytes);
        return NULL;
    }
    mb__buffer *b = NULL;
    mb_status status = mb__pool_get(ctx, bytes, &b);
    if (status == MB_NO_MEMORY && mb__reclaim(ctx))
        status = mb__pool_get(ctx, bytes, &b);
    if (status == MB_NO_MEMORY)
        mb__error_at(ctx, MB_NO_MEMORY, site, "%s: out of memory: %zu bytes wanted for a value %s", op, bytes,
                     shape);
    return b;
}

mb__buffer *mb__buffer_new(mb_context *ctx, mb_dtype dtype, int64_t count)
{
    return buffer_of(ctx, ctx->site, "buffer", dtype, &count, 1, count);
}

mb__buffer *mb__buffer_for(mb_context *ctx, const mb__node *n)
{
    return buffer_of(ctx, n->site, mb__ops[n->op].name, (mb_dtype)n->dtype, n->dim, n->rank,
                     mb__numel(n->dim, n->rank));
}
