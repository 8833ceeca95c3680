/* SPDX-License-Identifier: MIT
 *
 * handle.c - handles, from MPI's beginning to its end.
 */
#include "optim/mpi/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- opening ---- */

/* MPI, begun if nobody has; false: error set. */
static bool begin_mpi(const char *site, mb_context *ctx, bool theirs)
{
    int begun = 0, ended = 0, level = 0;
    MPI_Initialized(&begun);
    MPI_Finalized(&ended);
    if (ended || (theirs && !begun)) {
        mb_fail_at(site, ctx, MB_INVALID, "mpi_open: %s",
                   ended ? "MPI has ended, and cannot be begun again in the same process"
                         : "a communicator was given, and MPI is not begun");
        return false;
    }
    if (begun)
        return true;
    int code = MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level);
    if (code != MPI_SUCCESS || level < MPI_THREAD_FUNNELED) {
        mb_fail_at(site, ctx, MB_BACKEND, "mpi_open: MPI_Init_thread gave status %d and thread level %d",
                   code, level);
        return false;
    }
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    mb__mpi_begun_here();
    return true;
}

static bool duplicate(mb_mpi *mpi, MPI_Comm from)
{
    MPI_Comm *to[] = {&mpi->tell, &mpi->move, &mpi->spread};
    for (int i = 0; i < 3; i++)
        if (!mb__mpi_ok(mpi, "MPI_Comm_dup", MPI_Comm_dup(from, to[i])) ||
            !mb__mpi_ok(mpi, "MPI_Comm_set_errhandler", MPI_Comm_set_errhandler(*to[i], MPI_ERRORS_RETURN)))
            return false;
    return mb__mpi_ok(mpi, "MPI_Comm_rank", MPI_Comm_rank(from, &mpi->rank)) &&
           mb__mpi_ok(mpi, "MPI_Comm_size", MPI_Comm_size(from, &mpi->size));
}

mb_mpi *mb_mpi_open_at(const char *site, mb_context *ctx, const mb_mpi_options *options)
{
    const mb_mpi_options o = options ? *options : (mb_mpi_options){0};
    if (!ctx)
        return NULL;
    if (!(o.patience >= 0 && o.patience < 1e9)) {
        mb_fail_at(site, ctx, MB_INVALID, "mpi_open: a patience of %g seconds; wanted 0 to 1e9", o.patience);
        return NULL;
    }
    /* With an error of the context's as well: the other ranks are to hear of it. */
    if (!begin_mpi(site, ctx, o.communicator != NULL))
        return NULL;
    mb_mpi *mpi = calloc(1, sizeof *mpi);
    if (!mpi || !mb__mpi_enlist(mpi)) {
        mb_fail_at(site, ctx, mpi ? MB_INVALID : MB_NO_MEMORY, "mpi_open: %s",
                   mpi ? "64 handles are open, the most there can be" : "out of memory");
        free(mpi);
        return NULL;
    }
    mpi->ctx = ctx;
    mpi->patience = o.patience;
    mpi->last = &mpi->first;
    mpi->tell = mpi->move = mpi->spread = MPI_COMM_NULL;
    const char *debug = getenv("MB_DEBUG");
    mpi->at_once = debug && *debug && strcmp(debug, "0") != 0;
    if (duplicate(mpi, o.communicator ? *(const MPI_Comm *)o.communicator : MPI_COMM_WORLD))
        return mpi;
    mb_fail_at(site, ctx, mpi->broken, "mpi_open: %s", mpi->sentence);
    mb__mpi_strike(mpi);
    free(mpi);
    return NULL;
}

int mb_mpi_rank(const mb_mpi *mpi)
{
    return mpi ? mpi->rank : 0;
}

int mb_mpi_size(const mb_mpi *mpi)
{
    return mpi ? mpi->size : 1;
}

mb_mpi_counts mb_mpi_counted(const mb_mpi *mpi)
{
    return mpi ? mpi->counts : (mb_mpi_counts){0};
}

/* ---- meeting ---- */

/* All ranks come here, or elsewhere and are told. */
static void meet(mb_mpi *mpi, int kind, int32_t number)
{
    mpi->sentence[0] = 0;
    mb__mpi_operation *op = mb__mpi_begin(
        mpi, (mb__mpi_header){.kind = kind, .how = number, .status = (int32_t)mb_error(mpi->ctx)}, NULL, 1);
    if (op && mb__mpi_finish(mpi, op) == MB_OK)
        mb__mpi_free(mpi, op);
}

mb_status mb__mpi_agree_on(const char *site, mb_mpi *mpi, int32_t number)
{
    if (!mpi)
        return MB_NO_MEMORY;
    if (mpi->broken == MB_OK)
        meet(mpi, MB__MPI_AGREE, number);
    if (mb_error(mpi->ctx) == MB_OK && (mpi->broken != MB_OK || mpi->sentence[0]))
        mb_fail_at(site, mpi->ctx, mpi->broken != MB_OK ? mpi->broken : MB_INVALID, "mpi_agree: %s",
                   mpi->sentence);
    return mb_error(mpi->ctx);
}

mb_status mb_mpi_agree_at(const char *site, mb_mpi *mpi)
{
    return mb__mpi_agree_on(site, mpi, 0);
}

mb_status mb_mpi_close_at(const char *site, mb_mpi *mpi)
{
    if (!mpi)
        return MB_NO_MEMORY;
    mb_context *ctx = mpi->ctx;
    if (mpi->broken == MB_OK) {
        meet(mpi, MB__MPI_CLOSE, 0);
        if (mpi->broken != MB_OK && mb_error(ctx) == MB_OK)
            mb_fail_at(site, ctx, mpi->broken, "mpi_close: %s", mpi->sentence);
    }
    mb__mpi_drain(mpi);
    bool ends = mb__mpi_strike(mpi), lost = mpi->lost;
    MPI_Comm *each[] = {&mpi->tell, &mpi->move, &mpi->spread};
    for (int i = 0; i < 3 && !lost; i++)
        MPI_Comm_free(each[i]);
    if (!lost)
        free(mpi);
    if (ends && !lost) /* what is lost would be waited for */
        MPI_Finalize();
    return mb_error(ctx);
}
