/* SPDX-License-Identifier: MIT
 *
 * agree.c - whether all ranks are about to do the same, and the sentence where they are not. All have the
 * same headers before them, so all come to the same conclusion, and exchange texts only then.
 */
#include "optim/mpi/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *reduction_name(int how)
{
    return how == MB_REDUCE_SUM ? "sum" : how == MB_REDUCE_MEAN ? "mean" : "maximum";
}

/* What this rank is at, for the others. */
static void describe(const mb_mpi *mpi, const mb__mpi_header *h, char *text)
{
    const char *dtype = mb_dtype_name((mb_dtype)h->dtype), *error = mb_message(mpi->ctx);
    long long n = (long long)h->count;
    switch (h->kind) {
    case MB__MPI_REDUCE:
        snprintf(text, MB__MPI_TEXT, "an all_reduce (%s) of %lld %s", reduction_name(h->how), n, dtype);
        break;
    case MB__MPI_GATHER:
        snprintf(text, MB__MPI_TEXT, "an all_gather of %lld %s", n, dtype);
        break;
    case MB__MPI_SCATTER:
        snprintf(text, MB__MPI_TEXT, "a reduce_scatter of %lld %s", n, dtype);
        break;
    case MB__MPI_BROADCAST:
        snprintf(text, MB__MPI_TEXT, "a broadcast_from rank %d of %lld %s", (int)h->how, n, dtype);
        break;
    case MB__MPI_FAILED:
        snprintf(text, MB__MPI_TEXT, "the end of its memory");
        break;
    default:
        if (h->kind == MB__MPI_AGREE && h->how)
            snprintf(text, MB__MPI_TEXT, "a checkpoint of step %d%s%.300s", (int)h->how - 1,
                     *error ? " with the error: " : "", error);
        else
            snprintf(text, MB__MPI_TEXT, "%s%s%.300s",
                     h->kind == MB__MPI_AGREE ? "mb_mpi_agree" : "mb_mpi_close",
                     *error ? " with the error: " : "", error);
    }
}

static bool same(const mb__mpi_header *a, const mb__mpi_header *b)
{
    return a->kind == b->kind && a->dtype == b->dtype && a->how == b->how && a->count == b->count;
}

/* How much a rank's header tells of what went wrong. */
static int tells(const mb__mpi_header *h)
{
    return h->kind == MB__MPI_FAILED ? 3 : h->status != MB_OK ? 2 : h->kind == MB__MPI_CLOSE ? 1 : 0;
}

/* Two ranks that do not do the same, the more telling one as *one. */
static void choose(const mb_mpi *mpi, const mb__mpi_header *all, int *one, int *other)
{
    *one = *other = 0;
    for (int r = 1; r < mpi->size; r++)
        if (tells(&all[r]) > tells(&all[*one]))
            *one = r;
    for (int r = 0; r < mpi->size && same(&all[*one], &all[*other]); r++)
        *other = r;
}

/* [size, MB__MPI_TEXT]: what each rank is at; to be freed. NULL: the handle is lost. */
static char *exchange_texts(mb_mpi *mpi, const mb__mpi_header *mine)
{
    char text[MB__MPI_TEXT] = "";
    char *all = calloc((size_t)mpi->size, MB__MPI_TEXT);
    char *into = all ? all : NULL;
    if (!into) {
        mpi->lost = true; /* the others wait for a text that cannot be received here */
        mb__mpi_break(mpi, MB_NO_MEMORY, "ranks do not agree, and there is no memory to hear why");
        return NULL;
    }
    describe(mpi, mine, text);
    text[MB__MPI_TEXT - 1] = 0;
    if (mb__mpi_ok(mpi, "MPI_Allgather",
                   MPI_Allgather(text, MB__MPI_TEXT, MPI_CHAR, into, MB__MPI_TEXT, MPI_CHAR, mpi->tell)))
        return all;
    free(all);
    return NULL;
}

bool mb__mpi_agreed(mb_mpi *mpi, mb__mpi_operation *op)
{
    const mb__mpi_header *all = op->all;
    bool equal = true, errors = false;
    for (int r = 0; r < mpi->size; r++) {
        equal &= same(&all[0], &all[r]);
        errors |= all[r].status != MB_OK;
    }
    if (equal && !(errors && all[0].kind == MB__MPI_AGREE) && all[0].kind != MB__MPI_FAILED)
        return true;
    char *texts = exchange_texts(mpi, &op->mine);
    if (!texts)
        return false;
    int one, other;
    choose(mpi, all, &one, &other);
    const char *first = texts + (size_t)one * MB__MPI_TEXT, *second = texts + (size_t)other * MB__MPI_TEXT;
    if (all[0].kind == MB__MPI_FAILED && equal)
        mb__mpi_break(mpi, MB_NO_MEMORY, "all ranks are at the end of their memory");
    else if (equal)
        snprintf(mpi->sentence, sizeof mpi->sentence, "rank %d is at %s", one, first);
    else
        mb__mpi_break(mpi, MB_INVALID,
                      "rank %d is at %s, and rank %d at %s; all ranks must do the same in the same order",
                      one, first, other, second);
    free(texts);
    return equal && mpi->broken == MB_OK;
}
