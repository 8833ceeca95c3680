/* SPDX-License-Identifier: MIT
 * kernel_run.c - running a fused kernel tile by tile. */
#include <math.h>

#include "backends/cpu/kernel.h"

typedef struct job {
    mb__cpu_kernel *k;
    mb__frame *f;
} job;

static int64_t count_at(const mb__tile *t, int level)
{
    return level == MB_LEVEL_EACH ? t->rows * t->columns : level == MB_LEVEL_ROW ? t->rows : 1;
}

#define GATHER(T, D, convert)                                                                                \
    {                                                                                                        \
        const T *x = (const T *)from;                                                                        \
        D *y = to;                                                                                           \
        if (stride == 1)                                                                                     \
            for (int64_t i = 0; i < n; i++)                                                                  \
                y[i] = convert(x[i]);                                                                        \
        else                                                                                                 \
            for (int64_t i = 0; i < n; i++)                                                                  \
                y[i] = convert(x[i * stride]);                                                               \
    }
#define SAME(x)  (x)
#define TRUTH(x) ((x) != 0)

/* n elements at a stride into a register. */
static void gather(const mb__loops *loops, int dtype, int64_t n, void *to, const char *from, int64_t stride)
{
    if (stride == 1 && mb__as_in_registers(dtype)) /* only moved; the most usual first */
        memcpy(to, from, (size_t)n * mb__register_size(dtype));
    else if (mb__register_size(dtype) == 4 && mb__as_in_registers(dtype))
        GATHER(float, float, SAME)
    else if (mb__register_size(dtype) == 8)
        GATHER(double, double, SAME)
    else if (dtype == MB_BOOL)
        GATHER(uint8_t, int32_t, TRUTH)
    else if (dtype == MB_UINT8)
        GATHER(uint8_t, int32_t, SAME)
    else if (mb__is_half(dtype) && stride == 1)
        loops->widen[dtype == MB_BFLOAT16](n, to, from);
    else if (dtype == MB_FLOAT16)
        GATHER(uint16_t, float, mb__from_float16)
    else
        GATHER(uint16_t, float, mb__from_bfloat16)
}

#define SCATTER(T, D, convert)                                                                               \
    {                                                                                                        \
        const T *x = from;                                                                                   \
        D *y = (D *)to;                                                                                      \
        if (stride == 1)                                                                                     \
            for (int64_t i = 0; i < n; i++)                                                                  \
                y[i] = (D)convert(x[i]);                                                                     \
        else                                                                                                 \
            for (int64_t i = 0; i < n; i++)                                                                  \
                y[i * stride] = (D)convert(x[i]);                                                            \
    }

static void scatter(const mb__loops *loops, int dtype, int64_t n, char *to, int64_t stride, const void *from)
{
    if (dtype == MB_FLOAT32 || dtype == MB_INT32)
        SCATTER(float, float, SAME)
    else if (mb__register_size(dtype) == 8)
        SCATTER(double, double, SAME)
    else if (dtype == MB_BOOL || dtype == MB_UINT8)
        SCATTER(int32_t, uint8_t, SAME)
    else if (mb__is_half(dtype) && stride == 1)
        loops->narrow[dtype == MB_BFLOAT16](n, to, from);
    else if (dtype == MB_FLOAT16)
        SCATTER(float, uint16_t, mb__to_float16)
    else
        SCATTER(float, uint16_t, mb__to_bfloat16)
}

static size_t memory_size(int dtype)
{
    return mb__dtype_bytes(dtype);
}

/* Lines that will be wanted soon: what the next tile reads, what this one writes; any address will do. They
 * are asked for a part at a time, between the operations of this tile: a core keeps track of some twenty, and
 * waits with more. */
enum { AHEAD = 16, LINE = 64 };
typedef struct ahead {
    struct {
        const char *at;
        int64_t lines;
        bool to_write;
    } run[AHEAD];
    int first, count;
    int64_t lines; /* of all */
} ahead;

static void ask(ahead *a, int64_t lines)
{
    while (lines > 0 && a->first < a->count) {
        int64_t n = a->run[a->first].lines < lines ? a->run[a->first].lines : lines;
        const char *at = a->run[a->first].at;
        if (a->run[a->first].to_write)
            for (int64_t i = 0; i < n; i++)
                __builtin_prefetch(at + i * LINE, 1);
        else
            for (int64_t i = 0; i < n; i++)
                __builtin_prefetch(at + i * LINE);
        a->run[a->first].at += n * LINE;
        a->run[a->first].lines -= n;
        a->first += a->run[a->first].lines == 0;
        a->lines -= n;
        lines -= n;
    }
    if (a->first == a->count)
        a->first = a->count = 0;
}

static void will_want(ahead *a, const char *at, int64_t bytes, bool to_write)
{
    int64_t lines = (bytes + LINE - 1) / LINE;
    if (a->count == AHEAD)
        ask(a, a->lines);
    a->run[a->count].at = at;
    a->run[a->count].lines = lines;
    a->run[a->count++].to_write = to_write;
    a->lines += lines;
}

static void load(const mb__cpu_kernel *k, const mb__uop *u, const mb__frame *f, const mb__tile *t, char **reg)
{
    size_t size = memory_size(u->dtype);
    const char *from = f->memory[u->walk->value] + mb__cpu_start_of(k, u->walk, t) * (int64_t)size;
    if (u->direct) {
        reg[u->d] = (char *)from;
        if (k->far)
            will_want(t->ahead, from + count_at(t, u->level) * (int64_t)size,
                      count_at(t, u->level) * (int64_t)size, false);
        return;
    }
    char *to = reg[u->d];
    if (u->level != MB_LEVEL_EACH || k->columns == 1) {
        gather(k->loops, u->dtype, t->rows, to, from, u->walk->row);
        return;
    }
    if (u->walk->flat && u->walk->column == 1 && (t->rows == 1 || u->walk->row == t->columns)) {
        int64_t n = t->rows * t->columns;
        if (k->far)
            will_want(t->ahead, from + n * (int64_t)size, n * (int64_t)size, false);
        gather(k->loops, u->dtype, n, to, from, 1);
        return;
    }
    if (u->walk->flat && u->walk->row == 1 && t->rows > 1 && mb__as_in_registers(u->dtype)) {
        k->loops->turn[size == 8](t->rows, t->columns, to, t->columns, from, u->walk->column);
        return;
    }
    for (int64_t r = 0; r < t->rows;
         r++, from += u->walk->row * (int64_t)size, to += t->columns * u->size_d) {
        if (u->walk->flat) {
            gather(k->loops, u->dtype, t->columns, to, from, u->walk->column);
            continue;
        }
        FOR_RUNS(k, u->walk, at, n, stride, done)
        gather(k->loops, u->dtype, n, to + done * u->size_d, from + at * (int64_t)size, stride);
    }
}

static void bound_scalar(const mb__uop *u, const mb__frame *f, char *to)
{
    double v = f->scalars[u->bind].u.number;
    int lane = mb__lane(u->dtype);
    if (lane == 1)
        *(double *)(void *)to = v;
    else if (lane == 0)
        *(float *)(void *)to = (float)v;
    else if (lane == 3)
        *(int64_t *)(void *)to = mb__to_int64(v);
    else
        *(int32_t *)(void *)to = u->dtype == MB_BOOL ? v != 0
                                 : v >= 2147483647.0 ? INT32_MAX
                                 : v > -2147483648.0 ? (int32_t)v
                                                     : INT32_MIN;
}

static void expand(const mb__uop *u, const mb__tile *t, char *to, const char *from)
{
    int64_t c = t->columns;
#define FILL(T)                                                                                              \
    {                                                                                                        \
        T *d = (T *)(void *)to;                                                                              \
        const T *a = (const T *)(const void *)from;                                                          \
        for (int64_t r = 0; r < t->rows; r++) {                                                              \
            const T v = a[u->ra == MB_LEVEL_ROW ? r : 0];                                                    \
            for (int64_t i = 0; i < c; i++)                                                                  \
                d[r * c + i] = v;                                                                            \
        }                                                                                                    \
    }
    if (u->size_d == 8)
        FILL(double)
    else
        FILL(float)
}

static void run_where(const mb__uop *u, const mb__tile *t, char **reg)
{
    int64_t n = count_at(t, u->level);
    const int32_t *m = (const int32_t *)(void *)reg[u->a];
    if (!u->by_row) {
        u->where[u->form](n, reg[u->d], m, reg[u->b], reg[u->c]);
        return;
    }
    const char *from = m[0] ? reg[u->b] : reg[u->c];
    bool single = m[0] ? u->form & 1 : u->form & 2;
    for (int64_t i = 0; i < n; i++)
        memcpy(reg[u->d] + i * u->size_d, from + (single ? 0 : i * u->size_d), u->size_d);
}

/* Operands of which there is a single value are written out, a block at a time. */
#define RUN_MAP(T, function)                                                                                 \
    for (int64_t at = 0; at < n; at += MAP_BLOCK) {                                                          \
        int64_t count = n - at < MAP_BLOCK ? n - at : MAP_BLOCK;                                             \
        T block[3][MAP_BLOCK];                                                                               \
        const T *in[3] = {NULL, NULL, NULL};                                                                 \
        for (int j = 0; j < u->custom->loops.operands; j++) {                                                \
            const T *x = (const T *)(const void *)reg[from[j]];                                              \
            in[j] = level[j] == u->level ? x + at : block[j];                                                \
            for (int64_t i = 0; i < count && level[j] != u->level; i++)                                      \
                block[j][i] = *x;                                                                            \
        }                                                                                                    \
        function(count, (T *)(void *)reg[u->d] + at, in[0], in[1], in[2]);                                   \
    }

static void run_map(const mb__uop *u, int64_t n, char **reg)
{
    enum { MAP_BLOCK = 256 };
    const int32_t from[3] = {u->a, u->b, u->c};
    const uint8_t level[3] = {u->ra, u->rb, u->rc};
    if (u->dtype == MB_FLOAT64)
        RUN_MAP(double, u->custom->loops.f64)
    else
        RUN_MAP(float, u->custom->loops.f32)
}

static void run_chain(const mb__chain *c, const mb__tile *t, char **reg)
{
    enum { SIZE = 4 };
    if (!c->by_row) {
        c->run(reg, 0, count_at(t, c->level) * SIZE, 0, c->data);
        return;
    }
    const int64_t row = t->columns * SIZE;
    for (int64_t r = 0; r < t->rows; r++)
        c->run(reg, r * row, (r + 1) * row, r * SIZE, c->data);
}

static void run_uop(const mb__cpu_kernel *k, const mb__uop *u, const mb__frame *f, const mb__tile *t,
                    char **reg)
{
    int64_t n = count_at(t, u->level);
    switch (u->kind) {
    case MB_U_LOAD:
        load(k, u, f, t, reg);
        break;
    case MB_U_IOTA:
    case MB_U_RANDOM:
        mb__cpu_positions(k, u, f, t, reg[u->d]);
        break;
    case MB_U_SCALAR:
        bound_scalar(u, f, reg[u->d]);
        break;
    case MB_U_UNARY:
        u->f.unary(n, reg[u->d], reg[u->a]);
        break;
    case MB_U_BINARY:
        if (!u->by_row) {
            u->f.binary(n, reg[u->d], reg[u->a], reg[u->b]);
            break;
        }
        for (int64_t r = 0, c = t->columns; r < t->rows; r++)
            u->f.binary(c, reg[u->d] + r * c * u->size_d,
                        reg[u->a] + (u->ra == MB_LEVEL_ROW ? r : r * c) * u->size_a,
                        reg[u->b] + (u->rb == MB_LEVEL_ROW ? r : r * c) * u->size_b);
        break;
    case MB_U_WHERE:
        run_where(u, t, reg);
        break;
    case MB_U_MAP:
        run_map(u, n, reg);
        break;
    case MB_U_DRAW:
        mb__cpu_draws(k, u, f, n, reg);
        break;
    case MB_U_CHAIN:
        run_chain(u->chain, t, reg);
        break;
    case MB_U_REDUCE:
        for (int64_t r = 0; r < t->rows; r++)
            u->f.reduce(t->columns, reg[u->d] + r * u->size_d, reg[u->a] + r * t->columns * u->size_a);
        break;
    default:
        expand(u, t, reg[u->d], reg[u->a]);
    }
}

static size_t accumulators(const mb__cpu_store *s)
{
    return (size_t)s->count * s->size;
}

static void add_to(const mb__cpu_store *s, int64_t n, char *to, const char *from)
{
    if (s->compensated)
        s->to_compensated(n, to, to + accumulators(s), from);
    else
        s->to(n, to, from);
}

static void add_one(const mb__cpu_store *s, int64_t n, char *to, const char *from)
{
    if (s->compensated)
        s->one_compensated(n, to, to + accumulators(s), from);
    else
        s->one(n, to, from);
}

/* The rows of a tile that are added to the same sums. Compensated sums take a few at a time, not more than a
 * lane of add_one has terms. */
static void add_rows(const mb__cpu_kernel *k, const mb__cpu_store *s, const mb__tile *t, char *to,
                     const char *from)
{
    enum { MOST = 32 };
    if (!s->compensated) {
        s->add_rows(t->rows, t->columns, to, NULL, from);
        return;
    }
    for (int64_t r = 0; r < t->rows; r += MOST, from += MOST * t->columns * s->size)
        k->loops->add_rows_compensated(t->rows - r < MOST ? t->rows - r : MOST, t->columns, to,
                                       to + accumulators(s), from);
}

/* Elements that are added up without compensation: 16 in each lane. */
enum { AT_ONCE = 1024 };

static void accumulate(const mb__cpu_kernel *k, const mb__cpu_store *s, const mb__tile *t, char *to,
                       const char *from)
{
    const mb__walk *w = &s->walk;
    to += mb__cpu_start_of(k, w, t) * s->size;
    if (s->per_row || k->columns == 1) {
        if (w->row == 1)
            add_to(s, t->rows, to, from);
        else if (w->row == 0)
            add_one(s, t->rows, to, from);
        else
            for (int64_t r = 0; r < t->rows; r++)
                add_to(s, 1, to + r * w->row * s->size, from + r * s->size);
        return;
    }
    if (w->flat && w->column == 0 && w->row == 0) {
        for (int64_t n = t->rows * t->columns, i = 0; i < n; i += AT_ONCE)
            add_one(s, n - i < AT_ONCE ? n - i : AT_ONCE, to, from + i * s->size);
        return;
    }
    if (w->flat && w->column == 1 && w->row == 0 && t->rows > 1 && s->add_rows) {
        add_rows(k, s, t, to, from);
        return;
    }
    for (int64_t r = 0; r < t->rows; r++, to += w->row * s->size, from += t->columns * s->size) {
        if (w->flat && w->column == 1)
            add_to(s, t->columns, to, from);
        else if (w->flat && w->column == 0)
            add_one(s, t->columns, to, from);
        else if (w->flat)
            for (int64_t c = 0; c < t->columns; c++)
                add_to(s, 1, to + c * w->column * s->size, from + c * s->size);
        else
            FOR_RUNS(k, w, at, n, stride, done)
        for (int64_t c = 0; c < n; c++)
            add_to(s, 1, to + (at + c * stride) * s->size, from + (done + c) * s->size);
    }
}

static void store(const mb__cpu_kernel *k, const mb__cpu_store *s, const mb__frame *f, const mb__tile *t,
                  const char *from)
{
    const mb__walk *w = &s->walk;
    int64_t size = (int64_t)memory_size(s->dtype);
    char *to = f->memory[w->value] + mb__cpu_start_of(k, w, t) * size;
    if (s->per_row || k->columns == 1) {
        scatter(k->loops, s->dtype, t->rows, to, w->row, from);
        return;
    }
    if (w->flat && w->column == 1 && w->row == t->columns) {
        scatter(k->loops, s->dtype, t->rows * t->columns, to, 1, from);
        return;
    }
    for (int64_t r = 0; r < t->rows; r++, to += w->row * size, from += t->columns * s->size) {
        if (w->flat) {
            scatter(k->loops, s->dtype, t->columns, to, w->column, from);
            continue;
        }
        FOR_RUNS(k, w, at, n, stride, done)
        scatter(k->loops, s->dtype, n, to + at * size, stride, from + done * s->size);
    }
}

static void fill_identity(const mb__cpu_store *s, char *to)
{
    if (s->mode == MB_STORE_SUM)
        memset(to, 0, (s->compensated ? 2 : 1) * accumulators(s));
    else
        for (int64_t i = 0; i < s->count; i++)
            if (s->dtype == MB_FLOAT32)
                ((float *)(void *)to)[i] = -INFINITY;
            else if (s->dtype == MB_FLOAT64)
                ((double *)(void *)to)[i] = -(double)INFINITY;
            else
                ((int32_t *)(void *)to)[i] = INT32_MIN;
}

/* Whether it takes longer than to say where its operand is. */
static bool is_work(const mb__uop *u)
{
    return !u->fixed && !(u->kind == MB_U_LOAD && u->direct);
}

static void run_tile(const mb__cpu_kernel *k, const mb__frame *f, const mb__tile *t, char **reg,
                     char *partial, int busy, bool first)
{
    for (int s = 0; s < k->store_count; s++)
        if (k->stores[s].direct) {
            int64_t size = (int64_t)memory_size(k->stores[s].dtype);
            reg[k->stores[s].reg] =
                f->memory[k->stores[s].walk.value] + mb__cpu_start_of(k, &k->stores[s].walk, t) * size;
            if (k->far)
                will_want(t->ahead, reg[k->stores[s].reg], t->rows * t->columns * size, true);
        }
    for (int i = 0, work = busy; i < k->uop_count; i++) {
        const mb__uop *u = &k->uops[i];
        if (is_work(u)) {
            ask(t->ahead, (t->ahead->lines + work - 1) / work);
            work--;
        }
        if (u->fixed) {
            if (first) {
                mb__tile whole = *t;
                whole.rows = k->tile_rows;
                run_uop(k, u, f, &whole, reg);
            }
            continue;
        }
        run_uop(k, u, f, t, reg);
    }
    for (int s = 0; s < k->store_count; s++) {
        const mb__cpu_store *st = &k->stores[s];
        if (st->mode != MB_STORE)
            accumulate(k, st, t, partial ? partial + st->partial_offset : f->memory[st->walk.value],
                       reg[st->reg]);
        else if (!st->direct &&
                 !(st->per_row && t->column)) /* a value per row is stored by its first mb__tile */
            store(k, st, f, t, reg[st->reg]);
    }
}

static void run_task(void *argument, int task, int worker)
{
    const job *j = argument;
    mb__cpu_kernel *k = j->k;
    mb__frame *f = j->f;
    char *scratch = f->cpu->scratch[worker],
         *partial = k->partial ? f->partials + k->partial_bytes * (size_t)task : NULL;
    char **reg = (char **)(void *)scratch;
    char *slots = scratch + ((size_t)k->reg_count * sizeof *reg + 63) / 64 * 64;
    for (int i = 0; i < k->reg_count; i++)
        reg[i] = k->reg_offset[i] >= 0 ? slots + k->reg_offset[i] : NULL;
    for (int i = 0; i < k->constant_count; i++)
        reg[k->constant_reg[i]] = (char *)&k->constants[i];
    if (partial)
        for (int s = 0; s < k->store_count; s++)
            if (k->stores[s].mode != MB_STORE)
                fill_identity(&k->stores[s], partial + k->stores[s].partial_offset);
    int64_t groups = k->task_unit ? k->units / k->task_unit : 0;
    int64_t unit = groups * task / k->tasks * k->task_unit,
            end = groups * (task + 1) / k->tasks * k->task_unit;
    if (unit >= end)
        return;
    ahead wanted = {.count = 0};
    mb__tile t = {.ahead = &wanted};
    int64_t rest = unit / (k->row_tiles * k->column_tiles), rt = unit / k->column_tiles % k->row_tiles,
            ct = unit % k->column_tiles;
    for (int i = k->outer_rank; i-- > 0; rest /= k->outer[i])
        t.index[i] = rest % k->outer[i];
    bool first = true;
    int busy = 0;
    for (int i = 0; i < k->uop_count; i++)
        busy += is_work(&k->uops[i]);
    for (; unit < end; unit++, first = false) {
        t.row = rt * k->tile_rows;
        t.rows = k->rows - t.row < k->tile_rows ? k->rows - t.row : k->tile_rows;
        t.column = ct * k->tile_columns;
        t.columns = k->columns - t.column < k->tile_columns ? k->columns - t.column : k->tile_columns;
        if (k->moves)
            mb__cpu_move(k, f, &t);
        else
            run_tile(k, f, &t, reg, partial, busy, first);
        if (++ct == k->column_tiles) {
            ct = 0;
            if (++rt == k->row_tiles) {
                rt = 0;
                for (int i = k->outer_rank; i-- > 0;) {
                    if (++t.index[i] < k->outer[i])
                        break;
                    t.index[i] = 0;
                }
            }
        }
    }
}

void mb__cpu_kernel_run(mb__cpu_kernel *k, mb__frame *f)
{
    job j = {k, f};
    if (k->accumulates && !k->partial)
        for (int s = 0; s < k->store_count; s++)
            if (k->stores[s].mode != MB_STORE)
                fill_identity(&k->stores[s], f->memory[k->stores[s].walk.value]);
    if (k->units)
        mb__pool_run(f->cpu->pool, run_task, &j, k->tasks);
    if (!k->partial)
        return;
    for (int s = 0; s < k->store_count; s++) {
        const mb__cpu_store *st = &k->stores[s];
        if (st->mode == MB_STORE)
            continue;
        char *sums = f->partials + st->partial_offset;
        for (int p = 1; p < k->tasks; p++)
            add_to(st, st->count, sums, sums + k->partial_bytes * (size_t)p);
        memcpy(f->memory[st->walk.value], sums, accumulators(st));
    }
}
