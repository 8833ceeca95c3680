/* SPDX-License-Identifier: MIT
 * handles.c - queries of tensors, and the checks of operands that every function begins with. */
#include <stdio.h>

#include "tensor/internal.h"

bool mb__alive(const mb_context *ctx, mb_tensor t)
{
    if (t.id == 0 || t.id >= ctx->node_count)
        return false;
    const mb__node *n = &ctx->nodes[t.id];
    if (n->scope == t.scope)
        return !n->dead;
    /* Given out by mb_keep: the handle is of the scope around the node's, which has not ended yet. */
    for (uint32_t i = ctx->scope_count; n->kept && i-- > 1;)
        if (ctx->scopes[i].serial == n->scope)
            return ctx->scopes[i - 1].serial == t.scope;
    return false;
}

static const mb__node *peek(mb_tensor t)
{
    if (!t.ctx || !mb__ours(t.ctx) || !mb__alive(t.ctx, t))
        return NULL;
    return &t.ctx->nodes[t.id];
}

bool mb_valid(mb_tensor t)
{
    return peek(t) != NULL;
}

mb_shape mb_shape_of(mb_tensor t)
{
    mb_shape s = {0, {0}};
    const mb__node *n = peek(t);
    if (n) {
        s.rank = n->rank;
        memcpy(s.dim, n->dim, (size_t)n->rank * sizeof *s.dim);
    }
    return s;
}

int64_t mb_dim(mb_tensor t, int axis)
{
    const mb__node *n = peek(t);
    if (!n)
        return 0;
    if (axis < 0)
        axis += n->rank;
    return axis >= 0 && axis < n->rank ? n->dim[axis] : 0;
}

int64_t mb_count(mb_tensor t)
{
    const mb__node *n = peek(t);
    return n ? mb__numel(n->dim, n->rank) : 0;
}

mb_dtype mb_dtype_of(mb_tensor t)
{
    const mb__node *n = peek(t);
    return n ? (mb_dtype)n->dtype : MB_FLOAT32;
}

const char *mb__shape_text(char *out, size_t size, const int64_t *dim, int rank)
{
    size_t n = 0;
    out[0] = 0;
    for (int i = 0; i < rank && n < size; i++)
        n += (size_t)snprintf(out + n, size - n, "%s%lld", i ? "," : "[", (long long)dim[i]);
    if (n < size)
        snprintf(out + n, size - n, rank ? "]" : "[]");
    return out;
}

const char *mb__tensor_text(char *out, size_t size, mb_tensor t)
{
    const mb__node *n = peek(t);
    if (!n) {
        snprintf(out, size, "no tensor");
        return out;
    }
    char shape[128];
    snprintf(out, size, "%s %s (%s)", mb__shape_text(shape, sizeof shape, n->dim, n->rank),
             mb_dtype_name((mb_dtype)n->dtype), n->site ? n->site : "?");
    return out;
}

bool mb__enter_context(const char *op, mb_context *ctx)
{
    (void)op;
    return ctx && mb__right_thread(ctx, NULL) && ctx->status == MB_OK;
}

static void report_stale(mb_context *ctx, const char *op, int i, mb_tensor t)
{
    const mb__node *n = t.id < ctx->node_count ? &ctx->nodes[t.id] : NULL;
    if (n && (n->home || n->mapped) && n->scope == t.scope) {
        char text[128];
        mb__error(
            ctx, MB_STALE,
            "%s: operand %d, %s %s (%s), is of the inside of a %s that has ended; %s brings a result out", op,
            i + 1, mb__shape_text(text, sizeof text, n->dim, n->rank), mb_dtype_name((mb_dtype)n->dtype),
            n->site ? n->site : "?", n->mapped ? "vmap" : "scan",
            n->mapped ? "mb_vmap_out" : "mb_scan_stack or mb_scan_carry");
        return;
    }
    const char *ended = NULL;
    for (int e = 0; e < MB_ENDED_SCOPES; e++)
        if (ctx->ended[e].serial == t.scope)
            ended = ctx->ended[e].site;
    mb__error(ctx, MB_STALE,
              "%s: operand %d is stale: its scope ended at %s; mb_keep or mb_detach moves a result out", op,
              i + 1, ended ? ended : "an earlier place");
}

mb_context *mb__operands_context(const mb_tensor *const *ts, int n)
{
    for (int i = 0; i < n; i++)
        if (ts[i]->ctx)
            return ts[i]->ctx;
    return NULL;
}

mb_context *mb__enter(const char *op, const mb_tensor *const *ts, int n, mb_tensor *poison)
{
    mb_context *ctx = mb__operands_context(ts, n);
    *poison = (mb_tensor){ctx, 0, 0};
    if (!ctx || !mb__right_thread(ctx, NULL) || ctx->status != MB_OK)
        return NULL;
    for (int i = 0; i < n; i++) {
        mb_tensor t = *ts[i];
        if (!t.ctx) {
            mb__error(ctx, MB_INVALID, "%s: operand %d is not a tensor", op, i + 1);
            return NULL;
        }
        if (t.ctx != ctx) {
            mb__error(ctx, MB_INVALID, "%s: operand %d belongs to another context", op, i + 1);
            return NULL;
        }
        if (t.id == 0) { /* poison from before the error was cleared */
            mb__error(ctx, MB_INVALID, "%s: operand %d is the result of an op that failed", op, i + 1);
            return NULL;
        }
        if (!mb__alive(ctx, t) || ctx->nodes[t.id].home) {
            report_stale(ctx, op, i, t);
            return NULL;
        }
    }
    return ctx;
}
