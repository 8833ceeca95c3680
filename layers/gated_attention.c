/* SPDX-License-Identifier: MIT
 *
 * Gated linear attention, token by token and in chunks.
 */
#include "layers/recurrent.h"
#include "layers/internal.h"

#include <string.h>

typedef struct call {
    mb_tensor q, k, v, log_decay;
    int64_t B, H, N, dk, dv;
    mb_gated_attention_options options;
} call;

static bool prepare(call *c)
{
    const struct {
        const char *name;
        mb_tensor t;
    } each[] = {{"k", c->k}, {"v", c->v}, {"log_decay", c->log_decay}};
    mb_shape q = mb_shape_of(c->q);
    if (q.rank != 4) {
        mb_fail(c->q.ctx, MB_INVALID, "gated_attention: q has %d axes, wanted [sequences, heads, tokens, dk]",
                q.rank);
        return false;
    }
    for (int i = 0; i < 3; i++) {
        mb_shape s = mb_shape_of(each[i].t);
        int same = i == 1 ? 3 : 4;
        if (s.rank != 4 || memcmp(s.dim, q.dim, (size_t)same * sizeof *s.dim) != 0) {
            char got[MB__SHAPE_TEXT], want[MB__SHAPE_TEXT];
            mb_fail(c->q.ctx, MB_INVALID, "gated_attention: %s is %s beside q %s", each[i].name,
                    mb__shape(got, each[i].t), mb__shape(want, c->q));
            return false;
        }
    }
    c->B = q.dim[0], c->H = q.dim[1], c->N = q.dim[2], c->dk = q.dim[3];
    c->dv = mb_dim(c->v, 3);
    int64_t m = c->options.chunk;
    if (m < 0 || (m > 1 && c->N % m != 0)) {
        mb_fail(c->q.ctx, MB_INVALID, "gated_attention: chunk %lld does not divide the %lld tokens",
                (long long)m, (long long)c->N);
        return false;
    }
    return true;
}

static mb_tensor start(const call *c)
{
    return mb_zeros(c->q.ctx, mb_dtype_of(c->q), MB_SHAPE(c->B, c->H, c->dk, c->dv));
}

/* [B,H,N,d] -> [N,B,H,d] */
static mb_tensor by_token(mb_tensor t)
{
    return mb_permute(t, MB_AXES(2, 0, 1, 3));
}

/* o: [B,H,N,dv] */
static mb_tensor one_by_one(const call *c, mb_tensor *state)
{
    mb_tensor o = {0};
    mb_scan s = mb_scan_begin_with(c->q.ctx, c->N, (mb_scan_options){.keep_every = c->options.keep_every});
    mb_scan_carry(s, state);
    mb_tensor q = mb_scan_slice(s, by_token(c->q)), k = mb_scan_slice(s, by_token(c->k));
    mb_tensor v = mb_scan_slice(s, by_token(c->v)), a = mb_exp(mb_scan_slice(s, by_token(c->log_decay)));
    *state = mb_add(mb_mul(mb_unsqueeze(a, 3), *state), mb_mul(mb_unsqueeze(k, 3), mb_unsqueeze(v, 2)));
    mb_scan_stack(s, mb_einsum("bhk,bhkv->bhv", q, *state), &o);
    mb_scan_end(s);
    return mb_permute(o, MB_AXES(1, 2, 0, 3));
}

/* The states before each chunk, [B,H,N/m,dk,dv]. decay: [B,H,N/m,1,dk] of a whole chunk; kv: [B,H,N/m,dk,dv]
 * what it adds. */
static mb_tensor states(const call *c, mb_tensor decay, mb_tensor kv, mb_tensor *state)
{
    mb_tensor before = {0};
    mb_scan s =
        mb_scan_begin_with(c->q.ctx, mb_dim(kv, 2), (mb_scan_options){.keep_every = c->options.keep_every});
    mb_scan_carry(s, state);
    mb_tensor a = mb_scan_slice(s, mb_permute(decay, MB_AXES(2, 0, 1, 4, 3)));
    mb_tensor more = mb_scan_slice(s, mb_permute(kv, MB_AXES(2, 0, 1, 3, 4)));
    mb_scan_stack(s, *state, &before);
    *state = mb_add(mb_mul(a, *state), more);
    mb_scan_end(s);
    return mb_permute(before, MB_AXES(1, 2, 0, 3, 4));
}

/* With G_i the sum of log_decay up to token i of its chunk, R that in the middle, E at the end:
 * o_i = (q_i exp(G_i)) S + sum over j <= i of (q_i exp(G_i - R)) . (k_j exp(R - G_j)) v_j,
 * S' = exp(E) S + sum over j of (k_j exp(E - G_j)) v_j^T. */
static mb_tensor in_chunks(const call *c, mb_tensor *state)
{
    int64_t m = c->options.chunk, chunks = c->N / m;
    mb_shape keys = MB_SHAPE(c->B, c->H, chunks, m, c->dk), values = MB_SHAPE(c->B, c->H, chunks, m, c->dv);
    mb_tensor q = mb_reshape(c->q, keys), k = mb_reshape(c->k, keys), v = mb_reshape(c->v, values);
    mb_tensor G = mb_cumsum(mb_reshape(c->log_decay, keys), 3, false);
    mb_tensor R = mb_slice(G, 3, (m - 1) / 2, 1, 1), E = mb_slice(G, 3, m - 1, 1, 1);
    mb_tensor scores =
        mb_matmul(mb_mul(q, mb_exp(mb_sub(G, R))), mb_transpose(mb_mul(k, mb_exp(mb_sub(R, G)))));
    scores = mb_where(mb_tril_mask(q.ctx, m, m, 0), scores, mb__literal(scores, 0));
    mb_tensor kv = mb_matmul(mb_transpose(mb_mul(k, mb_exp(mb_sub(E, G)))), v);
    mb_tensor before = states(c, mb_exp(E), kv, state);
    mb_tensor o = mb_add(mb_matmul(scores, v), mb_matmul(mb_mul(q, mb_exp(G)), before));
    return mb_reshape(o, MB_SHAPE(c->B, c->H, c->N, c->dv));
}

mb_tensor mb_gated_attention_at(const char *site, mb_tensor q, mb_tensor k, mb_tensor v, mb_tensor log_decay,
                                mb_gated_attention_options options, mb_tensor *last)
{
    MB_SITE(q.ctx, site);
    if (last)
        *last = (mb_tensor){0};
    const mb_tensor all[] = {q, k, v, log_decay};
    for (int i = 0; i < 4; i++)
        if (!mb__usable(all[i]))
            return mb__refused(all[i]);
    call c = {.q = q, .k = k, .v = v, .log_decay = log_decay, .options = options};
    if (!prepare(&c))
        return (mb_tensor){0};
    mb_tensor state = start(&c), o = options.chunk > 1 ? in_chunks(&c, &state) : one_by_one(&c, &state);
    if (last)
        *last = state;
    return o;
}
