/* SPDX-License-Identifier: MIT */
#include "compare.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

/* Of the ONNX backend test: both sides were rounded many times, in another order. */
static const double relative = 1e-3, absolute = 1e-7;

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

static bool alike(double got, double wanted, bool exact, difference *d)
{
    if (isnan(got) || isnan(wanted))
        return isnan(got) && isnan(wanted);
    if (got == wanted)
        return true;
    if (exact || isinf(got) || isinf(wanted))
        return false;
    double error = fabs(got - wanted);
    if (error > absolute && error / fabs(wanted) > d->worst)
        d->worst = error / fabs(wanted);
    return error <= absolute + relative * fabs(wanted);
}

static double element(const tensor_proto *t, int64_t i)
{
    return t->real ? t->real[i] : (double)t->whole[i];
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
        switch (mb_dtype_of(t)) {
        case MB_FLOAT32:
            out[i] = (double)((float *)bytes)[i];
            break;
        case MB_FLOAT64:
            out[i] = ((double *)bytes)[i];
            break;
        case MB_INT32:
            out[i] = ((int32_t *)bytes)[i];
            break;
        case MB_BOOL:
            out[i] = ((uint8_t *)bytes)[i];
            break;
        }
    return true;
}

static void compare_tensor(run *r, const char *name, const value *got, const tensor_proto *wanted, bool exact,
                           difference *d)
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
    for (int64_t i = 0; i < wanted->count; i++)
        if (!alike(numbers[i], element(wanted, i), exact || !wanted->real, d))
            differ(d, "%s[%lld] is %.9g, wanted %.9g", name, (long long)i, numbers[i], element(wanted, i));
}

void compare_value(run *r, const char *name, const value *got, const data *wanted, bool exact, difference *d)
{
    if (wanted->kind == DATA_TENSOR) {
        compare_tensor(r, name, got, wanted->tensor, exact, d);
        return;
    }
    int kind = wanted->kind == DATA_NONE ? VALUE_NONE : VALUE_SEQUENCE;
    if ((int)got->kind != kind || got->count != wanted->count) {
        differ(d, "%s: got kind %d of %d items, wanted kind %d of %d", name, (int)got->kind, got->count, kind,
               wanted->count);
        return;
    }
    for (int i = 0; i < wanted->count; i++)
        compare_value(r, name, &got->items[i], &wanted->items[i], exact, d);
}
