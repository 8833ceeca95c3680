/* SPDX-License-Identifier: MIT
 *
 * running_test.c - products, running products, maxima and minima along axes against plain loops, and their
 * derivatives at zeros, ties and NaN. */
#include "support.h"

#define ON_BOTH                                                                                              \
    for (int k = 0; k < 2; k++)                                                                              \
        for (mb_context *ctx = open_on(backend_names[k]); ctx; ctx = NULL, close_all())

static mb_tensor grad(mb_tensor y, mb_tensor x)
{
    mb_tensor g;
    mb_grad(y, &x, 1, &g);
    return g;
}

static void expect_values(const char *what, mb_tensor t, const double *want)
{
    const double *got = values(t);
    for (int i = 0; i < mb_count(t); i++)
        expect(near(got[i], want[i], 1e-14, 0), "%s on %s: [%d] is %.15g, not %.15g", what,
               mb_backend_name(t.ctx), i, got[i], want[i]);
}

/* ---- along the middle axis of [2, n, 3] ---- */

enum what { CUMPROD, CUMMAX, CUMMIN, KINDS };
static const char *const names[] = {"cumprod", "cummax", "cummin"};

static mb_tensor apply(enum what w, mb_tensor x, bool reverse)
{
    return w == CUMPROD  ? mb_cumprod(x, 1, reverse)
           : w == CUMMAX ? mb_cummax(x, -2, reverse)
                         : mb_cummin(x, 1, reverse);
}

static double joined(enum what w, mb_dtype dtype, double so_far, double x)
{
    if (w == CUMPROD && dtype == MB_INT32)
        return (double)(int32_t)((uint32_t)(int32_t)so_far * (uint32_t)(int32_t)x);
    return w == CUMPROD ? so_far * x : w == CUMMAX ? fmax(so_far, x) : fmin(so_far, x);
}

static void compare(mb_context *ctx, enum what w, mb_dtype dtype, int n, bool reverse)
{
    rng r = {(uint64_t)n};
    double low = w == CUMPROD && dtype != MB_INT32 ? 0.8 : -30,
           high = w == CUMPROD && dtype != MB_INT32 ? 1.2 : 30;
    mb_tensor x = draw(ctx, &r, dtype, MB_SHAPE(2, n, 3), low, high), y = apply(w, x, reverse);
    const double *v = values(x), *got = values(y);
    expect(same_shape(mb_shape_of(y), MB_SHAPE(2, n, 3)) && mb_dtype_of(y) == dtype, "%s: shape", names[w]);
    double want = 0;
    for (int row = 0; row < 6; row++)
        for (int i = 0; i < n; i++) {
            int at = row / 3 * 3 * n + (reverse ? n - 1 - i : i) * 3 + row % 3;
            want = i ? joined(w, dtype, want, v[at]) : v[at];
            /* A product of n factors is rounded n times, in one order or another. */
            double relative =
                w != CUMPROD || dtype == MB_INT32 ? 0 : 2 * n * (dtype == MB_FLOAT64 ? 1.2e-16 : 6e-8);
            expect(near(got[at], want, relative, 0), "%s %s on %s, %d of %d: %g, not %g", names[w],
                   mb_dtype_name(dtype), mb_backend_name(ctx), i, n, got[at], want);
        }
}

Test(running, against_loops)
{
    static const int sizes[] = {0, 1, 3, 37};
    ON_BOTH
    for (int w = 0; w < KINDS; w++)
        for (int d = 0; d < 3; d++)
            for (int s = 0; s < 4; s++)
                for (int reverse = 0; reverse < 2; reverse++)
                    compare(ctx, (enum what)w, (mb_dtype)d, sizes[s], reverse);
}

Test(running, maxima_of_a_long_row)
{
    enum { N = 70000 };
    ON_BOTH
    {
        rng r = {2};
        mb_tensor x = draw(ctx, &r, MB_FLOAT32, MB_SHAPE(N), -1, 1);
        const double *v = values(x), *top = values(mb_cummax(x, 0, false));
        double want = v[0];
        for (int i = 0; i < N; i++) {
            want = fmax(want, v[i]);
            expect(top[i] == want, "%s: %d: %g, not %g", backend_names[k], i, top[i], want);
        }
    }
}

Test(running, derivatives_of_ties_and_nan)
{
    const double row[6] = {1, 3, 3, (double)NAN, 2, 5}, nan = (double)NAN;
    ON_BOTH
    {
        mb_tensor x = from_doubles(ctx, MB_FLOAT64, MB_SHAPE(6), row), first = mb_slice(x, 0, 0, 3, 1);
        mb_tensor weights = mb_add(mb_iota(ctx, MB_FLOAT64, 3), 1.0); /* 1, 2, 3 */
        expect_values("ties", grad(mb_mul(mb_cummax(first, 0, false), weights), first), (double[]){1, 2, 3});
        expect_values("ties from the end", grad(mb_mul(mb_cummax(first, 0, true), weights), first),
                      (double[]){0, 3, 3});
        expect_values("smallest", grad(mb_mul(mb_cummin(first, 0, false), weights), first),
                      (double[]){6, 0, 0});
        expect_values("NaN", mb_cummax(x, 0, false), (double[]){1, 3, 3, nan, nan, nan});
        expect_values("NaN of a minimum", mb_cummin(x, 0, false), (double[]){1, 1, 1, nan, nan, nan});
        expect_values("NaN'", grad(mb_cummax(x, 0, false), x), (double[]){1, 1, 1, nan, 0, 0});
        mb_tensor least = from_doubles(ctx, MB_INT32, MB_SHAPE(3), (double[]){5, -2147483648.0, 7});
        expect_values("the least integer", mb_cummin(least, 0, false),
                      (double[]){5, -2147483648.0, -2147483648.0});
        expect_values("the least of integers", mb_min(least, MB_KEEP(0)), (double[]){-2147483648.0});
        expect(mb_item(mb_argmin(least, 0)) == 1, "argmin of the least integer");
    }
}

/* ---- products ---- */

Test(running, product_over_axes)
{
    ON_BOTH
    for (int d = 0; d < 3; d++)
        for (int n = 0; n < 9; n++) {
            rng r = {(uint64_t)n};
            mb_tensor x = draw(ctx, &r, (mb_dtype)d, MB_SHAPE(3, n, 2), d == 2 ? -9 : 0.5, d == 2 ? 9 : 1.5);
            const double *v = values(x), *rows = values(mb_prod(x, MB_AXES(1)));
            double all = 1, tolerance = d == 1 ? 1e-14 : d == 0 ? 1e-5 : 0;
            for (int i = 0; i < 6; i++) {
                double want = 1;
                for (int j = 0; j < n; j++)
                    want *= v[i / 2 * 2 * n + j * 2 + i % 2];
                expect(near(rows[i], want, tolerance, 0), "%s: prod of %d: %g, not %g", backend_names[k], n,
                       rows[i], want);
                all *= want;
            }
            mb_tensor kept = mb_prod(x, MB_ALL_KEEP);
            expect(same_shape(mb_shape_of(kept), MB_SHAPE(1, 1, 1)), "shape of a kept product");
            if (d < 2)
                expect(near(mb_item(kept), all, d ? 1e-13 : 1e-4, 0), "prod of all: %g, not %g",
                       mb_item(kept), all);
        }
}

Test(running, integers_wrap_and_bools_count)
{
    ON_BOTH
    {
        mb_tensor big = from_doubles(ctx, MB_INT32, MB_SHAPE(3), (double[]){65536, 65536, 3});
        mb_tensor truth = from_doubles(ctx, MB_BOOL, MB_SHAPE(2, 2), (double[]){1, 1, 1, 0});
        expect(mb_item(mb_prod(big, MB_ALL)) == 0, "wraps");
        expect_values("bools", mb_prod(truth, MB_AXES(1)), (double[]){1, 0});
        expect(mb_dtype_of(mb_prod(truth, MB_ALL)) == MB_INT32, "dtype of a product of bools");
    }
}

/* x0 x1 x2 x3 and the running product at points with one, two and three zeros: each derivative, up to the
 * third, is the product of the entries that it is not by. */
Test(running, derivatives_of_products_at_zeros)
{
    static const double points[4][4] = {{2, 3, 5, 7}, {2, 0, 5, 7}, {0, 3, 0, 7}, {0, 0, 5, 0}};
    ON_BOTH
    for (int p = 0; p < 4; p++)
        for (int running = 0; running < 2; running++) {
            const double *v = points[p];
            mb_tensor x = from_doubles(ctx, MB_FLOAT64, MB_SHAPE(4), v);
            mb_tensor y = running ? mb_slice(mb_cumprod(x, 0, false), 0, 3, 1, 1) : mb_prod(x, MB_ALL);
            mb_tensor g = grad(y, x), h = grad(mb_slice(g, 0, 1, 1, 1), x),
                      t = grad(mb_slice(h, 0, 2, 1, 1), x);
            double first[4], second[4], third[4];
            for (int i = 0; i < 4; i++) {
                first[i] = second[i] = third[i] = 1;
                for (int j = 0; j < 4; j++) {
                    first[i] *= j == i ? 1 : v[j];
                    second[i] *= j == i || j == 1 ? 1 : v[j];
                    third[i] *= j == i || j == 1 || j == 2 ? 1 : v[j];
                }
                second[i] = i == 1 ? 0 : second[i];
                third[i] = i == 1 || i == 2 ? 0 : third[i];
            }
            expect_values("first", g, first);
            expect_values("second", h, second);
            expect_values("third", t, third);
        }
}

/* ---- truth ---- */

Test(running, any_and_all)
{
    ON_BOTH
    for (int d = 0; d < 4; d++) {
        mb_tensor x = from_doubles(ctx, (mb_dtype)d, MB_SHAPE(3, 2), (double[]){0, 0, 0, 3, 2, 5});
        expect_values("any", mb_any(x, MB_AXES(1)), (double[]){0, 1, 1});
        expect_values("all", mb_all(x, MB_AXES(1)), (double[]){0, 0, 1});
        expect_values("any of all", mb_any(x, MB_ALL), (double[]){1});
        mb_tensor none = mb_zeros(ctx, (mb_dtype)d, MB_SHAPE(2, 0));
        expect_values("any of nothing", mb_any(none, MB_AXES(1)), (double[]){0, 0});
        expect_values("all of nothing", mb_all(none, MB_KEEP(1)), (double[]){1, 1});
        expect(mb_dtype_of(mb_all(none, MB_ALL)) == MB_BOOL, "dtype of all");
    }
}

Test(running, argmin)
{
    const double x[] = {3, 1, 1, (double)NAN, 2, (double)NAN, 0, -0.0, 5};
    ON_BOTH
    {
        mb_tensor t = from_doubles(ctx, MB_FLOAT32, MB_SHAPE(3, 3), x);
        expect_values("argmin", mb_argmin(t, 1), (double[]){1, 0, 0});
        expect_values("argmin of columns", mb_argmin(t, 0), (double[]){1, 2, 1});
    }
}
