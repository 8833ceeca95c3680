/* SPDX-License-Identifier: MIT
 *
 * vmap_test.c - vmaps around, inside and beside gradients, scans, checkpoints and other vmaps, against loops
 * over the examples; random draws; random programs; and what a user may get wrong. vmap_rules_test.c has the
 * ops. */
#include "random_op.h"
#include "vmapped.h"

#define X xs[0]
#define Y xs[1]
#define W xs[2]

typedef mb_tensor (*function)(mb_context *, const mb_tensor *, const void *);

static mapped on_matrices(const char *name, function f, int n)
{
    return (mapped){.name = name,
                    .f = f,
                    .n = n,
                    .shape = {MB_SHAPE(3, 3), MB_SHAPE(3, 3), MB_SHAPE(3, 3), MB_SHAPE0},
                    .low = -1,
                    .high = 1,
                    .looser = 10};
}

static void run(const char *name, function f, int n)
{
    mapped c = on_matrices(name, f, n);
    vmapped(&c, 1);
}

static mb_tensor loss_of(mb_tensor w, mb_tensor x, mb_tensor y)
{
    return mb_mean(mb_square(mb_sub(mb_tanh(mb_matmul(x, w)), y)), MB_ALL);
}

/* ---- derivatives inside ---- */

static mb_tensor gradient_step(mb_context *ctx, const mb_tensor *xs, const void *user)
{
    (void)ctx, (void)user;
    mb_tensor w = W, dw;
    for (int t = 0; t < 2; t++) {
        mb_grad(loss_of(w, X, Y), &w, 1, &dw);
        w = mb_sub(w, mb_mul(dw, xs[3]));
    }
    return w;
}

static mb_tensor forward(mb_context *ctx, const mb_tensor *xs, const void *user)
{
    (void)ctx, (void)user;
    mb_tensor y = mb_mul(mb_matmul(X, mb_sin(Y)), X), t[2];
    mb_jvp(&y, 1, xs, (mb_tensor[]){mb_cos(Y), X}, 2, t);
    mb_hvp(mb_sum(y, MB_ALL), &xs[1], &xs[0], 1, &t[1]);
    return mb_mul(t[0], t[1]);
}

static mb_tensor curvature(mb_context *ctx, const mb_tensor *xs, const void *user)
{
    (void)user;
    mb_tensor row = mb_reshape(mb_slice(X, 0, 1, 1, 1), MB_SHAPE(3)), d;
    mb_tensor y = mb_sum(mb_exp(mb_mul(mb_matmul(mb_unsqueeze(row, 0), mb_sin(Y)), 0.5)), MB_ALL);
    mb_tensor h = mb_hessian(y, &row, 1);
    mb_hessian_diagonal(y, &row, 1, &d);
    (void)ctx;
    return mb_add(mb_matmul(h, mb_jacobian(mb_sin(row), row)), d);
}

Test(vmap, of_derivatives)
{
    run("gradient steps", gradient_step, 4);
    run("forward mode", forward, 2);
    run("curvature", curvature, 2);
}

/* ---- scans ---- */

/* A learner; losses and weights; with numbers of steps done as a carry that no example changes. */
static mb_tensor scanned(mb_context *ctx, const mb_tensor *xs, const void *user)
{
    const bool *backwards = user;
    mb_tensor w = W, dw, losses, done = mb_full(ctx, MB_INT32, MB_SHAPE0, 0);
    mb_scan s = mb_scan_begin_with(ctx, 3, (mb_scan_options){.backwards = *backwards});
    mb_scan_carry(s, &w);
    mb_scan_carry(s, &done);
    mb_tensor x = mb_broadcast(mb_scan_slice(s, X), MB_SHAPE(2, 3));
    mb_tensor loss =
        loss_of(w, mb_mul(x, mb_add(mb_cast(mb_scan_step(s), MB_FLOAT64), 0.5)), mb_slice(Y, 0, 0, 2, 1));
    mb_grad(loss, &w, 1, &dw);
    w = mb_sub(w, mb_mul(dw, xs[3]));
    done = mb_add(done, mb_full(ctx, MB_INT32, MB_SHAPE0, 1));
    mb_scan_stack(s, loss, &losses);
    mb_scan_end(s);
    return mb_mul(mb_add(w, losses), mb_cast(done, MB_FLOAT64));
}

/* A carry is batched only because another flows into it, through a third; and one through a scan inside. */
static mb_tensor chained(mb_context *ctx, const mb_tensor *xs, const void *user)
{
    (void)user;
    mb_tensor a = mb_zeros(ctx, MB_FLOAT64, MB_SHAPE(3)), b = a, c = mb_sum(Y, MB_AXES(0)), all;
    mb_scan s = mb_scan_begin(ctx, 4);
    mb_scan_carry(s, &a);
    mb_scan_carry(s, &b);
    mb_scan_carry(s, &c);
    mb_tensor before = b;
    b = mb_sin(mb_add(c, b));
    a = mb_add(mb_mul(a, 0.5), before);
    mb_tensor inner = mb_tanh(c), add = mb_mul(X, 0.3);
    mb_scan t = mb_scan_begin(ctx, 3);
    mb_scan_carry(t, &inner);
    inner = mb_cos(mb_add(inner, mb_mul(mb_scan_slice(t, add), a)));
    mb_scan_end(t);
    c = inner;
    mb_scan_stack(s, mb_mul(a, b), &all);
    mb_scan_end(s);
    return mb_add(mb_mul(a, c), mb_sum(all, MB_AXES(0)));
}

/* The gradient of a scan, which is a scan; and its tangents. */
static mb_tensor scan_gradient(mb_context *ctx, const mb_tensor *xs, const void *user)
{
    mb_tensor y = mb_sum(mb_square(scanned(ctx, xs, user)), MB_ALL), g[2], t;
    mb_grad(y, xs + 1, 2, g);
    mb_jvp(&y, 1, &X, &Y, 1, &t);
    return mb_mul(mb_add(g[0], g[1]), t);
}

Test(vmap, of_scans)
{
    for (int backwards = 0; backwards < 2; backwards++) {
        mapped c = on_matrices("a learner", scanned, 4);
        c.user = &(bool){backwards};
        vmapped(&c, 1);
    }
    run("carries in a chain", chained, 2);
    mapped c = on_matrices("the gradient of a scan", scan_gradient, 4);
    c.user = &(bool){false};
    c.orders = 1;
    c.looser = 1000;
    vmapped(&c, 1);
}

/* A vmap in each step, over rows of a carry, which reads a slice and a matrix of the outside. */
static mb_tensor scan_of_vmap(mb_context *ctx, const mb_tensor *xs, const void *user)
{
    (void)user;
    mb_tensor a = X, ys, norms;
    mb_scan s = mb_scan_begin(ctx, 3);
    mb_scan_carry(s, &a);
    mb_tensor b = mb_scan_slice(s, Y);
    mb_vmap v = mb_vmap_begin(ctx, 3);
    mb_tensor row = mb_vmap_in(v, a, 1), g;
    mb_tensor y = mb_sum(mb_sin(mb_matmul(mb_unsqueeze(mb_mul(row, b), 0), W)), MB_ALL);
    mb_grad(y, &row, 1, &g);
    mb_vmap_out(v, g, 0, &ys);
    mb_vmap_out(v, y, -1, &norms);
    mb_vmap_end(v);
    a = mb_add(mb_mul(a, norms), ys);
    mb_scan_end(s);
    return a;
}

Test(vmap, in_scans)
{
    run("a vmap in each step", scan_of_vmap, 3);
}

/* ---- vmaps in vmaps ---- */

/* All pairs of a row of X and a column of Y. */
static mb_tensor pairs(mb_context *ctx, const mb_tensor *xs, const void *user)
{
    (void)user;
    mb_tensor all, of_row, g;
    mb_vmap v = mb_vmap_begin(ctx, 3);
    mb_tensor x = mb_vmap_in(v, X, 0);
    mb_vmap u = mb_vmap_begin(ctx, 3);
    mb_tensor y = mb_vmap_in(u, Y, 1), z = mb_sin(mb_mul(mb_dot(x, y), mb_sum(W, MB_ALL)));
    mb_grad(z, &x, 1, &g);
    mb_vmap_out(u, mb_mul(mb_sum(g, MB_ALL), z), 0, &of_row);
    mb_vmap_end(u);
    mb_vmap_out(v, mb_mul(of_row, x), 1, &all);
    mb_vmap_end(v);
    return all;
}

Test(vmap, in_vmaps)
{
    run("pairs", pairs, 3);
}

/* ---- checkpoints ---- */

static mb_tensor checkpointed(mb_context *ctx, const mb_tensor *xs, const void *user)
{
    const int *way = user;
    mb_tensor w = W, dw;
    for (int t = 0; t < 2; t++) {
        mb_checkpoint c = *way ? mb_checkpoint_products_begin(ctx) : mb_checkpoint_begin(ctx);
        mb_tensor h = mb_tanh(mb_matmul(X, w));
        if (*way == 2)
            h = mb_keep_through(h);
        mb_grad(mb_mean(mb_square(mb_sub(mb_mul(h, mb_sin(h)), Y)), MB_ALL), &w, 1, &dw);
        w = mb_sub(w, dw);
        mb_checkpoint_end(c);
    }
    mb_grad(mb_sum(mb_square(w), MB_ALL), xs, 3, (mb_tensor[3]){0});
    mb_tensor g[3];
    mb_grad(mb_sum(mb_square(w), MB_ALL), xs, 3, g); /* through copies of checkpoints */
    return mb_add(mb_mul(g[0], w), mb_add(g[1], g[2]));
}

Test(vmap, of_checkpoints)
{
    for (int way = 0; way < 3; way++) {
        mapped c = on_matrices("checkpoints", checkpointed, 3);
        c.user = &way;
        c.orders = 1;
        c.looser = 1000;
        vmapped(&c, 1);
    }
}

/* A vmap with checkpoints inside keeps their promise: memory of a gradient is that of few of its steps. */
Test(vmap, memory_of_checkpoints)
{
    mb_context *ctx = open_on("cpu");
    double bytes[2];
    for (int marks = 0; marks < 2; marks++) {
        mb_scope scope = mb_scope_begin(ctx);
        mb_tensor x = mb_normal(ctx, mb_key_of(1), MB_FLOAT32, MB_SHAPE(8, 64, 8)), all, g;
        mb_tensor w0 = mb_normal(ctx, mb_key_of(2), MB_FLOAT32, MB_SHAPE(8, 8)), w = w0;
        mb_vmap v = mb_vmap_begin(ctx, 8);
        mb_tensor xi = mb_vmap_in(v, x, 0);
        for (int t = 0; t < 32; t++) {
            mb_checkpoint c = mb_checkpoint_begin(ctx);
            mb_grad(mb_mean(mb_square(mb_tanh(mb_matmul(xi, w))), MB_ALL), &w, 1, &g);
            w = mb_sub(w, g);
            if (marks)
                mb_checkpoint_end(c);
        }
        mb_vmap_out(v, w, 0, &all);
        mb_vmap_end(v);
        mb_grad(mb_sum(mb_square(all), MB_ALL), &w0, 1, &g);
        mb_eval(&g, 1);
        bytes[marks] = (double)mb_get_stats(ctx).last_arena_bytes;
        mb_scope_end(scope);
    }
    expect(bytes[1] < 0.3 * bytes[0], "%g bytes with checkpoints, %g without", bytes[1], bytes[0]);
    close_all();
}

/* What checkpoints keep is kept by those of the copies, too: no product is computed again. */
Test(vmap, kept_values_of_checkpoints)
{
    mb_context *ctx = open_on("cpu");
    double flops[4]; /* unmarked; marked; products kept; the product kept by name */
    for (int way = 0; way < 4; way++) {
        mb_tensor x = mb_normal(ctx, mb_key_of(1), MB_FLOAT32, MB_SHAPE(8, 64, 32)), all, g;
        mb_tensor w = mb_normal(ctx, mb_key_of(2), MB_FLOAT32, MB_SHAPE(32, 32));
        mb_vmap v = mb_vmap_begin(ctx, 8);
        mb_tensor xi = mb_vmap_in(v, x, 0);
        mb_checkpoint c = way == 2 ? mb_checkpoint_products_begin(ctx) : mb_checkpoint_begin(ctx);
        mb_tensor y = mb_matmul(xi, w);
        y = mb_sum(mb_exp(mb_sin(way == 3 ? mb_keep_through(y) : y)), MB_ALL);
        if (way)
            mb_checkpoint_end(c);
        mb_vmap_out(v, y, 0, &all);
        mb_vmap_end(v);
        mb_grad(mb_square(all), &w, 1, &g);
        mb_eval(&g, 1);
        flops[way] = (double)mb_get_stats(ctx).last_flops;
    }
    expect(flops[1] > flops[0] && flops[2] == flops[0] && flops[3] == flops[0],
           "flops of products: %g unmarked, %g marked, %g and %g where they are kept", flops[0], flops[1],
           flops[2], flops[3]);
    close_all();
}

/* ---- random programs ---- */

static mb_tensor op_or_gradient(uint32_t kind, mb_tensor a, mb_tensor b)
{
    mb_tensor g;
    if (kind != 7)
        return random_op(kind, a, b);
    mb_grad(mb_sum(mb_square(mb_tanh(mb_mul(a, b))), MB_ALL), &a, 1, &g);
    return g;
}

enum { POOL = 16 };

/* Of tensors [3,3] one more; some steps are blocks of steps, in a scan, a vmap or a checkpoint. */
static mb_tensor random_block(mb_context *ctx, uint32_t *seed, int depth, const mb_tensor *given, int count)
{
    mb_tensor pool[POOL];
    memcpy(pool, given, (size_t)count * sizeof *pool);
    for (int end = count + 3 + (depth == 0 ? 4 : 0); count < end && count < POOL; count++) {
        uint32_t kind = pick(seed, depth < 2 ? 12 : 9), i = pick(seed, (uint32_t)count),
                 j = pick(seed, (uint32_t)count);
        mb_tensor a = pool[i], *made = &pool[count];
        if (kind < 9) {
            *made = op_or_gradient(kind, a, pool[j]);
        } else if (kind == 9) {
            mb_scan s = mb_scan_begin(ctx, 3);
            mb_scan_carry(s, &a);
            pool[count] = mb_mul(a, mb_scan_slice(s, pool[j]));
            a = mb_add(mb_mul(a, 0.5), mb_sin(random_block(ctx, seed, depth + 1, pool, count + 1)));
            mb_scan_end(s);
            *made = a;
        } else if (kind == 10) {
            mb_vmap v = mb_vmap_begin(ctx, 3);
            pool[count] = mb_broadcast(mb_vmap_in(v, a, (int)(j % 2)), MB_SHAPE(3, 3));
            mb_tensor y = random_block(ctx, seed, depth + 1, pool, count + 1), all;
            mb_vmap_out(v, mb_mean(y, MB_AXES(1)), (int)(i % 2), &all);
            mb_vmap_end(v);
            *made = all;
        } else {
            mb_checkpoint c = j % 2 ? mb_checkpoint_begin(ctx) : mb_checkpoint_products_begin(ctx);
            *made = random_block(ctx, seed, depth + 1, pool, count);
            mb_checkpoint_end(c);
        }
    }
    return mb_sin(pool[count - 1]);
}

static mb_tensor random_program(mb_context *ctx, const mb_tensor *xs, const void *user)
{
    uint32_t seed = *(const uint32_t *)user;
    return random_block(ctx, &seed, 0, xs, 2);
}

Test(vmap, random_programs, .timeout = 36000)
{
    const char *wanted = getenv("FUZZ_COUNT"), *from = getenv("FUZZ_FROM");
    uint32_t first = from ? (uint32_t)atoi(from) : 1, count = testing("vulkan") ? 1 : 12;
    count = wanted ? (uint32_t)atoi(wanted) : count;
    for (uint32_t seed = first; seed < first + count; seed++) {
        char name[32];
        snprintf(name, sizeof name, "program %u", seed);
        mapped c = on_matrices(name, random_program, 2);
        c.user = &seed;
        c.looser = 1e4; /* relative to the largest derivative: terms of others may cancel */
        vmapped(&c, 1);
    }
}

/* ---- random draws ---- */

Test(vmap, draws)
{
    mb_context *ctx = open_on("cpu");
    mb_key key = mb_key_of(3);
    double *one = values(mb_uniform(ctx, key, MB_FLOAT64, MB_SHAPE(2, 2)));
    double *each = values(mb_uniform(ctx, key, MB_FLOAT64, MB_SHAPE(3, 2, 2)));
    for (int same = 0; same < 2; same++) {
        mb_tensor drawn, sums, carry = mb_zeros(ctx, MB_FLOAT64, MB_SHAPE0);
        mb_vmap v = mb_vmap_begin_with(ctx, 3, (mb_vmap_options){.same_draws = same});
        mb_vmap_out(v, mb_uniform(ctx, key, MB_FLOAT64, MB_SHAPE(2, 2)), 0, &drawn);
        mb_scan s = mb_scan_begin(ctx, 5); /* a draw for each step of each example */
        mb_scan_carry(s, &carry);
        carry = mb_add(carry, mb_uniform(ctx, key, MB_FLOAT64, MB_SHAPE0));
        mb_scan_end(s);
        mb_vmap_out(v, carry, 0, &sums);
        mb_vmap_end(v);
        double *got = values(drawn), *sum = values(sums),
               *steps = values(mb_uniform(ctx, key, MB_FLOAT64, same ? MB_SHAPE(1, 5) : MB_SHAPE(3, 5)));
        for (int i = 0; i < 12; i++)
            expect(got[i] == (same ? one[i % 4] : each[i]), "same %d: draw %d", same, i);
        for (int i = 0; i < 3; i++) {
            double want = 0;
            for (int t = 0; t < 5; t++)
                want += steps[(same ? 0 : 5 * i) + t];
            expect(near(sum[i], want, 1e-15, 0), "same %d: sum %d is %g, not %g", same, i, sum[i], want);
        }
    }
    close_all();
}

/* ---- sizes ---- */

Test(vmap, of_none_and_of_one)
{
    for (int b = 0; b < 2; b++)
        for (int n = 0; n < 2; n++) {
            mb_context *ctx = open_on(backend_names[b]);
            mb_tensor x = mb_ones(ctx, MB_FLOAT64, MB_SHAPE(2, n)), ys, g;
            mb_vmap v = mb_vmap_begin(ctx, n);
            mb_tensor xi = mb_vmap_in(v, x, -1), i = mb_argmax(xi, 0);
            mb_vmap_out(v, mb_mul(mb_take(mb_exp(xi), i, 0), 2.0), 0, &ys);
            mb_vmap_end(v);
            mb_grad(ys, &x, 1, &g);
            expect(same_shape(mb_shape_of(ys), MB_SHAPE(n)), "%s", shape_text(mb_shape_of(ys)));
            double *d = values(g);
            expect(n == 0 || (near(d[0], 2 * exp(1), 1e-15, 0) && d[1] == 0), "gradient");
            close_all();
        }
}

/* A step that was recorded before takes nothing from the heap, and finds its plan. */
Test(vmap, replayed_without_allocation)
{
    mb_context *ctx = open_on("cpu");
    mb_tensor x = mb_ones(ctx, MB_FLOAT32, MB_SHAPE(4, 3, 3));
    mb_eval(&x, 1);
    mb_stats before = {0}, after = {0};
    for (int i = 0; i < 4; i++) {
        before = mb_get_stats(ctx);
        mb_scope scope = mb_scope_begin(ctx);
        mb_tensor all, g;
        mb_vmap v = mb_vmap_begin(ctx, 4);
        mb_tensor a = mb_vmap_in(v, x, 0), first = a;
        mb_scan s = mb_scan_begin(ctx, 3);
        mb_scan_carry(s, &a);
        a = mb_sin(mb_mul(a, mb_scan_slice(s, first)));
        mb_scan_end(s);
        mb_grad(mb_sum(a, MB_ALL), &first, 1, &g);
        mb_vmap_out(v, mb_concat(((mb_tensor[]){g, a}), 2, 0), 0, &all);
        mb_vmap_end(v);
        mb_grad(mb_square(all), &x, 1, &g);
        mb_eval(&g, 1);
        mb_scope_end(scope);
        after = mb_get_stats(ctx);
    }
    expect(after.allocations == before.allocations && after.plans == before.plans, "%d allocations, %d plans",
           (int)(after.allocations - before.allocations), (int)(after.plans - before.plans));
    close_all();
}

/* ---- mistakes ---- */

/* The context has an error with all these words, and this line's file; goes on without it. */
static void refused(mb_context *ctx, const char *what, const char *words, const char *more)
{
    expect(mb_error(ctx) != MB_OK && strstr(mb_message(ctx), words) && strstr(mb_message(ctx), more) &&
               strstr(mb_message(ctx), "vmap_test.c:"),
           "%s: %s", what, mb_message(ctx));
    mb_clear_error(ctx);
}

Test(vmap, arguments)
{
    mb_context *ctx = open_on("cpu"), *other = open_on("reference");
    mb_tensor x = mb_ones(ctx, MB_FLOAT64, MB_SHAPE(3, 2)), y, far = mb_ones(other, MB_FLOAT64, MB_SHAPE(3));
    mb_vmap_begin(ctx, -1);
    refused(ctx, "n", "vmap_begin", "-1 examples");
    mb_vmap v = mb_vmap_begin(ctx, 3);
    mb_vmap_in(v, x, 1);
    refused(ctx, "size", "vmap_in: got [3,2]", "wanted 3 along axis 1");
    mb_vmap_in(v, x, 2);
    refused(ctx, "axis", "vmap_in", "axis 2");
    mb_vmap_in(v, (mb_tensor){0}, 0);
    refused(ctx, "none", "vmap_in", "no tensor");
    mb_vmap_in(v, far, 0);
    refused(ctx, "another", "vmap_in", "another context");
    mb_vmap_out(v, x, 3, &y);
    refused(ctx, "axis of the result", "vmap_out", "axis 3");
    mb_vmap_out(v, x, 0, NULL);
    refused(ctx, "nowhere", "vmap_out", "nowhere");
    mb_vmap_out(v, mb_ones(ctx, MB_FLOAT64, MB_SHAPE(1, 1, 1, 1, 1, 1, 1, 1)), 0, &y);
    refused(ctx, "axes", "vmap_out", "8 is the most");
    mb_vmap_end(v);
    mb_vmap_end(v);
    refused(ctx, "twice", "vmap_end", "not open");
    mb_vmap_in(v, x, 0);
    refused(ctx, "after the end", "vmap_in", "not open");
    expect(mb_vmap_end(mb_vmap_begin(NULL, 2)) != MB_OK, "no context");
    v = mb_vmap_begin(ctx, 3);
    mb_tensor wide = mb_broadcast(mb_vmap_in(v, x, 0), MB_SHAPE(1, 1, 1, 1, 1, 1, 1, 2));
    mb_vmap_out(v, mb_sum(wide, MB_ALL), 0, &y);
    mb_vmap_end(v);
    refused(ctx, "an axis too many inside", "has 8 axes", "examples want one more");
    expect(!mb_valid(y), "poison");
    v = mb_vmap_begin(ctx, 2);
    mb_vmap_out(
        v,
        mb_vmap_in(v, mb_matmul(mb_unsqueeze(mb_vmap_in(v, x, 1), 1), mb_unsqueeze(mb_vmap_in(v, x, 1), 0)),
                   0),
        0, &y);
    refused(ctx, "not of this size", "vmap_in", "wanted 2");
    mb_vmap_end(v);
    v = mb_vmap_begin(ctx, 2);
    mb_tensor one = mb_vmap_in(v, x, 1);
    mb_vmap_out(v, mb_vmap_in(v, mb_slice(one, 0, 0, 2, 1), 0), 0, &y);
    mb_vmap_end(v);
    refused(ctx, "an operand of the inside", "vmap_end", "depends on the examples itself");
    expect(!mb_valid(y), "poison");
    close_all();
}

Test(vmap, of_the_inside)
{
    mb_context *ctx = open_on("cpu");
    mb_tensor x = mb_ones(ctx, MB_FLOAT64, MB_SHAPE(3, 2)), w = mb_variable(ctx, MB_FLOAT64, MB_SHAPE(2)), y;
    double kept[2];
    mb_vmap v = mb_vmap_begin(ctx, 3);
    mb_tensor xi = mb_vmap_in(v, x, 0), yi = mb_exp(xi), plain = mb_exp(x);
    mb_read(yi, kept, sizeof kept);
    refused(ctx, "read", "inside of a scan or vmap that has not ended", "");
    expect(mb_item(mb_sum(plain, MB_ALL)) > 16, "what does not depend on an example is a value");
    mb_assign(w, xi);
    refused(ctx, "assigned", "assign", "inside of the vmap begun at");
    mb_vmap_out(v, yi, 0, &y);
    mb_vmap_end(v);
    expect_ok(ctx);
    expect(!mb_valid(yi) && mb_valid(plain) && mb_valid(y), "handles");
    mb_exp(yi);
    refused(ctx, "used later", "inside of a vmap that has ended", "mb_vmap_out");
    mb_grad(y, &xi, 1, &yi);
    refused(ctx, "differentiated by", "inside of a vmap that has ended", "[2] float64");
    v = mb_vmap_begin(ctx, 3);
    yi = mb_exp(mb_vmap_in(v, x, 0));
    mb_watch(yi, kept, sizeof kept);
    mb_vmap_end(v);
    mb_item(mb_sum(x, MB_ALL));
    refused(ctx, "watched", "inside of a scan or vmap", "each example");
    expect(mb_item(mb_sum(y, MB_ALL)) > 16, "lost");
    close_all();
}

Test(vmap, crossed)
{
    mb_context *ctx = open_on("cpu");
    mb_tensor x = mb_ones(ctx, MB_FLOAT64, MB_SHAPE(3)), c = x, y;
    mb_vmap v = mb_vmap_begin(ctx, 3);
    mb_scan s = mb_scan_begin(ctx, 2);
    mb_vmap_in(v, x, 0);
    refused(ctx, "the outer one", "vmap_in", "the scan begun at");
    mb_vmap_end(v);
    refused(ctx, "a scan is open", "vmap_end", "the scan begun at");
    s = mb_scan_begin(ctx, 2);
    mb_scan_carry(s, &c);
    v = mb_vmap_begin(ctx, 3);
    mb_vmap_out(v, mb_vmap_in(v, c, 0), 0, &y);
    mb_scan_end(s);
    refused(ctx, "a vmap is open", "scan_end", "the vmap begun at");
    expect(!mb_valid(y) || mb_valid(x), "results");
    mb_scope scope = mb_scope_begin(ctx);
    v = mb_vmap_begin(ctx, 3);
    mb_scope_end(scope);
    refused(ctx, "a scope ends", "scope_end", "the vmap begun at");
    v = mb_vmap_begin(ctx, 3);
    scope = mb_scope_begin(ctx);
    mb_tensor u = mb_sub(mb_uniform(ctx, mb_key_of(1), MB_FLOAT64, MB_SHAPE0), mb_vmap_in(v, x, 0));
    mb_tensor e = mb_keep(mb_mul(mb_exp(u), 2.0)), zero = mb_keep(mb_mul(u, 0.0));
    mb_scope_end(scope);
    mb_checkpoint k = mb_checkpoint_begin(ctx);
    e = mb_add(mb_mul(e, 0.0), mb_exp(mb_add(zero, 1.0)));
    mb_vmap_out(v, e, 0, &y);
    mb_vmap_end(v);
    mb_checkpoint_end(k);
    refused(ctx, "a checkpoint from inside", "checkpoint_end", "vmap that has ended");
    k = mb_checkpoint_begin(ctx);
    v = mb_vmap_begin(ctx, 3);
    mb_checkpoint_end(k);
    refused(ctx, "a checkpoint around", "checkpoint_end", "the vmap begun at");
    mb_vmap_end(v);
    expect(near(mb_item(mb_sum(y, MB_ALL)), 3 * exp(1), 1e-15, 0), "lost");
    close_all();
}

/* What a scan slices or begins with may not depend on the step. */
Test(vmap, scans_begin_outside)
{
    mb_context *ctx = open_on("cpu");
    for (int way = 0; way < 2; way++) {
        mb_tensor c = mb_ones(ctx, MB_FLOAT64, MB_SHAPE(2)), d;
        mb_scan s = mb_scan_begin(ctx, 2);
        mb_scan_carry(s, &c);
        d = mb_exp(c);
        if (way)
            mb_scan_carry(s, &d);
        else
            c = mb_mul(c, mb_scan_slice(s, d));
        mb_scan_end(s);
        refused(ctx, "inside", "depends on the step itself", way ? "carried" : "sliced");
    }
    close_all();
}

/* Each allocation fails once: an error, poison, and no byte lost. */
Test(vmap, no_memory)
{
    bool done = false;
    for (uint64_t at = 1; !done; at++) {
        counter c = {0};
        mb_allocator a = counting_allocator(&c);
        mb_context *ctx = mb_open_with(&(mb_options){.backend = "reference", .allocator = &a});
        mb_tensor x = mb_ones(ctx, MB_FLOAT64, MB_SHAPE(3, 2)), w = x, all, ends;
        c.calls = 0;
        c.fail_at = at;
        mb_vmap v = mb_vmap_begin(ctx, 3);
        mb_tensor carry = mb_vmap_in(v, x, 0);
        mb_scan s = mb_scan_begin(ctx, 2);
        mb_scan_carry(s, &carry);
        carry = mb_add(carry, mb_scan_slice(s, mb_transpose(mb_slice(w, 0, 0, 2, 1))));
        mb_scan_end(s);
        mb_tensor parts[12];
        for (int i = 0; i < 12; i++)
            parts[i] = carry;
        mb_vmap_out(v, mb_concat(parts, 12, 0), 0, &all);
        mb_vmap_out(v, carry, 0, &ends);
        mb_status status = mb_vmap_end(v);
        done = c.calls < at;
        c.fail_at = 0;
        expect(done ? status == MB_OK : status == MB_NO_MEMORY, "at %d: %s", (int)at, mb_message(ctx));
        expect(mb_valid(ends) == done, "at %d: the result", (int)at);
        mb_close(ctx);
        expect(c.bytes == 0, "at %d: %d bytes are lost", (int)at, (int)c.bytes);
    }
}
