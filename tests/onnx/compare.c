/* SPDX-License-Identifier: MIT */
#include "compare.h"

#include "tensor/half.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

/* What rounding may do: a part of the element, for a chain of functions, each within a few units in the last
 * place; and a part of the largest element, for sums that cancel. The longest sums have some hundred terms,
 * and both sides round them: 100 units of 2^-24 are 6e-6, and errors of random sign stay far below their
 * number. float64 has 2^-53. Coarse ones have the tolerance of ONNX's own backend test. */
typedef struct tolerance {
    double relative, of_largest, absolute;
} tolerance;

static tolerance tolerance_of(int elem, precision p)
{
    if (p == EXACT)
        return (tolerance){0};
    if (p == COARSE)
        return (tolerance){.relative = 1e-3, .absolute = 1e-7};
    if (elem == ELEM_DOUBLE)
        return (tolerance){.relative = 1e-13, .of_largest = 1e-14};
    return (tolerance){.relative = 1e-5, .of_largest = 1e-6};
}

static void differ(difference *d, const char *format, ...) MB_PRINTF(2, 3);

static void differ(difference *d, const char *format, ...)
{
    va_list args;
    if (d->text[0])
        return;
    va_start(args, format);
    vsnprintf(d->text, sizeof d->text, format, args);
    va_end(args);
}

static bool alike(double got, double wanted, double allowed, difference *d)
{
    if (isnan(got) || isnan(wanted))
        return isnan(got) && isnan(wanted);
    if (got == wanted)
        return true;
    if (isinf(got) || isinf(wanted))
        return false;
    double part = fabs(got - wanted) / allowed;
    if (part > d->worst)
        d->worst = part;
    return part <= 1;
}

static double element(const tensor_proto *t, int64_t i)
{
    return t->real ? t->real[i] : (double)t->whole[i];
}

static double largest(const tensor_proto *t)
{
    double most = 0;
    for (int64_t i = 0; i < t->count; i++)
        if (isfinite(element(t, i)) && fabs(element(t, i)) > most)
            most = fabs(element(t, i));
    return most;
}

static bool same_head(const char *name, const value *got, const tensor_proto *wanted, difference *d)
{
    mb_dtype dtype;
    if (!carrier(wanted->elem, &dtype)) {
        differ(d, "%s: wanted %s", name, elem_name(wanted->elem));
        return false;
    }
    if (dtype != mb_dtype_of(got->t)) {
        differ(d, "%s: got %s, wanted %s", name, mb_dtype_name(mb_dtype_of(got->t)), elem_name(wanted->elem));
        return false;
    }
    mb_shape shape = mb_shape_of(got->t);
    bool same = shape.rank == wanted->rank;
    for (int i = 0; same && i < shape.rank; i++)
        same = shape.dim[i] == wanted->dim[i];
    if (!same)
        differ(d, "%s: another shape: rank %d, %lld elements; wanted rank %d, %lld", name, shape.rank,
               (long long)mb_count(got->t), wanted->rank, (long long)wanted->count);
    return same;
}

/* The elements as doubles, which hold all dtypes; false after an error. */
static bool read_elements(run *r, mb_tensor t, double *out)
{
    size_t count = (size_t)mb_count(t), size = mb_dtype_size(mb_dtype_of(t));
    void *bytes = arena_take(r->memory, count, size);
    if (mb_read(t, bytes, count * size) != MB_OK)
        return false;
    for (size_t i = 0; i < count; i++)
        out[i] = mb__element_of(mb_dtype_of(t), bytes, (int64_t)i);
    return true;
}

static void compare_tensor(run *r, const char *name, const value *got, const tensor_proto *wanted,
                           precision precision, difference *d)
{
    if (got->kind != VALUE_TENSOR || !got->t.ctx) {
        differ(d, "%s: no tensor", name);
        return;
    }
    if (!same_head(name, got, wanted, d))
        return;
    double *numbers = ARENA_NEW(r->memory, double, wanted->count);
    if (!read_elements(r, got->t, numbers)) {
        differ(d, "%s", mb_message(r->mb));
        return;
    }
    tolerance tol = tolerance_of(wanted->elem, wanted->real ? precision : EXACT);
    double fixed = tol.absolute + tol.of_largest * largest(wanted);
    for (int64_t i = 0; i < wanted->count; i++)
        if (!alike(numbers[i], element(wanted, i), fixed + tol.relative * fabs(element(wanted, i)), d))
            differ(d, "%s[%lld] is %.9g, wanted %.9g", name, (long long)i, numbers[i], element(wanted, i));
}

void compare_value(run *r, const char *name, const value *got, const data *wanted, precision precision,
                   difference *d)
{
    if (wanted->kind == DATA_TENSOR) {
        compare_tensor(r, name, got, wanted->tensor, precision, d);
        return;
    }
    int kind = wanted->kind == DATA_NONE ? VALUE_NONE : VALUE_SEQUENCE;
    if ((int)got->kind != kind || got->count != wanted->count) {
        differ(d, "%s: got kind %d of %d items, wanted kind %d of %d", name, (int)got->kind, got->count, kind,
               wanted->count);
        return;
    }
    for (int i = 0; i < wanted->count; i++)
        compare_value(r, name, &got->items[i], &wanted->items[i], precision, d);
}
