/* SPDX-License-Identifier: MIT
 * cache.c - plans by structure: looked up by the hash of a key, compared byte by byte, made when missing,
 * evicted when old. */

#include "backends/plan/hash.h"
#include "backends/plan/clock.h"
#include "backends/engine/state.h"
#include "backends/plan/dump.h"
#include "backends/plan/slices.h"

static void unlink_use(mb__engine_state *st, mb__cached *c)
{
    *(c->newer ? &c->newer->older : &st->newest) = c->older;
    *(c->older ? &c->older->newer : &st->oldest) = c->newer;
}

static void link_newest(mb__engine_state *st, mb__cached *c)
{
    c->newer = NULL;
    c->older = st->newest;
    *(st->newest ? &st->newest->newer : &st->oldest) = c;
    st->newest = c;
}

static void drop(mb_context *ctx, mb__cached *c)
{
    mb__engine_state *st = ctx->engine_state;
    mb__cached **slot = &st->buckets[c->hash % MB_BUCKETS];
    while (*slot != c)
        slot = &(*slot)->next_in_bucket;
    *slot = c->next_in_bucket;
    unlink_use(st, c);
    st->cache_bytes -= c->bytes;
    st->compiled_bytes -= c->compiled;
    st->stats.plans_cached--;
    if (c->program)
        st->backend->discard(st->backend_state, c->program);
    mb__bump pool = c->pool;
    mb__bump_free(&pool);
    mb__free(ctx, c, sizeof *c);
}

void mb__cache_clear(mb_context *ctx)
{
    mb__engine_state *st = ctx->engine_state;
    while (st->newest)
        drop(ctx, st->newest);
}

static bool plan_graph(mb_context *ctx, mb__graph *g, const mb__gloop *loop, const mb__backend *backend,
                       unsigned passes, mb__bump *pool, mb__plan *plan);

/* The bodies of a graph's loops. */
static bool plan_bodies(mb_context *ctx, mb__graph *g, const mb__backend *backend, unsigned passes,
                        mb__bump *pool)
{
    for (int i = 0; i < g->loop_count; i++) {
        mb__gloop *l = &g->loops[i];
        if (!(l->plan = mb__bump_get(pool, sizeof *l->plan)) ||
            !plan_graph(ctx, &l->body, l, backend, passes, pool, l->plan))
            return false;
    }
    return true;
}

/* Products that add to carries of the loop whose body g is, if that is one. */
static bool join_sums(mb__graph *g, const mb__gloop *loop, const mb__backend *backend, unsigned passes)
{
    return !loop || !backend->adds || !(passes & MB_PASS_INPLACE) || mb__join_sums(g, loop->carries) == MB_OK;
}

/* From a graph to a plan of its own, bodies of loops first. loop: whose body it is itself; NULL. */
static bool plan_graph(mb_context *ctx, mb__graph *g, const mb__gloop *loop, const mb__backend *backend,
                       unsigned passes, mb__bump *pool, mb__plan *plan)
{
    mb__fusion f;
    const mb__making m = {backend, g, &f, plan, !loop ? NULL : loop->site ? loop->site : "?"};
    plan->node_count = g->count;
    return plan_bodies(ctx, g, backend, passes, pool) && mb__dump_stage(ctx, MB_STAGE_TAPE, &m) &&
           mb__expand(g, passes) == MB_OK && mb__simplify(g, passes) == MB_OK &&
           join_sums(g, loop, backend, passes) && mb__layout(g) == MB_OK &&
           mb__dump_stage(ctx, MB_STAGE_GRAPH, &m) && mb__fuse(g, passes, &f) == MB_OK &&
           (loop || mb__reschedule(g, &f) == MB_OK) && mb__dump_stage(ctx, MB_STAGE_GROUPS, &m) &&
           mb__lower(g, &f, backend, passes, pool, plan) == MB_OK &&
           mb__dump_stage(ctx, MB_STAGE_STEPS, &m) &&
           mb__place_values(plan, backend, passes, g->bump) == MB_OK &&
           mb__dump_stage(ctx, MB_STAGE_ARENA, &m) && mb__dump_stage(ctx, MB_STAGE_KERNELS, &m);
}

unsigned mb__passes_for(const mb__engine_state *st, const mb__backend *backend)
{
    unsigned fusing = MB_PASS_SIMPLIFY | MB_PASS_MERGE | MB_PASS_FUSE | MB_PASS_SINK;
    return backend->fuses ? st->passes : st->passes & ~fusing;
}

/* *parts: 0, or of so many slices of the batch at least, if it can; what it is of then. False: no memory, or
 * the context has an error. */
static bool plan_segment(mb_context *ctx, const mb__segment *s, const mb__backend *backend, unsigned passes,
                         int64_t *parts, mb__cached *c)
{
    mb__engine_state *st = ctx->engine_state;
    mb__bump scratch = {.host = &st->host};
    mb__graph g = {.bump = &scratch};
    bool loops = backend->loops && passes & MB_PASS_LOOPS, sliced = *parts > 0;
    bool ok = mb__segment_graph(ctx, s, &g) == MB_OK && (!sliced || mb__slice(&g, *parts, parts) == MB_OK);
    if (ok && (!sliced || *parts > 0))
        ok = mb__nest(&g) == MB_OK && (loops || mb__unroll(&g) == MB_OK) &&
             plan_graph(ctx, &g, NULL, backend, passes, &c->pool, &c->plan);
    c->plan.node_count = (int)s->count;
    c->plan.slices = *parts;
    mb__bump_free(&scratch);
    return ok;
}

/* Whether a plan in slices, which nobody asked for, is faster than a whole one: its steps, those of loops as
 * often as they run, are large enough on average that a slice's products are as fast as the batch's. A scan
 * over thousands of tokens has many small ones. *ok: false: no memory. */
static bool is_worth_it(mb__engine_state *st, const mb__backend *backend, const mb__plan *plan, bool *ok)
{
    const uint64_t enough = 4000000; /* flops of products: 20 to 40 us */
    mb__bump scratch = {.host = &st->host};
    mb__weight weight = {0};
    *ok = mb__weigh(plan, backend, &scratch, &weight) == MB_OK;
    mb__bump_free(&scratch);
    return *ok && (uint64_t)plan->flops / enough >= weight.steps;
}

enum sliced { NO_MEMORY, NO_LESS, TOO_MANY, LESS };

/* A plan of *parts slices or a few more, in the place of *c where it is LESS memory. */
static enum sliced try_slices(mb_context *ctx, const mb__segment *s, const mb__backend *backend,
                              unsigned passes, int64_t *parts, mb__cached *c)
{
    mb__engine_state *st = ctx->engine_state;
    mb__cached other = {.pool = {.host = &st->host}};
    bool ok = plan_segment(ctx, s, backend, passes, parts, &other);
    enum sliced found = ok ? NO_LESS : NO_MEMORY;
    if (ok && *parts > 0 && (other.plan.arena_bytes < c->plan.arena_bytes || st->arena_goal == 1)) {
        bool worth = st->arena_asked || is_worth_it(st, backend, &other.plan, &ok);
        found = !ok ? NO_MEMORY : worth ? LESS : TOO_MANY;
    }
    mb__bump unused = found == LESS ? c->pool : other.pool;
    mb__bump_free(&unused);
    if (found == LESS) {
        c->pool = other.pool;
        c->plan = other.plan;
    }
    return found;
}

/* Plans of more and more slices, while they take more than they should and less than the one before; where
 * nobody asked for them, of half as many until they are worth it. A byte is a goal for tests: as many slices
 * as there can be, whatever they take. False: no memory. */
static bool slice_plan(mb_context *ctx, const mb__segment *s, const mb__backend *backend, unsigned passes,
                       mb__cached *c)
{
    const int64_t goal = ((mb__engine_state *)ctx->engine_state)->arena_goal;
    int64_t parts = goal == 1 ? INT64_MAX : c->plan.arena_bytes / goal + 1;
    enum sliced found = LESS;
    for (; found == LESS && c->plan.arena_bytes > goal; parts++) {
        found = try_slices(ctx, s, backend, passes, &parts, c);
        if (goal == 1)
            break;
    }
    for (int64_t fewer = parts / 2; found == TOO_MANY && fewer > 1; fewer /= 2) {
        parts = fewer;
        found = try_slices(ctx, s, backend, passes, &parts, c);
    }
    return found != NO_MEMORY;
}

mb_status mb__make_plan(mb_context *ctx, const mb__segment *s, const mb__backend *backend, unsigned passes,
                        mb__cached *c)
{
    const mb__engine_state *st = ctx->engine_state;
    int64_t whole = 0;
    bool ok = plan_segment(ctx, s, backend, passes, &whole, c);
    bool goal = st->arena_asked || (backend->fuses && !backend->foresee); /* its memory is the host's */
    if (ok && goal && backend->loops && passes & MB_PASS_SLICES && passes & MB_PASS_LOOPS)
        ok = slice_plan(ctx, s, backend, passes, c);
    return ok ? MB_OK : ctx->status != MB_OK ? ctx->status : MB_NO_MEMORY;
}

static void forget(mb_context *ctx, mb__cached *c)
{
    mb__engine_state *st = ctx->engine_state;
    if (c->program)
        st->backend->discard(st->backend_state, c->program);
    mb__bump pool = c->pool;
    mb__bump_free(&pool);
    mb__free(ctx, c, sizeof *c);
}

/* The plan of a segment and its program. */
static mb_status make(mb_context *ctx, const mb__segment *s, uint64_t hash, mb__cached **made)
{
    mb__engine_state *st = ctx->engine_state;
    mb__cached *c = mb__try_alloc(ctx, sizeof *c);
    if (!c)
        return MB_NO_MEMORY;
    *c = (mb__cached){.hash = hash, .key_bytes = s->key_bytes, .pool = {.host = &st->host}};
    size_t bytes = 0;
    st->busy = true;
    mb_status status = mb__make_plan(ctx, s, st->backend, mb__passes_for(st, st->backend), c);
    if (status == MB_OK && !(c->key = mb__bump_get(&c->pool, s->key_bytes)))
        status = MB_NO_MEMORY;
    if (status == MB_OK)
        status = st->backend->compile(st->backend_state, &c->plan, &c->program, &bytes);
    st->busy = false;
    if (status == MB_OK) /* MB_DUMP could not write a listing */
        status = ctx->status;
    if (status != MB_OK) {
        forget(ctx, c);
        return status;
    }
    memcpy(c->key, s->key, s->key_bytes);
    c->bytes = c->pool.total + bytes + sizeof *c;
    c->compiled = bytes;
    *made = c;
    return MB_OK;
}

/* A training step and its test are some plans, used in turn: to compile them again each time would cost more
 * than what they hold. */
static bool is_too_much(const mb__engine_state *st)
{
    enum { FEW = 8 };
    return !(st->passes & MB_PASS_CACHE) || st->cache_bytes - st->compiled_bytes > st->cache_limit ||
           (st->cache_bytes > st->cache_limit && st->stats.plans_cached > FEW);
}

mb_status mb__plan_for(mb_context *ctx, const mb__segment *s, mb__cached **found)
{
    mb__engine_state *st = ctx->engine_state;
    uint64_t hash = mb__hash(s->key, s->key_bytes);
    mb__cached **bucket = &st->buckets[hash % MB_BUCKETS];
    for (mb__cached *c = *bucket; c; c = c->next_in_bucket)
        if (c->hash == hash && c->key_bytes == s->key_bytes && !memcmp(c->key, s->key, s->key_bytes)) {
            st->stats.plan_hits++;
            unlink_use(st, c);
            link_newest(st, c);
            *found = c;
            return MB_OK;
        }
    double start = mb__now();
    mb__cached *c = NULL;
    mb_status status = make(ctx, s, hash, &c);
    if (status != MB_OK)
        return status;
    c->next_in_bucket = *bucket;
    *bucket = c;
    link_newest(st, c);
    st->cache_bytes += c->bytes;
    st->compiled_bytes += c->compiled;
    st->stats.plans++;
    st->stats.plans_cached++;
    st->stats.plan_seconds += mb__now() - start;
    while (st->oldest != c && is_too_much(st))
        drop(ctx, st->oldest);
    *found = c;
    return MB_OK;
}
