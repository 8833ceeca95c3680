/* SPDX-License-Identifier: MIT
 *
 * reverse.c - the reverse sweep: from the newest y to the oldest x, each node gives its operands their
 * cotangents. A checkpoint that it comes to is recorded again, and swept in its copies.
 */
#include "autograd/checkpoint.h"
#include "autograd/custom_rules.h"
#include "autograd/range.h"
#include "autograd/scan_rules.h"
#include "tensor/copy.h"

/* Adds what node id's cotangent gives operand i. */
static mb_status add_cotangent(mb_context *ctx, mb__range *r, const mb__applied *s, int i, mb_tensor v)
{
    uint32_t o = mb__in(ctx, &s->node, i);
    const mb__rule *rule = mb__rule_of(s->node.op);
    v = rule->reverse ? rule->reverse(s, i, v) : mb__poison(ctx);
    if (!v.id)
        return ctx->status != MB_OK ? ctx->status : mb__no_rule(s, i, "reverse");
    const mb__node *x = mb__at(ctx, o);
    if (mb__is_elementwise(s->node.op) && !mb__same_shape(mb__at(ctx, v.id), x)) {
        int64_t dim[MB_MAX_RANK];
        memcpy(dim, x->dim, sizeof dim);
        v = mb__sum_to(v, x->rank, dim);
    }
    if (v.id && !mb__same_shape(mb__at(ctx, v.id), mb__at(ctx, o)))
        return mb__error(ctx, MB_INVALID,
                         "%s: the rule for operand %d gives another shape than the operand's",
                         mb__ops[s->node.op].name, i + 1);
    uint32_t *slot = &r->grad[o - r->low];
    if (*slot)
        v = mb_add(mb__handle(ctx, *slot), v);
    *slot = v.id;
    return ctx->status;
}

/* From the cotangents of a scan's or a rule's results to those of its operands. */
static mb_status reverse_with_results(mb_context *ctx, mb__range *r, uint32_t id)
{
    int operands = mb__at(ctx, id)->nin, results = mb__followers(ctx, id), any = 0;
    MB_TEMPORARY(ctx);
    uint32_t *g = mb__temporary(ctx, (size_t)(2 * operands + results) * sizeof *g);
    if (!g)
        return ctx->status;
    uint32_t *o = g + results, *wanted = o + operands;
    for (int i = 0; i < results; i++)
        any |= (g[i] = mb__range_slot(r, id + 1 + (uint32_t)i)) != 0;
    const mb__node *n = mb__at(ctx, id);
    bool scan = n->op == MB_OP_SCAN;
    for (int i = 0; i < operands; i++) {
        uint32_t k = mb__in(ctx, n, i);
        o[i] = wanted[i] = mb__active(ctx, n, i) && i >= scan && k >= r->low && r->depends[k - r->low];
    }
    int values = scan ? 0 : mb__custom_values(ctx, n);
    ctx->sweep_depth++; /* a sweep within this one has scratch memory of its own */
    mb_status status = !any   ? MB_OK
                       : scan ? mb__scan_reverse(ctx, id, r->sweeps, g, o)
                              : mb__custom_reverse(ctx, id, r->sweeps, g, o + values);
    ctx->sweep_depth--;
    for (int i = 0; i < operands && any && status == MB_OK; i++)
        if (wanted[i] && o[i]) {
            uint32_t *slot = &r->grad[mb__in(ctx, mb__at(ctx, id), i) - r->low];
            *slot = *slot ? mb_add(mb__handle(ctx, *slot), mb__handle(ctx, o[i])).id : o[i];
            status = ctx->status;
        }
    return status;
}

static mb_status reverse_node(mb_context *ctx, mb__range *r, uint32_t id)
{
    int op = mb__at(ctx, id)->op;
    if (op == MB_OP_RESULT || op == MB_OP_RULED)
        return MB_OK; /* it waits for the scan, or the rule */
    if (mb__has_followers(op) && r->depends[id - r->low]) {
        ctx->site = mb__at(ctx, id)->site;
        ctx->call = mb__at(ctx, id)->call;
        return reverse_with_results(ctx, r, id);
    }
    uint32_t g = r->grad[id - r->low];
    if (!g || !r->depends[id - r->low] || !mb__passes(mb__at(ctx, id)))
        return MB_OK;
    mb__applied s = mb__applied_at(ctx, id);
    ctx->site = s.site;
    ctx->call = s.node.call;
    for (int i = 0; i < s.node.nin; i++) {
        uint32_t o = mb__in(ctx, &s.node, i);
        if (o >= r->low && r->depends[o - r->low] && mb__active(ctx, &s.node, i) &&
            add_cotangent(ctx, r, &s, i, mb__handle(ctx, g)) != MB_OK)
            return ctx->status;
    }
    return MB_OK;
}

/* A part of the tape being swept, from `id` down to `first`. The copies of a checkpoint are one; when it is
 * done, everything recorded since `first` becomes a checkpoint, and the sweep continues in the part below. */
typedef struct part {
    uint32_t id, first;
    bool copies, products;
} part;

typedef struct sweep {
    mb_context *ctx;
    mb__range *r;
    const uint32_t *xs; /* ids */
    int n;
    part *parts; /* the innermost last; in the context's scratch */
    uint32_t part_count;
} sweep;

static bool push_part(sweep *w, part p)
{
    mb_context *ctx = w->ctx;
    mb__scratch *s = &ctx->sweeps[ctx->sweep_depth];
    if (!mb__reserve(ctx, &s->parts, &s->part_capacity, (w->part_count + 1) * sizeof p, 1))
        return false;
    w->parts = s->parts;
    w->parts[w->part_count++] = p;
    return true;
}

/* Whether a gradient with respect to a tensor inside the region is wanted. A leaf, such as a parameter that
 * was first read there, is not of the inside: copies read it, too. */
static bool holds_an_x(const sweep *w, const mb__region *region)
{
    for (int i = 0; i < w->n; i++)
        if (w->xs[i] >= region->first && w->xs[i] <= region->last &&
            !mb__is_kind(mb__at(w->ctx, w->xs[i])->op, MB_KIND_LEAF))
            return true;
    return false;
}

/* The checkpoint to be copied, if the sweep enters one at node id; -1: none. */
static int32_t region_at(const sweep *w, uint32_t id, uint32_t from)
{
    const mb_context *ctx = w->ctx;
    int32_t found = mb__region_around(ctx, id, from);
    while (found >= 0 && holds_an_x(w, &ctx->regions[found]))
        found = mb__region_around(ctx, id, ctx->regions[found].first + 1);
    return found;
}

/* Marks the nodes in [first, last] that the rules of those with cotangents need. Returns the newest
 * cotangent, or 0 if there is none. */
static uint32_t mark_needed(mb_context *ctx, mb__range *r, uint32_t first, uint32_t last)
{
    uint32_t newest = 0;
    for (uint32_t id = last;; id--) {
        uint32_t k = id - r->low;
        if (r->grad[k] && r->depends[k]) {
            r->needed[k] = 1;
            newest = r->grad[k] > newest ? r->grad[k] : newest;
        }
        const mb__node *n = mb__at(ctx, id);
        for (int i = 0; r->needed[k] && i < n->nin; i++)
            if (mb__in(ctx, n, i) >= first)
                r->needed[mb__in(ctx, n, i) - r->low] = 1;
        if (id == first)
            return newest;
    }
}

/* Records the copies of a checkpoint and makes them the part to be swept next, with the cotangents of their
 * originals. */
static mb_status enter_region(sweep *w, int32_t index, uint32_t last)
{
    mb_context *ctx = w->ctx;
    mb__range *r = w->r;
    mb__region region = ctx->regions[index];
    uint32_t start, newest = mark_needed(ctx, r, region.first, last);
    if (!newest)
        return MB_OK;
    if (mb__region_copy(ctx, index, last, r->needed, r->low, newest, &start) != MB_OK ||
        ctx->node_count == start || !mb__range_extend(ctx, r, ctx->node_count - 1))
        return ctx->status;
    uint32_t end = ctx->node_count - 1;
    for (uint32_t id = region.first; id <= last; id++) {
        uint32_t c = ctx->copies[id];
        /* A leaf is not copied: what stands for it is its reader, whose cotangent is added to the leaf's own.
         */
        if (c < start || !r->needed[id - r->low] || mb__is_kind(mb__at(ctx, id)->op, MB_KIND_LEAF))
            continue;
        r->grad[c - r->low] = r->grad[id - r->low];
    }
    mb__range_spread(ctx, r, start, end);
    push_part(w, (part){end, start, true, region.products});
    return ctx->status;
}

static mb_status leave_region(sweep *w)
{
    part p = w->parts[--w->part_count];
    return mb__region_add(w->ctx, p.first, p.products);
}

static mb_status sweep_parts(sweep *w)
{
    while (w->part_count) {
        part *p = &w->parts[w->part_count - 1];
        if (p->id < p->first) {
            if (p->copies && leave_region(w) != MB_OK)
                return w->ctx->status;
            w->part_count -= !p->copies;
            continue;
        }
        uint32_t id = p->id;
        int32_t region = region_at(w, id, p->copies ? p->first : 0);
        p->id = region >= 0 ? w->ctx->regions[region].first - 1 : id - 1;
        if ((region >= 0 ? enter_region(w, region, id) : reverse_node(w->ctx, w->r, id)) != MB_OK)
            return w->ctx->status;
    }
    return MB_OK;
}

mb_status mb__reverse(mb_context *ctx, const mb__sweeps *sweeps, const uint32_t *ys, const uint32_t *vs,
                      int m, const uint32_t *xs, int n, uint32_t *gs)
{
    memset(gs, 0, (size_t)n * sizeof *gs);
    mb__range r = {.sweeps = sweeps};
    mb__range_ends(&r, ys, m, xs, n);
    if (r.low > r.high)
        return ctx->status;
    int32_t around =
        mb__region_around(ctx, r.low, 0); /* a leaf of a checkpoint, which is copied as a whole */
    r.low = around >= 0 ? ctx->regions[around].first : r.low;
    if (!mb__range_open(ctx, &r, r.low, r.high))
        return ctx->status;
    mb__range_mark(ctx, &r, xs, n);
    bool any = false;
    for (int i = 0; i < m; i++) {
        if (ys[i] < r.low || !r.depends[ys[i] - r.low])
            continue;
        any = true;
        uint32_t *slot = &r.grad[ys[i] - r.low];
        *slot = *slot ? mb_add(mb__handle(ctx, *slot), mb__handle(ctx, vs[i])).id : vs[i];
    }
    sweep w = {.ctx = ctx, .r = &r, .xs = xs, .n = n};
    if (any && ctx->status == MB_OK && push_part(&w, (part){r.high, r.low, false, false}))
        sweep_parts(&w);
    for (int i = 0; i < n && ctx->status == MB_OK; i++)
        gs[i] = xs[i] <= r.high ? r.grad[xs[i] - r.low] : 0;
    return ctx->status;
}
