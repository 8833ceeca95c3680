/* SPDX-License-Identifier: MIT
 *
 * memory.c - how much memory this process can still get: what the machine has left, what a control group that
 * it is in allows, and what a limit on its address space (ulimit -v) leaves. */
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "common.h"

/* The number after `key` in a file of "key number" lines; of the whole file where key is "". < 0: none. */
static double number_in(const char *path, const char *key)
{
    FILE *f = fopen(path, "r");
    char line[512];
    double value = -1;
    size_t length = strlen(key);
    while (f && value < 0 && fgets(line, sizeof line, f))
        if (strncmp(line, key, length) == 0) {
            char *end;
            double n = strtod(line + length, &end);
            value = end == line + length ? -1 : n; /* "max" is no limit */
        }
    if (f)
        fclose(f);
    return value;
}

static void take_least(memory_left *m, double bytes, const char *of)
{
    if (bytes >= 0 && bytes < m->bytes)
        *m = (memory_left){bytes, of};
}

/* One control group: its limit without what it uses; files that are only cached go where memory is wanted. */
static void of_group(memory_left *m, const char *folder, bool unified)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, unified ? "memory.max" : "memory.limit_in_bytes");
    double limit = number_in(path, "");
    snprintf(path, sizeof path, "%s/%s", folder, unified ? "memory.current" : "memory.usage_in_bytes");
    double used = number_in(path, "");
    snprintf(path, sizeof path, "%s/memory.stat", folder);
    double cached = number_in(path, unified ? "inactive_file " : "total_inactive_file ");
    if (limit < 0 || used < 0)
        return;
    double left = limit - used + (cached > 0 ? cached : 0);
    take_least(m, left > 0 ? left : 0, "its control group");
}

/* The groups that this process is in, from its own to the root: each may have a limit. In a container the
 * path may be one of outside, of which only the root is there. */
static void of_groups(memory_left *m)
{
    FILE *f = fopen("/proc/self/cgroup", "r");
    char line[400], folder[500];
    while (f && fgets(line, sizeof line, f)) {
        bool unified = strncmp(line, "0::", 3) == 0;
        char *name = strchr(line, ':'), *path = name ? strchr(name + 1, ':') : NULL;
        if (!path || (!unified && strncmp(name, ":memory:", 8) != 0))
            continue;
        path[strcspn(path, "\n")] = 0;
        snprintf(folder, sizeof folder, "/sys/fs/cgroup%s%s", unified ? "" : "/memory", path + 1);
        size_t root = strlen("/sys/fs/cgroup") + (unified ? 0 : strlen("/memory"));
        for (size_t end = strlen(folder); end >= root; end--)
            if (!folder[end] || folder[end] == '/') {
                folder[end] = 0;
                of_group(m, folder, unified);
            }
    }
    if (f)
        fclose(f);
}

memory_left memory_available(void)
{
    memory_left m = {1e300, "this machine"};
    take_least(&m, 1024 * number_in("/proc/meminfo", "MemAvailable:"), "this machine");
    of_groups(&m);
    struct rlimit limit;
    double used = 1024 * number_in("/proc/self/status", "VmSize:");
    if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && used >= 0) {
        double left = (double)limit.rlim_cur - used;
        take_least(&m, left > 0 ? left : 0, "the limit on its address space");
    }
    return m;
}
