#version 450
#extension GL_GOOGLE_include_directive : enable
/* SPDX-License-Identifier: MIT
 *
 * loop.comp - before each step of a loop: words of the body's regions that move from step to step are set to
 * where this step's values lie, and the step is counted. One group of any size, since the count is read by
 * all of it before it is written.
 *
 * The region, in the part of the table of the plan around: three slots for each input and output of the body,
 * inputs first: where its value lies, and the two places between which a carry goes to and fro.
 * push.scalars: the body's list, in its own part:
 *
 *   0       t, the step that is to run, counted as they run; after the last, 0 again
 *   1       steps               2       1: from the last to the first
 *   3       entries             4...    of each entry, four words:
 *             where its slot is, in words from the list on
 *             4 times the number of its port, and 0: at its place; 1: a carry that is read; 2: one that is
 *             written
 *             words from where the port's value begins
 *             words from one step's place to the next's
 */
#define TABLE_ACCESS
#include "common.glsl"

const uint STEP = 0, STEPS = 1, BACKWARDS = 2, COUNT = 3, ENTRIES = 4;

/* Which of a port's slots, when step t of `steps` runs. */
uint slot_of(const uint kind, const uint t, const uint steps)
{
    if (kind == 1)
        return t == 0 ? 0 : 1 + (t - 1) % 2;
    return kind == 2 && t + 1 < steps ? 1 + t % 2 : 0;
}

void main()
{
    uint list = push.scalars, t = table[list + STEP], steps = table[list + STEPS], count = table[list + COUNT];
    uint part = table[list + BACKWARDS] != 0 ? steps - 1 - t : t;
    for (uint i = gl_LocalInvocationIndex; i < count; i += gl_WorkGroupSize.x) {
        uint e = list + ENTRIES + 4 * i, port = table[e + 1], to = list + table[e];
        uint slot = 3 * (port / 4) + slot_of(port % 4, t, steps);
        table[to] = block_of(slot);
        table[to + 1] = base_of(slot) + table[e + 2] + part * table[e + 3];
    }
    barrier();
    if (gl_LocalInvocationIndex == 0)
        table[list + STEP] = t + 1 < steps ? t + 1 : 0;
}
