/* SPDX-License-Identifier: MIT
 *
 * gather_test.c - gather and the scatters along each axis against plain loops, with indices that are equal,
 * out of range, and of fewer rows than the operand. */
#include "support.h"

#define ON_BOTH                                                                                              \
    for (int k = 0; k < 2; k++)                                                                              \
        for (mb_context *ctx = open_on(backend_names[k]); ctx; ctx = NULL, close_all())

/* The element of x, of shape s, that entry i of an index of shape t means; value: the index there. */
static int64_t element(mb_shape s, mb_shape t, int axis, int64_t i, double value)
{
    int64_t at = 0, step = 1;
    for (int k = s.rank - 1; k >= 0; k--) {
        int64_t place = i % t.dim[k];
        i /= t.dim[k];
        if (k == axis)
            place = value < 0 ? 0 : value >= (double)s.dim[k] ? s.dim[k] - 1 : (int64_t)value;
        at += place * step;
        step *= s.dim[k];
    }
    return at;
}

static void compare(mb_context *ctx, mb_dtype dtype, mb_shape s, mb_shape t, int axis)
{
    rng r = {(uint64_t)(axis + 10 * s.rank)};
    mb_tensor x = draw(ctx, &r, dtype, s, -9, 9), u = draw(ctx, &r, dtype, t, -9, 9);
    mb_tensor index = draw(ctx, &r, MB_INT32, t, -1, (double)s.dim[axis]);
    int64_t n = shape_count(s), m = shape_count(t);
    double *set = malloc(((size_t)n + 1) * sizeof *set), *sum = malloc(((size_t)n + 1) * sizeof *sum);
    const double *v = values(x), *w = values(u), *at = values(index);
    const double *got = values(mb_gather(x, index, axis)),
                 *put = values(mb_scatter(x, index, u, axis - s.rank));
    for (int64_t i = 0; i < n; i++)
        set[i] = sum[i] = v[i];
    for (int64_t i = 0; i < m; i++) {
        int64_t e = element(s, t, axis, i, at[i]);
        expect(got[i] == v[e], "gather on %s, axis %d of %s: entry %d is %g, not %g", mb_backend_name(ctx),
               axis, shape_text(s), (int)i, got[i], v[e]);
        set[e] = w[i];
        sum[e] += w[i];
    }
    expect(same_bits(put, set, n), "scatter %s on %s, axis %d of %s", mb_dtype_name(dtype),
           mb_backend_name(ctx), axis, shape_text(s));
    if (dtype != MB_BOOL) {
        const double *added = values(mb_scatter_add_along(x, index, u, axis));
        for (int64_t i = 0; i < n; i++)
            expect(near(added[i], sum[i], 0, dtype == MB_FLOAT32 ? 1e-4 : 1e-13),
                   "scatter_add_along on %s, axis %d of %s: element %d is %g, not %g", mb_backend_name(ctx),
                   axis, shape_text(s), (int)i, added[i], sum[i]);
    }
    free(set);
    free(sum);
}

Test(gather, against_loops)
{
    ON_BOTH
    for (int d = 0; d < 4; d++)
        for (int axis = 0; axis < 3; axis++) {
            mb_shape s = MB_SHAPE(3, 5, 4), same = s, fewer = MB_SHAPE(2, 3, 4);
            same.dim[axis] = 9;
            fewer.dim[axis] = 1;
            compare(ctx, (mb_dtype)d, s, same, axis);
            compare(ctx, (mb_dtype)d, s, fewer, axis);
        }
}

Test(gather, of_vectors_and_of_nothing)
{
    ON_BOTH
    {
        compare(ctx, MB_FLOAT64, MB_SHAPE(7), MB_SHAPE(30), 0);
        compare(ctx, MB_FLOAT64, MB_SHAPE(1), MB_SHAPE(1), 0);
        compare(ctx, MB_FLOAT32, MB_SHAPE(1, 3000), MB_SHAPE(1, 5000), 1);
        compare(ctx, MB_FLOAT32, MB_SHAPE(3, 4), MB_SHAPE(3, 0), 1);
        compare(ctx, MB_FLOAT32, MB_SHAPE(3, 4), MB_SHAPE(0, 4), 1);
        mb_tensor x = mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(3, 0)),
                  none = mb_zeros(ctx, MB_INT32, MB_SHAPE(3, 0));
        expect(mb_count(mb_gather(x, none, 1)) == 0 && mb_count(mb_scatter(x, none, x, 1)) == 0,
               "of nothing");
    }
}

/* The last update of a place has its derivative, earlier ones and what was there have none. */
Test(gather, derivatives_of_a_scatter)
{
    ON_BOTH
    {
        mb_tensor x = from_doubles(ctx, MB_FLOAT64, MB_SHAPE(4), (double[]){1, 2, 3, 4});
        mb_tensor u = from_doubles(ctx, MB_FLOAT64, MB_SHAPE(5), (double[]){10, 20, 30, 40, 50}), g[2];
        mb_tensor index = mb_from(ctx, MB_INT32, MB_SHAPE(5), ((int32_t[]){2, 0, 2, 0, 0}));
        mb_tensor y = mb_scatter(x, index, u, 0);
        mb_grad(mb_mul(y, mb_add(mb_iota(ctx, MB_FLOAT64, 4), 1.0)), (mb_tensor[]){x, u}, 2, g);
        const double by_x[] = {0, 2, 0, 4}, by_u[] = {0, 0, 3, 0, 1}, value[] = {50, 2, 30, 4};
        expect(same_bits(values(y), value, 4), "%s: values", backend_names[k]);
        expect(same_bits(values(g[0]), by_x, 4) && same_bits(values(g[1]), by_u, 5), "%s: derivatives",
               backend_names[k]);
    }
}
