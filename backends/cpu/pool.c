/* SPDX-License-Identifier: MIT
 * pool.c - see pool.h. */
#include <pthread.h>
#include <stdatomic.h>
#include <errno.h>
#include <fenv.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "backends/cpu/pool.h"

enum { SPINS = 4000, WORKERS_MAX = 256 };

#if defined(__SSE__)
typedef unsigned float_mode; /* all that vector instructions look at; the x87's is not used */
#else
typedef fenv_t float_mode;
#endif

/* A round is one parallel loop. Each thread has a share of its tasks, one after the other, so that what it
 * wrote in the last round, about as far into the data, it reads in this one from its own cache. It takes them
 * from the front; then it takes others' from the back. Both ends of a share are one word: whoever changes it
 * has claimed a task, of the round that goes on, even if it has come late from another one. What the tasks do
 * is written before the shares and stays until the last claimed task is done. */
typedef struct worker {
    struct mb__pool *pool;
    pthread_t thread;
    int index;
    _Atomic uint64_t share; /* the end, and in the lower half the next */
    char apart[96];         /* from the next one's, in cache lines */
} worker;

struct mb__pool {
    int threads;
    size_t bytes;
    _Atomic int done;          /* tasks of this round */
    _Atomic uint32_t bell;     /* rises with each round; a futex */
    _Atomic uint32_t sleepers; /* workers in futex_wait */
    _Atomic bool stop;
    mb__task f;
    void *argument;
    float_mode mode; /* the caller's */
    worker workers[];
};

/* ---- the floating-point environment: rounding, flush to zero, traps ---- */

#if defined(__SSE__)
static inline void float_mode_get(float_mode *m)
{
    *m = __builtin_ia32_stmxcsr() & ~0x3fu; /* without the flags of exceptions that have occurred */
}
static inline void float_mode_set(const float_mode *m)
{
    if ((__builtin_ia32_stmxcsr() & ~0x3fu) !=
        *m) /* reading costs next to nothing, writing a few cycles more */
        __builtin_ia32_ldmxcsr(*m);
}
#else
static inline void float_mode_get(float_mode *m)
{
    fegetenv(m);
}
static inline void float_mode_set(const float_mode *m)
{
    fesetenv(m);
}
#endif

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

/* A task of a share, from its front or its back; -1: there is none left. */
static int64_t claim(_Atomic uint64_t *share, bool front)
{
    uint64_t left = atomic_load_explicit(share, memory_order_acquire);
    for (;;) {
        const uint64_t next = left & UINT32_MAX, end = left >> 32;
        if (next >= end)
            return -1;
        const uint64_t rest = front ? left + 1 : left - ((uint64_t)1 << 32);
        if (atomic_compare_exchange_weak_explicit(share, &left, rest, memory_order_acq_rel,
                                                  memory_order_acquire))
            return (int64_t)(front ? next : end - 1);
    }
}

/* A worker computes as the calling thread does: equal tasks give equal bits, whoever runs them. */
static void work(mb__pool *p, int index)
{
    for (int i = 0; i < p->threads; i++) {
        worker *of = &p->workers[(index + i) % p->threads];
        for (int64_t task; (task = claim(&of->share, i == 0)) >= 0;) {
            if (index)
                float_mode_set(&p->mode);
            p->f(p->argument, (int)task, index);
            atomic_fetch_add_explicit(&p->done, 1, memory_order_release);
        }
    }
}

static void *worker_main(void *argument)
{
    worker *w = argument;
    mb__pool *p = w->pool;
    uint32_t seen = 0;
    for (;;) {
        uint32_t bell;
        for (int spins = 0; (bell = atomic_load_explicit(&p->bell, memory_order_acquire)) == seen;) {
            if (++spins < SPINS) {
                relax();
                continue;
            }
            atomic_fetch_add(&p->sleepers, 1);
            syscall(SYS_futex, &p->bell, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
            atomic_fetch_sub(&p->sleepers, 1);
        }
        seen = bell;
        if (atomic_load(&p->stop))
            return NULL;
        work(p, w->index);
    }
}

static void ring(mb__pool *p)
{
    atomic_fetch_add_explicit(&p->bell, 1, memory_order_seq_cst);
    if (atomic_load_explicit(&p->sleepers, memory_order_seq_cst))
        syscall(SYS_futex, &p->bell, FUTEX_WAKE_PRIVATE, WORKERS_MAX, NULL, NULL, 0);
}

mb__pool *mb__pool_new(const mb__host *host, int threads)
{
    if (threads < 1)
        threads = 1;
    if (threads > WORKERS_MAX)
        threads = WORKERS_MAX;
    size_t bytes = sizeof(mb__pool) + (size_t)threads * sizeof(worker);
    mb__pool *p = mb__host_alloc(host, bytes);
    if (!p)
        return NULL;
    p->bytes = bytes;
    p->threads = 1;
    for (int i = 1; i < threads; i++) {
        worker *w = &p->workers[i];
        *w = (worker){.pool = p, .index = i};
        if (pthread_create(&w->thread, NULL, worker_main, w))
            break;
        p->threads++;
    }
    return p;
}

void mb__pool_free(const mb__host *host, mb__pool *p)
{
    if (!p)
        return;
    atomic_store(&p->stop, true);
    ring(p);
    for (int i = 1; i < p->threads; i++)
        pthread_join(p->workers[i].thread, NULL);
    mb__host_free(host, p, p->bytes);
}

int mb__pool_threads(const mb__pool *p)
{
    return p->threads;
}

void mb__pool_run(mb__pool *p, mb__task f, void *argument, int tasks)
{
    if (p->threads == 1 || tasks <= 1) {
        for (int t = 0; t < tasks; t++)
            f(argument, t, 0);
        return;
    }
    p->f = f;
    p->argument = argument;
    float_mode_get(&p->mode);
    atomic_store_explicit(&p->done, 0, memory_order_relaxed);
    for (int i = 0; i < p->threads; i++) {
        const uint64_t next = (uint64_t)tasks * (uint64_t)i / (uint64_t)p->threads,
                       end = (uint64_t)tasks * (uint64_t)(i + 1) / (uint64_t)p->threads;
        atomic_store_explicit(&p->workers[i].share, end << 32 | next, memory_order_release);
    }
    ring(p);
    work(p, 0);
    for (int spins = 0; atomic_load_explicit(&p->done, memory_order_acquire) < tasks; spins++) {
        relax();
        if (spins > SPINS) /* another process has the other CPU: let it go on */
            sched_yield();
    }
}
