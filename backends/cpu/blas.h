/* SPDX-License-Identifier: MIT
 * blas.h - the functions of OpenBLAS that the cpu backend calls. */
#ifndef MB_CPU_BLAS_H
#define MB_CPU_BLAS_H

#include <cblas.h>
#include <stdbool.h>

typedef struct mb__blas {
    __typeof__(cblas_sgemm) *sgemm;
    __typeof__(cblas_dgemm) *dgemm;
    __typeof__(openblas_get_corename) *corename;
    __typeof__(openblas_get_parallel) *parallel;
    __typeof__(openblas_set_num_threads) *set_num_threads;
} mb__blas;

/* Loads it at the first call. NULL: it is not installed, and *why is the loader's message. */
const mb__blas *mb__blas_load(const char **why);
/* Whether that many threads can call it at once: each allocates a buffer at its first call, and waits for
 * ever if a limit of the process leaves no address space for it. */
bool mb__blas_has_room(int threads);

#endif
