/* SPDX-License-Identifier: MIT
 * sort_test.c - the k largest and smallest, quantiles, against sorting in C. */
#include "support.h"

#define ON_BOTH                                                                                              \
    for (int k = 0; k < 2; k++)                                                                              \
        for (mb_context *ctx = open_on(backend_names[k]); ctx; ctx = NULL, close_all())

enum { N = 23, COLUMNS = 3 };

/* How many of a column come before entry i, of equal ones the earlier: its place. */
static int place(const double *x, int column, int i, bool largest)
{
    int before = 0;
    for (int j = 0; j < N; j++) {
        double a = x[j * COLUMNS + column], b = x[i * COLUMNS + column];
        bool first = largest ? a > b || (isnan(a) && !isnan(b)) : a < b || (isnan(b) && !isnan(a));
        before += first || ((a == b || (isnan(a) && isnan(b))) && j < i);
    }
    return before;
}

Test(sort, topk)
{
    ON_BOTH
    for (int d = 0; d < 3; d++)
        for (int largest = 0; largest < 2; largest++)
            for (int count = 0; count <= N; count += N - 5 < count ? 5 : 9) {
                rng r = {(uint64_t)(d + count)};
                mb_tensor x = mb_cast(draw(ctx, &r, MB_INT32, MB_SHAPE(N, COLUMNS), -6, 6), (mb_dtype)d),
                          index;
                if (d < 2) /* a NaN here and there */
                    x = mb_where(mb_eq(x, 5.0), mb_full(ctx, (mb_dtype)d, MB_SHAPE0, (double)NAN), x);
                mb_tensor top = mb_topk(x, count, 0, largest, &index);
                expect(same_shape(mb_shape_of(top), MB_SHAPE(count, COLUMNS)) &&
                           mb_dtype_of(index) == MB_INT32,
                       "shapes");
                const double *v = values(x), *got = values(top), *at = values(index);
                for (int i = 0; i < N * COLUMNS; i++) {
                    int row = place(v, i % COLUMNS, i / COLUMNS, largest), e = row * COLUMNS + i % COLUMNS;
                    if (row < count)
                        expect(at[e] == i / COLUMNS && near(got[e], v[i], 0, 0),
                               "%s: number %d of %d: %g at %g, not %g at %d", backend_names[k], row, count,
                               got[e], at[e], v[i], i / COLUMNS);
                }
                expect(mb_count(mb_topk(x, count, 0, largest, NULL)) == count * COLUMNS, "without indices");
            }
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

Test(sort, quantiles)
{
    static const double parts[] = {0, 0.1, 0.25, 0.5, 0.77, 1};
    ON_BOTH
    for (int d = 0; d < 2; d++)
        for (int n = 1; n < 7; n++) {
            rng r = {(uint64_t)n};
            mb_tensor x = draw(ctx, &r, (mb_dtype)d, MB_SHAPE(2, n, 2), -1, 1);
            const double *v = values(x), *median = values(mb_median(x, 1));
            for (int p = 0; p < 6; p++) {
                const double *got = values(mb_quantile(x, parts[p], 1));
                for (int i = 0; i < 4; i++) {
                    double row[8], at = parts[p] * (n - 1), low = floor(at);
                    for (int j = 0; j < n; j++)
                        row[j] = v[i / 2 * 2 * n + j * 2 + i % 2];
                    qsort(row, (size_t)n, sizeof *row, ascending);
                    double a = row[(int)low], b = row[(int)ceil(at)], want = a + (at - low) * (b - a);
                    expect(near(got[i], want, 0, d ? 1e-15 : 2e-7), "%s: %g of %d: %g, not %g",
                           backend_names[k], parts[p], n, got[i], want);
                    if (parts[p] == 0.5)
                        expect(got[i] == median[i], "the median of %d", n);
                }
            }
        }
}

Test(sort, quantiles_of_infinities_and_nan)
{
    const double inf = (double)INFINITY, rows[] = {-inf, 0, inf, 1, (double)NAN, 2, inf, inf, inf};
    ON_BOTH
    {
        mb_tensor x = from_doubles(ctx, MB_FLOAT64, MB_SHAPE(3, 3), rows), g;
        const double *median = values(mb_median(x, 1)), *quarter = values(mb_quantile(x, 0.25, 1));
        expect(median[0] == 0 && isnan(median[1]) && median[2] == inf, "%s: %g %g %g", backend_names[k],
               median[0], median[1], median[2]);
        expect(quarter[0] == -inf && isnan(quarter[1]) && quarter[2] == inf, "%s: %g %g %g", backend_names[k],
               quarter[0], quarter[1], quarter[2]);
        mb_tensor t = from_doubles(ctx, MB_FLOAT64, MB_SHAPE(4), (double[]){7, 1, 5, 3});
        mb_grad(mb_quantile(t, 0.25, 0), &t, 1, &g); /* between 1 and 3, at 3/4 */
        const double want[] = {0, 0.25, 0, 0.75};
        for (int i = 0; i < 4; i++)
            expect(values(g)[i] == want[i], "%s: slope %d is %g", backend_names[k], i, values(g)[i]);
    }
}
