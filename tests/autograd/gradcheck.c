/* SPDX-License-Identifier: MIT
 * gradcheck.c - see gradcheck.h. */
#include "gradcheck.h"

#define STEP 1e-3

typedef struct point {
    const gradcase *c;
    mb_context *ctx;
    double *x[GRADCHECK_MOST], *w[3][GRADCHECK_MOST], *w0;
    int64_t size[GRADCHECK_MOST], results;
} point;

static double *random_array(rng *r, int64_t n, double low, double high)
{
    double *a = calloc((size_t)n + 1, sizeof *a);
    for (int64_t i = 0; i < n; i++)
        a[i] = rng_between(r, low, high);
    return a;
}

static mb_tensor put(point *p, int i, const double *x)
{
    return mb_from(p->ctx, MB_FLOAT64, p->c->shape[i], x);
}

static mb_tensor dot(mb_tensor a, mb_tensor b)
{
    return mb_sum(mb_mul(a, b), MB_ALL);
}

/* p_order at xs. */
static mb_tensor project(point *p, const mb_tensor *xs, int order)
{
    mb_tensor y = p->c->f(p->ctx, xs, p->c->user);
    mb_tensor value = dot(y, mb_from(p->ctx, MB_FLOAT64, mb_shape_of(y), p->w0));
    for (int k = 0; k < order; k++) {
        mb_tensor g[GRADCHECK_MOST];
        mb_grad(value, xs, p->c->n, g);
        for (int i = 0; i < p->c->n; i++) {
            mb_tensor part = dot(g[i], put(p, i, p->w[k][i]));
            value = i ? mb_add(value, part) : part;
        }
    }
    return value;
}

static double at(point *p, int order, double *const d[], double t)
{
    mb_scope s = mb_scope_begin(p->ctx);
    mb_tensor xs[GRADCHECK_MOST];
    for (int i = 0; i < p->c->n; i++) {
        double *x = malloc(((size_t)p->size[i] + 1) * sizeof *x);
        for (int64_t k = 0; k < p->size[i]; k++)
            x[k] = p->x[i][k] + t * d[i][k];
        xs[i] = put(p, i, x);
        free(x);
    }
    double value = mb_item(project(p, xs, order));
    mb_scope_end(s);
    return value;
}

static double difference(point *p, int order, double *const d[])
{
    const double h = STEP;
    return (8 * (at(p, order, d, h) - at(p, order, d, -h)) -
            (at(p, order, d, 2 * h) - at(p, order, d, -2 * h))) /
           (12 * h);
}

static void one_direction(point *p, int order, double *const g[], double *const d[], const char *which)
{
    double analytic = 0, size = 1;
    for (int i = 0; i < p->c->n; i++)
        for (int64_t k = 0; k < p->size[i]; k++) {
            analytic += g[i][k] * d[i][k];
            size = fmax(size, fabs(g[i][k] * d[i][k]));
        }
    double slope = difference(p, order, d), looser = p->c->looser > 0 ? p->c->looser : 1;
    double relative = order == 2 ? 1e-6 : 1e-7, absolute = 1e-9;
    /* Along a direction, terms cancel: rounding is relative to the largest of them. */
    expect(near(analytic, slope, relative * looser, (absolute + relative * (size - 1)) * looser),
           "%s on %s, %s: order %d: gradient %.15g, difference %.15g", p->c->name, mb_backend_name(p->ctx),
           which, order + 1, analytic, slope);
}

static void check_order(point *p, int order)
{
    const gradcase *c = p->c;
    mb_scope s = mb_scope_begin(p->ctx);
    mb_tensor xs[GRADCHECK_MOST], gs[GRADCHECK_MOST];
    double *g[GRADCHECK_MOST], *d[GRADCHECK_MOST];
    int64_t all = 0;
    for (int i = 0; i < c->n; i++) {
        xs[i] = put(p, i, p->x[i]);
        all += p->size[i];
    }
    mb_tensor y = project(p, xs, order);
    mb_grad(y, xs, c->n, gs);
    for (int i = 0; i < c->n; i++) {
        expect(same_shape(mb_shape_of(gs[i]), c->shape[i]), "%s: gradient %d has shape %s", c->name, i,
               shape_text(mb_shape_of(gs[i])));
        g[i] = values(gs[i]);
        d[i] = calloc((size_t)p->size[i] + 1, sizeof *d[i]);
    }
    char which[80];
    if (all <= 24) {
        for (int i = 0; i < c->n; i++)
            for (int64_t k = 0; k < p->size[i]; k++) {
                snprintf(which, sizeof which, "operand %d element %lld", i, (long long)k);
                d[i][k] = 1;
                one_direction(p, order, g, d, which);
                d[i][k] = 0;
            }
    } else {
        rng r = {(uint64_t)order + 99};
        for (int k = 0; k < 3; k++) {
            for (int i = 0; i < c->n; i++)
                for (int64_t j = 0; j < p->size[i]; j++)
                    d[i][j] = k == 2 ? rng_below(&r, 2) * 2.0 - 1 : rng_between(&r, -1, 1);
            snprintf(which, sizeof which, "direction %d", k);
            one_direction(p, order, g, d, which);
        }
    }
    for (int i = 0; i < c->n; i++)
        free(d[i]);
    mb_scope_end(s);
}

static double sum_of_products(mb_tensor *a, mb_tensor *b, int n, double *size)
{
    double sum = 0;
    for (int i = 0; i < n; i++) {
        double *x = values(a[i]), *y = values(b[i]);
        for (int64_t k = 0; k < mb_count(a[i]); k++) {
            sum += x[k] * y[k];
            *size += fabs(x[k] * y[k]);
        }
    }
    return sum;
}

/* A batch of the two directions u and v against one at a time. */
static void check_batch(point *p, const char *what, const mb_tensor *batch, const mb_tensor *one,
                        const mb_tensor *other, int n)
{
    for (int i = 0; i < n; i++) {
        double *both = values(batch[i]), *a = values(one[i]), *b = values(other[i]), top = 1;
        int64_t count = mb_count(one[i]);
        expect(mb_count(batch[i]) == 2 * count && mb_dim(batch[i], 0) == 2, "%s, %s: shape %s", p->c->name,
               what, shape_text(mb_shape_of(batch[i])));
        for (int64_t k = 0; k < count; k++)
            top = fmax(top, fmax(fabs(a[k]), fabs(b[k])));
        for (int64_t k = 0; k < count; k++)
            expect(fabs(both[k] - a[k]) <= 1e-12 * top && fabs(both[count + k] - b[k]) <= 1e-12 * top,
                   "%s on %s, %s of operand %d: %.17g and %.17g in a batch, %.17g and %.17g alone",
                   p->c->name, mb_backend_name(p->ctx), what, i, both[k], both[count + k], a[k], b[k]);
    }
}

/* The identities that need no step size. */
static void check_identities(point *p)
{
    const gradcase *c = p->c;
    mb_scope s = mb_scope_begin(p->ctx);
    mb_tensor xs[GRADCHECK_MOST], u[GRADCHECK_MOST], v[GRADCHECK_MOST], pull[GRADCHECK_MOST], jv;
    for (int i = 0; i < c->n; i++) {
        xs[i] = put(p, i, p->x[i]);
        v[i] = put(p, i, p->w[0][i]);
        u[i] = put(p, i, p->w[1][i]);
    }
    mb_tensor y = c->f(p->ctx, xs, c->user), w = mb_from(p->ctx, MB_FLOAT64, mb_shape_of(y), p->w0);
    mb_jvp(&y, 1, xs, v, c->n, &jv);
    mb_vjp(y, w, xs, c->n, pull);
    mb_tensor both[GRADCHECK_MOST], ju, j2, h2[GRADCHECK_MOST];
    for (int i = 0; i < c->n; i++)
        both[i] = mb_stack(((mb_tensor[]){u[i], v[i]}), 2, 0);
    mb_jvp(&y, 1, xs, u, c->n, &ju);
    mb_jvp_batch(&y, 1, xs, both, c->n, &j2);
    check_batch(p, "J v", &j2, &ju, &jv, 1);
    double size = 1, a = sum_of_products(&w, &jv, 1, &size), b = sum_of_products(pull, v, c->n, &size);
    expect(fabs(a - b) <= 1e-12 * size, "%s on %s: <u, J v> = %.17g, <J' u, v> = %.17g", c->name,
           mb_backend_name(p->ctx), a, b);
    if (c->orders != 1) {
        mb_tensor hu[GRADCHECK_MOST], hv[GRADCHECK_MOST], rr[GRADCHECK_MOST], value = dot(y, w);
        mb_hvp(value, xs, u, c->n, hu);
        mb_hvp(value, xs, v, c->n, hv);
        mb_hvp_batch(value, xs, both, c->n, h2);
        check_batch(p, "H v", h2, hu, hv, c->n);
        size = 1;
        a = sum_of_products(hu, v, c->n, &size), b = sum_of_products(hv, u, c->n, &size);
        expect(fabs(a - b) <= 1e-12 * size, "%s on %s: <H u, v> = %.17g, <u, H v> = %.17g", c->name,
               mb_backend_name(p->ctx), a, b);
        mb_tensor g[GRADCHECK_MOST], gv = {0};
        mb_grad(value, xs, c->n, g);
        for (int i = 0; i < c->n; i++)
            gv = i ? mb_add(gv, dot(g[i], v[i])) : dot(g[i], v[i]);
        mb_grad(gv, xs, c->n, rr);
        mb_hvp_reverse(value, xs, v, c->n, h2);
        for (int i = 0; i < c->n; i++) {
            const double *other = values(h2[i]), *reverse = values(rr[i]);
            for (int64_t k = 0; k < p->size[i]; k++)
                expect(near(other[k], reverse[k], 1e-13, 1e-13), "%s: hvp_reverse %.17g", c->name, other[k]);
        }
        for (int i = 0; i < c->n; i++) {
            double *x = values(rr[i]), *z = values(hv[i]), top = 1;
            for (int64_t k = 0; k < p->size[i]; k++)
                top = fmax(top, fabs(x[k]));
            for (int64_t k = 0; k < p->size[i]; k++)
                expect(fabs(x[k] - z[k]) <= 1e-12 * top,
                       "%s on %s: H v of operand %d: %.17g reverse, %.17g forward", c->name,
                       mb_backend_name(p->ctx), i, x[k], z[k]);
        }
    }
    mb_scope_end(s);
}

void gradcheck(mb_context *ctx, const gradcase *c)
{
    point p = {.c = c, .ctx = ctx};
    rng r = {41};
    for (int i = 0; i < c->n; i++) {
        p.size[i] = shape_count(c->shape[i]);
        p.x[i] = random_array(&r, p.size[i], c->low, c->high);
        for (int k = 0; k < 3; k++)
            p.w[k][i] = random_array(&r, p.size[i], -1, 1);
    }
    mb_scope s = mb_scope_begin(ctx);
    mb_tensor xs[GRADCHECK_MOST];
    for (int i = 0; i < c->n; i++)
        xs[i] = put(&p, i, p.x[i]);
    mb_tensor y = c->f(ctx, xs, c->user);
    p.results = mb_count(y);
    bool ok = expect(mb_error(ctx) == MB_OK, "%s on %s: %s", c->name, mb_backend_name(ctx), mb_message(ctx));
    mb_scope_end(s);
    p.w0 = random_array(&r, p.results, -1, 1);
    if (ok) {
        for (int order = 0; order < (c->orders ? c->orders : 3); order++)
            check_order(&p, order);
        check_identities(&p);
        if (!expect(mb_error(ctx) == MB_OK, "%s on %s: %s", c->name, mb_backend_name(ctx), mb_message(ctx)))
            mb_clear_error(ctx);
    }
    mb_clear_error(ctx);
    for (int i = 0; i < c->n; i++) {
        free(p.x[i]);
        for (int k = 0; k < 3; k++)
            free(p.w[k][i]);
    }
    free(p.w0);
}

void gradcheck_both(const gradcase *cases, int n)
{
    for (int k = 0; k < 2; k++) {
        mb_context *ctx = open_on(backend_names[k]);
        for (int i = 0; i < n; i++)
            gradcheck(ctx, &cases[i]);
        close_all();
    }
}
