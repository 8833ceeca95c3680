/* SPDX-License-Identifier: MIT
 *
 * index.c - take and scatter_add.
 *
 * Both go over the wide side: take's result, scatter_add's updates, of which the axes before the index's, the
 * index's and those after it are loops. Neighbouring loops that lie in one go become one, so that mostly one
 * of each is left. The last of the index's, the entries, and the last of those after it, an entry's run, are
 * the innermost two. */
#include "backends/cpu/frame.h"

typedef struct loop {
    int64_t n, wide, narrow, index; /* how often, and the elements from one to the next on each side */
} loop;

enum { LOOPS = MB_MAX_RANK + 1, TASKS = 16, MANY = 16384, LINE = 16, PART = 4 * LINE };

/* The loops around the entries: `free` ones, of which no two add to the same place, then the index's. */
typedef struct walk {
    const mb__other *o;
    mb__frame *f;
    loop outer[LOOPS], entry, run;
    int free, count;
    int64_t size, times, shares; /* of the axis; of all outer loops, or the free ones; parts of a run */
    char *wide, *narrow;
    const int32_t *index;
    int tasks;
} walk;

/* Where an outer position lies, in elements. */
typedef struct spot {
    int64_t at[LOOPS], wide, narrow, index;
} spot;

static void add_loop(loop *list, int *count, int first, loop l)
{
    loop *around = *count > first ? &list[*count - 1] : NULL;
    if (l.n == 1)
        return;
    if (around && around->wide == l.n * l.wide && around->narrow == l.n * l.narrow &&
        around->index == l.n * l.index) {
        l.n *= around->n;
        *around = l;
    } else
        list[(*count)++] = l;
}

static loop last_of(const loop *list, int *count, int first)
{
    return *count > first ? list[--*count] : (loop){1, 1, 1, 1};
}

static void make_walk(walk *w, bool take)
{
    const mb__other *o = w->o;
    const mb__view *wide = take ? &o->out : &o->in, *narrow = take ? &o->in : &o->out;
    const int64_t *dim = take ? o->out_dim : o->in_dim;
    int rank = take ? o->out_rank : o->in_rank, places = 0;
    loop place[LOOPS];
    for (int i = 0; i < o->axis; i++)
        add_loop(w->outer, &w->free, 0, (loop){dim[i], wide->stride[i], narrow->stride[i], 0});
    for (int i = 0; i < o->index_rank; i++)
        add_loop(place, &places, 0,
                 (loop){dim[o->axis + i], wide->stride[o->axis + i], 0, o->index.stride[i]});
    int before = w->free;
    for (int i = o->axis + o->index_rank; i < rank; i++)
        add_loop(w->outer, &w->free, before,
                 (loop){dim[i], wide->stride[i], narrow->stride[i - o->index_rank + 1], 0});
    w->run = last_of(w->outer, &w->free, before);
    w->entry = last_of(place, &places, 0);
    w->count = w->free;
    for (int i = 0; i < places; i++)
        w->outer[w->count++] = place[i];
    w->entry.narrow = narrow->stride[o->axis];
    w->size = take ? o->in_dim[o->axis] : o->out_dim[o->axis];
    size_t bytes = mb_dtype_size((mb_dtype)o->dtype);
    w->wide = w->f->memory[wide->value] + (size_t)wide->offset * bytes;
    w->narrow = w->f->memory[narrow->value] + (size_t)narrow->offset * bytes;
    w->index = (const int32_t *)(void *)w->f->memory[o->index.value] + o->index.offset;
}

static int64_t times_of(const loop *l, int count)
{
    int64_t n = 1;
    for (int i = 0; i < count; i++)
        n *= l[i].n;
    return n;
}

/* The spot of position `item` in the loops from `first` to before `end`. */
static void find(const walk *w, int first, int end, int64_t item, spot *s)
{
    for (int i = end; i-- > first && item;) {
        const loop *l = &w->outer[i];
        bool within = item < l->n; /* of one loop always, and a division takes as long as an entry */
        s->at[i] = within ? item : item % l->n;
        item = within ? 0 : item / l->n;
        s->wide += s->at[i] * l->wide;
        s->narrow += s->at[i] * l->narrow;
        s->index += s->at[i] * l->index;
    }
}

/* The next position in these loops; false after the last. */
static bool next(const walk *w, int first, int end, spot *s)
{
    for (int i = end; i-- > first;) {
        const loop *l = &w->outer[i];
        bool more = ++s->at[i] < l->n;
        int64_t by = more ? 1 : 1 - l->n;
        s->wide += by * l->wide;
        s->narrow += by * l->narrow;
        s->index += by * l->index;
        if (more)
            return true;
        s->at[i] = 0;
    }
    return false;
}

/* ---- take ---- */

static inline int64_t held(int32_t i, int64_t size)
{
    i = i < size ? i : (int32_t)(size - 1);
    return i < 0 ? 0 : i;
}

/* Entries of one element of `size` bytes, which is known where this is compiled. What the walk says is read
 * before: y might be anything. */
static inline void take_scalars(const walk *w, const int32_t *index, char *y, const char *x, int64_t n,
                                size_t size)
{
    const int64_t to = w->entry.wide * (int64_t)size, from = w->entry.narrow * (int64_t)size;
    const int64_t step = w->entry.index;
    const int32_t last = (int32_t)(w->size - 1 < INT32_MAX ? w->size - 1 : INT32_MAX);
    for (int64_t e = 0; e < n; e++) {
        int32_t i = index[e * step] < last ? index[e * step] : last;
        memcpy(y + e * to, x + (i < 0 ? 0 : i) * from, size);
    }
}

static void take_runs(const walk *w, const int32_t *index, char *y, const char *x, int64_t n, size_t size)
{
    int64_t to = w->entry.wide * (int64_t)size, from = w->entry.narrow * (int64_t)size;
    int64_t wide = w->run.wide * (int64_t)size, narrow = w->run.narrow * (int64_t)size;
    bool whole = w->run.wide == 1 && w->run.narrow == 1;
    for (int64_t e = 0; e < n; e++, index += w->entry.index, y += to) {
        const char *z = x + held(*index, w->size) * from;
        if (whole)
            memcpy(y, z, (size_t)w->run.n * size);
        else
            for (int64_t c = 0; c < w->run.n; c++)
                memcpy(y + c * wide, z + c * narrow, size);
    }
}

static void take_entries(const walk *w, const spot *s, int64_t first, int64_t n)
{
    size_t size = mb_dtype_size((mb_dtype)w->o->dtype);
    const int32_t *index = w->index + s->index + first * w->entry.index;
    char *y = w->wide + (s->wide + first * w->entry.wide) * (int64_t)size;
    const char *x = w->narrow + s->narrow * (int64_t)size;
    const mb__axis_loops *loops = w->f->cpu->loops->axis;
    bool flat = w->entry.index == 1 && w->entry.wide == 1;
    if (w->run.n > 1)
        take_runs(w, index, y, x, n, size);
    else if (flat && (size == 4 || size == 8)) /* in bits, whatever the dtype */
        loops[mb__lane(size == 4 ? MB_INT32 : MB_FLOAT64)].take_at(n, index, w->size, x, w->entry.narrow, y);
    else if (size == 4)
        take_scalars(w, index, y, x, n, 4);
    else if (size == 8)
        take_scalars(w, index, y, x, n, 8);
    else
        take_scalars(w, index, y, x, n, size);
}

static void take_task(void *argument, int task, int worker)
{
    (void)worker;
    const walk *w = argument;
    int64_t items = w->times * w->entry.n, i = items * task / w->tasks, end = items * (task + 1) / w->tasks;
    spot s = {{0}, 0, 0, 0};
    find(w, 0, w->count, i / w->entry.n, &s);
    for (int64_t first = i % w->entry.n; i < end; first = 0) {
        int64_t n = w->entry.n - first < end - i ? w->entry.n - first : end - i;
        take_entries(w, &s, first, n);
        i += n;
        next(w, 0, w->count, &s);
    }
}

static int tasks_for(int64_t items, int64_t total)
{
    int64_t most = total > MANY ? TASKS : 1;
    return (int)(most < items ? most : items > 0 ? items : 1);
}

void mb__cpu_take_run(const mb__other *o, mb__frame *f)
{
    walk w = {.o = o, .f = f};
    int64_t total = mb__numel(o->out_dim, o->out_rank);
    if (!total)
        return;
    make_walk(&w, true);
    w.times = times_of(w.outer, w.count);
    w.tasks = tasks_for(w.times * w.entry.n, total);
    mb__pool_run(f->cpu->pool, take_task, &w, w.tasks);
}

/* ---- scatter_add: no two tasks add to one place, and each place gets its entries in their order ---- */

static void add_entries(const walk *w, const spot *s, int64_t first, int64_t n)
{
    int64_t size = (int64_t)mb_dtype_size((mb_dtype)w->o->dtype);
    const mb__add_call call = {.entries = w->entry.n,
                               .index_step = w->entry.index,
                               .size = w->size,
                               .x_entry = w->entry.wide,
                               .y_entry = w->entry.narrow,
                               .run = n,
                               .x_step = w->run.wide,
                               .y_step = w->run.narrow,
                               .index = w->index + s->index,
                               .x = w->wide + (s->wide + first * w->run.wide) * size,
                               .y = w->narrow + (s->narrow + first * w->run.narrow) * size};
    w->f->cpu->loops->axis[mb__lane(w->o->dtype)].add_at(&call);
}

static void add_task(void *argument, int task, int worker)
{
    (void)worker;
    const walk *w = argument;
    int64_t items = w->times * w->shares,
            each = (w->run.n + w->shares * LINE - 1) / (w->shares * LINE) * LINE;
    for (int64_t i = items * task / w->tasks, end = items * (task + 1) / w->tasks; i < end; i++) {
        int64_t first = i % w->shares * each, n = w->run.n - first < each ? w->run.n - first : each;
        spot s = {{0}, 0, 0, 0};
        find(w, 0, w->free, i / w->shares, &s);
        for (bool more = n > 0; more; more = next(w, w->free, w->count, &s))
            add_entries(w, &s, first, n);
    }
}

typedef struct clearing {
    char *memory;
    size_t bytes;
    int tasks;
} clearing;

static void clear_task(void *argument, int task, int worker)
{
    (void)worker;
    const clearing *c = argument;
    size_t begin = c->bytes * (size_t)task / (size_t)c->tasks;
    memset(c->memory + begin, 0, c->bytes * (size_t)(task + 1) / (size_t)c->tasks - begin);
}

/* One task adds at about the speed at which memory is copied: runs are shared by threads where each part is
 * several cache lines long, and shorter ones are not. */
void mb__cpu_scatter_add_run(const mb__other *o, mb__frame *f)
{
    walk w = {.o = o, .f = f, .shares = 1};
    int64_t total = mb__numel(o->in_dim, o->in_rank), count = mb__numel(o->out_dim, o->out_rank);
    clearing c = {f->memory[o->out.value], (size_t)count * mb_dtype_size((mb_dtype)o->dtype),
                  count > 4 * MANY ? TASKS : 1};
    if (count)
        mb__pool_run(f->cpu->pool, clear_task, &c, c.tasks);
    if (!total)
        return;
    make_walk(&w, false);
    w.times = times_of(w.outer, w.free);
    int64_t wanted = total > MANY && f->cpu->threads > 1 ? 2 * f->cpu->threads : 1, most = w.run.n / PART;
    if (w.times < wanted && most > 1)
        w.shares = most < wanted ? most : wanted;
    w.tasks = tasks_for(w.times * w.shares, total);
    mb__pool_run(f->cpu->pool, add_task, &w, w.tasks);
}
