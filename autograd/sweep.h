/* SPDX-License-Identifier: MIT
 *
 * sweep.h - gradients, with the number of tensors that they depend on. Private to the library.
 */
#ifndef MB_SWEEP_H
#define MB_SWEEP_H

#include "autograd/autograd.h"

/* mb_grad; *fed: how many of the xs y depends on. The gradients of the others are zeros. */
mb_status mb__grad_fed(mb_tensor y, const mb_tensor *xs, int n, mb_tensor *gs, int *fed);

#endif
