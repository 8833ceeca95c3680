/* SPDX-License-Identifier: MIT
 * scan.c - brackets around a loop's body; loop.c says how the loop then lies on the tape. */
#include "tensor/scan.h"
#include "tensor/internal.h"

#include <stdio.h>

mb_scan mb_scan_begin_with_at(const char *site, mb_context *ctx, int64_t steps, mb_scan_options options)
{
    MB_SITE(ctx, site);
    mb_scan s = {ctx, 0};
    if (!mb__enter_context("scan_begin", ctx))
        return s;
    if (steps < 0 || steps > INT32_MAX) {
        mb__error(ctx, MB_INVALID, "scan_begin: got %lld steps; wanted 0 to 2^31 - 1", (long long)steps);
        return s;
    }
    if (options.keep_every < MB_KEEP_LOG) {
        mb__error(ctx, MB_INVALID,
                  "scan_begin: keep_every is %lld; wanted a number of steps, MB_KEEP_SQRT or MB_KEEP_LOG",
                  (long long)options.keep_every);
        return s;
    }
    s.serial = mb__bracket_begin(
        ctx, (mb__bracket){
                 .kind = "scan", .steps = steps, .keep = options.keep_every, .backwards = options.backwards});
    return s;
}

mb_scan mb_scan_begin_at(const char *site, mb_context *ctx, int64_t steps)
{
    MB_SITE(ctx, site);
    return mb_scan_begin_with(ctx, steps, (mb_scan_options){0});
}

static mb__bracket *innermost(const char *name, mb_scan scan)
{
    return mb__bracket_innermost(name, "scan", scan.ctx, scan.serial);
}

/* Whether t is a living tensor of this context; false: error set. */
static bool belongs(const char *name, mb_context *ctx, mb_tensor t)
{
    mb_tensor poison;
    if (t.ctx == ctx)
        return mb__enter(name, (const mb_tensor *[]){&t}, 1, &poison) != NULL;
    mb__error(ctx, MB_INVALID, "%s: got %s", name, t.ctx ? "a tensor of another context" : "no tensor");
    return false;
}

mb_status mb_scan_carry_at(const char *site, mb_scan scan, mb_tensor *value)
{
    MB_DOOR(scan.ctx, site, MB_THREAD);
    mb_context *ctx = scan.ctx;
    mb__bracket *s = innermost("scan_carry", scan);
    if (!s || !value)
        return s ? mb__error(ctx, MB_INVALID, "scan_carry: no variable") : mb_error(ctx);
    for (uint32_t i = 0; i < s->carries.count; i++)
        if (s->carries.list[i].where == value)
            return mb__error(ctx, MB_INVALID, "scan_carry: this variable is a carry already");
    if (!belongs("scan_carry", ctx, *value))
        return mb_error(ctx);
    uint32_t from = mb__resolve(ctx, *value);
    if (!from)
        return ctx->status;
    mb__node n = *mb__at(ctx, from);
    mb_tensor at = mb__placeholder(ctx, (mb_dtype)n.dtype, n.rank, n.dim);
    if (!at.id || !mb__bound_add(ctx, &s->carries, (mb__bound){value, at.id, from}))
        return ctx->status;
    *value = at;
    return MB_OK;
}

mb_tensor mb_scan_slice_at(const char *site, mb_scan scan, mb_tensor xs)
{
    MB_SITE(scan.ctx, site);
    mb_context *ctx = scan.ctx;
    mb__bracket *s = innermost("scan_slice", scan);
    if (!s || !belongs("scan_slice", ctx, xs))
        return mb__poison(ctx);
    mb__node n = *mb__at(ctx, xs.id);
    if (n.rank < 1 || n.dim[0] != s->steps) {
        char text[256];
        mb__error(ctx, MB_INVALID,
                  "scan_slice: got %s; wanted a first axis of %lld, the steps of the scan begun at %s",
                  mb__tensor_text(text, sizeof text, xs), (long long)s->steps, s->site);
        return mb__poison(ctx);
    }
    uint32_t from = mb__resolve(ctx, xs);
    return from ? mb__bracket_slice(ctx, s, from) : mb__poison(ctx);
}

mb_tensor mb_scan_step_at(const char *site, mb_scan scan)
{
    MB_SITE(scan.ctx, site);
    mb_context *ctx = scan.ctx;
    mb__bracket *s = innermost("scan_step", scan);
    return s ? mb__bracket_step(ctx, s) : mb__poison(ctx);
}

mb_status mb_scan_stack_at(const char *site, mb_scan scan, mb_tensor y, mb_tensor *ys)
{
    MB_DOOR(scan.ctx, site, MB_THREAD);
    mb_context *ctx = scan.ctx;
    if (ys)
        *ys = mb__poison(ctx);
    mb__bracket *s = innermost("scan_stack", scan);
    if (!s || !ys)
        return s ? mb__error(ctx, MB_INVALID, "scan_stack: nowhere to put the stack") : mb_error(ctx);
    if (!belongs("scan_stack", ctx, y))
        return mb_error(ctx);
    uint32_t id = mb__resolve(ctx, y);
    return id && mb__bound_add(ctx, &s->stacks, (mb__bound){ys, 0, id}) ? MB_OK : ctx->status;
}

mb_status mb_scan_until_at(const char *site, mb_scan scan, mb_tensor condition)
{
    MB_DOOR(scan.ctx, site, MB_THREAD);
    mb_context *ctx = scan.ctx;
    mb_tensor poison;
    mb__bracket *s = innermost("scan_until", scan);
    if (!s)
        return mb_error(ctx);
    if (!mb__enter("scan_until", (const mb_tensor *[]){&condition}, 1, &poison) || condition.ctx != ctx)
        return mb_error(ctx) != MB_OK
                   ? mb_error(ctx)
                   : mb__error(ctx, MB_INVALID, "scan_until: got no condition of this context");
    const mb__node *n = mb__at(ctx, condition.id);
    char text[256];
    if (n->dtype != MB_BOOL || n->rank)
        return mb__error(ctx, MB_INVALID, "scan_until: got the condition %s; wanted [] bool",
                         mb__tensor_text(text, sizeof text, condition));
    if (!s->done)
        s->done = mb__placeholder(ctx, MB_BOOL, 0, NULL).id;
    if (s->condition)
        condition = mb_or(mb__handle(ctx, s->condition), condition);
    s->condition = mb__resolve(ctx, condition);
    return mb_error(ctx);
}

/* ---- the end ---- */

/* The carries' next values: what the caller's variables hold now. */
static bool next_values(mb_context *ctx, const mb__bracket *s, uint32_t *next)
{
    for (uint32_t i = 0; i < s->carries.count; i++) {
        const mb__bound *c = &s->carries.list[i];
        mb_tensor v = *c->where;
        char name[32];
        snprintf(name, sizeof name, "scan_end: carry %u", i + 1);
        if (!belongs(name, ctx, v))
            return false;
        if (!(next[i] = mb__resolve(ctx, v)))
            return false;
        const mb__node *a = mb__at(ctx, next[i]), *b = mb__at(ctx, c->at);
        if (a->dtype != b->dtype || a->rank != b->rank ||
            memcmp(a->dim, b->dim, (size_t)a->rank * sizeof *a->dim)) {
            char got[256], want[256];
            mb__error(ctx, MB_INVALID, "scan_end: carry %u begins as %s and ends a step as %s", i + 1,
                      mb__tensor_text(want, sizeof want, mb__handle(ctx, c->at)),
                      mb__tensor_text(got, sizeof got, mb__handle(ctx, next[i])));
            return false;
        }
    }
    return true;
}

/* Of no steps: carries as they were, stacks without entries. */
static bool end_empty(mb_context *ctx, const mb__bracket *s)
{
    for (uint32_t i = 0; i < s->carries.count && s->carries.list[i].where; i++)
        *s->carries.list[i].where = mb_alias(mb__handle(ctx, s->carries.list[i].from));
    for (uint32_t i = 0; i < s->stacks.count; i++) {
        mb__node n = *mb__at(ctx, s->stacks.list[i].from);
        mb_shape shape = {n.rank + 1, {0}};
        if (shape.rank > MB_MAX_RANK)
            continue;
        memcpy(shape.dim + 1, n.dim, (size_t)n.rank * sizeof *n.dim);
        *s->stacks.list[i].where = mb_full(ctx, (mb_dtype)n.dtype, shape, 0);
    }
    return mb_error(ctx) == MB_OK;
}

/* The last carry: whether an earlier step was the last. Then the others keep their values. */
static bool add_done(mb_context *ctx, mb__bracket *s, uint32_t *next)
{
    mb_tensor done = mb__handle(ctx, s->done);
    for (uint32_t i = 0; i < s->carries.count; i++) {
        mb_tensor at = mb__handle(ctx, s->carries.list[i].at);
        if (next[i] != at.id)
            next[i] = mb_where(done, at, mb__handle(ctx, next[i])).id;
    }
    next[s->carries.count] = mb_or(done, mb__handle(ctx, s->condition)).id;
    uint32_t from = mb_full(ctx, MB_BOOL, MB_SHAPE0, 0).id;
    return mb_error(ctx) == MB_OK && mb__bound_add(ctx, &s->carries, (mb__bound){NULL, s->done, from});
}

static bool end_scan(mb_context *ctx, mb__bracket *s)
{
    uint32_t own = s->carries.count, carries = own + (s->done != 0), stacks = s->stacks.count;
    size_t count = (size_t)carries + stacks + 1;
    MB_TEMPORARY(ctx);
    uint32_t *next = mb__temporary(ctx, count * sizeof *next);
    mb__bound *inverse = mb__temporary(ctx, ((size_t)own + 1) * sizeof *inverse);
    if (!next || !inverse)
        return false;
    uint32_t *stack = next + carries;
    bool ok = next_values(ctx, s, next) && (!s->inverses.count || mb__scan_inverses(ctx, s, next, inverse)) &&
              (!s->done || add_done(ctx, s, next));
    for (uint32_t i = 0; i < stacks; i++)
        stack[i] = s->stacks.list[i].from;
    const mb__loop_parts parts = {.steps = s->steps,
                                  .backwards = s->backwards,
                                  .first = s->first,
                                  .carries = (int)carries,
                                  .slices = (int)s->slices.count,
                                  .stacks = (int)stacks,
                                  .carry = s->carries.list,
                                  .slice = s->slices.list,
                                  .next = next,
                                  .stack = stack,
                                  .inverse = s->inverses.count ? inverse : NULL,
                                  .until = s->done ? (int)carries : 0};
    uint32_t scan = ok ? mb__scan_record(ctx, &parts) : 0;
    uint32_t *results = next; /* no longer needed: as many as carries and stacks */
    for (uint32_t i = 0; scan && i < carries + stacks; i++)
        results[i] = scan + 1 + i;
    if (scan && s->keep && s->keep != 1 && s->steps > 1 && !mb__scan_divide(ctx, scan, s->keep, results))
        scan = 0;
    for (uint32_t i = 0; scan && i < own; i++)
        *s->carries.list[i].where = mb__handle(ctx, results[i]);
    for (uint32_t i = 0; scan && i < stacks; i++)
        *s->stacks.list[i].where = mb__handle(ctx, results[carries + i]);
    return scan && (s->steps || end_empty(ctx, s));
}

mb_status mb_scan_end_at(const char *site, mb_scan scan)
{
    MB_DOOR(scan.ctx, site, MB_THREAD);
    mb_context *ctx = scan.ctx;
    mb__bracket *s = mb__bracket_ending("scan_end", "scan", ctx, scan.serial);
    if (!s)
        return mb_error(ctx);
    if (mb_error(ctx) != MB_OK || !end_scan(ctx, s)) {
        for (uint32_t i = 0; i < s->carries.count && s->carries.list[i].where; i++)
            *s->carries.list[i].where = mb__poison(ctx);
        for (uint32_t i = 0; i < s->stacks.count; i++)
            *s->stacks.list[i].where = mb__poison(ctx);
    }
    ctx->bracket_count--;
    mb__taps_lift(ctx, &s->stacks);
    return mb_error(ctx);
}
