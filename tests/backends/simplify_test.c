/* SPDX-License-Identifier: MIT
 *
 * simplify_test.c - each rewrite of simplify.c by itself, at the numbers where it could be wrong: zeros of
 * either sign, infinities, NaN, the edges of the range; and random programs of such numbers, with the pass
 * and without.
 */
#include "backends/engine/state.h"
#include "support.h"

enum { NUMBERS = 9 };
static const double numbers[NUMBERS] = {0.0, -0.0, 1, -2, 0.5, INFINITY, -INFINITY, NAN, 4};

static bool same_number(double a, double b)
{
    return isnan(a) ? isnan(b) : a == b && signbit(a) == signbit(b);
}

/* ---- one rewrite at a time ---- */

static mb_tensor literal(mb_tensor like, double value)
{
    return mb_full(like.ctx, mb_dtype_of(like), MB_SHAPE0, value);
}

#define LITERAL(name, expression, value)                                                                     \
    static mb_tensor r_##name(mb_tensor x, mb_tensor y)                                                      \
    {                                                                                                        \
        (void)y;                                                                                             \
        return expression;                                                                                   \
    }                                                                                                        \
    static double w_##name(double a, double b)                                                               \
    {                                                                                                        \
        (void)a, (void)b;                                                                                    \
        return value;                                                                                        \
    }
LITERAL(neg_neg, mb_neg(mb_neg(x)), a)
LITERAL(neg_sub, mb_neg(mb_sub(x, y)), -(a - b))
LITERAL(add_neg, mb_add(x, mb_neg(y)), a - b)
LITERAL(neg_add, mb_add(mb_neg(x), y), b - a)
LITERAL(sub_neg, mb_sub(x, mb_neg(y)), a + b)
LITERAL(sub_same, mb_sub(x, x), a - a)
LITERAL(add_zero, mb_add(x, literal(x, 0)), a + 0.0)
LITERAL(zero_add, mb_add(literal(x, 0), x), 0.0 + a)
LITERAL(add_minus_zero, mb_add(x, literal(x, -0.0)), a)
LITERAL(sub_zero, mb_sub(x, literal(x, 0)), a)
LITERAL(sub_minus_zero, mb_sub(x, literal(x, -0.0)), a + 0.0)
LITERAL(zero_sub, mb_sub(literal(x, 0), x), 0.0 - a)
LITERAL(minus_zero_sub, mb_sub(literal(x, -0.0), x), -0.0 - a)
LITERAL(mul_one, mb_mul(x, literal(x, 1)), a)
LITERAL(mul_minus_one, mb_mul(literal(x, -1), x), -a)
LITERAL(mul_zero, mb_mul(x, literal(x, 0)), 0) /* absorbed */
LITERAL(mul_small_large, mb_mul(mb_mul(x, literal(x, 0x1p-100)), literal(x, 0x1p100)), a)
LITERAL(mul_twice_small,
        mb_mul(mb_mul(mb_mul(x, literal(x, 0x1p100)), literal(x, 0x1p-80)), literal(x, 0x1p-80)), a * 0x1p-60)
LITERAL(mul_twice_large,
        mb_mul(literal(x, 0x1p80), mb_mul(mb_mul(x, literal(x, 0x1p-100)), literal(x, 0x1p80))), a * 0x1p60)
LITERAL(mul_regrouped, mb_mul(mb_mul(x, literal(x, 3)), literal(x, 5)), a * 15)
LITERAL(mul_infinite, mb_mul(mb_mul(x, literal(x, INFINITY)), literal(x, 0.5)), a *(double)INFINITY)
LITERAL(div_one, mb_div(x, literal(x, 1)), a)
LITERAL(zero_div, mb_div(literal(x, 0), x), 0.0 / a)
LITERAL(minus_zero_div, mb_div(literal(x, -0.0), x), -0.0 / a)
LITERAL(where_same, mb_where(mb_lt(x, y), x, x), a)
LITERAL(pad_minus_zero,
        mb_slice(mb_pad(mb_full(x.ctx, mb_dtype_of(x), MB_SHAPE(1), -0.0), 0, 1, NUMBERS), 0, 1, 1, 1), -0.0)
LITERAL(sum_of_minus_zero, mb_sum(mb_full(x.ctx, mb_dtype_of(x), MB_SHAPE(3), -0.0), MB_ALL), 0.0)
LITERAL(sum_of_nothing, mb_sum(mb_full(x.ctx, mb_dtype_of(x), MB_SHAPE(0, 3), INFINITY), MB_ALL), 0.0)
LITERAL(sum_of_literal, mb_sum(mb_full(x.ctx, mb_dtype_of(x), MB_SHAPE(4, 3), 0.25), MB_ALL), 3)
#undef LITERAL

typedef struct rewrite {
    const char *name;
    mb_tensor (*record)(mb_tensor x, mb_tensor y);
    double (*want)(double a, double b);
} rewrite;

#define R(name)                                                                                              \
    {                                                                                                        \
#name, r_##name, w_##name                                                                            \
    }
static const rewrite rewrites[] = {
    R(neg_neg),        R(neg_sub),           R(add_neg),         R(neg_add),         R(sub_neg),
    R(sub_same),       R(add_zero),          R(zero_add),        R(add_minus_zero),  R(sub_zero),
    R(sub_minus_zero), R(zero_sub),          R(minus_zero_sub),  R(mul_one),         R(mul_minus_one),
    R(mul_zero),       R(mul_small_large),   R(mul_twice_small), R(mul_twice_large), R(mul_regrouped),
    R(mul_infinite),   R(div_one),           R(zero_div),        R(minus_zero_div),  R(where_same),
    R(pad_minus_zero), R(sum_of_minus_zero), R(sum_of_nothing),  R(sum_of_literal)};
#undef R

Test(simplify, each_rewrite_at_special_numbers, .timeout = 60)
{
    enum { PAIRS = NUMBERS * NUMBERS };
    double a[PAIRS], b[PAIRS];
    for (int i = 0; i < PAIRS; i++) {
        a[i] = numbers[i / NUMBERS];
        b[i] = numbers[i % NUMBERS];
    }
    for (int back = 0; back < 2; back++)
        for (int type = 0; type < 2; type++) {
            mb_context *ctx = open_on(backend_names[back]);
            mb_dtype dtype = type ? MB_FLOAT32 : MB_FLOAT64;
            mb_tensor x = from_doubles(ctx, dtype, MB_SHAPE(PAIRS), a),
                      y = from_doubles(ctx, dtype, MB_SHAPE(PAIRS), b);
            for (size_t r = 0; r < sizeof rewrites / sizeof *rewrites; r++) {
                mb_tensor t = rewrites[r].record(x, y);
                double *got = values(t);
                bool reference_zero = back == 0 && !strcmp(rewrites[r].name, "mul_zero");
                for (int i = 0; i < PAIRS && !reference_zero; i++) {
                    double want = rewrites[r].want(a[i], b[i]), have = got[mb_count(t) > 1 ? i : 0];
                    expect(same_number(have, want), "%s of %s on %s: of %g and %g it is %g, not %g",
                           rewrites[r].name, mb_dtype_name(dtype), backend_names[back], a[i], b[i], have,
                           want);
                }
            }
            expect_ok(ctx);
            close_all();
        }
}

/* A literal of float32 is what float32 holds, before it is computed with. */
/* ---- MB_DEBUG, which computes op by op, and so sees no rewrite of several unless it looks for them ---- */

static mb_context *open_debugging(void)
{
    setenv("MB_DEBUG", "1", 1);
    mb_context *ctx = open_on(backend_names[1]);
    unsetenv("MB_DEBUG");
    return ctx;
}

Test(simplify, debug_finds_every_rewrite_right, .timeout = 60)
{
    static const double finite[] = {1, -2, 0.5, 4};
    mb_context *ctx = open_debugging();
    for (size_t i = 0; i < sizeof rewrites / sizeof *rewrites; i++)
        for (int j = 0; j < 4; j++) {
            double a = finite[j], b = finite[(j + 1) % 4], want = rewrites[i].want(a, b);
            mb_scope scope = mb_scope_begin(ctx);
            mb_tensor x = mb_from(ctx, MB_FLOAT32, MB_SHAPE(1), (float[]){(float)a}),
                      y = mb_from(ctx, MB_FLOAT32, MB_SHAPE(1), (float[]){(float)b});
            double got = isfinite(want) ? mb_item(rewrites[i].record(x, y)) : want;
            expect(got == want || isnan(want), "%s of %g, %g: %.9g, not %.9g: %s", rewrites[i].name, a, b,
                   got, want, mb_message(ctx));
            mb_scope_end(scope);
        }
    mb_tensor x = mb_from(ctx, MB_FLOAT32, MB_SHAPE(1), (float[]){1e30f}), k = literal(x, 1e-25);
    double got = mb_item(mb_mul(mb_mul(x, k), k));
    expect(near(got, 1e-20, 1e-5, 0), "%g: %s", got, mb_message(ctx));
    close_all();
}

/* One sum in place of two may be added up in another order, which at the range's edge is another number: in
 * place of a fault, which there should be none of. */
Test(simplify, debug_compares_what_was_recorded, .timeout = 60)
{
    mb_context *ctx = open_debugging();
    mb__engine_state *st = ctx->engine_state;
    mb_tensor x = mb_from(ctx, MB_FLOAT64, MB_SHAPE(2, 2), (double[]){1e308, 1e308, -1.7e308, 0}), y;
    for (int i = 0; i < 2; i++) {
        y = mb_sum(mb_sum(i ? mb_mul(x, 0.25) : x, MB_KEEP(0)), MB_KEEP(1));
        mb__rewritten r;
        uint32_t targets;
        cr_assert(mb__targets_of(ctx, &y.id, 1, &targets) && mb__segment_of(ctx, &st->segment, targets));
        mb__compare_rewritten(ctx, &st->segment, &r);
        expect(i ? r.node == 0 : r.node == y.id && isinf(r.got) && near(r.want, 3e307, 1e-9, 0),
               "%s: node %u, %g in place of %g", i ? "smaller" : "large", r.node, r.got, r.want);
    }
    close_all();
}

Test(simplify, literals_have_their_dtype, .timeout = 30)
{
    for (int back = 0; back < 2; back++) {
        mb_context *ctx = open_on(backend_names[back]);
        mb_tensor huge = mb_full(ctx, MB_FLOAT32, MB_SHAPE0, 3e38),
                  ten = mb_full(ctx, MB_FLOAT32, MB_SHAPE0, 10);
        mb_tensor count = mb_full(ctx, MB_INT32, MB_SHAPE0, 100000);
        mb_tensor x = mb_from(ctx, MB_INT32, MB_SHAPE(1), (int32_t[]){3});
        if (back) /* the reference keeps float32 in float64 */
            expect(isinf(mb_item(mb_div(mb_mul(huge, ten), ten))), "%s: 3e38 * 10 / 10", backend_names[back]);
        double product = mb_item(mb_mul(mb_mul(x, count), count)), want = (double)(int32_t)(3u * 1410065408u);
        expect(product == want, "%s: 3 * 100000 * 100000 is %g, not %g", backend_names[back], product, want);
        expect_ok(ctx);
        close_all();
    }
}

/* Two permutations that do not commute; reshapes there and back; a sum of a sum, of a product. */
Test(simplify, structure, .timeout = 30)
{
    for (int back = 0; back < 2; back++) {
        mb_context *ctx = open_on(backend_names[back]);
        double d[24];
        for (int i = 0; i < 24; i++)
            d[i] = i;
        mb_tensor x = mb_from(ctx, MB_FLOAT64, MB_SHAPE(2, 3, 4), d);
        double *p = values(mb_permute(mb_permute(x, MB_AXES(1, 2, 0)), MB_AXES(0, 2, 1))); /* [3,2,4] */
        for (int i = 0; i < 24; i++)
            expect(p[i] == d[i / 4 % 2 * 12 + i / 8 * 4 + i % 4], "%s: permuted twice, [%d] is %g",
                   backend_names[back], i, p[i]);
        double *r =
            values(mb_reshape(mb_reshape(mb_reshape(x, MB_SHAPE(6, 4)), MB_SHAPE(4, 6)), MB_SHAPE(2, 3, 4)));
        expect(same_bits(r, d, 24), "%s: reshaped", backend_names[back]);
        double *s = values(mb_sum(mb_sum(x, MB_AXES(2)), MB_AXES(0)));
        for (int j = 0; j < 3; j++)
            expect(s[j] == 4 * (8 * j + 12) + 12, "%s: sum of a sum, [%d] is %g", backend_names[back], j,
                   s[j]);
        mb_tensor a = mb_slice(x, 0, 0, 1, 1),
                  b = mb_broadcast(mb_full(ctx, MB_FLOAT64, MB_SHAPE(1, 4, 1), 2), MB_SHAPE(1, 4, 5));
        double *c = values(mb_sum(mb_matmul(a, b), MB_AXES(0, 2)));
        for (int j = 0; j < 3; j++)
            expect(c[j] == 5 * 2 * (16 * j + 6), "%s: sum of a product, [%d] is %g", backend_names[back], j,
                   c[j]);
        expect_ok(ctx);
        close_all();
    }
}

/* ---- random programs ---- */

enum { VALUES_MOST = 24 };

/* Values are dyadic and few, so that sums are exact in any order: what differs is a rewrite. */
static mb_tensor special_leaf(mb_context *ctx, rng *r, mb_dtype dtype)
{
    double data[9];
    for (int i = 0; i < 9; i++)
        data[i] = numbers[rng_below(r, 3) ? rng_below(r, NUMBERS) : 2 + rng_below(r, 3)];
    return from_doubles(ctx, dtype, MB_SHAPE(3, 3), data);
}

/* No zero, which would absorb. */
static mb_tensor factor(mb_context *ctx, rng *r, mb_dtype dtype)
{
    static const double full[] = {1, -1, 0.5, 2, -4, 0x1p-90, 0x1p80, 0x1p-70, INFINITY};
    return mb_full(ctx, dtype, MB_SHAPE0, full[rng_below(r, 9)]);
}

static mb_tensor special_op(rng *r, mb_tensor x, mb_tensor y)
{
    mb_context *ctx = x.ctx;
    mb_dtype dtype = mb_dtype_of(x);
    mb_tensor zero = mb_full(ctx, dtype, MB_SHAPE0, rng_below(r, 2) ? 0.0 : -0.0);
    mb_tensor c = factor(ctx, r, dtype);
    switch (rng_below(r, 20)) {
    case 0:
        return mb_neg(x);
    case 1:
        return mb_abs(x);
    case 2:
        return mb_add(x, zero);
    case 3:
        return mb_sub(zero, x);
    case 4:
        return mb_div(zero, x);
    case 5:
    case 6:
        return mb_mul(x, c);
    case 7:
        return mb_mul(c, x);
    case 8:
        return mb_maximum(x, y);
    case 9:
        return mb_where(mb_lt(x, y), x, rng_below(r, 2) ? x : y);
    case 10:
        return mb_add(x, mb_neg(y));
    case 11:
        return mb_neg(mb_sub(x, y));
    case 12:
        return mb_sub(x, rng_below(r, 2) ? x : y);
    case 13:
        return mb_transpose(mb_neg(mb_transpose(x)));
    case 14:
        return mb_slice(mb_pad(x, 0, 1, 2), 0, rng_below(r, 3), 3, 1);
    case 15:
        return mb_div(x, c);
    case 16:
        return mb_reshape(mb_reshape(x, MB_SHAPE(9)), MB_SHAPE(3, 3));
    case 17:
        return mb_mul(x, y);
    case 18:
        return mb_broadcast(mb_max(x, MB_KEEP(rng_below(r, 2))), MB_SHAPE(3, 3));
    default:
        return mb_add(x, y);
    }
}

static int special_program(mb_context *ctx, uint64_t seed, mb_dtype dtype, double *out)
{
    rng r = {seed * 977 + 5};
    mb_scope scope = mb_scope_begin(ctx);
    mb_tensor v[VALUES_MOST];
    int n = 0, length = 5 + (int)rng_below(&r, VALUES_MOST - 5);
    while (n < 3)
        v[n++] = special_leaf(ctx, &r, dtype);
    while (n < length) {
        mb_tensor x = v[rng_below(&r, n)];
        v[n] = special_op(&r, x, v[rng_below(&r, n)]);
        n++;
    }
    mb_tensor *wanted = v + n - 3;
    mb_eval(wanted, 3);
    for (int i = 0; i < 3; i++)
        memcpy(out + 9 * i, values(wanted[i]), 9 * sizeof *out);
    mb_scope_end(scope);
    return 27;
}

Test(simplify, random_programs_of_special_numbers, .timeout = 600)
{
    const char *number = getenv("FUZZ_COUNT"), *only = getenv("FUZZ_SEED");
    int count = only ? 1 : number ? atoi(number) : testing("vulkan") ? 60 : 3000;
    uint64_t from = only ? strtoull(only, NULL, 0) : 1;
    static const char *const disabled[] = {"simplify", "simplify,merge", "simplify,merge,fuse,sink,dead"};
    for (int type = 0; type < 2; type++) {
        mb_dtype dtype = type ? MB_FLOAT32 : MB_FLOAT64;
        for (int i = 0, wrong = 0; i < count && wrong < 3;) {
            mb_context *with = open_as("cpu", "", 1), *without = open_as("cpu", disabled[i / 50 % 3], 1);
            for (int end = i + 50; i < end && i < count; i++) {
                double a[27], b[27];
                int n = special_program(with, from + (uint64_t)i, dtype, a);
                special_program(without, from + (uint64_t)i, dtype, b);
                for (int e = 0; e < n; e++)
                    if (!expect(same_number(a[e], b[e]),
                                "%s, program %llu: [%d] is %g, and %g without \"%s\"", mb_dtype_name(dtype),
                                (unsigned long long)from + (unsigned long long)i, e, a[e], b[e],
                                disabled[i / 50 % 3])) {
                        wrong++;
                        break;
                    }
            }
            close_all();
        }
    }
}
