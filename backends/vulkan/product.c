/* SPDX-License-Identifier: MIT
 * product.c - which kernel a matrix product takes. */
#include "backends/vulkan/vulkan.h"

/* The plainest: a sum over k of products of two loads, as any other kernel. */
static bool add_plain(mb__vk_program *p, int step, const mb__product *m)
{
    int dtype = p->plan->values[m->c.value].dtype;
    mb__instr instrs[4] = {{.op = MB_K_LOAD}, {.op = MB_K_LOAD}, {.op = MB_OP_MUL}, {.op = MB_K_SUM}};
    mb__store st = {.instr = 3, .mode = MB_STORE, .per_row = true, .view = m->c};
    mb__kernel k = {.instrs = instrs, .stores = &st, .instr_count = 4, .store_count = 1};
    for (int i = 0; i < 4; i++) {
        instrs[i].dtype = instrs[i].from = (uint8_t)dtype;
        instrs[i].bind = instrs[i].in[0] = instrs[i].in[1] = instrs[i].in[2] = -1;
        instrs[i].view.value = -1;
    }
    instrs[0].view = m->a;
    instrs[1].view = m->b;
    memset(instrs[0].view.stride, 0, sizeof m->a.stride);
    memset(instrs[1].view.stride, 0, sizeof m->a.stride);
    memset(st.view.stride, 0, sizeof m->a.stride);
    instrs[2].in[0] = 0;
    instrs[2].in[1] = 1;
    instrs[3].in[0] = 2;
    (void)step, (void)p;
    uint32_t columns = 0;
    for (int l = -3; l < m->loops; l++) {
        int64_t size = l == -3 ? m->m : l == -2 ? m->n : l == -1 ? m->k : m->loop[l];
        if (size == 1)
            continue;
        if (k.rank == MB_MAX_RANK)
            return false;
        instrs[0].view.stride[k.rank] = l == -3 ? m->a_m : l == -2 ? 0 : l == -1 ? m->a_k : m->a_loop[l];
        instrs[1].view.stride[k.rank] = l == -3 ? 0 : l == -2 ? m->b_n : l == -1 ? m->b_k : m->b_loop[l];
        st.view.stride[k.rank] = l == -3 ? m->c_m : l == -2 ? m->c_n : l == -1 ? 0 : m->c_loop[l];
        if (l == -1 || (l >= 0 && m->c_loop[l] == 0))
            columns |= 1u << k.rank;
        k.dim[k.rank++] = size;
    }
    return mb__vk_add_rows(p, step, &k, columns);
}

bool mb__vk_add_product(mb__vk_program *p, int step, const mb__product *product)
{
    return add_plain(p, step, product);
}
