/* SPDX-License-Identifier: MIT
 *
 * mixed_test.c - mb_grad_mixed against mb_grad: values and derivatives of three orders in both modes, alone,
 * in scans and checkpoints; and what is wrong. */
#include "support.h"

enum { DIM = 4, ROWS = 3, STEPS = 3, LAYERS = 2 };

/* An MLP without a last activation; xs: W1, W2; params: rows, targets' columns (int32), a factor. */
static mb_status inner(const void *user, mb_context *ctx, const mb_map_at *at, mb_tensor *out)
{
    (void)user;
    mb_tensor h = at->params[0];
    for (int i = 0; i < at->k; i++)
        h = mb_tanh(mb_matmul(h, at->xs[i]));
    h = mb_sub(h, mb_cast(mb_one_hot(at->params[1], DIM), MB_FLOAT64));
    out[0] = mb_mul(mb_square(h), at->params[2]);
    return mb_error(ctx);
}

static void gradient(bool mixed, const mb_tensor *w, const mb_tensor *params, mb_tensor *g)
{
    if (mixed) {
        mb_grad_mixed((mb_map){.call = inner}, w, LAYERS, params, 3, g);
        return;
    }
    mb_tensor loss;
    const mb_map_at at = {w, params, LAYERS, 3};
    inner(NULL, w[0].ctx, &at, &loss);
    mb_grad(loss, w, LAYERS, g);
}

enum { VARIABLES = 4, NUMBERS = 3 * VARIABLES + 5 };

/* By W1, W2, the rows and the factor, after steps of descent. how: 0 unrolled, 1 a scan, 2 with checkpoints.
 */
static void numbers_of(mb_context *ctx, bool mixed, int how, double *out)
{
    const mb_shape shapes[VARIABLES] = {MB_SHAPE(DIM, DIM), MB_SHAPE(DIM, DIM), MB_SHAPE(ROWS, DIM),
                                        MB_SHAPE0};
    mb_tensor v[VARIABLES], d[VARIABLES], g[VARIABLES], t;
    for (int i = 0; i < VARIABLES; i++) {
        v[i] = mb_mul(mb_normal(ctx, mb_key_of((uint64_t)i), MB_FLOAT64, shapes[i]), 0.7);
        d[i] = mb_normal(ctx, mb_key_of(10 + (uint64_t)i), MB_FLOAT64, shapes[i]);
    }
    mb_tensor w[LAYERS] = {v[0], v[1]}, dw[LAYERS], params[3] = {v[2], mb_iota(ctx, MB_INT32, ROWS), v[3]};
    mb_scan s;
    if (how == 1) {
        s = mb_scan_begin(ctx, STEPS);
        mb_scan_carry(s, &w[0]);
        mb_scan_carry(s, &w[1]);
    }
    for (int i = 0; i < (how == 1 ? 1 : STEPS); i++) {
        mb_checkpoint c;
        if (how == 2)
            c = mb_checkpoint_begin(ctx);
        gradient(mixed, w, params, dw);
        for (int k = 0; k < LAYERS; k++)
            w[k] = mb_sub(w[k], mb_mul(dw[k], 0.3));
        if (how == 2)
            mb_checkpoint_end(c);
    }
    if (how == 1)
        mb_scan_end(s);
    mb_tensor y = mb_add(mb_sum(mb_sin(w[0]), MB_ALL), mb_sum(mb_square(w[1]), MB_ALL));
    int n = 0;
    out[n++] = mb_item(y);
    for (int order = 1; order <= (testing("vulkan") ? 2 : 3); order++) { /* each has kernels of its own */
        mb_jvp(&y, 1, v, d, VARIABLES, &t);
        out[n++] = mb_item(t);
        mb_grad(y, v, VARIABLES, g);
        y = mb_full(ctx, MB_FLOAT64, MB_SHAPE0, 0);
        for (int i = 0; i < VARIABLES; i++) {
            out[n++] = mb_item(t = mb_dot(g[i], d[i]));
            y = mb_add(y, t);
        }
    }
    if (how == 0)
        out[n++] = mb_item(mb_sum(mb_square(mb_jacobian(dw[0], v[0])), MB_ALL));
    expect_ok(ctx);
}

Test(mixed, equals_reverse_over_reverse)
{
    for (int b = 0; b < 2; b++)
        for (int how = 0; how < 3; how++) {
            double want[NUMBERS] = {0}, got[NUMBERS] = {0}, largest = 0;
            mb_context *ctx = open_on(backend_names[b]);
            numbers_of(ctx, false, how, want);
            numbers_of(ctx, true, how, got);
            for (int i = 0; i < NUMBERS; i++)
                largest = fmax(largest, fabs(want[i]));
            for (int i = 0; i < NUMBERS; i++)
                expect(fabs(got[i] - want[i]) <= 1e-12 * largest,
                       "%s, way %d: number %d: %.17g, by mb_grad %.17g", backend_names[b], how, i, got[i],
                       want[i]);
            close_all();
        }
}

static mb_tensor stray;
static mb_status wrong(const void *user, mb_context *ctx, const mb_map_at *at, mb_tensor *out)
{
    int what = *(const int *)user;
    if (what == 1)
        return MB_INVALID;
    if (what == 2)
        out[0] = mb_argmax(at->xs[0], 0);
    if (what == 3)
        out[0] = mb_mul(at->xs[0], stray);
    return mb_error(ctx);
}

Test(mixed, mistakes_are_told)
{
    static const char *const told[] = {"grad_mixed: the loss gives none", "grad_mixed: the loss failed",
                                       "grad_mixed: the loss gives [] int32", "which is not handed in",
                                       "grad_mixed: got a loss, 1 xs, -1 params"};
    mb_context *ctx = open_on("cpu");
    for (int i = 0; i < 5; i++) {
        mb_tensor x = mb_iota(ctx, MB_FLOAT64, 3), g;
        stray = mb_sin(x);
        mb_grad_mixed(MB_LIT(mb_map){.call = wrong, .user = &i, .user_bytes = sizeof i}, &x, 1, NULL,
                      i == 4 ? -1 : 0, &g);
        expect(mb_error(ctx) == MB_INVALID && strstr(mb_message(ctx), told[i]) && !mb_valid(g) &&
                   strstr(mb_message(ctx), "mixed_test.c:"),
               "mistake %d: %s", i, mb_message(ctx));
        mb_clear_error(ctx);
    }
    expect(mb_grad_mixed((mb_map){.call = wrong}, NULL, 0, NULL, 0, NULL) == MB_INVALID, "no xs");
    close_all();
}
