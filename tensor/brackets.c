/* SPDX-License-Identifier: MIT
 *
 * brackets.c - scans and vmaps between their beginning and their end. They nest, in one another and in
 * scopes: each ends before what it was begun in.
 */
#include "tensor/internal.h"

uint32_t mb__bracket_begin(mb_context *ctx, mb__bracket b)
{
    if (!mb__reserve(ctx, (void **)&ctx->brackets, &ctx->bracket_capacity, (uint64_t)ctx->bracket_count + 1,
                     sizeof *ctx->brackets))
        return 0;
    b.serial = ++ctx->next_bracket;
    b.scope = ctx->scopes[ctx->scope_count - 1].serial;
    b.first = ctx->node_count;
    b.site = ctx->site;
    mb__bracket *top = &ctx->brackets[ctx->bracket_count++]; /* whose lists are those of an earlier one */
    top->carries.count = top->slices.count = top->stacks.count = top->inverses.count = 0;
    b.carries = top->carries;
    b.slices = top->slices;
    b.stacks = top->stacks;
    b.inverses = top->inverses;
    *top = b;
    return b.serial;
}

static uint32_t position(const mb_context *ctx, const char *kind, uint32_t serial)
{
    uint32_t i = 0;
    while (i < ctx->bracket_count &&
           (ctx->brackets[i].serial != serial || strcmp(ctx->brackets[i].kind, kind)))
        i++;
    return i;
}

mb__bracket *mb__bracket_innermost(const char *name, const char *kind, mb_context *ctx, uint32_t serial)
{
    if (!mb__enter_context(name, ctx))
        return NULL;
    uint32_t i = position(ctx, kind, serial);
    const mb__bracket *top = ctx->bracket_count ? &ctx->brackets[ctx->bracket_count - 1] : NULL;
    if (i == ctx->bracket_count)
        mb__error(ctx, MB_INVALID, "%s: this %s is not open", name, kind);
    else if (&ctx->brackets[i] != top)
        mb__error(ctx, MB_INVALID, "%s: the %s begun at %s is still open inside this %s", name, top->kind,
                  top->site, kind);
    return mb_error(ctx) == MB_OK ? &ctx->brackets[i] : NULL;
}

mb__bracket *mb__bracket_ending(const char *name, const char *kind, mb_context *ctx, uint32_t serial)
{
    mb__bracket *b = mb__bracket_innermost(name, kind, ctx, serial);
    const mb__scope_mark *scope = b ? &ctx->scopes[ctx->scope_count - 1] : NULL;
    if (b && b->scope != scope->serial)
        mb__error(ctx, MB_INVALID, "%s: the scope begun at %s is still open inside the %s", name, scope->site,
                  kind);
    if (b)
        return b;
    uint32_t i = ctx ? position(ctx, kind, serial) : 0;
    if (!ctx || i == ctx->bracket_count)
        return NULL;
    ctx->bracket_count = i + 1;
    return &ctx->brackets[i];
}

bool mb__bound_add(mb_context *ctx, mb__bounds *to, mb__bound b)
{
    if (!mb__reserve(ctx, (void **)&to->list, &to->capacity, (uint64_t)to->count + 1, sizeof *to->list))
        return false;
    to->list[to->count++] = b;
    return true;
}

mb_tensor mb__bracket_slice(mb_context *ctx, mb__bracket *b, uint32_t from)
{
    mb__node n = *mb__at(ctx, from);
    mb_tensor at = mb__placeholder(ctx, (mb_dtype)n.dtype, n.rank - 1, n.dim + 1);
    return at.id && mb__bound_add(ctx, &b->slices, (mb__bound){NULL, at.id, from}) ? at : mb__poison(ctx);
}

mb_tensor mb__bracket_step(mb_context *ctx, mb__bracket *b)
{
    if (!b->step) {
        mb_tensor all = mb_iota(ctx, MB_INT32, b->steps);
        b->step = all.id ? mb__bracket_slice(ctx, b, all.id).id : 0;
    }
    return b->step ? mb__handle(ctx, b->step) : mb__poison(ctx);
}

void mb__brackets_free(mb_context *ctx)
{
    for (uint32_t i = 0; i < ctx->bracket_capacity; i++) {
        mb__bracket *b = &ctx->brackets[i];
        mb__bounds *const lists[] = {&b->carries, &b->slices, &b->stacks, &b->inverses};
        for (int k = 0; k < 4; k++)
            mb__free(ctx, lists[k]->list, lists[k]->capacity * sizeof *lists[k]->list);
    }
    mb__free(ctx, ctx->brackets, ctx->bracket_capacity * sizeof *ctx->brackets);
}
