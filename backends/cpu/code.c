/* SPDX-License-Identifier: MIT
 * code.c - see code.h. */
#define _GNU_SOURCE
#include <limits.h>
#include <string.h>
#include <sys/mman.h>

#include "backends/cpu/code.h"
#include "backends/cpu/x86.h"

/* ---- where code lives ---- */

static void *mapped(const void *bytes, size_t count)
{
#if defined(__x86_64__)
    void *at = mmap(NULL, count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        return NULL;
    memcpy(at, bytes, count);
    if (mprotect(at, count, PROT_READ | PROT_EXEC) == 0)
        return at;
    munmap(at, count);
#else
    (void)bytes, (void)count;
#endif
    return NULL;
}

bool mb__code_works(void)
{
    static const unsigned char nothing[] = {0xc3};
    void *at = mapped(nothing, sizeof nothing);
    mb__code_free(at, sizeof nothing);
    return at != NULL;
}

void mb__code_free(void *memory, size_t bytes)
{
    if (memory)
        munmap(memory, bytes);
}

/* ---- constants that code wants ---- */

#define EIGHT(x)                                                                                             \
    {                                                                                                        \
        x, x, x, x, x, x, x, x                                                                               \
    }
static const struct constants {
    uint32_t sign[8], magnitude[8], one[8] /* of float32 */, unit[8] /* of int32 */, all[8], none[8];
} constants = {EIGHT(0x80000000u), EIGHT(0x7fffffffu), EIGHT(0x3f800000u),
               EIGHT(1),           EIGHT(UINT32_MAX),  EIGHT(0)};
#define CONSTANT(name) mb__memory(DATA, MB_NO_INDEX, (int32_t)offsetof(struct constants, name))

bool mb__code_finish(mb__code *c, void **memory, size_t *bytes)
{
    *memory = NULL;
    *bytes = 0;
    if (!c->chains)
        return true;
    unsigned char *at = mapped(c->x86->at, (size_t)c->x86->used);
    if (!at)
        return false;
    for (mb__chain *n = c->chains; n; n = n->next) {
        const unsigned char *run = at + n->at;
        memcpy(&n->run, &run, sizeof run);
        n->data = &constants;
    }
    *memory = at;
    *bytes = (size_t)c->x86->used;
    return true;
}

/* ---- what can be written ---- */

/* Of arithmetic that is a single instruction: which; else of prefix 0xff. A comparison's predicate. */
typedef struct form {
    mb__vex op;
    int byte;
    bool commutes;
} form;

static form binary_form(int op)
{
    switch (op) {
    case MB_OP_ADD:
        return (form){MB_VADDPS, -1, true};
    case MB_OP_SUB:
        return (form){MB_VSUBPS, -1, false};
    case MB_OP_MUL:
        return (form){MB_VMULPS, -1, true};
    case MB_OP_DIV:
        return (form){MB_VDIVPS, -1, false};
    case MB_OP_MAXIMUM:
        return (form){MB_VMAXPS, -1, false};
    case MB_OP_MINIMUM:
        return (form){MB_VMINPS, -1, false};
    case MB_OP_AND:
        return (form){MB_VANDPS, -1, true};
    case MB_OP_OR:
        return (form){MB_VORPS, -1, true};
    case MB_OP_LT:
        return (form){MB_VCMPPS, 0x11, false};
    case MB_OP_LE:
        return (form){MB_VCMPPS, 0x12, false};
    case MB_OP_EQ:
        return (form){MB_VCMPPS, 0, true};
    default:
        return (form){{0}, -1, false};
    }
}

/* Directions of VROUNDPS, without a report of inexact results. */
static int direction(int op)
{
    return op == MB_OP_FLOOR   ? 9
           : op == MB_OP_CEIL  ? 10
           : op == MB_OP_TRUNC ? 11
           : op == MB_OP_ROUND ? 12
                               : -1;
}

static bool has_unary(const mb__uop *u)
{
    if (u->op == MB_OP_CAST)
        return (u->dtype == MB_FLOAT32 && mb__lane(u->from) == 2) ||
               (u->dtype == MB_BOOL && mb__lane(u->from) == 0);
    if (u->op == MB_OP_NOT)
        return true;
    if (mb__lane(u->from) != 0)
        return false;
    return u->op == MB_OP_NEG || u->op == MB_OP_ABS || u->op == MB_OP_RECIP || u->op == MB_OP_SQRT ||
           u->op == MB_OP_RSQRT || direction(u->op) >= 0;
}

static bool has_binary(const mb__uop *u)
{
    bool logical = u->op == MB_OP_AND || u->op == MB_OP_OR;
    return binary_form(u->op).op.opcode && mb__lane(u->from) == (logical ? 2 : 0);
}

bool mb__code_has(const mb__uop *u)
{
    if (u->fixed || u->level == MB_LEVEL_ONCE || u->size_d != 4)
        return false;
    if (u->kind == MB_U_WHERE)
        return !u->by_row;
    if (u->size_a != 4)
        return false;
    return u->kind == MB_U_UNARY ? has_unary(u) : u->kind == MB_U_BINARY && has_binary(u);
}

/* ---- registers ---- */

/* General registers: arguments, as the calling convention gives them; RAX for an address that has no register
 * of its own; the rest for addresses. Of vector registers the last is for what a single step needs. */
enum {
    TABLE = MB_RDI,
    AT = MB_RSI,
    END = MB_RDX, /* in the remainder, where the mask lies */
    ROW = MB_RCX,
    DATA = MB_R8,
    OWN = 9,
    VECTORS = 15,
    SPARE = 15,
    VECTOR = 32,
    NEVER = INT_MAX,
};
static const int own[OWN] = {MB_R9, MB_R10, MB_R11, MB_RCX, MB_RBX, MB_R12, MB_R13, MB_R14, MB_R15};
enum { SAVED = 4 }; /* from here on, registers that belong to the caller */

/* A value of a chain. */
typedef struct value {
    int32_t reg;
    bool spread;   /* one number for all columns */
    bool inner;    /* computed here */
    bool out;      /* stored when it is computed */
    bool masked;   /* its memory ends with its last element */
    bool computed; /* in this pass over the operations */
    uint8_t level;
    int vector;  /* register, -1 */
    int slot;    /* on the stack, -1 */
    int address; /* general register, -1 */
    int next;    /* the next operation that reads it, NEVER */
    int uses;
    bool held; /* keeps its vector register through the loop */
} value;

typedef struct writer {
    mb__x86 *x;
    const mb__chain *chain;
    value *values;
    int count, slots;
    int32_t *index;     /* of each register of the kernel: its value, -1 */
    int (*next)[3];     /* of each operand: the next operation that reads the same value */
    int owner[VECTORS]; /* values, -1 */
    unsigned locked;    /* vector registers of the operation that is written */
    bool rest;          /* writing the remainder, whose vector is not whole */
} writer;

static mb__operand slot_of(const value *v)
{
    return mb__memory(MB_RSP, MB_NO_INDEX, v->slot * VECTOR);
}

/* Its place in the kernel's registers. */
static mb__operand memory_of(writer *w, const value *v)
{
    int base = v->address;
    if (base < 0) {
        base = MB_RAX;
        mb__x86_load(w->x, base, mb__memory(TABLE, MB_NO_INDEX, v->reg * 8));
    }
    return mb__memory(base, AT, 0);
}

static bool has_slot(const value *v)
{
    return v->slot >= 0 && (v->computed || v->spread);
}

/* The register whose value is wanted again last; what is nowhere else goes to the stack. */
static int evicted(writer *w)
{
    int best = -1;
    for (int r = 0; r < VECTORS; r++) {
        const value *v = &w->values[w->owner[r]];
        if (!(w->locked >> r & 1) && !v->held && (best < 0 || v->next > w->values[w->owner[best]].next))
            best = r;
    }
    value *v = &w->values[w->owner[best]];
    if (v->inner && !v->out && v->slot < 0)
        v->slot = w->slots++;
    if (v->inner && !v->out && v->next != NEVER)
        mb__x86_vector(w->x, MB_VMOVUPS_TO, best, -1, slot_of(v), -1);
    v->vector = -1;
    return best;
}

static int taken(writer *w, value *v)
{
    int r = 0;
    while (r < VECTORS && w->owner[r] >= 0)
        r++;
    if (r == VECTORS)
        r = evicted(w);
    w->owner[r] = (int)(v - w->values);
    w->locked |= 1u << r;
    return v->vector = r;
}

static void released(writer *w, value *v)
{
    if (v->vector < 0 || v->held || v->next != NEVER)
        return;
    w->owner[v->vector] = -1;
    v->vector = -1;
}

/* The value in a vector register. */
static int loaded(writer *w, value *v)
{
    if (v->vector >= 0) {
        w->locked |= 1u << v->vector;
        return v->vector;
    }
    int r = taken(w, v);
    if (has_slot(v)) {
        mb__x86_vector(w->x, MB_VMOVUPS, r, -1, slot_of(v), -1);
    } else if (w->rest && v->masked) {
        mb__x86_vector(w->x, MB_VMOVUPS, SPARE, -1, mb__memory(END, MB_NO_INDEX, 0), -1);
        mb__operand from = memory_of(w, v);
        mb__x86_vector(w->x, MB_VMASKMOV, r, SPARE, from, -1);
    } else {
        mb__operand from = memory_of(w, v);
        mb__x86_vector(w->x, MB_VMOVUPS, r, -1, from, -1);
    }
    return r;
}

/* Where an instruction's last operand comes from: its register, or memory, if it is not wanted again. */
static mb__operand last_operand(writer *w, value *v, int next)
{
    if (v->vector < 0 && has_slot(v) && (v->spread || next == NEVER))
        return slot_of(v);
    if (v->vector < 0 && !has_slot(v) && next == NEVER && !(w->rest && v->masked))
        return memory_of(w, v);
    return mb__reg(loaded(w, v));
}

static void store_out(writer *w, value *v)
{
    if (w->rest)
        mb__x86_vector(w->x, MB_VMOVUPS, SPARE, -1, mb__memory(END, MB_NO_INDEX, 0), -1);
    mb__operand to = memory_of(w, v);
    if (w->rest)
        mb__x86_vector(w->x, MB_VMASKMOV_TO, v->vector, SPARE, to, -1);
    else
        mb__x86_vector(w->x, MB_VMOVUPS_TO, v->vector, -1, to, -1);
}

/* ---- operations ---- */

static void write_unary(writer *w, const mb__uop *u, int d, mb__operand a)
{
    mb__x86 *x = w->x;
    switch (u->op) {
    case MB_OP_NEG:
    case MB_OP_ABS:
    case MB_OP_NOT: /* a is a register */
        mb__x86_vector(x, u->op == MB_OP_ABS ? MB_VANDPS : MB_VXORPS, d, a.reg,
                       u->op == MB_OP_NEG   ? CONSTANT(sign)
                       : u->op == MB_OP_ABS ? CONSTANT(magnitude)
                                            : CONSTANT(unit),
                       -1);
        return;
    case MB_OP_SQRT:
        mb__x86_vector(x, MB_VSQRTPS, d, -1, a, -1);
        return;
    case MB_OP_RSQRT:
        mb__x86_vector(x, MB_VSQRTPS, d, -1, a, -1);
        mb__x86_vector(x, MB_VMOVUPS, SPARE, -1, CONSTANT(one), -1);
        mb__x86_vector(x, MB_VDIVPS, d, SPARE, mb__reg(d), -1);
        return;
    case MB_OP_RECIP:
        mb__x86_vector(x, MB_VMOVUPS, SPARE, -1, CONSTANT(one), -1);
        mb__x86_vector(x, MB_VDIVPS, d, SPARE, a, -1);
        return;
    case MB_OP_CAST:
        if (u->dtype == MB_FLOAT32) {
            mb__x86_vector(x, MB_VCVTDQ2PS, d, -1, a, -1);
            return;
        }
        mb__x86_vector(x, MB_VCMPPS, d, a.reg, CONSTANT(none), 4);
        mb__x86_vector(x, MB_SHIFT, MB_SHIFT_RIGHT, d, mb__reg(d), 31);
        return;
    default:
        mb__x86_vector(x, MB_VROUNDPS, d, -1, a, direction(u->op));
    }
}

/* The instructions for maxima give their last operand where either is NaN, where we want the NaN. */
static void write_extreme(writer *w, mb__vex op, int d, int a, mb__operand b)
{
    mb__x86_vector(w->x, MB_VCMPPS, SPARE, a, mb__reg(a), 3);
    mb__x86_vector(w->x, op, d, a, b, -1);
    mb__x86_vector(w->x, MB_VBLENDVPS, d, d, mb__reg(a), SPARE << 4);
}

static void write_binary(writer *w, const mb__uop *u, int d, int a, mb__operand b)
{
    form f = binary_form(u->op);
    if (u->op == MB_OP_MAXIMUM || u->op == MB_OP_MINIMUM) {
        write_extreme(w, f.op, d, a, b);
        return;
    }
    mb__x86_vector(w->x, f.op, d, a, b, f.byte);
    if (f.byte >= 0) /* all bits of a lane, of which one is wanted */
        mb__x86_vector(w->x, MB_SHIFT, MB_SHIFT_RIGHT, d, mb__reg(d), 31);
}

static value *value_of(const writer *w, int32_t reg)
{
    return &w->values[w->index[reg]];
}

/* Marks what the operation reads as read, and the registers free that are not wanted again. */
static void advance(writer *w, const mb__uop *u, int at)
{
    int32_t in[3];
    int n = mb__uop_reads(u, in);
    for (int i = 0; i < n; i++)
        value_of(w, in[i])->next = w->next[at][i];
    for (int i = 0; i < n; i++)
        released(w, value_of(w, in[i]));
}

static void write_operation(writer *w, int at)
{
    const mb__uop *u = &w->chain->uops[at];
    value *d = value_of(w, u->d), *a = value_of(w, u->a);
    w->locked = 0;
    if (u->kind == MB_U_WHERE) {
        value *b = value_of(w, u->b), *c = value_of(w, u->c);
        int no = loaded(w, c), mask = loaded(w, a);
        mb__operand yes = last_operand(w, b, w->next[at][1]);
        advance(w, u, at);
        int to = taken(w, d);
        mb__x86_vector(w->x, MB_SHIFT, MB_SHIFT_LEFT, SPARE, mb__reg(mask), 31);
        mb__x86_vector(w->x, MB_VBLENDVPS, to, no, yes, SPARE << 4);
    } else if (u->kind == MB_U_UNARY) {
        bool needs_register = u->op == MB_OP_NEG || u->op == MB_OP_ABS || u->op == MB_OP_NOT ||
                              (u->op == MB_OP_CAST && u->dtype == MB_BOOL);
        mb__operand from = needs_register ? mb__reg(loaded(w, a)) : last_operand(w, a, w->next[at][0]);
        advance(w, u, at);
        write_unary(w, u, taken(w, d), from);
    } else {
        value *b = value_of(w, u->b);
        int last = 1;
        if (binary_form(u->op).commutes && a->vector < 0 && b->vector >= 0) {
            value *other = a;
            a = b;
            b = other;
            last = 0;
        }
        int first = loaded(w, a);
        mb__operand second = last_operand(w, b, w->next[at][last]);
        bool early = u->op == MB_OP_MAXIMUM || u->op == MB_OP_MINIMUM; /* reads a after writing d */
        int to = early ? taken(w, d) : -1;
        advance(w, u, at);
        if (!early)
            to = taken(w, d);
        write_binary(w, u, to, first, second);
    }
    d->computed = true;
    if (d->out)
        store_out(w, d);
    released(w, d);
}

/* One vector of each value: the inside of the loop. */
static void write_body(writer *w, bool rest)
{
    w->rest = rest;
    for (int r = 0; r < VECTORS; r++)
        if (w->owner[r] >= 0 && !w->values[w->owner[r]].held)
            w->owner[r] = -1;
    for (int i = 0; i < w->count; i++) {
        value *v = &w->values[i];
        v->computed = false;
        v->next = NEVER;
        if (!v->held)
            v->vector = -1;
    }
    for (int at = w->chain->count; at-- > 0;) { /* the first operation that reads each */
        int32_t in[3];
        for (int n = mb__uop_reads(&w->chain->uops[at], in); n-- > 0;)
            value_of(w, in[n])->next = at;
    }
    for (int at = 0; at < w->chain->count; at++)
        write_operation(w, at);
}

/* ---- a chain ---- */

static value *add_value(writer *w, int32_t reg, uint8_t level)
{
    if (w->index[reg] < 0) {
        w->index[reg] = w->count;
        w->values[w->count++] = (value){.reg = reg,
                                        .level = level,
                                        .spread = level < w->chain->level,
                                        .vector = -1,
                                        .slot = -1,
                                        .address = -1,
                                        .next = NEVER};
    }
    return value_of(w, reg);
}

/* The values of the chain, and when each operand is wanted again. */
static void find_values(writer *w, const bool *masked)
{
    const mb__chain *c = w->chain;
    for (int at = 0; at < c->count; at++) {
        const mb__uop *u = &c->uops[at];
        const uint8_t levels[3] = {u->ra, u->rb, u->rc};
        int32_t in[3];
        int n = mb__uop_reads(u, in);
        for (int i = 0; i < n; i++) {
            value *v = add_value(w, in[i], levels[i]);
            v->masked = masked[in[i]];
            v->uses++;
        }
        value *d = add_value(w, u->d, c->level);
        d->inner = true;
        d->masked = masked[u->d];
    }
    for (int i = 0; i < c->outs; i++)
        value_of(w, c->out[i])->out = true;
    for (int at = c->count; at-- > 0;) {
        int32_t in[3];
        int n = mb__uop_reads(&c->uops[at], in);
        for (int i = 0; i < n; i++)
            w->next[at][i] = value_of(w, in[i])->next;
        for (int i = 0; i < n; i++)
            value_of(w, in[i])->next = at;
    }
}

/* The most values computed here that are wanted again at one time. */
static int pressure(writer *w)
{
    int most = 0, live = 0;
    for (int at = 0; at < w->chain->count; at++) {
        const mb__uop *u = &w->chain->uops[at];
        int32_t in[3];
        int n = mb__uop_reads(u, in);
        live++;
        most = live > most ? live : most;
        for (int i = 0; i < n; i++)
            if (value_of(w, in[i])->inner && w->next[at][i] == NEVER && !(i && in[i] == in[i - 1]))
                live--;
        if (value_of(w, u->d)->next == NEVER)
            live--;
    }
    return most;
}

/* Numbers for all columns: the most read ones in registers, if some are left, the others on the stack. */
static void write_spread(writer *w)
{
    enum { OPERANDS = 3 };
    int capacity = VECTORS - OPERANDS - pressure(w);
    for (;;) {
        value *best = NULL;
        for (int i = 0; i < w->count; i++) {
            value *v = &w->values[i];
            if (v->spread && !v->held && v->slot < 0 && (!best || v->uses > best->uses))
                best = v;
        }
        if (!best)
            return;
        bool hold = capacity-- > 0;
        int r = SPARE;
        if (hold) {
            w->locked = 0;
            r = taken(w, best);
            best->held = true;
        } else {
            best->slot = w->slots++;
        }
        mb__x86_load(w->x, MB_RAX, mb__memory(TABLE, MB_NO_INDEX, best->reg * 8));
        mb__x86_vector(w->x, MB_VBROADCASTSS, r, -1,
                       mb__memory(MB_RAX, best->level == MB_LEVEL_ROW ? ROW : MB_NO_INDEX, 0), -1);
        if (!hold)
            mb__x86_vector(w->x, MB_VMOVUPS_TO, r, -1, slot_of(best), -1);
    }
}

/* Addresses of arrays in registers, as many as there are. */
static void write_addresses(writer *w)
{
    int n = 0;
    for (int i = 0; i < w->count && n < OWN; i++) {
        value *v = &w->values[i];
        if (v->spread || (v->inner && !v->out))
            continue;
        v->address = own[n++];
        mb__x86_load(w->x, v->address, mb__memory(TABLE, MB_NO_INDEX, v->reg * 8));
    }
}

/* Returns where the size of the stack is to be written. */
static int write_entry(writer *w)
{
    mb__x86_push(w->x, MB_RBP);
    mb__x86_move(w->x, MB_RBP, MB_RSP);
    for (int i = SAVED; i < OWN; i++)
        mb__x86_push(w->x, own[i]);
    mb__x86_add(w->x, MB_RSP, 0);
    int size = w->x->used - 4;
    mb__x86_and(w->x, MB_RSP, -VECTOR);
    return size;
}

static void write_exit(writer *w, int size)
{
    mb__x86_move(w->x, MB_RSP, MB_RBP);
    mb__x86_add(w->x, MB_RSP, -8 * (OWN - SAVED));
    for (int i = OWN; i-- > SAVED;)
        mb__x86_pop(w->x, own[i]);
    mb__x86_pop(w->x, MB_RBP);
    mb__x86_return(w->x);
    uint32_t bytes = (uint32_t)(-VECTOR * w->slots);
    for (int i = 0; i < 4 && !w->x->failed; i++)
        w->x->at[size + i] = (unsigned char)(bytes >> 8 * i & 255);
}

static void write_chain(writer *w)
{
    mb__x86 *x = w->x;
    int size = write_entry(w);
    write_spread(w);
    write_addresses(w);
    mb__x86_add(x, END, -VECTOR);
    mb__x86_compare(x, AT, END);
    int none = mb__x86_jump(x, MB_IF_MORE, -1), loop = x->used;
    write_body(w, false);
    mb__x86_add(x, AT, VECTOR);
    mb__x86_compare(x, AT, END);
    mb__x86_jump(x, MB_IF_NOT_MORE, loop);
    mb__x86_land(x, none);
    mb__x86_add(x, END, VECTOR);
    mb__x86_compare(x, AT, END);
    int done = mb__x86_jump(x, MB_IF_NOT_LESS, -1);
    /* The mask begins with as many lanes as are left: that far before the end of all ones. */
    mb__x86_subtract(x, END, AT);
    mb__x86_move(x, MB_RAX, DATA);
    mb__x86_subtract(x, MB_RAX, END);
    mb__x86_move(x, END, MB_RAX);
    mb__x86_add(x, END, (int32_t)offsetof(struct constants, none));
    write_body(w, true);
    mb__x86_land(x, done);
    write_exit(w, size);
}

/* The same code is there once: layers have the same chains. */
static void share(mb__code *c, mb__chain *chain)
{
    for (const mb__chain *other = c->chains; other && !c->x86->failed; other = other->next)
        if (other->size == chain->size &&
            !memcmp(c->x86->at + other->at, c->x86->at + chain->at, (size_t)chain->size)) {
            c->x86->used = chain->at;
            chain->at = other->at;
            return;
        }
}

bool mb__code_add(mb__code *c, mb__bump *work, mb__chain *chain, int reg_count, const bool *masked)
{
    writer w = {.x = c->x86, .chain = chain};
    w.values = mb__bump_get(work, 4 * (size_t)chain->count * sizeof *w.values);
    w.index = mb__bump_get(work, (size_t)(reg_count + 1) * sizeof *w.index);
    w.next = mb__bump_get(work, (size_t)chain->count * sizeof *w.next);
    if (!w.values || !w.index || !w.next)
        return false;
    for (int i = 0; i < reg_count; i++)
        w.index[i] = -1;
    for (int r = 0; r < VECTORS; r++)
        w.owner[r] = -1;
    chain->at = c->x86->used;
    find_values(&w, masked);
    write_chain(&w);
    chain->size = c->x86->used - chain->at;
    share(c, chain);
    chain->next = c->chains;
    c->chains = chain;
    return !c->x86->failed;
}
