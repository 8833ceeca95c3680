/* SPDX-License-Identifier: MIT
 * layer.c - a layer on every backend, in both dtypes, of many shapes, again and with new data; see check.h.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "backends/engine/backends.h"
#include "tests/kit/internal.h"
#include "tensor/internal.h"

enum { FREE_MOST = 8, SETTINGS_MOST = 3 + FREE_MOST, DATA = 2, SHAKES = 3 };

/* Sizes, data of two kinds, what the reference backend makes of them, and by how much that changes with the
 * last bit of a float32, for each number. */
typedef struct setting {
    mb__feed feed[DATA];
    mb__outcome want[DATA];
    double *spread[DATA];
} setting;

typedef struct check {
    const char *site;
    const mb_layer_case *c;
    mb_check_result *r;
    mb__rig home; /* the reference backend, in float64 */
    mb__blocks *keep;
    double **parameters;
    setting settings[SETTINGS_MOST];
    int count;
} check;

static bool failed(check *k, mb__rig *rig)
{
    return k->r->status != MB_OK || mb__check_error(k->r, rig->ctx, k->site, k->c->name) != MB_OK ||
           mb__check_error(k->r, k->home.ctx, k->site, k->c->name) != MB_OK;
}

/* ---- sizes and data ---- */

static int free_sizes(const mb_layer_case *c)
{
    int most = 0;
    for (int i = 0; i < c->n; i++)
        for (int a = 0; a < c->shape[i].rank && a < MB_MAX_RANK; a++)
            if (c->shape[i].dim[a] < 0 && -c->shape[i].dim[a] > most)
                most = c->shape[i].dim[a] < -FREE_MOST ? FREE_MOST + 1 : (int)-c->shape[i].dim[a];
    return most;
}

/* Of setting s, free size k, from 1 on. */
static int64_t size_of(int s, int k)
{
    static const int64_t odd[3] = {5, 7, 3};
    return s == 0 ? 1 + k : s == 1 ? odd[(k + 2) % 3] : s == 2 ? 1 : s - 2 == k ? 0 : 1 + k;
}

static mb_shape shape_of(const mb_layer_case *c, int i, int s)
{
    mb_shape shape = c->shape[i];
    for (int a = 0; a < shape.rank; a++)
        if (shape.dim[a] < 0)
            shape.dim[a] = size_of(s, (int)-shape.dim[a]);
    return shape;
}

/* Numbers for argument i that float32 holds; NULL: no memory. */
static double *draw(check *k, int i, mb_shape shape, uint64_t *state)
{
    const mb_layer_case *c = k->c;
    bool ranged = c->low != 0 || c->high != 0, whole = c->dtype[i] == MB_INT32;
    double low = whole ? 0 : ranged ? c->low : -1, high = whole ? 2 : ranged ? c->high : 1;
    if (whole && c->below[i] > 0)
        high = (double)c->below[i];
    double *x = mb__check_draw(k->keep, state, c->dtype[i], mb__check_count(shape), low, high);
    for (int64_t j = 0; x && !whole && j < mb__check_count(shape); j++)
        x[j] = (double)(float)x[j];
    return x;
}

static bool feed(check *k, int s, int data, mb__feed *f)
{
    uint64_t state = 1000 + 2 * (uint64_t)s + (uint64_t)data;
    *f = (mb__feed){.parameters = k->parameters};
    for (int i = 0; i < k->c->n; i++) {
        f->shape[i] = shape_of(k->c, i, s);
        if (!mb__check_shape(k->home.ctx, k->c->name, mb__rig_dtype(&k->home, i), f->shape[i]) ||
            !(f->x[i] = draw(k, i, f->shape[i], &state)))
            return false;
    }
    return true;
}

/* ---- what is wanted ---- */

/* x with each number off by half a rounding of float32 at most. */
static double *shaken(mb__blocks *b, const double *x, int64_t count, uint64_t *state)
{
    double *y = mb__block(b, count, sizeof *y);
    for (int64_t i = 0; y && i < count; i++)
        y[i] = x[i] * (1 + 0x1p-24 * mb__check_between(state, -1, 1));
    return y;
}

static bool shake(check *k, const mb__feed *from, mb__feed *to, mb__blocks *b, uint64_t *state)
{
    double **p = mb__block(b, k->home.parameters, sizeof *p);
    *to = *from;
    to->parameters = p;
    for (int i = 0; i < k->c->n; i++)
        if (mb__is_float(mb__rig_dtype(&k->home, i)) &&
            !(to->x[i] = shaken(b, from->x[i], mb__check_count(from->shape[i]), state)))
            return false;
    for (int i = 0; p && i < k->home.parameters; i++)
        if (!(p[i] = shaken(b, from->parameters[i], mb_count(mb_params_tensor(k->home.p, i)), state)))
            return false;
    return p && mb__rig_assign(&k->home, p);
}

/* By how much each number of the outcome changes at most. */
static bool measure(check *k, const mb__feed *f, const mb__outcome *want, double *spread)
{
    uint64_t state = 77;
    bool ok = true;
    for (int n = 0; n < SHAKES && ok; n++) {
        mb__blocks blocks = {.ctx = k->home.ctx};
        mb__feed off;
        mb__outcome got;
        ok = shake(k, f, &off, &blocks, &state) && mb__rig_run(&k->home, &off, &blocks, &got);
        for (int i = 0; ok && i < want->n && i < got.n; i++)
            for (int64_t j = 0; j < mb__check_count(want->shape[i]); j++) {
                double change = fabs(got.v[i][j] - want->v[i][j]);
                spread[i] = change > spread[i] && isfinite(change) ? change : spread[i];
            }
        mb__blocks_free(&blocks);
    }
    return mb__rig_assign(&k->home, k->parameters) && ok;
}

static bool prepare_settings(check *k)
{
    int sizes = free_sizes(k->c);
    k->count = sizes ? 3 + sizes : 1;
    for (int s = 0; s < k->count; s++)
        for (int d = 0; d < DATA; d++) {
            setting *t = &k->settings[s];
            if (!feed(k, s, d, &t->feed[d]) || !mb__rig_run(&k->home, &t->feed[d], k->keep, &t->want[d]))
                return false;
            t->spread[d] = mb__block(k->keep, t->want[d].n, sizeof(double));
            if (!t->spread[d] || !measure(k, &t->feed[d], &t->want[d], t->spread[d]))
                return false;
        }
    return true;
}

/* Initial values in float32, and a little to each. */
static bool prepare_parameters(check *k)
{
    mb__rig rig;
    uint64_t state = 11;
    if (mb__rig_open(&rig, k->site, k->c, "reference", MB_FLOAT32, k->r) != MB_OK)
        return false;
    k->parameters = mb__rig_parameters(&rig, k->keep);
    for (int i = 0; k->parameters && i < rig.parameters; i++)
        for (int64_t j = 0; j < mb_count(mb_params_tensor(rig.p, i)); j++) {
            double x = k->parameters[i][j] + mb__check_between(&state, -0.2, 0.2);
            k->parameters[i][j] = (double)(float)x;
        }
    if (!k->parameters)
        mb__check_error(k->r, rig.ctx, k->site, k->c->name);
    mb__rig_close(&rig);
    return k->parameters && mb__rig_assign(&k->home, k->parameters);
}

/* ---- comparing ---- */

static void shapes_text(const check *k, const mb__feed *f, char *out, size_t size)
{
    size_t n = 0;
    for (int i = 0; i < k->c->n && n < size; i++) {
        char one[200];
        n += (size_t)snprintf(out + n, size - n, "%s%s", i ? " " : "",
                              mb__dims_text(one, sizeof one, f->shape[i]));
    }
}

static mb_status wrong(check *k, const mb__rig *rig, const mb__feed *f, const mb__outcome *o, int i,
                       int64_t element, const char *against)
{
    char shapes[200] = "", at[240], by[160] = "";
    mb_check_result *r = k->r;
    r->order = o->order[i];
    r->argument = o->argument[i];
    r->element = element;
    shapes_text(k, f, shapes, sizeof shapes);
    if (r->argument >= k->c->n)
        snprintf(by, sizeof by, " by parameter %.100s", mb_params_name(rig->p, r->argument - k->c->n));
    else if (r->argument >= 0)
        snprintf(by, sizeof by, " by argument %d", r->argument);
    return mb__verdict(
        r, MB_WRONG, k->site, "%s on %s in %s, of %s: %s%s, %s: got %.9g, wanted %.9g %s, allowed %.2g",
        k->c->name, rig->backend, mb_dtype_name(rig->dtype), shapes, mb__order_text(r->order), by,
        mb__element_text(at, sizeof at, o->shape[i], element), r->got, r->wanted, against, r->allowed);
}

static mb_status wrong_shape(check *k, const mb__rig *rig, const mb__outcome *got, const mb__outcome *want,
                             int i)
{
    char a[200] = "", b[200] = "";
    if (i < got->n && i < want->n) {
        mb__dims_text(a, sizeof a, got->shape[i]);
        mb__dims_text(b, sizeof b, want->shape[i]);
    }
    return mb__verdict(k->r, MB_WRONG, k->site,
                       "%s on %s in %s: got %d results, of which number %d is %s, wanted %d, %s", k->c->name,
                       rig->backend, mb_dtype_name(rig->dtype), got->n, i, a, want->n, b);
}

/* Within roundings of the rig's dtype; spread NULL: of well-conditioned numbers. */
static mb_status compare(check *k, const mb__rig *rig, const mb__feed *f, const mb__outcome *got,
                         const mb__outcome *want, const double *spread, const char *against)
{
    double rounding = rig->dtype == MB_FLOAT32 ? 0x1p-23 : 0x1p-52;
    double looser = k->c->looser > 0 ? k->c->looser : 1;
    for (int i = 0; i < want->n; i++) {
        if (i >= got->n || !mb__equal_shapes(got->shape[i], want->shape[i]))
            return wrong_shape(k, rig, got, want, i);
        int64_t count = mb__check_count(want->shape[i]);
        double allowed = 256 * rounding * mb__largest(want->v[i], count, 0);
        allowed += spread ? 32 * spread[i] * (rounding / 0x1p-23) : 0;
        k->r->allowed = allowed * looser;
        int64_t at = mb__furthest(got->v[i], want->v[i], count, (mb_closeness){0, k->r->allowed, true});
        if (at < 0)
            continue;
        k->r->got = got->v[i][at];
        k->r->wanted = want->v[i][at];
        return wrong(k, rig, f, got, i, at, against);
    }
    return MB_OK;
}

static mb_status same_bits(check *k, const mb__rig *rig, const mb__feed *f, const mb__outcome *got,
                           const mb__outcome *want, const char *against)
{
    for (int i = 0; i < want->n; i++) {
        if (i >= got->n || !mb__equal_shapes(got->shape[i], want->shape[i]))
            return wrong_shape(k, rig, got, want, i);
        for (int64_t j = 0; j < mb__check_count(want->shape[i]); j++) {
            double a = got->v[i][j], b = want->v[i][j];
            if (a == b || (isnan(a) && isnan(b)))
                continue;
            k->r->got = a;
            k->r->wanted = b;
            k->r->allowed = 0;
            return wrong(k, rig, f, got, i, j, against);
        }
    }
    return MB_OK;
}

/* ---- a backend ---- */

/* Whether the value is of floats, and there is something to differentiate it by. */
static bool differentiable(const check *k)
{
    return k->settings[0].want[0].n > 1;
}

/* New data after old, against the same data in a context of its own. */
static bool replays(check *k, mb__rig *rig, const mb__feed *f, const mb__outcome *after)
{
    mb__rig fresh;
    mb__outcome first;
    if (mb__rig_open(&fresh, k->site, k->c, rig->backend, rig->dtype, k->r) != MB_OK)
        return false;
    bool ok = mb__rig_assign(&fresh, k->parameters) && mb__rig_run(&fresh, f, k->keep, &first);
    if (ok)
        same_bits(k, rig, f, after, &first, "where these data are the first");
    bool good = !failed(k, &fresh);
    mb__rig_close(&fresh);
    return ok && good;
}

static bool one_setting(check *k, mb__rig *rig, int s)
{
    const setting *t = &k->settings[s];
    mb__outcome first, again, second;
    if (!mb__rig_run(rig, &t->feed[0], k->keep, &first) || !mb__rig_run(rig, &t->feed[0], k->keep, &again) ||
        !mb__rig_run(rig, &t->feed[1], k->keep, &second))
        return false;
    return compare(k, rig, &t->feed[0], &first, &t->want[0], t->spread[0], "by reference in float64") ==
               MB_OK &&
           same_bits(k, rig, &t->feed[0], &again, &first, "in the run before") == MB_OK &&
           compare(k, rig, &t->feed[1], &second, &t->want[1], t->spread[1], "by reference in float64") ==
               MB_OK &&
           (s > 0 || replays(k, rig, &t->feed[1], &second));
}

static bool one_dtype(check *k, const char *backend, mb_dtype dtype)
{
    mb__rig rig;
    if (mb__rig_open(&rig, k->site, k->c, backend, dtype, k->r) != MB_OK)
        return false;
    bool ok = mb__rig_assign(&rig, k->parameters);
    if (ok && dtype == MB_FLOAT64 && differentiable(k) && strcmp(backend, "reference") != 0)
        ok = mb__rig_check_derivatives(&rig, k->site, &k->settings[0].feed[0], k->r) == MB_OK;
    for (int s = 0; s < k->count && ok; s++)
        ok = one_setting(k, &rig, s);
    ok = !failed(k, &rig) && ok;
    mb__rig_close(&rig);
    return ok;
}

/* Whether the best device of a backend has float64. */
static bool has_float64(const char *backend)
{
    enum { MOST = 16 };
    mb_device devices[MOST];
    int count = mb_devices(devices, MOST, NULL);
    size_t n = strcspn(backend, ":");
    for (int i = 0; i < count && i < MOST; i++)
        if (!strncmp(devices[i].backend, backend, n) && strcspn(devices[i].backend, ":") == n)
            return devices[i].float64;
    return true;
}

static bool opens(const char *backend)
{
    mb_context *ctx = mb_open(backend);
    bool ok = ctx && mb_error(ctx) == MB_OK;
    mb_close(ctx);
    return ok;
}

static bool one_backend(check *k, const char *backend, bool wanted)
{
    if (!wanted && !opens(backend))
        return true;
    return one_dtype(k, backend, MB_FLOAT32) && (!has_float64(backend) || one_dtype(k, backend, MB_FLOAT64));
}

static bool each_backend(check *k)
{
    const char *list = k->c->backends;
    for (int i = 0; !list && mb_backend_at(i); i++)
        if (!one_backend(k, mb_backend_at(i), false))
            return false;
    while (list && *list) {
        char name[64];
        size_t n = strcspn(list, ",");
        snprintf(name, sizeof name, "%.*s", (int)(n < sizeof name ? n : sizeof name - 1), list);
        if (n && !one_backend(k, name, true))
            return false;
        list += n + (list[n] == ',');
    }
    return true;
}

/* ---- on the reference backend ---- */

static bool derivatives(check *k)
{
    for (int s = 0; s < k->count && differentiable(k); s++)
        if (mb__rig_check_derivatives(&k->home, k->site, &k->settings[s].feed[0], k->r) != MB_OK)
            return false;
    return true;
}

static bool broadcasts(check *k)
{
    for (int i = 0; i < k->c->n; i++) {
        if (!(k->c->broadcasts >> i & 1))
            continue;
        mb__feed small = k->settings[0].feed[0];
        mb__outcome got, want;
        uint64_t state = 500 + (uint64_t)i;
        small.shape[i] = k->c->shape[i];
        for (int a = 0; a < small.shape[i].rank; a++)
            if (small.shape[i].dim[a] < 0)
                small.shape[i].dim[a] = 1;
        mb__feed repeated = small;
        if (!(small.x[i] = repeated.x[i] = draw(k, i, small.shape[i], &state)))
            return false;
        repeated.repeated[i] = k->settings[0].feed[0].shape[i];
        if (!mb__rig_run(&k->home, &small, k->keep, &got) ||
            !mb__rig_run(&k->home, &repeated, k->keep, &want) ||
            compare(k, &k->home, &small, &got, &want, NULL, "by the repeated argument") != MB_OK)
            return false;
    }
    return true;
}

static mb_tensor f_of_rig(mb_context *ctx, const mb_tensor *xs, const void *user)
{
    (void)ctx;
    return mb__rig_apply((mb__rig *)user, xs);
}

static bool vmaps(check *k)
{
    const mb_layer_case *c = k->c;
    mb_check_case v = {.name = c->name,
                       .f = f_of_rig,
                       .user = &k->home,
                       .n = c->n,
                       .low = c->low,
                       .high = c->high,
                       .looser = c->looser};
    memcpy(v.dtype, c->dtype, sizeof v.dtype);
    memcpy(v.shape, k->settings[0].feed[0].shape, sizeof v.shape);
    return !c->vmap || mb__check_vmap(k->site, k->home.ctx, &v, c->below, k->r) == MB_OK;
}

static mb_status refuse(const char *site, const mb_layer_case *c, mb_check_result *r)
{
    if (!c || !c->apply || !c->name || c->n < 1 || c->n > MB_CHECK_MOST)
        return mb__verdict(r, MB_INVALID, site,
                           "check_layer: wanted a name, a function and 1 to %d arguments, got %d",
                           MB_CHECK_MOST, c ? c->n : 0);
    for (int i = 0; i < c->n; i++)
        if (c->shape[i].rank < 0 || c->shape[i].rank > MB_MAX_RANK)
            return mb__verdict(r, MB_INVALID, site, "check_layer: argument %d has %d axes; wanted 0 to %d", i,
                               c->shape[i].rank, MB_MAX_RANK);
    if (free_sizes(c) > FREE_MOST)
        return mb__verdict(r, MB_INVALID, site, "check_layer: wanted at most %d free sizes", FREE_MOST);
    return MB_OK;
}

mb_status mb_check_layer_at(const char *site, const mb_layer_case *c, mb_check_result *result)
{
    mb_check_result own, *r = mb__check_begin(result, &own);
    if (refuse(site, c, r) != MB_OK)
        return r->status;
    check k = {.site = site, .c = c, .r = r};
    if (mb__rig_open(&k.home, site, c, "reference", MB_FLOAT64, r) != MB_OK)
        return r->status;
    mb__blocks keep = {.ctx = k.home.ctx};
    k.keep = &keep;
    if (prepare_parameters(&k) && prepare_settings(&k) && derivatives(&k) && broadcasts(&k) && vmaps(&k))
        each_backend(&k);
    failed(&k, &k.home);
    mb__blocks_free(&keep);
    mb__rig_close(&k.home);
    return r->status;
}
