/* SPDX-License-Identifier: MIT
 * kernel_make.c - from a plan's kernel to micro-operations, registers and tiles. */
#include "backends/cpu/kernel.h"

/* FAR: elements from which what a kernel reads and writes is not in a cache of this core. STREAMS: arrays
 * that are gone through at once from which a core does not see by itself what will be wanted. */
enum { TILE = 1024, FAR = 180000, STREAMS = 3, EXPAND_BELOW = 48, TASKS_MAX = 64, PARTIALS_MAX = 16 };

typedef struct maker {
    mb__bump *pool, *work; /* for the kernel; for temporary data */
    const mb__plan *plan;
    const mb__kernel *k;
    mb__cpu_kernel *o;
    int32_t *reg;      /* of each instruction */
    int32_t *expanded; /* of each register: its expansion, -1 */
    int64_t *reg_bytes;
    int32_t *reg_last;
    uint8_t *reg_level, *reg_dtype;
    int uop_capacity, reg_capacity;
    bool failed;
} maker;

/* The kernel's axis that is the i-th of the outer ones: all above the columns but that of the rows. */
static int outer_axis(const mb__cpu_kernel *o, int i)
{
    return i < o->row_axis ? i : i + 1;
}

static mb__walk walk_of(const maker *m, const mb__view *v)
{
    const mb__kernel *k = m->k;
    mb__walk w = {.value = v->value, .offset = v->offset, .flat = true};
    int inner = m->o->inner_rank, outer = m->o->outer_rank;
    for (int i = 0; i < outer; i++)
        w.outer[i] = v->stride[outer_axis(m->o, i)];
    w.row = m->o->row_axis >= 0 ? v->stride[m->o->row_axis] : 0;
    for (int i = 0; i < inner; i++)
        w.inner[i] = v->stride[k->rank - inner + i];
    for (int i = 0; i + 1 < inner; i++)
        w.flat &= w.inner[i] == w.inner[i + 1] * m->o->inner[i + 1];
    w.column = w.inner[inner - 1];
    return w;
}

static int32_t new_reg(maker *m, int level, int dtype)
{
    int n = m->o->reg_count, capacity = m->reg_capacity;
    int32_t *e = mb__bump_grow(m->work, m->expanded, n, &capacity, sizeof *e);
    capacity = m->reg_capacity;
    int64_t *b = mb__bump_grow(m->work, m->reg_bytes, n, &capacity, sizeof *b);
    capacity = m->reg_capacity;
    int32_t *l = mb__bump_grow(m->work, m->reg_last, n, &capacity, sizeof *l);
    capacity = m->reg_capacity;
    uint8_t *r = mb__bump_grow(m->work, m->reg_level, n, &capacity, sizeof *r);
    capacity = m->reg_capacity;
    uint8_t *d = mb__bump_grow(m->work, m->reg_dtype, n, &capacity, sizeof *d);
    if (!e || !b || !l || !r || !d) {
        m->failed = true;
        return 0;
    }
    m->expanded = e, m->reg_bytes = b, m->reg_last = l, m->reg_level = r, m->reg_dtype = d;
    m->reg_capacity = capacity;
    int64_t count = level == MB_LEVEL_EACH  ? m->o->tile_rows * m->o->tile_columns
                    : level == MB_LEVEL_ROW ? m->o->tile_rows
                                            : 1;
    e[n] = -1;
    b[n] = (count * mb__register_size(dtype) + 63) / 64 * 64;
    l[n] = -1;
    r[n] = (uint8_t)level;
    d[n] = (uint8_t)dtype;
    return m->o->reg_count++;
}

static mb__uop *new_uop(maker *m, int kind)
{
    mb__uop *u = mb__bump_grow(m->work, m->o->uops, m->o->uop_count, &m->uop_capacity, sizeof *u);
    if (!u) {
        m->failed = true;
        return NULL;
    }
    m->o->uops = u;
    u += m->o->uop_count++;
    memset(u, 0, sizeof *u);
    u->kind = (uint8_t)kind;
    u->a = u->b = u->c = u->d = -1;
    u->bind = -1;
    return u;
}

/* The register with a value for each element of the tile. */
static int32_t expand(maker *m, int32_t reg)
{
    if (m->reg_level[reg] == MB_LEVEL_EACH || m->failed)
        return reg;
    if (m->expanded[reg] >= 0)
        return m->expanded[reg];
    int32_t d = new_reg(m, MB_LEVEL_EACH, m->reg_dtype[reg]);
    mb__uop *u = new_uop(m, MB_U_EXPAND);
    if (!u)
        return 0;
    u->a = reg;
    u->d = d;
    u->ra = m->reg_level[reg];
    u->level = MB_LEVEL_EACH;
    u->size_d = (uint8_t)mb__register_size(m->reg_dtype[reg]);
    m->expanded[reg] = d;
    return d;
}

/* Whether the rows of a tile, which have no gaps, lie one after the other. */
static bool rows_follow(const mb__cpu_kernel *o, const mb__walk *w)
{
    return o->tile_rows == 1 || (w->row == o->columns && o->tile_columns == o->columns);
}

static bool fixed_walk(const maker *m, const mb__walk *w)
{
    if (m->o->column_tiles > 1 || w->row)
        return false;
    for (int i = 0; i < m->o->outer_rank; i++)
        if (w->outer[i])
            return false;
    return true;
}

static void make_leaf(maker *m, const mb__instr *i, int index)
{
    mb__cpu_kernel *o = m->o;
    int level = i->level == MB_LEVEL_ROW && o->columns == 1 ? MB_LEVEL_EACH : i->level;
    int32_t d = m->reg[index] = new_reg(m, level, i->dtype);
    if (m->failed)
        return;
    if (i->op == MB_K_CONST) {
        int c = o->constant_count++;
        o->constant_reg[c] = d;
        char *cell = (char *)&o->constants[c];
        int lane = mb__lane(i->dtype);
        if (lane == 0)
            *(float *)(void *)cell = (float)i->number;
        else if (lane == 1)
            o->constants[c] = i->number;
        else if (lane == 3)
            *(int64_t *)(void *)cell = (int64_t)i->number;
        else
            *(int32_t *)(void *)cell = i->dtype == MB_BOOL ? i->number != 0 : (int32_t)i->number;
        return;
    }
    mb__uop *u = new_uop(m, i->op == MB_K_SCALAR ? MB_U_SCALAR
                            : i->op == MB_K_LOAD ? MB_U_LOAD
                            : i->op == MB_K_IOTA ? MB_U_IOTA
                                                 : MB_U_RANDOM);
    if (!u)
        return;
    u->d = d;
    u->level = (uint8_t)level;
    u->dtype = i->dtype;
    u->bind = i->bind;
    u->size_d = (uint8_t)mb__register_size(i->dtype);
    if (i->op == MB_K_SCALAR) {
        u->fixed = true;
        return;
    }
    mb__walk *w = mb__bump_get(m->pool, sizeof *w);
    if (!w) {
        m->failed = true;
        return;
    }
    *w = walk_of(m, &i->view);
    u->walk = w;
    if (i->op == MB_K_LOAD && mb__as_in_registers(i->dtype)) {
        if (level == MB_LEVEL_EACH)
            u->direct = (o->columns == 1 && (o->tile_rows == 1 || w->row == 1)) ||
                        (o->columns > 1 && w->flat && w->column == 1 && rows_follow(o, w));
        else
            u->direct = o->tile_rows == 1 || w->row == 1;
    }
    u->fixed = !u->direct && fixed_walk(m, w);
}

/* An op of the user's, or a draw, whose loops take arrays alone: values per row are expanded; single ones
 * when it runs. */
static void make_map(maker *m, const mb__instr *i, int index)
{
    bool draw = i->op == MB_OP_DRAW;
    int32_t in[3] = {-1, -1, -1};
    int level = MB_LEVEL_ONCE, n = draw ? 2 : i->custom->loops.operands;
    for (int j = 0; j < n; j++) {
        in[j] = m->reg[i->in[j]];
        if (m->reg_level[in[j]] > level)
            level = m->reg_level[in[j]];
    }
    for (int j = 0; j < n && !m->failed; j++)
        if (level == MB_LEVEL_EACH && m->reg_level[in[j]] == MB_LEVEL_ROW)
            in[j] = expand(m, in[j]);
    int32_t d = m->failed ? 0 : new_reg(m, level, i->dtype);
    mb__uop *u = m->failed ? NULL : new_uop(m, draw ? MB_U_DRAW : MB_U_MAP);
    if (!u)
        return;
    m->reg[index] = d;
    u->op = i->op;
    u->custom = i->custom;
    u->bind = i->bind;
    u->part = draw ? (int32_t)i->number : 0;
    u->d = d;
    u->a = in[0], u->b = in[1], u->c = in[2];
    u->level = (uint8_t)level;
    u->dtype = i->dtype;
    u->ra = m->reg_level[in[0]];
    u->rb = n > 1 ? m->reg_level[in[1]] : 0;
    u->rc = n > 2 ? m->reg_level[in[2]] : 0;
    u->size_d = (uint8_t)mb__register_size(i->dtype);
}

/* Whether a cast changes nothing: to the same dtype, from a half to float32, and to a half where all that is
 * done with it is storing it, which rounds. */
static bool same_register(const maker *m, const mb__instr *cast, int index)
{
    if (cast->dtype == cast->from || (cast->dtype == MB_FLOAT32 && mb__is_half(cast->from)))
        return true;
    if (!mb__is_half(cast->dtype) || mb__lane(cast->from) != 0)
        return false;
    for (int i = index + 1; i < m->k->instr_count; i++)
        for (int j = 0; j < 3; j++)
            if (m->k->instrs[i].in[j] == index)
                return false;
    return true;
}

static void make_op(maker *m, const mb__instr *i, int index)
{
    mb__cpu_kernel *o = m->o;
    const mb__loops *loops = o->loops;
    int32_t in[3] = {-1, -1, -1};
    int level = MB_LEVEL_ONCE, n = 0;
    for (; n < 3 && i->in[n] >= 0; n++) {
        in[n] = m->reg[i->in[n]];
        if (m->reg_level[in[n]] > level)
            level = m->reg_level[in[n]];
    }
    if (i->op == MB_K_COPY || (i->op == MB_OP_CAST && same_register(m, i, index))) {
        m->reg[index] = in[0];
        return;
    }
    if (i->op == MB_K_SUM || i->op == MB_K_MAX) {
        int32_t full = expand(m, in[0]);
        if (m->failed)
            return;
        int32_t d = new_reg(m, o->columns == 1 ? MB_LEVEL_EACH : MB_LEVEL_ROW, i->dtype);
        mb__uop *u = new_uop(m, MB_U_REDUCE);
        if (!u)
            return;
        u->op = i->op;
        u->a = full;
        u->d = d;
        u->level = MB_LEVEL_ROW;
        u->size_a = u->size_d = (uint8_t)mb__register_size(i->dtype);
        u->f.reduce = (i->op == MB_K_SUM ? loops->sum : loops->max)[mb__lane(i->dtype)];
        m->reg[index] = d;
        return;
    }
    int kind = i->op == MB_OP_WHERE ? MB_U_WHERE : i->op == MB_OP_CAST || n == 1 ? MB_U_UNARY : MB_U_BINARY;
    bool mixed = false; /* some operands have one value per row, others one per element */
    for (int j = 0; j < n; j++)
        mixed |= level == MB_LEVEL_EACH && m->reg_level[in[j]] == MB_LEVEL_ROW;
    if (kind == MB_U_WHERE) /* the condition, and row values, for each element; single values stay */
        for (int j = 0; j < 3; j++)
            if (m->reg_level[in[j]] != level && (j == 0 || m->reg_level[in[j]] == MB_LEVEL_ROW)) {
                if (level == MB_LEVEL_EACH)
                    in[j] = expand(m, in[j]);
            }
    if (kind == MB_U_BINARY && mixed && o->columns < EXPAND_BELOW)
        for (int j = 0; j < 2; j++)
            if (m->reg_level[in[j]] == MB_LEVEL_ROW)
                in[j] = expand(m, in[j]);
    if (m->failed)
        return;
    int32_t d = new_reg(m, level, i->dtype);
    mb__uop *u = new_uop(m, kind);
    if (!u)
        return;
    m->reg[index] = d;
    u->op = i->op;
    u->d = d;
    u->a = in[0];
    u->b = in[1];
    u->c = in[2];
    u->level = (uint8_t)level;
    u->dtype = i->dtype;
    u->from = i->from;
    u->ra = m->reg_level[in[0]];
    u->rb = n > 1 ? m->reg_level[in[1]] : 0;
    u->rc = n > 2 ? m->reg_level[in[2]] : 0;
    u->size_d = (uint8_t)mb__register_size(i->dtype);
    u->size_a = (uint8_t)mb__register_size(i->from);
    u->size_b = u->size_a;
    int lane = mb__lane(i->from);
    if (kind == MB_U_UNARY) {
        u->f.unary = i->op == MB_OP_CAST ? loops->cast[i->from][i->dtype] : loops->unary[i->op][lane];
    } else if (kind == MB_U_BINARY) {
        u->by_row =
            u->ra != u->rb && level == MB_LEVEL_EACH && (u->ra == MB_LEVEL_ROW || u->rb == MB_LEVEL_ROW);
        u->form = u->ra == u->rb ? MB_VV : u->ra > u->rb ? MB_VS : MB_SV;
        if (u->ra == MB_LEVEL_ONCE && u->rb == MB_LEVEL_ONCE)
            u->form = MB_VV;
        u->f.binary = loops->binary[i->op][lane][u->form];
    } else {
        u->form = (uint8_t)((u->rb < level ? 1 : 0) | (u->rc < level ? 2 : 0));
        u->by_row = u->ra < level; /* a single condition: one side is copied */
        u->where = loops->where[u->size_d == 8];
    }
}

static void read_at(maker *m, const mb__uop *u, int at)
{
    int32_t in[3];
    for (int i = mb__uop_reads(u, in); i-- > 0;)
        if (m->reg_last[in[i]] < at)
            m->reg_last[in[i]] = at;
}

/* The last operation that reads each register; those to be stored are read after all. */
static void find_last_readers(maker *m)
{
    mb__cpu_kernel *o = m->o;
    for (int at = 0; at < o->uop_count; at++) {
        const mb__uop *u = &o->uops[at];
        read_at(m, u, at);
        for (int i = 0; u->kind == MB_U_CHAIN && i < u->chain->count; i++)
            read_at(m, &u->chain->uops[i], at);
        if (u->fixed)
            m->reg_last[u->d] = INT32_MAX;
    }
    for (int s = 0; s < o->store_count; s++)
        m->reg_last[o->stores[s].reg] = INT32_MAX;
}

static bool goes_to_memory(const mb__cpu_kernel *o, int32_t reg)
{
    for (int s = 0; s < o->store_count; s++)
        if (o->stores[s].direct && o->stores[s].reg == reg)
            return true;
    return false;
}

/* A part of scratch memory, and the register that has it. */
typedef struct slots {
    int32_t *user;
    int count;
    int64_t top;
} slots;

/* The place of a register that operation `at` writes: that of one whose last reader is done, or a new one. */
static void place_register(maker *m, slots *s, int32_t reg, int at, bool fixed)
{
    int64_t need = m->reg_bytes[reg];
    for (int i = 0; i < s->count && !fixed; i++) {
        int32_t r = s->user[i];
        if (m->reg_last[r] < at && m->reg_bytes[r] == need) {
            m->o->reg_offset[reg] = m->o->reg_offset[r];
            s->user[i] = reg;
            return;
        }
    }
    m->o->reg_offset[reg] = s->top;
    s->top += need;
    s->user[s->count++] = reg;
}

/* Registers share scratch memory once their last reader is done. */
static bool place_registers(maker *m, size_t *scratch)
{
    mb__cpu_kernel *o = m->o;
    o->reg_offset = mb__bump_get(m->pool, (size_t)(o->reg_count + 1) * sizeof *o->reg_offset);
    slots s = {.user = mb__bump_get(m->work, (size_t)(o->reg_count + 1) * sizeof *s.user)};
    if (!o->reg_offset || !s.user)
        return false;
    for (int i = 0; i < o->reg_count; i++)
        o->reg_offset[i] = -1;
    find_last_readers(m);
    for (int at = 0; at < o->uop_count; at++) {
        const mb__uop *u = &o->uops[at];
        bool chain = u->kind == MB_U_CHAIN;
        const int32_t *made = chain ? u->chain->out : &u->d;
        for (int i = 0; i < (chain ? u->chain->outs : 1); i++)
            if (!u->direct && !goes_to_memory(o, made[i]))
                place_register(m, &s, made[i], at, u->fixed);
    }
    *scratch = (size_t)s.top + (size_t)o->reg_count * sizeof(char *) +
               64; /* registers, and the table of where they are */
    return true;
}

/* The axis along which something is read without a gap that is read with gaps along the columns; -1. */
static int turned_axis(const mb__kernel *k)
{
    int above = k->rank - k->inner;
    for (int i = 0; i < k->instr_count && k->inner == 1; i++) {
        const int64_t *stride = k->instrs[i].view.stride;
        if (k->instrs[i].op != MB_K_LOAD || stride[above] == 0 || stride[above] == 1)
            continue;
        for (int axis = above; axis-- > 0;)
            if (stride[axis] == 1 && k->dim[axis] > 1)
                return axis;
    }
    return -1;
}

/* Rows and columns so that of what lies along the rows a cache line's elements are used together. */
static void choose_turned_tile(mb__cpu_kernel *o)
{
    enum { ROWS = 32 };
    int64_t rows = o->rows < ROWS ? o->rows : ROWS;
    o->tile_columns = o->columns < TILE / rows ? o->columns : TILE / rows;
    o->tile_rows = o->tile_columns ? TILE / o->tile_columns : 1;
}

/* Whether rows are added up, or their largest found, where they lie, one after the other: nothing is held in
 * registers but what comes of them. */
static bool reads_in_place(const mb__kernel *k)
{
    const mb__instr *load = k->instrs;
    const int64_t *stride = load->view.stride;
    int64_t columns = 1;
    if (k->instr_count < 1 || k->instr_count > 2 || load->op != MB_K_LOAD ||
        !mb__as_in_registers(load->dtype) ||
        (k->instr_count == 2 && k->instrs[1].op != MB_K_SUM && k->instrs[1].op != MB_K_MAX))
        return false;
    for (int axis = k->rank; axis-- > 0 && axis >= k->rank - k->inner - 1; columns *= k->dim[axis])
        if (stride[axis] != columns)
            return false;
    for (int s = 0; s < k->store_count; s++)
        if (k->stores[s].mode == MB_STORE && k->instr_count == 1)
            return false;
    return true;
}

static void choose_tiles(mb__cpu_kernel *o, const mb__kernel *k)
{
    enum { IN_PLACE = 8 }; /* a tile costs as much as some hundred additions */
    const int64_t tile = reads_in_place(k) ? TILE * IN_PLACE : TILE;
    bool reduces = false;
    for (int i = 0; i < k->instr_count; i++)
        reduces |= k->instrs[i].op == MB_K_SUM || k->instrs[i].op == MB_K_MAX;
    int turned = reduces ? -1 : turned_axis(k);
    o->inner_rank = k->inner;
    o->columns = 1;
    for (int i = 0; i < k->inner; i++)
        o->columns *= o->inner[i] = k->dim[k->rank - k->inner + i];
    int above = k->rank - k->inner;
    o->row_axis = turned >= 0 ? turned : above - 1;
    o->rows = above ? k->dim[o->row_axis] : 1;
    o->outer_rank = above ? above - 1 : 0;
    int64_t outer = 1;
    for (int i = 0; i < o->outer_rank; i++)
        outer *= o->outer[i] = k->dim[outer_axis(o, i)];
    o->tile_columns = o->columns;
    if (o->columns > tile && !reduces && k->inner == 1)
        o->tile_columns = tile;
    o->tile_rows = o->tile_columns >= tile || o->tile_columns < o->columns
                       ? 1
                       : tile / (o->tile_columns ? o->tile_columns : 1);
    if (turned >= 0)
        choose_turned_tile(o);
    if (o->tile_rows > o->rows)
        o->tile_rows = o->rows;
    if (o->tile_rows < 1)
        o->tile_rows = 1;
    o->row_tiles = (o->rows + o->tile_rows - 1) / o->tile_rows;
    /* Rows without columns still have sums: each is visited once. */
    o->column_tiles = o->tile_columns ? (o->columns + o->tile_columns - 1) / o->tile_columns : 1;
    o->units = outer * o->row_tiles * o->column_tiles;
}

/* Sums of many float32 are compensated, if that needs little memory. */
static bool compensate(mb__cpu_kernel *o)
{
    enum { TERMS = 512, SUMS = 1 << 16 };
    double elements = (double)o->units * (double)(o->tile_rows * o->tile_columns);
    bool any = false;
    for (int s = 0; s < o->store_count; s++) {
        mb__cpu_store *st = &o->stores[s];
        st->compensated = st->mode == MB_STORE_SUM && st->dtype == MB_FLOAT32 && st->count <= SUMS &&
                          elements > TERMS * (double)st->count;
        any |= st->compensated;
    }
    return any;
}

/* How many arrays are gone through in step. */
static int streams(const mb__cpu_kernel *o)
{
    int n = 0;
    for (int i = 0; i < o->uop_count; i++)
        n += o->uops[i].kind == MB_U_LOAD && o->uops[i].level == MB_LEVEL_EACH && !o->uops[i].fixed;
    for (int i = 0; i < o->store_count; i++)
        n += o->stores[i].mode == MB_STORE && !o->stores[i].per_row;
    return n;
}

/* The number of tasks, and where they may be split. Depends only on the kernel, not on the number of threads.
 */
static void choose_tasks(mb__cpu_kernel *o, size_t *partials)
{
    double elements = (double)o->units * (double)(o->tile_rows * o->tile_columns);
    o->far = elements > FAR && streams(o) >= STREAMS;
    double nanoseconds = elements * (0.08 * o->uop_count + 0.3);
    double wanted = nanoseconds / 5000;
    o->tasks = wanted < 1 ? 1 : wanted > TASKS_MAX ? TASKS_MAX : (int)wanted;
    if (o->tasks > o->units)
        o->tasks = o->units ? (int)o->units : 1;
    o->task_unit = 1;
    bool own_rows = o->outer_rank > 0;
    for (int s = 0; s < o->store_count; s++) {
        if (o->stores[s].mode == MB_STORE)
            continue;
        o->accumulates = true;
        own_rows &= o->stores[s].walk.outer[0] != 0;
    }
    bool compensated = compensate(o);
    if (!o->accumulates || (o->tasks == 1 && !compensated))
        return;
    if (own_rows && o->outer[0] > 3 && !compensated) { /* each task has its own part of the result */
        o->task_unit = o->units / o->outer[0];
        if (o->tasks > o->outer[0])
            o->tasks = (int)o->outer[0];
        return;
    }
    if (o->tasks > PARTIALS_MAX)
        o->tasks = PARTIALS_MAX;
    o->partial = true;
    for (int s = 0; s < o->store_count; s++)
        if (o->stores[s].mode != MB_STORE) {
            o->stores[s].partial_offset = o->partial_bytes;
            o->partial_bytes +=
                ((size_t)o->stores[s].count * o->stores[s].size * (o->stores[s].compensated ? 2 : 1) + 63) /
                64 * 64;
        }
    *partials = o->partial_bytes * (size_t)o->tasks;
}

/* Whether all that is done is to put elements elsewhere, none of which has to be read after it is written. */
static bool only_moves(const mb__cpu_kernel *o, const mb__plan *plan)
{
    const mb__uop *u = o->uops;
    const mb__cpu_store *s = o->stores;
    return o->uop_count == 1 && o->store_count == 1 && u->kind == MB_U_LOAD && !u->fixed &&
           u->level == MB_LEVEL_EACH && u->walk->flat && mb__as_in_registers(u->dtype) &&
           s->dtype == u->dtype && s->mode == MB_STORE && !s->per_row && s->walk.flat &&
           plan->values[s->walk.value].onto < 0;
}

/* Without registers a tile may be larger than these. */
static void move_more(mb__cpu_kernel *o)
{
    enum { TILES = 8 };
    o->moves = true;
    if (!o->units || o->tile_columns != o->columns || o->row_axis != o->outer_rank)
        return;
    int64_t outer = o->units / o->row_tiles;
    o->tile_rows = o->tile_rows * TILES < o->rows ? o->tile_rows * TILES : o->rows;
    o->row_tiles = (o->rows + o->tile_rows - 1) / o->tile_rows;
    o->units = outer * o->row_tiles;
}

mb__cpu_kernel *mb__cpu_kernel_make(mb__bump *pool, mb__bump *work, const mb__plan *plan, const mb__kernel *k,
                                    const mb__loops *loops, mb__code *code, size_t *scratch, size_t *partials)
{
    maker m = {.pool = pool, .work = work, .plan = plan, .k = k};
    mb__cpu_kernel *o = m.o = mb__bump_get(pool, sizeof *o);
    m.reg = mb__bump_get(work, (size_t)(k->instr_count + 1) * sizeof *m.reg);
    if (!o || !m.reg)
        return NULL;
    o->loops = loops;
    choose_tiles(o, k);
    o->constants = mb__bump_get(pool, (size_t)(k->instr_count + 1) * sizeof *o->constants);
    o->constant_reg = mb__bump_get(pool, (size_t)(k->instr_count + 1) * sizeof *o->constant_reg);
    o->stores = mb__bump_get(pool, (size_t)(k->store_count + 1) * sizeof *o->stores);
    if (!o->constants || !o->constant_reg || !o->stores)
        return NULL;
    for (int i = 0; i < k->instr_count && !m.failed; i++) {
        const mb__instr *in = &k->instrs[i];
        if (mb__is_source(in->op))
            make_leaf(&m, in, i);
        else if (in->op == MB_OP_MAP || in->op == MB_OP_DRAW)
            make_map(&m, in, i);
        else
            make_op(&m, in, i);
    }
    for (int i = 0; i < k->store_count && !m.failed; i++) {
        const mb__store *s = &k->stores[i];
        mb__cpu_store *t = &o->stores[o->store_count++];
        const mb__value *v = &plan->values[s->view.value];
        *t = (mb__cpu_store){.walk = walk_of(&m, &s->view),
                             .mode = s->mode,
                             .per_row = s->per_row,
                             .dtype = v->dtype,
                             .count = v->count};
        t->reg = m.reg[s->instr];
        if (!s->per_row)
            t->reg = expand(&m, t->reg);
        if (m.failed)
            break;
        t->level = m.reg_level[t->reg];
        t->size = (uint8_t)mb__register_size(v->dtype);
        int lane = mb__lane(v->dtype);
        t->to = (s->mode == MB_STORE_MAX ? loops->max_to : loops->add_to)[lane];
        t->one = (s->mode == MB_STORE_MAX ? loops->max_one : loops->add_one)[lane];
        t->add_rows = s->mode == MB_STORE_SUM ? loops->add_rows[lane] : NULL;
        t->to_compensated = loops->add_compensated;
        t->one_compensated = loops->add_one_compensated;
        /* Computed straight into memory, unless something in memory still has to be read there. */
        const mb__walk *w = &t->walk;
        bool dense =
            t->level == MB_LEVEL_EACH && w->flat && (o->columns == 1 || w->column == 1) && rows_follow(o, w);
        bool computed = false, taken = false;
        for (int u = 0; u < o->uop_count; u++)
            if (o->uops[u].d == t->reg)
                computed = !o->uops[u].direct && !o->uops[u].fixed;
        for (int j = 0; j + 1 < o->store_count; j++)
            taken |= o->stores[j].reg == t->reg && o->stores[j].direct;
        t->direct = s->mode == MB_STORE && !s->per_row && dense && computed && !taken &&
                    mb__as_in_registers(v->dtype) && v->onto < 0;
    }
    if (m.failed)
        return NULL;
    if (only_moves(o, plan))
        move_more(o);
    choose_tasks(o, partials);
    if ((code && !mb__cpu_chain(pool, work, o, code)) || !place_registers(&m, scratch))
        return NULL;
    mb__uop *exact = mb__bump_get(pool, (size_t)(o->uop_count + 1) * sizeof *exact);
    if (!exact)
        return NULL;
    if (o->uop_count)
        memcpy(exact, o->uops, (size_t)o->uop_count * sizeof *exact);
    o->uops = exact;
    return o;
}
