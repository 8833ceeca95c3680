/* SPDX-License-Identifier: MIT
 * tape.c - appending nodes. */
#include "tensor/internal.h"

mb_tensor mb__record(mb_context *ctx, int op, mb_dtype dtype, int rank, const int64_t *dim,
                     const mb_tensor *in, int nin, const int64_t *attrs, int nattr)
{
    if (!mb__countable(dim, rank)) {
        mb__error(ctx, MB_INVALID, "%s: the result has too many elements", mb__ops[op].name);
        return mb__poison(ctx);
    }
    uint32_t ids[64], *resolved = ids; /* resolving may append leaf nodes, so it comes first */
    if (nin > 64 && !(resolved = mb__alloc(ctx, (size_t)nin * sizeof *ids)))
        return mb__poison(ctx);
    bool ok = true;
    for (int i = 0; i < nin && ok; i++)
        ok = (resolved[i] = mb__resolve(ctx, in[i])) != 0;
    ok = ok &&
         mb__reserve(ctx, (void **)&ctx->nodes, &ctx->node_capacity, (uint64_t)ctx->node_count + 1,
                     sizeof *ctx->nodes) &&
         mb__reserve(ctx, (void **)&ctx->operands, &ctx->operand_capacity,
                     (uint64_t)ctx->operand_count + (uint64_t)nin, sizeof *ctx->operands) &&
         mb__reserve(ctx, (void **)&ctx->attrs, &ctx->attr_capacity,
                     (uint64_t)ctx->attr_count + (uint64_t)nattr, sizeof *ctx->attrs);
    uint32_t id = ctx->node_count;
    if (ok) {
        mb__node *n = &ctx->nodes[id];
        *n = (mb__node){.op = (uint16_t)op,
                        .dtype = (uint8_t)dtype,
                        .rank = (uint8_t)rank,
                        .nin = (uint16_t)nin,
                        .nattr = (uint16_t)nattr,
                        .in = ctx->operand_count,
                        .attr = ctx->attr_count,
                        .scope = ctx->scopes[ctx->scope_count - 1].serial,
                        .site = ctx->site,
                        .call = ctx->call};
        for (int i = 0; i < rank; i++)
            n->dim[i] = dim[i];
        for (int i = 0; i < nin; i++)
            ctx->operands[ctx->operand_count + (uint32_t)i] = resolved[i];
        for (int i = 0; i < nattr; i++)
            ctx->attrs[ctx->attr_count + (uint32_t)i] = attrs[i];
        ctx->operand_count += (uint32_t)nin;
        ctx->attr_count += (uint32_t)nattr;
        ctx->node_count++;
        ctx->recorded++;
    }
    if (resolved != ids)
        mb__free(ctx, resolved, (size_t)nin * sizeof *ids);
    return ok ? mb__handle(ctx, id) : mb__poison(ctx);
}

uint32_t mb__resolve(mb_context *ctx, mb_tensor t)
{
    mb__node *n = &ctx->nodes[t.id];
    if (n->op != MB_OP_VARIABLE)
        return t.id;
    mb__variable *v = &ctx->variables[n->bind.variable];
    if (v->pending)
        return v->pending;
    if (v->leaf && v->leaf < ctx->node_count && ctx->nodes[v->leaf].scope == v->leaf_scope &&
        !ctx->nodes[v->leaf].dead && ctx->nodes[v->leaf].value == v->value)
        return v->leaf;
    uint32_t index = n->bind.variable;
    if (!v->value) {
        mb__buffer *b = ctx->engine->buffer(ctx, (mb_dtype)n->dtype, mb__numel(n->dim, n->rank));
        if (!b)
            return 0;
        v->value = b;
        if (ctx->engine->upload(ctx, b, (mb_dtype)n->dtype, mb__numel(n->dim, n->rank), NULL) != MB_OK)
            return 0;
    }
    int64_t dim[MB_MAX_RANK];
    memcpy(dim, n->dim, sizeof dim);
    const char *site = n->site; /* messages name the line where the variable was created */
    mb_tensor leaf = mb__record(ctx, MB_OP_BUFFER, (mb_dtype)n->dtype, n->rank, dim, NULL, 0, NULL, 0);
    if (!leaf.id)
        return 0;
    ctx->nodes[leaf.id].site = site;
    v = &ctx->variables[index];
    ctx->nodes[leaf.id].value = v->value;
    v->value->refs++;
    v->leaf = leaf.id;
    v->leaf_scope = leaf.scope;
    return leaf.id;
}
