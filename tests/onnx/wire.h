/* SPDX-License-Identifier: MIT
 *
 * wire.h - protobuf's wire format, read field by field: protobuf.dev/programming-guides/encoding.
 *
 *     wire w = wire_of(bytes, n);
 *     for (field f; wire_next(&w, &f);)
 *         if (f.number == 4)
 *             name = f.bytes;
 *     if (w.bad) ...
 */
#ifndef ONNX_WIRE_H
#define ONNX_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct wire {
    const uint8_t *at, *end;
    bool bad; /* cut short, or no wire format */
} wire;

typedef struct field {
    uint32_t number;
    enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 } type;
    uint64_t bits; /* of a varint or a fixed number; 0 for bytes */
    wire bytes;    /* of a string, a message or packed numbers */
} field;

wire wire_of(const void *bytes, size_t n);
size_t wire_left(wire w);
/* The next field; false at the end, and where w is bad. */
bool wire_next(wire *w, field *f);
/* The next of packed numbers of a type, or false. */
bool wire_packed(wire *w, int type, uint64_t *bits);
/* How many numbers of a type a field holds: 1, or those packed in it. */
size_t wire_numbers(field f, int type);

float wire_float(uint64_t bits);
double wire_double(uint64_t bits);

#endif
