/* SPDX-License-Identifier: MIT
 * regions.c - the list of checkpoints on the tape: sorted by their ends, each with the one around it.
 */
#include "tensor/copy.h"

/* The first region that ends at id or later. */
static uint32_t first_ending(const mb_context *ctx, uint32_t id)
{
    uint32_t low = 0, high = ctx->region_count;
    while (low < high) {
        uint32_t mid = (low + high) / 2;
        if (ctx->regions[mid].last < id)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

int32_t mb__region_around(const mb_context *ctx, uint32_t id, uint32_t from)
{
    /* The innermost one is the first in the list that ends at id or later and begins before it; the others
     * are around that. */
    uint32_t i = first_ending(ctx, id);
    while (i < ctx->region_count && ctx->regions[i].first > id) /* a later one; one around both may follow */
        i = ctx->regions[i].around >= 0 ? (uint32_t)ctx->regions[i].around : ctx->region_count;
    int32_t found = -1;
    for (int32_t r = i < ctx->region_count ? (int32_t)i : -1; r >= 0; r = ctx->regions[r].around)
        if (ctx->regions[r].first >= from)
            found = r;
    return found;
}

mb_status mb__region_add(mb_context *ctx, uint32_t first, bool products)
{
    if (ctx->node_count <= first)
        return MB_OK; /* nothing was recorded */
    if (!mb__reserve(ctx, (void **)&ctx->regions, &ctx->region_capacity, (uint64_t)ctx->region_count + 1,
                     sizeof *ctx->regions))
        return ctx->status;
    int32_t self = (int32_t)ctx->region_count++;
    ctx->regions[self] = (mb__region){first, ctx->node_count - 1, -1, products};
    for (int32_t i = self - 1; i >= 0 && ctx->regions[i].last >= first; i--)
        if (ctx->regions[i].around < 0)
            ctx->regions[i].around = self;
    return MB_OK;
}
