/* SPDX-License-Identifier: MIT
 *
 * implicit_test.c - what solves an equation, and its derivatives: against closed forms, against iterations
 * written out, against differences; by each linear method; and what did not converge. On cpu and reference:
 * a backend that writes loops out has plans of some hundred thousand steps here. */
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
    if (!testing("cpu"))
        return;
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

/* ---- a fixed point of two tensors against 200 iterations written out ---- */

static mb_status cells(const void *user, mb_context *ctx, const mb_map_at *at, mb_tensor *out)
{
    double gain = user ? *(const double *)user : 0.4;
    mb_tensor a = at->xs[0], b = at->xs[1], W = at->params[0], in = at->params[1];
    out[0] = mb_tanh(mb_add(mb_mul(mb_einsum(mb_shape_of(a).rank == 1 ? "i,ij->j" : "bi,ij->bj", a, W), gain),
                            mb_mul(b, in)));
    out[1] = mb_mul(mb_sin(mb_add(a, in)), 0.3);
    return mb_error(ctx);
}

enum { ITERATIONS = 200, WIDE = 3 };

static void written_out(mb_context *ctx, const mb_tensor *params, mb_tensor *x)
{
    for (int t = 0; t < ITERATIONS; t++) {
        mb_tensor next[2];
        const mb_map_at at = {x, params, 2, 2};
        cells(NULL, ctx, &at, next);
        memcpy(x, next, sizeof next);
    }
}

static void fixed_point(mb_context *ctx, const mb_tensor *params, bool batched, mb_solver method,
                        mb_tensor *x)
{
    const double gain = 0.4; /* copied */
    mb_tensor x0[2];
    mb_shape shape = batched ? MB_SHAPE(2, WIDE) : MB_SHAPE(WIDE);
    for (int i = 0; i < 2; i++)
        x0[i] = mb_zeros(ctx, MB_FLOAT64, shape);
    mb_fixed_point(MB_LIT(mb_map){cells, &gain, sizeof gain}, x0, 2, params, 2,
                   MB_LIT(mb_implicit_options){.tolerance = 1e-13,
                                               .batched = batched,
                                               .linear = {.method = method, .tolerance = 1e-13}},
                   x, NULL);
}

/* |f(x) - x| shrinks by 0.7 and less, so both are exact to rounding. */
Test(implicit, fixed_point_equals_its_iterations)
{
    if (!testing("cpu"))
        return;
    for (int b = 0; b < 2; b++)
        for (int way = 0; way < 8; way++) {
            bool batched = way & 1;
            static const mb_solver methods[] = {MB_SOLVER_GMRES, MB_SOLVER_NORMAL, MB_SOLVER_NEUMANN,
                                                MB_SOLVER_DIRECT};
            mb_context *ctx = open_on(backend_names[b]);
            mb_tensor params[2] = {
                mb_normal(ctx, mb_key_of(1), MB_FLOAT64, MB_SHAPE(WIDE, WIDE)),
                mb_normal(ctx, mb_key_of(2), MB_FLOAT64, batched ? MB_SHAPE(2, WIDE) : MB_SHAPE(WIDE))};
            mb_tensor v[2] = {mb_cos(params[0]), mb_cos(params[1])}, of[2], x[2], u[2], g[2], t[2];
            fixed_point(ctx, params, batched, methods[way / 2], x);
            for (int i = 0; i < 2; i++)
                u[i] = mb_zeros(ctx, MB_FLOAT64, mb_shape_of(x[0]));
            written_out(ctx, params, u);
            of[0] = mb_sum(mb_mul(mb_sin(x[0]), mb_exp(x[1])), MB_ALL);
            of[1] = mb_sum(mb_mul(mb_sin(u[0]), mb_exp(u[1])), MB_ALL);
            for (int order = 0; order <= 2; order++) {
                expect(near(mb_item(of[0]), mb_item(of[1]), 1e-8, 1e-12),
                       "%s, way %d, order %d: %.17g, %.17g", backend_names[b], way, order, mb_item(of[0]),
                       mb_item(of[1]));
                if (order == 2)
                    break;
                mb_jvp(of, 2, params, v, 2, t);
                expect(near(mb_item(t[0]), mb_item(t[1]), 1e-8, 1e-12), "%s, way %d: forward after order %d",
                       backend_names[b], way, order);
                for (int i = 0; i < 2; i++) {
                    mb_grad(of[i], params, 2, g);
                    of[i] = mb_add(mb_sum(mb_mul(g[0], v[0]), MB_ALL), mb_sum(mb_mul(g[1], v[1]), MB_ALL));
                }
            }
            expect_ok(ctx);
            close_all();
        }
}

/* ---- against differences, alone, in the steps of a scan, and in a checkpoint ---- */

static mb_status cubic(const void *user, mb_context *ctx, const mb_map_at *at, mb_tensor *out)
{
    (void)user;
    mb_tensor x = at->xs[0], a = at->params[0], b = at->params[1];
    mb_tensor turned = mb_mul(mb_flip(x, 0), b); /* dg/dx is not symmetric */
    out[0] = mb_sub(mb_add(mb_mul(mb_mul(mb_square(x), x), a), mb_add(x, turned)), mb_add(a, b));
    return mb_error(ctx);
}

static mb_tensor root_of_cubic(mb_context *ctx, mb_tensor a, mb_tensor b)
{
    mb_tensor x0 = mb_full(ctx, MB_FLOAT64, mb_shape_of(a), 2), x;
    const mb_tensor params[2] = {a, b};
    mb_root(MB_LIT(mb_map){.call = cubic}, &x0, 1, params, 2, exact, &x, NULL);
    return x;
}

static mb_tensor alone(mb_context *ctx, const mb_tensor *xs, const void *user)
{
    (void)user;
    return root_of_cubic(ctx, xs[0], xs[1]);
}

static mb_tensor nested(mb_context *ctx, const mb_tensor *xs, const void *user)
{
    (void)user;
    mb_checkpoint c = mb_checkpoint_begin(ctx);
    mb_tensor a = mb_exp(xs[0]);
    mb_scan s = mb_scan_begin(ctx, 3);
    mb_scan_carry(s, &a);
    a = mb_add(mb_square(root_of_cubic(ctx, a, mb_sin(xs[1]))), 0.5);
    mb_scan_end(s);
    mb_checkpoint_end(c);
    return a;
}

static mb_status bowl(const void *user, mb_context *ctx, const mb_map_at *at, mb_tensor *out)
{
    (void)user;
    mb_tensor x = at->xs[0], a = at->params[0], b = at->params[1];
    mb_tensor rest = mb_sum(mb_mul(x, mb_sin(b)), MB_AXES(-1)), four = mb_square(mb_square(x));
    out[0] =
        mb_add(mb_sum(mb_mul(mb_add(four, mb_square(x)), a), MB_AXES(-1)), mb_add(rest, mb_square(rest)));
    return mb_error(ctx);
}

/* Two problems in one; within the loop of one stands the other's end. */
static mb_tensor minima(mb_context *ctx, const mb_tensor *xs, const void *user)
{
    (void)user;
    mb_implicit_options o = exact;
    o.batched = true;
    mb_tensor x0 = mb_full(ctx, MB_FLOAT64, mb_shape_of(xs[0]), 3), x;
    mb_minimize(MB_LIT(mb_map){.call = bowl}, &x0, 1, xs, 2, o, &x, NULL);
    return x;
}

Test(implicit, against_differences)
{
    if (!testing("cpu"))
        return;
    const gradcase cases[] = {
        {"a root", alone, NULL, 2, {MB_SHAPE(3), MB_SHAPE(3)}, 0.5, 1.5, .looser = 20},
        {"roots in scans", nested, NULL, 2, {MB_SHAPE(2), MB_SHAPE(2)}, 0.5, 1.0, .orders = 2, .looser = 20},
        {"minima", minima, NULL, 2, {MB_SHAPE(2, 2), MB_SHAPE(2, 2)}, 0.5, 1.5, .orders = 2, .looser = 20},
    };
    gradcheck_both(cases, sizeof cases / sizeof *cases);
}

/* ---- what did not converge, and what is cut short ---- */

static mb_status doubled(const void *user, mb_context *ctx, const mb_map_at *at, mb_tensor *out)
{
    (void)user;
    out[0] = mb_mul(at->xs[0], at->params[0]); /* x = p x + 1 */
    out[0] = mb_add(out[0], 1);
    return mb_error(ctx);
}

Test(implicit, what_did_not_converge_is_told)
{
    if (!testing("cpu"))
        return;
    for (int b = 0; b < 2; b++) {
        mb_context *ctx = open_on(backend_names[b]);
        const double p[3] = {0.5, 2, 0.9};
        mb_tensor params = from_doubles(ctx, MB_FLOAT64, MB_SHAPE(3, 1), p),
                  x0 = mb_zeros(ctx, MB_FLOAT64, MB_SHAPE(3, 1)), x, g;
        mb_implicit_options o = {
            .steps = 100, .batched = true, .linear = {.steps = 100, .method = MB_SOLVER_NEUMANN}};
        mb_convergence told;
        mb_fixed_point(MB_LIT(mb_map){.call = doubled}, &x0, 1, &params, 1, o, &x, &told);
        const double *converged = values(told.converged), *residual = values(told.residual), *at = values(x);
        expect(converged[0] == 1 && converged[1] == 0 && converged[2] == 0 && mb_item(told.steps) == 100,
               "%g %g %g", converged[0], converged[1], converged[2]);
        expect(residual[0] <= 1e-10 && !(residual[1] < 0.1) && residual[2] > 1e-10 && residual[2] < 1e-3,
               "residuals %g %g %g", residual[0], residual[1], residual[2]);
        expect(near(at[0], 2, 1e-9, 0) && near(at[2], 10, 1e-3, 0), "%g %g", at[0], at[2]);
        mb_grad(x, &params, 1,
                &g); /* x / (1 - p); the series diverges for p = 2, and is not at its end for 0.9 */
        expect(near(values(g)[0], 4, 1e-8, 0) && isnan(values(g)[1]) && isnan(values(g)[2]), "%g %g %g",
               values(g)[0], values(g)[1], values(g)[2]);
        o.linear.truncate = true;
        mb_fixed_point(MB_LIT(mb_map){.call = doubled}, &x0, 1, &params, 1, o, &x, NULL);
        mb_grad(x, &params, 1, &g);
        expect(near(values(g)[2], at[2] / 0.1 * (1 - pow(0.9, 100)), 1e-8, 0), "%g", values(g)[2]);
        close_all();
    }
}

/* Another number of iterations is no other plan. */
Test(implicit, iterations_are_data)
{
    if (!testing("cpu"))
        return;
    mb_context *ctx = open_on("cpu");
    uint64_t plans = 0;
    double steps[3];
    for (int i = 0; i < 3; i++) {
        mb_scope scope = mb_scope_begin(ctx);
        mb_tensor p = mb_mul(mb_ones(ctx, MB_FLOAT64, MB_SHAPE(3)), 0.2 + 0.35 * i), g, x,
                  x0 = mb_zeros(ctx, MB_FLOAT64, MB_SHAPE(3));
        mb_convergence told;
        mb_fixed_point(MB_LIT(mb_map){.call = doubled}, &x0, 1, &p, 1, MB_EMPTY(mb_implicit_options), &x,
                       &told);
        mb_grad(x, &p, 1, &g);
        const mb_tensor both[2] = {g, told.steps};
        mb_eval(both, 2);
        steps[i] = mb_item(told.steps);
        expect(near(values(g)[0], 1 / pow(0.8 - 0.35 * i, 2), 1e-7, 0), "%g", values(g)[0]);
        if (i)
            expect(mb_get_stats(ctx).plans == plans, "a plan for %g steps", steps[i]);
        plans = mb_get_stats(ctx).plans;
        mb_scope_end(scope);
    }
    expect(steps[0] < steps[1] && steps[1] < steps[2], "%g %g %g steps", steps[0], steps[1], steps[2]);
    close_all();
}

/* float32, from a start that is far away, and a start that is the solution. */
Test(implicit, newton_in_float32)
{
    if (!testing("cpu"))
        return;
    mb_context *ctx = open_on("cpu");
    mb_tensor a = mb_ones(ctx, MB_FLOAT32, MB_SHAPE(1, 2)), b = mb_ones(ctx, MB_FLOAT32, MB_SHAPE(1, 2)), x,
              x0 = mb_full(ctx, MB_FLOAT32, MB_SHAPE(1, 2), 1e4), again;
    const mb_tensor params[2] = {a, b};
    mb_convergence told[2];
    mb_implicit_options o = {.batched = true};
    mb_minimize(MB_LIT(mb_map){.call = bowl}, &x0, 1, params, 2, o, &x, &told[0]);
    mb_minimize(MB_LIT(mb_map){.call = bowl}, &x, 1, params, 2, o, &again, &told[1]);
    expect(values(told[0].converged)[0] == 1 && mb_item(told[0].steps) > 3, "residual %g",
           values(told[0].residual)[0]);
    expect(values(told[1].converged)[0] == 1 && mb_item(told[1].steps) < 4, "%g steps from the solution",
           mb_item(told[1].steps));
    expect(near(values(x)[0], values(again)[0], 1e-3, 1e-4), "%g, %g", values(x)[0], values(again)[0]);
    o.search = MB_SEARCH_DESCENT;
    x0 = mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(1, 2));
    mb_minimize(MB_LIT(mb_map){.call = bowl}, &x0, 1, params, 2, o, &again, &told[1]);
    expect(values(told[1].converged)[0] == 1 && near(values(x)[0], values(again)[0], 1e-3, 1e-4),
           "descent: %g, %g", values(x)[0], values(again)[0]);
    close_all();
}

/* ---- mistakes ---- */

static mb_tensor outside;

static mb_status wrong(const void *user, mb_context *ctx, const mb_map_at *at, mb_tensor *out)
{
    out[0] = at->xs[0];
    switch (*(const char *)user) {
    case 's':
        out[0] = mb_sum(out[0], MB_ALL);
        break;
    case 'd':
        out[0] = mb_cast(out[0], MB_FLOAT32);
        break;
    case 'n':
        out[0] = MB_EMPTY(mb_tensor);
        break;
    case 'f':
        return MB_IO;
    case 'o':
        out[0] = mb_add(out[0], outside);
        break;
    default:
        break;
    }
    return mb_error(ctx);
}

Test(implicit, mistakes_are_told)
{
    mb_context *ctx = open_on("cpu"), *other = open_on("cpu");
    mb_tensor x0 = mb_ones(ctx, MB_FLOAT64, MB_SHAPE(3)), i32 = mb_iota(ctx, MB_INT32, 3), x,
              far = mb_ones(other, MB_FLOAT64, MB_SHAPE(3)), none = {0};
    mb_tensor held[2] = {mb_sin(mb_normal(ctx, mb_key_of(1), MB_FLOAT64, MB_SHAPE(3))),
                         mb_variable(ctx, MB_FLOAT64, MB_SHAPE(3))};
    const struct {
        const char *user;
        mb_tensor x0, param;
        mb_implicit_options options;
        const char *part;
    } calls[] = {
        {"s", x0, x0, MB_EMPTY(mb_implicit_options), "result 1 as [] float64"},
        {"d", x0, x0, MB_EMPTY(mb_implicit_options), "result 1 as [3] float32"},
        {"n", x0, x0, MB_EMPTY(mb_implicit_options), "no tensor of this context"},
        {"f", x0, x0, MB_EMPTY(mb_implicit_options), "the function failed (i/o)"},
        {"o", x0, x0, MB_EMPTY(mb_implicit_options), "neither an x nor a parameter"},
        {"O", x0, x0, MB_EMPTY(mb_implicit_options), "neither an x nor a parameter"},
        {"-", i32, x0, MB_EMPTY(mb_implicit_options), "x 1 is [3] int32"},
        {"-", x0, far, MB_EMPTY(mb_implicit_options), "parameter 1 is no tensor"},
        {"-", x0, none, MB_EMPTY(mb_implicit_options), "fixed_point"},
        {"-", x0, x0, {.tolerance = -1}, "wanted a positive number"},
        {"-", x0, x0, {.damping = NAN}, "wanted a positive number"},
        {"-", x0, x0, {.steps = -1}, "a number of steps"},
        {"-", x0, x0, {.linear = {.method = (mb_solver)77}}, "no method has the number 77"},
        {"-", mb_sum(x0, MB_ALL), x0, {.batched = true}, "a first axis"},
    };
    for (size_t k = 0; k < sizeof calls / sizeof *calls; k++) {
        bool variable = *calls[k].user == 'O';
        outside = held[variable];
        x = x0;
        mb_convergence told;
        mb_status s = mb_fixed_point((mb_map){wrong, variable ? "o" : calls[k].user, 2}, &calls[k].x0, 1,
                                     &calls[k].param, 1, calls[k].options, &x, &told);
        expect(s != MB_OK && !mb_valid(x) && !mb_valid(told.steps), "call %zu is taken", k);
        expect(strstr(mb_message(ctx), calls[k].part) && strstr(mb_message(ctx), "implicit_test.c:"),
               "call %zu: %s", k, mb_message(ctx));
        mb_clear_error(ctx);
    }
    expect(mb_fixed_point((mb_map){0}, &x0, 1, NULL, 0, MB_EMPTY(mb_implicit_options), &x, NULL) != MB_OK,
           "no function");
    mb_clear_error(ctx);
    expect(mb_root((mb_map){wrong, "-", 2}, &x0, 1, NULL, 1, MB_EMPTY(mb_implicit_options), &x, NULL) !=
               MB_OK,
           "no parameters");
    mb_clear_error(ctx);
    expect(mb_minimize((mb_map){wrong, NULL, 2}, &x0, 1, NULL, 0, MB_EMPTY(mb_implicit_options), &x, NULL) !=
               MB_OK,
           "no user data");
    mb_clear_error(ctx);
    expect(mb_root((mb_map){wrong, "-", 2}, NULL, 1, NULL, 0, MB_EMPTY(mb_implicit_options), &x, NULL) ==
               MB_INVALID,
           "no x");
    close_all();
}
