/* SPDX-License-Identifier: MIT
 * scope_test.c - how long values live: scopes, keep, detach, variables, watches, and the tape that does not
 * grow. */
#include "support.h"

#define ON_BOTH                                                                                              \
    for (int k = 0; k < 2; k++)                                                                              \
        for (mb_context *ctx = open_on(backend_names[k]); ctx; ctx = NULL, close_all())

static mb_tensor num(mb_context *ctx, double x)
{
    return mb_scalar(ctx, MB_FLOAT64, x);
}

static mb_tensor grad(mb_tensor y, mb_tensor x)
{
    mb_tensor g;
    mb_grad(y, &x, 1, &g);
    return g;
}

static uint64_t nodes(mb_context *ctx)
{
    return mb_get_stats(ctx).nodes;
}

Test(scope, the_tape_returns_to_its_length)
{
    ON_BOTH
    {
        mb_tensor x = num(ctx, 2);
        uint64_t start = nodes(ctx);
        for (int i = 0; i < 50; i++) {
            mb_scope s = mb_scope_begin(ctx);
            mb_tensor y = x;
            for (int j = 0; j < 100; j++)
                y = mb_mul(y, 1.01);
            expect(near(mb_item(y), 2 * pow(1.01, 100), 1e-12, 0), "in a scope");
            expect(mb_scope_end(s) == MB_OK, "scope_end");
            expect(!mb_valid(y) && mb_valid(x), "valid after the end");
        }
        expect(nodes(ctx) == start, "%llu nodes, %llu at first", (unsigned long long)nodes(ctx),
               (unsigned long long)start);
    }
}

Test(scope, keep_moves_history_out)
{
    ON_BOTH
    {
        mb_tensor x = num(ctx, 3), kept = {0}, twice = {0};
        uint64_t start = nodes(ctx);
        mb_scope outer = mb_scope_begin(ctx);
        {
            mb_scope s = mb_scope_begin(ctx);
            mb_tensor y = mb_mul(x, x), other = mb_exp(x);
            kept = mb_keep(mb_mul(y, x));
            twice = mb_keep(kept);
            (void)twice;
            mb_scope_end(s);
            expect(mb_valid(kept) && !mb_valid(other), "keep");
        }
        expect(mb_item(kept) == 27 && mb_item(grad(kept, x)) == 27, "a kept value and its gradient: %g %g",
               mb_item(kept), mb_item(grad(kept, x)));
        expect(mb_item(grad(grad(kept, x), x)) == 18, "its second derivative");
        mb_scope_end(outer);
        expect(!mb_valid(kept), "kept for one scope only");
        expect(nodes(ctx) == start, "keep: %llu nodes, %llu at first", (unsigned long long)nodes(ctx),
               (unsigned long long)start);
    }
}

Test(scope, detach_moves_the_value_out)
{
    ON_BOTH
    {
        mb_tensor x = num(ctx, 3), w = num(ctx, 1);
        uint64_t start = 0;
        for (int i = 0; i < 20; i++) { /* truncated back-propagation: each step begins from values */
            mb_scope s = mb_scope_begin(ctx);
            w = mb_detach(mb_add(mb_mul(w, 0.5), x));
            mb_scope_end(s);
            if (i == 10)
                start = nodes(ctx);
        }
        expect(near(mb_item(w), 6, 1e-4, 0), "detached values: %g", mb_item(w));
        expect(mb_item(grad(w, x)) == 0, "a detached value has no history");
        expect(nodes(ctx) <= start + 16, "detach: each step leaves one leaf, not %llu nodes",
               (unsigned long long)(nodes(ctx) - start));
    }
}

Test(scope, nested_scopes_and_deep_keeps)
{
    ON_BOTH
    {
        mb_tensor x = num(ctx, 2);
        mb_scope s[5];
        mb_tensor y = x;
        for (int i = 0; i < 5; i++) {
            s[i] = mb_scope_begin(ctx);
            y = mb_mul(y, x);
        }
        for (int i = 5; i-- > 0;) {
            y = mb_keep(y);
            mb_scope_end(s[i]);
            expect(mb_valid(y), "kept out of level %d", i);
        }
        expect(mb_item(y) == 64 && mb_item(grad(y, x)) == 192, "kept through five scopes: %g %g", mb_item(y),
               mb_item(grad(y, x)));
    }
}

Test(scope, stale_handles_name_both_places)
{
    ON_BOTH
    {
        mb_scope s = mb_scope_begin(ctx);
        mb_tensor y = num(ctx, 1);
        int ended = __LINE__ + 1;
        mb_scope_end(s);
        int used = __LINE__ + 1;
        mb_tensor z = mb_exp(y);
        char at[64], to[64];
        snprintf(at, sizeof at, "scope_test.c:%d: exp", used);
        snprintf(to, sizeof to, "scope_test.c:%d", ended);
        expect(!mb_valid(z) && mb_error(ctx) == MB_STALE, "a stale handle: %s",
               mb_status_name(mb_error(ctx)));
        const char *first = strstr(mb_message(ctx), at);
        expect(first && strstr(first + 1, to), "message: %s", mb_message(ctx));
        mb_clear_error(ctx);
        /* Also when its place on the tape is taken by another node. */
        mb_scope t = mb_scope_begin(ctx);
        mb_tensor fresh = num(ctx, 5);
        expect(mb_valid(fresh) && !mb_valid(y), "a new node does not revive an old handle");
        expect(mb_read(y, &(double){0}, sizeof(double)) == MB_STALE, "read of a stale handle");
        mb_clear_error(ctx);
        mb_scope_end(t);
    }
}

Test(scope, ends_in_reverse_order)
{
    ON_BOTH
    {
        mb_scope a = mb_scope_begin(ctx), b = mb_scope_begin(ctx);
        expect(mb_scope_end(a) != MB_OK, "an outer scope ended before its inner one");
        mb_clear_error(ctx);
        mb_scope_end(b);
        mb_scope_end(a);
        mb_clear_error(ctx);
        expect(mb_scope_end(a) != MB_OK, "a scope ended twice");
        mb_clear_error(ctx);
    }
}

/* ---- variables ---- */

Test(variable, starts_as_zeros_and_takes_values)
{
    ON_BOTH
    {
        mb_tensor w = mb_variable(ctx, MB_FLOAT32, MB_SHAPE(2, 3));
        double *v = values(w);
        for (int i = 0; i < 6; i++)
            expect(v[i] == 0, "a new variable: %g", v[i]);
        for (int step = 1; step < 6; step++) {
            mb_scope s = mb_scope_begin(ctx);
            mb_assign(w, mb_add(w, (double)step));
            expect(mb_scope_end(s) == MB_OK, "flush at the end of a scope");
            expect(values(w)[4] == step * (step + 1) / 2, "after step %d: %g", step, values(w)[4]);
        }
        mb_assign(w, mb_mul(w, 2.0)); /* outside of every scope */
        expect(values(w)[0] == 30, "assigned outside: %g", values(w)[0]);
    }
}

/* Reading a variable means its value at that moment, also when it is computed later. */
Test(variable, old_values_stay)
{
    ON_BOTH
    {
        mb_tensor w = mb_variable(ctx, MB_FLOAT64, MB_SHAPE(3));
        mb_assign(w, mb_iota(ctx, MB_FLOAT64, 3));
        mb_scope s = mb_scope_begin(ctx);
        mb_tensor before = mb_mul(w, 10.0);
        mb_assign(w, mb_add(w, 1.0));
        mb_tensor between = mb_mul(w, 10.0);
        mb_assign(w, mb_mul(w, w));
        mb_tensor after = mb_mul(w, 10.0);
        expect(values(after)[2] == 90 && values(between)[2] == 30 && values(before)[2] == 20,
               "in one flush: %g %g %g", values(after)[2], values(between)[2], values(before)[2]);
        mb_tensor late = mb_mul(w, 1.0);
        mb_assign(w, mb_mul(w, 0.0));
        expect(values(w)[2] == 0 && values(late)[2] == 9 && values(before)[1] == 10,
               "after a flush: %g %g %g", values(w)[2], values(late)[2], values(before)[1]);
        mb_scope_end(s);
        expect(values(w)[2] == 0, "after the scope: %g", values(w)[2]);
    }
}

/* Until the flush a variable stands for what was assigned, history included. */
Test(variable, gradients_pass_through_assignments)
{
    ON_BOTH
    {
        mb_tensor w = mb_variable(ctx, MB_FLOAT64, MB_SHAPE0), x = num(ctx, 3);
        mb_assign(w, num(ctx, 2));
        mb_eval(&w, 1);
        mb_scope s = mb_scope_begin(ctx);
        mb_tensor start = mb_alias(w);
        mb_assign(w, mb_mul(start, x));
        mb_assign(w, mb_mul(w, x));
        expect(mb_item(grad(mb_mul(w, 1.0), x)) == 12 && mb_item(grad(mb_mul(w, 1.0), start)) == 9,
               "through two steps: %g %g", mb_item(grad(mb_mul(w, 1.0), x)),
               mb_item(grad(mb_mul(w, 1.0), start)));
        mb_scope_end(s);
        expect(mb_item(w) == 18, "stored: %g", mb_item(w));
        mb_tensor y = mb_mul(w, w), g = grad(y, w); /* a variable in xs stands for its current value */
        expect(mb_item(g) == 36, "gradient at a variable: %g", mb_item(g));
    }
}

Test(variable, swaps_and_many_at_once)
{
    ON_BOTH
    {
        enum { MANY = 40 };
        mb_tensor w[MANY];
        for (int i = 0; i < MANY; i++) {
            w[i] = mb_variable(ctx, MB_FLOAT32, MB_SHAPE(5));
            mb_assign(w[i], mb_full(ctx, MB_FLOAT32, MB_SHAPE(5), i));
        }
        for (int step = 0; step < 4; step++) { /* rotate: every assignment reads what another one replaces */
            mb_scope s = mb_scope_begin(ctx);
            mb_tensor old[MANY];
            for (int i = 0; i < MANY; i++)
                old[i] = mb_mul(w[i], 1.0);
            for (int i = 0; i < MANY; i++)
                mb_assign(w[i], old[(i + 1) % MANY]);
            mb_scope_end(s);
        }
        for (int i = 0; i < MANY; i++)
            expect(values(w[i])[3] == (i + 4) % MANY, "rotated: %g at %d", values(w[i])[3], i);
        mb_scope s = mb_scope_begin(ctx); /* the same value into two variables, and one into itself */
        mb_tensor shared = mb_add(w[0], w[1]);
        mb_assign(w[0], shared);
        mb_assign(w[1], shared);
        mb_assign(w[2], mb_mul(w[2], 1.0));
        mb_scope_end(s);
        expect(values(w[0])[0] == 9 && values(w[1])[0] == 9, "one value in two variables: %g %g",
               values(w[0])[0], values(w[1])[0]);
        s = mb_scope_begin(ctx);
        mb_assign(w[0], mb_add(w[0], 1.0));
        mb_scope_end(s);
        expect(values(w[0])[0] == 10 && values(w[1])[0] == 9, "they are not tied: %g %g", values(w[0])[0],
               values(w[1])[0]);
    }
}

Test(variable, watch_is_delivered_at_the_flush)
{
    ON_BOTH
    {
        mb_tensor w = mb_variable(ctx, MB_FLOAT64, MB_SHAPE(2));
        double curve[10][2];
        for (int step = 0; step < 10; step++) {
            mb_scope s = mb_scope_begin(ctx);
            curve[step][0] = -1;
            mb_assign(w, mb_add(w, 1.0));
            expect(mb_watch(mb_mul(w, 2.0), curve[step], sizeof curve[step]) == MB_OK, "watch");
            expect(curve[step][0] == -1, "a watch does not force a flush");
            mb_scope_end(s);
            expect(curve[step][0] == 2 * (step + 1) && curve[step][1] == 2 * (step + 1), "watched: %g",
                   curve[step][0]);
        }
        double never[2] = {7, 7};
        mb_scope s = mb_scope_begin(ctx);
        mb_watch(mb_mul(w, 3.0), never, sizeof never);
        mb_scope_end(s); /* nothing assigned: no flush, the watch is cancelled */
        values(w);
        expect(never[0] == 7, "a watch outlived its scope");
    }
}

/* What was computed and kept is not computed again; what was not, is, with the same result. */
Test(scope, values_asked_for_later)
{
    ON_BOTH
    {
        rng r = {1};
        mb_tensor x = draw(ctx, &r, MB_FLOAT32, MB_SHAPE(50, 50), -1, 1), a = mb_matmul(x, x), b = mb_tanh(a),
                  c = mb_matmul(b, a);
        double *late_c = values(c), *late_a = values(a), *late_b = values(b);
        mb_context *other = open_on(backend_names[k]);
        rng q = {1};
        mb_tensor y = draw(other, &q, MB_FLOAT32, MB_SHAPE(50, 50), -1, 1), d = mb_matmul(y, y),
                  e = mb_tanh(d);
        expect(same_bits(values(d), late_a, 2500) && same_bits(values(e), late_b, 2500),
               "recomputed values differ");
        expect(nmse(values(mb_matmul(e, d)), late_c, 2500) < 1e-13, "and what follows from them");
    }
}

/* State that goes from step to step in a variable leaves nothing behind; values that mb_detach moves out of
 * every scope stay, and the log tells. */
static void count_lines(void *user, const char *line)
{
    *(int *)user += strstr(line, "the tape has grown") != NULL;
}

Test(scope, state_carried_between_steps)
{
    int told = 0;
    mb_context *ctx = mb_open_with(&(mb_options){.backend = "cpu", .log = count_lines, .log_user = &told});
    mb_tensor state = mb_variable(ctx, MB_FLOAT64, MB_SHAPE0), w = num(ctx, 1);
    uint64_t start = 0, bytes = 0;
    for (int step = 0; step < 1500; step++) {
        mb_scope s = mb_scope_begin(ctx);
        mb_assign(state, mb_add(mb_mul(state, 0.5), 3.0));
        mb_scope_end(s);
        if (step == 10)
            start = nodes(ctx), bytes = mb_get_stats(ctx).bytes;
    }
    expect(nodes(ctx) == start && mb_get_stats(ctx).bytes == bytes && !told,
           "%llu nodes, %llu after 10 steps", (unsigned long long)nodes(ctx), (unsigned long long)start);
    expect(near(mb_item(state), 6, 1e-12, 0), "the state: %g", mb_item(state));
    for (int step = 0; step < 1500; step++) {
        mb_scope s = mb_scope_begin(ctx);
        w = mb_detach(mb_add(mb_mul(w, 0.5), 3.0));
        mb_scope_end(s);
    }
    expect(told == 1, "told %d times", told);
    mb_close(ctx);
}

/* ---- what an error costs ---- */

static void mistake(mb_context *ctx)
{
    mb_add(mb_zeros(ctx, MB_FLOAT64, MB_SHAPE(2)), mb_zeros(ctx, MB_FLOAT64, MB_SHAPE(3)));
    expect(mb_error(ctx) == MB_INVALID, "a mistake");
}

static mb_tensor variable_of(mb_context *ctx, double value)
{
    mb_tensor v = mb_variable(ctx, MB_FLOAT64, MB_SHAPE0);
    mb_assign(v, num(ctx, value));
    return v;
}

/* stored: whether a flush comes before the scope; the assignments of before it hold either way. */
Test(variable, an_error_costs_its_scope_only)
{
    ON_BOTH
    for (int stored = 0; stored < 2; stored++) {
        mb_tensor a = variable_of(ctx, 1), b = variable_of(ctx, 2),
                  c = mb_variable(ctx, MB_FLOAT64, MB_SHAPE0);
        if (stored)
            expect(mb_item(a) == 1, "stored");
        mb_scope s = mb_scope_begin(ctx);
        mb_assign(a, mb_add(a, 10.0));
        mb_assign(a, mb_mul(a, 2.0));
        mb_assign(c, b);
        mistake(ctx);
        expect(mb_scope_end(s) == MB_INVALID, "scope_end gives the error back");
        mb_clear_error(ctx);
        expect(mb_item(a) == 1 && mb_item(b) == 2 && mb_item(c) == 0, "%d: %g %g %g", stored, mb_item(a),
               mb_item(b), mb_item(c));
        mb_assign(a, mb_add(a, 1.0));
        expect(mb_item(a) == 2, "and it goes on: %g", mb_item(a));
    }
}

Test(variable, an_error_in_an_inner_scope)
{
    ON_BOTH
    {
        mb_tensor a = variable_of(ctx, 1), b = variable_of(ctx, 2);
        mb_scope outer = mb_scope_begin(ctx);
        mb_assign(a, mb_add(a, 10.0));
        mb_scope inner = mb_scope_begin(ctx);
        mb_assign(a, mb_add(a, 100.0));
        mb_assign(b, a);
        mistake(ctx);
        mb_scope_end(inner);
        mb_clear_error(ctx);
        expect(mb_item(mb_mul(a, 2.0)) == 22 && mb_item(b) == 2, "within the outer scope: %g %g", mb_item(a),
               mb_item(b)); /* a flush: what is undone later is not this */
        mb_assign(b, mb_add(b, 5.0));
        mb_scope unclosed = mb_scope_begin(ctx);
        mb_assign(b, mb_add(b, 5.0));
        (void)unclosed;
        expect(mb_scope_end(outer) == MB_INVALID, "a scope inside is open");
        mb_clear_error(ctx);
        expect(mb_item(a) == 11 && mb_item(b) == 2, "after it: %g %g", mb_item(a), mb_item(b));
    }
}

/* A watch writes at the next flush of its scope or never: what dst points to may be gone afterwards. */
Test(variable, watches_end_with_the_scope_they_were_asked_for_in)
{
    ON_BOTH
    {
        mb_tensor x = num(ctx, 3), outer = mb_mul(x, 2.0), w = variable_of(ctx, 4), kept;
        double seen[3] = {7, 7, 7};
        expect(mb_item(w) == 4, "stored");
        mb_scope s = mb_scope_begin(ctx);
        mb_watch(outer, &seen[0], sizeof *seen);
        mb_watch(w, &seen[1], sizeof *seen);
        mb_tensor y = mb_mul(x, 3.0);
        mb_watch(y, &seen[2], sizeof *seen);
        kept = mb_keep(y);
        mb_scope_end(s); /* nothing was assigned: no flush */
        expect(mb_item(kept) == 9 && mb_item(outer) == 6 && mb_item(w) == 4, "values");
        expect(seen[0] == 7 && seen[1] == 7 && seen[2] == 7, "a watch outlived its scope: %g %g %g", seen[0],
               seen[1], seen[2]);
        /* One of the scope around goes on through an inner one. */
        mb_watch(outer, &seen[0], sizeof *seen);
        s = mb_scope_begin(ctx);
        mb_watch(outer, &seen[1], sizeof *seen);
        mb_scope_end(s);
        mb_item(x);
        expect(seen[0] == 6 && seen[1] == 7, "of the outer scope: %g %g", seen[0], seen[1]);
    }
}

Test(variable, an_error_ends_watches)
{
    ON_BOTH
    {
        mb_tensor x = num(ctx, 3);
        double seen[2] = {7, 7};
        mb_watch(mb_mul(x, 2.0), &seen[0], sizeof *seen);
        double two[2];
        expect(mb_read(x, two, sizeof two) == MB_INVALID, "a wrong size");
        expect(isnan(seen[0]), "a flush that failed gives NaN: %g", seen[0]);
        mb_clear_error(ctx);
        mb_watch(mb_mul(x, 2.0), &seen[1], sizeof *seen);
        mistake(ctx);
        mb_clear_error(ctx);
        seen[0] = 5;
        expect(mb_item(x) == 3 && seen[0] == 5 && seen[1] == 7, "cleared with the error: %g %g", seen[0],
               seen[1]);
    }
}

Test(variable, a_failed_read_leaves_no_old_numbers)
{
    ON_BOTH
    {
        mb_tensor x = mb_ones(ctx, MB_FLOAT32, MB_SHAPE(2)), i = mb_iota(ctx, MB_INT32, 2);
        float f[3] = {1, 2, 3};
        int32_t n[3] = {1, 2, 3};
        expect(mb_read(x, f, sizeof f) == MB_INVALID && isnan(f[0]) && isnan(f[2]), "floats: %g",
               (double)f[0]);
        mb_clear_error(ctx);
        expect(mb_read(i, n, sizeof n) == MB_INVALID && n[0] == 1, "whole numbers are left: %d", n[0]);
        float g[2] = {1, 2};
        double d[1] = {1};
        expect(mb_read(x, g, sizeof g) == MB_INVALID && isnan(g[1]), "under an earlier error");
        expect(mb_read((mb_tensor){0}, d, sizeof d) == MB_INVALID && isnan(d[0]), "of no tensor");
        mb_clear_error(ctx);
        expect(mb_eval(NULL, 0) == MB_OK && mb_eval(&x, 0) == MB_OK, "nothing to compute");
        expect(mb_eval((mb_tensor[]){{0}, x}, 2) == MB_INVALID &&
                   strstr(mb_message(ctx), "number 1 of 2 is not a tensor"),
               "%s", mb_message(ctx));
        mb_clear_error(ctx);
    }
}
