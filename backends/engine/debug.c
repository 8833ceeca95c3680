/* SPDX-License-Identifier: MIT
 * debug.c - MB_DEBUG: runs one op at a time, to find the first value that is not finite, or that the oracle
 * contradicts. */
#include <math.h>

#include "backends/engine/state.h"

enum { INFINITIES = 1, NANS = 2 };

/* Which non-finite values a node has; error set if they cannot be read. */
static int odd_values(mb_context *ctx, mb__engine_state *st, const mb__node *n)
{
    if (!mb__is_float(n->dtype) || !n->value)
        return 0;
    int64_t count = mb__numel(n->dim, n->rank);
    size_t bytes = (size_t)count * mb_dtype_size((mb_dtype)n->dtype);
    void *host = mb__alloc(ctx, bytes);
    if (!host)
        return 0;
    int found = 0;
    if (mb__told(ctx, st->backend->download(st->backend_state, n->value->memory, (mb_dtype)n->dtype, count,
                                            host)) == MB_OK)
        for (int64_t i = 0; i < count && !(found & NANS); i++) {
            double x = mb__element_of((mb_dtype)n->dtype, host, i);
            found |= isnan(x) ? NANS : isinf(x) ? INFINITIES : 0;
        }
    mb__free(ctx, host, bytes);
    return found;
}

/* A maximum of no elements is the infinity below all. */
static bool is_of_nothing(mb_context *ctx, const mb__node *n)
{
    if (!mb__is_kind(n->op, MB_KIND_REDUCE))
        return false;
    const mb__node *x = mb__at(ctx, mb__in(ctx, n, 0));
    return mb__numel(x->dim, x->rank) == 0;
}

/* An error if finite operands gave an infinity, or operands without NaN a NaN. */
static bool no_odd_result(mb_context *ctx, mb__engine_state *st, const mb__node *n)
{
    int made = odd_values(ctx, st, n), given = 0;
    if (!made || n->op == MB_OP_CONST || n->op == MB_OP_SCALAR || is_of_nothing(ctx, n))
        return ctx->status == MB_OK;
    for (int j = 0; j < mb__value_operands(n); j++)
        given |= odd_values(ctx, st, &ctx->nodes[mb__in(ctx, n, j)]);
    char text[128], name[128];
    if (ctx->status == MB_OK && (made & NANS ? !(given & NANS) : !given))
        mb__error_at(ctx, MB_INVALID, n->site,
                     "%s: the first %s appears here, in a result of shape %s, from %s",
                     mb__node_text(name, sizeof name, n), made & NANS ? "NaN" : "infinity",
                     mb__shape_text(text, sizeof text, n->dim, n->rank),
                     given ? "operands with infinities" : "finite operands");
    return ctx->status == MB_OK;
}

/* Whether the indices of a take or a scatter_add lie within their axis; they are clamped otherwise. */
static bool indices_fit(mb_context *ctx, mb__engine_state *st, const mb__node *n)
{
    if (!n->value || (n->op != MB_OP_TAKE && n->op != MB_OP_SCATTER_ADD))
        return true;
    const mb__node *index = mb__at(ctx, mb__in(ctx, n, 1));
    const mb__node *axis = n->op == MB_OP_TAKE ? mb__at(ctx, mb__in(ctx, n, 0)) : n;
    int64_t size = axis->dim[mb__attrs(ctx, n)[0]], count = mb__numel(index->dim, index->rank), wrong = 0;
    size_t bytes = (size_t)(count + 1) * sizeof(int32_t);
    int32_t *at = index->value ? mb__alloc(ctx, bytes) : NULL;
    if (!at)
        return ctx->status == MB_OK;
    char name[128];
    if (st->backend->download(st->backend_state, index->value->memory, MB_INT32, count, at) == MB_OK) {
        while (wrong < count && at[wrong] >= 0 && at[wrong] < size)
            wrong++;
        if (wrong < count)
            mb__error_at(ctx, MB_INVALID, n->site, "%s: index %ld, at %lld of %lld, is outside of [0, %lld)",
                         mb__node_text(name, sizeof name, n), (long)at[wrong], (long long)wrong,
                         (long long)count, (long long)size);
    }
    mb__free(ctx, at, bytes);
    return ctx->status == MB_OK;
}

static mb_status compute_one(mb_context *ctx, mb__engine_state *st, uint32_t id)
{
    st->targets[0] = id;
    if (mb__compute(ctx, st, 1) == MB_OK && indices_fit(ctx, st, &ctx->nodes[id]) &&
        mb__oracle_agrees(ctx, id))
        no_odd_result(ctx, st, &ctx->nodes[id]);
    return ctx->status;
}

/* Those results of a scan that are among the nodes, from number i on, at once. */
static mb_status compute_results(mb_context *ctx, mb__engine_state *st, const uint32_t *nodes, uint32_t count,
                                 uint32_t scan)
{
    uint32_t targets = 0;
    if (mb__check_scan(ctx, st, scan, mb__compute_checked) != MB_OK ||
        !mb__reserve(ctx, (void **)&st->targets, &st->target_capacity, count, sizeof *st->targets))
        return ctx->status;
    for (uint32_t i = 0; i < count; i++)
        if (mb__at(ctx, nodes[i])->op == MB_OP_RESULT && mb__in(ctx, mb__at(ctx, nodes[i]), 0) == scan &&
            !mb__at(ctx, nodes[i])->value)
            st->targets[targets++] = nodes[i];
    return targets ? mb__compute(ctx, st, targets) : MB_OK;
}

static void tell_rewritten(mb_context *ctx, const mb__rewritten *r)
{
    const mb__node *n = mb__at(ctx, r->node);
    const mb__engine_state *st = ctx->engine_state;
    char text[128], name[128];
    mb__error_at(
        ctx, MB_BACKEND, n->site,
        "%s: simplified, the plan gives %.9g for element %lld of a result of shape %s, and as it was "
        "recorded %.9g; with MB_DISABLE=simplify,merge the %s backend is given the latter",
        mb__node_text(name, sizeof name, n), r->got, (long long)r->at,
        mb__shape_text(text, sizeof text, n->dim, n->rank), r->want, st->backend->name);
}

mb_status mb__compute_checked(mb_context *ctx, mb__engine_state *st, uint32_t targets)
{
    if (!mb__segment_of(ctx, &st->segment, targets))
        return ctx->status;
    uint32_t count = st->segment.count;
    uint32_t *nodes = mb__alloc(ctx, (size_t)(count + 1) * sizeof *nodes);
    if (!nodes)
        return ctx->status;
    memcpy(nodes, st->segment.nodes, count * sizeof *nodes);
    mb__rewritten rewritten;
    mb__compare_rewritten(ctx, &st->segment, &rewritten);
    for (uint32_t i = 0; i < count && ctx->status == MB_OK; i++) {
        const mb__node *n = &ctx->nodes[nodes[i]];
        if (n->value || n->home || n->op == MB_OP_BODY) /* what is inside has no one value */
            continue;
        if (n->op == MB_OP_SCAN)
            compute_results(ctx, st, nodes + i, count - i, nodes[i]);
        else
            compute_one(ctx, st, nodes[i]);
    }
    if (ctx->status == MB_OK && rewritten.node)
        tell_rewritten(ctx, &rewritten);
    mb__free(ctx, nodes, (size_t)(count + 1) * sizeof *nodes);
    return ctx->status;
}
