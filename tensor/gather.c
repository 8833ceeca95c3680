/* SPDX-License-Identifier: MIT
 * gather.c - gathering and scattering by an index of the operand's rank, as takes from and additions into the
 * operand made flat. */
#include "tensor/internal.h"

/* [shape of index]: where its entries lie in a tensor of shape `of`, row-major, when they are taken as
 * positions on `axis`, held within it. */
static mb_tensor flat_positions(mb_context *ctx, const mb_shape *of, mb_tensor index, int axis)
{
    mb_shape shape = mb_shape_of(index);
    int64_t stride[MB_MAX_RANK], step = 1;
    for (int k = of->rank; k-- > 0; step *= of->dim[k])
        stride[k] = step;
    mb_tensor last = mb__const(ctx, MB_INT32, (double)(of->dim[axis] - 1)),
              zero = mb__const(ctx, MB_INT32, 0);
    mb_tensor inside = mb_maximum(mb_minimum(index, last), zero);
    mb_tensor at = mb_mul(inside, mb__const(ctx, MB_INT32, (double)stride[axis]));
    for (int k = 0; k < of->rank; k++) {
        mb_shape line = {of->rank, {1, 1, 1, 1, 1, 1, 1, 1}};
        line.dim[k] = shape.dim[k];
        if (k == axis || shape.dim[k] == 1)
            continue;
        mb_tensor steps =
            mb_mul(mb_iota(ctx, MB_INT32, shape.dim[k]), mb__const(ctx, MB_INT32, (double)stride[k]));
        at = mb_add(at, mb_reshape(steps, line));
    }
    return at;
}

/* Whether the index fits x; false after reporting. */
static bool fits(const char *op, mb_context *ctx, mb_tensor x, mb_tensor index, int axis)
{
    const mb__node *n = mb__at(ctx, x.id), *m = mb__at(ctx, index.id);
    int64_t entries = mb__numel(n->dim, n->rank), asked = mb__numel(m->dim, m->rank);
    bool ok = m->rank == n->rank && entries <= INT32_MAX && asked <= INT32_MAX && (n->dim[axis] || !asked);
    for (int k = 0; ok && k < n->rank; k++)
        ok = k == axis || m->dim[k] <= n->dim[k];
    if (ok)
        return true;
    char a[256], b[256];
    mb__error(ctx, MB_INVALID,
              "%s: got %s and index %s for axis %d; wanted an index of the same rank, no larger off that "
              "axis, of below 2^31 "
              "entries",
              op, mb__tensor_text(a, sizeof a, x), mb__tensor_text(b, sizeof b, index), axis);
    return false;
}

mb_tensor mb_gather_at(const char *site, mb_tensor x, mb_tensor index, int axis)
{
    MB_ENTER(site, "gather", &x, &index);
    if (!mb__check_index("gather", ctx, &index) || (axis = mb__axis("gather", x, axis)) < 0 ||
        !fits("gather", ctx, x, index, axis))
        return mb__poison(ctx);
    mb_shape of = mb_shape_of(x), shape = mb_shape_of(index);
    if (mb_count(index) == 0)
        return mb_full(ctx, mb_dtype_of(x), shape, 0);
    return mb_take(mb_reshape(x, MB_SHAPE(-1)), flat_positions(ctx, &of, index, axis), 0);
}

mb_tensor mb_take_along_at(const char *site, mb_tensor x, mb_tensor index)
{
    MB_ENTER(site, "take_along", &x, &index);
    if (!mb__check_index("take_along", ctx, &index))
        return poison;
    const mb__node *n = mb__at(ctx, x.id), *m = mb__at(ctx, index.id);
    bool ok = n->rank >= 1 && m->rank == n->rank && mb__numel(n->dim, n->rank) <= INT32_MAX;
    for (int i = 0; ok && i + 1 < n->rank; i++)
        ok = n->dim[i] == m->dim[i];
    if (!ok) {
        char a[256], b[256];
        mb__error(ctx, MB_INVALID,
                  "take_along: got %s and index %s; wanted the same shape but for the last axis, below 2^31 "
                  "entries",
                  mb__tensor_text(a, sizeof a, x), mb__tensor_text(b, sizeof b, index));
        return mb__poison(ctx);
    }
    return mb_gather(x, index, -1);
}

/* The operands of a scatter, with its axis counted from the front; false after reporting. */
static bool check_scatter(const char *op, mb_context *ctx, mb_tensor x, mb_tensor *index, mb_tensor updates,
                          int *axis)
{
    if (!mb__check_index(op, ctx, index) || (*axis = mb__axis(op, x, *axis)) < 0 ||
        !fits(op, ctx, x, *index, *axis))
        return false;
    const mb__node *m = mb__at(ctx, index->id), *u = mb__at(ctx, updates.id);
    if (u->rank == m->rank && !memcmp(u->dim, m->dim, (size_t)m->rank * sizeof *m->dim) &&
        u->dtype == mb__at(ctx, x.id)->dtype)
        return true;
    char a[256], b[256], c[256];
    mb__error(ctx, MB_INVALID,
              "%s: got %s, index %s, updates %s; wanted updates of the index's shape and of one dtype with "
              "the first",
              op, mb__tensor_text(a, sizeof a, x), mb__tensor_text(b, sizeof b, *index),
              mb__tensor_text(c, sizeof c, updates));
    return false;
}

mb_tensor mb_scatter_add_along_at(const char *site, mb_tensor x, mb_tensor index, mb_tensor updates, int axis)
{
    MB_ENTER(site, "scatter_add_along", &x, &index, &updates);
    if (!check_scatter("scatter_add_along", ctx, x, &index, updates, &axis))
        return mb__poison(ctx);
    mb_shape shape = mb_shape_of(x);
    if (mb_count(index) == 0)
        return x;
    mb_tensor at = mb_reshape(flat_positions(ctx, &shape, index, axis), MB_SHAPE(-1));
    mb_tensor sums = mb_scatter_add(mb_reshape(updates, MB_SHAPE(-1)), at, 0, mb_count(x));
    return mb_add(x, mb_reshape(sums, shape));
}

/* at: int32 [n], positions in [0, size) -> int32 [size]: 1 + the last of the n places where each stands; 0:
 * none. A stable sort puts equal positions together, the last one behind. */
static mb_tensor last_places(mb_context *ctx, mb_tensor at, int64_t size)
{
    int64_t n = mb_count(at);
    mb_tensor order = mb_argsort(at), sorted = mb_take(at, order, 0),
              number = mb_add(order, mb__const(ctx, MB_INT32, 1));
    if (n > 1) {
        mb_tensor more = mb_eq(mb_slice(sorted, 0, 0, n - 1, 1), mb_slice(sorted, 0, 1, n - 1, 1));
        mb_tensor last = mb_slice(number, 0, n - 1, 1, 1);
        number = mb_where(more, mb__const(ctx, MB_INT32, 0), mb_slice(number, 0, 0, n - 1, 1));
        number = mb_concat(((mb_tensor[]){number, last}), 2, 0);
    }
    return mb_scatter_add(number, sorted, 0, size);
}

mb_tensor mb_scatter_at(const char *site, mb_tensor x, mb_tensor index, mb_tensor updates, int axis)
{
    MB_ENTER(site, "scatter", &x, &index, &updates);
    if (!check_scatter("scatter", ctx, x, &index, updates, &axis))
        return mb__poison(ctx);
    mb_shape shape = mb_shape_of(x);
    if (mb_count(index) == 0)
        return x;
    mb_tensor at = mb_reshape(flat_positions(ctx, &shape, index, axis), MB_SHAPE(-1));
    mb_tensor place = mb_reshape(last_places(ctx, at, mb_count(x)), shape),
              zero = mb__const(ctx, MB_INT32, 0);
    mb_tensor from = mb_maximum(mb_sub(place, mb__const(ctx, MB_INT32, 1)), zero);
    return mb_where(mb_lt(zero, place), mb_take(mb_reshape(updates, MB_SHAPE(-1)), from, 0), x);
}

mb_tensor mb_one_hot_at(const char *site, mb_tensor index, int64_t classes)
{
    MB_ENTER(site, "one_hot", &index);
    if (!mb__check_index("one_hot", ctx, &index))
        return poison;
    return mb_eq(mb_unsqueeze(index, -1), mb_iota(ctx, MB_INT32, classes));
}
