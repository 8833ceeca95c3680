/* SPDX-License-Identifier: MIT
 * numbers.c - memory, random numbers, reading and writing values, and sentences of checks. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tests/kit/internal.h"
#include "tensor/internal.h"

/* ---- memory ---- */

typedef struct mb__block {
    struct mb__block *before;
    size_t bytes;
    _Alignas(16) char data[];
} mb__block_;

void *mb__block(mb__blocks *b, int64_t count, size_t item)
{
    if (count < 0 || (uint64_t)count > (PTRDIFF_MAX - sizeof(mb__block_)) / item - 1) {
        mb_fail_at(NULL, b->ctx, MB_NO_MEMORY, "out of memory: %lld numbers wanted", (long long)count);
        return NULL;
    }
    size_t bytes = sizeof(mb__block_) + ((size_t)count + 1) * item;
    mb__block_ *block = mb__alloc(b->ctx, bytes);
    if (!block)
        return NULL;
    block->before = b->last;
    block->bytes = bytes;
    b->last = block;
    return block->data;
}

void mb__blocks_free(mb__blocks *b)
{
    while (b->last) {
        mb__block_ *before = b->last->before;
        mb__free(b->ctx, b->last, b->last->bytes);
        b->last = before;
    }
}

/* ---- numbers ---- */

uint64_t mb__check_bits(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

double mb__check_between(uint64_t *state, double low, double high)
{
    return low + (high - low) * ((double)(mb__check_bits(state) >> 11) * 0x1p-53);
}

double *mb__check_draw(mb__blocks *b, uint64_t *state, mb_dtype dtype, int64_t count, double low, double high)
{
    double *x = mb__block(b, count, sizeof *x);
    for (int64_t i = 0; x && i < count; i++) {
        double v =
            dtype == MB_BOOL ? (double)(mb__check_bits(state) & 1) : mb__check_between(state, low, high);
        x[i] = dtype == MB_INT32 || dtype == MB_INT64 || dtype == MB_UINT8 ? floor(v) : v;
    }
    return x;
}

int64_t mb__check_count(mb_shape s)
{
    return mb__numel(s.dim, s.rank);
}

bool mb__equal_shapes(mb_shape a, mb_shape b)
{
    return a.rank == b.rank && !memcmp(a.dim, b.dim, (size_t)a.rank * sizeof *a.dim);
}

mb_tensor mb__check_tensor(mb__blocks *b, mb_dtype dtype, mb_shape shape, const double *x)
{
    int64_t count = mb__check_count(shape);
    size_t bytes = ((size_t)count + 1) * sizeof(double);
    void *raw = mb__alloc(b->ctx, bytes);
    for (int64_t i = 0; raw && i < count; i++)
        mb__element_set(dtype, raw, i, x[i]);
    mb_tensor t = raw ? mb_from(b->ctx, dtype, shape, raw) : mb__poison(b->ctx);
    mb__free(b->ctx, raw, bytes);
    return t;
}

double *mb__check_read(mb__blocks *b, mb_tensor t)
{
    int64_t count = mb_count(t);
    mb_dtype dtype = mb_dtype_of(t);
    size_t size = mb_dtype_size(dtype);
    double *x = mb__block(b, count, sizeof *x);
    if (!x || mb_read(t, x, (size_t)count * size) != MB_OK)
        return NULL;
    for (int64_t i = count; i-- > 0;) /* from the end, since doubles take as much or more */
        x[i] = mb__element_of(dtype, x, i);
    return x;
}

double mb__largest(const double *x, int64_t count, double least)
{
    for (int64_t i = 0; i < count; i++)
        if (isfinite(x[i]) && fabs(x[i]) > least)
            least = fabs(x[i]);
    return least;
}

/* ---- verdicts ---- */

mb_check_result *mb__check_begin(mb_check_result *result, mb_check_result *own)
{
    result = result ? result : own;
    *result = (mb_check_result){.argument = -1, .element = -1};
    return result;
}

mb_status mb__verdict(mb_check_result *r, mb_status status, const char *site, const char *format, ...)
{
    int n = site ? snprintf(r->text, sizeof r->text, "%s: ", site) : 0;
    if (n < 0 || (size_t)n >= sizeof r->text)
        n = 0;
    va_list args;
    va_start(args, format);
    vsnprintf(r->text + n, sizeof r->text - (size_t)n, format, args);
    va_end(args);
    return r->status = status;
}

mb_status mb__check_error(mb_check_result *r, mb_context *ctx, const char *site, const char *name)
{
    mb_status status = mb_error(ctx);
    if (status == MB_OK)
        return MB_OK;
    mb__verdict(r, status, site, "%s: %s", name, mb_message(ctx));
    mb_clear_error(ctx);
    return status;
}

const char *mb__dims_text(char *out, size_t size, mb_shape s)
{
    return mb__shape_text(out, size, s.dim, s.rank);
}

const char *mb__element_text(char *out, size_t size, mb_shape s, int64_t element)
{
    char at[200];
    int64_t rest = element;
    for (int i = s.rank; i-- > 0;) {
        int64_t d = s.dim[i];
        s.dim[i] = d ? rest % d : 0;
        rest = d ? rest / d : 0;
    }
    snprintf(out, size, "element %lld %s", (long long)element, mb__dims_text(at, sizeof at, s));
    return out;
}

/* How far beyond what is allowed, in units of that; 0: it is close. */
static double beyond(double got, double want, mb_closeness how)
{
    if (isnan(got) || isnan(want))
        return how.nan_equal && isnan(got) && isnan(want) ? 0 : (double)INFINITY;
    if (got == want)
        return 0;
    if (isinf(got) || isinf(want))
        return (double)INFINITY;
    double off = fabs(got - want), allowed = how.atol + how.rtol * fabs(want);
    return off <= allowed ? 0 : allowed > 0 ? off / allowed : (double)INFINITY;
}

int64_t mb__furthest(const double *got, const double *want, int64_t count, mb_closeness how)
{
    int64_t at = -1;
    double most = 0;
    for (int64_t i = 0; i < count; i++) {
        double b = beyond(got[i], want[i], how);
        if (b > most) {
            most = b;
            at = i;
        }
    }
    return at;
}
