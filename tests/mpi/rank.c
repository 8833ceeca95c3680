/* SPDX-License-Identifier: MIT
 *
 * rank.c - one rank of the tests, begun by ranks.py with mpirun: rank CASE [ARGUMENT...]. Exits with 1 where
 * an expectation failed, and says which. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cases.h"

int failures;
mb_context *mb;
mb_mpi *mpi;
int rank, size;

void expect_at(int line, bool ok, const char *format, ...)
{
    if (ok || failures++ >= 8)
        return;
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fprintf(stderr, "rank %d of %d, line %d: %s\n", rank, size, line, text);
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    const char *patience = getenv("TESTS_PATIENCE");
    mb = mb_open(getenv("TESTS_BACKEND"));
    if (strcmp(name, "own") == 0) {
        case_own();
        mb_close(mb);
        return failures > 0;
    }
    mb_mpi_options options = {.patience = patience ? atof(patience) : 100};
    mpi = mb_mpi_open(mb, &options);
    rank = mb_mpi_rank(mpi);
    size = mb_mpi_size(mpi);
    bool quiet = strcmp(name, "disagree") == 0; /* its errors are what is wanted */
    if (strcmp(name, "ops") == 0) {
        case_values();
        case_derivatives();
        case_forward();
        case_vmap();
        if (strncmp(mb_backend_name(mb), "vulkan", 6) !=
            0) /* a loop on a device does not wait for the host */
            case_scan();
        case_refused();
        case_broadcast();
    } else if (strcmp(name, "broadcast") == 0)
        case_broadcast();
    else if (strcmp(name, "disagree") == 0)
        case_disagree(argv[2]);
    else if (strcmp(name, "train") == 0)
        case_train(argc - 2, argv + 2);
    else
        expect(false, "no case \"%s\"", name);
    expect(quiet || mb_error(mb) == MB_OK, "%s", mb_message(mb));
    mb_mpi_close(mpi);
    expect(quiet || mb_error(mb) == MB_OK, "%s", mb_message(mb));
    mb_close(mb);
    return failures > 0;
}
