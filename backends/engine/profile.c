/* SPDX-License-Identifier: MIT
 * profile.c - MB_PROFILE: the time of steps, by what they compute and the line that recorded it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "backends/plan/hash.h"
#include "backends/plan/label.h"
#include "backends/engine/state.h"

typedef struct entry {
    const char *site;
    char label[56];
    double seconds;
    uint64_t runs;
} entry;

struct mb__profile {
    entry *entries;
    uint32_t count, capacity;
    uint32_t *slots, slot_capacity; /* open addressing: entry + 1, 0 where free */
    char path[1024];                /* empty: the standard error */
};

static bool grow(mb_context *ctx, struct mb__profile *p)
{
    uint32_t capacity = p->slot_capacity ? 2 * p->slot_capacity : 256;
    uint32_t *slots = mb__alloc(ctx, capacity * sizeof *slots);
    if (!slots)
        return false;
    mb__free(ctx, p->slots, p->slot_capacity * sizeof *slots);
    p->slots = slots;
    p->slot_capacity = capacity;
    for (uint32_t i = 0; i < p->count; i++) {
        uint64_t h =
            mb__hash(p->entries[i].label, sizeof p->entries[i].label) ^ (uintptr_t)p->entries[i].site;
        while (slots[h % capacity])
            h++;
        slots[h % capacity] = i + 1;
    }
    return true;
}

void mb__profile_add(void *user, const mb__plan *plan, int step, double seconds)
{
    mb_context *ctx = user;
    struct mb__profile *p = ((mb__engine_state *)ctx->engine_state)->profile;
    if (!p || (2 * p->count >= p->slot_capacity && !grow(ctx, p)))
        return;
    entry e = {.site = plan->steps[step].site};
    mb__step_label(plan, step, e.label, sizeof e.label);
    uint64_t h = mb__hash(e.label, sizeof e.label) ^ (uintptr_t)e.site;
    for (; p->slots[h % p->slot_capacity]; h++) {
        entry *x = &p->entries[p->slots[h % p->slot_capacity] - 1];
        if (x->site != e.site || strcmp(x->label, e.label) != 0)
            continue;
        x->seconds += seconds;
        x->runs++;
        return;
    }
    if (!mb__reserve(ctx, (void **)&p->entries, &p->capacity, (uint64_t)p->count + 1, sizeof e))
        return;
    e.seconds = seconds;
    e.runs = 1;
    p->entries[p->count++] = e;
    p->slots[h % p->slot_capacity] = p->count;
}

void mb__profile_start(mb_context *ctx)
{
    mb__engine_state *st = ctx->engine_state;
    const char *wanted = getenv("MB_PROFILE");
    if (!wanted || !*wanted || !strcmp(wanted, "0"))
        return;
    bool named = strcmp(wanted, "1") != 0;
    FILE *f = named ? fopen(wanted, "a") : NULL;
    if (named && (!f || strlen(wanted) >= sizeof st->profile->path)) {
        mb__error(ctx, MB_IO, "open: MB_PROFILE is \"%.300s\", which cannot be written to: %s", wanted,
                  f ? "the path is too long" : strerror(errno));
        wanted = "0";
    }
    if (f)
        fclose(f);
    st->profile = strcmp(wanted, "0") != 0 ? mb__alloc(ctx, sizeof *st->profile) : NULL;
    if (st->profile)
        snprintf(st->profile->path, sizeof st->profile->path, "%s", named ? wanted : "");
}

static int by_time(const void *a, const void *b)
{
    double x = ((const entry *)a)->seconds, y = ((const entry *)b)->seconds;
    return (x < y) - (x > y);
}

void mb__profile_end(mb_context *ctx)
{
    mb__engine_state *st = ctx->engine_state;
    struct mb__profile *p = st->profile;
    if (!p)
        return;
    double all = 0;
    for (uint32_t i = 0; i < p->count; i++)
        all += p->entries[i].seconds;
    if (p->count)
        qsort(p->entries, p->count, sizeof *p->entries, by_time);
    FILE *f = !p->count ? NULL : *p->path ? fopen(p->path, "a") : stderr;
    if (f) {
        fprintf(
            f,
            "%s: %.4f s in steps\n  share    seconds     runs   each us  what, and where it was recorded\n",
            st->backend->name, all);
        for (uint32_t i = 0; i < p->count; i++) {
            const entry *e = &p->entries[i];
            fprintf(f, "%6.1f %% %10.4f %8llu %9.1f  %s, %s\n", all > 0 ? 100 * e->seconds / all : 0,
                    e->seconds, (unsigned long long)e->runs, 1e6 * e->seconds / (double)e->runs, e->label,
                    e->site ? e->site : "?");
        }
    }
    bool written = !f || !ferror(f);
    if ((f && f != stderr && fclose(f) != 0) || !written || (p->count && !f))
        mb__log(ctx, "the profile could not be written to %s", *p->path ? p->path : "the standard error");
    mb__free(ctx, p->entries, p->capacity * sizeof *p->entries);
    mb__free(ctx, p->slots, p->slot_capacity * sizeof *p->slots);
    mb__free(ctx, p, sizeof *p);
    st->profile = NULL;
}
