/* SPDX-License-Identifier: MIT
 *
 * mesa_modes_test.c - derivatives of the layers of mesa.h and of the delta rule in all modes and inside of
 * vmaps, by the library's own checks. */
#include "fixture.h"

enum { B = 1, H = 2, T = 4, DK = 2, DV = 2 };

/* q, k, v, a number for each token twice, one for each entry of a key or head. */
static mb_tensor delta(mb_context *mb, const mb_tensor *x, const void *user)
{
    (void)mb;
    mb_gated_attention_options o = {.chunk = *(const int64_t *)user, .beta = mb_sigmoid(x[4])};
    return mb_gated_attention(x[0], x[1], x[2], mb_unsqueeze(x[3], 3), o, NULL);
}

static mb_tensor mesa(mb_context *mb, const mb_tensor *x, const void *user)
{
    (void)mb;
    mb_mesa_options o = {.reversible = true, .keep_every = *(const int64_t *)user, .chunk = 2};
    return mb_mesa_attention(x[0], x[1], x[2], mb_mul(x[3], 0.1), mb_exp(x[4]), o, NULL);
}

static mb_tensor mesanet(mb_context *mb, const mb_tensor *x, const void *user)
{
    (void)mb;
    mb_mesanet_options o = {.steps = *(const int64_t *)user, .chunk = 2, .beta = mb_sigmoid(x[3])};
    return mb_mesanet_attention(x[0], x[1], x[2], mb_mul(x[3], 0.1), mb_exp(x[4]), o);
}

#define TOKENS MB_SHAPE(B, H, T, DK), MB_SHAPE(B, H, T, DK), MB_SHAPE(B, H, T, DV), MB_SHAPE(B, H, T)

static const int64_t one_by_one = 1, chunk = 2, all = 0, steps = 5;
static const struct {
    const char *name;
    mb_tensor (*f)(mb_context *, const mb_tensor *, const void *);
    const int64_t *user;
    int64_t last[3]; /* the fifth argument's shape, zeros left out */
} cases[] = {{"the delta rule", delta, &one_by_one, {B, H, T}},
             {"in chunks", delta, &chunk, {B, H, T}},
             {"mesa", mesa, &all, {H}},
             {"in blocks", mesa, &chunk, {H}},
             {"MesaNet", mesanet, &steps, {H, DK}}};

static mb_check_case case_of(int i)
{
    mb_check_case c = {
        .name = cases[i].name, .f = cases[i].f, .n = 5, .shape = {TOKENS}, .orders = 2, .looser = 10};
    c.user = cases[i].user;
    mb_shape *s = &c.shape[4];
    while (s->rank < 3 && cases[i].last[s->rank]) {
        s->dim[s->rank] = cases[i].last[s->rank];
        s->rank++;
    }
    return c;
}

Test(mesa_modes, derivatives)
{
    for (int i = 0; i < (int)(sizeof cases / sizeof *cases); i++) {
        mb_context *mb = open_on("reference");
        mb_check_case c = case_of(i);
        mb_check_result r;
        expect(mb_check_gradient(mb, &c, &r) == MB_OK, "%s", r.text);
        close_all();
    }
}

Test(mesa_modes, vmaps)
{
    for (int i = 0; i < (int)(sizeof cases / sizeof *cases); i++) {
        mb_context *mb = open_on("reference");
        mb_check_case c = case_of(i);
        mb_check_result r;
        c.orders = 1;
        expect(mb_check_vmap(mb, &c, &r) == MB_OK, "%s", r.text);
        close_all();
    }
}
