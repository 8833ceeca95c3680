/* SPDX-License-Identifier: MIT
 * backend.h - what the engine asks of a backend, and what a backend may ask of the engine. */
#ifndef MB_BACKEND_H
#define MB_BACKEND_H

#include "backends/plan/plan.h"

typedef struct mb__binding {
    void *arena;
    void *const *inputs, *const *outputs; /* backend memory */
    const double *scalars;                /* numbers, or random keys in the same 64 bits */
} mb__binding;

#define MB_BACKEND_VERSION 1

/* A backend. Functions return MB_OK or set the context's error. */
typedef struct mb__backend {
    int version;
    const char *name;
    bool fuses;   /* takes kernels of more than one op; false: one op a step, nothing simplified */
    bool strided; /* takes products of any strides; false: operands are packed where BLAS needs it */
    mb_status (*open)(mb_context *ctx, const char *device, int threads, unsigned passes, void **state);
    void (*close)(mb_context *ctx, void *state);
    size_t (*element_size)(mb_dtype dtype); /* in its own memory */
    void *(*memory_new)(mb_context *ctx, void *state, size_t bytes);
    void (*memory_free)(mb_context *ctx, void *state, void *memory, size_t bytes);
    mb_status (*upload)(mb_context *ctx, void *state, void *memory, mb_dtype dtype, int64_t count,
                        const void *from);
    mb_status (*download)(mb_context *ctx, void *state, void *memory, mb_dtype dtype, int64_t count,
                          void *to);
    void *(*compile)(mb_context *ctx, void *state, const mb__plan *plan,
                     size_t *bytes); /* plan outlives it */
    void (*discard)(mb_context *ctx, void *state, void *program);
    mb_status (*run)(mb_context *ctx, void *state, void *program, const mb__binding *binding);
} mb__backend;

/* Whether the time of each step is to be told, and telling it. */
bool mb__profiling(const mb_context *ctx);
void mb__profile_add(mb_context *ctx, const mb__plan *plan, int step, double seconds);

/* A line for the user's log callback, if there is one. */
void mb__log(mb_context *ctx, const char *format, ...) MB_PRINTF(2, 3);

extern const mb__backend mb__backend_reference, mb__backend_cpu, mb__backend_vulkan;

#endif
