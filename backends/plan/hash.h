/* SPDX-License-Identifier: MIT
 * hash.h - the hash of keys and of what is kept by content. */
#ifndef MB_HASH_H
#define MB_HASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t mb__hash(const void *p, size_t n);

#endif
