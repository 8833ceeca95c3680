/* SPDX-License-Identifier: MIT
 *
 * mttt_ranks.c - one run by many processes: mpirun -n 2 build/examples/mttt. Each has its share of every
 * batch, and all the same parameters. Rank 0 alone has a folder, and anything to print. Without mpirun
 * nothing of MPI is begun. */
#include <optim/mpi/ranks.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include "mttt.h"

/* What Open MPI's mpirun, MPICH's, or any launcher by PMI tells the processes that it begins. */
static bool launched(void)
{
    return getenv("OMPI_COMM_WORLD_SIZE") || getenv("PMI_SIZE") || getenv("PMIX_RANK");
}

/* Of the ranks of a machine, each has its share of the CPUs' threads; where the launcher has given it some
 * CPUs alone, a thread for each of them, which is 0. */
static int threads(void)
{
    const char *local = getenv("OMPI_COMM_WORLD_LOCAL_SIZE");
    long ranks = local ? strtol(local, NULL, 10) : 1, cpus = sysconf(_SC_NPROCESSORS_ONLN);
    cpu_set_t own;
    if (ranks < 1 || sched_getaffinity(0, sizeof own, &own) != 0 || CPU_COUNT(&own) < cpus)
        return 0;
    return cpus > ranks ? (int)(cpus / ranks) : 1;
}

void ranks_begin(run *r, mb_options *options)
{
    r->ranks = 1;
    if (launched() && options->threads == 0 && !getenv("MB_THREADS"))
        options->threads = threads();
}

void ranks_open(run *r)
{
    if (!launched())
        return;
    r->mpi = mb_mpi_open(r->mb, NULL);
    check(r);
    r->rank = mb_mpi_rank(r->mpi);
    r->ranks = mb_mpi_size(r->mpi);
    if (set.batch % r->ranks == 0)
        return;
    if (r->rank == 0)
        die("--batch %lld is not divided by %d ranks", (long long)set.batch, r->ranks);
    exit(1);
}

void ranks_share(run *r)
{
    if (r->ranks == 1)
        return;
    mb_mpi_agree(r->mpi); /* on the same checkpoint, if any, once all have read it */
    mb_params_broadcast(r->mpi, r->params, 0);
    mb_mpi_share_gradients(r->mpi, r->optimizer, 0);
    check(r);
}

void ranks_answer(run *r, answer *a, mb_tensor *losses, int n)
{
    if (r->ranks == 1)
        return;
    float stop = stop_wanted();
    mb_tensor sums = mb_from(r->mb, MB_INT32, MB_SHAPE(1), (int32_t[]){(int32_t)stop});
    sums = mb_all_reduce(r->mpi, mb_concat((mb_tensor[]){mb_reshape(a->correct, MB_SHAPE(1)), sums}, 2, 0),
                         MB_REDUCE_SUM);
    a->correct = mb_reshape(mb_slice(sums, 0, 0, 1, 1), MB_SHAPE0);
    mb_watch(mb_cast(mb_slice(sums, 0, 1, 1, 1), MB_FLOAT32), &r->stops, sizeof r->stops);
    a->loss = mb_all_reduce(r->mpi, a->loss, MB_REDUCE_MEAN);
    for (int i = 0; i < n; i++)
        losses[i] = mb_all_reduce(r->mpi, losses[i], MB_REDUCE_MEAN);
}

void ranks_total(run *r, double *values, int n)
{
    if (r->ranks == 1)
        return;
    mb_scope scope = mb_scope_begin(r->mb);
    double stop = stop_wanted();
    mb_tensor sum = mb_all_reduce(r->mpi, mb_from(r->mb, MB_FLOAT64, MB_SHAPE(n), values), MB_REDUCE_SUM);
    mb_tensor stops = mb_all_reduce(r->mpi, mb_from(r->mb, MB_FLOAT64, MB_SHAPE0, &stop), MB_REDUCE_SUM);
    mb_watch(sum, values, (size_t)n * sizeof *values);
    mb_read(stops, &stop, sizeof stop);
    mb_scope_end(scope);
    check(r);
    r->stops = (float)stop;
}

bool ranks_stop(const run *r)
{
    return r->ranks > 1 ? r->stops > 0 : stop_wanted();
}

void ranks_end(run *r)
{
    if (r->mpi && mb_mpi_close(r->mpi) != MB_OK)
        check(r);
    r->mpi = NULL;
}
