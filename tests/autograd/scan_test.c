/* SPDX-License-Identifier: MIT
 *
 * scan_test.c - scans against the same steps written out: values, and derivatives of orders 1 to 3, in
 * reverse and forward mode, by initial carries, slices and what the body reads; and what a user may get
 * wrong. */
#include "gradcheck.h"
#include "support.h"

enum { STEPS = 5, VARIABLES = 4 };

/* ---- an inner loop that learns, as a scan and unrolled ---- */

static mb_tensor inner_loss(mb_tensor w, mb_tensor x, mb_tensor target)
{
    return mb_mean(mb_square(mb_sub(mb_tanh(mb_matmul(x, w)), target)), MB_ALL);
}

static mb_tensor unrolled(const mb_tensor *v, mb_tensor *losses)
{
    mb_tensor w = v[0], dw, loss[STEPS];
    for (int t = 0; t < STEPS; t++) {
        mb_tensor x = mb_reshape(mb_slice(v[1], 0, t, 1, 1), MB_SHAPE(3, 3));
        loss[t] = inner_loss(w, x, v[2]);
        mb_grad(loss[t], &w, 1, &dw);
        w = mb_sub(w, mb_mul(dw, v[3]));
    }
    *losses = mb_stack(loss, STEPS, 0);
    return w;
}

static mb_tensor scanned(const mb_tensor *v, mb_tensor *losses)
{
    mb_tensor w = v[0], dw;
    mb_scan s = mb_scan_begin(w.ctx, STEPS);
    mb_scan_carry(s, &w);
    mb_tensor loss = inner_loss(w, mb_scan_slice(s, v[1]), v[2]);
    mb_grad(loss, &w, 1, &dw);
    w = mb_sub(w, mb_mul(dw, v[3]));
    mb_scan_stack(s, loss, losses);
    mb_scan_end(s);
    return w;
}

enum { NUMBERS = 3 + 3 * VARIABLES };

/* Values and derivatives of all orders and modes, as numbers. */
static void numbers_of(mb_tensor (*way)(const mb_tensor *, mb_tensor *), mb_context *ctx, double *out)
{
    const mb_shape shapes[VARIABLES] = {MB_SHAPE(3, 3), MB_SHAPE(STEPS, 3, 3), MB_SHAPE(3, 3), MB_SHAPE0};
    mb_tensor v[VARIABLES], d[VARIABLES], g[VARIABLES], losses, t;
    for (int i = 0; i < VARIABLES; i++) {
        v[i] = mb_mul(mb_normal(ctx, mb_key_of((uint64_t)i), MB_FLOAT64, shapes[i]), 0.5);
        d[i] = mb_normal(ctx, mb_key_of(10 + (uint64_t)i), MB_FLOAT64, shapes[i]);
    }
    mb_tensor w = way(v, &losses);
    mb_tensor y = mb_add(mb_sum(mb_sin(w), MB_ALL), mb_sum(mb_square(losses), MB_ALL));
    int n = 0;
    out[n++] = mb_item(y);
    for (int order = 1; order <= 3; order++) {
        mb_grad(y, v, VARIABLES, g);
        y = mb_full(ctx, MB_FLOAT64, MB_SHAPE0, 0);
        for (int i = 0; i < VARIABLES; i++) {
            t = mb_sum(mb_mul(g[i], d[i]), MB_ALL);
            out[n++] = mb_item(t);
            y = mb_add(y, t);
        }
        if (order == 1) {
            mb_jvp(&y, 1, v, d, VARIABLES, &t);
            out[n++] = mb_item(t);
            t = mb_jacobian(losses, v[2]);
            out[n++] = mb_item(mb_sum(mb_square(t), MB_ALL));
        }
    }
}

/* To rounding: some thousand operations of the largest magnitude, 1e-16 each. */
Test(scan, equals_the_steps_written_out)
{
    for (int b = 0; b < 2; b++)
        for (int whole = 0; whole < 2; whole++) {
            mb_context *ctx = open_as(backend_names[b], whole ? NULL : "simplify,merge,dead,fuse,sink,inplace,reuse,loops", 0);
            double want[NUMBERS] = {0}, got[NUMBERS] = {0}, largest = 0;
            numbers_of(unrolled, ctx, want);
            numbers_of(scanned, ctx, got);
            expect_ok(ctx);
            for (int i = 0; i < NUMBERS; i++)
                largest = fmax(largest, fabs(want[i]));
            for (int i = 0; i < NUMBERS; i++)
                expect(fabs(want[i] - got[i]) <= 1e-12 * largest, "%s: number %d: %.17g, unrolled %.17g",
                       backend_names[b], i, got[i], want[i]);
            close_all();
        }
}
