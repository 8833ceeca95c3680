/* SPDX-License-Identifier: MIT
 *
 * triangle.c - factors and substitutions of blocks that live in the first-level cache. Compiled once for each
 * instruction set, as loops.c is. Inner loops go along rows, which lie without gaps. */
#include <float.h>
#include <math.h>

#include "backends/cpu/loops.h"

#define RESTRICT __restrict

/* Matrices up to here are factored an element after the other: a row is too short for vectors. */
enum { SHORT = 10, BLOCK = MB_TRIANGLE_BLOCK };

#if defined(__AVX512F__)
enum { BYTES = 64 };
#elif defined(__AVX2__)
enum { BYTES = 32 };
#else
enum { BYTES = 16 };
#endif

typedef float vec_float __attribute__((vector_size(BYTES), aligned(4), may_alias));
typedef double vec_double __attribute__((vector_size(BYTES), aligned(8), may_alias));
typedef float vec16_float __attribute__((vector_size(16), aligned(4), may_alias));
typedef double vec16_double __attribute__((vector_size(16), aligned(8), may_alias));

/* Substitution for as many columns as COUNT vectors hold, whose sums stay in registers. */
#define COLUMNS(NAME, T, VEC, COUNT)                                                                         \
    static void NAME(int64_t n, const T *RESTRICT a, int64_t a_r, int64_t a_c, bool unit, T *x, int64_t ld)  \
    {                                                                                                        \
        enum { W = sizeof(VEC) / sizeof(T) };                                                                \
        for (int64_t i = 0; i < n; i++) {                                                                    \
            VEC sum[COUNT];                                                                                  \
            for (int v = 0; v < COUNT; v++)                                                                  \
                sum[v] = *(const VEC *)(x + i * ld + v * W);                                                 \
            for (int64_t j = 0; j < i; j++) {                                                                \
                const T f = a[i * a_r + j * a_c];                                                            \
                for (int v = 0; v < COUNT; v++)                                                              \
                    sum[v] -= f * *(const VEC *)(x + j * ld + v * W);                                        \
            }                                                                                                \
            const T d = unit ? 1 : a[i * (a_r + a_c)];                                                       \
            for (int v = 0; v < COUNT; v++)                                                                  \
                *(VEC *)(x + i * ld + v * W) = sum[v] / d;                                                   \
        }                                                                                                    \
    }
COLUMNS(four_float, float, vec_float, 4)
COLUMNS(one_float, float, vec_float, 1)
COLUMNS(short_float, float, vec16_float, 1)
COLUMNS(four_double, double, vec_double, 4)
COLUMNS(one_double, double, vec_double, 1)
COLUMNS(short_double, double, vec16_double, 1)

#define TRIANGLE(T, SQRT, MOST)                                                                              \
    static void lower_##T(int64_t n, const void *a_, int64_t a_r, int64_t a_c, void *l_, int64_t ld)         \
    {                                                                                                        \
        const T *a = a_;                                                                                     \
        T *l = l_;                                                                                           \
        for (int64_t i = 0; i < n; i++) {                                                                    \
            if (a_c == 1)                                                                                    \
                __builtin_memcpy(l + i * ld, a + i * a_r, (size_t)(i + 1) * sizeof(T));                      \
            for (int64_t j = 0; j <= i && a_c != 1; j++)                                                     \
                l[i * ld + j] = a[i * a_r + j * a_c];                                                        \
            for (int64_t j = i + 1; j < n; j++)                                                              \
                l[i * ld + j] = 0;                                                                           \
        }                                                                                                    \
    }                                                                                                        \
    /* The square root of a pivot, which must be positive. */                                                \
    static inline bool pivot_##T(T *d)                                                                       \
    {                                                                                                        \
        bool positive = *d > 0 && *d <= MOST;                                                                \
        *d = SQRT(*d);                                                                                       \
        return positive;                                                                                     \
    }                                                                                                        \
    static bool factor_##T(int64_t n, void *l_, int64_t ld)                                                  \
    {                                                                                                        \
        T *l = l_, column[BLOCK];                                                                            \
        bool positive = true;                                                                                \
        for (int64_t i = 0; i < n && n <= SHORT; i++) {                                                      \
            T *x = l + i * ld;                                                                               \
            for (int64_t j = 0; j <= i; j++) {                                                               \
                const T *y = l + j * ld;                                                                     \
                T rest = x[j];                                                                               \
                for (int64_t k = 0; k < j; k++)                                                              \
                    rest -= x[k] * y[k];                                                                     \
                x[j] = j < i ? rest / y[j] : rest;                                                           \
            }                                                                                                \
            positive &= pivot_##T(x + i);                                                                    \
        }                                                                                                    \
        for (int64_t k = 0; k < n && n > SHORT && positive; k++) {                                           \
            positive &= pivot_##T(l + k * ld + k);                                                           \
            for (int64_t i = k + 1; i < n; i++)                                                              \
                column[i] = l[i * ld + k] /= l[k * ld + k];                                                  \
            for (int64_t i = k + 1; i < n; i++) {                                                            \
                T *RESTRICT x = l + i * ld, c = column[i];                                                   \
                for (int64_t j = k + 1; j <= i; j++)                                                         \
                    x[j] -= c * column[j];                                                                   \
            }                                                                                                \
        }                                                                                                    \
        return positive;                                                                                     \
    }                                                                                                        \
    static void columns_##T(int64_t w, int64_t n, const T *RESTRICT a, int64_t a_r, int64_t a_c, bool unit,  \
                            T *x, int64_t ld)                                                                \
    {                                                                                                        \
        for (int64_t i = 0; i < n; i++) {                                                                    \
            T *y = x + i * ld;                                                                               \
            for (int64_t j = 0; j < i; j++)                                                                  \
                for (int64_t c = 0; c < w; c++)                                                              \
                    y[c] -= a[i * a_r + j * a_c] * x[j * ld + c];                                            \
            for (int64_t c = 0; c < w && !unit; c++)                                                         \
                y[c] /= a[i * (a_r + a_c)];                                                                  \
        }                                                                                                    \
    }                                                                                                        \
    /* A single column: four sums, of every fourth term. */                                                  \
    static void column_##T(int64_t n, const T *RESTRICT a, int64_t a_r, int64_t a_c, bool unit, T *x,        \
                           int64_t ld)                                                                       \
    {                                                                                                        \
        for (int64_t i = 0; i < n; i++) {                                                                    \
            const T *row = a + i * a_r;                                                                      \
            T sum[4] = {x[i * ld], 0, 0, 0};                                                                 \
            int64_t j = 0;                                                                                   \
            for (; j + 4 <= i; j += 4)                                                                       \
                for (int64_t q = 0; q < 4; q++)                                                              \
                    sum[q] -= row[(j + q) * a_c] * x[(j + q) * ld];                                          \
            for (; j < i; j++)                                                                               \
                sum[0] -= row[j * a_c] * x[j * ld];                                                          \
            T all = (sum[0] + sum[1]) + (sum[2] + sum[3]);                                                   \
            x[i * ld] = unit ? all : all / row[i * a_c];                                                     \
        }                                                                                                    \
    }                                                                                                        \
    static void substitute_##T(int64_t n, int64_t m, const void *a, int64_t a_r, int64_t a_c, bool unit,     \
                               void *x_, int64_t ld)                                                         \
    {                                                                                                        \
        enum { W = BYTES / sizeof(T), S = 16 / sizeof(T) };                                                  \
        T *x = x_;                                                                                           \
        int64_t c = 0;                                                                                       \
        if (m == 1) {                                                                                        \
            column_##T(n, a, a_r, a_c, unit, x, ld);                                                         \
            return;                                                                                          \
        }                                                                                                    \
        for (; c + 4 * W <= m; c += 4 * W)                                                                   \
            four_##T(n, a, a_r, a_c, unit, x + c, ld);                                                       \
        for (; c + W <= m; c += W)                                                                           \
            one_##T(n, a, a_r, a_c, unit, x + c, ld);                                                        \
        for (; c + S <= m; c += S)                                                                           \
            short_##T(n, a, a_r, a_c, unit, x + c, ld);                                                      \
        if (c < m)                                                                                           \
            columns_##T(m - c, n, a, a_r, a_c, unit, x + c, ld);                                             \
    }                                                                                                        \
    /* x^T is solved for: its rows are copied to where they lie without gaps. */                             \
    static void below_##T(int64_t rows, int64_t n, const void *l, void *x_, int64_t ld, void *scratch)       \
    {                                                                                                        \
        T *RESTRICT x = x_, *RESTRICT t = scratch;                                                           \
        for (int64_t i = 0; i < rows; i++)                                                                   \
            for (int64_t j = 0; j < n; j++)                                                                  \
                t[j * BLOCK + i] = x[i * ld + j];                                                            \
        substitute_##T(n, rows, l, ld, 1, false, t, BLOCK);                                                  \
        for (int64_t i = 0; i < rows; i++)                                                                   \
            for (int64_t j = 0; j < n; j++)                                                                  \
                x[i * ld + j] = t[j * BLOCK + i];                                                            \
    }

TRIANGLE(float, sqrtf, FLT_MAX)
TRIANGLE(double, sqrt, DBL_MAX)

extern const mb__triangle_loops MB_TRIANGLE[2];
const mb__triangle_loops MB_TRIANGLE[2] = {{lower_float, factor_float, substitute_float, below_float},
                                           {lower_double, factor_double, substitute_double, below_double}};
