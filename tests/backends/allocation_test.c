/* SPDX-License-Identifier: MIT
 *
 * allocation_test.c - the n-th allocation fails, or it and all later ones, for every n, while random graphs
 * are recorded, differentiated, planned and run. Each must end in MB_NO_MEMORY or in the right bits;
 * afterwards the same context computes the right bits, and at its end holds nothing. Linked with
 * bump_apart.c.
 *
 * FUZZ_COUNT=n takes so many graphs and every allocation of theirs, or one in FUZZ_EVERY, else one in 23;
 * from FUZZ_FROM on where that is set; FUZZ_SEED=n one of them.
 *
 * Most allocations of a graph are made for the same reason as those of graphs before it. *_by_callers fails
 * only those whose callers, FRAMES of them, have failed fewer than FAILED times: all that is met in a hundred
 * times as many graphs in the same time. */
#include <execinfo.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "program.h"

static volatile unsigned long long now_seed, now_n;

/* Which allocation it was that led to a crash. */
static void crashed(int signal)
{
    char text[96];
    int n = snprintf(text, sizeof text, "graph %llu, allocation %llu: signal %d\n", now_seed, now_n, signal);
    if (write(2, text, (size_t)n) == n)
        _exit(3);
    _exit(4);
}

enum { FRAMES = 24, FAILED = 2, MOST = 100000, TABLE = 1 << 18 };

typedef struct trial {
    mb_context *ctx;
    counter c;
    mb_allocator counting, allocator;
    uint64_t *callers; /* NULL, or where a hash of each allocation's callers is noted */
    int64_t noted;
} trial;

static void note_callers(trial *t)
{
    void *frames[FRAMES + 3];
    if (!t->callers || t->noted == MOST)
        return;
    int n = backtrace(frames, FRAMES + 3);
    uint64_t hash = 14695981039346656037u;
    for (int i = 2; i < n; i++)
        hash = (hash ^ (uint64_t)(uintptr_t)frames[i]) * 1099511628211u;
    t->callers[t->noted++] = hash ? hash : 1;
}

static void *noted_alloc(void *user, size_t size)
{
    trial *t = user;
    note_callers(t);
    return t->counting.alloc(t->counting.user, size);
}

static void *noted_realloc(void *user, void *p, size_t old, size_t size)
{
    trial *t = user;
    note_callers(t);
    return t->counting.realloc(t->counting.user, p, old, size);
}

static void noted_free(void *user, void *p, size_t size)
{
    trial *t = user;
    t->counting.free(t->counting.user, p, size);
}

/* Whether these callers have failed often enough; otherwise they are about to fail once more. */
static bool failed_before(uint64_t callers)
{
    static uint64_t table[TABLE];
    static unsigned char times[TABLE];
    uint64_t at = (callers ^ callers >> 32) % TABLE;
    while (table[at] && table[at] != callers)
        at = (at + 1) % TABLE;
    if (times[at] >= FAILED)
        return true;
    table[at] = callers;
    times[at]++;
    return false;
}

static void begin(trial *t, const char *backend)
{
    t->c = (counter){0};
    t->counting = counting_allocator(&t->c);
    t->allocator = (mb_allocator){noted_alloc, noted_realloc, noted_free, t};
    /* No plan is kept but the last: each run makes its own. */
    t->ctx = mb_open_with(&(mb_options){.size = sizeof(mb_options),
                                        .backend = backend,
                                        .disable = "cache",
                                        .threads = 1,
                                        .allocator = &t->allocator});
    cr_assert(t->ctx && mb_error(t->ctx) == MB_OK, "%s", mb_message(t->ctx));
}

static void end(trial *t)
{
    mb_close(t->ctx);
    expect(t->c.blocks == 0 && t->c.bytes == 0, "graph %llu, allocation %llu: %lld bytes in %lld blocks left",
           now_seed, now_n, (long long)t->c.bytes, (long long)t->c.blocks);
}

static bool same(const result *a, const result *b)
{
    bool good = a->n == b->n;
    for (int i = 0; good && i < a->n; i++)
        good = a->count[i] == b->count[i] && same_bits(a->v[i], b->v[i], a->count[i]);
    return good;
}

/* Another plan, so that the next run does not find its own. */
static void forget_plan(trial *t)
{
    mb_scope scope = mb_scope_begin(t->ctx);
    mb_item(mb_add(mb_scalar(t->ctx, MB_FLOAT32, 1), 1.0));
    mb_scope_end(scope);
}

/* The ways in which it is run: what is read early is computed apart, which rounds otherwise. */
enum { PLAIN, EARLY, WATCHED, STYLES };
static const unsigned styles[STYLES] = {RUN_SCOPE | RUN_FAILING, RUN_SCOPE | RUN_FAILING | RUN_EARLY,
                                        RUN_SCOPE | RUN_FAILING | RUN_WATCH};

static int style_of(int64_t n)
{
    return n % 2 ? EARLY : WATCHED;
}

/* One run whose n-th allocation fails, and one after it. want: of each style. False: there was no n-th. */
static bool attempt(trial *t, const program *p, uint64_t n, bool on, const result *want)
{
    static result got;
    const int style = style_of((int64_t)n);
    forget_plan(t);
    uint64_t at = t->c.calls + n;
    t->c.fail_at = at;
    t->c.fail_on = on;
    now_n = n;
    bool ok = program_run(t->ctx, p, 1, styles[style], &got);
    bool met = t->c.calls >= at;
    t->c.fail_at = 0; /* there is memory again */
    if (ok) {
        expect(same(&got, &want[style]), "graph %llu, allocation %llu: no error, and other results", now_seed,
               now_n);
        return met;
    }
    expect(mb_error(t->ctx) == MB_NO_MEMORY, "graph %llu, allocation %llu: %s: %s", now_seed, now_n,
           mb_status_name(mb_error(t->ctx)), mb_message(t->ctx));
    mb_clear_error(t->ctx);
    ok = program_run(t->ctx, p, 1, styles[PLAIN], &got);
    expect(ok && same(&got, &want[PLAIN]), "graph %llu, allocation %llu: after it: %s", now_seed, now_n,
           ok ? "other results" : mb_message(t->ctx));
    mb_clear_error(t->ctx);
    return met;
}

/* A graph, and what it computes in each style while there is memory. */
static bool begin_graph(trial *t, program *p, uint64_t seed, const char *backend, mb_dtype dtype,
                        result *want)
{
    now_seed = seed;
    now_n = 0;
    program_make_graph(p, seed, dtype);
    begin(t, backend);
    bool ok = true;
    for (int i = 0; i < STYLES && ok; i++)
        ok = program_run(t->ctx, p, 1, styles[i], &want[i]);
    return expect(ok, "graph %llu: %s", now_seed, mb_message(t->ctx));
}

/* fresh: a context of its own for each allocation, so that nothing is there already. step: of so many
 * allocations one, of each graph others. */
static uint64_t one_graph(uint64_t seed, const char *backend, bool fresh, mb_dtype dtype, uint64_t step)
{
    static program p;
    static result want[STYLES];
    trial t = {0};
    bool ok = begin_graph(&t, &p, seed, backend, dtype, want);
    uint64_t n = 1 + seed % step;
    for (; ok && n < MOST; n += step) {
        bool met = false;
        for (int on = 0; on < 2; on++) {
            if (fresh) {
                end(&t);
                begin(&t, backend);
            }
            met |= attempt(&t, &p, n, on, want);
        }
        if (!met)
            break;
    }
    end(&t);
    close_all(); /* the values */
    return n;
}

/* As one_graph in one context, of the allocations whose callers have not failed often. Returns how many. */
static int64_t new_in_graph(uint64_t seed, const char *backend, mb_dtype dtype)
{
    static program p;
    static result want[STYLES], got;
    static uint64_t callers[STYLES][MOST];
    int64_t count[STYLES] = {0}, failed = 0;
    trial t = {0};
    bool ok = begin_graph(&t, &p, seed, backend, dtype, want);
    for (int i = EARLY; i < STYLES && ok; i++) {
        forget_plan(&t);
        t.callers = callers[i];
        t.noted = 0;
        ok = program_run(t.ctx, &p, 1, styles[i], &got);
        count[i] = t.noted;
        t.callers = NULL;
    }
    expect(ok, "graph %llu: %s", now_seed, mb_message(t.ctx));
    for (int64_t n = 1; ok && (n <= count[EARLY] || n <= count[WATCHED]); n++) {
        const int style = style_of(n);
        if (n > count[style] || failed_before(callers[style][n - 1]))
            continue;
        failed++;
        for (int on = 0; on < 2; on++) {
            bool met = attempt(&t, &p, (uint64_t)n, on, want);
            /* Pipelines stay for a while, so that fewer allocations can be left than there were. */
            expect(met || testing("vulkan"), "graph %llu: no allocation %lld", now_seed, (long long)n);
        }
    }
    end(&t);
    close_all(); /* the values */
    return failed;
}

static void new_in_many(const char *backend, int count)
{
    const char *number = getenv("FUZZ_COUNT"), *first = getenv("FUZZ_FROM");
    uint64_t from = first ? strtoull(first, NULL, 0) : 1;
    count = number ? atoi(number) : count;
    signal(SIGSEGV, crashed);
    int64_t failed = 0;
    for (int i = 0; i < count; i++)
        failed += new_in_graph(from + (uint64_t)i, backend, i % 2 ? MB_FLOAT32 : MB_FLOAT64);
    if (getenv("FUZZ_COUNT"))
        fprintf(stderr, "%lld allocations failed in %d graphs\n", (long long)failed, count);
    expect(failed > 2 * count, "only %lld allocations in %d graphs", (long long)failed, count);
}

static void many(const char *backend, bool fresh, int count)
{
    const char *only = getenv("FUZZ_SEED"), *number = getenv("FUZZ_COUNT"), *first = getenv("FUZZ_FROM"),
               *every = getenv("FUZZ_EVERY");
    uint64_t from = only ? strtoull(only, NULL, 0) : first ? strtoull(first, NULL, 0) : 1;
    count = only ? 1 : number ? atoi(number) : count;
    uint64_t step = every ? strtoull(every, NULL, 0) : only || number ? 1 : 23;
    signal(SIGSEGV, crashed);
    uint64_t failed = 0;
    for (int i = 0; i < count; i++)
        failed += one_graph(from + (uint64_t)i, backend, fresh, i % 2 ? MB_FLOAT32 : MB_FLOAT64, step);
    expect(only || every || failed > 50 * (uint64_t)count, "only %llu allocations in %d graphs",
           (unsigned long long)failed, count);
}

Test(allocation, graphs_in_new_contexts, .timeout = 36000)
{
    if (!testing("vulkan")) /* a device takes its time to open */
        many(backend_names[1], true, 8);
}
Test(allocation, graphs_in_one_context, .timeout = 36000)
{
    many(backend_names[1], false, testing("vulkan") ? 6 : 12);
}
Test(allocation, graphs_on_reference, .timeout = 36000)
{
    if (!testing("vulkan"))
        many("reference", false, 6);
}
Test(allocation, graphs_by_callers, .timeout = 36000)
{
    new_in_many(backend_names[1], testing("vulkan") ? 6 : 400);
}
/* Plans of as many slices of the batch as there can be (mb_options.arena_bytes). */
Test(allocation, graphs_in_slices, .timeout = 36000)
{
    setenv("MB_ARENA_BYTES", "1", 1);
    new_in_many(backend_names[1], testing("vulkan") ? 4 : 200);
}
