/* SPDX-License-Identifier: MIT
 *
 * gemm_bf16.c - products of bfloat16 for CPUs that multiply pairs of them (AVX512-BF16): c = a b or c += a b,
 * with c float32. An instruction takes two neighbours along k at once, each product added in float32; what is
 * below float32's normal numbers counts as 0 there.
 *
 * A pair is a word: the element at an even place of k in its lower half, its neighbour, or 0 behind the end,
 * in its upper one. b is put in panels of NR columns, of pairs; a is read in place where its pairs lie
 * together, else it is put in pairs as well.
 */
#include <immintrin.h>

#include "backends/cpu/loops.h"
#include "backends/cpu/turn.h"

enum { W = 16, NR = 2 * W, MR = 14 };

/* Words that memory holds at any two bytes. */
typedef uint32_t word __attribute__((aligned(2), may_alias));

/* Two rows of `columns` elements, one after the other along k, or one and nothing. */
static void two_rows(uint32_t *to, int64_t columns, const uint16_t *even, const uint16_t *odd)
{
    for (int64_t j = 0; j < columns; j += W) {
        const __mmask16 in = columns - j < W ? (__mmask16)((1u << (columns - j)) - 1) : (__mmask16)0xffff;
        __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(in, even + j)),
                high = _mm512_setzero_si512();
        if (odd)
            high = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(in, odd + j)), 16);
        _mm512_mask_storeu_epi32(to + j, in, _mm512_or_si512(low, high));
    }
}

/* to[p row + j]: pair p of column j, for k elements of each of `columns`; x_k and x_n: strides of x. */
static void put_in_pairs(uint32_t *to, int64_t row, int64_t k, int64_t columns, const uint16_t *x,
                         int64_t x_k, int64_t x_n)
{
    int64_t whole = k / 2, p = 0;
    if (x_n == 1) {
        for (; p < (k + 1) / 2; p++)
            two_rows(to + p * row, columns, x + 2 * p * x_k, p < whole ? x + (2 * p + 1) * x_k : NULL);
        return;
    }
    if (x_k == 1 && x_n % 2 == 0) {
        turn_4(whole, columns, to, row, x, x_n / 2);
        p = whole;
    }
    for (; p < (k + 1) / 2; p++)
        for (int64_t j = 0; j < columns; j++) {
            const uint16_t *at = x + 2 * p * x_k + j * x_n;
            to[p * row + j] = at[0] | (p < whole ? (uint32_t)at[x_k] << 16 : 0);
        }
}

/* `rows` rows of c by `wide` vectors of columns, both constants where this is inlined. a_m, a_p: of halves.
 */
static inline __attribute__((always_inline)) void tile(const int rows, const int wide, int64_t pairs,
                                                       const uint16_t *a, int64_t a_m, int64_t a_p,
                                                       const uint32_t *b, float *c, int64_t c_m, bool add,
                                                       uint32_t mask)
{
    __m512 s0[MR], s1[MR];
    _Pragma("GCC unroll 16") for (int i = 0; i < rows; i++) s0[i] = s1[i] = _mm512_setzero_ps();
    for (int64_t p = 0; p < pairs; p++) {
        const __m512bh b0 = (__m512bh)_mm512_loadu_si512(b + p * NR),
                       b1 = wide > 1 ? (__m512bh)_mm512_loadu_si512(b + p * NR + W) : b0;
        _Pragma("GCC unroll 16") for (int i = 0; i < rows; i++)
        {
            const __m512bh x = (__m512bh)_mm512_set1_epi32((int)*(const word *)(a + i * a_m + p * a_p));
            s0[i] = _mm512_dpbf16_ps(s0[i], x, b0);
            if (wide > 1)
                s1[i] = _mm512_dpbf16_ps(s1[i], x, b1);
        }
    }
    const __mmask16 m0 = (__mmask16)mask, m1 = (__mmask16)(mask >> W);
    _Pragma("GCC unroll 16") for (int i = 0; i < rows; i++)
    {
        float *c0 = c + i * c_m, *c1 = c0 + W;
        _mm512_mask_storeu_ps(c0, m0, add ? _mm512_add_ps(s0[i], _mm512_maskz_loadu_ps(m0, c0)) : s0[i]);
        if (wide > 1)
            _mm512_mask_storeu_ps(c1, m1, add ? _mm512_add_ps(s1[i], _mm512_maskz_loadu_ps(m1, c1)) : s1[i]);
    }
}

#define ROWS(n)                                                                                              \
    case 2 * n:                                                                                              \
        tile(n, 1, pairs, a, a_m, a_p, b, c, c_m, add, mask);                                                \
        break;                                                                                               \
    case 2 * n + 1:                                                                                          \
        tile(n, 2, pairs, a, a_m, a_p, b, c, c_m, add, mask);                                                \
        break;
static void some_rows(int rows, bool wide, int64_t pairs, const uint16_t *a, int64_t a_m, int64_t a_p,
                      const uint32_t *b, float *c, int64_t c_m, bool add, uint32_t mask)
{
    switch (2 * rows + wide) {
        ROWS(1)
        ROWS(2)
        ROWS(3)
        ROWS(4)
        ROWS(5)
        ROWS(6)
        ROWS(7)
        ROWS(8)
        ROWS(9)
        ROWS(10)
        ROWS(11)
        ROWS(12)
        ROWS(13)
        ROWS(14)
    default:
        break;
    }
}

static void prepare(int64_t k, int64_t n, const uint16_t *b, int64_t b_k, int64_t b_n, uint32_t *panels)
{
    for (int64_t j = 0; j < n; j += NR, panels += (k + 1) / 2 * NR)
        put_in_pairs(panels, NR, k, n - j < NR ? n - j : NR, b + j * b_n, b_k, b_n);
}

static void multiply(const mb__bf16_call *g)
{
    int64_t pairs = (g->k + 1) / 2, tiles = (g->m + MR - 1) / MR,
            height = tiles > 0 ? (g->m + tiles - 1) / tiles : 0;
    const uint16_t *a = g->a;
    int64_t a_m = g->a_m, a_p = 2;
    if (g->a_k != 1 || g->k % 2) {
        put_in_pairs(g->pairs_of_a, g->m, g->k, g->m, g->a, g->a_k, g->a_m);
        a = (const uint16_t *)g->pairs_of_a;
        a_m = 2;
        a_p = 2 * g->m;
    }
    for (int64_t j = 0; j < g->n; j += NR) {
        int64_t w = g->n - j < NR ? g->n - j : NR;
        uint32_t mask = w == NR ? UINT32_MAX : (1u << w) - 1;
        const uint32_t *panel = g->panels + j * pairs;
        for (int64_t i = 0; i < g->m; i += height)
            some_rows((int)(g->m - i < height ? g->m - i : height), w > W, pairs, a + i * a_m, a_m, a_p,
                      panel, g->c + i * g->c_m + j, g->c_m, g->add, mask);
    }
}

const mb__bf16_loops mb__bf16_pairs = {prepare, multiply};
