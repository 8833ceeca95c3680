/* SPDX-License-Identifier: MIT
 *
 * fuzz_test.c - random programs, with their derivatives, computed in many ways which must agree: the
 * reference backend, the cpu backend, each of its passes off, other numbers of threads, values asked for
 * early.
 *
 * FUZZ_SEED=n runs one program, a graph in every way, and prints it; FUZZ_COUNT=n runs so many, from
 * FUZZ_FROM on where that is set. A failure is shrunk before it is printed.
 *
 * float64: values are of size 1 and programs short, so rounding differences stay near 1e-14 relative; 1e-20
 * in NMSE is 1e-10. float32: 1e-9, as 3e-5 relative, where orders of summation differ. What lies further off
 * is a fault, unless the reference's own result moves as far when every value of the program is off by a
 * rounding: then the program is ill-conditioned, and no result of it is wrong. */
#include "agree.h"

typedef struct way {
    const char *backend, *disable;
    int threads;
    unsigned style;
    bool exact;  /* the same bits as the first way of this backend */
    bool sliced; /* in as many slices of the batch as there can be */
} way;

static way ways[40] = {
    {"cpu", "", 2, 0, false, false},
    {"cpu", "", 1, RUN_SCOPE, true, false},
    {"cpu", "", 3, RUN_WATCH, true, false},
    {"cpu", "", 2, RUN_EARLY, false, false},
    {"reference", "", 1, RUN_EARLY, false, false},
};
static int way_count;
enum { ROUNDINGS = 8 };  /* of another order of sums, against one at each value */
static char passes[256]; /* "simplify,merge,...", as the library itself lists them */

/* A way for each pass without it, and one without any of them. */
static void list_ways(void)
{
    static char names[256];
    if (way_count)
        return;
    mb_context *ctx = mb_open_with(&(mb_options){.backend = "cpu", .disable = "?"});
    const char *list = strstr(mb_message(ctx), "simplify");
    cr_assert(list && strlen(list) < sizeof passes, "no list of passes in: %s", mb_message(ctx));
    strcpy(passes, list);
    strcpy(names, list);
    mb_close(ctx);
    for (way_count = 5; ways[way_count - 1].backend && way_count < 38;) {
        char *name = strtok(way_count == 5 ? names : NULL, ",");
        ways[way_count++] =
            (way){"cpu", name ? name : passes, 2, name ? 0 : RUN_EARLY | RUN_SCOPE, false, false};
        if (!name)
            break;
    }
    cr_assert(way_count >= 5 + 6, "only %d ways", way_count);
}

static mb_context *open_way(const way *w)
{
    if (w->sliced)
        setenv("MB_ARENA_BYTES", "1", 1);
    mb_context *ctx = open_as(w->backend, w->disable, w->threads);
    unsetenv("MB_ARENA_BYTES");
    return ctx;
}

/* Whether float32 alone is to blame: the backend without its passes is as far off, and that is not far. What
 * a rule cancels, such as 1 - y^2 where y is a tanh near 1, no change of the program's values shows. */
static bool rounding_alone(const program *p, const way *w, int k, int i, const result *got, double off)
{
    if (p->dtype != MB_FLOAT32 || !(off < 1e-6) || !strcmp(w->backend, "reference"))
        return false;
    static result plain;
    mb_context *ctx = open_as(w->backend, passes, 1);
    bool same =
        program_run(ctx, p, (uint64_t)k + 1, RUN_SCOPE, &plain) && plain.n > i &&
        plain.count[i] == got->count[i] &&
        program_distance(got->v[i], plain.v[i], got->count[i], program_floor(p->dtype)) <= program_limit(p);
    close_failed(ctx);
    return same;
}

/* Empty, or what differs: results of two data seeds, the second a replay of the first's plan. */
static const char *run_in(mb_context *ctx, const program *p, const way *w, const result want[2],
                          result got[2])
{
    static char text[600];
    text[0] = 0;
    for (int k = 0; k < 2 && !text[0]; k++) {
        if (!program_run(ctx, p, (uint64_t)k + 1, w->style, &got[k])) {
            snprintf(text, sizeof text, "error: %s", mb_message(ctx));
            break;
        }
        if (!want)
            continue;
        if (got[k].n != want[k].n)
            snprintf(text, sizeof text, "%d results, not %d", got[k].n, want[k].n);
        for (int i = 0; i < got[k].n && !text[0]; i++) {
            int64_t n = want[k].count[i];
            double d = got[k].count[i] != n
                           ? (double)INFINITY
                           : program_distance(got[k].v[i], want[k].v[i], n, program_floor(p->dtype));
            bool same = d == 0 && same_bits(got[k].v[i], want[k].v[i], n);
            bool exact = w->exact || want[k].exact[i];
            if (exact ? same : d <= program_limit(p))
                continue;
            if (!exact && isfinite(d) &&
                d <= ROUNDINGS * ROUNDINGS * program_condition(p, (uint64_t)k + 1, i, &want[k]))
                continue;
            if (!exact && rounding_alone(p, w, k, i, &got[k], d))
                continue;
            int64_t e = program_worst(got[k].v[i], want[k].v[i], got[k].count[i] < n ? got[k].count[i] : n);
            snprintf(text, sizeof text, "run %d: result %d of %d: NMSE %g%s; [%lld] is %.9g, not %.9g", k, i,
                     got[k].n, d, exact ? ", wanted the same bits" : "", (long long)e, n ? got[k].v[i][e] : 0,
                     n ? want[k].v[i][e] : 0);
        }
    }
    return text;
}

static const char *run_way(const program *p, const way *w, const result want[2], result got[2])
{
    mb_context *ctx = open_way(w);
    const char *text = run_in(ctx, p, w, want, got);
    close_failed(ctx);
    return text;
}

static const way oracle = {"reference", "", 1, 0, false, false};

/* Whether this way still goes wrong on p. */
static bool fails(const program *p, const way *w)
{
    static result want[2], got[2];
    const way *base = w->exact ? &ways[0] : &oracle;
    if (*run_way(p, base, NULL, want))
        return false;
    return *run_way(p, w, want, got) != 0;
}

/* Makes leaves of instructions, drops outputs and the derivative, as long as it still fails. */
static void shrink(program *p, const way *w)
{
    program try;
    for (bool again = true; again;) {
        again = false;
        for (int i = p->count; i-- > 0;) {
            try = *p;
            instr *x = &try.code[i];
            if (x->kind == K_BUFFER)
                continue;
            *x = (instr){.kind = K_BUFFER, .dtype = x->dtype, .shape = x->shape, .target = x->shape};
            if (fails(&try, w))
                *p = try, again = true;
        }
        for (int i = p->output_count; i-- > 0;) {
            try = *p;
            try.outputs[i] = try.outputs[--try.output_count];
            if (fails(&try, w))
                *p = try, again = true;
        }
        for (int i = p->loss_count; i-- > 0 && p->loss_count > 1;) {
            try = *p;
            try.loss[i] = try.loss[--try.loss_count];
            if (fails(&try, w))
                *p = try, again = true;
        }
        for (int d = 0; d < (int)p->derivative; d++) {
            try = *p;
            try.derivative = (enum derivative)d;
            if (fails(&try, w)) {
                *p = try, again = true;
                break;
            }
        }
        try = *p;
        try.steps = 0;
        if (p->steps && fails(&try, w))
            *p = try, again = true;
    }
}

/* Drops what no output, loss or operand needs. Changes the leaves' values, so only where it still fails. */
static void drop_unused(program *p, const way *w)
{
    for (int i = p->count; i-- > 0;) {
        program try = *p;
        bool used = false;
        for (int k = 0; k < p->count; k++)
            for (int j = 0; j < p->code[k].nin; j++)
                used |= p->code[k].in[j] == i;
        for (int k = 0; k < p->output_count; k++)
            used |= p->outputs[k] == i;
        for (int k = 0; k < p->loss_count; k++)
            used |= p->loss[k] == i;
        if (used)
            continue;
        memmove(try.code + i, try.code + i + 1, (size_t)(try.count - i - 1) * sizeof *try.code);
        try.count--;
        for (int k = 0; k < try.count; k++)
            for (int j = 0; j < try.code[k].nin; j++)
                try.code[k].in[j] -= try.code[k].in[j] > i;
        for (int k = 0; k < try.output_count; k++)
            try.outputs[k] -= try.outputs[k] > i;
        for (int k = 0; k < try.loss_count; k++)
            try.loss[k] -= try.loss[k] > i;
        if (fails(&try, w))
            *p = try;
    }
}

static int one_program(uint64_t seed, mb_dtype dtype, bool print)
{
    static program p;
    static result want[2], first[2], got[2];
    program_make(&p, seed, dtype);
    if (print)
        program_print(&p, stderr);
    const char *wrong = run_way(&p, &oracle, NULL, want);
    if (!expect(!*wrong, "seed %llu: reference: %s", (unsigned long long)seed, wrong)) {
        program_print(&p, stderr);
        close_all();
        return 1;
    }
    int bad = 0;
    for (int w = 0; w < way_count; w++) {
        wrong = run_way(&p, &ways[w], ways[w].exact ? first : want, w ? got : first);
        if (!*wrong)
            continue;
        bad++;
        expect(false, "seed %llu %s: %s without \"%s\", %d threads, style %u: %s", (unsigned long long)seed,
               mb_dtype_name(dtype), ways[w].backend, ways[w].disable, ways[w].threads, ways[w].style, wrong);
        if (bad == 1) {
            program small = p;
            shrink(&small, &ways[w]);
            drop_unused(&small, &ways[w]);
            shrink(&small, &ways[w]);
            program_print(&small, stderr);
            static result a[2], b[2];
            run_way(&small, ways[w].exact ? &ways[0] : &oracle, NULL, a);
            fprintf(stderr, "  %s\n", run_way(&small, &ways[w], a, b));
        }
        if (w == 0)
            break; /* every other way will fail, too */
    }
    close_all();
    return bad;
}

static void many(uint64_t from, int count, mb_dtype dtype)
{
    list_ways();
    const char *only = getenv("FUZZ_SEED"), *number = getenv("FUZZ_COUNT");
    if (only) {
        one_program(strtoull(only, NULL, 0), dtype, true);
        return;
    }
    if (number)
        count = atoi(number);
    int wrong = 0;
    for (int i = 0; i < count && wrong < 5; i++)
        wrong += one_program(from + (uint64_t)i, dtype, false) > 0;
}

/* ---- graphs ---- */

/* Contexts that many graphs are run in, one after the other; each graph in scopes of its own. */
typedef struct bench {
    mb_context *ctx[3]; /* the oracle; the backend; the backend in another way */
    way ways[3];
} bench;

static void bench_open(bench *b, int number)
{
    const way *other = &ways[5 + number % (way_count - 5)];
    b->ways[0] = oracle;
    b->ways[1] = (way){"cpu", "", 1, RUN_SCOPE, false, false};
    b->ways[2] = (way){"cpu", other->disable, 2, RUN_SCOPE | (number % 2 ? RUN_EARLY : RUN_WATCH),
                       false, number % 3 == 2};
    for (int i = 0; i < 3; i++) {
        b->ways[i].style |= RUN_SCOPE;
        b->ctx[i] = open_way(&b->ways[i]);
    }
}

static void bench_close(void)
{
    close_all();
}

static void report(const program *p, const way *w, const char *wrong)
{
    expect(false, "graph %llu %s: %s without \"%s\", style %u: %s", (unsigned long long)p->seed,
           mb_dtype_name(p->dtype), w->backend, w->disable, w->style, wrong);
    program small = *p;
    if (fails(&small, w)) {
        shrink(&small, w);
        drop_unused(&small, w);
        shrink(&small, w);
    }
    program_print(&small, stderr);
}

typedef void maker(program *p, uint64_t seed, mb_dtype dtype);

/* False where a result differed: the contexts are used up then. */
static bool one_graph(const bench *b, maker *make, uint64_t seed, mb_dtype dtype, bool print)
{
    static program p;
    static result want[2], got[2];
    make(&p, seed, dtype);
    if (print)
        program_print(&p, stderr);
    for (int i = 0; i < 3; i++) {
        if (i == 2 && testing("vulkan") && seed % 4) /* compiling takes most of the time there */
            continue;
        const char *wrong = run_in(b->ctx[i], &p, &b->ways[i], i ? want : NULL, i ? got : want);
        if (!*wrong)
            continue;
        char text[600];
        strcpy(text, wrong);
        report(&p, &b->ways[i], text);
        for (int c = 0; c < 3; c++)
            mb_clear_error(b->ctx[c]);
        return false;
    }
    return true;
}

static void graphs(maker *make, uint64_t from, int count, mb_dtype dtype)
{
    int each = testing("vulkan") ? 20 : 100, wrong = 0, number = 0;
    const char *only = getenv("FUZZ_SEED"), *many = getenv("FUZZ_COUNT"), *first = getenv("FUZZ_FROM");
    list_ways();
    count = only ? 2 * (way_count - 5) : many ? atoi(many) : count; /* that one in every way */
    each = only ? 1 : each;
    from = only ? strtoull(only, NULL, 0) : first ? strtoull(first, NULL, 0) : from;
    bench b;
    bench_open(&b, 0);
    for (int i = 0; i < count && wrong < 5; i++) {
        bool good = one_graph(&b, make, only ? from : from + (uint64_t)i, dtype, only && i == 0);
        wrong += !good;
        if (good && (i + 1) % each)
            continue;
        bench_close();
        bench_open(&b, ++number);
    }
    bench_close();
}

static void in_every_way(uint64_t seed, mb_dtype dtype)
{
    list_ways();
    for (int number = 0; number < 2 * (way_count - 5); number++) {
        bench b;
        bench_open(&b, number);
        bool good = one_graph(&b, program_make_graph, seed, dtype, false);
        bench_close();
        if (!good)
            break;
    }
}

/* Gradients of a maximum that was read before, whose operand comes out otherwise the second time: of none of
 * its entries (2699989, 7885570). Sums of 13212 terms that cancel (177954). */
Test(fuzz, graphs_that_failed_once, .timeout = 300)
{
    in_every_way(2699989, MB_FLOAT64);
    in_every_way(7885570, MB_FLOAT32);
    if (!testing("vulkan"))
        in_every_way(177954, MB_FLOAT64);
}

/* Each module is validated here, which takes most of the time; below, only what is computed. */
Test(fuzz, float64_graphs, .timeout = 36000)
{
    setenv("MB_VULKAN_VALIDATE", "1", 0);
    graphs(program_make_graph, 1, testing("vulkan") ? 40 : 3000, MB_FLOAT64);
}
Test(fuzz, float32_graphs, .timeout = 36000)
{
    graphs(program_make_graph, 1, testing("vulkan") ? 200 : 3000, MB_FLOAT32);
}
Test(fuzz, float16_graphs, .timeout = 36000)
{
    graphs(program_make_graph, 1, testing("vulkan") ? 50 : 1500, MB_FLOAT16);
}
Test(fuzz, bfloat16_graphs, .timeout = 36000)
{
    graphs(program_make_graph, 1, testing("vulkan") ? 50 : 1500, MB_BFLOAT16);
}

/* Under MB_DEBUG, which finds nothing wrong where nothing is. Clamped indices are an error there. */
static void make_debugged(program *p, uint64_t seed, mb_dtype dtype)
{
    bool clamps = true;
    for (uint64_t way = 0; clamps; way++) {
        program_make_graph(p, seed + (way << 40), dtype);
        clamps = false;
        for (int i = 0; i < p->count; i++)
            clamps |= p->code[i].kind >= K_TAKE && p->code[i].kind <= K_TAKE_ALONG;
    }
}

Test(fuzz, graphs_under_debug, .timeout = 36000)
{
    static const mb_dtype dtypes[] = {MB_FLOAT64, MB_FLOAT32, MB_FLOAT16, MB_BFLOAT16};
    setenv("MB_DEBUG", "1", 1);
    for (int d = 0; d < 4; d++)
        graphs(make_debugged, 1, testing("vulkan") ? 5 : 100, dtypes[d]);
    unsetenv("MB_DEBUG");
}

/* Every op with sizes of 0. */
Test(fuzz, empty_programs, .timeout = 36000)
{
    graphs(program_make_empty, 1, testing("vulkan") ? 100 : 1000, MB_FLOAT64);
}

/* ---- programs ---- */

Test(fuzz, float64_programs_a, .timeout = 300)
{
    many(1, 200, MB_FLOAT64);
}
Test(fuzz, float64_programs_b, .timeout = 300)
{
    many(10001, 200, MB_FLOAT64);
}
Test(fuzz, float32_programs, .timeout = 300)
{
    many(20001, 200, MB_FLOAT32);
}

/* Programs that once came out wrong: literals of another dtype (24), a sum over nothing inside a kernel
 * (20191), a copied operand overwritten in place (10441, 22230), a value computed twice to different bits
 * (21080); and one that is only ill-conditioned, the second derivative of sin(expm1(x)) at x = 2.3 (20942).
 */
Test(fuzz, programs_that_failed_once, .timeout = 300)
{
    static const uint64_t seeds[] = {24, 10441, 20191, 20942, 21080, 22230};
    list_ways();
    for (size_t i = 0; i < sizeof seeds / sizeof *seeds; i++)
        one_program(seeds[i], seeds[i] < 20001 ? MB_FLOAT64 : MB_FLOAT32, false);
}
