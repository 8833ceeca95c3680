/* SPDX-License-Identifier: MIT
 *
 * Attention: softmax, and linear with a constant and with an adaptive normaliser.
 */
#include "layers/internal.h"

#include <math.h>

/* Keeps j <= i of scores [B,H,N,M]; the last query sees the last key. */
static mb_tensor mask(mb_tensor scores, double elsewhere)
{
    int64_t rows = mb_dim(scores, 2), columns = mb_dim(scores, 3);
    mb_tensor lower = mb_tril_mask(scores.ctx, rows, columns, columns - rows);
    return mb_where(lower, scores, mb__literal(scores, elsewhere));
}

/* q: [B,N,H,dk], k: [B,M,H,dk] -> [B,H,N,M] */
static mb_tensor products(mb_tensor q, mb_tensor k)
{
    return mb_einsum("bnhd,bmhd->bhnm", q, k);
}

/* a: [B,H,N,M], v: [B,M,H,dv] -> [B,N,H,dv] */
static mb_tensor weighted(mb_tensor a, mb_tensor v)
{
    return mb_einsum("bhnm,bmhe->bnhe", a, v);
}

static mb_tensor softmax_attention(mb_tensor q, mb_tensor k, mb_tensor v, bool causal, double scale)
{
    if (scale == 0)
        scale = 1 / sqrt((double)mb_dim(q, -1));
    mb_tensor scores = products(mb_mul(q, mb__literal(q, scale)), k);
    if (causal)
        scores = mask(scores, -1e30); /* finite, so that no derivative meets infinity minus infinity */
    return weighted(mb_softmax(scores, -1), v);
}

static mb_tensor linear_attention(mb_tensor q, mb_tensor k, mb_tensor v, bool causal, double scale)
{
    if (scale == 0)
        scale = 1 / ((double)mb_dim(k, 1) * (double)mb_dim(q, -1));
    if (causal)
        return weighted(mask(mb_mul(products(q, k), mb__literal(q, scale)), 0), v);
    mb_tensor state = mb_einsum("bnhd,bnhe->bhde", k, v);
    return mb_einsum("bnhd,bhde->bnhe", q, mb_mul(state, mb__literal(q, scale)));
}

/* Katharopoulos et al. 2006.16236, eqs. 5 and 7. */
static mb_tensor adaptive_attention(mb_tensor q, mb_tensor k, mb_tensor v, bool causal)
{
    q = mb_add(mb_elu(q), mb__literal(q, 1));
    k = mb_add(mb_elu(k), mb__literal(k, 1));
    if (causal) {
        mb_tensor scores = mask(products(q, k), 0);
        return weighted(mb_div(scores, mb_sum(scores, MB_KEEP(-1))), v);
    }
    mb_tensor state = mb_einsum("bnhd,bnhe->bhde", k, v);
    mb_tensor total = mb_sum(k, MB_AXES(1)); /* [B,H,dk] */
    mb_tensor divisor = mb_einsum("bnhd,bhd->bnh", q, total);
    return mb_div(mb_einsum("bnhd,bhde->bnhe", q, state), mb_unsqueeze(divisor, -1));
}

mb_tensor mb_attend_at(const char *site, mb_tensor q, mb_tensor k, mb_tensor v, mb_attention_kind kind,
                       bool causal, double scale)
{
    MB_SITE(q.ctx, site);
    if (!mb__usable(q))
        return mb__refused(q);
    mb_tensor y = {0};
    switch (kind) {
    case MB_ATTENTION_SOFTMAX:
        y = softmax_attention(q, k, v, causal, scale);
        break;
    case MB_ATTENTION_LINEAR:
        y = linear_attention(q, k, v, causal, scale);
        break;
    case MB_ATTENTION_ADAPTIVE:
        y = adaptive_attention(q, k, v, causal);
        break;
    default:
        mb_fail(q.ctx, MB_INVALID, "mb_attend: %d is no kind of attention", (int)kind);
    }
    return y;
}

mb_attention mb_attention_new_at(const char *site, mb_params *p, const char *name,
                                 mb_attention_options options)
{
    MB_SITE(mb_params_context(p), site);
    mb_attention layer = {.options = options};
    int64_t D = options.dim;
    if (!p || !mb__check_heads(p, "mb_attention", D, options.heads) || mb_params_enter(p, name) != MB_OK)
        return layer;
    mb_linear_options linear = {.no_bias = options.no_bias, .weight = mb_init_xavier(D, D)};
    layer.qkv = mb_linear_new_with(p, "qkv", D, 3 * D, linear);
    layer.out = mb_linear_new_with(p, "out", D, D, linear);
    mb_params_leave(p);
    return layer;
}

/* Part 0, 1 or 2 of qkv: [B,N,3,H,dh] -> [B,N,H,dh] */
static mb_tensor part(mb_tensor qkv, int which)
{
    return mb_squeeze(mb_slice(qkv, 2, which, 1, 1), 2);
}

mb_tensor mb_attention_apply_at(const char *site, mb_attention layer, mb_tensor x)
{
    MB_SITE(x.ctx, site);
    if (!mb__usable(x))
        return mb__refused(x);
    int64_t D = layer.options.dim, H = layer.options.heads;
    mb_tensor y = {0};
    if (H > 0 && mb__check_tokens(x, D, "attention")) {
        int64_t B = mb_dim(x, 0), N = mb_dim(x, 1);
        mb_tensor qkv = mb_reshape(mb_linear_apply(layer.qkv, x), MB_SHAPE(B, N, 3, H, D / H));
        y = mb_attend(part(qkv, 0), part(qkv, 1), part(qkv, 2), layer.options.kind, layer.options.causal,
                      layer.options.scale);
        y = mb_linear_apply(layer.out, mb_reshape(y, MB_SHAPE(B, N, D)));
    }
    return y;
}
