/* SPDX-License-Identifier: MIT
 *
 * custom.h - derivatives of one's own for a piece of the tape.
 *
 * The piece is computed by ordinary ops; mb_custom_gradient gives its values once more, and says what their
 * derivatives are:
 *
 *     static mb_status pull(const void *user, mb_context *mb, const mb_custom_at *at, const mb_tensor *vs,
 *                           mb_tensor *gs)
 *     {
 *         gs[0] = vs[0];           // as if round were the identity
 *         return mb_error(mb);
 *     }
 *     ...
 *     mb_tensor y = mb_floor(mb_add(x, 0.5)), out;
 *     mb_custom_gradient(&y, 1, &x, 1, MB_LIT(mb_custom_rule){.reverse = pull}, &out);
 *
 * What a rule records are ordinary ops, so derivatives of derivatives go through it, to any order; where it
 * reads at->ys they go by the rule itself. It is called when a sweep comes to the piece, once for each sweep,
 * perhaps from within a scan or for the copy of a checkpoint, and with other tensors than those given here:
 * it must read the tensors of `at`, and none from elsewhere (which would be another step's, or no longer
 * there).
 *
 * The same tensors under names of their own: mb_vjp and mb_jvp of what a rule records, by at->xs and at->ys,
 * give partial derivatives, which look no further back than the rule.
 *
 * A rule for one mode is enough. The other is made of it, because a derivative is linear in the tangents or
 * cotangents: its transpose is its own vjp by them. So a rule must be linear in them. What is not linear is
 * not found out. Of many directions at once (mb_jvp_batch, mb_jacobian, ...) forward rules are recorded once,
 * as a scan over the directions. In a vmap a rule is recorded for one example, in a vmap of its own.
 *
 * Stability: as in tensor.h.
 */
#ifndef MB_CUSTOM_H
#define MB_CUSTOM_H

#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The piece that a rule is asked about: n tensors that it is a function of, and its m values. */
typedef struct mb_custom_at {
    const mb_tensor *xs, *ys;
    int n, m;
} mb_custom_at;

/* The largest user_bytes. */
#define MB_CUSTOM_USER_MOST 512

typedef struct mb_custom_rule {
    /* From cotangents vs[m] of the values, no tensor (ctx NULL) where one is zero, to gradients gs[n], shaped
     * like the xs: the sum over j of vs[j]^T dys[j]/dxs[i]. They begin as no tensors, which stand for zeros.
     * What is given for xs that are no floats is not looked at. */
    mb_status (*reverse)(const void *user, mb_context *ctx, const mb_custom_at *at, const mb_tensor *vs,
                         mb_tensor *gs);
    /* From tangents ts[n], no tensor where one is zero, to those of the values, us[m], in the same way: the
     * sum over i of dys[j]/dxs[i] ts[i]. */
    mb_status (*forward)(const void *user, mb_context *ctx, const mb_custom_at *at, const mb_tensor *ts,
                         mb_tensor *us);
    /* Handed to both. With user_bytes > 0 it is copied, onto the tape, and lives as long as what is recorded
     * here. With 0 the pointer is kept as it is: the memory is the caller's, and must be there until then. A
     * tensor in it stays what it is in a scan's steps and in a checkpoint's copies: hand it in by xs. */
    const void *user;
    size_t user_bytes;
} mb_custom_rule;

/* out[m]: the values ys, floats, whose derivatives are by xs alone, as the rule has them; how ys were
 * computed does not matter to derivatives. xs, of any dtype, may be ys, and out may be either. With n = 0
 * they are constants. A rule that fails, opens a scope without ending it or gives another shape or dtype is
 * the error of whoever asked for the derivative, with the line of this call. */
MB_API mb_status mb_custom_gradient_at(const char *site, const mb_tensor *ys, int m, const mb_tensor *xs,
                                       int n, mb_custom_rule rule, mb_tensor *out);
#define mb_custom_gradient(...) mb_custom_gradient_at(MB_HERE, __VA_ARGS__)

#ifdef __cplusplus
}
#endif
#endif
