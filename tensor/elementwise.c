/* SPDX-License-Identifier: MIT
 * elementwise.c - constructors of elementwise ops: checks, implicit broadcasting, plain numbers as operands.
 */
#include "tensor/internal.h"

static bool accepts(char types, int dtype)
{
    switch (types) {
    case 'F':
        return mb__is_float(dtype);
    case 'I':
        return dtype == MB_INT32;
    case 'L':
        return dtype == MB_BOOL;
    default:
        return mb__is_number(dtype);
    }
}

mb_tensor mb__elementwise(int op, const mb_tensor *ts, int n)
{
    const mb_tensor *p[3] = {&ts[0], &ts[n > 1 ? 1 : 0], &ts[n > 2 ? 2 : 0]};
    const mb__op_info *info = &mb__ops[op];
    mb_tensor poison;
    mb_context *ctx = mb__enter(info->name, p, n, &poison);
    if (!ctx)
        return poison;
    char a[256], b[256];
    int first = op == MB_OP_WHERE ? 1 : 0; /* where's condition has its own dtype */
    mb_dtype dtype = (mb_dtype)mb__at(ctx, ts[first].id)->dtype;
    for (int i = first + 1; i < n; i++)
        if (mb__at(ctx, ts[i].id)->dtype != dtype) {
            mb__error(ctx, MB_INVALID, "%s: dtypes differ: a %s, b %s; convert with mb_cast", info->name,
                      mb__tensor_text(a, sizeof a, ts[first]), mb__tensor_text(b, sizeof b, ts[i]));
            return mb__poison(ctx);
        }
    if (op == MB_OP_WHERE && mb__at(ctx, ts[0].id)->dtype != MB_BOOL) {
        mb__error(ctx, MB_INVALID, "where: got the condition %s; wanted bool",
                  mb__tensor_text(a, sizeof a, ts[0]));
        return mb__poison(ctx);
    }
    if (info->types && !accepts(info->types, (int)dtype) &&
        !(info->kind == MB_KIND_COMPARE && dtype != MB_BOOL)) {
        mb__error(ctx, MB_INVALID, "%s: got %s; wanted %s", info->name,
                  mb__tensor_text(a, sizeof a, ts[first]),
                  info->types == 'L'   ? "bool"
                  : info->types == 'I' ? "int32"
                  : info->types == 'F' ? "floats"
                                       : "floats or int32; convert with mb_cast");
        return mb__poison(ctx);
    }
    int64_t dim[MB_MAX_RANK];
    const mb__node *x = mb__at(ctx, ts[0].id);
    int rank = x->rank;
    memcpy(dim, x->dim, sizeof dim);
    for (int i = 1; i < n; i++) {
        const mb__node *y = mb__at(ctx, ts[i].id);
        if (!mb__broadcast_shapes(dim, rank, y->dim, y->rank, dim, &rank)) {
            mb__error(ctx, MB_INVALID, "%s: shapes do not broadcast: a %s, b %s", info->name,
                      mb__tensor_text(a, sizeof a, ts[i - 1]), mb__tensor_text(b, sizeof b, ts[i]));
            return mb__poison(ctx);
        }
    }
    if (info->kind == MB_KIND_COMPARE)
        dtype = MB_BOOL;
    return mb__record(ctx, op, dtype, rank, dim, ts, n, NULL, 0);
}

mb_tensor mb__const_like(mb_tensor x, double value)
{
    if (!x.ctx || !x.id || !mb_valid(x) || mb_error(x.ctx) != MB_OK)
        return mb__poison(x.ctx);
    return mb__const(x.ctx, (mb_dtype)mb__at(x.ctx, x.id)->dtype, value);
}

/* A plain number as the other operand of t: a scalar of t's dtype, bound at each run. */
static mb_tensor number_like(const char *op, mb_tensor t, double value)
{
    mb_tensor poison;
    mb_context *ctx = mb__enter(op, (const mb_tensor *[]){&t}, 1, &poison);
    return ctx ? mb_scalar(ctx, (mb_dtype)mb__at(ctx, t.id)->dtype, value) : poison;
}

#define MB_UNARY(NAME, name, types, expr, lo, hi, cost, doc)                                                 \
    mb_tensor mb_##name##_at(const char *site, mb_tensor x)                                                  \
    {                                                                                                        \
        MB_SITE(x.ctx, site);                                                                                \
        return mb__elementwise(MB_OP_##NAME, &x, 1);                                                         \
    }
#define PAIR(NAME, name)                                                                                     \
    mb_tensor mb_##name##_at(const char *site, mb_tensor a, mb_tensor b)                                     \
    {                                                                                                        \
        MB_SITE(a.ctx ? a.ctx : b.ctx, site);                                                                \
        return mb__elementwise(MB_OP_##NAME, (mb_tensor[]){a, b}, 2);                                        \
    }                                                                                                        \
    WITH_NUMBERS(name)
#define WITH_NUMBERS(name)                                                                                   \
    mb_tensor mb_##name##_right_at(const char *site, mb_tensor a, double b);                                 \
    mb_tensor mb_##name##_right_at(const char *site, mb_tensor a, double b)                                  \
    {                                                                                                        \
        MB_SITE(a.ctx, site);                                                                                \
        return mb_##name##_at(site, a, number_like(#name, a, b));                                            \
    }                                                                                                        \
    mb_tensor mb_##name##_left_at(const char *site, double a, mb_tensor b);                                  \
    mb_tensor mb_##name##_left_at(const char *site, double a, mb_tensor b)                                   \
    {                                                                                                        \
        MB_SITE(b.ctx, site);                                                                                \
        return mb_##name##_at(site, number_like(#name, b, a), b);                                            \
    }
#define MB_BINARY(NAME, name, types, expr, lo, hi, flags, cost, doc) PAIR(NAME, name)
#define MB_COMPARE(NAME, name, types, expr, doc)                     PAIR(NAME, name)
#define MB_FUNCTION(name, types, result, doc)                        WITH_NUMBERS(name)
#include "tensor/ops.def"

mb_tensor mb_where_at(const char *site, mb_tensor condition, mb_tensor a, mb_tensor b)
{
    MB_SITE(condition.ctx ? condition.ctx : a.ctx ? a.ctx : b.ctx, site);
    return mb__elementwise(MB_OP_WHERE, (mb_tensor[]){condition, a, b}, 3);
}
