/* SPDX-License-Identifier: MIT
 *
 * compare.h - outputs beside what a case says they are. */
#ifndef ONNX_COMPARE_H
#define ONNX_COMPARE_H

#include "run.h"

typedef struct difference {
    char text[256]; /* "" where there is none */
    double worst;   /* largest relative difference of floats */
} difference;

/* exact: floats are compared bit by bit, but for the sign of 0 and what NaN it is. */
void compare_value(run *r, const char *name, const value *got, const data *wanted, bool exact, difference *d);

#endif
