/* SPDX-License-Identifier: MIT
 * hash.c - the hash of keys and of what is kept by content. */
#include <xxhash.h>

#include "backends/plan/plan.h"

uint64_t mb__hash(const void *p, size_t n)
{
    return XXH3_64bits(p, n);
}
