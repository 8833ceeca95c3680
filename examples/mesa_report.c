/* SPDX-License-Identifier: MIT
 *
 * mesa_report.c - tables, pictures and the summary: trained networks beside learners that are written down.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mesa.h"

/* ---- tables ---- */

/* What a linear layer in place of layer l makes of the loss. */
static double ratio_of(const trial *t, int l)
{
    return t->linearised.loss[l] / t->loss.value[t->loss.n - 1];
}

static double size_ratio(const size_run *s, int l)
{
    return s->linearised.loss[l] / s->loss;
}

static void write_training(const results *r)
{
    csv c = {0};
    csv_open(&c, r->folder, "training.csv", "model,seed,step,loss");
    for (int i = 0; i < r->trial_count; i++) {
        const trial *t = &r->trials[i];
        for (int k = 0; k < t->loss.n; k++) {
            fprintf(c.file, "%s,%lld,", models[t->model].name, (long long)t->seed);
            csv_row(&c, (double[]){t->loss.step[k], t->loss.value[k]}, 2);
        }
    }
    csv_close(&c);
}

static void write_by_token(const results *r)
{
    csv c = {0};
    csv_open(&c, r->folder, "by_token.csv", "model,seed,token,loss");
    for (int s = 0; s < SOLVERS && r->solvers.complete; s++)
        for (int t = 0; t < LENGTH; t++)
            fprintf(c.file, "%s,,%d,%.9g\n", solver_names[s], t + 1, r->solvers.by_token[s][t]);
    for (int i = 0; i < r->trial_count; i++)
        for (int t = 0; t < LENGTH && r->trials[i].complete; t++)
            fprintf(c.file, "%s,%lld,%d,%.9g\n", models[r->trials[i].model].name,
                    (long long)r->trials[i].seed, t + 1, r->trials[i].by_token[t]);
    csv_close(&c);
}

static void write_probes(const results *r)
{
    csv c = {0};
    csv_open(&c, r->folder, "probes.csv", "model,seed,layer,token,next_left,preconditioned_left");
    for (int i = 0; i < r->trial_count; i++) {
        const trial *t = &r->trials[i];
        for (int l = 0; l <= models[t->model].layers && t->complete; l++)
            for (int k = 0; k < LENGTH; k++) {
                fprintf(c.file, "%s,%lld,%d,%d,", models[t->model].name, (long long)t->seed, l, k + 1);
                csv_row(&c, (double[]){t->target_probe[l][k], t->solution_probe[l][k]}, 2);
            }
    }
    csv_close(&c);
    csv_open(&c, r->folder, "binding.csv", "model,seed,tokens_back,left");
    for (int i = 0; i < r->trial_count; i++)
        for (int k = 0; k < COUNT(r->trials[i].binding) && r->trials[i].complete; k++)
            fprintf(c.file, "%s,%lld,%d,%.9g\n", models[r->trials[i].model].name,
                    (long long)r->trials[i].seed, k, r->trials[i].binding[k]);
    csv_close(&c);
}

static void write_sensitivity(const results *r)
{
    csv c = {0};
    csv_open(&c, r->folder, "sensitivity.csv", "model,seed,step,now,one_back,two_back,three_back,older");
    for (int i = 0; i < r->trial_count; i++) {
        const trial *t = &r->trials[i];
        for (int k = 0; k < t->sensitivity[0].n; k++) {
            double row[1 + SENSED] = {t->sensitivity[0].step[k]};
            for (int s = 0; s < SENSED; s++)
                row[1 + s] = t->sensitivity[s].value[k];
            fprintf(c.file, "%s,%lld,", models[t->model].name, (long long)t->seed);
            csv_row(&c, row, COUNT(row));
        }
    }
    csv_close(&c);
}

static void write_linearised(const results *r)
{
    csv c = {0};
    csv_open(&c, r->folder, "linearised.csv", "model,seed,layer,left,loss,ratio");
    for (int i = 0; i < r->trial_count; i++) {
        const trial *t = &r->trials[i];
        for (int l = 0; l < models[t->model].layers && t->complete && set.distil_steps > 0; l++)
            if (!isnan(t->linearised.left[l])) {
                fprintf(c.file, "%s,%lld,%d,", models[t->model].name, (long long)t->seed, l + 1);
                csv_row(&c, (double[]){t->linearised.left[l], t->linearised.loss[l], ratio_of(t, l)}, 3);
            }
    }
    csv_close(&c);
    const kernels *k = &r->solvers.kernels;
    csv_open(&c, r->folder, "kernels.csv", "entries,softmax,beta,step,least_squares");
    for (int s = 0; s < SIZES && r->solvers.complete; s++)
        csv_row(&c,
                (double[]){(double)kernel_sizes[s], k->left[s][KERNEL], k->beta[s], k->left[s][LINEAR_KERNEL],
                           k->left[s][LAST_SQUARES]},
                5);
    csv_close(&c);
}

/* The smallest first. */
static void write_sizes(const results *r)
{
    csv c = {0};
    csv_open(&c, r->folder, "sizes.csv", "entries,layer,zero,loss,left,linearised_loss,ratio");
    for (int i = r->size_count - 1; i >= 0; i--) {
        const size_run *s = &r->sizes[i];
        for (int l = 0; l < SIZE_LAYERS && s->complete; l++)
            csv_row(&c,
                    (double[]){(double)s->entries, l + 1, s->zero, s->loss, s->linearised.left[l],
                               s->linearised.loss[l], size_ratio(s, l)},
                    7);
    }
    csv_close(&c);
}

static const char *const pair_names[2] = {"all pairs", "examples"};

static void shot_rows(csv *c, const char *learner, const char *seed, const char *how, const double *by_shot)
{
    for (int k = 0; k < 2 * set.shots; k++)
        fprintf(c->file, "%s,%s,%s,%d,%.9g\n", learner, seed, how, k + 1, by_shot[k]);
}

static void write_shots(const results *r)
{
    csv c = {0};
    if (!shots_wanted())
        return;
    csv_open(&c, r->folder, "shots.csv", "learner,seed,how,example,loss");
    for (int w = 0; w < 2 && r->solvers.complete; w++)
        shot_rows(&c, "least squares", "", pair_names[w], r->solvers.by_shot[w]);
    for (int i = 0; i < r->trial_count; i++) {
        const trial *t = &r->trials[i];
        char seed[24];
        snprintf(seed, sizeof seed, "%lld", (long long)t->seed);
        for (int w = 0; w < WAYS && t->complete; w++)
            shot_rows(&c, models[t->model].name, seed, way_names[w], t->by_shot[w]);
    }
    csv_close(&c);
}

void write_tables(const results *r)
{
    csv c = {0};
    write_training(r);
    write_by_token(r);
    write_probes(r);
    write_sensitivity(r);
    write_shots(r);
    write_linearised(r);
    write_sizes(r);
    csv_open(&c, r->folder, "learners.csv", "learner,loss");
    for (int s = 0; s < SOLVERS && r->solvers.complete; s++)
        fprintf(c.file, "%s,%.9g\n", solver_names[s], r->solvers.loss[s]);
    csv_close(&c);
    csv_open(&c, r->folder, "chebyshev.csv", "step,alpha,beta");
    for (int k = 0; k < CHEBYSHEV_STEPS && r->solvers.complete; k++)
        csv_row(&c, (double[]){k + 1, r->solvers.alpha[k], r->solvers.beta[k]}, 3);
    csv_close(&c);
}

/* ---- pictures ---- */

static const char *const colours[MODELS] = {"#3b6fb6", "#5aa5c8", "#22407a", "#c8502d",
                                            "#8a5fb0", "#3d8f5f", "#8a8a30"};
static const char *const solver_colours[SOLVERS] = {"#b0b0b0", "#3b6fb6", "#c8502d", "#22407a"};

/* The first run of each model. */
static const trial *first_of(const results *r, int model)
{
    for (int i = 0; i < r->trial_count; i++)
        if (r->trials[i].model == model && r->trials[i].complete)
            return &r->trials[i];
    return NULL;
}

static void draw_training(const results *r)
{
    picture p;
    FILE *f = picture_begin(&p);
    fprintf(f,
            "set title 'Loss on other sequences (%s)'\nset xlabel 'training step'\nset ylabel 'loss'\nset "
            "yrange [0:*]\nplot ",
            tasks[chosen_task()].title);
    for (int m = 0; m < MODELS; m++)
        for (int i = 0; i < r->trial_count; i++)
            if (r->trials[i].model == m)
                fprintf(f,
                        "'training.csv' skip 1 using (strcol(1) eq '%s' && $2==%lld ? $3 : NaN):4 with lines "
                        "lw 1.8 lc rgb '%s' title '%s', \\\n",
                        models[m].name, (long long)r->trials[i].seed, colours[m],
                        &r->trials[i] == first_of(r, m) ? models[m].title : "");
    for (int s = GD; s < SOLVERS; s++)
        fprintf(f, "%g with lines dt 2 lw 1.5 lc rgb '%s' title '%s', \\\n", r->solvers.loss[s],
                solver_colours[s], solver_names[s]);
    fprintf(f, "NaN notitle\n");
    picture_end(&p, r->folder, "training.png", 900, 540);
}

static void draw_by_token(const results *r)
{
    picture p;
    FILE *f = picture_begin(&p);
    fprintf(f,
            "set title 'Loss by token (%s)'\nset xlabel 'tokens seen'\nset ylabel 'loss'\nset logscale "
            "y\nset key bottom left\nplot ",
            tasks[chosen_task()].title);
    for (int s = 0; s < SOLVERS; s++)
        fprintf(f,
                "'by_token.csv' skip 1 using (strcol(1) eq '%s' ? $3 : NaN):4 with lines dt 2 lw 1.5 lc rgb "
                "'%s' title '%s', \\\n",
                solver_names[s], solver_colours[s], solver_names[s]);
    for (int m = 0; m < MODELS; m++)
        if (first_of(r, m))
            fprintf(f,
                    "'by_token.csv' skip 1 using (strcol(1) eq '%s' && $2==%lld ? $3 : NaN):4 with lines lw "
                    "1.8 lc rgb '%s' title '%s', \\\n",
                    models[m].name, (long long)first_of(r, m)->seed, colours[m], models[m].title);
    fprintf(f, "NaN notitle\n");
    picture_end(&p, r->folder, "by_token.png", 900, 540);
}

static int models_of(const results *r)
{
    int n = 0;
    for (int m = 0; m < MODELS; m++)
        n += first_of(r, m) != NULL;
    return n;
}

/* A row for each model: the share of the target's variance that a linear map of a layer's tokens leaves. */
static void draw_probes(const results *r)
{
    int rows = models_of(r);
    if (rows == 0)
        return;
    picture p;
    FILE *f = picture_begin(&p);
    fprintf(f,
            "set multiplot layout %d,2\nset logscale y\nset key bottom left\nset xlabel 'token'\nset ylabel "
            "'left over'\n",
            rows);
    for (int m = 0; m < MODELS; m++)
        for (int column = 0; column < 2 && first_of(r, m); column++) {
            fprintf(f, "set title '%s: %s'\nplot ", models[m].title,
                    column ? "preconditioned token" : "next token");
            for (int l = 0; l <= models[m].layers; l++)
                fprintf(f,
                        "'probes.csv' skip 1 using (strcol(1) eq '%s' && $2==%lld && $3==%d && $4>1 ? $4 : "
                        "NaN):%d "
                        "with lines lw 1.5 title 'layer %d', \\\n",
                        models[m].name, (long long)first_of(r, m)->seed, l, 5 + column, l);
            fprintf(f, "NaN notitle\n");
        }
    fprintf(f, "unset multiplot\n");
    picture_end(&p, r->folder, "probes.png", 1200, 360 * rows + 20);
}

static void draw_sensitivity(const results *r)
{
    static const char *const of[SENSED] = {"s_t", "s_{t-1}", "s_{t-2}", "s_{t-3}", "older, mean"};
    int rows = models_of(r);
    if (rows == 0)
        return;
    picture p;
    FILE *f = picture_begin(&p);
    fprintf(f,
            "set multiplot layout %d,1\nset xlabel 'training step'\nset ylabel \"norm of the first layer's\\n"
            "derivative\"\nset logscale y\nset yrange [1e-4:*]\nset key center right\n",
            rows);
    for (int m = 0; m < MODELS; m++) {
        if (!first_of(r, m))
            continue;
        fprintf(f, "set title '%s'\nplot ", models[m].title);
        for (int s = 0; s < SENSED; s++)
            fprintf(f,
                    "'sensitivity.csv' skip 1 using (strcol(1) eq '%s' && $2==%lld ? $3 : NaN):%d with lines "
                    "lw 1.8 title 'by %s', \\\n",
                    models[m].name, (long long)first_of(r, m)->seed, 4 + s, of[s]);
        fprintf(f, "NaN notitle\n");
    }
    fprintf(f, "unset multiplot\n");
    picture_end(&p, r->folder, "sensitivity.png", 1000, 320 * rows + 20);
}

/* A model: what examples are shown with, beside least squares, whose peak of all pairs is cut. */
static void plot_shots(FILE *f, const results *r, int model)
{
    static const char *const shades[WAYS] = {"#8a8a8a", "#3b6fb6", "#c8502d"};
    fprintf(f, "set title '%s'\nplot ", models[model].title);
    for (int w = 0; w < 2; w++)
        fprintf(f,
                "'shots.csv' skip 1 using (strcol(1) eq 'least squares' && strcol(3) eq '%s' ? $4 : NaN):5 "
                "with lines dt %d lw 1.5 lc rgb '#303030' title 'least squares of %s', \\\n",
                pair_names[w], 2 + w, pair_names[w]);
    for (int w = 0; w < WAYS; w++)
        fprintf(f,
                "'shots.csv' skip 1 using (strcol(1) eq '%s' && $2==%lld && strcol(3) eq '%s' ? $4 : NaN):5 "
                "with lines lw 1.8 lc rgb '%s' title '%s', \\\n",
                models[model].name, (long long)first_of(r, model)->seed, way_names[w], shades[w],
                way_names[w]);
    fprintf(f, "NaN notitle\n");
}

static void draw_shots(const results *r)
{
    int rows = models_of(r);
    if (rows == 0 || !shots_wanted())
        return;
    picture p;
    FILE *f = picture_begin(&p);
    fprintf(f,
            "set multiplot layout %d,1\nset xlabel 'example; after %lld another map'\nset ylabel 'loss'\nset "
            "yrange [0:%g]\nset key outside right\nset arrow from %g,graph 0 to %g,graph 1 nohead dt 3\n",
            rows, (long long)set.shots, 2 * r->solvers.by_shot[0][0], set.shots + 0.5, set.shots + 0.5);
    for (int m = 0; m < MODELS; m++)
        if (first_of(r, m))
            plot_shots(f, r, m);
    fprintf(f, "unset multiplot\n");
    picture_end(&p, r->folder, "shots.png", 1000, 360 * rows + 20);
}

/* A model's layers, one at a time replaced. */
static void plot_layers(FILE *f, const results *r)
{
    fprintf(f,
            "set title 'A linear layer in the place of a softmax one'\nset xlabel 'layer'\nset xtics 1\nset "
            "ylabel 'loss, by that before'\nset offsets 0.5,0.5,0,0\nset yrange [0.9:*]\nplot 1 with lines "
            "dt 3 lc rgb '#808080' notitle, \\\n");
    for (int m = 0; m < MODELS; m++)
        if (set.distil_steps > 0 && first_of(r, m) && models[m].first == SOFTMAX)
            fprintf(f,
                    "'linearised.csv' skip 1 using (strcol(1) eq '%s' && $2==%lld ? $3 : NaN):6 with "
                    "linespoints lw 1.8 pt 7 lc rgb '%s' title '%s', \\\n",
                    models[m].name, (long long)first_of(r, m)->seed, colours[m], models[m].title);
    fprintf(f, "NaN notitle\nunset offsets\nset yrange [*:*]\n");
}

/* The same for states of more and more entries; and what the networks leave of the loss of guessing zero. */
static void plot_sizes(FILE *f)
{
    fprintf(f, "set key top right\nset title 'The same, for states of n entries'\nset xlabel 'entries of a "
               "state, n'\nset ylabel 'ratio of losses'\nset yrange [0:*]\nplot 1 with lines dt 3 lc rgb "
               "'#808080' notitle, \\\n");
    for (int l = 0; l < SIZE_LAYERS; l++)
        fprintf(f,
                "'sizes.csv' skip 1 every %d::%d using 1:7 with linespoints lw 1.8 pt 7 title 'layer %d made "
                "linear, by the network', \\\n",
                SIZE_LAYERS, l, l + 1);
    fprintf(
        f,
        "'sizes.csv' skip 1 every %d using 1:($4/$3) with linespoints dt 2 pt 7 lc rgb '#606060' title 'the "
        "network, by guessing zero'\nset yrange [*:*]\n",
        SIZE_LAYERS);
}

/* Attention over the pairs themselves. */
static void plot_kernels(FILE *f)
{
    fprintf(f,
            "set logscale y\nset title 'The last of 4n tokens by the pairs before'\nset xlabel 'entries of a "
            "state, n'\nset ylabel 'left over'\nplot ");
    for (int k = 0; k < KERNELS; k++)
        fprintf(f, "'kernels.csv' skip 1 using 1:%d with linespoints lw 1.8 pt 7 title '%s', \\\n",
                k == KERNEL ? 2 : 3 + k, kernel_names[k]);
    fprintf(f, "NaN notitle\n");
}

static void draw_linearised(const results *r)
{
    picture p;
    FILE *f = picture_begin(&p);
    int columns = r->size_count > 0 ? 3 : 2;
    fprintf(f, "set multiplot layout 1,%d\n", columns);
    plot_layers(f, r);
    fprintf(f, "set xtics (4, 6, 10, 20, 40, 60)\nset xrange [3:80]\nset logscale x\n");
    if (r->size_count > 0)
        plot_sizes(f);
    fprintf(f, "set key center right\n");
    plot_kernels(f);
    fprintf(f, "unset multiplot\n");
    picture_end(&p, r->folder, "linearised.png", 600 * columns, 480);
}

void draw_pictures(const results *r)
{
    if (r->trial_count)
        draw_training(r);
    draw_by_token(r);
    draw_probes(r);
    draw_sensitivity(r);
    draw_shots(r);
    draw_linearised(r);
}

/* ---- summary ---- */

/* Known numbers were computed elsewhere, in double precision, for the fully observed task: means over its
 * sequences, here within 2 % with as many as the paper measures on. */
static void near_known(const char *what, double value, double known)
{
    char text[64] = "";
    bool usual = chosen_task() == FULL;
    if (usual)
        snprintf(text, sizeof text, "elsewhere %.4g", known);
    double room = usual ? (set.validation >= 2560 ? 0.02 : 0.1) * known : NAN;
    summary_line(what, value, NAN, text, known - room, known + room);
}

static void solver_summary(const solvers *s)
{
    printf("  %-46s %-20s %s\n", "", "here", "there");
    near_known("loss of guessing zero", s->loss[ZERO], 1.69);
    near_known("loss of a step of GD, eta 0.032", s->loss_at_known_eta, 0.909);
    summary_line("  of the best eta", s->loss[GD], NAN, "", NAN, NAN);
    summary_line("  which is", s->eta, NAN, "", NAN, NAN);
    near_known("loss of least squares, ridge 1", s->ridge_loss[0], 0.249);
    near_known("  ridge 0.1", s->ridge_loss[1], 0.192);
    near_known("  ridge 0.01", s->ridge_loss[2], 0.187);
    summary_line("loss of 6 Chebyshev steps and GD, learned", s->loss[PRECONDITIONED], NAN, "", NAN,
                 chosen_task() == FULL ? s->loss[GD] : NAN);
    summary_line("proposition 1, layer against mb_grad: guesses", s->guess_error, NAN, "relative, float64",
                 NAN, 1e-10);
    summary_line("  d loss / d eta", s->eta_error, NAN, "relative, float64", NAN, 1e-10);
    summary_line("  d loss / d Phi_0", s->start_error, NAN, "relative, float64", NAN, 1e-10);
}

/* Of one number of a model's runs, mean and deviation; false where there are none. */
static bool over_seeds(const results *r, int model, double (*of)(const trial *), double *mean,
                       double *deviation)
{
    double *values = calloc((size_t)r->trial_count + 1, sizeof *values);
    int n = 0;
    if (!values)
        die("out of memory");
    for (int i = 0; i < r->trial_count; i++)
        if (r->trials[i].model == model && r->trials[i].complete)
            values[n++] = of(&r->trials[i]);
    mean_and_deviation(values, n, mean, deviation);
    free(values);
    return n > 0;
}

static double last_loss(const trial *t)
{
    return t->loss.value[t->loss.n - 1];
}
static double compressed_loss(const trial *t)
{
    return t->compressed_loss;
}
static double halfway_loss(const trial *t)
{
    return t->halfway_loss;
}

/* The sandbox of the paper's code: its loss at steps of the two-layer network, seed unknown. */
static void sandbox(const results *r)
{
    static const struct {
        double step, loss;
    } known[] = {{0, 1.67}, {300, 1.343}, {400, 0.841}, {600, 0.584}, {800, 0.452}, {2400, 0.4312}};
    const trial *t = first_of(r, LINEAR_TWO);
    for (int i = 0; t && i < COUNT(known); i++) {
        char what[64], text[64];
        snprintf(what, sizeof what, "  after %g steps", known[i].step);
        snprintf(text, sizeof text, "the code's sandbox %.4g", known[i].loss);
        double loss = series_at(&t->loss, known[i].step);
        if (!isnan(loss) && chosen_task() == FULL)
            summary_line(what, loss, NAN, text, NAN, NAN);
    }
}

/* One layer of linear attention can do little better than a step of descent, and training gets there; a mesa
 * layer gets far below, and, given time, below any stack of linear ones. NaN where nothing is known. */
static double most_of(const results *r, int model, const double loss[MODELS])
{
    double step = r->solvers.loss[GD];
    if (chosen_task() != FULL)
        return NAN;
    if (model == LINEAR_ONE)
        return 1.02 * step;
    if (model == MESA_ONE)
        return set.quick || isnan(loss[LINEAR_SIX]) ? step / 2 : loss[LINEAR_SIX];
    return NAN;
}

static double mean_shot(const double *by_shot)
{
    double sum = 0;
    for (int k = 0; k < set.shots; k++)
        sum += by_shot[k];
    return sum / (double)set.shots;
}

/* The pairs that join examples say nothing of the map: with few of all pairs, least squares guess worse than
 * zero does, and they are far from those of the examples to the end. */
static void shots_of_solvers(const solvers *s)
{
    double worst = 0, first = s->by_shot[0][0];
    for (int k = 0; k < set.shots; k++)
        worst = fmax(worst, s->by_shot[0][k]);
    summary_line("regression in context, least squares", mean_shot(s->by_shot[1]), NAN, "mean of examples",
                 NAN, first);
    summary_line("  of all pairs, the worst example", worst, NAN, "more than of zero", first, NAN);
    summary_line("  and the last", s->by_shot[0][set.shots - 1], NAN, "more than above",
                 mean_shot(s->by_shot[1]), NAN);
}

static double older_at_first(const trial *t)
{
    return t->sensitivity[SENSED - 1].value[0];
}
static double older_at_last(const trial *t)
{
    return t->sensitivity[SENSED - 1].value[t->sensitivity[SENSED - 1].n - 1];
}
/* By s_t or s_{t-1}, whichever is less, as a part of that by older ones. */
static double bound_at_last(const trial *t)
{
    const series *s = t->sensitivity;
    return fmin(s[0].value[s[0].n - 1], s[1].value[s[1].n - 1]) / older_at_last(t);
}

/* Tokens that hold s_t and s_{t-1} are looked for in all the past, once there is something to learn of it;
 * where tokens are bare, the first layer of softmax comes to bind each to the one before. */
static void sensitivity_summary(const results *r, int model)
{
    double first, last, bound, deviation;
    bool bare = models[model].embedded;
    over_seeds(r, model, older_at_first, &first, &deviation);
    over_seeds(r, model, older_at_last, &last, &deviation);
    summary_line("  first layer's sensitivity to older tokens", last, deviation, "more than when untrained",
                 bare ? NAN : 10 * first, NAN);
    over_seeds(r, model, bound_at_last, &bound, &deviation);
    if (bare)
        summary_line("  to the last two, times that", bound, deviation, "bound", NAN, NAN);
}

static double plain_shots(const trial *t)
{
    return mean_shot(t->by_shot[PLAIN]);
}
static double eos_shots(const trial *t)
{
    return mean_shot(t->by_shot[EOS]);
}
static double prefix_shots(const trial *t)
{
    return mean_shot(t->by_shot[EOS_PREFIX]);
}

/* What is tuned must help a mesa layer; one step of descent has little to gain. Tokens before the first
 * example may have nothing left to do. */
static void shots_summary(const results *r, int model)
{
    static double (*const of[WAYS])(const trial *) = {plain_shots, eos_shots, prefix_shots};
    static const char *const what[WAYS] = {"  regression in context", "    with a tuned token after examples",
                                           "    and tuned ones before the first"};
    double mean, deviation, most = NAN;
    for (int w = 0; w < WAYS; w++) {
        over_seeds(r, model, of[w], &mean, &deviation);
        bool known = model == MESA_ONE && chosen_task() == FULL;
        summary_line(what[w], mean, deviation, "mean of examples", NAN, known ? most : NAN);
        most = w == PLAIN ? mean : 1.01 * mean;
    }
}

/* Of few entries, a softmax finds the like of s_t among the tokens; of many there is none, and it does less
 * than a step of descent, which is linear attention. */
static void kernel_summary(const kernels *k)
{
    bool many = set.validation >= 2560;
    for (int s = 0; s < SIZES; s += SIZES - 1) {
        char what[64], text[64];
        const double *left = k->left[s];
        snprintf(what, sizeof what, "softmax over pairs, %d entries: left", (int)kernel_sizes[s]);
        snprintf(text, sizeof text, "a step of GD %.3g", left[LINEAR_KERNEL]);
        summary_line(what, left[KERNEL], NAN, text, many && s > 0 ? left[LINEAR_KERNEL] : NAN,
                     many && s == 0 ? left[LINEAR_KERNEL] : NAN);
        summary_line("  least squares", left[LAST_SQUARES], NAN, "", NAN, many ? 0.01 : NAN);
    }
}

/* What a layer does is found in part at least by a linear one. */
static void linearised_summary(const results *r, int model)
{
    const trial *t = first_of(r, model);
    for (int l = 0; l < models[model].layers && set.distil_steps > 0; l++) {
        char what[64], text[64];
        if (isnan(t->linearised.left[l]))
            continue;
        snprintf(what, sizeof what, "  layer %d made linear: left of its output", l + 1);
        snprintf(text, sizeof text, "loss times %.4g", ratio_of(t, l));
        summary_line(what, t->linearised.left[l], NAN, text, NAN, 0.95);
    }
}

static void model_summary(const results *r, int model, double loss[MODELS])
{
    static const char *const beside[MODELS] = {
        [LINEAR_ONE] = "a step of GD", [MESA_ONE] = "6 linear layers, or less"};
    double mean, deviation;
    if (!over_seeds(r, model, last_loss, &loss[model], &deviation)) {
        loss[model] = NAN;
        return;
    }
    summary_line(models[model].title, loss[model], deviation, beside[model] ? beside[model] : "", NAN,
                 most_of(r, model, loss));
    if (over_seeds(r, model, compressed_loss, &mean, &deviation) && !isnan(mean))
        summary_line("  multiples of identities kept", mean, deviation, "", NAN, NAN);
    if (over_seeds(r, model, halfway_loss, &mean, &deviation) && !isnan(mean))
        summary_line("  halfway to those", mean, deviation, "", NAN, NAN);
    if (model == LINEAR_TWO)
        sandbox(r);
    sensitivity_summary(r, model);
    linearised_summary(r, model);
    if (shots_wanted())
        shots_summary(r, model);
}

/* How far the loss goes from 1 times what it was where layer l is made linear. */
static double lost(const size_run *s, int l)
{
    return fabs(size_ratio(s, l) - 1);
}

static void size_lines(const size_run *s, double room)
{
    char what[64], text[64];
    snprintf(what, sizeof what, "softmax layers, %d entries", (int)s->entries);
    snprintf(text, sizeof text, "guessing zero %.4g", s->zero);
    summary_line(what, s->loss, NAN, text, NAN, isnan(room) ? NAN : 0.95 * s->zero);
    for (int l = 0; l < SIZE_LAYERS; l++) {
        bool last = l + 1 == SIZE_LAYERS;
        snprintf(what, sizeof what, "  layer %d made linear: loss times", l + 1);
        snprintf(text, sizeof text, "left of its output %.3g", s->linearised.left[l]);
        summary_line(what, size_ratio(s, l), NAN, text, last ? 1 - room : NAN, last ? 1 + room : NAN);
    }
}

/* Of the smallest and the largest states: a linear layer in the place of the last one does the less harm, the
 * more entries there are. */
static void size_summary(const results *r)
{
    if (r->size_count < 2)
        return;
    const size_run *largest = &r->sizes[0], *smallest = &r->sizes[r->size_count - 1];
    if (!largest->complete || !smallest->complete)
        return;
    bool learned = set.size_steps >= 1000 && largest->entries >= 40 && strcmp(set.size_tokens, "bare") != 0;
    size_lines(smallest, NAN);
    size_lines(largest, learned ? lost(smallest, SIZE_LAYERS - 1) : NAN);
}

void print_summary(const results *r)
{
    double loss[MODELS];
    if (!r->solvers.complete)
        return;
    solver_summary(&r->solvers);
    if (shots_wanted())
        shots_of_solvers(&r->solvers);
    kernel_summary(&r->solvers.kernels);
    for (int m = 0; m < MODELS; m++)
        model_summary(r, m, loss);
    size_summary(r);
}
