/* SPDX-License-Identifier: MIT */
#include "arena.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct arena_block {
    struct arena_block *next;
    max_align_t data[];
};

void *arena_take(arena *a, size_t count, size_t size)
{
    struct arena_block *block = NULL;
    if (count <= SIZE_MAX / 2 / (size > 0 ? size : 1))
        block = calloc(1, sizeof *block + count * size + sizeof(max_align_t));
    if (!block) {
        fprintf(stderr, "out of memory: %zu elements of %zu bytes\n", count, size);
        exit(1);
    }
    block->next = a->blocks;
    a->blocks = block;
    return block->data;
}

char *arena_text(arena *a, const void *bytes, size_t n)
{
    char *text = arena_take(a, n + 1, 1);
    if (n > 0)
        memcpy(text, bytes, n);
    return text;
}

void arena_clear(arena *a)
{
    while (a->blocks) {
        struct arena_block *next = a->blocks->next;
        free(a->blocks);
        a->blocks = next;
    }
}
