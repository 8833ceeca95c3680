/* SPDX-License-Identifier: MIT
 *
 * adjoint_test.c - E10: the outer gradient through T inner steps, four ways: reverse over reverse, which is
 * what the layer records; the adjoint recursion of section 1.5 of the notes, which keeps only the weights W_t
 * and goes back by one forward-over-reverse derivative a step; forward mode through everything; and finite
 * differences. */
#include "fixture.h"

enum { IMAGES = 2, T = 3, WEIGHTS = 4, INNER = 6, OUTER = 4, ALL = WEIGHTS + INNER + OUTER + 1 };

/* W_0; what the inner loss reads; what only the answer reads; x. */
static const char *const names[ALL - 1] = {"W1",    "b1",    "W2",     "b2",         "phi_k",
                                           "phi_b", "g_k",   "g_bias", "norm_scale", "norm_bias",
                                           "psi_k", "psi_b", "h_k",    "h_bias"};

typedef struct problem {
    tiny t;
    mb_tensor all[ALL]; /* in the order of names, then x */
} problem;

static problem open_problem(const char *backend)
{
    static const double rates[T] = {1, 0.7, 0.4};
    problem q = {
        .t = tiny_ttt(open_on(backend),
                      (mb_ttt_options){.learner = MB_LEARNER_MLP, .inner_steps = T, .inner_lr = rates})};
    for (int i = 0; i < ALL - 1; i++)
        q.all[i] = tiny_get(&q.t, names[i]);
    q.all[ALL - 1] = tiny_x(q.t.mb, IMAGES);
    return q;
}

static mb_tensor learner(const mb_tensor w[WEIGHTS], mb_tensor z)
{
    mb_tensor a = mb_gelu(mb_add(mb_matmul(z, w[0]), mb_unsqueeze(w[1], 2)));
    return mb_add(mb_matmul(a, w[2]), mb_unsqueeze(w[3], 2));
}

/* theta: phi_k, phi_b, g_k, g_bias, norm_scale, norm_bias, x. -> [B,H] */
static mb_tensor inner_loss(const mb_tensor w[WEIGHTS], const mb_tensor theta[INNER + 1])
{
    mb_tensor x = theta[INNER];
    mb_tensor phi = mb_add(mb_einsum("bnd,hde->bhne", x, theta[0]), mb_unsqueeze(theta[1], 1));
    mb_tensor r = mb_add(mb_matmul(learner(w, phi), theta[2]), theta[3]);
    r = mb_layer_normalize(r, mb_unsqueeze(theta[4], 1), mb_unsqueeze(theta[5], 1), 1e-6);
    return mb_mul(mb_sum(mb_square(mb_sub(r, mb_unsqueeze(x, 1))), MB_AXES(2, 3)), 0.5 / (TINY_N * TINY_DH));
}

/* outer: psi_k, psi_b, h_k, h_bias, x. */
static mb_tensor answer_loss(const mb_tensor w[WEIGHTS], const mb_tensor outer[OUTER + 1])
{
    mb_tensor psi = mb_add(mb_einsum("bnd,hde->bhne", outer[OUTER], outer[0]), mb_unsqueeze(outer[1], 1));
    return outer_loss(mb_add(mb_einsum("bhne,hed->bnd", learner(w, psi), outer[2]), outer[3]));
}

/* W_0 per image: [H,...] -> [B,H,...] */
static mb_tensor spread(mb_tensor w)
{
    mb_shape s = mb_shape_of(w), wide = {s.rank + 1, {IMAGES}};
    memcpy(wide.dim + 1, s.dim, (size_t)s.rank * sizeof *s.dim);
    return mb_broadcast(w, wide);
}

/* Section 1.5, with all W_t cut off from their history: nothing but them is kept of the inner loop. */
static void adjoint(const problem *q, const double rates[T], mb_tensor result[ALL])
{
    mb_tensor W[T + 1][WEIGHTS], theta[INNER + 1], outer[OUTER + 1], lambda[WEIGHTS], x = q->all[ALL - 1];
    memcpy(theta, q->all + WEIGHTS, INNER * sizeof *theta);
    memcpy(outer, q->all + WEIGHTS + INNER, OUTER * sizeof *outer);
    theta[INNER] = outer[OUTER] = x;
    for (int i = 0; i < WEIGHTS; i++)
        W[0][i] = mb_stop_gradient(spread(q->all[i]));
    for (int t = 0; t < T; t++) {
        mb_tensor g[WEIGHTS];
        mb_grad(inner_loss(W[t], theta), W[t], WEIGHTS, g);
        for (int i = 0; i < WEIGHTS; i++)
            W[t + 1][i] = mb_stop_gradient(mb_sub(W[t][i], mb_mul(g[i], rates[t])));
    }
    mb_tensor L = answer_loss(W[T], outer), xs[WEIGHTS + OUTER + 1], g[WEIGHTS + OUTER + 1], bar[INNER + 1];
    memcpy(xs, W[T], sizeof W[T]);
    memcpy(xs + WEIGHTS, outer, sizeof outer);
    mb_grad(L, xs, WEIGHTS + OUTER + 1, g);
    memcpy(lambda, g, sizeof lambda);
    for (int i = 0; i <= INNER; i++)
        bar[i] = i == INNER ? g[WEIGHTS + OUTER] : mb_zeros(q->t.mb, MB_FLOAT64, mb_shape_of(theta[i]));
    for (int t = T - 1; t >= 0; t--) {
        /* gradients with respect to (W, theta), then their derivative along lambda in W */
        mb_tensor both[WEIGHTS + INNER + 1], first[WEIGHTS + INNER + 1], second[WEIGHTS + INNER + 1];
        memcpy(both, W[t], sizeof W[t]);
        memcpy(both + WEIGHTS, theta, sizeof theta);
        mb_grad(inner_loss(W[t], theta), both, WEIGHTS + INNER + 1, first);
        mb_jvp(first, WEIGHTS + INNER + 1, W[t], lambda, WEIGHTS, second);
        for (int i = 0; i < WEIGHTS; i++)
            lambda[i] = mb_sub(lambda[i], mb_mul(second[i], rates[t]));
        for (int i = 0; i <= INNER; i++)
            bar[i] = mb_sub(bar[i], mb_mul(second[WEIGHTS + i], rates[t]));
    }
    for (int i = 0; i < WEIGHTS; i++)
        result[i] = mb_sum(lambda[i], MB_AXES(0));
    memcpy(result + WEIGHTS, bar, INNER * sizeof *bar);
    memcpy(result + WEIGHTS + INNER, g + WEIGHTS, OUTER * sizeof *g);
    result[ALL - 1] = bar[INNER];
}

static mb_tensor loss_of(const problem *q)
{
    return outer_loss(mb_ttt_apply(q->t.layer, q->all[ALL - 1], MB_NO_KEY, NULL));
}

static void four_ways(const char *backend)
{
    static const double rates[T] = {1, 0.7, 0.4};
    problem q = open_problem(backend);
    mb_tensor L = loss_of(&q), reverse[ALL], recursion[ALL];
    mb_grad(L, q.all, ALL, reverse);
    adjoint(&q, rates, recursion);
    for (int i = 0; i < ALL; i++) {
        const char *name = i < ALL - 1 ? names[i] : "x";
        expect(norm2(reverse[i]) > 1e-6, "%s: the gradient is zero", name);
        expect_close(recursion[i], reverse[i], 1e-11, name);

        /* Along a direction v: <gradient, v> = forward mode = central differences. */
        mb_tensor v = pattern(q.t.mb, mb_shape_of(q.all[i]), 40 + i, 1, 0), forward;
        double along = mb_item(mb_dot(reverse[i], v));
        mb_jvp(&L, 1, &q.all[i], &v, 1, &forward);
        expect(near(mb_item(forward), along, 1e-11, 1e-12), "%s: forward %.15g, reverse %.15g", name,
               mb_item(forward), along);
        if (i == ALL - 1)
            continue;
        /* Fourth order: (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12 h. */
        static const double factor[4] = {-8, 8, 1, -1}, place[4] = {-1, 1, -2, 2};
        const double h = 5e-6;
        mb_tensor was = mb_stop_gradient(q.all[i]);
        double sum = 0;
        for (int s = 0; s < 4; s++) {
            mb_assign(q.all[i], mb_add(was, mb_mul(v, place[s] * h)));
            sum += factor[s] * mb_item(loss_of(&q));
        }
        mb_assign(q.all[i], was);
        expect(near(sum / (12 * h), along, 1e-7, 1e-8), "%s: differences %.12g, reverse %.12g", name,
               sum / (12 * h), along);
    }
    mb_params_free(q.t.p);
    close_all();
}

Test(adjoint, e10_four_ways)
{
    for (int i = 0; i < 2; i++)
        four_ways(backend_names[i]);
}

/* first_order leaves the second-order terms out: another gradient, and for W_0 that of the last weights. */
Test(adjoint, first_order)
{
    problem q = open_problem("cpu");
    static const double rates[T] = {1, 0.7, 0.4};
    tiny t = tiny_ttt(
        q.t.mb, (mb_ttt_options){
                    .learner = MB_LEARNER_MLP, .inner_steps = T, .inner_lr = rates, .first_order = true});
    mb_tensor x = q.all[ALL - 1], y = mb_ttt_apply(t.layer, x, MB_NO_KEY, NULL);
    expect_close(y, mb_ttt_apply(q.t.layer, x, MB_NO_KEY, NULL), 0, "the same answer");
    mb_tensor W1 = tiny_get(&t, "W1"), phi_k = tiny_get(&t, "phi_k"), g[2], full;
    mb_grad(outer_loss(y), (mb_tensor[]){W1, phi_k}, 2, g);
    mb_grad(loss_of(&q), &q.all[0], 1, &full);
    expect(norm2(mb_sub(g[0], full)) > 1e-3, "first and second order agree");
    expect(norm2(g[1]) == 0, "phi is reached through inner gradients only");

    mb_tensor W[WEIGHTS], outer[OUTER + 1], last[WEIGHTS], theta[INNER + 1], slope;
    memcpy(outer, q.all + WEIGHTS + INNER, sizeof outer);
    memcpy(theta, q.all + WEIGHTS, INNER * sizeof *theta);
    theta[INNER] = x;
    for (int i = 0; i < WEIGHTS; i++)
        W[i] = spread(q.all[i]);
    for (int s = 0; s < T; s++) {
        mb_grad(inner_loss(W, theta), W, WEIGHTS, last);
        for (int i = 0; i < WEIGHTS; i++)
            W[i] = mb_sub(W[i], mb_mul(last[i], rates[s]));
    }
    mb_grad(answer_loss(W, outer), W, 1, &slope);
    expect_close(g[0], mb_sum(slope, MB_AXES(0)), 1e-12, "W1, first order");
    mb_params_free(t.p);
    mb_params_free(q.t.p);
    close_all();
}
