/* SPDX-License-Identifier: MIT
 *
 * search.c - solutions of equations, by loops that end when they are near enough. What they compute is
 * constant to derivatives: those are given by solution.c.
 */
#include "autograd/equation.h"
#include "autograd/solve.h"
#include "tensor/scan.h"

#include <math.h>

/* ---- arguments ---- */

static bool right_numbers(mb_context *ctx, const char *name, const mb_implicit_options *o)
{
    const double reals[] = {o->tolerance, o->damping, o->linear.tolerance, o->linear.rate};
    const int64_t counts[] = {o->steps, o->linear.steps, o->linear.directions};
    for (int i = 0; i < 4; i++)
        if (!(reals[i] >= 0 && reals[i] < (double)INFINITY))
            return mb__error(ctx, MB_INVALID,
                             "%s: a tolerance, damping or rate is %g; wanted a positive number, or 0 "
                             "for the default",
                             name, reals[i]) == MB_OK;
    for (int i = 0; i < 3; i++)
        if (counts[i] < 0 || counts[i] > INT32_MAX)
            return mb__error(ctx, MB_INVALID,
                             "%s: a number of steps or directions is %lld; wanted 0, for the default, "
                             "to 2^31 - 1",
                             name, (long long)counts[i]) == MB_OK;
    if ((unsigned)o->linear.method > MB_SOLVER_DIRECT || (unsigned)o->search > MB_SEARCH_DESCENT)
        return mb__error(ctx, MB_INVALID, "%s: no method has the number %d", name,
                         (unsigned)o->search > MB_SEARCH_DESCENT ? (int)o->search : (int)o->linear.method) ==
               MB_OK;
    return true;
}

static double or_default(double x, double other)
{
    return x > 0 ? x : other;
}

static bool is_newton(int kind, const mb_implicit_options *o)
{
    return kind == MB_ROOT || (kind == MB_MINIMUM && o->search == MB_SEARCH_NEWTON);
}

static void fill_in(int kind, mb_dtype dtype, mb_implicit_options *o)
{
    double near = dtype == MB_FLOAT64 ? 1e-10 : 1e-5;
    o->tolerance = or_default(o->tolerance, near);
    o->steps = o->steps ? o->steps : is_newton(kind, o) ? 50 : 1000;
    o->damping = or_default(o->damping, kind == MB_MINIMUM && !is_newton(kind, o) ? 0.1 : 1);
    o->linear.tolerance = or_default(o->linear.tolerance, near);
    o->linear.steps = o->linear.steps ? o->linear.steps : 1000;
    o->linear.directions = o->linear.directions ? o->linear.directions : 30;
    o->linear.rate = or_default(o->linear.rate, 1);
    if (o->linear.method == MB_SOLVER_AUTO)
        o->linear.method = kind == MB_MINIMUM ? MB_SOLVER_CG : MB_SOLVER_GMRES;
}

/* Whether the tensors are of one context, and the xs floats alike in what must be. */
static bool right_tensors(mb_context *ctx, const char *name, const mb_tensor *ts, int n, bool xs,
                          bool batched)
{
    for (int i = 0; i < n; i++) {
        mb_tensor poison;
        char text[256];
        if (!mb__enter(name, (const mb_tensor *[]){&ts[i]}, 1, &poison) || ts[i].ctx != ctx) {
            if (mb_error(ctx) == MB_OK)
                mb__error(ctx, MB_INVALID, "%s: %s %d is no tensor of this context", name,
                          xs ? "x" : "parameter", i + 1);
            return false;
        }
        if (!xs)
            continue;
        mb_dtype dtype = mb_dtype_of(ts[i]);
        mb_shape shape = mb_shape_of(ts[i]);
        bool fits = mb__is_float((int)dtype) && dtype == mb_dtype_of(ts[0]) &&
                    (!batched || (shape.rank && shape.dim[0] == mb_dim(ts[0], 0)));
        if (!fits) {
            mb__error(ctx, MB_INVALID, "%s: x %d is %s; wanted floats of one dtype%s", name, i + 1,
                      mb__tensor_text(text, sizeof text, ts[i]),
                      batched ? " with a first axis of one size, the problems" : "");
            return false;
        }
    }
    return true;
}

/* What the function reads is its arguments, and what it makes itself. From `first` on is what it recorded. */
static bool reads_arguments_only(const mb__point *at, uint32_t first)
{
    mb_context *ctx = at->ctx;
    const char *name = mb__equation_name(at->e);
    char text[256];
    uint32_t wrong = 0;
    for (uint32_t id = first; id < ctx->node_count && !wrong; id++)
        for (int i = 0; i < mb__at(ctx, id)->nin && !wrong; i++) {
            uint32_t o = mb__in(ctx, mb__at(ctx, id), i);
            bool known = o >= first || mb__has_flag(mb__at(ctx, o)->op, MB_FLAG_GENERATED);
            for (int k = 0; k < at->e->k && !known; k++)
                known = at->xs[k].id == o;
            for (int k = 0; k < at->n && !known; k++)
                known = at->params[k].id == o;
            wrong = known ? 0 : o;
        }
    for (uint32_t i = 0; i < ctx->variable_count && !wrong; i++)
        if (ctx->variables[i].leaf >= first && ctx->variables[i].leaf < ctx->node_count)
            wrong = ctx->variables[i].leaf;
    if (wrong)
        mb__error(ctx, MB_INVALID,
                  "%s: the function reads %s, which is neither an x nor a parameter: hand it in as one", name,
                  mb__tensor_text(text, sizeof text, mb__handle(ctx, wrong)));
    return !wrong;
}

/* ---- a search ---- */

typedef struct search {
    mb__point at; /* xs: what the unknowns are like; params: constants */
    const mb_implicit_options *options;
    mb_tensor *xs;                   /* k, of a step */
    mb_tensor x, g, loss;            /* [problems, p], the same, [problems, 1] */
    mb_tensor done, residual, count; /* rows: bool, what the tolerance is on; steps */
    mb_tensor least;                 /* the tolerance */
} search;

static mb_tensor g_at(search *s, mb_tensor x, mb_tensor *loss)
{
    mb__unpack(s->at.e, x, s->at.xs, s->xs);
    mb__point here = s->at;
    here.xs = s->xs;
    return mb__equation_at(&here, loss);
}

static mb_tensor zero_of(const search *s)
{
    return mb_full(s->at.ctx, mb_dtype_of(s->x), MB_SHAPE0, 0);
}

static mb_tensor rows_of(const search *s, mb_dtype dtype, double value)
{
    return mb_full(s->at.ctx, dtype, MB_SHAPE(mb_dim(s->x, 0), 1), value);
}

/* NaN and infinity are the end, too. */
static mb_tensor hopeless(const search *s)
{
    return mb_not(mb_lt(s->residual, mb_full(s->at.ctx, mb_dtype_of(s->x), MB_SHAPE0, (double)INFINITY)));
}

static mb_tensor relative_to_x(const search *s, mb_tensor step)
{
    return mb_div(mb__row_norm(step), mb_add(mb__row_norm(s->x), 1));
}

static void count_step(search *s, mb_scan scan)
{
    s->count = mb_add(s->count, 1);
    mb_scan_until(scan, mb__all_of(s->done));
    mb_scan_end(scan);
}

/* x - damping * g. */
static void iterate(search *s)
{
    mb_scan scan = mb_scan_begin(s->at.ctx, s->options->steps);
    mb_tensor *const own[] = {&s->x, &s->done, &s->residual, &s->count};
    for (int i = 0; i < 4; i++)
        mb_scan_carry(scan, own[i]);
    mb_tensor g = g_at(s, s->x, NULL);
    s->residual = mb_where(s->done, s->residual, relative_to_x(s, g));
    s->x = mb_where(mb_or(s->done, hopeless(s)), s->x,
                    mb_sub(s->x, mb_mul(g, mb__number(g, s->options->damping))));
    s->done = mb_or(s->done, mb_or(hopeless(s), mb_le(s->residual, s->least)));
    count_step(s, scan);
}

/* Whether a step of that length is one: a root's |g| falls; of a minimum, the loss does, as much as its slope
 * lets expect (Armijo), or to within its rounding, while the gradient falls (Hager and Zhang 2005). */
static mb_tensor acceptable(const search *s, const search *to, mb_tensor length, mb_tensor slope)
{
    mb_tensor before = mb__row_norm(s->g), after = mb__row_norm(to->g);
    mb_tensor falls = mb_lt(after, mb_mul(before, mb_sub(mb_full(s->at.ctx, mb_dtype_of(s->x), MB_SHAPE0, 1),
                                                         mb_mul(length, 1e-4))));
    if (s->at.e->kind != MB_MINIMUM)
        return falls;
    mb_tensor enough = mb_le(to->loss, mb_add(s->loss, mb_mul(mb_mul(length, 1e-4), slope)));
    double rounding = mb_dtype_of(s->x) == MB_FLOAT64 ? 1e-14 : 1e-6;
    mb_tensor level = mb_le(to->loss, mb_add(s->loss, mb_mul(mb_abs(s->loss), rounding)));
    return mb_or(enough, mb_and(falls, level));
}

/* From s along d: the first of the lengths damping, damping / 2, ... that is acceptable. Gives what is there,
 * and *found: rows that have one. Rows that are done stay. */
static search line_search(const search *s, mb_tensor d, mb_tensor *found)
{
    enum { HALVINGS = 30 };
    search to = *s;
    mb_tensor slope = mb__row_dot(s->g, d), length = rows_of(s, mb_dtype_of(s->x), 0), ok = s->done;
    length = mb_add(length, mb__number(length, 2 * s->options->damping));
    mb_scan scan = mb_scan_begin(s->at.ctx, HALVINGS);
    mb_tensor *const own[] = {&to.x, &to.g, &to.loss, &length, &ok};
    for (int i = 0; i < 5; i++)
        mb_scan_carry(scan, own[i]);
    search next = to;
    length = mb_mul(length, 0.5);
    next.x = mb_add(s->x, mb_mul(length, d));
    next.g = g_at(&next, next.x, &next.loss);
    mb_tensor taken = mb_and(mb_not(ok), acceptable(s, &next, length, slope));
    to.x = mb_where(taken, next.x, to.x);
    to.g = mb_where(taken, next.g, to.g);
    to.loss = mb_where(taken, next.loss, to.loss);
    ok = mb_or(ok, taken);
    mb_scan_until(scan, mb__all_of(ok));
    mb_scan_end(scan);
    *found = ok;
    return to;
}

/* The direction of Newton's step, solved for no better than the residual is small (Dembo et al. 1982). */
static mb_tensor newton_direction(search *s)
{
    mb_context *ctx = s->at.ctx;
    mb__unpack(s->at.e, s->x, s->at.xs, s->xs);
    mb__point here = s->at;
    here.xs = s->xs;
    const mb__matrix matrix = {mb__equation_times, &here, mb__symmetric(s->at.e)};
    mb_tensor downhill = mb_neg(s->g), tenth = mb_full(ctx, mb_dtype_of(s->x), MB_SHAPE0, 0.1);
    mb_tensor forcing = mb_maximum(mb_minimum(mb_mul(s->residual, 0.1), tenth),
                                   mb__number(s->x, s->options->linear.tolerance));
    mb_tensor d = mb__solve(&matrix, downhill, forcing, &s->options->linear).z;
    if (s->at.e->kind != MB_MINIMUM)
        return d;
    return mb_where(mb_lt(mb__row_dot(s->g, d), zero_of(s)), d, downhill);
}

static void newton(search *s)
{
    mb_scan scan = mb_scan_begin(s->at.ctx, s->options->steps);
    mb_tensor *const own[] = {&s->x, &s->g, &s->loss, &s->done, &s->residual, &s->count};
    for (int i = 0; i < 6; i++)
        mb_scan_carry(scan, own[i]);
    mb_tensor found, d = newton_direction(s), residual = relative_to_x(s, d);
    search to = line_search(s, d, &found);
    s->residual = mb_where(s->done, s->residual, residual);
    s->done = mb_or(mb_or(s->done, mb_not(found)), mb_le(s->residual, s->least));
    s->x = to.x;
    s->g = to.g;
    s->loss = to.loss;
    count_step(s, scan);
}

static void run(search *s)
{
    const mb__equation *e = s->at.e;
    s->x = mb__pack(e, s->at.xs);
    s->count = mb_full(s->at.ctx, MB_INT32, MB_SHAPE0, 0);
    s->least = mb__number(s->x, s->options->tolerance);
    s->residual = s->loss = rows_of(s, mb_dtype_of(s->x), 1);
    s->done = rows_of(s, MB_BOOL, 0);
    if (is_newton(e->kind, s->options))
        s->g = g_at(s, s->x, &s->loss);
    if (mb_error(s->at.ctx) == MB_OK)
        is_newton(e->kind, s->options) ? newton(s) : iterate(s);
}

/* ---- the doors ---- */

static void tell(const search *s, mb_convergence *told)
{
    mb_shape shape = s->at.e->batched ? MB_SHAPE(mb_dim(s->x, 0)) : MB_SHAPE0;
    told->converged = mb_reshape(mb_le(s->residual, s->least), shape);
    told->residual = mb_reshape(s->residual, shape);
    told->steps = s->count;
}

/* memory: 4k + 2n tensors. */
static mb_status solve(const mb__equation *e, mb_context *ctx, const mb_tensor *x0, const mb_tensor *params,
                       int n, const mb_implicit_options *options, mb_tensor *memory, mb_tensor *x,
                       mb_convergence *told)
{
    int k = e->k;
    mb_tensor *still = memory, *names = still + k + n, *ys = names + k + n, *scratch = ys + k;
    for (int i = 0; i < k + n; i++) {
        mb_tensor t = i < k ? x0[i] : params[i - k];
        still[i] = mb__is_float((int)mb_dtype_of(t)) ? mb_stop_gradient(t) : mb_alias(t);
    }
    for (int i = 0; i < k + n; i++)
        names[i] = mb_alias(still[i]);
    uint32_t first = ctx->node_count; /* it is asked once, to see what it reads */
    const mb__point trial = {e, ctx, names, names + k, n};
    if (mb_error(ctx) != MB_OK || !mb__equation_at(&trial, NULL).id || !reads_arguments_only(&trial, first))
        return mb_error(ctx);
    search s = {.at = {e, ctx, still, still + k, n}, .options = options, .xs = scratch};
    run(&s);
    mb__unpack(e, s.x, x0, ys);
    if (mb__as_solution(e, ys, params, n, x) == MB_OK && told)
        tell(&s, told);
    return mb_error(ctx);
}

static mb_status implicit(int kind, mb_map map, const mb_tensor *x0, int k, const mb_tensor *params, int n,
                          mb_implicit_options options, mb_tensor *x, mb_convergence *told)
{
    mb_context *ctx = x0[0].ctx;
    mb__equation e = {.map = map, .kind = kind, .k = k, .batched = options.batched};
    const char *name = mb__equation_name(&e);
    bool ok = mb__enter_context(name, ctx);
    if (ok && (!map.call || n < 0 || (n && !params) || !x || (int64_t)k + n > 10000))
        ok = mb__error(ctx, MB_INVALID, "%s: got %d tensors x and %d parameters%s%s", name, k, n,
                       map.call ? "" : ", and no function",
                       x ? "" : ", and nowhere to put the solution") == MB_OK;
    if (ok && (map.user_bytes > MB_MAP_USER_MOST || (map.user_bytes && !map.user)))
        ok = mb__error(ctx, MB_INVALID, "%s: %zu bytes of user data%s; %d are the most", name, map.user_bytes,
                       map.user ? "" : " and no pointer to them", MB_MAP_USER_MOST) == MB_OK;
    ok = ok && right_numbers(ctx, name, &options) && right_tensors(ctx, name, x0, k, true, options.batched) &&
         right_tensors(ctx, name, params, n, false, false);
    MB_TEMPORARY(ctx);
    mb_tensor *memory = ok ? mb__temporary(ctx, (size_t)(5 * k + 3 * n + 1) * sizeof *memory) : NULL;
    if (memory) {
        const mb_dtype dtype = mb_dtype_of(x0[0]);
        mb_tensor *wide = memory + 4 * k + 2 * n; /* halves are solved for as float32 */
        for (int i = 0; i < k + n; i++)
            wide[i] = mb__wide(i < k ? x0[i] : params[i - k]);
        fill_in(kind, mb_dtype_of(x0[0]), &options);
        e.linear = options.linear;
        if (map.user_bytes)
            memcpy(e.user, map.user, map.user_bytes);
        if (solve(&e, ctx, wide, wide + k, n, &options, memory, x, told) == MB_OK) {
            for (int i = 0; i < k && mb__is_half((int)dtype); i++)
                x[i] = mb_cast(x[i], dtype);
            return mb_error(ctx);
        }
    }
    for (int i = 0; x && i < k; i++)
        x[i] = mb__poison(ctx);
    if (told)
        *told = (mb_convergence){mb__poison(ctx), mb__poison(ctx), mb__poison(ctx)};
    return mb_error(ctx);
}

mb_status mb_fixed_point_at(const char *site, mb_map f, const mb_tensor *x0, int k, const mb_tensor *params,
                            int n, mb_implicit_options options, mb_tensor *x, mb_convergence *told)
{
    mb_context *ctx = x0 && k > 0 ? x0[0].ctx : NULL;
    MB_DOOR(ctx, site, MB_THREAD);
    return ctx ? implicit(MB_FIXED_POINT, f, x0, k, params, n, options, x, told) : MB_INVALID;
}

mb_status mb_root_at(const char *site, mb_map g, const mb_tensor *x0, int k, const mb_tensor *params, int n,
                     mb_implicit_options options, mb_tensor *x, mb_convergence *told)
{
    mb_context *ctx = x0 && k > 0 ? x0[0].ctx : NULL;
    MB_DOOR(ctx, site, MB_THREAD);
    return ctx ? implicit(MB_ROOT, g, x0, k, params, n, options, x, told) : MB_INVALID;
}

mb_status mb_minimize_at(const char *site, mb_map loss, const mb_tensor *x0, int k, const mb_tensor *params,
                         int n, mb_implicit_options options, mb_tensor *x, mb_convergence *told)
{
    mb_context *ctx = x0 && k > 0 ? x0[0].ctx : NULL;
    MB_DOOR(ctx, site, MB_THREAD);
    return ctx ? implicit(MB_MINIMUM, loss, x0, k, params, n, options, x, told) : MB_INVALID;
}
