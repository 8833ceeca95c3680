/* SPDX-License-Identifier: MIT
 *
 * mixed.h - gradients within a loop, whose own derivatives are made forward over reverse where that takes
 * less.
 *
 *     static mb_status inner(const void *user, mb_context *mb, const mb_map_at *at, mb_tensor *out)
 *     {
 *         out[0] = inner_loss(at->xs[0], at->params[0]);        // W, a batch
 *         return mb_error(mb);
 *     }
 *     ...
 *     mb_scan s = mb_scan_begin(mb, T);
 *     mb_scan_carry(s, &W);
 *     mb_tensor x = mb_scan_slice(s, xs);
 *     mb_grad_mixed(MB_LIT(mb_map){inner}, &W, 1, &x, 1, &dW);
 *     W = mb_sub(W, mb_mul(dW, lr));
 *     mb_scan_end(s);
 *     mb_grad(outer_loss(W), ...);
 *
 * The adjoint of a gradient is a product with the Hessian, which is symmetric. So there are two ways to it.
 * Reverse over reverse, as mb_grad of mb_grad makes it, goes back through the inner backward pass and then
 * through the forward one. Forward over reverse has a tangent beside each value of the two instead
 * (MixFlow-MG, Kemaev et al. 2505.00793). The numbers are the same up to rounding, the memory is not: a loss
 * that holds a scan itself takes up to a third less forward over reverse, as its carries are stored once
 * less, and fewer operations; one made of checkpoints takes more, because a tangent goes through them as if
 * they were not there.
 *
 * When a derivative first comes through, both ways are recorded and a plan of each is made (nothing is
 * computed). The one that holds less memory is taken, or, where that differs by less than one part in 16, the
 * one of fewer operations. The context remembers it for losses of the same structure, so a step that is
 * recorded again records one. mb_forecast tells what came of it.
 *
 * Stability: as in tensor.h.
 */
#ifndef MB_MIXED_H
#define MB_MIXED_H

#include "autograd/implicit.h"

#ifdef __cplusplus
extern "C" {
#endif

/* gs[k]: the gradients of a loss by xs[k], as of mb_grad, which it also equals in all derivatives. loss.call
 * is recorded here and whenever a derivative comes through, in scans and checkpoints with other tensors, and
 * gives one tensor, a float, of which the sum counts. All that it reads must be handed in, by xs, which are
 * floats, and params[n], of any dtype, which are held fixed, also where they were computed from xs. What it
 * reads past them is an error, other than numbers. gs may be xs. With an error all gs are poison. */
MB_API mb_status mb_grad_mixed_at(const char *site, mb_map loss, const mb_tensor *xs, int k,
                                  const mb_tensor *params, int n, mb_tensor *gs);
#define mb_grad_mixed(...) mb_grad_mixed_at(MB_HERE, __VA_ARGS__)

#ifdef __cplusplus
}
#endif
#endif
