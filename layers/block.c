/* SPDX-License-Identifier: MIT
 *
 * block.c - mixers behind one function, the MLP, and the pre-norm transformer block.
 */
#include "layers/internal.h"

#include <string.h>

/* -------------------------------------------------------------------------------------------- mixers -- */

static mb_tensor apply_attention(const void *layer, mb_tensor x, mb_key key, mb_tensor *losses)
{
    (void)key, (void)losses;
    MB_PREFIX(x.ctx, "attention", MB_NO_INDEX);
    return mb_attention_apply(*(const mb_attention *)layer, x);
}

static mb_tensor apply_attention_masked(const void *layer, mb_tensor x, mb_tensor mask, mb_key key,
                                        mb_tensor *losses)
{
    (void)key, (void)losses;
    MB_PREFIX(x.ctx, "attention", MB_NO_INDEX);
    return mb_attention_apply_with(*(const mb_attention *)layer, x, mask);
}

static mb_tensor apply_ttt(const void *layer, mb_tensor x, mb_key key, mb_tensor *losses)
{
    MB_PREFIX(x.ctx, "ttt", MB_NO_INDEX);
    return mb_tell(mb_ttt_apply(layer, x, key, losses), "output");
}

static mb_mixer attention_mixer(mb_params *p, int64_t dim, const mb_mixer_options *o)
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
    *layer = mb_attention_new(p, "attention", options);
    if (mb_error(mb_params_context(p)) != MB_OK)
        return (mb_mixer){0};
    return (mb_mixer){.apply = apply_attention, .layer = layer, .apply_masked = apply_attention_masked};
}

static mb_mixer ttt_mixer(mb_params *p, int64_t dim, const mb_mixer_options *o)
{
    mb_ttt_options options = o->ttt;
    options.dim = dim;
    options.heads = o->heads;
    mb_ttt *layer = mb_ttt_new(p, "ttt", options);
    return layer ? (mb_mixer){.apply = apply_ttt, .layer = layer, .losses = options.inner_steps + 1}
                 : (mb_mixer){0};
}

mb_mixer mb_mixer_new_at(const char *site, mb_params *p, int64_t dim, const mb_mixer_options *options)
{
    MB_SITE(mb_params_context(p), site);
    if (!p)
        return (mb_mixer){0};
    if (!options) {
        mb_fail(mb_params_context(p), MB_INVALID, "mb_mixer: no options");
        return (mb_mixer){0};
    }
    switch (options->kind) {
    case MB_MIXER_SOFTMAX:
    case MB_MIXER_LINEAR:
    case MB_MIXER_ADAPTIVE:
        return attention_mixer(p, dim, options);
    case MB_MIXER_TTT:
        return ttt_mixer(p, dim, options);
    case MB_MIXER_CUSTOM:
        if (options->make)
            return options->make(options->user, p, dim);
    }
    mb_fail(mb_params_context(p), MB_INVALID,
            "mb_mixer: %d is not a kind of mixer, or it has no function to make it", (int)options->kind);
    return (mb_mixer){0};
}

mb_tensor mb_mixer_apply_with_at(const char *site, mb_mixer mixer, mb_tensor x, mb_tensor mask, mb_key key,
                                 mb_tensor *losses)
{
    if (losses && mixer.losses > 0)
        memset(losses, 0, (size_t)mixer.losses * sizeof *losses);
    MB__APPLY(site, "mixer", {"x", x, MB__NEEDED}, {"mask", mask, MB__OPTIONAL});
    if (!mixer.apply) {
        mb_fail(x.ctx, MB_INVALID, "mixer: it has no function to apply");
        return mb__failed(x.ctx);
    }
    if (!mask.ctx)
        return mixer.apply(mixer.layer, x, key, losses);
    if (mixer.apply_masked)
        return mixer.apply_masked(mixer.layer, x, mask, key, losses);
    mb_fail(x.ctx, MB_INVALID, "mb_mixer: got a mask for a mixer that takes none");
    return (mb_tensor){0};
}

mb_tensor mb_mixer_apply_at(const char *site, mb_mixer mixer, mb_tensor x, mb_key key, mb_tensor *losses)
{
    return mb_mixer_apply_with_at(site, mixer, x, (mb_tensor){0}, key, losses);
}

/* ----------------------------------------------------------------------------------------------- MLP -- */

mb_mlp mb_mlp_new_at(const char *site, mb_params *p, const char *name, int64_t dim, int64_t hidden)
{
    MB_SITE(mb_params_context(p), site);
    mb_mlp layer = {0};
    if (p && (dim < 1 || dim > MB_SIZE_MAX || hidden < 1 || hidden > MB_SIZE_MAX)) {
        mb_fail(mb_params_context(p), MB_INVALID, "mb_mlp: dim %lld, hidden %lld: wanted 1 to 2^31",
                (long long)dim, (long long)hidden);
        return layer;
    }
    if (!p || mb_params_enter(p, name) != MB_OK)
        return layer;
    mb_linear_options options = {.bias = mb_init_normal(1e-6)};
    layer.up = mb_linear_new_with(p, "up", dim, hidden, options);
    layer.down = mb_linear_new_with(p, "down", hidden, dim, options);
    mb_params_leave(p);
    return layer;
}

mb_tensor mb_mlp_apply_at(const char *site, mb_mlp layer, mb_tensor x)
{
    MB__APPLY(site, "mlp", {"x", x, MB__NEEDED}, {"layer.up.weight", layer.up.weight, MB__NEEDED},
              {"layer.down.weight", layer.down.weight, MB__NEEDED});
    mb_tensor hidden = mb_tell(mb_gelu(mb_linear_apply(layer.up, x)), "hidden");
    return mb_tell(mb_linear_apply(layer.down, hidden), "output");
}

/* --------------------------------------------------------------------------------------------- block -- */

mb_block mb_block_new_at(const char *site, mb_params *p, const char *name, int64_t dim, int64_t hidden,
                         const mb_mixer_options *mixer)
{
    MB_SITE(mb_params_context(p), site);
    mb_block block = {0};
    if (p && (dim < 1 || dim > MB_SIZE_MAX / 4)) {
        mb_fail(mb_params_context(p), MB_INVALID, "mb_block: dim %lld: wanted 1 to 2^29", (long long)dim);
        return block;
    }
    if (!p || mb_params_enter(p, name) != MB_OK)
        return block;
    block.norm1 = mb_layer_norm_new(p, "norm1", dim);
    block.mixer = mb_mixer_new(p, dim, mixer);
    block.norm2 = mb_layer_norm_new(p, "norm2", dim);
    block.mlp = mb_mlp_new(p, "mlp", dim, hidden > 0 ? hidden : 4 * dim);
    mb_params_leave(p);
    return block;
}

mb_tensor mb_block_apply_with_at(const char *site, const mb_block *block, mb_tensor x, mb_tensor mask,
                                 mb_key key, mb_tensor *losses)
{
    const mb_block none = {0}, *b = block ? block : &none;
    MB__APPLY(site, "block", {"x", x, MB__NEEDED}, {"block.norm1.scale", b->norm1.scale, MB__NEEDED},
              {"block.norm2.scale", b->norm2.scale, MB__NEEDED}, {"mask", mask, MB__OPTIONAL});
    mb_tensor mixed = mb_mixer_apply_with(b->mixer, mb_layer_norm_apply(b->norm1, x), mask, key, losses);
    x = mb_tell(mb_add(x, mixed), "middle");
    mb_tensor normed = mb_layer_norm_apply(b->norm2, x);
    mb_prefix mlp = mb_prefix_begin(x.ctx, "mlp", MB_NO_INDEX);
    mb_tensor y = mb_mlp_apply(b->mlp, normed);
    mb_prefix_end(&mlp);
    return mb_tell(mb_add(x, y), "output");
}

mb_tensor mb_block_apply_at(const char *site, const mb_block *block, mb_tensor x, mb_key key,
                            mb_tensor *losses)
{
    return mb_block_apply_with_at(site, block, x, (mb_tensor){0}, key, losses);
}
