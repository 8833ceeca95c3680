/* SPDX-License-Identifier: MIT
 * compute.c - flushes: where the engine is asked to compute values. */
#include <math.h>

#include "tensor/internal.h"

/* A flush that was refused ends watches, like one that failed. */
static mb_status refused(mb_context *ctx)
{
    mb__watches_end(ctx, 0, true);
    return ctx->status;
}

mb_status mb_eval_at(const char *site, const mb_tensor *ts, int n)
{
    mb_context *ctx = NULL;
    for (int i = 0; ts && i < n && !ctx; i++)
        ctx = ts[i].ctx;
    MB_DOOR(ctx, site, MB_THREAD);
    if (n == 0)
        return MB_OK;
    if (!ctx)
        return MB_INVALID;
    mb_tensor poison;
    bool ok = mb__reserve(ctx, (void **)&ctx->ids, &ctx->id_capacity, (uint64_t)n, sizeof *ctx->ids);
    uint32_t *ids = ctx->ids;
    for (int i = 0; ok && i < n; i++) {
        if (!ts[i].ctx || ts[i].ctx != ctx)
            mb__error(ctx, MB_INVALID, "eval: number %d of %d %s", i + 1, n,
                      ts[i].ctx ? "belongs to another context" : "is not a tensor");
        ok = ts[i].ctx == ctx && mb__enter("eval", (const mb_tensor *[]){&ts[i]}, 1, &poison) &&
             (ids[i] = mb__resolve(ctx, ts[i]));
    }
    return ok ? ctx->engine->flush(ctx, ids, n) : refused(ctx);
}

static mb_status read(mb_tensor t, void *dst, size_t bytes)
{
    mb_tensor poison;
    mb_context *ctx = mb__enter("read", (const mb_tensor *[]){&t}, 1, &poison);
    if (!ctx)
        return t.ctx->status;
    const mb__node *n = mb__at(ctx, t.id);
    int64_t count = mb__numel(n->dim, n->rank);
    if (bytes != (size_t)count * mb_dtype_size((mb_dtype)n->dtype) || (!dst && bytes)) {
        char a[256];
        return mb__error(ctx, MB_INVALID, "read: got room for %zu bytes; %s has %zu", dst ? bytes : 0,
                         mb__tensor_text(a, sizeof a, t), (size_t)count * mb_dtype_size((mb_dtype)n->dtype));
    }
    uint32_t id = mb__resolve(ctx, t);
    if (!id)
        return ctx->status;
    mb_status status = ctx->engine->flush(ctx, &id, 1);
    if (status != MB_OK)
        return status;
    n = mb__at(ctx, id);
    return ctx->engine->download(ctx, n->value, (mb_dtype)n->dtype, count, dst);
}

mb_status mb_read_at(const char *site, mb_tensor t, void *dst, size_t bytes)
{
    MB_SITE(t.ctx, site);
    mb_status status = !t.ctx ? MB_INVALID : mb__right_thread(t.ctx, NULL) ? read(t, dst, bytes) : MB_THREAD;
    if (status != MB_OK)
        mb__no_number(dst, bytes, (int)mb_dtype_of(t)); /* of the null tensor: float32 */
    if (status != MB_OK && status != MB_THREAD && t.ctx)
        refused(t.ctx);
    return status;
}

double mb_item_at(const char *site, mb_tensor t)
{
    MB_SITE(t.ctx, site);
    double bits = 0; /* as large as any dtype's value, and aligned for it */
    if (mb_valid(t) && mb_count(t) != 1) {
        char a[256];
        mb__error(t.ctx, MB_INVALID, "item: got %s; wanted a single element",
                  mb__tensor_text(a, sizeof a, t));
        refused(t.ctx);
        return (double)NAN;
    }
    mb_dtype dtype = mb_dtype_of(t);
    if (mb_read(t, &bits, mb_dtype_size(dtype)) != MB_OK)
        return (double)NAN;
    return mb__element_of(dtype, &bits, 0);
}

mb_status mb_watch_at(const char *site, mb_tensor t, void *dst, size_t bytes)
{
    MB_SITE(t.ctx, site);
    mb_tensor poison;
    mb_context *ctx = mb__enter("watch", (const mb_tensor *[]){&t}, 1, &poison);
    if (!ctx)
        return poison.ctx ? mb_error(poison.ctx) : MB_INVALID;
    const mb__node *n = mb__at(ctx, t.id);
    size_t want = (size_t)mb__numel(n->dim, n->rank) * mb_dtype_size((mb_dtype)n->dtype);
    if (bytes != want || (!dst && bytes)) {
        char a[256];
        return mb__error(ctx, MB_INVALID, "watch: got room for %zu bytes; %s has %zu", dst ? bytes : 0,
                         mb__tensor_text(a, sizeof a, t), want);
    }
    uint32_t id = mb__resolve(ctx, t);
    if (!id || !mb__reserve(ctx, (void **)&ctx->watches, &ctx->watch_capacity, (uint64_t)ctx->watch_count + 1,
                            sizeof *ctx->watches))
        return ctx->status;
    ctx->watches[ctx->watch_count++] = (mb__watch){id, ctx->scopes[ctx->scope_count - 1].serial, dst, bytes};
    return MB_OK;
}

mb_tensor mb_detach_at(const char *site, mb_tensor t)
{
    MB_SITE(t.ctx, site);
    if (mb_eval(&t, 1) != MB_OK)
        return mb__poison(t.ctx);
    mb_context *ctx = t.ctx;
    uint32_t id = mb__resolve(ctx, t);
    if (!id)
        return mb__poison(ctx);
    const mb__node *n = mb__at(ctx, id);
    int64_t dim[MB_MAX_RANK];
    memcpy(dim, n->dim, sizeof dim);
    mb__buffer *value = n->value;
    mb__scope_mark *scope = &ctx->scopes[ctx->scope_count - 1];
    mb_tensor leaf;
    if (ctx->scope_count > 1 && scope->spare_used < MB_SPARE_NODES) {
        uint32_t spare = scope->nodes - MB_SPARE_NODES + scope->spare_used++;
        mb__node *s = mb__at(ctx, spare);
        s->op = MB_OP_BUFFER;
        s->dtype = n->dtype;
        s->rank = n->rank;
        s->scope = ctx->scopes[ctx->scope_count - 2].serial;
        s->dead = false;
        s->site = ctx->site;
        memcpy(s->dim, dim, sizeof dim);
        leaf = mb__handle(ctx, spare);
    } else {
        leaf = mb__record(ctx, MB_OP_BUFFER, (mb_dtype)n->dtype, n->rank, dim, NULL, 0, NULL, 0);
    }
    if (!leaf.id)
        return leaf;
    mb__at(ctx, leaf.id)->value = value;
    value->refs++;
    return mb_keep(leaf);
}
