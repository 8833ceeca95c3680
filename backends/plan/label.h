/* SPDX-License-Identifier: MIT
 * label.h - a step in words: "product 64x128x49, 128 of them"; "tanh and 3 more over 8192"; "argsort". */
#ifndef MB_LABEL_H
#define MB_LABEL_H

#include "backends/plan/plan.h"

void mb__step_label(const mb__plan *plan, int step, char *out, size_t size);

#endif
