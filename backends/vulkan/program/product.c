/* SPDX-License-Identifier: MIT
 *
 * product.c - which kernel a matrix product takes (shaders/product.comp has them all), and into how many
 * pieces its sum is cut. Both depend on sizes and on the device's kind alone, never on timing: the same plan
 * gives the same bits.
 */
#include <stdio.h>

#include "backends/vulkan/program/program.h"

enum variant { PLAIN, PLAIN4, LANES, TILE32, TILE64, TILE128, VARIANTS };

/* m, n: elements of a group's tile; k: its step; for PLAIN kernels, of an invocation. */
static const struct {
    const char *name;
    uint32_t m, n, k, local, shared;
} variants[VARIANTS] = {
    [PLAIN] = {"product_plain", 1, 1, 4, 0, 0},
    [PLAIN4] = {"product_plain4", 4, 4, 4, 0, 0},
    [LANES] = {"product_lanes", 2, 4, 4, 0, 0}, /* times the lanes of a subgroup */
    [TILE32] = {"product_tile32", 32, 32, 16, 64, 4608},
    [TILE64] = {"product_tile64", 64, 64, 16, 128, 8704},
    [TILE128] = {"product_tile128", 128, 128, 8, 256, 8448},
};

static const mb__vk_shader *shader_of(enum variant which, bool wide)
{
    char name[32];
    snprintf(name, sizeof name, "%s%s", variants[which].name, wide ? "_f64" : "");
    return mb__vk_shader_named(name);
}

/* Whether the variant can run here: it was built for the type and fits the device. */
static bool usable(const mb__vk *v, enum variant which, bool wide)
{
    return shader_of(which, wide) && variants[which].local <= v->caps.invocations &&
           variants[which].shared <= v->caps.shared_bytes &&
           !(which == TILE128 && v->quirks & VK_QUIRK_NO_LARGE_TILES);
}

static enum variant choose(const mb__vk *v, const mb__product *p, bool wide)
{
    if (v->forced_product >= 0)
        return (enum variant)v->forced_product;
    int64_t least = p->m < p->n ? p->m : p->n;
    enum variant best = least >= 3 ? PLAIN4 : PLAIN;
    if (v->caps.processor) {
        if (p->m >= 8 && p->n >= 8 && usable(v, LANES, wide))
            best = LANES;
    } else if (least >= 96 && p->m * p->n >= 256 * 256 && usable(v, TILE128, wide)) {
        best = TILE128;
    } else if (least >= 40 && usable(v, TILE64, wide)) {
        best = TILE64;
    } else if (least >= 12 && usable(v, TILE32, wide)) {
        best = TILE32;
    }
    return usable(v, best, wide) ? best : PLAIN;
}

/* c^T = b^T a^T where that makes the result's rows contiguous, or its long axis the lanes'. */
static mb__product turned(const mb__product *p)
{
    bool turn = p->c_n != 1 && p->n > 1 && (p->c_m == 1 || p->m > p->n);
    if (!turn)
        return *p;
    mb__product t = *p;
    t.a = p->b;
    t.b = p->a;
    t.m = p->n;
    t.n = p->m;
    t.a_m = p->b_n;
    t.a_k = p->b_k;
    t.b_k = p->a_k;
    t.b_n = p->a_m;
    t.c_m = p->c_n;
    t.c_n = p->c_m;
    memcpy(t.a_loop, p->b_loop, sizeof t.a_loop);
    memcpy(t.b_loop, p->a_loop, sizeof t.b_loop);
    return t;
}

static bool by_fours(int64_t offset, int64_t other_stride, int64_t size, const int64_t *loops, int count)
{
    bool ok = offset % 4 == 0 && other_stride % 4 == 0 && size % 4 == 0;
    for (int i = 0; i < count && ok; i++)
        ok = loops[i] % 4 == 0;
    return ok;
}

/* How an operand may be read (specialization constants of product.comp): along its outer axis `o` (m or n) or
 * along k. */
static uint32_t reading(int64_t offset, int64_t o, int64_t o_size, int64_t k, int64_t k_size,
                        const int64_t *loops, int count, bool lanes)
{
    if (o == 1 && by_fours(offset, k_size > 1 ? k : 0, o_size, loops, count))
        return 2;
    if (k == 1 && lanes && by_fours(offset, o_size > 1 ? o : 0, k_size, loops, count))
        return 3;
    return o == 1 && k != 1 ? 1 : 0;
}

/* The plainest of all: a sum over k of products of two loads, a kernel like any other. */
static bool add_as_kernel(mb__vk_program *p, int step, const mb__product *m)
{
    uint8_t dtype = p->plan->values[m->c.value].dtype;
    mb__instr instrs[4] = {{.op = MB_K_LOAD}, {.op = MB_K_LOAD}, {.op = MB_OP_MUL}, {.op = MB_K_SUM}};
    mb__store st = {.instr = 3, .mode = MB_STORE, .per_row = true, .view = {m->c.value, m->c.offset, {0}}};
    mb__kernel k = {.instrs = instrs, .stores = &st, .instr_count = 4, .store_count = 1};
    for (int i = 0; i < 4; i++) {
        instrs[i].dtype = instrs[i].from = dtype;
        instrs[i].bind = instrs[i].in[0] = instrs[i].in[1] = instrs[i].in[2] = -1;
        instrs[i].view.value = -1;
    }
    instrs[0].view = (mb__view){m->a.value, m->a.offset, {0}};
    instrs[1].view = (mb__view){m->b.value, m->b.offset, {0}};
    instrs[2].in[0] = 0;
    instrs[2].in[1] = 1;
    instrs[3].in[0] = 2;
    uint32_t columns = 0;
    for (int l = -3; l < m->loops; l++) {
        int64_t size = l == -3 ? m->m : l == -2 ? m->n : l == -1 ? m->k : m->loop[l];
        if (size == 1)
            continue;
        if (k.rank == MB_MAX_RANK) {
            mb__error_at(p->v->ctx, MB_BACKEND, p->plan->steps[step].site,
                         "vulkan: a product over more than %d axes", MB_MAX_RANK);
            return false;
        }
        instrs[0].view.stride[k.rank] = l == -3 ? m->a_m : l == -2 ? 0 : l == -1 ? m->a_k : m->a_loop[l];
        instrs[1].view.stride[k.rank] = l == -3 ? 0 : l == -2 ? m->b_n : l == -1 ? m->b_k : m->b_loop[l];
        st.view.stride[k.rank] = l == -3 ? m->c_m : l == -2 ? m->c_n : l == -1 ? 0 : m->c_loop[l];
        if (l == -1 || (l >= 0 && m->c_loop[l] == 0))
            columns |= 1u << k.rank;
        k.dim[k.rank++] = size;
    }
    return mb__vk_add_rows(p, step, &k, columns);
}

/* The pieces' sum: [splits, batch..., m, n] -> c. */
static bool add_up(mb__vk_program *p, int step, const mb__product *m, int32_t pieces, int64_t splits,
                   int64_t split_stride, const int *batch, int batch_count, const int64_t *batch_stride)
{
    uint8_t dtype = p->plan->values[m->c.value].dtype;
    mb__instr instrs[2] = {{.op = MB_K_LOAD, .dtype = dtype, .from = dtype, .in = {-1, -1, -1}, .bind = -1},
                           {.op = MB_K_SUM, .dtype = dtype, .from = dtype, .in = {0, -1, -1}, .bind = -1}};
    mb__store st = {.instr = 1, .mode = MB_STORE, .per_row = true, .view = {m->c.value, m->c.offset, {0}}};
    mb__kernel k = {
        .rank = batch_count + 3, .instrs = instrs, .stores = &st, .instr_count = 2, .store_count = 1};
    instrs[0].view.value = pieces;
    instrs[1].view.value = -1;
    int64_t *from = instrs[0].view.stride, *to = st.view.stride;
    for (int i = 0; i < batch_count; i++) {
        k.dim[i] = m->loop[batch[i]];
        from[i] = batch_stride[i];
        to[i] = m->c_loop[batch[i]];
    }
    int r = batch_count;
    k.dim[r] = m->m, from[r] = m->n, to[r] = m->c_m;
    k.dim[r + 1] = m->n, from[r + 1] = 1, to[r + 1] = m->c_n;
    k.dim[r + 2] = splits, from[r + 2] = split_stride, to[r + 2] = 0;
    return mb__vk_add_rows(p, step, &k, 1u << (r + 2));
}

/* Few tiles leave a GPU idle, and drivers that end loops need short ones: then the sum is cut. */
static int64_t splits_for(const mb__vk *v, enum variant which, int64_t groups, int64_t k, int64_t reduce,
                          int64_t batch_loops)
{
    int64_t total = k * reduce, splits = 1, each = which <= PLAIN4 ? 4 : 1;
    if (!v->caps.processor && groups < 128 && total >= 1024)
        splits = 256 / (groups ? groups : 1) < total / 256 ? 256 / (groups ? groups : 1) : total / 256;
    if (v->caps.iterations) {
        int64_t most = (v->caps.iterations - batch_loops) / 2 * each;
        /* An element of the reduce loops costs a few iterations beside its k. */
        int64_t cost = total + reduce * 8 * each;
        splits = cost / most + 1 > splits ? cost / most + 1 : splits;
    }
    return splits < 1 ? 1 : splits;
}

static bool add(mb__vk_program *p, int step, const mb__product *given, enum variant which)
{
    mb__vk *v = p->v;
    bool wide = p->plan->values[given->c.value].dtype == MB_FLOAT64;
    mb__product m = turned(given);
    int batch[MB_MAX_RANK * 3], reduce[MB_MAX_RANK * 3], batch_count = 0, reduce_count = 0;
    int64_t batch_size = 1, reduce_size = 1;
    for (int i = 0; i < m.loops; i++) {
        if (m.c_loop[i] || m.loop[i] == 1) {
            batch[batch_count++] = i;
            batch_size *= m.loop[i];
        } else {
            reduce[reduce_count++] = i;
            reduce_size *= m.loop[i];
        }
    }
    uint32_t local = variants[which].local, tile_m = variants[which].m, tile_n = variants[which].n;
    if (which == LANES) {
        local = v->caps.subgroup;
        tile_m *= local;
        tile_n *= local;
    } else if (which <= PLAIN4) {
        local = v->caps.processor ? 32 : 64;
    }
    int64_t tiles = (m.m + tile_m - 1) / tile_m * ((m.n + tile_n - 1) / tile_n) * batch_size;
    int64_t splits = splits_for(v, which, tiles, m.k, reduce_size, batch_count);
    if (splits > 1 && batch_count + 3 > MB_MAX_RANK)
        return add_as_kernel(p, step, given);
    int32_t target = m.c.value;
    int64_t split_stride = 0, batch_stride[MB_MAX_RANK * 3], c_offset = m.c.offset;
    mb__product to = m; /* where the result goes first */
    if (splits > 1) {
        split_stride = m.m * m.n;
        for (int i = batch_count; i-- > 0;) {
            batch_stride[i] = split_stride;
            to.c_loop[batch[i]] = split_stride;
            split_stride *= m.loop[batch[i]];
        }
        to.c_m = m.n;
        to.c_n = 1;
        c_offset = 0;
    }
    bool lanes = which == LANES;
    uint32_t a_read = reading(m.a.offset, m.a_m, m.m, m.a_k, m.k, m.a_loop, m.loops, lanes),
             b_read = reading(m.b.offset, m.b_n, m.n, m.b_k, m.k, m.b_loop, m.loops, lanes);
    int64_t c_strides[MB_MAX_RANK * 3 + 1];
    for (int i = 0; i < batch_count; i++)
        c_strides[i] = to.c_loop[batch[i]];
    c_strides[batch_count] = split_stride;
    bool fours = to.c_n == 1 && by_fours(c_offset, m.m > 1 ? to.c_m : 0, m.n, c_strides, batch_count + 1);
    if (which > PLAIN4 && !mb__vk_product_trusted(v, (int)which, wide, tile_m, tile_n, a_read, b_read, fours))
        return mb_error(v->ctx) == MB_OK && add(p, step, given, PLAIN);
    const mb__vk_shader *s = shader_of(which, wide);
    VkPipeline pipeline =
        s ? mb__vk_pipeline_for(v, s->words, (uint32_t)(s->bytes / 4), local, which <= PLAIN4 ? 0 : a_read,
                                which <= PLAIN4 ? 0 : b_read | (uint32_t)fours << 2)
          : VK_NULL_HANDLE;
    if (!pipeline) {
        if (!v->refused)
            mb__error_at(v->ctx, MB_BACKEND, p->plan->steps[step].site, "vulkan: no product of float%d on %s",
                         wide ? 64 : 32, v->props.deviceName);
        return false;
    }
    if (splits > 1)
        target = mb__vk_scratch(p, (uint64_t)splits * (uint64_t)split_stride * (wide ? 8 : 4));
    mb__vk_slot slots[3] = {{m.a.value, m.a.offset}, {m.b.value, m.b.offset}, {target, c_offset}};
    uint32_t region = mb__vk_region(p, slots, 3);
    const int64_t head[] = {m.m,    m.n,          m.k,       0,      0,      0,           m.a_m,
                            m.a_k,  m.b_k,        m.b_n,     to.c_m, to.c_n, batch_count, reduce_count,
                            splits, split_stride, batch_size};
    for (size_t i = 0; i < sizeof head / sizeof *head; i++)
        mb__vk_param(p, head[i]);
    for (int i = 0; i < batch_count + reduce_count; i++) {
        int l = i < batch_count ? batch[i] : reduce[i - batch_count];
        mb__vk_param(p, m.loop[l]);
        mb__vk_param(p, m.a_loop[l]);
        mb__vk_param(p, m.b_loop[l]);
        mb__vk_param(p, i < batch_count ? to.c_loop[l] : 0);
    }
    mb__vk_touches(p, m.a.value, false);
    mb__vk_touches(p, m.b.value, false);
    mb__vk_touches(p, target, true);
    int64_t groups = tiles * splits;
    if (which <= PLAIN4)
        groups = (groups + local - 1) / local;
    mb__vk_dispatch_add(p, pipeline, region, groups, step,
                        2.0 * (double)m.m * (double)m.n * (double)m.k * (double)batch_size *
                            (double)reduce_size);
    return !p->failed && (splits == 1 || add_up(p, step, &m, target, splits, split_stride, batch, batch_count,
                                                batch_stride));
}

/* A product that would keep a GPU busy for too long is halved, along the loop that it is repeated over most
 * often, else along rows or columns. */
static bool add_parts(mb__vk_program *p, int step, const mb__product *m, enum variant which)
{
    double cost = 2.0 * (double)m->m * (double)m->n * (double)m->k;
    int loop = -1;
    for (int i = 0; i < m->loops; i++) {
        cost *= (double)m->loop[i];
        if (m->c_loop[i] && m->loop[i] > 1 && (loop < 0 || m->loop[i] > m->loop[loop]))
            loop = i;
    }
    bool rows = m->m >= m->n;
    if (p->v->caps.processor || cost <= 2 * p->v->slice || (loop < 0 && (rows ? m->m : m->n) < 256))
        return add(p, step, m, which);
    mb__product part[2] = {*m, *m};
    int64_t size = loop >= 0 ? m->loop[loop] : rows ? m->m : m->n, half = (size + 1) / 2;
    half = loop >= 0 ? half : (half + 127) / 128 * 128; /* whole tiles */
    for (int i = 0; i < 2; i++)
        *(loop >= 0 ? &part[i].loop[loop] : rows ? &part[i].m : &part[i].n) = i ? size - half : half;
    if (loop >= 0 || rows)
        part[1].a.offset += half * (loop >= 0 ? m->a_loop[loop] : m->a_m);
    if (loop >= 0 || !rows)
        part[1].b.offset += half * (loop >= 0 ? m->b_loop[loop] : m->b_n);
    part[1].c.offset += half * (loop >= 0 ? m->c_loop[loop] : rows ? m->c_m : m->c_n);
    return add_parts(p, step, &part[0], which) && add_parts(p, step, &part[1], which);
}

bool mb__vk_add_product(mb__vk_program *p, int step, const mb__product *product)
{
    bool wide = p->plan->values[product->c.value].dtype == MB_FLOAT64;
    mb__product m = turned(product);
    enum variant which = choose(p->v, &m, wide);
    return shader_of(which, wide) ? add_parts(p, step, product, which) : add_as_kernel(p, step, product);
}
