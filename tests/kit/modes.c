/* SPDX-License-Identifier: MIT
 *
 * modes.c - the ways to a derivative against each other, at one point and without a step: each claim is
 * recorded, all are computed in one flush, and then compared.
 */
#include <math.h>
#include <stdio.h>

#include "tests/kit/internal.h"
#include "tensor/internal.h"

/* That a tensor is `rows` times what another is, or that a number is an inner product <g, w> of the others.
 */
typedef struct claim {
    mb_tensor got, want;
    int order, argument; /* argument -1: a number along a random direction */
    unsigned forward;
    const char *by; /* a function's name, in place of the mode; NULL */
} claim;

typedef struct claims {
    const mb__point *p;
    mb_tensor *xs;
    mb_tensor *gradient[MB_CHECK_ORDERS + 1]; /* of each order, reverse over reverse */
    double size[MB_CHECK_ORDERS + 1];         /* the largest magnitude in it, or 1 */
    claim *list;
    int count;
} claims;

static void add(claims *c, mb_tensor got, mb_tensor want, int order, int argument, unsigned forward,
                const char *by)
{
    c->list[c->count++] = (claim){got, want, order, argument, forward, by};
}

static mb_tensor direction(const claims *c, int k, int i)
{
    return mb__check_tensor(c->p->s->blocks, MB_FLOAT64, c->p->s->shape[i], c->p->w[k][i]);
}

/* <gradient of this order, w_k> */
static mb_tensor along(const claims *c, int order, int k)
{
    mb_tensor sum = mb__poison(c->p->s->ctx);
    for (int i = 0; i < c->p->s->n; i++) {
        mb_tensor part = mb_sum(mb_mul(c->gradient[order][i], direction(c, k, i)), MB_ALL);
        sum = i ? mb_add(sum, part) : part;
    }
    return sum;
}

/* A derivative by these modes, the outermost of which makes a gradient or a number. */
static void add_mode(claims *c, int order, unsigned forward)
{
    const mb__subject *s = c->p->s;
    mb_tensor value = mb__project(c->p, c->xs, order - 1, forward);
    if (forward >> (order - 1) & 1) {
        mb_tensor got = mb__project_on(c->p, value, c->xs, order - 1, true);
        add(c, got, along(c, order, order - 1), order, -1, forward, NULL);
        return;
    }
    mb_tensor *gs = mb__block(s->blocks, s->n, sizeof *gs);
    if (!gs || mb_grad(value, c->xs, s->n, gs) != MB_OK)
        return;
    for (int i = 0; i < s->n; i++)
        add(c, gs[i], c->gradient[order][i], order, i, forward, NULL);
}

static void add_gradients(claims *c)
{
    const mb__subject *s = c->p->s;
    for (int order = 1; order <= c->p->mode_orders; order++) {
        c->gradient[order] = mb__block(s->blocks, s->n, sizeof(mb_tensor));
        if (!c->gradient[order])
            return;
        mb_grad(mb__project(c->p, c->xs, order - 1, 0), c->xs, s->n, c->gradient[order]);
    }
}

/* Two directions, one at a time and as a batch; NULL: no memory. */
static mb_tensor *directions(const claims *c)
{
    const mb__subject *s = c->p->s;
    mb_tensor *v = mb__block(s->blocks, 3 * s->n, sizeof *v);
    for (int i = 0; v && i < s->n; i++) {
        v[i] = direction(c, 0, i);
        v[s->n + i] = direction(c, 1, i);
        v[2 * s->n + i] = mb_stack(((mb_tensor[]){v[i], v[s->n + i]}), 2, 0);
    }
    return v;
}

static void add_jacobian_products(claims *c)
{
    const mb__subject *s = c->p->s;
    int n = s->n;
    mb_tensor *v = directions(c), y = s->f(s, c->xs), jv, ju, both;
    if (!v || mb_shape_of(y).rank == MB_MAX_RANK)
        return;
    mb_jvp(&y, 1, c->xs, v, n, &jv);
    mb_jvp(&y, 1, c->xs, v + n, n, &ju);
    mb_jvp_batch(&y, 1, c->xs, v + 2 * n, n, &both);
    add(c, both, mb_stack(((mb_tensor[]){jv, ju}), 2, 0), 1, -1, 1, "mb_jvp_batch");
}

static void add_hessian_products(claims *c)
{
    const mb__subject *s = c->p->s;
    int n = s->n;
    mb_tensor *v = directions(c), *hv = mb__block(s->blocks, 4 * n, sizeof *hv), *hu = MB__PAST(hv, n),
              *both = MB__PAST(hu, n), *reverse = MB__PAST(both, n), value = mb__project(c->p, c->xs, 0, 0);
    if (!v || !hv)
        return;
    mb_hvp(value, c->xs, v, n, hv);
    mb_hvp(value, c->xs, v + n, n, hu);
    mb_hvp_batch(value, c->xs, v + 2 * n, n, both);
    mb_hvp_reverse(value, c->xs, v, n, reverse);
    for (int i = 0; i < n; i++) {
        add(c, hv[i], c->gradient[2][i], 2, i, 2, "mb_hvp");
        add(c, reverse[i], c->gradient[2][i], 2, i, 0, "mb_hvp_reverse");
        add(c, both[i], mb_stack(((mb_tensor[]){hv[i], hu[i]}), 2, 0), 2, i, 2, "mb_hvp_batch");
    }
}

/* ---- comparing ---- */

static mb_status wrong(const claims *c, const claim *k, const double *got, const double *want, int64_t at)
{
    const mb__point *p = c->p;
    char against[120], mode[80];
    p->r->got = got[at];
    p->r->wanted = want[at];
    if (!k->by)
        snprintf(against, sizeof against, "by %s", mb__mode_text(mode, sizeof mode, k->order, 0));
    else
        snprintf(against, sizeof against, "where %s differs", k->by);
    int64_t count = k->argument < 0 ? 1 : p->count[k->argument];
    return mb__wrong_derivative(p, k->order, k->forward, k->argument, count ? at % count : 0, against);
}

static mb_status settle(const claims *c, const claim *k)
{
    const mb__point *p = c->p;
    const double *got = mb__check_read(p->s->blocks, k->got);
    const double *want = got ? mb__check_read(p->s->blocks, k->want) : NULL;
    if (!want)
        return MB_OK;
    if (mb_count(k->got) != mb_count(k->want))
        return mb__verdict(p->r, MB_WRONG, p->s->site,
                           "%s: %s of argument %d: got %lld elements, wanted %lld", p->s->name,
                           k->by ? k->by : "a gradient", k->argument, (long long)mb_count(k->got),
                           (long long)mb_count(k->want));
    int64_t count = mb_count(k->want);
    double size = mb__largest(want, count, c->size[k->order]);
    p->r->allowed = (k->order == 3 ? 2e-11 : 2e-12) * size * p->looser;
    int64_t at = mb__furthest(got, want, count, (mb_closeness){.atol = p->r->allowed, .nan_equal = true});
    return at < 0 ? MB_OK : wrong(c, k, got, want, at);
}

/* Sizes of the gradients: what a number along a direction is summed from. */
static bool measure(claims *c)
{
    const mb__point *p = c->p;
    for (int order = 1; order <= p->mode_orders; order++) {
        c->size[order] = 1;
        for (int i = 0; i < p->s->n; i++) {
            const double *g = mb__check_read(p->s->blocks, c->gradient[order][i]);
            if (!g)
                return false;
            c->size[order] = mb__largest(g, p->count[i], c->size[order]);
        }
    }
    return true;
}

static mb_status compare(claims *c)
{
    const mb__subject *s = c->p->s;
    int n = 0;
    mb_tensor *all = mb__block(s->blocks, 2 * c->count + c->p->mode_orders * s->n, sizeof *all);
    if (!all || mb_error(s->ctx) != MB_OK)
        return MB_OK;
    for (int k = 0; k < c->count; k++) {
        all[n++] = c->list[k].got;
        all[n++] = c->list[k].want;
    }
    for (int order = 1; order <= c->p->mode_orders; order++)
        for (int i = 0; i < s->n; i++)
            all[n++] = c->gradient[order][i];
    if (mb_eval(all, n) != MB_OK || !measure(c))
        return MB_OK;
    for (int k = 0; k < c->count && c->p->r->status == MB_OK; k++)
        settle(c, &c->list[k]);
    return c->p->r->status;
}

mb_status mb__check_modes(const mb__point *p)
{
    /* Bit k: derivative k + 1 is by forward mode. */
    static const struct {
        int order;
        unsigned forward;
    } modes[] = {{1, 1}, {2, 1}, {2, 2}, {2, 3}, {3, 1}, {3, 2}, {3, 4}, {3, 7}};
    enum { MODES = sizeof modes / sizeof *modes, PRODUCTS = 4 };
    const mb__subject *s = p->s;
    claims c = {.p = p};
    c.xs = mb__block(s->blocks, s->n, sizeof *c.xs);
    c.list = mb__block(s->blocks, (MODES + PRODUCTS) * (s->n + 1), sizeof *c.list);
    mb_scope scope = mb_scope_begin(s->ctx);
    if (c.xs && c.list && mb__point_arguments(p, c.xs)) {
        add_gradients(&c);
        for (int m = 0; m < MODES; m++)
            if (modes[m].order <= p->mode_orders && mb_error(s->ctx) == MB_OK)
                add_mode(&c, modes[m].order, modes[m].forward);
        if (mb_error(s->ctx) == MB_OK)
            add_jacobian_products(&c);
        if (mb_error(s->ctx) == MB_OK && p->mode_orders >= 2)
            add_hessian_products(&c);
        compare(&c);
    }
    mb_scope_end(scope);
    return p->r->status;
}
