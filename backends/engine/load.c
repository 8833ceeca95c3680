/* SPDX-License-Identifier: MIT
 *
 * load.c - backends from files: moebius-NAME.so in the folders of MB_BACKEND_PATH. The version is read before
 * anything else of the file's, and what was loaded stays.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "backends/engine/state.h"

enum { PATH_BYTES = 4096 };

static const mb__backend *refused(mb_context *ctx, void *file, const char *path, const char *why)
{
    mb__error(ctx, MB_BACKEND, "open: %.300s: %s", path, why);
    if (file)
        dlclose(file);
    return NULL;
}

/* The backend of an open file. NULL: error set, and the file is closed. */
static const mb__backend *backend_in(mb_context *ctx, void *file, const char *path, const char *name,
                                     size_t length)
{
    char why[300];
    const int *version = dlsym(file, MB_STRING(MB_BACKEND_SYMBOL) "_version");
    if (!version)
        return refused(ctx, file, path,
                       "it is no backend: there is no symbol " MB_STRING(MB_BACKEND_SYMBOL) "_version");
    if (*version != MB_BACKEND_VERSION) {
        snprintf(why, sizeof why, "it was made for version %d of the backend interface, and this is %d",
                 *version, MB_BACKEND_VERSION);
        return refused(ctx, file, path, why);
    }
    const mb__backend *const *b = dlsym(file, MB_STRING(MB_BACKEND_SYMBOL));
    if (!b)
        return refused(ctx, file, path, "it is no backend: there is no symbol " MB_STRING(MB_BACKEND_SYMBOL));
    if (mb__backend_check(*b, why, sizeof why) != MB_OK)
        return refused(ctx, file, path, why);
    if (strlen((*b)->name) != length || strncmp((*b)->name, name, length) != 0) {
        snprintf(why, sizeof why, "it holds the backend \"%s\"; wanted \"%.*s\"", (*b)->name, (int)length,
                 name);
        return refused(ctx, file, path, why);
    }
    if (mb_backend_register(*b, why, sizeof why) == MB_OK)
        return *b;
    /* Another thread was faster with the same file, or another one. */
    const mb__backend *there = mb__backend_called(name, length);
    return there ? there : refused(ctx, file, path, why);
}

const mb__backend *mb__backend_load(mb_context *ctx, const char *name, size_t length)
{
    const char *folders = getenv("MB_BACKEND_PATH");
    if (!mb__backend_name_fits(name, length))
        return NULL;
    while (folders && *folders) {
        char path[PATH_BYTES];
        size_t n = strcspn(folders, ":");
        int bytes = snprintf(path, sizeof path, "%.*s/moebius-%.*s.so", (int)n, folders, (int)length, name);
        folders += n + (folders[n] == ':');
        if (!n || bytes < 0 || (size_t)bytes >= sizeof path || access(path, F_OK) != 0)
            continue;
        void *file = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        return file ? backend_in(ctx, file, path, name, length) : refused(ctx, NULL, path, dlerror());
    }
    return NULL;
}
