/* SPDX-License-Identifier: MIT
 *
 * simplify.c - rewrites the graph into a smaller one that computes the same: literals are folded, identities
 * dropped, equal nodes merged, sums and broadcasts moved into contractions, dead nodes left behind.
 *
 * One forward pass that emits a new graph, one backward mark, one compaction: linear in the nodes.
 *
 * What it may change:
 *   - a literal zero absorbs products and contractions, as tensor.h says: the result is 0, whatever the other
 *     operand holds;
 *   - sums over several axes, one after the other or after a contraction, are one sum, in an order of its
 * own; the sum of a literal is a product;
 *   - a sum of pads is put together from its parts (pads.c): where those meet they are added in an order of
 *     their own, and where one lies alone its -0 stays -0;
 *   - functions of literals are computed in float64 and rounded to the dtype;
 *   - x c d, with literals c and d both at most 1 in size or both at least 1, is rounded once and not twice.
 * Nothing else changes: no NaN, no infinity, no sign of a zero, no bit. So x + 0 stays, which makes 0 of -0,
 * and so does 0 - x; x - 0 and x + -0 are x.
 */
#include <float.h>
#include <math.h>

#include "backends/plan/graph.h"

typedef struct pass {
    mb__graph *old, fresh;
    unsigned passes;
    int32_t *table; /* open hashing over fresh nodes, for merging */
    uint32_t table_size;
    int32_t *uses; /* of old nodes */
    bool failed;
} pass;

/* ---- emitting, with merging of equal nodes ---- */

static uint64_t hash_bytes(uint64_t h, const void *p, size_t n)
{
    const unsigned char *c = p;
    for (size_t i = 0; i < n; i++)
        h = (h ^ c[i]) * 0x100000001b3u;
    return h;
}

static uint64_t hash_node(const mb__gnode *n)
{
    uint64_t h = 0xcbf29ce484222325u ^
                 ((uint64_t)n->op << 32 | (uint64_t)n->dtype << 24 | (uint64_t)n->rank << 16) ^
                 (uint64_t)(uint32_t)n->bind;
    h = hash_bytes(h, n->in, (size_t)n->nin * sizeof *n->in);
    h = hash_bytes(h, n->dim, (size_t)n->rank * sizeof *n->dim);
    h = hash_bytes(h, n->attr, (size_t)n->nattr * sizeof *n->attr);
    h *= 0x9e3779b97f4a7c15u; /* neighbouring numbers of scalars must not fill neighbouring slots */
    return h ^ (h >> 32);
}

/* Serial ops of the user's are done as often as they were recorded. */
static bool equal_nodes(const mb__gnode *a, const mb__gnode *b)
{
    return !mb__is_serial(a) && a->op == b->op && a->dtype == b->dtype && a->rank == b->rank &&
           a->nin == b->nin && a->nattr == b->nattr && a->bind == b->bind &&
           !memcmp(a->in, b->in, (size_t)a->nin * sizeof *a->in) &&
           !memcmp(a->dim, b->dim, (size_t)a->rank * sizeof *a->dim) &&
           (!a->nattr || !memcmp(a->attr, b->attr, (size_t)a->nattr * sizeof *a->attr));
}

static int32_t emit(pass *p, const mb__gnode *n)
{
    mb__graph *g = &p->fresh;
    uint32_t slot = 0;
    if (p->passes & MB_PASS_MERGE) {
        slot = (uint32_t)hash_node(n) & (p->table_size - 1);
        for (; p->table[slot]; slot = (slot + 1) & (p->table_size - 1))
            if (equal_nodes(&g->nodes[p->table[slot] - 1], n))
                return p->table[slot] - 1;
    }
    int32_t id = mb__graph_append(g, n);
    if (id < 0) {
        p->failed = true;
        return 0;
    }
    g->nodes[id].output = -1;
    if (p->passes & MB_PASS_MERGE && (uint32_t)id < p->table_size / 2)
        p->table[slot] = id + 1;
    return id;
}

static mb__gnode *at(pass *p, int32_t i)
{
    return &p->fresh.nodes[i];
}

static int32_t *ids(pass *p, int n)
{
    int32_t *x = mb__bump_get(p->fresh.bump, (size_t)(n ? n : 1) * sizeof *x);
    if (!x)
        p->failed = true;
    return x;
}

static int64_t *words(pass *p, const int64_t *from, int n)
{
    int64_t *x = mb__bump_get(p->fresh.bump, (size_t)(n ? n : 1) * sizeof *x);
    if (!x)
        p->failed = true;
    else if (from && n)
        memcpy(x, from, (size_t)n * sizeof *x);
    return x;
}

/* A node like `like` (dtype, shape, place) with another op and operands. */
static int32_t make(pass *p, int op, const mb__gnode *like, const int32_t *in, int nin, const int64_t *attr,
                    int nattr)
{
    mb__gnode n = *like;
    n.op = (uint16_t)op;
    n.nin = nin;
    n.in = ids(p, nin);
    n.nattr = nattr;
    n.attr = words(p, attr, nattr);
    n.bind = -1;
    if (p->failed)
        return 0;
    if (nin)
        memcpy(n.in, in, (size_t)nin * sizeof *in);
    return emit(p, &n);
}

/* ---- literals ---- */

/* In registers halves are float32. */
static double as_kernels_have_it(int dtype, double value)
{
    return mb__is_float(dtype) && dtype != MB_FLOAT64 ? (double)(float)value : value;
}

static bool literal(pass *p, int32_t i, double *value)
{
    const mb__gnode *n = at(p, i);
    while (n->op == MB_OP_BROADCAST || n->op == MB_OP_RESHAPE)
        n = at(p, n->in[0]);
    if (n->op != MB_OP_CONST)
        return false;
    memcpy(value, n->attr, sizeof *value);
    *value = as_kernels_have_it(n->dtype, *value);
    return true;
}

static bool is(pass *p, int32_t i, double wanted)
{
    double v;
    return literal(p, i, &v) && v == wanted;
}

/* A literal zero that leaves every x as it is when it is added (by_sign -1) or subtracted (1): of floats,
 * that depends on its sign. */
static bool is_neutral(pass *p, int32_t i, int by_sign)
{
    double v;
    return literal(p, i, &v) && v == 0 &&
           (!mb__is_float(at(p, i)->dtype) || (signbit(v) ? -1 : 1) == by_sign);
}

static int32_t emit_literal(pass *p, const mb__gnode *like, double value)
{
    mb__gnode c = *like;
    int64_t bits;
    memcpy(&bits, &value, sizeof bits);
    c.rank = 0;
    int32_t k = make(p, MB_OP_CONST, &c, NULL, 0, &bits, 1);
    return like->rank && !p->failed ? make(p, MB_OP_BROADCAST, like, &k, 1, NULL, 0) : k;
}

static double fold(int op, double a, double b)
{
    double x = a;
    (void)b, (void)x;
    switch (op) {
#define M(f) f
#define MB_UNARY(NAME, name, types, expr, lo, hi, cost, doc)                                                 \
    case MB_OP_##NAME:                                                                                       \
        return expr;
    case MB_OP_ADD:
        return a + b;
    case MB_OP_SUB:
        return a - b;
    case MB_OP_MUL:
        return a * b;
    case MB_OP_DIV:
        return a / b;
    case MB_OP_POW:
        return pow(a, b);
#include "tensor/ops.def"
#undef M
    default:
        return (double)NAN;
    }
}

static bool folds(const mb__gnode *n)
{
    return mb__is_float(n->dtype) && (mb__ops[n->op].kind == MB_KIND_UNARY ||
                                      (n->op == MB_OP_ADD || n->op == MB_OP_SUB || n->op == MB_OP_MUL ||
                                       n->op == MB_OP_DIV || n->op == MB_OP_POW));
}

/* The operand, repeated to the node's shape if it is smaller. */
static int32_t shaped(pass *p, const mb__gnode *n, int32_t i)
{
    const mb__gnode *x = at(p, i);
    if (x->rank == n->rank && !memcmp(x->dim, n->dim, (size_t)n->rank * sizeof *n->dim))
        return i;
    return make(p, MB_OP_BROADCAST, n, &i, 1, NULL, 0);
}

/* The product of two literal factors of x, where x times that is x times the one, times the other: neither
 * may take x beyond the range of the dtype from where the other takes it back. */
static bool together(int dtype, double a, double b, double *product)
{
    if (dtype == MB_INT32) { /* modulo 2^32 */
        *product = (double)(int32_t)((uint32_t)(int32_t)a * (uint32_t)(int32_t)b);
        return true;
    }
    double v = dtype != MB_FLOAT64 ? (double)((float)a * (float)b) : a * b, size = fabs(v);
    bool grow = fabs(a) >= 1 && fabs(b) >= 1, fall = fabs(a) <= 1 && fabs(b) <= 1;
    *product = v;
    return (grow && isfinite(v)) || (fall && size >= (dtype != MB_FLOAT64 ? (double)FLT_MIN : DBL_MIN));
}

/* ---- rules; each returns a fresh node, or -1 where none applies ---- */

static int32_t simplify_elementwise(pass *p, const mb__gnode *n, int32_t *in)
{
    double a, b = 0, v;
    if (folds(n) && literal(p, in[0], &a) && (n->nin < 2 || literal(p, in[1], &b)))
        return emit_literal(p, n, as_kernels_have_it(n->dtype, fold(n->op, a, b)));
    switch (n->op) {
    case MB_OP_NEG:
        if (at(p, in[0])->op == MB_OP_NEG)
            return at(p, in[0])->in[0];
        if (at(p, in[0])->op == MB_OP_SUB && !mb__is_float(n->dtype)) { /* of equal floats: -0, and 0 */
            mb__gnode *s = at(p, in[0]);
            return make(p, MB_OP_SUB, n, (int32_t[]){s->in[1], s->in[0]}, 2, NULL, 0);
        }
        break;
    case MB_OP_ADD:
        if (is_neutral(p, in[1], -1))
            return shaped(p, n, in[0]);
        if (is_neutral(p, in[0], -1))
            return shaped(p, n, in[1]);
        if (at(p, in[1])->op == MB_OP_NEG)
            return make(p, MB_OP_SUB, n, (int32_t[]){in[0], at(p, in[1])->in[0]}, 2, NULL, 0);
        if (at(p, in[0])->op == MB_OP_NEG)
            return make(p, MB_OP_SUB, n, (int32_t[]){in[1], at(p, in[0])->in[0]}, 2, NULL, 0);
        break;
    case MB_OP_SUB:
        if (is_neutral(p, in[1], 1))
            return shaped(p, n, in[0]);
        if (is_neutral(p, in[0], -1)) {
            int32_t full = shaped(p, n, in[1]);
            return p->failed ? 0 : make(p, MB_OP_NEG, n, &full, 1, NULL, 0);
        }
        if (at(p, in[1])->op == MB_OP_NEG)
            return make(p, MB_OP_ADD, n, (int32_t[]){in[0], at(p, in[1])->in[0]}, 2, NULL, 0);
        break;
    case MB_OP_MUL:
        for (int i = 0; i < 2; i++) {
            if (is(p, in[i], 1))
                return shaped(p, n, in[1 - i]);
            if (is(p, in[i], 0))
                return emit_literal(p, n, 0);
            if (is(p, in[i], -1)) {
                int32_t full = shaped(p, n, in[1 - i]);
                return p->failed ? 0 : make(p, MB_OP_NEG, n, &full, 1, NULL, 0);
            }
        }
        /* (x c) d = x (c d) for literals c, d */
        for (int i = 0; i < 2; i++) {
            mb__gnode *m = at(p, in[1 - i]);
            if (!literal(p, in[i], &a) || m->op != MB_OP_MUL)
                continue;
            for (int j = 0; j < 2; j++)
                if (literal(p, m->in[j], &b) && together(n->dtype, a, b, &v)) {
                    int32_t x = m->in[1 - j];
                    mb__gnode scalar = *n;
                    scalar.rank = 0;
                    int32_t c = emit_literal(p, &scalar, v);
                    return p->failed ? 0 : make(p, MB_OP_MUL, n, (int32_t[]){x, c}, 2, NULL, 0);
                }
        }
        break;
    case MB_OP_DIV:
        if (is(p, in[1], 1))
            return shaped(p, n, in[0]);
        break;
    case MB_OP_WHERE:
        if (in[1] == in[2])
            return shaped(p, n, in[1]);
        break;
    default:
        break;
    }
    return -1;
}

/* A contraction that reads a broadcast reads its source instead: the labels that repeat leave that operand.
 */
static int32_t contract_unbroadcast(pass *p, const mb__gnode *n, int32_t *in)
{
    for (int s = 0; s < 2; s++) {
        mb__gnode *b = at(p, in[s]);
        if (b->op != MB_OP_BROADCAST)
            continue;
        const mb__gnode *x = at(p, b->in[0]);
        int lead = b->rank - x->rank, labels = (int)n->attr[0];
        int64_t attr[1 + 3 * 24];
        memcpy(attr, n->attr, (size_t)n->nattr * sizeof *attr);
        mb__gnode shape = *x;
        shape.rank = 0;
        bool ok = true, changed = false;
        int map[MB_MAX_RANK];
        for (int i = 0; i < b->rank; i++) {
            bool repeats = i < lead || (x->dim[i - lead] == 1 && b->dim[i] != 1);
            int l = 0;
            while (l < labels && attr[1 + 3 * l + s] != i)
                l++;
            if (l < labels && repeats && attr[1 + 3 * l + 1 - s] >= 0) {
                map[i] = -1;
                attr[1 + 3 * l + s] = -1;
                changed = true;
                /* Left in the other operand alone it must be in the result, or it would be a plain sum. */
                ok &= attr[1 + 3 * l + 2] >= 0;
            } else if (repeats) {
                ok = false;
            } else {
                map[i] = shape.rank;
                shape.dim[shape.rank++] = b->dim[i];
            }
        }
        if (!ok || !changed)
            continue;
        for (int l = 0; l < labels; l++)
            if (attr[1 + 3 * l + s] >= 0)
                attr[1 + 3 * l + s] = map[attr[1 + 3 * l + s]];
        int32_t source = b->in[0];
        if (shape.rank != x->rank)
            source = make(p, MB_OP_RESHAPE, &shape, &source, 1, NULL, 0);
        if (p->failed)
            return 0;
        int32_t operands[2] = {in[0], in[1]};
        operands[s] = source;
        return make(p, MB_OP_CONTRACT, n, operands, 2, attr, n->nattr);
    }
    return -1;
}

/* The sum of a contraction over axes that both operands have is a contraction over them as well. */
static int32_t sum_of_contract(pass *p, const mb__gnode *n, int32_t in)
{
    const mb__gnode *c = at(p, in);
    if (n->op != MB_OP_SUM || c->op != MB_OP_CONTRACT)
        return -1;
    int labels = (int)c->attr[0];
    int64_t attr[1 + 3 * 24];
    memcpy(attr, c->attr, (size_t)c->nattr * sizeof *attr);
    mb__gnode narrow = *c;
    narrow.rank = 0;
    int map[MB_MAX_RANK];
    for (int i = 0; i < c->rank; i++) {
        bool summed = n->dim[i] == 1 && c->dim[i] != 1;
        map[i] = summed ? -1 : narrow.rank;
        if (!summed)
            narrow.dim[narrow.rank++] = c->dim[i];
    }
    for (int l = 0; l < labels; l++) {
        int64_t *x = attr + 1 + 3 * l;
        if (x[2] < 0)
            continue;
        if (map[x[2]] < 0 && (x[0] < 0 || x[1] < 0))
            return -1;
        x[2] = map[x[2]];
    }
    int32_t r = make(p, MB_OP_CONTRACT, &narrow, c->in, 2, attr, c->nattr);
    return p->failed ? 0 : make(p, MB_OP_RESHAPE, n, &r, 1, NULL, 0);
}

static int32_t simplify_structure(pass *p, const mb__gnode *n, int32_t *in, bool single_use)
{
    double v;
    const mb__gnode *x = n->nin ? at(p, in[0]) : NULL;
    switch (n->op) {
    case MB_OP_RESHAPE:
        if (x->rank == n->rank && !memcmp(x->dim, n->dim, (size_t)n->rank * sizeof *n->dim))
            return in[0];
        if (x->op == MB_OP_RESHAPE) {
            const mb__gnode *source = at(p, x->in[0]);
            bool back =
                source->rank == n->rank && !memcmp(source->dim, n->dim, (size_t)n->rank * sizeof *n->dim);
            return back ? x->in[0] : make(p, MB_OP_RESHAPE, n, x->in, 1, NULL, 0);
        }
        if (literal(p, in[0], &v))
            return emit_literal(p, n, v);
        return -1;
    case MB_OP_PERMUTE: {
        if (literal(p, in[0], &v))
            return emit_literal(p, n, v);
        int64_t order[MB_MAX_RANK];
        bool identity = true;
        if (x->op != MB_OP_PERMUTE)
            return -1;
        for (int i = 0; i < n->rank; i++) {
            order[i] = x->attr[n->attr[i]];
            identity &= order[i] == i;
        }
        return identity ? x->in[0] : make(p, MB_OP_PERMUTE, n, x->in, 1, order, n->rank);
    }
    case MB_OP_BROADCAST:
        if (x->rank == n->rank && !memcmp(x->dim, n->dim, (size_t)n->rank * sizeof *n->dim))
            return in[0];
        if (x->op == MB_OP_BROADCAST)
            return make(p, MB_OP_BROADCAST, n, x->in, 1, NULL, 0);
        return -1;
    case MB_OP_SLICE:
    case MB_OP_WINDOW:
    case MB_OP_TAKE:
        return literal(p, in[0], &v) ? emit_literal(p, n, v) : -1;
    case MB_OP_PAD:
    case MB_OP_CUMSUM:
    case MB_OP_SCATTER_ADD:
        return is_neutral(p, in[0], 1) ? emit_literal(p, n, 0) : -1;
    case MB_OP_SUM:
        if (literal(p, in[0], &v) && mb__is_float(n->dtype)) {
            double times = 1;
            for (int i = 0; i < n->rank; i++)
                times *= n->dim[i] == 1 ? (double)x->dim[i] : 1;
            v = times > 0 ? v * times + 0.0 : 0; /* from 0 on: of no infinities, and of -0, it is 0 */
            return emit_literal(p, n, as_kernels_have_it(n->dtype, v));
        }
        if (x->op == MB_OP_SUM && single_use) {
            int64_t mask = n->attr[0] | x->attr[0];
            return make(p, MB_OP_SUM, n, x->in, 1, &mask, 1);
        }
        return single_use ? sum_of_contract(p, n, in[0]) : -1;
    case MB_OP_CONTRACT:
        if (is(p, in[0], 0) || is(p, in[1], 0))
            return emit_literal(p, n, 0);
        return contract_unbroadcast(p, n, in);
    default:
        return -1;
    }
}

static int32_t rewrite(pass *p, const mb__gnode *n, int32_t *in)
{
    if (mb__is_kind(n->op, MB_KIND_IDENTITY))
        return in[0];
    if (p->passes & MB_PASS_SIMPLIFY) {
        int32_t r = mb__is_elementwise(n->op)
                        ? simplify_elementwise(p, n, in)
                        : simplify_structure(p, n, in, n->nin && p->uses[n->in[0]] == 1);
        if (r >= 0 || p->failed)
            return r;
    }
    mb__gnode copy = *n;
    copy.in = in;
    if (n->op == MB_OP_BARRIER && n->nin > 2)
        copy.nin = 2; /* operand 2 is there for derivatives alone */
    /* One order of the operands of a commutative op, so that equal ones meet. */
    if (mb__has_flag(n->op, MB_FLAG_COMMUTES) && (p->passes & MB_PASS_MERGE) && in[0] > in[1]) {
        int32_t t = in[0];
        in[0] = in[1];
        in[1] = t;
    }
    return emit(p, &copy);
}

/* Keeps what the outputs need, in order. */
static mb_status drop_dead(mb__graph *g)
{
    int32_t *map = mb__bump_get(g->bump, (size_t)(g->count + 1) * sizeof *map);
    if (!map)
        return MB_NO_MEMORY;
    for (int i = 0; i < g->output_count; i++)
        map[g->outputs[i]] = 1;
    for (int i = g->count; i-- > 0;)
        for (int j = 0; map[i] && j < g->nodes[i].nin; j++)
            map[g->nodes[i].in[j]] = 1;
    int kept = 0;
    for (int i = 0; i < g->count; i++) {
        if (!map[i])
            continue;
        map[i] = kept;
        mb__gnode n = g->nodes[i];
        int32_t *in = mb__bump_get(g->bump, (size_t)(n.nin + 1) * sizeof *in);
        if (!in)
            return MB_NO_MEMORY;
        for (int j = 0; j < n.nin; j++)
            in[j] = map[n.in[j]];
        n.in = in;
        g->nodes[kept++] = n;
    }
    for (int i = 0; i < g->output_count; i++)
        g->outputs[i] = map[g->outputs[i]];
    g->count = kept;
    return MB_OK;
}

mb_status mb__simplify(mb__graph *g, unsigned passes)
{
    pass p = {.old = g, .fresh = *g, .passes = passes};
    p.fresh.nodes = NULL;
    p.fresh.count = 0;
    p.fresh.capacity =
        g->count + g->count / 8 + 64; /* most graphs fit; growing leaves the old array behind */
    if (!(p.fresh.nodes = mb__bump_get(g->bump, (size_t)p.fresh.capacity * sizeof *p.fresh.nodes)))
        return MB_NO_MEMORY;
    p.table_size = 64;
    while (p.table_size < 4u * (uint32_t)g->count)
        p.table_size *= 2;
    p.table = mb__bump_get(g->bump, p.table_size * sizeof *p.table);
    p.uses = mb__bump_get(g->bump, (size_t)(g->count + 1) * sizeof *p.uses);
    int32_t *map = mb__bump_get(g->bump, (size_t)(g->count + 1) * sizeof *map);
    if (!p.table || !p.uses || !map)
        return MB_NO_MEMORY;
    for (int i = 0; i < g->count; i++)
        for (int j = 0; j < g->nodes[i].nin; j++)
            p.uses[g->nodes[i].in[j]]++;
    for (int i = 0; i < g->output_count; i++)
        p.uses[g->outputs[i]]++;
    for (int i = 0; i < g->count && !p.failed; i++) {
        const mb__gnode *n = &g->nodes[i];
        int32_t *in = ids(&p, n->nin);
        for (int j = 0; in && j < n->nin; j++)
            in[j] = map[n->in[j]];
        if (in)
            map[i] = rewrite(&p, n, in);
    }
    if (p.failed)
        return MB_NO_MEMORY;
    for (int i = 0; i < g->output_count; i++)
        p.fresh.outputs[i] = map[g->outputs[i]];
    *g = p.fresh;
    /* Without the last pass what is gathered would be computed all the same. */
    if ((passes & (MB_PASS_SIMPLIFY | MB_PASS_DEAD)) == (MB_PASS_SIMPLIFY | MB_PASS_DEAD) &&
        (drop_dead(g) != MB_OK || mb__gather_pads(g) != MB_OK))
        return MB_NO_MEMORY;
    return passes & MB_PASS_DEAD ? drop_dead(g) : MB_OK;
}
