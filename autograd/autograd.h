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
 * The inner loop of a learner is written just so, with W <- W - eta dl/dW; a later mb_grad of the outer loss
 * goes through it.
 *
 * A tensor that y does not depend on gets zeros. What y depends on through an op without a derivative
 * (comparison, floor, argmax, index) counts as constant. A missing rule is an error (MB_NO_RULE) which names
 * the op and its line, never a silent zero. Differentiation is with respect to the given handle: another
 * handle of the same value (mb_alias) is another variable.
 */
#ifndef MB_AUTOGRAD_H
#define MB_AUTOGRAD_H

#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Reverse mode. y: floats of any shape, seeded with ones: the gradient of sum(y). So a loss for each image
 * and head, a vector, needs no ceremony. xs: n float tensors. Writes gs[i], shaped like xs[i]; poison on
 * error. A variable in xs stands for its current value. */
MB_API mb_status mb_grad_at(const char *where, mb_tensor y, const mb_tensor *xs, int n, mb_tensor *gs);
#define mb_grad(...) mb_grad_at(MB_HERE, __VA_ARGS__)

/* The same with a cotangent v, of y's shape and dtype: gs[i] = v^T dy/dxs[i]. */
MB_API mb_status mb_vjp_at(const char *where, mb_tensor y, mb_tensor v, const mb_tensor *xs, int n,
                           mb_tensor *gs);
#define mb_vjp(...) mb_vjp_at(MB_HERE, __VA_ARGS__)

/* Forward mode: ts[j] = sum_i dys[j]/dxs[i] vs[i] for tangents vs, shaped like xs. m results in one sweep. */
MB_API mb_status mb_jvp_at(const char *where, const mb_tensor *ys, int m, const mb_tensor *xs,
                           const mb_tensor *vs, int n, mb_tensor *ts);
#define mb_jvp(...) mb_jvp_at(MB_HERE, __VA_ARGS__)

/* Hessian-vector product, forward over reverse: hs = d/de grad(y)(xs + e vs) at e = 0. y as for mb_grad. */
MB_API mb_status mb_hvp_at(const char *where, mb_tensor y, const mb_tensor *xs, const mb_tensor *vs, int n,
                           mb_tensor *hs);
#define mb_hvp(...) mb_hvp_at(MB_HERE, __VA_ARGS__)

#ifdef __cplusplus
}
#endif
#endif
