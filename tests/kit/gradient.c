/* SPDX-License-Identifier: MIT
 * gradient.c - derivatives against difference quotients of the function one order below; see check.h. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "backends/engine/backends.h"
#include "tests/kit/internal.h"
#include "tensor/internal.h"

static const double STEP = 1e-3;
enum { EACH_ELEMENT_MOST = 24, RANDOM_DIRECTIONS = 3 };

/* p_order at x + t d; the largest magnitude of its values in *size. */
static double at(const mb__point *p, int order, double *const *d, double t, double *size)
{
    const mb__subject *s = p->s;
    mb__blocks mine = {.ctx = s->ctx};
    mb__subject inner = *s;
    mb__point here = *p;
    inner.blocks = &mine;
    here.s = &inner;
    mb_scope scope = mb_scope_begin(s->ctx);
    mb_tensor *xs = mb__block(&mine, s->n, sizeof *xs);
    for (int i = 0; xs && i < s->n; i++) {
        double *x = mb__block(&mine, p->count[i], sizeof *x);
        for (int64_t k = 0; x && k < p->count[i]; k++)
            x[k] = s->x[i][k] + t * d[i][k];
        xs[i] = x ? s->put(&inner, i, x) : mb__poison(s->ctx);
    }
    double value = xs ? mb_item(mb__project(&here, xs, order, 0)) : (double)NAN;
    mb_scope_end(scope);
    mb__blocks_free(&mine);
    *size = fmax(*size, fabs(value));
    return value;
}

static double quotient(const mb__point *p, int order, double *const *d, double h, double *size)
{
    double wide = at(p, order, d, 2 * h, size) - at(p, order, d, -2 * h, size);
    double near = at(p, order, d, h, size) - at(p, order, d, -h, size);
    return (8 * near - wide) / (12 * h);
}

/* ---- one direction ---- */

typedef struct slope {
    double analytic, difference, allowed;
    double shortest; /* the difference quotient with the shortest step */
    double size;     /* the largest |p| that was seen */
} slope;

/* Whether the quotient with a step is near enough; rounding is divided by the step. */
static bool near_enough(const mb__point *p, int order, double *const *d, double shorter, double term,
                        slope *s)
{
    double relative = order == 3 ? 1e-6 : 1e-7;
    s->difference = quotient(p, order - 1, d, STEP / shorter, &s->size);
    s->allowed = p->looser * (1e-9 * shorter * s->size + relative * (fabs(s->difference) + term));
    return mb_error(p->s->ctx) != MB_OK || fabs(s->analytic - s->difference) <= s->allowed;
}

/* Whether a derivative along d is as the quotient says, or one with a shorter step; true as well where the
 * context has an error. */
static bool agrees(const mb__point *p, int order, double *const *g, double *const *d, slope *s)
{
    double term = 0;
    *s = (slope){.size = 1};
    for (int i = 0; i < p->s->n; i++)
        for (int64_t k = 0; k < p->count[i]; k++) {
            double t = g[i][k] * d[i][k];
            s->analytic += t;
            term = fmax(term, fabs(t));
        }
    if (near_enough(p, order, d, 1, term, s))
        return true;
    slope again = *s;
    for (double shorter = 16; shorter <= 256; shorter *= 16)
        if (near_enough(p, order, d, shorter, term, &again))
            return true;
    s->shortest = again.difference;
    return false;
}

/* d with entries from..to of its elements, counted over all arguments, and zeros elsewhere, in `part`. */
static void cut(const mb__point *p, double *const *d, int64_t from, int64_t to, double **part)
{
    int64_t number = 0;
    for (int i = 0; i < p->s->n; i++)
        for (int64_t k = 0; k < p->count[i]; k++, number++)
            part[i][k] = number >= from && number < to ? d[i][k] : 0;
}

/* An element along which a wrong direction is wrong, by halving it; false: only together are they. */
static bool find(const mb__point *p, int order, double *const *g, double *const *d, double **part,
                 int64_t *element)
{
    int64_t from = 0, to = p->all;
    slope s;
    while (to - from > 1) {
        int64_t middle = from + (to - from) / 2;
        cut(p, d, from, middle, part);
        if (!agrees(p, order, g, part, &s)) {
            to = middle;
            continue;
        }
        cut(p, d, middle, to, part);
        if (agrees(p, order, g, part, &s))
            return false;
        from = middle;
    }
    *element = from;
    return true;
}

/* What is wrong along d, which may be more than one element. */
static mb_status wrong(const mb__point *p, int order, double *const *g, double *const *d, int64_t element)
{
    slope s;
    char against[160];
    if (agrees(p, order, g, d, &s)) /* an error came between */
        return MB_OK;
    int i = element < 0 ? -1 : 0;
    while (i >= 0 && element >= p->count[i])
        element -= p->count[i++];
    /* Of one element along +-t: its derivative is the slope divided by t. */
    double t = i >= 0 ? d[i][element] : 1;
    p->r->got = s.analytic / t;
    p->r->wanted = s.difference / t;
    p->r->allowed = s.allowed / fabs(t);
    snprintf(against, sizeof against, "by differences");
    if (fabs(s.shortest - s.difference) > 100 * s.allowed)
        snprintf(against, sizeof against,
                 "by differences (which give %.9g with a shorter step: a kink, a jump "
                 "or a steep place)",
                 s.shortest / t);
    return mb__wrong_derivative(p, order, 0, i, element, against);
}

/* ---- an order ---- */

/* One after the other, along each element. */
static mb_status each_element(const mb__point *p, int order, double *const *g, double **d)
{
    int64_t number = 0;
    slope s;
    for (int i = 0; i < p->s->n; i++)
        for (int64_t k = 0; k < p->count[i]; k++, number++) {
            d[i][k] = 1;
            if (!agrees(p, order, g, d, &s))
                return wrong(p, order, g, d, number);
            d[i][k] = 0;
        }
    return MB_OK;
}

static mb_status some_directions(const mb__point *p, int order, double *const *g, double **d, double **part)
{
    uint64_t state = (uint64_t)order + 99;
    slope s;
    for (int r = 0; r < RANDOM_DIRECTIONS; r++) {
        for (int i = 0; i < p->s->n; i++)
            for (int64_t k = 0; k < p->count[i]; k++) {
                double v = mb__check_between(&state, -1, 1);
                d[i][k] = r < RANDOM_DIRECTIONS - 1 ? v : v < 0 ? -1 : 1;
            }
        if (agrees(p, order, g, d, &s))
            continue;
        int64_t element;
        if (!find(p, order, g, d, part, &element))
            return wrong(p, order, g, d, -1);
        cut(p, d, element, element + 1, part);
        return wrong(p, order, g, part, element);
    }
    return MB_OK;
}

/* The gradient of p_(order - 1), as numbers; false: error set, or verdict given. */
static bool gradient(const mb__point *p, int order, double **g)
{
    const mb__subject *s = p->s;
    mb_tensor *xs = mb__block(s->blocks, 2 * s->n, sizeof *xs), *gs = MB__PAST(xs, s->n);
    if (!xs || !mb__point_arguments(p, xs) ||
        mb_grad(mb__project(p, xs, order - 1, 0), xs, s->n, gs) != MB_OK || mb_eval(gs, s->n) != MB_OK)
        return false;
    for (int i = 0; i < s->n; i++) {
        char got[200], want[200];
        if (!mb__equal_shapes(mb_shape_of(gs[i]), s->shape[i])) {
            mb__verdict(p->r, MB_WRONG, s->site, "%s on %s: %s by %s: got shape %s, wanted %s", s->name,
                        mb_backend_name(s->ctx), mb__order_text(order), s->label(s, i),
                        mb__dims_text(got, sizeof got, mb_shape_of(gs[i])),
                        mb__dims_text(want, sizeof want, s->shape[i]));
            return false;
        }
        if (!(g[i] = mb__check_read(s->blocks, gs[i])))
            return false;
    }
    return true;
}

/* Two lists of arrays shaped like the arguments, of zeros. */
static bool directions(const mb__point *p, double ***d, double ***part)
{
    mb__blocks *b = p->s->blocks;
    *d = mb__block(b, 2 * p->s->n, sizeof **d);
    for (int i = 0; *d && i < 2 * p->s->n; i++)
        if (!((*d)[i] = mb__block(b, p->count[i % p->s->n], sizeof(double))))
            return false;
    *part = MB__PAST(*d, p->s->n);
    return *d != NULL;
}

static mb_status check_order(const mb__point *p, int order)
{
    double **g = mb__block(p->s->blocks, p->s->n, sizeof *g), **d, **part;
    mb_scope scope = mb_scope_begin(p->s->ctx);
    bool ok = g && directions(p, &d, &part) && gradient(p, order, g);
    mb_scope_end(scope);
    if (!ok)
        return p->r->status;
    return p->all <= EACH_ELEMENT_MOST ? each_element(p, order, g, d) : some_directions(p, order, g, d, part);
}

/* ---- all of it ---- */

/* Random numbers for the projections, once the shape of the result is known. */
static bool draw(mb__point *p)
{
    const mb__subject *s = p->s;
    uint64_t state = 4100;
    mb_scope scope = mb_scope_begin(s->ctx);
    mb_tensor *xs = mb__block(s->blocks, s->n, sizeof *xs);
    mb_tensor y = xs && mb__point_arguments(p, xs) ? s->f(s, xs) : mb__poison(s->ctx);
    mb_dtype dtype = mb_dtype_of(y);
    bool ok = mb_valid(y) && mb_error(s->ctx) == MB_OK;
    if (ok && dtype != MB_FLOAT64)
        mb__verdict(p->r, MB_WRONG, s->site, "%s on %s: the function of float64 gives %s; wanted float64",
                    s->name, mb_backend_name(s->ctx), mb_dtype_name(dtype));
    else if (!ok && mb_error(s->ctx) == MB_OK)
        mb__verdict(p->r, MB_INVALID, s->site, "%s: the function gives no tensor of this context", s->name);
    else if (ok)
        p->w0 = mb__check_draw(s->blocks, &state, MB_FLOAT64, mb_count(y), -1, 1);
    mb_scope_end(scope);
    for (int k = 0; k < MB_CHECK_ORDERS && p->w0; k++)
        for (int i = 0; i < s->n; i++)
            if (!(p->w[k][i] = mb__check_draw(s->blocks, &state, MB_FLOAT64, p->count[i], -1, 1)))
                return false;
    return p->w0 != NULL;
}

static bool prepare(mb__point *p)
{
    const mb__subject *s = p->s;
    p->count = mb__block(s->blocks, s->n, sizeof *p->count);
    for (int i = 0; p->count && i < s->n; i++)
        p->all += p->count[i] = mb__check_count(s->shape[i]);
    for (int k = 0; k < MB_CHECK_ORDERS; k++)
        if (!(p->w[k] = mb__block(s->blocks, s->n, sizeof *p->w[k])))
            return false;
    return p->count && draw(p);
}

mb_status mb__check_derivatives(const mb__subject *s, mb_check_result *r)
{
    mb__point p = {.s = s, .r = r, .looser = s->looser > 0 ? s->looser : 1};
    p.orders = s->orders > 0 && s->orders < MB_CHECK_ORDERS ? s->orders : MB_CHECK_ORDERS;
    p.mode_orders = s->mode_orders > 0 && s->mode_orders < p.orders ? s->mode_orders : p.orders;
    bool ok = prepare(&p);
    for (int order = 1; ok && order <= p.orders; order++)
        ok = check_order(&p, order) == MB_OK && mb_error(s->ctx) == MB_OK;
    if (ok)
        mb__check_modes(&p);
    mb_status status = mb__check_error(r, s->ctx, s->site, s->name);
    return status != MB_OK ? status : r->status;
}

/* ---- cases ---- */

static mb_tensor put_case(const mb__subject *s, int i, const double *x)
{
    return mb__check_tensor(s->blocks, MB_FLOAT64, s->shape[i], x);
}

static mb_tensor f_case(const mb__subject *s, const mb_tensor *xs)
{
    const mb_check_case *c = s->user;
    return c->f(s->ctx, xs, c->user);
}

static const char *label_case(const mb__subject *s, int i)
{
    static const char *const names[MB_CHECK_MOST] = {"argument 0", "argument 1", "argument 2", "argument 3",
                                                     "argument 4", "argument 5", "argument 6", "argument 7"};
    (void)s;
    return names[i];
}

static mb_status check_case(const char *site, mb_context *ctx, const mb_check_case *c, mb_check_result *r)
{
    mb__blocks blocks = {.ctx = ctx};
    double *x[MB_CHECK_MOST] = {0};
    uint64_t state = 41;
    bool ranged = c->low != 0 || c->high != 0, ok = true;
    for (int i = 0; i < c->n && ok; i++) {
        ok = mb__check_shape(ctx, c->name ? c->name : "check", MB_FLOAT64, c->shape[i]);
        ok = ok && (x[i] = mb__check_draw(&blocks, &state, MB_FLOAT64, mb__check_count(c->shape[i]),
                                          ranged ? c->low : -1, ranged ? c->high : 1));
    }
    mb__subject s = {.ctx = ctx,
                     .site = site,
                     .name = c->name ? c->name : "function",
                     .n = c->n,
                     .shape = c->shape,
                     .x = x,
                     .orders = c->orders,
                     .mode_orders = c->mode_orders,
                     .looser = c->looser,
                     .put = put_case,
                     .f = f_case,
                     .label = label_case,
                     .user = c,
                     .blocks = &blocks};
    mb_status status = ok ? mb__check_derivatives(&s, r) : mb__check_error(r, ctx, site, s.name);
    mb__blocks_free(&blocks);
    return status;
}

mb_status mb_check_gradient_at(const char *site, mb_context *ctx, const mb_check_case *c,
                               mb_check_result *result)
{
    mb_check_result own, *r = mb__check_begin(result, &own);
    if (!ctx || mb_error(ctx) != MB_OK)
        return mb__verdict(r, ctx ? mb_error(ctx) : MB_INVALID, site, "check_gradient: %s", mb_message(ctx));
    if (!c || !c->f || c->n < 1 || c->n > MB_CHECK_MOST)
        return mb__verdict(r, MB_INVALID, site,
                           "check_gradient: wanted a function of 1 to %d arguments, got %d", MB_CHECK_MOST,
                           c && c->f ? c->n : 0);
    return check_case(site, ctx, c, r);
}
