/* SPDX-License-Identifier: MIT
 *
 * replace.c - writing a file completely or not at all.
 *
 * Write a new file in the target's folder, fsync, close, rename, fsync the folder: at every moment, also
 * after a crash, the target's name refers to the complete old content or the complete new one. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tensor/files/safetensors.h"

int mb__write_fully(int fd, const void *data, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t n = write(fd, (const char *)data + done, bytes - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? errno : ENOSPC;
        done += (size_t)n;
    }
    return 0;
}

/* Creates the file "PATH.tmp-PID-K", with PATH shortened if that would be too long for a file name or path.
 * -1 and errno after an error. temporary: [bytes]. */
static int open_temporary(const char *path, char *temporary, size_t bytes)
{
    size_t length = strlen(path);
    const char *slash = strrchr(path, '/');
    size_t folder = slash ? (size_t)(slash - path) + 1 : 0;
    for (int k = 0; k < 1000; k++) {
        char suffix[40];
        size_t more = (size_t)snprintf(suffix, sizeof suffix, ".tmp-%ld-%d", (long)getpid(), k), n = length;
        if (n - folder + more > NAME_MAX && n - folder <= NAME_MAX)
            n = folder + NAME_MAX - more;
        if (n + more > PATH_MAX - 1 && length <= PATH_MAX - 1 && folder + more < PATH_MAX - 1)
            n = PATH_MAX - 1 - more;
        memcpy(temporary, path, n);
        snprintf(temporary + n, bytes - n, "%s", suffix);
        int fd = mb__open(temporary, O_WRONLY | O_CREAT | O_EXCL);
        if (fd >= 0 || errno != EEXIST)
            return fd;
    }
    return -1;
}

/* Makes a rename durable. Some file systems cannot sync a folder; that is not an error. */
static int sync_folder(const char *path, char *folder)
{
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    memcpy(folder, n ? path : slash ? "/" : ".", n ? n : 1);
    folder[n ? n : 1] = 0;
    int fd = mb__open(folder, O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return errno == EACCES ? 0 : errno;
    int error = mb__fsync(fd) == 0 || errno == EINVAL || errno == ENOTSUP ? 0 : errno;
    mb__close(fd);
    return error;
}

typedef struct replacing {
    mb_context *ctx;
    const char *what, *path;
    mb__writer *write;
    void *user;
} replacing;

/* temporary: scratch of strlen(path) + 48 bytes. */
static mb_status replace_file(const replacing *s, char *temporary, size_t bytes)
{
    const char *shown = mb__path_tail(s->path);
    struct stat st;
    if (stat(s->path, &st) == 0 && !S_ISREG(st.st_mode)) /* rename would replace a device */
        return mb_fail(s->ctx, MB_IO, "%s: %s: there is something that is not a regular file", s->what,
                       shown);
    int fd = open_temporary(s->path, temporary, bytes);
    if (fd < 0)
        return mb_fail(s->ctx, MB_IO, "%s: %s: cannot make a file there: %s", s->what, shown,
                       strerror(errno));
    int error = s->write(s->user, fd);
    if (!error && mb__fsync(fd) != 0)
        error = errno;
    if (mb__close(fd) != 0 && !error)
        error = errno;
    if (!error && mb__rename(temporary, s->path) != 0)
        error = errno;
    if (error) {
        unlink(temporary);
        if (error == -1)
            return mb_error(s->ctx);
        return mb_fail(s->ctx, MB_IO, "%s: %s: not saved: %s", s->what, shown, strerror(error));
    }
    error = sync_folder(s->path, temporary);
    if (error)
        return mb_fail(s->ctx, MB_IO, "%s: %s: saved, but a power cut may undo it: %s", s->what, shown,
                       strerror(error));
    return MB_OK;
}

mb_status mb__replace_file(mb_context *ctx, const char *what, const char *path, mb__writer *write, void *user)
{
    size_t bytes = strlen(path) + 48;
    char *temporary = mb__alloc(ctx, bytes);
    if (!temporary)
        return mb_error(ctx);
    const replacing r = {ctx, what, path, write, user};
    mb_status status = replace_file(&r, temporary, bytes);
    mb__free(ctx, temporary, bytes);
    return status;
}
