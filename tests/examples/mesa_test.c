/* SPDX-License-Identifier: MIT
 *
 * mesa_test.c - what examples/mesa draws, what its learners guess, against plain loops and direct solves, and
 * what it does to weights. */
#include "examples/mesa.h"
#include "support.h"

plan set = {.task = "full",
            .backend = "reference",
            .steps = 2,
            .solver_steps = 2,
            .shots = 12,
            .prefix = 3,
            .tune_steps = 3,
            .tune_lr = 1e-2,
            .distil_steps = 30,
            .batch = 6,
            .validation = 8,
            .every = 1};

/* The sum of squares that a linear map from each s_t to s_{t+1} leaves, of count sequences together, by all.
 */
static double left_over(mb_tensor s, int64_t count)
{
    pairs p = pairs_of(mb_slice(s, 0, 0, count, 1), FULL);
    int64_t seen = mb_dim(s, 2);
    mb_tensor x = mb_reshape(p.now, MB_SHAPE(-1, seen)), y = mb_reshape(p.next, MB_SHAPE(-1, seen));
    mb_tensor rest = mb_sub(y, mb_matmul(x, mb_lstsq(x, y, MB_EMPTY(mb_tensor))));
    return mb_item(mb_div(mb_sum(mb_square(rest), MB_ALL), mb_sum(mb_square(y), MB_ALL)));
}

/* Linear systems have a map for each sequence, and the fixed teacher one for all; noise of 0.01 leaves about
 * 1e-4 / (1/3) of the squares. Without the state, or by another map, much is left. */
Test(mesa_example, sequences_follow_their_systems)
{
    static const struct {
        task which;
        bool alone, together;
    } cases[] = {
        {FULL, true, false}, {FIXED, true, true}, {PARTIAL, false, false}, {NONLINEAR, false, false}};
    for (int i = 0; i < COUNT(cases); i++) {
        mb_context *mb = open_on("reference");
        mb_tensor s = draw_sequences(mb, mb_key_of(5), cases[i].which, MB_FLOAT64, 6);
        expect(same_shape(mb_shape_of(s), MB_SHAPE(6, LENGTH + 1, tasks[cases[i].which].seen)), "shape");
        double alone = left_over(s, 1), together = left_over(s, 6);
        const char *name = tasks[cases[i].which].name;
        expect(cases[i].alone ? alone < 1e-3 : alone > 3e-3, "%s: %g is left of one", name, alone);
        expect(cases[i].together ? together < 1e-3 : together > 0.1, "%s: %g is left of all", name, together);
        close_all();
    }
}

/* An orthogonal map keeps the length; a contracting one does not, and is clipped. */
Test(mesa_example, sizes_of_states)
{
    mb_context *mb = open_on("reference");
    double first, last;
    mb_tensor s = draw_sequences(mb, mb_key_of(5), FULL, MB_FLOAT64, 50);
    first = mb_item(mb_norm(mb_slice(s, 1, 0, 1, 1), MB_ALL)),
    last = mb_item(mb_norm(mb_slice(s, 1, LENGTH, 1, 1), MB_ALL));
    expect(fabs(last / first - 1) < 0.02, "%g from %g", last, first);
    s = draw_sequences(mb, mb_key_of(5), CONTRACTING, MB_FLOAT64, 50);
    first = mb_item(mb_mean(mb_abs(mb_slice(s, 1, 0, 1, 1)), MB_ALL));
    last = mb_item(mb_mean(mb_abs(mb_slice(s, 1, LENGTH, 1, 1)), MB_ALL));
    expect(last < 0.5 * first && mb_item(mb_max(mb_abs(s), MB_ALL)) <= 2, "%g from %g", last, first);
    close_all();
}

/* Sequence b, guess of token t + 1, by a loop: eta sum over j < t of s_{j+1} (s_j . s_t). */
static void descended(const double *s, double eta, int b, int t, double out[SLOT])
{
    const double *of = s + (ptrdiff_t)b * (LENGTH + 1) * SLOT, *now = of + (ptrdiff_t)t * SLOT;
    memset(out, 0, SLOT * sizeof *out);
    for (int j = 0; j < t; j++) {
        double like = 0;
        for (int i = 0; i < SLOT; i++)
            like += of[j * SLOT + i] * now[i];
        for (int i = 0; i < SLOT; i++)
            out[i] += eta * of[(j + 1) * SLOT + i] * like;
    }
}

Test(mesa_example, descent_equals_a_loop)
{
    mb_context *mb = open_on("reference");
    mb_tensor sequences = draw_sequences(mb, mb_key_of(3), FULL, MB_FLOAT64, 2);
    const double *s = values(sequences),
                 *got = values(descend(pairs_of(sequences, FULL), mb_scalar(mb, MB_FLOAT64, 0.03)));
    for (int b = 0; b < 2; b++)
        for (int t = 0; t < LENGTH; t++) {
            double want[SLOT];
            descended(s, 0.03, b, t, want);
            for (int i = 0; i < SLOT; i++)
                expect(fabs(got[(b * LENGTH + t) * SLOT + i] - want[i]) < 1e-12, "token %d", t);
        }
    close_all();
}

/* Of the pairs before a token, directly; also where the state is pieced together of the last observations,
 * and with the teacher's features, which leave little but noise. */
Test(mesa_example, least_squares_equal_a_direct_solve)
{
    static const task cases[] = {FULL, PARTIAL, NONLINEAR};
    for (int k = 0; k < COUNT(cases); k++) {
        mb_context *mb = open_on("reference");
        pairs p = pairs_of(draw_sequences(mb, mb_key_of(4), cases[k], MB_FLOAT64, 2), cases[k]);
        mb_tensor guess = least_squares(p, 10);
        for (int t = 1; t < LENGTH; t += 12) { /* pairs (z_j, s_{j+1}), j < t */
            mb_tensor x = mb_slice(p.recent, 1, 0, t, 1), y = mb_slice(p.now, 1, 1, t, 1);
            mb_tensor W = mb_lstsq(x, y, mb_scalar(mb, MB_FLOAT64, 0.1));
            mb_tensor want = mb_matmul(mb_slice(p.recent, 1, t, 1, 1), W), got = mb_slice(guess, 1, t, 1, 1);
            expect(mb_item(mb_max(mb_abs(mb_sub(want, got)), MB_ALL)) < 1e-9, "%d: token %d", k, t);
        }
        mb_tensor last = mb_slice(loss_by_token(guess, p.next), 0, LENGTH - 1, 1, 1);
        expect(cases[k] == PARTIAL || mb_item(last) < 0.02, "%d: %g at the end", k, mb_item(last));
        close_all();
    }
}

/* The known losses of the learners, on few sequences; proposition 1. */
Test(mesa_example, learners)
{
    solvers s = {0};
    set.validation = 256;
    run_solvers(&s);
    set.validation = 8;
    expect(fabs(s.loss[ZERO] - 1.69) < 0.1 && fabs(s.loss_at_known_eta - 0.909) < 0.06, "zero %g, GD %g",
           s.loss[ZERO], s.loss_at_known_eta);
    expect(s.loss[GD] <= s.loss_at_known_eta + 1e-6 && fabs(s.eta - 0.032) < 0.002, "eta %g", s.eta);
    expect(fabs(s.ridge_loss[0] - 0.249) < 0.02 && fabs(s.loss[RLS] - 0.187) < 0.015, "least squares %g, %g",
           s.ridge_loss[0], s.loss[RLS]);
    expect(s.guess_error < 1e-12 && s.eta_error < 1e-10 && s.start_error < 1e-10, "proposition 1: %g %g %g",
           s.guess_error, s.eta_error, s.start_error);
}

static double apart(mb_tensor a, mb_tensor b)
{
    return mb_item(mb_div(mb_max(mb_abs(mb_sub(a, b)), MB_ALL), mb_max(mb_abs(b), MB_ALL)));
}

/* Products are the same function; what is made of multiples of identities loses nothing by being compressed,
 * and another network does. */
Test(mesa_example, products_and_compressed_networks)
{
    mb_context *mb = open_on("reference");
    mb_params *p = mb_params_new(mb, 1);
    model m = models[LINEAR_TWO];
    m.init = 0.05;
    network n = network_new(p, &m, SLOT, SLOT), products = products_of(&n), few = compressed(&products),
            again = compressed(&few);
    network between = halfway(&products, &products);
    pairs s = pairs_of(draw_sequences(mb, mb_key_of(3), FULL, MB_FLOAT32, 4), FULL);
    mb_tensor guess = network_apply(&n, s, NULL);
    expect(apart(network_apply(&products, s, NULL), guess) < 1e-5, "products");
    expect(apart(network_apply(&between, s, NULL), guess) < 1e-5, "halfway to itself");
    expect(apart(network_apply(&few, s, NULL), guess) > 1e-2, "compressed");
    expect(apart(network_apply(&again, s, NULL), network_apply(&few, s, NULL)) < 1e-5, "compressed twice");
    mb_params_free(p);
    close_all();
}

/* A guess must not depend on what comes later. */
Test(mesa_example, guesses_are_causal)
{
    for (int k = 0; k < MODELS; k++) {
        mb_context *mb = open_on("reference");
        mb_params *p = mb_params_new(mb, 1);
        model m = models[k];
        m.init = 0.1, m.clip = 0;
        network n = network_new(p, &m, SLOT, SLOT);
        mb_tensor s = draw_sequences(mb, mb_key_of(3), FULL, MB_FLOAT32, 2), g;
        pairs all = pairs_of(s, FULL);
        mb_tensor guess = mb_slice(network_apply(&n, all, NULL), 1, 20, 1, 1);
        mb_grad(guess, &s, 1, &g);
        mb_tensor later = mb_norm(mb_slice(g, 1, 21, LENGTH - 20, 1), MB_ALL),
                  before = mb_norm(mb_slice(g, 1, 0, 21, 1), MB_ALL);
        expect(mb_item(later) == 0 && mb_item(before) > 0, "%s: %g, %g", models[k].name, mb_item(later),
               mb_item(before));
        mb_params_free(p);
        close_all();
    }
}

/* Training sequences differ from step to step and seed to seed, and from the validation's, which stay. */
Test(mesa_example, streams)
{
    mb_context *mb = open_on("reference");
    int64_t count;
    set.batch = 8;
    mb_tensor all[] = {validation_batch(mb, 0, &count), training_batch(mb, 0, 0), training_batch(mb, 0, 1),
                       training_batch(mb, 1, 0)};
    expect(count == 8 && apart(validation_batch(mb, 0, &count), all[0]) == 0, "the validation's change");
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < i; k++)
            expect(apart(all[i], all[k]) > 0.1, "%d and %d are the same", i, k);
    close_all();
}

/* The first layer's last token, of a sequence for each entry of s_t', which is moved by `by`. */
static mb_tensor moved(const network *n, mb_tensor sequence, int64_t where, double by)
{
    mb_tensor move = mb_mul(mb_eye(sequence.ctx, MB_FLOAT32, SLOT), by), tokens[MOST_LAYERS + 1];
    move = mb_pad(mb_unsqueeze(move, 1), 1, where, LENGTH - where);
    network_apply(n, pairs_of(mb_add(sequence, move), FULL), tokens);
    return mb_squeeze(mb_slice(tokens[1], 1, LENGTH - 1, 1, 1), 1);
}

/* Against differences; of one sequence. */
Test(mesa_example, sensitivity_equals_differences)
{
    static const int kinds[] = {LINEAR_TWO, MESA_ONE, HYBRID};
    for (int k = is_slow() ? 2 : 0; k < COUNT(kinds); k++) { /* a run of the model for each token */
        mb_context *mb = open_on("reference");
        mb_params *p = mb_params_new(mb, 1);
        model m = models[kinds[k]];
        m.init = 0.1, m.clip = 0;
        network n = network_new(p, &m, SLOT, SLOT);
        double norms[SENSED], older = 0, step = 1e-2;
        set.batch = 1;
        measure_sensitivity(mb, &n, norms);
        mb_tensor s = draw_sequences(mb, key_of(set.first_seed, STREAM_SENSITIVITY, 0), FULL, MB_FLOAT32, 1);
        for (int back = 0; back < LENGTH; back++) {
            int64_t t = LENGTH - 1 - back;
            mb_tensor d = mb_sub(moved(&n, s, t, step), moved(&n, s, t, -step)); /* [SLOT,width] */
            double want = mb_item(mb_mean(mb_norm(d, MB_AXES(0)), MB_ALL)) / (2 * step);
            if (back < SENSED - 1)
                expect(fabs(norms[back] / want - 1) < 1e-2, "%d: %g, %g", back, norms[back], want);
            else
                older += want / (LENGTH - SENSED + 1);
        }
        expect(fabs(norms[SENSED - 1] / older - 1) < 2e-2, "older: %g, %g", norms[SENSED - 1], older);
        set.batch = 6;
        mb_params_free(p);
        close_all();
    }
}

/* What is left of the squares of the last token after the best multiple of the guess, by a loop: pairs
 * weighted by exp(beta s_j . s_t), or by s_j . s_t where beta is 0. */
static double left_by(const double *s, int64_t count, int64_t n, double beta)
{
    int64_t T = 4 * n;
    double along = 0, guesses = 0, wants = 0;
    for (int64_t b = 0; b < count; b++, s += (T + 1) * n) {
        double guess[8] = {0}, total = 0;
        for (int64_t j = 0; j + 1 < T; j++) {
            double like = 0;
            for (int64_t i = 0; i < n; i++)
                like += s[j * n + i] * s[(T - 1) * n + i];
            double weight = beta > 0 ? exp(beta * like) : like;
            for (int64_t i = 0; i < n; i++)
                guess[i] += weight * s[(j + 1) * n + i];
            total += weight;
        }
        for (int64_t i = 0; i < n; i++) {
            double g = beta > 0 ? guess[i] / total : guess[i], want = s[T * n + i];
            along += g * want, guesses += g * g, wants += want * want;
        }
    }
    return 1 - along * along / guesses / wants;
}

Test(mesa_example, softmax_over_pairs_equals_a_loop)
{
    static kernels k;
    mb_context *mb = open_on("reference");
    set.validation = 40;
    compare_kernels(&k, mb);
    set.validation = 8;
    for (int size = 0; size < 2; size++) {
        int64_t n = kernel_sizes[size], count = 4;
        mb_key key = key_of(set.first_seed, STREAM_KERNELS, n);
        const double *s = values(draw_systems(mb, key, count, n, 4 * n));
        double want = left_by(s, count, n, k.beta[size]);
        expect(fabs(k.left[size][KERNEL] - want) < 1e-4, "softmax %g, %g", k.left[size][KERNEL], want);
        expect(want <= left_by(s, count, n, k.beta[size] * sqrt(2)) + 1e-4 &&
                   want <= left_by(s, count, n, k.beta[size] / sqrt(2)) + 1e-4,
               "another beta is better than %g", k.beta[size]);
        want = left_by(s, count, n, 0);
        expect(fabs(k.left[size][LINEAR_KERNEL] - want) < 1e-4, "linear %g, %g", k.left[size][LINEAR_KERNEL],
               want);
        expect(k.left[size][LAST_SQUARES] < 0.02, "least squares %g", k.left[size][LAST_SQUARES]);
    }
    close_all();
}

/* Softmax layers have a linear one that does part of what they do; others have none, and the network stays.
 */
Test(mesa_example, softmax_layers_are_made_linear)
{
    static trial t;
    mb_context *mb = open_on("reference");
    mb_params *p = mb_params_new(mb, 1);
    model m = models[SOFTMAX_TWO];
    m.init = 0.2, m.others = LINEAR;
    network n = network_new(p, &m, SLOT, SLOT);
    pairs s = pairs_of(draw_sequences(mb, mb_key_of(3), FULL, MB_FLOAT32, 4), FULL);
    mb_tensor guess = network_apply(&n, s, NULL);
    t = (trial){.model = SOFTMAX_TWO};
    expect(run_linearised(&t, mb, &n), "stopped");
    expect(t.linearised.left[0] > 0 && t.linearised.left[0] < 0.95, "layer 1: %g is left",
           t.linearised.left[0]);
    double loss = measured(mb, &n, NULL);
    expect(t.linearised.loss[0] != loss && fabs(t.linearised.loss[0] / loss - 1) < 1, "%g from %g",
           t.linearised.loss[0], loss);
    expect(isnan(t.linearised.left[1]) && isnan(t.linearised.loss[1]), "layer 2 is linear");
    expect(apart(network_apply(&n, s, NULL), guess) == 0, "the network has changed");
    mb_params_free(p);
    close_all();
}

/* Slots of other sizes: guesses that depend on no later token, whatever tokens are, and derivatives by all
 * parameters. */
Test(mesa_example, networks_of_other_sizes)
{
    static const int kinds[] = {LINEAR_TWO, MESA_ONE, HYBRID, SOFTMAX_TWO};
    enum { ENTRIES = 4, N = 16, AT = 9 };
    for (int k = 0; k < COUNT(kinds); k++) {
        mb_context *mb = open_on("reference");
        mb_params *p = mb_params_new(mb, 1);
        model m = models[kinds[k]];
        m.init = 0.2, m.clip = 0;
        network n = network_new(p, &m, ENTRIES, ENTRIES);
        mb_tensor s = draw_systems(mb, mb_key_of(3), 2, ENTRIES, N), by[2] = {s, n.layer[0].value}, g[2];
        pairs all = pairs_of(s, FULL);
        mb_tensor guess = network_apply(&n, all, NULL);
        expect(same_shape(mb_shape_of(guess), MB_SHAPE(2, N, ENTRIES)), "%s: shape", m.name);
        expect(mb_dim(n.layer[0].value, 2) == SLOTS * ENTRIES, "%s: width", m.name);
        mb_grad(mb_sum(mb_slice(guess, 1, AT, 1, 1), MB_ALL), by, 2, g);
        double later = mb_item(mb_norm(mb_slice(g[0], 1, AT + 1, N - AT, 1), MB_ALL)),
               value = mb_item(mb_norm(g[1], MB_ALL));
        expect(later == 0 && isfinite(value) && value > 0, "%s: %g, %g", m.name, later, value);
        mb_params_free(p);
        close_all();
    }
}

/* Proposition 1, with slots of 4 entries, is a step of descent from zero. */
Test(mesa_example, constructed_layer_of_another_size)
{
    mb_context *mb = open_on("reference");
    mb_tensor s = mb_cast(draw_systems(mb, mb_key_of(3), 3, 4, 16), MB_FLOAT64);
    mb_tensor eta = mb_scalar(mb, MB_FLOAT64, 0.05), zero = mb_zeros(mb, MB_FLOAT64, MB_SHAPE(4, 4));
    pairs p = pairs_of(s, FULL);
    expect(apart(constructed_apply(eta, zero, p), descend(p, eta)) < 1e-12, "another guess");
    close_all();
}

/* The loss of guessing example k of each task by least squares of the n rows before it, x -> y, at x. */
static double direct(mb_tensor x, mb_tensor y, mb_tensor at, mb_tensor want, int64_t n)
{
    mb_tensor guess = mb_zeros(x.ctx, MB_FLOAT64, mb_shape_of(at));
    if (n) {
        mb_tensor ridge = mb_scalar(x.ctx, MB_FLOAT64, ridges[RIDGES - 1]);
        guess = mb_matmul(at, mb_lstsq(mb_slice(x, 1, 0, n, 1), mb_slice(y, 1, 0, n, 1), ridge));
    }
    return mb_item(loss_by_token(guess, want));
}

/* Maps keep lengths and change half way; least squares of the examples, and of all neighbours, are what a
 * direct solve says. */
Test(mesa_example, regression_in_context)
{
    static solvers s;
    mb_context *mb = open_on("reference");
    solve_shots(&s, mb);
    examples e = draw_examples(mb, key_of(set.first_seed, STREAM_SHOTS, 0), set.validation, 2);
    int64_t K = 2 * set.shots;
    mb_tensor x = mb_cast(e.x, MB_FLOAT64), y = mb_cast(e.y, MB_FLOAT64);
    expect(apart(mb_norm(y, MB_AXES(2)), mb_norm(x, MB_AXES(2))) < 1e-5, "lengths");
    mb_tensor part[2] = {mb_unsqueeze(x, 2), mb_unsqueeze(y, 2)};
    mb_tensor all = mb_reshape(mb_concat(part, 2, 2), MB_SHAPE(set.validation, 2 * K, SLOT));
    for (int64_t k = 0; k < K; k += 5) {
        mb_tensor at = mb_slice(x, 1, k, 1, 1), want = mb_slice(y, 1, k, 1, 1);
        double examples_alone = direct(x, y, at, want, k),
               neighbours = direct(all, mb_slice(all, 1, 1, 2 * K - 1, 1), at, want, 2 * k);
        expect(fabs(s.by_shot[1][k] / examples_alone - 1) < 1e-2, "%g, %g", s.by_shot[1][k], examples_alone);
        expect(fabs(s.by_shot[0][k] / neighbours - 1) < 1e-2, "%g, %g", s.by_shot[0][k], neighbours);
    }
    expect(s.by_shot[1][set.shots - 1] < 0.05 && s.by_shot[1][set.shots] > 1, "the map does not change");
    close_all();
}

/* Plain, a network sees x and y in turn; what is tuned is shown too, and the network stays. */
Test(mesa_example, prompts_are_tuned)
{
    static trial t;
    mb_context *mb = open_on("reference");
    mb_params *p = mb_params_new(mb, 1);
    model m = models[HYBRID];
    m.init = 0.3;
    network n = network_new(p, &m, SLOT, SLOT);
    examples e = draw_examples(mb, key_of(set.first_seed, STREAM_SHOTS, 0), set.validation, 2);
    mb_tensor part[2] = {mb_unsqueeze(e.x, 2), mb_unsqueeze(e.y, 2)};
    mb_tensor tokens = mb_reshape(mb_concat(part, 2, 2), MB_SHAPE(set.validation, -1, SLOT));
    mb_tensor guess = network_apply(&n, (pairs){.now = tokens, .before = delayed(tokens, 1)}, NULL);
    t = (trial){.model = HYBRID};
    expect(run_shots(&t, mb, &n), "stopped");
    mb_tensor losses = loss_by_token(mb_slice(guess, 1, 0, 2 * set.shots, 2), e.y);
    const double *want = values(losses);
    for (int k = 0; k < 2 * set.shots; k++) {
        expect(fabs(t.by_shot[PLAIN][k] / want[k] - 1) < 1e-4, "%d: %g, %g", k, t.by_shot[PLAIN][k], want[k]);
        expect(isfinite(t.by_shot[EOS_PREFIX][k]), "%d: %g", k, t.by_shot[EOS_PREFIX][k]);
    }
    expect(t.by_shot[EOS][0] == t.by_shot[PLAIN][0] && t.by_shot[EOS][1] != t.by_shot[PLAIN][1],
           "a token after the first example");
    expect(t.by_shot[EOS_PREFIX][0] != t.by_shot[PLAIN][0], "tokens before the first example");
    mb_tensor again = network_apply(&n, (pairs){.now = tokens, .before = delayed(tokens, 1)}, NULL);
    expect(apart(again, guess) == 0, "the network has changed");
    mb_params_free(p);
    close_all();
}

/* Of states of four entries, nearly untrained: losses are those of guessing zero, E |s|^2 / 2 of states whose
 * entries are uniform on [-1,1), and both layers have linear ones in their place. */
Test(mesa_example, a_size)
{
    static const char *const tokens[] = {"bare", "constructed"};
    int64_t distil_steps = set.distil_steps;
    set.backend = "cpu";
    set.size_steps = set.distil_steps = 3;
    for (int k = 0; k < COUNT(tokens); k++) {
        size_run s = {.entries = 4};
        set.size_tokens = tokens[k];
        run_size(&s);
        expect(s.complete && fabs(s.zero / (4 / 6.0) - 1) < 0.2, "%s: zero %g", tokens[k], s.zero);
        expect(fabs(s.loss / s.zero - 1) < 0.2, "%s: %g, zero %g", tokens[k], s.loss, s.zero);
        for (int l = 0; l < SIZE_LAYERS; l++)
            expect(s.linearised.left[l] > 0 && fabs(s.linearised.loss[l] / s.loss - 1) < 0.2,
                   "%s: layer %d: %g, %g", tokens[k], l + 1, s.linearised.left[l], s.linearised.loss[l]);
    }
    set.backend = "reference", set.distil_steps = distil_steps;
}

/* A run of two steps: a loss at each measurement, one for each token at the end, and probes between 0 and 1.
 */
Test(mesa_example, a_trial)
{
    static trial t; /* large */
    solvers s = {.chebyshev_eta = 1};
    t = (trial){.model = HYBRID, .steps = 2};
    set.backend = "cpu"; /* probes are large */
    run_trial(&t, &s);
    set.backend = "reference";
    expect(t.complete && t.loss.n == 3, "%d measurements", t.loss.n);
    double mean = 0;
    for (int i = 0; i < LENGTH; i++)
        mean += t.by_token[i] / LENGTH;
    expect(fabs(mean - t.loss.value[2]) < 1e-6, "by token %g, together %g", mean, t.loss.value[2]);
    for (int l = 0; l <= 2; l++)
        for (int i = 0; i < LENGTH; i++)
            expect(t.target_probe[l][i] >= 0 && t.target_probe[l][i] < 1.2, "layer %d, token %d: %g", l, i,
                   t.target_probe[l][i]);
    expect(t.binding[0] < 1e-6 && t.binding[7] > 0.1, "the last token itself %g, seven before %g",
           t.binding[0], t.binding[7]);
    for (int i = 0; i < SENSED; i++)
        expect(t.sensitivity[i].n == 3 && t.sensitivity[i].value[2] > 0, "sensitivity %d: %d", i,
               t.sensitivity[i].n);
    trial_free(&t);
}
