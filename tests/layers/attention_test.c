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
    expect(strstr(mb_message(mb), "attend: got q [2,5,2,3], k [2,5,2,3], v [2,6,2,4]; wanted"), "%s",
           mb_message(mb));
    mb_clear_error(mb);
    mb_params_free(p);
    close_all();
}

/* ---- masks ---- */

enum { QUERIES = 5, KEYS = 3 };

/* Attention from weights: seen[b][h][i][j] as told by `sees`. */
typedef bool (*sees)(int b, int h, int i, int j);

static bool padding(int b, int h, int i, int j)
{
    (void)h, (void)i;
    return b ? j < 2 : true;
}
static bool padding_all(int b, int h, int i, int j) /* of the second image nothing is left */
{
    (void)h, (void)i;
    return b == 0 && j != 1;
}
static bool scattered(int b, int h, int i, int j)
{
    return (b + 2 * h + 3 * i + 5 * j) % 4 < 2;
}

static void masked(mb_context *mb, mb_attention_kind kind, bool causal, sees f, mb_shape shape)
{
    mb_tensor q = pattern(mb, MB_SHAPE(B, QUERIES, H, DK), 1, 1, 0),
              k = pattern(mb, MB_SHAPE(B, KEYS, H, DK), 2, 1, 0),
              v = pattern(mb, MB_SHAPE(B, KEYS, H, DV), 3, 1, 0), xs[3] = {q, k, v}, g[3], h[3];
    const double *qv = values(q), *kv = values(k), *vv = values(v);
    double scale = kind == MB_ATTENTION_SOFTMAX ? 1 / sqrt(DK) : 1.0 / (KEYS * DK);
    double want[B * QUERIES * H * DV] = {0}, bits[B * H * QUERIES * KEYS];
    bool blind[B * QUERIES * H];
    int n = 0;
    for (int b = 0; b < B; b++)
        for (int i = 0; i < QUERIES; i++)
            for (int d = 0; d < H; d++) {
                int row = (b * QUERIES + i) * H + d;
                double weight[KEYS], total = 0;
                blind[row] = true;
                for (int j = 0; j < KEYS; j++) {
                    double s = 0;
                    for (int e = 0; e < DK; e++) {
                        double a = qv[row * DK + e], c = kv[((b * KEYS + j) * H + d) * DK + e];
                        s += kind == MB_ATTENTION_ADAPTIVE ? feature(a) * feature(c) : a * c;
                    }
                    bool seen = (!f || f(b, d, i, j)) && (!causal || j <= i + KEYS - QUERIES);
                    weight[j] = !seen ? 0 : kind == MB_ATTENTION_SOFTMAX ? exp(s * scale) : s;
                    total += weight[j];
                    blind[row] &= !seen;
                }
                total = kind == MB_ATTENTION_LINEAR ? 1 / scale : total;
                for (int e = 0; e < DV && !blind[row]; e++)
                    for (int j = 0; j < KEYS; j++)
                        want[row * DV + e] += weight[j] / total * vv[((b * KEYS + j) * H + d) * DV + e];
            }
    for (int b = 0; b < shape.dim[0]; b++)
        for (int d = 0; d < shape.dim[1]; d++)
            for (int i = 0; i < shape.dim[2]; i++)
                for (int j = 0; j < shape.dim[3]; j++)
                    bits[n++] = f && f(b, d, i, j);
    mb_attend_options o = {.kind = kind, .causal = causal};
    if (f)
        o.mask = from_doubles(mb, MB_BOOL, shape, bits);
    mb_tensor y = mb_attend_with(q, k, v, o);
    expect_close(y, mb_from(mb, MB_FLOAT64, mb_shape_of(y), want), 1e-13, "masked");
    const double *got = values(y);
    mb_grad(outer_loss(y), xs, 3, g);
    mb_grad(mb_add(mb_sum(mb_square(g[1]), MB_ALL), mb_sum(mb_square(g[0]), MB_ALL)), xs, 3, h);
    const double *slope = values(g[0]), *second = values(h[0]);
    for (int row = 0; row < B * QUERIES * H; row++)
        for (int e = 0; e < DK && blind[row]; e++)
            expect(got[row * DV + e] == 0 && slope[row * DK + e] == 0 && second[row * DK + e] == 0,
                   "kind %d on %s: a query that sees nothing gives %g, slopes %g and %g", (int)kind,
                   mb_backend_name(mb), got[row * DV + e], slope[row * DK + e], second[row * DK + e]);
    for (int i = 0; i < 3; i++)
        expect(isfinite(norm2(g[i])) && isfinite(norm2(h[i])), "kind %d: derivatives by %d", (int)kind, i);
}

Test(attention, masks)
{
    const struct {
        sees f;
        mb_shape shape;
    } rows[] = {{NULL, MB_SHAPE0},
                {padding, MB_SHAPE(B, 1, 1, KEYS)},
                {padding_all, MB_SHAPE(B, 1, 1, KEYS)},
                {scattered, MB_SHAPE(B, H, QUERIES, KEYS)}};
    for (int i = 0; i < 2; i++) {
        mb_context *mb = open_on(backend_names[i]);
        for (int kind = 0; kind < 3; kind++)
            for (int r = 0; r < 4; r++)
                for (int causal = 0; causal < 2; causal++)
                    masked(mb, (mb_attention_kind)kind, causal, rows[r].f, rows[r].shape);
        close_all();
    }
}

/* A score may be as low as float32 goes: what is masked is lower. */
Test(attention, no_finite_score_is_a_mask)
{
    for (int i = 0; i < 2; i++) {
        mb_context *mb = open_on(backend_names[i]);
        mb_tensor q = mb_from(mb, MB_FLOAT32, MB_SHAPE(1, 2, 1, 1), ((float[]){-2e30f, 0}));
        mb_tensor k = mb_from(mb, MB_FLOAT32, MB_SHAPE(1, 2, 1, 1), ((float[]){1, 0}));
        mb_tensor v = mb_from(mb, MB_FLOAT32, MB_SHAPE(1, 2, 1, 1), ((float[]){1, 100}));
        const double *y = values(mb_attend(q, k, v, MB_ATTENTION_SOFTMAX, true, 1));
        expect(y[0] == 1 && y[1] == 50.5, "%g %g", y[0], y[1]);
        close_all();
    }
}

Test(attention, of_nothing)
{
    for (int i = 0; i < 2; i++) {
        mb_context *mb = open_on(backend_names[i]);
        for (int kind = 0; kind < 3; kind++)
            for (int causal = 0; causal < 2; causal++) {
                mb_tensor q = mb_ones(mb, MB_FLOAT32, MB_SHAPE(1, 2, 1, 3)),
                          k = mb_zeros(mb, MB_FLOAT32, MB_SHAPE(1, 0, 1, 3));
                mb_tensor y = mb_attend(q, k, k, (mb_attention_kind)kind, causal, 0);
                expect(mb_count(y) == 6 && norm2(y) == 0, "kind %d over no keys: %g", kind, norm2(y));
            }
        close_all();
    }
}

Test(attention, masked_layer)
{
    mb_context *mb = open_on("cpu");
    mb_params *p = mb_params_new_with(mb, 3, MB_FLOAT64);
    mb_attention l = mb_attention_new(p, "a", (mb_attention_options){.dim = 6, .heads = 2});
    mb_tensor x = pattern(mb, MB_SHAPE(B, N, 6), 4, 1, 0), some = mb_slice(x, 1, 0, 3, 1);
    mb_tensor mask = mb_reshape(mb_lt(mb_iota(mb, MB_INT32, N), 3), MB_SHAPE(1, 1, 1, N));
    mb_tensor y = mb_attention_apply_with(l, x, mask);
    expect_close(mb_slice(y, 1, 0, 3, 1), mb_attention_apply(l, some), 1e-14,
                 "padding is as if it were not there");
    mb_tensor all = mb_full(mb, MB_BOOL, MB_SHAPE0, 1);
    expect_close(mb_attention_apply_with(l, x, all), mb_attention_apply(l, x), 1e-14, "one truth for all");
    mb_attention_apply_with(l, x, mb_cast(mask, MB_FLOAT64));
    expect(mb_error(mb) == MB_INVALID && strstr(mb_message(mb), "float64; wanted bool"), "%s",
           mb_message(mb));
    mb_clear_error(mb);
    mb_attention_apply_with(l, x, mb_slice(mask, 3, 0, 2, 1));
    expect(mb_error(mb) == MB_INVALID && strstr(mb_message(mb), "broadcasts to the scores, [2,2,5,5]"), "%s",
           mb_message(mb));
    mb_clear_error(mb);
    mb_params_free(p);
    close_all();
}
