/* SPDX-License-Identifier: MIT
 *
 * mixed_test.c - mb_grad_mixed against mb_grad: values and derivatives of three orders in both modes, alone,
 * in scans and checkpoints; and what is wrong. */
#include "support.h"

enum { DIM = 4, ROWS = 3, STEPS = 3, LAYERS = 2 };

/* How a loss is made: an MLP; one of layers that are computed again; one in a scan of two steps. */
enum { PLAIN, AGAIN, RECURRENCE, KINDS };

/* Without a last activation; xs: W1, W2; params: rows, targets' columns (int32), a factor. */
static mb_status inner(const void *user, mb_context *ctx, const mb_map_at *at, mb_tensor *out)
{
    int kind = *(const int *)user;
    mb_tensor h = at->params[0];
    mb_checkpoint c;
    mb_scan s;
    if (kind == AGAIN)
        c = mb_checkpoint_begin(ctx);
    if (kind == RECURRENCE) {
        s = mb_scan_begin(ctx, 2);
        mb_scan_carry(s, &h);
    }
    for (int i = 0; i < at->k; i++)
        h = mb_tanh(mb_matmul(h, at->xs[i]));
    if (kind == AGAIN)
        mb_checkpoint_end(c);
    if (kind == RECURRENCE)
        mb_scan_end(s);
    h = mb_sub(h, mb_cast(mb_one_hot(at->params[1], DIM), MB_FLOAT64));
    out[0] = mb_mul(mb_square(h), at->params[2]);
    return mb_error(ctx);
}

static void gradient(int kind, bool mixed, const mb_tensor *w, const mb_tensor *params, mb_tensor *g)
{
    if (mixed) {
        mb_grad_mixed(MB_LIT(mb_map){inner, &kind, sizeof kind}, w, LAYERS, params, 3, g);
        return;
    }
    mb_tensor loss;
    const mb_map_at at = {w, params, LAYERS, 3};
    inner(&kind, w[0].ctx, &at, &loss);
    mb_grad(loss, w, LAYERS, g);
}

enum { VARIABLES = 4, NUMBERS = 3 * VARIABLES + 5 };

/* By W1, W2, the rows and the factor, after steps of descent. how: 0 unrolled, 1 a scan, 2 with checkpoints.
 */
static void numbers_of(mb_context *ctx, int kind, bool mixed, int how, double *out)
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
        gradient(kind, mixed, w, params, dw);
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
        for (int all = 0; all < 3 * KINDS; all++) {
            int how = all % 3, kind = all / 3;
            double want[NUMBERS] = {0}, got[NUMBERS] = {0}, largest = 0;
            mb_context *ctx = open_on(backend_names[b]);
            numbers_of(ctx, kind, false, how, want);
            numbers_of(ctx, kind, true, how, got);
            for (int i = 0; i < NUMBERS; i++)
                largest = fmax(largest, fabs(want[i]));
            for (int i = 0; i < NUMBERS; i++)
                expect(fabs(got[i] - want[i]) <= 1e-12 * largest,
                       "%s, loss %d, way %d: number %d: %.17g, by mb_grad %.17g", backend_names[b], kind, how,
                       i, got[i], want[i]);
            close_all();
        }
}

/* ---- which way is taken ---- */

/* Where a tangent takes less, a recurrence whose steps are then stored once less; and where it takes more, an
 * MLP whose layers are computed again. */
static mb_status loss_of_kind(const void *user, mb_context *ctx, const mb_map_at *at, mb_tensor *out)
{
    mb_tensor h = at->params[0];
    if (*(const int *)user == RECURRENCE) {
        mb_scan s = mb_scan_begin(ctx, 32);
        mb_scan_carry(s, &h);
        h = mb_tanh(mb_matmul(h, at->xs[0]));
        mb_scan_end(s);
    } else
        for (int i = 0; i < 3; i++) {
            mb_checkpoint c = mb_checkpoint_begin(ctx);
            h = mb_tanh(mb_matmul(mb_tanh(mb_matmul(h, at->xs[0])), at->xs[0]));
            mb_checkpoint_end(c);
        }
    out[0] = mb_mean(mb_square(h), MB_ALL);
    return mb_error(ctx);
}

/* What the derivative of two steps of descent keeps, and how many nodes it records. */
static double weight_of(mb_context *ctx, int kind, bool mixed, uint64_t *nodes, uint64_t *plans)
{
    mb_costs c;
    mb_scope scope = mb_scope_begin(ctx);
    uint64_t before = mb_get_stats(ctx).recorded;
    mb_tensor w0 = mb_normal(ctx, mb_key_of(1), MB_FLOAT32, MB_SHAPE(32, 32)), w = w0, g;
    mb_tensor x = mb_normal(ctx, mb_key_of(2), MB_FLOAT32, MB_SHAPE(256, 32));
    mb_scan s = mb_scan_begin(ctx, 2);
    mb_scan_carry(s, &w);
    if (mixed)
        mb_grad_mixed(MB_LIT(mb_map){loss_of_kind, &kind, sizeof kind}, &w, 1, &x, 1, &g);
    else {
        mb_tensor loss;
        loss_of_kind(&kind, ctx, &MB_LIT(mb_map_at){&w, &x, 1, 1}, &loss);
        mb_grad(loss, &w, 1, &g);
    }
    w = mb_sub(w, g);
    mb_scan_end(s);
    mb_grad(mb_sum(mb_square(w), MB_ALL), &w0, 1, &g);
    mb_forecast(ctx, &g, 1, &c);
    mb_stats after = mb_get_stats(ctx);
    *nodes = after.recorded - before;
    *plans = after.plans;
    expect_ok(ctx);
    mb_scope_end(scope);
    return (double)(c.loop_bytes + c.temporary_bytes);
}

Test(mixed, takes_the_way_that_takes_less)
{
    mb_context *ctx = open_on("cpu");
    for (int kind = AGAIN; kind <= RECURRENCE; kind++) {
        uint64_t nodes, first, again, plans, first_plans;
        double reverse = weight_of(ctx, kind, false, &nodes, &plans);
        double mixed = weight_of(ctx, kind, true, &first, &first_plans);
        /* What is stored of steps that are written out depends on how they are fused and simplified. */
        double most = kind == RECURRENCE && has_loops(ctx) ? 0.8 : 1.1;
        expect(mixed <= most * reverse, "loss %d: %.0f bytes, reverse over reverse %.0f", kind, mixed,
               reverse);
        expect(first_plans == plans + 1, "loss %d: what was weighed counts as a plan", kind);
        weight_of(ctx, kind, true, &again, &plans);
        expect(again < first && plans == first_plans, "loss %d: %llu nodes, then %llu; %llu plans more", kind,
               (unsigned long long)first, (unsigned long long)again,
               (unsigned long long)(plans - first_plans));
    }
    close_all();
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
