/* SPDX-License-Identifier: MIT
 *
 * mistakes.c - ranks that do not do the same, ranks that end, and operands that do not fit. Each rank prints
 * its sentence, which ranks.py looks at. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cases.h"

static mb_tensor ones(mb_dtype dtype, int64_t n)
{
    return mb_ones(mb, dtype, MB_SHAPE(n));
}

static void say(void)
{
    printf("rank %d: %s\n", rank, mb_message(mb));
    fflush(stdout);
}

static double sum_of(mb_tensor x)
{
    return mb_item(mb_sum(mb_all_reduce(mpi, x, MB_REDUCE_SUM), MB_ALL));
}

static bool is(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}

/* The third of four buckets, after two that are under way. */
static void buckets(void)
{
    mb_tensor gs[4];
    const float data[4][6] = {{1}, {2}, {3}, {4}};
    for (int i = 0; i < 4; i++)
        gs[i] = mb_from(mb, MB_FLOAT32, MB_SHAPE(rank == size - 1 && i == 1 ? 6 : 5), data[i]);
    mb_mean_gradients(mpi, gs, 4, 4);
    mb_eval(gs, 4);
}

/* The last rank does something else. */
void case_disagree(const char *how)
{
    bool last = rank == size - 1;
    double first = sum_of(ones(MB_FLOAT32, 3)); /* all is well at first */
    expect(first == 3 * size, "sum %g", first);
    if (is(how, "shape"))
        sum_of(ones(MB_FLOAT32, last ? 4 : 6));
    else if (is(how, "dtype"))
        sum_of(ones(last ? MB_FLOAT64 : MB_FLOAT32, 6));
    else if (is(how, "op"))
        mb_eval((mb_tensor[]){last ? mb_all_gather(mpi, ones(MB_FLOAT32, 6))
                                   : mb_all_reduce(mpi, ones(MB_FLOAT32, 6), MB_REDUCE_MAX)},
                1);
    else if (is(how, "root"))
        mb_eval((mb_tensor[]){mb_broadcast_from(mpi, ones(MB_FLOAT32, 6), last)}, 1);
    else if (is(how, "order"))
        for (int i = 0; i < 2; i++)
            sum_of(ones(MB_FLOAT32, i == last ? 4 : 6));
    else if (is(how, "buckets"))
        buckets();
    else if (is(how, "close") && !last)
        sum_of(ones(MB_FLOAT32, 6));
    else if (is(how, "error")) {
        if (last)
            mb_matmul(ones(MB_FLOAT32, 6), ones(MB_FLOAT32, 5));
        else
            sum_of(ones(MB_FLOAT32, 6));
    } else if (is(how, "agree")) {
        if (last)
            mb_fail(mb, MB_IO, "a file that only this rank reads");
        mb_mpi_agree(mpi);
    } else if (is(how, "late")) {
        if (last)
            sleep(2);
        else
            sum_of(ones(MB_FLOAT32, 6));
    } else if (is(how, "killed")) {
        if (last)
            raise(SIGKILL);
        sum_of(ones(MB_FLOAT32, 6));
    } else if (is(how, "exits")) {
        if (last) {
            fprintf(stderr, "rank %d: this is what went wrong\n", rank);
            exit(1);
        }
        sum_of(ones(MB_FLOAT32, 6));
    }
    if (!is(how, "close") || !last)
        say();
    if (is(how, "agree")) { /* nothing is lost by it */
        mb_clear_error(mb);
        double again = sum_of(ones(MB_FLOAT32, 3));
        expect(again == 3 * size, "afterwards: %s", mb_message(mb));
        return;
    }
    if (is(how, "late") || (last && (is(how, "close") || is(how, "error"))))
        return;
    mb_clear_error(mb);
    sum_of(ones(MB_FLOAT32, 3)); /* the handle remains of no use, on all ranks */
    expect(mb_error(mb) != MB_OK, "it goes on");
}

static void refused(const char *wanted)
{
    expect(mb_error(mb) != MB_OK && strstr(mb_message(mb), wanted), "wanted \"%s\", got \"%s\"", wanted,
           mb_message(mb));
    mb_clear_error(mb);
}

void case_refused(void)
{
    mb_tensor x = ones(MB_FLOAT32, 3), k = ones(MB_INT32, 3), b = mb_ones(mb, MB_BOOL, MB_SHAPE(3));
    mb_all_reduce(mpi, k, MB_REDUCE_MEAN);
    refused("all_reduce: got int32; a mean is of floats");
    mb_all_reduce(mpi, b, MB_REDUCE_SUM);
    refused("got bool");
    mb_all_reduce(mpi, x, (mb_reduction)7);
    refused("reduction 7");
    mb_reduce_scatter(mpi, ones(MB_FLOAT32, size + 1));
    refused("one entry for each of");
    mb_reduce_scatter(mpi, mb_ones(mb, MB_FLOAT32, MB_SHAPE0));
    refused("one entry for each of");
    mb_broadcast_from(mpi, x, size);
    refused("broadcast_from: rank");
    mb_broadcast_from(mpi, x, -1);
    refused("rank -1");
    mb_all_gather(mpi, mb_ones(mb, MB_FLOAT32, MB_SHAPE(1, 1, 1, 1, 1, 1, 1, 1)));
    refused("one more is too many");
    mb_all_reduce(mpi, (mb_tensor){0}, MB_REDUCE_SUM);
    refused("no tensor of the handle's context");
    mb_all_reduce(NULL, x, MB_REDUCE_SUM);
    refused("no mb_mpi handle");
    mb_mean_gradients(mpi, (mb_tensor[]){x, k}, 2, 0);
    refused("gradient 1");
    mb_mean_gradients(mpi, NULL, 2, 0);
    refused("no array");
    mb_mean_gradients(mpi, &x, 1, -1);
    refused("-1 bytes");
    mb_mpi_share_gradients(mpi, NULL, 0);
    refused("no optimiser");
    expect(!mb_mpi_open(mb, &(mb_mpi_options){.patience = -1}), "a patience of -1");
    refused("patience");
    expect(!mb_mpi_open(NULL, NULL) && mb_mpi_close(NULL) && mb_mpi_agree(NULL) && mb_mpi_size(NULL) == 1 &&
               mb_mpi_rank(NULL) == 0 && mb_params_broadcast(NULL, NULL, 0) &&
               mb_mpi_optimizer_save(NULL, NULL, "x") && mb_mpi_optimizer_load(NULL, NULL, "x"),
           "no handle");
    /* What was recorded with a handle that is closed since. */
    mb_mpi *other = mb_mpi_open(mb, NULL);
    mb_tensor y = mb_all_reduce(other, x, MB_REDUCE_SUM), g;
    mb_mpi_close(other);
    mb_grad(y, &x, 1, &g);
    refused("handle was closed");
    mb_eval(&y, 1);
    refused("all_reduce: its mb_mpi handle is closed");
}
