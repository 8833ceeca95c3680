/* SPDX-License-Identifier: MIT
 *
 * elementwise.c - each row of the op table: plain and as views, with operands that broadcast, of each dtype
 * that it takes; and what it makes of infinities and of what is no number.
 */
#include "support.h"

typedef struct op {
    mb_tensor (*one)(const char *site, mb_tensor x);
    mb_tensor (*two)(const char *site, mb_tensor a, mb_tensor b);
    bool views;
} op;

/* Transposed, with the rows from the last to the first. */
static mb_tensor turned(mb_tensor x)
{
    return mb_flip(mb_transpose(x), 1);
}

/* x [B, N], y [N] or [B, N] */
static mb_tensor apply(mb_context *ctx, const void *layer, const mb_tensor *xs, const void *user)
{
    const op *o = user;
    (void)ctx, (void)layer;
    mb_tensor x = o->views ? turned(xs[0]) : xs[0];
    if (o->one)
        return o->one(MB_HERE, x);
    return o->two(MB_HERE, x, o->views ? turned(xs[1]) : xs[1]);
}

static void check(const char *name, const char *kind, const op *o, mb_layer_case c)
{
    char full[80];
    mb_check_result r;
    snprintf(full, sizeof full, "op/%s/%s", name, kind);
    if (!wanted(full))
        return;
    c.name = full;
    c.apply = apply;
    c.user = o;
    c.n = o->one ? 1 : 2;
    c.backends = run.backend;
    c.shape[0] = MB_SHAPE(MB_FREE(1), MB_FREE(2));
    c.shape[1] = o->views ? MB_SHAPE(MB_FREE(1), MB_FREE(2)) : MB_SHAPE(MB_FREE(2));
    told(full, mb_check_layer(&c, &r) == MB_OK, "%s", r.text);
}

/* types: F, N, I or L of ops.def. */
static void check_row(const char *name, char types, op o, double low, double high)
{
    bool steps = low == high; /* locally constant: between its jumps */
    const mb_layer_case floats = {.low = steps ? 0.1 : low, .high = steps ? 0.9 : high, .looser = 10};
    const mb_layer_case whole = {.dtype = {MB_INT32, MB_INT32}, .below = {50, 7}};
    const mb_layer_case wraps = {.dtype = {MB_INT32, MB_INT32}, .below = {INT32_MAX, INT32_MAX}};
    const mb_layer_case truth = {.dtype = {MB_BOOL, MB_BOOL}};
    if (types == 'F' || types == 'N') {
        check(name, "floats", &o, floats);
        o.views = true;
        check(name, "views", &o, floats);
    }
    o.views = false;
    if (types == 'N' || types == 'I') {
        check(name, "int32", &o, whole);
        check(name, "int32_wraps", &o, wraps); /* modulo 2^32 */
    }
    if (types == 'L')
        check(name, "bool", &o, truth);
}

/* ---- infinities and what is no number ---- */

static const double SPECIAL[] = {NAN, INFINITY, -INFINITY, 0.0, -0.0, 1, -1, 0.5, -2.5, 1e30, -1e30};
enum { SPECIALS = sizeof SPECIAL / sizeof *SPECIAL };

/* Every pair of special numbers. */
static mb_tensor of_specials(mb_context *ctx, const op *o, mb_dtype dtype)
{
    mb_tensor x = from_doubles(ctx, dtype, MB_SHAPE(SPECIALS), SPECIAL);
    return o->one ? o->one(MB_HERE, x) : o->two(MB_HERE, mb_reshape(x, MB_SHAPE(SPECIALS, 1)), x);
}

static void check_specials(const char *name, op o)
{
    char full[80];
    snprintf(full, sizeof full, "special/%s", name);
    if (!wanted(full))
        return;
    for (int d = MB_FLOAT32; d <= (run.float64 ? MB_FLOAT64 : MB_FLOAT32); d++) {
        mb_context *a = open_as(run.backend, NULL, 0), *b = open_as("reference", NULL, 0);
        mb_check_result r;
        mb_status status = mb_close_to(of_specials(a, &o, (mb_dtype)d), of_specials(b, &o, (mb_dtype)d),
                                       (mb_closeness){.nan_equal = true, .rtol = d ? 1e-13 : 1e-5}, &r);
        told(full, status == MB_OK, "%s", r.text);
        mb_close(a);
        mb_close(b);
    }
}

void elementwise_cases(void)
{
#define MB_UNARY(NAME, name, types, expr, lo, hi, cost, doc)                                                 \
    check_row(#name, #types[0], (op){.one = mb_##name##_at}, lo, hi);
#define MB_BINARY(NAME, name, types, expr, lo, hi, flags, cost, doc)                                         \
    check_row(#name, #types[0], (op){.two = mb_##name##_at}, lo, hi);
#define MB_COMPARE(NAME, name, types, expr, doc)                                                             \
    check_row(#name, #types[0], (op){.two = mb_##name##_at}, -1, 1);                                         \
    if (#types[0] != 'L')                                                                                    \
        check_specials(#name, (op){.two = mb_##name##_at});
#include "tensor/ops.def"
    static const struct {
        const char *name;
        op o;
    } exact[] = {{"neg", {.one = mb_neg_at}},     {"abs", {.one = mb_abs_at}}, {"sign", {.one = mb_sign_at}},
                 {"floor", {.one = mb_floor_at}}, {"add", {.two = mb_add_at}}, {"sub", {.two = mb_sub_at}},
                 {"mul", {.two = mb_mul_at}}};
    for (size_t i = 0; i < sizeof exact / sizeof *exact; i++)
        check_specials(exact[i].name, exact[i].o);
}
