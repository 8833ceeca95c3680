/* SPDX-License-Identifier: MIT
 * contract.c - sums of products of two operands over shared axes. Every matrix product is one; the derivative
 * of one is again one, with the roles of the axes exchanged. */
#include "tensor/internal.h"

mb_tensor mb__contract(mb_tensor a, mb_tensor b, int labels, const int64_t *axes)
{
    mb_context *ctx = a.ctx;
    if (!a.id || !b.id)
        return mb__poison(ctx);
    int64_t attrs[1 + 3 * 24], dim[MB_MAX_RANK];
    int rank = 0;
    attrs[0] = labels;
    for (int l = 0; l < labels; l++) {
        const int64_t *x = axes + 3 * l;
        memcpy(attrs + 1 + 3 * l, x, 3 * sizeof *x);
        int64_t size = x[0] >= 0   ? mb__at(ctx, a.id)->dim[x[0]]
                       : x[1] >= 0 ? mb__at(ctx, b.id)->dim[x[1]]
                                   : 1;
        if (x[2] >= 0) {
            dim[x[2]] = size;
            rank = rank > x[2] + 1 ? rank : (int)x[2] + 1;
        }
    }
    return mb__record(ctx, MB_OP_CONTRACT, (mb_dtype)mb__at(ctx, a.id)->dtype, rank, dim, (mb_tensor[]){a, b},
                      2, attrs, 1 + 3 * labels);
}

/* Whether both are of one float dtype; if not, that is the error. */
static bool same_floats(const char *op, mb_context *ctx, mb_tensor a, mb_tensor b)
{
    const mb__node *na = mb__at(ctx, a.id), *nb = mb__at(ctx, b.id);
    if (mb__is_float(na->dtype) && na->dtype == nb->dtype)
        return true;
    char ta[256], tb[256];
    mb__error(ctx, MB_INVALID, "%s: got a %s, b %s; wanted two of one float dtype", op,
              mb__tensor_text(ta, sizeof ta, a), mb__tensor_text(tb, sizeof tb, b));
    return false;
}

mb_tensor mb_matmul_at(const char *site, mb_tensor a, mb_tensor b)
{
    MB_ENTER(site, "matmul", &a, &b);
    if (!same_floats("matmul", ctx, a, b))
        return poison;
    const mb__node *na = mb__at(ctx, a.id), *nb = mb__at(ctx, b.id);
    int ra = na->rank, rb = nb->rank;
    char ta[256], tb[256];
    if (ra < 2 || rb < 2) {
        mb__error(ctx, MB_INVALID, "matmul: got a %s, b %s; wanted rank 2 or more",
                  mb__tensor_text(ta, sizeof ta, a), mb__tensor_text(tb, sizeof tb, b));
        return mb__poison(ctx);
    }
    if (na->dim[ra - 1] != nb->dim[rb - 2]) {
        mb__error(ctx, MB_INVALID, "matmul: inner sizes differ: a %s, b %s",
                  mb__tensor_text(ta, sizeof ta, a), mb__tensor_text(tb, sizeof tb, b));
        return mb__poison(ctx);
    }
    int64_t dim[MB_MAX_RANK];
    int batch;
    if (!mb__broadcast_shapes(na->dim, ra - 2, nb->dim, rb - 2, dim, &batch)) {
        mb__error(ctx, MB_INVALID, "matmul: leading axes do not broadcast: a %s, b %s",
                  mb__tensor_text(ta, sizeof ta, a), mb__tensor_text(tb, sizeof tb, b));
        return mb__poison(ctx);
    }
    /* A leading axis of size 1 that the other operand repeats is dropped from its operand, so that the
     * product reads it once; it then belongs to the other operand alone. */
    mb_shape sa = {0, {0}}, sb = {0, {0}};
    int64_t axes[3 * (MB_MAX_RANK + 1)];
    int labels = 0;
    for (int i = 0; i < batch; i++) {
        int ia = i - (batch - (ra - 2)), ib = i - (batch - (rb - 2));
        int64_t *x = axes + 3 * labels++;
        bool in_a = ia >= 0 && (na->dim[ia] == dim[i] && (dim[i] != 1 || ib < 0));
        bool in_b = ib >= 0 && (nb->dim[ib] == dim[i] && (dim[i] != 1 || !in_a));
        x[0] = in_a ? sa.rank : -1;
        x[1] = in_b ? sb.rank : -1;
        x[2] = i;
        if (in_a)
            sa.dim[sa.rank++] = dim[i];
        if (in_b)
            sb.dim[sb.rank++] = dim[i];
    }
    int64_t *m = axes + 3 * labels, *n = m + 3, *k = n + 3;
    m[0] = sa.rank, m[1] = -1, m[2] = batch;
    k[0] = sa.rank + 1, k[1] = sb.rank, k[2] = -1;
    n[0] = -1, n[1] = sb.rank + 1, n[2] = batch + 1;
    sa.dim[sa.rank++] = na->dim[ra - 2];
    sa.dim[sa.rank++] = na->dim[ra - 1];
    sb.dim[sb.rank++] = nb->dim[rb - 2];
    sb.dim[sb.rank++] = nb->dim[rb - 1];
    a = mb_reshape(a, sa);
    b = mb_reshape(b, sb);
    return mb__contract(a, b, labels + 3, axes);
}
