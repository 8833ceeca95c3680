/* SPDX-License-Identifier: MIT
 *
 * jobs.c - independent pieces of work on several threads. A context belongs to the thread that opened it, so
 * each job opens its own; the main thread only watches, and draws the bar. */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "common.h"

static struct {
    void (*work)(void *user, int i);
    void *user;
    int n;
    atomic_int next, finished;
    _Atomic int64_t done;
} jobs;

static void *worker(void *unused)
{
    (void)unused;
    for (int i; !stop_wanted() && (i = atomic_fetch_add(&jobs.next, 1)) < jobs.n;)
        jobs.work(jobs.user, i);
    atomic_fetch_add(&jobs.finished, 1);
    return NULL;
}

void jobs_advance(int64_t units)
{
    atomic_fetch_add(&jobs.done, units);
}

int jobs_threads(int64_t wanted)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    return wanted > 0 ? (int)wanted : cpus > 0 ? (int)cpus : 1;
}

bool jobs_run(const char *label, void (*work)(void *user, int i), void *user, int n, int threads,
              int64_t total)
{
    jobs.work = work;
    jobs.user = user;
    jobs.n = n;
    jobs.next = jobs.finished = 0;
    jobs.done = 0;
    threads = threads > n ? n : threads;
    pthread_t *ids = calloc((size_t)threads + 1, sizeof *ids);
    if (!ids)
        die("out of memory");
    for (int i = 0; i < threads; i++)
        if (pthread_create(&ids[i], NULL, worker, NULL) != 0)
            die("a thread could not be started");

    progress bar;
    progress_begin(&bar, label, total);
    double logged = now();
    while (jobs.finished < threads) {
        nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
        int64_t done = jobs.done;
        bool log = now() - logged >= 10;
        if (done > 0) {
            bar.pace = (now() - bar.started) / (double)done; /* jobs differ too much for a moving average */
            progress_step(&bar, done < total ? done : total, NAN, NAN, log);
        }
        if (log)
            logged = now();
    }
    progress_clear(&bar);
    for (int i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
    free(ids);
    return !stop_wanted();
}
