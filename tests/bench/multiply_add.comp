#version 450
/* SPDX-License-Identifier: MIT
 * multiply_add.comp - nothing but multiply-adds in registers: what a device can do at most. Each invocation does
 * 8 chains of `count` steps of 4; the sum is stored so that it is computed. */
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint BLOCKS = 3;
layout(std430, set = 0, binding = 0) readonly buffer Table { uint table[]; };
layout(std430, set = 0, binding = 1) buffer Floats { float at[]; } floats[BLOCKS];
layout(push_constant) uniform Push { uint region, scalars; } push;

void main()
{
    uint count = table[push.region + 2], i = gl_GlobalInvocationID.x;
    vec4 a = vec4(float(i & 7u)) * 1e-3 + 0.5, b = vec4(0.25), s0 = a, s1 = b, s2 = a + b, s3 = a - b;
    vec4 s4 = -a, s5 = -b, s6 = a + 1.0, s7 = b + 1.0;
    for (uint k = 0; k < count; k++) {
        s0 = s0 * a + b;
        s1 = s1 * a + b;
        s2 = s2 * a + b;
        s3 = s3 * a + b;
        s4 = s4 * a + b;
        s5 = s5 * a + b;
        s6 = s6 * a + b;
        s7 = s7 * a + b;
    }
    vec4 s = s0 + s1 + s2 + s3 + s4 + s5 + s6 + s7;
    floats[table[push.region]].at[table[push.region + 1] + i] = s.x + s.y + s.z + s.w;
}
