/* SPDX-License-Identifier: MIT
 *
 * optim.h - parameters and optimisers.
 *
 *     mb_params *p = mb_params_new(mb, 42);
 *     mb_tensor w = mb_param(p, "w", MB_SHAPE(10, 784), mb_init_xavier(784, 10));
 *     mb_optimizer *opt = mb_adamw(p, (mb_adamw_options){.lr = 1e-3, .weight_decay = 1e-4});
 *     ...
 *     mb_step(opt, loss);                              // records gradients, update and assignment
 *     ...
 *     mb_optimizer_free(opt);
 *     mb_params_free(p);                               // before mb_close
 *
 * Three parts: parameters (named variables), optimisers that update them, and the same update rules as plain
 * functions, differentiable to any order, for inner loops.
 *
 * Errors are sticky on the context, as in tensor.h. A NULL mb_params or mb_optimizer, left by an earlier
 * error, is accepted: functions then return NULL, a null tensor, or MB_NO_MEMORY.
 *
 * layers/ builds on this header; nothing here depends on layers/.
 *
 * Stability: as in tensor.h. Option structs may grow at their ends: 0 in a new field means what was before.
 */
#ifndef MB_OPTIM_H
#define MB_OPTIM_H

#include "tensor/tensor.h"
#include "autograd/autograd.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------ initial values -- */

typedef enum mb_init_kind {
    MB_INIT_DEFAULT = 0, /* the layer's default, see layers.h; zeros outside of layers */
    MB_INIT_ZEROS,
    MB_INIT_ONES,
    MB_INIT_NORMAL,  /* mean 0, standard deviation `size` */
    MB_INIT_UNIFORM, /* on [-size, size) */
    MB_INIT_FULL,    /* `size` everywhere */
    MB_INIT_IMPULSE, /* 1 at the first index of the last axis but one, 0 elsewhere */
} mb_init_kind;

/* A parameter's initial value: made by the functions below, or by hand. */
typedef struct mb_init {
    mb_init_kind kind;
    double size;
} mb_init;

MB_API mb_init mb_init_zeros(void);
MB_API mb_init mb_init_ones(void);
MB_API mb_init mb_init_full(double value);
/* Of shapes [..., width, channels]: the kernels of a causal convolution that begins as the identity. */
MB_API mb_init mb_init_impulse(void);
MB_API mb_init mb_init_normal(double standard_deviation);
MB_API mb_init mb_init_uniform(double bound);
/* U(+-sqrt(6 / (fan_in + fan_out))): Glorot and Bengio 2010, eq. 16. */
MB_API mb_init mb_init_xavier(int64_t fan_in, int64_t fan_out);
/* U(+-sqrt(3 / fan)), variance 1 / fan. */
MB_API mb_init mb_init_lecun(int64_t fan);
/* U(+-sqrt(6 / fan_in)), variance 2 / fan_in, before a relu: He et al. 2015, eq. 10. */
MB_API mb_init mb_init_he(int64_t fan_in);

/* ---------------------------------------------------------------------------------------- parameters -- */

/* A set of variables with dotted names. The initial value of a parameter depends only on the seed and its
 * full name: adding, removing or reordering others does not change it. */
typedef struct mb_params mb_params;

/* Parameters are float32, or of the dtype given to mb_params_new_with, MB_FLOAT32 or MB_FLOAT64; layers cast
 * float32 ones for halves. The caller
 * frees the set with mb_params_free before mb_close. The variables themselves belong to the context. */
MB_API mb_params *mb_params_new_with_at(const char *site, mb_context *ctx, uint64_t seed, mb_dtype dtype);
#define mb_params_new_with(...)  mb_params_new_with_at(MB_HERE, __VA_ARGS__)
#define mb_params_new(ctx, seed) mb_params_new_with_at(MB_HERE, ctx, seed, MB_FLOAT32)
MB_API void mb_params_free(mb_params *p); /* NULL is allowed; frees mb_params_alloc's memory too */
MB_API mb_context *mb_params_context(const mb_params *p);
MB_API mb_dtype mb_params_dtype(const mb_params *p);

/* A new parameter, a variable whose full name is the entered prefixes and `name`, joined by dots. A name that
 * is empty or already taken, or that a file cannot hold (UTF-8 of at most 4000 bytes with its prefixes, not
 * "__metadata__"), is an error. The parameter is trainable. Weight decay applies to those made by mb_param
 * (kernels), not to those made by mb_param_no_decay (biases, scales, positions). Parameters must be created
 * outside of every scope. The initial value is stored at the next flush. */
MB_API mb_tensor mb_param_at(const char *site, mb_params *p, const char *name, mb_shape shape, mb_init init);
#define mb_param(...) mb_param_at(MB_HERE, __VA_ARGS__)
MB_API mb_tensor mb_param_no_decay_at(const char *site, mb_params *p, const char *name, mb_shape shape,
                                      mb_init init);
#define mb_param_no_decay(...) mb_param_no_decay_at(MB_HERE, __VA_ARGS__)

/* Between enter and leave, names get the prefix "name."; nested prefixes are joined, "" adds nothing. A leave
 * without an enter is an error. */
MB_API mb_status mb_params_enter_at(const char *site, mb_params *p, const char *name);
#define mb_params_enter(...) mb_params_enter_at(MB_HERE, __VA_ARGS__)
MB_API mb_status mb_params_leave_at(const char *site, mb_params *p);
#define mb_params_leave(...) mb_params_leave_at(MB_HERE, __VA_ARGS__)

/* In order of creation, 0 <= i < count. For other i: NULL, a null tensor, false. */
MB_API int mb_params_count(const mb_params *p);
MB_API const char *mb_params_name(const mb_params *p, int i); /* valid as long as p */
MB_API mb_tensor mb_params_tensor(const mb_params *p, int i);
MB_API bool mb_params_trainable(const mb_params *p, int i);
MB_API bool mb_params_decays(const mb_params *p, int i);
/* Number of trainable scalars. */
MB_API int64_t mb_params_size(const mb_params *p);
/* By full name; an unknown one is an error. */
MB_API mb_tensor mb_params_get_at(const char *site, const mb_params *p, const char *name);
#define mb_params_get(...) mb_params_get_at(MB_HERE, __VA_ARGS__)
/* Writes the trainable parameters, in order, to ts, at most `capacity` of them: the xs of mb_grad. Returns
 * how many there are; ts may be NULL to ask only for that. */
MB_API int mb_params_list(const mb_params *p, mb_tensor *ts, int capacity);

/* For the parameters that a pattern matches, as in taps.h: that of this full name and all whose names begin
 * with it and a dot, where "*" is any text without a dot; "": all. Whether optimisers change them, and
 * whether weight decay applies to them. A pattern of no parameter is an error. What trains the inputs of a
 * frozen model (prefixes, prompts) has a set and an optimiser of its own: mb_step goes through the model to
 * it. */
MB_API mb_status mb_params_set_trainable_at(const char *site, mb_params *p, const char *pattern,
                                            bool trainable);
#define mb_params_freeze(p, pattern)   mb_params_set_trainable_at(MB_HERE, p, pattern, false)
#define mb_params_unfreeze(p, pattern) mb_params_set_trainable_at(MB_HERE, p, pattern, true)
MB_API mb_status mb_params_set_decay_at(const char *site, mb_params *p, const char *pattern, bool decays);
#define mb_params_set_decay(...) mb_params_set_decay_at(MB_HERE, __VA_ARGS__)
/* The same parameters get the initial values that they would have in a set of this seed: with that of p,
 * those that they began with. Stored at the next flush; all or none. */
MB_API mb_status mb_params_reinit_at(const char *site, mb_params *p, const char *pattern, uint64_t seed);
#define mb_params_reinit(...) mb_params_reinit_at(MB_HERE, __VA_ARGS__)

/* The values of all parameters at one time, in variables of their own, so make it outside of every scope:
 * later parameters are not part of it. Belongs to the caller, and p must outlive it. NULL after an error. */
typedef struct mb_snapshot mb_snapshot;
MB_API mb_snapshot *mb_snapshot_new_at(const char *site, mb_params *p);
#define mb_snapshot_new(p) mb_snapshot_new_at(MB_HERE, p)
MB_API void mb_snapshot_free(mb_snapshot *snapshot); /* NULL is allowed */
/* Takes the values that the parameters have now; and gives the parameters that a pattern matches those of the
 * snapshot. Both record assignments without history, stored at the next flush; all or none. Optimisers keep
 * their state. */
MB_API mb_status mb_snapshot_take_at(const char *site, mb_snapshot *snapshot);
#define mb_snapshot_take(snapshot) mb_snapshot_take_at(MB_HERE, snapshot)
MB_API mb_status mb_snapshot_restore_at(const char *site, mb_snapshot *snapshot, const char *pattern);
#define mb_snapshot_restore(...) mb_snapshot_restore_at(MB_HERE, __VA_ARGS__)
/* Of parameter i; a null tensor for other i. */
MB_API mb_tensor mb_snapshot_tensor(const mb_snapshot *snapshot, int i);

/* Zeroed memory, valid as long as p: for a layer's own struct. NULL, and the context's error, if there is
 * none. */
MB_API void *mb_params_alloc(mb_params *p, size_t size);

/* All parameters, frozen ones included, as one safetensors file. A file to be loaded must have exactly these
 * names, shapes and dtypes; if one differs, nothing is changed. Both are flushes. */
MB_API mb_status mb_params_save_at(const char *site, const mb_params *p, const char *path);
#define mb_params_save(...) mb_params_save_at(MB_HERE, __VA_ARGS__)
MB_API mb_status mb_params_load_at(const char *site, mb_params *p, const char *path);
#define mb_params_load(...) mb_params_load_at(MB_HERE, __VA_ARGS__)

/* ----------------------------------------------------------------------------------------- schedules -- */

typedef enum mb_schedule_kind {
    MB_SCHEDULE_CONSTANT = 0,
    MB_SCHEDULE_COSINE,
    MB_SCHEDULE_STEPS,
} mb_schedule_kind;

/* A factor on the learning rate as a function of the step number. All zeros is the constant 1. Fields that a
 * kind does not use must be 0. */
typedef struct mb_schedule {
    mb_schedule_kind kind;
    int64_t warmup; /* >= 0; linear: the factor of step s < warmup is (s + 1) / warmup; then as below */
    int64_t total; /* COSINE, >= 1: floor + (1 - floor) / 2 (1 + cos(pi (s - warmup) / (total - warmup))), and
                    * `floor` from step `total` on: Loshchilov and Hutter 1608.03983, eq. 5. If warmup >=
                    * total there is no cosine part. */
    double floor;  /* COSINE, in [0, 1] */
    int64_t every; /* STEPS, >= 1: factor^floor(s / every), with s counted from the first step, not from
                      `warmup` */
    double factor; /* STEPS, > 0 */
} mb_schedule;

MB_API mb_schedule mb_schedule_constant(void);
MB_API mb_schedule mb_schedule_warmup_cosine(int64_t warmup, int64_t total);
MB_API mb_schedule mb_schedule_steps(int64_t every, double factor);
/* The factor of a step, counted from 0; NaN if the schedule is not valid. */
MB_API double mb_schedule_factor(mb_schedule schedule, int64_t step);

/* ---------------------------------------------------------------------------------------- optimisers -- */

/* In all options 0 means the default in brackets, where [off] means that nothing is done; MB_ZERO means the
 * number 0. An option that is not finite or out of its range is an error. With clip_norm c, all gradients are
 * multiplied by c / max(norm, c), where norm is that of all trainable parameters together.
 *
 * With skip, a step whose norm is not finite, as when an element is not, leaves
 * parameters and state as they are. That is decided where the step is computed, so no step needs a new plan,
 * or a flush of its own. mb_optimizer_skipped counts such steps. They are steps for mb_optimizer_steps and
 * the schedule, and none for Adam's t, which is then counted on the device.
 *
 * With loss_scale, which is for models that compute in float16 and takes skip with it, mb_step differentiates
 * the loss times a factor, so that small gradients are not lost below float16's range, and divides what
 * arrives at the parameters. The factor is 2^16 at first; a skipped step halves it, 2000 in a row that are
 * not double it, within 1 and 2^24: Micikevicius et al. 1710.03740, section 3.2. That is decided on the
 * device, as skipping is. Gradients given to mb_apply_gradients are taken as they are. bfloat16 has float32's
 * range, and needs none. The recipe for either: cast the inputs to the half dtype, the result to float32, and
 * take the loss there; layers cast their float32 parameters (layers.h), whose gradients are float32. */
#define MB_ZERO 1e-300

typedef struct mb_sgd_options {
    double lr;           /* learning rate, > 0; times the schedule's factor */
    double momentum;     /* [off], in [0, 1): v <- momentum v + g, parameter <- parameter - lr v */
    bool nesterov;       /* step along g + momentum v instead, with the new v; needs momentum */
    double weight_decay; /* [off], >= 0: adds weight_decay * parameter to its gradient, where decay applies */
    double clip_norm;    /* [off], >= 0: largest global norm of the gradients; applied first */
    double clip_value;   /* [off], >= 0: largest magnitude of an element, after clip_norm */
    mb_schedule schedule;
    bool skip; /* a step whose gradients' norm is not finite changes nothing, see above */
    bool
        loss_scale; /* mb_step multiplies the loss by a factor, and the gradients by its inverse: see above */
} mb_sgd_options;

typedef struct mb_adam_options {
    double lr;           /* > 0 */
    double beta1, beta2; /* [0.9, 0.999], in [0, 1) */
    double eps;          /* [1e-8], >= 0 */
    double clip_norm, clip_value;
    mb_schedule schedule;
    bool skip, loss_scale; /* as mb_sgd_options' */
} mb_adam_options;

typedef struct mb_adamw_options {
    double lr;           /* > 0 */
    double weight_decay; /* [off], >= 0: parameter <- (1 - lr weight_decay) parameter before Adam's step,
                            where decay applies, lr with the schedule's factor: Loshchilov and Hutter
                            1711.05101 in PyTorch's scaling. In MTTT's code decay is not multiplied by the
                            base lr: its 1e-4 with lr 1e-3 is 0.1 here. */
    double beta1, beta2; /* [0.9, 0.999], in [0, 1) */
    double eps;          /* [1e-8], >= 0 */
    double clip_norm, clip_value;
    mb_schedule schedule;
    bool skip, loss_scale; /* as mb_sgd_options' */
} mb_adamw_options;

/* An optimiser updates the trainable parameters of p, and keeps its state (momentum, second moments) in
 * variables of the context, zeros at first, for each parameter that p has when the optimiser is created; so
 * create it after the parameters, outside of every scope. Everything that changes from step to step is bound
 * at run time: no step needs a new plan. p must outlive it; free it with mb_optimizer_free. NULL after an
 * error. */
typedef struct mb_optimizer mb_optimizer;

MB_API mb_optimizer *mb_sgd_at(const char *site, mb_params *p, mb_sgd_options options);
#define mb_sgd(...) mb_sgd_at(MB_HERE, __VA_ARGS__)
MB_API mb_optimizer *mb_adam_at(const char *site, mb_params *p, mb_adam_options options);
#define mb_adam(...) mb_adam_at(MB_HERE, __VA_ARGS__)
MB_API mb_optimizer *mb_adamw_at(const char *site, mb_params *p, mb_adamw_options options);
#define mb_adamw(...) mb_adamw_at(MB_HERE, __VA_ARGS__)
MB_API void mb_optimizer_free(mb_optimizer *opt); /* NULL is allowed */

/* Records gradients of sum(loss) with respect to the trainable parameters, clipping, the update, and the
 * assignment of parameters and state. loss: of the parameters' dtype, any shape. Nothing is computed until
 * the next flush (the end of the step's scope, or a read: mb_item(loss) after mb_step does all in one).
 * mb_step_norm also gives the global norm of the gradients before clipping, 0-d. MB_INVALID, and no step, if
 * nothing is trainable, a parameter was created after the optimiser, or the loss depends on no trainable
 * parameter: such as a loss recorded before the last step, which depends on the old values. After mb_step the
 * parameters stand for their new values, with their history: end the scope before the next step, or that
 * history grows. */
MB_API mb_status mb_step_at(const char *site, mb_optimizer *opt, mb_tensor loss, mb_tensor *norm);
#define mb_step(opt, loss)            mb_step_at(MB_HERE, opt, loss, NULL)
#define mb_step_norm(opt, loss, norm) mb_step_at(MB_HERE, opt, loss, norm)
/* The same with n given gradients, in the order and of the shapes of mb_params_list: for gradients that are
 * not of a loss. */
MB_API mb_status mb_apply_gradients_at(const char *site, mb_optimizer *opt, const mb_tensor *gradients, int n,
                                       mb_tensor *norm);
#define mb_apply_gradients(opt, gradients, n) mb_apply_gradients_at(MB_HERE, opt, gradients, n, NULL)

/* What gradients go through in each later mb_step and mb_apply_gradients, before their norm is taken, so that
 * clipping, skipping and the rules see what it makes of them: a mean over processes (optim/mpi/ranks.h),
 * noise. It records, replaces gs[n] by tensors of the same shapes and dtypes, and another result than MB_OK
 * is the error of the step. NULL: nothing, as at first. */
typedef mb_status (*mb_gradients_through)(void *user, mb_context *ctx, mb_tensor *gs, int n);
MB_API void mb_optimizer_set_through(mb_optimizer *opt, mb_gradients_through through, void *user);

/* Records the gradients of sum(loss) and adds them to sums, which the next mb_step or mb_apply_gradients adds
 * to its own gradients: a step of a large batch, in the memory of a small one. Norm, clipping and skip are
 * those of the whole. A mean over n small batches of one size is the sum of n losses divided by n:
 *
 *     for (int i = 0; i < n; i++) {
 *         mb_scope scope = mb_scope_begin(mb);
 *         mb_tensor part = mb_mul(loss_of(batch[i]), 1.0 / n);
 *         i + 1 < n ? mb_accumulate(opt, part) : mb_step(opt, part);
 *         mb_scope_end(scope);                           // computed here: the sums are variables
 *     }
 *
 * A parameter that is frozen has no sum. Sums are in no file: save between a step and the next loss; a load
 * drops them. They take the parameters' memory once more, from the first use on. Errors are those of mb_step;
 * after one, no sum has changed. */
MB_API mb_status mb_accumulate_at(const char *site, mb_optimizer *opt, mb_tensor loss);
#define mb_accumulate(...) mb_accumulate_at(MB_HERE, __VA_ARGS__)

/* The number of steps; a step that an error has undone is not counted. */
MB_API int64_t mb_optimizer_steps(const mb_optimizer *opt);
/* How many of them were skipped; 0 without that option. A flush: computes what has been recorded. -1 after an
 * error. */
MB_API int64_t mb_optimizer_skipped_at(const char *site, const mb_optimizer *opt);
#define mb_optimizer_skipped(opt) mb_optimizer_skipped_at(MB_HERE, opt)
/* The factor of the next step's loss; 1 without that option. A flush. NaN after an error. */
MB_API double mb_optimizer_loss_scale_at(const char *site, const mb_optimizer *opt);
#define mb_optimizer_loss_scale(opt) mb_optimizer_loss_scale_at(MB_HERE, opt)
MB_API double mb_optimizer_lr(const mb_optimizer *opt);        /* of the next step, schedule included */
MB_API void mb_optimizer_set_lr(mb_optimizer *opt, double lr); /* before the schedule's factor; >= 0 */

/* State tensors: "optimizer.momentum.NAME", or "optimizer.m.NAME" and "optimizer.v.NAME", shaped like the
 * parameter NAME. For i outside 0 <= i < count: NULL, a null tensor. */
MB_API int mb_optimizer_state_count(const mb_optimizer *opt);
MB_API const char *mb_optimizer_state_name(const mb_optimizer *opt, int i);
MB_API mb_tensor mb_optimizer_state_tensor(const mb_optimizer *opt, int i);

/* Parameters, state and the number of steps ("optimizer.step", int32; with skip also "optimizer.skipped",
 * with loss_scale "optimizer.loss_scale" and "optimizer.steps_at_scale") in one safetensors file: a run
 * continued from it equals one that was not interrupted, bit for bit. Options are not saved. A file to be
 * loaded must be of the same parameters and optimiser; if one tensor differs in name, shape or dtype, nothing
 * is changed. */
MB_API mb_status mb_optimizer_save_at(const char *site, const mb_optimizer *opt, const char *path);
#define mb_optimizer_save(...) mb_optimizer_save_at(MB_HERE, __VA_ARGS__)
/* The same with metadata, as mb_safetensors_save takes it: what else a run is at this step. A load does not
 * look at it; mb_safetensors_metadata reads it. */
MB_API mb_status mb_optimizer_save_with_at(const char *site, const mb_optimizer *opt, const char *path,
                                           const char *const *metadata);
#define mb_optimizer_save_with(...) mb_optimizer_save_with_at(MB_HERE, __VA_ARGS__)
MB_API mb_status mb_optimizer_load_at(const char *site, mb_optimizer *opt, const char *path);
#define mb_optimizer_load(...) mb_optimizer_load_at(MB_HERE, __VA_ARGS__)

/* ------------------------------------------------------------------------------------------ averages -- */

/* Exponential moving averages of all parameters that p has now, frozen ones included, in variables of their
 * own, which begin as the parameters are. decay in [0, 1). Made outside of every scope; p must outlive it;
 * free it with mb_average_free. NULL after an error. */
typedef struct mb_average mb_average;
MB_API mb_average *mb_average_new_at(const char *site, mb_params *p, double decay);
#define mb_average_new(...) mb_average_new_at(MB_HERE, __VA_ARGS__)
MB_API void mb_average_free(mb_average *average); /* NULL is allowed */
/* average <- average + (1 - decay) (parameter - average); after each step, in its scope. All or none. */
MB_API mb_status mb_average_update_at(const char *site, mb_average *average);
#define mb_average_update(average) mb_average_update_at(MB_HERE, average)
/* Exchanges parameters and averages: to test with the averages, and with mb_params_save and mb_params_load
 * between two exchanges to save and load them. All or none. */
MB_API mb_status mb_average_swap_at(const char *site, mb_average *average);
#define mb_average_swap(average) mb_average_swap_at(MB_HERE, average)
/* Of parameter i; a null tensor for other i. */
MB_API mb_tensor mb_average_tensor(const mb_average *average, int i);

/* ------------------------------------------------------------------------------ differentiable rules -- */

/* One step as a function of its arguments, without variables: for inner loops. The result is the new
 * parameter; it can be differentiated, to any order, with respect to all tensor arguments, lr included.
 * parameter, gradient and state: floats of one shape; lr: a tensor, 0-d (mb_scalar), or of any shape that
 * broadcasts to the parameter's (one rate per head). The first state is mb_zeros. The optimisers above record
 * these same rules. */

/* parameter - lr gradient */
MB_API mb_tensor mb_sgd_update_at(const char *site, mb_tensor parameter, mb_tensor gradient, mb_tensor lr);
#define mb_sgd_update(...) mb_sgd_update_at(MB_HERE, __VA_ARGS__)

/* v' = momentum v + gradient; parameter - lr v', or with nesterov parameter - lr (gradient + momentum v').
 * Writes v' to new_velocity, which may be the address of `velocity`'s own handle. */
MB_API mb_tensor mb_momentum_update_at(const char *site, mb_tensor parameter, mb_tensor gradient,
                                       mb_tensor lr, mb_tensor velocity, double momentum, bool nesterov,
                                       mb_tensor *new_velocity);
#define mb_momentum_update(...) mb_momentum_update_at(MB_HERE, __VA_ARGS__)

/* Adam (Kingma and Ba 1412.6980, algorithm 1), step t = 1, 2, ...:
 *     m' = beta1 m + (1 - beta1) g,  v' = beta2 v + (1 - beta2) g^2,
 *     parameter - lr (m' / (1 - beta1^t)) / (sqrt(v' / (1 - beta2^t)) + eps)
 * Of the options only beta1, beta2 and eps are used (NULL, or 0: the defaults; MB_ZERO: 0). sqrt(v') counts
 * as having derivative 0 where v' is 0, so that a gradient of exactly 0 gives no NaN in later derivatives.
 * Writes m' to *new_m and v' to *new_v, which may be the addresses of m's and v's own handles. MB_INVALID for
 * t < 1. */
MB_API mb_tensor mb_adam_update_at(const char *site, mb_tensor parameter, mb_tensor gradient, mb_tensor lr,
                                   mb_tensor m, mb_tensor v, int64_t t, const mb_adam_options *options,
                                   mb_tensor *new_m, mb_tensor *new_v);
#define mb_adam_update(...) mb_adam_update_at(MB_HERE, __VA_ARGS__)
/* The same with the number of the step, t >= 1, as a tensor: 0-d int32, as in the body of a scan. */
MB_API mb_tensor mb_adam_update_in_scan_at(const char *site, mb_tensor parameter, mb_tensor gradient,
                                           mb_tensor lr, mb_tensor m, mb_tensor v, mb_tensor t,
                                           const mb_adam_options *options, mb_tensor *new_m,
                                           mb_tensor *new_v);
#define mb_adam_update_in_scan(...) mb_adam_update_in_scan_at(MB_HERE, __VA_ARGS__)

/* sqrt(sum of the squares of all elements of the n tensors), 0-d, computed as by mb_norm; if all elements are
 * 0, its derivatives are 0.
 */
MB_API mb_tensor mb_global_norm_at(const char *site, const mb_tensor *gs, int n);
#define mb_global_norm(...) mb_global_norm_at(MB_HERE, __VA_ARGS__)
/* clipped[i] = gs[i] max_norm / max(norm, max_norm), also if the norm overflows; clipped may be gs. Returns
 * the norm, 0-d, before clipping. max_norm > 0. Differentiable, through the norm as well.
 */
MB_API mb_tensor mb_clip_norm_at(const char *site, const mb_tensor *gs, int n, double max_norm,
                                 mb_tensor *clipped);
#define mb_clip_norm(...) mb_clip_norm_at(MB_HERE, __VA_ARGS__)
/* Each element clamped to [-limit, limit]; the derivative is 0 outside, and 1/2 at a limit. */
MB_API mb_tensor mb_clip_value_at(const char *site, mb_tensor g, double limit);
#define mb_clip_value(...) mb_clip_value_at(MB_HERE, __VA_ARGS__)

#ifdef __cplusplus
}
#endif
#endif
