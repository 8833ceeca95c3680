/* SPDX-License-Identifier: MIT
 *
 * checkpoint.c - parts of the tape that derivatives recompute instead of storing their values.
 *
 * A checkpoint is a range of nodes. When the reverse sweep comes to it, it records the range once more, and
 * differentiates these copies; so the originals' values are not read again, and a plan need not store them.
 * The copies read inputs through barriers, ops that return their operand but that planning never takes for
 * the same value: otherwise equal nodes would be merged, and the copies with their originals. The copies, and
 * what is derived from them, are a checkpoint again.
 */
#include "autograd/checkpoint.h"
#include "autograd/autograd.h"
#include "tensor/copy.h"

/* ---- begin and end ---- */

static mb_checkpoint begin(mb_context *ctx, bool products)
{
    mb_checkpoint c = {ctx, UINT32_MAX, 0, products}; /* after an error: empty */
    if (!mb__enter_context("checkpoint_begin", ctx))
        return c;
    c.first = ctx->node_count;
    c.within = ctx->bracket_count ? ctx->brackets[ctx->bracket_count - 1].serial : 0;
    return c;
}

mb_checkpoint mb_checkpoint_begin_at(const char *site, mb_context *ctx)
{
    MB_SITE(ctx, site);
    return begin(ctx, false);
}

mb_checkpoint mb_checkpoint_products_begin_at(const char *site, mb_context *ctx)
{
    MB_SITE(ctx, site);
    return begin(ctx, true);
}

/* It was begun in another scan or vmap than the one that is open now. */
static mb_status crosses_bracket(mb_context *ctx, mb_checkpoint c)
{
    uint32_t i = 0, id = c.first;
    while (i < ctx->bracket_count && ctx->brackets[i].serial != c.within)
        i++;
    if (!c.within || i < ctx->bracket_count) {
        const mb__bracket *open = &ctx->brackets[c.within ? i + 1 : 0];
        return mb__error(ctx, MB_INVALID, "checkpoint_end: the %s begun at %s is still open inside it",
                         open->kind, open->site);
    }
    while (id < ctx->node_count && (ctx->nodes[id].op != MB_OP_BODY || ctx->nodes[id].bind.first > c.first))
        id++;
    return mb__error(ctx, MB_INVALID,
                     "checkpoint_end: it was begun inside of a scan or vmap that has ended, at %s",
                     id < ctx->node_count ? ctx->nodes[id].site : "an earlier place");
}

mb_status mb_checkpoint_end_at(const char *site, mb_checkpoint c)
{
    mb_context *ctx = c.ctx;
    MB_SITE(ctx, site);
    if (!mb__enter_context("checkpoint_end", ctx))
        return mb_error(ctx);
    const mb__bracket *open = ctx->bracket_count ? &ctx->brackets[ctx->bracket_count - 1] : NULL;
    if (c.within != (open ? open->serial : 0))
        return crosses_bracket(ctx, c);
    for (uint32_t i = ctx->region_count; i-- > 0 && ctx->regions[i].last >= c.first;)
        if (ctx->regions[i].first < c.first)
            return mb__error(ctx, MB_INVALID,
                             "checkpoint_end: a checkpoint that was begun before this one has ended");
    return mb__region_add(ctx, c.first, c.products);
}

mb_tensor mb_keep_through_at(const char *site, mb_tensor x)
{
    MB_SITE(x.ctx, site);
    mb_tensor poison;
    mb_context *ctx = mb__enter("keep_through", (const mb_tensor *[]){&x}, 1, &poison);
    uint32_t id = ctx ? mb__resolve(ctx, x) : 0;
    if (!id)
        return poison;
    mb__at(ctx, id)->through = true;
    return x;
}

/* ---- copies ---- */

typedef struct copying {
    mb_context *ctx;
    const mb__region *region; /* not in the list, which may move */
    uint32_t start, cotangent;
} copying;

/* Whether copies read the node itself: it is from outside the region, or a leaf. A placeholder is copied with
 * the body of its scan. */
static bool stays(const copying *c, uint32_t id)
{
    const mb__node *n = mb__at(c->ctx, id);
    if (id < c->region->first || id > c->region->last)
        return true;
    if (n->op == MB_OP_PLACEHOLDER)
        return !n->home || n->home > c->region->last;
    return mb__is_kind(n->op, MB_KIND_LEAF);
}

/* The inside of a scan has no one value that could be kept. */
static bool is_kept(const copying *c, const mb__node *n)
{
    if (n->home)
        return false;
    return n->through || (c->region->products && mb__is_kind(n->op, MB_KIND_CONTRACT));
}

/* A barrier of node id. copy: the node that recomputes its value, or 0. Returns 0 after an error. */
static uint32_t barrier(const copying *c, uint32_t id, uint32_t copy)
{
    mb_context *ctx = c->ctx;
    mb__node n = *mb__at(ctx, id);
    mb_tensor in[3] = {mb__handle(ctx, id), mb__handle(ctx, c->cotangent), mb__handle(ctx, copy)};
    mb_tensor b = mb__record(ctx, MB_OP_BARRIER, (mb_dtype)n.dtype, n.rank, n.dim, in, copy ? 3 : 2, NULL, 0);
    return ctx->copies[id] = b.id;
}

bool mb__is_stand_in(const mb_context *ctx, uint32_t id)
{
    const mb__node *n = id < ctx->node_count ? &ctx->nodes[id] : NULL;
    return n && n->op == MB_OP_BARRIER && n->nin == 3 && mb__in(ctx, n, 2) == id - 1;
}

/* The operand of a copy, for node id as the operand of the original. 0 after an error. */
static uint32_t operand(const copying *c, uint32_t id)
{
    mb_context *ctx = c->ctx;
    if (ctx->copies[id] >= c->start)
        return ctx->copies[id];
    int op = mb__at(ctx, id)->op;
    if (mb__has_flag(op, MB_FLAG_GENERATED) && op != MB_OP_RANDOM)
        return id; /* it has no storage */
    return barrier(c, id, 0);
}

static bool copy_node(const copying *c, uint32_t id)
{
    mb_context *ctx = c->ctx;
    mb__node n = *mb__at(ctx, id); /* a copy: recording moves the tape */
    uint32_t few[8] = {0}, *in = few;
    MB_TEMPORARY(ctx);
    if (n.nin > 8 && !(in = mb__temporary(ctx, n.nin * sizeof *in)))
        return false;
    bool ok = true;
    for (int i = 0; i < n.nin && ok; i++)
        ok = (in[i] = operand(c, mb__in(ctx, &n, i))) != 0;
    uint32_t copy = ok ? mb__record_again(ctx, id, in) : 0;
    ctx->copies[id] = copy;
    if (copy && n.op == MB_OP_BODY)
        mb__body_end(ctx, ctx->begins[n.bind.first - c->region->first], copy);
    return copy != 0;
}

/* After a node's copy; where it is the next node, it is what mb__is_stand_in finds. */
static bool keep_node(const copying *c, uint32_t id)
{
    mb_context *ctx = c->ctx;
    uint32_t copy = ctx->copies[id];
    if (!is_kept(c, mb__at(ctx, id)))
        return true;
    mb__at(ctx, copy)->through = true;
    return barrier(c, id, copy) != 0;
}

/* A node; or a scan from its body's end on, or a rule, whose nodes lie one after the other: its results are
 * copied all, wanted or not, and what stands for its operands comes before. */
static bool copy_whole(const copying *c, uint32_t id)
{
    mb_context *ctx = c->ctx;
    bool body = mb__at(ctx, id)->op == MB_OP_BODY, ok = true;
    uint32_t head = id + body, last = head + (uint32_t)mb__followers(ctx, head);
    for (int i = body; head < last && i < mb__at(ctx, head)->nin && ok; i++)
        ok = operand(c, mb__in(ctx, mb__at(ctx, head), i)) != 0;
    for (uint32_t i = id; i <= last && ok; i++)
        ok = copy_node(c, i);
    for (uint32_t i = id; i <= last && ok; i++)
        ok = keep_node(c, i);
    return ok;
}

/* Copies a range. Stores how far the tape had grown at each node: the copies of inner checkpoints begin
 * there. */
static void copy_range(const copying *c, int32_t index, uint32_t last, const uint8_t *needed, uint32_t low)
{
    mb_context *ctx = c->ctx;
    uint32_t first = c->region->first;
    bool ok = mb__reserve(ctx, (void **)&ctx->begins, &ctx->begin_capacity, (uint64_t)last - first + 1,
                          sizeof *ctx->begins);
    int32_t next = index; /* index of an inner region, sorted by end */
    while (next > 0 && ctx->regions[next - 1].last >= first)
        next--;
    for (uint32_t id = first; id <= last && ok; id++) {
        ctx->begins[id - first] = ctx->node_count;
        if (needed[id - low] && !mb__at(ctx, id)->dead && !stays(c, id) && ctx->copies[id] < c->start)
            ok = copy_whole(c, id);
        for (; ok && next < index && ctx->regions[next].last == id; next++)
            ok = mb__region_add(ctx, ctx->begins[ctx->regions[next].first - first],
                                ctx->regions[next].products) == MB_OK;
    }
}

mb_status mb__region_copy(mb_context *ctx, int32_t index, uint32_t last, const uint8_t *needed, uint32_t low,
                          uint32_t cotangent, uint32_t *start)
{
    if (!mb__reserve(ctx, (void **)&ctx->copies, &ctx->copy_capacity, ctx->node_count, sizeof *ctx->copies))
        return ctx->status;
    mb__region region = ctx->regions[index];
    const copying c = {ctx, &region, ctx->node_count, cotangent};
    const char *site = ctx->site, *call = ctx->call;
    copy_range(&c, index, last, needed, low);
    ctx->site = site;
    ctx->call = call;
    *start = c.start;
    return ctx->status;
}
