/* SPDX-License-Identifier: MIT
 * gaps.c - best fit among the free ranges of a block of memory. */
#include "backends/plan/gaps.h"

#include <string.h>

static void drop(mb__gap *gaps, uint32_t *count, uint32_t i)
{
    memmove(gaps + i, gaps + i + 1, (--*count - i) * sizeof *gaps);
}

bool mb__gap_take(mb__gap *gaps, uint32_t *count, uint64_t bytes, uint64_t *offset)
{
    uint32_t best = UINT32_MAX;
    for (uint32_t i = 0; i < *count; i++)
        if (gaps[i].bytes >= bytes && (best == UINT32_MAX || gaps[i].bytes < gaps[best].bytes))
            best = i;
    if (best == UINT32_MAX)
        return false;
    *offset = gaps[best].offset;
    gaps[best].offset += bytes;
    gaps[best].bytes -= bytes;
    if (!gaps[best].bytes)
        drop(gaps, count, best);
    return true;
}

/* The first gap at or behind the offset. */
static uint32_t place_of(const mb__gap *gaps, uint32_t count, uint64_t offset)
{
    uint32_t low = 0, high = count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (gaps[middle].offset < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void mb__gap_give(mb__gap *gaps, uint32_t *count, uint64_t offset, uint64_t bytes)
{
    uint32_t i = place_of(gaps, *count, offset);
    bool before = i > 0 && gaps[i - 1].offset + gaps[i - 1].bytes == offset;
    bool after = i < *count && offset + bytes == gaps[i].offset;
    if (before && after) {
        gaps[i - 1].bytes += bytes + gaps[i].bytes;
        drop(gaps, count, i);
    } else if (before) {
        gaps[i - 1].bytes += bytes;
    } else if (after) {
        gaps[i] = (mb__gap){offset, gaps[i].bytes + bytes};
    } else {
        memmove(gaps + i + 1, gaps + i, ((*count)++ - i) * sizeof *gaps);
        gaps[i] = (mb__gap){offset, bytes};
    }
}
