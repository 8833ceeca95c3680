/* SPDX-License-Identifier: MIT
 *
 * reference.c - the oracle: every op by the simplest loop, one op per step, nothing simplified or fused.
 * Values of every dtype are doubles, so results for float32 are accurate to float64 rounding, and integers
 * and booleans are exact; an int64 lies in a double's place with its own bits. Halves are rounded where they
 * are stored. Also the example of how to write a backend.
 */
#include <math.h>

#include "backends/plan/philox.h"
#include "backends/plan/backend.h"
#include "backends/plan/custom.h"
#include "backends/reference/rows.h"
#include "backends/reference/values.h"

static int list(mb_device *devices, int capacity, const char **why)
{
    (void)why;
    if (capacity > 0)
        *devices = (mb_device){.backend = "reference",
                               .name = "plain loops in double precision",
                               .kind = "processor",
                               .float64 = true};
    return 1;
}

/* The state of an open backend is its host. */
static mb_status open_reference(const mb__host *host, const mb__open_options *options, void **state,
                                mb__limits *limits)
{
    (void)options;
    *limits = (mb__limits){0};
    *state = (void *)host;
    return MB_OK;
}
static void close_reference(void *state)
{
    (void)state;
}
static size_t element_size(mb_dtype dtype)
{
    (void)dtype;
    return sizeof(double);
}
static mb_status memory_new(void *state, size_t bytes, void **memory)
{
    *memory = mb__host_alloc(state, bytes);
    return *memory ? MB_OK : MB_NO_MEMORY;
}
static void memory_free(void *state, void *memory, size_t bytes)
{
    mb__host_free(state, memory, bytes);
}

static mb_status upload(void *state, void *memory, mb_dtype dtype, int64_t count, const void *from)
{
    (void)state;
    double *to = memory;
    for (int64_t i = 0; i < count; i++)
        to[i] = !from               ? 0
                : dtype == MB_INT64 ? holding(((const int64_t *)from)[i])
                : dtype == MB_BOOL  ? ((const uint8_t *)from)[i] != 0
                                    : mb__element_of(dtype, from, i);
    return MB_OK;
}
static mb_status download(void *state, void *memory, mb_dtype dtype, int64_t count, void *to)
{
    (void)state;
    const double *from = memory;
    for (int64_t i = 0; i < count; i++)
        switch (dtype) {
        case MB_FLOAT32:
            ((float *)to)[i] = (float)from[i];
            break;
        case MB_FLOAT64:
            ((double *)to)[i] = from[i];
            break;
        case MB_INT32:
            ((int32_t *)to)[i] = (int32_t)from[i];
            break;
        case MB_FLOAT16:
        case MB_BFLOAT16:
            ((uint16_t *)to)[i] = mb__to_half((int)dtype, from[i]);
            break;
        case MB_INT64:
            ((int64_t *)to)[i] = held(from[i]);
            break;
        case MB_UINT8:
            ((uint8_t *)to)[i] = (uint8_t)from[i];
            break;
        default:
            ((uint8_t *)to)[i] = from[i] != 0;
        }
    return MB_OK;
}

/* ---- one element ---- */

static double elementwise(const mb__instr *i, double a, double b, double c)
{
    double x = a;
    if (i->from == MB_INT64 && mb__is_kind(i->op, MB_KIND_COMPARE))
        return int64_compared(i->op, held(a), held(b));
    if (i->op == MB_OP_MUL && i->dtype == MB_INT32)
        return (double)(int32_t)((uint32_t)(int32_t)a * (uint32_t)(int32_t)b);
    if (i->from == MB_BOOL) {
        switch (i->op) {
        case MB_OP_NOT:
            return a == 0;
        case MB_OP_AND:
            return a != 0 && b != 0;
        case MB_OP_OR:
            return a != 0 || b != 0;
        default:
            break;
        }
    }
    switch (i->op) {
#define M(f) f
#define MB_COMPARE(NAME, name, types, expr, doc)                                                             \
    case MB_OP_##NAME:                                                                                       \
        return expr;
#define UNARY_F(NAME, expr)                                                                                  \
    case MB_OP_##NAME:                                                                                       \
        return expr;
#define UNARY_N(NAME, expr)                                                                                  \
    case MB_OP_##NAME:                                                                                       \
        return i->dtype == MB_INT32 ? wrap(expr) : (expr);
/* In integers that do not overflow. */
#define UNARY_I(NAME, expr)                                                                                  \
    case MB_OP_##NAME: {                                                                                     \
        const int64_t integers[2] = {(int64_t)a, (int64_t)b};                                                \
        const int64_t a = integers[0], b = integers[1];                                                      \
        return wrap((double)(expr));                                                                         \
    }
#define UNARY_L(NAME, expr)
#define MB_UNARY(NAME, name, types, expr, lo, hi, cost, doc)         UNARY_##types(NAME, expr)
#define MB_BINARY(NAME, name, types, expr, lo, hi, flags, cost, doc) UNARY_##types(NAME, expr)
#include "tensor/ops.def"
#undef M
    case MB_OP_WHERE:
        return a != 0 ? b : c;
    case MB_OP_MAP:
        i->custom->loops.f64(1, &x, &a, &b, &c);
        return x;
    case MB_OP_CAST:
        return cast(i->from, i->dtype, x);
    default:
        return x; /* copy */
    }
}

static double draw(mb_dtype dtype, uint64_t key, int64_t at)
{
    if (dtype == MB_FLOAT64) {
        philox4x32_ctr_t w = mb__philox(key, (uint64_t)at / 2);
        return mb__unit_double(w.v[at % 2 * 2], w.v[at % 2 * 2 + 1]);
    }
    uint32_t w = mb__philox(key, (uint64_t)at / 4).v[at % 4];
    return dtype == MB_INT32 ? (double)(w >> 1) : (double)mb__unit_float(w);
}

/* ---- steps ---- */

typedef struct machine {
    const mb__plan *plan;
    double **memory; /* of each value */
    double *registers;
    const mb__scalar *scalars;
    struct machine **bodies; /* of each step that is a loop */
    void **ports;            /* of a loop's body: inputs, then outputs, of the current step */
    void **converted;        /* of each value that an op of the user's wants as integers: such memory; NULL */
    const mb__host *host;
} machine;

static int64_t at(const mb__view *v, const int64_t *index, int rank)
{
    int64_t o = v->offset;
    for (int i = 0; i < rank; i++)
        o += v->stride[i] * index[i];
    return o;
}

static bool next(int64_t *index, const int64_t *dim, int rank)
{
    for (int i = rank; i-- > 0;) {
        if (++index[i] < dim[i])
            return true;
        index[i] = 0;
    }
    return false;
}

/* Sums as their dtype holds them. */
static void hold(machine *m, int32_t value)
{
    const mb__value *v = &m->plan->values[value];
    double *x = m->memory[value];
    for (int64_t i = 0; i < v->count && v->dtype == MB_INT32; i++)
        x[i] = wrap(x[i]);
    for (int64_t i = 0; i < v->count && mb__is_half(v->dtype); i++)
        x[i] = mb__rounded(v->dtype, x[i]);
}

/* Below what any element is. */
static double least(int dtype)
{
    return mb__is_float(dtype) ? -(double)INFINITY : INT32_MIN;
}

static void run_kernel(machine *m, const mb__kernel *k)
{
    for (int s = 0; s < k->store_count; s++)
        if (k->stores[s].mode != MB_STORE) {
            double *out = m->memory[k->stores[s].view.value];
            const mb__value *v = &m->plan->values[k->stores[s].view.value];
            for (int64_t i = 0; i < v->count; i++)
                out[i] = k->stores[s].mode == MB_STORE_SUM ? 0 : least(v->dtype);
        }
    int64_t index[MB_MAX_RANK] = {0};
    if (mb__numel(k->dim, k->rank) == 0)
        return;
    do {
        double *r = m->registers;
        for (int j = 0; j < k->instr_count; j++) {
            const mb__instr *i = &k->instrs[j];
            switch (i->op) {
            case MB_K_LOAD:
                r[j] = m->memory[i->view.value][at(&i->view, index, k->rank)];
                break;
            case MB_K_CONST:
                r[j] = number(i->dtype, i->number);
                break;
            case MB_K_SCALAR:
                r[j] = number(i->dtype, m->scalars[i->bind].u.number);
                break;
            case MB_K_IOTA:
                r[j] = number(i->dtype, (double)at(&i->view, index, k->rank));
                break;
            case MB_K_RANDOM:
                r[j] = draw((mb_dtype)i->dtype, m->scalars[i->bind].u.key, at(&i->view, index, k->rank));
                break;
            case MB_OP_DRAW:
                r[j] = draw((mb_dtype)i->dtype, m->scalars[i->bind].u.key,
                            (int64_t)r[i->in[0]] * (int64_t)i->number + (int64_t)r[i->in[1]]);
                break;
            default:
                r[j] = elementwise(i, r[i->in[0]], i->in[1] >= 0 ? r[i->in[1]] : 0,
                                   i->in[2] >= 0 ? r[i->in[2]] : 0);
            }
        }
        for (int s = 0; s < k->store_count; s++) {
            const mb__store *st = &k->stores[s];
            double *out = &m->memory[st->view.value][at(&st->view, index, k->rank)], v = r[st->instr];
            int dtype = m->plan->values[st->view.value].dtype;
            if (st->mode == MB_STORE)
                *out = mb__is_half(dtype) ? mb__rounded(dtype, v) : v;
            else if (st->mode == MB_STORE_SUM)
                *out = dtype == MB_INT32 ? wrap(*out + v) : *out + v;
            else
                *out = (v > *out || v != v) ? v : *out;
        }
    } while (next(index, k->dim, k->rank));
    for (int s = 0; s < k->store_count; s++)
        if (k->stores[s].mode == MB_STORE_SUM)
            hold(m, k->stores[s].view.value);
}

static void run_product(machine *m, const mb__product *p)
{
    double *a = m->memory[p->a.value] + p->a.offset, *b = m->memory[p->b.value] + p->b.offset,
           *c = m->memory[p->c.value] + p->c.offset;
    memset(m->memory[p->c.value], 0, (size_t)m->plan->values[p->c.value].count * sizeof *c);
    int64_t index[3 * MB_MAX_RANK] = {0};
    do {
        int64_t oa = 0, ob = 0, oc = 0;
        for (int l = 0; l < p->loops; l++) {
            oa += index[l] * p->a_loop[l];
            ob += index[l] * p->b_loop[l];
            oc += index[l] * p->c_loop[l];
        }
        for (int64_t i = 0; i < p->m; i++)
            for (int64_t j = 0; j < p->n; j++) {
                double sum = 0;
                for (int64_t k = 0; k < p->k; k++)
                    sum += a[oa + i * p->a_m + k * p->a_k] * b[ob + k * p->b_k + j * p->b_n];
                c[oc + i * p->c_m + j * p->c_n] += sum;
            }
    } while (next(index, p->loop, p->loops));
    hold(m, p->c.value);
}

static void along_axis(machine *m, const mb__other *o)
{
    const double *in = m->memory[o->in.value];
    double *out = m->memory[o->out.value];
    int64_t index[MB_MAX_RANK] = {0}, dim[MB_MAX_RANK], n = o->in_dim[o->axis];
    memcpy(dim, o->in_dim, sizeof dim);
    dim[o->axis] = 1;
    if (mb__numel(o->in_dim, o->in_rank) == 0)
        return;
    do {
        const double *x = in + at(&o->in, index, o->in_rank);
        double *y = out + at(&o->out, index, o->out_rank);
        int64_t xs = o->in.stride[o->axis], ys = o->out.stride[o->axis];
        if (o->op == MB_OP_ARGMAX) {
            int64_t best = 0;
            for (int64_t i = 1; i < n; i++)
                if (mb__reference_before(x[best * xs], x[i * xs]))
                    best = i;
            *y = (double)best;
        } else if (o->op == MB_OP_CUMSUM) {
            double sum = 0;
            for (int64_t i = 0; i < n; i++) {
                int64_t k = o->flag ? n - 1 - i : i;
                sum += x[k * xs];
                y[k * ys] = sum;
            }
        } else if (o->op == MB_OP_CUMMAX) {
            for (int64_t i = 0; i < n; i++) {
                double top = i ? y[(i - 1) * ys] : x[0];
                y[i * ys] = mb__reference_before(top, x[i * xs]) ? x[i * xs] : top;
            }
        } else
            mb__reference_argsort(o, x, xs, y, ys);
    } while (next(index, dim, o->in_rank));
    if (o->op == MB_OP_CUMSUM)
        hold(m, o->out.value);
}

static int64_t clamp(double i, int64_t size)
{
    return i < 0 ? 0 : i >= (double)size ? size - 1 : (int64_t)i;
}

/* take: out[before, i..., after] = in[before, index[i...], after]; scatter_add the other way round. */
static void by_index(machine *m, const mb__other *o)
{
    bool take = o->op == MB_OP_TAKE;
    const double *in = m->memory[o->in.value], *idx = m->memory[o->index.value];
    double *out = m->memory[o->out.value];
    const mb__view *wide = take ? &o->out : &o->in, *narrow = take ? &o->in : &o->out;
    const int64_t *dim = take ? o->out_dim : o->in_dim;
    int rank = take ? o->out_rank : o->in_rank;
    int64_t index[MB_MAX_RANK] = {0}, size = take ? o->in_dim[o->axis] : o->out_dim[o->axis];
    if (!take)
        memset(out, 0, (size_t)m->plan->values[o->out.value].count * sizeof *out);
    if (mb__numel(dim, rank) == 0)
        return;
    do {
        int64_t chosen = clamp(idx[at(&o->index, index + o->axis, o->index_rank)], size);
        int64_t n = narrow->offset + chosen * narrow->stride[o->axis];
        for (int i = 0; i < o->axis; i++)
            n += index[i] * narrow->stride[i];
        for (int i = o->axis + o->index_rank; i < rank; i++)
            n += index[i] * narrow->stride[i - o->index_rank + 1];
        if (take)
            out[at(wide, index, rank)] = in[n];
        else
            out[n] += in[at(wide, index, rank)];
    } while (next(index, dim, rank));
    if (!take)
        hold(m, o->out.value);
}

static void by_matrix(machine *m, const mb__other *o)
{
    int64_t index[MB_MAX_RANK] = {0};
    if (mb__numel(o->out_dim, o->out_rank) == 0)
        return;
    do {
        const double *a = m->memory[o->in.value] + at(&o->in, index, o->axis);
        double *y = m->memory[o->out.value] + at(&o->out, index, o->axis);
        if (o->op == MB_OP_CHOLESKY)
            mb__reference_cholesky(o, a, y);
        else
            mb__reference_triangular_solve(o, a, m->memory[o->index.value] + at(&o->index, index, o->axis),
                                           y);
    } while (next(index, o->out_dim, o->axis));
}

/* ---- ops of the user's, whose functions take doubles for floats, and integers as they are ---- */

static size_t converted_bytes(const mb__value *v)
{
    return ((size_t)v->count + 1) * sizeof(int32_t);
}

/* Memory for the integers that a step's function is given. */
static bool make_converted(machine *m, const mb__step *s)
{
    const mb_custom_op_spec *spec = &s->u.custom->op->spec;
    for (int i = 0; i < spec->operands + spec->results; i++) {
        const mb__core_view *a =
            i < spec->operands ? &s->u.custom->in[i] : &s->u.custom->out[i - spec->operands];
        void **to = &m->converted[a->view.value];
        if (!mb__is_float(a->dtype) && !*to &&
            !(*to = mb__host_alloc(m->host, converted_bytes(&m->plan->values[a->view.value]))))
            return false;
    }
    return true;
}

static mb_status run_custom(const machine *m, const mb__step *step)
{
    enum { ARRAYS = MB_CUSTOM_OPERANDS + MB_CUSTOM_RESULTS };
    const mb__custom *c = step->u.custom;
    int n = c->op->spec.operands, all = n + c->op->spec.results;
    void *memory[ARRAYS];
    mb_dtype dtypes[ARRAYS];
    for (int i = 0; i < all; i++) {
        const mb__core_view *a = i < n ? &c->in[i] : &c->out[i - n];
        int value = a->view.value;
        bool whole = mb__is_float(a->dtype);
        dtypes[i] = whole ? MB_FLOAT64 : (mb_dtype)a->dtype;
        memory[i] = whole ? m->memory[value] : m->converted[value];
        if (!whole && i < n)
            download(NULL, m->memory[value], dtypes[i], m->plan->values[value].count, memory[i]);
    }
    mb_status status = mb__custom_run(c, memory, dtypes, 0, mb__numel(c->loop, c->loops));
    int value = c->out[0].view.value;
    if (status == MB_OK && !mb__is_float(c->out[0].dtype))
        upload(NULL, m->memory[value], dtypes[n], m->plan->values[value].count, memory[n]);
    return status == MB_OK ? MB_OK : mb__custom_failed(m->host, step, status);
}

/* ---- plans ---- */

static int registers_of(const mb__plan *plan)
{
    int most = 1;
    for (int s = 0; s < plan->step_count; s++)
        if (plan->steps[s].kind == MB_STEP_KERNEL && plan->steps[s].u.kernel.instr_count > most)
            most = plan->steps[s].u.kernel.instr_count;
    return most;
}

static size_t ports_of(const mb__plan *plan)
{
    return (size_t)(plan->input_count + plan->output_count) + 1;
}

static void release(const mb__host *host, machine *m)
{
    if (!m)
        return;
    const mb__plan *plan = m->plan;
    for (int s = 0; m->bodies && s < plan->step_count; s++)
        release(host, m->bodies[s]);
    mb__host_free(host, m->bodies, ((size_t)plan->step_count + 1) * sizeof(*m->bodies));
    for (int i = 0; m->converted && i < plan->value_count; i++)
        mb__host_free(host, m->converted[i], converted_bytes(&plan->values[i]));
    mb__host_free(host, m->converted, ((size_t)plan->value_count + 1) * sizeof *m->converted);
    mb__host_free(host, m->ports, ports_of(plan) * sizeof *m->ports);
    mb__host_free(host, m->memory, ((size_t)plan->value_count + 1) * sizeof *m->memory);
    mb__host_free(host, m->registers, (size_t)(registers_of(plan) + 1) * sizeof *m->registers);
    mb__host_free(host, m, sizeof *m);
}

/* Prepares a plan and the bodies of its loops; adds its memory to *bytes. NULL: no memory. */
static machine *machine_of(const mb__host *host, const mb__plan *plan, size_t *bytes)
{
    machine *m = mb__host_alloc(host, sizeof *m);
    if (!m)
        return NULL;
    size_t memory = ((size_t)plan->value_count + 1) * sizeof *m->memory;
    size_t registers = (size_t)(registers_of(plan) + 1) * sizeof *m->registers;
    size_t bodies = ((size_t)plan->step_count + 1) * sizeof(*m->bodies),
           ports = ports_of(plan) * sizeof *m->ports;
    m->plan = plan;
    m->host = host;
    m->memory = mb__host_alloc(host, memory);
    m->converted = mb__host_alloc(host, memory);
    m->registers = mb__host_alloc(host, registers);
    m->bodies = mb__host_alloc(host, bodies);
    m->ports = mb__host_alloc(host, ports);
    bool ok = m->memory && m->converted && m->registers && m->bodies && m->ports;
    for (int s = 0; s < plan->step_count && ok; s++)
        if (plan->steps[s].kind == MB_STEP_LOOP)
            ok = (m->bodies[s] = machine_of(host, plan->steps[s].u.loop->body, bytes)) != NULL;
        else if (plan->steps[s].kind == MB_STEP_CUSTOM)
            ok = make_converted(m, &plan->steps[s]);
    *bytes += sizeof *m + 2 * memory + registers + bodies + ports;
    if (ok)
        return m;
    release(host, m);
    return NULL;
}

static mb_status compile(void *state, const mb__plan *plan, void **program, size_t *bytes)
{
    *bytes = 0;
    *program = machine_of(state, plan, bytes);
    return *program ? MB_OK : MB_NO_MEMORY;
}

static void discard(void *state, void *program)
{
    release(state, program);
}

static mb_status run_machine(machine *m, const mb__binding *b);

static double *port_at(const machine *m, mb__port p)
{
    return m->memory[p.value] + p.offset;
}

/* Where input or output i of the body lies when `left_out` steps before, and `after` after this one do
 * nothing. */
typedef struct looping {
    machine *m;
    const mb__loop *l;
    int64_t step, left_out, after;
} looping;

static double *input_at(const looping *r, int i, int64_t step)
{
    return port_at(r->m, mb__loop_input(r->l, i, step, r->left_out));
}
static double *output_at(const looping *r, int i, int64_t step)
{
    return port_at(r->m, mb__loop_output(r->l, i, step, r->left_out, r->after));
}

static bool is_idle(const looping *r, int64_t step)
{
    return r->l->idle >= 0 && *input_at(r, r->l->idle, step) != 0;
}

/* Of a step that does nothing: the stacks. */
static void leave_out(looping *r)
{
    for (int i = r->l->carries; i < r->l->outputs; i++) {
        int32_t kept = r->l->kept[i - r->l->carries];
        const double *from = kept < 0 ? NULL : input_at(r, kept, r->step);
        for (int64_t k = 0; k < r->l->out[i].step; k++)
            output_at(r, i, r->step)[k] = from ? from[k] : 0;
    }
    r->step++;
    r->left_out++;
}

static mb_status run_loop(machine *m, const mb__loop *l, machine *body)
{
    mb_status status = MB_OK;
    looping r = {m, l, 0, 0, 0};
    for (int64_t t = 0; t < l->steps && l->idle >= 0; t++)
        r.after += is_idle(&r, t);
    bool none = r.after == l->steps, ended = false;
    while (r.step < l->steps && status == MB_OK) {
        ended = l->until >= 0 && *input_at(&r, l->until, r.step) != 0;
        if (ended)
            break;
        if (is_idle(&r, r.step)) {
            r.after--;
            leave_out(&r);
            continue;
        }
        for (int i = 0; i < l->inputs + l->outputs; i++)
            body->ports[i] = i < l->inputs ? input_at(&r, i, r.step) : output_at(&r, i - l->inputs, r.step);
        const mb__binding b = {m->memory[l->arena], body->ports, body->ports + l->inputs, m->scalars};
        status = run_machine(body, &b);
        r.step++;
    }
    for (int i = 0; (ended || none) && i < l->carries; i++)
        memmove(port_at(m, l->out[i]), input_at(&r, i, r.step),
                (size_t)m->plan->values[l->out[i].value].count * sizeof(double));
    while (ended && l->outputs > l->carries && r.step < l->steps)
        leave_out(&r);
    return status;
}

static mb_status run_other(machine *m, const mb__step *step)
{
    const mb__other *o = step->u.other;
    switch (o->op) {
    case MB_OP_ARGMAX:
    case MB_OP_ARGSORT:
    case MB_OP_CUMMAX:
    case MB_OP_CUMSUM:
        along_axis(m, o);
        return MB_OK;
    case MB_OP_TAKE:
    case MB_OP_SCATTER_ADD:
        by_index(m, o);
        return MB_OK;
    case MB_OP_CHOLESKY:
    case MB_OP_TRIANGULAR_SOLVE:
        by_matrix(m, o);
        return MB_OK;
    default:
        return m->host->error(m->host->user, MB_BACKEND, step->site, "reference: there are no loops for %s",
                              mb__ops[o->op].name);
    }
}

static mb_status run_machine(machine *m, const mb__binding *b)
{
    mb_status status = MB_OK;
    m->scalars = b->scalars;
    for (int i = 0; i < m->plan->value_count; i++)
        m->memory[i] = mb__value_at(m->plan, b, i);
    for (int s = 0; s < m->plan->step_count && status == MB_OK; s++) {
        const mb__step *step = &m->plan->steps[s];
        if (step->kind == MB_STEP_KERNEL)
            run_kernel(m, &step->u.kernel);
        else if (step->kind == MB_STEP_PRODUCT)
            run_product(m, step->u.product);
        else if (step->kind == MB_STEP_LOOP)
            status = run_loop(m, step->u.loop, m->bodies[s]);
        else if (step->kind == MB_STEP_CUSTOM)
            status = run_custom(m, step);
        else if (step->kind == MB_STEP_ZERO)
            memset(m->memory[step->u.zero], 0, (size_t)m->plan->values[step->u.zero].count * sizeof(double));
        else
            status = run_other(m, step);
    }
    return status;
}

static mb_status run(void *state, void *program, const mb__binding *b)
{
    (void)state;
    return run_machine(program, b);
}

const mb__backend mb__backend_reference = {
    .version = MB_BACKEND_VERSION,
    .name = "reference",
    .fuses = false,
    .loops = true,
    .strided = true,
    .oracle = true,
    .list = list,
    .open = open_reference,
    .close = close_reference,
    .element_size = element_size,
    .memory_new = memory_new,
    .memory_free = memory_free,
    .upload = upload,
    .download = download,
    .compile = compile,
    .discard = discard,
    .run = run,
};
