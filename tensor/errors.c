/* SPDX-License-Identifier: MIT
 * errors.c - a context's error and its message. */
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
    for (char *c = ctx->message; *c; c++) /* names and paths that it quotes may hold line breaks */
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    return status;
}

/* "softmax", of the function's name "mb_softmax_at"; "add", of "mb_add_right_at". */
static int call_name(const char *call, const char **name)
{
    static const char *const ends[] = {"_at", "_right", "_left"};
    *name = strncmp(call, "mb_", 3) ? call : call + 3;
    size_t length = strlen(*name);
    for (int i = 0; i < 3; i++) {
        size_t end = strlen(ends[i]);
        if (length > end && !strncmp(*name + length - end, ends[i], end))
            length -= end;
    }
    return (int)length;
}

/* A message begins with the name of the op that reports it, "exp: ...". Replaces that by the name of the
 * function that the user called, "softmax: ...". Names that begin with mb_ are such names already. */
static void name_call(char *sentence, size_t capacity, const char *call)
{
    size_t own = strspn(sentence, "abcdefghijklmnopqrstuvwxyz_0123456789"), rest = strlen(sentence + own);
    const char *name;
    size_t length = (size_t)call_name(call, &name);
    if (!own || sentence[own] != ':' || !strncmp(sentence, "mb_", 3) || length + rest >= capacity)
        return;
    memmove(sentence + length, sentence + own, rest + 1);
    memcpy(sentence, name, length);
}

mb_status mb__error(mb_context *ctx, mb_status status, const char *format, ...)
{
    bool first = ctx && ctx->status == MB_OK;
    va_list args;
    va_start(args, format);
    status = verror(ctx, status, ctx ? ctx->site : NULL, format, args);
    va_end(args);
    if (!first || !ctx->call)
        return status;
    size_t at = ctx->site ? strlen(ctx->site) + 2 : 0; /* "train.c:41: " */
    if (at < sizeof ctx->message)
        name_call(ctx->message + at, sizeof ctx->message - at, ctx->call);
    return status;
}

const char *mb__node_text(char *out, size_t size, const mb__node *n)
{
    const char *op = mb__ops[n->op].name, *name = op;
    int length = n->call ? call_name(n->call, &name) : (int)strlen(op);
    bool by_call = n->op == MB_OP_CONTRACT || n->op == MB_OP_MAP || n->op == MB_OP_CALL;
    if (by_call || (!strncmp(name, op, (size_t)length) && !op[length]))
        snprintf(out, size, "%.*s", length, name);
    else
        snprintf(out, size, "%.*s (%s)", length, name, op);
    return out;
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

/* Called by the owner: a refused call from another thread becomes the context's error. */
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

const char *mb_status_name(mb_status status)
{
    static const char *const names[] = {
        "ok",  "invalid argument", "stale handle", "out of memory",      "backend failure",
        "i/o", "malformed file",   "wrong thread", "no derivative rule", "wrong"};
    return (unsigned)status < sizeof names / sizeof *names ? names[status] : "unknown status";
}

const char *mb_version(void)
{
    return MB_VERSION_TEXT;
}
