/* SPDX-License-Identifier: MIT
 *
 * sum.c - what is added, in the order of ranks: so the bits depend on the data and the number of ranks alone.
 */
#include "optim/mpi/internal.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 1024 }; /* sums that stay in the cache while all ranks are added */

size_t mb__mpi_element(int dtype)
{
    return dtype == MB_FLOAT64 ? 8 : dtype == MB_BOOL ? 1 : 4;
}

#define ADD_FLOATS(T)                                                                                        \
    static void add_##T(T *to, const T *from, int64_t n, int64_t apart, int ranks, double divisor)           \
    {                                                                                                        \
        double sum[BLOCK];                                                                                   \
        for (int64_t i = 0; i < n; i++)                                                                      \
            sum[i] = (double)from[i];                                                                        \
        for (int r = 1; r < ranks; r++)                                                                      \
            for (int64_t i = 0; i < n; i++)                                                                  \
                sum[i] += (double)from[r * apart + i];                                                       \
        for (int64_t i = 0; i < n; i++)                                                                      \
            to[i] = (T)(sum[i] / divisor);                                                                   \
    }                                                                                                        \
    static void most_##T(T *to, const T *from, int64_t n, int64_t apart, int ranks)                          \
    {                                                                                                        \
        for (int64_t i = 0; i < n; i++) {                                                                    \
            T most = from[i];                                                                                \
            for (int r = 1; r < ranks; r++) {                                                                \
                T x = from[r * apart + i];                                                                   \
                most = isnan(most) || most >= x ? most : x; /* a NaN stays */                                \
            }                                                                                                \
            to[i] = most;                                                                                    \
        }                                                                                                    \
    }
ADD_FLOATS(float)
ADD_FLOATS(double)

static void add_ints(int32_t *to, const int32_t *from, int64_t n, int64_t apart, int ranks)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t sum = 0; /* wraps, as the library's own sums of int32 do */
        for (int r = 0; r < ranks; r++)
            sum += (uint32_t)from[r * apart + i];
        memcpy(&to[i], &sum, sizeof sum);
    }
}

static void most_ints(int32_t *to, const int32_t *from, int64_t n, int64_t apart, int ranks)
{
    for (int64_t i = 0; i < n; i++) {
        to[i] = from[i];
        for (int r = 1; r < ranks; r++)
            to[i] = from[r * apart + i] > to[i] ? from[r * apart + i] : to[i];
    }
}

static void combine_block(int dtype, int how, void *to, const void *from, int64_t n, int64_t apart, int ranks)
{
    double divisor = how == MB_REDUCE_MEAN ? ranks : 1;
    bool most = how == MB_REDUCE_MAX;
    if (dtype == MB_FLOAT32 && most)
        most_float(to, from, n, apart, ranks);
    else if (dtype == MB_FLOAT32)
        add_float(to, from, n, apart, ranks, divisor);
    else if (dtype == MB_FLOAT64 && most)
        most_double(to, from, n, apart, ranks);
    else if (dtype == MB_FLOAT64)
        add_double(to, from, n, apart, ranks, divisor);
    else if (most)
        most_ints(to, from, n, apart, ranks);
    else
        add_ints(to, from, n, apart, ranks);
}

void mb__mpi_combine(int dtype, int how, void *to, const void *from, int64_t n, int64_t apart, int ranks)
{
    size_t element = mb__mpi_element(dtype);
    for (int64_t i = 0; i < n; i += BLOCK)
        combine_block(dtype, how, (char *)to + (size_t)i * element, (const char *)from + (size_t)i * element,
                      n - i < BLOCK ? n - i : BLOCK, apart, ranks);
}
