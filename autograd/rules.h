/* SPDX-License-Identifier: MIT
 *
 * rules.h - what a derivative rule sees, and where an op's three rules stand together. Private to autograd/.
 *
 * Rules are written with the constructors users call, so their results have derivatives of their own. The
 * sweeps (sweep.c) do the rest: which operands matter, summing back over broadcasts, accumulation, checks.
 */
#ifndef MB_RULES_H
#define MB_RULES_H

#include "tensor/internal.h"

/* An op as it was applied. */
typedef struct mb__applied {
    mb_context *ctx;
    const char *site; /* of the node                       */
    mb__node node;    /* a copy: recording moves the tape  */
    mb_tensor out;
    mb_tensor in[3]; /* the first three operands           */
} mb__applied;

/* The rules of an op; NULL: there is none, which is an error where it is wanted (MB_NO_RULE). */
typedef struct mb__rule {
    /* The cotangent of operand i from the result's, g. Elementwise: before it is summed back to the operand's
     * shape. */
    mb_tensor (*reverse)(const mb__applied *s, int i, mb_tensor g);
    /* The result's tangent from that of operand i, t. NULL for ops that ops.def calls linear in the operand:
     * the op itself on the tangent. */
    mb_tensor (*forward)(const mb__applied *s, int i, mb_tensor t);
    /* The same for K tangents at once: t [K, shape of the operand] -> [K, shape of the result]. */
    mb_tensor (*batch)(const mb__applied *s, int i, mb_tensor t, int64_t K);
} mb__rule;

const mb__rule *mb__rule_of(int op);

/* By op: rules_elementwise.c, rules_matrix.c and rules_structure.c. */
extern const mb__rule mb__rules_elementwise[MB_OP_COUNT], mb__rules_matrix[MB_OP_COUNT],
    mb__rules_structure[MB_OP_COUNT];

/* [K, shape of the node] */
mb_shape mb__batched_shape(const mb__node *n, int64_t K);
/* t: [K, ...] of an operand with fewer axes than the result, with axes of size 1 after the first, so that it
 * broadcasts as the operand did. */
mb_tensor mb__batch_aligned(const mb__applied *s, mb_tensor t);
/* 0, or NaN where the result is NaN: what an operand gets that did not win. */
mb_tensor mb__zero_or_nan(const mb__applied *s);

#endif
