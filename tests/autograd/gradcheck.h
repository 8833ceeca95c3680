/* SPDX-License-Identifier: MIT
 *
 * gradcheck.h - derivatives of a function against differences, each order against the analytic one below it.
 *
 * With random directions w_k of the shape of what they project, let
 *     p0(x) = <w0, f(x)>,  p1(x) = <w1, grad p0(x)>,  p2(x) = <w2, grad p1(x)>.
 * grad p0, grad p1 and grad p2 are compared with the 4-point difference quotient of p0, p1 and p2 at h =
 * 1e-3, by element where there are few and along random directions else. Beside that, without any step size,
 * at 1e-12: <u, J v> = <J' u, v>;  H v forward over reverse = H v reverse over reverse;  <H u, v> = <u, H v>;
 * and J and H times u and v in one batch = one at a time.
 */
#ifndef MB_TESTS_GRADCHECK_H
#define MB_TESTS_GRADCHECK_H

#include "support.h"

#define GRADCHECK_MOST 4

typedef struct gradcase {
    const char *name;
    mb_tensor (*f)(mb_context *ctx, const mb_tensor *xs, const void *user);
    const void *user;
    int n; /* operands that are differentiated */
    mb_shape shape[GRADCHECK_MOST];
    double low, high;
    int orders;    /* 0: 3; 1 or 2 to stop earlier */
    double looser; /* 0: 1; factor on the tolerances, for steep functions */
} gradcase;

/* On a float64 context. */
void gradcheck(mb_context *ctx, const gradcase *c);
/* On the reference and on the cpu backend. */
void gradcheck_both(const gradcase *cases, int n);

#endif
