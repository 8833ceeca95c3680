/* SPDX-License-Identifier: MIT
 *
 * safetensors_save.c - writing a safetensors file. */
#include <stdarg.h>
#include <stdio.h>

#include "tensor/files/safetensors.h"

/* A text being written; while data is NULL its length is counted. */
typedef struct text {
    char *data;
    size_t bytes;
} text;

typedef struct saving {
    const char *path;
    mb_context *ctx;
    const char *const *names;
    const mb_tensor *ts;
    int n;
    const char *const *metadata;
    int *order;   /* [n] as written */
    bool by_name; /* sort by name alone, to find equal names */
    text header;
} saving;

static void put(text *t, const char *s, size_t bytes)
{
    if (t->data)
        memcpy(t->data + t->bytes, s, bytes);
    t->bytes += bytes;
}

static void putf(text *t, const char *format, ...) MB_PRINTF(2, 3);

/* For short texts: numbers and punctuation. */
static void putf(text *t, const char *format, ...)
{
    char piece[128];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(piece, sizeof piece, format, args);
    va_end(args);
    put(t, piece, (size_t)n);
}

static void put_string(text *t, const char *s)
{
    put(t, "\"", 1);
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            putf(t, "\\%c", *s);
        else if ((unsigned char)*s < 0x20)
            putf(t, "\\u%04x", (unsigned)*s);
        else
            put(t, s, 1);
    }
    put(t, "\"", 1);
}

static const char *dtype_name(mb_dtype dtype)
{
    static const char *const names[MB_DTYPES] = {"F32", "F64", "I32", "BOOL", "F16", "BF16", "I64", "U8"};
    return names[dtype];
}

/* The reference writer's order: largest element size first, so that all are aligned; then by name. */
static int compare(const saving *s, int a, int b)
{
    /* By mb_dtype; equal sizes as the reference orders them. */
    static const int width[MB_DTYPES] = {7, 8, 5, 1, 3, 4, 9, 2};
    if (s->by_name)
        return strcmp(s->names[a], s->names[b]);
    int wa = width[mb_dtype_of(s->ts[a])], wb = width[mb_dtype_of(s->ts[b])];
    return wa != wb ? wb - wa : strcmp(s->names[a], s->names[b]);
}

static void sort(const saving *s)
{
    for (int gap = s->n / 2; gap > 0; gap /= 2) /* Shell sort: at most thousands of tensors */
        for (int i = gap; i < s->n; i++) {
            int moving = s->order[i], j = i;
            for (; j >= gap && compare(s, s->order[j - gap], moving) > 0; j -= gap)
                s->order[j] = s->order[j - gap];
            s->order[j] = moving;
        }
}

static size_t tensor_bytes(mb_tensor t)
{
    return (size_t)mb_count(t) * mb_dtype_size(mb_dtype_of(t));
}

static void put_header(const saving *s, text *t)
{
    const char *comma = "";
    putf(t, "{");
    if (s->metadata && s->metadata[0]) {
        putf(t, "\"__metadata__\":{");
        for (int i = 0; s->metadata[i]; i += 2) {
            put(t, ",", i > 0);
            put_string(t, s->metadata[i]);
            putf(t, ":");
            put_string(t, s->metadata[i + 1]);
        }
        putf(t, "}");
        comma = ",";
    }
    uint64_t at = 0;
    for (int i = 0; i < s->n; i++) {
        mb_tensor x = s->ts[s->order[i]];
        mb_shape shape = mb_shape_of(x);
        putf(t, "%s", comma);
        comma = ",";
        put_string(t, s->names[s->order[i]]);
        putf(t, ":{\"dtype\":\"%s\",\"shape\":[", dtype_name(mb_dtype_of(x)));
        for (int a = 0; a < shape.rank; a++)
            putf(t, "%s%lld", a ? "," : "", (long long)shape.dim[a]);
        putf(t, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at,
             (unsigned long long)(at + tensor_bytes(x)));
        at += tensor_bytes(x);
    }
    putf(t, "}");
    while (t->bytes % 8)
        put(t, " ", 1);
}

static bool invalid(const saving *s, const char *what, const char *name)
{
    char shown[96];
    mb_fail(s->ctx, MB_INVALID, "safetensors: %s: %s '%s'", mb__path_tail(s->path), what,
            mb__printable(shown, sizeof shown, name));
    return false;
}

static bool check_arguments(const saving *s)
{
    for (int i = 0; i < s->n; i++) {
        const char *name = s->names[i];
        if (!name || !mb__st_name(name))
            return invalid(s, "not a name for a tensor:", name ? name : "(null)");
        if (s->ts[i].ctx != s->ctx) {
            return invalid(s, s->ts[i].ctx ? "a tensor of another context:" : "not a tensor:", name);
        }
    }
    int pairs = 0;
    for (const char *const *m = s->metadata; m && m[0]; m += 2, pairs++) {
        if (!m[1])
            return invalid(s, "metadata without a value:", m[0]);
        if (!mb__is_utf8(m[0]) || !mb__is_utf8(m[1]))
            return invalid(s, "metadata that is not UTF-8:", m[0]);
        for (const char *const *k = s->metadata; k < m; k += 2)
            if (strcmp(*k, m[0]) == 0)
                return invalid(s, "metadata given twice:", m[0]);
    }
    if (pairs > MB__ST_METADATA_MAX)
        return invalid(s, "too many entries of metadata:", s->metadata[0]);
    return true;
}

/* 0, an errno, or -1 if the error is the context's. */
static int write_all(void *user, int fd)
{
    const saving *s = user;
    uint64_t n = s->header.bytes;
    int error = mb__write_fully(fd, &n, sizeof n);
    if (!error)
        error = mb__write_fully(fd, s->header.data, s->header.bytes);
    size_t largest = 0;
    for (int i = 0; i < s->n; i++)
        if (tensor_bytes(s->ts[i]) > largest)
            largest = tensor_bytes(s->ts[i]);
    void *data = error ? NULL : mb__alloc(s->ctx, largest);
    if (!error && !data)
        return -1;
    for (int i = 0; i < s->n && !error; i++) {
        mb_tensor t = s->ts[s->order[i]];
        error = mb_read(t, data, tensor_bytes(t)) ? -1 : mb__write_fully(fd, data, tensor_bytes(t));
    }
    mb__free(s->ctx, data, largest);
    return error;
}

mb_status mb_safetensors_save_at(const char *site, mb_context *ctx, const char *path,
                                 const char *const *names, const mb_tensor *ts, int n,
                                 const char *const *metadata)
{
    MB_SITE(ctx, site);
    if (!ctx)
        return MB_INVALID;
    if (!mb__enter_context("safetensors", ctx))
        return mb_error(ctx) ? mb_error(ctx) : MB_THREAD;
    if (!path || !*path || n < 0 || (n > 0 && (!names || !ts)))
        return mb_fail(ctx, MB_INVALID, "safetensors: no path, names or tensors");
    saving s = {path, ctx, names, ts, n, metadata, NULL, true, {NULL, 0}};
    if (!check_arguments(&s) || (n > 0 && mb_eval(ts, n) != MB_OK))
        return mb_error(ctx);

    s.order = mb__alloc(ctx, (size_t)n * sizeof *s.order);
    size_t capacity = 0;
    bool ok = s.order != NULL;
    if (ok) {
        for (int i = 0; i < n; i++)
            s.order[i] = i;
        sort(&s);
        for (int i = 1; i < n && ok; i++)
            if (strcmp(names[s.order[i - 1]], names[s.order[i]]) == 0)
                ok = invalid(&s, "two tensors of the name", names[s.order[i]]);
        s.by_name = false;
        sort(&s);
    }
    if (ok) {
        put_header(&s, &s.header);
        capacity = s.header.bytes;
        s.header = (text){mb__alloc(ctx, capacity), 0};
        ok = s.header.data != NULL;
    }
    if (ok)
        put_header(&s, &s.header);
    mb_status status = ok ? mb__replace_file(ctx, "safetensors", path, write_all, &s) : mb_error(ctx);
    mb__free(ctx, s.header.data, capacity);
    mb__free(ctx, s.order, (size_t)n * sizeof *s.order);
    return status;
}
