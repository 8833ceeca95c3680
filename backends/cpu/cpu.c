/* SPDX-License-Identifier: MIT
 *
 * cpu.c - the backend for processors: OpenBLAS for matrix products, fused loops through SIMD for everything
 * else, one pool of threads for both. Values in memory have the caller's layout.
 */
#define _GNU_SOURCE
#include <math.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <sched.h>
#include <stdlib.h>
#include <strings.h>

#include "backends/cpu/code.h"
#include "backends/cpu/frame.h"
#include "backends/cpu/x86.h"
#include "backends/plan/clock.h"
#include "backends/plan/backend.h"
#include "backends/plan/custom.h"

/* The highest instruction set allowed by $MB_CPU: level 4 or 3 of x86-64, 0 for base, 5 for all; -1: error.
 */
static int level_wanted(const mb__host *host)
{
    const char *most = getenv("MB_CPU");
    if (!most || !*most)
        return 5;
    if (!strcmp(most, "v4"))
        return 4;
    if (!strcmp(most, "v3") || !strcmp(most, "base"))
        return most[0] == 'v' ? 3 : 0;
    host->error(host->user, MB_INVALID, NULL, "open: MB_CPU is \"%.40s\"; wanted base, v3 or v4", most);
    return -1;
}

#if defined(__x86_64__) && defined(MB_HAVE_V3)
/* Which clang's __builtin_cpu_supports does not know. */
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && c & bit_F16C;
}
#endif

/* The loops for the highest level that this CPU supports, at most `level`. */
static const mb__loops *best_loops(int level)
{
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
        __builtin_cpu_supports("bmi2") && has_f16c())
        return &mb__loops_v3;
#endif
#endif
    return &mb__loops_base;
}

static const mb__bf16_loops *best_bf16(int level)
{
    (void)level;
#ifdef MB_HAVE_BF16
    __builtin_cpu_init();
    if (level >= 5 && best_loops(level)->vector_bytes == 64 && __builtin_cpu_supports("avx512bf16"))
        return &mb__bf16_pairs;
#endif
    return NULL;
}

/* Multiply-adds from which a product goes to OpenBLAS. Our loops are faster with vectors wider than its own,
 * whatever the size; with equal ones up to here, and beyond they take up to a tenth longer than its packing
 * for all caches (measured with AVX2 and AVX-512, 49 to 2048 rows and columns). On CPUs newer than itself it
 * chooses very old kernels: a name that is not known counts as such. The base loops have no more than any
 * processor's vectors. */
static double blas_from(const mb__blas *blas, const mb__loops *loops)
{
    static const struct {
        const char *core;
        int bytes;
    } known[] = {{"Haswell", 32}, {"Zen", 32}, {"SkylakeX", 64}, {"Cooperlake", 64}, {"SapphireRapids", 64}};
    const char *core = blas->corename();
    if (loops->vector_bytes <= 16)
        return 8e6;
    for (size_t i = 0; core && i < sizeof known / sizeof *known; i++)
        if (!strcasecmp(core, known[i].core) && known[i].bytes >= loops->vector_bytes)
            return 2e8;
    return INFINITY;
}

static int usable_cpus(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

/* Memory aligned to cache lines; the allocated address is stored in front of it. */
static void *aligned_new(const mb__host *host, size_t bytes)
{
    char *p = mb__host_alloc_raw(host, bytes + 128);
    if (!p)
        return NULL;
    char *aligned = (char *)(((uintptr_t)p + 127) & ~(uintptr_t)63);
    ((char **)(void *)aligned)[-1] = p;
    return aligned;
}
static void aligned_free(const mb__host *host, void *memory, size_t bytes)
{
    if (memory)
        mb__host_free(host, ((char **)memory)[-1], bytes + 128);
}
static mb_status memory_new(void *state, size_t bytes, void **memory)
{
    *memory = aligned_new(((mb__cpu *)state)->host, bytes);
    return *memory ? MB_OK : MB_NO_MEMORY;
}
static void memory_free(void *state, void *memory, size_t bytes)
{
    aligned_free(((mb__cpu *)state)->host, memory, bytes);
}

static int list(mb_device *devices, int capacity, const char **why)
{
    (void)why;
    if (capacity > 0)
        *devices = (mb_device){
            .backend = "cpu", .name = "OpenBLAS and SIMD loops", .kind = "processor", .float64 = true};
    return 1;
}

static void close_cpu(void *state)
{
    mb__cpu *c = state;
    const mb__host *host = c->host;
    int threads = c->threads;
    mb__pool_free(host, c->pool);
    for (int i = 0; c->scratch && i < threads; i++)
        aligned_free(host, c->scratch[i], c->scratch_bytes);
    mb__host_free(host, c->scratch, (size_t)threads * sizeof *c->scratch);
    aligned_free(host, c->pairs, c->pair_bytes);
    mb__host_free(host, c, sizeof *c);
}

/* blas, or NULL if our own loops are better; then the log says why. */
static const mb__blas *usable_blas(const mb__host *host, const mb__blas *blas, const char *why,
                                   const mb__loops *loops, int threads)
{
    if (!blas)
        host->log(host->user, "OpenBLAS is not there, and large products go through our own loops: %s", why);
    else if (isinf(blas_from(blas, loops)))
        host->log(
            host->user,
            "OpenBLAS chose its %s kernels, which leave half or more of this CPU's vector units idle; large "
            "products go through our own loops",
            blas->corename());
    else if (!mb__blas_has_room(threads))
        host->log(host->user,
                  "This process's limit on address space leaves OpenBLAS no room for its buffers, and "
                  "large products go through our own loops");
    else
        return blas;
    return NULL;
}

static mb_status open_cpu(const mb__host *host, const mb__open_options *options, void **state,
                          mb__limits *limits)
{
    *limits = (mb__limits){0};
    int level = level_wanted(host);
    if (level < 0)
        return MB_INVALID;
    int threads = options->threads > 0 ? options->threads : usable_cpus();
    const char *why = "";
    const mb__blas *blas = mb__blas_load(&why);
    if (blas && threads > 1 && blas->parallel() == 0)
        return host->error(
            host->user, MB_BACKEND, NULL,
            "open: this OpenBLAS is the serial build, whose results are wrong when two threads call it; "
            "install libopenblas0-pthread, or open with one thread (MB_THREADS=1)");
    mb__cpu *c = mb__host_alloc(host, sizeof *c);
    if (!c)
        return MB_NO_MEMORY;
    c->host = host;
    c->loops = best_loops(level);
    c->bf16 = best_bf16(level);
    c->blas = usable_blas(host, blas, why, c->loops, threads);
    c->blas_from = c->blas ? blas_from(blas, c->loops) : INFINITY;
    c->pool = mb__pool_new(host, threads);
    c->threads = c->pool ? mb__pool_threads(c->pool) : 0;
    c->scratch = c->pool ? mb__host_alloc(host, (size_t)c->threads * sizeof *c->scratch) : NULL;
    if (!c->scratch) {
        close_cpu(c);
        return MB_NO_MEMORY;
    }
    c->codes = !options->plain && c->loops->vector_bytes >= 32 && mb__code_works();
    *state = c;
    return MB_OK;
}

static size_t element_size(mb_dtype dtype)
{
    return mb_dtype_size(dtype);
}

static mb_status upload(void *state, void *memory, mb_dtype dtype, int64_t count, const void *from)
{
    (void)state;
    size_t bytes = (size_t)count * mb_dtype_size(dtype);
    if (from && bytes)
        memcpy(memory, from, bytes);
    else if (bytes)
        memset(memory, 0, bytes);
    if (from && dtype == MB_BOOL) /* whatever the caller holds for true */
        for (int64_t i = 0; i < count; i++)
            ((uint8_t *)memory)[i] = ((uint8_t *)memory)[i] != 0;
    return MB_OK;
}
static mb_status download(void *state, void *memory, mb_dtype dtype, int64_t count, void *to)
{
    (void)state;
    if (count)
        memcpy(to, memory, (size_t)count * mb_dtype_size(dtype));
    return MB_OK;
}

/* ---- programs ---- */

typedef struct program {
    mb__bump pool;
    const mb__plan *plan;
    mb__cpu_kernel **kernels; /* of each step */
    struct program **bodies;  /* of each step that is a loop */
    void **ports;             /* of a loop's body: inputs, then outputs, at the step that runs */
    char **memory;
    char *partials;
    size_t partial_bytes;
    void *code;
    size_t code_bytes;
} program;

static void discard(void *state, void *p_)
{
    program *p = p_;
    mb__host_free(((mb__cpu *)state)->host, p->partials, p->partial_bytes);
    mb__code_free(p->code, p->code_bytes);
    mb__bump pool = p->pool;
    mb__bump_free(&pool);
}

/* The old memory is freed only when all of the new is allocated: existing plans use it. */
static bool grow_scratch(mb__cpu *c, size_t bytes)
{
    if (bytes <= c->scratch_bytes)
        return true;
    char **fresh = mb__host_alloc(c->host, (size_t)c->threads * sizeof *fresh);
    if (!fresh)
        return false;
    bool ok = true;
    for (int i = 0; i < c->threads && ok; i++)
        ok = (fresh[i] = aligned_new(c->host, bytes)) != NULL;
    char **old = ok ? c->scratch : fresh;
    size_t old_bytes = ok ? c->scratch_bytes : bytes;
    for (int i = 0; i < c->threads; i++)
        aligned_free(c->host, old[i], old_bytes);
    mb__host_free(c->host, old, (size_t)c->threads * sizeof *old);
    if (ok) {
        c->scratch = fresh;
        c->scratch_bytes = bytes;
    }
    return ok;
}

static bool grow_pairs(mb__cpu *c, size_t bytes)
{
    char *fresh = bytes > c->pair_bytes ? aligned_new(c->host, bytes) : NULL;
    if (!fresh)
        return bytes <= c->pair_bytes;
    aligned_free(c->host, c->pairs, c->pair_bytes);
    c->pairs = fresh;
    c->pair_bytes = bytes;
    return true;
}

/* A program being made: memory that stays, and that does not; the code; the largest scratch, partial results
 * and pairs of a step. */
typedef struct making {
    const mb__cpu *c;
    mb__bump pool, work;
    mb__x86 x86;
    mb__code code;
    size_t scratch, partials, pairs;
    const mb__step *unknown; /* one that there are no loops for, if that is why it failed */
} making;

static program *program_of(making *m, const mb__plan *plan);

static mb__cpu_kernel *kernel_of(making *m, const mb__plan *plan, const mb__kernel *k, size_t *scratch,
                                 size_t *partials)
{
    return mb__cpu_kernel_make(&m->pool, &m->work, plan, k, m->c->loops, m->c->codes ? &m->code : NULL,
                               scratch, partials);
}

/* Whether there are loops for it. */
static bool is_known(const mb__cpu *c, int op)
{
    return op == MB_OP_ARGSORT || op == MB_OP_TAKE || op == MB_OP_SCATTER_ADD || op == MB_OP_CHOLESKY ||
           op == MB_OP_TRIANGULAR_SOLVE || mb__axis_op_of(c->loops->axis, op);
}

/* Prepares kernels and the bodies of loops. */
static bool prepare(making *m, program *p)
{
    const mb__cpu *c = m->c;
    const mb__plan *plan = p->plan;
    for (int s = 0; s < plan->step_count; s++) {
        const mb__step *step = &plan->steps[s];
        size_t need = 0, part = 0;
        if (step->kind == MB_STEP_KERNEL) {
            if (!(p->kernels[s] = kernel_of(m, plan, &step->u.kernel, &need, &part)))
                return false;
            if (c->host->listing)
                mb__cpu_kernel_list(c->host, plan, s, p->kernels[s]);
        } else if (step->kind == MB_STEP_OTHER && !is_known(c, step->u.other->op)) {
            m->unknown = step;
            return false;
        } else if (step->kind == MB_STEP_OTHER && mb__is_kind(step->u.other->op, MB_KIND_AXIS)) {
            size_t pairs = mb__cpu_axis_pairs(c, step->u.other);
            m->pairs = pairs > m->pairs ? pairs : m->pairs;
        } else if (step->kind == MB_STEP_OTHER && mb__is_kind(step->u.other->op, MB_KIND_MATRIX)) {
            need = MB_TRIANGLE_SCRATCH;
        } else if (step->kind == MB_STEP_PRODUCT) {
            bool half = mb__is_half(plan->values[step->u.product->c.value].dtype);
            need = half ? mb__cpu_half_scratch() : mb__cpu_product_scratch(step->u.product);
        } else if (step->kind == MB_STEP_LOOP && !(p->bodies[s] = program_of(m, step->u.loop->body))) {
            return false;
        }
        need += 65536;
        m->scratch = need > m->scratch ? need : m->scratch;
        m->partials = part > m->partials ? part : m->partials;
    }
    return true;
}

static program *program_of(making *m, const mb__plan *plan)
{
    mb__bump *pool = &m->pool;
    program *p = mb__bump_get(pool, sizeof *p);
    size_t steps = (size_t)plan->step_count + 1;
    if (!p || !(p->kernels = mb__bump_get(pool, steps * sizeof *p->kernels)) ||
        !(p->bodies = mb__bump_get(pool, steps * sizeof *p->bodies)) ||
        !(p->memory = mb__bump_get(pool, (size_t)(plan->value_count + 1) * sizeof *p->memory)) ||
        !(p->ports =
              mb__bump_get(pool, (size_t)(plan->input_count + plan->output_count + 1) * sizeof *p->ports)))
        return NULL;
    p->plan = plan;
    return prepare(m, p) ? p : NULL;
}

/* The partial results are shared with the bodies of loops: only one step runs at a time. */
static void share_partials(program *p, char *partials)
{
    p->partials = partials;
    for (int s = 0; s < p->plan->step_count; s++)
        if (p->bodies[s])
            share_partials(p->bodies[s], partials);
}

static mb_status refuse(const mb__host *host, const mb__step *step)
{
    return host->error(host->user, MB_BACKEND, step->site, "cpu: there are no loops for %s",
                       mb__ops[step->u.other->op].name);
}

static mb_status compile(void *state, const mb__plan *plan, void **made, size_t *bytes)
{
    mb__cpu *c = state;
    making m = {.c = c, .pool = {.host = c->host}, .work = {.host = c->host}, .scratch = 4096};
    m.x86.bump = &m.work;
    m.code.x86 = &m.x86;
    char *memory = NULL;
    void *code = NULL;
    size_t code_bytes = 0;
    program *p = program_of(&m, plan);
    bool ok = p && (!m.partials || (memory = mb__host_alloc(c->host, m.partials))) &&
              grow_scratch(c, m.scratch) && grow_pairs(c, m.pairs) &&
              mb__code_finish(&m.code, &code, &code_bytes);
    mb__bump_free(&m.work);
    if (!ok) {
        mb__host_free(c->host, memory, m.partials);
        mb__bump_free(&m.pool);
        return m.unknown ? refuse(c->host, m.unknown) : MB_NO_MEMORY;
    }
    share_partials(p, memory);
    p->partial_bytes = m.partials;
    p->pool = m.pool;
    p->code = code;
    p->code_bytes = code_bytes;
    *bytes = m.pool.total + m.partials + code_bytes;
    *made = p;
    return MB_OK;
}

static void run_plan(mb__cpu *c, program *p, const mb__binding *b);

static char *port_at(const mb__plan *plan, char *const *memory, mb__port port)
{
    return memory[port.value] + (size_t)port.offset * mb_dtype_size((mb_dtype)plan->values[port.value].dtype);
}

/* A loop that is running: the step that is next, and how many before and after it are left out. */
typedef struct looping {
    const mb__loop *l;
    const mb__frame *f;
    int64_t step, left_out, after;
} looping;

static char *input_at(const looping *r, int i, int64_t step)
{
    return port_at(r->f->plan, r->f->memory, mb__loop_input(r->l, i, step, r->left_out));
}
static char *output_at(const looping *r, int i, int64_t step)
{
    return port_at(r->f->plan, r->f->memory, mb__loop_output(r->l, i, step, r->left_out, r->after));
}

static bool is_idle(const looping *r, int64_t step)
{
    return r->l->idle >= 0 && *input_at(r, r->l->idle, step);
}

static void count_idle(looping *r)
{
    for (int64_t t = 0; t < r->l->steps && r->l->idle >= 0; t++)
        r->after += is_idle(r, t);
}

/* The step that is next is left out: stacks get the carries as they are, or zeros. */
static void leave_out(looping *r)
{
    const mb__loop *l = r->l;
    for (int i = l->carries; i < l->outputs; i++) {
        const mb__value *v = &r->f->plan->values[l->out[i].value];
        size_t bytes = (size_t)l->out[i].step * mb_dtype_size((mb_dtype)v->dtype);
        int32_t kept = l->kept[i - l->carries];
        char *to = output_at(r, i, r->step);
        if (kept >= 0)
            memcpy(to, input_at(r, kept, r->step), bytes);
        else
            memset(to, 0, bytes);
    }
    r->step++;
    r->left_out++;
}

/* The carries to where the last step leaves them, if other steps than that was were the last. */
static void bring_carries(const looping *r)
{
    const mb__loop *l = r->l;
    for (int i = 0; i < l->carries; i++) {
        const mb__value *v = &r->f->plan->values[l->out[i].value];
        memmove(port_at(r->f->plan, r->f->memory, l->out[i]), input_at(r, i, r->step),
                (size_t)v->count * mb_dtype_size((mb_dtype)v->dtype));
    }
}

/* Whether the steps that are left change nothing. */
static bool is_done(const looping *r)
{
    return r->l->until >= 0 && *input_at(r, r->l->until, r->step);
}

static void run_loop(const mb__loop *l, program *body, const mb__frame *f)
{
    looping r = {l, f, 0, 0, 0};
    count_idle(&r);
    bool none = r.after == l->steps, ended = false;
    while (r.step < l->steps && !f->cpu->failed && !(ended = is_done(&r))) {
        if (is_idle(&r, r.step)) {
            r.after--;
            leave_out(&r);
            continue;
        }
        for (int i = 0; i < l->inputs; i++)
            body->ports[i] = input_at(&r, i, r.step);
        for (int i = 0; i < l->outputs; i++)
            body->ports[l->inputs + i] = output_at(&r, i, r.step);
        const mb__binding b = {f->memory[l->arena], body->ports, body->ports + l->inputs, f->scalars};
        run_plan(f->cpu, body, &b);
        r.step++;
    }
    if (ended || none)
        bring_carries(&r);
    while (ended && l->outputs > l->carries && r.step < l->steps)
        leave_out(&r);
}

static void run_other(const mb__other *o, mb__frame *f)
{
    if (mb__is_kind(o->op, MB_KIND_MATRIX))
        mb__cpu_matrix_run(o, f);
    else if (o->op == MB_OP_TAKE)
        mb__cpu_take_run(o, f);
    else if (o->op == MB_OP_SCATTER_ADD)
        mb__cpu_scatter_add_run(o, f);
    else
        mb__cpu_axis_run(o, f);
}

static void run_step(program *p, int s, mb__frame *f)
{
    const mb__plan *plan = p->plan;
    const mb__step *step = &plan->steps[s];
    if (step->kind == MB_STEP_KERNEL)
        mb__cpu_kernel_run(p->kernels[s], f);
    else if (step->kind == MB_STEP_PRODUCT)
        mb__cpu_product_run(step->u.product, plan->values[step->u.product->c.value].dtype, f);
    else if (step->kind == MB_STEP_OTHER)
        run_other(step->u.other, f);
    else if (step->kind == MB_STEP_LOOP)
        run_loop(step->u.loop, p->bodies[s], f);
    else if (step->kind == MB_STEP_CUSTOM)
        mb__cpu_custom_run(step, f);
    else
        memset(p->memory[step->u.zero], 0,
               (size_t)plan->values[step->u.zero].count *
                   mb_dtype_size((mb_dtype)plan->values[step->u.zero].dtype));
}

static void run_plan(mb__cpu *c, program *p, const mb__binding *b)
{
    const mb__plan *plan = p->plan;
    for (int i = 0; i < plan->value_count; i++)
        p->memory[i] = mb__value_at(plan, b, i);
    mb__frame f = {c, plan, p->memory, b->scalars, p->partials};
    const mb__host *host = c->host;
    double before = host->timed ? mb__now() : 0;
    for (int s = 0; s < plan->step_count && !c->failed; s++) {
        run_step(p, s, &f);
        if (!host->timed)
            continue;
        double after = mb__now();
        if (plan->steps[s].kind != MB_STEP_LOOP) /* the steps of its body were timed */
            host->timed(host->user, plan, s, after - before);
        before = after;
    }
}

static mb_status run(void *state, void *program_, const mb__binding *b)
{
    mb__cpu *c = state;
    c->failed = NULL;
    run_plan(c, program_, b);
    return c->failed ? mb__custom_failed(c->host, c->failed, c->status) : MB_OK;
}

const mb__backend mb__backend_cpu = {
    .version = MB_BACKEND_VERSION,
    .name = "cpu",
    .fuses = true,
    .adds = true,
    .loops = true,
    .strided = false,
    .list = list,
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
