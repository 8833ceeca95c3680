/* SPDX-License-Identifier: MIT
 *
 * nothing_test.c - every public function of the layers without one of its operands: no tensor in the place of
 * one, a layer of all zeros, one whose constructor failed, none at all, a name that is none. Each is an error
 * in a sentence that begins with the layer and has this file's line, in whatever context is within reach; and
 * it poisons, so that nothing goes on with it.
 *
 * A case is asked for with each of its operands left out in turn. */
#include <stdio.h>

#include "support.h"

typedef struct given {
    mb_context *ctx;
    mb_params *p;
    int out;          /* which operand is left out, from 0 on; each asks for the next number */
    int next;         /* how many were asked for */
    mb_tensor absent; /* what is there in its place */
    const char *layer;
    mb_tensor y; /* the result */
} given;

static bool left_out(given *g)
{
    return g->next++ == g->out;
}

/* Ones of this shape, if they are there. */
static mb_tensor ones(given *g, mb_shape shape)
{
    return left_out(g) ? g->absent : mb_ones(g->ctx, MB_FLOAT32, shape);
}

#define X3 ones(g, MB_SHAPE(2, 3, 4))
#define Q4 ones(g, MB_SHAPE(2, 2, 3, 4))
/* A layer, or one of all zeros; and one that is a pointer, or NULL. */
#define LAYER(type, ...) (left_out(g) ? (type){0} : __VA_ARGS__)
#define POINTER(...)     (left_out(g) ? NULL : __VA_ARGS__)

static const mb_mixer_options mixer = {.heads = 2};

static mb_block *block_in(given *g)
{
    mb_block *b = mb_params_alloc(g->p, sizeof *b);
    *b = mb_block_new(g->p, "l", 4, 8, &mixer);
    return b;
}

static mb_vit *vit_in(given *g)
{
    const mb_vit_options o = {
        .tokens = 3, .patch_values = 4, .dim = 4, .depth = 1, .classes = 2, .mixer = mixer};
    return mb_vit_new(g->p, "l", o);
}

#define CASES(C)                                                                                             \
    C(linear, mb_linear_apply(LAYER(mb_linear, mb_linear_new(g->p, "l", 4, 3)), X3))                         \
    C(embedding, mb_embedding_apply(LAYER(mb_embedding, mb_embedding_new(g->p, "l", 4, 3)),                  \
                                    left_out(g) ? g->absent : mb_iota(g->ctx, MB_INT32, 3)))                 \
    C(layer_normalize,                                                                                       \
      mb_layer_normalize(X3, mb_ones(g->ctx, MB_FLOAT32, MB_SHAPE(4)), (mb_tensor){0}, 1e-5))                \
    C(rms_normalize, mb_rms_normalize(X3, mb_ones(g->ctx, MB_FLOAT32, MB_SHAPE(4)), 1e-5))                   \
    C(layer_norm, mb_layer_norm_apply(LAYER(mb_layer_norm, mb_layer_norm_new(g->p, "l", 4)), X3))            \
    C(rms_norm, mb_rms_norm_apply(LAYER(mb_rms_norm, mb_rms_norm_new(g->p, "l", 4)), X3))                    \
    C(attend, mb_attend(Q4, Q4, Q4, MB_ATTENTION_SOFTMAX, false, 0))                                         \
    C(attend, mb_attend_with(Q4, Q4, Q4, (mb_attend_options){.causal = true}))                               \
    C(attention,                                                                                             \
      mb_attention_apply(                                                                                    \
          LAYER(mb_attention, mb_attention_new(g->p, "l", (mb_attention_options){.dim = 4, .heads = 2})),    \
          X3))                                                                                               \
    C(attention,                                                                                             \
      mb_attention_apply_with(                                                                               \
          LAYER(mb_attention, mb_attention_new(g->p, "l", (mb_attention_options){.dim = 4, .heads = 2})),    \
          X3, (mb_tensor){0}))                                                                               \
    C(prompt_tokens, mb_prompt_tokens(X3, ones(g, MB_SHAPE(2, 2))))                                          \
    C(linear_transformer, mb_linear_transformer_apply(                                                       \
                              LAYER(mb_linear_transformer,                                                   \
                                    mb_linear_transformer_new(                                               \
                                        g->p, "l", (mb_linear_transformer_options){.dim = 3, .layers = 1})), \
                              X3))                                                                           \
    C(linear_transformer, mb_linear_transformer_predict(                                                     \
                              LAYER(mb_linear_transformer,                                                   \
                                    mb_linear_transformer_new(                                               \
                                        g->p, "l", (mb_linear_transformer_options){.dim = 3, .layers = 1})), \
                              X3))                                                                           \
    C(self_attention,                                                                                        \
      mb_self_attention_apply(                                                                               \
          LAYER(mb_self_attention,                                                                           \
                mb_self_attention_new(g->p, "l", (mb_self_attention_options){.dim = 3, .layers = 1})),       \
          X3))                                                                                               \
    C(self_attention,                                                                                        \
      mb_self_attention_predict(                                                                             \
          LAYER(mb_self_attention,                                                                           \
                mb_self_attention_new(g->p, "l", (mb_self_attention_options){.dim = 3, .layers = 1})),       \
          X3))                                                                                               \
    C(ttt,                                                                                                   \
      mb_ttt_apply(POINTER(mb_ttt_new(g->p, "l", (mb_ttt_options){.dim = 4, .heads = 2, .inner_steps = 1})), \
                   X3, mb_key_of(1), NULL))                                                                  \
    C(mixer, mb_mixer_apply(LAYER(mb_mixer, mb_mixer_new(g->p, 4, &mixer)), X3, MB_NO_KEY, NULL))            \
    C(mixer, mb_mixer_apply_with(LAYER(mb_mixer, mb_mixer_new(g->p, 4, &mixer)), X3, (mb_tensor){0},         \
                                 MB_NO_KEY, NULL))                                                           \
    C(mlp, mb_mlp_apply(LAYER(mb_mlp, mb_mlp_new(g->p, "l", 4, 8)), X3))                                     \
    C(block, mb_block_apply(POINTER(block_in(g)), X3, MB_NO_KEY, NULL))                                      \
    C(block, mb_block_apply_with(POINTER(block_in(g)), X3, (mb_tensor){0}, MB_NO_KEY, NULL))                 \
    C(patchify, mb_patchify(ones(g, MB_SHAPE(2, 4, 4)), 2))                                                  \
    C(vit, mb_vit_apply(POINTER(vit_in(g)), X3, MB_NO_KEY, NULL))                                            \
    C(vit, mb_vit_apply_with(POINTER(vit_in(g)), X3, (mb_vit_masks){{0}, {0}}, MB_NO_KEY, NULL))             \
    C(conv1d, mb_conv1d(X3, ones(g, MB_SHAPE(2, 3, 2)), (mb_tensor){0}, (mb_conv_options){0}))               \
    C(conv2d, mb_conv2d(Q4, ones(g, MB_SHAPE(2, 2, 2, 2)), (mb_tensor){0}, (mb_conv_options){0}))            \
    C(conv_transpose1d,                                                                                      \
      mb_conv_transpose1d(X3, ones(g, MB_SHAPE(3, 2, 2)), (mb_tensor){0}, (mb_conv_options){0}))             \
    C(conv_transpose2d,                                                                                      \
      mb_conv_transpose2d(Q4, ones(g, MB_SHAPE(2, 2, 2, 2)), (mb_tensor){0}, (mb_conv_options){0}))          \
    C(conv2d,                                                                                                \
      mb_conv2d_apply(                                                                                       \
          LAYER(mb_conv, mb_conv2d_new(g->p, "l", (mb_conv_layer_options){.in = 2, .out = 2, .size = {2}})), \
          Q4))                                                                                               \
    C(max_pool1d, mb_max_pool1d(X3, (mb_pool_options){.size = {2}}))                                         \
    C(avg_pool1d, mb_avg_pool1d(X3, (mb_pool_options){.size = {2}}))                                         \
    C(max_pool2d, mb_max_pool2d(Q4, (mb_pool_options){.size = {2}}))                                         \
    C(avg_pool2d, mb_avg_pool2d(Q4, (mb_pool_options){.size = {2}}))                                         \
    C(batch_normalize,                                                                                       \
      mb_batch_normalize(X3, 1, mb_ones(g->ctx, MB_FLOAT32, MB_SHAPE(3)), (mb_tensor){0}, 1e-5, NULL, NULL)) \
    C(group_normalize,                                                                                       \
      mb_group_normalize(X3, 1, 1, mb_ones(g->ctx, MB_FLOAT32, MB_SHAPE(3)), (mb_tensor){0}, 1e-5))          \
    C(batch_norm, mb_batch_norm_apply(LAYER(mb_batch_norm, mb_batch_norm_new(g->p, "l", 3)), X3, 1, false))  \
    C(group_norm, mb_group_norm_apply(LAYER(mb_group_norm, mb_group_norm_new(g->p, "l", 3, 1)), X3, 1))      \
    C(dropout, mb_dropout(X3, mb_key_of(1), 0.5, true))                                                      \
    C(recurrent,                                                                                             \
      mb_recurrent_apply(                                                                                    \
          LAYER(mb_recurrent, mb_recurrent_new(g->p, "l", (mb_recurrent_options){.in = 4, .hidden = 2})),    \
          X3, NULL))                                                                                         \
    C(gated_attention,                                                                                       \
      mb_gated_attention(Q4, Q4, Q4, (mb_tensor){0}, (mb_gated_attention_options){0}, NULL))                 \
    C(mesa_attention,                                                                                        \
      mb_mesa_attention(Q4, Q4, Q4, (mb_tensor){0}, ones(g, MB_SHAPE0), (mb_mesa_options){0}, NULL))         \
    C(mesanet_attention, mb_mesanet_attention(Q4, Q4, Q4, (mb_tensor){0}, ones(g, MB_SHAPE0),                \
                                              (mb_mesanet_options){.steps = 1}))                             \
    C(memory,                                                                                                \
      mb_memory_apply(LAYER(mb_memory, mb_memory_new(g->p, "l", (mb_memory_options){.dim = 4, .heads = 2})), \
                      X3))                                                                                   \
    C(equilibrium, mb_equilibrium_apply(                                                                     \
                       LAYER(mb_equilibrium,                                                                 \
                             mb_equilibrium_new(g->p, "l", (mb_equilibrium_options){.in = 4, .hidden = 2})), \
                       X3, NULL))                                                                            \
    C(self_attention_gd,                                                                                     \
      mb_self_attention_products(                                                                            \
          mb_self_attention_gd(ones(g, MB_SHAPE0), mb_ones(g->ctx, MB_FLOAT32, MB_SHAPE0), (mb_tensor){0},   \
                               2, (mb_self_attention_options){.dim = 3, .layers = 1}))                       \
          .P)

/* The case of this number; false: there are not so many. */
static bool run(given *g, int number)
{
    int i = 0;
#define RUN(name, call)                                                                                      \
    if (number == i++) {                                                                                     \
        g->layer = #name;                                                                                    \
        g->y = (call);                                                                                       \
        return true;                                                                                         \
    }
    CASES(RUN)
    return false;
}

/* How many operands the case has; 0: there is no such case. out: -1 for none. */
static int one_case(int number, int out, bool failed)
{
    given g = {.ctx = open_on(backend_names[1]), .out = out};
    g.p = mb_params_new(g.ctx, 1);
    if (failed) {
        g.absent = mb_reshape(mb_iota(g.ctx, MB_INT32, 3), MB_SHAPE(2));
        mb_clear_error(g.ctx);
    }
    bool any = run(&g, number);
    const char *said = mb_message(g.ctx);
    if (any && out < 0)
        expect(mb_valid(g.y), "case %d, %s: %s", number, g.layer, said);
    else if (any &&
             (failed || (g.next > 1 && (strcmp(g.layer, "mixer") || g.y.ctx)))) { /* those have no tensor */
        char start[64];
        snprintf(start, sizeof start, ": %s: ", g.layer);
        expect(
            !mb_valid(g.y) && mb_error(g.ctx) == MB_INVALID && strstr(said, "nothing_test.c:") &&
                strstr(said, start) &&
                (strstr(said, "is no tensor") || strstr(said, "that failed") || strstr(said, "no function")),
            "case %d, %s without operand %d: %s", number, g.layer, out, said);
    }
    mb_clear_error(g.ctx);
    mb_params_free(g.p);
    close_all();
    return any ? g.next : 0;
}

Test(nothing, in_the_place_of_an_operand)
{
    if (testing("vulkan")) /* nothing is computed */
        return;
    for (int number = 0, n = 1; n; number++) {
        n = one_case(number, -1, false);
        for (int out = 0; out < 2 * n; out++)
            one_case(number, out / 2, out % 2);
    }
}

/* Where a name is wanted, and where the parameters are. */
Test(nothing, in_the_place_of_a_name_or_parameters)
{
    mb_context *ctx = open_on(backend_names[1]);
    mb_params *p = mb_params_new(ctx, 1);
    mb_mixer_options m = {.heads = 2};
    for (int with = 0; with < 2; with++) {
        mb_params *q = with ? p : NULL;
        const char *name = with ? NULL : "l";
#define REFUSED(call)                                                                                        \
    do {                                                                                                     \
        (void)(call);                                                                                        \
        expect(!with || (mb_error(ctx) == MB_INVALID && strstr(mb_message(ctx), "nothing_test.c:")),         \
               "%s: %s", #call, mb_message(ctx));                                                            \
        mb_clear_error(ctx);                                                                                 \
    } while (0)
        REFUSED(mb_linear_new(q, name, 2, 2));
        REFUSED(mb_embedding_new(q, name, 2, 2));
        REFUSED(mb_layer_norm_new(q, name, 2));
        REFUSED(mb_rms_norm_new(q, name, 2));
        REFUSED(mb_attention_new(q, name, (mb_attention_options){.dim = 2, .heads = 1}));
        REFUSED(mb_linear_transformer_new(q, name, (mb_linear_transformer_options){.dim = 2, .layers = 1}));
        REFUSED(mb_self_attention_new(q, name, (mb_self_attention_options){.dim = 2, .layers = 1}));
        REFUSED(mb_ttt_new(q, name, (mb_ttt_options){.dim = 2, .heads = 1}));
        REFUSED(mb_mlp_new(q, name, 2, 2));
        REFUSED(mb_block_new(q, name, 2, 2, &m));
        REFUSED(
            mb_vit_new(q, name, (mb_vit_options){.tokens = 1, .patch_values = 1, .dim = 2, .classes = 2}));
        REFUSED(mb_conv2d_new(q, name, (mb_conv_layer_options){.in = 1, .out = 1, .size = {1}}));
        REFUSED(mb_batch_norm_new(q, name, 2));
        REFUSED(mb_group_norm_new(q, name, 2, 1));
        REFUSED(mb_recurrent_new(q, name, (mb_recurrent_options){.in = 1, .hidden = 1}));
        REFUSED(mb_memory_new(q, name, (mb_memory_options){.dim = 2, .heads = 1}));
        REFUSED(mb_equilibrium_new(q, name, (mb_equilibrium_options){.in = 1, .hidden = 1}));
    }
    mb_params_free(p);
    close_all();
}
