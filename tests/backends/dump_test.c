/* SPDX-License-Identifier: MIT
 *
 * dump_test.c - MB_DUMP: what the stages of a small nested loss say of ops, shapes, lines and memory, where
 * they are written, and what is refused. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backends/cpu/code.h"
#include "support.h"

static char folder[] = "/tmp/moebius-dump-XXXXXX";

static void dump_to_folder(const char *stages)
{
    memcpy(folder + sizeof folder - 7, "XXXXXX", 6);
    cr_assert(mkdtemp(folder) != NULL);
    setenv("MB_DUMP", stages, 1);
    setenv("MB_DUMP_TO", folder, 1);
}

static void remove_folder(void)
{
    char command[100];
    snprintf(command, sizeof command, "rm -r %s", folder);
    expect(system(command) == 0, "%s", command);
}

/* The text of a file in the folder, in one buffer; "" where there is none. */
static const char *text_of(const char *name)
{
    static char text[1 << 16], path[100];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "r");
    expect(f != NULL, "%s is missing", path);
    text[f ? fread(text, 1, sizeof text - 1, f) : 0] = 0;
    if (f)
        fclose(f);
    return text;
}

static void has(const char *text, const char *wanted)
{
    expect(strstr(text, wanted) != NULL, "\"%s\" is missing in:\n%.1500s", wanted, text);
}

/* A line that has all of these, in this order. */
static void has_line(const char *text, const char *const *words, int count)
{
    for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        const char *end = line + strcspn(line, "\n"), *at = line;
        int found = 0;
        while (found < count && (at = strstr(at, words[found])) && at < end)
            found++;
        if (found == count)
            return;
    }
    expect(false, "no line with %s ... %s in:\n%.1500s", words[0], words[count - 1], text);
}
#define LINE(text, ...)                                                                                      \
    has_line(text, (const char *const[]){__VA_ARGS__},                                                       \
             (int)(sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *)))

static int count_of(const char *text, const char *wanted)
{
    int n = 0;
    for (; (text = strstr(text, wanted)); text++)
        n++;
    return n;
}

/* ---- a nested loss, and the lines that must be named ---- */

enum { FIRST = __LINE__ }; /* the lines below count from here */
static double nested(mb_context *ctx)
{
    mb_tensor x = mb_from(ctx, MB_FLOAT32, MB_SHAPE(3, 2), ((float[]){1, 2, 3, 4, 5, 6})); /* 3 */
    mb_tensor w0 = mb_from(ctx, MB_FLOAT32, MB_SHAPE(2, 1), ((float[]){0.5f, -0.25f}));
    mb_tensor rate = mb_scalar(ctx, MB_FLOAT32, 0.01);
    mb_tensor d0, d1;
    mb_grad(mb_sum(mb_tanh(mb_matmul(x, w0)), MB_ALL), &w0, 1, &d0); /* 7 */
    mb_tensor w1 = mb_sub(w0, mb_mul(rate, d0));
    mb_grad(mb_sum(mb_tanh(mb_matmul(x, w1)), MB_ALL), &w0, 1, &d1); /* 9 */
    return mb_item(mb_sum(d1, MB_ALL));
}

static const char *line(int n)
{
    static char text[4][40];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(text[turn], sizeof text[0], "dump_test.c:%d\n", FIRST + n);
    return text[turn];
}

/* By hand: of s(w1) = sum tanh(x w1) at w1 = w0 - rate * (sum over rows of (1 - tanh^2) x). */
static double nested_by_hand(void)
{
    const double x[3][2] = {{1, 2}, {3, 4}, {5, 6}}, w0[2] = {0.5, -0.25}, rate = 0.01f;
    double w1[2] = {w0[0], w0[1]}, inner[2][2] = {{0}}, outer[2] = {0}, sum = 0;
    for (int i = 0; i < 3; i++) {
        double t = tanh(x[i][0] * w0[0] + x[i][1] * w0[1]), s = 1 - t * t;
        for (int j = 0; j < 2; j++) {
            w1[j] -= rate * s * x[i][j];
            for (int k = 0; k < 2; k++)
                inner[j][k] += -2 * t * s * x[i][j] * x[i][k];
        }
    }
    for (int i = 0; i < 3; i++) {
        double t = tanh(x[i][0] * w1[0] + x[i][1] * w1[1]);
        for (int j = 0; j < 2; j++)
            outer[j] += (1 - t * t) * x[i][j];
    }
    for (int k = 0; k < 2; k++)
        for (int j = 0; j < 2; j++)
            sum += outer[j] * ((j == k) - rate * inner[j][k]);
    return sum;
}

/* ---- what the arena's table claims ---- */

typedef struct span {
    int64_t from, to;
    int first, last;
    bool moved_in;
} span;

/* Values of the arena; returns how many. */
static int spans_of(const char *text, span *out)
{
    int n = 0;
    for (const char *at = text; *at; at += strcspn(at, "\n"), at += *at == '\n') {
        char name[20], dtype[20], row[300];
        long long elements, bytes, offset;
        int first, last;
        snprintf(row, sizeof row, "%.*s", (int)strcspn(at, "\n"), at);
        int got = sscanf(row, "%19s %lld %19s %lld %lld %d to %d", name, &elements, dtype, &bytes, &offset,
                         &first, &last);
        if (got >= 6 && name[0] == 'v')
            out[n++] = (span){offset, offset + bytes, first, got == 7 ? last : first,
                              strstr(row, "in place of") != NULL};
    }
    return n;
}

static void check_arena(const char *text, uint64_t bytes)
{
    span spans[64];
    int n = spans_of(text, spans);
    char total[40];
    snprintf(total, sizeof total, "arena: %llu bytes\n", (unsigned long long)bytes);
    has(text, total);
    expect(n >= 3, "%d values in:\n%s", n, text);
    for (int i = 0; i < n; i++) {
        expect(spans[i].to <= (int64_t)bytes, "value %d ends at %lld", i, (long long)spans[i].to);
        for (int j = 0; j < n; j++) {
            bool meet = i != j && spans[i].from < spans[j].to && spans[j].from < spans[i].to &&
                        spans[i].first <= spans[j].last && spans[j].first <= spans[i].last;
            /* One that is written in place of another begins in the step that ends the other. */
            bool handed = (spans[i].moved_in && spans[i].first == spans[j].last) ||
                          (spans[j].moved_in && spans[j].first == spans[i].last);
            expect(!meet || handed, "values %d and %d share memory in:\n%s", i, j, text);
        }
    }
}

static void check_texts(mb_context *ctx, bool fuses)
{
    mb_stats s = mb_get_stats(ctx);
    const char *t = text_of("plan-0001-tape.txt");
    LINE(t, "buffer", "[3,2]", "float32", "input 0", "24 B", line(3));
    LINE(t, "scalar", "[]", "bound 0", line(5));
    LINE(t, "contract", "[3,1]", "float32", "->", line(7));
    LINE(t, "tanh", "[3,1]", "12 B", line(7));
    LINE(t, "sub", "[2,1]", "8 B", line(8));
    LINE(t, "tanh", "[3,1]", line(9));
    LINE(t, "sum", "[1,1]", "axes 0,1", line(10));
    expect(count_of(t, "\n") == (int)s.last_nodes + 2, "%d lines, %d nodes", count_of(t, "\n"),
           (int)s.last_nodes);
    expect(count_of(t, "output 0") == 1, "outputs in:\n%s", t);

    t = text_of("plan-0001-graph.txt");
    LINE(t, "scalar", "none", line(5));
    LINE(t, "tanh", "[3,1]", "12 B", line(9));
    LINE(t, "output 0", line(10));
    expect(count_of(t, "\n") <= (int)s.last_nodes + 3, "%d lines, %d nodes", count_of(t, "\n"),
           (int)s.last_nodes);

    t = text_of("plan-0001-groups.txt");
    has(t, "a step of its own");
    has(t, "over [3]");
    LINE(t, "contract", "stored", line(7));
    LINE(t, "tanh", "[3,1]", line(7));

    t = text_of("plan-0001-steps.txt");
    has(t, fuses ? "product 3x1x2" : "product ");
    LINE(t, "in0 in1", line(7)); /* x w0 */
    LINE(t, "out0", line(10));
    expect(count_of(t, "\n") == (int)s.last_steps + 2, "%d lines, %d steps", count_of(t, "\n"),
           (int)s.last_steps);

    check_arena(text_of("plan-0001-arena.txt"), s.last_arena_bytes);

    t = text_of("plan-0001-kernels.txt");
    LINE(t, "load", "float32", "each");
    LINE(t, "tanh", "float32", "each", line(7));
    LINE(t, "scalar", "bound 0", "once", line(5));
    has(t, "store");
    if (fuses) {
        has(t, "\nkernel 1, of step ");
        has(t, testing("vulkan") ? "f32_tanh(" : "= tanh r");
    }
}

/* Every file of DOT: braces and quotes are closed, and graphviz, where it is, has no complaint. */
static void check_dots(const char *const *stages, int count)
{
    bool graphviz = system("dot -V >/dev/null 2>&1") == 0;
    for (int i = 0; i < count; i++) {
        char name[40], command[200];
        snprintf(name, sizeof name, "plan-0001-%s.dot", stages[i]);
        const char *t = text_of(name);
        int depth = 0, quotes = 0;
        for (const char *c = t; *c; c++) {
            if (*c == '\\' && c[1])
                c++;
            else if (*c == '"')
                quotes++;
            else if (quotes % 2 == 0)
                depth += *c == '{' ? 1 : *c == '}' ? -1 : 0;
        }
        expect(!strncmp(t, "digraph \"", 9) && depth == 0 && quotes % 2 == 0, "%s:\n%s", name, t);
        snprintf(command, sizeof command, "dot -Tsvg %s/%s 2>&1 >/dev/null | grep . && exit 1; exit 0",
                 folder, name);
        expect(!graphviz || system(command) == 0, "graphviz: %s", name);
    }
}

static void check_all(const char *backend, bool fuses)
{
    static const char *const stages[] = {"tape", "graph", "groups", "steps", "arena", "kernels"};
    dump_to_folder("tape,graph,groups,steps,arena,kernels");
    mb_context *ctx = open_on(backend);
    double got = nested(ctx), want = nested_by_hand();
    expect(near(got, want, 1e-5, 0), "%.9g, by hand %.9g", got, want);
    check_texts(ctx, fuses);
    check_dots(stages, 6);
    /* A plan that is only found again is not dumped again. */
    nested(ctx);
    expect(mb_get_stats(ctx).plans == 1, "%d plans", (int)mb_get_stats(ctx).plans);
    close_all();
    remove_folder();
}

Test(dump, stages_on_reference)
{
    check_all("reference", false);
}

Test(dump, stages_on_cpu)
{
    check_all("cpu", true);
}

#ifdef MB_HAVE_VULKAN
Test(dump, spirv_of_kernels_is_valid, .timeout = 60)
{
    dump_to_folder("kernels");
    mb_context *ctx = open_on("vulkan");
    nested(ctx);
    has(text_of("plan-0001-kernels.txt"), "store_f32(");
    char command[200];
    snprintf(command, sizeof command,
             "for f in %s/plan-0001-kernel-*.spv; do spirv-val --target-env vulkan1.1 $f || exit 1; done",
             folder);
    expect(system(command) == 0, "%s", command);
    close_all();
    remove_folder();
}
#endif

/* ---- where it goes, and what is refused ---- */

Test(dump, to_the_standard_error_by_default)
{
    setenv("MB_DUMP", "graph,steps", 1);
    char path[] = "/tmp/moebius-dump-XXXXXX", text[1 << 14];
    int file = mkstemp(path), kept = dup(2);
    mb_context *ctx = open_on("cpu");
    fflush(stderr);
    dup2(file, 2);
    nested(ctx);
    fflush(stderr);
    dup2(kept, 2);
    ssize_t n = pread(file, text, sizeof text - 1, 0);
    text[n < 0 ? 0 : n] = 0;
    has(text, "plan 1 on ");
    has(text, ", graph:\n");
    has(text, ", steps:\n");
    expect(!strstr(text, ", arena:") && !strstr(text, "digraph"), "%s", text);
    close(file);
    unlink(path);
    close_all();
}

static void refused(mb_status status, const char *words, const char *more)
{
    mb_context *ctx = mb_open("reference");
    expect(mb_error(ctx) == status, "%s: %s", mb_status_name(mb_error(ctx)), mb_message(ctx));
    has(mb_message(ctx), words);
    has(mb_message(ctx), more);
    expect(mb_close(ctx) == status, "close");
}

Test(dump, nonsense_is_refused)
{
    setenv("MB_DUMP", "graph,grpah", 1);
    refused(MB_INVALID, "\"grpah\"", "tape,graph,groups,steps,arena,kernels");
    setenv("MB_DUMP", "1", 1);
    refused(MB_INVALID, "\"1\"", "tape,graph,groups,steps,arena,kernels");
    setenv("MB_DUMP", "graph", 1);
    setenv("MB_DUMP_TO", "/tmp/moebius-no/such/folder", 1);
    refused(MB_IO, "\"/tmp/moebius-no/such/folder\"", "No such file");
    setenv("MB_DUMP_TO", "/dev/null", 1);
    refused(MB_IO, "\"/dev/null\"", "Not a directory");
    setenv("MB_DUMP_TO", "/proc/1", 1);
    setenv("MB_DUMP", "", 1); /* nothing is wanted, so nothing is looked at */
    mb_context *ctx = open_on("reference");
    nested(ctx);
    close_all();
}

/* What of a kernel is machine code, and that there is none where it is not wanted. */
Test(dump, chains)
{
    if (!testing("cpu") || !mb__code_works())
        return;
    static const char *const without[] = {NULL, "chain"}, *const levels[] = {"v3", "base"};
    for (int i = 0; i < 4; i++) {
        setenv("MB_CPU", levels[i / 2], 1);
        dump_to_folder("kernels");
        mb_context *ctx = open_as("cpu", without[i % 2], 1);
        mb_tensor x = mb_from(ctx, MB_FLOAT32, MB_SHAPE(3, 50), (float[150]){1});
        values(mb_add(mb_mul(x, x), 1.5));
        char name[40];
        snprintf(name, sizeof name, "plan-%04d-kernels.txt", i + 1);
        const char *t = text_of(name);
        if (i == 0 && strstr(t, "loops of v3"))
            has(t, "each chain of 2, in ");
        else
            expect(!strstr(t, "chain"), "%s", t);
        close_all();
        remove_folder();
    }
    unsetenv("MB_CPU");
}

Test(dump, a_folder_is_made)
{
    dump_to_folder("steps");
    char inner[60];
    snprintf(inner, sizeof inner, "%s/new", folder);
    setenv("MB_DUMP_TO", inner, 1);
    nested(open_on("reference"));
    has(text_of("new/plan-0001-steps.txt"), "product");
    close_all();
    remove_folder();
}

Test(dump, a_folder_that_is_gone_is_an_error)
{
    dump_to_folder("graph,kernels");
    mb_context *ctx = open_on("cpu");
    remove_folder();
    nested(ctx);
    expect(mb_error(ctx) == MB_IO, "%s", mb_message(ctx));
    has(mb_message(ctx), "plan-0001-graph.txt\" cannot be opened: No such file");
    close_failed(ctx);
    close_all();
}

Test(dump, no_memory)
{
    dump_to_folder("all");
    for (uint64_t n = 1;; n++) {
        counter c = {.fail_at = n};
        mb_allocator allocator = counting_allocator(&c);
        mb_context *ctx = mb_open_with(&(mb_options){.size = sizeof(mb_options),
                                                     .backend = "cpu",
                                                     .disable = "",
                                                     .threads = 1,
                                                     .allocator = &allocator});
        if (ctx)
            nested(ctx);
        expect(!ctx || mb_error(ctx) == MB_OK || mb_error(ctx) == MB_NO_MEMORY, "%s", mb_message(ctx));
        mb_close(ctx);
        expect(c.blocks == 0, "allocation %d: %d blocks left", (int)n, (int)c.blocks);
        if (c.calls < n)
            break;
    }
    remove_folder();
    close_all();
}
