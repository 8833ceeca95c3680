/* SPDX-License-Identifier: MIT
 *
 * elementwise_gradient_test.c - first, second and third derivatives of every elementwise op of ops.def, one
 * test a row, on shapes that are 0-d, empty, odd, broadcast and strided. */
#include "gradcheck.h"

/* What happens to the operand before the op: nothing, or views that give it other strides. */
static mb_tensor strided(mb_tensor x)
{
    int rank = mb_shape_of(x).rank;
    if (rank == 0)
        return x;
    if (rank == 1)
        return mb_flip(x, 0);
    mb_tensor t = mb_permute(mb_flip(x, -1), MB_AXES(1, 0));
    return mb_slice(t, 0, mb_dim(t, 0) - 1, (mb_dim(t, 0) + 1) / 2, -2);
}

typedef mb_tensor (*one)(const char *, mb_tensor);
typedef mb_tensor (*two)(const char *, mb_tensor, mb_tensor);

typedef struct op {
    one one;
    two two;
    bool views;
} op;

static mb_tensor apply(mb_context *ctx, const mb_tensor *xs, const void *user)
{
    (void)ctx;
    const op *o = user;
    mb_tensor a = o->views ? strided(xs[0]) : xs[0];
    if (o->one)
        return o->one(MB_HERE, a);
    return o->two(MB_HERE, a, o->views ? strided(xs[1]) : xs[1]);
}

static void check_unary(const char *name, one f, double low, double high)
{
    const op plain = {f, NULL, false}, views = {f, NULL, true};
    const mb_shape shapes[] = {MB_SHAPE0,   MB_SHAPE(0),    MB_SHAPE(1),
                               MB_SHAPE(7), MB_SHAPE(3, 5), MB_SHAPE(37, 9)};
    gradcase cases[12];
    int n = 0;
    for (int v = 0; v < 2; v++)
        for (int s = 0; s < 6; s++)
            if (!v || s >= 3)
                cases[n++] = (gradcase){name, apply, v ? &views : &plain, 1, {shapes[s]}, low, high, 0, 0};
    gradcheck_both(cases, n);
}

static void check_binary(const char *name, two f, double low, double high)
{
    const op plain = {NULL, f, false}, views = {NULL, f, true};
    const struct {
        mb_shape a, b;
        bool views;
    } shapes[] = {
        {MB_SHAPE0, MB_SHAPE0, false},
        {MB_SHAPE(0), MB_SHAPE(1), false},
        {MB_SHAPE(7), MB_SHAPE(7), true},
        {MB_SHAPE(3), MB_SHAPE0, false},
        {MB_SHAPE(3, 1, 5), MB_SHAPE(4, 1), false},
        {MB_SHAPE(4, 3), MB_SHAPE(4, 3), true},
        {MB_SHAPE(1, 9), MB_SHAPE(1, 37), false},
    };
    gradcase cases[8];
    int n = 0;
    for (int s = 0; s < 6; s++)
        cases[n++] = (gradcase){
            name, apply, shapes[s].views ? &views : &plain, 2, {shapes[s].a, shapes[s].b}, low, high, 0, 0};
    gradcheck_both(cases, n);
}

#define MB_UNARY(NAME, name, types, expr, lo, hi, cost, doc)                                                 \
    Test(elementwise_gradient, name, .timeout = 120)                                                         \
    {                                                                                                        \
        if ((lo) < (hi))                                                                                     \
            check_unary(#name, mb_##name##_at, lo, hi);                                                      \
        else                                                                                                 \
            cr_expect(true);                                                                                 \
    }
#define MB_BINARY(NAME, name, types, expr, lo, hi, flags, cost, doc)                                         \
    Test(elementwise_gradient, name, .timeout = 120)                                                         \
    {                                                                                                        \
        if ((lo) < (hi))                                                                                     \
            check_binary(#name, mb_##name##_at, lo, hi);                                                     \
        else                                                                                                 \
            cr_expect(true);                                                                                 \
    }
#include "tensor/ops.def"

/* Rows without an interval are locally constant: zero of every kind, not an error. */
#define MB_UNARY(NAME, name, types, expr, lo, hi, cost, doc)                                                 \
    if ((lo) == (hi) && #types[0] == 'F') {                                                                  \
        mb_tensor y = mb_##name(x), g, t;                                                                    \
        mb_grad(y, &x, 1, &g);                                                                               \
        mb_jvp(&y, 1, &x, &x, 1, &t);                                                                        \
        double *vg = values(g), *vt = values(t);                                                             \
        for (int i = 0; i < 5; i++)                                                                          \
            expect(vg[i] == 0 && vt[i] == 0, #name ": %g reverse, %g forward", vg[i], vt[i]);                \
    }
Test(elementwise_gradient, locally_constant_ops)
{
    for (int k = 0; k < 2; k++) {
        mb_context *ctx = open_on(backend_names[k]);
        mb_tensor x = from_doubles(ctx, MB_FLOAT64, MB_SHAPE(5), (double[]){-1.5, -0.5, 0, 0.5, 2});
#include "tensor/ops.def"
        close_all();
    }
}

/* float32 gradients of the cpu against float64 ones: no differences in single precision. */
static double float32_error(mb_context *ctx, one f, two f2, double low, double high)
{
    mb_tensor g[2][2];
    for (int d = 0; d < 2; d++) {
        rng r = {9};
        mb_tensor x[2];
        for (int i = 0; i < 2; i++) {
            x[i] = draw(ctx, &r, MB_FLOAT32, MB_SHAPE(70, 3), low, high);
            if (d)
                x[i] = mb_cast(x[i], MB_FLOAT64);
        }
        mb_tensor y = f ? f(MB_HERE, x[0]) : f2(MB_HERE, x[0], x[1]);
        mb_grad(y, x, f ? 1 : 2, g[d]);
        mb_grad(mb_sum(mb_mul(g[d][0], g[d][0]), MB_ALL), x, f ? 1 : 2, g[d]);
        if (f)
            g[d][1] = g[d][0];
    }
    double *a[2] = {values(g[0][0]), values(g[0][1])}, *b[2] = {values(g[1][0]), values(g[1][1])};
    return fmax(nmse(a[0], b[0], 210), nmse(a[1], b[1], 210));
}

static void small(const char *name, const char *backend, double e)
{
    expect(e <= 1e-10, "%s on %s: NMSE %g", name, backend, e);
}

#define MB_UNARY(NAME, name, types, expr, lo, hi, cost, doc)                                                 \
    if ((lo) < (hi))                                                                                         \
        small(#name, backend_names[k], float32_error(ctx, mb_##name##_at, NULL, lo, hi));
#define MB_BINARY(NAME, name, types, expr, lo, hi, flags, cost, doc)                                         \
    if ((lo) < (hi))                                                                                         \
        small(#name, backend_names[k], float32_error(ctx, NULL, mb_##name##_at, lo, hi));
Test(elementwise_gradient, float32_second_order)
{
    for (int k = 0; k < 2; k++) {
        mb_context *ctx = open_on(backend_names[k]);
#include "tensor/ops.def"
        close_all();
    }
}
