/* SPDX-License-Identifier: MIT
 * kernel_list.c - a prepared kernel as text: MB_DUMP=kernels. */
#include <stdio.h>

#include "backends/cpu/kernel.h"
#include "backends/plan/dump.h"

typedef struct text {
    char *at;
    size_t used, capacity;
} text;

static void append(void *user, const char *from, size_t length)
{
    text *t = user;
    if (length >= t->capacity - t->used)
        length = t->capacity - t->used - 1;
    memcpy(t->at + t->used, from, length);
    t->used += length;
}

static const char *name_of(const mb__uop *u)
{
    switch (u->kind) {
    case MB_U_LOAD:
        return "load";
    case MB_U_IOTA:
        return "iota";
    case MB_U_RANDOM:
        return "random";
    case MB_U_SCALAR:
        return "scalar";
    case MB_U_EXPAND:
        return "repeat";
    case MB_U_MAP:
        return u->custom->name;
    default:
        return mb__kop_name(u->op);
    }
}

/* Whether the register is memory that a store writes. */
static bool in_place(const mb__cpu_kernel *k, int32_t reg)
{
    for (int s = 0; s < k->store_count; s++)
        if (k->stores[s].direct && k->stores[s].reg == reg)
            return true;
    return false;
}

static const char *const levels[] = {"once", "row ", "each"};

static void list_uop(const mb__writer *w, const mb__plan *plan, const mb__cpu_kernel *k, const mb__uop *u)
{
    mb__say(w, "  %s r%d = %s", levels[u->level], u->d, name_of(u));
    if (u->kind == MB_U_LOAD) {
        mb__cell value = "";
        mb__cell_value(plan, u->walk->value, value);
        mb__say(w, " %s", value);
    }
    if (u->kind == MB_U_SCALAR || u->kind == MB_U_RANDOM || u->kind == MB_U_DRAW)
        mb__say(w, " %d", u->bind);
    for (int i = 0; i < 3; i++) {
        int32_t r = i == 0 ? u->a : i == 1 ? u->b : u->c;
        if (r >= 0)
            mb__say(w, " r%d", r);
    }
    mb__say(w, "%s%s\n",
            u->direct  ? ", where it lies"
            : u->fixed ? ", once"
                       : "",
            in_place(k, u->d) ? ", where it goes" : "");
}

static void list_chain(const mb__writer *w, const mb__plan *plan, const mb__cpu_kernel *k, const mb__chain *c)
{
    mb__say(w, "  %s chain of %d, in %d bytes of code%s:\n", levels[c->level], c->count, c->size,
            c->by_row ? ", row by row" : "");
    for (int i = 0; i < c->count; i++) {
        mb__say(w, "  ");
        list_uop(w, plan, k, &c->uops[i]);
    }
}

static void list_stores(const mb__writer *w, const mb__plan *plan, const mb__cpu_kernel *k)
{
    static const char *const modes[] = {"=", "+=", "= largest of it and"};
    for (int s = 0; s < k->store_count; s++) {
        mb__cell value = "";
        mb__cell_value(plan, k->stores[s].walk.value, value);
        mb__say(w, "  %s %s %s r%d\n", k->stores[s].per_row ? "row " : "each", value,
                modes[k->stores[s].mode], k->stores[s].reg);
    }
}

/* Lines of its list that are operations. */
static int operations(const mb__cpu_kernel *k)
{
    int n = k->uop_count;
    for (int u = 0; u < k->uop_count; u++)
        n += k->uops[u].kind == MB_U_CHAIN ? k->uops[u].chain->count : 0;
    return n;
}

void mb__cpu_kernel_list(const mb__host *host, const mb__plan *plan, int step, const mb__cpu_kernel *k)
{
    mb__bump bump = {.host = host};
    text t = {.capacity = 256 + 96 * (size_t)(operations(k) + k->store_count + k->constant_count)};
    t.at = mb__bump_get(&bump, t.capacity);
    if (!t.at)
        return;
    const mb__writer w = {append, &t};
    mb__say(&w, "%d tasks share %lld tiles of %lld rows by %lld columns; loops of %s\n", k->tasks,
            (long long)k->units, (long long)k->tile_rows, (long long)k->tile_columns,
            strrchr(k->loops->name, '_') + 1);
    for (int c = 0; c < k->constant_count; c++)
        mb__say(&w, "  once r%d = const\n", k->constant_reg[c]);
    for (int u = 0; u < k->uop_count; u++)
        if (k->uops[u].kind == MB_U_CHAIN)
            list_chain(&w, plan, k, k->uops[u].chain);
        else
            list_uop(&w, plan, k, &k->uops[u]);
    list_stores(&w, plan, k);
    host->listing(host->user, plan, step, t.at, NULL, 0);
    mb__bump_free(&bump);
}
