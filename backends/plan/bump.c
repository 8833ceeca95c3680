/* SPDX-License-Identifier: MIT
 * bump.c - memory that is freed all at once. */
#include <string.h>

#include "backends/plan/bump.h"

struct mb__chunk {
    struct mb__chunk *next;
    size_t size;
};

void *mb__bump_get(mb__bump *b, size_t bytes)
{
    bytes = (bytes + 15) & ~(size_t)15;
    size_t head = (sizeof(struct mb__chunk) + 15) & ~(size_t)15;
    if (!b->chunks || b->used + bytes > b->chunks->size) {
        size_t size = b->total / 8 > 8192 ? b->total / 8 : 8192;
        if (size < bytes + head)
            size = bytes + head;
        struct mb__chunk *c = mb__host_alloc_raw(b->host, size);
        if (!c)
            return NULL;
        c->next = b->chunks;
        c->size = size;
        b->chunks = c;
        b->used = head;
        b->total += size;
    }
    void *p = (char *)b->chunks + b->used;
    b->used += bytes;
    return memset(p, 0, bytes);
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

void *mb__bump_grow(mb__bump *b, void *old, int count, int *capacity, size_t item)
{
    if (count < *capacity)
        return old;
    int next = *capacity ? 2 * *capacity : 8;
    /* The newest piece of the newest chunk is extended where it is. */
    size_t held = ((size_t)*capacity * item + 15) & ~(size_t)15,
           want = ((size_t)next * item + 15) & ~(size_t)15;
    if (old && *capacity && (char *)b->chunks + b->used == (char *)old + held &&
        b->used - held + want <= b->chunks->size) {
        memset((char *)old + held, 0, want - held);
        b->used += want - held;
        *capacity = next;
        return old;
    }
    void *p = mb__bump_get(b, (size_t)next * item);
    if (!p)
        return NULL;
    if (count)
        memcpy(p, old, (size_t)count * item);
    *capacity = next;
    return p;
}
