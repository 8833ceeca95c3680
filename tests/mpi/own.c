/* SPDX-License-Identifier: MIT
 *
 * own.c - a program that begins and ends MPI itself, and has a communicator of its own: all ranks, the other
 * way round. */
#include <mpi.h>

#include "cases.h"

void case_own(void)
{
    int level, at, ended = 0;
    MPI_Comm turned;
    MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level);
    MPI_Comm_rank(MPI_COMM_WORLD, &at);
    MPI_Comm_split(MPI_COMM_WORLD, 0, -at, &turned);
    for (int turn = 0; turn < 2; turn++) {
        mpi = mb_mpi_open(mb, &(mb_mpi_options){.communicator = &turned});
        rank = mb_mpi_rank(mpi);
        size = mb_mpi_size(mpi);
        expect(rank == size - 1 - at, "rank %d of the world is %d of its own", at, rank);
        float world = (float)at, all[64] = {0};
        mb_tensor each = mb_all_gather(mpi, mb_from(mb, MB_FLOAT32, MB_SHAPE0, &world));
        mb_read(each, all, (size_t)size * sizeof *all);
        for (int r = 0; r < size; r++)
            expect(all[r] == (float)(size - 1 - r), "rank %d is %g in the world", r, (double)all[r]);
        expect(mb_mpi_close(mpi) == MB_OK, "%s", mb_message(mb));
    }
    mpi = NULL;
    MPI_Finalized(&ended);
    expect(!ended, "MPI was ended, which it was not the library's to do");
    MPI_Comm_free(&turned);
    MPI_Finalize();
    expect(!mb_mpi_open(mb, NULL), "opened after MPI's end");
    expect(mb_error(mb) == MB_INVALID, "%s", mb_message(mb));
    mb_clear_error(mb);
}
