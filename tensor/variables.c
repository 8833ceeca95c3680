/* SPDX-License-Identifier: MIT
 * variables.c - storage that mb_assign changes. */
#include "tensor/internal.h"

mb_tensor mb_variable_at(const char *site, mb_context *ctx, mb_dtype dtype, mb_shape shape)
{
    MB_SITE(ctx, site);
    if (!mb__enter_context("variable", ctx))
        return mb__poison(ctx);
    if (ctx->scope_count > 1) {
        mb__error(ctx, MB_INVALID,
                  "variable: made inside the scope begun at %s, which would end it; make it outside",
                  ctx->scopes[ctx->scope_count - 1].site);
        return mb__poison(ctx);
    }
    if (shape.rank < 0 || shape.rank > MB_MAX_RANK || (unsigned)dtype >= MB_DTYPES) {
        mb__error(ctx, MB_INVALID,
                  "variable: rank %d and dtype %d; wanted a rank of at most %d and a known dtype", shape.rank,
                  (int)dtype, MB_MAX_RANK);
        return mb__poison(ctx);
    }
    for (int i = 0; i < shape.rank; i++)
        if (shape.dim[i] < 0) {
            mb__error(ctx, MB_INVALID, "variable: size %lld of axis %d is negative", (long long)shape.dim[i],
                      i);
            return mb__poison(ctx);
        }
    if (!mb__reserve(ctx, (void **)&ctx->variables, &ctx->variable_capacity,
                     (uint64_t)ctx->variable_count + 1, sizeof *ctx->variables))
        return mb__poison(ctx);
    mb_tensor t = mb__record(ctx, MB_OP_VARIABLE, dtype, shape.rank, shape.dim, NULL, 0, NULL, 0);
    if (!t.id)
        return t;
    ctx->nodes[t.id].bind.variable = ctx->variable_count;
    ctx->variables[ctx->variable_count++] = (mb__variable){.id = t.id};
    return t;
}

/* ---- changes ---- */

static bool add_change(mb_context *ctx, mb__change change)
{
    if (!mb__reserve(ctx, (void **)&ctx->changes, &ctx->change_capacity, (uint64_t)ctx->change_count + 1,
                     sizeof *ctx->changes))
        return false;
    ctx->changes[ctx->change_count++] = change;
    return true;
}

void mb__changes_undo(mb_context *ctx, uint32_t count)
{
    while (ctx->change_count > count) {
        const mb__change *c = &ctx->changes[--ctx->change_count];
        if (c->number)
            *c->number = c->number_before;
        else if (c->variable != MB_NO_VARIABLE)
            ctx->variables[c->variable].pending = c->before;
    }
}

void mb__changes_keep(mb_context *ctx)
{
    ctx->change_count = 0;
    for (uint32_t i = 0; i < ctx->scope_count; i++)
        ctx->scopes[i].changes = 0;
}

bool mb__number_set(mb_context *ctx, int64_t *number, int64_t value)
{
    if (!add_change(ctx, (mb__change){.number = number, .number_before = *number}))
        return false;
    *number = value;
    return true;
}

void mb__number_forget(mb_context *ctx, const int64_t *number)
{
    for (uint32_t i = 0; i < ctx->change_count; i++)
        if (ctx->changes[i].number == number) { /* the entry stays, since scopes store indices */
            ctx->changes[i].number = NULL;
            ctx->changes[i].variable = MB_NO_VARIABLE;
        }
}

mb_status mb_assign_at(const char *site, mb_tensor variable, mb_tensor value)
{
    MB_SITE(variable.ctx, site);
    mb_tensor poison;
    mb_context *ctx = mb__enter("assign", (const mb_tensor *[]){&variable, &value}, 2, &poison);
    if (!ctx)
        return mb_error(poison.ctx);
    const mb__bracket *open = ctx->bracket_count ? &ctx->brackets[ctx->bracket_count - 1] : NULL;
    if (open)
        return mb__error(
            ctx, MB_INVALID,
            "assign: inside of the %s begun at %s; bring the value out, and assign after its end", open->kind,
            open->site);
    mb__node *n = mb__at(ctx, variable.id);
    if (n->op != MB_OP_VARIABLE) {
        char text[128];
        return mb__error(ctx, MB_INVALID, "assign: the first operand is the result of %s, not a variable",
                         mb__node_text(text, sizeof text, n));
    }
    mb__node *m = mb__at(ctx, value.id);
    if (n->dtype != m->dtype || n->rank != m->rank ||
        memcmp(n->dim, m->dim, (size_t)n->rank * sizeof *n->dim)) {
        char a[256], b[256];
        return mb__error(ctx, MB_INVALID,
                         "assign: got a value %s for the variable %s; wanted the same shape and dtype",
                         mb__tensor_text(b, sizeof b, value), mb__tensor_text(a, sizeof a, variable));
    }
    uint32_t id = mb__resolve(ctx, value);
    if (!id)
        return ctx->status;
    uint32_t index = mb__at(ctx, variable.id)->bind.variable;
    mb__variable *v = &ctx->variables[index];
    if (!add_change(ctx, (mb__change){.variable = index, .before = v->pending}))
        return ctx->status;
    v->pending = id;
    return MB_OK;
}
