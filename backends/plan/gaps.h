/* SPDX-License-Identifier: MIT
 * gaps.h - the free ranges of a block of memory, and best fit among them: of a plan's arena, and of the
 * blocks that a device's memory comes in. */
#ifndef MB_GAPS_H
#define MB_GAPS_H

#include <stdbool.h>
#include <stdint.h>

/* Lists of these are sorted by offset; two that touch are merged. */
typedef struct mb__gap {
    uint64_t offset, bytes;
} mb__gap;

/* Takes from the smallest gap that is large enough. Linear in the gaps. */
bool mb__gap_take(mb__gap *gaps, uint32_t *count, uint64_t bytes, uint64_t *offset);
/* Adds a range that is in use; the array must have space for one more entry. */
void mb__gap_give(mb__gap *gaps, uint32_t *count, uint64_t offset, uint64_t bytes);

#endif
