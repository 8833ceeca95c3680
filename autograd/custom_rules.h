/* SPDX-License-Identifier: MIT
 * custom_rules.h - rules of the user's, as the sweeps come to them. Private to autograd/. */
#ifndef MB_CUSTOM_RULES_H
#define MB_CUSTOM_RULES_H

#include "autograd/custom.h"
#include "autograd/rules.h"
#include "autograd/scan_rules.h"

/* Attributes of a CUSTOM node: the number of values, of levels of examples, the rule, its data; then, a level
 * after the other, K and a bit for each x that has examples. */
enum {
    MB_RULE_HEAD = 2,
    MB_RULE_WORDS = (sizeof(mb_custom_rule) + sizeof(int64_t) - 1) / sizeof(int64_t),
    MB_RULE_USER_WORDS = MB_CUSTOM_USER_MOST / sizeof(int64_t),
};
static inline int mb__level_words(int xs)
{
    return 1 + (xs + 63) / 64;
}
typedef struct mb__packed_rule {
    mb_custom_rule rule;
    int64_t user[MB_RULE_USER_WORDS]; /* what rule.user points to, where the node has it */
} mb__packed_rule;
void mb__custom_unpack(mb_context *ctx, uint32_t custom, mb__packed_rule *to);

/* How many operands of a CUSTOM node are values, which derivatives do not go by; the others are its xs. */
static inline int mb__custom_values(const mb_context *ctx, const mb__node *n)
{
    return (int)mb__attrs(ctx, n)[0];
}

/* The node again, for K examples, or with K < 0 as it is, with its results after it: in are its operands. 0:
 * error set. */
uint32_t mb__custom_batched(mb_context *ctx, uint32_t custom, const mb__operand *in, int64_t K);

/* values: the cotangent of each value, 0 where there is none. gradients: those of the xs, or 0. */
mb_status mb__custom_reverse(mb_context *ctx, uint32_t custom, const mb__sweeps *sweeps,
                             const uint32_t *values, uint32_t *gradients);
/* tangents: of the xs, or 0; values: those of the values. lead >= 0: of that many directions, along a first
 * axis. */
mb_status mb__custom_forward(mb_context *ctx, uint32_t custom, const mb__sweeps *sweeps,
                             const uint32_t *tangents, int64_t lead, uint32_t *values);

#endif
