/* SPDX-License-Identifier: MIT
 *
 * common.glsl - what every kernel of the vulkan backend sees.
 *
 * Device memory is a few large storage buffers, `blocks`, all bound once as one array under several element
 * types. Where a value lies is not recorded in commands: each dispatch has a region in the table, which starts
 * with two words for each value it touches - block, and first word within the block - and goes on with the
 * parameters of the kernel. The host patches the regions of values that moved since the last run, and loop.comp
 * those of values that move from step to step; the recorded commands stay as they are. bool takes a word, 0 or 1;
 * a half two bytes, and of values of halves the second word counts these.
 */
#extension GL_EXT_control_flow_attributes : enable
#ifdef HAVE_HALF
#extension GL_EXT_shader_16bit_storage : require
#endif

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint BLOCKS = 3;

#ifndef TABLE_ACCESS
#define TABLE_ACCESS readonly
#endif
layout(std430, set = 0, binding = 0) TABLE_ACCESS buffer Table { uint table[]; };
layout(std430, set = 0, binding = 1) buffer Words { uint at[]; } words[BLOCKS];
layout(std430, set = 0, binding = 1) buffer Ints { int at[]; } ints[BLOCKS];
layout(std430, set = 0, binding = 1) buffer Floats { float at[]; } floats[BLOCKS];
#ifdef HAVE_F64
layout(std430, set = 0, binding = 1) buffer Doubles { double at[]; } doubles[BLOCKS];
#endif

#ifdef HAVE_HALF
layout(std430, set = 0, binding = 1) buffer Halves { uint16_t at[]; } halves[BLOCKS];
#endif

layout(push_constant) uniform Push {
    uint region;  /* word of the table where this dispatch's region begins */
    uint scalars; /* word of the table where the program's bound scalars begin */
} push;

/* Groups are counted over x and y, since an axis holds 65535 at most. */
uint group_index() { return gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x; }
uint param(const uint i) { return table[push.region + i]; }
int iparam(const uint i) { return int(table[push.region + i]); }
uint block_of(const uint slot) { return table[push.region + 2 * slot]; }
/* First element of a value, in words, or in halves. */
uint base_of(const uint slot) { return table[push.region + 2 * slot + 1]; }
