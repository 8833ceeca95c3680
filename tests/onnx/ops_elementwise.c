/* SPDX-License-Identifier: MIT
 *
 * ops_elementwise.c - functions of floats, comparisons and logic. */
#include "compose.h"

#include <math.h>
#include <string.h>

/* ---- of one tensor ---- */

#define UNARY(name, expression)                                                                              \
    static void name##_op(call *c)                                                                           \
    {                                                                                                        \
        mb_tensor x = input(c, 0);                                                                           \
        if (x.ctx)                                                                                           \
            give(c, 0, expression);                                                                          \
    }

UNARY(abs, is_float(x) ? mb_abs(x) : mb_maximum(x, mb_neg(x)))
UNARY(acos, mb_acos(x))
UNARY(acosh, mb_acosh(x))
UNARY(asin, mb_asin(x))
UNARY(asinh, mb_asinh(x))
UNARY(atan, mb_atan(x))
UNARY(atanh, mb_atanh(x))
UNARY(ceil, mb_ceil(x))
UNARY(cos, mb_cos(x))
UNARY(cosh, mb_cosh(x))
UNARY(erf, mb_erf(x))
UNARY(exp, mb_exp(x))
UNARY(floor, mb_floor(x))
UNARY(identity_tensor, mb_alias(x))
UNARY(is_nan, mb_isnan(x))
UNARY(log, mb_log(x))
UNARY(neg, mb_neg(x))
UNARY(not, mb_not(x))
UNARY(reciprocal, mb_recip(x))
UNARY(relu, is_float(x) ? mb_relu(x) : mb_maximum(x, 0.0))
UNARY(round, mb_round(x))
UNARY(sigmoid, mb_sigmoid(x))
UNARY(sign, mb_sign(x))
UNARY(sin, mb_sin(x))
UNARY(sinh, mb_sinh(x))
UNARY(softplus, mb_softplus(x))
UNARY(softsign, mb_div(x, mb_add(mb_abs(x), 1.0)))
UNARY(sqrt, mb_sqrt(x))
UNARY(tan, mb_tan(x))
UNARY(tanh, mb_tanh(x))
UNARY(hard_swish, mb_mul(x, mb_minimum(mb_maximum(mb_add(mb_mul(x, 1.0 / 6), 0.5), 0.0), 1.0)))

static void identity_op(call *c)
{
    if (has(c, 0) && c->in[0].kind == VALUE_TENSOR)
        identity_tensor_op(c);
    else
        give_value(c, 0, c->n_in > 0 ? c->in[0] : (value){0});
}

static void is_inf_op(call *c)
{
    mb_tensor x = input(c, 0);
    if (!x.ctx)
        return;
    mb_tensor up = mb_eq(x, literal_like(x, INFINITY)), down = mb_eq(x, literal_like(x, -INFINITY));
    mb_tensor none = mb_full(c->mb, MB_BOOL, mb_shape_of(x), 0);
    give(c, 0,
         mb_or(attribute_int(c, "detect_positive", 1) ? up : none,
               attribute_int(c, "detect_negative", 1) ? down : none));
}

/* ---- with numbers as attributes ---- */

static mb_tensor elu_of(mb_tensor x, double alpha)
{
    return mb_add(mb_maximum(x, 0.0), mb_mul(mb_expm1(mb_minimum(x, 0.0)), alpha));
}

static void elu_op(call *c)
{
    give(c, 0, elu_of(input(c, 0), attribute_float(c, "alpha", 1)));
}

/* max(0, x) + min(0, alpha (exp(x / alpha) - 1)) */
static void celu_op(call *c)
{
    double alpha = attribute_float(c, "alpha", 1);
    mb_tensor x = input(c, 0), e = mb_expm1(mb_div(mb_minimum(x, 0.0), alpha));
    give(c, 0, mb_add(mb_maximum(x, 0.0), mb_mul(e, alpha)));
}

static void selu_op(call *c)
{
    double alpha = attribute_float(c, "alpha", 1.67326319217681884765625);
    double gamma = attribute_float(c, "gamma", 1.05070102214813232421875);
    give(c, 0, mb_mul(elu_of(input(c, 0), alpha), gamma));
}

static void leaky_relu_op(call *c)
{
    mb_tensor x = input(c, 0), zero = literal_like(x, 0);
    give(c, 0, mb_where(mb_lt(x, zero), mb_mul(x, attribute_float(c, "alpha", 0.01)), x));
}

static void thresholded_relu_op(call *c)
{
    mb_tensor x = input(c, 0);
    mb_tensor above = mb_lt(literal_like(x, attribute_float(c, "alpha", 1)), x);
    give(c, 0, mb_where(above, x, literal_like(x, 0)));
}

static void hard_sigmoid_op(call *c)
{
    mb_tensor line = mb_mul(input(c, 0), attribute_float(c, "alpha", 0.2));
    line = mb_add(line, attribute_float(c, "beta", 0.5));
    give(c, 0, mb_minimum(mb_maximum(line, 0.0), 1.0));
}

/* x - bias above lambd, x + bias below -lambd, 0 between. */
static void shrink_op(call *c)
{
    double lambd = attribute_float(c, "lambd", 0.5), bias = attribute_float(c, "bias", 0);
    mb_tensor x = input(c, 0), zero = literal_like(x, 0);
    mb_tensor below = mb_where(mb_lt(x, literal_like(x, -lambd)), mb_add(x, bias), zero);
    give(c, 0, mb_where(mb_lt(literal_like(x, lambd), x), mb_sub(x, bias), below));
}

/* Opset 6 named the channel's axis 1 for a slope of one axis. */
static void prelu_op(call *c)
{
    mb_tensor x = input(c, 0), slope = input(c, 1);
    if (!x.ctx || !slope.ctx)
        return;
    if (c->opset < 7 && mb_shape_of(slope).rank == 1 && mb_count(slope) > 1)
        slope = along(slope, 1, mb_shape_of(x).rank);
    give(c, 0, mb_where(mb_lt(x, literal_like(x, 0)), mb_mul(x, slope), x));
}

/* The bounds are attributes up to opset 10. */
static void clip_op(call *c)
{
    mb_tensor x = input(c, 0);
    if (has(c, 1))
        x = mb_maximum(x, input(c, 1));
    else if (attribute(c, "min"))
        x = mb_maximum(x, attribute_float(c, "min", 0));
    if (has(c, 2))
        x = mb_minimum(x, input(c, 2));
    else if (attribute(c, "max"))
        x = mb_minimum(x, attribute_float(c, "max", 0));
    give(c, 0, has(c, 1) || has(c, 2) || attribute(c, "min") || attribute(c, "max") ? x : mb_alias(x));
}

/* ---- of two tensors ---- */

/* Up to opset 6 the second operand was aligned at `axis` of the first. */
static mb_tensor second(call *c)
{
    mb_tensor a = input(c, 0), b = input(c, 1);
    if (c->opset >= 7 || !a.ctx || !b.ctx || !attribute_int(c, "broadcast", 0))
        return b;
    mb_shape shape = mb_shape_of(b);
    int rank = mb_shape_of(a).rank, first = (int)attribute_int(c, "axis", rank - shape.rank);
    for (int end = axis_of(first, rank) + shape.rank; end < rank; end++)
        shape.dim[shape.rank++] = 1;
    return mb_reshape(b, shape);
}

#define BINARY(name, expression)                                                                             \
    static void name##_op(call *c)                                                                           \
    {                                                                                                        \
        mb_tensor a = input(c, 0), b = second(c);                                                            \
        if (a.ctx && b.ctx)                                                                                  \
            give(c, 0, expression);                                                                          \
    }

BINARY(add, wrapped(mb_add(a, b), elem_of(c, 0)))
BINARY(sub, wrapped(mb_sub(a, b), elem_of(c, 0)))
BINARY(mul, wrapped(mb_mul(a, b), elem_of(c, 0)))
BINARY(div, is_float(a) ? mb_div(a, b) : divided_to_zero(a, b))
BINARY(and, mb_and(a, b))
BINARY(or, mb_or(a, b))
BINARY(xor, exclusive_or(a, b))
BINARY(equal, equal(a, b))
BINARY(less, mb_lt(a, b))
BINARY(less_equal, mb_le(a, b))
BINARY(greater, mb_lt(b, a))
BINARY(greater_equal, mb_le(b, a))

/* ---- of any number ---- */

#define VARIADIC(name, expression)                                                                           \
    static void name##_op(call *c)                                                                           \
    {                                                                                                        \
        mb_tensor a = input(c, 0);                                                                           \
        for (int i = 1; i < c->n_in; i++) {                                                                  \
            mb_tensor b = input(c, i);                                                                       \
            if (a.ctx && b.ctx)                                                                              \
                a = expression;                                                                              \
        }                                                                                                    \
        if (a.ctx)                                                                                           \
            give(c, 0, c->n_in == 1 ? mb_alias(a) : a);                                                      \
    }

VARIADIC(sum, mb_add(a, b))
VARIADIC(max, mb_maximum(a, b))
VARIADIC(min, mb_minimum(a, b))

static void mean_op(call *c)
{
    sum_op(c);
    if (c->out[0].t.ctx)
        give(c, 0, mb_div(c->out[0].t, (double)c->n_in));
}

static void where_op(call *c)
{
    give_as(c, 0, mb_where(input(c, 0), input(c, 1), input(c, 2)), elem_of(c, 1));
}

const op elementwise_ops[] = {
    {"Abs", abs_op, true},
    {"Acos", acos_op, false},
    {"Acosh", acosh_op, false},
    {"Add", add_op, false},
    {"And", and_op, true},
    {"Asin", asin_op, false},
    {"Asinh", asinh_op, false},
    {"Atan", atan_op, false},
    {"Atanh", atanh_op, false},
    {"Ceil", ceil_op, true},
    {"Celu", celu_op, false},
    {"Clip", clip_op, true},
    {"Cos", cos_op, false},
    {"Cosh", cosh_op, false},
    {"Div", div_op, false},
    {"Elu", elu_op, false},
    {"Equal", equal_op, true},
    {"Erf", erf_op, false},
    {"Exp", exp_op, false},
    {"Floor", floor_op, true},
    {"Greater", greater_op, true},
    {"GreaterOrEqual", greater_equal_op, true},
    {"HardSigmoid", hard_sigmoid_op, false},
    {"HardSwish", hard_swish_op, false},
    {"Identity", identity_op, true},
    {"IsInf", is_inf_op, true},
    {"IsNaN", is_nan_op, true},
    {"LeakyRelu", leaky_relu_op, false},
    {"Less", less_op, true},
    {"LessOrEqual", less_equal_op, true},
    {"Log", log_op, false},
    {"Max", max_op, true},
    {"Mean", mean_op, false},
    {"Min", min_op, true},
    {"Mul", mul_op, false},
    {"Neg", neg_op, true},
    {"Not", not_op, true},
    {"Or", or_op, true},
    {"PRelu", prelu_op, false},
    {"Reciprocal", reciprocal_op, false},
    {"Relu", relu_op, true},
    {"Round", round_op, true},
    {"Selu", selu_op, false},
    {"Shrink", shrink_op, false},
    {"Sigmoid", sigmoid_op, false},
    {"Sign", sign_op, true},
    {"Sin", sin_op, false},
    {"Sinh", sinh_op, false},
    {"Softplus", softplus_op, false},
    {"Softsign", softsign_op, false},
    {"Sqrt", sqrt_op, false},
    {"Sub", sub_op, false},
    {"Sum", sum_op, false},
    {"Tan", tan_op, false},
    {"Tanh", tanh_op, false},
    {"ThresholdedRelu", thresholded_relu_op, true},
    {"Where", where_op, true},
    {"Xor", xor_op, true},
    {0},
};
