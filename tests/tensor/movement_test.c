/* SPDX-License-Identifier: MIT
 * movement_test.c - leaves and movement against plain C, on both backends and in every dtype, each result
 * also read through a further op, so that both the copy and the view are used. */
#include "support.h"

#define ON_BOTH                                                                                              \
    for (int k = 0; k < 2; k++)                                                                              \
        for (mb_context *ctx = open_on(backend_names[k]); ctx; ctx = NULL, close_all())

/* Expects t's shape, and its values as the function of the multi-index gives them. */
static void expect_each(const char *what, mb_tensor t, mb_shape s,
                        double (*want)(const int64_t *at, const double *x), const double *x)
{
    if (!expect(same_shape(mb_shape_of(t), s), "%s: shape %s, not %s: %s", what, shape_text(mb_shape_of(t)),
                shape_text(s), mb_message(t.ctx)))
        return;
    mb_dtype dtype = mb_dtype_of(t);
    mb_tensor again = dtype == MB_BOOL ? mb_not(mb_not(t)) : mb_add(t, mb_zeros(t.ctx, dtype, MB_SHAPE0));
    double *direct = values(t), *through = values(again);
    for (int64_t i = 0; i < shape_count(s); i++) {
        int64_t at[MB_MAX_RANK], rest = i;
        for (int a = s.rank; a-- > 0;) {
            at[a] = rest % s.dim[a];
            rest /= s.dim[a];
        }
        double w = want(at, x);
        if (dtype == MB_BOOL)
            w = w != 0;
        expect(direct[i] == w && through[i] == w, "%s %s on %s: [%lld] is %g, and %g through an op, not %g",
               what, mb_dtype_name(dtype), mb_backend_name(t.ctx), (long long)i, direct[i], through[i], w);
    }
}

/* x: [2,3,5] holding its position. */
#define AT(i, j, k) x[((i)*3 + (j)) * 5 + (k)]
static double same(const int64_t *i, const double *x)
{
    return AT(i[0], i[1], i[2]);
}
static double permuted(const int64_t *i, const double *x)
{
    return AT(i[1], i[2], i[0]);
}
static double transposed(const int64_t *i, const double *x)
{
    return AT(i[0], i[2], i[1]);
}
static double flat(const int64_t *i, const double *x)
{
    return x[i[0] * 10 + i[1]];
}
static double permuted_flat(const int64_t *i, const double *x)
{
    int64_t p = i[0] * 6 + i[1]; /* of [5,2,3] */
    return AT(p / 3 % 2, p % 3, p / 6);
}
static double repeated(const int64_t *i, const double *x)
{
    return AT(i[1], i[2], i[3]);
}
static double sliced(const int64_t *i, const double *x)
{
    return AT(i[0], i[1], 4 - 2 * i[2]);
}
static double sliced_twice(const int64_t *i, const double *x)
{
    return AT(1 - i[0], 1 + i[1], 1 + 2 * i[2]);
}
static double flipped(const int64_t *i, const double *x)
{
    return AT(i[0], 2 - i[1], i[2]);
}
static double padded(const int64_t *i, const double *x)
{
    return i[1] >= 2 && i[1] < 5 ? AT(i[0], i[1] - 2, i[2]) : 0;
}
static double joined(const int64_t *i, const double *x)
{
    return i[2] < 5 ? AT(i[0], i[1], i[2]) : i[2] < 6 ? AT(i[0], i[1], 2) : AT(i[0], i[1], 10 - i[2]);
}
static double stacked(const int64_t *i, const double *x)
{
    return i[1] ? AT(i[0], 2 - i[2], i[3]) : AT(i[0], i[2], i[3]);
}
static double stacked_last(const int64_t *i, const double *x)
{
    return i[3] ? AT(i[0], 2 - i[1], i[2]) : AT(i[0], i[1], i[2]);
}
static double unsqueezed(const int64_t *i, const double *x)
{
    return AT(i[0], i[2], i[3]);
}

Test(movement, against_plain_c)
{
    double data[30];
    for (int i = 0; i < 30; i++)
        data[i] = i % 7;
    for (int d = 0; d < 4; d++)
        ON_BOTH
        {
            mb_tensor x = from_doubles(ctx, (mb_dtype)d, MB_SHAPE(2, 3, 5), data), f = mb_flip(x, 1);
            expect_each("from", x, MB_SHAPE(2, 3, 5), same, data);
            expect_each("permute", mb_permute(x, MB_AXES(2, 0, 1)), MB_SHAPE(5, 2, 3), permuted, data);
            expect_each("permute back", mb_permute(mb_permute(x, MB_AXES(2, 0, 1)), MB_AXES(-2, 2, 0)),
                        MB_SHAPE(2, 3, 5), same, data);
            expect_each("transpose", mb_transpose(x), MB_SHAPE(2, 5, 3), transposed, data);
            expect_each("reshape", mb_reshape(x, MB_SHAPE(3, -1)), MB_SHAPE(3, 10), flat, data);
            expect_each("reshape of a permute", mb_reshape(mb_permute(x, MB_AXES(2, 0, 1)), MB_SHAPE(5, 6)),
                        MB_SHAPE(5, 6), permuted_flat, data);
            expect_each("broadcast", mb_broadcast(x, MB_SHAPE(4, 2, 3, 5)), MB_SHAPE(4, 2, 3, 5), repeated,
                        data);
            expect_each("slice", mb_slice(x, -1, 4, 3, -2), MB_SHAPE(2, 3, 3), sliced, data);
            mb_tensor s = mb_slice(mb_slice(mb_flip(x, 0), 1, 1, 2, 1), 2, 1, 2, 2);
            expect_each("slice of slices", s, MB_SHAPE(2, 2, 2), sliced_twice, data);
            expect_each("slice of nothing", mb_slice(x, 0, 1, 0, 1), MB_SHAPE(0, 3, 5), same, data);
            expect_each("flip", f, MB_SHAPE(2, 3, 5), flipped, data);
            expect_each("flip twice", mb_flip(f, -2), MB_SHAPE(2, 3, 5), same, data);
            expect_each("pad", mb_pad(x, 1, 2, 1), MB_SHAPE(2, 6, 5), padded, data);
            mb_tensor parts[] = {x, mb_slice(x, 2, 2, 1, 1), mb_flip(x, 2)};
            expect_each("concat", mb_concat(parts, 3, -1), MB_SHAPE(2, 3, 11), joined, data);
            expect_each("concat of one", mb_concat(parts, 1, 0), MB_SHAPE(2, 3, 5), same, data);
            mb_tensor pair[] = {x, f};
            expect_each("stack", mb_stack(pair, 2, 1), MB_SHAPE(2, 2, 3, 5), stacked, data);
            expect_each("stack last", mb_stack(pair, 2, -1), MB_SHAPE(2, 3, 5, 2), stacked_last, data);
            expect_each("unsqueeze", mb_unsqueeze(x, 1), MB_SHAPE(2, 1, 3, 5), unsqueezed, data);
            expect_each("squeeze", mb_squeeze(mb_unsqueeze(x, -1), 3), MB_SHAPE(2, 3, 5), same, data);
            expect_each("alias", mb_alias(x), MB_SHAPE(2, 3, 5), same, data);
            expect_each("stop_gradient", mb_stop_gradient(x), MB_SHAPE(2, 3, 5), same, data);
            expect(mb_dim(x, -1) == 5 && mb_dim(x, 3) == 0 && mb_dim(x, -4) == 0 && mb_count(x) == 30,
                   "mb_dim, mb_count");
        }
}

static double counts(const int64_t *i, const double *x)
{
    (void)x;
    return (double)i[0];
}
static double seven(const int64_t *i, const double *x)
{
    (void)i, (void)x;
    return 7;
}
static double zero(const int64_t *i, const double *x)
{
    (void)i, (void)x;
    return 0;
}
static double diagonal(const int64_t *i, const double *x)
{
    (void)x;
    return i[0] == i[1];
}
static double triangle(const int64_t *i, const double *x)
{
    return i[1] - i[0] <= (int64_t)x[0];
}

Test(movement, leaves)
{
    ON_BOTH
    {
        for (int d = 0; d < 4; d++) {
            mb_dtype dtype = (mb_dtype)d;
            expect_each("full", mb_full(ctx, dtype, MB_SHAPE(3, 2), 7), MB_SHAPE(3, 2), seven, NULL);
            expect_each("scalar", mb_scalar(ctx, dtype, 7), MB_SHAPE0, seven, NULL);
            expect_each("zeros", mb_zeros(ctx, dtype, MB_SHAPE(4)), MB_SHAPE(4), zero, NULL);
            expect_each("eye", mb_eye(ctx, dtype, 5), MB_SHAPE(5, 5), diagonal, NULL);
            expect_each("nothing", mb_from(ctx, dtype, MB_SHAPE(0, 3), NULL), MB_SHAPE(0, 3), zero, NULL);
            if (dtype != MB_BOOL) {
                expect_each("iota", mb_iota(ctx, dtype, 40), MB_SHAPE(40), counts, NULL);
                expect_each("iota of none", mb_iota(ctx, dtype, 0), MB_SHAPE(0), counts, NULL);
            }
        }
        for (int at = -3; at < 4; at++)
            expect_each("tril_mask", mb_tril_mask(ctx, 4, 5, at), MB_SHAPE(4, 5), triangle, (double[]){at});
    }
}

Test(movement, split_and_unstack)
{
    ON_BOTH
    for (int d = 0; d < 4; d++) {
        rng r = {8};
        mb_tensor x = draw(ctx, &r, (mb_dtype)d, MB_SHAPE(2, 6, 3), -9, 9), parts[6];
        const int64_t sizes[4] = {1, 0, 3, 2};
        const double *v = values(x);
        expect(mb_split(x, sizes, parts, 4, -2) == MB_OK, "%s", mb_message(ctx));
        for (int p = 0, start = 0; p < 4; start += (int)sizes[p++]) {
            const double *got = values(parts[p]);
            expect(same_shape(mb_shape_of(parts[p]), MB_SHAPE(2, sizes[p], 3)), "part %d: its shape", p);
            for (int i = 0; i < 6 * sizes[p]; i++) {
                int row = i / (3 * (int)sizes[p]), at = row * 18 + start * 3 + i % (3 * (int)sizes[p]);
                expect(got[i] == v[at], "%s: part %d, [%d]: %g, not %g", backend_names[k], p, i, got[i],
                       v[at]);
            }
        }
        expect(mb_unstack(x, parts, 6, 1) == MB_OK, "%s", mb_message(ctx));
        for (int p = 0; p < 6; p++)
            for (int i = 0; i < 6; i++)
                expect(values(parts[p])[i] == v[i / 3 * 18 + p * 3 + i % 3], "%s: entry %d, [%d]",
                       backend_names[k], p, i);
        expect(mb_unstack(mb_slice(x, 0, 0, 0, 1), NULL, 0, 0) == MB_OK, "of nothing");
    }
}

/* Rank 8, sizes 1 and 0, in all positions. */
Test(movement, extremes_of_shape)
{
    ON_BOTH
    {
        rng r = {4};
        mb_shape s = MB_SHAPE(1, 2, 1, 3, 1, 2, 1, 2), t = MB_SHAPE(2, 1, 2, 1, 3, 1, 2, 1);
        mb_tensor x = draw(ctx, &r, MB_FLOAT64, s, -1, 1), y = mb_permute(x, MB_AXES(7, 6, 5, 4, 3, 2, 1, 0));
        expect(same_shape(mb_shape_of(y), t), "permute of rank 8: %s", shape_text(mb_shape_of(y)));
        double *a = values(x), *b = values(mb_permute(y, MB_AXES(7, 6, 5, 4, 3, 2, 1, 0)));
        expect(same_bits(a, b, 24), "permute of rank 8, twice");
        mb_tensor all = mb_sum(mb_add(x, y), MB_ALL); /* [2,2,2,3,3,2,2,2] */
        double sum = 0, want = 0;
        for (int i = 0; i < 24; i++)
            sum += a[i];
        want = sum * 24 * 2;
        (void)want;
        expect(near(mb_item(all), 2 * sum * 24, 1e-12, 1e-12), "sum over rank 8: %g, not %g", mb_item(all),
               2 * sum * 24);
        mb_tensor none = mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(3, 0, 2));
        expect(mb_count(mb_reshape(none, MB_SHAPE(0, 7))) == 0, "reshape of nothing");
        expect(mb_item(mb_sum(mb_pad(none, 1, 1, 1), MB_ALL)) == 0, "pad of nothing");
        expect(mb_count(mb_concat(((mb_tensor[]){none, none}), 2, 0)) == 0, "concat of nothing");
        expect_ok(ctx);
    }
}

/* Position of element `at` of the permuted tensor in the one of sizes dim. */
static int64_t came_from(const int64_t *at, const int64_t *dim, const int *order)
{
    int64_t index[3] = {0}, place = 0;
    for (int i = 0; i < 3; i++)
        index[order[i]] = at[i];
    for (int i = 0; i < 3; i++)
        place = place * dim[i] + index[i];
    return place;
}

/* Every order of three axes, with sizes around those of blocks and tiles: as it is, beside what is not
 * permuted, and summed over its first axis. */
static void permute_all_orders(mb_context *ctx, mb_dtype dtype, const int64_t *dim)
{
    static const int orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    int64_t n = dim[0] * dim[1] * dim[2];
    double *x = malloc((size_t)n * sizeof *x);
    cr_assert(x);
    for (int64_t i = 0; i < n; i++)
        x[i] = dtype == MB_BOOL ? i % 3 == 0
                                : (double)(i % (dtype == MB_FLOAT16 ? 1000
                                                : dtype == MB_UINT8 ? 250
                                                                    : 100000));
    mb_tensor t = from_doubles(ctx, dtype, MB_SHAPE(dim[0], dim[1], dim[2]), x);
    for (int o = 0; o < 6; o++) {
        const int *order = orders[o];
        int64_t to[3] = {dim[order[0]], dim[order[1]], dim[order[2]]};
        mb_tensor p = mb_permute(t, MB_AXES(order[0], order[1], order[2]));
        mb_tensor beside = mb_reshape(mb_cast(t, MB_FLOAT64), MB_SHAPE(to[0], to[1], to[2]));
        double *moved = values(p), *both = values(mb_sub(mb_mul(beside, 2.0), mb_cast(p, MB_FLOAT64))),
               *sums = values(mb_sum(mb_cast(p, MB_FLOAT64), MB_AXES(0)));
        double *want = calloc((size_t)(to[1] * to[2]), sizeof *want);
        cr_assert(want);
        bool right = true;
        for (int64_t i = 0; i < n; i++) {
            int64_t at[3] = {i / (to[1] * to[2]), i / to[2] % to[1], i % to[2]};
            double v = x[came_from(at, dim, order)];
            right = right && moved[i] == v && both[i] == 2 * x[i] - v;
            want[i % (to[1] * to[2])] += v;
        }
        for (int64_t i = 0; i < to[1] * to[2]; i++)
            right = right && sums[i] == want[i];
        expect(right, "%s, %s of [%d,%d,%d], order %d", mb_backend_name(ctx), mb_dtype_name(dtype),
               (int)dim[0], (int)dim[1], (int)dim[2], o);
        free(want);
    }
    free(x);
}

Test(movement, every_order_of_axes, .timeout = 120)
{
    static const int64_t dims[][3] = {{33, 40, 65}, {8, 16, 9},  {1, 70, 31}, {3, 300, 2},
                                      {7, 5, 1040}, {64, 1, 64}, {0, 3, 4},   {500, 2, 40}};
    static const mb_dtype dtypes[] = {MB_FLOAT32, MB_FLOAT64, MB_INT64, MB_UINT8, MB_BOOL, MB_FLOAT16};
    ON_BOTH
    for (int d = 0; d < 8; d++)
        for (int i = 0; i < (testing("vulkan") ? 1 : 6); i++)
            if (has_dtype(ctx, dtypes[i]))
                permute_all_orders(ctx, dtypes[i], dims[d]);
}
