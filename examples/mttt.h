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
    const char *learner, *decoder_norm, *learned_start, *positions, *backend, *data, *out, *keep_every,
        *dtype;
    int64_t inner_steps, inner_batch, patch, dim, heads, depth, hidden, epochs, batch, accumulate, warmup,
        seed, threads, train_images, test_images, save_every, log_every;
    double inner_lr, lr, weight_decay, clip;
    bool resume, scan, checkpoint, force;
} settings;

/* mttt_flags.c */
extern settings set;
extern const flag run_flags[];
extern const int run_flag_count;

typedef struct run run;

struct run {
    mb_context *mb;
    mb_params *params;
    mb_vit *vit;
    mb_optimizer *optimizer;
    mb_images *train, *test;
    mb_loader *training, *testing; /* batches of these; open while they are needed */
    const char *folder;
    char *checkpoint;   /* its path */
    csv metrics, inner; /* inner: not open for learners without an inner loop */
    int inner_losses;   /* of all blocks: depth (T + 1), or 0 */
    mb_tensor *losses;  /* [inner_losses] */
    float *inner_loss;  /* [inner_losses], then as many of a part of a batch */
    float *logits;      /* [batch, CLASSES], of test images */

    /* What a checkpoint holds besides parameters and optimiser. */
    int64_t step, per_epoch, total, evaluated; /* evaluated: epochs whose test accuracy is known */
    double window_loss, window_correct; /* sums over the window_steps since the last row of metrics.csv */
    int64_t window_steps;
    double seconds, test_loss, test_accuracy;
    bool diverged;  /* of a run among others: numbers beyond float32 have ended it */
    double flops;   /* of products, for an image of the test: known once the machine is */
    bool foretold;  /* what a step takes */
    double started; /* of this process's share of `seconds` */

    /* A run among others: shows how far all are, in place of bars of its own and of what a step takes. After
     * each step, and with loss and accuracy since the last row. */
    void (*advanced)(const run *r, double loss, double accuracy);

    /* Of many processes: this one, how many there are, and how many of them were to stop at the last step.
     * Rank 0 is the one that prints and writes; the folder is its own. */
    int rank, ranks;
    struct mb_mpi *mpi;
    float stops;
};

/* ---- mttt_run.c ---- */

/* Dies of the context's error, if there is one. */
void check(const run *r);
double seconds_now(const run *r);
/* In r->folder, which belongs to this process: a new run, or the one that is there, of the same flags. */
void begin_run(run *r);
void resume_run(run *r);
/* Sets r->checkpoint; dies without that file. */
void expect_checkpoint(run *r);

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

/* Recorded, of a part of this rank's share of a step's batch, which the loader has given. losses: NULL, or
 * room for the inner ones. */
answer on_training_batch(const run *r, int64_t step, const void *const batch[2], int64_t part,
                         mb_tensor *losses);
/* Computed, of the next batch of the test images, in order: mean loss, logits largest at a label, and
 * r->logits. Returns how many images it has. */
int64_t on_test_batch(const run *r, double *loss, double *correct);
/* The batches from a step on, and those of a test from the first on. Closed by `demolish`, and by end_test.
 */
void begin_training(run *r, int64_t step);
void begin_test(run *r);
void skip_test_batch(run *r);
void end_test(run *r);

/* ---- mttt_kernel.c ---- */

/* A mixer for mb_mixer_options.make; user: the number of heads, an int64_t that stays. */
mb_mixer kernel_mixer(void *user, mb_params *p, int64_t dim);

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

/* In the scope of a part of a step of training that is recorded: tells what it will take, and dies where the
 * memory is not there. */
void foretell_step(run *r, int64_t part);

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
