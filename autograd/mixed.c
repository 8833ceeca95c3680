/* SPDX-License-Identifier: MIT
 * mixed.c - gradients of a loss as a rule of their own: tangents, and cotangents as well, are those of the
 * gradient along a direction in xs, since the Hessian is symmetric. */
#include "autograd/mixed.h"
#include "autograd/sweep.h"

#include <stddef.h>

typedef struct mixed {
    mb_map loss;
    int k;
    int64_t user[MB_MAP_USER_MOST / sizeof(int64_t)]; /* the loss's, if it is copied */
} mixed;

/* Whether the nodes from `first` on read the tensors handed in, which are there, and numbers. */
static bool reads_what_it_is_given(mb_context *ctx, uint32_t first, const mb_tensor *xs, int n_xs)
{
    uint32_t low = n_xs ? xs[0].id : first; /* the new names were recorded one after the other */
    for (uint32_t id = first; id < ctx->node_count; id++) {
        const mb__node *n = mb__at(ctx, id);
        for (int i = 0; i < n->nin; i++) {
            uint32_t o = mb__in(ctx, n, i);
            int op = mb__at(ctx, o)->op;
            if (o >= low || op == MB_OP_CONST || op == MB_OP_IOTA)
                continue;
            char text[256];
            mb__error_at(ctx, MB_INVALID, n->site, "grad_mixed: the loss reads %s, which is not handed in",
                         mb__tensor_text(text, sizeof text, mb__handle(ctx, o)));
            return false;
        }
    }
    return true;
}

/* The loss at n tensors, which become new names of themselves; poison: error set. */
static mb_tensor loss_at(const mixed *m, mb_context *ctx, mb_tensor *xs, int n)
{
    mb_tensor y = {0}, poison;
    for (int i = 0; i < n; i++)
        xs[i] = mb_alias(xs[i]);
    uint32_t first = ctx->node_count;
    if (mb_error(ctx) != MB_OK)
        return mb__poison(ctx);
    const mb_map_at at = {xs, xs + m->k, m->k, n - m->k};
    mb_status status = m->loss.call(m->loss.user_bytes ? (const void *)m->user : m->loss.user, ctx, &at, &y);
    if (status != MB_OK && mb_error(ctx) == MB_OK)
        mb__error(ctx, status, "grad_mixed: the loss failed (%s)", mb_status_name(status));
    if (mb_error(ctx) != MB_OK)
        return mb__poison(ctx);
    if (y.ctx != ctx || !mb__enter("grad_mixed", (const mb_tensor *[]){&y}, 1, &poison) ||
        !mb__is_float(mb__at(ctx, y.id)->dtype)) {
        char text[256];
        if (mb_error(ctx) == MB_OK)
            mb__error(ctx, MB_INVALID, "grad_mixed: the loss gives %s; wanted a float tensor of this context",
                      y.ctx == ctx ? mb__tensor_text(text, sizeof text, y) : "none");
        return mb__poison(ctx);
    }
    return reads_what_it_is_given(ctx, first, xs, n) ? y : mb__poison(ctx);
}

/* us[j] = the derivative along ts[n] of the gradient by those of the first `count` tensors that are floats.
 */
static mb_status along(const mixed *m, mb_context *ctx, const mb_custom_at *at, const mb_tensor *ts,
                       int given, int count, mb_tensor *us)
{
    MB_TEMPORARY(ctx);
    mb_tensor *xs = mb__temporary(ctx, 5 * (size_t)at->n * sizeof *xs);
    if (!xs)
        return mb_error(ctx);
    mb_tensor *by = xs + at->n, *g = by + at->n, *x = g + at->n, *t = x + at->n;
    memcpy(xs, at->xs, (size_t)at->n * sizeof *xs);
    int floats = 0, directions = 0, fed;
    mb_tensor y = loss_at(m, ctx, xs, at->n);
    for (int i = 0; i < at->n && mb_error(ctx) == MB_OK; i++) {
        bool is_float = mb__is_float(mb__at(ctx, xs[i].id)->dtype);
        if (i < given && ts[i].ctx && is_float) {
            x[directions] = xs[i];
            t[directions++] = ts[i];
        }
        if (i < count && is_float)
            by[floats++] = xs[i];
    }
    if (mb_error(ctx) != MB_OK || !directions || mb__grad_fed(y, by, floats, g, &fed) != MB_OK ||
        mb_jvp(g, floats, x, t, directions, g) != MB_OK)
        return mb_error(ctx);
    for (int i = 0, f = 0; i < count; i++)
        if (mb__is_float(mb__at(ctx, xs[i].id)->dtype))
            us[i] = g[f++];
    return mb_error(ctx);
}

static mb_status forward(const void *user, mb_context *ctx, const mb_custom_at *at, const mb_tensor *ts,
                         mb_tensor *us)
{
    const mixed *m = user;
    return along(m, ctx, at, ts, at->n, m->k, us);
}

static mb_status reverse(const void *user, mb_context *ctx, const mb_custom_at *at, const mb_tensor *vs,
                         mb_tensor *gs)
{
    const mixed *m = user;
    return along(m, ctx, at, vs, m->k, at->n, gs);
}

static bool check(mb_context *ctx, const mb_map *loss, const mb_tensor *xs, int k, const mb_tensor *params,
                  int n, const mb_tensor *gs)
{
    if (!mb__enter_context("grad_mixed", ctx))
        return false;
    bool there = k > 0 && n >= 0 && xs && gs && (params || !n);
    if (there && loss->call && loss->user_bytes <= MB_MAP_USER_MOST && (loss->user || !loss->user_bytes))
        return true;
    mb__error(ctx, MB_INVALID,
              "grad_mixed: got %s, %d xs, %d params and %zu bytes of user; wanted a loss, one x "
              "or more, and %d bytes at most",
              loss->call ? "a loss" : "no loss", k, n, loss->user_bytes, MB_MAP_USER_MOST);
    return false;
}

static mb_status record(mb_context *ctx, const mb_map *loss, const mb_tensor *xs, int k,
                        const mb_tensor *params, int n, mb_tensor *gs)
{
    mixed m = {.loss = *loss, .k = k};
    if (loss->user_bytes)
        memcpy(m.user, loss->user, loss->user_bytes);
    size_t all = (size_t)k + (size_t)n;
    MB_TEMPORARY(ctx);
    mb_tensor *in = mb__temporary(ctx, 2 * all * sizeof *in);
    if (!in)
        return mb_error(ctx);
    mb_tensor *own = in + all;
    memcpy(in, xs, (size_t)k * sizeof *in);
    if (n)
        memcpy(in + k, params, (size_t)n * sizeof *in);
    for (size_t i = 0; i < all; i++) {
        if (in[i].ctx != ctx)
            return mb__error(ctx, MB_INVALID, "grad_mixed: tensor %zu is of another context, or none", i + 1);
        own[i] = in[i];
    }
    int fed;
    mb_tensor y = loss_at(&m, ctx, own, (int)all);
    if (mb_error(ctx) == MB_OK && mb__grad_fed(y, own, k, gs, &fed) == MB_OK)
        mb_custom_gradient(gs, k, in, (int)all,
                           (mb_custom_rule){reverse, forward, &m, offsetof(mixed, user) + loss->user_bytes},
                           gs);
    return mb_error(ctx);
}

mb_status mb_grad_mixed_at(const char *site, mb_map loss, const mb_tensor *xs, int k, const mb_tensor *params,
                           int n, mb_tensor *gs)
{
    mb_context *ctx = k > 0 && xs ? xs[0].ctx : NULL;
    MB_DOOR(ctx, site, MB_THREAD);
    if (!ctx)
        return MB_INVALID;
    if (check(ctx, &loss, xs, k, params, n, gs))
        record(ctx, &loss, xs, k, params, n, gs);
    for (int i = 0; i < k && gs && mb_error(ctx) != MB_OK; i++)
        gs[i] = mb__poison(ctx);
    return mb_error(ctx);
}
