/* SPDX-License-Identifier: MIT
 *
 * values.h - values of every dtype in the places of doubles: an int64 by its own bits, all others as the
 * number that they are; and what becomes of them by arithmetic modulo 2^32, casts and comparisons.
 */
#ifndef MB_REFERENCE_VALUES_H
#define MB_REFERENCE_VALUES_H

#include <math.h>
#include <string.h>

#include "backends/plan/backend.h"

/* An int64 in a double's place. */
static inline double holding(int64_t x)
{
    double d;
    memcpy(&d, &x, sizeof d);
    return d;
}
static inline int64_t held(double d)
{
    int64_t x;
    memcpy(&x, &d, sizeof x);
    return x;
}

/* int32 arithmetic is modulo 2^32. Sums are exact in double; products are not, and are computed in integers.
 */
static inline double wrap(double x)
{
    return (double)(int32_t)(uint32_t)(int64_t)x;
}

static inline double to_int(double x)
{
    return x >= 2147483647.0 ? 2147483647.0 : x > -2147483648.0 ? trunc(x) + 0.0 : -2147483648.0; /* no -0 */
}

static inline double cast(int from, int to, double x)
{
    if (from == MB_INT64 && to != MB_INT64) {
        int64_t whole = held(x);
        return to == MB_INT32   ? mb__int32_of(whole)
               : to == MB_UINT8 ? mb__uint8_of(whole)
               : to == MB_BOOL  ? whole != 0
                                : mb__rounded(to, to == MB_FLOAT32  ? (double)(float)whole
                                                  : mb__is_half(to) ? mb__odd_double(whole)
                                                                    : (double)whole);
    }
    switch (to) {
    case MB_BOOL:
        return x != 0;
    case MB_INT32:
        return to_int(x);
    case MB_UINT8:
        return x >= 255 ? 255 : x > 0 ? trunc(x) : 0;
    case MB_INT64:
        return from == MB_INT64 ? x : holding(mb__to_int64(x));
    default:
        return mb__is_half(to) ? mb__rounded(to, x) : x;
    }
}

static inline double int64_compared(int op, int64_t a, int64_t b)
{
    switch (op) {
#define MB_COMPARE(NAME, name, types, expr, doc)                                                             \
    case MB_OP_##NAME:                                                                                       \
        return expr;
#include "tensor/ops.def"
    default:
        return 0;
    }
}

/* A literal, a bound number or a position as a value of the dtype. */
static inline double number(int dtype, double x)
{
    return dtype == MB_INT32 ? to_int(x) : dtype == MB_INT64 ? holding(mb__to_int64(x)) : x;
}

#endif
