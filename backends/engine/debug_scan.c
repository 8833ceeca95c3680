/* SPDX-License-Identifier: MIT
 *
 * debug_scan.c - MB_DEBUG inside of scans: their steps are written out on the tape, one at a time, and each
 * op is checked as everywhere. A scan's results are computed by its loop nevertheless.
 */
#include <stdio.h>

#include "backends/engine/state.h"
#include "tensor/copy.h"

/* Where the tape ends: what a step adds goes again. */
typedef struct tape_end {
    uint32_t nodes, operands, attrs, regions;
} tape_end;

static void cut(mb_context *ctx, const tape_end *end)
{
    while (ctx->node_count > end->nodes)
        mb__buffer_drop(ctx, ctx->nodes[--ctx->node_count].value);
    ctx->operand_count = end->operands;
    ctx->attr_count = end->attrs;
    ctx->region_count = end->regions;
}

typedef struct checking {
    mb_context *ctx;
    uint32_t scan;
    mb__scan_view of;
    mb__buffer **carries; /* their values at the step's beginning, held */
    uint32_t *in, *captures, *out, *befores;
    mb_status (*compute)(mb_context *ctx, mb__engine_state *st,
                         uint32_t targets); /* an op at a time, checked */
} checking;

static uint32_t operand_of(const checking *c, int i)
{
    return mb__in(c->ctx, mb__at(c->ctx, c->scan), i);
}

/* A carry, as a node that has its value. */
static uint32_t carry(const checking *c, int i)
{
    mb_context *ctx = c->ctx;
    mb__node n = *mb__at(ctx, operand_of(c, 1 + i));
    uint32_t id = mb__record(ctx, MB_OP_BUFFER, (mb_dtype)n.dtype, n.rank, n.dim, NULL, 0, NULL, 0).id;
    if (id) {
        mb__at(ctx, id)->value = c->carries[i];
        c->carries[i]->refs++;
    }
    return id;
}

/* Entry t of what is sliced. */
static uint32_t entry(const checking *c, int i, int64_t t)
{
    mb_tensor xs = mb__handle(c->ctx, operand_of(c, 1 + c->of.carries + i));
    mb_tensor part = mb_slice(xs, 0, t, 1, 1);
    return part.id ? mb_squeeze(part, 0).id : 0;
}

static void hold_carries(const checking *c, const uint32_t *ids)
{
    mb_context *ctx = c->ctx;
    for (int i = 0; i < c->of.carries; i++)
        mb__at(ctx, ids[i])->value->refs++; /* all of them first: they may have changed places */
    for (int i = 0; i < c->of.carries; i++) {
        mb__buffer_drop(ctx, c->carries[i]);
        c->carries[i] = mb__at(ctx, ids[i])->value;
    }
}

static mb_status compute_all(const checking *c, mb__engine_state *st, const uint32_t *ids, int count)
{
    mb_context *ctx = c->ctx;
    uint32_t targets = 0;
    if (!mb__reserve(ctx, (void **)&st->targets, &st->target_capacity, (uint64_t)count + 1,
                     sizeof *st->targets))
        return ctx->status;
    for (int i = 0; i < count; i++)
        if (!mb__at(ctx, ids[i])->value)
            st->targets[targets++] = ids[i];
    return targets ? c->compute(ctx, st, targets) : MB_OK;
}

/* Whether the inverse of the step leads back to the carries that it began with. */
static void check_inverse(const checking *c, mb__engine_state *st)
{
    mb_context *ctx = c->ctx;
    const mb__inside to = {
        .placeholders = c->in, .captures = c->captures, .afters = c->out, .befores = c->befores};
    if (!mb__copy_inside(ctx, c->scan, &to) || compute_all(c, st, c->befores, c->of.carries) != MB_OK)
        return;
    for (int i = 0; i < c->of.carries && ctx->status == MB_OK; i++) {
        int64_t at;
        double x[2];
        if (mb__first_difference(ctx, c->befores[i], c->in[i], &at, x) && at >= 0)
            mb__error_at(
                ctx, MB_INVALID, mb__at(ctx, mb__scan_before(ctx, &c->of, i))->site,
                "scan: the inverse of the step gives element %lld of carry %d as %.9g, which was %.9g "
                "before the step",
                (long long)at, i + 1, x[0], x[1]);
    }
}

static mb_status check_step(const checking *c, mb__engine_state *st, int64_t t)
{
    mb_context *ctx = c->ctx;
    int results = c->of.carries + c->of.stacks;
    ctx->site = mb__at(ctx, c->scan)->site;
    for (int i = 0; i < c->of.carries && ctx->status == MB_OK; i++)
        c->in[i] = carry(c, i);
    for (int i = 0; i < c->of.slices && ctx->status == MB_OK; i++)
        c->in[c->of.carries + i] = entry(c, i, t);
    const mb__inside to = {.placeholders = c->in, .captures = c->captures, .results = c->out};
    if (ctx->status == MB_OK && mb__copy_inside(ctx, c->scan, &to))
        compute_all(c, st, c->out, results);
    if (ctx->status == MB_OK && c->of.reversible)
        check_inverse(c, st);
    if (ctx->status == MB_OK)
        hold_carries(c, c->out);
    return ctx->status;
}

/* Adds to the message of an error where it happened. */
static void tell_step(const checking *c, int64_t t)
{
    mb_context *ctx = c->ctx;
    size_t n = strlen(ctx->message);
    const char *site = mb__at(ctx, c->scan)->site;
    if (ctx->status == MB_INVALID || ctx->status == MB_BACKEND)
        snprintf(ctx->message + n, sizeof ctx->message - n, "; in step %lld of %lld of the scan at %s",
                 (long long)t, (long long)c->of.steps, site ? site : "?");
}

/* Whether the steps that are left change nothing. */
static bool is_done(const checking *c, mb__engine_state *st)
{
    unsigned char done = 0;
    mb_context *ctx = c->ctx;
    return c->of.until &&
           mb__told(ctx, st->backend->download(st->backend_state, c->carries[c->of.until - 1]->memory,
                                               MB_BOOL, 1, &done)) == MB_OK &&
           done;
}

static void check_steps(checking *c, mb__engine_state *st)
{
    mb_context *ctx = c->ctx;
    const tape_end end = {ctx->node_count, ctx->operand_count, ctx->attr_count, ctx->region_count};
    for (int64_t s = 0; s < c->of.steps && ctx->status == MB_OK && !is_done(c, st); s++) {
        int64_t t = c->of.backwards ? c->of.steps - 1 - s : s;
        if (check_step(c, st, t) != MB_OK)
            tell_step(c, t);
        cut(ctx, &end);
    }
}

mb_status mb__check_scan(mb_context *ctx, mb__engine_state *st, uint32_t scan,
                         mb_status (*compute)(mb_context *, mb__engine_state *, uint32_t))
{
    checking c = {.ctx = ctx, .scan = scan, .compute = compute, .of = mb__scan_of(ctx, scan)};
    int nc = c.of.carries, ns = c.of.slices, base = 1 + nc + ns;
    size_t words = (size_t)(3 * nc + ns + c.of.captures + c.of.stacks) + 1;
    MB_TEMPORARY(ctx);
    c.carries = mb__temporary(ctx, ((size_t)nc + 1) * sizeof(*c.carries));
    c.in = c.carries ? mb__temporary(ctx, words * sizeof *c.in) : NULL;
    if (!c.in)
        return ctx->status;
    c.captures = c.in + nc + ns;
    c.out = c.captures + c.of.captures;
    c.befores = c.out + nc + c.of.stacks;
    for (int i = 0; i < c.of.captures; i++)
        c.captures[i] = operand_of(&c, base + i);
    for (int i = 0; i < nc; i++) {
        c.carries[i] = mb__at(ctx, operand_of(&c, 1 + i))->value;
        c.carries[i]->refs++;
    }
    const char *site = ctx->site, *call = ctx->call;
    check_steps(&c, st);
    ctx->site = site;
    ctx->call = call;
    for (int i = 0; i < nc; i++)
        mb__buffer_drop(ctx, c.carries[i]);
    return ctx->status;
}
