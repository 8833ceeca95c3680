/* SPDX-License-Identifier: MIT
 *
 * flush.c - the flush: from requested nodes to values.
 *
 * The nodes needed are marked, backwards from the requested ones to the nearest stored values; their
 * structure is the key of a plan, which is found or made; inputs, scalars and new memory for the results are
 * bound; the plan runs.
 */
#include "backends/engine/state.h"

static bool add_target(mb_context *ctx, mb__engine_state *st, uint32_t id, uint32_t *count)
{
    if (ctx->nodes[id].value)
        return true;
    if (!mb__reserve(ctx, (void **)&st->targets, &st->target_capacity, (uint64_t)*count + 1,
                     sizeof *st->targets))
        return false;
    st->targets[(*count)++] = id;
    return true;
}

/* The variable that was changed; NULL: the change is of a number. */
static mb__variable *variable_of(mb_context *ctx, uint32_t change)
{
    const mb__change *c = &ctx->changes[change];
    return c->number || c->variable == MB_NO_VARIABLE ? NULL : &ctx->variables[c->variable];
}

bool mb__targets_of(mb_context *ctx, const uint32_t *ids, int n, uint32_t *targets)
{
    mb__engine_state *st = ctx->engine_state;
    bool ok = true;
    *targets = 0;
    for (int i = 0; ok && i < n; i++)
        ok = add_target(ctx, st, ids[i], targets);
    for (uint32_t i = 0; ok && i < ctx->watch_count; i++)
        ok = add_target(ctx, st, ctx->watches[i].id, targets);
    for (uint32_t i = 0; ok && i < ctx->change_count; i++)
        ok = !variable_of(ctx, i) || add_target(ctx, st, variable_of(ctx, i)->pending, targets);
    return ok;
}

static void store_assignments(mb_context *ctx)
{
    for (uint32_t i = 0; i < ctx->change_count; i++) {
        mb__variable *v = variable_of(ctx, i);
        if (!v || !v->pending)
            continue;
        mb__node *n = &ctx->nodes[v->pending];
        mb__buffer *old = v->value;
        v->value = n->value;
        v->value->refs++;
        v->leaf = v->pending; /* until its scope ends, the variable stands for this node */
        v->leaf_scope = n->scope;
        v->pending = 0;
        mb__buffer_drop(ctx, old);
    }
    mb__changes_keep(ctx);
}

static mb_status deliver_watches(mb_context *ctx, mb__engine_state *st)
{
    for (uint32_t i = 0; i < ctx->watch_count; i++) {
        const mb__watch *w = &ctx->watches[i];
        const mb__node *n = &ctx->nodes[w->id];
        if (mb__told(ctx, st->backend->download(st->backend_state, n->value->memory, (mb_dtype)n->dtype,
                                                mb__numel(n->dim, n->rank), w->dst)) != MB_OK)
            return ctx->status;
    }
    return MB_OK;
}

/* A tape that grows from step to step is the typical leak of such programs: it is reported once, with the
 * scope that it grows in.
 */
static void watch_growth(mb_context *ctx, mb__engine_state *st)
{
    enum { MANY = 1000 };
    st->growths = ctx->node_count > st->tape_before ? st->growths + 1 : 0;
    st->tape_before = ctx->node_count;
    if (st->growths != MANY)
        return;
    const mb__scope_mark *scope = &ctx->scopes[ctx->scope_count - 1];
    mb__log(ctx,
            "the tape has grown at each of %d flushes, to %u nodes, in the scope begun at %s; a scope for "
            "each step would end that",
            MANY, ctx->node_count - 1, scope->site ? scope->site : "mb_open");
}

static mb_status compute(mb_context *ctx, const uint32_t *ids, int n)
{
    mb__engine_state *st = ctx->engine_state;
    if (st->opened != MB_OK)
        return mb__error(ctx, st->opened,
                         "flush: this context's backend could not be opened; close it and open another");
    watch_growth(ctx, st);
    uint32_t targets;
    if (!mb__targets_of(ctx, ids, n, &targets))
        return ctx->status;
    if (targets &&
        (st->debug ? mb__compute_checked(ctx, st, targets) : mb__compute(ctx, st, targets)) != MB_OK)
        return ctx->status;
    mb__pool_flushed(ctx);
    store_assignments(ctx);
    return deliver_watches(ctx, st);
}

/* A flush ends all watches, whether it succeeds or not. */
static mb_status flush(mb_context *ctx, const uint32_t *ids, int n)
{
    mb_status status = ctx->status == MB_OK ? compute(ctx, ids, n) : ctx->status;
    mb__watches_end(ctx, 0, status != MB_OK);
    return status;
}

static mb_status upload(mb_context *ctx, mb__buffer *to, mb_dtype dtype, int64_t count, const void *from)
{
    mb__engine_state *st = ctx->engine_state;
    return mb__told(ctx, st->backend->upload(st->backend_state, to->memory, dtype, count, from));
}

static mb_status download(mb_context *ctx, mb__buffer *from, mb_dtype dtype, int64_t count, void *to)
{
    mb__engine_state *st = ctx->engine_state;
    return mb__told(ctx, st->backend->download(st->backend_state, from->memory, dtype, count, to));
}

static void close_engine(mb_context *ctx)
{
    mb__engine_state *st = ctx->engine_state;
    if (!st)
        return;
    if (ctx->scope_count > 1)
        mb__log(ctx, "closed with %u open scopes, the innermost begun at %s", ctx->scope_count - 1,
                ctx->scopes[ctx->scope_count - 1].site);
    mb__profile_end(ctx);
    mb__dump_end(ctx);
    mb__reclaim(ctx);
    mb__oracle_close(st);
    if (st->backend_state)
        st->backend->close(st->backend_state);
    mb__segment_free(ctx, &st->segment);
    mb__segment_free(ctx, &st->single);
    mb__free(ctx, st->mark, st->mark_capacity * sizeof *st->mark);
    mb__free(ctx, st->dense, st->dense_capacity * sizeof *st->dense);
    mb__free(ctx, st->targets, st->target_capacity * sizeof *st->targets);
    mb__free(ctx, st->inputs, st->input_capacity * sizeof *st->inputs);
    mb__free(ctx, st->outputs, st->output_capacity * sizeof *st->outputs);
    mb__free(ctx, st->fresh, st->fresh_capacity * sizeof *st->fresh);
    mb__free(ctx, st, sizeof *st);
    ctx->engine_state = NULL;
    ctx->engine = NULL;
}

static void log_line(mb_context *ctx, const char *line)
{
    mb__log(ctx, "%s", line);
}

const mb__engine mb__the_engine = {
    .flush = flush,
    .buffer = mb__buffer_new,
    .release = mb__buffer_release,
    .upload = upload,
    .download = download,
    .weigh = mb__weigh_nodes,
    .reclaim = mb__reclaim,
    .close = close_engine,
    .log = log_line,
};
