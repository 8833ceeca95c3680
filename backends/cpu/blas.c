/* SPDX-License-Identifier: MIT
 *
 * blas.c - OpenBLAS, loaded when a context on the cpu backend is first opened. If it were linked, it would
 * start a thread for each processor before main, even in programs that never use the cpu backend, and end
 * programs that are not allowed so many threads.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "backends/cpu/blas.h"

static mb__blas blas;
static char reason[200];
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Called for the program itself first: whether it was loaded by a dynamic loader. */
static int is_dynamic(struct dl_phdr_info *info, size_t size, void *found)
{
    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++)
        *(bool *)found |= info->dlpi_phdr[i].p_type == PT_INTERP;
    return 1;
}

static bool find(void *library, const char *name, void *function)
{
    void *p = dlsym(library, name);
    memcpy(function, &p, sizeof p); /* C has no cast from object to function pointers */
    if (!p)
        snprintf(reason, sizeof reason, "it has no %s", name);
    return p != NULL;
}

/* OpenBLAS starts as many threads as the loading thread has processors, minus one: here none. The backend's
 * own threads call it. */
static void *load_alone(void)
{
    cpu_set_t mine, one;
    int cpu = sched_getcpu();
    bool alone = cpu >= 0 && cpu < CPU_SETSIZE && sched_getaffinity(0, sizeof mine, &mine) == 0;
    if (alone) {
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        alone = sched_setaffinity(0, sizeof one, &one) == 0;
    }
    void *library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    if (!library)
        library = dlopen("libopenblas.so", RTLD_NOW | RTLD_LOCAL);
    if (!library)
        snprintf(reason, sizeof reason, "%s", dlerror());
    if (alone)
        sched_setaffinity(0, sizeof mine, &mine);
    return library;
}

static void load(void)
{
    bool dynamic = false;
    dl_iterate_phdr(is_dynamic, &dynamic);
    if (!dynamic) {
        snprintf(reason, sizeof reason, "a static program cannot load libraries");
        return;
    }
    void *library = load_alone();
    mb__blas b;
    if (library && find(library, "cblas_sgemm", &b.sgemm) && find(library, "cblas_dgemm", &b.dgemm) &&
        find(library, "openblas_get_corename", &b.corename) &&
        find(library, "openblas_get_parallel", &b.parallel) &&
        find(library, "openblas_set_num_threads", &b.set_num_threads)) {
        b.set_num_threads(1);
        blas = b;
    }
}

const mb__blas *mb__blas_load(const char **why)
{
    pthread_once(&once, load);
    *why = reason;
    return blas.sgemm ? &blas : NULL;
}

bool mb__blas_has_room(int threads)
{
    const size_t buffer = (size_t)128 << 20,
                 wanted = ((size_t)threads + 1) * buffer; /* one buffer as reserve for everything else */
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
        return true;
    void *p = mmap(NULL, wanted, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return false;
    munmap(p, wanted);
    return true;
}
