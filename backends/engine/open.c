/* SPDX-License-Identifier: MIT
 * open.c - contexts: choosing a backend by name, options and environment. */
#include <stdio.h>
#include <stdlib.h>

#include "backends/engine/state.h"

/* Best first. */
static const mb__backend *const registry[] = {
    &mb__backend_cpu,
    &mb__backend_reference,
#ifdef MB_HAVE_VULKAN
    &mb__backend_vulkan,
#endif
};

const char *mb_backend_at(int i)
{
    return i >= 0 && i < (int)(sizeof registry / sizeof *registry) ? registry[i]->name : NULL;
}

int mb_devices(mb_device *devices, int room, const char **why)
{
    static const char *const notes[] = {"OpenBLAS and SIMD loops", "plain loops in double precision"};
    const char *reason = NULL;
    int count = 0;
    for (; count < 2; count++)
        if (count < room) {
            mb_device *d = &devices[count];
            *d = (mb_device){.float64 = true};
            snprintf(d->backend, sizeof d->backend, "%s", registry[count]->name);
            snprintf(d->name, sizeof d->name, "%s", notes[count]);
            snprintf(d->kind, sizeof d->kind, "processor");
        }
#ifdef MB_HAVE_VULKAN
    count += mb__vk_list(devices + (count < room ? count : room), count < room ? room - count : 0, &reason);
#else
    reason = "this library was built without vulkan: volk.h or glslangValidator was missing";
#endif
    if (why)
        *why = reason;
    return count;
}

static unsigned passes_without(mb_context *ctx, const char *list)
{
    static const struct {
        const char *name;
        unsigned pass;
    } names[] = {{"simplify", MB_PASS_SIMPLIFY}, {"merge", MB_PASS_MERGE}, {"dead", MB_PASS_DEAD},
                 {"fuse", MB_PASS_FUSE},         {"sink", MB_PASS_SINK},   {"inplace", MB_PASS_INPLACE},
                 {"reuse", MB_PASS_REUSE},       {"cache", MB_PASS_CACHE}};
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
                      "simplify,merge,dead,fuse,sink,inplace,reuse,cache",
                      (int)n, list);
        list += n + (list[n] == ',');
    }
    return passes;
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
    ctx->engine = &mb__the_engine;
    ctx->engine_state = st;
    st->cache_limit = o.plan_cache_bytes ? o.plan_cache_bytes : (size_t)256 << 20;
    st->log = o.log;
    st->log_user = o.log_user;
    mb__profile_start(ctx);
    const char *disable = o.disable ? o.disable : getenv("MB_DISABLE"), *debug = getenv("MB_DEBUG");
    st->passes = passes_without(ctx, disable);
    const char *guard = getenv("MB_VULKAN_GUARD");
    if (guard && *guard && strcmp(guard, "0") != 0)
        st->passes = (st->passes & ~(unsigned)(MB_PASS_REUSE | MB_PASS_INPLACE)) | MB_PASS_GUARD;
    st->debug = debug && *debug && strcmp(debug, "0") != 0;
    const char *name = o.backend && *o.backend ? o.backend : getenv("MB_BACKEND");
    if (!name || !*name)
        name = registry[0]->name;
    size_t n = strcspn(name, ":");
    for (size_t i = 0; i < sizeof registry / sizeof *registry && !st->backend; i++)
        if (strlen(registry[i]->name) == n && !strncmp(registry[i]->name, name, n))
            st->backend = registry[i];
    if (!st->backend) {
        mb__error(ctx, MB_BACKEND, "open: there is no backend \"%s\"; wanted cpu, reference or vulkan%s",
                  name,
#ifdef MB_HAVE_VULKAN
                  "");
#else
                  n == 6 && !strncmp(name, "vulkan", 6)
                      ? ", and this library was built without vulkan: volk.h or glslangValidator was missing"
                      : "");
#endif
        st->backend = &mb__backend_reference; /* so that memory can still be managed until the close */
        name = "";
    }
    const char *device = name[0] && name[n] == ':' ? name + n + 1 : NULL, *threads = getenv("MB_THREADS");
    int count = o.threads > 0 ? o.threads : threads ? atoi(threads) : 0;
    st->backend->open(ctx, device, count, st->passes, &st->backend_state);
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
    if (!pthread_equal(ctx->thread, pthread_self())) {
        mb__right_thread(ctx, "mb_close");
        return MB_THREAD;
    }
    mb_status status = mb_error(ctx);
    mb__context_free(ctx);
    return status;
}

const char *mb_backend_name(const mb_context *ctx)
{
    const mb__engine_state *st = ctx ? ctx->engine_state : NULL;
    return st ? st->backend->name : "";
}

mb_stats mb_get_stats(const mb_context *ctx)
{
    mb_stats s = {0};
    if (!ctx || !ctx->engine_state)
        return s;
    const mb__engine_state *st = ctx->engine_state;
    s = st->stats;
    s.plan_bytes = st->cache_bytes + st->arena_bytes;
    s.nodes = ctx->node_count - 1;
    s.recorded = ctx->recorded;
    s.allocations = ctx->allocations;
    s.bytes = ctx->bytes;
    s.peak_bytes = ctx->peak_bytes;
    return s;
}
