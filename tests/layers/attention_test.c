/* SPDX-License-Identifier: MIT
 *
 * attention_test.c - the three kinds of attention against loops in plain C, masks, the layer with its
 * projections, and derivatives. */
#include "fixture.h"

enum { B = 2, N = 5, H = 2, DK = 3, DV = 4 };

/* What token `i` may see of n tokens. */
static int seen(int i, bool causal)
{
    return causal ? i + 1 : N;
}

static double feature(double x)
{
    return (x > 0 ? x : exp(x) - 1) + 1;
}

static double at(const double *x, int b, int n, int h, int e, int width)
{
    return x[((b * N + n) * H + h) * width + e];
}

static double product(const double *q, const double *k, int b, int i, int j, int h, mb_attention_kind kind)
{
    double sum = 0;
    for (int e = 0; e < DK; e++) {
        double u = at(q, b, i, h, e, DK), v = at(k, b, j, h, e, DK);
        sum += kind == MB_ATTENTION_ADAPTIVE ? feature(u) * feature(v) : u * v;
    }
    return sum;
}

static void attend(const double *q, const double *k, const double *v, mb_attention_kind kind, bool causal,
                   double scale, double *y)
{
    for (int b = 0; b < B; b++)
        for (int i = 0; i < N; i++)
            for (int h = 0; h < H; h++) {
                double weight[N], total = 0;
                for (int j = 0; j < seen(i, causal); j++) {
                    double s = product(q, k, b, i, j, h, kind);
                    weight[j] = kind == MB_ATTENTION_SOFTMAX ? exp(s * scale) : s;
                    total += weight[j];
                }
                for (int e = 0; e < DV; e++) {
                    double sum = 0;
                    for (int j = 0; j < seen(i, causal); j++)
                        sum += weight[j] * at(v, b, j, h, e, DV);
                    y[((b * N + i) * H + h) * DV + e] =
                        kind == MB_ATTENTION_LINEAR ? sum * scale : sum / total;
                }
            }
}

static void against_loops(const char *backend)
{
    mb_context *mb = open_on(backend);
    mb_tensor q = pattern(mb, MB_SHAPE(B, N, H, DK), 1, 1, 0),
              k = pattern(mb, MB_SHAPE(B, N, H, DK), 2, 1, 0),
              v = pattern(mb, MB_SHAPE(B, N, H, DV), 3, 1, 0);
    const double *qv = values(q), *kv = values(k), *vv = values(v);
    for (int kind = 0; kind < 3; kind++)
        for (int causal = 0; causal < 2; causal++)
            for (int given = 0; given < 2; given++) {
                double standard = kind == MB_ATTENTION_SOFTMAX ? 1 / sqrt(DK) : 1.0 / (N * DK);
                double want[B * N * H * DV];
                attend(qv, kv, vv, (mb_attention_kind)kind, causal, given ? 0.37 : standard, want);
                mb_tensor y = mb_attend(q, k, v, (mb_attention_kind)kind, causal, given ? 0.37 : 0);
                expect_close(y, mb_from(mb, MB_FLOAT64, MB_SHAPE(B, N, H, DV), want), 1e-13, backend);
            }
    close_all();
}

Test(attention, against_loops)
{
    for (int i = 0; i < 2; i++)
        against_loops(backend_names[i]);
}

/* More keys than queries: the last two queries of a causal sequence, given all of its keys, answer as before;
 * and what a kind without a mask makes of one query does not depend on the others. */
static void fewer_queries(const char *backend)
{
    mb_context *mb = open_on(backend);
    mb_tensor q = pattern(mb, MB_SHAPE(B, N, H, DK), 1, 1, 0),
              k = pattern(mb, MB_SHAPE(B, N, H, DK), 2, 1, 0),
              v = pattern(mb, MB_SHAPE(B, N, H, DV), 3, 1, 0), last = mb_slice(q, 1, N - 2, 2, 1);
    for (int kind = 0; kind < 3; kind++)
        for (int causal = 0; causal < 2; causal++) {
            mb_tensor all = mb_attend(q, k, v, (mb_attention_kind)kind, causal, 0);
            mb_tensor some = mb_attend(last, k, v, (mb_attention_kind)kind, causal, 0);
            expect_close(some, mb_slice(all, 1, N - 2, 2, 1), 1e-13, backend);
        }
    close_all();
}

Test(attention, fewer_queries)
{
    for (int i = 0; i < 2; i++)
        fewer_queries(backend_names[i]);
}

/* With causal, no later token is read, and none gets a derivative: order 1 and 2. */
Test(attention, causal_derivatives)
{
    mb_context *mb = open_on("cpu");
    mb_tensor q = pattern(mb, MB_SHAPE(B, N, H, DK), 1, 1, 0),
              k = pattern(mb, MB_SHAPE(B, N, H, DK), 2, 1, 0),
              v = pattern(mb, MB_SHAPE(B, N, H, DV), 3, 1, 0);
    for (int kind = 0; kind < 3; kind++) {
        mb_tensor y = mb_attend(q, k, v, (mb_attention_kind)kind, true, 0), g[3], h[3];
        mb_tensor xs[3] = {q, k, v};
        mb_grad(mb_sum(mb_square(mb_slice(y, 1, 0, 2, 1)), MB_ALL), xs, 3, g); /* of tokens 0 and 1 */
        mb_grad(mb_sum(mb_square(g[0]), MB_ALL), xs, 3, h);
        for (int i = 0; i < 3; i++) {
            expect(norm2(mb_slice(g[i], 1, 2, N - 2, 1)) == 0, "kind %d: token 2 on has a derivative", kind);
            expect(norm2(mb_slice(h[i], 1, 2, N - 2, 1)) == 0, "kind %d: a second derivative", kind);
            expect(isfinite(norm2(h[i])) && norm2(mb_slice(h[i], 1, 0, 2, 1)) > 0, "kind %d: order 2 of %d",
                   kind, i);
        }
    }
    close_all();
}

/* Scores of hundreds overflow no exponential. */
Test(attention, large_scores)
{
    mb_context *mb = open_on("cpu");
    mb_tensor q = mb_mul(pattern(mb, MB_SHAPE(B, N, H, DK), 1, 1, 0), 100.0), g;
    mb_tensor y = mb_attend(q, mb_mul(q, 10.0), q, MB_ATTENTION_SOFTMAX, true, 0);
    mb_grad(outer_loss(y), &q, 1, &g);
    expect(isfinite(norm2(y)) && isfinite(norm2(g)), "not finite");
    close_all();
}

/* The layer: one product for q, k and v, heads side by side in each. */
static void layer(const char *backend)
{
    mb_context *mb = open_on(backend);
    for (int no_bias = 0; no_bias < 2; no_bias++) {
        mb_params *p = mb_params_new_with(mb, 3, MB_FLOAT64);
        mb_attention l =
            mb_attention_new(p, "a", (mb_attention_options){.dim = 6, .heads = 2, .no_bias = no_bias});
        expect(mb_params_count(p) == (no_bias ? 2 : 4), "%d parameters", mb_params_count(p));
        if (!no_bias)
            set_pattern(p, "a.qkv.bias", 5, 1, 0);
        mb_tensor x = pattern(mb, MB_SHAPE(B, N, 6), 4, 1, 0), heads[2];
        mb_tensor qkv = mb_matmul(x, mb_transpose(mb_params_get(p, "a.qkv.weight")));
        if (!no_bias)
            qkv = mb_add(qkv, mb_params_get(p, "a.qkv.bias"));
        for (int h = 0; h < 2; h++) {
            mb_tensor part[3];
            for (int i = 0; i < 3; i++)
                part[i] = mb_slice(qkv, 2, 6 * i + 3 * h, 3, 1); /* [B,N,3] */
            mb_tensor s = mb_softmax(mb_mul(mb_matmul(part[0], mb_transpose(part[1])), 1 / sqrt(3)), -1);
            heads[h] = mb_matmul(s, part[2]);
        }
        mb_tensor z = mb_matmul(mb_concat(heads, 2, 2), mb_transpose(mb_params_get(p, "a.out.weight")));
        expect_close(mb_attention_apply(l, x), z, 1e-13, "layer"); /* the second bias starts at zero */
        mb_params_free(p);
    }
    close_all();
}

Test(attention, layer)
{
    for (int i = 0; i < 2; i++)
        layer(backend_names[i]);
}

Test(attention, mistakes)
{
    mb_context *mb = open_on("cpu");
    mb_params *p = mb_params_new(mb, 3);
    mb_attention_new(p, "a", (mb_attention_options){.dim = 6, .heads = 4});
    expect(mb_error(mb) == MB_INVALID, "4 heads in 6");
    mb_clear_error(mb);
    mb_attention l = mb_attention_new(p, "b", (mb_attention_options){.dim = 6, .heads = 2});
    expect(!mb_valid(mb_attention_apply(l, mb_zeros(mb, MB_FLOAT32, MB_SHAPE(2, 5, 7)))), "width 7");
    expect(strstr(mb_message(mb), "attention_test.c"), "the message names the caller's line: %s",
           mb_message(mb));
    mb_clear_error(mb);
    mb_tensor q = mb_zeros(mb, MB_FLOAT32, MB_SHAPE(B, N, H, DK)),
              v = mb_zeros(mb, MB_FLOAT32, MB_SHAPE(B, N + 1, H, DV));
    expect(!mb_valid(mb_attend(q, q, v, MB_ATTENTION_SOFTMAX, false, 0)), "keys and values differ in number");
    mb_clear_error(mb);
    mb_params_free(p);
    close_all();
}
