/* SPDX-License-Identifier: MIT
 *
 * training.c - the same training with one rank and with several: a sharded loader, buckets, clipping, a
 * checkpoint. Rank 0 prints losses, norms, and a hash of the parameters, for ranks.py to compare. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cases.h"

enum { ROWS = 60, WIDTH = 5, HIDDEN = 7, BATCH = 12, STEPS = 10 };

static float inputs[ROWS][WIDTH], targets[ROWS];
static int32_t number[ROWS];

static uint64_t hash_of(const mb_params *p)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (int i = 0; i < mb_params_count(p); i++) {
        mb_tensor t = mb_params_tensor(p, i);
        float values[WIDTH * HIDDEN];
        size_t bytes = (size_t)mb_count(t) * sizeof *values;
        mb_read(t, values, bytes);
        for (size_t k = 0; k < bytes; k++)
            h = (h ^ ((unsigned char *)values)[k]) * UINT64_C(0x100000001b3);
    }
    return h;
}

static mb_tensor loss_of(mb_params *p, mb_tensor x, mb_tensor y)
{
    mb_tensor w = mb_params_get(p, "w"), b = mb_params_get(p, "b"), v = mb_params_get(p, "v");
    mb_tensor h = mb_tanh(mb_add(mb_matmul(x, w), b));
    return mb_mean(mb_square(mb_sub(mb_sum(mb_mul(h, v), MB_AXES(1)), y)), MB_ALL);
}

static mb_loader *open_loader(int64_t step)
{
    mb_column columns[3] = {{.data = inputs, .dtype = MB_FLOAT32, .shape = MB_SHAPE(WIDTH)},
                            {.data = targets, .dtype = MB_FLOAT32},
                            {.data = number, .dtype = MB_INT32}};
    for (int i = 0; i < ROWS; i++) {
        number[i] = i;
        targets[i] = (float)(i % 7) * 0.5F;
        for (int j = 0; j < WIDTH; j++)
            inputs[i][j] = (float)((i * 37 + j * 11) % 19) * 0.2F - 1.8F;
    }
    return mb_loader_open(mb, (mb_loader_options){.columns = columns,
                                                  .column_count = 3,
                                                  .rows = ROWS,
                                                  .batch = BATCH,
                                                  .key = mb_key_of(3),
                                                  .step = step,
                                                  .threads = 1,
                                                  .shard = rank,
                                                  .shards = size});
}

/* Adds up which rows all ranks have had: after two epochs each of them twice. */
static void expect_each_row(const int32_t *seen)
{
    int32_t all[ROWS];
    mb_read(mb_all_reduce(mpi, mb_from(mb, MB_INT32, MB_SHAPE(ROWS), seen), MB_REDUCE_SUM), all, sizeof all);
    for (int i = 0; i < ROWS; i++)
        expect(all[i] == STEPS * BATCH / ROWS, "row %d was seen %d times", i, all[i]);
}

static void step(mb_optimizer *opt, mb_params *p, mb_loader *l, int32_t *seen)
{
    mb_scope scope = mb_scope_begin(mb);
    mb_tensor batch[3], norm;
    int64_t rows;
    mb_loader_next(l, batch, &rows);
    int32_t numbers[BATCH] = {0};
    float loss = 0, length = 0;
    mb_tensor own = loss_of(p, batch[0], batch[1]);
    mb_step_norm(opt, own, &norm);
    mb_watch(batch[2], numbers, (size_t)rows * 4);
    mb_watch(mb_all_reduce(mpi, own, MB_REDUCE_MEAN), &loss, sizeof loss);
    mb_watch(norm, &length, sizeof length);
    mb_scope_end(scope);
    for (int64_t i = 0; i < rows; i++)
        seen[numbers[i]]++;
    if (rank == 0)
        printf("loss %.9g norm %.9g\n", (double)loss, (double)length);
}

static void expect_equal_parameters(mb_params *p)
{
    uint64_t h = hash_of(p);
    int32_t mine[2] = {(int32_t)(h & 0x7fffffff), (int32_t)(h >> 33)}, most[2];
    mb_read(mb_all_reduce(mpi, mb_from(mb, MB_INT32, MB_SHAPE(2), mine), MB_REDUCE_MAX), most, sizeof most);
    expect(memcmp(mine, most, sizeof most) == 0, "ranks have different parameters");
    if (rank == 0)
        printf("parameters %016llx\n", (unsigned long long)h);
}

/* train FILE save|load|missing BUCKET */
void case_train(int argc, char **argv)
{
    const char *file = argc > 0 ? argv[0] : "", *what = argc > 1 ? argv[1] : "";
    mb_params *p = mb_params_new(mb, 5 + (uint64_t)rank); /* different at first */
    mb_param(p, "w", MB_SHAPE(WIDTH, HIDDEN), mb_init_xavier(WIDTH, HIDDEN));
    mb_param_no_decay(p, "b", MB_SHAPE(HIDDEN), mb_init_uniform(0.1));
    mb_param(p, "v", MB_SHAPE(HIDDEN), mb_init_normal(1));
    mb_optimizer *opt = mb_adamw(p, (mb_adamw_options){.lr = 0.05, .weight_decay = 0.01, .clip_norm = 1});
    mb_params_broadcast(mpi, p, 0);
    mb_mpi_share_gradients(mpi, opt, argc > 2 ? atoi(argv[2]) : 0);
    if (strcmp(what, "load") == 0)
        mb_mpi_optimizer_load(mpi, opt, file);
    int64_t first = mb_optimizer_steps(opt);
    int32_t seen[ROWS] = {0};
    mb_loader *l = open_loader(first);
    for (int64_t i = first; i < STEPS && mb_error(mb) == MB_OK; i++) {
        step(opt, p, l, seen);
        if (i == STEPS / 2 - 1 && strcmp(what, "save") == 0)
            mb_mpi_optimizer_save(mpi, opt, file);
    }
    if (mb_error(mb) == MB_OK && first == 0)
        expect_each_row(seen);
    if (mb_error(mb) == MB_OK)
        expect_equal_parameters(p);
    if (strcmp(what, "missing") == 0) { /* rank 0's mistake is everyone's */
        mb_mpi_optimizer_save(mpi, opt, "/nowhere/at/all");
        printf("rank %d: %s\n", rank, mb_message(mb));
        expect(mb_error(mb) != MB_OK, "saved");
        mb_clear_error(mb);
    }
    mb_loader_close(l);
    mb_optimizer_free(opt);
    mb_params_free(p);
}

void case_broadcast(void)
{
    mb_params *p = mb_params_new_with(mb, (uint64_t)rank, MB_FLOAT64);
    mb_tensor w = mb_param(p, "w", MB_SHAPE(3), mb_init_normal(1)),
              frozen = mb_param(p, "f", MB_SHAPE(2), mb_init_normal(1));
    mb_params_freeze(p, "f");
    for (int root = 0; root < size; root++) {
        double mine = rank + 0.5, got[3], other[2];
        mb_scope scope = mb_scope_begin(mb);
        mb_assign(w, mb_full(mb, MB_FLOAT64, MB_SHAPE(3), mine));
        mb_assign(frozen, mb_full(mb, MB_FLOAT64, MB_SHAPE(2), -mine));
        mb_scope_end(scope);
        mb_params_broadcast(mpi, p, root);
        mb_read(w, got, sizeof got);
        mb_read(frozen, other, sizeof other);
        expect(got[2] == root + 0.5 && other[0] == -root - 0.5, "rank %d's parameters", root);
    }
    mb_params_free(p);
}
