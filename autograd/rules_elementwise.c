/* SPDX-License-Identifier: MIT
 * rules_elementwise.c - derivatives of the elementwise ops: one rule a row of ops.def. x, y: operand and
 * result of a unary op; a, b: operands of a binary one; v: what the derivative is applied to. */
#include "autograd/rules.h"

#define x          s->in[0]
#define a          s->in[0]
#define b          s->in[1]
#define y          s->out
#define MUL(p, q)  mb_mul(p, q)
#define RULE(NAME) static mb_tensor rule_##NAME(const mb__applied *s, int i, mb_tensor v)
#define UNARY_RULE(NAME, result)                                                                             \
    RULE(NAME)                                                                                               \
    {                                                                                                        \
        (void)s, (void)i;                                                                                    \
        return result;                                                                                       \
    }

static mb_tensor lit(const mb__applied *s, double value)
{
    return mb__const(s->ctx, (mb_dtype)s->node.dtype, value);
}

UNARY_RULE(NEG, mb_neg(v))
UNARY_RULE(RECIP, mb_neg(MUL(v, MUL(y, y))))
UNARY_RULE(SQRT, mb_div(MUL(v, lit(s, 0.5)), y))
UNARY_RULE(RSQRT, MUL(MUL(v, lit(s, -0.5)), MUL(y, MUL(y, y))))
UNARY_RULE(EXP, MUL(v, y))
UNARY_RULE(LOG, mb_div(v, x))
UNARY_RULE(EXPM1, MUL(v, mb_exp(x)))
UNARY_RULE(LOG1P, mb_div(v, mb_add(x, lit(s, 1))))
UNARY_RULE(SIN, MUL(v, mb_cos(x)))
UNARY_RULE(COS, mb_neg(MUL(v, mb_sin(x))))
UNARY_RULE(TANH, MUL(v, mb_sub(lit(s, 1), MUL(y, y))))
UNARY_RULE(SIGMOID, MUL(v, MUL(y, mb_sub(lit(s, 1), y))))
UNARY_RULE(ERF, MUL(MUL(v, lit(s, 1.1283791670955126)), mb_exp(mb_neg(MUL(x, x))))) /* 2/sqrt(pi) */
UNARY_RULE(ABS, MUL(v, mb_sign(x)))

RULE(ADD)
{
    (void)s, (void)i;
    return v;
}
RULE(SUB)
{
    (void)s;
    return i ? mb_neg(v) : v;
}
RULE(MUL)
{
    return MUL(v, i ? a : b);
}
RULE(DIV)
{
    return i ? mb_neg(mb_div(MUL(v, y), b)) : mb_div(v, b);
}
RULE(POW)
{
    mb_tensor zero = lit(s, 0), one = lit(s, 1);
    if (i == 0) { /* b a^(b-1), and 0 where b is 0, also at a = 0 */
        mb_tensor none = mb_eq(b, zero);
        mb_tensor d = MUL(b, mb_pow(a, mb_where(none, one, mb_sub(b, one))));
        return mb_where(none, zero, MUL(v, d));
    }
    mb_tensor positive = mb_lt(zero, a); /* a^b log a, and 0 at a = 0 */
    mb_tensor logarithm = mb_log(mb_where(positive, a, one));
    return mb_where(positive, MUL(v, MUL(y, logarithm)), zero);
}

/* v where operand i wins alone, half of it at a tie. A select, so that an infinite v does not become NaN. */
static mb_tensor share(const mb__applied *s, mb_tensor wins, mb_tensor v)
{
    mb_tensor tie = mb_eq(a, b);
    return mb_where(tie, MUL(v, lit(s, 0.5)), mb_where(wins, v, lit(s, 0)));
}
RULE(MAXIMUM)
{
    return share(s, i ? mb_lt(a, b) : mb_lt(b, a), v);
}
RULE(MINIMUM)
{
    return share(s, i ? mb_lt(b, a) : mb_lt(a, b), v);
}
RULE(WHERE)
{
    mb_tensor zero = lit(s, 0);
    return i == 1 ? mb_where(s->in[0], v, zero) : mb_where(s->in[0], zero, v);
}

/* Locally constant ops never get here: the sweeps stop at them. */
#define NO_RULE(NAME) UNARY_RULE(NAME, ((void)s, (void)v, mb__poison(s->ctx)))
NO_RULE(SIGN)
NO_RULE(FLOOR)
NO_RULE(NOT)
NO_RULE(AND)
NO_RULE(OR)

typedef mb_tensor (*rule)(const mb__applied *, int, mb_tensor);

static const rule rules[MB_OP_COUNT] = {
#define MB_UNARY(NAME, name, types, expr, lo, hi, cost, doc)         [MB_OP_##NAME] = rule_##NAME,
#define MB_BINARY(NAME, name, types, expr, lo, hi, flags, cost, doc) [MB_OP_##NAME] = rule_##NAME,
#include "tensor/ops.def"
    [MB_OP_WHERE] = rule_WHERE,
};

mb_tensor mb__rule_elementwise(const mb__applied *s, int i, mb_tensor v)
{
    rule r = rules[s->node.op];
    return r ? r(s, i, v) : mb__poison(s->ctx);
}
