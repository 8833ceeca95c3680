/* SPDX-License-Identifier: MIT
 *
 * pass.c - one pass of a kernel as a dispatch: the slots and parameters of its region, and its pipeline,
 * which passes that differ in nothing else share.
 */
#include "backends/plan/hash.h"
#include "backends/vulkan/program/program.h"

/* ---- the region ---- */

static void add_slot(mb__vk_pass *p, const mb__view *view)
{
    if (mb__vk_slot_of(p, view) == p->slot_count)
        p->slots[p->slot_count++] = (mb__vk_slot){view->value, view->offset};
}

static void add_param(mb__vk_pass *p, int64_t x)
{
    if (mb__vk_param_of(p, x) == p->param_count)
        p->params[p->param_count++] = x;
}

static bool list_slots(mb__vk_splitter *s, mb__vk_pass *p)
{
    const mb__kernel *k = &p->k;
    p->slots = mb__bump_get(&s->bump, (size_t)(k->instr_count + k->store_count + 1) * sizeof *p->slots);
    p->params = mb__bump_get(&s->bump, (size_t)(2 * k->instr_count + 1) * sizeof *p->params);
    if (!p->slots || !p->params)
        return false;
    for (int i = 0; i < k->instr_count; i++) {
        const mb__instr *n = &k->instrs[i];
        if (n->op == MB_K_LOAD)
            add_slot(p, &n->view);
        if (n->op == MB_K_SCALAR || n->op == MB_K_RANDOM || n->op == MB_OP_DRAW)
            add_param(p, n->bind);
        if (n->op == MB_OP_DRAW)
            add_param(p, (int64_t)n->number);
        if (n->op == MB_K_IOTA || n->op == MB_K_RANDOM)
            add_param(p, n->view.offset);
        if (mb__vk_is_zero(n))
            add_param(p, 0);
    }
    for (int i = 0; i < k->store_count; i++)
        add_slot(p, &k->stores[i].view);
    return true;
}

/* What the emitter wants beside sizes of axes and strides; returns how many. */
enum { WHOLE_SIZES = 4 };
static int whole_sizes(const mb__vk_pass *p, int64_t sizes[WHOLE_SIZES])
{
    int n = 0;
    sizes[n++] = p->rows * p->chunks;
    if (p->lanes > 1)
        sizes[n++] = sizes[0] - 1;
    if (p->column_axes)
        sizes[n++] = p->columns;
    if (p->chunks > 1)
        sizes[n++] = mb__vk_chunk(p);
    else if (p->column_axes && p->columns && p->columns <= p->lanes)
        sizes[n++] = p->columns - 1;
    return n;
}

static void add_size(mb__vk_pass *p, int64_t x)
{
    if (mb__vk_size_of(p, x) == p->size_count)
        p->sizes[p->size_count++] = x;
}

static void add_strides(mb__vk_pass *p, const mb__view *view)
{
    for (int i = 0; i < p->k.rank; i++)
        if (p->k.dim[i] != 1)
            add_size(p, view->stride[i]);
}

/* Sizes and strides as data, so that a kernel is shared by all of them: what differs is which are equal, and
 * which are 0, 1 or -1. False: no memory. */
static bool list_sizes(mb__vk_splitter *s, mb__vk_pass *p)
{
    const mb__kernel *k = &p->k;
    int64_t whole[WHOLE_SIZES];
    p->size_count = 0;
    p->sizes =
        mb__bump_get(&s->bump, (size_t)(MB_MAX_RANK * (k->instr_count + k->store_count + 1) + WHOLE_SIZES) *
                                   sizeof *p->sizes);
    if (!p->sizes)
        return false;
    for (int i = 0, n = whole_sizes(p, whole); i < n; i++)
        add_size(p, whole[i]);
    for (int i = 0; i < k->rank; i++)
        add_size(p, k->dim[i]);
    for (int i = 0; i < k->instr_count; i++)
        add_strides(p, &k->instrs[i].view);
    for (int i = 0; i < k->store_count; i++)
        add_strides(p, &k->stores[i].view);
    p->sized = p->size_count <= VK_SIZES_MOST;
    if (!p->sized)
        p->size_count = 0;
    return true;
}

/* ---- what a generated pipeline depends on ---- */

typedef struct bytes {
    unsigned char *at;
    uint32_t count;
} bytes;

static void put(bytes *b, const void *p, size_t n)
{
    memcpy(b->at + b->count, p, n);
    b->count += (uint32_t)n;
}

/* A size: itself, or where it is read. */
static void put_size(bytes *b, const mb__vk_pass *p, int64_t x)
{
    x = p->sized ? mb__vk_size_of(p, x) : x;
    put(b, &x, sizeof x);
}

static void put_view(bytes *b, const mb__vk_pass *p, int32_t place, const mb__view *view)
{
    put(b, &place, sizeof place);
    for (int i = 0; i < p->k.rank; i++)
        put_size(b, p, p->k.dim[i] == 1 ? 0 : view->stride[i]);
}

/* The part of a pass that the pipeline depends on: all except the contents of the region. */
static bytes key_of(mb__vk_splitter *s, const mb__vk_pass *p)
{
    const mb__kernel *k = &p->k;
    size_t each = 40 + 8 * MB_MAX_RANK;
    bytes b = {mb__bump_get(&s->bump, 256 + each * (size_t)(k->instr_count + k->store_count)), 0};
    if (!b.at)
        return b;
    int32_t head[12] = {k->rank,           p->column_axes,
                        (int32_t)p->local, (int32_t)p->lanes,
                        p->rows_fastest,   p->sized ? p->chunks > 1 : (int32_t)p->chunks,
                        p->slot_count,     k->instr_count,
                        p->sized,          p->sized && p->columns <= p->lanes,
                        p->columns == 0,   p->size_count};
    put(&b, head, sizeof head);
    for (int i = 0; i < k->rank; i++)
        put_size(&b, p, k->dim[i]);
    int64_t whole[WHOLE_SIZES];
    for (int i = 0, n = p->sized ? whole_sizes(p, whole) : 0; i < n; i++)
        put_size(&b, p, whole[i]);
    for (int i = 0; i < k->instr_count; i++) {
        const mb__instr *n = &k->instrs[i];
        uint8_t op[4] = {(uint8_t)n->op, (uint8_t)(n->op >> 8), n->dtype, n->from};
        put(&b, op, sizeof op);
        put(&b, n->in, sizeof n->in);
        if (n->op == MB_K_CONST)
            put(&b, &n->number, sizeof n->number);
        if (n->custom)
            put(&b, &n->custom->number, sizeof n->custom->number);
        if (n->op == MB_K_LOAD)
            put_view(&b, p, mb__vk_slot_of(p, &n->view), &n->view);
        bool binds = n->op == MB_K_SCALAR || n->op == MB_K_RANDOM || n->op == MB_OP_DRAW;
        int32_t bound = binds ? mb__vk_param_of(p, n->bind) : mb__vk_is_zero(n) ? mb__vk_param_of(p, 0) : -1;
        put(&b, &bound, sizeof bound);
        if (n->op == MB_OP_DRAW) {
            int32_t count = mb__vk_param_of(p, (int64_t)n->number);
            put(&b, &count, sizeof count);
        }
        if (n->op == MB_K_IOTA || n->op == MB_K_RANDOM)
            put_view(&b, p, mb__vk_param_of(p, n->view.offset), &n->view);
    }
    for (int i = 0; i < k->store_count; i++) {
        int32_t st[2] = {k->stores[i].instr, k->stores[i].per_row};
        put(&b, st, sizeof st);
        put_view(&b, p, mb__vk_slot_of(p, &k->stores[i].view), &k->stores[i].view);
    }
    return b;
}

/* ---- the pipeline ---- */

static mb__vk_pipeline *assemble(mb__vk_splitter *s, mb__vk_pass *pass)
{
    mb__vk *v = s->p->v;
    mb__vk_asm *a = mb__vk_asm_new(v, mb__vk_uses_of(&pass->k), false);
    if (!a)
        return NULL;
    mb__vk_emit(a, pass);
    uint32_t count = 0;
    const uint32_t *words = mb__vk_asm_words(a, &count);
    if (words && v->watch_kernel)
        v->watch_kernel(v, s->p->plan, pass, &words, &count);
    mb__vk_pipeline *pipeline = words ? mb__vk_pipeline_for(v, words, count, pass->local, 0, 0) : NULL;
    mb__vk_asm_free(a);
    return pipeline;
}

/* The same by way of GLSL, which functions of the user's are. */
static mb__vk_pipeline *compile_maps(mb__vk_splitter *s, mb__vk_pass *pass)
{
    mb__vk *v = s->p->v;
    mb__vk_asm *a = mb__vk_asm_new(v, mb__vk_uses_of(&pass->k), true);
    if (!a)
        return NULL;
    mb__vk_emit(a, pass);
    size_t bytes = 0;
    const char *text = mb__vk_asm_text(a);
    uint32_t *words =
        text ? mb__vk_compile_maps(v, s->p->plan->steps[s->step].site, &pass->k, text, &bytes) : NULL;
    mb__vk_pipeline *pipeline =
        words ? mb__vk_pipeline_for(v, words, (uint32_t)(bytes / 4), pass->local, 0, 0) : NULL;
    mb__host_free(v->host, words, bytes);
    mb__vk_asm_free(a);
    return pipeline;
}

static mb__vk_pipeline *pipeline_of(mb__vk_splitter *s, mb__vk_pass *pass)
{
    bytes key = key_of(s, pass);
    if (!key.at)
        return NULL;
    mb__vk *v = s->p->v;
    uint64_t hash = mb__hash(key.at, key.count);
    mb__vk_known **bucket = &v->known[hash % VK_PIPELINE_BUCKETS];
    for (mb__vk_known *k = *bucket; k; k = k->next)
        if (k->hash == hash && k->key_bytes == key.count && !memcmp(k->key, key.at, key.count))
            return k->pipeline;
    mb__vk_known *k = mb__host_alloc(v->host, sizeof *k);
    unsigned char *copy = k ? mb__host_alloc_raw(v->host, key.count) : NULL;
    mb__vk_pipeline *pipeline = !copy                       ? NULL
                                : mb__vk_has_maps(&pass->k) ? compile_maps(s, pass)
                                                            : assemble(s, pass);
    if (!pipeline) {
        mb__host_free(v->host, copy, key.count);
        mb__host_free(v->host, k, sizeof *k);
        return NULL;
    }
    memcpy(copy, key.at, key.count);
    *k = (mb__vk_known){*bucket, hash, copy, key.count, pipeline};
    *bucket = k;
    return pipeline;
}

/* Lists a pass to the host as GLSL and as SPIR-V; both are generated again, since a cached pipeline has
 * neither. With functions of the user's as GLSL alone.
 */
static bool list_pass(mb__vk_splitter *s, const mb__vk_pass *pass)
{
    mb__vk *v = s->p->v;
    mb__vk_uses uses = mb__vk_uses_of(&pass->k);
    mb__vk_asm *as_text = mb__vk_asm_new(v, uses, true), *as_words = mb__vk_asm_new(v, uses, false);
    const char *text = NULL;
    const uint32_t *words = NULL;
    uint32_t count = 0;
    bool maps = mb__vk_has_maps(&pass->k);
    if (as_text && as_words) {
        mb__vk_emit(as_text, pass);
        text = mb__vk_asm_text(as_text);
        if (!maps)
            mb__vk_emit(as_words, pass);
        words = maps ? NULL : mb__vk_asm_words(as_words, &count);
    }
    if (text && (words || maps))
        v->host->listing(v->host->user, s->p->plan, s->step, text, words, count * sizeof *words);
    mb__vk_asm_free(as_text);
    mb__vk_asm_free(as_words);
    return text && (words || maps);
}

/* ---- the dispatch ---- */

bool mb__vk_dispatch_pass(mb__vk_splitter *s, mb__vk_pass *pass)
{
    mb__vk *v = s->p->v;
    const mb__kernel *k = &pass->k;
    int64_t rows = pass->rows * pass->chunks;
    if (rows == 0)
        return true;
    if (rows >= UINT32_MAX || pass->columns >= UINT32_MAX || k->instr_count > VK_INSTRS_MOST)
        return mb__vk_fail(v, MB_BACKEND, s->p->plan->steps[s->step].site,
                           "vulkan: a kernel over %lld rows of %lld columns with %d operations is too large",
                           (long long)rows, (long long)pass->columns, k->instr_count);
    if (!list_slots(s, pass) || (v->caps.processor && !list_sizes(s, pass)))
        return false;
    mb__vk_pipeline *pipeline = pipeline_of(s, pass);
    if (!pipeline || (v->host->listing && !list_pass(s, pass)))
        return false;
    uint32_t region = mb__vk_region(s->p, pass->slots, pass->slot_count);
    for (int i = 0; i < pass->param_count; i++)
        mb__vk_param(s->p, pass->params[i]);
    for (int i = 0; i < pass->size_count; i++)
        mb__vk_param(s->p, pass->sizes[i]);
    for (int i = 0; i < pass->slot_count; i++) {
        bool read = false, written = false;
        for (int j = 0; j < k->instr_count; j++)
            read |= k->instrs[j].op == MB_K_LOAD && k->instrs[j].view.value == pass->slots[i].value;
        for (int j = 0; j < k->store_count; j++)
            written |= k->stores[j].view.value == pass->slots[i].value;
        if (read)
            mb__vk_accesses(s->p, pass->slots[i].value, false);
        if (written)
            mb__vk_accesses(s->p, pass->slots[i].value, true);
    }
    uint32_t share = pass->local / pass->lanes;
    mb__vk_dispatch_add(s->p, pipeline, region, (rows + share - 1) / share, s->step,
                        (double)pass->rows * (double)(pass->columns ? pass->columns : 1) * 4 *
                            (pass->slot_count + 1));
    return !s->p->failed;
}
