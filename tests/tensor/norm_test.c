/* SPDX-License-Identifier: MIT
 *
 * norm_test.c - norms along axes and of several tensors: where squares overflow or vanish, at 0 to the third
 * order, and against plain loops. */
#include <float.h>

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

Test(norm, along_axes)
{
    ON_BOTH
    for (int d = 0; d < 2; d++) {
        rng r = {5};
        mb_tensor x = draw(ctx, &r, (mb_dtype)d, MB_SHAPE(3, 4, 5), -2, 2);
        const double *v = values(x), t = d ? 1e-15 : 1e-6;
        mb_tensor rows = mb_norm(x, MB_AXES(2)), slabs = mb_norm(x, MB_KEEP(0, 2)), all = mb_norm(x, MB_ALL);
        expect(same_shape(mb_shape_of(rows), MB_SHAPE(3, 4)), "rows %s", shape_text(mb_shape_of(rows)));
        expect(same_shape(mb_shape_of(slabs), MB_SHAPE(1, 4, 1)), "slabs %s", shape_text(mb_shape_of(slabs)));
        double row[12] = {0}, slab[4] = {0}, total = 0;
        for (int i = 0; i < 60; i++) {
            row[i / 5] += v[i] * v[i];
            slab[i / 5 % 4] += v[i] * v[i];
            total += v[i] * v[i];
        }
        for (int i = 0; i < 12; i++)
            expect(near(values(rows)[i], sqrt(row[i]), 4 * t, 0), "row %d: %.17g", i, values(rows)[i]);
        for (int i = 0; i < 4; i++)
            expect(near(values(slabs)[i], sqrt(slab[i]), 4 * t, 0), "slab %d: %.17g", i, values(slabs)[i]);
        expect(near(mb_item(all), sqrt(total), 8 * t, 0), "all: %.17g", mb_item(all));
        const double *g = values(grad(rows, x));
        for (int i = 0; i < 60; i++)
            expect(near(g[i], v[i] / sqrt(row[i / 5]), 8 * t, 0), "slope %d: %.17g", i, g[i]);
        expect(mb_item(mb_norm(mb_zeros(ctx, (mb_dtype)d, MB_SHAPE(0, 3)), MB_ALL)) == 0, "of nothing");
    }
}

/* (3, 4) times a size whose square is no number of the dtype, or nothing: the norm is 5 of them, the slope
 * (0.6, 0.8), and the second derivatives are (0.64, -0.48, 0.36) / 5 of 1 / size. */
Test(norm, squares_out_of_range)
{
    ON_BOTH
    for (int d = 0; d < 2; d++)
        for (int i = 0; i < 4; i++) {
            const double sizes[2][4] = {{1e20, 6e37, 1e-25, 1e-36}, {1e160, 3e307, 1e-170, 1e-306}},
                         size = sizes[d][i];
            const double t = d ? 1e-14 : 1e-5;
            mb_tensor x = from_doubles(ctx, (mb_dtype)d, MB_SHAPE(2), (double[]){3 * size, 4 * size});
            mb_tensor y = mb_norm(x, MB_ALL), g = grad(y, x), second = grad(mb_slice(g, 0, 0, 1, 1), x);
            expect(near(mb_item(y), 5 * size, t, 0), "norm %g, not %g", mb_item(y), 5 * size);
            const double *s = values(g), *h = values(second);
            expect(near(s[0], 0.6, t, 0) && near(s[1], 0.8, t, 0), "slope %g %g at %g", s[0], s[1], size);
            if (1 / size > (d ? 1e300 : 1e30) || size > (d ? 1e300 : 1e30))
                continue; /* they vanish or overflow */
            expect(near(h[0] * size, 0.128, t, 0) && near(h[1] * size, -0.096, t, 0), "curvature %g %g at %g",
                   h[0] * size, h[1] * size, size);
        }
}

/* Every exponent that has a norm, in rows of (2, -3, 6) and of that with the same a million times smaller
 * beside it: norms are 7 of them, slopes a seventh, and of three tensors together it is the same. */
Test(norm, every_exponent)
{
    enum { WIDE = 6 };
    const double unit[WIDE] = {2, -3, 6, 2e-6, -3e-6, 6e-6};
    ON_BOTH
    for (int d = 0; d < 2; d++) {
        const int low = d ? -1022 : -126, high = d ? 1020 : 124, n = high - low + 1;
        const double t = d ? 1e-15 : 1e-6, flushed = ldexp(1, low); /* smaller ones may count as 0 */
        double *at = malloc(sizeof *at * (size_t)n * WIDE);
        cr_assert(at != NULL);
        for (int i = 0; i < n * WIDE; i++)
            at[i] = ldexp(unit[i % WIDE], low + i / WIDE);
        mb_tensor x = from_doubles(ctx, (mb_dtype)d, MB_SHAPE(n, WIDE), at), y = mb_norm(x, MB_AXES(1));
        const double *v = values(y), *g = values(grad(y, x));
        for (int i = 0; i < n; i++) {
            double want = ldexp(7 * sqrt(1 + 1e-12), low + i);
            expect(near(v[i], want, 4 * t, 0), "2^%d: %.17g, not %.17g", low + i, v[i], want);
            for (int j = 0; j < WIDE; j++)
                expect(near(g[i * WIDE + j], at[i * WIDE + j] / want, 8 * t, flushed / want * 2),
                       "2^%d: slope %d is %.17g", low + i, j, g[i * WIDE + j]);
        }
        for (int i = 0; i < n; i += 7) { /* as three tensors, the smallest first */
            mb_tensor row = mb_slice(x, 0, i, 1, 1), parts[3];
            for (int j = 0; j < 3; j++)
                parts[j] = mb_slice(row, 1, 4 - 2 * j, 2, 1);
            double norm = mb_item(mb_global_norm(parts, 3)), want = ldexp(7 * sqrt(1 + 1e-12), low + i);
            expect(near(norm, want, 4 * t, 0), "together, 2^%d: %.17g, not %.17g", low + i, norm, want);
        }
        free(at);
    }
}

/* Many elements of which each square vanishes, or whose sum overflows; and one large beside many small. */
Test(norm, of_many)
{
    enum { N = 1 << 18 };
    float *at = malloc(sizeof *at * N);
    cr_assert(at != NULL);
    ON_BOTH
    {
        const double sizes[] = {1e-37, 1e-30, 2e-19, 1e-9, 1, 1e15, 1e19, 3e38 / 512};
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
            for (int first = 0; first < 2; first++) {
                const float size = (float)sizes[s], one = first ? 256 * size : size;
                for (int i = 0; i < N; i++)
                    at[i] = i ? size : one;
                double want = (double)size * sqrt(N - 1 + (first ? 65536 : 1));
                double got = mb_item(mb_norm(mb_from(ctx, MB_FLOAT32, MB_SHAPE(N), at), MB_ALL));
                /* The reference adds up in a double, the cpu compensates. */
                expect(near(got, want, 4e-6, 0), "%d of %g: %.9g, not %.9g", N, sizes[s], got, want);
            }
    }
    free(at);
}

Test(norm, special_values)
{
    const double inf = (double)INFINITY, nan = (double)NAN;
    ON_BOTH
    {
        const double at[] = {0, 0, inf, 1, nan, 1, inf, nan, -0.0, 3};
        mb_tensor x = from_doubles(ctx, MB_FLOAT64, MB_SHAPE(5, 2), at), y = mb_norm(x, MB_AXES(1));
        const double *v = values(y);
        expect(v[0] == 0 && v[1] == inf && isnan(v[2]) && isnan(v[3]) && v[4] == 3, "%g %g %g %g %g", v[0],
               v[1], v[2], v[3], v[4]);
        /* At 0 all derivatives are 0, alone and inside of a function; the row beside is not touched. */
        x = from_doubles(ctx, MB_FLOAT64, MB_SHAPE(2, 2), (double[]){0, -0.0, 0, 3});
        y = mb_sum(mb_sin(mb_add(mb_norm(x, MB_AXES(1)), 1.0)), MB_ALL);
        for (int order = 1; order <= 3; order++) {
            y = mb_sum(grad(y, x), MB_ALL);
            mb_tensor g = grad(y, x);
            const double *d = values(g);
            expect(d[0] == 0 && d[1] == 0 && isfinite(d[2]) && d[3] != 0, "order %d: %g %g %g %g", order + 1,
                   d[0], d[1], d[2], d[3]);
        }
    }
}

/* Clipped to 1 from every exponent beyond it, bit by bit the same within it. */
Test(norm, clipping_of_every_exponent)
{
    ON_BOTH
    for (int d = 0; d < 2; d++)
        for (int e = d ? -1022 : -126; e <= (d ? 1021 : 125); e += d ? 41 : 5) {
            const double at[3] = {ldexp(2, e), ldexp(-3, e), ldexp(6, e)}, t = d ? 1e-15 : 1e-6;
            mb_tensor x = from_doubles(ctx, (mb_dtype)d, MB_SHAPE(3), at), c;
            mb_clip_norm(&x, 1, 1, &c);
            const double *v = values(c);
            for (int i = 0; i < 3; i++) {
                double want = e > -3 ? ldexp(at[i], -e) / 7 : at[i];
                expect(e > -3 ? near(v[i], want, 4 * t, 0) : v[i] == want, "2^%d: [%d] is %.17g, not %.17g",
                       e, i, v[i], want);
            }
        }
}

Test(norm, clipping_out_of_range)
{
    ON_BOTH
    for (int d = 0; d < 2; d++)
        for (int i = 0; i < 3; i++) {
            const double sizes[2][3] = {{1e20, 8e37, 1e-30}, {1e160, 4e307, 1e-200}}, size = sizes[d][i];
            const double limit = size < 1 ? size : 1, t = d ? 1e-14 : 1e-6;
            mb_tensor g[2] = {from_doubles(ctx, (mb_dtype)d, MB_SHAPE(1), &(double){3 * size}),
                              from_doubles(ctx, (mb_dtype)d, MB_SHAPE0, &(double){-4 * size})},
                      c[2];
            double norm = mb_item(mb_clip_norm(g, 2, limit, c));
            bool beyond = 5 * size > (d ? DBL_MAX : FLT_MAX);
            expect(beyond ? isinf(norm) : near(norm, 5 * size, t, 0), "norm %g of %g", norm, size);
            double a = mb_item(c[0]) / limit, b = mb_item(c[1]) / limit;
            expect(near(a, 0.6, t, 0) && near(b, -0.8, t, 0), "clipped %.9g %.9g at %g", a, b, size);
        }
}
