/* SPDX-License-Identifier: MIT
 *
 * npy.c - arrays in NumPy's .npy files.
 *
 * An .npy file: "\x93NUMPY", two bytes of version, the length of its header (u16 in version 1, u32 in 2 and
 * 3, little-endian), the header, and the values. The header is a dictionary as Python writes it, of 'descr',
 * 'fortran_order' and 'shape' (numpy.org/doc/stable/reference/generated/numpy.lib.format.html). */
#include <errno.h>
#include <stdio.h>

#include "tensor/files/safetensors.h"

enum { HEADER_MAX = 10000, PREFIX = 10, ALIGNMENT = 64 }; /* HEADER_MAX: NumPy's own, by default */

/* What values are in the file, and what they become. */
typedef struct kind {
    const char *name; /* as in 'descr', without the byte order */
    int bytes;
    mb_dtype dtype;
} kind;

static const kind kinds[] = {
    {"f4", 4, MB_FLOAT32}, {"f8", 8, MB_FLOAT64}, {"i4", 4, MB_INT32}, {"b1", 1, MB_BOOL},
    {"f2", 2, MB_FLOAT16}, {"u1", 1, MB_UINT8},   {"i8", 8, MB_INT64}, {"i1", 1, MB_INT32},
    {"i2", 2, MB_INT32},   {"u2", 2, MB_INT32},   {"u4", 4, MB_INT64}, {"u8", 8, MB_INT64},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

typedef struct npy {
    mb_context *ctx;
    const char *path; /* for messages */
    int fd;
    uint64_t size, data_at; /* of the file; where values begin */
    const kind *kind;
    bool fortran;
    mb_shape shape;
    int64_t count;
    const char *at, *end; /* the unread part of the header */
    char header[HEADER_MAX];
} npy;

static bool wrong(const npy *f, const char *what)
{
    mb_fail(f->ctx, MB_FORMAT, "npy: %s: %s", f->path, what);
    return false;
}

static bool read_at(const npy *f, void *to, size_t bytes, uint64_t at)
{
    int error = mb__read_fully(f->fd, to, bytes, at);
    if (error)
        mb_fail(f->ctx, MB_IO, "npy: %s: %s", f->path,
                error == -1 ? "the file became shorter while it was read" : strerror(error));
    return !error;
}

/* ---- the header ---- */

static void skip_spaces(npy *f)
{
    while (f->at < f->end && strchr(" \t\r\n", *f->at) && *f->at)
        f->at++;
}

/* Takes a character or a word, after spaces. */
static bool take(npy *f, const char *word)
{
    skip_spaces(f);
    size_t n = strlen(word);
    if ((size_t)(f->end - f->at) < n || memcmp(f->at, word, n) != 0)
        return false;
    f->at += n;
    return true;
}

/* Takes a string in quotes of either kind, without escapes, into out. */
static bool take_string(npy *f, char *out, size_t capacity)
{
    char quote = take(f, "'") ? '\'' : take(f, "\"") ? '"' : 0;
    size_t n = 0;
    if (!quote)
        return false;
    for (; f->at < f->end && *f->at != quote; f->at++)
        if (n + 1 < capacity)
            out[n++] = *f->at;
    out[n] = 0;
    return f->at < f->end && *f->at++ == quote;
}

static bool take_kind(npy *f)
{
    char descr[32] = "a structure", shown[32], what[128];
    if (!take_string(f, descr, sizeof descr) && !take(f, "["))
        return wrong(f, "its header has no string as 'descr'");
    bool ordered = descr[0] == '<' || descr[0] == '|';
    for (int i = 0; i < KINDS; i++)
        if (strcmp(descr + ordered, kinds[i].name) == 0 && (ordered || kinds[i].bytes == 1))
            f->kind = &kinds[i];
    if (f->kind)
        return true;
    snprintf(what, sizeof what,
             "values of '%s'; f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 and b1 are read, little-endian",
             mb__printable(shown, sizeof shown, descr));
    return wrong(f, what);
}

static bool take_size(npy *f, int64_t *size)
{
    skip_spaces(f);
    const char *first = f->at;
    uint64_t n = 0;
    for (; f->at < f->end && *f->at >= '0' && *f->at <= '9' && n < MB__ST_SIZE_MAX; f->at++)
        n = n * 10 + (uint64_t)(*f->at - '0');
    *size = (int64_t)n;
    return f->at > first && n < MB__ST_SIZE_MAX;
}

static bool take_shape(npy *f)
{
    mb_shape *s = &f->shape;
    bool comma = true;
    if (!take(f, "("))
        return wrong(f, "its header has no tuple as 'shape'");
    for (s->rank = 0; !take(f, ")"); s->rank++) {
        if (s->rank == MB_MAX_RANK)
            return wrong(f, "the rank is above 8");
        if (!comma || !take_size(f, &s->dim[s->rank]))
            return wrong(f, "its header has a 'shape' that is not of sizes below 2^48");
        comma = take(f, ",");
    }
    return true;
}

/* One `key: value` of the header. seen: bits of those that were there. */
static bool take_entry(npy *f, unsigned *seen)
{
    static const char *const keys[] = {"descr", "fortran_order", "shape"};
    char key[32];
    int k = 0;
    if (!take_string(f, key, sizeof key) || !take(f, ":"))
        return wrong(f, "its header is not a dictionary of 'descr', 'fortran_order' and 'shape'");
    while (k < 3 && strcmp(key, keys[k]) != 0)
        k++;
    if (k == 3 || *seen & 1u << k)
        return wrong(f, "its header has another key than 'descr', 'fortran_order' and 'shape', or one twice");
    *seen |= 1u << k;
    if (k == 0)
        return take_kind(f);
    if (k == 2)
        return take_shape(f);
    f->fortran = take(f, "True");
    return f->fortran || take(f, "False") || wrong(f, "its 'fortran_order' is neither True nor False");
}

static bool parse(npy *f)
{
    unsigned seen = 0;
    bool more = true;
    if (!take(f, "{"))
        return wrong(f, "its header is not a dictionary");
    while (!take(f, "}")) {
        if (!more)
            return wrong(f, "its header has no comma between two entries, or does not end");
        if (!take_entry(f, &seen))
            return false;
        more = take(f, ",");
    }
    skip_spaces(f);
    return (seen == 7 && f->at == f->end) ||
           wrong(f, "its header lacks one of 'descr', 'fortran_order' and 'shape', or goes on after them");
}

/* Whether the file holds the values, and nothing else. */
static bool check_size(npy *f)
{
    char shape[128];
    uint64_t bytes = (uint64_t)f->kind->bytes, there = f->size - f->data_at;
    bool zero = false, absurd = false;
    for (int i = 0; i < f->shape.rank; i++) {
        zero |= f->shape.dim[i] == 0;
        if (f->shape.dim[i])
            absurd |= __builtin_mul_overflow(bytes, (uint64_t)f->shape.dim[i], &bytes);
    }
    bytes = zero ? 0 : bytes;
    mb__shape_text(shape, sizeof shape, f->shape.dim, f->shape.rank);
    if (absurd ? !zero : bytes != there)
        mb_fail(f->ctx, MB_FORMAT, "npy: %s: %s of '%s' are %s%llu bytes, and there are %llu", f->path, shape,
                f->kind->name, absurd ? "more than " : "", (unsigned long long)(absurd ? there : bytes),
                (unsigned long long)there);
    f->count = (int64_t)(bytes / (uint64_t)f->kind->bytes);
    return mb_error(f->ctx) == MB_OK;
}

static bool read_header(npy *f)
{
    unsigned char p[PREFIX + 2] = {0};
    if (f->size < PREFIX)
        return wrong(f, "too few bytes for an .npy file");
    if (!read_at(f, p, f->size < sizeof p ? PREFIX : sizeof p, 0))
        return false;
    if (memcmp(p, "\x93NUMPY", 6) != 0 || p[6] < 1 || p[6] > 3)
        return wrong(f, "not an .npy file of version 1 to 3");
    uint64_t prefix = p[6] == 1 ? PREFIX : PREFIX + 2, n = (uint64_t)p[8] | (uint64_t)p[9] << 8;
    if (p[6] > 1)
        n |= (uint64_t)p[10] << 16 | (uint64_t)p[11] << 24;
    if (n > HEADER_MAX || prefix + n > f->size)
        return wrong(f, "its header is longer than the file, or than 10000 bytes");
    if (!read_at(f, f->header, (size_t)n, prefix))
        return false;
    f->data_at = prefix + n;
    f->at = f->header;
    f->end = f->header + n;
    return parse(f) && check_size(f);
}

/* ---- values ---- */

/* One value of an integer kind; what u8 has beyond int64 becomes -1, which no u8 is. */
static int64_t from_integer(const kind *k, const unsigned char *from)
{
    uint64_t bits = 0;
    memcpy(&bits, from, (size_t)k->bytes);
    int unused = 64 - 8 * k->bytes;
    if (k->name[0] == 'i')
        return (int64_t)(bits << unused) >> unused;
    return bits > INT64_MAX ? -1 : (int64_t)bits;
}

/* Makes int32 or int64 of what is narrower. False: a value does not fit, or is no bool. */
static bool convert(npy *f, const unsigned char *from, void *to)
{
    const kind *k = f->kind;
    for (int64_t i = 0; i < f->count; i++, from += k->bytes) {
        int64_t n = from_integer(k, from);
        if ((k->name[0] == 'u' && n < 0) || (k->dtype == MB_BOOL && n > 1)) {
            mb_fail(f->ctx, MB_FORMAT, "npy: %s: value %lld of the file is %s, which %s cannot hold", f->path,
                    (long long)i, n < 0 ? "2^63 or more" : "neither 0 nor 1", mb_dtype_name(k->dtype));
            return false;
        }
        if (k->dtype == MB_INT32)
            ((int32_t *)to)[i] = (int32_t)n;
        else if (k->dtype == MB_INT64)
            ((int64_t *)to)[i] = n;
    }
    return true;
}

/* Values in Fortran's order are those of the array with its axes the other way round. */
static mb_tensor make(const npy *f, const void *values)
{
    if (!f->fortran)
        return mb_from(f->ctx, f->kind->dtype, f->shape, values);
    mb_shape s = f->shape;
    mb_axes order = {.count = s.rank};
    for (int i = 0; i < s.rank; i++) {
        order.axis[i] = s.rank - 1 - i;
        s.dim[i] = f->shape.dim[s.rank - 1 - i];
    }
    return mb_permute(mb_from(f->ctx, f->kind->dtype, s, values), order);
}

static mb_tensor read_values(npy *f)
{
    mb_tensor t = {NULL, 0, 0};
    const kind *k = f->kind;
    size_t bytes = (size_t)f->count * (size_t)k->bytes,
           made = (size_t)f->count * mb_dtype_size(k->dtype); /* at most 4 times the file's */
    bool as_it_is = made == bytes, same = as_it_is && k->dtype != MB_BOOL && k->name[0] != 'u';
    same |= k->dtype == MB_UINT8;
    unsigned char *from = mb__alloc(f->ctx, bytes);
    void *to = from && !as_it_is ? mb__alloc(f->ctx, made) : NULL;
    if (from && (as_it_is || to) && read_at(f, from, bytes, f->data_at) &&
        (same || convert(f, from, as_it_is ? (void *)from : to)))
        t = make(f, as_it_is ? from : to);
    mb__free(f->ctx, to, made);
    mb__free(f->ctx, from, bytes);
    return mb_valid(t) ? t : (mb_tensor){NULL, 0, 0};
}

mb_tensor mb_npy_load_at(const char *site, mb_context *ctx, const char *path)
{
    MB_SITE(ctx, site);
    mb_tensor t = {NULL, 0, 0};
    if (!mb__enter_context("npy", ctx))
        return t;
    if (!path) {
        mb_fail(ctx, MB_INVALID, "npy: no path");
        return t;
    }
    npy *f = mb__alloc(ctx, sizeof *f);
    if (!f)
        return t;
    *f = (npy){.ctx = ctx, .path = mb__path_tail(path)};
    f->fd = mb__open_regular(ctx, "npy", path, &f->size);
    if (f->fd >= 0 && read_header(f))
        t = read_values(f);
    if (f->fd >= 0)
        mb__close(f->fd);
    mb__free(ctx, f, sizeof *f);
    return t;
}

/* ---- saving ---- */

typedef struct saving {
    mb_tensor t;
    size_t header_bytes;
    char header[512];
} saving;

static void put_header(saving *s)
{
    static const char *const descr[] = {"<f4", "<f8", "<i4", "|b1",
                                        "<f2", "",    "<i8", "|u1"}; /* by mb_dtype */
    char sizes[256] = "";
    size_t n = 0;
    mb_shape shape = mb_shape_of(s->t);
    for (int i = 0; i < shape.rank; i++)
        n += (size_t)snprintf(sizes + n, sizeof sizes - n, "%s%lld%s", i ? " " : "", (long long)shape.dim[i],
                              shape.rank == 1 || i + 1 < shape.rank ? "," : "");
    char *text = s->header + PREFIX;
    n = (size_t)snprintf(text, sizeof s->header - PREFIX,
                         "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", descr[mb_dtype_of(s->t)],
                         sizes);
    s->header_bytes = (PREFIX + n + 1 + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    memset(text + n, ' ', s->header_bytes - PREFIX - n);
    s->header[s->header_bytes - 1] = '\n';
    size_t length = s->header_bytes - PREFIX;
    memcpy(s->header, "\x93NUMPY\1", 8);
    s->header[8] = (char)(length & 255);
    s->header[9] = (char)(length >> 8);
}

static int write_all(void *user, int fd)
{
    const saving *s = user;
    mb_context *ctx = s->t.ctx;
    size_t bytes = (size_t)mb_count(s->t) * mb_dtype_size(mb_dtype_of(s->t));
    void *data = mb__alloc(ctx, bytes);
    int error = data && mb_read(s->t, data, bytes) == MB_OK ? 0 : -1;
    if (!error)
        error = mb__write_fully(fd, s->header, s->header_bytes);
    if (!error)
        error = mb__write_fully(fd, data, bytes);
    mb__free(ctx, data, bytes);
    return error;
}

mb_status mb_npy_save_at(const char *site, const char *path, mb_tensor t)
{
    MB_SITE(t.ctx, site);
    if (!t.ctx)
        return MB_INVALID;
    if (!mb__enter_context("npy", t.ctx))
        return mb_error(t.ctx) ? mb_error(t.ctx) : MB_THREAD;
    if (!path || !*path)
        return mb_fail(t.ctx, MB_INVALID, "npy: no path");
    if (mb_valid(t) && mb_dtype_of(t) == MB_BFLOAT16)
        return mb_fail(t.ctx, MB_INVALID,
                       "npy: NumPy has no bfloat16: cast to float32, which holds it exactly");
    saving s = {.t = t};
    if (mb_eval(&t, 1) != MB_OK) /* before a file is made */
        return mb_error(t.ctx);
    put_header(&s);
    return mb__replace_file(t.ctx, "npy", path, write_all, &s);
}
