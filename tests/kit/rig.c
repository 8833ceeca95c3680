/* SPDX-License-Identifier: MIT
 * rig.c - a layer on one backend in one dtype: made, run, and differentiated. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "backends/engine/backends.h"
#include "tests/kit/internal.h"
#include "tensor/internal.h"

/* ---- opening ---- */

static void list_derived(mb__rig *rig)
{
    const mb_layer_case *c = rig->c;
    rig->parameters = mb_params_count(rig->p);
    rig->argument = mb__block(&rig->blocks, c->n + rig->parameters, sizeof *rig->argument);
    if (!rig->argument)
        return;
    for (int i = 0; i < c->n; i++)
        if (mb__is_float(mb__rig_dtype(rig, i)))
            rig->argument[rig->derived++] = i;
    for (int i = 0; i < rig->parameters; i++)
        if (mb_params_trainable(rig->p, i))
            rig->argument[rig->derived++] = c->n + i;
}

mb_status mb__rig_open(mb__rig *rig, const char *site, const mb_layer_case *c, const char *backend,
                       mb_dtype dtype, mb_check_result *r)
{
    *rig = (mb__rig){.c = c, .backend = backend, .dtype = dtype};
    rig->ctx = mb_open_with(
        &(mb_options){.size = sizeof(mb_options), .backend = backend, .allocator = c->allocator});
    if (!rig->ctx)
        return mb__verdict(r, MB_NO_MEMORY, site, "%s: out of memory: no context on %s", c->name, backend);
    rig->blocks.ctx = rig->ctx;
    rig->p = mb_params_new_with(rig->ctx, 1, dtype);
    rig->layer = mb__block(&rig->blocks, (int64_t)c->layer_bytes, 1);
    if (c->make && mb_error(rig->ctx) == MB_OK)
        c->make(rig->p, rig->layer, c->user);
    if (mb_error(rig->ctx) == MB_OK)
        list_derived(rig);
    mb_status status = mb__check_error(r, rig->ctx, site, c->name);
    if (status != MB_OK)
        mb__rig_close(rig);
    return status;
}

void mb__rig_close(mb__rig *rig)
{
    if (!rig->ctx)
        return;
    mb__blocks_free(&rig->blocks);
    mb_params_free(rig->p);
    mb_close(rig->ctx);
    rig->ctx = NULL;
}

const char *mb__rig_label(const mb__rig *rig, int i, char *out, size_t size)
{
    int argument = i < 0 || i >= rig->derived ? 0 : rig->argument[i];
    if (argument < rig->c->n)
        snprintf(out, size, "argument %d", argument);
    else
        snprintf(out, size, "parameter %.100s", mb_params_name(rig->p, argument - rig->c->n));
    return out;
}

/* ---- parameters ---- */

double **mb__rig_parameters(mb__rig *rig, mb__blocks *keep)
{
    double **v = mb__block(keep, rig->parameters, sizeof *v);
    for (int i = 0; v && i < rig->parameters; i++)
        if (!(v[i] = mb__check_read(keep, mb_params_tensor(rig->p, i))))
            return NULL;
    return v;
}

/* Parameter i becomes these numbers; its variable. */
static mb_tensor assign(mb__rig *rig, mb__blocks *blocks, int i, const double *x)
{
    mb_tensor v = mb_params_tensor(rig->p, i);
    mb_assign(v, mb__check_tensor(blocks, mb_dtype_of(v), mb_shape_of(v), x));
    return v;
}

bool mb__rig_assign(mb__rig *rig, double *const *parameters)
{
    mb_scope scope = mb_scope_begin(rig->ctx);
    for (int i = 0; i < rig->parameters; i++)
        assign(rig, &rig->blocks, i, parameters[i]);
    return mb_scope_end(scope) == MB_OK && mb_error(rig->ctx) == MB_OK;
}

mb_tensor mb__rig_apply(mb__rig *rig, const mb_tensor *xs)
{
    return rig->c->apply(rig->ctx, rig->layer, xs, rig->c->user);
}

/* ---- running ---- */

/* Random numbers that float32 holds. */
static mb_tensor direction(mb__rig *rig, mb__blocks *blocks, uint64_t seed, mb_shape shape)
{
    double *x = mb__check_draw(blocks, &seed, MB_FLOAT64, mb__check_count(shape), -1, 1);
    for (int64_t i = 0; x && i < mb__check_count(shape); i++)
        x[i] = (double)(float)x[i];
    return x ? mb__check_tensor(blocks, rig->dtype, shape, x) : mb__poison(rig->ctx);
}

static mb_tensor argument(mb__rig *rig, mb__blocks *blocks, const mb__feed *feed, int i)
{
    mb_tensor x = mb__check_tensor(blocks, mb__rig_dtype(rig, i), feed->shape[i], feed->x[i]);
    return x;
}

typedef struct tensors {
    mb_tensor *t, *by;
    int *order, *which, n;
} tensors;

static void add(tensors *to, mb_tensor t, int order, int which)
{
    to->order[to->n] = order;
    to->which[to->n] = which;
    to->t[to->n++] = t;
}

/* The gradient and, where asked for, the second derivative along a direction. */
static void add_derivatives(mb__rig *rig, mb__blocks *blocks, mb_tensor y, tensors *to)
{
    int n = rig->derived, orders = rig->c->orders == 1 ? 1 : 2;
    mb_tensor line = mb_sum(mb_mul(y, direction(rig, blocks, 7, mb_shape_of(y))), MB_ALL);
    for (int order = 1; order <= orders && mb_error(rig->ctx) == MB_OK; order++) {
        mb_tensor *g = to->t + to->n;
        if (mb_grad(line, to->by, n, g) != MB_OK)
            return;
        for (int i = 0; i < n; i++)
            add(to, g[i], order, rig->argument[i]);
        for (int i = 0; i < n; i++) {
            mb_tensor part = mb_dot(g[i], direction(rig, blocks, 20 + (uint64_t)i, mb_shape_of(g[i])));
            line = i ? mb_add(line, part) : part;
        }
    }
}

static void record(mb__rig *rig, mb__blocks *blocks, const mb__feed *feed, tensors *to)
{
    mb_tensor xs[MB_CHECK_MOST], given[MB_CHECK_MOST];
    for (int i = 0; i < rig->c->n; i++) {
        xs[i] = argument(rig, blocks, feed, i);
        given[i] = feed->repeated[i].rank ? mb_broadcast(xs[i], feed->repeated[i]) : xs[i];
    }
    mb_tensor y = mb__rig_apply(rig, given);
    if (mb_error(rig->ctx) == MB_OK && (!mb_valid(y) || y.ctx != rig->ctx)) {
        mb__error(rig->ctx, MB_INVALID, "the layer gives no tensor of this context");
        return;
    }
    add(to, y, 0, -1);
    for (int i = 0; i < rig->derived; i++) {
        int a = rig->argument[i];
        to->by[i] = a < rig->c->n ? xs[a] : mb_params_tensor(rig->p, a - rig->c->n);
    }
    if (mb_dtype_of(y) == rig->dtype && rig->derived)
        add_derivatives(rig, blocks, y, to);
}

static bool read_all(const tensors *from, mb__blocks *keep, mb__outcome *out)
{
    out->v = mb__block(keep, from->n, sizeof *out->v);
    out->shape = mb__block(keep, from->n, sizeof *out->shape);
    out->order = mb__block(keep, from->n, sizeof *out->order);
    out->argument = mb__block(keep, from->n, sizeof *out->argument);
    if (!out->v || !out->shape || !out->order || !out->argument)
        return false;
    for (int i = 0; i < from->n; i++, out->n++) {
        out->shape[i] = mb_shape_of(from->t[i]);
        out->order[i] = from->order[i];
        out->argument[i] = from->which[i];
        if (!(out->v[i] = mb__check_read(keep, from->t[i])))
            return false;
    }
    return true;
}

bool mb__rig_run(mb__rig *rig, const mb__feed *feed, mb__blocks *keep, mb__outcome *out)
{
    mb__blocks mine = {.ctx = rig->ctx};
    int most = 1 + 2 * rig->derived;
    tensors all = {.t = mb__block(&mine, most, sizeof *all.t),
                   .by = mb__block(&mine, rig->derived, sizeof *all.by),
                   .order = mb__block(&mine, most, sizeof *all.order),
                   .which = mb__block(&mine, most, sizeof *all.which)};
    *out = (mb__outcome){0};
    mb_scope scope = mb_scope_begin(rig->ctx);
    if (all.t && all.by && all.order && all.which)
        record(rig, &mine, feed, &all);
    bool ok = mb_error(rig->ctx) == MB_OK && mb_eval(all.t, all.n) == MB_OK && read_all(&all, keep, out);
    mb_scope_end(scope);
    mb__blocks_free(&mine);
    return ok;
}

/* ---- derivatives ---- */

/* A rig and what it is fed, as a subject sees them. */
typedef struct fed {
    mb__rig *rig;
    const mb__feed *feed;
    char *label;
} fed;

enum { LABEL_BYTES = 128 };

static mb_tensor put(const mb__subject *s, int i, const double *x)
{
    const fed *f = s->user;
    int a = f->rig->argument[i];
    if (a < f->rig->c->n)
        return mb__check_tensor(s->blocks, MB_FLOAT64, s->shape[i], x);
    return assign(f->rig, s->blocks, a - f->rig->c->n, x);
}

static mb_tensor apply(const mb__subject *s, const mb_tensor *by)
{
    const fed *f = s->user;
    mb_tensor xs[MB_CHECK_MOST];
    for (int i = 0, next = 0; i < f->rig->c->n; i++)
        xs[i] = mb__is_float(mb__rig_dtype(f->rig, i)) ? by[next++] : argument(f->rig, s->blocks, f->feed, i);
    return mb__rig_apply(f->rig, xs);
}

static const char *label(const mb__subject *s, int i)
{
    const fed *f = s->user;
    return mb__rig_label(f->rig, i, f->label, LABEL_BYTES);
}

mb_status mb__rig_check_derivatives(mb__rig *rig, const char *site, const mb__feed *feed, mb_check_result *r)
{
    mb__blocks blocks = {.ctx = rig->ctx};
    char text[LABEL_BYTES];
    fed f = {rig, feed, text};
    int n = rig->derived;
    double **x = mb__block(&blocks, n, sizeof *x);
    mb_shape *shape = mb__block(&blocks, n, sizeof *shape);
    for (int i = 0; x && shape && i < n; i++) {
        int a = rig->argument[i], p = a - rig->c->n;
        x[i] = p < 0 ? feed->x[a] : feed->parameters[p];
        shape[i] = p < 0 ? feed->shape[a] : mb_shape_of(mb_params_tensor(rig->p, p));
    }
    mb__subject s = {.ctx = rig->ctx,
                     .site = site,
                     .name = rig->c->name,
                     .n = n,
                     .shape = shape,
                     .x = x,
                     .orders = rig->c->orders,
                     .looser = rig->c->looser,
                     .put = put,
                     .f = apply,
                     .label = label,
                     .user = &f,
                     .blocks = &blocks};
    mb_status status = x && shape ? mb__check_derivatives(&s, r) : mb__check_error(r, rig->ctx, site, s.name);
    if (status == MB_WRONG && r->argument >= 0)
        r->argument = rig->argument[r->argument];
    if (status == MB_OK && !mb__rig_assign(rig, feed->parameters))
        status = mb__check_error(r, rig->ctx, site, s.name);
    mb__blocks_free(&blocks);
    return status;
}
