/* SPDX-License-Identifier: MIT
 *
 * ops_shape.c - shapes as numbers, and tensors made from numbers. */
#include "compose.h"

#include <math.h>

static int64_t within(int64_t i, int64_t high)
{
    return i < 0 ? 0 : i > high ? high : i;
}

static void shape_op(call *c)
{
    mb_shape s = mb_shape_of(input(c, 0));
    int64_t start = within(axis_of(attribute_int(c, "start", 0), s.rank), s.rank);
    int64_t end = within(axis_of(attribute_int(c, "end", s.rank), s.rank), s.rank);
    int64_t n = end > start ? end - start : 0;
    give_as(c, 0, ints(c, MB_SHAPE(n), s.dim + start), ELEM_INT64);
}

static void size_op(call *c)
{
    give_as(c, 0, ints(c, MB_SHAPE0, (int64_t[]){mb_count(input(c, 0))}), ELEM_INT64);
}

static void constant_op(call *c)
{
    const attribute_proto *a = c->node->n_attributes > 0 ? c->node->attributes : NULL;
    if (!a)
        return;
    value v = {.kind = VALUE_TENSOR, .elem = ELEM_INT64};
    if (a->t)
        v = tensor_value(c->run, a->t);
    else if (attribute(c, "value_int"))
        v.t = ints(c, MB_SHAPE0, &a->i);
    else if (attribute(c, "value_ints"))
        v.t = ints(c, MB_SHAPE(a->n_ints), a->ints);
    else if (attribute(c, "value_float"))
        v = (value){
            .kind = VALUE_TENSOR, .elem = ELEM_FLOAT, .t = mb_scalar(c->mb, MB_FLOAT32, (double)a->f)};
    else if (attribute(c, "value_floats"))
        v = (value){.kind = VALUE_TENSOR,
                    .elem = ELEM_FLOAT,
                    .t = mb_from(c->mb, MB_FLOAT32, MB_SHAPE(a->n_floats), a->floats)};
    else
        leave(c, elem_name(ELEM_STRING));
    give_value(c, 0, v);
}

static void constant_of_shape_op(call *c)
{
    int n;
    int64_t *sizes = host_ints(c, 0, &n);
    const attribute_proto *a = attribute(c, "value");
    mb_dtype dtype = MB_FLOAT32;
    double number = 0;
    if (a && a->t) {
        if (!carrier(a->t->elem, &dtype) || a->t->count < 1) {
            leave(c, elem_name(a->t->elem));
            return;
        }
        number = a->t->real ? a->t->real[0] : (double)a->t->whole[0];
    }
    if (sizes || n == 0)
        give_as(c, 0, mb_full(c->mb, dtype, shape_of_sizes(sizes, n), number),
                a && a->t ? a->t->elem : ELEM_FLOAT);
}

/* start, start + delta, ... before limit. How many there are is known on the host only. */
static void range_op(call *c)
{
    mb_tensor start = input(c, 0), delta = input(c, 2);
    if (!start.ctx || !delta.ctx || !input(c, 1).ctx)
        return;
    double first = *read_reals(c, start), limit = *read_reals(c, input(c, 1));
    double n = ceil((limit - first) / *read_reals(c, delta));
    mb_tensor steps = mb_iota(c->mb, mb_dtype_of(start), n > 0 ? (int64_t)n : 0);
    give(c, 0, mb_add(start, mb_mul(steps, delta)));
}

static void eye_like_op(call *c)
{
    mb_tensor x = input(c, 0);
    int elem = (int)attribute_int(c, "dtype", elem_of(c, 0));
    mb_dtype dtype;
    if (!x.ctx || !carrier(elem, &dtype))
        return;
    mb_tensor row = along(mb_iota(c->mb, MB_INT32, mb_dim(x, 0)), 0, 2);
    mb_tensor column = along(mb_iota(c->mb, MB_INT32, mb_dim(x, 1)), 1, 2);
    mb_tensor on = mb_eq(column, mb_add(row, (double)attribute_int(c, "k", 0)));
    give_as(c, 0, mb_cast(on, dtype), elem);
}

static void trilu_op(call *c)
{
    mb_tensor x = input(c, 0);
    int64_t k = host_int(c, 1, 0), rows = mb_dim(x, -2), columns = mb_dim(x, -1);
    bool upper = attribute_int(c, "upper", 1) != 0;
    mb_tensor mask = mb_tril_mask(c->mb, rows, columns, upper ? k - 1 : k);
    give(c, 0, mb_where(upper ? mb_not(mask) : mask, x, literal_like(x, 0)));
}

const op shape_ops[] = {
    {"Constant", constant_op, true}, {"ConstantOfShape", constant_of_shape_op, true},
    {"EyeLike", eye_like_op, true},  {"Range", range_op, false},
    {"Shape", shape_op, true},       {"Size", size_op, true},
    {"Trilu", trilu_op, true},       {0},
};
