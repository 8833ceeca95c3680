/* SPDX-License-Identifier: MIT
 *
 * pairs_test.c - functions of two operands and of one that are made of other ops: remainders and integer
 * division against C's, comparisons, clamp, powers and logarithms to other bases. */
#include "support.h"

#define ON_BOTH                                                                                              \
    for (int k = 0; k < 2; k++)                                                                              \
        for (mb_context *ctx = open_on(backend_names[k]); ctx; ctx = NULL, close_all())
#define INF ((double)INFINITY)

static double floor_mod(double a, double b)
{
    double r = fmod(a, b);
    return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}

/* Up to rounding of a, and so, next to a multiple of b, up to b. */
static bool near_modulo(double got, double want, double b, double tolerance)
{
    double off = fabs(got - want);
    return fmin(off, fabs(fabs(b) - off)) <= tolerance && (got == 0 || (got < 0) == (b < 0));
}

Test(pairs, remainders_of_floats)
{
    enum { N = 3000 };
    for (int d = 0; d < 2; d++)
        ON_BOTH
        {
            rng r = {3};
            mb_dtype dtype = (mb_dtype)d;
            mb_tensor a = draw(ctx, &r, dtype, MB_SHAPE(N), -40, 40),
                      b = draw(ctx, &r, dtype, MB_SHAPE(N), -3, 3);
            const double eps = d ? 2.3e-16 : 1.2e-7;
            const double *va = values(a), *vb = values(b), *m = values(mb_mod(a, b)),
                         *f = values(mb_fmod(a, b));
            for (int i = 0; i < N; i++) {
                /* b floor(a / b) rounds by a's ulp, a - ... once more, and + b by that of b. */
                double most = eps * (2 * fabs(va[i]) + fabs(vb[i]));
                expect(near_modulo(m[i], floor_mod(va[i], vb[i]), vb[i], most),
                       "%s: mod(%.17g, %.17g) is %.17g", backend_names[k], va[i], vb[i], m[i]);
                expect(near_modulo(fabs(f[i]), fabs(fmod(va[i], vb[i])), fabs(vb[i]), most) &&
                           (f[i] == 0 || (f[i] < 0) == (va[i] < 0)),
                       "%s: fmod(%.17g, %.17g) is %.17g", backend_names[k], va[i], vb[i], f[i]);
            }
        }
}

/* Whole numbers have whole remainders, exactly, as far as they are exact. */
Test(pairs, remainders_of_whole_floats)
{
    enum { N = 2000 };
    for (int d = 0; d < 2; d++)
        ON_BOTH
        {
            rng r = {4};
            mb_tensor a = mb_round(draw(ctx, &r, (mb_dtype)d, MB_SHAPE(N), -16e6, 16e6));
            mb_tensor b = mb_add(mb_round(draw(ctx, &r, (mb_dtype)d, MB_SHAPE(N), 0, 40)), 1.0);
            const double *va = values(a), *vb = values(b), *m = values(mb_mod(a, b)),
                         *f = values(mb_fmod(a, b));
            for (int i = 0; i < N; i++)
                expect(m[i] == floor_mod(va[i], vb[i]) && f[i] == fmod(va[i], vb[i]),
                       "%s: %g by %g: mod %g, fmod %g", backend_names[k], va[i], vb[i], m[i], f[i]);
        }
}

Test(pairs, remainders_at_special_points)
{
    const double a[] = {5, -5, INF, (double)NAN, 5, -5, 0, 5, 1e-30},
                 b[] = {INF, INF, 2, 2, 0, (double)NAN, 3, -INF, 2};
    const double mod[] = {5, INF, (double)NAN, (double)NAN, (double)NAN, (double)NAN, 0, -INF, 1e-30};
    const double fmodulo[] = {5, -5, (double)NAN, (double)NAN, (double)NAN, (double)NAN, 0, 5, 1e-30};
    ON_BOTH
    {
        mb_tensor x = from_doubles(ctx, MB_FLOAT64, MB_SHAPE(9), a),
                  y = from_doubles(ctx, MB_FLOAT64, MB_SHAPE(9), b);
        const double *m = values(mb_mod(x, y)), *f = values(mb_fmod(x, y));
        for (int i = 0; i < 9; i++)
            expect(near(m[i], mod[i], 0, 0) && near(f[i], fmodulo[i], 0, 0), "%s: %g by %g: mod %g, fmod %g",
                   backend_names[k], a[i], b[i], m[i], f[i]);
        /* Derivatives: 1, and minus the quotient. */
        mb_tensor p = from_doubles(ctx, MB_FLOAT64, MB_SHAPE(5), (double[]){7, -7, 6, 0, 5}),
                  q = from_doubles(ctx, MB_FLOAT64, MB_SHAPE(5), (double[]){2, 2, 3, 2, INF}), g[2];
        mb_grad(mb_mod(p, q), (mb_tensor[]){p, q}, 2, g);
        const double by_b[] = {-3, 4, -2, 0, 0}, by_b_fmod[] = {-3, 3, -2, 0, 0};
        for (int i = 0; i < 5; i++)
            expect(values(g[0])[i] == 1 && values(g[1])[i] == by_b[i], "%s: mod' at %d: %g %g",
                   backend_names[k], i, values(g[0])[i], values(g[1])[i]);
        mb_grad(mb_fmod(p, q), (mb_tensor[]){p, q}, 2, g);
        for (int i = 0; i < 5; i++)
            expect(values(g[0])[i] == 1 && values(g[1])[i] == by_b_fmod[i], "%s: fmod' at %d: %g %g",
                   backend_names[k], i, values(g[0])[i], values(g[1])[i]);
    }
}

/* Each pair of these, both ways. */
Test(pairs, integers)
{
    static const int64_t v[] = {0, 1, -1, 2, -2, 3, -3, 7, -7, 100, -100, INT32_MAX, -INT32_MAX, INT32_MIN};
    enum { N = sizeof v / sizeof *v };
    int32_t a[N * N], b[N * N];
    for (int i = 0; i < N * N; i++) {
        a[i] = (int32_t)v[i / N];
        b[i] = (int32_t)v[i % N];
    }
    ON_BOTH
    {
        mb_tensor x = mb_from(ctx, MB_INT32, MB_SHAPE(N * N), a),
                  y = mb_from(ctx, MB_INT32, MB_SHAPE(N * N), b);
        const double *q = values(mb_floor_divide(x, y)), *m = values(mb_mod(x, y)),
                     *f = values(mb_fmod(x, y));
        for (int i = 0; i < N * N; i++) {
            int64_t p = a[i], d = b[i], quotient = d ? p / d - (p % d != 0 && (p < 0) != (d < 0)) : 0;
            expect((int32_t)q[i] == (int32_t)(uint32_t)quotient, "%s: %d by %d is %g", backend_names[k], a[i],
                   b[i], q[i]);
            expect((int64_t)m[i] == p - quotient * d, "%s: %d mod %d is %g", backend_names[k], a[i], b[i],
                   m[i]);
            expect((int64_t)f[i] == (d ? p % d : p), "%s: fmod(%d, %d) is %g", backend_names[k], a[i], b[i],
                   f[i]);
        }
    }
}

Test(pairs, comparisons_and_numbers)
{
    const double a[] = {1, 2, 3, (double)NAN}, b[] = {2, 2, 2, 2};
    ON_BOTH
    {
        mb_tensor x = from_doubles(ctx, MB_FLOAT32, MB_SHAPE(4), a),
                  y = from_doubles(ctx, MB_FLOAT32, MB_SHAPE(4), b);
        const double *gt = values(mb_gt(x, y)), *ge = values(mb_ge(x, y)), *ne = values(mb_ne(x, y));
        const double *gt2 = values(mb_gt(x, 2)), *ge2 = values(mb_ge(x, 2)), *ne2 = values(mb_ne(x, 2));
        const double *below = values(mb_gt(2, x)), *left = values(mb_mod(7, y)),
                     *right = values(mb_fmod(y, 1.5));
        for (int i = 0; i < 4; i++) {
            expect(gt[i] == (a[i] > 2) && ge[i] == (a[i] >= 2) && ne[i] == (a[i] != 2), "%s: %g and 2",
                   backend_names[k], a[i]);
            expect(gt2[i] == gt[i] && ge2[i] == ge[i] && ne2[i] == ne[i] && below[i] == (2 > a[i]),
                   "%s: %g and a plain 2", backend_names[k], a[i]);
            expect(left[i] == 1 && right[i] == 0.5, "%s: remainders of plain numbers", backend_names[k]);
        }
    }
}

Test(pairs, clamp_and_kinds_of_numbers)
{
    const double x[] = {-5, -1, 0, 2, 7, INF, -INF, (double)NAN},
                 want[] = {-1, -1, 0, 2, 2, 2, -1, (double)NAN};
    const double slope[] = {0, 1, 1, 1, 0, 0, 0, 1};
    ON_BOTH
    {
        for (int d = 0; d < 2; d++) {
            mb_tensor t = from_doubles(ctx, (mb_dtype)d, MB_SHAPE(8), x), y = mb_clamp(t, -1, 2), g;
            mb_grad(y, &t, 1, &g);
            const double *v = values(y), *s = values(g), *nan = values(mb_isnan(t)),
                         *inf = values(mb_isinf(t)), *finite = values(mb_isfinite(t));
            for (int i = 0; i < 8; i++) {
                expect(near(v[i], want[i], 0, 0) && s[i] == slope[i], "%s: clamp(%g) is %g, slope %g",
                       backend_names[k], x[i], v[i], s[i]);
                expect(nan[i] == (i == 7) && inf[i] == (i == 5 || i == 6) && finite[i] == (i < 5),
                       "%s: of %g: %g %g %g", backend_names[k], x[i], nan[i], inf[i], finite[i]);
            }
        }
        const double *v = values(mb_clamp(from_doubles(ctx, MB_INT32, MB_SHAPE(5), x), -1, 2));
        for (int i = 0; i < 5; i++)
            expect(v[i] == want[i], "%s: clamp of int32 %g is %g", backend_names[k], x[i], v[i]);
        mb_tensor one = mb_scalar(ctx, MB_FLOAT64, 1);
        expect(mb_item(mb_clamp(one, 3, 2)) == 3 && mb_item(mb_clamp(mb_mul(one, 5.0), 3, 2)) == 2,
               "low > high");
    }
}

Test(pairs, other_bases)
{
    ON_BOTH
    for (int d = 0; d < 2; d++) {
        rng r = {9};
        mb_tensor n = mb_sub(mb_iota(ctx, (mb_dtype)d, 40), 20.0),
                  x = draw(ctx, &r, (mb_dtype)d, MB_SHAPE(99), 0.01, 90);
        const double *power = values(mb_exp2(n)), *v = values(x), *two = values(mb_log2(x)),
                     *ten = values(mb_log10(x));
        for (int i = 0; i < 40; i++)
            expect(power[i] == ldexp(1, i - 20), "%s: 2^%d is %.17g", backend_names[k], i - 20, power[i]);
        for (int i = 0; i < 99; i++) /* some roundings of logarithms below 8 */
            expect(near(two[i], log2(v[i]), 0, d ? 1e-14 : 4e-6) &&
                       near(ten[i], log10(v[i]), 0, d ? 1e-14 : 4e-6),
                   "%s: logarithms of %g: %g %g", backend_names[k], v[i], two[i], ten[i]);
        mb_tensor one = mb_scalar(ctx, (mb_dtype)d, 1), g[3];
        mb_grad(mb_exp2(one), &one, 1, &g[0]);
        mb_grad(mb_log2(one), &one, 1, &g[1]);
        mb_grad(mb_log10(one), &one, 1, &g[2]);
        expect(near(mb_item(g[0]), 2 * log(2.0), 1e-6, 0) && near(mb_item(g[1]), 1 / log(2.0), 1e-6, 0) &&
                   near(mb_item(g[2]), 1 / log(10.0), 1e-6, 0),
               "%s: slopes %g %g %g", backend_names[k], mb_item(g[0]), mb_item(g[1]), mb_item(g[2]));
    }
}
