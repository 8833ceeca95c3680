/* SPDX-License-Identifier: MIT
 *
 * check_test.c - the kit of tests/kit/check.h: what is right passes, and each way to be wrong is found,
 * with a sentence that says where.
 */
#include "support.h"
#include "tests/kit/criterion.h"

/* ---- derivatives that are wrong on purpose: a sine with a rule ---- */

enum fault {
    NONE,
    FIRST,   /* the first derivative is 1.001 times too large */
    SECOND,  /* only the second is: the factor is a constant to derivatives */
    THIRD,   /* only the third */
    ELEMENT, /* the first, of element 37 */
    FORWARD, /* in forward mode alone */
    FLOAT32, /* the first, in float32 */
    EMPTY,   /* of a layer without examples */
};

typedef struct rule_data {
    enum fault fault;
    bool inner; /* the rule of the cosine that the first rule multiplies by */
} rule_data;

static mb_tensor ruled(const rule_data *data, mb_tensor value, mb_tensor x);

static mb_tensor factor(const rule_data *d, mb_tensor x)
{
    if (d->inner)
        return mb_neg(mb_sin(mb_stop_gradient(x)));
    if (d->fault == SECOND)
        return mb_cos(mb_stop_gradient(x));
    if (d->fault == THIRD)
        return ruled(&(rule_data){THIRD, true}, mb_cos(x), x);
    mb_tensor f = mb_cos(x);
    if (d->fault == FIRST || (d->fault == FLOAT32 && mb_dtype_of(x) == MB_FLOAT32))
        return mb_mul(f, 1.001);
    if (d->fault == ELEMENT) {
        mb_tensor here = mb_eq(mb_iota(x.ctx, MB_INT32, mb_count(x)), 37.0);
        return mb_mul(f, mb_reshape(mb_where(here, mb_full(x.ctx, MB_FLOAT64, MB_SHAPE0, 1.01),
                                             mb_full(x.ctx, MB_FLOAT64, MB_SHAPE0, 1)),
                                    mb_shape_of(x)));
    }
    return f;
}

static mb_status pull(const void *user, mb_context *ctx, const mb_custom_at *at, const mb_tensor *vs,
                      mb_tensor *gs)
{
    if (vs[0].ctx)
        gs[0] = mb_mul(vs[0], factor(user, at->xs[0]));
    return mb_error(ctx);
}

static mb_status push(const void *user, mb_context *ctx, const mb_custom_at *at, const mb_tensor *ts,
                      mb_tensor *us)
{
    (void)user;
    if (ts[0].ctx)
        us[0] = mb_mul(mb_mul(ts[0], mb_cos(at->xs[0])), 1.001);
    return mb_error(ctx);
}

static mb_tensor ruled(const rule_data *data, mb_tensor value, mb_tensor x)
{
    mb_tensor out;
    mb_custom_rule rule = {.reverse = pull, .user = data, .user_bytes = sizeof *data};
    if (data->fault == FORWARD)
        rule.forward = push;
    mb_custom_gradient(&value, 1, &x, 1, rule, &out);
    return out;
}

static mb_tensor sine(enum fault fault, mb_tensor x)
{
    return fault == NONE || fault == EMPTY ? mb_sin(x) : ruled(&(rule_data){fault, false}, mb_sin(x), x);
}

static mb_tensor product(mb_context *ctx, const mb_tensor *xs, const void *user)
{
    (void)ctx;
    return mb_mul(sine(*(const enum fault *)user, xs[1]), mb_exp(xs[0]));
}

static bool says(const mb_check_result *r, const char *text)
{
    return expect(strstr(r->text, text) != NULL, "\"%s\" is not in: %s", text, r->text);
}

static mb_status check_product(enum fault fault, int64_t size, mb_check_result *r)
{
    mb_context *ctx = open_on(backend_names[1]);
    const mb_check_case c = {
        .name = "product", .f = product, .user = &fault, .n = 2, .shape = {MB_SHAPE(size), MB_SHAPE(size)}};
    mb_status status = mb_check_gradient(ctx, &c, r);
    expect(mb_error(ctx) == MB_OK, "the context stays without an error");
    close_all();
    return status;
}

Test(check, what_is_right_passes)
{
    mb_check_result r;
    for (int64_t size = 0; size < 4; size += 3)
        expect(check_product(NONE, size, &r) == MB_OK && !r.text[0], "%s", r.text);
    expect(check_product(NONE, 100, &r) == MB_OK, "%s", r.text);
}

Test(check, a_first_derivative_that_is_wrong)
{
    mb_check_result r;
    expect(check_product(FIRST, 3, &r) == MB_WRONG && r.order == 1 && r.argument == 1 && r.element == 0, "%s",
           r.text);
    expect(near(r.got, 1.001 * r.wanted, 1e-6, 0) && r.allowed < 1e-6, "%g, %g", r.got, r.wanted);
    says(&r, "check_test.c:");
    says(&r, "product on ");
    says(&r, "first derivative, reverse, by argument 1, element 0 [0]: got ");
    says(&r, "by differences, allowed ");
}

Test(check, one_that_is_wrong_at_the_second_order_alone)
{
    mb_check_result r;
    expect(check_product(SECOND, 3, &r) == MB_WRONG && r.order == 2 && r.argument == 1, "%s", r.text);
    says(&r, "second derivative, reverse over reverse");
}

Test(check, one_that_is_wrong_at_the_third_order_alone)
{
    mb_check_result r;
    expect(check_product(THIRD, 3, &r) == MB_WRONG && r.order == 3 && r.argument == 1, "%s", r.text);
}

Test(check, one_element_among_many)
{
    mb_check_result r;
    expect(check_product(ELEMENT, 100, &r) == MB_WRONG && r.argument == 1 && r.element == 37, "%s", r.text);
    expect(near(r.got, 1.01 * r.wanted, 1e-5, 0), "%g, %g", r.got, r.wanted);
    says(&r, "element 37 [37]");
}

Test(check, one_mode_alone)
{
    mb_check_result r;
    expect(check_product(FORWARD, 3, &r) == MB_WRONG && r.order == 1, "%s", r.text);
    says(&r, "forward, along a random direction");
    says(&r, "by reverse");
}

static mb_tensor bent(mb_context *ctx, const mb_tensor *xs, const void *user)
{
    (void)ctx, (void)user;
    return mb_relu(mb_sub(xs[0], 0.5));
}

Test(check, kinks)
{
    mb_context *ctx = open_on("reference");
    mb_check_result r;
    mb_check_case c = {
        .name = "bent", .f = bent, .n = 1, .shape = {MB_SHAPE0}, .low = 0.4995, .high = 0.4997};
    expect(mb_check_gradient(ctx, &c, &r) == MB_OK, "one that is near: %s", r.text);
    c.low = 0.499995;
    c.high = 0.499996;
    expect(mb_check_gradient(ctx, &c, &r) == MB_WRONG, "%s", r.text);
    says(&r, "a kink");
    close_all();
}

static mb_tensor mistaken(mb_context *ctx, const mb_tensor *xs, const void *user)
{
    (void)ctx, (void)user;
    return mb_matmul(xs[0], xs[0]);
}

Test(check, an_error_of_the_function_is_told_and_cleared)
{
    mb_context *ctx = open_on("reference");
    mb_check_result r;
    const mb_check_case c = {.name = "mistaken", .f = mistaken, .n = 1, .shape = {MB_SHAPE(2, 3)}};
    expect(mb_check_gradient(ctx, &c, &r) == MB_INVALID && mb_error(ctx) == MB_OK, "%s", r.text);
    says(&r, "mistaken: ");
    says(&r, "matmul: inner sizes differ");
    expect(mb_check_gradient(ctx, &(mb_check_case){0}, &r) == MB_INVALID, "%s", r.text);
    expect(mb_check_gradient(NULL, &c, NULL) == MB_INVALID, "no context");
    expect(mb_check_vmap(ctx, &c, &r) == MB_INVALID, "%s", r.text);
    close_all();
}

static mb_tensor counting(mb_context *ctx, const mb_tensor *xs, const void *user)
{
    (void)ctx;
    return mb_mul(xs[0], (double)++*(int *)user);
}

Test(check, a_vmap_that_differs)
{
    int calls = 0;
    mb_context *ctx = open_on(backend_names[1]);
    mb_check_result r;
    const mb_check_case c = {
        .name = "counting", .f = counting, .user = &calls, .n = 1, .shape = {MB_SHAPE(2)}};
    expect(mb_check_vmap(ctx, &c, &r) == MB_WRONG, "%s", r.text);
    says(&r, "by vmap");
    close_all();
}

/* ---- values ---- */

Test(check, closeness)
{
    for (int k = 0; k < 2; k++) {
        mb_context *ctx = open_on(backend_names[k]);
        mb_check_result r;
        mb_tensor a = from_doubles(ctx, MB_FLOAT64, MB_SHAPE(2, 2), (double[]){1, 2, 3, NAN});
        mb_tensor b = mb_mul(a, 1 + 1e-13), c = mb_mul(a, 1 + 1e-9);
        const mb_closeness usual = {0}, nan = {.nan_equal = true}, loose = {.rtol = 1e-8, .nan_equal = true};
        mb_assert_close_to(a, a, nan);
        mb_assert_close_to(b, a, (mb_closeness){.rtol = 1e-12, .nan_equal = true});
        mb_assert_close_to(c, a, loose);
        expect(mb_close_to(a, a, usual, &r) == MB_WRONG && r.element == 3, "a NaN: %s", r.text);
        expect(mb_close_to(c, a, nan, &r) == MB_WRONG && r.element == 2, "%s", r.text);
        says(&r, "element 2 [1,0] of [2,2] float64: got 3.00000000");
        mb_assert_close_to_values(mb_slice(a, 0, 0, 1, 1), ((double[]){1, 2}), 2, usual);
        expect(mb_close_to_values(a, (double[]){1}, 1, usual, &r) == MB_WRONG, "%s", r.text);
        expect(mb_close_to(a, mb_reshape(a, MB_SHAPE(4)), nan, &r) == MB_WRONG, "%s", r.text);
        says(&r, "got [2,2] float64, wanted [4] float64");
        expect(mb_close_to(a, mb_cast(a, MB_FLOAT32), nan, &r) == MB_WRONG, "%s", r.text);
        expect(mb_close_to((mb_tensor){0}, a, nan, &r) == MB_STALE, "%s", r.text);
        mb_tensor inf = mb_full(ctx, MB_FLOAT32, MB_SHAPE0, INFINITY);
        mb_assert_close_to(inf, inf, usual);
        expect(mb_close_to(mb_neg(inf), inf, loose, &r) == MB_WRONG, "%s", r.text);
        mb_tensor whole = mb_iota(ctx, MB_INT32, 3);
        expect(mb_close_to_values(whole, (double[]){0, 1, 3}, 3, usual, &r) == MB_WRONG && r.element == 2,
               "%s", r.text);
        close_all();
    }
}

/* ---- layers ---- */

typedef struct gated {
    mb_linear value, gate;
} gated;

static void make_gated(mb_params *p, void *layer, const void *user)
{
    (void)user;
    gated *g = layer;
    g->value = mb_linear_new(p, "value", 4, 3);
    g->gate = mb_linear_new(p, "gate", 4, 3);
}

static mb_status ones(const void *user, mb_context *ctx, const mb_custom_at *at, const mb_tensor *vs,
                      mb_tensor *gs)
{
    (void)user, (void)vs;
    gs[0] = mb_ones(ctx, mb_dtype_of(at->xs[0]), mb_shape_of(at->xs[0]));
    return mb_error(ctx);
}

/* x [B, 4], m [B, 3] bool -> [B, 3] */
static mb_tensor apply_gated(mb_context *ctx, const void *layer, const mb_tensor *xs, const void *user)
{
    const gated *g = layer;
    const enum fault fault = *(const enum fault *)user;
    mb_tensor v = mb_linear_apply(g->value, xs[0]);
    if (fault == EMPTY && mb_dim(xs[0], 0) == 0)
        mb_custom_gradient(&v, 1, &g->value.bias, 1, (mb_custom_rule){.reverse = ones}, &v);
    v = mb_mul(sine(fault, v), mb_sigmoid(mb_linear_apply(g->gate, xs[0])));
    return mb_where(xs[1], v, mb_full(ctx, mb_dtype_of(v), MB_SHAPE0, 0));
}

static mb_layer_case gated_case(const enum fault *fault)
{
    return (mb_layer_case){.name = "gated",
                           .make = make_gated,
                           .layer_bytes = sizeof(gated),
                           .apply = apply_gated,
                           .user = fault,
                           .n = 2,
                           .shape = {MB_SHAPE(MB_FREE(1), 4), MB_SHAPE(MB_FREE(1), 3)},
                           .dtype = {MB_FLOAT32, MB_BOOL},
                           .broadcasts = 2,
                           .vmap = true,
                           .orders = 2,
                           .backends = backend_names[1]};
}

static mb_status check_gated(enum fault fault, mb_check_result *r)
{
    mb_layer_case c = gated_case(&fault);
    c.vmap = false; /* a rule is not for many examples */
    return mb_check_layer(&c, r);
}

Test(check, a_layer_that_is_right, .timeout = 60)
{
    static const enum fault none = NONE;
    const mb_layer_case c = gated_case(&none);
    mb_assert_layer(&c);
}

Test(check, a_layer_that_is_wrong_in_float32)
{
    mb_check_result r;
    expect(check_gated(FLOAT32, &r) == MB_WRONG && r.order == 1, "%s", r.text);
    says(&r, "in float32, of [2,4] [2,3]: first derivative by argument 0, element");
    says(&r, "by reference in float64");
}

Test(check, a_layer_that_is_wrong_where_nothing_is)
{
    mb_check_result r;
    expect(check_gated(EMPTY, &r) == MB_WRONG && r.order == 1 && r.argument >= 2, "%s", r.text);
    says(&r, "by parameter value.bias, element 0 [0]: got 1, wanted 0 by differences");
}

Test(check, a_layer_whose_second_derivative_is_wrong)
{
    mb_check_result r;
    expect(check_gated(SECOND, &r) == MB_WRONG && r.order == 2, "%s", r.text);
}

/* Scales by the first data it sees; or by how often it was called. */
typedef struct memory {
    bool counts;
    int calls;
    double first;
} memory;

static mb_tensor apply_memory(mb_context *ctx, const void *layer, const mb_tensor *xs, const void *user)
{
    memory *m = (memory *)layer;
    (void)ctx;
    if (((const memory *)user)->counts)
        return mb_mul(xs[0], (double)(1 + m->calls++ % 2));
    if (!m->calls++)
        m->first = mb_item(mb_sum(xs[0], MB_ALL));
    return mb_mul(xs[0], m->first);
}

Test(check, layers_that_remember)
{
    mb_check_result r;
    memory counts = {.counts = true}, first = {0};
    mb_layer_case c = {.name = "memory",
                       .layer_bytes = sizeof(memory),
                       .apply = apply_memory,
                       .user = &first,
                       .n = 1,
                       .shape = {MB_SHAPE(3)},
                       .orders = 1,
                       .backends = backend_names[1]};
    expect(mb_check_layer(&c, &r) == MB_WRONG, "%s", r.text);
    c.user = &counts;
    expect(mb_check_layer(&c, &r) == MB_WRONG, "%s", r.text);
}

/* A row that is alone is added to itself in place of to each. */
static mb_tensor apply_lonely(mb_context *ctx, const void *layer, const mb_tensor *xs, const void *user)
{
    (void)ctx, (void)layer, (void)user;
    return mb_add(mb_sum(xs[0], MB_AXES(0)), mb_sum(xs[1], MB_AXES(0)));
}

Test(check, a_layer_that_does_not_broadcast)
{
    mb_check_result r;
    mb_layer_case c = {.name = "lonely",
                       .apply = apply_lonely,
                       .n = 2,
                       .shape = {MB_SHAPE(MB_FREE(1), 2), MB_SHAPE(MB_FREE(1), 2)},
                       .backends = "reference"};
    expect(mb_check_layer(&c, &r) == MB_OK, "%s", r.text);
    c.broadcasts = 2;
    expect(mb_check_layer(&c, &r) == MB_WRONG, "%s", r.text);
    says(&r, "by the repeated argument");
}

Test(check, layer_cases_that_make_no_sense)
{
    mb_check_result r;
    static const enum fault none = NONE;
    mb_layer_case c = gated_case(&none);
    c.backends = "nowhere";
    expect(mb_check_layer(&c, &r) == MB_BACKEND, "%s", r.text);
    says(&r, "nowhere");
    c.n = 0;
    expect(mb_check_layer(&c, &r) == MB_INVALID, "%s", r.text);
    expect(mb_check_layer(NULL, NULL) == MB_INVALID, "nothing");
}

/* ---- memory ---- */

Test(check, failing_allocations_of_a_function)
{
    enum fault none = NONE;
    const mb_check_case c = {.name = "product",
                             .f = product,
                             .user = &none,
                             .n = 2,
                             .shape = {MB_SHAPE(2), MB_SHAPE(2)},
                             .orders = 1};
    for (uint64_t n = 1, good = 0; !good; n += 1 + n / 4) {
        counter counts = {0};
        mb_allocator a = counting_allocator(&counts);
        mb_context *ctx = mb_open_with(&(mb_options){.backend = "reference", .allocator = &a});
        counts.fail_at = counts.calls + n;
        counts.fail_on = true;
        mb_check_result r;
        mb_status status = mb_check_gradient(ctx, &c, &r);
        good = status == MB_OK;
        expect(status == MB_OK || (status == MB_NO_MEMORY && r.text[0]), "%llu: %s", (unsigned long long)n,
               r.text);
        counts.fail_at = 0;
        expect(mb_error(ctx) == MB_OK && mb_check_gradient(ctx, &c, &r) == MB_OK, "%s", r.text);
        mb_close(ctx);
        expect(counts.blocks == 0, "%lld blocks left", (long long)counts.blocks);
    }
}

Test(check, failing_allocations_of_a_layer)
{
    static const enum fault none = NONE;
    mb_layer_case c = gated_case(&none);
    c.orders = 1;
    c.vmap = false;
    c.shape[0].dim[0] = c.shape[1].dim[0] = 2;
    for (uint64_t n = 1, good = 0; !good; n += 1 + n / 3) {
        counter counts = {.fail_at = n, .fail_on = true};
        mb_allocator a = counting_allocator(&counts);
        c.allocator = &a;
        mb_check_result r;
        mb_status status = mb_check_layer(&c, &r);
        good = status == MB_OK;
        expect(status == MB_OK || (status == MB_NO_MEMORY && r.text[0]), "%llu: %s", (unsigned long long)n,
               r.text);
        expect(counts.blocks == 0, "%llu: %lld blocks left", (unsigned long long)n, (long long)counts.blocks);
    }
}
