/* SPDX-License-Identifier: MIT
 *
 * cost_test.c - what common functions cost an element, counted in the plan and not in time: instructions that
 * are done for each element, loads included, and selects among them. More of them is a slower step: raise a
 * number here only with a reason. */
#include <unistd.h>

#include "support.h"

static mb_tensor grad(mb_tensor y, mb_tensor x)
{
    mb_tensor g;
    mb_grad(mb_sum(y, MB_ALL), &x, 1, &g);
    return g;
}

static mb_tensor gelu(mb_tensor x)
{
    return mb_gelu(x);
}
static mb_tensor gelu_slope(mb_tensor x)
{
    return grad(mb_gelu(x), x);
}
static mb_tensor gelu_curvature(mb_tensor x)
{
    return grad(gelu_slope(x), x);
}
static mb_tensor silu(mb_tensor x)
{
    return mb_silu(x);
}
static mb_tensor silu_slope(mb_tensor x)
{
    return grad(mb_silu(x), x);
}
static mb_tensor gelu_erf_slope(mb_tensor x)
{
    return grad(mb_gelu_erf(x), x);
}
static mb_tensor norm(mb_tensor x)
{
    return mb_norm(x, MB_ALL);
}
static mb_tensor clipped(mb_tensor x)
{
    mb_clip_norm(&x, 1, 1, &x);
    return x;
}
static mb_tensor adam(mb_tensor x)
{
    mb_tensor m, v, lr = mb_scalar(x.ctx, MB_FLOAT32, 0.1);
    return mb_adam_update(x, x, lr, x, x, 1, NULL, &m, &v);
}

static const struct {
    const char *name;
    mb_tensor (*f)(mb_tensor x);
    int each;
} rows[] = {
    {"gelu", gelu, 9}, {"gelu'", gelu_slope, 18}, {"gelu''", gelu_curvature, 36},
    {"silu", silu, 5}, {"silu'", silu_slope, 8},  {"gelu_erf'", gelu_erf_slope, 15},
    {"norm", norm, 4}, {"clip_norm", clipped, 6}, {"adam", adam, 14},
};

/* Lines of the steps' tables such as "  i4  minimum  i2 i3  float32  each  a.c:5". */
static void count(FILE *f, int *each, int *selects)
{
    char line[4096], op[64], rest[4096];
    int number;
    *each = *selects = 0;
    while (fgets(line, sizeof line, f))
        if (sscanf(line, " i%d %63s %4095[^\n]", &number, op, rest) == 3 && strstr(rest, " each ")) {
            ++*each;
            *selects += strcmp(op, "where") == 0;
        }
}

Test(cost, instructions_of_an_element)
{
    char folder[] = "/tmp/moebius-cost-XXXXXX", path[100], command[100];
    cr_assert(mkdtemp(folder) != NULL);
    setenv("MB_DUMP", "kernels", 1);
    setenv("MB_DUMP_TO", folder, 1);
    mb_context *ctx = open_on(backend_names[1]);
    rng r = {1};
    mb_tensor x = draw(ctx, &r, MB_FLOAT32, MB_SHAPE(1000), -3, 3);
    for (int i = 0; i < (int)(sizeof rows / sizeof *rows); i++) {
        mb_tensor y = rows[i].f(x);
        expect(mb_eval(&y, 1) == MB_OK, "%s: %s", rows[i].name, mb_message(ctx));
        snprintf(path, sizeof path, "%s/plan-%04d-kernels.txt", folder, i + 1);
        FILE *f = fopen(path, "r");
        cr_assert(f != NULL, "%s is missing", path);
        int each, selects;
        count(f, &each, &selects);
        fclose(f);
        expect(each > 0 && each <= rows[i].each, "%s: %d instructions an element, of at most %d",
               rows[i].name, each, rows[i].each);
        expect(selects == 0, "%s: %d selects an element", rows[i].name, selects);
    }
    snprintf(command, sizeof command, "rm -r %s", folder);
    expect(system(command) == 0, "%s", command);
    close_all();
}
