/* SPDX-License-Identifier: MIT
 *
 * kept.c - files that spare later runs some work: the driver's pipelines, and code made of GLSL. What is
 * damaged, cut short, or made for something else is as good as not there; and a failure only costs time.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backends/plan/hash.h"
#include "backends/vulkan/pipeline/pipeline.h"

typedef struct head {
    char magic[8];
    uint64_t hash, bytes; /* of what follows */
    mb__vk_identity identity;
} head;

static head head_of(const mb__vk_identity *identity, const void *data, size_t bytes)
{
    return (head){.magic = "mbkept1", .hash = mb__hash(data, bytes), .bytes = bytes, .identity = *identity};
}

/* In $MB_VULKAN_CACHE, a folder, or "off"; else in moebius/ of the user's cache folder. make: the folder. */
static bool path_of(const char *name, char *out, size_t size, bool make)
{
    const char *own = getenv("MB_VULKAN_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char folder[512];
    if (own && !strcmp(own, "off"))
        return false;
    int n = own && *own   ? snprintf(folder, sizeof folder, "%s", own)
            : xdg && *xdg ? snprintf(folder, sizeof folder, "%s/moebius", xdg)
            : home        ? snprintf(folder, sizeof folder, "%s/.cache/moebius", home)
                          : -1;
    if (n < 0 || n >= (int)sizeof folder)
        return false;
    if (make) /* one level; if its parent is missing, nothing is kept */
        if (mkdir(folder, 0700) != 0 && errno != EEXIST)
            return false;
    n = snprintf(out, size, "%s/%s", folder, name);
    return n > 0 && n < (int)size;
}

/* A regular file, which no open waits for, and its size. */
static FILE *open_regular(const char *path, uint64_t *size)
{
    struct stat s;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    FILE *f = fd >= 0 && fstat(fd, &s) == 0 && S_ISREG(s.st_mode) ? fdopen(fd, "rb") : NULL;
    if (!f && fd >= 0)
        close(fd);
    *size = f ? (uint64_t)s.st_size : 0;
    return f;
}

void *mb__vk_kept_read(mb__vk *v, const char *name, const mb__vk_identity *identity, size_t *bytes)
{
    char path[600];
    uint64_t size = 0;
    head h, want;
    FILE *f = path_of(name, path, sizeof path, false) ? open_regular(path, &size) : NULL;
    *bytes = 0;
    if (!f)
        return NULL;
    void *data = NULL;
    if (size > sizeof h && fread(&h, sizeof h, 1, f) == 1 && h.bytes == size - sizeof h &&
        (data = mb__host_alloc_raw(v->host, h.bytes)) != NULL) {
        bool ok = fread(data, 1, h.bytes, f) == h.bytes;
        want = head_of(identity, data, ok ? h.bytes : 0);
        if (!ok || memcmp(&h, &want, sizeof h) != 0) {
            mb__host_free(v->host, data, h.bytes);
            data = NULL;
        }
    }
    fclose(f);
    *bytes = data ? h.bytes : 0;
    return data;
}

/* A new file that is renamed, so that other processes read either the old one or the new one. */
void mb__vk_kept_write(const char *name, const mb__vk_identity *identity, const void *data, size_t bytes)
{
    char path[600], beside[640];
    if (!path_of(name, path, sizeof path, true))
        return;
    snprintf(beside, sizeof beside, "%s.%ld", path, (long)getpid());
    FILE *f = fopen(beside, "wb");
    if (!f)
        return;
    head h = head_of(identity, data, bytes);
    bool ok = fwrite(&h, sizeof h, 1, f) == 1 && fwrite(data, 1, bytes, f) == bytes;
    ok = fclose(f) == 0 && ok;
    if (!ok || rename(beside, path) != 0)
        remove(beside);
}
