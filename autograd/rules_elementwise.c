/* SPDX-License-Identifier: MIT
 * rules_elementwise.c - derivatives of the elementwise ops: one rule a row of ops.def. x, y: operand and
 * result of a unary op; a, b: operands of a binary one; v: what the derivative is applied to. */
#include "autograd/rules.h"

#define AT         s->where
#define x          s->in[0]
#define a          s->in[0]
#define b          s->in[1]
#define y          s->out
#define MUL(p, q)  mb_mul_at(AT, p, q)
#define RULE(NAME) static mb_tensor rule_##NAME(const mb__site *s, int i, mb_tensor v)
#define UNARY_RULE(NAME, result)                                                                             \
    RULE(NAME)                                                                                               \
    {                                                                                                        \
        (void)i;                                                                                             \
        return result;                                                                                       \
    }

static mb_tensor lit(const mb__site *s, double value)
{
    return mb__const(s->ctx, s->where, (mb_dtype)s->node.dtype, value);
}

UNARY_RULE(NEG, mb_neg_at(AT, v))
UNARY_RULE(RECIP, mb_neg_at(AT, MUL(v, MUL(y, y))))
UNARY_RULE(SQRT, mb_div_at(AT, MUL(v, lit(s, 0.5)), y))
UNARY_RULE(RSQRT, MUL(MUL(v, lit(s, -0.5)), MUL(y, MUL(y, y))))
UNARY_RULE(EXP, MUL(v, y))
UNARY_RULE(LOG, mb_div_at(AT, v, x))
UNARY_RULE(EXPM1, MUL(v, mb_exp_at(AT, x)))
UNARY_RULE(LOG1P, mb_div_at(AT, v, mb_add_at(AT, x, lit(s, 1))))
UNARY_RULE(SIN, MUL(v, mb_cos_at(AT, x)))
UNARY_RULE(COS, mb_neg_at(AT, MUL(v, mb_sin_at(AT, x))))
UNARY_RULE(TANH, MUL(v, mb_sub_at(AT, lit(s, 1), MUL(y, y))))
UNARY_RULE(SIGMOID, MUL(v, MUL(y, mb_sub_at(AT, lit(s, 1), y))))
UNARY_RULE(ERF,
           MUL(MUL(v, lit(s, 1.1283791670955126)), mb_exp_at(AT, mb_neg_at(AT, MUL(x, x))))) /* 2/sqrt(pi) */
UNARY_RULE(ABS, MUL(v, mb_sign_at(AT, x)))

RULE(ADD)
{
    (void)s, (void)i;
    return v;
}
RULE(SUB)
{
    return i ? mb_neg_at(AT, v) : v;
}
RULE(MUL)
{
    return MUL(v, i ? a : b);
}
RULE(DIV)
{
    return i ? mb_neg_at(AT, mb_div_at(AT, MUL(v, y), b)) : mb_div_at(AT, v, b);
}
RULE(POW)
{
    mb_tensor zero = lit(s, 0), one = lit(s, 1);
    if (i == 0) { /* b a^(b-1), and 0 where b is 0, also at a = 0 */
        mb_tensor none = mb_eq_at(AT, b, zero);
        mb_tensor d = MUL(b, mb_pow_at(AT, a, mb_where_at(AT, none, one, mb_sub_at(AT, b, one))));
        return mb_where_at(AT, none, zero, MUL(v, d));
    }
    mb_tensor positive = mb_lt_at(AT, zero, a); /* a^b log a, and 0 at a = 0 */
    mb_tensor logarithm = mb_log_at(AT, mb_where_at(AT, positive, a, one));
    return mb_where_at(AT, positive, MUL(v, MUL(y, logarithm)), zero);
}

/* v where operand i wins alone, half of it at a tie. A select, so that an infinite v does not become NaN. */
static mb_tensor share(const mb__site *s, mb_tensor wins, mb_tensor v)
{
    mb_tensor tie = mb_eq_at(AT, a, b);
    return mb_where_at(AT, tie, MUL(v, lit(s, 0.5)), mb_where_at(AT, wins, v, lit(s, 0)));
}
RULE(MAXIMUM)
{
    return share(s, i ? mb_lt_at(AT, a, b) : mb_lt_at(AT, b, a), v);
}
RULE(MINIMUM)
{
    return share(s, i ? mb_lt_at(AT, b, a) : mb_lt_at(AT, a, b), v);
}
RULE(WHERE)
{
    mb_tensor zero = lit(s, 0);
    return i == 1 ? mb_where_at(AT, s->in[0], v, zero) : mb_where_at(AT, s->in[0], zero, v);
}

/* Locally constant ops never get here: the sweeps stop at them. */
#define NO_RULE(NAME) UNARY_RULE(NAME, ((void)s, (void)v, mb__poison(s->ctx)))
NO_RULE(SIGN)
NO_RULE(FLOOR)
NO_RULE(NOT)
NO_RULE(AND)
NO_RULE(OR)

typedef mb_tensor (*rule)(const mb__site *, int, mb_tensor);

static const rule rules[MB_OP_COUNT] = {
#define MB_UNARY(NAME, name, types, expr, lo, hi, doc)  [MB_OP_##NAME] = rule_##NAME,
#define MB_BINARY(NAME, name, types, expr, lo, hi, doc) [MB_OP_##NAME] = rule_##NAME,
#include "tensor/ops.def"
    [MB_OP_WHERE] = rule_WHERE,
};

mb_tensor mb__rule_elementwise(const mb__site *s, int i, mb_tensor v)
{
    rule r = rules[s->node.op];
    return r ? r(s, i, v) : mb__poison(s->ctx);
}
