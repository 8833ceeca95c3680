/* SPDX-License-Identifier: MIT
 *
 * cpu.c - the backend for processors: OpenBLAS for matrix products, fused loops through SIMD for everything
 * else, one pool of threads for both. Values lie in memory as the caller has them.
 */
#define _GNU_SOURCE
#include <cblas.h>
#include <sched.h>
#include <stdlib.h>
#include <strings.h>
#include <time.h>

#include "backends/cpu/frame.h"
#include "backends/plan/backend.h"

/* The loops for the widest instruction set that this CPU has and $MB_CPU allows. */
static const mb__loops *best_loops(void)
{
    const char *most = getenv("MB_CPU");
    int level = !most || !*most ? 4 : !strcmp(most, "v4") ? 4 : !strcmp(most, "v3") ? 3 : 0;
    (void)level;
#if defined(__x86_64__)
    __builtin_cpu_init();
#ifdef MB_HAVE_V4
    if (level >= 4 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        return &mb__loops_v4;
#endif
#ifdef MB_HAVE_V3
    if (level >= 3 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("bmi2"))
        return &mb__loops_v3;
#endif
#endif
    return &mb__loops_base;
}

/* Whether the kernels OpenBLAS chose use the vector instructions that this CPU has. */
static bool blas_fits(const mb__loops *loops)
{
    static const char *const wide[] = {"Haswell", "Zen", "SkylakeX", "Cooperlake", "SapphireRapids"};
    const char *core = openblas_get_corename();
    if (loops == &mb__loops_base)
        return true;
    for (size_t i = 0; core && i < sizeof wide / sizeof *wide; i++)
        if (!strcasecmp(core, wide[i]))
            return true;
    return false;
}

static int usable_cpus(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

/* Memory aligned to cache lines; where it came from is kept in front. */
static void *memory_new(mb_context *ctx, void *state, size_t bytes)
{
    (void)state;
    char *p = mb__alloc_raw(ctx, bytes + 128);
    if (!p)
        return NULL;
    char *aligned = (char *)(((uintptr_t)p + 127) & ~(uintptr_t)63);
    ((char **)(void *)aligned)[-1] = p;
    return aligned;
}
static void memory_free(mb_context *ctx, void *state, void *memory, size_t bytes)
{
    (void)state;
    mb__free(ctx, ((char **)memory)[-1], bytes + 128);
}
static void close_cpu(mb_context *ctx, void *state)
{
    mb__cpu *c = state;
    if (!c)
        return;
    int threads = c->threads;
    mb__pool_free(ctx, c->pool);
    for (int i = 0; c->scratch && i < threads; i++)
        if (c->scratch[i])
            memory_free(ctx, c, c->scratch[i], c->scratch_bytes);
    mb__free(ctx, c->scratch, (size_t)threads * sizeof *c->scratch);
    mb__free(ctx, c, sizeof *c);
}

static mb_status open_cpu(mb_context *ctx, const char *device, int threads, unsigned passes, void **state)
{
    (void)device, (void)passes;
    if (threads <= 0)
        threads = usable_cpus();
    if (threads > 1 && openblas_get_parallel() == 0)
        return mb__error(
            ctx, MB_BACKEND,
            "open: this OpenBLAS is the serial build, whose results are wrong when two threads call it; "
            "install libopenblas0-pthread, or open with one thread (MB_THREADS=1)");
    openblas_set_num_threads(1);
    mb__cpu *c = *state = mb__alloc(ctx, sizeof *c);
    if (!c)
        return ctx->status;
    c->loops = best_loops();
    c->blas_fits = blas_fits(c->loops);
    if (!c->blas_fits)
        mb__log(
            ctx,
            "OpenBLAS chose its %s kernels, which leave this CPU's vector units idle; large products go "
            "through our own "
            "loops instead. With OPENBLAS_CORETYPE=SKYLAKEX or HASWELL in the environment it chooses better.",
            openblas_get_corename());
    c->pool = mb__pool_new(ctx, threads);
    if (!c->pool)
        return ctx->status;
    c->threads = mb__pool_threads(c->pool);
    c->scratch = mb__alloc(ctx, (size_t)c->threads * sizeof *c->scratch);
    return ctx->status;
}

static size_t element_size(mb_dtype dtype)
{
    return mb_dtype_size(dtype);
}

static mb_status upload(mb_context *ctx, void *state, void *memory, mb_dtype dtype, int64_t count,
                        const void *from)
{
    (void)ctx, (void)state;
    size_t bytes = (size_t)count * mb_dtype_size(dtype);
    if (from && bytes)
        memcpy(memory, from, bytes);
    else if (bytes)
        memset(memory, 0, bytes);
    if (from && dtype == MB_BOOL)
        for (int64_t i = 0; i < count; i++)
            ((uint8_t *)memory)[i] = ((uint8_t *)memory)[i] != 0;
    return MB_OK;
}
static mb_status download(mb_context *ctx, void *state, void *memory, mb_dtype dtype, int64_t count, void *to)
{
    (void)ctx, (void)state;
    if (count)
        memcpy(to, memory, (size_t)count * mb_dtype_size(dtype));
    return MB_OK;
}

/* ---- programs ---- */

typedef struct program {
    mb__bump pool;
    const mb__plan *plan;
    mb__cpu_kernel **kernels; /* of each step */
    char **memory;
    char *partials;
    size_t partial_bytes;
} program;

static void discard(mb_context *ctx, void *state, void *p_)
{
    (void)state;
    program *p = p_;
    mb__free(ctx, p->partials, p->partial_bytes);
    mb__bump pool = p->pool;
    mb__bump_free(&pool);
}

/* The old memory stays until all of the new is there: plans made before go on using it. */
static bool grow_scratch(mb_context *ctx, mb__cpu *c, size_t bytes)
{
    if (bytes <= c->scratch_bytes)
        return true;
    char **fresh = mb__alloc(ctx, (size_t)c->threads * sizeof *fresh);
    if (!fresh)
        return false;
    bool ok = true;
    for (int i = 0; i < c->threads && ok; i++)
        ok = (fresh[i] = memory_new(ctx, c, bytes)) != NULL;
    char **old = ok ? c->scratch : fresh;
    size_t old_bytes = ok ? c->scratch_bytes : bytes;
    for (int i = 0; i < c->threads; i++)
        if (old[i])
            memory_free(ctx, c, old[i], old_bytes);
    mb__free(ctx, old, (size_t)c->threads * sizeof *old);
    if (ok) {
        c->scratch = fresh;
        c->scratch_bytes = bytes;
    }
    return ok;
}

static void *compile(mb_context *ctx, void *state, const mb__plan *plan, size_t *bytes)
{
    mb__cpu *c = state;
    mb__bump pool = {.ctx = ctx};
    program *p = mb__bump_get(&pool, sizeof *p);
    size_t scratch = 4096, partials = 0;
    bool ok = p && (p->kernels = mb__bump_get(&pool, (size_t)(plan->step_count + 1) * sizeof *p->kernels)) &&
              (p->memory = mb__bump_get(&pool, (size_t)(plan->value_count + 1) * sizeof *p->memory));
    for (int s = 0; ok && s < plan->step_count; s++) {
        const mb__step *step = &plan->steps[s];
        size_t need = 0, part = 0;
        if (step->kind == MB_STEP_KERNEL) {
            p->kernels[s] = mb__cpu_kernel_make(&pool, plan, &step->u.kernel, c->loops, &need, &part);
            ok = p->kernels[s] != NULL;
        } else if (step->kind == MB_STEP_OTHER && step->u.other.op == MB_OP_ARGSORT) {
            need = (size_t)step->u.other.in_dim[step->u.other.axis] * 8;
        }
        need += 65536;
        scratch = need > scratch ? need : scratch;
        partials = part > partials ? part : partials;
    }
    if (ok && partials && !(p->partials = mb__alloc(ctx, partials)))
        ok = false;
    if (!ok || !grow_scratch(ctx, c, scratch)) {
        if (p && p->partials)
            mb__free(ctx, p->partials, partials);
        mb__bump_free(&pool);
        return NULL;
    }
    p->plan = plan;
    p->partial_bytes = partials;
    p->pool = pool;
    *bytes = pool.total + partials;
    return p;
}

static void run_step(program *p, int s, mb__frame *f)
{
    const mb__plan *plan = p->plan;
    const mb__step *step = &plan->steps[s];
    if (step->kind == MB_STEP_KERNEL)
        mb__cpu_kernel_run(p->kernels[s], f);
    else if (step->kind == MB_STEP_PRODUCT)
        mb__cpu_product_run(&step->u.product, plan->values[step->u.product.c.value].dtype, f);
    else if (step->kind == MB_STEP_OTHER)
        mb__cpu_other_run(&step->u.other, f);
    else
        memset(p->memory[step->u.zero], 0,
               (size_t)plan->values[step->u.zero].count *
                   mb_dtype_size((mb_dtype)plan->values[step->u.zero].dtype));
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static mb_status run(mb_context *ctx, void *state, void *program_, const mb__binding *b)
{
    program *p = program_;
    mb__cpu *c = state;
    const mb__plan *plan = p->plan;
    for (int i = 0; i < plan->value_count; i++) {
        const mb__value *v = &plan->values[i];
        p->memory[i] = v->home == MB_IN_INPUT    ? b->inputs[v->index]
                       : v->home == MB_IN_OUTPUT ? b->outputs[v->index]
                                                 : (char *)b->arena + v->offset;
    }
    mb__frame f = {c, plan, p->memory, b->scalars, p->partials};
    bool profiling = mb__profiling(ctx);
    double before = profiling ? now() : 0;
    for (int s = 0; s < plan->step_count; s++) {
        run_step(p, s, &f);
        if (!profiling)
            continue;
        double after = now();
        mb__profile_add(ctx, plan, s, after - before);
        before = after;
    }
    return MB_OK;
}

const mb__backend mb__backend_cpu = {
    .version = MB_BACKEND_VERSION,
    .name = "cpu",
    .fuses = true,
    .strided = false,
    .open = open_cpu,
    .close = close_cpu,
    .element_size = element_size,
    .memory_new = memory_new,
    .memory_free = memory_free,
    .upload = upload,
    .download = download,
    .compile = compile,
    .discard = discard,
    .run = run,
};
