/* SPDX-License-Identifier: MIT
 *
 * sweep.h - gradients for callers inside the library that want to know what was found. Private.
 */
#ifndef MB_SWEEP_H
#define MB_SWEEP_H

#include "autograd/autograd.h"

/* mb_grad; *fed: how many of the xs y depends on. The gradients by the others are zeros. */
mb_status mb__grad_fed(mb_tensor y, const mb_tensor *xs, int n, mb_tensor *gs, int *fed);

#endif
