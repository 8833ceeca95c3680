/* SPDX-License-Identifier: MIT
 *
 * tables.c - CSV files, written row by row, and gone on with after a checkpoint. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common.h"

static void open_as(csv *c, const char *folder, const char *name, const char *mode)
{
    c->path = path_in(folder, name);
    c->file = fopen(c->path, mode);
    if (!c->file)
        die("%s: %s", c->path, strerror(errno));
}

void csv_open(csv *c, const char *folder, const char *name, const char *header)
{
    open_as(c, folder, name, "w");
    if (fprintf(c->file, "%s\n", header) < 0 || fflush(c->file) != 0)
        die("%s: %s", c->path, strerror(errno));
}

/* Whether `keep` bytes are there, begin with the header, and end where a row does. */
static bool can_keep(const csv *c, const char *header, int64_t keep)
{
    size_t n = strlen(header);
    char *head = calloc(1, n + 1);
    if (!head)
        die("out of memory");
    bool ok = keep > (int64_t)n && csv_bytes(c) >= keep && fread(head, 1, n, c->file) == n &&
              memcmp(head, header, n) == 0 && fgetc(c->file) == '\n' &&
              fseeko(c->file, (off_t)keep - 1, SEEK_SET) == 0 && fgetc(c->file) == '\n';
    free(head);
    return ok;
}

void csv_reopen(csv *c, const char *folder, const char *name, const char *header, int64_t keep)
{
    open_as(c, folder, name, "r+");
    if (!can_keep(c, header, keep))
        die("%s: not the table that the checkpoint was saved with: its first %lld bytes are not all there",
            c->path, (long long)keep);
    if (ftruncate(fileno(c->file), (off_t)keep) != 0 || fseeko(c->file, (off_t)keep, SEEK_SET) != 0)
        die("%s: cannot be cut to the resumed step: %s", c->path, strerror(errno));
}

void csv_row(csv *c, const double *values, int n)
{
    for (int i = 0; i < n && c->file; i++) {
        if (!isnan(values[i]))
            fprintf(c->file, "%.9g", values[i]);
        fputc(i + 1 < n ? ',' : '\n', c->file);
    }
    if (c->file && (fflush(c->file) != 0 || ferror(c->file)))
        die("%s: %s", c->path, strerror(errno));
}

int64_t csv_bytes(const csv *c)
{
    struct stat st;
    return c->file && fstat(fileno(c->file), &st) == 0 ? (int64_t)st.st_size : 0;
}

void csv_sync(csv *c)
{
    if (c->file && fsync(fileno(c->file)) != 0 && errno != EINVAL) /* no regular file: /dev/stdout */
        die("%s: %s", c->path, strerror(errno));
}

void csv_close(csv *c)
{
    if (c->file) {
        errno = 0;
        bool failed = ferror(c->file) != 0; /* fclose only tells of its own writes */
        if (fclose(c->file) != 0 || failed)
            die("%s: %s", c->path, errno ? strerror(errno) : "not all of it could be written");
    }
    free(c->path);
    *c = (csv){NULL, NULL};
}
