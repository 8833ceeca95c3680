/* SPDX-License-Identifier: MIT
 *
 * bump_apart.c - bump memory of which each piece is an allocation of its own, in place of the library's: so
 * that every request can fail, not only the few that begin a chunk, and so that whoever keeps a pointer into
 * an array that has grown since reads what was freed. */
#include <string.h>

#include "backends/plan/bump.h"

struct mb__chunk {
    struct mb__chunk *next;
    size_t size;
};

enum { HEAD = (sizeof(struct mb__chunk) + 15) / 16 * 16 };

void *mb__bump_get(mb__bump *b, size_t bytes)
{
    struct mb__chunk *c = mb__host_alloc_raw(b->host, HEAD + bytes);
    if (!c)
        return NULL;
    c->next = b->chunks;
    c->size = HEAD + bytes;
    b->chunks = c;
    b->total += c->size;
    return memset((char *)c + HEAD, 0, bytes);
}

void mb__bump_free(mb__bump *b)
{
    while (b->chunks) {
        struct mb__chunk *c = b->chunks;
        b->chunks = c->next;
        mb__host_free(b->host, c, c->size);
    }
    b->used = b->total = 0;
}

void *mb__bump_grow(mb__bump *b, void *old, int count, int *room, size_t item)
{
    if (count < *room)
        return old;
    int next = *room ? 2 * *room : 4;
    void *p = mb__bump_get(b, (size_t)next * item);
    if (!p)
        return NULL;
    if (count) {
        memcpy(p, old, (size_t)count * item);
        memset(old, 0x5a, (size_t)count * item);
    }
    *room = next;
    return p;
}
