/* SPDX-License-Identifier: MIT
 *
 * lcgd_test.c - examples/lcgd from within: its prompts, what its layer-causal losses reach, and its measures
 * against closed forms. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "examples/lcgd.h"
#include "support.h"

plan set = {.backend = "",
            .out = "",
            .resume = "",
            .weights = "",
            .vocabulary = "",
            .merges = "",
            .texts = "",
            .form = "",
            .layers = 3,
            .width = 16,
            .heads = 2,
            .classes = 3,
            .words = 4,
            .text = 3,
            .shots = 4,
            .noise = 0.2,
            .steps = 3,
            .batch = 4,
            .lr = 1e-3,
            .seeds = 1,
            .tasks = 2,
            .queries = 5,
            .rate = 0.1,
            .spread = 3,
            .rates = 2};

enum { LENGTH = 4 }; /* of a demonstration */

/* ---- prompts ---- */

Test(lcgd_example, demonstrations_agree_on_labels)
{
    enum { COUNT_OF_THEM = 3000 };
    static int32_t tokens[COUNT_OF_THEM * LENGTH], again[LENGTH];
    for (int turn = 0; turn < 3; turn++) {
        task t = task_of(11, turn), first = task_of(11, 0);
        int own = 0, of_label[3] = {0};
        bool used[3] = {false};
        demonstrations(&t, 0, COUNT_OF_THEM, tokens);
        for (int c = 0; c < 3; c++) {
            expect(t.label[c] >= first_label() && t.label[c] < vocabulary(), "a label is a label");
            expect((t.label[c] - first.label[c] + 3) % 3 == turn, "turned");
            used[t.label[c] - first_label()] = true;
        }
        expect(used[0] && used[1] && used[2], "each class has its own");
        for (int i = 0; i < COUNT_OF_THEM; i++) {
            const int32_t *d = tokens + (ptrdiff_t)i * LENGTH;
            of_label[d[3] - first_label()]++;
            for (int w = 0; w < 3; w++) {
                expect(d[w] >= 0 && d[w] < first_label(), "a word is a word");
                own += t.label[d[w] / set.words] == d[3];
            }
        }
        /* A share 1 - noise + noise / 3 of 9000 words; deviations of the mean: 0.0036, and 26 of 1000. */
        expect(fabs(own / 9000.0 - (0.8 + 0.2 / 3)) < 0.018, "words of their class: %d", own);
        for (int c = 0; c < 3; c++)
            expect(abs(of_label[c] - 1000) < 130, "classes are even: %d", of_label[c]);
        demonstrations(&t, 7, 1, again);
        expect(memcmp(again, tokens + 7 * LENGTH, sizeof again) == 0, "each is itself wherever one begins");
    }
}

/* ---- the decoder ---- */

typedef struct subject {
    mb_context *mb;
    mb_params *p;
    decoder d;
    problem told;     /* of 4 demonstrations and 5 queries */
    mb_tensor tokens; /* [1,LENGTH]: the first demonstration */
} subject;

static subject new_subject(int64_t layers)
{
    subject s = {.mb = open_on("cpu")};
    set.layers = layers;
    s.p = mb_params_new_with(s.mb, 3, MB_FLOAT32);
    s.d = decoder_new(s.p, &(decoder_shape){layers, set.width, set.heads, vocabulary(), 5 * LENGTH});
    task t = task_of(5, 0);
    s.told = problem_of_task(&t);
    s.tokens = mb_from(s.mb, MB_INT32, MB_SHAPE(1, LENGTH), s.told.tokens);
    /* So that attention is not uniform, and biases are not 0. */
    for (int i = 0; i < mb_params_count(s.p); i++) {
        mb_tensor w = mb_params_tensor(s.p, i);
        mb_assign(w,
                  mb_add(w, mb_mul(mb_normal(s.mb, mb_key_of(100 + (uint64_t)i), MB_FLOAT32, mb_shape_of(w)),
                                   0.2)));
    }
    return s;
}

static void end_subject(subject *s)
{
    problem_free(&s->told);
    mb_params_free(s->p);
    close_all();
}

static double largest(mb_tensor t)
{
    return mb_item(mb_max(mb_abs(t), MB_ALL));
}

/* Whether a parameter is of block l. */
static bool of_block(const char *name, int l)
{
    char prefix[32];
    snprintf(prefix, sizeof prefix, "blocks.%d.", l);
    return strncmp(name, prefix, strlen(prefix)) == 0;
}

/* Invariant 1: the loss of layer l has a gradient of exactly zero on every parameter of other layers. */
Test(lcgd_example, losses_of_layers_reach_their_own_alone)
{
    subject s = new_subject(3);
    for (int v = LCGD; v < VARIANTS; v++) {
        mb_tensor each[MOST_LAYERS], ts[64], gs[64];
        int n = mb_params_list(s.p, ts, 64);
        demonstration_loss(&s.d, s.tokens, (variant)v, each);
        for (int l = 0; l < 3; l++) {
            mb_grad(each[l], ts, n, gs);
            for (int i = 0; i < n; i++) {
                const char *name = mb_params_name(s.p, i);
                double size = largest(gs[i]);
                if (!of_block(name, l) && strncmp(name, "norm", 4) &&
                    strncmp(name, "head", 4)) /* all exits' */
                    expect(size == 0, "%s: loss %d has %g on %s", variant_names[v], l, size, name);
                if (of_block(name, l) && strstr(name, "qkv.weight"))
                    expect(size > 0, "%s: loss %d has none on %s", variant_names[v], l, name);
            }
        }
    }
    end_subject(&s);
}

/* The losses are those of the ordinary forward pass, read out early: the code's of blocks, the text's of
 * attention. */
Test(lcgd_example, losses_are_of_ordinary_activations)
{
    subject s = new_subject(3);
    static const char *const patterns[] = {
        [LCGD] = "blocks.*.output", [LCGD_TEXT] = "blocks.*.attention.output"};
    for (int v = LCGD; v < VARIANTS; v++) {
        mb_tensor each[MOST_LAYERS], plain[3];
        mb_tensor sum = demonstration_loss(&s.d, s.tokens, (variant)v, each);
        mb_tap tap = mb_tap_collect(s.mb, patterns[v], plain, 3);
        decoder_apply(&s.d, s.tokens);
        mb_tap_end(tap);
        double total = 0;
        for (int l = 0; l < 3; l++) {
            double own = mb_item(each[l]);
            expect(own == mb_item(next_token_loss(readout(&s.d, plain[l]), s.tokens)), "%s, layer %d",
                   variant_names[v], l);
            total += own;
        }
        expect(fabs(mb_item(sum) - total) < 1e-5, "their sum");
    }
    end_subject(&s);
}

/* Invariant 2: with one layer, the code's form is vanilla descent. The text's is not: it leaves out the
 * residual and the MLP. */
Test(lcgd_example, one_layer_is_vanilla_descent)
{
    subject s = new_subject(1);
    mb_tensor w = mb_params_get(s.p, "blocks.0.attention.qkv.weight"), g[VARIANTS];
    for (int v = 0; v < VARIANTS; v++)
        mb_grad(demonstration_loss(&s.d, s.tokens, (variant)v, NULL), &w, 1, &g[v]);
    double size = largest(g[GD]);
    expect(largest(mb_sub(g[LCGD], g[GD])) <= 1e-6 * size, "lcgd");
    expect(largest(mb_sub(g[LCGD_TEXT], g[GD])) > 0.01 * size, "lcgd-text");
    end_subject(&s);
}

/* In the text's form the queries' rows get nothing even before they are left out. */
Test(lcgd_example, the_texts_queries_are_constant)
{
    subject s = new_subject(2);
    mb_tensor w = mb_params_get(s.p, "blocks.1.attention.qkv.weight"), g;
    for (int v = 0; v < VARIANTS; v++) {
        mb_grad(demonstration_loss(&s.d, s.tokens, (variant)v, NULL), &w, 1, &g);
        double size = largest(mb_slice(g, 0, 0, set.width, 1));
        expect(v == LCGD_TEXT ? size == 0 : size > 0, "%s: %g", variant_names[v], size);
    }
    end_subject(&s);
}

/* One pass: a step for each demonstration, in order, on keys and values alone; and what it leaves. */
Test(lcgd_example, tuning_equals_steps_by_hand)
{
    for (int v = 0; v < VARIANTS; v++) {
        subject s = new_subject(2), hand = new_subject(2);
        mb_tensor ws[4];
        static const char *const names[] = {"blocks.0.attention.qkv.weight", "blocks.0.attention.qkv.bias",
                                            "blocks.1.attention.qkv.weight", "blocks.1.attention.qkv.bias"};
        tuning t;
        mb_params_freeze(s.p, "");
        mb_params_unfreeze(s.p, "blocks.*.attention.qkv");
        mb_optimizer *sgd = mb_sgd(s.p, (mb_sgd_options){.lr = 0.5});
        tune(&s.d, s.p, sgd, &s.told, (variant)v, &t);
        for (int k = 0; k < 4; k++)
            ws[k] = mb_params_get(hand.p, names[k]);
        for (int i = 0; i < 4; i++) {
            mb_tensor gs[4];
            mb_scope scope = mb_scope_begin(hand.mb);
            mb_tensor tokens =
                mb_from(hand.mb, MB_INT32, MB_SHAPE(1, LENGTH), hand.told.tokens + (ptrdiff_t)i * LENGTH);
            mb_grad(demonstration_loss(&hand.d, tokens, (variant)v, NULL), ws, 4, gs);
            for (int k = 0; k < 4; k++) {
                mb_tensor from = mb_slice(gs[k], 0, set.width, 2 * set.width, 1);
                gs[k] = mb_pad(from, 0, set.width, 0);
            }
            for (int l = 0; l < 2; l++) {
                double size = mb_item(mb_global_norm(gs + 2 * l, 2));
                expect(fabs(size - t.norms[l * 4 + i]) < 1e-5 * size, "norm of layer %d, step %d", l, i);
            }
            for (int k = 0; k < 4; k++)
                mb_assign(ws[k], mb_sub(ws[k], mb_mul(gs[k], 0.5)));
            mb_scope_end(scope);
        }
        for (int k = 0; k < 4; k++) {
            const double *a = values(mb_params_get(s.p, names[k])), *b = values(ws[k]);
            for (int64_t i = 0; i < mb_count(ws[k]); i++)
                expect(fabs(a[i] - b[i]) < 1e-5, "%s: %s[%d]", variant_names[v], names[k], (int)i);
        }
        mb_tensor q;
        mb_tap tap = mb_tap_collect(s.mb, "blocks.0.attention.queries", &q, 1);
        decoder_apply(&s.d, mb_from(s.mb, MB_INT32, MB_SHAPE(1, LENGTH), s.told.tokens));
        mb_tap_end(tap);
        const double *seen = values(q); /* nothing below block 0 has been tuned, and no queries were */
        for (int64_t i = 0; i < LENGTH * set.width; i++)
            expect(fabs(seen[i] - (double)t.queries[i]) < 1e-5, "queries");
        tuning_free(&t);
        mb_optimizer_free(sgd);
        mb_params_free(hand.p);
        problem_free(&hand.told);
        end_subject(&s);
    }
}

/* ---- measures ---- */

static void random_numbers(float *x, int n, unsigned seed)
{
    srand(seed);
    for (int i = 0; i < n; i++)
        x[i] = (float)rand() / (float)RAND_MAX - 0.5f;
}

/* Invariant 3, in the cosine itself: a rescaled update has the same SimAOU and SimAM_D, and another SimAM. */
Test(lcgd_example, cosines_of_rescaled_updates)
{
    enum { SIZE = 50 };
    float z[SIZE], icl[SIZE], tuned[SIZE], more[SIZE];
    random_numbers(z, SIZE, 1), random_numbers(icl, SIZE, 2), random_numbers(tuned, SIZE, 3);
    for (int i = 0; i < SIZE; i++)
        more[i] = z[i] + 7 * (tuned[i] - z[i]);
    double one = update_cosine(icl, z, tuned, z, SIZE, false),
           seven = update_cosine(icl, z, more, z, SIZE, false);
    expect(fabs(one - seven) < 1e-6 && fabs(one) < 1, "%g %g", one, seven);
    expect(fabs(update_cosine(icl, NULL, tuned, NULL, SIZE, false) -
                update_cosine(icl, NULL, more, NULL, SIZE, false)) > 1e-3,
           "SimAM changes");
    expect(fabs(update_cosine(icl, z, tuned, z, SIZE, true) - update_cosine(icl, z, more, z, SIZE, true)) >
               1e-3,
           "the normalised one too");
    expect(update_cosine(icl, z, z, z, SIZE, false) == 0, "of no update");
    expect(fabs(update_cosine(icl, z, icl, z, SIZE, false) - 1) < 1e-12, "of one with itself");
}

/* Invariant 4, the paper's construction: ||r||^2 = 3 ||z||^2, orthogonal: SimAOU 0, normalised exactly 1/4.
 */
Test(lcgd_example, two_random_updates)
{
    float z[3] = {2, 0, 0}, a[3] = {2, (float)(2 * sqrt(3)), 0}, b[3] = {2, 0, (float)(2 * sqrt(3))};
    expect(fabs(update_cosine(a, z, b, z, 3, false)) < 1e-7, "SimAOU");
    expect(fabs(update_cosine(a, z, b, z, 3, true) - 0.25) < 1e-7, "normalised");
    glimpse g = {.layers = 1, .width = 20000, .output = malloc(20000 * sizeof(float))};
    random_numbers(g.output, 20000, 4);
    double aou, aou_norm;
    measure_two_noises(&g, 1, 9, &aou, &aou_norm); /* deviation 1 / sqrt(20000) = 0.007, of the second less */
    expect(fabs(aou) < 0.035 && fabs(aou_norm - 0.25) < 0.035, "%g %g", aou, aou_norm);
    free(g.output);
}

static double kendall_by_counting(const double *a, const double *b, int n)
{
    int agree = 0, not = 0;
    for (int i = 0; i < n; i++)
        for (int j = i + 1; j < n; j++) {
            agree += (a[i] < a[j] && b[i] < b[j]) || (a[i] > a[j] && b[i] > b[j]);
            not += (a[i] < a[j] && b[i] > b[j]) || (a[i] > a[j] && b[i] < b[j]);
        }
    return (agree - not ) / (n * (n - 1) / 2.0);
}

Test(lcgd_example, kendalls_tau)
{
    double up[] = {1, 2, 3, 4, 5}, down[] = {5, 4, 3, 2, 1}, ties[] = {1, 1, 2, 2, 3},
           other[] = {3, 1, 4, 1.5, 5};
    expect(kendall(up, up, 5) == 1 && kendall(up, down, 5) == -1, "the ends");
    expect(fabs(kendall(up, ties, 5) - 0.8) < 1e-15, "ties count as neither");
    expect(fabs(kendall(up, other, 5) - kendall_by_counting(up, other, 5)) < 1e-15, "counted");
    expect(isnan(kendall(up, up, 1)), "of one");
}

/* Invariants 3 and 5 on a model: rates that go to 0 leave the cosines finite and alike, and SimAM goes to
 * that of the model as it was. */
Test(lcgd_example, small_rates)
{
    subject s = new_subject(2);
    glimpse zero[5], icl[5], tuned[5];
    double rows[3][MEASURES][MOST_LAYERS];
    look(&s.d, &s.told, false, zero);
    look(&s.d, &s.told, true, icl);
    mb_params_freeze(s.p, "");
    mb_params_unfreeze(s.p, "blocks.*.attention.qkv");
    mb_optimizer *sgd = mb_sgd(s.p, (mb_sgd_options){.lr = 1});
    mb_snapshot *start = mb_snapshot_new(s.p);
    for (int k = 0; k < 3; k++) {
        tuning made;
        mb_optimizer_set_lr(sgd, k == 0 ? 1e-2 : k == 1 ? 1e-3 : 0);
        tune(&s.d, s.p, sgd, &s.told, GD, &made);
        look(&s.d, &s.told, false, tuned);
        measure_all(zero, icl, tuned, NULL, &made, 5, rows[k]);
        mb_snapshot_restore(start, "");
        tuning_free(&made);
        glimpses_free(tuned, 5);
    }
    for (int l = 0; l < 2; l++) {
        for (int m = 0; m < MEASURES; m++)
            for (int k = 0; k < 3; k++)
                expect(m == ALPHA || (isfinite(rows[k][m][l]) && fabs(rows[k][m][l]) <= 1 + 1e-9), "finite");
        /* Of the first order in the rate, but for rounding of small updates. */
        expect(fabs(rows[0][AOU][l] - rows[1][AOU][l]) < 0.03, "SimAOU %g, %g", rows[0][AOU][l],
               rows[1][AOU][l]);
        expect(fabs(rows[1][AM][l] - rows[2][AM][l]) < 0.02, "SimAM %g, %g", rows[1][AM][l], rows[2][AM][l]);
        expect(fabs(rows[0][AM][l] - rows[2][AM][l]) < 0.2, "SimAM %g, %g", rows[0][AM][l], rows[2][AM][l]);
        expect(rows[2][AOU][l] == 0 && rows[2][AM_D][l] == 0, "no update at all");
        double still = 0;
        for (int i = 0; i < 5; i++)
            for (int h = 0; h < 2; h++)
                still += update_cosine(icl[i].scores + (ptrdiff_t)(l * 2 + h) * 3, NULL,
                                       zero[i].scores + (ptrdiff_t)(l * 2 + h) * 3, NULL, 3, false) /
                         10;
        expect(fabs(still - rows[2][AM][l]) < 1e-5, "cos(m_ICL, m_ZS)");
    }
    glimpses_free(zero, 5);
    glimpses_free(icl, 5);
    mb_snapshot_free(start);
    mb_optimizer_free(sgd);
    end_subject(&s);
}

/* What is seen of a query is what its own prompt, alone, shows; also where lengths differ. */
Test(lcgd_example, queries_do_not_see_each_other)
{
    subject s = new_subject(2);
    static const int32_t texts[4][3] = {{0, 5, 9}, {3, 2, 1}, {7, 8, 0}, {4, 4, 4}};
    static const int64_t lengths[4] = {3, 3, 2, 3};
    problem all = problem_new(1, 4, LENGTH + 12);
    glimpse together[4] = {{0}}, alone[1] = {{0}};
    problem_add(&all, 0, s.told.tokens, LENGTH);
    all.candidates[all.candidate_count++] = first_label();
    all.candidates[all.candidate_count++] = first_label() + 2;
    for (int i = 0; i < 4; i++) {
        problem_add(&all, 1 + i, texts[i], lengths[i]);
        all.label[i] = first_label() + 2;
    }
    expect(all.told == LENGTH, "tokens of demonstrations");
    look(&s.d, &all, true, together);
    for (int q = 0; q < 4; q++) {
        problem one = problem_new(1, 1, LENGTH + 3);
        problem_add(&one, 0, s.told.tokens, LENGTH);
        problem_add(&one, 1, texts[q], lengths[q]);
        memcpy(one.candidates, all.candidates, sizeof one.candidates);
        one.candidate_count = 2;
        one.label[0] = first_label() + 2;
        look(&s.d, &one, true, alone);
        float sum = 0;
        for (int i = 0; i < 2 * 16; i++)
            expect(fabsf(together[q].output[i] - alone[0].output[i]) < 1e-5f &&
                       fabsf(together[q].query[i] - alone[0].query[i]) < 1e-5f,
                   "output and query");
        expect(together[q].text == lengths[q] && alone[0].text == lengths[q], "text");
        for (int i = 0; i < 2 * 2 * lengths[q]; i++)
            expect(fabsf(together[q].scores[i] - alone[0].scores[i]) < 1e-5f, "scores");
        for (int i = 0; i < 2 * LENGTH; i++) {
            expect(fabsf(together[q].weights[i] - alone[0].weights[i]) < 1e-5f && alone[0].weights[i] >= 0,
                   "weights");
            sum += alone[0].weights[i];
        }
        expect(sum > 0 && sum < 4, "at most 1 for each head and layer: %g", (double)sum);
        expect(together[q].right == alone[0].right, "guesses");
        glimpses_free(alone, 1);
        problem_free(&one);
    }
    glimpses_free(together, 4);
    problem_free(&all);
    end_subject(&s);
}

Test(lcgd_example, recalled_and_predicted)
{
    glimpse zero[4] = {{0}}, icl[4] = {{0}}, tuned[4] = {{0}};
    expect(isnan(rec2ftp(zero, icl, tuned, 4)), "nothing beyond");
    tuned[0].right = tuned[1].right = tuned[2].right = true;
    icl[1].right = icl[3].right = true;
    zero[2].right = true; /* not beyond */
    expect(rec2ftp(zero, icl, tuned, 4) == 0.5 && accuracy(tuned, 4) == 0.75, "one of two");
}
