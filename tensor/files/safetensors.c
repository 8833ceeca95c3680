/* SPDX-License-Identifier: MIT
 *
 * safetensors.c - reading safetensors files: the open file, its tensors, and whole files at once. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tensor/files/safetensors.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "safetensors files are little-endian, and so must be this machine"
#endif

struct mb_safetensors {
    mb_context *ctx;
    int fd;
    char *path; /* for messages */
    size_t path_bytes, scratch_count;
    mb__st_header header;
    uint64_t data_at; /* offset of the data in the file */
};

/* Reports what mb__read_fully returned. */
static void report_read(mb_safetensors *f, int error)
{
    mb_fail(f->ctx, MB_IO, "safetensors: %s: %s", mb__path_tail(f->path),
            error == -1 ? "the file became shorter while it was read" : strerror(error));
}

static void drop_scratch(mb_safetensors *f)
{
    mb__free(f->ctx, f->header.scratch, f->scratch_count * sizeof *f->header.scratch);
    f->header.scratch = NULL;
}

/* Reads and parses the header of the opened file. */
static bool read_header(mb_safetensors *f)
{
    mb_context *ctx = f->ctx;
    mb__st_header *h = &f->header;
    const char *path = mb__path_tail(f->path);
    struct stat st;
    if (fstat(f->fd, &st) != 0) {
        mb_fail(ctx, MB_IO, "safetensors: %s: %s", path, strerror(errno));
        return false;
    }
    if (!S_ISREG(st.st_mode)) {
        mb_fail(ctx, MB_IO, "safetensors: %s: not a regular file", path);
        return false;
    }
    uint64_t size = (uint64_t)st.st_size, n;
    if (size < sizeof n) {
        mb_fail(ctx, MB_FORMAT, "safetensors: %s: %llu bytes are too few for a safetensors file", path,
                (unsigned long long)size);
        return false;
    }
    int error = mb__read_fully(f->fd, &n, sizeof n, 0);
    if (error) {
        report_read(f, error);
        return false;
    }
    if (n > MB__ST_HEADER_MAX || n > size - sizeof n) {
        mb_fail(ctx, MB_FORMAT,
                "safetensors: %s: not a safetensors file: its first 8 bytes say that its header has %llu "
                "bytes, %s",
                path, (unsigned long long)n,
                n > MB__ST_HEADER_MAX ? "above the limit of 100000000" : "longer than the file");
        return false;
    }
    h->bytes = (size_t)n;
    h->capacity = (uint32_t)(n / MB__ST_ENTRY_MIN + 1);
    f->scratch_count = h->capacity > MB__ST_METADATA_MAX ? h->capacity : MB__ST_METADATA_MAX;
    f->data_at = sizeof n + n;
    if (!(h->text = mb__alloc(ctx, h->bytes + 1)) ||
        !(h->entries = mb__alloc(ctx, h->capacity * sizeof *h->entries)) ||
        !(h->order = mb__alloc(ctx, h->capacity * sizeof *h->order)) ||
        !(h->scratch = mb__alloc(ctx, f->scratch_count * sizeof *h->scratch)))
        return false;
    if ((error = mb__read_fully(f->fd, h->text, h->bytes, sizeof n)) != 0) {
        report_read(f, error);
        return false;
    }
    if (!strchr("{ \t\r\n", h->text[0])) { /* strchr finds NUL, too: mb__st_parse reports an empty header */
        mb_fail(ctx, MB_FORMAT, "safetensors: %s: not a safetensors file: '{' wanted where its header begins",
                path);
        return false;
    }
    if (!mb__st_parse(h, size - f->data_at)) {
        mb_fail(ctx, MB_FORMAT, "safetensors: %s: %s", path, h->error);
        return false;
    }
    drop_scratch(f);
    return true;
}

mb_safetensors *mb_safetensors_open_at(const char *site, mb_context *ctx, const char *path)
{
    MB_SITE(ctx, site);
    if (!mb__enter_context("safetensors", ctx))
        return NULL;
    if (!path) {
        mb_fail(ctx, MB_INVALID, "safetensors: no path");
        return NULL;
    }
    mb_safetensors *f = mb__alloc(ctx, sizeof *f);
    if (!f)
        return NULL;
    f->ctx = ctx;
    f->fd = mb__open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY); /* a FIFO must not wait for its writer */
    if (f->fd < 0) {
        mb_fail(ctx, MB_IO, "safetensors: %s: %s", mb__path_tail(path), strerror(errno));
        mb_safetensors_close(f);
        return NULL;
    }
    f->path_bytes = strlen(path) + 1;
    f->path = mb__alloc(ctx, f->path_bytes);
    if (f->path)
        memcpy(f->path, path, f->path_bytes);
    if (!f->path || !read_header(f)) {
        mb_safetensors_close(f);
        return NULL;
    }
    return f;
}

void mb_safetensors_close(mb_safetensors *f)
{
    if (!f || !mb__right_thread(f->ctx, "mb_safetensors_close"))
        return;
    mb_context *ctx = f->ctx;
    mb__st_header *h = &f->header;
    if (f->fd >= 0)
        mb__close(f->fd);
    drop_scratch(f);
    mb__free(ctx, h->order, h->capacity * sizeof *h->order);
    mb__free(ctx, h->entries, h->capacity * sizeof *h->entries);
    mb__free(ctx, h->text, h->bytes + 1);
    mb__free(ctx, f->path, f->path_bytes);
    mb__free(ctx, f, sizeof *f);
}

static const mb__st_entry *entry(const mb_safetensors *f, int i)
{
    return f && i >= 0 && (uint32_t)i < f->header.count ? &f->header.entries[i] : NULL;
}

int mb_safetensors_count(const mb_safetensors *f)
{
    return f ? (int)f->header.count : 0;
}

int mb_safetensors_find(const mb_safetensors *f, const char *name)
{
    return f && name ? (int)mb__st_find(&f->header, name) : -1;
}

const char *mb_safetensors_name(const mb_safetensors *f, int i)
{
    const mb__st_entry *e = entry(f, i);
    return e ? f->header.text + e->name : NULL;
}

const char *mb_safetensors_dtype_name(const mb_safetensors *f, int i)
{
    const mb__st_entry *e = entry(f, i);
    return e ? mb__st_dtypes[e->dtype].name : NULL;
}

bool mb_safetensors_dtype(const mb_safetensors *f, int i, mb_dtype *dtype)
{
    const mb__st_entry *e = entry(f, i);
    if (!e || mb__st_dtypes[e->dtype].dtype < 0)
        return false;
    if (dtype)
        *dtype = (mb_dtype)mb__st_dtypes[e->dtype].dtype;
    return true;
}

mb_shape mb_safetensors_shape(const mb_safetensors *f, int i)
{
    mb_shape s = {0, {0}};
    const mb__st_entry *e = entry(f, i);
    if (e) {
        s.rank = e->rank;
        mb__st_shape(&f->header, e, s.dim);
    }
    return s;
}

/* The first value that a tensor of the file cannot have, or count. *from: its values, and after those the
 * place of what they become. */
static int64_t read_values(const mb__st_dtype *kind, unsigned char *from, int64_t count,
                           unsigned char **values)
{
    size_t bytes = (size_t)count * (size_t)kind->bits / 8;
    *values = from;
    if (kind->dtype == MB_BOOL) {
        int64_t bad = 0;
        while (bad < count && from[bad] <= 1)
            bad++;
        return bad;
    }
    if (kind->way == MB__ST_SAME)
        return count;
    *values = from + (bytes + 7) / 8 * 8;
    return mb__st_convert(kind, from, count, *values);
}

static mb_tensor tensor_of(mb_safetensors *f, int i, const mb__st_entry *e)
{
    const mb__st_dtype *kind = &mb__st_dtypes[e->dtype];
    mb_tensor t = {NULL, 0, 0};
    mb_shape shape = mb_safetensors_shape(f, i);
    int64_t count = mb__numel(shape.dim, shape.rank), bad = count;
    /* At most four times what the file has. */
    size_t bytes = (size_t)(e->end - e->begin),
           made = kind->way == MB__ST_SAME ? 0 : 8 + (size_t)count * mb_dtype_size((mb_dtype)kind->dtype);
    unsigned char *data = mb__alloc(f->ctx, bytes + made), *values = data;
    if (!data)
        return t;
    int error = mb__read_fully(f->fd, data, bytes, f->data_at + e->begin);
    if (!error)
        bad = read_values(kind, data, count, &values);
    char name[96];
    if (error)
        report_read(f, error);
    else if (bad < count && kind->dtype == MB_BOOL)
        mb_fail(f->ctx, MB_FORMAT, "safetensors: %s: tensor '%s': a BOOL of value %d", mb__path_tail(f->path),
                mb__printable(name, sizeof name, f->header.text + e->name), data[bad]);
    else if (bad < count)
        mb_fail(f->ctx, MB_FORMAT, "safetensors: %s: tensor '%s': value %lld of %s is beyond int64",
                mb__path_tail(f->path), mb__printable(name, sizeof name, f->header.text + e->name),
                (long long)bad, kind->name);
    else
        t = mb_from(f->ctx, (mb_dtype)kind->dtype, shape, values);
    mb__free(f->ctx, data, bytes + made);
    return t;
}

mb_tensor mb_safetensors_tensor_at(const char *site, mb_safetensors *f, int i)
{
    MB_SITE(f ? f->ctx : NULL, site);
    const mb_tensor none = {NULL, 0, 0};
    if (!f || !mb__enter_context("safetensors", f->ctx))
        return none;
    const char *path = mb__path_tail(f->path);
    const mb__st_entry *e = entry(f, i);
    if (!e) {
        mb_fail(f->ctx, MB_INVALID, "safetensors: %s: tensor %d of %u", path, i, f->header.count);
        return none;
    }
    char name[96];
    if (!mb_safetensors_dtype(f, i, NULL)) {
        mb_fail(
            f->ctx, MB_FORMAT,
            "safetensors: %s: tensor '%s': dtype %s cannot be read; all but C64, F4, F6_E2M3 and F6_E3M2 can",
            path, mb__printable(name, sizeof name, f->header.text + e->name), mb__st_dtypes[e->dtype].name);
        return none;
    }
    mb_tensor t = tensor_of(f, i, e);
    return mb_valid(t) ? t : none;
}

bool mb_safetensors_metadata_pair(const mb_safetensors *f, int i, const char **key, const char **value)
{
    if (!f || i < 0 || (uint32_t)i >= f->header.metadata_count)
        return false;
    const char *p = f->header.metadata;
    for (int skip = 2 * i; skip > 0; skip--)
        p += strlen(p) + 1;
    if (key)
        *key = p;
    if (value)
        *value = p + strlen(p) + 1;
    return true;
}

const char *mb_safetensors_metadata(const mb_safetensors *f, const char *key)
{
    if (!f || !key)
        return NULL;
    const char *p = f->header.metadata;
    for (uint32_t i = 0; i < f->header.metadata_count; i++) {
        const char *value = p + strlen(p) + 1;
        if (strcmp(p, key) == 0)
            return value;
        p = value + strlen(value) + 1;
    }
    return NULL;
}

/* ---- whole files ---- */

/* Finds every name, and checks that the file has no other. index: [n], seen: [count], zeroed. */
static bool match(mb_safetensors *f, const char *const *names, int n, int *index, bool *seen)
{
    char text[96];
    const char *path = mb__path_tail(f->path);
    for (int i = 0; i < n; i++) {
        index[i] = mb_safetensors_find(f, names[i]);
        if (index[i] < 0) {
            mb_fail(f->ctx, MB_FORMAT, "safetensors: %s: tensor '%s' is missing", path,
                    mb__printable(text, sizeof text, names[i] ? names[i] : "(null)"));
            return false;
        }
        if (seen[index[i]]) {
            mb_fail(f->ctx, MB_INVALID, "safetensors: %s: name '%s' is asked for twice", path,
                    mb__printable(text, sizeof text, names[i]));
            return false;
        }
        seen[index[i]] = true;
    }
    for (uint32_t i = 0; i < f->header.count; i++)
        if (!seen[i]) {
            mb_fail(f->ctx, MB_FORMAT, "safetensors: %s: unexpected tensor '%s'", path,
                    mb__printable(text, sizeof text, mb_safetensors_name(f, (int)i)));
            return false;
        }
    return true;
}

mb_status mb_safetensors_load_at(const char *site, mb_context *ctx, const char *path,
                                 const char *const *names, mb_tensor *ts, int n)
{
    MB_SITE(ctx, site);
    if (n > 0 && ts)
        memset(ts, 0, (size_t)n * sizeof *ts);
    mb_safetensors *f = mb_safetensors_open(ctx, path);
    if (!f)
        return ctx ? (mb_error(ctx) ? mb_error(ctx) : MB_THREAD) : MB_INVALID;
    if (n < 0 || (n > 0 && (!names || !ts))) {
        mb_safetensors_close(f);
        return mb_fail(ctx, MB_INVALID, "safetensors: no names or no array for the tensors");
    }
    uint32_t count = f->header.count;
    int *index = mb__alloc(ctx, (size_t)n * sizeof *index);
    bool *seen = index ? mb__alloc(ctx, count * sizeof *seen) : NULL;
    bool ok = seen && match(f, names, n, index, seen);
    for (int i = 0; ok && i < n; i++) {
        ts[i] = mb_safetensors_tensor(f, index[i]);
        ok = ts[i].ctx != NULL;
    }
    if (!ok && n > 0)
        memset(ts, 0, (size_t)n * sizeof *ts);
    mb__free(ctx, seen, count * sizeof *seen);
    mb__free(ctx, index, (size_t)n * sizeof *index);
    mb_safetensors_close(f);
    return ok ? MB_OK : mb_error(ctx);
}
