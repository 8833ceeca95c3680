/* SPDX-License-Identifier: MIT
 *
 * gemm.c - matrix products small enough to live in a core's own cache, of any strides: c = a b, or c += a b.
 *
 * c is cut into tiles of MR rows and NR columns, held in vector registers while k runs. A panel of b, NR columns wide
 * and at most KC deep, is copied to scratch once and used by all rows; a is read in place, an element at a time, so its
 * strides cost nothing. Compiled once for each instruction set, as loops.c is.
 */
#include "backends/cpu/loops.h"

#if defined(__AVX512F__)
enum { BYTES = 64, MR = 14 };
#elif defined(__AVX2__)
enum { BYTES = 32, MR = 6 };
#else
enum { BYTES = 16, MR = 6 };
#endif
enum { KC = 256 };

#define RESTRICT __restrict

typedef float vec_float __attribute__((vector_size(BYTES), aligned(4), may_alias));
typedef double vec_double __attribute__((vector_size(BYTES), aligned(8), may_alias));

/* `rows` rows of c by two vectors of columns; rows is a constant where this is inlined. */
#define TILE(T)                                                                                                        \
    static inline __attribute__((always_inline)) void tile_##T(const int rows, int64_t k, const T *RESTRICT a, int64_t a_m, \
                                                               int64_t a_k, const T *RESTRICT b, int64_t b_k, T *RESTRICT c, \
                                                               int64_t c_m, bool add)                                  \
    {                                                                                                                  \
        enum { W = BYTES / sizeof(T) };                                                                                \
        vec_##T s0[MR], s1[MR];                                                                                        \
        _Pragma("GCC unroll 16") for (int i = 0; i < rows; i++) s0[i] = s1[i] = (vec_##T){0};                          \
        for (int64_t l = 0; l < k; l++) {                                                                              \
            const vec_##T b0 = *(const vec_##T *)(b + l * b_k), b1 = *(const vec_##T *)(b + l * b_k + W);              \
            _Pragma("GCC unroll 16") for (int i = 0; i < rows; i++)                                                    \
            {                                                                                                          \
                const T x = a[i * a_m + l * a_k];                                                                      \
                s0[i] += x * b0;                                                                                       \
                s1[i] += x * b1;                                                                                       \
            }                                                                                                          \
        }                                                                                                              \
        _Pragma("GCC unroll 16") for (int i = 0; i < rows; i++)                                                        \
        {                                                                                                              \
            vec_##T *c0 = (vec_##T *)(c + i * c_m), *c1 = (vec_##T *)(c + i * c_m + W);                                \
            if (add) {                                                                                                 \
                s0[i] += *c0;                                                                                          \
                s1[i] += *c1;                                                                                          \
            }                                                                                                          \
            *c0 = s0[i];                                                                                               \
            *c1 = s1[i];                                                                                               \
        }                                                                                                              \
    }                                                                                                                  \
    static void rows_##T(int rows, int64_t k, const T *a, int64_t a_m, int64_t a_k, const T *b, int64_t b_k, T *c,     \
                         int64_t c_m, bool add)                                                                        \
    {                                                                                                                  \
        switch (rows) {                                                                                                \
            ROWS_UP_TO_6(T)                                                                                            \
            ROWS_UP_TO_14(T)                                                                                           \
        default:                                                                                                       \
            break;                                                                                                     \
        }                                                                                                              \
    }

#define ROWS(T, n)                                                                                                     \
    case n:                                                                                                            \
        tile_##T(n, k, a, a_m, a_k, b, b_k, c, c_m, add);                                                              \
        break;
#define ROWS_UP_TO_6(T) ROWS(T, 1) ROWS(T, 2) ROWS(T, 3) ROWS(T, 4) ROWS(T, 5) ROWS(T, 6)
#if defined(__AVX512F__)
#define ROWS_UP_TO_14(T) ROWS(T, 7) ROWS(T, 8) ROWS(T, 9) ROWS(T, 10) ROWS(T, 11) ROWS(T, 12) ROWS(T, 13) ROWS(T, 14)
#else
#define ROWS_UP_TO_14(T)
#endif

/* Copies k rows of b, w columns wide, to a panel of full width; what is missing becomes zero. */
#define PACK(T)                                                                                                        \
    static void pack_##T(int64_t k, int64_t w, const T *RESTRICT b, int64_t b_k, int64_t b_n, T *RESTRICT p)           \
    {                                                                                                                  \
        enum { W = BYTES / sizeof(T), NR = 2 * W };                                                                    \
        if (b_n == 1 && w == NR) {                                                                                     \
            for (int64_t l = 0; l < k; l++) {                                                                          \
                *(vec_##T *)(p + l * NR) = *(const vec_##T *)(b + l * b_k);                                            \
                *(vec_##T *)(p + l * NR + W) = *(const vec_##T *)(b + l * b_k + W);                                    \
            }                                                                                                          \
            return;                                                                                                    \
        }                                                                                                              \
        if (w < NR)                                                                                                    \
            memset(p, 0, (size_t)(k * NR) * sizeof(T));                                                                \
        if (b_n == 1) {                                                                                                \
            for (int64_t l = 0; l < k; l++)                                                                            \
                for (int64_t j = 0; j < w; j++)                                                                        \
                    p[l * NR + j] = b[l * b_k + j];                                                                    \
            return;                                                                                                    \
        }                                                                                                              \
        for (int64_t l = 0; l < k; l += 8) /* in blocks, so that both sides stay in the cache */                       \
            for (int64_t j = 0; j < w; j++) {                                                                          \
                const T *x = b + j * b_n + l * b_k;                                                                    \
                T *y = p + l * NR + j;                                                                                 \
                for (int64_t q = 0, e = k - l < 8 ? k - l : 8; q < e; q++)                                             \
                    y[q * NR] = x[q * b_k];                                                                            \
            }                                                                                                          \
    }

#define GEMM(T)                                                                                                        \
    static void gemm_##T(int64_t m, int64_t n, int64_t k, const void *a_, int64_t a_m, int64_t a_k, const void *b_,    \
                         int64_t b_k, int64_t b_n, void *c_, int64_t c_m, int64_t c_n, bool add, void *scratch)        \
    {                                                                                                                  \
        enum { W = BYTES / sizeof(T), NR = 2 * W };                                                                    \
        if (c_n != 1 && c_m == 1) { /* the transposed product */                                                       \
            gemm_##T(n, m, k, b_, b_n, b_k, a_, a_k, a_m, c_, c_n, c_m, add, scratch);                                 \
            return;                                                                                                    \
        }                                                                                                              \
        const T *a = a_, *b = b_;                                                                                      \
        T *c = c_, *panel = scratch, *spare = panel + KC * NR;                                                         \
        int64_t blocks = (m + MR - 1) / MR;                                                                            \
        for (int64_t l = 0; l < k; l += KC) {                                                                          \
            int64_t depth = k - l < KC ? k - l : KC;                                                                   \
            bool more = add || l > 0;                                                                                  \
            for (int64_t j = 0; j < n; j += NR) {                                                                      \
                int64_t w = n - j < NR ? n - j : NR, stride = NR;                                                      \
                const T *p = panel;                                                                                    \
                if (blocks == 1 && b_n == 1 && w == NR) {                                                              \
                    p = b + l * b_k + j;                                                                               \
                    stride = b_k;                                                                                      \
                } else {                                                                                               \
                    pack_##T(depth, w, b + l * b_k + j * b_n, b_k, b_n, panel);                                        \
                }                                                                                                      \
                for (int64_t i = 0; i < blocks; i++) {                                                                 \
                    int64_t r0 = m * i / blocks, r1 = m * (i + 1) / blocks;                                            \
                    const T *x = a + r0 * a_m + l * a_k;                                                               \
                    T *y = c + r0 * c_m + j * c_n;                                                                     \
                    if (w == NR && c_n == 1) {                                                                         \
                        rows_##T((int)(r1 - r0), depth, x, a_m, a_k, p, stride, y, c_m, more);                         \
                        continue;                                                                                      \
                    }                                                                                                  \
                    rows_##T((int)(r1 - r0), depth, x, a_m, a_k, p, stride, spare, NR, false);                         \
                    for (int64_t r = 0; r < r1 - r0; r++)                                                              \
                        for (int64_t q = 0; q < w; q++)                                                                \
                            y[r * c_m + q * c_n] = (more ? y[r * c_m + q * c_n] : 0) + spare[r * NR + q];              \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
    }

TILE(float)
PACK(float)
GEMM(float)
TILE(double)
PACK(double)
GEMM(double)

extern const mb__gemm MB_GEMM[2];
const mb__gemm MB_GEMM[2] = {gemm_float, gemm_double};
