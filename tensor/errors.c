/* SPDX-License-Identifier: MIT
 * errors.c - the sticky error and its sentence. */
#include <stdarg.h>
#include <stdio.h>

#include "tensor/internal.h"

static mb_status verror(mb_context *ctx, mb_status status, const char *where, const char *format,
                        va_list args)
{
    if (!ctx || ctx->status != MB_OK)
        return ctx ? ctx->status : status;
    ctx->status = status;
    if (ctx->place)
        where = ctx->place;
    int n = where ? snprintf(ctx->message, sizeof ctx->message, "%s: ", where) : 0;
    if (n >= 0 && (size_t)n < sizeof ctx->message)
        vsnprintf(ctx->message + n, sizeof ctx->message - (size_t)n, format, args);
    return status;
}

mb_status mb__error(mb_context *ctx, mb_status status, const char *where, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    status = verror(ctx, status, where, format, args);
    va_end(args);
    return status;
}

mb_status mb_fail_at(const char *where, mb_context *ctx, mb_status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    status = verror(ctx, status == MB_OK ? MB_INVALID : status, where, format, args);
    va_end(args);
    return status;
}

/* A call that another thread made is told to the owner here, when it next asks. */
void mb__collect_foreign(mb_context *ctx)
{
    const char *where = atomic_exchange(&ctx->foreign, NULL);
    if (where)
        mb__error(ctx, MB_THREAD, where,
                  "a context belongs to the thread that opened it, and this call came from another");
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

const char *mb_place_begin(mb_context *ctx, const char *where)
{
    if (!ctx)
        return NULL;
    const char *previous = ctx->place;
    if (!previous)
        ctx->place = where;
    return previous;
}

void mb_place_end(mb_context *ctx, const char *previous)
{
    if (ctx)
        ctx->place = previous;
}
