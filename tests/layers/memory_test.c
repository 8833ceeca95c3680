/* SPDX-License-Identifier: MIT
 *
 * memory_test.c - mb_memory: its parts by plain loops, what it depends on, derivatives by all parameters
 * against differences, and mistakes. */
#include "fixture.h"

enum { B = 2, N = 7, D = 4, H = 2 };

static mb_memory_options options_of(mb_memory_rule rule)
{
    return (mb_memory_options){.rule = rule,
                               .dim = D,
                               .heads = H,
                               .key = 3,
                               .conv = 3,
                               .chunk = 4,
                               .mesa = {.reversible = true},
                               .mesanet = {.steps = 8}};
}

static mb_memory memory_on(mb_context *mb, mb_params **p, mb_memory_rule rule)
{
    *p = mb_params_new_with(mb, 3, MB_FLOAT64);
    return mb_memory_new(*p, "memory", options_of(rule));
}

/* x W^T for one token: W [n,D]. */
static void project(const double *x, const double *w, int n, double *y)
{
    for (int i = 0; i < n; i++) {
        y[i] = 0;
        for (int j = 0; j < D; j++)
            y[i] += x[j] * w[i * D + j];
    }
}

/* Queries or keys of a sequence, q [N][H dk], one after the other. */
static void plain_directions(const double *x, const double *w, const double *conv, int dk, double *q)
{
    for (int t = 0; t < N; t++) {
        for (int i = 0; i < H * dk; i++) {
            double sum = 0, each[H * 3];
            for (int back = 0; back < 3 && back <= t; back++) {
                project(x + (ptrdiff_t)(t - back) * D, w, H * dk, each);
                sum += conv[back * H * dk + i] * each[i];
            }
            q[t * H * dk + i] = sum / (1 + exp(-sum));
        }
        for (int h = 0; h < H; h++) {
            double *of = q + (ptrdiff_t)(t * H + h) * dk, square = 0;
            for (int i = 0; i < dk; i++)
                square += of[i] * of[i];
            for (int i = 0; i < dk; i++)
                of[i] /= sqrt(square);
        }
    }
}

/* Linear attention of normalised keys, its norm and projection, by loops. */
static void plain_linear(const mb_memory *l, const double *x, double *y)
{
    double q[N * H * 3], k[N * H * 3], v[N * D];
    const double *conv = values(l->conv), *value = values(l->value), *out = values(l->out);
    plain_directions(x, values(l->query), conv, 3, q);
    plain_directions(x, values(l->key), conv + 3 * H * 3, 3, k);
    for (int t = 0; t < N; t++)
        project(x + (ptrdiff_t)t * D, value, D, v + (ptrdiff_t)t * D);
    for (int t = 0; t < N; t++) {
        double mixed[D] = {0};
        for (int h = 0; h < H; h++) {
            double square = 0, *of = mixed + (ptrdiff_t)h * (D / H);
            for (int j = 0; j <= t; j++) {
                double like = 0;
                for (int i = 0; i < 3; i++)
                    like += q[(t * H + h) * 3 + i] * k[(j * H + h) * 3 + i];
                for (int i = 0; i < D / H; i++)
                    of[i] += like * v[j * D + h * (D / H) + i];
            }
            for (int i = 0; i < D / H; i++)
                square += of[i] * of[i] / (D / H);
            for (int i = 0; i < D / H; i++)
                of[i] /= sqrt(square + 1e-6);
        }
        project(mixed, out, D, y + (ptrdiff_t)t * D);
    }
}

Test(memory, equals_loops)
{
    for (int b = 0; b < 2; b++) {
        mb_context *mb = open_on(backend_names[b]);
        mb_params *p;
        mb_memory l = memory_on(mb, &p, MB_MEMORY_LINEAR);
        set_pattern(p, "memory.conv", 5, 0.5, 0.2);
        mb_tensor x = pattern(mb, MB_SHAPE(B, N, D), 1, 1, 0), y = mb_memory_apply(l, x);
        const double *in = values(x), *got = values(y);
        for (int s = 0; s < B; s++) {
            double want[N * D];
            plain_linear(&l, in + (ptrdiff_t)s * N * D, want);
            for (int i = 0; i < N * D; i++)
                expect(fabs(want[i] - got[s * N * D + i]) < 1e-11, "%s: element %d", backend_names[b], i);
        }
        mb_params_free(p);
        close_all();
    }
}

/* Gates as they begin, by hand: the rule is that of the function. */
Test(memory, gates_are_handed_on)
{
    mb_context *mb = open_on(backend_names[1]);
    mb_params *p;
    mb_memory l = memory_on(mb, &p, MB_MEMORY_MESANET);
    const mb_tensor gates[] = {l.forget, l.beta};
    for (int i = 0; i < 2; i++)
        mb_assign(gates[i], mb_zeros(mb, MB_FLOAT64, MB_SHAPE(H, D)));
    mb_memory same = l;
    same.options.rule = MB_MEMORY_GATED_DELTA;
    mb_tensor x = pattern(mb, MB_SHAPE(1, 1, D), 1, 1, 0);
    /* one token: beta v (k . q), and beta v k.(beta k k^T + 1)^-1 q = beta / (1 + beta) v (k . q): the norm
     * makes them equal, but for its eps */
    expect_close(mb_memory_apply(l, x), mb_memory_apply(same, x), 1e-3, "a token");
    double forget = mb_item(mb_mean(mb_sigmoid(l.forget_bias), MB_ALL));
    expect(fabs(forget - 0.982) < 1e-3, "forget factors begin as %g", forget);
    double ridge = mb_item(mb_mean(mb_softplus(l.ridge), MB_ALL));
    expect(fabs(ridge - 0.75) < 1e-12, "the ridge begins as %g", ridge + 0.25);
    mb_params_free(p);
    close_all();
}

Test(memory, tokens_depend_on_those_before)
{
    for (int rule = MB_MEMORY_LINEAR; rule <= MB_MEMORY_MESANET; rule++) {
        mb_context *mb = open_on(backend_names[1]);
        mb_params *p;
        mb_memory l = memory_on(mb, &p, (mb_memory_rule)rule);
        mb_tensor x = pattern(mb, MB_SHAPE(1, N, D), 1, 1, 0), g;
        mb_grad(mb_slice(mb_memory_apply(l, x), 1, 3, 1, 1), &x, 1, &g);
        for (int t = 0; t < N; t++)
            expect((norm2(mb_slice(g, 1, t, 1, 1)) > 1e-9) == (t <= 3), "rule %d: token %d", rule, t);
        expect_ok(mb);
        mb_params_free(p);
        close_all();
    }
}

/* At all parameters moved by e along a pattern: the loss, and its slope. */
static double along(mb_context *mb, mb_memory l, const mb_params *p, double e, double *slope)
{
    mb_scope scope = mb_scope_begin(mb);
    mb_tensor step = mb_scalar(mb, MB_FLOAT64, e), d;
    mb_tensor *const all[] = {&l.query,       &l.key,  &l.value,     &l.out,   &l.conv, &l.forget,
                              &l.forget_bias, &l.beta, &l.beta_bias, &l.ridge, &l.scale};
    int moved = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i]->ctx) {
            *all[i] = mb_add(*all[i], mb_mul(pattern(mb, mb_shape_of(*all[i]), (int)i, 0.3, 0), step));
            moved++;
        }
    expect(moved == mb_params_count(p), "%d of %d parameters", moved, mb_params_count(p));
    mb_tensor y = outer_loss(mb_memory_apply(l, pattern(mb, MB_SHAPE(B, N, D), 1, 1, 0)));
    mb_grad(y, &step, 1, &d);
    double value = mb_item(y);
    *slope = mb_item(d);
    mb_scope_end(scope);
    return value;
}

/* Third derivatives are large where a norm's row is small: h is less than elsewhere. */
Test(memory, derivatives_equal_differences)
{
    const double h = 3e-6;
    for (int rule = MB_MEMORY_LINEAR; rule <= MB_MEMORY_MESANET; rule++) {
        mb_context *mb = open_on(backend_names[0]);
        mb_params *p;
        mb_memory l = memory_on(mb, &p, (mb_memory_rule)rule);
        double slope, unused;
        along(mb, l, p, 0.1, &slope);
        double up = along(mb, l, p, 0.1 + h, &unused), down = along(mb, l, p, 0.1 - h, &unused);
        expect(fabs((up - down) / (2 * h) - slope) < 1e-8 * (1 + fabs(slope)), "rule %d: %.12g, not %.12g",
               rule, slope, (up - down) / (2 * h));
        expect_ok(mb);
        mb_params_free(p);
        close_all();
    }
}

static void refused(mb_context *mb, const char *word)
{
    expect(mb_error(mb) == MB_INVALID && strstr(mb_message(mb), word) &&
               strstr(mb_message(mb), "memory_test.c"),
           "\"%s\": %s", word, mb_message(mb));
    mb_clear_error(mb);
}

Test(memory, mistakes_are_told)
{
    mb_context *mb = open_on("cpu");
    mb_params *p = mb_params_new(mb, 1);
    mb_memory_options o = {.dim = 4, .heads = 3};
    mb_memory_new(p, "a", o);
    refused(mb, "heads 3");
    o.heads = 2, o.conv = 65;
    mb_memory_new(p, "b", o);
    refused(mb, "conv 65");
    o.conv = 0, o.rule = (mb_memory_rule)6;
    mb_memory_new(p, "c", o);
    refused(mb, "rule 6");
    o.rule = MB_MEMORY_DELTA;
    mb_memory l = mb_memory_new(p, "d", o);
    mb_memory_apply(l, mb_zeros(mb, MB_FLOAT32, MB_SHAPE(2, 3, 5)));
    refused(mb, "wanted [images, tokens, 4]");
    mb_params_free(p);
    close_all();
}

Test(memory, nothing)
{
    for (int rule = MB_MEMORY_LINEAR; rule <= MB_MEMORY_MESANET; rule++)
        for (int tokens = 0; tokens < 2; tokens++) {
            mb_context *mb = open_on(backend_names[1]);
            mb_params *p;
            mb_memory l = memory_on(mb, &p, (mb_memory_rule)rule);
            mb_shape shape = tokens ? MB_SHAPE(0, 3, D) : MB_SHAPE(2, 0, D);
            mb_tensor y = mb_memory_apply(l, mb_from(mb, MB_FLOAT64, shape, NULL)), g;
            expect(same_shape(mb_shape_of(y), shape), "rule %d: shape", rule);
            mb_grad(y, &l.query, 1, &g);
            expect(norm2(g) == 0, "rule %d: a gradient", rule);
            expect_ok(mb);
            mb_params_free(p);
            close_all();
        }
}
