/* SPDX-License-Identifier: MIT
 *
 * sweep.c - reverse and forward sweeps over the tape.
 *
 * A sweep visits the part of the tape between the oldest x and y, and in it only nodes that depend on an x
 * and that y depends on. So the gradient in the last of a thousand inner steps costs that step alone.
 */
#include <stdio.h>

#include "autograd/autograd.h"
#include "autograd/checkpoint.h"
#include "autograd/custom_rules.h"
#include "tensor/copy.h"
#include "autograd/rules.h"
#include "autograd/scan_rules.h"
#include "autograd/sweep.h"

/* Scratch over ids from `low` on, which is the oldest x or before it: what is older depends on none. */
typedef struct range {
    uint32_t low, high;
    uint32_t count;   /* length of the arrays */
    uint32_t *grad;   /* id of the accumulated cotangent or tangent; 0: none */
    uint8_t *depends; /* on an x */
    uint8_t *needed;  /* by a y, in forward sweeps; by a copy of a checkpoint */
    int64_t lead;     /* of a batched forward sweep: K, the size of the first axis of tangents; -1: none */
} range;

/* Extends the arrays to id `last`; new entries are 0. */
static bool range_extend(mb_context *ctx, range *r, uint32_t last)
{
    uint32_t n = last - r->low + 1;
    if (n <= r->count)
        return true;
    if (!mb__reserve(ctx, (void **)&ctx->sweeps, &ctx->sweep_room, (uint64_t)ctx->sweep_depth + 1,
                     sizeof *ctx->sweeps))
        return false;
    mb__scratch *s = &ctx->sweeps[ctx->sweep_depth];
    if (!mb__reserve(ctx, (void **)&s->grad, &s->grad_room, n, sizeof *r->grad) ||
        !mb__reserve(ctx, (void **)&s->depends, &s->depends_room, n, 1) ||
        !mb__reserve(ctx, (void **)&s->needed, &s->needed_room, n, 1))
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
static void set_ends(range *r, const uint32_t *ys, int m, const uint32_t *xs, int n)
{
    r->low = UINT32_MAX;
    r->high = 0;
    for (int i = 0; i < n; i++)
        r->low = xs[i] < r->low ? xs[i] : r->low;
    for (int i = 0; i < m; i++)
        r->high = ys[i] > r->high ? ys[i] : r->high;
}

static bool range_open(mb_context *ctx, range *r, uint32_t low, uint32_t high)
{
    r->low = low;
    r->high = high;
    r->count = 0;
    return range_extend(ctx, r, high);
}

/* Whether derivatives go by an operand. A barrier's value is that of operand 0; operand 1 is only waited for;
 * operand 2, where there is one, is the node that computes the value anew. Of a substitute, derivatives go by
 * the last, too. */
static bool active(const mb_context *ctx, const mb__node *n, int i)
{
    if (n->op == MB_OP_CUSTOM)
        return i >= mb__custom_values(ctx, n);
    bool last = n->nin > 2 || mb__is_kind(n->op, MB_KIND_IDENTITY);
    return !mb__has_flag(n->op, MB_FLAG_ONE_OPERAND) || i == (last ? n->nin - 1 : 0);
}

/* Whether the node can have a derivative with respect to any operand. */
static bool passes(const mb__node *n)
{
    return mb__is_float(n->dtype) && !mb__has_flag(n->op, MB_FLAG_CONSTANT);
}

/* Marks the nodes of [from, to] that depend on a marked one. */
static void spread_dependence(mb_context *ctx, range *r, uint32_t from, uint32_t to)
{
    for (uint32_t id = from; id <= to; id++) {
        const mb__node *n = mb__at(ctx, id);
        if (r->depends[id - r->low] || n->dead || n->home || !passes(n))
            continue; /* what is inside of a scan is the scan's: see scan_rules.c */
        for (int i = 0; i < n->nin; i++) {
            uint32_t o = mb__in(ctx, n, i);
            if (o >= r->low && r->depends[o - r->low] && active(ctx, n, i)) {
                r->depends[id - r->low] = 1;
                break;
            }
        }
    }
}

static void mark_dependents(mb_context *ctx, range *r, const uint32_t *xs, int nx)
{
    for (int i = 0; i < nx; i++)
        if (xs[i] >= r->low && xs[i] <= r->high)
            r->depends[xs[i] - r->low] = 1;
    spread_dependence(ctx, r, r->low, r->high);
}

static mb__applied applied(mb_context *ctx, uint32_t id)
{
    mb__applied s = {.ctx = ctx, .node = *mb__at(ctx, id), .out = mb__handle(ctx, id)};
    s.site = s.node.site;
    if (s.node.through && mb__is_stand_in(ctx, id + 1)) /* a stored value, which need not be recomputed */
        s.out = mb__handle(ctx, id + 1);
    for (int i = 0; i < s.node.nin && i < 3; i++)
        s.in[i] = mb__handle(ctx, mb__in(ctx, &s.node, i));
    return s;
}

static mb_status no_rule(const mb__applied *s, int i, const char *mode)
{
    return mb__error(s->ctx, MB_NO_RULE, "%s: no %s rule for operand %d", mb__ops[s->node.op].name, mode,
                     i + 1);
}

/* Checks float operands, resolves variables. */
static mb_context *enter(const char *name, const mb_tensor *ts, int n, uint32_t *ids)
{
    mb_context *ctx = NULL;
    mb_tensor poison;
    for (int i = 0; i < n; i++) {
        ctx = mb__enter(name, (const mb_tensor *[]){&ts[0], &ts[i]}, 2, &poison);
        if (!ctx)
            return NULL;
        if (!mb__is_float(mb__at(ctx, ts[i].id)->dtype)) {
            char a[256];
            mb__error(ctx, MB_INVALID, "%s: got %s; wanted float32 or float64", name,
                      mb__tensor_text(a, sizeof a, ts[i]));
            return NULL;
        }
        if (ids && !(ids[i] = mb__resolve(ctx, ts[i])))
            return NULL;
    }
    return ctx;
}

static bool same_shape(const mb__node *a, const mb__node *b)
{
    return a->rank == b->rank && a->dtype == b->dtype &&
           !memcmp(a->dim, b->dim, (size_t)a->rank * sizeof *a->dim);
}

/* The node's shape; with lead >= 0, after an axis of that size. */
static mb_shape shape_with(const mb__node *n, int64_t lead)
{
    int extra = lead >= 0;
    mb_shape shape = {n->rank + extra, {lead}};
    memcpy(shape.dim + extra, n->dim, (size_t)n->rank * sizeof *n->dim);
    return shape;
}

static mb_tensor zeros_like(mb_context *ctx, uint32_t id, int64_t lead)
{
    const mb__node *n = mb__at(ctx, id);
    return mb_full(ctx, (mb_dtype)n->dtype, shape_with(n, lead), 0);
}

/* ---- reverse mode ---- */

/* Adds what node id's cotangent gives operand i. */
static mb_status add_cotangent(mb_context *ctx, range *r, const mb__applied *s, int i, mb_tensor v)
{
    uint32_t o = mb__in(ctx, &s->node, i);
    const mb__rule *rule = mb__rule_of(s->node.op);
    v = rule->reverse ? rule->reverse(s, i, v) : mb__poison(ctx);
    if (!v.id)
        return ctx->status != MB_OK ? ctx->status : no_rule(s, i, "reverse");
    const mb__node *x = mb__at(ctx, o);
    if (mb__is_elementwise(s->node.op) && !same_shape(mb__at(ctx, v.id), x)) {
        int64_t dim[MB_MAX_RANK];
        memcpy(dim, x->dim, sizeof dim);
        v = mb__sum_to(v, x->rank, dim);
    }
    if (v.id && !same_shape(mb__at(ctx, v.id), mb__at(ctx, o)))
        return mb__error(ctx, MB_INVALID,
                         "%s: the rule for operand %d gives another shape than the operand's",
                         mb__ops[s->node.op].name, i + 1);
    uint32_t *slot = &r->grad[o - r->low];
    if (*slot)
        v = mb_add(mb__handle(ctx, *slot), v);
    *slot = v.id;
    return ctx->status;
}

static const mb__sweeps sweeps = {mb__vjp_ids, mb__jvp_ids};

static uint32_t slot_of(const range *r, uint32_t id)
{
    return id >= r->low && id - r->low < r->count ? r->grad[id - r->low] : 0;
}

static bool has_followers(int op)
{
    return op == MB_OP_SCAN || op == MB_OP_CUSTOM;
}

/* From the cotangents of a scan's or a rule's results to those of its operands. */
static mb_status reverse_with_results(mb_context *ctx, range *r, uint32_t id)
{
    int operands = mb__at(ctx, id)->nin, results = mb__followers(ctx, id), any = 0;
    MB_TEMPORARY(ctx);
    uint32_t *g = mb__temporary(ctx, (size_t)(2 * operands + results) * sizeof *g);
    if (!g)
        return ctx->status;
    uint32_t *o = g + results, *wanted = o + operands;
    for (int i = 0; i < results; i++)
        any |= (g[i] = slot_of(r, id + 1 + (uint32_t)i)) != 0;
    const mb__node *n = mb__at(ctx, id);
    bool scan = n->op == MB_OP_SCAN;
    for (int i = 0; i < operands; i++) {
        uint32_t k = mb__in(ctx, n, i);
        o[i] = wanted[i] = active(ctx, n, i) && i >= scan && k >= r->low && r->depends[k - r->low];
    }
    int values = scan ? 0 : mb__custom_values(ctx, n);
    ctx->sweep_depth++; /* a sweep within this one has scratch memory of its own */
    mb_status status = !any   ? MB_OK
                       : scan ? mb__scan_reverse(ctx, id, &sweeps, g, o)
                              : mb__custom_reverse(ctx, id, &sweeps, g, o + values);
    ctx->sweep_depth--;
    for (int i = 0; i < operands && any && status == MB_OK; i++)
        if (wanted[i] && o[i]) {
            uint32_t *slot = &r->grad[mb__in(ctx, mb__at(ctx, id), i) - r->low];
            *slot = *slot ? mb_add(mb__handle(ctx, *slot), mb__handle(ctx, o[i])).id : o[i];
            status = ctx->status;
        }
    return status;
}

static mb_status reverse_node(mb_context *ctx, range *r, uint32_t id)
{
    int op = mb__at(ctx, id)->op;
    if (op == MB_OP_RESULT || op == MB_OP_RULED)
        return MB_OK; /* it waits for the scan, or the rule */
    if (has_followers(op) && r->depends[id - r->low]) {
        ctx->site = mb__at(ctx, id)->site;
        ctx->call = mb__at(ctx, id)->call;
        return reverse_with_results(ctx, r, id);
    }
    uint32_t g = r->grad[id - r->low];
    if (!g || !r->depends[id - r->low] || !passes(mb__at(ctx, id)))
        return MB_OK;
    mb__applied s = applied(ctx, id);
    ctx->site = s.site;
    ctx->call = s.node.call;
    for (int i = 0; i < s.node.nin; i++) {
        uint32_t o = mb__in(ctx, &s.node, i);
        if (o >= r->low && r->depends[o - r->low] && active(ctx, &s.node, i) &&
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
    range *r;
    const uint32_t *xs; /* ids */
    int n;
    part *parts; /* the innermost last; in the context's scratch */
    uint32_t part_count;
} sweep;

static bool push_part(sweep *w, part p)
{
    mb_context *ctx = w->ctx;
    mb__scratch *s = &ctx->sweeps[ctx->sweep_depth];
    if (!mb__reserve(ctx, &s->parts, &s->part_room, (w->part_count + 1) * sizeof p, 1))
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
static uint32_t mark_needed(mb_context *ctx, range *r, uint32_t first, uint32_t last)
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
    range *r = w->r;
    mb__region region = ctx->regions[index];
    uint32_t start, newest = mark_needed(ctx, r, region.first, last);
    if (!newest)
        return MB_OK;
    if (mb__region_copy(ctx, index, last, r->needed, r->low, newest, &start) != MB_OK ||
        ctx->node_count == start || !range_extend(ctx, r, ctx->node_count - 1))
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
    spread_dependence(ctx, r, start, end);
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

mb_status mb__vjp_ids(mb_context *ctx, const uint32_t *ys, const uint32_t *vs, int m, const uint32_t *xs,
                      int n, uint32_t *gs)
{
    memset(gs, 0, (size_t)n * sizeof *gs);
    range r = {0};
    set_ends(&r, ys, m, xs, n);
    if (r.low > r.high)
        return ctx->status;
    int32_t around =
        mb__region_around(ctx, r.low, 0); /* a leaf of a checkpoint, which is copied as a whole */
    r.low = around >= 0 ? ctx->regions[around].first : r.low;
    if (!range_open(ctx, &r, r.low, r.high))
        return ctx->status;
    mark_dependents(ctx, &r, xs, n);
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

static mb_status vjp(const char *name, mb_tensor y, const mb_tensor *v, const mb_tensor *xs, int n,
                     mb_tensor *gs, int *fed)
{
    *fed = 0;
    uint32_t id;
    mb_context *ctx = y.ctx;
    for (int i = 0; gs && i < n; i++)
        gs[i] = mb__poison(ctx);
    if (n < 0 || (n && (!xs || !gs)))
        return mb__error(ctx, MB_INVALID, "%s: got %d tensors to differentiate by, and %s", name, n,
                         !xs && n > 0 ? "no array of them" : "nowhere to put the result");
    if (!enter(name, &y, 1, &id))
        return ctx ? mb_error(ctx) : MB_INVALID;
    MB_TEMPORARY(ctx);
    uint32_t *ids = mb__temporary(ctx, 2 * (size_t)n * sizeof *ids);
    if (!ids)
        return ctx->status;
    const char *site_of_call = ctx->site, *call = ctx->call;
    mb_status status = MB_OK;
    if (n && !enter(name, xs, n, ids))
        status = mb_error(ctx) ? mb_error(ctx) : mb__error(ctx, MB_INVALID, "%s: an x is not a tensor", name);
    if (status == MB_OK && n && xs[0].ctx != ctx)
        status = mb__error(ctx, MB_INVALID, "%s: y and xs belong to different contexts", name);
    mb_tensor seed = {0};
    if (status == MB_OK && v) {
        if (!enter(name, v, 1, NULL) || v->ctx != ctx || !same_shape(mb__at(ctx, v->id), mb__at(ctx, id))) {
            char a[256], b[256];
            mb__error(ctx, MB_INVALID, "%s: got the cotangent %s for y %s; wanted the same shape and dtype",
                      name, mb__tensor_text(a, sizeof a, *v), mb__tensor_text(b, sizeof b, y));
            status = ctx->status;
        } else {
            seed = *v;
            seed.id = mb__resolve(ctx, *v);
        }
    } else if (status == MB_OK) {
        const mb__node *ny = mb__at(ctx, id);
        mb_shape shape = {ny->rank, {0}};
        memcpy(shape.dim, ny->dim, sizeof shape.dim);
        seed = mb_full(ctx, (mb_dtype)ny->dtype, shape, 1);
    }
    if (status == MB_OK && !seed.id)
        status = ctx->status;
    uint32_t *found = ids + n;
    if (status == MB_OK)
        status = mb__vjp_ids(ctx, &id, &seed.id, 1, ids, n, found);
    ctx->site = site_of_call;
    ctx->call = call;
    for (int i = 0; i < n && status == MB_OK; i++) {
        gs[i] = found[i] ? mb__handle(ctx, found[i]) : zeros_like(ctx, ids[i], -1);
        *fed += found[i] != 0;
        status = ctx->status;
    }
    return status;
}

mb_status mb__grad_fed(mb_tensor y, const mb_tensor *xs, int n, mb_tensor *gs, int *fed)
{
    return vjp("grad", y, NULL, xs, n, gs, fed);
}

/* Warns: gradients that are all zero because y depends on no x are rarely intended. */
static void tell_unfed(mb_context *ctx, mb_tensor y, const mb_tensor *xs, int n)
{
    int i = 0;
    while (i < n && mb__at(ctx, xs[i].id)->op != MB_OP_VARIABLE)
        i++;
    if (i == n || !ctx->engine->log)
        return;
    char line[512], text[256];
    snprintf(line, sizeof line,
             "%s: grad: y, %s, depends on none of the %d tensors: zeros; a variable stands for its value at "
             "this moment, so y must be recorded after mb_assign or mb_step",
             ctx->site, mb__tensor_text(text, sizeof text, y), n);
    ctx->engine->log(ctx, line);
}

mb_status mb_grad_at(const char *site, mb_tensor y, const mb_tensor *xs, int n, mb_tensor *gs)
{
    MB_DOOR(y.ctx, site, MB_THREAD);
    int fed;
    mb_status status = mb__grad_fed(y, xs, n, gs, &fed);
    if (status == MB_OK && n && !fed)
        tell_unfed(y.ctx, y, xs, n);
    return status;
}

mb_status mb_vjp_at(const char *site, mb_tensor y, mb_tensor v, const mb_tensor *xs, int n, mb_tensor *gs)
{
    MB_DOOR(y.ctx, site, MB_THREAD);
    int fed;
    return vjp("vjp", y, &v, xs, n, gs, &fed);
}

/* ---- forward mode ---- */

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

static mb_tensor tangent_concat(const mb__applied *s, const range *r)
{
    mb_context *ctx = s->ctx;
    mb_tensor out = {0};
    mb_tensor *parts = mb__alloc(ctx, s->node.nin * sizeof *parts);
    if (!parts)
        return mb__poison(ctx);
    for (int i = 0; i < s->node.nin; i++) {
        uint32_t o = mb__in(ctx, &s->node, i), t = o >= r->low ? r->grad[o - r->low] : 0;
        parts[i] = t ? mb__handle(ctx, t) : zeros_like(ctx, o, r->lead);
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

static mb_tensor tangent_of(const mb__applied *s, const range *r)
{
    mb_context *ctx = s->ctx;
    if (s->node.op == MB_OP_CONCAT)
        return tangent_concat(s, r);
    mb_tensor sum = {0};
    for (int i = 0; i < s->node.nin; i++) {
        uint32_t o = mb__in(ctx, &s->node, i), id = o >= r->low ? r->grad[o - r->low] : 0;
        if (!id || !active(ctx, &s->node, i))
            continue;
        mb_tensor t = tangent_by(s, i, mb__handle(ctx, id), r->lead);
        if (!t.id) {
            if (ctx->status == MB_OK)
                no_rule(s, i, "forward");
            return t;
        }
        sum = sum.id ? mb_add(sum, t) : t;
    }
    return sum.id ? mb_broadcast(sum, shape_with(&s->node, r->lead)) : sum;
}

/* The tangents of a scan's or a rule's results. */
static mb_status forward_with_results(mb_context *ctx, range *r, uint32_t id)
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
        t[i] = active(ctx, n, i) ? slot_of(r, mb__in(ctx, n, i)) : 0;
    int values = scan ? 0 : mb__custom_values(ctx, n);
    ctx->sweep_depth++;
    mb_status status = scan ? mb__scan_forward(ctx, id, &sweeps, t, r->lead, of)
                            : mb__custom_forward(ctx, id, &sweeps, t + values, r->lead, of);
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
static mb_status forward_sweep(mb_context *ctx, range *r)
{
    for (uint32_t id = r->low; id <= r->high; id++) {
        uint32_t k = id - r->low;
        if (!r->depends[k] || !r->needed[k] || !passes(mb__at(ctx, id)))
            continue;
        if (mb__at(ctx, id)->op == MB_OP_RESULT || mb__at(ctx, id)->op == MB_OP_RULED)
            continue; /* the scan or the rule has given it */
        mb__applied s = applied(ctx, id);
        ctx->site = s.site;
        ctx->call = s.node.call;
        if (has_followers(s.node.op)) {
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

/* Whether v is a tangent for x: of x's shape, or in a batch of that shape after a first axis of size *lead,
 * which the first x sets (-1 before). */
static bool fits(const mb__node *x, const mb__node *v, bool batch, int64_t *lead)
{
    if (!batch)
        return same_shape(x, v);
    if (v->rank != x->rank + 1 || v->dtype != x->dtype ||
        memcmp(v->dim + 1, x->dim, (size_t)x->rank * sizeof *x->dim))
        return false;
    if (*lead < 0)
        *lead = v->dim[0];
    return *lead == v->dim[0];
}

/* Stores the tangents of the xs; for an x that occurs twice, their sum. */
static bool seed_tangents(mb_context *ctx, range *r, const uint32_t *xs, const uint32_t *vs, int n)
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

mb_status mb__jvp_ids(mb_context *ctx, const uint32_t *ys, int m, const uint32_t *xs, const uint32_t *vs,
                      int n, int64_t lead, uint32_t *ts)
{
    memset(ts, 0, (size_t)m * sizeof *ts);
    range r = {.lead = lead};
    set_ends(&r, ys, m, xs, n);
    if (r.low > r.high || !range_open(ctx, &r, r.low, r.high))
        return ctx->status;
    mark_dependents(ctx, &r, xs, n);
    for (int i = 0; i < m; i++)
        if (ys[i] >= r.low)
            r.needed[ys[i] - r.low] = 1;
    for (uint32_t id = r.high;; id--) {
        const mb__node *node = mb__at(ctx, id);
        for (int i = 0; r.needed[id - r.low] && i < node->nin; i++)
            if (mb__in(ctx, node, i) >= r.low && active(ctx, node, i))
                r.needed[mb__in(ctx, node, i) - r.low] = 1;
        if (id == r.low)
            break;
    }
    if (seed_tangents(ctx, &r, xs, vs, n) && forward_sweep(ctx, &r) == MB_OK)
        for (int i = 0; i < m; i++)
            ts[i] = ys[i] >= r.low ? r.grad[ys[i] - r.low] : 0;
    return ctx->status;
}

static mb_status jvp(const char *name, bool batch, const mb_tensor *ys, int m, const mb_tensor *xs,
                     const mb_tensor *vs, int n, mb_tensor *ts)
{
    mb_context *ctx = m > 0 && ys ? ys[0].ctx : NULL;
    if (!ctx || m < 1 || n < (batch ? 1 : 0) || (n && (!xs || !vs)) || !ts)
        return ctx ? mb__error(ctx, MB_INVALID, "%s: got %d results and %d variables", name, m, n)
                   : MB_INVALID;
    MB_TEMPORARY(ctx);
    uint32_t *yi =
        mb_error(ctx) == MB_OK ? mb__temporary(ctx, 2 * ((size_t)m + (size_t)n) * sizeof *yi) : NULL;
    bool ok = yi != NULL;
    uint32_t *xi = ok ? yi + m : NULL, *vi = ok ? xi + n : NULL;
    const char *site_of_call = ctx->site, *call = ctx->call;
    ok = ok && enter(name, ys, m, yi) &&
         (!n || (enter(name, xs, n, xi) == ctx && enter(name, vs, n, vi) == ctx));
    int64_t lead = -1;
    for (int i = 0; ok && i < n; i++)
        if (!fits(mb__at(ctx, xi[i]), mb__at(ctx, vi[i]), batch, &lead)) {
            char a[256], b[256];
            mb__error(ctx, MB_INVALID,
                      batch ? "%s: got the tangents %s for %s; wanted its shape after an axis for the "
                              "directions, as many for each variable, and its dtype"
                            : "%s: got the tangent %s for %s; wanted the same shape and dtype",
                      name, mb__tensor_text(a, sizeof a, vs[i]), mb__tensor_text(b, sizeof b, xs[i]));
            ok = false;
        }
    for (int i = 0; ok && batch && i < m; i++)
        if (mb__at(ctx, yi[i])->rank == MB_MAX_RANK) {
            mb__error(ctx, MB_INVALID,
                      "%s: a result has %d axes; the directions want one more, and %d is the most", name,
                      MB_MAX_RANK, MB_MAX_RANK);
            ok = false;
        }
    for (int i = 0; i < m; i++) /* only now: ts may be ys */
        ts[i] = mb__poison(ctx);
    uint32_t *ti = ok ? vi + n : NULL;
    ok = ok && mb__jvp_ids(ctx, yi, m, xi, vi, n, lead, ti) == MB_OK;
    ctx->site = site_of_call;
    ctx->call = call;
    for (int i = 0; ok && i < m; i++) {
        ts[i] = ti[i] ? mb__handle(ctx, ti[i]) : zeros_like(ctx, yi[i], lead);
        ok = ctx->status == MB_OK;
    }
    return mb_error(ctx);
}

mb_status mb_jvp_at(const char *site, const mb_tensor *ys, int m, const mb_tensor *xs, const mb_tensor *vs,
                    int n, mb_tensor *ts)
{
    MB_DOOR(ys ? ys->ctx : NULL, site, MB_THREAD);
    return jvp("jvp", false, ys, m, xs, vs, n, ts);
}

mb_status mb_jvp_batch_at(const char *site, const mb_tensor *ys, int m, const mb_tensor *xs,
                          const mb_tensor *vs, int n, mb_tensor *ts)
{
    MB_DOOR(ys ? ys->ctx : NULL, site, MB_THREAD);
    return jvp("jvp_batch", true, ys, m, xs, vs, n, ts);
}
