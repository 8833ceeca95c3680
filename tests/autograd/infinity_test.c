/* SPDX-License-Identifier: MIT
 *
 * infinity_test.c - the common functions at infinity and where powers of their argument overflow: values and
 * two orders of derivative have their limits, in both float dtypes. */
#include "support.h"

#define INF ((double)INFINITY)
#define ON_BOTH                                                                                              \
    for (int k = 0; k < 2; k++)                                                                              \
        for (mb_context *ctx = open_on(backend_names[k]); ctx; ctx = NULL, close_all())

static mb_tensor grad(mb_tensor y, mb_tensor x)
{
    mb_tensor g;
    mb_grad(y, &x, 1, &g);
    return g;
}

/* Like == but that NaN equals NaN. */
static void expect_exactly(const char *what, mb_tensor t, const double *want)
{
    double *got = values(t);
    for (int i = 0; i < mb_count(t); i++)
        expect(near(got[i], want[i], 0, 0), "%s on %s in %s: [%d] is %.17g, not %.17g", what,
               mb_backend_name(t.ctx), mb_dtype_name(mb_dtype_of(t)), i, got[i], want[i]);
}

/* ---- of one argument: limits at -infinity and infinity, which they have reached at `far`, too ---- */

static const struct {
    const char *name;
    mb_tensor (*f)(const char *, mb_tensor);
    double low, low_slope; /* at -infinity */
    bool grows;            /* as x at infinity; otherwise towards 1 */
} rows[] = {
    {"relu", mb_relu_at, 0, 0, true},         {"silu", mb_silu_at, 0, 0, true},
    {"softplus", mb_softplus_at, 0, 0, true}, {"elu", mb_elu_at, -1, 0, true},
    {"gelu", mb_gelu_at, 0, 0, true},         {"gelu_erf", mb_gelu_erf_at, 0, 0, true},
    {"sigmoid", mb_sigmoid_at, 0, 0, false},  {"tanh", mb_tanh_at, -1, 0, false},
};

Test(infinity, of_one_argument)
{
    ON_BOTH
    for (int d = 0; d < 2; d++)
        for (size_t f = 0; f < sizeof rows / sizeof *rows; f++) {
            const double far = d ? 1e200 : 1e30, at[4] = {-INF, -far, far, INF};
            mb_tensor x = from_doubles(ctx, (mb_dtype)d, MB_SHAPE(4), at), y = rows[f].f(MB_HERE, x);
            double *v = values(x), low = rows[f].low, slope = rows[f].grows;
            expect_exactly(rows[f].name, y, (double[]){low, low, slope ? v[2] : 1, slope ? INF : 1});
            expect_exactly(rows[f].name, grad(y, x), (double[]){0, 0, slope, slope});
            mb_tensor second = grad(grad(y, x), x);
            expect_exactly(rows[f].name, second, (double[]){0, 0, 0, 0});
            expect_exactly(rows[f].name, grad(grad(second, x), x), (double[]){0, 0, 0, 0});
            mb_tensor t, one = mb_ones(ctx, (mb_dtype)d, MB_SHAPE(4));
            mb_jvp(&y, 1, &x, &one, 1, &t);
            expect_exactly(rows[f].name, t, (double[]){0, 0, slope, slope});
        }
}

/* Of arc tangent and inverse hyperbolic functions, whose slopes 1 / (1 + x^2) and 1 / x themselves have their
 * limits. */
Test(infinity, of_inverse_functions)
{
    ON_BOTH
    for (int d = 0; d < 2; d++) {
        const double far = d ? 1e200 : 1e30, slope = 1 / (d ? far : (double)(float)far),
                     eps = d ? 1e-15 : 1e-6;
        mb_tensor x = from_doubles(ctx, (mb_dtype)d, MB_SHAPE(4), (double[]){-INF, -far, far, INF});
        mb_tensor y = mb_atan(x), size = mb_abs(x);
        for (int i = 0; i < 4; i++)
            expect(near(values(y)[i], (i < 2 ? -1 : 1) * acos(0.0), eps, 0), "atan: %g", values(y)[i]);
        for (int order = 0; order < 3; order++)
            expect_exactly("atan's slopes", y = grad(y, x), (double[]){0, 0, 0, 0});
        for (int f = 0; f < 2; f++) {
            mb_tensor t = f ? size : x, g = grad(f ? mb_acosh(size) : mb_asinh(x), t), h = grad(g, t);
            const double *v = values(g), *w = values(h), *u = values(grad(h, t));
            for (int i = 0; i < 4; i++)
                expect(near(v[i], i % 3 ? slope : 0, eps, 0) && near(w[i], 0, 0, 1e-37) &&
                           near(u[i], 0, 0, 1e-37),
                       "%s at %g: slopes %g, %g, %g", f ? "acosh" : "asinh", values(t)[i], v[i], w[i], u[i]);
        }
        mb_tensor one = mb_ones(ctx, (mb_dtype)d, MB_SHAPE(4)), g[2];
        mb_grad(mb_atan2(x, one), (mb_tensor[]){x, one}, 2, g);
        expect_exactly("atan2 by the infinite one", mb_slice(g[0], 0, 0, 2, 3), (double[]){0, 0});
        expect_exactly("atan2 by the finite one", mb_slice(g[1], 0, 0, 2, 3), (double[]){0, 0});
    }
}

/* ---- x times a gate, of which the formula is left beyond bounds: closed forms from there to here ---- */

/* With p(0) .. p(2), a gate and its derivatives, x p(0) has p(0) + x p(1) and 2 p(1) + x p(2). */
static void silu_gate(double x, double p[3])
{
    double s = 1 / (1 + exp(-x));
    p[0] = s;
    p[1] = s * (1 / (1 + exp(x)));
    p[2] = p[1] * (1 - 2 * s);
}
static void gelu_gate(double x, double p[3])
{
    const double k = 2 * sqrt(2 / acos(-1.0)), c = 0.044715;
    double q[3], z1 = k * (1 + 3 * c * x * x), z2 = k * 6 * c * x;
    silu_gate(k * (x + c * x * x * x), q);
    p[0] = q[0];
    p[1] = q[1] * z1;
    p[2] = q[2] * z1 * z1 + q[1] * z2;
}
static void gelu_erf_gate(double x, double p[3])
{
    p[0] = erfc(-x / sqrt(2.0)) / 2;
    p[1] = exp(-x * x / 2) / sqrt(2 * acos(-1.0));
    p[2] = -x * p[1];
}

static const struct {
    const char *name;
    mb_tensor (*f)(const char *, mb_tensor);
    void (*gate)(double x, double p[3]);
} gates[] = {{"silu", mb_silu_at, silu_gate},
             {"gelu", mb_gelu_at, gelu_gate},
             {"gelu_erf", mb_gelu_erf_at, gelu_erf_gate}};

Test(infinity, gates)
{
    enum { N = 1201 };
    ON_BOTH
    for (int d = 0; d < 2; d++)
        for (size_t f = 0; f < sizeof gates / sizeof *gates; f++) {
            const double eps = d ? 2.3e-16 : 1.2e-7;
            double at[N];
            for (int i = 0; i < N; i++) /* exact in float32; every bound but silu's lies between */
                at[i] = (i - N / 2) * 0.125;
            mb_tensor x = from_doubles(ctx, (mb_dtype)d, MB_SHAPE(N), at), y = gates[f].f(MB_HERE, x);
            mb_tensor g = grad(y, x);
            const double *v = values(y), *first = values(g), *second = values(grad(g, x));
            for (int i = 0; i < N; i++) {
                /* Exponents come to some hundreds before nothing is left, and are off by as many roundings.
                 * To the right, 1 - sigmoid is off by one, which is multiplied by slopes of the exponent. */
                double p[3], a = at[i], z = fabs(a) < 8 ? fabs(a) : 8, t = 2000 * eps, least = 16 * eps;
                gates[f].gate(a, p);
                expect(near(v[i], a * p[0], t, least), "%s(%g) is %.17g", gates[f].name, a, v[i]);
                expect(near(first[i], p[0] + a * p[1], t, least * (1 + z * z * z)),
                       "%s'(%g) is %.17g, not %.17g", gates[f].name, a, first[i], p[0] + a * p[1]);
                expect(near(second[i], 2 * p[1] + a * p[2], t, least * (1 + pow(z, 5))),
                       "%s''(%g) is %.17g, not %.17g", gates[f].name, a, second[i], 2 * p[1] + a * p[2]);
            }
            mb_tensor nan = from_doubles(ctx, (mb_dtype)d, MB_SHAPE(1), &(double){(double)NAN});
            mb_tensor of_nan = gates[f].f(MB_HERE, nan);
            expect(isnan(mb_item(of_nan)) && isnan(mb_item(grad(of_nan, nan))), "%s of NaN", gates[f].name);
        }
}

/* ---- along an axis ---- */

/* Rows: nothing but -infinity; one infinity; two; a finite row with -infinity in it. */
enum { ROWS = 4, WIDTH = 3 };
static const double rows_at[ROWS * WIDTH] = {-INF, -INF, -INF, INF, 1, -INF, INF, 2, INF, 0, -INF, 0};

Test(infinity, along_an_axis)
{
    const double nan = (double)NAN;
    ON_BOTH
    for (int d = 0; d < 2; d++) {
        mb_tensor x = from_doubles(ctx, (mb_dtype)d, MB_SHAPE(ROWS, WIDTH), rows_at);
        double ln2 = d ? log(2.0) : (double)(float)log(2.0);
        mb_tensor y = mb_logsumexp(x, MB_AXES(1));
        const double *sum = values(y), *p = values(mb_softmax(x, 1)), *l = values(mb_log_softmax(x, 1));
        expect(sum[0] == -INF && sum[1] == INF && sum[2] == INF && near(sum[3], ln2, 1e-6, 0),
               "logsumexp %g %g %g %g", sum[0], sum[1], sum[2], sum[3]);
        const double share[ROWS * WIDTH] = {nan, nan, nan, 1, 0, 0, 0.5, 0, 0.5, 0.5, 0, 0.5};
        for (int i = 0; i < ROWS * WIDTH; i++) {
            expect(near(p[i], share[i], 1e-6, 0), "softmax[%d] is %g, not %g", i, p[i], share[i]);
            expect(near(l[i], log(share[i]), 1e-6, 0), "log_softmax[%d] is %g, not %g", i, l[i],
                   log(share[i]));
        }
        /* No weight, no derivative; and in a row of nothing there is no weight. */
        const double slope[ROWS * WIDTH] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0.5, 0, 0.5};
        mb_tensor g = grad(y, x);
        const double *gs = values(g), *h = values(grad(mb_mul(g, mb_iota(ctx, (mb_dtype)d, WIDTH)), x));
        for (int i = 0; i < ROWS * WIDTH; i++) {
            expect(near(gs[i], slope[i], 1e-6, 0), "logsumexp'[%d] is %g, not %g", i, gs[i], slope[i]);
            /* sum_j j p_i (delta_ij - p_j) = p_i (i - 1) with p = (1/2, 0, 1/2) */
            double want = slope[i] * (i % WIDTH - 1);
            expect(near(h[i], want, 1e-6, 1e-7), "logsumexp''[%d] is %g, not %g", i, h[i], want);
        }
        mb_tensor nothing = mb_zeros(ctx, (mb_dtype)d, MB_SHAPE(2, 0));
        expect_exactly("logsumexp of nothing", mb_logsumexp(nothing, MB_AXES(1)), (double[]){-INF, -INF});
        mb_tensor top = from_doubles(ctx, (mb_dtype)d, MB_SHAPE(2), (double[]){INF, nan});
        expect_exactly("logsumexp of NaN", mb_logsumexp(top, MB_ALL), &nan);
        expect_exactly("softmax of NaN", mb_softmax(top, 0), (double[]){nan, nan});
    }
}
