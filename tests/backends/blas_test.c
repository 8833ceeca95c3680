/* SPDX-License-Identifier: MIT
 *
 * blas_test.c - OpenBLAS comes with the first context on the cpu backend, starts no thread of its own, and is
 * done without where there is no room for it. */
#include <dirent.h>
#include <sys/resource.h>

#include "support.h"

static int threads(void)
{
    DIR *d = opendir("/proc/self/task");
    int n = 0;
    for (struct dirent *e; d && (e = readdir(d));)
        n += e->d_name[0] != '.';
    if (d)
        closedir(d);
    return n;
}

/* Whether a line of /proc/self/FILE holds the text; its number, if it has one behind it. */
static bool proc_has(const char *file, const char *text, long long *number)
{
    char path[64], line[600];
    snprintf(path, sizeof path, "/proc/self/%s", file);
    FILE *f = fopen(path, "r");
    bool found = false;
    while (f && !found && fgets(line, sizeof line, f)) {
        char *at = strstr(line, text);
        found = at != NULL;
        if (found && number)
            *number = strtoll(at + strlen(text), NULL, 10);
    }
    if (f)
        fclose(f);
    return found;
}

static double large_product(mb_context *ctx)
{
    mb_tensor x = mb_mul(mb_ones(ctx, MB_FLOAT32, MB_SHAPE(600, 600)), 1.0);
    mb_eval(&x, 1);
    return mb_item(mb_mean(mb_matmul(x, x), MB_ALL));
}

Test(blas, comes_late_and_alone)
{
    if (!testing("cpu"))
        return;
    int before = threads();
    mb_context *ctx = open_on("reference");
    mb_item(mb_exp(mb_scalar(ctx, MB_FLOAT32, 1)));
    expect(!proc_has("maps", "openblas", NULL), "the reference backend loads OpenBLAS");
    ctx = open_as("cpu", NULL, 1);
    expect(near(large_product(ctx), 600, 1e-5, 0), "a product: %s", mb_message(ctx));
    expect(threads() == before, "%d threads, %d before", threads(), before);
    close_all();
}

/* With too little address space OpenBLAS would wait for ever for its buffers. */
Test(blas, no_room, .timeout = 60)
{
    if (!testing("cpu"))
        return;
    long long kilobytes = 0;
    expect(proc_has("status", "VmSize:", &kilobytes) && kilobytes > 0, "the size of this process");
    struct rlimit limit = {((rlim_t)kilobytes << 10) + ((rlim_t)160 << 20), RLIM_INFINITY};
    if (setrlimit(RLIMIT_AS, &limit) != 0)
        return;
    mb_context *ctx = open_as("cpu", NULL, 2);
    expect(near(large_product(ctx), 600, 1e-5, 0), "a product: %s", mb_message(ctx));
    close_all();
}
