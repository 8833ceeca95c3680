/* SPDX-License-Identifier: MIT
 * debug.c - MB_DEBUG: runs one op at a time, to find the first value that the oracle contradicts, or that
 * made a result not finite. What a `where` leaves out is no fault: only that counts which is passed on, from
 * value to value, to what was asked for. */
#include <math.h>

#include "backends/engine/state.h"

enum { INFINITIES = 1, NANS = 2, ODD = INFINITIES | NANS, ASKED = 4, GIVEN = 8 };

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

/* The nodes that are computed, ascending, and what each has: INFINITIES, NANS; ASKED: it is a result, or one
 * is not finite by it; GIVEN: it had its value. */
typedef struct walk {
    uint32_t *nodes;
    unsigned char *odd;
    uint32_t count;
} walk;

/* The place of a node among them, or their count. */
static uint32_t place_of(const walk *w, uint32_t id)
{
    uint32_t low = 0, high = w->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (w->nodes[middle] < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < w->count && w->nodes[low] == id ? low : w->count;
}

/* Marks those operands of node i that have any of `wanted`. -> what all have */
static int follow(mb_context *ctx, mb__engine_state *st, const walk *w, uint32_t i, int wanted)
{
    const mb__node *n = mb__at(ctx, w->nodes[i]);
    int given = 0;
    for (int j = 0; j < mb__value_operands(n); j++) {
        uint32_t id = mb__in(ctx, n, j), at = place_of(w, id);
        int odd = at < w->count ? w->odd[at] & ODD : odd_values(ctx, st, mb__at(ctx, id));
        given |= odd;
        if (odd & wanted && at < w->count)
            w->odd[at] |= ASKED;
    }
    return given;
}

/* Whether it is the first of its kind: finite operands gave an infinity, or operands without NaN a NaN. The
 * bodies of loops have been checked by themselves. */
static bool is_source(mb_context *ctx, const mb__node *n, int odd, int given)
{
    bool may = n->op != MB_OP_CONST && n->op != MB_OP_SCALAR && n->op != MB_OP_SCAN &&
               n->op != MB_OP_RESULT && !is_of_nothing(ctx, n);
    return may && (odd & NANS ? !(given & NANS) : !given);
}

/* An error at the first source of what is not finite in a result. A NaN that is compared, sorted or cast to
 * an integer is one, too: it would be seen no more. */
static void tell_odd_result(mb_context *ctx, mb__engine_state *st, const walk *w)
{
    uint32_t first = w->count;
    int had = 0;
    for (uint32_t i = w->count; i-- > 0;) {
        const mb__node *n = mb__at(ctx, w->nodes[i]);
        int odd = w->odd[i] & ODD;
        if (!mb__is_float(n->dtype) && n->op != MB_OP_SCAN)
            follow(ctx, st, w, i, NANS);
        else if (w->odd[i] & ASKED && odd) {
            int given = follow(ctx, st, w, i, ODD);
            if (!(w->odd[i] & GIVEN) && is_source(ctx, n, odd, given)) {
                first = i;
                had = given;
            }
        }
    }
    if (ctx->status != MB_OK || first == w->count)
        return;
    const mb__node *n = mb__at(ctx, w->nodes[first]);
    char text[128], name[128];
    mb__error_at(ctx, MB_INVALID, n->site, "%s: the first %s appears here, in a result of shape %s, from %s",
                 mb__node_text(name, sizeof name, n), w->odd[first] & NANS ? "NaN" : "infinity",
                 mb__shape_text(text, sizeof text, n->dim, n->rank),
                 had ? "operands with infinities" : "finite operands");
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
    if (mb__compute(ctx, st, 1) == MB_OK && indices_fit(ctx, st, &ctx->nodes[id]))
        mb__oracle_agrees(ctx, id);
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

/* Node i, unless it has its value or, inside of a loop, no one value; and what is not finite of it. */
static void compute_and_look(mb_context *ctx, mb__engine_state *st, const walk *w, uint32_t i)
{
    const mb__node *n = &ctx->nodes[w->nodes[i]];
    if (n->home || n->op == MB_OP_BODY)
        return;
    if (n->op == MB_OP_SCAN) {
        compute_results(ctx, st, w->nodes + i, w->count - i, w->nodes[i]);
        w->odd[i] |= ODD; /* what it is given may be in any result */
    } else if (n->value) {
        w->odd[i] |= GIVEN;
    } else {
        compute_one(ctx, st, w->nodes[i]);
    }
    if (ctx->status == MB_OK)
        w->odd[i] |= (unsigned char)odd_values(ctx, st, &ctx->nodes[w->nodes[i]]);
}

mb_status mb__compute_checked(mb_context *ctx, mb__engine_state *st, uint32_t targets)
{
    if (!mb__segment_of(ctx, &st->segment, targets))
        return ctx->status;
    MB_TEMPORARY(ctx);
    size_t room = (size_t)st->segment.count + 1;
    walk w = {.nodes = mb__temporary(ctx, room * sizeof *w.nodes), .count = st->segment.count};
    w.odd = w.nodes ? mb__temporary(ctx, room) : NULL;
    if (!w.odd)
        return ctx->status;
    memcpy(w.nodes, st->segment.nodes, w.count * sizeof *w.nodes);
    for (uint32_t i = 0; i < targets; i++) {
        uint32_t at = place_of(&w, st->targets[i]);
        if (at < w.count)
            w.odd[at] = ASKED;
    }
    mb__rewritten rewritten;
    mb__compare_rewritten(ctx, &st->segment, &rewritten);
    for (uint32_t i = 0; i < w.count && ctx->status == MB_OK; i++)
        compute_and_look(ctx, st, &w, i);
    if (ctx->status == MB_OK)
        tell_odd_result(ctx, st, &w);
    if (ctx->status == MB_OK && rewritten.node)
        tell_rewritten(ctx, &rewritten);
    return ctx->status;
}
