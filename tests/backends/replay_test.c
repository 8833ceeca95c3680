/* SPDX-License-Identifier: MIT
 * replay_test.c - plans: made once, replayed without allocating, never stale, bounded; contexts side by side;
 * the same bits for every number of threads and every run; debug mode; what opening refuses. */
#include <fcntl.h>
#include <unistd.h>

#include "training.h"

Test(replay, second_step_hits)
{
    for (int k = 0; k < 2; k++) {
        training t;
        training_start(&t, open_on(backend_names[k]));
        for (int step = 0; step < 3; step++)
            training_step(&t, step, 0.1);
        mb_stats before = mb_get_stats(t.ctx);
        double losses[20];
        for (int step = 3; step < 20; step++) {
            training_step(&t, step, 0.1 / step); /* another learning rate, key and batch each time */
            losses[step] = t.loss;
        }
        mb_stats after = mb_get_stats(t.ctx);
        expect(after.plans == before.plans, "%s: %llu more plans", backend_names[k],
               (unsigned long long)(after.plans - before.plans));
        expect(after.plan_hits >= before.plan_hits + 17, "%s: hits", backend_names[k]);
        expect(after.allocations == before.allocations, "%s: 17 replayed steps allocated %llu times",
               backend_names[k], (unsigned long long)(after.allocations - before.allocations));
        expect(after.bytes == before.bytes && after.nodes == before.nodes, "%s: memory grew",
               backend_names[k]);
        close_all();
        /* not stale: the same from contexts that each make one step, and so replay nothing */
        float w[24], m[24] = {0};
        for (int step = 0; step < 20; step++) {
            training u;
            training_start(&u, open_on(backend_names[k]));
            if (step) {
                mb_assign(u.w, mb_from(u.ctx, MB_FLOAT32, MB_SHAPE(6, 4), w));
                mb_assign(u.m, mb_from(u.ctx, MB_FLOAT32, MB_SHAPE(6, 4), m));
            }
            training_step(&u, step, step < 3 ? 0.1 : 0.1 / step);
            /* reference keeps float32 in doubles, which reading and assigning rounds */
            expect(step < 3 || near(u.loss, losses[step], k ? 0 : 1e-6, 0),
                   "%s: step %d replayed: loss %.9g, not %.9g", backend_names[k], step, losses[step], u.loss);
            mb_read(u.w, w, sizeof w);
            mb_read(u.m, m, sizeof m);
            close_all();
        }
    }
}

/* A scalar that becomes 0, 1 or NaN is not simplified away; a literal may be. */
Test(replay, scalars_are_never_frozen)
{
    for (int k = 0; k < 2; k++) {
        mb_context *ctx = open_on(backend_names[k]);
        static const double xs[] = {2, 0, 1, -1, 0.5, (double)INFINITY};
        for (int i = 0; i < 6; i++) {
            mb_scope s = mb_scope_begin(ctx);
            mb_tensor a = mb_from(ctx, MB_FLOAT64, MB_SHAPE(2), (double[]){3, (double)INFINITY}),
                      c = mb_scalar(ctx, MB_FLOAT64, xs[i]);
            double *v = values(mb_add(mb_mul(a, c), mb_pow(a, c)));
            for (int j = 0; j < 2; j++) {
                double u = j ? (double)INFINITY : 3, want = u * xs[i] + pow(u, xs[i]);
                expect(near(v[j], want, 1e-14, 0), "%s: scalar %g: %g, not %g", backend_names[k], xs[i], v[j],
                       want);
            }
            mb_scope_end(s);
        }
        expect(mb_get_stats(ctx).plans == 1, "%s: %llu plans for six scalars", backend_names[k],
               (unsigned long long)mb_get_stats(ctx).plans);
        close_all();
    }
}

/* What differs in shape, dtype, attribute or what is kept must not share a plan. */
Test(replay, keys_tell_apart)
{
    for (int k = 0; k < 2; k++) {
        mb_context *ctx = open_on(backend_names[k]);
        rng r = {3};
        for (int round = 0; round < 2; round++)
            for (int n = 1; n < 6; n++)
                for (int axis = 0; axis < 2; axis++)
                    for (int d = 0; d < 2; d++) {
                        mb_scope s = mb_scope_begin(ctx);
                        mb_tensor x = draw(ctx, &r, (mb_dtype)d, MB_SHAPE(n, 6 - n), -1, 1),
                                  y = mb_sum(x, MB_AXES(axis));
                        mb_tensor z = mb_full(ctx, (mb_dtype)d, MB_SHAPE0, n), w = mb_mul(y, z);
                        double *v = values(x), *got = values(w), want = 0;
                        for (int i = 0; i < (axis ? 6 - n : n); i++)
                            want += v[axis ? i : i * (6 - n)] * n;
                        expect(near(got[0], want, 1e-6, 1e-6), "%s: [%d,%d] axis %d: %g, not %g",
                               backend_names[k], n, 6 - n, axis, got[0], want);
                        mb_scope_end(s);
                    }
        close_all();
    }
}

Test(replay, the_cache_is_bounded)
{
    counter c = {0};
    mb_allocator a = counting_allocator(&c);
    mb_context *ctx =
        mb_open_with(&(mb_options){.backend = "cpu", .allocator = &a, .plan_cache_bytes = 256 << 10});
    uint64_t most = 0;
    for (int n = 1; n <= 300; n++) {
        mb_scope s = mb_scope_begin(ctx);
        double x = mb_item(mb_sum(mb_tanh(mb_iota(ctx, MB_FLOAT32, n)), MB_ALL));
        expect(isfinite(x), "size %d", n);
        mb_scope_end(s);
        most = mb_get_stats(ctx).plan_bytes > most ? mb_get_stats(ctx).plan_bytes : most;
    }
    mb_stats s = mb_get_stats(ctx);
    expect(s.plans == 300 && s.plans_cached < 300 && s.plans_cached > 0, "%llu plans, %llu cached",
           (unsigned long long)s.plans, (unsigned long long)s.plans_cached);
    expect(most < (512 << 10), "%llu bytes of plans", (unsigned long long)most);
    uint64_t hits = s.plan_hits; /* the newest is still there */
    mb_item(mb_sum(mb_tanh(mb_iota(ctx, MB_FLOAT32, 300)), MB_ALL));
    expect(mb_get_stats(ctx).plan_hits == hits + 1, "the newest plan went first");
    expect(mb_close(ctx) == MB_OK && c.blocks == 0, "%lld blocks left", (long long)c.blocks);
    ctx = mb_open_with(&(mb_options){.backend = "cpu", .plan_cache_bytes = 1}); /* not even one fits */
    for (int i = 0; i < 3; i++)
        expect(mb_item(mb_add(mb_scalar(ctx, MB_FLOAT32, i), 1.0)) == i + 1, "a cache of nothing");
    mb_close(ctx);
}

Test(replay, contexts_side_by_side)
{
    training t[4];
    for (int i = 0; i < 4; i++)
        training_start(&t[i], open_as(i & 1 ? "reference" : "cpu", NULL, i));
    for (int step = 0; step < 10; step++)
        for (int i = 0; i < 4; i++) {
            training_step(&t[i], step, 0.1);
            expect(near(t[i].loss, t[0].loss, 1e-4, 0), "context %d: %g, not %g", i, t[i].loss, t[0].loss);
        }
    close_all();
}

/* Large enough that every kind of step is split: kernels, rows, products, others. */
static double *large(int threads, int64_t *n)
{
    mb_context *ctx = open_as("cpu", NULL, threads);
    rng r = {1};
    mb_tensor x = draw(ctx, &r, MB_FLOAT32, MB_SHAPE(600, 257), -1, 1),
              w = draw(ctx, &r, MB_FLOAT32, MB_SHAPE(257, 301), -1, 1);
    mb_tensor h = mb_gelu(mb_matmul(x, w)), p = mb_softmax(h, -1);
    mb_tensor b =
        mb_matmul(mb_reshape(x, MB_SHAPE(60, 10, 257)), mb_reshape(mb_transpose(w), MB_SHAPE(1, 257, 301)));
    mb_tensor loss = mb_add(mb_sum(mb_mul(p, h), MB_ALL), mb_sum(mb_cumsum(b, 1, false), MB_ALL)), g[2],
              all[8];
    mb_grad(loss, (mb_tensor[]){x, w}, 2, g);
    all[0] = g[0], all[1] = g[1], all[2] = mb_sum(h, MB_AXES(0)), all[3] = mb_sort(x),
    all[4] = mb_sum(mb_exp(x), MB_ALL);
    all[5] = mb_scatter_add(x, mb_cast(mb_mul(mb_iota(ctx, MB_FLOAT32, 600), 0.05), MB_INT32), 0, 30);
    all[6] = mb_variance(h, MB_ALL), all[7] = mb_max(h, MB_AXES(0));
    mb_eval(all, 8);
    double *out = NULL;
    *n = 0;
    for (int i = 0; i < 8; i++) {
        int64_t count = mb_count(all[i]);
        out = realloc(out, (size_t)(*n + count) * sizeof *out);
        memcpy(out + *n, values(all[i]), (size_t)count * sizeof *out);
        *n += count;
    }
    expect_ok(ctx);
    return out;
}

Test(replay, every_number_of_threads_gives_the_same_bits, .timeout = 60)
{
    int64_t n, m;
    double *one = large(1, &n);
    for (int threads = 1; threads <= (testing("cpu") ? 5 : 1); threads++)
        for (int run = 0; run < 2; run++) {
            double *other = large(threads, &m);
            expect(n == m && same_bits(one, other, n), "%d threads, run %d: not the same bits", threads, run);
            free(other);
            close_all();
        }
    free(one);
}

Test(replay, three_runs_of_training_give_the_same_bits)
{
    for (int k = 0; k < 2; k++) {
        double first[24];
        for (int run = 0; run < 3; run++) {
            training t;
            training_start(&t, open_as(backend_names[k], NULL, run + 1));
            for (int step = 0; step < 30; step++)
                training_step(&t, step, 0.1);
            double *w = values(t.w);
            if (run)
                expect(same_bits(w, first, 24), "%s: run %d ends elsewhere", backend_names[k], run);
            memcpy(first, w, sizeof first);
            close_all();
        }
    }
}

/* ---- debug mode and options ---- */

Test(replay, debug_names_the_first_nan)
{
    for (int k = 0; k < 2; k++) {
        setenv("MB_DEBUG", "1", 1);
        mb_context *ctx = open_on(backend_names[k]);
        unsetenv("MB_DEBUG");
        mb_tensor x = mb_from(ctx, MB_FLOAT32, MB_SHAPE(3), ((float[]){1, 0, 4}));
        expect(mb_item(mb_sum(mb_sqrt(x), MB_ALL)) == 3, "debug mode computes the same");
        mb_tensor fine = mb_sub(x, 2.0);
        int line = __LINE__ + 1;
        mb_tensor bad = mb_log(fine), after = mb_sum(mb_exp(bad), MB_ALL);
        expect(isnan(mb_item(after)) || mb_error(ctx) != MB_OK, "debug mode");
        char at[64];
        snprintf(at, sizeof at, "replay_test.c:%d: log", line);
        expect(mb_error(ctx) != MB_OK && strstr(mb_message(ctx), at), "%s: %s", backend_names[k],
               mb_message(ctx));
        expect(strstr(mb_message(ctx), "[3]") != NULL, "%s: no shape in: %s", backend_names[k],
               mb_message(ctx));
        mb_clear_error(ctx);
        /* what was already NaN or infinite when given is not a mistake */
        mb_tensor given = mb_from(ctx, MB_FLOAT32, MB_SHAPE(2), ((float[]){NAN, INFINITY}));
        mb_tensor y = mb_mul(given, 2.0);
        float out[2];
        expect(mb_read(y, out, sizeof out) == MB_OK, "%s: NaN from NaN: %s", backend_names[k],
               mb_message(ctx));
        mb_clear_error(ctx);
        close_failed(ctx);
        close_all();
    }
}

/* Infinities are no mistake by themselves, and neither is what follows from a NaN. */
Test(replay, debug_names_a_nan_made_of_infinities)
{
    for (int k = 0; k < 2; k++) {
        setenv("MB_DEBUG", "1", 1);
        mb_context *ctx = open_on(backend_names[k]);
        unsetenv("MB_DEBUG");
        mb_tensor low = mb_from(ctx, MB_FLOAT64, MB_SHAPE(2), ((double[]){-INFINITY, 1}));
        expect(near(mb_item(mb_sum(mb_exp(low), MB_ALL)), exp(1), 1e-15, 0), "%s", mb_message(ctx));
        expect(isinf(mb_item(mb_sum(mb_mul(low, 2.0), MB_ALL))), "%s", mb_message(ctx));
        mb_tensor nothing = mb_sub(low, low), after = mb_sum(mb_mul(nothing, 2.0), MB_ALL);
        int line = __LINE__ - 1;
        expect(isnan(mb_item(after)), "no value after an error");
        char at[64];
        snprintf(at, sizeof at, "replay_test.c:%d: sub: the first NaN", line);
        expect(mb_error(ctx) == MB_INVALID && strstr(mb_message(ctx), at) &&
                   strstr(mb_message(ctx), "infinities"),
               "%s: %s", backend_names[k], mb_message(ctx));
        mb_clear_error(ctx);
        close_failed(ctx);
        close_all();
    }
}

/* The maximum of no elements, which softmax begins with, is no one's mistake. */
Test(replay, debug_is_silent_about_maxima_of_nothing)
{
    setenv("MB_DEBUG", "1", 1);
    mb_context *ctx = open_on(backend_names[1]);
    mb_tensor x = mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(2, 0));
    double *most = values(mb_max(x, MB_AXES(1)));
    expect(most[0] == -INFINITY && most[1] == -INFINITY, "%g %g", most[0], most[1]);
    mb_tensor y = mb_softmax(x, 1);
    mb_eval(&y, 1);
    close_all();
    unsetenv("MB_DEBUG");
}

/* What a `where` leaves out is no mistake, and sums of integers that wrap are none. */
Test(replay, debug_is_silent_about_what_reaches_no_result)
{
    for (int k = 0; k < 2; k++) {
        setenv("MB_DEBUG", "1", 1);
        mb_context *ctx = open_on(backend_names[k]);
        unsetenv("MB_DEBUG");
        mb_tensor x = mb_from(ctx, MB_FLOAT32, MB_SHAPE(3), ((float[]){1, 0, 4})), g;
        mb_tensor y =
            mb_sum(mb_where(mb_gt(x, 0.0), mb_log(x), mb_full(ctx, MB_FLOAT32, MB_SHAPE0, 7)), MB_ALL);
        expect(near(mb_item(y), 7 + log(4), 1e-6, 0), "a masked logarithm: %s", mb_message(ctx));
        expect(mb_item(mb_max(mb_mod(x, (double)INFINITY), MB_ALL)) == 4, "mod: %s", mb_message(ctx));
        mb_tensor large = mb_from(ctx, MB_FLOAT32, MB_SHAPE(2), ((float[]){3e20f, 4e20f}));
        y = mb_norm(large, MB_ALL);
        mb_grad(y, &large, 1, &g);
        expect(near(mb_item(y), 5e20, 1e-6, 0) && near(values(g)[0], 0.6, 1e-6, 0), "norm: %s",
               mb_message(ctx));
        expect(mb_item(mb_any(mb_zeros(ctx, MB_BOOL, MB_SHAPE(0)), MB_ALL)) == 0, "any: %s", mb_message(ctx));
        mb_tensor most = mb_full(ctx, MB_INT32, MB_SHAPE(2), 2147483647.0);
        expect(values(mb_cumsum(most, 0, false))[1] == -2, "cumsum: %s", mb_message(ctx));
        close_all();
    }
}

/* A NaN that ends in a comparison, an order or an integer would be seen no more. */
Test(replay, debug_names_a_nan_that_is_compared)
{
    for (int way = 0; way < 3; way++) {
        setenv("MB_DEBUG", "1", 1);
        mb_context *ctx = open_on("cpu");
        unsetenv("MB_DEBUG");
        mb_tensor x = mb_from(ctx, MB_FLOAT32, MB_SHAPE(3), ((float[]){1, -1, 4}));
        mb_tensor root = mb_sqrt(x);
        mb_tensor y = way == 0 ? mb_lt(root, 1.5) : way == 1 ? mb_argmax(root, 0) : mb_cast(root, MB_INT32);
        mb_eval(&y, 1);
        expect(mb_error(ctx) == MB_INVALID && strstr(mb_message(ctx), "sqrt: the first NaN"), "way %d: %s",
               way, mb_message(ctx));
        mb_clear_error(ctx);
        close_failed(ctx);
        close_all();
    }
}

Test(replay, debug_mode_trains_alike)
{
    setenv("MB_DEBUG", "1", 1);
    training t, u;
    training_start(&t, open_on("cpu"));
    unsetenv("MB_DEBUG");
    training_start(&u, open_on("cpu"));
    for (int step = 0; step < 5; step++) {
        training_step(&t, step, 0.1);
        training_step(&u, step, 0.1);
        expect(near(t.loss, u.loss, 1e-5, 0), "debug mode: step %d: %g, not %g", step, t.loss, u.loss);
    }
    close_all();
}

static void note_line(void *user, const char *line)
{
    int *growing = user;
    *growing += strstr(line, "replay_test.c:") != NULL;
}

/* History that is never cut is noticed, and told with the line of the scope that keeps it. */
Test(replay, a_growing_tape_is_told)
{
    int told = 0;
    mb_context *ctx = mb_open_with(&(mb_options){.backend = "cpu", .log = note_line, .log_user = &told});
    mb_scope s = mb_scope_begin(ctx);
    mb_tensor w = mb_scalar(ctx, MB_FLOAT32, 1);
    for (int step = 0; step < 5000; step++) {
        w = mb_mul(w, 0.99);
        mb_item(w);
    }
    mb_scope_end(s);
    expect(told > 0 && told < 20, "told %d times of a tape of %llu nodes", told,
           (unsigned long long)mb_get_stats(ctx).nodes);
    mb_close(ctx);
}

Test(replay, options)
{
    mb_context *ctx = mb_open("abacus");
    expect(ctx && mb_error(ctx) == MB_BACKEND && strstr(mb_message(ctx), "abacus") &&
               strstr(mb_message(ctx), "reference"),
           "%s", mb_message(ctx));
    expect(!mb_valid(mb_scalar(ctx, MB_FLOAT32, 1)), "no backend, no tensors");
    expect(mb_close(ctx) == MB_BACKEND, "close tells the first error");
    ctx = mb_open_with(&(mb_options){.disable = "fuse,frobnicate"});
    expect(ctx && mb_error(ctx) == MB_INVALID && strstr(mb_message(ctx), "frobnicate") &&
               strstr(mb_message(ctx), "simplify"),
           "%s", mb_message(ctx));
    mb_close(ctx);
    setenv("MB_BACKEND", "reference", 1);
    setenv("MB_DISABLE", "fuse", 1);
    setenv("MB_THREADS", "2", 1);
    ctx = mb_open(NULL);
    expect(ctx && mb_error(ctx) == MB_OK && !strcmp(mb_backend_name(ctx), "reference"), "$MB_BACKEND");
    mb_close(ctx);
    setenv("MB_BACKEND", "", 1);
    ctx = mb_open(NULL);
    expect(ctx && !strcmp(mb_backend_name(ctx), mb_backend_at(0)), "the best present");
    mb_close(ctx);
    unsetenv("MB_BACKEND"), unsetenv("MB_DISABLE"), unsetenv("MB_THREADS");
    expect(!strcmp(mb_backend_at(0), "cpu") && !mb_backend_at(99) && !mb_backend_at(-1), "backend_at");
    ctx = mb_open_with(&(mb_options){
        .size = 8, .backend = "nonsense"}); /* an older, shorter struct: only its size is there */
    expect(ctx && mb_error(ctx) == MB_OK, "a struct of an earlier version: %s", mb_message(ctx));
    mb_close(ctx);
    ctx = mb_open_with(NULL);
    expect(ctx && mb_error(ctx) == MB_OK, "no options");
    mb_close(ctx);
    for (int i = 0; i < 200; i++) { /* contexts come and go: threads and memory with them */
        ctx = open_as("cpu", NULL, 3);
        mb_item(mb_exp(mb_scalar(ctx, MB_FLOAT32, i)));
        close_all();
    }
}

/* What the environment says wrongly is told, and not taken for something else. */
Test(replay, an_environment_of_nonsense)
{
    static struct {
        const char *name, *value, *told;
        mb_status status;
    } rows[] = {
        {"MB_THREADS", "two", "MB_THREADS", MB_INVALID},
        {"MB_THREADS", "0", "MB_THREADS", MB_INVALID},
        {"MB_CPU", "foo", "base, v3 or v4", MB_INVALID},
        {"MB_DEBUG", "yes", "MB_DEBUG", MB_INVALID},
        {"MB_GUARD", "2", "MB_GUARD", MB_INVALID},
        {"MB_LOG", "loud", "MB_LOG", MB_INVALID},
        {"MB_DISABLE", "fusion", "fusion", MB_INVALID},
        {"MB_BACKEND", "abacus", "abacus", MB_BACKEND},
        {"MB_PROFILE", "/no/such/folder/x", "MB_PROFILE", MB_IO},
        {"MB_VULKAN_VALIDATE", "yes", "wanted 0, 1 or gpu", MB_INVALID},
        {"MB_VULKAN_LABELS", "on", "wanted 0 or 1", MB_INVALID},
        {"MB_VULKAN_BATCH", "many", "MB_VULKAN_BATCH", MB_INVALID},
        {"MB_VULKAN_BATCH", "-1", "MB_VULKAN_BATCH", MB_INVALID},
        {"MB_VULKAN_LIMITS", "none", "minimum", MB_INVALID},
        {"MB_VULKAN_STAGING", "true", "MB_VULKAN_STAGING", MB_INVALID},
        {"MB_VULKAN_BARRIERS", "few", "every or backwards", MB_INVALID},
        {"MB_VULKAN_QUIRKS", "x", "MB_VULKAN_QUIRKS", MB_INVALID},
        {"MB_VULKAN_FAULT", "3:fire", ":memory or :lost", MB_INVALID},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        setenv(rows[i].name, rows[i].value, 1);
        bool of_vulkan = !strncmp(rows[i].name, "MB_VULKAN", 9);
        mb_context *ctx = mb_open(of_vulkan ? "vulkan" : NULL);
        unsetenv(rows[i].name);
#ifndef MB_HAVE_VULKAN
        rows[i].status = of_vulkan ? MB_BACKEND : rows[i].status,
        rows[i].told = of_vulkan ? "vulkan" : rows[i].told;
#endif
        expect(mb_error(ctx) == rows[i].status && strstr(mb_message(ctx), rows[i].told), "%s=%s: %s",
               rows[i].name, rows[i].value, mb_message(ctx));
        mb_close(ctx);
    }
    static const char *const fine[][2] = {{"MB_CPU", "base"}, {"MB_CPU", "v3"}, {"MB_CPU", ""},
                                          {"MB_DEBUG", "0"},  {"MB_DEBUG", ""}, {"MB_LOG", "0"},
                                          {"MB_PROFILE", "0"}};
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++) {
        setenv(fine[i][0], fine[i][1], 1);
        mb_context *ctx = mb_open(NULL);
        unsetenv(fine[i][0]);
        expect(mb_error(ctx) == MB_OK, "%s=%s: %s", fine[i][0], fine[i][1], mb_message(ctx));
        mb_close(ctx);
    }
}

/* MB_LOG=1: without a line of code the forgotten scope is told, on the standard error. */
Test(replay, the_log_by_environment)
{
    char text[4000] = "", path[256];
    const char *folder = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/mb-log-%ld", folder ? folder : "/tmp", (long)getpid());
    fflush(stderr);
    int before = dup(STDERR_FILENO), to = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    dup2(to, STDERR_FILENO);
    setenv("MB_LOG", "1", 1);
    mb_context *ctx = mb_open("cpu");
    unsetenv("MB_LOG");
    mb_scope_begin(ctx);
    int line = __LINE__ - 1;
    mb_tensor w = mb_scalar(ctx, MB_FLOAT32, 1);
    for (int step = 0; step < 1200; step++)
        mb_item(mb_mul(w, 0.99));
    mb_status status = mb_close(ctx);
    fflush(stderr);
    dup2(before, STDERR_FILENO);
    expect(status == MB_OK && pread(to, text, sizeof text - 1, 0) > 0, "nothing was told");
    char at[64];
    snprintf(at, sizeof at, "replay_test.c:%d", line);
    expect(strstr(text, "the tape has grown") && strstr(text, "open scopes") && strstr(text, at), "%s", text);
    close(to);
    close(before);
    unlink(path);
}

Test(replay, stats_count)
{
    mb_context *ctx = open_on("cpu");
    rng r = {1};
    mb_tensor a = draw(ctx, &r, MB_FLOAT32, MB_SHAPE(32, 48), -1, 1),
              b = draw(ctx, &r, MB_FLOAT32, MB_SHAPE(48, 20), -1, 1);
    mb_tensor y = mb_tanh(mb_matmul(a, b));
    mb_eval(&y, 1);
    mb_stats s = mb_get_stats(ctx);
    expect(s.flushes == 1 && s.plans == 1 && s.plan_hits == 0, "flushes %llu plans %llu",
           (unsigned long long)s.flushes, (unsigned long long)s.plans);
    expect(s.last_flops == 2 * 32 * 48 * 20, "flops %llu", (unsigned long long)s.last_flops);
    expect(s.last_steps >= 1 && s.last_steps <= 3 && s.last_nodes >= 4, "steps %llu nodes %llu",
           (unsigned long long)s.last_steps, (unsigned long long)s.last_nodes);
    expect(s.nodes >= 4 && s.recorded >= s.nodes && s.bytes > 0 && s.peak_bytes >= s.bytes &&
               s.plan_seconds > 0,
           "other counts");
    mb_eval(&y, 1);
    expect(mb_get_stats(ctx).flushes == 1, "what is kept is not computed again");
    close_all();
}

/* What a plan of many small ops holds: 1000 inner steps take 0.6 KB a node; a shorter loop, a little more.
 * The next step of the kind makes no plan. */
Test(replay, a_plan_holds_little)
{
    mb_context *ctx = mb_open("cpu");
    uint64_t plans[3];
    double held = 0;
    for (int run = 0; run < 3; run++) {
        mb_scope s = mb_scope_begin(ctx);
        mb_tensor W0 = mb_normal(ctx, mb_key_of(3), MB_FLOAT32, MB_SHAPE(8, 8)), W = W0, g;
        mb_tensor x = mb_normal(ctx, mb_key_of((uint64_t)run), MB_FLOAT32, MB_SHAPE(20, 8));
        mb_tensor y = mb_normal(ctx, mb_key_of(2), MB_FLOAT32, MB_SHAPE(20, 8));
        for (int t = 0; t < 300; t++) {
            mb_grad(mb_mean(mb_square(mb_sub(mb_tanh(mb_matmul(x, W)), y)), MB_ALL), &W, 1, &g);
            W = mb_sub(W, mb_mul(g, 0.1));
        }
        mb_grad(mb_dot(W, W), &W0, 1, &g);
        expect(mb_eval(&g, 1) == MB_OK, "%s", mb_message(ctx));
        mb_stats st = mb_get_stats(ctx);
        plans[run] = st.plans;
        held = (double)(st.plan_bytes - st.last_arena_bytes) / (double)st.last_nodes;
        mb_scope_end(s);
    }
    expect(plans[0] == 1 && plans[2] == 1, "%llu plans, then %llu", (unsigned long long)plans[0],
           (unsigned long long)plans[2]);
    expect(held < 700, "%g bytes a node", held);
    mb_close(ctx);
}

/* Values of many sizes, one alive at a time: what nobody uses is given back. */
Test(replay, unused_memory_is_given_back)
{
    counter c = {0};
    mb_allocator a = counting_allocator(&c);
    mb_context *ctx = mb_open_with(&(mb_options){.backend = "cpu", .allocator = &a, .threads = 1});
    const int64_t mib = 1 << 18; /* float32 */
    for (int64_t n = 1; n <= 160; n++) {
        mb_scope s = mb_scope_begin(ctx);
        mb_tensor x = mb_add(mb_zeros(ctx, MB_FLOAT32, MB_SHAPE(n * mib)), 1.0);
        expect(mb_eval(&x, 1) == MB_OK, "%s", mb_message(ctx));
        mb_scope_end(s);
    }
    double held = (double)mb_get_stats(ctx).bytes / (1 << 20),
           peak = (double)mb_get_stats(ctx).peak_bytes / (1 << 20);
    /* Of 160 MiB in use at most: a quarter more, 64 MiB, and rounding up to the next eighth. */
    expect(held < 300 && peak < 480, "%g MiB held, %g at the most", held, peak);
    mb_close(ctx);
}
