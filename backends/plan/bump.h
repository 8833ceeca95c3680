/* SPDX-License-Identifier: MIT
 * bump.h - memory that is freed all at once. */
#ifndef MB_BUMP_H
#define MB_BUMP_H

#include "backends/plan/host.h"

typedef struct mb__bump {
    const mb__host *host;
    struct mb__chunk *chunks;
    size_t used, total; /* of the newest chunk; of all chunks */
} mb__bump;

void *mb__bump_get(mb__bump *b, size_t bytes); /* zeroed, aligned to 16; NULL: no memory */
void mb__bump_free(mb__bump *b);
/* A growing array in bump memory: doubles by copying. */
void *mb__bump_grow(mb__bump *b, void *old, int count, int *capacity, size_t item);

#endif
