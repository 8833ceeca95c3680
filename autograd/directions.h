/* SPDX-License-Identifier: MIT
 *
 * directions.h - n tensors taken together as one vector of p elements. Private to autograd/.
 */
#ifndef MB_DIRECTIONS_H
#define MB_DIRECTIONS_H

#include "autograd/autograd.h"
#include "tensor/internal.h"

/* The gradient of sum(y) with respect to xs, and arrays for their tangents. */
typedef struct mb__bundle {
    mb_context *ctx;
    mb_dtype dtype;
    const mb_tensor *xs;
    int n;
    int64_t p;                    /* elements of all xs */
    int64_t largest;              /* elements of the largest tensor in a sweep */
    mb_tensor *gs, *tangents, *h; /* n each: the gradient; scratch of mb__bundle_hvp */
} mb__bundle;

/* Checks y and xs, one float dtype for all xs, and records the gradient. False after an error; it must be
 * closed in either case. */
bool mb__bundle_open(mb__bundle *b, const char *name, mb_tensor y, const mb_tensor *xs, int n);
void mb__bundle_close(mb__bundle *b);
/* The number of directions in a batch. */
int64_t mb__bundle_batch(const mb__bundle *b);
/* vs: [K,p] -> [K,p], or [p] -> [p] in an unbatched sweep: Hessian-vector products. */
mb_tensor mb__bundle_hvp(mb__bundle *b, mb_tensor vs);

/* The number of directions in a batch, for p directions in all and a largest tensor of `largest` elements. */
int64_t mb__batch_of(mb_dtype dtype, int64_t largest, int64_t p);
/* Rows first .. first + K - 1 of the identity matrix of p: [K,p]. */
mb_tensor mb__unit_rows(mb_context *ctx, mb_dtype dtype, int64_t first, int64_t K, int64_t p);

/* Elements of the largest float tensor recorded since the oldest x. */
int64_t mb__largest_since(mb_context *ctx, const mb_tensor *xs, int n);
/* The error of a function that takes n tensors, 1 or more. */
mb_status mb__refuse_count(mb_context *ctx, const char *name, int n);

#endif
