/* SPDX-License-Identifier: MIT
 *
 * memory.c - a layer whose state is learned as it goes: what its queries, keys, values and gates are made of
 * is the same for every rule.
 */
#include "layers/internal.h"
#include "layers/mesa.h"

#include <math.h>

enum { MOST_CONV = 64 };

static bool forgets(mb_memory_rule rule)
{
    return rule == MB_MEMORY_GATED || rule >= MB_MEMORY_GATED_DELTA;
}

static bool has_beta(mb_memory_rule rule)
{
    return rule == MB_MEMORY_DELTA || rule == MB_MEMORY_GATED_DELTA || rule == MB_MEMORY_MESANET;
}

/* Fills in dk. */
static bool check(mb_params *p, mb_memory_options *o)
{
    if (!mb__check_heads(p, "mb_memory", o->dim, o->heads))
        return false;
    if (o->rule < MB_MEMORY_LINEAR || o->rule > MB_MEMORY_MESANET || o->key < 0 || o->key > MB_SIZE_MAX ||
        o->conv < 0 || o->conv > MOST_CONV) {
        mb_fail(mb_params_context(p), MB_INVALID,
                "mb_memory: rule %d, key %lld, conv %lld: wanted MB_MEMORY_..., 0 to 2^31, and 0 to %d",
                (int)o->rule, (long long)o->key, (long long)o->conv, MOST_CONV);
        return false;
    }
    o->key = o->key ? o->key : o->dim / o->heads;
    return true;
}

static mb_tensor new_filled(mb_params *p, const char *name, mb_shape shape, double value)
{
    return mb_param_no_decay(p, name, shape, mb_init_full(value));
}

static void new_gates(mb_params *p, mb_memory *l)
{
    const mb_memory_options *o = &l->options;
    if (forgets(o->rule)) {
        l->forget = mb_param(p, "forget", MB_SHAPE(o->heads, o->dim), mb_init_xavier(o->dim, o->heads));
        l->forget_bias = new_filled(p, "forget_bias", MB_SHAPE(o->heads), 4);
    }
    if (has_beta(o->rule)) {
        l->beta = mb_param(p, "beta", MB_SHAPE(o->heads, o->dim), mb_init_xavier(o->dim, o->heads));
        l->beta_bias = new_filled(p, "beta_bias", MB_SHAPE(o->heads), 0);
    }
    if (o->rule == MB_MEMORY_MESA)
        l->ridge = new_filled(p, "ridge", MB_SHAPE(o->heads), 0);
    if (o->rule == MB_MEMORY_MESANET)
        l->ridge = new_filled(p, "ridge", MB_SHAPE(o->heads, o->key), log(expm1(0.75)));
}

mb_memory mb_memory_new_at(const char *site, mb_params *p, const char *name, mb_memory_options options)
{
    MB_SITE(mb_params_context(p), site);
    mb_memory layer = {.options = options};
    mb_memory_options *o = &layer.options;
    if (!p || !check(p, o) || mb_params_enter(p, name) != MB_OK)
        return layer;
    int64_t keys = o->heads * o->key;
    layer.query = mb_param(p, "query", MB_SHAPE(keys, o->dim), mb_init_xavier(o->dim, keys));
    layer.key = mb_param(p, "key", MB_SHAPE(keys, o->dim), mb_init_xavier(o->dim, keys));
    layer.value = mb_param(p, "value", MB_SHAPE(o->dim, o->dim), mb_init_xavier(o->dim, o->dim));
    layer.out = mb_param(p, "out", MB_SHAPE(o->dim, o->dim), mb_init_xavier(o->dim, o->dim));
    if (o->conv)
        layer.conv = mb_param_no_decay(p, "conv", MB_SHAPE(2, o->conv, keys), mb_init_impulse());
    new_gates(p, &layer);
    layer.scale = mb_param_no_decay(p, "scale", MB_SHAPE(o->dim / o->heads), mb_init_ones());
    mb_params_leave(p);
    return layer;
}

/* ---- applied ---- */

/* x: [B,N,D], weight: [H d,D] -> [B,N,H d] */
static mb_tensor projected(mb_tensor x, mb_tensor weight)
{
    return mb_einsum("bni,oi->bno", x, mb__as(weight, x));
}

/* [B,N,H d] -> [B,H,N,d] */
static mb_tensor by_head(mb_tensor t, int64_t heads)
{
    mb_shape s = mb_shape_of(t);
    t = mb_reshape(t, MB_SHAPE(s.dim[0], s.dim[1], heads, s.dim[2] / heads));
    return mb_permute(t, MB_AXES(0, 2, 1, 3));
}

/* Each entry by itself, the token and those before it: sum over i of filter_i x_{t-i}. */
static mb_tensor convolved(mb_tensor x, mb_tensor filter)
{
    int64_t N = mb_dim(x, 1), width = mb_dim(filter, 0);
    mb_tensor sum = mb_mul(x, mb_slice(filter, 0, 0, 1, 1));
    for (int64_t i = 1; i < width && i < N; i++) {
        mb_tensor earlier = mb_pad(mb_slice(x, 1, 0, N - i, 1), 1, i, 0);
        sum = mb_add(sum, mb_mul(earlier, mb_slice(filter, 0, i, 1, 1)));
    }
    return sum;
}

/* Queries (0) or keys (1) of length 1, [B,H,N,dk]; 0 stays 0. */
static mb_tensor directions(const mb_memory *l, mb_tensor x, int which)
{
    mb_tensor t = mb__wide(projected(x, which ? l->key : l->query));
    if (l->options.conv)
        t = mb_silu(convolved(t, mb_squeeze(mb_slice(l->conv, 0, which, 1, 1), 0)));
    t = by_head(t, l->options.heads);
    mb_tensor length = mb_norm(t, MB_KEEP(-1)), zero = mb__literal(t, 0);
    return mb__narrow(mb_div(t, mb_where(mb_lt(zero, length), length, mb__literal(t, 1))), x);
}

/* x W + b, [B,H,N]; of halves float32, since decays multiply along a sequence. */
static mb_tensor gate(mb_tensor x, mb_tensor weight, mb_tensor bias)
{
    return mb_permute(mb_add(mb__wide(projected(x, weight)), bias), MB_AXES(0, 2, 1));
}

/* [B,H,N,D/H] */
static mb_tensor remembered(const mb_memory *l, mb_tensor x)
{
    const mb_memory_options *o = &l->options;
    mb_tensor q = directions(l, x, 0), k = directions(l, x, 1), forget = {0}, beta = {0};
    mb_tensor v = by_head(projected(x, l->value), o->heads);
    if (forgets(o->rule)) /* log sigmoid */
        forget = mb_neg(mb_softplus(mb_neg(gate(x, l->forget, l->forget_bias))));
    if (has_beta(o->rule))
        beta = mb_sigmoid(gate(x, l->beta, l->beta_bias));
    if (o->rule == MB_MEMORY_MESA) {
        mb_mesa_options mesa = {
            .keep_every = o->keep_every, .reversible = o->mesa.reversible, .chunk = o->chunk};
        return mb_mesa_attention(q, k, v, forget, mb_exp(l->ridge), mesa, NULL);
    }
    if (o->rule == MB_MEMORY_MESANET) {
        mb_mesanet_options net = o->mesanet;
        net.beta = beta, net.chunk = o->chunk, net.keep_every = o->keep_every;
        mb_tensor ridge = mb_add(mb_softplus(l->ridge), mb__literal(l->ridge, 0.25));
        return mb_mesanet_attention(q, k, v, forget, ridge, net);
    }
    mb_gated_attention_options gated = {.chunk = o->chunk, .keep_every = o->keep_every, .beta = beta};
    return mb_gated_attention(q, k, v, forget.ctx ? mb_unsqueeze(forget, 3) : forget, gated, NULL);
}

mb_tensor mb_memory_apply_at(const char *site, mb_memory layer, mb_tensor x)
{
    int64_t D = layer.options.dim;
    MB__APPLY(site, "memory", {"x", x, MB__NEEDED}, {"layer.query", layer.query, MB__NEEDED},
              {"layer.key", layer.key, MB__NEEDED}, {"layer.value", layer.value, MB__NEEDED},
              {"layer.out", layer.out, MB__NEEDED}, {"layer.scale", layer.scale, MB__NEEDED});
    if (!mb__check_tokens(x, D, "memory"))
        return (mb_tensor){0};
    mb_tensor y = mb_rms_normalize(remembered(&layer, x), layer.scale, 1e-6);
    y = mb_reshape(mb_permute(y, MB_AXES(0, 2, 1, 3)), MB_SHAPE(mb_dim(x, 0), mb_dim(x, 1), D));
    return projected(y, layer.out);
}
