/* SPDX-License-Identifier: MIT
 *
 * sort.c - see sort.h.
 *
 * Of an element of a long row a pair is made: above, its key, below, its place. Pairs are sorted digit by
 * digit of the key, from the lowest on, those of one digit staying in their order. Of keys of 8 bytes the
 * lower half comes first, and the upper half sorts what that has sorted. */
#include "backends/cpu/sort.h"

enum { BITS = 8, DIGITS = 1 << BITS, PASSES = 32 / BITS };

static inline uint64_t pair_of(uint32_t key, int64_t place)
{
    return (uint64_t)key << 32 | (uint32_t)place;
}

static inline uint32_t digit(uint64_t pair, int pass)
{
    return (uint32_t)(pair >> (32 + pass * BITS)) & (DIGITS - 1);
}

/* From how many pairs have each digit: to where they begin, and there, in their order. Compiled for each
 * pass. */
static inline void one_pass(const uint64_t *from, uint64_t *to, int64_t n, uint32_t *at, int pass)
{
    uint32_t sum = 0;
    for (int d = 0; d < DIGITS; d++) {
        uint32_t many = at[d];
        at[d] = sum;
        sum += many;
    }
    for (int64_t i = 0; i < n; i++) {
        const uint64_t p = from[i];
        to[at[digit(p, pass)]++] = p;
    }
}

/* The n pairs of `from`; where they are then: there, or in `to`. */
static uint64_t *by_digits(uint64_t *from, uint64_t *to, int64_t n)
{
    uint32_t count[PASSES][DIGITS] = {{0}};
    for (int64_t i = 0; i < n; i++) {
        const uint64_t p = from[i];
        count[0][digit(p, 0)]++;
        count[1][digit(p, 1)]++;
        count[2][digit(p, 2)]++;
        count[3][digit(p, 3)]++;
    }
    for (int p = 0; p < PASSES; p++) {
        if (count[p][digit(*from, p)] == n)
            continue; /* all have this digit */
        switch (p) {
        case 0:
            one_pass(from, to, n, count[0], 0);
            break;
        case 1:
            one_pass(from, to, n, count[1], 1);
            break;
        case 2:
            one_pass(from, to, n, count[2], 2);
            break;
        default:
            one_pass(from, to, n, count[3], 3);
            break;
        }
        uint64_t *other = from;
        from = to;
        to = other;
    }
    return from;
}

/* ---- rows ---- */

#define UPPER_BIT (UINT32_C(1) << 31)

static uint64_t *sorted_floats(uint64_t *pair, int64_t n, const float *x, int64_t x_step)
{
    for (int64_t i = 0; i < n; i++)
        pair[i] = pair_of((uint32_t)mb__key_of_float(x[i * x_step]) ^ UPPER_BIT, i);
    return by_digits(pair, pair + n, n);
}

static uint64_t *sorted_integers(uint64_t *pair, int64_t n, const int32_t *x, int64_t x_step)
{
    for (int64_t i = 0; i < n; i++)
        pair[i] = pair_of((uint32_t)x[i * x_step] ^ UPPER_BIT, i);
    return by_digits(pair, pair + n, n);
}

static uint64_t *sorted_doubles(uint64_t *pair, int64_t n, const double *x, int64_t x_step)
{
    for (int64_t i = 0; i < n; i++)
        pair[i] = pair_of((uint32_t)mb__key_of_double(x[i * x_step]), i);
    uint64_t *by_lower = by_digits(pair, pair + n, n);
    for (int64_t i = 0; i < n; i++) {
        uint32_t place = (uint32_t)by_lower[i];
        uint64_t key = (uint64_t)mb__key_of_double(x[place * x_step]);
        by_lower[i] = pair_of((uint32_t)(key >> 32) ^ UPPER_BIT, place);
    }
    return by_digits(by_lower, by_lower == pair ? pair + n : pair, n);
}

size_t mb__cpu_argsort_bytes(int64_t n)
{
    return n > MB_AXIS_SHORT ? (size_t)n * 2 * sizeof(uint64_t) : 0;
}

void mb__cpu_argsort(const mb__axis_loops *loops, int dtype, int64_t n, const void *x, int64_t x_step,
                     int32_t *y, int64_t y_step, void *memory)
{
    if (n <= MB_AXIS_SHORT) {
        loops->argsort_short(n, x, x_step, y, y_step);
        return;
    }
    const uint64_t *pair = dtype == MB_FLOAT32   ? sorted_floats(memory, n, x, x_step)
                           : dtype == MB_FLOAT64 ? sorted_doubles(memory, n, x, x_step)
                                                 : sorted_integers(memory, n, x, x_step);
    for (int64_t i = 0; i < n; i++)
        y[i * y_step] = (int32_t)(uint32_t)pair[i];
}
