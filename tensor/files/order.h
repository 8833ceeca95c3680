/* SPDX-License-Identifier: MIT
 *
 * order.h - the order of examples within an epoch. For tensor/files/ only. */
#ifndef MB_ORDER_H
#define MB_ORDER_H

#include "tensor/files/files.h"

/* Writes a permutation of 0 ... n - 1, which depends on the key and the epoch alone. */
void mb__shuffle(mb_key key, uint64_t epoch, uint32_t *order, uint32_t n);

#endif
