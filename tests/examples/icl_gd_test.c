/* SPDX-License-Identifier: MIT
 *
 * icl_gd_test.c - on which tasks examples/icl_gd trains, and on which it measures. Everything that it draws
 * passes through here: icl_gd_models.c is compiled with its draw_tasks under another name. */
#include "examples/icl_gd.h"
#include "support.h"

plan set = {.backend = "reference", .gd_steps = 3, .batch = 12, .validation = 20, .every = 2, .range = 1};

tasks real_draw_tasks(mb_context *mb, mb_key key, drawing how);

enum { MOST = 4000 };

static struct {
    uint64_t key;
    int64_t count;
} drawn[MOST];
static int draws;

tasks draw_tasks(mb_context *mb, mb_key key, drawing how)
{
    tasks t = real_draw_tasks(mb, key, how);
    cr_assert(draws < MOST);
    drawn[draws].key = key.bits;
    drawn[draws++].count = how.count;
    return t;
}

/* How many draws of `count` tasks between two had a key that one of another count between them had, too. */
static int shared(int from, int to)
{
    int n = 0;
    for (int i = from; i < to; i++)
        for (int k = from; k < to; k++)
            n += drawn[i].count == set.validation && drawn[k].count == set.batch &&
                 drawn[i].key == drawn[k].key;
    return n;
}

/* Pairs of training batches, between two draws, that are the same. */
static int repeated(int from, int to)
{
    int n = 0;
    for (int i = from; i < to; i++)
        for (int k = from; k < i; k++)
            n += drawn[i].count == set.batch && drawn[k].count == set.batch && drawn[i].key == drawn[k].key;
    return n;
}

static int first_of(int64_t count, int from)
{
    while (from < draws && drawn[from].count != count)
        from++;
    return from;
}

static int count_of(int64_t count, int from, int to)
{
    int n = 0;
    for (int i = from; i < to; i++)
        n += drawn[i].count == count;
    return n;
}

/* The loss of answering 0 to tasks of a key. */
static double loss_of_nothing(uint64_t key)
{
    mb_context *mb = open_on("reference");
    tasks t =
        real_draw_tasks(mb, (mb_key){key},
                        (drawing){.dtype = MB_FLOAT32, .count = set.validation, .x_scale = 1, .w_scale = 1});
    double loss = mb_item(mb_mul(mb_mean(mb_square(t.answer), MB_ALL), 0.5));
    close_all();
    return loss;
}

Test(icl_gd, validation_is_no_training_batch)
{
    enum { STEPS = 5 };
    baseline gd = {.model = ONE}, plus = {.model = ONE, .plus = true};
    run_baseline(&gd);
    int validation = first_of(set.validation, 0);
    cr_assert(validation < draws);
    expect(count_of(set.batch, 0, draws) == set.gd_steps, "a batch for each step of step sizes");
    run_baseline(&plus);
    for (int seed = 0; seed < 2; seed++) {
        trial t = {.model = ONE, .seed = seed, .steps = STEPS, .gd = &gd, .plus = &plus};
        int from = draws;
        run_trial(&t);
        int own = first_of(set.validation, from);
        expect(count_of(set.batch, from, draws) == STEPS, "a batch for each step");
        expect(drawn[own].key == drawn[validation].key, "seed %d: validated on other tasks", seed);
        expect(repeated(from, draws) == 0, "seed %d: a batch comes twice", seed);
        /* At the start predictions are of the size of 1e-2 of the answers. */
        double loss = t.measure[LOSS].value[0], want = loss_of_nothing(drawn[own].key);
        expect(near(loss, want, 0.02, 0), "seed %d: measured %g, answering 0 has %g", seed, loss, want);
        for (int m = 0; m < MEASURES; m++)
            series_free(&t.measure[m]);
        for (int s = 0; s < SWEEPS * CURVES; s++)
            series_free(&t.sweep[s / CURVES][s % CURVES]);
    }
    expect(shared(0, draws) == 0, "%d times a training batch is validated on", shared(0, draws));
    int trained = first_of(set.batch, 0);
    double other = loss_of_nothing(drawn[trained].key), own = loss_of_nothing(drawn[validation].key);
    expect(!near(other, own, 0.02, 0), "this test could not tell the two apart: %g and %g", other, own);
}
