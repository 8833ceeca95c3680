/* SPDX-License-Identifier: MIT
 * index.c - gathering and scattering by index, sorting. There are no derivatives with respect to indices. */
#include "tensor/internal.h"

bool mb__check_index(const char *op, mb_context *ctx, mb_tensor *index)
{
    int dtype = mb__at(ctx, index->id)->dtype;
    if (dtype == MB_INT64 || dtype == MB_UINT8) /* what is out of range stays so */
        *index = mb_cast(*index, MB_INT32);
    if (dtype == MB_INT32 || (index->id && (dtype == MB_INT64 || dtype == MB_UINT8)))
        return true;
    char a[256];
    if (index->id)
        mb__error(ctx, MB_INVALID, "%s: got the index %s; wanted int32, int64 or uint8", op,
                  mb__tensor_text(a, sizeof a, *index));
    return false;
}

mb_tensor mb_take_at(const char *site, mb_tensor x, mb_tensor index, int axis)
{
    MB_ENTER(site, "take", &x, &index);
    if (!mb__check_index("take", ctx, &index) || (axis = mb__axis("take", x, axis)) < 0)
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
        mb__error(ctx, MB_INVALID, "take: got %s and index %s: %s", mb__tensor_text(a, sizeof a, x),
                  mb__tensor_text(b, sizeof b, index),
                  rank > MB_MAX_RANK ? "the result has too many axes" : "the axis is empty");
        return mb__poison(ctx);
    }
    return mb__record(ctx, MB_OP_TAKE, (mb_dtype)n->dtype, rank, dim, (mb_tensor[]){x, index}, 2, &attr, 1);
}

mb_tensor mb_scatter_add_at(const char *site, mb_tensor updates, mb_tensor index, int axis, int64_t size)
{
    MB_ENTER(site, "scatter_add", &updates, &index);
    if (!mb__check_index("scatter_add", ctx, &index))
        return poison;
    if (mb__halved(updates))
        return mb__narrow(mb_scatter_add(mb__wide(updates), index, axis, size), updates);
    const mb__node *n = mb__at(ctx, updates.id), *m = mb__at(ctx, index.id);
    int rank = n->rank - m->rank + 1;
    if (axis < 0)
        axis += rank;
    bool ok = rank >= 1 && rank <= MB_MAX_RANK && axis >= 0 && axis < rank && size >= 0 &&
              mb__is_number(n->dtype) && (size > 0 || mb__numel(m->dim, m->rank) == 0);
    for (int i = 0; ok && i < m->rank; i++)
        ok = n->dim[axis + i] == m->dim[i];
    if (!ok) {
        char a[256], b[256];
        mb__error(ctx, MB_INVALID,
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
    return mb__record(ctx, MB_OP_SCATTER_ADD, (mb_dtype)n->dtype, r, dim, (mb_tensor[]){updates, index}, 2,
                      &attr, 1);
}

mb_tensor mb_argsort_at(const char *site, mb_tensor x)
{
    MB_SITE(x.ctx, site);
    return mb__leading(site, x, false, INT64_MAX);
}

mb_tensor mb__leading(const char *site, mb_tensor x, bool descending, int64_t wanted)
{
    MB_ENTER(site, "argsort", &x);
    x = mb__wide(x);
    if (!x.id)
        return x;
    const mb__node *n = mb__at(ctx, x.id);
    if (n->rank < 1 || !mb__is_number(n->dtype) || n->dim[n->rank - 1] > INT32_MAX) {
        char a[256];
        mb__error(ctx, MB_INVALID, "argsort: got %s; wanted numbers of rank 1 or more",
                  mb__tensor_text(a, sizeof a, x));
        return mb__poison(ctx);
    }
    int64_t dim[MB_MAX_RANK], size = n->dim[n->rank - 1],
                              attr[2] = {descending, wanted < size ? wanted : size};
    memcpy(dim, n->dim, sizeof dim);
    return mb__record(ctx, MB_OP_ARGSORT, MB_INT32, n->rank, dim, &x, 1, attr, 2);
}
