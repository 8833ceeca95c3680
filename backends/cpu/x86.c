/* SPDX-License-Identifier: MIT
 * x86.c - see x86.h. */
#include "backends/cpu/x86.h"

void mb__x86_byte(mb__x86 *x, int byte)
{
    if (x->used == x->capacity) {
        unsigned char *at = x->failed ? NULL : mb__bump_grow(x->bump, x->at, x->used, &x->capacity, 1);
        if (!at) {
            x->failed = true;
            return;
        }
        x->at = at;
    }
    x->at[x->used++] = (unsigned char)byte;
}

static void four(mb__x86 *x, int32_t number)
{
    uint32_t n = (uint32_t)number;
    for (int i = 0; i < 4; i++)
        mb__x86_byte(x, (int)(n >> 8 * i & 255));
}

/* The ModRM byte, and what it says that follows. */
static void operand(mb__x86 *x, int field, mb__operand o)
{
    int low = (field & 7) << 3, base = o.reg & 7;
    if (!o.memory) {
        mb__x86_byte(x, 0xc0 | low | base);
        return;
    }
    bool wide = o.displacement < -128 || o.displacement > 127;
    bool scaled = o.index >= 0 || base == 4;
    mb__x86_byte(x, (wide ? 0x80 : 0x40) | low | (scaled ? 4 : base));
    if (scaled)
        mb__x86_byte(x, (o.index < 0 ? 4 : o.index & 7) << 3 | base);
    if (wide)
        four(x, o.displacement);
    else
        mb__x86_byte(x, o.displacement & 255);
}

void mb__x86_vector(mb__x86 *x, mb__vex op, int d, int a, mb__operand from, int byte)
{
    int index = from.memory && from.index >= 0 ? from.index : 0;
    mb__x86_byte(x, 0xc4);
    mb__x86_byte(x, (d < 8 ? 0x80 : 0) | (index < 8 ? 0x40 : 0) | (from.reg < 8 ? 0x20 : 0) | op.map);
    mb__x86_byte(x, (~(a < 0 ? 0 : a) & 15) << 3 | 4 | op.prefix);
    mb__x86_byte(x, op.opcode);
    operand(x, d, from);
    if (byte >= 0)
        mb__x86_byte(x, byte);
}

/* An instruction on whole 64-bit registers: opcode, then a register or part of the opcode, then an operand.
 */
static void general(mb__x86 *x, int opcode, int field, mb__operand o)
{
    mb__x86_byte(x, 0x48 | (field >= 8 ? 4 : 0) | (o.memory && o.index >= 8 ? 2 : 0) | (o.reg >= 8 ? 1 : 0));
    mb__x86_byte(x, opcode);
    operand(x, field, o);
}

void mb__x86_load(mb__x86 *x, int to, mb__operand from)
{
    general(x, 0x8b, to, from);
}
void mb__x86_move(mb__x86 *x, int to, int from)
{
    general(x, 0x8b, to, mb__reg(from));
}
void mb__x86_add(mb__x86 *x, int reg, int32_t number)
{
    general(x, 0x81, 0, mb__reg(reg));
    four(x, number);
}
void mb__x86_and(mb__x86 *x, int reg, int32_t number)
{
    general(x, 0x81, 4, mb__reg(reg));
    four(x, number);
}
void mb__x86_subtract(mb__x86 *x, int reg, int from_reg)
{
    general(x, 0x2b, reg, mb__reg(from_reg));
}
void mb__x86_compare(mb__x86 *x, int a, int b)
{
    general(x, 0x3b, a, mb__reg(b));
}

void mb__x86_push(mb__x86 *x, int reg)
{
    if (reg >= 8)
        mb__x86_byte(x, 0x41);
    mb__x86_byte(x, 0x50 | (reg & 7));
}
void mb__x86_pop(mb__x86 *x, int reg)
{
    if (reg >= 8)
        mb__x86_byte(x, 0x41);
    mb__x86_byte(x, 0x58 | (reg & 7));
}

int mb__x86_jump(mb__x86 *x, int condition, int to)
{
    int at = x->used;
    mb__x86_byte(x, 0x0f);
    mb__x86_byte(x, 0x80 | condition);
    four(x, to < 0 ? 0 : to - (x->used + 4));
    return at;
}
void mb__x86_land(mb__x86 *x, int jump)
{
    if (x->failed)
        return;
    int place = jump + 2;
    uint32_t n = (uint32_t)(x->used - (place + 4));
    for (int i = 0; i < 4; i++)
        x->at[place + i] = (unsigned char)(n >> 8 * i & 255);
}

void mb__x86_return(mb__x86 *x)
{
    static const unsigned char bytes[] = {0xc5, 0xf8, 0x77, 0xc3};
    for (size_t i = 0; i < sizeof bytes; i++)
        mb__x86_byte(x, bytes[i]);
}
