/* SPDX-License-Identifier: MIT
 * scan_rules.h - derivatives of a scan, which are scans. Private to autograd/. */
#ifndef MB_SCAN_RULES_H
#define MB_SCAN_RULES_H

#include "autograd/sweep.h"

/* results: the cotangent of each result, 0 where there is none. operands: in, not 0 where the cotangent of an
 * operand is wanted; out, that, or 0. The first operand, the body, has none. */
mb_status mb__scan_reverse(mb_context *ctx, uint32_t scan, const mb__sweeps *sweeps, const uint32_t *results,
                           uint32_t *operands);

/* operands: the tangent of each, or 0; results: those of the results. lead >= 0: of that many directions,
 * along a first axis. */
mb_status mb__scan_forward(mb_context *ctx, uint32_t scan, const mb__sweeps *sweeps, const uint32_t *operands,
                           int64_t lead, uint32_t *results);

#endif
