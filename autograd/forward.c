/* SPDX-License-Identifier: MIT
 * forward.c - the forward sweep: from the oldest x to the newest y, each node makes its tangent of its
 * operands', for one direction or for a batch of them. */
#include "autograd/custom_rules.h"
#include "autograd/range.h"
#include "autograd/scan_rules.h"
#include "tensor/copy.h"

/* The node's op, with the tangent in place of an operand that it is linear in; for concat, of all operands.
 */
static mb_tensor rebuild(const mb__applied *s, int operand, mb_tensor t)
{
    mb_context *ctx = s->ctx;
    mb_tensor in[3];
    for (int i = 0; i < s->node.nin && i < 3; i++)
        in[i] = i == operand ? t : s->in[i];
    int64_t attrs[1 + 3 * 24];
    memcpy(attrs, mb__attrs(ctx, &s->node), s->node.nattr * sizeof *attrs);
    return mb__record(ctx, s->node.op, (mb_dtype)s->node.dtype, s->node.rank, s->node.dim, in, s->node.nin,
                      attrs, s->node.nattr);
}

static mb_tensor tangent_concat(const mb__applied *s, const mb__range *r)
{
    mb_context *ctx = s->ctx;
    mb_tensor out = {0};
    mb_tensor *parts = mb__alloc(ctx, s->node.nin * sizeof *parts);
    if (!parts)
        return mb__poison(ctx);
    for (int i = 0; i < s->node.nin; i++) {
        uint32_t o = mb__in(ctx, &s->node, i), t = o >= r->low ? r->grad[o - r->low] : 0;
        parts[i] = t ? mb__handle(ctx, t) : mb__zeros_like(ctx, o, r->lead);
    }
    if (ctx->status == MB_OK)
        out = mb_concat(parts, s->node.nin, (int)mb__attrs(ctx, &s->node)[0] + (r->lead >= 0));
    mb__free(ctx, parts, s->node.nin * sizeof *parts);
    return out;
}

/* The contribution of operand i's tangent t to the result's. */
static mb_tensor tangent_by(const mb__applied *s, int i, mb_tensor t, int64_t lead)
{
    const mb__rule *rule = mb__rule_of(s->node.op);
    if (rule->forward)
        return rule->forward(s, i, lead >= 0 && mb__is_elementwise(s->node.op) ? mb__batch_aligned(s, t) : t);
    if (!(mb__ops[s->node.op].linear >> i & 1) || (lead >= 0 && !rule->batch))
        return mb__poison(s->ctx);
    if (lead < 0)
        return rebuild(s, i, t);
    mb__operand in[3];
    for (int k = 0; k < 3; k++)
        in[k] = (mb__operand){k == i ? t : s->in[k], k == i};
    return rule->batch(s, in, lead);
}

static mb_tensor tangent_of(const mb__applied *s, const mb__range *r)
{
    mb_context *ctx = s->ctx;
    if (s->node.op == MB_OP_CONCAT)
        return tangent_concat(s, r);
    mb_tensor sum = {0};
    for (int i = 0; i < s->node.nin; i++) {
        uint32_t o = mb__in(ctx, &s->node, i), id = o >= r->low ? r->grad[o - r->low] : 0;
        if (!id || !mb__active(ctx, &s->node, i))
            continue;
        mb_tensor t = tangent_by(s, i, mb__handle(ctx, id), r->lead);
        if (!t.id) {
            if (ctx->status == MB_OK)
                mb__no_rule(s, i, "forward");
            return t;
        }
        sum = sum.id ? mb_add(sum, t) : t;
    }
    return sum.id ? mb_broadcast(sum, mb__shape_with(&s->node, r->lead)) : sum;
}

/* The tangents of a scan's or a rule's results. */
static mb_status forward_with_results(mb_context *ctx, mb__range *r, uint32_t id)
{
    int operands = mb__at(ctx, id)->nin, results = mb__followers(ctx, id);
    MB_TEMPORARY(ctx);
    uint32_t *t = mb__temporary(ctx, (size_t)(operands + results) * sizeof *t);
    if (!t)
        return ctx->status;
    uint32_t *of = t + operands;
    const mb__node *n = mb__at(ctx, id);
    bool scan = n->op == MB_OP_SCAN;
    for (int i = scan; i < operands; i++)
        t[i] = mb__active(ctx, n, i) ? mb__range_slot(r, mb__in(ctx, n, i)) : 0;
    int values = scan ? 0 : mb__custom_values(ctx, n);
    ctx->sweep_depth++;
    mb_status status = scan ? mb__scan_forward(ctx, id, r->sweeps, t, r->lead, of)
                            : mb__custom_forward(ctx, id, r->sweeps, t + values, r->lead, of);
    ctx->sweep_depth--;
    for (int i = 0; i < results && status == MB_OK; i++) {
        uint32_t k = id + 1 + (uint32_t)i - r->low;
        if (!of[i] || k > r->high - r->low)
            continue;
        r->grad[k] = r->grad[k] ? mb_add(mb__handle(ctx, r->grad[k]), mb__handle(ctx, of[i])).id : of[i];
        status = ctx->status;
    }
    return status;
}

/* An x may depend on another x: its tangent is then its own plus that of its op, just as in the reverse sweep
 * the older x gets all that passes through the newer one. */
static mb_status forward_sweep(mb_context *ctx, mb__range *r)
{
    for (uint32_t id = r->low; id <= r->high; id++) {
        uint32_t k = id - r->low;
        if (!r->depends[k] || !r->needed[k] || !mb__passes(mb__at(ctx, id)))
            continue;
        if (mb__at(ctx, id)->op == MB_OP_RESULT || mb__at(ctx, id)->op == MB_OP_RULED)
            continue; /* the scan or the rule has given it */
        mb__applied s = mb__applied_at(ctx, id);
        ctx->site = s.site;
        ctx->call = s.node.call;
        if (mb__has_followers(s.node.op)) {
            if (forward_with_results(ctx, r, id) != MB_OK)
                return ctx->status;
            continue;
        }
        if (r->lead >= 0 && s.node.rank == MB_MAX_RANK)
            return mb__error(ctx, MB_INVALID,
                             "%s: has %d axes; a batch of directions wants one more, and %d is the most",
                             mb__ops[s.node.op].name, MB_MAX_RANK, MB_MAX_RANK);
        mb_tensor t = tangent_of(&s, r);
        if (t.id && r->grad[k])
            t = mb_add(mb__handle(ctx, r->grad[k]), t);
        if (ctx->status != MB_OK)
            return ctx->status;
        if (t.id)
            r->grad[k] = t.id;
    }
    return MB_OK;
}

/* Stores the tangents of the xs; for an x that occurs twice, their sum. */
static bool seed_tangents(mb_context *ctx, mb__range *r, const uint32_t *xs, const uint32_t *vs, int n)
{
    for (int i = 0; i < n; i++) {
        if (xs[i] > r->high)
            continue;
        uint32_t *slot = &r->grad[xs[i] - r->low];
        *slot = *slot ? mb_add(mb__handle(ctx, *slot), mb__handle(ctx, vs[i])).id : vs[i];
        if (!*slot)
            return false;
    }
    return true;
}

mb_status mb__forward(mb_context *ctx, const mb__sweeps *sweeps, const uint32_t *ys, int m,
                      const uint32_t *xs, const uint32_t *vs, int n, int64_t lead, uint32_t *ts)
{
    memset(ts, 0, (size_t)m * sizeof *ts);
    mb__range r = {.lead = lead, .sweeps = sweeps};
    mb__range_ends(&r, ys, m, xs, n);
    if (r.low > r.high || !mb__range_open(ctx, &r, r.low, r.high))
        return ctx->status;
    mb__range_mark(ctx, &r, xs, n);
    for (int i = 0; i < m; i++)
        if (ys[i] >= r.low)
            r.needed[ys[i] - r.low] = 1;
    for (uint32_t id = r.high;; id--) {
        const mb__node *node = mb__at(ctx, id);
        for (int i = 0; r.needed[id - r.low] && i < node->nin; i++)
            if (mb__in(ctx, node, i) >= r.low && mb__active(ctx, node, i))
                r.needed[mb__in(ctx, node, i) - r.low] = 1;
        if (id == r.low)
            break;
    }
    if (seed_tangents(ctx, &r, xs, vs, n) && forward_sweep(ctx, &r) == MB_OK)
        for (int i = 0; i < m; i++)
            ts[i] = ys[i] >= r.low ? r.grad[ys[i] - r.low] : 0;
    return ctx->status;
}
