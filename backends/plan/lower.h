/* SPDX-License-Identifier: MIT
 *
 * lower.h - from groups and single nodes to steps: what the files that do it share. Private to
 * backends/plan/.
 */
#ifndef MB_LOWER_H
#define MB_LOWER_H

#include "backends/plan/backend.h"
#include "backends/plan/graph.h"

typedef struct mb__lowering {
    mb__graph *g;
    mb__fusion *f;
    const mb__backend *backend;
    unsigned passes;
    mb__bump *pool; /* of what the plan holds, exact in size; what grows lies in g->bump and is copied */
    mb__plan *plan;
    int step_capacity, value_capacity;
    int32_t *value;    /* of each node with storage; -1 */
    int32_t *instr_of; /* of nodes in the kernel being made; -1 */
    mb__instr *instrs; /* of the kernel being made */
    mb__store *stores;
    int instr_capacity, store_capacity;
    bool failed;
} mb__lowering;

/* ---- lower_parts.c: values and steps of the plan; `failed` is set where there is no memory ---- */

int32_t mb__lower_value(mb__lowering *l, mb_dtype dtype, int64_t count, int storage, int32_t index);
/* The value that holds a node's storage. */
int32_t mb__lower_value_of(mb__lowering *l, int32_t node);
/* NULL: no memory. */
mb__step *mb__lower_step(mb__lowering *l, int kind, const char *site);
/* A copy of its own in the plan's memory. */
void *mb__lower_keep(mb__lowering *l, const void *p, size_t bytes);
void mb__lower_kernel_step(mb__lowering *l, const char *site, mb__kernel *k);

/* ---- lower_kernel.c ---- */

void mb__lower_group(mb__lowering *l, int32_t group);
/* A kernel of one instruction, whose value is stored over the view. */
void mb__lower_store(mb__lowering *l, const char *site, int rank, const int64_t *dim, const mb__instr *in,
                     const mb__view *to);
/* A kernel that copies between two views. */
void mb__lower_copy(mb__lowering *l, const char *site, mb_dtype dtype, int rank, const int64_t *dim,
                    const mb__view *from, const mb__view *to);

/* ---- lower_product.c, lower_loop.c, lower_custom.c: a CONTRACT, a SCAN, a CALL ---- */

void mb__lower_contract(mb__lowering *l, int32_t id);
void mb__lower_scan(mb__lowering *l, int32_t id);
void mb__lower_custom(mb__lowering *l, int32_t id);

#endif
