/* SPDX-License-Identifier: MIT
 *
 * matrix_gradient_test.c - derivatives of factors, systems and least squares: against differences to the
 * third order, in closed form, and of a batch against one at a time. */
#include "gradcheck.h"

#define X xs[0]
#define Y xs[1]
#define Z xs[2]
#define FUNCTION(name, ...)                                                                                  \
    static mb_tensor name(mb_context *ctx, const mb_tensor *xs, const void *user)                            \
    {                                                                                                        \
        (void)ctx, (void)user;                                                                               \
        return __VA_ARGS__;                                                                                  \
    }
#define CURVED(name, ...) FUNCTION(name, mb_sin(__VA_ARGS__))

/* x with a large diagonal: positive definite by the triangle that is read, and well conditioned. */
static mb_tensor heavy(mb_tensor x)
{
    return mb_add(x, mb_mul(mb_eye(x.ctx, MB_FLOAT64, mb_dim(x, -1)), 6.0));
}
static mb_tensor gram(mb_tensor x)
{
    return mb_add(mb_matmul(x, mb_transpose(x)), mb_eye(x.ctx, MB_FLOAT64, mb_dim(x, -2)));
}

FUNCTION(f_cholesky, mb_cholesky(heavy(X)))
FUNCTION(f_cholesky_upper, mb_cholesky(mb_transpose(heavy(X))))
FUNCTION(f_cholesky_gram, mb_cholesky(gram(X)))
FUNCTION(f_factor_of_factor, mb_cholesky(gram(mb_cholesky(heavy(X)))))
FUNCTION(f_lower, mb_triangular_solve(heavy(X), Y, MB_LOWER))
FUNCTION(f_upper, mb_triangular_solve(heavy(X), Y, MB_UPPER))
FUNCTION(f_lower_transposed, mb_triangular_solve(heavy(X), Y, MB_LOWER | MB_TRANSPOSED))
FUNCTION(f_upper_transposed, mb_triangular_solve(heavy(X), Y, MB_UPPER | MB_TRANSPOSED))
FUNCTION(f_lower_unit, mb_triangular_solve(X, Y, MB_LOWER | MB_UNIT_DIAGONAL))
FUNCTION(f_upper_unit, mb_triangular_solve(mb_transpose(X), Y, MB_UPPER | MB_TRANSPOSED | MB_UNIT_DIAGONAL))
FUNCTION(f_self, mb_triangular_solve(heavy(X), X, MB_LOWER))
FUNCTION(f_solve, mb_solve_spd(gram(X), Y))
FUNCTION(f_cholesky_solve, mb_cholesky_solve(heavy(X), Y))
FUNCTION(f_log_det, mb_log_det_spd(gram(X)))
FUNCTION(f_lstsq, mb_lstsq(X, Y, (mb_tensor){0}))
FUNCTION(f_lstsq_ridge, mb_lstsq(X, Y, mb_add(mb_square(Z), 0.5)))
CURVED(f_tril, mb_tril(X, -1))
CURVED(f_triu, mb_triu(X, 1))
CURVED(f_diagonal, mb_diagonal(X))
CURVED(f_diagonal_matrix, mb_diagonal_matrix(X))

#define S(...)          MB_SHAPE(__VA_ARGS__)
#define CASE(f, n, ...) #f, f, NULL, n, {__VA_ARGS__ }, -1.5, 1.5, 0, 0
#define RUN(...)                                                                                             \
    do {                                                                                                     \
        const gradcase cases[] = {__VA_ARGS__};                                                              \
        gradcheck_both(cases, (int)(sizeof cases / sizeof *cases));                                          \
    } while (0)

Test(matrix_gradient, cholesky, .timeout = 120)
{
    RUN({CASE(f_cholesky, 1, S(3, 3))}, {CASE(f_cholesky, 1, S(1, 1))}, {CASE(f_cholesky, 1, S(0, 0))},
        {CASE(f_cholesky, 1, S(2, 3, 3))}, {CASE(f_cholesky_upper, 1, S(4, 4))},
        {CASE(f_cholesky_gram, 1, S(3, 4))}, {CASE(f_factor_of_factor, 1, S(3, 3))},
        {CASE(f_log_det, 1, S(3, 4))}, {CASE(f_log_det, 1, S(2, 2, 2))}, {CASE(f_log_det, 1, S(0, 2))});
}

Test(matrix_gradient, triangular_solve, .timeout = 120)
{
    RUN({CASE(f_lower, 2, S(3, 3), S(3, 2))}, {CASE(f_upper, 2, S(3, 3), S(3, 2))},
        {CASE(f_lower_transposed, 2, S(3, 3), S(3, 2))}, {CASE(f_upper_transposed, 2, S(3, 3), S(3, 1))},
        {CASE(f_lower_unit, 2, S(3, 3), S(3, 2))}, {CASE(f_upper_unit, 2, S(3, 3), S(3, 2))},
        {CASE(f_self, 1, S(3, 3))}, {CASE(f_lower, 2, S(0, 0), S(0, 2))},
        {CASE(f_lower, 2, S(2, 2), S(2, 0))}, {CASE(f_lower, 2, S(2, 2, 2), S(2, 1))},
        {CASE(f_upper, 2, S(2, 2), S(3, 2, 1))}, {CASE(f_lower_transposed, 2, S(2, 1, 2, 2), S(3, 2, 2))});
}

Test(matrix_gradient, systems, .timeout = 120)
{
    RUN({CASE(f_solve, 2, S(3, 3), S(3, 2))}, {CASE(f_solve, 2, S(2, 2, 3), S(2, 1))},
        {CASE(f_cholesky_solve, 2, S(3, 3), S(3, 2))}, {CASE(f_lstsq_ridge, 3, S(4, 2), S(4, 2), MB_SHAPE0)},
        {CASE(f_lstsq_ridge, 3, S(2, 4), S(2, 1), MB_SHAPE0)},
        {CASE(f_lstsq_ridge, 3, S(2, 3, 2), S(3, 1), S(2))}, {CASE(f_lstsq, 2, S(9, 2), S(9, 1))},
        {CASE(f_lstsq, 2, S(2, 9), S(2, 1))});
}

Test(matrix_gradient, triangles, .timeout = 120)
{
    RUN({CASE(f_tril, 1, S(3, 4))}, {CASE(f_triu, 1, S(2, 3, 3))}, {CASE(f_diagonal, 1, S(2, 3, 4))},
        {CASE(f_diagonal, 1, S(3, 0))}, {CASE(f_diagonal_matrix, 1, S(2, 3))},
        {CASE(f_diagonal_matrix, 1, S(0))});
}

/* ---- ridge regression: the derivative of a validation loss by the ridge ---- */

enum { ROWS = 30, FEATURES = 8, TESTS = 11 };

/* x = m^-1 y for a positive definite m, by Gauss's elimination. */
static void eliminate(double m[FEATURES][FEATURES], double y[FEATURES], double x[FEATURES])
{
    double a[FEATURES][FEATURES];
    memcpy(a, m, sizeof a);
    memcpy(x, y, sizeof a[0]);
    for (int k = 0; k < FEATURES; k++)
        for (int i = k + 1; i < FEATURES; i++) {
            double f = a[i][k] / a[k][k];
            for (int j = k; j < FEATURES; j++)
                a[i][j] -= f * a[k][j];
            x[i] -= f * x[k];
        }
    for (int k = FEATURES; k-- > 0; x[k] /= a[k][k])
        for (int j = k + 1; j < FEATURES; j++)
            x[k] -= a[k][j] * x[j];
}

/* With M = A^T A + r, x = M^-1 A^T b, loss = |C x - d|^2 / 2 and e = C^T (C x - d):
 *     x' = -M^-1 x,  x'' = -2 M^-1 x';  loss' = <e, x'>,  loss'' = <e, x''> + |C x'|^2. */
static void ridge_by_hand(const double *a, const double *b, const double *c, const double *d, double r,
                          double out[3])
{
    double m[FEATURES][FEATURES], y[FEATURES] = {0}, x[FEATURES], x1[FEATURES], x2[FEATURES];
    for (int i = 0; i < FEATURES; i++) {
        for (int j = 0; j < FEATURES; j++) {
            m[i][j] = i == j ? r : 0;
            for (int k = 0; k < ROWS; k++)
                m[i][j] += a[k * FEATURES + i] * a[k * FEATURES + j];
        }
        for (int k = 0; k < ROWS; k++)
            y[i] += a[k * FEATURES + i] * b[k];
    }
    eliminate(m, y, x);
    eliminate(m, x, x1);
    eliminate(m, x1, x2); /* M^-1 M^-1 x, which is x'' / 2 */
    out[0] = out[1] = out[2] = 0;
    for (int k = 0; k < TESTS; k++) {
        double off = -d[k], first = 0, second = 0;
        for (int i = 0; i < FEATURES; i++) {
            off += c[k * FEATURES + i] * x[i];
            first -= c[k * FEATURES + i] * x1[i];
            second += 2 * c[k * FEATURES + i] * x2[i];
        }
        out[0] += off * off / 2;
        out[1] += off * first;
        out[2] += off * second + first * first;
    }
}

Test(matrix_gradient, ridge_hypergradient, .timeout = 60)
{
    for (int k = 0; k < 2; k++) {
        mb_context *ctx = open_on(backend_names[k]);
        rng r = {3};
        mb_tensor a = draw(ctx, &r, MB_FLOAT64, S(ROWS, FEATURES), -1, 1),
                  b = draw(ctx, &r, MB_FLOAT64, S(ROWS, 1), -1, 1),
                  c = draw(ctx, &r, MB_FLOAT64, S(TESTS, FEATURES), -1, 1),
                  d = draw(ctx, &r, MB_FLOAT64, S(TESTS, 1), -1, 1);
        for (double ridge = 0.01; ridge < 200; ridge *= 10) {
            mb_tensor by = mb_scalar(ctx, MB_FLOAT64, ridge), g, h,
                      one = mb_full(ctx, MB_FLOAT64, MB_SHAPE0, 1), forward;
            mb_tensor off = mb_sub(mb_matmul(c, mb_lstsq(a, b, by)), d);
            mb_tensor loss = mb_mul(mb_sum(mb_square(off), MB_ALL), 0.5);
            mb_grad(loss, &by, 1, &g);
            mb_grad(g, &by, 1, &h);
            mb_jvp(&loss, 1, &by, &one, 1, &forward);
            double want[3], got[3] = {mb_item(loss), mb_item(g), mb_item(h)};
            ridge_by_hand(values(a), values(b), values(c), values(d), ridge, want);
            for (int i = 0; i < 3; i++)
                expect(near(got[i], want[i], 1e-10, 1e-14), "%s, ridge %g: order %d: %.17g, not %.17g",
                       backend_names[k], ridge, i, got[i], want[i]);
            expect(near(mb_item(forward), want[1], 1e-10, 1e-14), "forward");
        }
        close_all();
    }
}

/* The gradient of log det A by a full A, each of whose triangles counts: of the lower one, 2 A^-1 below the
 * diagonal and A^-1 on it. */
Test(matrix_gradient, log_det_in_closed_form)
{
    for (int k = 0; k < 2; k++) {
        mb_context *ctx = open_on(backend_names[k]);
        rng r = {4};
        int64_t n = 12;
        mb_tensor x = draw(ctx, &r, MB_FLOAT64, S(5, n, n + 4), -1, 1), a = mb_detach(gram(x)), g;
        mb_grad(mb_sum(mb_log_det_spd(a), MB_ALL), &a, 1, &g);
        double *got = values(g), *inverse = values(mb_solve_spd(a, mb_eye(ctx, MB_FLOAT64, n)));
        for (int64_t i = 0; i < 5 * n * n; i++) {
            int64_t row = i / n % n, column = i % n;
            double want = column > row ? 0 : column == row ? inverse[i] : 2 * inverse[i];
            expect(near(got[i], want, 1e-10, 1e-12), "%s: %.17g, not %.17g", backend_names[k], got[i], want);
        }
        close_all();
    }
}

/* What is not positive definite has derivatives that are NaN, and leaves those of its neighbours alone. */
Test(matrix_gradient, not_positive_definite)
{
    for (int k = 0; k < 2; k++) {
        mb_context *ctx = open_on(backend_names[k]);
        mb_tensor a = mb_from(ctx, MB_FLOAT64, S(2, 2, 2), ((double[]){1, 0, 2, 1, 4, 0, 0, 9})), g;
        mb_grad(mb_sum(mb_log_det_spd(a), MB_ALL), &a, 1, &g);
        double *v = values(g);
        expect(isnan(v[0]) && isnan(v[2]) && isnan(v[3]) && v[1] == 0, "%s: of the first", backend_names[k]);
        expect(near(v[4], 0.25, 1e-14, 0) && v[5] == 0 && v[6] == 0 && near(v[7], 1.0 / 9, 1e-14, 0),
               "%s: %g %g %g %g", backend_names[k], v[4], v[5], v[6], v[7]);
        close_all();
    }
}

/* ---- in a loop, and in a checkpoint ---- */

static mb_tensor relax(mb_tensor a, mb_tensor x)
{
    return mb_tanh(mb_add(mb_solve_spd(gram(a), x), mb_lstsq(a, mb_sin(x), mb_exp(mb_mean(x, MB_ALL)))));
}

/* A loss after five steps, and its first and second derivative by a: unrolled, as a scan, and with each
 * step's inside computed again. */
static void relaxed(mb_context *ctx, int way, double out[3])
{
    enum { STEPS = 5 };
    rng r = {21};
    mb_scope s = mb_scope_begin(ctx);
    mb_tensor a = draw(ctx, &r, MB_FLOAT64, S(2, 3, 3), -1, 1),
              x = draw(ctx, &r, MB_FLOAT64, S(2, 3, 2), -1, 1), g;
    if (way == 1) {
        mb_scan loop = mb_scan_begin(ctx, STEPS);
        mb_scan_carry(loop, &x);
        x = relax(a, x);
        mb_scan_end(loop);
    }
    for (int t = 0; t < STEPS && way != 1; t++) {
        mb_checkpoint inside = {0};
        if (way == 2)
            inside = mb_checkpoint_begin(ctx);
        x = relax(a, x);
        if (way == 2)
            mb_checkpoint_end(inside);
    }
    mb_tensor loss = mb_sum(mb_square(x), MB_ALL);
    out[0] = mb_item(loss);
    mb_grad(loss, &a, 1, &g);
    mb_tensor norm = mb_sum(mb_square(g), MB_ALL);
    out[1] = mb_item(norm);
    mb_grad(norm, &a, 1, &g);
    out[2] = mb_item(mb_sum(mb_square(g), MB_ALL));
    mb_scope_end(s);
}

Test(matrix_gradient, loops_and_checkpoints, .timeout = 60)
{
    for (int k = 0; k < 2; k++) {
        mb_context *ctx = open_on(backend_names[k]);
        double want[3], got[3];
        relaxed(ctx, 0, want);
        for (int way = 1; way < 3; way++) {
            relaxed(ctx, way, got);
            for (int i = 0; i < 3; i++)
                expect(near(got[i], want[i], 1e-11, 0), "%s, way %d, order %d: %.17g, not %.17g",
                       backend_names[k], way, i, got[i], want[i]);
        }
        close_all();
    }
}
