/* SPDX-License-Identifier: MIT
 *
 * internal.h - what the checks share: memory of a check, numbers, verdicts, and the subject of a check.
 */
#ifndef MB_CHECK_INTERNAL_H
#define MB_CHECK_INTERNAL_H

#include "tests/kit/check.h"

/* ---- memory: all of a check's, freed at once ---- */

typedef struct mb__blocks {
    mb_context *ctx;
    struct mb__block *last;
} mb__blocks;

/* Zeroed. NULL: the context's error is MB_NO_MEMORY. */
void *mb__block(mb__blocks *b, int64_t count, size_t item);
/* The part of a block from entry n on; of none, none. */
#define MB__PAST(block, n) ((block) ? (block) + (n) : NULL)
void mb__blocks_free(mb__blocks *b);

/* ---- numbers ---- */

/* SplitMix64 (Steele, Lea and Flood 2014). */
uint64_t mb__check_bits(uint64_t *state);
double mb__check_between(uint64_t *state, double low, double high);
/* Numbers for a tensor of that dtype, as doubles; int32: whole ones. NULL: no memory. */
double *mb__check_draw(mb__blocks *b, uint64_t *state, mb_dtype dtype, int64_t count, double low,
                       double high);
/* A buffer of these numbers, converted. */
mb_tensor mb__check_tensor(mb__blocks *b, mb_dtype dtype, mb_shape shape, const double *x);
/* t's values. NULL: the context has an error. */
double *mb__check_read(mb__blocks *b, mb_tensor t);
int64_t mb__check_count(mb_shape s);
bool mb__equal_shapes(mb_shape a, mb_shape b);
/* The largest finite magnitude, at least `least`. */
double mb__largest(const double *x, int64_t count, double least);

/* ---- verdicts ---- */

/* Starts a result; NULL is replaced by *own. */
mb_check_result *mb__check_begin(mb_check_result *result, mb_check_result *own);
/* Fills in status and sentence, "site: ..." */
mb_status mb__verdict(mb_check_result *r, mb_status status, const char *site, const char *format, ...)
    MB_PRINTF(4, 5);
/* The context's error as verdict, and cleared. MB_OK where there is none. */
mb_status mb__check_error(mb_check_result *r, mb_context *ctx, const char *site, const char *name);
/* "element 7 [1,3]". */
const char *mb__element_text(char *out, size_t size, mb_shape s, int64_t element);
const char *mb__dims_text(char *out, size_t size, mb_shape s);

/* The element of got that is furthest beyond atol + rtol |want|; -1: none is. */
int64_t mb__furthest(const double *got, const double *want, int64_t count, mb_closeness how);

/* ---- subjects ---- */

/* A function of float64 arguments at a point, for mb__check_derivatives. */
typedef struct mb__subject {
    mb_context *ctx;
    const char *site, *name;
    int n;
    const mb_shape *shape;
    double *const *x;
    int orders, mode_orders;
    double looser;
    /* Argument i with these values. */
    mb_tensor (*put)(const struct mb__subject *s, int i, const double *x);
    mb_tensor (*f)(const struct mb__subject *s, const mb_tensor *xs);
    const char *(*label)(const struct mb__subject *s, int i); /* "argument 1", "parameter gate.weight" */
    const void *user;
    mb__blocks *blocks;
} mb__subject;

mb_status mb__check_derivatives(const mb__subject *s, mb_check_result *r);

/* ---- derivatives at a point: point.c, modes.c ---- */

enum { MB_CHECK_ORDERS = 3 };

typedef struct mb__point {
    const mb__subject *s;
    mb_check_result *r;
    double *w0, **w[MB_CHECK_ORDERS]; /* directions: of the result, and for each order of each argument */
    int64_t *count, all;
    double looser;
    int orders, mode_orders;
} mb__point;

/* Argument i's tensors at the point; false: error set. */
bool mb__point_arguments(const mb__point *p, mb_tensor *xs);
/* p_order at xs; bit k of `forward`: derivative k + 1 by forward mode. */
mb_tensor mb__project(const mb__point *p, const mb_tensor *xs, int order, unsigned forward);
mb_tensor mb__project_on(const mb__point *p, mb_tensor value, const mb_tensor *xs, int k, bool forward);
/* Every mode against reverse over reverse. */
mb_status mb__check_modes(const mb__point *p);
/* "second derivative". */
const char *mb__order_text(int order);
/* "forward over reverse", outermost first. */
const char *mb__mode_text(char *out, size_t size, int order, unsigned forward);
/* The verdict on a derivative of an argument's element. against: "by differences". */
mb_status mb__wrong_derivative(const mb__point *p, int order, unsigned forward, int argument, int64_t element,
                               const char *against);

/* ---- layers: rig.c, layer.c ---- */

/* A layer on one backend, in one dtype. */
typedef struct mb__rig {
    const mb_layer_case *c;
    const char *backend;
    mb_dtype dtype;
    mb_context *ctx;
    mb_params *p;
    void *layer;
    int parameters;    /* all of them, ... */
    int derived;       /* ... and by how many arguments and parameters derivatives are taken, */
    int *argument;     /* each of which is this argument, or n + this parameter */
    mb__blocks blocks; /* as long as the rig */
} mb__rig;

/* What a layer is run on: shapes, numbers of the arguments, numbers of all parameters. */
typedef struct mb__feed {
    mb_shape shape[MB_CHECK_MOST];
    mb_shape repeated[MB_CHECK_MOST]; /* rank > 0: what argument i is repeated to before */
    double *x[MB_CHECK_MOST];
    double *const *parameters;
} mb__feed;

/* What came of it: the value, then derivatives; NULL in v past the end. */
typedef struct mb__outcome {
    int n;
    double **v;
    mb_shape *shape;
    int *order, *argument;
} mb__outcome;

/* MB_OK, or the status of the error, with a verdict. */
mb_status mb__rig_open(mb__rig *rig, const char *site, const mb_layer_case *c, const char *backend,
                       mb_dtype dtype, mb_check_result *r);
void mb__rig_close(mb__rig *rig);
/* The numbers of all parameters, in the memory of `keep`; NULL: error set. */
double **mb__rig_parameters(mb__rig *rig, mb__blocks *keep);
bool mb__rig_assign(mb__rig *rig, double *const *parameters);
/* The outcome lies in the memory of `keep`. False: the rig's context or keep's has an error. */
bool mb__rig_run(mb__rig *rig, const mb__feed *feed, mb__blocks *keep, mb__outcome *out);
/* Derivatives of all orders by arguments and parameters. */
mb_status mb__rig_check_derivatives(mb__rig *rig, const char *site, const mb__feed *feed, mb_check_result *r);
const char *mb__rig_label(const mb__rig *rig, int i, char *out, size_t size);
mb_tensor mb__rig_apply(mb__rig *rig, const mb_tensor *xs);
static inline mb_dtype mb__rig_dtype(const mb__rig *rig, int i)
{
    return rig->c->dtype[i] == MB_FLOAT32 ? rig->dtype : rig->c->dtype[i];
}

/* vmap.c. below: of whole numbers, for each argument; NULL: from low to high. */
mb_status mb__check_vmap(const char *site, mb_context *ctx, const mb_check_case *c, const int64_t *below,
                         mb_check_result *r);

#endif
