/* SPDX-License-Identifier: MIT
 * support.c - see support.h. */
#include <dlfcn.h>
#include <stdarg.h>
#include <time.h>
#include <unistd.h>

#include "support.h"
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

static void *count_alloc(void *user, size_t size)
{
    counter *c = user;
    c->calls++;
    if (c->fail_at && (c->fail_on ? c->calls >= c->fail_at : c->calls == c->fail_at))
        return NULL;
    void *p = malloc(size ? size : 1);
    if (p) {
        memset(p, 0xa5, size); /* whoever reads what was never written gets noise */
        c->blocks++;
        c->bytes += (int64_t)size;
        c->peak = c->bytes > c->peak ? c->bytes : c->peak;
    }
    return p;
}

static void count_free(void *user, void *p, size_t size)
{
    counter *c = user;
    if (!p)
        return;
    c->blocks--;
    c->bytes -= (int64_t)size;
    memset(p, 0x5a, size);
    free(p);
}

static void *count_realloc(void *user, void *p, size_t old_size, size_t size)
{
    void *q = count_alloc(user, size);
    if (q && p) {
        memcpy(q, p, old_size < size ? old_size : size);
        count_free(user, p, old_size);
    }
    return q;
}

mb_allocator counting_allocator(counter *c)
{
    return (mb_allocator){count_alloc, count_realloc, count_free, c};
}

#define MOST 64
static struct {
    mb_context *ctx;
    counter counter;
} open[MOST];

static void **kept;
static int kept_count, kept_room;

static void *keep(size_t size)
{
    if (kept_count == kept_room) {
        kept_room = kept_room ? 2 * kept_room : 64;
        kept = realloc(kept, (size_t)kept_room * sizeof *kept);
    }
    return kept[kept_count++] = calloc(size ? size : 1, 1);
}

mb_context *open_as(const char *backend, const char *disable, int threads)
{
    int i = 0;
    while (i < MOST && open[i].ctx)
        i++;
    cr_assert(i < MOST, "too many contexts");
    memset(&open[i].counter, 0, sizeof open[i].counter);
    mb_allocator allocator = counting_allocator(&open[i].counter);
    mb_context *ctx = mb_open_with(
        &(mb_options){.size = sizeof(mb_options),
                      .backend = other_backend && !strcmp(backend, "cpu") ? other_backend : backend,
                      .disable = disable ? disable : "",
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
    while (kept_count)
        free(kept[--kept_count]);
    free(kept);
    kept = NULL;
    kept_room = 0;
}

/* ---- random numbers ---- */

uint64_t rng_bits(rng *r)
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

int64_t rng_below(rng *r, int64_t n)
{
    return (int64_t)(rng_bits(r) % (uint64_t)n);
}

double rng_between(rng *r, double low, double high)
{
    return low + (high - low) * ((double)(rng_bits(r) >> 11) * 0x1p-53);
}

/* ---- values ---- */

int64_t shape_count(mb_shape s)
{
    int64_t n = 1;
    for (int i = 0; i < s.rank; i++)
        n *= s.dim[i];
    return n;
}

bool same_shape(mb_shape a, mb_shape b)
{
    return a.rank == b.rank && !memcmp(a.dim, b.dim, (size_t)a.rank * sizeof *a.dim);
}

const char *shape_text(mb_shape s)
{
    static char text[8][128];
    static int next;
    char *p = text[next++ % 8];
    int n = snprintf(p, sizeof text[0], "[");
    for (int i = 0; i < s.rank; i++)
        n += snprintf(p + n, sizeof text[0] - (size_t)n, "%s%lld", i ? "," : "", (long long)s.dim[i]);
    snprintf(p + n, sizeof text[0] - (size_t)n, "]");
    return p;
}

mb_tensor from_doubles(mb_context *ctx, mb_dtype dtype, mb_shape shape, const double *data)
{
    int64_t n = shape_count(shape);
    void *raw = calloc((size_t)n + 1, 8);
    for (int64_t i = 0; i < n; i++) {
        if (dtype == MB_FLOAT32)
            ((float *)raw)[i] = (float)data[i];
        else if (dtype == MB_FLOAT64)
            ((double *)raw)[i] = data[i];
        else if (dtype == MB_INT32)
            ((int32_t *)raw)[i] = (int32_t)data[i];
        else
            ((uint8_t *)raw)[i] = data[i] != 0;
    }
    mb_tensor t = mb_from(ctx, dtype, shape, raw);
    free(raw);
    return t;
}

mb_tensor draw(mb_context *ctx, rng *r, mb_dtype dtype, mb_shape shape, double low, double high)
{
    int64_t n = shape_count(shape);
    double *data = malloc(((size_t)n + 1) * sizeof *data);
    for (int64_t i = 0; i < n; i++)
        data[i] = dtype == MB_BOOL    ? (double)rng_below(r, 2)
                  : dtype == MB_INT32 ? floor(rng_between(r, low, high))
                                      : rng_between(r, low, high);
    mb_tensor t = from_doubles(ctx, dtype, shape, data);
    free(data);
    return t;
}

static double *fetch(mb_tensor t, mb_status *status_out)
{
    int64_t n = mb_count(t);
    mb_dtype dtype = mb_dtype_of(t);
    double *out = keep(((size_t)n + 1) * sizeof *out);
    void *raw = malloc(((size_t)n + 1) * 8);
    mb_status status = *status_out = mb_read(t, raw, (size_t)n * mb_dtype_size(dtype));
    for (int64_t i = 0; i < n; i++)
        out[i] = status != MB_OK       ? (double)NAN
                 : dtype == MB_FLOAT32 ? (double)((float *)raw)[i]
                 : dtype == MB_FLOAT64 ? ((double *)raw)[i]
                 : dtype == MB_INT32   ? ((int32_t *)raw)[i]
                                       : ((uint8_t *)raw)[i];
    free(raw);
    return out;
}

double *values(mb_tensor t)
{
    mb_status status;
    double *out = fetch(t, &status);
    expect(status == MB_OK && mb_valid(t), "read: %s: %s", mb_status_name(status),
           t.ctx ? mb_message(t.ctx) : "no context");
    return out;
}

double *values_if(mb_tensor t)
{
    mb_status status;
    double *out = fetch(t, &status);
    return status == MB_OK ? out : NULL;
}

double nmse(const double *a, const double *b, int64_t n)
{
    double error = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        if (isnan(b[i]) || isinf(b[i]) || !isfinite(a[i])) {
            if (isnan(b[i]) ? !isnan(a[i]) : a[i] != b[i])
                return (double)INFINITY;
            continue;
        }
        error += (a[i] - b[i]) * (a[i] - b[i]);
        size += b[i] * b[i];
    }
    return error == 0 ? 0 : error / size;
}

bool same_bits(const double *a, const double *b, int64_t n)
{
    return !memcmp(a, b, (size_t)n * sizeof *a);
}

bool near(double a, double b, double relative, double absolute)
{
    if (isnan(a) || isnan(b))
        return isnan(a) && isnan(b);
    return a == b || fabs(a - b) <= absolute + relative * fabs(b);
}

double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
