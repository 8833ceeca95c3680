/* SPDX-License-Identifier: MIT
 *
 * mttt_checkpoint.c - all that a run is at a step: parameters, optimiser, and where it is, in one file that
 * is replaced as a whole; and the tables, which are cut to what they were then. */
#include <math.h>
#include <stdlib.h>

#include "mttt.h"

/* ---- tables ---- */

static const char metrics_header[] =
    "step,epoch,loss,accuracy,test_loss,test_accuracy,lr,grad_norm,images_per_s,elapsed_s";
static const char inner_header[] = "step,block,inner_step,loss";

void open_tables(run *r)
{
    csv_open(&r->metrics, r->folder, "metrics.csv", metrics_header);
    if (r->inner_losses)
        csv_open(&r->inner, r->folder, "inner_loss.csv", inner_header);
}

void close_tables(run *r)
{
    csv_close(&r->metrics);
    csv_close(&r->inner);
}

/* ---- what it notes ---- */

typedef struct item {
    const char *key;
    int64_t *whole; /* one of the two: where it belongs */
    double *real;
    double least, most;
    bool undefined; /* may be NaN */
} item;

enum { ITEMS = 10 };

/* Everything in a checkpoint that is no tensor, and what a run of these flags can have there. */
static void list_items(run *r, item items[ITEMS], int64_t bytes[2])
{
    const double most_bytes = 1e15, images = (double)r->total * (double)set.batch;
    const item all[ITEMS] = {
        {"step", .whole = &r->step, .most = (double)r->total},
        {"evaluated", .whole = &r->evaluated, .most = (double)set.epochs},
        {"window_loss", .real = &r->window_loss, .most = HUGE_VAL},
        {"window_correct", .real = &r->window_correct, .most = images},
        {"window_steps", .whole = &r->window_steps, .most = (double)r->total},
        {"seconds", .real = &r->seconds, .most = 1e12},
        {"test_loss", .real = &r->test_loss, .most = HUGE_VAL, .undefined = true},
        {"test_accuracy", .real = &r->test_accuracy, .most = 1},
        {"metrics_bytes", .whole = &bytes[0], .most = most_bytes},
        {"inner_bytes", .whole = &bytes[1], .most = most_bytes},
    };
    for (int i = 0; i < ITEMS; i++)
        items[i] = all[i];
}

static double noted(const run *r, const mb_safetensors *file, const item *i)
{
    const char *text = mb_safetensors_metadata(file, i->key);
    char *end = NULL;
    double value = text ? strtod(text, &end) : 0;
    if (!text || end == text || *end)
        die("%s: no number '%s' in its metadata", r->checkpoint, i->key);
    bool inside = value >= i->least && value <= i->most && (!i->whole || value == floor(value));
    if (!inside && !(i->undefined && isnan(value)))
        die("%s: '%s' is %s, and should be %s from %.10g to %.10g", r->checkpoint, i->key, text,
            i->whole ? "a whole number" : "a number", i->least, i->most);
    return value;
}

/* Rows and tests come at fixed steps, so all these follow from the step. */
static void expect_consistent(const run *r)
{
    int64_t epochs = r->step / r->per_epoch, since = 0;
    while (since < r->step && !row_after(r, r->step - since))
        since++;
    bool just_trained = r->step > 0 && r->step % r->per_epoch == 0; /* the epoch's test may be to come */
    if (r->evaluated != epochs && !(just_trained && r->evaluated == epochs - 1))
        die("%s: at step %lld, %lld epochs are not %lld tested ones", r->checkpoint, (long long)r->step,
            (long long)epochs, (long long)r->evaluated);
    double correct = r->window_correct;
    if (r->window_steps != since || correct > (double)(since * set.batch) || correct != floor(correct) ||
        (since == 0 && r->window_loss != 0) || !isfinite(r->window_loss))
        die("%s: at step %lld, %lld steps since the last row, their losses %g and their correct answers %g "
            "do not fit together",
            r->checkpoint, (long long)r->step, (long long)r->window_steps, r->window_loss, correct);
    if (mb_optimizer_steps(r->optimizer) != r->step)
        die("%s: the run is at step %lld, its optimiser at %lld", r->checkpoint, (long long)r->step,
            (long long)mb_optimizer_steps(r->optimizer));
}

/* ---- files ---- */

void save(run *r)
{
    enum { WIDTH = 40 };
    if (r->rank > 0)
        return;
    item items[ITEMS];
    char values[ITEMS][WIDTH];
    const char *metadata[2 * ITEMS + 3] = {"format", "pt"};
    double seconds = seconds_now(r);
    csv_sync(&r->metrics); /* no checkpoint may know of rows that a power cut can still take */
    csv_sync(&r->inner);
    list_items(r, items, (int64_t[]){csv_bytes(&r->metrics), csv_bytes(&r->inner)});
    for (int i = 0; i < ITEMS; i++) {
        double value = items[i].whole ? (double)*items[i].whole : *items[i].real;
        if (items[i].real == &r->seconds)
            value = seconds;
        snprintf(values[i], WIDTH, "%.17g", value);
        metadata[2 + 2 * i] = items[i].key;
        metadata[3 + 2 * i] = values[i];
    }
    mb_optimizer_save_with(r->optimizer, r->checkpoint, metadata);
    check(r);
}

void load(run *r)
{
    item items[ITEMS];
    int64_t bytes[2];
    mb_safetensors *file = mb_safetensors_open(r->mb, r->checkpoint);
    check(r);
    list_items(r, items, bytes);
    for (int i = 0; i < ITEMS; i++) {
        double value = noted(r, file, &items[i]);
        if (items[i].whole)
            *items[i].whole = (int64_t)value;
        else
            *items[i].real = value;
    }
    mb_safetensors_close(file);
    mb_scope scope = mb_scope_begin(r->mb);
    mb_optimizer_load(r->optimizer, r->checkpoint);
    mb_scope_end(scope);
    check(r);
    expect_consistent(r);
    if (r->rank > 0)
        return;
    csv_reopen(&r->metrics, r->folder, "metrics.csv", metrics_header, bytes[0]);
    if (r->inner_losses)
        csv_reopen(&r->inner, r->folder, "inner_loss.csv", inner_header, bytes[1]);
}
