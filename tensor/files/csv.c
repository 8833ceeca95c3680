/* SPDX-License-Identifier: MIT
 *
 * csv.c - tables of numbers in text files. */
#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "tensor/files/safetensors.h"

typedef struct csv {
    mb_context *ctx;
    const char *path; /* for messages */
    mb_csv_options o;
    char *text; /* [bytes + 1], ends with NUL */
    size_t bytes;
    int64_t rows, columns;
} csv;

/* A line: its text without the line's end, and its number, counted from 1. */
typedef struct line {
    const char *at, *end, *next;
    int64_t number;
} line;

static line first_line(const csv *f)
{
    return (line){f->text, f->text, f->text, 0};
}

static bool is_space(const csv *f, char c)
{
    return c == ' ' || (c == '\t' && f->o.separator != '\t');
}

static void trim(const csv *f, const char **at, const char **end)
{
    while (*at < *end && is_space(f, **at))
        ++*at;
    while (*at < *end && is_space(f, (*end)[-1]))
        --*end;
}

/* The next line with anything in it, beside the header. False: there is none. */
static bool next_line(const csv *f, line *l)
{
    const char *end = f->text + f->bytes;
    bool empty = true;
    while (empty && l->next < end) {
        l->at = l->next;
        const char *newline = memchr(l->at, '\n', (size_t)(end - l->at));
        l->end = newline ? newline : end;
        l->next = newline ? newline + 1 : end;
        l->number++;
        if (l->end > l->at && l->end[-1] == '\r')
            l->end--;
        const char *from = l->at, *to = l->end;
        trim(f, &from, &to);
        empty = from == to || (f->o.header && l->number == 1);
    }
    return !empty;
}

static int64_t fields_of(const csv *f, const line *l)
{
    int64_t n = 1;
    for (const char *p = l->at; (p = memchr(p, f->o.separator, (size_t)(l->end - p))) != NULL; p++)
        n++;
    return n;
}

/* Counts, and checks that each line has as many fields as the first. */
static bool measure(csv *f)
{
    for (line l = first_line(f); next_line(f, &l); f->rows++) {
        int64_t n = fields_of(f, &l);
        if (f->rows == 0)
            f->columns = n;
        if (n != f->columns) {
            mb_fail(f->ctx, MB_FORMAT, "csv: %s: line %lld: %lld fields, wanted %lld as in the lines before",
                    f->path, (long long)l.number, (long long)n, (long long)f->columns);
            return false;
        }
    }
    return true;
}

/* NULL, or what is wrong with a field. */
static const char *parse(const csv *f, const char *at, const char *end, double *value)
{
    char *stopped;
    if (at == end)
        return "nothing, where a number is wanted";
    errno = 0;
    *value = strtod(at, &stopped);
    if (stopped != end)
        return "not a number";
    bool infinite = isinf(f->o.dtype == MB_FLOAT32 ? (float)*value : *value);
    if (infinite && (errno == ERANGE || !isinf(*value)))
        return f->o.dtype == MB_FLOAT32 ? "beyond float32" : "beyond float64";
    return NULL;
}

static bool read_line(const csv *f, const line *l, int64_t row, void *values)
{
    const char *at = l->at;
    for (int64_t c = 0; c < f->columns; c++) {
        const char *stop = memchr(at, f->o.separator, (size_t)(l->end - at)),
                   *next = stop ? stop + 1 : l->end;
        const char *end = stop ? stop : l->end;
        double value = 0;
        trim(f, &at, &end);
        const char *error = parse(f, at, end, &value);
        if (error) {
            char field[48], shown[48];
            snprintf(field, sizeof field, "%.*s", (int)(end - at < 47 ? end - at : 47), at);
            mb_fail(f->ctx, MB_FORMAT, "csv: %s: line %lld, column %lld: '%s' is %s", f->path,
                    (long long)l->number, (long long)(c + 1), mb__printable(shown, sizeof shown, field),
                    error);
            return false;
        }
        if (f->o.dtype == MB_FLOAT32)
            ((float *)values)[row * f->columns + c] = (float)value;
        else
            ((double *)values)[row * f->columns + c] = value;
        at = next;
    }
    return true;
}

static mb_tensor read_numbers(csv *f)
{
    mb_tensor t = {NULL, 0, 0};
    int64_t row = 0;
    if (!measure(f))
        return t;
    size_t bytes = (size_t)(f->rows * f->columns) * mb_dtype_size(f->o.dtype);
    void *values = mb__alloc(f->ctx, bytes); /* at most 8 bytes for 2 of the file: a digit and a separator */
    if (!values)
        return t;
    for (line l = first_line(f); row < f->rows && next_line(f, &l) && read_line(f, &l, row, values);)
        row++;
    if (row == f->rows)
        t = mb_from(f->ctx, f->o.dtype, MB_SHAPE(f->rows, f->columns), values);
    mb__free(f->ctx, values, bytes);
    return mb_valid(t) ? t : (mb_tensor){NULL, 0, 0};
}

static mb_tensor load(csv *f, int fd)
{
    mb_tensor t = {NULL, 0, 0};
    f->text = mb__alloc(f->ctx, f->bytes + 1);
    if (!f->text)
        return t;
    int error = mb__read_fully(fd, f->text, f->bytes, 0);
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0); /* whose decimal point is a point */
    if (error) {
        mb_fail(f->ctx, MB_IO, "csv: %s: %s", f->path,
                error == -1 ? "the file became shorter while it was read" : strerror(error));
    } else if (!c) {
        mb_fail(f->ctx, MB_NO_MEMORY, "csv: %s: no memory for the locale C", f->path);
    } else {
        locale_t before = uselocale(c);
        t = read_numbers(f);
        uselocale(before);
    }
    if (c)
        freelocale(c);
    mb__free(f->ctx, f->text, f->bytes + 1);
    return t;
}

mb_tensor mb_csv_load_at(const char *site, mb_context *ctx, const char *path, mb_csv_options options)
{
    MB_SITE(ctx, site);
    mb_tensor t = {NULL, 0, 0};
    if (!mb__enter_context("csv", ctx))
        return t;
    if (!options.separator)
        options.separator = ',';
    if (!path || (options.dtype != MB_FLOAT32 && options.dtype != MB_FLOAT64) ||
        !strchr(",;|\t", options.separator)) {
        mb_fail(ctx, MB_INVALID, "csv: a path, float32 or float64, and one of , ; | and tab are wanted");
        return t;
    }
    csv f = {.ctx = ctx, .path = mb__path_tail(path), .o = options};
    uint64_t size;
    int fd = mb__open_regular(ctx, "csv", path, &size);
    if (fd < 0)
        return t;
    f.bytes = (size_t)size;
    t = load(&f, fd);
    mb__close(fd);
    return t;
}
