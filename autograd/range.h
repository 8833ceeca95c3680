/* SPDX-License-Identifier: MIT
 *
 * range.h - the part of the tape that a sweep looks at, and what both sweeps ask of its nodes. Private to
 * autograd/.
 */
#ifndef MB_RANGE_H
#define MB_RANGE_H

#include "autograd/rules.h"
#include "autograd/sweep.h"

/* Scratch over ids from `low` on, which is the oldest x or before it: what is older depends on none. */
typedef struct mb__range {
    uint32_t low, high;
    uint32_t count;   /* length of the arrays */
    uint32_t *grad;   /* id of the accumulated cotangent or tangent; 0: none */
    uint8_t *depends; /* on an x */
    uint8_t *needed;  /* by a y, in forward sweeps; by a copy of a checkpoint */
    int64_t lead;     /* of a batched forward sweep: K, the size of the first axis of tangents; -1: none */
    const mb__sweeps *sweeps;
} mb__range;

/* Extends the arrays to id `last`; new entries are 0. */
bool mb__range_extend(mb_context *ctx, mb__range *r, uint32_t last);
/* From the oldest x to the newest y. */
void mb__range_ends(mb__range *r, const uint32_t *ys, int m, const uint32_t *xs, int n);
bool mb__range_open(mb_context *ctx, mb__range *r, uint32_t low, uint32_t high);
/* Whether derivatives go by an operand. A barrier's value is that of operand 0; operand 1 is only waited for;
 * operand 2, where there is one, is the node that computes the value anew. Of a substitute, derivatives go by
 * the last, too. */
bool mb__active(const mb_context *ctx, const mb__node *n, int i);
/* Whether the node can have a derivative with respect to any operand. */
bool mb__passes(const mb__node *n);
/* Marks the nodes of [from, to] that depend on a marked one. */
void mb__range_spread(mb_context *ctx, mb__range *r, uint32_t from, uint32_t to);
/* Marks what depends on one of the xs. */
void mb__range_mark(mb_context *ctx, mb__range *r, const uint32_t *xs, int nx);
/* The node as rules see it. */
mb__applied mb__applied_at(mb_context *ctx, uint32_t id);
/* Reports that the op has none. */
mb_status mb__no_rule(const mb__applied *s, int i, const char *mode);
/* Checks float operands, resolves variables; ids may be NULL. NULL: error set, or one of them was poison. */
mb_context *mb__enter_floats(const char *name, const mb_tensor *ts, int n, uint32_t *ids);
bool mb__same_shape(const mb__node *a, const mb__node *b);
/* The node's shape; with lead >= 0, after an axis of that size. */
mb_shape mb__shape_with(const mb__node *n, int64_t lead);
/* Zeros of the node's shape; with lead >= 0, after an axis of that size. */
mb_tensor mb__zeros_like(mb_context *ctx, uint32_t id, int64_t lead);
/* The cotangent or tangent of any node; 0: none. */
uint32_t mb__range_slot(const mb__range *r, uint32_t id);
/* A node whose results are the nodes after it: a scan, a custom rule. */
bool mb__has_followers(int op);

#endif
