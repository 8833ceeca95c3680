/* SPDX-License-Identifier: MIT
 *
 * backends.h - contexts: a tape and the backend that computes it.
 *
 * A flush takes the part of the tape that the requested values need, and looks up a plan by its structure:
 * ops, shapes, dtypes, literals, what is kept. If there is none it makes one: simplify, merge equal nodes,
 * drop dead ones, fuse, place memory, compile. Plans are kept, so a training step that repeats is only
 * replayed: with new data, scalars and random keys, and without a heap allocation.
 *
 * Environment, read when a context is opened:
 *   MB_BACKEND   the backend when none is named: cpu, reference, vulkan, or a device of one: vulkan:1,
 *                vulkan:nvidia (a part of the name), vulkan:<uuid>
 *   MB_BACKEND_PATH   folders, by colons, of backends that are not part of the library: NAME is that of
 *                moebius-NAME.so
 *   MB_THREADS   worker threads of the cpu backend (default: the CPUs this process may use)
 *   MB_CPU       at most this instruction set for the cpu backend's loops: base, v3 (AVX2), v4 (AVX-512);
 *                unset: all that there are, AVX512-BF16 for products of bfloat16 among them
 *   MB_DISABLE   passes to leave out, by commas: simplify,merge,dead,fuse,sink,inplace,reuse,cache,loops,
 *                chain,slices
 *   MB_ARENA_BYTES   mb_options.arena_bytes, where that is 0; 1, for tests: as many slices as there can be
 *   MB_DEBUG=1   compute after each op; where a result is not finite, the first infinity made from finite
 *                operands, or NaN made from operands without one, by which it became so, is an error that
 *                names op, shapes and line; so is such a NaN that is compared, sorted or cast to an integer,
 *                the first value that the reference backend disputes, and an index outside of its axis.
 *                What is left out by mb_where is no mistake.
 *                The steps of scans are written out for that, one at a time; the step is told, too. At last
 *                what simplification made of the whole flush is compared with what was recorded, both
 *                computed in float64: a result that it changes by more than rounding is an error
 *   MB_PROFILE=1 at the close, a table of where the time went, by op and line, on the standard error; or in
 *                the file that it names instead. Steps are timed one by one, which slows GPUs down; those of
 *                a loop on their own lines, once for each time that they run
 *   MB_LOG=1     what mb_options.log would be told, on the standard error, where that is not set
 *   MB_DUMP      stages of each plan that is made, as readable text, by commas: tape (the nodes needed, as
 *                recorded), graph (simplified, and where each node's elements lie), groups (what becomes one
 *                kernel), steps, arena (where values lie, and from which step to which), kernels (their
 *                instructions, and what the backend makes of them), or all; anything else is an error. Each
 *                line gives the call site that recorded it. CONTRIBUTING.md walks through a small example.
 *   MB_DUMP_TO   the folder they go to, in place of the standard error: plan-0001-graph.txt, and .dot for
 *                graphviz (dot -Tsvg), and so on; plan-0001-kernel-01.spv on vulkan. The folder is made if it
 *                is missing; one that cannot be written to is an error. Plans are numbered by the process.
 *
 * A value that makes no sense, such as MB_CPU=fast or a file that cannot be written to, is an error of
 * mb_open's. Of the vulkan backend:
 *   MB_VULKAN_VALIDATE=1   with Khronos's validation layer, any message of which is an error; "gpu": with
 *                          checks of each access on the device, instead of those of synchronization
 *   MB_VULKAN_CACHE        folder for compiled pipelines, or "off"; default: moebius/ in the user's cache
 *   MB_VULKAN_LABELS=1     each kernel is labelled with its op and line, for tools that capture a run
 *   MB_VULKAN_BATCH        work in a submit, in operations (3e10; 1e10 on an integrated GPU): less where a
 *                          system ends long work
 * and, for tests:
 *   MB_VULKAN_LIMITS=minimum   only the limits that Vulkan guarantees on every device
 *   MB_VULKAN_STAGING=1        as if no device memory were visible to the host
 *   MB_VULKAN_BARRIERS         every: one before each kernel; backwards: kernels between two in reverse
 *   MB_GUARD=1          a kernel that writes past its value is an error
 *   MB_VULKAN_QUIRKS           flags of quirks.c to add
 *   MB_VULKAN_FAULT=n[:memory|:lost]   the n-th call of Vulkan fails
 *
 * Numbers of the vulkan backend: + - * are those of IEEE 754; / and square root are as good as the device
 * makes them, on a GPU often within one or two units in the last place; elementary functions are our own,
 * within one to three units. Subnormal numbers (in float32 those below 1.2e-38), NaN and infinities are kept
 * where the device can be asked to keep them (most that have Vulkan 1.2); elsewhere the first may be 0.
 *
 * Stability: as in tensor.h. mb_options, mb_stats and mb_costs may grow at their ends; the variables of the
 * environment that are for tests may change in any version.
 */
#ifndef MB_BACKENDS_H
#define MB_BACKENDS_H

#include "backends/plan/device.h"
#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mb_options {
    size_t size;         /* sizeof(mb_options), for later versions; 0 is taken as that               */
    const char *backend; /* NULL: $MB_BACKEND, or the best one present                               */
    int threads;         /* 0: $MB_THREADS, or the CPUs this process may use                         */
    const mb_allocator *allocator; /* NULL: malloc. Copied.                                               */
    /* 0: 256 MiB. Of plans and what backends compiled of them; of the latter the 8 plans used last keep
     * theirs in any case. The least recently used plans go first. A driver does not tell what its code of a
     * kernel takes: counted are 1 MiB on processors, as measured, and 32 KiB on GPUs. */
    size_t plan_cache_bytes;
    const char *disable; /* NULL: $MB_DISABLE                                                        */
    /* Receives warnings, such as a tape that keeps growing, or gradients of parameters that y does not depend
     * on. NULL: warnings are dropped. */
    void (*log)(void *user, const char *line);
    void *log_user;
    /* What a flush's intermediate values should take at most, in bytes; SIZE_MAX: whatever they take; 0:
     * $MB_ARENA_BYTES, or else, on cpu and what else fuses and has its values in the host's memory, 300 MiB,
     * as far as slices are no slower than the whole, as those of scans of many small steps are. Where they
     * would take more, and most of them belong to one entry each of an axis of what goes in, the batch, the
     * flush runs in equal slices of the batch: as many as are needed, or help. A slice's values are computed
     * as they are without; a sum over the batch is the sum of those of the slices, and off by a rounding more
     * for each of them. What depends on such a sum is computed after it for the whole batch, and so is all
     * that reads neighbours along the batch. A scan is in the loop as a whole, or not at all. The same on
     * every run and any number of threads; mb_stats.last_slices tells how many. */
    size_t arena_bytes;
} mb_options;

/* Opens a context on a backend by name. The cpu backend computes under the floating-point environment
 * (rounding, flush to zero, traps) of the thread that flushes, on all of its threads. It loads OpenBLAS, sets
 * it to one thread a call, for the whole process, and splits products over its own threads; without OpenBLAS,
 * which the log tells, large products take longer. Returns NULL only when there is no memory at all; any
 * other failure, such as an unknown backend, is the context's first error. */
MB_API mb_context *mb_open(const char *backend);
MB_API mb_context *mb_open_with(const mb_options *options);
/* Frees the context and everything recorded in it. Returns its first error. NULL is allowed. */
MB_API mb_status mb_close(mb_context *ctx);

/* Fills in up to `capacity` devices, the backends' best first, and returns how many there are. why, if not
 * NULL, is set to one sentence that says why there is no Vulkan device and what to do, or to NULL if there is
 * one.
 */
MB_API int mb_devices(mb_device *devices, int capacity, const char **why);

MB_API const char *mb_backend_name(const mb_context *ctx);
/* The i-th backend's name: those of the library, best first, then those that were registered or loaded, in
 * that order; NULL past the last. */
MB_API const char *mb_backend_at(int i);

/* Makes a backend of one's own known to mb_open, in the whole process and until its end; it must live as
 * long, and so must its functions. From any thread. Its interface is <backends/plan/backend.h>, where
 * mb_backend is called mb__backend. mb_open looks for a name among the backends of the library and those
 * registered, which never have the same name, and then for a file moebius-NAME.so in the folders of
 * MB_BACKEND_PATH, which it loads (dlopen, RTLD_LOCAL) and registers. So a file cannot take the place of what
 * is there. MB_BACKEND: of another version of the interface, or the name is taken by another backend (by the
 * same one: MB_OK). MB_INVALID: NULL, a function is missing, or the name is not 1 to 31 of a-z, 0-9, - and _.
 * MB_NO_MEMORY. `why`, of `size` bytes, if not NULL, then becomes a sentence. */
typedef struct mb__backend mb_backend;
MB_API mb_status mb_backend_register(const mb_backend *backend, char *why, size_t size);

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
    uint64_t last_steps;        /* ... steps they became: kernels, products, loops, ...       */
    uint64_t last_flops;        /* ... floating-point operations of its matrix products       */
    uint64_t last_arena_bytes;  /* ... bytes of memory for intermediate values                */
    double plan_seconds;        /* spent making plans, in all                                 */
    /* Of the vulkan backend; from the second replay of a step on, the first four stay as they are. */
    uint64_t pipelines;                      /* made                                                      */
    uint64_t descriptor_writes;              /* buffers bound in descriptors                                */
    uint64_t device_allocations;             /* blocks of device memory                                   */
    uint64_t device_bytes;                   /* in them now                                               */
    uint64_t recordings;                     /* of command buffers                                        */
    uint64_t submits;                        /* submit batches sent to the device                         */
    uint64_t last_dispatches, last_barriers; /* of the last flush                             */
    uint64_t
        last_slices; /* of the last flush: slices of the batch (mb_options.arena_bytes); 1: it ran whole */
} mb_stats;

MB_API mb_stats mb_get_stats(const mb_context *ctx);

/* What a flush would take. The bytes up to other_bytes add up to peak_bytes. On a backend whose device has
 * memory of its own (vulkan) they are device memory, which is taken in blocks: what of them is not used is
 * among other_bytes. */
typedef struct mb_costs {
    uint64_t peak_bytes;     /* held at most until the flush has ended: the context's memory (mb_stats.bytes,
                                or device_bytes) as it is, and what is added to it                           */
    uint64_t variable_bytes; /* values of variables: parameters, an optimizer's state ... */
    uint64_t input_bytes;  /* ... other values that the flush reads ...                                     */
    uint64_t live_bytes;   /* ... and those that it does not                                                */
    uint64_t result_bytes; /* values that it makes and keeps: new ones of variables, what is read           */
    uint64_t loop_bytes;   /* what scans keep for later scans, above all carries for derivatives            */
    uint64_t temporary_bytes; /* all other intermediate values */
    uint64_t other_bytes;     /* the tape, plans, programs and their scratch, unused buffers, an arena larger
                                 than this flush needs                                                         */
    uint64_t held_bytes; /* of peak_bytes, what is held already                                           */
    uint64_t plan_bytes; /* the plan and the backend's program of it, which is made already               */
    uint64_t flops;      /* of its matrix products, those of scans as often as they run                   */
    uint64_t steps;      /* kernels, products, ... that run, those of scans as often as they run          */
    uint64_t nodes;      /* computed; of a scan's body counted once                                       */
    double plan_seconds; /* that planning took now; 0 where the plan was there                            */
} mb_costs;

/* Says what a flush of these n tensors, with what is assigned and watched, would take, and computes nothing.
 * The plan is made and kept: the flush finds it. n = 0: of what is assigned and watched alone. Inside of a
 * scope, what mb_scope_end will compute. The memory that planning itself takes is given back before the flush
 * and not counted. Two things to know:
 *   - the first step of a kind is smaller than those after it, where variables have no value yet: flush the
 *     initial values before (mb_eval);
 *   - with MB_DEBUG, which computes op by op, it says what would be without.
 * Errors: as mb_eval; watches and assignments stay. Zeros in *costs then. */
MB_API mb_status mb_forecast_at(const char *site, mb_context *ctx, const mb_tensor *tensors, int n,
                                mb_costs *costs);
#define mb_forecast(...) mb_forecast_at(MB_HERE, __VA_ARGS__)

#ifdef __cplusplus
}
#endif
#endif
