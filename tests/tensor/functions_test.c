/* SPDX-License-Identifier: MIT
 * functions_test.c - the values of the common functions against their formulas, in both float dtypes. */
#include "support.h"

static double square(double x)
{
    return x * x;
}
static double relu(double x)
{
    return x > 0 ? x : 0;
}
static double silu(double x)
{
    return x / (1 + exp(-x));
}
static double softplus(double x)
{
    return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x));
}
static double elu(double x)
{
    return x > 0 ? x : expm1(x);
}
static double gelu(double x) /* 1606.08415, section 2 */
{
    return 0.5 * x * (1 + tanh(sqrt(2 / acos(-1.0)) * (x + 0.044715 * x * x * x)));
}
static double gelu_erf(double x)
{
    return 0.5 * x * (1 + erf(x / sqrt(2.0)));
}

static const struct {
    const char *name;
    mb_tensor (*f)(const char *, mb_tensor);
    double (*plain)(double);
} rows[] = {{"square", mb_square_at, square},       {"relu", mb_relu_at, relu}, {"silu", mb_silu_at, silu},
            {"softplus", mb_softplus_at, softplus}, {"elu", mb_elu_at, elu},    {"gelu", mb_gelu_at, gelu},
            {"gelu_erf", mb_gelu_erf_at, gelu_erf}};

Test(functions, elementwise_formulas)
{
    for (int k = 0; k < 2; k++) {
        mb_context *ctx = open_on(backend_names[k]);
        for (int d = 0; d < 2; d++)
            for (int f = 0; f < (int)(sizeof rows / sizeof *rows); f++) {
                rng r = {(uint64_t)f};
                mb_tensor x = draw(ctx, &r, (mb_dtype)d, MB_SHAPE(501), -9, 9);
                double *v = values(x), *y = values(rows[f].f(MB_HERE, x));
                for (int i = 0; i < 501; i++) /* the left tails cancel: absolute there */
                    expect(near(y[i], rows[f].plain(v[i]), d ? 1e-13 : 3e-6, d ? 1e-15 : 1e-6),
                           "%s(%.9g) %s on %s: %.17g, not %.17g", rows[f].name, v[i],
                           mb_dtype_name((mb_dtype)d), backend_names[k], y[i], rows[f].plain(v[i]));
            }
        close_all();
    }
}

Test(functions, softmax_and_cross_entropy)
{
    for (int k = 0; k < 2; k++) {
        mb_context *ctx = open_on(backend_names[k]);
        for (int d = 0; d < 2; d++) {
            rng r = {3};
            enum { ROWS = 12, N = 7 };
            mb_tensor x = draw(ctx, &r, (mb_dtype)d, MB_SHAPE(3, 4, N), -5, 5);
            mb_tensor labels = draw(ctx, &r, MB_INT32, MB_SHAPE(3, 4), 0, N);
            double *v = values(x), *l = values(labels), *s = values(mb_softmax(x, -1)),
                   *ls = values(mb_log_softmax(x, 2));
            double *across = values(mb_softmax(mb_transpose(x), 1)),
                   *lse = values(mb_logsumexp(x, MB_AXES(-1)));
            double loss = 0, t = d ? 1e-14 : 2e-6;
            for (int row = 0; row < ROWS; row++) {
                double sum = 0;
                for (int i = 0; i < N; i++)
                    sum += exp(v[row * N + i]);
                expect(near(lse[row], log(sum), t, t), "logsumexp: %g, not %g", lse[row], log(sum));
                for (int i = 0; i < N; i++) {
                    double p = exp(v[row * N + i]) / sum;
                    expect(near(s[row * N + i], p, 4 * t, t), "softmax: %g, not %g", s[row * N + i], p);
                    expect(near(ls[row * N + i], log(p), t, 4 * t), "log_softmax: %g, not %g",
                           ls[row * N + i], log(p));
                    expect(near(across[row / 4 * 28 + i * 4 + row % 4], p, 4 * t, t),
                           "softmax over another axis");
                }
                loss -= (v[row * N + (int)l[row]] - log(sum)) / ROWS;
            }
            double got = mb_item(mb_cross_entropy(x, labels));
            expect(near(got, loss, 2 * t, 0), "cross_entropy: %.15g, not %.15g", got, loss);
            mb_tensor m = mb_reshape(x, MB_SHAPE(84));
            double dot = 0;
            for (int i = 0; i < 84; i++)
                dot += v[i] * v[i];
            expect(near(mb_item(mb_dot(m, m)), dot, 4 * t, 0), "dot: %.15g, not %.15g", mb_item(mb_dot(m, m)),
                   dot);
        }
        close_all();
    }
}
