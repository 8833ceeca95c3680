/* SPDX-License-Identifier: MIT
 *
 * params.c - parameter sets: named variables, their initial values and flags.
 */
#include "optim/internal.h"
#include "tensor/files/safetensors.h"

#include <limits.h>
#include <math.h>
#include <stdalign.h>
#include <string.h>

/* ------------------------------------------------------------------------------------ initial values -- */

mb_init mb_init_zeros(void)
{
    return (mb_init){MB_INIT_ZEROS, 0};
}

mb_init mb_init_ones(void)
{
    return (mb_init){MB_INIT_ONES, 0};
}

mb_init mb_init_full(double value)
{
    return (mb_init){MB_INIT_FULL, value};
}

mb_init mb_init_impulse(void)
{
    return (mb_init){MB_INIT_IMPULSE, 0};
}

mb_init mb_init_normal(double standard_deviation)
{
    return (mb_init){MB_INIT_NORMAL, standard_deviation};
}

mb_init mb_init_uniform(double bound)
{
    return (mb_init){MB_INIT_UNIFORM, bound};
}

mb_init mb_init_xavier(int64_t fan_in, int64_t fan_out)
{
    return mb_init_uniform(sqrt(6.0 / ((double)fan_in + (double)fan_out)));
}

mb_init mb_init_lecun(int64_t fan)
{
    return mb_init_uniform(sqrt(3.0 / (double)fan));
}

mb_init mb_init_he(int64_t fan_in)
{
    return mb_init_uniform(sqrt(6.0 / (double)fan_in));
}

/* -------------------------------------------------------------------------------------------- memory -- */

bool mb__grow(mb_context *ctx, void *array, int *capacity, int need, size_t item)
{
    if (need <= *capacity)
        return true;
    int wanted = *capacity > INT_MAX / 2 ? INT_MAX : *capacity * 2;
    if (wanted < need)
        wanted = need;
    if (wanted < 16)
        wanted = 16;
    void *old, *grown = mb__alloc(ctx, (size_t)wanted * item);
    if (!grown)
        return false;
    memcpy(&old, array, sizeof old); /* `array` points to some T *, which must not be accessed as a void * */
    if (old) {
        memcpy(grown, old, (size_t)*capacity * item);
        mb__free(ctx, old, (size_t)*capacity * item);
    }
    memcpy(array, &grown, sizeof grown);
    *capacity = wanted;
    return true;
}

/* The header's size, rounded up so that the bytes after it are aligned for any type. */
#define PIECE_HEAD                                                                                           \
    ((sizeof(mb__piece) + alignof(max_align_t) - 1) / alignof(max_align_t) * alignof(max_align_t))

void *mb_params_alloc(mb_params *p, size_t size)
{
    if (!p || !mb__right_thread(p->ctx, "mb_params_alloc"))
        return NULL;
    if (size > SIZE_MAX - PIECE_HEAD)
        size = SIZE_MAX - PIECE_HEAD; /* too much: the allocator refuses it */
    mb__piece *piece = mb__alloc(p->ctx, PIECE_HEAD + size);
    if (!piece)
        return NULL;
    piece->next = p->pieces;
    piece->size = PIECE_HEAD + size;
    p->pieces = piece;
    return memset((char *)piece + PIECE_HEAD, 0, size);
}

const char *mb__params_text(mb_params *p, const char *prefix, int prefix_length, const char *name)
{
    size_t before = (size_t)prefix_length, length = strlen(name);
    char *text = mb_params_alloc(p, before + length + 1);
    if (!text)
        return NULL;
    if (before)
        memcpy(text, prefix, before);
    memcpy(text + before, name, length + 1);
    return text;
}

mb_params *mb_params_new_with_at(const char *site, mb_context *ctx, uint64_t seed, mb_dtype dtype)
{
    MB_DOOR(ctx, site, NULL);
    if (!ctx)
        return NULL;
    if (dtype != MB_FLOAT32 && dtype != MB_FLOAT64) {
        mb_fail(ctx, MB_INVALID, "mb_params: dtype %s, wanted float32 or float64", mb_dtype_name(dtype));
        return NULL;
    }
    mb_params *p = mb__alloc(ctx, sizeof *p);
    if (!p)
        return NULL;
    *p = (mb_params){.ctx = ctx, .key = mb_key_of(seed), .dtype = dtype};
    return p;
}

void mb_params_free(mb_params *p)
{
    if (!p || !mb__right_thread(p->ctx, "mb_params_free"))
        return;
    mb_context *ctx = p->ctx;
    while (p->pieces) {
        mb__piece *piece = p->pieces;
        p->pieces = piece->next;
        mb__free(ctx, piece, piece->size);
    }
    if (p->items)
        mb__free(ctx, p->items, (size_t)p->capacity * sizeof *p->items);
    if (p->prefix)
        mb__free(ctx, p->prefix, (size_t)p->prefix_capacity);
    if (p->marks)
        mb__free(ctx, p->marks, (size_t)p->depth_capacity * sizeof *p->marks);
    mb__free(ctx, p, sizeof *p);
}

/* --------------------------------------------------------------------------------------------- names -- */

mb_status mb_params_enter_at(const char *site, mb_params *p, const char *name)
{
    MB_DOOR(mb_params_context(p), site, MB_THREAD);
    if (!p)
        return MB_NO_MEMORY;
    if (!name)
        return mb_fail(p->ctx, MB_INVALID, "mb_params_enter: got no name; \"\" adds nothing");
    size_t length = strlen(name);
    if (length > INT_MAX / 4 - (size_t)p->prefix_length)
        return mb_fail(p->ctx, MB_INVALID, "mb_params_enter: the name is too long");
    int need = p->prefix_length + (int)length + 1;
    if (!mb__grow(p->ctx, &p->marks, &p->depth_capacity, p->depth + 1, sizeof *p->marks) ||
        !mb__grow(p->ctx, &p->prefix, &p->prefix_capacity, need, 1))
        return MB_NO_MEMORY;
    p->marks[p->depth++] = p->prefix_length;
    if (length) {
        memcpy(p->prefix + p->prefix_length, name, length);
        p->prefix[need - 1] = '.';
        p->prefix_length = need;
    }
    return MB_OK;
}

mb_status mb_params_leave_at(const char *site, mb_params *p)
{
    MB_DOOR(mb_params_context(p), site, MB_THREAD);
    if (!p)
        return MB_NO_MEMORY;
    if (p->depth == 0)
        return mb_fail(p->ctx, MB_INVALID, "mb_params_leave: no name was entered");
    p->prefix_length = p->marks[--p->depth];
    return MB_OK;
}

/* FNV-1a, 64 bits: the same on every machine, since initial values depend on it. */
static uint64_t hash_of(const char *text)
{
    uint64_t h = 14695981039346656037u;
    for (; *text; text++)
        h = (h ^ (unsigned char)*text) * 1099511628211u;
    return h;
}

static const mb__param *find(const mb_params *p, const char *name)
{
    uint64_t hash = hash_of(name);
    for (int i = 0; i < p->count; i++)
        if (p->items[i].hash == hash && strcmp(p->items[i].name, name) == 0)
            return &p->items[i];
    return NULL;
}

/* ------------------------------------------------------------------------------------ new parameters -- */

static mb_tensor impulse(const mb_params *p, mb_shape shape)
{
    int axis = shape.rank - 2;
    if (axis < 0) {
        mb_fail(p->ctx, MB_INVALID, "mb_param: an impulse of %d axes; wanted 2 or more", shape.rank);
        return (mb_tensor){0};
    }
    int64_t width = shape.dim[axis];
    shape.dim[axis] = width > 0;
    return mb_pad(mb_ones(p->ctx, p->dtype, shape), axis, 0, width - shape.dim[axis]);
}

static mb_tensor initial(const mb_params *p, mb_shape shape, mb_key key, mb_init init)
{
    switch (init.kind) {
    case MB_INIT_DEFAULT:
    case MB_INIT_ZEROS:
        return mb_zeros(p->ctx, p->dtype, shape);
    case MB_INIT_ONES:
        return mb_ones(p->ctx, p->dtype, shape);
    case MB_INIT_NORMAL:
        return mb_mul(mb_normal(p->ctx, key, p->dtype, shape), init.size);
    case MB_INIT_UNIFORM:
        return mb_mul(mb_sub(mb_uniform(p->ctx, key, p->dtype, shape), 0.5), 2 * init.size);
    case MB_INIT_FULL:
        return mb_full(p->ctx, p->dtype, shape, init.size);
    case MB_INIT_IMPULSE:
        return impulse(p, shape);
    }
    mb_fail(p->ctx, MB_INVALID, "mb_param: %d is not a kind of initial value", (int)init.kind);
    return (mb_tensor){0};
}

static mb_tensor new_param(mb_params *p, const char *name, mb_shape shape, mb_init init, bool decays)
{
    mb_tensor none = {0};
    if (!p)
        return none;
    if (!name || !*name) {
        mb_fail(p->ctx, MB_INVALID, "mb_param: a parameter needs a name");
        return none;
    }
    const char *full = mb__params_text(p, p->prefix, p->prefix_length, name);
    if (!full || !mb__grow(p->ctx, &p->items, &p->capacity, p->count + 1, sizeof *p->items))
        return none;
    if (strlen(full) > MB__PARAM_NAME_MAX || !mb__st_name(full)) {
        mb_fail(p->ctx, MB_INVALID,
                "mb_param: a file cannot hold the name \"%.80s\": wanted UTF-8 of at most %d bytes, not "
                "__metadata__",
                full, MB__PARAM_NAME_MAX);
        return none;
    }
    if (find(p, full)) {
        mb_fail(p->ctx, MB_INVALID, "mb_param: there is already a parameter \"%s\"", full);
        return none;
    }
    mb_tensor t = mb_variable(p->ctx, p->dtype, shape);
    if (mb_valid(t)) {
        uint64_t hash = hash_of(full);
        if (init.kind != MB_INIT_DEFAULT && init.kind != MB_INIT_ZEROS) /* as variables begin */
            mb_assign(t, initial(p, shape, mb_key_fold(p->key, hash), init));
        p->items[p->count++] = (mb__param){full, hash, t, init, true, decays};
    }
    return t;
}

mb_tensor mb_param_at(const char *site, mb_params *p, const char *name, mb_shape shape, mb_init init)
{
    MB_DOOR(mb_params_context(p), site, (mb_tensor){0});
    return new_param(p, name, shape, init, true);
}

mb_tensor mb_param_no_decay_at(const char *site, mb_params *p, const char *name, mb_shape shape, mb_init init)
{
    MB_DOOR(mb_params_context(p), site, (mb_tensor){0});
    return new_param(p, name, shape, init, false);
}

/* --------------------------------------------------------------------------------------- enumeration -- */

mb_context *mb_params_context(const mb_params *p)
{
    return p ? p->ctx : NULL;
}

mb_dtype mb_params_dtype(const mb_params *p)
{
    return p ? p->dtype : MB_FLOAT32;
}

int mb_params_count(const mb_params *p)
{
    return p && mb__right_thread(p->ctx, "mb_params_count") ? p->count : 0;
}

static const mb__param *at(const mb_params *p, int i)
{
    return i >= 0 && i < mb_params_count(p) ? &p->items[i] : NULL;
}

const char *mb_params_name(const mb_params *p, int i)
{
    const mb__param *item = at(p, i);
    return item ? item->name : NULL;
}

mb_tensor mb_params_tensor(const mb_params *p, int i)
{
    const mb__param *item = at(p, i);
    return item ? item->tensor : (mb_tensor){0};
}

bool mb_params_trainable(const mb_params *p, int i)
{
    const mb__param *item = at(p, i);
    return item && item->trainable;
}

bool mb_params_decays(const mb_params *p, int i)
{
    const mb__param *item = at(p, i);
    return item && item->decays;
}

int64_t mb_params_size(const mb_params *p)
{
    int64_t size = 0;
    for (int i = 0; i < mb_params_count(p); i++)
        if (p->items[i].trainable)
            if (__builtin_add_overflow(size, mb_count(p->items[i].tensor), &size))
                return INT64_MAX;
    return size;
}

mb_tensor mb_params_get_at(const char *site, const mb_params *p, const char *name)
{
    MB_DOOR(mb_params_context(p), site, (mb_tensor){0});
    if (!p)
        return (mb_tensor){0};
    const mb__param *item = find(p, name ? name : "");
    if (!item)
        mb_fail(p->ctx, MB_INVALID, "mb_params_get: no parameter \"%s\"", name ? name : "");
    return item ? item->tensor : (mb_tensor){0};
}

int mb_params_list(const mb_params *p, mb_tensor *ts, int capacity)
{
    int n = 0;
    for (int i = 0; i < mb_params_count(p); i++) {
        if (!p->items[i].trainable)
            continue;
        if (ts && n < capacity)
            ts[n] = p->items[i].tensor;
        n++;
    }
    return n;
}

static mb_status none_matches(const mb_params *p, const char *pattern)
{
    return mb_fail(p->ctx, MB_INVALID, "mb_params: no parameter is \"%s\" or begins with it and a dot",
                   pattern ? pattern : "");
}

bool mb__param_matches(const mb__param *item, const char *pattern)
{
    return mb__name_matches(pattern ? pattern : "", item->name);
}

static mb_status set_flag(mb_params *p, const char *pattern, bool trainable_flag, bool value)
{
    if (!p)
        return MB_NO_MEMORY;
    int found = 0;
    for (int i = 0; i < p->count; i++) {
        if (!mb__param_matches(&p->items[i], pattern))
            continue;
        found++;
        if (trainable_flag)
            p->items[i].trainable = value;
        else
            p->items[i].decays = value;
    }
    return found ? MB_OK : none_matches(p, pattern);
}

mb_status mb_params_set_trainable_at(const char *site, mb_params *p, const char *pattern, bool trainable)
{
    MB_DOOR(mb_params_context(p), site, MB_THREAD);
    return set_flag(p, pattern, true, trainable);
}

mb_status mb_params_set_decay_at(const char *site, mb_params *p, const char *pattern, bool decays)
{
    MB_DOOR(mb_params_context(p), site, MB_THREAD);
    return set_flag(p, pattern, false, decays);
}

mb_status mb__params_assign(mb_params *p, const char *pattern, const mb__value_of *value)
{
    uint32_t before = p->ctx->change_count; /* all or none */
    int found = 0;
    mb_status status = mb_error(p->ctx);
    for (int i = 0; i < p->count && status == MB_OK; i++) {
        if (!mb__param_matches(&p->items[i], pattern))
            continue;
        found++;
        status = mb_assign(p->items[i].tensor, value->of(value->user, p, i));
    }
    if (status == MB_OK && !found)
        return none_matches(p, pattern);
    if (status != MB_OK)
        mb__changes_undo(p->ctx, before);
    return status;
}

static mb_tensor initial_of(const void *key, const mb_params *p, int i)
{
    const mb__param *item = &p->items[i];
    return initial(p, mb_shape_of(item->tensor), mb_key_fold(*(const mb_key *)key, item->hash), item->init);
}

mb_status mb_params_reinit_at(const char *site, mb_params *p, const char *pattern, uint64_t seed)
{
    MB_DOOR(mb_params_context(p), site, MB_THREAD);
    mb_key key = mb_key_of(seed);
    return p ? mb__params_assign(p, pattern, &(mb__value_of){initial_of, &key}) : MB_NO_MEMORY;
}
