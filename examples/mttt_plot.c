/* SPDX-License-Identifier: MIT
 *
 * mttt_plot.c - pictures of the tables. */
#include "mttt.h"

enum { WIDTH = 1000, HEIGHT = 620 };

void draw_pictures(const run *r)
{
    char script[2048];
    plot(r->folder, "loss.png", WIDTH, HEIGHT,
         "set title 'Loss while training'\nset xlabel 'step'\nset ylabel 'cross entropy, nats'\nset yrange "
         "[0:*]\n"
         "plot 'metrics.csv' skip 1 using 1:3 with lines lw 1.5 lc rgb '#3b6fb6' title 'training batches', "
         "\\\n"
         "     '' skip 1 using 1:5 with points pt 7 ps 1.4 lc rgb '#c8502d' title 'test images'\n");
    plot(r->folder, "accuracy.png", WIDTH, HEIGHT,
         "set title 'Accuracy while training'\nset xlabel 'step'\nset ylabel 'images classified right, %'\n"
         "set yrange [*:100]\nset key bottom right\n"
         "plot 'metrics.csv' skip 1 using 1:($4*100) with lines lw 1.5 lc rgb '#3b6fb6' title 'training "
         "batches', \\\n"
         "     '' skip 1 using 1:($6*100) with points pt 7 ps 1.4 lc rgb '#c8502d' title 'test images'\n");
    if (!r->inner_losses)
        return;
    int steps = r->inner_losses / (int)set.depth - 1, last = (int)set.depth - 1;
    snprintf(script, sizeof script,
             "set title 'What the learners do on an image: inner loss, first and last step of training'\n"
             "set xlabel 'inner step t'\nset ylabel 'l(W_t), summed over heads'\n"
             "set xrange [%g:%g]\nset xtics %s\nset yrange [0:*]\nset key outside right\nset rmargin 26\n"
             "stats 'inner_loss.csv' skip 1 using 1 nooutput name 'S'\n"
             "array colour[6] = ['#3b6fb6', '#c8502d', '#3d8f5f', '#8a5fb0', '#b08a2e', '#5f6b7a']\n"
             "plot for [l=0:%d] 'inner_loss.csv' skip 1 using ($1==S_min && $2==l ? $3 : NaN):4 \\\n"
             "  with linespoints dt 2 pt 6 lc rgb colour[l%%6+1] title sprintf('block %%d, first', l+1), \\\n"
             "  for [l=0:%d] '' skip 1 using ($1==S_max && $2==l ? $3 : NaN):4 \\\n"
             "  with linespoints lw 2 pt 7 lc rgb colour[l%%6+1] title sprintf('block %%d, last', l+1)\n",
             -0.05 * steps - 0.05, 1.05 * steps + 0.05, steps <= 12 ? "1" : "autofreq", last, last);
    plot(r->folder, "inner_loss.png", WIDTH, HEIGHT, script);
}
