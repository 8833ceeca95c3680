/* SPDX-License-Identifier: MIT
 * cache.c - plans by structure: looked up by key, confirmed byte by byte, made when missing, dropped when
 * old. */
#include <time.h>

#include "backends/engine/state.h"

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

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
    st->stats.plans_cached--;
    if (c->program)
        st->backend->discard(ctx, st->backend_state, c->program);
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

bool mb__make_plan(mb_context *ctx, uint32_t count, mb__cached *c)
{
    mb__engine_state *st = ctx->engine_state;
    mb__bump scratch = {.ctx = ctx};
    mb__graph g = {.bump = &scratch};
    mb__fusion f;
    unsigned passes = st->passes;
    if (!st->backend->fuses)
        passes &= ~(unsigned)(MB_PASS_SIMPLIFY | MB_PASS_MERGE | MB_PASS_FUSE | MB_PASS_SINK);
    bool ok = mb__segment_graph(ctx, count, &g) && mb__simplify(&g, passes) == MB_OK &&
              mb__layout(&g) == MB_OK && mb__fuse(&g, passes, &f) == MB_OK &&
              mb__lower(&g, &f, st->backend, passes, &c->pool, &c->plan) == MB_OK &&
              mb__place(&c->plan, st->backend, passes, &scratch) == MB_OK;
    c->plan.node_count = (int)count;
    mb__bump_free(&scratch);
    if (!ok)
        return false;
    size_t bytes = 0;
    c->program = st->backend->compile(ctx, st->backend_state, &c->plan, &bytes);
    c->bytes = c->pool.total + bytes + sizeof *c;
    return c->program != NULL;
}

mb__cached *mb__plan_for(mb_context *ctx, uint32_t count, uint64_t hash)
{
    mb__engine_state *st = ctx->engine_state;
    mb__cached **bucket = &st->buckets[hash % MB_BUCKETS];
    for (mb__cached *c = *bucket; c; c = c->next_in_bucket)
        if (c->hash == hash && c->key_bytes == st->key_bytes && !memcmp(c->key, st->key, st->key_bytes)) {
            st->stats.plan_hits++;
            unlink_use(st, c);
            link_newest(st, c);
            return c;
        }
    double start = now();
    mb__cached *c = mb__alloc(ctx, sizeof *c);
    if (!c)
        return NULL;
    c->hash = hash;
    c->pool.ctx = ctx;
    c->key_bytes = st->key_bytes;
    c->key = mb__bump_get(&c->pool, st->key_bytes);
    if (c->key)
        memcpy(c->key, st->key, st->key_bytes);
    if (!c->key || !mb__make_plan(ctx, count, c)) {
        mb__bump pool = c->pool;
        mb__bump_free(&pool);
        mb__free(ctx, c, sizeof *c);
        return NULL;
    }
    c->next_in_bucket = *bucket;
    *bucket = c;
    link_newest(st, c);
    st->cache_bytes += c->bytes;
    st->stats.plans++;
    st->stats.plans_cached++;
    st->stats.plan_seconds += now() - start;
    while (st->oldest != c && (st->cache_bytes > st->cache_limit || !(st->passes & MB_PASS_CACHE)))
        drop(ctx, st->oldest);
    return c;
}
