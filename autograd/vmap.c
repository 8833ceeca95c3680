/* SPDX-License-Identifier: MIT
 * vmap.c - brackets around what is recorded for one example; batch.c records it again for all. */
#include "autograd/vmap.h"
#include "autograd/batch.h"

mb_vmap mb_vmap_begin_with_at(const char *site, mb_context *ctx, int64_t n, mb_vmap_options options)
{
    MB_SITE(ctx, site);
    mb_vmap v = {ctx, 0};
    if (!mb__enter_context("vmap_begin", ctx))
        return v;
    if (n < 0 || n > INT32_MAX) {
        mb__error(ctx, MB_INVALID, "vmap_begin: got %lld examples; wanted 0 to 2^31 - 1", (long long)n);
        return v;
    }
    v.serial =
        mb__bracket_begin(ctx, (mb__bracket){.kind = "vmap", .steps = n, .same_draws = options.same_draws});
    return v;
}

mb_vmap mb_vmap_begin_at(const char *site, mb_context *ctx, int64_t n)
{
    MB_SITE(ctx, site);
    return mb_vmap_begin_with(ctx, n, (mb_vmap_options){0});
}

/* The vmap, if it is the innermost bracket and t a tensor for it; NULL: error set. */
static mb__bracket *enter(const char *name, mb_vmap v, mb_tensor t)
{
    mb_context *ctx = v.ctx;
    mb_tensor poison;
    mb__bracket *b = mb__bracket_innermost(name, "vmap", ctx, v.serial);
    if (!b)
        return NULL;
    if (!t.ctx || t.ctx != ctx) {
        mb__error(ctx, MB_INVALID, "%s: %s", name,
                  t.ctx ? "the tensor belongs to another context" : "got no tensor");
        return NULL;
    }
    return mb__enter(name, (const mb_tensor *[]){&t}, 1, &poison) ? b : NULL;
}

mb_tensor mb_vmap_in_at(const char *site, mb_vmap v, mb_tensor xs, int axis)
{
    MB_SITE(v.ctx, site);
    mb_context *ctx = v.ctx;
    mb__bracket *b = enter("vmap_in", v, xs);
    if (!b || (axis = mb__axis("vmap_in", xs, axis)) < 0)
        return mb__poison(ctx);
    if (mb__at(ctx, xs.id)->dim[axis] != b->steps) {
        char text[256];
        mb__error(ctx, MB_INVALID,
                  "vmap_in: got %s; wanted %lld along axis %d, the examples of the vmap begun at %s",
                  mb__tensor_text(text, sizeof text, xs), (long long)b->steps, axis, b->site);
        return mb__poison(ctx);
    }
    uint32_t from = mb__resolve(ctx, xs);
    from = from ? mb__move_axis(mb__handle(ctx, from), axis, 0).id : 0;
    return from ? mb__bracket_slice(ctx, b, from) : mb__poison(ctx);
}

mb_status mb_vmap_out_at(const char *site, mb_vmap v, mb_tensor y, int axis, mb_tensor *ys)
{
    MB_DOOR(v.ctx, site, MB_THREAD);
    mb_context *ctx = v.ctx;
    if (ys)
        *ys = mb__poison(ctx);
    mb__bracket *b = enter("vmap_out", v, y);
    if (!b || !ys)
        return b ? mb__error(ctx, MB_INVALID, "vmap_out: nowhere to put the result") : mb_error(ctx);
    int rank = mb__at(ctx, y.id)->rank + 1, place = axis < 0 ? axis + rank : axis;
    char text[256];
    if (rank > MB_MAX_RANK)
        return mb__error(ctx, MB_INVALID,
                         "vmap_out: got %s of %d axes; the examples want one more, and %d is the most",
                         mb__tensor_text(text, sizeof text, y), rank - 1, MB_MAX_RANK);
    if (place < 0 || place >= rank)
        return mb__error(ctx, MB_INVALID,
                         "vmap_out: got axis %d for the examples of %s; wanted one in [%d, %d)", axis,
                         mb__tensor_text(text, sizeof text, y), -rank, rank);
    uint32_t id = mb__resolve(ctx, y);
    return id && mb__bound_add(ctx, &b->stacks, (mb__bound){ys, (uint32_t)place, id}) ? MB_OK : ctx->status;
}

static bool end_vmap(mb_context *ctx, mb__bracket *b)
{
    MB_TEMPORARY(ctx);
    mb__operand *outs = mb__temporary(ctx, b->stacks.count * sizeof *outs);
    bool ok = outs && mb__batch(ctx, b->first, b->steps, &b->slices, &b->stacks, outs);
    for (uint32_t i = 0; ok && i < b->stacks.count; i++) {
        mb_tensor t = mb__batched(outs[i], b->steps);
        ok = t.id && (t = mb__move_axis(t, 0, (int)b->stacks.list[i].at)).id;
        *b->stacks.list[i].where = t;
    }
    return ok;
}

mb_status mb_vmap_end_at(const char *site, mb_vmap v)
{
    MB_DOOR(v.ctx, site, MB_THREAD);
    mb_context *ctx = v.ctx;
    mb__bracket *b = mb__bracket_ending("vmap_end", "vmap", ctx, v.serial);
    if (!b)
        return mb_error(ctx);
    if (mb_error(ctx) != MB_OK || !end_vmap(ctx, b))
        for (uint32_t i = 0; i < b->stacks.count; i++)
            *b->stacks.list[i].where = mb__poison(ctx);
    ctx->bracket_count--;
    mb__taps_lift(ctx, &b->stacks);
    return mb_error(ctx);
}
