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

/* ---- the list ---- */

/* The first region that ends at id or later. */
static uint32_t first_ending(const mb_context *ctx, uint32_t id)
{
    uint32_t low = 0, high = ctx->region_count;
    while (low < high) {
        uint32_t mid = (low + high) / 2;
        if (ctx->regions[mid].last < id)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

int32_t mb__region_around(const mb_context *ctx, uint32_t id, uint32_t from)
{
    /* The innermost one is the first in the list that ends at id or later and begins before it; the others
     * are around that. */
    uint32_t i = first_ending(ctx, id);
    while (i < ctx->region_count &&
           ctx->regions[i].first > id) /* a later one; a region around both may follow */
        i = ctx->regions[i].around >= 0 ? (uint32_t)ctx->regions[i].around : ctx->region_count;
    int32_t found = -1;
    for (int32_t r = i < ctx->region_count ? (int32_t)i : -1; r >= 0; r = ctx->regions[r].around)
        if (ctx->regions[r].first >= from)
            found = r;
    return found;
}

mb_status mb__region_add(mb_context *ctx, uint32_t first, bool products)
{
    if (ctx->node_count <= first)
        return MB_OK; /* nothing was recorded */
    if (!mb__reserve(ctx, (void **)&ctx->regions, &ctx->region_room, (uint64_t)ctx->region_count + 1,
                     sizeof *ctx->regions))
        return ctx->status;
    int32_t self = (int32_t)ctx->region_count++;
    ctx->regions[self] = (mb__region){first, ctx->node_count - 1, -1, products};
    for (int32_t i = self - 1; i >= 0 && ctx->regions[i].last >= first; i--)
        if (ctx->regions[i].around < 0)
            ctx->regions[i].around = self;
    return MB_OK;
}

/* ---- begin and end ---- */

static mb_checkpoint begin(mb_context *ctx, bool products)
{
    mb_checkpoint c = {ctx, UINT32_MAX, products}; /* after an error: empty */
    if (mb__enter_context("checkpoint_begin", ctx))
        c.first = ctx->node_count;
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

mb_status mb_checkpoint_end_at(const char *site, mb_checkpoint c)
{
    mb_context *ctx = c.ctx;
    MB_SITE(ctx, site);
    if (!mb__enter_context("checkpoint_end", ctx))
        return mb_error(ctx);
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

/* Whether copies read the node itself: it is from outside the region, or a leaf. */
static bool stays(const copying *c, uint32_t id)
{
    return id < c->region->first || id > c->region->last || mb__is_kind(mb__at(c->ctx, id)->op, MB_KIND_LEAF);
}

static bool is_kept(const copying *c, const mb__node *n)
{
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
    mb_tensor few[8], *in = few;
    if (n.nin > 8 && !(in = mb__alloc(ctx, n.nin * sizeof *in)))
        return false;
    ctx->site = n.site;
    ctx->call = n.call;
    bool ok = true;
    for (int i = 0; i < n.nin && ok; i++) {
        uint32_t o = operand(c, mb__in(ctx, &n, i));
        in[i] = mb__handle(ctx, o);
        ok = o != 0;
    }
    int64_t attrs[1 + 3 * 24];
    memcpy(attrs, mb__attrs(ctx, &n), n.nattr * sizeof *attrs);
    mb_tensor t = ok ? mb__record(ctx, n.op, (mb_dtype)n.dtype, n.rank, n.dim, in, n.nin, attrs, n.nattr)
                     : mb__poison(ctx);
    if (in != few)
        mb__free(ctx, in, n.nin * sizeof *in);
    ctx->copies[id] = t.id;
    if (!t.id || !is_kept(c, &n))
        return t.id != 0;
    mb__at(ctx, t.id)->through = true; /* barrier() is the next node: mb__is_stand_in */
    return barrier(c, id, t.id) != 0;
}

/* Copies a range. Stores how far the tape had grown at each node: the copies of inner checkpoints begin
 * there. */
static void copy_range(const copying *c, int32_t index, uint32_t last, const uint8_t *needed, uint32_t low)
{
    mb_context *ctx = c->ctx;
    uint32_t first = c->region->first;
    bool ok = mb__reserve(ctx, (void **)&ctx->begins, &ctx->begin_room, (uint64_t)last - first + 1,
                          sizeof *ctx->begins);
    int32_t next = index; /* index of an inner region, sorted by end */
    while (next > 0 && ctx->regions[next - 1].last >= first)
        next--;
    for (uint32_t id = first; id <= last && ok; id++) {
        ctx->begins[id - first] = ctx->node_count;
        if (needed[id - low] && !mb__at(ctx, id)->dead && !stays(c, id))
            ok = copy_node(c, id);
        for (; ok && next < index && ctx->regions[next].last == id; next++)
            ok = mb__region_add(ctx, ctx->begins[ctx->regions[next].first - first],
                                ctx->regions[next].products) == MB_OK;
    }
}

mb_status mb__region_copy(mb_context *ctx, int32_t index, uint32_t last, const uint8_t *needed, uint32_t low,
                          uint32_t cotangent, uint32_t *start)
{
    if (!mb__reserve(ctx, (void **)&ctx->copies, &ctx->copy_room, ctx->node_count, sizeof *ctx->copies))
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
