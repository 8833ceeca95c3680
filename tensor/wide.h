/* SPDX-License-Identifier: MIT
 *
 * wide.h - halves where they are not computed with as they are: what is added up, solved or carried along a
 * sequence is float32.
 */
#ifndef MB_WIDE_H
#define MB_WIDE_H

#include "tensor/tensor.h"

/* Whether x is a valid tensor of a half. */
bool mb__halved(mb_tensor x);
/* Such a tensor as float32, any other as it is; and a result as the dtype of what it was made of, if that is
 * a half. */
mb_tensor mb__wide(mb_tensor x);
mb_tensor mb__narrow(mb_tensor y, mb_tensor like);

#endif
