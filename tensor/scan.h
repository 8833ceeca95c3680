/* SPDX-License-Identifier: MIT
 *
 * scan.h - loops on the tape: a body that is recorded once and run for each of `steps` steps.
 *
 * An unrolled loop
 *
 *     for (int t = 0; t < T; t++) {
 *         x = slice t of xs;
 *         mb_grad(inner_loss(W, x), &W, 1, &dW);
 *         W = mb_sub(W, mb_mul(dW, lr));
 *         losses[t] = ...;
 *     }
 *
 * becomes one node, planned once and of one step's memory, by brackets around its body:
 *
 *     mb_tensor losses;
 *     mb_scan s = mb_scan_begin(mb, T);
 *     mb_scan_carry(s, &W);                    // from here on W is the value at a step's beginning
 *     mb_tensor x = mb_scan_slice(s, xs);      // xs [T, ...] -> [...]
 *     mb_tensor loss = inner_loss(W, x);
 *     mb_grad(loss, &W, 1, &dW);
 *     W = mb_sub(W, mb_mul(dW, lr));           // its value at the end is the next step's
 *     mb_scan_stack(s, loss, &losses);
 *     mb_scan_end(s);                          // W is now the last value, losses [T]
 *
 * Everything recorded in between that depends on a carry, a slice or the step's number is run at each step;
 * what does not is computed once, before. Tensors of the outside are read as they are. Nothing of the inside
 * is a value: reading one, or using it after the end, is an error. Bodies hold gradients, checkpoints and
 * scans. A random draw in a body is one draw for all steps, of which each gets its part: with shape [T, n]
 * under its key, n elements a step (and [T outside, T inside, n] in nested scans, of fewer than 2^31 steps in
 * all). It is made at each step, and again where derivatives compute the step again; none is kept.
 *
 * Another number of steps is another plan, for memory is laid out by it, but one that takes as long to make
 * for any number: a fraction of a millisecond for a step of a GRU or of a small network with its gradient. On
 * vulkan nothing that a body or its derivatives consist of is compiled again; what is outside of the loop and
 * as long as it is, such as a mean over its stacks, is. mb_scan_until makes the number data: one plan for any
 * T up to `steps`, with a gradient's memory for `steps` of them:
 *
 *     mb_scan_until(s, mb_eq(mb_scan_step(s), mb_scalar(mb, MB_INT32, T - 1)));
 *
 * Derivatives of a scan, reverse and forward, are scans, of the same number of steps, which can be
 * differentiated again. The reverse one runs from the last step to the first: it computes each step again
 * from the carries as they were at its beginning. So a gradient stores the carries of all steps, and the
 * inside of one. With `keep_every` k it stores those of every k-th step only, and computes k steps once more,
 * from the last stored ones on: about steps / k + k carries; the least for k near the root of `steps`, which
 * MB_KEEP_SQRT asks for. MB_KEEP_LOG divides again, down to runs of a few steps: memory grows with the
 * logarithm of steps, and so does the time. (Chen et al. 1604.06174, Griewank 1992.)
 *
 * Differentiability: like the ops of the body; carries of integers and truth values have no derivative.
 * Stability: as in tensor.h.
 */
#ifndef MB_SCAN_H
#define MB_SCAN_H

#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { MB_KEEP_SQRT = -1, MB_KEEP_LOG = -2 };

typedef struct mb_scan_options {
    bool backwards;     /* slices from the last to the first; each step's part of a stack lies where its slice
                           does */
    int64_t keep_every; /* of the steps whose carries a gradient stores; 0: 1 */
} mb_scan_options;

typedef struct mb_scan {
    mb_context *ctx;
    uint32_t serial;
} mb_scan;

/* steps >= 0; with 0, carries end as they began, and stacks have no entries. */
MB_API mb_scan mb_scan_begin_at(const char *site, mb_context *ctx, int64_t steps);
#define mb_scan_begin(...) mb_scan_begin_at(MB_HERE, __VA_ARGS__)
MB_API mb_scan mb_scan_begin_with_at(const char *site, mb_context *ctx, int64_t steps,
                                     mb_scan_options options);
#define mb_scan_begin_with(...) mb_scan_begin_with_at(MB_HERE, __VA_ARGS__)

/* *value, the value before the first step, becomes the value at a step's beginning. What it is at
 * mb_scan_end, of the same shape and dtype, is the next step's; then it becomes the value after the last. The
 * variable stays the caller's, and must be there until the end. */
MB_API mb_status mb_scan_carry_at(const char *site, mb_scan scan, mb_tensor *value);
#define mb_scan_carry(...) mb_scan_carry_at(MB_HERE, __VA_ARGS__)
/* xs: [steps, ...] -> [...]: this step's. */
MB_API mb_tensor mb_scan_slice_at(const char *site, mb_scan scan, mb_tensor xs);
#define mb_scan_slice(...) mb_scan_slice_at(MB_HERE, __VA_ARGS__)
/* The step's number, 0-d int32: which slice it gets. */
MB_API mb_tensor mb_scan_step_at(const char *site, mb_scan scan);
#define mb_scan_step(...) mb_scan_step_at(MB_HERE, __VA_ARGS__)
/* At mb_scan_end, *ys becomes [steps, shape of y]: y at each step. */
MB_API mb_status mb_scan_stack_at(const char *site, mb_scan scan, mb_tensor y, mb_tensor *ys);
#define mb_scan_stack(...) mb_scan_stack_at(MB_HERE, __VA_ARGS__)
/* The inverse of the step: with it a gradient stores no carries. It begins with the last ones and computes
 * those before each step again, by the inverse, so that its memory does not grow with the steps:
 *
 *     mb_scan_carry(s, &x);
 *     mb_scan_carry(s, &y);
 *     x = mb_add(x, f(y));
 *     y = mb_add(y, g(x));
 *     mb_tensor x1 = mb_scan_after(s, &x), y1 = mb_scan_after(s, &y), y0 = mb_sub(y1, g(x1));
 *     mb_scan_before(s, &y, y0);
 *     mb_scan_before(s, &x, mb_sub(x1, f(y0)));
 *
 * mb_scan_after gives the value that a carry, which lies in this variable, has after a step; from those of
 * all carries, slices, the step's number and the outside the value before it is made, which mb_scan_before is
 * told, of every carry. That it is the inverse up to rounding is the caller's promise, which MB_DEBUG looks
 * at in each step: to the root of the dtype's precision, relative to the carry's largest element. Rounding
 * adds up from step to step. With keep_every k the carries of every k-th step are stored nevertheless, and
 * the inverse goes from there. The gradient is a scan without inverse: its own derivatives store its carries,
 * and those in forward mode are of the step alone. */
MB_API mb_tensor mb_scan_after_at(const char *site, mb_scan scan, mb_tensor *value);
#define mb_scan_after(...) mb_scan_after_at(MB_HERE, __VA_ARGS__)
MB_API mb_status mb_scan_before_at(const char *site, mb_scan scan, mb_tensor *value, mb_tensor before);
#define mb_scan_before(...) mb_scan_before_at(MB_HERE, __VA_ARGS__)
/* Ends the loop early: condition is 0-d bool, and the first step at whose end it is true is the last one that
 * does something. In those after it the carries keep their values; stacks go on, and get what the body gives
 * of these carries. So how many steps are done is data, never structure: values and derivatives are those of
 * all `steps`, of which the later ones change nothing, and no new plan is made for another number. On the cpu
 * and reference backends derivatives run the steps that were done, of whatever order they are, and where no
 * stacks are wanted the loop itself is left; a gradient has memory for the carries of all steps nevertheless.
 * On vulkan the same steps are left out by blocks of some dozens, of loops that are in no other loop: the
 * host looks after one block, two, four and so on. Other backends may run all steps. A carry that counts
 * tells how many steps were done. With several conditions any one ends it. The body should be finite at the
 * last carries too, as the branch that mb_where does not take.
 */
MB_API mb_status mb_scan_until_at(const char *site, mb_scan scan, mb_tensor condition);
#define mb_scan_until(...) mb_scan_until_at(MB_HERE, __VA_ARGS__)
/* Scans end in reverse order of their beginning, and in the scope that they began in. After an error all
 * results are poison. */
MB_API mb_status mb_scan_end_at(const char *site, mb_scan scan);
#define mb_scan_end(...) mb_scan_end_at(MB_HERE, __VA_ARGS__)

#ifdef __cplusplus
}
#endif
#endif
