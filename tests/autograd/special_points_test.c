/* SPDX-License-Identifier: MIT
 *
 * special_points_test.c - every derivative of every elementwise op, to the third order and in whatever order
 * and mode it is taken, against closed forms at the points where rules need guards: 0, -0, 1, kinks, ties,
 * and next to overflow. */
#include "support.h"

#define INF ((double)INFINITY)

/* i-th derivative by a, j-th by b, 0 <= i + j <= 3. */
typedef double (*partial)(int i, int j, double a, double b);

static double factorial_power(double b, int i) /* b (b - 1) ... of i factors */
{
    double p = 1;
    for (int k = 0; k < i; k++)
        p *= b - k;
    return p;
}

/* c x^e, which is 0 where c is, whatever x is. */
static double term(double c, double x, double e)
{
    return c == 0 ? 0 : c * pow(x, e);
}

#define ONE(name) static double d_##name(int i, int j, double x, double b)
#define PICK(...)                                                                                            \
    (void)j, (void)b;                                                                                        \
    const double d[4] = {__VA_ARGS__};                                                                       \
    return d[i]

ONE(neg)
{
    PICK(-x, -1, 0, 0);
}
ONE(recip)
{
    PICK(1 / x, -1 / x / x, 2 / x / x / x, -6 / x / x / x / x);
}
ONE(sqrt)
{
    (void)j, (void)b;
    return i ? term(factorial_power(0.5, i), x == 0 ? 0.0 : x, 0.5 - i) : sqrt(x);
}
ONE(rsqrt)
{
    (void)j, (void)b;
    return term(factorial_power(-0.5, i), x, -0.5 - i);
}
ONE(exp)
{
    (void)i, (void)j, (void)b;
    return exp(x);
}
ONE(log)
{
    PICK(log(x), 1 / x, -1 / x / x, 2 / x / x / x);
}
ONE(expm1)
{
    PICK(expm1(x), exp(x), exp(x), exp(x));
}
ONE(log1p)
{
    double u = 1 + x;
    PICK(log1p(x), 1 / u, -1 / u / u, 2 / u / u / u);
}
ONE(sin)
{
    PICK(sin(x), cos(x), -sin(x), -cos(x));
}
ONE(cos)
{
    PICK(cos(x), -sin(x), -cos(x), sin(x));
}
ONE(tanh)
{
    double y = tanh(x), s = 1 - y * y;
    PICK(y, s, -2 * y * s, (6 * y * y - 2) * s);
}
ONE(sigmoid)
{
    double y = 1 / (1 + exp(-x)), s = y * (1 - y);
    PICK(y, s, s * (1 - 2 * y), s * (1 - 6 * s));
}
ONE(erf)
{
    double e = 2 / sqrt(acos(-1.0)) * exp(-x * x), x2 = x * x > 1e300 ? 1 : x * x;
    PICK(erf(x), e, e == 0 ? 0 : -2 * x * e, e == 0 ? 0 : (4 * x2 - 2) * e);
}
ONE(abs)
{
    PICK(fabs(x), x > 0 ? 1 : x < 0 ? -1 : 0, 0, 0);
}

/* Of f' = u^-1/2: u's slopes are u1 and u2. */
static double of_root(int i, double value, double u, double u1, double u2)
{
    const double d[4] = {value, 1 / sqrt(u), term(-u1 / 2, u, -1.5),
                         term(-u2 / 2, u, -1.5) + term(0.75 * u1 * u1, u, -2.5)};
    return d[i];
}
/* Of f' = 1 / u. */
static double of_inverse(int i, double value, double u, double u1, double u2)
{
    const double d[4] = {value, 1 / u, term(-u1, u, -2), term(-u2, u, -2) + term(2 * u1 * u1, u, -3)};
    return d[i];
}
ONE(tan)
{
    double y = tan(x), s = 1 + y * y;
    PICK(y, s, 2 * y * s, (2 + 6 * y * y) * s);
}
ONE(asin)
{
    (void)j, (void)b;
    return of_root(i, asin(x), (1 - x) * (1 + x), -2 * x, -2);
}
ONE(acos)
{
    (void)j, (void)b;
    return (i ? -1 : 1) * of_root(i, acos(x), (1 - x) * (1 + x), -2 * x, -2);
}
ONE(atan)
{
    (void)j, (void)b;
    return fabs(x) > 1e100 ? (i ? 0 : atan(x)) : of_inverse(i, atan(x), 1 + x * x, 2 * x, 2);
}
ONE(sinh)
{
    PICK(sinh(x), cosh(x), sinh(x), cosh(x));
}
ONE(cosh)
{
    PICK(cosh(x), sinh(x), cosh(x), sinh(x));
}
ONE(asinh)
{
    (void)j, (void)b;
    if (fabs(x) < 1e100)
        return of_root(i, asinh(x), 1 + x * x, 2 * x, 2);
    const double d[4] = {asinh(x), 1 / fabs(x), -1 / x / fabs(x), 2 / x / x / fabs(x)};
    return d[i];
}
ONE(acosh)
{
    (void)j, (void)b;
    if (x < 1e100)
        return of_root(i, acosh(x), (x - 1) * (x + 1), 2 * x, 2);
    const double d[4] = {acosh(x), 1 / x, -1 / x / x, 2 / x / x / x};
    return d[i];
}
ONE(atanh)
{
    (void)j, (void)b;
    return of_inverse(i, atanh(x), (1 - x) * (1 + x), -2 * x, -2);
}

#define TWO(name) static double d_##name(int i, int j, double a, double b)
/* The imaginary part of log(b + i a): the n-th derivative of log is (-1)^(n-1) (n-1)! z^-n, and i^i of it by
 * a. At the origin 0. */
TWO(atan2)
{
    static const double factor[4] = {0, 1, -1, 2};
    int n = i + j;
    double r = hypot(a, b), phi = atan2(a, b);
    if (n == 0)
        return phi;
    if (r == 0 || isinf(r))
        return 0;
    return factor[n] * pow(r, -n) * sin(i * acos(0.0) - n * phi);
}
/* At the origin 0. */
TWO(hypot)
{
    double r = hypot(a, b), s = a / r, c = b / r;
    if (i + j == 0)
        return r;
    if (r == 0)
        return 0;
    if (i + j == 1)
        return i ? s : c;
    if (i + j == 2)
        return (i == 2 ? c * c : j == 2 ? s * s : -s * c) / r;
    double t = i == 3   ? -3 * s * c * c
               : j == 3 ? -3 * c * s * s
               : i == 2 ? c * (3 * s * s - 1)
                        : s * (3 * c * c - 1);
    return t / r / r;
}
TWO(add)
{
    return i + j == 0 ? a + b : i + j == 1 ? 1 : 0;
}
TWO(sub)
{
    return i + j == 0 ? a - b : i + j > 1 ? 0 : i ? 1 : -1;
}
TWO(mul)
{
    return i > 1 || j > 1 ? 0 : (i ? 1 : a) * (j ? 1 : b);
}
TWO(div) /* a b^-1 */
{
    return i > 1 ? 0 : term(i ? 1 : a, 1, 0) * factorial_power(-1, j) * pow(b, -1 - j);
}
/* Of a^b. Where a <= 0, b counts as a constant. */
TWO(pow)
{
    double L = log(a);
    if (a <= 0)
        return j ? 0 : term(factorial_power(b, i), a, b - i);
    double Lj = j ? pow(L, j) : 1, L1 = j < 1 ? 0 : j * (j > 1 ? pow(L, j - 1) : 1), L2 = j == 2 ? 2 : 0;
    double c = i == 0   ? Lj
               : i == 1 ? b * Lj + L1
               : i == 2 ? b * (b - 1) * Lj + (2 * b - 1) * L1 + L2
                        : factorial_power(b, 3);
    return term(c, a, b - i);
}
TWO(maximum)
{
    double share = a == b ? 0.5 : (a > b) == (i > 0);
    return i + j == 0 ? fmax(a, b) : i + j == 1 ? share : 0;
}
TWO(minimum)
{
    double share = a == b ? 0.5 : (a < b) == (i > 0);
    return i + j == 0 ? fmin(a, b) : i + j == 1 ? share : 0;
}

/* ---- the walk over all ways to a derivative ---- */

enum { MOST = 64 };

typedef struct walk {
    const char *name;
    mb_context *ctx;
    mb_tensor x[2];
    const double *a, *b;
    int operands, points;
    partial want;
    char way[16]; /* such as "a'b" : by a in reverse, then by b forward */
} walk;

static mb_tensor derivative(walk *w, mb_tensor y, int operand, bool forward)
{
    mb_tensor d, one = mb_ones(w->ctx, MB_FLOAT64, MB_SHAPE(w->points));
    if (forward)
        mb_jvp(&y, 1, &w->x[operand], &one, 1, &d);
    else
        mb_grad(y, &w->x[operand], 1, &d);
    return d;
}

static void compare(walk *w, mb_tensor y, int i, int j)
{
    const double *got = values(y);
    for (int p = 0; p < w->points; p++) {
        double want = w->want(i, j, w->a[p], w->b[p]);
        /* A few roundings of terms near the largest of them, which is about the result's size or 1. */
        expect(near(got[p], want, 1e-13, 1e-14), "%s on %s, %s at (%g, %g): %.17g, not %.17g", w->name,
               mb_backend_name(w->ctx), w->way, w->a[p], w->b[p], got[p], want);
    }
}

static void follow(walk *w, mb_tensor y, int i, int j)
{
    compare(w, y, i, j);
    if (i + j == 3)
        return;
    size_t end = strlen(w->way);
    for (int operand = 0; operand < w->operands; operand++)
        for (int forward = 0; forward < 2; forward++) {
            snprintf(w->way + end, sizeof w->way - end, "%c%s", 'a' + operand, forward ? "" : "'");
            follow(w, derivative(w, y, operand, forward), i + !operand, j + operand);
        }
    w->way[end] = 0;
}

typedef mb_tensor (*unary)(const char *, mb_tensor);
typedef mb_tensor (*binary)(const char *, mb_tensor, mb_tensor);

/* at: pairs for a binary op, which is then differentiated by `operands` of its two. */
static void check(const char *name, unary one, binary two, int operands, partial want, const double *at,
                  int numbers)
{
    int width = one ? 1 : 2;
    for (int k = 0; k < 2; k++) {
        mb_context *ctx = open_on(backend_names[k]);
        double a[MOST], b[MOST] = {0};
        walk w = {.name = name, .ctx = ctx, .a = a, .b = b, .operands = operands, .want = want};
        w.points = numbers / width;
        for (int p = 0; p < w.points; p++) {
            a[p] = at[p * width];
            b[p] = one ? 0 : at[p * 2 + 1];
        }
        w.x[0] = mb_from(ctx, MB_FLOAT64, MB_SHAPE(w.points), a);
        w.x[1] = mb_from(ctx, MB_FLOAT64, MB_SHAPE(w.points), b);
        follow(&w, one ? one(MB_HERE, w.x[0]) : two(MB_HERE, w.x[0], w.x[1]), 0, 0);
        close_all();
    }
}

#define POINTS(...) ((const double[]){__VA_ARGS__}), (int)(sizeof((double[]){__VA_ARGS__}) / sizeof(double))
#define UNARY(name, ...)                                                                                     \
    Test(special_points, name, .timeout = 120)                                                               \
    {                                                                                                        \
        check(#name, mb_##name##_at, NULL, 1, d_##name, POINTS(__VA_ARGS__));                                \
    }
#define BINARY(name, ...)                                                                                    \
    Test(special_points, name, .timeout = 120)                                                               \
    {                                                                                                        \
        check(#name, NULL, mb_##name##_at, 2, d_##name, POINTS(__VA_ARGS__));                                \
    }

UNARY(neg, 0, -0.0, 1, 1e308)
UNARY(recip, 0, -0.0, 1, -1, 1e-70, -1e-70, 1e200)
UNARY(sqrt, 0, 1, 4, 1e-100, 1e300)
UNARY(rsqrt, 0, 1, 4, 1e-80, 1e300)
UNARY(exp, 0, -0.0, 1, -800, 709, 710)
UNARY(log, 0, 1, 1e-80, 1e300)
UNARY(expm1, 0, -0.0, 1, -800, 709, 710)
UNARY(log1p, 0, -0.0, 1, -1, 1e300)
UNARY(sin, 0, -0.0, 1)
UNARY(cos, 0, -0.0, 1)
UNARY(tanh, 0, -0.0, 1, -1, 800, -800)
UNARY(sigmoid, 0, -0.0, 1, 800, -800)
UNARY(erf, 0, -0.0, 1, 30, -1e200)
UNARY(abs, 0, -0.0, 1, -1, 1e300)

UNARY(tan, 0, -0.0, 1, -1.5)
UNARY(asin, 0, -0.0, 0.5, -0.9)
UNARY(acos, 0, -0.0, 0.5, -0.9)
UNARY(atan, 0, -0.0, 1, -1, 1e5, 1e160, -1e300, INF, -INF)
UNARY(sinh, 0, -0.0, 1, -1, 709, 711, -711)
UNARY(cosh, 0, -0.0, 1, -1, 709, 711, -711)
UNARY(asinh, 0, -0.0, 1, -1, 1e5, 1e160, -1e300, INF, -INF)
UNARY(acosh, 1.5, 2, 1e5, 1e160, INF)
UNARY(atanh, 0, -0.0, 0.5, -0.5)

BINARY(atan2, 0, 0, 1, 0, 0, 1, 0, -1, -0.0, 2, 3, 4, -3, 4, 1e200, 1e190, 1e-80, 1e-80, INF, 1, 1, -INF, INF,
       INF)
BINARY(hypot, 0, 0, 0, -0.0, 1, 0, 0, -1, 3, 4, -3, 4, 1e200, 1e190, 1e-80, 1e-80)
BINARY(add, 0, 0, -0.0, 1, 1e308, 1)
BINARY(sub, 0, 0, -0.0, 1, 1e308, 1)
BINARY(mul, 0, 0, -0.0, 1, 1e200, 1e-200, 1e300, 1)
BINARY(div, 1, 1, 0, 1, -0.0, 2, 1e200, 1e100, 1e-300, 1e-70)
BINARY(maximum, 0, 0, -0.0, 0, 1, 1, 1, 2, 2, 1, 1e308, -1e308)
BINARY(minimum, 0, 0, -0.0, 0, 1, 1, 1, 2, 2, 1, 1e308, -1e308)
BINARY(pow, 2, 0, 2, -0.0, 2, 1, 2, 2, 2, 3, 2, 0.5, 2, -1, 1, 0, 1, 1, 1, 2, 1, -2, 0.25, 0, 0.25, 1.5, 0, 0,
       -0.0, 0, 0, 1, 0, 2, 0, 3, -0.0, 1, -0.0, 2, -1, 0, -1, 1, -2, 2, -2, 3, 1e300, 0, 1e300, 1)

/* Where derivatives by a are infinite, or would be but for a factor of 0, b is held. */
Test(special_points, powers_of_constant_exponent, .timeout = 120)
{
    check("pow", NULL, mb_pow_at, 1, d_pow,
          POINTS(0, 0.5, 0, 1.5, 0, 2.5, 0, -1, 1e-100, 0.5, 1e-300, 0, 1e-300, 1, 1e-300, 2, 1e-300, 3));
}

/* 1 / a overflows: the derivative by a is 0 all the same, and the mixed one infinite. */
Test(special_points, power_of_a_subnormal)
{
    for (int k = 0; k < 2; k++) {
        mb_context *ctx = open_on(backend_names[k]);
        mb_tensor x[2] = {mb_scalar(ctx, MB_FLOAT64, 1e-320), mb_scalar(ctx, MB_FLOAT64, 0)}, g[2], h[2][2];
        mb_grad(mb_pow(x[0], x[1]), x, 2, g);
        mb_grad(g[0], x, 2, h[0]);
        mb_grad(g[1], x, 2, h[1]);
        expect(mb_item(g[0]) == 0 && mb_item(h[0][0]) == 0, "by a: %g, %g", mb_item(g[0]), mb_item(h[0][0]));
        expect(mb_item(h[0][1]) == INF && mb_item(h[1][0]) == INF, "mixed: %g, %g", mb_item(h[0][1]),
               mb_item(h[1][0]));
        close_all();
    }
}

/* x^x and (1 + x)^x: both operands depend on one variable, so that the mixed derivatives are added. */
Test(special_points, powers_of_the_variable)
{
    for (int k = 0; k < 2; k++) {
        mb_context *ctx = open_on(backend_names[k]);
        /* x^x at 1: y' = y (1 + log x), y'' = y ((1 + log x)^2 + 1/x), y''' = y (u^3 + 3 u / x - 1/x^2) */
        mb_tensor x = mb_scalar(ctx, MB_FLOAT64, 1), y = mb_pow(x, x);
        const double at_one[3] = {1, 2, 3};
        for (int i = 0; i < 3; i++) {
            mb_grad(y, &x, 1, &y);
            expect(near(mb_item(y), at_one[i], 1e-14, 0), "x^x at 1: derivative %d is %.17g", i + 1,
                   mb_item(y));
        }
        /* (1 + x)^x = exp(x log(1 + x)) = 1 + x^2 - x^3 / 2 + ... at 0 */
        x = mb_scalar(ctx, MB_FLOAT64, 0), y = mb_pow(mb_add(x, 1.0), x);
        const double at_zero[3] = {0, 2, -3};
        for (int i = 0; i < 3; i++) {
            mb_grad(y, &x, 1, &y);
            expect(near(mb_item(y), at_zero[i], 1e-14, 1e-14), "(1 + x)^x at 0: derivative %d is %.17g",
                   i + 1, mb_item(y));
        }
        close_all();
    }
}

/* Both ways to a product with the Hessian, and the Hessian, at the same points, and that it is symmetric. */
static void both_ways(mb_context *ctx, const char *name, binary f, double a, double b)
{
    mb_tensor x[2] = {mb_scalar(ctx, MB_FLOAT64, a), mb_scalar(ctx, MB_FLOAT64, b)}, forward[2], reverse[2];
    mb_tensor v[2] = {mb_scalar(ctx, MB_FLOAT64, 0.5), mb_scalar(ctx, MB_FLOAT64, -2)};
    mb_tensor y = f(MB_HERE, x[0], x[1]);
    mb_hvp(y, x, v, 2, forward);
    mb_hvp_reverse(y, x, v, 2, reverse);
    const double *H = values(mb_hessian(y, x, 2));
    expect(near(H[1], H[2], 1e-14, 0), "%s at (%g, %g): Hessian %.17g and %.17g", name, a, b, H[1], H[2]);
    for (int i = 0; i < 2; i++) {
        double p = mb_item(forward[i]), q = mb_item(reverse[i]);
        expect(near(p, q, 1e-14, 1e-14), "%s at (%g, %g): hvp %.17g forward, %.17g reverse", name, a, b, p,
               q);
    }
}

Test(special_points, products_with_the_hessian_agree)
{
    static const double at[] = {0, 0.5, 1, 2, 3, -1};
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < 6; i++) {
            mb_context *ctx = open_on(backend_names[k]);
            for (int j = 0; j < 6; j++) {
                if (!(at[i] == 0 && at[j] < 2 && at[j] != 0 && at[j] != 1) && at[i] >= 0)
                    both_ways(ctx, "pow", mb_pow_at, at[i], at[j]);
                both_ways(ctx, "maximum", mb_maximum_at, at[i], at[j]);
                both_ways(ctx, "minimum", mb_minimum_at, at[i], at[j]);
                both_ways(ctx, "mul", mb_mul_at, at[i], at[j]);
                if (at[j] != 0)
                    both_ways(ctx, "div", mb_div_at, at[i], at[j]);
            }
            close_all();
        }
}
