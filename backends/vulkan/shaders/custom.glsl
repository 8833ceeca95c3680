/* SPDX-License-Identifier: MIT
 *
 * custom.glsl - what the GLSL of an op of the user's sees (tensor/custom_op.h). program/custom.c writes the rest:
 * access to each operand and result, and main, which finds the position and calls op().
 */
#include "common.glsl"
#include "math.glsl"
#include "names.glsl"

uint lane;
