/* SPDX-License-Identifier: MIT
 *
 * compare.h - outputs beside what a case says they are. */
#ifndef ONNX_COMPARE_H
#define ONNX_COMPARE_H

#include "run.h"

typedef enum precision {
    EXACT,   /* the same bits, but for the sign of 0 and the bits of NaN */
    ROUNDED, /* both sides rounded, in different orders */
    COARSE,  /* the case itself is not better than four digits */
} precision;

typedef struct difference {
    char text[256]; /* "" where there is none */
    double worst;   /* largest difference of floats, as a part of what is allowed */
} difference;

/* Shape, dtype and all elements; integers and bool are always exact. */
void compare_value(run *r, const char *name, const value *got, const data *wanted, precision precision,
                   difference *d);

#endif
