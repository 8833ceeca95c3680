/* SPDX-License-Identifier: MIT
 *
 * GRU and LSTM. What the tokens give is one product for all; a step of the scan is the product with the
 * state.
 */
#include "layers/recurrent.h"
#include "layers/internal.h"

#include <math.h>

static int64_t gates_of(mb_cell cell)
{
    return cell == MB_CELL_GRU ? 3 : 4;
}

mb_recurrent mb_recurrent_new_at(const char *site, mb_params *p, const char *name,
                                 mb_recurrent_options options)
{
    MB_SITE(mb_params_context(p), site);
    mb_recurrent layer = {.options = options};
    if (!p)
        return layer;
    if (options.in < 1 || options.in > MB_SIZE_MAX || options.hidden < 1 ||
        options.hidden > MB_SIZE_MAX / 4 || options.cell < MB_CELL_GRU || options.cell > MB_CELL_LSTM ||
        options.keep_every < MB_KEEP_LOG) {
        mb_fail(mb_params_context(p), MB_INVALID,
                "mb_recurrent: in %lld, hidden %lld, cell %d, keep_every %lld: wanted sizes of 1 to 2^29, a "
                "GRU or LSTM, and steps or MB_KEEP_...",
                (long long)options.in, (long long)options.hidden, (int)options.cell,
                (long long)options.keep_every);
        return layer;
    }
    if (mb_params_enter(p, name) != MB_OK)
        return layer;
    int64_t rows = gates_of(options.cell) * options.hidden;
    mb_init init = mb_init_uniform(1 / sqrt((double)options.hidden));
    layer.input = mb_param(p, "input", MB_SHAPE(rows, options.in), init);
    layer.hidden = mb_param(p, "hidden", MB_SHAPE(rows, options.hidden), init);
    layer.input_bias = mb_param_no_decay(p, "input_bias", MB_SHAPE(rows), init);
    layer.hidden_bias = mb_param_no_decay(p, "hidden_bias", MB_SHAPE(rows), init);
    mb_params_leave(p);
    return layer;
}

/* Gate i of [B, G hidden]. */
static mb_tensor gate(mb_tensor all, int i, int64_t hidden)
{
    return mb_slice(all, 1, i * hidden, hidden, 1);
}

/* given: [B, 3 hidden], what the token gives */
static void gru_step(const mb_recurrent *l, mb_tensor given, mb_recurrent_state *s)
{
    int64_t n = l->options.hidden;
    mb_tensor own = mb_add(mb_matmul(s->h, mb_transpose(l->hidden)), l->hidden_bias);
    mb_tensor both = mb_sigmoid(mb_add(mb_slice(given, 1, 0, 2 * n, 1), mb_slice(own, 1, 0, 2 * n, 1)));
    mb_tensor r = gate(both, 0, n), z = gate(both, 1, n);
    mb_tensor fresh = mb_tanh(mb_add(gate(given, 2, n), mb_mul(r, gate(own, 2, n))));
    s->h = mb_add(fresh, mb_mul(z, mb_sub(s->h, fresh)));
}

/* given: [B, 4 hidden] */
static void lstm_step(const mb_recurrent *l, mb_tensor given, mb_recurrent_state *s)
{
    int64_t n = l->options.hidden;
    mb_tensor all = mb_add(given, mb_add(mb_matmul(s->h, mb_transpose(l->hidden)), l->hidden_bias));
    mb_tensor i = mb_sigmoid(gate(all, 0, n)), f = mb_sigmoid(gate(all, 1, n));
    mb_tensor g = mb_tanh(gate(all, 2, n)), o = mb_sigmoid(gate(all, 3, n));
    s->c = mb_add(mb_mul(f, s->c), mb_mul(i, g));
    s->h = mb_mul(o, mb_tanh(s->c));
}

/* A state's part, [B, hidden]; zeros where there is none, float32 beside a half, since a state gathers what
 * is small. False after reporting. */
static bool check_state(mb_tensor x, mb_tensor *part, int64_t hidden)
{
    mb_shape want = MB_SHAPE(mb_dim(x, 0), hidden), got = mb_shape_of(*part);
    if (!part->ctx)
        *part = mb_zeros(x.ctx, mb__halved(x) ? MB_FLOAT32 : mb_dtype_of(x), want);
    else if (got.rank != 2 || got.dim[0] != want.dim[0] || got.dim[1] != hidden) {
        char text[MB__SHAPE_TEXT];
        mb_fail(x.ctx, MB_INVALID, "recurrent: the state is %s, wanted [%lld,%lld]", mb__shape(text, *part),
                (long long)want.dim[0], (long long)hidden);
        return false;
    }
    return true;
}

/* given: [N, B, G hidden] -> h of each token [N, B, hidden], in given's dtype */
static mb_tensor scanned(const mb_recurrent *l, mb_tensor given, mb_recurrent_state *s)
{
    const mb_recurrent_options *o = &l->options;
    mb_tensor all = {0};
    mb_scan scan =
        mb_scan_begin_with(given.ctx, mb_dim(given, 0),
                           (mb_scan_options){.backwards = o->backwards, .keep_every = o->keep_every});
    mb_scan_carry(scan, &s->h);
    if (o->cell == MB_CELL_LSTM)
        mb_scan_carry(scan, &s->c);
    mb_tensor token = mb__wide(mb_scan_slice(scan, given));
    if (o->cell == MB_CELL_GRU)
        gru_step(l, token, s);
    else
        lstm_step(l, token, s);
    mb_scan_stack(scan, mb__narrow(s->h, given), &all);
    mb_scan_end(scan);
    return all;
}

mb_tensor mb_recurrent_apply_at(const char *site, mb_recurrent layer, mb_tensor x, mb_recurrent_state *state)
{
    const mb_recurrent_options *o = &layer.options;
    mb_recurrent_state own = {0}, *s = state ? state : &own;
    bool cell = o->cell == MB_CELL_LSTM;
    MB__APPLY(site, "recurrent", {"x", x, MB__NEEDED}, {"layer.input", layer.input, MB__NEEDED},
              {"layer.hidden", layer.hidden, MB__NEEDED}, {"layer.input_bias", layer.input_bias, MB__NEEDED},
              {"layer.hidden_bias", layer.hidden_bias, MB__NEEDED},
              {"state.h", s->h, MB__OPTIONAL | MB__NUMBERS},
              {"state.c", cell ? s->c : own.c, MB__OPTIONAL | MB__NUMBERS});
    if (!mb__check_tokens(x, o->in, "recurrent") || !check_state(x, &s->h, o->hidden) ||
        (cell && !check_state(x, &s->c, o->hidden)))
        return mb__failed(x.ctx);
    const mb_recurrent_state from = *s;
    *s = (mb_recurrent_state){mb__wide(from.h), cell ? mb__wide(from.c) : from.c};
    mb_tensor given = mb_einsum("bni,gi->nbg", x, mb__as(layer.input, x));
    mb_tensor all = scanned(&layer, mb_add(given, mb__as(layer.input_bias, x)), s);
    *s = (mb_recurrent_state){mb__narrow(s->h, from.h), cell ? mb__narrow(s->c, from.c) : s->c};
    return mb_permute(all, MB_AXES(1, 0, 2));
}
