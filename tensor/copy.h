/* SPDX-License-Identifier: MIT
 * copy.h - nodes recorded again, and the inside of a scan with them; the list of
 * checkpoints, whose copies are checkpoints. For tensor/ and autograd/. */
#ifndef MB_COPY_H
#define MB_COPY_H

#include "tensor/internal.h"

/* Of the checkpoints that hold node id and begin at `from` or later: the outermost; -1: none. */
int32_t mb__region_around(const mb_context *ctx, uint32_t id, uint32_t from);
/* Makes a checkpoint of the nodes from `first` to the newest. */
mb_status mb__region_add(mb_context *ctx, uint32_t first, bool products);

/* Node id once more, with these operands, at its own site. 0: error set. */
uint32_t mb__record_again(mb_context *ctx, uint32_t id, const uint32_t *in);

/* What the copy of a scan's inside reads and gives: of the step, or its inverse, or both. Nodes of the other
 * are not copied. */
typedef struct mb__inside {
    const uint32_t *placeholders; /* what stands for them: carries, which may be 0, then slices */
    const uint32_t *captures;     /* what stands for the scan's captures, in their order */
    uint32_t *results; /* the copies of the carries' next values, then of what is stacked; NULL: not wanted */
    const uint32_t *afters; /* what stands for the carries after a step; NULL: without the inverse */
    uint32_t *befores;      /* the copies of what they were before */
} mb__inside;
bool mb__copy_inside(mb_context *ctx, uint32_t scan, const mb__inside *to);

#endif
