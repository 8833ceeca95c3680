/* SPDX-License-Identifier: MIT
 * errors.c - the sticky error and its sentence. */
#include <stdarg.h>
#include <stdio.h>
#include <xxhash.h>

#include "tensor/internal.h"

static mb_status verror(mb_context *ctx, mb_status status, const char *site, const char *format, va_list args)
{
    if (!ctx || ctx->status != MB_OK)
        return ctx ? ctx->status : status;
    ctx->status = status;
    int n = site ? snprintf(ctx->message, sizeof ctx->message, "%s: ", site) : 0;
    if (n >= 0 && (size_t)n < sizeof ctx->message)
        vsnprintf(ctx->message + n, sizeof ctx->message - (size_t)n, format, args);
    return status;
}

mb_status mb__error(mb_context *ctx, mb_status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    status = verror(ctx, status, ctx ? ctx->site : NULL, format, args);
    va_end(args);
    return status;
}

mb_status mb__error_at(mb_context *ctx, mb_status status, const char *site, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    status = verror(ctx, status, site, format, args);
    va_end(args);
    return status;
}

mb_status mb_fail_at(const char *site, mb_context *ctx, mb_status status, const char *format, ...)
{
    MB_SITE(ctx, site);
    va_list args;
    va_start(args, format);
    status = verror(ctx, status == MB_OK ? MB_INVALID : status, ctx ? ctx->site : NULL, format, args);
    va_end(args);
    return status;
}

/* A call that another thread made is told to the owner here, when it next asks. */
void mb__collect_foreign(mb_context *ctx)
{
    const char *site = atomic_exchange(&ctx->foreign, NULL);
    if (site)
        mb__error_at(ctx, MB_THREAD, site,
                     "a context belongs to the thread that opened it, and this call came from another");
}

bool mb__right_thread(mb_context *ctx, const char *site)
{
    if (pthread_equal(ctx->thread, pthread_self())) {
        if (atomic_load_explicit(&ctx->foreign, memory_order_relaxed))
            mb__collect_foreign(ctx);
        return true;
    }
    const char *none = NULL;
    if (site)
        atomic_compare_exchange_strong(&ctx->foreign, &none, site);
    return false;
}

mb_status mb_error(const mb_context *ctx)
{
    if (!ctx)
        return MB_NO_MEMORY;
    if (!pthread_equal(ctx->thread, pthread_self()))
        return MB_THREAD;
    if (atomic_load(&ctx->foreign))
        mb__collect_foreign((mb_context *)ctx);
    return ctx->status;
}

const char *mb_message(const mb_context *ctx)
{
    if (!ctx)
        return "no context: out of memory";
    mb_status status = mb_error(ctx);
    return status == MB_OK ? ""
           : status == MB_THREAD && ctx->status != MB_THREAD
               ? "a context belongs to the thread that opened it"
               : ctx->message;
}

void mb_clear_error(mb_context *ctx)
{
    if (!ctx)
        return;
    atomic_store(&ctx->foreign, NULL);
    ctx->status = MB_OK;
    ctx->message[0] = 0;
}

const char *mb_status_name(mb_status status)
{
    static const char *const names[] = {
        "ok",  "invalid argument", "stale handle", "out of memory",     "backend failure",
        "i/o", "malformed file",   "wrong thread", "no derivative rule"};
    return (unsigned)status < sizeof names / sizeof *names ? names[status] : "unknown status";
}

const char *mb_version(void)
{
    return MB_VERSION_TEXT;
}

mb_site mb_site_begin(mb_context *ctx, const char *site)
{
    if (!ctx || !mb__right_thread(ctx, site))
        return (mb_site){NULL, NULL};
    mb_site s = {ctx, ctx->site};
    if (!ctx->site)
        ctx->site = site ? site : "(no site)";
    return s;
}

void mb_site_end(const mb_site *site)
{
    if (site->ctx)
        site->ctx->site = site->outer;
}

/* ---- interned sites: open addressing, half of the room stays free ---- */

static bool grow_sites(mb_context *ctx)
{
    uint32_t room = ctx->site_room ? 2 * ctx->site_room : 64;
    char **sites = mb__alloc(ctx, room * sizeof *sites);
    if (!sites)
        return false;
    for (uint32_t i = 0; i < ctx->site_room; i++) {
        if (!ctx->sites[i])
            continue;
        uint64_t h = XXH3_64bits(ctx->sites[i], strlen(ctx->sites[i]));
        while (sites[h % room])
            h++;
        sites[h % room] = ctx->sites[i];
    }
    mb__free(ctx, ctx->sites, ctx->site_room * sizeof *sites);
    ctx->sites = sites;
    ctx->site_room = room;
    return true;
}

const char *mb_intern_site(mb_context *ctx, const char *site)
{
    if (!ctx || !site || !mb__right_thread(ctx, "mb_intern_site") ||
        (2 * ctx->site_count >= ctx->site_room && !grow_sites(ctx)))
        return NULL;
    size_t length = strlen(site);
    uint64_t h = XXH3_64bits(site, length);
    for (; ctx->sites[h % ctx->site_room]; h++)
        if (!strcmp(ctx->sites[h % ctx->site_room], site))
            return ctx->sites[h % ctx->site_room];
    char *copy = mb__alloc(ctx, length + 1);
    if (!copy)
        return NULL;
    ctx->sites[h % ctx->site_room] = memcpy(copy, site, length + 1);
    ctx->site_count++;
    return copy;
}
