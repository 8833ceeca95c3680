/* SPDX-License-Identifier: MIT
 *
 * optimizer_test.c - optimisers against loops in double on the host; clipping, decay, schedules, frozen
 * parameters; plans and allocations of a repeated step; runs resumed from a file, bit for bit. */
#include <unistd.h>

#include "support.h"
#include "tensor/files/files.h"

/* Two parameters, w [3] that takes decay and b [2] that does not, on 3/2 |w|^2 + 1/2 |b|^2 + w.c: gradients 3
 * w + c and b. */
enum { W = 3, ALL = 5, STEPS = 8 };
static const double slope[W] = {0.3, -0.2, 0.7};

typedef struct toy {
    mb_context *mb;
    mb_params *p;
    mb_tensor w, b;
} toy;

static toy open_toy(const char *backend, mb_dtype dtype)
{
    toy t = {.mb = open_on(backend)};
    t.p = mb_params_new_with(t.mb, 7, dtype);
    t.w = mb_param(t.p, "w", MB_SHAPE(W), mb_init_normal(1));
    t.b = mb_param_no_decay(t.p, "b", MB_SHAPE(ALL - W), mb_init_uniform(1));
    return t;
}

static mb_tensor toy_loss(const toy *t)
{
    mb_tensor c = from_doubles(t->mb, mb_dtype_of(t->w), MB_SHAPE(W), slope);
    mb_tensor l = mb_add(mb_mul(mb_dot(t->w, t->w), 1.5), mb_dot(t->w, c));
    return mb_add(l, mb_mul(mb_dot(t->b, t->b), 0.5));
}

static void toy_values(const toy *t, double out[ALL])
{
    memcpy(out, values(t->w), W * sizeof *out);
    memcpy(out + W, values(t->b), (ALL - W) * sizeof *out);
}

/* What the host does. */
typedef struct setting {
    const char *name;
    enum { SGD, ADAM, ADAMW } kind;
    double lr, momentum, decay, beta1, beta2, eps, clip_norm, clip_value;
    bool nesterov, skip, scaled;
    mb_schedule schedule;
} setting;

static const setting settings[] = {
    {"sgd", SGD, .lr = 0.1},
    {"sgd, decay", SGD, .lr = 0.1, .decay = 0.2},
    {"momentum", SGD, .lr = 0.05, .momentum = 0.9},
    {"nesterov, decay, cosine", SGD, .lr = 0.05, .momentum = 0.8, .nesterov = true, .decay = 0.1,
     .schedule = {.kind = MB_SCHEDULE_COSINE, .warmup = 2, .total = STEPS}},
    {"adam", ADAM, .lr = 0.05},
    {"adam, other betas", ADAM, .lr = 0.05, .beta1 = 0.5, .beta2 = 0.7, .eps = 1e-2},
    {"adam, warm-up, steps", ADAM, .lr = 0.05,
     .schedule = {.kind = MB_SCHEDULE_STEPS, .warmup = 3, .every = 2, .factor = 0.5}},
    {"adamw", ADAMW, .lr = 0.05, .decay = 0.1},
    {"adamw, clipped norm", ADAMW, .lr = 0.05, .decay = 0.1, .clip_norm = 0.5},
    {"sgd, clipped norm", SGD, .lr = 0.1, .clip_norm = 1.5},
    {"sgd, clipped values", SGD, .lr = 0.1, .clip_value = 0.4},
    {"nesterov, skip", SGD, .lr = 0.05, .momentum = 0.8, .nesterov = true, .skip = true},
    {"adamw, skip, clipped norm", ADAMW, .lr = 0.05, .decay = 0.1, .clip_norm = 0.5, .skip = true,
     .schedule = {.kind = MB_SCHEDULE_STEPS, .warmup = 3, .every = 2, .factor = 0.5}},
    {"sgd, both clips", SGD, .lr = 0.1, .clip_norm = 1, .clip_value = 0.4, .decay = 0.3},
};

static mb_optimizer *make(mb_params *p, const setting *s)
{
    if (s->kind == SGD)
        return mb_sgd(p, (mb_sgd_options){s->lr, s->momentum, s->nesterov, s->decay, s->clip_norm,
                                          s->clip_value, s->schedule, s->skip, s->scaled});
    if (s->kind == ADAM)
        return mb_adam(p, (mb_adam_options){s->lr, s->beta1, s->beta2, s->eps, s->clip_norm, s->clip_value,
                                            s->schedule, s->skip, s->scaled});
    return mb_adamw(p, (mb_adamw_options){s->lr, s->decay, s->beta1, s->beta2, s->eps, s->clip_norm,
                                          s->clip_value, s->schedule, s->skip, s->scaled});
}

/* Step number t = 1, 2, ... on the host. Returns the norm before clipping. */
static double host_step(const setting *s, int t, double x[ALL], double m[ALL], double v[ALL])
{
    double g[ALL], norm = 0, lr = s->lr * mb_schedule_factor(s->schedule, t - 1);
    for (int i = 0; i < ALL; i++) {
        g[i] = i < W ? 3 * x[i] + slope[i] : x[i];
        norm += g[i] * g[i];
    }
    norm = sqrt(norm);
    for (int i = 0; i < ALL; i++) {
        bool decays = i < W;
        if (s->clip_norm > 0 && norm > s->clip_norm)
            g[i] *= s->clip_norm / norm;
        if (s->clip_value > 0)
            g[i] = fmin(fmax(g[i], -s->clip_value), s->clip_value);
        if (s->kind == SGD) {
            g[i] += decays ? s->decay * x[i] : 0;
            m[i] = s->momentum * m[i] + g[i];
            x[i] -= lr * (s->nesterov ? g[i] + s->momentum * m[i] : m[i]);
            continue;
        }
        double beta1 = s->beta1 ? s->beta1 : 0.9, beta2 = s->beta2 ? s->beta2 : 0.999,
               eps = s->eps ? s->eps : 1e-8;
        if (s->kind == ADAMW && decays)
            x[i] *= 1 - lr * s->decay;
        m[i] = beta1 * m[i] + (1 - beta1) * g[i];
        v[i] = beta2 * v[i] + (1 - beta2) * g[i] * g[i];
        x[i] -= lr * (m[i] / (1 - pow(beta1, t))) / (sqrt(v[i] / (1 - pow(beta2, t))) + eps);
    }
    return norm;
}

static void against_host(const char *backend, mb_dtype dtype)
{
    double tolerance = dtype == MB_FLOAT64 ? 1e-12 : 3e-5;
    for (size_t k = 0; k < sizeof settings / sizeof *settings; k++) {
        const setting *s = &settings[k];
        toy t = open_toy(backend, dtype);
        mb_optimizer *opt = make(t.p, s);
        double x[ALL], m[ALL] = {0}, v[ALL] = {0}, got[ALL];
        toy_values(&t, x);
        for (int step = 1; step <= STEPS; step++) {
            double lr = s->lr * mb_schedule_factor(s->schedule, step - 1);
            expect(near(mb_optimizer_lr(opt), lr, 1e-14, 0), "%s: lr %g", s->name, mb_optimizer_lr(opt));
            mb_scope scope = mb_scope_begin(t.mb);
            mb_tensor norm;
            expect(mb_step_norm(opt, toy_loss(&t), &norm) == MB_OK, "%s: %s", s->name, mb_message(t.mb));
            double want = host_step(s, step, x, m, v);
            expect(near(mb_item(norm), want, tolerance, tolerance), "%s: norm %g, not %g", s->name,
                   mb_item(norm), want);
            mb_scope_end(scope);
            toy_values(&t, got);
            for (int i = 0; i < ALL; i++)
                expect(near(got[i], x[i], tolerance, tolerance), "%s on %s: step %d, %d: %.15g, not %.15g",
                       s->name, backend, step, i, got[i], x[i]);
        }
        expect(mb_optimizer_steps(opt) == STEPS, "%s: %lld steps", s->name,
               (long long)mb_optimizer_steps(opt));
        mb_optimizer_free(opt);
        mb_params_free(t.p);
        close_all();
    }
}

Test(optimizer, against_host_reference)
{
    against_host("reference", MB_FLOAT64);
}

Test(optimizer, against_host_cpu)
{
    against_host("cpu", MB_FLOAT64);
    against_host("cpu", MB_FLOAT32);
}

/* ---- state ---- */

Test(optimizer, state_names)
{
    toy t = open_toy("cpu", MB_FLOAT64);
    mb_optimizer *sgd = make(t.p, &settings[0]), *momentum = make(t.p, &settings[2]),
                 *adam = make(t.p, &settings[4]);
    expect(mb_optimizer_state_count(sgd) == 0 && !mb_optimizer_state_name(sgd, 0), "sgd has none");
    static const char *const names[] = {"optimizer.m.w", "optimizer.v.w", "optimizer.m.b", "optimizer.v.b"};
    expect(mb_optimizer_state_count(momentum) == 2 && mb_optimizer_state_count(adam) == 4, "2 and 4");
    expect(strcmp(mb_optimizer_state_name(momentum, 1), "optimizer.momentum.b") == 0, "momentum");
    for (int i = 0; i < 4; i++) {
        expect(strcmp(mb_optimizer_state_name(adam, i), names[i]) == 0, "%s",
               mb_optimizer_state_name(adam, i));
        expect(mb_count(mb_optimizer_state_tensor(adam, i)) == (i < 2 ? 3 : 2), "shape");
        expect(values(mb_optimizer_state_tensor(adam, i))[0] == 0, "starts at zero");
    }
    expect(!mb_optimizer_state_name(adam, 4) && !mb_optimizer_state_tensor(adam, -1).ctx, "out of range");
    mb_optimizer_free(sgd);
    mb_optimizer_free(momentum);
    mb_optimizer_free(adam);
    mb_optimizer_free(NULL);
    mb_params_free(t.p);
    close_all();
}

/* A frozen parameter and its state stay as they are; its gradient counts in no norm. */
Test(optimizer, frozen_parameters)
{
    toy t = open_toy("cpu", MB_FLOAT64);
    mb_optimizer *opt = make(t.p, &settings[4]);
    double before[ALL], after[ALL];
    toy_values(&t, before);
    mb_params_freeze(t.p, "w");
    mb_tensor norm;
    mb_scope s = mb_scope_begin(t.mb);
    mb_step_norm(opt, toy_loss(&t), &norm);
    expect(near(mb_item(norm), hypot(before[3], before[4]), 1e-14, 0), "norm of b's gradient alone");
    mb_scope_end(s);
    toy_values(&t, after);
    expect(same_bits(before, after, W) && after[3] != before[3] && after[4] != before[4], "b moves, w stays");
    expect(values(mb_optimizer_state_tensor(opt, 0))[0] == 0, "w's m stays 0");
    mb_params_unfreeze(t.p, "w");
    s = mb_scope_begin(t.mb);
    mb_step(opt, toy_loss(&t));
    mb_scope_end(s);
    toy_values(&t, after);
    expect(after[0] != before[0], "unfrozen again");
    mb_params_freeze(t.p, "");
    expect(mb_step(opt, toy_loss(&t)) == MB_INVALID, "nothing to train");
    mb_clear_error(t.mb);
    mb_optimizer_free(opt);
    mb_params_free(t.p);
    close_all();
}

/* Gradients of the caller's, accumulated over two halves, make the step of the whole. */
Test(optimizer, apply_gradients)
{
    toy t = open_toy("cpu", MB_FLOAT64);
    mb_optimizer *opt = make(t.p, &settings[8]);
    double x[ALL], m[ALL] = {0}, v[ALL] = {0}, got[ALL];
    toy_values(&t, x);
    mb_scope s = mb_scope_begin(t.mb);
    mb_tensor xs[2], a[2], b[2];
    mb_params_list(t.p, xs, 2);
    mb_tensor loss = toy_loss(&t);
    mb_grad(mb_mul(loss, 0.25), xs, 2, a);
    mb_grad(mb_mul(loss, 0.75), xs, 2, b);
    for (int i = 0; i < 2; i++)
        a[i] = mb_add(a[i], b[i]);
    expect(mb_apply_gradients(opt, a, 2) == MB_OK, "%s", mb_message(t.mb));
    mb_scope_end(s);
    host_step(&settings[8], 1, x, m, v);
    toy_values(&t, got);
    for (int i = 0; i < ALL; i++)
        expect(near(got[i], x[i], 1e-12, 1e-12), "%d: %g, not %g", i, got[i], x[i]);

    expect(mb_apply_gradients(opt, xs, 1) == MB_INVALID, "1 gradient for 2 parameters");
    mb_clear_error(t.mb);
    mb_tensor swapped[2] = {xs[1], xs[0]};
    expect(mb_apply_gradients(opt, swapped, 2) == MB_INVALID, "another shape");
    mb_clear_error(t.mb);
    expect(mb_optimizer_steps(opt) == 1, "a refused step is none");
    mb_optimizer_free(opt);
    mb_params_free(t.p);
    close_all();
}

Test(optimizer, mistakes)
{
    toy t = open_toy("cpu", MB_FLOAT64);
    expect(!mb_sgd(t.p, (mb_sgd_options){0}) && mb_error(t.mb) == MB_INVALID, "no rate");
    mb_clear_error(t.mb);
    expect(!mb_adam(t.p, (mb_adam_options){.lr = -1}), "a negative rate");
    mb_clear_error(t.mb);
    expect(!mb_adamw(NULL, (mb_adamw_options){.lr = 1}) && mb_error(t.mb) == MB_OK, "NULL is passed on");
    mb_optimizer *opt = make(t.p, &settings[4]);
    expect(mb_step(opt, (mb_tensor){0}) == MB_INVALID, "no loss");
    mb_clear_error(t.mb);
    expect(mb_step(NULL, toy_loss(&t)) == MB_NO_MEMORY, "no optimiser");
    mb_param(t.p, "late", MB_SHAPE(1), mb_init_ones());
    expect(mb_step(opt, toy_loss(&t)) == MB_INVALID, "a parameter made later");
    mb_clear_error(t.mb);
    mb_optimizer_free(opt);
    mb_params_free(t.p);
    close_all();
}

/* ---- a step that repeats ---- */

/* With 40 parameters: no plan and no allocation after the first steps, though rate, step number and data
 * change. Fewer with TESTS_SLOW: each is of another size, and so has kernels of its own to compile. */
Test(optimizer, repeated_step)
{
    const int count = is_slow() ? 4 : 40;
    for (size_t k = 0; k < sizeof settings / sizeof *settings; k++) {
        enum { PARAMETERS = 40 };
        mb_context *mb = open_on("cpu");
        mb_params *p = mb_params_new(mb, 3);
        mb_tensor ws[PARAMETERS];
        for (int i = 0; i < count; i++) {
            char name[16];
            snprintf(name, sizeof name, "w%d", i);
            ws[i] = mb_param(p, name, MB_SHAPE(4 + i), mb_init_normal(1));
        }
        mb_optimizer *opt = make(p, &settings[k]);
        mb_stats before = {0};
        for (int step = 0; step < 12; step++) {
            mb_scope s = mb_scope_begin(mb);
            mb_tensor loss = mb_scalar(mb, MB_FLOAT32, step), norm;
            for (int i = 0; i < count; i++)
                loss =
                    mb_add(loss, mb_sum(mb_square(mb_sub(ws[i], mb_scalar(mb, MB_FLOAT32, step))), MB_ALL));
            mb_step_norm(opt, loss, &norm);
            float read;
            mb_watch(norm, &read, sizeof read);
            mb_scope_end(s);
            mb_stats now = mb_get_stats(mb);
            if (step >= 4) {
                expect(now.plans == before.plans, "%s, step %d made a plan", settings[k].name, step);
                expect(now.allocations == before.allocations, "%s, step %d made %llu allocations",
                       settings[k].name, step, (unsigned long long)(now.allocations - before.allocations));
                expect(now.nodes == before.nodes, "%s, step %d: the tape grows", settings[k].name, step);
            }
            before = now;
        }
        mb_optimizer_free(opt);
        mb_params_free(p);
        close_all();
    }
}

/* ---- resuming ---- */

static void some_steps(const toy *t, mb_optimizer *opt, int first, int last)
{
    for (int i = first; i < last; i++) {
        mb_scope s = mb_scope_begin(t->mb);
        mb_tensor noise =
            mb_normal(t->mb, mb_key_fold(mb_key_of(5), (uint64_t)i), mb_dtype_of(t->w), MB_SHAPE(W));
        mb_step(opt, mb_add(toy_loss(t), mb_dot(noise, t->w)));
        mb_scope_end(s);
    }
}

static void path_for(char path[256], const char *what)
{
    const char *folder = getenv("TMPDIR");
    snprintf(path, 256, "%s/mb-optim-%ld-%s", folder ? folder : "/tmp", (long)getpid(), what);
}

/* Metadata is in the file as it was given, and changes nothing for a load; metadata that no file can hold is
 * an error, and leaves the file. */
Test(optimizer, saved_with_metadata)
{
    char path[256];
    path_for(path, "metadata");
    for (size_t k = 0; k < sizeof settings / sizeof *settings; k++) {
        double saved[ALL], loaded[ALL];
        toy t = open_toy("cpu", MB_FLOAT32);
        mb_optimizer *opt = make(t.p, &settings[k]);
        some_steps(&t, opt, 0, 3);
        toy_values(&t, saved);
        const char *const metadata[] = {"epoch", "2", "rows", "1 0.5\n2 \"nan\"", NULL};
        expect(mb_optimizer_save_with(opt, path, metadata) == MB_OK, "%s", mb_message(t.mb));
        some_steps(&t, opt, 3, 5);
        expect(mb_optimizer_load(opt, path) == MB_OK && mb_optimizer_steps(opt) == 3, "%s", mb_message(t.mb));
        toy_values(&t, loaded);
        expect(same_bits(saved, loaded, ALL), "%s: other values", settings[k].name);
        mb_safetensors *file = mb_safetensors_open(t.mb, path);
        for (int i = 0; metadata[i]; i += 2)
            expect(strcmp(mb_safetensors_metadata(file, metadata[i]), metadata[i + 1]) == 0, "%s: %s",
                   metadata[i], mb_safetensors_metadata(file, metadata[i]));
        mb_safetensors_close(file);
        const char *const wrong[] = {"epoch", "\xff", NULL};
        expect(mb_optimizer_save_with(opt, path, wrong) == MB_INVALID, "no UTF-8: %s", mb_message(t.mb));
        mb_clear_error(t.mb);
        expect(mb_optimizer_load(opt, path) == MB_OK, "%s", mb_message(t.mb));
        mb_optimizer_free(opt);
        mb_params_free(t.p);
    }
    remove(path);
    close_all();
}

Test(optimizer, resume)
{
    char path[256];
    path_for(path, "resume");
    for (size_t k = 0; k < sizeof settings / sizeof *settings; k++) {
        double whole[ALL], resumed[ALL];
        toy t = open_toy("cpu", MB_FLOAT32);
        mb_optimizer *opt = make(t.p, &settings[k]);
        some_steps(&t, opt, 0, 5);
        expect(mb_optimizer_save(opt, path) == MB_OK, "%s", mb_message(t.mb));
        some_steps(&t, opt, 5, 12);
        toy_values(&t, whole);
        mb_optimizer_free(opt);
        mb_params_free(t.p);

        toy u = open_toy("cpu", MB_FLOAT32); /* in another context, as another process would */
        opt = make(u.p, &settings[k]);
        some_steps(&u, opt, 100, 102); /* to be overwritten */
        expect(mb_optimizer_load(opt, path) == MB_OK, "%s", mb_message(u.mb));
        expect(mb_optimizer_steps(opt) == 5, "%s: %lld steps", settings[k].name,
               (long long)mb_optimizer_steps(opt));
        some_steps(&u, opt, 5, 12);
        toy_values(&u, resumed);
        expect(same_bits(whole, resumed, ALL), "%s: a resumed run differs", settings[k].name);

        /* The file of another optimiser is refused and changes nothing. */
        mb_optimizer *other = make(u.p, &settings[settings[k].kind == SGD ? 4 : 2]);
        expect(mb_optimizer_load(other, path) != MB_OK, "%s: a file of another optimiser", settings[k].name);
        mb_clear_error(u.mb);
        toy_values(&u, whole);
        expect(same_bits(whole, resumed, ALL) && mb_optimizer_steps(other) == 0, "%s: changed by it",
               settings[k].name);
        mb_optimizer_free(opt);
        mb_optimizer_free(other);
        mb_params_free(u.p);
        close_all();
    }
    unlink(path);
}

/* ---- gradients that are not finite ---- */

/* Steps whose gradient is NaN or infinite, among others, leave what a run without them
 * has: bit for bit, but for Adam's t, computed in float32 there and in double here. */
static void expect_skipped(const char *backend, const setting *s)
{
    static const double factor[] = {1, NAN, 1, INFINITY, -INFINITY, 1, 1, NAN, 1};
    double got[2][ALL];
    setting without = *s;
    without.skip = false;
    for (int k = 0; k < 2; k++) {
        toy t = open_toy(backend, MB_FLOAT32);
        mb_optimizer *opt = make(t.p, k ? &without : s);
        mb_stats before = {0};
        for (int i = 0; i < 9; i++) {
            if (k && factor[i] != 1)
                continue;
            mb_scope scope = mb_scope_begin(t.mb);
            mb_tensor norm, loss = mb_mul(toy_loss(&t), mb_scalar(t.mb, MB_FLOAT32, factor[i]));
            float read = 0;
            mb_step_norm(opt, loss, &norm);
            mb_watch(norm, &read, sizeof read);
            mb_scope_end(scope);
            expect(!isfinite(read) == (factor[i] != 1), "step %d: a norm of %g", i, read);
            mb_stats now = mb_get_stats(t.mb);
            expect(k || i < 3 || now.plans == before.plans, "%s: a plan in step %d", s->name, i);
            before = now;
        }
        expect(mb_optimizer_skipped(opt) == (k ? 0 : 4), "%lld skipped",
               (long long)mb_optimizer_skipped(opt));
        expect(mb_optimizer_steps(opt) == (k ? 5 : 9), "%lld steps", (long long)mb_optimizer_steps(opt));
        toy_values(&t, got[k]);
        mb_optimizer_free(opt);
        mb_params_free(t.p);
        close_all();
    }
    for (int i = 0; i < ALL; i++)
        expect(s->kind == SGD ? got[0][i] == got[1][i] : fabs(got[0][i] - got[1][i]) < 1e-5, "%s: %g, %g",
               s->name, got[0][i], got[1][i]);
}

/* A loss whose gradient overflows float16 from a factor of 2^14 on: two steps are skipped, and halve it; then
 * the gradients are exact. */
Test(optimizer, scaled_losses)
{
    for (int b = 0; b < 2; b++, close_all()) {
        mb_context *mb = open_on(backend_names[b]);
        if (!has_dtype(mb, MB_FLOAT16))
            continue;
        mb_params *p = mb_params_new(mb, 1);
        mb_tensor w = mb_param(p, "w", MB_SHAPE(3), mb_init_ones());
        mb_optimizer *opt = mb_sgd(p, (mb_sgd_options){.lr = 1, .loss_scale = true});
        double scale[] = {65536, 32768, 16384, 16384};
        for (int i = 0; i < 4; i++) {
            expect(mb_optimizer_loss_scale(opt) == scale[i], "step %d: %g", i, mb_optimizer_loss_scale(opt));
            mb_scope scope = mb_scope_begin(mb);
            mb_tensor x = mb_from(mb, MB_FLOAT32, MB_SHAPE(3), ((float[]){1, 0x1p-24f, 1}));
            mb_tensor y = mb_mul(mb_cast(w, MB_FLOAT16), mb_cast(x, MB_FLOAT16));
            mb_step(opt, mb_mul(mb_sum(mb_cast(y, MB_FLOAT32), MB_ALL), 3));
            mb_scope_end(scope);
        }
        float got[3];
        mb_read(w, got, sizeof got);
        expect(got[0] == -5 && got[1] == 1 - 6 * 0x1p-24F && got[2] == -5, "%.9g %.9g %.9g", got[0], got[1],
               got[2]);
        expect(mb_optimizer_skipped(opt) == 2 && mb_optimizer_steps(opt) == 4, "skipped");
        mb_optimizer_free(opt);
        mb_params_free(p);
    }
}

Test(optimizer, gradients_that_are_not_finite)
{
    const setting each[] = {
        {"sgd", SGD, .lr = 0.1, .skip = true},
        {"momentum", SGD, .lr = 0.05, .momentum = 0.9, .clip_norm = 1, .skip = true},
        {"adamw", ADAMW, .lr = 0.05, .decay = 0.1, .clip_value = 0.4, .skip = true},
    };
    for (int b = 0; b < 2; b++)
        for (int k = 0; k < 3; k++)
            expect_skipped(backend_names[b], &each[k]);
}

/* ---- averages ---- */

Test(optimizer, averages)
{
    for (int b = 0; b < 2; b++) {
        toy t = open_toy(backend_names[b], MB_FLOAT64);
        mb_optimizer *opt = make(t.p, &settings[2]);
        mb_average *average = mb_average_new(t.p, 0.75);
        double host[ALL], now[ALL];
        mb_stats before = {0};
        toy_values(&t, host);
        for (int step = 0; step < STEPS; step++) {
            mb_scope s = mb_scope_begin(t.mb);
            mb_step(opt, toy_loss(&t));
            mb_average_update(average);
            mb_scope_end(s);
            mb_stats after = mb_get_stats(t.mb);
            expect(step < 2 || after.plans == before.plans, "step %d made a plan", step);
            toy_values(&t, now);
            before = mb_get_stats(t.mb);
            for (int i = 0; i < ALL; i++)
                host[i] += 0.25 * (now[i] - host[i]);
        }
        for (int turn = 0; turn < 3; turn++) { /* parameters and averages in turn */
            mb_tensor w = turn == 1 ? t.w : mb_average_tensor(average, 0),
                      other = turn == 1 ? mb_average_tensor(average, 0) : t.w;
            double *a = values(w), *x = values(other);
            for (int i = 0; i < W; i++)
                expect(fabs(a[i] - host[i]) < 1e-12 && x[i] == now[i], "turn %d: %g, wanted %g; %g, %g", turn,
                       a[i], host[i], x[i], now[i]);
            expect(mb_average_swap(average) == MB_OK, "%s", mb_message(t.mb));
        }
        expect(!mb_average_new(t.p, 1) && mb_error(t.mb) == MB_INVALID, "a decay of 1");
        mb_clear_error(t.mb);
        expect(!mb_average_tensor(average, 2).ctx && mb_average_update(NULL) == MB_NO_MEMORY, "no parameter");
        mb_average_free(average);
        mb_optimizer_free(opt);
        mb_params_free(t.p);
        close_all();
    }
}

/* ---- losses of old values ---- */

static void note(void *user, const char *line)
{
    snprintf(user, 512, "%s", line);
}

/* A loss recorded before a step is of the values before it: a second step by it would be one of zeros. */
Test(optimizer, a_loss_of_old_values)
{
    char told[512] = "";
    for (int k = 0; k < 2; k++) {
        mb_context *mb =
            mb_open_with(&(mb_options){.backend = backend_names[k], .log = note, .log_user = told});
        mb_params *p = mb_params_new_with(mb, 1, MB_FLOAT64);
        mb_tensor w = mb_param(p, "w", MB_SHAPE(1), mb_init_ones()),
                  unused = mb_param(p, "b", MB_SHAPE(1), mb_init_ones());
        mb_optimizer *opt = mb_adam(p, (mb_adam_options){.lr = 0.1});
        mb_scope s = mb_scope_begin(mb);
        mb_tensor first = mb_square(w), second = mb_square(mb_sub(w, 5.0)), g;
        mb_grad(first, &unused, 1, &g); /* nothing to do with a step, and told all the same */
        expect(strstr(told, "optimizer_test.c:") && strstr(told, "none of the 1 tensors"), "told \"%s\"",
               told);
        told[0] = 0;
        expect(mb_step(opt, first) == MB_OK && !told[0], "%s, told \"%s\"", mb_message(mb), told);
        expect(mb_step(opt, second) == MB_INVALID && strstr(mb_message(mb), "optimizer_test.c:") &&
                   strstr(mb_message(mb), "depends on none of the 2 trainable parameters"),
               "%s", mb_message(mb));
        mb_clear_error(mb);
        expect(mb_optimizer_steps(opt) == 1, "%lld steps", (long long)mb_optimizer_steps(opt));
        mb_grad(second, &w, 1, &g);
        expect(strstr(told, "[1] float64") && strstr(told, "mb_step"), "told \"%s\"", told);
        told[0] = 0;
        mb_tensor x = mb_ones(mb, MB_FLOAT64, MB_SHAPE(1)), flat = mb_mul(x, 2.0);
        mb_grad(flat, &x, 1, &g);
        mb_grad(g, &x, 1, &g); /* the second derivative of what is linear: zeros, rightly */
        expect(mb_item(g) == 0 && !told[0], "told \"%s\"", told);
        expect(mb_step(opt, mb_square(mb_sub(w, 5.0))) == MB_OK, "recorded anew: %s", mb_message(mb));
        mb_scope_end(s);
        expect(near(mb_item(w), 1, 0.05, 0) && mb_item(unused) == 1, "w %g", mb_item(w));
        mb_optimizer_free(opt);
        mb_params_free(p);
        expect(mb_close(mb) == MB_OK, "closed");
    }
}

/* A mistake after mb_step in the step's scope costs that step, whole: it is not counted either. */
Test(optimizer, a_step_that_an_error_undoes)
{
    for (size_t k = 0; k < sizeof settings / sizeof *settings; k++) {
        double before[ALL], after[ALL], twin[ALL];
        toy t = open_toy("cpu", MB_FLOAT32);
        mb_optimizer *opt = make(t.p, &settings[k]);
        for (int i = 0; i < 3; i++) { /* the first time, initial values are not stored yet */
            mb_scope s = mb_scope_begin(t.mb);
            mb_tensor loss = toy_loss(&t);
            mb_step(opt, loss);
            expect(mb_optimizer_steps(opt) == 1, "it counts while it may still happen");
            mb_fail(t.mb, MB_INVALID, "a mistake");
            mb_scope_end(s);
            mb_clear_error(t.mb);
            expect(mb_optimizer_steps(opt) == 0, "%s: %lld steps", settings[k].name,
                   (long long)mb_optimizer_steps(opt));
            toy_values(&t, i ? after : before);
            expect(!i || same_bits(before, after, ALL), "%s: changed", settings[k].name);
        }
        some_steps(&t, opt, 0, 3);
        toy_values(&t, after);
        toy u = open_toy("cpu", MB_FLOAT32); /* as if nothing had been */
        mb_optimizer *other = make(u.p, &settings[k]);
        toy_values(&u, twin);
        expect(same_bits(before, twin, ALL), "%s: initial values were lost", settings[k].name);
        some_steps(&u, other, 0, 3);
        toy_values(&u, twin);
        expect(same_bits(after, twin, ALL), "%s: other steps than without the mistakes", settings[k].name);
        mb_scope s = mb_scope_begin(u.mb); /* freed before its step is undone */
        mb_step(other, toy_loss(&u));
        mb_optimizer_free(other);
        mb_fail(u.mb, MB_INVALID, "a mistake");
        mb_scope_end(s);
        mb_clear_error(u.mb);
        mb_optimizer_free(opt);
        mb_params_free(t.p);
        mb_params_free(u.p);
        close_all();
    }
}

static mb_status twice(void *user, mb_context *ctx, mb_tensor *gs, int n)
{
    ++*(int *)user;
    for (int i = 0; i < n; i++)
        gs[i] = mb_mul(gs[i], 2.0);
    return mb_error(ctx);
}

static mb_status refuses(void *user, mb_context *ctx, mb_tensor *gs, int n)
{
    (void)user, (void)ctx, (void)gs, (void)n;
    return MB_IO;
}

/* Gradients that go through a function are as good as those of another loss, for the norm and clipping too.
 */
Test(optimizer, gradients_that_go_through_a_function)
{
    double got[ALL], wanted[ALL];
    int calls = 0;
    toy t = open_toy("cpu", MB_FLOAT64), u = open_toy("cpu", MB_FLOAT64);
    mb_optimizer *opt = mb_adamw(t.p, (mb_adamw_options){.lr = 0.1, .clip_norm = 1}),
                 *other = mb_adamw(u.p, (mb_adamw_options){.lr = 0.1, .clip_norm = 1});
    mb_optimizer_set_through(opt, twice, &calls);
    for (int i = 0; i < STEPS; i++) {
        mb_scope s = mb_scope_begin(t.mb), r = mb_scope_begin(u.mb);
        mb_tensor norm, twice_as_long;
        mb_step_norm(opt, toy_loss(&t), &norm);
        mb_step_norm(other, mb_mul(toy_loss(&u), 2.0), &twice_as_long);
        expect(fabs(mb_item(norm) - mb_item(twice_as_long)) < 1e-12, "step %d: another norm", i);
        mb_scope_end(r);
        mb_scope_end(s);
    }
    toy_values(&t, got);
    toy_values(&u, wanted);
    for (int i = 0; i < ALL; i++)
        expect(near(got[i], wanted[i], 1e-12, 0), "element %d: %.17g, %.17g", i, got[i], wanted[i]);
    expect(calls == STEPS, "%d calls", calls);
    mb_optimizer_set_through(opt, refuses, NULL);
    mb_scope s = mb_scope_begin(t.mb);
    expect(mb_step(opt, toy_loss(&t)) == MB_IO && strstr(mb_message(t.mb), "what gradients go through"), "%s",
           mb_message(t.mb));
    mb_scope_end(s);
    mb_clear_error(t.mb);
    expect(mb_optimizer_steps(opt) == STEPS, "no step");
    mb_optimizer_set_through(opt, NULL, NULL);
    expect(mb_optimizer_steps(opt) == STEPS, "%s", mb_message(t.mb));
    mb_optimizer_free(opt);
    mb_optimizer_free(other);
    mb_params_free(t.p);
    mb_params_free(u.p);
    close_all();
}

Test(optimizer, no_checkpoint_yet)
{
    double before[ALL], after[ALL];
    toy t = open_toy("cpu", MB_FLOAT32), u = open_toy("cpu", MB_FLOAT32);
    toy_values(&u, before);
    mb_optimizer *opt = make(t.p, &settings[0]);
    expect(mb_optimizer_load(opt, "/no/such/file") == MB_IO, "%s", mb_message(t.mb));
    mb_clear_error(t.mb);
    expect(mb_params_load(t.p, "/no/such/file") == MB_IO, "%s", mb_message(t.mb));
    mb_clear_error(t.mb);
    toy_values(&t, after);
    expect(same_bits(before, after, ALL), "initial values were lost");
    mb_optimizer_free(opt);
    mb_params_free(t.p);
    mb_params_free(u.p);
    close_all();
}
