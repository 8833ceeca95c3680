/* SPDX-License-Identifier: MIT
 *
 * turn.h - rows that become columns, in blocks that fit vector registers; for what is compiled once for each
 * instruction set. turn_4 and turn_8, of elements of so many bytes: d[r d_row + c] = a[c a_column + r].
 */
#ifndef MB_CPU_TURN_H
#define MB_CPU_TURN_H

#include <stdint.h>

#define RESTRICT __restrict

/* N rows and columns at a time, through vector registers: elements of neighbours are put in turn, then pairs,
 * then halves of registers. */
typedef uint32_t turned_4 __attribute__((vector_size(32), aligned(4), may_alias));
typedef uint64_t turned_8 __attribute__((vector_size(32), aligned(8), may_alias));
typedef uint32_t word_4 __attribute__((may_alias));
typedef uint64_t word_8 __attribute__((may_alias));
static inline void turn_registers_4(turned_4 v[8])
{
    turned_4 t[8], u[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = __builtin_shufflevector(v[i], v[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        t[i + 1] = __builtin_shufflevector(v[i], v[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (int half = 0; half < 8; half += 4)
        for (int i = half; i < half + 2; i++) {
            u[2 * i - half] = __builtin_shufflevector(t[i], t[i + 2], 0, 1, 8, 9, 4, 5, 12, 13);
            u[2 * i - half + 1] = __builtin_shufflevector(t[i], t[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        }
    for (int i = 0; i < 4; i++) {
        v[i] = __builtin_shufflevector(u[i], u[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        v[i + 4] = __builtin_shufflevector(u[i], u[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}
static inline void turn_registers_8(turned_8 v[4])
{
    turned_8 t[4];
    for (int i = 0; i < 4; i += 2) {
        t[i] = __builtin_shufflevector(v[i], v[i + 1], 0, 4, 2, 6);
        t[i + 1] = __builtin_shufflevector(v[i], v[i + 1], 1, 5, 3, 7);
    }
    for (int i = 0; i < 2; i++) {
        v[i] = __builtin_shufflevector(t[i], t[i + 2], 0, 1, 4, 5);
        v[i + 2] = __builtin_shufflevector(t[i], t[i + 2], 2, 3, 6, 7);
    }
}

/* What is left of a block at an edge: `rows` of its rows and `columns` of its columns. */
#if defined(__AVX512VL__)
#include <immintrin.h>
#define EDGE(BYTES, BITS)                                                                                    \
    static inline void turn_edge_##BYTES(int64_t rows, int64_t columns, word_##BYTES *d, int64_t d_row,      \
                                         const word_##BYTES *a, int64_t a_column)                            \
    {                                                                                                        \
        enum { N = 32 / BYTES };                                                                             \
        const __mmask8 down = (__mmask8)((1u << rows) - 1), across = (__mmask8)((1u << columns) - 1);        \
        turned_##BYTES v[N];                                                                                 \
        for (int i = 0; i < N; i++)                                                                          \
            v[i] = (turned_##BYTES)_mm256_maskz_loadu_epi##BITS(i < columns ? down : 0, a + i * a_column);   \
        turn_registers_##BYTES(v);                                                                           \
        for (int i = 0; i < N; i++)                                                                          \
            _mm256_mask_storeu_epi##BITS(d + i * d_row, i < rows ? across : 0, (__m256i)v[i]);               \
    }
#else
#define EDGE(BYTES, BITS)                                                                                    \
    static inline void turn_edge_##BYTES(int64_t rows, int64_t columns, word_##BYTES *d, int64_t d_row,      \
                                         const word_##BYTES *a, int64_t a_column)                            \
    {                                                                                                        \
        for (int64_t c = 0; c < columns; c++)                                                                \
            for (int64_t r = 0; r < rows; r++)                                                               \
                d[r * d_row + c] = a[c * a_column + r];                                                      \
    }
#endif
EDGE(4, 32)
EDGE(8, 64)

#define TURN(BYTES)                                                                                          \
    static inline void turn_block_##BYTES(word_##BYTES *d, int64_t d_row, const word_##BYTES *a,             \
                                          int64_t a_column)                                                  \
    {                                                                                                        \
        enum { N = 32 / BYTES };                                                                             \
        turned_##BYTES v[N];                                                                                 \
        for (int i = 0; i < N; i++)                                                                          \
            v[i] = *(const turned_##BYTES *)(a + i * a_column);                                              \
        turn_registers_##BYTES(v);                                                                           \
        for (int i = 0; i < N; i++)                                                                          \
            *(turned_##BYTES *)(d + i * d_row) = v[i];                                                       \
    }                                                                                                        \
    static inline void turn_##BYTES(int64_t rows, int64_t columns, void *RESTRICT d_, int64_t d_row,         \
                                    const void *RESTRICT a_, int64_t a_column)                               \
    {                                                                                                        \
        enum { N = 32 / BYTES };                                                                             \
        word_##BYTES *d = d_;                                                                                \
        const word_##BYTES *a = a_;                                                                          \
        for (int64_t c = 0; c < columns;                                                                     \
             c += N) /* all of N columns: they may meet in one place of a cache */                           \
            for (int64_t r = 0; r < rows; r += N) {                                                          \
                int64_t down = rows - r, across = columns - c;                                               \
                if (down >= N && across >= N)                                                                \
                    turn_block_##BYTES(d + r * d_row + c, d_row, a + c * a_column + r, a_column);            \
                else                                                                                         \
                    turn_edge_##BYTES(down < N ? down : N, across < N ? across : N, d + r * d_row + c,       \
                                      d_row, a + c * a_column + r, a_column);                                \
            }                                                                                                \
    }
TURN(4)
TURN(8)

#endif
