/* SPDX-License-Identifier: MIT
 *
 * sweep.c - gradients and products with Jacobians, by the sweeps of reverse.c and forward.c.
 *
 * A sweep visits the part of the tape between the oldest x and y, and in it only nodes that depend on an x
 * and that y depends on. So the gradient in the last of a thousand inner steps costs that step alone.
 */
#include <stdio.h>

#include "autograd/autograd.h"
#include "autograd/range.h"

static mb_status jvp_ids(mb_context *ctx, const uint32_t *ys, int m, const uint32_t *xs, const uint32_t *vs,
                         int n, int64_t lead, uint32_t *ts);
/* What a scan's or a custom rule calls for its own sweeps. */
static const mb__sweeps sweeps = {mb__vjp_ids, jvp_ids};

mb_status mb__vjp_ids(mb_context *ctx, const uint32_t *ys, const uint32_t *vs, int m, const uint32_t *xs,
                      int n, uint32_t *gs)
{
    return mb__reverse(ctx, &sweeps, ys, vs, m, xs, n, gs);
}

static mb_status jvp_ids(mb_context *ctx, const uint32_t *ys, int m, const uint32_t *xs, const uint32_t *vs,
                         int n, int64_t lead, uint32_t *ts)
{
    return mb__forward(ctx, &sweeps, ys, m, xs, vs, n, lead, ts);
}

/* ---- reverse mode ---- */

static mb_status vjp(const char *name, mb_tensor y, const mb_tensor *v, const mb_tensor *xs, int n,
                     mb_tensor *gs, int *fed)
{
    *fed = 0;
    uint32_t id;
    mb_context *ctx = y.ctx;
    for (int i = 0; gs && i < n; i++)
        gs[i] = mb__poison(ctx);
    if (n < 0 || (n && (!xs || !gs)))
        return mb__error(ctx, MB_INVALID, "%s: got %d tensors to differentiate by, and %s", name, n,
                         !xs && n > 0 ? "no array of them" : "nowhere to put the result");
    if (!mb__enter_floats(name, &y, 1, &id))
        return ctx ? mb_error(ctx) : MB_INVALID;
    MB_TEMPORARY(ctx);
    uint32_t *ids = mb__temporary(ctx, 2 * (size_t)n * sizeof *ids);
    if (!ids)
        return ctx->status;
    const char *site_of_call = ctx->site, *call = ctx->call;
    mb_status status = MB_OK;
    if (n && !mb__enter_floats(name, xs, n, ids))
        status = mb_error(ctx) ? mb_error(ctx) : mb__error(ctx, MB_INVALID, "%s: an x is not a tensor", name);
    if (status == MB_OK && n && xs[0].ctx != ctx)
        status = mb__error(ctx, MB_INVALID, "%s: y and xs belong to different contexts", name);
    mb_tensor seed = {0};
    if (status == MB_OK && v) {
        if (!mb__enter_floats(name, v, 1, NULL) || v->ctx != ctx ||
            !mb__same_shape(mb__at(ctx, v->id), mb__at(ctx, id))) {
            char a[256], b[256];
            mb__error(ctx, MB_INVALID, "%s: got the cotangent %s for y %s; wanted the same shape and dtype",
                      name, mb__tensor_text(a, sizeof a, *v), mb__tensor_text(b, sizeof b, y));
            status = ctx->status;
        } else {
            seed = *v;
            seed.id = mb__resolve(ctx, *v);
        }
    } else if (status == MB_OK) {
        const mb__node *ny = mb__at(ctx, id);
        mb_shape shape = {ny->rank, {0}};
        memcpy(shape.dim, ny->dim, sizeof shape.dim);
        seed = mb_full(ctx, (mb_dtype)ny->dtype, shape, 1);
    }
    if (status == MB_OK && !seed.id)
        status = ctx->status;
    uint32_t *found = ids + n;
    if (status == MB_OK)
        status = mb__vjp_ids(ctx, &id, &seed.id, 1, ids, n, found);
    ctx->site = site_of_call;
    ctx->call = call;
    for (int i = 0; i < n && status == MB_OK; i++) {
        gs[i] = found[i] ? mb__handle(ctx, found[i]) : mb__zeros_like(ctx, ids[i], -1);
        *fed += found[i] != 0;
        status = ctx->status;
    }
    return status;
}

mb_status mb__grad_fed(mb_tensor y, const mb_tensor *xs, int n, mb_tensor *gs, int *fed)
{
    return vjp("grad", y, NULL, xs, n, gs, fed);
}

/* Warns: gradients that are all zero because y depends on no x are rarely intended. */
static void tell_unfed(mb_context *ctx, mb_tensor y, const mb_tensor *xs, int n)
{
    int i = 0;
    while (i < n && mb__at(ctx, xs[i].id)->op != MB_OP_VARIABLE)
        i++;
    if (i == n || !ctx->engine->log)
        return;
    char line[512], text[256];
    snprintf(line, sizeof line,
             "%s: grad: y, %s, depends on none of the %d tensors: zeros; a variable stands for its value at "
             "this moment, so y must be recorded after mb_assign or mb_step",
             ctx->site, mb__tensor_text(text, sizeof text, y), n);
    ctx->engine->log(ctx, line);
}

mb_status mb_grad_at(const char *site, mb_tensor y, const mb_tensor *xs, int n, mb_tensor *gs)
{
    MB_DOOR(y.ctx, site, MB_THREAD);
    int fed;
    mb_status status = mb__grad_fed(y, xs, n, gs, &fed);
    if (status == MB_OK && n && !fed)
        tell_unfed(y.ctx, y, xs, n);
    return status;
}

mb_status mb_vjp_at(const char *site, mb_tensor y, mb_tensor v, const mb_tensor *xs, int n, mb_tensor *gs)
{
    MB_DOOR(y.ctx, site, MB_THREAD);
    int fed;
    return vjp("vjp", y, &v, xs, n, gs, &fed);
}

/* ---- forward mode ---- */

/* Whether v is a tangent for x: of x's shape, or in a batch of that shape after a first axis of size *lead,
 * which the first x sets (-1 before). */
static bool fits(const mb__node *x, const mb__node *v, bool batch, int64_t *lead)
{
    if (!batch)
        return mb__same_shape(x, v);
    if (v->rank != x->rank + 1 || v->dtype != x->dtype ||
        memcmp(v->dim + 1, x->dim, (size_t)x->rank * sizeof *x->dim))
        return false;
    if (*lead < 0)
        *lead = v->dim[0];
    return *lead == v->dim[0];
}

static mb_status jvp(const char *name, bool batch, const mb_tensor *ys, int m, const mb_tensor *xs,
                     const mb_tensor *vs, int n, mb_tensor *ts)
{
    mb_context *ctx = m > 0 && ys ? ys[0].ctx : NULL;
    if (!ctx || m < 1 || n < (batch ? 1 : 0) || (n && (!xs || !vs)) || !ts)
        return ctx ? mb__error(ctx, MB_INVALID, "%s: got %d results and %d variables", name, m, n)
                   : MB_INVALID;
    MB_TEMPORARY(ctx);
    uint32_t *yi =
        mb_error(ctx) == MB_OK ? mb__temporary(ctx, 2 * ((size_t)m + (size_t)n) * sizeof *yi) : NULL;
    bool ok = yi != NULL;
    uint32_t *xi = ok ? yi + m : NULL, *vi = ok ? xi + n : NULL;
    const char *site_of_call = ctx->site, *call = ctx->call;
    ok = ok && mb__enter_floats(name, ys, m, yi) &&
         (!n || (mb__enter_floats(name, xs, n, xi) == ctx && mb__enter_floats(name, vs, n, vi) == ctx));
    int64_t lead = -1;
    for (int i = 0; ok && i < n; i++)
        if (!fits(mb__at(ctx, xi[i]), mb__at(ctx, vi[i]), batch, &lead)) {
            char a[256], b[256];
            mb__error(ctx, MB_INVALID,
                      batch ? "%s: got the tangents %s for %s; wanted its shape after an axis for the "
                              "directions, as many for each variable, and its dtype"
                            : "%s: got the tangent %s for %s; wanted the same shape and dtype",
                      name, mb__tensor_text(a, sizeof a, vs[i]), mb__tensor_text(b, sizeof b, xs[i]));
            ok = false;
        }
    for (int i = 0; ok && batch && i < m; i++)
        if (mb__at(ctx, yi[i])->rank == MB_MAX_RANK) {
            mb__error(ctx, MB_INVALID,
                      "%s: a result has %d axes; the directions want one more, and %d is the most", name,
                      MB_MAX_RANK, MB_MAX_RANK);
            ok = false;
        }
    for (int i = 0; i < m; i++) /* only now: ts may be ys */
        ts[i] = mb__poison(ctx);
    uint32_t *ti = ok ? vi + n : NULL;
    ok = ok && jvp_ids(ctx, yi, m, xi, vi, n, lead, ti) == MB_OK;
    ctx->site = site_of_call;
    ctx->call = call;
    for (int i = 0; ok && i < m; i++) {
        ts[i] = ti[i] ? mb__handle(ctx, ti[i]) : mb__zeros_like(ctx, yi[i], lead);
        ok = ctx->status == MB_OK;
    }
    return mb_error(ctx);
}

mb_status mb_jvp_at(const char *site, const mb_tensor *ys, int m, const mb_tensor *xs, const mb_tensor *vs,
                    int n, mb_tensor *ts)
{
    MB_DOOR(ys ? ys->ctx : NULL, site, MB_THREAD);
    return jvp("jvp", false, ys, m, xs, vs, n, ts);
}

mb_status mb_jvp_batch_at(const char *site, const mb_tensor *ys, int m, const mb_tensor *xs,
                          const mb_tensor *vs, int n, mb_tensor *ts)
{
    MB_DOOR(ys ? ys->ctx : NULL, site, MB_THREAD);
    return jvp("jvp_batch", true, ys, m, xs, vs, n, ts);
}
