/* SPDX-License-Identifier: MIT
 *
 * custom.c - ops of the user's (tensor/custom_op.h), whose C functions take doubles for floats as they lie
 * here, and integers and bools as they are: those are converted into memory of their own before, and back.
 */
#include <backends/plan/custom.h>

#include "trace.h"

enum { ARRAYS = MB_CUSTOM_OPERANDS + MB_CUSTOM_RESULTS };

static const mb__core_view *array(const mb__custom *c, int i)
{
    return i < c->op->spec.operands ? &c->in[i] : &c->out[i - c->op->spec.operands];
}

static bool is_float(const mb__core_view *a)
{
    return a->dtype == MB_FLOAT32 || a->dtype == MB_FLOAT64;
}

static size_t bytes_of(const run *r, const mb__core_view *a)
{
    return ((size_t)r->plan->values[a->view.value].count + 1) * sizeof(int32_t);
}

/* Between a value of doubles and whole numbers, which are int32 or bytes. */
static void convert(double *numbers, void *whole, uint8_t dtype, int64_t count, bool back)
{
    int32_t *words = whole;
    uint8_t *bytes = whole;
    for (int64_t i = 0; i < count; i++)
        if (back)
            numbers[i] = dtype == MB_INT32 ? words[i] : bytes[i];
        else if (dtype == MB_INT32)
            words[i] = (int32_t)numbers[i];
        else
            bytes[i] = numbers[i] != 0;
}

/* Calls the function, once all of its memory is there. */
static mb_status call(const run *r, const mb__custom *c, void *const *memory)
{
    mb_dtype dtypes[ARRAYS];
    int n = c->op->spec.operands, all = n + c->op->spec.results;
    for (int i = 0; i < all; i++) {
        const mb__core_view *a = array(c, i);
        dtypes[i] = is_float(a) ? MB_FLOAT64 : (mb_dtype)a->dtype;
        if (!is_float(a) && i < n)
            convert(value_of(r, a->view.value), memory[i], a->dtype, r->plan->values[a->view.value].count,
                    false);
    }
    mb_status status = mb__custom_run(c, memory, dtypes, 0, mb__numel(c->loop, c->loops));
    if (status == MB_OK && !is_float(&c->out[0])) /* all results lie in one value */
        convert(value_of(r, c->out[0].view.value), memory[n], c->out[0].dtype,
                r->plan->values[c->out[0].view.value].count, true);
    return status;
}

mb_status trace_run_custom(const run *r, const mb__step *s)
{
    const mb__custom *c = s->u.custom;
    void *memory[ARRAYS] = {0};
    int n = c->op->spec.operands, all = n + c->op->spec.results;
    mb_status status = MB_OK;
    for (int i = 0; i < all; i++) {
        const mb__core_view *a = array(c, i);
        bool shared = i > n; /* results after the first lie in its value */
        memory[i] = is_float(a) ? value_of(r, a->view.value)
                    : shared    ? memory[n]
                                : mb__host_alloc_raw(r->host, bytes_of(r, a));
        status = memory[i] ? status : MB_NO_MEMORY;
    }
    mb_status said = status == MB_OK ? call(r, c, memory) : MB_OK;
    for (int i = 0; i < all; i++)
        if (!is_float(array(c, i)) && i <= n)
            mb__host_free(r->host, memory[i], bytes_of(r, array(c, i)));
    if (said != MB_OK)
        status = mb__custom_failed(r->host, s, said);
    return status;
}
