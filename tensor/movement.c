/* SPDX-License-Identifier: MIT
 * movement.c - reshape, permute, broadcast, slice, pad, concat, and functions made of these. */
#include "tensor/internal.h"

mb_tensor mb_reshape_at(const char *site, mb_tensor x, mb_shape shape)
{
    MB_ENTER(site, "reshape", &x);
    const mb__node *n = mb__at(ctx, x.id);
    char a[256], b[128];
    int64_t have = mb__numel(n->dim, n->rank), want = 1;
    int free_axis = -1;
    bool ok = shape.rank >= 0 && shape.rank <= MB_MAX_RANK;
    for (int i = 0; ok && i < shape.rank; i++) {
        if (shape.dim[i] == -1 && free_axis < 0)
            free_axis = i;
        else
            ok = shape.dim[i] >= 0 && !__builtin_mul_overflow(want, shape.dim[i], &want);
    }
    if (ok && free_axis >= 0) {
        ok = want > 0 && have % want == 0;
        if (ok) {
            shape.dim[free_axis] = have / want;
            want = have;
        }
    }
    if (!ok || have != want) {
        mb__error(ctx, MB_INVALID, "reshape: got %s of %lld elements; %s does not hold as many",
                  mb__tensor_text(a, sizeof a, x), (long long)have,
                  shape.rank >= 0 && shape.rank <= MB_MAX_RANK
                      ? mb__shape_text(b, sizeof b, shape.dim, shape.rank)
                      : "a shape of that rank");
        return mb__poison(ctx);
    }
    if (shape.rank == n->rank && !memcmp(shape.dim, n->dim, (size_t)shape.rank * sizeof *shape.dim))
        return x;
    return mb__record(ctx, MB_OP_RESHAPE, (mb_dtype)n->dtype, shape.rank, shape.dim, &x, 1, NULL, 0);
}

mb_tensor mb_permute_at(const char *site, mb_tensor x, mb_axes order)
{
    MB_ENTER(site, "permute", &x);
    const mb__node *n = mb__at(ctx, x.id);
    int64_t dim[MB_MAX_RANK], axes[MB_MAX_RANK];
    unsigned seen = 0;
    bool same = true;
    if (order.count != n->rank) {
        char a[256];
        mb__error(ctx, MB_INVALID, "permute: got %d axes for %s", order.count,
                  mb__tensor_text(a, sizeof a, x));
        return mb__poison(ctx);
    }
    for (int i = 0; i < n->rank; i++) {
        int axis = mb__axis("permute", x, order.axis[i]);
        if (axis < 0)
            return mb__poison(ctx);
        seen |= 1u << axis;
        axes[i] = axis;
        dim[i] = n->dim[axis];
        same &= axis == i;
    }
    if (seen != (1u << n->rank) - 1) {
        mb__error(ctx, MB_INVALID, "permute: an axis is named twice");
        return mb__poison(ctx);
    }
    if (same)
        return x;
    return mb__record(ctx, MB_OP_PERMUTE, (mb_dtype)n->dtype, n->rank, dim, &x, 1, axes, n->rank);
}

mb_tensor mb_transpose_at(const char *site, mb_tensor x)
{
    MB_ENTER(site, "transpose", &x);
    int rank = mb__at(ctx, x.id)->rank;
    if (rank < 2) {
        char a[256];
        mb__error(ctx, MB_INVALID, "transpose: got %s; wanted rank 2 or more",
                  mb__tensor_text(a, sizeof a, x));
        return mb__poison(ctx);
    }
    mb_axes order = {rank, false, {0, 1, 2, 3, 4, 5, 6, 7}};
    order.axis[rank - 2] = rank - 1;
    order.axis[rank - 1] = rank - 2;
    return mb_permute(x, order);
}

mb_tensor mb_broadcast_at(const char *site, mb_tensor x, mb_shape shape)
{
    MB_ENTER(site, "broadcast", &x);
    const mb__node *n = mb__at(ctx, x.id);
    int64_t dim[MB_MAX_RANK];
    int rank;
    bool ok = shape.rank >= 0 && shape.rank <= MB_MAX_RANK;
    for (int i = 0; ok && i < shape.rank; i++)
        ok = shape.dim[i] >= 0;
    ok = ok && mb__broadcast_shapes(n->dim, n->rank, shape.dim, shape.rank, dim, &rank) &&
         rank == shape.rank && !memcmp(dim, shape.dim, (size_t)rank * sizeof *dim);
    if (!ok) {
        char a[256], b[128] = "a shape of that rank";
        if (shape.rank >= 0 && shape.rank <= MB_MAX_RANK)
            mb__shape_text(b, sizeof b, shape.dim, shape.rank);
        mb__error(ctx, MB_INVALID, "broadcast: got %s; it does not repeat to %s",
                  mb__tensor_text(a, sizeof a, x), b);
        return mb__poison(ctx);
    }
    if (rank == n->rank && !memcmp(dim, n->dim, (size_t)rank * sizeof *dim))
        return x;
    return mb__record(ctx, MB_OP_BROADCAST, (mb_dtype)n->dtype, rank, dim, &x, 1, NULL, 0);
}

mb_tensor mb__slice_all(mb_tensor x, const int64_t *start, const int64_t *step, const int64_t *count)
{
    mb_context *ctx = x.ctx;
    int rank = mb__at(ctx, x.id)->rank;
    int64_t attrs[2 * MB_MAX_RANK];
    for (int i = 0; i < rank; i++) {
        attrs[i] = start[i];
        attrs[rank + i] = step[i];
    }
    return mb__record(ctx, MB_OP_SLICE, (mb_dtype)mb__at(ctx, x.id)->dtype, rank, count, &x, 1, attrs,
                      2 * rank);
}

mb_tensor mb_slice_at(const char *site, mb_tensor x, int axis, int64_t start, int64_t count, int64_t step)
{
    MB_ENTER(site, "slice", &x);
    axis = mb__axis("slice", x, axis);
    if (axis < 0)
        return mb__poison(ctx);
    const mb__node *n = mb__at(ctx, x.id);
    int64_t size = n->dim[axis], last;
    bool ok = count >= 0 && step != 0 &&
              (count == 0 || (start >= 0 && start < size && !__builtin_mul_overflow(count - 1, step, &last) &&
                              !__builtin_add_overflow(last, start, &last) && last >= 0 && last < size));
    if (!ok) {
        char a[256];
        mb__error(ctx, MB_INVALID,
                  "slice: got start %lld, count %lld, step %lld; axis %d of %s has %lld entries",
                  (long long)start, (long long)count, (long long)step, axis, mb__tensor_text(a, sizeof a, x),
                  (long long)size);
        return mb__poison(ctx);
    }
    if (start == 0 && step == 1 && count == size)
        return x;
    int64_t starts[MB_MAX_RANK] = {0}, steps[MB_MAX_RANK], counts[MB_MAX_RANK];
    for (int i = 0; i < n->rank; i++) {
        steps[i] = 1;
        counts[i] = n->dim[i];
    }
    starts[axis] = count ? start : 0;
    steps[axis] = step;
    counts[axis] = count;
    return mb__slice_all(x, starts, steps, counts);
}

mb_tensor mb_flip_at(const char *site, mb_tensor x, int axis)
{
    MB_SITE(x.ctx, site);
    int64_t size = mb_dim(x, axis);
    return mb_slice(x, axis, size ? size - 1 : 0, size, -1);
}

/* Per axis: before: the position of element 0; step: the distance between elements (1: adjacent); size: of
 * the result. */
mb_tensor mb__pad_all(mb_tensor x, const int64_t *before, const int64_t *step, const int64_t *size)
{
    mb_context *ctx = x.ctx;
    int rank = mb__at(ctx, x.id)->rank;
    int64_t attrs[2 * MB_MAX_RANK];
    for (int i = 0; i < rank; i++) {
        attrs[i] = before[i];
        attrs[rank + i] = step[i];
    }
    return mb__record(ctx, MB_OP_PAD, (mb_dtype)mb__at(ctx, x.id)->dtype, rank, size, &x, 1, attrs, 2 * rank);
}

mb_tensor mb_pad_at(const char *site, mb_tensor x, int axis, int64_t before, int64_t after)
{
    MB_ENTER(site, "pad", &x);
    axis = mb__axis("pad", x, axis);
    if (axis < 0)
        return mb__poison(ctx);
    if (before < 0 || after < 0 || before > INT32_MAX || after > INT32_MAX) {
        mb__error(ctx, MB_INVALID, "pad: got %lld before and %lld after; wanted 0 or more", (long long)before,
                  (long long)after);
        return mb__poison(ctx);
    }
    const mb__node *n = mb__at(ctx, x.id);
    int64_t b[MB_MAX_RANK] = {0}, s[MB_MAX_RANK], size[MB_MAX_RANK];
    for (int i = 0; i < n->rank; i++) {
        s[i] = 1;
        size[i] = n->dim[i];
    }
    b[axis] = before;
    if (__builtin_add_overflow(size[axis], before + after, &size[axis])) {
        mb__error(ctx, MB_INVALID, "pad: the result has too many elements");
        return mb__poison(ctx);
    }
    return before || after ? mb__pad_all(x, b, s, size) : x;
}

mb_tensor mb_concat_at(const char *site, const mb_tensor *xs, int n, int axis)
{
    MB_SITE(xs ? xs->ctx : NULL, site);
    mb_tensor poison = {0};
    if (!xs || n < 1) { /* there is no context to report it to */
        mb_context *c = xs && n > 0 ? xs[0].ctx : NULL;
        mb__error(c, MB_INVALID, "concat: nothing to join");
        return mb__poison(c);
    }
    mb_context *ctx = NULL;
    for (int i = 0; i < n; i++)
        if (!(ctx = mb__enter("concat", (const mb_tensor *[]){&xs[0], &xs[i]}, 2, &poison)))
            return poison;
    if (n > UINT16_MAX) {
        mb__error(ctx, MB_INVALID, "concat: got %d tensors; wanted at most %d", n, UINT16_MAX);
        return mb__poison(ctx);
    }
    axis = mb__axis("concat", xs[0], axis);
    if (axis < 0)
        return mb__poison(ctx);
    const mb__node *first = mb__at(ctx, xs[0].id);
    int64_t dim[MB_MAX_RANK], attr = axis;
    memcpy(dim, first->dim, sizeof dim);
    dim[axis] = 0;
    for (int i = 0; i < n; i++) {
        const mb__node *m = mb__at(ctx, xs[i].id);
        bool ok = m->rank == first->rank && m->dtype == first->dtype;
        for (int k = 0; ok && k < m->rank; k++)
            ok = k == axis || m->dim[k] == first->dim[k];
        if (!ok) {
            char a[256], b[256];
            mb__error(ctx, MB_INVALID,
                      "concat: operands differ in dtype or off axis %d: the first %s, number %d %s", axis,
                      mb__tensor_text(a, sizeof a, xs[0]), i + 1, mb__tensor_text(b, sizeof b, xs[i]));
            return mb__poison(ctx);
        }
        if (__builtin_add_overflow(dim[axis], m->dim[axis], &dim[axis])) {
            mb__error(ctx, MB_INVALID, "concat: the result has too many elements");
            return mb__poison(ctx);
        }
    }
    if (n == 1)
        return xs[0];
    return mb__record(ctx, MB_OP_CONCAT, (mb_dtype)first->dtype, first->rank, dim, xs, n, &attr, 1);
}

mb_tensor mb_stack_at(const char *site, const mb_tensor *xs, int n, int axis)
{
    mb_context *ctx = xs && n > 0 ? xs[0].ctx : NULL;
    MB_DOOR(ctx, site, mb__poison(ctx));
    if (!ctx || n > UINT16_MAX)
        return mb_concat(xs, n, axis);
    mb_tensor *wide = mb__alloc(ctx, (size_t)n * sizeof *wide), joined = mb__poison(ctx);
    if (!wide)
        return joined;
    int rank = mb_shape_of(xs[0]).rank;
    for (int i = 0; i < n; i++)
        wide[i] = mb_unsqueeze(xs[i], axis);
    joined = mb_concat(wide, n, axis < 0 ? axis + rank + 1 : axis);
    mb__free(ctx, wide, (size_t)n * sizeof *wide);
    return joined;
}

mb_status mb_split_at(const char *site, mb_tensor x, const int64_t *sizes, mb_tensor *parts, int n, int axis)
{
    for (int i = 0; parts && i < n; i++)
        parts[i] = mb__poison(x.ctx);
    MB_DOOR(x.ctx, site, MB_THREAD);
    mb_tensor poison;
    mb_context *ctx = mb__enter("split", (const mb_tensor *[]){&x}, 1, &poison);
    if (!ctx || (axis = mb__axis("split", x, axis)) < 0)
        return mb_error(x.ctx);
    int64_t all = mb__at(ctx, x.id)->dim[axis], left = all;
    for (int i = 0; sizes && i < n && left >= 0; i++)
        left = sizes[i] >= 0 && sizes[i] <= left ? left - sizes[i] : -1;
    if (n < 0 || (n && (!sizes || !parts)) || left != 0) {
        char a[256];
        return mb__error(ctx, MB_INVALID,
                         "split: got %d sizes for axis %d of %s; wanted such that add up to its %lld entries",
                         n, axis, mb__tensor_text(a, sizeof a, x), (long long)all);
    }
    int64_t start = 0;
    for (int i = 0; i < n; start += sizes[i++])
        parts[i] = mb_slice(x, axis, start, sizes[i], 1);
    return mb_error(ctx);
}

mb_status mb_unstack_at(const char *site, mb_tensor x, mb_tensor *parts, int n, int axis)
{
    for (int i = 0; parts && i < n; i++)
        parts[i] = mb__poison(x.ctx);
    MB_DOOR(x.ctx, site, MB_THREAD);
    mb_tensor poison;
    mb_context *ctx = mb__enter("unstack", (const mb_tensor *[]){&x}, 1, &poison);
    if (!ctx || (axis = mb__axis("unstack", x, axis)) < 0)
        return mb_error(x.ctx);
    int64_t size = mb__at(ctx, x.id)->dim[axis];
    if (n != size || (n && !parts)) {
        char a[256];
        return mb__error(ctx, MB_INVALID, "unstack: got room for %d parts; axis %d of %s has %lld entries",
                         parts ? n : 0, axis, mb__tensor_text(a, sizeof a, x), (long long)size);
    }
    for (int i = 0; i < n; i++)
        parts[i] = mb_squeeze(mb_slice(x, axis, i, 1, 1), axis);
    return mb_error(ctx);
}

mb_tensor mb_unsqueeze_at(const char *site, mb_tensor x, int axis)
{
    MB_ENTER(site, "unsqueeze", &x);
    const mb__node *n = mb__at(ctx, x.id);
    int a = axis < 0 ? axis + n->rank + 1 : axis;
    if (a < 0 || a > n->rank || n->rank == MB_MAX_RANK) {
        char text[256];
        mb__error(ctx, MB_INVALID, "unsqueeze: got axis %d for %s, at most %d axes", axis,
                  mb__tensor_text(text, sizeof text, x), MB_MAX_RANK);
        return mb__poison(ctx);
    }
    mb_shape s = {n->rank + 1, {0}};
    for (int i = 0, j = 0; i < s.rank; i++)
        s.dim[i] = i == a ? 1 : n->dim[j++];
    return mb_reshape(x, s);
}

mb_tensor mb_squeeze_at(const char *site, mb_tensor x, int axis)
{
    MB_ENTER(site, "squeeze", &x);
    axis = mb__axis("squeeze", x, axis);
    if (axis < 0)
        return mb__poison(ctx);
    const mb__node *n = mb__at(ctx, x.id);
    if (n->dim[axis] != 1) {
        char text[256];
        mb__error(ctx, MB_INVALID, "squeeze: axis %d of %s is not of size 1", axis,
                  mb__tensor_text(text, sizeof text, x));
        return mb__poison(ctx);
    }
    mb_shape s = {n->rank - 1, {0}};
    for (int i = 0, j = 0; i < n->rank; i++)
        if (i != axis)
            s.dim[j++] = n->dim[i];
    return mb_reshape(x, s);
}
