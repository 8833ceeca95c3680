/* SPDX-License-Identifier: MIT
 * agree.h - whether two results of a random program agree. */
#ifndef MB_TESTS_AGREE_H
#define MB_TESTS_AGREE_H

#include "program.h"

/* What rounding alone makes of the distance: a sum of n equal terms in float32 may lose n / 2 roundings of
 * its own size. */
double program_limit(const program *p);
/* NMSE with a floor under the size, for values that cancel to nothing. */
double program_distance(const double *a, const double *b, int64_t n, double floor_size);
/* That floor, for floats of a dtype. */
double program_floor(mb_dtype dtype);
/* How far the reference's result i moves when every value is off by a rounding: ways of being so are tried.
 * Of halves also when nothing but the data is rounded to them: what a rule cancels, such as 1 - y^2 of a tanh
 * near 1, is all rounding then. */
double program_condition(const program *p, uint64_t data, int i, const result *want);
/* The element that is furthest off. */
int64_t program_worst(const double *got, const double *want, int64_t n);

#endif
