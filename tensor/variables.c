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
    if (shape.rank < 0 || shape.rank > MB_MAX_RANK || (unsigned)dtype > MB_BOOL) {
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
    if (!mb__reserve(ctx, (void **)&ctx->variables, &ctx->variable_room, (uint64_t)ctx->variable_count + 1,
                     sizeof *ctx->variables))
        return mb__poison(ctx);
    mb_tensor t = mb__record(ctx, MB_OP_VARIABLE, dtype, shape.rank, shape.dim, NULL, 0, NULL, 0);
    if (!t.id)
        return t;
    ctx->nodes[t.id].bind.variable = ctx->variable_count;
    ctx->variables[ctx->variable_count++] = (mb__variable){.id = t.id};
    return t;
}

mb_status mb_assign_at(const char *site, mb_tensor variable, mb_tensor value)
{
    MB_SITE(variable.ctx, site);
    mb_tensor poison;
    mb_context *ctx = mb__enter("assign", (const mb_tensor *[]){&variable, &value}, 2, &poison);
    if (!ctx)
        return mb_error(poison.ctx);
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
    if (!mb__reserve(ctx, (void **)&ctx->pending, &ctx->pending_room, (uint64_t)ctx->pending_count + 1,
                     sizeof *ctx->pending))
        return ctx->status;
    uint32_t id = mb__resolve(ctx, value);
    if (!id)
        return ctx->status;
    uint32_t index = mb__at(ctx, variable.id)->bind.variable;
    mb__variable *v = &ctx->variables[index];
    v->pending = id;
    if (!v->listed) {
        v->listed = true;
        ctx->pending[ctx->pending_count++] = index;
    }
    return MB_OK;
}
