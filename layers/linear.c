/* SPDX-License-Identifier: MIT
 *
 * linear.c - linear layers, embeddings, and checks that layers share.
 */
#include "layers/internal.h"

#include <stdio.h>

const char *mb__shape(char out[MB__SHAPE_TEXT], mb_tensor t)
{
    mb_shape s = mb_shape_of(t);
    int n = snprintf(out, MB__SHAPE_TEXT, "[");
    for (int i = 0; i < s.rank; i++) /* at most 8 axes of 20 characters */
        n += snprintf(out + n, MB__SHAPE_TEXT - (size_t)n, "%s%lld", i ? "," : "", (long long)s.dim[i]);
    snprintf(out + n, MB__SHAPE_TEXT - (size_t)n, "]");
    return out;
}

mb_context *mb__context_among(const mb__operand *list, int n)
{
    for (int i = 0; i < n; i++)
        if (list[i].t.ctx)
            return list[i].t.ctx;
    return NULL;
}

static bool right_dtype(const mb__operand *o, mb_tensor first)
{
    mb_dtype got = mb_dtype_of(o->t);
    return !(o->how & (MB__ALIKE | MB__NUMBERS)) || got == mb_dtype_of(first) ||
           ((o->how & MB__NUMBERS) && mb__halved(first) && got == MB_FLOAT32);
}

bool mb__operands(const char *layer, const mb__operand *list, int n, mb_tensor *refused)
{
    mb_context *ctx = mb__context_among(list, n);
    *refused = mb__failed(ctx);
    for (int i = 0; i < n; i++) {
        const mb__operand *o = &list[i];
        if (!o->t.ctx) {
            if (o->how & MB__OPTIONAL)
                continue;
            mb_fail(ctx, MB_INVALID, "%s: %s is no tensor", layer, o->name);
            return false;
        }
        if (!mb_valid(o->t)) {
            if (!o->t.id)
                mb_fail(ctx, MB_INVALID, "%s: %s is the result of an op that failed", layer, o->name);
            else
                mb_alias(o->t); /* tells why it is stale */
            return false;
        }
        if (!right_dtype(o, list[0].t)) {
            mb_fail(ctx, MB_INVALID, "%s: %s is %s, and %s %s; convert with mb_cast", layer, list[0].name,
                    mb_dtype_name(mb_dtype_of(list[0].t)), o->name, mb_dtype_name(mb_dtype_of(o->t)));
            return false;
        }
    }
    return true;
}

bool mb__check_tokens(mb_tensor x, int64_t dim, const char *layer)
{
    mb_shape s = mb_shape_of(x);
    if (s.rank != 3)
        mb_fail(x.ctx, MB_INVALID, "%s: x has %d axes, wanted [images, tokens, %lld]", layer, s.rank,
                (long long)dim);
    else if (s.dim[2] != dim)
        mb_fail(x.ctx, MB_INVALID, "%s: x is [%lld,%lld,%lld], wanted [images, tokens, %lld]", layer,
                (long long)s.dim[0], (long long)s.dim[1], (long long)s.dim[2], (long long)dim);
    else
        return true;
    return false;
}

bool mb__check_heads(mb_params *p, const char *layer, int64_t dim, int64_t heads)
{
    if (dim >= 1 && dim <= MB_SIZE_MAX && heads >= 1 && dim % heads == 0)
        return true;
    mb_fail(mb_params_context(p), MB_INVALID,
            "%s: dim %lld and heads %lld: both must be 1 or more, dim at most 2^31, and heads divide dim",
            layer, (long long)dim, (long long)heads);
    return false;
}

/* -------------------------------------------------------------------------------------------- linear -- */

mb_linear mb_linear_new_with_at(const char *site, mb_params *p, const char *name, int64_t in, int64_t out,
                                mb_linear_options options)
{
    MB_SITE(mb_params_context(p), site);
    mb_linear layer = {0};
    if (!p)
        return layer;
    if (in < 1 || out < 1) {
        mb_fail(mb_params_context(p), MB_INVALID, "mb_linear: in %lld, out %lld: both must be 1 or more",
                (long long)in, (long long)out);
        return layer;
    }
    mb_init weight = options.weight.kind == MB_INIT_DEFAULT ? mb_init_xavier(in, out) : options.weight;
    if (mb_params_enter(p, name) != MB_OK)
        return layer;
    layer.weight = mb_param(p, "weight", MB_SHAPE(out, in), weight);
    if (!options.no_bias)
        layer.bias = mb_param_no_decay(p, "bias", MB_SHAPE(out), options.bias);
    mb_params_leave(p);
    return layer;
}

mb_tensor mb_linear_apply_at(const char *site, mb_linear layer, mb_tensor x)
{
    MB__APPLY(site, "linear", {"x", x, MB__NEEDED}, {"layer.weight", layer.weight, MB__NEEDED},
              {"layer.bias", layer.bias, MB__OPTIONAL});
    int rank = mb_shape_of(x).rank;
    mb_tensor y = {0};
    char a[MB__SHAPE_TEXT], b[MB__SHAPE_TEXT];
    if (rank < 1 || mb_shape_of(layer.weight).rank != 2 || mb_dim(x, -1) != mb_dim(layer.weight, 1)) {
        mb_fail(x.ctx, MB_INVALID,
                "linear: x is %s, weight is %s; wanted weight [out,in] and x with a last axis of in",
                mb__shape(a, x), mb__shape(b, layer.weight));
    } else {
        /* "abi,oi->abo": one contraction for any rank of x, so that the weight is not broadcast over the
         * batch. */
        char equation[2 * MB_MAX_RANK + 16];
        int n = 0;
        for (int i = 0; i < rank - 1; i++)
            equation[n++] = (char)('a' + i);
        for (const char *c = "y,zy->"; *c; c++)
            equation[n++] = *c;
        for (int i = 0; i < rank - 1; i++)
            equation[n++] = (char)('a' + i);
        equation[n++] = 'z';
        equation[n] = 0;
        y = mb_einsum(equation, x, mb__as(layer.weight, x));
        if (layer.bias.ctx)
            y = mb_add(y, mb__as(layer.bias, x));
    }
    return y;
}

/* ----------------------------------------------------------------------------------------- embedding -- */

mb_embedding mb_embedding_new_at(const char *site, mb_params *p, const char *name, int64_t vocabulary,
                                 int64_t dim)
{
    MB_SITE(mb_params_context(p), site);
    mb_embedding layer = {0};
    if (!p)
        return layer;
    if (vocabulary < 1 || dim < 1) {
        mb_fail(mb_params_context(p), MB_INVALID,
                "mb_embedding: vocabulary %lld, dim %lld: both must be 1 or more", (long long)vocabulary,
                (long long)dim);
        return layer;
    }
    if (mb_params_enter(p, name) != MB_OK)
        return layer;
    layer.weight = mb_param_no_decay(p, "weight", MB_SHAPE(vocabulary, dim), mb_init_normal(0.02));
    mb_params_leave(p);
    return layer;
}

mb_tensor mb_embedding_apply_at(const char *site, mb_embedding layer, mb_tensor ids)
{
    MB__APPLY(site, "embedding", {"ids", ids, MB__NEEDED}, {"layer.weight", layer.weight, MB__NEEDED});
    return mb_take(layer.weight, ids, 0);
}
