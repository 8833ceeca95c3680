/* SPDX-License-Identifier: MIT
 *
 * product.c - which kernel a matrix product takes (shaders/product.comp has them all), into how many pieces
 * its sum is cut, and its dispatches. Choices depend on sizes, on the device's kind and on which kernels
 * compute wrongly there, never on timing: the same plan gives the same bits.
 */
#include <stdio.h>

#include "backends/vulkan/program/program.h"

/* m, n: size of a workgroup's tile; local: invocations, 0: depends on the device; shared: bytes. */
static const struct {
    const char *name;
    uint32_t m, n, local, shared;
} kernels[] = {
    [VK_PLAIN] = {"product_plain", 1, 1, 0, 0},
    [VK_PLAIN4] = {"product_plain4", 4, 4, 0, 0},
    [VK_LANES] = {"product_lanes", 2, 4, 0, 0}, /* times the lanes of a subgroup */
    [VK_TILE32] = {"product_tile32", 32, 32, 64, 4608},
    [VK_TILE64] = {"product_tile64", 64, 64, 128, 8704},
    [VK_TILE128] = {"product_tile128", 128, 128, 256, 8448},
};

static const mb__vk_shader *shader_of(int kernel, int dtype)
{
    char name[32];
    snprintf(name, sizeof name, "%s%s", kernels[kernel].name,
             dtype == MB_FLOAT64  ? "_f64"
             : mb__is_half(dtype) ? "_half"
                                  : "");
    return mb__vk_shader_named(name);
}

mb__vk_tile mb__vk_tile_of(const mb__vk *v, int kernel)
{
    mb__vk_tile t = {kernels[kernel].m, kernels[kernel].n, kernels[kernel].local};
    if (kernel == VK_LANES) {
        t.local = v->caps.subgroup;
        t.m *= t.local;
        t.n *= t.local;
    } else if (kernel <= VK_PLAIN4) {
        t.local = v->caps.processor ? 32 : 64;
    }
    return t;
}

/* ---- which kernel ---- */

/* Whether the kernel can run here: it was built for the type and fits the device. */
static bool usable(const mb__vk *v, int kernel, int dtype)
{
    return shader_of(kernel, dtype) && kernels[kernel].local <= v->caps.invocations &&
           kernels[kernel].shared <= v->caps.shared_bytes &&
           !(kernel == VK_TILE128 && v->quirks & VK_QUIRK_NO_LARGE_TILES);
}

static int best_kernel(const mb__vk *v, const mb__product *p, int dtype)
{
    int64_t least = p->m < p->n ? p->m : p->n;
    int best = least >= 3 ? VK_PLAIN4 : VK_PLAIN;
    if (v->caps.processor) {
        if (p->m >= 8 && p->n >= 8 && usable(v, VK_LANES, dtype))
            best = VK_LANES;
    } else if (least >= 96 && p->m * p->n >= 256 * 256 && usable(v, VK_TILE128, dtype)) {
        best = VK_TILE128;
    } else if (least >= 40 && usable(v, VK_TILE64, dtype)) {
        best = VK_TILE64;
    } else if (least >= 12 && usable(v, VK_TILE32, dtype)) {
        best = VK_TILE32;
    }
    return usable(v, best, dtype) ? best : VK_PLAIN;
}

/* c^T = b^T a^T, if that makes the result's rows contiguous, or its long axis that of the lanes. */
static mb__product transposed(const mb__product *p)
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

/* ---- how its work is spread ---- */

/* A float32 sum of twice as many terms, or more, is made of parts, as far as their memory goes, since each
 * term is added by a rounding of the sum so far: 10^5 equal terms, one after the other, are off by 8749 of
 * them, and in parts by 113. */
enum { EXACT_TERMS = 1 << 11, PARTS_BYTES_MOST = 1 << 26 };

static int64_t splits_for_rounding(const mb__product *p, int dtype, int64_t total, int64_t batch)
{
    int64_t wanted = dtype == MB_FLOAT64 ? 1 : total / EXACT_TERMS;
    if (wanted <= 1)
        return 1;
    int64_t most = PARTS_BYTES_MOST / 4 / (p->m * p->n * batch);
    return wanted < most ? wanted : most;
}

/* The number of parts of the sum: with few tiles a GPU would be idle, and drivers that end loops need short
 * ones. */
static int64_t splits_for(const mb__vk *v, int kernel, int64_t groups, int64_t k, int64_t reduce,
                          int64_t batch_loops)
{
    int64_t total = k * reduce, splits = 1, each = kernel <= VK_PLAIN4 ? 4 : 1;
    if (!v->caps.processor && groups < 128 && total >= 1024)
        splits = 256 / (groups ? groups : 1) < total / 256 ? 256 / (groups ? groups : 1) : total / 256;
    if (v->caps.iterations) {
        int64_t most = (v->caps.iterations - batch_loops) / 2 * each;
        /* An iteration of the reduce loops costs a few more than its k. */
        int64_t cost = total + reduce * 8 * each;
        splits = cost / most + 1 > splits ? cost / most + 1 : splits;
    }
    return splits < 1 ? 1 : splits;
}

typedef struct layout {
    mb__product m;                                                                  /* transposed */
    int batch[MB_MAX_RANK * 3], reduce[MB_MAX_RANK * 3], batch_count, reduce_count; /* its loops */
    int64_t batch_size, reduce_size;
    mb__vk_tile tile;
    int64_t tiles, splits;
    /* The destination: c, or for parts of the sum the program's own memory. */
    int64_t c_offset, c_m, c_n, c_loop[MB_MAX_RANK * 3], split_stride;
} layout;

static layout layout_of(const mb__vk *v, const mb__product *given, int kernel, int dtype)
{
    layout l = {.m = transposed(given), .batch_size = 1, .reduce_size = 1, .tile = mb__vk_tile_of(v, kernel)};
    const mb__product *m = &l.m;
    for (int i = 0; i < m->loops; i++) {
        if (m->c_loop[i] || m->loop[i] == 1) {
            l.batch[l.batch_count++] = i;
            l.batch_size *= m->loop[i];
        } else {
            l.reduce[l.reduce_count++] = i;
            l.reduce_size *= m->loop[i];
        }
    }
    l.tiles = (m->m + l.tile.m - 1) / l.tile.m * ((m->n + l.tile.n - 1) / l.tile.n) * l.batch_size;
    int64_t parts = splits_for_rounding(m, dtype, m->k * l.reduce_size, l.batch_size);
    l.splits = splits_for(v, kernel, l.tiles, m->k, l.reduce_size, l.batch_count);
    l.splits = parts > l.splits ? parts : l.splits;
    if (l.splits == 1) {
        l.c_offset = m->c.offset;
        l.c_m = m->c_m;
        l.c_n = m->c_n;
        memcpy(l.c_loop, m->c_loop, sizeof l.c_loop);
        return l;
    }
    l.c_m = m->n;
    l.c_n = 1;
    l.split_stride = m->m * m->n;
    for (int i = l.batch_count; i-- > 0;) {
        l.c_loop[l.batch[i]] = l.split_stride;
        l.split_stride *= m->loop[l.batch[i]];
    }
    return l;
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

/* ---- choices ---- */

mb__vk_choice mb__vk_product_by(const mb__vk *v, const mb__product *p, int dtype, int kernel)
{
    mb__vk_choice c = {.kernel = VK_AS_SUMS, .dtype = (uint8_t)dtype, .rounded = mb__is_half(dtype)};
    if (kernel == VK_AS_SUMS || !shader_of(kernel, dtype))
        return c;
    layout l = layout_of(v, p, kernel, dtype);
    const mb__product *m = &l.m;
    if (l.splits > 1 && l.batch_count + 3 > MB_MAX_RANK)
        return c;
    c.kernel = kernel;
    c.rounded = mb__is_half(dtype) && l.splits == 1;
    if (mb__vk_is_plain(&c))
        return c;
    int64_t c_strides[MB_MAX_RANK * 3 + 1];
    for (int i = 0; i < l.batch_count; i++)
        c_strides[i] = l.c_loop[l.batch[i]];
    c_strides[l.batch_count] = l.split_stride;
    bool lanes = kernel == VK_LANES;
    c.a_read = reading(m->a.offset, m->a_m, m->m, m->a_k, m->k, m->a_loop, m->loops, lanes);
    c.b_read = reading(m->b.offset, m->b_n, m->n, m->b_k, m->k, m->b_loop, m->loops, lanes);
    c.fours = l.c_n == 1 && by_fours(l.c_offset, m->m > 1 ? l.c_m : 0, m->n, c_strides, l.batch_count + 1);
    return c;
}

mb__vk_choice mb__vk_product_decide(mb__vk *v, const mb__product *p, int dtype)
{
    mb__product m = transposed(p);
    mb__vk_choice c = mb__vk_product_by(v, p, dtype, best_kernel(v, &m, dtype));
    return *mb__vk_trust(v, &c) == VK_WRONG ? mb__vk_product_by(v, p, dtype, VK_PLAIN) : c;
}

/* Whether a value begins at a multiple of four elements, in every step of a loop. */
static bool begins_even(const mb__vk_program *p, int32_t value)
{
    if (!p->around || value >= p->plan->value_count || p->plan->values[value].storage == MB_IN_ARENA)
        return true;
    const mb__value *v = &p->plan->values[value];
    const mb__port *port = v->storage == MB_IN_INPUT ? &p->loop->in[v->index] : &p->loop->out[v->index];
    return port->offset % 4 == 0 && port->step % 4 == 0 && begins_even(p->around, port->value);
}

mb__vk_choice mb__vk_product_choose(const mb__vk_program *program, const mb__product *p)
{
    mb__product m = *p;
    mb__view *const views[3] = {&m.a, &m.b, &m.c};
    for (int i = 0; i < 3; i++)
        if (!begins_even(program, views[i]->value))
            views[i]->offset = 1; /* whatever it is, it is nowhere in particular */
    return mb__vk_product_decide(program->v, &m, program->plan->values[p->c.value].dtype);
}

/* Cuts along the longest loop, else along rows or columns. */
bool mb__vk_product_cut(const mb__vk *v, const mb__product *m, mb__product part[2])
{
    double cost = 2.0 * (double)m->m * (double)m->n * (double)m->k;
    int loop = -1;
    for (int i = 0; i < m->loops; i++) {
        cost *= (double)m->loop[i];
        if (m->c_loop[i] && m->loop[i] > 1 && (loop < 0 || m->loop[i] > m->loop[loop]))
            loop = i;
    }
    bool rows = m->m >= m->n;
    if (v->caps.processor || cost <= 2 * v->batch_cost || (loop < 0 && (rows ? m->m : m->n) < 256))
        return false;
    part[0] = part[1] = *m;
    int64_t size = loop >= 0 ? m->loop[loop] : rows ? m->m : m->n, half = (size + 1) / 2;
    half = loop >= 0 ? half : (half + 127) / 128 * 128; /* whole tiles */
    for (int i = 0; i < 2; i++)
        *(loop >= 0 ? &part[i].loop[loop] : rows ? &part[i].m : &part[i].n) = i ? size - half : half;
    if (loop >= 0 || rows)
        part[1].a.offset += half * (loop >= 0 ? m->a_loop[loop] : m->a_m);
    if (loop >= 0 || !rows)
        part[1].b.offset += half * (loop >= 0 ? m->b_loop[loop] : m->b_n);
    part[1].c.offset += half * (loop >= 0 ? m->c_loop[loop] : rows ? m->c_m : m->c_n);
    return true;
}

/* ---- dispatches ---- */

mb__vk_pipeline *mb__vk_product_pipeline(mb__vk *v, const mb__vk_choice *c)
{
    const mb__vk_shader *s = shader_of(c->kernel, c->dtype);
    uint32_t half = mb__is_half(c->dtype) ? 8u * (c->dtype == MB_BFLOAT16) + 16u * c->rounded : 0;
    return mb__vk_pipeline_for(v, s->words, (uint32_t)(s->bytes / 4), mb__vk_tile_of(v, c->kernel).local,
                               c->a_read, c->b_read | (uint32_t)c->fours << 2 | half);
}

/* The simplest way: a generated kernel that sums products of two loads over k. */
static bool add_as_kernel(mb__vk_program *p, int step, const mb__product *m)
{
    const uint8_t dtypes[4] = {p->plan->values[m->a.value].dtype, p->plan->values[m->b.value].dtype,
                               p->plan->values[m->c.value].dtype, p->plan->values[m->c.value].dtype};
    mb__instr instrs[4] = {{.op = MB_K_LOAD}, {.op = MB_K_LOAD}, {.op = MB_OP_MUL}, {.op = MB_K_SUM}};
    mb__store st = {.instr = 3, .mode = MB_STORE, .per_row = true, .view = {m->c.value, m->c.offset, {0}}};
    mb__kernel k = {.instrs = instrs, .stores = &st, .instr_count = 4, .store_count = 1};
    for (int i = 0; i < 4; i++) {
        instrs[i].dtype = instrs[i].from = dtypes[i];
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
        if (k.rank == MB_MAX_RANK)
            return mb__vk_fail(p->v, MB_BACKEND, p->plan->steps[step].site,
                               "vulkan: a product over more than %d axes", MB_MAX_RANK);
        instrs[0].view.stride[k.rank] = l == -3 ? m->a_m : l == -2 ? 0 : l == -1 ? m->a_k : m->a_loop[l];
        instrs[1].view.stride[k.rank] = l == -3 ? 0 : l == -2 ? m->b_n : l == -1 ? m->b_k : m->b_loop[l];
        st.view.stride[k.rank] = l == -3 ? m->c_m : l == -2 ? m->c_n : l == -1 ? 0 : m->c_loop[l];
        if (l == -1 || (l >= 0 && m->c_loop[l] == 0))
            columns |= 1u << k.rank;
        k.dim[k.rank++] = size;
    }
    return mb__vk_add_rows(p, step, &k, columns);
}

/* Adds the parts: [splits, batch..., m, n] -> c. */
static bool add_up(mb__vk_program *p, int step, const layout *l, int32_t pieces)
{
    const mb__product *m = &l->m;
    uint8_t dtype = p->plan->values[m->c.value].dtype, parts = dtype == MB_FLOAT64 ? dtype : MB_FLOAT32;
    mb__instr instrs[2] = {{.op = MB_K_LOAD, .dtype = parts, .from = parts, .in = {-1, -1, -1}, .bind = -1},
                           {.op = MB_K_SUM, .dtype = dtype, .from = dtype, .in = {0, -1, -1}, .bind = -1}};
    mb__store st = {.instr = 1, .mode = MB_STORE, .per_row = true, .view = {m->c.value, m->c.offset, {0}}};
    mb__kernel k = {
        .rank = l->batch_count + 3, .instrs = instrs, .stores = &st, .instr_count = 2, .store_count = 1};
    instrs[0].view.value = pieces;
    instrs[1].view.value = -1;
    int64_t *from = instrs[0].view.stride, *to = st.view.stride;
    for (int i = 0; i < l->batch_count; i++) {
        k.dim[i] = m->loop[l->batch[i]];
        from[i] = l->c_loop[l->batch[i]];
        to[i] = m->c_loop[l->batch[i]];
    }
    int r = l->batch_count;
    k.dim[r] = m->m, from[r] = m->n, to[r] = m->c_m;
    k.dim[r + 1] = m->n, from[r + 1] = 1, to[r + 1] = m->c_n;
    k.dim[r + 2] = l->splits, from[r + 2] = l->split_stride, to[r + 2] = 0;
    return mb__vk_add_rows(p, step, &k, 1u << (r + 2));
}

/* The region as product.comp describes it. */
static uint32_t put_region(mb__vk_program *p, const layout *l, int32_t target)
{
    const mb__product *m = &l->m;
    mb__vk_slot slots[3] = {{m->a.value, m->a.offset}, {m->b.value, m->b.offset}, {target, l->c_offset}};
    uint32_t region = mb__vk_region(p, slots, 3);
    const int64_t head[] = {m->m,
                            m->n,
                            m->k,
                            0,
                            0,
                            0,
                            m->a_m,
                            m->a_k,
                            m->b_k,
                            m->b_n,
                            l->c_m,
                            l->c_n,
                            l->batch_count,
                            l->reduce_count,
                            l->splits,
                            l->split_stride,
                            l->batch_size};
    for (size_t i = 0; i < sizeof head / sizeof *head; i++)
        mb__vk_param(p, head[i]);
    for (int i = 0; i < l->batch_count + l->reduce_count; i++) {
        int loop = i < l->batch_count ? l->batch[i] : l->reduce[i - l->batch_count];
        mb__vk_param(p, m->loop[loop]);
        mb__vk_param(p, m->a_loop[loop]);
        mb__vk_param(p, m->b_loop[loop]);
        mb__vk_param(p, i < l->batch_count ? l->c_loop[loop] : 0);
    }
    mb__vk_accesses(p, m->a.value, false);
    mb__vk_accesses(p, m->b.value, false);
    mb__vk_accesses(p, target, true);
    return region;
}

bool mb__vk_product_emit(mb__vk_program *p, int step, const mb__product *product, const mb__vk_choice *c)
{
    if (c->kernel == VK_AS_SUMS)
        return add_as_kernel(p, step, product);
    mb__vk_pipeline *pipeline = mb__vk_product_pipeline(p->v, c);
    if (!pipeline)
        return false;
    layout l = layout_of(p->v, product, c->kernel, c->dtype);
    int32_t target = l.m.c.value;
    if (l.splits > 1)
        target =
            mb__vk_scratch(p, l.splits * l.split_stride, c->dtype == MB_FLOAT64 ? MB_FLOAT64 : MB_FLOAT32);
    uint32_t region = put_region(p, &l, target);
    int64_t groups = l.tiles * l.splits;
    if (c->kernel <= VK_PLAIN4)
        groups = (groups + l.tile.local - 1) / l.tile.local;
    mb__vk_dispatch_add(p, pipeline, region, groups, step,
                        2.0 * (double)l.m.m * (double)l.m.n * (double)l.m.k * (double)l.batch_size *
                            (double)l.reduce_size);
    return !p->failed && (l.splits == 1 || add_up(p, step, &l, target));
}

bool mb__vk_add_product(mb__vk_program *p, int step, const mb__product *product)
{
    mb__product part[2];
    if (mb__vk_product_cut(p->v, product, part))
        return mb__vk_add_product(p, step, &part[0]) && mb__vk_add_product(p, step, &part[1]);
    mb__vk_choice c = mb__vk_product_choose(p, product);
    return mb__vk_product_emit(p, step, product, &c);
}
