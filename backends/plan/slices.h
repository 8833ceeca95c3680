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

/* ---- slice_kinds.c ---- */

/* What a node is in a loop over slices: computed before it; added up by it; computed after it, as it is of
 * the whole batch, or depends on what is; or computed in each part, to the same value: it depends on
 * placeholders of a scan that is in the loop. Else the axis along which it is cut. */
enum { MB_BEFORE = -1, MB_ADDED = MB_CUT_ADDED, MB_AFTER = -3, MB_INSIDE = -4 };

typedef struct mb__kinds {
    const mb__graph *g;
    int64_t parts;
    int8_t *kind;           /* of each node */
    int8_t *held, *learned; /* as many; of placeholders, and while it is found out */
    bool *live;             /* what outputs are computed of */
} mb__kinds;

/* Sets live. */
void mb__kinds_live(mb__kinds *s);

/* Sets the kinds of live nodes for the case that node `seed` is cut along its first axis. Returns the part of
 * all that is computed which is cut. */
double mb__kinds_find(mb__kinds *s, int32_t seed);
/* Operands that a node's value depends on. */
int mb__slice_operands(const mb__gnode *n);

/* A scan's carries, slices and stacks: what it has outside, placeholders of the carries, then the slices; and
 * what carries become, then what is stacked. */
typedef struct mb__scan_ports {
    int carries, slices, stacks;
    const int32_t *outside, *inside, *next;
} mb__scan_ports;

mb__scan_ports mb__ports_of(const mb__graph *g, int32_t scan);

/* ---- slices.c ---- */

/* Puts a scan over parts of the batch in the place of all that can be computed part by part: an axis of an
 * input, found so that as much as possible can, and more than half. The graph is as the tape has it, before
 * mb__nest. Of as few parts as make `times` parts or more, INT64_MAX: as many as there can be, however
 * little; *parts: how many; 0: there was nothing to cut, and the graph is as it was. */
mb_status mb__slice(mb__graph *g, int64_t times, int64_t *parts);

#endif
