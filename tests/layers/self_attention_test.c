/* SPDX-License-Identifier: MIT
 *
 * self_attention_test.c - linear self-attention against loops, and the constructed weights of 2212.07677
 * against gradient steps that are written with mb_grad: values, and derivatives by the rates. */
#include "fixture.h"

/* ---- against loops ---- */

enum { B = 2, N = 6, D = 3, M = 4, KEY = 2 };

/* out_a = sum_b W[a,b] z_b of one layer and head; W: [rows,columns] */
static void map(const double *W, const double *z, int rows, int columns, double *out)
{
    for (int a = 0; a < rows; a++) {
        out[a] = 0;
        for (int b = 0; b < columns; b++)
            out[a] += W[a * columns + b] * z[b];
    }
}

/* One layer of one prompt. w[0..3]: query, key, value [H,KEY,M], projection [H,M,KEY], of this layer. */
static void one_layer(const double *const w[4], const mb_self_attention_options *o, int heads, double *z)
{
    double old[N * M];
    int n = o->unmasked ? N : N - 1, over = o->scores == MB_SCORES_SOFTMAX_MASKED ? N : n;
    memcpy(old, z, sizeof old);
    for (int h = 0; h < heads; h++)
        for (int j = 0; j < N; j++) {
            double q[KEY], k[KEY], v[KEY], sum[KEY] = {0}, out[M], weight[N], total = 0;
            map(w[0] + h * KEY * M, old + j * M, KEY, M, q);
            for (int i = 0; i < over; i++) {
                map(w[1] + h * KEY * M, old + i * M, KEY, M, k);
                weight[i] = k[0] * q[0] + k[1] * q[1];
                if (o->scores != MB_SCORES_LINEAR)
                    weight[i] = exp(weight[i] / sqrt(KEY));
                total += weight[i];
            }
            for (int i = 0; i < n; i++) {
                map(w[2] + h * KEY * M, old + i * M, KEY, M, v);
                for (int a = 0; a < KEY; a++)
                    sum[a] += v[a] * weight[i] / (o->scores != MB_SCORES_LINEAR ? total : 1);
            }
            map(w[3] + h * M * KEY, sum, M, KEY, out);
            for (int a = 0; a < M; a++)
                z[j * M + a] += out[a];
        }
}

static void variant(mb_context *mb, mb_self_attention_options o)
{
    mb_params *p = mb_params_new_with(mb, 5, MB_FLOAT64);
    o.dim = D;
    o.key = KEY;
    o.init = mb_init_normal(0.3);
    mb_self_attention layer = mb_self_attention_new(p, "lsa", o);
    mb_tensor z = pattern(mb, MB_SHAPE(B, N, M), 3, 1, 0);
    int heads = o.heads ? (int)o.heads : 1;
    const double *all[4] = {values(layer.query), values(layer.key), values(layer.value),
                            values(layer.projection)};
    double want[B * N * M], answer[B];
    memcpy(want, values(z), sizeof want);
    for (int b = 0; b < B; b++) {
        for (int l = 0; l < o.layers; l++) {
            const double *w[4];
            for (int i = 0; i < 4; i++)
                w[i] = all[i] + (o.tied ? 0 : l) * heads * KEY * M;
            one_layer(w, &o, heads, want + b * N * M);
        }
        answer[b] = -want[b * N * M + (N - 1) * M + D];
    }
    char what[100];
    snprintf(what, sizeof what, "%s: %d layers %d heads%s%s scores %d", mb_backend_name(mb), (int)o.layers,
             heads, o.tied ? " tied" : "", o.unmasked ? " unmasked" : "", (int)o.scores);
    expect_close(mb_self_attention_apply(layer, z), mb_from(mb, MB_FLOAT64, MB_SHAPE(B, N, M), want), 1e-12,
                 what);
    expect_close(mb_self_attention_predict(layer, z), mb_from(mb, MB_FLOAT64, MB_SHAPE(B, 1), answer), 1e-12,
                 what);
    mb_params_free(p);
}

Test(self_attention, against_loops)
{
    for (int k = 0; k < 2; k++) {
        mb_context *mb = open_on(backend_names[k]);
        for (int bits = 0; bits < 16; bits++)
            for (int scores = 0; scores < 3; scores++)
                variant(mb, (mb_self_attention_options){.layers = bits & 1 ? 3 : 1,
                                                        .heads = bits & 2 ? 2 : 0,
                                                        .tied = bits & 4,
                                                        .unmasked = bits & 8,
                                                        .scores = (mb_scores)scores});
        close_all();
    }
}

Test(self_attention, parameters)
{
    mb_context *mb = open_on("cpu");
    mb_params *p = mb_params_new_with(mb, 5, MB_FLOAT64);
    mb_self_attention layer =
        mb_self_attention_new(p, "lsa", (mb_self_attention_options){.dim = 10, .layers = 2, .heads = 2});
    static const char *const names[] = {"lsa.query", "lsa.key", "lsa.value", "lsa.projection"};
    expect(mb_params_count(p) == 4 && mb_params_size(p) == 2 * 2 * 4 * 121, "%lld parameters",
           (long long)mb_params_size(p));
    for (int i = 0; i < 4; i++)
        expect(strcmp(mb_params_name(p, i), names[i]) == 0, "%s", mb_params_name(p, i));
    /* variance 0.002 / (L fan_in): 484 draws */
    double in = norm2(layer.key) / sqrt(484 * 0.001 / 11),
           out = norm2(layer.projection) / sqrt(484 * 0.001 / 22);
    expect(fabs(in - 1) < 0.2 && fabs(out - 1) < 0.2, "initial sizes %g %g", in, out);

    /* Another basis of keys and queries, another split of value and projection: the same products. */
    mb_linear_transformer a = mb_self_attention_products(layer);
    layer.query = mb_mul(layer.query, 4.0), layer.key = mb_mul(layer.key, 0.25);
    layer.value = mb_mul(layer.value, 0.5), layer.projection = mb_mul(layer.projection, 2.0);
    mb_linear_transformer b = mb_self_attention_products(layer);
    expect_close(b.P, a.P, 0, "P");
    expect_close(b.Q, a.Q, 0, "Q");
    expect(same_shape(mb_shape_of(a.P), MB_SHAPE(2, 2, 11, 11)) && a.options.scale == 1, "%s",
           shape_text(mb_shape_of(a.P)));
    mb_params_free(p);
    close_all();
}

/* ---- gradient descent ---- */

/* Rates of step t: 0-d, or entry t of [steps]. */
static mb_tensor rate(mb_tensor rates, int t)
{
    return mb_shape_of(rates).rank ? mb_squeeze(mb_slice(rates, 0, t, 1, 1), 0) : rates;
}

/* The tokens' y-entries after some steps, by mb_grad alone. x: [P,n+1,d], y: [P,n,e], W0: [e,d]. Each step is
 * y_j <- y_j - DeltaW x_j with DeltaW = -eta grad l(W0) of the current pairs, for the query, too; with gamma,
 * x_j <- x_j - gamma grad_j, where sum_i x_i x_i^T x_j is the gradient of |X X^T|^2 / 4 by the context's x
 * and of |X^T x|^2 / 2 by the query's. */
static mb_tensor explicit_steps(mb_tensor x, mb_tensor y, mb_tensor W0, mb_tensor eta, mb_tensor gamma,
                                int steps)
{
    int64_t prompts = mb_dim(x, 0), n = mb_dim(y, 1), e = mb_dim(W0, 0), d = mb_dim(W0, 1);
    mb_tensor query = mb_slice(x, 1, n, 1, 1), pairs = mb_slice(x, 1, 0, n, 1);
    mb_tensor out = mb_neg(mb_matmul(query, mb_transpose(W0))); /* [P,1,e] */
    for (int t = 0; t < steps; t++) {
        mb_tensor W = mb_broadcast(W0, MB_SHAPE(prompts, e, d)), g;
        mb_tensor residual = mb_sub(mb_einsum("bnd,bed->bne", pairs, W), y);
        mb_grad(mb_mul(mb_sum(mb_square(residual), MB_ALL), 0.5 / (double)n), &W, 1, &g);
        mb_tensor delta = mb_neg(mb_mul(g, rate(eta, t)));
        y = mb_sub(y, mb_einsum("bnd,bed->bne", pairs, delta));
        out = mb_sub(out, mb_einsum("bnd,bed->bne", query, delta));
        if (gamma.ctx) {
            mb_tensor by_pairs, by_query;
            mb_tensor moments = mb_einsum("bnd,bnc->bdc", pairs, pairs);
            mb_grad(mb_mul(mb_sum(mb_square(moments), MB_ALL), 0.25), &pairs, 1, &by_pairs);
            mb_tensor products = mb_einsum("bnd,bqd->bnq", pairs, query);
            mb_grad(mb_mul(mb_sum(mb_square(products), MB_ALL), 0.5), &query, 1, &by_query);
            pairs = mb_sub(pairs, mb_mul(by_pairs, rate(gamma, t)));
            query = mb_sub(query, mb_mul(by_query, rate(gamma, t)));
        }
    }
    return mb_concat(((mb_tensor[]){y, out}), 2, 1); /* [P,n+1,e] */
}

/* The construction's y-entries equal the explicit steps', to 1e-12, and the derivatives of a loss by eta,
 * gamma and W0, to 1e-10. */
static void construction(mb_context *mb, int steps, int e, bool start, bool plus, bool each)
{
    enum { P = 5, n = 10, d = 4 };
    mb_tensor x = mb_mul(pattern(mb, MB_SHAPE(P, n + 1, d), 1, 1, 0), 0.5),
              y = pattern(mb, MB_SHAPE(P, n, e), 2, 1, 0);
    mb_tensor W0 = start ? pattern(mb, MB_SHAPE(e, d), 3, 0.3, 0) : mb_zeros(mb, MB_FLOAT64, MB_SHAPE(e, d));
    mb_tensor eta = pattern(mb, each ? MB_SHAPE(steps) : MB_SHAPE0, 4, 0.3, 1.3), gamma = {0};
    if (plus)
        gamma = pattern(mb, each ? MB_SHAPE(steps) : MB_SHAPE0, 5, 0.02, 0.06);
    mb_self_attention layer =
        mb_self_attention_gd(eta, gamma, start ? W0 : (mb_tensor){0}, n,
                             (mb_self_attention_options){.dim = d, .outputs = e, .layers = steps});
    mb_tensor z = mb_prompt_tokens(x, y);
    if (start) { /* the query's y-entry begins as -W0 x */
        mb_tensor first = mb_neg(mb_matmul(mb_slice(x, 1, n, 1, 1), mb_transpose(W0)));
        z = mb_add(z, mb_pad(mb_pad(first, 1, n, 0), 2, d, 0));
    }
    mb_tensor after = mb_slice(mb_self_attention_apply(layer, z), 2, d, e, 1);
    mb_tensor want = explicit_steps(x, y, W0, eta, gamma, steps);
    char what[120];
    snprintf(what, sizeof what, "%s: %d steps, %d outputs%s%s%s", mb_backend_name(mb), steps, e,
             start ? ", W0" : "", plus ? ", GD++" : "", each ? ", a rate for each" : "");
    expect_close(after, want, 1e-12, what);
    mb_tensor answer = mb_self_attention_predict(layer, z),
              explicit_answer = mb_neg(mb_squeeze(mb_slice(want, 1, n, 1, 1), 1));
    expect_close(answer, explicit_answer, 1e-12, what);

    mb_tensor xs[3] = {eta, W0}, g[3], h[3];
    int count = start ? 2 : 1;
    if (plus)
        xs[count++] = gamma;
    mb_tensor target = pattern(mb, MB_SHAPE(P, e), 6, 1, 0);
    mb_grad(mb_mean(mb_square(mb_sub(answer, target)), MB_ALL), xs, count, g);
    mb_grad(mb_mean(mb_square(mb_sub(explicit_answer, target)), MB_ALL), xs, count, h);
    for (int i = 0; i < count; i++) {
        /* gamma moves x after y has been stepped: one step does not see it */
        bool seen = steps > 1 || !plus || i < count - 1;
        expect(!seen || norm2(h[i]) > 1e-3, "%s: derivative %d is nothing", what, i);
        expect_close(g[i], h[i], 1e-10, what);
    }
}

Test(self_attention, gradient_descent)
{
    for (int k = 0; k < 2; k++) {
        mb_context *mb = open_on(backend_names[k]);
        for (int bits = 0; bits < 32; bits++)
            construction(mb, bits & 1 ? 3 : 1, bits & 2 ? 2 : 1, bits & 4, bits & 8, bits & 16);
        close_all();
    }
}

/* Sum of the losses of one step over a grid of eta is a parabola in eta; its minimum, by mb_directional, is
 * the rate that a search would find: the tools of autograd.h on the layer. */
Test(self_attention, best_rate)
{
    mb_context *mb = open_on("cpu");
    enum { P = 20000, n = 10, d = 10 };
    mb_tensor x = mb_sub(mb_uniform(mb, mb_key_of(1), MB_FLOAT64, MB_SHAPE(P, n + 1, d)), 0.5);
    mb_tensor w = mb_normal(mb, mb_key_of(2), MB_FLOAT64, MB_SHAPE(P, d)), y = mb_einsum("bnd,bd->bn", x, w);
    mb_tensor eta = mb_full(mb, MB_FLOAT64, MB_SHAPE0, 1), one = mb_full(mb, MB_FLOAT64, MB_SHAPE0, 1);
    mb_tensor truth = mb_slice(y, 1, n, 1, 1), slope, curvature;
    for (int round = 0; round < 2; round++) {
        mb_self_attention gd = mb_self_attention_gd(eta, (mb_tensor){0}, (mb_tensor){0}, n,
                                                    (mb_self_attention_options){.dim = d, .layers = 1});
        mb_tensor error = mb_sub(mb_self_attention_predict(gd, mb_prompt_tokens(x, y)), truth);
        mb_tensor loss = mb_mul(mb_mean(mb_square(error), MB_ALL), 0.5);
        mb_directional(loss, &eta, &one, 1, &slope, &curvature);
        if (round == 1) { /* Newton's step on a parabola ends at its minimum */
            expect(fabs(mb_item(slope)) < 1e-14, "slope %g", mb_item(slope));
            /* 6.0 and 0.206 in 2212.07677's setting; a mean of 20000 tasks is within about 2 % of that */
            expect(near(mb_item(eta), 6.0, 0.03, 0) && near(mb_item(loss), 0.206, 0.06, 0), "eta %g, loss %g",
                   mb_item(eta), mb_item(loss));
        }
        eta = mb_alias(mb_sub(eta, mb_div(slope, curvature)));
    }
    close_all();
}

static void expect_error(mb_context *ctx, const char *part)
{
    expect(mb_error(ctx) == MB_INVALID && strstr(mb_message(ctx), part) &&
               strstr(mb_message(ctx), "self_attention_test.c"),
           "wanted \"%s\" in: %s", part, mb_message(ctx));
    mb_clear_error(ctx);
}

Test(self_attention, mistakes)
{
    mb_context *mb = open_on("cpu");
    mb_params *p = mb_params_new_with(mb, 1, MB_FLOAT64);
    mb_tensor none = {0}, eta = mb_full(mb, MB_FLOAT64, MB_SHAPE(3), 1);
    mb_self_attention_options o = {.dim = 3, .layers = 2};
    mb_self_attention_new(p, "a", (mb_self_attention_options){.dim = 3, .key = -1});
    expect_error(mb, "self_attention: key -1");
    mb_self_attention_new(p, "a", (mb_self_attention_options){.dim = 0});
    expect_error(mb, "self_attention: dim 0");
    mb_self_attention layer = mb_self_attention_gd(eta, none, none, 10, o);
    expect_error(mb, "self_attention_gd: eta has 1 axes");
    eta = mb_full(mb, MB_FLOAT64, MB_SHAPE0, 1);
    mb_self_attention_gd(eta, mb_full(mb, MB_FLOAT64, MB_SHAPE(5), 1), none, 10, o);
    expect_error(mb, "self_attention_gd: gamma has 1 axes");
    mb_self_attention_gd(eta, none, mb_zeros(mb, MB_FLOAT64, MB_SHAPE(3, 1)), 10, o);
    expect_error(mb, "self_attention_gd: wanted W0 [1,3]");
    mb_self_attention_gd(eta, none, none, 0, o);
    expect_error(mb, "self_attention_gd: n is 0");
    mb_tensor z = mb_zeros(mb, MB_FLOAT64, MB_SHAPE(2, 5, 3));
    layer = mb_self_attention_new(p, "b", o);
    expect(!mb_valid(mb_self_attention_apply(layer, z)), "width 3");
    expect_error(mb, "wanted tokens [prompts, n+1, 4]");
    mb_params_free(p);
    close_all();
}
