/* SPDX-License-Identifier: MIT
 *
 * ttt_apply.c - the forward pass of test-time training: T recorded gradient steps for each image and head,
 * then the output of the trained learner. The outer mb_grad differentiates through it, since the inner
 * gradients are on the same tape. Equations of Sun et al. 2310.13807; rows are tokens.
 */
#include "layers/ttt.h"

#include <string.h>

/* The values of one call. */
typedef struct call {
    const mb_ttt *layer;
    mb_tensor x;     /* [B,N,D] */
    int64_t B, N, m; /* images, tokens, tokens of an inner step */
    mb_tensor phi;   /* [B,H,N,dh] training view of all tokens */
    mb_tensor order; /* [H,N] int32, a random order per head, where m < N */
    mb_tensor row;   /* [H,1] int32, where a head begins in [H*N]: h N */
} call;

/* x: [B,N,D], kernel: [H,D,dh], bias: [H,dh] -> [B,H,N,dh] */
static mb_tensor view(mb_tensor x, mb_tensor kernel, mb_tensor bias)
{
    return mb_add(mb_einsum("bnd,hde->bhne", x, kernel), mb_unsqueeze(bias, 1));
}

/* f(x; W), checked, as it may be the caller's. x: [B,H,m,dh] -> the same shape */
static mb_tensor learn(const call *c, mb_tensor x)
{
    const mb_learner *f = &c->layer->learner;
    mb_tensor e = f->apply(f->user, c->layer->weights, f->n, x);
    mb_shape got = mb_shape_of(e), wanted = mb_shape_of(x);
    if (mb_valid(e) && (got.rank != 4 || memcmp(got.dim, wanted.dim, 4 * sizeof got.dim[0]) != 0)) {
        mb_fail(c->x.ctx, MB_INVALID,
                "ttt: the learner's result does not have the shape of its input [%lld,%lld,%lld,%lld]",
                (long long)wanted.dim[0], (long long)wanted.dim[1], (long long)wanted.dim[2],
                (long long)wanted.dim[3]);
        return (mb_tensor){0};
    }
    return e;
}

/* Eq. 1, with the factor 1/dh of the authors' code: views [B,H,m,dh], targets [B,m,D] or [B,H,m,D] -> [B,H],
 * a loss per image and head. */
static mb_tensor inner_loss(const call *c, mb_tensor views, mb_tensor targets)
{
    const mb_ttt *l = c->layer;
    mb_tensor r = mb_add(mb_einsum("bhme,hed->bhmd", learn(c, views), l->g_k), l->g_bias);
    if (l->norm_scale.ctx)
        r = mb_layer_normalize(r, mb_unsqueeze(l->norm_scale, 1), mb_unsqueeze(l->norm_bias, 1), 1e-6);
    if (mb_shape_of(targets).rank == 3)
        targets = mb_unsqueeze(targets, 1);
    mb_tensor squares = mb_sum(mb_square(mb_sub(r, targets)), MB_AXES(2, 3));
    double m = (double)mb_dim(views, 2), dh = (double)mb_dim(views, 3);
    return mb_mul(squares, mb__literal(squares, 0.5 / (m * dh)));
}

/* Summed over heads, averaged over images, as in the paper's plots. [B,H] -> 0-d */
static mb_tensor for_log(const call *c, mb_tensor loss)
{
    return mb_mul(mb_sum(loss, MB_ALL), mb__literal(loss, 1 / (double)c->B));
}

/* The first weights: broadcast to one copy per image, so that inner gradients are per image and head. */
static void start(const call *c)
{
    const mb_ttt *l = c->layer;
    for (int i = 0; i < l->learner.n; i++) {
        mb_shape s = {l->shapes[i].rank + 2, {c->B, l->options.heads}};
        memcpy(s.dim + 2, l->shapes[i].dim, (size_t)l->shapes[i].rank * sizeof s.dim[0]);
        /* A literal zero, so that planning removes every product with it. */
        l->weights[i] =
            l->start[i].ctx ? mb_broadcast(l->start[i], s) : mb_zeros(c->x.ctx, mb_dtype_of(c->x), s);
        l->state1[i] = l->state2[i] = mb_zeros(c->x.ctx, mb_dtype_of(c->x), s);
    }
}

/* The tokens of step t: views [B,H,m,dh], targets [B,m,D] for full batches, else [B,H,m,D]. */
static void batch(const call *c, int t, mb_tensor *views, mb_tensor *targets)
{
    *views = c->phi;
    *targets = c->x;
    if (c->m == c->N)
        return;
    int64_t H = c->layer->options.heads, first = t % (c->N / c->m) * c->m;
    mb_tensor index = mb_slice(c->order, 1, first, c->m, 1); /* [H,m], of [N] */
    mb_tensor flat = mb_add(index, c->row);                  /* [H,m], of [H*N] */
    *targets = mb_take(c->x, index, 1);
    *views = mb_take(mb_reshape(c->phi, MB_SHAPE(c->B, H * c->N, mb_dim(c->phi, 3))), flat, 1);
}

/* W_t of W_{t-1}, eq. 2, by the inner rule. */
static void update(const call *c, int t)
{
    const mb_ttt *l = c->layer;
    const mb_ttt_options *o = &l->options;
    mb_tensor lr = mb_scalar(c->x.ctx, mb_dtype_of(c->x), l->lr[t]);
    for (int i = 0; i < l->learner.n; i++) {
        mb_tensor *w = &l->weights[i], g = l->gradients[i];
        if (o->first_order)
            g = mb_stop_gradient(g);
        if (o->inner_rule == MB_INNER_SGD)
            *w = mb_sgd_update(*w, g, lr);
        else if (o->inner_rule == MB_INNER_MOMENTUM)
            *w = mb_momentum_update(*w, g, lr, l->state1[i], o->inner_momentum, false, &l->state1[i]);
        else
            *w = mb_adam_update(*w, g, lr, l->state1[i], l->state2[i], t + 1, &o->inner_adam, &l->state1[i],
                                &l->state2[i]);
    }
}

static bool prepare(call *c, mb_key key)
{
    const mb_ttt *l = c->layer;
    if (!mb__check_tokens(c->x, l->options.dim, "ttt"))
        return false;
    c->B = mb_dim(c->x, 0);
    c->N = mb_dim(c->x, 1);
    c->m = l->options.inner_batch > 0 ? l->options.inner_batch : c->N;
    if (c->N < 1 || c->N % c->m != 0) {
        mb_fail(c->x.ctx, MB_INVALID, "ttt: inner_batch %lld does not divide the %lld tokens",
                (long long)c->m, (long long)c->N);
        return false;
    }
    c->phi = view(c->x, l->phi_k, l->phi_b);
    if (c->m < c->N) {
        int64_t H = l->options.heads;
        c->order = mb_permutation(c->x.ctx, key, MB_SHAPE(H, c->N));
        mb_tensor heads = mb_reshape(mb_iota(c->x.ctx, MB_INT32, H), MB_SHAPE(H, 1));
        c->row = mb_mul(heads, mb_full(c->x.ctx, MB_INT32, MB_SHAPE0, (double)c->N));
    }
    start(c);
    return true;
}

static mb_tensor apply(call *c, mb_tensor *losses)
{
    const mb_ttt *l = c->layer;
    int T = l->options.inner_steps;
    for (int t = 0; t < T && mb_error(c->x.ctx) == MB_OK; t++) {
        mb_tensor views, targets;
        batch(c, t, &views, &targets);
        mb_tensor loss = inner_loss(c, views, targets);
        if (losses)
            losses[t] = for_log(c, c->m == c->N ? loss : inner_loss(c, c->phi, c->x));
        /* A vector of losses: mb_grad sums them, and no image's loss depends on another's weights. */
        mb_grad(loss, l->weights, l->learner.n, l->gradients);
        update(c, t);
    }
    if (losses)
        losses[T] = for_log(c, inner_loss(c, c->phi, c->x));
    mb_tensor answers = learn(c, view(c->x, l->psi_k, l->psi_b)); /* eq. 3: [B,H,N,dh] */
    return mb_add(mb_einsum("bhne,hed->bnd", answers, l->h_k), l->h_bias);
}

mb_tensor mb_ttt_apply_at(const char *site, const mb_ttt *layer, mb_tensor x, mb_key key, mb_tensor *losses)
{
    MB_SITE(x.ctx, site);
    mb_tensor y = {0};
    if (losses)
        memset(losses, 0, (size_t)(mb_ttt_inner_steps(layer) + 1) * sizeof *losses);
    if (!layer || !mb__usable(x))
        return mb__refused(x);
    call c = {.layer = layer, .x = x};
    if (prepare(&c, key))
        y = apply(&c, losses);
    return y;
}
