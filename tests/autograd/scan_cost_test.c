/* SPDX-License-Identifier: MIT
 *
 * scan_cost_test.c - what derivatives of scans cost: memory, steps, plans. Values are compared elsewhere. */
#include <tgmath.h>

#include "support.h"

/* ---- gradients of what a body reads ---- */

/* A recurrence of vectors [SIZE] by a matrix; the gradient by the matrix. */
enum { SIZE = 100, STEPS = 40 };
static mb_tensor matrix_gradient(mb_context *ctx)
{
    mb_tensor m = mb_mul(mb_normal(ctx, mb_key_of(1), MB_FLOAT64, MB_SHAPE(SIZE, SIZE)), 0.1), g;
    mb_tensor x = mb_normal(ctx, mb_key_of(2), MB_FLOAT64, MB_SHAPE(SIZE));
    mb_scan s = mb_scan_begin(ctx, STEPS);
    mb_scan_carry(s, &x);
    x = mb_tanh(mb_einsum("ij,j->i", m, x));
    mb_scan_end(s);
    mb_grad(mb_sum(x, MB_ALL), &m, 1, &g);
    mb_eval(&g, 1);
    return g;
}

/* Each step adds to the sum where it lies: beside the matrix and the stored carries there is nothing of a
 * matrix's size, neither a step's own gradient nor a second place for the sum. */
Test(scan_cost, gradients_add_up_in_place)
{
    if (!testing("cpu"))
        return;
    const char *const without[] = {NULL, "inplace", "loops"};
    double bytes[3];
    mb_tensor g[3];
    for (int i = 0; i < 3; i++) {
        mb_context *ctx = open_as("cpu", without[i], 1);
        g[i] = matrix_gradient(ctx);
        expect_ok(ctx);
        bytes[i] = (double)mb_get_stats(ctx).last_arena_bytes;
        expect(nmse(values(g[i]), values(g[0]), SIZE * SIZE) < 1e-28, "without %s: other numbers",
               without[i] ? without[i] : "");
    }
    const double matrix = SIZE * SIZE * sizeof(double), carries = STEPS * SIZE * sizeof(double);
    expect(bytes[0] < 2.2 * matrix + carries, "%g matrices", (bytes[0] - carries) / matrix);
    expect(bytes[1] > bytes[0] + 1.9 * matrix, "%g matrices", (bytes[1] - carries) / matrix);
    close_all();
}

/* ---- loops that end early ---- */

/* sin and cos, which count the elements that they compute. */
static int computed;
MB_ELEMENTWISE_1(sine_loops, (computed++, sin(x)))
MB_ELEMENTWISE_1(cosine_loops, (computed++, cos(x)))
static const mb_custom_op_spec sine_spec = {.name = "sine", .elementwise = &sine_loops},
                               cosine_spec = {.name = "cosine", .elementwise = &cosine_loops};

static mb_tensor sine(mb_tensor x, int order);

static mb_status sine_reverse(const void *user, mb_context *ctx, const mb_custom_at *at, const mb_tensor *vs,
                              mb_tensor *gs)
{
    gs[0] = mb_mul(vs[0], sine(at->xs[0], *(const int *)user + 1));
    return mb_error(ctx);
}

/* The derivative of this order of sin. */
static mb_tensor sine(mb_tensor x, int order)
{
    static const int orders[4] = {0, 1, 2, 3};
    mb_tensor y = {0}, out = {0};
    mb_custom_op op = mb_custom_op_new(x.ctx, order % 2 ? &cosine_spec : &sine_spec);
    mb_custom_op_apply(op, &x, NULL, 0, &y);
    y = order % 4 < 2 ? y : mb_neg(y);
    mb_custom_gradient(&y, 1, &x, 1,
                       MB_LIT(mb_custom_rule){.reverse = sine_reverse, .user = &orders[order % 4]}, &out);
    return out;
}

/* The fixed point of a sin(x), nearly, by at most so many steps. */
static mb_tensor until_fixed(mb_tensor a, int64_t steps, int64_t keep)
{
    mb_tensor x = mb_ones(a.ctx, MB_FLOAT64, MB_SHAPE(3));
    mb_scan s = mb_scan_begin_with(a.ctx, steps, (mb_scan_options){.keep_every = keep});
    mb_scan_carry(s, &x);
    mb_tensor next = mb_mul(a, sine(x, 0)), change = mb_max(mb_abs(mb_sub(next, x)), MB_ALL);
    x = next;
    mb_scan_until(s, mb_lt(change, mb_full(a.ctx, MB_FLOAT64, MB_SHAPE0, 1e-4)));
    mb_scan_end(s);
    return x;
}

/* The carries of a few of 2000 steps change; a derivative computes these few, of whatever order it is. */
Test(scan_cost, derivatives_leave_out_steps_that_did_nothing)
{
    if (!testing("cpu"))
        return;
    static const int64_t keeps[] = {0, 50, MB_KEEP_SQRT, MB_KEEP_LOG};
    for (int b = 0; b < 2; b++)
        for (size_t k = 0; k < sizeof keeps / sizeof *keeps; k++) {
            mb_context *ctx = open_on(backend_names[b]);
            const double data[3] = {1.3, 1.5, 1.7};
            double want[3][3];
            for (int few = 1; few >= 0; few--) {
                mb_tensor a = from_doubles(ctx, MB_FLOAT64, MB_SHAPE(3), data);
                mb_tensor y = until_fixed(a, few ? 40 : 2000, few ? 0 : keeps[k]);
                for (int order = 0; order < 3; order++) {
                    if (order)
                        mb_grad(mb_sum(mb_sin(y), MB_ALL), &a, 1, &y);
                    computed = 0;
                    double *got = values(y);
                    if (few)
                        memcpy(want[order], got, sizeof want[order]);
                    int most = 3 * 40 * (1 + 6 * order * order);
                    expect(computed > 3 * 5 && computed < most, "%s, keep %lld, order %d: %d elements",
                           backend_names[b], (long long)keeps[k], order, computed);
                    expect(nmse(got, want[order], 3) < 1e-26, "%s, keep %lld, order %d: other numbers",
                           backend_names[b], (long long)keeps[k], order);
                }
            }
            close_all();
        }
}

/* steps of descent on sum(sin(w)^2), at most `most` of which `steps` are done; their number is data where
 * they differ. out: the last loss and its derivatives by the rate, once and twice. */
static void descend(mb_context *ctx, int64_t most, int64_t steps, double out[3])
{
    mb_scope scope = mb_scope_begin(ctx);
    mb_tensor w = mb_full(ctx, MB_FLOAT64, MB_SHAPE(6), 0.7),
              rate = mb_full(ctx, MB_FLOAT64, MB_SHAPE0, 0.02), dw;
    mb_tensor d[3];
    mb_scan s = mb_scan_begin(ctx, most);
    mb_scan_carry(s, &w);
    mb_grad(mb_sum(mb_square(mb_sin(w)), MB_ALL), &w, 1, &dw);
    w = mb_sub(w, mb_mul(dw, rate));
    if (most > steps)
        mb_scan_until(s, mb_eq(mb_scan_step(s), mb_scalar(ctx, MB_INT32, (double)steps - 1)));
    mb_scan_end(s);
    d[0] = mb_sum(mb_square(mb_sin(w)), MB_ALL);
    for (int order = 0; order < 2; order++)
        mb_grad(d[order], &rate, 1, &d[order + 1]);
    mb_eval(d, 3);
    expect_ok(ctx);
    for (int i = 0; i < 3; i++)
        out[i] = mb_item(d[i]);
    mb_scope_end(scope);
}

/* Another number of steps is no other plan, where the loop is told when it is done: see mb_scan_until. */
Test(scan_cost, number_of_steps_as_data)
{
    static const int64_t steps[] = {5, 1, 13, 39};
    for (int b = 0; b < 2; b++) {
        mb_context *ctx = open_on(backend_names[b]), *other = open_on(backend_names[b]);
        uint64_t plans = 0;
        for (int i = 0; i < 4; i++) {
            double got[3], want[3];
            descend(ctx, 40, steps[i], got);
            descend(other, steps[i], steps[i], want);
            for (int k = 0; k < 3; k++)
                expect(near(got[k], want[k], 1e-13, 0), "%s, %d steps, order %d: %.17g, not %.17g",
                       backend_names[b], (int)steps[i], k, got[k], want[k]);
            expect(i == 0 || mb_get_stats(ctx).plans == plans, "%s: %d steps are another plan",
                   backend_names[b], (int)steps[i]);
            plans = mb_get_stats(ctx).plans;
        }
        close_all();
    }
}
