/* SPDX-License-Identifier: MIT
 *
 * substitute_test.c - a value in the place of a formula: the value is its own, the derivatives of every order
 * and mode are the formula's, also inside of a checkpoint. */
#include "support.h"

#include "tensor/internal.h"

static mb_tensor grad(mb_tensor y, mb_tensor x)
{
    mb_tensor g;
    mb_grad(y, &x, 1, &g);
    return g;
}

/* exp(3 x), of which nothing may be seen in a derivative, with those of the cube. */
static mb_tensor cube_of(mb_tensor x, bool checkpoint)
{
    mb_checkpoint c = {0};
    if (checkpoint)
        c = mb_checkpoint_begin(x.ctx);
    mb_tensor y = mb_mul(x, 1.0);
    y = mb__substitute(mb_exp(mb_mul(y, 3.0)), mb_mul(mb_square(y), y));
    if (checkpoint)
        mb_checkpoint_end(c);
    return y;
}

static void expect_values(const char *what, mb_tensor t, const double *want)
{
    double *got = values(t);
    for (int i = 0; i < 3; i++)
        expect(near(got[i], want[i], 1e-14, 0), "%s on %s: [%d] is %.17g, not %.17g", what,
               mb_backend_name(t.ctx), i, got[i], want[i]);
}

Test(substitute, value_and_derivatives)
{
    const double at[3] = {-2, 0.5, 3};
    double value[3], first[3], second[3], third[3] = {6, 6, 6};
    for (int i = 0; i < 3; i++) {
        value[i] = exp(3 * at[i]);
        first[i] = 3 * at[i] * at[i];
        second[i] = 6 * at[i];
    }
    for (int k = 0; k < 4; k++) {
        mb_context *ctx = open_on(backend_names[k / 2]);
        mb_tensor x = from_doubles(ctx, MB_FLOAT64, MB_SHAPE(3), at), y = cube_of(x, k % 2), t;
        mb_tensor one = mb_ones(ctx, MB_FLOAT64, MB_SHAPE(3)),
                  ones = mb_ones(ctx, MB_FLOAT64, MB_SHAPE(1, 3));
        expect_values("value", y, value);
        mb_tensor g = grad(y, x), h = grad(g, x);
        expect_values("first", g, first);
        expect_values("second", h, second);
        expect_values("third", grad(h, x), third);
        mb_jvp(&y, 1, &x, &one, 1, &t);
        expect_values("forward", t, first);
        expect_values("reverse over forward", grad(t, x), second);
        mb_jvp(&g, 1, &x, &one, 1, &t);
        expect_values("forward over reverse", t, second);
        mb_jvp_batch(&y, 1, &x, &ones, 1, &t);
        expect_values("a batch of directions", t, first);
        close_all();
    }
}

/* Who depends on x by the value alone does not depend on it; and a value that is NaN does not spread. */
Test(substitute, only_by_the_formula)
{
    for (int k = 0; k < 2; k++) {
        mb_context *ctx = open_on(backend_names[k]);
        mb_tensor x = from_doubles(ctx, MB_FLOAT64, MB_SHAPE(3), (double[]){-1, -1, -1}), t;
        mb_tensor c = mb_ones(ctx, MB_FLOAT64, MB_SHAPE(3)), y = mb__substitute(mb_exp(x), mb_mul(c, 2.0));
        const double zeros[3] = {0}, twos[3] = {2, 2, 2};
        expect_values("by x", grad(y, x), zeros);
        expect_values("by c", grad(y, c), twos);
        mb_jvp(&y, 1, &x, &c, 1, &t);
        expect_values("forward by x", t, zeros);
        y = mb__substitute(mb_log(x), mb_mul(x, 2.0));
        expect(isnan(values(y)[0]), "log(-1) is %g", values(y)[0]);
        expect_values("beside a NaN", grad(y, x), twos);
        close_all();
    }
}
