/* SPDX-License-Identifier: MIT
 *
 * ranks.c - what the reduction of gradients costs a step: mpirun -n 2 ranks [steps].
 *
 * Ranks wait for the slowest of them, with or without a reduction, so a wait says nothing about its cost. Two
 * equal models take steps in turn: one whose gradients are reduced, and one whose are not; both end a step
 * with a sum of one number over the ranks, where all wait for the last. What the first takes longer is the
 * reduction, as far as the backward sweep does not hide it. Printed by rank 0: the least and the median step
 * of each in milliseconds, of wall time and of the process's own.
 */
#include <moebius.h>
#include <optim/mpi/ranks.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { TOKENS = 49, VALUES = 16, DIM = 64, DEPTH = 3, CLASSES = 10, BATCH = 16, WARM = 3, MOST = 1000 };

typedef struct model {
    mb_params *params;
    mb_vit *vit;
    mb_optimizer *optimizer;
    double wall[MOST], cpu[MOST];
    mb_mpi_counts counts; /* of all steps */
} model;

static double ms(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static void make(mb_context *mb, model *m)
{
    m->params = mb_params_new(mb, 1);
    m->vit = mb_vit_new(m->params, "",
                        (mb_vit_options){.tokens = TOKENS,
                                         .patch_values = VALUES,
                                         .dim = DIM,
                                         .depth = DEPTH,
                                         .classes = CLASSES,
                                         .mixer = {.kind = MB_MIXER_TTT,
                                                   .heads = 4,
                                                   .ttt = {.learner = MB_LEARNER_MLP, .inner_steps = 1}}});
    m->optimizer = mb_adamw(m->params, (mb_adamw_options){.lr = 1e-4, .clip_norm = 1});
}

/* A step, and the wait for all ranks at its end. */
static void step(mb_context *mb, mb_mpi *mpi, model *m, int i)
{
    mb_mpi_counts before = mb_mpi_counted(mpi);
    mb_scope scope = mb_scope_begin(mb);
    mb_key key = mb_key_fold(mb_key_of((uint64_t)mb_mpi_rank(mpi)), (uint64_t)i);
    mb_tensor x = mb_normal(mb, key, MB_FLOAT32, MB_SHAPE(BATCH, TOKENS, VALUES));
    mb_tensor y = mb_zeros(mb, MB_INT32, MB_SHAPE(BATCH));
    mb_step(m->optimizer, mb_cross_entropy(mb_vit_apply(m->vit, x, mb_key_of(1), NULL), y));
    mb_scope_end(scope);
    mb_mpi_counts after = mb_mpi_counted(mpi);
    m->counts.seconds += after.seconds - before.seconds;
    m->counts.waited += after.waited - before.waited;
    m->counts.bytes = after.bytes - before.bytes;
    scope = mb_scope_begin(mb);
    mb_item(mb_all_reduce(mpi, mb_scalar(mb, MB_FLOAT32, 1), MB_REDUCE_SUM));
    mb_scope_end(scope);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void report(const char *what, model *m, int steps)
{
    qsort(m->wall, (size_t)steps, sizeof *m->wall, ascending);
    qsort(m->cpu, (size_t)steps, sizeof *m->cpu, ascending);
    double each = 1e3 / (steps + WARM);
    printf("%-8s  wall %8.2f %8.2f   processor %8.2f %8.2f   %lld bytes, %.3f in calls, %.3f of it waits\n",
           what, m->wall[0], m->wall[steps / 2], m->cpu[0], m->cpu[steps / 2], (long long)m->counts.bytes,
           m->counts.seconds * each, m->counts.waited * each);
}

int main(int argc, char **argv)
{
    int steps = argc > 1 ? atoi(argv[1]) : 40;
    steps = steps < 1 ? 1 : steps > MOST ? MOST : steps;
    mb_context *mb = mb_open_with(&(mb_options){.threads = 1});
    mb_mpi *mpi = mb_mpi_open(mb, NULL);
    static model both[2];
    make(mb, &both[0]);
    make(mb, &both[1]);
    mb_mpi_share_gradients(mpi, both[0].optimizer, 0);
    for (int i = -WARM; i < steps && mb_error(mb) == MB_OK; i++)
        for (int k = 0; k < 2; k++) {
            double wall = ms(CLOCK_MONOTONIC), cpu = ms(CLOCK_PROCESS_CPUTIME_ID);
            step(mb, mpi, &both[k], i + WARM);
            if (i < 0)
                continue;
            both[k].wall[i] = ms(CLOCK_MONOTONIC) - wall;
            both[k].cpu[i] = ms(CLOCK_PROCESS_CPUTIME_ID) - cpu;
        }
    if (mb_error(mb) != MB_OK)
        fprintf(stderr, "%s\n", mb_message(mb));
    else if (mb_mpi_rank(mpi) == 0) {
        report("reduced", &both[0], steps);
        report("alone", &both[1], steps);
        printf("a reduction adds %.3f of the least wall time, %.3f of the least processor time\n",
               both[0].wall[0] / both[1].wall[0] - 1, both[0].cpu[0] / both[1].cpu[0] - 1);
    }
    for (int k = 0; k < 2; k++) {
        mb_optimizer_free(both[k].optimizer);
        mb_params_free(both[k].params);
    }
    mb_mpi_close(mpi);
    return mb_close(mb);
}
