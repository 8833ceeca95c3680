/* SPDX-License-Identifier: MIT
 *
 * backends.h - contexts: a tape and the backend that computes it.
 *
 * A flush takes the part of the tape that the wanted values need, and looks up a plan by its structure: ops,
 * shapes, dtypes, literals, what is kept. If there is none it makes one: simplify, merge equal nodes, drop
 * dead ones, fuse, place memory, compile. Plans are kept, so a training step that repeats is only replayed:
 * with new data, scalars and random keys, and without a heap allocation.
 *
 * Environment, read when a context is opened:
 *   MB_BACKEND   the backend when none is named: reference, cpu, or another registered one
 *   MB_THREADS   worker threads of the cpu backend (default: the CPUs this process may use)
 *   MB_CPU       at most this instruction set for the cpu backend's loops: base, v3 (AVX2), v4 (AVX-512)
 *   MB_DISABLE   passes to leave out, by commas: simplify,merge,dead,fuse,sink,inplace,reuse,cache
 *   MB_DEBUG=1   compute after each op; the first NaN or infinity made from finite operands is an error that
 *                names op, shapes and line
 */
#ifndef MB_BACKENDS_H
#define MB_BACKENDS_H

#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mb_options {
    size_t size;         /* sizeof(mb_options), for later versions; 0 is taken as that               */
    const char *backend; /* NULL: $MB_BACKEND, or the best one present                               */
    int threads;         /* 0: $MB_THREADS, or the CPUs this process may use                         */
    const mb_allocator *allocator; /* NULL: malloc. Copied.                                               */
    size_t plan_cache_bytes; /* 0: 256 MiB. The least recently used plans go first.                      */
    const char *disable;     /* NULL: $MB_DISABLE                                                        */
    void (*log)(void *user, const char *line); /* told what a user may want to know, such as a tape that
                                                  keeps growing; NULL: silence                          */
    void *log_user;
} mb_options;

/* Opens a context on a backend by name. The cpu backend sets OpenBLAS to one thread a call, for the whole
 * process, and splits products over its own threads. Returns NULL only when there is no memory at all; any
 * other failure, such as an unknown backend, is the context's first error. */
MB_API mb_context *mb_open(const char *backend);
MB_API mb_context *mb_open_with(const mb_options *options);
/* Frees the context and everything recorded in it. Returns its first error. NULL is allowed. */
MB_API mb_status mb_close(mb_context *ctx);

MB_API const char *mb_backend_name(const mb_context *ctx);
/* The i-th registered backend's name, best first; NULL past the last. */
MB_API const char *mb_backend_at(int i);

typedef struct mb_stats {
    uint64_t flushes;           /* flushes that computed something                            */
    uint64_t plans;             /* plans made                                                 */
    uint64_t plan_hits;         /* flushes that found their plan                              */
    uint64_t plan_bytes;        /* bytes held by cached plans, their arenas included          */
    uint64_t plans_cached;      /* plans in the cache now                                     */
    uint64_t nodes;             /* nodes on the tape now                                      */
    uint64_t recorded;          /* nodes recorded since the context was opened                */
    uint64_t allocations;       /* calls of the allocator that took memory                    */
    uint64_t bytes, peak_bytes; /* held from the allocator now, and at most                   */
    uint64_t last_nodes;        /* of the last flush: nodes computed ...                      */
    uint64_t last_steps;        /* ... steps they became: kernels, products, ...              */
    uint64_t last_flops;        /* ... floating-point operations of its matrix products       */
    uint64_t last_arena_bytes;  /* ... bytes of memory for intermediate values                */
    double plan_seconds;        /* spent making plans, in all                                 */
} mb_stats;

MB_API mb_stats mb_get_stats(const mb_context *ctx);

#ifdef __cplusplus
}
#endif
#endif
