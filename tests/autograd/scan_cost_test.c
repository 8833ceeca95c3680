/* SPDX-License-Identifier: MIT
 *
 * scan_cost_test.c - what derivatives of scans cost: memory, steps, plans. Values are compared elsewhere. */
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
