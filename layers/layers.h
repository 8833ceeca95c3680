/* SPDX-License-Identifier: MIT
 *
 * layers.h - neural network layers.
 *
 *     mb_params *p = mb_params_new(mb, 42);                    // optim.h
 *     mb_linear f1 = mb_linear_new(p, "f1", 784, 128);         // f1.weight [128,784], f1.bias [128]
 *     mb_tensor h = mb_gelu(mb_linear_apply(f1, x));           // x: [64,784] -> [64,128]
 *
 * A layer is a pair of functions: NAME_new creates parameters in an mb_params under a dotted name, NAME_apply
 * records ops. A layer holds handles of its parameters and its options, nothing else. Small layers are
 * structs, passed by value; mb_ttt and mb_vit are pointers into p's memory, freed with p. All may be applied
 * any number of times, and inside any mb_grad. All are differentiable to any order, in x and in every
 * parameter.
 *
 * NAME_new reports MB_INVALID for sizes below 1, heads that do not divide dim, and names already taken. Names
 * go under those entered in p (mb_params_enter); the name "" adds nothing to them. A layer that is a pointer
 * is NULL after an error. NAME_apply reports MB_INVALID, at the line that called it, if x does not have the
 * shape that the layer was made for, and if there is no layer (NULL, all zeros, one whose constructor failed)
 * or no tensor where one is wanted; without a context in reach, as of no layer and no x, it only gives no
 * tensor. An x poisoned by an earlier error gives a poisoned result.
 *
 * x has the dtype of p. Where p is float32 it may be float16 or bfloat16 as well: all layers cast their
 * parameters to x's dtype, which the result has; the parameters' derivatives are float32. What is added up,
 * and states that go along a sequence, are float32 inside.
 *
 * What layers tell (taps.h), under the prefixes that are open, by shape:
 *   mb_attend      scores [B,H,N,M], scaled, before mask and softmax; weights [B,H,N,M], after both (softmax)
 *   mb_attention   queries, keys, values, heads [B,N,H,dh]; those of mb_attend; output [B,N,D]
 *   mb_mlp         hidden [..., hidden], after gelu; output [..., dim]
 *   mb_block       attention.*, as mb_attention, or ttt.output, where the mixer is one of these; middle, the
 *                  tokens after the mixer; mlp.*; output: [B,N,D]
 *   mb_vit         tokens, with positions [B,N,D]; blocks.I.*; mean [B,D], of the normed tokens
 * The prefixes are those of the parameters' names. Layers of one's own, and several layers side by side, get
 * theirs by mb_prefix_begin.
 *
 * Letters: B images or sequences, N tokens, D width (dim), H heads, dh = D / H.
 *
 * Stability: as in tensor.h. Option structs may grow at their ends: 0 in a new field means what was before.
 * The names of parameters do not change, since saved files depend on them.
 */
#ifndef MB_LAYERS_H
#define MB_LAYERS_H

#include "optim/optim.h"
#include "tensor/scan.h"
#include "tensor/taps.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A key for calls that draw no random numbers. */
#define MB_NO_KEY MB_EMPTY(mb_key)

/* -------------------------------------------------------------------------------------------- linear -- */

typedef struct mb_linear {
    mb_tensor weight; /* [out, in], with weight decay */
    mb_tensor bias;   /* [out]; null tensor: none */
} mb_linear;

typedef struct mb_linear_options {
    bool no_bias;
    mb_init weight; /* default: mb_init_xavier(in, out) */
    mb_init bias;   /* default: zeros */
} mb_linear_options;

MB_API mb_linear mb_linear_new_with_at(const char *site, mb_params *p, const char *name, int64_t in,
                                       int64_t out, mb_linear_options options);
#define mb_linear_new_with(...) mb_linear_new_with_at(MB_HERE, __VA_ARGS__)
#define mb_linear_new(p, name, in, out)                                                                      \
    mb_linear_new_with_at(MB_HERE, p, name, in, out, MB_EMPTY(mb_linear_options))
/* x: [..., in] -> [..., out]: x weight^T + bias */
MB_API mb_tensor mb_linear_apply_at(const char *site, mb_linear layer, mb_tensor x);
#define mb_linear_apply(...) mb_linear_apply_at(MB_HERE, __VA_ARGS__)

/* ids [...] of int32, int64 or uint8 -> [..., dim]: rows of weight [vocabulary, dim], which starts as N(0,
 * 0.02^2), without weight decay. Ids out of range are clamped, as by mb_take. */
typedef struct mb_embedding {
    mb_tensor weight;
} mb_embedding;

MB_API mb_embedding mb_embedding_new_at(const char *site, mb_params *p, const char *name, int64_t vocabulary,
                                        int64_t dim);
#define mb_embedding_new(...) mb_embedding_new_at(MB_HERE, __VA_ARGS__)
MB_API mb_tensor mb_embedding_apply_at(const char *site, mb_embedding layer, mb_tensor ids);
#define mb_embedding_apply(...) mb_embedding_apply_at(MB_HERE, __VA_ARGS__)

/* --------------------------------------------------------------------------------------------- norms -- */

/* Over the last axis: (x - mean) / sqrt(variance + eps) * scale + bias, biased variance (Ba et al.
 * 1607.06450). scale, bias: of shapes that broadcast to x's; null tensor: none. */
MB_API mb_tensor mb_layer_normalize_at(const char *site, mb_tensor x, mb_tensor scale, mb_tensor bias,
                                       double eps);
#define mb_layer_normalize(...) mb_layer_normalize_at(MB_HERE, __VA_ARGS__)
/* x / sqrt(mean(x^2) + eps) * scale (Zhang and Sennrich 1910.07467). */
MB_API mb_tensor mb_rms_normalize_at(const char *site, mb_tensor x, mb_tensor scale, double eps);
#define mb_rms_normalize(...) mb_rms_normalize_at(MB_HERE, __VA_ARGS__)

typedef struct mb_layer_norm {
    mb_tensor scale, bias; /* [dim], ones and zeros */
    double eps;            /* 1e-6; may be changed */
} mb_layer_norm;

MB_API mb_layer_norm mb_layer_norm_new_at(const char *site, mb_params *p, const char *name, int64_t dim);
#define mb_layer_norm_new(...) mb_layer_norm_new_at(MB_HERE, __VA_ARGS__)
/* x: [..., dim] */
MB_API mb_tensor mb_layer_norm_apply_at(const char *site, mb_layer_norm layer, mb_tensor x);
#define mb_layer_norm_apply(...) mb_layer_norm_apply_at(MB_HERE, __VA_ARGS__)

typedef struct mb_rms_norm {
    mb_tensor scale; /* [dim], ones */
    double eps;      /* 1e-6 */
} mb_rms_norm;

MB_API mb_rms_norm mb_rms_norm_new_at(const char *site, mb_params *p, const char *name, int64_t dim);
#define mb_rms_norm_new(...) mb_rms_norm_new_at(MB_HERE, __VA_ARGS__)
MB_API mb_tensor mb_rms_norm_apply_at(const char *site, mb_rms_norm layer, mb_tensor x); /* x: [..., dim] */
#define mb_rms_norm_apply(...) mb_rms_norm_apply_at(MB_HERE, __VA_ARGS__)

/* ----------------------------------------------------------------------------------------- attention -- */

typedef enum mb_attention_kind {
    MB_ATTENTION_SOFTMAX = 0, /* softmax(q k^T scale) v */
    MB_ATTENTION_LINEAR,      /* q (k^T v) scale */
    MB_ATTENTION_ADAPTIVE,    /* f(q) (f(k)^T v) / (f(q) . sum f(k)), f = elu + 1: Katharopoulos et al.
                               * 2006.16236, eqs. 5 and 7 */
} mb_attention_kind;

typedef struct mb_attend_options {
    mb_attention_kind kind;
    bool causal; /* if M = N, query i sees keys j <= i; in general j <= i + M - N, so that the last query sees
                    the last key */
    double scale;   /* 0: 1/sqrt(dk) for softmax, 1/(M dk) for linear, where M counts all keys; not used by
                       adaptive */
    mb_tensor mask; /* bool, broadcasts to [B,H,N,M]: true where a query may see a key; with causal, where
                       both allow it. [B,1,1,M] is a padding mask. Null tensor: all are seen. */
    int64_t chunk; /* > 1: of the linear kinds, causal, without a mask and with M = N, so many tokens at once,
                      by mb_gated_attention (recurrent.h), so that time and memory are proportional to N; the
                      derivatives' too. Not used elsewhere */
} mb_attend_options;

/* q: [B,N,H,dk], k: [B,M,H,dk], v: [B,M,H,dv] -> [B,N,H,dv], of one dtype. The result of a query that sees no
 * key is 0, with derivatives of 0, for every kind. Hidden keys have weight 0; their rows of v are multiplied
 * by it, so they must be finite. With a mask or causal, the cost of the linear kinds is proportional to N M,
 * too, unless `chunk` is used. */
MB_API mb_tensor mb_attend_with_at(const char *site, mb_tensor q, mb_tensor k, mb_tensor v,
                                   mb_attend_options options);
#define mb_attend_with(...) mb_attend_with_at(MB_HERE, __VA_ARGS__)
/* The same without a mask. */
MB_API mb_tensor mb_attend_at(const char *site, mb_tensor q, mb_tensor k, mb_tensor v, mb_attention_kind kind,
                              bool causal, double scale);
#define mb_attend(...) mb_attend_at(MB_HERE, __VA_ARGS__)

typedef struct mb_attention_options {
    int64_t dim, heads; /* heads divide dim */
    mb_attention_kind kind;
    bool causal;
    double scale;  /* 0: as in mb_attend_with */
    bool no_bias;  /* of both linear layers */
    int64_t chunk; /* as in mb_attend_options */
} mb_attention_options;

typedef struct mb_attention {
    mb_linear qkv; /* weight [3D, D], xavier of (D, D): rows in order q, k, v, each by head; bias [3D] */
    mb_linear out; /* weight [D, D], bias [D] */
    mb_attention_options options;
} mb_attention;

MB_API mb_attention mb_attention_new_at(const char *site, mb_params *p, const char *name,
                                        mb_attention_options options);
#define mb_attention_new(...) mb_attention_new_at(MB_HERE, __VA_ARGS__)
/* x: [B,N,D] -> [B,N,D] */
MB_API mb_tensor mb_attention_apply_at(const char *site, mb_attention layer, mb_tensor x);
#define mb_attention_apply(...) mb_attention_apply_at(MB_HERE, __VA_ARGS__)
/* mask: as in mb_attend_with, for scores [B,H,N,N]. */
MB_API mb_tensor mb_attention_apply_with_at(const char *site, mb_attention layer, mb_tensor x,
                                            mb_tensor mask);
#define mb_attention_apply_with(...) mb_attention_apply_with_at(MB_HERE, __VA_ARGS__)

/* ------------------------------------------------------------ linear transformers, in-context learning -- */

/* A prompt is n pairs (x_i, y_i) and a query x_{n+1}; a token is the row (x_i, y_i), and the query's row has
 * zeros for y. x: [B,n+1,d], the query last; y: [B,n] or [B,n,e], or with one more row, which is ignored ->
 * tokens z: [B, n+1, d+e], e = 1 if y has no such axis. */
MB_API mb_tensor mb_prompt_tokens_at(const char *site, mb_tensor x, mb_tensor y);
#define mb_prompt_tokens(...) mb_prompt_tokens_at(MB_HERE, __VA_ARGS__)

/* What attention makes of the scores z_i^T Q z_j of the context's tokens i for token j. */
typedef enum mb_scores {
    MB_SCORES_LINEAR = 0,
    MB_SCORES_SOFTMAX,        /* softmax over the context */
    MB_SCORES_SOFTMAX_MASKED, /* softmax over all tokens, then without the query's: Z M softmax(Z^T Q Z), so
                                 that the weights sum to less than 1 */
} mb_scores;

/* A transformer of attention alone. Each layer updates all tokens z_j at once, the query's included:
 *
 *     z_j <- z_j + c sum_h P_h S Q_h z_j,   S = sum_{i <= n} z_i z_i^T
 *
 * With tokens as columns this is Z <- Z + c P Z M (Z^T Q Z), M = diag(I_n, 0): the linear transformer of Ahn
 * et al. 2306.00297 and 2310.01082 with one head and c = 1/n. The prediction is minus the y-entries of the
 * query's token after the last layer. Letters: m = d + e, the entries of a token; L layers; H heads.
 *
 * A layer depends on the context only through S, and S <- (I + T) S (I + T)^T with T = c sum_h P_h S Q_h. So
 * after the first S a layer costs products of m by m matrices, for any n; this form is recorded if it is
 * cheaper than N by n scores. With softmax or clip the tokens themselves go through the layers. */
typedef struct mb_linear_transformer_options {
    int64_t dim;     /* d: entries of x */
    int64_t outputs; /* e: entries of y; 0 means 1 */
    int64_t layers;  /* L >= 0 */
    int64_t heads;   /* H; 0 means 1 */
    bool tied;       /* one P and Q for all layers */
    bool sparse; /* P = [[P',0],[0,I]], Q = [[Q',0],[0,0]], where P', Q': [d,d] are the parameters, as in the
                    code of 2310.01082. Otherwise P and Q are dense. */
    bool unmasked;    /* M = I: the query's token is part of the context */
    mb_scores scores; /* not LINEAR: z_j + c sum_h P_h Z M softmax(Z^T Q_h z_j) */
    double scale;     /* c; 0 means 1/n. Bound at run time. */
    double clip;      /* > 0: after each layer all entries of tokens are clipped to [-clip, clip] */
    mb_init init;     /* of P and Q, or P' and Q'; default N(0, 0.05^2) */
} mb_linear_transformer_options;

/* A struct that may also be filled by hand: P and Q may be any tensors of these shapes, and options may
 * differ from call to call (such as layers, if tied, and scale). */
typedef struct mb_linear_transformer {
    mb_tensor P,
        Q; /* [T,w,w], or [T,H,w,w] where H > 1 (or = 1); T = 1 if tied, else L; w = d if sparse, else m */
    mb_linear_transformer_options options;
} mb_linear_transformer;

/* Makes the parameters "P" and "Q", in this order. */
MB_API mb_linear_transformer mb_linear_transformer_new_at(const char *site, mb_params *p, const char *name,
                                                          mb_linear_transformer_options options);
#define mb_linear_transformer_new(...) mb_linear_transformer_new_at(MB_HERE, __VA_ARGS__)
/* The number of scalars in P and Q together, 2 T H w^2. */
MB_API int64_t mb_linear_transformer_size(const mb_linear_transformer_options *options);
/* The transformer whose P and Q are views of theta: [mb_linear_transformer_size]: P in row-major order, then
 * Q. theta: a parameter or any tensor: for Hessians with respect to one flat vector, for points on a line,
 * and the like. */
MB_API mb_linear_transformer mb_linear_transformer_view_at(const char *site, mb_tensor theta,
                                                           mb_linear_transformer_options options);
#define mb_linear_transformer_view(...) mb_linear_transformer_view_at(MB_HERE, __VA_ARGS__)
/* z: [B,n+1,m] -> [B,n+1,m]: the tokens after the last layer. */
MB_API mb_tensor mb_linear_transformer_apply_at(const char *site, mb_linear_transformer layer, mb_tensor z);
#define mb_linear_transformer_apply(...) mb_linear_transformer_apply_at(MB_HERE, __VA_ARGS__)
/* z: [B,n+1,m] -> [B,e]: only the prediction, which costs less than all tokens. */
MB_API mb_tensor mb_linear_transformer_predict_at(const char *site, mb_linear_transformer layer, mb_tensor z);
#define mb_linear_transformer_predict(...) mb_linear_transformer_predict_at(MB_HERE, __VA_ARGS__)

/* Linear self-attention with keys, queries, values and a projection, as in von Oswald et al. 2212.07677: no
 * scale, no bias; only the context has keys and values, and every token is updated:
 *
 *     z_j <- z_j + sum_h Proj_h sum_i V_h z_i (K_h z_i)^T (Q_h z_j)
 *
 * which is the transformer above with P_h = Proj_h V_h, Q_h = K_h^T Q_h and c = 1. To interpolate between two
 * layers, interpolate these products: the factors are not unique. */
typedef struct mb_self_attention_options {
    int64_t dim, outputs; /* d, e; outputs 0 means 1 */
    int64_t layers;       /* L >= 0 */
    int64_t heads;        /* H; 0 means 1 */
    int64_t key;          /* entries of keys, queries and values of a head; 0: m */
    bool tied;            /* one set of weights for all layers */
    bool unmasked;        /* the query's token has a key and a value, too */
    mb_scores scores;     /* except LINEAR: of scores divided by sqrt(key) */
    double clip;          /* as above */
    mb_init init; /* default: normal of variance 0.002 / (L fan_in), as in their code, but not truncated */
} mb_self_attention_options;

/* A struct that may also be filled by hand. T = 1 if tied, else L. */
typedef struct mb_self_attention {
    mb_tensor query, key, value; /* [T,H,key,m] */
    mb_tensor projection;        /* [T,H,m,key] */
    mb_self_attention_options options;
} mb_self_attention;

/* Makes the parameters "query", "key", "value" and "projection", in this order. */
MB_API mb_self_attention mb_self_attention_new_at(const char *site, mb_params *p, const char *name,
                                                  mb_self_attention_options options);
#define mb_self_attention_new(...) mb_self_attention_new_at(MB_HERE, __VA_ARGS__)
/* The equal linear transformer: P and Q: [T,H,m,m], scale 1. Recorded from the weights. */
MB_API mb_linear_transformer mb_self_attention_products_at(const char *site, mb_self_attention layer);
#define mb_self_attention_products(...) mb_self_attention_products_at(MB_HERE, __VA_ARGS__)
/* z: [B,n+1,m] -> [B,n+1,m], and -> [B,e], minus the y-entries of the last token: as above. */
MB_API mb_tensor mb_self_attention_apply_at(const char *site, mb_self_attention layer, mb_tensor z);
#define mb_self_attention_apply(...) mb_self_attention_apply_at(MB_HERE, __VA_ARGS__)
MB_API mb_tensor mb_self_attention_predict_at(const char *site, mb_self_attention layer, mb_tensor z);
#define mb_self_attention_predict(...) mb_self_attention_predict_at(MB_HERE, __VA_ARGS__)

/* Gradient descent on l(W) = 1/(2n) sum_i |W x_i - y_i|^2 as weights (2212.07677, proposition 1; GD++ is from
 * there as well). One layer is one step:
 *
 *     K = Q = [[I,0],[0,0]],  V = [[0,0],[W0,-I]],  Proj = (eta/n) I:  y_j <- y_j + eta grad l(W0) x_j
 *     GD++: V = [[I,0],[W0,-I]], Proj = [[-gamma I,0],[0,(eta/n) I]]:  also x_j <- x_j - gamma sum_i x_i
 * x_i^T x_j
 *
 * so that the residuals y_i - W x_i of the next step are those of the stepped W. eta: 0-d, one for all
 * layers, or [layers]. gamma: the same, or all zeros ((mb_tensor){0}) for plain GD. W0: [e,d], or all zeros
 * for a start at 0; with it the query's y-entry must begin as -W0 x_{n+1}, where mb_prompt_tokens puts 0.
 * options: dim, outputs, layers, unmasked and clip are used; n: pairs of a prompt. Recorded from eta, gamma
 * and W0, and differentiable in them. Tied where eta and gamma are both 0-d. */
MB_API mb_self_attention mb_self_attention_gd_at(const char *site, mb_tensor eta, mb_tensor gamma,
                                                 mb_tensor W0, int64_t n, mb_self_attention_options options);
#define mb_self_attention_gd(...) mb_self_attention_gd_at(MB_HERE, __VA_ARGS__)

/* -------------------------------------------------------------------------------- test-time training -- */

/* The layer of "Learning to (Learn at Test Time)", Sun et al. 2310.13807. In the forward pass a small learner
 * f is trained for each image and head on its own tokens; the output is that of the trained learner:
 *
 *     l(W; S) = 1/(2 m dh) || LN(f(phi(S); W) g_k + g_bias) - S ||^2      for m tokens S: [m,D]
 *     W_t     = W_{t-1} - lr_t grad_W l(W_{t-1}; S_t),  t = 1..T
 *     out     = sum over heads of f(psi(x); W_T) h_k + h_bias
 *
 * (their eqs. 1, 2 and 3) with phi(x) = x phi_k + phi_b and psi(x) = x psi_k + psi_b, D -> dh, per head. LN,
 * eps 1e-6, only with decoder_norm. (1/dh is in the authors' code, not in eq. 1.) S_t is all tokens or, with
 * inner_batch, m of them. No gradient is stopped: the outer gradient also flows through the targets S. With
 * MB_LEARNER_LINEAR, W_0 = 0, T = 1, lr 1 and no norm the layer is linear attention exactly (eqs. 10 and 11),
 * with queries psi(x), keys phi(x) and values (x - g_bias) g_k^T; their kernel learner is
 * MB_ATTENTION_SOFTMAX.
 *
 * Parameters, under the layer's name: psi_k, phi_k [H,D,dh]; psi_b, phi_b [H,dh]; g_k, h_k [H,dh,D]; g_bias,
 * h_bias [1,D]; norm_scale, norm_bias [H,D] where the decoder has a norm; and the learner's W_0, unless it is
 * zero: LINEAR W1 [H,dh,dh] (and b1 [H,dh]); MLP W1 [H,dh,4dh], b1 [H,4dh], W2 [H,4dh,dh], b2 [H,dh]. Kernels
 * start as U(+-sqrt(3/D)), W1 and W2 as xavier per head, biases as 0, norm_scale as 1. Weight decay applies
 * to kernels, W1 and W2. For a fixed random W_0 freeze W1 and so on. */

typedef enum mb_learner_kind {
    MB_LEARNER_LINEAR = 0, /* x W1 (+ b1) */
    MB_LEARNER_MLP,        /* gelu(x W1 + b1) W2 + b2, hidden 4 dh, tanh gelu */
    MB_LEARNER_CUSTOM,     /* the caller's */
} mb_learner_kind;

typedef enum mb_switch { MB_AUTO = 0, MB_OFF, MB_ON } mb_switch;

typedef enum mb_inner_rule {
    MB_INNER_SGD = 0,
    MB_INNER_MOMENTUM,
    MB_INNER_ADAM,
} mb_inner_rule;

/* One weight of a learner, for one head: the parameter has shape [H, shape...]. */
typedef struct mb_learner_weight {
    const char *name;
    mb_shape shape;
    mb_init init;  /* default zeros */
    bool no_decay; /* a bias */
} mb_learner_weight;

/* A learner: one function, written with ordinary ops. weights[i]: [B,H, weight[i].shape...], x: [B,H,m,dh] ->
 * [B,H,m,dh], for each token by itself. Each mb_ttt_apply calls it T + 1 times or more (with a scan, twice or
 * more), with different weights; layers/learners.c has two examples. It must not apply the layer that it
 * belongs to. */
typedef struct mb_learner {
    mb_tensor (*apply)(void *user, const mb_tensor *weights, int n, mb_tensor x);
    void *user;                       /* must stay valid as long as the layer */
    const mb_learner_weight *weights; /* used only during mb_ttt_new */
    int n;
} mb_learner;

typedef struct mb_ttt_options {
    int64_t dim, heads;
    mb_learner_kind learner;
    mb_learner custom; /* for MB_LEARNER_CUSTOM */
    int inner_steps;   /* T >= 0 */
    /* Tokens m of an inner step, a divisor of N; 0: all. Otherwise each call draws one random order of the
     * tokens per head, the same for all images, and step t takes the t-th group of m tokens, beginning again
     * after the last group. */
    int64_t inner_batch;
    const double *inner_lr; /* [T], copied; NULL: 1 each, as in the paper; not learned */
    mb_inner_rule
        inner_rule; /* the state of momentum and Adam is zeros at every call, and is differentiated through */
    double inner_momentum;      /* for MB_INNER_MOMENTUM */
    mb_adam_options inner_adam; /* beta1, beta2, eps for MB_INNER_ADAM */
    mb_switch decoder_norm;     /* AUTO: off for LINEAR, on otherwise */
    mb_switch learned_start;    /* AUTO: off (W_0 = 0, not a parameter) for LINEAR, on otherwise */
    mb_switch encoder_bias;     /* AUTO: off for LINEAR, on for MLP; not for CUSTOM */
    mb_switch scan;     /* the T steps as one mb_scan: memory and planning of one step; gradients compute each
                           step once more. AUTO: on from T = 16 on */
    int64_t keep_every; /* of a scan: see mb_scan_options */
    bool first_order; /* inner gradients count as constants: cheaper, but a different outer gradient, which is
                         0 for phi, g and the norm */
} mb_ttt_options;

typedef struct mb_ttt mb_ttt;

MB_API mb_ttt *mb_ttt_new_at(const char *site, mb_params *p, const char *name, mb_ttt_options options);
#define mb_ttt_new(...) mb_ttt_new_at(MB_HERE, __VA_ARGS__)
/* x: [B,N,D] -> [B,N,D]. key: for the order of tokens, a new one at each call (mb_key_fold(key, step));
 * MB_NO_KEY with full batches. losses: NULL, or an array that gets T + 1 tensors, 0-d: l(W_t) on all tokens,
 * t = 0..T, summed over heads, averaged over images; null tensors after an error. With full batches the first
 * T cost nothing. MB_INVALID if inner_batch does not divide N. */
MB_API mb_tensor mb_ttt_apply_at(const char *site, const mb_ttt *layer, mb_tensor x, mb_key key,
                                 mb_tensor *losses);
#define mb_ttt_apply(...) mb_ttt_apply_at(MB_HERE, __VA_ARGS__)
MB_API int mb_ttt_inner_steps(const mb_ttt *layer);
/* Sets the learning rate of step t, 0 <= t < T, from the next call on; needs no new plan. */
MB_API void mb_ttt_set_inner_lr(mb_ttt *layer, int t, double lr);

/* -------------------------------------------------------------------------------------------- mixers -- */

/* The token mixer of a block: any layer [B,N,D] -> [B,N,D], behind one function. */
typedef struct mb_mixer {
    /* losses may be NULL */
    mb_tensor (*apply)(const void *layer, mb_tensor x, mb_key key, mb_tensor *losses);
    const void *layer; /* passed to apply; valid as long as p, such as by mb_params_alloc */
    int losses;        /* number of inner losses that apply writes: T + 1 for test-time training, else 0 */
    /* The same with a mask, as in mb_attend_with; NULL for a mixer that takes none. */
    mb_tensor (*apply_masked)(const void *layer, mb_tensor x, mb_tensor mask, mb_key key, mb_tensor *losses);
} mb_mixer;

typedef enum mb_mixer_kind {
    MB_MIXER_SOFTMAX = 0, /* mb_attention of that kind, named "attention" */
    MB_MIXER_LINEAR,
    MB_MIXER_ADAPTIVE,
    MB_MIXER_TTT, /* mb_ttt, named "ttt" */
    MB_MIXER_CUSTOM,
} mb_mixer_kind;

typedef struct mb_mixer_options {
    mb_mixer_kind kind;
    int64_t heads;
    bool causal;        /* attention */
    mb_ttt_options ttt; /* test-time training; dim and heads are filled in */
    /* MB_MIXER_CUSTOM: creates the layer, with parameters under the prefix that p has. */
    mb_mixer (*make)(void *user, mb_params *p, int64_t dim);
    void *user;
} mb_mixer_options;

MB_API mb_mixer mb_mixer_new_at(const char *site, mb_params *p, int64_t dim, const mb_mixer_options *options);
#define mb_mixer_new(...) mb_mixer_new_at(MB_HERE, __VA_ARGS__)
MB_API mb_tensor mb_mixer_apply_at(const char *site, mb_mixer mixer, mb_tensor x, mb_key key,
                                   mb_tensor *losses);
#define mb_mixer_apply(...) mb_mixer_apply_at(MB_HERE, __VA_ARGS__)
/* mask: as in mb_attend_with, for scores [B,H,N,N]; no tensor: all are seen. MB_INVALID for a mixer that
 * takes none: test-time training, and custom ones without apply_masked. */
MB_API mb_tensor mb_mixer_apply_with_at(const char *site, mb_mixer mixer, mb_tensor x, mb_tensor mask,
                                        mb_key key, mb_tensor *losses);
#define mb_mixer_apply_with(...) mb_mixer_apply_with_at(MB_HERE, __VA_ARGS__)

/* --------------------------------------------------------------------------------------- transformer -- */

/* dim -> hidden -> dim with the tanh form of gelu between. Kernels xavier, biases N(0, 1e-6^2). */
typedef struct mb_mlp {
    mb_linear up, down;
} mb_mlp;

MB_API mb_mlp mb_mlp_new_at(const char *site, mb_params *p, const char *name, int64_t dim, int64_t hidden);
#define mb_mlp_new(...) mb_mlp_new_at(MB_HERE, __VA_ARGS__)
MB_API mb_tensor mb_mlp_apply_at(const char *site, mb_mlp layer, mb_tensor x); /* x: [..., dim] */
#define mb_mlp_apply(...) mb_mlp_apply_at(MB_HERE, __VA_ARGS__)

/* Pre-norm: z = x + mixer(norm1(x)); z + mlp(norm2(z)). */
typedef struct mb_block {
    mb_layer_norm norm1, norm2;
    mb_mixer mixer;
    mb_mlp mlp;
} mb_block;

/* hidden 0: 4 dim. */
MB_API mb_block mb_block_new_at(const char *site, mb_params *p, const char *name, int64_t dim, int64_t hidden,
                                const mb_mixer_options *mixer);
#define mb_block_new(...) mb_block_new_at(MB_HERE, __VA_ARGS__)
/* x: [B,N,D] -> [B,N,D]; key and losses: as for the mixer. */
MB_API mb_tensor mb_block_apply_at(const char *site, const mb_block *block, mb_tensor x, mb_key key,
                                   mb_tensor *losses);
#define mb_block_apply(...) mb_block_apply_at(MB_HERE, __VA_ARGS__)
/* mask: as for the mixer. */
MB_API mb_tensor mb_block_apply_with_at(const char *site, const mb_block *block, mb_tensor x, mb_tensor mask,
                                        mb_key key, mb_tensor *losses);
#define mb_block_apply_with(...) mb_block_apply_with_at(MB_HERE, __VA_ARGS__)

/* -------------------------------------------------------------------------------- vision transformer -- */

/* images: [B,h,w] or [B,h,w,c] -> [B, (h/p)(w/p), p p c]: squares of p by p pixels, in row-major order, each
 * with its pixels in row-major order, channels last. p divides h and w. Any dtype. */
MB_API mb_tensor mb_patchify_at(const char *site, mb_tensor images, int64_t p);
#define mb_patchify(...) mb_patchify_at(MB_HERE, __VA_ARGS__)

/* Fixed positions, [rows * columns, dim]: the row of token (y, x) is sin(x w_i), cos(x w_i), sin(y w_i),
 * cos(y w_i), each for i = 0 .. dim/4 - 1, with w_i = 10000^(-i/(dim/4 - 1)) (MoCo v3, as in big_vision). 4
 * divides dim, and dim >= 8. Floats. */
MB_API mb_tensor mb_sincos2d_at(const char *site, mb_context *ctx, mb_dtype dtype, int64_t rows,
                                int64_t columns, int64_t dim);
#define mb_sincos2d(...) mb_sincos2d_at(MB_HERE, __VA_ARGS__)

typedef enum mb_positions {
    MB_POSITIONS_LEARNED = 0,
    MB_POSITIONS_SINCOS2D, /* fixed */
    MB_POSITIONS_NONE,
} mb_positions;

typedef struct mb_vit_options {
    int64_t tokens;       /* N */
    int64_t patch_values; /* values of a token: p p c */
    int64_t dim, depth;
    int64_t hidden; /* of the blocks' MLPs; 0: 4 dim */
    int64_t classes;
    mb_mixer_options mixer;
    mb_positions positions;
    mb_init positions_init; /* learned; default N(0, 1/dim), standard deviation 1/sqrt(dim) */
    int64_t rows;           /* of the grid of tokens, for sincos2d; 0: a square grid */
    bool pre_logits;        /* a linear layer D -> D and tanh before the head */
    mb_init head_init;      /* of the head's weight; default zeros */
    bool checkpoint;        /* each block is a checkpoint (autograd.h): gradients compute it once more */
} mb_vit_options;

/* patches -> embed -> + positions -> depth blocks -> norm -> mean over tokens -> (pre_logits, tanh) -> head.
 * Parameters: embed.weight [D, patch_values], embed.bias; positions [N,D] if they are learned; for each block
 * blocks.I.norm1, .attention.qkv and .attention.out or .ttt.psi_k and so on, .norm2, .mlp.up, .mlp.down;
 * norm.scale, norm.bias; pre_logits.weight [D,D], pre_logits.bias; head.weight [classes, D], head.bias.
 * embed.weight starts as U(+-sqrt(3 / patch_values)), the others as the layers above say. Positions, norms
 * and biases have no weight decay. */
typedef struct mb_vit mb_vit;

MB_API mb_vit *mb_vit_new_at(const char *site, mb_params *p, const char *name, mb_vit_options options);
#define mb_vit_new(...) mb_vit_new_at(MB_HERE, __VA_ARGS__)
/* patches: [B, tokens, patch_values] -> logits [B, classes]; without positions, any number of tokens. key:
 * block i uses mb_key_fold(key, i); MB_NO_KEY if no mixer draws. losses: NULL, or an array that gets depth *
 * mb_vit_losses(vit) tensors: block i's inner losses begin at i * mb_vit_losses(vit). */
MB_API mb_tensor mb_vit_apply_at(const char *site, const mb_vit *vit, mb_tensor patches, mb_key key,
                                 mb_tensor *losses);
#define mb_vit_apply(...) mb_vit_apply_at(MB_HERE, __VA_ARGS__)

typedef struct mb_vit_masks {
    mb_tensor seen;   /* in each block, as in mb_attend_with, for scores [B,H,N,N]; no tensor: all are seen */
    mb_tensor tokens; /* bool [B,N]: those that are there, in images of fewer: the others are not seen, and
                         not part of the mean, which over no tokens is 0; no tensor: all are there */
} mb_vit_masks;

/* The same for some of the tokens. MB_INVALID if the mixer takes no mask. */
MB_API mb_tensor mb_vit_apply_with_at(const char *site, const mb_vit *vit, mb_tensor patches,
                                      mb_vit_masks masks, mb_key key, mb_tensor *losses);
#define mb_vit_apply_with(...) mb_vit_apply_with_at(MB_HERE, __VA_ARGS__)
MB_API int mb_vit_losses(const mb_vit *vit); /* inner losses per block: T + 1, or 0 */
MB_API int mb_vit_depth(const mb_vit *vit);
MB_API const mb_block *mb_vit_block(const mb_vit *vit, int i);

#ifdef __cplusplus
}
#endif
#endif
