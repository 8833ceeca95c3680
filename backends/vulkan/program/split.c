/* SPDX-License-Identifier: MIT
 *
 * split.c - splits a kernel of the plan into passes, each of one dispatch.
 *
 * A pass has rows and columns; what it reduces, it reduces over all of its columns. A kernel may ask for
 * more: results accumulated over several sets of axes, beside row reductions that go on being used. Then
 *   - row reductions that such an accumulation needs are computed first, and kept in memory of the program's;
 *   - each set of axes gets a pass whose columns they are, which computes its operands again;
 *   - the pass that stores whole values comes last, since those may take the place of operands.
 * A pass with few rows and many columns is cut into pieces, whose sums a second pass adds up. Which, depends
 * on sizes alone: the same plan gives the same bits each time.
 */
#include "backends/vulkan/program/program.h"

/* ---- kernels under construction ---- */

static bool copy_kernel(mb__vk_splitter *s, const mb__kernel *from, mb__kernel *to)
{
    *to = *from;
    size_t instrs = (size_t)(from->instr_count + from->store_count + 1);
    to->instrs = mb__bump_get(&s->bump, instrs * sizeof *to->instrs); /* room for a reduction of each store */
    to->stores = mb__bump_get(&s->bump, (size_t)(from->store_count + 1) * sizeof *to->stores);
    if (!to->instrs || !to->stores)
        return false;
    memcpy(to->instrs, from->instrs, (size_t)from->instr_count * sizeof *to->instrs);
    memcpy(to->stores, from->stores, (size_t)from->store_count * sizeof *to->stores);
    return true;
}

static bool drop_dead(mb__vk_splitter *s, mb__kernel *k)
{
    int32_t *at = mb__bump_get(&s->bump, (size_t)(k->instr_count + 1) * sizeof *at);
    if (!at)
        return false;
    for (int i = 0; i < k->store_count; i++)
        at[k->stores[i].instr] = 1;
    for (int i = k->instr_count; i-- > 0;)
        for (int j = 0; at[i] && j < 3; j++)
            if (k->instrs[i].in[j] >= 0)
                at[k->instrs[i].in[j]] = 1;
    int kept = 0;
    for (int i = 0; i < k->instr_count; i++) {
        if (!at[i])
            continue;
        mb__instr n = k->instrs[i];
        for (int j = 0; j < 3; j++)
            if (n.in[j] >= 0)
                n.in[j] = at[n.in[j]];
        at[i] = kept;
        k->instrs[kept++] = n;
    }
    k->instr_count = kept;
    for (int i = 0; i < k->store_count; i++)
        k->stores[i].instr = at[k->stores[i].instr];
    return true;
}

static mb__view *view_at(mb__kernel *k, int i)
{
    if (i < k->instr_count)
        return &k->instrs[i].view;
    return i - k->instr_count < k->store_count ? &k->stores[i - k->instr_count].view : NULL;
}

/* Axes of the mask go last. */
static void columns_last(mb__kernel *k, uint32_t mask)
{
    int order[MB_MAX_RANK], n = 0;
    for (int column = 0; column < 2; column++)
        for (int a = 0; a < k->rank; a++)
            if ((int)(mask >> a & 1) == column)
                order[n++] = a;
    int64_t dim[MB_MAX_RANK];
    for (int a = 0; a < k->rank; a++)
        dim[a] = k->dim[order[a]];
    memcpy(k->dim, dim, (size_t)k->rank * sizeof *dim);
    mb__view *v;
    for (int i = 0; (v = view_at(k, i)); i++) {
        int64_t stride[MB_MAX_RANK] = {0};
        for (int a = 0; a < k->rank; a++)
            stride[a] = v->stride[order[a]];
        memcpy(v->stride, stride, sizeof stride);
    }
}

/* Neighbouring axes become one where every view allows; `edge`: the first column axis stays apart. */
static void merge_axes(mb__kernel *k, int *edge)
{
    for (int a = k->rank - 1; a > 0; a--) {
        bool can = a != *edge;
        mb__view *v;
        for (int i = 0; can && (v = view_at(k, i)); i++)
            can = v->stride[a - 1] == v->stride[a] * k->dim[a];
        if (!can)
            continue;
        k->dim[a - 1] *= k->dim[a];
        for (int i = 0; (v = view_at(k, i)); i++) {
            memmove(v->stride + a - 1, v->stride + a, (size_t)(MB_MAX_RANK - a) * sizeof *v->stride);
            v->stride[MB_MAX_RANK - 1] = 0;
        }
        memmove(k->dim + a, k->dim + a + 1, (size_t)(k->rank - 1 - a) * sizeof *k->dim);
        k->rank--;
        if (a < *edge)
            --*edge;
    }
}

static void insert_axis(mb__kernel *k, int at, int64_t dim)
{
    mb__view *v;
    for (int i = 0; (v = view_at(k, i)); i++) {
        memmove(v->stride + at + 1, v->stride + at, (size_t)(MB_MAX_RANK - 1 - at) * sizeof *v->stride);
        v->stride[at] = 0;
    }
    memmove(k->dim + at + 1, k->dim + at, (size_t)(k->rank - at) * sizeof *k->dim);
    k->dim[at] = dim;
    k->rank++;
}

/* ---- how a pass is spread over invocations ---- */

/* Loops over the columns that a lane runs. */
static int loops_of(const mb__kernel *k)
{
    int loops = 1;
    for (int i = 0; i < k->instr_count; i++)
        loops += mb__vk_is_reduction(&k->instrs[i]);
    return loops;
}

/* Neighbouring rows lie closer together in memory than neighbouring columns. */
static bool rows_lie_closer(const mb__kernel *k, int outer)
{
    int rows = 0, columns = 0;
    for (int i = 0; i < k->instr_count; i++)
        if (k->instrs[i].op == MB_K_LOAD) {
            const int64_t *stride = k->instrs[i].view.stride;
            rows += outer > 0 && (stride[outer - 1] == 1 || stride[outer - 1] == -1);
            columns += stride[k->rank - 1] == 1 || stride[k->rank - 1] == -1;
        }
    return rows > columns;
}

static void spread(const mb__vk *v, mb__vk_pass *s, bool cuttable)
{
    const mb__kernel *k = &s->k;
    int outer = k->rank - s->column_axes;
    uint32_t most = mb__vk_widest(v);
    s->lanes = s->chunks = 1;
    if (s->column_axes == 0) {
        s->local = v->caps.processor ? mb__vk_power_up(s->rows, 128) : most;
        return;
    }
    s->rows_fastest = rows_lie_closer(k, outer);
    if (v->caps.processor) { /* one lane per row: barriers are expensive */
        s->local = mb__vk_power_up(s->rows, 64);
        if (s->rows < 32 && cuttable && s->columns > 1024) {
            int64_t pieces = 256 / (s->rows ? s->rows : 1), largest = s->columns / 512;
            s->chunks = (uint32_t)(pieces < largest ? pieces : largest);
            s->local = mb__vk_power_up(s->rows * s->chunks, 64);
        } else if (s->rows < 32 && s->columns > 256) {
            s->lanes = s->local = 32;
        }
    } else {
        s->local = most;
        if (s->rows_fastest) {
            s->lanes = mb__vk_power_up(s->columns, most / 32);
        } else {
            s->lanes = mb__vk_power_up(s->columns, most);
        }
        int64_t lanes = s->rows * s->lanes, wanted = 65536;
        if (cuttable && lanes < wanted) {
            int64_t pieces = wanted / (lanes ? lanes : 1), largest = s->columns / ((int64_t)s->lanes * 16);
            pieces = pieces < largest ? pieces : largest;
            s->chunks = pieces > 1 ? (uint32_t)pieces : 1;
        }
    }
    /* Drivers that end loops: more parts or lanes, until each lane's loops are short enough. */
    int64_t cap = v->caps.iterations ? v->caps.iterations / loops_of(k) : INT64_MAX;
    while (s->columns / s->chunks / s->lanes >= cap && cuttable)
        s->chunks *= 2;
    while (s->columns / s->lanes >= cap && !cuttable && s->lanes < most) {
        s->lanes *= 2;
        s->local = s->local > s->lanes ? s->local : s->lanes;
        s->rows_fastest = false;
    }
}

/* ---- one pass ---- */

/* Stores of sums of whole rows, and of elements: such a pass can be cut into pieces of its columns. */
static bool can_cut(const mb__kernel *k)
{
    bool any = false;
    for (int i = 0; i < k->store_count; i++) {
        if (!k->stores[i].per_row)
            continue;
        any = true;
        if (!mb__vk_is_reduction(&k->instrs[k->stores[i].instr]))
            return false;
    }
    for (int i = 0; i < k->instr_count; i++) /* no instruction uses the result of a row */
        for (int j = 0; j < 3; j++)
            if (k->instrs[i].in[j] >= 0 && mb__vk_is_reduction(&k->instrs[k->instrs[i].in[j]]))
                return false;
    return any && k->rank < MB_MAX_RANK;
}

static bool add_pass(mb__vk_splitter *s, const mb__kernel *kernel, uint32_t column_mask);

/* The pieces' results go to memory of the program's, and a second pass combines them. */
static bool add_pieces(mb__vk_splitter *s, mb__vk_pass *pass)
{
    mb__kernel *k = &pass->k;
    int outer = k->rank - pass->column_axes, count = k->store_count;
    mb__store *whole = mb__bump_get(&s->bump, (size_t)(count + 1) * sizeof *whole);
    if (!whole)
        return false;
    memcpy(whole, k->stores, (size_t)count * sizeof *whole);
    int64_t dim[MB_MAX_RANK];
    memcpy(dim, k->dim, sizeof dim);
    insert_axis(k, outer, pass->chunks);
    for (int i = 0; i < count; i++) {
        mb__store *st = &k->stores[i];
        if (!st->per_row)
            continue;
        mb__instr *sum = &k->instrs[st->instr];
        memset(&st->view, 0, sizeof st->view);
        if (mb__is_half(sum->dtype)) /* rounded once, when the pieces are combined */
            sum->dtype = MB_FLOAT32;
        st->view.value = mb__vk_scratch(s->p, pass->rows * pass->chunks, sum->dtype);
        int64_t stride = 1;
        for (int a = outer; a >= 0; a--) {
            st->view.stride[a] = stride;
            stride *= k->dim[a];
        }
    }
    if (s->p->failed || !mb__vk_dispatch_pass(s, pass))
        return false;
    for (int i = 0; i < count; i++) {
        if (!whole[i].per_row)
            continue;
        const mb__instr *sum = &k->instrs[whole[i].instr];
        mb__instr instrs[3] = {{.op = MB_K_LOAD,
                                .dtype = sum->dtype,
                                .from = sum->dtype,
                                .in = {-1, -1, -1},
                                .bind = -1,
                                .view = k->stores[i].view,
                                .site = sum->site},
                               *sum};
        instrs[1].in[0] = 0;
        instrs[1].dtype = mb__vk_dtype_of(s->p, whole[i].view.value);
        mb__kernel second = {.rank = outer + 1,
                             .inner = 1,
                             .instrs = instrs,
                             .stores = &whole[i],
                             .instr_count = 2,
                             .store_count = 1};
        memcpy(second.dim, dim, (size_t)outer * sizeof *dim);
        second.dim[outer] = pass->chunks;
        whole[i].instr = 1;
        for (int a = outer; a < MB_MAX_RANK; a++)
            whole[i].view.stride[a] = 0;
        if (!add_pass(s, &second, 1u << outer))
            return false;
    }
    return true;
}

/* A kernel all of whose reductions run over the axes of the mask, and are stored once a row. */
static bool add_pass(mb__vk_splitter *s, const mb__kernel *kernel, uint32_t column_mask)
{
    mb__vk_pass pass = {.columns = 1, .rows = 1};
    if (!copy_kernel(s, kernel, &pass.k) || !drop_dead(s, &pass.k))
        return false;
    mb__kernel *k = &pass.k;
    columns_last(k, column_mask);
    int edge = k->rank - __builtin_popcount(column_mask & ((1u << k->rank) - 1));
    merge_axes(k, &edge);
    pass.column_axes = k->rank - edge;
    pass.rows = mb__numel(k->dim, edge);
    pass.columns = mb__numel(k->dim + edge, pass.column_axes);
    spread(s->p->v, &pass, can_cut(k));
    return pass.chunks > 1 ? add_pieces(s, &pass) : mb__vk_dispatch_pass(s, &pass);
}

/* ---- one kernel ---- */

/* Axes over which an accumulating store sums; 0 for the others. */
static uint32_t reduced_axes(const mb__kernel *k, const mb__store *st)
{
    uint32_t mask = 0;
    for (int a = 0; st->mode != MB_STORE && a < k->rank; a++)
        if (st->view.stride[a] == 0 && k->dim[a] != 1)
            mask |= 1u << a;
    return mask;
}

enum plain { NO_PLAIN, ELEMENTS, ELEMENTS_AND_ROWS };

/* The accumulating stores over the mask become row reductions, stored once a row; the others stay out, but
 * for those plain ones that are asked for. */
static bool take_stores(mb__vk_splitter *s, const mb__kernel *from, uint32_t mask, enum plain plain,
                        mb__kernel *to)
{
    if (!copy_kernel(s, from, to))
        return false;
    to->store_count = 0;
    for (int i = 0; i < from->store_count; i++) {
        mb__store st = from->stores[i];
        uint32_t reduced = reduced_axes(from, &st);
        if (reduced ? reduced != mask : plain < (st.per_row ? ELEMENTS_AND_ROWS : ELEMENTS))
            continue;
        if (reduced) {
            mb__instr sum = {.op = st.mode == MB_STORE_SUM ? MB_K_SUM : MB_K_MAX,
                             .dtype = from->instrs[st.instr].dtype,
                             .from = from->instrs[st.instr].dtype,
                             .in = {st.instr, -1, -1},
                             .bind = -1,
                             .site = from->instrs[st.instr].site};
            sum.view.value = -1;
            st.instr = to->instr_count;
            to->instrs[to->instr_count++] = sum;
            st.per_row = true;
        }
        st.mode = MB_STORE;
        to->stores[to->store_count++] = st;
    }
    return true;
}

/* Row reductions that go on being used are stored first; in the kernel they become loads. */
static bool spill_rows(mb__vk_splitter *s, const mb__kernel *k, uint32_t rows_mask, mb__kernel *out)
{
    mb__kernel first;
    if (!copy_kernel(s, k, out) || !copy_kernel(s, k, &first))
        return false;
    first.stores = mb__bump_get(&s->bump, (size_t)(k->instr_count + 1) * sizeof *first.stores);
    if (!first.stores)
        return false;
    first.store_count = 0;
    int outer = k->rank - k->inner;
    int64_t rows = mb__numel(k->dim, outer);
    for (int i = 0; i < k->instr_count; i++) {
        if (!mb__vk_is_reduction(&k->instrs[i]))
            continue;
        mb__store st = {.instr = i, .mode = MB_STORE, .per_row = true};
        st.view.value = mb__vk_scratch(s->p, rows, k->instrs[i].dtype);
        int64_t stride = 1;
        for (int a = outer; a-- > 0;) {
            st.view.stride[a] = stride;
            stride *= k->dim[a];
        }
        first.stores[first.store_count++] = st;
        mb__instr *load = &out->instrs[i];
        load->op = MB_K_LOAD;
        load->in[0] = load->in[1] = load->in[2] = -1;
        load->view = st.view;
    }
    return !s->p->failed && add_pass(s, &first, rows_mask);
}

/* Values of a row, in a kernel that reduces no rows: over the rows alone, whatever loops the other stores
 * take. */
static bool add_row_values(mb__vk_splitter *s, const mb__kernel *k)
{
    mb__kernel rows;
    if (!copy_kernel(s, k, &rows))
        return false;
    rows.store_count = 0;
    for (int i = 0; i < k->store_count; i++)
        if (k->stores[i].per_row)
            rows.stores[rows.store_count++] = k->stores[i];
    if (!rows.store_count)
        return true;
    rows.rank = k->rank - k->inner;
    if (rows.rank == 0)
        rows.dim[rows.rank++] = 1;
    return add_pass(s, &rows, 0);
}

static bool split(mb__vk_splitter *s, const mb__kernel *kernel)
{
    const mb__kernel *k = kernel;
    mb__kernel spilled, part;
    uint32_t rows_mask = 0, sets[MB_MAX_RANK * 4];
    int set_count = 0;
    bool rows = false, plain = false;
    for (int i = 0; i < k->instr_count; i++)
        rows |= mb__vk_is_reduction(&k->instrs[i]);
    for (int a = k->rank - k->inner; rows && a < k->rank; a++)
        rows_mask |= 1u << a;
    if (!rows && !add_row_values(s, k))
        return false;
    for (int i = 0; i < k->store_count; i++) {
        uint32_t mask = reduced_axes(k, &k->stores[i]);
        plain |= mask == 0 && !k->stores[i].per_row;
        bool known = mask == 0 || (rows && mask == rows_mask);
        for (int j = 0; j < set_count && !known; j++)
            known = sets[j] == mask;
        if (known)
            continue;
        if (set_count == (int)(sizeof sets / sizeof *sets)) /* more than occur in practice */
            return mb__vk_fail(s->p->v, MB_BACKEND, s->p->plan->steps[s->step].site,
                               "vulkan: a kernel reduces over more than %d sets of axes", set_count);
        sets[set_count++] = mask;
    }
    if (rows && set_count) {
        if (!spill_rows(s, k, rows_mask, &spilled))
            return false;
        k = &spilled;
    }
    for (int j = 0; j < set_count; j++) {
        /* Without row reductions, elements can be stored along with the last set: one pass less. */
        bool along = !rows && plain && j == set_count - 1;
        if (!take_stores(s, k, sets[j], along ? ELEMENTS : NO_PLAIN, &part) || !add_pass(s, &part, sets[j]))
            return false;
        plain &= !along;
    }
    if (rows) {
        /* With the reductions in memory, what is left may still sum over the rows' own axes. */
        return take_stores(s, k, rows_mask, ELEMENTS_AND_ROWS, &part) &&
               (part.store_count == 0 || add_pass(s, &part, rows_mask));
    }
    return !plain || (take_stores(s, k, 0, ELEMENTS, &part) && add_pass(s, &part, 0));
}

bool mb__vk_add_kernel(mb__vk_program *p, int step, const mb__kernel *k)
{
    mb__vk_splitter s = {.p = p, .bump = {.host = p->v->host}, .step = step};
    bool ok = split(&s, k);
    mb__bump_free(&s.bump);
    return ok;
}

bool mb__vk_add_rows(mb__vk_program *p, int step, const mb__kernel *k, uint32_t column_mask)
{
    mb__vk_splitter s = {.p = p, .bump = {.host = p->v->host}, .step = step};
    bool ok = add_pass(&s, k, column_mask);
    mb__bump_free(&s.bump);
    return ok;
}

bool mb__vk_add_fill(mb__vk_program *p, int step, const mb__view *view, int64_t count, int dtype,
                     double number)
{
    mb__instr in = {.op = MB_K_CONST,
                    .dtype = (uint8_t)dtype,
                    .from = (uint8_t)dtype,
                    .in = {-1, -1, -1},
                    .bind = -1,
                    .number = number};
    in.view.value = -1;
    mb__store st = {.instr = 0, .mode = MB_STORE, .view = *view};
    mb__kernel k = {.rank = 1,
                    .inner = 1,
                    .dim = {count},
                    .instrs = &in,
                    .stores = &st,
                    .instr_count = 1,
                    .store_count = 1};
    return mb__vk_add_kernel(p, step, &k);
}
