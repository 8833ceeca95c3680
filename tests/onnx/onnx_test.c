/* SPDX-License-Identifier: MIT
 *
 * onnx_test.c - the node cases of ONNX's backend test, from Debian's libonnx-testdata: each a small model
 * with inputs and the outputs that ONNX's own reference in numpy gave for them. Nodes are recorded as ops of
 * Moebius, composed where a user would compose them, on each backend.
 *
 *     onnx_test [--backends cpu,reference] [--every N] [--least N] [--derivatives] [--verbose] [GLOB...]
 *
 * --derivatives: the graphs are differentiated as well, where the reference backend is there: derivatives.h.
 * Backends are $TESTS_BACKEND, or reference and cpu. Prints what failed, what was left out and why, and "N
 * passed, N failed", of cases: one has passed that passes on each backend. A run of all cases in which too
 * few node cases ran has failed. Exit status 1 where anything failed.
 */
#include "compare.h"
#include "derivatives.h"

#include <dirent.h>
#include <fnmatch.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char root[] = "/usr/share/libonnx-testdata/data";
static const char *const folders[] = {"node", "simple", "pytorch-operator", "pytorch-converted"};

/* Of 932 node cases 891 ran when this was written: fewer by many means that a reason to leave one out has
 * crept in, or that the package is not what it was. */
enum { MAX_BACKENDS = 4, MAX_REASONS = 400, MAX_CASES = 2000, LEAST = 880, LEAST_SLOPES = 700 };

/* Cases whose outputs are not what their model says, on all backends or on one; and coarse ones. By name, '*'
 * for any end. */
static const struct remark {
    const char *glob, *backend, *why;
} unfit[] =
    {
        {"adam_multiple", NULL, "outputs were made with an epsilon that the node does not have"},
        /* -2.5 / (5 / 255) is -127.49999 where the scale is rounded to float32, and -127.5 where it is a
         * double, as the reference backend keeps it: another integer. */
        {"dynamicquantizelinear", "reference", "a quotient is half way between integers in float64"},
        {"dynamicquantizelinear_expanded", "reference", "a quotient is half way between integers in float64"},
},
  coarse[] = {
      {"*window*", NULL, "2 pi in five digits"},
      {"roialign_*", NULL, "outputs written down in four digits"},
      {"gridsample_bicubic", NULL, "outputs written down in four digits"},
};

typedef struct backend {
    const char *name;
    mb_context *mb;
    int passed, failed;
    double seconds;
} backend;

static backend backends[MAX_BACKENDS];
static int n_backends;
static int passed, failed, left, ran_nodes, nodes;
static int differentiated;
static bool verbose, derivatives;
static char current[512]; /* the case that runs now, should it crash */

static struct reason {
    char op[48], why[96];
    int count;
} reasons[MAX_REASONS];
static int n_reasons;

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void crashed(int signal_number)
{
    static const char text[] = "FAILED: crashed: ";
    if (write(STDOUT_FILENO, text, sizeof text - 1) < 0 ||
        write(STDOUT_FILENO, current, strlen(current)) < 0 || write(STDOUT_FILENO, "\n", 1) < 0)
        _exit(3);
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

static const char *own_name(const char *name)
{
    return strchr(name, '/') + 1 + strlen("test_");
}

static const struct remark *find_remark(const struct remark *list, size_t n, const char *name,
                                        const char *backend)
{
    for (size_t i = 0; i < n; i++)
        if (fnmatch(list[i].glob, own_name(name), 0) == 0 &&
            (!list[i].backend || strcmp(list[i].backend, backend) == 0))
            return &list[i];
    return NULL;
}

static void count_reason(const char *op, const char *why)
{
    for (int i = 0; i < n_reasons; i++)
        if (strcmp(reasons[i].op, op) == 0 && strcmp(reasons[i].why, why) == 0) {
            reasons[i].count++;
            return;
        }
    if (n_reasons == MAX_REASONS)
        return;
    snprintf(reasons[n_reasons].op, sizeof reasons->op, "%s", op);
    snprintf(reasons[n_reasons].why, sizeof reasons->why, "%s", why);
    reasons[n_reasons++].count = 1;
}

/* ---- a case ---- */

typedef struct test_case {
    const char *path, *name; /* name: its folder and its own, as "node/test_abs" */
    arena memory;
    model_proto *model;
    data *inputs, *outputs;
    int n_inputs, n_outputs;
} test_case;

/* Files NAME_0.pb, NAME_1.pb, ... of the data set, at most as many as there are ports. */
static bool load_data(test_case *t, const char *name, const port *ports, int n, data **out, int *count)
{
    *out = ARENA_NEW(&t->memory, data, n);
    for (*count = 0; *count < n; (*count)++) {
        char path[700];
        const char *why;
        wire bytes;
        snprintf(path, sizeof path, "%s/test_data_set_0/%s_%d.pb", t->path, name, *count);
        if (access(path, F_OK) != 0)
            return true;
        if (!read_bytes(&t->memory, path, &bytes, &why) ||
            !parse_data(&t->memory, bytes, ports[*count].form, &(*out)[*count], &why)) {
            printf("FAILED: %s: %s: %s\n", t->name, path, why);
            return false;
        }
    }
    return true;
}

static bool load(test_case *t)
{
    char path[600];
    const char *why;
    wire bytes;
    snprintf(path, sizeof path, "%s/model.onnx", t->path);
    if (!read_bytes(&t->memory, path, &bytes, &why) || !(t->model = parse_model(&t->memory, bytes, &why))) {
        printf("FAILED: %s: %s: %s\n", t->name, path, why);
        return false;
    }
    const graph_proto *g = t->model->graph;
    if (!load_data(t, "input", g->inputs, g->n_inputs, &t->inputs, &t->n_inputs) ||
        !load_data(t, "output", g->outputs, g->n_outputs, &t->outputs, &t->n_outputs))
        return false;
    if (t->n_outputs < g->n_outputs)
        printf("FAILED: %s: %d files for %d outputs\n", t->name, t->n_outputs, g->n_outputs);
    return t->n_outputs == g->n_outputs;
}

typedef enum verdict { PASSED, FAILED, LEFT } verdict;

static verdict judge(run *r, const test_case *t, const char *backend, const value *outputs)
{
    difference d = {.text = ""};
    precision p = r->rounds ? ROUNDED : EXACT;
    if (find_remark(coarse, sizeof coarse / sizeof *coarse, t->name, backend))
        p = COARSE;
    for (int i = 0; i < t->n_outputs; i++)
        compare_value(r, t->model->graph->outputs[i].name, &outputs[i], &t->outputs[i], p, &d);
    if (d.text[0] || mb_error(r->mb) != MB_OK) {
        printf("FAILED: %s on %s: %s\n", t->name, backend, d.text[0] ? d.text : mb_message(r->mb));
        return FAILED;
    }
    if (verbose)
        printf("%s on %s: %s, %.2g of the tolerance\n", t->name, backend, p == EXACT ? "exact" : "rounded",
               d.worst);
    return PASSED;
}

static verdict run_on(test_case *t, backend *b)
{
    const graph_proto *g = t->model->graph;
    run r = {.mb = b->mb, .memory = &t->memory, .model = t->model};
    value *inputs = ARENA_NEW(&t->memory, value, t->n_inputs);
    value *outputs = ARENA_NEW(&t->memory, value, g->n_outputs);
    mb_scope scope = mb_scope_begin(b->mb);
    for (int i = 0; i < t->n_inputs; i++)
        inputs[i] = input_value(&r, &t->inputs[i], &g->inputs[i]);
    verdict v = LEFT;
    if (run_graph(&r, g, inputs, t->n_inputs, outputs) || mb_error(b->mb) != MB_OK)
        v = judge(&r, t, b->name, outputs);
    else if (b == backends)
        count_reason(r.left_op, r.reason);
    if (v == LEFT && verbose && b == backends)
        printf("%s: left out: %s: %s\n", t->name, r.left_op, r.reason);
    mb_clear_error(b->mb);
    mb_scope_end(scope);
    mb_clear_error(b->mb);
    return v;
}

static verdict run_backend(test_case *t, backend *b)
{
    const struct remark *r = find_remark(unfit, sizeof unfit / sizeof *unfit, t->name, b->name);
    if (r && !r->backend && b == backends)
        count_reason(t->model->graph->nodes[0].op, r->why);
    if (r) /* of one backend only: the others tell */
        return r->backend && n_backends > 1 ? PASSED : LEFT;
    double start = seconds();
    verdict v = run_on(t, b);
    b->seconds += seconds() - start;
    b->passed += v == PASSED;
    b->failed += v == FAILED;
    return v;
}

/* The graph's derivatives, by ways that must agree. */
static verdict differentiate(test_case *t, backend *b)
{
    run r = {.mb = b->mb, .memory = &t->memory, .model = t->model};
    value *inputs = ARENA_NEW(&t->memory, value, t->n_inputs);
    char text[256];
    double start = seconds();
    mb_scope scope = mb_scope_begin(b->mb);
    for (int i = 0; i < t->n_inputs; i++)
        inputs[i] = input_value(&r, &t->inputs[i], &t->model->graph->inputs[i]);
    slopes s = check_slopes(&r, inputs, t->n_inputs, text, sizeof text);
    if (s == SLOPES_DIFFER)
        printf("FAILED: %s: %s\n", t->name, text);
    if (mb_error(b->mb) != MB_OK)
        printf("FAILED: %s: %s\n", t->name, mb_message(b->mb));
    if (verbose)
        printf("%s: derivatives %s, %.2f s\n", t->name, s == SLOPES_AGREE ? "agree" : "not compared",
               seconds() - start);
    bool ok = s != SLOPES_DIFFER && mb_error(b->mb) == MB_OK;
    differentiated += s == SLOPES_AGREE && ok;
    mb_clear_error(b->mb);
    mb_scope_end(scope);
    mb_clear_error(b->mb);
    return ok ? PASSED : FAILED;
}

static void run_case(const char *path, const char *name)
{
    test_case t = {.path = path, .name = name};
    bool is_node = strncmp(name, "node/", 5) == 0;
    snprintf(current, sizeof current, "%s", name);
    bool loaded = load(&t);
    verdict all = loaded ? PASSED : FAILED;
    for (int i = 0; i < n_backends && loaded && all != LEFT; i++) {
        verdict v = run_backend(&t, &backends[i]);
        if (v != PASSED && all == PASSED)
            all = v;
    }
    for (int i = 0; i < n_backends && derivatives && all == PASSED; i++)
        if (strcmp(backends[i].name, "reference") == 0)
            all = differentiate(&t, &backends[i]);
    passed += all == PASSED;
    failed += all == FAILED;
    left += all == LEFT;
    nodes += is_node;
    ran_nodes += is_node && all != LEFT;
    arena_clear(&t.memory);
}

/* ---- all of them ---- */

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Sorted names of a folder that begin with "test_", as "node/test_abs". */
static int list_cases(const char *folder, char **names, int room)
{
    char path[256];
    int n = 0;
    snprintf(path, sizeof path, "%s/%s", root, folder);
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && n < room && (e = readdir(dir));) {
        size_t size = strlen(folder) + strlen(e->d_name) + 2;
        if (strncmp(e->d_name, "test_", 5) == 0 && (names[n] = malloc(size)))
            snprintf(names[n++], size, "%s/%s", folder, e->d_name);
    }
    if (dir)
        closedir(dir);
    qsort(names, (size_t)n, sizeof *names, by_name);
    return n;
}

static bool wanted_case(const char *name, char **globs, int n)
{
    const char *own = own_name(name);
    for (int i = 0; i < n; i++)
        if (fnmatch(globs[i], own, 0) == 0 || fnmatch(globs[i], name, 0) == 0)
            return true;
    return n == 0;
}

static void open_backends(char *names)
{
    char *rest = NULL; /* a driver may use strtok as well, while it is opened */
    for (char *name = strtok_r(names, ",", &rest); name && n_backends < MAX_BACKENDS;
         name = strtok_r(NULL, ",", &rest)) {
        backend *b = &backends[n_backends];
        *b = (backend){.name = name, .mb = mb_open(name)};
        if (b->mb && mb_error(b->mb) == MB_OK) {
            n_backends++;
            continue;
        }
        printf("FAILED: %s\n", b->mb ? mb_message(b->mb) : "out of memory");
        failed++;
        mb_close(b->mb);
    }
}

static int by_count(const void *a, const void *b)
{
    const struct reason *x = a, *y = b;
    return x->count != y->count ? y->count - x->count : strcmp(x->op, y->op);
}

static void print_summary(void)
{
    qsort(reasons, (size_t)n_reasons, sizeof *reasons, by_count);
    if (n_reasons > 0)
        printf("\nleft out:\n%5s  %-24s %s\n", "cases", "op", "why");
    for (int i = 0; i < n_reasons; i++)
        printf("%5d  %-24s %s\n", reasons[i].count, reasons[i].op, reasons[i].why);
    printf("\n%d of %d node cases ran, and %d others; %d left out\n", ran_nodes, nodes,
           passed + failed - ran_nodes, left);
    if (derivatives)
        printf("derivatives of %d agree\n", differentiated);
    for (int i = 0; i < n_backends; i++)
        printf("%-10s %d passed, %d failed, %.1f s\n", backends[i].name, backends[i].passed,
               backends[i].failed, backends[i].seconds);
}

static void close_backends(void)
{
    for (int i = 0; i < n_backends; i++)
        if (mb_close(backends[i].mb) != MB_OK) {
            printf("FAILED: closing %s\n", backends[i].name);
            failed++;
        }
}

typedef struct options {
    char backends[256];
    int every, least;
    char **globs;
    int n_globs;
} options;

static int usage(void)
{
    fprintf(
        stderr,
        "usage: onnx_test [--backends A,B] [--every N] [--least N] [--derivatives] [--verbose] [GLOB...]\n");
    return 2;
}

static bool parse_options(int argc, char **argv, options *o)
{
    const char *backend = getenv("TESTS_BACKEND");
    *o = (options){.every = 1, .least = LEAST};
    snprintf(o->backends, sizeof o->backends, "%s", backend ? backend : "reference,cpu");
    int k = 1;
    for (; k < argc && argv[k][0] == '-'; k++) {
        if (strcmp(argv[k], "--verbose") == 0)
            verbose = true;
        else if (strcmp(argv[k], "--derivatives") == 0)
            derivatives = true;
        else if (k + 1 == argc)
            return false;
        else if (strcmp(argv[k], "--backends") == 0)
            snprintf(o->backends, sizeof o->backends, "%s", argv[++k]);
        else if (strcmp(argv[k], "--every") == 0)
            o->every = atoi(argv[++k]);
        else if (strcmp(argv[k], "--least") == 0)
            o->least = atoi(argv[++k]);
        else
            return false;
    }
    o->globs = argv + k;
    o->n_globs = argc - k;
    return o->every > 0;
}

static void run_folder(const char *folder, const options *o)
{
    static char *cases[MAX_CASES];
    static int seen;
    char path[400];
    int n = list_cases(folder, cases, MAX_CASES);
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s", root, cases[i]);
        if (wanted_case(cases[i], o->globs, o->n_globs) && seen++ % o->every == 0)
            run_case(path, cases[i]);
        free(cases[i]);
    }
}

int main(int argc, char **argv)
{
    options o;
    if (!parse_options(argc, argv, &o))
        return usage();
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGSEGV, crashed);
    signal(SIGABRT, crashed);
    signal(SIGFPE, crashed);
    open_backends(o.backends);
    for (size_t f = 0; f < sizeof folders / sizeof *folders; f++)
        run_folder(folders[f], &o);
    print_summary();
    close_backends();
    bool whole = o.n_globs == 0 && o.every == 1;
    if (whole && derivatives && differentiated < LEAST_SLOPES) {
        printf("FAILED: only %d derivatives were compared; there should be at least %d\n", differentiated,
               LEAST_SLOPES);
        failed++;
    }
    if (whole && ran_nodes < o.least) {
        printf("FAILED: only %d node cases ran; there should be at least %d\n", ran_nodes, o.least);
        failed++;
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed > 0 || passed == 0;
}
