/* SPDX-License-Identifier: MIT
 *
 * checkpoint_test.c - a loss after inner steps of gradient descent, with checkpoints in many ways and
 * without: the same derivatives of order 1 to 3, in reverse and forward mode, and less memory for
 * intermediate values. */
#include "gradcheck.h"
#include "random_op.h"
#include "support.h"

enum { STEPS = 16, ORDERS = 5 };

/* How the steps are recorded. each: a checkpoint for each step; around: for so many of them. */
typedef struct way {
    const char *name;
    int each, around;
    bool products, through, jump;
} way;

static const way ways[] = {
    {"none", 0, 0, false, false, false},
    {"each step", 1, 0, false, false, false},
    {"products kept", 1, 0, true, false, false},
    {"one value kept", 1, 0, false, true, false},
    {"four steps", 0, 4, false, false, false},
    {"nested", 1, 4, false, false, false},
    {"nested, kept", 1, 4, true, true, false},
    {"all in one", 0, STEPS, false, false, false},
    {"every other step", 1, 0, false, false, true},
};
enum { WAYS = sizeof ways / sizeof *ways };

static mb_tensor steps(mb_context *ctx, const way *w, mb_tensor W, mb_tensor rate, mb_tensor x, mb_tensor y)
{
    mb_checkpoint outer = {0}, inner = {0};
    for (int t = 0; t < STEPS; t++) {
        bool each = w->each && !(w->jump && t % 2);
        if (w->around && t % w->around == 0)
            outer = mb_checkpoint_begin(ctx);
        if (each)
            inner = w->products ? mb_checkpoint_products_begin(ctx) : mb_checkpoint_begin(ctx);
        mb_tensor h = mb_tanh(mb_matmul(x, W)), dW;
        if (w->through)
            h = mb_keep_through(h);
        mb_key key = mb_key_fold(mb_key_of(9), (uint64_t)t);
        mb_tensor keep = mb_lt(mb_uniform(ctx, key, MB_FLOAT64, MB_SHAPE(64, 4)),
                               mb_full(ctx, MB_FLOAT64, MB_SHAPE0, 0.8));
        h = mb_where(keep, h, mb_full(ctx, MB_FLOAT64, MB_SHAPE0, 0)); /* draws repeat */
        mb_grad(mb_mean(mb_square(mb_sub(mb_mul(h, mb_sin(h)), y)), MB_ALL), &W, 1, &dW);
        W = mb_sub(W, mb_mul(dW, rate));
        if (each)
            mb_checkpoint_end(inner);
        if (w->around && t % w->around == w->around - 1)
            mb_checkpoint_end(outer);
    }
    return W;
}

/* Derivatives along v of orders 1 to 3, the second once more by forward mode, and by the rate; arena[i]:
 * bytes. */
static void derivatives(mb_context *ctx, const way *w, double out[ORDERS], double arena[3])
{
    mb_scope scope = mb_scope_begin(ctx);
    mb_tensor x = mb_normal(ctx, mb_key_of(1), MB_FLOAT64, MB_SHAPE(64, 4));
    mb_tensor y = mb_normal(ctx, mb_key_of(2), MB_FLOAT64, MB_SHAPE(64, 4));
    mb_tensor W0 = mb_mul(mb_normal(ctx, mb_key_of(3), MB_FLOAT64, MB_SHAPE(4, 4)), 0.5);
    mb_tensor v = mb_normal(ctx, mb_key_of(4), MB_FLOAT64, MB_SHAPE(4, 4));
    mb_tensor xs[2] = {W0, mb_full(ctx, MB_FLOAT64, MB_SHAPE0, 0.3)}, gs[2], g, h;
    mb_tensor W = steps(ctx, w, xs[0], xs[1], x, y);
    mb_tensor loss = mb_sum(mb_square(mb_tanh(mb_matmul(x, W))), MB_ALL), along;
    mb_grad(loss, xs, 2, gs);
    along = mb_dot(gs[0], v);
    mb_tensor first[2] = {along, gs[1]};
    mb_eval(first, 2);
    arena[0] = (double)mb_get_stats(ctx).last_arena_bytes;
    mb_hvp(loss, &W0, &v, 1, &h);
    out[3] = mb_item(mb_dot(h, v));
    for (int order = 2; order <= 3; order++) {
        mb_grad(along, &W0, 1, &g);
        along = mb_dot(g, v);
        out[order - 1] = mb_item(along);
        arena[order - 1] = (double)mb_get_stats(ctx).last_arena_bytes;
    }
    out[0] = mb_item(first[0]);
    out[4] = mb_item(first[1]);
    expect(mb_scope_end(scope) == MB_OK, "%s: %s", w->name, mb_message(ctx));
}

static void compare_ways(const char *backend, const char *disable)
{
    mb_context *ctx = mb_open_with(&(mb_options){.backend = backend, .disable = disable});
    double want[ORDERS], all[3];
    derivatives(ctx, &ways[0], want, all);
    bool vulkan =
        !strcmp(backend, "vulkan"); /* kernels take long to compile: products kept, nested, every other */
    for (int i = vulkan ? 2 : 1; i < WAYS; i += vulkan ? 3 : 1) {
        double got[ORDERS], arena[3];
        derivatives(ctx, &ways[i], got, arena);
        /* Sums are added in another order, over 16 steps that each magnify by little: a thousand roundings.
         */
        for (int k = 0; k < ORDERS; k++)
            expect(fabs(got[k] - want[k]) <= 1e-12 * fabs(want[k]),
                   "%s, %s: derivative %d is %.17g, not %.17g", backend, ways[i].name, k, got[k], want[k]);
        for (int k = 0; k < 3 && !*disable && !ways[i].jump && !ways[i].through && i != 7; k++)
            expect(arena[k] < 0.5 * all[k], "%s, %s: order %d takes %g bytes, and %g without", backend,
                   ways[i].name, k + 1, arena[k], all[k]);
    }
    expect(mb_close(ctx) == MB_OK, "close");
}

Test(checkpoint, reference)
{
    if (!testing("cpu"))
        return;
    compare_ways("reference", "");
}
Test(checkpoint, cpu)
{
    compare_ways(backend_names[1], "");
}
Test(checkpoint, passes_off)
{
    if (!testing("cpu"))
        return;
    compare_ways("cpu", "simplify,merge,dead,fuse,sink,inplace,reuse");
}

/* Memory of a first gradient: without checkpoints in proportion to the steps, with them that of one step and
 * what goes from one to the next. */
Test(checkpoint, memory_by_steps)
{
    mb_context *ctx = open_on("cpu");
    double bytes[2][2];
    for (int checkpoints = 0; checkpoints < 2; checkpoints++)
        for (int long_one = 0; long_one < 2; long_one++) {
            mb_scope s = mb_scope_begin(ctx);
            mb_tensor W0 = mb_normal(ctx, mb_key_of(1), MB_FLOAT32, MB_SHAPE(8, 8)), W = W0, g;
            mb_tensor x = mb_normal(ctx, mb_key_of(2), MB_FLOAT32, MB_SHAPE(512, 8));
            for (int t = 0; t < (long_one ? 64 : 8); t++) {
                mb_checkpoint c = mb_checkpoint_begin(ctx);
                mb_grad(mb_mean(mb_square(mb_tanh(mb_matmul(x, W))), MB_ALL), &W, 1, &g);
                W = mb_sub(W, g);
                if (checkpoints)
                    mb_checkpoint_end(c);
            }
            mb_grad(mb_dot(W, W), &W0, 1, &g);
            mb_eval(&g, 1);
            bytes[checkpoints][long_one] = (double)mb_get_stats(ctx).last_arena_bytes;
            mb_scope_end(s);
        }
    expect(bytes[0][1] > 6 * bytes[0][0], "without: %g, then %g", bytes[0][0], bytes[0][1]);
    expect(bytes[1][1] < 1.5 * bytes[1][0] + 64 * 3 * 8 * 8 * 4, "with: %g, then %g", bytes[1][0],
           bytes[1][1]);
    expect(mb_close(ctx) == MB_OK, "close");
}

/* A gradient by a tensor of the inside, a loss on the inside, a scope that ends around one: right, if not
 * small. */
Test(checkpoint, odd_places)
{
    mb_context *ctx = open_on("cpu");
    mb_tensor x = mb_full(ctx, MB_FLOAT64, MB_SHAPE0, 0.7), a, b, g[2];
    mb_checkpoint c = mb_checkpoint_begin(ctx);
    a = mb_sin(x);
    b = mb_mul(a, mb_exp(a));
    mb_checkpoint_end(c);
    mb_tensor y = mb_mul(b, b);
    mb_grad(y, (mb_tensor[]){x, a}, 2, g);
    double s = sin(0.7), f = s * exp(s), da = 2 * f * (1 + s) * exp(s);
    expect(fabs(mb_item(g[1]) - da) < 1e-14 * da && fabs(mb_item(g[0]) - da * cos(0.7)) < 1e-14 * da,
           "by the inside");
    mb_grad(a, &x, 1, g);
    expect(fabs(mb_item(g[0]) - cos(0.7)) < 1e-15, "of the inside");
    mb_scope scope = mb_scope_begin(ctx);
    c = mb_checkpoint_begin(ctx);
    b = mb_exp(mb_sin(x));
    mb_checkpoint_end(c);
    y = mb_keep(mb_mul(b, b));
    mb_scope_end(scope);
    mb_grad(y, &x, 1, g);
    expect(fabs(mb_item(g[0]) - 2 * exp(2 * s) * cos(0.7)) < 1e-13, "kept: %g", mb_item(g[0]));
    expect(mb_close(ctx) == MB_OK, "close");
}

Test(checkpoint, mistakes)
{
    mb_context *ctx = open_on("cpu");
    mb_tensor x = mb_full(ctx, MB_FLOAT64, MB_SHAPE0, 2);
    mb_checkpoint outer = mb_checkpoint_begin(ctx);
    mb_exp(x);
    mb_checkpoint inner = mb_checkpoint_begin(ctx);
    mb_exp(x);
    mb_checkpoint_end(outer);
    expect(mb_checkpoint_end(inner) == MB_INVALID && strstr(mb_message(ctx), "checkpoint_end") &&
               strstr(mb_message(ctx), "checkpoint_test.c"),
           "crossed: %s", mb_message(ctx));
    mb_close(ctx);
    expect(mb_checkpoint_end(mb_checkpoint_begin(NULL)) != MB_OK, "no context");
}

/* ---- random graphs, with and without checkpoints in random places ---- */

/* marks: whether checkpoints are made; the graph, its inner gradients and all draws are the same without. */
static mb_tensor random_graph(mb_context *ctx, uint32_t seed, bool marks, mb_tensor x, mb_tensor y)
{
    enum { NODES = 24, OPEN_MOST = 3 };
    mb_tensor pool[NODES + 2] = {x, y};
    mb_checkpoint open[OPEN_MOST];
    int depth = 0;
    for (int n = 2; n < NODES + 2; n++) {
        uint32_t where = pick(&seed, 8), kind = pick(&seed, 9), i = pick(&seed, (uint32_t)n),
                 j = pick(&seed, (uint32_t)n);
        if (where < 2 && depth < OPEN_MOST) {
            if (marks)
                open[depth] = where ? mb_checkpoint_begin(ctx) : mb_checkpoint_products_begin(ctx);
            depth++;
        } else if (where < 4 && depth > 0) {
            depth--;
            if (marks)
                mb_checkpoint_end(open[depth]);
        }
        if (kind == 8) /* an inner step: the gradient of a loss by a value on the way */
            mb_grad(mb_sum(mb_square(mb_tanh(mb_mul(pool[i], pool[j]))), MB_ALL), &pool[i], 1, &pool[n]);
        else
            pool[n] = random_op(kind, pool[i], pool[j]);
        if (marks && where == 7)
            pool[n] = mb_keep_through(pool[n]);
    }
    while (depth-- > 0)
        if (marks)
            mb_checkpoint_end(open[depth]);
    return mb_add(mb_mean(mb_sin(pool[NODES + 1]), MB_ALL), mb_mean(mb_sin(pool[NODES]), MB_ALL));
}

/* Four derivatives along v: order 1, order 2 in both modes, order 3; of both variables. */
static void random_derivatives(mb_context *ctx, uint32_t seed, bool marks, int orders, double out[5])
{
    mb_scope s = mb_scope_begin(ctx);
    mb_tensor xs[2], v[2], g[2], h[2], line;
    for (int i = 0; i < 2; i++) {
        xs[i] = mb_normal(ctx, mb_key_of(seed * 4u + (uint64_t)i), MB_FLOAT64, MB_SHAPE(3, 3));
        v[i] = mb_normal(ctx, mb_key_of(seed * 4u + 2 + (uint64_t)i), MB_FLOAT64, MB_SHAPE(3, 3));
    }
    line = random_graph(ctx, seed, marks, xs[0], xs[1]);
    out[0] = mb_item(line);
    mb_hvp(line, xs, v, 2, h);
    out[4] = mb_item(mb_add(mb_dot(h[0], v[0]), mb_dot(h[1], v[1])));
    for (int order = 1; order <= orders; order++) {
        mb_grad(line, xs, 2, g);
        line = mb_add(mb_dot(g[0], v[0]), mb_dot(g[1], v[1]));
        out[order] = mb_item(line);
    }
    expect(mb_scope_end(s) == MB_OK, "graph %u: %s", seed, mb_message(ctx));
}

Test(checkpoint, random_graphs, .timeout = 36000)
{
    const char *wanted = getenv("FUZZ_COUNT");
    int count = wanted ? atoi(wanted) : 60;
    bool few = testing("vulkan"); /* where each graph has kernels of its own to compile */
    for (int b = few; b < 2; b++) {
        mb_context *ctx = open_on(backend_names[b]);
        count = few ? 1 : count;
        for (uint32_t seed = 1; seed <= (uint32_t)count; seed++) {
            double want[5] = {0}, got[5] = {0};
            random_derivatives(ctx, seed, false, few ? 2 : 3, want);
            random_derivatives(ctx, seed, true, few ? 2 : 3, got);
            /* Another order of additions: relative to the largest derivative, since terms may cancel. */
            double largest = 1;
            for (int k = 0; k < 5; k++)
                largest = fmax(largest, fabs(want[k]));
            for (int k = 0; k < 5; k++)
                expect(fabs(got[k] - want[k]) <= 1e-9 * largest,
                       "%s, graph %u: derivative %d is %.17g, not %.17g", backend_names[b], seed, k, got[k],
                       want[k]);
        }
        expect(mb_close(ctx) == MB_OK, "close");
    }
}

/* A parameter is first read inside, where its node then lies; and the checkpoint is one all the same. */
Test(checkpoint, parameters_first_read_inside)
{
    for (int b = 0; b < 2; b++) {
        double arena[2] = {0}, slope[2] = {0};
        for (int marked = 0; marked < 2; marked++) {
            mb_context *ctx = open_on(backend_names[b]);
            mb_tensor w[STEPS], g[STEPS], x = mb_normal(ctx, mb_key_of(1), MB_FLOAT64, MB_SHAPE(64, 4));
            for (int t = 0; t < STEPS; t++)
                w[t] = mb_variable(ctx, MB_FLOAT64, MB_SHAPE(4, 4));
            mb_eval(&x, 1);
            mb_scope scope = mb_scope_begin(ctx);
            for (int t = 0; t < STEPS; t++)
                mb_assign(w[t], mb_normal(ctx, mb_key_of(2 + (uint64_t)t), MB_FLOAT64, MB_SHAPE(4, 4)));
            mb_scope_end(scope); /* what was assigned is no longer a node, and a read makes another */
            scope = mb_scope_begin(ctx);
            mb_tensor y = x;
            for (int t = 0; t < STEPS; t++) {
                mb_checkpoint c = mb_checkpoint_begin(ctx);
                for (int i = 0; i < 4; i++)
                    y = mb_tanh(mb_matmul(y, w[t]));
                if (marked)
                    mb_checkpoint_end(c);
            }
            mb_grad(y, w, STEPS, g);
            for (int t = 1; t < STEPS; t++)
                g[0] = mb_add(g[0], g[t]);
            slope[marked] = mb_item(mb_sum(g[0], MB_ALL));
            arena[marked] = (double)mb_get_stats(ctx).last_arena_bytes;
            expect_ok(ctx);
            mb_scope_end(scope);
            close_all();
        }
        expect(fabs(slope[0] - slope[1]) <= 1e-10 * fabs(slope[0]), "%s: %.17g, unmarked %.17g",
               backend_names[b], slope[1], slope[0]);
        expect(arena[1] < 0.6 * arena[0], "%s: %g bytes, unmarked %g", backend_names[b], arena[1], arena[0]);
    }
}

/* A parameter that is first read in the middle of a checkpoint, and differentiated alone. */
Test(checkpoint, parameter_read_in_the_middle)
{
    mb_context *ctx = open_on("cpu");
    mb_tensor x = mb_full(ctx, MB_FLOAT64, MB_SHAPE0, 0.7), w = mb_variable(ctx, MB_FLOAT64, MB_SHAPE0), y, g,
              t;
    mb_checkpoint c = mb_checkpoint_begin(ctx);
    for (int i = 0; i < 10; i++)
        x = mb_sin(x);
    y = mb_sin(mb_mul(x, mb_exp(w)));
    mb_checkpoint_end(c);
    mb_grad(mb_square(y), &w, 1, &g);
    mb_jvp(&y, 1, &w, &x, 1, &t);
    double v = mb_item(x);
    expect(near(mb_item(g), 2 * sin(v) * cos(v) * v, 1e-14, 0), "%g", mb_item(g));
    expect(near(mb_item(t), cos(v) * v * v, 1e-14, 0), "%g", mb_item(t));
    mb_grad(g, &w, 1, &g);
    expect(near(mb_item(g), 2 * cos(2 * v) * v * v + sin(2 * v) * v, 1e-13, 0), "%g", mb_item(g));
    close_all();
}

/* The derivative of a scan keeps what its body's checkpoints promise. */
Test(checkpoint, within_the_body_of_a_scan)
{
    enum { INSIDE = 8 };
    if (!testing("cpu"))
        return;
    double arena[2] = {0}, slope[2] = {0};
    for (int marked = 0; marked < 2; marked++) {
        mb_context *ctx = open_on("cpu");
        mb_tensor w = mb_mul(mb_normal(ctx, mb_key_of(1), MB_FLOAT64, MB_SHAPE(16, 16)), 0.2), g;
        mb_tensor x = mb_normal(ctx, mb_key_of(2), MB_FLOAT64, MB_SHAPE(256, 16)), y = x;
        mb_scan s = mb_scan_begin(ctx, 2);
        mb_scan_carry(s, &y);
        for (int i = 0; i < INSIDE; i++) {
            mb_checkpoint c = mb_checkpoint_begin(ctx);
            for (int k = 0; k < 4; k++)
                y = mb_tanh(mb_matmul(y, w));
            if (marked)
                mb_checkpoint_end(c);
        }
        mb_scan_end(s);
        mb_grad(y, &w, 1, &g);
        slope[marked] = mb_item(mb_sum(g, MB_ALL));
        arena[marked] = (double)mb_get_stats(ctx).last_arena_bytes;
        expect_ok(ctx);
        close_all();
    }
    expect(fabs(slope[0] - slope[1]) <= 1e-10 * fabs(slope[0]), "%.17g, unmarked %.17g", slope[1], slope[0]);
    /* Of the 32 products of a step about a third: 8 inputs of checkpoints, and 4 of the inside of one. */
    expect(arena[1] < 0.6 * arena[0], "%g bytes, unmarked %g", arena[1], arena[0]);
}
