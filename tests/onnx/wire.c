/* SPDX-License-Identifier: MIT */
#include "wire.h"

#include <string.h>

wire wire_of(const void *bytes, size_t n)
{
    const uint8_t *at = bytes;
    return (wire){.at = at, .end = at + n};
}

size_t wire_left(wire w)
{
    return (size_t)(w.end - w.at);
}

static bool refuse(wire *w)
{
    w->bad = true;
    w->at = w->end;
    return false;
}

/* Seven bits a byte, the lowest first; the top bit says that more follow. At most ten bytes. */
static bool varint(wire *w, uint64_t *bits)
{
    *bits = 0;
    for (int shift = 0; shift < 70; shift += 7) {
        if (w->at == w->end)
            return refuse(w);
        uint8_t byte = *w->at++;
        *bits |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return true;
    }
    return refuse(w);
}

/* A little-endian number of n bytes. */
static bool fixed(wire *w, size_t n, uint64_t *bits)
{
    *bits = 0;
    if (wire_left(*w) < n)
        return refuse(w);
    for (size_t i = 0; i < n; i++)
        *bits |= (uint64_t)*w->at++ << (8 * i);
    return true;
}

static bool number(wire *w, int type, uint64_t *bits)
{
    if (type == WIRE_VARINT)
        return varint(w, bits);
    if (type == WIRE_64)
        return fixed(w, 8, bits);
    return type == WIRE_32 ? fixed(w, 4, bits) : refuse(w);
}

bool wire_next(wire *w, field *f)
{
    uint64_t tag;
    *f = (field){0};
    if (w->bad || w->at == w->end || !varint(w, &tag))
        return false;
    f->number = (uint32_t)(tag >> 3);
    switch (tag & 7) {
    case WIRE_VARINT:
    case WIRE_64:
    case WIRE_32:
        f->type = tag & 7;
        return number(w, (int)(tag & 7), &f->bits);
    case WIRE_BYTES: {
        uint64_t n;
        f->type = WIRE_BYTES;
        if (!varint(w, &n) || n > wire_left(*w))
            return refuse(w);
        f->bytes = wire_of(w->at, (size_t)n);
        w->at += n;
        return true;
    }
    default: /* groups, which no file of ours has */
        return refuse(w);
    }
}

bool wire_packed(wire *w, int type, uint64_t *bits)
{
    return !w->bad && w->at != w->end && number(w, type, bits);
}

size_t wire_numbers(field f, int type)
{
    if (f.type != WIRE_BYTES)
        return 1;
    size_t n = 0;
    for (uint64_t bits; wire_packed(&f.bytes, type, &bits);)
        n++;
    return n;
}

float wire_float(uint64_t bits)
{
    uint32_t word = (uint32_t)bits;
    float x;
    memcpy(&x, &word, sizeof x);
    return x;
}

double wire_double(uint64_t bits)
{
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
