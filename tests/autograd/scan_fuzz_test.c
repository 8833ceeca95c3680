/* SPDX-License-Identifier: MIT
 *
 * scan_fuzz_test.c - random programs with scans (random_scan.c) against the same with each step written out:
 * values and derivatives of orders 1 to 3, in reverse, forward and mixed mode, one direction at a time and
 * many; on cpu and reference, with all passes and with each of them off, with and without checkpoints.
 *
 * FUZZ_SEED=n runs one program and prints it; FUZZ_COUNT=n runs so many, from FUZZ_FROM on where that is set.
 * A failure is made smaller before it is printed.
 *
 * The two ways differ in the order in which cotangents are added, and in what is fused. A number is compared
 * relative to the largest one of its order or below, since terms cancel: 1e-9 of it, which leaves seven
 * digits for what some ten thousand roundings of 1e-16 are magnified by. */
#include "random_scan.h"

enum { NUMBERS_MOST = 64 };

typedef struct numbers {
    double v[NUMBERS_MOST];
    int order[NUMBERS_MOST];
    const char *name[NUMBERS_MOST];
    mb_tensor t[NUMBERS_MOST];
    int count;
} numbers;

typedef struct way {
    const char *backend, *disable;
    scan_style style;
} way;

static void add(numbers *n, const way *w, const char *name, int order, mb_tensor t)
{
    if (n->count == NUMBERS_MOST)
        return;
    if (w->style.early)
        n->v[n->count] = mb_item(t);
    n->t[n->count] = t;
    n->name[n->count] = name;
    n->order[n->count++] = order;
}

static mb_tensor weighed(mb_tensor t)
{
    int64_t n = mb_count(t);
    return mb_sum(mb_mul(mb_reshape(t, MB_SHAPE(n)), mb_cos(mb_iota(t.ctx, MB_FLOAT64, n))), MB_ALL);
}

static void record_numbers(mb_context *ctx, const scan_program *p, const way *w, numbers *n, scan_list *list)
{
    enum { K = SCAN_INPUTS };
    mb_tensor x[K], d[K], g[K], h[K], batch[K], loss, vector, t;
    for (int i = 0; i < K; i++) {
        mb_shape two = {scan_input_shape[i].rank + 1, {2}};
        memcpy(two.dim + 1, scan_input_shape[i].dim, (size_t)scan_input_shape[i].rank * sizeof *two.dim);
        x[i] = mb_mul(mb_normal(ctx, mb_key_of(p->seed * 8 + (uint64_t)i), MB_FLOAT64, scan_input_shape[i]),
                      0.7);
        d[i] = mb_normal(ctx, mb_key_of(p->seed * 8 + 3 + (uint64_t)i), MB_FLOAT64, scan_input_shape[i]);
        batch[i] = mb_normal(ctx, mb_key_of(p->seed * 8 + 6), MB_FLOAT64, two);
    }
    scan_record(ctx, p, w->style, x, &loss, &vector, list);
    n->count = 0;
    add(n, w, "loss", 0, loss);
    add(n, w, "vector", 0, weighed(vector));
    mb_jvp(&loss, 1, x, d, K, &t);
    add(n, w, "jvp", 1, t);
    mb_grad(t, &x[1], 1, g);
    add(n, w, "grad of jvp", 2, weighed(g[0]));
    mb_jvp(&t, 1, x, d, K, &h[0]);
    add(n, w, "jvp of jvp", 2, h[0]);
    mb_hvp(loss, x, d, K, h);
    for (int i = 0; i < K; i++)
        add(n, w, "hvp", 2, weighed(h[i]));
    mb_jvp_batch(&vector, 1, x, batch, K, &t);
    add(n, w, "jvp_batch", 1, weighed(t));
    mb_hvp_batch(loss, &x[1], &batch[1], 1, h);
    add(n, w, "hvp_batch", 2, weighed(h[0]));
    add(n, w, "jacobian", 1, weighed(mb_jacobian(vector, x[1])));
    add(n, w, "hessian", 2, weighed(mb_hessian(loss, &x[1], 1)));
    mb_tensor line = loss;
    for (int order = 1; order <= 3 && mb_error(ctx) == MB_OK; order++) {
        mb_grad(line, x, K, g);
        line = mb_full(ctx, MB_FLOAT64, MB_SHAPE0, 0);
        for (int i = 0; i < K; i++) {
            t = mb_dot(g[i], d[i]);
            add(n, w, "grad", order, t);
            line = mb_add(line, t);
        }
    }
}

/* False: an error. */
static bool numbers_of(mb_context *ctx, const scan_program *p, const way *w, numbers *n, scan_list *list)
{
    mb_scope scope = mb_scope_begin(ctx);
    record_numbers(ctx, p, w, n, list);
    if (!w->style.early)
        mb_eval(n->t, n->count);
    for (int i = 0; i < n->count && !w->style.early; i++)
        n->v[i] = mb_item(n->t[i]);
    mb_scope_end(scope);
    return mb_error(ctx) == MB_OK;
}

/* Empty, or what differs. */
static const char *difference(const numbers *got, const numbers *want)
{
    static char text[400];
    text[0] = 0;
    double largest[4] = {1, 1, 1, 1};
    for (int i = 0; i < want->count; i++)
        for (int o = want->order[i]; o < 4; o++)
            if (isfinite(want->v[i]))
                largest[o] = fmax(largest[o], fabs(want->v[i]));
    for (int i = 0; i < want->count && !text[0]; i++)
        if (!(fabs(got->v[i] - want->v[i]) <= 1e-9 * largest[want->order[i]]) &&
            !(isnan(got->v[i]) && isnan(want->v[i])) && !(got->v[i] == want->v[i]))
            snprintf(text, sizeof text, "number %d (%s, order %d) is %.17g, not %.17g; the largest is %.3g",
                     i, want->name[i], want->order[i], got->v[i], want->v[i], largest[want->order[i]]);
    return text;
}

/* ---- ways ---- */

enum { FIRST_WAYS = 5, WAYS_MOST = 32 };
static way ways[WAYS_MOST] = {
    {"reference", "", {true, false, false}}, /* the oracle: written out */
    {"cpu", "", {false, false, false}},      {"cpu", "", {false, true, false}},
    {"cpu", "", {false, true, true}},        {"reference", "", {false, false, false}},
};
static int way_count;

static void list_ways(void)
{
    static char names[256], all[256];
    if (way_count)
        return;
    mb_context *ctx = mb_open_with(&(mb_options){.backend = "cpu", .disable = "?"});
    const char *list = strstr(mb_message(ctx), "simplify");
    cr_assert(list && strlen(list) < sizeof names, "no list of passes in: %s", mb_message(ctx));
    strcpy(names, list);
    strcpy(all, list);
    mb_close(ctx);
    way_count = FIRST_WAYS;
    ways[way_count++] = (way){"cpu", all, {false, false, false}};
    ways[way_count++] = (way){"reference", all, {false, true, false}};
    bool marks = false;
    for (char *name = strtok(names, ","); name && way_count < WAYS_MOST - 1; name = strtok(NULL, ","))
        ways[way_count++] = (way){"cpu", name, {false, marks = !marks, false}};
    ways[way_count++] = (way){"cpu", "", {true, true, false}};
}

static mb_context *contexts[WAYS_MOST];

static mb_context *context_of(int w)
{
    if (!contexts[w])
        contexts[w] = open_as(ways[w].backend, ways[w].disable, 1);
    return contexts[w];
}

static void close_contexts(void)
{
    memset(contexts, 0, sizeof contexts);
    close_all();
}

static void renew(int w)
{
    if (contexts[w])
        close_failed(contexts[w]);
    contexts[w] = NULL;
}

static const char *run(const scan_program *p, int w, numbers *n, scan_list *list)
{
    static char text[1200];
    text[0] = 0;
    mb_context *ctx = context_of(w);
    if (!numbers_of(ctx, p, &ways[w], n, list)) {
        snprintf(text, sizeof text, "error: %s", mb_message(ctx));
        mb_clear_error(ctx);
        renew(w);
    }
    return text;
}

/* Whether way w goes wrong on p, while the oracle does not fail. */
static bool fails(const scan_program *p, int w)
{
    static numbers want, got;
    if (*run(p, 0, &want, NULL))
        return false;
    return *run(p, w, &got, NULL) || *difference(&got, &want);
}

static void make_smaller(scan_program *p, int w)
{
    static scan_list list;
    static numbers n;
    run(p, w, &n, &list);
    for (bool again = true; again;) {
        again = false;
        for (int i = list.count; i-- > 0 && p->left_out_count < SCAN_LEFT_OUT_MOST;) {
            p->left_out[p->left_out_count++] = list.number[i];
            if (fails(p, w))
                again = true;
            else
                p->left_out_count--;
        }
        static scan_list rest;
        run(p, w, &n, &rest);
        again = again && rest.count < list.count;
        list = rest;
    }
}

static void print(const scan_program *p, int w)
{
    static scan_list list;
    static numbers n;
    run(p, w, &n, &list);
    for (int i = 0; i < list.count; i++)
        fprintf(stderr, "  %*s%s %llx\n", 2 * list.depth[i], "", list.name[i],
                (unsigned long long)list.number[i]);
}

static bool one_program(uint64_t seed, bool every_way)
{
    static scan_program p;
    static numbers want, got;
    static scan_list list;
    p = (scan_program){.seed = seed};
    const char *wrong = run(&p, 0, &want, &list);
    bool good = expect(!*wrong, "program %llu, written out: %s", (unsigned long long)seed, wrong);
    for (int w = 1; good && w < way_count; w++) {
        if (!every_way && w >= FIRST_WAYS && (uint64_t)w % 5 != seed % 5)
            continue;
        if (!every_way && testing("vulkan") && (uint64_t)w % 3 != seed % 3)
            continue; /* which compiles each step */
        wrong = run(&p, w, &got, NULL);
        if (!*wrong)
            wrong = difference(&got, &want);
        if (!*wrong)
            continue;
        good = false;
        expect(false, "program %llu, %s without \"%s\"%s%s%s: %s", (unsigned long long)seed, ways[w].backend,
               ways[w].disable, ways[w].style.unrolled ? ", written out" : "",
               ways[w].style.marks ? ", checkpoints" : "", ways[w].style.early ? ", early" : "", wrong);
        if (getenv("FUZZ_SHRINK"))
            make_smaller(&p, w);
        print(&p, w);
        if (*run(&p, 0, &want, NULL) == 0) {
            wrong = run(&p, w, &got, NULL);
            fprintf(stderr, "  %s\n", *wrong ? wrong : difference(&got, &want));
        }
    }
    return good;
}

Test(scan_fuzz, equals_the_steps_written_out, .timeout = 36000)
{
    const char *only = getenv("FUZZ_SEED"), *many = getenv("FUZZ_COUNT"), *first = getenv("FUZZ_FROM");
    /* On vulkan each program is some thousand kernels to compile: one, unless it is asked for by FUZZ_FROM.
     */
    int count = only || (testing("vulkan") && !first) ? 1 : many ? atoi(many) : 40, wrong = 0;
    uint64_t from = only ? strtoull(only, NULL, 0) : first ? strtoull(first, NULL, 0) : 1;
    list_ways();
    for (int i = 0; i < count && wrong < 5; i++) {
        wrong += !one_program(from + (uint64_t)i, only != NULL);
        if (i % 50 == 49)
            close_contexts();
    }
    close_contexts();
}
