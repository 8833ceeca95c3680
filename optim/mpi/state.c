/* SPDX-License-Identifier: MIT
 *
 * state.c - which handles there are in this process, and what becomes of their errors.
 */
#include "optim/mpi/internal.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>

/* Ops know a handle by its number: what was recorded may outlive it. */
enum { HANDLES = 64 };
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of what follows */
static mb_mpi *handles[HANDLES];
static int made, open_now;
static bool begun_here;

mb_mpi *mb__mpi_of(int64_t number)
{
    mb_mpi *found = NULL;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < HANDLES; i++)
        if (handles[i] && handles[i]->number == number)
            found = handles[i];
    pthread_mutex_unlock(&lock);
    return found;
}

bool mb__mpi_enlist(mb_mpi *mpi)
{
    bool done = false;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < HANDLES && !done; i++)
        if (!handles[i]) {
            handles[i] = mpi;
            mpi->number = ++made;
            open_now++;
            done = true;
        }
    pthread_mutex_unlock(&lock);
    return done;
}

void mb__mpi_begun_here(void)
{
    pthread_mutex_lock(&lock);
    begun_here = true;
    pthread_mutex_unlock(&lock);
}

bool mb__mpi_strike(const mb_mpi *mpi)
{
    bool found = false;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < HANDLES; i++)
        if (handles[i] == mpi) {
            handles[i] = NULL;
            open_now--;
            found = true;
        }
    bool ends = found && begun_here && open_now == 0;
    pthread_mutex_unlock(&lock);
    return ends;
}

/* ---- errors ---- */

mb_status mb__mpi_break(mb_mpi *mpi, mb_status status, const char *format, ...)
{
    if (mpi->broken != MB_OK)
        return mpi->broken;
    va_list args;
    va_start(args, format);
    vsnprintf(mpi->sentence, sizeof mpi->sentence, format, args);
    va_end(args);
    return mpi->broken = status;
}

bool mb__mpi_ok(mb_mpi *mpi, const char *call, int code)
{
    if (code == MPI_SUCCESS)
        return true;
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(code, text, &length);
    mpi->lost = true;
    mb__mpi_break(mpi, MB_BACKEND, "%s failed: %.300s", call, text);
    return false;
}

bool mb__mpi_usable(const char *site, mb_mpi *mpi, const char *name)
{
    if (!mpi || mb_error(mpi->ctx) != MB_OK)
        return false;
    if (mpi->broken == MB_OK)
        return true;
    mb_fail_at(site, mpi->ctx, mpi->broken, "%s: %s", name, mpi->sentence);
    return false;
}
