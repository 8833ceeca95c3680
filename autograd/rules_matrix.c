/* SPDX-License-Identifier: MIT
 *
 * rules_matrix.c - derivatives of the ops on matrices (kind MATRIX), in terms of triangular solves, products
 * and triangles, which have derivatives of their own. On a batch, [K, ...], all of these work on the last two
 * axes as before, and broadcast over the new one: so do the ops, and the forward rules.
 */
#include "autograd/rules.h"
#include "tensor/linalg.h"

#define REVERSE(NAME) static mb_tensor NAME##_reverse(const mb__applied *s, int i, mb_tensor g)
#define FORWARD(NAME) static mb_tensor NAME##_forward(const mb__applied *s, int i, mb_tensor t)
#define BATCH(NAME)   static mb_tensor NAME##_batch(const mb__applied *s, const mb__operand *in, int64_t K)

/* ---- Cholesky: Murray, 1602.07527 ---- */

/* The lower triangle with half of the diagonal: the h of a symmetric h + h^T. */
static mb_tensor half_of(const mb__applied *s, mb_tensor x)
{
    int64_t n = s->node.dim[s->node.rank - 1];
    mb_dtype dtype = (mb_dtype)s->node.dtype;
    mb_tensor halved = mb_mul(x, mb__const(s->ctx, dtype, 0.5));
    mb_tensor below = mb_where(mb_tril_mask(s->ctx, n, n, -1), x, halved);
    return mb_where(mb_tril_mask(s->ctx, n, n, 0), below, mb__const(s->ctx, dtype, 0));
}

/* Of A = L L^T: dL = L half(L^-1 dA L^-T), where dA is the symmetric matrix of which t has the lower
 * triangle.
 */
FORWARD(cholesky)
{
    (void)i;
    mb_tensor l = s->out, h = half_of(s, t);
    mb_tensor m = mb_triangular_solve(l, mb_add(h, mb_transpose(h)), MB_LOWER);
    m = mb_triangular_solve(l, mb_transpose(m), MB_LOWER);
    return mb_matmul(l, half_of(s, m));
}
BATCH(cholesky)
{
    (void)s, (void)K;
    return mb_cholesky(in[0].t);
}

/* With S = L^-T half(L^T g) L^-1, <g, dL> = <S, dA>; an element below the diagonal stands in dA twice. What g
 * has above the diagonal does not matter: half(L^T g) has nothing of it. */
REVERSE(cholesky)
{
    (void)i;
    mb_tensor l = s->out, p = half_of(s, mb_matmul(mb_transpose(l), mb_tril(g, 0)));
    p = mb_triangular_solve(l, p, MB_LOWER | MB_TRANSPOSED);
    p = mb_triangular_solve(l, mb_transpose(p), MB_LOWER | MB_TRANSPOSED);
    return half_of(s, mb_add(p, mb_transpose(p)));
}

/* ---- triangular_solve: X = A^-1 B ---- */

static unsigned form_of(const mb__applied *s)
{
    const int64_t *attrs = mb__attrs(s->ctx, &s->node);
    return (attrs[0] ? MB_UPPER : MB_LOWER) | (attrs[1] ? MB_UNIT_DIAGONAL : 0);
}

/* What the op reads of a matrix like A. */
static mb_tensor triangle_of(const mb__applied *s, mb_tensor x)
{
    unsigned form = form_of(s);
    int64_t off = form & MB_UNIT_DIAGONAL ? 1 : 0;
    return form & MB_UPPER ? mb_triu(x, off) : mb_tril(x, -off);
}

REVERSE(triangular_solve)
{
    mb_tensor by_b = mb_triangular_solve(s->in[0], g, form_of(s) | MB_TRANSPOSED);
    return i ? by_b : mb_neg(triangle_of(s, mb_matmul(by_b, mb_transpose(s->out))));
}
FORWARD(triangular_solve)
{
    if (i)
        return mb_triangular_solve(s->in[0], t, form_of(s));
    mb_tensor moved = mb_matmul(triangle_of(s, t), s->out);
    return mb_neg(mb_triangular_solve(s->in[0], moved, form_of(s)));
}
BATCH(triangular_solve)
{
    (void)K;
    return mb_triangular_solve(in[0].t, in[1].t, form_of(s));
}

/* ---- the table ---- */

const mb__rule mb__rules_matrix[MB_OP_COUNT] = {
    [MB_OP_CHOLESKY] = {cholesky_reverse, cholesky_forward, cholesky_batch},
    [MB_OP_TRIANGULAR_SOLVE] = {triangular_solve_reverse, triangular_solve_forward, triangular_solve_batch},
};
