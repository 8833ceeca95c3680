/* SPDX-License-Identifier: MIT
 *
 * optimizer.c - optimisers: the rules of rules.c applied to a parameter set, with their state in variables.
 * The learning rate and Adam's bias corrections are computed on the host and bound as scalars, so that all
 * steps run one plan.
 */
#include "optim/optimizer.h"

#include <math.h>
#include <string.h>

#define FIRST_SCALE   65536
#define MOST_SCALE    16777216
#define STEPS_TO_GROW 2000

/* --------------------------------------------------------------------------------------------- state -- */

/* Per rule: the prefixes of the names of states; NULL after the last. */
static const char *const state_names[][2] = {
    [MB__SGD] = {NULL, NULL},
    [MB__MOMENTUM] = {"optimizer.momentum.", NULL},
    [MB__ADAM] = {"optimizer.m.", "optimizer.v."},
};

static int states_of(const mb_optimizer *opt)
{
    return opt->rule == MB__SGD ? 0 : opt->rule == MB__MOMENTUM ? 1 : 2;
}

/* Whether a parameter has the name of a state; that is an error, since one file holds both. */
static bool taken(const mb_params *p, const char *name)
{
    for (int i = 0; i < p->count; i++)
        if (strcmp(p->items[i].name, name) == 0) {
            mb_fail(p->ctx, MB_INVALID, "optimizer: \"%.80s\" is the name of a state and of a parameter",
                    name);
            return true;
        }
    return false;
}

/* Creates the state of every parameter, frozen ones included: they may be unfrozen inside a scope, where
 * variables cannot be created, and a variable takes no memory before its first use. */
static mb_status make_state(mb_optimizer *opt)
{
    mb_params *p = opt->params;
    if (taken(p, "optimizer.step") || (opt->skip && taken(p, "optimizer.skipped")) ||
        (opt->scaled && (taken(p, "optimizer.loss_scale") || taken(p, "optimizer.steps_at_scale"))))
        return mb_error(p->ctx);
    if (opt->scaled) {
        opt->scale = mb_variable(p->ctx, p->dtype, MB_SHAPE0);
        opt->at_scale = mb_variable(p->ctx, MB_INT32, MB_SHAPE0);
        mb_assign(opt->scale, mb_scalar(p->ctx, p->dtype, FIRST_SCALE));
    }
    if (opt->skip)
        opt->skipped = mb_variable(p->ctx, MB_INT32, MB_SHAPE0);
    if (!mb__grow(p->ctx, &opt->slots, &opt->capacity, p->count, sizeof *opt->slots))
        return MB_NO_MEMORY;
    opt->work_count = MB__WORK_PER_PARAM * (size_t)p->count;
    opt->work = mb__alloc(p->ctx, (opt->work_count + 1) * sizeof *opt->work);
    if (!opt->work)
        return MB_NO_MEMORY;
    for (; opt->count < p->count; opt->count++) {
        const mb__param *item = &p->items[opt->count];
        mb__slot *slot = &opt->slots[opt->count];
        *slot = (mb__slot){0};
        for (int s = 0; s < states_of(opt); s++) {
            const char *prefix = state_names[opt->rule][s];
            slot->name[s] = mb__params_text(p, prefix, (int)strlen(prefix), item->name);
            if (slot->name[s] && taken(p, slot->name[s]))
                return mb_error(p->ctx);
            slot->state[s] = mb_variable(p->ctx, p->dtype, mb_shape_of(item->tensor));
            if (!slot->name[s] || !mb_valid(slot->state[s]))
                return mb_error(p->ctx);
        }
        slot->sum = mb_variable(p->ctx, p->dtype, mb_shape_of(item->tensor));
        if (!mb_valid(slot->sum))
            return mb_error(p->ctx);
    }
    return MB_OK;
}

/* Whether there is an optimiser, and this thread may use its context. */
static bool usable(const mb_optimizer *opt, const char *name)
{
    return opt && mb__right_thread(opt->params->ctx, name);
}

int mb_optimizer_state_count(const mb_optimizer *opt)
{
    return usable(opt, "mb_optimizer_state_count") ? opt->count * states_of(opt) : 0;
}

const char *mb_optimizer_state_name(const mb_optimizer *opt, int i)
{
    if (i < 0 || i >= mb_optimizer_state_count(opt))
        return NULL;
    return opt->slots[i / states_of(opt)].name[i % states_of(opt)];
}

mb_tensor mb_optimizer_state_tensor(const mb_optimizer *opt, int i)
{
    if (i < 0 || i >= mb_optimizer_state_count(opt))
        return (mb_tensor){0};
    return opt->slots[i / states_of(opt)].state[i % states_of(opt)];
}

/* -------------------------------------------------------------------------------- opening, closing -- */

/* All options, for any rule: those that a rule does not have are 0. */
static bool check_options(mb_context *ctx, const char *name, const mb_optimizer *o)
{
    const mb__range ranges[] = {
        mb__positive("lr", o->lr),
        mb__below_1("momentum", o->momentum),
        mb__any_from_0("weight_decay", o->added_decay),
        mb__any_from_0("weight_decay", o->decoupled_decay),
        mb__any_from_0("clip_norm", o->clip_norm),
        mb__any_from_0("clip_value", o->clip_value),
    };
    if (!mb__check_ranges(ctx, name, ranges, (int)(sizeof ranges / sizeof *ranges)) ||
        !mb__check_adam(ctx, name, o->beta1, o->beta2, o->eps) || !mb__check_schedule(ctx, name, o->schedule))
        return false;
    if (o->nesterov && o->momentum == 0)
        mb_fail(ctx, MB_INVALID, "%s: nesterov is set and momentum is 0, wanted more than 0", name);
    return !(o->nesterov && o->momentum == 0);
}

static mb_optimizer *new_optimizer(mb_params *p, const mb_optimizer *wanted, const char *name)
{
    if (!p || !check_options(p->ctx, name, wanted))
        return NULL;
    mb_optimizer *opt = mb__alloc(p->ctx, sizeof *opt);
    if (!opt)
        return NULL;
    *opt = *wanted;
    opt->params = p;
    opt->round = 1;
    if (make_state(opt) == MB_OK)
        return opt;
    mb_optimizer_free(opt);
    return NULL;
}

mb_optimizer *mb_sgd_at(const char *site, mb_params *p, mb_sgd_options o)
{
    MB_DOOR(mb_params_context(p), site, NULL);
    mb_optimizer wanted = {
        .rule = mb__option(o.momentum, 0) == 0 ? MB__SGD : MB__MOMENTUM,
        .lr = o.lr,
        .momentum = mb__option(o.momentum, 0),
        .nesterov = o.nesterov,
        .added_decay = mb__option(o.weight_decay, 0),
        .clip_norm = mb__option(o.clip_norm, 0),
        .clip_value = mb__option(o.clip_value, 0),
        .schedule = o.schedule,
        .skip = o.skip || o.loss_scale,
        .scaled = o.loss_scale,
    };
    return new_optimizer(p, &wanted, "mb_sgd");
}

mb_optimizer *mb_adamw_at(const char *site, mb_params *p, mb_adamw_options o)
{
    MB_DOOR(mb_params_context(p), site, NULL);
    mb_optimizer wanted = {
        .rule = MB__ADAM,
        .lr = o.lr,
        .beta1 = mb__option(o.beta1, MB__BETA1),
        .beta2 = mb__option(o.beta2, MB__BETA2),
        .eps = mb__option(o.eps, MB__EPS),
        .decoupled_decay = mb__option(o.weight_decay, 0),
        .clip_norm = mb__option(o.clip_norm, 0),
        .clip_value = mb__option(o.clip_value, 0),
        .schedule = o.schedule,
        .skip = o.skip || o.loss_scale,
        .scaled = o.loss_scale,
    };
    return new_optimizer(p, &wanted, "mb_adamw");
}

mb_optimizer *mb_adam_at(const char *site, mb_params *p, mb_adam_options o)
{
    MB_DOOR(mb_params_context(p), site, NULL);
    mb_optimizer wanted = {
        .rule = MB__ADAM,
        .lr = o.lr,
        .beta1 = mb__option(o.beta1, MB__BETA1),
        .beta2 = mb__option(o.beta2, MB__BETA2),
        .eps = mb__option(o.eps, MB__EPS),
        .clip_norm = mb__option(o.clip_norm, 0),
        .clip_value = mb__option(o.clip_value, 0),
        .schedule = o.schedule,
        .skip = o.skip || o.loss_scale,
        .scaled = o.loss_scale,
    };
    return new_optimizer(p, &wanted, "mb_adam");
}

void mb_optimizer_free(mb_optimizer *opt)
{
    if (!usable(opt, "mb_optimizer_free"))
        return;
    mb_context *ctx = opt->params->ctx;
    mb__number_forget(ctx, &opt->steps);
    mb__number_forget(ctx, &opt->round);
    for (int i = 0; i < opt->count; i++)
        mb__number_forget(ctx, &opt->slots[i].summed);
    if (opt->slots)
        mb__free(ctx, opt->slots, (size_t)opt->capacity * sizeof *opt->slots);
    if (opt->work)
        mb__free(ctx, opt->work, (opt->work_count + 1) * sizeof *opt->work);
    mb__free(ctx, opt, sizeof *opt);
}

/* ------------------------------------------------------------------------------------- learning rate -- */

int64_t mb_optimizer_steps(const mb_optimizer *opt)
{
    return usable(opt, "mb_optimizer_steps") ? opt->steps : 0;
}

int64_t mb_optimizer_skipped_at(const char *site, const mb_optimizer *opt)
{
    MB_DOOR(opt ? opt->params->ctx : NULL, site, -1);
    if (!opt || !opt->skip)
        return opt ? 0 : -1;
    int32_t count = 0;
    return mb_read(opt->skipped, &count, sizeof count) == MB_OK ? count : -1;
}

double mb_optimizer_loss_scale_at(const char *site, const mb_optimizer *opt)
{
    MB_DOOR(opt ? opt->params->ctx : NULL, site, NAN);
    return !opt ? NAN : opt->scaled ? mb_item(opt->scale) : 1;
}

double mb_optimizer_lr(const mb_optimizer *opt)
{
    return usable(opt, "mb_optimizer_lr") ? opt->lr * mb_schedule_factor(opt->schedule, opt->steps) : NAN;
}

void mb_optimizer_set_lr(mb_optimizer *opt, double lr)
{
    if (!usable(opt, "mb_optimizer_set_lr"))
        return;
    const mb__range range = mb__any_from_0("lr", lr);
    if (mb__check_ranges(opt->params->ctx, "mb_optimizer_set_lr", &range, 1))
        opt->lr = lr;
}

void mb_optimizer_set_through(mb_optimizer *opt, mb_gradients_through through, void *user)
{
    if (!usable(opt, "mb_optimizer_set_through"))
        return;
    opt->through = through;
    opt->through_user = user;
}

/* --------------------------------------------------------------------------------------------- steps -- */

/* 0-d tensors that all parameters share in a step; recorded once. */
typedef struct shared {
    mb_tensor lr;    /* SGD, momentum */
    mb_tensor decay; /* added decay: the factor; decoupled: 1 - lr weight_decay */
    mb__adam_terms adam;
} shared;

static shared shared_of(const mb_optimizer *opt)
{
    mb_context *ctx = opt->params->ctx;
    mb_dtype dtype = opt->params->dtype;
    double lr = mb_optimizer_lr(opt);
    shared s = {0};
    if (opt->rule == MB__ADAM)
        s.adam = mb__adam_terms_of(ctx, dtype, (mb_tensor){0}, lr, opt->steps + 1, opt->beta1, opt->beta2,
                                   opt->eps);
    else
        s.lr = mb_scalar(ctx, dtype, lr);
    if (opt->rule == MB__ADAM && opt->skip) {
        mb_tensor all = mb_scalar(ctx, dtype, (double)(opt->steps + 1));
        mb__adam_terms_at_step(&s.adam, mb_scalar(ctx, dtype, lr), mb_sub(all, mb_cast(opt->skipped, dtype)),
                               opt->beta1, opt->beta2);
    }
    if (opt->added_decay != 0)
        s.decay = mb_scalar(ctx, dtype, opt->added_decay);
    if (opt->decoupled_decay != 0)
        s.decay = mb_scalar(ctx, dtype, 1 - lr * opt->decoupled_decay);
    return s;
}

/* Returns the new value of one parameter; replaces state[] by its new state. */
static mb_tensor update(const mb_optimizer *opt, const shared *s, const mb__param *item, mb_tensor gradient,
                        mb_tensor state[2])
{
    mb_tensor value = item->tensor;
    if (item->decays && opt->added_decay != 0)
        gradient = mb_add(gradient, mb_mul(s->decay, value));
    if (item->decays && opt->decoupled_decay != 0)
        value = mb_mul(s->decay, value);
    switch (opt->rule) {
    case MB__SGD:
        return mb_sgd_update(value, gradient, s->lr);
    case MB__MOMENTUM:
        return mb_momentum_update(value, gradient, s->lr, state[0], opt->momentum, opt->nesterov, &state[0]);
    case MB__ADAM:
        return mb__adam_rule(&s->adam, value, gradient, &state[0], &state[1]);
    }
    return value;
}

/* A step that is skipped: what there was takes the place of the new value. */
static void keep_where_skipped(const mb_optimizer *opt, mb_tensor goes, int i, mb_tensor *value,
                               mb_tensor state[2])
{
    *value = mb_where(goes, *value, opt->params->items[i].tensor);
    for (int j = 0; j < states_of(opt); j++)
        state[j] = mb_where(goes, state[j], opt->slots[i].state[j]);
}

/* The loss's factor after this step, and how many steps in a row it then was that. */
static mb_status adapt_scale(const mb_optimizer *opt, mb_tensor goes)
{
    mb_tensor count = mb_where(goes, mb_add(opt->at_scale, 1), mb_mul(opt->at_scale, 0));
    mb_tensor grows = mb_ge(count, STEPS_TO_GROW), scale = opt->scale;
    mb_tensor next = mb_where(grows, mb_mul(scale, 2), mb_where(goes, scale, mb_mul(scale, 0.5)));
    mb_status status = mb_assign(opt->scale, mb_clamp(next, 1, MOST_SCALE));
    return status == MB_OK ? mb_assign(opt->at_scale, mb_where(grows, mb_mul(count, 0), count)) : status;
}

/* Clips the n gradients and assigns every trainable parameter and its state. All updates are recorded before
 * the first assignment, so that none reads an updated value. */
static mb_status apply(mb_optimizer *opt, mb_tensor *gs, int n, mb_tensor *norm)
{
    const mb_params *p = opt->params;
    mb_tensor found = {0};
    mb__optimizer_add_sums(opt, gs, n);
    mb_status status = opt->through ? opt->through(opt->through_user, p->ctx, gs, n) : MB_OK;
    if (status != MB_OK)
        return mb_error(p->ctx) ? status
                                : mb_fail(p->ctx, status, "optimizer: what gradients go through failed");
    if (opt->clip_norm > 0)
        found = mb_clip_norm(gs, n, opt->clip_norm, gs);
    else if (norm || opt->skip)
        found = mb_global_norm(gs, n);
    if (norm)
        *norm = found;
    mb_tensor goes = {0}, skipped = {0};
    if (opt->skip) {
        goes = mb_isfinite(found);
        skipped = mb_sub(mb_add(opt->skipped, 1), mb_cast(goes, MB_INT32));
    }
    if (opt->clip_value > 0)
        for (int i = 0; i < n; i++)
            gs[i] = mb_clip_value(gs[i], opt->clip_value);

    shared s = shared_of(opt);
    mb_tensor *values = gs, *states = gs + n; /* values overwrite the gradients; states: n pairs */
    for (int i = 0, k = 0; i < p->count; i++) {
        if (!p->items[i].trainable)
            continue;
        memcpy(states + 2 * k, opt->slots[i].state, sizeof opt->slots[i].state);
        values[k] = update(opt, &s, &p->items[i], gs[k], states + 2 * k);
        if (opt->skip)
            keep_where_skipped(opt, goes, i, &values[k], states + 2 * k);
        k++;
    }
    if (mb_error(p->ctx) != MB_OK)
        return mb_error(p->ctx);
    uint32_t before = p->ctx->change_count; /* a step is made completely or not at all */
    status = mb__number_set(p->ctx, &opt->steps, opt->steps + 1) &&
                     mb__number_set(p->ctx, &opt->round, opt->round + 1)
                 ? MB_OK
                 : mb_error(p->ctx);
    for (int i = 0, k = 0; i < p->count && status == MB_OK; i++) {
        if (!p->items[i].trainable)
            continue;
        status = mb_assign(p->items[i].tensor, values[k]);
        for (int j = 0; j < states_of(opt) && status == MB_OK; j++)
            status = mb_assign(opt->slots[i].state[j], states[2 * k + j]);
        k++;
    }
    if (status == MB_OK && opt->skip)
        status = mb_assign(opt->skipped, skipped);
    if (status == MB_OK && opt->scaled)
        status = adapt_scale(opt, goes);
    if (status != MB_OK)
        mb__changes_undo(p->ctx, before);
    return status;
}

mb_status mb_step_at(const char *site, mb_optimizer *opt, mb_tensor loss, mb_tensor *norm)
{
    MB_DOOR(opt ? opt->params->ctx : NULL, site, MB_THREAD);
    if (norm)
        *norm = (mb_tensor){0};
    if (!opt)
        return MB_NO_MEMORY;
    int n = 0;
    mb_status status = mb__optimizer_begin(opt, &n);
    if (status == MB_OK)
        status = mb__optimizer_gradients(opt, "mb_step", loss, n);
    if (status == MB_OK)
        status = apply(opt, opt->work + n, n, norm);
    return status;
}

mb_status mb_apply_gradients_at(const char *site, mb_optimizer *opt, const mb_tensor *gradients, int n,
                                mb_tensor *norm)
{
    MB_DOOR(opt ? opt->params->ctx : NULL, site, MB_THREAD);
    if (norm)
        *norm = (mb_tensor){0};
    if (!opt)
        return MB_NO_MEMORY;
    mb_context *ctx = opt->params->ctx;
    int wanted = 0;
    mb_status status = mb__optimizer_begin(opt, &wanted);
    if (status == MB_OK && n != wanted)
        status = mb_fail(ctx, MB_INVALID, "mb_apply_gradients: %d gradients for %d trainable parameters", n,
                         wanted);
    if (status == MB_OK && !gradients)
        status = mb_fail(ctx, MB_INVALID, "mb_apply_gradients: no array of gradients");
    for (int i = 0; i < n && status == MB_OK; i++) {
        mb_shape a = mb_shape_of(gradients[i]), b = mb_shape_of(opt->work[i]);
        if (mb_valid(gradients[i]) &&
            (a.rank != b.rank || memcmp(a.dim, b.dim, (size_t)a.rank * sizeof a.dim[0]) != 0))
            status = mb_fail(ctx, MB_INVALID,
                             "mb_apply_gradients: gradient %d does not have its parameter's shape", i);
        opt->work[n + i] = gradients[i];
    }
    if (status == MB_OK)
        status = apply(opt, opt->work + n, n, norm);
    return status;
}
