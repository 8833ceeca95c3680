/* SPDX-License-Identifier: MIT
 *
 * The mesa layer: recursive least squares along the tokens. One scan makes the queries R_t q_t, gated linear
 * attention does the rest.
 */
#include "layers/mesa.h"
#include "autograd/custom.h"
#include "layers/mesa_checks.h"

typedef struct call {
    mb_tensor q, k, v, log_forget, lambda; /* log_forget may be no tensor; lambda is [H or 1,1,1] */
    int64_t B, H, N, dk;
    mb_mesa_options options;
} call;

/* ---- what tokens give, by token ---- */

/* Of so many tokens in a row: queries and keys [n,B,H,dk]; g [n,B,H], or no tensor. */
typedef struct tokens {
    mb_tensor q, k, g;
} tokens;

static mb_tensor outer(mb_tensor a, mb_tensor b)
{
    return mb_mul(mb_unsqueeze(a, 3), mb_unsqueeze(b, 2));
}

static mb_tensor times(mb_tensor matrix, mb_tensor vector)
{
    return mb_einsum("bhij,bhj->bhi", matrix, vector);
}

/* x . y, [B,H] */
static mb_tensor inner(mb_tensor x, mb_tensor y)
{
    return mb_sum(mb_mul(x, y), MB_AXES(2));
}

/* One number a matrix: [B,H] -> [B,H,1,1]. */
static mb_tensor each(mb_tensor number)
{
    return mb_unsqueeze(mb_unsqueeze(number, 2), 3);
}

static tokens token_of(mb_scan s, const tokens *all)
{
    return (tokens){mb_scan_slice(s, all->q), mb_scan_slice(s, all->k),
                    all->g.ctx ? mb_scan_slice(s, all->g) : (mb_tensor){0}};
}

/* What a token adds to the gradients, where A = dL/dR_t; and A <-
 * dL/dR_{t-1} = (I - k u^T) A (I - u k^T) / g. With R_t = (g R_{t-1}^-1 + k k^T)^-1 and u = R_t k: dk = -R_t
 * (A + A^T) u, dg = -(<A, R_t> - u^T A u) / g. */
static void pull_token(mb_tensor *A, mb_tensor R, mb_tensor u, const tokens *t, tokens *gradient)
{
    mb_tensor right = times(*A, u), left = times(mb_transpose(*A), u), both = inner(u, right);
    gradient->k = mb_neg(times(R, mb_add(right, left)));
    if (t->g.ctx)
        gradient->g = mb_div(mb_sub(both, mb_sum(mb_mul(*A, R), MB_AXES(2, 3))), t->g);
    mb_tensor kk = mb_mul(outer(t->k, t->k), each(both));
    *A = mb_add(mb_sub(mb_sub(*A, outer(right, t->k)), outer(t->k, left)), kk);
    if (t->g.ctx)
        *A = mb_div(*A, each(t->g));
}

/* mb_custom_rule.reverse of `step`: xs are R_{t-1}, k and g where there is one. */
static mb_status pull(const void *user, mb_context *ctx, const mb_custom_at *at, const mb_tensor *vs,
                      mb_tensor *gs)
{
    (void)user;
    tokens t = {{0}, at->xs[1], at->n > 2 ? at->xs[2] : (mb_tensor){0}}, gradient = {0};
    mb_tensor R = at->ys[0];
    gs[0] = vs[0];
    pull_token(&gs[0], R, times(R, t.k), &t, &gradient);
    gs[1] = gradient.k;
    if (t.g.ctx)
        gs[2] = gradient.g;
    return mb_error(ctx);
}

/* R_{t-1} -> R_t by the Sherman-Morrison formula, whose derivative is shorter of R_t than of its parts. */
static mb_tensor step(mb_tensor R, const tokens *t)
{
    const mb_tensor xs[3] = {R, t->k, t->g};
    mb_tensor u = times(R, t->k), g = t->g.ctx ? t->g : mb__literal(R, 1);
    R = mb_sub(R, mb_div(outer(u, u), each(mb_add(g, inner(t->k, u)))));
    if (t->g.ctx)
        R = mb_div(R, each(g));
    if (mb_valid(R))
        mb_custom_gradient(&R, 1, xs, t->g.ctx ? 3 : 2, (mb_custom_rule){.reverse = pull}, &R);
    return R;
}

/* R_t -> R_{t-1} */
static mb_tensor step_back(mb_tensor R, const tokens *t)
{
    mb_tensor u = times(R, t->k), rest = mb_sub(mb__literal(R, 1), inner(t->k, u));
    R = mb_add(R, mb_div(outer(u, u), each(rest)));
    return t->g.ctx ? mb_mul(R, each(t->g)) : R;
}

/* All R_t q_t, [n,B,H,dk]; *R becomes the last. */
static mb_tensor forward(const tokens *all, mb_tensor *R, const mb_mesa_options *o)
{
    mb_tensor queries = {0};
    mb_scan s = mb_scan_begin_with(R->ctx, mb_dim(all->q, 0), (mb_scan_options){.keep_every = o->keep_every});
    mb_scan_carry(s, R);
    tokens t = token_of(s, all);
    *R = step(*R, &t);
    mb_scan_stack(s, times(*R, t.q), &queries);
    if (o->reversible)
        mb_scan_before(s, R, step_back(mb_scan_after(s, R), &t));
    mb_scan_end(s);
    return queries;
}

/* ---- the layer ---- */

/* [B,H,N,...] -> [N,B,H,...] */
static mb_tensor by_token(mb_tensor t)
{
    return mb_permute(t, mb_shape_of(t).rank == 4 ? MB_AXES(2, 0, 1, 3) : MB_AXES(2, 0, 1));
}

/* R_t q_t of all tokens, [B,H,N,dk]. */
static mb_tensor solved(const call *c, mb_tensor *R)
{
    const mb_mesa_options *o = &c->options;
    tokens all = {by_token(c->q), by_token(c->k), {0}};
    if (c->log_forget.ctx)
        all.g = by_token(mb_exp(c->log_forget));
    mb_tensor queries = forward(&all, R, o);
    return mb_permute(queries, MB_AXES(1, 2, 0, 3));
}

/* t by its length; 0 where that is 0. */
static mb_tensor normalized(mb_tensor t)
{
    mb_tensor length = mb_norm(t, MB_KEEP(-1)), zero = mb__literal(t, 0);
    return mb_div(t, mb_where(mb_lt(zero, length), length, mb__literal(t, 1)));
}

static bool prepare(call *c)
{
    if (!mb__check_mesa("mesa_attention", c->q, c->k, c->v, &c->log_forget, 1))
        return false;
    mb_shape q = mb_shape_of(c->q), l = mb_shape_of(c->lambda);
    c->B = q.dim[0], c->H = q.dim[1], c->N = q.dim[2], c->dk = q.dim[3];
    if (l.rank > 1 || (l.rank == 1 && l.dim[0] != c->H) || c->options.chunk < 0 ||
        c->options.keep_every < MB_KEEP_LOG) {
        char got[MB__SHAPE_TEXT];
        mb_fail(c->q.ctx, MB_INVALID,
                "mesa_attention: lambda %s, chunk %lld, keep_every %lld: wanted a number or one for each of "
                "%lld heads, a chunk of 0 or more, and steps or MB_KEEP_...",
                mb__shape(got, c->lambda), (long long)c->options.chunk, (long long)c->options.keep_every,
                (long long)c->H);
        return false;
    }
    c->lambda = mb_reshape(c->lambda, MB_SHAPE(l.rank ? c->H : 1, 1, 1));
    if (c->options.normalize)
        c->q = normalized(c->q), c->k = normalized(c->k);
    return true;
}

mb_tensor mb_mesa_attention_at(const char *site, mb_tensor q, mb_tensor k, mb_tensor v, mb_tensor log_forget,
                               mb_tensor lambda, mb_mesa_options options, mb_mesa_state *last)
{
    mb_mesa_state own, *state = last ? last : &own;
    *state = (mb_mesa_state){0};
    MB__APPLY(site, "mesa_attention", {"q", q, MB__NEEDED}, {"k", k, MB__ALIKE}, {"v", v, MB__ALIKE},
              {"lambda", lambda, MB__NUMBERS}, {"log_forget", log_forget, MB__OPTIONAL | MB__NUMBERS});
    call c = {.q = mb__wide(q),
              .k = mb__wide(k),
              .v = mb__wide(v),
              .log_forget = mb__wide(log_forget),
              .lambda = mb__wide(lambda),
              .options = options};
    if (!prepare(&c))
        return (mb_tensor){0};
    mb_tensor eye = mb_mul(c.lambda, mb_eye(q.ctx, mb_dtype_of(c.q), c.dk));
    mb_tensor R = mb_broadcast(eye, MB_SHAPE(c.B, c.H, c.dk, c.dk)), queries = solved(&c, &R);
    mb_tensor forget = c.log_forget.ctx ? mb_unsqueeze(c.log_forget, 3) : c.log_forget;
    mb_tensor y = mb_gated_attention(
        queries, c.k, c.v, forget,
        (mb_gated_attention_options){.chunk = options.chunk, .keep_every = options.keep_every}, &state->sums);
    state->inverse = R;
    return mb__narrow(y, q);
}
