/* SPDX-License-Identifier: MIT
 *
 * vit.c - the vision transformer of 2310.13807: pre-norm, no class token, mean over tokens.
 */
#include "layers/internal.h"
#include "tensor/internal.h"

#include <math.h>
#include <stdio.h>

struct mb_vit {
    mb_vit_options options;
    mb_linear embed, pre_logits, head;
    mb_tensor positions; /* [N,D], a parameter or fixed; null without positions */
    mb_block *blocks;    /* [depth] */
    mb_layer_norm norm;
};

/* ------------------------------------------------------------------------------------------- patches -- */

mb_tensor mb_patchify_at(const char *site, mb_tensor images, int64_t p)
{
    MB__APPLY(site, "patchify", {"images", images, MB__NEEDED});
    mb_shape s = mb_shape_of(images);
    mb_tensor y = {0};
    if ((s.rank != 3 && s.rank != 4) || p < 1 || p > MB_SIZE_MAX || s.dim[1] % p != 0 || s.dim[2] % p != 0) {
        mb_fail(images.ctx, MB_INVALID,
                "mb_patchify: patches of %lld do not fit %d axes, height %lld, width %lld", (long long)p,
                s.rank, (long long)s.dim[1], (long long)s.dim[2]);
    } else {
        int64_t B = s.dim[0], h = s.dim[1] / p, w = s.dim[2] / p, c = s.rank == 4 ? s.dim[3] : 1;
        y = mb_reshape(images, MB_SHAPE(B, h, p, w, p, c));
        y = mb_permute(y, MB_AXES(0, 1, 3, 2, 4, 5));
        y = mb_reshape(y, MB_SHAPE(B, h * w, p * p * c));
    }
    return y;
}

/* The element of mb_sincos2d for the token at (y, x), computed in double. */
static double sincos2d(int64_t y, int64_t x, int64_t column, int64_t quarter)
{
    int64_t part = column / quarter, i = column % quarter;
    double frequency = pow(10000, -(double)i / (double)(quarter - 1));
    double angle = (double)(part < 2 ? x : y) * frequency;
    return part % 2 == 0 ? sin(angle) : cos(angle);
}

mb_tensor mb_sincos2d_at(const char *site, mb_context *ctx, mb_dtype dtype, int64_t rows, int64_t columns,
                         int64_t dim)
{
    MB_DOOR(ctx, site, (mb_tensor){0});
    mb_tensor none = {0};
    if (!ctx)
        return none;
    const int64_t most = 1 << 20; /* so that the number of bytes does not overflow */
    if (rows < 1 || columns < 1 || dim < 8 || dim % 4 != 0 || rows > most || columns > most || dim > most ||
        !mb__is_floats(dtype)) {
        mb_fail(ctx, MB_INVALID,
                "mb_sincos2d: %lld rows, %lld columns, dim %lld of %s: wanted 1, 1, and a multiple of 4 from "
                "8 on, of floats",
                (long long)rows, (long long)columns, (long long)dim, mb_dtype_name(dtype));
        return none;
    }
    if (mb__is_half((int)dtype))
        return mb_cast(mb_sincos2d(ctx, MB_FLOAT32, rows, columns, dim), dtype);
    size_t count = (size_t)rows * (size_t)columns * (size_t)dim, bytes = count * mb_dtype_size(dtype);
    void *data = mb__alloc(ctx, bytes);
    if (!data)
        return none;
    for (size_t i = 0; i < count; i++) {
        int64_t token = (int64_t)i / dim;
        double value = sincos2d(token / columns, token % columns, (int64_t)i % dim, dim / 4);
        if (dtype == MB_FLOAT32)
            ((float *)data)[i] = (float)value;
        else
            ((double *)data)[i] = value;
    }
    mb_tensor t = mb_from(ctx, dtype, MB_SHAPE(rows * columns, dim), data);
    mb__free(ctx, data, bytes);
    return t;
}

/* -------------------------------------------------------------------------------------- construction -- */

static bool make_positions(mb_params *p, mb_vit *vit)
{
    const mb_vit_options *o = &vit->options;
    if (o->positions == MB_POSITIONS_LEARNED) {
        mb_init init = o->positions_init;
        if (init.kind == MB_INIT_DEFAULT)
            init = mb_init_normal(1 / sqrt((double)o->dim));
        vit->positions = mb_param_no_decay(p, "positions", MB_SHAPE(o->tokens, o->dim), init);
    } else if (o->positions == MB_POSITIONS_SINCOS2D) {
        int64_t rows = o->rows > 0 ? o->rows : (int64_t)(sqrt((double)o->tokens) + 0.5);
        if (o->tokens % rows != 0 || (o->rows == 0 && rows * rows != o->tokens)) {
            mb_fail(mb_params_context(p), MB_INVALID, "mb_vit: %lld tokens do not form a grid of %lld rows",
                    (long long)o->tokens, (long long)rows);
            return false;
        }
        /* Recorded outside of every scope, as parameters are, so it stays valid as long as the context. */
        vit->positions =
            mb_sincos2d(mb_params_context(p), mb_params_dtype(p), rows, o->tokens / rows, o->dim);
    }
    return true;
}

static bool make_all(mb_params *p, mb_vit *vit)
{
    const mb_vit_options *o = &vit->options;
    mb_linear_options embed = {.weight = mb_init_lecun(o->patch_values)};
    mb_linear_options head = {.weight = o->head_init.kind ? o->head_init : mb_init_zeros()};
    vit->embed = mb_linear_new_with(p, "embed", o->patch_values, o->dim, embed);
    if (!make_positions(p, vit))
        return false;
    for (int i = 0; i < (int)o->depth; i++) {
        char name[32];
        snprintf(name, sizeof name, "blocks.%d", i);
        vit->blocks[i] = mb_block_new(p, name, o->dim, o->hidden, &o->mixer);
        if (!vit->blocks[i].mixer.apply)
            return false;
    }
    vit->norm = mb_layer_norm_new(p, "norm", o->dim);
    if (o->pre_logits)
        vit->pre_logits = mb_linear_new_with(p, "pre_logits", o->dim, o->dim, (mb_linear_options){0});
    vit->head = mb_linear_new_with(p, "head", o->dim, o->classes, head);
    return true;
}

mb_vit *mb_vit_new_at(const char *site, mb_params *p, const char *name, mb_vit_options options)
{
    MB_SITE(mb_params_context(p), site);
    if (!p)
        return NULL;
    if (options.tokens < 1 || options.patch_values < 1 || options.dim < 1 || options.dim > MB_SIZE_MAX / 4 ||
        options.depth < 0 || options.depth > 1000000 || options.classes < 1) {
        mb_fail(mb_params_context(p), MB_INVALID,
                "mb_vit: tokens, patch_values, dim and classes must be 1 or more, depth 0 to 10^6, dim at "
                "most 2^29");
        return NULL;
    }
    mb_vit *vit = mb_params_alloc(p, sizeof *vit);
    mb_block *blocks = mb_params_alloc(p, (size_t)(options.depth + 1) * sizeof *blocks);
    if (!vit || !blocks || mb_params_enter(p, name) != MB_OK)
        return NULL;
    vit->options = options;
    vit->blocks = blocks;
    bool made = make_all(p, vit);
    mb_params_leave(p);
    return made && mb_error(mb_params_context(p)) == MB_OK ? vit : NULL;
}

int mb_vit_losses(const mb_vit *vit)
{
    return vit && vit->options.depth > 0 ? vit->blocks[0].mixer.losses : 0;
}

int mb_vit_depth(const mb_vit *vit)
{
    return vit ? (int)vit->options.depth : 0;
}

const mb_block *mb_vit_block(const mb_vit *vit, int i)
{
    return i >= 0 && i < mb_vit_depth(vit) ? &vit->blocks[i] : NULL;
}

/* ------------------------------------------------------------------------------------------- forward -- */

static bool check_tokens(const mb_vit *vit, mb_tensor patches, mb_tensor tokens)
{
    const mb_vit_options *o = &vit->options;
    if (!mb__check_tokens(patches, o->patch_values, "vit"))
        return false;
    int64_t B = mb_dim(patches, 0), N = mb_dim(patches, 1);
    char text[MB__SHAPE_TEXT];
    if (vit->positions.ctx && N != o->tokens) {
        mb_fail(patches.ctx, MB_INVALID, "vit: %lld tokens, made for %lld", (long long)N,
                (long long)o->tokens);
        return false;
    }
    mb_shape s = mb_shape_of(tokens);
    if (!tokens.ctx || !mb_valid(tokens) ||
        (mb_dtype_of(tokens) == MB_BOOL && s.rank == 2 && s.dim[0] == B && s.dim[1] == N))
        return true;
    mb_fail(patches.ctx, MB_INVALID, "vit: got tokens %s %s; wanted bool [%lld,%lld]",
            mb__shape(text, tokens), mb_dtype_name(mb_dtype_of(tokens)), (long long)B, (long long)N);
    return false;
}

/* z: [B,N,D] -> [B,D] */
static mb_tensor mean_over(mb_tensor z, mb_tensor tokens)
{
    if (!tokens.ctx || !mb_valid(z))
        return mb_mean(z, MB_AXES(1));
    mb_tensor sum = mb_sum(mb_where(mb_unsqueeze(tokens, 2), z, mb__literal(z, 0)), MB_AXES(1));
    mb_tensor count = mb_cast(mb_sum(tokens, MB_KEEP(1)), mb_dtype_of(z));
    return mb_div(sum, mb_maximum(count, mb__literal(z, 1)));
}

/* [B,1,1,N], and what else is hidden. */
static mb_tensor mask_of(mb_vit_masks m)
{
    if (!m.tokens.ctx)
        return m.seen;
    mb_tensor keys = mb_unsqueeze(mb_unsqueeze(m.tokens, 1), 1);
    return m.seen.ctx ? mb_and(m.seen, keys) : keys;
}

mb_tensor mb_vit_apply_with_at(const char *site, const mb_vit *vit, mb_tensor patches, mb_vit_masks masks,
                               mb_key key, mb_tensor *losses)
{
    mb_tensor none = {0};
    MB__APPLY(site, "vit", {"patches", patches, MB__NEEDED},
              {"vit.embed.weight", vit ? vit->embed.weight : none, MB__NEEDED},
              {"masks.seen", masks.seen, MB__OPTIONAL}, {"masks.tokens", masks.tokens, MB__OPTIONAL});
    const mb_vit_options *o = &vit->options;
    if (!check_tokens(vit, patches, masks.tokens))
        return (mb_tensor){0};
    mb_tensor mask = mask_of(masks), z = mb_linear_apply(vit->embed, patches); /* [B,N,D] */
    if (vit->positions.ctx)
        z = mb_add(z, mb__as(vit->positions, z));
    z = mb_tell(z, "tokens");
    for (int i = 0; i < (int)o->depth && mb_valid(z); i++) {
        mb_tensor *to = losses ? losses + (ptrdiff_t)i * mb_vit_losses(vit) : NULL;
        mb_checkpoint c = {0};
        mb_prefix block = mb_prefix_begin(z.ctx, "blocks", i);
        if (o->checkpoint)
            c = mb_checkpoint_begin(z.ctx);
        z = mb_block_apply_with(&vit->blocks[i], z, mask, mb_key_fold(key, (uint64_t)i), to);
        if (o->checkpoint)
            mb_checkpoint_end(c);
        mb_prefix_end(&block);
    }
    z = mb_tell(mean_over(mb_layer_norm_apply(vit->norm, z), masks.tokens), "mean"); /* [B,D] */
    if (o->pre_logits)
        z = mb_tanh(mb_linear_apply(vit->pre_logits, z));
    return mb_linear_apply(vit->head, z);
}

mb_tensor mb_vit_apply_at(const char *site, const mb_vit *vit, mb_tensor patches, mb_key key,
                          mb_tensor *losses)
{
    return mb_vit_apply_with_at(site, vit, patches, MB_EMPTY(mb_vit_masks), key, losses);
}
