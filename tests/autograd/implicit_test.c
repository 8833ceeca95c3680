/* SPDX-License-Identifier: MIT
 *
 * implicit_test.c - what solves an equation, and its derivatives: against closed forms, against iterations
 * written out, against differences; by each linear method; and what did not converge. */
#include "gradcheck.h"
#include "support.h"

static mb_tensor number(mb_context *ctx, double x)
{
    return mb_full(ctx, MB_FLOAT64, MB_SHAPE0, x);
}

/* ---- ridge regression: w least in |X w - y|^2 + e^s |w|^2, and the validation loss by s ---- */

enum { ROWS = 12, COLUMNS = 4 };

typedef struct data {
    mb_tensor X, y, Xv, yv;
} data;

static data data_of(mb_context *ctx)
{
    data d = {mb_normal(ctx, mb_key_of(1), MB_FLOAT64, MB_SHAPE(ROWS, COLUMNS)),
              mb_normal(ctx, mb_key_of(2), MB_FLOAT64, MB_SHAPE(ROWS)),
              mb_normal(ctx, mb_key_of(3), MB_FLOAT64, MB_SHAPE(ROWS, COLUMNS)),
              mb_normal(ctx, mb_key_of(4), MB_FLOAT64, MB_SHAPE(ROWS))};
    return d;
}

static mb_status ridge(const void *user, mb_context *ctx, const mb_map_at *at, mb_tensor *out)
{
    (void)user;
    mb_tensor w = at->xs[0], error = mb_sub(mb_einsum("ij,j->i", at->params[0], w), at->params[1]);
    mb_tensor size = mb_mul(mb_exp(at->params[2]), mb_sum(mb_square(w), MB_ALL));
    out[0] = mb_add(mb_sum(mb_square(error), MB_ALL), size);
    return mb_error(ctx);
}

static mb_tensor closed_form(const data *d, mb_tensor s)
{
    return mb_squeeze(mb_lstsq(d->X, mb_unsqueeze(d->y, -1), mb_exp(s)), -1);
}

static mb_tensor validation(const data *d, mb_tensor w)
{
    return mb_sum(mb_square(mb_sub(mb_einsum("ij,j->i", d->Xv, w), d->yv)), MB_ALL);
}

/* Tolerance: systems are solved to 1e-13, of condition about 10; each order solves one more. */
static const mb_implicit_options exact = {.tolerance = 1e-13, .linear = {.tolerance = 1e-13}};

Test(implicit, hypergradient_of_ridge_regression)
{
    for (int b = 0; b < 2; b++)
        for (int method = MB_SOLVER_AUTO; method <= MB_SOLVER_DIRECT; method++) {
            if (method == MB_SOLVER_NEUMANN)
                continue; /* it is for fixed points */
            mb_context *ctx = open_on(backend_names[b]);
            data d = data_of(ctx);
            mb_tensor s = mb_mul(number(ctx, 1), 0.3), w0 = mb_zeros(ctx, MB_FLOAT64, MB_SHAPE(COLUMNS)), w;
            const mb_tensor params[3] = {d.X, d.y, s};
            mb_convergence told;
            mb_implicit_options o = exact;
            o.linear.method = (mb_solver)method;
            mb_minimize(MB_LIT(mb_map){.call = ridge}, &w0, 1, params, 3, o, &w, &told);
            mb_tensor of[2] = {validation(&d, w), validation(&d, closed_form(&d, s))};
            expect(mb_item(mb_cast(told.converged, MB_INT32)) == 1 && mb_item(told.steps) < 20,
                   "method %d: %g steps, residual %g", method, mb_item(told.steps), mb_item(told.residual));
            for (int order = 0; order < 3; order++) {
                double got = mb_item(of[0]), want = mb_item(of[1]);
                expect(near(got, want, 1e-10, 0), "%s, method %d, order %d: %.17g, %.17g", backend_names[b],
                       method, order, got, want);
                mb_tensor by[2], t, one = number(ctx, 1);
                mb_jvp(of, 1, &s, &one, 1, &t);
                for (int i = 0; i < 2; i++)
                    mb_grad(of[i], &s, 1, &by[i]), of[i] = by[i];
                expect(near(mb_item(t), mb_item(of[1]), 1e-10, 0), "%s, method %d, forward after order %d",
                       backend_names[b], method, order);
            }
            expect_ok(ctx);
            close_all();
        }
}
