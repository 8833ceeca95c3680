/* SPDX-License-Identifier: MIT
 *
 * rules.h - what a derivative rule sees. Private to autograd/.
 *
 * Rules are written with the constructors users call, so their results have derivatives of their own. The
 * sweeps (sweep.c) do the rest: which operands matter, summing back over broadcasts, accumulation, checks.
 */
#ifndef MB_RULES_H
#define MB_RULES_H

#include "tensor/internal.h"

typedef struct mb__applied {
    mb_context *ctx;
    const char *site; /* of the node                                                     */
    mb__node node;    /* a copy: recording moves the tape                                */
    mb_tensor out;
    mb_tensor in[3]; /* the first three operands                                        */
} mb__applied;

mb_tensor mb__operand(const mb__applied *s, int i);

/* Elementwise ops have a diagonal Jacobian, so one function serves both modes:
 * returns d out / d in[i] times v, where v has the result's or the operand's shape. */
mb_tensor mb__rule_elementwise(const mb__applied *s, int i, mb_tensor v);

/* Every other op: the cotangent of operand i, from the result's. Poison without an error where no rule
 * exists. */
mb_tensor mb__rule_reverse(const mb__applied *s, int i, mb_tensor g);

/* Ops that are not elementwise and not linear: the result's tangent from operand 0's. */
mb_tensor mb__rule_forward(const mb__applied *s, mb_tensor t);

/* Of a maximum: v / (number of entries that are it) where x is the maximum, 0 elsewhere, and NaN in all of x
 * where the maximum is NaN. v may have an axis of directions in front. */
mb_tensor mb__max_share(const mb__applied *s, mb_tensor v);
/* 0, or NaN where the result is NaN: what an operand gets that did not win. */
mb_tensor mb__zero_or_nan(const mb__applied *s);

/* Batched tangents, [K, shape of the operand] (lift.c): the result's tangent, [K, shape of the result], from
 * that of one operand, for every op but elementwise ones and concat. Poison without an error where no rule
 * exists. */
mb_tensor mb__lift_linear(const mb__applied *s, int operand, mb_tensor t, int64_t K);
/* An elementwise op's operand with as many axes as the result: then mb__rule_elementwise holds as it is. */
mb_tensor mb__lift_aligned(const mb__applied *s, mb_tensor t);

#endif
