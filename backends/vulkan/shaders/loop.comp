#version 450
#extension GL_GOOGLE_include_directive : enable
/* SPDX-License-Identifier: MIT
 *
 * loop.comp - before each step of a loop: words of the body's regions that move from step to step are set to
 * where this step's values lie. An invocation sets one slot, and counts the steps for itself.
 *
 * The region, in the part of the table of the plan around: three slots for each input and output of the body,
 * inputs first: where its value lies, and the two places between which a carry goes to and fro.
 * push.scalars: the body's list, in its own part:
 *
 *   0       steps               1       1: from the last to the first
 *   2       entries             3...    of each entry, five words:
 *             t, the step that is to run, counted as they run; after the last, 0 again
 *             where its slot is, in words from the list on
 *             4 times the number of its port, and 0: at its place; 1: a carry that is read; 2: one that is
 *             written
 *             words from where the port's value begins
 *             words from one step's place to the next's
 */
#define TABLE_ACCESS
#include "common.glsl"

const uint STEPS = 0, BACKWARDS = 1, COUNT = 2, ENTRIES = 3;

/* Which of a port's slots, when step t of `steps` runs. */
uint slot_of(const uint kind, const uint t, const uint steps)
{
    if (kind == 1)
        return t == 0 ? 0 : 1 + (t - 1) % 2;
    return kind == 2 && t + 1 < steps ? 1 + t % 2 : 0;
}

void main()
{
    uint list = push.scalars, i = group_index() * gl_WorkGroupSize.x + gl_LocalInvocationIndex;
    if (i >= table[list + COUNT])
        return;
    uint e = list + ENTRIES + 5 * i, t = table[e], steps = table[list + STEPS];
    uint to = list + table[e + 1], port = table[e + 2];
    uint slot = 3 * (port / 4) + slot_of(port % 4, t, steps);
    uint part = table[list + BACKWARDS] != 0 ? steps - 1 - t : t;
    table[to] = block_of(slot);
    table[to + 1] = base_of(slot) + table[e + 3] + part * table[e + 4];
    table[e] = t + 1 < steps ? t + 1 : 0;
}
