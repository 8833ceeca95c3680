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

static inline uint32_t place_of(uint64_t pair)
{
    return (uint32_t)pair;
}

/* n pairs of which the places are there, in ascending order: sorted. They are then where this says, there or
 * n pairs on. */
static uint64_t *sorted_floats(const mb__sort_call *s, uint64_t *pair, uint64_t *other, int64_t n)
{
    const float *x = s->x;
    const uint32_t turned = s->descending ? ~UPPER_BIT : UPPER_BIT;
    for (int64_t i = 0; i < n; i++)
        pair[i] =
            pair_of((uint32_t)mb__key_of_float(x[place_of(pair[i]) * s->x_step]) ^ turned, place_of(pair[i]));
    return by_digits(pair, other, n);
}

static uint64_t *sorted_integers(const mb__sort_call *s, uint64_t *pair, uint64_t *other, int64_t n)
{
    const int32_t *x = s->x;
    const uint32_t turned = s->descending ? ~UPPER_BIT : UPPER_BIT;
    for (int64_t i = 0; i < n; i++)
        pair[i] = pair_of((uint32_t)x[place_of(pair[i]) * s->x_step] ^ turned, place_of(pair[i]));
    return by_digits(pair, other, n);
}

static uint64_t *sorted_doubles(const mb__sort_call *s, uint64_t *pair, uint64_t *other, int64_t n)
{
    const double *x = s->x;
    const uint64_t turned = s->descending ? UINT64_MAX : 0;
    for (int64_t i = 0; i < n; i++) {
        uint64_t key = (uint64_t)mb__key_of_double(x[place_of(pair[i]) * s->x_step]) ^ turned;
        pair[i] = pair_of((uint32_t)key, place_of(pair[i]));
    }
    uint64_t *by_lower = by_digits(pair, other, n);
    for (int64_t i = 0; i < n; i++) {
        uint32_t place = place_of(by_lower[i]);
        uint64_t key = (uint64_t)mb__key_of_double(x[place * s->x_step]) ^ turned;
        by_lower[i] = pair_of((uint32_t)(key >> 32) ^ UPPER_BIT, place);
    }
    return by_digits(by_lower, by_lower == pair ? other : pair, n);
}

/* Whether element a comes before b, of keys that differ. */
static inline bool comes_first(const mb__sort_call *s, int dtype, int64_t a, int64_t b)
{
    a *= s->x_step;
    b *= s->x_step;
    int64_t x, y;
    if (dtype == MB_FLOAT64) {
        x = mb__key_of_double(((const double *)s->x)[a]);
        y = mb__key_of_double(((const double *)s->x)[b]);
    } else if (dtype == MB_FLOAT32) {
        x = mb__key_of_float(((const float *)s->x)[a]);
        y = mb__key_of_float(((const float *)s->x)[b]);
    } else {
        x = ((const int32_t *)s->x)[a];
        y = ((const int32_t *)s->x)[b];
    }
    return s->descending ? x > y : x < y;
}

/* Pairs that are sorted at once: all, or so many more than are wanted that few of them are sorted again. */
static int64_t room_for(int64_t n, int64_t wanted)
{
    int64_t room = 2 * wanted + 512;
    return wanted < n / 4 && room < n / 2 ? room : n;
}

size_t mb__cpu_argsort_bytes(int64_t n, int64_t wanted)
{
    return n > MB_AXIS_SHORT && wanted > MB_AXIS_FEW ? (size_t)room_for(n, wanted) * 2 * sizeof(uint64_t) : 0;
}

/* Places are gathered until there is no room, and the first of them kept: from then on only what comes before
 * the last of these is gathered. */
static const uint64_t *leading(const mb__sort_call *s, int dtype, uint64_t *pair)
{
    int64_t room = room_for(s->n, s->wanted), held = 0, i = 0;
    uint64_t *sorted = pair;
    for (; i < room; i++)
        pair[held++] = (uint64_t)i;
    for (;;) {
        sorted = dtype == MB_FLOAT32   ? sorted_floats(s, pair, pair + room, held)
                 : dtype == MB_FLOAT64 ? sorted_doubles(s, pair, pair + room, held)
                                       : sorted_integers(s, pair, pair + room, held);
        if (i == s->n)
            return sorted;
        held = s->wanted;
        if (sorted != pair)
            memcpy(pair, sorted, (size_t)held * sizeof *pair);
        int64_t last = place_of(pair[held - 1]);
        for (; i < s->n && held < room; i++) {
            pair[held] = (uint64_t)i;
            held += comes_first(s, dtype, i, last);
        }
    }
}

void mb__cpu_argsort(const mb__axis_loops *loops, int dtype, const mb__sort_call *s, void *memory)
{
    if (s->n <= MB_AXIS_SHORT || (s->wanted <= MB_AXIS_FEW && s->wanted)) {
        (s->n <= MB_AXIS_SHORT ? loops->argsort_short : loops->leading_few)(s);
        return;
    }
    const uint64_t *pair = s->wanted ? leading(s, dtype, memory) : NULL;
    for (int64_t i = 0; i < s->n; i++)
        s->y[i * s->y_step] = i < s->wanted ? (int32_t)place_of(pair[i]) : 0;
}
