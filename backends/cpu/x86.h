/* SPDX-License-Identifier: MIT
 *
 * x86.h - the few instructions of x86-64 with AVX2 that chains of arithmetic are made of, as bytes. Vectors
 * are of 32 bytes. Names are those of the manuals' mnemonics, operands in the order of Intel's syntax.
 */
#ifndef MB_X86_H
#define MB_X86_H

#include "backends/plan/bump.h"

enum mb__gpr {
    MB_RAX,
    MB_RCX,
    MB_RDX,
    MB_RBX,
    MB_RSP,
    MB_RBP,
    MB_RSI,
    MB_RDI,
    MB_R8,
    MB_R9,
    MB_R10,
    MB_R11,
    MB_R12,
    MB_R13,
    MB_R14,
    MB_R15,
    MB_NO_INDEX = -1,
};

/* A vector instruction: its opcode map, prefix and opcode, as in a VEX prefix. */
typedef struct mb__vex {
    uint8_t map, prefix, opcode;
} mb__vex;

static const mb__vex MB_VMOVUPS = {1, 0, 0x10};
static const mb__vex MB_VMOVUPS_TO = {1, 0, 0x11}; /* to memory */
static const mb__vex MB_VMASKMOV = {2, 1, 0x2c};
static const mb__vex MB_VMASKMOV_TO = {2, 1, 0x2e};
static const mb__vex MB_VBROADCASTSS = {2, 1, 0x18};
static const mb__vex MB_VSQRTPS = {1, 0, 0x51};
static const mb__vex MB_VANDPS = {1, 0, 0x54};
static const mb__vex MB_VORPS = {1, 0, 0x56};
static const mb__vex MB_VXORPS = {1, 0, 0x57};
static const mb__vex MB_VADDPS = {1, 0, 0x58};
static const mb__vex MB_VMULPS = {1, 0, 0x59};
static const mb__vex MB_VCVTDQ2PS = {1, 0, 0x5b};
static const mb__vex MB_VSUBPS = {1, 0, 0x5c};
static const mb__vex MB_VMINPS = {1, 0, 0x5d};
static const mb__vex MB_VDIVPS = {1, 0, 0x5e};
static const mb__vex MB_VMAXPS = {1, 0, 0x5f};
static const mb__vex MB_VCMPPS = {1, 0, 0xc2};    /* with a predicate */
static const mb__vex MB_VROUNDPS = {3, 1, 0x08};  /* with a direction */
static const mb__vex MB_VBLENDVPS = {3, 1, 0x4a}; /* with the mask's register in the upper half of a byte */
static const mb__vex MB_SHIFT = {1, 1, 0x72};     /* of 32-bit lanes; the register field says which way */
enum { MB_SHIFT_RIGHT = 2, MB_SHIFT_LEFT = 6 };

/* The last operand of an instruction: a register, or memory at base + index + displacement. */
typedef struct mb__operand {
    bool memory;
    int reg; /* or the base */
    int index;
    int32_t displacement;
} mb__operand;

static inline mb__operand mb__reg(int reg)
{
    return MB_LIT(mb__operand){false, reg, MB_NO_INDEX, 0};
}
static inline mb__operand mb__memory(int base, int index, int32_t displacement)
{
    return MB_LIT(mb__operand){true, base, index, displacement};
}

/* Code being written, in memory of `bump`. Once `failed`, for want of memory, nothing more is written. */
typedef struct mb__x86 {
    mb__bump *bump;
    unsigned char *at;
    int used, capacity;
    bool failed;
} mb__x86;

void mb__x86_byte(mb__x86 *x, int byte);
/* d = op(a, from); a is -1 where there is one operand, byte where no byte follows. */
void mb__x86_vector(mb__x86 *x, mb__vex op, int d, int a, mb__operand from, int byte);
void mb__x86_load(mb__x86 *x, int to, mb__operand from); /* mov r64, [memory] */
void mb__x86_move(mb__x86 *x, int to, int from);         /* mov r64, r64 */
void mb__x86_add(mb__x86 *x, int reg, int32_t number);
void mb__x86_subtract(mb__x86 *x, int reg, int from_reg); /* reg -= from_reg */
void mb__x86_and(mb__x86 *x, int reg, int32_t number);
void mb__x86_compare(mb__x86 *x, int a, int b);
void mb__x86_push(mb__x86 *x, int reg);
void mb__x86_pop(mb__x86 *x, int reg);
/* A jump, by condition: as signed numbers. mb__x86_land sets where one that was written goes: here. */
enum { MB_IF_NOT_LESS = 0xd, MB_IF_NOT_MORE = 0xe, MB_IF_MORE = 0xf };
int mb__x86_jump(mb__x86 *x, int condition, int to); /* to: -1 if not known; returns the jump's own place */
void mb__x86_land(mb__x86 *x, int jump);
void mb__x86_return(mb__x86 *x); /* with vzeroupper before it */

#endif
