/* SPDX-License-Identifier: MIT
 *
 * linalg.h - triangles, Cholesky factors, linear systems, least squares. Part of moebius.h.
 *
 * A matrix is the last two axes of a tensor; the axes before are a batch, and every matrix of it is a problem
 * of its own. Where there are two operands their batches broadcast. A right side is a matrix too: of a single
 * vector b it is mb_unsqueeze(b, -1). Any size may be 0. All is recorded as ops that have derivatives of
 * every order.
 *
 * Everything is computed in the operands' dtype, halves as float32, with the result rounded: where several of
 * these follow on each other, cast before. What rounding does is what Cholesky's method is known for: the
 * factor L is exact for a matrix within n eps |A| of A, the solution of a system for one within 3 n eps |A|,
 * where eps is 6e-8 in float32 and 1.1e-16 in float64. So a solution has about as many wrong digits as the
 * condition of A has digits, and a derivative of order k at most about k + 1 times as many.
 *
 * A matrix that is not positive definite, to rounding, is no error: its factor is NaN in all of the lower
 * triangle, so what is computed of it is NaN, while the other matrices of the batch are what they are. NaN or
 * infinity in the triangle that is read does the same. MB_DEBUG=1 (backends.h) tells the line.
 */
#ifndef MB_LINALG_H
#define MB_LINALG_H

#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------ triangles and diagonals --
 */

/* x where column <= row + diagonal, 0 above; x where column >= row + diagonal, 0 below. Any dtype. */
MB_API mb_tensor mb_tril_at(const char *site, mb_tensor x, int64_t diagonal);
#define mb_tril(...) mb_tril_at(MB_HERE, __VA_ARGS__)
MB_API mb_tensor mb_triu_at(const char *site, mb_tensor x, int64_t diagonal);
#define mb_triu(...) mb_triu_at(MB_HERE, __VA_ARGS__)
/* x: [..., m, n] -> the diagonal [..., min(m, n)]. Any dtype. */
MB_API mb_tensor mb_diagonal_at(const char *site, mb_tensor x);
#define mb_diagonal(...) mb_diagonal_at(MB_HERE, __VA_ARGS__)
/* x: [..., m, n] -> [...]: the sum of the diagonal. Numbers. */
MB_API mb_tensor mb_trace_at(const char *site, mb_tensor x);
#define mb_trace(...) mb_trace_at(MB_HERE, __VA_ARGS__)
/* x: [..., n] -> [..., n, n] with that diagonal, zeros elsewhere. Any dtype. */
MB_API mb_tensor mb_diagonal_matrix_at(const char *site, mb_tensor x);
#define mb_diagonal_matrix(...) mb_diagonal_matrix_at(MB_HERE, __VA_ARGS__)

/* ---------------------------------------------------------------------------------------------- systems --
 */

/* a: [..., n, n], symmetric and positive definite -> the lower triangular L of its shape with L L^T = a,
 * whose diagonal is positive; zeros above. Only the lower triangle of a is read, and so derivatives by a are
 * zero above the diagonal, and below it those of both elements. Floats. */
MB_API mb_tensor mb_cholesky_at(const char *site, mb_tensor a);
#define mb_cholesky(...) mb_cholesky_at(MB_HERE, __VA_ARGS__)

/* A form is one of the first two, with any of the others: MB_LOWER | MB_TRANSPOSED. */
enum mb_triangle {
    MB_LOWER = 0,
    MB_UPPER = 1,         /* what is read of a is its upper triangle, in place of the lower one */
    MB_TRANSPOSED = 2,    /* a^T x = b is solved, in place of a x = b                           */
    MB_UNIT_DIAGONAL = 4, /* the diagonal is not read, but counts as ones                       */
};

/* a: [..., n, n] triangular, b: [..., n, m] -> x: [..., n, m] with a x = b. What lies beyond the triangle is
 * not read; derivatives by it are zero. A zero on the diagonal gives infinities and NaN. Floats of one dtype.
 */
MB_API mb_tensor mb_triangular_solve_at(const char *site, mb_tensor a, mb_tensor b, unsigned form);
#define mb_triangular_solve(...) mb_triangular_solve_at(MB_HERE, __VA_ARGS__)

/* l: [..., n, n], the factor that mb_cholesky gave of a; b: [..., n, m] -> x: [..., n, m] with a x = b: many
 * systems by one factor. */
MB_API mb_tensor mb_cholesky_solve_at(const char *site, mb_tensor l, mb_tensor b);
#define mb_cholesky_solve(...) mb_cholesky_solve_at(MB_HERE, __VA_ARGS__)
/* a: [..., n, n], symmetric and positive definite, of which the lower triangle is read; b: [..., n, m] -> x:
 * [..., n, m] with a x = b. */
MB_API mb_tensor mb_solve_spd_at(const char *site, mb_tensor a, mb_tensor b);
#define mb_solve_spd(...) mb_solve_spd_at(MB_HERE, __VA_ARGS__)
/* a: [..., n, n], symmetric and positive definite -> log of the determinant, [...]; of n = 0 it is 0. */
MB_API mb_tensor mb_log_det_spd_at(const char *site, mb_tensor a);
#define mb_log_det_spd(...) mb_log_det_spd_at(MB_HERE, __VA_ARGS__)

/* a: [..., k, n], b: [..., k, m] -> the x: [..., n, m] for which |a x - b|^2 + ridge |x|^2 is least, column
 * by column. ridge: a tensor of a's dtype, positive or 0, of any shape that broadcasts to the batch; no
 * tensor, MB_EMPTY(mb_tensor), is 0. With k < n and no ridge it is the shortest of the x with a x = b.
 *
 * By Cholesky's method on the smaller of a^T a + ridge and a a^T + ridge, and one step of refinement by what
 * is left over: all products and triangular solves, half the work of a QR decomposition or less, and its
 * derivatives are as cheap. With c^2 = (s_1^2 + ridge) / (s_min^2 + ridge) of the extreme singular values of
 * a, and r = b - a x, the relative error is that of QR, about eps (c + c^2 |r| / |a| |x|), while eps c^2 is
 * small: the square of that comes on top. From eps c^2 = 0.1 on (c of 1e3 in float32, 3e7 in float64), or
 * where the columns are dependent and there is no ridge, the result is noise or NaN, where QR would still go
 * on: scale the columns alike, use a ridge, or float64. */
MB_API mb_tensor mb_lstsq_at(const char *site, mb_tensor a, mb_tensor b, mb_tensor ridge);
#define mb_lstsq(...) mb_lstsq_at(MB_HERE, __VA_ARGS__)

#ifdef __cplusplus
}
#endif

#endif
