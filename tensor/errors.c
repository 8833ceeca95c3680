/* SPDX-License-Identifier: MIT
 * errors.c - the sticky error and its sentence. */
#include <stdarg.h>
#include <stdio.h>

#include "tensor/internal.h"

static mb_status verror(mb_context *ctx, mb_status status, const char *site, const char *format, va_list args)
{
    if (!ctx || ctx->status != MB_OK)
        return ctx ? ctx->status : status;
    ctx->status = status;
    int n = site ? snprintf(ctx->message, sizeof ctx->message, "%s: ", site) : 0;
    if (n >= 0 && (size_t)n < sizeof ctx->message)
        vsnprintf(ctx->message + n, sizeof ctx->message - (size_t)n, format ? format : "no message", args);
    for (char *c = ctx->message; *c; c++) /* one line, whatever names and paths it quotes */
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
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
    MB_DOOR(ctx, site, MB_THREAD);
    va_list args;
    va_start(args, format);
    status = verror(ctx, status == MB_OK ? MB_INVALID : status, ctx ? ctx->site : NULL, format, args);
    va_end(args);
    return status;
}

/* A call that another thread made is told to the owner here, when it next asks. */
void mb__collect_foreign(mb_context *ctx)
{
    const char *site = atomic_exchange_explicit(&ctx->foreign, NULL, memory_order_acquire);
    if (site)
        mb__error_at(ctx, MB_THREAD, site,
                     "a context belongs to the thread that opened it, and this call came from another");
}

bool mb__right_thread(mb_context *ctx, const char *site)
{
    if (mb__ours(ctx)) {
        if (atomic_load_explicit(&ctx->foreign, memory_order_relaxed))
            mb__collect_foreign(ctx);
        return true;
    }
    const char *none = NULL;
    if (site)
        atomic_compare_exchange_strong_explicit(&ctx->foreign, &none, site, memory_order_release,
                                                memory_order_relaxed);
    return false;
}

mb_status mb_error(const mb_context *ctx)
{
    if (!ctx)
        return MB_NO_MEMORY;
    if (!mb__ours(ctx))
        return MB_THREAD;
    if (atomic_load_explicit(&ctx->foreign, memory_order_relaxed))
        mb__collect_foreign((mb_context *)ctx);
    return ctx->status;
}

const char *mb_message(const mb_context *ctx)
{
    if (!ctx)
        return "no context: out of memory";
    if (!mb__ours(ctx))
        return pthread_equal(ctx->thread, pthread_self()) ? "a context belongs to the process that opened "
                                                            "it, and this one was forked from that: open "
                                                            "another here"
                                                          : "a context belongs to the thread that opened it";
    return mb_error(ctx) == MB_OK ? "" : ctx->message;
}

void mb_clear_error(mb_context *ctx)
{
    if (!ctx || !mb__right_thread(ctx, "mb_clear_error"))
        return;
    atomic_store(&ctx->foreign, NULL);
    mb__watches_end(ctx, 0, false); /* whoever asked for them has seen the error */
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
