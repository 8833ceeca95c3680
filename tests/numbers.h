/* SPDX-License-Identifier: MIT
 *
 * numbers.h - random operands, and values to compare: what tests share with programs that have no Criterion.
 */
#ifndef MB_TESTS_NUMBERS_H
#define MB_TESTS_NUMBERS_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moebius.h>

/* ---- random numbers: SplitMix64 ---- */

typedef struct rng {
    uint64_t state;
} rng;

uint64_t rng_bits(rng *r);
int64_t rng_below(rng *r, int64_t n);
double rng_between(rng *r, double low, double high);

/* A buffer of values uniform on [low, high); int32: integers of that range; bool: either. */
mb_tensor draw(mb_context *ctx, rng *r, mb_dtype dtype, mb_shape shape, double low, double high);
/* A buffer of the given values, converted. */
mb_tensor from_doubles(mb_context *ctx, mb_dtype dtype, mb_shape shape, const double *data);

/* ---- values ---- */

/* t's values as doubles; freed by free_values. After an error: NaN, or NULL. */
double *values_or_nan(mb_tensor t, mb_status *status);
double *values_if(mb_tensor t);
void free_values(void);
int64_t shape_count(mb_shape s);
/* "[3,4]", in one of a few static buffers. */
const char *shape_text(mb_shape s);
bool same_shape(mb_shape a, mb_shape b);

/* mean((a-b)^2) / mean(b^2) over entries finite in b; infinity where NaN, infinities or their signs differ.
 */
double nmse(const double *a, const double *b, int64_t n);
bool same_bits(const double *a, const double *b, int64_t n);
/* |a - b| <= absolute + relative |b|; NaN equals NaN. */
bool near(double a, double b, double relative, double absolute);

/* ---- memory ---- */

/* Counts, and fails, allocations. */
typedef struct counter {
    uint64_t calls;        /* that asked for memory */
    uint64_t fail_at;      /* this call returns NULL, counted from 1; 0: none */
    bool fail_on;          /* and so do all later ones */
    int64_t blocks, bytes; /* held now */
    int64_t peak;          /* most bytes held since it was last set to them */
} counter;

mb_allocator counting_allocator(counter *c);

#endif
