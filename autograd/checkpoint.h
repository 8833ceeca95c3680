/* SPDX-License-Identifier: MIT
 * checkpoint.h - copies of checkpoints, for the reverse sweep. Private to autograd/. */
#ifndef MB_CHECKPOINT_H
#define MB_CHECKPOINT_H

#include "tensor/copy.h"

/* Records again the nodes of [first, last] that are marked in `needed` (by id - low), from barriers of what
 * they read from outside, which wait for `cotangent`. The copy of node id is then ctx->copies[id]; it is one
 * of these copies only if that is `*start` or more. Checkpoints inside have their copies, too. */
mb_status mb__region_copy(mb_context *ctx, int32_t region, uint32_t last, const uint8_t *needed, uint32_t low,
                          uint32_t cotangent, uint32_t *start);

/* Whether a node stands for the one before it, a copy of a node whose value was kept. */
bool mb__is_stand_in(const mb_context *ctx, uint32_t id);

#endif
