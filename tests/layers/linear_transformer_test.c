/* SPDX-License-Identifier: MIT
 *
 * linear_transformer_test.c - linear transformers against loops in plain C in every variant, flat parameter
 * vectors, products with the Hessian, the yardstick of tests/bench, mistakes. */
#include "fixture.h"

/* ---- the formula of 2310.01082, token by token ---- */

typedef struct shape {
    int B, N, m, d, heads, layers, n; /* n: tokens of the context */
} shape;

/* What token j takes from token i of the context: z_i^T Q z_j, or its softmax over the first `over` tokens.
 */
static void scores(const shape *s, const double *Q, const double *z, int j, int over, bool softmax,
                   double *to)
{
    double total = 0;
    for (int i = 0; i < over; i++) {
        to[i] = 0;
        for (int a = 0; a < s->m; a++)
            for (int b = 0; b < s->m; b++)
                to[i] += z[i * s->m + a] * Q[a * s->m + b] * z[j * s->m + b];
        to[i] = softmax ? exp(to[i]) : to[i];
        total += to[i];
    }
    for (int i = 0; softmax && i < over; i++)
        to[i] /= total;
}

/* One prompt and layer: z [N,m] -> next. P, Q: [H,m,m] */
static void one_layer(const shape *s, const mb_linear_transformer_options *o, const double *P,
                      const double *Q, const double *z, double *next)
{
    double c = o->scale != 0 ? o->scale : 1.0 / (s->N - 1);
    for (int j = 0; j < s->N; j++)
        for (int a = 0; a < s->m; a++)
            next[j * s->m + a] = z[j * s->m + a];
    for (int h = 0; h < s->heads; h++)
        for (int j = 0; j < s->N; j++) {
            double weight[64], mixed[16] = {0};
            int over = o->scores == MB_SCORES_SOFTMAX_MASKED ? s->N : s->n;
            scores(s, Q + h * s->m * s->m, z, j, over, o->scores != MB_SCORES_LINEAR, weight);
            for (int i = 0; i < s->n; i++)
                for (int a = 0; a < s->m; a++)
                    mixed[a] += weight[i] * z[i * s->m + a];
            for (int a = 0; a < s->m; a++)
                for (int b = 0; b < s->m; b++)
                    next[j * s->m + a] += c * P[(h * s->m + a) * s->m + b] * mixed[b];
        }
    for (int i = 0; o->clip > 0 && i < s->N * s->m; i++)
        next[i] = fmax(-o->clip, fmin(o->clip, next[i]));
}

/* The full matrix of layer l, head h out of a parameter: [T,(H,)w,w]. */
static void widen(const mb_linear_transformer_options *o, const shape *s, const double *w, int l, bool corner,
                  double *to)
{
    int size = o->sparse ? s->d : s->m, T = o->tied ? 0 : l;
    for (int h = 0; h < s->heads; h++)
        for (int a = 0; a < s->m; a++)
            for (int b = 0; b < s->m; b++) {
                bool inside = a < size && b < size;
                to[(h * s->m + a) * s->m + b] =
                    inside ? w[((T * s->heads + h) * size + a) * size + b] : (corner && a == b);
            }
}

/* to: [B,N,m] */
static void loops(const shape *s, const mb_linear_transformer *t, const double *z, double *to)
{
    const mb_linear_transformer_options *o = &t->options;
    const double *p = values(t->P), *q = values(t->Q);
    int size = s->N * s->m;
    double *next = calloc((size_t)size, sizeof *next), P[3 * 64], Q[3 * 64];
    for (int b = 0; b < s->B; b++) {
        memcpy(to + b * size, z + b * size, (size_t)size * sizeof *to);
        for (int l = 0; l < s->layers; l++) {
            widen(o, s, p, l, o->sparse, P);
            widen(o, s, q, l, false, Q);
            one_layer(s, o, P, Q, to + b * size, next);
            memcpy(to + b * size, next, (size_t)size * sizeof *to);
        }
    }
    free(next);
}

static void against_loops(mb_context *mb, mb_linear_transformer_options o, int N)
{
    shape s = {.B = 3,
               .N = N,
               .d = (int)o.dim,
               .m = (int)o.dim + (o.outputs ? (int)o.outputs : 1),
               .heads = o.heads ? (int)o.heads : 1,
               .layers = (int)o.layers,
               .n = o.unmasked ? N : N - 1};
    int T = o.tied ? 1 : s.layers, w = o.sparse ? s.d : s.m, e = s.m - s.d;
    mb_shape shape = s.heads > 1 ? MB_SHAPE(T, s.heads, w, w) : MB_SHAPE(T, w, w);
    mb_linear_transformer t = {
        .P = pattern(mb, shape, 1, 0.4, 0), .Q = pattern(mb, shape, 2, 0.4, 0), .options = o};
    mb_tensor z = pattern(mb, MB_SHAPE(s.B, N, s.m), 3, 1, 0);
    double *want = calloc((size_t)(s.B * N * s.m), sizeof *want), answer[3 * 2];
    loops(&s, &t, values(z), want);
    char what[160];
    snprintf(what, sizeof what, "%s: d %d e %d N %d L %d H %d%s%s%s scores %d c %g clip %g",
             mb_backend_name(mb), s.d, e, N, s.layers, s.heads, o.tied ? " tied" : "",
             o.sparse ? " sparse" : "", o.unmasked ? " unmasked" : "", (int)o.scores, o.scale, o.clip);
    expect_close(mb_linear_transformer_apply(t, z), mb_from(mb, MB_FLOAT64, MB_SHAPE(s.B, N, s.m), want),
                 1e-12, what);
    for (int b = 0; b < s.B; b++)
        for (int i = 0; i < e; i++)
            answer[b * e + i] = -want[(b * N + N - 1) * s.m + s.d + i];
    expect_close(mb_linear_transformer_predict(t, z), mb_from(mb, MB_FLOAT64, MB_SHAPE(s.B, e), answer),
                 1e-12, what);
    free(want);
}

/* Prompts longer and shorter than tokens are wide, so that both ways through a layer are taken. */
static void every_variant(const char *backend)
{
    mb_context *mb = open_on(backend);
    for (int N = 2; N <= 12; N += 5)
        for (int layers = 0; layers <= 3; layers += layers ? 2 : 1)
            for (int bits = 0; bits < 16; bits++) {
                mb_linear_transformer_options o = {.dim = 3,
                                                   .layers = layers,
                                                   .heads = bits & 1 ? 2 : 0,
                                                   .outputs = bits & 2 ? 2 : 0,
                                                   .tied = bits & 4,
                                                   .sparse = bits & 8};
                if (layers == 0 && !o.tied)
                    continue; /* P would have no elements: nothing to compare */
                against_loops(mb, o, N);
                o.scale = -0.3;
                o.unmasked = bits & 1;
                against_loops(mb, o, N);
                o.scores = bits & 2 ? MB_SCORES_SOFTMAX : MB_SCORES_SOFTMAX_MASKED;
                against_loops(mb, o, N);
                o.scores = bits & 4 ? MB_SCORES_LINEAR : o.scores;
                o.clip = 0.9;
                against_loops(mb, o, N);
            }
    close_all();
}

Test(linear_transformer, against_loops)
{
    for (int i = 0; i < 2; i++)
        every_variant(backend_names[i]);
}

/* ---- parameters ---- */

Test(linear_transformer, parameters)
{
    mb_context *mb = open_on("cpu");
    mb_params *p = mb_params_new_with(mb, 3, MB_FLOAT64);
    mb_linear_transformer_options o = {.dim = 5, .layers = 3, .sparse = true};
    mb_linear_transformer t = mb_linear_transformer_new(p, "lt", o);
    expect(mb_linear_transformer_size(&o) == 150 && mb_params_size(p) == 150, "%lld parameters",
           (long long)mb_params_size(p));
    expect(strcmp(mb_params_name(p, 0), "lt.P") == 0 && strcmp(mb_params_name(p, 1), "lt.Q") == 0 &&
               mb_params_count(p) == 2,
           "names");
    double size = norm2(t.P);
    expect(size > 0.05 * sqrt(75) / 2 && size < 0.05 * sqrt(75) * 2, "initial size %g", size);
    o = (mb_linear_transformer_options){.dim = 5, .outputs = 2, .layers = 4, .heads = 3, .tied = true};
    expect(mb_linear_transformer_size(&o) == 2 * 3 * 49, "%lld", (long long)mb_linear_transformer_size(&o));

    /* A view of the two parameters in one vector is the same transformer, and so are its derivatives. */
    mb_tensor parts[2] = {mb_reshape(t.P, MB_SHAPE(-1)), mb_reshape(t.Q, MB_SHAPE(-1))};
    mb_tensor theta = mb_concat(parts, 2, 0), z = pattern(mb, MB_SHAPE(4, 9, 6), 1, 1, 0), g[2], flat;
    mb_linear_transformer view = mb_linear_transformer_view(theta, t.options);
    mb_tensor y = mb_linear_transformer_predict(t, z), v = mb_linear_transformer_predict(view, z);
    expect_close(v, y, 0, "view");
    mb_grad(y, (mb_tensor[]){t.P, t.Q}, 2, g);
    mb_grad(v, &theta, 1, &flat);
    parts[0] = mb_reshape(g[0], MB_SHAPE(-1)), parts[1] = mb_reshape(g[1], MB_SHAPE(-1));
    expect_close(flat, mb_concat(parts, 2, 0), 1e-14, "gradient");
    mb_params_free(p);
    close_all();
}

Test(linear_transformer, prompts)
{
    mb_context *mb = open_on("cpu");
    mb_tensor x = pattern(mb, MB_SHAPE(2, 4, 3), 1, 1, 0), y = pattern(mb, MB_SHAPE(2, 4, 2), 2, 1, 0);
    mb_tensor shorter = mb_slice(y, 1, 0, 3, 1), one = mb_squeeze(mb_slice(y, 2, 0, 1, 1), 2);
    const double *a = values(mb_prompt_tokens(x, y)), *b = values(mb_prompt_tokens(x, shorter)),
                 *c = values(mb_prompt_tokens(x, one)), *xv = values(x), *yv = values(y);
    for (int i = 0; i < 8; i++) {
        for (int k = 0; k < 5; k++) {
            double want = k < 3 ? xv[i * 3 + k] : i % 4 == 3 ? 0 : yv[i * 2 + k - 3];
            expect(a[i * 5 + k] == want && b[i * 5 + k] == want, "token %d entry %d", i, k);
            expect(k == 4 || c[i * 4 + k] == want, "one output: token %d entry %d", i, k);
        }
    }
    close_all();
}

/* ---- 2310.01082's own setting ---- */

enum { BATCH = 16, PAIRS = 20, D = 5, L = 3 };

/* Prompts under a key: x [BATCH,PAIRS+1,D], y [BATCH,PAIRS+1]; loss of theta: [150]. */
static mb_tensor loss_of(mb_tensor theta, mb_dtype dtype)
{
    mb_context *mb = theta.ctx;
    mb_tensor x = mb_normal(mb, mb_key_of(1), dtype, MB_SHAPE(BATCH, PAIRS + 1, D));
    mb_tensor w = mb_normal(mb, mb_key_of(2), dtype, MB_SHAPE(BATCH, D));
    mb_tensor y = mb_einsum("bnd,bd->bn", x, w);
    mb_linear_transformer t = mb_linear_transformer_view(
        theta, (mb_linear_transformer_options){.dim = D, .layers = L, .sparse = true});
    mb_tensor answer = mb_linear_transformer_predict(t, mb_prompt_tokens(x, y));
    return mb_mean(mb_square(mb_sub(answer, mb_slice(y, 1, PAIRS, 1, 1))), MB_ALL);
}

/* Forward over reverse, reverse over reverse, and differences of the gradient, of the whole model. */
Test(linear_transformer, products_with_the_hessian)
{
    for (int k = 0; k < 2; k++) {
        mb_context *mb = open_on(backend_names[k]);
        mb_tensor theta = pattern(mb, MB_SHAPE(150), 4, 0.2, 0), v = pattern(mb, MB_SHAPE(150), 5, 1, 0);
        mb_tensor y = loss_of(theta, MB_FLOAT64), forward, reverse, batch, second, diagonal;
        mb_hvp(y, &theta, &v, 1, &forward);
        mb_hvp_reverse(y, &theta, &v, 1, &reverse);
        mb_tensor two = mb_stack(((mb_tensor[]){theta, v}), 2, 0);
        mb_hvp_batch(y, &theta, &two, 1, &batch);
        expect_close(reverse, forward, 1e-12, "reverse over reverse");
        expect_close(mb_squeeze(mb_slice(batch, 0, 1, 1, 1), 0), forward, 1e-12, "batch");
        mb_tensor slope = {0};
        static const double h = 1e-3, at[4] = {1, -1, 2, -2}, factor[4] = {8, -8, -1, 1};
        for (int s = 0; s < 4; s++) { /* 4-point difference: h^4 in the step, 1e-16 / h in rounding */
            mb_tensor moved = mb_add(theta, mb_mul(v, h * at[s])), g;
            mb_grad(loss_of(moved, MB_FLOAT64), &moved, 1, &g);
            g = mb_mul(g, factor[s] / (12 * h));
            slope = s ? mb_add(slope, g) : g;
        }
        expect_close(forward, slope, 1e-8, "differences");
        mb_directional(y, &theta, &v, 1, NULL, &second);
        double vHv = mb_item(mb_dot(v, forward));
        expect(near(mb_item(second), vHv, 1e-12, 0), "%.17g along the line, %.17g by the product",
               mb_item(second), vHv);
        mb_tensor H = mb_hessian(y, &theta, 1), unit = mb_eye(mb, MB_FLOAT64, 150);
        mb_hessian_diagonal(y, &theta, 1, &diagonal);
        expect_close(mb_einsum("ij,j->i", H, v), forward, 1e-12, "dense");
        expect_close(diagonal, mb_sum(mb_mul(H, unit), MB_AXES(0)), 1e-12, "diagonal");
        close_all();
    }
}

/* The same loss as the one of tests/bench/steps.c, which carries tokens instead of S. */
static mb_tensor carried(mb_tensor theta)
{
    mb_context *mb = theta.ctx;
    mb_tensor x = mb_normal(mb, mb_key_of(1), MB_FLOAT32, MB_SHAPE(BATCH, PAIRS + 1, D));
    mb_tensor w = mb_normal(mb, mb_key_of(2), MB_FLOAT32, MB_SHAPE(BATCH, D));
    mb_tensor y = mb_einsum("bnd,bd->bn", x, w), z = mb_prompt_tokens(x, y);
    mb_tensor all = mb_reshape(theta, MB_SHAPE(2, L, D, D));
    for (int l = 0; l < L; l++) {
        mb_tensor W[2];
        for (int i = 0; i < 2; i++) {
            W[i] = mb_reshape(mb_slice(mb_slice(all, 0, i, 1, 1), 1, l, 1, 1), MB_SHAPE(D, D));
            W[i] = mb_pad(mb_pad(W[i], 0, 0, 1), 1, 0, 1);
        }
        mb_tensor corner = mb_pad(mb_pad(mb_ones(mb, MB_FLOAT32, MB_SHAPE(1, 1)), 0, D, 0), 1, D, 0);
        mb_tensor pairs = mb_slice(z, 1, 0, PAIRS, 1), S = mb_matmul(mb_transpose(pairs), pairs);
        mb_tensor T = mb_mul(mb_matmul(mb_matmul(mb_add(W[0], corner), S), W[1]), 1.0 / PAIRS);
        z = mb_add(z, mb_matmul(z, mb_transpose(T)));
    }
    mb_tensor answer = mb_reshape(mb_slice(mb_slice(z, 1, PAIRS, 1, 1), 2, D, 1, 1), MB_SHAPE(BATCH, 1));
    return mb_mean(mb_square(mb_add(answer, mb_slice(y, 1, PAIRS, 1, 1))), MB_ALL);
}

Test(linear_transformer, in_float32)
{
    mb_context *mb = open_on("cpu");
    mb_tensor theta = mb_cast(pattern(mb, MB_SHAPE(150), 4, 0.2, 0), MB_FLOAT32), g, h;
    mb_tensor y = loss_of(theta, MB_FLOAT32), z = carried(theta);
    expect(near(mb_item(y), mb_item(z), 1e-5, 0), "loss %.9g, %.9g", mb_item(y), mb_item(z));
    mb_grad(y, &theta, 1, &g);
    mb_grad(z, &theta, 1, &h);
    expect_close(g, h, 1e-4, "gradient");
    close_all();
}

/* P' = 0 and Q' = -eta I: the y-entry takes L steps of gradient descent on the context (2306.00297). */
Test(linear_transformer, is_gradient_descent)
{
    mb_context *mb = open_on("cpu");
    double eta = 0.3;
    mb_tensor x = pattern(mb, MB_SHAPE(4, 8, 3), 1, 1, 0), w = pattern(mb, MB_SHAPE(4, 3), 2, 1, 0);
    mb_tensor y = mb_einsum("bnd,bd->bn", x, w), W = mb_zeros(mb, MB_FLOAT64, MB_SHAPE(4, 3));
    mb_tensor pairs = mb_slice(x, 1, 0, 7, 1), targets = mb_slice(y, 1, 0, 7, 1);
    for (int step = 0; step < 4; step++) {
        mb_tensor g, residual = mb_sub(mb_einsum("bnd,bd->bn", pairs, W), targets);
        mb_grad(mb_mul(mb_sum(mb_square(residual), MB_ALL), 0.5 / 7), &W, 1, &g);
        W = mb_sub(W, mb_mul(g, eta));
    }
    mb_tensor query = mb_squeeze(mb_slice(x, 1, 7, 1, 1), 1);
    mb_tensor want = mb_sum(mb_mul(query, W), MB_KEEP(1));
    mb_linear_transformer t = {.options = {.dim = 3, .layers = 4, .tied = true, .sparse = true}};
    t.P = mb_zeros(mb, MB_FLOAT64, MB_SHAPE(1, 3, 3));
    t.Q = mb_unsqueeze(mb_mul(mb_eye(mb, MB_FLOAT64, 3), -eta), 0);
    expect_close(mb_linear_transformer_predict(t, mb_prompt_tokens(x, y)), want, 1e-13, "four steps");
    close_all();
}

/* ---- faults ---- */

static mb_status all_of_it(const mb_allocator *allocator)
{
    mb_context *mb = mb_open_with(
        &(mb_options){.backend = "reference", .threads = 1, .disable = "", .allocator = allocator});
    if (!mb)
        return MB_NO_MEMORY;
    mb_params *p = mb_params_new(mb, 1);
    mb_linear_transformer_options o = {.dim = 2, .layers = 2, .heads = 2, .sparse = true};
    mb_linear_transformer t = mb_linear_transformer_new(p, "a", o);
    mb_self_attention s = mb_self_attention_new(p, "b", (mb_self_attention_options){.dim = 2, .layers = 1});
    mb_tensor eta = mb_scalar(mb, MB_FLOAT32, 0.1),
              x = mb_sphere(mb, mb_key_of(1), MB_FLOAT32, MB_SHAPE(3, 5, 2)),
              y = mb_gamma(mb, mb_key_of(2), MB_FLOAT32, MB_SHAPE(3, 4), 0.5, 1);
    mb_self_attention gd = mb_self_attention_gd(eta, eta, (mb_tensor){0}, 4, s.options);
    mb_tensor z = mb_prompt_tokens(x, y), theta = mb_laplace(mb, mb_key_of(3), MB_FLOAT32, MB_SHAPE(32));
    mb_linear_transformer view = mb_linear_transformer_view(theta, o);
    mb_tensor out[6] = {mb_linear_transformer_predict(t, z), mb_linear_transformer_apply(view, z),
                        mb_self_attention_apply(s, z), mb_self_attention_predict(gd, z)};
    t.options.scores = MB_SCORES_SOFTMAX_MASKED;
    out[4] = mb_linear_transformer_apply(t, z);
    mb_grad(out[3], &eta, 1, &out[5]);
    mb_eval(out, 6);
    mb_params_free(p);
    return mb_close(mb);
}

/* The n-th allocation fails, and with an odd n all that follow: an error, unless it was got over; nothing
 * crashes, nothing leaks. */
Test(linear_transformer, every_allocation_fails)
{
    counter c = {0};
    mb_allocator allocator = counting_allocator(&c);
    expect(all_of_it(&allocator) == MB_OK && c.blocks == 0, "without faults");
    for (uint64_t n = 1, calls = c.calls; n <= calls; n += 1 + calls / 400) {
        c = (counter){.fail_at = n, .fail_on = n % 2};
        mb_status status = all_of_it(&allocator);
        expect((status == MB_NO_MEMORY || (status == MB_OK && n % 2 == 0)) && c.blocks == 0,
               "allocation %llu of %llu fails: %s, %lld blocks left", (unsigned long long)n,
               (unsigned long long)calls, mb_status_name(status), (long long)c.blocks);
    }
}

/* ---- mistakes ---- */

static void expect_error(mb_context *ctx, mb_tensor t, const char *part)
{
    expect(!mb_valid(t) && mb_error(ctx) == MB_INVALID && strstr(mb_message(ctx), part) &&
               strstr(mb_message(ctx), "linear_transformer_test.c"),
           "wanted \"%s\" in: %s", part, mb_message(ctx));
    mb_clear_error(ctx);
}

Test(linear_transformer, mistakes)
{
    mb_context *mb = open_on("cpu");
    mb_params *p = mb_params_new_with(mb, 1, MB_FLOAT64);
    mb_linear_transformer bad =
        mb_linear_transformer_new(p, "a", (mb_linear_transformer_options){.layers = 2});
    expect_error(mb, bad.P, "linear_transformer: dim 0");
    bad =
        mb_linear_transformer_new(p, "a", (mb_linear_transformer_options){.dim = 2, .scores = (mb_scores)7});
    expect_error(mb, bad.P, "7 is not a kind of scores");
    mb_linear_transformer_options o = {.dim = 3, .layers = 2};
    mb_linear_transformer t = mb_linear_transformer_new(p, "a", o);
    mb_tensor z = mb_zeros(mb, MB_FLOAT64, MB_SHAPE(2, 5, 4));
    expect_error(mb, mb_linear_transformer_apply(t, mb_zeros(mb, MB_FLOAT64, MB_SHAPE(2, 5, 3))),
                 "wanted tokens [prompts, n+1, 4]");
    expect_error(mb, mb_linear_transformer_predict(t, mb_zeros(mb, MB_FLOAT64, MB_SHAPE(2, 1, 4))),
                 "wanted tokens [prompts, n+1, 4]");
    t.options.layers = 3;
    expect_error(mb, mb_linear_transformer_predict(t, z), "wanted [3,4,4]");
    bad = mb_linear_transformer_view(mb_zeros(mb, MB_FLOAT64, MB_SHAPE(63)), o);
    expect_error(mb, bad.P, "theta has 63 elements, wanted [64]");
    mb_tensor three = mb_zeros(mb, MB_FLOAT64, MB_SHAPE(2, 5, 3)),
              four = mb_zeros(mb, MB_FLOAT64, MB_SHAPE(2, 3));
    expect_error(mb, mb_prompt_tokens(three, four), "prompt_tokens: wanted");
    expect_error(mb, mb_linear_transformer_predict(bad, z), "layer.P is the result of an op that failed");
    mb_params_free(p);
    close_all();
}
