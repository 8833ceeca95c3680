/* SPDX-License-Identifier: MIT
 * tape.c - appending nodes, scopes, variables. */
#include <stdio.h>

#include "tensor/tape.h"

mb_tensor mb__record(mb_context *ctx, const char *where, int op, mb_dtype dtype, int rank, const int64_t *dim,
                     const mb_tensor *in, int nin, const int64_t *attrs, int nattr)
{
    int64_t count = 1;
    bool empty = false;
    for (int i = 0; i < rank; i++)
        empty |= dim[i] == 0;
    for (int i = 0; i < rank && !empty; i++)
        if (__builtin_mul_overflow(count, dim[i], &count) || count > INT64_MAX / 16) {
            mb__error(ctx, MB_INVALID, where, "%s: the result has too many elements", mb__ops[op].name);
            return mb__poison(ctx);
        }
    uint32_t ids[64], *resolved = ids; /* resolving may append leaf nodes, so it comes first */
    if (nin > 64 && !(resolved = mb__alloc(ctx, (size_t)nin * sizeof *ids)))
        return mb__poison(ctx);
    bool ok = true;
    for (int i = 0; i < nin && ok; i++)
        ok = (resolved[i] = mb__resolve(ctx, in[i])) != 0;
    ok = ok &&
         mb__reserve(ctx, (void **)&ctx->nodes, &ctx->node_room, (uint64_t)ctx->node_count + 1,
                     sizeof *ctx->nodes) &&
         mb__reserve(ctx, (void **)&ctx->operands, &ctx->operand_room,
                     (uint64_t)ctx->operand_count + (uint64_t)nin, sizeof *ctx->operands) &&
         mb__reserve(ctx, (void **)&ctx->attrs, &ctx->attr_room, (uint64_t)ctx->attr_count + (uint64_t)nattr,
                     sizeof *ctx->attrs);
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
                        .where = ctx->place ? ctx->place : where,
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

/* ---- variables ---- */

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
    mb_tensor leaf =
        mb__record(ctx, n->where, MB_OP_BUFFER, (mb_dtype)n->dtype, n->rank, dim, NULL, 0, NULL, 0);
    if (!leaf.id)
        return 0;
    v = &ctx->variables[index];
    ctx->nodes[leaf.id].value = v->value;
    v->value->refs++;
    v->leaf = leaf.id;
    v->leaf_scope = leaf.scope;
    return leaf.id;
}

mb_tensor mb_variable_at(const char *where, mb_context *ctx, mb_dtype dtype, mb_shape shape)
{
    if (!mb__enter_context(where, "variable", ctx))
        return mb__poison(ctx);
    if (ctx->scope_count > 1) {
        mb__error(ctx, MB_INVALID, where,
                  "variable: made inside the scope begun at %s, which would end it; make it outside",
                  ctx->scopes[ctx->scope_count - 1].where);
        return mb__poison(ctx);
    }
    if (shape.rank < 0 || shape.rank > MB_MAX_RANK || (unsigned)dtype > MB_BOOL) {
        mb__error(ctx, MB_INVALID, where,
                  "variable: rank %d and dtype %d; wanted a rank of at most %d and a known dtype", shape.rank,
                  (int)dtype, MB_MAX_RANK);
        return mb__poison(ctx);
    }
    for (int i = 0; i < shape.rank; i++)
        if (shape.dim[i] < 0) {
            mb__error(ctx, MB_INVALID, where, "variable: size %lld of axis %d is negative",
                      (long long)shape.dim[i], i);
            return mb__poison(ctx);
        }
    if (!mb__reserve(ctx, (void **)&ctx->variables, &ctx->variable_room, (uint64_t)ctx->variable_count + 1,
                     sizeof *ctx->variables))
        return mb__poison(ctx);
    mb_tensor t = mb__record(ctx, where, MB_OP_VARIABLE, dtype, shape.rank, shape.dim, NULL, 0, NULL, 0);
    if (!t.id)
        return t;
    ctx->nodes[t.id].bind.variable = ctx->variable_count;
    ctx->variables[ctx->variable_count++] = (mb__variable){.id = t.id};
    return t;
}

mb_status mb_assign_at(const char *where, mb_tensor variable, mb_tensor value)
{
    mb_tensor poison;
    mb_context *ctx = mb__enter(where, "assign", (const mb_tensor *[]){&variable, &value}, 2, &poison);
    if (!ctx)
        return mb_error(poison.ctx);
    mb__node *n = mb__at(ctx, variable.id);
    if (n->op != MB_OP_VARIABLE)
        return mb__error(ctx, MB_INVALID, where,
                         "assign: the first operand is the result of %s, not a variable",
                         n->call ? n->call : mb__ops[n->op].name);
    mb__node *m = mb__at(ctx, value.id);
    if (n->dtype != m->dtype || n->rank != m->rank ||
        memcmp(n->dim, m->dim, (size_t)n->rank * sizeof *n->dim)) {
        char a[256], b[256];
        return mb__error(ctx, MB_INVALID, where,
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

/* ---- scopes ---- */

mb_scope mb_scope_begin_at(const char *where, mb_context *ctx)
{
    mb_scope s = {ctx, 0};
    if (!mb__enter_context(where, "scope_begin", ctx))
        return s;
    if (!mb__reserve(ctx, (void **)&ctx->scopes, &ctx->scope_room, (uint64_t)ctx->scope_count + 1,
                     sizeof *ctx->scopes))
        return s;
    if (!mb__reserve(ctx, (void **)&ctx->nodes, &ctx->node_room, (uint64_t)ctx->node_count + MB_SPARE_NODES,
                     sizeof *ctx->nodes))
        return s;
    for (int i = 0; i < MB_SPARE_NODES; i++)
        ctx->nodes[ctx->node_count++] =
            (mb__node){.op = MB_OP_POISON, .dead = true, .in = ctx->operand_count, .attr = ctx->attr_count};
    s.serial = ctx->next_serial++;
    ctx->scopes[ctx->scope_count++] =
        (mb__scope_mark){s.serial, ctx->node_count, ctx->operand_count, ctx->attr_count, 0, where};
    return s;
}

/* Forgets the nodes above the mark. Kept ones stay with all that they were computed from; they hold the
 * tape's length, and the dead between them keep their places but not their values. */
static void cut(mb_context *ctx, const mb__scope_mark *mark)
{
    uint32_t outer = ctx->scopes[ctx->scope_count - 1].serial, top = mark->nodes;
    for (uint32_t i = ctx->node_count; i-- > mark->nodes;) {
        mb__node *n = &ctx->nodes[i];
        if (!n->kept)
            continue;
        if (top == mark->nodes)
            top = i + 1;
        for (int j = 0; j < n->nin; j++)
            if (mb__in(ctx, n, j) >= mark->nodes)
                ctx->nodes[mb__in(ctx, n, j)].kept = true;
    }
    bool pinned = false;
    for (uint32_t i = mark->nodes; i < ctx->node_count; i++) {
        mb__node *n = &ctx->nodes[i];
        if (n->kept && i < top) {
            n->scope = n->scope == mark->serial ? outer : n->scope;
            n->kept = false;
            pinned = true;
            continue;
        }
        mb__buffer_drop(ctx, n->value);
        n->value = NULL;
        n->dead = true;
    }
    /* A variable's leaf that was kept is still the variable's current value: it moves out with its node. */
    for (uint32_t i = 0; pinned && i < ctx->variable_count; i++) {
        mb__variable *v = &ctx->variables[i];
        if (v->leaf >= mark->nodes && v->leaf < top && v->leaf_scope == mark->serial &&
            !ctx->nodes[v->leaf].dead)
            v->leaf_scope = outer;
    }
    if (top > mark->nodes) {
        mb__node *last = &ctx->nodes[top - 1];
        ctx->node_count = top;
        ctx->operand_count = last->in + last->nin;
        ctx->attr_count = last->attr + last->nattr;
    } else {
        ctx->node_count = mark->nodes - MB_SPARE_NODES + mark->spare_used;
        ctx->operand_count = mark->operands;
        ctx->attr_count = mark->attrs;
    }
}

mb_status mb_scope_end_at(const char *where, mb_scope scope)
{
    mb_context *ctx = scope.ctx;
    if (!ctx || !scope.serial)
        return mb_error(ctx);
    if (!pthread_equal(ctx->thread, pthread_self())) {
        mb__enter_context(where, "scope_end", ctx);
        return MB_THREAD;
    }
    uint32_t depth = ctx->scope_count;
    while (depth > 1 && ctx->scopes[depth - 1].serial != scope.serial)
        depth--;
    if (depth <= 1)
        return mb__error(ctx, MB_INVALID, where, "scope_end: this scope has ended already");
    if (depth != ctx->scope_count)
        mb__error(ctx, MB_INVALID, where, "scope_end: the scope begun at %s is still open inside this one",
                  ctx->scopes[ctx->scope_count - 1].where);
    if (ctx->pending_count && ctx->status == MB_OK)
        ctx->engine->flush(ctx, where, NULL, 0);
    while (ctx->scope_count >= depth) {
        mb__scope_mark mark = ctx->scopes[--ctx->scope_count];
        ctx->ended[mark.serial % MB_ENDED_SCOPES].serial = mark.serial;
        ctx->ended[mark.serial % MB_ENDED_SCOPES].where = where;
        cut(ctx, &mark);
    }
    /* What could not be stored because of an error is lost with its nodes: the variables keep their old
     * values. */
    for (uint32_t i = 0; i < ctx->pending_count; i++) {
        ctx->variables[ctx->pending[i]].pending = 0;
        ctx->variables[ctx->pending[i]].listed = false;
    }
    ctx->pending_count = 0;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < ctx->watch_count; i++)
        if (ctx->watches[i].id < ctx->node_count && !ctx->nodes[ctx->watches[i].id].dead)
            ctx->watches[kept++] = ctx->watches[i];
    ctx->watch_count = kept;
    return ctx->status;
}

mb_tensor mb_keep_at(const char *where, mb_tensor t)
{
    mb_tensor poison;
    mb_context *ctx = mb__enter(where, "keep", (const mb_tensor *[]){&t}, 1, &poison);
    if (!ctx)
        return poison;
    uint32_t id = mb__resolve(ctx, t);
    if (!id)
        return mb__poison(ctx);
    if (ctx->scope_count == 1 || ctx->nodes[id].scope != ctx->scopes[ctx->scope_count - 1].serial)
        return t; /* it outlives the innermost scope already */
    ctx->nodes[id].kept = true;
    return (mb_tensor){ctx, id, ctx->scopes[ctx->scope_count - 2].serial};
}

mb_tensor mb_detach_at(const char *where, mb_tensor t)
{
    if (mb_eval_at(where, &t, 1) != MB_OK)
        return mb__poison(t.ctx);
    mb_context *ctx = t.ctx;
    uint32_t id = mb__resolve(ctx, t);
    if (!id)
        return mb__poison(ctx);
    const mb__node *n = mb__at(ctx, id);
    int64_t dim[MB_MAX_RANK];
    memcpy(dim, n->dim, sizeof dim);
    mb__buffer *value = n->value;
    mb__scope_mark *scope = &ctx->scopes[ctx->scope_count - 1];
    mb_tensor leaf;
    if (ctx->scope_count > 1 && scope->spare_used < MB_SPARE_NODES) {
        uint32_t spare = scope->nodes - MB_SPARE_NODES + scope->spare_used++;
        mb__node *s = mb__at(ctx, spare);
        s->op = MB_OP_BUFFER;
        s->dtype = n->dtype;
        s->rank = n->rank;
        s->scope = ctx->scopes[ctx->scope_count - 2].serial;
        s->dead = false;
        s->where = ctx->place ? ctx->place : where;
        memcpy(s->dim, dim, sizeof dim);
        leaf = mb__handle(ctx, spare);
    } else {
        leaf = mb__record(ctx, where, MB_OP_BUFFER, (mb_dtype)n->dtype, n->rank, dim, NULL, 0, NULL, 0);
    }
    if (!leaf.id)
        return leaf;
    mb__at(ctx, leaf.id)->value = value;
    value->refs++;
    return mb_keep_at(where, leaf);
}
