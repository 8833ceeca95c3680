/* SPDX-License-Identifier: MIT
 *
 * icl_gd_report.c - tables, pictures and the summary: what training found, beside gradient descent. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "icl_gd.h"

static const char *const measure_names[MEASURES] = {"loss", "prediction_difference", "cosine", "distance",
                                                    "interpolated_loss"};
static const char *const sweep_names[SWEEPS] = {"x_scale", "w_scale", "mixed_x_scale", "construction_share",
                                                "times_applied"};

/* ---- tables ---- */

/* Of one measure at the k-th place of its series, over the seeds of a model. */
static int over_seeds(const results *r, int model, int measure, int k, double *mean, double *deviation)
{
    double *values = calloc((size_t)set.seeds + 1, sizeof *values);
    int n = 0;
    if (!values)
        die("out of memory");
    for (int i = 0; i < r->trial_count; i++) {
        const series *s = &r->trials[i].measure[measure];
        if (r->trials[i].model == model && k < s->n)
            values[n++] = s->value[k];
    }
    mean_and_deviation(values, n, mean, deviation);
    free(values);
    return n;
}

static const trial *first_of(const results *r, int model)
{
    for (int i = 0; i < r->trial_count; i++)
        if (r->trials[i].model == model)
            return &r->trials[i];
    return NULL;
}

void write_tables(const results *r)
{
    csv c = {0};
    csv_open(&c, r->folder, "gradient_descent.csv",
             "model,kind,layer,eta,gamma,loss,eta_gradient_error,gamma_gradient_error");
    for (int i = 0; i < r->baseline_count; i++) {
        const baseline *b = &r->baselines[i];
        for (int l = 0; l < models[b->model].layers && b->complete; l++) {
            fprintf(c.file, "%s,%s,%d,", models[b->model].name, b->plus ? "gd++" : "gd", l + 1);
            csv_row(&c,
                    (double[]){b->eta[l], b->plus ? b->gamma[l] : NAN, b->loss, b->eta_error, b->gamma_error},
                    5);
        }
    }
    csv_close(&c);

    csv_open(&c, r->folder, "training.csv",
             "model,seed,step,loss,prediction_difference,cosine,distance,interpolated_loss");
    for (int i = 0; i < r->trial_count; i++) {
        const trial *t = &r->trials[i];
        for (int k = 0; k < t->measure[LOSS].n; k++) {
            double values[MEASURES];
            for (int m = 0; m < MEASURES; m++)
                values[m] = k < t->measure[m].n ? t->measure[m].value[k] : NAN;
            fprintf(c.file, "%s,%lld,%g,", models[t->model].name, (long long)t->seed,
                    t->measure[LOSS].step[k]);
            csv_row(&c, values, MEASURES);
        }
    }
    csv_close(&c);

    csv_open(&c, r->folder, "training_mean.csv", "model,measure,step,mean,std,seeds");
    for (int model = 0; model < MODELS; model++) {
        const trial *t = first_of(r, model);
        for (int m = 0; t && m < MEASURES; m++)
            for (int k = 0; k < t->measure[m].n; k++) {
                double mean, deviation;
                int n = over_seeds(r, model, m, k, &mean, &deviation);
                fprintf(c.file, "%s,%s,%g,%.9g,%.9g,%d\n", models[model].name, measure_names[m],
                        t->measure[m].step[k], mean, deviation, n);
            }
    }
    csv_close(&c);

    csv_open(&c, r->folder, "sweeps.csv", "model,seed,sweep,value,trained_loss,gd_loss,gdpp_loss");
    for (int i = 0; i < r->trial_count; i++) {
        const trial *t = &r->trials[i];
        for (int s = 0; s < SWEEPS; s++)
            for (int k = 0; k < t->sweep[s][TRAINED].n; k++) {
                fprintf(c.file, "%s,%lld,%s,%g,", models[t->model].name, (long long)t->seed, sweep_names[s],
                        t->sweep[s][TRAINED].step[k]);
                double values[CURVES];
                for (int curve = 0; curve < CURVES; curve++)
                    values[curve] = k < t->sweep[s][curve].n ? t->sweep[s][curve].value[k] : NAN;
                csv_row(&c, values, CURVES);
            }
    }
    csv_close(&c);
}

/* ---- pictures ---- */

static const char *const curve_names[CURVES] = {"trained", "GD", "GD++"};
static const char *const curve_colours[CURVES] = {"#3b6fb6", "#c8502d", "#3d8f5f"};

static const baseline *baseline_of(const results *r, int model, bool plus)
{
    for (int i = 0; i < r->baseline_count; i++)
        if (r->baselines[i].model == model && r->baselines[i].plus == plus && r->baselines[i].complete)
            return &r->baselines[i];
    return NULL;
}

/* Mean over seeds of a measure, in a band of its deviation. */
static void measure_curve(FILE *f, int model, int measure, const char *colour, const char *title,
                          const char *axes)
{
    char x[128];
    snprintf(x, sizeof x, "(strcol(1) eq '%s' && strcol(2) eq '%s' ? $3 : NaN)", models[model].name,
             measure_names[measure]);
    fprintf(f,
            "'training_mean.csv' skip 1 using %s:($4-$5):($4+$5) axes %s with filledcurves fc rgb '%s' fs "
            "transparent solid 0.2 noborder notitle, \\\n"
            "'' skip 1 using %s:4 axes %s with lines lw 1.8 lc rgb '%s' title '%s', \\\n",
            x, axes, colour, x, axes, colour, title);
}

/* Loss while training; how like the two functions are. As in the paper's figures 2 and 4. */
static void draw_training(const results *r, int which)
{
    const model *m = &models[which];
    const baseline *gd = baseline_of(r, which, false), *plus = baseline_of(r, which, true);
    picture p;
    char name[64];
    if (!gd || !plus)
        return;
    FILE *f = picture_begin(&p);
    fprintf(f,
            "set multiplot layout 1,2 title 'Linear self-attention, %s, beside as many steps of gradient "
            "descent' font ',15'\n"
            "set title 'Loss'\nset xlabel 'training step'\nset ylabel 'validation loss'\nset yrange "
            "[0:%g]\nplot ",
            m->title, 1.2 * D / 24.0 * set.range * set.range); /* it begins at E[y^2] / 2 = D range^2 / 24 */
    measure_curve(f, which, LOSS, curve_colours[TRAINED], "trained", "x1y1");
    if (m->tied)
        measure_curve(f, which, INTERPOLATED, "#8a5fb0", "halfway to the construction", "x1y1");
    if (m->layers > 1)
        fprintf(f, "%g with lines dt 2 lw 1.5 lc rgb '%s' title 'GD++', \\\n", plus->loss,
                curve_colours[PLUS]);
    fprintf(f, "%g with lines dt 2 lw 1.5 lc rgb '%s' title 'GD'\n", gd->loss, curve_colours[PLAIN]);
    fprintf(f,
            "set title 'Against %s'\nset ylabel 'differences'\nset y2label 'cosine'\nset y2tics\nset y2range "
            "[0:1.02]\nset yrange [0:*]\nset rmargin 10\nset key center right\nplot ",
            m->plus ? "GD++" : "GD");
    measure_curve(f, which, DIFFERENCE, "#3b6fb6", "predictions", "x1y1");
    measure_curve(f, which, DISTANCE, "#c8502d", "sensitivities", "x1y1");
    measure_curve(f, which, COSINE, "#3d8f5f", "cosine of sensitivities (right)", "x1y2");
    fprintf(f, "NaN notitle\nunset multiplot\n");
    snprintf(name, sizeof name, "training_%s.png", m->name);
    picture_end(&p, r->folder, name, 1200, 480);
}

static bool swept(const results *r, int model, int sweep)
{
    const trial *t = first_of(r, model);
    return t && t->sweep[sweep][TRAINED].n > 0;
}

/* One panel; curves of the first seed. */
static void sweep_panel(FILE *f, int model, int sweep, const char *title, const char *x)
{
    int shown = sweep == MIX ? PLAIN : models[model].layers > 1 || sweep == ROLL_OUT ? CURVES : PLUS;
    fprintf(f, "set title '%s, %s'\nset xlabel '%s'\nset ylabel 'loss'\nplot ", models[model].title, title,
            x);
    for (int c = 0; c < shown; c++)
        fprintf(f,
                "'sweeps.csv' skip 1 using (strcol(1) eq '%s' && $2==%lld && strcol(3) eq '%s' ? $4 : "
                "NaN):($%d < 1e4 ? $%d : NaN) "
                "with lines lw %g dt %d lc rgb '%s' title '%s'%s",
                models[model].name, (long long)set.first_seed, sweep_names[sweep], 5 + c, 5 + c,
                c ? 1.5 : 2.2, c ? 2 : 1, curve_colours[c], curve_names[c], c + 1 < shown ? ", \\\n" : "\n");
}

/* A row for each model: other sizes of x, of w, and other distributions of x. */
static void draw_distributions(const results *r)
{
    int rows = 0;
    for (int m = 0; m < MODELS; m++)
        rows += swept(r, m, SCALE_X);
    if (rows == 0)
        return;
    picture p;
    FILE *f = picture_begin(&p);
    fprintf(f,
            "set multiplot layout %d,3 title 'Beyond what was trained on' font ',15'\nset logscale y\nset "
            "key top left\n",
            rows);
    for (int m = 0; m < MODELS; m++)
        if (swept(r, m, SCALE_X)) {
            sweep_panel(f, m, SCALE_X, "uniform inputs", "scale of x");
            sweep_panel(f, m, SCALE_W, "larger targets", "scale of w");
            sweep_panel(f, m, SCALE_MIXED, "other distributions", "length of x");
        }
    fprintf(f, "unset multiplot\n");
    picture_end(&p, r->folder, "distributions.png", 1440, 400 * rows + 40);
}

/* A row for each model with one set of weights: on the way to the construction, and applied many times. */
static void draw_weights(const results *r)
{
    int rows = swept(r, ONE, MIX) + swept(r, TWO, MIX);
    if (rows == 0)
        return;
    picture p;
    FILE *f = picture_begin(&p);
    fprintf(f, "set multiplot layout %d,2 title 'Trained and constructed weights' font ',15'\n", rows);
    for (int m = ONE; m <= TWO; m++)
        if (swept(r, m, MIX)) {
            fprintf(f, "set yrange [0:*]\nset key bottom right\n");
            sweep_panel(f, m, MIX, "interpolated", "share of the construction");
            fprintf(f, "set yrange [*:*]\nset logscale y\nset key top right\n");
            sweep_panel(f, m, ROLL_OUT, "repeated", "times applied, damped by 0.75");
            fprintf(f, "unset logscale y\n");
        }
    fprintf(f, "unset multiplot\n");
    picture_end(&p, r->folder, "weights.png", 1200, 420 * rows + 40);
}

void draw_pictures(const results *r)
{
    for (int m = 0; m < MODELS; m++)
        draw_training(r, m);
    draw_distributions(r);
    draw_weights(r);
}

/* ---- summary ---- */

/* The losses' limits are what the task allows: the best that as many steps of descent can do, of which
 * training should be within a few per cent or better. */
void print_summary(const results *r)
{
    /* optimal losses found by an independent search over eta and gamma, range 1 */
    static const struct {
        const char *gd, *plus;
        double gd_loss, plus_loss;
    } known[MODELS] = {{"elsewhere .206, eta 6.0", "", 0.206, NAN},
                       {"elsewhere .154, eta 5.95", "elsewhere .112, eta 13, gamma .17", 0.154, 0.112},
                       {"", "", NAN, NAN}};
    bool usual = set.range == 1, trained = !set.quick;
    double spread = set.validation >= 10000 ? 0.03 : 0.08; /* of the validation tasks themselves */
    printf("  %-46s %-20s %s\n", "", "here, mean (std)", "there");
    for (int m = 0; m < MODELS; m++) {
        const baseline *gd = baseline_of(r, m, false), *plus = baseline_of(r, m, true);
        const trial *t = first_of(r, m);
        double mean[MEASURES], deviation[MEASURES];
        char reference[64];
        if (!gd || !plus || !t || !t->complete)
            continue;
        for (int i = 0; i < MEASURES; i++)
            over_seeds(r, m, i, t->measure[LOSS].n - 1, &mean[i], &deviation[i]);
        printf("%s\n", models[m].title);
        double near = usual ? spread * known[m].gd_loss : NAN;
        summary_line("loss of GD", gd->loss, NAN, known[m].gd, known[m].gd_loss - near,
                     known[m].gd_loss + near);
        summary_line("  eta, first layer", gd->eta[0], NAN, "", NAN, NAN);
        summary_line("  d loss / d eta, steps against weights", gd->eta_error, NAN, "relative, float64", NAN,
                     1e-10);
        if (models[m].layers > 1) {
            near = usual ? spread * known[m].plus_loss : NAN;
            summary_line("loss of GD++", plus->loss, NAN, known[m].plus, known[m].plus_loss - near,
                         known[m].plus_loss + near);
            summary_line("  eta, first layer", plus->eta[0], NAN, "", NAN, NAN);
            summary_line("  gamma, first layer", plus->gamma[0], NAN, "", NAN, NAN);
            summary_line("  d loss / d eta, steps against weights", plus->eta_error, NAN, "relative, float64",
                         NAN, 1e-10);
            summary_line("  d loss / d gamma", plus->gamma_error, NAN, "relative, float64", NAN, 1e-10);
        }
        const baseline *best = models[m].plus ? plus : gd;
        double slack = m == ONE ? 0.01 : 0.03;
        snprintf(reference, sizeof reference, "%s: %.4f", models[m].plus ? "GD++" : "GD", best->loss);
        /* five layers are given fewer steps than the paper's 50000: better than GD they should be by then */
        double limit = m == FIVE ? gd->loss : (1 + slack) * best->loss;
        summary_line("loss of trained attention", mean[LOSS], deviation[LOSS], reference, NAN,
                     trained || m == ONE ? limit : NAN);
        bool near_it = m != FIVE && (trained || m == ONE);
        /* the target's deviation is sqrt(D / 12) range */
        double size = sqrt(D / 12.0) * set.range;
        summary_line("  difference of predictions / size of target", mean[DIFFERENCE] / size,
                     deviation[DIFFERENCE] / size, "0", NAN, near_it ? (m == ONE ? 0.05 : 0.1) : NAN);
        summary_line("  cosine of sensitivities", mean[COSINE], deviation[COSINE], "1", near_it ? 0.99 : NAN,
                     NAN);
        summary_line("  distance of sensitivities", mean[DISTANCE], deviation[DISTANCE], "0", NAN, NAN);
        int64_t skipped = 0;
        for (int i = 0; i < r->trial_count; i++)
            skipped += r->trials[i].model == m ? r->trials[i].skipped : 0;
        if (skipped)
            summary_line("  batches beyond float32, left out", (double)skipped, NAN, "", NAN, NAN);
        if (models[m].tied)
            summary_line("  loss halfway to the construction", mean[INTERPOLATED], deviation[INTERPOLATED],
                         reference, NAN, near_it ? (1 + 2 * slack) * best->loss : NAN);
    }
}
