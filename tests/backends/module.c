/* SPDX-License-Identifier: MIT
 *
 * module.c - shared objects that are no backends: KIND says what is wrong with each. The version is looked at
 * first: that of OLD has a symbol for the backend that would crash whoever reads it.
 */
#include "backends/plan/backend.h"

#define UNVERSIONED 0
#define OLD         1
#define EMPTY       2
#define MISNAMED    3
#define PARTIAL     4

#if KIND == UNVERSIONED
MB_API extern const int moebius_something;
const int moebius_something = 1;
#elif KIND == OLD
MB_API extern const int moebius_backend_version, *const moebius_backend;
const int moebius_backend_version = 0, *const moebius_backend = (const int *)1;
#elif KIND == EMPTY
MB_API extern const int moebius_backend_version;
const int moebius_backend_version = MB_BACKEND_VERSION;
#elif KIND == MISNAMED
static int list(mb_device *devices, int capacity, const char **why)
{
    (void)devices, (void)capacity, (void)why;
    return 0;
}
static mb_status open_it(const mb__host *host, const mb__open_options *options, void **state,
                         mb__limits *limits)
{
    (void)host, (void)options, (void)state, (void)limits;
    return MB_NO_MEMORY;
}
static void close_it(void *state)
{
    (void)state;
}
static size_t element_size(mb_dtype dtype)
{
    (void)dtype;
    return 8;
}
static mb_status memory_new(void *state, size_t bytes, void **memory)
{
    (void)state, (void)bytes, (void)memory;
    return MB_NO_MEMORY;
}
static void memory_free(void *state, void *memory, size_t bytes)
{
    (void)state, (void)memory, (void)bytes;
}
static mb_status upload(void *state, void *memory, mb_dtype dtype, int64_t count, const void *from)
{
    (void)state, (void)memory, (void)dtype, (void)count, (void)from;
    return MB_NO_MEMORY;
}
static mb_status download(void *state, void *memory, mb_dtype dtype, int64_t count, void *to)
{
    (void)state, (void)memory, (void)dtype, (void)count, (void)to;
    return MB_NO_MEMORY;
}
static mb_status compile(void *state, const mb__plan *plan, void **program, size_t *bytes)
{
    (void)state, (void)plan, (void)program, (void)bytes;
    return MB_NO_MEMORY;
}
static void discard(void *state, void *program)
{
    (void)state, (void)program;
}
static mb_status run(void *state, void *program, const mb__binding *binding)
{
    (void)state, (void)program, (void)binding;
    return MB_NO_MEMORY;
}
static const mb__backend other = {.version = MB_BACKEND_VERSION,
                                  .name = "other",
                                  .list = list,
                                  .open = open_it,
                                  .close = close_it,
                                  .element_size = element_size,
                                  .memory_new = memory_new,
                                  .memory_free = memory_free,
                                  .upload = upload,
                                  .download = download,
                                  .compile = compile,
                                  .discard = discard,
                                  .run = run};
MB_BACKEND_EXPORT(other);
#else
static const mb__backend partial = {.version = MB_BACKEND_VERSION, .name = "partial"};
MB_BACKEND_EXPORT(partial);
#endif
