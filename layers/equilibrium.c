/* SPDX-License-Identifier: MIT
 * equilibrium.c - a monotone operator equilibrium network, as a fixed point. */
#include "layers/equilibrium.h"
#include "layers/internal.h"
#include "tensor/linalg.h"

#include <math.h>

mb_equilibrium mb_equilibrium_new_at(const char *site, mb_params *p, const char *name,
                                     mb_equilibrium_options options)
{
    MB_SITE(mb_params_context(p), site);
    mb_equilibrium layer = {.options = options};
    if (!p)
        return layer;
    if (options.in < 1 || options.in > MB_SIZE_MAX || options.hidden < 1 || options.hidden > MB_SIZE_MAX ||
        !(options.monotone >= 0 && isfinite(options.monotone))) {
        mb_fail(mb_params_context(p), MB_INVALID,
                "mb_equilibrium: in %lld, hidden %lld, monotone %g: wanted sizes of 1 to 2^31 and a positive "
                "number",
                (long long)options.in, (long long)options.hidden, options.monotone);
        return layer;
    }
    layer.options.monotone = options.monotone > 0 ? options.monotone : 1;
    if (!(layer.options.solve.damping > 0))
        layer.options.solve.damping = options.solve.damping < 0 ? options.solve.damping : 0.5;
    layer.options.solve.batched = true;
    if (mb_params_enter(p, name) != MB_OK)
        return layer;
    int64_t n = options.hidden;
    mb_init outer = mb_init_uniform(1 / sqrt((double)options.in)),
            inner = mb_init_uniform(0.5 / sqrt((double)n));
    layer.input = mb_param(p, "input", MB_SHAPE(n, options.in), outer);
    layer.bias = mb_param_no_decay(p, "bias", MB_SHAPE(n), outer);
    layer.a = mb_param(p, "a", MB_SHAPE(n, n), inner);
    layer.b = mb_param(p, "b", MB_SHAPE(n, n), inner);
    mb_params_leave(p);
    return layer;
}

/* at->params: W^T, and U x + b of each row. */
static mb_status once_more(const void *user, mb_context *ctx, const mb_map_at *at, mb_tensor *out)
{
    const bool *use_tanh = user;
    mb_tensor z = mb_add(mb_matmul(at->xs[0], at->params[0]), at->params[1]);
    out[0] = *use_tanh ? mb_tanh(z) : mb_relu(z);
    return mb_error(ctx);
}

static mb_tensor weight_transposed(const mb_equilibrium *layer)
{
    mb_tensor a = layer->a, b = layer->b;
    mb_tensor eye = mb_diagonal_matrix(mb_full(a.ctx, mb_dtype_of(a), MB_SHAPE(layer->options.hidden), 1));
    mb_tensor w = mb_sub(mb_mul(eye, 1 - layer->options.monotone), mb_matmul(mb_transpose(a), a));
    return mb_sub(mb_add(w, mb_transpose(b)), b); /* transposed, B - B^T changes its sign */
}

mb_tensor mb_equilibrium_apply_at(const char *site, mb_equilibrium layer, mb_tensor x, mb_convergence *told)
{
    if (told)
        *told = (mb_convergence){0};
    MB__APPLY(site, "equilibrium", {"x", x, MB__NEEDED}, {"layer.input", layer.input, MB__NEEDED},
              {"layer.bias", layer.bias, MB__NEEDED}, {"layer.a", layer.a, MB__NEEDED},
              {"layer.b", layer.b, MB__NEEDED});
    mb_shape shape = mb_shape_of(x);
    char text[MB__SHAPE_TEXT];
    if (shape.rank < 1 || shape.dim[shape.rank - 1] != layer.options.in) {
        mb_fail(x.ctx, MB_INVALID, "mb_equilibrium: got %s; wanted rows of %lld", mb__shape(text, x),
                (long long)layer.options.in);
        return (mb_tensor){0};
    }
    mb_tensor rows = mb_reshape(x, MB_SHAPE(mb_count(x) / layer.options.in, layer.options.in)), z = {0};
    mb_tensor input = mb__as(layer.input, x), bias = mb__as(layer.bias, x);
    mb_tensor given = mb_add(mb_matmul(rows, mb_transpose(input)), bias);
    const mb_tensor start = mb_zeros(x.ctx, mb_dtype_of(x), MB_SHAPE(mb_dim(rows, 0), layer.options.hidden)),
                    params[2] = {weight_transposed(&layer), given};
    const mb_map map = {
        .call = once_more, .user = &layer.options.tanh, .user_bytes = sizeof layer.options.tanh};
    if (mb_fixed_point(map, &start, 1, params, 2, layer.options.solve, &z, told) != MB_OK)
        return (mb_tensor){0};
    shape.dim[shape.rank - 1] = layer.options.hidden;
    return mb_reshape(z, shape);
}
