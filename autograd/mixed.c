/* SPDX-License-Identifier: MIT
 *
 * mixed.c - gradients of a loss as a rule of their own. Tangents are those of the gradient along a direction;
 * cotangents are that as well, since the Hessian is symmetric, or those of the gradient, recorded once more:
 * whichever of the two a plan of it says takes less.
 */
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

/* ---- the two ways ---- */

/* The loss once more, at tensors under names of their own. */
typedef struct place {
    mb_context *ctx;
    mb_tensor y, *xs;
    int k, n; /* of the xs: those that the gradient is by, and all */
} place;

static bool begin(place *p, const mixed *m, mb_context *ctx, const mb_custom_at *at)
{
    *p = (place){.ctx = ctx, .k = m->k, .n = at->n};
    if (!(p->xs = mb__temporary(ctx, (size_t)at->n * sizeof *p->xs)))
        return false;
    memcpy(p->xs, at->xs, (size_t)at->n * sizeof *p->xs);
    p->y = loss_at(m, ctx, p->xs, at->n);
    return mb_error(ctx) == MB_OK;
}

static bool is_float(const place *p, int i)
{
    return mb__is_float(mb__at(p->ctx, p->xs[i].id)->dtype);
}

/* us[j]: the derivative along ts[given] of the gradient by those of the first `count` that are floats. */
static bool forward_over_reverse(const place *p, const mb_tensor *ts, int given, int count, mb_tensor *us)
{
    mb_context *ctx = p->ctx;
    MB_TEMPORARY(ctx);
    mb_tensor *by = mb__temporary(ctx, 4 * (size_t)p->n * sizeof *by);
    if (!by)
        return false;
    mb_tensor *g = by + p->n, *x = g + p->n, *t = x + p->n;
    int floats = 0, directions = 0, fed;
    for (int i = 0; i < p->n; i++) {
        if (i < given && ts[i].ctx && is_float(p, i)) {
            x[directions] = p->xs[i];
            t[directions++] = ts[i];
        }
        if (i < count && is_float(p, i))
            by[floats++] = p->xs[i];
    }
    if (!directions || mb__grad_fed(p->y, by, floats, g, &fed) != MB_OK ||
        mb_jvp(g, floats, x, t, directions, g) != MB_OK)
        return mb_error(ctx) == MB_OK;
    for (int i = 0, f = 0; i < count; i++)
        if (is_float(p, i))
            us[i] = g[f++];
    return true;
}

/* us[n]: the same by reverse mode, along vs[k]. */
static bool reverse_over_reverse(const place *p, const mb_tensor *vs, mb_tensor *us)
{
    mb_context *ctx = p->ctx;
    MB_TEMPORARY(ctx);
    size_t all = (size_t)p->n;
    mb_tensor *g = mb__temporary(ctx, all * (sizeof *g + 4 * sizeof(uint32_t)));
    if (!g)
        return false;
    uint32_t *ys = (uint32_t *)(g + all), *seeds = ys + all, *by = seeds + all, *found = by + all;
    int sums = 0, floats = 0, fed;
    if (mb__grad_fed(p->y, p->xs, p->k, g, &fed) != MB_OK)
        return false;
    for (int i = 0; i < p->k; i++)
        if (vs[i].ctx) {
            ys[sums] = g[i].id;
            seeds[sums++] = vs[i].id;
        }
    for (int i = 0; i < p->n; i++)
        if (is_float(p, i))
            by[floats++] = p->xs[i].id;
    if (mb__vjp_ids(ctx, ys, seeds, sums, by, floats, found) != MB_OK)
        return false;
    for (int i = 0, f = 0; i < p->n; i++)
        if (is_float(p, i) && found[f++])
            us[i] = mb__handle(ctx, found[f - 1]);
    return true;
}

/* ---- which ---- */

static int ids_of(const mb_tensor *ts, int n, uint32_t *ids)
{
    int count = 0;
    for (int i = 0; i < n; i++)
        if (ts[i].ctx)
            ids[count++] = ts[i].id;
    return count;
}

/* A number for the loss, its operands, and the gradients that have cotangents; 0: there is none. */
static uint64_t question(const place *p, const uint32_t *given, const mb_tensor *vs)
{
    uint64_t q = p->ctx->engine->weigh(p->ctx, given, p->n, &p->y.id, 1, NULL);
    for (int i = 0; q && i < p->k; i++)
        q = q * 0x9E3779B97F4A7C15u + (vs[i].ctx ? 2 : 1);
    return q;
}

/* The answer that was found before; -1: none. */
static int remembered(const mb_context *ctx, uint64_t q)
{
    for (int i = 0; i < MB_CHOICES; i++)
        if (ctx->choices[i].question == q)
            return ctx->choices[i].answer;
    return -1;
}

/* Less memory; where it is much the same, within one part in 16, fewer operations. */
static bool is_lighter(const mb__load *a, const mb__load *b)
{
    uint64_t more = a->bytes > b->bytes ? a->bytes : b->bytes, less = a->bytes + b->bytes - more;
    bool same = more - less <= more / 16 && a->flops != b->flops;
    return same ? a->flops < b->flops : a->bytes < b->bytes;
}

/* The derivative by both ways, and the lighter one, which is remembered. */
static bool lighter(const place *p, const mb_tensor *vs, uint64_t q, const uint32_t *given, int n,
                    mb_tensor *us)
{
    mb_context *ctx = p->ctx;
    MB_TEMPORARY(ctx);
    size_t all = (size_t)p->n;
    uint32_t first = ctx->node_count;
    mb_tensor *other = mb__temporary(ctx, all * (sizeof *other + sizeof(uint32_t)));
    if (!other || !forward_over_reverse(p, vs, p->k, p->n, us) || !reverse_over_reverse(p, vs, other))
        return false;
    uint32_t *targets = (uint32_t *)(other + all);
    mb__load forward, reverse;
    bool both = ctx->engine->weigh(ctx, given, n, targets, ids_of(us, p->n, targets), &forward) &&
                ctx->engine->weigh(ctx, given, n, targets, ids_of(other, p->n, targets), &reverse);
    bool reversed = both && is_lighter(&reverse, &forward);
    if (both && q) {
        ctx->choices[ctx->choice_count % MB_CHOICES].question = q;
        ctx->choices[ctx->choice_count++ % MB_CHOICES].answer = reversed;
    }
    if (reversed)
        memcpy(us, other, all * sizeof *us);
    mb__abandon(ctx, first, us, p->n);
    return mb_error(ctx) == MB_OK;
}

static bool either(const place *p, const mb_tensor *vs, mb_tensor *us)
{
    mb_context *ctx = p->ctx;
    MB_TEMPORARY(ctx);
    uint32_t *given = mb__temporary(ctx, 2 * (size_t)p->n * sizeof *given);
    if (!given)
        return false;
    int n = ids_of(p->xs, p->n, given);
    uint64_t q = question(p, given, vs);
    n += ids_of(vs, p->k, given + n);
    switch (q ? remembered(ctx, q) : -1) {
    case 0:
        return forward_over_reverse(p, vs, p->k, p->n, us);
    case 1:
        return reverse_over_reverse(p, vs, us);
    default:
        return mb_error(ctx) == MB_OK && lighter(p, vs, q, given, n, us);
    }
}

/* ---- the rule ---- */

static mb_status forward(const void *user, mb_context *ctx, const mb_custom_at *at, const mb_tensor *ts,
                         mb_tensor *us)
{
    const mixed *m = user;
    MB_TEMPORARY(ctx);
    place p;
    if (begin(&p, m, ctx, at))
        forward_over_reverse(&p, ts, at->n, m->k, us);
    return mb_error(ctx);
}

static mb_status reverse(const void *user, mb_context *ctx, const mb_custom_at *at, const mb_tensor *vs,
                         mb_tensor *gs)
{
    const mixed *m = user;
    MB_TEMPORARY(ctx);
    place p;
    if (begin(&p, m, ctx, at))
        either(&p, vs, gs);
    return mb_error(ctx);
}

/* ---- recording ---- */

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
