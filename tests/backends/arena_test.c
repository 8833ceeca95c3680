/* SPDX-License-Identifier: MIT
 *
 * arena_test.c - where values lie in the arena, against a map of it that knows which of its pieces are taken:
 * random lifetimes and sizes. A gap that is lost, or not joined with its neighbours, costs memory and changes
 * no number. */
#include "backends/engine/state.h"
#include "support.h"

enum { UNIT = 64, VALUES = 60, STEPS = 2 * VALUES, ROOM = 4 * VALUES };

/* Steps that each touch one value: its first, or its last. */
typedef struct lives {
    mb__plan plan;
    mb__value values[VALUES];
    mb__step steps[STEPS];
} lives;

static void make_lives(lives *l, rng *r)
{
    int32_t alive[VALUES];
    int living = 0, born = 0;
    *l =
        (lives){.plan = {.values = l->values, .steps = l->steps, .value_count = VALUES, .step_count = STEPS}};
    int most = 2 + (int)rng_below(r, 12);
    for (int s = 0; s < STEPS; s++) {
        bool begins = born < VALUES && (!living || (living < most && rng_below(r, 2)));
        int at = begins ? living++ : (int)rng_below(r, living);
        if (begins)
            alive[at] = born++;
        l->steps[s] = (mb__step){.kind = MB_STEP_ZERO, .u.zero = alive[at]};
        if (!begins)
            alive[at] = alive[--living];
    }
    for (int i = 0; i < VALUES; i++)
        l->values[i] = (mb__value){.dtype = MB_FLOAT64,
                                   .storage = MB_IN_ARENA,
                                   .count = (1 + rng_below(r, 4)) * UNIT / 8 - rng_below(r, 3),
                                   .first = -1,
                                   .onto = -1};
}

static int units_of(const mb__value *v)
{
    return (int)((v->count * 8 + UNIT - 1) / UNIT);
}

/* The tightest run of free units below the top, the first of those; else what is free at the top, grown. */
static int best_fit(const bool *taken, int top, int size)
{
    int best = -1, best_size = ROOM, last = top;
    for (int i = 0, end; i < top; i = end + 1) {
        for (end = i; end < top && !taken[end];)
            end++;
        if (end - i >= size && end - i < best_size)
            best = i, best_size = end - i;
        if (end == top)
            last = i;
    }
    return best >= 0 ? best : last;
}

/* The number of units that are ever needed; a value that lies elsewhere is told. */
static int check_places(const lives *l, uint64_t seed)
{
    bool taken[ROOM] = {false}, lives_now[VALUES] = {false};
    int top = 0;
    for (int s = 0; s < STEPS; s++) {
        int32_t i = l->steps[s].u.zero;
        const mb__value *v = &l->values[i];
        int size = units_of(v), at = (int)(v->offset / UNIT), wanted = at;
        if (!lives_now[i])
            wanted = best_fit(taken, top, size);
        lives_now[i] = !lives_now[i];
        expect(at == wanted && v->offset % UNIT == 0, "seed %llu: value %d lies at %lld, not at %d",
               (unsigned long long)seed, (int)i, (long long)v->offset, wanted * UNIT);
        top = wanted + size > top ? wanted + size : top;
        for (int u = 0; u < size; u++) {
            expect(taken[wanted + u] != lives_now[i], "seed %llu: value %d lies on another",
                   (unsigned long long)seed, (int)i);
            taken[wanted + u] = lives_now[i];
        }
    }
    return top;
}

Test(arena, is_the_best_fit_among_what_is_free)
{
    mb_context *ctx = open_on(backend_names[0]);
    mb__engine_state *st = ctx->engine_state;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        static lives l;
        rng r = {seed};
        make_lives(&l, &r);
        mb__bump scratch = {.host = &st->host};
        cr_assert(mb__place_values(&l.plan, st->backend, MB_PASS_REUSE, &scratch) == MB_OK);
        int units = check_places(&l, seed);
        expect(l.plan.arena_bytes == (int64_t)units * UNIT, "seed %llu: an arena of %lld bytes, not %d",
               (unsigned long long)seed, (long long)l.plan.arena_bytes, units * UNIT);
        mb__bump_free(&scratch);
    }
    close_all();
}
