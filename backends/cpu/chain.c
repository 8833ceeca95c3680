/* SPDX-License-Identifier: MIT
 * chain.c - which operations of a kernel form chains, and in what order all run.
 *
 * Operations that are no arithmetic (loads, functions such as exp, reductions) cut a kernel into waves: first
 * those of wave 0, then the arithmetic that follows from them, per row and per element, then the others of
 * wave
 * 1. Each wave's arithmetic is a chain. */
#include "backends/cpu/code.h"

typedef struct waves {
    mb__bump *pool;
    mb__cpu_kernel *k;
    int32_t *maker; /* of each register: the operation that makes it, -1 */
    int *wave;      /* of each operation */
    bool *arithmetic, *stored /* of each register */;
    int last;
} waves;

static bool is_leaf(const mb__uop *u)
{
    return u->kind == MB_U_LOAD || u->kind == MB_U_IOTA || u->kind == MB_U_RANDOM;
}

/* The first wave in which operation u can run. */
static int earliest(const waves *w, int u)
{
    int32_t in[3];
    int first = 0;
    for (int i = mb__uop_reads(&w->k->uops[u], in); i-- > 0;) {
        int m = w->maker[in[i]];
        if (m < 0)
            continue;
        int after = w->wave[m] + (w->arithmetic[m] && !w->arithmetic[u]);
        first = after > first ? after : first;
    }
    return first;
}

static bool reads(const mb__uop *u, int32_t reg)
{
    return u->a == reg || u->b == reg || u->c == reg;
}

/* The last wave in which it can, as the others stand: before the first that reads it. */
static int latest(const waves *w, int u)
{
    int32_t d = w->k->uops[u].d;
    int last = w->last;
    for (int v = u + 1; v < w->k->uop_count; v++)
        if (reads(&w->k->uops[v], d)) {
            int before = w->wave[v] - (w->arithmetic[u] && !w->arithmetic[v]);
            last = before < last ? before : last;
        }
    return last;
}

/* The last wave, as the others stand, in which the register is read by another operation than u. */
static int read_until(const waves *w, int32_t reg, int u)
{
    int until = w->stored[reg] ? w->last : 0;
    for (int v = 0; v < w->k->uop_count; v++)
        if (v != u && reads(&w->k->uops[v], reg) && w->wave[v] > until)
            until = w->wave[v];
    return until;
}

/* Whether u's operands are there at that wave without being stored for it alone. */
static bool can_wait(const waves *w, int u, int wave)
{
    int32_t in[3];
    for (int i = mb__uop_reads(&w->k->uops[u], in); i-- > 0;) {
        int m = w->maker[in[i]];
        if (m >= 0 && w->arithmetic[m] && read_until(w, in[i], u) < wave)
            return false;
    }
    return true;
}

/* Arithmetic that another wave needs is stored between them. What can wait for that wave, waits. */
static void assign(waves *w)
{
    mb__cpu_kernel *k = w->k;
    for (int u = 0; u < k->uop_count; u++) {
        w->wave[u] = earliest(w, u);
        w->last = w->wave[u] > w->last ? w->wave[u] : w->last;
    }
    for (int u = k->uop_count; u-- > 0;) {
        const mb__uop *o = &k->uops[u];
        if (o->fixed || !(w->arithmetic[u] || is_leaf(o)))
            continue;
        int late = latest(w, u);
        if (late > w->wave[u] && can_wait(w, u, late))
            w->wave[u] = late;
    }
}

static bool in_chain(const waves *w, int u, int wave, int level)
{
    return w->arithmetic[u] && w->wave[u] == wave && w->k->uops[u].level == level;
}

/* Whether a register that operation u makes is read by a store, or outside of u's chain. */
static bool leaves(const waves *w, int u)
{
    const mb__uop *o = &w->k->uops[u];
    if (w->stored[o->d])
        return true;
    for (int v = 0; v < w->k->uop_count; v++)
        if (reads(&w->k->uops[v], o->d) && !in_chain(w, v, w->wave[u], o->level))
            return true;
    return false;
}

/* The chain of one wave and level. NULL: no memory. */
static mb__chain *chain_of(const waves *w, int wave, int level, int count)
{
    mb__chain *c = mb__bump_get(w->pool, sizeof *c);
    mb__uop *uops = mb__bump_get(w->pool, (size_t)count * sizeof *uops);
    int32_t *out = mb__bump_get(w->pool, (size_t)count * sizeof *out);
    if (!c || !uops || !out)
        return NULL;
    *c = (mb__chain){.uops = uops, .out = out, .level = (uint8_t)level};
    for (int u = 0; u < w->k->uop_count; u++) {
        if (!in_chain(w, u, wave, level))
            continue;
        const mb__uop *o = &w->k->uops[u];
        uops[c->count++] = *o;
        int32_t in[3];
        int n = mb__uop_reads(o, in);
        const uint8_t levels[3] = {o->ra, o->rb, o->rc};
        for (int i = 0; i < n; i++)
            c->by_row |= level == MB_LEVEL_EACH && levels[i] == MB_LEVEL_ROW;
        if (leaves(w, u))
            out[c->outs++] = o->d;
    }
    return c;
}

/* Adds a wave's arithmetic of one level to the new list. */
static bool put_arithmetic(const waves *w, mb__code *code, mb__bump *work, const bool *masked, int wave,
                           int level, mb__uop *list, int *n)
{
    int count = 0, only = -1;
    for (int u = 0; u < w->k->uop_count; u++)
        if (in_chain(w, u, wave, level)) {
            count++;
            only = u;
        }
    if (count < 2) {
        if (count)
            list[(*n)++] = w->k->uops[only];
        return true;
    }
    mb__chain *c = chain_of(w, wave, level, count);
    if (!c || !mb__code_add(code, work, c, w->k->reg_count, masked))
        return false;
    mb__uop *u = &list[(*n)++];
    *u = (mb__uop){.kind = MB_U_CHAIN,
                   .level = (uint8_t)level,
                   .a = -1,
                   .b = -1,
                   .c = -1,
                   .d = -1,
                   .bind = -1,
                   .chain = c};
    return true;
}

/* Registers in memory that is not the tile's, and ends where the values end. */
static bool *masked_registers(mb__bump *work, const mb__cpu_kernel *k)
{
    bool *masked = mb__bump_get(work, (size_t)k->reg_count + 1);
    for (int u = 0; masked && u < k->uop_count; u++)
        if (k->uops[u].direct)
            masked[k->uops[u].d] = true;
    for (int s = 0; masked && s < k->store_count; s++)
        if (k->stores[s].direct)
            masked[k->stores[s].reg] = true;
    return masked;
}

static bool find_waves(waves *w, mb__bump *work)
{
    mb__cpu_kernel *k = w->k;
    w->maker = mb__bump_get(work, (size_t)(k->reg_count + 1) * sizeof *w->maker);
    w->wave = mb__bump_get(work, (size_t)(k->uop_count + 1) * sizeof *w->wave);
    w->arithmetic = mb__bump_get(work, (size_t)k->uop_count + 1);
    w->stored = mb__bump_get(work, (size_t)k->reg_count + 1);
    if (!w->maker || !w->wave || !w->arithmetic || !w->stored)
        return false;
    for (int r = 0; r < k->reg_count; r++)
        w->maker[r] = -1;
    for (int u = 0; u < k->uop_count; u++) {
        w->maker[k->uops[u].d] = u;
        w->arithmetic[u] = mb__code_has(&k->uops[u]);
    }
    for (int s = 0; s < k->store_count; s++)
        w->stored[k->stores[s].reg] = true;
    assign(w);
    return true;
}

bool mb__cpu_chain(mb__bump *pool, mb__bump *work, mb__cpu_kernel *k, mb__code *code)
{
    waves w = {.pool = pool, .k = k};
    mb__uop *list = mb__bump_get(work, (size_t)(k->uop_count + 1) * sizeof *list);
    const bool *masked = masked_registers(work, k);
    if (!list || !masked || !find_waves(&w, work))
        return false;
    int n = 0;
    for (int wave = 0; wave <= w.last; wave++) {
        for (int u = 0; u < k->uop_count; u++)
            if (!w.arithmetic[u] && w.wave[u] == wave)
                list[n++] = k->uops[u];
        for (int level = MB_LEVEL_ROW; level <= MB_LEVEL_EACH; level++)
            if (!put_arithmetic(&w, code, work, masked, wave, level, list, &n))
                return false;
    }
    k->uops = list;
    k->uop_count = n;
    return true;
}
