/* SPDX-License-Identifier: MIT
 * custom.c - ops of the user's on the host: one call for each position of the loop axes. */
#include "backends/plan/plan.h"

enum { ARRAYS = MB_CUSTOM_OPERANDS + MB_CUSTOM_RESULTS };

/* Bytes from a value's first element to the core at a position. */
static int64_t start_of(const mb__custom *c, const mb__core_view *a, int64_t position)
{
    int64_t at = a->view.offset;
    for (int i = c->loops; i-- > 0; position /= c->loop[i])
        at += position % c->loop[i] * a->view.stride[i];
    return at;
}

mb_status mb__custom_run(const mb__custom *c, void *const *memory, const mb_dtype *dtypes, int64_t first,
                         int64_t count)
{
    const mb_custom_op_spec *s = &c->op->spec;
    int n = s->operands, all = n + s->results;
    mb_core_data data[ARRAYS];
    const mb__core_view *views[ARRAYS];
    for (int i = 0; i < all; i++) {
        const mb__core_view *a = views[i] = i < n ? &c->in[i] : &c->out[i - n];
        data[i] = (mb_core_data){.dtype = dtypes ? dtypes[i] : (mb_dtype)a->dtype,
                                 .rank = a->rank,
                                 .dim = a->dim,
                                 .stride = a->view.stride + c->loops};
    }
    for (int64_t p = first; p < first + count; p++) {
        for (int i = 0; i < all; i++)
            data[i].at = (char *)memory[i] + start_of(c, views[i], p) * (int64_t)mb_dtype_size(data[i].dtype);
        mb_status status = s->compute(s->user, data, data + n, c->attrs, c->nattr);
        if (status != MB_OK)
            return status;
    }
    return MB_OK;
}
