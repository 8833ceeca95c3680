/* SPDX-License-Identifier: MIT
 *
 * equivalence_test.c - what the papers prove equal must be equal here, values and outer gradients: E1 to E8
 * of section 4 of the notes on 2310.13807. The other side is always built from public ops. */
#include "fixture.h"

/* x: [B,N,D], kernel: [H,D,dh], bias: [H,dh] -> [B,H,N,dh] */
static mb_tensor view(mb_tensor x, mb_tensor kernel, mb_tensor bias)
{
    return mb_add(mb_einsum("bnd,hde->bhne", x, kernel), mb_unsqueeze(bias, 1));
}

/* e: [B,H,N,dh] -> [B,N,D] */
static mb_tensor project(const tiny *t, mb_tensor e)
{
    return mb_add(mb_einsum("bhne,hed->bnd", e, tiny_get(t, "h_k")), tiny_get(t, "h_bias"));
}

/* Gradients of both losses with respect to n tensors must agree. */
static void expect_same_gradients(mb_tensor a, mb_tensor b, const mb_tensor *xs, int n, double tolerance,
                                  const char *what)
{
    mb_tensor ga[16], gb[16];
    char text[128];
    mb_grad(a, xs, n, ga);
    mb_grad(b, xs, n, gb);
    for (int i = 0; i < n; i++) {
        snprintf(text, sizeof text, "%s, gradient %d", what, i);
        expect(norm2(gb[i]) > 1e-6, "%s is zero: the comparison is empty", text);
        expect_close(ga[i], gb[i], tolerance, text);
    }
}

/* E1: one full-batch step from zero is linear attention with values (x - g_bias) g_k^T; and its outer
 * gradient, which goes through the inner one, is linear attention's plain one. */
static void linear_attention(const char *backend)
{
    tiny t = tiny_ttt(open_on(backend), (mb_ttt_options){.inner_steps = 1});
    mb_tensor x = tiny_x(t.mb, 3), y = mb_ttt_apply(t.layer, x, MB_NO_KEY, NULL);
    mb_tensor q = view(x, tiny_get(&t, "psi_k"), tiny_get(&t, "psi_b"));
    mb_tensor k = view(x, tiny_get(&t, "phi_k"), tiny_get(&t, "phi_b"));
    mb_tensor v = mb_einsum("bnd,hed->bhne", mb_sub(x, tiny_get(&t, "g_bias")), tiny_get(&t, "g_k"));
    mb_tensor S = mb_mul(mb_matmul(mb_transpose(k), v), 1.0 / (TINY_N * TINY_DH));
    mb_tensor z = project(&t, mb_matmul(q, S));
    expect_close(y, z, 1e-14, "E1");

    mb_tensor xs[9] = {x};
    static const char *const names[] = {"psi_k", "psi_b", "phi_k", "phi_b", "g_k", "g_bias", "h_k", "h_bias"};
    for (int i = 0; i < 8; i++)
        xs[i + 1] = tiny_get(&t, names[i]);
    expect_same_gradients(outer_loss(y), outer_loss(z), xs, 9, 1e-14, "E1");

    /* The same through mb_attend, which has tokens before heads. */
    mb_tensor order[3] = {q, k, v};
    for (int i = 0; i < 3; i++)
        order[i] = mb_permute(order[i], MB_AXES(0, 2, 1, 3));
    mb_tensor a = mb_attend(order[0], order[1], order[2], MB_ATTENTION_LINEAR, false, 0);
    expect_close(project(&t, mb_permute(a, MB_AXES(0, 2, 1, 3))), z, 1e-14, "E1 by mb_attend");
    mb_params_free(t.p);
    close_all();
}

Test(equivalence, e1_linear_attention)
{
    for (int i = 0; i < 2; i++)
        linear_attention(backend_names[i]);
}

/* ---- one token after the other: q, k, v: [B,T,H,d], weights W: [B,H,dv,dk] ---- */

enum { B = 2, T = 5, H = 2, DK = 3, DV = 4 };

typedef struct stream {
    mb_context *mb;
    mb_tensor q, k, v;
} stream;

static stream open_stream(const char *backend)
{
    stream s = {.mb = open_on(backend)};
    s.q = pattern(s.mb, MB_SHAPE(B, T, H, DK), 21, 1, 0);
    s.k = pattern(s.mb, MB_SHAPE(B, T, H, DK), 22, 0.7, 0);
    s.v = pattern(s.mb, MB_SHAPE(B, T, H, DV), 23, 1, 0);
    return s;
}

/* Token t of [B,T,H,d] -> [B,H,d] */
static mb_tensor token(mb_tensor x, int t)
{
    return mb_squeeze(mb_slice(x, 1, t, 1, 1), 1);
}

/* 1/2 || W k - v ||^2 for each image and head: [B,H] */
static mb_tensor token_loss(mb_tensor W, mb_tensor k, mb_tensor v)
{
    mb_tensor e = mb_sub(mb_einsum("bhed,bhd->bhe", W, k), v);
    return mb_mul(mb_sum(mb_square(e), MB_AXES(-1)), 0.5);
}

/* E2 (TTT-LM, theorem 1): gradients all at W_0 = 0, rate 1: causal linear attention without normaliser. */
static void causal(const char *backend)
{
    stream s = open_stream(backend);
    mb_tensor W0 = mb_zeros(s.mb, MB_FLOAT64, MB_SHAPE(B, H, DV, DK)), W = W0, z[T];
    for (int t = 0; t < T; t++) {
        mb_tensor g;
        mb_grad(token_loss(W0, token(s.k, t), token(s.v, t)), &W0, 1, &g);
        W = mb_sub(W, g);
        z[t] = mb_einsum("bhed,bhd->bhe", W, token(s.q, t));
    }
    mb_tensor a = mb_stack(z, T, 1), b = mb_attend(s.q, s.k, s.v, MB_ATTENTION_LINEAR, true, 1);
    expect_close(a, b, 1e-14, "E2");
    expect_same_gradients(outer_loss(a), outer_loss(b), (mb_tensor[]){s.q, s.k, s.v}, 3, 1e-13, "E2");
    close_all();
}

Test(equivalence, e2_causal_linear_attention)
{
    for (int i = 0; i < 2; i++)
        causal(backend_names[i]);
}

/* E3: Nadaraya and Watson's estimator with kernel exp(q . k) is softmax attention; a factor that depends on
 * the query alone cancels. */
static void kernel(const char *backend)
{
    stream s = open_stream(backend);
    mb_tensor logits = mb_einsum("bthd,bshd->bhts", s.q, s.k);
    mb_tensor factor = mb_unsqueeze(mb_einsum("bthd,bthd->bht", s.q, s.q), -1);
    mb_tensor kappa = mb_exp(mb_add(logits, factor));
    mb_tensor sum = mb_einsum("bhts,bshe->bthe", kappa, s.v);
    mb_tensor total = mb_permute(mb_sum(kappa, MB_KEEP(-1)), MB_AXES(0, 2, 1, 3)); /* [B,T,H,1] */
    mb_tensor a = mb_div(sum, total), b = mb_attend(s.q, s.k, s.v, MB_ATTENTION_SOFTMAX, false, 1);
    expect_close(a, b, 1e-14, "E3");
    expect_same_gradients(outer_loss(a), outer_loss(b), (mb_tensor[]){s.q, s.k, s.v}, 3, 1e-12, "E3");
    close_all();
}

Test(equivalence, e3_kernel)
{
    for (int i = 0; i < 2; i++)
        kernel(backend_names[i]);
}

/* E4: online gradient descent is the delta rule, W (I - eta k k^T) + eta v k^T. */
static void delta_rule(const char *backend)
{
    stream s = open_stream(backend);
    mb_tensor eta = pattern(s.mb, MB_SHAPE(H, 1, 1), 24, 0.2, 0.5),
              W = mb_zeros(s.mb, MB_FLOAT64, MB_SHAPE(B, H, DV, DK));
    mb_tensor V = W, I = mb_eye(s.mb, MB_FLOAT64, DK), a[T], b[T];
    for (int t = 0; t < T; t++) {
        mb_tensor k = token(s.k, t), v = token(s.v, t), q = token(s.q, t), g;
        mb_grad(token_loss(W, k, v), &W, 1, &g);
        W = mb_sgd_update(W, g, eta);
        mb_tensor kk = mb_mul(eta, mb_einsum("bhd,bhe->bhde", k, k));
        V = mb_add(mb_matmul(V, mb_sub(I, kk)), mb_mul(eta, mb_einsum("bhe,bhd->bhed", v, k)));
        a[t] = mb_einsum("bhed,bhd->bhe", W, q);
        b[t] = mb_einsum("bhed,bhd->bhe", V, q);
    }
    mb_tensor y = mb_stack(a, T, 1), z = mb_stack(b, T, 1);
    expect_close(y, z, 1e-13, "E4");
    expect_same_gradients(outer_loss(y), outer_loss(z), (mb_tensor[]){s.q, s.k, s.v, eta}, 4, 1e-12, "E4");
    close_all();
}

Test(equivalence, e4_delta_rule)
{
    for (int i = 0; i < 2; i++)
        delta_rule(backend_names[i]);
}

/* ---- E5: the dual form of the last step, section 1.4 of the notes ---- */

/* The vector-Jacobian product of (r - mean) / sqrt(variance + eps) * s, by hand: section 1.3. */
static mb_tensor norm_vjp(mb_tensor r, mb_tensor s, mb_tensor dy)
{
    mb_tensor sigma = mb_sqrt(mb_add(mb_variance(r, MB_KEEP(-1)), 1e-6));
    mb_tensor hat = mb_div(mb_sub(r, mb_mean(r, MB_KEEP(-1))), sigma), e = mb_mul(dy, s);
    mb_tensor centred = mb_sub(e, mb_mean(e, MB_KEEP(-1)));
    return mb_div(mb_sub(centred, mb_mul(hat, mb_mean(mb_mul(e, hat), MB_KEEP(-1)))), sigma);
}

/* gelu'(z), section 1.3 */
static mb_tensor gelu_slope(mb_tensor z)
{
    const double k = 0.7978845608028654;
    mb_tensor z2 = mb_square(z), t = mb_tanh(mb_mul(mb_mul(z, mb_add(mb_mul(z2, 0.044715), 1.0)), k));
    mb_tensor inner = mb_mul(mb_add(mb_mul(z2, 3 * 0.044715), 1.0), k);
    return mb_mul(mb_add(mb_add(t, 1.0), mb_mul(mb_mul(z, mb_sub(1.0, mb_square(t))), inner)), 0.5);
}

/* Two full-batch steps of the MLP with all gradients by hand; the second is never taken, only applied: dual.
 */
static mb_tensor dual_mlp(const tiny *t, mb_tensor x)
{
    mb_tensor W1 = tiny_get(t, "W1"), b1 = mb_unsqueeze(tiny_get(t, "b1"), 1), W2 = tiny_get(t, "W2"),
              b2 = mb_unsqueeze(tiny_get(t, "b2"), 1);
    mb_tensor phi = view(x, tiny_get(t, "phi_k"), tiny_get(t, "phi_b"));
    mb_tensor psi = view(x, tiny_get(t, "psi_k"), tiny_get(t, "psi_b"));
    mb_tensor scale = mb_unsqueeze(tiny_get(t, "norm_scale"), 1),
              bias = mb_unsqueeze(tiny_get(t, "norm_bias"), 1);
    mb_tensor de = {0}, dz = {0}, a = {0};
    for (int step = 0; step < 2; step++) {
        mb_tensor z = mb_add(mb_matmul(phi, W1), b1);
        a = mb_gelu(z);
        mb_tensor e = mb_add(mb_matmul(a, W2), b2);
        mb_tensor r = mb_add(mb_matmul(e, tiny_get(t, "g_k")), tiny_get(t, "g_bias"));
        mb_tensor y = mb_layer_normalize(r, scale, bias, 1e-6);
        mb_tensor dy = mb_mul(mb_sub(y, mb_unsqueeze(x, 1)), 1.0 / (TINY_N * TINY_DH));
        de = mb_matmul(norm_vjp(r, scale, dy), mb_transpose(tiny_get(t, "g_k")));
        dz = mb_mul(mb_matmul(de, mb_transpose(W2)), gelu_slope(z));
        if (step == 1)
            break;
        W1 = mb_sub(W1, mb_matmul(mb_transpose(phi), dz));
        b1 = mb_sub(b1, mb_sum(dz, MB_KEEP(2)));
        W2 = mb_sub(W2, mb_matmul(mb_transpose(a), de));
        b2 = mb_sub(b2, mb_sum(de, MB_KEEP(2)));
    }
    mb_tensor Z = mb_sub(mb_matmul(psi, W1), mb_matmul(mb_matmul(psi, mb_transpose(phi)), dz));
    mb_tensor A = mb_gelu(mb_add(Z, mb_sub(b1, mb_sum(dz, MB_KEEP(2)))));
    mb_tensor O = mb_sub(mb_matmul(A, W2), mb_matmul(mb_matmul(A, mb_transpose(a)), de));
    return project(t, mb_add(O, mb_sub(b2, mb_sum(de, MB_KEEP(2)))));
}

static void dual(const char *backend)
{
    tiny t = tiny_ttt(open_on(backend), (mb_ttt_options){.learner = MB_LEARNER_MLP, .inner_steps = 2});
    mb_tensor x = tiny_x(t.mb, 2), y = mb_ttt_apply(t.layer, x, MB_NO_KEY, NULL), z = dual_mlp(&t, x);
    expect_close(y, z, 1e-12, "E5");
    mb_tensor xs[15] = {x};
    static const char *const names[] = {"W1",    "b1",  "W2",     "b2",  "phi_k",  "phi_b",      "psi_k",
                                        "psi_b", "g_k", "g_bias", "h_k", "h_bias", "norm_scale", "norm_bias"};
    for (int i = 0; i < 14; i++)
        xs[i + 1] = tiny_get(&t, names[i]);
    expect_same_gradients(outer_loss(y), outer_loss(z), xs, 15, 1e-11, "E5");
    mb_params_free(t.p);

    t = tiny_ttt(t.mb, (mb_ttt_options){.inner_steps = 1});
    mb_tensor phi = view(x, tiny_get(&t, "phi_k"), tiny_get(&t, "phi_b"));
    mb_tensor psi = view(x, tiny_get(&t, "psi_k"), tiny_get(&t, "psi_b"));
    mb_tensor dr = mb_mul(mb_unsqueeze(mb_sub(tiny_get(&t, "g_bias"), x), 1), 1.0 / (TINY_N * TINY_DH));
    mb_tensor de = mb_matmul(dr, mb_transpose(tiny_get(&t, "g_k")));
    mb_tensor gram = mb_matmul(psi, mb_transpose(phi));
    expect_close(mb_ttt_apply(t.layer, x, MB_NO_KEY, NULL), project(&t, mb_neg(mb_matmul(gram, de))), 1e-13,
                 "E5 linear");
    mb_params_free(t.p);
    close_all();
}

Test(equivalence, e5_dual_form)
{
    for (int i = 0; i < 2; i++)
        dual(backend_names[i]);
}

/* ---- E6: batches ---- */

/* One mini-batch of all tokens is full-batch descent, whatever the key; and full batches do not care about
 * the order of tokens. */
static void batches(const char *backend)
{
    mb_context *mb = open_on(backend);
    tiny full = tiny_ttt(mb, (mb_ttt_options){.learner = MB_LEARNER_MLP, .inner_steps = 3});
    tiny one =
        tiny_ttt(mb, (mb_ttt_options){.learner = MB_LEARNER_MLP, .inner_steps = 3, .inner_batch = TINY_N});
    mb_tensor x = tiny_x(mb, 2), y = mb_ttt_apply(full.layer, x, MB_NO_KEY, NULL);
    expect_close(mb_ttt_apply(one.layer, x, mb_key_of(5), NULL), y, 0, "E6: one mini-batch");

    mb_tensor order = mb_permutation(mb, mb_key_of(8), MB_SHAPE(TINY_N));
    mb_tensor moved = mb_ttt_apply(full.layer, mb_take(x, order, 1), MB_NO_KEY, NULL);
    expect_close(moved, mb_take(y, order, 1), 1e-13, "E6: tokens in another order");

    /* An image does not see the others of its batch. */
    mb_tensor alone = mb_ttt_apply(full.layer, mb_slice(x, 0, 1, 1, 1), MB_NO_KEY, NULL);
    expect_close(alone, mb_slice(y, 0, 1, 1, 1), 1e-13, "E6: one image alone");
    mb_params_free(full.p);
    mb_params_free(one.p);
    close_all();
}

Test(equivalence, e6_batches)
{
    for (int i = 0; i < 2; i++)
        batches(backend_names[i]);
}

/* E7: without steps the layer is h(f(psi(x); W_0)), and the inner loop's own parameters get exactly nothing.
 */
static void no_steps(const char *backend)
{
    tiny t = tiny_ttt(open_on(backend), (mb_ttt_options){.learner = MB_LEARNER_MLP});
    mb_tensor x = tiny_x(t.mb, 2), losses[1], y = mb_ttt_apply(t.layer, x, MB_NO_KEY, losses);
    mb_tensor psi = view(x, tiny_get(&t, "psi_k"), tiny_get(&t, "psi_b"));
    mb_tensor a = mb_gelu(mb_add(mb_matmul(psi, tiny_get(&t, "W1")), mb_unsqueeze(tiny_get(&t, "b1"), 1)));
    mb_tensor z = project(&t, mb_add(mb_matmul(a, tiny_get(&t, "W2")), mb_unsqueeze(tiny_get(&t, "b2"), 1)));
    expect_close(y, z, 1e-14, "E7");
    mb_tensor xs[6] = {tiny_get(&t, "phi_k"),  tiny_get(&t, "phi_b"),      tiny_get(&t, "g_k"),
                       tiny_get(&t, "g_bias"), tiny_get(&t, "norm_scale"), tiny_get(&t, "norm_bias")},
              g[6];
    mb_grad(outer_loss(y), xs, 6, g);
    for (int i = 0; i < 6; i++)
        expect(norm2(g[i]) == 0, "E7: gradient %d is %g, not zero", i, norm2(g[i]));
    expect(mb_item(losses[0]) > 0, "E7: the loss is still told");
    mb_params_free(t.p);
    close_all();
}

Test(equivalence, e7_no_steps)
{
    for (int i = 0; i < 2; i++)
        no_steps(backend_names[i]);
}

/* E8: training the decoder g in the inner loop as well changes nothing after one step, as the answer needs f
 * only; after two it does. */
static void decoder_too(const char *backend)
{
    mb_context *mb = open_on(backend);
    for (int steps = 1; steps <= 2; steps++) {
        tiny t = tiny_ttt(mb, (mb_ttt_options){.learned_start = MB_ON, .inner_steps = steps});
        mb_tensor x = tiny_x(mb, 2), y = mb_ttt_apply(t.layer, x, MB_NO_KEY, NULL), w[2], g[2];
        mb_tensor phi = view(x, tiny_get(&t, "phi_k"), tiny_get(&t, "phi_b"));
        mb_tensor psi = view(x, tiny_get(&t, "psi_k"), tiny_get(&t, "psi_b"));
        w[0] = mb_broadcast(tiny_get(&t, "W1"), MB_SHAPE(2, TINY_H, TINY_DH, TINY_DH));
        w[1] = mb_broadcast(tiny_get(&t, "g_k"), MB_SHAPE(2, TINY_H, TINY_DH, TINY_D));
        for (int s = 0; s < steps; s++) {
            mb_tensor r = mb_add(mb_matmul(mb_matmul(phi, w[0]), w[1]), tiny_get(&t, "g_bias"));
            mb_tensor squares = mb_sum(mb_square(mb_sub(r, mb_unsqueeze(x, 1))), MB_AXES(2, 3));
            mb_grad(mb_mul(squares, 0.5 / (TINY_N * TINY_DH)), w, 2, g);
            for (int i = 0; i < 2; i++)
                w[i] = mb_sub(w[i], g[i]);
        }
        mb_tensor z = project(&t, mb_matmul(psi, w[0]));
        if (steps == 1)
            expect_close(z, y, 1e-13, "E8");
        else
            expect(norm2(mb_sub(z, y)) > 1e-6, "E8: two steps on g as well should differ");
        mb_params_free(t.p);
    }
    close_all();
}

Test(equivalence, e8_decoder_too)
{
    for (int i = 0; i < 2; i++)
        decoder_too(backend_names[i]);
}
