/* SPDX-License-Identifier: MIT
 *
 * Gated linear attention and the gated delta rule, token by token and in chunks.
 *
 * Both write k_t u_t^T into the decayed state, so that all but one place is the same: u_t = v_t, or what v_t
 * differs from what the state says already, u_t = beta_t (v_t - (diag(a_t) S_{t-1})^T k_t).
 */
#include "layers/internal.h"
#include "layers/recurrent.h"
#include "tensor/linalg.h"

#include <string.h>

typedef struct call {
    mb_tensor q, k, v, log_decay, beta; /* the last two may be no tensors; beta is [B,H,N,1] */
    int64_t B, H, N, dk, dv;
    mb_gated_attention_options options;
} call;

/* Whether t is [B,H,N,size] or [B,H,N,other], as q is [B,H,N,dk]. */
static bool same_tokens(const call *c, const char *name, mb_tensor t, int64_t size, int64_t other)
{
    mb_shape s = mb_shape_of(t), q = mb_shape_of(c->q);
    if (s.rank == 4 && memcmp(s.dim, q.dim, 3 * sizeof *s.dim) == 0 &&
        (size < 0 || s.dim[3] == size || s.dim[3] == other))
        return true;
    char got[MB__SHAPE_TEXT], want[MB__SHAPE_TEXT];
    mb_fail(c->q.ctx, MB_INVALID, "gated_attention: %s is %s beside q %s", name, mb__shape(got, t),
            mb__shape(want, c->q));
    return false;
}

static bool check_beta(call *c)
{
    mb_shape s = mb_shape_of(c->beta), q = mb_shape_of(c->q);
    if (s.rank != 3 || memcmp(s.dim, q.dim, 3 * sizeof *s.dim) != 0) {
        char got[MB__SHAPE_TEXT], want[MB__SHAPE_TEXT];
        mb_fail(c->q.ctx, MB_INVALID, "gated_attention: beta is %s beside q %s; wanted its first three axes",
                mb__shape(got, c->beta), mb__shape(want, c->q));
        return false;
    }
    c->beta = mb_unsqueeze(c->beta, 3);
    return true;
}

static bool prepare(call *c)
{
    mb_shape q = mb_shape_of(c->q);
    if (q.rank != 4 || c->options.chunk < 0) {
        mb_fail(c->q.ctx, MB_INVALID,
                "gated_attention: q has %d axes, chunk is %lld: wanted [sequences, heads, tokens, dk] and a "
                "chunk of 0 or more",
                q.rank, (long long)c->options.chunk);
        return false;
    }
    c->B = q.dim[0], c->H = q.dim[1], c->N = q.dim[2], c->dk = q.dim[3];
    if (!same_tokens(c, "k", c->k, c->dk, c->dk) || !same_tokens(c, "v", c->v, -1, -1) ||
        (c->log_decay.ctx && !same_tokens(c, "log_decay", c->log_decay, c->dk, 1)) ||
        (c->beta.ctx && !check_beta(c)))
        return false;
    c->dv = mb_dim(c->v, 3);
    return true;
}

static mb_tensor start(const call *c)
{
    return mb_zeros(c->q.ctx, mb_dtype_of(c->q), MB_SHAPE(c->B, c->H, c->dk, c->dv));
}

/* ---- token by token ---- */

/* [B,H,N,d] -> this token's [B,H,d] */
static mb_tensor token_of(mb_scan s, mb_tensor t)
{
    return mb_scan_slice(s, mb_permute(t, MB_AXES(2, 0, 1, 3)));
}

/* o: [B,H,N,dv] */
static mb_tensor one_by_one(const call *c, mb_tensor *state)
{
    mb_tensor o = {0};
    mb_scan s = mb_scan_begin_with(c->q.ctx, c->N, (mb_scan_options){.keep_every = c->options.keep_every});
    mb_scan_carry(s, state);
    mb_tensor q = token_of(s, c->q), k = token_of(s, c->k), u = token_of(s, c->v);
    if (c->log_decay.ctx)
        *state = mb_mul(mb_unsqueeze(mb_exp(token_of(s, c->log_decay)), 3), *state);
    if (c->beta.ctx)
        u = mb_mul(token_of(s, c->beta), mb_sub(u, mb_einsum("bhk,bhkv->bhv", k, *state)));
    *state = mb_add(*state, mb_mul(mb_unsqueeze(k, 3), mb_unsqueeze(u, 2)));
    mb_scan_stack(s, mb_einsum("bhk,bhkv->bhv", q, *state), &o);
    mb_scan_end(s);
    return mb_permute(o, MB_AXES(1, 2, 0, 3));
}

/* ---- in chunks ---- */

/* The tokens by chunk, [B,H,C,m,...]; the last chunk is filled up with tokens that change nothing. G: how
 * much log_decay sums up to from the chunk's beginning on, with the token's own; no tensor without decay. */
typedef struct chunked {
    mb_tensor q, k, v, beta, G;
    int64_t m;
} chunked;

static mb_tensor by_chunk(const call *c, mb_tensor t, int64_t m)
{
    int64_t count = m ? (c->N + m - 1) / m : 0;
    t = mb_pad(t, 2, 0, count * m - c->N);
    return mb_reshape(t, MB_SHAPE(c->B, c->H, count, m, mb_dim(t, 3)));
}

static chunked chunks_of(const call *c)
{
    int64_t m = c->options.chunk < c->N ? c->options.chunk : c->N;
    chunked all = {by_chunk(c, c->q, m), by_chunk(c, c->k, m), by_chunk(c, c->v, m), {0}, {0}, m};
    if (c->beta.ctx)
        all.beta = by_chunk(c, c->beta, m);
    if (c->log_decay.ctx)
        all.G = mb_cumsum(by_chunk(c, c->log_decay, m), 3, false);
    return all;
}

/* t: [B,H,C,m,dk] -> t_i exp(G_i), the decay since the chunk's beginning. */
static mb_tensor since_start(const chunked *c, mb_tensor t)
{
    return c->G.ctx ? mb_mul(t, mb_exp(c->G)) : t;
}

/* G at the end of each chunk, [B,H,C,1,dk or 1]. */
static mb_tensor whole(const chunked *c)
{
    return mb_slice(c->G, 3, c->m - 1, 1, 1);
}

/* x: [B,H,C,m,dk] -> [B,H,C,m,m]: x_i . exp(G_i - G_j) k_j where j <= i + diagonal. One decay for all of a
 * key is taken after the product, where no factor is above 1; else with the middle's G on both sides. */
static mb_tensor pairs(const chunked *c, mb_tensor x, int64_t diagonal)
{
    mb_tensor mask = mb_tril_mask(x.ctx, c->m, c->m, diagonal), zero = mb__literal(x, 0), k = c->k, s;
    bool common = c->G.ctx && mb_dim(c->G, -1) == 1;
    if (c->G.ctx && !common) {
        mb_tensor middle = mb_slice(c->G, 3, (c->m - 1) / 2, 1, 1);
        x = mb_mul(x, mb_exp(mb_sub(c->G, middle)));
        k = mb_mul(k, mb_exp(mb_sub(middle, c->G)));
    }
    s = mb_matmul(x, mb_transpose(k));
    if (common)
        s = mb_mul(s, mb_exp(mb_where(mask, mb_sub(c->G, mb_transpose(c->G)), zero)));
    return mb_where(mask, s, zero);
}

/* Of the delta rule: u = given - taken S, where S is the state before the chunk. Written out over a chunk,
 * u_i = beta_i (v_i - k_i exp(G_i) S - sum over j < i of (k_i . exp(G_i - G_j) k_j) u_j) is a triangular
 * system for all u (Yang et al. 2406.06484, section 3.2). */
static void solve_chunks(const call *c, const chunked *all, mb_tensor *given, mb_tensor *taken)
{
    mb_tensor below = mb_mul(all->beta, pairs(all, all->k, -1));
    mb_tensor right[2] = {mb_mul(all->beta, all->v), mb_mul(all->beta, since_start(all, all->k))};
    mb_tensor both =
        mb_triangular_solve(below, mb_concat(right, 2, 4), (unsigned)MB_LOWER | MB_UNIT_DIAGONAL);
    *given = mb_slice(both, 4, 0, c->dv, 1);
    *taken = mb_slice(both, 4, c->dv, c->dk, 1);
}

/* [B,H,C,...] -> this chunk's [B,H,...] */
static mb_tensor chunk_of(mb_scan s, mb_tensor t)
{
    return mb_scan_slice(s, mb_permute(t, MB_AXES(2, 0, 1, 3, 4)));
}

/* S' = exp(E) S + sum over j of k_j exp(E - G_j) u_j^T, E = G at the chunk's end. *before: the states before
 * each chunk, [B,H,C,dk,dv]; *u: [B,H,C,m,dv]. */
static void through_chunks(const call *c, const chunked *all, mb_tensor *state, mb_tensor *before,
                           mb_tensor *u)
{
    mb_tensor k = all->G.ctx ? mb_mul(all->k, mb_exp(mb_sub(whole(all), all->G))) : all->k, taken, more;
    bool delta = c->beta.ctx;
    *u = all->v;
    if (delta)
        solve_chunks(c, all, u, &taken);
    else
        more = mb_matmul(mb_transpose(k), *u);
    mb_scan s = mb_scan_begin_with(c->q.ctx, mb_dim(all->k, 2),
                                   (mb_scan_options){.keep_every = c->options.keep_every});
    mb_scan_carry(s, state);
    mb_scan_stack(s, *state, before);
    mb_tensor added, mine = {0};
    if (delta) {
        mine = mb_sub(chunk_of(s, *u), mb_matmul(chunk_of(s, taken), *state));
        mb_scan_stack(s, mine, u);
        added = mb_matmul(mb_transpose(chunk_of(s, k)), mine);
    } else {
        added = chunk_of(s, more);
    }
    if (all->G.ctx)
        *state = mb_mul(chunk_of(s, mb_transpose(mb_exp(whole(all)))), *state);
    *state = mb_add(*state, added);
    mb_scan_end(s);
    *before = mb_permute(*before, MB_AXES(1, 2, 0, 3, 4));
    if (delta)
        *u = mb_permute(*u, MB_AXES(1, 2, 0, 3, 4));
}

/* o_i = q_i exp(G_i) S + sum over j <= i of (q_i . exp(G_i - G_j) k_j) u_j. */
static mb_tensor in_chunks(const call *c, mb_tensor *state)
{
    chunked all = chunks_of(c);
    mb_tensor before = {0}, u = {0};
    through_chunks(c, &all, state, &before, &u);
    mb_tensor o = mb_add(mb_matmul(pairs(&all, all.q, 0), u), mb_matmul(since_start(&all, all.q), before));
    o = mb_reshape(o, MB_SHAPE(c->B, c->H, mb_dim(o, 2) * all.m, c->dv));
    return mb_slice(o, 2, 0, c->N, 1);
}

mb_tensor mb_gated_attention_at(const char *site, mb_tensor q, mb_tensor k, mb_tensor v, mb_tensor log_decay,
                                mb_gated_attention_options options, mb_tensor *last)
{
    if (last)
        *last = (mb_tensor){0};
    MB__APPLY(site, "gated_attention", {"q", q, MB__NEEDED}, {"k", k, MB__ALIKE}, {"v", v, MB__ALIKE},
              {"log_decay", log_decay, MB__OPTIONAL | MB__NUMBERS},
              {"beta", options.beta, MB__OPTIONAL | MB__NUMBERS});
    call c = {.q = mb__wide(q),
              .k = mb__wide(k),
              .v = mb__wide(v),
              .log_decay = mb__wide(log_decay),
              .beta = mb__wide(options.beta),
              .options = options};
    if (!prepare(&c))
        return (mb_tensor){0};
    mb_tensor state = start(&c);
    mb_tensor o = options.chunk > 1 && c.N > 0 ? in_chunks(&c, &state) : one_by_one(&c, &state);
    if (last)
        *last = state;
    return mb__narrow(o, q);
}
