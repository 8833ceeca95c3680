/* SPDX-License-Identifier: MIT
 *
 * equation.h - g(x, params) = 0, as the solvers and the derivatives of a solution see it: k tensors x as one
 * [problems, p], and products with dg/dx. Private to autograd/.
 */
#ifndef MB_EQUATION_H
#define MB_EQUATION_H

#include "autograd/implicit.h"
#include "tensor/internal.h"

enum { MB_FIXED_POINT, MB_ROOT, MB_MINIMUM }; /* g is x - f(x), the function, the gradient of the loss */

/* All that a rule has to know: it is copied onto the tape. */
typedef struct mb__equation {
    mb_map map;
    int kind, k;
    bool batched;
    bool transposed; /* of a linear system: that of the transpose of dg/dx */
    mb_solver_options linear;
    int64_t user[MB_MAP_USER_MOST / sizeof(int64_t)]; /* the map's, if it is copied */
} mb__equation;

/* Where g is asked for. */
typedef struct mb__point {
    const mb__equation *e;
    mb_context *ctx;
    const mb_tensor *xs, *params;
    int n;
} mb__point;

static inline bool mb__symmetric(const mb__equation *e)
{
    return e->kind == MB_MINIMUM;
}
const char *mb__equation_name(const mb__equation *e);

/* k tensors as one, and back into tensors like the given ones. */
mb_tensor mb__pack(const mb__equation *e, const mb_tensor *ts);
void mb__unpack(const mb__equation *e, mb_tensor v, const mb_tensor *like, mb_tensor *out);
/* g, [problems, p]. Of a minimum also the loss, [problems, 1], if that is not NULL. Poison: error set. */
mb_tensor mb__equation_at(const mb__point *at, mb_tensor *loss);
/* The product of dg/dx, or of its transpose, with v; of a point, a mb__point. */
mb_tensor mb__equation_times(void *point, mb_tensor v, bool transposed);

/* Gives the values ys, which solve the equation, as a solution: with its derivatives by the parameters. */
mb_status mb__as_solution(const mb__equation *e, const mb_tensor *ys, const mb_tensor *params, int n,
                          mb_tensor *out);

#endif
