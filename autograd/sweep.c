/* SPDX-License-Identifier: MIT
 *
 * sweep.c - reverse and forward sweeps over the tape.
 *
 * Only the part of the tape between the oldest x and y is looked at, and of that only nodes which depend on
 * an x and which y depends on. So the gradient of the newest of a thousand inner steps costs that step alone.
 */
#include "autograd/autograd.h"
#include "autograd/rules.h"

/* Scratch over a range of ids [low, high]. */
typedef struct range {
    uint32_t low, high;
    uint32_t *grad;   /* id of the accumulated cotangent or tangent; 0: none */
    uint8_t *depends; /* on an x */
    uint8_t *needed;  /* by a y; forward sweeps only */
    int64_t lead;     /* of a batched forward sweep: K, the size of the first axis of tangents; -1: none */
} range;

static bool range_open(mb_context *ctx, range *r, uint32_t low, uint32_t high)
{
    size_t n = (size_t)(high - low) + 1,
           bytes = n * (sizeof *r->grad + sizeof *r->depends + sizeof *r->needed);
    if (bytes > ctx->scratch_bytes) {
        size_t room = bytes + bytes / 2;
        void *p = mb__realloc(ctx, ctx->scratch, ctx->scratch_bytes, room);
        if (!p)
            return false;
        ctx->scratch = p;
        ctx->scratch_bytes = room;
    }
    memset(ctx->scratch, 0, bytes);
    r->low = low;
    r->high = high;
    r->grad = ctx->scratch;
    r->depends = (uint8_t *)(r->grad + n);
    r->needed = r->depends + n;
    return true;
}

/* Derivatives pass through this node at all. */
static bool passes(const mb__node *n)
{
    return mb__is_float(n->dtype) && !mb__has_flag(n->op, MB_FLAG_CONSTANT);
}

static void mark_dependents(mb_context *ctx, range *r, const uint32_t *xs, int nx)
{
    for (int i = 0; i < nx; i++)
        if (xs[i] >= r->low && xs[i] <= r->high)
            r->depends[xs[i] - r->low] = 1;
    for (uint32_t id = r->low; id <= r->high; id++) {
        const mb__node *n = mb__at(ctx, id);
        if (r->depends[id - r->low] || n->dead || !passes(n))
            continue;
        for (int i = 0; i < n->nin; i++) {
            uint32_t o = mb__in(ctx, n, i);
            if (o >= r->low && r->depends[o - r->low]) {
                r->depends[id - r->low] = 1;
                break;
            }
        }
    }
}

static mb__applied site_of(mb_context *ctx, uint32_t id)
{
    mb__applied s = {.ctx = ctx, .node = *mb__at(ctx, id), .out = mb__handle(ctx, id)};
    s.site = s.node.site;
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

static mb_status reverse_sweep(mb_context *ctx, range *r, uint32_t y, mb_tensor seed)
{
    r->grad[y - r->low] = seed.id;
    for (uint32_t id = y;; id--) {
        uint32_t g = r->grad[id - r->low];
        if (g && r->depends[id - r->low] && passes(mb__at(ctx, id))) {
            mb__applied s = site_of(ctx, id);
            ctx->site = s.site;
            for (int i = 0; i < s.node.nin; i++) {
                uint32_t o = mb__in(ctx, &s.node, i);
                if (o < r->low || !r->depends[o - r->low])
                    continue;
                mb_tensor v = mb__handle(ctx, g);
                v = mb__is_elementwise(s.node.op) && s.node.op != MB_OP_CAST ? mb__rule_elementwise(&s, i, v)
                                                                             : mb__rule_reverse(&s, i, v);
                if (!v.id)
                    return ctx->status != MB_OK ? ctx->status : no_rule(&s, i, "reverse");
                const mb__node *x = mb__at(ctx, o);
                if (mb__is_elementwise(s.node.op) && !same_shape(mb__at(ctx, v.id), x)) {
                    int64_t dim[MB_MAX_RANK];
                    memcpy(dim, x->dim, sizeof dim);
                    v = mb__sum_to(v, x->rank, dim);
                }
                if (v.id && !same_shape(mb__at(ctx, v.id), mb__at(ctx, o)))
                    return mb__error(ctx, MB_INVALID,
                                     "%s: the rule for operand %d gives another shape than the operand's",
                                     mb__ops[s.node.op].name, i + 1);
                uint32_t *slot = &r->grad[o - r->low];
                if (*slot)
                    v = mb_add(mb__handle(ctx, *slot), v);
                if (!v.id)
                    return ctx->status;
                *slot = v.id;
            }
        }
        if (id == r->low)
            return MB_OK;
    }
}

static mb_status vjp(const char *name, mb_tensor y, const mb_tensor *v, const mb_tensor *xs, int n,
                     mb_tensor *gs)
{
    uint32_t id;
    mb_context *ctx = y.ctx;
    for (int i = 0; gs && i < n; i++)
        gs[i] = mb__poison(ctx);
    if (n < 0 || (n && (!xs || !gs)))
        return mb__error(ctx, MB_INVALID, "%s: got %d tensors to differentiate by, and %s", name, n,
                         !xs && n > 0 ? "no array of them" : "nowhere to put the result");
    if (!enter(name, &y, 1, &id))
        return ctx ? mb_error(ctx) : MB_INVALID;
    if (!mb__reserve(ctx, (void **)&ctx->ids, &ctx->id_room, (uint64_t)n, sizeof *ctx->ids))
        return ctx->status;
    uint32_t *ids = ctx->ids;
    const char *site_of_call = ctx->site;
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
    range r = {.low = id};
    for (int i = 0; i < n && status == MB_OK; i++)
        if (ids[i] < r.low)
            r.low = ids[i];
    if (status == MB_OK && !seed.id)
        status = ctx->status;
    if (status == MB_OK && !range_open(ctx, &r, r.low, id))
        status = ctx->status;
    if (status == MB_OK) {
        mark_dependents(ctx, &r, ids, n);
        if (r.depends[id - r.low])
            status = reverse_sweep(ctx, &r, id, seed);
    }
    ctx->site = site_of_call;
    for (int i = 0; i < n && status == MB_OK; i++) {
        uint32_t g = ids[i] <= id ? r.grad[ids[i] - r.low] : 0;
        gs[i] = g ? mb__handle(ctx, g) : zeros_like(ctx, ids[i], -1);
        status = ctx->status;
    }
    return status;
}

mb_status mb_grad_at(const char *site, mb_tensor y, const mb_tensor *xs, int n, mb_tensor *gs)
{
    MB_DOOR(y.ctx, site, MB_THREAD);
    return vjp("grad", y, NULL, xs, n, gs);
}

mb_status mb_vjp_at(const char *site, mb_tensor y, mb_tensor v, const mb_tensor *xs, int n, mb_tensor *gs)
{
    MB_DOOR(y.ctx, site, MB_THREAD);
    return vjp("vjp", y, &v, xs, n, gs);
}

/* ---- forward mode ---- */

/* The node's op on tangents in place of the operands it is linear in: one of them, or all for a concat. */
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

static mb_tensor tangent_of(const mb__applied *s, const range *r)
{
    mb_context *ctx = s->ctx;
    if (s->node.op == MB_OP_CONCAT)
        return tangent_concat(s, r);
    mb_tensor sum = {0};
    for (int i = 0; i < s->node.nin; i++) {
        uint32_t o = mb__in(ctx, &s->node, i), id = o >= r->low ? r->grad[o - r->low] : 0;
        if (!id)
            continue;
        mb_tensor t = mb__handle(ctx, id);
        if (mb__is_elementwise(s->node.op) && s->node.op != MB_OP_CAST)
            t = mb__rule_elementwise(s, i, r->lead >= 0 ? mb__lift_aligned(s, t) : t);
        else if (r->lead >= 0)
            t = mb__lift_linear(s, i, t, r->lead);
        else if (mb__ops[s->node.op].linear >> i & 1)
            t = rebuild(s, i, t);
        else
            t = mb__rule_forward(s, t);
        if (!t.id) {
            if (ctx->status == MB_OK)
                no_rule(s, i, "forward");
            return t;
        }
        sum = sum.id ? mb_add(sum, t) : t;
    }
    return sum.id ? mb_broadcast(sum, shape_with(&s->node, r->lead)) : sum;
}

/* An x may itself depend on another x: its tangent is then its own plus what comes through, as the reverse
 * sweep gives the older x all that flows through the newer one. */
static mb_status forward_sweep(mb_context *ctx, range *r)
{
    for (uint32_t id = r->low; id <= r->high; id++) {
        uint32_t k = id - r->low;
        if (!r->depends[k] || !r->needed[k] || !passes(mb__at(ctx, id)))
            continue;
        mb__applied s = site_of(ctx, id);
        ctx->site = s.site;
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

/* Whether v is a tangent for x: x's shape, or that after a first axis, whose size is then *lead; it is -1 for
 * the first x. */
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

static mb_status jvp(const char *name, bool batch, const mb_tensor *ys, int m, const mb_tensor *xs,
                     const mb_tensor *vs, int n, mb_tensor *ts)
{
    mb_context *ctx = m > 0 && ys ? ys[0].ctx : NULL;
    if (!ctx || m < 1 || n < (batch ? 1 : 0) || (n && (!xs || !vs)) || !ts)
        return ctx ? mb__error(ctx, MB_INVALID, "%s: got %d results and %d variables", name, m, n)
                   : MB_INVALID;
    bool ok = mb_error(ctx) == MB_OK && mb__reserve(ctx, (void **)&ctx->ids, &ctx->id_room,
                                                    (uint64_t)m + 2 * (uint64_t)n, sizeof *ctx->ids);
    uint32_t *yi = ctx->ids, *xi = yi + m, *vi = xi + n;
    const char *site_of_call = ctx->site;
    ok = ok && enter(name, ys, m, yi) &&
         (!n || (enter(name, xs, n, xi) == ctx && enter(name, vs, n, vi) == ctx));
    range r = {.low = UINT32_MAX, .high = 0, .lead = -1};
    for (int i = 0; ok && i < n; i++)
        if (!fits(mb__at(ctx, xi[i]), mb__at(ctx, vi[i]), batch, &r.lead)) {
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
    for (int i = 0; ok && i < n; i++)
        r.low = xi[i] < r.low ? xi[i] : r.low;
    for (int i = 0; ok && i < m; i++) {
        r.low = yi[i] < r.low ? yi[i] : r.low;
        r.high = yi[i] > r.high ? yi[i] : r.high;
    }
    ok = ok && range_open(ctx, &r, r.low, r.high);
    if (ok) {
        mark_dependents(ctx, &r, xi, n);
        for (int i = 0; i < m; i++)
            r.needed[yi[i] - r.low] = 1;
        for (uint32_t id = r.high;; id--) {
            const mb__node *node = mb__at(ctx, id);
            for (int i = 0; r.needed[id - r.low] && i < node->nin; i++)
                if (mb__in(ctx, node, i) >= r.low)
                    r.needed[mb__in(ctx, node, i) - r.low] = 1;
            if (id == r.low)
                break;
        }
        for (int i = 0; i < n; i++)
            if (xi[i] <= r.high)
                r.grad[xi[i] - r.low] = vi[i];
        ok = forward_sweep(ctx, &r) == MB_OK;
    }
    ctx->site = site_of_call;
    for (int i = 0; ok && i < m; i++) {
        uint32_t t = r.grad[yi[i] - r.low];
        ts[i] = t ? mb__handle(ctx, t) : zeros_like(ctx, yi[i], r.lead);
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
