/* SPDX-License-Identifier: MIT
 *
 * host.h - what the planner and the backends may ask of the engine that they work for, and nothing else:
 * memory, a place for errors, a log, a clock's readings, counters.
 */
#ifndef MB_HOST_H
#define MB_HOST_H

#include "tensor/tensor.h"

struct mb__plan;

/* What a backend counts; see mb_stats. */
typedef struct mb__counters {
    uint64_t pipelines, descriptor_writes, device_allocations, recordings, submits;
    uint64_t last_dispatches, last_barriers; /* of the last run */
    uint64_t device_bytes;                   /* device memory held now */
} mb__counters;

/* No memory is not an error down here: a function that gets none gives back what it took and returns NULL,
 * false or MB_NO_MEMORY. The engine then lets go of what it keeps for speed, tries again, and only when that
 * fails is it the context's error. Every other failure is told to `error` by whoever knows best what went
 * wrong, once nobody can do without. */
typedef struct mb__host {
    void *user;                                           /* first argument of all these                 */
    void *(*alloc)(void *user, size_t bytes);             /* not zeroed; NULL: none, and no error is set */
    void (*free)(void *user, void *memory, size_t bytes); /* bytes: as asked for; NULL is allowed        */
    /* Sets the context's error if it has none; returns status. site: of a node; NULL: of the running call. */
    mb_status (*error)(void *user, mb_status status, const char *site, const char *format, ...)
        MB_PRINTF(4, 5);
    void (*log)(void *user, const char *format, ...) MB_PRINTF(2, 3); /* a line for the user's log */
    /* The time that a step took; NULL: nobody wants to know. */
    void (*timed)(void *user, const struct mb__plan *plan, int step, double seconds);
    /* While a plan is compiled: what a kernel became, in lines of text for people, and as code, if there is
     * any. NULL: nobody asked. */
    void (*listing)(void *user, const struct mb__plan *plan, int step, const char *text, const void *code,
                    size_t bytes);
    mb__counters *counters;
} mb__host;

static inline void *mb__host_alloc_raw(const mb__host *h, size_t bytes)
{
    return h->alloc(h->user, bytes);
}
void *mb__host_alloc(const mb__host *h, size_t bytes); /* zeroed */
static inline void mb__host_free(const mb__host *h, void *memory, size_t bytes)
{
    h->free(h->user, memory, bytes);
}
/* Makes room for `need` items of `item` bytes in a growing array; new ones are zero. False: no memory, and
 * the array is as it was. */
bool mb__host_reserve(const mb__host *h, void **array, uint32_t *room, uint64_t need, size_t item);

/* A clock that only goes forward, in seconds. */
double mb__now(void);

#endif
