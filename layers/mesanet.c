/* SPDX-License-Identifier: MIT
 *
 * MesaNet's layer: conjugate gradients at all tokens at once, whose products with H_t are gated linear
 * attention; and the derivative of the solution, by a second solve.
 */
#include "layers/mesa.h"
#include "autograd/custom.h"
#include "layers/mesa_checks.h"

/* The systems (H_t + diag(ridge)) x_t = q_t. beta and log_forget, [B,H,N,1], may be no tensors. */
typedef struct systems {
    mb_tensor k, ridge, beta, log_forget;
    mb_mesanet_options options;
} systems;

static mb_tensor weighed(const systems *s, mb_tensor t)
{
    return s->beta.ctx ? mb_mul(t, s->beta) : t;
}

/* sum over t' <= t of (g_{t'+1} .. g_t) beta_t' v_t' (k_t' . q_t) */
static mb_tensor gathered(const systems *s, mb_tensor q, mb_tensor k, mb_tensor v)
{
    return mb_gated_attention(
        q, k, weighed(s, v), s->log_forget,
        (mb_gated_attention_options){.chunk = s->options.chunk, .keep_every = s->options.keep_every}, NULL);
}

/* (H_t + diag(ridge)) x_t */
static mb_tensor product(const systems *s, mb_tensor x)
{
    return mb_add(gathered(s, x, s->k, s->k), mb_mul(s->ridge, x));
}

/* The diagonals of the matrices, [B,H,N,dk]: sums of squares of keys, gathered by keys and queries of 1. */
static mb_tensor diagonal(const systems *s)
{
    mb_shape shape = mb_shape_of(s->k);
    shape.dim[3] = 1;
    mb_tensor one = mb_ones(s->k.ctx, mb_dtype_of(s->k), shape);
    return mb_add(gathered(s, one, one, mb_square(s->k)), s->ridge);
}

/* x . y, [B,H,N,1] */
static mb_tensor inner(mb_tensor x, mb_tensor y)
{
    return mb_sum(mb_mul(x, y), MB_KEEP(-1));
}

/* a / b where `live`, 0 elsewhere. */
static mb_tensor ratio(mb_tensor live, mb_tensor a, mb_tensor b)
{
    return mb_where(live, mb_div(a, mb_where(live, b, mb__literal(b, 1))), mb__literal(a, 0));
}

/* Conjugate gradients (Hestenes and Stiefel 1952) for each token. Where nothing is left of a residual, or it
 * is small enough, the token stays as it is. */
static mb_tensor solve(const systems *s, mb_tensor q)
{
    mb_tensor x = mb_div(q, diagonal(s));
    if (s->options.steps == 0)
        return x;
    mb_tensor r = mb_sub(q, product(s, x)), p = r, zero = mb__literal(q, 0);
    mb_tensor enough = mb_mul(inner(q, q), mb__literal(q, s->options.tolerance * s->options.tolerance));
    mb_scan scan =
        mb_scan_begin_with(q.ctx, s->options.steps, (mb_scan_options){.keep_every = s->options.keep_every});
    mb_scan_carry(scan, &x);
    mb_scan_carry(scan, &r);
    mb_scan_carry(scan, &p);
    mb_tensor Ap = product(s, p), left = inner(r, r), bend = inner(p, Ap);
    mb_tensor live = mb_and(mb_lt(enough, left), mb_lt(zero, bend));
    mb_tensor length = ratio(live, left, bend);
    x = mb_add(x, mb_mul(length, p));
    r = mb_sub(r, mb_mul(length, Ap));
    p = mb_add(r, mb_mul(ratio(live, inner(r, r), left), p));
    mb_scan_end(scan);
    return x;
}

/* ---- the derivative of the solution ---- */

/* The order of a rule's tensors. */
enum { Q, K, RIDGE, MORE };

/* What of a rule is no tensor. */
typedef struct kind {
    mb_mesanet_options options;
    bool beta, forget;
} kind;

static mb_tensor solution(const systems *s, mb_tensor q);

/* With A x = q, of A symmetric: dq = e where A e is the cotangent, and the others have -e^T dA x. */
static mb_status pull(const void *user, mb_context *ctx, const mb_custom_at *at, const mb_tensor *vs,
                      mb_tensor *gs)
{
    const kind *what = user;
    systems s = {.k = at->xs[K], .ridge = at->xs[RIDGE], .options = what->options};
    if (what->beta)
        s.beta = at->xs[MORE];
    if (what->forget)
        s.log_forget = at->xs[at->n - 1];
    gs[Q] = solution(&s, vs[0]);
    mb_tensor Ax = product(&s, at->ys[0]);
    if (mb_error(ctx) != MB_OK)
        return mb_error(ctx);
    return mb_vjp(Ax, mb_neg(gs[Q]), at->xs + K, at->n - K, gs + K);
}

static mb_tensor solution(const systems *s, mb_tensor q)
{
    mb_tensor x = solve(s, q), xs[MORE + 2] = {[Q] = q, [K] = s->k, [RIDGE] = s->ridge};
    if (s->options.unrolled || s->options.steps == 0 || !mb_valid(x))
        return x;
    int n = MORE;
    kind what = {s->options, s->beta.ctx != NULL, s->log_forget.ctx != NULL};
    what.options.beta = (mb_tensor){0};
    if (what.beta)
        xs[n++] = s->beta;
    if (what.forget)
        xs[n++] = s->log_forget;
    const mb_custom_rule rule = {.reverse = pull, .user = &what, .user_bytes = sizeof what};
    mb_custom_gradient(&x, 1, xs, n, rule, &x);
    return x;
}

/* ---- the layer ---- */

/* *ridge, of all or [H,dk], becomes [1 or H,1,1 or dk]. */
static bool check(const char *layer, mb_tensor q, mb_tensor *ridge, const mb_mesanet_options *o)
{
    mb_shape s = mb_shape_of(*ridge);
    int64_t H = mb_dim(q, 1), dk = mb_dim(q, 3);
    if ((s.rank == 0 || (s.rank == 2 && s.dim[0] == H && s.dim[1] == dk)) && o->steps >= 0 && o->chunk >= 0 &&
        o->keep_every >= MB_KEEP_LOG && o->tolerance >= 0) {
        *ridge = s.rank ? mb_unsqueeze(*ridge, 1) : *ridge;
        return true;
    }
    char text[MB__SHAPE_TEXT];
    mb_fail(q.ctx, MB_INVALID,
            "%s: ridge %s, %lld steps, tolerance %g, chunk %lld, keep_every %lld: wanted a number or "
            "[%lld,%lld], and none negative but MB_KEEP_...",
            layer, mb__shape(text, *ridge), (long long)o->steps, o->tolerance, (long long)o->chunk,
            (long long)o->keep_every, (long long)H, (long long)dk);
    return false;
}

mb_tensor mb_mesanet_attention_at(const char *site, mb_tensor q, mb_tensor k, mb_tensor v,
                                  mb_tensor log_forget, mb_tensor ridge, mb_mesanet_options options)
{
    MB__APPLY(site, "mesanet_attention", {"q", q, MB__NEEDED}, {"k", k, MB__ALIKE}, {"v", v, MB__ALIKE},
              {"ridge", ridge, MB__NUMBERS}, {"log_forget", log_forget, MB__OPTIONAL | MB__NUMBERS},
              {"beta", options.beta, MB__OPTIONAL | MB__NUMBERS});
    if (!mb__check_mesa("mesanet_attention", q, k, v, (mb_tensor[]){log_forget, options.beta}, 2) ||
        !check("mesanet_attention", q, &ridge, &options))
        return mb__failed(q.ctx);
    systems s = {.k = mb__wide(k), .ridge = mb__wide(ridge), .options = options};
    if (options.beta.ctx)
        s.beta = mb_unsqueeze(mb__wide(options.beta), 3);
    if (log_forget.ctx)
        s.log_forget = mb_unsqueeze(mb__wide(log_forget), 3);
    return mb__narrow(gathered(&s, solution(&s, mb__wide(q)), s.k, mb__wide(v)), q);
}
