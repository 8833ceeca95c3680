/* SPDX-License-Identifier: MIT
 *
 * matrices.glsl - kernels that work on matrices of a batch. Their region:
 *
 *   0..5     slots of a, b and out, each from the first element that is meant
 *   6        matrices of the batch        7        first group: those before are another dispatch's
 *   8..13    strides of a, of b, of out, each along rows and along columns, signed
 *   14..16   sizes m, n, k                17       the kernel's own
 *   18       rank of the batch: 0 to 6
 *   19...    for each of its axes, first the slowest: size, stride of a, of b, of out
 *
 * Matrices past the end of the batch are none.
 */
#include "common.glsl"
#include "element.glsl"

const uint M_COUNT = 6, M_SIZE_M = 14, M_SIZE_N = 15, M_SIZE_K = 16, M_OWN = 17, M_BLOCK = 32;

uint group_of_all() { return param(7) + group_index(); }
ivec2 stride_of(const uint operand) { return ivec2(iparam(8 + 2 * operand), iparam(9 + 2 * operand)); }
/* First elements of a, b and out in a matrix of the batch. */
ivec3 matrix_at(const uint matrix)
{
    ivec3 at = ivec3(int(BASE(0)), int(BASE(1)), int(BASE(2)));
    uint rest = matrix;
    for (uint i = param(18); i > 0; i--) {
        uint p = 15 + 4 * i, size = param(p);
        at += int(rest % size) * ivec3(iparam(p + 1), iparam(p + 2), iparam(p + 3));
        rest /= size;
    }
    return at;
}

#if defined(F64)
#define NOT_A_NUMBER packDouble2x32(uvec2(0u, 0x7ff80000u))
#define ZERO_KEY     uvec2(0u, 0x80000000u)
#define INFINITE_KEY uvec2(0u, 0xfff00000u)
#else
#define NOT_A_NUMBER uintBitsToFloat(0x7fc00000u)
#define ZERO_KEY     0
#define INFINITE_KEY 0x7f800000
#endif
bool is_nan(const T x) { return before(INFINITE_KEY, key_of(x)); }
bool is_positive(const T x) { return before(ZERO_KEY, key_of(x)) && before(key_of(x), INFINITE_KEY); }
