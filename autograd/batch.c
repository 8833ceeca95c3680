/* SPDX-License-Identifier: MIT
 *
 * batch.c - what was recorded for one example, recorded again for many, with ordinary ops.
 *
 * First it is found out which nodes come to depend on an example: those are batched, with an axis of K in
 * front. In a scan that goes around: a carry is batched if what flows into it is. Then the nodes are gone
 * through in order: an op is recorded by its batching rule; a scan with all of its body; checkpoints are
 * marked on the copies. A node that is not batched itself, but reads copies, is copied as it is.
 */
#include "autograd/batch.h"
#include "autograd/custom_rules.h"
#include "tensor/copy.h"

enum {
    COPIED = 1,  /* depends on a placeholder: another node takes its place */
    BATCHED = 2, /* that has a value for each example */
    NEEDED = 4,
};

typedef struct batching {
    mb_context *ctx;
    int64_t K;
    uint32_t first, end;    /* the nodes [first, end) */
    uint32_t *map, *begins; /* by id - first: the copy; where the copies had come to */
    uint8_t *flags;         /* by id - first */
    uint32_t region, region_end;
} batching;

static bool within(const batching *b, uint32_t id)
{
    return id >= b->first && id < b->end;
}
static uint8_t flags_of(const batching *b, uint32_t id)
{
    return within(b, id) ? b->flags[id - b->first] : 0;
}
static mb__operand operand_of(const batching *b, uint32_t id)
{
    uint8_t flags = flags_of(b, id);
    return (mb__operand){mb__handle(b->ctx, flags & COPIED ? b->map[id - b->first] : id), flags & BATCHED};
}

/* ---- what depends on an example ---- */

/* A scan that could not be recorded, for an error, has left its body behind. */
static bool has_scan(const batching *b, uint32_t body)
{
    const mb__node *n = within(b, body + 1) ? mb__at(b->ctx, body + 1) : NULL;
    return n && n->op == MB_OP_SCAN && mb__in(b->ctx, n, 0) == body;
}

/* Of a scan's placeholder: what it begins with or is a slice of, and what flows into it. */
static uint8_t placeholder_flags(const batching *b, const mb__node *n, uint32_t id)
{
    mb_context *ctx = b->ctx;
    uint32_t body = n->home, scan = body + 1;
    if (!within(b, body) || !has_scan(b, body))
        return 0;
    const mb__scan_view view = mb__scan_of(ctx, scan);
    const mb__node *s = mb__at(ctx, scan), *e = mb__at(ctx, body);
    int k = 0, own = view.carries + view.slices;
    while (mb__in(ctx, e, k) != id)
        k++;
    k -= k < own ? 0 : own + view.carries + view.stacks; /* of a carry after a step: as that carry */
    uint8_t flags = flags_of(b, mb__in(ctx, s, 1 + k));
    if (k < view.carries)
        flags |= flags_of(b, mb__in(ctx, e, view.carries + view.slices + k));
    return (flags & BATCHED) | (flags_of(b, scan) & COPIED);
}

/* Last carries are batched as the carries are; stacks, as what is stacked. */
static uint8_t result_flags(const batching *b, const mb__node *n)
{
    mb_context *ctx = b->ctx;
    uint32_t scan = mb__in(ctx, n, 0);
    if (!within(b, scan))
        return 0;
    const mb__scan_view view = mb__scan_of(ctx, scan);
    int k = (int)mb__attrs(ctx, n)[0];
    int at = k < view.carries ? k : view.carries + view.slices + k;
    uint8_t of = flags_of(b, mb__in(ctx, mb__at(ctx, view.body), at));
    return (of & BATCHED) | (flags_of(b, scan) & COPIED);
}

static uint8_t flags_by_operands(const batching *b, const mb__node *n)
{
    uint8_t flags = 0;
    /* For operand 1, whose value does not matter. A rule's results have examples where the rule has. */
    bool waits = mb__has_flag(n->op, MB_FLAG_ONE_OPERAND) && n->op != MB_OP_RULED;
    for (int i = n->op == MB_OP_SCAN; i < n->nin; i++) {
        uint8_t of = flags_of(b, mb__in(b->ctx, n, i));
        flags |= of & (n->op == MB_OP_SCAN || (waits && i == 1) ? COPIED : COPIED | BATCHED);
    }
    return flags;
}

/* Once over all nodes; whether anything was found. */
static bool spread(const batching *b)
{
    bool found = false;
    for (uint32_t id = b->first; id < b->end; id++) {
        const mb__node *n = mb__at(b->ctx, id);
        uint8_t *flags = &b->flags[id - b->first], before = *flags;
        if (n->dead)
            continue;
        if (n->op == MB_OP_PLACEHOLDER)
            *flags |= placeholder_flags(b, n, id);
        else if (n->op == MB_OP_BODY && has_scan(b, id))
            *flags |= flags_of(b, id + 1) & COPIED;
        else if (n->op == MB_OP_RESULT)
            *flags |= result_flags(b, n);
        else
            *flags |= flags_by_operands(b, n);
        found |= *flags != before;
    }
    return found;
}

static void mark_needed(const batching *b, const mb__bounds *out)
{
    mb_context *ctx = b->ctx;
    for (uint32_t i = 0; i < out->count; i++)
        if (within(b, out->list[i].from))
            b->flags[out->list[i].from - b->first] |= NEEDED;
    for (uint32_t id = b->end; id-- > b->first;) {
        const mb__node *n = mb__at(ctx, id);
        for (int i = 0; flags_of(b, id) & NEEDED && i < n->nin; i++)
            if (within(b, mb__in(ctx, n, i)))
                b->flags[mb__in(ctx, n, i) - b->first] |= NEEDED;
    }
}

/* ---- ops ---- */

static uint32_t record_batched(const batching *b, uint32_t id, const mb__operand *in)
{
    mb_context *ctx = b->ctx;
    mb__applied s = {.ctx = ctx, .node = *mb__at(ctx, id), .out = mb__handle(ctx, id)};
    s.site = s.node.site;
    for (int i = 0; i < s.node.nin && i < 3; i++)
        s.in[i] = mb__handle(ctx, mb__in(ctx, &s.node, i));
    const mb__rule *rule = mb__rule_of(s.node.op);
    if (!rule->batch)
        mb__error(ctx, MB_NO_RULE, "%s: no batching rule", mb__ops[s.node.op].name);
    else if (s.node.rank == MB_MAX_RANK)
        mb__no_axis_left(ctx, &s.node);
    return mb_error(ctx) == MB_OK ? rule->batch(&s, in, b->K).id : 0;
}

static uint32_t record_alike(const batching *b, uint32_t id, const mb__operand *in, int nin)
{
    uint32_t *ids = mb__temporary(b->ctx, (size_t)nin * sizeof *ids);
    for (int i = 0; ids && i < nin; i++)
        ids[i] = in[i].t.id;
    return ids ? mb__record_again(b->ctx, id, ids) : 0;
}

static bool copy_op(const batching *b, uint32_t id)
{
    mb_context *ctx = b->ctx;
    MB_TEMPORARY(ctx);
    mb__node n = *mb__at(ctx, id); /* a copy: recording moves the tape */
    mb__operand *in = mb__temporary(ctx, n.nin * sizeof *in);
    if (!in)
        return false;
    for (int i = 0; i < n.nin; i++)
        in[i] = operand_of(b, mb__in(ctx, &n, i));
    uint32_t start = ctx->node_count,
             copy = flags_of(b, id) & BATCHED ? record_batched(b, id, in) : record_alike(b, id, in, n.nin);
    if (copy >= start)
        mb__at(ctx, copy)->through = n.through;
    b->map[id - b->first] = copy;
    return copy && mb_error(ctx) == MB_OK;
}

/* ---- scans ---- */

/* With the first two axes exchanged: steps and examples. */
static uint32_t exchanged(mb_tensor t)
{
    return mb__move_axis(t, 1, 0).id;
}

static bool copy_placeholder(const batching *b, uint32_t id)
{
    mb__node n = *mb__at(b->ctx, id);
    bool batched = flags_of(b, id) & BATCHED;
    if (batched && n.rank == MB_MAX_RANK) {
        mb__no_axis_left(b->ctx, &n);
        return false;
    }
    mb_shape shape = mb__batched_shape(&n, b->K);
    mb_tensor t = mb__placeholder(b->ctx, (mb_dtype)n.dtype, n.rank + batched, shape.dim + !batched);
    b->map[id - b->first] = t.id;
    return t.id != 0;
}

/* What is there of operand `id` for a place that is batched or not. 0: error set. */
static uint32_t fitting(const batching *b, uint32_t id, bool batched)
{
    mb__operand o = operand_of(b, id);
    return batched ? mb__batched(o, b->K).id : o.t.id;
}

/* The lists of a scan that is recorded again: placeholders with what they begin with, next values, stacks. */
static bool list_parts(const batching *b, uint32_t body, const mb__scan_view *view, mb__bound *bounds,
                       uint32_t *ends, int own_stacks)
{
    mb_context *ctx = b->ctx;
    int placeholders = view->carries + view->slices;
    for (int i = 0; i < placeholders; i++) {
        uint32_t at = mb__in(ctx, mb__at(ctx, body), i), from = mb__in(ctx, mb__at(ctx, body + 1), 1 + i);
        bool batched = flags_of(b, at) & BATCHED;
        from = fitting(b, from, batched);
        if (from && batched && i >= view->carries)
            from = exchanged(mb__handle(ctx, from));
        bounds[i] = (mb__bound){NULL, b->map[at - b->first], from};
        if (!from)
            return false;
    }
    for (int i = 0; i < view->carries + own_stacks; i++) {
        bool batched = i < view->carries && flags_of(b, mb__in(ctx, mb__at(ctx, body), i)) & BATCHED;
        uint32_t end = mb__in(ctx, mb__at(ctx, body), placeholders + i);
        ends[i] = i < view->carries ? fitting(b, end, batched) : operand_of(b, end).t.id;
        if (!ends[i])
            return false;
    }
    return true;
}

/* The inverse of the step, of each carry; false: there is none, or it has examples where its carry has none.
 */
static bool list_inverse(const batching *b, const mb__scan_view *view, mb__bound *inverse)
{
    for (int i = 0; i < view->carries && view->reversible; i++) {
        uint32_t after = mb__scan_after(b->ctx, view, i), before = mb__scan_before(b->ctx, view, i);
        bool batched = flags_of(b, after) & BATCHED;
        if (flags_of(b, before) & BATCHED && !batched)
            return false;
        inverse[i] = (mb__bound){NULL, b->map[after - b->first], fitting(b, before, batched)};
        if (!inverse[i].at || !inverse[i].from)
            return false;
    }
    return view->reversible;
}

/* Examples end at steps of their own; then the loop is not left before the last of them. */
static int until_of(const batching *b, uint32_t body, const mb__scan_view *view)
{
    if (!view->until)
        return 0;
    return flags_of(b, mb__in(b->ctx, mb__at(b->ctx, body), view->until - 1)) & BATCHED ? 0 : view->until;
}

/* Nor are steps left out then. */
static int idle_of(const batching *b, uint32_t body, const mb__scan_view *view)
{
    uint32_t at = view->idle ? mb__in(b->ctx, mb__at(b->ctx, body), view->carries + view->idle - 1) : 0;
    return at && !(flags_of(b, at) & BATCHED) ? view->idle : 0;
}

/* The scan with its results, where its body ends. */
static bool copy_scan(const batching *b, uint32_t body)
{
    mb_context *ctx = b->ctx;
    const mb__scan_view view = mb__scan_of(ctx, body + 1);
    int own_stacks = view.stacks - view.carries;
    size_t bounds = (size_t)(2 * view.carries + view.slices) + 1,
           ends = (size_t)(view.carries + own_stacks) + 1;
    MB_TEMPORARY(ctx);
    mb__bound *bound = mb__temporary(ctx, bounds * sizeof *bound);
    uint32_t *end = mb__temporary(ctx, ends * sizeof *end), first = mb__at(ctx, body)->bind.first;
    if (!bound || !end)
        return false;
    mb__bound *inverse = bound + view.carries + view.slices;
    const mb__loop_parts parts = {.steps = view.steps,
                                  .backwards = view.backwards,
                                  .first = b->begins[first - b->first],
                                  .carries = view.carries,
                                  .slices = view.slices,
                                  .stacks = own_stacks,
                                  .carry = bound,
                                  .slice = bound + view.carries,
                                  .next = end,
                                  .stack = end + view.carries,
                                  .inverse = list_inverse(b, &view, inverse) ? inverse : NULL,
                                  .until = until_of(b, body, &view),
                                  .idle = idle_of(b, body, &view)};
    bool ok = list_parts(b, body, &view, bound, end, own_stacks);
    uint32_t scan = ok ? mb__scan_record(ctx, &parts) : 0;
    b->map[body + 1 - b->first] = scan;
    return scan != 0;
}

static bool copy_result(const batching *b, uint32_t id)
{
    mb_context *ctx = b->ctx;
    const mb__node *n = mb__at(ctx, id);
    uint32_t scan = mb__in(ctx, n, 0), copy = b->map[scan - b->first] + 1;
    int k = (int)mb__attrs(ctx, n)[0];
    copy += (uint32_t)k;
    if (k >= mb__scan_of(ctx, scan).carries && flags_of(b, id) & BATCHED)
        copy = exchanged(mb__handle(ctx, copy));
    b->map[id - b->first] = copy;
    return copy != 0;
}

/* A rule of the user's, with its results. */
static bool copy_custom(const batching *b, uint32_t id)
{
    mb_context *ctx = b->ctx;
    MB_TEMPORARY(ctx);
    mb__node n = *mb__at(ctx, id);
    mb__operand *in = mb__temporary(ctx, n.nin * sizeof *in);
    if (!in)
        return false;
    for (int i = 0; i < n.nin; i++)
        in[i] = operand_of(b, mb__in(ctx, &n, i));
    uint32_t copy = mb__custom_batched(ctx, id, in, flags_of(b, id) & BATCHED ? b->K : -1);
    for (uint32_t i = 0; copy && i <= (uint32_t)mb__followers(ctx, id); i++)
        if (within(b, id + i))
            b->map[id + i - b->first] = copy + i;
    return copy != 0;
}

/* ---- all of it ---- */

static bool copy_node(const batching *b, uint32_t id)
{
    mb_context *ctx = b->ctx;
    const mb__node *n = mb__at(ctx, id);
    ctx->site = n->site;
    ctx->call = n->call;
    switch (n->op) {
    case MB_OP_PLACEHOLDER:
        return copy_placeholder(b, id);
    case MB_OP_BODY:
        return copy_scan(b, id);
    case MB_OP_SCAN:
        return true; /* done with its body */
    case MB_OP_RESULT:
        return copy_result(b, id);
    case MB_OP_CUSTOM:
        return copy_custom(b, id);
    default:
        return copy_op(b, id);
    }
}

/* Checkpoints that end with this node have their copies, too. */
static bool copy_regions(batching *b, uint32_t id)
{
    mb_context *ctx = b->ctx;
    for (; b->region < b->region_end && ctx->regions[b->region].last <= id; b->region++) {
        mb__region r = ctx->regions[b->region];
        if (r.first >= b->first && r.last == id &&
            mb__region_add(ctx, b->begins[r.first - b->first], r.products) != MB_OK)
            return false;
    }
    return true;
}

static bool copy_all(batching *b)
{
    mb_context *ctx = b->ctx;
    const char *site = ctx->site, *call = ctx->call;
    bool ok = true;
    b->region_end = ctx->region_count;
    while (b->region < b->region_end && ctx->regions[b->region].last < b->first)
        b->region++;
    for (uint32_t id = b->first; id < b->end && ok; id++) {
        uint8_t flags = flags_of(b, id);
        b->begins[id - b->first] = ctx->node_count;
        ok = !(flags & COPIED) || !(flags & NEEDED) || b->map[id - b->first] || copy_node(b, id);
        ok = ok && copy_regions(b, id);
    }
    ctx->site = site;
    ctx->call = call;
    return ok;
}

static bool operands_from_outside(const batching *b, const mb__bounds *in)
{
    for (uint32_t i = 0; i < in->count; i++)
        if (flags_of(b, in->list[i].from) & COPIED) {
            mb__error(b->ctx, MB_INVALID, "vmap_end: operand %u, taken at %s, depends on the examples itself",
                      i + 1, mb__at(b->ctx, in->list[i].at)->site);
            return false;
        }
    return true;
}

/* Of the originals nothing may be read any more. */
static void bury(const batching *b)
{
    for (uint32_t id = b->first; id < b->end; id++)
        if (flags_of(b, id) & COPIED)
            mb__at(b->ctx, id)->dead = mb__at(b->ctx, id)->mapped = true;
}

bool mb__batch(mb_context *ctx, uint32_t first, int64_t K, const mb__bounds *in, const mb__bounds *out,
               mb__operand *outs)
{
    batching b = {.ctx = ctx, .K = K, .first = first, .end = ctx->node_count};
    size_t count = b.end - first;
    MB_TEMPORARY(ctx);
    b.map = mb__temporary(ctx, count * sizeof *b.map);
    b.begins = mb__temporary(ctx, count * sizeof *b.begins);
    b.flags = mb__temporary(ctx, count);
    if (!b.map || !b.begins || !b.flags)
        return false;
    for (uint32_t i = 0; i < in->count; i++) {
        b.flags[in->list[i].at - first] = COPIED | BATCHED;
        b.map[in->list[i].at - first] = in->list[i].from;
    }
    while (spread(&b))
        ;
    mark_needed(&b, out);
    bool ok = operands_from_outside(&b, in) && copy_all(&b);
    for (uint32_t i = 0; ok && i < out->count; i++)
        outs[i] = operand_of(&b, out->list[i].from);
    bury(&b);
    return ok;
}
