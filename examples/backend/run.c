/* SPDX-License-Identifier: MIT
 * run.c - a plan, step by step. */
#include <math.h>

#include "trace.h"

/* ---- kernels ---- */

static double source(const run *r, const mb__instr *i, const int64_t *index, int rank)
{
    const mb__scalar *s = r->binding->scalars;
    switch (i->op) {
    case MB_K_LOAD:
        return value_of(r, i->view.value)[place(&i->view, index, rank)];
    case MB_K_SCALAR:
        return i->dtype == MB_INT32 ? trunc(s[i->bind].u.number) : s[i->bind].u.number;
    case MB_K_IOTA:
        return (double)place(&i->view, index, rank);
    case MB_K_RANDOM:
        return trace_draw((mb_dtype)i->dtype, s[i->bind].u.key, place(&i->view, index, rank));
    default:
        return i->number;
    }
}

static void store(const run *r, const mb__store *s, const int64_t *index, int rank)
{
    double *to = &value_of(r, s->view.value)[place(&s->view, index, rank)], v = r->registers[s->instr];
    if (s->mode == MB_STORE)
        *to = v;
    else if (s->mode == MB_STORE_MAX)
        *to = v > *to || isnan(v) ? v : *to;
    else
        *to = r->plan->values[s->view.value].dtype == MB_INT32 ? trace_wrapped(*to + v) : *to + v;
}

/* What is added up, or is a maximum, begins with that of nothing. */
static void begin_reduction(const run *r, const mb__store *s)
{
    double *to = value_of(r, s->view.value);
    const mb__value *v = &r->plan->values[s->view.value];
    double least = v->dtype == MB_INT32 ? INT32_MIN : -(double)INFINITY;
    for (int64_t i = 0; s->mode != MB_STORE && i < v->count; i++)
        to[i] = s->mode == MB_STORE_SUM ? 0 : least;
}

static void run_kernel(const run *r, const mb__kernel *k)
{
    int64_t index[MB_MAX_RANK] = {0};
    for (int s = 0; s < k->store_count; s++)
        begin_reduction(r, &k->stores[s]);
    if (mb__numel(k->dim, k->rank) == 0)
        return;
    do {
        double *t = r->registers;
        for (int j = 0; j < k->instr_count; j++) {
            const mb__instr *i = &k->instrs[j];
            if (mb__is_source(i->op))
                t[j] = source(r, i, index, k->rank);
            else if (i->op == MB_OP_DRAW)
                t[j] = trace_draw((mb_dtype)i->dtype, r->binding->scalars[i->bind].u.key,
                                  (int64_t)t[i->in[0]] * (int64_t)i->number + (int64_t)t[i->in[1]]);
            else
                t[j] = trace_element(i, t[i->in[0]], i->in[1] >= 0 ? t[i->in[1]] : 0,
                                     i->in[2] >= 0 ? t[i->in[2]] : 0);
        }
        for (int s = 0; s < k->store_count; s++)
            store(r, &k->stores[s], index, k->rank);
    } while (advance(index, k->dim, k->rank));
}

/* ---- products ---- */

static void multiply(const mb__product *p, const double *a, const double *b, double *c)
{
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t j = 0; j < p->n; j++) {
            double sum = 0;
            for (int64_t k = 0; k < p->k; k++)
                sum += a[i * p->a_m + k * p->a_k] * b[k * p->b_k + j * p->b_n];
            c[i * p->c_m + j * p->c_n] += sum;
        }
}

static void clear(const run *r, int value)
{
    memset(value_of(r, value), 0, (size_t)r->plan->values[value].count * sizeof(double));
}

static void run_product(const run *r, const mb__product *p)
{
    int64_t index[3 * MB_MAX_RANK] = {0};
    clear(r, p->c.value);
    if (mb__numel(p->loop, p->loops) == 0)
        return;
    do {
        int64_t a = p->a.offset, b = p->b.offset, c = p->c.offset;
        for (int l = 0; l < p->loops; l++) {
            a += index[l] * p->a_loop[l];
            b += index[l] * p->b_loop[l];
            c += index[l] * p->c_loop[l];
        }
        multiply(p, value_of(r, p->a.value) + a, value_of(r, p->b.value) + b, value_of(r, p->c.value) + c);
    } while (advance(index, p->loop, p->loops));
}

mb_status trace_run_plan(const run *r)
{
    mb_status status = MB_OK;
    for (const mb__step *s = r->plan->steps; s < r->plan->steps + r->plan->step_count && status == MB_OK; s++)
        if (s->kind == MB_STEP_KERNEL)
            run_kernel(r, &s->u.kernel);
        else if (s->kind == MB_STEP_PRODUCT)
            run_product(r, s->u.product);
        else if (s->kind == MB_STEP_ZERO)
            clear(r, s->u.zero);
        else if (s->kind == MB_STEP_CUSTOM)
            status = trace_run_custom(r, s);
        else
            trace_run_other(r, s->u.other);
    return status;
}
