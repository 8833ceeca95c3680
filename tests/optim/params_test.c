/* SPDX-License-Identifier: MIT
 *
 * params_test.c - parameter sets: names, prefixes, freezing, decay, files, initial values, mistakes. */
#include <unistd.h>

#include "support.h"

static char *temporary(const char *name)
{
    static char path[256];
    const char *folder = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/mb-optim-%ld-%s", folder ? folder : "/tmp", (long)getpid(), name);
    return path;
}

Test(params, names_and_order)
{
    mb_context *mb = open_on("cpu");
    mb_params *p = mb_params_new(mb, 1);
    expect(mb_params_context(p) == mb && mb_params_dtype(p) == MB_FLOAT32 && mb_params_count(p) == 0,
           "empty");
    mb_param(p, "a", MB_SHAPE(2, 3), mb_init_ones());
    mb_params_enter(p, "outer");
    mb_params_enter(p, "inner.0");
    mb_tensor w = mb_param(p, "w", MB_SHAPE(4), mb_init_zeros());
    mb_params_leave(p);
    mb_param_no_decay(p, "b", MB_SHAPE0, mb_init_zeros());
    mb_params_leave(p);
    mb_params_enter(p, ""); /* no prefix: names as they are */
    mb_param(p, "c", MB_SHAPE(1), mb_init_zeros());
    mb_params_leave(p);
    static const char *const names[] = {"a", "outer.inner.0.w", "outer.b", "c"};
    expect(mb_params_count(p) == 4 && mb_params_size(p) == 6 + 4 + 1 + 1, "count and size");
    for (int i = 0; i < 4; i++)
        expect(strcmp(mb_params_name(p, i), names[i]) == 0, "%s, not %s", mb_params_name(p, i), names[i]);
    expect(mb_params_get(p, "outer.inner.0.w").id == w.id, "get");
    expect(mb_params_decays(p, 1) && !mb_params_decays(p, 2), "plain parameters do not decay");
    expect(!mb_params_name(p, 4) && !mb_params_name(p, -1) && !mb_params_tensor(p, 4).ctx, "out of range");
    mb_params_free(p);
    close_all();
}

Test(params, freezing)
{
    mb_context *mb = open_on("cpu");
    mb_params *p = mb_params_new(mb, 1);
    static const char *const names[] = {"enc.w", "enc.b", "encoder.w", "head"};
    for (int i = 0; i < 4; i++)
        mb_param(p, names[i], MB_SHAPE(i + 1), mb_init_zeros());
    mb_tensor ts[4];
    expect(mb_params_freeze(p, "enc") == MB_OK, "freeze");
    expect(mb_params_list(p, ts, 4) == 2 && ts[0].id == mb_params_tensor(p, 2).id, "not encoder.w");
    expect(mb_params_size(p) == 3 + 4 && !mb_params_trainable(p, 1) && mb_params_trainable(p, 2),
           "what is left");
    mb_params_unfreeze(p, "enc.b");
    expect(mb_params_list(p, ts, 1) == 3, "the number is told where there is no room for all");
    mb_params_freeze(p, "");
    expect(mb_params_list(p, NULL, 0) == 0, "every one");
    mb_params_set_decay(p, "enc", false);
    expect(!mb_params_decays(p, 0) && !mb_params_decays(p, 1) && mb_params_decays(p, 2), "decay");
    expect(mb_params_freeze(p, "en") == MB_INVALID, "no parameter is under en");
    mb_clear_error(mb);
    mb_params_free(p);
    close_all();
}

Test(params, mistakes)
{
    mb_context *mb = open_on("cpu");
    mb_params *p = mb_params_new(mb, 1);
    mb_param(p, "a", MB_SHAPE(1), mb_init_zeros());
    expect(!mb_valid(mb_param(p, "a", MB_SHAPE(1), mb_init_zeros())), "taken");
    expect(strstr(mb_message(mb), "params_test.c") && strstr(mb_message(mb), "a"), "%s", mb_message(mb));
    mb_clear_error(mb);
    expect(!mb_valid(mb_param(p, "", MB_SHAPE(1), mb_init_zeros())), "empty");
    mb_clear_error(mb);
    expect(mb_params_leave(p) == MB_INVALID, "leave without enter");
    mb_clear_error(mb);
    expect(!mb_valid(mb_params_get(p, "b")) && mb_error(mb) == MB_INVALID, "unknown");
    mb_clear_error(mb);
    mb_scope s = mb_scope_begin(mb);
    expect(!mb_valid(mb_param(p, "inside", MB_SHAPE(1), mb_init_zeros())), "in a scope");
    mb_clear_error(mb);
    mb_scope_end(s);
    expect(!mb_params_new_with(mb, 1, MB_INT32), "int32 parameters");
    mb_clear_error(mb);
    expect(mb_params_count(p) == 1, "nothing was made by mistake");
    mb_params_free(NULL);
    expect(mb_params_count(NULL) == 0 && !mb_param(NULL, "x", MB_SHAPE(1), mb_init_zeros()).ctx,
           "NULL is passed on");
    mb_params_free(p);
    close_all();
}

/* Refused when they are made, not at the first save; the longest that is taken can be saved by an optimiser.
 */
Test(params, names_that_no_file_can_hold)
{
    mb_context *mb = open_on("cpu");
    mb_params *p = mb_params_new(mb, 1);
    char name[4200], prefix[2001];
    memset(name, 'a', sizeof name);
    memset(prefix, 'b', sizeof prefix);
    name[4001] = prefix[2000] = 0;
    const char *const bad[] = {"__metadata__", "\xff", "\xc3", "a\xed\xa0\x80", name};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        mb_param(p, bad[i], MB_SHAPE(1), mb_init_zeros());
        expect(mb_error(mb) == MB_INVALID && strstr(mb_message(mb), "a file cannot hold"), "%zu: %s", i,
               mb_message(mb));
        mb_clear_error(mb);
    }
    mb_params_enter(p, prefix);
    name[2000] = 0; /* with prefix and dot: 4001 */
    expect(!mb_valid(mb_param(p, name, MB_SHAPE(1), mb_init_zeros())), "too long with its prefix");
    mb_clear_error(mb);
    name[1999] = 0;
    mb_param(p, name, MB_SHAPE(1), mb_init_ones());
    mb_params_leave(p);
    mb_param(p, "new\nline \"\\ \xc3\xa9", MB_SHAPE(1), mb_init_ones());
    mb_optimizer *opt = mb_sgd(p, (mb_sgd_options){.lr = 1, .momentum = 0.9});
    char *path = temporary("names");
    expect(mb_optimizer_save(opt, path) == MB_OK && mb_optimizer_load(opt, path) == MB_OK, "%s",
           mb_message(mb));
    unlink(path);
    mb_optimizer_free(opt);
    expect_ok(mb);

    /* A name that the optimiser's file has for its own. */
    mb_param(p, "x", MB_SHAPE(1), mb_init_ones());
    mb_param(p, "optimizer.m.x", MB_SHAPE(1), mb_init_ones());
    expect(!mb_adam(p, (mb_adam_options){.lr = 1}) && mb_error(mb) == MB_INVALID &&
               strstr(mb_message(mb), "optimizer.m.x"),
           "%s", mb_message(mb));
    mb_clear_error(mb);
    mb_param(p, "optimizer.step", MB_SHAPE(1), mb_init_ones());
    expect(!mb_sgd(p, (mb_sgd_options){.lr = 1}) && strstr(mb_message(mb), "optimizer.step"), "%s",
           mb_message(mb));
    mb_clear_error(mb);
    mb_params_free(p);
    close_all();
}

/* ---- initial values ---- */

Test(params, initial_values)
{
    enum { N = 20000 };
    static const struct {
        const char *name;
        mb_init init;
        double bound, variance;
    } rows[] = {
        {"uniform", {MB_INIT_UNIFORM, 0.7}, 0.7, 0.49 / 3},
        {"normal", {MB_INIT_NORMAL, 2}, 12, 4},
        {"xavier", {0}, 0, 2.0 / 300},
        {"lecun", {0}, 0, 1.0 / 50},
        {"he", {0}, 0, 2.0 / 50},
    };
    mb_context *mb = open_on("cpu");
    for (int type = 0; type < 2; type++) {
        mb_params *p = mb_params_new_with(mb, 9, type ? MB_FLOAT64 : MB_FLOAT32);
        for (int i = 0; i < 5; i++) {
            mb_init init = i == 2   ? mb_init_xavier(100, 200)
                           : i == 3 ? mb_init_lecun(50)
                           : i == 4 ? mb_init_he(50)
                                    : rows[i].init;
            double bound = rows[i].bound ? rows[i].bound : sqrt(3 * rows[i].variance);
            const double *v = values(mb_param(p, rows[i].name, MB_SHAPE(N), init));
            double most = 0, mean = 0, squares = 0;
            for (int k = 0; k < N; k++) {
                most = fmax(most, fabs(v[k]));
                mean += v[k] / N;
                squares += v[k] * v[k] / N;
            }
            expect(most <= bound * (1 + 1e-6), "%s: %g of %g", rows[i].name, most, bound);
            expect(fabs(mean) < 4 * sqrt(rows[i].variance / N), "%s: mean %g", rows[i].name, mean);
            expect(near(squares, rows[i].variance, 0.05, 0), "%s: variance %g, not %g", rows[i].name, squares,
                   rows[i].variance);
        }
        expect(values(mb_param(p, "ones", MB_SHAPE(2), mb_init_ones()))[1] == 1, "ones");
        expect(values(mb_param(p, "zeros", MB_SHAPE(2), mb_init_zeros()))[1] == 0, "zeros");
        expect(values(mb_param(p, "default", MB_SHAPE(2), (mb_init){0}))[1] == 0, "default");
        mb_params_free(p);
    }
    close_all();
}

/* The same seed and full name give the same values: whatever else there is, on every backend. */
Test(params, values_depend_on_seed_and_name)
{
    const double *v[4];
    for (int i = 0; i < 4; i++) {
        mb_context *mb = open_on(backend_names[i % 2]);
        mb_params *p = mb_params_new(mb, i == 3 ? 6 : 5);
        if (i == 1)
            mb_param(p, "other", MB_SHAPE(100), mb_init_normal(1));
        mb_params_enter(p, "x");
        v[i] = values(mb_param(p, i == 2 ? "v" : "w", MB_SHAPE(33), mb_init_uniform(1)));
        mb_params_leave(p);
        mb_params_free(p);
    }
    expect(same_bits(v[0], v[1], 33), "another backend, another order");
    expect(!same_bits(v[0], v[2], 33) && !same_bits(v[0], v[3], 33), "another name, another seed");
    close_all();
}

/* ---- files ---- */

static mb_params *small_set(mb_context *mb, uint64_t seed, mb_dtype dtype, int64_t width)
{
    mb_params *p = mb_params_new_with(mb, seed, dtype);
    mb_param(p, "w", MB_SHAPE(3, width), mb_init_normal(1));
    mb_param_no_decay(p, "b", MB_SHAPE0, mb_init_normal(1));
    return p;
}

Test(params, files)
{
    mb_context *mb = open_on("cpu");
    char *path = temporary("params");
    mb_params *p = small_set(mb, 1, MB_FLOAT32, 4), *q = small_set(mb, 2, MB_FLOAT32, 4);
    mb_params_freeze(p, "b"); /* written all the same */
    expect(mb_params_save(p, path) == MB_OK, "save");
    expect(mb_params_load(q, path) == MB_OK, "load");
    for (int i = 0; i < 2; i++)
        expect(same_bits(values(mb_params_tensor(p, i)), values(mb_params_tensor(q, i)),
                         mb_count(mb_params_tensor(p, i))),
               "%s", mb_params_name(p, i));

    /* Another shape, dtype, or set of names: an error, and nothing is changed. */
    mb_params *others[3] = {small_set(mb, 3, MB_FLOAT32, 5), small_set(mb, 3, MB_FLOAT64, 4),
                            small_set(mb, 3, MB_FLOAT32, 4)};
    mb_param(others[2], "more", MB_SHAPE(1), mb_init_zeros());
    for (int i = 0; i < 3; i++) {
        const double *before = values(mb_params_tensor(others[i], 1));
        expect(mb_params_load(others[i], path) != MB_OK, "set %d", i);
        expect(strstr(mb_message(mb), path), "the message names the file: %s", mb_message(mb));
        mb_clear_error(mb);
        expect(same_bits(values(mb_params_tensor(others[i], 1)), before, 1), "set %d was changed", i);
        mb_params_free(others[i]);
    }
    expect(mb_params_load(p, temporary("missing")) == MB_IO, "%s", mb_message(mb));
    mb_clear_error(mb);
    unlink(temporary("params"));
    mb_params_free(p);
    mb_params_free(q);
    close_all();
}
