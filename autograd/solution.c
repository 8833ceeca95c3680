/* SPDX-License-Identifier: MIT
 *
 * solution.c - derivatives of what solves an equation, by the implicit function theorem.
 *
 * Two rules (custom.h). A solution x of g(x, params) = 0 has dx = -(dg/dx)^-1 dg/dparams dparams; the system
 * is solved by a second tensor of that kind, z with A z = b where A is dg/dx or its transpose at (x, params):
 * dz = A^-1 (db - dA z). Its rule asks for such a z again, so there are derivatives of every order.
 */
#include "autograd/autograd.h"
#include "autograd/equation.h"
#include "autograd/solve.h"

#include <math.h>

/* ---- derivatives by those of a list that are floats ---- */

typedef struct floats {
    mb_tensor *xs, *ds; /* the tensors; their tangents or gradients */
    int *of;            /* places in the list */
    int n;
} floats;

/* tangents: only those that have one; NULL: all. False: error set. */
static bool floats_of(mb_context *ctx, const mb_tensor *list, int n, const mb_tensor *tangents, floats *f)
{
    f->xs = mb__temporary(ctx, ((size_t)n + 1) * (2 * sizeof *f->xs + sizeof *f->of));
    if (!f->xs)
        return false;
    f->ds = f->xs + n + 1;
    f->of = (int *)(f->ds + n + 1);
    f->n = 0;
    for (int i = 0; i < n; i++) {
        if (!mb__is_float((int)mb_dtype_of(list[i])) || (tangents && !tangents[i].ctx))
            continue;
        f->of[f->n] = i;
        f->xs[f->n] = list[i];
        if (tangents)
            f->ds[f->n] = tangents[i];
        f->n++;
    }
    return true;
}

/* gs: -w^T dy/dlist, where there are such. */
static void pull_back(mb_tensor y, mb_tensor w, const mb_tensor *list, int n, mb_tensor *gs)
{
    mb_context *ctx = y.ctx;
    floats f;
    MB_TEMPORARY(ctx);
    if (!floats_of(ctx, list, n, NULL, &f))
        return;
    mb_vjp(y, mb_neg(w), f.xs, f.n, f.ds);
    for (int i = 0; i < f.n; i++)
        gs[f.of[i]] = f.ds[i];
}

/* -dy/dlist tangents; no tensor where there are none. */
static mb_tensor push_forward(mb_tensor y, const mb_tensor *list, int n, const mb_tensor *tangents)
{
    mb_context *ctx = y.ctx;
    floats f;
    MB_TEMPORARY(ctx);
    if (!floats_of(ctx, list, n, tangents, &f) || !f.n)
        return MB_EMPTY(mb_tensor);
    mb_tensor t;
    mb_jvp(&y, 1, f.xs, f.ds, f.n, &t);
    return mb_neg(t);
}

/* ---- the linear system ---- */

static mb_tensor linear(const mb__equation *e, bool transposed, mb_tensor b, const mb__point *at);

/* What the rule is asked about: b, then the point's x and parameters. */
static mb__point point_of(mb_context *ctx, const mb__equation *e, const mb_custom_at *at)
{
    return (mb__point){e, ctx, at->xs + 1, at->xs + 1 + e->k, at->n - 1 - e->k};
}

static mb_status linear_reverse(const void *user, mb_context *ctx, const mb_custom_at *at,
                                const mb_tensor *vs, mb_tensor *gs)
{
    const mb__equation *e = user;
    mb__point p = point_of(ctx, e, at);
    gs[0] = linear(e, !e->transposed, vs[0], &p);
    pull_back(mb__equation_times(&p, at->ys[0], false), gs[0], at->xs + 1, at->n - 1, gs + 1);
    return mb_error(ctx);
}

static mb_status linear_forward(const void *user, mb_context *ctx, const mb_custom_at *at,
                                const mb_tensor *ts, mb_tensor *us)
{
    const mb__equation *e = user;
    mb__point p = point_of(ctx, e, at);
    mb_tensor b = push_forward(mb__equation_times(&p, at->ys[0], false), at->xs + 1, at->n - 1, ts + 1);
    if (ts[0].ctx)
        b = b.ctx ? mb_add(ts[0], b) : ts[0];
    if (b.ctx)
        us[0] = linear(e, e->transposed, b, &p);
    return mb_error(ctx);
}

/* The values of it, or NaN where they are not what the tolerance asks for. */
static mb_tensor solve(const mb__equation *e, mb_tensor b, const mb_tensor *xs, int n)
{
    const mb__point at = {e, b.ctx, xs, xs + e->k, n};
    const mb__matrix matrix = {mb__equation_times, (void *)(uintptr_t)&at, mb__symmetric(e)};
    mb__solved s = mb__solve(&matrix, b, mb__number(b, e->linear.tolerance), &e->linear);
    return e->linear.truncate
               ? s.z
               : mb_where(s.converged, s.z, mb_full(b.ctx, mb_dtype_of(b), MB_SHAPE0, (double)NAN));
}

static mb_tensor stopped(mb_tensor t)
{
    return mb__is_float((int)mb_dtype_of(t)) ? mb_stop_gradient(t) : t;
}

/* z with A z = b, A at that point: dg/dx, or its transpose. */
static mb_tensor linear(const mb__equation *e, bool transposed, mb_tensor b, const mb__point *at)
{
    mb_context *ctx = at->ctx;
    int all = e->k + at->n;
    mb__equation own = *e;
    own.transposed = transposed;
    MB_TEMPORARY(ctx);
    mb_tensor *list = mb__temporary(ctx, 2 * ((size_t)all + 1) * sizeof *list);
    if (!list)
        return mb__poison(ctx);
    mb_tensor *still = list + all + 1;
    list[0] = b;
    memcpy(list + 1, at->xs, (size_t)e->k * sizeof *list);
    memcpy(list + 1 + e->k, at->params, (size_t)at->n * sizeof *list);
    for (int i = 0; i <= all; i++)
        still[i] = stopped(list[i]);
    mb_tensor z = solve(&own, still[0], still + 1, at->n);
    mb_custom_gradient(&z, 1, list, all + 1,
                       (mb_custom_rule){linear_reverse, linear_forward, &own, sizeof own}, &z);
    return z;
}

/* ---- the solution ---- */

static mb_status solution_reverse(const void *user, mb_context *ctx, const mb_custom_at *at,
                                  const mb_tensor *vs, mb_tensor *gs)
{
    const mb__equation *e = user;
    const mb__point p = {e, ctx, at->ys, at->xs, at->n};
    MB_TEMPORARY(ctx);
    mb_tensor *v = mb__temporary(ctx, (size_t)e->k * sizeof *v);
    if (!v)
        return mb_error(ctx);
    for (int i = 0; i < e->k; i++)
        v[i] = vs[i].ctx ? vs[i] : mb_zeros(ctx, mb_dtype_of(at->ys[i]), mb_shape_of(at->ys[i]));
    mb_tensor w = linear(e, true, mb__pack(e, v), &p);
    pull_back(mb__equation_at(&p, NULL), w, at->xs, at->n, gs);
    return mb_error(ctx);
}

static mb_status solution_forward(const void *user, mb_context *ctx, const mb_custom_at *at,
                                  const mb_tensor *ts, mb_tensor *us)
{
    const mb__equation *e = user;
    const mb__point p = {e, ctx, at->ys, at->xs, at->n};
    mb_tensor b = push_forward(mb__equation_at(&p, NULL), at->xs, at->n, ts);
    if (b.ctx)
        mb__unpack(e, linear(e, false, b, &p), at->ys, us);
    return mb_error(ctx);
}

mb_status mb__as_solution(const mb__equation *e, const mb_tensor *ys, const mb_tensor *params, int n,
                          mb_tensor *out)
{
    return mb_custom_gradient(ys, e->k, params, n,
                              (mb_custom_rule){solution_reverse, solution_forward, e, sizeof *e}, out);
}
