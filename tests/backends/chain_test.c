/* SPDX-License-Identifier: MIT
 *
 * Chains: arithmetic that the cpu backend runs as one loop of machine code has the same bits as op by op, for
 * every op, any mixture of values per element, per row and for all, and numbers that are no ordinary ones.
 * FUZZ_COUNT=n runs so many programs, from FUZZ_FROM on where that is set. */
#include <string.h>

#include "support.h"

/* ---- random arithmetic ---- */

typedef mb_tensor (*unary)(mb_tensor x);
typedef mb_tensor (*binary)(mb_tensor a, mb_tensor b);
#define UNARY(name)                                                                                          \
    static mb_tensor name##_of(mb_tensor x)                                                                  \
    {                                                                                                        \
        return mb_##name(x);                                                                                 \
    }
#define BINARY(name)                                                                                         \
    static mb_tensor name##_of(mb_tensor a, mb_tensor b)                                                     \
    {                                                                                                        \
        return mb_##name(a, b);                                                                              \
    }
UNARY(neg)
UNARY(recip)
UNARY(sqrt)
UNARY(rsqrt)
UNARY(abs)
UNARY(floor)
UNARY(ceil)
UNARY(round)
UNARY(trunc)
UNARY(sign)
UNARY(exp)
UNARY(sigmoid)
BINARY(add)
BINARY(sub)
BINARY(mul)
BINARY(div)
BINARY(maximum)
BINARY(minimum)
BINARY(lt)
BINARY(le)
BINARY(eq)
static const unary unaries[] = {neg_of,  recip_of, sqrt_of,  rsqrt_of, abs_of, floor_of,
                                ceil_of, round_of, trunc_of, sign_of,  exp_of, sigmoid_of};
static const binary binaries[] = {add_of, sub_of, mul_of, div_of, maximum_of, minimum_of},
                    comparisons[] = {lt_of, le_of, eq_of};
#define ONE_OF(array, r) array[rng_below(r, (int64_t)(sizeof array / sizeof *array))]

enum { INPUTS = 6, OPS = 60, RESULTS = 3 };

typedef struct kit {
    mb_tensor number[INPUTS + OPS], truth[OPS + 2];
    int numbers, truths;
} kit;

/* Ordinary numbers, and all kinds of others. */
static mb_tensor input(mb_context *ctx, rng *r, mb_dtype dtype, int64_t rows, int64_t columns)
{
    static const double special[] = {0,        -0.0,      1,           -1,       2,       0.5,  -0.5,
                                     INFINITY, -INFINITY, (double)NAN, 1e-40,    -1e-40,  3e38, -3e38,
                                     1.5,      -2.5,      1e-30,       16777217, 0x1p-149};
    int64_t n = rows * columns;
    double *x = calloc((size_t)n, sizeof *x);
    cr_assert(x);
    for (int64_t i = 0; i < n; i++)
        x[i] = rng_below(r, 4) ? rng_between(r, -3, 3) : ONE_OF(special, r);
    mb_tensor t = from_doubles(ctx, dtype, MB_SHAPE(rows, columns), x);
    free(x);
    return t;
}

static mb_tensor some(kit *k, rng *r)
{
    /* Mostly of the newest, so that chains are long; now and then an old one, which has to wait. */
    int64_t n = rng_below(r, 3) && k->numbers > 8 ? 8 : k->numbers;
    return k->number[k->numbers - 1 - (int)rng_below(r, n)];
}

static mb_tensor some_truth(kit *k, rng *r)
{
    return k->truth[rng_below(r, k->truths)];
}

static void add_truth(kit *k, rng *r)
{
    mb_tensor t;
    switch (rng_below(r, 4)) {
    case 0:
        t = mb_not(some_truth(k, r));
        break;
    case 1:
        t = mb_and(some_truth(k, r), some_truth(k, r));
        break;
    case 2:
        t = mb_or(some_truth(k, r), some_truth(k, r));
        break;
    default:
        t = mb_cast(some(k, r), MB_BOOL);
    }
    k->truth[k->truths++] = t; /* chosen from those before it */
}

static void add_op(kit *k, rng *r, mb_dtype dtype)
{
    int64_t kind = rng_below(r, 20);
    if (kind < 3) {
        mb_tensor t = ONE_OF(comparisons, r)(some(k, r), some(k, r));
        k->truth[k->truths++] = t;
        return;
    }
    if (kind == 3) {
        add_truth(k, r);
        return;
    }
    mb_tensor x = some(k, r), y = some(k, r), z;
    if (kind == 4)
        z = mb_where(some_truth(k, r), x, y);
    else if (kind == 5)
        z = mb_cast(some_truth(k, r), dtype);
    else if (kind == 6)
        z = mb_sum(x, MB_KEEP(1));
    else if (kind == 7)
        z = mb_mul(x, rng_below(r, 2) ? 0.0713548163 : -24);
    else if (kind == 8)
        z = mb_minimum(mb_maximum(x, -1.5), 2);
    else if (kind < 12)
        z = ONE_OF(unaries, r)(x);
    else
        z = ONE_OF(binaries, r)(x, y);
    k->number[k->numbers++] = z;
}

/* Results of a random program; the same for the same seed. */
static int program(mb_context *ctx, uint64_t seed, mb_dtype dtype, double **results, int64_t *counts)
{
    static const int64_t sizes[] = {1,  2,  3,  5,  7,  8,  9,   15,  16,   17,
                                    31, 47, 48, 49, 50, 64, 100, 257, 1025, 1100};
    rng r = {seed};
    int64_t rows = ONE_OF(sizes, &r), columns = ONE_OF(sizes, &r);
    if (rows > 100)
        rows = 1 + rows % 4;
    kit k = {.numbers = 0};
    for (int i = 0; i < 2; i++)
        k.number[k.numbers++] = input(ctx, &r, dtype, rows, columns);
    k.number[k.numbers++] = input(ctx, &r, dtype, rows, 1);
    k.number[k.numbers++] = input(ctx, &r, dtype, 1, columns);
    k.number[k.numbers++] = input(ctx, &r, dtype, 1, 1);
    mb_tensor wide = input(ctx, &r, dtype, columns, rows + 3); /* a view that is not contiguous */
    k.number[k.numbers++] = mb_slice(mb_transpose(wide), 0, 2, rows, 1);
    k.truth[k.truths++] = mb_lt(k.number[0], k.number[2]);
    int64_t ops = 3 + rng_below(&r, OPS - 3);
    for (int64_t i = 0; i < ops; i++)
        add_op(&k, &r, dtype);
    int n = 0;
    for (; n < RESULTS; n++) {
        mb_tensor t = n == 0 ? k.number[k.numbers - 1] : some(&k, &r);
        if (n == 2)
            t = mb_cast(some_truth(&k, &r), dtype);
        if (rng_below(&r, 4) == 0)
            t = mb_sum(t, MB_AXES(0));
        mb_keep(t);
        k.number[k.numbers++] = t;
    }
    for (int i = 0; i < RESULTS; i++) {
        mb_tensor t = k.number[k.numbers - RESULTS + i];
        results[i] = values(t);
        counts[i] = shape_count(mb_shape_of(t));
    }
    return n;
}

/* The first element that differs, or n. Which of two NaNs goes on is the compiler's choice in loops. */
static int64_t first_difference(const double *a, const double *b, int64_t n)
{
    int64_t i = 0;
    while (i < n && ((isnan(a[i]) && isnan(b[i])) || same_bits(a + i, b + i, 1)))
        i++;
    return i;
}

static void compare(uint64_t seed, mb_dtype dtype, int threads)
{
    double *with[RESULTS], *without[RESULTS];
    int64_t counts[RESULTS];
    program(open_as("cpu", NULL, threads), seed, dtype, with, counts);
    int n = program(open_as("cpu", "chain", 1), seed, dtype, without, counts);
    for (int i = 0; i < n; i++) {
        int64_t at = first_difference(with[i], without[i], counts[i]);
        expect(at == counts[i], "seed %llu, %s, result %d [%lld]: %g for %g", (unsigned long long)seed,
               mb_dtype_name(dtype), i, (long long)at, with[i][at % counts[i]], without[i][at % counts[i]]);
    }
    close_all();
}

Test(chain, has_the_bits_of_op_by_op, .timeout = 300)
{
    if (!testing("cpu"))
        return;
    const char *many = getenv("FUZZ_COUNT"), *first = getenv("FUZZ_FROM");
    uint64_t from = first ? strtoull(first, NULL, 10) : 1, slow = getenv("TESTS_SLOW") ? 150 : 600;
    uint64_t end = from + (many ? strtoull(many, NULL, 10) : slow);
    for (uint64_t seed = from; seed < end; seed++)
        compare(seed,
                seed % 8 == 7   ? MB_BFLOAT16
                : seed % 8 == 5 ? MB_FLOAT64
                                : MB_FLOAT32,
                1 + (int)(seed % 2));
}

/* More values wanted at once than there are vector registers: rounds in which each is mixed with the next
 * one. Some wait on the stack, beside numbers for all columns and for a row. */
Test(chain, more_values_than_registers)
{
    enum { VALUES = 24, ROUNDS = 3, ROWS = 3, COLUMNS = 77 };
    if (!testing("cpu"))
        return;
    double *result[2];
    for (int plain = 0; plain < 2; plain++) {
        mb_context *ctx = open_as("cpu", plain ? "chain" : NULL, 1);
        rng r = {5};
        mb_tensor x = draw(ctx, &r, MB_FLOAT32, MB_SHAPE(ROWS, COLUMNS), 0.5, 2),
                  row = draw(ctx, &r, MB_FLOAT32, MB_SHAPE(ROWS, 1), 0.5, 2), v[VALUES], next[VALUES];
        for (int i = 0; i < VALUES; i++)
            v[i] = mb_add(mb_mul(x, 0.01 * (i + 1)), row);
        for (int round = 0; round < ROUNDS; round++, memcpy(v, next, sizeof v))
            for (int i = 0; i < VALUES; i++)
                next[i] = mb_sub(v[i], mb_mul(v[(i + 1) % VALUES], 0.3));
        mb_tensor sum = x;
        for (int i = 0; i < VALUES; i++)
            sum = mb_add(mb_mul(sum, 0.5), v[i]);
        result[plain] = values(sum);
    }
    expect(isfinite(result[1][0]) && same_bits(result[0], result[1], ROWS * COLUMNS), "[0] is %g for %g",
           result[0][0], result[1][0]);
    close_all();
}
