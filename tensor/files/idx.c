/* SPDX-License-Identifier: MIT
 *
 * idx.c - arrays of bytes in IDX files, plain or gzip.
 *
 * An IDX file: 0, 0, type, rank, `rank` sizes as big-endian u32, the elements (yann.lecun.com/exdb/mnist).
 * zlib's gzread is not used: it ignores data after a gzip stream, and takes a file that ends within the magic
 * number for plain text. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "tensor/files/files.h"
#include "tensor/files/safetensors.h"

enum { CHUNK = 16384, IDX_UBYTE = 0x08 };
/* deflate compresses by at most 1032 to 1 (zlib.net/zlib_tech.html). */
#define EXPANSION 1032

typedef struct source {
    int fd;
    uint64_t size; /* of the file */
    bool gzip, ended, inflating;
    z_stream z; /* next_in, avail_in: the unread part of `in`, also for plain files */
    char error[256];
    bool system; /* the error is MB_IO, not MB_FORMAT */
    unsigned char in[CHUNK];
} source;

static bool fill(source *s)
{
    if (s->z.avail_in)
        return true;
    ssize_t n;
    do
        n = read(s->fd, s->in, sizeof s->in);
    while (n < 0 && errno == EINTR);
    if (n < 0) {
        snprintf(s->error, sizeof s->error, "%s", strerror(errno));
        s->system = true;
        return false;
    }
    s->z.next_in = s->in;
    s->z.avail_in = (uInt)n;
    return n > 0;
}

/* Reads `bytes` of content; fewer only at its end, or after an error, which is then in s->error. */
static size_t take(source *s, unsigned char *dst, size_t bytes)
{
    size_t done = 0;
    while (done < bytes && !s->ended) {
        bool any = fill(s);
        if (s->error[0])
            return done;
        if (!s->gzip) {
            size_t n = s->z.avail_in < bytes - done ? s->z.avail_in : bytes - done;
            memcpy(dst + done, s->z.next_in, n);
            s->z.next_in += n;
            s->z.avail_in -= (uInt)n;
            done += n;
            s->ended = !any;
            continue;
        }
        if (!any) {
            snprintf(s->error, sizeof s->error, "gzip: the file ends early");
            return done;
        }
        size_t want = bytes - done < UINT32_MAX / 2 ? bytes - done : UINT32_MAX / 2;
        s->z.next_out = dst + done;
        s->z.avail_out = (uInt)want;
        int rc = inflate(&s->z, Z_NO_FLUSH);
        done += want - s->z.avail_out;
        if (rc == Z_STREAM_END) /* checksum and length are right; another gzip member may follow */
            s->ended = !fill(s);
        if (rc == Z_STREAM_END && !s->ended && !s->error[0])
            rc = s->z.next_in[0] == 0x1f ? inflateReset(&s->z) : Z_DATA_ERROR;
        if (rc != Z_OK && rc != Z_STREAM_END && rc != Z_BUF_ERROR)
            snprintf(s->error, sizeof s->error, "gzip: %s",
                     s->z.msg            ? s->z.msg
                     : rc == Z_MEM_ERROR ? "out of memory"
                                         : "something follows the compressed data");
        if (s->error[0])
            return done;
    }
    return done;
}

/* Opens the file. False: the reason is in s->error. */
static bool open_source(source *s, const char *path)
{
    struct stat st;
    s->fd = mb__open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (s->fd < 0 || fstat(s->fd, &st) != 0) {
        snprintf(s->error, sizeof s->error, "%s", strerror(errno));
        s->system = true;
        return false;
    }
    if (!S_ISREG(st.st_mode)) {
        snprintf(s->error, sizeof s->error, "not a regular file");
        s->system = true;
        return false;
    }
    s->size = (uint64_t)st.st_size;
    if (!fill(s))
        return !s->error[0];
    s->gzip = s->z.avail_in >= 2 && s->in[0] == 0x1f && s->in[1] == 0x8b;
    if (s->gzip) {
        s->inflating = inflateInit2(&s->z, 15 + 16) == Z_OK;
        if (!s->inflating)
            snprintf(s->error, sizeof s->error, "gzip: out of memory");
    }
    return !s->error[0];
}

static void close_source(source *s)
{
    if (s->inflating)
        inflateEnd(&s->z);
    if (s->fd >= 0)
        mb__close(s->fd);
}

/* False: the reason is in s->error; if that is empty, the error is the context's: out of memory. */
static bool parse(source *s, mb_idx *out)
{
    unsigned char magic[4], size[4];
    size_t n = take(s, magic, sizeof magic);
    if (s->error[0])
        return false;
    if (n < sizeof magic || magic[0] || magic[1]) {
        snprintf(s->error, sizeof s->error, "not an IDX file: it should begin with two zeros");
        return false;
    }
    if (magic[2] != IDX_UBYTE || magic[3] < 1 || magic[3] > MB_MAX_RANK) {
        snprintf(s->error, sizeof s->error,
                 "IDX type 0x%02x, rank %d: only unsigned bytes (0x08) of rank 1 to %d are read", magic[2],
                 magic[3], MB_MAX_RANK);
        return false;
    }
    out->rank = magic[3];
    uint64_t bytes = 1, most = s->gzip ? s->size * EXPANSION : s->size;
    bool zero = false, absurd = false;
    for (int i = 0; i < out->rank; i++) {
        if (take(s, size, sizeof size) < sizeof size) {
            if (!s->error[0])
                snprintf(s->error, sizeof s->error, "the file ends inside its sizes");
            return false;
        }
        uint64_t d = (uint64_t)size[0] << 24 | (uint64_t)size[1] << 16 | (uint64_t)size[2] << 8 | size[3];
        out->dim[i] = (int64_t)d;
        zero |= d == 0;
        absurd |= d && (__builtin_mul_overflow(bytes, d, &bytes) || bytes > most);
        if (absurd)
            bytes = most;
    }
    char shape[128];
    mb__shape_text(shape, sizeof shape, out->dim, out->rank);
    if (absurd && !zero) {
        snprintf(s->error, sizeof s->error, "sizes %s are more than a file of %llu bytes can hold", shape,
                 (unsigned long long)s->size);
        return false;
    }
    out->bytes = zero ? 0 : (size_t)bytes;
    out->data = mb__alloc(out->ctx, out->bytes);
    if (!out->data)
        return false;
    n = take(s, out->data, out->bytes);
    if (!s->error[0] && n < out->bytes)
        snprintf(s->error, sizeof s->error, "sizes %s need %zu bytes, and there are %zu", shape, out->bytes,
                 n);
    else if (!s->error[0] && take(s, size, 1) && !s->error[0])
        snprintf(s->error, sizeof s->error, "more follows after the %zu bytes of sizes %s", out->bytes,
                 shape);
    return !s->error[0];
}

mb_status mb_idx_read_at(const char *site, mb_context *ctx, const char *path, mb_idx *out)
{
    MB_SITE(ctx, site);
    if (out)
        memset(out, 0, sizeof *out);
    if (!ctx)
        return MB_INVALID;
    if (!mb__enter_context("idx", ctx))
        return mb_error(ctx) ? mb_error(ctx) : MB_THREAD;
    if (!path || !out)
        return mb_fail(ctx, MB_INVALID, "idx: no path or no result");
    source *s = mb__alloc(ctx, sizeof *s);
    if (!s)
        return mb_error(ctx);
    out->ctx = ctx;
    bool opened = open_source(s, path);
    if (!opened || !parse(s, out)) {
        bool missing = s->fd < 0 && strncmp(path, MB_FASHION_MNIST "/", sizeof MB_FASHION_MNIST) == 0;
        if (s->error[0])
            mb_fail(ctx, s->system ? MB_IO : MB_FORMAT, "idx: %s: %s%s", mb__path_tail(path), s->error,
                    missing ? "; Debian's package dataset-fashion-mnist holds it" : "");
        mb_idx_free(out);
    }
    close_source(s);
    mb__free(ctx, s, sizeof *s);
    return out->ctx ? MB_OK : mb_error(ctx);
}

void mb_idx_free(mb_idx *idx)
{
    if (!idx || (idx->ctx && !mb__right_thread(idx->ctx, "mb_idx_free")))
        return;
    if (idx->data)
        mb__free(idx->ctx, idx->data, idx->bytes);
    memset(idx, 0, sizeof *idx);
}
