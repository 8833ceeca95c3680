/* SPDX-License-Identifier: MIT
 * backend.c - what the library calls; see trace.h. */
#include <stdlib.h>

#include "trace.h"

static int list(mb_device *devices, int capacity, const char **why)
{
    (void)why; /* there always is one */
    if (capacity > 0)
        *devices = (mb_device){
            .backend = "trace", .name = "plain loops, written as C", .kind = "processor", .float64 = true};
    return 1;
}

static mb_status open_trace(const mb__host *host, const mb__open_options *options, void **state,
                            mb__limits *limits)
{
    if (options->device)
        return host->error(host->user, MB_BACKEND, NULL, "open: trace has no device \"%.40s\"; wanted none",
                           options->device);
    trace *t = mb__host_alloc(host, sizeof *t);
    if (!t)
        return MB_NO_MEMORY;
    t->host = host;
    *limits = (mb__limits){0};
    const char *path = getenv("TRACE_TO");
    if (path && *path && !(t->out = fopen(path, "a"))) {
        mb__host_free(host, t, sizeof *t);
        return host->error(host->user, MB_IO, NULL,
                           "open: TRACE_TO is \"%.200s\", which cannot be written to", path);
    }
    *state = t;
    return MB_OK;
}

static void close_trace(void *state)
{
    trace *t = state;
    if (!t)
        return;
    if (t->out)
        fclose(t->out);
    mb__host_free(t->host, t, sizeof *t);
}

/* ---- memory: doubles of every dtype ---- */

static size_t element_size(mb_dtype dtype)
{
    (void)dtype;
    return sizeof(double);
}

static mb_status memory_new(void *state, size_t bytes, void **memory)
{
    *memory = mb__host_alloc_raw(((trace *)state)->host, bytes);
    return *memory ? MB_OK : MB_NO_MEMORY;
}

static void memory_free(void *state, void *memory, size_t bytes)
{
    mb__host_free(((trace *)state)->host, memory, bytes);
}

/* An int64 may be none that a double holds, halves would have to be rounded by each op. */
static mb_status refuse_dtype(const trace *t, const char *site, int dtype)
{
    if (dtype <= MB_BOOL)
        return MB_OK;
    return t->host->error(t->host->user, MB_BACKEND, site,
                          "trace: float32, float64, int32 and bool are all that it computes");
}

static mb_status upload(void *state, void *memory, mb_dtype dtype, int64_t count, const void *from)
{
    double *to = memory;
    if (refuse_dtype(state, NULL, (int)dtype) != MB_OK)
        return MB_BACKEND;
    for (int64_t i = 0; i < count; i++)
        to[i] = !from                 ? 0
                : dtype == MB_FLOAT32 ? (double)((const float *)from)[i]
                : dtype == MB_FLOAT64 ? ((const double *)from)[i]
                : dtype == MB_INT32   ? ((const int32_t *)from)[i]
                                      : ((const uint8_t *)from)[i] != 0;
    return MB_OK;
}

static mb_status download(void *state, void *memory, mb_dtype dtype, int64_t count, void *to)
{
    (void)state;
    const double *from = memory;
    for (int64_t i = 0; i < count; i++)
        if (dtype == MB_FLOAT32)
            ((float *)to)[i] = (float)from[i];
        else if (dtype == MB_FLOAT64)
            ((double *)to)[i] = from[i];
        else if (dtype == MB_INT32)
            ((int32_t *)to)[i] = (int32_t)from[i];
        else
            ((uint8_t *)to)[i] = from[i] != 0;
    return MB_OK;
}

/* ---- plans ---- */

static mb_status refuse(const trace *t, const mb__step *s, const char *what)
{
    return t->host->error(t->host->user, MB_BACKEND, s->site, "trace: there are no loops for %s", what);
}

static mb_status known_dtypes(const trace *t, const mb__plan *plan)
{
    mb_status status = MB_OK;
    for (int i = 0; i < plan->value_count && status == MB_OK; i++)
        status = refuse_dtype(t, NULL, plan->values[i].dtype);
    for (const mb__step *s = plan->steps; s < plan->steps + plan->step_count; s++)
        for (int i = 0; s->kind == MB_STEP_KERNEL && i < s->u.kernel.instr_count && status == MB_OK; i++)
            status = refuse_dtype(t, s->site, s->u.kernel.instrs[i].dtype);
    return status;
}

/* Whether every step is known; reports the first that is not. */
static mb_status known(const trace *t, const mb__plan *plan, int *most)
{
    if (known_dtypes(t, plan) != MB_OK)
        return MB_BACKEND;
    for (const mb__step *s = plan->steps; s < plan->steps + plan->step_count; s++)
        switch (s->kind) {
        case MB_STEP_KERNEL:
            if (s->u.kernel.instr_count > *most)
                *most = s->u.kernel.instr_count;
            break;
        case MB_STEP_OTHER:
            if (!trace_knows_other(s->u.other))
                return refuse(t, s, t->host->ops[s->u.other->op].name);
            break;
        case MB_STEP_PRODUCT:
        case MB_STEP_CUSTOM:
        case MB_STEP_ZERO:
            break;
        default:
            return refuse(t, s, "a step of this kind");
        }
    return MB_OK;
}

static mb_status compile(void *state, const mb__plan *plan, void **made, size_t *bytes)
{
    trace *t = state;
    int most = 1;
    mb_status status = known(t, plan, &most);
    if (status != MB_OK)
        return status;
    program *p = mb__host_alloc(t->host, sizeof *p);
    double *registers = mb__host_alloc(t->host, (size_t)most * sizeof *registers);
    if (!p || !registers) {
        mb__host_free(t->host, p, sizeof *p);
        mb__host_free(t->host, registers, (size_t)most * sizeof *registers);
        return MB_NO_MEMORY;
    }
    *p = (program){plan, registers, most};
    *bytes = sizeof *p + (size_t)most * sizeof *registers;
    *made = p;
    if (t->out)
        trace_write_plan(t, plan);
    return MB_OK;
}

static void discard(void *state, void *made)
{
    const mb__host *host = ((trace *)state)->host;
    program *p = made;
    if (!p)
        return;
    mb__host_free(host, p->registers, (size_t)p->most * sizeof *p->registers);
    mb__host_free(host, p, sizeof *p);
}

static mb_status run_program(void *state, void *made, const mb__binding *binding)
{
    const program *p = made;
    return trace_run_plan(&(run){((trace *)state)->host, p->plan, binding, p->registers});
}

static const mb__backend trace_backend = {
    .version = MB_BACKEND_VERSION,
    .name = "trace",
    .fuses = false,
    .strided = true,
    .loops = false,
    .list = list,
    .open = open_trace,
    .close = close_trace,
    .element_size = element_size,
    .memory_new = memory_new,
    .memory_free = memory_free,
    .upload = upload,
    .download = download,
    .compile = compile,
    .discard = discard,
    .run = run_program,
};
MB_BACKEND_EXPORT(trace_backend);
