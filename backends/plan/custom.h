/* SPDX-License-Identifier: MIT
 * custom.h - ops of the user's on the host, for backends whose memory it can address: one call for each
 * position of the loop axes. */
#ifndef MB_PLAN_CUSTOM_H
#define MB_PLAN_CUSTOM_H

#include "backends/plan/backend.h"

static inline size_t mb__core_size(mb_dtype dtype)
{
    return dtype == MB_FLOAT64 ? 8 : dtype == MB_BOOL ? 1 : 4; /* others are refused */
}

/* Elements from a value's first one to the core at a position. */
static inline int64_t mb__custom_start(const mb__custom *c, const mb__core_view *a, int64_t position)
{
    int64_t at = a->view.offset;
    for (int i = c->loops; i-- > 0; position /= c->loop[i])
        at += position % c->loop[i] * a->view.stride[i];
    return at;
}

/* Computes the positions [first, first + count), counted over the loop axes. memory: of each operand's value,
 * then of each result's; dtypes: what lies there, where it is not what the plan says; NULL. */
static inline mb_status mb__custom_run(const mb__custom *c, void *const *memory, const mb_dtype *dtypes,
                                       int64_t first, int64_t count)
{
    enum { ARRAYS = MB_CUSTOM_OPERANDS + MB_CUSTOM_RESULTS };
    const mb_custom_op_spec *s = &c->op->spec;
    int n = s->operands, all = n + s->results;
    mb_core_data data[ARRAYS];
    const mb__core_view *views[ARRAYS];
    for (int i = 0; i < all; i++) {
        const mb__core_view *a = views[i] = i < n ? &c->in[i] : &c->out[i - n];
        data[i] = MB_LIT(mb_core_data){NULL, dtypes ? dtypes[i] : (mb_dtype)a->dtype, a->rank, a->dim,
                                       a->view.stride + c->loops};
    }
    for (int64_t p = first; p < first + count; p++) {
        for (int i = 0; i < all; i++)
            data[i].at =
                (char *)memory[i] + mb__custom_start(c, views[i], p) * (int64_t)mb__core_size(data[i].dtype);
        mb_status status = s->compute(s->user, data, data + n, c->attrs, c->nattr);
        if (status != MB_OK)
            return status;
    }
    return MB_OK;
}

/* Reports that an op's function did not return MB_OK; returns status. */
static inline mb_status mb__custom_failed(const mb__host *host, const mb__step *step, mb_status status)
{
    return host->error(host->user, status, step->site, "%s: its compute function failed",
                       step->u.custom->op->name);
}

#endif
