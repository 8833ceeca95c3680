/* SPDX-License-Identifier: MIT
 *
 * call.c - what an op has at hand: inputs, outputs, attributes. */
#include "run.h"

#include <string.h>

mb_tensor leave(call *c, const char *reason)
{
    if (!c->run->reason) {
        c->run->reason = reason;
        c->run->left_op = c->node->op;
    }
    return (mb_tensor){0};
}

/* ---- inputs ---- */

bool has(const call *c, int i)
{
    return i >= 0 && i < c->n_in && c->in[i].kind != VALUE_NONE;
}

mb_tensor input(call *c, int i)
{
    if (!has(c, i))
        return leave(c, "an input that is not there");
    const value *v = &c->in[i];
    if (v->kind == VALUE_TENSOR && v->t.ctx)
        return v->t;
    mb_dtype dtype;
    if (v->kind != VALUE_TENSOR)
        return leave(c, "a sequence where a tensor is wanted");
    bool integer = carrier(v->elem, &dtype) && dtype == MB_INT32;
    return leave(c, integer ? "integers beyond int32" : elem_name(v->elem));
}

int elem_of(const call *c, int i)
{
    return has(c, i) ? c->in[i].elem : ELEM_NONE;
}

double *read_reals(call *c, mb_tensor t)
{
    int64_t count = mb_count(t);
    double *out = ARENA_NEW(c->run->memory, double, count);
    mb_tensor wide = mb_dtype_of(t) == MB_FLOAT64 ? t : mb_cast(t, MB_FLOAT64);
    mb_read(wide, out, (size_t)count * sizeof *out);
    return out;
}

static int64_t *read_ints(call *c, mb_tensor t)
{
    int64_t count = mb_count(t);
    int32_t *small = ARENA_NEW(c->run->memory, int32_t, count);
    int64_t *out = ARENA_NEW(c->run->memory, int64_t, count);
    mb_read(mb_dtype_of(t) == MB_INT32 ? t : mb_cast(t, MB_INT32), small, (size_t)count * sizeof *small);
    for (int64_t i = 0; i < count; i++)
        out[i] = small[i];
    return out;
}

int64_t *host_ints(call *c, int i, int *n)
{
    *n = 0;
    if (has(c, i) && c->in[i].file && c->in[i].file->whole) {
        *n = (int)c->in[i].file->count;
        return c->in[i].file->whole;
    }
    mb_tensor t = input(c, i);
    if (!t.ctx)
        return NULL;
    *n = (int)mb_count(t);
    return read_ints(c, t);
}

double *host_reals(call *c, int i, int *n)
{
    *n = 0;
    if (has(c, i) && c->in[i].file && c->in[i].file->real) {
        *n = (int)c->in[i].file->count;
        return c->in[i].file->real;
    }
    mb_tensor t = input(c, i);
    if (!t.ctx)
        return NULL;
    *n = (int)mb_count(t);
    return read_reals(c, t);
}

int64_t host_int(call *c, int i, int64_t otherwise)
{
    int n = 0;
    int64_t *numbers = has(c, i) ? host_ints(c, i, &n) : NULL;
    return n > 0 ? numbers[0] : otherwise;
}

double host_real(call *c, int i, double otherwise)
{
    int n = 0;
    double *numbers = has(c, i) ? host_reals(c, i, &n) : NULL;
    return n > 0 ? numbers[0] : otherwise;
}

/* ---- outputs ---- */

bool wanted(const call *c, int i)
{
    return i < c->n_out && c->node->outputs[i][0] != '\0';
}

void give_value(call *c, int i, value v)
{
    if (i < c->n_out)
        c->out[i] = v;
}

void give_as(call *c, int i, mb_tensor t, int elem)
{
    give_value(c, i, (value){.kind = VALUE_TENSOR, .t = t, .elem = elem});
}

void give(call *c, int i, mb_tensor t)
{
    static const int own[] = {[MB_FLOAT32] = ELEM_FLOAT,
                              [MB_FLOAT64] = ELEM_DOUBLE,
                              [MB_INT32] = ELEM_INT64,
                              [MB_BOOL] = ELEM_BOOL};
    mb_dtype dtype = mb_dtype_of(t), first;
    bool alike = carrier(elem_of(c, 0), &first) && first == dtype;
    give_as(c, i, t, alike ? elem_of(c, 0) : own[dtype]);
}

/* ---- attributes ---- */

const attribute_proto *attribute(const call *c, const char *name)
{
    for (int i = 0; i < c->node->n_attributes; i++)
        if (strcmp(c->node->attributes[i].name, name) == 0)
            return &c->node->attributes[i];
    return NULL;
}

int64_t attribute_int(const call *c, const char *name, int64_t otherwise)
{
    const attribute_proto *a = attribute(c, name);
    return a ? a->i : otherwise;
}

double attribute_float(const call *c, const char *name, double otherwise)
{
    const attribute_proto *a = attribute(c, name);
    return a ? (double)a->f : otherwise;
}

const char *attribute_text(const call *c, const char *name, const char *otherwise)
{
    const attribute_proto *a = attribute(c, name);
    return a && a->s ? a->s : otherwise;
}

bool attribute_is(const call *c, const char *name, const char *text, const char *otherwise)
{
    return strcmp(attribute_text(c, name, otherwise), text) == 0;
}

const int64_t *attribute_ints(const call *c, const char *name, int *n)
{
    const attribute_proto *a = attribute(c, name);
    *n = a ? a->n_ints : 0;
    return a ? a->ints : NULL;
}

mb_axes axes_from(call *c, const char *name, int i)
{
    int n = 0;
    const int64_t *numbers = has(c, i) ? host_ints(c, i, &n) : attribute_ints(c, name, &n);
    mb_axes axes = {.count = numbers ? n : -1};
    for (int k = 0; k < n && k < MB_MAX_RANK; k++)
        axes.axis[k] = (int)numbers[k];
    return axes;
}

int axis_of(int64_t axis, int rank)
{
    return (int)(axis < 0 ? axis + rank : axis);
}
