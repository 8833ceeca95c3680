/* SPDX-License-Identifier: MIT
 *
 * gated_attention_test.c - gated linear attention and the delta rule against plain loops, chunks against
 * single tokens, their derivatives against differences, causal attention in chunks, and mistakes. */
#include "fixture.h"

enum { B = 2, H = 2, T = 11, DK = 3, DV = 2 };

/* What a call is given, by what it has. */
typedef struct form {
    const char *name;
    int64_t decays; /* of a key: DK, 1 for one of the whole key, 0 for none */
    bool delta;
} form;

static const form forms[] = {{"linear attention", 0, false}, {"gated linear attention", DK, false},
                             {"one decay a key", 1, false},  {"DeltaNet", 0, true},
                             {"gated DeltaNet", 1, true},    {"a decay each, and delta", DK, true}};
enum { FORMS = sizeof forms / sizeof *forms };

typedef struct given {
    mb_tensor q, k, v, log_decay, beta;
} given;

static given inputs(mb_context *mb, const form *f)
{
    given in = {pattern(mb, MB_SHAPE(B, H, T, DK), 1, 1, 0),
                pattern(mb, MB_SHAPE(B, H, T, DK), 2, 0.7, 0),
                pattern(mb, MB_SHAPE(B, H, T, DV), 3, 1, 0),
                {0},
                {0}};
    if (f->decays)
        in.log_decay = mb_neg(mb_softplus(pattern(mb, MB_SHAPE(B, H, T, f->decays), 4, 2, 0)));
    if (f->delta)
        in.beta = mb_sigmoid(pattern(mb, MB_SHAPE(B, H, T), 5, 2, 0));
    return in;
}

static mb_tensor call(given in, int64_t chunk, int64_t keep_every, mb_tensor *last)
{
    return mb_gated_attention(
        in.q, in.k, in.v, in.log_decay,
        (mb_gated_attention_options){.chunk = chunk, .keep_every = keep_every, .beta = in.beta}, last);
}

/* A token of one head: S <- diag(a) S, then k u^T is added. */
static void plain_step(double S[DK][DV], const double *k, const double *v, const double *log_decay,
                       int64_t decays, const double *beta)
{
    for (int i = 0; i < DK && log_decay; i++)
        for (int j = 0; j < DV; j++)
            S[i][j] *= exp(log_decay[decays == 1 ? 0 : i]);
    for (int j = 0; j < DV; j++) {
        double u = v[j], said = 0;
        for (int i = 0; i < DK; i++)
            said += k[i] * S[i][j];
        if (beta)
            u = *beta * (u - said);
        for (int i = 0; i < DK; i++)
            S[i][j] += k[i] * u;
    }
}

static void against_loop(const char *backend, const form *f, given in, int64_t chunk)
{
    mb_tensor last, o = call(in, chunk, 0, &last);
    const double *q = values(in.q), *k = values(in.k), *v = values(in.v), *got = values(o),
                 *end = values(last);
    const double *a = f->decays ? values(in.log_decay) : NULL, *b = f->delta ? values(in.beta) : NULL;
    for (int s = 0; s < B * H; s++) {
        double S[DK][DV] = {{0}};
        for (int t = 0; t < T; t++) {
            int at = s * T + t;
            plain_step(S, k + (ptrdiff_t)at * DK, v + (ptrdiff_t)at * DV, a ? a + at * f->decays : NULL,
                       f->decays, b ? b + at : NULL);
            for (int j = 0; j < DV; j++) {
                double sum = 0;
                for (int i = 0; i < DK; i++)
                    sum += q[at * DK + i] * S[i][j];
                expect(fabs(sum - got[at * DV + j]) < 1e-12, "%s, %s, chunk %lld: token %d", backend, f->name,
                       (long long)chunk, t);
            }
        }
        for (int i = 0; i < DK * DV; i++)
            expect(fabs(end[s * DK * DV + i] - S[i / DV][i % DV]) < 1e-12,
                   "%s, %s, chunk %lld: the last state", backend, f->name, (long long)chunk);
    }
}

Test(gated_attention, equals_a_plain_loop)
{
    for (int b = 0; b < 2; b++) {
        mb_context *mb = open_on(backend_names[b]);
        for (int f = 0; f < FORMS; f++) {
            given in = inputs(mb, &forms[f]);
            for (int64_t chunk = 0; chunk <= 16; chunk += 4) /* 4 and 8 do not divide T, 12 and 16 are more */
                against_loop(backend_names[b], &forms[f], in, chunk);
        }
        expect_ok(mb);
        close_all();
    }
}

/* The chunked form is the same function: so are first derivatives, and second ones of the form that has all.
 */
Test(gated_attention, chunks_have_the_same_derivatives)
{
    for (int b = 0; b < 2; b++)
        for (int f = 0; f < FORMS; f++) {
            mb_context *mb = open_on(backend_names[b]);
            given in = inputs(mb, &forms[f]);
            mb_tensor xs[5] = {in.q, in.k, in.v}, g[2][5], h[2][5], v[5];
            int n = 3;
            if (forms[f].decays)
                xs[n++] = in.log_decay;
            if (forms[f].delta)
                xs[n++] = in.beta;
            for (int i = 0; i < n; i++)
                v[i] = pattern(mb, mb_shape_of(xs[i]), 20 + i, 1, 0);
            for (int way = 0; way < 2; way++) {
                mb_tensor y = mb_sum(mb_square(call(in, way ? 4 : 1, way ? 0 : MB_KEEP_SQRT, NULL)), MB_ALL);
                mb_grad(y, xs, n, g[way]);
                if (f == FORMS - 1)
                    mb_hvp(y, xs, v, n, h[way]);
            }
            for (int i = 0; i < n; i++) {
                expect_close(g[1][i], g[0][i], 1e-11, forms[f].name);
                if (f == FORMS - 1)
                    expect_close(h[1][i], h[0][i], 1e-10, forms[f].name);
            }
            expect_ok(mb);
            close_all();
        }
}

/* Of all inputs along one direction; as in recurrent_test.c. */
static double along(mb_context *mb, const form *f, double e, double *slope)
{
    mb_scope scope = mb_scope_begin(mb);
    mb_tensor step = mb_scalar(mb, MB_FLOAT64, e), d;
    given in = inputs(mb, f);
    mb_tensor *const all[] = {&in.q, &in.k, &in.v, &in.log_decay, &in.beta};
    for (int i = 0; i < 5; i++)
        if (all[i]->ctx)
            *all[i] = mb_add(*all[i], mb_mul(pattern(mb, mb_shape_of(*all[i]), 9 + i, 0.3, 0), step));
    mb_tensor y = mb_sum(mb_square(call(in, 4, 0, NULL)), MB_ALL);
    mb_grad(y, &step, 1, &d);
    double value = mb_item(y);
    *slope = mb_item(d);
    mb_scope_end(scope);
    return value;
}

Test(gated_attention, derivatives_equal_differences)
{
    const double h = 1e-5;
    for (int f = 0; f < FORMS; f++) {
        mb_context *mb = open_on(backend_names[0]);
        double slope, unused;
        along(mb, &forms[f], 0.2, &slope);
        double up = along(mb, &forms[f], 0.2 + h, &unused), down = along(mb, &forms[f], 0.2 - h, &unused);
        expect(fabs((up - down) / (2 * h) - slope) < 1e-8 * (1 + fabs(slope)), "%s: %g", forms[f].name,
               slope);
        expect_ok(mb);
        close_all();
    }
}

/* One decay for a whole key may take a chunk as far as it likes. */
Test(gated_attention, strong_decay_does_not_overflow)
{
    for (int b = 0; b < 2; b++) {
        mb_context *mb = open_on(backend_names[b]);
        mb_tensor q = mb_ones(mb, MB_FLOAT32, MB_SHAPE(1, 1, 8, 1)), g;
        mb_tensor decay = mb_full(mb, MB_FLOAT32, MB_SHAPE(1, 1, 8, 1), -60), last;
        mb_tensor o = mb_gated_attention(q, q, q, decay, (mb_gated_attention_options){.chunk = 8}, &last);
        mb_grad(o, &decay, 1, &g);
        for (int i = 0; i < 8; i++)
            expect(fabs(values(o)[i] - 1) < 1e-6 && fabs(values(g)[i]) < 1e-6, "%s: token %d",
                   backend_names[b], i);
        close_all();
    }
}

/* mb_attend's chunks are what its N by N scores give. */
Test(gated_attention, attend_in_chunks_equals_scores)
{
    for (int b = 0; b < 2; b++)
        for (int kind = MB_ATTENTION_LINEAR; kind <= MB_ATTENTION_ADAPTIVE; kind++) {
            mb_context *mb = open_on(backend_names[b]);
            mb_tensor xs[3] = {pattern(mb, MB_SHAPE(B, T, H, DK), 1, 1, 0),
                               pattern(mb, MB_SHAPE(B, T, H, DK), 2, 1, 0),
                               pattern(mb, MB_SHAPE(B, T, H, DV), 3, 1, 0)};
            mb_tensor y[2], g[2][3];
            for (int way = 0; way < 2; way++) {
                mb_attend_options o = {.kind = (mb_attention_kind)kind, .causal = true, .chunk = way ? 4 : 0};
                y[way] = mb_attend_with(xs[0], xs[1], xs[2], o);
                mb_grad(mb_square(y[way]), xs, 3, g[way]);
            }
            expect_close(y[1], y[0], 1e-13, "values");
            for (int i = 0; i < 3; i++)
                expect_close(g[1][i], g[0][i], 1e-12, "gradients");
            expect_ok(mb);
            close_all();
        }
}

/* A gradient; the best of three, in seconds. The first makes the plan. */
static double fastest(mb_context *mb, given in, int64_t chunk)
{
    double best = INFINITY;
    for (int i = 0; i < 4; i++) {
        mb_scope scope = mb_scope_begin(mb);
        double begun = seconds();
        mb_tensor g;
        mb_grad(call(in, chunk, 0, NULL), &in.k, 1, &g);
        mb_eval(&g, 1);
        if (i)
            best = fmin(best, seconds() - begun);
        mb_scope_end(scope);
    }
    return best;
}

/* Products in place of 1024 steps and back: 12 to 20 times as fast where it was measured; with the delta
 * rule, whose chunks are triangular systems besides, 3.3 to 4.7 times with AVX-512, AVX2 and SSE2. */
Test(gated_attention, chunks_are_faster)
{
    if (!testing("cpu"))
        return;
    mb_context *mb = open_as("cpu", NULL, 1);
    rng r = {1};
    for (int delta = 0; delta < 2; delta++) {
        given in = {0};
        mb_tensor *const all[] = {&in.q, &in.k, &in.v};
        for (int i = 0; i < 3; i++)
            *all[i] = draw(mb, &r, MB_FLOAT32, MB_SHAPE(2, 4, 1024, 32), -0.2, 0.2);
        if (delta)
            in.beta = draw(mb, &r, MB_FLOAT32, MB_SHAPE(2, 4, 1024), 0, 1);
        double one = fastest(mb, in, 0), many = fastest(mb, in, 32);
        expect(many < one / (delta ? 2 : 3), "%s: %g ms in chunks, %g token by token",
               delta ? "delta rule" : "linear attention", 1e3 * many, 1e3 * one);
    }
    close_all();
}

static void refused(mb_context *mb, const char *word)
{
    expect(mb_error(mb) == MB_INVALID && strstr(mb_message(mb), word) &&
               strstr(mb_message(mb), "gated_attention_test.c"),
           "\"%s\": %s", word, mb_message(mb));
    mb_clear_error(mb);
}

Test(gated_attention, mistakes_are_told)
{
    mb_context *mb = open_on("cpu");
    mb_tensor q = mb_zeros(mb, MB_FLOAT32, MB_SHAPE(1, 1, 6, 2)), none = {0};
    mb_tensor k = mb_zeros(mb, MB_FLOAT32, MB_SHAPE(1, 1, 5, 2)),
              d = mb_zeros(mb, MB_FLOAT32, MB_SHAPE(1, 1, 6, 3));
    mb_gated_attention(q, k, q, q, (mb_gated_attention_options){0}, NULL);
    refused(mb, "k is");
    mb_gated_attention(q, q, q, d, (mb_gated_attention_options){0}, NULL);
    refused(mb, "log_decay is");
    mb_gated_attention(q, q, q, none, (mb_gated_attention_options){.beta = q}, NULL);
    refused(mb, "beta is");
    mb_gated_attention(q, q, q, q, (mb_gated_attention_options){.chunk = -4}, NULL);
    refused(mb, "chunk is -4");
    close_all();
}
