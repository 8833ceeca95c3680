/* SPDX-License-Identifier: MIT
 *
 * axis_test.c - ops along an axis and by index on random shapes, axes, views and special values, against
 * plain loops, to the bit: on the reference backend, and on cpu with one thread and with two. */
#include "support.h"

static const struct {
    const char *backend;
    int threads;
} ways[] = {{"reference", 1}, {"cpu", 1}, {"cpu", 2}};

enum { WAYS = sizeof ways / sizeof *ways, MOST = 40000 };

/* Vulkan has no threads of ours. */
#define ON_ALL_WAYS                                                                                          \
    for (int w = 0; w < WAYS - testing("vulkan"); w++)                                                       \
        for (mb_context *ctx = open_as(ways[w].backend, NULL, ways[w].threads); ctx; ctx = NULL, close_all())

/* So many random cases, of which vulkan, whose driver here is slow, gets fewer. */
static int cases(int way, int count)
{
    return way && testing("vulkan") ? count / 6 : count;
}

/* ---- operands ---- */

static int64_t some_size(rng *r)
{
    static const int64_t sizes[] = {1, 1, 2, 3, 4, 7, 16, 17, 33, 70, 129, 150, 600, 1100};
    return sizes[rng_below(r, sizeof sizes / sizeof *sizes)];
}

/* Of rank 1 to 4 and at most MOST elements; none where `empty`. */
static mb_shape some_shape(rng *r, bool empty)
{
    mb_shape s = {0};
    int64_t left = MOST;
    int rank = 1 + (int)rng_below(r, 4);
    while (s.rank < rank) {
        int64_t size = some_size(r);
        s.dim[s.rank++] = size > left ? left : size;
        left /= s.dim[s.rank - 1];
    }
    for (int i = s.rank; i-- > 1;) { /* not only long ones first */
        int j = (int)rng_below(r, i + 1);
        int64_t size = s.dim[i];
        s.dim[i] = s.dim[j];
        s.dim[j] = size;
    }
    if (empty)
        s.dim[rng_below(r, s.rank)] = 0;
    return s;
}

/* Many equal ones, NaN of both signs, infinities, both zeros, the smallest numbers. */
static double some_value(rng *r)
{
    static const double special[] = {
        (double)NAN, -(double)NAN, (double)INFINITY, -(double)INFINITY, 0.0, -0.0,
        1e-45,       -1e-45,       5e-324,           -5e-324,           3.5, -3.5};
    int64_t kind = rng_below(r, 8);
    return kind == 0  ? special[rng_below(r, sizeof special / sizeof *special)]
           : kind < 4 ? floor(rng_between(r, -4, 4))
                      : rng_between(r, -1, 1) * pow(10, rng_between(r, -3, 3));
}

static mb_tensor with_values(mb_context *ctx, rng *r, mb_dtype dtype, mb_shape s, double (*value)(rng *))
{
    int64_t n = shape_count(s);
    double *data = malloc(((size_t)n + 1) * sizeof *data);
    bool floats = dtype != MB_INT32 && dtype != MB_INT64 && dtype != MB_UINT8 && dtype != MB_BOOL;
    for (int64_t i = 0; i < n; i++) {
        data[i] = value(r);
        if (!floats)
            data[i] = dtype == MB_BOOL    ? fabs(data[i]) > 1
                      : isfinite(data[i]) ? floor(data[i] * 100)
                      : data[i] > 0       ? 2147483647.0
                                          : -2147483648.0;
        if (dtype == MB_UINT8)
            data[i] = fmin(fabs(data[i]), 255);
    }
    mb_tensor t = from_doubles(ctx, dtype, s, data);
    free(data);
    return t;
}

static mb_tensor cut(rng *r, mb_tensor x)
{
    int axis = (int)rng_below(r, mb_shape_of(x).rank);
    int64_t n = mb_dim(x, axis), step = 1 + rng_below(r, 3), first = n ? rng_below(r, n) : 0;
    return mb_slice(x, axis, first, (n - first + step - 1) / step, step);
}

static mb_tensor permuted(rng *r, mb_tensor x)
{
    mb_axes order = {mb_shape_of(x).rank, false, {0}};
    for (int i = 0; i < order.count; i++) {
        int j = (int)rng_below(r, i + 1);
        order.axis[i] = order.axis[j];
        order.axis[j] = i;
    }
    return mb_permute(x, order);
}

static mb_tensor repeated(rng *r, mb_tensor x)
{
    mb_shape s = mb_shape_of(x);
    for (int i = 0; i < s.rank; i++)
        if (s.dim[i] == 1 && mb_count(x) * 5 <= MOST)
            s.dim[i] = 1 + rng_below(r, 5), i = s.rank;
    return mb_broadcast(x, s);
}

/* x, or what views make of it: a few steps. */
static mb_tensor seen(rng *r, mb_tensor x)
{
    for (int64_t steps = rng_below(r, 4); steps > 0; steps--)
        switch (rng_below(r, 4)) {
        case 0:
            x = cut(r, x);
            break;
        case 1:
            x = permuted(r, x);
            break;
        case 2:
            x = mb_flip(x, (int)rng_below(r, mb_shape_of(x).rank));
            break;
        default:
            x = repeated(r, x);
            break;
        }
    return x;
}

static mb_tensor operand(mb_context *ctx, rng *r, mb_dtype dtype, double (*value)(rng *))
{
    mb_shape s = some_shape(r, rng_below(r, 16) == 0);
    return seen(r, with_values(ctx, r, dtype, s, value));
}

/* ---- rows ---- */

typedef struct rows {
    mb_shape shape;
    int axis;
    int64_t n, inner, count; /* places; elements from one to the next; rows */
} rows;

static rows rows_of(mb_tensor x, int axis)
{
    rows a = {mb_shape_of(x), axis, mb_dim(x, axis), 1, 0};
    for (int i = axis + 1; i < a.shape.rank; i++)
        a.inner *= a.shape.dim[i];
    a.count = a.n ? mb_count(x) / a.n : 0;
    return a;
}

static int64_t place(const rows *a, int64_t row, int64_t i)
{
    return (row / a->inner * a->n + i) * a->inner + row % a->inner;
}

/* Its values, while the tensor itself stays what it is to other ops: a view, and no value of its own. */
static const double *read_apart(mb_tensor t)
{
    return values(mb_alias(t));
}

static bool is_before(double a, double b) /* NaN is the largest */
{
    return a < b || (isnan(b) && !isnan(a));
}

static bool same(double a, double b)
{
    return (isnan(a) && isnan(b)) || (a == b && signbit(a) == signbit(b));
}

static const char *about(mb_tensor x, const rows *a, int way)
{
    static char text[200];
    snprintf(text, sizeof text, "%s %s along %d on %s, %d threads", mb_dtype_name(mb_dtype_of(x)),
             shape_text(a->shape), a->axis, ways[way].backend, ways[way].threads);
    return text;
}

/* ---- sorting ---- */

typedef struct element {
    double x;
    int64_t i;
} element;

static int in_order(const void *a_, const void *b_)
{
    const element *a = a_, *b = b_;
    return is_before(a->x, b->x) ? -1 : is_before(b->x, a->x) ? 1 : a->i < b->i ? -1 : 1;
}

static int in_descending_order(const void *a_, const void *b_)
{
    const element *a = a_, *b = b_;
    return is_before(a->x, b->x) ? 1 : is_before(b->x, a->x) ? -1 : a->i < b->i ? -1 : 1;
}

static const mb_dtype numbers[] = {MB_FLOAT32, MB_FLOAT64, MB_INT32, MB_FLOAT16, MB_BFLOAT16};

static void expect_sorted(mb_tensor x, int way)
{
    rows a = rows_of(x, mb_shape_of(x).rank - 1);
    const double *v = read_apart(x), *at = values(mb_argsort(x));
    element *e = malloc(((size_t)a.n + 1) * sizeof *e);
    int64_t wrong = 0;
    for (int64_t row = 0; row < a.count; row++) {
        for (int64_t i = 0; i < a.n; i++)
            e[i] = (element){v[place(&a, row, i)], i};
        qsort(e, (size_t)a.n, sizeof *e, in_order);
        for (int64_t i = 0; i < a.n; i++)
            wrong += at[place(&a, row, i)] != (double)e[i].i;
    }
    expect(wrong == 0, "argsort of %s: %d places", about(x, &a, way), (int)wrong);
    free(e);
}

Test(axis, argsort)
{
    ON_ALL_WAYS
    for (int c = 0; c < cases(w, 60); c++) {
        rng r = {(uint64_t)c + 100};
        mb_dtype dtype = numbers[rng_below(&r, 5)];
        if (has_dtype(ctx, dtype))
            expect_sorted(operand(ctx, &r, dtype, some_value), w);
    }
}

static double falling(rng *r)
{
    return -(double)(r->state++);
}
static double equal(rng *r)
{
    (void)r;
    return 2;
}
static double digits(rng *r) /* that differ in the highest and the lowest only */
{
    return (double)rng_below(r, 3) * 16777216 + (double)rng_below(r, 3);
}

/* Rows on both sides of the length from which they are sorted another way, and one long enough for any. */
Test(axis, argsort_of_orders)
{
    static double (*const orders[])(rng *) = {falling, equal, digits, some_value};
    static const int64_t sizes[] = {0, 1, 2, 15, 16, 17, 127, 128, 129, 256, 30000};
    ON_ALL_WAYS
    for (int o = 0; o < 4; o++)
        for (int d = 0; d < 3; d++)
            for (int s = 0; s < (w && !testing("vulkan") ? 11 : 10); s++) {
                rng r = {9};
                expect_sorted(with_values(ctx, &r, numbers[d], MB_SHAPE(2, sizes[s]), orders[o]), w);
            }
}

/* The first k of a row, by size from either end, and their places. */
static void expect_leading(mb_tensor x, int axis, int64_t k, bool largest, int way)
{
    rows a = rows_of(x, axis);
    mb_tensor index, top = mb_topk(x, k, axis - mb_shape_of(x).rank, largest, &index);
    rows b = rows_of(top, axis);
    const double *v = read_apart(x), *at = values(index), *got = values(top);
    element *e = malloc(((size_t)a.n + 1) * sizeof *e);
    int64_t wrong = 0;
    for (int64_t row = 0; row < a.count; row++) {
        for (int64_t i = 0; i < a.n; i++)
            e[i] = (element){v[place(&a, row, i)], i};
        qsort(e, (size_t)a.n, sizeof *e, largest ? in_descending_order : in_order);
        for (int64_t i = 0; i < k; i++) {
            int64_t to = place(&b, row, i);
            wrong += at[to] != (double)e[i].i || !(got[to] == e[i].x || (isnan(got[to]) && isnan(e[i].x)));
        }
    }
    expect(wrong == 0, "%s %d of %s: %d places", largest ? "largest" : "smallest", (int)k, about(x, &a, way),
           (int)wrong);
    free(e);
}

/* As many as are kept while a row is read, more, and so many that rows are sorted whole; what is kept is
 * replaced at every element of a falling or growing row. */
Test(axis, topk)
{
    static double (*const orders[])(rng *) = {falling, equal, digits, some_value};
    static const int64_t sizes[] = {1, 31, 128, 129, 700, 5000},
                         wanted[] = {0, 1, 10, 32, 33, 128, 700, 5000};
    ON_ALL_WAYS
    for (int d = 0; d < 5; d++)
        for (int s = 0; s < (w && !testing("vulkan") ? 6 : 5); s++)
            for (int k = 0; k < 8 && wanted[k] <= sizes[s] && has_dtype(ctx, numbers[d]); k++)
                for (int c = 0; c < 4; c++) {
                    rng r = {9};
                    int axis = c % 2;
                    mb_shape shape = axis ? MB_SHAPE(3, sizes[s]) : MB_SHAPE(sizes[s], 3);
                    expect_leading(with_values(ctx, &r, numbers[d], shape, orders[(c + s) % 4]), axis,
                                   wanted[k], c / 2, w);
                }
}

/* ---- maxima and sums ---- */

static void expect_largest(mb_tensor x, const rows *a, int way)
{
    const double *v = read_apart(x), *most = values(mb_argmax(x, a->axis)),
                 *least = values(mb_argmin(x, a->axis));
    int64_t wrong = 0;
    for (int64_t row = 0; row < a->count; row++) {
        int64_t top = 0, low = 0;
        for (int64_t i = 1; i < a->n; i++) {
            double y = v[place(a, row, i)], least_so_far = v[place(a, row, low)];
            top = is_before(v[place(a, row, top)], y) ? i : top;
            low = y < least_so_far || (isnan(y) && !isnan(least_so_far)) ? i : low;
        }
        wrong += most[row] != (double)top || least[row] != (double)low;
    }
    expect(wrong == 0, "argmax, argmin of %s: %d places", about(x, a, way), (int)wrong);
}

/* The sign of a minimum's zero is not looked at: it is that of the negated maximum of negated elements. */
static void expect_running_largest(mb_tensor x, const rows *a, bool reverse, int way)
{
    const double *v = read_apart(x), *most = values(mb_cummax(x, a->axis, reverse)),
                 *least = values(mb_cummin(x, a->axis, reverse));
    int64_t wrong = 0;
    for (int64_t row = 0; row < a->count; row++) {
        double top = 0, low = 0;
        for (int64_t i = 0; i < a->n; i++) {
            int64_t p = place(a, row, reverse ? a->n - 1 - i : i);
            top = !i || is_before(top, v[p]) ? v[p] : top;
            low = !i || v[p] < low || isnan(v[p]) ? v[p] : low;
            wrong += !same(most[p], top) || !near(least[p], low, 0, 0);
        }
    }
    expect(wrong == 0, "cummax, cummin of %s: %d elements", about(x, a, way), (int)wrong);
}

static double as(mb_dtype dtype, double x)
{
    return dtype == MB_FLOAT32 ? (double)(float)x : x;
}

/* float32 is added up in float64, whatever the order; what float64 loses is a rounding of each sum so far. */
static void expect_running_sum(mb_tensor x, const rows *a, bool reverse, int way)
{
    const double *v = read_apart(x), *sum = values(mb_cumsum(x, a->axis, reverse));
    bool wide = mb_dtype_of(x) == MB_FLOAT64, exact = way == 0 || (testing("cpu") && !wide);
    int64_t wrong = 0;
    for (int64_t row = 0; row < a->count; row++) {
        double so_far = 0, sizes = 0;
        for (int64_t i = 0; i < a->n; i++) {
            int64_t p = place(a, row, reverse ? a->n - 1 - i : i);
            so_far += v[p];
            sizes += fabs(v[p]);
            double want = as(mb_dtype_of(x), so_far), lost = 1.2e-16 * (double)i * sizes;
            wrong += exact                        ? !same(sum[p], want)
                     : wide && !testing("vulkan") ? !near(sum[p], want, 0, 2 * lost)
                                                  : !near(sum[p], want, 1e-5, 1e-2);
        }
    }
    expect(wrong == 0, "cumsum of %s: %d elements", about(x, a, way), (int)wrong);
}

static double bounded(rng *r) /* sums of which stay within int32 */
{
    return rng_below(r, 9) ? rng_between(r, -9, 9) : floor(rng_between(r, -3, 3)) * 0.0;
}

Test(axis, largest_and_sums)
{
    ON_ALL_WAYS
    for (int c = 0; c < cases(w, 120); c++) {
        rng r = {(uint64_t)c + 500};
        mb_dtype dtype = numbers[rng_below(&r, 5)];
        bool reverse = rng_below(&r, 2);
        if (!has_dtype(ctx, dtype))
            continue;
        mb_tensor x = operand(ctx, &r, dtype, some_value), y = operand(ctx, &r, numbers[c % 3], bounded);
        rows a = rows_of(x, (int)rng_below(&r, mb_shape_of(x).rank)),
             b = rows_of(y, (int)rng_below(&r, mb_shape_of(y).rank));
        if (a.n)
            expect_largest(x, &a, w);
        expect_running_largest(x, &a, reverse, w);
        expect_running_sum(y, &b, reverse, w);
    }
}

Test(axis, sums_of_integers_wrap)
{
    if (!testing("cpu"))
        return;
    for (int threads = 1; threads < 3; threads++)
        for (int axis = 0; axis < 2; axis++) {
            mb_context *ctx = open_as("cpu", NULL, threads);
            mb_tensor x = mb_full(ctx, MB_INT32, MB_SHAPE(200, 200), 2147483647.0);
            const double *sum = values(mb_cumsum(x, axis, false));
            for (int i = 0; i < 40000; i++) {
                int32_t want = (int32_t)((uint32_t)(axis ? i % 200 : i / 200) * 2147483647u + 2147483647u);
                expect(sum[i] == (double)want, "axis %d, %d: %g, not %d", axis, i, sum[i], want);
            }
            close_all();
        }
}

/* ---- by index ---- */

static double an_index(rng *r)
{
    return rng_below(r, 50) ? (double)rng_below(r, 40) : rng_between(r, -90, 90);
}

/* The axis of x becomes the index's axes; x's place for a place in that. */
typedef struct taken {
    int64_t size, entries, inner;
    const double *index;
} taken;

static int64_t chosen(const taken *t, int64_t p)
{
    int64_t i = (int64_t)t->index[p / t->inner % t->entries];
    i = i < 0 ? 0 : i >= t->size ? t->size - 1 : i;
    return (p / t->inner / t->entries * t->size + i) * t->inner + p % t->inner;
}

/* updates, added in order as their dtype adds. */
static void expect_added(mb_tensor updates, mb_tensor index, const rows *a, const taken *t, int way)
{
    mb_dtype dtype = mb_dtype_of(updates);
    const double *u = read_apart(updates), *got = values(mb_scatter_add(updates, index, a->axis, t->size));
    bool exact = way && testing("cpu");
    int64_t n = mb_count(updates), count = a->count * t->size, wrong = 0;
    double *want = calloc((size_t)count + 1, sizeof *want);
    for (int64_t p = 0; p < n; p++)
        want[chosen(t, p)] = as(dtype, want[chosen(t, p)] + u[p]);
    for (int64_t p = 0; p < count; p++)
        wrong += exact ? !same(got[p], want[p]) : !near(got[p], want[p], 1e-4, 1e-2);
    expect(wrong == 0, "scatter_add of %s from %s: %d elements", shape_text(mb_shape_of(updates)),
           about(updates, a, way), (int)wrong);
    free(want);
}

static mb_tensor some_index(mb_context *ctx, rng *r, int64_t room)
{
    mb_shape s = {0};
    s.rank = (int)rng_below(r, 4);
    for (int i = 0; i < s.rank; i++) {
        s.dim[i] = rng_below(r, 20) ? some_size(r) : 0;
        s.dim[i] = s.dim[i] > room ? room : s.dim[i];
        room /= s.dim[i] > 0 ? s.dim[i] : 1;
    }
    mb_tensor index = with_values(ctx, r, MB_FLOAT64, s, an_index);
    index = mb_cast(index, MB_INT32);
    return s.rank ? seen(r, index) : index;
}

/* Of this shape, with axes that lie in another order, or one that is repeated. */
static mb_tensor laid_out(mb_context *ctx, rng *r, mb_dtype dtype, mb_shape s)
{
    mb_axes order = {s.rank, false, {0}};
    mb_shape base = s;
    for (int i = 0; i < s.rank; i++) {
        int j = (int)rng_below(r, i + 1);
        order.axis[i] = order.axis[j];
        order.axis[j] = i;
    }
    for (int i = 0; i < s.rank; i++)
        base.dim[order.axis[i]] = s.dim[i];
    if (s.rank && rng_below(r, 4) == 0)
        base.dim[rng_below(r, s.rank)] = 1;
    mb_tensor t = with_values(ctx, r, dtype, base, bounded);
    return mb_broadcast(s.rank ? mb_permute(t, order) : t, s);
}

static void by_index(mb_context *ctx, rng *r, int way)
{
    static const mb_dtype all[] = {MB_FLOAT32, MB_FLOAT64,  MB_INT32, MB_BOOL,
                                   MB_FLOAT16, MB_BFLOAT16, MB_INT64, MB_UINT8};
    mb_dtype dtype = all[rng_below(r, 8)];
    if (!has_dtype(ctx, dtype))
        return;
    mb_tensor x = operand(ctx, r, dtype, some_value);
    rows a = rows_of(x, (int)rng_below(r, mb_shape_of(x).rank));
    mb_tensor index = some_index(ctx, r, a.count ? 1 + MOST / a.count : 1);
    if (a.n == 0 || mb_shape_of(index).rank + a.shape.rank - 1 > MB_MAX_RANK)
        return;
    taken t = {a.n, mb_count(index), a.inner, read_apart(index)};
    const double *v = read_apart(x), *got = values(mb_take(x, index, a.axis));
    int64_t count = a.count * t.entries, wrong = 0;
    for (int64_t p = 0; p < count; p++)
        wrong += !same(got[p], v[chosen(&t, p)]);
    expect(wrong == 0, "take of %s by %s: %d elements", about(x, &a, way), shape_text(mb_shape_of(index)),
           (int)wrong);
    mb_dtype sums = numbers[rng_below(r, 3)];
    mb_shape s = mb_shape_of(mb_take(x, index, a.axis));
    expect_added(laid_out(ctx, r, sums, s), index, &a, &t, way);
}

Test(axis, take_and_scatter_add)
{
    ON_ALL_WAYS
    for (int c = 0; c < cases(w, 180); c++) {
        rng r = {(uint64_t)c + 900};
        by_index(ctx, &r, w);
    }
}

/* Entries of one place, of every length of a run, come in their order on any number of threads. */
Test(axis, scatter_add_in_order)
{
    static const int64_t runs[] = {1, 2, 7, 16, 33, 64, 100, 127, 128, 130, 200, 300};
    ON_ALL_WAYS
    for (int i = 0; i < 12; i++) {
        rng r = {(uint64_t)i};
        mb_tensor x = with_values(ctx, &r, MB_FLOAT32, MB_SHAPE(2000, runs[i]), bounded);
        mb_tensor index = mb_cast(with_values(ctx, &r, MB_FLOAT64, MB_SHAPE(2000), an_index), MB_INT32);
        rows a = {MB_SHAPE(5, runs[i]), 0, 5, runs[i], runs[i]};
        expect_added(x, index, &a, &(taken){5, 2000, runs[i], read_apart(index)}, w);
    }
}
