/* SPDX-License-Identifier: MIT
 *
 * check.h - tests of functions and layers of one's own, with any test framework: every function here returns
 * a status, and one sentence that says what is wrong and where. criterion.h, beside it, makes assertions of
 * them.
 *
 *     static mb_tensor f(mb_context *mb, const mb_tensor *xs, const void *user)
 *     {
 *         return mb_mul(mb_sin(xs[0]), xs[1]);
 *     }
 *     ...
 *     mb_check_result r;
 *     const mb_check_case c = {.name = "f", .f = f, .n = 2, .shape = {MB_SHAPE(3, 2), MB_SHAPE(2)}};
 *     if (mb_check_gradient(mb, &c, &r) != MB_OK)
 *         puts(r.text);
 *
 * "f_test.c:9: f on cpu: second derivative, reverse over forward, by argument 1, element 0 [0]: got 0.25,
 * wanted 0.5 by reverse over reverse, allowed 2e-12". The status is MB_WRONG where a number is not what it
 * should be, and that of the error where one was made on the way; the sentence is then the error's. Checks
 * stop at the first thing that is wrong.
 *
 * What is checked runs inside of a scope of the check's, which leaves nothing behind: an error made there is
 * reported, and cleared. A context that has an error before is not touched: the check returns that error.
 *
 * Functions that are checked are called many times and must be functions: of their arguments, and of
 * constants alone. They return one float tensor; several are joined by the caller, each multiplied by a
 * number of its own.
 *
 * Stability: as in tensor.h. Cases may grow at their ends: 0 in a new field means what was before. Sentences
 * are for people and may change.
 */
#ifndef MB_CHECK_H
#define MB_CHECK_H

#include "tensor/tensor.h"
#include "optim/optim.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Arguments of a case. */
#define MB_CHECK_MOST 8

/* What a check found. All checks fill it in, if it is not NULL. The numbers are set with MB_WRONG where they
 * have a meaning, which the sentence tells. */
typedef struct mb_check_result {
    mb_status status;
    int order;       /* of the derivative that is wrong; 0: a value          */
    int argument;    /* that it is taken by, parameters after arguments; -1  */
    int64_t element; /* in row-major order; -1                               */
    double got, wanted, allowed;
    char text[600]; /* "" with MB_OK */
} mb_check_result;

/* ------------------------------------------------------------------------------------- values -- */

/* How near: |got - want| <= atol + rtol |want|. Infinities must be equal. Of both 0: 256 roundings of the
 * tensor's dtype relative to the element and 16 relative to the largest finite |want|, which is what some
 * hundred additions leave, and what is left where they cancel; exact for int32 and bool. */
typedef struct mb_closeness {
    double rtol, atol;
    bool nan_equal; /* a NaN is close to a NaN; else it is close to nothing */
} mb_closeness;

/* Of one shape and dtype; they may be of two contexts. Flushes. The sentence has the element that is
 * furthest off, in units of what is allowed. */
MB_API mb_status mb_close_to_at(const char *site, mb_tensor got, mb_tensor want, mb_closeness how,
                                mb_check_result *result);
#define mb_close_to(...) mb_close_to_at(MB_HERE, __VA_ARGS__)
/* want: `count` numbers in row-major order; got has as many elements, of any shape and dtype. */
MB_API mb_status mb_close_to_values_at(const char *site, mb_tensor got, const double *want, int64_t count,
                                       mb_closeness how, mb_check_result *result);
#define mb_close_to_values(...) mb_close_to_values_at(MB_HERE, __VA_ARGS__)

/* ------------------------------------------------------------------------------ derivatives -- */

typedef struct mb_check_case {
    const char *name;
    mb_tensor (*f)(mb_context *ctx, const mb_tensor *xs, const void *user);
    const void *user;
    int n; /* arguments, at most MB_CHECK_MOST */
    mb_shape shape[MB_CHECK_MOST];
    double low, high; /* numbers are drawn from [low, high); both 0: [-1, 1) */
    int orders;       /* highest order, 1 to 3. 0: 3; mb_check_vmap: 2, and -1 for values alone */
    double looser;    /* factor on what is allowed, for steep or ill-conditioned functions; 0: 1 */
    /* Of mb_check_vmap: what the arguments are. MB_FLOAT32, which is 0, stands for MB_FLOAT64; int32 numbers
     * are drawn from low to high as well, bools are either. Arguments of mb_check_gradient are float64. */
    mb_dtype dtype[MB_CHECK_MOST];
    int mode_orders; /* up to this order modes are compared; 0: as `orders`. Where kernels take long to
                        compile */
} mb_check_case;

/* Derivatives of f, in float64. The numbers of a case are the same in every run.
 *
 * With random directions w_k in [-1, 1), let
 *     p0(x) = <w0, f(x)>,  p1(x) = <w1, grad p0(x)>,  p2(x) = <w2, grad p1(x)>.
 * Each gradient, reverse mode over reverse mode, is compared with differences of the analytic function one
 * order below, so that no difference is ever taken of a difference. Of few elements (24) it is done element
 * by element; else along three random directions, one of them with entries +-1 alone, and where one of those
 * is wrong the element is looked for by halving the direction.
 *
 * Difference quotients. The central one, D(h) = (p(x + h) - p(x - h)) / 2h, differs from the derivative by
 * h^2 p'''/6 + O(h^4). One step of Richardson's extrapolation, (4 D(h) - D(2h)) / 3, cancels the first term
 * and leaves h^4 |p^(5)| / 30. p itself is known to a few roundings e of the terms that it is summed from, S
 * in all: that makes e S 3 / 2h of rounding. The two are alike where h^5 is about 45 e S / |p^(5)|, 1.6e-3
 * for e = 2^-52 and numbers of one size; h = 1e-3 is used. What is left is then 3e-14 |p^(5)| and
 * 3.3e-13 S, times the number of roundings. Allowed are
 *     1e-9 max(S, 1) + 1e-7 (|derivative| + largest term of its sum)     (1e-6 at order 3)
 * and that times `looser`, with the largest |p| that was met for S: the first is room for some 3000
 * roundings, the second for a fifth derivative that is 3e6 times the first. Where the function is steeper, or
 * its rounding worse (its condition is the factor between a change of x by one rounding and that of p),
 * `looser` is for it, or a smaller range. At a mismatch the quotient is taken with h / 16 and h / 256 as
 * well, which 16 and 256 times the rounding is allowed for, and it is enough if one of them agrees: steep
 * functions, and kinks and jumps that are nearer than 2 h, as in every layer with a relu, would be taken for
 * mistakes otherwise. Where none agrees and they differ from each other, the sentence says so: it may be a
 * kink that is met.
 *
 * Modes. Each of these is compared with reverse over reverse, from the same values and without a step, so
 * that only roundings are between them: 2e-12 (orders 1 and 2) and 2e-11 (order 3) of the largest element is
 * allowed, times `looser`. Forward (J v against J' u), forward over reverse, reverse over forward, forward
 * over forward, mb_hvp, mb_hvp_reverse; of order 3 forward once, at each of the three places, and thrice.
 * mb_jvp_batch and mb_hvp_batch of two directions are compared with one at a time.
 *
 * An argument without elements is right with a gradient without elements; with several arguments the others'
 * are checked beside it. Takes 4 evaluations an element, or 12; a flush each. */
MB_API mb_status mb_check_gradient_at(const char *site, mb_context *ctx, const mb_check_case *c,
                                      mb_check_result *result);
#define mb_check_gradient(...) mb_check_gradient_at(MB_HERE, __VA_ARGS__)

/* f inside of a vmap of 3 examples against f called for one after the other: values, and derivatives along
 * random directions, with every set of arguments batched, along axes that change. Both do the same sums of
 * the same numbers, perhaps in another order: 1e-12 of the largest element is allowed. */
MB_API mb_status mb_check_vmap_at(const char *site, mb_context *ctx, const mb_check_case *c,
                                  mb_check_result *result);
#define mb_check_vmap(...) mb_check_vmap_at(MB_HERE, __VA_ARGS__)

/* ------------------------------------------------------------------------------------ layers -- */

/* A size that the check chooses: the k-th, from 1 on, the same wherever it stands. MB_SHAPE(MB_FREE(1), 8) */
#define MB_FREE(k) (-(k))

/* A layer: a struct, made once with its parameters, and a function of tensors. */
typedef struct mb_layer_case {
    const char *name;
    /* Fills in `layer`, layer_bytes of zeros, and makes its parameters in p, whose dtype they have. NULL: it
     * has none. */
    void (*make)(mb_params *p, void *layer, const void *user);
    size_t layer_bytes;
    mb_tensor (*apply)(mb_context *ctx, const void *layer, const mb_tensor *xs, const void *user);
    const void *user;
    int n;                         /* arguments */
    mb_shape shape[MB_CHECK_MOST]; /* with free sizes where any size will do */
    mb_dtype dtype[MB_CHECK_MOST]; /* MB_FLOAT32: that of the layer, float32 or float64 */
    int64_t below[MB_CHECK_MOST];  /* int32 arguments: whole numbers from 0 to below this; 0: 2 */
    double low, high;              /* of floats; both 0: [-1, 1) */
    int orders;                    /* of derivatives that are compared with differences; 0: 3 */
    double looser;                 /* as in mb_check_case */
    unsigned broadcasts;           /* bit i: argument i may have 1 in place of each free size */
    bool vmap;                     /* also inside of a vmap */
    const char *backends;          /* "reference,cpu"; NULL: every one that opens here */
    const mb_allocator *allocator; /* of the contexts that are opened; NULL: malloc */
} mb_layer_case;

/* Opens contexts of its own, on the reference backend and on each of `backends`, and closes them.
 *
 * Parameters get the initial values that the layer gives them, plus a number from [-0.2, 0.2), so that none
 * is left at 0. All numbers can be held by float32, and are the same everywhere. y is the value, and the
 * derivatives compared are the gradient of <w, y> and, with orders > 1, the second along a random direction,
 * by all float arguments and trainable parameters. In turn:
 *
 *   - on each backend that has float64: mb_check_gradient, by arguments and parameters;
 *   - free sizes 2, 3, 4, ...; odd ones: 5, 7, 3, ...; all 1; and each of them 0 while the others are small:
 *     on each backend, in float32 and float64, value and derivatives against the reference backend's in
 *     float64. Allowed are 256 roundings of the dtype relative to the largest element, and 32 times as much
 * as the reference's own result changes when every argument and parameter is changed by one such rounding
 *     (the largest of three random changes): its condition, measured;
 *   - the same again in the same context: the same bits;
 *   - with new data, in the same context, which replays the plan: the same bits as in a context where they
 *     are the first data. A layer that keeps something of its first run is found here;
 *   - each argument of `broadcasts` with sizes of 1, against the same argument repeated by mb_broadcast;
 *   - with `vmap`, mb_check_vmap by its arguments, in float64 on the reference backend.
 *
 * A backend that does not open because there is no device is passed over, unless `backends` names it. */
MB_API mb_status mb_check_layer_at(const char *site, const mb_layer_case *c, mb_check_result *result);
#define mb_check_layer(...) mb_check_layer_at(MB_HERE, __VA_ARGS__)

#ifdef __cplusplus
}
#endif
#endif
