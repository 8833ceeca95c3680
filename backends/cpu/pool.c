/* SPDX-License-Identifier: MIT
 * pool.c - see pool.h. */
#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "backends/cpu/pool.h"

enum { SPINS = 4000, WORKERS_MAX = 256 };

typedef struct worker {
    struct mb__pool *pool;
    pthread_t thread;
    int index;
} worker;

struct mb__pool {
    int threads;
    size_t bytes;
    _Atomic uint32_t round;    /* rises by one for each loop; a futex */
    _Atomic uint32_t sleepers; /* workers in futex_wait */
    _Atomic int next;          /* task to hand out */
    _Atomic int busy;          /* workers that have not finished this round */
    _Atomic bool stop;
    mb__task f;
    void *argument;
    int tasks;
    worker workers[];
};

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

static void work(mb__pool *p, int index)
{
    int t;
    while ((t = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed)) < p->tasks)
        p->f(p->argument, t, index);
}

static void *worker_main(void *argument)
{
    worker *w = argument;
    mb__pool *p = w->pool;
    uint32_t seen = 0;
    for (;;) {
        int spins = 0;
        while (atomic_load_explicit(&p->round, memory_order_acquire) == seen) {
            if (++spins < SPINS) {
                relax();
                continue;
            }
            atomic_fetch_add(&p->sleepers, 1);
            syscall(SYS_futex, &p->round, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
            atomic_fetch_sub(&p->sleepers, 1);
        }
        seen++;
        if (atomic_load(&p->stop))
            return NULL;
        work(p, w->index);
        atomic_fetch_sub_explicit(&p->busy, 1, memory_order_release);
    }
}

static void start_round(mb__pool *p)
{
    atomic_fetch_add_explicit(&p->round, 1, memory_order_seq_cst);
    if (atomic_load_explicit(&p->sleepers, memory_order_seq_cst))
        syscall(SYS_futex, &p->round, FUTEX_WAKE_PRIVATE, WORKERS_MAX, NULL, NULL, 0);
}

mb__pool *mb__pool_new(mb_context *ctx, int threads)
{
    if (threads < 1)
        threads = 1;
    if (threads > WORKERS_MAX)
        threads = WORKERS_MAX;
    size_t bytes = sizeof(mb__pool) + (size_t)threads * sizeof(worker);
    mb__pool *p = mb__alloc(ctx, bytes);
    if (!p)
        return NULL;
    p->bytes = bytes;
    p->threads = 1;
    for (int i = 1; i < threads; i++) {
        worker *w = &p->workers[i];
        *w = (worker){p, 0, i};
        if (pthread_create(&w->thread, NULL, worker_main, w))
            break;
        p->threads++;
    }
    return p;
}

void mb__pool_free(mb_context *ctx, mb__pool *p)
{
    if (!p)
        return;
    atomic_store(&p->stop, true);
    start_round(p);
    for (int i = 1; i < p->threads; i++)
        pthread_join(p->workers[i].thread, NULL);
    mb__free(ctx, p, p->bytes);
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
    p->tasks = tasks;
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    atomic_store_explicit(&p->busy, p->threads - 1, memory_order_relaxed);
    start_round(p);
    work(p, 0);
    for (int spins = 0; atomic_load_explicit(&p->busy, memory_order_acquire); spins++) {
        relax();
        if (spins > SPINS) /* another process has the other CPU: let it go on */
            sched_yield();
    }
}
