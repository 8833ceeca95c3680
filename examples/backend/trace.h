/* SPDX-License-Identifier: MIT
 *
 * trace.h - a backend apart from the library: it runs plans by plain loops, in double precision, and writes
 * what it is asked to run as C, into the file that TRACE_TO names.
 *
 * It says of itself that it does not fuse and knows no loops (backend.c). So a kernel is one op, what it
 * loads and what it stores, and a scan comes as all its steps; five kinds of steps remain: kernels, matrix
 * products, ops of their own, ops of the user's, and zeros.
 *
 *   - backend.c: what the library calls: devices, memory, plans;
 *   - run.c: a plan, step by step: kernels and products;
 *   - element.c: one element of an op;
 *   - ops.c: ops of their own, such as cumsum and cholesky;
 *   - custom.c: ops of the user's;
 *   - write.c: the same as C.
 */
#ifndef TRACE_H
#define TRACE_H

#include <stdio.h>

#include <backends/plan/backend.h>

typedef struct trace {
    const mb__host *host;
    FILE *out; /* NULL: nothing is written */
    int plans; /* written so far */
} trace;

/* A plan that can be run. */
typedef struct program {
    const mb__plan *plan;
    double *registers; /* of the kernel with most instructions */
    int most;
} program;

/* A plan in one run. All values are doubles, whatever their dtype. */
typedef struct run {
    const mb__host *host;
    const mb__plan *plan;
    const mb__binding *binding;
    double *registers;
} run;

static inline double *value_of(const run *r, int i)
{
    return mb__value_at(r->plan, r->binding, i);
}
static inline int64_t place(const mb__view *v, const int64_t *index, int rank)
{
    int64_t at = v->offset;
    for (int i = 0; i < rank; i++)
        at += v->stride[i] * index[i];
    return at;
}
/* To the next of the indices below dim, the last axis first; false past the end. */
static inline bool advance(int64_t *index, const int64_t *dim, int rank)
{
    for (int i = rank; i-- > 0; index[i] = 0)
        if (++index[i] < dim[i])
            return true;
    return false;
}

mb_status trace_run_plan(const run *r);
/* What an instruction makes of its operands; what int32 makes of a number. */
double trace_element(const mb__instr *i, double a, double b, double c);
double trace_wrapped(double x);
double trace_draw(mb_dtype dtype, uint64_t key, int64_t at);
/* Whether there are loops for the op, and the loops. */
bool trace_knows_other(const mb__other *o);
void trace_run_other(const run *r, const mb__other *o);
mb_status trace_run_custom(const run *r, const mb__step *s);
void trace_write_plan(trace *t, const mb__plan *plan);

#endif
