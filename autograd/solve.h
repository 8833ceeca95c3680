/* SPDX-License-Identifier: MIT
 * solve.h - linear systems by products with their matrix, as loops on the tape. Private to autograd/. */
#ifndef MB_SOLVE_H
#define MB_SOLVE_H

#include "autograd/implicit.h"
#include "tensor/internal.h"

/* A z, or A^T z, recorded. z: [problems, p], each problem with a matrix of its own. */
typedef struct mb__matrix {
    mb_tensor (*times)(void *user, mb_tensor z, bool transposed);
    void *user;
    bool symmetric;
} mb__matrix;

typedef struct mb__solved {
    mb_tensor z;         /* [problems, p] */
    mb_tensor converged; /* [problems, 1] bool */
} mb__solved;

/* z with A z = b, b: [problems, p], as near as `tolerance` says, [problems, 1] or 0-d: |b - A z| / |b|. Of CG
 * that meets a direction of no positive curvature it is what was found until then. options: none is 0. */
mb__solved mb__solve(const mb__matrix *a, mb_tensor b, mb_tensor tolerance, const mb_solver_options *options);

/* What loops over rows [problems, p] are made of. */
mb_tensor mb__row_dot(mb_tensor a, mb_tensor b);    /* -> [problems, 1] */
mb_tensor mb__row_norm(mb_tensor a);                /* -> [problems, 1] */
mb_tensor mb__number(mb_tensor like, double value); /* 0-d of its dtype, bound at each run */
mb_tensor mb__all_of(mb_tensor done);               /* 0-d */
/* a / b where b is not 0, 0 elsewhere and where a row is not active. */
mb_tensor mb__ratio(mb_tensor active, mb_tensor a, mb_tensor b);

#endif
