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
    /* Of a step: */
    mb_tensor index; /* [H,m] int32, its tokens, where m < N */
    mb_tensor rate;  /* 0-d */
    mb_tensor step;  /* 0-d int32, counted from 1; none where `number` is that */
    int64_t number;
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
        l->weights[i] = l->start[i].ctx ? mb_broadcast(mb__as(l->start[i], c->x), s)
                                        : mb_zeros(c->x.ctx, mb_dtype_of(c->x), s);
        l->state1[i] = l->state2[i] = mb_zeros(c->x.ctx, mb_dtype_of(c->x), s);
    }
}

/* The tokens of a step: views [B,H,m,dh], targets [B,m,D] for full batches, else [B,H,m,D]. */
static void batch(const call *c, mb_tensor *views, mb_tensor *targets)
{
    *views = c->phi;
    *targets = c->x;
    if (c->m == c->N)
        return;
    mb_tensor flat = mb_add(c->index, c->row); /* [H,m], of [H*N] */
    *targets = mb_take(c->x, c->index, 1);
    *views = mb_take(mb_reshape(c->phi, MB_SHAPE(c->B, c->layer->options.heads * c->N, mb_dim(c->phi, 3))),
                     flat, 1);
}

/* W_t of W_{t-1}, eq. 2, by the inner rule. */
static void update(const call *c)
{
    const mb_ttt *l = c->layer;
    const mb_ttt_options *o = &l->options;
    for (int i = 0; i < l->learner.n; i++) {
        mb_tensor *w = &l->weights[i], g = l->gradients[i], *m = &l->state1[i], *v = &l->state2[i];
        if (o->first_order)
            g = mb_stop_gradient(g);
        if (o->inner_rule == MB_INNER_SGD)
            *w = mb_sgd_update(*w, g, c->rate);
        else if (o->inner_rule == MB_INNER_MOMENTUM)
            *w = mb_momentum_update(*w, g, c->rate, *m, o->inner_momentum, false, m);
        else if (c->step.ctx)
            *w = mb_adam_update_in_scan(*w, g, c->rate, *m, *v, c->step, &o->inner_adam, m, v);
        else
            *w = mb_adam_update(*w, g, c->rate, *m, *v, c->number, &o->inner_adam, m, v);
    }
}

/* One inner step; its loss is that before it. */
static mb_tensor inner_step(const call *c, bool log)
{
    const mb_ttt *l = c->layer;
    mb_tensor views, targets, before = {0};
    batch(c, &views, &targets);
    mb_tensor loss = inner_loss(c, views, targets);
    if (log)
        before = for_log(c, c->m == c->N ? loss : inner_loss(c, c->phi, c->x));
    /* A vector of losses: mb_grad sums them, and no image's loss depends on another's weights. */
    mb_grad(loss, l->weights, l->learner.n, l->gradients);
    update(c);
    return before;
}

static void unrolled(call *c, mb_tensor *losses)
{
    const mb_ttt *l = c->layer;
    for (int t = 0; t < l->options.inner_steps && mb_error(c->x.ctx) == MB_OK; t++) {
        if (c->m < c->N)
            c->index = mb_slice(c->order, 1, t % (c->N / c->m) * c->m, c->m, 1);
        c->rate = mb_scalar(c->x.ctx, mb_dtype_of(c->x), l->lr[t]);
        c->number = t + 1;
        mb_tensor before = inner_step(c, losses != NULL);
        if (losses)
            losses[t] = before;
    }
}

/* [T,H,m]: the tokens of each step, which start over past the last. */
static mb_tensor all_tokens(const call *c, int T)
{
    int64_t H = c->layer->options.heads, parts = c->N / c->m;
    mb_tensor each = mb_permute(mb_reshape(c->order, MB_SHAPE(H, parts, c->m)), MB_AXES(1, 0, 2));
    mb_tensor once = mb_unsqueeze(each, 0); /* [1,parts,H,m] */
    int64_t rounds = (T + parts - 1) / parts;
    mb_tensor often =
        mb_reshape(mb_broadcast(once, MB_SHAPE(rounds, parts, H, c->m)), MB_SHAPE(rounds * parts, H, c->m));
    return mb_slice(often, 0, 0, T, 1);
}

static void scanned(call *c, mb_tensor *losses)
{
    const mb_ttt *l = c->layer;
    int T = l->options.inner_steps;
    mb_context *ctx = c->x.ctx;
    mb_tensor rates = mb_cast(mb_from(ctx, MB_FLOAT64, MB_SHAPE(T), l->lr), mb_dtype_of(c->x)), stack = {0};
    mb_tensor tokens = c->m < c->N ? all_tokens(c, T) : (mb_tensor){0};
    mb_scan s = mb_scan_begin_with(ctx, T, (mb_scan_options){.keep_every = l->options.keep_every});
    for (int i = 0; i < l->learner.n; i++) {
        mb_scan_carry(s, &l->weights[i]);
        if (l->options.inner_rule != MB_INNER_SGD)
            mb_scan_carry(s, &l->state1[i]);
        if (l->options.inner_rule == MB_INNER_ADAM)
            mb_scan_carry(s, &l->state2[i]);
    }
    c->rate = mb_scan_slice(s, rates);
    if (c->m < c->N)
        c->index = mb_scan_slice(s, tokens);
    if (l->options.inner_rule == MB_INNER_ADAM)
        c->step = mb_add(mb_scan_step(s), mb_full(ctx, MB_INT32, MB_SHAPE0, 1));
    mb_tensor before = inner_step(c, losses != NULL);
    if (losses)
        mb_scan_stack(s, before, &stack);
    mb_scan_end(s);
    for (int t = 0; losses && t < T; t++)
        losses[t] = mb_squeeze(mb_slice(stack, 0, t, 1, 1), 0);
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
    if (l->options.scan == MB_ON && l->options.inner_steps > 0)
        scanned(c, losses);
    else
        unrolled(c, losses);
    if (losses)
        losses[l->options.inner_steps] = for_log(c, inner_loss(c, c->phi, c->x));
    mb_tensor answers = learn(c, view(c->x, l->psi_k, l->psi_b)); /* eq. 3: [B,H,N,dh] */
    return mb_add(mb_einsum("bhne,hed->bnd", answers, l->h_k), l->h_bias);
}

/* The same layer, with the parameters that x is multiplied with. */
static mb_ttt with_parameters_as(const mb_ttt *layer, mb_tensor x)
{
    mb_ttt own = *layer;
    mb_tensor *const all[] = {&own.psi_k,  &own.psi_b, &own.phi_k,  &own.phi_b,      &own.g_k,
                              &own.g_bias, &own.h_k,   &own.h_bias, &own.norm_scale, &own.norm_bias};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        *all[i] = mb__as(*all[i], x);
    return own;
}

mb_tensor mb_ttt_apply_at(const char *site, const mb_ttt *layer, mb_tensor x, mb_key key, mb_tensor *losses)
{
    if (losses)
        memset(losses, 0, (size_t)(mb_ttt_inner_steps(layer) + 1) * sizeof *losses);
    mb_tensor none = {0};
    MB__APPLY(site, "ttt", {"x", x, MB__NEEDED}, {"layer.psi_k", layer ? layer->psi_k : none, MB__NEEDED});
    mb_ttt own = with_parameters_as(layer, x);
    call c = {.layer = &own, .x = x};
    return prepare(&c, key) ? apply(&c, losses) : mb__failed(x.ctx);
}
