/* SPDX-License-Identifier: MIT
 *
 * turn.h - rows that become columns, in blocks that fit vector registers; for what is compiled once for each
 * instruction set. turn_4 and turn_8, of elements of so many bytes: d[r d_row + c] = a[c a_column + r].
 */
#ifndef MB_CPU_TURN_H
#define MB_CPU_TURN_H

#include <stdint.h>

#define RESTRICT __restrict

/* N rows and columns at a time, through vector registers: halves, quarters, ... of them change places. */
typedef uint32_t turned_4 __attribute__((vector_size(32), aligned(4), may_alias));
typedef uint64_t turned_8 __attribute__((vector_size(32), aligned(8), may_alias));
typedef uint32_t word_4 __attribute__((may_alias));
typedef uint64_t word_8 __attribute__((may_alias));
#define SWAP_4(v, i, j, ...)                                                                                 \
    {                                                                                                        \
        const turned_4 x = v[i], y = v[j];                                                                   \
        v[i] = __builtin_shufflevector(x, y, LOW_##__VA_ARGS__);                                             \
        v[j] = __builtin_shufflevector(x, y, HIGH_##__VA_ARGS__);                                            \
    }
#define LOW_4  0, 1, 2, 3, 8, 9, 10, 11
#define HIGH_4 4, 5, 6, 7, 12, 13, 14, 15
#define LOW_2  0, 1, 8, 9, 4, 5, 12, 13
#define HIGH_2 2, 3, 10, 11, 6, 7, 14, 15
#define LOW_1  0, 8, 2, 10, 4, 12, 6, 14
#define HIGH_1 1, 9, 3, 11, 5, 13, 7, 15
static inline void turn_block_4(word_4 *d, int64_t d_row, const word_4 *a, int64_t a_column)
{
    turned_4 v[8];
    for (int i = 0; i < 8; i++)
        v[i] = *(const turned_4 *)(a + i * a_column);
    for (int i = 0; i < 4; i++)
        SWAP_4(v, i, i + 4, 4)
    for (int i = 0; i < 8; i += i % 4 == 1 ? 3 : 1)
        SWAP_4(v, i, i + 2, 2)
    for (int i = 0; i < 8; i += 2)
        SWAP_4(v, i, i + 1, 1)
    for (int i = 0; i < 8; i++)
        *(turned_4 *)(d + i * d_row) = v[i];
}
static inline void turn_block_8(word_8 *d, int64_t d_row, const word_8 *a, int64_t a_column)
{
    turned_8 v[4], w[4];
    for (int i = 0; i < 4; i++)
        v[i] = *(const turned_8 *)(a + i * a_column);
    for (int i = 0; i < 2; i++) {
        w[i] = __builtin_shufflevector(v[i], v[i + 2], 0, 1, 4, 5);
        w[i + 2] = __builtin_shufflevector(v[i], v[i + 2], 2, 3, 6, 7);
    }
    for (int i = 0; i < 4; i += 2) {
        *(turned_8 *)(d + i * d_row) = __builtin_shufflevector(w[i], w[i + 1], 0, 4, 2, 6);
        *(turned_8 *)(d + (i + 1) * d_row) = __builtin_shufflevector(w[i], w[i + 1], 1, 5, 3, 7);
    }
}
#define TURN(BYTES)                                                                                          \
    static void turn_##BYTES(int64_t rows, int64_t columns, void *RESTRICT d_, int64_t d_row,                \
                             const void *RESTRICT a_, int64_t a_column)                                      \
    {                                                                                                        \
        enum { N = 32 / BYTES };                                                                             \
        word_##BYTES *d = d_;                                                                                \
        const word_##BYTES *a = a_;                                                                          \
        int64_t whole = columns / N * N, down = rows / N * N;                                                \
        for (int64_t c = 0; c < whole; c += N) /* all of N columns: they may meet in one place of a cache */ \
            for (int64_t r = 0; r < down; r += N)                                                            \
                turn_block_##BYTES(d + r * d_row + c, d_row, a + c * a_column + r, a_column);                \
        for (int64_t c = 0; c < columns; c++)                                                                \
            for (int64_t r = c < whole ? down : 0; r < rows; r++)                                            \
                d[r * d_row + c] = a[c * a_column + r];                                                      \
    }
TURN(4)
TURN(8)

#endif
