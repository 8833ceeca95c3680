/* SPDX-License-Identifier: MIT
 * kernel_draw.c - what of a fused kernel is a function of its position: counting, and random draws. */
#include "backends/cpu/kernel.h"

/* Consecutive draws: whole blocks at once, and parts of the first and the last. */
static void draw_run(const mb__cpu_kernel *k, int dtype, uint64_t key, int64_t n, char *to, int64_t position)
{
    const int lane = mb__lane(dtype), of_block = mb__register_size(dtype) == 8 ? 2 : 4;
    const size_t size = mb__register_size(dtype);
    for (int64_t done; n > 0; n -= done, position += done, to += (size_t)done * size) {
        int64_t skip = position % of_block, blocks = skip ? 0 : n / of_block;
        done = blocks * of_block;
        if (blocks) {
            k->loops->draw[lane](key, (uint64_t)(position / of_block), blocks, to);
            continue;
        }
        double block[2]; /* of 16 bytes */
        done = of_block - skip < n ? of_block - skip : n;
        k->loops->draw[lane](key, (uint64_t)(position / of_block), 1, block);
        memcpy(to, (char *)block + (size_t)skip * size, (size_t)done * size);
    }
}

static void put_position(const mb__cpu_kernel *k, const mb__uop *u, uint64_t key, char *to, int64_t i,
                         int64_t position)
{
    int lane = mb__lane(u->dtype);
    if (u->kind == MB_U_RANDOM)
        draw_run(k, u->dtype, key, 1, to + i * u->size_d, position);
    else if (lane == 0)
        ((float *)(void *)to)[i] = (float)position;
    else if (lane == 1)
        ((double *)(void *)to)[i] = (double)position;
    else if (lane == 3)
        ((int64_t *)(void *)to)[i] = position;
    else
        ((int32_t *)(void *)to)[i] = (int32_t)position;
}

/* How many of n places follow one another in one part. */
static int64_t run_of_places(int64_t n, const int32_t *part, const int32_t *place)
{
    enum { BLOCK = 64 };
    int64_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK) {
        uint32_t off = 0, next = (uint32_t)place[0] + (uint32_t)i;
        for (uint32_t k = 0; k < BLOCK; k++)
            off |= (uint32_t)place[i + k] ^ (next + k);
        for (int k = 0; part && k < BLOCK; k++)
            off |= (uint32_t)part[i + k] ^ (uint32_t)part[0];
        if (off)
            break;
    }
    while (i < n && place[i] == place[0] + i && (!part || part[i] == part[0]))
        i++;
    return i;
}

/* Draws of parts, in runs: places end one at the ends of rows at most. */
void mb__cpu_draws(const mb__cpu_kernel *k, const mb__uop *u, const mb__frame *f, int64_t n, char **reg)
{
    const int32_t *part = (const int32_t *)(const void *)reg[u->a];
    const int32_t *place = (const int32_t *)(const void *)reg[u->b];
    const bool parts = u->ra == u->level, places = u->rb == u->level;
    const uint64_t key = f->scalars[u->bind].u.key;
    for (int64_t i = 0, run = 1; i < n; i += run) {
        int64_t at = (int64_t)part[parts ? i : 0] * u->part + place[places ? i : 0];
        run = places ? run_of_places(n - i, parts ? part + i : NULL, place + i) : 1;
        draw_run(k, u->dtype, key, run, reg[u->d] + i * u->size_d, at);
    }
}

/* Numbers that are functions of their position. */
void mb__cpu_positions(const mb__cpu_kernel *k, const mb__uop *u, const mb__frame *f, const mb__tile *t,
                       char *to)
{
    const mb__walk *w = u->walk;
    int64_t start = mb__cpu_start_of(k, w, t);
    uint64_t key = 0;
    if (u->bind >= 0)
        key = f->scalars[u->bind].u.key;
    if (u->level != MB_LEVEL_EACH) {
        for (int64_t r = 0; r < t->rows; r++)
            put_position(k, u, key, to, r, start + r * w->row);
        return;
    }
    if (u->kind == MB_U_RANDOM && w->flat &&
        (k->columns == 1 ? w->row == 1 : w->column == 1 && w->row == t->columns)) {
        draw_run(k, u->dtype, key, t->rows * t->columns, to, start);
        return;
    }
    for (int64_t r = 0; r < t->rows; r++, to += t->columns * u->size_d) {
        int64_t base = start + r * w->row;
        if (w->flat && w->column == 1 && u->kind == MB_U_RANDOM) {
            draw_run(k, u->dtype, key, t->columns, to, base);
        } else if (w->flat && w->column == 1 && u->kind == MB_U_IOTA && u->dtype == MB_INT32) {
            for (int64_t c = 0; c < t->columns; c++)
                ((int32_t *)(void *)to)[c] = (int32_t)(base + c);
        } else if (w->flat) {
            for (int64_t c = 0; c < t->columns; c++)
                put_position(k, u, key, to, c, base + c * w->column);
        } else {
            FOR_RUNS(k, w, at, n, stride, done)
            for (int64_t c = 0; c < n; c++)
                put_position(k, u, key, to, done + c, base + at + c * stride);
        }
    }
}
