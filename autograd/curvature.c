/* SPDX-License-Identifier: MIT
 *
 * curvature.c - Jacobians and second derivatives, by the sweeps: Hessian-vector products in both modes and in
 * batches, the dense Hessian and its diagonal, the second derivative along a line.
 */
#include "autograd/directions.h"

/* ---- products ---- */

/* An array for the gradient and the like: on the stack if it is small, so that a usual step allocates
 * nothing. Results do not go to hs before the end, since hs may be vs. */
typedef struct scratch {
    mb_tensor few[32], *all;
    size_t count;
} scratch;

static bool scratch_open(mb_context *ctx, scratch *r, size_t count)
{
    r->count = count;
    r->all = count <= sizeof r->few / sizeof *r->few ? r->few : mb__alloc(ctx, count * sizeof *r->all);
    return r->all != NULL;
}

static void scratch_close(mb_context *ctx, scratch *r)
{
    if (r->all != r->few)
        mb__free(ctx, r->all, r->count * sizeof *r->all);
}

static mb_status poison_all(mb_context *ctx, mb_tensor *hs, int n)
{
    for (int i = 0; i < n; i++)
        hs[i] = mb__poison(ctx);
    return mb_error(ctx);
}

static mb_status forward_over_reverse(const char *name, bool batch, mb_tensor y, const mb_tensor *xs,
                                      const mb_tensor *vs, int n, mb_tensor *hs)
{
    mb_context *ctx = y.ctx;
    scratch g;
    if (n <= 0 || !hs || !xs || !vs)
        return mb__refuse_count(ctx, name, n);
    if (mb_error(ctx) != MB_OK || !scratch_open(ctx, &g, (size_t)n))
        return poison_all(ctx, hs, n);
    mb_status status = mb_grad(y, xs, n, g.all);
    if (status == MB_OK)
        status = batch ? mb_jvp_batch(g.all, n, xs, vs, n, hs) : mb_jvp(g.all, n, xs, vs, n, hs);
    scratch_close(ctx, &g);
    if (status != MB_OK)
        poison_all(ctx, hs, n);
    return status;
}

mb_status mb_hvp_at(const char *site, mb_tensor y, const mb_tensor *xs, const mb_tensor *vs, int n,
                    mb_tensor *hs)
{
    MB_DOOR(y.ctx, site, MB_THREAD);
    return forward_over_reverse("hvp", false, y, xs, vs, n, hs);
}

mb_status mb_hvp_batch_at(const char *site, mb_tensor y, const mb_tensor *xs, const mb_tensor *vs, int n,
                          mb_tensor *hs)
{
    MB_DOOR(y.ctx, site, MB_THREAD);
    return forward_over_reverse("hvp_batch", true, y, xs, vs, n, hs);
}

/* All ts as one vector. */
static mb_tensor flat(const mb_tensor *ts, int n, mb_tensor *scratch)
{
    for (int i = 0; i < n; i++)
        scratch[i] = mb_reshape(ts[i], MB_SHAPE(-1));
    return n == 1 ? scratch[0] : mb_concat(scratch, n, 0);
}

mb_status mb_hvp_reverse_at(const char *site, mb_tensor y, const mb_tensor *xs, const mb_tensor *vs, int n,
                            mb_tensor *hs)
{
    MB_DOOR(y.ctx, site, MB_THREAD);
    mb_context *ctx = y.ctx;
    scratch r;
    if (n <= 0 || !hs || !xs || !vs)
        return mb__refuse_count(ctx, "hvp_reverse", n);
    if (mb_error(ctx) != MB_OK || !scratch_open(ctx, &r, 2 * (size_t)n))
        return poison_all(ctx, hs, n);
    mb_tensor *gs = r.all, *parts = r.all + n;
    mb_status status = mb_grad(y, xs, n, gs);
    for (int i = 0; status == MB_OK && i < n; i++) {
        mb_shape g = mb_shape_of(gs[i]), v = mb_shape_of(vs[i]);
        if (g.rank != v.rank || memcmp(g.dim, v.dim, (size_t)g.rank * sizeof *g.dim) != 0)
            status = mb__error(ctx, MB_INVALID,
                               "hvp_reverse: vector %d does not have the shape of its variable", i + 1);
    }
    if (status == MB_OK) {
        /* One sweep from all gradients, with vs as the cotangent: the gradient of <gs, vs> would have terms
         * through vs as well. */
        mb_tensor g = flat(gs, n, parts), v = flat(vs, n, parts);
        status = mb_vjp(g, v, xs, n, hs);
    }
    scratch_close(ctx, &r);
    if (status != MB_OK)
        poison_all(ctx, hs, n);
    return status;
}

/* ---- dense ---- */

/* Whether p directions of `width` results each can be indexed by int32; checked before any work. */
static bool can_list(mb_context *ctx, const char *name, int64_t p, int64_t width)
{
    if (p <= INT32_MAX && mb__countable((int64_t[]){p, width}, 2))
        return true;
    mb__error(ctx, MB_INVALID, "%s: got %lld variables and %lld results of each; wanted fewer than 2^31",
              name, (long long)p, (long long)width);
    return false;
}

mb_tensor mb_hessian_at(const char *site, mb_tensor y, const mb_tensor *xs, int n)
{
    MB_DOOR(y.ctx, site, mb__poison(y.ctx));
    mb__bundle b;
    mb_tensor result = mb__poison(y.ctx);
    if (mb__bundle_open(&b, "hessian", y, xs, n) && can_list(b.ctx, "hessian", b.p, b.p)) {
        int64_t p = b.p, K = mb__bundle_batch(&b), count = 0;
        int64_t capacity = K ? (p + K - 1) / K : 0;
        mb_tensor *rows = mb__alloc(b.ctx, (size_t)(capacity + 1) * sizeof *rows);
        for (int64_t first = 0; rows && first < p && mb_error(b.ctx) == MB_OK; first += K) {
            int64_t now = first + K < p ? K : p - first;
            rows[count++] = mb__bundle_hvp(&b, mb__unit_rows(b.ctx, b.dtype, first, now, p));
        }
        if (rows && mb_error(b.ctx) == MB_OK)
            result = count == 0   ? mb_zeros(b.ctx, b.dtype, MB_SHAPE(0, 0))
                     : count == 1 ? rows[0]
                                  : mb_concat(rows, (int)count, 0);
        mb__free(b.ctx, rows, (size_t)(capacity + 1) * sizeof *rows);
    }
    mb__bundle_close(&b);
    return result;
}

mb_status mb_hessian_diagonal_at(const char *site, mb_tensor y, const mb_tensor *xs, int n, mb_tensor *ds)
{
    MB_DOOR(y.ctx, site, MB_THREAD);
    mb__bundle b;
    for (int i = 0; ds && i < n; i++)
        ds[i] = mb__poison(y.ctx);
    if (!ds)
        return mb__refuse_count(y.ctx, "hessian_diagonal", n);
    if (mb__bundle_open(&b, "hessian_diagonal", y, xs, n) && can_list(b.ctx, "hessian_diagonal", b.p, 1)) {
        int64_t p = b.p, K = mb__bundle_batch(&b), start = 0;
        mb_tensor diagonal = mb_zeros(b.ctx, b.dtype, MB_SHAPE(p));
        for (int64_t first = 0; first < p && mb_error(b.ctx) == MB_OK; first += K) {
            int64_t now = first + K < p ? K : p - first;
            mb_tensor v = mb__unit_rows(b.ctx, b.dtype, first, now, p);
            mb_tensor h = mb__bundle_hvp(&b, v); /* [K,p]; its entries (k, first + k) are on the diagonal */
            diagonal = mb_add(diagonal, mb_sum(mb_mul(v, h), MB_AXES(0)));
        }
        for (int i = 0; i < n; i++) {
            int64_t count = mb_count(xs[i]);
            ds[i] = mb_reshape(mb_slice(diagonal, 0, count ? start : 0, count, 1), mb_shape_of(xs[i]));
            start += count;
        }
    }
    mb__bundle_close(&b);
    return mb_error(y.ctx);
}

mb_tensor mb_jacobian_at(const char *site, mb_tensor y, mb_tensor x)
{
    MB_ENTER(site, "jacobian", &y, &x);
    mb_shape sy = mb_shape_of(y), sx = mb_shape_of(x), shape = {sy.rank + sx.rank, {0}};
    if (shape.rank > MB_MAX_RANK) {
        mb__error(ctx, MB_INVALID, "jacobian: y and x have %d axes together; %d is the most", shape.rank,
                  MB_MAX_RANK);
        return mb__poison(ctx);
    }
    memcpy(shape.dim, sy.dim, (size_t)sy.rank * sizeof *sy.dim);
    memcpy(shape.dim + sy.rank, sx.dim, (size_t)sx.rank * sizeof *sx.dim);
    bool forward = mb_count(x) <= mb_count(y);
    mb_tensor from = x, to = y;
    if (!forward) {
        /* g(c) = c^T dy/dx is linear in c: its tangents with respect to c are the rows, for any c. */
        from = mb_zeros(ctx, mb_dtype_of(y), sy);
        if (mb_vjp(y, from, &x, 1, &to) != MB_OK)
            return mb__poison(ctx);
    }
    mb_shape sf = mb_shape_of(from), direction = {sf.rank + 1, {0}};
    memcpy(direction.dim + 1, sf.dim, (size_t)sf.rank * sizeof *sf.dim);
    int64_t p = mb_count(from), width = mb_count(to), count = 0;
    mb_dtype dtype = mb_dtype_of(from);
    if (p == 0 || width == 0)
        return mb_zeros(ctx, mb_dtype_of(y), shape);
    if (!can_list(ctx, "jacobian", p, width))
        return mb__poison(ctx);
    int64_t K = mb__batch_of(dtype, mb__largest_since(ctx, &x, 1), p), capacity = (p + K - 1) / K;
    mb_tensor *rows = mb__alloc(ctx, (size_t)capacity * sizeof *rows), result = mb__poison(ctx);
    for (int64_t first = 0; rows && first < p && mb_error(ctx) == MB_OK; first += K) {
        int64_t now = first + K < p ? K : p - first;
        direction.dim[0] = now;
        mb_tensor v = mb_reshape(mb__unit_rows(ctx, dtype, first, now, p), direction), t;
        mb_jvp_batch(&to, 1, &from, &v, 1, &t);
        rows[count++] = mb_reshape(t, MB_SHAPE(now, width));
    }
    if (rows && mb_error(ctx) == MB_OK) {
        result = count == 1 ? rows[0] : mb_concat(rows, (int)count, 0); /* [p, width] */
        result = mb_reshape(forward ? mb_transpose(result) : result, shape);
    }
    mb__free(ctx, rows, (size_t)capacity * sizeof *rows);
    return result;
}

/* ---- along a line ---- */

mb_status mb_directional_at(const char *site, mb_tensor y, const mb_tensor *xs, const mb_tensor *us, int n,
                            mb_tensor *first, mb_tensor *second)
{
    MB_DOOR(y.ctx, site, MB_THREAD);
    mb_context *ctx = y.ctx;
    if (first)
        *first = mb__poison(ctx);
    if (second)
        *second = mb__poison(ctx);
    if (n <= 0 || !xs || !us || !second)
        return mb__refuse_count(ctx, "directional", n);
    if (mb_error(ctx) != MB_OK)
        return mb_error(ctx);
    mb_tensor *line = mb__alloc(ctx, (size_t)n * sizeof *line), t = mb__poison(ctx);
    if (!line)
        return mb_error(ctx);
    for (int i = 0; i < n; i++)
        line[i] = mb_stop_gradient(us[i]);
    mb_status status = mb_jvp(&y, 1, xs, line, n, &t);
    if (status == MB_OK)
        status = mb_jvp(&t, 1, xs, line, n, second);
    if (first)
        *first = t;
    mb__free(ctx, line, (size_t)n * sizeof *line);
    return status;
}
