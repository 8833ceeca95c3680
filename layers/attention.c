/* SPDX-License-Identifier: MIT
 *
 * attention.c - attention: softmax, linear with a constant scale, and linear with a normaliser.
 */
#include "layers/internal.h"
#include "layers/recurrent.h"

#include <math.h>

/* Which keys each query may see, of the scores [B,H,N,M]. */
typedef struct sight {
    mb_tensor seen;     /* bool, broadcasts to the scores; null: all are seen */
    mb_tensor anything; /* its any() over the last axis: whether a query sees a key; null: each does */
} sight;

/* causal: j <= i + M - N; the last query sees the last key. */
static sight sight_of(mb_tensor q, mb_tensor k, bool causal, mb_tensor mask)
{
    int64_t N = mb_dim(q, 1), M = mb_dim(k, 1);
    sight s = {.seen = mask.ctx && mb_shape_of(mask).rank == 0 ? mb_reshape(mask, MB_SHAPE(1)) : mask};
    if (causal) {
        mb_tensor lower = mb_tril_mask(q.ctx, N, M, M - N);
        s.seen = mask.ctx ? mb_and(s.seen, lower) : lower;
    }
    if (mask.ctx || (causal && N > M))
        s.anything = mb_lt(mb_full(q.ctx, MB_INT32, MB_SHAPE0, 0), mb_sum(s.seen, MB_KEEP(-1)));
    return s;
}

/* The scores, with `elsewhere` in place of those that are not seen. */
static mb_tensor seen_or(const sight *s, mb_tensor scores, mb_tensor elsewhere)
{
    return s->seen.ctx ? mb_where(s->seen, scores, elsewhere) : scores;
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

static mb_tensor softmax_attention(mb_tensor q, mb_tensor k, mb_tensor v, const sight *s, double scale)
{
    if (scale == 0)
        scale = 1 / sqrt((double)mb_dim(q, -1));
    mb_tensor scores = mb_tell(products(mb_mul(q, mb__literal(q, scale)), k), "scores");
    mb_tensor never = mb__literal(q, -(double)INFINITY), zero = mb__literal(q, 0);
    if (!s->anything.ctx)
        return weighted(mb_tell(mb_softmax(seen_or(s, scores, never), -1), "weights"), v);
    /* The scores of a query that sees nothing are 0, so that its softmax is not NaN; its weights are then set
     * to 0. */
    mb_tensor elsewhere = mb_where(s->anything, never, zero);
    mb_tensor weights = mb_where(s->anything, mb_softmax(seen_or(s, scores, elsewhere), -1), zero);
    return weighted(mb_tell(weights, "weights"), v);
}

static mb_tensor linear_attention(mb_tensor q, mb_tensor k, mb_tensor v, const sight *s, double scale)
{
    if (scale == 0) /* without keys any scale will do: the sum is 0 */
        scale = 1 / (fmax((double)mb_dim(k, 1), 1) * (double)mb_dim(q, -1));
    if (s->seen.ctx)
        return weighted(seen_or(s, mb_mul(products(q, k), mb__literal(q, scale)), mb__literal(q, 0)), v);
    mb_tensor state = mb_einsum("bnhd,bnhe->bhde", k, v);
    return mb_einsum("bnhd,bhde->bnhe", q, mb_mul(state, mb__literal(q, scale)));
}

/* Katharopoulos et al. 2006.16236, eqs. 5 and 7. */
static mb_tensor adaptive_attention(mb_tensor q, mb_tensor k, mb_tensor v, const sight *s)
{
    mb_tensor one = mb__literal(q, 1);
    q = mb_add(mb_elu(q), one);
    k = mb_add(mb_elu(k), one);
    if (s->seen.ctx) {
        mb_tensor scores = seen_or(s, products(q, k), mb__literal(q, 0)), total = mb_sum(scores, MB_KEEP(-1));
        if (s->anything.ctx)
            total = mb_where(s->anything, total, one);
        return weighted(mb_div(scores, total), v);
    }
    mb_tensor state = mb_einsum("bnhd,bnhe->bhde", k, v);
    mb_tensor total = mb_sum(k, MB_AXES(1)); /* [B,H,dk] */
    mb_tensor divisor = mb_dim(k, 1) ? mb_unsqueeze(mb_einsum("bnhd,bhd->bnh", q, total), -1) : one;
    return mb_div(mb_einsum("bnhd,bhde->bnhe", q, state), divisor);
}

/* sum over j <= i of (q_i . k_j) v_j, a chunk of tokens at once; [B,N,H,dv]. */
static mb_tensor in_chunks(mb_tensor q, mb_tensor k, mb_tensor v, int64_t chunk)
{
    mb_axes swap = MB_AXES(0, 2, 1, 3);
    mb_tensor y = mb_gated_attention(mb_permute(q, swap), mb_permute(k, swap), mb_permute(v, swap),
                                     (mb_tensor){0}, (mb_gated_attention_options){.chunk = chunk}, NULL);
    return mb_permute(y, swap);
}

static mb_tensor linear_in_chunks(mb_tensor q, mb_tensor k, mb_tensor v, const mb_attend_options *o)
{
    int64_t n = mb_dim(k, 1);
    double scale = o->scale != 0 ? o->scale : 1 / (fmax((double)n, 1) * (double)mb_dim(q, -1));
    return in_chunks(mb_mul(q, mb__literal(q, scale)), k, v, o->chunk);
}

/* The divisor is what values of 1 would give: one more entry of each value. */
static mb_tensor adaptive_in_chunks(mb_tensor q, mb_tensor k, mb_tensor v, const mb_attend_options *o)
{
    mb_tensor one = mb__literal(q, 1), both[2] = {v};
    mb_shape shape = mb_shape_of(v);
    int64_t dv = shape.dim[3];
    shape.dim[3] = 1;
    both[1] = mb_ones(q.ctx, mb_dtype_of(v), shape);
    mb_tensor y = in_chunks(mb_add(mb_elu(q), one), mb_add(mb_elu(k), one), mb_concat(both, 2, 3), o->chunk);
    return mb_div(mb_slice(y, 3, 0, dv, 1), mb_slice(y, 3, dv, 1, 1));
}

/* Checks four axes each, of matching sizes, and that the mask broadcasts to the scores. */
static bool check_operands(mb_tensor q, mb_tensor k, mb_tensor v, mb_tensor mask)
{
    mb_shape a = mb_shape_of(q), b = mb_shape_of(k), c = mb_shape_of(v), m = mb_shape_of(mask);
    char text[3][MB__SHAPE_TEXT];
    if (a.rank != 4 || b.rank != 4 || c.rank != 4 || a.dim[0] != b.dim[0] || b.dim[0] != c.dim[0] ||
        a.dim[2] != b.dim[2] || b.dim[2] != c.dim[2] || a.dim[3] != b.dim[3] || b.dim[1] != c.dim[1]) {
        mb_fail(q.ctx, MB_INVALID, "attend: got q %s, k %s, v %s; wanted [B,N,H,dk], [B,M,H,dk], [B,M,H,dv]",
                mb__shape(text[0], q), mb__shape(text[1], k), mb__shape(text[2], v));
        return false;
    }
    const int64_t scores[4] = {a.dim[0], a.dim[2], a.dim[1], b.dim[1]};
    bool ok = !mask.ctx || (mb_dtype_of(mask) == MB_BOOL && m.rank <= 4);
    for (int i = 0; ok && i < m.rank; i++)
        ok = m.dim[i] == 1 || m.dim[i] == scores[4 - m.rank + i];
    if (!ok)
        mb_fail(
            q.ctx, MB_INVALID,
            "attend: got the mask %s %s; wanted bool that broadcasts to the scores, [%lld,%lld,%lld,%lld]",
            mb__shape(text[0], mask), mb_dtype_name(mb_dtype_of(mask)), (long long)scores[0],
            (long long)scores[1], (long long)scores[2], (long long)scores[3]);
    return ok;
}

static mb_tensor attend(mb_tensor q, mb_tensor k, mb_tensor v, const mb_attend_options *o)
{
    if (!check_operands(q, k, v, o->mask))
        return (mb_tensor){0};
    bool chunks = o->chunk > 1 && o->causal && !o->mask.ctx && mb_dim(q, 1) == mb_dim(k, 1);
    if (chunks && o->kind == MB_ATTENTION_LINEAR)
        return linear_in_chunks(q, k, v, o);
    if (chunks && o->kind == MB_ATTENTION_ADAPTIVE)
        return adaptive_in_chunks(q, k, v, o);
    sight s = sight_of(q, k, o->causal, o->mask);
    switch (o->kind) {
    case MB_ATTENTION_SOFTMAX:
        return softmax_attention(q, k, v, &s, o->scale);
    case MB_ATTENTION_LINEAR:
        return linear_attention(q, k, v, &s, o->scale);
    case MB_ATTENTION_ADAPTIVE:
        return adaptive_attention(q, k, v, &s);
    }
    mb_fail(q.ctx, MB_INVALID, "attend: %d is not a kind of attention", (int)o->kind);
    return (mb_tensor){0};
}

mb_tensor mb_attend_with_at(const char *site, mb_tensor q, mb_tensor k, mb_tensor v,
                            mb_attend_options options)
{
    MB__APPLY(site, "attend", {"q", q, MB__NEEDED}, {"k", k, MB__NEEDED}, {"v", v, MB__NEEDED},
              {"mask", options.mask, MB__OPTIONAL});
    return attend(q, k, v, &options);
}

mb_tensor mb_attend_at(const char *site, mb_tensor q, mb_tensor k, mb_tensor v, mb_attention_kind kind,
                       bool causal, double scale)
{
    return mb_attend_with_at(site, q, k, v, (mb_attend_options){kind, causal, scale, {0}, 0});
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

mb_tensor mb_attention_apply_with_at(const char *site, mb_attention layer, mb_tensor x, mb_tensor mask)
{
    MB__APPLY(site, "attention", {"x", x, MB__NEEDED}, {"layer.qkv.weight", layer.qkv.weight, MB__NEEDED},
              {"layer.out.weight", layer.out.weight, MB__NEEDED}, {"mask", mask, MB__OPTIONAL});
    int64_t D = layer.options.dim, H = layer.options.heads;
    mb_tensor y = {0};
    if (H > 0 && mb__check_tokens(x, D, "attention")) {
        int64_t B = mb_dim(x, 0), N = mb_dim(x, 1);
        mb_tensor qkv = mb_reshape(mb_linear_apply(layer.qkv, x), MB_SHAPE(B, N, 3, H, D / H));
        mb_attend_options options = {layer.options.kind, layer.options.causal, layer.options.scale, mask,
                                     layer.options.chunk};
        mb_tensor q = mb_tell(part(qkv, 0), "queries"), k = mb_tell(part(qkv, 1), "keys");
        y = mb_tell(mb_attend_with(q, k, mb_tell(part(qkv, 2), "values"), options), "heads");
        y = mb_tell(mb_linear_apply(layer.out, mb_reshape(y, MB_SHAPE(B, N, D))), "output");
    }
    return y;
}

mb_tensor mb_attention_apply_at(const char *site, mb_attention layer, mb_tensor x)
{
    return mb_attention_apply_with_at(site, layer, x, (mb_tensor){0});
}
