/* SPDX-License-Identifier: MIT
 *
 * options_test.c - every option of every optimiser and update rule outside of its range, and at its ends. */
#include "support.h"

typedef enum which { SGD, ADAM, ADAMW } which;

typedef struct options {
    double lr, momentum, weight_decay, clip_norm, clip_value, beta1, beta2, eps;
    bool nesterov;
} options;

static mb_optimizer *make(mb_params *p, which w, const options *o)
{
    switch (w) {
    case SGD:
        return mb_sgd(p, (mb_sgd_options){.lr = o->lr,
                                          .momentum = o->momentum,
                                          .nesterov = o->nesterov,
                                          .weight_decay = o->weight_decay,
                                          .clip_norm = o->clip_norm,
                                          .clip_value = o->clip_value});
    case ADAM:
        return mb_adam(p, (mb_adam_options){.lr = o->lr,
                                            .beta1 = o->beta1,
                                            .beta2 = o->beta2,
                                            .eps = o->eps,
                                            .clip_norm = o->clip_norm,
                                            .clip_value = o->clip_value});
    default:
        return mb_adamw(p, (mb_adamw_options){.lr = o->lr,
                                              .weight_decay = o->weight_decay,
                                              .beta1 = o->beta1,
                                              .beta2 = o->beta2,
                                              .eps = o->eps,
                                              .clip_norm = o->clip_norm,
                                              .clip_value = o->clip_value});
    }
}

static const struct {
    const char *name;
    size_t at;
    bool of[3];       /* sgd, adam, adamw */
    double beyond[2]; /* besides NaN and infinity */
    double ends[2];
} rows[] = {
    {"lr", offsetof(options, lr), {true, true, true}, {0, -1}, {1e-300, 10}},
    {"momentum", offsetof(options, momentum), {true, false, false}, {-0.1, 1}, {MB_ZERO, 0.9999}},
    {"weight_decay", offsetof(options, weight_decay), {true, false, true}, {-0.1, -1e-9}, {MB_ZERO, 1}},
    {"clip_norm", offsetof(options, clip_norm), {true, true, true}, {-1, -1e-9}, {MB_ZERO, 1}},
    {"clip_value", offsetof(options, clip_value), {true, true, true}, {-1, -1e-9}, {MB_ZERO, 1}},
    {"beta1", offsetof(options, beta1), {false, true, true}, {-0.1, 1}, {MB_ZERO, 0.9999}},
    {"beta2", offsetof(options, beta2), {false, true, true}, {-0.1, 1}, {MB_ZERO, 0.9999}},
    {"eps", offsetof(options, eps), {false, true, true}, {-1e-8, -1}, {MB_ZERO, 1}},
};

static const char *const makers[] = {"mb_sgd", "mb_adam", "mb_adamw"};

static void expect_refused(mb_context *mb, const mb_optimizer *opt, const char *maker, const char *name)
{
    char words[64];
    snprintf(words, sizeof words, "%s: %s is ", maker, name);
    expect(!opt && mb_error(mb) == MB_INVALID && strstr(mb_message(mb), words) &&
               strstr(mb_message(mb), "wanted"),
           "\"%s\" does not say \"%s\"", mb_message(mb), words);
    mb_clear_error(mb);
}

Test(options, each_is_checked)
{
    mb_context *mb = open_on("cpu");
    mb_params *p = mb_params_new(mb, 1);
    mb_param(p, "w", MB_SHAPE(2), mb_init_ones());
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
        for (int w = 0; w < 3; w++) {
            options o = {.lr = 0.1};
            double *value = (double *)(void *)((char *)&o + rows[r].at);
            const double wrong[] = {rows[r].beyond[0], rows[r].beyond[1], (double)NAN, (double)INFINITY,
                                    -(double)INFINITY};
            for (int i = 0; i < 5 && rows[r].of[w]; i++) {
                *value = wrong[i];
                expect_refused(mb, make(p, (which)w, &o), makers[w], rows[r].name);
            }
            for (int i = 0; i < 2 && rows[r].of[w]; i++) {
                *value = rows[r].ends[i];
                mb_optimizer *opt = make(p, (which)w, &o);
                expect(opt != NULL, "%s, %s %g: %s", makers[w], rows[r].name, *value, mb_message(mb));
                mb_optimizer_free(opt);
            }
        }
    expect(!make(p, SGD, &(options){.lr = 1, .nesterov = true}) && strstr(mb_message(mb), "nesterov"), "%s",
           mb_message(mb));
    mb_clear_error(mb);
    mb_optimizer *opt = mb_sgd(p, (mb_sgd_options){.lr = 0.5});
    mb_optimizer_set_lr(opt, -1);
    expect(mb_error(mb) == MB_INVALID && strstr(mb_message(mb), "lr is -1") && mb_optimizer_lr(opt) == 0.5,
           "%s", mb_message(mb));
    mb_clear_error(mb);
    mb_optimizer_free(opt);
    mb_params_free(p);
    close_all();
}

/* beta1 = 0: Adam without momentum, whose step from zero state is lr g / (|g| + eps) whatever came before. */
Test(options, a_zero_can_be_said)
{
    mb_context *mb = open_on("cpu");
    mb_tensor w = mb_full(mb, MB_FLOAT64, MB_SHAPE(1), 1), m = mb_full(mb, MB_FLOAT64, MB_SHAPE(1), 100);
    mb_tensor lr = mb_scalar(mb, MB_FLOAT64, 0.1), v = mb_zeros(mb, MB_FLOAT64, MB_SHAPE(1)), m2, v2;
    mb_adam_options o = {.beta1 = MB_ZERO, .beta2 = MB_ZERO, .eps = MB_ZERO};
    mb_tensor y = mb_adam_update(w, mb_mul(w, 3.0), lr, m, v, 1, &o, &m2, &v2);
    expect(mb_item(m2) == 3 && mb_item(v2) == 9 && near(mb_item(y), 0.9, 1e-15, 0), "%g %g %g", mb_item(m2),
           mb_item(v2), mb_item(y));
    close_all();
}

Test(options, of_the_rules)
{
    mb_context *mb = open_on("cpu");
    mb_tensor w = mb_ones(mb, MB_FLOAT64, MB_SHAPE(2)), lr = mb_scalar(mb, MB_FLOAT64, 1), m, v;
    const double wrong[] = {-0.1, 1, (double)NAN};
    for (int i = 0; i < 3; i++) {
        mb_momentum_update(w, w, lr, w, wrong[i], false, &m);
        expect_refused(mb, NULL, "mb_momentum_update", "momentum");
        mb_adam_update(w, w, lr, w, w, 1, &(mb_adam_options){.beta2 = wrong[i]}, &m, &v);
        expect_refused(mb, NULL, "mb_adam_update", "beta2");
        if (i == 1)
            continue;
        mb_clip_value(w, wrong[i]);
        expect_refused(mb, NULL, "mb_clip_value", "limit");
    }
    close_all();
}
