/* SPDX-License-Identifier: MIT
 *
 * dtype_test.c - float16 and bfloat16, int64 and uint8 on both backends: casts between all dtypes, bit by
 * bit; ops that only move values, for every dtype; arithmetic, reductions and products of halves and their
 * derivatives, against the same in float64 on the same, rounded, operands.
 *
 * Tolerances. Rounding to nearest is off by at most half of u = 2^-7 (bfloat16) or 2^-10 (float16), relative.
 * A result that is rounded once is allowed u; one of a formula of ops, each of which the reference rounds,
 * and whose intermediate values are no larger than about the result's, a few of them: said where it is. */
#include "support.h"

#include "tensor/half.h"

/* Of a context ctx's backend: those that it has. */
#define SOME(d, first, last)                                                                                 \
    for (int d = first; d <= (int)(last); d++)                                                               \
        if (has_dtype(ctx, (mb_dtype)d))
#define ALL(d)    SOME(d, 0, MB_DTYPES - 1)
#define HALVES(d) SOME(d, MB_FLOAT16, MB_BFLOAT16)
#define BOTH(b)                                                                                              \
    for (int b = 0; b < 2; b++, close_all())                                                                 \
        for (mb_context *ctx = open_on(backend_names[b]), *once = ctx; once; once = NULL)

static double unit(int dtype)
{
    return dtype == MB_FLOAT16 ? 0x1p-10 : 0x1p-7;
}

/* ---- casts ---- */

/* A half's value by its definition: a sign, an exponent, a fraction. */
static double decoded(int dtype, unsigned h)
{
    int bits = dtype == MB_FLOAT16 ? 10 : 7, bias = dtype == MB_FLOAT16 ? 15 : 127;
    int exponent = (int)(h >> bits) & (2 * bias + 1), fraction = (int)(h & ((1u << bits) - 1));
    double size = exponent == 2 * bias + 1 ? (fraction ? (double)NAN : (double)INFINITY)
                  : exponent               ? ldexp((1 << bits) + fraction, exponent - bias - bits)
                                           : ldexp(fraction, 1 - bias - bits);
    return h >> 15 ? -size : size;
}

/* The nearest half of a number that is no NaN, found among all of them; of two the even one. */
static unsigned nearest(int dtype, long double x)
{
    unsigned low = 0, high = dtype == MB_FLOAT16 ? 0x7c00 : 0x7f80;
    int bits = dtype == MB_FLOAT16 ? 10 : 7, top = dtype == MB_FLOAT16 ? 15 : 127;
    long double size = fabsl(x), beyond = ldexpl(1, top + 1);
    while (high - low > 1) {
        unsigned middle = (low + high) / 2;
        if ((long double)decoded(dtype, middle) <= size)
            low = middle;
        else
            high = middle;
    }
    (void)bits;
    long double below = (long double)decoded(dtype, low),
                above = isinf(decoded(dtype, high)) ? beyond : (long double)decoded(dtype, high);
    bool up = isinf(x) || size - below > above - size || (size - below == above - size && high % 2 == 0);
    return (signbit(x) ? 0x8000u : 0) | (up ? high : low);
}

enum { PLACES = 8 };

/* What a value of one dtype is in another, as bits in the caller's memory. */
static void converted(int from, const void *x, int to, void *y)
{
    long double v = from == MB_INT64 ? (long double)*(const int64_t *)x
                    : from == MB_FLOAT16 || from == MB_BFLOAT16
                        ? (long double)decoded(from, *(const uint16_t *)x)
                        : (long double)mb__element_of((mb_dtype)from, x, 0);
    long double whole = isnan(v) ? 0 : truncl(v);
    memset(y, 0, PLACES);
    if (to == MB_FLOAT32)
        *(float *)y = (float)v;
    else if (to == MB_FLOAT64)
        *(double *)y = (double)v;
    else if (to == MB_INT32)
        *(int32_t *)y = whole > 2147483647 ? INT32_MAX : whole < -2147483648.0L ? INT32_MIN : (int32_t)whole;
    else if (to == MB_INT64)
        *(int64_t *)y = whole >= 0x1p63L ? INT64_MAX : whole < -0x1p63L ? INT64_MIN : (int64_t)whole;
    else if (to == MB_UINT8)
        *(uint8_t *)y = whole > 255 ? 255 : whole < 0 ? 0 : (uint8_t)whole;
    else if (to == MB_BOOL)
        *(uint8_t *)y = v != 0;
    else
        *(uint16_t *)y = (uint16_t)(isnan(v) ? 0x7fff : nearest(to, v));
}

/* Values that are hard to convert, of the dtype; how many. */
static int hard_values(int dtype, char *out)
{
    static const double reals[] = {0.0,
                                   -0.0,
                                   1,
                                   -1,
                                   0.1,
                                   -2.5,
                                   3.5,
                                   254.5,
                                   255,
                                   256,
                                   300,
                                   -7.9,
                                   65504,
                                   65519.99,
                                   65520,
                                   65536,
                                   1e5,
                                   -1e5,
                                   1e30,
                                   3.3895313892515355e38,
                                   3.39e38,
                                   3.4e38,
                                   0x1p-14,
                                   0x1p-24,
                                   0x1p-25,
                                   0x1.8p-25,
                                   0x1.000001p-25,
                                   3e-6,
                                   -6.1e-5,
                                   0x1p-126,
                                   0x1p-133,
                                   0x1p-134,
                                   0x1.8p-134,
                                   1e-40,
                                   1.00390625,
                                   1.01171875,
                                   1.00390626,
                                   1 + 0x1p-11,
                                   1 + 0x3p-11,
                                   1 + 0x1p-11 + 0x1p-40,
                                   1 + 0x1p-8 + 0x1p-40,
                                   1 + 0x1p-8 - 0x1p-40,
                                   2049,
                                   2051,
                                   257,
                                   259,
                                   2147483520,
                                   -2147483648.0,
                                   16777217,
                                   9e18,
                                   INFINITY,
                                   -INFINITY,
                                   NAN};
    static const int64_t wholes[] = {0,
                                     1,
                                     -1,
                                     127,
                                     128,
                                     255,
                                     256,
                                     257,
                                     259,
                                     2049,
                                     2051,
                                     32767,
                                     65519,
                                     65520,
                                     16777217,
                                     33554435,
                                     INT32_MAX,
                                     INT32_MIN,
                                     (int64_t)INT32_MAX + 1,
                                     (int64_t)INT32_MIN - 1,
                                     (1ll << 53) + 1,
                                     -(1ll << 53) - 1,
                                     (1ll << 62) + (1ll << 54),
                                     (1ll << 62) + (1ll << 54) + 1,
                                     (1ll << 62) + (1ll << 54) - 1,
                                     -(1ll << 62) - (1ll << 54) - 1,
                                     INT64_MAX,
                                     INT64_MIN,
                                     0x0123456789abcdef};
    int n = 0, size = (int)mb_dtype_size((mb_dtype)dtype), count = (int)(sizeof reals / sizeof *reals);
    bool real = dtype == MB_FLOAT32 || dtype == MB_FLOAT64 || mb__is_half(dtype);
    for (int i = 0; i < (real ? count : (int)(sizeof wholes / sizeof *wholes)); i++) {
        char at[PLACES] = {0};
        uint16_t half = (uint16_t)(isnan(reals[i % count]) ? 0x7fff : nearest(dtype, reals[i % count]));
        if (mb__is_half(dtype))
            memcpy(at, &half, 2);
        else if (real)
            mb__element_set((mb_dtype)dtype, at, 0, reals[i]);
        else if (dtype == MB_INT64)
            memcpy(at, &wholes[i], 8);
        else if (dtype == MB_INT32)
            memcpy(at, &wholes[i], 4);
        else
            at[0] = dtype == MB_BOOL ? wholes[i] != 0 : (char)wholes[i];
        memcpy(out + n++ * size, at, (size_t)size);
    }
    return n;
}

static bool nan_of(int dtype, const void *x)
{
    return (dtype == MB_FLOAT32 || dtype == MB_FLOAT64 || mb__is_half(dtype)) &&
           isnan(mb__element_of((mb_dtype)dtype, x, 0));
}

/* ops.def leaves a float beyond int32 that becomes one to the backend; NaN as any integer as well. */
static bool left_open(int from, int to, const void *x)
{
    double v = mb__element_of((mb_dtype)from, x, 0);
    bool floats = from == MB_FLOAT32 || from == MB_FLOAT64 || mb__is_half(from);
    return floats && ((isnan(v) && (to == MB_INT64 || to == MB_UINT8 || to == MB_INT32)) ||
                      (to == MB_INT32 && !(fabs(v) < 2147483648.0)));
}

Test(dtype, casts_between_all)
{
    char x[PLACES * 64], y[PLACES * 64], want[PLACES];
    BOTH(b) ALL(from) ALL(to)
    {
        int n = hard_values(from, x);
        size_t fs = mb_dtype_size((mb_dtype)from), ts = mb_dtype_size((mb_dtype)to);
        mb_tensor t = mb_cast(mb_from(ctx, (mb_dtype)from, MB_SHAPE(n), x), (mb_dtype)to);
        mb_read(t, y, (size_t)n * ts);
        for (int i = 0; i < n; i++) {
            const void *in = x + (size_t)i * fs, *out = y + (size_t)i * ts;
            converted(from, in, to, want);
            bool nan = nan_of(from, in),
                 same = nan && nan_of(to, want) ? nan_of(to, out) : !memcmp(out, want, ts);
            expect(same || left_open(from, to, in), "%s: %s to %s: %.17g: got %.17g, wanted %.17g",
                   backend_names[b], mb_dtype_name((mb_dtype)from), mb_dtype_name((mb_dtype)to),
                   mb__element_of((mb_dtype)from, in, 0), mb__element_of((mb_dtype)to, out, 0),
                   mb__element_of((mb_dtype)to, want, 0));
        }
    }
}

/* No integer is -0: what -0.5 becomes has 0 for its sign. */
Test(dtype, integers_have_one_zero)
{
    static const mb_dtype whole[] = {MB_INT32, MB_INT64, MB_UINT8};
    BOTH(b)
    for (int i = 0; i < 3; i++) {
        if (!has_dtype(ctx, whole[i]))
            continue;
        mb_tensor x = mb_from(ctx, MB_FLOAT64, MB_SHAPE(3), ((double[]){-0.5, -0.0, -1e-300}));
        mb_tensor one_over = mb_recip(mb_cast(mb_cast(x, whole[i]), MB_FLOAT64));
        const double *got = values(one_over);
        for (int j = 0; j < 3; j++)
            expect(got[j] == (double)INFINITY, "%s by %s: 1 / 0 is %g", backend_names[b],
                   mb_dtype_name(whole[i]), got[j]);
    }
}

Test(dtype, every_half_there_and_back)
{
    static uint16_t x[65536], y[65536];
    for (int i = 0; i < 65536; i++)
        x[i] = (uint16_t)i;
    BOTH(b) HALVES(d)
    {
        mb_tensor t = mb_from(ctx, (mb_dtype)d, MB_SHAPE(65536), x), wide = mb_cast(t, MB_FLOAT32);
        double *w = values(wide);
        if (!mb_valid(wide)) /* values has told */
            continue;
        mb_read(mb_cast(wide, (mb_dtype)d), y, sizeof y);
        for (int i = 0; i < 65536; i++) {
            double v = decoded(d, (unsigned)i);
            expect(isnan(v) ? isnan(w[i]) && nan_of(d, &y[i]) : w[i] == v && y[i] == x[i], "%s of %s: %04x",
                   mb_dtype_name((mb_dtype)d), backend_names[b], i);
        }
    }
}

/* ---- what only moves values, of every dtype, against the same done with their numbers ---- */

static mb_tensor f_transpose(mb_tensor x)
{
    return mb_transpose(x);
}
static mb_tensor f_reversed(mb_tensor x)
{
    return mb_flip(mb_slice(x, 1, 1, 2, 2), 0);
}
static mb_tensor f_joined(mb_tensor x)
{
    return mb_concat(((mb_tensor[]){x, mb_slice(x, 0, 1, 3, 1), x}), 3, 0);
}
static mb_tensor f_repeated(mb_tensor x)
{
    return mb_broadcast(mb_unsqueeze(x, 1), MB_SHAPE(6, 3, 5));
}
static mb_tensor f_taken(mb_tensor x)
{
    return mb_take(x, mb_from(x.ctx, MB_UINT8, MB_SHAPE(4), ((uint8_t[]){5, 0, 0, 3})), 0);
}
static mb_tensor f_taken_across(mb_tensor x)
{
    return mb_take(x, mb_from(x.ctx, MB_INT64, MB_SHAPE(2, 2), ((int64_t[]){4, 0, 1ll << 40, -3})), 1);
}
static mb_tensor f_gathered(mb_tensor x)
{
    return mb_gather(x, mb_from(x.ctx, MB_INT64, MB_SHAPE(1, 5), ((int64_t[]){4, 0, 5, 3, 1})), 0);
}
static mb_tensor f_chosen(mb_tensor x)
{
    mb_tensor odd = mb_eq(mb_iota(x.ctx, MB_INT32, 5), mb_full(x.ctx, MB_INT32, MB_SHAPE0, 3));
    return mb_where(odd, mb_slice(x, 0, 0, 1, 1), x);
}
static mb_tensor f_windows(mb_tensor x)
{
    return mb_unfold(x, 0, (mb_window){.size = 3, .stride = 2});
}
static mb_tensor f_empty(mb_tensor x)
{
    return mb_slice(x, 0, 2, 0, 1);
}

Test(dtype, moves_every_dtype)
{
    static const struct {
        mb_tensor (*move)(mb_tensor);
        mb_dtype index; /* of a dtype that not all have; else MB_INT32 */
    } moves[] = {{f_transpose, MB_INT32}, {f_reversed, MB_INT32}, {f_joined, MB_INT32},
                 {f_repeated, MB_INT32},  {f_taken, MB_UINT8},    {f_taken_across, MB_INT64},
                 {f_gathered, MB_INT64},  {f_chosen, MB_INT32},   {f_windows, MB_INT32},
                 {f_empty, MB_INT32}};
    enum { N = 30 };
    char x[N * PLACES], y[128 * PLACES];
    rng r = {7};
    BOTH(b) ALL(d) for (size_t m = 0; m < sizeof moves / sizeof *moves; m++)
    {
        size_t size = mb_dtype_size((mb_dtype)d);
        if (!has_dtype(ctx, moves[m].index))
            continue;
        for (int i = 0; i < N * PLACES; i++)
            x[i] = d == MB_BOOL ? (char)rng_below(&r, 2) : (char)rng_bits(&r);
        for (int i = 0; i < N; i++) /* a NaN's other bits need not be kept */
            while (nan_of(d, x + (size_t)i * size))
                x[(size_t)(i + 1) * size - 1] = (char)rng_bits(&r);
        mb_tensor t = moves[m].move(mb_from(ctx, (mb_dtype)d, MB_SHAPE(6, 5), x));
        double *at = values(moves[m].move(mb_reshape(mb_iota(ctx, MB_INT32, N), MB_SHAPE(6, 5))));
        int64_t n = mb_count(t);
        mb_read(t, y, (size_t)n * size);
        for (int64_t i = 0; i < n; i++)
            expect(!memcmp(y + (size_t)i * size, x + (size_t)at[i] * size, size), "%s, %s, move %zu, at %d",
                   backend_names[b], mb_dtype_name((mb_dtype)d), m, (int)i);
    }
}

Test(dtype, int64_is_exact_and_compared)
{
    const int64_t a[] = {(1ll << 53) + 1, INT64_MAX, INT64_MIN, -1, 5},
                  c[] = {1ll << 53, INT64_MAX - 1, INT64_MAX, 1, 5};
    BOTH(b)
    {
        if (!has_dtype(ctx, MB_INT64))
            continue;
        mb_tensor x = mb_from(ctx, MB_INT64, MB_SHAPE(5), a), y = mb_from(ctx, MB_INT64, MB_SHAPE(5), c);
        double *lt = values(mb_lt(x, y)), *le = values(mb_le(x, y)), *eq = values(mb_eq(x, y)),
               *ge = values(mb_ge(x, y));
        for (int i = 0; i < 5; i++)
            expect(lt[i] == (a[i] < c[i]) && le[i] == (a[i] <= c[i]) && eq[i] == (a[i] == c[i]) &&
                       ge[i] == (a[i] >= c[i]),
                   "%s: %d", backend_names[b], i);
        int64_t got[5];
        mb_tensor v = mb_variable(ctx, MB_INT64, MB_SHAPE(5));
        mb_assign(v, mb_where(mb_lt(x, y), x, y));
        mb_read(v, got, sizeof got);
        for (int i = 0; i < 5; i++)
            expect(got[i] == (a[i] < c[i] ? a[i] : c[i]), "%s: the lesser of %d", backend_names[b], i);
        if (has_dtype(ctx, MB_UINT8)) {
            double *u = values(mb_lt(mb_full(ctx, MB_UINT8, MB_SHAPE(2), 200),
                                     mb_from(ctx, MB_UINT8, MB_SHAPE(2), "\xff\x01")));
            expect(u[0] == 1 && u[1] == 0, "uint8 has no sign");
        }
        expect(mb_item(mb_full(ctx, MB_INT64, MB_SHAPE0, -0x1p53)) == -0x1p53, "a number");
        expect(values(mb_iota(ctx, MB_INT64, 4))[3] == 3, "iota");
    }
}

Test(dtype, labels_and_one_hot)
{
    const uint8_t labels[] = {2, 0, 1};
    BOTH(b)
    {
        if (!has_dtype(ctx, MB_INT64) || !has_dtype(ctx, MB_UINT8))
            continue;
        mb_tensor x = mb_from(ctx, MB_FLOAT32, MB_SHAPE(3, 3), ((float[]){1, 2, 3, 4, 5, 7, 7, 8, 11}));
        mb_tensor bytes = mb_from(ctx, MB_UINT8, MB_SHAPE(3), labels), whole = mb_cast(bytes, MB_INT64);
        double want = mb_item(mb_cross_entropy(x, mb_cast(bytes, MB_INT32)));
        expect(mb_item(mb_cross_entropy(x, bytes)) == want && mb_item(mb_cross_entropy(x, whole)) == want,
               "loss");
        double *hot = values(mb_one_hot(bytes, 3)), *hot64 = values(mb_one_hot(whole, 3));
        for (int i = 0; i < 9; i++)
            expect(hot[i] == (labels[i / 3] == i % 3) && hot64[i] == hot[i], "one_hot %d", i);
    }
}

/* ---- arithmetic of halves ---- */

typedef struct row {
    const char *name;
    int arity;
    double low, high;
    mb_tensor (*one)(const char *, mb_tensor);
    mb_tensor (*two)(const char *, mb_tensor, mb_tensor);
} row;

#define ROW_F(name, n, lo, hi, ...) {#name, n, lo, hi, __VA_ARGS__},
#define ROW_N(name, n, lo, hi, ...) {#name, n, lo, hi, __VA_ARGS__},
#define ROW_I(name, n, lo, hi, ...)
#define ROW_L(name, n, lo, hi, ...)
static const row rows[] = {
#define MB_UNARY(NAME, name, types, expr, lo, hi, cost, doc)                                                 \
    ROW_##types(name, 1, lo, hi, mb_##name##_at, NULL)
#define MB_BINARY(NAME, name, types, expr, lo, hi, flags, cost, doc)                                         \
    ROW_##types(name, 2, lo, hi, NULL, mb_##name##_at)
#define MB_COMPARE(NAME, name, types, expr, doc) ROW_##types(name, 2, -2, 2, NULL, mb_##name##_at)
#include "tensor/ops.def"
};

static mb_tensor applied(const row *w, const mb_tensor *x)
{
    return w->arity == 1 ? w->one(MB_HERE, x[0]) : w->two(MB_HERE, x[0], x[1]);
}

/* |got - want| <= times units of want, or of what is as large as 1 of `scale`. */
static void close_halves(const char *what, int dtype, mb_tensor got, mb_tensor want, double times,
                         double scale)
{
    double *x = values(got), *y = values(want);
    expect((int)mb_dtype_of(got) == dtype, "%s: the dtype is %s", what, mb_dtype_name(mb_dtype_of(got)));
    for (int64_t i = 0, n = mb_count(got); i < n; i++)
        expect(near(x[i], y[i], times * unit(dtype), times * unit(dtype) * scale + 0x1p-24),
               "%s of %s, at %d: got %g, wanted %g", what, mb_dtype_name((mb_dtype)dtype), (int)i, x[i],
               y[i]);
}

/* Values to one rounding; derivatives by each operand, whose rules are formulas of a few ops, to four. */
Test(dtype, elementwise_of_halves)
{
    rng r = {3};
    BOTH(b)
    HALVES(d)
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const row *w = &rows[i];
        double low = w->low == w->high ? -3 : w->low, high = w->low == w->high ? 3 : w->high;
        mb_tensor x[2], wide[2], g[2], gw[2];
        for (int k = 0; k < 2; k++) {
            x[k] = draw(ctx, &r, (mb_dtype)d, k ? MB_SHAPE(37) : MB_SHAPE(3, 37), low, high);
            wide[k] = mb_cast(x[k], MB_FLOAT64);
        }
        mb_tensor y = applied(w, x), want = applied(w, wide);
        if (mb_dtype_of(y) == MB_BOOL) {
            expect(same_bits(values(y), values(want), mb_count(y)), "%s", w->name);
            continue;
        }
        close_halves(w->name, d, y, want, 1, 0);
        if (w->low == w->high)
            continue;
        mb_grad(y, x, w->arity, g);
        mb_grad(want, wide, w->arity, gw);
        for (int k = 0; k < w->arity; k++)
            close_halves(w->name, d, g[k], gw[k], 4, 1);
    }
}

/* Rounded once, at the end: 4096 ones are 4096 also in bfloat16, where 256 and 1 are 256. */
Test(dtype, sums_are_float32)
{
    rng r = {4};
    BOTH(b) HALVES(d)
    {
        mb_dtype dtype = (mb_dtype)d;
        mb_tensor ones = mb_full(ctx, dtype, MB_SHAPE(4096), 1);
        expect(mb_item(mb_sum(ones, MB_ALL)) == 4096 && mb_item(mb_mean(ones, MB_ALL)) == 1 &&
                   mb_item(mb_dot(ones, ones)) == 4096,
               "ones");
        mb_tensor x = draw(ctx, &r, dtype, MB_SHAPE(33, 70), 0.5, 2), w = mb_cast(x, MB_FLOAT64);
        close_halves("sum of rows", d, mb_sum(x, MB_AXES(1)), mb_sum(w, MB_AXES(1)), 1, 0);
        close_halves("sum of columns", d, mb_sum(x, MB_AXES(0)), mb_sum(w, MB_AXES(0)), 1, 0);
        close_halves("max", d, mb_max(x, MB_AXES(0)), mb_max(w, MB_AXES(0)), 0, 0);
        close_halves("min", d, mb_min(x, MB_AXES(1)), mb_min(w, MB_AXES(1)), 0, 0);
        close_halves("variance", d, mb_variance(x, MB_AXES(1)), mb_variance(w, MB_AXES(1)), 1, 0);
        close_halves("norm", d, mb_norm(x, MB_AXES(0)), mb_norm(w, MB_AXES(0)), 1, 0);
        close_halves("cumsum", d, mb_cumsum(x, 1, true), mb_cumsum(w, 1, true), 1, 0);
        close_halves("cummax", d, mb_cummax(x, 1, true), mb_cummax(w, 1, true), 0, 0);
        close_halves("sort", d, mb_sort(x), mb_sort(w), 0, 0);
        close_halves("softmax", d, mb_softmax(x, 1), mb_softmax(w, 1), 1, 0);
        close_halves("logsumexp", d, mb_logsumexp(x, MB_AXES(0)), mb_logsumexp(w, MB_AXES(0)), 1, 0);
        close_halves("prod", d, mb_prod(mb_slice(x, 1, 0, 7, 1), MB_AXES(1)),
                     mb_prod(mb_slice(w, 1, 0, 7, 1), MB_AXES(1)), 1, 0);
        close_halves("gelu", d, mb_gelu(x), mb_gelu(w), 4, 0);
        mb_tensor at = mb_from(ctx, MB_INT32, MB_SHAPE(33), (int32_t[33]){0});
        close_halves("scatter_add", d, mb_scatter_add(x, at, 0, 3), mb_scatter_add(w, at, 0, 3), 1, 0);
        mb_tensor f = mb_unfold(x, 0, (mb_window){.size = 3}), fw = mb_unfold(w, 0, (mb_window){.size = 3});
        close_halves("fold", d, mb_fold(f, 0, (mb_window){.size = 3}, 33),
                     mb_fold(fw, 0, (mb_window){.size = 3}, 33), 1, 0);
        double *am = values(mb_argmax(x, 1)), *amw = values(mb_argmax(w, 1));
        expect(same_bits(am, amw, 33), "argmax");
    }
}

/* Over shapes larger and smaller than blocks, of all layouts, and derivatives, which are such products. What
 * is added up in float32 loses nothing that shows. */
Test(dtype, products_of_halves)
{
    static const int64_t sizes[][4] = {{1, 3, 5, 7},   {2, 1, 1, 1},    {1, 129, 300, 257}, {7, 16, 16, 16},
                                       {3, 4, 600, 2}, {1, 300, 1, 31}, {2, 3, 0, 4}};
    rng r = {5};
    BOTH(b)
    HALVES(d)
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int turn = 0; turn < 4; turn++) {
            const int64_t *s = sizes[i], B = s[0], M = s[1], K = s[2], N = s[3];
            mb_shape sa = turn & 1 ? MB_SHAPE(B, K, M) : MB_SHAPE(B, M, K),
                     sb = turn & 2 ? MB_SHAPE(N, K) : MB_SHAPE(K, N);
            mb_tensor x[2] = {draw(ctx, &r, (mb_dtype)d, sa, -1, 1), draw(ctx, &r, (mb_dtype)d, sb, -1, 1)},
                      w[2], g[2], gw[2];
            for (int k = 0; k < 2; k++)
                w[k] = mb_cast(x[k], MB_FLOAT64);
#define PRODUCT(x)                                                                                           \
    mb_matmul(turn & 1 ? mb_transpose((x)[0]) : (x)[0], turn & 2 ? mb_transpose((x)[1]) : (x)[1])
            mb_tensor y = PRODUCT(x), want = PRODUCT(w);
            close_halves("matmul", d, y, want, 1, 1e-4 * sqrt((double)K + 1) / unit(d));
            mb_grad(y, x, 2, g);
            mb_grad(want, w, 2, gw);
            for (int k = 0; k < 2; k++)
                close_halves("its derivative", d, g[k], gw[k], 1,
                             1e-4 * sqrt((double)(M + N) * (double)B) / unit(d));
        }
}

/* A product over two axes that are not one: it adds up over a loop. */
Test(dtype, contraction_of_halves)
{
    rng r = {6};
    BOTH(b) HALVES(d)
    {
        mb_tensor x[2] = {draw(ctx, &r, (mb_dtype)d, MB_SHAPE(5, 6, 40, 3), -1, 1),
                          draw(ctx, &r, (mb_dtype)d, MB_SHAPE(5, 40, 6, 8), -1, 1)};
        mb_tensor w[2] = {mb_cast(x[0], MB_FLOAT64), mb_cast(x[1], MB_FLOAT64)};
        close_halves("einsum", d, mb_einsum("abcd,acbe->ed", x[0], x[1]),
                     mb_einsum("abcd,acbe->ed", w[0], w[1]), 1, 1);
    }
}

/* Masters in float32: gradients pass the cast in float32, and are those of the half program. */
Test(dtype, cast_gives_its_derivative_back)
{
    rng r = {8};
    BOTH(b) HALVES(d)
    {
        mb_tensor master = draw(ctx, &r, MB_FLOAT32, MB_SHAPE(4, 5), -1, 1),
                  x = draw(ctx, &r, (mb_dtype)d, MB_SHAPE(3, 4), -1, 1), g, gh;
        mb_tensor half = mb_cast(master, (mb_dtype)d), y = mb_tanh(mb_matmul(x, half));
        mb_grad(y, &master, 1, &g);
        mb_grad(y, &half, 1, &gh);
        expect(mb_dtype_of(g) == MB_FLOAT32 && (int)mb_dtype_of(gh) == d, "dtypes");
        expect(nmse(values(g), values(gh), 20) < unit(d) * unit(d), "%g", nmse(values(g), values(gh), 20));
    }
}

/* Products that a loop adds up: of halves each is rounded before it is added. Small whole numbers, so all is
 * exact. */
Test(dtype, loops_add_up_products_of_halves)
{
    for (int d = MB_FLOAT16; d <= MB_BFLOAT16; d++)
        BOTH(k)
        {
            if (!has_dtype(ctx, (mb_dtype)d))
                continue;
            enum { STEPS = 3, N = 40 };
            const mb_shape square = MB_SHAPE(N, N);
            mb_tensor a = mb_full(ctx, (mb_dtype)d, square, 1), c = mb_zeros(ctx, (mb_dtype)d, square);
            mb_tensor rates = mb_cast(mb_add(mb_iota(ctx, MB_INT32, STEPS), 1), (mb_dtype)d);
            mb_eval((mb_tensor[]){a, rates}, 2);
            mb_scan s = mb_scan_begin(ctx, STEPS);
            mb_scan_carry(s, &c);
            mb_tensor rate = mb_scan_slice(s, rates);
            c = mb_add(c, mb_matmul(mb_mul(a, rate), a));
            mb_scan_end(s);
            double *y = values(c);
            for (int i = 0; i < N * N; i += 7)
                expect(y[i] == 6 * N, "%s: %s: %g, not %d: %s", backend_names[k], mb_dtype_name((mb_dtype)d),
                       y[i], 6 * N, mb_message(ctx));
        }
}
