/* SPDX-License-Identifier: MIT
 *
 * self_attention.c - linear self-attention with keys, queries, values and a projection: computed as a linear
 * transformer of their products; and weights that make it gradient descent.
 */
#include "layers/in_context.h"

#include <math.h>

mb_self_attention mb_self_attention_new_at(const char *site, mb_params *p, const char *name,
                                           mb_self_attention_options options)
{
    MB_SITE(mb_params_context(p), site);
    mb_self_attention layer = {.options = options};
    if (!p || !mb__check_in_context(mb_params_context(p), "self_attention", options.dim, options.outputs,
                                    options.layers, options.heads))
        return layer;
    if (options.key < 0 || options.key > MB_SIZE_MAX) {
        mb_fail(mb_params_context(p), MB_INVALID, "self_attention: key %lld: wanted 0 to 2^31",
                (long long)options.key);
        return layer;
    }
    if (mb_params_enter(p, name) != MB_OK)
        return layer;
    int64_t m = options.dim + mb__at_least_one(options.outputs), H = mb__at_least_one(options.heads);
    int64_t key = options.key ? options.key : m, T = options.tied ? 1 : options.layers;
    double scale = 0.002 / (double)mb__at_least_one(options.layers);
    bool given = options.init.kind != MB_INIT_DEFAULT;
    mb_init in = given ? options.init : mb_init_normal(sqrt(scale / (double)m));
    mb_init out = given ? options.init : mb_init_normal(sqrt(scale / ((double)key * (double)H)));
    layer.query = mb_param(p, "query", MB_SHAPE(T, H, key, m), in);
    layer.key = mb_param(p, "key", MB_SHAPE(T, H, key, m), in);
    layer.value = mb_param(p, "value", MB_SHAPE(T, H, key, m), in);
    layer.projection = mb_param(p, "projection", MB_SHAPE(T, H, m, key), out);
    mb_params_leave(p);
    return layer;
}

mb_linear_transformer mb_self_attention_products_at(const char *site, mb_self_attention layer)
{
    const mb__operand all[] = {{"layer.query", layer.query, MB__NEEDED},
                               {"layer.key", layer.key, MB__NEEDED},
                               {"layer.value", layer.value, MB__NEEDED},
                               {"layer.projection", layer.projection, MB__NEEDED}};
    MB_SITE(mb__context_among(all, 4), site);
    const mb_self_attention_options *o = &layer.options;
    mb_linear_transformer product = {.options = {.dim = o->dim,
                                                 .outputs = o->outputs,
                                                 .layers = o->layers,
                                                 .heads = o->heads,
                                                 .tied = o->tied,
                                                 .unmasked = o->unmasked,
                                                 .scores = o->scores,
                                                 .scale = 1,
                                                 .clip = o->clip}};
    if (!mb__operands("self_attention", all, 4, &product.P))
        return product;
    product.P = mb_einsum("thik,thkj->thij", layer.projection, layer.value);
    product.Q = mb_einsum("thki,thkj->thij", layer.key, layer.query);
    if (o->scores != MB_SCORES_LINEAR && mb_valid(product.Q))
        product.Q = mb_mul(product.Q, mb__literal(product.Q, 1 / sqrt((double)mb_dim(layer.key, 2))));
    return product;
}

mb_tensor mb_self_attention_apply_at(const char *site, mb_self_attention layer, mb_tensor z)
{
    MB__APPLY(site, "self_attention", {"z", z, MB__NEEDED}, {"layer.query", layer.query, MB__NEEDED});
    return mb_linear_transformer_apply(mb_self_attention_products(layer), z);
}

mb_tensor mb_self_attention_predict_at(const char *site, mb_self_attention layer, mb_tensor z)
{
    MB__APPLY(site, "self_attention", {"z", z, MB__NEEDED}, {"layer.query", layer.query, MB__NEEDED});
    return mb_linear_transformer_predict(mb_self_attention_products(layer), z);
}

/* ---- gradient descent ---- */

/* An [m,m] matrix of zeros with t: [rows, columns] at (row, column). */
static mb_tensor block(mb_tensor t, int64_t row, int64_t column, int64_t m)
{
    t = mb_pad(t, 0, row, m - row - mb_dim(t, 0));
    return mb_pad(t, 1, column, m - column - mb_dim(t, 1));
}

/* A rate: 0-d or [L] -> [1,1,1,1] or [L,1,1,1]; false after reporting. */
static bool rate(mb_tensor *t, int64_t layers, const char *name)
{
    mb_shape s = mb_shape_of(*t);
    if (s.rank > 1 || (s.rank == 1 && s.dim[0] != layers)) {
        mb_fail(t->ctx, MB_INVALID, "self_attention_gd: %s has %d axes, wanted a single number or [%lld]",
                name, s.rank, (long long)layers);
        return false;
    }
    *t = mb_reshape(*t, MB_SHAPE(s.rank ? layers : 1, 1, 1, 1));
    return true;
}

/* Fills the weights of gradient descent; checks the shapes of eta and gamma. */
static bool descend(mb_self_attention *layer, mb_tensor eta, mb_tensor gamma, mb_tensor W0, int64_t n)
{
    mb_self_attention_options *o = &layer->options;
    int64_t d = o->dim, e = mb__at_least_one(o->outputs), m = d + e;
    mb_context *ctx = eta.ctx;
    mb_dtype dtype = mb_dtype_of(eta);
    bool each = mb_shape_of(eta).rank || (gamma.ctx && mb_shape_of(gamma).rank);
    int64_t T = each ? o->layers : 1;
    if (!rate(&eta, o->layers, "eta") || (gamma.ctx && !rate(&gamma, o->layers, "gamma")))
        return false;
    if (W0.ctx && (mb_shape_of(W0).rank != 2 || mb_dim(W0, 0) != e || mb_dim(W0, 1) != d)) {
        mb_fail(ctx, MB_INVALID, "self_attention_gd: wanted W0 [%lld,%lld]", (long long)e, (long long)d);
        return false;
    }
    mb_tensor on_x = block(mb_eye(ctx, dtype, d), 0, 0, m), on_y = block(mb_eye(ctx, dtype, e), d, d, m);
    mb_tensor value = mb_neg(on_y), out = mb_mul(on_y, mb_mul(eta, 1 / (double)n));
    if (W0.ctx)
        value = mb_add(value, block(W0, d, 0, m));
    if (gamma.ctx) {
        value = mb_add(value, on_x);
        out = mb_sub(out, mb_mul(on_x, gamma));
    } else {
        out = mb_add(out, mb_mul(on_x, mb_mul(eta, 1 / (double)n)));
    }
    mb_shape shape = MB_SHAPE(T, 1, m, m);
    layer->query = layer->key = mb_broadcast(on_x, shape);
    layer->value = mb_broadcast(value, shape);
    layer->projection = mb_broadcast(out, shape);
    o->tied = !each;
    o->heads = 1;
    o->key = m;
    o->scores = MB_SCORES_LINEAR;
    return true;
}

mb_self_attention mb_self_attention_gd_at(const char *site, mb_tensor eta, mb_tensor gamma, mb_tensor W0,
                                          int64_t n, mb_self_attention_options options)
{
    mb_self_attention layer = {.options = options};
    const mb__operand all[] = {
        {"eta", eta, MB__NEEDED}, {"gamma", gamma, MB__OPTIONAL}, {"W0", W0, MB__OPTIONAL}};
    MB_SITE(mb__context_among(all, 3), site);
    if (!mb__operands("self_attention_gd", all, 3, &layer.query))
        return layer;
    if (mb__check_in_context(eta.ctx, "self_attention_gd", options.dim, options.outputs, options.layers, 1)) {
        if (n < 1)
            mb_fail(eta.ctx, MB_INVALID, "self_attention_gd: n is %lld, wanted 1 or more", (long long)n);
        else
            descend(&layer, eta, gamma, W0, n);
    }
    return layer;
}
