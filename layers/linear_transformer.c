/* SPDX-License-Identifier: MIT
 *
 * linear_transformer.c - linear transformers on prompts of pairs. Tokens are rows here, so with U = T^T the
 * formulas of layers.h are z <- z + z U, S <- (I + U)^T S (I + U), U = c sum_h Q_h^T S P_h^T.
 */
#include "layers/in_context.h"

typedef struct model {
    mb_linear_transformer_options o; /* zeros replaced by defaults */
    mb_tensor P, Q;                  /* [T,H,m,m], without the factor c */
    mb_tensor z;                     /* [B,N,m] */
    int64_t B, N, n, m;              /* n: tokens in the context */
    double c;
} model;

bool mb__check_in_context(mb_context *ctx, const char *layer, int64_t dim, int64_t outputs, int64_t layers,
                          int64_t heads)
{
    if (dim >= 1 && outputs >= 0 && layers >= 0 && heads >= 0 && dim <= MB_SIZE_MAX &&
        outputs <= MB_SIZE_MAX && layers <= 1000000 && heads <= MB_SIZE_MAX)
        return true;
    mb_fail(
        ctx, MB_INVALID,
        "%s: dim %lld, outputs %lld, layers %lld, heads %lld: dim must be 1 or more, none negative, layers "
        "at most 10^6 and the others 2^31",
        layer, (long long)dim, (long long)outputs, (long long)layers, (long long)heads);
    return false;
}

mb_tensor mb_prompt_tokens_at(const char *site, mb_tensor x, mb_tensor y)
{
    MB__APPLY(site, "prompt_tokens", {"x", x, MB__NEEDED}, {"y", y, MB__NEEDED});
    mb_shape sx = mb_shape_of(x), sy = mb_shape_of(y);
    int64_t n = sx.dim[1] - 1;
    mb_tensor z = {0};
    if (sx.rank != 3 || n < 0 || sy.rank < 2 || sy.rank > 3 || sy.dim[0] != sx.dim[0] ||
        (sy.dim[1] != n && sy.dim[1] != n + 1)) {
        mb_fail(x.ctx, MB_INVALID,
                "prompt_tokens: wanted x [prompts, n+1, d] and y [prompts, n] or [prompts, n, e]");
    } else {
        if (sy.rank == 2)
            y = mb_unsqueeze(y, 2);
        mb_tensor parts[2] = {x, mb_pad(mb_slice(y, 1, 0, n, 1), 1, 0, 1)};
        z = mb_concat(parts, 2, 2);
    }
    return z;
}

/* ---- parameters ---- */

/* The shape of P, and of Q. */
static mb_shape weight_shape(const mb_linear_transformer_options *o)
{
    int64_t T = o->tied ? 1 : o->layers, H = mb__at_least_one(o->heads);
    int64_t w = o->dim + (o->sparse ? 0 : mb__at_least_one(o->outputs));
    return H > 1 ? MB_SHAPE(T, H, w, w) : MB_SHAPE(T, w, w);
}

static bool check_options(mb_context *ctx, const mb_linear_transformer_options *o)
{
    if (!mb__check_in_context(ctx, "linear_transformer", o->dim, o->outputs, o->layers, o->heads))
        return false;
    if (o->scores >= MB_SCORES_LINEAR && o->scores <= MB_SCORES_SOFTMAX_MASKED)
        return true;
    mb_fail(ctx, MB_INVALID, "linear_transformer: %d is not a kind of scores", (int)o->scores);
    return false;
}

mb_linear_transformer mb_linear_transformer_new_at(const char *site, mb_params *p, const char *name,
                                                   mb_linear_transformer_options options)
{
    MB_SITE(mb_params_context(p), site);
    mb_linear_transformer layer = {.options = options};
    if (!p || !check_options(mb_params_context(p), &options) || mb_params_enter(p, name) != MB_OK)
        return layer;
    mb_init init = options.init.kind == MB_INIT_DEFAULT ? mb_init_normal(0.05) : options.init;
    layer.P = mb_param(p, "P", weight_shape(&options), init);
    layer.Q = mb_param(p, "Q", weight_shape(&options), init);
    mb_params_leave(p);
    return layer;
}

int64_t mb_linear_transformer_size(const mb_linear_transformer_options *options)
{
    if (!options)
        return 0;
    if (!check_options(NULL, options)) /* NULL: reports nothing */
        return 0;
    mb_shape s = weight_shape(options);
    int64_t count = 2;
    for (int i = 0; i < s.rank; i++)
        if (__builtin_mul_overflow(count, s.dim[i], &count))
            return 0;
    return count;
}

mb_linear_transformer mb_linear_transformer_view_at(const char *site, mb_tensor theta,
                                                    mb_linear_transformer_options options)
{
    MB_SITE(theta.ctx, site);
    mb_linear_transformer layer = {.options = options};
    if (!mb__operands("linear_transformer", &(mb__operand){"theta", theta, MB__NEEDED}, 1, &layer.P) ||
        !check_options(theta.ctx, &options))
        return layer;
    int64_t size = mb_linear_transformer_size(&options);
    if (mb_shape_of(theta).rank != 1 || mb_dim(theta, 0) != size) {
        mb_fail(theta.ctx, MB_INVALID, "linear_transformer: theta has %lld elements, wanted [%lld]",
                (long long)mb_count(theta), (long long)size);
        return layer;
    }
    int64_t half = size / 2;
    layer.P = mb_reshape(mb_slice(theta, 0, 0, half, 1), weight_shape(&options));
    layer.Q = mb_reshape(mb_slice(theta, 0, half, half, 1), weight_shape(&options));
    return layer;
}

/* ---- what a layer is applied to ---- */

/* [T,w,w] or [T,H,w,w] -> [T,H,m,m]; if sparse, with the identity in y's block of P. */
static mb_tensor full_weights(const mb_linear_transformer_options *o, mb_tensor t, bool corner)
{
    int64_t e = mb__at_least_one(o->outputs);
    if (mb_shape_of(t).rank == 3)
        t = mb_unsqueeze(t, 1);
    if (!o->sparse)
        return t;
    t = mb_pad(mb_pad(t, 2, 0, e), 3, 0, e);
    if (!corner)
        return t;
    mb_tensor one = mb_eye(t.ctx, mb_dtype_of(t), e);
    return mb_add(t, mb_pad(mb_pad(one, 0, o->dim, 0), 1, o->dim, 0));
}

static bool right_shape(const mb_linear_transformer_options *o, mb_tensor t)
{
    mb_shape s = mb_shape_of(t), want = weight_shape(o);
    if (s.rank == 4 && want.rank == 3) /* one head, with an axis for it */
        want = MB_SHAPE(want.dim[0], 1, want.dim[1], want.dim[2]);
    if (s.rank != want.rank)
        return false;
    for (int i = 0; i < s.rank; i++)
        if (s.dim[i] != want.dim[i])
            return false;
    return true;
}

static bool prepare(const mb_linear_transformer *layer, mb_tensor z, model *a)
{
    *a = (model){.o = layer->options, .z = z};
    mb_linear_transformer_options *o = &a->o;
    mb_shape s = mb_shape_of(z);
    if (!check_options(z.ctx, o))
        return false;
    o->outputs = mb__at_least_one(o->outputs);
    o->heads = mb__at_least_one(o->heads);
    a->m = o->dim + o->outputs;
    if (s.rank != 3 || s.dim[1] < 2 || s.dim[2] != a->m) {
        mb_fail(z.ctx, MB_INVALID,
                "linear_transformer: wanted tokens [prompts, n+1, %lld] with n of 1 or more",
                (long long)a->m);
        return false;
    }
    if (!right_shape(o, layer->P) || !right_shape(o, layer->Q)) {
        mb_shape w = weight_shape(&layer->options);
        mb_fail(z.ctx, MB_INVALID,
                "linear_transformer: P and Q have %d and %d axes, wanted [%lld,%s%lld,%lld]",
                mb_shape_of(layer->P).rank, mb_shape_of(layer->Q).rank, (long long)w.dim[0],
                w.rank > 3 ? "heads," : "", (long long)w.dim[w.rank - 1], (long long)w.dim[w.rank - 1]);
        return false;
    }
    a->B = s.dim[0];
    a->N = s.dim[1];
    a->n = o->unmasked ? a->N : a->N - 1;
    a->c = o->scale != 0 ? o->scale : 1 / (double)(a->N - 1);
    a->P = full_weights(o, mb__as(layer->P, z), true);
    a->Q = full_weights(o, mb__as(layer->Q, z), false);
    return true;
}

/* The weights of layer l: [H,m,m]. */
static mb_tensor of_layer(const model *a, mb_tensor t, int64_t l)
{
    return mb_squeeze(mb_slice(t, 0, a->o.tied ? 0 : l, 1, 1), 0);
}

/* ---- through S ---- */

static mb_tensor context(const model *a, mb_tensor z)
{
    return a->n < a->N ? mb_slice(z, 1, 0, a->n, 1) : z;
}

/* sum_i z_i z_i^T: [B,m,m] */
static mb_tensor moments(const model *a, mb_tensor z)
{
    mb_tensor pairs = context(a, z);
    return mb_matmul(mb_transpose(pairs), pairs);
}

/* U = c sum_h Q_h^T S P_h^T: [B,m,m] */
static mb_tensor update(const model *a, mb_tensor S, int64_t l)
{
    mb_tensor P = of_layer(a, a->P, l), Q = mb_mul(of_layer(a, a->Q, l), a->c);
    if (a->o.heads == 1) {
        P = mb_squeeze(P, 0), Q = mb_squeeze(Q, 0);
        return mb_matmul(mb_matmul(mb_transpose(Q), S), mb_transpose(P));
    }
    return mb_einsum("bhij,hkj->bik", mb_einsum("hji,bjk->bhik", Q, S), P);
}

static mb_tensor next_moments(mb_tensor S, mb_tensor U)
{
    mb_tensor W = mb_add(S, mb_matmul(S, U));
    return mb_add(W, mb_matmul(mb_transpose(U), W));
}

/* Whether products of m by m matrices cost less than N by n scores, in multiplications per prompt. whole: all
 * tokens are asked for; else the last layer costs almost nothing. */
static bool through_moments(const model *a, bool whole)
{
    if (a->o.scores != MB_SCORES_LINEAR || a->o.clip > 0)
        return false;
    double m = (double)a->m, n = (double)a->n, N = (double)a->N, L = (double)a->o.layers,
           H = (double)a->o.heads;
    double products = whole ? (2 * H + 3) * L : (2 * H + 2) * (L - 1);
    return n * m * m + products * m * m * m <= L * H * 2 * N * m * (m + n);
}

/* ---- through the tokens ---- */

/* c sum_h P_h Z M f(Z^T Q_h z_j) for all tokens j: [B,N,m] */
static mb_tensor attend(const model *a, mb_tensor z, int64_t l)
{
    mb_tensor P = of_layer(a, a->P, l), Q = of_layer(a, a->Q, l);
    bool all = a->o.scores == MB_SCORES_SOFTMAX_MASKED;
    mb_tensor from = context(a, z), key = all ? z : from;
    mb_tensor s = mb_einsum("bhjk,bik->bhji", mb_einsum("bjl,hkl->bhjk", z, Q), key);
    if (a->o.scores != MB_SCORES_LINEAR)
        s = mb_softmax(s, -1);
    if (all && a->n < a->N)
        s = mb_slice(s, 3, 0, a->n, 1);
    mb_tensor mixed = mb_einsum("bhji,bik->bhjk", s, from);
    return mb_mul(mb_einsum("bhjk,hlk->bjl", mixed, P), a->c);
}

static mb_tensor through_tokens(const model *a)
{
    mb_tensor z = a->z;
    model one = *a; /* with clip, S is still used within a layer */
    one.o.clip = 0;
    one.o.layers = 1;
    bool by_moments = through_moments(&one, true);
    for (int64_t l = 0; l < a->o.layers; l++) {
        z = mb_add(z, by_moments ? mb_matmul(z, update(a, moments(a, z), l)) : attend(a, z, l));
        if (a->o.clip > 0)
            z = mb_clip_value(z, a->o.clip);
        if (!z.id)
            break;
    }
    return z;
}

/* ---- apply, predict ---- */

static mb_tensor all_tokens(const model *a)
{
    if (!through_moments(a, true))
        return through_tokens(a);
    mb_tensor S = {0}, A = {0}; /* the tokens are z + z A: I + A is the product of all I + U so far */
    for (int64_t l = 0; l < a->o.layers && (!l || A.id); l++) {
        S = l ? S : moments(a, a->z);
        mb_tensor U = update(a, S, l);
        A = l ? mb_add(mb_add(A, U), mb_matmul(A, U)) : U;
        if (l + 1 < a->o.layers)
            S = next_moments(S, U);
    }
    return A.ctx ? mb_add(a->z, mb_matmul(a->z, A)) : a->z;
}

/* The y-entries of the query's token q: [B,m] after the last layer: computes only this row and these columns.
 */
static mb_tensor last_layer(const model *a, mb_tensor S, mb_tensor q)
{
    int64_t l = a->o.layers - 1;
    mb_tensor P = mb_slice(of_layer(a, a->P, l), 1, a->o.dim, a->o.outputs, 1); /* [H,e,m] */
    mb_tensor Q = mb_mul(of_layer(a, a->Q, l), a->c);
    mb_tensor y = mb_slice(q, 1, a->o.dim, a->o.outputs, 1);
    mb_tensor r = mb_einsum("bhj,bjk->bhk", mb_einsum("bi,hji->bhj", q, Q), S);
    return mb_add(y, mb_einsum("bhk,hek->be", r, P));
}

static mb_tensor prediction(const model *a)
{
    int64_t d = a->o.dim, e = a->o.outputs;
    if (!through_moments(a, false) || a->o.layers == 0) {
        mb_tensor query = mb_squeeze(mb_slice(through_tokens(a), 1, a->N - 1, 1, 1), 1);
        return mb_neg(mb_slice(query, 1, d, e, 1));
    }
    mb_tensor S = moments(a, a->z), q = mb_squeeze(mb_slice(a->z, 1, a->N - 1, 1, 1), 1); /* [B,m] */
    for (int64_t l = 0; l + 1 < a->o.layers && S.id; l++) {
        mb_tensor U = update(a, S, l);
        q = mb_add(q, mb_einsum("bi,bij->bj", q, U));
        S = next_moments(S, U);
    }
    return mb_neg(last_layer(a, S, q));
}

static mb_tensor run(const char *site, const mb_linear_transformer *layer, mb_tensor z,
                     mb_tensor (*what)(const model *))
{
    MB__APPLY(site, "linear_transformer", {"z", z, MB__NEEDED}, {"layer.P", layer->P, MB__NEEDED},
              {"layer.Q", layer->Q, MB__NEEDED});
    model a;
    return prepare(layer, z, &a) ? what(&a) : (mb_tensor){0};
}

mb_tensor mb_linear_transformer_apply_at(const char *site, mb_linear_transformer layer, mb_tensor z)
{
    return run(site, &layer, z, all_tokens);
}

mb_tensor mb_linear_transformer_predict_at(const char *site, mb_linear_transformer layer, mb_tensor z)
{
    return run(site, &layer, z, prediction);
}
