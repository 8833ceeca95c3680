/* SPDX-License-Identifier: MIT
 *
 * empty_test.c - batches of nothing, and sequences of no tokens: every layer gives a result of the right
 * shape, and gradients of its parameters that are zeros. */
#include "fixture.h"

typedef struct stage {
    mb_context *ctx;
    mb_params *p;
    const char *backend, *what;
} stage;

static stage begin(const char *backend, const char *what)
{
    stage s = {.ctx = open_on(backend), .backend = backend, .what = what};
    s.p = mb_params_new(s.ctx, 1);
    return s;
}

/* Zeros in the gradient of the sum of squares of y by every parameter; in the second derivative as well. */
static void end(stage *s, mb_tensor y, mb_shape wanted)
{
    enum { MOST = 64 };
    expect(same_shape(mb_shape_of(y), wanted), "%s on %s: %s, not %s: %s", s->what, s->backend,
           shape_text(mb_shape_of(y)), shape_text(wanted), mb_message(s->ctx));
    mb_tensor xs[MOST], g[MOST], h[MOST];
    int n = mb_params_count(s->p);
    cr_assert(n <= MOST);
    mb_params_list(s->p, xs, MOST);
    mb_tensor loss = mb_sum(mb_square(y), MB_ALL), again;
    if (n) {
        mb_grad(loss, xs, n, g);
        again = mb_sum(mb_square(g[0]), MB_ALL);
        for (int i = 1; i < n; i++)
            again = mb_add(again, mb_sum(mb_square(g[i]), MB_ALL));
        mb_grad(again, xs, n, h);
    }
    expect(mb_item(loss) == 0, "%s on %s: a loss of %g", s->what, s->backend, mb_item(loss));
    for (int i = 0; i < 2 * n; i++) {
        double *v = values(i < n ? g[i] : h[i - n]);
        for (int64_t e = 0; e < mb_count(xs[i % n]); e++)
            expect(v[e] == 0, "%s on %s: order %d by parameter %d, element %lld is %g", s->what, s->backend,
                   1 + i / n, i % n, (long long)e, v[e]);
    }
    expect_ok(s->ctx);
    mb_params_free(s->p);
    close_all();
}

static mb_tensor nothing(const stage *s, mb_shape shape)
{
    return mb_zeros(s->ctx, MB_FLOAT32, shape);
}
/* The same, not known to be a literal. */
static mb_tensor empty(const stage *s, mb_shape shape)
{
    return mb_from(s->ctx, MB_FLOAT32, shape, NULL);
}

Test(empty, parts, .timeout = 60)
{
    for (int b = 0; b < 2; b++)
        for (int literal = 0; literal < 2; literal++) {
            mb_tensor (*make)(const stage *, mb_shape) = literal ? nothing : empty;
            stage s = begin(backend_names[b], "linear");
            end(&s, mb_linear_apply(mb_linear_new(s.p, "a", 3, 5), make(&s, MB_SHAPE(0, 3))), MB_SHAPE(0, 5));
            s = begin(backend_names[b], "linear of nothing to something");
            end(&s, mb_matmul(make(&s, MB_SHAPE(2, 0)), make(&s, MB_SHAPE(0, 4))), MB_SHAPE(2, 4));
            s = begin(backend_names[b], "embedding");
            mb_tensor ids = mb_from(s.ctx, MB_INT32, MB_SHAPE(0, 7), NULL);
            end(&s, mb_embedding_apply(mb_embedding_new(s.p, "e", 9, 4), ids), MB_SHAPE(0, 7, 4));
            s = begin(backend_names[b], "layer norm");
            end(&s, mb_layer_norm_apply(mb_layer_norm_new(s.p, "n", 5), make(&s, MB_SHAPE(0, 2, 5))),
                MB_SHAPE(0, 2, 5));
            s = begin(backend_names[b], "rms norm");
            end(&s, mb_rms_norm_apply(mb_rms_norm_new(s.p, "n", 5), make(&s, MB_SHAPE(3, 0, 5))),
                MB_SHAPE(3, 0, 5));
            s = begin(backend_names[b], "softmax");
            end(&s, mb_softmax(make(&s, MB_SHAPE(0, 3)), -1), MB_SHAPE(0, 3));
            s = begin(backend_names[b], "softmax down");
            end(&s, mb_log_softmax(make(&s, MB_SHAPE(4, 0)), 0), MB_SHAPE(4, 0));
            s = begin(backend_names[b], "patchify");
            end(&s, mb_patchify(make(&s, MB_SHAPE(0, 8, 8)), 4), MB_SHAPE(0, 4, 16));
        }
}

Test(empty, attention, .timeout = 60)
{
    static const mb_attention_kind kinds[] = {MB_ATTENTION_SOFTMAX, MB_ATTENTION_LINEAR,
                                              MB_ATTENTION_ADAPTIVE};
    for (int b = 0; b < 2; b++)
        for (int k = 0; k < 3; k++)
            for (int causal = 0; causal < 2; causal++) {
                mb_attention_options o = {.dim = 4, .heads = 2, .kind = kinds[k], .causal = causal};
                stage s = begin(backend_names[b], "attention of no images");
                end(&s, mb_attention_apply(mb_attention_new(s.p, "a", o), empty(&s, MB_SHAPE(0, 6, 4))),
                    MB_SHAPE(0, 6, 4));
                s = begin(backend_names[b], "attention of no tokens");
                end(&s, mb_attention_apply(mb_attention_new(s.p, "a", o), empty(&s, MB_SHAPE(3, 0, 4))),
                    MB_SHAPE(3, 0, 4));
            }
}

static void test_time(const char *backend, mb_learner_kind kind, mb_inner_rule rule)
{
    stage s = begin(backend, "test-time training");
    mb_ttt *layer = mb_ttt_new(s.p, "ttt",
                               (mb_ttt_options){.dim = 4,
                                                .heads = 2,
                                                .learner = kind,
                                                .inner_steps = 2,
                                                .inner_batch = 3,
                                                .inner_rule = rule,
                                                .inner_momentum = 0.9});
    mb_tensor losses[3], x = empty(&s, MB_SHAPE(0, 6, 4));
    mb_tensor y = mb_ttt_apply(layer, x, mb_key_of(3), losses);
    for (int t = 0; t < 3; t++)
        expect(mb_valid(losses[t]), "inner loss %d: %s", t, mb_message(s.ctx));
    end(&s, y, MB_SHAPE(0, 6, 4));
}

Test(empty, test_time_training, .timeout = 120)
{
    for (int b = 0; b < 2; b++)
        for (int kind = MB_LEARNER_LINEAR; kind <= MB_LEARNER_MLP; kind++)
            for (int rule = MB_INNER_SGD; rule <= MB_INNER_ADAM; rule++)
                test_time(backend_names[b], (mb_learner_kind)kind, (mb_inner_rule)rule);
}

Test(empty, transformers, .timeout = 120)
{
    for (int b = 0; b < 2; b++) {
        stage s = begin(backend_names[b], "vision transformer");
        mb_vit *vit = mb_vit_new(s.p, "vit",
                                 (mb_vit_options){.tokens = 4,
                                                  .patch_values = 9,
                                                  .dim = 4,
                                                  .depth = 1,
                                                  .classes = 3,
                                                  .mixer = {.kind = MB_MIXER_SOFTMAX, .heads = 2}});
        end(&s, mb_vit_apply(vit, empty(&s, MB_SHAPE(0, 4, 9)), MB_NO_KEY, NULL), MB_SHAPE(0, 3));
        for (int scores = MB_SCORES_LINEAR; scores <= MB_SCORES_SOFTMAX_MASKED; scores++) {
            s = begin(backend_names[b], "linear transformer");
            mb_linear_transformer_options o = {.dim = 3, .layers = 2, .scores = (mb_scores)scores};
            end(&s,
                mb_linear_transformer_predict(mb_linear_transformer_new(s.p, "lt", o),
                                              empty(&s, MB_SHAPE(0, 5, 4))),
                MB_SHAPE(0, 1));
            s = begin(backend_names[b], "self-attention");
            mb_self_attention_options a = {.dim = 3, .layers = 2, .scores = (mb_scores)scores};
            end(&s,
                mb_self_attention_predict(mb_self_attention_new(s.p, "sa", a), empty(&s, MB_SHAPE(0, 5, 4))),
                MB_SHAPE(0, 1));
        }
    }
}

/* A step on an empty batch changes nothing but the optimiser's count: the gradient is zero. */
Test(empty, optimiser, .timeout = 60)
{
    for (int b = 0; b < 2; b++) {
        mb_context *ctx = open_on(backend_names[b]);
        mb_params *p = mb_params_new(ctx, 1);
        mb_linear layer = mb_linear_new(p, "a", 3, 5);
        mb_optimizer *opt = mb_sgd(p, (mb_sgd_options){.lr = 0.1});
        double *before = values(layer.weight);
        mb_tensor x = mb_from(ctx, MB_FLOAT32, MB_SHAPE(0, 3), NULL);
        mb_tensor labels = mb_from(ctx, MB_INT32, MB_SHAPE(0), NULL);
        mb_tensor logits = mb_linear_apply(layer, x);
        mb_tensor picked = mb_mul(mb_log_softmax(logits, -1), mb_cast(mb_one_hot(labels, 5), MB_FLOAT32));
        mb_step(opt, mb_neg(mb_sum(picked, MB_ALL)));
        double *after = values(layer.weight);
        expect(same_bits(before, after, 15), "%s: the weights have changed", backend_names[b]);
        expect_ok(ctx);
        mb_optimizer_free(opt);
        mb_params_free(p);
        close_all();
    }
}
