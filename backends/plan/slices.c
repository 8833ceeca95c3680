/* SPDX-License-Identifier: MIT
 *
 * slices.c - a graph that runs part by part. What a training step computes of one sequence it computes of all
 * of the batch, and only sums over the batch join them. So a slice of the batch at a time is enough: what
 * lies between the inputs and those sums takes memory for a slice alone, and stays in caches. The loop over
 * slices is a scan like any other: its carries are the sums, its stacks what is wanted of the whole batch.
 *
 * What is in the loop, and what before and after it, slice_kinds.c has found out. Scans that are in the loop
 * become scans of its body.
 */
#include "backends/plan/slices.h"

enum {
    DEPTH_MOST = 64, /* of what is made again in the loop */
    NOBODYS = 0      /* a fresh node that is not read */
};

/* A tensor of which each part reads a slice. */
typedef struct slice {
    int32_t node, axis; /* of the old graph */
    int32_t from, at;   /* all of it, [parts,...], and its placeholder */
    int32_t part;       /* that in the node's shape; or made of others, without a placeholder */
} slice;

typedef struct slicer {
    mb__graph *old, fresh;
    mb__kinds kinds;
    int64_t parts;
    const int8_t *kind;    /* of each old node */
    int32_t *whole, *part; /* the fresh nodes that stand for it outside and inside of the loop; -1 */
    bool *wanted;          /* of what is made inside: outside, too */
    int32_t *carry, *next; /* of what is carried: its placeholder, and what it becomes */
    slice *slices;
    int slice_count, slice_capacity;
    int32_t numbers, number_at; /* 0, 1, ... of the parts, and its placeholder; -1 */
    const char *site;
    bool failed;
} slicer;

/* ---- where the batch is ---- */

/* Equal parts of a batch of 2 or more, as few as are enough: its least divisor that is, or all of it. */
static int64_t parts_of(int64_t batch, int64_t times)
{
    int64_t best = batch, least = times < 2 ? 2 : times;
    for (int64_t d = 1; d <= batch / d; d++)
        if (batch % d == 0) {
            int64_t other = batch / d;
            best = d >= least && d < best ? d : best;
            best = other >= least && other < best ? other : best;
        }
    return best;
}

static bool is_seed(const mb__gnode *n)
{
    return (n->op == MB_OP_BUFFER || n->op == MB_OP_VARIABLE || n->op == MB_OP_RANDOM) && n->rank > 0 &&
           n->dim[0] > 1 && mb__gcount(n) > 0;
}

/* Whether another input stands for this one, with the same first axis and as many elements at least: one of
 * each size is tried, the largest. */
static bool is_tried(const mb__graph *g, int32_t id)
{
    for (int i = 0; i < g->count; i++) {
        const mb__gnode *a = &g->nodes[i], *b = &g->nodes[id];
        if (i != id && is_seed(a) && a->dim[0] == b->dim[0] &&
            (mb__gcount(a) > mb__gcount(b) || (mb__gcount(a) == mb__gcount(b) && i < id)))
            return true;
    }
    return false;
}

/* The input whose slices most of the graph can be computed of; -1: none is worth it. */
static int32_t find_seed(slicer *s, int64_t times)
{
    double best = times == INT64_MAX ? 0 : 0.5;
    int32_t seed = -1;
    int64_t parts = 0;
    for (int i = 0; i < s->old->count; i++) {
        if (!s->kinds.live[i] || !is_seed(&s->old->nodes[i]) || is_tried(s->old, i))
            continue;
        s->kinds.parts = parts_of(s->old->nodes[i].dim[0], times);
        double share = mb__kinds_find(&s->kinds, i);
        if (share > best)
            best = share, seed = i, parts = s->kinds.parts;
    }
    s->parts = s->kinds.parts = parts;
    if (seed >= 0)
        mb__kinds_find(&s->kinds, seed);
    return seed;
}

/* ---- nodes ---- */

static void *memory(slicer *s, size_t bytes)
{
    void *p = mb__bump_get(s->fresh.bump, bytes + 1);
    if (!p)
        s->failed = true;
    return p;
}

/* A fresh node's number; where there is no memory, one that is never read. */
static int32_t made(slicer *s, int32_t id)
{
    if (id < 0)
        s->failed = true;
    return id < 0 ? 0 : id;
}

static int32_t append(slicer *s, const mb__gnode *n)
{
    return s->failed ? 0 : made(s, mb__graph_append(&s->fresh, n));
}

static int32_t make(slicer *s, int op, int dtype, int rank, const int64_t *dim, const int32_t *in, int nin,
                    const int64_t *attr, int nattr)
{
    return s->failed
               ? 0
               : made(s, mb__graph_make(&s->fresh, op, dtype, s->site, rank, dim, in, nin, attr, nattr));
}

static int32_t unary(slicer *s, int op, int32_t x, int rank, const int64_t *dim, const int64_t *attr,
                     int nattr)
{
    return s->failed ? 0 : make(s, op, s->fresh.nodes[x].dtype, rank, dim, &x, 1, attr, nattr);
}

/* ---- slices and stacks ---- */

static void cut_dims(const mb__gnode *n, int axis, int64_t parts, int64_t *dim)
{
    memcpy(dim, n->dim, sizeof n->dim);
    dim[axis] /= parts;
}

/* As many elements as before the axis, and those of a part from it on. */
static void around(const mb__gnode *n, int axis, int64_t parts, int64_t *before, int64_t *after)
{
    *before = mb__numel(n->dim, axis);
    *after = mb__numel(n->dim + axis, n->rank - axis) / parts;
}

static const int64_t exchange[3] = {1, 0, 2};

/* The node whole, x, as [parts, before, after]; a view. */
static int32_t apart(slicer *s, int32_t x, const mb__gnode *n, int axis)
{
    int64_t before, after;
    around(n, axis, s->parts, &before, &after);
    x = unary(s, MB_OP_RESHAPE, x, 3, (int64_t[]){before, s->parts, after}, NULL, 0);
    return unary(s, MB_OP_PERMUTE, x, 3, (int64_t[]){s->parts, before, after}, exchange, 3);
}

/* The other way. */
static int32_t together(slicer *s, int32_t x, const mb__gnode *n, int axis)
{
    int64_t before, after;
    around(n, axis, s->parts, &before, &after);
    x = unary(s, MB_OP_PERMUTE, x, 3, (int64_t[]){before, s->parts, after}, exchange, 3);
    return unary(s, MB_OP_RESHAPE, x, n->rank, n->dim, NULL, 0);
}

static int32_t slice_of(slicer *s, int32_t id, int axis, int depth);

/* The axis of a view's operand that its axis is of, MB_CUT_NONE where there is none. */
static int axis_below(const slicer *s, const mb__gnode *n, int axis)
{
    const mb__gnode *x = &s->old->nodes[n->in[0]];
    if (n->op == MB_OP_PERMUTE)
        return (int)n->attr[axis];
    return mb__cut_reshaped(n, x, axis, s->parts);
}

/* Whether this part of the node can be made of parts of its operands, so that there need not be all of it. */
static bool is_made_small(const slicer *s, const mb__gnode *n, int axis)
{
    return n->op == MB_OP_CONST || n->op == MB_OP_SCALAR || n->op == MB_OP_BROADCAST ||
           mb__is_elementwise(n->op) || n->op == MB_OP_PERMUTE ||
           (n->op == MB_OP_RESHAPE && axis_below(s, n, axis) >= 0);
}

static int32_t make_small(slicer *s, const mb__gnode *n, int axis, int depth)
{
    mb__gnode copy = *n;
    copy.in = memory(s, (size_t)n->nin * sizeof *copy.in);
    cut_dims(n, axis, s->parts, copy.dim);
    for (int j = 0; j < n->nin && !s->failed; j++) {
        const mb__gnode *x = &s->old->nodes[n->in[j]];
        int k = axis - (n->rank - x->rank);
        if (n->op == MB_OP_PERMUTE || n->op == MB_OP_RESHAPE)
            k = axis_below(s, n, axis);
        else if (k >= 0 && x->dim[k] != n->dim[axis])
            k = -1;
        if (k >= 0)
            copy.in[j] = slice_of(s, n->in[j], k, depth + 1);
        else
            copy.in[j] = s->part[n->in[j]] >= 0 ? s->part[n->in[j]] : s->whole[n->in[j]];
    }
    return append(s, &copy);
}

static int32_t slice_memory(slicer *s, int32_t id, int axis, slice *x)
{
    const mb__gnode *n = &s->old->nodes[id];
    int64_t before, after, dim[MB_MAX_RANK];
    around(n, axis, s->parts, &before, &after);
    cut_dims(n, axis, s->parts, dim);
    x->from = apart(s, s->whole[id], n, axis);
    x->at = make(s, MB_OP_PLACEHOLDER, n->dtype, 2, (int64_t[]){before, after}, NULL, 0, NULL, 0);
    return unary(s, MB_OP_RESHAPE, x->at, n->rank, dim, NULL, 0);
}

/* Which part this is, int32. */
static int32_t part_number(slicer *s)
{
    if (s->number_at < 0) {
        int32_t all = make(s, MB_OP_IOTA, MB_INT32, 1, &s->parts, NULL, 0, NULL, 0);
        s->numbers = unary(s, MB_OP_RESHAPE, all, 2, (int64_t[]){s->parts, 1}, NULL, 0);
        s->number_at = make(s, MB_OP_PLACEHOLDER, MB_INT32, 1, (int64_t[]){1}, NULL, 0, NULL, 0);
    }
    return unary(s, MB_OP_RESHAPE, s->number_at, 0, NULL, NULL, 0);
}

/* Draws that follow one another are made where they are read: the part's among those of all. */
static bool is_drawn(const slicer *s, const mb__gnode *n, int axis)
{
    return n->op == MB_OP_RANDOM && mb__numel(n->dim, axis) == 1 && mb__gcount(n) / s->parts <= INT32_MAX;
}

static int32_t draw(slicer *s, const mb__gnode *n, int axis)
{
    int64_t count = mb__gcount(n) / s->parts, dim[MB_MAX_RANK];
    cut_dims(n, axis, s->parts, dim);
    int32_t in[2] = {part_number(s), 0};
    in[1] = make(s, MB_OP_IOTA, MB_INT32, 1, &count, NULL, 0, NULL, 0);
    in[1] = unary(s, MB_OP_RESHAPE, in[1], n->rank, dim, NULL, 0);
    int32_t id = make(s, MB_OP_DRAW, n->dtype, n->rank, dim, in, 2, &count, 1);
    if (!s->failed)
        s->fresh.nodes[id].bind = n->bind;
    return id;
}

/* This part of a tensor that is not cut. */
static int32_t slice_of(slicer *s, int32_t id, int axis, int depth)
{
    const mb__gnode *n = &s->old->nodes[id];
    for (int i = 0; i < s->slice_count; i++)
        if (s->slices[i].node == id && s->slices[i].axis == axis)
            return s->slices[i].part;
    slice x = {id, axis, -1, -1, -1};
    if (is_drawn(s, n, axis))
        x.part = draw(s, n, axis);
    else if (depth < DEPTH_MOST && is_made_small(s, n, axis))
        x.part = make_small(s, n, axis, depth);
    else
        x.part = slice_memory(s, id, axis, &x);
    slice *grown = mb__bump_grow(s->fresh.bump, s->slices, s->slice_count, &s->slice_capacity, sizeof *grown);
    if (!grown || s->failed) {
        s->failed = true;
        return 0;
    }
    s->slices = grown;
    s->slices[s->slice_count++] = x;
    return x.part;
}

/* ---- nodes of the loop, and of the outside ---- */

/* Of a scan's inside without its inverse, which only derivatives ask for. */
static int nodes_read(const slicer *s, int32_t id)
{
    const mb__gnode *n = &s->old->nodes[id];
    if (n->op != MB_OP_BODY)
        return n->nin;
    int32_t scan = id + 1;
    while (s->old->nodes[scan].op != MB_OP_SCAN || s->old->nodes[scan].in[0] != id)
        scan++;
    mb__scan_ports p = mb__ports_of(s->old, scan);
    return 2 * p.carries + p.slices + p.stacks;
}

static mb__gnode copy_of(slicer *s, int32_t id)
{
    mb__gnode copy = s->old->nodes[id];
    copy.nin = nodes_read(s, id);
    copy.in = memory(s, (size_t)copy.nin * sizeof *copy.in);
    return copy;
}

/* In the place of an operand that nobody reads: what a barrier waits for may be of the loop, and of a scan's
 * carries that are of no use there is nothing. */
static int32_t unread(const slicer *s, const int32_t *nodes, int32_t id)
{
    const mb__gnode *n = &s->old->nodes[id];
    return n->op == MB_OP_BARRIER || mb__is_kind(n->op, MB_KIND_IDENTITY) ? nodes[n->in[0]] : NOBODYS;
}

static void make_outside(slicer *s, int32_t id)
{
    const mb__gnode *n = &s->old->nodes[id];
    mb__gnode copy = copy_of(s, id);
    for (int j = 0; j < copy.nin && !s->failed; j++)
        copy.in[j] = s->whole[n->in[j]] >= 0 ? s->whole[n->in[j]] : unread(s, s->whole, id);
    s->whole[id] = append(s, &copy);
}

/* The first operand that is cut; as many as there are: none is. */
static int cut_operand(const slicer *s, const mb__gnode *n)
{
    int j = 0;
    while (j < mb__slice_operands(n) && s->kind[n->in[j]] < 0)
        j++;
    return j;
}

/* The axis along which the body's operand j is to be cut, or another kind. */
static int body_operand(const slicer *s, const mb__gnode *body, const mb__scan_ports *p, int j)
{
    int placeholders = p->carries + p->slices;
    if (j >= placeholders && j < placeholders + p->carries)
        return s->kind[p->inside[j - placeholders]];
    return s->kind[body->in[j]];
}

/* The same of a scan's operand. */
static int scan_operand(const slicer *s, const mb__gnode *scan, const mb__scan_ports *p, int j)
{
    int axis = j >= 1 && j <= p->carries + p->slices ? s->kind[p->inside[j - 1]] : MB_INSIDE;
    return axis >= 0 && j > p->carries ? axis + 1 : axis >= 0 ? axis : s->kind[scan->in[j]];
}

/* The axis along which operand j is to be cut where the node is of the kind `to`; another kind: it is not. */
static int wanted_axis(const slicer *s, int32_t id, int j, int to)
{
    const mb__gnode *n = &s->old->nodes[id];
    if (n->op == MB_OP_SCAN || n->op == MB_OP_BODY) {
        int32_t scan = id;
        while (s->old->nodes[scan].op != MB_OP_SCAN || (scan != id && s->old->nodes[scan].in[0] != id))
            scan++;
        mb__scan_ports p = mb__ports_of(s->old, scan);
        return n->op == MB_OP_SCAN ? scan_operand(s, n, &p, j) : body_operand(s, n, &p, j);
    }
    int from = cut_operand(s, n);
    if (j >= mb__slice_operands(n) || from == mb__slice_operands(n) || n->op == MB_OP_RESULT)
        return MB_CUT_NONE;
    return mb__cut_operand(s->old, n, j, from, s->kind[n->in[from]], to);
}

static int32_t operand_inside(slicer *s, int32_t id, int j, int to)
{
    int32_t x = s->old->nodes[id].in[j];
    int axis = s->kind[x] >= 0 || s->kind[x] == MB_ADDED ? MB_CUT_NONE : wanted_axis(s, id, j, to);
    if (axis >= 0)
        return slice_of(s, x, axis, 0);
    if (s->part[x] >= 0)
        return s->part[x];
    return s->whole[x] >= 0 ? s->whole[x] : unread(s, s->part, id);
}

/* Sums of halves are kept in float32. */
static int sum_dtype(int dtype)
{
    return mb__is_half(dtype) ? MB_FLOAT32 : dtype;
}

/* What is added up over the parts; or the same in each, of which the last is as good as any. */
static void carry_on(slicer *s, int32_t id)
{
    const mb__gnode *n = &s->old->nodes[id];
    bool added = s->kind[id] == MB_ADDED;
    int dtype = added ? sum_dtype(n->dtype) : n->dtype;
    int32_t x = s->part[id];
    s->carry[id] = make(s, MB_OP_PLACEHOLDER, dtype, n->rank, n->dim, NULL, 0, NULL, 0);
    if (dtype != n->dtype)
        x = make(s, MB_OP_CAST, dtype, n->rank, n->dim, &x, 1, NULL, 0);
    if (added)
        x = make(s, MB_OP_ADD, dtype, n->rank, n->dim, (int32_t[]){s->carry[id], x}, 2, NULL, 0);
    s->next[id] = x;
}

static bool is_carried(const slicer *s, int32_t id)
{
    return (s->kind[id] == MB_ADDED || s->kind[id] == MB_INSIDE) && s->wanted[id];
}
static bool is_stacked(const slicer *s, int32_t id)
{
    return s->kind[id] >= 0 && s->wanted[id] && s->whole[id] < 0;
}

static bool reads(const mb__gnode *n, int32_t id)
{
    int j = 0;
    while (j < n->nin && n->in[j] != id)
        j++;
    return j < n->nin;
}

/* Slices of what a scan's inside reads are read by it as well: by its operands it is known where the scan
 * belongs. */
static void list_captures(slicer *s, const mb__gnode *scan, mb__gnode *copy)
{
    int32_t *in = memory(s, (size_t)(copy->nin + s->slice_count) * sizeof *in);
    if (s->failed)
        return;
    memcpy(in, copy->in, (size_t)copy->nin * sizeof *in);
    copy->in = in;
    for (int i = 0; i < s->slice_count; i++)
        if (reads(scan, s->slices[i].node))
            in[copy->nin++] = s->slices[i].part;
}

static void make_inside(slicer *s, int32_t id)
{
    const mb__gnode *n = &s->old->nodes[id];
    int kind = s->kind[id];
    if (mb__is_kind(n->op, MB_KIND_LEAF) && n->op != MB_OP_PLACEHOLDER) { /* the input that is cut */
        s->part[id] = slice_of(s, id, kind, 0);
        return;
    }
    mb__gnode copy = copy_of(s, id);
    for (int j = 0; j < copy.nin && !s->failed; j++)
        copy.in[j] = operand_inside(s, id, j, kind);
    if (kind >= 0)
        cut_dims(n, kind, s->parts, copy.dim);
    if (n->op == MB_OP_SCAN)
        list_captures(s, n, &copy);
    s->part[id] = append(s, &copy);
    if (is_carried(s, id))
        carry_on(s, id);
}

/* What is made inside and read outside. */
static void find_wanted(slicer *s)
{
    const mb__graph *g = s->old;
    for (int i = 0; i < g->count; i++)
        for (int j = 0; s->kinds.live[i] && s->kind[i] == MB_AFTER && j < nodes_read(s, i); j++)
            if (s->kinds.live[g->nodes[i].in[j]] && (g->nodes[i].op != MB_OP_BARRIER || j == 0))
                s->wanted[g->nodes[i].in[j]] = true;
    for (int i = 0; i < g->output_count; i++)
        s->wanted[g->outputs[i]] = true;
}

/* ---- the scan ---- */

/* Placeholders; then the carries' next values, and stacks. Returns how many; of the scan's operands there are
 * as many as placeholders. */
static int list_ports(slicer *s, int32_t *body, int32_t *scan, int64_t attr[7])
{
    int n = 0, last;
    const int64_t zero[1] = {0};
    for (int i = 0; i < s->old->count && !s->failed; i++)
        if (is_carried(s, i)) {
            const mb__gnode *x = &s->old->nodes[i];
            int dtype = s->fresh.nodes[s->carry[i]].dtype;
            int32_t start = make(s, MB_OP_CONST, dtype, 0, NULL, NULL, 0, zero, 1);
            scan[n] = unary(s, MB_OP_BROADCAST, start, x->rank, x->dim, NULL, 0);
            body[n++] = s->carry[i];
        }
    attr[2] = n;
    for (int i = 0; i < s->slice_count; i++)
        if (s->slices[i].at >= 0) {
            scan[n] = s->slices[i].from;
            body[n++] = s->slices[i].at;
        }
    if (s->number_at >= 0) {
        scan[n] = s->numbers;
        body[n++] = s->number_at;
    }
    attr[3] = n - attr[2];
    last = n;
    for (int i = 0; i < s->old->count; i++)
        if (is_carried(s, i))
            body[last++] = s->next[i];
    for (int i = 0; i < s->old->count && !s->failed; i++)
        if (is_stacked(s, i)) {
            int64_t before, after;
            around(&s->old->nodes[i], s->kind[i], s->parts, &before, &after);
            body[last++] = unary(s, MB_OP_RESHAPE, s->part[i], 2, (int64_t[]){before, after}, NULL, 0);
        }
    attr[4] = last - n - attr[2];
    return last;
}

static void take_results(slicer *s, int32_t scan)
{
    int64_t number = 0;
    for (int i = 0; i < s->old->count && !s->failed; i++)
        if (is_carried(s, i)) {
            const mb__gnode *x = &s->old->nodes[i];
            int dtype = s->fresh.nodes[s->carry[i]].dtype;
            int32_t r = make(s, MB_OP_RESULT, dtype, x->rank, x->dim, &scan, 1, &number, 1);
            s->whole[i] = dtype == x->dtype || s->failed
                              ? r
                              : make(s, MB_OP_CAST, x->dtype, x->rank, x->dim, &r, 1, NULL, 0);
            number++;
        }
    for (int i = 0; i < s->old->count && !s->failed; i++)
        if (is_stacked(s, i)) {
            const mb__gnode *x = &s->old->nodes[i];
            int64_t dim[3] = {s->parts};
            around(x, s->kind[i], s->parts, &dim[1], &dim[2]);
            int32_t r = make(s, MB_OP_RESULT, x->dtype, 3, dim, &scan, 1, &number, 1);
            s->whole[i] = s->failed ? 0 : together(s, r, x, s->kind[i]);
            number++;
        }
}

static void make_scan(slicer *s)
{
    size_t most = 2 * (size_t)s->old->count + (size_t)s->slice_count + 2;
    int32_t *body = memory(s, most * sizeof *body), *scan = memory(s, most * sizeof *scan);
    int64_t attr[7] = {s->parts};
    if (s->failed)
        return;
    int n = list_ports(s, body, scan + 1, attr);
    if (s->failed)
        return;
    scan[0] = make(s, MB_OP_BODY, MB_FLOAT32, 0, NULL, body, n, NULL, 0);
    if (s->failed)
        return;
    int32_t id = make(s, MB_OP_SCAN, MB_FLOAT32, 0, NULL, scan, 1 + (int)(attr[2] + attr[3]), attr, 7);
    take_results(s, id);
}

static bool is_in_loop(int kind)
{
    return kind >= 0 || kind == MB_ADDED || kind == MB_INSIDE;
}

static void rebuild(slicer *s, int32_t seed)
{
    mb__graph *g = s->old;
    const int64_t zero[1] = {0};
    make(s, MB_OP_CONST, MB_FLOAT32, 0, NULL, NULL, 0, zero, 1); /* NOBODYS */
    for (int i = 0; i < g->count && !s->failed; i++)
        if (s->kinds.live[i] && (s->kind[i] == MB_BEFORE || i == seed))
            make_outside(s, i);
    for (int i = 0; i < g->count && !s->failed; i++)
        if (s->kinds.live[i] && is_in_loop(s->kind[i]))
            make_inside(s, i);
    if (!s->failed)
        make_scan(s);
    for (int i = 0; i < g->count && !s->failed; i++)
        if (s->kinds.live[i] && s->kind[i] == MB_AFTER)
            make_outside(s, i);
    s->fresh.outputs = memory(s, (size_t)g->output_count * sizeof *g->outputs);
    for (int i = 0; i < g->output_count && !s->failed; i++)
        s->fresh.outputs[i] = s->whole[g->outputs[i]];
}

static bool prepare(slicer *s)
{
    size_t n = (size_t)s->old->count + 1;
    s->fresh.nodes = NULL;
    s->fresh.count = s->fresh.capacity = 0;
    s->kinds = (mb__kinds){.g = s->old,
                           .kind = memory(s, n),
                           .held = memory(s, n),
                           .learned = memory(s, n),
                           .live = memory(s, n)};
    s->kind = s->kinds.kind;
    int32_t **const lists[] = {&s->whole, &s->part, &s->carry, &s->next};
    for (size_t k = 0; k < sizeof lists / sizeof *lists; k++) {
        *lists[k] = memory(s, n * sizeof **lists[k]);
        for (size_t i = 0; i < n && !s->failed; i++)
            (*lists[k])[i] = -1;
    }
    s->wanted = memory(s, n * sizeof *s->wanted);
    return !s->failed;
}

mb_status mb__slice(mb__graph *g, int64_t times, int64_t *parts)
{
    slicer s = {.old = g, .fresh = *g, .number_at = -1};
    *parts = 0;
    if (!prepare(&s))
        return MB_NO_MEMORY;
    mb__kinds_live(&s.kinds);
    int32_t seed = find_seed(&s, times);
    if (seed < 0)
        return MB_OK;
    find_wanted(&s);
    s.site = g->nodes[seed].site;
    rebuild(&s, seed);
    if (s.failed)
        return MB_NO_MEMORY;
    *g = s.fresh;
    *parts = s.parts;
    return MB_OK;
}
