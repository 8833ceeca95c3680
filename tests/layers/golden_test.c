/* SPDX-License-Identifier: MIT
 *
 * golden_test.c - the numbers of section 4.1 of the notes, made in float64 from the paper's equations by a
 * program that shares nothing with this one. */
#include "fixture.h"

static void expect_number(const char *backend, const char *what, double got, double want)
{
    expect(near(got, want, 1e-10, 1e-10), "%s: %s is %.15g, not %.15g", backend, what, got, want);
}

static void expect_first_row(const char *backend, mb_tensor y, const double want[TINY_D])
{
    const double *v = values(y);
    for (int i = 0; i < TINY_D; i++)
        expect_number(backend, "y[0]", v[i], want[i]);
}

/* Case A: MTTT-Linear, T = 1, W_0 = 0. */
static void linear_case(const char *backend, const char *disable)
{
    tiny t = tiny_ttt(open_as(backend, disable, 0), (mb_ttt_options){.inner_steps = 1});
    mb_tensor x = tiny_x(t.mb, 1), losses[2], g[4];
    mb_tensor y = mb_ttt_apply(t.layer, x, MB_NO_KEY, losses), loss = outer_loss(y);
    mb_tensor xs[4] = {tiny_get(&t, "phi_k"), tiny_get(&t, "g_k"), tiny_get(&t, "psi_k"), x};
    mb_grad(loss, xs, 4, g);

    expect_number(backend, "L", mb_item(loss), 4.431026327240418);
    expect_first_row(backend, y, (double[]){-0.123831204843, 0.036737328329, 0.180027721951, 0.238648264929});
    expect_number(backend, "l(W_0)", mb_item(losses[0]), 1.004402439609);
    expect_number(backend, "l(W_1)", mb_item(losses[1]), 0.817663344415);
    expect_number(backend, "|dL/dphi_k|", norm2(g[0]), 2.702342951909);
    expect_number(backend, "dL/dphi_k first", values(g[0])[0], -3.197746009435e-01);
    expect_number(backend, "dL/dphi_k last", values(g[0])[mb_count(g[0]) - 1], -5.944396876989e-01);
    expect_number(backend, "|dL/dg_k|", norm2(g[1]), 1.823743133378);
    expect_number(backend, "|dL/dpsi_k|", norm2(g[2]), 2.066805723203);
    expect_number(backend, "|dL/dx|", norm2(g[3]), 2.131684627463);
    mb_params_free(t.p);
    close_all();
}

/* Case B: MTTT-MLP, T = 1, learned W_0, decoder norm. */
static void mlp_case(const char *backend, const char *disable)
{
    static const struct {
        const char *name;
        double norm;
    } rows[] = {{"W1", 9.166327351022},  {"W2", 23.76396133195},     {"phi_k", 1.131025374309},
                {"g_k", 14.02902723480}, {"g_bias", 25.06770016574}, {"norm_scale", 26.29750653304}};
    enum { ROWS = sizeof rows / sizeof *rows };
    tiny t =
        tiny_ttt(open_as(backend, disable, 0), (mb_ttt_options){.learner = MB_LEARNER_MLP, .inner_steps = 1});
    mb_tensor x = tiny_x(t.mb, 1), losses[2], xs[ROWS + 1], g[ROWS + 1];
    mb_tensor y = mb_ttt_apply(t.layer, x, MB_NO_KEY, losses), loss = outer_loss(y);
    for (int i = 0; i < ROWS; i++)
        xs[i] = tiny_get(&t, rows[i].name);
    xs[ROWS] = x;
    mb_grad(loss, xs, ROWS + 1, g);

    expect_number(backend, "L", mb_item(loss), 6.365398363381152);
    expect_first_row(backend, y, (double[]){0.035293897942, 0.327450628306, 0.465602211620, 0.384773799574});
    expect_number(backend, "l(W_0)", mb_item(losses[0]), 2.812766154167);
    expect_number(backend, "l(W_1)", mb_item(losses[1]), 2.763012091023);
    for (int i = 0; i < ROWS; i++)
        expect_number(backend, rows[i].name, norm2(g[i]), rows[i].norm);
    expect_number(backend, "|dL/dx|", norm2(g[ROWS]), 7.265340707681);
    expect_number(backend, "dL/dW1 first", values(g[0])[0], -2.230561474765);
    mb_params_free(t.p);
    close_all();
}

Test(golden, mttt_linear)
{
    for (int i = 0; i < 2; i++)
        linear_case(backend_names[i], NULL);
}

Test(golden, mttt_mlp)
{
    for (int i = 0; i < 2; i++)
        mlp_case(backend_names[i], NULL);
}

/* And with each pass of the planner left out, and with none of them. */
Test(golden, passes_left_out)
{
    static const char *const passes[] = {
        "simplify", "merge", "dead",
        "fuse",     "sink",  "inplace",
        "reuse",    "loops", "simplify,merge,dead,fuse,sink,inplace,reuse,cache,loops"};
    bool few = testing("vulkan"); /* each has kernels of its own to compile: both cases with none alone */
    for (size_t k = 0; k < sizeof passes / sizeof *passes; k++)
        for (int i = few; i < 2; i++) {
            linear_case(backend_names[i], passes[k]);
            if (!few || k + 1 == sizeof passes / sizeof *passes)
                mlp_case(backend_names[i], passes[k]);
        }
}
