/* SPDX-License-Identifier: MIT
 * index.c - choosing and adding by index, sorting. Index paths carry no derivative. */
#include "tensor/tape.h"

static bool check_index(const char *where, const char *op, mb_context *ctx, mb_tensor index)
{
    if (mb__at(ctx, index.id)->dtype == MB_INT32)
        return true;
    char a[256];
    mb__error(ctx, MB_INVALID, where, "%s: got the index %s; wanted int32", op,
              mb__tensor_text(a, sizeof a, index));
    return false;
}

mb_tensor mb_take_at(const char *where, mb_tensor x, mb_tensor index, int axis)
{
    mb_tensor poison;
    mb_context *ctx = mb__enter(where, "take", (const mb_tensor *[]){&x, &index}, 2, &poison);
    if (!ctx || !check_index(where, "take", ctx, index) || (axis = mb__axis(where, "take", x, axis)) < 0)
        return poison;
    const mb__node *n = mb__at(ctx, x.id), *m = mb__at(ctx, index.id);
    int64_t dim[2 * MB_MAX_RANK], attr = axis;
    int rank = 0;
    for (int i = 0; i < axis; i++)
        dim[rank++] = n->dim[i];
    for (int i = 0; i < m->rank; i++)
        dim[rank++] = m->dim[i];
    for (int i = axis + 1; i < n->rank; i++)
        dim[rank++] = n->dim[i];
    char a[256], b[256];
    if (rank > MB_MAX_RANK || (n->dim[axis] == 0 && mb__numel(m->dim, m->rank) > 0)) {
        mb__error(ctx, MB_INVALID, where, "take: got %s and index %s: %s", mb__tensor_text(a, sizeof a, x),
                  mb__tensor_text(b, sizeof b, index),
                  rank > MB_MAX_RANK ? "the result has too many axes" : "the axis is empty");
        return mb__poison(ctx);
    }
    return mb__record(ctx, where, MB_OP_TAKE, (mb_dtype)n->dtype, rank, dim, (mb_tensor[]){x, index}, 2,
                      &attr, 1);
}

mb_tensor mb_scatter_add_at(const char *where, mb_tensor updates, mb_tensor index, int axis, int64_t size)
{
    mb_tensor poison;
    mb_context *ctx = mb__enter(where, "scatter_add", (const mb_tensor *[]){&updates, &index}, 2, &poison);
    if (!ctx || !check_index(where, "scatter_add", ctx, index))
        return poison;
    const mb__node *n = mb__at(ctx, updates.id), *m = mb__at(ctx, index.id);
    int rank = n->rank - m->rank + 1;
    if (axis < 0)
        axis += rank;
    bool ok = rank >= 1 && rank <= MB_MAX_RANK && axis >= 0 && axis < rank && size >= 0 &&
              n->dtype != MB_BOOL && (size > 0 || mb__numel(m->dim, m->rank) == 0);
    for (int i = 0; ok && i < m->rank; i++)
        ok = n->dim[axis + i] == m->dim[i];
    if (!ok) {
        char a[256], b[256];
        mb__error(ctx, MB_INVALID, where,
                  "scatter_add: got updates %s, index %s, axis %d of size %lld; wanted numbers shaped like "
                  "the index from that axis on",
                  mb__tensor_text(a, sizeof a, updates), mb__tensor_text(b, sizeof b, index), axis,
                  (long long)size);
        return mb__poison(ctx);
    }
    int64_t dim[MB_MAX_RANK], attr = axis;
    int r = 0;
    for (int i = 0; i < axis; i++)
        dim[r++] = n->dim[i];
    dim[r++] = size;
    for (int i = axis + m->rank; i < n->rank; i++)
        dim[r++] = n->dim[i];
    return mb__record(ctx, where, MB_OP_SCATTER_ADD, (mb_dtype)n->dtype, r, dim,
                      (mb_tensor[]){updates, index}, 2, &attr, 1);
}

mb_tensor mb_take_along_at(const char *where, mb_tensor x, mb_tensor index)
{
    mb_tensor poison;
    mb_context *ctx = mb__enter(where, "take_along", (const mb_tensor *[]){&x, &index}, 2, &poison);
    if (!ctx || !check_index(where, "take_along", ctx, index))
        return poison;
    const mb__node *n = mb__at(ctx, x.id), *m = mb__at(ctx, index.id);
    bool ok = n->rank >= 1 && m->rank == n->rank;
    for (int i = 0; ok && i + 1 < n->rank; i++)
        ok = n->dim[i] == m->dim[i];
    int64_t size = n->rank ? n->dim[n->rank - 1] : 0, rows = size ? mb__numel(n->dim, n->rank - 1) : 0;
    if (!ok || rows > INT32_MAX / (size ? size : 1)) {
        char a[256], b[256];
        mb__error(ctx, MB_INVALID, where,
                  "take_along: got %s and index %s; wanted the same shape but for the last axis, below 2^31 "
                  "entries",
                  mb__tensor_text(a, sizeof a, x), mb__tensor_text(b, sizeof b, index));
        return mb__poison(ctx);
    }
    if (size == 0 && m->dim[m->rank - 1] == 0)
        return x; /* nothing to take from, and nothing wanted */
    const char *call = mb__call_begin(ctx, "take_along");
    /* Flat positions: row * size + index. The row numbers have x's shape with a last axis of size 1. */
    mb_shape lead = {n->rank, {0}};
    memcpy(lead.dim, n->dim, sizeof lead.dim);
    lead.dim[n->rank - 1] = 1;
    mb_tensor row = mb_reshape_at(where, mb_iota_at(where, ctx, MB_INT32, rows), lead);
    mb_tensor last = mb__const(ctx, where, MB_INT32, (double)(size - 1)),
              zero = mb__const(ctx, where, MB_INT32, 0);
    mb_tensor inside = mb_maximum_at(where, mb_minimum_at(where, index, last), zero);
    mb_tensor base = mb_mul_at(where, row, mb__const(ctx, where, MB_INT32, (double)size));
    mb_tensor flat = mb_add_at(where, base, inside);
    return mb__call_end(ctx, call, mb_take_at(where, mb_reshape_at(where, x, MB_SHAPE(-1)), flat, 0));
}

mb_tensor mb_argsort_at(const char *where, mb_tensor x)
{
    mb_tensor poison;
    mb_context *ctx = mb__enter(where, "argsort", (const mb_tensor *[]){&x}, 1, &poison);
    if (!ctx)
        return poison;
    const mb__node *n = mb__at(ctx, x.id);
    if (n->rank < 1 || n->dtype == MB_BOOL || n->dim[n->rank - 1] > INT32_MAX) {
        char a[256];
        mb__error(ctx, MB_INVALID, where, "argsort: got %s; wanted numbers of rank 1 or more",
                  mb__tensor_text(a, sizeof a, x));
        return mb__poison(ctx);
    }
    int64_t dim[MB_MAX_RANK];
    memcpy(dim, n->dim, sizeof dim);
    return mb__record(ctx, where, MB_OP_ARGSORT, MB_INT32, n->rank, dim, &x, 1, NULL, 0);
}

mb_tensor mb_sort_at(const char *where, mb_tensor x)
{
    const char *call = mb__call_begin(x.ctx, "sort");
    return mb__call_end(x.ctx, call, mb_take_along_at(where, x, mb_argsort_at(where, x)));
}

mb_tensor mb_one_hot_at(const char *where, mb_tensor index, int64_t classes)
{
    mb_tensor poison;
    mb_context *ctx = mb__enter(where, "one_hot", (const mb_tensor *[]){&index}, 1, &poison);
    if (!ctx || !check_index(where, "one_hot", ctx, index))
        return poison;
    const char *call = mb__call_begin(ctx, "one_hot");
    mb_tensor class = mb_iota_at(where, ctx, MB_INT32, classes);
    return mb__call_end(ctx, call, mb_eq_at(where, mb_unsqueeze_at(where, index, -1), class));
}
