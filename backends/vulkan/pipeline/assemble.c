/* SPDX-License-Identifier: MIT
 *
 * assemble.c - a kernel as SPIR-V words. The functions it calls come from a module compiled at build time
 * (shaders/kernel.comp): that module's types, variables and needed functions are copied, its main is
 * replaced.
 *
 * For tests, the same calls can write GLSL instead: the text of main, which an independent compiler compiles
 * together with the same functions.
 */
#include <stdarg.h>
#include <stdio.h>

#include "backends/vulkan/pipeline/pipeline.h"

/* The opcodes that are read or written. */
enum {
    OpSource = 3,
    OpSourceExtension = 4,
    OpName = 5,
    OpMemberName = 6,
    OpString = 7,
    OpLine = 8,
    OpExtension = 10,
    OpEntryPoint = 15,
    OpExecutionMode = 16,
    OpCapability = 17,
    OpTypeVoid = 19,
    OpTypeBool = 20,
    OpTypeInt = 21,
    OpTypeFloat = 22,
    OpTypeVector = 23,
    OpTypePointer = 32,
    OpTypeFunction = 33,
    OpConstantTrue = 41,
    OpConstantFalse = 42,
    OpConstant = 43,
    OpFunction = 54,
    OpFunctionEnd = 56,
    OpFunctionCall = 57,
    OpVariable = 59,
    OpLoad = 61,
    OpStore = 62,
    OpDecorate = 71,
    OpConvertFToU = 109,
    OpIAdd = 128,
    OpIMul = 132,
    OpUDiv = 134,
    OpUMod = 137,
    OpLogicalAnd = 167,
    OpIEqual = 170,
    OpULessThan = 176,
    OpFOrdGreaterThanEqual = 190,
    OpLoopMerge = 246,
    OpSelectionMerge = 247,
    OpLabel = 248,
    OpBranch = 249,
    OpBranchConditional = 250,
    OpReturn = 253,
    OpModuleProcessed = 330,
};
enum { STORAGE_FUNCTION = 7 };

typedef struct function {
    char name[28];
    uint32_t id, first, end; /* words of the module */
} function;

struct mb__vk_library {
    const uint32_t *words;
    uint32_t count, bound, functions_at; /* the first function's word */
    uint32_t types[VK_TYPES], void_type, main_type, main_id, pointers[VK_TYPES];
    function *functions;
    uint32_t function_count, function_capacity;
};

static uint32_t length_at(const uint32_t *w)
{
    return w[0] >> 16;
}
static uint32_t op_at(const uint32_t *w)
{
    return w[0] & 0xffff;
}

/* ---- reading the module ---- */

static void learn_type(mb__vk_library *l, const uint32_t *w)
{
    switch (op_at(w)) {
    case OpTypeVoid:
        l->void_type = w[1];
        break;
    case OpTypeBool:
        l->types[VK_BOOL_] = w[1];
        break;
    case OpTypeInt:
        if (w[2] == 32)
            l->types[w[3] ? VK_I32 : VK_U32] = w[1];
        break;
    case OpTypeFloat:
        l->types[w[2] == 64 ? VK_F64 : VK_F32] = w[1];
        break;
    case OpTypeVector: /* an int64 is two words */
        if (w[2] == l->types[VK_U32] && w[3] == 2)
            l->types[VK_I64] = w[1];
        break;
    case OpTypePointer:
        for (int t = 0; t < VK_TYPES; t++)
            if (w[2] == STORAGE_FUNCTION && w[3] == l->types[t])
                l->pointers[t] = w[1];
        break;
    case OpTypeFunction:
        if (length_at(w) == 3 && w[2] == l->void_type)
            l->main_type = w[1];
        break;
    default:
        break;
    }
}

static bool read_library(mb__vk *v, mb__vk_library *l)
{
    l->bound = l->words[3];
    const uint32_t *names = NULL;
    uint32_t names_end = 0;
    for (uint32_t i = 5; i < l->count; i += length_at(l->words + i)) {
        const uint32_t *w = l->words + i;
        if (op_at(w) == OpName && !names)
            names = w;
        if (op_at(w) == OpName)
            names_end = i + length_at(w);
        if (op_at(w) == OpEntryPoint)
            l->main_id = w[2];
        learn_type(l, w);
        if (op_at(w) != OpFunction)
            continue;
        if (!l->functions_at)
            l->functions_at = i;
        if (!mb__host_reserve(v->host, (void **)&l->functions, &l->function_capacity,
                              (uint64_t)l->function_count + 1, sizeof *l->functions))
            return false;
        function *f = &l->functions[l->function_count++];
        *f = (function){.id = w[2], .first = i};
        uint32_t j = i;
        while (op_at(l->words + j) != OpFunctionEnd)
            j += length_at(l->words + j);
        f->end = j + 1;
    }
    /* "f32_add(f1;f1;" */
    for (const uint32_t *w = names; w && w < l->words + names_end; w += length_at(w)) {
        if (op_at(w) != OpName)
            continue;
        const char *name = (const char *)(w + 2);
        for (uint32_t i = 0; i < l->function_count; i++)
            if (l->functions[i].id == w[1])
                snprintf(l->functions[i].name, sizeof l->functions[i].name, "%.*s", (int)strcspn(name, "("),
                         name);
    }
    return true;
}

static void free_library(mb__vk *v, int which)
{
    mb__vk_library *l = v->library[which];
    if (!l)
        return;
    mb__host_free(v->host, l->functions, l->function_capacity * sizeof *l->functions);
    mb__host_free(v->host, l, sizeof *l);
    v->library[which] = NULL;
}

static mb__vk_library *library(mb__vk *v, mb__vk_uses uses)
{
    static const char *const names[] = {"kernel", "kernel_f64", "kernel_half", "kernel_f64_half"};
    int which = uses.float64 + 2 * uses.halves;
    if (v->library[which])
        return v->library[which];
    mb__vk_library *l = mb__host_alloc(v->host, sizeof *l);
    if (!l)
        return NULL;
    const mb__vk_shader *s = mb__vk_shader_named(names[which]);
    l->words = s->words;
    l->count = (uint32_t)(s->bytes / 4);
    v->library[which] = l;
    if (read_library(v, l))
        return l;
    free_library(v, which);
    return NULL;
}

void mb__vk_library_free(mb__vk *v)
{
    for (int which = 0; which < 4; which++)
        free_library(v, which);
}

/* ---- the assembler ---- */

typedef struct stream {
    uint32_t *words;
    uint32_t count, capacity;
} stream;

typedef struct constant {
    mb__vk_type type;
    uint64_t bits;
    uint32_t id;
} constant;

enum { DEPTH_MOST = 8 };
typedef struct nest { /* an open loop or if */
    uint32_t header, merge, next, counter, step;
} nest;

struct mb__vk_asm {
    mb__vk *v;
    mb__vk_library *l;
    bool glsl, failed;
    uint32_t next_id;
    stream types, vars, body, out;
    constant *constants;
    uint32_t constant_count, constant_capacity;
    uint32_t types_of[VK_TYPES], pointer_of[VK_TYPES];
    bool *needed;                 /* of each function */
    nest open[DEPTH_MOST], spare; /* spare: used beyond the deepest, and ignored */
    int depth;
    char *head, *text; /* GLSL: constants; statements */
    uint32_t head_count, head_capacity, text_count, text_capacity;
};

static const char *const glsl_types[VK_TYPES + 1] = {"uint", "int",   "float", "double",
                                                     "bool", "uvec2", "void"};

static void put(mb__vk_asm *a, stream *s, uint32_t word)
{
    if (a->failed ||
        !mb__host_reserve(a->v->host, (void **)&s->words, &s->capacity, (uint64_t)s->count + 1, 4)) {
        a->failed = true;
        return;
    }
    s->words[s->count++] = word;
}

static void op(mb__vk_asm *a, stream *s, uint32_t code, int n, ...)
{
    va_list list;
    va_start(list, n);
    put(a, s, (uint32_t)(n + 1) << 16 | code);
    for (int i = 0; i < n; i++)
        put(a, s, va_arg(list, uint32_t));
    va_end(list);
}

static MB_PRINTF(5, 6) void print(mb__vk_asm *a, char **to, uint32_t *count, uint32_t *capacity,
                                  const char *format, ...)
{
    char line[512];
    va_list list;
    va_start(list, format);
    int n = vsnprintf(line, sizeof line, format, list);
    va_end(list);
    if (a->failed || n < 0 || n >= (int)sizeof line ||
        !mb__host_reserve(a->v->host, (void **)to, capacity, (uint64_t)*count + (uint64_t)n + 1, 1)) {
        a->failed = true;
        return;
    }
    memcpy(*to + *count, line, (size_t)n + 1);
    *count += (uint32_t)n;
}
#define HEAD(a, ...) print(a, &(a)->head, &(a)->head_count, &(a)->head_capacity, __VA_ARGS__)
#define TEXT(a, ...) print(a, &(a)->text, &(a)->text_count, &(a)->text_capacity, __VA_ARGS__)

mb__vk_asm *mb__vk_asm_new(mb__vk *v, mb__vk_uses uses, bool glsl)
{
    mb__vk_library *l = library(v, uses);
    mb__vk_asm *a = l ? mb__host_alloc(v->host, sizeof *a) : NULL;
    if (!a)
        return NULL;
    a->v = v;
    a->l = l;
    a->glsl = glsl;
    a->next_id = l->bound;
    memcpy(a->types_of, l->types, sizeof a->types_of);
    memcpy(a->pointer_of, l->pointers, sizeof a->pointer_of);
    a->needed = mb__host_alloc(v->host, l->function_count + 1);
    if (!a->needed) {
        mb__vk_asm_free(a);
        return NULL;
    }
    if (glsl)
        HEAD(a, "void main()\n{\n");
    return a;
}

void mb__vk_asm_free(mb__vk_asm *a)
{
    if (!a)
        return;
    const mb__host *host = a->v->host;
    mb__host_free(host, a->types.words, a->types.capacity * 4ul);
    mb__host_free(host, a->vars.words, a->vars.capacity * 4ul);
    mb__host_free(host, a->body.words, a->body.capacity * 4ul);
    mb__host_free(host, a->out.words, a->out.capacity * 4ul);
    mb__host_free(host, a->constants, a->constant_capacity * sizeof *a->constants);
    if (a->needed)
        mb__host_free(host, a->needed, a->l->function_count + 1);
    mb__host_free(host, a->head, a->head_capacity);
    mb__host_free(host, a->text, a->text_capacity);
    mb__host_free(host, a, sizeof *a);
}

static uint32_t type_of(mb__vk_asm *a, mb__vk_type t)
{
    if (t == VK_TYPES)
        return a->l->void_type;
    return a->types_of[t];
}

/* ---- constants ---- */

static uint32_t constant_of(mb__vk_asm *a, mb__vk_type type, uint64_t bits)
{
    for (uint32_t i = a->constant_count; i-- > 0;)
        if (a->constants[i].type == type && a->constants[i].bits == bits)
            return a->constants[i].id;
    if (!mb__host_reserve(a->v->host, (void **)&a->constants, &a->constant_capacity,
                          (uint64_t)a->constant_count + 1, sizeof *a->constants)) {
        a->failed = true;
        return 0;
    }
    uint32_t id = a->next_id++, low = (uint32_t)bits, high = (uint32_t)(bits >> 32);
    a->constants[a->constant_count++] = (constant){type, bits, id};
    if (!a->glsl) {
        if (type == VK_BOOL_)
            op(a, &a->types, bits ? OpConstantTrue : OpConstantFalse, 2, type_of(a, type), id);
        else if (type == VK_F64)
            op(a, &a->types, OpConstant, 4, type_of(a, type), id, low, high);
        else
            op(a, &a->types, OpConstant, 3, type_of(a, type), id, low);
        return id;
    }
    switch (type) {
    case VK_U32:
        HEAD(a, "uint v%u = %uu;\n", id, low);
        break;
    case VK_I32:
        HEAD(a, "int v%u = int(%uu);\n", id, low);
        break;
    case VK_F32:
        HEAD(a, "float v%u = uintBitsToFloat(%uu);\n", id, low);
        break;
    case VK_F64:
        HEAD(a, "double v%u = packDouble2x32(uvec2(%uu, %uu));\n", id, low, high);
        break;
    default:
        HEAD(a, "bool v%u = %s;\n", id, bits ? "true" : "false");
    }
    return id;
}

uint32_t mb__vk_u32(mb__vk_asm *a, uint32_t x)
{
    return constant_of(a, VK_U32, x);
}

uint32_t mb__vk_number(mb__vk_asm *a, mb__vk_type type, double x)
{
    uint64_t bits = 0;
    float f = (float)x;
    uint32_t low;
    switch (type) {
    case VK_F32:
        memcpy(&low, &f, 4);
        bits = low;
        break;
    case VK_F64:
        memcpy(&bits, &x, 8);
        break;
    case VK_BOOL_:
        bits = x != 0;
        break;
    default:
        bits = (uint32_t)(x >= 2147483647.0 ? INT32_MAX : x > -2147483648.0 ? (int32_t)x : INT32_MIN);
    }
    return constant_of(a, type, bits);
}

/* ---- values ---- */

uint32_t mb__vk_math(mb__vk_asm *a, enum mb__vk_math m, uint32_t x, uint32_t y)
{
    static const uint32_t codes[] = {
        [VK_ADD] = OpIAdd,       [VK_MUL] = OpIMul,       [VK_DIV] = OpUDiv,    [VK_MOD] = OpUMod,
        [VK_LESS] = OpULessThan, [VK_AND] = OpLogicalAnd, [VK_EQUAL] = OpIEqual};
    static const char *const signs[] = {"+", "*", "/", "%", "<", "&&", "=="};
    bool truth = m == VK_LESS || m == VK_AND || m == VK_EQUAL;
    uint32_t id = a->next_id++;
    if (a->glsl)
        TEXT(a, "%s v%u = v%u %s v%u;\n", truth ? "bool" : "uint", id, x, signs[m], y);
    else
        op(a, &a->body, codes[m], 4, type_of(a, truth ? VK_BOOL_ : VK_U32), id, x, y);
    return id;
}

uint32_t mb__vk_call(mb__vk_asm *a, const char *name, mb__vk_type type, int n, const uint32_t *args)
{
    uint32_t f = 0;
    while (f < a->l->function_count && strcmp(a->l->functions[f].name, name) != 0)
        f++;
    bool own = f == a->l->function_count;
    if (own && !(a->glsl && strstr(name, "_u"))) { /* of the user's, in the text around */
        mb__vk_fail(a->v, MB_BACKEND, NULL, "vulkan: no kernel function \"%s\"", name);
        a->failed = true;
        return 0;
    }
    if (!own)
        a->needed[f] = true;
    uint32_t id = a->next_id++;
    if (a->glsl) {
        if (type != VK_TYPES)
            TEXT(a, "%s v%u = ", glsl_types[type], id);
        TEXT(a, "%s(", name);
        for (int i = 0; i < n; i++)
            TEXT(a, "%sv%u", i ? ", " : "", args[i]);
        TEXT(a, ");\n");
        return id;
    }
    put(a, &a->body, (uint32_t)(n + 4) << 16 | OpFunctionCall);
    put(a, &a->body, type_of(a, type));
    put(a, &a->body, id);
    put(a, &a->body, a->l->functions[f].id);
    for (int i = 0; i < n; i++)
        put(a, &a->body, args[i]);
    return id;
}

uint32_t mb__vk_var(mb__vk_asm *a, mb__vk_type type)
{
    uint32_t id = a->next_id++;
    if (a->glsl) {
        TEXT(a, "%s v%u;\n", glsl_types[type], id);
        return id;
    }
    if (!a->pointer_of[type]) {
        a->pointer_of[type] = a->next_id++;
        op(a, &a->types, OpTypePointer, 3, a->pointer_of[type], (uint32_t)STORAGE_FUNCTION, type_of(a, type));
    }
    op(a, &a->vars, OpVariable, 3, a->pointer_of[type], id, (uint32_t)STORAGE_FUNCTION);
    return id;
}

uint32_t mb__vk_get(mb__vk_asm *a, mb__vk_type type, uint32_t var)
{
    uint32_t id = a->next_id++;
    if (a->glsl)
        TEXT(a, "%s v%u = v%u;\n", glsl_types[type], id, var);
    else
        op(a, &a->body, OpLoad, 3, type_of(a, type), id, var);
    return id;
}

void mb__vk_set(mb__vk_asm *a, uint32_t var, uint32_t x)
{
    if (a->glsl)
        TEXT(a, "v%u = v%u;\n", var, x);
    else
        op(a, &a->body, OpStore, 2, var, x);
}

/* ---- control flow ---- */

static nest *enter(mb__vk_asm *a)
{
    a->failed |= a->depth >= DEPTH_MOST;
    return a->depth++ < DEPTH_MOST ? &a->open[a->depth - 1] : &a->spare;
}

static nest *leave(mb__vk_asm *a)
{
    return --a->depth < DEPTH_MOST ? &a->open[a->depth] : &a->spare;
}

uint32_t mb__vk_loop(mb__vk_asm *a, uint32_t first, uint32_t end, uint32_t step)
{
    nest *n = enter(a);
    n->counter = mb__vk_var(a, VK_U32);
    n->step = step;
    if (a->glsl) {
        TEXT(a, "for (v%u = v%u; v%u < v%u; v%u += v%u) {\n", n->counter, first, n->counter, end, n->counter,
             step);
        return mb__vk_get(a, VK_U32, n->counter);
    }
    mb__vk_set(a, n->counter, first);
    n->header = a->next_id++;
    n->merge = a->next_id++;
    n->next = a->next_id++;
    uint32_t test = a->next_id++, inside = a->next_id++;
    op(a, &a->body, OpBranch, 1, n->header);
    op(a, &a->body, OpLabel, 1, n->header);
    op(a, &a->body, OpLoopMerge, 3, n->merge, n->next, 0u);
    op(a, &a->body, OpBranch, 1, test);
    op(a, &a->body, OpLabel, 1, test);
    uint32_t i = mb__vk_get(a, VK_U32, n->counter), more = mb__vk_math(a, VK_LESS, i, end);
    op(a, &a->body, OpBranchConditional, 3, more, inside, n->merge);
    op(a, &a->body, OpLabel, 1, inside);
    return i;
}

void mb__vk_end_loop(mb__vk_asm *a)
{
    nest *n = leave(a);
    if (a->glsl) {
        TEXT(a, "}\n");
        return;
    }
    op(a, &a->body, OpBranch, 1, n->next);
    op(a, &a->body, OpLabel, 1, n->next);
    uint32_t i = mb__vk_get(a, VK_U32, n->counter);
    mb__vk_set(a, n->counter, mb__vk_math(a, VK_ADD, i, n->step));
    op(a, &a->body, OpBranch, 1, n->header);
    op(a, &a->body, OpLabel, 1, n->merge);
}

void mb__vk_if(mb__vk_asm *a, uint32_t condition)
{
    nest *n = enter(a);
    if (a->glsl) {
        TEXT(a, "if (v%u) {\n", condition);
        return;
    }
    n->merge = a->next_id++;
    uint32_t inside = a->next_id++;
    op(a, &a->body, OpSelectionMerge, 2, n->merge, 0u);
    op(a, &a->body, OpBranchConditional, 3, condition, inside, n->merge);
    op(a, &a->body, OpLabel, 1, inside);
}

void mb__vk_end_if(mb__vk_asm *a)
{
    nest *n = leave(a);
    if (a->glsl) {
        TEXT(a, "}\n");
        return;
    }
    op(a, &a->body, OpBranch, 1, n->merge);
    op(a, &a->body, OpLabel, 1, n->merge);
}

/* ---- the module ---- */

/* Functions called by needed ones are needed. Callees may come before or after their callers; a few passes
 * suffice. */
static void close_over_calls(mb__vk_asm *a)
{
    const mb__vk_library *l = a->l;
    for (bool more = true; more;) {
        more = false;
        for (uint32_t f = 0; f < l->function_count; f++) {
            if (!a->needed[f])
                continue;
            for (uint32_t i = l->functions[f].first; i < l->functions[f].end; i += length_at(l->words + i)) {
                if (op_at(l->words + i) != OpFunctionCall)
                    continue;
                for (uint32_t g = 0; g < l->function_count; g++)
                    if (l->functions[g].id == l->words[i + 3] && !a->needed[g])
                        a->needed[g] = more = true;
            }
        }
    }
}

/* Marks the results of arithmetic in functions that are left out, whose decorations must be dropped. */
static void mark_dropped(const mb__vk_asm *a, bool *dropped)
{
    const mb__vk_library *l = a->l;
    for (uint32_t f = 0; f < l->function_count; f++)
        for (uint32_t i = l->functions[f].first; !a->needed[f] && i < l->functions[f].end;
             i += length_at(l->words + i)) {
            uint32_t code = op_at(l->words + i);
            if (code >= OpConvertFToU && code <= OpFOrdGreaterThanEqual)
                dropped[l->words[i + 2]] = true;
        }
}

const uint32_t *mb__vk_asm_words(mb__vk_asm *a, uint32_t *count)
{
    const mb__vk_library *l = a->l;
    mb__vk *v = a->v;
    if (a->glsl || a->failed)
        return NULL;
    close_over_calls(a);
    bool *dropped = mb__host_alloc(v->host, l->bound);
    if (!dropped)
        return NULL;
    mark_dropped(a, dropped);
    stream *o = &a->out;
    for (uint32_t i = 0; i < 5; i++)
        put(a, o, l->words[i]);
    for (uint32_t i = 5; i < l->functions_at; i += length_at(l->words + i)) {
        const uint32_t *w = l->words + i;
        uint32_t code = op_at(w);
        bool debug = code == OpSource || code == OpSourceExtension || code == OpName ||
                     code == OpMemberName || code == OpString || code == OpLine || code == OpModuleProcessed;
        if (debug || (code == OpDecorate && dropped[w[1]]))
            continue;
        for (uint32_t j = 0; j < length_at(w); j++)
            put(a, o, w[j]);
    }
    mb__host_free(v->host, dropped, l->bound);
    for (uint32_t i = 0; i < a->types.count; i++)
        put(a, o, a->types.words[i]);
    for (uint32_t f = 0; f < l->function_count; f++)
        if (a->needed[f] && l->functions[f].id != l->main_id)
            for (uint32_t i = l->functions[f].first; i < l->functions[f].end; i++)
                put(a, o, l->words[i]);
    op(a, o, OpFunction, 4, l->void_type, l->main_id, 0u, l->main_type);
    op(a, o, OpLabel, 1, a->next_id++);
    for (uint32_t i = 0; i < a->vars.count; i++)
        put(a, o, a->vars.words[i]);
    for (uint32_t i = 0; i < a->body.count; i++)
        put(a, o, a->body.words[i]);
    op(a, o, OpReturn, 0);
    op(a, o, OpFunctionEnd, 0);
    if (a->failed)
        return NULL;
    o->words[3] = a->next_id;
    *count = o->count;
    return o->words;
}

const char *mb__vk_asm_text(mb__vk_asm *a)
{
    if (!a->glsl || a->failed)
        return NULL;
    TEXT(a, "}\n");
    if (a->failed || !mb__host_reserve(a->v->host, (void **)&a->head, &a->head_capacity,
                                       (uint64_t)a->head_count + a->text_count + 1, 1))
        return NULL;
    memcpy(a->head + a->head_count, a->text, a->text_count + 1);
    return a->head;
}
