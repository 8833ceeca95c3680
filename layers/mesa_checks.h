/* SPDX-License-Identifier: MIT
 *
 * mesa_checks.h - shared by mesa.c and mesanet.c. Private to layers/.
 */
#ifndef MB_MESA_CHECKS_H
#define MB_MESA_CHECKS_H

#include "layers/internal.h"

/* Checks q, k: [B,H,N,dk], v: [B,H,N,dv], and n tensors [B,H,N], of which some may be no tensors. Messages
 * begin with `layer`. */
bool mb__check_mesa(const char *layer, mb_tensor q, mb_tensor k, mb_tensor v, const mb_tensor *numbers,
                    int n);

#endif
