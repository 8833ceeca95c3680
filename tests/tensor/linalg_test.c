/* SPDX-License-Identifier: MIT
 *
 * linalg_test.c - triangles, factors and systems: residuals within the bounds that hold for Cholesky's method
 * and for substitution whatever the condition (Higham, Accuracy and Stability, 10.3 and 8.5), closed forms,
 * matrices that are not positive definite, and the same bits from any number of threads. */
#include "support.h"

#define ON_BOTH                                                                                              \
    for (int k = 0; k < 2; k++)                                                                              \
        for (mb_context *ctx = open_on(backend_names[k]); ctx; ctx = NULL, close_all())

static double eps_of(mb_dtype dtype)
{
    return dtype == MB_FLOAT32 ? 6e-8 : 1.2e-16;
}

/* X X^T / m + 0.1 for X of n rows and m = n + 2 columns: positive definite. */
static mb_tensor definite(mb_context *ctx, rng *r, mb_dtype dtype, int64_t batch, int64_t n)
{
    mb_tensor x = draw(ctx, r, dtype, MB_SHAPE(batch, n, n + 2), -1, 1);
    mb_tensor a = mb_mul(mb_matmul(x, mb_transpose(x)), 1.0 / (double)(n + 2));
    return mb_add(a, mb_mul(mb_eye(ctx, dtype, n), 0.1));
}

/* ---- Cholesky ---- */

static void check_factor(const char *what, mb_dtype dtype, const double *a, const double *l, int64_t n)
{
    double bound = (double)(n + 2) * eps_of(dtype);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t q = 0; q <= i && q <= j; q++)
                sum += l[i * n + q] * l[j * n + q];
            double size = sqrt(a[i * n + i] * a[j * n + j]);
            if (j > i)
                expect(l[i * n + j] == 0, "%s: %g above the diagonal at %d,%d", what, l[i * n + j], (int)i,
                       (int)j);
            else if (!expect(fabs(sum - a[i * n + j]) <= bound * size,
                             "%s: %d,%d of L L' is %.17g, not %.17g", what, (int)i, (int)j, sum,
                             a[i * n + j]))
                return;
        }
    for (int64_t i = 0; i < n; i++)
        expect(l[i * n + i] > 0, "%s: diagonal", what);
}

/* The same matrices where other strides lead to them, until they are read. */
static mb_tensor seen_as(mb_tensor a, int view)
{
    switch (view) {
    case 0:
        return a;
    case 1: /* columns without gaps, rows with */
        return mb_transpose(a);
    case 2: { /* every other element of a larger matrix */
        mb_shape s = mb_shape_of(a);
        mb_tensor wide = mb_stack(((mb_tensor[]){a, mb_neg(a)}), 2, -1);
        wide = mb_reshape(wide, MB_SHAPE(s.dim[0], s.dim[1], 2 * s.dim[2]));
        return mb_slice(wide, -1, 0, s.dim[2], 2);
    }
    default: /* backwards, of what lies backwards */
        return mb_flip(mb_flip(mb_stop_gradient(mb_flip(mb_flip(a, 1), 2)), 2), 1);
    }
}

Test(linalg, cholesky, .timeout = 120)
{
    static const int64_t sizes[] = {0, 1, 2, 6, 10, 11, 31, 32, 33, 64, 65, 100, 129};
    for (int d = 0; d < 2; d++)
        ON_BOTH
        {
            rng r = {5};
            for (int c = 0; c < 13; c++)
                for (int view = 0; view < (sizes[c] > 40 || !sizes[c] ? 2 : 4); view++) {
                    mb_scope s = mb_scope_begin(ctx);
                    int64_t n = sizes[c], batch = n < 12 ? 9 : 2;
                    char what[80];
                    snprintf(what, sizeof what, "%s, %s, n = %d, view %d", backend_names[k],
                             mb_dtype_name((mb_dtype)d), (int)n, view);
                    mb_tensor full = mb_detach(definite(ctx, &r, (mb_dtype)d, batch, n));
                    mb_tensor a = seen_as(full, view);
                    double *lv = values(mb_cholesky(a)), *av = values(a);
                    for (int64_t b = 0; b < batch; b++)
                        check_factor(what, (mb_dtype)d, av + b * n * n, lv + b * n * n, n);
                    mb_scope_end(s);
                }
            expect(mb_count(mb_cholesky(mb_zeros(ctx, (mb_dtype)d, MB_SHAPE(0, 3, 3)))) == 0, "no matrices");
        }
}

Test(linalg, large_factor, .timeout = 120)
{
    for (int d = 0; d < 2; d++)
        ON_BOTH
        {
            rng r = {6};
            int64_t n = testing("vulkan") ? 200 : 420;
            mb_tensor a = definite(ctx, &r, (mb_dtype)d, 1, n);
            check_factor(backend_names[k], (mb_dtype)d, values(a), values(mb_cholesky(a)), n);
        }
    mb_context *ctx = open_as("cpu", "", 2);
    rng r = {16};
    for (int d = is_slow(); d < 2 && testing("cpu"); d++) { /* products large enough for BLAS */
        mb_tensor a = definite(ctx, &r, (mb_dtype)d, 1, 1200);
        check_factor("cpu", (mb_dtype)d, values(a), values(mb_cholesky(a)), 1200);
    }
    close_all();
}

/* What lies above the diagonal is not read. */
Test(linalg, lower_triangle_alone)
{
    ON_BOTH
    {
        mb_tensor a =
            mb_from(ctx, MB_FLOAT64, MB_SHAPE(3, 3), ((double[]){4, NAN, INFINITY, 2, 5, NAN, -2, 3, 14}));
        static const double want[] = {2, 0, 0, 1, 2, 0, -1, 2, 3};
        double *l = values(mb_cholesky(a));
        for (int i = 0; i < 9; i++)
            expect(l[i] == want[i], "%s: %d is %g", backend_names[k], i, l[i]);
    }
}

/* A matrix with a wrong element at (i, i) or (i, j): all of the lower triangle is NaN, and no other matrix.
 */
Test(linalg, not_positive_definite, .timeout = 60)
{
    static const double wrong[] = {0, -1, -1e-30, NAN, INFINITY, -INFINITY};
    for (int d = 0; d < 2; d++)
        ON_BOTH
        {
            static const int64_t sizes[] = {1, 3, 8, 20, 40, 70, 130};
            for (int c = 0; c < 7; c++) {
                int64_t n = sizes[c], count = 6 * 3;
                double *a = calloc((size_t)(count * n * n), sizeof *a);
                for (int64_t b = 0; b < count; b++) {
                    for (int64_t i = 0; i < n; i++)
                        a[(b * n + i) * n + i] = 4;
                    int64_t i = b % 3 == 0 ? 0 : n - 1;
                    if (b % 3 < 2)
                        a[(b * n + i) * n + i] = wrong[b / 3];
                    else if (n > 1 && b / 3 >= 3) /* where only these are wrong off the diagonal */
                        a[(b * n + i) * n] = wrong[b / 3];
                }
                mb_tensor t = from_doubles(ctx, (mb_dtype)d, MB_SHAPE(count, n, n), a);
                double *l = values(mb_cholesky(t));
                for (int64_t b = 0; b < count; b++) {
                    bool bad = b % 3 < 2 || (n > 1 && b / 3 >= 3), ok = true;
                    for (int64_t i = 0; i < n; i++)
                        for (int64_t j = 0; j < n; j++) {
                            double x = l[(b * n + i) * n + j];
                            ok &= j > i ? x == 0 : bad ? isnan(x) : x == (i == j ? 2 : 0);
                        }
                    expect(ok, "%s, %s: matrix %d of size %d", backend_names[k], mb_dtype_name((mb_dtype)d),
                           (int)b, (int)n);
                }
                double *x = values(mb_solve_spd(t, mb_full(ctx, (mb_dtype)d, MB_SHAPE(n, 1), 1)));
                for (int64_t b = 0; b < count; b++)
                    expect(isnan(x[b * n]) == (b % 3 < 2 || (n > 1 && b / 3 >= 3)), "a solution");
                free(a);
            }
        }
}

/* ---- triangular_solve ---- */

static void check_solution(const char *what, mb_dtype dtype, unsigned form, const double *a, const double *b,
                           const double *x, int64_t n, int64_t m)
{
    bool upper = form & MB_UPPER, turned = form & MB_TRANSPOSED;
    double bound = (double)(n + 2) * eps_of(dtype);
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < m; c++) {
            double sum = 0, size = 0;
            for (int64_t j = 0; j < n; j++) {
                int64_t row = turned ? j : i, column = turned ? i : j;
                if (upper ? row > column : column > row)
                    continue;
                double f = row == column && form & MB_UNIT_DIAGONAL ? 1 : a[row * n + column];
                sum += f * x[j * m + c];
                size += fabs(f * x[j * m + c]);
            }
            if (!expect(fabs(sum - b[i * m + c]) <= bound * size, "%s, form %u: row %d: %.17g, not %.17g",
                        what, form, (int)i, sum, b[i * m + c]))
                return;
        }
}

/* Elements at the positions that a form does not read are NaN. */
static mb_tensor triangle(mb_context *ctx, rng *r, mb_dtype dtype, int64_t batch, int64_t n, unsigned form)
{
    double *a = calloc((size_t)(batch * n * n + 1), sizeof *a);
    for (int64_t b = 0; b < batch; b++)
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < n; j++) {
                bool inside = form & MB_UPPER ? i <= j : j <= i;
                double v = i == j ? rng_between(r, 1, 2) : rng_between(r, -1, 1) / sqrt((double)n);
                a[(b * n + i) * n + j] = !inside || (i == j && form & MB_UNIT_DIAGONAL) ? (double)NAN : v;
            }
    mb_tensor t = from_doubles(ctx, dtype, MB_SHAPE(batch, n, n), a);
    free(a);
    return t;
}

static void one_solve(mb_context *ctx, rng *r, mb_dtype dtype, int64_t n, int64_t m, unsigned form)
{
    mb_scope s = mb_scope_begin(ctx);
    char what[80];
    int64_t batch = n < 12 ? 5 : n < 1000 ? 2 : 1;
    snprintf(what, sizeof what, "%s, %s, n = %d, m = %d", mb_backend_name(ctx), mb_dtype_name(dtype), (int)n,
             (int)m);
    mb_tensor a = triangle(ctx, r, dtype, batch, n, form),
              b = draw(ctx, r, dtype, MB_SHAPE(batch, n, m), -1, 1);
    if ((n + m + form) % 3 == 1)
        b = mb_transpose(draw(ctx, r, dtype, MB_SHAPE(batch, m, n), -1, 1));
    if ((n + m + form) % 5 == 2)
        a = mb_transpose(mb_detach(mb_transpose(a))); /* the other stride is 1 */
    double *xv = values(mb_triangular_solve(a, b, form)), *av = values(a), *bv = values(b);
    for (int64_t i = 0; i < batch; i++)
        check_solution(what, dtype, form, av + i * n * n, bv + i * n * m, xv + i * n * m, n, m);
    mb_scope_end(s);
}

Test(linalg, triangular_solve, .timeout = 120)
{
    static const int64_t sizes[][2] = {{0, 3},  {3, 0},  {1, 1},   {2, 5},  {6, 1},   {6, 6},    {7, 40},
                                       {20, 3}, {32, 9}, {33, 17}, {65, 1}, {65, 33}, {130, 70}, {100, 2}};
    for (int d = 0; d < 2; d++)
        ON_BOTH
        {
            rng r = {7};
            for (int c = 0; c < 14; c++)
                for (unsigned form = 0; form < 8; form++)
                    one_solve(ctx, &r, (mb_dtype)d, sizes[c][0], sizes[c][1], form);
        }
}

Test(linalg, large_solve, .timeout = 120)
{
    for (int d = 0; d < 2; d++)
        ON_BOTH
        {
            rng r = {8};
            int64_t n = testing("vulkan") ? 150 : 400;
            one_solve(ctx, &r, (mb_dtype)d, n, 300, MB_LOWER);
            one_solve(ctx, &r, (mb_dtype)d, n, 130, MB_UPPER);
            one_solve(ctx, &r, (mb_dtype)d, n, 150, MB_LOWER | MB_TRANSPOSED);
        }
    mb_context *ctx = open_as("cpu", "", 2);
    rng r = {17};
    /* Products large enough for BLAS. */
    for (unsigned form = 0; form < 4 && testing("cpu"); form += is_slow() ? 3 : 1)
        one_solve(ctx, &r, (mb_dtype)(form % 2), 2100, 64, form);
    close_all();
}

/* Batches of one operand, the other or both, against one system at a time. */
Test(linalg, batches_broadcast, .timeout = 60)
{
    static const mb_shape lead[][2] = {{{0, {0}}, {1, {3}}},
                                       {{1, {3}}, {0, {0}}},
                                       {{2, {2, 1}}, {1, {3}}},
                                       {{1, {3}}, {2, {2, 1}}},
                                       {{2, {2, 3}}, {2, {2, 3}}},
                                       {{3, {2, 1, 3}}, {2, {2, 1}}},
                                       {{6, {2, 1, 1, 2, 1, 3}}, {4, {1, 2, 2, 1}}}};
    ON_BOTH
    for (int c = 0; c < 7; c++) {
        rng r = {9};
        mb_shape sa = lead[c][0], sb = lead[c][1];
        sa.dim[sa.rank] = sa.dim[sa.rank + 1] = sb.dim[sb.rank] = 4;
        sb.dim[sb.rank + 1] = 2;
        sa.rank += 2, sb.rank += 2;
        mb_tensor a = mb_add(draw(ctx, &r, MB_FLOAT64, sa, -1, 1), mb_mul(mb_eye(ctx, MB_FLOAT64, 4), 3.0));
        mb_tensor b = draw(ctx, &r, MB_FLOAT64, sb, -1, 1),
                  product = mb_matmul(mb_zeros(ctx, MB_FLOAT64, sa), b);
        mb_shape full = mb_shape_of(product), fa = full;
        fa.dim[fa.rank - 1] = 4;
        mb_tensor each_a = mb_reshape(mb_broadcast(a, fa), MB_SHAPE(-1, 4, 4)),
                  each_b = mb_reshape(mb_broadcast(b, full), MB_SHAPE(-1, 4, 2));
        for (int which = 0; which < 3; which++) {
            mb_tensor x = which == 0   ? mb_triangular_solve(a, b, MB_UPPER)
                          : which == 1 ? mb_solve_spd(a, b)
                                       : mb_lstsq(a, b, mb_scalar(ctx, MB_FLOAT64, 0.5));
            expect(same_shape(mb_shape_of(x), full), "shape %s", shape_text(mb_shape_of(x)));
            double *xv = values(x);
            for (int64_t i = 0; i < mb_dim(each_a, 0); i++) {
                mb_tensor ai = mb_squeeze(mb_slice(each_a, 0, i, 1, 1), 0),
                          bi = mb_squeeze(mb_slice(each_b, 0, i, 1, 1), 0);
                double *one = values(which == 0   ? mb_triangular_solve(ai, bi, MB_UPPER)
                                     : which == 1 ? mb_solve_spd(ai, bi)
                                                  : mb_lstsq(ai, bi, mb_scalar(ctx, MB_FLOAT64, 0.5)));
                for (int q = 0; q < 8; q++)
                    expect(near(xv[8 * i + q], one[q], 1e-14, 1e-14), "%s, case %d, %d: %.17g, not %.17g",
                           backend_names[k], c, which, xv[8 * i + q], one[q]);
            }
        }
    }
}

/* ---- systems ---- */

/* 2 on the diagonal, -1 beside it: the inverse is min(i, j) (n + 1 - max(i, j)) / (n + 1), counted from 1,
 * and the determinant n + 1. Its condition is below n^2 / 2. */
Test(linalg, closed_forms, .timeout = 60)
{
    for (int d = 0; d < 2; d++)
        ON_BOTH
        {
            int64_t n = 40;
            mb_tensor i = mb_iota(ctx, MB_INT32, n), apart = mb_sub(mb_unsqueeze(i, 1), i);
            mb_tensor one = mb_full(ctx, (mb_dtype)d, MB_SHAPE(n, n), 1), none = mb_mul(one, 0.0);
            mb_tensor beside = mb_eq(mb_mul(apart, apart), mb_full(ctx, MB_INT32, MB_SHAPE0, 1));
            mb_tensor a =
                mb_add(mb_where(beside, mb_neg(one), none), mb_mul(mb_eye(ctx, (mb_dtype)d, n), 2.0));
            double tolerance = eps_of((mb_dtype)d) * (double)(n * n) / 2;
            double *x = values(mb_solve_spd(a, mb_eye(ctx, (mb_dtype)d, n)));
            double *y = values(mb_cholesky_solve(mb_cholesky(a), mb_eye(ctx, (mb_dtype)d, n)));
            for (int64_t r = 1; r <= n; r++)
                for (int64_t c = 1; c <= n; c++) {
                    double want = (double)((r < c ? r : c) * (n + 1 - (r > c ? r : c))) / (double)(n + 1);
                    int64_t at = (r - 1) * n + c - 1;
                    expect(near(x[at], want, tolerance, 10 * tolerance) && x[at] == y[at],
                           "%s: %.17g, not %.17g", backend_names[k], x[at], want);
                }
            double got = mb_item(mb_log_det_spd(a));
            expect(near(got, log((double)n + 1), 0, tolerance), "log det %.17g", got);
            expect(mb_item(mb_log_det_spd(mb_zeros(ctx, (mb_dtype)d, MB_SHAPE(0, 0)))) == 0, "of nothing");
        }
}

/* At the least squares a^T (a x - b) + ridge x = 0. */
static void check_normal(mb_context *ctx, mb_tensor a, mb_tensor b, mb_tensor ridge, mb_tensor x)
{
    double eps = eps_of(mb_dtype_of(a));
    mb_tensor g = mb_add(mb_matmul(mb_transpose(a), mb_sub(mb_matmul(a, x), b)), mb_mul(x, ridge));
    double *v = values(g);
    for (int64_t i = 0; i < mb_count(g); i++)
        expect(fabs(v[i]) <= 2000 * eps, "%s: normal equations off by %g", mb_backend_name(ctx), v[i]);
}

Test(linalg, least_squares, .timeout = 60)
{
    for (int d = 0; d < 2; d++)
        ON_BOTH
        {
            rng r = {11};
            mb_dtype t = (mb_dtype)d;
            mb_tensor none = mb_scalar(ctx, t, 0), nothing = {0};
            mb_tensor tall = draw(ctx, &r, t, MB_SHAPE(3, 20, 4), -1, 1),
                      b = draw(ctx, &r, t, MB_SHAPE(20, 2), -1, 1);
            check_normal(ctx, tall, b, none, mb_lstsq(tall, b, nothing));
            mb_tensor ridge = from_doubles(ctx, t, MB_SHAPE(3), (double[]){0, 0.1, 7});
            check_normal(ctx, tall, b, mb_reshape(ridge, MB_SHAPE(3, 1, 1)), mb_lstsq(tall, b, ridge));
            mb_tensor wide = draw(ctx, &r, t, MB_SHAPE(3, 4, 20), -1, 1),
                      c = draw(ctx, &r, t, MB_SHAPE(3, 4, 2), -1, 1);
            check_normal(ctx, wide, c, mb_reshape(ridge, MB_SHAPE(3, 1, 1)), mb_lstsq(wide, c, ridge));
            /* Without a ridge: wide x = c, and x is in the span of the rows: x = wide^T z. */
            mb_tensor x = mb_lstsq(wide, c, nothing), off = mb_sub(mb_matmul(wide, x), c);
            mb_tensor z = mb_lstsq(mb_transpose(wide), x, nothing);
            mb_tensor out = mb_sub(mb_matmul(mb_transpose(wide), z), x);
            for (int i = 0; i < 2; i++) {
                double *v = values(i ? out : off);
                for (int64_t q = 0; q < mb_count(i ? out : off); q++)
                    expect(fabs(v[q]) < 2000 * eps_of(t), "%s: %g", backend_names[k], v[q]);
            }
            double *no_rows =
                values(mb_lstsq(mb_zeros(ctx, t, MB_SHAPE(0, 3)), mb_zeros(ctx, t, MB_SHAPE(0, 2)), nothing));
            expect(no_rows[0] == 0 && no_rows[5] == 0, "of no equations the shortest x is 0");
            expect(mb_count(mb_lstsq(mb_zeros(ctx, t, MB_SHAPE(3, 0)), b = mb_zeros(ctx, t, MB_SHAPE(3, 2)),
                                     nothing)) == 0,
                   "no unknowns");
        }
}

/* By the square of a alone, the error would be eps c^2, 900 times as much. */
Test(linalg, least_squares_are_accurate)
{
    ON_BOTH
    for (int turned = 0; turned < 2; turned++) {
        const double c = 900;
        mb_tensor u = mb_slice(mb_orthogonal(ctx, mb_key_of(1), MB_FLOAT64, MB_SHAPE(60, 60)), 1, 0, 10, 1),
                  v = mb_orthogonal(ctx, mb_key_of(2), MB_FLOAT64, MB_SHAPE(10, 10)),
                  s = mb_exp(mb_mul(mb_iota(ctx, MB_FLOAT64, 10), -log(c) / 9));
        mb_tensor a = mb_matmul(mb_mul(u, s), v),
                  x = mb_normal(ctx, mb_key_of(3), MB_FLOAT64, MB_SHAPE(10, 1));
        if (turned) { /* the shortest x is in the span of the rows, and of length 1 there */
            a = mb_transpose(a);
            x = mb_matmul(u, x);
        }
        mb_tensor off = mb_sub(mb_lstsq(a, mb_matmul(a, x), (mb_tensor){0}), x);
        double error = mb_item(mb_norm(off, MB_ALL)) / mb_item(mb_norm(x, MB_ALL));
        expect(error < 20 * 1.2e-16 * c, "%s: %g", backend_names[k], error);
    }
}

/* Operands without storage, and one matrix as a whole batch. */
Test(linalg, operands_that_are_made_or_repeated)
{
    for (int d = 0; d < 2; d++)
        ON_BOTH
        {
            mb_tensor four = mb_full(ctx, (mb_dtype)d, MB_SHAPE(3, 1, 1), 4), l = mb_cholesky(four);
            double *v =
                values(mb_triangular_solve(l, mb_full(ctx, (mb_dtype)d, MB_SHAPE(1, 5), 6), MB_UPPER));
            for (int i = 0; i < 15; i++)
                expect(v[i] == 3, "%s: %g", backend_names[k], v[i]);
            rng r = {14};
            mb_tensor one = mb_detach(definite(ctx, &r, (mb_dtype)d, 1, 40));
            mb_tensor all = mb_broadcast(one, MB_SHAPE(4, 40, 40));
            double *x = values(mb_cholesky(all)), *y = values(mb_cholesky(one));
            for (int i = 0; i < 4; i++)
                expect(same_bits(x + (ptrdiff_t)i * 1600, y, 1600), "%s: repeated", backend_names[k]);
        }
}

/* ---- triangles and diagonals ---- */

Test(linalg, triangles)
{
    for (int d = 0; d < 4; d++)
        ON_BOTH
        {
            rng r = {12};
            for (int c = 0; c < 4; c++) {
                int64_t rows = c == 1 ? 2 : 5, columns = c == 2 ? 3 : c == 3 ? 0 : 5;
                mb_tensor x = draw(ctx, &r, (mb_dtype)d, MB_SHAPE(2, rows, columns), 1, 9);
                for (int64_t off = -6; off <= 6; off += 3) {
                    double *v = values(x), *low = values(mb_tril(x, off)), *high = values(mb_triu(x, off));
                    for (int64_t i = 0; i < 2 * rows * columns; i++) {
                        int64_t row = i / columns % rows, column = i % columns;
                        expect(low[i] == (column <= row + off ? v[i] : 0), "tril %d", (int)off);
                        expect(high[i] == (column >= row + off ? v[i] : 0), "triu %d", (int)off);
                    }
                }
                int64_t n = rows < columns ? rows : columns;
                double *v = values(x), *diagonal = values(mb_diagonal(x)),
                       *back = values(mb_diagonal_matrix(mb_diagonal(x)));
                expect(same_shape(mb_shape_of(mb_diagonal(x)), MB_SHAPE(2, n)), "the shape of a diagonal");
                for (int64_t i = 0; i < 2 * n; i++)
                    expect(diagonal[i] == v[i / n * rows * columns + i % n * (columns + 1)], "diagonal");
                double *trace = values(mb_trace(x));
                for (int64_t b = 0; b < 2; b++) {
                    double sum = 0;
                    for (int64_t i = 0; i < n; i++)
                        sum += diagonal[b * n + i];
                    expect(near(trace[b], sum, 1e-6, 0), "trace %g, not %g", trace[b], sum);
                }
                for (int64_t i = 0; i < 2 * n * n; i++)
                    expect(back[i] == (i / n % n == i % n ? diagonal[i / n] : 0), "diagonal_matrix");
            }
        }
}

/* ---- threads ---- */

static void results(mb_context *ctx, double **out)
{
    rng r = {13};
    for (int d = 0; d < 2; d++) {
        mb_tensor one = mb_detach(definite(ctx, &r, (mb_dtype)d, 1, 300)),
                  many = mb_detach(definite(ctx, &r, (mb_dtype)d, 3000, 6)),
                  middle = mb_detach(definite(ctx, &r, (mb_dtype)d, 40, 70));
        mb_tensor wide = draw(ctx, &r, (mb_dtype)d, MB_SHAPE(300, 200), -1, 1);
        mb_tensor x[] = {mb_cholesky(one), mb_cholesky(many), mb_cholesky(middle), mb_solve_spd(one, wide),
                         mb_solve_spd(many, mb_slice(many, -1, 0, 1, 1))};
        for (int i = 0; i < 5; i++) {
            *out = values(x[i]);
            out[1] = (double *)(intptr_t)mb_count(x[i]);
            out += 2;
        }
    }
}

Test(linalg, threads_change_no_bit, .timeout = 60)
{
    if (!testing("cpu"))
        return;
    double *a[20], *b[20];
    results(open_as("cpu", "", 1), a);
    results(open_as("cpu", "", 2), b);
    for (int i = 0; i < 10; i++)
        expect(same_bits(a[2 * i], b[2 * i], (int64_t)(intptr_t)a[2 * i + 1]), "result %d", i);
    close_all();
}
