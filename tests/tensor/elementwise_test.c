/* SPDX-License-Identifier: MIT
 *
 * elementwise_test.c - every elementwise op of ops.def, in every dtype it takes, on operands of many kinds,
 * against the expression of its row computed here in plain C (float64 and int32 and bool) and the reference
 * backend (float32).
 *
 * Tolerances, as NMSE: 1e-24 in float64 is 1e-12 relative, ample for libmvec's 4 ulp; 1e-7 in float32 is
 * llama.cpp's bar for a backend, and 1e-12 what our own loops keep. */
#include "support.h"

#include "tensor/internal.h"

typedef struct row {
    const char *name;
    char types;
    int arity;
    bool compares;
    double low, high;
    mb_tensor (*one)(const char *, mb_tensor);
    mb_tensor (*two)(const char *, mb_tensor, mb_tensor);
    double (*real)(double, double);
    int32_t (*whole)(int32_t, int32_t);
} row;

/* The expressions of ops.def in double and in int32. An F row has no meaning for int32 and gives 0 there. */
#define M(f) f
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#define WHOLE_N(expr) (expr)
#define WHOLE_F(expr) 0
#define WHOLE_I(expr) (expr)
#define WHOLE_L(expr) (expr)
#define REAL_N(expr)  (expr)
#define REAL_F(expr)  (expr)
#define REAL_I(expr)  0
#define REAL_L(expr)  0
#define T             double
#define MB_UNARY(NAME, name, types, expr, lo, hi, cost, doc)                                                 \
    static double real_##name(double x, double unused)                                                       \
    {                                                                                                        \
        return REAL_##types(expr);                                                                           \
    }
#define MB_BINARY(NAME, name, types, expr, lo, hi, flags, cost, doc)                                         \
    static double real_##name(double a, double b)                                                            \
    {                                                                                                        \
        return REAL_##types(expr);                                                                           \
    }
#define MB_COMPARE(NAME, name, types, expr, doc)                                                             \
    static double real_##name(double a, double b)                                                            \
    {                                                                                                        \
        return expr;                                                                                         \
    }
#include "tensor/ops.def"
#undef T
#define T int32_t
#define MB_UNARY(NAME, name, types, expr, lo, hi, cost, doc)                                                 \
    static int32_t whole_##name(int32_t x, int32_t unused)                                                   \
    {                                                                                                        \
        return WHOLE_##types(expr);                                                                          \
    }
#define MB_BINARY(NAME, name, types, expr, lo, hi, flags, cost, doc)                                         \
    static int32_t whole_##name(int32_t a, int32_t b)                                                        \
    {                                                                                                        \
        return WHOLE_##types(expr);                                                                          \
    }
#define MB_COMPARE(NAME, name, types, expr, doc)                                                             \
    static int32_t whole_##name(int32_t a, int32_t b)                                                        \
    {                                                                                                        \
        return expr;                                                                                         \
    }
#include "tensor/ops.def"
#pragma GCC diagnostic pop

static const row rows[] = {
#define MB_UNARY(NAME, name, types, expr, lo, hi, cost, doc)                                                 \
    {#name, #types[0], 1, false, lo, hi, mb_##name##_at, NULL, real_##name, whole_##name},
#define MB_BINARY(NAME, name, types, expr, lo, hi, flags, cost, doc)                                         \
    {#name, #types[0], 2, false, lo, hi, NULL, mb_##name##_at, real_##name, whole_##name},
#define MB_COMPARE(NAME, name, types, expr, doc)                                                             \
    {#name, #types[0], 2, true, -2, 2, NULL, mb_##name##_at, real_##name, whole_##name},
#include "tensor/ops.def"
};
#define ROWS ((int)(sizeof rows / sizeof *rows))

static bool takes(const row *r, mb_dtype dtype)
{
    return r->types == 'L'   ? dtype == MB_BOOL
           : r->types == 'I' ? dtype == MB_INT32
           : r->types == 'F' ? dtype == MB_FLOAT32 || dtype == MB_FLOAT64
                             : dtype != MB_BOOL;
}

static mb_tensor apply(const row *r, mb_tensor a, mb_tensor b)
{
    return r->arity == 1 ? r->one(MB_HERE, a) : r->two(MB_HERE, a, b);
}

/* ---- plain C: broadcasting by hand ---- */

static double element(const row *r, mb_dtype dtype, double a, double b)
{
    if (dtype == MB_INT32 || dtype == MB_BOOL) {
        int32_t i = r->whole((int32_t)a, (int32_t)b);
        return dtype == MB_BOOL ? (i & 1) : i;
    }
    return r->real(a, b);
}

/* want[i] for result shape s. a's and b's shapes broadcast to it. */
static double *plain(const row *r, mb_dtype dtype, mb_shape s, const double *a, mb_shape sa, const double *b,
                     mb_shape sb)
{
    int64_t n = shape_count(s);
    double *out = malloc(((size_t)n + 1) * sizeof *out);
    for (int64_t i = 0; i < n; i++) {
        int64_t rest = i, ia = 0, ib = 0, step_a = 1, step_b = 1;
        for (int k = s.rank - 1; k >= 0; k--) {
            int64_t at = rest % s.dim[k];
            rest /= s.dim[k];
            int ka = k - (s.rank - sa.rank), kb = k - (s.rank - sb.rank);
            if (ka >= 0) {
                ia += (sa.dim[ka] == 1 ? 0 : at) * step_a;
                step_a *= sa.dim[ka];
            }
            if (kb >= 0) {
                ib += (sb.dim[kb] == 1 ? 0 : at) * step_b;
                step_b *= sb.dim[kb];
            }
        }
        out[i] = element(r, dtype, a[ia], b[ib]);
        if (dtype == MB_FLOAT32 && !r->compares)
            out[i] = (double)(float)out[i];
    }
    return out;
}

/* ---- operands ---- */

/* How the operand of shape s is made from a buffer: as it is, or through views with other strides. */
enum form { PLAIN, PERMUTED, SLICED, FLIPPED, BROADCAST, FORMS };

static mb_tensor operand(mb_context *ctx, rng *r, mb_dtype dtype, mb_shape s, enum form form, double low,
                         double high)
{
    if (s.rank == 0 || form == PLAIN)
        return draw(ctx, r, dtype, s, low, high);
    mb_shape t = s;
    switch (form) {
    case PERMUTED: {
        mb_axes back = {s.rank, false, {0}};
        for (int i = 0; i < s.rank; i++) {
            t.dim[i] = s.dim[s.rank - 1 - i];
            back.axis[i] = s.rank - 1 - i;
        }
        return mb_permute(draw(ctx, r, dtype, t, low, high), back);
    }
    case SLICED:
        t.dim[s.rank - 1] = 2 * s.dim[s.rank - 1] + 3;
        return mb_slice(draw(ctx, r, dtype, t, low, high), s.rank - 1, 2, s.dim[s.rank - 1], 2);
    case FLIPPED:
        return mb_flip(draw(ctx, r, dtype, t, low, high), 0);
    default:
        t.dim[0] = 1;
        return mb_broadcast(draw(ctx, r, dtype, t, low, high), s);
    }
}

static const struct {
    mb_shape a, b;
} shapes[] = {
    {{0, {0}}, {0, {0}}},
    {{1, {0}}, {1, {0}}},
    {{2, {3, 0}}, {2, {1, 0}}},
    {{1, {1}}, {0, {0}}},
    {{1, {7}}, {1, {7}}},
    {{2, {3, 5}}, {2, {3, 5}}},
    {{3, {3, 1, 5}}, {2, {4, 1}}},
    {{2, {4, 1}}, {3, {3, 1, 5}}},
    {{4, {2, 3, 1, 5}}, {1, {5}}},
    {{2, {37, 129}}, {1, {129}}},
    {{2, {37, 129}}, {2, {37, 1}}},
    {{1, {70000}}, {1, {70000}}},
    {{8, {2, 1, 2, 1, 2, 1, 2, 3}}, {8, {1, 2, 1, 2, 1, 2, 1, 3}}},
};
#define SHAPES ((int)(sizeof shapes / sizeof *shapes))

static double low_of(const row *r)
{
    return r->low < r->high ? r->low : -3;
}
static double high_of(const row *r)
{
    return r->low < r->high ? r->high : 3;
}

static void compare(const row *r, mb_dtype dtype, mb_context *ctx, int shape, enum form form)
{
    rng seed = {(uint64_t)(shape * 100 + (int)form)};
    mb_tensor a = operand(ctx, &seed, dtype, shapes[shape].a, form, low_of(r), high_of(r));
    mb_tensor b =
        operand(ctx, &seed, dtype, shapes[shape].b, (enum form)((form * 2) % FORMS), low_of(r), high_of(r));
    mb_tensor y = apply(r, a, b);
    double *got = values(y), *va = values(a), *vb = values(b); /* an operand that was read has no strides */
    double *want =
        plain(r, dtype, mb_shape_of(y), va, mb_shape_of(a), vb, r->arity == 1 ? MB_SHAPE0 : mb_shape_of(b));
    double e = nmse(got, want, mb_count(y));
    double limit = dtype == MB_FLOAT64 ? 1e-24 : dtype == MB_FLOAT32 && !r->compares ? 1e-12 : 0;
    expect(mb_dtype_of(y) == (r->compares ? MB_BOOL : dtype), "%s gives %s", r->name,
           mb_dtype_name(mb_dtype_of(y)));
    expect(e <= limit, "%s %s on %s: a %s, b %s, form %d: NMSE %g", r->name, mb_dtype_name(dtype),
           mb_backend_name(ctx), shape_text(mb_shape_of(a)), shape_text(mb_shape_of(b)), (int)form, e);
    free(want);
}

/* Each op on every second pair of a shape and a form, each pair with every second op; every fourth where all
 * takes long. */
static void sweep(mb_dtype dtype)
{
    for (int k = 0; k < 2; k++) {
        mb_context *ctx = open_on(backend_names[k]);
        for (int i = 0; i < ROWS; i++)
            if (takes(&rows[i], dtype))
                for (int s = 0; s < SHAPES; s++)
                    for (int f = 0; f < FORMS; f++)
                        if ((i + s + f) % (is_slow() ? 4 : 2) == 0 && (f < 3 || shapes[s].a.rank < 8))
                            compare(&rows[i], dtype, ctx, s, (enum form)f);
        close_all();
    }
}

Test(elementwise, float64_on_many_shapes)
{
    sweep(MB_FLOAT64);
}
Test(elementwise, float32_on_many_shapes)
{
    sweep(MB_FLOAT32);
}
Test(elementwise, int32_on_many_shapes)
{
    sweep(MB_INT32);
}
Test(elementwise, bool_on_many_shapes)
{
    sweep(MB_BOOL);
}

/* ---- special values ---- */

static bool special_ok(const row *r, double got, double want, bool single)
{
    if (isnan(want) || isinf(want) || r->compares)
        return isnan(want) ? isnan(got) : got == want;
    double tiny = single ? 1e-38 : 1e-300; /* subnormal results may lose bits, or all */
    return near(got, want, single ? 2e-6 : 1e-12, tiny);
}

static void special(mb_dtype dtype)
{
    bool single = dtype == MB_FLOAT32;
    const double x[] = {(double)NAN,
                        (double)INFINITY,
                        -(double)INFINITY,
                        0.0,
                        -0.0,
                        single ? 1e-40 : 1e-310,
                        single ? -1e-40 : -1e-310,
                        1,
                        -1,
                        0.5,
                        -0.5,
                        2,
                        -2,
                        3,
                        single ? 1e30 : 1e300,
                        single ? -1e30 : -1e300,
                        88.5,
                        -104,
                        710,
                        -745,
                        1e-8,
                        -1e-8,
                        1e5,
                        0.999999,
                        17.25,
                        -0.75};
    enum { N = sizeof x / sizeof *x, SUBNORMAL = 5 };
    for (int k = 0; k < 2; k++) {
        mb_context *ctx = open_on(backend_names[k]);
        /* A device may take subnormal numbers for 0, and says so here. */
        double *twice = values(mb_add(from_doubles(ctx, dtype, MB_SHAPE(1), x + SUBNORMAL),
                                      from_doubles(ctx, dtype, MB_SHAPE(1), x + SUBNORMAL)));
        bool flushes = *twice == 0;
        expect(!flushes || testing("vulkan"), "%s takes subnormal numbers for 0", backend_names[k]);
        for (int i = 0; i < ROWS; i++) {
            const row *r = &rows[i];
            if (!takes(r, dtype))
                continue;
            mb_tensor a = mb_reshape(from_doubles(ctx, dtype, MB_SHAPE(N), x), MB_SHAPE(N, 1));
            mb_tensor b = from_doubles(ctx, dtype, MB_SHAPE(N), x);
            /* Repeated, so that whole vectors and the rest of a row both see each value. */
            mb_tensor wide = mb_broadcast(r->arity == 1 ? a : mb_reshape(a, MB_SHAPE(N, 1, 1)),
                                          r->arity == 1 ? MB_SHAPE(N, 19) : MB_SHAPE(N, 1, 19));
            mb_tensor y =
                r->arity == 1 ? r->one(MB_HERE, wide) : r->two(MB_HERE, wide, mb_reshape(b, MB_SHAPE(N, 1)));
            double *va = values(a), *vb = values(b), *got = values(y);
            int per = r->arity == 1 ? 1 : N;
            for (int p = 0; p < N * per * 19; p++) {
                double u = va[p / 19 / per], v = vb[p / 19 % per];
                double want = r->real(u, v);
                double least = fabs(va[SUBNORMAL]); /* as the dtype has it */
                if (flushes && (fabs(u) == least || (r->arity == 2 && fabs(v) == least)))
                    continue;
                if (single && !r->compares)
                    want = (double)(float)want;
                /* Vulkan's float64 sine, cosine and tangent reduce their argument up to 1.6e9 only (ops.def
                 * says so).
                 */
                bool far = !single && k && testing("vulkan") && fabs(u) > 1.6e9 && isfinite(u) &&
                           (!strcmp(r->name, "sin") || !strcmp(r->name, "cos") || !strcmp(r->name, "tan"));
                expect(far ? fabs(got[p]) <= (r->name[0] == 't' ? 2e16 : 1)
                           : special_ok(r, got[p], want, single),
                       "%s(%g, %g) on %s %s, column %d: %.17g, not %.17g", r->name, u, v, backend_names[k],
                       mb_dtype_name(dtype), p % 19, got[p], want);
            }
        }
        close_all();
    }
}

Test(elementwise, special_values_float64)
{
    special(MB_FLOAT64);
}
Test(elementwise, special_values_float32)
{
    special(MB_FLOAT32);
}

/* The wrap-around of int32 is defined: two's complement. */
Test(elementwise, int32_wraps)
{
    for (int k = 0; k < 2; k++) {
        mb_context *ctx = open_on(backend_names[k]);
        mb_tensor big =
            from_doubles(ctx, MB_INT32, MB_SHAPE(3), (double[]){2147483647, -2147483648.0, 65536});
        double *sum = values(mb_add(big, big)), *product = values(mb_mul(big, big)),
               *minus = values(mb_neg(big));
        expect(sum[0] == -2 && sum[1] == 0 && sum[2] == 131072, "%s: int32 add: %g %g %g", backend_names[k],
               sum[0], sum[1], sum[2]);
        expect(product[0] == 1 && product[1] == 0 && product[2] == 0, "%s: int32 mul: %g %g %g",
               backend_names[k], product[0], product[1], product[2]);
        expect(minus[0] == -2147483647 && minus[1] == -2147483648.0, "%s: int32 neg: %g %g", backend_names[k],
               minus[0], minus[1]);
        close_all();
    }
}

/* A plain number on either side means the same as a tensor there. */
Test(elementwise, plain_numbers)
{
    for (int k = 0; k < 2; k++) {
        mb_context *ctx = open_on(backend_names[k]);
        rng r = {5};
        mb_tensor x = draw(ctx, &r, MB_FLOAT64, MB_SHAPE(3, 5), 0.5, 2),
                  c = mb_full(ctx, MB_FLOAT64, MB_SHAPE0, 0.75);
#define SAME(name)                                                                                           \
    expect(same_bits(values(mb_##name(x, 0.75)), values(mb_##name(x, c)), 15) &&                             \
               same_bits(values(mb_##name(0.75, x)), values(mb_##name(c, x)), 15),                           \
           #name " with a plain number on %s", backend_names[k])
        SAME(add), SAME(sub), SAME(mul), SAME(div), SAME(pow), SAME(maximum), SAME(minimum), SAME(lt),
            SAME(le), SAME(eq);
        expect(mb_item(mb_sum(mb_cast(mb_lt(x, 2), MB_INT32), MB_ALL)) == 15, "an int as plain number");
        close_all();
    }
}

Test(elementwise, where_picks)
{
    for (int k = 0; k < 2; k++)
        for (int d = 0; d < 4; d++) {
            mb_context *ctx = open_on(backend_names[k]);
            rng r = {7};
            mb_tensor c = draw(ctx, &r, MB_BOOL, MB_SHAPE(4, 1), 0, 1);
            mb_tensor a = draw(ctx, &r, (mb_dtype)d, MB_SHAPE(3, 1, 5), -9, 9),
                      b = draw(ctx, &r, (mb_dtype)d, MB_SHAPE(5), -9, 9);
            double *vc = values(c), *va = values(a), *vb = values(b), *y = values(mb_where(c, a, b));
            for (int i = 0; i < 60; i++) {
                double want = vc[i / 5 % 4] != 0 ? va[i / 20 * 5 + i % 5] : vb[i % 5];
                expect(y[i] == want, "where %s on %s: %g, not %g", mb_dtype_name((mb_dtype)d),
                       backend_names[k], y[i], want);
            }
            double nan = (double)NAN; /* what is not taken does not touch the result */
            mb_tensor poisoned = mb_full(ctx, MB_FLOAT64, MB_SHAPE(4, 1), nan);
            double *z =
                values(mb_where(c, poisoned, mb_where(c, poisoned, mb_ones(ctx, MB_FLOAT64, MB_SHAPE0))));
            for (int i = 0; i < 4; i++)
                expect(vc[i] != 0 ? isnan(z[i]) : z[i] == 1, "where lets NaN through on %s",
                       backend_names[k]);
            close_all();
        }
}

Test(elementwise, cast_between_all)
{
    const double x[] = {0, 1, -1, 0.25, -0.75, 2.5, -2.5, 3.999999, 1e6, -1e6, 16777217};
    enum { N = sizeof x / sizeof *x };
    for (int k = 0; k < 2; k++) {
        mb_context *ctx = open_on(backend_names[k]);
        for (int from = 0; from < 4; from++)
            for (int to = 0; to < 4; to++) {
                mb_tensor a = from_doubles(ctx, (mb_dtype)from, MB_SHAPE(N), x), b = mb_cast(a, (mb_dtype)to);
                double *va = values(a), *vb = values(b);
                expect(mb_dtype_of(b) == (mb_dtype)to, "cast gives the wrong dtype");
                for (int i = 0; i < N; i++) {
                    double want = to == MB_FLOAT32 ? (double)(float)va[i]
                                  : to == MB_INT32 ? trunc(va[i])
                                  : to == MB_BOOL  ? va[i] != 0
                                                   : va[i];
                    expect(vb[i] == want, "cast %s to %s on %s: %.17g gives %.17g",
                           mb_dtype_name((mb_dtype)from), mb_dtype_name((mb_dtype)to), backend_names[k],
                           va[i], vb[i]);
                }
            }
        double nan[] = {(double)NAN, (double)INFINITY, -(double)INFINITY, -0.0};
        double *b = values(mb_cast(from_doubles(ctx, MB_FLOAT32, MB_SHAPE(4), nan), MB_BOOL));
        expect(b[0] == 1 && b[1] == 1 && b[2] == 1 && b[3] == 0,
               "%s: bool of NaN, inf, -inf, -0: %g %g %g %g", backend_names[k], b[0], b[1], b[2], b[3]);
        double *f = values(mb_cast(from_doubles(ctx, MB_FLOAT32, MB_SHAPE(4), nan), MB_FLOAT64));
        expect(isnan(f[0]) && isinf(f[1]) && isinf(f[2]) && signbit(f[3]),
               "%s: casts between floats keep special values", backend_names[k]);
        close_all();
    }
}
