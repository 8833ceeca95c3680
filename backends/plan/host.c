/* SPDX-License-Identifier: MIT
 * host.c - memory of the host's, and the clock. */
#include <string.h>
#include <time.h>

#include "backends/plan/host.h"

void *mb__host_alloc(const mb__host *h, size_t bytes)
{
    void *p = mb__host_alloc_raw(h, bytes);
    return p ? memset(p, 0, bytes) : NULL;
}

bool mb__host_reserve(const mb__host *h, void **array, uint32_t *room, uint64_t need, size_t item)
{
    if (need <= *room)
        return true;
    uint64_t next = *room + *room / 2 + 64;
    if (next < need)
        next = need;
    if (next > UINT32_MAX || next > PTRDIFF_MAX / item)
        return false;
    void *p = mb__host_alloc(h, (size_t)next * item);
    if (!p)
        return false;
    if (*room)
        memcpy(p, *array, (size_t)*room * item);
    mb__host_free(h, *array, (size_t)*room * item);
    *array = p;
    *room = (uint32_t)next;
    return true;
}

double mb__now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
