/* SPDX-License-Identifier: MIT
 * support.c - see support.h. */
#include <dlfcn.h>
#include <stdarg.h>
#include <time.h>
#include <unistd.h>

#include "support.h"

#include "backends/engine/state.h"
#ifdef MB_HAVE_VULKAN
#include <stdatomic.h>
extern atomic_int mb__vk_unheard; /* backends/vulkan/device/device.h */
#endif

const char *backend_names[2] = {"reference", "cpu"};

/* Another backend takes the cpu's place in every test: TESTS_BACKEND=vulkan. */
static const char *other_backend;
__attribute__((constructor)) static void take_place(void)
{
    const char *name = getenv("TESTS_BACKEND");
    if (name && *name)
        backend_names[1] = other_backend = name;
    /* A driver that is unloaded leaves behind what its globals held, and leak checkers blame that on us. */
    const char *keep = getenv("TESTS_KEEP_LOADED");
    if (keep && *keep)
        dlopen(keep, RTLD_NOW | RTLD_NODELETE);
}

bool testing(const char *backend)
{
    return !strncmp(backend_names[1], backend, strlen(backend));
}

/* One of the three that are tested in full: none of what their tests check depends on what they answer. */
static bool is_whole(mb_context *ctx)
{
    static const char *const whole[] = {"cpu", "reference", "vulkan"};
    for (int i = 0; i < 3; i++)
        if (!strcmp(mb_backend_name(ctx), whole[i]))
            return true;
    cr_assert(other_backend, "%s is tested, and TESTS_BACKEND does not name it", mb_backend_name(ctx));
    return false;
}

bool has_dtype(mb_context *ctx, mb_dtype dtype)
{
    static bool asked[MB_DTYPES], lacks[MB_DTYPES]; /* of the only one that is asked: $TESTS_BACKEND */
    if (is_whole(ctx))
        return true;
    if (!asked[dtype]) {
        char zero[8] = {0};
        mb_context *fresh = mb_open(other_backend);
        mb_tensor x = mb_flip(mb_from(fresh, dtype, MB_SHAPE(1), zero), 0);
        lacks[dtype] = mb_read(x, zero, mb_dtype_size(dtype)) == MB_BACKEND;
        mb_close(fresh);
        asked[dtype] = true;
    }
    return !lacks[dtype];
}

bool has_loops(mb_context *ctx)
{
    return is_whole(ctx) || ((mb__engine_state *)ctx->engine_state)->backend->loops;
}

bool is_slow(void)
{
    return getenv("TESTS_SLOW") != NULL;
}

/* In place of Criterion's. The tests run in processes of their own; this one, which starts them, leaves
 * without the checks for leaks at exit: with several jobs Criterion loses a few blocks here. */
int main(int argc, char **argv)
{
    struct criterion_test_set *tests = criterion_initialize();
    bool ok = !criterion_handle_args(argc, argv, true) || criterion_run_all_tests(tests);
    criterion_finalize(tests);
    fflush(NULL);
    _exit(!ok);
}

/* ---- expectations ---- */

static int failures;

bool expect_at(const char *file, int line, bool ok, const char *format, ...)
{
    if (ok)
        return true;
    if (failures++ < 8) {
        char text[2000];
        va_list args;
        va_start(args, format);
        vsnprintf(text, sizeof text, format, args);
        va_end(args);
        const char *base = strrchr(file, '/');
        cr_expect_fail("%s:%d: %s", base ? base + 1 : file, line, text);
    }
    return false;
}

/* ---- contexts ---- */

#define MOST 64
static struct {
    mb_context *ctx;
    counter counter;
} open[MOST];

mb_context *open_as(const char *backend, const char *disable, int threads)
{
    int i = 0;
    while (i < MOST && open[i].ctx)
        i++;
    cr_assert(i < MOST, "too many contexts");
    memset(&open[i].counter, 0, sizeof open[i].counter);
    mb_allocator allocator = counting_allocator(&open[i].counter);
    const char *left_out = disable ? disable : getenv("TESTS_DISABLE");
    mb_context *ctx = mb_open_with(
        &(mb_options){.size = sizeof(mb_options),
                      .backend = other_backend && !strcmp(backend, "cpu") ? other_backend : backend,
                      .disable = left_out ? left_out : "",
                      .threads = threads,
                      .allocator = &allocator});
    cr_assert(ctx && mb_error(ctx) == MB_OK, "%s", mb_message(ctx));
    return open[i].ctx = ctx;
}

mb_context *open_on(const char *backend)
{
    return open_as(backend, NULL, 0);
}

static void close_one(int i, bool failed)
{
    if (!failed)
        expect_ok(open[i].ctx);
    mb_close(open[i].ctx);
    open[i].ctx = NULL;
    expect(open[i].counter.blocks == 0 && open[i].counter.bytes == 0,
           "%lld bytes in %lld blocks left after mb_close", (long long)open[i].counter.bytes,
           (long long)open[i].counter.blocks);
#ifdef MB_HAVE_VULKAN
    expect(atomic_load(&mb__vk_unheard) == 0, "%d validation messages that no error told",
           atomic_load(&mb__vk_unheard));
#endif
}

void close_failed(mb_context *ctx)
{
    for (int i = 0; i < MOST; i++)
        if (open[i].ctx == ctx)
            close_one(i, true);
}

void close_all(void)
{
    for (int i = 0; i < MOST; i++)
        if (open[i].ctx)
            close_one(i, false);
    free_values();
}

/* ---- values ---- */

double *values(mb_tensor t)
{
    mb_status status;
    double *out = values_or_nan(t, &status);
    expect(status == MB_OK && mb_valid(t), "read: %s: %s", mb_status_name(status),
           t.ctx ? mb_message(t.ctx) : "no context");
    return out;
}

double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
