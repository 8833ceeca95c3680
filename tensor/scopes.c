/* SPDX-License-Identifier: MIT
 * scopes.c - scopes: cutting the tape back at their end, and values that outlive them. */
#include "tensor/internal.h"

mb_scope mb_scope_begin_at(const char *site, mb_context *ctx)
{
    MB_SITE(ctx, site);
    mb_scope s = {ctx, 0};
    if (!mb__enter_context("scope_begin", ctx))
        return s;
    if (!mb__reserve(ctx, (void **)&ctx->scopes, &ctx->scope_capacity, (uint64_t)ctx->scope_count + 1,
                     sizeof *ctx->scopes))
        return s;
    if (!mb__reserve(ctx, (void **)&ctx->nodes, &ctx->node_capacity,
                     (uint64_t)ctx->node_count + MB_SPARE_NODES, sizeof *ctx->nodes))
        return s;
    for (int i = 0; i < MB_SPARE_NODES; i++)
        ctx->nodes[ctx->node_count++] =
            (mb__node){.op = MB_OP_POISON, .dead = true, .in = ctx->operand_count, .attr = ctx->attr_count};
    s.serial = ctx->next_serial++;
    ctx->scopes[ctx->scope_count++] = (mb__scope_mark){
        s.serial, ctx->node_count, ctx->operand_count, ctx->attr_count, 0, ctx->change_count, ctx->site};
    return s;
}

static void keep_operands(mb_context *ctx, const mb__node *n, uint32_t from)
{
    for (int j = 0; j < n->nin; j++)
        if (mb__in(ctx, n, j) >= from)
            ctx->nodes[mb__in(ctx, n, j)].kept = true;
}

/* Derivatives find a scan's results, and a rule's, behind it: all of them stay, or none. Returns the last. */
static uint32_t keep_followers(mb_context *ctx, uint32_t id, uint32_t from)
{
    uint32_t last = id + (uint32_t)mb__followers(ctx, id);
    for (uint32_t i = id + 1; i <= last && i < ctx->node_count; i++) {
        ctx->nodes[i].kept = true;
        keep_operands(ctx, &ctx->nodes[i], from);
    }
    return last < ctx->node_count ? last : ctx->node_count - 1;
}

/* Marks what kept nodes were computed from; returns where the tape may end. */
static uint32_t keep_history(mb_context *ctx, uint32_t from)
{
    uint32_t top = from;
    for (uint32_t i = ctx->node_count; i-- > from;) {
        mb__node *n = &ctx->nodes[i];
        if (!n->kept)
            continue;
        keep_operands(ctx, n, from);
        uint32_t last = keep_followers(ctx, i, from);
        top = last >= top ? last + 1 : top;
    }
    return top;
}

/* Open scans and vmaps still want their placeholders, and what they slice and stack, though a scope that was
 * begun in them ends. */
static void keep_bounds(mb_context *ctx, const mb__bounds *b, bool placeholders, uint32_t from)
{
    for (uint32_t i = 0; i < b->count; i++) {
        if (placeholders)
            ctx->nodes[b->list[i].at].kept |= b->list[i].at >= from;
        ctx->nodes[b->list[i].from].kept |= b->list[i].from >= from;
    }
}

static void keep_for_open_brackets(mb_context *ctx, uint32_t from)
{
    for (uint32_t i = 0; i < ctx->bracket_count; i++) {
        keep_bounds(ctx, &ctx->brackets[i].carries, true, from);
        keep_bounds(ctx, &ctx->brackets[i].slices, true, from);
        keep_bounds(ctx, &ctx->brackets[i].stacks, false, from);
        ctx->nodes[ctx->brackets[i].done].kept |= ctx->brackets[i].done >= from;
        ctx->nodes[ctx->brackets[i].condition].kept |= ctx->brackets[i].condition >= from;
    }
}

void mb__abandon(mb_context *ctx, uint32_t first, const mb_tensor *ts, int n)
{
    for (int i = 0; i < n; i++)
        if (ts[i].ctx && ts[i].id >= first)
            ctx->nodes[ts[i].id].kept = true;
    keep_for_open_brackets(ctx, first);
    keep_history(ctx, first);
    for (uint32_t id = first; id < ctx->node_count; id++) {
        ctx->nodes[id].dead |= !ctx->nodes[id].kept;
        ctx->nodes[id].kept = false;
    }
}

/* Removes the nodes after the mark. Kept ones stay, with all nodes that they were computed from; dead nodes
 * between these keep their places on the tape, but not their values. */
static void cut(mb_context *ctx, const mb__scope_mark *mark)
{
    uint32_t outer = ctx->scopes[ctx->scope_count - 1].serial, top = keep_history(ctx, mark->nodes);
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
    /* A variable's leaf that was kept still holds the variable's value: it now belongs to the outer scope. */
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

/* Checkpoints that lost nodes are forgotten: what is left of them are ordinary nodes. */
static void cut_regions(mb_context *ctx)
{
    uint32_t before = ctx->region_count;
    while (ctx->region_count && ctx->regions[ctx->region_count - 1].last >= ctx->node_count)
        ctx->region_count--;
    for (uint32_t i = 0; before != ctx->region_count && i < ctx->region_count; i++)
        if (ctx->regions[i].around >= (int32_t)ctx->region_count)
            ctx->regions[i].around = -1;
}

/* Serials increase, so those of inner scopes are larger. */
void mb__watches_end(mb_context *ctx, uint32_t serial, bool fill)
{
    uint32_t left = 0;
    for (uint32_t i = 0; i < ctx->watch_count; i++) {
        const mb__watch *w = &ctx->watches[i];
        if (w->scope < serial)
            ctx->watches[left++] = *w;
        else if (fill)
            mb__no_number(w->dst, w->bytes, ctx->nodes[w->id].dtype);
    }
    ctx->watch_count = left;
}

mb_status mb_scope_end_at(const char *site, mb_scope scope)
{
    MB_DOOR(scope.ctx, site, MB_THREAD);
    mb_context *ctx = scope.ctx;
    if (!ctx || !scope.serial)
        return mb_error(ctx);
    uint32_t depth = ctx->scope_count;
    while (depth > 1 && ctx->scopes[depth - 1].serial != scope.serial)
        depth--;
    if (depth <= 1)
        return mb__error(ctx, MB_INVALID, "scope_end: this scope has ended already");
    if (depth != ctx->scope_count)
        mb__error(ctx, MB_INVALID, "scope_end: the scope begun at %s is still open inside this one",
                  ctx->scopes[ctx->scope_count - 1].site);
    if (ctx->change_count && ctx->status == MB_OK)
        ctx->engine->flush(ctx, NULL, 0);
    mb__watches_end(ctx, scope.serial, false);
    mb__taps_cut(ctx, scope.serial);
    while (ctx->scope_count >= depth) {
        mb__scope_mark mark = ctx->scopes[--ctx->scope_count];
        mb__changes_undo(ctx, mark.changes); /* after an error; else the flush left none */
        ctx->ended[mark.serial % MB_ENDED_SCOPES].serial = mark.serial;
        ctx->ended[mark.serial % MB_ENDED_SCOPES].site = ctx->site;
        uint32_t open = ctx->bracket_count;
        while (open && ctx->brackets[open - 1].scope >= mark.serial)
            open--;
        if (open < ctx->bracket_count)
            mb__error(ctx, MB_INVALID, "scope_end: the %s begun at %s is still open inside this scope",
                      ctx->brackets[open].kind, ctx->brackets[open].site);
        ctx->bracket_count = open;
        keep_for_open_brackets(ctx, mark.nodes);
        cut(ctx, &mark);
        cut_regions(ctx);
        if (ctx->copies) /* they are ids of removed nodes */
            memset(ctx->copies, 0, ctx->copy_capacity * sizeof *ctx->copies);
    }
    return ctx->status;
}

mb_tensor mb_keep_at(const char *site, mb_tensor t)
{
    MB_ENTER(site, "keep", &t);
    uint32_t id = mb__resolve(ctx, t);
    if (!id)
        return mb__poison(ctx);
    if (ctx->scope_count == 1 || ctx->nodes[id].scope != ctx->scopes[ctx->scope_count - 1].serial)
        return t; /* it outlives the innermost scope already */
    ctx->nodes[id].kept = true;
    return (mb_tensor){ctx, id, ctx->scopes[ctx->scope_count - 2].serial};
}

void mb_clear_error(mb_context *ctx)
{
    if (!ctx || !mb__right_thread(ctx, "mb_clear_error"))
        return;
    atomic_store(&ctx->foreign, NULL);
    mb__watches_end(ctx, 0, false); /* whoever asked for them has seen the error */
    ctx->status = MB_OK;
    ctx->message[0] = 0;
}
