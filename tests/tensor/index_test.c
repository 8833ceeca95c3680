/* SPDX-License-Identifier: MIT
 * index_test.c - take, scatter_add, take_along, sorting, one_hot, against plain loops. */
#include "support.h"

#define ON_BOTH                                                                                              \
    for (int k = 0; k < 2; k++)                                                                              \
        for (mb_context *ctx = open_on(backend_names[k]); ctx; ctx = NULL, close_all())

static const int64_t dims[] = {4, 7, 5};

/* The three axes as outer, middle and inner sizes around `axis`. */
static void around(int axis, int64_t *outer, int64_t *inner)
{
    *outer = *inner = 1;
    for (int i = 0; i < 3; i++)
        *(i < axis ? outer : i > axis ? inner : &(int64_t){0}) *= i == axis ? 1 : dims[i];
}

Test(index, take_and_scatter_add)
{
    for (int d = 0; d < 3; d++)
        ON_BOTH
        {
            rng r = {3};
            mb_tensor x = draw(ctx, &r, (mb_dtype)d, MB_SHAPE(4, 7, 5), -5, 5);
            double *v = values(x);
            for (int axis = 0; axis < 3; axis++) {
                int64_t outer, inner, size = dims[axis];
                around(axis, &outer, &inner);
                /* out of range is clamped; indices repeat */
                const int32_t chosen[] = {0, 2, 2, (int32_t)size - 1, -3, (int32_t)size + 4};
                mb_tensor i = mb_transpose(mb_from(ctx, MB_INT32, MB_SHAPE(2, 3), chosen)); /* [3,2] */
                mb_tensor y = mb_take(x, i, axis - (axis == 2 ? 3 : 0)), z = mb_scatter_add(y, i, axis, size);
                double *vy = values(y), *vz = values(z), *sum = calloc((size_t)(4 * 7 * 5), sizeof *sum);
                expect(mb_count(y) == outer * 6 * inner, "take: shape %s", shape_text(mb_shape_of(y)));
                for (int64_t o = 0; o < outer; o++)
                    for (int64_t c = 0; c < 6; c++)
                        for (int64_t n = 0; n < inner; n++) {
                            int64_t at = chosen[c % 2 * 3 + c / 2];
                            at = at < 0 ? 0 : at >= size ? size - 1 : at;
                            double want = v[(o * size + at) * inner + n], got = vy[(o * 6 + c) * inner + n];
                            expect(got == want, "take along %d on %s: %g, not %g", axis, backend_names[k],
                                   got, want);
                            sum[(o * size + at) * inner + n] += want;
                        }
                for (int64_t n = 0; n < 140; n++)
                    expect(near(vz[n], sum[n], 1e-6, 1e-6), "scatter_add along %d %s on %s: %g, not %g", axis,
                           mb_dtype_name((mb_dtype)d), backend_names[k], vz[n], sum[n]);
                free(sum);
            }
            mb_tensor one = mb_take(x, mb_scalar(ctx, MB_INT32, 2), 0);
            expect(same_shape(mb_shape_of(one), MB_SHAPE(7, 5)) && same_bits(values(one), v + 70, 35),
                   "take of a 0-d index");
            mb_tensor none = mb_take(x, mb_from(ctx, MB_INT32, MB_SHAPE(0), NULL), 1);
            expect(same_shape(mb_shape_of(none), MB_SHAPE(4, 0, 5)), "take of no index");
            expect(mb_item(mb_sum(mb_scatter_add(none, mb_from(ctx, MB_INT32, MB_SHAPE(0), NULL), 1, 3),
                                  MB_ALL)) == 0,
                   "scatter_add of nothing");
        }
}

/* Many updates to few places: the order of additions, and so the bits, must not depend on threads. */
Test(index, scatter_add_of_many)
{
    ON_BOTH
    {
        rng r = {6};
        enum { N = 50000 };
        mb_tensor x = draw(ctx, &r, MB_FLOAT32, MB_SHAPE(N, 2), -1, 1),
                  i = draw(ctx, &r, MB_INT32, MB_SHAPE(N), 0, 7);
        double *v = values(x), *at = values(i), *y = values(mb_scatter_add(x, i, 0, 7));
        float want[14] = {0};
        double exact[14] = {0};
        for (int n = 0; n < N; n++)
            for (int c = 0; c < 2; c++) {
                want[(int)at[n] * 2 + c] += (float)v[n * 2 + c];
                exact[(int)at[n] * 2 + c] += v[n * 2 + c];
            }
        for (int n = 0; n < 14; n++)
            expect(k ? near(y[n], (double)want[n], 1e-3, 1e-2) : near(y[n], exact[n], 1e-6, 1e-6),
                   "scatter_add [%d] on %s: %g, not %g", n, backend_names[k], y[n], exact[n]);
    }
}

/* Ascending, stable, NaN last: checked by definition. */
Test(index, argsort_and_sort)
{
    for (int d = 0; d < 3; d++)
        ON_BOTH
        {
            static const mb_shape shapes[] = {{1, {1}}, {1, {0}}, {2, {3, 8}}, {3, {2, 3, 33}}, {1, {5000}}};
            for (int s = 0; s < 5; s++) {
                rng r = {(uint64_t)s + 2};
                mb_tensor x = draw(ctx, &r, (mb_dtype)d, shapes[s], -20, 20);
                if (d < 2) { /* ties, NaN, infinities, both zeros, the smallest numbers */
                    x = mb_floor(mb_mul(x, 0.5));
                    x = mb_where(mb_eq(x, 4.0), mb_full(ctx, (mb_dtype)d, MB_SHAPE0, (double)NAN), x);
                    x = mb_where(mb_eq(x, 3.0), mb_full(ctx, (mb_dtype)d, MB_SHAPE0, (double)INFINITY), x);
                    x = mb_where(mb_eq(x, -1.0), mb_neg(mb_abs(mb_mul(x, 0.0))), x);
                    double least = d == MB_FLOAT32 ? 1e-45 : 5e-324;
                    x = mb_where(mb_eq(x, 2.0), mb_full(ctx, (mb_dtype)d, MB_SHAPE0, least), x);
                    x = mb_where(mb_eq(x, -2.0), mb_full(ctx, (mb_dtype)d, MB_SHAPE0, -least), x);
                }
                int64_t n = mb_dim(x, -1), rows = n ? mb_count(x) / n : 0;
                double *v = values(x), *at = values(mb_argsort(x)), *sorted = values(mb_sort(x));
                for (int64_t row = 0; row < rows; row++) {
                    const double *vr = v + row * n, *ar = at + row * n, *sr = sorted + row * n;
                    bool *seen = calloc((size_t)n + 1, sizeof *seen);
                    for (int64_t j = 0; j < n; j++) {
                        int64_t a = (int64_t)ar[j], b = j ? (int64_t)ar[j - 1] : 0;
                        expect(a >= 0 && a < n && !seen[a], "argsort is no permutation: %lld", (long long)a);
                        if (a < 0 || a >= n)
                            break;
                        seen[a] = true;
                        expect(near(sr[j], vr[a], 0, 0), "sort and argsort differ");
                        if (!j)
                            continue;
                        bool after = isnan(vr[a]) || vr[b] < vr[a],
                             tie = vr[a] == vr[b] || (isnan(vr[a]) && isnan(vr[b]));
                        expect(tie ? b < a : after && !isnan(vr[b]), "%s, %s %s: %g (%lld) before %g (%lld)",
                               backend_names[k], mb_dtype_name((mb_dtype)d), shape_text(shapes[s]), vr[b],
                               (long long)b, vr[a], (long long)a);
                    }
                    free(seen);
                }
            }
        }
}

Test(index, take_along_and_one_hot)
{
    ON_BOTH
    {
        rng r = {8};
        mb_tensor x = draw(ctx, &r, MB_FLOAT64, MB_SHAPE(3, 4, 5), -1, 1),
                  i = draw(ctx, &r, MB_INT32, MB_SHAPE(3, 4, 2), 0, 5);
        double *v = values(x), *at = values(i), *y = values(mb_take_along(x, i));
        for (int n = 0; n < 24; n++)
            expect(y[n] == v[n / 2 * 5 + (int)at[n]], "take_along on %s", backend_names[k]);
        double *h = values(mb_one_hot(i, 5));
        for (int n = 0; n < 120; n++)
            expect(h[n] == (at[n / 5] == n % 5), "one_hot on %s", backend_names[k]);
        mb_tensor t = mb_take_along(mb_transpose(x),
                                    mb_zeros(ctx, MB_INT32, MB_SHAPE(3, 5, 1))); /* column 0 of a view */
        double *z = values(t);
        for (int n = 0; n < 15; n++)
            expect(z[n] == v[n / 5 * 20 + n % 5], "take_along of a view on %s", backend_names[k]);
        double *none = values(mb_one_hot(mb_from(ctx, MB_INT32, MB_SHAPE(2), ((int32_t[]){-1, 9})), 3));
        for (int n = 0; n < 6; n++)
            expect(none[n] == 0, "one_hot of an index out of range");
    }
}
