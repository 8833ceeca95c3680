/* SPDX-License-Identifier: MIT
 *
 * recurrent_test.c - GRU and LSTM against plain loops, their derivatives against differences, and mistakes.
 */
#include "fixture.h"

enum { B = 2, N = 6, IN = 3, HID = 4, MOST = 4 };

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

typedef struct plain {
    double u[MOST * HID * IN], v[MOST * HID * HID], bu[MOST * HID], bv[MOST * HID];
} plain;

/* Gate g, unit j, of what the token gives (0) or the state (1). */
static double part(const plain *p, int g, int j, const double *x, const double *h, int own)
{
    int row = g * HID + j;
    double sum = own ? p->bv[row] : p->bu[row];
    for (int i = 0; i < (own ? HID : IN); i++)
        sum += own ? p->v[row * HID + i] * h[i] : p->u[row * IN + i] * x[i];
    return sum;
}

static void plain_step(mb_cell cell, const plain *p, const double *x, double h[HID], double c[HID])
{
    double next[HID];
    for (int j = 0; j < HID; j++) {
        double own[MOST], both[MOST];
        for (int g = 0; g < (cell == MB_CELL_GRU ? 3 : 4); g++) {
            own[g] = part(p, g, j, x, h, 1);
            both[g] = own[g] + part(p, g, j, x, h, 0);
        }
        if (cell == MB_CELL_GRU) {
            double r = sigmoid(both[0]), z = sigmoid(both[1]), n = tanh(both[2] - own[2] + r * own[2]);
            next[j] = (1 - z) * n + z * h[j];
        } else {
            c[j] = sigmoid(both[1]) * c[j] + sigmoid(both[0]) * tanh(both[2]);
            next[j] = sigmoid(both[3]) * tanh(c[j]);
        }
    }
    memcpy(h, next, sizeof next);
}

static void cell_case(const char *backend, mb_cell cell, bool backwards, int64_t keep)
{
    mb_context *mb = open_on(backend);
    mb_params *p = mb_params_new_with(mb, 1, MB_FLOAT64);
    const mb_recurrent_options options = {
        .cell = cell, .in = IN, .hidden = HID, .backwards = backwards, .keep_every = keep};
    mb_recurrent layer = mb_recurrent_new(p, "cell", options);
    mb_tensor x = pattern(mb, MB_SHAPE(B, N, IN), 1, 1, 0), h0 = pattern(mb, MB_SHAPE(B, HID), 2, 0.5, 0);
    mb_tensor c0 = pattern(mb, MB_SHAPE(B, HID), 3, 0.5, 0);
    mb_recurrent_state s = {h0, cell == MB_CELL_LSTM ? c0 : (mb_tensor){0}};
    mb_tensor y = mb_recurrent_apply(layer, x, &s);
    plain q = {0};
    int64_t rows = mb_dim(layer.input, 0);
    mb_read(layer.input, q.u, (size_t)(rows * IN) * sizeof(double));
    mb_read(layer.hidden, q.v, (size_t)(rows * HID) * sizeof(double));
    mb_read(layer.input_bias, q.bu, (size_t)rows * sizeof(double));
    mb_read(layer.hidden_bias, q.bv, (size_t)rows * sizeof(double));
    const double *xs = values(x), *got = values(y), *last = values(s.h);
    for (int b = 0; b < B; b++) {
        double h[HID], c[HID];
        memcpy(h, values(h0) + b * HID, sizeof h);
        memcpy(c, values(c0) + b * HID, sizeof c);
        for (int i = 0; i < N; i++) {
            int t = backwards ? N - 1 - i : i;
            plain_step(cell, &q, xs + (b * N + t) * IN, h, c);
            for (int j = 0; j < HID; j++)
                expect(fabs(got[(b * N + t) * HID + j] - h[j]) < 1e-13, "%s, cell %d: h[%d] of token %d",
                       backend, cell, j, t);
        }
        for (int j = 0; j < HID; j++)
            expect(fabs(last[b * HID + j] - h[j]) < 1e-13, "%s, cell %d: the last state", backend, cell);
    }
    mb_params_free(p);
    close_all();
}

Test(recurrent, cells_equal_plain_loops)
{
    for (int b = 0; b < 2; b++)
        for (int cell = 0; cell < 2; cell++) {
            cell_case(backend_names[b], (mb_cell)cell, false, 0);
            cell_case(backend_names[b], (mb_cell)cell, true, 2);
        }
}

/* d/de of the loss at all parameters and inputs along v, and its second derivative. */
static double loss_at(mb_context *mb, mb_cell cell, double e, double slopes[2])
{
    mb_scope scope = mb_scope_begin(mb);
    mb_tensor step = mb_scalar(mb, MB_FLOAT64, e), x = pattern(mb, MB_SHAPE(B, N, IN), 1, 1, 0);
    int64_t G = cell == MB_CELL_GRU ? 3 : 4;
    mb_recurrent layer = {{.cell = cell, .in = IN, .hidden = HID}, {0}, {0}, {0}, {0}};
    mb_tensor *const all[] = {&layer.input, &layer.hidden, &layer.input_bias, &layer.hidden_bias, &x};
    const mb_shape shapes[] = {MB_SHAPE(G * HID, IN), MB_SHAPE(G * HID, HID), MB_SHAPE(G * HID),
                               MB_SHAPE(G * HID), MB_SHAPE(B, N, IN)};
    for (int i = 0; i < 5; i++)
        *all[i] =
            mb_add(pattern(mb, shapes[i], i, 0.5, 0), mb_mul(pattern(mb, shapes[i], 9 + i, 0.5, 0), step));
    mb_tensor y = mb_sum(mb_square(mb_recurrent_apply(layer, x, NULL)), MB_ALL), d, d2;
    mb_grad(y, &step, 1, &d);
    mb_grad(d, &step, 1, &d2);
    double value = mb_item(y);
    slopes[0] = mb_item(d);
    slopes[1] = mb_item(d2);
    expect_ok(mb);
    mb_scope_end(scope);
    return value;
}

/* Central differences with h: an error of h^2 times a third derivative of order 1, and of 1e-16 / h. */
Test(recurrent, derivatives_equal_differences)
{
    const double h = 1e-5;
    for (int b = 0; b < 2; b++)
        for (int cell = 0; cell < 2; cell++) {
            mb_context *mb = open_on(backend_names[b]);
            double at[2], up[2], down[2];
            loss_at(mb, (mb_cell)cell, 0.3, at);
            double high = loss_at(mb, (mb_cell)cell, 0.3 + h, up),
                   low = loss_at(mb, (mb_cell)cell, 0.3 - h, down);
            expect(fabs((high - low) / (2 * h) - at[0]) < 1e-8 * (1 + fabs(at[0])), "%s: first, %g",
                   backend_names[b], at[0]);
            expect(fabs((up[0] - down[0]) / (2 * h) - at[1]) < 1e-7 * (1 + fabs(at[1])), "%s: second, %g",
                   backend_names[b], at[1]);
            close_all();
        }
}

static void refused(mb_context *mb, const char *word)
{
    expect(mb_error(mb) == MB_INVALID && strstr(mb_message(mb), word) &&
               strstr(mb_message(mb), "recurrent_test.c"),
           "\"%s\": %s", word, mb_message(mb));
    mb_clear_error(mb);
}

Test(recurrent, mistakes_are_told)
{
    mb_context *mb = open_on("cpu");
    mb_params *p = mb_params_new(mb, 1);
    mb_recurrent_new(p, "a", (mb_recurrent_options){.in = 0, .hidden = 2});
    refused(mb, "in 0");
    mb_recurrent l = mb_recurrent_new(p, "b", (mb_recurrent_options){.in = 3, .hidden = 2});
    mb_recurrent_apply(l, mb_zeros(mb, MB_FLOAT32, MB_SHAPE(2, 3)), NULL);
    refused(mb, "axes");
    mb_tensor x = mb_zeros(mb, MB_FLOAT32, MB_SHAPE(2, 5, 3));
    mb_recurrent_apply(l, x, &(mb_recurrent_state){.h = mb_zeros(mb, MB_FLOAT32, MB_SHAPE(2, 3))});
    refused(mb, "state");
    mb_params_free(p);
    close_all();
}
