/* SPDX-License-Identifier: MIT
 *
 * random.glsl - draws under a key, the same bits as on the CPU (philox.h): Philox4x32-10 of Salmon, Moraes,
 * Dror and Shaw. Positions in a tensor are 32 bits here; the parts of a draw for many steps reach
 * further.
 */

/* The four words of a block. */
uvec4 philox(const uint key_low, const uint key_high, const uvec2 block)
{
    uvec4 c = uvec4(block, 0, 0);
    uint k0 = key_low, k1 = key_high;
    [[unroll]] for (uint i = 0; i < 10; i++) {
        uint h0, l0, h1, l1;
        umulExtended(0xd2511f53u, c.x, h0, l0);
        umulExtended(0xcd9e8d57u, c.z, h1, l1);
        c = uvec4(h1 ^ c.y ^ k0, l1, h0 ^ c.w ^ k1, l0);
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    return c;
}

uint philox_word(const uint key_low, const uint key_high, const uvec2 block, const uint word)
{
    uvec4 w = philox(key_low, key_high, block);
    return word < 2 ? (word == 0 ? w.x : w.y) : word == 2 ? w.z : w.w;
}

/* The block of draw `at`, of which one has 4, or 2 of float64. */
uvec2 block_of_draw(const uvec2 at, const uint shift) { return uvec2((at.x >> shift) | (at.y << (32 - shift)), at.y >> shift); }

float random_f32(const uint key_low, const uint key_high, const uvec2 at)
{
    return float(philox_word(key_low, key_high, block_of_draw(at, 2), at.x & 3) >> 8) * 5.9604644775390625e-8; /* 2^-24 */
}

int random_i32(const uint key_low, const uint key_high, const uvec2 at)
{
    return int(philox_word(key_low, key_high, block_of_draw(at, 2), at.x & 3) >> 1);
}

#ifdef HAVE_F64
/* 53 bits of two words; each part and their sum are exact. */
double random_f64(const uint key_low, const uint key_high, const uvec2 at)
{
    uvec4 w = philox(key_low, key_high, block_of_draw(at, 1));
    uint low = (at.x & 1) == 0 ? w.x : w.z, high = (at.x & 1) == 0 ? w.y : w.w;
    return double(high) * 2.3283064365386963e-10LF + double(low >> 11) * 1.1102230246251565e-16LF;
}
#endif

/* Where place `place` of a part lies, of parts of `count` draws. */
uvec2 place_of_draw(const int part, const int place, const uint count)
{
    uint high, low, carry;
    umulExtended(uint(part), count, high, low);
    low = uaddCarry(low, uint(place), carry);
    return uvec2(low, high + carry);
}
