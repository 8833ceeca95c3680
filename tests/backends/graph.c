/* SPDX-License-Identifier: MIT
 *
 * graph.c - random programs for the planner: what they compute matters less than how values are shared. Sizes
 * are few and often equal, so that shapes fit each other in several ways; values are reduced with their axes
 * kept, unsqueezed, turned, and read again by others; many are results.
 *
 * Nothing is computed while one is made: shapes are inferred here, and a bound on each value's size, which
 * bounded functions bring down again, keeps numbers in the range where rounding stays small.
 */
#include "program.h"

enum { BOUND_MOST = 12, RANK_MOST = 4 };

typedef struct maker {
    program *p;
    rng r;
    int64_t size[3]; /* what axes are made of */
    double bound[PROGRAM_MOST];
    int64_t limit; /* elements of a value */
} maker;

static int below(maker *m, int n)
{
    return (int)rng_below(&m->r, n);
}

/* Appends the instruction; its number, or -1 where there is no room for it or its value. */
static int append(maker *m, const instr *x, double bound)
{
    program *p = m->p;
    if (p->count == PROGRAM_MOST || x->shape.rank > RANK_MOST || shape_count(x->shape) > m->limit ||
        bound > BOUND_MOST)
        return -1;
    p->code[p->count] = *x;
    m->bound[p->count] = bound;
    return p->count++;
}

static int leaf(maker *m, mb_shape shape)
{
    static const int kinds[] = {K_BUFFER, K_BUFFER, K_BUFFER, K_VARIABLE, K_UNIFORM, K_FULL};
    static const double numbers[] = {0, 1, -1, 0.5, 2, -0.3};
    instr x = {.kind = kinds[below(m, 6)], .dtype = m->p->dtype, .shape = shape, .target = shape};
    x.number = numbers[below(m, 6)];
    return append(m, &x, 2);
}

/* Of any dtype; what is no float comes from the caller's memory, and is in [0, 6). */
static int leaf_of(maker *m, mb_shape shape, mb_dtype dtype)
{
    if (dtype == m->p->dtype)
        return leaf(m, shape);
    instr x = {.kind = K_BUFFER, .dtype = dtype, .shape = shape, .target = shape};
    return append(m, &x, 6);
}

static bool is_float(mb_dtype dtype)
{
    return dtype == MB_FLOAT32 || dtype == MB_FLOAT64 || dtype == MB_FLOAT16 || dtype == MB_BFLOAT16;
}

/* Values are so far from each other's rounding that it may decide nothing. */
static bool is_rough(const maker *m)
{
    return m->p->dtype == MB_FLOAT16 || m->p->dtype == MB_BFLOAT16;
}

static mb_shape random_shape(maker *m)
{
    mb_shape s = {1 + below(m, 3), {0}};
    for (int i = 0; i < s.rank; i++)
        s.dim[i] = below(m, 5) ? m->size[below(m, 3)] : 1;
    while (shape_count(s) > m->limit)
        s.rank--;
    return s;
}

static bool broadcast(mb_shape a, mb_shape b, mb_shape *out)
{
    out->rank = a.rank > b.rank ? a.rank : b.rank;
    for (int i = 1; i <= out->rank; i++) {
        int64_t x = i <= a.rank ? a.dim[a.rank - i] : 1, y = i <= b.rank ? b.dim[b.rank - i] : 1;
        if (x != y && x != 1 && y != 1)
            return false;
        out->dim[out->rank - i] = x == 1 ? y : x;
    }
    return true;
}

/* A value, the later ones more often. */
static int pick(maker *m)
{
    int n = m->p->count, i = below(m, n), j = below(m, n);
    return below(m, 2) && j > i ? j : i;
}

/* A value that broadcasts with the shape, of another shape rather than of its own. */
static int partner(maker *m, mb_shape s, mb_shape *both)
{
    for (int tries = 0; tries < 10; tries++) {
        int b = pick(m);
        mb_shape t = m->p->code[b].shape;
        if (m->p->code[b].dtype == m->p->dtype && broadcast(s, t, both) && (tries > 4 || !same_shape(s, t)))
            return b;
    }
    for (int i = 0; i < s.rank && below(m, 2); i++)
        s.dim[i] = s.dim[i] == 1 ? m->size[below(m, 3)] : s.dim[i];
    *both = s;
    return leaf(m, s);
}

/* ---- one instruction of each kind; -1 where it does not fit ---- */

static int unary(maker *m, int a)
{
    /* neg, sin, cos, tanh, sigmoid, half, less of program_run.c; and square, abs while there is room */
    static const int bounded[] = {3, 4, 5, 6}, loose[] = {0, 8, 18, 24, 25};
    bool narrows = m->bound[a] > 3 || below(m, 2);
    instr x = {.kind = K_UNARY, .nin = 1, .in = {a}, .dtype = m->p->dtype, .shape = m->p->code[a].shape};
    x.par[0] = narrows ? bounded[below(m, 4)] : loose[below(m, 5)];
    double b = m->bound[a];
    return append(m, &x, narrows ? 1 : x.par[0] == 8 ? b * b : x.par[0] == 25 ? b + 0.75 : b + 0.13);
}

static int binary(maker *m, int a)
{
    instr x = {.kind = K_BINARY, .nin = 2, .in = {a}, .dtype = m->p->dtype};
    x.in[1] = partner(m, m->p->code[a].shape, &x.shape);
    if (x.in[1] < 0 || !broadcast(m->p->code[a].shape, m->p->code[x.in[1]].shape, &x.shape))
        return -1;
    if (below(m, 2))
        x.in[0] = x.in[1], x.in[1] = a;
    x.par[0] = below(m, 4); /* add, sub, mul, mul */
    double b = m->bound[x.in[0]], c = m->bound[x.in[1]];
    return append(m, &x, x.par[0] < 2 ? b + c : b * c);
}

/* ---- other dtypes: exact, whatever computes them ---- */

/* A value of the dtype that broadcasts with the shape, or a new leaf. */
static int partner_of(maker *m, mb_shape s, mb_dtype dtype, mb_shape *both)
{
    for (int tries = 0; tries < 10; tries++) {
        int b = pick(m);
        if (m->p->code[b].dtype == dtype && broadcast(s, m->p->code[b].shape, both))
            return b;
    }
    mb_shape t = s;
    for (int i = 0; i < t.rank; i++)
        t.dim[i] = below(m, 3) ? t.dim[i] : 1;
    int b = leaf_of(m, t, dtype);
    return b >= 0 && broadcast(s, m->p->code[b].shape, both) ? b : -1;
}

static mb_dtype other_dtype(maker *m)
{
    static const mb_dtype all[] = {MB_INT32, MB_INT32,   MB_INT64,    MB_UINT8,
                                   MB_BOOL,  MB_FLOAT16, MB_BFLOAT16, MB_FLOAT32};
    return all[below(m, 8)];
}

static int cast(maker *m, int a, mb_dtype dtype)
{
    instr x = {.kind = K_CAST, .nin = 1, .in = {a}, .dtype = dtype, .shape = m->p->code[a].shape};
    return append(m, &x, m->bound[a]);
}

/* A value of another dtype, from the caller's memory, or cast from such a one. */
static int other(maker *m, int a)
{
    mb_shape s = below(m, 2) ? m->p->code[a].shape : random_shape(m);
    int b = leaf_of(m, s, other_dtype(m));
    return b < 0 || below(m, 3) ? b : cast(m, b, is_float(m->p->code[b].dtype) ? MB_INT32 : other_dtype(m));
}

static int compare(maker *m, int a)
{
    instr x = {.kind = K_COMPARE, .nin = 2, .in = {a}, .dtype = MB_BOOL, .par = {below(m, 3)}};
    if (m->p->code[a].dtype == MB_BOOL)
        x.kind = K_LOGIC;
    x.in[1] = partner_of(m, m->p->code[a].shape, m->p->code[a].dtype, &x.shape);
    return x.in[1] < 0 || !broadcast(m->p->code[a].shape, m->p->code[x.in[1]].shape, &x.shape)
               ? -1
               : append(m, &x, 1);
}

static int mask(maker *m, int a)
{
    mb_dtype dtype = m->p->code[a].dtype;
    mb_shape both;
    instr x = {.kind = K_WHERE, .nin = 3, .dtype = dtype};
    x.in[1] = a;
    x.in[2] = partner_of(m, m->p->code[a].shape, dtype, &both);
    x.in[0] = x.in[2] < 0 ? -1 : partner_of(m, both, MB_BOOL, &x.shape);
    return x.in[0] < 0 ? -1 : append(m, &x, fmax(m->bound[a], m->bound[x.in[2]]));
}

static int integer_dtype(maker *m)
{
    static const mb_dtype kinds[] = {MB_INT32, MB_INT64, MB_UINT8};
    return kinds[below(m, 3)];
}

/* A value taken by indices along an axis, along the last one, or added up by them. */
static int indexed(maker *m, int a)
{
    static const int kinds[] = {K_TAKE, K_TAKE, K_TAKE_ALONG, K_SCATTER_ADD};
    mb_shape s = m->p->code[a].shape, t = {below(m, 3), {0}};
    instr x = {.kind = kinds[below(m, m->p->code[a].dtype == m->p->dtype ? 4 : 3)],
               .nin = 2,
               .in = {a},
               .dtype = m->p->code[a].dtype,
               .shape = s};
    if (!s.rank || shape_count(s) == 0)
        return -1;
    int axis = below(m, s.rank);
    double bound = m->bound[a];
    x.par[0] = axis;
    for (int i = 0; i < t.rank; i++)
        t.dim[i] = m->size[below(m, 3)];
    if (x.kind == K_TAKE) {
        x.shape.rank = 0;
        for (int i = 0; i < s.rank; i++)
            for (int j = 0; j < (i == axis ? t.rank : 1); j++) {
                if (x.shape.rank == RANK_MOST)
                    return -1;
                x.shape.dim[x.shape.rank++] = i == axis ? t.dim[j] : s.dim[i];
            }
    } else if (x.kind == K_TAKE_ALONG) {
        t = s;
        x.shape.dim[s.rank - 1] = t.dim[s.rank - 1] = m->size[below(m, 3)];
    } else {
        t = (mb_shape){1, {s.dim[axis]}};
        x.shape.dim[axis] = x.par[1] = 1 + below(m, 7);
        bound *= (double)s.dim[axis];
    }
    mb_shape both;
    int found = below(m, 2) ? partner_of(m, t, integer_dtype(m), &both) : -1;
    x.in[1] = found >= 0 && same_shape(m->p->code[found].shape, t) ? found : leaf_of(m, t, integer_dtype(m));
    return x.in[1] < 0 ? -1 : append(m, &x, bound);
}

static int one_hot(maker *m, int a)
{
    instr x = {.kind = K_ONE_HOT, .nin = 1, .in = {a}, .dtype = MB_BOOL, .shape = m->p->code[a].shape};
    x.par[0] = m->size[below(m, 3)];
    x.shape.dim[x.shape.rank < MB_MAX_RANK ? x.shape.rank++ : 0] = x.par[0];
    return append(m, &x, 1);
}

static int count(maker *m, int a)
{
    instr x = {.kind = K_BINARY, .nin = 2, .in = {a}, .dtype = MB_INT32, .par = {below(m, 5)}};
    x.in[1] = partner_of(m, m->p->code[a].shape, MB_INT32, &x.shape);
    if (x.in[1] < 0 || !broadcast(m->p->code[a].shape, m->p->code[x.in[1]].shape, &x.shape))
        return -1;
    double b = m->bound[a], c = m->bound[x.in[1]];
    return append(m, &x, x.par[0] < 2 ? b + c : x.par[0] == 2 ? b * c : fmax(b, c));
}

static int checkpoint(maker *m, int a)
{
    instr x = {.kind = K_CHECKPOINT, .nin = 2, .in = {a}, .dtype = m->p->dtype};
    x.in[1] = partner(m, m->p->code[a].shape, &x.shape);
    x.par[0] = below(m, 3);
    x.par[1] = below(m, 2);
    if (x.in[1] < 0 || !broadcast(m->p->code[a].shape, m->p->code[x.in[1]].shape, &x.shape) ||
        shape_count(x.shape) == 0 || !same_shape(x.shape, m->p->code[a].shape))
        return -1;
    return append(m, &x, 1);
}

static int batched(maker *m, int a)
{
    mb_shape s = m->p->code[a].shape;
    instr x = {.kind = K_VMAP, .nin = 1, .in = {a}, .dtype = m->p->dtype};
    if (!s.rank || shape_count(s) == 0)
        return -1;
    x.par[0] = below(m, s.rank);
    x.par[1] = below(m, 3);
    x.shape = (mb_shape){1, {s.dim[x.par[0]]}};
    for (int i = 0; i < s.rank; i++)
        if (i != x.par[0])
            x.shape.dim[x.shape.rank++] = s.dim[i];
    double each = (double)(shape_count(s) / x.shape.dim[0]), b = m->bound[a];
    if (x.par[1] == 1)
        x.shape = (mb_shape){2, {x.shape.dim[0], shape_count(s) / x.shape.dim[0]}};
    return append(m, &x, x.par[1] == 0 ? 1 + b : x.par[1] == 1 ? 1 + 0.1 * each : 1 + 2 * b);
}

static int custom(maker *m, int a)
{
    mb_shape s = m->p->code[a].shape;
    instr x = {.kind = K_CUSTOM, .nin = 1, .in = {a}, .dtype = m->p->dtype, .shape = s, .par = {below(m, 2)}};
    return is_rough(m) || !s.rank ? -1 : append(m, &x, m->bound[a]);
}

/* In float64 that would be rounded to float32: one rounding decides what the next ones are. */
static int wide(maker *m, int a)
{
    instr x = {.kind = K_WIDE, .nin = 1, .in = {a}, .dtype = m->p->dtype, .shape = m->p->code[a].shape};
    return m->p->dtype == MB_FLOAT64 ? -1 : append(m, &x, 1);
}

static int choose(maker *m, int a)
{
    mb_shape both;
    int b = partner(m, m->p->code[a].shape, &both);
    if (b < 0 || !broadcast(m->p->code[a].shape, m->p->code[b].shape, &both))
        return -1;
    if (is_rough(m))
        return mask(m, a);
    int u = leaf(m, both);
    instr c = {.kind = K_COMPARE, .nin = 2, .in = {u, a}, .dtype = MB_BOOL, .shape = both};
    if (u >= 0)
        m->p->code[u].kind = K_BUFFER; /* a literal could be what rounding decides about */
    int mask = u < 0 ? -1 : append(m, &c, 1);
    instr x = {.kind = K_WHERE, .nin = 3, .in = {mask, a, b}, .dtype = m->p->dtype, .shape = both};
    return mask < 0 ? -1 : append(m, &x, m->bound[a] > m->bound[b] ? m->bound[a] : m->bound[b]);
}

static int reduce(maker *m, int a)
{
    static const int kinds[] = {K_SUM, K_SUM, K_SUM, K_MEAN, K_MAX, K_MAX, K_MIN, K_SOFTMAX};
    mb_shape s = m->p->code[a].shape;
    instr x = {.kind = kinds[below(m, 8)], .nin = 1, .in = {a}, .dtype = m->p->dtype};
    if (is_rough(m) && (x.kind == K_MAX || x.kind == K_MIN))
        x.kind = K_SUM;
    x.axes = (mb_axes){0, below(m, 4) != 0, {0}};
    double count = 1;
    if (x.kind == K_SOFTMAX) {
        x.axes.keep = false;
        x.par[0] = below(m, s.rank ? s.rank : 1);
        x.shape = s;
        return s.rank ? append(m, &x, 1) : -1;
    }
    int only = below(m, 3) ? below(m, s.rank + 1) : -1; /* one axis, or any */
    for (int i = 0; i < s.rank; i++) {
        bool out = only >= 0 ? i == only : below(m, 2);
        if (out) {
            x.axes.axis[x.axes.count++] = i;
            count *= (double)s.dim[i];
        }
        if (!out || x.axes.keep)
            x.shape.dim[x.shape.rank++] = out ? 1 : s.dim[i];
    }
    if (!x.axes.count || (count == 0 && x.kind != K_SUM)) /* of nothing: NaN, infinity */
        return -1;
    if (x.kind == K_MAX || x.kind == K_MIN) { /* of what has no equals */
        x.in[x.nin++] = leaf(m, s);
        if (x.in[1] < 0)
            return -1;
        m->p->code[x.in[1]].kind = K_BUFFER;
    }
    return append(m, &x, x.kind == K_SUM ? m->bound[a] * count : m->bound[a] + (x.nin == 2 ? 2 : 0));
}

/* The same elements: an axis of 1 more, or less, or two axes made one. */
static int reshape(maker *m, int a)
{
    mb_shape s = m->p->code[a].shape;
    instr x = {.kind = K_RESHAPE, .nin = 1, .in = {a}, .dtype = m->p->code[a].dtype};
    int at = below(m, s.rank + 1), choice = below(m, 5);
    mb_shape t = {0, {0}};
    for (int i = 0; i <= s.rank; i++) {
        if (choice < 3 && i == at)
            t.dim[t.rank++] = 1;
        if (i == s.rank || (choice == 3 && i == at && s.dim[i] == 1))
            continue;
        if (choice == 4 && i == at && i > 0)
            t.dim[t.rank - 1] *= s.dim[i];
        else
            t.dim[t.rank++] = s.dim[i];
    }
    x.shape = x.target = t;
    return append(m, &x, m->bound[a]);
}

static int permute(maker *m, int a)
{
    mb_shape s = m->p->code[a].shape;
    instr x = {
        .kind = K_PERMUTE, .nin = 1, .in = {a}, .dtype = m->p->code[a].dtype, .axes = {s.rank, false, {0}}};
    for (int i = 0; i < s.rank; i++) {
        int j = below(m, i + 1);
        x.axes.axis[i] = x.axes.axis[j];
        x.axes.axis[j] = i;
    }
    x.shape.rank = s.rank;
    for (int i = 0; i < s.rank; i++)
        x.shape.dim[i] = s.dim[x.axes.axis[i]];
    return s.rank > 1 ? append(m, &x, m->bound[a]) : -1;
}

static int repeat(maker *m, int a)
{
    instr x = {.kind = K_BROADCAST, .nin = 1, .in = {a}, .dtype = m->p->code[a].dtype};
    x.shape = m->p->code[a].shape;
    for (int i = 0; i < x.shape.rank; i++)
        if (x.shape.dim[i] == 1)
            x.shape.dim[i] = m->size[below(m, 3)];
    if (x.shape.rank < 3 && below(m, 2)) {
        memmove(x.shape.dim + 1, x.shape.dim, (size_t)x.shape.rank++ * sizeof *x.shape.dim);
        x.shape.dim[0] = m->size[below(m, 3)];
    }
    x.target = x.shape;
    return append(m, &x, m->bound[a]);
}

/* Slice, pad, concat or cumsum along an axis. */
static int along_axis(maker *m, int a)
{
    static const int kinds[] = {K_SLICE, K_SLICE, K_PAD, K_CONCAT, K_CUMSUM, K_WINDOWS};
    mb_shape s = m->p->code[a].shape;
    bool number = m->p->code[a].dtype == m->p->dtype || m->p->code[a].dtype == MB_INT32;
    instr x = {.kind = kinds[below(m, number ? 6 : 4)],
               .nin = 1,
               .in = {a},
               .dtype = m->p->code[a].dtype,
               .shape = s};
    if (!s.rank || (x.kind == K_WINDOWS && m->p->code[a].dtype != m->p->dtype))
        return -1;
    int axis = below(m, s.rank);
    int64_t d = s.dim[axis];
    x.par[0] = axis;
    double bound = m->bound[a];
    switch (x.kind) {
    case K_SLICE:
        if (!d)
            return -1;
        x.par[3] = below(m, 3) ? 1 : -1;
        x.par[1] = below(m, (int)d);
        x.par[2] = 1 + below(m, (int)(x.par[3] > 0 ? d - x.par[1] : x.par[1] + 1));
        x.shape.dim[axis] = x.par[2];
        break;
    case K_PAD:
        x.par[1] = below(m, 3);
        x.par[2] = below(m, 3);
        x.shape.dim[axis] += x.par[1] + x.par[2];
        break;
    case K_WINDOWS:
        if (!d)
            return -1;
        x.par[1] = 1 + below(m, (int)(d < 3 ? d : 3));
        x.par[2] = 1 + below(m, 2);
        x.par[3] = 1;
        bound *= (double)x.par[1]; /* as many windows meet at an element */
        break;
    case K_CONCAT:
        x.in[x.nin++] = a;
        x.in[x.nin++] = leaf_of(m, s, x.dtype);
        if (x.in[2] < 0)
            return -1;
        x.shape.dim[axis] *= 3;
        bound = bound > 2 ? bound : 2;
        break;
    default:
        x.par[1] = below(m, 2);
        bound *= (double)d;
    }
    return append(m, &x, bound);
}

static int matmul(maker *m, int a)
{
    mb_shape s = m->p->code[a].shape;
    if (s.rank < 2)
        return -1;
    mb_shape t = {2, {s.dim[s.rank - 1], m->size[below(m, 3)]}};
    instr x = {.kind = K_MATMUL, .nin = 2, .in = {a}, .dtype = m->p->dtype, .shape = s};
    x.in[1] = leaf(m, t);
    x.shape.dim[s.rank - 1] = t.dim[1];
    return x.in[1] < 0 ? -1 : append(m, &x, m->bound[a] * 2 * 0.3 * (double)t.dim[0]);
}

/* A value that can be sliced in a loop whose carry is of this shape: after its first axis it broadcasts. */
static int sliced(maker *m, mb_shape s)
{
    enum { STEPS_MOST = 13 };
    for (int tries = 0; tries < 20; tries++) {
        int b = pick(m);
        mb_shape t = m->p->code[b].shape, rest = {t.rank - 1, {0}}, both;
        if (!t.rank || t.dim[0] > STEPS_MOST || m->p->code[b].dtype != m->p->dtype)
            continue;
        memcpy(rest.dim, t.dim + 1, (size_t)rest.rank * sizeof *t.dim);
        if (broadcast(s, rest, &both) && same_shape(s, both))
            return b;
    }
    mb_shape t = {1, {m->size[below(m, 3)]}};
    if (t.dim[0] > STEPS_MOST)
        t.dim[0] = 2;
    for (int i = 0; i < s.rank && t.rank < RANK_MOST && (i || s.rank < RANK_MOST); i++)
        t.dim[t.rank++] = below(m, 3) ? s.dim[i] : 1;
    return leaf(m, t);
}

static int scan(maker *m, int a)
{
    mb_shape s = m->p->code[a].shape, both;
    instr x = {.kind = K_SCAN, .nin = 3, .in = {a}, .dtype = m->p->dtype, .shape = s};
    static const int keeps[] = {0, 0, 0, 2, MB_KEEP_SQRT, MB_KEEP_LOG};
    x.in[1] = sliced(m, s);
    x.in[2] = partner(m, s, &both);
    if (x.in[1] < 0 || x.in[2] < 0 || shape_count(s) == 0) /* a mean of nothing */
        return -1;
    if (!broadcast(s, m->p->code[x.in[2]].shape, &both) || !same_shape(s, both))
        x.in[2] = a;
    x.par[0] = below(m, 3);
    x.par[1] = below(m, 2);
    x.par[2] = below(m, 3);
    x.par[3] = keeps[below(m, 6)];
    double b = m->bound[a] > 1 ? m->bound[a] : 1;
    if (x.par[2]) {
        x.shape = (mb_shape){1, {m->p->code[x.in[1]].shape.dim[0]}};
        for (int i = 0; i < s.rank && x.par[2] == 1; i++)
            x.shape.dim[x.shape.rank++] = s.dim[i];
        b *= x.par[2] == 2 ? m->bound[x.in[1]] * (double)shape_count(s) : 1;
    }
    return append(m, &x, b);
}

/* A reduction's result, and something made of it, read by several in the arrangements that fit. */
static void share(maker *m, int a)
{
    int s = reduce(m, a);
    if (s >= 0 && below(m, 3))
        s = unary(m, s);
    for (int readers = 1 + below(m, 3); readers > 0 && s >= 0; readers--) {
        int arranged = below(m, 2) ? reshape(m, s) : below(m, 4) ? s : permute(m, s);
        int reader = arranged < 0 ? -1 : binary(m, arranged);
        if (reader >= 0 && below(m, 4) == 0)
            reduce(m, reader);
    }
}

/* Something of a value of another dtype. */
static int add_other(maker *m, int a)
{
    mb_dtype dtype = m->p->code[a].dtype;
    bool whole = dtype == MB_INT32 || dtype == MB_INT64 || dtype == MB_UINT8;
    switch (below(m, 12)) {
    case 0:
    case 1:
        return compare(m, a);
    case 2:
        return mask(m, a);
    case 3:
        return whole ? one_hot(m, a) : -1;
    case 4:
        return indexed(m, a);
    case 5:
        return reshape(m, a);
    case 6:
        return permute(m, a);
    case 7:
        return repeat(m, a);
    case 8:
        return along_axis(m, a);
    case 9:
        return dtype == MB_INT32 ? count(m, a) : -1;
    default:
        return cast(m, a, m->p->dtype);
    }
}

static void add_one(maker *m)
{
    int a = pick(m), kind = below(m, 48);
    if (m->p->code[a].dtype != m->p->dtype) {
        add_other(m, a);
        return;
    }
    if (kind >= 32 && kind < 36) {
        share(m, a);
        return;
    }
    int made = kind < 7    ? unary(m, a)
               : kind < 16 ? binary(m, a)
               : kind < 21 ? reduce(m, a)
               : kind < 25 ? reshape(m, a)
               : kind < 27 ? permute(m, a)
               : kind < 28 ? repeat(m, a)
               : kind < 30 ? along_axis(m, a)
               : kind < 31 ? matmul(m, a)
               : kind < 32 ? choose(m, a)
               : kind < 38 ? scan(m, a)
               : kind < 41 ? other(m, a)
               : kind < 42 ? mask(m, a)
               : kind < 44 ? indexed(m, a)
               : kind < 45 ? checkpoint(m, a)
               : kind < 46 ? batched(m, a)
               : kind < 47 ? custom(m, a)
                           : wide(m, a);
    if (made < 0) /* too large, mostly: what is bounded fits */
        unary(m, a);
}

static void choose_results(maker *m)
{
    program *p = m->p;
    int wanted = 1 + below(m, OUTPUTS_MOST);
    for (int tries = 0; tries < 40 && p->output_count < wanted; tries++)
        p->outputs[p->output_count++] = pick(m);
    for (int i = p->count - 1; i >= 0 && p->loss_count < 2; i--)
        if (p->code[i].dtype == p->dtype && p->code[i].kind > K_TRIL && (!p->loss_count || below(m, 3) == 0))
            p->loss[p->loss_count++] = i;
    static const int kinds[] = {D_NONE, D_NONE, D_NONE, D_NONE, D_GRAD, D_GRAD, D_GRAD2, D_JVP, D_HVP, D_VJP};
    p->derivative = p->loss_count ? kinds[below(m, 10)] : D_NONE;
    p->steps = below(m, 6) == 0 ? 2 : 0;
}

void program_make_graph(program *p, uint64_t seed, mb_dtype dtype)
{
    memset(p, 0, sizeof *p);
    p->seed = seed;
    p->dtype = dtype;
    maker m = {.p = p, .r = {seed * 0x9e3779b97f4a7c15u + 31}, .limit = 1500};
    static const int sizes[] = {2, 2, 3, 3, 4, 5, 6, 7, 9, 13};
    int cube = below(&m, 3);
    for (int i = 0; i < 3; i++)
        m.size[i] = cube && i ? m.size[0] : sizes[below(&m, 10)];
    if (cube == 1) /* all but one are equal */
        m.size[2] = sizes[below(&m, 10)];
    int rare = below(&m, 40);
    if (rare == 0)
        m.size[below(&m, 3)] = 0;
    else if (rare == 1) { /* past the ends of tiles and of rows that stay in registers */
        m.size[below(&m, 3)] = 40 + below(&m, 2000);
        m.limit = 40000;
    }
    int length = 3 + below(&m, below(&m, 4) ? 12 : 30);
    leaf(&m, random_shape(&m));
    for (int i = 0; i < 3; i++)
        leaf(&m, random_shape(&m));
    for (int tries = 0; tries < 3 * length && p->count < length + 4; tries++)
        add_one(&m);
    choose_results(&m);
}
