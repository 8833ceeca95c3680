/* SPDX-License-Identifier: MIT
 * io.c - system calls, UTF-8 and text for messages, for the readers and writers of files. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tensor/files/safetensors.h"

int mb__open(const char *path, int flags)
{
    int fd;
    do
        fd = open(path, flags | O_CLOEXEC, 0666);
    while (fd < 0 && errno == EINTR);
    return fd;
}

int mb__open_regular(mb_context *ctx, const char *what, const char *path, uint64_t *size)
{
    struct stat st;
    int fd = mb__open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY); /* a FIFO must not wait for its writer */
    bool failed = fd < 0 || fstat(fd, &st) != 0;
    if (!failed && S_ISREG(st.st_mode)) {
        *size = (uint64_t)st.st_size;
        return fd;
    }
    mb_fail(ctx, MB_IO, "%s: %s: %s", what, mb__path_tail(path),
            failed ? strerror(errno) : "not a regular file");
    if (fd >= 0)
        mb__close(fd);
    return -1;
}

int mb__close(int fd)
{
    /* Even when interrupted, the descriptor is closed: a second call could close another thread's. */
    return close(fd) != 0 && errno != EINTR ? -1 : 0;
}

int mb__fsync(int fd)
{
    int error;
    do
        error = fsync(fd);
    while (error != 0 && errno == EINTR);
    return error;
}

int mb__rename(const char *from, const char *to)
{
    for (;;) {
        if (rename(from, to) == 0)
            return 0;
        if (errno != EINTR)
            return -1;
    }
}

int mb__read_fully(int fd, void *dst, size_t bytes, uint64_t offset)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t n = pread(fd, (char *)dst + done, bytes - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno;
        if (n == 0)
            return -1;
        done += (size_t)n;
    }
    return 0;
}

int mb__utf8(const unsigned char *p, const unsigned char *end)
{
    if (p >= end)
        return 0;
    if (p[0] < 0x80)
        return 1;
    int n = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (p[0] < 0xc2 || p[0] > 0xf4 || end - p < n) /* c0, c1: overlong; above f4: beyond U+10FFFF */
        return 0;
    for (int i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xf0 && p[1] < 0x90)) /* overlong */
        return 0;
    if ((p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf4 && p[1] > 0x8f)) /* surrogates; beyond U+10FFFF */
        return 0;
    return n;
}

bool mb__is_utf8(const char *text)
{
    const unsigned char *p = (const unsigned char *)text, *end = p + strlen(text);
    while (p < end) {
        int n = mb__utf8(p, end);
        if (!n)
            return false;
        p += n;
    }
    return true;
}

bool mb__st_name(const char *name)
{
    size_t n = strlen(name);
    return mb__is_utf8(name) && n > 0 && n <= MB__ST_NAME_MAX && strcmp(name, "__metadata__") != 0;
}

const char *mb__printable(char *out, size_t size, const char *text)
{
    size_t n = 0;
    for (; text[n] && n + 1 < size; n++)
        out[n] = text[n] >= 0x20 && text[n] < 0x7f ? text[n] : '?';
    out[n] = 0;
    if (text[n] && size > 4)
        memcpy(out + size - 4, "...", 4);
    return out;
}

const char *mb__path_tail(const char *path)
{
    size_t n = strlen(path);
    return n > 400 ? path + n - 400 : path;
}
