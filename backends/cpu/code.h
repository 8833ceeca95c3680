/* SPDX-License-Identifier: MIT
 *
 * code.h - chains of arithmetic as machine code.
 *
 * A chain's code is one loop over a tile, with the values in vector registers; what has no place there waits
 * on the stack. All code of a plan lies together, in memory that can be written until it is done and only run
 * afterwards. Where the processor, or the system, does not allow that, operations run one by one, with the
 * same bits.
 */
#ifndef MB_CODE_H
#define MB_CODE_H

#include "backends/cpu/kernel.h"

bool mb__code_works(void); /* whether this process may make code and run it */
/* Whether an operation can be a part of a chain. */
bool mb__code_has(const mb__uop *u);
/* Writes a chain's code. reg_count: registers of its kernel; masked: those in memory that ends with the last
 * element. False: no memory. */
bool mb__code_add(mb__code *c, mb__bump *work, mb__chain *chain, int reg_count, const bool *masked);
/* Moves all code to where it runs from, *bytes of *memory, and tells the chains. False: no memory. */
bool mb__code_finish(mb__code *c, void **memory, size_t *bytes);
void mb__code_free(void *memory, size_t bytes);

#endif
