/* SPDX-License-Identifier: MIT
 * slices.h - graphs that run part by part along an axis of what goes in. */
#ifndef MB_SLICES_H
#define MB_SLICES_H

#include "backends/plan/graph.h"

/* What is no axis: the tensor is whole in each part; or the parts' results are to be added up. */
enum { MB_CUT_NONE = -1, MB_CUT_ADDED = -2 };

/* ---- cut.c ---- */

/* The axis along which the result of n is cut if its operand j is cut along k into `parts`: each part is then
 * n of the parts of its operands. MB_CUT_NONE: there is none. */
int mb__cut_of(const mb__graph *g, const mb__gnode *n, int j, int k, int64_t parts);
/* Given that operand `from` is cut along k, and the result along `to` (or MB_CUT_ADDED), the axis along which
 * operand j has to be cut; MB_CUT_NONE: each part reads the whole of it. */
int mb__cut_operand(const mb__graph *g, const mb__gnode *n, int j, int from, int k, int to);

/* The axis of `to` that a reshape makes of axis k of x, which is cut; MB_CUT_NONE. */
int mb__cut_reshaped(const mb__gnode *x, const mb__gnode *to, int k, int64_t parts);

/* ---- slices.c ---- */

/* Puts a scan over parts of the batch in the place of all that can be computed part by part: an axis of an
 * input, found so that as much as possible can, and more than half. The graph is as the tape has it, before
 * mb__nest. Of as few parts as make `times` parts or more, INT64_MAX: as many as there can be, however
 * little; *parts: how many; 0: there was nothing to cut, and the graph is as it was. */
mb_status mb__slice(mb__graph *g, int64_t times, int64_t *parts);

#endif
