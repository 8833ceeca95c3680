/* SPDX-License-Identifier: MIT
 *
 * loop.c - how a scan lies on the tape.
 *
 * A body stays where it was recorded, on the tape. It begins with node `first` and ends with a BODY node,
 * whose operands are its placeholders (carries, then slices), the carries' next values and what is stacked;
 * and where the step has an inverse, the placeholders of the carries after a step, and what they were before.
 * The SCAN node right after it has as operands the BODY, the initial carries, what is sliced, and every
 * tensor of the outside that the body reads (captures). Its results are the RESULT nodes that follow: the
 * last carries, the stacks, and a stack of each carry's values at the beginning of the steps, which reverse
 * sweeps read.
 *
 * Of the nodes in between, those that depend on a placeholder are the inside: the body is their home. Sweeps
 * and plans come to them only through the SCAN. The others are nodes of the tape around; so may be a scan
 * whole, which has an inside of its own nevertheless.
 */
#include "tensor/internal.h"

#include <stdlib.h>

/* ---- recording what was recorded as a scan ---- */

mb_tensor mb__placeholder(mb_context *ctx, mb_dtype dtype, int rank, const int64_t *dim)
{
    return mb__record(ctx, MB_OP_PLACEHOLDER, dtype, rank, dim, NULL, 0, NULL, 0);
}

static int ascending(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* A number written in the body: nothing is differentiated by it. */
static bool is_literal(const mb__node *n)
{
    return n->op == MB_OP_CONST || n->op == MB_OP_IOTA;
}

void mb__body_end(mb_context *ctx, uint32_t first, uint32_t body)
{
    mb__node *b = mb__at(ctx, body);
    const int64_t *a = mb__attrs(ctx, b); /* placeholders, of which so many come later; where these are */
    b->bind.first = first;
    for (int i = 0; i < a[0] + a[1]; i++)
        mb__at(ctx, mb__in(ctx, b, i < a[0] ? i : (int)(a[2] + i - a[0])))->home = body;
    for (uint32_t id = first; id <= body; id++) {
        mb__node *n = mb__at(ctx, id);
        for (int i = n->op == MB_OP_SCAN; i < n->nin && !n->home; i++) /* not by its body */
            if (mb__at(ctx, mb__in(ctx, n, i))->home == body)
                n->home = body;
    }
    b->home = body;
}

/* The home of the scan that a body belongs to; 0: it has none, or the scan could not be recorded. */
static uint32_t home_around(const mb_context *ctx, uint32_t body)
{
    const mb__node *scan = body + 1 < ctx->node_count ? &ctx->nodes[body + 1] : NULL;
    return scan && scan->op == MB_OP_SCAN && mb__in(ctx, scan, 0) == body ? scan->home : 0;
}

bool mb__within(const mb_context *ctx, uint32_t id, uint32_t body)
{
    uint32_t home = ctx->nodes[id].home;
    while (home && home != body)
        home = home_around(ctx, home);
    return home != 0;
}

/* Whether the scan reads node o, read by its inside, from outside. */
static bool is_capture(mb_context *ctx, uint32_t first, uint32_t body, uint32_t o)
{
    return !mb__within(ctx, o, body) && (o < first || !is_literal(mb__at(ctx, o)));
}

/* Lists, ascending, what nodes of the inside read that is not of it, in temporary memory; NULL: error set. */
static uint32_t *captures(mb_context *ctx, uint32_t first, uint32_t body, uint32_t *count)
{
    uint32_t reads = 0, kept = 0, *list = NULL;
    for (int pass = 0; pass < 2; pass++) {
        if (pass && !(list = mb__temporary(ctx, (reads + 1) * sizeof *list)))
            return NULL;
        reads = 0;
        for (uint32_t id = first; id <= body; id++) {
            const mb__node *n = mb__at(ctx, id);
            bool inside = !n->dead && mb__within(ctx, id, body);
            for (int i = 0; inside && i < n->nin; i++)
                if (is_capture(ctx, first, body, mb__in(ctx, n, i))) {
                    if (list)
                        list[reads] = mb__in(ctx, n, i);
                    reads++;
                }
        }
    }
    qsort(list, reads, sizeof *list, ascending);
    for (uint32_t i = 0; i < reads; i++)
        if (!kept || list[kept - 1] != list[i])
            list[kept++] = list[i];
    *count = kept;
    return list;
}

static uint32_t record_body(mb_context *ctx, const mb__loop_parts *p, mb_tensor *in)
{
    int n = 0;
    for (int i = 0; i < p->carries; i++)
        in[n++] = mb__handle(ctx, p->carry[i].at);
    for (int i = 0; i < p->slices; i++)
        in[n++] = mb__handle(ctx, p->slice[i].at);
    int placeholders = n;
    for (int i = 0; i < p->carries; i++)
        in[n++] = mb__handle(ctx, p->next[i]);
    for (int i = 0; i < p->stacks; i++)
        in[n++] = mb__handle(ctx, p->stack[i]);
    for (int i = 0; i < p->carries; i++)
        in[n++] = mb__handle(ctx, p->carry[i].at);
    const int64_t attrs[] = {placeholders, p->inverse ? p->carries : 0, n};
    for (int i = 0; p->inverse && i < 2 * p->carries; i++)
        in[n++] = mb__handle(ctx, i < p->carries ? p->inverse[i].at : p->inverse[i - p->carries].from);
    uint32_t body = mb__record(ctx, MB_OP_BODY, MB_FLOAT32, 0, NULL, in, n, attrs, 3).id;
    if (body)
        mb__body_end(ctx, p->first, body);
    return body;
}

static bool record_result(mb_context *ctx, uint32_t scan, int64_t index, uint32_t like, int64_t steps)
{
    mb__node n = *mb__at(ctx, like);
    int64_t dim[MB_MAX_RANK + 1] = {steps};
    int extra = steps >= 0;
    if (n.rank + extra > MB_MAX_RANK) {
        char text[128];
        mb__error(ctx, MB_INVALID,
                  "scan: %s of each step has %d axes; a stack has one more, and %d is the most",
                  mb__shape_text(text, sizeof text, n.dim, n.rank), n.rank, MB_MAX_RANK);
        return false;
    }
    memcpy(dim + extra, n.dim, (size_t)n.rank * sizeof *dim);
    mb_tensor s = mb__handle(ctx, scan);
    return mb__record(ctx, MB_OP_RESULT, (mb_dtype)n.dtype, n.rank + extra, dim, &s, 1, &index, 1).id != 0;
}

static uint32_t record_scan(mb_context *ctx, const mb__loop_parts *p, uint32_t body, const uint32_t *read,
                            uint32_t reads)
{
    uint32_t n = 0, most = 1 + (uint32_t)(p->carries + p->slices) + reads;
    if (most > UINT16_MAX) {
        mb__error(ctx, MB_INVALID, "scan: %u tensors go in; %d is the most", most, UINT16_MAX);
        return 0;
    }
    MB_TEMPORARY(ctx);
    mb_tensor *in = mb__temporary(ctx, most * sizeof *in);
    if (!in)
        return 0;
    in[n++] = mb__handle(ctx, body);
    for (int i = 0; i < p->carries; i++)
        in[n++] = mb__handle(ctx, p->carry[i].from);
    for (int i = 0; i < p->slices; i++)
        in[n++] = mb__handle(ctx, p->slice[i].from);
    for (uint32_t i = 0; i < reads; i++)
        in[n++] = mb__handle(ctx, read[i]);
    const int64_t attrs[] = {p->steps, p->backwards, p->carries, p->slices, p->stacks + p->carries,
                             p->until, p->idle};
    uint32_t scan = mb__record(ctx, MB_OP_SCAN, MB_FLOAT32, 0, NULL, in, (int)n, attrs, 7).id;
    int64_t index = 0;
    bool ok = scan != 0;
    for (int i = 0; i < p->carries && ok; i++)
        ok = record_result(ctx, scan, index++, p->carry[i].at, -1);
    for (int i = 0; i < p->stacks && ok; i++)
        ok = record_result(ctx, scan, index++, p->stack[i], p->steps);
    for (int i = 0; i < p->carries && ok; i++)
        ok = record_result(ctx, scan, index++, p->carry[i].at, p->steps);
    return ok ? scan : 0;
}

/* What a scan begins with and slices is there before it. */
static bool starts_outside(mb_context *ctx, const mb__loop_parts *p, uint32_t body)
{
    for (int i = 0; i < p->carries + p->slices; i++) {
        const mb__bound *b = i < p->carries ? &p->carry[i] : &p->slice[i - p->carries];
        if (!mb__within(ctx, b->from, body))
            continue;
        mb__error(ctx, MB_INVALID, "scan: what is %s at %s depends on the step itself",
                  i < p->carries ? "carried" : "sliced", mb__at(ctx, b->at)->site);
        return false;
    }
    return true;
}

uint32_t mb__scan_record(mb_context *ctx, const mb__loop_parts *p)
{
    size_t operands = (size_t)((p->inverse ? 5 : 3) * p->carries + p->slices + p->stacks) + 1;
    if (operands > UINT16_MAX) {
        mb__error(ctx, MB_INVALID, "scan: %zu carries, slices and stacks; %d is the most", operands,
                  UINT16_MAX);
        return 0;
    }
    MB_TEMPORARY(ctx);
    mb_tensor *in = mb__temporary(ctx, operands * sizeof *in);
    uint32_t body = in ? record_body(ctx, p, in) : 0, count = 0;
    uint32_t *read = body && starts_outside(ctx, p, body) ? captures(ctx, p->first, body, &count) : NULL;
    return read ? record_scan(ctx, p, body, read, count) : 0;
}

mb__scan_view mb__scan_of(const mb_context *ctx, uint32_t id)
{
    const mb__node *n = &ctx->nodes[id];
    const int64_t *a = mb__attrs(ctx, n);
    mb__scan_view s = {.steps = a[0],
                       .backwards = a[1] != 0,
                       .carries = (int)a[2],
                       .slices = (int)a[3],
                       .stacks = (int)a[4],
                       .until = (int)a[5],
                       .idle = (int)a[6],
                       .body = mb__in(ctx, n, 0)};
    s.captures = n->nin - 1 - s.carries - s.slices;
    s.first = ctx->nodes[s.body].bind.first;
    s.reversible = mb__attrs(ctx, &ctx->nodes[s.body])[1] > 0;
    return s;
}

uint32_t mb__scan_after(const mb_context *ctx, const mb__scan_view *s, int i)
{
    return mb__in(ctx, &ctx->nodes[s->body], 2 * s->carries + s->slices + s->stacks + i);
}
uint32_t mb__scan_before(const mb_context *ctx, const mb__scan_view *s, int i)
{
    return mb__scan_after(ctx, s, s->carries + i);
}

int mb__followers(const mb_context *ctx, uint32_t id)
{
    const mb__node *n = &ctx->nodes[id];
    if (n->op == MB_OP_CUSTOM)
        return (int)mb__attrs(ctx, n)[0];
    if (n->op != MB_OP_SCAN)
        return 0;
    mb__scan_view s = mb__scan_of(ctx, id);
    return mb__scan_results(&s);
}
