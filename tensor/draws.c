/* SPDX-License-Identifier: MIT
 *
 * draws.c - uniform draws, of which all others are made (samplers.c): one leaf, or in scans and vmaps each
 * step's and example's part of what would be one. */
#include "tensor/internal.h"

/* Which of all the steps and examples of the open brackets this one is, counted from the outermost on, int32;
 * a null tensor where all share their draws. */
static mb_tensor draw_part(mb_context *ctx)
{
    mb_tensor part = MB_EMPTY(mb_tensor);
    int64_t parts = 1;
    for (uint32_t i = 0; i < ctx->bracket_count && mb_error(ctx) == MB_OK; i++) {
        mb__bracket *b = &ctx->brackets[i];
        if (b->same_draws)
            continue;
        parts *= b->steps;
        if (parts > INT32_MAX) {
            mb__error(ctx, MB_INVALID,
                      "uniform: a draw for each of %lld steps and examples, of %u scans and vmaps; wanted at "
                      "most 2^31 - 1",
                      (long long)parts, ctx->bracket_count);
            return mb__poison(ctx);
        }
        mb_tensor step = mb__bracket_step(ctx, b);
        part = part.id ? mb_add(mb_mul(part, mb__const(ctx, MB_INT32, (double)b->steps)), step) : step;
    }
    return part;
}

static mb_tensor under_key(mb_tensor t, mb_key key)
{
    if (t.id)
        t.ctx->nodes[t.id].bind.key = key.bits;
    return t;
}

mb_tensor mb__draw(mb_context *ctx, mb_key key, mb_dtype dtype, mb_tensor part, mb_tensor place,
                   int64_t count)
{
    mb_tensor in[2] = {part, place}, poison;
    int64_t dim[MB_MAX_RANK];
    int rank;
    if (!mb__enter("uniform", (const mb_tensor *[]){&part, &place}, 2, &poison))
        return poison;
    const mb__node *a = mb__at(ctx, part.id), *b = mb__at(ctx, place.id);
    if (!mb__broadcast_shapes(a->dim, a->rank, b->dim, b->rank, dim, &rank)) {
        mb__error(ctx, MB_INVALID, "uniform: a draw in too many vmaps; %d axes are the most", MB_MAX_RANK);
        return mb__poison(ctx);
    }
    return under_key(mb__record(ctx, MB_OP_DRAW, dtype, rank, dim, in, 2, &count, 1), key);
}

/* A draw of each step or example: its part of one for all of them, made where it is read. */
static mb_tensor draw_here(mb_context *ctx, mb_key key, mb_dtype dtype, mb_shape shape, mb_tensor part)
{
    int64_t count = mb__numel(shape.dim, shape.rank);
    if (count <= INT32_MAX)
        return mb__draw(ctx, key, dtype, part, mb_reshape(mb_iota(ctx, MB_INT32, count), shape), count);
    mb__error(ctx, MB_INVALID, "uniform: got %lld elements in a scan or vmap; wanted fewer than 2^31",
              (long long)count);
    return mb__poison(ctx);
}

mb_tensor mb_uniform_at(const char *site, mb_context *ctx, mb_key key, mb_dtype dtype, mb_shape shape)
{
    MB_SITE(ctx, site);
    if (!mb__enter_context("uniform", ctx) || !mb__check_shape(ctx, "uniform", dtype, shape))
        return mb__poison(ctx);
    if (!mb__is_number((int)dtype)) {
        mb__error(ctx, MB_INVALID, "uniform: got %s; wanted floats or int32", mb_dtype_name(dtype));
        return mb__poison(ctx);
    }
    if (mb__is_half((int)dtype))
        return mb_cast(mb_uniform(ctx, key, MB_FLOAT32, shape), dtype);
    mb_tensor part = draw_part(ctx);
    if (part.id)
        return draw_here(ctx, key, dtype, shape, part);
    if (mb_error(ctx) != MB_OK)
        return mb__poison(ctx);
    return under_key(mb__record(ctx, MB_OP_RANDOM, dtype, shape.rank, shape.dim, NULL, 0, NULL, 0), key);
}
