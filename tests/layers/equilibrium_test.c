/* SPDX-License-Identifier: MIT
 *
 * equilibrium_test.c - a layer of infinite depth: its output solves its equation, found by plain loops too,
 * and its derivatives are those of very many applications written out.
 */
#include "fixture.h"

enum { ROWS = 3, IN = 2, HID = 4, DEEP = 300 };

static mb_equilibrium layer_of(mb_context *mb, mb_params **p, bool use_tanh)
{
    *p = mb_params_new_with(mb, 1, MB_FLOAT64);
    mb_equilibrium layer = mb_equilibrium_new(
        *p, "deep",
        (mb_equilibrium_options){.in = IN, .hidden = HID, .tanh = use_tanh, .solve = {.tolerance = 1e-13}});
    mb_assign(layer.a, pattern(mb, MB_SHAPE(HID, HID), 3, 0.4, 0)); /* larger than it starts */
    mb_assign(layer.b, pattern(mb, MB_SHAPE(HID, HID), 4, 0.6, 0));
    return layer;
}

/* W, from the paper's formula in plain loops. */
static void weight_of(const double *a, const double *b, double w[HID][HID])
{
    for (int i = 0; i < HID; i++)
        for (int j = 0; j < HID; j++) {
            w[i][j] = b[i * HID + j] - b[j * HID + i];
            for (int k = 0; k < HID; k++)
                w[i][j] -= a[k * HID + i] * a[k * HID + j];
        }
}

Test(equilibrium, solves_its_equation)
{
    for (int k = 0; k < 2; k++)
        for (int use_tanh = 0; use_tanh < 2; use_tanh++) {
            mb_context *mb = open_on(backend_names[k]);
            mb_params *p;
            mb_equilibrium layer = layer_of(mb, &p, use_tanh);
            mb_tensor x = pattern(mb, MB_SHAPE(ROWS, 1, IN), 1, 1, 0);
            mb_convergence told;
            mb_tensor y = mb_equilibrium_apply(layer, x, &told);
            double w[HID][HID], *z = values(y), *in = values(x), *u = values(layer.input),
                                *bias = values(layer.bias), *converged = values(told.converged);
            weight_of(values(layer.a), values(layer.b), w);
            expect(mb_shape_of(y).rank == 3 && mb_dim(y, 2) == HID, "shape");
            for (int r = 0; r < ROWS; r++) {
                expect(converged[r] == 1, "%s: row %d did not converge", backend_names[k], r);
                for (int i = 0; i < HID; i++) {
                    double sum = bias[i];
                    for (int j = 0; j < HID; j++)
                        sum += w[i][j] * z[r * HID + j];
                    for (int j = 0; j < IN; j++)
                        sum += u[i * IN + j] * in[r * IN + j];
                    double want = use_tanh ? tanh(sum) : fmax(sum, 0);
                    expect(fabs(z[r * HID + i] - want) < 1e-11, "%s: row %d, %d: %g, not %g",
                           backend_names[k], r, i, z[r * HID + i], want);
                }
            }
            mb_params_free(p);
            close_all();
        }
}

/* Many damped applications, whose derivatives the search's must be: at 300 of them the rest is below 1e-12.
 */
static mb_tensor written_out(mb_context *mb, const mb_equilibrium *l, mb_tensor x)
{
    mb_tensor z = mb_zeros(mb, MB_FLOAT64, MB_SHAPE(ROWS, HID)), a = l->a, b = l->b;
    mb_tensor w = mb_sub(mb_sub(b, mb_transpose(b)), mb_matmul(mb_transpose(a), a));
    mb_tensor given = mb_add(mb_matmul(x, mb_transpose(l->input)), l->bias);
    mb_scan s = mb_scan_begin(mb, DEEP);
    mb_scan_carry(s, &z);
    mb_tensor next = mb_tanh(mb_add(mb_matmul(z, mb_transpose(w)), given));
    z = mb_add(mb_mul(z, 0.5), mb_mul(next, 0.5));
    mb_scan_end(s);
    return z;
}

Test(equilibrium, derivatives)
{
    for (int k = 0; k < 2; k++) {
        mb_context *mb = open_on(backend_names[k]);
        mb_params *p;
        mb_equilibrium layer = layer_of(mb, &p, true);
        const mb_tensor x = pattern(mb, MB_SHAPE(ROWS, IN), 1, 1, 0),
                        by[4] = {x, layer.input, layer.a, layer.b};
        mb_tensor g[2][4], h[2];
        for (int way = 0; way < 2; way++) {
            mb_tensor y = way ? written_out(mb, &layer, x) : mb_equilibrium_apply(layer, x, NULL);
            mb_grad(mb_sum(mb_sin(mb_mul(y, 2)), MB_ALL), by, 4, g[way]);
            mb_grad(mb_sum(mb_square(g[way][2]), MB_ALL), &layer.b, 1, &h[way]); /* second order, mixed */
        }
        for (int i = 0; i < 5; i++) {
            mb_tensor got = i < 4 ? g[0][i] : h[0], want = i < 4 ? g[1][i] : h[1];
            double *a = values(got), *b = values(want);
            for (int64_t j = 0; j < mb_count(want); j++)
                expect(fabs(a[j] - b[j]) < 1e-8 * (1 + fabs(b[j])),
                       "%s: derivative %d, element %d: %g, not %g", backend_names[k], i, (int)j, a[j], b[j]);
        }
        mb_params_free(p);
        close_all();
    }
}

Test(equilibrium, mistakes_and_nothing)
{
    mb_context *mb = open_on("cpu");
    mb_params *p;
    mb_equilibrium layer = layer_of(mb, &p, false);
    expect(mb_count(mb_equilibrium_apply(layer, mb_zeros(mb, MB_FLOAT64, MB_SHAPE(0, IN)), NULL)) == 0,
           "of nothing");
    expect_ok(mb);
    mb_equilibrium_apply(layer, mb_zeros(mb, MB_FLOAT64, MB_SHAPE(2, IN + 1)), NULL);
    expect(strstr(mb_message(mb), "wanted rows of 2") != NULL, "%s", mb_message(mb));
    mb_clear_error(mb);
    mb_equilibrium_new(p, "wrong", (mb_equilibrium_options){.in = 0, .hidden = 3});
    expect(strstr(mb_message(mb), "in 0, hidden 3") != NULL, "%s", mb_message(mb));
    mb_params_free(p);
    close_failed(mb);
    close_all();
}
