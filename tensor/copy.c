/* SPDX-License-Identifier: MIT
 * copy.c - nodes recorded again, and the inside of a scan with them. */
#include "tensor/copy.h"

#include <stdlib.h>

uint32_t mb__record_again(mb_context *ctx, uint32_t id, const uint32_t *in)
{
    mb__node n = *mb__at(ctx, id); /* copies: recording moves the tape */
    mb_tensor few[8], *handles = few;
    int64_t few_attrs[80], *attrs = few_attrs;
    MB_TEMPORARY(ctx);
    if ((n.nin > 8 && !(handles = mb__temporary(ctx, n.nin * sizeof *handles))) ||
        (n.nattr > 80 && !(attrs = mb__temporary(ctx, n.nattr * sizeof *attrs))))
        return 0;
    for (int i = 0; i < n.nin; i++)
        handles[i] = mb__handle(ctx, in[i]);
    memcpy(attrs, mb__attrs(ctx, &n), n.nattr * sizeof *attrs);
    ctx->site = n.site;
    ctx->call = n.call;
    mb_tensor t = mb__record(ctx, n.op, (mb_dtype)n.dtype, n.rank, n.dim, handles, n.nin, attrs, n.nattr);
    if (t.id && mb__has_key(n.op))
        mb__at(ctx, t.id)->bind = n.bind;
    return t.id;
}

/* The copy of what depends on a placeholder that nothing stands for. */
#define LEFT_OUT UINT32_MAX

typedef struct copying {
    mb_context *ctx;
    uint32_t scan;
    mb__scan_view view;
    const mb__inside *to;
    struct capture *captures;
    uint32_t *map, *begins; /* by id - first: the copy; where the copies had come to */
    int32_t region;         /* the next checkpoint of the inside, in the order of their ends */
    int32_t region_end;
} copying;

typedef struct capture {
    uint32_t id;
    int index;
} capture;

static int by_id(const void *a, const void *b)
{
    const capture *x = a, *y = b;
    return x->id != y->id ? (x->id > y->id) - (x->id < y->id) : x->index - y->index;
}

/* The captures by node: in a copy of a scan they are in any order. */
static bool sort_captures(copying *c)
{
    int base = 1 + c->view.carries + c->view.slices;
    c->captures = mb__temporary(c->ctx, ((size_t)c->view.captures + 1) * sizeof *c->captures);
    for (int i = 0; c->captures && i < c->view.captures; i++)
        c->captures[i] = (capture){mb__in(c->ctx, mb__at(c->ctx, c->scan), base + i), i};
    if (c->captures && c->view.captures > 1)
        qsort(c->captures, (size_t)c->view.captures, sizeof *c->captures, by_id);
    return c->captures != NULL;
}

/* Which capture of the scan a node is; -1: none. */
static int capture_of(const copying *c, uint32_t id)
{
    int low = 0, high = c->view.captures;
    while (low < high) {
        int mid = (low + high) / 2;
        if (c->captures[mid].id < id)
            low = mid + 1;
        else
            high = mid;
    }
    return low < c->view.captures && c->captures[low].id == id ? c->captures[low].index : -1;
}

static uint32_t operand(const copying *c, uint32_t id)
{
    if (mb__within(c->ctx, id, c->view.body))
        return c->map[id - c->view.first];
    int k = capture_of(c, id);
    return k >= 0 ? c->to->captures[k] : id; /* else a literal */
}

static bool copy_node(copying *c, uint32_t id)
{
    mb_context *ctx = c->ctx;
    mb__node n = *mb__at(ctx, id);
    uint32_t few[8], *in = few;
    MB_TEMPORARY(ctx);
    if (n.nin > 8 && !(in = mb__temporary(ctx, n.nin * sizeof *in)))
        return false;
    for (int i = 0; i < n.nin; i++)
        in[i] = operand(c, mb__in(ctx, &n, i));
    uint32_t copy = mb__record_again(ctx, id, in);
    c->map[id - c->view.first] = copy;
    if (!copy)
        return false;
    mb__at(ctx, copy)->through = n.through;
    if (n.op == MB_OP_BODY)
        mb__body_end(ctx, c->begins[n.bind.first - c->view.first], copy);
    return true;
}

/* Checkpoints that end with this node have their copies, too. */
static bool copy_regions(copying *c, uint32_t id)
{
    mb_context *ctx = c->ctx;
    for (; c->region < c->region_end && ctx->regions[c->region].last <= id; c->region++) {
        mb__region r = ctx->regions[c->region];
        if (r.first >= c->view.first && r.last == id &&
            mb__region_add(ctx, c->begins[r.first - c->view.first], r.products) != MB_OK)
            return false;
    }
    return true;
}

/* Whether the node is of a scan in the body, that is left out or whose body is. */
static bool is_of_left_out(const copying *c, uint32_t id)
{
    const mb_context *ctx = c->ctx;
    for (uint32_t home = ctx->nodes[id].home; home && home != c->view.body; home = ctx->nodes[home + 1].home)
        if (c->map[home - c->view.first] == LEFT_OUT || c->map[home + 1 - c->view.first] == LEFT_OUT)
            return true;
    return false;
}

/* Marks what depends on a placeholder that nothing stands for; of scans that do, all. */
static void leave_out(const copying *c)
{
    mb_context *ctx = c->ctx;
    for (int whole = 0; whole < 2; whole++)
        for (uint32_t id = c->view.first; id < c->view.body; id++) {
            const mb__node *n = mb__at(ctx, id);
            uint32_t *map = &c->map[id - c->view.first];
            if (*map || n->dead || !mb__within(ctx, id, c->view.body))
                continue;
            if (whole && is_of_left_out(c, id))
                *map = LEFT_OUT;
            for (int i = 0; !whole && i < n->nin; i++)
                if (operand(c, mb__in(ctx, n, i)) == LEFT_OUT)
                    *map = LEFT_OUT;
        }
}

static bool copy_all(copying *c)
{
    mb_context *ctx = c->ctx;
    const mb__node *body = mb__at(ctx, c->view.body);
    const mb__inside *to = c->to;
    int carries = c->view.carries, placeholders = carries + c->view.slices,
        results = carries + c->view.stacks;
    for (int i = 0; i < placeholders; i++)
        c->map[mb__in(ctx, body, i) - c->view.first] = to->placeholders[i] ? to->placeholders[i] : LEFT_OUT;
    for (int i = 0; i < carries && c->view.reversible; i++)
        c->map[mb__scan_after(ctx, &c->view, i) - c->view.first] = to->afters ? to->afters[i] : LEFT_OUT;
    if (c->view.reversible)
        leave_out(c);
    c->region_end = (int32_t)ctx->region_count;
    while (c->region < c->region_end && ctx->regions[c->region].last < c->view.first)
        c->region++;
    for (uint32_t id = c->view.first; id < c->view.body; id++) {
        c->begins[id - c->view.first] = ctx->node_count;
        if (mb__within(ctx, id, c->view.body) && !mb__at(ctx, id)->dead && !c->map[id - c->view.first] &&
            !copy_node(c, id))
            return false;
        if (!copy_regions(c, id))
            return false;
    }
    for (int i = 0; i < results && to->results; i++)
        to->results[i] = operand(c, mb__in(ctx, mb__at(ctx, c->view.body), placeholders + i));
    for (int i = 0; i < carries && to->afters; i++)
        to->befores[i] = operand(c, mb__scan_before(ctx, &c->view, i));
    return true;
}

bool mb__copy_inside(mb_context *ctx, uint32_t scan, const mb__inside *to)
{
    copying c = {.ctx = ctx, .scan = scan, .view = mb__scan_of(ctx, scan), .to = to};
    size_t count = (size_t)(c.view.body - c.view.first) + 1;
    MB_TEMPORARY(ctx);
    c.map = mb__temporary(ctx, 2 * count * sizeof *c.map);
    if (!c.map)
        return false;
    c.begins = c.map + count;
    const char *site = ctx->site, *call = ctx->call;
    bool ok = sort_captures(&c) && copy_all(&c);
    ctx->site = site;
    ctx->call = call;
    return ok;
}
