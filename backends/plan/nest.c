/* SPDX-License-Identifier: MIT
 *
 * nest.c - scans as the tape has them become nodes with a graph inside.
 *
 * A node's home is the innermost body of whose placeholders it depends on one; without any, the graph itself.
 * So what a body computes the same at each step is computed before the loop. What a body needs of the outside
 * becomes an input of it; literals and views are made again inside.
 */
#include "backends/plan/graph.h"

enum { HERE = INT32_MAX }; /* the home of what is of no body; else the number of the BODY node */

typedef struct nesting {
    mb__bump *bump;
    const mb__gnode *nodes; /* of the tape's graph */
    int count;
    uint8_t *live;
    int32_t *scan_of;     /* of a BODY: its SCAN */
    int32_t *result;      /* of a SCAN: one of its RESULTs that are here; of a RESULT: another; -1 */
    int32_t *body_of;     /* of a placeholder: its BODY; -1 */
    int32_t *number;      /* of a placeholder: which one */
    int32_t *home, *next; /* of the same home, ascending */
    int32_t *first;       /* of each home that is a BODY; `count`: of those of none */
    int32_t *map, *level; /* of the nodes that were translated: to what, and on which level */
    int32_t *stack, stacked;
    int stack_capacity;
    bool failed;
} nesting;

static int carries_of(const mb__gnode *scan)
{
    return (int)scan->attr[2];
}
static int slices_of(const mb__gnode *scan)
{
    return (int)scan->attr[3];
}

/* ---- what is needed ---- */

static void need(nesting *n, int32_t id)
{
    if (n->live[id] || n->failed)
        return;
    n->live[id] = 1;
    int32_t *grown = mb__bump_grow(n->bump, n->stack, n->stacked, &n->stack_capacity, sizeof *grown);
    if (!grown) {
        n->failed = true;
        return;
    }
    n->stack = grown;
    n->stack[n->stacked++] = id;
}

/* A carry is needed as a whole: where it begins, and how it goes on. */
static void need_carry(nesting *n, int32_t scan, int carry)
{
    const mb__gnode *s = &n->nodes[scan], *body = &n->nodes[s->in[0]];
    need(n, body->in[carry]);
    need(n, s->in[1 + carry]);
    need(n, body->in[carries_of(s) + slices_of(s) + carry]);
}

static void need_operands(nesting *n, int32_t id)
{
    const mb__gnode *x = &n->nodes[id];
    if (x->op == MB_OP_RESULT) {
        int32_t scan = x->in[0];
        const mb__gnode *s = &n->nodes[scan];
        n->live[scan] = 1;
        if (x->attr[0] < carries_of(s))
            need_carry(n, scan, (int)x->attr[0]);
        else
            need(n, n->nodes[s->in[0]].in[carries_of(s) + slices_of(s) + (int)x->attr[0]]);
    } else if (x->op == MB_OP_PLACEHOLDER) {
        int32_t scan = n->scan_of[n->body_of[id]];
        int k = n->number[id];
        if (k < carries_of(&n->nodes[scan]))
            need_carry(n, scan, k);
        else
            need(n, n->nodes[scan].in[1 + k]);
    } else {
        for (int i = 0; i < x->nin; i++)
            need(n, x->in[i]);
    }
}

static void mark_live(nesting *n, const mb__graph *g)
{
    for (int i = 0; i < g->output_count; i++)
        need(n, g->outputs[i]);
    while (n->stacked && !n->failed)
        need_operands(n, n->stack[--n->stacked]);
}

/* ---- where it belongs ---- */

static int32_t inner(int32_t a, int32_t b)
{
    return a < b ? a : b; /* a body inside of another ends before it */
}

static void find_homes(nesting *n)
{
    for (int i = 0; i < n->count; i++) {
        const mb__gnode *x = &n->nodes[i];
        n->home[i] = x->op == MB_OP_PLACEHOLDER && n->body_of[i] >= 0 ? n->body_of[i] : HERE;
        if (x->op == MB_OP_BODY || !n->live[i])
            continue;
        for (int j = x->op == MB_OP_SCAN; j < x->nin; j++)
            if (n->live[x->in[j]])
                n->home[i] = inner(n->home[i], n->home[x->in[j]]);
    }
    for (int i = 0; i <= n->count; i++)
        n->first[i] = -1;
    for (int i = n->count; i-- > 0;) {
        if (!n->live[i] || n->nodes[i].op == MB_OP_BODY || n->nodes[i].op == MB_OP_PLACEHOLDER)
            continue;
        int32_t *first = &n->first[n->home[i] == HERE ? n->count : n->home[i]];
        n->next[i] = *first;
        *first = i;
    }
}

/* ---- building ---- */

typedef struct undo {
    int32_t id, map, level;
} undo;

typedef struct level {
    nesting *n;
    mb__graph *g;
    int32_t home, number;
    int32_t *captured; /* nodes of the outside that became inputs */
    int captures, capture_capacity;
    undo *undos;
    int undo_count, undo_capacity;
} level;

static void set(level *l, int32_t id, int32_t to)
{
    nesting *n = l->n;
    undo *grown = mb__bump_grow(n->bump, l->undos, l->undo_count, &l->undo_capacity, sizeof *grown);
    if (!grown) {
        n->failed = true;
        return;
    }
    l->undos = grown;
    l->undos[l->undo_count++] = (undo){id, n->map[id], n->level[id]};
    n->map[id] = to;
    n->level[id] = l->number;
}

static int32_t append(level *l, const mb__gnode *x)
{
    int32_t id = mb__graph_append(l->g, x);
    if (id < 0)
        l->n->failed = true;
    return id < 0 ? 0 : id;
}

static int32_t translate(level *l, int32_t id);

static int32_t *operands(level *l, const mb__gnode *x)
{
    int32_t *in = mb__bump_get(l->n->bump, (size_t)(x->nin + 1) * sizeof *in);
    if (!in)
        l->n->failed = true;
    for (int i = 0; in && i < x->nin && !l->n->failed; i++)
        in[i] = translate(l, x->in[i]);
    return in;
}

static int32_t new_input(level *l, const mb__gnode *like)
{
    mb__gnode b = {.op = MB_OP_BUFFER,
                   .dtype = like->dtype,
                   .rank = like->rank,
                   .bind = l->g->input_count++,
                   .output = -1,
                   .site = like->site};
    memcpy(b.dim, like->dim, sizeof b.dim);
    return append(l, &b);
}

static bool made_again(const mb__gnode *x)
{
    return x->op == MB_OP_CONST || x->op == MB_OP_SCALAR || x->op == MB_OP_IOTA ||
           (mb__is_view(x->op) && x->op != MB_OP_BARRIER);
}

/* The node of this level that stands for a node of the tape. */
static int32_t translate(level *l, int32_t id)
{
    nesting *n = l->n;
    const mb__gnode *x = &n->nodes[id];
    if (n->failed)
        return 0;
    if (n->level[id] == l->number)
        return n->map[id];
    int32_t to;
    if (made_again(x)) {
        mb__gnode copy = *x;
        copy.in = operands(l, x);
        to = n->failed ? 0 : append(l, &copy);
    } else {
        int32_t *grown =
            mb__bump_grow(n->bump, l->captured, l->captures, &l->capture_capacity, sizeof *grown);
        if (!grown) {
            n->failed = true;
            return 0;
        }
        l->captured = grown;
        l->captured[l->captures++] = id;
        to = new_input(l, x);
    }
    set(l, id, to);
    return to;
}

static void build(level *l);

/* The live ones among a scan's carries, slices or stacks, which begin with number `from` of its body. */
static int list_live(nesting *n, const mb__gnode *body, int from, int count, int32_t *out)
{
    int kept = 0;
    for (int i = 0; i < count; i++)
        if (n->live[body->in[from + i]])
            out[kept++] = i;
    return kept;
}

/* Whether a stack is read: what is stacked may be needed for another reason. A result that has its value is a
 * BUFFER here, and not read from the scan. */
static bool stack_live(const nesting *n, int32_t scan, int number)
{
    for (int32_t i = n->result[scan]; i >= 0; i = n->result[i])
        if (n->nodes[i].attr[0] == number)
            return n->live[i];
    return false;
}

static void body_graph(level *l, mb__gloop *loop, const mb__gnode *scan, const mb__gnode *body,
                       const int32_t *kept)
{
    nesting *n = l->n;
    int nc = carries_of(scan), base = nc + slices_of(scan);
    for (int i = 0; i < loop->carries + loop->slices && !n->failed; i++) {
        int32_t p = body->in[i < loop->carries ? kept[i] : nc + kept[i]];
        set(l, p, new_input(l, &n->nodes[p]));
    }
    build(l);
    mb__graph *g = l->g;
    g->output_count = loop->carries + loop->stacks;
    g->outputs = mb__bump_get(n->bump, (size_t)(g->output_count + 1) * sizeof *g->outputs);
    if (!g->outputs)
        n->failed = true;
    const int32_t *stacks = kept + loop->carries + loop->slices;
    for (int i = 0; i < g->output_count && !n->failed; i++)
        g->outputs[i] =
            translate(l, body->in[base + (i < loop->carries ? kept[i] : nc + stacks[i - loop->carries])]);
    loop->captures = l->captures;
}

/* Of each stack: the carry that it keeps as it is at the beginning of the steps; -1. */
static void find_kept(nesting *n, mb__gloop *loop)
{
    loop->kept = mb__bump_get(n->bump, (size_t)(loop->stacks + 1) * sizeof *loop->kept);
    if (!loop->kept)
        n->failed = true;
    for (int i = 0; i < loop->stacks && !n->failed; i++) {
        const mb__gnode *x = &loop->body.nodes[loop->body.outputs[loop->carries + i]];
        loop->kept[i] = x->op == MB_OP_BUFFER && x->bind < loop->carries ? x->bind : -1;
    }
}

/* Which of the live carries says that the rest of the steps change nothing, where they can be left out: no
 * stack needs them. */
static int until_of(const mb__gloop *loop, const mb__gnode *scan, const int32_t *kept)
{
    for (int i = 0; i < loop->stacks; i++)
        if (loop->kept[i] < 0)
            return -1;
    for (int i = 0; i < loop->carries; i++)
        if (kept[i] + 1 == scan->attr[5])
            return i;
    return -1;
}

/* Which input says that a step changes nothing. */
static int idle_of(const mb__gloop *loop, const mb__gnode *scan, const int32_t *kept)
{
    for (int i = 0; i < loop->slices; i++)
        if (kept[loop->carries + i] + 1 == scan->attr[6])
            return loop->carries + i;
    return -1;
}

/* A SCAN with its body; its RESULTs are counted among the live ones from now on. */
static void emit_scan(level *l, int32_t id)
{
    nesting *n = l->n;
    const mb__gnode *scan = &n->nodes[id], *body = &n->nodes[scan->in[0]];
    int nc = carries_of(scan), ns = slices_of(scan), stacks = (int)scan->attr[4];
    mb__graph *g = l->g;
    mb__gloop *loops = mb__bump_grow(n->bump, g->loops, g->loop_count, &g->loop_capacity, sizeof *loops);
    int32_t *kept = mb__bump_get(n->bump, (size_t)(nc + ns + stacks + 1) * sizeof *kept);
    if (!loops || !kept) {
        n->failed = true;
        return;
    }
    g->loops = loops;
    mb__gloop loop = {.steps = scan->attr[0], .backwards = scan->attr[1] != 0, .site = scan->site};
    loop.carries = list_live(n, body, 0, nc, kept);
    loop.slices = list_live(n, body, nc, ns, kept + loop.carries);
    int32_t *out = kept + loop.carries + loop.slices;
    for (int i = 0; i < stacks; i++)
        if (stack_live(n, id, nc + i))
            out[loop.stacks++] = i;
    loop.body = (mb__graph){.bump = n->bump, .scalar_count = g->scalar_count};
    level inside = {.n = n, .g = &loop.body, .home = scan->in[0], .number = l->number + 1};
    body_graph(&inside, &loop, scan, body, kept);
    if (!n->failed)
        find_kept(n, &loop);
    if (n->failed)
        return;
    loop.until = until_of(&loop, scan, kept);
    loop.idle = idle_of(&loop, scan, kept);
    while (inside.undo_count) {
        undo u = inside.undos[--inside.undo_count];
        n->map[u.id] = u.map;
        n->level[u.id] = u.level;
    }
    mb__gnode s = *scan;
    s.nin = loop.carries + loop.slices + loop.captures;
    s.in = mb__bump_get(n->bump, (size_t)(s.nin + 1) * sizeof *s.in);
    int64_t *attr = mb__bump_get(n->bump, sizeof *attr);
    if (!s.in || !attr) {
        n->failed = true;
        return;
    }
    for (int i = 0; i < s.nin && !n->failed; i++) {
        int own = loop.carries + loop.slices;
        s.in[i] = translate(l, i < loop.carries ? scan->in[1 + kept[i]]
                               : i < own        ? scan->in[1 + nc + kept[i]]
                                                : inside.captured[i - own]);
    }
    *attr = g->loop_count;
    s.attr = attr;
    s.nattr = 1;
    g->loops[g->loop_count++] = loop;
    set(l, id, append(l, &s));
}

/* The number of a RESULT among the live ones. */
static int64_t result_number(nesting *n, int32_t id)
{
    const mb__gnode *r = &n->nodes[id], *scan = &n->nodes[r->in[0]], *body = &n->nodes[scan->in[0]];
    int64_t number = 0;
    for (int k = 0; k < r->attr[0]; k++)
        number += k < carries_of(scan) ? n->live[body->in[k]] : stack_live(n, r->in[0], k);
    return number;
}

static void build(level *l)
{
    nesting *n = l->n;
    for (int32_t id = n->first[l->home == HERE ? n->count : l->home]; id >= 0 && !n->failed;
         id = n->next[id]) {
        const mb__gnode *x = &n->nodes[id];
        if (x->op == MB_OP_SCAN) {
            emit_scan(l, id);
            continue;
        }
        mb__gnode copy = *x;
        copy.in = operands(l, x);
        if (x->op == MB_OP_RESULT) {
            int64_t *attr = mb__bump_get(n->bump, sizeof *attr);
            if (!attr) {
                n->failed = true;
                return;
            }
            *attr = result_number(n, id);
            copy.attr = attr;
        }
        set(l, id, n->failed ? 0 : append(l, &copy));
    }
}

static bool find_bodies(nesting *n)
{
    bool any = false;
    for (int i = 0; i < n->count; i++)
        n->body_of[i] = n->scan_of[i] = n->result[i] = -1;
    for (int i = 0; i < n->count; i++) {
        const mb__gnode *x = &n->nodes[i];
        if (x->op == MB_OP_RESULT) {
            n->result[i] = n->result[x->in[0]];
            n->result[x->in[0]] = i;
        }
        if (x->op != MB_OP_SCAN)
            continue;
        any = true;
        n->scan_of[x->in[0]] = i;
        for (int k = 0; k < carries_of(x) + slices_of(x); k++) {
            int32_t p = n->nodes[x->in[0]].in[k];
            n->body_of[p] = x->in[0];
            n->number[p] = k;
        }
    }
    return any;
}

mb_status mb__nest(mb__graph *g)
{
    int i = 0;
    while (i < g->count && g->nodes[i].op != MB_OP_SCAN)
        i++;
    if (i == g->count)
        return MB_OK;
    size_t words = (size_t)g->count + 1;
    nesting n = {.bump = g->bump, .nodes = g->nodes, .count = g->count};
    int32_t **const lists[] = {&n.scan_of, &n.result, &n.body_of, &n.number, &n.home,
                               &n.next,    &n.first,  &n.map,     &n.level};
    n.live = mb__bump_get(g->bump, words);
    for (size_t k = 0; k < sizeof lists / sizeof *lists; k++)
        if (!n.live || !(*lists[k] = mb__bump_get(g->bump, words * sizeof **lists[k])))
            return MB_NO_MEMORY;
    find_bodies(&n);
    mark_live(&n, g);
    find_homes(&n);
    mb__graph top = *g;
    top.nodes = NULL;
    top.count = top.capacity = 0;
    level l = {.n = &n, .g = &top, .home = HERE, .number = 1};
    build(&l);
    for (int k = 0; k < g->output_count && !n.failed; k++)
        top.outputs[k] = translate(&l, g->outputs[k]);
    if (n.failed)
        return MB_NO_MEMORY;
    *g = top;
    return MB_OK;
}
