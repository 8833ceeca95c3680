/* SPDX-License-Identifier: MIT
 * vmap.c - a function inside of a vmap against a loop over the examples, with its derivatives; see check.h.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "autograd/vmap.h"
#include "backends/engine/backends.h"
#include "tests/kit/internal.h"
#include "tensor/internal.h"

enum { EXAMPLES = 3, NUMBERS_MOST = 1 + 3 * MB_CHECK_MOST };

/* Which arguments are batched, along which axes; that of the result. */
typedef struct batch {
    const char *site;
    mb_context *ctx;
    const mb_check_case *c;
    const int64_t *below;
    unsigned batched;
    int axis[MB_CHECK_MOST], out;
    mb__blocks *blocks;
    mb_check_result *r;
} batch;

/* Values, then derivatives along random directions to the order. */
typedef struct numbers {
    mb_tensor t[NUMBERS_MOST];
    int order[NUMBERS_MOST], argument[NUMBERS_MOST], n;
} numbers;

/* Without any dtype given, all are float64. */
static mb_dtype dtype_of(const mb_check_case *c, int i)
{
    return c->dtype[i] == MB_FLOAT32 ? MB_FLOAT64 : c->dtype[i];
}

static mb_shape widened(mb_shape shape, int axis)
{
    memmove(shape.dim + axis + 1, shape.dim + axis, (size_t)(shape.rank++ - axis) * sizeof *shape.dim);
    shape.dim[axis] = EXAMPLES;
    return shape;
}

static mb_tensor by_vmap(const batch *s, const mb_tensor *xs)
{
    mb_tensor in[MB_CHECK_MOST], ys;
    mb_vmap v = mb_vmap_begin(s->ctx, EXAMPLES);
    for (int i = 0; i < s->c->n; i++)
        in[i] = s->batched >> i & 1 ? mb_vmap_in(v, xs[i], s->axis[i]) : xs[i];
    mb_vmap_out(v, s->c->f(s->ctx, in, s->c->user), s->out, &ys);
    mb_vmap_end(v);
    return ys;
}

static mb_tensor by_loop(const batch *s, const mb_tensor *xs)
{
    mb_tensor in[MB_CHECK_MOST], ys[EXAMPLES];
    for (int k = 0; k < EXAMPLES; k++) {
        for (int i = 0; i < s->c->n; i++)
            in[i] =
                s->batched >> i & 1 ? mb_squeeze(mb_slice(xs[i], s->axis[i], k, 1, 1), s->axis[i]) : xs[i];
        ys[k] = s->c->f(s->ctx, in, s->c->user);
    }
    return mb_stack(ys, EXAMPLES, s->out);
}

static void add(numbers *to, mb_tensor t, int order, int argument)
{
    to->order[to->n] = order;
    to->argument[to->n] = argument;
    to->t[to->n++] = t;
}

static void record(const batch *s, const mb_tensor *xs, bool vmap, numbers *all)
{
    const mb_check_case *c = s->c;
    mb_tensor y = vmap ? by_vmap(s, xs) : by_loop(s, xs), by[MB_CHECK_MOST], g[MB_CHECK_MOST];
    int n = 0, which[MB_CHECK_MOST], orders = c->orders ? c->orders : 2;
    all->n = 0;
    add(all, y, 0, -1);
    for (int i = 0; i < c->n; i++)
        if (dtype_of(c, i) == MB_FLOAT64) {
            which[n] = i;
            by[n++] = xs[i];
        }
    if (mb_dtype_of(y) != MB_FLOAT64 || !n)
        return;
    mb_tensor line = mb_sum(mb_mul(y, mb_normal(s->ctx, mb_key_of(1), MB_FLOAT64, mb_shape_of(y))), MB_ALL);
    for (int order = 1; order <= orders && order <= 3 && mb_error(s->ctx) == MB_OK; order++) {
        mb_grad(line, by, n, g);
        line = mb_full(s->ctx, MB_FLOAT64, MB_SHAPE0, 0);
        for (int i = 0; i < n; i++) {
            mb_key key = mb_key_of(10u * (uint64_t)order + (uint64_t)i);
            add(all, g[i], order, which[i]);
            line = mb_add(line, mb_dot(g[i], mb_normal(s->ctx, key, MB_FLOAT64, mb_shape_of(g[i]))));
        }
    }
}

static mb_status wrong(const batch *s, const numbers *got, int i, int64_t element)
{
    char at[240], by[40] = "";
    mb_check_result *r = s->r;
    r->order = got->order[i];
    r->argument = got->argument[i];
    r->element = element;
    if (r->argument >= 0)
        snprintf(by, sizeof by, " by argument %d", r->argument);
    return mb__verdict(
        r, MB_WRONG, s->site,
        "%s on %s, batched arguments 0x%x: order %d%s, %s of all examples: got %.15g by vmap, wanted "
        "%.15g by a loop, allowed %.2g",
        s->c->name ? s->c->name : "function", mb_backend_name(s->ctx), s->batched, r->order, by,
        mb__element_text(at, sizeof at, mb_shape_of(got->t[i]), element), r->got, r->wanted, r->allowed);
}

static mb_status compare(const batch *s, const numbers *got, const numbers *want)
{
    for (int i = 0; i < got->n && i < want->n; i++) {
        char a[200], b[200];
        if (!mb__equal_shapes(mb_shape_of(got->t[i]), mb_shape_of(want->t[i])))
            return mb__verdict(s->r, MB_WRONG, s->site, "%s: order %d: got shape %s by vmap, wanted %s",
                               s->c->name, got->order[i], mb__dims_text(a, sizeof a, mb_shape_of(got->t[i])),
                               mb__dims_text(b, sizeof b, mb_shape_of(want->t[i])));
        const double *x = mb__check_read(s->blocks, got->t[i]);
        const double *y = x ? mb__check_read(s->blocks, want->t[i]) : NULL;
        if (!y)
            return MB_OK; /* the context has an error */
        double looser = s->c->looser > 0 ? s->c->looser : 1;
        s->r->allowed = 1e-12 * looser * mb__largest(y, mb_count(want->t[i]), 1);
        int64_t at = mb__furthest(x, y, mb_count(want->t[i]), (mb_closeness){0, s->r->allowed, true});
        if (at < 0)
            continue;
        s->r->got = x[at];
        s->r->wanted = y[at];
        return wrong(s, got, i, at);
    }
    return MB_OK;
}

static bool evaluate(const numbers *got, const numbers *want)
{
    mb_tensor all[2 * NUMBERS_MOST];
    memcpy(all, got->t, (size_t)got->n * sizeof *all);
    memcpy(all + got->n, want->t, (size_t)want->n * sizeof *all);
    return mb_eval(all, got->n + want->n) == MB_OK;
}

/* One set of batched arguments. */
static mb_status check_set(batch *s, uint64_t *state)
{
    const mb_check_case *c = s->c;
    bool ranged = c->low != 0 || c->high != 0;
    mb_tensor xs[MB_CHECK_MOST];
    numbers got = {.n = 0}, want = {.n = 0};
    mb_scope scope = mb_scope_begin(s->ctx);
    for (int i = 0; i < c->n; i++) {
        mb_shape shape = c->shape[i];
        s->axis[i] = (int)(mb__check_bits(state) % (uint64_t)(shape.rank + 1));
        if (s->batched >> i & 1)
            shape = widened(shape, s->axis[i]);
        double low = ranged ? c->low : -1, high = ranged ? c->high : 1;
        if (s->below && dtype_of(c, i) == MB_INT32) {
            low = 0;
            high = s->below[i] > 0 ? (double)s->below[i] : 2;
        }
        double *x = mb__check_draw(s->blocks, state, dtype_of(c, i), mb__check_count(shape), low, high);
        xs[i] = x ? mb__check_tensor(s->blocks, dtype_of(c, i), shape, x) : mb__poison(s->ctx);
    }
    s->out = (int)(mb__check_bits(state) % 2) - 1; /* the last or the first */
    record(s, xs, false, &want);
    record(s, xs, true, &got);
    if (mb_error(s->ctx) == MB_OK && evaluate(&got, &want))
        compare(s, &got, &want);
    mb_scope_end(scope);
    return s->r->status;
}

static bool shapes_fit(mb_context *ctx, const mb_check_case *c)
{
    for (int i = 0; i < c->n; i++) {
        if (!mb__check_shape(ctx, "check_vmap", dtype_of(c, i), c->shape[i]))
            return false;
        if (c->shape[i].rank == MB_MAX_RANK) {
            mb__error(ctx, MB_INVALID, "check_vmap: argument %d has %d axes; wanted one free for examples", i,
                      MB_MAX_RANK);
            return false;
        }
    }
    return true;
}

mb_status mb__check_vmap(const char *site, mb_context *ctx, const mb_check_case *c, const int64_t *below,
                         mb_check_result *r)
{
    uint64_t state = 5;
    bool fit = shapes_fit(ctx, c);
    for (unsigned batched = 0; fit && batched < 1u << c->n && r->status == MB_OK && mb_error(ctx) == MB_OK;
         batched++) {
        mb__blocks blocks = {.ctx = ctx};
        batch s = {
            .site = site, .ctx = ctx, .c = c, .below = below, .batched = batched, .blocks = &blocks, .r = r};
        check_set(&s, &state);
        mb__blocks_free(&blocks);
    }
    mb_status status = mb__check_error(r, ctx, site, c->name ? c->name : "function");
    return status != MB_OK ? status : r->status;
}

mb_status mb_check_vmap_at(const char *site, mb_context *ctx, const mb_check_case *c, mb_check_result *result)
{
    mb_check_result own, *r = mb__check_begin(result, &own);
    if (!ctx || mb_error(ctx) != MB_OK)
        return mb__verdict(r, ctx ? mb_error(ctx) : MB_INVALID, site, "check_vmap: %s", mb_message(ctx));
    if (!c || !c->f || c->n < 1 || c->n > MB_CHECK_MOST)
        return mb__verdict(r, MB_INVALID, site, "check_vmap: wanted a function of 1 to %d arguments, got %d",
                           MB_CHECK_MOST, c && c->f ? c->n : 0);
    return mb__check_vmap(site, ctx, c, NULL, r);
}
