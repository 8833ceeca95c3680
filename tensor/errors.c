/* SPDX-License-Identifier: MIT
 * errors.c - the sticky error, its sentence, and questions about handles. */
#include <stdarg.h>
#include <stdio.h>

#include "tensor/tape.h"

const mb__op_info mb__ops[MB_OP_COUNT] = {
#define T_(types)                                       #types[0]
#define MB_UNARY(NAME, name, types, expr, lo, hi, doc)  {#name, MB_CLASS_UNARY, T_(types), (lo) == (hi), 0},
#define MB_BINARY(NAME, name, types, expr, lo, hi, doc) {#name, MB_CLASS_BINARY, T_(types), (lo) == (hi), 0},
#define MB_COMPARE(NAME, name, types, expr, doc)        {#name, MB_CLASS_COMPARE, T_(types), true, 0},
#define MB_STRUCT(NAME, name, linear, doc)              {#name, MB_CLASS_STRUCT, 0, false, linear},
#include "tensor/ops.def"
};

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

/* The sentence begins with the name of what reports it: that of the function which the user called instead.
 */
static void name_call(char *sentence, size_t room, const char *call)
{
    size_t name = strspn(sentence, "abcdefghijklmnopqrstuvwxyz_0123456789"), wanted = strlen(call);
    size_t rest = strlen(sentence + name);
    if (!name || sentence[name] != ':' || wanted + rest >= room)
        return;
    memmove(sentence + wanted, sentence + name, rest + 1);
    memcpy(sentence, call, wanted);
}

mb_status mb__error(mb_context *ctx, mb_status status, const char *where, const char *format, ...)
{
    bool first = ctx && ctx->status == MB_OK;
    va_list args;
    va_start(args, format);
    status = verror(ctx, status, where, format, args);
    va_end(args);
    if (first && ctx->call) {
        where = ctx->place ? ctx->place : where;
        size_t at = where ? strlen(where) + 2 : 0; /* "train.c:41: " */
        if (at < sizeof ctx->message)
            name_call(ctx->message + at, sizeof ctx->message - at, ctx->call);
    }
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
static void collect_foreign(mb_context *ctx)
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
        collect_foreign((mb_context *)ctx);
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

/* ---- handles ---- */

const char *mb_dtype_name(mb_dtype dtype)
{
    static const char *const names[] = {"float32", "float64", "int32", "bool"};
    return (unsigned)dtype < 4 ? names[dtype] : "unknown dtype";
}

size_t mb_dtype_size(mb_dtype dtype)
{
    static const size_t sizes[] = {4, 8, 4, 1};
    return (unsigned)dtype < 4 ? sizes[dtype] : 0;
}

bool mb__alive(const mb_context *ctx, mb_tensor t)
{
    if (t.id == 0 || t.id >= ctx->node_count)
        return false;
    const mb__node *n = &ctx->nodes[t.id];
    if (n->scope == t.scope)
        return !n->dead;
    /* mb_keep gave out a handle of the scope around the node's, which is not yet over. */
    for (uint32_t i = ctx->scope_count; n->kept && i-- > 1;)
        if (ctx->scopes[i].serial == n->scope)
            return ctx->scopes[i - 1].serial == t.scope;
    return false;
}

static const mb__node *peek(mb_tensor t)
{
    if (!t.ctx || !pthread_equal(t.ctx->thread, pthread_self()) || !mb__alive(t.ctx, t))
        return NULL;
    return &t.ctx->nodes[t.id];
}

bool mb_valid(mb_tensor t)
{
    return peek(t) != NULL;
}

mb_shape mb_shape_of(mb_tensor t)
{
    mb_shape s = {0, {0}};
    const mb__node *n = peek(t);
    if (n) {
        s.rank = n->rank;
        memcpy(s.dim, n->dim, (size_t)n->rank * sizeof *s.dim);
    }
    return s;
}

int64_t mb_dim(mb_tensor t, int axis)
{
    const mb__node *n = peek(t);
    if (!n)
        return 0;
    if (axis < 0)
        axis += n->rank;
    return axis >= 0 && axis < n->rank ? n->dim[axis] : 0;
}

int64_t mb_count(mb_tensor t)
{
    const mb__node *n = peek(t);
    return n ? mb__numel(n->dim, n->rank) : 0;
}

mb_dtype mb_dtype_of(mb_tensor t)
{
    const mb__node *n = peek(t);
    return n ? (mb_dtype)n->dtype : MB_FLOAT32;
}

const char *mb__shape_text(char *out, size_t size, const int64_t *dim, int rank)
{
    size_t n = 0;
    out[0] = 0;
    for (int i = 0; i < rank && n < size; i++)
        n += (size_t)snprintf(out + n, size - n, "%s%lld", i ? "," : "[", (long long)dim[i]);
    if (n < size)
        snprintf(out + n, size - n, rank ? "]" : "[]");
    return out;
}

const char *mb__tensor_text(char *out, size_t size, mb_tensor t)
{
    const mb__node *n = peek(t);
    if (!n) {
        snprintf(out, size, "no tensor");
        return out;
    }
    char shape[128];
    snprintf(out, size, "%s %s (%s)", mb__shape_text(shape, sizeof shape, n->dim, n->rank),
             mb_dtype_name((mb_dtype)n->dtype), n->where ? n->where : "?");
    return out;
}

const char *mb__node_text(char *out, size_t size, const mb__node *n)
{
    const char *op = mb__ops[n->op].name;
    if (!n->call)
        snprintf(out, size, "%s", op);
    else if (n->op == MB_OP_CONTRACT)
        snprintf(out, size, "%s", n->call);
    else
        snprintf(out, size, "%s (%s)", n->call, op);
    return out;
}

/* ---- checks at the door ---- */

static bool right_thread(mb_context *ctx, const char *where)
{
    if (pthread_equal(ctx->thread, pthread_self())) {
        if (atomic_load_explicit(&ctx->foreign, memory_order_relaxed))
            collect_foreign(ctx);
        return true;
    }
    const char *none = NULL;
    atomic_compare_exchange_strong(&ctx->foreign, &none, where);
    return false;
}

bool mb__enter_context(const char *where, const char *op, mb_context *ctx)
{
    (void)op;
    return ctx && right_thread(ctx, where) && ctx->status == MB_OK;
}

static void report_stale(mb_context *ctx, const char *where, const char *op, int i, mb_tensor t)
{
    const char *ended = NULL;
    for (int e = 0; e < MB_ENDED_SCOPES; e++)
        if (ctx->ended[e].serial == t.scope)
            ended = ctx->ended[e].where;
    mb__error(ctx, MB_STALE, where,
              "%s: operand %d is stale: its scope ended at %s; mb_keep or mb_detach moves a result out", op,
              i + 1, ended ? ended : "an earlier place");
}

mb_context *mb__enter(const char *where, const char *op, const mb_tensor *const *ts, int n, mb_tensor *poison)
{
    mb_context *ctx = NULL;
    for (int i = 0; i < n && !ctx; i++)
        ctx = ts[i]->ctx;
    *poison = (mb_tensor){ctx, 0, 0};
    if (!ctx || !right_thread(ctx, where) || ctx->status != MB_OK)
        return NULL;
    for (int i = 0; i < n; i++) {
        mb_tensor t = *ts[i];
        if (!t.ctx) {
            mb__error(ctx, MB_INVALID, where, "%s: operand %d is not a tensor", op, i + 1);
            return NULL;
        }
        if (t.ctx != ctx) {
            mb__error(ctx, MB_INVALID, where, "%s: operand %d belongs to another context", op, i + 1);
            return NULL;
        }
        if (t.id == 0) /* poison made before the error was cleared */
        {
            mb__error(ctx, MB_INVALID, where, "%s: operand %d is the result of an op that failed", op, i + 1);
            return NULL;
        }
        if (!mb__alive(ctx, t)) {
            report_stale(ctx, where, op, i, t);
            return NULL;
        }
    }
    return ctx;
}
