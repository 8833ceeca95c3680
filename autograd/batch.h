/* SPDX-License-Identifier: MIT
 * batch.h - what was recorded for one example, recorded again for many. Private to autograd/. */
#ifndef MB_BATCH_H
#define MB_BATCH_H

#include "autograd/rules.h"

/* Of the nodes from `first` on, records again for K examples those that depend on a placeholder `in` and are
 * needed by an `out`, and makes the originals dead. in: at, from: [K, ...]. outs[i]: what out i is now; to an
 * `out` that does not depend on a placeholder nothing happens. False: error set. */
bool mb__batch(mb_context *ctx, uint32_t first, int64_t K, const mb__bounds *in, const mb__bounds *out,
               mb__operand *outs);

#endif
