/* SPDX-License-Identifier: MIT
 *
 * autograd.h - derivatives, recorded on the same tape as what they are derivatives of.
 *
 * Every function here only records: the results are ordinary tensors, made of the same ops as any other, and
 * can be differentiated again, to any depth. Nothing is accumulated, nothing is consumed, there is no mode.
 *
 *     mb_tensor g, h;
 *     mb_grad(y, &x, 1, &g);          // g = dy/dx
 *     mb_grad(g, &x, 1, &h);          // h = d2y/dx2, of a scalar x
 *
 * An inner loop is written in the same way, with W <- W - eta dl/dW; mb_grad of an outer loss then
 * differentiates through it.
 *
 * The gradient of a tensor that y does not depend on is zeros; if y depends on none of them and a variable is
 * among them, a line in the log warns. A tensor that occurs twice in xs is one variable: each occurrence gets
 * the whole gradient, and tangents of both are added, so that products with the Hessian agree with the
 * Hessian. A dependence through an op without a derivative (comparison, floor, argmax, an index) does not
 * count. A missing rule is an error (MB_NO_RULE) which names the op and its line, never a silent zero.
 * Derivatives are with respect to the node of the given handle; a copy of the same value (mb_alias) is
 * another variable.
 *
 * Derivatives of every order are those of the function, in whatever order and mode they are taken, with these
 * conventions: at a tie, a kink or a jump the op's line in ops.h says what the derivative is, and that is
 * constant for higher orders; a^b counts as constant in b where a <= 0; a selection (mb_where, a maximum) has
 * the derivatives of the branch taken. Where a derivative is infinite, those of higher order may be NaN.
 *
 * Stability: as in tensor.h. What is recorded for a derivative, and so its last bits, may change from version
 * to version.
 */
#ifndef MB_AUTOGRAD_H
#define MB_AUTOGRAD_H

#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Reverse mode. y: floats of any shape, seeded with ones: the gradient of sum(y), so y may be a vector of
 * losses. xs: n float tensors. Writes gs[i], shaped like xs[i]; poison on error. A variable (mb_variable) in
 * xs stands for its current value. */
MB_API mb_status mb_grad_at(const char *site, mb_tensor y, const mb_tensor *xs, int n, mb_tensor *gs);
#define mb_grad(...) mb_grad_at(MB_HERE, __VA_ARGS__)

/* The same with a cotangent v, of y's shape and dtype: gs[i] = v^T dy/dxs[i]. */
MB_API mb_status mb_vjp_at(const char *site, mb_tensor y, mb_tensor v, const mb_tensor *xs, int n,
                           mb_tensor *gs);
#define mb_vjp(...) mb_vjp_at(MB_HERE, __VA_ARGS__)

/* Forward mode: ts[j] = sum_i dys[j]/dxs[i] vs[i] for tangents vs, shaped like xs. m results in one sweep. */
MB_API mb_status mb_jvp_at(const char *site, const mb_tensor *ys, int m, const mb_tensor *xs,
                           const mb_tensor *vs, int n, mb_tensor *ts);
#define mb_jvp(...) mb_jvp_at(MB_HERE, __VA_ARGS__)

/* Hessian-vector product, forward over reverse: hs = d/de grad(y)(xs + e vs) at e = 0. y as for mb_grad. hs
 * may be vs, here and below. */
MB_API mb_status mb_hvp_at(const char *site, mb_tensor y, const mb_tensor *xs, const mb_tensor *vs, int n,
                           mb_tensor *hs);
#define mb_hvp(...) mb_hvp_at(MB_HERE, __VA_ARGS__)

/* The same, reverse over reverse: the gradient of <grad(y), vs> with vs constant, even if a v depends on an
 * x. The values are equal to those of mb_hvp, and the cost is similar (two to three gradients). The xs are of
 * one dtype.
 */
MB_API mb_status mb_hvp_reverse_at(const char *site, mb_tensor y, const mb_tensor *xs, const mb_tensor *vs,
                                   int n, mb_tensor *hs);
#define mb_hvp_reverse(...) mb_hvp_reverse_at(MB_HERE, __VA_ARGS__)

/* ------------------------------------------------------------------------------------------ checkpoints --
 */

/* Values recorded between begin and end are not stored for derivatives: these recompute them, just before
 * they are used, from the checkpoint's inputs. So memory holds the inputs and outputs of all checkpoints and
 * the inside of one; each order of derivative costs one more recomputation. (Chen et al. 1604.06174)
 *
 *     for (int t = 0; t < T; t++) {
 *         mb_checkpoint c = mb_checkpoint_begin(mb);
 *         mb_grad(inner_loss(W, x), &W, 1, &dW);
 *         W = mb_sub(W, mb_mul(dW, lr));
 *         mb_checkpoint_end(c);
 *     }
 *
 * Checkpoints nest (sqrt(T) steps in each of sqrt(T) checkpoints), and so do their derivatives: what a
 * gradient records from a checkpoint is a checkpoint again, so that memory is saved in second and third
 * derivatives as well. Values and derivatives are the same to rounding with and without them, and random
 * draws repeat. A gradient with respect to a tensor inside is allowed; the checkpoint is then treated as if
 * it were not there.
 *
 * Checkpoints end in reverse order of their beginning. If the end of a scope removes nodes of a checkpoint,
 * it is forgotten. */
typedef struct mb_checkpoint {
    mb_context *ctx;
    uint32_t first, within; /* the next node then; the scan or vmap that it was begun in */
    bool products;
} mb_checkpoint;
MB_API mb_checkpoint mb_checkpoint_begin_at(const char *site, mb_context *ctx);
#define mb_checkpoint_begin(...) mb_checkpoint_begin_at(MB_HERE, __VA_ARGS__)
/* The same, but results of matrix products (matmul, einsum) are stored, so that little is recomputed. */
MB_API mb_checkpoint mb_checkpoint_products_begin_at(const char *site, mb_context *ctx);
#define mb_checkpoint_products_begin(...) mb_checkpoint_products_begin_at(MB_HERE, __VA_ARGS__)
MB_API mb_status mb_checkpoint_end_at(const char *site, mb_checkpoint checkpoint);
#define mb_checkpoint_end(...) mb_checkpoint_end_at(MB_HERE, __VA_ARGS__)
/* Has x stored by the checkpoints around it, and returns x. */
MB_API mb_tensor mb_keep_through_at(const char *site, mb_tensor x);
#define mb_keep_through(...) mb_keep_through_at(MB_HERE, __VA_ARGS__)

/* ----------------------------------------------------------------------- many directions in one sweep -- */

/* Tangents with one more axis in front, of K directions: one sweep records one large kernel where K calls
 * would record K small ones, and what does not depend on the direction is computed once. A batched sweep
 * costs K times the memory of one, and needs a free axis: every tensor between xs and ys has at most
 * MB_MAX_RANK - 1.
 *
 * vs[i]: [K, shape of xs[i]], ts[j]: [K, shape of ys[j]]; ts[j][k] = sum_i dys[j]/dxs[i] vs[i][k]. */
MB_API mb_status mb_jvp_batch_at(const char *site, const mb_tensor *ys, int m, const mb_tensor *xs,
                                 const mb_tensor *vs, int n, mb_tensor *ts);
#define mb_jvp_batch(...) mb_jvp_batch_at(MB_HERE, __VA_ARGS__)

/* K Hessian-vector products, forward over reverse: vs[i], hs[i]: [K, shape of xs[i]]. y as for mb_grad. */
MB_API mb_status mb_hvp_batch_at(const char *site, mb_tensor y, const mb_tensor *xs, const mb_tensor *vs,
                                 int n, mb_tensor *hs);
#define mb_hvp_batch(...) mb_hvp_batch_at(MB_HERE, __VA_ARGS__)

/* y: [Y...], x: [X...], floats, of at most MB_MAX_RANK axes together -> [Y..., X...]: dy/dx, all of it.
 * Forward mode if x has no more elements than y; else reverse mode, batched as well: the vjp is linear in its
 * cotangent, so its jvp with respect to the cotangent is the vjp of each direction. */
MB_API mb_tensor mb_jacobian_at(const char *site, mb_tensor y, mb_tensor x);
#define mb_jacobian(...) mb_jacobian_at(MB_HERE, __VA_ARGS__)

/* ------------------------------------------------------------------------------------------- curvature -- */

/* Of sum(y), with respect to n tensors xs of one dtype, taken together as one vector of p elements: xs[0] in
 * row-major order, then xs[1], and so on. All are recorded and differentiable to any order, like everything
 * above; the directions are batched, as many at a time as keep the largest intermediate value within 4 MiB.
 */

/* -> [p, p], symmetric up to rounding. */
MB_API mb_tensor mb_hessian_at(const char *site, mb_tensor y, const mb_tensor *xs, int n);
#define mb_hessian(...) mb_hessian_at(MB_HERE, __VA_ARGS__)
/* Writes ds[i], shaped like xs[i]: d2 sum(y) / dx2 of each element. Exact: p Hessian-vector products. */
MB_API mb_status mb_hessian_diagonal_at(const char *site, mb_tensor y, const mb_tensor *xs, int n,
                                        mb_tensor *ds);
#define mb_hessian_diagonal(...) mb_hessian_diagonal_at(MB_HERE, __VA_ARGS__)

/* Along the line xs + s us, at s = 0: *first = dy/ds and *second = d2y/ds2, both shaped like y: of each
 * element (second = u^T H u where y is 0-d). us[i] is shaped like xs[i] and counts as constant, here and in
 * later derivatives. Forward over forward: no gradient is recorded, so this is the cheapest second
 * derivative. first may be NULL. */
MB_API mb_status mb_directional_at(const char *site, mb_tensor y, const mb_tensor *xs, const mb_tensor *us,
                                   int n, mb_tensor *first, mb_tensor *second);
#define mb_directional(...) mb_directional_at(MB_HERE, __VA_ARGS__)

/* Lanczos (1950) with full reorthogonalisation, from a random start under `key`: records min(steps, p)
 * Hessian-vector products and writes *alpha: [m] and *beta: [m], m = min(steps, p): the diagonal of the
 * tridiagonal matrix T = V^T H V, and its off-diagonal, with the residual's norm as last entry. The extreme
 * eigenvalues of T approach the Hessian's from inside, long before m reaches p (Golub and Van Loan, section
 * 10.1). If the Krylov space is exhausted early, beta is 0 from there on (taken as 0 below 1e-10 of T's size
 * in float64, 1e-5 in float32), and so is what follows: cut T there. */
MB_API mb_status mb_lanczos_at(const char *site, mb_tensor y, const mb_tensor *xs, int n, int steps,
                               mb_key key, mb_tensor *alpha, mb_tensor *beta);
#define mb_lanczos(...) mb_lanczos_at(MB_HERE, __VA_ARGS__)
/* The smallest and the largest eigenvalue of the Hessian of sum(y), by mb_lanczos. A flush; the results are
 * numbers, not tensors. Either may be NULL; NaN after an error. The spectral norm is the larger magnitude. */
MB_API mb_status mb_extreme_eigenvalues_at(const char *site, mb_tensor y, const mb_tensor *xs, int n,
                                           int steps, mb_key key, double *smallest, double *largest);
#define mb_extreme_eigenvalues(...) mb_extreme_eigenvalues_at(MB_HERE, __VA_ARGS__)

#ifdef __cplusplus
}
#endif
#endif
