/* SPDX-License-Identifier: MIT
 * range.c - the part of the tape that a sweep looks at: which of its nodes depend on an x. */
#include "autograd/range.h"
#include "autograd/checkpoint.h"
#include "autograd/custom_rules.h"

/* Extends the arrays to id `last`; new entries are 0. */
bool mb__range_extend(mb_context *ctx, mb__range *r, uint32_t last)
{
    uint32_t n = last - r->low + 1;
    if (n <= r->count)
        return true;
    if (!mb__reserve(ctx, (void **)&ctx->sweeps, &ctx->sweep_capacity, (uint64_t)ctx->sweep_depth + 1,
                     sizeof *ctx->sweeps))
        return false;
    mb__scratch *s = &ctx->sweeps[ctx->sweep_depth];
    if (!mb__reserve(ctx, (void **)&s->grad, &s->grad_capacity, n, sizeof *r->grad) ||
        !mb__reserve(ctx, (void **)&s->depends, &s->depends_capacity, n, 1) ||
        !mb__reserve(ctx, (void **)&s->needed, &s->needed_capacity, n, 1))
        return false;
    r->grad = s->grad;
    r->depends = s->depends;
    r->needed = s->needed;
    memset(r->grad + r->count, 0, (n - r->count) * sizeof *r->grad);
    memset(r->depends + r->count, 0, n - r->count);
    memset(r->needed + r->count, 0, n - r->count);
    r->count = n;
    return true;
}

/* From the oldest x to the newest y. */
void mb__range_ends(mb__range *r, const uint32_t *ys, int m, const uint32_t *xs, int n)
{
    r->low = UINT32_MAX;
    r->high = 0;
    for (int i = 0; i < n; i++)
        r->low = xs[i] < r->low ? xs[i] : r->low;
    for (int i = 0; i < m; i++)
        r->high = ys[i] > r->high ? ys[i] : r->high;
}

bool mb__range_open(mb_context *ctx, mb__range *r, uint32_t low, uint32_t high)
{
    r->low = low;
    r->high = high;
    r->count = 0;
    return mb__range_extend(ctx, r, high);
}

/* Whether derivatives go by an operand. A barrier's value is that of operand 0; operand 1 is only waited for;
 * operand 2, where there is one, is the node that computes the value anew. Of a substitute, derivatives go by
 * the last, too. */
bool mb__active(const mb_context *ctx, const mb__node *n, int i)
{
    if (n->op == MB_OP_CUSTOM)
        return i >= mb__custom_values(ctx, n);
    bool last = n->nin > 2 || mb__is_kind(n->op, MB_KIND_IDENTITY);
    return !mb__has_flag(n->op, MB_FLAG_ONE_OPERAND) || i == (last ? n->nin - 1 : 0);
}

/* Whether the node can have a derivative with respect to any operand. */
bool mb__passes(const mb__node *n)
{
    return mb__is_float(n->dtype) && !mb__has_flag(n->op, MB_FLAG_CONSTANT);
}

/* Marks the nodes of [from, to] that depend on a marked one. */
void mb__range_spread(mb_context *ctx, mb__range *r, uint32_t from, uint32_t to)
{
    for (uint32_t id = from; id <= to; id++) {
        const mb__node *n = mb__at(ctx, id);
        if (r->depends[id - r->low] || n->dead || n->home || !mb__passes(n))
            continue; /* what is inside of a scan is the scan's: see scan_rules.c */
        for (int i = 0; i < n->nin; i++) {
            uint32_t o = mb__in(ctx, n, i);
            if (o >= r->low && r->depends[o - r->low] && mb__active(ctx, n, i)) {
                r->depends[id - r->low] = 1;
                break;
            }
        }
    }
}

void mb__range_mark(mb_context *ctx, mb__range *r, const uint32_t *xs, int nx)
{
    for (int i = 0; i < nx; i++)
        if (xs[i] >= r->low && xs[i] <= r->high)
            r->depends[xs[i] - r->low] = 1;
    mb__range_spread(ctx, r, r->low, r->high);
}

mb__applied mb__applied_at(mb_context *ctx, uint32_t id)
{
    mb__applied s = {.ctx = ctx, .node = *mb__at(ctx, id), .out = mb__handle(ctx, id)};
    s.site = s.node.site;
    if (s.node.through && mb__is_stand_in(ctx, id + 1)) /* a stored value, which need not be recomputed */
        s.out = mb__handle(ctx, id + 1);
    for (int i = 0; i < s.node.nin && i < 3; i++)
        s.in[i] = mb__handle(ctx, mb__in(ctx, &s.node, i));
    return s;
}

mb_status mb__no_rule(const mb__applied *s, int i, const char *mode)
{
    return mb__error(s->ctx, MB_NO_RULE, "%s: no %s rule for operand %d", mb__ops[s->node.op].name, mode,
                     i + 1);
}

/* Checks float operands, resolves variables. */
mb_context *mb__enter_floats(const char *name, const mb_tensor *ts, int n, uint32_t *ids)
{
    mb_context *ctx = NULL;
    mb_tensor poison;
    for (int i = 0; i < n; i++) {
        ctx = mb__enter(name, (const mb_tensor *[]){&ts[0], &ts[i]}, 2, &poison);
        if (!ctx)
            return NULL;
        if (!mb__is_float(mb__at(ctx, ts[i].id)->dtype)) {
            char a[256];
            mb__error(ctx, MB_INVALID, "%s: got %s; wanted floats", name,
                      mb__tensor_text(a, sizeof a, ts[i]));
            return NULL;
        }
        if (ids && !(ids[i] = mb__resolve(ctx, ts[i])))
            return NULL;
    }
    return ctx;
}

bool mb__same_shape(const mb__node *a, const mb__node *b)
{
    return a->rank == b->rank && a->dtype == b->dtype &&
           !memcmp(a->dim, b->dim, (size_t)a->rank * sizeof *a->dim);
}

/* The node's shape; with lead >= 0, after an axis of that size. */
mb_shape mb__shape_with(const mb__node *n, int64_t lead)
{
    int extra = lead >= 0;
    mb_shape shape = {n->rank + extra, {lead}};
    memcpy(shape.dim + extra, n->dim, (size_t)n->rank * sizeof *n->dim);
    return shape;
}

mb_tensor mb__zeros_like(mb_context *ctx, uint32_t id, int64_t lead)
{
    const mb__node *n = mb__at(ctx, id);
    if (n->rank + (lead >= 0) <= MB_MAX_RANK)
        return mb_full(ctx, (mb_dtype)n->dtype, mb__shape_with(n, lead), 0);
    mb__error(ctx, MB_INVALID,
              "a tangent has %d axes; a batch of directions wants one more, and %d is the most", n->rank,
              MB_MAX_RANK);
    return mb__poison(ctx);
}

uint32_t mb__range_slot(const mb__range *r, uint32_t id)
{
    return id >= r->low && id - r->low < r->count ? r->grad[id - r->low] : 0;
}

bool mb__has_followers(int op)
{
    return op == MB_OP_SCAN || op == MB_OP_CUSTOM;
}
