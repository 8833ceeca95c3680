/* SPDX-License-Identifier: MIT
 * temporary.c - a stack of memory that is kept between calls. */
#include "tensor/internal.h"

enum { CHUNK_BYTES = 16384 };

struct mb__chunk_of_temporaries {
    struct mb__chunk_of_temporaries *next, *prev;
    size_t bytes, used; /* after this header */
};
typedef struct mb__chunk_of_temporaries chunk;

enum { HEADER = (sizeof(chunk) + 15) / 16 * 16 };

mb__temporaries mb__temporaries_begin(mb_context *ctx)
{
    return (mb__temporaries){ctx, ctx->temporary, ctx->temporary ? ctx->temporary->used : 0};
}

void mb__temporaries_end(const mb__temporaries *t)
{
    chunk *c = t->chunk;
    if (!c) /* nothing was there yet: back to the first */
        for (c = t->ctx->temporary; c && c->prev;)
            c = c->prev;
    if (c)
        c->used = t->used;
    t->ctx->temporary = c;
}

void *mb__temporary(mb_context *ctx, size_t bytes)
{
    bytes = (bytes + 16) / 16 * 16;
    chunk *c = ctx->temporary;
    while (c && c->bytes - c->used < bytes) {
        if (c->next)
            c->next->used = 0;
        if (!c->next)
            break;
        c = c->next;
    }
    if (!c || c->bytes - c->used < bytes) {
        size_t size = bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES;
        chunk *fresh = mb__alloc_raw(ctx, HEADER + size);
        if (!fresh)
            return NULL;
        *fresh = (chunk){.prev = c, .bytes = size};
        if (c)
            c->next = fresh;
        c = fresh;
    }
    ctx->temporary = c;
    void *p = (char *)c + HEADER + c->used;
    c->used += bytes;
    return memset(p, 0, bytes);
}

void mb__temporaries_free(mb_context *ctx)
{
    chunk *c = ctx->temporary;
    while (c && c->next)
        c = c->next;
    while (c) {
        chunk *prev = c->prev;
        mb__free(ctx, c, HEADER + c->bytes);
        c = prev;
    }
    ctx->temporary = NULL;
}
