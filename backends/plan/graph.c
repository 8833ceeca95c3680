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

int32_t mb__graph_make(mb__graph *g, int op, int dtype, const char *site, int rank, const int64_t *dim,
                       const int32_t *in, int nin, const int64_t *attr, int nattr)
{
    mb__gnode n = {.op = (uint16_t)op,
                   .dtype = (uint8_t)dtype,
                   .rank = (uint8_t)rank,
                   .nin = nin,
                   .nattr = nattr,
                   .bind = -1,
                   .output = -1,
                   .site = site};
    n.in = mb__bump_get(g->bump, (size_t)(nin + 1) * sizeof *n.in);
    int64_t *words = mb__bump_get(g->bump, (size_t)(nattr + 1) * sizeof *words);
    if (!n.in || !words)
        return -1;
    if (rank)
        memcpy(n.dim, dim, (size_t)rank * sizeof *dim);
    if (nin)
        memcpy(n.in, in, (size_t)nin * sizeof *in);
    if (nattr)
        memcpy(words, attr, (size_t)nattr * sizeof *attr);
    n.attr = words;
    return mb__graph_append(g, &n);
}
