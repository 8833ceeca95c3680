/* SPDX-License-Identifier: MIT
 *
 * emit.c - a pass of a kernel as instructions. Where values lie is read from the region. So are sizes and
 * strides on processors, where compiling takes long: kernels then are shared by tensors of other sizes. On
 * GPUs they are literals, by which a division is cheap.
 *
 * Without columns, each invocation computes one element. With columns, `lanes` invocations share a row. Row
 * reductions are done by depth: a loop over the columns computes what the reductions of a depth sum up, the
 * lanes combine, then what depends on the results comes next. What changes with the column is computed again
 * in each loop, unless a lane has one column at most: then it stays in registers and there are no loops.
 * Stores of elements come in the last loop, since a result may take the place of an operand that earlier
 * loops read.
 */
#include <math.h>
#include <stdio.h>

#include "backends/vulkan/program/program.h"

/* ---- the region ---- */

int mb__vk_slot_of(const mb__vk_pass *p, const mb__view *view)
{
    int i = 0;
    while (i < p->slot_count && (p->slots[i].value != view->value || p->slots[i].offset != view->offset))
        i++;
    return i;
}

int mb__vk_param_of(const mb__vk_pass *p, int64_t x)
{
    int i = 0;
    while (i < p->param_count && p->params[i] != x)
        i++;
    return i;
}

int mb__vk_size_of(const mb__vk_pass *p, int64_t x)
{
    if (x >= -1 && x <= 1)
        return -2 - (int)x;
    int i = 0;
    while (i < p->size_count && p->sizes[i] != x)
        i++;
    return i;
}

/* ---- the emitter ---- */

typedef struct emitter {
    mb__vk_asm *a;
    const mb__vk_pass *p;
    const mb__kernel *k;
    int outer;                                            /* row axes */
    uint32_t *block, *base, *base64;                      /* of each slot; 0: not read yet */
    uint32_t row_at[MB_MAX_RANK], column_at[MB_MAX_RANK]; /* coordinates */
    uint32_t *id;                                         /* of each instruction; 0 */
    uint8_t *level, *depth;
    bool *wanted;
    uint32_t ok, t; /* the row is there; the lane's place in it */
    uint32_t size[VK_SIZES_MOST];
} emitter;

static mb__vk_type type_for(int dtype)
{
    static const mb__vk_type types[MB_DTYPES] = {VK_F32, VK_F64, VK_I32, VK_BOOL_,
                                                 VK_F32, VK_F32, VK_I64, VK_I32};
    return types[dtype];
}
/* Halves are float32, rounded by cast and store; an int64 is a pair of words; a uint8 is an int32. */
static const char *const type_names[MB_DTYPES] = {"f32", "f64", "i32", "bool", "f32", "f32", "i64", "i32"};
/* In memory halves are themselves. */
static const char *memory_name(int dtype)
{
    return dtype == MB_FLOAT16 ? "f16" : dtype == MB_BFLOAT16 ? "bf16" : type_names[dtype];
}

static uint32_t call1(emitter *e, const char *format, const char *name, mb__vk_type type, int n,
                      const uint32_t *args)
{
    char text[48];
    snprintf(text, sizeof text, format, name);
    return mb__vk_call(e->a, text, type, n, args);
}

/* A size or stride: a literal, or of the region. */
static uint32_t size(const emitter *e, int64_t x)
{
    int i = e->p->sized ? mb__vk_size_of(e->p, x) : -1;
    return i < 0 ? mb__vk_u32(e->a, (uint32_t)x) : e->size[i];
}

/* ---- addresses ---- */

static uint32_t add_scaled(emitter *e, uint32_t sum, int64_t stride, uint32_t coordinate)
{
    if (stride == 0 || !coordinate)
        return sum;
    uint32_t x = stride == 1 ? coordinate : mb__vk_math(e->a, VK_MUL, coordinate, size(e, stride));
    return sum ? mb__vk_math(e->a, VK_ADD, sum, x) : x;
}

/* Position by a view; of axes [from, to). 0: no term. */
static uint32_t position(emitter *e, const mb__view *view, uint32_t sum, int from, int to)
{
    for (int i = from; i < to; i++)
        sum = add_scaled(e, sum, view->stride[i], i < e->outer ? e->row_at[i] : e->column_at[i]);
    return sum;
}

/* A parameter of the region. */
static uint32_t param(emitter *e, int64_t x)
{
    uint32_t at = mb__vk_u32(e->a, (uint32_t)(2 * e->p->slot_count + mb__vk_param_of(e->p, x)));
    return mb__vk_call(e->a, "param", VK_U32, 1, &at);
}

/* ---- instructions ---- */

/* A literal zero that the driver does not know: what it knows it folds, 0 / x and x + 0 into what they are
 * not for NaN, infinities and -0. */
static uint32_t zero(emitter *e, const mb__instr *n)
{
    mb__vk_type type = type_for(n->dtype);
    uint32_t number = param(e, 0), x = call1(e, "iota_%s", type_names[n->dtype], type, 1, &number);
    return signbit(n->number) ? call1(e, "%s_neg", type_names[n->dtype], type, 1, &x) : x;
}

static uint32_t rounded(emitter *e, int dtype, uint32_t x)
{
    if (!mb__is_half(dtype))
        return x;
    return mb__vk_call(e->a, dtype == MB_FLOAT16 ? "round_f16" : "round_bf16", VK_F32, 1, &x);
}

static uint32_t cast(emitter *e, int from, int to, uint32_t x)
{
    char text[48];
    bool same = !strcmp(type_names[from], type_names[to]);
    if (mb__is_half(to) && from != MB_FLOAT32 && !mb__is_half(from) && from != MB_BOOL)
        x = call1(e, "odd_%s", type_names[from], VK_F32, 1, &x); /* so that it is rounded once */
    else if (!same) {
        snprintf(text, sizeof text, "cast_%s_%s", type_names[from], type_names[to]);
        x = mb__vk_call(e->a, text, type_for(to), 1, &x);
    }
    if (to == MB_UINT8 && from != MB_UINT8 && from != MB_BOOL)
        return mb__vk_call(e->a, "byte_of", VK_I32, 1, &x);
    return from == to ? x : rounded(e, to, x);
}

static uint32_t pair(emitter *e, int64_t x)
{
    uint32_t words[2] = {mb__vk_u32(e->a, (uint32_t)x), mb__vk_u32(e->a, (uint32_t)((uint64_t)x >> 32))};
    return mb__vk_call(e->a, "pair_of", VK_I64, 2, words);
}

static uint32_t one(emitter *e, int i)
{
    const mb__instr *n = &e->k->instrs[i];
    mb__vk_type type = type_for(n->dtype);
    const char *name = type_names[n->dtype];
    uint32_t args[3];
    switch (n->op) {
    case MB_K_LOAD: {
        int s = mb__vk_slot_of(e->p, &n->view);
        args[0] = e->block[s];
        args[1] = position(e, &n->view, mb__vk_is_wide(n->dtype) ? e->base64[s] : e->base[s], 0, e->k->rank);
        return call1(e, "load_%s", memory_name(n->dtype), type, 2, args);
    }
    case MB_K_CONST:
        if (n->dtype == MB_INT64)
            return pair(e, mb__to_int64(n->number));
        return mb__vk_is_zero(n) ? zero(e, n) : mb__vk_number(e->a, type, n->number);
    case MB_K_SCALAR:
        args[0] = param(e, n->bind);
        return call1(e, "scalar_%s", name, type, 1, args);
    case MB_K_IOTA:
        args[0] = position(e, &n->view, param(e, n->view.offset), 0, e->k->rank);
        return call1(e, "iota_%s", name, type, 1, args);
    case MB_K_RANDOM:
        args[0] = param(e, n->bind);
        args[1] = position(e, &n->view, param(e, n->view.offset), 0, e->k->rank);
        return call1(e, "draw_%s", name, type, 2, args);
    case MB_OP_DRAW: {
        uint32_t draw[4] = {param(e, n->bind), e->id[n->in[0]], e->id[n->in[1]],
                            param(e, (int64_t)n->number)};
        return call1(e, "draw_of_%s", name, type, 4, draw);
    }
    case MB_K_COPY:
        return e->id[n->in[0]];
    case MB_OP_CAST:
        return cast(e, n->from, n->dtype, e->id[n->in[0]]);
    default:
        break;
    }
    int count = 0;
    while (count < 3 && n->in[count] >= 0) {
        args[count] = e->id[n->in[count]];
        count++;
    }
    if (n->op == MB_OP_SUB && args[0] == args[1] && mb__is_float(n->dtype)) { /* x - x is folded into 0 */
        args[1] = call1(e, "%s_neg", name, type, 1, &args[1]);
        return call1(e, "%s_add", name, type, 2, args);
    }
    char text[48];
    if (n->op == MB_OP_MAP)
        snprintf(text, sizeof text, "%s_u%u", name, n->custom->number);
    else if (n->op == MB_OP_WHERE)
        snprintf(text, sizeof text, "where_%s", name);
    else
        snprintf(text, sizeof text, "%s_%s", type_names[n->from], mb__ops[n->op].name);
    return mb__vk_call(e->a, text, type, count, args);
}

/* What the wanted instructions need; reductions are results already. */
static void want_operands(emitter *e)
{
    for (int i = e->k->instr_count; i-- > 0;)
        if (e->wanted[i] && !mb__vk_is_reduction(&e->k->instrs[i]))
            for (int j = 0; j < 3; j++)
                if (e->k->instrs[i].in[j] >= 0)
                    e->wanted[e->k->instrs[i].in[j]] = true;
}

/* Computes wanted instructions that change with the column. keep: their results stay valid. */
static void compute_columns(emitter *e, bool keep)
{
    want_operands(e);
    for (int i = 0; i < e->k->instr_count; i++)
        if (e->wanted[i] && e->level[i] == MB_LEVEL_EACH && !(keep && e->id[i]))
            e->id[i] = one(e, i);
}

static void store(emitter *e, const mb__store *s)
{
    const mb__instr *n = &e->k->instrs[s->instr];
    int slot = mb__vk_slot_of(e->p, &s->view);
    uint32_t base = mb__vk_is_wide(n->dtype) ? e->base64[slot] : e->base[slot];
    uint32_t args[3] = {e->block[slot], position(e, &s->view, base, 0, e->k->rank),
                        rounded(e, n->dtype, e->id[s->instr])};
    call1(e, "store_%s", memory_name(n->dtype), VK_TYPES, 3, args);
}

/* ---- coordinates ---- */

/* Splits an index into coordinates of axes [from, to), the last fastest. */
static void split_index(emitter *e, uint32_t index, int from, int to, uint32_t *out)
{
    for (int i = to; i-- > from;) {
        if (e->k->dim[i] == 1) {
            out[i] = 0;
            continue;
        }
        bool first = true;
        for (int j = from; j < i; j++)
            first &= e->k->dim[j] == 1;
        if (first) {
            out[i] = index;
            continue;
        }
        uint32_t entries = size(e, e->k->dim[i]);
        out[i] = mb__vk_math(e->a, VK_MOD, index, entries);
        index = mb__vk_math(e->a, VK_DIV, index, entries);
    }
}

static void read_slots(emitter *e)
{
    for (int s = 0; s < e->p->slot_count; s++) {
        uint32_t slot = mb__vk_u32(e->a, (uint32_t)s);
        bool wide = false, narrow = false;
        for (int i = 0; i < e->k->instr_count; i++)
            if (e->k->instrs[i].op == MB_K_LOAD && mb__vk_slot_of(e->p, &e->k->instrs[i].view) == s)
                *(mb__vk_is_wide(e->k->instrs[i].dtype) ? &wide : &narrow) = true;
        for (int i = 0; i < e->k->store_count; i++)
            if (mb__vk_slot_of(e->p, &e->k->stores[i].view) == s)
                *(mb__vk_is_wide(e->k->instrs[e->k->stores[i].instr].dtype) ? &wide : &narrow) = true;
        e->block[s] = mb__vk_call(e->a, "block_of", VK_U32, 1, &slot);
        if (narrow)
            e->base[s] = mb__vk_call(e->a, "base_of", VK_U32, 1, &slot);
        if (wide)
            e->base64[s] = mb__vk_call(e->a, "base64_of", VK_U32, 1, &slot);
    }
}

static void read_sizes(emitter *e)
{
    for (int i = 0; i < e->p->size_count; i++) {
        uint32_t at = mb__vk_u32(e->a, (uint32_t)(2 * e->p->slot_count + e->p->param_count + i));
        e->size[i] = mb__vk_call(e->a, "param", VK_U32, 1, &at);
    }
}

/* ---- with columns ---- */

typedef struct columns {
    uint32_t first, end, step; /* of a lane's loop */
    bool single;               /* a lane has one column at most */
    uint32_t ok;               /* single: it has one */
} columns;

static uint32_t begin_columns(emitter *e, const columns *c)
{
    if (c->single)
        return 0;
    uint32_t i = mb__vk_loop(e->a, c->first, c->end, c->step);
    split_index(e, i, e->outer, e->k->rank, e->column_at);
    for (int j = 0; j < e->k->instr_count; j++)
        if (e->level[j] == MB_LEVEL_EACH)
            e->id[j] = 0;
    return i;
}

static void end_columns(emitter *e, const columns *c)
{
    if (!c->single)
        mb__vk_end_loop(e->a);
}

static bool carries(const mb__instr *n)
{
    return n->op == MB_K_SUM && mb__is_float(n->dtype) && n->dtype != MB_FLOAT64;
}

/* What a reduction of nothing gives. */
static uint32_t none_of(emitter *e, const mb__instr *n)
{
    return mb__vk_number(e->a, type_for(n->dtype), n->op == MB_K_MAX ? -(double)INFINITY : 0);
}

/* The reductions whose operands are of a depth. */
static void reduce_depth(emitter *e, const columns *c, int depth)
{
    const mb__kernel *k = e->k;
    uint32_t var[VK_INSTRS_MOST], rest[VK_INSTRS_MOST];
    int count = 0;
    memset(e->wanted, 0, (size_t)k->instr_count);
    for (int i = 0; i < k->instr_count; i++) {
        if (!mb__vk_is_reduction(&k->instrs[i]) || e->depth[i] != depth + 1)
            continue;
        mb__vk_type type = type_for(k->instrs[i].dtype);
        uint32_t none = none_of(e, &k->instrs[i]);
        if (!c->single) {
            var[i] = mb__vk_var(e->a, type);
            mb__vk_set(e->a, var[i], none);
            if (carries(&k->instrs[i])) {
                rest[i] = mb__vk_var(e->a, type);
                mb__vk_set(e->a, rest[i], none);
            }
        } else {
            var[i] = none;
        }
        e->wanted[k->instrs[i].in[0]] = true;
        count++;
    }
    if (!count)
        return;
    if (e->p->columns == 0) { /* there is no element to look at: what a reduction starts from is its result */
        for (int i = 0; i < k->instr_count; i++)
            if (mb__vk_is_reduction(&k->instrs[i]) && e->depth[i] == depth + 1)
                e->id[i] = none_of(e, &k->instrs[i]);
        return;
    }
    begin_columns(e, c);
    compute_columns(e, c->single);
    for (int i = 0; i < k->instr_count; i++) {
        const mb__instr *n = &k->instrs[i];
        if (!mb__vk_is_reduction(n) || e->depth[i] != depth + 1)
            continue;
        mb__vk_type type = type_for(n->dtype);
        const char *name = type_names[n->dtype];
        if (c->single) {
            uint32_t args[3] = {c->ok, e->id[n->in[0]], var[i]};
            e->id[i] = call1(e, "where_%s", name, type, 3, args);
        } else if (carries(n)) {
            uint32_t args[4] = {mb__vk_get(e->a, type, var[i]), e->id[n->in[0]],
                                mb__vk_get(e->a, type, rest[i])};
            args[3] = mb__vk_call(e->a, "sum_next_f32", type, 3, args);
            mb__vk_set(e->a, rest[i], mb__vk_call(e->a, "sum_rest_f32", type, 4, args));
            mb__vk_set(e->a, var[i], args[3]);
        } else {
            uint32_t args[2] = {mb__vk_get(e->a, type, var[i]), e->id[n->in[0]]};
            mb__vk_set(e->a, var[i],
                       call1(e, n->op == MB_K_SUM ? "%s_add" : "%s_maximum", name, type, 2, args));
        }
    }
    end_columns(e, c);
    for (int i = 0; i < k->instr_count; i++) {
        const mb__instr *n = &k->instrs[i];
        if (!mb__vk_is_reduction(n) || e->depth[i] != depth + 1)
            continue;
        mb__vk_type type = type_for(n->dtype);
        if (!c->single)
            e->id[i] = mb__vk_get(e->a, type, var[i]);
        if (e->p->lanes > 1) {
            uint32_t args[3] = {e->id[i], mb__vk_u32(e->a, e->p->lanes),
                                mb__vk_u32(e->a, e->p->rows_fastest ? e->p->local / e->p->lanes : 1)};
            e->id[i] = call1(e, n->op == MB_K_SUM ? "row_sum_%s" : "row_max_%s", type_names[n->dtype], type,
                             3, args);
        }
    }
}

static void emit_rows(emitter *e, const columns *c)
{
    const mb__kernel *k = e->k;
    int last = 0;
    for (int i = 0; i < k->instr_count; i++)
        last = e->depth[i] > last ? e->depth[i] : last;
    for (int depth = 0; depth <= last; depth++) {
        for (int i = 0; i < k->instr_count; i++)
            if (e->depth[i] == depth && e->level[i] != MB_LEVEL_EACH && !mb__vk_is_reduction(&k->instrs[i]))
                e->id[i] = one(e, i);
        reduce_depth(e, c, depth);
    }
    /* Elements, by every lane; then what is stored once a row, by the first. */
    memset(e->wanted, 0, (size_t)k->instr_count);
    bool any = false;
    for (int s = 0; s < k->store_count; s++)
        if (!k->stores[s].per_row)
            e->wanted[k->stores[s].instr] = any = true;
    if (any && e->p->columns) {
        bool guard = e->p->lanes > 1 || c->single;
        uint32_t may = c->single ? mb__vk_math(e->a, VK_AND, e->ok, c->ok) : e->ok;
        begin_columns(e, c);
        compute_columns(e, c->single);
        if (guard)
            mb__vk_if(e->a, may);
        for (int s = 0; s < k->store_count; s++)
            if (!k->stores[s].per_row)
                store(e, &k->stores[s]);
        if (guard)
            mb__vk_end_if(e->a);
        end_columns(e, c);
    }
    for (int i = e->outer; i < k->rank; i++)
        e->column_at[i] = 0;
    bool guard = e->p->lanes > 1;
    if (guard)
        mb__vk_if(e->a,
                  mb__vk_math(e->a, VK_AND, e->ok, mb__vk_math(e->a, VK_EQUAL, e->t, mb__vk_u32(e->a, 0))));
    for (int s = 0; s < k->store_count; s++)
        if (k->stores[s].per_row)
            store(e, &k->stores[s]);
    if (guard)
        mb__vk_end_if(e->a);
}

/* ---- the kernel ---- */

static void settle(emitter *e)
{
    const mb__kernel *k = e->k;
    for (int i = 0; i < k->instr_count; i++) {
        const mb__instr *n = &k->instrs[i];
        uint8_t level = MB_LEVEL_ONCE, depth = 0;
        if (n->op == MB_K_LOAD || n->op == MB_K_IOTA || n->op == MB_K_RANDOM) {
            level = MB_LEVEL_ROW;
            for (int j = e->outer; j < k->rank; j++)
                if (n->view.stride[j] && k->dim[j] != 1)
                    level = MB_LEVEL_EACH;
        }
        for (int j = 0; j < 3; j++)
            if (n->in[j] >= 0) {
                level = e->level[n->in[j]] > level ? e->level[n->in[j]] : level;
                depth = e->depth[n->in[j]] > depth ? e->depth[n->in[j]] : depth;
            }
        e->level[i] = mb__vk_is_reduction(n) ? MB_LEVEL_ROW : level;
        e->depth[i] = mb__vk_is_reduction(n) ? depth + 1 : depth;
    }
}

void mb__vk_emit(mb__vk_asm *a, const mb__vk_pass *p)
{
    uint32_t block[VK_INSTRS_MOST], base[VK_INSTRS_MOST] = {0}, base64[VK_INSTRS_MOST] = {0},
                                    id[VK_INSTRS_MOST] = {0};
    uint8_t level[VK_INSTRS_MOST], depth[VK_INSTRS_MOST];
    bool wanted[VK_INSTRS_MOST];
    emitter e = {.a = a,
                 .p = p,
                 .k = &p->k,
                 .outer = p->k.rank - p->column_axes,
                 .block = block,
                 .base = base,
                 .base64 = base64,
                 .id = id,
                 .level = level,
                 .depth = depth,
                 .wanted = wanted};
    settle(&e);
    uint32_t group = mb__vk_call(a, "group_index", VK_U32, 0, NULL),
             lane = mb__vk_call(a, "lane_index", VK_U32, 0, NULL);
    uint32_t share = p->local / p->lanes, shared = mb__vk_u32(a, share), lanes = mb__vk_u32(a, p->lanes);
    uint32_t row = mb__vk_math(a, VK_MUL, group, shared);
    if (p->lanes == 1) {
        row = mb__vk_math(a, VK_ADD, row, lane);
        e.t = mb__vk_u32(a, 0);
    } else if (p->rows_fastest) {
        row = mb__vk_math(a, VK_ADD, row, mb__vk_math(a, VK_MOD, lane, shared));
        e.t = mb__vk_math(a, VK_DIV, lane, shared);
    } else {
        row = mb__vk_math(a, VK_ADD, row, mb__vk_math(a, VK_DIV, lane, lanes));
        e.t = mb__vk_math(a, VK_MOD, lane, lanes);
    }
    read_sizes(&e);
    int64_t rows = p->rows * p->chunks;
    e.ok = mb__vk_math(a, VK_LESS, row, size(&e, rows));
    read_slots(&e);
    /* Lanes that combine go all the way, on the last row where theirs is not there. */
    if (p->lanes == 1) {
        mb__vk_if(a, e.ok);
    } else {
        uint32_t args[2] = {row, size(&e, rows - 1)};
        row = mb__vk_call(a, "smaller", VK_U32, 2, args);
    }
    if (p->column_axes == 0) {
        split_index(&e, row, 0, p->k.rank, e.row_at);
        for (int i = 0; i < p->k.instr_count; i++) /* over no columns, the sum is its operand */
            id[i] = mb__vk_is_reduction(&p->k.instrs[i]) ? id[p->k.instrs[i].in[0]] : one(&e, i);
        for (int s = 0; s < p->k.store_count; s++)
            store(&e, &p->k.stores[s]);
    } else {
        columns c = {.step = lanes};
        uint32_t count = size(&e, p->columns);
        split_index(&e, row, 0, e.outer, e.row_at);
        if (p->chunks > 1) {
            /* The last row axis is the chunk. */
            uint32_t piece = size(&e, mb__vk_chunk(p));
            uint32_t chunk = e.row_at[e.outer - 1] ? e.row_at[e.outer - 1] : mb__vk_u32(a, 0);
            uint32_t begin = mb__vk_math(a, VK_MUL, chunk, piece);
            uint32_t args[2] = {mb__vk_math(a, VK_ADD, begin, piece), count};
            c.end = mb__vk_call(a, "smaller", VK_U32, 2, args);
            c.first = p->lanes > 1 ? mb__vk_math(a, VK_ADD, begin, e.t) : begin;
        } else {
            c.first = e.t;
            c.end = count;
            c.single = p->columns <= p->lanes;
        }
        if (c.single && p->columns) {
            c.ok = mb__vk_math(a, VK_LESS, e.t, count);
            uint32_t args[2] = {e.t, size(&e, p->columns - 1)};
            split_index(&e, mb__vk_call(a, "smaller", VK_U32, 2, args), e.outer, p->k.rank, e.column_at);
        }
        emit_rows(&e, &c);
    }
    if (p->lanes == 1)
        mb__vk_end_if(a);
}
