/* SPDX-License-Identifier: MIT
 *
 * rules.h - the derivative rules of an op, and their argument. Private to autograd/.
 *
 * Rules are written with the constructors that users call, so their results can be differentiated again. The
 * sweeps (sweep.c) do the rest: they choose the operands, sum over broadcast axes, accumulate, and check.
 */
#ifndef MB_RULES_H
#define MB_RULES_H

#include "tensor/internal.h"

/* A node, as rules see it. */
typedef struct mb__applied {
    mb_context *ctx;
    const char *site; /* of the node                       */
    mb__node node;    /* a copy: recording moves the tape  */
    mb_tensor out;
    mb_tensor in[3]; /* the first three operands           */
} mb__applied;

/* The rules of an op. NULL: there is none; needing it is an error (MB_NO_RULE). */
typedef struct mb__rule {
    /* The cotangent of operand i, given the result's, g. Of an elementwise op it has the result's shape; the
     * sweep sums it to the operand's. */
    mb_tensor (*reverse)(const mb__applied *s, int i, mb_tensor g);
    /* The result's tangent, given that of operand i, t. NULL for operands in which ops.def calls the op
     * linear: the op itself is then applied to t. */
    mb_tensor (*forward)(const mb__applied *s, int i, mb_tensor t);
    /* The same for K tangents at once: t [K, shape of the operand] -> [K, shape of the result]. */
    mb_tensor (*batch)(const mb__applied *s, int i, mb_tensor t, int64_t K);
} mb__rule;

const mb__rule *mb__rule_of(int op);

/* Indexed by op; in rules_elementwise.c, rules_matrix.c and rules_structure.c. */
extern const mb__rule mb__rules_elementwise[MB_OP_COUNT], mb__rules_matrix[MB_OP_COUNT],
    mb__rules_structure[MB_OP_COUNT];

/* [K, shape of the node] */
mb_shape mb__batched_shape(const mb__node *n, int64_t K);
/* t: [K, shape of an operand]. Inserts axes of size 1 after the first one, up to the result's rank, so that t
 * broadcasts as the operand did. */
mb_tensor mb__batch_aligned(const mb__applied *s, mb_tensor t);
/* 0, or NaN where the result is NaN: the derivative with respect to an operand that a maximum or selection
 * did not take. */
mb_tensor mb__zero_or_nan(const mb__applied *s);

#endif
