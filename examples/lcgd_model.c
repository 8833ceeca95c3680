/* SPDX-License-Identifier: MIT
 *
 * lcgd_model.c - a pre-norm decoder, as GPT-2's: what happens in it is told by its layers. */
#include "lcgd.h"

decoder decoder_new(mb_params *p, const decoder_shape *shape)
{
    decoder d = {.layers = (int)shape->layers, .heads = shape->heads, .width = shape->width};
    mb_mixer_options attention = {.kind = MB_MIXER_SOFTMAX, .heads = shape->heads, .causal = true};
    d.embed = mb_embedding_new(p, "embed", shape->vocabulary, d.width);
    d.positions = mb_param_no_decay(p, "positions", MB_SHAPE(shape->context, d.width), mb_init_normal(0.02));
    for (int l = 0; l < d.layers; l++) {
        char name[32];
        snprintf(name, sizeof name, "blocks.%d", l);
        d.block[l] = mb_block_new(p, name, d.width, 0, &attention);
    }
    d.norm = mb_layer_norm_new(p, "norm", d.width);
    d.head =
        mb_linear_new_with(p, "head", d.width, shape->vocabulary, MB_LIT(mb_linear_options){.no_bias = true});
    return d;
}

mb_tensor readout(const decoder *d, mb_tensor x)
{
    return mb_linear_apply(d->head, mb_layer_norm_apply(d->norm, x));
}

mb_tensor decoder_apply(const decoder *d, mb_tensor tokens)
{
    mb_tensor x =
        mb_add(mb_embedding_apply(d->embed, tokens), mb_slice(d->positions, 0, 0, mb_dim(tokens, 1), 1));
    x = mb_tell(x, "tokens");
    for (int l = 0; l < d->layers; l++) {
        MB_PREFIX(x.ctx, "blocks", l);
        x = mb_block_apply(&d->block[l], x, MB_NO_KEY, NULL);
    }
    return readout(d, x);
}

mb_tensor next_token_loss(mb_tensor logits, mb_tensor tokens)
{
    int64_t n = mb_dim(tokens, 1);
    return mb_cross_entropy(mb_slice(logits, 1, 0, n - 1, 1), mb_slice(tokens, 1, 1, n - 1, 1));
}
