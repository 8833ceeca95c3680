/* SPDX-License-Identifier: MIT
 *
 * arena.h - memory of one test case, given back all at once. */
#ifndef ONNX_ARENA_H
#define ONNX_ARENA_H

#include <stddef.h>

typedef struct arena {
    struct arena_block *blocks;
} arena;

/* Zeroed, aligned for any type. Ends the program where there is no memory: a test has no use for less. */
void *arena_take(arena *a, size_t count, size_t size);
/* n bytes as a string. */
char *arena_text(arena *a, const void *bytes, size_t n);
void arena_clear(arena *a);

/* count elements of a type. */
#define ARENA_NEW(a, type, count) ((type *)arena_take(a, (size_t)(count), sizeof(type)))

#endif
