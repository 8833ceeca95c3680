/* SPDX-License-Identifier: MIT
 *
 * backend.h - the interface that a backend implements. backends/reference/ is the example of how to write one
 * in the library, examples/backend/ of one apart from it.
 *
 * A backend receives whole plans (plan.h): compile once, run many times. It is opened for one context, is
 * called by one thread, and uses nothing of the library but its host (host.h). Functions that fail return
 * MB_NO_MEMORY without reporting anything, or report the error to the host and return its status.
 *
 * A backend apart from the library is a struct mb__backend, which a program registers (mb_backend_register in
 * backends.h), or the only thing that a shared object moebius-NAME.so has to show (MB_BACKEND_EXPORT below),
 * which is found in the folders of MB_BACKEND_PATH. It includes this header as <backends/plan/backend.h>, and
 * needs no symbol of the library: what the headers declare is inline, comes with the plan, or is reached
 * through the host. (Of tensor/op.h it uses the types: the op table is host->ops.) It must give its own
 * symbols no names that begin with mb.
 *
 * Stability. Names that begin with mb__ are the library's own. Of these, what backend.h, plan.h, host.h,
 * custom.h, philox.h and op.h declare is installed for backends, and kept by a number in place of a promise:
 * whenever a type or the meaning of a field changes, MB_BACKEND_VERSION does, and backends of another version
 * are refused before anything else of theirs is read. A backend is then compiled again, and CHANGELOG.md says
 * what to change. New ops change it, too, since they are known by number: refuse by host->error, in compile,
 * what you do not know.
 */
#ifndef MB_BACKEND_H
#define MB_BACKEND_H

#include "backends/plan/device.h"
#include "backends/plan/host.h"
#include "backends/plan/plan.h"

/* A number that is bound at each run: a scalar's, or the key of random draws. */
typedef struct mb__scalar {
    bool is_key;
    uint8_t dtype; /* of the number */
    union {
        double number;
        uint64_t key;
    } u;
} mb__scalar;

typedef struct mb__binding {
    void *arena;
    void *const *inputs, *const *outputs; /* memory of the backend's */
    const mb__scalar *scalars;
} mb__binding;

/* Where value i lies in a run, for backends whose memory the host can address. */
static inline void *mb__value_at(const mb__plan *plan, const mb__binding *b, int i)
{
    const mb__value *v = &plan->values[i];
    return v->storage == MB_IN_INPUT    ? b->inputs[v->index]
           : v->storage == MB_IN_OUTPUT ? b->outputs[v->index]
                                        : (char *)b->arena + v->offset;
}

/* The options of mb_open that concern a backend. */
typedef struct mb__open_options {
    const char *device; /* what follows the colon of the name; NULL */
    int threads;        /* 0: as many as suit */
    bool guard;         /* values lie MB_GUARD_BYTES apart: a write between them can be noticed */
    bool plain;         /* operations run one by one, where the backend has another way with the same bits */
} mb__open_options;

/* A backend's limits, filled in when it is opened. */
typedef struct mb__limits {
    uint64_t buffer_bytes; /* of one value, at most; 0: no limit */
} mb__limits;

/* Version of this struct and of all types that it uses, and how many ops there are; a backend of another
 * version is rejected. */
#define MB_BACKEND_VERSION (7 * 1000 + MB_OP_COUNT)

typedef struct mb__backend {
    int version; /* MB_BACKEND_VERSION */
    const char *name;
    bool fuses;   /* takes kernels of more than one op; false: one op a step, nothing simplified */
    bool strided; /* takes products of any strides; false: operands are packed where BLAS needs it */
    bool adds;    /* takes products that add to what their result holds */
    bool loops;   /* runs steps that are loops; false: gets all their steps one after the other */
    bool
        oracle; /* computes in float64 whatever the dtype, by the plainest loops: MB_DEBUG compares with it */
    /* Fills in up to `capacity` devices, best first, and returns how many there are. *why: one sentence where
     * there is none, else untouched. */
    int (*list)(mb_device *devices, int capacity, const char **why);
    /* *state is what the other functions get; NULL where opening failed. The host outlives it. */
    mb_status (*open)(const mb__host *host, const mb__open_options *options, void **state,
                      mb__limits *limits);
    void (*close)(void *state);
    size_t (*element_size)(mb_dtype dtype); /* in its own memory */
    mb_status (*memory_new)(void *state, size_t bytes, void **memory);
    void (*memory_free)(void *state, void *memory, size_t bytes);
    /* from: packed values of mb_dtype_size each, or NULL for zeros. */
    mb_status (*upload)(void *state, void *memory, mb_dtype dtype, int64_t count, const void *from);
    mb_status (*download)(void *state, void *memory, mb_dtype dtype, int64_t count, void *to);
    /* The plan outlives the program. *bytes: memory that the program holds, for the cache's bound. */
    mb_status (*compile)(void *state, const mb__plan *plan, void **program, size_t *bytes);
    void (*discard)(void *state, void *program);
    /* Inputs are only read. A run that failed may be tried again. */
    mb_status (*run)(void *state, void *program, const mb__binding *binding);
    /* For backends with device memory, NULL elsewhere: *more becomes what `count` calls of memory_new with
     * these sizes would add to mb__counters.device_bytes, if `freed` (NULL: nothing) were freed before the
     * last of them. Changes nothing. */
    mb_status (*foresee)(void *state, const size_t *bytes, int count, void *freed, uint64_t *more);
} mb__backend;

/* In one file of a shared object: MB_BACKEND_EXPORT(trace), where `trace` is an mb__backend. */
#define MB_BACKEND_SYMBOL moebius_backend
#define MB_BACKEND_EXPORT(backend)                                                                           \
    MB_API extern const int moebius_backend_version;                                                         \
    MB_API extern const mb__backend *const moebius_backend;                                                  \
    const int moebius_backend_version = MB_BACKEND_VERSION;                                                  \
    const mb__backend *const moebius_backend = &(backend)

#endif
