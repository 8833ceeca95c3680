/* SPDX-License-Identifier: MIT
 *
 * support.h - what the random programs of tests/ want of a test program, here without Criterion, and how
 * cases are told: a line for each that failed, and a sum at the end.
 */
#ifndef MB_TEST_BACKEND_SUPPORT_H
#define MB_TEST_BACKEND_SUPPORT_H

#include "numbers.h"

/* ---- the run ---- */

typedef struct conformance {
    const char *backend; /* as for mb_open */
    bool float64;        /* the backend has it */
    const char *only;    /* a pattern of fnmatch(3) that names must match; NULL: all */
    int programs;        /* random ones of each kind */
    int passed, failed;
} conformance;

extern conformance run;

/* Whether a case of this name is to be run. */
bool wanted(const char *name);
/* Counts a case; prints its name and why it failed. Returns ok. */
bool told(const char *name, bool ok, const char *format, ...) __attribute__((format(printf, 3, 4)));

void elementwise_cases(void);
void dtype_cases(void);
void op_cases(void);
void custom_cases(void);
void program_cases(void);
void training_cases(void);

/* ---- for random programs ---- */

/* Without a context there is nothing to test: ends the program. */
mb_context *open_as(const char *backend, const char *disable, int threads);
void close_failed(mb_context *ctx);
double *values(mb_tensor t);
/* Remembered until the case is told. */
bool expect(bool ok, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
