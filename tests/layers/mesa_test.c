/* SPDX-License-Identifier: MIT
 *
 * mesa_test.c - the mesa layer and MesaNet's against Gaussian elimination in plain C, their derivatives
 * against differences, the inverse step against stored matrices, the implicit derivative against that of a
 * dense inverse, memory, and mistakes. */
#include "fixture.h"

enum { B = 2, H = 2, T = 9, DK = 3, DV = 2 };

/* ---- least squares in plain C ---- */

/* x <- A^-1 x for a symmetric positive definite A, which is overwritten. */
static void eliminate(double A[DK][DK], double x[DK])
{
    for (int p = 0; p < DK; p++)
        for (int i = 0; i < DK; i++) {
            double f = A[i][p] / A[p][p];
            for (int j = 0; j < DK && i != p; j++)
                A[i][j] -= f * A[p][j];
            x[i] -= i != p ? f * x[p] : 0;
        }
    for (int i = 0; i < DK; i++)
        x[i] /= A[i][i];
}

typedef struct given {
    mb_tensor q, k, v, log_forget, beta, ridge; /* ridge: lambda [H] of the mesa layer, [H,DK] of MesaNet */
} given;

static given inputs(mb_context *mb, bool gates, bool net)
{
    given in = {.q = pattern(mb, MB_SHAPE(B, H, T, DK), 1, 1, 0),
                .k = pattern(mb, MB_SHAPE(B, H, T, DK), 2, 0.9, 0),
                .v = pattern(mb, MB_SHAPE(B, H, T, DV), 3, 1, 0)};
    if (gates)
        in.log_forget = mb_mul(mb_softplus(pattern(mb, MB_SHAPE(B, H, T), 4, 2, 0)), -0.2);
    if (gates && net)
        in.beta = mb_sigmoid(pattern(mb, MB_SHAPE(B, H, T), 5, 2, 0));
    in.ridge = net ? pattern(mb, MB_SHAPE(H, DK), 6, 0.3, 0.9) : pattern(mb, MB_SHAPE(H), 6, 0.3, 1.2);
    return in;
}

typedef struct sums {
    double keys[DK][DK], values[DV][DK]; /* sum of weights k k^T, v k^T */
} sums;

static void add_token(sums *s, double forget, double weight, const double *k, const double *v)
{
    for (int i = 0; i < DK; i++)
        for (int j = 0; j < DK; j++)
            s->keys[i][j] = forget * s->keys[i][j] + weight * k[i] * k[j];
    for (int i = 0; i < DV; i++)
        for (int j = 0; j < DK; j++)
            s->values[i][j] = forget * s->values[i][j] + weight * v[i] * k[j];
}

/* What each token should give, and what it does: y [B,H,T,DV]. */
static void against_elimination(const char *what, given in, bool net, mb_tensor y)
{
    const double *q = values(in.q), *k = values(in.k), *v = values(in.v), *got = values(y);
    const double *g = in.log_forget.ctx ? values(in.log_forget) : NULL;
    const double *b = in.beta.ctx ? values(in.beta) : NULL, *ridge = values(in.ridge);
    for (int head = 0; head < B * H; head++) {
        sums s = {0};
        double left = 1; /* of the mesa layer's ridge */
        for (int t = 0; t < T; t++) {
            int at = head * T + t;
            double forget = g ? exp(g[at]) : 1, A[DK][DK], x[DK];
            add_token(&s, forget, b ? b[at] : 1, k + (ptrdiff_t)at * DK, v + (ptrdiff_t)at * DV);
            left *= forget;
            memcpy(A, s.keys, sizeof A);
            memcpy(x, q + (ptrdiff_t)at * DK, sizeof x);
            for (int i = 0; i < DK; i++)
                A[i][i] += net ? ridge[head % H * DK + i] : left / ridge[head % H];
            eliminate(A, x);
            for (int i = 0; i < DV; i++) {
                double want = 0;
                for (int j = 0; j < DK; j++)
                    want += s.values[i][j] * x[j];
                expect(fabs(want - got[at * DV + i]) < 1e-11, "%s: token %d is %g, not %g", what, t,
                       got[at * DV + i], want);
            }
        }
    }
}

/* ---- the mesa layer ---- */

static mb_tensor mesa(given in, mb_mesa_options options)
{
    return mb_mesa_attention(in.q, in.k, in.v, in.log_forget, in.ridge, options, NULL);
}

/* By name: all ways of computing the same. */
static const struct {
    const char *name;
    mb_mesa_options options;
} ways[] = {{"stored", {0}},
            {"stored, sqrt", {.keep_every = MB_KEEP_SQRT, .chunk = 4}},
            {"reversible", {.reversible = true}},
            {"reversible, blocks", {.reversible = true, .keep_every = 4, .chunk = 2}}};
enum { WAYS = sizeof ways / sizeof *ways };

Test(mesa, equals_least_squares)
{
    for (int b = 0; b < 2; b++) {
        mb_context *mb = open_on(backend_names[b]);
        for (int gates = 0; gates < 2; gates++)
            for (int w = 0; w < WAYS; w++) {
                given in = inputs(mb, gates, false);
                against_elimination(ways[w].name, in, false, mesa(in, ways[w].options));
            }
        expect_ok(mb);
        close_all();
    }
}

static int list(given in, mb_tensor xs[6])
{
    int n = 0;
    const mb_tensor all[] = {in.q, in.k, in.v, in.ridge, in.log_forget, in.beta};
    for (int i = 0; i < 6; i++)
        if (all[i].ctx)
            xs[n++] = all[i];
    return n;
}

/* A loss that uses the state after the last token as well. */
static mb_tensor loss_of(given in, mb_mesa_options options)
{
    mb_mesa_state last;
    mb_tensor y = mb_mesa_attention(in.q, in.k, in.v, in.log_forget, in.ridge, options, &last);
    mb_tensor W = pattern(y.ctx, mb_shape_of(last.inverse), 7, 1, 0);
    return mb_add(mb_sum(mb_square(y), MB_ALL), mb_add(mb_sum(mb_mul(mb_sin(last.inverse), W), MB_ALL),
                                                       mb_sum(mb_square(last.sums), MB_ALL)));
}

/* First and second derivatives by the inverse step are those of the scan that stores every R: nine steps back
 * lose a few digits of sixteen. */
Test(mesa, inverse_steps_have_the_same_derivatives)
{
    for (int b = 0; b < 2; b++)
        for (int gates = b; gates < 2; gates++) {
            mb_context *mb = open_on(backend_names[b]);
            given in = inputs(mb, gates, false);
            mb_tensor xs[6], v[6], g[WAYS][6], h[WAYS][6];
            int n = list(in, xs);
            for (int i = 0; i < n; i++)
                v[i] = pattern(mb, mb_shape_of(xs[i]), 20 + i, 1, 0);
            for (int w = 0; w < WAYS; w++) {
                mb_tensor y = loss_of(in, ways[w].options);
                mb_grad(y, xs, n, g[w]);
                mb_hvp(y, xs, v, n, h[w]);
            }
            for (int w = 1; w < WAYS; w++)
                for (int i = 0; i < n; i++) {
                    expect_close(g[w][i], g[0][i], 1e-11, ways[w].name);
                    expect_close(h[w][i], h[0][i], 1e-9, ways[w].name);
                }
            expect_ok(mb);
            close_all();
        }
}

/* d/de of a loss at inputs + e v, one input at a time; and the loss. */
static double slope_at(mb_context *mb, int which, double e, mb_tensor (*of)(given), bool net, double *slope)
{
    mb_scope scope = mb_scope_begin(mb);
    mb_tensor step = mb_scalar(mb, MB_FLOAT64, e), d;
    given in = inputs(mb, true, net);
    mb_tensor *const all[] = {&in.q, &in.k, &in.v, &in.ridge, &in.log_forget, &in.beta};
    *all[which] = mb_add(*all[which], mb_mul(pattern(mb, mb_shape_of(*all[which]), 9, 0.3, 0), step));
    mb_tensor y = of(in);
    mb_grad(y, &step, 1, &d);
    double value = mb_item(y);
    *slope = mb_item(d);
    mb_scope_end(scope);
    return value;
}

/* Central differences with h: an error of h^2 times a third derivative, and of 1e-16 / h. What is recorded is
 * the same for every backend. */
static void against_differences(const char *what, mb_tensor (*of)(given), bool net)
{
    const double h = 1e-5;
    mb_context *mb = open_on(backend_names[0]);
    for (int which = 0; which < (net ? 6 : 5); which++) {
        double slope, unused;
        slope_at(mb, which, 0.1, of, net, &slope);
        double up = slope_at(mb, which, 0.1 + h, of, net, &unused);
        double down = slope_at(mb, which, 0.1 - h, of, net, &unused);
        expect(fabs((up - down) / (2 * h) - slope) < 1e-8 * (1 + fabs(slope)),
               "%s, input %d: %.12g, by differences %.12g", what, which, slope, (up - down) / (2 * h));
    }
    expect_ok(mb);
    close_all();
}

static mb_tensor stored_loss(given in)
{
    return loss_of(in, ways[0].options);
}
static mb_tensor reversible_loss(given in)
{
    return loss_of(in, ways[2].options);
}
static mb_tensor normalized_loss(given in)
{
    return loss_of(in, (mb_mesa_options){.reversible = true, .normalize = true});
}

Test(mesa, derivatives_equal_differences)
{
    against_differences("stored", stored_loss, false);
    against_differences("reversible", reversible_loss, false);
    against_differences("normalized", normalized_loss, false);
}

/* As lambda goes to 0, o / lambda goes to linear attention: to first order, o / lambda - that is about
 * lambda |k|^2. A key of length 0 stays 0. */
Test(mesa, small_lambda_is_linear_attention)
{
    for (int b = 0; b < 2; b++) {
        mb_context *mb = open_on(backend_names[b]);
        given in = inputs(mb, true, false);
        in.ridge = mb_scalar(mb, MB_FLOAT64, 1e-9);
        mb_tensor left = mb_exp(mb_neg(mb_cumsum(in.log_forget, 2, false))); /* R_0 grows by 1/g */
        mb_tensor y = mb_div(mesa(in, ways[0].options), 1e-9);
        mb_tensor want =
            mb_gated_attention(mb_mul(in.q, mb_unsqueeze(left, 3)), in.k, in.v,
                               mb_unsqueeze(in.log_forget, 3), (mb_gated_attention_options){0}, NULL);
        expect_close(y, want, 1e-6, "linear attention");
        mb_tensor z = mb_zeros(mb, MB_FLOAT64, MB_SHAPE(1, 1, 2, 3)), lambda = mb_scalar(mb, MB_FLOAT64, 1),
                  g;
        y = mb_mesa_attention(z, z, z, (mb_tensor){0}, lambda, (mb_mesa_options){.normalize = true}, NULL);
        mb_grad(y, &z, 1, &g);
        expect(norm2(y) == 0 && norm2(g) == 0, "%s: of zeros", backend_names[b]);
        close_all();
    }
}

/* Bytes that a gradient takes at most, beside what its caller handed in: float64, one head of 16. */
static double peak(int64_t tokens, mb_mesa_options options)
{
    mb_context *mb = open_on("cpu");
    mb_shape shape = MB_SHAPE(1, 1, tokens, 16);
    given in = {.q = mb_variable(mb, MB_FLOAT64, shape),
                .k = mb_variable(mb, MB_FLOAT64, shape),
                .v = mb_variable(mb, MB_FLOAT64, shape),
                .log_forget = mb_variable(mb, MB_FLOAT64, MB_SHAPE(1, 1, tokens)),
                .ridge = mb_variable(mb, MB_FLOAT64, MB_SHAPE(1))};
    mb_tensor xs[6], g[6];
    int n = list(in, xs);
    mb_eval(xs, n);
    mb_grad(mesa(in, options), xs, n, g);
    mb_costs costs;
    mb_forecast(mb, g, n, &costs);
    expect_ok(mb);
    close_all();
    return (double)(costs.loop_bytes + costs.temporary_bytes);
}

/* By the inverse step what is held beside inputs and results grows by a dozen vectors of 16 a token (queries,
 * keys, cotangents in the scans' order, and their products); where all are stored, by one matrix more. */
Test(mesa, memory_of_inverse_steps_does_not_grow_with_matrices)
{
    mb_mesa_options stored = {.chunk = 16}, back = {.chunk = 16, .reversible = true};
    const double token = 16 * sizeof(double);
    double vectors = (peak(512, back) - peak(256, back)) / 256 / token;
    double more = (peak(512, stored) - peak(256, stored)) / 256 / token - vectors;
    expect(vectors < 14, "%g vectors a token by inverse steps", vectors);
    mb_context *mb = open_on("cpu"); /* steps that are written out keep more */
    expect(!has_loops(mb) || fabs(more - 16) < 1, "%g vectors a token more where all are stored", more);
    close_all();
}

/* ---- MesaNet ---- */

static mb_tensor net(given in, mb_mesanet_options options)
{
    options.beta = in.beta;
    return mb_mesanet_attention(in.q, in.k, in.v, in.log_forget, in.ridge, options);
}

Test(mesa, mesanet_equals_elimination)
{
    for (int b = 0; b < 2; b++) {
        mb_context *mb = open_on(backend_names[b]);
        for (int gates = 0; gates < 2; gates++) {
            given in = inputs(mb, gates, true);
            against_elimination("token by token", in, true, net(in, (mb_mesanet_options){.steps = 12}));
            against_elimination("chunks", in, true, net(in, (mb_mesanet_options){.steps = 12, .chunk = 4}));
        }
        expect_ok(mb);
        close_all();
    }
}

/* All H_t as matrices, and their systems by Cholesky's method, which is differentiated as it is. */
static mb_tensor dense(given in)
{
    mb_tensor kk = mb_mul(mb_unsqueeze(in.k, 4), mb_unsqueeze(in.k, 3)),
              one = mb_ones(in.k.ctx, MB_FLOAT64, MB_SHAPE(B, H, T, 1));
    mb_tensor beta = mb_unsqueeze(in.beta, 3), forget = mb_unsqueeze(in.log_forget, 3);
    mb_tensor flat = mb_mul(mb_reshape(kk, MB_SHAPE(B, H, T, DK * DK)), beta);
    mb_tensor sums = mb_gated_attention(one, one, flat, forget, (mb_gated_attention_options){0}, NULL);
    mb_tensor matrices = mb_reshape(sums, MB_SHAPE(B, H, T, DK, DK));
    mb_tensor ridge = mb_unsqueeze(mb_diagonal_matrix(in.ridge), 1);
    mb_tensor x = mb_squeeze(mb_solve_spd(mb_add(matrices, ridge), mb_unsqueeze(in.q, 4)), 4);
    return mb_gated_attention(x, in.k, mb_mul(in.v, beta), forget, (mb_gated_attention_options){0}, NULL);
}

Test(mesa, implicit_derivative_equals_that_of_a_dense_inverse)
{
    for (int b = 0; b < 2; b++) {
        mb_context *mb = open_on(backend_names[b]);
        given in = inputs(mb, true, true);
        mb_tensor xs[6], v[6], g[2][6], h[2][6];
        int n = list(in, xs);
        for (int i = 0; i < n; i++)
            v[i] = pattern(mb, mb_shape_of(xs[i]), 20 + i, 0.5, 0);
        for (int way = 0; way < 2; way++) {
            mb_tensor y = way ? net(in, (mb_mesanet_options){.steps = 10, .chunk = 4}) : dense(in);
            mb_grad(mb_square(y), xs, n, g[way]);
            mb_hvp(mb_square(y), xs, v, n, h[way]);
        }
        for (int i = 0; i < n; i++) {
            expect_close(g[1][i], g[0][i], 1e-9, "gradient");
            expect_close(h[1][i], h[0][i], 1e-8, "Hessian-vector product");
        }
        expect_ok(mb);
        close_all();
    }
}

static mb_tensor implicit_loss(given in)
{
    return mb_sum(mb_square(net(in, (mb_mesanet_options){.steps = 10})), MB_ALL);
}
static mb_tensor unrolled_loss(given in)
{
    return mb_sum(mb_square(net(in, (mb_mesanet_options){.steps = 2, .unrolled = true})), MB_ALL);
}
static mb_tensor no_steps_loss(given in)
{
    return mb_sum(mb_square(net(in, (mb_mesanet_options){.steps = 0})), MB_ALL);
}

Test(mesa, mesanet_derivatives_equal_differences)
{
    against_differences("implicit", implicit_loss, true);
    against_differences("two steps, unrolled", unrolled_loss, true);
    against_differences("no steps", no_steps_loss, true);
}

/* Without steps it is gated linear attention with queries by the diagonal, here that of a running sum; and a
 * tolerance of 1 is no step. */
Test(mesa, no_steps_are_gated_linear_attention)
{
    for (int b = 0; b < 2; b++) {
        mb_context *mb = open_on(backend_names[b]);
        given in = inputs(mb, false, true);
        mb_tensor diagonal = mb_add(mb_cumsum(mb_square(in.k), 2, false), mb_unsqueeze(in.ridge, 1));
        mb_tensor want = mb_gated_attention(mb_div(in.q, diagonal), in.k, in.v, (mb_tensor){0},
                                            (mb_gated_attention_options){0}, NULL);
        expect_close(net(in, (mb_mesanet_options){.steps = 0, .chunk = 3}), want, 1e-13, "no steps");
        expect_close(net(in, (mb_mesanet_options){.steps = 3, .tolerance = 10}), want, 1e-13, "tolerance");
        close_all();
    }
}

/* ---- edges ---- */

static void refused(mb_context *mb, const char *word)
{
    expect(mb_error(mb) == MB_INVALID && strstr(mb_message(mb), word) &&
               strstr(mb_message(mb), "mesa_test.c"),
           "\"%s\": %s", word, mb_message(mb));
    mb_clear_error(mb);
}

Test(mesa, mistakes_are_told)
{
    mb_context *mb = open_on("cpu");
    mb_tensor q = mb_zeros(mb, MB_FLOAT32, MB_SHAPE(1, 2, 6, 2)),
              k = mb_zeros(mb, MB_FLOAT32, MB_SHAPE(1, 2, 5, 2));
    mb_tensor one = mb_ones(mb, MB_FLOAT32, MB_SHAPE0), three = mb_ones(mb, MB_FLOAT32, MB_SHAPE(3)),
              none = {0};
    mb_mesa_options o = {0};
    mb_mesanet_options n = {0};
    mb_mesa_attention(q, k, q, none, one, o, NULL);
    refused(mb, "k [1,2,5,2]");
    mb_mesa_attention(q, q, q, q, one, o, NULL);
    refused(mb, "log_forget");
    mb_mesa_attention(q, q, q, none, three, o, NULL);
    refused(mb, "lambda [3]");
    mb_mesanet_attention(q, q, q, none, three, n);
    refused(mb, "ridge [3]");
    n.steps = -1;
    mb_mesanet_attention(q, q, q, none, one, n);
    refused(mb, "-1 steps");
    n.beta = q;
    mb_mesanet_attention(q, q, q, none, one, n);
    refused(mb, "beta");
    close_all();
}

/* Gradients of both layers, which record loops, rules and solves. */
static double both_gradients(mb_context *mb)
{
    mb_scope scope = mb_scope_begin(mb);
    mb_tensor q = mb_full(mb, MB_FLOAT64, MB_SHAPE(1, 1, 5, 2), 0.5),
              one = mb_full(mb, MB_FLOAT64, MB_SHAPE0, 1), g;
    mb_mesa_options back = {.reversible = true, .keep_every = 2, .normalize = true, .chunk = 2};
    mb_tensor y = mb_mesa_attention(q, q, q, (mb_tensor){0}, one, back, NULL);
    y = mb_mesanet_attention(y, q, y, (mb_tensor){0}, one, (mb_mesanet_options){.steps = 2, .chunk = 2});
    mb_grad(mb_square(y), &q, 1, &g);
    double sum = mb_item(mb_sum(g, MB_ALL));
    mb_scope_end(scope);
    return sum;
}

/* About 80 of all allocations fail, each by itself: MB_NO_MEMORY or the right number, and nothing is left. */
Test(mesa, allocations_fail)
{
    counter c = {0};
    mb_allocator allocator = counting_allocator(&c);
    double want = 0;
    uint64_t all = 0;
    for (uint64_t n = 0; n <= all; n += n ? 1 + all / 80 : 1) {
        c = (counter){0};
        mb_context *mb =
            mb_open_with(&(mb_options){.backend = "reference", .threads = 1, .allocator = &allocator});
        cr_assert(mb && mb_error(mb) == MB_OK, "open");
        uint64_t before = c.calls;
        c.fail_at = n ? before + n : 0;
        double got = both_gradients(mb);
        all = n ? all : c.calls - before;
        want = n ? want : got;
        expect(mb_error(mb) == MB_OK ? got == want : mb_error(mb) == MB_NO_MEMORY, "allocation %llu: %s",
               (unsigned long long)n, mb_message(mb));
        mb_close(mb);
        expect(c.blocks == 0 && c.bytes == 0, "allocation %llu: %lld bytes left", (unsigned long long)n,
               (long long)c.bytes);
    }
}

/* No sequences, no tokens: results of the right shape, gradients of zeros. */
Test(mesa, nothing)
{
    for (int b = 0; b < 2; b++)
        for (int tokens = 0; tokens < 2; tokens++) {
            mb_context *mb = open_on(backend_names[b]);
            mb_tensor q = mb_from(mb, MB_FLOAT32, tokens ? MB_SHAPE(0, 2, 3, 2) : MB_SHAPE(1, 2, 0, 2), NULL);
            mb_tensor ridge = mb_full(mb, MB_FLOAT32, MB_SHAPE0, 1), g;
            for (int w = 0; w < WAYS + 2; w++) {
                mb_tensor y =
                    w < WAYS
                        ? mb_mesa_attention(q, q, q, (mb_tensor){0}, ridge, ways[w].options, NULL)
                        : mb_mesanet_attention(q, q, q, (mb_tensor){0}, ridge,
                                               (mb_mesanet_options){.steps = 2, .chunk = 4 * (w - WAYS)});
                expect(same_shape(mb_shape_of(y), mb_shape_of(q)), "%s, way %d", backend_names[b], w);
                mb_grad(y, &ridge, 1, &g);
                expect(norm2(g) == 0, "%s, way %d: a gradient", backend_names[b], w);
            }
            expect_ok(mb);
            close_all();
        }
}
