/* SPDX-License-Identifier: MIT
 *
 * dtypes.c - every dtype as data, bit by bit: cast to every other, moved, compared. A backend that lacks one
 * of those that are not in every backend's reach says so, by MB_BACKEND, and passes. No int32 is -0, and
 * sums of int32 wrap. */
#include "support.h"

enum { DTYPES = MB_UINT8 + 1, VALUES = 12, ROOM = 8 * 4 * VALUES };

static const double NUMBERS[VALUES] = {0,     1,     -1,      0.5,        2.5,         -3.75,
                                       100.5, 254.6, 0x1p-24, 1 + 0x1p-8, 1 + 0x3p-11, 60000};

/* The n numbers as the dtype has them, by casts of the reference's. */
static bool numbers_of(const double *numbers, int n, mb_dtype dtype, void *out)
{
    mb_context *ctx = open_as("reference", NULL, 0);
    mb_tensor x = mb_from(ctx, MB_FLOAT64, MB_SHAPE(n), numbers);
    mb_read(mb_cast(x, dtype), out, (size_t)n * mb_dtype_size(dtype));
    return mb_close(ctx) == MB_OK;
}

static mb_tensor moved(mb_tensor x)
{
    mb_tensor both[2] = {mb_flip(x, 0), mb_slice(x, 0, 1, 4, 2)};
    mb_tensor t = mb_concat(both, 2, 0), half = mb_slice(t, 0, 0, 8, 1);
    mb_tensor index = mb_from(x.ctx, MB_INT32, MB_SHAPE(2, 2), ((int32_t[]){3, 0, 7, 1}));
    mb_tensor odd = mb_eq(mb_iota(x.ctx, MB_INT32, 2), mb_full(x.ctx, MB_INT32, MB_SHAPE0, 1));
    return mb_transpose(mb_where(odd, mb_take(half, index, 0), mb_slice(x, 0, 2, 1, 1)));
}

static mb_tensor compared(mb_tensor x)
{
    return mb_dtype_of(x) == MB_BOOL ? x : mb_le(mb_unsqueeze(x, 1), x);
}

/* What a backend makes of n of them; MB_BACKEND: it does not have the dtype. */
static mb_status made(const char *backend, mb_dtype from, const void *data, int n, mb_tensor (*f)(mb_tensor),
                      mb_dtype to, void *out)
{
    mb_context *ctx = open_as(backend, NULL, 0);
    mb_tensor x = mb_from(ctx, from, MB_SHAPE(n), data), y = f ? f(x) : mb_cast(x, to);
    mb_status status = mb_read(y, out, (size_t)mb_count(y) * mb_dtype_size(mb_dtype_of(y)));
    mb_close(ctx);
    return status;
}

static bool lacks(mb_status status, mb_dtype from, mb_dtype to)
{
    return status == MB_BACKEND && (from == MB_FLOAT64 || to == MB_FLOAT64 || from > MB_BOOL || to > MB_BOOL);
}

static void check(const char *what, mb_dtype from, mb_tensor (*f)(mb_tensor), mb_dtype to)
{
    char name[80], data[ROOM], got[ROOM * VALUES] = {0}, want[ROOM * VALUES] = {0};
    snprintf(name, sizeof name, "dtype/%s/%s/%s", what, mb_dtype_name(from), mb_dtype_name(to));
    if (!wanted(name) || !numbers_of(NUMBERS, VALUES, from, data))
        return;
    mb_status status = made(run.backend, from, data, VALUES, f, to, got),
              asked = made("reference", from, data, VALUES, f, to, want);
    told(name, lacks(status, from, to) || (status == asked && !memcmp(got, want, sizeof got)),
         "status %s, or other bits", mb_status_name(status));
}

static mb_tensor whole(mb_tensor x)
{
    return mb_cast(mb_cast(x, MB_INT32), mb_dtype_of(x));
}

/* -0.5 and -0.0 become the only zero that integers have: a backend that holds an int32 as a double has to see
 * to it. The bits are known, so the reference is tested by this as well. */
static void check_zero(mb_dtype dtype)
{
    enum { ZEROS = 2 };
    static const double numbers[ZEROS] = {-0.5, -0.0};
    char name[80], data[8 * ZEROS], got[8 * ZEROS] = {1}, zeros[8 * ZEROS] = {0};
    snprintf(name, sizeof name, "dtype/one_zero/%s", mb_dtype_name(dtype));
    if (!wanted(name) || !numbers_of(numbers, ZEROS, dtype, data))
        return;
    mb_status status = made(run.backend, dtype, data, ZEROS, whole, dtype, got);
    bool right = status == MB_OK && !memcmp(got, zeros, ZEROS * mb_dtype_size(dtype));
    told(name, lacks(status, dtype, dtype) || right, "status %s, or -0.5 or -0 as int32 is not 0 in all bits",
         mb_status_name(status));
}

/* ---- sums of int32 wrap; the least one is the largest of none ---- */

static mb_tensor sum_of(mb_tensor x)
{
    return mb_sum(x, MB_ALL);
}
static mb_tensor running(mb_tensor x)
{
    return mb_cumsum(x, 0, false);
}
static mb_tensor running_back(mb_tensor x)
{
    return mb_cumsum(mb_mul(x, 3), 0, true);
}
static mb_tensor scattered(mb_tensor x)
{
    return mb_scatter_add(x, mb_mod(mb_iota(x.ctx, MB_INT32, mb_count(x)), 2), 0, 3);
}
static mb_tensor largest_of_none(mb_tensor x)
{
    return mb_max(mb_slice(x, 0, 0, 0, 1), MB_ALL);
}
static mb_tensor largest(mb_tensor x)
{
    return mb_max(mb_sub(x, 2000000000), MB_ALL);
}

enum { WHOLE = 5 };
/* By 64 bits, of which the lower half is kept: all are known, so the reference is tested as well. */
static const struct {
    const char *name;
    mb_tensor (*f)(mb_tensor);
    int count;
    int64_t want[WHOLE];
} whole_cases[] = {
    {"sum", sum_of, 1, {2000000000ll * 3 - 5 + INT32_MIN}},
    {"cumsum",
     running,
     5,
     {2000000000, 4000000000, 4000000000 - 5, 6000000000 - 5, 6000000000 - 5 + INT32_MIN}},
    {"cumsum_back",
     running_back,
     5,
     {3 * (6000000000 - 5 + INT32_MIN), 3 * (4000000000 - 5 + INT32_MIN), 3 * (2000000000ll - 5 + INT32_MIN),
      3 * (2000000000ll + INT32_MIN), 3ll * INT32_MIN}},
    {"scatter_add", scattered, 3, {2000000000ll - 5 + INT32_MIN, 4000000000, 0}},
    {"largest_of_none", largest_of_none, 1, {INT32_MIN}},
    {"largest", largest, 1, {INT32_MIN - 2000000000ll}},
};

static void check_whole(void)
{
    static const int32_t data[WHOLE] = {2000000000, 2000000000, -5, 2000000000, INT32_MIN};
    for (size_t c = 0; c < sizeof whole_cases / sizeof *whole_cases; c++) {
        char name[80];
        int32_t got[WHOLE] = {1, 1, 1, 1, 1};
        snprintf(name, sizeof name, "dtype/wraps/%s", whole_cases[c].name);
        if (!wanted(name))
            continue;
        mb_status status = made(run.backend, MB_INT32, data, WHOLE, whole_cases[c].f, MB_INT32, got);
        int wrong = 0;
        while (wrong < whole_cases[c].count && (uint32_t)got[wrong] == (uint32_t)whole_cases[c].want[wrong])
            wrong++;
        told(name, status == MB_OK && wrong == whole_cases[c].count, "status %s, or entry %d is %d, not %d",
             mb_status_name(status), wrong, wrong < WHOLE ? got[wrong] : 0,
             wrong < WHOLE ? (int32_t)(uint32_t)whole_cases[c].want[wrong] : 0);
    }
}

void dtype_cases(void)
{
    check_whole();
    for (int from = 0; from < DTYPES; from++) {
        for (int to = 0; to < DTYPES; to++)
            check("cast", (mb_dtype)from, NULL, (mb_dtype)to);
        check("moved", (mb_dtype)from, moved, (mb_dtype)from);
        check("compared", (mb_dtype)from, compared, MB_BOOL);
        if (from != MB_INT32 && from != MB_INT64 && from != MB_UINT8 && from != MB_BOOL)
            check_zero((mb_dtype)from);
    }
}
