/* SPDX-License-Identifier: MIT
 *
 * glsl.c - GLSL to SPIR-V at run time, by the program of glslang: its libraries are there for C++ at build
 * time alone. It is looked for when a kernel first needs it, and reads and writes files in a folder of their
 * own.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backends/plan/hash.h"
#include "backends/vulkan/pipeline/pipeline.h"

typedef struct folder {
    char path[200];
    char text[240], code[240], said[240]; /* files in it */
} folder;

static bool make_folder(folder *f)
{
    const char *under = getenv("TMPDIR");
    int n = snprintf(f->path, sizeof f->path, "%s/moebius-XXXXXX", under && *under ? under : "/tmp");
    if (n < 0 || n >= (int)sizeof f->path || !mkdtemp(f->path))
        return false;
    snprintf(f->text, sizeof f->text, "%s/kernel.comp", f->path);
    snprintf(f->code, sizeof f->code, "%s/kernel.spv", f->path);
    snprintf(f->said, sizeof f->said, "%s/messages", f->path);
    return true;
}

static void remove_folder(const folder *f)
{
    unlink(f->text);
    unlink(f->code);
    unlink(f->said);
    rmdir(f->path);
}

static bool write_text(const folder *f, const char *text, size_t size)
{
    FILE *file = fopen(f->text, "w");
    bool ok = file && fwrite(text, 1, size, file) == size;
    return file && fclose(file) == 0 && ok;
}

/* Starts the program and waits for its end; what it says goes to a file. The errno of a start that failed;
 * else 0. */
static int run_glslang(const folder *f)
{
    static const char *const names[] = {"glslangValidator", "glslang"};
    posix_spawn_file_actions_t files;
    int error = posix_spawn_file_actions_init(&files);
    if (error)
        return error;
    error = posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    if (!error)
        error = posix_spawn_file_actions_addopen(&files, 1, f->said, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (!error)
        error = posix_spawn_file_actions_adddup2(&files, 1, 2);
    pid_t child = 0;
    for (int i = 0; i < 2 && !error && !child; i++) {
        const char *const arguments[] = {names[i], "-V",    "--target-env", "vulkan1.1",
                                         "-o",     f->code, f->text,        NULL};
        int failed =
            posix_spawnp(&child, names[i], &files, NULL, (char *const *)(uintptr_t)arguments, environ);
        child = failed ? 0 : child;
        error = failed && (i == 1 || failed != ENOENT) ? failed : 0;
    }
    posix_spawn_file_actions_destroy(&files);
    while (!error && waitpid(child, NULL, 0) < 0 && errno == EINTR)
        ;
    return error;
}

/* Its first complaint, as "line 3: ...": after "ERROR: FILE:". */
static void complaint(const folder *f, char *out, size_t size)
{
    char line[400];
    FILE *file = fopen(f->said, "r");
    snprintf(out, size, "the compiler does not say why");
    while (file && fgets(line, sizeof line, file)) {
        const char *name = strstr(line, "kernel.comp:");
        if (strncmp(line, "ERROR: ", 7) != 0)
            continue;
        line[strcspn(line, "\n")] = 0;
        snprintf(out, size, "%s%.300s", name ? "line " : "", name ? name + strlen("kernel.comp:") : line + 7);
        break;
    }
    if (file)
        fclose(file);
}

/* The code, in the host's memory; NULL: there is none, or no memory. */
static uint32_t *read_code(mb__vk *v, const folder *f, size_t *bytes)
{
    struct stat status;
    FILE *file = fopen(f->code, "rb");
    uint32_t *words = NULL;
    *bytes = 0;
    if (file && fstat(fileno(file), &status) == 0 && status.st_size > 20 && status.st_size % 4 == 0) {
        *bytes = (size_t)status.st_size;
        words = mb__host_alloc_raw(v->host, *bytes);
        if (words && fread(words, 1, *bytes, file) != *bytes) {
            mb__host_free(v->host, words, *bytes);
            words = NULL;
            *bytes = 0;
        }
    }
    if (file)
        fclose(file);
    return words;
}

static mb__vk_identity identity_of(const char *text, size_t size, char *name, size_t capacity)
{
    uint64_t hash = mb__hash(text, size);
    snprintf(name, capacity, "%016llx.glsl-spv", (unsigned long long)hash);
    return (mb__vk_identity){{(uint32_t)hash, (uint32_t)(hash >> 32), (uint32_t)size}};
}

uint32_t *mb__vk_glsl_compile(mb__vk *v, const char *site, const char *name, const char *text, size_t size,
                              size_t *bytes)
{
    folder f;
    char why[400];
    char file[40];
    mb__vk_identity identity = identity_of(text, size, file, sizeof file);
    uint32_t *words = mb__vk_kept_read(v, file, &identity, bytes);
    if (words)
        return words;
    if (!make_folder(&f)) {
        mb__vk_fail(v, MB_IO, site, "%s: there is no folder to compile its GLSL in: %s", name,
                    strerror(errno));
        return NULL;
    }
    int error = write_text(&f, text, size) ? run_glslang(&f) : EIO;
    if (!error && !(words = read_code(v, &f, bytes)) && !*bytes) {
        complaint(&f, why, sizeof why);
        mb__vk_fail(v, MB_INVALID, site, "%s: its GLSL does not compile: %s", name, why);
    } else if (error == ENOENT) {
        mb__vk_fail(v, MB_BACKEND, site,
                    "%s: its GLSL is compiled by glslangValidator, which is not there; install glslang-tools",
                    name);
    } else if (error) {
        mb__vk_fail(v, MB_IO, site, "%s: its GLSL could not be compiled: %s", name, strerror(error));
    }
    remove_folder(&f);
    if (words)
        mb__vk_kept_write(file, &identity, words, *bytes);
    return words;
}

/* ---- texts ---- */

void mb__vk_text(mb__vk *v, mb__vk_source *s, const char *format, ...)
{
    for (int turn = 0; turn < 2 && !s->failed; turn++) {
        va_list list;
        va_start(list, format);
        size_t left = s->capacity - s->count;
        int n = vsnprintf(s->at ? s->at + s->count : NULL, s->at ? left : 0, format, list);
        va_end(list);
        if (s->at && n >= 0 && (size_t)n < left) {
            s->count += (uint32_t)n;
            return;
        }
        s->failed |= n < 0 || turn == 1 ||
                     !mb__host_reserve(v->host, (void **)&s->at, &s->capacity,
                                       (uint64_t)s->count + (uint64_t)n + 1, 1);
    }
}

void mb__vk_text_free(mb__vk *v, mb__vk_source *s)
{
    mb__host_free(v->host, s->at, s->capacity);
}
