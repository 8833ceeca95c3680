/* SPDX-License-Identifier: MIT
 * reduce_test.c - reductions over every subset of axes against plain loops; cumulative sums, argmax, special
 * values. */
#include "support.h"

#define ON_BOTH                                                                                              \
    for (int k = 0; k < 2; k++)                                                                              \
        for (mb_context *ctx = open_on(backend_names[k]); ctx; ctx = NULL, close_all())

enum what { SUM, MEAN, MAX, MIN, VARIANCE, LOGSUMEXP, KINDS };
static const char *const names[] = {"sum", "mean", "max", "min", "variance", "logsumexp"};

static mb_tensor apply(enum what w, mb_tensor x, mb_axes axes)
{
    switch (w) {
    case SUM:
        return mb_sum(x, axes);
    case MEAN:
        return mb_mean(x, axes);
    case MAX:
        return mb_max(x, axes);
    case MIN:
        return mb_min(x, axes);
    case VARIANCE:
        return mb_variance(x, axes);
    default:
        return mb_logsumexp(x, axes);
    }
}

static double plain(enum what w, const double *x, int64_t n)
{
    double sum = 0, top = -(double)INFINITY, low = (double)INFINITY, e = 0, v = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += x[i];
        top = !(x[i] <= top) ? x[i] : top;
        low = !(x[i] >= low) ? x[i] : low;
    }
    for (int64_t i = 0; i < n; i++) {
        e += exp(x[i] - top);
        v += (x[i] - sum / (double)n) * (x[i] - sum / (double)n);
    }
    return w == SUM        ? sum
           : w == MEAN     ? sum / (double)n
           : w == MAX      ? top
           : w == MIN      ? low
           : w == VARIANCE ? v / (double)n
                           : log(e) + top;
}

static void one(mb_context *ctx, enum what w, mb_tensor x, unsigned mask, bool keep)
{
    mb_shape s = mb_shape_of(x), want = {0, {0}};
    mb_dtype dtype = mb_dtype_of(x);
    mb_axes axes = {0, keep, {0}};
    for (int i = 0; i < s.rank; i++) {
        bool reduced = mask >> i & 1;
        if (reduced)
            axes.axis[axes.count++] = mask & 1 ? i : i - s.rank; /* both ways to write an axis */
        if (!reduced || keep)
            want.dim[want.rank++] = reduced ? 1 : s.dim[i];
    }
    mb_tensor y = apply(w, x, axes);
    if (!expect(same_shape(mb_shape_of(y), want), "%s of %s, axes %#x: shape %s, not %s", names[w],
                shape_text(s), mask, shape_text(mb_shape_of(y)), shape_text(want)))
        return;
    double *vx = values(x), *vy = values(y), *row = malloc(((size_t)mb_count(x) + 1) * sizeof *row);
    int64_t results = shape_count(want);
    for (int64_t o = 0; o < results; o++) {
        int64_t n = 0;
        for (int64_t i = 0; i < mb_count(x); i++) {
            int64_t rest = i, at = 0, step = 1; /* the result that element i goes to */
            for (int a = s.rank; a-- > 0;) {
                if (!(mask >> a & 1)) {
                    at += rest % s.dim[a] * step;
                    step *= s.dim[a];
                }
                rest /= s.dim[a];
            }
            if (at == o)
                row[n++] = vx[i];
        }
        double p = plain(w, row, n), relative = dtype == MB_FLOAT64 ? 1e-13 : dtype == MB_FLOAT32 ? 2e-6 : 0;
        expect(near(vy[o], p, relative, relative * 4),
               "%s of %s %s, axes %#x on %s: [%lld] is %.15g, not %.15g", names[w], mb_dtype_name(dtype),
               shape_text(s), mask, mb_backend_name(ctx), (long long)o, vy[o], p);
    }
    free(row);
}

static void sweep(mb_dtype dtype, bool views)
{
    ON_BOTH
    {
        static const mb_shape shapes[] = {{0, {0}},          {1, {7}},     {2, {3, 5}}, {3, {2, 3, 5}},
                                          {4, {2, 1, 4, 3}}, {2, {3, 67}}, {2, {67, 3}}};
        for (int s = 0; s < 7; s++) {
            rng r = {(uint64_t)s};
            mb_tensor x = draw(ctx, &r, dtype, shapes[s], -9, 9);
            if (views && shapes[s].rank > 1)
                x = mb_flip(mb_transpose(x), 0);
            for (int w = 0; w < KINDS; w++)
                for (unsigned mask = 0; mask < 1u << shapes[s].rank; mask++)
                    if (dtype != MB_INT32 || w == SUM || w == MAX || w == MIN)
                        one(ctx, (enum what)w, x, mask, (mask + (unsigned)w) & 1);
        }
    }
}

Test(reduce, float64_over_every_subset)
{
    sweep(MB_FLOAT64, false);
}
Test(reduce, float64_through_views)
{
    sweep(MB_FLOAT64, true);
}
Test(reduce, float32_over_every_subset)
{
    sweep(MB_FLOAT32, true);
}
Test(reduce, int32_over_every_subset)
{
    sweep(MB_INT32, true);
}

/* Many tiles and threads, rows long and short; in float32 against float64. */
Test(reduce, large)
{
    ON_BOTH
    {
        static const mb_shape shapes[] = {{1, {70001}}, {2, {1200, 61}}, {2, {61, 1200}}, {3, {40, 3, 600}}};
        for (int s = 0; s < 4; s++)
            for (int w = 0; w < KINDS; w++)
                for (unsigned mask = 1; mask < 1u << shapes[s].rank; mask++) {
                    rng r = {(uint64_t)s};
                    mb_tensor x = draw(ctx, &r, MB_FLOAT32, shapes[s], -2, 2);
                    mb_axes axes = {0, false, {0}};
                    for (int i = 0; i < shapes[s].rank; i++)
                        if (mask >> i & 1)
                            axes.axis[axes.count++] = i;
                    mb_tensor y = apply((enum what)w, x, axes),
                              z = apply((enum what)w, mb_cast(x, MB_FLOAT64), axes);
                    double e = nmse(values(y), values(z), mb_count(y));
                    expect(e <= 1e-11, "%s of float32 %s, axes %#x on %s: NMSE %g", names[w],
                           shape_text(shapes[s]), mask, backend_names[k], e);
                    if (k && w == SUM) { /* and the float64 one against plain C */
                        double *v = values(x), all = 0;
                        for (int64_t i = 0; i < mb_count(x); i++)
                            all += v[i];
                        expect(near(mb_item(mb_sum(z, MB_ALL)), all, 1e-11, 1e-9), "sum of all");
                    }
                }
    }
}

Test(reduce, empty_and_special)
{
    ON_BOTH
    {
        mb_tensor none = mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(3, 0));
        double *sum = values(mb_sum(none, MB_AXES(1))), *mean = values(mb_mean(none, MB_AXES(1))),
               *top = values(mb_max(none, MB_AXES(-1)));
        for (int i = 0; i < 3; i++) {
            expect(sum[i] == 0, "%s: sum over nothing is %g", backend_names[k], sum[i]);
            expect(isnan(mean[i]), "%s: mean over nothing is %g", backend_names[k], mean[i]);
            expect(isinf(top[i]) && top[i] < 0, "%s: max over nothing is %g", backend_names[k], top[i]);
        }
        mb_tensor fed = mb_from(ctx, MB_FLOAT64, MB_SHAPE(0, 2), NULL); /* no literal: nothing to simplify */
        expect(mb_item(mb_sum(fed, MB_ALL)) == 0, "sum of an empty buffer: %g", mb_item(mb_sum(fed, MB_ALL)));
        expect(mb_count(mb_sum(fed, MB_AXES(1))) == 0, "sum to nothing");
        double nan = (double)NAN, inf = (double)INFINITY;
        mb_tensor x = from_doubles(ctx, MB_FLOAT32, MB_SHAPE(3, 3),
                                   (double[]){1, nan, 3, inf, 1, -inf, -inf, -inf, -inf});
        double *m = values(mb_max(x, MB_AXES(1))), *n = values(mb_min(x, MB_AXES(1))),
               *s = values(mb_sum(x, MB_AXES(1)));
        expect(isnan(m[0]) && m[1] == inf && m[2] == -inf, "%s: max of specials: %g %g %g", backend_names[k],
               m[0], m[1], m[2]);
        expect(isnan(n[0]) && n[1] == -inf && n[2] == -inf, "%s: min of specials: %g %g %g", backend_names[k],
               n[0], n[1], n[2]);
        expect(isnan(s[0]) && isnan(s[1]) && s[2] == -inf, "%s: sum of specials: %g %g %g", backend_names[k],
               s[0], s[1], s[2]);
        double *a = values(mb_argmax(x, 1));
        expect(a[0] == 1 && a[1] == 0 && a[2] == 0, "%s: argmax of specials: %g %g %g", backend_names[k],
               a[0], a[1], a[2]);
        mb_tensor b = from_doubles(ctx, MB_BOOL, MB_SHAPE(5), (double[]){1, 0, 1, 1, 0});
        expect(mb_dtype_of(mb_sum(b, MB_ALL)) == MB_INT32 && mb_item(mb_sum(b, MB_ALL)) == 3,
               "a sum of bools");
    }
}

Test(reduce, argmax_and_cumsum)
{
    for (int d = 0; d < 3; d++)
        ON_BOTH
        {
            rng r = {11};
            mb_tensor x = draw(ctx, &r, (mb_dtype)d, MB_SHAPE(4, 7, 5), -3, 3);
            if (d == 1) /* ties */
                x = mb_floor(x);
            double *v = values(x);
            for (int axis = 0; axis < 3; axis++) {
                static const int64_t size[] = {4, 7, 5}, stride[] = {35, 5, 1};
                double *a = values(mb_argmax(x, axis - (axis == 1 ? 3 : 0)));
                double *c = values(mb_cumsum(x, axis, false)), *b = values(mb_cumsum(x, axis - 3, true));
                int64_t o = 0;
                for (int64_t i = 0; i < 140; i++) {
                    int64_t at = i / stride[axis] % size[axis], start = i - at * stride[axis];
                    double before = 0, after = 0;
                    for (int64_t j = 0; j < size[axis]; j++) {
                        before += j <= at ? v[start + j * stride[axis]] : 0;
                        after += j >= at ? v[start + j * stride[axis]] : 0;
                    }
                    expect(near(c[i], before, 1e-6, 1e-5) && near(b[i], after, 1e-6, 1e-5),
                           "cumsum along %d on %s", axis, backend_names[k]);
                    if (at)
                        continue;
                    int64_t top = 0;
                    for (int64_t j = 1; j < size[axis]; j++)
                        if (v[start + j * stride[axis]] > v[start + top * stride[axis]])
                            top = j;
                    expect(a[o] == (double)top, "argmax along %d on %s: %g, not %lld", axis, backend_names[k],
                           a[o], (long long)top);
                    o++;
                }
            }
        }
}

/* Divided by their number: times 1 / n rounded, 73 of these in float32 and 31 in float64 would be next to 1.
 * Each n is a kernel of its own, so vulkan, which compiles them, gets fewer above 64. */
Test(reduce, mean_of_ones_is_one)
{
    ON_BOTH
    for (int d = 0; d < 2; d++)
        for (int64_t n = 1; n <= 500; n += n >= 64 && k == 1 && testing("vulkan") ? 17 : 1) {
            double *ones = calloc((size_t)n, sizeof *ones);
            for (int64_t i = 0; i < n; i++)
                ones[i] = 1;
            mb_scope scope = mb_scope_begin(ctx);
            mb_tensor x = from_doubles(ctx, (mb_dtype)d, MB_SHAPE(n), ones);
            double mean = mb_item(mb_mean(x, MB_ALL));
            expect(mean == 1, "of %lld ones on %s: %.17g", (long long)n, backend_names[k], mean);
            mb_scope_end(scope);
            free(ones);
        }
}

/* Running sums of a million float32: each is good to a few roundings, whatever its length, since what
 * rounding takes is carried on (cpu: in double; vulkan: compensated, with lanes that add up to 256 neighbours
 * in pairs before). */
Test(reduce, running_sums_are_long)
{
    enum { N = 1000000 };
    float *x = malloc(N * sizeof *x), *y = malloc(N * sizeof *y);
    for (int i = 0; i < N; i++)
        x[i] = 0.1f + 0.05f * (float)(i % 7);
    for (int from_end = 0; from_end < 2; from_end++) {
        mb_context *ctx = open_on(backend_names[1]);
        mb_tensor t = mb_cumsum(mb_from(ctx, MB_FLOAT32, MB_SHAPE(N), x), 0, from_end);
        expect(mb_read(t, y, N * sizeof *y) == MB_OK, "read");
        double sum = 0, worst = 0;
        for (int i = 0; i < N; i++) {
            int k = from_end ? N - 1 - i : i;
            sum += (double)x[k];
            worst = fmax(worst, fabs((double)y[k] - sum) / sum);
        }
        expect(worst < 1e-6, "%s: relative error %g", backend_names[1], worst);
        mb_tensor edge =
            mb_cumsum(mb_from(ctx, MB_FLOAT32, MB_SHAPE(3), (float[]){1, INFINITY, 1}), 0, from_end);
        float e[3];
        expect(mb_read(edge, e, sizeof e) == MB_OK && isinf(e[1]) && isinf(e[from_end ? 0 : 2]), "%g %g %g",
               (double)e[0], (double)e[1], (double)e[2]);
        expect(mb_close(ctx) == MB_OK, "close");
    }
    free(x);
    free(y);
}

/* A column of a million float32, all equal: plain addition loses digits as the sum outgrows its terms. */
Test(reduce, columns_are_long)
{
    enum { ROWS = 1000000, COLUMNS = 4 };
    mb_context *ctx = open_on(backend_names[1]);
    mb_tensor one = mb_from(ctx, MB_FLOAT32, MB_SHAPE(1), (float[]){0.1f});
    mb_tensor x = mb_broadcast(one, MB_SHAPE(ROWS, COLUMNS)), y = mb_add(x, 1.0);
    float sums[2 * COLUMNS], whole;
    expect(mb_read(mb_concat(((mb_tensor[]){mb_sum(x, MB_AXES(0)), mb_sum(y, MB_AXES(0))}), 2, 0), sums,
                   sizeof sums) == MB_OK,
           "read");
    expect(mb_read(mb_sum(y, MB_ALL), &whole, sizeof whole) == MB_OK, "read");
    double tenth = (double)0.1f, more = (double)(float)(0.1f + 1.0f);
    for (int i = 0; i < 2 * COLUMNS; i++) {
        double want = (i < COLUMNS ? tenth : more) * ROWS;
        expect(fabs((double)sums[i] - want) < 1e-6 * want, "%s: column %d: %.9g, not %.9g", backend_names[1],
               i, (double)sums[i], want);
    }
    expect(fabs((double)whole - more * ROWS * COLUMNS) < 1e-6 * more * ROWS * COLUMNS, "all: %.9g",
           (double)whole);
    expect(mb_close(ctx) == MB_OK, "close");
}

/* Sums over rows, of columns of any number: to 40 roundings of what the magnitudes come to (a few rows are
 * added plainly before what is lost is kept), the same bits on one thread and on two, and an infinity stays
 * in its column. */
Test(reduce, columns_of_any_width)
{
    enum { ROWS = 3001, WIDTHS = 8 };
    const int widths[WIDTHS] = {1, 2, 3, 33, 128, 500, 1024, 1100};
    for (int d = 0; d < 2; d++)
        for (int w = 0; w < WIDTHS; w++) {
            int n = widths[w];
            double *sums[2];
            for (int threads = 1; threads <= 2; threads++) {
                mb_context *ctx = open_as(backend_names[1], NULL, threads);
                rng r = {(uint64_t)w};
                mb_tensor x = draw(ctx, &r, (mb_dtype)d, MB_SHAPE(ROWS, n), 0.5, 1.5);
                mb_tensor y = mb_sum(mb_mul(x, x), MB_AXES(0)); /* with something to compute before */
                mb_tensor at = mb_eq(mb_iota(ctx, MB_INT32, n), (double)(n - 1));
                mb_tensor high = mb_where(at, mb_full(ctx, (mb_dtype)d, MB_SHAPE0, (double)INFINITY), x);
                const double *v = values(x), *got = values(y), *inf = values(mb_sum(high, MB_AXES(0)));
                for (int j = 0; j < n; j++) {
                    double want = 0, eps = d ? 2.3e-16 : 6e-8;
                    for (int i = 0; i < ROWS; i++)
                        want += v[i * n + j] * v[i * n + j];
                    expect(near(got[j], want, (d ? ROWS : 40) * eps, 0), "column %d of %d: %.17g, not %.17g",
                           j, n, got[j], want);
                    expect(!isfinite(inf[j]) == (j == n - 1), "beside an infinity: column %d of %d is %g", j,
                           n, inf[j]);
                }
                sums[threads - 1] = malloc(sizeof **sums * (size_t)n);
                cr_assert(sums[threads - 1] != NULL);
                memcpy(sums[threads - 1], got, sizeof **sums * (size_t)n);
                close_all();
            }
            expect(same_bits(sums[0], sums[1], n), "%d columns: one thread and two differ", n);
            free(sums[0]);
            free(sums[1]);
        }
}

/* ---- the bounds that tensor.h states ---- */

enum { BOUND_COLUMNS = 3, BOUND_RESULTS = 9 };

/* Terms that rounding treats alike, that have nothing in common, and of which some are large. */
static void fill_terms(double *x, int64_t n, int kind)
{
    rng r = {5};
    for (int64_t i = 0; i < n; i++)
        x[i] = kind == 0   ? (double)0.1f
               : kind == 1 ? (double)(float)rng_between(&r, 0, 1)
                           : (double)(i % 7 ? 0.37f : 1000.0f);
}

/* x: [n,3]. Sums by themselves, with work before and after them, by rows and by columns. */
static void record_sums(mb_tensor x, mb_tensor *y)
{
    mb_tensor rows = mb_detach(mb_transpose(x)), one = mb_slice(x, 1, 0, 1, 1);
    y[0] = mb_sum(x, MB_ALL);
    y[1] = mb_sum(x, MB_AXES(0));
    y[2] = mb_sum(rows, MB_AXES(1));
    y[3] = mb_sum(mb_mul(mb_sub(x, -1.0), 0.5), MB_AXES(0)); /* (x + 1) / 2 */
    y[4] = mb_slice(mb_mul(one, mb_sum(one, MB_KEEP(0))), 0, 0, 1, 1);
    y[5] = mb_mean(rows, MB_AXES(1));
    y[6] = mb_square(mb_norm(x, MB_ALL));
    y[7] = mb_slice(mb_cumsum(rows, 1, false), 1, mb_dim(x, 0) - 1, 1, 1);
    y[8] = mb_matmul(rows, x);
}

static void sums_of(const double *x, int64_t n, double *column, double *squares, double *gram)
{
    for (int i = 0; i < BOUND_COLUMNS * BOUND_COLUMNS; i++)
        column[i % BOUND_COLUMNS] = gram[i] = *squares = 0;
    for (int64_t i = 0; i < n; i++)
        for (int a = 0; a < BOUND_COLUMNS; a++) {
            const double *row = x + i * BOUND_COLUMNS;
            column[a] += row[a];
            *squares += row[a] * row[a];
            for (int b = 0; b < BOUND_COLUMNS; b++)
                gram[a * BOUND_COLUMNS + b] += row[a] * row[b];
        }
}

static void check_bounds(const char *disable, int64_t n, int kind)
{
    double *x = malloc(sizeof *x * (size_t)(n * BOUND_COLUMNS)), column[BOUND_COLUMNS], squares, gram[9];
    fill_terms(x, n * BOUND_COLUMNS, kind);
    sums_of(x, n, column, &squares, gram);
    mb_context *ctx = open_as(backend_names[1], disable, 2);
    mb_tensor y[BOUND_RESULTS];
    record_sums(from_doubles(ctx, MB_FLOAT32, MB_SHAPE(n, BOUND_COLUMNS), x), y);
    for (int i = 0; i < BOUND_RESULTS; i++) {
        const double *got = values(y[i]);
        for (int j = 0; j < (int)mb_count(y[i]); j++) {
            double want = i == 0   ? column[0] + column[1] + column[2]
                          : i == 3 ? (column[j] + (double)n) / 2
                          : i == 4 ? x[0] * column[0]
                          : i == 5 ? column[j] / (double)n
                          : i == 6 ? squares
                          : i == 8 ? gram[j]
                                   : column[j];
            double bound = i == 8 ? (double)(n + 8) * 0x1p-24 : i == 7 ? 0x1p-20 : 0x1p-18;
            expect(near(got[j], want, bound, 0),
                   "%s without \"%s\", %lld terms of kind %d, result %d: off by %.1f roundings",
                   backend_names[1], disable, (long long)n, kind, i, fabs(got[j] / want - 1) * 0x1p24);
        }
    }
    close_all();
    free(x);
}

Test(reduce, error_bounds, .timeout = 300)
{
    for (int kind = 0; kind < 3; kind++)
        for (int64_t n = 100; n <= 1000000; n *= 100) {
            check_bounds("", n, kind);
            check_bounds("fuse,sink", n, kind);
        }
}

/* What is added up, or the most of nothing, is a number of its dtype when the next op reads it. */
Test(reduce, held_before_they_are_read)
{
    ON_BOTH
    {
        const int32_t big = 2147483647, want = -2; /* big + big */
        mb_tensor x = mb_full(ctx, MB_INT32, MB_SHAPE(2, 3), big),
                  zero = mb_full(ctx, MB_INT32, MB_SHAPE(2), 0);
        mb_tensor running = mb_slice(mb_cumsum(x, 0, false), 0, 1, 1, 1), sum = mb_sum(x, MB_AXES(0)),
                  scattered = mb_scatter_add(mb_full(ctx, MB_INT32, MB_SHAPE(2), big), zero, 0, 1),
                  none = mb_max(mb_zeros(ctx, MB_INT32, MB_SHAPE(4, 0)), MB_AXES(1));
        const mb_tensor sums[] = {running, sum, scattered};
        for (int i = 0; i < 3; i++) {
            expect(values(mb_lt(sums[i], 0.0))[0] == 1, "sum %d is not below 0", i);
            expect(values(mb_cast(sums[i], MB_FLOAT64))[0] == want, "sum %d", i);
        }
        expect(values(mb_cast(none, MB_FLOAT64))[0] == INT32_MIN, "most of nothing: %g",
               values(mb_cast(none, MB_FLOAT64))[0]);
        for (int d = MB_FLOAT16; d <= MB_BFLOAT16; d++) {
            mb_dtype half = (mb_dtype)d;
            if (!has_dtype(ctx, half))
                continue;
            mb_tensor y =
                mb_cast(from_doubles(ctx, MB_FLOAT64, MB_SHAPE(3), (double[]){256, 0.25, 0.25}), half);
            mb_tensor left[] = {mb_sum(y, MB_ALL), mb_slice(mb_cumsum(y, 0, false), 0, 2, 1, 1),
                                mb_scatter_add(y, mb_full(ctx, MB_INT32, MB_SHAPE(3), 0), 0, 1)};
            for (int i = 0; i < 3; i++) { /* float16 holds 256.5, bfloat16 does not */
                double over = values(mb_sub(mb_cast(left[i], MB_FLOAT64), 256.0))[0];
                expect(over == (half == MB_FLOAT16 ? 0.5 : 0), "half %d, sum %d: %g over", d, i, over);
            }
        }
    }
}
