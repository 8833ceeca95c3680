/* SPDX-License-Identifier: MIT
 *
 * linear_transformer_plot.c - one picture for each phenomenon, laid out like the paper's figures. */
#include <stdlib.h>
#include <string.h>

#include "linear_transformer.h"

static const char *const colours[OPTIMIZERS] = {"#c8502d", "#3b6fb6"}, *const names[OPTIMIZERS] = {"SGD",
                                                                                                   "Adam"};
static const char *const depth_colours[] = {"#b08a2e", "#3d8f5f", "#3b6fb6", "#8a5fb0"};

static bool has_trial(const results *r, int setting, int depth)
{
    for (int i = 0; i < r->trial_count; i++)
        if (r->trials[i].setting == setting && r->trials[i].depth == depth)
            return true;
    return false;
}

static bool has_noise(const results *r, int setting, int depth)
{
    for (int i = 0; i < r->noise_count; i++)
        if (r->noises[i].setting == setting && r->noises[i].depth == depth && r->noises[i].complete)
            return true;
    return false;
}

/* A gnuplot expression: `then` in the rows of one curve, undefined in others. */
static const char *where(char out[160], const char *setting, int depth, const char *optimizer,
                         const char *then)
{
    if (optimizer)
        snprintf(out, 160, "(strcol(1) eq '%s' && $2==%d && strcol(3) eq '%s' ? %s : NaN)", setting, depth,
                 optimizer, then);
    else
        snprintf(out, 160, "(strcol(1) eq '%s' && $2==%d ? %s : NaN)", setting, depth, then);
    return out;
}

/* Mean over seeds in a band of the deviation by `part`, SGD and Adam. dotted: NULL, or a file of curves that
 * may leave the picture. */
static void curves(FILE *f, const char *file, const char *dotted, int setting, int depth, double part)
{
    char x[160];
    fprintf(f, "plot ");
    for (int o = 0; o < OPTIMIZERS; o++) {
        where(x, settings[setting].name, depth, optimizer_names[o], "$4");
        if (part > 0)
            fprintf(f,
                    "'%s' skip 1 using %s:($5-$6/%g):($5+$6/%g) with filledcurves fc rgb '%s' fs transparent "
                    "solid 0.2 noborder notitle, \\\n",
                    file, x, part, part, colours[o]);
        if (dotted)
            fprintf(f, "'%s' skip 1 using %s:($5 < 10 ? $5 : NaN) with lines dt 3 lc rgb '%s' notitle, \\\n",
                    dotted, x, colours[o]);
        fprintf(f, "'%s' skip 1 using %s:5 with lines lw 1.5 lc rgb '%s' title '%s'%s", file, x, colours[o],
                names[o], o ? "\n" : ", \\\n");
    }
}

static void histogram(FILE *f, int setting, int depth, const char *colour)
{
    char x[160];
    fprintf(
        f,
        "plot 'noise_histogram.csv' skip 1 using %s:4 with boxes fc rgb '%s' fs solid 0.7 noborder notitle\n",
        where(x, settings[setting].name, depth, NULL, "$3"), colour);
}

static void ratio_curve(FILE *f, int setting, int depth)
{
    char x[160];
    where(x, settings[setting].name, depth, NULL, "$3");
    fprintf(
        f,
        "plot 'condition_ratio.csv' skip 1 using %s:($4-$5/2):($4+$5/2) with filledcurves fc rgb '#8a5fb0' "
        "fs transparent solid 0.2 noborder notitle, \\\n"
        "'' skip 1 using %s:4 with linespoints pt 7 lw 1.5 lc rgb '#8a5fb0' title 'SGD / Adam', 1 with "
        "lines dt 2 lc rgb '#808080' notitle\n",
        x, x);
}

enum phenomenon { PICTURE_LOSS, PICTURE_NOISE, PICTURE_CONDITION, PICTURE_SMOOTH };

static void panel(FILE *f, enum phenomenon what, int setting, int depth)
{
    fprintf(f, "set title \"%s\"\n", settings[setting].title);
    switch (what) {
    case PICTURE_LOSS:
        fprintf(f, "set logscale y\nset xlabel 'step'\nset ylabel 'test loss'\n");
        curves(f, "typical_test_loss_mean.csv", "test_loss_mean.csv", setting, depth, 4);
        break;
    case PICTURE_NOISE:
        fprintf(f, "set xlabel '|| g_k - g ||'\nset ylabel 'density'\n");
        histogram(f, setting, depth, "#3b6fb6");
        break;
    case PICTURE_CONDITION:
        fprintf(f, "set logscale y\nset xlabel 'step'\nset ylabel 'robust condition number, SGD / Adam'\n");
        ratio_curve(f, setting, depth);
        break;
    case PICTURE_SMOOTH:
        fprintf(f, "set logscale y\nset xlabel 'step'\nset ylabel 'directional smoothness'\n");
        curves(f, "directional_smoothness_mean.csv", NULL, setting, depth, 0);
        break;
    }
    fprintf(f, "unset logscale y\n");
}

/* One row, a panel for each setting. */
static void row_of_settings(const results *r, enum phenomenon what, const char *name, const char *title)
{
    int shown[SETTINGS], n = 0;
    for (int s = SETTING_1; s <= SETTING_3; s++)
        if (what == PICTURE_NOISE ? has_noise(r, s, LAYERS) : has_trial(r, s, LAYERS))
            shown[n++] = s;
    if (n == 0)
        return;
    picture p;
    FILE *f = picture_begin(&p);
    fprintf(f, "set multiplot layout 1,%d title '%s' font ',15'\n", n, title);
    for (int i = 0; i < n; i++)
        panel(f, what, shown[i], LAYERS);
    fprintf(f, "unset multiplot\n");
    picture_end(&p, r->folder, name, 520 * n, 420);
}

/* Rows: loss, noise, condition; columns: inputs on the sphere, with heavy tails. */
static void tails(const results *r)
{
    static const enum phenomenon rows[] = {PICTURE_LOSS, PICTURE_NOISE, PICTURE_CONDITION};
    static const int columns[] = {SPHERE, SETTING_3};
    bool histograms = has_noise(r, SPHERE, LAYERS) && has_noise(r, SETTING_3, LAYERS);
    if (!has_trial(r, SPHERE, LAYERS) || !has_trial(r, SETTING_3, LAYERS))
        return;
    picture p;
    FILE *f = picture_begin(&p);
    fprintf(f, "set multiplot layout %d,2 title 'Tails of the data' font ',15'\n", histograms ? 3 : 2);
    for (int i = 0; i < COUNT(rows); i++)
        for (int k = 0; k < 2; k++)
            if (rows[i] != PICTURE_NOISE || histograms)
                panel(f, rows[i], columns[k], LAYERS);
    fprintf(f, "unset multiplot\n");
    picture_end(&p, r->folder, "data_tails.png", 1040, histograms ? 1140 : 780);
}

static void scatter(const results *r)
{
    static const char script[] =
        "set logscale xy\nset xlabel 'norm of the gradient'\nset cblabel 'step'\nset rmargin 12\n"
        "set palette defined (0 '#fde725', 0.5 '#21918c', 1 '#440154')\nset multiplot layout 1,2 title "
        "'Setting 1, Adam: the loss is less smooth where its "
        "gradient is larger' font ',15'\n"
        "set ylabel 'directional smoothness'\n"
        "plot 'smoothness_gradient.csv' skip 1 using 2:($3>0?$3:NaN):1 with points pt 7 ps 0.4 lc palette "
        "notitle\n"
        "set ylabel 'spectral norm of the Hessian'\n"
        "plot 'smoothness_gradient.csv' skip 1 using 2:4:1 with points pt 7 ps 0.6 lc palette notitle\n"
        "unset multiplot\n";
    for (int i = 0; i < r->trial_count; i++)
        if (r->trials[i].dense && r->trials[i].measure[SMOOTH].n > 0) {
            plot(r->folder, "smoothness_gradient.png", 1300, 520, script);
            return;
        }
}

static void depths(const results *r)
{
    static const int layers[] = {2, 4, 6, 8};
    if (!has_trial(r, SETTING_1, layers[0]))
        return;
    bool histograms = has_noise(r, SETTING_1, layers[0]);
    picture p;
    char x[160];
    FILE *f = picture_begin(&p);
    fprintf(
        f,
        "set multiplot layout 1,%d title 'Setting 1, by number of layers' font ',15'\n"
        "set xlabel 'step'\nset ylabel 'test loss'\nset logscale y\nset title 'SGD (thin) and Adam (thick)'\n"
        "plot ",
        histograms ? 3 : 2);
    for (int i = 0; i < COUNT(layers); i++)
        for (int o = 0; o < OPTIMIZERS; o++) {
            fprintf(f, "'typical_test_loss_mean.csv' skip 1 using %s:5 with lines lw %g lc rgb '%s' ",
                    where(x, settings[SETTING_1].name, layers[i], optimizer_names[o], "$4"),
                    o == ADAM ? 2.2 : 0.8, depth_colours[i]);
            if (o == ADAM)
                fprintf(f, "title '%d layers'", layers[i]);
            else
                fprintf(f, "notitle");
            fprintf(f, i + 1 == COUNT(layers) && o == ADAM ? "\n" : ", \\\n");
        }
    if (histograms) {
        fprintf(f, "unset logscale y\nset title 'Noise of gradients'\nset xlabel '|| g_k - g ||'\nset ylabel "
                   "'density'\nplot ");
        for (int i = 0; i < COUNT(layers); i++)
            fprintf(
                f,
                "'noise_histogram.csv' skip 1 using %s:4 with lines lw 1.5 lc rgb '%s' title '%d layers'%s",
                where(x, settings[SETTING_1].name, layers[i], NULL, "$3"), depth_colours[i], layers[i],
                i + 1 < COUNT(layers) ? ", \\\n" : "\n");
    }
    fprintf(f,
            "set logscale y\nset title 'Robust condition number, SGD / Adam'\nset xlabel 'step'\nset ylabel "
            "'ratio'\nplot ");
    for (int i = 0; i < COUNT(layers); i++)
        fprintf(f,
                "'condition_ratio.csv' skip 1 using %s:4 with linespoints pt 7 lw 1.5 lc rgb '%s' title '%d "
                "layers', \\\n",
                where(x, settings[SETTING_1].name, layers[i], NULL, "$3"), depth_colours[i], layers[i]);
    fprintf(f, "1 with lines dt 2 lc rgb '#808080' notitle\nunset multiplot\n");
    picture_end(&p, r->folder, "depth.png", histograms ? 1560 : 1040, 440);
}

void draw_pictures(const results *r)
{
    row_of_settings(r, PICTURE_LOSS, "loss.png", "Adam against SGD (dotted: plain means)");
    row_of_settings(r, PICTURE_NOISE, "noise.png", "Noise of gradients before the first step");
    row_of_settings(r, PICTURE_CONDITION, "condition.png", "Robust condition number");
    row_of_settings(r, PICTURE_SMOOTH, "smoothness.png", "Directional smoothness");
    scatter(r);
    tails(r);
    depths(r);
}
