/* SPDX-License-Identifier: MIT
 *
 * gemm.c - matrix products that fit a core's own cache, with any strides: c = a b, c += a b, or c -= a b.
 *
 * c is cut into tiles of MR rows and NR columns, held in vector registers while k runs. A panel of b, NR
 * columns wide and at most KC deep, is copied to scratch once and used by all rows; a is read in place, an
 * element at a time, so its strides cost nothing. Compiled once for each instruction set, as loops.c is.
 */
#include "backends/cpu/loops.h"
#include "backends/cpu/turn.h"

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

#if defined(__AVX512F__)
typedef float half_float __attribute__((vector_size(BYTES / 2), aligned(4), may_alias));
typedef double half_double __attribute__((vector_size(BYTES / 2), aligned(8), may_alias));
#define LOAD_HALF_float(p, mask)      (half_float) _mm256_maskz_loadu_ps((__mmask8)(mask), p)
#define LOAD_HALF_double(p, mask)     (half_double) _mm256_maskz_loadu_pd((__mmask8)(mask), p)
#define STORE_HALF_float(p, mask, v)  _mm256_mask_storeu_ps(p, (__mmask8)(mask), (__m256)(v))
#define STORE_HALF_double(p, mask, v) _mm256_mask_storeu_pd(p, (__mmask8)(mask), (__m256d)(v))
/* The same of half a vector of columns, of which some CPUs multiply twice as many. Nothing is asked for. */
#define NARROW(T)                                                                                            \
    static inline __attribute__((always_inline)) void narrow_##T(                                            \
        const int rows, int64_t k, const T *RESTRICT a, int64_t a_m, int64_t a_k, const T *RESTRICT b,       \
        int64_t b_k, T *RESTRICT c, int64_t c_m, int add, uint32_t mask)                                     \
    {                                                                                                        \
        half_##T s[MR];                                                                                      \
        const T *row[(MR + 2) / 3];                                                                          \
        _Pragma("GCC unroll 16") for (int i = 0; i < rows; i++) s[i] = (half_##T){0};                        \
        _Pragma("GCC unroll 16") for (int i = 0; i < rows; i += 3) row[i / 3] = a + i * a_m;                 \
        for (int64_t l = 0; l < k; l++) {                                                                    \
            const half_##T x = LOAD_HALF_##T(b + l * b_k, mask);                                             \
            _Pragma("GCC unroll 16") for (int i = 0; i < rows; i++)                                          \
            {                                                                                                \
                if (i % 3 == 0)                                                                              \
                    __asm__("" : "+r"(row[i / 3]));                                                          \
                s[i] += row[i / 3][i % 3 * a_m] * x;                                                         \
                if (i % 3 == 2 || i + 1 == rows)                                                             \
                    row[i / 3] += a_k;                                                                       \
            }                                                                                                \
        }                                                                                                    \
        _Pragma("GCC unroll 16") for (int i = 0; i < rows; i++)                                              \
        {                                                                                                    \
            if (add != SET)                                                                                  \
                s[i] = LOAD_HALF_##T(c + i * c_m, mask) + (add == ADD ? s[i] : -s[i]);                       \
            STORE_HALF_##T(c + i * c_m, mask, s[i]);                                                         \
        }                                                                                                    \
    }
NARROW(float)
NARROW(double)
#endif

/* `rows` rows of c by `wide` vectors of columns, both constants where this is inlined. Meanwhile, one at each
 * step along k, lines are asked for: c's own, which are wanted at the end, then what `ask` stands at. More at
 * once would wait for each other. */
#define TILE(T)                                                                                              \
    /* Lines of what comes next: `length` elements from `at` on, then as many that far apart. */             \
    typedef struct asked_##T {                                                                               \
        const T *at;                                                                                         \
        int64_t j, length, apart, left; /* left: lines to ask for now */                                     \
    } asked_##T;                                                                                             \
    static inline __attribute__((always_inline)) void tile_##T(                                              \
        const int rows, const int wide, int64_t k, const T *RESTRICT a, int64_t a_m, int64_t a_k,            \
        const T *RESTRICT b, int64_t b_k, T *RESTRICT c, int64_t c_m, int add, uint32_t mask,                \
        asked_##T *ask)                                                                                      \
    {                                                                                                        \
        enum { W = BYTES / sizeof(T), LINE = 64 / sizeof(T), TWO = BYTES == 64 };                            \
        const int64_t c_lines = ask && k >= 32 ? (wide > 1 && TWO ? 2 * rows : rows) : 0;                    \
        asked_##T next = ask ? *ask : (asked_##T){0};                                                        \
        vec_##T s0[MR], s1[MR];                                                                              \
        _Pragma("GCC unroll 16") for (int i = 0; i < rows; i++) s0[i] = s1[i] = (vec_##T){0};                \
        const T *row[(MR + 2) / 3];                                                                          \
        _Pragma("GCC unroll 16") for (int i = 0; i < rows; i += 3) row[i / 3] = a + i * a_m;                 \
        for (int64_t l = 0; l < k; l++) {                                                                    \
            if (l < c_lines) {                                                                               \
                __builtin_prefetch(wide > 1 && TWO ? c + (l >> 1) * c_m + (l & 1) * W : c + l * c_m, 1);     \
            } else if (next.left > 0) {                                                                      \
                __builtin_prefetch(next.at + next.j);                                                        \
                next.j += LINE;                                                                              \
                next.left--;                                                                                 \
                if (next.j >= next.length) {                                                                 \
                    next.j = 0;                                                                              \
                    next.at += next.apart;                                                                   \
                }                                                                                            \
            }                                                                                                \
            const vec_##T b0 = LOAD_##T(b + l * b_k, mask),                                                  \
                          b1 = wide > 1 ? LOAD_##T(b + l * b_k + W, mask >> W) : b0;                         \
            _Pragma("GCC unroll 16") for (int i = 0; i < rows; i++)                                          \
            {                                                                                                \
                if (i % 3 == 0)                                                                              \
                    __asm__("" : "+r"(row[i / 3]));                                                          \
                const T x = row[i / 3][i % 3 * a_m];                                                         \
                s0[i] += x * b0;                                                                             \
                if (wide > 1)                                                                                \
                    s1[i] += x * b1;                                                                         \
                if (i % 3 == 2 || i + 1 == rows)                                                             \
                    row[i / 3] += a_k;                                                                       \
            }                                                                                                \
        }                                                                                                    \
        if (ask)                                                                                             \
            *ask = next;                                                                                     \
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
    static void rows_##T(int rows, int width, int64_t k, const T *a, int64_t a_m, int64_t a_k, const T *b,   \
                         int64_t b_k, T *c, int64_t c_m, int add, uint32_t mask, asked_##T *ask)             \
    {                                                                                                        \
        switch (3 * rows + width) {                                                                          \
            ROWS_UP_TO_6(T)                                                                                  \
            ROWS_UP_TO_14(T)                                                                                 \
        default:                                                                                             \
            break;                                                                                           \
        }                                                                                                    \
    }

#if defined(__AVX512F__)
#define ROWS_NARROW(T, n)                                                                                    \
    case 3 * n:                                                                                              \
        narrow_##T(n, k, a, a_m, a_k, b, b_k, c, c_m, add, mask);                                            \
        break;
#else
#define ROWS_NARROW(T, n)
#endif
#define ROWS(T, n)                                                                                           \
    ROWS_NARROW(T, n)                                                                                        \
    case 3 * n + 1:                                                                                          \
        tile_##T(n, 1, k, a, a_m, a_k, b, b_k, c, c_m, add, mask, ask);                                      \
        break;                                                                                               \
    case 3 * n + 2:                                                                                          \
        tile_##T(n, 2, k, a, a_m, a_k, b, b_k, c, c_m, add, mask, ask);                                      \
        break;
#define ROWS_UP_TO_6(T) ROWS(T, 1) ROWS(T, 2) ROWS(T, 3) ROWS(T, 4) ROWS(T, 5) ROWS(T, 6)
#if defined(__AVX512F__)
#define ROWS_UP_TO_14(T)                                                                                     \
    ROWS(T, 7) ROWS(T, 8) ROWS(T, 9) ROWS(T, 10) ROWS(T, 11) ROWS(T, 12) ROWS(T, 13) ROWS(T, 14)
#else
#define ROWS_UP_TO_14(T)
#endif

#define TURN_OF_float  turn_4
#define TURN_OF_double turn_8

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
        if (b_k == 1) {                                                                                      \
            TURN_OF_##T(k, w, p, NR, b, b_n);                                                                \
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

/* Rows of all products, in tiles, that go through every panel of b before the next ones: as many as a
 * second-level cache keeps, so that they are read from memory once for a depth of KC. */
enum { BLOCK_BYTES = 384 * 1024, PAD = 64 };

/* Elements of a panel that are worth asking for ahead of their use. */
enum { LEAST_ASKED = 1024 };

/* A number in equal parts, part p of which ends at number (p + 1) / parts, rounded down; without dividing. */
typedef struct even {
    int64_t whole, rest, parts, over;
} even;

static inline even even_from(int64_t number, int64_t parts, int64_t part)
{
    if (parts <= 1 || number == 0)
        return (even){.whole = number, .parts = parts};
    int64_t whole = number / parts, rest = number - whole * parts;
    return (even){whole, rest, parts, part ? rest * part % parts : 0};
}

static inline int64_t even_next(even *e)
{
    int64_t over = e->over + e->rest, more = over >= e->parts;
    e->over = over - (more ? e->parts : 0);
    return e->whole + more;
}

/* Where the tiles of a are read: in place, or from a copy. */
#define ROWS_OF_A(T)                                                                                         \
    typedef struct rows_of_##T {                                                                             \
        const T *a;                                                                                          \
        int64_t m, k, step; /* strides of a row, of a column, of an item */                                  \
    } rows_of_##T;                                                                                           \
    /* Rows or columns a multiple of 2 KiB apart would meet in a few places of a cache and drive each other  \
     * out: where enough panels read them, tiles [begin, end) are copied, a little further apart. */         \
    static inline rows_of_##T rows_of_a_##T(const mb__gemm_call *g, int64_t l, int64_t depth, int64_t begin, \
                                            int64_t end, int64_t each)                                       \
    {                                                                                                        \
        const T *a = (const T *)g->a + l * g->a_k;                                                           \
        bool across = g->a_k != 1; /* a column's elements lie beside each other */                           \
        int64_t apart = across ? g->a_k : g->a_m;                                                            \
        if (!g->rows || g->count != 1 || (across && g->a_m != 1) || depth < 64 ||                            \
            g->n < 8 * (int64_t)(BYTES / sizeof(T)) || apart * (int64_t)sizeof(T) % 2048 != 0)               \
            return (rows_of_##T){a, g->a_m, g->a_k, g->a_step};                                              \
        int64_t first = g->m * begin / each, rows = g->m * end / each - first;                               \
        int64_t inner = across ? rows : depth, outer = across ? depth : rows;                                \
        int64_t room = inner + PAD / (int64_t)sizeof(T);                                                     \
        if (room * outer * (int64_t)sizeof(T) > MB_GEMM_ROWS)                                                \
            return (rows_of_##T){a, g->a_m, g->a_k, g->a_step};                                              \
        T *to = g->rows;                                                                                     \
        const T *from = a + first * g->a_m;                                                                  \
        for (int64_t i = 0; i < outer; i++)                                                                  \
            __builtin_memcpy(to + i * room, from + i * apart, (size_t)inner * sizeof(T));                    \
        int64_t m = across ? 1 : room, k = across ? room : 1;                                                \
        return (rows_of_##T){to - first * m, m, k, 0};                                                       \
    }

#define GEMM(T)                                                                                              \
    /* The panel of b from l and j on: in place where few rows want it, else packed. */                      \
    static const T *panel_##T(const mb__gemm_call *g, int64_t l, int64_t depth, int64_t j, int64_t w,        \
                              int64_t tiles, int64_t *stride)                                                \
    {                                                                                                        \
        enum { NR = 2 * BYTES / sizeof(T) };                                                                 \
        const T *b = (const T *)g->b + l * g->b_k + j * g->b_n;                                              \
        bool in_place = tiles <= 2 && g->b_n == 1 && (MASKS || w == NR);                                     \
        *stride = in_place ? g->b_k : NR;                                                                    \
        if (in_place)                                                                                        \
            return b;                                                                                        \
        pack_##T(depth, w, b, g->b_k, g->b_n, g->scratch);                                                   \
        return g->scratch;                                                                                   \
    }                                                                                                        \
    static inline asked_##T runs_of_##T(const T *at, int64_t m, int64_t m_stride, int64_t n,                 \
                                        int64_t n_stride)                                                    \
    {                                                                                                        \
        enum { LINE = 64 / sizeof(T) };                                                                      \
        int64_t count = n_stride == 1 ? m : n, length = n_stride == 1 ? n : m;                               \
        return (asked_##T){at, 0, length, n_stride == 1 ? m_stride : n_stride,                               \
                           count * ((length + LINE - 1) / LINE)};                                            \
    }                                                                                                        \
    /* The panel after the one at column j. */                                                               \
    static inline asked_##T next_panel_##T(const mb__gemm_call *g, int64_t l, int64_t depth, int64_t j)      \
    {                                                                                                        \
        enum { NR = 2 * BYTES / sizeof(T) };                                                                 \
        const T *b = (const T *)g->b + l * g->b_k + (j + NR) * g->b_n;                                       \
        int64_t left = g->n - j - NR;                                                                        \
        if (left <= 0) {                                                                                     \
            b = g->next_b;                                                                                   \
            left = g->n;                                                                                     \
            depth = g->k < KC ? g->k : KC;                                                                   \
        }                                                                                                    \
        int64_t wide = left < NR ? left : NR;                                                                \
        if (!b || depth * wide < LEAST_ASKED)                                                                \
            return (asked_##T){0};                                                                           \
        return runs_of_##T(b, depth, g->b_k, wide, g->b_n);                                                  \
    }                                                                                                        \
    /* One tile of c, by way of `spare` where its columns are not contiguous. */                             \
    static inline __attribute__((always_inline)) void one_##T(                                               \
        const mb__gemm_call *g, int rows, int64_t w, int64_t depth, const T *a, const rows_of_##T *at,       \
        const T *p, int64_t stride, T *c, int more, T *spare, asked_##T *ask)                                \
    {                                                                                                        \
        enum { W = BYTES / sizeof(T), NR = 2 * W };                                                          \
        const uint32_t mask = w == 32 ? UINT32_MAX : (1u << w) - 1;                                          \
        const int width = w > W ? 2 : w > W / 2 || !MASKS ? 1 : 0;                                           \
        if (g->c_n == 1 && (MASKS || w == NR)) {                                                             \
            rows_##T(rows, width, depth, a, at->m, at->k, p, stride, c, g->c_m, more, mask, ask);            \
            return;                                                                                          \
        }                                                                                                    \
        rows_##T(rows, width, depth, a, at->m, at->k, p, stride, spare, NR, SET, mask, NULL);                \
        for (int64_t r = 0; r < rows; r++)                                                                   \
            for (int64_t q = 0; q < w; q++) {                                                                \
                T *z = c + r * g->c_m + q * g->c_n, v = spare[r * NR + q];                                   \
                *z = more == SUBTRACT ? *z - v : (more ? *z : 0) + v;                                        \
            }                                                                                                \
    }                                                                                                        \
    /* Tiles [begin, end) of all products, `each` a product, at depths [l, l + depth). */                    \
    static void block_##T(const mb__gemm_call *g, int64_t l, int64_t depth, int64_t begin, int64_t end,      \
                          int64_t each, int more)                                                            \
    {                                                                                                        \
        enum { NR = 2 * BYTES / sizeof(T) };                                                                 \
        T *spare = (T *)g->scratch + KC * NR;                                                                \
        const rows_of_##T at = rows_of_a_##T(g, l, depth, begin, end, each);                                 \
        for (int64_t j = 0; j < g->n; j += NR) {                                                             \
            int64_t w = g->n - j < NR ? g->n - j : NR, stride;                                               \
            const T *p = panel_##T(g, l, depth, j, w, end - begin, &stride);                                 \
            asked_##T next = next_panel_##T(g, l, depth, j);                                                 \
            int64_t item = begin ? begin / each : 0, tile = begin - item * each;                             \
            int64_t r0 = tile ? g->m * tile / each : 0;                                                      \
            even rows = even_from(g->m, each, tile), share = even_from(next.left, end - begin, 0);           \
            next.left = 0;                                                                                   \
            for (int64_t i = begin; i < end; i++, tile++) {                                                  \
                if (tile == each)                                                                            \
                    item++, tile = r0 = 0;                                                                   \
                int64_t m = even_next(&rows);                                                                \
                next.left += even_next(&share);                                                              \
                one_##T(g, (int)m, w, depth, at.a + item * at.step + r0 * at.m, &at, p, stride,              \
                        (T *)g->c + item * g->c_step + r0 * g->c_m + j * g->c_n, more, spare, &next);        \
                r0 += m;                                                                                     \
            }                                                                                                \
        }                                                                                                    \
    }                                                                                                        \
    /* A product of one panel and few tiles, of which thousands may follow each other: nothing is asked for  \
     * ahead. */                                                                                             \
    static void small_##T(const mb__gemm_call *g, int more)                                                  \
    {                                                                                                        \
        enum { NR = 2 * BYTES / sizeof(T) };                                                                 \
        const rows_of_##T at = {g->a, g->a_m, g->a_k, 0};                                                    \
        int64_t tiles = (g->m + MR - 1) / MR, height = tiles == 1 ? g->m : (g->m + tiles - 1) / tiles,       \
                stride;                                                                                      \
        const T *p = panel_##T(g, 0, g->k, 0, g->n, tiles, &stride);                                         \
        for (int64_t r = 0; r < g->m; r += height)                                                           \
            one_##T(g, (int)(g->m - r < height ? g->m - r : height), g->n, g->k, at.a + r * at.m, &at, p,    \
                    stride, (T *)g->c + r * g->c_m, more, (T *)g->scratch + KC * NR, NULL);                  \
    }                                                                                                        \
    static void gemm_##T(const mb__gemm_call *g)                                                             \
    {                                                                                                        \
        enum { NR = 2 * BYTES / sizeof(T) };                                                                 \
        if (g->m < 1 || g->n < 1 || g->k < 1)                                                                \
            return;                                                                                          \
        if (g->count == 1 && g->n <= NR && g->m <= 4 * MR && g->n * g->k < LEAST_ASKED && g->k <= KC) {      \
            small_##T(g, g->subtract ? SUBTRACT : g->add ? ADD : SET);                                       \
            return;                                                                                          \
        }                                                                                                    \
        int64_t each = (g->m + MR - 1) / MR, tiles = each * g->count, deepest = g->k < KC ? g->k : KC;       \
        int64_t parts = (tiles * MR * deepest * (int64_t)sizeof(T) + BLOCK_BYTES / 2) / BLOCK_BYTES;         \
        for (int64_t l = 0; l < g->k; l += KC) {                                                             \
            int64_t depth = g->k - l < KC ? g->k - l : KC;                                                   \
            int more = g->subtract ? SUBTRACT : g->add || l > 0 ? ADD : SET;                                 \
            if (parts <= 1)                                                                                  \
                block_##T(g, l, depth, 0, tiles, each, more);                                                \
            for (int64_t part = 0; parts > 1 && part < parts; part++)                                        \
                block_##T(g, l, depth, tiles *part / parts, tiles * (part + 1) / parts, each, more);         \
        }                                                                                                    \
    }

TILE(float)
PACK(float)
ROWS_OF_A(float)
GEMM(float)
TILE(double)
PACK(double)
ROWS_OF_A(double)
GEMM(double)

extern const mb__gemm MB_GEMM[2];
const mb__gemm MB_GEMM[2] = {gemm_float, gemm_double};
