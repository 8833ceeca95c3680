/* SPDX-License-Identifier: MIT
 * checkpoint.h - copies of checkpoints, for the reverse sweep. Private to autograd/. */
#ifndef MB_CHECKPOINT_H
#define MB_CHECKPOINT_H

#include "tensor/copy.h"

/* Records copies of the region's nodes up to `last` that are marked in `needed` (indexed by id - low). They
 * read values from outside the region through barriers, which wait for `cotangent`. The copy of node id is
 * then ctx->copies[id], if that is *start or more. Checkpoints inside the region are copied as well. */
mb_status mb__region_copy(mb_context *ctx, int32_t region, uint32_t last, const uint8_t *needed, uint32_t low,
                          uint32_t cotangent, uint32_t *start);

/* Whether a node is a barrier that replaces the node before it, the copy of a node whose value was stored. */
bool mb__is_stand_in(const mb_context *ctx, uint32_t id);

#endif
