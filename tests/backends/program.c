/* SPDX-License-Identifier: MIT
 *
 * program.c - making random programs. An instruction is tried on a scratch context of the reference backend:
 * one that is refused, too large, or leaves the range of well-conditioned numbers is dropped. Comparisons,
 * sorts and maxima look at values to which a random leaf was added, so that rounding does not decide a tie.
 */
#include "program.h"

typedef struct maker {
    program *p;
    rng r;
    mb_context *ctx;
    mb_tensor v[PROGRAM_MOST];
    int64_t limit; /* elements of a value */
    bool empty;    /* many sizes are 0 */
} maker;

/* Appends it if it can be recorded and computed. Its number, or -1. */
static int append(maker *m, const instr *given)
{
    program *p = m->p;
    if (p->count == PROGRAM_MOST)
        return -1;
    int i = p->count;
    p->code[i] = *given;
    mb_tensor t = program_record(m->ctx, p, i, m->v, 1);
    bool good = mb_valid(t) && mb_error(m->ctx) == MB_OK && mb_count(t) <= m->limit;
    if (good) {
        double *x = values(t);
        for (int64_t k = 0; good && k < mb_count(t); k++)
            good = mb_dtype_of(t) == MB_INT32 ? fabs(x[k]) < 1e6 : isfinite(x[k]) && fabs(x[k]) < 8;
    }
    mb_clear_error(m->ctx);
    if (!good)
        return -1;
    p->code[i].shape = mb_shape_of(t);
    p->code[i].dtype = mb_dtype_of(t);
    m->v[i] = t;
    return p->count++;
}

static int64_t size(maker *m)
{
    static const int64_t sizes[] = {1, 2, 2, 3, 3, 4, 5, 5, 7, 8, 9, 16, 17, 33};
    int64_t n = sizes[rng_below(&m->r, 14)];
    return rng_below(&m->r, m->empty ? 4 : 60) == 0       ? 0
           : m->limit > 50000 && rng_below(&m->r, 4) == 0 ? n * 37
                                                          : n;
}

static int leaf(maker *m, int kind, mb_dtype dtype, mb_shape shape)
{
    instr x = {.kind = kind, .dtype = dtype, .target = shape};
    static const double numbers[] = {0, 1, -1, 0.5, 2, 0.3};
    x.number = numbers[rng_below(&m->r, 6)];
    if (dtype == MB_INT32)
        x.number = floor(x.number);
    return append(m, &x);
}

static int any_leaf(maker *m, mb_dtype dtype, mb_shape shape)
{
    static const int kinds[] = {K_BUFFER, K_BUFFER, K_BUFFER, K_VARIABLE, K_FULL, K_UNIFORM, K_NORMAL};
    int kind = kinds[rng_below(&m->r, 7)];
    if (dtype == MB_BOOL || (dtype == MB_INT32 && kind == K_NORMAL))
        kind = K_BUFFER;
    if (dtype == MB_INT32 && kind != K_FULL)
        kind = K_BUFFER;
    return leaf(m, kind, dtype, shape);
}

static mb_shape random_shape(maker *m)
{
    mb_shape s = {(int)rng_below(&m->r, 5), {0}};
    do
        for (int i = 0; i < s.rank; i++)
            s.dim[i] = size(m);
    while (shape_count(s) > m->limit / 2 && s.rank-- > 0);
    return s;
}

/* A value of the dtype, later ones more often; a new leaf when there is none. */
static int pick(maker *m, mb_dtype dtype, int least_rank)
{
    for (int tries = 0; tries < 40 && m->p->count; tries++) {
        int64_t n = m->p->count, i = rng_below(&m->r, n), j = rng_below(&m->r, n);
        i = i > j ? i : j;
        const instr *x = &m->p->code[i];
        if (x->dtype == dtype && x->shape.rank >= least_rank)
            return (int)i;
    }
    mb_shape s = random_shape(m);
    while (s.rank < least_rank)
        s.dim[s.rank++] = 1 + rng_below(&m->r, 5);
    return any_leaf(m, dtype, s);
}

static bool broadcasts(mb_shape a, mb_shape b)
{
    for (int i = 1; i <= a.rank && i <= b.rank; i++) {
        int64_t x = a.dim[a.rank - i], y = b.dim[b.rank - i];
        if (x != y && x != 1 && y != 1)
            return false;
    }
    return true;
}

/* A shape that broadcasts to s. */
static mb_shape narrower(maker *m, mb_shape s)
{
    int drop = (int)rng_below(&m->r, s.rank + 1);
    if (rng_below(&m->r, 2))
        drop = 0;
    mb_shape t = {s.rank - drop, {0}};
    for (int i = 0; i < t.rank; i++)
        t.dim[i] = rng_below(&m->r, 4) ? s.dim[i + drop] : 1;
    return t;
}

/* A partner for value a: one that broadcasts with it. */
static int partner(maker *m, int a, mb_dtype dtype)
{
    for (int tries = 0; tries < 12; tries++) {
        int b = (int)rng_below(&m->r, m->p->count);
        if (m->p->code[b].dtype == dtype && broadcasts(m->p->code[a].shape, m->p->code[b].shape))
            return b;
    }
    return any_leaf(m, dtype, narrower(m, m->p->code[a].shape));
}

static void random_axes(maker *m, int rank, mb_axes *axes)
{
    *axes = (mb_axes){0, rng_below(&m->r, 2), {0}};
    for (int i = 0; i < rank; i++)
        if (rng_below(&m->r, 2))
            axes->axis[axes->count++] = i;
    if (rng_below(&m->r, 6) == 0)
        axes->count = -1;
}

static mb_shape reshaped(maker *m, mb_shape s)
{
    mb_shape t = {0, {0}};
    int choice = (int)rng_below(&m->r, 3);
    for (int i = 0; i < s.rank; i++) {
        if (choice == 0 && t.rank && rng_below(&m->r, 2)) { /* join */
            t.dim[t.rank - 1] *= s.dim[i];
            continue;
        }
        int64_t d = s.dim[i], f = 2 + rng_below(&m->r, 3);
        if (choice == 1 && d > 0 && d % f == 0 && s.rank < 7) { /* split */
            t.dim[t.rank++] = f;
            d /= f;
        } else if (choice == 2 && s.rank < 6 && rng_below(&m->r, 2)) {
            t.dim[t.rank++] = 1;
        }
        if (t.rank == MB_MAX_RANK)
            return s;
        t.dim[t.rank++] = d;
    }
    return t;
}

static bool movement(maker *m, instr *x)
{
    int a = x->in[0];
    mb_shape s = m->p->code[a].shape;
    int axis = s.rank ? (int)rng_below(&m->r, s.rank) : 0;
    int64_t d = s.rank ? s.dim[axis] : 0;
    x->par[0] = axis;
    switch (x->kind) {
    case K_RESHAPE:
        x->target = reshaped(m, s);
        return true;
    case K_PERMUTE:
        x->axes = (mb_axes){s.rank, false, {0}};
        for (int i = 0; i < s.rank; i++) {
            int j = (int)rng_below(&m->r, i + 1);
            x->axes.axis[i] = x->axes.axis[j];
            x->axes.axis[j] = i;
        }
        return s.rank > 1;
    case K_BROADCAST:
        x->target = s;
        for (int i = 0; i < s.rank; i++)
            if (s.dim[i] == 1)
                x->target.dim[i] = 1 + rng_below(&m->r, 6);
        if (s.rank < 5 && rng_below(&m->r, 2)) {
            memmove(x->target.dim + 1, x->target.dim, (size_t)s.rank * sizeof *s.dim);
            x->target.dim[0] = 1 + rng_below(&m->r, 5);
            x->target.rank++;
        }
        return true;
    case K_SLICE: {
        if (!s.rank || d == 0)
            return false;
        int64_t step = 1 + rng_below(&m->r, 3), start = rng_below(&m->r, d),
                most = (d - 1 - start) / step + 1;
        if (rng_below(&m->r, 3) == 0)
            step = -step, most = start / -step + 1;
        x->par[1] = start;
        x->par[2] = rng_below(&m->r, 8) ? 1 + rng_below(&m->r, most) : most;
        x->par[3] = step;
        return true;
    }
    case K_PAD:
        x->par[1] = rng_below(&m->r, 3);
        x->par[2] = rng_below(&m->r, 3);
        return s.rank > 0;
    case K_WINDOWS: {
        if (!s.rank || d == 0 || s.rank == MB_MAX_RANK || m->p->code[a].dtype == MB_BOOL)
            return false;
        int64_t dilation = x->par[3] = 1 + rng_below(&m->r, 2);
        int64_t most = (d - 1) / dilation + 1;
        x->par[1] = 1 + rng_below(&m->r, most < 4 ? most : 4);
        x->par[2] = 1 + rng_below(&m->r, 3);
        return true;
    }
    default: /* concat and stack */
        if (x->kind == K_CONCAT && !s.rank)
            return false;
        for (int tries = 0; tries < 10 && x->nin < 3; tries++) {
            int b = (int)rng_below(&m->r, m->p->count);
            mb_shape t = m->p->code[b].shape;
            if (x->kind == K_CONCAT && t.rank == s.rank)
                t.dim[axis] = d;
            if (m->p->code[b].dtype == m->p->code[a].dtype && same_shape(s, t))
                x->in[x->nin++] = b;
        }
        return true;
    }
}

static bool matmul(maker *m, instr *x)
{
    mb_shape s = m->p->code[x->in[0]].shape, t = {2, {0}};
    int batch = (int)rng_below(&m->r, 2) * (s.rank - 2);
    t.rank = 2 + batch;
    for (int i = 0; i < batch; i++)
        t.dim[i] = rng_below(&m->r, 3) ? s.dim[s.rank - 2 - batch + i] : 1;
    t.dim[batch] = s.dim[s.rank - 1];
    t.dim[batch + 1] = size(m);
    for (int tries = 0; tries < 10; tries++) {
        int b = (int)rng_below(&m->r, m->p->count);
        mb_shape u = m->p->code[b].shape;
        if (m->p->code[b].dtype != m->p->dtype || u.rank < 2 || u.dim[u.rank - 2] != s.dim[s.rank - 1])
            continue;
        x->in[x->nin++] = b;
        return true;
    }
    x->in[x->nin++] = leaf(m, K_BUFFER, m->p->dtype, t);
    return x->in[1] >= 0;
}

/* Letters of a by axis; b gets some of them and new ones; the result a random part of both in random order.
 */
static bool einsum(maker *m, instr *x)
{
    mb_shape s = m->p->code[x->in[0]].shape, t = {0, {0}};
    char all[16], b[8], out[16], *e = x->equation;
    int n = 0, nb = 0, no = 0;
    for (int i = 0; i < s.rank; i++) {
        *e++ = all[n++] = (char)('a' + i);
        if (t.rank < 4 && rng_below(&m->r, 2)) {
            b[nb++] = (char)('a' + i);
            t.dim[t.rank++] = s.dim[i];
        }
    }
    for (int k = (int)rng_below(&m->r, 3); k > 0 && t.rank < 4; k--) {
        all[n++] = b[nb++] = (char)('p' + k);
        t.dim[t.rank++] = 1 + rng_below(&m->r, 6);
    }
    for (int i = nb; i-- > 1;) { /* b's axes in random order */
        int j = (int)rng_below(&m->r, i + 1);
        char c = b[i];
        int64_t d = t.dim[i];
        b[i] = b[j], b[j] = c;
        t.dim[i] = t.dim[j], t.dim[j] = d;
    }
    for (int i = 0; i < n; i++)
        if (rng_below(&m->r, 3)) {
            int j = (int)rng_below(&m->r, no + 1);
            out[no++] = out[j];
            out[j] = all[i];
        }
    e += sprintf(e, ",%.*s->%.*s", nb, b, no, out);
    x->in[x->nin++] = leaf(m, K_BUFFER, m->p->dtype, t);
    return x->in[1] >= 0;
}

static bool reduction(maker *m, instr *x)
{
    mb_shape s = m->p->code[x->in[0]].shape;
    random_axes(m, s.rank, &x->axes);
    x->par[0] = s.rank ? rng_below(&m->r, s.rank) : 0;
    x->par[1] = rng_below(&m->r, 2);
    if ((x->kind >= K_ARGMAX) && !s.rank)
        return false;
    if (x->kind == K_MAX || x->kind == K_MIN || x->kind == K_ARGMAX) {
        x->in[x->nin++] = leaf(m, K_BUFFER, m->p->dtype, s);
        return x->in[1] >= 0;
    }
    return true;
}

static bool indexing(maker *m, instr *x)
{
    mb_shape s = m->p->code[x->in[0]].shape;
    int axis = s.rank ? (int)rng_below(&m->r, s.rank) : 0;
    x->par[0] = axis;
    if (!s.rank)
        return false;
    if (x->kind == K_TAKE) {
        x->in[x->nin++] = pick(m, MB_INT32, 0);
    } else if (x->kind == K_SCATTER_ADD) {
        x->par[1] = 1 + rng_below(&m->r, 7);
        x->in[x->nin++] = leaf(m, K_BUFFER, MB_INT32, MB_SHAPE(s.dim[axis]));
    } else if (x->kind == K_TAKE_ALONG) {
        s.dim[s.rank - 1] = rng_below(&m->r, 2) ? s.dim[s.rank - 1] : 1 + rng_below(&m->r, 6);
        x->in[x->nin++] = leaf(m, K_BUFFER, MB_INT32, s);
    } else if (x->kind == K_ARGSORT) {
        x->in[x->nin++] = leaf(m, K_BUFFER, m->p->dtype, s);
    }
    return x->in[x->nin - 1] >= 0;
}

static bool operands(maker *m, instr *x)
{
    mb_dtype f = m->p->dtype;
    bool integer = rng_below(&m->r, 12) == 0;
    x->nin = 1;
    switch (x->kind) {
    case K_UNARY:
    case K_FUNCTION:
        x->in[0] = pick(m, f, x->kind == K_FUNCTION ? 1 : 0);
        break;
    case K_BINARY:
        x->in[0] = pick(m, integer ? MB_INT32 : f, 0);
        if (x->in[0] < 0)
            return false;
        x->in[x->nin++] = partner(m, x->in[0], integer ? MB_INT32 : f);
        break;
    case K_COMPARE:
        x->in[0] = pick(m, f, 0);
        if (x->in[0] < 0)
            return false;
        x->in[x->nin++] = leaf(m, K_BUFFER, f, narrower(m, m->p->code[x->in[0]].shape));
        break;
    case K_LOGIC:
        x->in[0] = pick(m, MB_BOOL, 0);
        if (x->in[0] < 0)
            return false;
        x->in[x->nin++] = partner(m, x->in[0], MB_BOOL);
        break;
    case K_WHERE:
        x->in[1] = pick(m, f, 0);
        if (x->in[1] < 0)
            return false;
        x->in[2] = partner(m, x->in[1], f);
        x->in[0] = partner(m, x->in[1], MB_BOOL);
        x->nin = 3;
        return x->in[0] >= 0 && x->in[2] >= 0;
    case K_CAST:
        x->in[0] = pick(m, rng_below(&m->r, 2) ? MB_BOOL : MB_INT32, 0);
        x->dtype = f;
        break;
    case K_ONE_HOT:
        x->in[0] = pick(m, MB_INT32, 0);
        x->par[0] = 1 + rng_below(&m->r, 6);
        break;
    default: {
        static const int least[K_KINDS] = {
            [K_MATMUL] = 2,     [K_EINSUM] = 1,  [K_PERMUTE] = 2, [K_SOFTMAX] = 1,
            [K_TAKE_ALONG] = 1, [K_ARGSORT] = 1, [K_CUMSUM] = 1};
        bool moves = x->kind >= K_RESHAPE && x->kind <= K_STACK;
        x->in[0] = pick(m, moves && integer ? rng_below(&m->r, 2) ? MB_INT32 : MB_BOOL : f, least[x->kind]);
        if (x->in[0] < 0)
            return false;
        if (moves)
            return movement(m, x);
        if (x->kind == K_MATMUL)
            return matmul(m, x);
        if (x->kind == K_EINSUM)
            return einsum(m, x);
        if (x->kind >= K_SUM && x->kind <= K_SOFTMAX)
            return reduction(m, x);
        if (x->kind >= K_TAKE && x->kind <= K_ARGSORT)
            return indexing(m, x);
    }
    }
    for (int i = 0; i < x->nin; i++)
        if (x->in[i] < 0)
            return false;
    return true;
}

/* The loss may be taken of floats only, and of few elements when derivatives nest. */
static void choose_outputs(maker *m)
{
    program *p = m->p;
    int wanted = 1 + (int)rng_below(&m->r, 4);
    for (int tries = 0; tries < 60 && p->output_count < wanted; tries++) {
        int64_t i = rng_below(&m->r, p->count), j = rng_below(&m->r, p->count);
        p->outputs[p->output_count++] = (int)(i > j ? i : j); /* also leaves, also twice the same */
    }
    for (int i = p->count - 1; i >= 0 && p->loss_count < 3; i--)
        if (p->code[i].dtype == p->dtype && p->code[i].kind > K_TRIL &&
            (p->loss_count == 0 || rng_below(&m->r, 3) == 0))
            p->loss[p->loss_count++] = i;
    static const int kinds[] = {D_NONE,  D_GRAD, D_GRAD, D_GRAD, D_GRAD2,
                                D_GRAD2, D_JVP,  D_HVP,  D_VJP,  D_GRAD3};
    p->derivative = p->loss_count ? kinds[rng_below(&m->r, 10)] : D_NONE;
    p->steps = rng_below(&m->r, 4) == 0 ? 3 : 0;
}

static void make(program *p, uint64_t seed, mb_dtype dtype, bool empty)
{
    memset(p, 0, sizeof *p);
    p->seed = seed;
    p->dtype = dtype;
    maker m = {
        .p = p, .r = {seed * 0x9e3779b97f4a7c15u + 77}, .ctx = open_as("reference", "", 1), .empty = empty};
    m.limit = seed % 16 == 0 ? 150000 : seed % 4 == 0 ? 20000 : 2000;
    int length = seed % 16 == 0 ? 8 : 4 + (int)rng_below(&m.r, seed % 3 ? 14 : 40);
    for (int made = 0, tries = 0; made < length && tries < 10 * length && p->count < PROGRAM_MOST; tries++) {
        int kind = (int)rng_below(&m.r, K_KINDS);
        if (rng_below(&m.r, 4) == 0)
            kind = rng_below(&m.r, 2) ? K_UNARY : K_BINARY;
        int64_t choices = program_choices(kind);
        instr x = {.kind = kind, .par = {choices ? rng_below(&m.r, choices) : 0}};
        if (kind <= K_TRIL) {
            if (rng_below(&m.r, 3))
                continue;
            mb_shape s = random_shape(&m);
            bool counts = rng_below(&m.r, 4) == 0;
            made += leaf(&m, kind, counts && (kind == K_BUFFER || kind == K_IOTA) ? MB_INT32 : dtype, s) >= 0;
        } else if (operands(&m, &x)) {
            made += append(&m, &x) >= 0;
        }
    }
    choose_outputs(&m);
    mb_clear_error(m.ctx);
    close_failed(m.ctx);
}

void program_make(program *p, uint64_t seed, mb_dtype dtype)
{
    make(p, seed, dtype, false);
}

void program_make_empty(program *p, uint64_t seed, mb_dtype dtype)
{
    make(p, seed, dtype, true);
}
