/* SPDX-License-Identifier: MIT
 * vmapped.c - a function vmapped and looped over, with its derivatives. */
#include "vmapped.h"

/* Which operands are batched, and along which axes; that of the result. */
typedef struct set {
    unsigned batched;
    int axis[OPERANDS], out;
} set;

static mb_dtype dtype_of(const mapped *c, int i)
{
    return c->dtype[i] == MB_FLOAT32 ? MB_FLOAT64 : c->dtype[i];
}

static mb_shape widened(mb_shape shape, int axis)
{
    memmove(shape.dim + axis + 1, shape.dim + axis, (size_t)(shape.rank++ - axis) * sizeof *shape.dim);
    shape.dim[axis] = EXAMPLES;
    return shape;
}

static mb_tensor by_vmap(mb_context *ctx, const mapped *c, const set *s, const mb_tensor *xs)
{
    mb_tensor in[OPERANDS], ys;
    mb_vmap v = mb_vmap_begin(ctx, EXAMPLES);
    for (int i = 0; i < c->n; i++)
        in[i] = s->batched >> i & 1 ? mb_vmap_in(v, xs[i], s->axis[i]) : xs[i];
    mb_vmap_out(v, c->f(ctx, in, c->user), s->out, &ys);
    mb_vmap_end(v);
    return ys;
}

static mb_tensor by_loop(mb_context *ctx, const mapped *c, const set *s, const mb_tensor *xs)
{
    mb_tensor in[OPERANDS], ys[EXAMPLES];
    for (int k = 0; k < EXAMPLES; k++) {
        for (int i = 0; i < c->n; i++)
            in[i] =
                s->batched >> i & 1 ? mb_squeeze(mb_slice(xs[i], s->axis[i], k, 1, 1), s->axis[i]) : xs[i];
        ys[k] = c->f(ctx, in, c->user);
    }
    return mb_stack(ys, EXAMPLES, s->out);
}

/* Values; then by each float operand the derivatives along random directions, to the order. */
typedef struct numbers {
    double *v[1 + 2 * OPERANDS];
    int64_t count[1 + 2 * OPERANDS];
    int n;
} numbers;

static void add(numbers *to, mb_tensor t)
{
    to->count[to->n] = mb_count(t);
    to->v[to->n++] = values(t);
}

static numbers numbers_of(mb_context *ctx, const mapped *c, const set *s, const mb_tensor *xs, bool vmap)
{
    numbers all = {.n = 0};
    mb_tensor y = vmap ? by_vmap(ctx, c, s, xs) : by_loop(ctx, c, s, xs), by[OPERANDS], g[OPERANDS], line;
    add(&all, y);
    int n = 0, orders = c->orders ? c->orders : 2;
    for (int i = 0; i < c->n; i++)
        if (dtype_of(c, i) == MB_FLOAT64)
            by[n++] = xs[i];
    if (mb_dtype_of(y) != MB_FLOAT64 || !n)
        return all;
    line = mb_sum(mb_mul(y, mb_normal(ctx, mb_key_of(1), MB_FLOAT64, mb_shape_of(y))), MB_ALL);
    for (int order = 1; order <= orders; order++) {
        mb_grad(line, by, n, g);
        line = mb_full(ctx, MB_FLOAT64, MB_SHAPE0, 0);
        for (int i = 0; i < n; i++) {
            mb_key key = mb_key_of(10u * (uint64_t)order + (uint64_t)i);
            add(&all, g[i]);
            line = mb_add(line, mb_dot(g[i], mb_normal(ctx, key, MB_FLOAT64, mb_shape_of(g[i]))));
        }
    }
    return all;
}

/* To rounding, relative to the largest: products of a few numbers of size 1, added in another order. */
static void compare(const char *backend, const mapped *c, const set *s, const numbers *got,
                    const numbers *want)
{
    double limit = 1e-12 * (c->looser > 0 ? c->looser : 1);
    for (int i = 0; i < got->n; i++) {
        double largest = 1;
        expect(got->count[i] == want->count[i], "%s: sizes differ", c->name);
        for (int64_t k = 0; k < want->count[i]; k++)
            largest = fmax(largest, fabs(want->v[i][k]));
        for (int64_t k = 0; k < want->count[i] && k < got->count[i]; k++)
            if (!near(got->v[i][k], want->v[i][k], 0, limit * largest)) {
                expect(false, "%s: %s, batched %x: number %d, element %d is %.17g, in a loop %.17g", backend,
                       c->name, s->batched, i, (int)k, got->v[i][k], want->v[i][k]);
                break;
            }
    }
}

static void check(mb_context *ctx, const char *backend, const mapped *c, unsigned batched, rng *r)
{
    mb_scope scope = mb_scope_begin(ctx);
    mb_tensor xs[OPERANDS];
    set s = {.batched = batched};
    for (int i = 0; i < c->n; i++) {
        mb_shape shape = c->shape[i];
        s.axis[i] = (int)rng_below(r, shape.rank + 1);
        if (batched >> i & 1)
            shape = widened(shape, s.axis[i]);
        xs[i] = draw(ctx, r, dtype_of(c, i), shape, c->low, c->high);
    }
    s.out = (int)rng_below(r, 2) - 1; /* the first or the last */
    numbers want = numbers_of(ctx, c, &s, xs, false), got = numbers_of(ctx, c, &s, xs, true);
    expect(mb_error(ctx) == MB_OK, "%s, batched %x: %s", c->name, batched, mb_message(ctx));
    if (mb_error(ctx) == MB_OK)
        compare(backend, c, &s, &got, &want);
    mb_scope_end(scope);
    mb_clear_error(ctx);
}

void vmapped(const mapped *cases, int count)
{
    for (int b = 0; b < 2; b++) {
        mb_context *ctx = open_on(backend_names[b]);
        rng r = {5};
        for (int i = 0; i < count; i++)
            for (unsigned batched = 0; batched < 1u << cases[i].n; batched++)
                check(ctx, backend_names[b], &cases[i], batched, &r);
        close_all();
    }
}
