/* SPDX-License-Identifier: MIT
 * open.c - contexts: choosing a backend by name, options and environment. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "backends/engine/state.h"

const char *mb_backend_at(int i)
{
    const mb__backend *b = mb__backend_number(i);
    return b ? b->name : NULL;
}

int mb_devices(mb_device *devices, int capacity, const char **why)
{
    const char *reason = mb__backends_left_out;
    int count = 0;
    if (!devices || capacity < 0)
        capacity = 0;
    const mb__backend *b;
    for (int i = 0; (b = mb__backend_number(i)); i++)
        count += b->list(count < capacity ? devices + count : NULL, count < capacity ? capacity - count : 0,
                         &reason);
    if (why)
        *why = reason;
    return count;
}

/* ---- what the environment says ---- */

static bool is_on(mb_context *ctx, const char *variable)
{
    const char *value = getenv(variable);
    if (value && *value && strcmp(value, "0") != 0 && strcmp(value, "1") != 0)
        mb__error(ctx, MB_INVALID, "open: %s is \"%.40s\"; wanted 0 or 1", variable, value);
    return value && !strcmp(value, "1");
}

/* $MB_THREADS; 0: not set. */
static int threads_wanted(mb_context *ctx)
{
    const char *text = getenv("MB_THREADS");
    if (!text || !*text)
        return 0;
    char *end;
    long n = strtol(text, &end, 10);
    if (*end || n < 1 || n > 1024) {
        mb__error(ctx, MB_INVALID, "open: MB_THREADS is \"%.40s\"; wanted a number from 1 to 1024", text);
        return 0;
    }
    return (int)n;
}

/* $MB_ARENA_BYTES; 0: not set. */
static size_t arena_wanted(mb_context *ctx)
{
    const char *text = getenv("MB_ARENA_BYTES");
    if (!text || !*text)
        return 0;
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (*end || errno || *text < '0' || *text > '9' || n > SIZE_MAX / 2) {
        mb__error(ctx, MB_INVALID, "open: MB_ARENA_BYTES is \"%.40s\"; wanted a number of bytes", text);
        return 0;
    }
    return (size_t)n;
}

static unsigned passes_without(mb_context *ctx, const char *list)
{
    static const struct {
        const char *name;
        unsigned pass;
    } names[] = {{"simplify", MB_PASS_SIMPLIFY}, {"merge", MB_PASS_MERGE},  {"dead", MB_PASS_DEAD},
                 {"fuse", MB_PASS_FUSE},         {"sink", MB_PASS_SINK},    {"inplace", MB_PASS_INPLACE},
                 {"reuse", MB_PASS_REUSE},       {"cache", MB_PASS_CACHE},  {"loops", MB_PASS_LOOPS},
                 {"chain", MB_PASS_CHAIN},       {"slices", MB_PASS_SLICES}};
    unsigned passes = MB_PASS_ALL;
    while (list && *list) {
        size_t n = strcspn(list, ","), i = 0;
        for (; i < sizeof names / sizeof *names; i++)
            if (strlen(names[i].name) == n && !strncmp(names[i].name, list, n)) {
                passes &= ~names[i].pass;
                break;
            }
        if (n && i == sizeof names / sizeof *names)
            mb__error(ctx, MB_INVALID,
                      "open: there is no pass \"%.*s\" to disable; wanted some of "
                      "simplify,merge,dead,fuse,sink,inplace,reuse,cache,loops,chain,slices",
                      (int)n, list);
        list += n + (list[n] == ',');
    }
    return passes;
}

/* ---- opening ---- */

/* There is no backend of that name. */
static void unknown(mb_context *ctx, const char *name)
{
    char known[160];
    size_t length = 0;
    const mb__backend *b;
    for (int i = 0; (b = mb__backend_number(i)) && length < sizeof known; i++)
        length += (size_t)snprintf(known + length, sizeof known - length, "%s%s", i ? ", " : "", b->name);
    const char *path = getenv("MB_BACKEND_PATH"), *left_out = mb__backends_left_out;
    mb__error(ctx, MB_BACKEND, "open: there is no backend \"%.40s\"; wanted one of %s%s%s%s%.200s%s", name,
              known, left_out ? "; " : "", left_out ? left_out : "",
              path && *path ? ", or a file moebius-NAME.so in MB_BACKEND_PATH (" : "", path ? path : "",
              path && *path ? ")" : "");
}

/* The backend named before the colon. NULL: error set. */
static const mb__backend *backend_named(mb_context *ctx, const char *name)
{
    size_t n = strcspn(name, ":");
    const mb__backend *b = mb__backend_called(name, n);
    if (b && b->version != MB_BACKEND_VERSION) {
        mb__error(ctx, MB_BACKEND,
                  "open: the backend %s was made for version %d of the interface, and this is %d", b->name,
                  b->version, MB_BACKEND_VERSION);
        return NULL;
    }
    if (!b)
        b = mb__backend_load(ctx, name, n);
    if (!b && mb_error(ctx) == MB_OK)
        unknown(ctx, name);
    return b;
}

/* Beyond it, slices of the batch take less time than the whole: their values stay in caches, and the first
 * step waits for fewer new pages. Of any machine, so that all of them add up in the same order. */
enum { ARENA_BYTES = 300 << 20 };

/* Reads the options and opens the backend; errors are set in the context. */
static void open_engine(mb_context *ctx, mb__engine_state *st, const mb_options *o)
{
    st->cache_limit = o->plan_cache_bytes ? o->plan_cache_bytes : (size_t)256 << 20;
    size_t arena_bytes = o->arena_bytes ? o->arena_bytes : arena_wanted(ctx);
    st->arena_asked = arena_bytes > 0;
    st->arena_goal = !arena_bytes                ? ARENA_BYTES
                     : arena_bytes > PTRDIFF_MAX ? INT64_MAX
                                                 : (int64_t)arena_bytes;
    st->log = o->log ? o->log : is_on(ctx, "MB_LOG") ? mb__log_to_stderr : NULL;
    st->log_user = o->log_user;
    mb__profile_start(ctx);
    mb__dump_start(ctx);
    st->host = mb__host_of(ctx);
    st->passes = passes_without(ctx, o->disable ? o->disable : getenv("MB_DISABLE"));
    st->debug = is_on(ctx, "MB_DEBUG");
    mb__open_options open = {.threads = o->threads > 0 ? o->threads : threads_wanted(ctx),
                             .guard = is_on(ctx, "MB_GUARD"),
                             .plain = !(st->passes & MB_PASS_CHAIN)};
    if (open.guard)
        st->passes = (st->passes & ~(unsigned)(MB_PASS_REUSE | MB_PASS_INPLACE)) | MB_PASS_GUARD;
    const char *name = o->backend && *o->backend ? o->backend : getenv("MB_BACKEND");
    if (!name || !*name)
        name = mb__backends[0]->name;
    st->backend = backend_named(ctx, name);
    if (!st->backend)
        return;
    open.device = name[strcspn(name, ":")] ? name + strcspn(name, ":") + 1 : NULL;
    if (mb__told(ctx, st->backend->open(&st->host, &open, &st->backend_state, &st->limits)) != MB_OK)
        st->backend_state = NULL;
}

mb_context *mb_open_with(const mb_options *given)
{
    mb_options o = {0};
    if (given)
        memcpy(&o, given, given->size && given->size < sizeof o ? given->size : sizeof o);
    mb_context *ctx = mb__context_new(o.allocator);
    if (!ctx)
        return NULL;
    mb__engine_state *st = mb__alloc(ctx, sizeof *st);
    if (!st) {
        mb__context_free(ctx);
        return NULL;
    }
    ctx->engine_state = st;
    ctx->engine = &mb__the_engine;
    open_engine(ctx, st, &o);
    st->opened = mb_error(ctx);
    return ctx;
}

mb_context *mb_open(const char *backend)
{
    return mb_open_with(&(mb_options){.backend = backend});
}

mb_status mb_close(mb_context *ctx)
{
    if (!ctx)
        return MB_OK;
    if (!mb__right_thread(ctx, "mb_close"))
        return MB_THREAD;
    mb_status status = mb_error(ctx);
    mb__context_free(ctx);
    return status;
}

const char *mb_backend_name(const mb_context *ctx)
{
    const mb__engine_state *st =
        ctx && mb__right_thread((mb_context *)ctx, "mb_backend_name") ? ctx->engine_state : NULL;
    return st && st->backend ? st->backend->name : "";
}

mb_stats mb_get_stats(const mb_context *ctx)
{
    mb_stats s = {0};
    if (!ctx || !mb__right_thread((mb_context *)ctx, "mb_get_stats") || !ctx->engine_state)
        return s;
    const mb__engine_state *st = ctx->engine_state;
    s = st->stats;
    s.pipelines = st->counters.pipelines;
    s.descriptor_writes = st->counters.descriptor_writes;
    s.device_allocations = st->counters.device_allocations;
    s.device_bytes = st->counters.device_bytes;
    s.recordings = st->counters.recordings;
    s.submits = st->counters.submits;
    s.last_dispatches = st->counters.last_dispatches;
    s.last_barriers = st->counters.last_barriers;
    s.plan_bytes = st->cache_bytes + st->arena_bytes;
    s.nodes = ctx->node_count - 1;
    s.recorded = ctx->recorded;
    s.allocations = ctx->allocations;
    s.bytes = ctx->bytes;
    s.peak_bytes = ctx->peak_bytes;
    return s;
}
