/* SPDX-License-Identifier: MIT
 *
 * samplers_test.c - distributions made of uniform draws: Kolmogorov and Smirnov's distance to the
 * distribution function, moments, orthogonality, Haar's measure, equality of backends, mistakes. Keys are
 * fixed: a test that passes once passes always, unless the numbers change. */
#include "support.h"

#define PI 3.14159265358979323846

#define ON_BOTH                                                                                              \
    for (int k = 0; k < 2; k++)                                                                              \
        for (mb_context *ctx = open_on(backend_names[k]); ctx; ctx = NULL, close_all())

/* ---- distribution functions, in double ---- */

/* The regularised lower incomplete gamma function P(a, x): its series below a + 1, Legendre's continued
 * fraction (by Lentz) above. */
static double gamma_cdf(double x, double a)
{
    if (x <= 0)
        return 0;
    double front = exp(-x + a * log(x) - lgamma(a));
    if (x < a + 1) {
        double term = 1 / a, sum = term;
        for (int n = 1; n < 500 && term > sum * 1e-17; n++)
            sum += term *= x / (a + n);
        return sum * front;
    }
    double b = x + 1 - a, c = 1e300, d = 1 / b, h = d;
    for (int i = 1; i < 500; i++) {
        double an = -i * (i - a);
        b += 2;
        d = 1 / (an * d + b);
        c = b + an / c;
        h *= d * c;
        if (fabs(d * c - 1) < 1e-16)
            break;
    }
    return 1 - front * h;
}

static double exponential_cdf(double x, double unused)
{
    (void)unused;
    return x > 0 ? -expm1(-x) : 0;
}

static double laplace_cdf(double x, double unused)
{
    (void)unused;
    return x < 0 ? exp(x) / 2 : 1 - exp(-x) / 2;
}

/* Of one coordinate of a point on the sphere in d = 2, 3 or 4 dimensions: density (1 - x^2)^((d - 3) / 2). */
static double coordinate_cdf(double x, double d)
{
    x = fmax(-1, fmin(1, x));
    if (d == 2)
        return 0.5 + asin(x) / PI;
    if (d == 3)
        return (1 + x) / 2;
    return 0.5 + (x * sqrt(1 - x * x) + asin(x)) / PI;
}

static double normal_cdf(double x, double unused)
{
    (void)unused;
    return erfc(-x / sqrt(2)) / 2;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* sqrt(n) times the largest distance of the empirical distribution function; 1.95 is passed with probability
 * 0.001 by draws of the right distribution. Sorts x. */
static double distance(double *x, int n, double (*cdf)(double, double), double parameter)
{
    qsort(x, (size_t)n, sizeof *x, ascending);
    double worst = 0;
    for (int i = 0; i < n; i++) {
        double p = cdf(x[i], parameter);
        worst = fmax(worst, fmax(p - (double)i / n, (double)(i + 1) / n - p));
    }
    return worst * sqrt(n);
}

/* Expects mean and variance within 5 standard errors; kurtosis: of the distribution, not the excess. */
static void expect_moments(const char *what, const double *x, int n, double mean, double variance,
                           double kurtosis)
{
    double sum = 0, square = 0;
    for (int i = 0; i < n; i++) {
        expect(isfinite(x[i]), "%s: draw %d is %g", what, i, x[i]);
        sum += x[i];
        square += (x[i] - mean) * (x[i] - mean);
    }
    double m = sum / n, v = square / n;
    expect(fabs(m - mean) < 5 * sqrt(variance / n), "%s: mean %g, not %g", what, m, mean);
    expect(fabs(v - variance) < 5 * variance * sqrt((kurtosis - 1) / n), "%s: variance %g, not %g", what, v,
           variance);
}

/* The reference backend draws in double only: it computes the same in float32. */
#define FIRST_DTYPE (k == 0 ? 1 : 0)

enum { N = 50000 };

Test(samplers, exponential_and_laplace)
{
    ON_BOTH
    {
        for (int d = FIRST_DTYPE; d < 2; d++) {
            double *e = values(mb_exponential(ctx, mb_key_of(1), (mb_dtype)d, MB_SHAPE(N))),
                   *l = values(mb_laplace(ctx, mb_key_of(2), (mb_dtype)d, MB_SHAPE(N / 10, 10)));
            expect_moments("exponential", e, N, 1, 1, 9);
            expect_moments("laplace", l, N, 0, 2, 6);
            double far = 0, lag = 0;
            for (int i = 0; i < N; i++) {
                expect(e[i] >= 0, "negative: %g", e[i]);
                far = fmax(far, fabs(l[i]));
                lag += i ? l[i] * l[i - 1] : 0;
            }
            expect(far > 8 && far < 17, "the farthest of %d is at %g", N, far); /* about log N = 11.5 */
            expect(fabs(lag) < 5 * 2 * sqrt(N), "neighbours correlate: %g", lag / N);
            double ke = distance(e, N, exponential_cdf, 0), kl = distance(l, N, laplace_cdf, 0);
            expect(ke < 1.95 && kl < 1.95, "%s %s: distance %g exponential, %g laplace", backend_names[k],
                   mb_dtype_name((mb_dtype)d), ke, kl);
        }
    }
}

/* Shapes below and above 1, where the boost ends; the scale. 0.0484 of the candidates for k = 1 are rejected:
 * a sampler that kept them would be far off at this N. */
Test(samplers, gamma)
{
    static const double shapes[] = {0.1, 0.5, 0.999, 1, 2.5, 40};
    ON_BOTH
    {
        for (int s = 0; s < 6; s++)
            for (int d = FIRST_DTYPE; d < 2; d++) {
                double a = shapes[s];
                double *g =
                    values(mb_gamma(ctx, mb_key_of((uint64_t)s + 10), (mb_dtype)d, MB_SHAPE(N), a, 10));
                for (int i = 0; i < N; i++) {
                    expect(g[i] >= 0, "Gamma(%g): %g", a, g[i]);
                    g[i] /= 10;
                }
                char what[32];
                snprintf(what, sizeof what, "Gamma(%g)", a);
                expect_moments(what, g, N, a, a, 3 + 6 / a);
                double far = distance(g, N, gamma_cdf, a);
                expect(far < 1.95, "%s on %s, %s: distance %g", what, backend_names[k],
                       mb_dtype_name((mb_dtype)d), far);
            }
    }
}

/* x^2 of a normal draw is 2 Gamma(1/2): the distribution function of the tests, and so the tests, against
 * something else. */
Test(samplers, the_yardstick_itself)
{
    for (double x = 0.01; x < 30; x *= 1.5) {
        expect(near(gamma_cdf(x, 0.5), erf(sqrt(x)), 1e-13, 0), "P(1/2, %g) = %.17g", x, gamma_cdf(x, 0.5));
        expect(near(gamma_cdf(x, 1), -expm1(-x), 1e-13, 0), "P(1, %g) = %.17g", x, gamma_cdf(x, 1));
        expect(near(gamma_cdf(x, 3), 1 - exp(-x) * (1 + x + x * x / 2), 1e-9, 1e-14), "P(3, %g)", x);
    }
    mb_context *ctx = open_on("cpu");
    double *x = values(mb_square(mb_normal(ctx, mb_key_of(3), MB_FLOAT64, MB_SHAPE(N))));
    for (int i = 0; i < N; i++)
        x[i] /= 2;
    expect(distance(x, N, gamma_cdf, 0.5) < 1.95, "normal draws are seen as such");
    expect(distance(x, N, gamma_cdf, 0.51) > 1.95, "and others are not");
    close_all();
}

/* sqrt(Gamma(d/2, 2)) times a point on the sphere is a normal vector: all parts of setting 3 of 2310.01082 in
 * one, at shape parameters where the result is known. */
Test(samplers, sphere)
{
    ON_BOTH
    {
        for (int t = FIRST_DTYPE; t < 2; t++)
            for (int d = 2; d < 5; d++) {
                mb_tensor s = mb_sphere(ctx, mb_key_of((uint64_t)d), (mb_dtype)t, MB_SHAPE(N / 50, 50, d));
                double *x = values(s), *one = malloc(N * sizeof *one), product = 0;
                mb_tensor radius =
                    mb_sqrt(mb_gamma(ctx, mb_key_of(77), (mb_dtype)t, MB_SHAPE(N / 50, 50, 1), d / 2.0, 2));
                for (int c = 0; c < d; c++) {
                    for (int i = 0; i < N; i++)
                        one[i] = x[i * d + c];
                    double far = distance(one, N, coordinate_cdf, d);
                    expect(far < 1.95, "%s %s: coordinate %d of %d: distance %g", backend_names[k],
                           mb_dtype_name((mb_dtype)t), c, d, far);
                }
                for (int i = 0; i < N; i++) {
                    double length = 0;
                    for (int c = 0; c < d; c++)
                        length += x[i * d + c] * x[i * d + c];
                    expect(fabs(length - 1) < (t ? 1e-14 : 1e-6), "row %d has length^2 %.17g", i, length);
                    product += x[i * d] * x[i * d + 1];
                }
                expect(fabs(product) < 5 * sqrt(N / (d * (d + 2.0))), "coordinates correlate: %g",
                       product / N);
                double *y = values(mb_mul(s, radius));
                expect(distance(y, N, normal_cdf, 0) < 1.95, "radius times direction is normal");
                free(one);
            }
        double *many = values(mb_sphere(ctx, mb_key_of(8), MB_FLOAT64, MB_SHAPE(30, 20)));
        for (int i = 0; i < 30; i++) {
            double length = 0;
            for (int c = 0; c < 20; c++)
                length += many[i * 20 + c] * many[i * 20 + c];
            expect(fabs(length - 1) < 1e-14, "row %d of 20 has length^2 %.17g", i, length);
        }
        for (int d = 5; d < 10; d += 4) /* nothing of nothing */
            expect(same_shape(mb_shape_of(mb_sphere(ctx, mb_key_of(8), MB_FLOAT64, MB_SHAPE(2, 0, d))),
                              MB_SHAPE(2, 0, d)),
                   "no rows of %d", d);
        double *line = values(mb_sphere(ctx, mb_key_of(9), MB_FLOAT32, MB_SHAPE(N, 1))), sum = 0;
        for (int i = 0; i < N; i++) {
            expect(line[i] == 1 || line[i] == -1, "on the line: %g", line[i]);
            sum += line[i];
        }
        expect(fabs(sum) < 5 * sqrt(N), "signs: %g", sum / N);
    }
}

/* ---- orthogonal matrices ---- */

static void orthogonality(mb_context *ctx, mb_dtype dtype, mb_shape shape, double tolerance)
{
    mb_tensor q = mb_orthogonal(ctx, mb_key_of(21), dtype, shape);
    expect(same_shape(mb_shape_of(q), shape), "%s", shape_text(mb_shape_of(q)));
    int64_t n = mb_dim(q, -1);
    mb_tensor eye = mb_eye(ctx, dtype, n);
    for (int side = 0; side < 2; side++) {
        mb_tensor p = side ? mb_matmul(q, mb_transpose(q)) : mb_matmul(mb_transpose(q), q);
        double worst = mb_count(q) ? mb_item(mb_max(mb_abs(mb_sub(p, eye)), MB_ALL)) : 0;
        expect(worst <= tolerance, "%s %s %s: off by %g", mb_backend_name(ctx), mb_dtype_name(dtype),
               shape_text(shape), worst);
    }
}

Test(samplers, orthogonal)
{
    ON_BOTH
    {
        static const mb_shape shapes[] = {{2, {1, 1}},   {2, {2, 2}},    {3, {4, 5, 5}},  {4, {2, 3, 10, 10}},
                                          {2, {40, 40}}, {3, {0, 3, 3}}, {3, {500, 3, 3}}};
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            orthogonality(ctx, MB_FLOAT64, shapes[i], 1e-14 * (double)shapes[i].dim[shapes[i].rank - 1]);
            orthogonality(ctx, MB_FLOAT32, shapes[i], 4e-6 * (double)shapes[i].dim[shapes[i].rank - 1]);
        }
    }
}

/* Haar's measure on O(n): every column is uniform on the sphere, both determinants are as frequent, and
 * traces of powers have E tr Q = 0, E (tr Q)^2 = 1, E tr Q^2 = 1, E (tr Q)^4 = 3 (Diaconis and Shahshahani
 * 1994; n >= 4). QR of a normal matrix without the signs of R fails the first of these. */
Test(samplers, haar)
{
    enum { M = 20000, S = 4 };
    mb_context *ctx = open_on("cpu");
    double *q = values(mb_orthogonal(ctx, mb_key_of(5), MB_FLOAT64, MB_SHAPE(M, S, S)));
    double *one = malloc(M * sizeof *one), trace[4] = {0};
    for (int i = 0; i < S; i++)
        for (int j = 0; j < S; j++) {
            for (int b = 0; b < M; b++)
                one[b] = q[(b * S + i) * S + j];
            double far = distance(one, M, coordinate_cdf, S);
            expect(far < 1.95, "entry %d, %d: distance %g", i, j, far);
        }
    for (int b = 0; b < M; b++) {
        double t = 0, t2 = 0;
        for (int i = 0; i < S; i++) {
            t += q[(b * S + i) * S + i];
            for (int j = 0; j < S; j++)
                t2 += q[(b * S + i) * S + j] * q[(b * S + j) * S + i];
        }
        trace[0] += t / M, trace[1] += t * t / M, trace[2] += t2 / M, trace[3] += t * t * t * t / M;
    }
    double root = sqrt(M);
    expect(fabs(trace[0]) < 5 / root && fabs(trace[1] - 1) < 5 * sqrt(2) / root &&
               fabs(trace[2] - 1) < 5 * sqrt(2) / root && fabs(trace[3] - 3) < 5 * sqrt(96) / root,
           "traces: %g %g %g %g", trace[0], trace[1], trace[2], trace[3]);
    double *two = values(mb_orthogonal(ctx, mb_key_of(6), MB_FLOAT64, MB_SHAPE(M, 2, 2))), det = 0, angle = 0;
    for (int b = 0; b < M; b++) {
        det += two[4 * b] * two[4 * b + 3] - two[4 * b + 1] * two[4 * b + 2];
        angle += two[4 * b] * two[4 * b + 1];
    }
    expect(fabs(det) < 5 * root && fabs(angle) < 5 * root, "determinants: %g", det / M);
    free(one);
    close_all();
}

/* ---- the same everywhere ---- */

static mb_tensor sample(mb_context *ctx, int kind, mb_key key, mb_dtype dtype)
{
    switch (kind) {
    case 0:
        return mb_exponential(ctx, key, dtype, MB_SHAPE(60, 9, 9));
    case 1:
        return mb_laplace(ctx, key, dtype, MB_SHAPE(60, 9, 9));
    case 2:
        return mb_gamma(ctx, key, dtype, MB_SHAPE(60, 9, 9), 0.1, 10);
    case 3:
        return mb_gamma(ctx, key, dtype, MB_SHAPE(60, 9, 9), 3, 0.5);
    case 4:
        return mb_sphere(ctx, key, dtype, MB_SHAPE(60, 9, 9));
    default:
        return mb_orthogonal(ctx, key, dtype, MB_SHAPE(60, 9, 9));
    }
}

Test(samplers, the_same_everywhere_and_always)
{
    enum { COUNT = 60 * 81 };
    mb_context *a = open_on("reference"), *b = open_as("cpu", "", 2),
               *c = open_as("cpu", "fuse,sink,merge", 1);
    for (int kind = 0; kind < 6; kind++)
        for (int d = 0; d < 2; d++) {
            mb_dtype dtype = (mb_dtype)d;
            double *x = values(sample(a, kind, mb_key_of(5), dtype)),
                   *y = values(sample(b, kind, mb_key_of(5), dtype)),
                   *z = values(sample(c, kind, mb_key_of(5), dtype));
            /* logarithms and cosines round differently; no candidate of these keys is so near the boundary
             * that backends disagree about it */
            double near_enough = d ? 1e-26 : 1e-9;
            expect(nmse(y, x, COUNT) < near_enough && nmse(z, x, COUNT) < near_enough, "kind %d %s: %g %g",
                   kind, mb_dtype_name(dtype), nmse(y, x, COUNT), nmse(z, x, COUNT));
            expect(same_bits(y, values(sample(b, kind, mb_key_of(5), dtype)), COUNT),
                   "kind %d: not repeatable", kind);
            expect(!same_bits(y, values(sample(b, kind, mb_key_of(6), dtype)), COUNT), "kind %d: no key",
                   kind);
        }
    close_all();
}

/* Another key or scale is no new plan. */
Test(samplers, keys_are_bound_at_run_time)
{
    mb_context *ctx = open_on("cpu");
    uint64_t plans = 0;
    for (int step = 0; step < 4; step++) {
        mb_scope scope = mb_scope_begin(ctx);
        mb_key key = mb_key_fold(mb_key_of(3), (uint64_t)step);
        mb_tensor g = mb_gamma(ctx, key, MB_FLOAT32, MB_SHAPE(50, 1), 0.1, 10 + step),
                  s = mb_sphere(ctx, key, MB_FLOAT32, MB_SHAPE(50, 4));
        mb_item(mb_sum(mb_mul(s, g), MB_ALL));
        if (step == 0)
            plans = mb_get_stats(ctx).plans;
        mb_scope_end(scope);
    }
    expect(mb_get_stats(ctx).plans == plans, "%d new plans", (int)(mb_get_stats(ctx).plans - plans));
    close_all();
}

static void expect_error(mb_context *ctx, mb_tensor t, const char *part)
{
    expect(!mb_valid(t) && mb_error(ctx) == MB_INVALID && strstr(mb_message(ctx), part) &&
               strstr(mb_message(ctx), "samplers_test.c"),
           "wanted \"%s\" in: %s", part, mb_message(ctx));
    mb_clear_error(ctx);
}

Test(samplers, mistakes)
{
    mb_context *ctx = open_on("cpu");
    mb_key key = mb_key_of(1);
    expect_error(ctx, mb_exponential(ctx, key, MB_INT32, MB_SHAPE(3)), "exponential: got int32");
    expect_error(ctx, mb_laplace(ctx, key, MB_BOOL, MB_SHAPE(3)), "laplace: got bool");
    expect_error(ctx, mb_gamma(ctx, key, MB_FLOAT32, MB_SHAPE(3), 0, 1), "gamma: got k = 0");
    expect_error(ctx, mb_gamma(ctx, key, MB_FLOAT32, MB_SHAPE(3), 1, (double)NAN), "gamma: got k = 1, theta");
    expect_error(ctx, mb_gamma(ctx, key, MB_INT32, MB_SHAPE(3), 1, 1), "gamma: got int32");
    expect_error(ctx, mb_sphere(ctx, key, MB_FLOAT32, MB_SHAPE0), "sphere: wanted");
    expect_error(ctx, mb_sphere(ctx, key, MB_FLOAT32, MB_SHAPE(3, 0)), "sphere: wanted");
    expect_error(ctx, mb_orthogonal(ctx, key, MB_FLOAT32, MB_SHAPE(3)), "orthogonal: wanted");
    expect_error(ctx, mb_orthogonal(ctx, key, MB_FLOAT32, MB_SHAPE(3, 4)), "orthogonal: wanted");
    expect_error(ctx, mb_exponential(ctx, key, MB_FLOAT32, MB_SHAPE(3, -1)), "negative");
    close_all();
}
