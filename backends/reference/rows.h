/* SPDX-License-Identifier: MIT
 *
 * rows.h - ops on a whole row or matrix at once: sorting, and linear algebra by its definitions. Values are
 * doubles, where the op says that they lie.
 */
#ifndef MB_REFERENCE_ROWS_H
#define MB_REFERENCE_ROWS_H

#include "backends/plan/backend.h"

/* NaN is the largest. */
bool mb__reference_before(double a, double b);
/* The row that begins at x, whose elements are xs apart, to y. */
void mb__reference_argsort(const mb__other *o, const double *x, int64_t xs, double *y, int64_t ys);
/* Of one matrix of the batch. */
void mb__reference_cholesky(const mb__other *o, const double *a, double *l);
void mb__reference_triangular_solve(const mb__other *o, const double *a, const double *b, double *x);

#endif
