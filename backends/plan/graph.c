/* SPDX-License-Identifier: MIT
 * graph.c - a graph under construction. */
#include "backends/plan/graph.h"

int32_t mb__graph_append(mb__graph *g, const mb__gnode *n)
{
    mb__gnode *grown = mb__bump_grow(g->bump, g->nodes, g->count, &g->capacity, sizeof *grown);
    if (!grown)
        return -1;
    g->nodes = grown;
    grown[g->count] = *n;
    return g->count++;
}
