/* SPDX-License-Identifier: MIT
 *
 * registered.c - the backends of this process: those of the build, then those that were registered or loaded.
 * The list only grows, so whoever reads it needs no lock: an entry is whole before it can be reached.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "backends/engine/state.h"

typedef struct entry {
    const mb__backend *backend;
    struct entry *_Atomic next;
} entry;

static entry *_Atomic first;
static pthread_mutex_t adding = PTHREAD_MUTEX_INITIALIZER;

const mb__backend *mb__backend_number(int i)
{
    if (i < mb__backend_count)
        return i >= 0 ? mb__backends[i] : NULL;
    entry *e = atomic_load_explicit(&first, memory_order_acquire);
    for (i -= mb__backend_count; e && i > 0; i--)
        e = atomic_load_explicit(&e->next, memory_order_acquire);
    return e ? e->backend : NULL;
}

const mb__backend *mb__backend_called(const char *name, size_t length)
{
    const mb__backend *b;
    for (int i = 0; (b = mb__backend_number(i)); i++)
        if (strlen(b->name) == length && !strncmp(b->name, name, length))
            return b;
    return NULL;
}

bool mb__backend_name_fits(const char *name, size_t length)
{
    const char *fits = "abcdefghijklmnopqrstuvwxyz0123456789_-";
    for (size_t i = 0; i < length; i++)
        if (!strchr(fits, name[i]))
            return false;
    return length > 0 && length < sizeof((mb_device *)NULL)->backend;
}

static mb_status refuse(mb_status status, char *why, size_t size, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (why && size)
        vsnprintf(why, size, format, args);
    va_end(args);
    return status;
}

/* A function that it must have, and has not; NULL: it has all. */
static const char *missing(const mb__backend *b)
{
    return !b->list           ? "list"
           : !b->open         ? "open"
           : !b->close        ? "close"
           : !b->element_size ? "element_size"
           : !b->memory_new   ? "memory_new"
           : !b->memory_free  ? "memory_free"
           : !b->upload       ? "upload"
           : !b->download     ? "download"
           : !b->compile      ? "compile"
           : !b->discard      ? "discard"
           : !b->run          ? "run"
                              : NULL;
}

mb_status mb__backend_check(const mb__backend *b, char *why, size_t size)
{
    if (!b)
        return refuse(MB_INVALID, why, size, "no backend was given");
    if (b->version != MB_BACKEND_VERSION)
        return refuse(MB_BACKEND, why, size,
                      "it was made for version %d of the backend interface, and this is %d", b->version,
                      MB_BACKEND_VERSION);
    if (!b->name || !mb__backend_name_fits(b->name, strlen(b->name)))
        return refuse(MB_INVALID, why, size, "its name is \"%.40s\"; wanted 1 to 31 of a-z, 0-9, - and _",
                      b->name ? b->name : "");
    const char *function = missing(b);
    return function
               ? refuse(MB_INVALID, why, size, "the backend %s has no function \"%s\"", b->name, function)
               : MB_OK;
}

/* Appends it, under the lock. */
static mb_status append(const mb__backend *b, char *why, size_t size)
{
    const mb__backend *same = mb__backend_called(b->name, strlen(b->name));
    if (same == b)
        return MB_OK;
    if (same)
        return refuse(MB_BACKEND, why, size, "there is another backend \"%s\" already", b->name);
    entry *e = malloc(sizeof *e);
    if (!e)
        return refuse(MB_NO_MEMORY, why, size, "out of memory: %zu bytes wanted", sizeof *e);
    e->backend = b;
    atomic_init(&e->next, NULL);
    entry *_Atomic *last = &first;
    for (entry *at; (at = atomic_load_explicit(last, memory_order_relaxed));)
        last = &at->next;
    atomic_store_explicit(last, e, memory_order_release);
    return MB_OK;
}

mb_status mb_backend_register(const mb__backend *backend, char *why, size_t size)
{
    mb_status status = mb__backend_check(backend, why, size);
    if (status != MB_OK)
        return status;
    pthread_mutex_lock(&adding);
    status = append(backend, why, size);
    pthread_mutex_unlock(&adding);
    return status;
}
