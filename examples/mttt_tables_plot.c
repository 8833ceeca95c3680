/* SPDX-License-Identifier: MIT
 *
 * mttt_tables_plot.c - a picture of each table. */
#include <math.h>

#include "mttt_tables.h"

enum { WIDTH = 900, HEIGHT = 540 };

/* The rows of a table from top to bottom, ours with their deviations. */
static void draw_rows(const sweep *s, const char *name, const char *title, const char *label, int accuracy,
                      int imagenet, int rows)
{
    picture p;
    FILE *f = picture_begin(&p);
    fprintf(
        f,
        "set multiplot layout 1,2 title '%s' font ',15'\nset yrange [%d.5:-0.5]\nset grid xtics\nunset "
        "key\nset xlabel 'accuracy on Fashion-MNIST, %%'\nset lmargin 38\n"
        "plot '%s.csv' skip 1 using %d:0:%d:ytic(%s) with xerrorbars pt 7 ps 1.3 lw 1.6 lc rgb '#3b6fb6'\n"
        "set lmargin 4\nset ytics 1\nset format y ''\nset xlabel 'accuracy on ImageNet, 2310.13807, %%'\n"
        "plot '%s.csv' skip 1 using (strlen(strcol(%d)) ? column(%d) : NaN):0 with points pt 7 ps 1.3 lc rgb "
        "'#c8502d'\nunset multiplot\n",
        title, rows - 1, name, accuracy, accuracy + 1, label, name, imagenet, imagenet);
    char file[64];
    snprintf(file, sizeof file, "%s.png", name);
    picture_end(&p, s->folder, file, 1200, 160 + 50 * rows);
}

static int rows_in(const sweep *s, table t)
{
    int n = 0;
    for (int i = 0; i < s->variant_count && is_asked_for(t); i++)
        n += (t == PIXELS ? s->variants[i].pixels : is_in(&s->variants[i], t)) && first_row(s, i);
    return n;
}

static void draw_steps(const sweep *s)
{
    plot(s->folder, "steps.png", WIDTH, HEIGHT,
         "set title 'MTTT-MLP: accuracy against inner steps'\nset xlabel 'inner steps T'\nset ylabel "
         "'accuracy, "
         "%'\nset key bottom right\nset logscale x 2\nset xrange [0.8:*]\n"
         "plot 'steps.csv' skip 1 using (strcol(1) eq 'N' && $2>0 ? $2 : NaN):3:4 with yerrorlines pt 7 lw "
         "1.6 lc "
         "rgb '#3b6fb6' title 'all tokens in each step', \\\n"
         "     '' skip 1 using (strcol(1) eq 'N/T' ? $2 : NaN):3:4 with yerrorlines pt 6 lw 1.6 dt 2 lc rgb "
         "'#c8502d' title 'one epoch of mini-batches of N/T tokens'\n");
}

/* A panel for each number of inner steps with all tokens; a line for each block, of the first seed. */
static void draw_inner(const sweep *s)
{
    int panels = 0;
    for (int i = 0; i < s->variant_count; i++)
        panels +=
            is_in(&s->variants[i], STEPS) && s->variants[i].inner_steps > 0 && s->variants[i].parts == 1;
    picture p;
    FILE *f = picture_begin(&p);
    fprintf(
        f,
        "set multiplot layout 1,%d title 'MTTT-MLP: inner loss by block and step, at the first (dotted) and "
        "last step of training' font ',15'\nset yrange [0:*]\nset xtics 1\nset xlabel 'inner step "
        "t'\nset ylabel 'l(W_t)'\narray colour[6] = ['#3b6fb6', '#c8502d', '#3d8f5f', '#8a5fb0', '#b08a2e', "
        "'#5f6b7a']\n",
        panels);
    for (int i = 0; i < s->variant_count; i++) {
        const variant *v = &s->variants[i];
        if (!is_in(v, STEPS) || v->inner_steps == 0 || v->parts > 1)
            continue;
        fprintf(f, "set title 'T = %lld'\nset xrange [-0.2:%lld.2]\nplot ", (long long)v->inner_steps,
                (long long)v->inner_steps);
        for (int64_t b = 0; b < told.depth; b++) {
            char block[32];
            snprintf(block, sizeof block, "block %lld", (long long)b + 1);
            for (int last = 0; last < 2; last++)
                fprintf(f,
                        "'inner.csv' skip 1 using (strcol(1) eq '%s' && $2==%lld && $4==%lld && ($3>1)==%d ? "
                        "$5 : "
                        "NaN):6 with linespoints pt %d dt %d lw 1.5 lc rgb colour[%lld] title '%s', \\\n",
                        v->name, (long long)told.first_seed, (long long)b, last, last ? 7 : 6, last ? 1 : 2,
                        (long long)(b % 6 + 1), last ? block : "");
        }
        fprintf(f, "NaN notitle\n");
    }
    fprintf(f, "unset multiplot\n");
    picture_end(&p, s->folder, "inner.png", 360 * (panels > 2 ? panels : 3), 480);
}

void draw_tables(const sweep *s)
{
    if (rows_in(s, LEARNERS))
        draw_rows(s, "learners", "Learners and attention, patches", "strcol(1)", 4, 6, rows_in(s, LEARNERS));
    if (rows_in(s, ABLATION))
        draw_rows(s, "ablation", "MTTT-MLP: decoder norm and learned start",
                  "sprintf('LN %s, W_0 %s', strcol(1), strcol(2) eq 'on' ? 'learned' : strcol(2))", 3, 5,
                  rows_in(s, ABLATION));
    if (rows_in(s, PIXELS))
        draw_rows(s, "pixels", "Raw pixels", "strcol(1)", 3, 5, rows_in(s, PIXELS));
    if (rows_in(s, STEPS)) {
        draw_steps(s);
        draw_inner(s);
    }
}
