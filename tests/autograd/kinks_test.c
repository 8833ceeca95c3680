/* SPDX-License-Identifier: MIT
 *
 * kinks_test.c - derivatives where there is none, or where there is nothing to differentiate: documented
 * subgradients, ties, guarded branches, constants, integers, what grad refuses. */
#include "support.h"

static mb_tensor vec(mb_context *ctx, int n, const double *x)
{
    return mb_from(ctx, MB_FLOAT64, MB_SHAPE(n), x);
}

static mb_tensor grad(mb_tensor y, mb_tensor x)
{
    mb_tensor g;
    mb_grad(y, &x, 1, &g);
    return g;
}

static void expect_values(const char *what, mb_tensor t, const double *want)
{
    double *got = values(t);
    for (int i = 0; i < mb_count(t); i++)
        expect(near(got[i], want[i], 1e-14, 0), "%s on %s: [%d] is %.15g, not %.15g", what,
               mb_backend_name(t.ctx), i, got[i], want[i]);
}

#define ON_BOTH                                                                                              \
    for (int k = 0; k < 2; k++)                                                                              \
        for (mb_context *ctx = open_on(backend_names[k]); ctx; ctx = NULL, close_all())
#define D(...) ((double[]){__VA_ARGS__})

Test(kinks, relu_and_abs_at_zero_are_flat)
{
    ON_BOTH
    {
        mb_tensor x = vec(ctx, 4, D(-1, 0, -0.0, 2));
        expect_values("relu'", grad(mb_relu(x), x), D(0, 0, 0, 1));
        expect_values("relu''", grad(grad(mb_relu(mb_mul(x, x)), x), x), D(2, 0, 0, 2));
        expect_values("abs'", grad(mb_abs(x), x), D(-1, 0, 0, 1));
        mb_tensor t, one = mb_ones(ctx, MB_FLOAT64, MB_SHAPE(4)), y = mb_relu(x);
        mb_jvp(&y, 1, &x, &one, 1, &t);
        expect_values("relu forward", t, D(0, 0, 0, 1));
        expect_values("softplus'", grad(mb_softplus(x), x),
                      D(1 / (1 + exp(1.0)), 0.5, 0.5, 1 / (1 + exp(-2.0))));
        expect_values("elu'", grad(mb_elu(x), x), D(exp(-1.0), 1, 1, 1));
    }
}

Test(kinks, ties_share)
{
    ON_BOTH
    {
        mb_tensor a = vec(ctx, 3, D(1, 2, 3)), b = vec(ctx, 3, D(1, 3, 2));
        expect_values("maximum'", grad(mb_maximum(a, b), a), D(0.5, 0, 1));
        expect_values("maximum' b", grad(mb_maximum(a, b), b), D(0.5, 1, 0));
        expect_values("minimum'", grad(mb_minimum(a, b), a), D(0.5, 1, 0));
        expect_values("maximum of itself", grad(mb_maximum(a, a), a), D(1, 1, 1));
        mb_tensor x = vec(ctx, 5, D(1, 4, 4, 0, 4));
        expect_values("max'", grad(mb_max(x, MB_ALL), x), D(0, 1.0 / 3, 1.0 / 3, 0, 1.0 / 3));
        expect_values("min'", grad(mb_min(mb_neg(x), MB_ALL), x), D(0, -1.0 / 3, -1.0 / 3, 0, -1.0 / 3));
        mb_tensor y = mb_max(mb_mul(x, x), MB_ALL); /* ties split the same way at the second order */
        expect_values("max''", grad(mb_dot(grad(y, x), x), x), D(0, 16.0 / 3, 16.0 / 3, 0, 16.0 / 3));
        mb_tensor t, v = vec(ctx, 5, D(9, 1, 2, 9, 6));
        mb_tensor m = mb_max(x, MB_ALL);
        mb_jvp(&m, 1, &x, &v, 1, &t);
        expect_values("max forward", t, D(3));
    }
}

/* A NaN is told to all that it was compared with: a derivative of 0 would hide it. */
Test(kinks, the_largest_of_nan_has_no_derivative)
{
    const double nan = (double)NAN;
    ON_BOTH
    {
        mb_tensor x = mb_from(ctx, MB_FLOAT64, MB_SHAPE(2, 3), D(nan, 1, 2, 5, 4, 5)), t, b;
        mb_tensor y = mb_max(x, MB_AXES(1)), v = mb_ones(ctx, MB_FLOAT64, MB_SHAPE(2, 3));
        expect_values("max'", grad(y, x), D(nan, nan, nan, 0.5, 0, 0.5));
        expect_values("min'", grad(mb_min(x, MB_AXES(1)), x), D(nan, nan, nan, 0, 1, 0));
        mb_jvp(&y, 1, &x, &v, 1, &t);
        expect_values("max forward", t, D(nan, 1));
        v = mb_stack(((mb_tensor[]){v, mb_mul(v, 2.0)}), 2, 0);
        mb_jvp_batch(&y, 1, &x, &v, 1, &b);
        expect_values("max, a batch", b, D(nan, 1, nan, 2));
        mb_tensor p = vec(ctx, 3, D(nan, 1, 2)), q = vec(ctx, 3, D(1, nan, 1));
        expect_values("maximum' a", grad(mb_maximum(p, q), p), D(nan, nan, 1));
        expect_values("maximum' b", grad(mb_maximum(p, q), q), D(nan, nan, 0));
        expect_values("minimum' a", grad(mb_minimum(p, q), p), D(nan, nan, 0));
        expect_values("minimum' b", grad(mb_minimum(p, q), q), D(nan, nan, 1));
    }
}

Test(kinks, guarded_branches)
{
    ON_BOTH
    {
        mb_tensor x = vec(ctx, 4, D(-1, 0, 0.25, 4)), zero = mb_zeros(ctx, MB_FLOAT64, MB_SHAPE0);
        mb_tensor positive = mb_lt(zero, x), one = mb_ones(ctx, MB_FLOAT64, MB_SHAPE0);
        mb_tensor root = mb_where(positive, mb_sqrt(mb_where(positive, x, one)), zero);
        expect_values("guarded sqrt'", grad(root, x), D(0, 0, 1, 0.25));
        expect_values("guarded sqrt''", grad(grad(root, x), x), D(0, 0, -2, -0.03125));
        mb_tensor logarithm = mb_where(positive, mb_log(mb_where(positive, x, one)), zero);
        expect_values("guarded log'", grad(logarithm, x), D(0, 0, 4, 0.25));
        expect_values("sqrt'", grad(mb_sqrt(x), x), D((double)NAN, (double)INFINITY, 1, 0.25));
        /* A literal zero of the norm: optim's own function promises 0 there. */
        mb_tensor z = mb_zeros(ctx, MB_FLOAT64, MB_SHAPE(3)), norm = mb_global_norm(&z, 1);
        expect_values("norm' at 0", grad(norm, z), D(0, 0, 0));
        mb_tensor p = vec(ctx, 3, D(0, 0, 2)), q = vec(ctx, 3, D(2, 0, 3));
        expect_values("pow'", grad(mb_pow(p, q), p), D(0, 0, 12));
        expect_values("pow' of the exponent", grad(mb_pow(p, q), q), D(0, 0, 8 * log(2)));
        expect_values("x^2''", grad(grad(mb_pow(p, 2.0), p), p), D(2, 2, 2));
    }
}

/* Where 1 is nothing beside x^2: -2 x / (1 + x^2)^2 is -2 / x^3, and that of asinh -1 / x^2. */
Test(kinks, slopes_far_from_zero_have_slopes)
{
    ON_BOTH
    {
        mb_tensor x = vec(ctx, 3, D(1e11, -1e20, 1e30));
        double *a = values(grad(grad(mb_atan(x), x), x)), *h = values(grad(grad(mb_asinh(x), x), x));
        static const double at[] = {1e11, -1e20, 1e30};
        for (int i = 0; i < 3; i++) {
            double cube = -2 / at[i] / at[i] / at[i], square = (at[i] < 0 ? 1 : -1) / at[i] / at[i];
            expect(near(a[i], cube, 1e-14, 0), "%s: atan'' at %g is %g", backend_names[k], at[i], a[i]);
            expect(near(h[i], square, 1e-14, 0), "%s: asinh'' at %g is %g", backend_names[k], at[i], h[i]);
        }
    }
}

Test(kinks, infinite_cotangents_do_not_leak)
{
    ON_BOTH
    {
        mb_tensor x = vec(ctx, 2, D(1, 2)), c = mb_lt(x, 1.5), g;
        mb_tensor inf = vec(ctx, 2, D((double)INFINITY, 3));
        mb_vjp(mb_where(c, mb_mul(x, 0.0), x), inf, &x, 1, &g);
        expect(values(g)[1] == 3, "an infinite cotangent reaches another element");
        mb_tensor m = mb_maximum(x, vec(ctx, 2, D(5, 1)));
        mb_vjp(m, inf, &x, 1, &g);
        expect_values("maximum", g, D(0, 3));
    }
}

Test(kinks, log_softmax_of_extremes)
{
    ON_BOTH
    {
        mb_tensor x = vec(ctx, 3, D(1000, 0, -1000));
        expect_values("softmax", mb_softmax(x, 0), D(1, 0, 0));
        expect_values("log_softmax", mb_log_softmax(x, 0), D(0, -1000, -2000));
        expect_values("logsumexp", mb_logsumexp(x, MB_ALL), D(1000));
        expect_values("logsumexp'", grad(mb_logsumexp(x, MB_ALL), x), D(1, 0, 0));
        expect_values("softmax''", grad(mb_dot(grad(mb_dot(mb_softmax(x, 0), x), x), x), x), D(1, 0, 0));
        double inf = (double)INFINITY;
        mb_tensor masked = vec(ctx, 3, D(0, -inf, 0));
        expect_values("softmax of a masked entry", mb_softmax(masked, 0), D(0.5, 0, 0.5));
        mb_tensor dead = vec(ctx, 2, D(-inf, -inf));
        double *v = values(mb_softmax(dead, 0));
        expect(isnan(v[0]) && isnan(v[1]), "softmax of a row of -infinity: %g %g", v[0], v[1]);
        expect_values("softplus", mb_softplus(vec(ctx, 2, D(1000, -1000))), D(1000, 0));
    }
}

Test(kinks, what_does_not_depend_gets_zeros)
{
    ON_BOTH
    {
        mb_tensor x = vec(ctx, 3, D(1, 2, 3)), z = vec(ctx, 2, D(4, 5)), late, g[3];
        mb_tensor y = mb_dot(x, mb_stop_gradient(mb_mul(x, x)));
        late = mb_mul(x, 2.0); /* recorded after y */
        mb_grad(y, (mb_tensor[]){x, z, late}, 3, g);
        expect_values("stop_gradient", g[0], D(1, 4, 9));
        expect_values("unreachable", g[1], D(0, 0));
        expect_values("newer than y", g[2], D(0, 0, 0));
        mb_tensor t;
        mb_jvp(&z, 1, &x, &x, 1, &t);
        expect_values("forward, unreachable", t, D(0, 0));
        expect_values("of itself", grad(x, x), D(1, 1, 1));
        mb_tensor i = mb_argmax(x, 0), h = mb_mul(mb_cast(i, MB_FLOAT64), mb_sum(x, MB_ALL));
        expect_values("through an index", grad(h, x), D(2, 2, 2));
        expect_values("of a constant", grad(mb_ones(ctx, MB_FLOAT64, MB_SHAPE(2)), x), D(0, 0, 0));
        expect_values("through int32", grad(mb_cast(mb_cast(x, MB_INT32), MB_FLOAT64), x), D(0, 0, 0));
    }
}

/* An x that depends on another x: both are told, as in jax.vjp over separate variables. */
Test(kinks, an_x_that_depends_on_another)
{
    ON_BOTH
    {
        mb_tensor x = vec(ctx, 2, D(2, 3)), u = mb_mul(x, x), y = mb_mul(u, u), g[2], three[3];
        mb_grad(y, (mb_tensor[]){x, u}, 2, g);
        expect_values("dy/du", g[1], D(8, 18));
        double *v = values(g[0]);
        expect((v[0] == 32 && v[1] == 108) || (v[0] == 0 && v[1] == 0), "dy/dx: %g %g", v[0], v[1]);
        mb_grad(y, (mb_tensor[]){u, x, u}, 3, three);
        mb_tensor z[3] = {x, mb_stop_gradient(x), mb_sign(x)},
                  h[3]; /* constants to x, and yet an x of their own */
        mb_grad(mb_mul(x, mb_mul(z[1], z[2])), z, 3, h);
        expect_values("beside stop_gradient", h[0], D(2, 3));
        expect_values("by stop_gradient", h[1], D(2, 3));
        expect_values("by sign", h[2], D(4, 9));
        expect_ok(ctx);
    }
}

/* One variable in two places: x^3 at 3 has slope 27 and curvature 18, however it is asked. */
Test(kinks, the_same_x_twice)
{
    ON_BOTH
    {
        mb_tensor x = mb_scalar(ctx, MB_FLOAT64, 3), two[2] = {x, x}, y = mb_mul(mb_square(x), x), h[2], t,
                  first;
        mb_tensor v[2] = {mb_scalar(ctx, MB_FLOAT64, 1), mb_scalar(ctx, MB_FLOAT64, 0.5)}, batch[2];
        mb_grad(y, two, 2, h);
        expect(mb_item(h[0]) == 27 && mb_item(h[1]) == 27, "grad %g %g", mb_item(h[0]), mb_item(h[1]));
        mb_jvp(&y, 1, two, v, 2, &t);
        expect(mb_item(t) == 27 * 1.5, "jvp %g", mb_item(t));
        mb_hvp(y, two, v, 2, h);
        expect(mb_item(h[0]) == 27 && mb_item(h[1]) == 27, "hvp %g %g", mb_item(h[0]), mb_item(h[1]));
        mb_hvp_reverse(y, two, v, 2, h);
        expect(mb_item(h[0]) == 27 && mb_item(h[1]) == 27, "hvp_reverse %g %g", mb_item(h[0]), mb_item(h[1]));
        for (int i = 0; i < 2; i++)
            batch[i] = mb_stack(((mb_tensor[]){v[i], mb_mul(v[i], 2.0)}), 2, 0);
        mb_hvp_batch(y, two, batch, 2, h);
        expect_values("hvp_batch", h[1], D(27, 54));
        expect_values("hessian", mb_hessian(y, two, 2), D(18, 18, 18, 18));
        mb_hessian_diagonal(y, two, 2, h);
        expect(mb_item(h[0]) == 18 && mb_item(h[1]) == 18, "diagonal %g %g", mb_item(h[0]), mb_item(h[1]));
        mb_directional(y, two, v, 2, &first, &t);
        expect(mb_item(first) == 40.5 && mb_item(t) == 18 * 2.25, "directional %g %g", mb_item(first),
               mb_item(t));
    }
}

Test(kinks, many_operands_at_once)
{
    ON_BOTH
    {
        enum { MANY = 100 };
        mb_tensor xs[MANY], gs[MANY], sum = mb_zeros(ctx, MB_FLOAT64, MB_SHAPE0);
        for (int i = 0; i < MANY; i++) {
            xs[i] = mb_scalar(ctx, MB_FLOAT64, i);
            sum = mb_add(sum, mb_mul(xs[i], mb_mul(xs[i], 0.5)));
        }
        mb_grad(sum, xs, MANY, gs);
        for (int i = 0; i < MANY; i++)
            expect(mb_item(gs[i]) == i, "gradient %d is %g", i, mb_item(gs[i]));
        mb_tensor wide = mb_concat(xs, 0, 0);
        expect(!mb_valid(wide), "a concat of nothing");
        mb_clear_error(ctx);
        for (int i = 0; i < MANY; i++)
            xs[i] = mb_reshape(xs[i], MB_SHAPE(1));
        wide = mb_mul(mb_concat(xs, MANY, 0),
                      mb_concat(xs, MANY, 0)); /* more operands than a node's in-line few */
        mb_tensor t, vs[MANY];
        mb_grad(wide, xs, MANY, gs);
        for (int i = 0; i < MANY; i++)
            vs[i] = mb_ones(ctx, MB_FLOAT64, MB_SHAPE(1));
        mb_jvp(&wide, 1, xs, vs, MANY, &t);
        double *forward = values(t);
        for (int i = 0; i < MANY; i++)
            expect(mb_item(gs[i]) == 2 * i && forward[i] == 2 * i, "concat %d: %g and %g", i, mb_item(gs[i]),
                   forward[i]);
    }
}

Test(kinks, a_deep_chain_does_not_recurse, .timeout = 60)
{
    ON_BOTH
    {
        enum { DEEP = 100000 };
        mb_tensor x = mb_scalar(ctx, MB_FLOAT64, 0.5), y = x;
        for (int i = 0; i < (k && !testing("vulkan") ? DEEP : 10000); i++)
            y = mb_add(mb_mul(y, 0.5), 0.25);
        expect(near(mb_item(y), 0.5, 1e-12, 0), "a deep chain: %g", mb_item(y));
        expect(mb_item(grad(y, x)) < 1e-300, "its gradient");
    }
}
