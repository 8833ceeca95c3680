/* SPDX-License-Identifier: MIT
 *
 * nested_test.c - derivatives within derivatives: perturbation confusion, seven ways to one Hessian, learners
 * that are differentiated through their own training, long inner loops. */
#include "gradcheck.h"

static mb_tensor f64(mb_context *ctx, double x)
{
    return mb_full(ctx, MB_FLOAT64, MB_SHAPE0, x);
}

static mb_tensor derivative(mb_tensor y, mb_tensor x)
{
    mb_tensor g;
    mb_grad(y, &x, 1, &g);
    return g;
}

static mb_tensor forward(mb_tensor y, mb_tensor x)
{
    mb_tensor t, one = mb_ones(x.ctx, MB_FLOAT64, mb_shape_of(x));
    mb_jvp(&y, 1, &x, &one, 1, &t);
    return t;
}

/* D(x -> x D(y -> x y)(3))(5) = 10, in every mixture of modes (Siskind and Pearlmutter 2008). */
Test(nested, perturbation_confusion)
{
    for (int k = 0; k < 2; k++)
        for (int modes = 0; modes < 4; modes++) {
            mb_context *ctx = open_on(backend_names[k]);
            mb_tensor x = f64(ctx, 5), y = f64(ctx, 3), inner = mb_mul(x, y);
            mb_tensor d = modes & 1 ? forward(inner, y) : derivative(inner, y);
            mb_tensor outer = mb_mul(x, d);
            mb_tensor e = modes & 2 ? forward(outer, x) : derivative(outer, x);
            expect(mb_item(e) == 10, "modes %d on %s: %g, not 10", modes, backend_names[k], mb_item(e));
            /* The same with y = x, a second identity of one value: D(x -> x D(y -> x y)(x))(5) = 10, too. */
            mb_tensor z = mb_alias(x);
            mb_tensor product = mb_mul(x, z);
            mb_tensor dz = modes & 1 ? forward(product, z) : derivative(product, z);
            expect(mb_item(dz) == 5, "d/dz of x z at z = x: %g, not 5", mb_item(dz));
            mb_tensor twice = mb_mul(x, dz);
            expect(mb_item(modes & 2 ? forward(twice, x) : derivative(twice, x)) == 10, "alias, modes %d",
                   modes);
            close_all();
        }
}

/* ---- seven ways to one Hessian ---- */

enum { N = 4 };

/* f(x) = sum sin(A x)^2 / 2 + prod-like term x0 x1 e^x2 */
static mb_tensor bowl(mb_context *ctx, mb_tensor x)
{
    rng r = {3};
    mb_tensor a = draw(ctx, &r, MB_FLOAT64, MB_SHAPE(N, N), -1, 1);
    mb_tensor s = mb_sin(mb_einsum("ij,j->i", a, x));
    mb_tensor p =
        mb_mul(mb_mul(mb_slice(x, 0, 0, 1, 1), mb_slice(x, 0, 1, 1, 1)), mb_exp(mb_slice(x, 0, 2, 1, 1)));
    return mb_add(mb_mul(mb_dot(s, s), 0.5), mb_sum(p, MB_ALL));
}

static void closed_form(mb_context *ctx, const double *x, double h[N][N])
{
    rng r = {3};
    double *a = values(draw(ctx, &r, MB_FLOAT64, MB_SHAPE(N, N), -1, 1));
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            h[i][j] = 0;
            for (int k = 0; k < N; k++) {
                double u = 0;
                for (int l = 0; l < N; l++)
                    u += a[k * N + l] * x[l];
                h[i][j] += cos(2 * u) * a[k * N + i] * a[k * N + j];
            }
        }
    double e = exp(x[2]);
    h[0][1] += e, h[1][0] += e;
    h[0][2] += x[1] * e, h[2][0] += x[1] * e;
    h[1][2] += x[0] * e, h[2][1] += x[0] * e;
    h[2][2] += x[0] * x[1] * e;
}

static void expect_hessian(const char *way, const char *backend, double h[N][N], const double *got,
                           double tolerance)
{
    for (int i = 0; i < N * N; i++)
        expect(fabs(got[i] - h[i / N][i % N]) <= tolerance, "%s on %s: [%d,%d] is %.15g, not %.15g", way,
               backend, i / N, i % N, got[i], h[i / N][i % N]);
}

Test(nested, seven_ways_to_one_hessian)
{
    static const double at[N] = {0.3, -0.7, 0.4, 1.1};
    for (int b = 0; b < 2; b++) {
        mb_context *ctx = open_on(backend_names[b]);
        double h[N][N], columns[5][N * N];
        closed_form(ctx, at, h);
        mb_tensor x = mb_from(ctx, MB_FLOAT64, MB_SHAPE(N), at), y = bowl(ctx, x), g = derivative(y, x);
        mb_tensor rows[N];
        for (int j = 0; j < N; j++) {
            double e[N] = {0};
            e[j] = 1;
            mb_tensor v = mb_from(ctx, MB_FLOAT64, MB_SHAPE(N), e), t, tt, hv, rf;
            rows[j] = derivative(mb_dot(g, v), x); /* reverse over reverse */
            mb_hvp(y, &x, &v, 1, &hv);             /* forward over reverse */
            mb_jvp(&y, 1, &x, &v, 1, &t);          /* reverse over forward */
            rf = derivative(t, x);
            mb_tensor vjp; /* a row of the gradient's Jacobian */
            mb_vjp(g, v, &x, 1, &vjp);
            mb_tensor all[4] = {rows[j], hv, rf, vjp};
            for (int w = 0; w < 4; w++)
                memcpy(columns[w] + j * N, values(all[w]), N * sizeof(double));
            for (int i = 0; i < N; i++) { /* forward over forward */
                double d[N] = {0};
                d[i] = 1;
                mb_tensor u = mb_from(ctx, MB_FLOAT64, MB_SHAPE(N), d);
                mb_jvp(&t, 1, &x, &u, 1, &tt);
                columns[4][j * N + i] = mb_item(tt);
            }
        }
        static const char *const names[] = {"reverse over reverse", "forward over reverse",
                                            "reverse over forward", "vjp of the gradient",
                                            "forward over forward"};
        for (int w = 0; w < 5; w++)
            expect_hessian(names[w], backend_names[b], h, columns[w], 1e-13);
        double differences[N * N];
        for (int j = 0; j < N; j++) {
            double slope[4][N];
            static const double step[4] = {1e-3, -1e-3, 2e-3, -2e-3};
            for (int k = 0; k < 4; k++) {
                double moved[N];
                memcpy(moved, at, sizeof at);
                moved[j] += step[k];
                mb_tensor z = mb_from(ctx, MB_FLOAT64, MB_SHAPE(N), moved);
                memcpy(slope[k], values(derivative(bowl(ctx, z), z)), sizeof slope[k]);
            }
            for (int i = 0; i < N; i++)
                differences[j * N + i] =
                    (8 * (slope[0][i] - slope[1][i]) - (slope[2][i] - slope[3][i])) / 12e-3;
        }
        expect_hessian("differences of the gradient", backend_names[b], h, differences, 1e-9);
        close_all();
    }
}

/* ---- learning to learn: the outer gradient goes through five inner steps ---- */

enum rule { SGD, MOMENTUM, NESTEROV, ADAM, RULES };

/* A linear learner W: [3,2] trained on inputs xs[1] for targets made of xs[0], and asked once more.
 * Differentiated with respect to the start, the data and the learning rate. */
static mb_tensor learner(mb_context *ctx, const mb_tensor *xs, const void *user)
{
    enum rule rule = *(const enum rule *)user;
    rng r = {8};
    mb_tensor w = xs[0], x = xs[1], lr = xs[2];
    /* Targets out of reach: no gradient comes near 0, where Adam's root has its kink. */
    mb_tensor target = draw(ctx, &r, MB_FLOAT64, MB_SHAPE(4, 2), 2, 3),
              ask = draw(ctx, &r, MB_FLOAT64, MB_SHAPE(2, 3), -1, 1);
    mb_tensor m = mb_zeros(ctx, MB_FLOAT64, MB_SHAPE(3, 2)), v = m;
    for (int t = 1; t <= 5; t++) {
        mb_tensor miss = mb_sub(mb_tanh(mb_matmul(x, w)), target);
        mb_tensor g = derivative(mb_dot(miss, miss), w);
        if (rule == SGD)
            w = mb_sgd_update(w, g, lr);
        else if (rule == ADAM)
            w = mb_adam_update(w, g, lr, m, v, t, &(mb_adam_options){.beta1 = 0.8, .beta2 = 0.9, .eps = 1e-3},
                               &m, &v);
        else
            w = mb_momentum_update(w, g, lr, v, 0.6, rule == NESTEROV, &v);
    }
    return mb_matmul(ask, w);
}

static void learn(enum rule rule, const char *name)
{
    const int orders = testing("vulkan") ? 1 : 2; /* where kernels take long to compile */
    const gradcase c = {name, learner, &rule,  3, {MB_SHAPE(3, 2), MB_SHAPE(4, 3), MB_SHAPE0},
                        0.05, 0.4,     orders, 10};
    gradcheck_both(&c, 1);
}

Test(nested, through_five_steps_of_sgd, .timeout = 120)
{
    learn(SGD, "sgd");
}
Test(nested, through_five_steps_of_momentum, .timeout = 120)
{
    if (!testing("vulkan"))
        learn(MOMENTUM, "momentum");
    learn(NESTEROV, "nesterov");
}
Test(nested, through_five_steps_of_adam, .timeout = 120)
{
    learn(ADAM, "adam");
}

/* A learner that trains a learner: three levels, each a gradient step of the one below. */
static mb_tensor three_levels(mb_context *ctx, const mb_tensor *xs, const void *user)
{
    (void)ctx, (void)user;
    mb_tensor a = xs[0], b = xs[1], w = a;
    for (int t = 0; t < 2; t++) {
        mb_tensor u = w;
        for (int s = 0; s < 2; s++)
            u = mb_sub(u, mb_mul(0.3, derivative(mb_dot(mb_sin(mb_mul(u, b)), mb_exp(u)), u)));
        w = mb_sub(w, mb_mul(0.2, derivative(mb_dot(mb_tanh(u), b), w)));
    }
    return mb_sin(w);
}

Test(nested, a_learner_within_a_learner, .timeout = 120)
{
    const int orders = testing("vulkan") ? 2 : 3;
    const gradcase c = {"three levels", three_levels, NULL,   2, {MB_SHAPE(3), MB_SHAPE(3)},
                        -0.8,           0.8,          orders, 10};
    gradcheck_both(&c, 1);
}

/* The fourth and fifth derivative of sin, by every word of reverse and forward. */
Test(nested, fifth_order_in_every_mixture)
{
    for (int k = 0; k < 2; k++) {
        mb_context *ctx = open_on(backend_names[k]);
        for (int word = 0; word < 32; word++) {
            mb_tensor x = mb_from(ctx, MB_FLOAT64, MB_SHAPE(2), ((double[]){0.3, -1.2})),
                      y = mb_mul(mb_sin(x), mb_exp(x));
            for (int n = 0; n < 5;
                 n++) /* y is elementwise in x, so forward along ones is the derivative as well */
                y = word >> n & 1 ? forward(y, x) : derivative(y, x);
            double *v = values(y);
            for (int i = 0; i < 2; i++) { /* (e^x sin x)''''' = -4 (e^x sin x)' */
                double at = i ? -1.2 : 0.3, want = -4 * exp(at) * (sin(at) + cos(at));
                expect(near(v[i], want, 1e-12, 1e-12), "word %d on %s: %.15g, not %.15g", word,
                       backend_names[k], v[i], want);
            }
        }
        close_all();
    }
}

/* ---- a thousand recorded steps ---- */

static double time_of_loop(int steps, double *result)
{
    mb_context *ctx = open_on("cpu");
    double start = seconds();
    rng r = {2};
    mb_tensor w0 = draw(ctx, &r, MB_FLOAT32, MB_SHAPE(4, 4), -0.5, 0.5), w = w0;
    mb_tensor x = draw(ctx, &r, MB_FLOAT32, MB_SHAPE(8, 4), -1, 1), lr = mb_scalar(ctx, MB_FLOAT32, 1e-3);
    for (int t = 0; t < steps; t++) {
        mb_tensor miss = mb_sub(mb_tanh(mb_matmul(x, w)), 0.5);
        w = mb_sub(w, mb_mul(lr, derivative(mb_dot(miss, miss), w)));
    }
    mb_tensor g = derivative(mb_dot(w, w), w0);
    *result = mb_item(mb_dot(g, g));
    expect(isfinite(*result), "the gradient through %d steps is %g", steps, *result);
    double took = seconds() - start;
    double planned = mb_get_stats(ctx).plan_seconds;
    fprintf(stderr, "%d steps: %.3f s, planning %.3f s, %llu nodes\n", steps, took, planned,
            (unsigned long long)mb_get_stats(ctx).recorded);
    close_all();
    return planned;
}

/* Twice the steps may take 2.5 times as long; noise of a busy machine is met by the best of three. tests/run
 * says with TESTS_SLOW that a sanitizer or valgrind is at work. */
Test(nested, a_thousand_inner_steps, .timeout = 120)
{
    double result, one = 1e9, two = 1e9;
    bool slow = getenv("TESTS_SLOW") != NULL;
    /* Twice the work takes twice as long, where quadratic work would take four times. The least of a few
     * rounds; of more where the machine is busy with other work. */
    for (int k = 0; k < (slow ? 1 : 12) && (k < 3 || one >= 1 || two > 3 * one + 0.02); k++) {
        one = fmin(one, time_of_loop(1000, &result));
        two = fmin(two, time_of_loop(2000, &result));
    }
    expect(slow || one < 1, "planning 1000 steps took %.3f s", one);
    expect(slow || two <= 3 * one + 0.02, "planning 2000 steps took %.3f s, 1000 steps %.3f s", two, one);
}
