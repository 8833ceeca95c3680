/* SPDX-License-Identifier: MIT
 *
 * Mixers behind one function, and the pre-norm transformer block around them.
 */
#include "layers/internal.h"

#include <string.h>

/* -------------------------------------------------------------------------------------------- mixers -- */

static mb_tensor apply_attention(const void *layer, mb_tensor x, mb_key key, mb_tensor *losses)
{
    (void)key, (void)losses;
    return mb_attention_apply(*(const mb_attention *)layer, x);
}

static mb_tensor apply_ttt(const void *layer, mb_tensor x, mb_key key, mb_tensor *losses)
{
    return mb_ttt_apply(layer, x, key, losses);
}

static mb_mixer attention_mixer(const char *where, mb_params *p, int64_t dim, const mb_mixer_options *o)
{
    static const mb_attention_kind kinds[] = {
        [MB_MIXER_SOFTMAX] = MB_ATTENTION_SOFTMAX,
        [MB_MIXER_LINEAR] = MB_ATTENTION_LINEAR,
        [MB_MIXER_ADAPTIVE] = MB_ATTENTION_ADAPTIVE,
    };
    mb_attention *layer = mb_params_alloc(p, sizeof *layer);
    if (!layer)
        return (mb_mixer){0};
    mb_attention_options options = {
        .dim = dim, .heads = o->heads, .kind = kinds[o->kind], .causal = o->causal};
    *layer = mb_attention_new_at(where, p, "attention", options);
    return (mb_mixer){apply_attention, layer, 0};
}

static mb_mixer ttt_mixer(const char *where, mb_params *p, int64_t dim, const mb_mixer_options *o)
{
    mb_ttt_options options = o->ttt;
    options.dim = dim;
    options.heads = o->heads;
    mb_ttt *layer = mb_ttt_new_at(where, p, "ttt", options);
    return layer ? (mb_mixer){apply_ttt, layer, options.inner_steps + 1} : (mb_mixer){0};
}

mb_mixer mb_mixer_new_at(const char *where, mb_params *p, int64_t dim, const mb_mixer_options *options)
{
    if (!p)
        return (mb_mixer){0};
    switch (options->kind) {
    case MB_MIXER_SOFTMAX:
    case MB_MIXER_LINEAR:
    case MB_MIXER_ADAPTIVE:
        return attention_mixer(where, p, dim, options);
    case MB_MIXER_TTT:
        return ttt_mixer(where, p, dim, options);
    case MB_MIXER_CUSTOM:
        if (options->make)
            return options->make(options->user, p, dim);
    }
    mb_fail_at(where, mb_params_context(p), MB_INVALID,
               "mb_mixer: %d is no kind of mixer, or it has no function to make it", (int)options->kind);
    return (mb_mixer){0};
}

mb_tensor mb_mixer_apply_at(const char *where, mb_mixer mixer, mb_tensor x, mb_key key, mb_tensor *losses)
{
    if (losses && mixer.losses > 0)
        memset(losses, 0, (size_t)mixer.losses * sizeof *losses);
    if (!mixer.apply || !mb__usable(x))
        return mb__refused(where, x);
    const char *place = mb_place_begin(x.ctx, where);
    mb_tensor y = mixer.apply(mixer.layer, x, key, losses);
    mb_place_end(x.ctx, place);
    return y;
}

/* ----------------------------------------------------------------------------------------------- MLP -- */

mb_mlp mb_mlp_new_at(const char *where, mb_params *p, const char *name, int64_t dim, int64_t hidden)
{
    mb_mlp layer = {0};
    if (!p || mb_params_enter_at(where, p, name) != MB_OK)
        return layer;
    mb_linear_options options = {.bias = mb_init_normal(1e-6)};
    layer.up = mb_linear_new_with_at(where, p, "up", dim, hidden, options);
    layer.down = mb_linear_new_with_at(where, p, "down", hidden, dim, options);
    mb_params_leave_at(where, p);
    return layer;
}

mb_tensor mb_mlp_apply_at(const char *where, mb_mlp layer, mb_tensor x)
{
    mb_tensor hidden = mb_gelu_at(where, mb_linear_apply_at(where, layer.up, x));
    return mb_linear_apply_at(where, layer.down, hidden);
}

/* --------------------------------------------------------------------------------------------- block -- */

mb_block mb_block_new_at(const char *where, mb_params *p, const char *name, int64_t dim, int64_t hidden,
                         const mb_mixer_options *mixer)
{
    mb_block block = {0};
    if (!p || mb_params_enter_at(where, p, name) != MB_OK)
        return block;
    block.norm1 = mb_layer_norm_new_at(where, p, "norm1", dim);
    block.mixer = mb_mixer_new_at(where, p, dim, mixer);
    block.norm2 = mb_layer_norm_new_at(where, p, "norm2", dim);
    block.mlp = mb_mlp_new_at(where, p, "mlp", dim, hidden > 0 ? hidden : 4 * dim);
    mb_params_leave_at(where, p);
    return block;
}

mb_tensor mb_block_apply_at(const char *where, const mb_block *block, mb_tensor x, mb_key key,
                            mb_tensor *losses)
{
    if (!mb__usable(x))
        return mb__refused(where, x);
    const char *place = mb_place_begin(x.ctx, where);
    x = mb_add(x, mb_mixer_apply(block->mixer, mb_layer_norm_apply(block->norm1, x), key, losses));
    mb_tensor y = mb_add(x, mb_mlp_apply(block->mlp, mb_layer_norm_apply(block->norm2, x)));
    mb_place_end(x.ctx, place);
    return y;
}
