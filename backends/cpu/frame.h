/* SPDX-License-Identifier: MIT
 * frame.h - inside the cpu backend: the data of a running step, and the functions that run steps. */
#ifndef MB_CPU_FRAME_H
#define MB_CPU_FRAME_H

#include "backends/cpu/blas.h"
#include "backends/cpu/loops.h"
#include "backends/cpu/pool.h"
#include "backends/plan/backend.h"
#include "backends/plan/bump.h"

typedef struct mb__cpu {
    const mb__host *host;
    mb__pool *pool;
    const mb__loops *loops;
    const mb__bf16_loops *bf16; /* NULL: this CPU has none */
    bool codes;                 /* makes machine code of chains of arithmetic */
    int threads;
    const mb__blas *blas; /* NULL: not installed, or slower than our loops */
    double blas_from;     /* multiply-adds from which it takes a product; else infinity */
    char **scratch;       /* of each worker: registers of the kernel it runs */
    size_t scratch_bytes;
    char *pairs; /* what is being sorted */
    size_t pair_bytes;
    const mb__step *failed; /* of this run: an op of the user's, ... */
    mb_status status;       /* ... and what it returned */
} mb__cpu;

/* The data of a running step: addresses of values, and scalars. */
typedef struct mb__frame {
    mb__cpu *cpu;
    const mb__plan *plan;
    char **memory; /* of each value */
    const mb__scalar *scalars;
    char *partials; /* of accumulating kernels */
} mb__frame;

static inline int mb__lane(int dtype) /* index in the tables of loops */
{
    return mb__is_half(dtype) ? 0 : dtype == MB_INT64 ? 3 : dtype >= MB_BOOL ? 2 : dtype;
}
static inline int64_t mb__register_size(int dtype) /* bytes an element takes in a register */
{
    return dtype == MB_FLOAT64 || dtype == MB_INT64 ? 8 : 4;
}
/* Whether memory holds it as registers do. */
static inline bool mb__as_in_registers(int dtype)
{
    return dtype != MB_BOOL && dtype != MB_UINT8 && !mb__is_half(dtype);
}

typedef struct mb__cpu_kernel mb__cpu_kernel;
typedef struct mb__code mb__code;
void mb__cpu_kernel_list(const mb__host *host, const mb__plan *plan, int step, const mb__cpu_kernel *k);
/* In memory of pool; work is not needed afterwards. code: NULL if no machine code is made. NULL: no memory.
 */
mb__cpu_kernel *mb__cpu_kernel_make(mb__bump *pool, mb__bump *work, const mb__plan *plan, const mb__kernel *k,
                                    const mb__loops *loops, mb__code *code, size_t *scratch,
                                    size_t *partials);
void mb__cpu_kernel_run(mb__cpu_kernel *k, mb__frame *f);
void mb__cpu_product_run(const mb__product *p, int dtype, mb__frame *f);
/* Products of halves, part of a product by one worker: see product_half.c. */
typedef struct mb__cpu_half {
    const mb__product *p;
    int dtype, repeat, adding_count;
    const int *adding;
} mb__cpu_half;
void mb__cpu_product_half(mb__cpu *cpu, const mb__cpu_half *h, const uint16_t *a, const uint16_t *b,
                          uint16_t *c, int64_t m, int64_t n, int64_t count, int worker);
size_t mb__cpu_half_scratch(void);
/* The bytes of scratch that each worker needs for it. */
size_t mb__cpu_product_scratch(const mb__product *p);
/* c -= a b for elements of any strides, by the worker that calls it. */
typedef struct mb__cpu_update {
    int64_t m, n, k, a_m, a_k, b_k, b_n, c_m, c_n;
    const void *a, *b;
    void *c;
} mb__cpu_update;
void mb__cpu_product_subtract(mb__cpu *cpu, int dtype, const mb__cpu_update *u, int worker);
void mb__cpu_matrix_run(const mb__other *o, mb__frame *f);
void mb__cpu_take_run(const mb__other *o, mb__frame *f);
void mb__cpu_scatter_add_run(const mb__other *o, mb__frame *f);
void mb__cpu_axis_run(const mb__other *o, mb__frame *f);
/* The bytes of `pairs` that it needs. */
size_t mb__cpu_axis_pairs(const mb__cpu *cpu, const mb__other *o);
void mb__cpu_custom_run(const mb__step *step, mb__frame *f);

#endif
