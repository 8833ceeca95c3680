/* SPDX-License-Identifier: MIT
 * piece.c - what a piece of the tape would take if it were run, for derivatives that can be made in two ways.
 */
#include "backends/engine/state.h"
#include "backends/plan/hash.h"

/* A plan of its own, that nobody is told of and that is not kept. */
static mb_status weigh_piece(mb_context *ctx, const mb__segment *s, mb__load *load)
{
    mb__engine_state *st = ctx->engine_state;
    mb__cached c = {.pool = {.host = &st->host}};
    struct mb__dump *dump = st->dump;
    st->dump = NULL;
    st->busy = true;
    mb_status status = mb__make_plan(ctx, s, st->backend, mb__passes_for(st, st->backend), &c);
    st->busy = false;
    st->dump = dump;
    if (status == MB_OK)
        *load = (mb__load){mb__arena_bytes(&c.plan), c.plan.flops};
    mb__bump_free(&c.pool);
    return status;
}

uint64_t mb__weigh_nodes(mb_context *ctx, const uint32_t *given, int n, const uint32_t *targets, int m,
                         mb__load *load)
{
    mb__engine_state *st = ctx->engine_state;
    mb__segment *s = &st->segment;
    if (ctx->status != MB_OK || st->opened != MB_OK ||
        !mb__reserve(ctx, (void **)&st->targets, &st->target_capacity, (uint64_t)m, sizeof *st->targets))
        return 0;
    if (m)
        memcpy(st->targets, targets, (size_t)m * sizeof *targets);
    if (!mb__segment_beyond(ctx, s, given, n, (uint32_t)m))
        return 0;
    mb_status status = load ? weigh_piece(ctx, s, load) : MB_OK;
    if (status == MB_NO_MEMORY && mb__reclaim(ctx))
        status = weigh_piece(ctx, s, load);
    if (status == MB_NO_MEMORY && ctx->status == MB_OK)
        mb__error(ctx, status, "out of memory for a plan of %u nodes", s->count);
    if (status != MB_OK)
        return 0;
    uint64_t hash = mb__hash(s->key, s->key_bytes);
    return hash ? hash : 1;
}
