/* SPDX-License-Identifier: MIT
 *
 * run.c - the run directory: one process at a time writes to it, and its files are replaced as a whole. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common.h"

/* ---- paths ---- */

char *path_in(const char *folder, const char *name)
{
    size_t n = strlen(folder) + strlen(name) + 2;
    char *path = malloc(n);
    if (!path)
        die("out of memory");
    snprintf(path, n, "%s/%s", folder, name);
    return path;
}

bool file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

void make_folder(const char *path)
{
    char *copy = path_in(path, "");
    for (char *p = copy + 1; *p; p++)
        if (*p == '/') {
            *p = 0;
            if (mkdir(copy, 0777) != 0 && errno != EEXIST)
                die("%s: cannot be made: %s", copy, strerror(errno));
            *p = '/';
        }
    struct stat st;
    if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
        die("%s: not a folder", path);
    free(copy);
}

/* ---- numbered runs ---- */

enum { MOST_RUNS = 999 };

static char *numbered(const char *prefix, int i)
{
    char name[128];
    snprintf(name, sizeof name, "%s-%03d", prefix, i);
    return path_in("runs", name);
}

char *last_run(const char *prefix)
{
    char *last = NULL;
    for (int i = 1; i <= MOST_RUNS; i++) {
        char *path = numbered(prefix, i);
        if (!file_exists(path)) {
            if (!last)
                die("no run to resume: there is no %s", path);
            free(path);
            break;
        }
        free(last);
        last = path;
    }
    return last;
}

/* mkdir decides who has a number: two runs that begin at the same time get different ones. */
static char *next_run(const char *prefix)
{
    make_folder("runs");
    for (int i = 1; i <= MOST_RUNS; i++) {
        char *path = numbered(prefix, i);
        if (mkdir(path, 0777) == 0)
            return path;
        if (errno != EEXIST)
            die("%s: cannot be made: %s", path, strerror(errno));
        free(path);
    }
    die("runs/%s-%d is there already", prefix, MOST_RUNS);
}

/* ---- the lock ---- */

/* The file at `path` is still the one that is open: it was not removed by the process that had it. */
static bool same_file(const char *path, int fd)
{
    struct stat there, here;
    return stat(path, &there) == 0 && fstat(fd, &here) == 0 && there.st_ino == here.st_ino &&
           there.st_dev == here.st_dev;
}

static _Noreturn void in_use(const char *folder, int fd)
{
    char process[32] = "";
    ssize_t n = pread(fd, process, sizeof process - 1, 0);
    process[n > 0 ? n : 0] = 0;
    die("%s is in use by another run%s%s: wait for it, or choose another --out", folder,
        process[0] ? ", process " : "", process);
}

static struct {
    char *path;
    int fd;
} locked = {NULL, -1};

static void unlock(void)
{
    unlink(locked.path); /* while it is held: who waits for it looks whether it is still there */
    close(locked.fd);
    free(locked.path);
}

void lock_folder(const char *folder)
{
    char *path = path_in(folder, "lock"), process[32];
    int fd;
    for (;;) {
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (fd < 0)
            die("%s: %s", path, strerror(errno));
        if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
            if (errno == EWOULDBLOCK)
                in_use(folder, fd);
            fprintf(stderr, "%s cannot be locked (%s): see to it that no other run uses it\n", folder,
                    strerror(errno));
            break;
        }
        if (same_file(path, fd))
            break;
        close(fd);
    }
    int n = snprintf(process, sizeof process, "%ld", (long)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, process, (size_t)n, 0) != n)
        (void)0; /* it only makes another's message better */
    locked.path = path;
    locked.fd = fd;
    atexit(unlock);
}

const char *claim_folder(const char *out, const char *prefix, const char *mark, const char *advice)
{
    static char *made; /* lives as long as the process */
    if (*out)
        make_folder(out);
    else
        made = next_run(prefix);
    const char *folder = *out ? out : made;
    lock_folder(folder);
    char *path = path_in(folder, mark);
    if (file_exists(path))
        die("%s holds a run already: %s", folder, advice);
    free(path);
    return folder;
}

const char *run_folder(const char *out, const char *resume, const char *prefix, const flag *flags, int n)
{
    const char *folder = resume;
    if (*resume)
        lock_folder(resume);
    else
        folder = claim_folder(out, prefix, "config.json",
                              "--resume goes on with it, another --out begins a new one");
    char *config = path_in(folder, "config.json");
    if (!*resume)
        flags_save(config, flags, n);
    else if (flags_compare(config, flags, n) > 0)
        die("--resume: %s was made with other flags", folder);
    free(config);
    return folder;
}

/* ---- files ---- */

static bool write_all(int fd, const char *text)
{
    size_t n = strlen(text);
    while (n > 0) {
        ssize_t written = write(fd, text, n);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return false;
        text += written;
        n -= (size_t)written;
    }
    return fsync(fd) == 0;
}

void write_file(const char *path, const char *text)
{
    size_t n = strlen(path) + 5;
    char *temporary = malloc(n);
    if (!temporary)
        die("out of memory");
    snprintf(temporary, n, "%s.tmp", path);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    bool ok = fd >= 0 && write_all(fd, text);
    int error = errno;
    if (fd >= 0 && close(fd) != 0 && ok) {
        ok = false;
        error = errno;
    }
    if (ok && rename(temporary, path) != 0) {
        ok = false;
        error = errno;
    }
    if (!ok) {
        unlink(temporary);
        die("%s: cannot be written: %s", path, strerror(error));
    }
    free(temporary);
}
