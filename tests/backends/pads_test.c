/* SPDX-License-Identifier: MIT
 *
 * pads_test.c - sums of pads: the right values however the parts lie, and a loop over the steps of a sequence
 * whose derivatives grow with its length, not with the square of it.
 */
#include "support.h"

#include "backends/engine/state.h"

enum { ROWS = 12, COLUMNS = 3, PARTS_MOST = 10 };

/* One part: rows first, first + step, ... of a tensor of zeros. Made as the adjoint of a slice is. */
typedef struct part {
    int first, step, count;
} part;

static part random_part(rng *r)
{
    part p = {(int)rng_below(r, ROWS), 1 + (int)rng_below(r, 3), 0};
    if (rng_below(r, 4) == 0)
        p.step = -p.step;
    int most = p.step > 0 ? (ROWS - 1 - p.first) / p.step + 1 : p.first / -p.step + 1;
    p.count = rng_below(r, 12) ? 1 + (int)rng_below(r, most) : 0;
    return p;
}

/* The gradient of sum_k <w_k, x[part k]> + <v, x>, by x: the sum of the pads of w_k, and of v. */
static void run_parts(const char *backend, uint64_t seed)
{
    rng r = {seed};
    double want[ROWS * COLUMNS] = {0};
    mb_context *ctx = open_on(backend);
    mb_tensor x = draw(ctx, &r, MB_FLOAT64, MB_SHAPE(ROWS, COLUMNS), -1, 1), loss = {0}, g;
    int n = 2 + (int)rng_below(&r, PARTS_MOST - 2);
    for (int k = 0; k < n; k++) {
        part p = random_part(&r);
        bool whole = rng_below(&r, 6) == 0; /* a term that is no pad */
        if (whole)
            p = (part){0, 1, ROWS};
        double w[ROWS * COLUMNS];
        for (int i = 0; i < p.count * COLUMNS; i++) {
            w[i] = (double)rng_below(&r, 64) - 32; /* integers: the same sum in any order */
            want[(p.first + i / COLUMNS * p.step) * COLUMNS + i % COLUMNS] += w[i];
        }
        mb_tensor s = whole     ? x
                      : p.count ? mb_slice(x, 0, p.first, p.count, p.step)
                                : mb_slice(x, 0, 0, 0, 1);
        mb_tensor term = mb_sum(mb_mul(s, mb_from(ctx, MB_FLOAT64, MB_SHAPE(p.count, COLUMNS), w)), MB_ALL);
        loss = k ? mb_add(loss, term) : term;
    }
    mb_grad(loss, &x, 1, &g);
    double *got = values(g);
    for (int i = 0; i < ROWS * COLUMNS; i++)
        expect(got[i] == want[i], "%s, seed %llu: [%d,%d] is %g, not %g", backend, (unsigned long long)seed,
               i / COLUMNS, i % COLUMNS, got[i], want[i]);
    expect_ok(ctx);
    close_all();
}

Test(pads, sums_of_any_parts, .timeout = 120)
{
    for (int b = 0; b < 2; b++)
        for (uint64_t seed = 1; seed <= (testing("vulkan") ? 20 : 400); seed++)
            run_parts(backend_names[b], seed);
}

/* Parts along several axes, and all of a tensor without a gap. */
Test(pads, tiles, .timeout = 60)
{
    for (int b = 0; b < 2; b++) {
        mb_context *ctx = open_on(backend_names[b]);
        rng r = {3};
        mb_tensor x = draw(ctx, &r, MB_FLOAT32, MB_SHAPE(6, 6), -1, 1), loss = {0}, g, h;
        for (int i = 0; i < 3; i++)
            for (int j = 0; j < 2; j++) {
                mb_tensor tile = mb_slice(mb_slice(x, 0, 2 * i, 2, 1), 1, j, 3, 2);
                mb_tensor term = mb_mul(mb_sum(mb_mul(mb_square(tile), tile), MB_ALL), 1.0 + i + 3 * j);
                loss = i || j ? mb_add(loss, term) : term;
            }
        mb_grad(loss, &x, 1, &g);
        mb_grad(mb_sum(g, MB_ALL), &x, 1, &h);
        double *v = values(x), *first = values(g), *second = values(h);
        for (int i = 0; i < 36; i++) {
            double c = 1.0 + i / 12 + 3 * (i % 2);
            expect(near(first[i], 3 * c * v[i] * v[i], 1e-6, 1e-6) &&
                       near(second[i], 6 * c * v[i], 1e-6, 1e-6),
                   "%s: [%d]: %g and %g", backend_names[b], i, first[i], second[i]);
        }
        expect_ok(ctx);
        close_all();
    }
}

/* ---- a gated recurrent unit ---- */

enum { BATCH = 2, HIDDEN = 4 };

/* Elements that the last plan's kernels go over. */
static double elements(mb_context *ctx)
{
    const mb__plan *plan = &((mb__engine_state *)ctx->engine_state)->newest->plan;
    double sum = 0;
    for (int s = 0; s < plan->step_count; s++) {
        const mb__step *step = &plan->steps[s];
        if (step->kind == MB_STEP_KERNEL)
            sum += (double)mb__numel(step->u.kernel.dim, step->u.kernel.rank);
        else if (step->kind == MB_STEP_ZERO)
            sum += (double)plan->values[step->u.zero].count;
    }
    return sum;
}

/* What the gradient by the inputs of so many steps costs; by the inputs' gradient's norm as well, if `twice`.
 */
static double unit(const char *backend, int steps, bool twice)
{
    mb_context *ctx = open_on(backend);
    rng r = {7};
    mb_tensor x = draw(ctx, &r, MB_FLOAT32, MB_SHAPE(steps, BATCH, HIDDEN), -1, 1);
    mb_tensor w[3], u[3], h = mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(BATCH, HIDDEN)), g;
    for (int i = 0; i < 3; i++) {
        w[i] = draw(ctx, &r, MB_FLOAT32, MB_SHAPE(HIDDEN, HIDDEN), -0.5, 0.5);
        u[i] = draw(ctx, &r, MB_FLOAT32, MB_SHAPE(HIDDEN, HIDDEN), -0.5, 0.5);
    }
    for (int t = 0; t < steps; t++) {
        mb_tensor in = mb_squeeze(mb_slice(x, 0, t, 1, 1), 0);
        mb_tensor z = mb_sigmoid(mb_add(mb_matmul(in, w[0]), mb_matmul(h, u[0])));
        mb_tensor reset = mb_sigmoid(mb_add(mb_matmul(in, w[1]), mb_matmul(h, u[1])));
        mb_tensor n = mb_tanh(mb_add(mb_matmul(in, w[2]), mb_matmul(mb_mul(reset, h), u[2])));
        h = mb_add(n, mb_mul(z, mb_sub(h, n)));
    }
    mb_grad(mb_sum(mb_square(h), MB_ALL), &x, 1, &g);
    if (twice)
        mb_grad(mb_sum(mb_square(g), MB_ALL), &x, 1, &g);
    double *v = values(g);
    expect(isfinite(v[0]) && v[steps * BATCH * HIDDEN - 1] != 0, "%s, %d steps", backend, steps);
    double cost = elements(ctx);
    expect_ok(ctx);
    close_all();
    return cost;
}

Test(pads, recurrence_is_linear, .timeout = 120)
{
    for (int twice = 0; twice < 2; twice++) {
        int longer = twice || testing("vulkan") ? 64 : 256;
        double few = unit(backend_names[1], longer / 4, twice), many = unit(backend_names[1], longer, twice);
        expect(many < 4.5 * few, "order %d: %d steps cost %.0f elements, a quarter of them %.0f", 1 + twice,
               longer, many, few);
    }
}
