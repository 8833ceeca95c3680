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
