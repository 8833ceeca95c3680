#version 450
#extension GL_GOOGLE_include_directive : enable
/* SPDX-License-Identifier: MIT
 * copy.comp - words from slot 0 to slot 1; word 4 of the region: how many. Any number of groups. */
#include "common.glsl"

void main()
{
    uint count = param(4), step = gl_NumWorkGroups.x * gl_WorkGroupSize.x;
    uint from = block_of(0), to = block_of(1), a = base_of(0), b = base_of(1);
    for (uint i = gl_GlobalInvocationID.x; i < count; i += step)
        words[to].at[b + i] = words[from].at[a + i];
}
