/* SPDX-License-Identifier: MIT
 *
 * cases.h - what a rank of the tests does: one case, by its name. */
#ifndef MB_TESTS_MPI_CASES_H
#define MB_TESTS_MPI_CASES_H

#include <moebius.h>
#include <optim/mpi/ranks.h>

/* Counts a failure and prints it, with the rank. */
void expect_at(int line, bool ok, const char *format, ...) __attribute__((format(printf, 3, 4)));
#define expect(...) expect_at(__LINE__, __VA_ARGS__)
extern int failures;

extern mb_context *mb;
extern mb_mpi *mpi;
extern int rank, size;

/* ---- ops.c ---- */
void case_values(void);
void case_derivatives(void);
void case_forward(void);
void case_vmap(void);
void case_scan(void);

/* ---- mistakes.c ---- */
void case_disagree(const char *how);
void case_refused(void);

/* ---- own.c ---- */
void case_own(void);

/* ---- training.c ---- */
void case_train(int argc, char **argv);
void case_broadcast(void);

#endif
