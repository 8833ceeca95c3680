/* SPDX-License-Identifier: MIT
 *
 * optimizer.h - an optimiser's layout, for optimizer.c, gradients.c and checkpoint.c.
 */
#ifndef MB_OPTIM_OPTIMIZER_H
#define MB_OPTIM_OPTIMIZER_H

#include "optim/internal.h"

typedef enum mb__rule { MB__SGD, MB__MOMENTUM, MB__ADAM } mb__rule;

/* The state of the parameter with the same index. */
typedef struct mb__slot {
    mb_tensor state[2];
    const char *name[2];
    mb_tensor sum;  /* a variable: of the gradients that mb_accumulate was told ... */
    int64_t summed; /* ... in this round of the optimiser's; in an earlier one: they count no more */
} mb__slot;

/* Scratch tensors per parameter: itself, its gradient (then its new value), two new states. */
#define MB__WORK_PER_PARAM 4

struct mb_optimizer {
    mb_params *params;
    mb__rule rule;
    double lr, momentum, beta1, beta2, eps, added_decay, decoupled_decay, clip_norm, clip_value;
    bool nesterov, skip, scaled;
    mb_tensor skipped;         /* with skip: a variable, 0-d int32, the number of skipped steps */
    mb_tensor scale, at_scale; /* scaled: variables, 0-d: the loss's factor, of the parameters' dtype; int32,
                                  how many steps it has been that */
    mb_schedule schedule;
    int64_t steps;
    mb_gradients_through through; /* NULL: nothing */
    void *through_user;
    int64_t round; /* counted up by each step, and by each load */
    mb__slot *slots;
    int count, capacity; /* slots: one for each parameter at the optimiser's creation */
    mb_tensor *work;
    size_t work_count;
};

/* Writes the trainable parameters to work[0..n). */
mb_status mb__optimizer_begin(mb_optimizer *opt, int *n);
/* The gradients of sum(loss) by work[0..n), to work[n..2n); an error if it depends on none of them. */
mb_status mb__optimizer_gradients(mb_optimizer *opt, const char *name, mb_tensor loss, int n);
/* Adds what was accumulated in this round to the n gradients. */
void mb__optimizer_add_sums(const mb_optimizer *opt, mb_tensor *gs, int n);

#endif
