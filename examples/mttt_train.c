/* SPDX-License-Identifier: MIT
 *
 * mttt_train.c - the loop over steps and epochs, and the test after each epoch. */
#include <math.h>
#include <string.h>

#include "mttt.h"

bool row_after(const run *r, int64_t steps)
{
    return steps == 1 || steps % set.log_every == 0 || steps % r->per_epoch == 0;
}

/* What a step leaves for the tables. */
typedef struct outcome {
    float loss, norm; /* norm: of the gradient */
    int32_t correct;
    double lr;
} outcome;

/* Computes a part of a step, whose losses count as its share of the batch; the last part is the step. */
static void advance_part(run *r, const void *const batch[2], int64_t part, bool log, outcome *o)
{
    float loss = 0, *inner = r->inner_loss + r->inner_losses;
    int32_t correct = 0;
    mb_scope scope = mb_scope_begin(r->mb);
    answer a = on_training_batch(r, r->step, batch, part, log && r->inner_losses ? r->losses : NULL);
    mb_tensor share = set.accumulate > 1 ? mb_mul(a.loss, 1 / (double)set.accumulate) : a.loss,
              norm; /* 0-d */
    if (part + 1 < set.accumulate) {
        mb_accumulate(r->optimizer, share);
    } else {
        mb_step_norm(r->optimizer, share, &norm);
        mb_watch(norm, &o->norm, sizeof o->norm);
    }
    ranks_answer(r, &a, r->losses, log ? r->inner_losses : 0);
    mb_watch(a.loss, &loss, sizeof loss);
    mb_watch(a.correct, &correct, sizeof correct);
    for (int i = 0; log && i < r->inner_losses; i++)
        mb_watch(r->losses[i], &inner[i], sizeof *inner);
    if (!r->foretold && (part == 0 || part + 1 == set.accumulate))
        foretell_step(r, part);
    mb_scope_end(scope); /* everything is computed here */
    check(r);
    o->loss += loss / (float)set.accumulate;
    o->correct += correct;
    for (int i = 0; log && i < r->inner_losses; i++)
        r->inner_loss[i] += inner[i] / (float)set.accumulate;
}

/* Computes a step: parameters and optimiser have changed afterwards. */
static outcome advance(run *r, bool log)
{
    outcome o = {.lr = mb_optimizer_lr(r->optimizer)};
    const void *batch[2];
    mb_loader_next_memory(r->training, batch, NULL);
    check(r);
    for (int i = 0; i < r->inner_losses; i++)
        r->inner_loss[i] = 0;
    for (int64_t part = 0; part < set.accumulate; part++)
        advance_part(r, batch, part, log, &o);
    return o;
}

/* A gradient beyond float32 has made NaN of the parameters: no checkpoint may have them. Of one beyond
 * float16 the step was skipped. */
static bool is_finite(run *r, outcome o)
{
    bool finite = isfinite(o.loss) && (isfinite(o.norm) || strcmp(set.dtype, "float16") == 0);
    if (!finite && !r->advanced)
        die("step %lld: the loss is %g, the norm of its gradient %g; a smaller --lr or --inner-lr may help",
            (long long)r->step + 1, o.loss, o.norm);
    r->diverged = !finite;
    return finite;
}

static void write_rows(run *r, outcome o, double speed)
{
    double steps = (double)r->window_steps, epoch = (double)((r->step - 1) / r->per_epoch);
    csv_row(&r->metrics,
            (double[]){(double)r->step, epoch, r->window_loss / steps,
                       r->window_correct / (steps * (double)set.batch), NAN, NAN, o.lr, o.norm, speed,
                       seconds_now(r)},
            10);
    int losses = mb_vit_losses(r->vit);
    for (int i = 0; i < r->inner_losses; i++)
        csv_row(&r->inner, (double[]){(double)r->step, i / losses, i % losses, r->inner_loss[i]}, 4);
    r->window_loss = r->window_correct = 0;
    r->window_steps = 0;
}

/* One step of training. */
static void train_step(run *r, progress *bar)
{
    bool log = row_after(r, r->step + 1);
    outcome o = advance(r, log);
    if (!is_finite(r, o))
        return;
    int64_t within = r->step++ % r->per_epoch + 1;
    r->window_loss += o.loss;
    r->window_correct += o.correct;
    r->window_steps++;
    double steps = (double)r->window_steps;
    double loss = r->window_loss / steps, accuracy = r->window_correct / (steps * (double)set.batch);
    progress_step(bar, within, loss, accuracy, log);
    if (r->advanced)
        r->advanced(r, loss, accuracy);
    if (log)
        write_rows(r, o, bar->pace > 0 ? (double)set.batch / bar->pace : NAN);
}

/* Loss and accuracy on the test images, with the inner loop on. False: stopped before the end. */
static bool evaluate(run *r, const char *label)
{
    double loss_sum = 0, correct_sum = 0, images = 0;
    int64_t batches = (mb_images_count(r->test) + set.batch - 1) / set.batch;
    progress bar;
    progress_begin(&bar, label, batches);
    bar.quiet = r->advanced || r->rank > 0;
    begin_test(r);
    for (int64_t b = 0; b < batches && !ranks_stop(r); b++) {
        if (b % r->ranks != r->rank) {
            skip_test_batch(r);
            continue;
        }
        double loss, correct, count = (double)on_test_batch(r, &loss, &correct);
        loss_sum += loss * count; /* the last batch may be a short one */
        correct_sum += correct;
        images += count;
        progress_step(&bar, b + 1, loss_sum / images, correct_sum / images, b + 1 == batches);
    }
    progress_clear(&bar);
    end_test(r);
    double *const sums[] = {&loss_sum, &correct_sum, &images};
    for (int i = 0; i < COUNT(sums); i++)
        ranks_total(r, sums[i], 1);
    if (ranks_stop(r))
        return false;
    r->test_loss = loss_sum / images;
    r->test_accuracy = correct_sum / images;
    double epoch = (double)(r->step / r->per_epoch) - 1;
    csv_row(&r->metrics,
            (double[]){(double)r->step, epoch, NAN, NAN, r->test_loss, r->test_accuracy, NAN, NAN, NAN,
                       seconds_now(r)},
            10);
    return true;
}

/* The rest of an epoch, as far as nobody wants it to stop. */
static void train_epoch(run *r, int64_t epoch)
{
    progress bar;
    char label[48];
    snprintf(label, sizeof label, "epoch %lld/%lld", (long long)epoch + 1, (long long)set.epochs);
    progress_begin(&bar, label, r->per_epoch);
    bar.quiet = r->advanced || r->rank > 0;
    while (r->step / r->per_epoch == epoch && !ranks_stop(r) && !r->diverged) {
        train_step(r, &bar);
        if (!r->diverged && set.save_every && r->step % set.save_every == 0)
            save(r);
    }
    progress_clear(&bar);
}

bool train(run *r)
{
    begin_training(r, r->step);
    while (!ranks_stop(r)) {
        int64_t epoch = r->step / r->per_epoch;
        char label[48];
        if (r->step % r->per_epoch == 0 && r->evaluated < epoch) {
            snprintf(label, sizeof label, "test  %lld/%lld", (long long)epoch, (long long)set.epochs);
            if (evaluate(r, label))
                r->evaluated = epoch;
        } else if (r->step == r->total) {
            return true;
        } else {
            train_epoch(r, epoch);
            if (r->diverged)
                return true;
        }
        save(r);
    }
    if (r->step == 0)
        save(r); /* stopped before there was anything to save: --resume wants a checkpoint all the same */
    return false;
}
