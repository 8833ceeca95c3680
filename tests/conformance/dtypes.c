/* SPDX-License-Identifier: MIT
 *
 * dtypes.c - every dtype as data, bit by bit: cast to every other, moved, compared. A backend that lacks one
 * of those that are not in every backend's reach says so, by MB_BACKEND, and passes. */
#include "support.h"

enum { DTYPES = MB_UINT8 + 1, VALUES = 12, ROOM = 8 * 4 * VALUES };

static const double NUMBERS[VALUES] = {0,     1,     -1,      0.5,        2.5,         -3.75,
                                       100.5, 254.6, 0x1p-24, 1 + 0x1p-8, 1 + 0x3p-11, 60000};

/* The numbers as the dtype has them, by casts of the reference's. */
static bool numbers_of(mb_dtype dtype, void *out)
{
    mb_context *ctx = open_as("reference", NULL, 0);
    mb_tensor x = mb_from(ctx, MB_FLOAT64, MB_SHAPE(VALUES), NUMBERS);
    mb_read(mb_cast(x, dtype), out, VALUES * mb_dtype_size(dtype));
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

/* What a backend makes of it; MB_BACKEND: it does not have the dtype. */
static mb_status made(const char *backend, mb_dtype from, const void *data, mb_tensor (*f)(mb_tensor),
                      mb_dtype to, void *out)
{
    mb_context *ctx = open_as(backend, NULL, 0);
    mb_tensor x = mb_from(ctx, from, MB_SHAPE(VALUES), data), y = f ? f(x) : mb_cast(x, to);
    mb_status status = mb_read(y, out, (size_t)mb_count(y) * mb_dtype_size(mb_dtype_of(y)));
    mb_close(ctx);
    return status;
}

static void check(const char *what, mb_dtype from, mb_tensor (*f)(mb_tensor), mb_dtype to)
{
    char name[80], data[ROOM], got[ROOM * VALUES] = {0}, want[ROOM * VALUES] = {0};
    snprintf(name, sizeof name, "dtype/%s/%s/%s", what, mb_dtype_name(from), mb_dtype_name(to));
    if (!wanted(name) || !numbers_of(from, data))
        return;
    mb_status status = made(run.backend, from, data, f, to, got),
              asked = made("reference", from, data, f, to, want);
    bool lacks =
        status == MB_BACKEND && (from == MB_FLOAT64 || to == MB_FLOAT64 || from > MB_BOOL || to > MB_BOOL);
    told(name, lacks || (status == asked && !memcmp(got, want, sizeof got)), "status %s, or other bits",
         mb_status_name(status));
}

void dtype_cases(void)
{
    for (int from = 0; from < DTYPES; from++) {
        for (int to = 0; to < DTYPES; to++)
            check("cast", (mb_dtype)from, NULL, (mb_dtype)to);
        check("moved", (mb_dtype)from, moved, (mb_dtype)from);
        check("compared", (mb_dtype)from, compared, MB_BOOL);
    }
}
