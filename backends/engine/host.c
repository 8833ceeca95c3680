/* SPDX-License-Identifier: MIT
 * host.c - the functions of the engine that the planner and backends call. */
#include <stdarg.h>
#include <stdio.h>

#include "backends/engine/state.h"

static void *host_alloc(void *user, size_t bytes)
{
    return mb__try_alloc(user, bytes);
}

static void host_free(void *user, void *memory, size_t bytes)
{
    mb__free(user, memory, bytes);
}

static mb_status host_error(void *user, mb_status status, const char *site, const char *format, ...)
{
    mb_context *ctx = user;
    char text[sizeof ctx->message];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return mb__error_at(ctx, status, site ? site : ctx->site, "%s", text);
}

static void host_log(void *user, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    mb__log(user, "%s", line);
}

mb_status mb__told(mb_context *ctx, mb_status status)
{
    return status == MB_NO_MEMORY ? mb__error(ctx, status, "out of memory in the backend") : status;
}

mb__host mb__host_of(mb_context *ctx)
{
    mb__engine_state *st = ctx->engine_state;
    return (mb__host){.user = ctx,
                      .alloc = host_alloc,
                      .free = host_free,
                      .error = host_error,
                      .log = host_log,
                      .timed = st->profile ? mb__profile_add : NULL,
                      .listing = mb__dump_wants_listings(ctx) ? mb__dump_listing : NULL,
                      .counters = &st->counters,
                      .ops = mb__ops};
}
