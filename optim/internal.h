/* SPDX-License-Identifier: MIT
 *
 * internal.h - shared by the files of optim/: the parameter set's layout, checks of options, Adam's rule.
 */
#ifndef MB_OPTIM_INTERNAL_H
#define MB_OPTIM_INTERNAL_H

#include "optim/optim.h"
#include "tensor/internal.h"

/* The longest full name, in bytes; with an optimiser's prefix it is still valid in a file. */
#define MB__PARAM_NAME_MAX 4000

typedef struct mb__param {
    const char *name; /* full, dotted; from mb_params_alloc */
    uint64_t hash;    /* of the name: folded into the set's key */
    mb_tensor tensor; /* a variable */
    mb_init init;     /* of its initial value */
    bool trainable, decays;
} mb__param;

/* The header of a block of mb_params_alloc; the caller's bytes follow it. */
typedef struct mb__piece {
    struct mb__piece *next;
    size_t size;
} mb__piece;

struct mb_params {
    mb_context *ctx;
    mb_key key;
    mb_dtype dtype;
    mb__param *items;
    int count, capacity;
    char *prefix; /* the entered names, each followed by a dot; not NUL-terminated */
    int prefix_length, prefix_capacity;
    int *marks; /* prefix_length before each enter */
    int depth, depth_capacity;
    mb__piece *pieces;
};

/* Grows *array, of *capacity items of `item` bytes each, to a capacity of `need` or more. */
bool mb__grow(mb_context *ctx, void *array, int *capacity, int need, size_t item);
/* A copy of prefix + name in memory of p. NULL if there is no memory. */
const char *mb__params_text(mb_params *p, const char *prefix, int prefix_length, const char *name);

/* Whether a pattern (taps.h) matches the name; NULL is "". */
bool mb__param_matches(const mb__param *item, const char *pattern);
/* Gives each parameter that the pattern matches a value, all or none; a pattern of no parameter is an error.
 */
typedef struct mb__value_of {
    mb_tensor (*of)(const void *user, const mb_params *p, int i);
    const void *user;
} mb__value_of;
mb_status mb__params_assign(mb_params *p, const char *pattern, const mb__value_of *value);

/* Loads n tensors and checks that each has the shape and dtype of like[i]; the caller then assigns ts[i]. */
mb_status mb__load_like(mb_context *ctx, const char *path, const char *const *names, const mb_tensor *like,
                        mb_tensor *ts, int n);

/* sqrt whose derivatives of every order are 0 at 0. NaN stays NaN. */
mb_tensor mb__safe_sqrt(mb_tensor x);

#define MB__BETA1 0.9
#define MB__BETA2 0.999
#define MB__EPS   1e-8

/* An option and its range. */
typedef struct mb__range {
    const char *name;
    double value, least, most;
    const char *wanted; /* "more than 0" */
} mb__range;

mb__range mb__any_from_0(const char *name, double value);
mb__range mb__below_1(const char *name, double value);
mb__range mb__positive(const char *name, double value);
/* The value that an option means: `standard` for 0, 0 for MB_ZERO. */
double mb__option(double value, double standard);
/* Each is false after reporting, under `name`, the first that is out of range or not finite. */
bool mb__check_ranges(mb_context *ctx, const char *name, const mb__range *ranges, int n);
bool mb__check_schedule(mb_context *ctx, const char *name, mb_schedule schedule);
bool mb__check_adam(mb_context *ctx, const char *name, double beta1, double beta2, double eps);
/* The same as mb__check_schedule where there is no context to report to. */
bool mb__schedule_fits(mb_schedule schedule);

/* Adam's constants as 0-d tensors: rate = lr / (1 - beta1^t), root = 1 / sqrt(1 - beta2^t). */
typedef struct mb__adam_terms {
    mb_tensor beta1, beta2, rest1, rest2, eps, rate, root;
} mb__adam_terms;

/* lr: a tensor; if it is null, `rate` is computed from lr_value on the host. */
mb__adam_terms mb__adam_terms_of(mb_context *ctx, mb_dtype dtype, mb_tensor lr, double lr_value, int64_t t,
                                 double beta1, double beta2, double eps);
/* The same terms for a step whose number is a tensor: 0-d, of the parameters' dtype. */
void mb__adam_terms_at_step(mb__adam_terms *k, mb_tensor lr, mb_tensor number, double beta1, double beta2);
mb_tensor mb__adam_rule(const mb__adam_terms *k, mb_tensor parameter, mb_tensor gradient, mb_tensor *m,
                        mb_tensor *v);

/* The context of the first of n tensors that has one, or NULL. */
static inline mb_context *mb__context_of(const mb_tensor *ts, int n)
{
    for (int i = 0; i < n; i++)
        if (ts[i].ctx)
            return ts[i].ctx;
    return NULL;
}

#endif
