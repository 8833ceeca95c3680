/* SPDX-License-Identifier: MIT
 * rules_elementwise.c - derivatives of the elementwise ops: one rule a row of ops.def, and one batching rule.
 * x, y: operand and result of a unary op; a, b: operands of a binary one; v: the cotangent or tangent. */
#include <math.h>

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
UNARY_RULE(TAN, MUL(v, mb_add(MUL(y, y), lit(s, 1))))
UNARY_RULE(SINH, MUL(v, mb_cosh(x)))
UNARY_RULE(COSH, MUL(v, mb_sinh(x)))
/* By factors, which keep what x^2 would round away next to 1, and overflow later. */
#define UNIT(sign) mb_add(lit(s, 1), sign(x))
UNARY_RULE(ASIN, MUL(v, mb_rsqrt(MUL(UNIT(mb_neg), UNIT()))))
UNARY_RULE(ACOS, mb_neg(MUL(v, mb_rsqrt(MUL(UNIT(mb_neg), UNIT())))))
UNARY_RULE(ATANH, mb_div(v, MUL(UNIT(mb_neg), UNIT())))
UNARY_RULE(ACOSH, MUL(v, MUL(mb_rsqrt(mb_sub(x, lit(s, 1))), mb_rsqrt(UNIT()))))

/* Where 1 is nothing beside x^2, slopes are powers of 1 / x: next to infinity they are then 0 at every order,
 * and not 0 times infinity. Each branch gets an operand that is harmless to it. */
typedef struct far {
    mb_tensor there, outer, inner; /* whether x is far; x if it is, else 1; x if it is not, else 1 */
} far;

static far far_from_0(const mb__applied *s)
{
    mb_tensor one = lit(s, 1), there = mb_lt(lit(s, 1e10), mb_abs(x));
    return (far){there, mb_where(there, x, one), mb_where(there, one, x)};
}
RULE(ATAN) /* 1 / (1 + x^2) */
{
    (void)i;
    far f = far_from_0(s);
    mb_tensor r = mb_recip(f.outer), near = mb_recip(mb_add(MUL(f.inner, f.inner), lit(s, 1)));
    return MUL(v, mb_where(f.there, MUL(r, r), near));
}
RULE(ASINH) /* 1 / sqrt(1 + x^2) */
{
    (void)i;
    far f = far_from_0(s);
    mb_tensor near = mb_rsqrt(mb_add(MUL(f.inner, f.inner), lit(s, 1)));
    return MUL(v, mb_where(f.there, mb_recip(mb_abs(f.outer)), near));
}

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
/* The selections below depend on values that are differentiated as well, so each branch must have the right
 * derivatives of every order at its points, not only the right value. */
RULE(POW)
{
    mb_tensor zero = lit(s, 0), one = lit(s, 1), positive = mb_lt(zero, a);
    if (i == 1) { /* a^b log a, and 0 where a <= 0 */
        mb_tensor logarithm = mb_log(mb_where(positive, a, one));
        return mb_where(positive, MUL(v, MUL(y, logarithm)), zero);
    }
    /* c a^(c-1), where c is b, taken as constant where a <= 0. Where b is 0, in the form (c / a) a^c: its
     * derivatives of every order with respect to a are 0, even if 1 / a is infinite, and those with respect
     * to b are right. At a = b = 0 it is (0 / 1) 1^0. Each form gets harmless operands where the other one is
     * used: a zero cotangent times an infinite slope would be NaN.
     */
    mb_tensor c = mb_where(positive, b, mb_stop_gradient(b)), none = mb_eq(b, zero);
    mb_tensor base = mb_where(none, mb_where(mb_eq(a, zero), one, a), one);
    mb_tensor at_0 = MUL(mb_div(c, base), mb_pow(base, mb_where(none, c, one)));
    mb_tensor elsewhere = MUL(c, mb_pow(a, mb_where(none, one, mb_sub(c, one))));
    return MUL(v, mb_where(none, at_0, elsewhere));
}

/* b / (a^2 + b^2), and -a / ... By the larger of both, a constant that cancels, so that no square overflows
 * or underflows. */
RULE(ATAN2)
{
    mb_tensor one = lit(s, 1), size = mb_stop_gradient(mb_maximum(mb_abs(a), mb_abs(b)));
    mb_tensor usual = mb_and(mb_lt(lit(s, 0), size), mb_lt(size, lit(s, (double)INFINITY)));
    mb_tensor scale = mb_where(usual, size, one);
    mb_tensor p = mb_div(mb_where(usual, a, one), scale), q = mb_div(mb_where(usual, b, one), scale);
    mb_tensor slope = mb_div(mb_div(i ? mb_neg(p) : q, mb_add(MUL(p, p), MUL(q, q))), scale);
    return mb_where(usual, MUL(v, slope), mb__zero_or_nan(s));
}
RULE(HYPOT) /* a / y, 0 where y is 0 */
{
    mb_tensor none = mb_eq(y, lit(s, 0)), length = mb_where(none, lit(s, 1), y);
    return mb_where(none, lit(s, 0), mb_div(MUL(v, i ? b : a), length));
}

/* v where operand i alone is the result, half of it at a tie, NaN where the result is NaN. By selections,
 * since a product with an infinite v could be NaN. */
static mb_tensor share(const mb__applied *s, mb_tensor wins, mb_tensor v)
{
    mb_tensor tie = mb_eq(a, b), half = MUL(v, lit(s, 0.5));
    return mb_where(tie, half, mb_where(wins, v, mb__zero_or_nan(s)));
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

/* A cast between float dtypes: cotangents and tangents are converted. */
static mb_tensor cast_reverse(const mb__applied *s, int i, mb_tensor g)
{
    return mb_cast(g, (mb_dtype)mb__at(s->ctx, mb__in(s->ctx, &s->node, i))->dtype);
}
static mb_tensor cast_forward(const mb__applied *s, int i, mb_tensor t)
{
    (void)i;
    return mb_cast(t, (mb_dtype)s->node.dtype);
}
static mb_tensor cast_batch(const mb__applied *s, const mb__operand *in, int64_t K)
{
    (void)K;
    return cast_forward(s, 0, in[0].t);
}

/* With as many axes as the result, what is batched broadcasts as the operand did. */
static mb_tensor elementwise_batch(const mb__applied *s, const mb__operand *in, int64_t K)
{
    (void)K;
    mb_tensor ts[3];
    for (int i = 0; i < s->node.nin; i++)
        ts[i] = in[i].batched ? mb__batch_aligned(s, in[i].t) : in[i].t;
    const int64_t *attrs = mb__attrs(s->ctx, &s->node);
    if (s->node.op == MB_OP_MAP)
        return mb__map(s->ctx, mb__custom_of(attrs), ts);
    if (s->node.op == MB_OP_DRAW)
        return mb__draw(s->ctx, (mb_key){s->node.bind.key}, (mb_dtype)s->node.dtype, ts[0], ts[1], attrs[0]);
    return mb__elementwise(s->node.op, ts, s->node.nin);
}

/* Locally constant ops: the sweeps never ask for their rules. */
#define NO_RULE(NAME) UNARY_RULE(NAME, ((void)s, (void)v, mb__poison(s->ctx)))
NO_RULE(SIGN)
NO_RULE(FLOOR)
NO_RULE(CEIL)
NO_RULE(ROUND)
NO_RULE(TRUNC)
NO_RULE(FLOOR_DIVIDE)
NO_RULE(NOT)
NO_RULE(AND)
NO_RULE(OR)

/* The Jacobian is diagonal, so both modes have the same rule. */
#define BOTH(NAME)                                                                                           \
    {                                                                                                        \
        rule_##NAME, rule_##NAME, elementwise_batch                                                          \
    }

const mb__rule mb__rules_elementwise[MB_OP_COUNT] = {
#define MB_UNARY(NAME, name, types, expr, lo, hi, cost, doc)         [MB_OP_##NAME] = BOTH(NAME),
#define MB_BINARY(NAME, name, types, expr, lo, hi, flags, cost, doc) [MB_OP_##NAME] = BOTH(NAME),
#define MB_COMPARE(NAME, name, types, expr, doc)                     [MB_OP_##NAME] = {NULL, NULL, elementwise_batch},
#include "tensor/ops.def"
    [MB_OP_WHERE] = BOTH(WHERE),
    [MB_OP_CAST] = {cast_reverse, cast_forward, cast_batch},
    [MB_OP_DRAW] = {NULL, NULL, elementwise_batch},
    [MB_OP_MAP] = {NULL, NULL, elementwise_batch}, /* derivatives are those of a custom_gradient around it */
};
