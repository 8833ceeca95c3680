/* SPDX-License-Identifier: MIT
 *
 * parts_test.c - linear layers, embeddings, norms and the perceptron against loops in plain C; names, shapes
 * and decay of their parameters; initial values. */
#include "fixture.h"

static void linear(const char *backend)
{
    mb_context *mb = open_on(backend);
    mb_params *p = mb_params_new_with(mb, 1, MB_FLOAT64);
    mb_linear f = mb_linear_new(p, "f", 4, 3),
              g = mb_linear_new_with(p, "g", 4, 3, (mb_linear_options){.no_bias = true});
    set_pattern(p, "f.bias", 2, 1, 0);
    expect(mb_params_count(p) == 3 && !g.bias.ctx, "%d parameters", mb_params_count(p));
    const double *w = values(f.weight), *b = values(f.bias), *u = values(g.weight);
    static const mb_shape shapes[] = {
        {1, {4}}, {2, {5, 4}}, {3, {2, 3, 4}}, {5, {2, 1, 3, 2, 4}}, {2, {0, 4}}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        mb_tensor x = pattern(mb, shapes[s], 3, 1, 0), y = mb_linear_apply(f, x), z = mb_linear_apply(g, x);
        mb_shape want = shapes[s];
        want.dim[want.rank - 1] = 3;
        expect(same_shape(mb_shape_of(y), want), "%s", shape_text(mb_shape_of(y)));
        const double *xv = values(x), *yv = values(y), *zv = values(z);
        for (int64_t i = 0; i < mb_count(y); i++) {
            double sum = 0, bare = 0;
            for (int64_t k = 0; k < 4; k++) {
                sum += xv[i / 3 * 4 + k] * w[i % 3 * 4 + k];
                bare += xv[i / 3 * 4 + k] * u[i % 3 * 4 + k];
            }
            expect(near(yv[i], sum + b[i % 3], 1e-13, 1e-14) && near(zv[i], bare, 1e-13, 1e-14), "%s: %g",
                   backend, yv[i]);
        }
    }
    mb_params_free(p);
    close_all();
}

Test(parts, linear)
{
    for (int i = 0; i < 2; i++)
        linear(backend_names[i]);
}

static void embedding(const char *backend)
{
    mb_context *mb = open_on(backend);
    mb_params *p = mb_params_new_with(mb, 1, MB_FLOAT64);
    mb_embedding e = mb_embedding_new(p, "words", 7, 3);
    expect(strcmp(mb_params_name(p, 0), "words.weight") == 0 && !mb_params_decays(p, 0), "name and decay");
    const int32_t ids[4] = {6, 0, 3, 6};
    mb_tensor y = mb_embedding_apply(e, mb_from(mb, MB_INT32, MB_SHAPE(2, 2), ids)), g;
    const double *w = values(e.weight), *v = values(y);
    for (int i = 0; i < 12; i++)
        expect(v[i] == w[ids[i / 3] * 3 + i % 3], "entry %d", i);
    mb_grad(y, &e.weight, 1, &g);
    const double *gv = values(g);
    for (int i = 0; i < 21; i++)
        expect(gv[i] == (i / 3 == 6 ? 2 : i / 3 == 0 || i / 3 == 3), "gradient %d is %g", i, gv[i]);
    mb_params_free(p);
    close_all();
}

Test(parts, embedding)
{
    for (int i = 0; i < 2; i++)
        embedding(backend_names[i]);
}

static void norms(const char *backend)
{
    enum { ROWS = 6, D = 5 };
    mb_context *mb = open_on(backend);
    mb_params *p = mb_params_new_with(mb, 1, MB_FLOAT64);
    mb_layer_norm l = mb_layer_norm_new(p, "ln", D);
    mb_rms_norm r = mb_rms_norm_new(p, "rms", D);
    static const char *const names[] = {"ln.scale", "ln.bias", "rms.scale"};
    for (int i = 0; i < 3; i++)
        expect(strcmp(mb_params_name(p, i), names[i]) == 0 && !mb_params_decays(p, i), "%s",
               mb_params_name(p, i));
    expect(values(l.scale)[0] == 1 && values(l.bias)[0] == 0 && values(r.scale)[4] == 1, "ones and zeros");
    expect(l.eps == 1e-6 && r.eps == 1e-6, "eps");
    set_pattern(p, "ln.scale", 1, 1, 0);
    set_pattern(p, "ln.bias", 2, 1, 0);
    set_pattern(p, "rms.scale", 3, 1, 0);
    l.eps = r.eps = 0.01; /* large enough to be seen */
    mb_tensor x = pattern(mb, MB_SHAPE(2, 3, D), 4, 2, 1), y = mb_layer_norm_apply(l, x),
              z = mb_rms_norm_apply(r, x);
    const double *xv = values(x), *yv = values(y), *zv = values(z), *s = values(l.scale), *b = values(l.bias),
                 *t = values(r.scale);
    for (int row = 0; row < ROWS; row++) {
        double mean = 0, variance = 0, squares = 0;
        for (int i = 0; i < D; i++) {
            mean += xv[row * D + i] / D;
            squares += xv[row * D + i] * xv[row * D + i] / D;
        }
        for (int i = 0; i < D; i++)
            variance += (xv[row * D + i] - mean) * (xv[row * D + i] - mean) / D;
        for (int i = 0; i < D; i++) {
            double v = xv[row * D + i], ln = (v - mean) / sqrt(variance + 0.01) * s[i] + b[i];
            expect(near(yv[row * D + i], ln, 1e-12, 1e-13), "%s: layer norm %g, not %g", backend,
                   yv[row * D + i], ln);
            expect(near(zv[row * D + i], v / sqrt(squares + 0.01) * t[i], 1e-12, 1e-13), "%s: rms norm",
                   backend);
        }
    }
    mb_tensor none = {0};
    expect_close(mb_layer_normalize(x, none, none, 0.01), mb_div(mb_sub(y, l.bias), l.scale), 1e-12,
                 "without scale");
    expect_close(mb_rms_normalize(x, none, 0.01), mb_div(z, r.scale), 1e-12, "rms without scale");
    /* A constant row has variance 0: finite derivatives of order 2. */
    mb_tensor flat = mb_from(mb, MB_FLOAT64, MB_SHAPE(D), (double[]){3, 3, 3, 3, 3}), g, h;
    mb_grad(mb_sum(mb_square(mb_layer_normalize(flat, l.scale, l.bias, 1e-6)), MB_ALL), &flat, 1, &g);
    mb_grad(mb_sum(mb_square(g), MB_ALL), &flat, 1, &h);
    expect(isfinite(norm2(g)) && isfinite(norm2(h)), "a constant row");
    mb_params_free(p);
    close_all();
}

Test(parts, norms)
{
    for (int i = 0; i < 2; i++)
        norms(backend_names[i]);
}

static void perceptron(const char *backend)
{
    mb_context *mb = open_on(backend);
    mb_params *p = mb_params_new_with(mb, 1, MB_FLOAT64);
    mb_mlp f = mb_mlp_new(p, "mlp", 3, 5);
    static const char *const names[] = {"mlp.up.weight", "mlp.up.bias", "mlp.down.weight", "mlp.down.bias"};
    for (int i = 0; i < 4; i++) {
        expect(strcmp(mb_params_name(p, i), names[i]) == 0, "%s", mb_params_name(p, i));
        expect(mb_params_decays(p, i) == (i % 2 == 0), "kernels decay, biases do not");
        set_pattern(p, names[i], i, 1, 0);
    }
    mb_tensor x = pattern(mb, MB_SHAPE(4, 3), 9, 1, 0), y = mb_mlp_apply(f, x);
    const double *xv = values(x), *yv = values(y), *w = values(f.up.weight), *b = values(f.up.bias),
                 *u = values(f.down.weight), *c = values(f.down.bias);
    for (int row = 0; row < 4; row++) {
        double hidden[5];
        for (int i = 0; i < 5; i++) {
            double z = b[i];
            for (int k = 0; k < 3; k++)
                z += xv[row * 3 + k] * w[i * 3 + k];
            hidden[i] = 0.5 * z * (1 + tanh(sqrt(2 / acos(-1)) * (z + 0.044715 * z * z * z)));
        }
        for (int i = 0; i < 3; i++) {
            double want = c[i];
            for (int k = 0; k < 5; k++)
                want += hidden[k] * u[i * 5 + k];
            expect(near(yv[row * 3 + i], want, 1e-12, 1e-13), "%s: %g, not %g", backend, yv[row * 3 + i],
                   want);
        }
    }
    mb_params_free(p);
    close_all();
}

Test(parts, perceptron)
{
    for (int i = 0; i < 2; i++)
        perceptron(backend_names[i]);
}

/* ---- initial values ---- */

static void expect_uniform(mb_tensor t, double bound, const char *what)
{
    const double *v = values(t);
    int64_t n = mb_count(t);
    double most = 0, mean = 0, squares = 0;
    for (int64_t i = 0; i < n; i++) {
        most = fmax(most, fabs(v[i]));
        mean += v[i] / (double)n;
        squares += v[i] * v[i] / (double)n;
    }
    expect(most <= bound && most > 0.98 * bound, "%s: largest %g of %g", what, most, bound);
    expect(fabs(mean) < 4 * bound / sqrt(3 * (double)n), "%s: mean %g", what, mean);
    expect(near(squares, bound * bound / 3, 0.1, 0), "%s: variance %g, not %g", what, squares,
           bound * bound / 3);
}

Test(parts, initial_values)
{
    mb_context *mb = open_on("cpu");
    mb_params *p = mb_params_new(mb, 11);
    mb_linear f = mb_linear_new(p, "f", 64, 32);
    expect_uniform(f.weight, sqrt(6.0 / 96), "linear: xavier");
    expect(norm2(f.bias) == 0, "bias");
    mb_attention a = mb_attention_new(p, "a", (mb_attention_options){.dim = 48, .heads = 3});
    expect_uniform(a.qkv.weight, sqrt(6.0 / 96), "attention: xavier of (D, D)");
    expect_uniform(a.out.weight, sqrt(6.0 / 96), "attention, out");
    mb_ttt_new(p, "t", (mb_ttt_options){.dim = 64, .heads = 2, .learner = MB_LEARNER_MLP});
    static const char *const views[] = {"t.psi_k", "t.phi_k", "t.g_k", "t.h_k"};
    for (int i = 0; i < 4; i++)
        expect_uniform(mb_params_get(p, views[i]), sqrt(3.0 / 64), views[i]);
    expect_uniform(mb_params_get(p, "t.W1"), sqrt(6.0 / (5 * 32)), "W1: xavier per head");
    expect_uniform(mb_params_get(p, "t.W2"), sqrt(6.0 / (5 * 32)), "W2: xavier per head");
    mb_embedding e = mb_embedding_new(p, "e", 100, 50);
    expect(near(norm2(e.weight) / sqrt(5000), 0.02, 0.05, 0), "embedding: %g", norm2(e.weight) / sqrt(5000));
    mb_mlp m = mb_mlp_new(p, "m", 40, 400);
    expect(near(norm2(m.up.bias) / 20, 1e-6, 0.15, 0), "biases of the perceptron: %g", norm2(m.up.bias) / 20);

    /* A value depends on the seed and the full name alone. */
    mb_params *q = mb_params_new(mb, 11), *r = mb_params_new(mb, 12);
    mb_linear_new(q, "before", 5, 5);
    mb_linear again = mb_linear_new(q, "f", 64, 32), other = mb_linear_new(r, "f", 64, 32);
    expect_close(again.weight, f.weight, 0, "the same seed and name");
    expect(norm2(mb_sub(other.weight, f.weight)) > 1, "another seed");
    mb_params_free(p);
    mb_params_free(q);
    mb_params_free(r);
    close_all();
}

Test(parts, mistakes)
{
    mb_context *mb = open_on("cpu");
    mb_params *p = mb_params_new(mb, 1);
    mb_linear f = mb_linear_new(p, "f", 4, 3);
    mb_layer_norm n = mb_layer_norm_new(p, "n", 4);
    mb_rms_norm r = mb_rms_norm_new(p, "r", 4);
    mb_embedding e = mb_embedding_new(p, "e", 4, 3);
    int made = mb_params_count(p);
    mb_tensor narrow = mb_zeros(mb, MB_FLOAT32, MB_SHAPE(2, 1)),
              right = mb_zeros(mb, MB_FLOAT32, MB_SHAPE(2, 4));
    for (int i = 0; i < 12; i++) {
        mb_tensor y = {0};
        switch (i) {
        case 0:
            mb_linear_new(p, "a", 0, 3);
            break;
        case 1:
            mb_layer_norm_new(p, "b", 0);
            break;
        case 2:
            mb_rms_norm_new(p, "c", -1);
            break;
        case 3:
            mb_embedding_new(p, "d", 0, 3);
            break;
        case 4:
            mb_mlp_new(p, "f", 4, 4); /* f.up is free, so one more is made: not counted below */
            mb_linear_new(p, "f", 4, 3);
            break;
        case 5:
            y = mb_linear_apply(f, narrow);
            break;
        case 6:
            y = mb_layer_norm_apply(n, narrow); /* would broadcast */
            break;
        case 7:
            y = mb_rms_norm_apply(r, narrow);
            break;
        case 8:
            y = mb_embedding_apply(e, right); /* float ids */
            break;
        case 9:
            y = mb_linear_apply(f, mb_cast(right, MB_FLOAT64));
            break;
        case 10:
            y = mb_linear_apply((mb_linear){0}, right);
            break;
        default:
            y = mb_linear_apply(f, mb_zeros(mb, MB_FLOAT32, MB_SHAPE0));
        }
        expect(mb_error(mb) == MB_INVALID && strstr(mb_message(mb), "parts_test.c"), "mistake %d: %s", i,
               mb_message(mb));
        expect(!mb_valid(y), "mistake %d gives a tensor", i);
        mb_clear_error(mb);
        if (i < 4)
            expect(mb_params_count(p) == made, "mistake %d made parameters", i);
    }
    /* An x of an earlier error is passed on, and the first message stays. */
    mb_tensor bad = mb_linear_apply(f, narrow);
    char first[400];
    snprintf(first, sizeof first, "%s", mb_message(mb));
    expect(!mb_valid(mb_layer_norm_apply(n, mb_linear_apply(f, bad))), "passed on");
    expect(strcmp(first, mb_message(mb)) == 0, "%s became %s", first, mb_message(mb));
    mb_clear_error(mb);
    mb_params_free(p);
    close_all();
}

/* A weight that was filled in by hand: all of its axes are told. */
Test(parts, linear_with_a_weight_of_three_axes)
{
    mb_context *mb = open_on("cpu");
    mb_linear l = {.weight = mb_zeros(mb, MB_FLOAT32, MB_SHAPE(25, 3, 4))};
    expect(!mb_valid(mb_linear_apply(l, mb_zeros(mb, MB_FLOAT32, MB_SHAPE(7, 3)))), "a weight of three axes");
    expect(strstr(mb_message(mb), "parts_test.c:") &&
               strstr(mb_message(mb), "x is [7,3], weight is [25,3,4]"),
           "%s", mb_message(mb));
    mb_clear_error(mb);
    l.weight = mb_zeros(mb, MB_FLOAT32, MB_SHAPE(5, 3));
    expect(!mb_valid(mb_linear_apply(l, mb_zeros(mb, MB_FLOAT32, MB_SHAPE(2, 2, 4)))), "4 values for 3");
    expect(strstr(mb_message(mb), "x is [2,2,4], weight is [5,3]"), "%s", mb_message(mb));
    mb_clear_error(mb);
    close_all();
}
