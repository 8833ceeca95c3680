/* SPDX-License-Identifier: MIT
 *
 * dump.h - the stages of a plan as text and as DOT, for people: $MB_DUMP, see backends.h. Allocates
 * no memory and cannot fail; errors in writing are for the supplier of the writer to handle.
 */
#ifndef MB_DUMP_H
#define MB_DUMP_H

#include "backends/plan/graph.h"

enum mb__stage {
    MB_STAGE_TAPE,    /* the nodes that a flush needs, as they were recorded */
    MB_STAGE_GRAPH,   /* the same simplified, and where each lies            */
    MB_STAGE_GROUPS,  /* what becomes one kernel, in running order           */
    MB_STAGE_STEPS,   /* what the backend is given                           */
    MB_STAGE_ARENA,   /* where values lie, and how long                      */
    MB_STAGE_KERNELS, /* the instructions of steps that are kernels         */
    MB_STAGE_COUNT,
};

/* Gets the text in pieces. */
typedef struct mb__writer {
    void (*write)(void *user, const char *text, size_t length);
    void *user;
} mb__writer;

void mb__say(const mb__writer *w, const char *format, ...) MB_PRINTF(2, 3); /* 1023 characters at most */
/* Inside of a quoted string of DOT. */
void mb__say_quoted(const mb__writer *w, const char *text);

/* A table of text. `row` fills in the cells of a row, which are empty; the last one is not padded. */
enum { MB_CELLS = 8, MB_CELL_BYTES = 256 };
typedef char mb__cell[MB_CELL_BYTES];
void mb__say_table(const mb__writer *w, const char *indent, const char *const *heads, int columns, int rows,
                   void (*row)(const void *of, int row, mb__cell *cells), const void *of);
/* Adds to what a cell says; what does not fit is left out. */
void mb__cell_add(mb__cell cell, const char *format, ...) MB_PRINTF(2, 3);
/* "2,0,1" */
void mb__cell_list(mb__cell cell, const int64_t *list, int count);
/* The same in brackets: a shape, or strides. */
void mb__cell_shape(mb__cell cell, const int64_t *dim, int rank);

/* Value i of a plan: "in0", "out1", or "v7" in the arena. */
void mb__cell_value(const mb__plan *plan, int32_t i, mb__cell cell);

/* As recorded (tape), or with layouts. */
void mb__dump_graph(const mb__writer *w, const mb__graph *g, bool tape, bool dot);
void mb__dump_groups(const mb__writer *w, const mb__graph *g, const mb__fusion *f, bool dot);
void mb__dump_steps(const mb__writer *w, const mb__plan *plan, bool dot);
void mb__dump_kernels(const mb__writer *w, const mb__plan *plan, bool dot);
/* For a backend, whose elements may be larger than their dtype. */
void mb__dump_arena(const mb__writer *w, const mb__plan *plan, size_t (*element_size)(mb_dtype), bool dot);

/* An op of the table, or a kernel's own: "load", "const". */
const char *mb__kop_name(int op);

#endif
