/* SPDX-License-Identifier: MIT
 *
 * vmapped.h - a function vmapped, beside the same function called for one example after the other: the same
 * values, and the same derivatives by what is batched and what is not.
 */
#ifndef MB_TESTS_VMAPPED_H
#define MB_TESTS_VMAPPED_H

#include "support.h"

enum { EXAMPLES = 3, OPERANDS = 4 };

typedef struct mapped {
    const char *name;
    mb_tensor (*f)(mb_context *ctx, const mb_tensor *xs, const void *user);
    const void *user;
    int n;
    mb_shape shape[OPERANDS]; /* of one example */
    double low, high;
    mb_dtype dtype[OPERANDS]; /* MB_FLOAT32 stands for MB_FLOAT64 */
    int orders;               /* of derivatives: 0: 2; -1: none */
    double looser;            /* 0: 1; factor on the tolerance */
} mapped;

/* With each set of batched operands, along axes that change; on reference and cpu. */
void vmapped(const mapped *cases, int count);

#endif
