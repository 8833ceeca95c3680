/* SPDX-License-Identifier: MIT
 * random_scan.c - see random_scan.h. */
#include "random_scan.h"

/* What values there are: matrices [3,3], vectors [3], numbers; indices 0 to 2, one and [3]; masks [3,3]. Any
 * of them may be stacked. */
enum { MATRIX, VECTOR, NUMBER, INDEX, INDICES, MASK, CLASSES };
enum { N = 3, POOL_MOST = 160, DEPTH_MOST = 3, STEPS_MOST = 30, BOUND_MOST = 4 };

typedef struct item {
    mb_tensor t;
    int class;
    int64_t lead; /* of a stack; -1 */
} item;

typedef struct maker {
    mb_context *ctx;
    const scan_program *p;
    scan_style style;
    scan_list *list;
    item pool[POOL_MOST];
    int count, own; /* from `own` on, the innermost body's */
    int depth;
    int64_t steps[DEPTH_MOST], at[DEPTH_MOST]; /* of the loops around; at: when they are unrolled */
} maker;

const mb_shape scan_input_shape[SCAN_INPUTS] = {{2, {N, N}}, {1, {N}}, {0, {0}}};

static mb_shape shape_of_class(int class, int64_t lead)
{
    static const int ranks[CLASSES] = {2, 1, 0, 0, 1, 2};
    mb_shape s = {0, {0}};
    if (lead >= 0)
        s.dim[s.rank++] = lead;
    for (int i = 0; i < ranks[class]; i++)
        s.dim[s.rank++] = N;
    return s;
}

static mb_dtype dtype_of_class(int class)
{
    return class == MASK ? MB_BOOL : class == INDEX || class == INDICES ? MB_INT32 : MB_FLOAT64;
}

static uint64_t number_of(uint64_t parent, int i)
{
    rng r = {parent * 0x2545f4914f6cdd1du + (uint64_t)i + 1};
    return rng_bits(&r);
}

static int below(rng *r, int n)
{
    return (int)rng_below(r, n);
}

static mb_tensor literal(maker *m, int class, double value)
{
    return mb_full(m->ctx, dtype_of_class(class), shape_of_class(class, -1), value);
}

/* Each value is a node of its own: gradients by it are then the same in both ways. */
static void push(maker *m, mb_tensor t, int class, int64_t lead)
{
    bool there = false;
    for (int i = 0; i < m->count; i++)
        there |= m->pool[i].t.id == t.id;
    if (m->count < POOL_MOST)
        m->pool[m->count++] = (item){there ? mb_alias(t) : t, class, lead};
}

/* A value of a class from number `from` of the pool on, a late one rather than an early one; -1. */
static int choose_from(const maker *m, rng *r, int class, int from)
{
    int found[POOL_MOST], n = 0;
    for (int i = from; i < m->count; i++)
        if (m->pool[i].class == class && m->pool[i].lead < 0)
            found[n++] = i;
    int a = n ? below(r, n) : 0, b = n ? below(r, n) : 0;
    bool late = below(r, 3) > 0;
    return n ? found[late && b > a ? b : a] : -1;
}

static mb_tensor choose(maker *m, rng *r, int class)
{
    int i = choose_from(m, r, class, 0);
    return i >= 0 ? m->pool[i].t : literal(m, class, class == INDEX || class == INDICES ? 1 : 0.4);
}

/* ---- random draws: in a body, one for all steps ---- */

static mb_tensor draw_flat(maker *m, rng *r, mb_dtype dtype, mb_shape shape)
{
    mb_key key = mb_key_of(rng_bits(r));
    bool normal = dtype == MB_FLOAT64 && below(r, 2);
    if (!m->style.unrolled)
        return normal ? mb_normal(m->ctx, key, dtype, shape) : mb_uniform(m->ctx, key, dtype, shape);
    mb_shape all = {0, {0}};
    for (int i = 0; i < m->depth; i++) {
        if (!m->steps[i]) /* a step that goes nowhere */
            return mb_full(m->ctx, dtype, shape, 0);
        all.dim[all.rank++] = m->steps[i];
    }
    all.dim[all.rank++] = shape_count(shape);
    mb_tensor t = normal ? mb_normal(m->ctx, key, dtype, all) : mb_uniform(m->ctx, key, dtype, all);
    for (int i = 0; i < m->depth; i++)
        t = mb_slice(t, i, m->at[i], 1, 1);
    return mb_reshape(t, shape);
}

/* ---- instructions that give one value ---- */

static mb_tensor matrix_op(maker *m, rng *r, int kind)
{
    mb_tensor a = choose(m, r, MATRIX), b = choose(m, r, MATRIX), v = choose(m, r, VECTOR);
    mb_tensor s = choose(m, r, NUMBER), i = choose(m, r, INDICES), k = choose(m, r, MASK);
    switch (kind) {
    case 0:
        return mb_add(a, mb_sin(b));
    case 1:
        return mb_mul(mb_tanh(a), b);
    case 2:
        return mb_mul(mb_matmul(mb_sin(a), mb_tanh(b)), 0.3);
    case 3:
        return mb_sub(a, mb_mean(b, MB_KEEP(0)));
    case 4:
        return mb_concat(((mb_tensor[]){mb_slice(a, 0, 1, 2, 1), mb_slice(b, 0, 0, 1, 1)}), 2, 0);
    case 5:
        return mb_where(k, mb_transpose(a), mb_sigmoid(b));
    case 6:
        return mb_add(mb_mul(mb_max(a, MB_KEEP(1)), 0.5), mb_cos(b));
    case 7:
        return mb_cumsum(mb_sigmoid(a), below(r, 2), below(r, 2));
    case 8:
        return mb_add(mb_tanh(a), v);
    case 9:
        return mb_mul(a, mb_tanh(s));
    case 10:
        return mb_take(a, i, below(r, 2));
    case 11:
        return mb_sin(mb_scatter_add(a, i, below(r, 2), N));
    case 12:
        return mb_reshape(mb_flip(mb_reshape(mb_sin(a), MB_SHAPE(9)), 0), MB_SHAPE(3, 3));
    case 13:
        return mb_slice(mb_pad(mb_tanh(a), 1, 1, 2), 1, below(r, 4), N, 1);
    case 14:
        return mb_softmax(a, below(r, 2));
    case 15:
        return mb_div(a, mb_add(1.0, mb_square(b)));
    case 16:
        return mb_sub(draw_flat(m, r, MB_FLOAT64, MB_SHAPE(3, 3)), mb_tanh(a));
    case 17:
        return below(r, 2) ? literal(m, MATRIX, 0.25 * below(r, 5))
                           : mb_broadcast(mb_tanh(v), MB_SHAPE(3, 3));
    case 18:
        return mb_stop_gradient(mb_sin(a));
    case 19:
        return mb_cast(k, MB_FLOAT64);
    default:
        return mb_exp(mb_mul(mb_tanh(mb_sub(a, b)), 0.5));
    }
}

static mb_tensor other_op(maker *m, rng *r, int class, int kind)
{
    mb_tensor a = choose(m, r, MATRIX), v = choose(m, r, VECTOR), w = choose(m, r, VECTOR);
    mb_tensor s = choose(m, r, NUMBER), i = choose(m, r, INDICES), j = choose(m, r, INDEX);
    if (class == VECTOR)
        switch (kind % 7) {
        case 0:
            return mb_mean(a, MB_AXES(0));
        case 1:
            return mb_tanh(mb_einsum("ij,j->i", mb_sin(a), v));
        case 2:
            return mb_sin(mb_add(v, mb_mul(w, s)));
        case 3:
            return mb_take(v, i, 0);
        case 4:
            return mb_reshape(mb_take(mb_tanh(a), mb_reshape(j, MB_SHAPE(1)), 0), MB_SHAPE(3));
        case 5:
            return draw_flat(m, r, MB_FLOAT64, MB_SHAPE(3));
        default:
            return mb_scatter_add(mb_tanh(v), i, 0, N);
        }
    if (class == NUMBER)
        switch (kind % 6) {
        case 0:
            return mb_mean(mb_mul(a, mb_sin(a)), MB_ALL);
        case 1:
            return mb_tanh(mb_dot(v, mb_cos(w)));
        case 2:
            return mb_scalar(m->ctx, MB_FLOAT64, 0.1 * below(r, 8));
        case 3:
            return mb_mul(mb_cast(j, MB_FLOAT64), mb_sin(s));
        case 4:
            return mb_sqrt(mb_add(mb_square(s), 0.5));
        default:
            return draw_flat(m, r, MB_FLOAT64, MB_SHAPE0);
        }
    if (class == INDEX)
        return kind % 2 ? mb_minimum(mb_add(j, 1.0), 2.0) : mb_sub(2.0, j);
    if (class == INDICES)
        switch (kind % 4) {
        case 0:
            return mb_argmax(a, below(r, 2));
        case 1:
            return mb_argsort(mb_add(v, mb_mul(w, 0.1)));
        case 2:
            return mb_minimum(mb_maximum(mb_sub(mb_add(i, j), 1.0), 0.0), 2.0);
        default:
            return mb_argsort(draw_flat(m, r, MB_INT32, MB_SHAPE(3)));
        }
    mb_tensor k = choose(m, r, MASK);
    return kind % 2 ? mb_lt(a, v) : mb_or(mb_not(k), mb_lt(s, a));
}

/* ---- derivatives within the program, by a value of the innermost body ---- */

static mb_tensor inner_loss(maker *m, rng *r, mb_tensor x)
{
    mb_tensor s = mb_mean(mb_square(mb_tanh(mb_mul(x, choose(m, r, NUMBER)))), MB_ALL);
    for (int n = 1 + below(r, 3); n > 0; n--) {
        int class = below(r, 3), i = choose_from(m, r, class, 0);
        if (i >= 0)
            s = mb_add(s, mb_mean(mb_mul(mb_sin(m->pool[i].t), mb_mean(mb_sin(x), MB_ALL)), MB_ALL));
    }
    return s;
}

/* A loss of x, which steps of a scan or a checkpoint may make, so that both ways to its second derivative are
 * taken; params: a number, a matrix. */
enum { IN_A_SCAN = 1, IN_A_CHECKPOINT, MADE };

static mb_status loss_at(const void *user, mb_context *ctx, const mb_map_at *at, mb_tensor *out)
{
    int made = *(const int *)user;
    mb_tensor x = at->xs[0], h = mb_mul(x, mb_tanh(at->params[0]));
    mb_checkpoint c;
    mb_scan s;
    if (made == IN_A_CHECKPOINT)
        c = mb_checkpoint_begin(ctx);
    if (made == IN_A_SCAN) {
        s = mb_scan_begin(ctx, 2);
        mb_scan_carry(s, &h);
    }
    h = mb_add(mb_sin(h), mb_mul(h, mb_mean(mb_sin(at->params[1]), MB_ALL)));
    if (made == IN_A_SCAN)
        mb_scan_end(s);
    h = mb_mul(mb_tanh(h), 0.7);
    if (made == IN_A_CHECKPOINT)
        mb_checkpoint_end(c);
    out[0] = mb_mean(mb_mul(h, x), MB_ALL);
    return mb_error(ctx);
}

/* By mb_grad_mixed; or, written out, by mb_grad. */
static mb_tensor gradient_of_map(maker *m, rng *r, mb_tensor x)
{
    int made = below(r, MADE);
    const mb_tensor params[2] = {choose(m, r, NUMBER), choose(m, r, MATRIX)};
    mb_tensor g = x, loss = x;
    if (!m->style.unrolled) {
        mb_grad_mixed(MB_LIT(mb_map){loss_at, &made, sizeof made}, &x, 1, params, 2, &g);
        return g;
    }
    x = mb_alias(x); /* the params may come from it */
    loss_at(&made, m->ctx, &MB_LIT(mb_map_at){&x, params, 1, 2}, &loss);
    mb_grad(loss, &x, 1, &g);
    return g;
}

static void derivative(maker *m, rng *r, int kind)
{
    int class = below(r, 3), i = choose_from(m, r, class, m->own), j = choose_from(m, r, class, 0);
    if (i < 0) {
        if (j < 0)
            return;
        i = m->count;
        push(m, mb_alias(m->pool[j].t), class, -1);
        if (i == m->count)
            return;
    }
    mb_tensor x = m->pool[i].t, v = mb_tanh(m->pool[j].t), loss = inner_loss(m, r, x), g = x;
    if (kind == 0) {
        mb_grad(loss, &x, 1, &g);
    } else if (kind == 1) {
        mb_jvp(&loss, 1, &x, &v, 1, &g);
        class = NUMBER;
    } else if (kind == 2) {
        mb_hvp(loss, &x, &v, 1, &g);
    } else if (kind == 3) {
        g = gradient_of_map(m, r, x);
    } else { /* two variables, of which the loss may not depend on one */
        int other = choose_from(m, r, MATRIX, m->own);
        mb_tensor xs[2] = {x, other >= 0 ? m->pool[other].t : x}, gs[2];
        mb_grad(loss, xs, 2, gs);
        push(m, gs[1], other >= 0 ? MATRIX : class, -1);
        g = gs[0];
    }
    push(m, mb_sin(g), class, -1);
}

/* ---- loops ---- */

static void list_of(maker *m, uint64_t number, int length);

typedef struct loop {
    rng r;
    int64_t steps;
    bool backwards;
    int64_t keep;
    int carries, slices, stacks;
    int carry_class[BOUND_MOST], slice_class[BOUND_MOST], stack_class[BOUND_MOST];
    mb_tensor carry[BOUND_MOST], slice[BOUND_MOST];
    mb_tensor stack[BOUND_MOST];
    bool step, around_step, until, inverse;
    int length;
} loop;

/* What is sliced: a stack of as many entries, or made of a value. */
static mb_tensor sliced(maker *m, rng *r, int64_t steps, int *class)
{
    for (int i = m->count; i-- > 0;)
        if (m->pool[i].lead == steps && below(r, 2)) {
            *class = m->pool[i].class;
            return m->pool[i].t;
        }
    *class = below(r, CLASSES);
    mb_shape shape = shape_of_class(*class, steps);
    mb_tensor t = mb_broadcast(choose(m, r, *class), shape);
    if (dtype_of_class(*class) != MB_FLOAT64 || below(r, 4) == 0)
        return t;
    mb_shape flat = {shape.rank, {steps, 1, 1}};
    mb_tensor weight = mb_reshape(mb_iota(m->ctx, MB_FLOAT64, steps), flat);
    return mb_mul(t, mb_cos(weight));
}

static void plan_loop(maker *m, loop *l)
{
    static const int64_t steps[] = {0, 1, 2, 2, 3, 5};
    int64_t around = 1;
    for (int i = 0; i < m->depth; i++)
        around *= m->steps[i] ? m->steps[i] : 1;
    l->steps = steps[below(&l->r, 6)];
    while (l->steps > 1 && l->steps * around > STEPS_MOST)
        l->steps--;
    l->backwards = below(&l->r, 3) == 0;
    static const int64_t keeps[] = {0, 0, 0, 1, 2, 3, MB_KEEP_SQRT, MB_KEEP_LOG};
    l->keep = keeps[below(&l->r, 8)];
    l->carries = below(&l->r, BOUND_MOST + 1);
    l->slices = below(&l->r, 3);
    l->stacks = l->carries ? below(&l->r, BOUND_MOST) : 1 + below(&l->r, 2);
    l->step = below(&l->r, 3) == 0;
    l->around_step = below(&l->r, 4) == 0; /* a checkpoint */
    l->until = below(&l->r, 4) == 0;
    l->length = 1 + below(&l->r, 7);
    l->inverse = below(&l->r, 4) == 0 && !l->until;
    for (int i = 0; i < l->carries; i++) {
        l->carry_class[i] = below(&l->r, 2) || l->inverse ? below(&l->r, 2) : below(&l->r, CLASSES);
        l->carry[i] = choose(m, &l->r, l->carry_class[i]);
    }
    for (int i = 0; i < l->slices; i++)
        l->slice[i] = sliced(m, &l->r, l->steps, &l->slice_class[i]);
}

/* A carry's next value: what was computed, damped so that it stays small; or any other. */
static mb_tensor next_value(maker *m, rng *r, int class)
{
    mb_tensor t = below(r, 8) ? choose(m, r, class) : literal(m, class, 1);
    return class < INDEX && below(r, 3) ? mb_tanh(t) : t;
}

/* One step: the pool holds the carries and slices from `own` on. Gives back the next values and stacks, and
 * whether to end. */
static mb_tensor body(maker *m, uint64_t number, const loop *l, mb_tensor *next, mb_tensor *stack, int *class)
{
    rng r = {number + 77};
    mb_checkpoint c;
    if (m->style.marks && l->around_step)
        c = mb_checkpoint_begin(m->ctx);
    list_of(m, number, l->length);
    for (int i = 0; i < l->carries; i++)
        next[i] = next_value(m, &r, l->carry_class[i]);
    for (int i = 0; i < l->stacks; i++) {
        int k = below(&r, 2) ? below(&r, 3) : below(&r, CLASSES);
        stack[i] = i && below(&r, 5) == 0 ? stack[i - 1] : next_value(m, &r, k);
        class[i] = i && stack[i].id == stack[i - 1].id ? class[i - 1] : k;
    }
    mb_tensor end = mb_lt(literal(m, NUMBER, 0.2), mb_sin(mb_mul(choose(m, &r, NUMBER), 7.0)));
    if (m->style.marks && l->around_step)
        mb_checkpoint_end(c);
    return end;
}

/* A step with an inverse: a carry's next value is 0.9 of it, and what was made without carries, and of the
 * next value of the carry in front. */
static mb_tensor next_by_inverse(const loop *l, int i, mb_tensor before, mb_tensor added, mb_tensor in_front)
{
    mb_tensor t = mb_add(mb_mul(before, 0.9), added);
    bool coupled = i && l->carry_class[i] == l->carry_class[i - 1];
    return coupled ? mb_add(t, mb_mul(mb_sin(in_front), 0.2)) : t;
}
static mb_tensor before_by_inverse(const loop *l, int i, mb_tensor after, mb_tensor added, mb_tensor in_front)
{
    bool coupled = i && l->carry_class[i] == l->carry_class[i - 1];
    mb_tensor t = coupled ? mb_sub(after, mb_mul(mb_sin(in_front), 0.2)) : after;
    return mb_div(mb_sub(t, added), 0.9);
}

/* What is added to the carries, which are not in the pool yet. */
static void list_added(maker *m, uint64_t number, const loop *l, mb_tensor *added)
{
    rng r = {number + 177};
    if (!l->inverse)
        return;
    list_of(m, number_of(number, 2000), 1 + l->length / 2);
    for (int i = 0; i < l->carries; i++)
        added[i] = mb_mul(mb_tanh(choose(m, &r, l->carry_class[i])), 0.3);
}

static void push_step_number(maker *m, mb_tensor step)
{
    push(m, mb_minimum(step, 2.0), INDEX, -1);
    push(m, mb_sin(mb_cast(step, MB_FLOAT64)), NUMBER, -1);
}

static void scanned(maker *m, uint64_t number, loop *l)
{
    mb_tensor stack[BOUND_MOST], next[BOUND_MOST], added[BOUND_MOST];
    int class[BOUND_MOST];
    mb_scan s = mb_scan_begin_with(m->ctx, l->steps,
                                   (mb_scan_options){.backwards = l->backwards, .keep_every = l->keep});
    for (int i = 0; i < l->carries; i++)
        mb_scan_carry(s, &l->carry[i]);
    for (int i = 0; i < l->slices; i++)
        push(m, mb_scan_slice(s, l->slice[i]), l->slice_class[i], -1);
    if (l->step)
        push_step_number(m, mb_scan_step(s));
    list_added(m, number, l, added);
    for (int i = 0; i < l->carries; i++)
        push(m, l->carry[i], l->carry_class[i], -1);
    mb_tensor end = body(m, number, l, next, stack, class), after, in_front = {0};
    if (l->until)
        mb_scan_until(s, end);
    for (int i = 0; i < l->carries && l->inverse; i++) {
        next[i] = next_by_inverse(l, i, l->carry[i], added[i], i ? next[i - 1] : in_front);
        after = mb_scan_after(s, &l->carry[i]);
        mb_scan_before(s, &l->carry[i], before_by_inverse(l, i, after, added[i], in_front));
        in_front = after;
    }
    for (int i = 0; i < l->carries; i++)
        l->carry[i] = next[i];
    for (int i = 0; i < l->stacks; i++) {
        mb_scan_stack(s, stack[i], &l->stack[i]);
        l->stack_class[i] = class[i];
    }
    mb_scan_end(s);
}

static void unrolled(maker *m, uint64_t number, loop *l)
{
    enum { MOST = 5 };
    int class[BOUND_MOST] = {0}, count = m->count;
    mb_tensor next[BOUND_MOST], stack[BOUND_MOST], added[BOUND_MOST], parts[BOUND_MOST][MOST];
    int64_t rounds = l->steps ? l->steps : 1; /* of no steps: one whose values go nowhere */
    mb_tensor first[BOUND_MOST], done = {0};
    memcpy(first, l->carry, sizeof first);
    for (int64_t s = 0; s < rounds; s++) {
        int64_t t = l->backwards ? rounds - 1 - s : s;
        m->at[m->depth - 1] = t;
        m->count = count;
        for (int i = 0; i < l->slices; i++) {
            mb_shape one = shape_of_class(l->slice_class[i], -1);
            push(m,
                 l->steps ? mb_reshape(mb_slice(l->slice[i], 0, t, 1, 1), one)
                          : literal(m, l->slice_class[i], 0),
                 l->slice_class[i], -1);
        }
        if (l->step)
            push_step_number(m, mb_full(m->ctx, MB_INT32, MB_SHAPE0, (double)t));
        list_added(m, number, l, added);
        for (int i = 0; i < l->carries; i++)
            push(m, mb_alias(l->carry[i]), l->carry_class[i], -1);
        mb_tensor end = body(m, number, l, next, stack, class);
        for (int i = 0; i < l->carries && l->inverse; i++)
            next[i] = next_by_inverse(l, i, l->carry[i], added[i], i ? next[i - 1] : first[0]);
        for (int i = 0; i < l->carries && l->until && s; i++)
            next[i] = mb_where(done, l->carry[i], next[i]);
        done = s ? mb_or(done, end) : end;
        memcpy(l->carry, next, sizeof next);
        for (int i = 0; i < l->stacks; i++)
            parts[i][t] = stack[i];
    }
    for (int i = 0; i < l->stacks; i++) {
        l->stack_class[i] = class[i];
        l->stack[i] = l->steps ? mb_stack(parts[i], (int)l->steps, 0)
                               : mb_full(m->ctx, dtype_of_class(class[i]), shape_of_class(class[i], 0), 0);
    }
    if (!l->steps)
        memcpy(l->carry, first, sizeof first);
    for (int i = 0; i < l->carries; i++)
        l->carry[i] = mb_alias(l->carry[i]);
}

static void record_loop(maker *m, uint64_t number)
{
    loop l = {.r = {number}};
    plan_loop(m, &l);
    int count = m->count, own = m->own;
    m->own = count;
    m->steps[m->depth++] = l.steps;
    if (m->style.unrolled)
        unrolled(m, number, &l);
    else
        scanned(m, number, &l);
    m->depth--;
    m->own = own;
    m->count = count;
    for (int i = 0; i < l.carries; i++)
        push(m, l.carry[i], l.carry_class[i], -1);
    for (int i = 0; i < l.stacks; i++) {
        int c = l.stack_class[i];
        push(m, l.stack[i], c, l.steps);
        if (c < INDEX) /* each entry counts differently, and the loss finds them */
            push(m,
                 mb_tanh(mb_sum(mb_mul(mb_sin(l.stack[i]),
                                       mb_reshape(mb_iota(m->ctx, MB_FLOAT64, l.steps),
                                                  (mb_shape){mb_shape_of(l.stack[i]).rank, {l.steps, 1, 1}})),
                                MB_AXES(0))),
                 c, -1);
    }
}

/* ---- all ---- */

static bool is_left_out(const maker *m, uint64_t number)
{
    for (int i = 0; i < m->p->left_out_count; i++)
        if (m->p->left_out[i] == number)
            return true;
    return false;
}

static void note(maker *m, uint64_t number, const char *name)
{
    scan_list *l = m->list;
    for (int i = 0; l && i < l->count; i++)
        if (l->number[i] == number)
            return;
    if (!l || l->count == SCAN_LEFT_OUT_MOST)
        return;
    l->number[l->count] = number;
    l->depth[l->count] = m->depth;
    l->name[l->count++] = name;
}

static void instruction(maker *m, uint64_t number, int depth_of_list)
{
    static const char *const names[] = {"matrix", "other", "derivative", "loop", "checkpoint"};
    rng r = {number};
    int kind = below(&r, 20), which = kind < 9 ? 0 : kind < 13 ? 1 : kind < 15 ? 2 : kind < 18 ? 3 : 4;
    if (which == 3 && m->depth >= DEPTH_MOST - (below(&r, 4) != 0))
        which = 0;
    if (which == 4 && depth_of_list > 3)
        which = 0;
    note(m, number, names[which]);
    if (which == 0) {
        push(m, matrix_op(m, &r, below(&r, 21)), MATRIX, -1);
    } else if (which == 1) {
        int class = 1 + below(&r, CLASSES - 1);
        push(m, other_op(m, &r, class, below(&r, 100)), class, -1);
    } else if (which == 2) {
        derivative(m, &r, below(&r, 5));
    } else if (which == 3) {
        record_loop(m, number);
    } else {
        mb_checkpoint c;
        int products = below(&r, 2);
        if (m->style.marks)
            c = products ? mb_checkpoint_products_begin(m->ctx) : mb_checkpoint_begin(m->ctx);
        list_of(m, number, 2 + below(&r, 4));
        if (m->style.marks)
            mb_checkpoint_end(c);
        if (m->style.marks && below(&r, 4) == 0)
            mb_keep_through(m->pool[m->count - 1].t);
    }
}

static void list_of(maker *m, uint64_t number, int length)
{
    static int nesting; /* of lists */
    nesting++;
    for (int i = 0; i < length && mb_error(m->ctx) == MB_OK; i++) {
        uint64_t own = number_of(number, i);
        if (!is_left_out(m, own))
            instruction(m, own, nesting);
    }
    nesting--;
}

void scan_record(mb_context *ctx, const scan_program *p, scan_style style, const mb_tensor *inputs,
                 mb_tensor *loss, mb_tensor *vector, scan_list *list)
{
    static maker m;
    m = (maker){.ctx = ctx, .p = p, .style = style, .list = list};
    if (list)
        list->count = 0;
    for (int i = 0; i < SCAN_INPUTS; i++)
        push(&m, inputs[i], i, -1);
    uint64_t number = number_of(p->seed, 0);
    rng r = {number};
    list_of(&m, number, 3 + below(&r, 6));
    if (!is_left_out(&m, number_of(number, 1000)))
        note(&m, number_of(number, 1000), "last loop");
    if (!is_left_out(&m, number_of(number, 1000)))
        record_loop(&m, number_of(number, 1000));
    for (int i = (int)(p->seed % 2); style.early && i < m.count; i += 2)
        mb_eval(&m.pool[i].t, 1);
    *loss = mb_full(ctx, MB_FLOAT64, MB_SHAPE0, 0);
    *vector = mb_full(ctx, MB_FLOAT64, MB_SHAPE(N), 0);
    for (int i = m.count - 1, taken = 0; i >= 0 && taken < 8; i--, taken++) {
        mb_tensor t = m.pool[i].t;
        if (dtype_of_class(m.pool[i].class) != MB_FLOAT64)
            t = mb_cast(t, MB_FLOAT64);
        if (mb_count(t) || m.pool[i].lead < 0)
            *loss = mb_add(*loss, mb_mul(mb_mean(mb_sin(t), MB_ALL), 1 + 0.1 * taken));
        if (m.pool[i].lead < 0 && m.pool[i].class == MATRIX)
            *vector = mb_add(*vector, mb_mean(mb_tanh(t), MB_AXES(0)));
        else if (m.pool[i].lead < 0 && m.pool[i].class == VECTOR)
            *vector = mb_add(*vector, mb_tanh(t));
    }
}
