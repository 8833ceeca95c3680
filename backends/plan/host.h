/* SPDX-License-Identifier: MIT
 *
 * host.h - all that the planner and the backends may use of the engine that calls them:
 * memory, a place for errors, a log, what steps took, counters.
 */
#ifndef MB_HOST_H
#define MB_HOST_H

#include <string.h>

#include "tensor/tensor.h"

struct mb__plan;

/* What a backend counts; see mb_stats. */
typedef struct mb__counters {
    uint64_t pipelines, descriptor_writes, device_allocations, recordings, submits;
    uint64_t last_dispatches, last_barriers; /* of the last run */
    uint64_t device_bytes;                   /* device memory held now */
} mb__counters;

/* Running out of memory is not yet an error at this level: the function frees what it took and returns NULL,
 * false or MB_NO_MEMORY. The engine then frees its caches and tries again; only if that fails too does
 * it become the context's error. Every other failure is reported through `error` by the
 * function that knows the cause, once no fallback is left. */
typedef struct mb__host {
    void *user;                                           /* first argument of all these                 */
    void *(*alloc)(void *user, size_t bytes);             /* not zeroed; NULL: none, and no error is set */
    void (*free)(void *user, void *memory, size_t bytes); /* bytes: as asked for; NULL is allowed        */
    /* Sets the context's error if it has none; returns status. site: of a node; NULL: of the running call. */
    mb_status (*error)(void *user, mb_status status, const char *site, const char *format, ...)
        MB_PRINTF(4, 5);
    void (*log)(void *user, const char *format, ...) MB_PRINTF(2, 3); /* a line for the user's log */
    /* Receives the time that a step took; NULL: steps are not timed. */
    void (*timed)(void *user, const struct mb__plan *plan, int step, double seconds);
    /* While a plan is compiled: receives a listing of each kernel, as readable text and, where there is any,
     * as code. NULL: no listing was requested. */
    void (*listing)(void *user, const struct mb__plan *plan, int step, const char *text, const void *code,
                    size_t bytes);
    mb__counters *counters;
    /* The op table of tensor/op.h, for backends that are not part of the library, where mb__ops is hidden. */
    const struct mb__op_info *ops;
} mb__host;

static inline void *mb__host_alloc_raw(const mb__host *h, size_t bytes)
{
    return h->alloc(h->user, bytes);
}
static inline void *mb__host_alloc(const mb__host *h, size_t bytes) /* zeroed */
{
    void *p = mb__host_alloc_raw(h, bytes);
    return p ? memset(p, 0, bytes) : NULL;
}
static inline void mb__host_free(const mb__host *h, void *memory, size_t bytes)
{
    h->free(h->user, memory, bytes);
}
/* Makes room for `need` items of `item` bytes in a growing array; new ones are zero. False: no memory, and
 * the array is as it was. */
static inline bool mb__host_reserve(const mb__host *h, void **array, uint32_t *capacity, uint64_t need,
                                    size_t item)
{
    if (need <= *capacity)
        return true;
    uint64_t next = *capacity + *capacity / 2 + 64;
    if (next < need)
        next = need;
    if (next > UINT32_MAX || next > PTRDIFF_MAX / item)
        return false;
    void *p = mb__host_alloc(h, (size_t)next * item);
    if (!p)
        return false;
    if (*capacity)
        memcpy(p, *array, (size_t)*capacity * item);
    mb__host_free(h, *array, (size_t)*capacity * item);
    *array = p;
    *capacity = (uint32_t)next;
    return true;
}

#endif
