/* SPDX-License-Identifier: MIT
 *
 * random_scan.h - random programs with scans, which can be recorded in two ways: as they are, and with each
 * step written out. Both make the same choices, for these never depend on values.
 *
 * Each instruction has a number of its own, from which its choices come: the others stay as they are when
 * one is left out, so that a program that fails can be made smaller. */
#ifndef MB_TESTS_RANDOM_SCAN_H
#define MB_TESTS_RANDOM_SCAN_H

#include "support.h"

enum { SCAN_INPUTS = 3, SCAN_LEFT_OUT_MOST = 2000 };

typedef struct scan_program {
    uint64_t seed;
    uint64_t left_out[SCAN_LEFT_OUT_MOST]; /* instructions */
    int left_out_count;
} scan_program;

typedef struct scan_style {
    bool unrolled;
    bool marks; /* checkpoints */
    bool early; /* some values are asked for before the derivatives are recorded */
} scan_style;

/* The instructions that were recorded last, each once; NULL: not wanted. */
typedef struct scan_list {
    uint64_t number[SCAN_LEFT_OUT_MOST];
    const char *name[SCAN_LEFT_OUT_MOST];
    int depth[SCAN_LEFT_OUT_MOST];
    int count;
} scan_list;

/* Inputs: [3, 3], [3] and [] float64. Two results: the loss, [], and a vector, [3]. */
extern const mb_shape scan_input_shape[SCAN_INPUTS];
void scan_record(mb_context *ctx, const scan_program *p, scan_style style, const mb_tensor *inputs,
                 mb_tensor *loss, mb_tensor *vector, scan_list *list);

#endif
