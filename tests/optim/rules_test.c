/* SPDX-License-Identifier: MIT
 *
 * rules_test.c - update rules and clipping as differentiable functions: values against the host, gradients
 * through several steps against differences (the rate included), and the points where a square root is of
 * zero. */
#include "support.h"

/* The learner: minimise sum(a (w - c)^2)/2 + w^4/12 over w [3], K steps. All of w0, lr, a are differentiated
 * with respect to. */
enum { D = 3, K = 4 };
typedef enum rule { SGD, MOMENTUM, NESTEROV, ADAM, CLIPPED, RULES } rule;

/* all: w0 [3], lr [1], a [3] in one vector of 7. -> 0-d: sum of w_K^2 weighted */
static mb_tensor after_steps(mb_tensor all, rule r)
{
    mb_context *mb = all.ctx;
    mb_tensor w = mb_slice(all, 0, 0, D, 1), lr = mb_slice(all, 0, D, 1, 1),
              a = mb_slice(all, 0, D + 1, D, 1);
    mb_tensor c = from_doubles(mb, MB_FLOAT64, MB_SHAPE(D), (double[]){0.5, -1, 2});
    mb_tensor m = mb_zeros(mb, MB_FLOAT64, MB_SHAPE(D)), v = m;
    const mb_adam_options options = {.beta1 = 0.8, .beta2 = 0.9, .eps = 1e-6};
    for (int t = 1; t <= K; t++) {
        mb_tensor quadratic = mb_mul(mb_dot(a, mb_square(mb_sub(w, c))), 0.5), g;
        mb_tensor loss = mb_add(quadratic, mb_mul(mb_sum(mb_square(mb_square(w)), MB_ALL), 1.0 / 12));
        mb_grad(loss, &w, 1, &g);
        if (r == CLIPPED)
            mb_clip_norm(&g, 1, 0.3, &g);
        if (r == SGD || r == CLIPPED)
            w = mb_sgd_update(w, g, lr);
        else if (r == ADAM)
            w = mb_adam_update(w, g, lr, m, v, t, &options, &m, &v);
        else
            w = mb_momentum_update(w, g, lr, m, 0.7, r == NESTEROV, &m);
    }
    return mb_dot(w, mb_mul(w, c));
}

static void host_steps(const double all[2 * D + 1], rule r, double w[D])
{
    static const double c[D] = {0.5, -1, 2};
    double m[D] = {0}, v[D] = {0}, lr = all[D];
    const double *a = all + D + 1;
    memcpy(w, all, D * sizeof *w);
    for (int t = 1; t <= K; t++) {
        double g[D], norm = 0;
        for (int i = 0; i < D; i++) {
            g[i] = a[i] * (w[i] - c[i]) + w[i] * w[i] * w[i] / 3;
            norm += g[i] * g[i];
        }
        for (int i = 0; i < D; i++) {
            if (r == CLIPPED)
                g[i] *= 0.3 / fmax(sqrt(norm), 0.3);
            if (r == ADAM) {
                m[i] = 0.8 * m[i] + 0.2 * g[i];
                v[i] = 0.9 * v[i] + 0.1 * g[i] * g[i];
                w[i] -= lr * m[i] / (1 - pow(0.8, t)) / (sqrt(v[i] / (1 - pow(0.9, t))) + 1e-6);
            } else if (r == SGD || r == CLIPPED) {
                w[i] -= lr * g[i];
            } else {
                m[i] = 0.7 * m[i] + g[i];
                w[i] -= lr * (r == NESTEROV ? g[i] + 0.7 * m[i] : m[i]);
            }
        }
    }
}

static void through_steps(const char *backend)
{
    static const double c[D] = {0.5, -1, 2};
    double x[2 * D + 1] = {1.5, 0.4, -0.8, 0.1, 1, 2, 0.5};
    mb_context *mb = open_on(backend);
    mb_tensor all = mb_variable(mb, MB_FLOAT64, MB_SHAPE(2 * D + 1));
    for (rule r = SGD; r < RULES; r++) {
        mb_assign(all, mb_from(mb, MB_FLOAT64, MB_SHAPE(2 * D + 1), x));
        mb_tensor y = after_steps(all, r), g, h;
        double w[D], want = 0;
        host_steps(x, r, w);
        for (int i = 0; i < D; i++)
            want += c[i] * w[i] * w[i];
        expect(near(mb_item(y), want, 1e-12, 0), "rule %d on %s: %.15g, not %.15g", (int)r, backend,
               mb_item(y), want);

        mb_grad(y, &all, 1, &g);
        mb_grad(mb_sum(g, MB_ALL), &all, 1, &h);
        const double *gv = values(g), *hv = values(h);
        for (int i = 0; i < 2 * D + 1; i++) {
            const double step = 1e-5, was = x[i];
            double side[2], slope[2];
            for (int s = 0; s < 2; s++) {
                x[i] = was + (s ? step : -step);
                mb_assign(all, mb_from(mb, MB_FLOAT64, MB_SHAPE(2 * D + 1), x));
                mb_tensor z = after_steps(all, r), d;
                mb_grad(z, &all, 1, &d);
                side[s] = mb_item(z);
                slope[s] = mb_item(mb_sum(d, MB_ALL));
            }
            x[i] = was;
            expect(near((side[1] - side[0]) / (2 * step), gv[i], 1e-7, 1e-7),
                   "rule %d on %s: gradient %d is %g, not %g", (int)r, backend, i, gv[i],
                   (side[1] - side[0]) / (2 * step));
            expect(near((slope[1] - slope[0]) / (2 * step), hv[i], 1e-6, 1e-6),
                   "rule %d on %s: order 2, %d: %g, not %g", (int)r, backend, i, hv[i],
                   (slope[1] - slope[0]) / (2 * step));
        }
    }
    close_all();
}

Test(rules, gradients_through_steps)
{
    for (int i = 0; i < 2; i++)
        through_steps(backend_names[i]);
}

/* Where a gradient is exactly zero, Adam's step and its derivatives of order 1 and 2 are finite. */
Test(rules, adam_at_zero)
{
    mb_context *mb = open_on("cpu");
    mb_tensor w = mb_from(mb, MB_FLOAT64, MB_SHAPE(2), (double[]){0, 1}),
              zero = mb_zeros(mb, MB_FLOAT64, MB_SHAPE(2));
    mb_tensor lr = mb_scalar(mb, MB_FLOAT64, 0.1), m, v, g, first, second;
    mb_grad(mb_mul(mb_dot(w, w), 0.5), &w, 1, &g);
    mb_tensor y = mb_adam_update(w, g, lr, zero, zero, 1, NULL, &m, &v);
    mb_grad(y, &w, 1, &first);
    mb_grad(mb_dot(first, first), &w, 1, &second);
    const double *yv = values(y), *f = values(first), *s = values(second);
    expect(yv[0] == 0 && near(yv[1], 0.9, 1e-8, 0), "%g %g", yv[0], yv[1]);
    expect(isfinite(f[0]) && isfinite(s[0]), "%g %g", f[0], s[0]);
    expect(near(f[1], 1, 1e-7, 0),
           "the direction of the first step is the sign: d/dw (w - lr sign) = 1, got %g", f[1]);
    close_all();
}

Test(rules, clipping)
{
    mb_context *mb = open_on("cpu");
    mb_tensor g[2] = {mb_from(mb, MB_FLOAT64, MB_SHAPE(2), (double[]){3, 0}),
                      mb_from(mb, MB_FLOAT64, MB_SHAPE(1, 1), (double[]){-4})},
              c[2];
    expect(near(mb_item(mb_global_norm(g, 2)), 5, 1e-15, 0), "norm");
    mb_tensor norm = mb_clip_norm(g, 2, 2.5, c);
    expect(near(mb_item(norm), 5, 1e-15, 0) && near(values(c[0])[0], 1.5, 1e-15, 0), "scaled to 2.5");
    expect(near(values(c[1])[0], -2, 1e-15, 0) && same_shape(mb_shape_of(c[1]), MB_SHAPE(1, 1)),
           "shapes stay");
    mb_clip_norm(g, 2, 6, c);
    expect(values(c[0])[0] == 3 && values(c[1])[0] == -4, "below the limit nothing changes, bit for bit");
    mb_tensor d = mb_clip_value(mb_from(mb, MB_FLOAT64, MB_SHAPE(3), (double[]){-9, 0.5, 9}), 1), none = {0};
    expect(values(d)[0] == -1 && values(d)[1] == 0.5 && values(d)[2] == 1, "by element");
    mb_tensor e = mb_from(mb, MB_FLOAT64, MB_SHAPE(3), (double[]){-9, 0.5, 1}), de;
    mb_grad(mb_clip_value(e, 1), &e, 1, &de);
    expect(values(de)[0] == 0 && values(de)[1] == 1 && values(de)[2] == 0.5, "derivative by element");

    /* All zero: norm and derivatives are 0, and clipping is the identity. */
    mb_tensor z = mb_from(mb, MB_FLOAT64, MB_SHAPE(2), (double[]){0, 0}), slope;
    norm = mb_clip_norm(&z, 1, 1, c);
    mb_grad(norm, &z, 1, &slope);
    expect(mb_item(norm) == 0 && values(slope)[0] == 0, "norm at zero");
    mb_grad(c[0], &z, 1, &slope);
    expect(values(slope)[0] == 1 && values(slope)[1] == 1, "clipping at zero");
    /* NaN is told, not hidden. */
    mb_tensor bad = mb_from(mb, MB_FLOAT64, MB_SHAPE(2), (double[]){NAN, 1});
    expect(isnan(mb_item(mb_clip_norm(&bad, 1, 1, c))) && isnan(values(c[0])[0]), "NaN");
    mb_clip_norm(&z, 1, 0, c);
    expect(mb_error(mb) == MB_INVALID, "a limit of 0");
    mb_clear_error(mb);
    expect(!mb_sgd_update(none, none, none).ctx, "no tensors");
    close_all();
}

/* A rate per row broadcasts. */
Test(rules, rate_per_row)
{
    mb_context *mb = open_on("cpu");
    mb_tensor w = mb_ones(mb, MB_FLOAT64, MB_SHAPE(2, 3)),
              lr = mb_from(mb, MB_FLOAT64, MB_SHAPE(2, 1), (double[]){1, 0.5});
    mb_tensor m, v, zero = mb_zeros(mb, MB_FLOAT64, MB_SHAPE(2, 3));
    expect(values(mb_sgd_update(w, w, lr))[5] == 0.5, "sgd");
    expect(values(mb_momentum_update(w, w, lr, zero, 0.9, false, &m))[5] == 0.5 && values(m)[0] == 1,
           "momentum");
    expect(near(values(mb_adam_update(w, w, lr, zero, zero, 1, NULL, &m, &v))[3], 0.5, 1e-7, 0), "adam");
    mb_adam_update(w, w, lr, zero, zero, 0, NULL, &m, &v);
    expect(mb_error(mb) == MB_INVALID, "steps count from 1");
    mb_clear_error(mb);
    close_all();
}
