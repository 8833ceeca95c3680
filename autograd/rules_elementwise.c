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
/* A select decides by a value that is itself differentiated, so its branches must agree with the function
 * around the point, not only at it: in every derivative that is not said to be 0. */
RULE(POW)
{
    mb_tensor zero = lit(s, 0), one = lit(s, 1), positive = mb_lt_at(AT, zero, a);
    if (i == 1) { /* a^b log a, and 0 where a <= 0 */
        mb_tensor logarithm = mb_log_at(AT, mb_where_at(AT, positive, a, one));
        return mb_where_at(AT, positive, MUL(v, MUL(y, logarithm)), zero);
    }
    /* c a^(c-1), where c is b, a constant where a <= 0; where b is 0, as (c / a) a^c: that is 0 to every
     * order by a, even if 1 / a is infinite, and has the derivatives by b. At a = b = 0 it is (0 / 1) 1^0.
     * Neither formula sees the operands of the other: a zero cotangent into an infinite slope would be NaN.
     */
    mb_tensor c = mb_where_at(AT, positive, b, mb_stop_gradient_at(AT, b)), none = mb_eq_at(AT, b, zero);
    mb_tensor base = mb_where_at(AT, none, mb_where_at(AT, mb_eq_at(AT, a, zero), one, a), one);
    mb_tensor at_0 = MUL(mb_div_at(AT, c, base), mb_pow_at(AT, base, mb_where_at(AT, none, c, one)));
    mb_tensor elsewhere = MUL(c, mb_pow_at(AT, a, mb_where_at(AT, none, one, mb_sub_at(AT, c, one))));
    return MUL(v, mb_where_at(AT, none, at_0, elsewhere));
}

/* v where operand i wins alone, half of it at a tie, NaN where the result is. A select, so that an infinite v
 * does not become NaN. */
static mb_tensor share(const mb__site *s, mb_tensor wins, mb_tensor v)
{
    mb_tensor tie = mb_eq_at(AT, a, b), half = MUL(v, lit(s, 0.5));
    return mb_where_at(AT, tie, half, mb_where_at(AT, wins, v, mb__zero_or_nan(s)));
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
