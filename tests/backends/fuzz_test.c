/* SPDX-License-Identifier: MIT
 *
 * fuzz_test.c - random programs, with their derivatives, computed in many ways which must agree: the
 * reference backend, the cpu backend, each of its passes off, other numbers of threads, values asked for
 * early.
 *
 * FUZZ_SEED=n runs one program and prints it; FUZZ_COUNT=n runs so many. A failure is shrunk before it is
 * printed.
 *
 * float64: values are of size 1 and programs short, so rounding differences stay near 1e-14 relative; 1e-20
 * in NMSE is 1e-10. float32: 1e-10, as 1e-5 relative, where orders of summation differ. */
#include "program.h"

typedef struct way {
    const char *backend, *disable;
    int threads;
    unsigned style;
    bool exact; /* the same bits as the first way of this backend */
} way;

static way ways[40] = {
    {"cpu", "", 2, 0, false},         {"cpu", "", 1, RUN_SCOPE, true},        {"cpu", "", 3, RUN_WATCH, true},
    {"cpu", "", 2, RUN_EARLY, false}, {"reference", "", 1, RUN_EARLY, false},
};
static int way_count;
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
        ways[way_count++] = (way){"cpu", name ? name : passes, 2, name ? 0 : RUN_EARLY | RUN_SCOPE, false};
        if (!name)
            break;
    }
    cr_assert(way_count >= 5 + 6, "only %d ways", way_count);
}

static double limit_of(const program *p)
{
    return p->dtype == MB_FLOAT64 ? 1e-20 : 1e-9;
}

/* NMSE with a floor under the size, for values that cancel to nothing. */
static double distance(const double *a, const double *b, int64_t n, double floor_size)
{
    double error = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(a[i]) || !isfinite(b[i])) {
            if (isnan(b[i]) ? !isnan(a[i]) : a[i] != b[i])
                return (double)INFINITY;
            continue;
        }
        error += (a[i] - b[i]) * (a[i] - b[i]);
        size += b[i] * b[i];
    }
    return error == 0 ? 0 : error / (size + floor_size * (double)n);
}

/* Empty, or what differs: results of two data seeds, the second a replay of the first's plan. */
static const char *run_way(const program *p, const way *w, const result want[2], result got[2])
{
    static char text[600];
    mb_context *ctx = open_as(w->backend, w->disable, w->threads);
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
            double d = got[k].count[i] != want[k].count[i]
                           ? (double)INFINITY
                           : distance(got[k].v[i], want[k].v[i], got[k].count[i],
                                      p->dtype == MB_FLOAT64 ? 1e-6 : 1e-3);
            bool same = d == 0 && same_bits(got[k].v[i], want[k].v[i], got[k].count[i]);
            if (w->exact ? !same : !(d <= limit_of(p))) {
                int64_t worst = 0;
                double most = -1;
                for (int64_t e = 0; e < got[k].count[i] && e < want[k].count[i]; e++) {
                    double off = fabs(got[k].v[i][e] - want[k].v[i][e]);
                    if (!(off <= most))
                        worst = e, most = off;
                }
                snprintf(text, sizeof text, "run %d: result %d of %d: NMSE %g%s; [%lld] is %.9g, not %.9g", k,
                         i, got[k].n, d, w->exact ? ", wanted the same bits" : "", (long long)worst,
                         got[k].v[i][worst], want[k].v[i][worst]);
            }
        }
    }
    close_failed(ctx);
    return text;
}

static const way oracle = {"reference", "", 1, 0, false};

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
 * (21080). */
Test(fuzz, programs_that_failed_once, .timeout = 300)
{
    static const uint64_t seeds[] = {24, 10441, 20191, 21080, 22230};
    list_ways();
    for (size_t i = 0; i < sizeof seeds / sizeof *seeds; i++)
        one_program(seeds[i], seeds[i] < 20001 ? MB_FLOAT64 : MB_FLOAT32, false);
}
