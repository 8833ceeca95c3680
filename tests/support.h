/* SPDX-License-Identifier: MIT
 *
 * support.h - what the tests share: contexts that count their memory, random operands, comparing values.
 *
 * A test opens contexts with open_on or open_as and closes them with close_all, which also expects that no
 * memory is left and frees every array that `values` gave out. */
#ifndef MB_TESTS_SUPPORT_H
#define MB_TESTS_SUPPORT_H

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moebius.h>

/* ---- expectations that go on, and say which case of a loop failed ---- */

/* Counts a failure of the running test and prints the message; the first 8 of them. */
bool expect_at(const char *file, int line, bool ok, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
#define expect(...) expect_at(__FILE__, __LINE__, __VA_ARGS__)
/* The context has no error. */
#define expect_ok(ctx) expect(mb_error(ctx) == MB_OK, "%s", mb_message(ctx))

/* ---- contexts ---- */

/* Counts, and fails, allocations. */
typedef struct counter {
    uint64_t calls;        /* that asked for memory */
    uint64_t fail_at;      /* this call returns NULL, counted from 1; 0: none */
    bool fail_on;          /* and so do all later ones */
    int64_t blocks, bytes; /* held now */
    int64_t peak;          /* most bytes held since it was last set to them */
} counter;

mb_allocator counting_allocator(counter *c);

mb_context *open_on(const char *backend);
/* disable: passes to leave out, or NULL; threads: 0 for the default. */
mb_context *open_as(const char *backend, const char *disable, int threads);
/* Closes what open_on and open_as opened; expects no error and no memory left. */
void close_all(void);
/* The same for one context whose error the test has looked at. */
void close_failed(mb_context *ctx);

/* reference, cpu; or $TESTS_BACKEND in the cpu's place, here and wherever a test opens "cpu". */
extern const char *backend_names[2];
/* Whether the tests run on that backend, and the reference: for what holds of one only. */
bool testing(const char *backend);

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

/* t's values as doubles; freed by close_all. NaN-filled after an error, which is expected not to be. */
double *values(mb_tensor t);
/* The same where an error is expected: NULL then. */
double *values_if(mb_tensor t);
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

double seconds(void);

#endif
