/* SPDX-License-Identifier: MIT
 * directions.c - n tensors taken together as one vector of p elements. */
#include "autograd/directions.h"

mb_status mb__refuse_count(mb_context *ctx, const char *name, int n)
{
    return mb__error(ctx, MB_INVALID, "%s: got %d variables", name, n);
}

/* Elements of the largest float tensor recorded since the oldest x. */
int64_t mb__largest_since(mb_context *ctx, const mb_tensor *xs, int n)
{
    uint32_t low = ctx->node_count;
    for (int i = 0; i < n; i++) {
        uint32_t id = mb__resolve(ctx, xs[i]);
        low = id < low ? id : low;
    }
    int64_t most = 1;
    for (uint32_t id = low; id < ctx->node_count; id++) {
        const mb__node *node = mb__at(ctx, id);
        int64_t count = mb__is_float(node->dtype) && !node->dead ? mb__numel(node->dim, node->rank) : 0;
        most = count > most ? count : most;
    }
    return most;
}

int64_t mb__batch_of(mb_dtype dtype, int64_t largest, int64_t p)
{
    const int64_t budget = 4 << 20; /* bytes of the largest tangent: fits caches, and keeps kernels large */
    int64_t K = budget / (int64_t)mb_dtype_size(dtype) / largest;
    return K < 1 ? 1 : K > p ? p : K;
}

mb_tensor mb__unit_rows(mb_context *ctx, mb_dtype dtype, int64_t first, int64_t K, int64_t p)
{
    mb_tensor row = mb_iota(ctx, MB_INT32, K), column = mb_iota(ctx, MB_INT32, p);
    row = mb_add(row, mb_full(ctx, MB_INT32, MB_SHAPE0, (double)first));
    return mb_cast(mb_eq(mb_unsqueeze(row, 1), column), dtype);
}

bool mb__bundle_open(mb__bundle *b, const char *name, mb_tensor y, const mb_tensor *xs, int n)
{
    mb_context *ctx = y.ctx;
    *b = (mb__bundle){.ctx = ctx, .xs = xs, .n = n};
    if (!ctx || mb_error(ctx) != MB_OK)
        return false;
    if (n <= 0 || !xs) {
        mb__refuse_count(ctx, name, n);
        return false;
    }
    b->gs = mb__alloc(ctx, 3 * (size_t)n * sizeof *b->gs);
    if (!b->gs)
        return false;
    b->tangents = b->gs + n;
    b->h = b->tangents + n;
    if (mb_grad(y, xs, n, b->gs) != MB_OK)
        return false;
    b->dtype = mb_dtype_of(xs[0]);
    for (int i = 0; i < n; i++) {
        if (__builtin_add_overflow(b->p, mb_count(xs[i]), &b->p)) {
            mb__error(ctx, MB_INVALID, "%s: the variables have too many elements", name);
            return false;
        }
        if (mb_dtype_of(xs[i]) != b->dtype) {
            mb__error(ctx, MB_INVALID, "%s: the variables are of float32 and float64; wanted one dtype",
                      name);
            return false;
        }
    }
    b->largest = mb__largest_since(ctx, xs, n);
    return mb_error(ctx) == MB_OK;
}

void mb__bundle_close(mb__bundle *b)
{
    if (b->gs)
        mb__free(b->ctx, b->gs, 3 * (size_t)b->n * sizeof *b->gs);
}

int64_t mb__bundle_batch(const mb__bundle *b)
{
    return mb__batch_of(b->dtype, b->largest, b->p);
}

mb_tensor mb__bundle_hvp(mb__bundle *b, mb_tensor vs)
{
    if (!mb_valid(vs)) /* an error, so no shape */
        return mb__poison(b->ctx);
    int lead = mb_shape_of(vs).rank - 1; /* 1 where there is an axis of directions */
    int64_t K = lead ? mb_dim(vs, 0) : 0, start = 0;
    for (int i = 0; i < b->n; i++) {
        mb_shape x = mb_shape_of(b->xs[i]), shape = {x.rank + lead, {K}};
        if (shape.rank > MB_MAX_RANK) {
            mb__error(b->ctx, MB_INVALID, "variable %d has %d axes; the directions want one more", i + 1,
                      x.rank);
            return mb__poison(b->ctx);
        }
        memcpy(shape.dim + lead, x.dim, (size_t)x.rank * sizeof *x.dim);
        int64_t count = mb_count(b->xs[i]);
        mb_tensor part = b->n == 1 ? vs : mb_slice(vs, lead, count ? start : 0, count, 1);
        b->tangents[i] = mb_reshape(part, shape);
        start += count;
    }
    mb_status status = lead ? mb_jvp_batch(b->gs, b->n, b->xs, b->tangents, b->n, b->h)
                            : mb_jvp(b->gs, b->n, b->xs, b->tangents, b->n, b->h);
    if (status != MB_OK)
        return mb__poison(b->ctx);
    for (int i = 0; i < b->n; i++)
        b->h[i] = mb_reshape(b->h[i], lead ? MB_SHAPE(K, mb_count(b->xs[i])) : MB_SHAPE(mb_count(b->xs[i])));
    return b->n == 1 ? b->h[0] : mb_concat(b->h, b->n, lead);
}
