/* SPDX-License-Identifier: MIT
 *
 * sums.c - what a loop adds up: where the body's end is `carry + a b`, the product adds to the carry where it
 * lies, and neither a product by itself nor a second place for the carry is needed. The gradients of what a
 * scan's body reads are such sums.
 */
#include "backends/plan/graph.h"

/* How often each node is read, by nodes and as an output. */
static int32_t *count_reads(const mb__graph *g)
{
    int32_t *reads = mb__bump_get(g->bump, (size_t)(g->count + 1) * sizeof *reads);
    for (int i = 0; reads && i < g->count; i++)
        for (int j = 0; j < g->nodes[i].nin; j++)
            reads[g->nodes[i].in[j]]++;
    for (int i = 0; reads && i < g->output_count; i++)
        reads[g->outputs[i]]++;
    return reads;
}

static bool same_shape(const mb__gnode *a, const mb__gnode *b)
{
    return a->rank == b->rank && a->dtype == b->dtype &&
           !memcmp(a->dim, b->dim, (size_t)a->rank * sizeof *a->dim);
}

/* The operand of the sum that is a contraction of which there is no other use, where the other is the carry;
 * -1. Products of halves are rounded before they are added to anything. */
static int product_in(const mb__graph *g, const mb__gnode *sum, int carry, const int32_t *reads)
{
    for (int k = 0; sum->op == MB_OP_ADD && !mb__is_half(sum->dtype) && k < 2; k++) {
        const mb__gnode *p = &g->nodes[sum->in[k]], *c = &g->nodes[sum->in[1 - k]];
        if (p->op == MB_OP_CONTRACT && c->op == MB_OP_BUFFER && c->bind == carry && reads[sum->in[k]] == 1 &&
            reads[sum->in[1 - k]] == 1 && same_shape(p, sum) && same_shape(c, sum) &&
            mb__gcount(&g->nodes[p->in[0]]) && mb__gcount(&g->nodes[p->in[1]]))
            return k;
    }
    return -1;
}

/* The sum becomes the product, and where that was a number nobody reads. */
static bool join(mb__graph *g, mb__gnode *sum, int k)
{
    static const int64_t zero[1];
    mb__gnode *product = &g->nodes[sum->in[k]];
    int32_t *in = mb__bump_get(g->bump, 3 * sizeof *in);
    if (!in)
        return false;
    in[0] = product->in[0];
    in[1] = product->in[1];
    in[2] = sum->in[1 - k];
    *sum = *product;
    sum->in = in;
    sum->nin = 3;
    product->op = MB_OP_CONST;
    product->nin = 0;
    product->nattr = 1;
    product->attr = zero;
    return true;
}

mb_status mb__join_sums(mb__graph *g, int carries)
{
    int32_t *reads = count_reads(g);
    if (!reads)
        return MB_NO_MEMORY;
    for (int i = 0; i < carries; i++) {
        int32_t id = g->outputs[i];
        int k = reads[id] == 1 ? product_in(g, &g->nodes[id], i, reads) : -1;
        if (k >= 0 && !join(g, &g->nodes[id], k))
            return MB_NO_MEMORY;
    }
    return MB_OK;
}
