/* SPDX-License-Identifier: MIT
 *
 * custom_test.c - derivatives of the user's: against differences, and against the same function without a
 * rule, where it stands alone, in scans and in checkpoints; and rules that are wrong. */
#include "gradcheck.h"
#include "support.h"
#include "vmapped.h"

#define S(...) MB_SHAPE(__VA_ARGS__)
#define ON_BOTH                                                                                              \
    for (int k = 0; k < 2; k++, close_all())                                                                 \
        for (mb_context *ctx = open_on(backend_names[k]); ctx; ctx = NULL)

/* ---- a function of two tensors with two values: (a sin(b), a^2 b), each with its rule ---- */

typedef struct rule_data {
    double factor; /* on what the rules give: 1 */
} rule_data;

static mb_status reverse(const void *user, mb_context *ctx, const mb_custom_at *at, const mb_tensor *vs,
                         mb_tensor *gs)
{
    double factor = ((const rule_data *)user)->factor;
    mb_tensor a = at->xs[0], b = at->xs[1];
    if (vs[0].ctx) {
        gs[0] = mb_mul(vs[0], mb_mul(mb_sin(b), factor));
        gs[1] = mb_mul(vs[0], mb_mul(a, mb_cos(b)));
    }
    if (vs[1].ctx) { /* a^2 b: 2 y / a by a, by the value itself */
        mb_tensor g = mb_mul(vs[1], mb_div(mb_mul(at->ys[1], 2), a)), h = mb_mul(vs[1], mb_square(a));
        gs[0] = gs[0].ctx ? mb_add(gs[0], g) : g;
        gs[1] = gs[1].ctx ? mb_add(gs[1], h) : h;
    }
    return mb_error(ctx);
}

static mb_status forward(const void *user, mb_context *ctx, const mb_custom_at *at, const mb_tensor *ts,
                         mb_tensor *us)
{
    double factor = ((const rule_data *)user)->factor;
    mb_tensor a = at->xs[0], b = at->xs[1];
    if (ts[0].ctx) {
        us[0] = mb_mul(ts[0], mb_mul(mb_sin(b), factor));
        us[1] = mb_mul(ts[0], mb_div(mb_mul(at->ys[1], 2), a));
    }
    if (ts[1].ctx) {
        mb_tensor t = mb_mul(ts[1], mb_mul(a, mb_cos(b))), u = mb_mul(ts[1], mb_square(a));
        us[0] = us[0].ctx ? mb_add(us[0], t) : t;
        us[1] = us[1].ctx ? mb_add(us[1], u) : u;
    }
    return mb_error(ctx);
}

enum { PLAIN, REVERSE = 1, FORWARD = 2, BOTH = 3, RULES = 4 };

/* The rule's data is copied: it is gone when the rule is called. */
static void two_values(int rule, mb_tensor a, mb_tensor b, mb_tensor *out)
{
    rule_data data = {1};
    const mb_tensor xs[2] = {a, b};
    out[0] = mb_mul(a, mb_sin(b));
    out[1] = mb_mul(mb_square(a), b);
    if (rule)
        mb_custom_gradient(out, 2, xs, 2,
                           MB_LIT(mb_custom_rule){.reverse = rule & REVERSE ? reverse : NULL,
                                                  .forward = rule & FORWARD ? forward : NULL,
                                                  .user = &data,
                                                  .user_bytes = sizeof data},
                           out);
    data.factor = NAN;
}

static mb_tensor alone(mb_context *ctx, const mb_tensor *xs, const void *user)
{
    (void)ctx;
    mb_tensor out[2];
    two_values(*(const int *)user, mb_tanh(xs[0]), mb_sin(xs[1]), out);
    return mb_add(mb_mul(out[0], out[1]), mb_sin(out[0]));
}

/* Once in each step of a scan, which is what the steps of a checkpoint hold. */
static mb_tensor in_scan(mb_context *ctx, const mb_tensor *xs, const void *user)
{
    mb_checkpoint outer = mb_checkpoint_begin(ctx);
    mb_tensor a = xs[0], out[2], seen;
    mb_scan s = mb_scan_begin(ctx, 3);
    mb_scan_carry(s, &a);
    two_values(*(const int *)user, a, xs[1], out);
    a = mb_add(mb_mul(out[0], 0.5), 1.0);
    mb_scan_stack(s, out[1], &seen);
    mb_scan_end(s);
    mb_checkpoint_end(outer);
    return mb_add(mb_sum(seen, MB_AXES(0)), a);
}

static mb_tensor in_checkpoint(mb_context *ctx, const mb_tensor *xs, const void *user)
{
    mb_tensor a = xs[0], out[2];
    for (int i = 0; i < 3; i++) {
        mb_checkpoint c = mb_checkpoint_begin(ctx);
        two_values(*(const int *)user, a, xs[1], out);
        out[0] = mb_keep_through(out[0]); /* between the results of one rule */
        a = mb_add(mb_mul(mb_add(out[0], out[1]), 0.25), 0.5);
        mb_checkpoint_end(c);
    }
    return a;
}

Test(custom, against_differences)
{
    static const int rules[RULES] = {PLAIN, REVERSE, FORWARD, BOTH};
    gradcase cases[3 * (RULES - 1)];
    int n = 0;
    for (int r = 1; r < RULES; r++) {
        cases[n++] =
            (gradcase){"alone", alone, &rules[r], 2, {MB_SHAPE(3), MB_SHAPE(3)}, 0.5, 1.5, .looser = 10};
        cases[n++] = (gradcase){"in a scan", in_scan, &rules[r], 2,           {MB_SHAPE(2), MB_SHAPE(2)},
                                0.5,         1.5,     2,         .looser = 10};
        cases[n++] = (gradcase){
            "in a checkpoint", in_checkpoint, &rules[r], 2, {MB_SHAPE(2), MB_SHAPE(2)}, 0.5, 1.5, 2,
            .looser = 10};
    }
    gradcheck_both(cases, n);
}

/* Third derivatives through nested scans and checkpoints, with a rule and without. */
Test(custom, equals_the_function_without_a_rule)
{
    mb_tensor (*const ways[])(mb_context *, const mb_tensor *, const void *) = {alone, in_scan,
                                                                                in_checkpoint};
    bool few = testing("vulkan"); /* where each plan has kernels to compile */
    for (int b = few; b < 2; b++)
        for (int w = 0; w < 3; w++) {
            double want[3];
            for (int rule = 0; rule < RULES; rule += few ? RULES - 1 : 1) {
                mb_context *ctx = open_on(backend_names[b]);
                const double xs[4] = {0.7, 1.2, 0.9, 0.4};
                mb_tensor v[2] = {from_doubles(ctx, MB_FLOAT64, MB_SHAPE(2), xs),
                                  from_doubles(ctx, MB_FLOAT64, MB_SHAPE(2), xs + 2)},
                          g[2];
                mb_tensor y = mb_sum(ways[w](ctx, v, &rule), MB_ALL);
                for (int order = 0; order < 3; order++) {
                    mb_grad(y, v, 2, g);
                    y = mb_add(mb_sum(mb_square(g[0]), MB_ALL), mb_sum(mb_sin(g[1]), MB_ALL));
                    double got = mb_item(y);
                    if (!rule)
                        want[order] = got;
                    expect(near(got, want[order], 1e-11, 1e-12),
                           "%s, way %d, rule %d, order %d: %.17g, %.17g", backend_names[b], w, rule,
                           order + 1, got, want[order]);
                }
                expect_ok(ctx);
                close_all();
            }
        }
}

/* ---- what is kept of it ---- */

/* A scope ends, and the rule's first value alone is kept: what is recorded after it must not be taken for the
 * second. The same of a scan's results. */
Test(custom, results_stay_together)
{
    for (int scan = 0; scan < 2; scan++) {
        mb_context *ctx = open_on("cpu");
        mb_tensor a = mb_normal(ctx, mb_key_of(1), MB_FLOAT64, MB_SHAPE(4)), out[2], g[2], seen;
        for (int kept = 0; kept < 2; kept++) {
            mb_scope scope = kept ? mb_scope_begin(ctx) : MB_EMPTY(mb_scope);
            if (scan) {
                out[0] = a;
                mb_scan s = mb_scan_begin(ctx, 3);
                mb_scan_carry(s, &out[0]);
                out[0] = mb_sin(out[0]);
                mb_scan_stack(s, out[0], &seen);
                mb_scan_end(s);
            } else {
                two_values(BOTH, a, mb_sin(a), out);
            }
            if (kept) {
                out[0] = mb_keep(out[0]);
                mb_scope_end(scope);
            }
            mb_tensor other = mb_sum(mb_mul(mb_sin(mb_tanh(a)), 1.1), MB_ALL);
            mb_grad(mb_mul(mb_sum(out[0], MB_ALL), other), &a, 1, &g[kept]);
        }
        expect(nmse(values(g[1]), values(g[0]), 4) < 1e-28, "%s", scan ? "a scan" : "a rule");
        close_all();
    }
}

/* Integers go in, and have no gradient; a value that is no function of anything is constant. */
static mb_status rows(const void *user, mb_context *ctx, const mb_custom_at *at, const mb_tensor *vs,
                      mb_tensor *gs)
{
    (void)user;
    mb_tensor zeros = mb_zeros(ctx, MB_FLOAT64, mb_shape_of(at->xs[0]));
    gs[0] = mb_add(zeros, mb_mul(vs[0], mb_cast(mb_sum(at->xs[1], MB_ALL), MB_FLOAT64)));
    return mb_error(ctx);
}

Test(custom, integers_and_constants)
{
    mb_context *ctx = open_on("cpu");
    const double data[3] = {1, 2, 3};
    mb_tensor x = from_doubles(ctx, MB_FLOAT64, MB_SHAPE(3), data), i = mb_iota(ctx, MB_INT32, 4), g;
    mb_tensor y = mb_sum(x, MB_ALL), z, xs[2] = {x, i};
    mb_custom_gradient(&y, 1, xs, 2, MB_LIT(mb_custom_rule){.reverse = rows}, &z);
    mb_grad(z, &x, 1, &g);
    expect(mb_item(z) == 6 && values(g)[1] == 6, "gradient %g", values(g)[1]);
    mb_custom_gradient(&y, 1, NULL, 0, MB_LIT(mb_custom_rule){.reverse = rows}, &z);
    mb_grad(z, &x, 1, &g);
    expect(mb_item(z) == 6 && values(g)[1] == 0, "a constant");
    close_all();
}

/* ---- rules that are wrong ---- */

static mb_context *other;

static mb_status wrong(const void *user, mb_context *ctx, const mb_custom_at *at, const mb_tensor *vs,
                       mb_tensor *gs)
{
    switch (*(const char *)user) {
    case 's':
        gs[0] = mb_sum(vs[0], MB_ALL);
        break;
    case 'd':
        gs[0] = mb_cast(vs[0], MB_FLOAT32);
        break;
    case 'c':
        gs[0] = mb_ones(other, MB_FLOAT64, MB_SHAPE(3));
        break;
    case 'f':
        return MB_IO;
    case 'o':
        mb_scope_begin(ctx);
        break;
    case 'p':
        mb_matmul(at->xs[0], at->xs[0]);
        break;
    default:
        break;
    }
    return MB_OK;
}

static void expect_sentence(mb_context *ctx, const char *what, const char *part)
{
    expect(mb_error(ctx) != MB_OK && strstr(mb_message(ctx), part) &&
               strstr(mb_message(ctx), "custom_test.c:"),
           "%s: %s", what, mb_message(ctx));
}

Test(custom, wrong_rules_are_told)
{
    const char *const told[][2] = {{"s", "1 as [] float64"},    {"d", "[3] float32"},
                                   {"c", "another context"},    {"f", "the rule failed (i/o)"},
                                   {"o", "scope or scan open"}, {"p", "wanted rank 2"}};
    for (size_t i = 0; i < sizeof told / sizeof *told; i++)
        for (int mode = 0; mode < 2; mode++) {
            mb_context *ctx = open_on("cpu");
            other = open_on("cpu");
            mb_tensor x = mb_ones(ctx, MB_FLOAT64, MB_SHAPE(3)), y = mb_sin(x), z;
            mb_custom_gradient(&y, 1, &x, 1,
                               MB_LIT(mb_custom_rule){.reverse = mode ? NULL : wrong,
                                                      .forward = mode ? wrong : NULL,
                                                      .user = told[i][0],
                                                      .user_bytes = 2},
                               &z);
            expect_ok(ctx);
            mb_grad(z, &x, 1, &z);

            expect_sentence(ctx, told[i][0], told[i][1]);
            expect(!mb_valid(z), "%s: a result", told[i][0]);
            close_failed(ctx);
            close_all();
        }
}

Test(custom, wrong_calls_are_told)
{
    mb_context *ctx = open_on("cpu");
    other = open_on("cpu");
    mb_tensor x = mb_ones(ctx, MB_FLOAT64, MB_SHAPE(3)), z = x, i = mb_iota(ctx, MB_INT32, 3);
    mb_tensor far = mb_ones(other, MB_FLOAT64, MB_SHAPE(3)), none = {0};
    const mb_custom_rule rule = {.reverse = wrong, .user = "f"};
    char many[MB_CUSTOM_USER_MOST + 1] = {0};
    const struct {
        const mb_tensor *ys;
        int m;
        const mb_tensor *xs;
        int n;
        mb_custom_rule rule;
        mb_tensor *out;
        const char *part;
    } calls[] = {
        {&x, 1, &x, 1, {0}, &z, "neither"},
        {&x, 1, &x, 1, {.reverse = wrong, .user = many, .user_bytes = sizeof many}, &z, "512"},
        {&x, 1, &x, 1, {.reverse = wrong, .user_bytes = 8}, &z, "no pointer"},
        {&x, 1, NULL, 1, rule, &z, "got 1 values"},
        {&x, 1, &x, -1, rule, &z, "got 1 values"},
        {&x, 1, &x, 1, rule, NULL, "nowhere"},
        {&i, 1, &x, 1, rule, &z, "value 1 is [3] int32"},
        {&x, 1, &far, 1, rule, &z, "tensor 1 is no tensor of this context"},
        {&x, 1, &none, 1, rule, &z, "custom_gradient"},
    };
    for (size_t k = 0; k < sizeof calls / sizeof *calls; k++) {
        z = x;
        mb_status s =
            mb_custom_gradient(calls[k].ys, calls[k].m, calls[k].xs, calls[k].n, calls[k].rule, calls[k].out);
        expect(s != MB_OK, "call %zu is taken", k);
        expect_sentence(ctx, "a call", calls[k].part);
        mb_clear_error(ctx);
    }
    expect(mb_custom_gradient(NULL, 1, &x, 1, rule, &z) == MB_INVALID, "no values");
    close_all();
}

/* The rule of one example serves all of them: against a loop, whatever is batched, and its derivatives. */
static mb_tensor of_one(mb_context *ctx, const mb_tensor *xs, const void *user)
{
    mb_tensor out[2];
    (void)ctx;
    two_values(*(const int *)user, xs[0], xs[1], out);
    return mb_add(mb_mul(out[0], mb_exp(out[1])), xs[1]);
}

Test(custom, examples)
{
    static const int rules[] = {REVERSE, FORWARD, BOTH};
    for (int k = 0; k < 3; k++) {
        const mapped c = {.name = "custom_gradient",
                          .f = of_one,
                          .user = &rules[k],
                          .n = 2,
                          .shape = {S(2), S(2)},
                          .low = 0.3,
                          .high = 0.9};
        vmapped(&c, 1);
    }
}

/* Of what does not depend on the examples there is one copy for all; nested, a rule has a level for each. */
Test(custom, examples_nested_and_not)
{
    ON_BOTH
    {
        mb_tensor xs = mb_reshape(mb_add(mb_mul(mb_cast(mb_iota(ctx, MB_INT32, 6), MB_FLOAT64), 0.1), 0.2),
                                  MB_SHAPE(2, 3)),
                  a = mb_full(ctx, MB_FLOAT64, MB_SHAPE0, 0.7), rows, all, g[2];
        mb_vmap outer = mb_vmap_begin(ctx, 2);
        mb_tensor row = mb_vmap_in(outer, xs, 0);
        mb_vmap inner = mb_vmap_begin(ctx, 3);
        mb_tensor x = mb_vmap_in(inner, row, 0), both[2], alone[2];
        two_values(BOTH, x, a, both);
        two_values(BOTH, mb_sin(a), a, alone);
        mb_vmap_out(inner, mb_add(both[0], mb_mul(alone[1], x)), 0, &rows);
        mb_vmap_end(inner);
        mb_vmap_out(outer, rows, 0, &all);
        mb_vmap_end(outer);
        mb_grad(all, (const mb_tensor[]){xs, a}, 2, g);
        double by_a = 0;
        for (int i = 0; i < 6; i++) {
            double v = 0.2 + 0.1 * i, s = sin(0.7), c = cos(0.7);
            expect(near(values(all)[i], v * s + s * s * 0.7 * v, 1e-14, 0), "%s: %d", backend_names[k], i);
            expect(near(values(g[0])[i], s + s * s * 0.7, 1e-14, 0), "%s: by x %d", backend_names[k], i);
            by_a += v * c + (2 * s * c * 0.7 + s * s) * v;
        }
        expect(near(mb_item(g[1]), by_a, 1e-14, 0), "%s: %g, not %g", backend_names[k], mb_item(g[1]), by_a);
    }
}
