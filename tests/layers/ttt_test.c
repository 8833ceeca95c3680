/* SPDX-License-Identifier: MIT
 *
 * ttt_test.c - the test-time-training layer against a plain-C one with hand-written gradients (section 1.3 of
 * the notes): mini-batches, rates, momentum, Adam; its parameters; learners of the caller's; mistakes. */
#include "fixture.h"

enum { B = 2, N = TINY_N, D = TINY_D, H = TINY_H, DH = TINY_DH, HID = 4 * DH, MOST_T = 5 };
enum {
    W1 = 0,
    B1 = W1 + DH * HID,
    W2 = B1 + HID,
    B2 = W2 + HID * DH,
    SIZE = B2 + DH
}; /* of one head's weights */

/* The parameters of one head, and what it works on. */
typedef struct head {
    const double *psi_k, *psi_b, *phi_k, *phi_b, *g_k, *g_bias, *scale, *bias;
    double w[SIZE];
} head;

static double gelu(double z)
{
    return 0.5 * z * (1 + tanh(sqrt(2 / acos(-1)) * (z + 0.044715 * z * z * z)));
}

static double gelu_slope(double z)
{
    double k = sqrt(2 / acos(-1)), t = tanh(k * (z + 0.044715 * z * z * z));
    return 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * k * (1 + 3 * 0.044715 * z * z);
}

static void view(const double *x, const double *kernel, const double *bias, double out[DH])
{
    for (int e = 0; e < DH; e++) {
        out[e] = bias[e];
        for (int d = 0; d < D; d++)
            out[e] += x[d] * kernel[d * DH + e];
    }
}

static void learner(const double w[SIZE], const double in[DH], double z[HID], double out[DH])
{
    for (int j = 0; j < HID; j++) {
        z[j] = w[B1 + j];
        for (int e = 0; e < DH; e++)
            z[j] += in[e] * w[W1 + e * HID + j];
    }
    for (int e = 0; e < DH; e++) {
        out[e] = w[B2 + e];
        for (int j = 0; j < HID; j++)
            out[e] += gelu(z[j]) * w[W2 + j * DH + e];
    }
}

/* Adds one token's share to the gradient g (not NULL) of its mini-batch of m tokens; returns its share of the
 * loss. */
static double token(const head *q, const double *x, int m, double *g)
{
    double phi[DH], z[HID], e[DH], r[D], hat[D], dy[D], mean = 0, variance = 0, loss = 0;
    view(x, q->phi_k, q->phi_b, phi);
    learner(q->w, phi, z, e);
    for (int d = 0; d < D; d++) {
        r[d] = q->g_bias[d];
        for (int i = 0; i < DH; i++)
            r[d] += e[i] * q->g_k[i * D + d];
        mean += r[d] / D;
    }
    for (int d = 0; d < D; d++)
        variance += (r[d] - mean) * (r[d] - mean) / D;
    double sigma = sqrt(variance + 1e-6), mean_dy = 0, mean_dyhat = 0;
    for (int d = 0; d < D; d++) {
        hat[d] = (r[d] - mean) / sigma;
        double error = hat[d] * q->scale[d] + q->bias[d] - x[d];
        loss += 0.5 * error * error / (m * DH);
        dy[d] = error / (m * DH) * q->scale[d];
        mean_dy += dy[d] / D;
        mean_dyhat += dy[d] * hat[d] / D;
    }
    double de[DH] = {0};
    for (int d = 0; d < D; d++)
        for (int i = 0; i < DH; i++)
            de[i] += (dy[d] - mean_dy - hat[d] * mean_dyhat) / sigma * q->g_k[i * D + d];
    for (int j = 0; j < HID; j++) {
        double dz = 0;
        for (int i = 0; i < DH; i++) {
            g[W2 + j * DH + i] += gelu(z[j]) * de[i];
            dz += de[i] * q->w[W2 + j * DH + i];
        }
        dz *= gelu_slope(z[j]);
        g[B1 + j] += dz;
        for (int i = 0; i < DH; i++)
            g[W1 + i * HID + j] += phi[i] * dz;
    }
    for (int i = 0; i < DH; i++)
        g[B2 + i] += de[i];
    return loss;
}

typedef struct setting {
    int T, m; /* m tokens a step */
    double lr[MOST_T];
    mb_inner_rule rule;
    double momentum, beta1, beta2, eps;
} setting;

/* W_{t+1}; v1 and v2 are the rule's state. */
static void update(const setting *s, int t, double *w, const double *g, double *v1, double *v2)
{
    for (int i = 0; i < SIZE; i++) {
        if (s->rule == MB_INNER_SGD) {
            w[i] -= s->lr[t] * g[i];
        } else if (s->rule == MB_INNER_MOMENTUM) {
            v1[i] = s->momentum * v1[i] + g[i];
            w[i] -= s->lr[t] * v1[i];
        } else {
            v1[i] = s->beta1 * v1[i] + (1 - s->beta1) * g[i];
            v2[i] = s->beta2 * v2[i] + (1 - s->beta2) * g[i] * g[i];
            double m = v1[i] / (1 - pow(s->beta1, t + 1)), v = v2[i] / (1 - pow(s->beta2, t + 1));
            w[i] -= s->lr[t] * m / (sqrt(v) + s->eps);
        }
    }
}

/* The whole layer. x: [B,N,D], order: [H,N], y: [B,N,D], losses: [T+1] on all tokens. */
static void reference(const tiny *t, const setting *s, const double *x, const double *order, double *y,
                      double *losses)
{
    const double *h_k = values(tiny_get(t, "h_k")), *h_bias = values(tiny_get(t, "h_bias"));
    const double *w1 = values(tiny_get(t, "W1")), *b1 = values(tiny_get(t, "b1")),
                 *w2 = values(tiny_get(t, "W2")), *b2 = values(tiny_get(t, "b2"));
    for (int i = 0; i < B * N * D; i++)
        y[i] = h_bias[i % D];
    for (int b = 0; b < B; b++)
        for (int h = 0; h < H; h++) {
            head q = {values(tiny_get(t, "psi_k")) + h * D * DH,
                      values(tiny_get(t, "psi_b")) + h * DH,
                      values(tiny_get(t, "phi_k")) + h * D * DH,
                      values(tiny_get(t, "phi_b")) + h * DH,
                      values(tiny_get(t, "g_k")) + h * DH * D,
                      values(tiny_get(t, "g_bias")),
                      values(tiny_get(t, "norm_scale")) + h * D,
                      values(tiny_get(t, "norm_bias")) + h * D,
                      {0}};
            memcpy(q.w + W1, w1 + h * DH * HID, DH * HID * sizeof *w1);
            memcpy(q.w + B1, b1 + h * HID, HID * sizeof *w1);
            memcpy(q.w + W2, w2 + h * HID * DH, HID * DH * sizeof *w1);
            memcpy(q.w + B2, b2 + h * DH, DH * sizeof *w1);
            double v1[SIZE] = {0}, v2[SIZE] = {0}, unused[SIZE];
            const double *image = x + b * N * D;
            for (int step = 0; step <= s->T; step++) {
                double g[SIZE] = {0};
                for (int n = 0; n < N; n++)
                    losses[step] += token(&q, image + n * D, N, unused) / B;
                for (int i = 0; i < s->m && step < s->T; i++) {
                    int n = s->m == N ? i : (int)order[h * N + step % (N / s->m) * s->m + i];
                    token(&q, image + n * D, s->m, g);
                }
                if (step < s->T)
                    update(s, step, q.w, g, v1, v2);
            }
            for (int n = 0; n < N; n++) {
                double psi[DH], z[HID], e[DH];
                view(image + n * D, q.psi_k, q.psi_b, psi);
                learner(q.w, psi, z, e);
                for (int d = 0; d < D; d++)
                    for (int i = 0; i < DH; i++)
                        y[(b * N + n) * D + d] += e[i] * h_k[(h * DH + i) * D + d];
            }
        }
}

static void against_loops(const char *backend)
{
    static const setting settings[] = {
        {.T = 1, .m = N, .lr = {1}},
        {.T = 3, .m = N, .lr = {1, 0.5, 0.25}},
        {.T = 5, .m = 2, .lr = {0.5, 0.4, 0.3, 0.2, 0.1}}, /* 3 mini-batches, then the first two again */
        {.T = 4, .m = 1, .lr = {0.1, 0.1, 0.1, 0.1}},
        {.T = 4, .m = 3, .lr = {0.3, 0.3, 0.3, 0.3}, .rule = MB_INNER_MOMENTUM, .momentum = 0.8},
        {.T = 3,
         .m = N,
         .lr = {0.1, 0.1, 0.1},
         .rule = MB_INNER_ADAM,
         .beta1 = 0.9,
         .beta2 = 0.999,
         .eps = 1e-8},
        {.T = 3,
         .m = 3,
         .lr = {0.1, 0.2, 0.1},
         .rule = MB_INNER_ADAM,
         .beta1 = 0.7,
         .beta2 = 0.8,
         .eps = 1e-3},
    };
    mb_context *mb = open_on(backend);
    mb_key key = mb_key_of(77);
    mb_tensor x = tiny_x(mb, B), order = mb_permutation(mb, key, MB_SHAPE(H, N)), losses[MOST_T + 1];
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        const setting *s = &settings[i];
        mb_adam_options adam = {.beta1 = s->beta1, .beta2 = s->beta2, .eps = s->eps};
        tiny t = tiny_ttt(mb, (mb_ttt_options){.learner = MB_LEARNER_MLP,
                                               .inner_steps = s->T,
                                               .inner_batch = s->m == N ? 0 : s->m,
                                               .inner_lr = s->lr,
                                               .inner_rule = s->rule,
                                               .inner_momentum = s->momentum,
                                               .inner_adam = adam});
        double y[B * N * D], loss[MOST_T + 1] = {0};
        reference(&t, s, values(x), values(order), y, loss);
        mb_tensor got = mb_ttt_apply(t.layer, x, key, losses);
        expect_close(got, mb_from(mb, MB_FLOAT64, MB_SHAPE(B, N, D), y), 1e-11, backend);
        for (int k = 0; k <= s->T; k++)
            expect(near(mb_item(losses[k]), loss[k], 1e-11, 0), "%s, setting %d: l(W_%d) is %.15g, not %.15g",
                   backend, (int)i, k, mb_item(losses[k]), loss[k]);
        /* Without the losses, the same answer. */
        expect_close(mb_ttt_apply(t.layer, x, key, NULL), got, 1e-14, "without losses");
        mb_params_free(t.p);
    }
    close_all();
}

Test(ttt, against_loops)
{
    for (int i = 0; i < 2; i++)
        against_loops(backend_names[i]);
}

/* Along a direction of every parameter, the derivative is the differences': through mini-batches, momentum,
 * Adam. */
Test(ttt, gradients_through_inner_rules)
{
    static const double rates[3] = {0.1, 0.1, 0.1};
    mb_context *mb = open_on("cpu");
    mb_tensor x = tiny_x(mb, B);
    for (int rule = MB_INNER_SGD; rule <= MB_INNER_ADAM; rule++) {
        tiny t = tiny_ttt(mb, (mb_ttt_options){.learner = MB_LEARNER_MLP,
                                               .inner_steps = 3,
                                               .inner_batch = 3,
                                               .inner_lr = rates,
                                               .inner_rule = (mb_inner_rule)rule,
                                               .inner_momentum = 0.9});
        for (int i = 0; i < mb_params_count(t.p); i++) {
            mb_tensor w = mb_params_tensor(t.p, i), v = pattern(mb, mb_shape_of(w), 50 + i, 1, 0), g;
            mb_grad(outer_loss(mb_ttt_apply(t.layer, x, mb_key_of(4), NULL)), &w, 1, &g);
            double along = mb_item(mb_dot(g, v)), sum = 0;
            static const double factor[4] = {-8, 8, 1, -1}, place[4] = {-1, 1, -2, 2};
            const double h = 1e-5;
            mb_tensor was = mb_stop_gradient(w);
            for (int s = 0; s < 4; s++) {
                mb_assign(w, mb_add(was, mb_mul(v, place[s] * h)));
                sum += factor[s] * mb_item(outer_loss(mb_ttt_apply(t.layer, x, mb_key_of(4), NULL)));
            }
            mb_assign(w, was);
            expect(near(sum / (12 * h), along, 1e-6, 1e-7), "rule %d, %s: differences %.12g, gradient %.12g",
                   rule, mb_params_name(t.p, i), sum / (12 * h), along);
        }
        mb_params_free(t.p);
    }
    close_all();
}

/* ---- parameters ---- */

static void expect_parameters(mb_params *p, const char *const *names, const mb_shape *shapes, int n)
{
    expect(mb_params_count(p) == n, "%d parameters, not %d", mb_params_count(p), n);
    for (int i = 0; i < n && i < mb_params_count(p); i++) {
        mb_shape s = mb_shape_of(mb_params_get(p, names[i]));
        expect(same_shape(s, shapes[i]), "%s: %s, not %s", names[i], shape_text(s), shape_text(shapes[i]));
    }
    for (int i = 0; i < mb_params_count(p); i++) {
        const char *last = strrchr(mb_params_name(p, i), '.') + 1;
        bool kernel = strstr(last, "_k") || last[0] == 'W';
        expect(mb_params_decays(p, i) == kernel, "%s: decay", last);
    }
}

Test(ttt, parameters)
{
    static const char *const names[] = {"t.psi_k",  "t.psi_b", "t.phi_k",  "t.phi_b",      "t.g_k",
                                        "t.g_bias", "t.h_k",   "t.h_bias", "t.norm_scale", "t.norm_bias",
                                        "t.W1",     "t.b1",    "t.W2",     "t.b2"};
    const mb_shape shapes[] = {MB_SHAPE(2, 6, 3),  MB_SHAPE(2, 3), MB_SHAPE(2, 6, 3),  MB_SHAPE(2, 3),
                               MB_SHAPE(2, 3, 6),  MB_SHAPE(1, 6), MB_SHAPE(2, 3, 6),  MB_SHAPE(1, 6),
                               MB_SHAPE(2, 6),     MB_SHAPE(2, 6), MB_SHAPE(2, 3, 12), MB_SHAPE(2, 12),
                               MB_SHAPE(2, 12, 3), MB_SHAPE(2, 3)};
    mb_context *mb = open_on("cpu");
    mb_params *p = mb_params_new(mb, 1);
    mb_ttt_new(p, "t", (mb_ttt_options){.dim = 6, .heads = 2, .learner = MB_LEARNER_MLP});
    expect_parameters(p, names, shapes, 14);
    mb_params_free(p);
    p = mb_params_new(mb, 1);
    mb_ttt_new(p, "t", (mb_ttt_options){.dim = 6, .heads = 2}); /* linear: W_0 = 0, no norm */
    expect_parameters(p, names, shapes, 8);
    mb_params_free(p);
    p = mb_params_new(mb, 1);
    mb_ttt_new(
        p, "t",
        (mb_ttt_options){
            .dim = 6, .heads = 2, .learned_start = MB_ON, .encoder_bias = MB_ON, .decoder_norm = MB_ON});
    mb_shape more[12];
    memcpy(more, shapes, sizeof more);
    more[10] = MB_SHAPE(2, 3, 3);
    more[11] = MB_SHAPE(2, 3);
    expect_parameters(p, names, more, 12);
    mb_params_free(p);
    p = mb_params_new(mb, 1);
    mb_ttt_new(p, "t",
               (mb_ttt_options){.dim = 6,
                                .heads = 2,
                                .learner = MB_LEARNER_MLP,
                                .decoder_norm = MB_OFF,
                                .learned_start = MB_OFF,
                                .encoder_bias = MB_OFF});
    expect_parameters(p, names, shapes, 8);
    mb_params_free(p);
    close_all();
}

/* ---- a learner of the caller's ---- */

/* (x A) * s, element by element */
static mb_tensor scaled(void *user, const mb_tensor *w, int n, mb_tensor x)
{
    *(int *)user += n;
    return mb_mul(mb_matmul(x, w[0]), mb_unsqueeze(w[1], 2));
}

static mb_tensor wrong_shape(void *user, const mb_tensor *w, int n, mb_tensor x)
{
    (void)user, (void)w, (void)n;
    return mb_sum(x, MB_AXES(-1));
}

Test(ttt, custom_learner)
{
    mb_context *mb = open_on("cpu");
    const mb_learner_weight rows[] = {{"A", MB_SHAPE(DH, DH), mb_init_xavier(DH, DH), false},
                                      {"s", MB_SHAPE(DH), mb_init_ones(), true}};
    int calls = 0;
    mb_learner custom = {scaled, &calls, rows, 2};
    tiny t = tiny_ttt(
        mb, (mb_ttt_options){
                .learner = MB_LEARNER_CUSTOM, .custom = custom, .inner_steps = 2, .decoder_norm = MB_OFF});
    expect(same_shape(mb_shape_of(tiny_get(&t, "A")), MB_SHAPE(H, DH, DH)), "A");
    expect(same_shape(mb_shape_of(tiny_get(&t, "s")), MB_SHAPE(H, DH)), "s");
    mb_tensor x = tiny_x(mb, B), y = mb_ttt_apply(t.layer, x, MB_NO_KEY, NULL), s = tiny_get(&t, "s"), g;
    expect(calls > 0 && norm2(y) > 0, "called");

    /* With s frozen at one inside, one step of it is the linear learner's. Here: two weights, so a
     * second-order term between them. Compared with differences. */
    mb_grad(outer_loss(y), &s, 1, &g);
    double side[2];
    for (int i = 0; i < 2; i++) {
        double v[H * DH] = {1, 1, 1, 1};
        v[1] += i ? 1e-6 : -1e-6;
        mb_assign(s, mb_from(mb, MB_FLOAT64, MB_SHAPE(H, DH), v));
        side[i] = mb_item(outer_loss(mb_ttt_apply(t.layer, x, MB_NO_KEY, NULL)));
    }
    expect(near((side[1] - side[0]) / 2e-6, values(g)[1], 1e-7, 1e-7), "%g, %g", (side[1] - side[0]) / 2e-6,
           values(g)[1]);
    mb_params_free(t.p);

    custom.apply = wrong_shape;
    t = tiny_ttt(mb, (mb_ttt_options){.learner = MB_LEARNER_CUSTOM, .custom = custom, .inner_steps = 1});
    expect(!mb_valid(mb_ttt_apply(t.layer, x, MB_NO_KEY, NULL)), "a wrong shape");
    expect(strstr(mb_message(mb), "learner"), "%s", mb_message(mb));
    mb_clear_error(mb);
    mb_params_free(t.p);
    close_all();
}

Test(ttt, mistakes)
{
    static const mb_ttt_options wrong[] = {
        {.dim = 6, .heads = 4},
        {.dim = 6},
        {.heads = 1},
        {.dim = 6, .heads = 2, .inner_steps = -1},
        {.dim = 6, .heads = 2, .inner_batch = -1},
        {.dim = 6, .heads = 2, .learner = (mb_learner_kind)9},
        {.dim = 6, .heads = 2, .learner = MB_LEARNER_CUSTOM},
        {.dim = 6, .heads = 2, .inner_rule = (mb_inner_rule)5},
    };
    mb_context *mb = open_on("cpu");
    mb_params *p = mb_params_new(mb, 1);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char name[8];
        snprintf(name, sizeof name, "t%d", (int)i);
        expect(!mb_ttt_new(p, name, wrong[i]) && mb_error(mb) == MB_INVALID, "%d: %s", (int)i,
               mb_message(mb));
        expect(strstr(mb_message(mb), "ttt_test.c"), "the caller's line: %s", mb_message(mb));
        mb_clear_error(mb);
    }
    expect(mb_params_count(p) == 0, "a refused layer leaves no parameters");
    mb_ttt *l =
        mb_ttt_new(p, "l", (mb_ttt_options){.dim = 6, .heads = 2, .inner_steps = 1, .inner_batch = 4});
    mb_tensor losses[2];
    expect(!mb_valid(mb_ttt_apply(l, mb_zeros(mb, MB_FLOAT32, MB_SHAPE(2, 6, 6)), mb_key_of(1), losses)),
           "4 of 6 tokens");
    expect(mb_error(mb) == MB_INVALID && !mb_valid(losses[1]), "%s", mb_message(mb));
    mb_clear_error(mb);
    expect(!mb_valid(mb_ttt_apply(l, mb_zeros(mb, MB_FLOAT32, MB_SHAPE(2, 8, 5)), mb_key_of(1), NULL)),
           "width 5");
    mb_clear_error(mb);
    expect(mb_ttt_inner_steps(l) == 1 && mb_ttt_inner_steps(NULL) == 0, "steps");
    mb_params_free(p);
    close_all();
}

/* A rate of the inner loop is bound at run time. */
Test(ttt, rates_change_without_a_plan)
{
    mb_context *mb = open_on("cpu");
    tiny t = tiny_ttt(mb, (mb_ttt_options){.learner = MB_LEARNER_MLP, .inner_steps = 2, .inner_batch = 2});
    uint64_t plans = 0;
    double before = 0;
    for (int i = 0; i < 4; i++) {
        mb_scope s = mb_scope_begin(mb);
        mb_ttt_set_inner_lr(t.layer, 1, 1 - 0.1 * i);
        mb_tensor x = tiny_x(mb, B);
        double loss =
            mb_item(outer_loss(mb_ttt_apply(t.layer, x, mb_key_fold(mb_key_of(2), (uint64_t)i), NULL)));
        mb_scope_end(s);
        expect(i == 0 || loss != before, "the rate and the key matter");
        expect(i == 0 || mb_get_stats(mb).plans == plans, "call %d made a plan", i);
        plans = mb_get_stats(mb).plans;
        before = loss;
    }
    mb_params_free(t.p);
    close_all();
}
