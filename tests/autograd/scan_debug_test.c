/* SPDX-License-Identifier: MIT
 * scan_debug_test.c - what MB_DEBUG, MB_PROFILE and MB_DUMP tell of scans. */
#include "support.h"

#include <unistd.h>

static mb_context *open_with_env(const char *backend, const char *name, const char *value)
{
    setenv(name, value, 1);
    mb_context *ctx = open_on(backend);
    unsetenv(name);
    return ctx;
}

/* x <- sqrt(x) - slice, with a scan of two more steps inside; *line: that of the root. */
static mb_tensor roots(mb_context *ctx, mb_tensor xs, bool backwards, mb_tensor *stack, int *line)
{
    mb_tensor x = mb_full(ctx, MB_FLOAT64, MB_SHAPE0, 4), y;
    mb_scan s = mb_scan_begin_with(ctx, mb_dim(xs, 0), (mb_scan_options){.backwards = backwards});
    mb_scan_carry(s, &x);
    mb_tensor d = mb_scan_slice(s, xs);
    mb_scan inner = mb_scan_begin(ctx, 2);
    mb_scan_carry(inner, &x);
    *line = __LINE__ + 1;
    y = mb_sqrt(x);
    x = mb_sub(y, d);
    mb_scan_end(inner);
    mb_scan_stack(s, y = mb_mul(x, 2.0), stack);
    mb_scan_end(s);
    return x;
}

/* The first NaN of a body, by its line and step; the same values where there is none. */
Test(scan_debug, names_a_nan_in_a_body)
{
    for (int b = 0; b < 2; b++)
        for (int backwards = 0; backwards < 2; backwards++) {
            mb_context *ctx = open_with_env(backend_names[b], "MB_DEBUG", "1");
            mb_context *plain = open_on(backend_names[b]);
            int line;
            double good[4] = {0.1, 0.2, 0.1, 0.3}, bad[4] = {0.1, 0.2, 5, 0.3};
            mb_tensor stack[2], x[2];
            for (int i = 0; i < 2; i++) {
                mb_context *c = i ? plain : ctx;
                mb_tensor xs = from_doubles(c, MB_FLOAT64, MB_SHAPE(4), good), g;
                x[i] = roots(c, xs, backwards, &stack[i], &line);
                mb_grad(mb_add(x[i], mb_sum(stack[i], MB_ALL)), &xs, 1, &g);
                double *got = values(g);
                expect(isfinite(got[0]) && isfinite(mb_item(x[i])), "%s", mb_message(c));
                stack[i] = g;
            }
            expect(near(mb_item(x[0]), mb_item(x[1]), 1e-14, 0), "another value");
            for (int i = 0; i < 4; i++)
                expect(near(values(stack[0])[i], values(stack[1])[i], 1e-12, 0), "another gradient");
            mb_tensor y =
                roots(ctx, from_doubles(ctx, MB_FLOAT64, MB_SHAPE(4), bad), backwards, stack, &line);
            char at[64];
            mb_item(y);
            snprintf(at, sizeof at, "scan_debug_test.c:%d: sqrt", line);
            expect(mb_error(ctx) == MB_INVALID && strstr(mb_message(ctx), at) &&
                       strstr(mb_message(ctx), "in step 2 of 4"),
                   "%s: %s", backend_names[b], mb_message(ctx));
            mb_clear_error(ctx);
            expect(mb_item(mb_exp(mb_full(ctx, MB_FLOAT64, MB_SHAPE0, 0))) == 1, "usable: %s",
                   mb_message(ctx));
            close_all();
        }
}

/* So is an index outside of its axis. */
Test(scan_debug, names_an_index_in_a_body)
{
    mb_context *ctx = open_with_env(backend_names[1], "MB_DEBUG", "1");
    mb_tensor table = from_doubles(ctx, MB_FLOAT64, MB_SHAPE(3), (double[]){1, 2, 3}), y, ys;
    mb_scan s = mb_scan_begin(ctx, 5);
    y = mb_take(table, mb_reshape(mb_scan_step(s), MB_SHAPE(1)), 0);
    mb_scan_stack(s, y, &ys);
    mb_scan_end(s);
    mb_eval(&ys, 1);
    expect(mb_error(ctx) == MB_INVALID && strstr(mb_message(ctx), "index 3") &&
               strstr(mb_message(ctx), "in step 3 of 5"),
           "%s", mb_message(ctx));
    mb_clear_error(ctx);
    close_all();
}

/* What was written to a file; in a static buffer. */
static const char *written(const char *path)
{
    static char text[20000];
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    text[n] = 0;
    if (f)
        fclose(f);
    return text;
}

static int tanh_line;
static mb_tensor tanhs(mb_context *ctx)
{
    mb_tensor x = mb_full(ctx, MB_FLOAT64, MB_SHAPE(5), 0.3);
    mb_scan s = mb_scan_begin(ctx, 100);
    mb_scan_carry(s, &x);
    tanh_line = __LINE__ + 1;
    x = mb_tanh(x);
    mb_scan_end(s);
    return x;
}

/* Steps within a loop are timed one by one, under their own lines; the loop is not counted twice. */
Test(scan_debug, profile_tells_the_body)
{
    char path[] = "/tmp/moebius_profile_XXXXXX", want[64];
    int fd = mkstemp(path);
    mb_context *ctx = open_with_env("cpu", "MB_PROFILE", path);
    bool untold = testing("vulkan") || !has_loops(ctx); /* no steps of a body */
    values(tanhs(ctx));
    close_all();
    const char *text = written(path), *line = strstr(text, "tanh over 5");
    snprintf(want, sizeof want, "scan_debug_test.c:%d", tanh_line);
    expect(untold || (line && strstr(line, want) && !strstr(text, "loop of")), "%s", text);
    while (line && line > text && line[-1] != '\n')
        line--;
    double share, seconds;
    int runs;
    expect(untold || (line && sscanf(line, "%lf %% %lf %d", &share, &seconds, &runs) == 3 && runs == 100),
           "%s", text);
    unlink(path);
    close(fd);
}

/* A body's dump says of which scan it is, and the loop names the body's plan. */
Test(scan_debug, dump_tells_the_body)
{
    char folder[] = "/tmp/moebius_dump_XXXXXX", path[64], want[64];
    cr_assert(mkdtemp(folder), "no folder");
    setenv("MB_DUMP_TO", folder, 1);
    mb_context *ctx = open_with_env("cpu", "MB_DUMP", "steps");
    unsetenv("MB_DUMP_TO");
    bool untold = testing("vulkan") || !has_loops(ctx); /* no plan of a body */
    values(tanhs(ctx));
    close_all();
    snprintf(want, sizeof want, "scan_debug_test.c:%d, steps:", tanh_line + 1);
    snprintf(path, sizeof path, "%s/plan-0001-steps.txt", folder);
    expect(untold || (strstr(written(path), "the body of the scan at ") && strstr(written(path), want)), "%s",
           written(path));
    snprintf(path, sizeof path, "%s/plan-0002-steps.txt", folder);
    expect(untold || strstr(written(path), "loop of 100, plan 1"), "%s", written(path));
    snprintf(path, sizeof path, "rm -r %s", folder);
    expect(system(path) == 0, "%s", path);
}
