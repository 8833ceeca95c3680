/* SPDX-License-Identifier: MIT
 *
 * linear_transformer_test.c - on which prompts examples/linear_transformer trains, and on which it measures.
 * Whatever normal numbers it draws pass through here: linear_transformer_train.c is compiled with
 * mb_normal_at under another name. */
#include "examples/linear_transformer.h"
#include "support.h"

plan set = {.backend = "reference",
            .seeds = 1,
            .test_seed = 99,
            .prompts = 8,
            .noise = 6,
            .noise_reference = 4,
            .evaluate_every = 2};

enum { MOST = 400 };

static uint64_t drawn[MOST];
static int draws;

mb_tensor spied_normal_at(const char *where, mb_context *ctx, mb_key key, mb_dtype dtype, mb_shape shape);

mb_tensor spied_normal_at(const char *where, mb_context *ctx, mb_key key, mb_dtype dtype, mb_shape shape)
{
    cr_assert(draws < MOST);
    drawn[draws++] = key.bits;
    return mb_normal_at(where, ctx, key, dtype, shape);
}

/* Draws of two that had the same key. */
static int repeated(int from, int to)
{
    int n = 0;
    for (int i = from; i < to; i++)
        for (int k = from; k < i; k++)
            n += drawn[i] == drawn[k];
    return n;
}

static void forget(trial *t)
{
    for (int m = 0; m < MEASURES; m++)
        series_free(&t->measure[m]);
}

Test(linear_transformer, test_prompts_are_no_training_batch)
{
    enum { STEPS = 6, PER_DRAW = 2 }; /* inputs and functions */
    int first[3];
    for (int run = 0; run < 3; run++) {
        trial t = {.setting = SETTING_1,
                   .depth = 2,
                   .optimizer = run == 1 ? ADAM : SGD,
                   .steps = STEPS,
                   .seed = run,
                   .lr = 0.01};
        set.test_seed = run == 2 ? run : 99; /* the seed of a run may be that of the test */
        first[run] = draws;
        run_trial(&t);
        expect(draws - first[run] == PER_DRAW * (1 + STEPS), "%d draws", draws - first[run]);
        expect(repeated(first[run], draws) == 0, "run %d: %d draws come twice", run,
               repeated(first[run], draws));
        forget(&t);
    }
    for (int i = 0; i < PER_DRAW; i++) {
        expect(drawn[first[0] + i] == drawn[first[1] + i], "seeds are tested on other prompts");
        expect(drawn[first[0] + i] != drawn[first[2] + i], "the seed of the test does not matter");
    }
    expect(repeated(first[0], first[1] + PER_DRAW) == PER_DRAW, "seeds are trained on the same prompts");
}

Test(linear_transformer, samples_of_noise_are_not_their_reference)
{
    noise n = {.setting = SETTING_1, .depth = 2};
    int from = draws;
    run_noise(&n);
    expect(n.complete && n.n == set.noise, "%lld samples", (long long)n.n);
    expect(draws - from == 2 * (set.noise + set.noise_reference), "%d draws", draws - from);
    expect(repeated(from, draws) == 0, "%d draws come twice", repeated(from, draws));
    free(n.norm);
}
