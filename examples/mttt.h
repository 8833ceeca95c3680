/* SPDX-License-Identifier: MIT
 *
 * mttt.h - what the files of this example share: what a run was told, what it is made of, and who does what.
 */
#ifndef MTTT_H
#define MTTT_H

#include <moebius.h>

#include "common.h"

enum { CLASSES = 10 };

typedef struct settings {
    const char *learner, *positions, *backend, *data, *out, *keep_every, *dtype;
    int64_t inner_steps, inner_batch, patch, dim, heads, depth, epochs, batch, warmup, seed, threads,
        train_images, test_images, save_every, log_every;
    double inner_lr, lr, weight_decay, clip;
    bool resume, scan, checkpoint, force;
} settings;

extern settings set;

typedef struct run {
    mb_context *mb;
    mb_params *params;
    mb_vit *vit;
    mb_optimizer *optimizer;
    mb_images *train, *test;
    const char *folder;
    char *checkpoint;   /* its path */
    csv metrics, inner; /* inner: not open for learners without an inner loop */
    int inner_losses;   /* of all blocks: depth (T + 1), or 0 */
    mb_tensor *losses;  /* [inner_losses] */
    float *inner_loss;  /* [inner_losses] */
    float *logits;      /* [batch, CLASSES], of test images */

    /* What a checkpoint holds besides parameters and optimiser. */
    int64_t step, per_epoch, total, evaluated; /* evaluated: epochs whose test accuracy is known */
    double window_loss, window_correct; /* sums over the window_steps since the last row of metrics.csv */
    int64_t window_steps;
    double seconds, test_loss, test_accuracy;
    bool foretold;  /* what a step takes */
    double started; /* of this process's share of `seconds` */

    /* Of many processes: this one, how many there are, and how many of them were to stop at the last step.
     * Rank 0 is the one that prints and writes; the folder is its own. */
    int rank, ranks;
    struct mb_mpi *mpi;
    float stops;
} run;

/* Dies of the context's error, if there is one. */
void check(const run *r);
double seconds_now(const run *r);

/* ---- mttt_model.c ---- */

/* Reads the images, and makes parameters and optimiser. */
void build(run *r);
void demolish(run *r);

/* What the model makes of a batch of images. */
typedef struct answer {
    mb_tensor labels;       /* [B] int32                             */
    mb_tensor logits, loss; /* [B,CLASSES]; 0-d, the mean over B     */
    mb_tensor correct;      /* 0-d int32: logits largest at a label  */
} answer;

/* Recorded, of this rank's share of the images of a step. losses: NULL, or room for the inner ones. */
answer on_training_batch(const run *r, int64_t step, mb_tensor *losses);
/* Computed, of a batch of the test images, in order: mean loss, logits largest at a label, and r->logits.
 * Returns how many images it has. */
int64_t on_test_batch(const run *r, int64_t batch, double *loss, double *correct);

/* ---- mttt_machine.c ---- */

/* What decides which numbers come out, besides the flags. */
typedef struct machine {
    const char *backend;
    const char *instructions; /* of the processor, as far as the backend uses them; "" on others */
    char numbers[17];         /* of the bits that the model, not yet trained, makes of test images */
    char images[17];          /* of bytes of the first images, labels, and how many there are      */
} machine;

/* Computes with the parameters as they are: to be called before a checkpoint is loaded. */
machine this_machine(run *r);
/* config.json says on which machines the run has been, and from which step on. Other images than there: dies.
 * Another machine than the last there, or none: it is added, and a difference is told. */
void note_machine(const char *config, const machine *here, int64_t step);

/* ---- mttt_checkpoint.c ---- */

/* Opens new tables. */
void open_tables(run *r);
void close_tables(run *r);
void save(run *r);
/* Also opens the tables, cut to what they were at the checkpoint. Dies where it does not fit this run. */
void load(run *r);

/* ---- mttt_train.c ---- */

/* Whether metrics.csv has a row of training after that many steps. */
bool row_after(const run *r, int64_t steps);
/* Until all is done (true), or somebody wants it to stop; saved then. */
bool train(run *r);

/* ---- mttt_forecast.c ---- */

/* In the scope of a step of training that is recorded: tells what it will take, and dies where the memory is
 * not there. */
void foretell_step(run *r);

/* ---- mttt_ranks.c, where moebius-mpi is built; mttt_alone.c elsewhere ---- */

/* Which of how many processes this is; before the context is opened, whose options it may change. */
void ranks_begin(run *r, mb_options *options);
/* After it: waits for the others. */
void ranks_open(run *r);
/* Once there are parameters and optimiser: the same for all, and steps along the mean of their gradients. */
void ranks_share(run *r);
/* Recorded: the answer of all ranks together, of which this one has had its share of the batch, and the inner
 * losses, as means. */
void ranks_answer(run *r, answer *a, mb_tensor *losses, int n);
/* Computed: sums over all ranks, in place. */
void ranks_total(run *r, double *values, int n);
/* Whether to stop, as of the last step or total: on all ranks or on none. */
bool ranks_stop(const run *r);
void ranks_end(run *r);

/* ---- mttt_plot.c ---- */

void draw_pictures(const run *r);

#endif
