/* SPDX-License-Identifier: MIT
 *
 * gemm.c - matrix products that fit a core's own cache, with any strides: c = a b, c += a b, or c -= a b.
 *
 * c is cut into tiles of MR rows and NR columns, held in vector registers while k runs. A panel of b, NR
 * columns wide and at most KC deep, is copied to scratch once and used by all rows; a is read in place, an
 * element at a time, so its strides cost nothing. Compiled once for each instruction set, as loops.c is.
 */
#include "backends/cpu/loops.h"

#if defined(__AVX512F__)
#include <immintrin.h>
enum { BYTES = 64, MR = 14, MASKS = 1 };
#elif defined(__AVX2__)
enum { BYTES = 32, MR = 6, MASKS = 0 };
#else
enum { BYTES = 16, MR = 6, MASKS = 0 };
#endif
enum { KC = 256 };

/* What becomes of what c held: it is overwritten, added to, subtracted from. */
enum { SET, ADD, SUBTRACT };

#define RESTRICT __restrict

typedef float vec_float __attribute__((vector_size(BYTES), aligned(4), may_alias));
typedef double vec_double __attribute__((vector_size(BYTES), aligned(8), may_alias));

/* Loads and stores of the lanes in a mask; without masked moves, of whole vectors only. */
#if defined(__AVX512F__)
#define LOAD_float(p, mask)      (vec_float) _mm512_maskz_loadu_ps((__mmask16)(mask), p)
#define LOAD_double(p, mask)     (vec_double) _mm512_maskz_loadu_pd((__mmask8)(mask), p)
#define STORE_float(p, mask, v)  _mm512_mask_storeu_ps(p, (__mmask16)(mask), (__m512)(v))
#define STORE_double(p, mask, v) _mm512_mask_storeu_pd(p, (__mmask8)(mask), (__m512d)(v))
#else
#define LOAD_float(p, mask)      ((void)(mask), *(const vec_float *)(p))
#define LOAD_double(p, mask)     ((void)(mask), *(const vec_double *)(p))
#define STORE_float(p, mask, v)  (void)(*(vec_float *)(p) = (v))
#define STORE_double(p, mask, v) (void)(*(vec_double *)(p) = (v))
#endif

/* `rows` rows of c by `wide` vectors of columns, both constants where this is inlined. */
#define TILE(T)                                                                                              \
    static inline __attribute__((always_inline)) void tile_##T(                                              \
        const int rows, const int wide, int64_t k, const T *RESTRICT a, int64_t a_m, int64_t a_k,            \
        const T *RESTRICT b, int64_t b_k, T *RESTRICT c, int64_t c_m, int add, uint32_t mask)                \
    {                                                                                                        \
        enum { W = BYTES / sizeof(T) };                                                                      \
        vec_##T s0[MR], s1[MR];                                                                              \
        _Pragma("GCC unroll 16") for (int i = 0; i < rows; i++) s0[i] = s1[i] = (vec_##T){0};                \
        for (int64_t l = 0; l < k; l++) {                                                                    \
            const vec_##T b0 = LOAD_##T(b + l * b_k, mask),                                                  \
                          b1 = wide > 1 ? LOAD_##T(b + l * b_k + W, mask >> W) : b0;                         \
            _Pragma("GCC unroll 16") for (int i = 0; i < rows; i++)                                          \
            {                                                                                                \
                const T x = a[i * a_m + l * a_k];                                                            \
                s0[i] += x * b0;                                                                             \
                if (wide > 1)                                                                                \
                    s1[i] += x * b1;                                                                         \
            }                                                                                                \
        }                                                                                                    \
        _Pragma("GCC unroll 16") for (int i = 0; i < rows; i++)                                              \
        {                                                                                                    \
            T *c0 = c + i * c_m, *c1 = c0 + W;                                                               \
            if (add == ADD)                                                                                  \
                s0[i] += LOAD_##T(c0, mask);                                                                 \
            if (add == SUBTRACT)                                                                             \
                s0[i] = LOAD_##T(c0, mask) - s0[i];                                                          \
            STORE_##T(c0, mask, s0[i]);                                                                      \
            if (wide > 1) {                                                                                  \
                if (add == ADD)                                                                              \
                    s1[i] += LOAD_##T(c1, mask >> W);                                                        \
                if (add == SUBTRACT)                                                                         \
                    s1[i] = LOAD_##T(c1, mask >> W) - s1[i];                                                 \
                STORE_##T(c1, mask >> W, s1[i]);                                                             \
            }                                                                                                \
        }                                                                                                    \
    }                                                                                                        \
    static void rows_##T(int rows, bool wide, int64_t k, const T *a, int64_t a_m, int64_t a_k, const T *b,   \
                         int64_t b_k, T *c, int64_t c_m, int add, uint32_t mask)                             \
    {                                                                                                        \
        switch (2 * rows + wide) {                                                                           \
            ROWS_UP_TO_6(T)                                                                                  \
            ROWS_UP_TO_14(T)                                                                                 \
        default:                                                                                             \
            break;                                                                                           \
        }                                                                                                    \
    }

#define ROWS(T, n)                                                                                           \
    case 2 * n:                                                                                              \
        tile_##T(n, 1, k, a, a_m, a_k, b, b_k, c, c_m, add, mask);                                           \
        break;                                                                                               \
    case 2 * n + 1:                                                                                          \
        tile_##T(n, 2, k, a, a_m, a_k, b, b_k, c, c_m, add, mask);                                           \
        break;
#define ROWS_UP_TO_6(T) ROWS(T, 1) ROWS(T, 2) ROWS(T, 3) ROWS(T, 4) ROWS(T, 5) ROWS(T, 6)
#if defined(__AVX512F__)
#define ROWS_UP_TO_14(T)                                                                                     \
    ROWS(T, 7) ROWS(T, 8) ROWS(T, 9) ROWS(T, 10) ROWS(T, 11) ROWS(T, 12) ROWS(T, 13) ROWS(T, 14)
#else
#define ROWS_UP_TO_14(T)
#endif

/* Copies k rows of b, w columns wide, to a panel of full width. Missing columns keep old values; their
 * results are discarded. */
#define PACK(T)                                                                                              \
    static void pack_##T(int64_t k, int64_t w, const T *RESTRICT b, int64_t b_k, int64_t b_n, T *RESTRICT p) \
    {                                                                                                        \
        enum { W = BYTES / sizeof(T), NR = 2 * W };                                                          \
        if (b_n == 1 && w == NR) {                                                                           \
            for (int64_t l = 0; l < k; l++) {                                                                \
                *(vec_##T *)(p + l * NR) = *(const vec_##T *)(b + l * b_k);                                  \
                *(vec_##T *)(p + l * NR + W) = *(const vec_##T *)(b + l * b_k + W);                          \
            }                                                                                                \
            return;                                                                                          \
        }                                                                                                    \
        if (b_n == 1) {                                                                                      \
            for (int64_t l = 0; l < k; l++) {                                                                \
                int64_t j = 0;                                                                               \
                for (; j + 4 <= w; j += 4)                                                                   \
                    __builtin_memcpy(p + l * NR + j, b + l * b_k + j, 4 * sizeof(T));                        \
                if (w & 2) {                                                                                 \
                    __builtin_memcpy(p + l * NR + j, b + l * b_k + j, 2 * sizeof(T));                        \
                    j += 2;                                                                                  \
                }                                                                                            \
                if (w & 1)                                                                                   \
                    p[l * NR + j] = b[l * b_k + j];                                                          \
            }                                                                                                \
            return;                                                                                          \
        }                                                                                                    \
        for (int64_t l = 0; l < k; l += 8) /* in blocks, so that both sides stay in the cache */             \
            for (int64_t j = 0; j < w; j++) {                                                                \
                const T *x = b + j * b_n + l * b_k;                                                          \
                T *y = p + l * NR + j;                                                                       \
                for (int64_t q = 0, e = k - l < 8 ? k - l : 8; q < e; q++)                                   \
                    y[q * NR] = x[q * b_k];                                                                  \
            }                                                                                                \
    }

#define GEMM(T)                                                                                              \
    static void gemm_##T(const mb__gemm_call *g)                                                             \
    {                                                                                                        \
        enum { W = BYTES / sizeof(T), NR = 2 * W };                                                          \
        const T *a = g->a, *b = g->b;                                                                        \
        T *c = g->c, *panel = g->scratch, *spare = panel + KC * NR;                                          \
        int64_t blocks = (g->m + MR - 1) / MR;                                                               \
        for (int64_t l = 0; l < g->k; l += KC) {                                                             \
            int64_t depth = g->k - l < KC ? g->k - l : KC;                                                   \
            int more = g->subtract ? SUBTRACT : g->add || l > 0 ? ADD : SET;                                 \
            for (int64_t j = 0; j < g->n; j += NR) {                                                         \
                int64_t w = g->n - j < NR ? g->n - j : NR, stride = NR;                                      \
                uint32_t mask = w == 32 ? UINT32_MAX : (1u << w) - 1;                                        \
                const T *p = panel;                                                                          \
                if (blocks * g->count <= 2 && g->b_n == 1 && (MASKS || w == NR)) {                           \
                    p = b + l * g->b_k + j;                                                                  \
                    stride = g->b_k;                                                                         \
                } else {                                                                                     \
                    pack_##T(depth, w, b + l * g->b_k + j * g->b_n, g->b_k, g->b_n, panel);                  \
                }                                                                                            \
                for (int64_t i = 0; i < blocks * g->count; i++) {                                            \
                    int64_t item = i / blocks, block = i - item * blocks;                                    \
                    int64_t r0 = g->m * block / blocks, rows = g->m * (block + 1) / blocks - r0;             \
                    const T *x = a + item * g->a_step + r0 * g->a_m + l * g->a_k;                            \
                    T *y = c + item * g->c_step + r0 * g->c_m + j * g->c_n;                                  \
                    if (g->c_n == 1 && (MASKS || w == NR)) {                                                 \
                        rows_##T((int)rows, w > W, depth, x, g->a_m, g->a_k, p, stride, y, g->c_m, more,     \
                                 mask);                                                                      \
                        continue;                                                                            \
                    }                                                                                        \
                    rows_##T((int)rows, w > W, depth, x, g->a_m, g->a_k, p, stride, spare, NR, SET, mask);   \
                    for (int64_t r = 0; r < rows; r++)                                                       \
                        for (int64_t q = 0; q < w; q++) {                                                    \
                            T *z = y + r * g->c_m + q * g->c_n, v = spare[r * NR + q];                       \
                            *z = more == SUBTRACT ? *z - v : (more ? *z : 0) + v;                            \
                        }                                                                                    \
                }                                                                                            \
            }                                                                                                \
        }                                                                                                    \
    }

TILE(float)
PACK(float)
GEMM(float)
TILE(double)
PACK(double)
GEMM(double)

extern const mb__gemm MB_GEMM[2];
const mb__gemm MB_GEMM[2] = {gemm_float, gemm_double};
