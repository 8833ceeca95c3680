/* SPDX-License-Identifier: MIT
 * equation.c - g(x, params) = 0 and the products with its derivative. */
#include "autograd/equation.h"
#include "autograd/autograd.h"

const char *mb__equation_name(const mb__equation *e)
{
    static const char *const names[] = {"fixed_point", "root", "minimize"};
    return names[e->kind];
}

/* ---- k tensors as one ---- */

static int64_t problems_of(const mb__equation *e, mb_tensor t)
{
    return e->batched ? mb_dim(t, 0) : 1;
}

mb_tensor mb__pack(const mb__equation *e, const mb_tensor *ts)
{
    mb_context *ctx = ts[0].ctx;
    MB_TEMPORARY(ctx);
    mb_tensor *rows = mb__temporary(ctx, (size_t)e->k * sizeof *rows);
    if (!rows)
        return mb__poison(ctx);
    int64_t problems = problems_of(e, ts[0]);
    for (int i = 0; i < e->k; i++)
        rows[i] = mb_reshape(ts[i], MB_SHAPE(problems, mb_count(ts[i]) / (problems ? problems : 1)));
    return e->k == 1 ? rows[0] : mb_concat(rows, e->k, 1);
}

void mb__unpack(const mb__equation *e, mb_tensor v, const mb_tensor *like, mb_tensor *out)
{
    int64_t problems = problems_of(e, like[0]), at = 0;
    for (int i = 0; i < e->k; i++) {
        int64_t size = mb_count(like[i]) / (problems ? problems : 1);
        mb_tensor part = e->k == 1 ? v : mb_slice(v, 1, at, size, 1);
        out[i] = mb_reshape(part, mb_shape_of(like[i]));
        at += size;
    }
}

/* ---- the function ---- */

/* Whether what the function gave as result i has that shape and dtype. */
static bool right_result(const mb__point *at, int i, mb_tensor t, mb_shape shape, mb_dtype dtype)
{
    mb_context *ctx = at->ctx;
    mb_tensor poison;
    const char *name = mb__equation_name(at->e);
    bool ours = t.ctx == ctx && mb__enter(name, (const mb_tensor *[]){&t}, 1, &poison);
    mb_shape got = ours ? mb_shape_of(t) : shape;
    if (ours && mb_dtype_of(t) == dtype && got.rank == shape.rank &&
        !memcmp(got.dim, shape.dim, (size_t)shape.rank * sizeof *shape.dim))
        return true;
    char text[256], want[128];
    if (mb_error(ctx) == MB_OK)
        mb__error(ctx, MB_INVALID, "%s: the function gives result %d as %s; wanted %s %s", name, i + 1,
                  ours ? mb__tensor_text(text, sizeof text, t) : "no tensor of this context",
                  mb__shape_text(want, sizeof want, shape.dim, shape.rank), mb_dtype_name(dtype));
    return false;
}

static bool call(const mb__point *at, mb_tensor *out)
{
    const mb__equation *e = at->e;
    mb_context *ctx = at->ctx;
    bool loss = e->kind == MB_MINIMUM;
    for (int i = 0; i < (loss ? 1 : e->k); i++)
        out[i] = (mb_tensor){0};
    if (mb_error(ctx) != MB_OK)
        return false;
    const mb_map_at asked = {at->xs, at->params, e->k, at->n};
    mb_status status = e->map.call(e->map.user_bytes ? (const void *)e->user : e->map.user, ctx, &asked, out);
    if (status != MB_OK && mb_error(ctx) == MB_OK)
        mb__error(ctx, status, "%s: the function failed (%s)", mb__equation_name(e), mb_status_name(status));
    if (mb_error(ctx) != MB_OK)
        return false;
    if (loss)
        return right_result(at, 0, out[0], e->batched ? MB_SHAPE(mb_dim(at->xs[0], 0)) : MB_SHAPE0,
                            mb_dtype_of(at->xs[0]));
    for (int i = 0; i < e->k; i++)
        if (!right_result(at, i, out[i], mb_shape_of(at->xs[i]), mb_dtype_of(at->xs[i])))
            return false;
    return true;
}

mb_tensor mb__equation_at(const mb__point *at, mb_tensor *loss)
{
    const mb__equation *e = at->e;
    mb_context *ctx = at->ctx;
    MB_TEMPORARY(ctx);
    mb_tensor *out = mb__temporary(ctx, (size_t)e->k * sizeof *out);
    if (!out || !call(at, out))
        return mb__poison(ctx);
    if (e->kind == MB_MINIMUM) {
        if (loss)
            *loss = mb_reshape(out[0], MB_SHAPE(problems_of(e, at->xs[0]), 1));
        mb_grad(out[0], at->xs, e->k, out);
    }
    mb_tensor g = mb__pack(e, out);
    return e->kind == MB_FIXED_POINT ? mb_sub(mb__pack(e, at->xs), g) : g;
}

mb_tensor mb__equation_times(void *point, mb_tensor v, bool transposed)
{
    const mb__point *at = point;
    const mb__equation *e = at->e;
    mb_context *ctx = at->ctx;
    MB_TEMPORARY(ctx);
    mb_tensor *xs = mb__temporary(ctx, 2 * (size_t)e->k * sizeof *xs), product = mb__poison(ctx);
    if (!xs)
        return product;
    mb_tensor *vs = xs + e->k;
    for (int i = 0; i < e->k; i++)
        xs[i] = mb_alias(at->xs[i]);
    mb__point here = *at;
    here.xs = xs;
    mb_tensor g = mb__equation_at(&here, NULL);
    if (!mb__symmetric(e) && transposed != e->transposed) {
        mb_vjp(g, v, xs, e->k, vs);
        return mb__pack(e, vs);
    }
    mb__unpack(e, v, xs, vs);
    mb_jvp(&g, 1, xs, vs, e->k, &product);
    return product;
}
