/* SPDX-License-Identifier: MIT
 *
 * scan_mistakes_test.c - what a user may get wrong with scans: each is one sentence with the lines, and the
 * context is usable after it. */
#include "support.h"

#include "optim/optim.h"

typedef struct place {
    mb_context *ctx;
    mb_tensor x, xs, variable; /* [2]; [3, 2]; [2] */
    int first, second;         /* lines that the message must name; 0: none */
} place;

static mb_tensor zero(mb_context *ctx)
{
    return mb_full(ctx, MB_FLOAT64, MB_SHAPE0, 0);
}

/* ---- carries ---- */

static void other_shape(place *p)
{
    mb_tensor x = p->x;
    mb_scan s = mb_scan_begin(p->ctx, 3);
    mb_scan_carry(s, &x), p->first = __LINE__;
    x = mb_sum(x, MB_ALL), p->second = __LINE__;
    mb_scan_end(s);
}
static void other_dtype(place *p)
{
    mb_tensor x = p->x;
    mb_scan s = mb_scan_begin(p->ctx, 0);
    mb_scan_carry(s, &x), p->first = __LINE__;
    x = mb_cast(x, MB_FLOAT32), p->second = __LINE__;
    mb_scan_end(s);
}
static void no_variable(place *p)
{
    mb_scan_carry(mb_scan_begin(p->ctx, 3), NULL), p->first = __LINE__;
}
static void empty_variable(place *p)
{
    mb_tensor x = {0};
    mb_scan_carry(mb_scan_begin(p->ctx, 3), &x), p->first = __LINE__;
}
static void carry_twice(place *p)
{
    mb_scan s = mb_scan_begin(p->ctx, 3);
    mb_scan_carry(s, &p->x);
    mb_scan_carry(s, &p->x), p->first = __LINE__;
}
static void emptied_variable(place *p)
{
    mb_tensor x = p->x;
    mb_scan s = mb_scan_begin(p->ctx, 3);
    mb_scan_carry(s, &x);
    x = (mb_tensor){0};
    mb_scan_end(s), p->first = __LINE__;
}
static void carry_of_eight_axes(place *p)
{
    mb_tensor x = mb_full(p->ctx, MB_FLOAT64, MB_SHAPE(1, 1, 1, 1, 1, 1, 1, 2), 1);
    mb_scan s = mb_scan_begin(p->ctx, 3);
    mb_scan_carry(s, &x);
    mb_scan_end(s), p->first = __LINE__;
}

/* ---- slices and stacks ---- */

static void wrong_first_axis(place *p)
{
    mb_scan s = mb_scan_begin(p->ctx, 4);
    p->first = __LINE__ - 1;
    mb_scan_slice(s, p->xs), p->second = __LINE__;
}
static void slice_of_a_number(place *p)
{
    mb_scan s = mb_scan_begin(p->ctx, 4);
    p->first = __LINE__ - 1;
    mb_scan_slice(s, zero(p->ctx)), p->second = __LINE__;
}
static void no_slice(place *p)
{
    mb_scan_slice(mb_scan_begin(p->ctx, 3), (mb_tensor){0}), p->first = __LINE__;
}
static void no_stack(place *p)
{
    mb_scan_stack(mb_scan_begin(p->ctx, 3), p->x, NULL), p->first = __LINE__;
}
static void stack_of_nothing(place *p)
{
    mb_tensor ys;
    mb_scan_stack(mb_scan_begin(p->ctx, 3), (mb_tensor){0}, &ys), p->first = __LINE__;
}
static void stack_of_eight_axes(place *p)
{
    mb_tensor ys;
    mb_scan s = mb_scan_begin(p->ctx, 0);
    mb_scan_stack(s, mb_full(p->ctx, MB_FLOAT64, MB_SHAPE(1, 1, 1, 1, 1, 1, 1, 2), 1), &ys);
    mb_scan_end(s), p->first = __LINE__;
    expect(!mb_valid(ys), "a stack after an error");
}
static void other_context(place *p)
{
    mb_context *other = mb_open("reference");
    mb_tensor ys, y = zero(other), x = zero(other), xs = mb_full(other, MB_FLOAT64, MB_SHAPE(3), 0);
    mb_scan s = mb_scan_begin(p->ctx, 3);
    mb_scan_carry(s, &x), p->first = __LINE__;
    expect(mb_error(p->ctx) == MB_INVALID, "another context's carry: %s", mb_message(p->ctx));
    mb_clear_error(p->ctx);
    mb_scan_slice(s, xs), p->first = __LINE__;
    expect(mb_error(p->ctx) == MB_INVALID, "another context's slice: %s", mb_message(p->ctx));
    mb_clear_error(p->ctx);
    mb_clear_error(other);
    mb_scan_stack(s, y, &ys), p->first = __LINE__;
    mb_close(other);
}

/* ---- begin and end ---- */

static void negative(place *p)
{
    mb_scan_begin(p->ctx, -1), p->first = __LINE__;
}
static void too_many(place *p)
{
    mb_scan_begin(p->ctx, (int64_t)1 << 31), p->first = __LINE__;
}
static void wrong_keep(place *p)
{
    mb_scan_begin_with(p->ctx, 3, (mb_scan_options){.keep_every = -3}), p->first = __LINE__;
}
static void ended_twice(place *p)
{
    mb_scan s = mb_scan_begin(p->ctx, 3);
    mb_scan_end(s);
    mb_scan_end(s), p->first = __LINE__;
}
static void wrong_order(place *p)
{
    mb_scan s = mb_scan_begin(p->ctx, 3);
    mb_scan_begin(p->ctx, 3), p->first = __LINE__;
    mb_scan_end(s), p->second = __LINE__;
}
static void used_after_end(place *p)
{
    mb_scan s = mb_scan_begin(p->ctx, 3);
    mb_scan_end(s);
    mb_scan_step(s), p->first = __LINE__;
}
static void scope_left_open(place *p)
{
    mb_scan s = mb_scan_begin(p->ctx, 3);
    mb_scope scope = mb_scope_begin(p->ctx);
    p->first = __LINE__ - 1;
    mb_scan_end(s), p->second = __LINE__;
    mb_scope_end(scope);
}
static void left_open_in_scope(place *p)
{
    mb_scope scope = mb_scope_begin(p->ctx);
    mb_tensor x = p->x;
    mb_scan s = mb_scan_begin(p->ctx, 3);
    p->first = __LINE__ - 1;
    mb_scan_carry(s, &x);
    mb_scope_end(scope), p->second = __LINE__;
}
static void body_fails(place *p)
{
    mb_tensor x = p->x, ys;
    mb_scan s = mb_scan_begin(p->ctx, 3);
    mb_scan_carry(s, &x);
    mb_scan_stack(s, x, &ys);
    x = mb_matmul(x, zero(p->ctx)), p->first = __LINE__;
    mb_scan_end(s);
    expect(!mb_valid(x) && !mb_valid(ys), "a result after an error");
}
static void poison_carried(place *p)
{
    mb_tensor x = mb_matmul(p->x, zero(p->ctx));
    p->first = __LINE__ - 1;
    mb_scan s = mb_scan_begin(p->ctx, 3);
    mb_scan_carry(s, &x);
    mb_scan_end(s);
}

/* ---- values of the inside ---- */

static mb_tensor inside_of(place *p, mb_tensor x)
{
    mb_scan s = mb_scan_begin(p->ctx, 3);
    mb_scan_carry(s, &x);
    p->first = __LINE__ + 1;
    mb_tensor y = mb_sin(x);
    x = mb_mul(x, 0.5);
    mb_scan_end(s);
    return y;
}
static mb_tensor inside(place *p)
{
    return inside_of(p, p->x);
}
static void in_an_op(place *p)
{
    mb_exp(inside(p)), p->second = __LINE__;
}
static void read_it(place *p)
{
    double out[2];
    mb_read(inside(p), out, sizeof out), p->second = __LINE__;
}
static void item_of_it(place *p)
{
    mb_item(inside_of(p, zero(p->ctx))), p->second = __LINE__;
}
static void watched(place *p)
{
    double out[2];
    mb_watch(inside(p), out, sizeof out), p->second = __LINE__;
}
static void evaluated(place *p)
{
    mb_eval((mb_tensor[]){inside(p)}, 1), p->second = __LINE__;
}
static void kept(place *p)
{
    mb_keep(inside(p)), p->second = __LINE__;
}
static void detached(place *p)
{
    mb_detach(inside(p)), p->second = __LINE__;
}
static void assigned(place *p)
{
    mb_assign(p->variable, inside(p)), p->second = __LINE__;
}
static void through(place *p)
{
    mb_keep_through(inside(p)), p->second = __LINE__;
}
static void grad_of_it(place *p)
{
    mb_tensor g;
    mb_grad(mb_sum(inside(p), MB_ALL), &p->x, 1, &g), p->second = __LINE__;
}
static void grad_by_it(place *p)
{
    mb_tensor g, y = inside(p);
    mb_grad(mb_sum(p->x, MB_ALL), &y, 1, &g), p->second = __LINE__;
}
static void jvp_along_it(place *p)
{
    mb_tensor t, v = inside(p);
    mb_jvp(&p->x, 1, &p->x, &v, 1, &t), p->second = __LINE__;
}
static void hvp_by_it(place *p)
{
    mb_tensor t, v = inside(p);
    mb_hvp(mb_sum(p->x, MB_ALL), &v, &p->x, 1, &t), p->second = __LINE__;
}
static void carried_again(place *p)
{
    mb_tensor x = inside(p);
    mb_scan_carry(mb_scan_begin(p->ctx, 3), &x), p->second = __LINE__;
}
static void stacked_after(place *p)
{
    mb_tensor y = inside(p), ys;
    mb_scan_stack(mb_scan_begin(p->ctx, 3), y, &ys), p->second = __LINE__;
}

/* ---- while the scan is open ---- */

static mb_tensor open_inside(place *p)
{
    mb_tensor x = p->x;
    mb_scan s = mb_scan_begin(p->ctx, 3);
    mb_scan_carry(s, &x);
    return mb_sin(x);
}
static void read_inside(place *p)
{
    double out[2];
    mb_read(open_inside(p), out, sizeof out), p->first = __LINE__;
}
static void item_inside(place *p)
{
    mb_item(mb_sum(open_inside(p), MB_ALL)), p->first = __LINE__;
}
static void eval_inside(place *p)
{
    mb_eval((mb_tensor[]){open_inside(p)}, 1), p->first = __LINE__;
}
static void watch_inside(place *p)
{
    double out[2];
    mb_watch(open_inside(p), out, sizeof out);
    mb_eval((mb_tensor[]){p->x}, 1);
}
static void detach_inside(place *p)
{
    mb_detach(open_inside(p)), p->first = __LINE__;
}
static void assign_inside(place *p)
{
    open_inside(p);
    mb_assign(p->variable, p->x), p->first = __LINE__;
}

/* ---- checkpoints across a border ---- */

static void checkpoint_ends_inside(place *p)
{
    mb_checkpoint c = mb_checkpoint_begin(p->ctx);
    mb_tensor x = p->x;
    mb_scan s = mb_scan_begin(p->ctx, 3);
    p->first = __LINE__ - 1;
    mb_scan_carry(s, &x);
    x = mb_sin(x);
    mb_checkpoint_end(c), p->second = __LINE__;
}
static void checkpoint_ends_after(place *p)
{
    mb_tensor x = p->x;
    mb_scan s = mb_scan_begin(p->ctx, 3);
    mb_scan_carry(s, &x);
    mb_checkpoint c = mb_checkpoint_begin(p->ctx);
    x = mb_sin(x);
    mb_scan_end(s), p->first = __LINE__;
    mb_checkpoint_end(c), p->second = __LINE__;
}

static const struct mistake {
    const char *name;
    void (*make)(place *p);
    mb_status status;
    const char *says;
} mistakes[] = {
    {"other shape", other_shape, MB_INVALID, "carry 1 begins as [2] float64"},
    {"other dtype", other_dtype, MB_INVALID, "ends a step as [2] float32"},
    {"no variable", no_variable, MB_INVALID, "scan_carry: no variable"},
    {"empty variable", empty_variable, MB_INVALID, "scan_carry"},
    {"carry twice", carry_twice, MB_INVALID, "is a carry already"},
    {"emptied variable", emptied_variable, MB_INVALID, "scan_end: carry 1: got no tensor"},
    {"carry of eight axes", carry_of_eight_axes, MB_INVALID, "has 8 axes"},
    {"wrong first axis", wrong_first_axis, MB_INVALID, "wanted a first axis of 4"},
    {"slice of a number", slice_of_a_number, MB_INVALID, "wanted a first axis of 4"},
    {"no slice", no_slice, MB_INVALID, "scan_slice"},
    {"no stack", no_stack, MB_INVALID, "nowhere to put the stack"},
    {"stack of nothing", stack_of_nothing, MB_INVALID, "scan_stack"},
    {"stack of eight axes", stack_of_eight_axes, MB_INVALID, "8 axes"},
    {"other context", other_context, MB_INVALID, "of another context"},
    {"negative", negative, MB_INVALID, "got -1 steps"},
    {"too many", too_many, MB_INVALID, "got 2147483648 steps"},
    {"wrong keep_every", wrong_keep, MB_INVALID, "-3"},
    {"ended twice", ended_twice, MB_INVALID, "this scan is not open"},
    {"wrong order", wrong_order, MB_INVALID, "is still open inside this scan"},
    {"used after its end", used_after_end, MB_INVALID, "this scan is not open"},
    {"scope left open", scope_left_open, MB_INVALID, "is still open inside the scan"},
    {"left open in a scope", left_open_in_scope, MB_INVALID, "is still open inside this scope"},
    {"the body fails", body_fails, MB_INVALID, "matmul"},
    {"poison carried", poison_carried, MB_INVALID, "matmul"},
    {"in an op", in_an_op, MB_STALE, "exp: operand 1"},
    {"read", read_it, MB_STALE, "read"},
    {"item", item_of_it, MB_STALE, "item"},
    {"watch", watched, MB_STALE, "watch"},
    {"eval", evaluated, MB_STALE, "eval"},
    {"keep", kept, MB_STALE, "keep"},
    {"detach", detached, MB_STALE, "detach"},
    {"assign", assigned, MB_STALE, "assign"},
    {"keep_through", through, MB_STALE, "keep_through"},
    {"grad of it", grad_of_it, MB_STALE, "of the inside of a scan"},
    {"grad by it", grad_by_it, MB_STALE, "grad"},
    {"jvp along it", jvp_along_it, MB_STALE, "jvp"},
    {"hvp by it", hvp_by_it, MB_STALE, "hvp"},
    {"carried again", carried_again, MB_STALE, "scan_carry"},
    {"stacked after", stacked_after, MB_STALE, "scan_stack"},
    {"read inside", read_inside, MB_INVALID, "or vmap that has not ended"},
    {"item inside", item_inside, MB_INVALID, "or vmap that has not ended"},
    {"eval inside", eval_inside, MB_INVALID, "or vmap that has not ended"},
    {"watch inside", watch_inside, MB_INVALID, "vmap that has not ended"},
    {"detach inside", detach_inside, MB_INVALID, "vmap that has not ended"},
    {"assign inside", assign_inside, MB_INVALID, "bring the value out, and assign after its end"},
    {"checkpoint ends inside", checkpoint_ends_inside, MB_INVALID, "is still open inside it"},
    {"checkpoint ends after", checkpoint_ends_after, MB_INVALID, "it was begun inside of a scan or vmap"},
};

/* The values of a scan and its gradient, which must be right whatever went wrong before. */
static void expect_usable(place *p, const char *name)
{
    mb_tensor x = p->x, g;
    mb_scan s = mb_scan_begin(p->ctx, 3);
    mb_scan_carry(s, &x);
    x = mb_mul(x, mb_scan_slice(s, p->xs));
    mb_scan_end(s);
    mb_grad(mb_sum(x, MB_ALL), &p->x, 1, &g);
    double *v = values(x), *d = values(g);
    expect(mb_error(p->ctx) == MB_OK && v[0] == 8 && v[1] == 8 && d[0] == 8, "after %s: %s", name,
           mb_message(p->ctx));
    mb_item(mb_sum(p->variable, MB_ALL));
}

static void one_mistake(const struct mistake *m, bool in_scope)
{
    mb_context *ctx = open_on("reference");
    const double ones[2] = {1, 1}, twos[6] = {2, 2, 2, 2, 2, 2};
    place p = {.ctx = ctx,
               .x = from_doubles(ctx, MB_FLOAT64, MB_SHAPE(2), ones),
               .xs = from_doubles(ctx, MB_FLOAT64, MB_SHAPE(3, 2), twos),
               .variable = mb_variable(ctx, MB_FLOAT64, MB_SHAPE(2))};
    mb_tensor x = p.x, xs = p.xs;
    mb_scope scope = {0};
    if (in_scope)
        scope = mb_scope_begin(ctx);
    m->make(&p);
    expect(mb_error(ctx) == m->status && strstr(mb_message(ctx), m->says), "%s: %s: %s", m->name,
           mb_status_name(mb_error(ctx)), mb_message(ctx));
    for (int i = 0; i < 2; i++) {
        char at[64];
        snprintf(at, sizeof at, "scan_mistakes_test.c:%d", i ? p.second : p.first);
        expect(!(i ? p.second : p.first) || strstr(mb_message(ctx), at), "%s: no %s in: %s", m->name, at,
               mb_message(ctx));
    }
    expect(!strchr(mb_message(ctx), '\n'), "%s: more than a line", m->name);
    if (in_scope)
        mb_scope_end(scope);
    mb_clear_error(ctx);
    p.x = x;
    p.xs = xs;
    expect_usable(&p, m->name);
    close_all();
}

/* An optimiser's step belongs after the loop; refused, it counts nothing and changes nothing. */
Test(scan_mistakes, step_inside)
{
    mb_context *ctx = open_on("reference");
    mb_params *ps = mb_params_new_with(ctx, 1, MB_FLOAT64);
    mb_tensor w = mb_param(ps, "w", MB_SHAPE(2), mb_init_ones()), v;
    mb_optimizer *o = mb_adam(ps, (mb_adam_options){.lr = 0.1});
    mb_item(mb_sum(w, MB_ALL));
    mb_scope scope = mb_scope_begin(ctx);
    v = mb_square(w);
    mb_scan s = mb_scan_begin(ctx, 3);
    mb_scan_carry(s, &v);
    int line = __LINE__ + 1;
    mb_step(o, mb_sum(mb_add(v, w), MB_ALL));
    mb_scan_end(s);
    char at[64];
    snprintf(at, sizeof at, "scan_mistakes_test.c:%d", line);
    expect(mb_error(ctx) == MB_INVALID && strstr(mb_message(ctx), at) &&
               strstr(mb_message(ctx), "scan begun at"),
           "%s", mb_message(ctx));
    mb_scope_end(scope);
    mb_clear_error(ctx);
    expect(mb_item(mb_sum(w, MB_ALL)) == 2 && mb_optimizer_steps(o) == 0, "something changed");
    mb_optimizer_free(o);
    mb_params_free(ps);
    close_all();
}

Test(scan_mistakes, are_told_and_leave_nothing)
{
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++)
        for (int in_scope = 0; in_scope < 2; in_scope++)
            one_mistake(&mistakes[i], in_scope);
    expect(mb_scan_begin(NULL, 3).serial == 0 && mb_scan_end((mb_scan){0}) != MB_OK, "no context");
    expect(mb_scan_slice((mb_scan){0}, (mb_tensor){0}).id == 0, "no context");
}
