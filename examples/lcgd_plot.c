/* SPDX-License-Identifier: MIT
 *
 * lcgd_plot.c - pictures of the tables. */
#include "lcgd.h"

typedef struct line {
    kind kind;
    variant how;
    const char *style;
} line;

static const line lines[] = {
    {TRAINED, GD, "lw 2 lc rgb '#3b6fb6'"},          {TRAINED, LCGD, "lw 2 lc rgb '#c8502d'"},
    {TRAINED, LCGD_TEXT, "lw 2 lc rgb '#8a5fb0'"},   {EMBEDDINGS, GD, "lw 1.5 dt 2 lc rgb '#3d8f5f'"},
    {UNTRAINED, GD, "lw 1.5 dt 2 lc rgb '#a0a0a0'"},
};

/* Columns x and y of the rows of a line; of one rate, where that is not below 0. */
static void draw_lines(FILE *f, const char *table, int x, int y, double rate, int most)
{
    char only[48] = "";
    if (rate >= 0)
        snprintf(only, sizeof only, " && abs($3/%.6g-1) < 1e-3", rate);
    for (int i = 0; i < most; i++)
        fprintf(f,
                "'%s' skip 1 using (strcol(1) eq '%s' && strcol(2) eq '%s'%s ? $%d : NaN):%d with "
                "linespoints ps 0.6 %s title '%s%s%s', \\\n",
                table, kind_names[lines[i].kind], variant_names[lines[i].how], only, x, y, lines[i].style,
                variant_names[lines[i].how], lines[i].kind ? ", " : "",
                lines[i].kind ? kind_names[lines[i].kind] : "");
    fprintf(f, "NaN notitle\n");
}

static void draw_training(const results *r)
{
    picture p;
    if (r->trials[0].loss.n == 0)
        return;
    FILE *f = picture_begin(&p);
    fprintf(f, "set title 'Training: loss of labels'\nset xlabel 'step'\nset yrange [0:*]\nplot ");
    for (int i = 0; i < r->trial_count; i++)
        fprintf(
            f,
            "'training.csv' skip 1 using ($1==%lld ? $2 : NaN):3 with lines lw 1.5 title 'seed %lld', \\\n",
            (long long)r->trials[i].seed, (long long)r->trials[i].seed);
    fprintf(f, "NaN notitle\n");
    picture_end(&p, r->folder, "training.png", 900, 480);
}

static void draw_accuracy(const results *r)
{
    picture p;
    FILE *f = picture_begin(&p);
    fprintf(f,
            "set title 'Accuracy after tuning'\nset xlabel 'learning rate'\nset logscale x\nset yrange "
            "[0:1]\nset key "
            "bottom left\nplot %g with lines lw 1.5 lc rgb '#202020' title 'in context', %g with lines lw "
            "1.5 dt 3 lc "
            "rgb '#202020' title 'zero-shot', \\\n",
            settings_over_seeds(r, TRAINED, in_context, NULL),
            settings_over_seeds(r, TRAINED, zero_shot, NULL));
    draw_lines(f, "means.csv", 3, 4 + ACCURACY, -1, COUNT(lines));
    picture_end(&p, r->folder, "accuracy.png", 900, 480);
}

/* A panel for each measure, in rows of two. by_layer: at one rate, trained models alone. */
static void draw_measures(const results *r, bool by_layer)
{
    picture p;
    FILE *f = picture_begin(&p);
    double rate = rate_of(best_rate(r, TRAINED, GD));
    fprintf(f, "set multiplot layout 3,2\nset key bottom left font ',8'\nset xlabel '%s'\n%s",
            by_layer ? "layer" : "learning rate", by_layer ? "set xtics 1\n" : "set logscale x\n");
    for (int m = 0; m < MEASURES; m++) {
        fprintf(f, "set title '%s' noenhanced\n%s\nplot ", measure_names[m], m ? "unset key" : "");
        draw_lines(f, by_layer ? "layers.csv" : "means.csv", by_layer ? 4 : 3, (by_layer ? 5 : 4) + m,
                   by_layer ? rate : -1, by_layer ? 3 : COUNT(lines));
    }
    fprintf(f, "unset multiplot\n");
    picture_end(&p, r->folder, by_layer ? "layers.png" : "rates.png", 1200, 1100);
}

/* A panel for each variant, of consecutive rows of the table, in the same colours. */
static void draw_gradients(const results *r)
{
    picture p;
    FILE *f = picture_begin(&p);
    int rows = r->trials[0].layers * (int)set.shots;
    fprintf(f,
            "stats 'gradients.csv' skip 1 using (log10($4)) nooutput\nset cbrange [STATS_min:STATS_max]\nset "
            "multiplot layout 1,%d\nset xlabel 'demonstration'\nset ylabel 'layer'\nset ytics 1\nset cblabel "
            "'log10 of the norm'\nset autoscale fix\nunset grid\nset rmargin 12\n",
            VARIANTS);
    for (int v = 0; v < VARIANTS; v++)
        fprintf(f,
                "set title '%s'\nplot 'gradients.csv' skip 1 every ::%d::%d using 3:2:(log10($4)) with image "
                "notitle\n",
                variant_names[v], v * rows, (v + 1) * rows - 1);
    fprintf(f, "unset multiplot\n");
    picture_end(&p, r->folder, "gradients.png", 1500, 420);
}

void draw_pictures(const results *r)
{
    draw_training(r);
    draw_accuracy(r);
    draw_measures(r, false);
    draw_measures(r, true);
    draw_gradients(r);
}
