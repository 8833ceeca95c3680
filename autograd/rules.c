/* SPDX-License-Identifier: MIT
 * rules.c - looks up the rules of an op in the two tables. */
#include "autograd/rules.h"

const mb__rule *mb__rule_of(int op)
{
    return mb__is_elementwise(op)            ? &mb__rules_elementwise[op]
           : mb__is_kind(op, MB_KIND_MATRIX) ? &mb__rules_matrix[op]
                                             : &mb__rules_structure[op];
}
