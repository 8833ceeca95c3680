/* SPDX-License-Identifier: MIT
 *
 * rules.h - what a rule sees, and where an op's three rules stand together. Private to autograd/.
 *
 * Rules are written with the constructors that users call, so their results can be differentiated again. The
 * sweeps (reverse.c, forward.c) do the rest: they choose the operands, sum over broadcast axes, accumulate,
 * and check.
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

/* An operand of an op that is applied to K examples: one for all, or [K, shape of the operand]. */
typedef struct mb__operand {
    mb_tensor t;
    bool batched;
} mb__operand;

/* The rules of an op. NULL: there is none; needing it is an error (MB_NO_RULE). */
typedef struct mb__rule {
    /* The cotangent of operand i, given the result's, g. Of an elementwise op it has the result's shape; the
     * sweep sums it to the operand's. */
    mb_tensor (*reverse)(const mb__applied *s, int i, mb_tensor g);
    /* The result's tangent, given that of operand i, t. NULL for operands in which ops.def calls the op
     * linear: the op itself is then applied to t. Of K tangents at once, t is [K, shape of the operand], and
     * the result wants K in front; for elementwise ops t then has as many axes as that. */
    mb_tensor (*forward)(const mb__applied *s, int i, mb_tensor t);
    /* The op on K examples, of which at least one operand is batched -> [K, shape of the result]. It serves
     * vmaps; and K tangents at once of an op without a forward rule, which are the batched operand. */
    mb_tensor (*batch)(const mb__applied *s, const mb__operand *in, int64_t K);
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
/* Any operand as [K, ...]. */
mb_tensor mb__batched(mb__operand o, int64_t K);
/* The error of a shape that has no room for the examples. */
void mb__no_axis_left(mb_context *ctx, const mb__node *n);
/* t with axis `from` at place `to` of the result. */
mb_tensor mb__move_axis(mb_tensor t, int from, int to);
/* 0, or NaN where the result is NaN: the derivative with respect to an operand that a maximum or selection
 * did not take. */
mb_tensor mb__zero_or_nan(const mb__applied *s);

#endif
