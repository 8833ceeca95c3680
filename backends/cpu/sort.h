/* SPDX-License-Identifier: MIT
 *
 * sort.h - the places of a row's elements in their order.
 */
#ifndef MB_CPU_SORT_H
#define MB_CPU_SORT_H

#include "backends/cpu/loops.h"

/* Memory for a row of n, of which the first `wanted` are: 0 where either is small. */
size_t mb__cpu_argsort_bytes(int64_t n, int64_t wanted);
void mb__cpu_argsort(const mb__axis_loops *loops, int dtype, const mb__sort_call *call, void *memory);

/* Integers in the elements' order: one for both zeros, and one above all others for NaN. */
static inline int32_t mb__key_of_float(float x)
{
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = x == 0 ? 0 : bits;
    return x != x ? INT32_MAX : bits ^ (-(bits < 0) & INT32_MAX);
}

static inline int64_t mb__key_of_double(double x)
{
    int64_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = x == 0 ? 0 : bits;
    return x != x ? INT64_MAX : bits ^ (-(int64_t)(bits < 0) & INT64_MAX);
}

static inline int32_t mb__key_of_int32_t(int32_t x)
{
    return x;
}

#endif
