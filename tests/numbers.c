/* SPDX-License-Identifier: MIT
 * numbers.c - see numbers.h. */
#include "numbers.h"

#include "tensor/half.h"

/* ---- memory ---- */

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
    return n > 0 ? (int64_t)(rng_bits(r) % (uint64_t)n)
                 : 0; /* of what a backend refused to make there is none */
}

double rng_between(rng *r, double low, double high)
{
    return low + (high - low) * ((double)(rng_bits(r) >> 11) * 0x1p-53);
}

/* ---- values ---- */

static void **kept;
static int kept_count, kept_capacity;

static void *keep(size_t size)
{
    if (kept_count == kept_capacity) {
        kept_capacity = kept_capacity ? 2 * kept_capacity : 64;
        kept = realloc(kept, (size_t)kept_capacity * sizeof *kept);
    }
    return kept[kept_count++] = calloc(size ? size : 1, 1);
}

void free_values(void)
{
    while (kept_count)
        free(kept[--kept_count]);
    free(kept);
    kept = NULL;
    kept_capacity = 0;
}

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
    for (int64_t i = 0; i < n; i++)
        mb__element_set(dtype, raw, i, data[i]);
    mb_tensor t = mb_from(ctx, dtype, shape, raw);
    free(raw);
    return t;
}

mb_tensor draw(mb_context *ctx, rng *r, mb_dtype dtype, mb_shape shape, double low, double high)
{
    int64_t n = shape_count(shape);
    double *data = malloc(((size_t)n + 1) * sizeof *data);
    for (int64_t i = 0; i < n; i++)
        data[i] = dtype == MB_BOOL ? (double)rng_below(r, 2)
                  : dtype == MB_INT32 || dtype == MB_INT64 || dtype == MB_UINT8
                      ? floor(rng_between(r, low, high))
                      : rng_between(r, low, high);
    mb_tensor t = from_doubles(ctx, dtype, shape, data);
    free(data);
    return t;
}

double *values_or_nan(mb_tensor t, mb_status *status)
{
    int64_t n = mb_count(t);
    mb_dtype dtype = mb_dtype_of(t);
    double *out = keep(((size_t)n + 1) * sizeof *out);
    void *raw = malloc(((size_t)n + 1) * 8);
    *status = mb_read(t, raw, (size_t)n * mb_dtype_size(dtype));
    for (int64_t i = 0; i < n; i++)
        out[i] = *status != MB_OK ? (double)NAN : mb__element_of(dtype, raw, i);
    free(raw);
    return out;
}

double *values_if(mb_tensor t)
{
    mb_status status;
    double *out = values_or_nan(t, &status);
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
