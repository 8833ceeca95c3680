/* SPDX-License-Identifier: MIT
 *
 * mesa.h - layers that solve a least-squares problem at each token: which linear map takes the keys so far to
 * their values? The map is applied to the token's query. Linear attention takes one step of gradient descent
 * towards that map (von Oswald et al. 2309.05858, proposition 1); these layers go all the way.
 *
 * Letters: B sequences, H heads, N tokens, dk entries of keys and queries, dv of values. q, k: [B,H,N,dk]; v:
 * [B,H,N,dv] -> [B,H,N,dv]; the forget factors g = exp(log_forget), [B,H,N], no tensor: 1. Everything has q's
 * dtype, but that beside halves the others may be float32, and states are; mistakes are MB_INVALID at the
 * caller's line, all is differentiable to any order.
 *
 * Stability: as in tensor.h.
 */
#ifndef MB_MESA_H
#define MB_MESA_H

#include "layers/recurrent.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------- recursive least squares -- */

typedef struct mb_mesa_options {
    int64_t keep_every; /* as in mb_scan_options */
    /* A gradient stores R after every keep_every-th token only (0: after the last one), and finds the others
     * from the last to the first by the inverse step,
     *     R_{t-1} = g_t (R_t + R_t k_t k_t^T R_t / (1 - k_t^T R_t k_t)),
     * so its memory is that of a few matrices for any N, beside inputs and results. Going back, an error
     * grows by 1/g_t each step, and altogether by up to (1 + lambda sum of |k|^2)^2 as keys are forgotten:
     * choose keep_every so that exp of the sum of -log_forget over so many tokens stays well below 1e7 in
     * float32 (1e16 in float64), and keys of length about 1. With 0 < keep_every < N each token is computed
     * once more than otherwise. */
    bool reversible;
    bool normalize; /* queries and keys are divided by their lengths first; those of length 0 stay 0 */
    int64_t chunk;  /* of mb_gated_attention, which gathers the values */
} mb_mesa_options;

/* What is left after the last token. */
typedef struct mb_mesa_state {
    mb_tensor inverse; /* R_N [B,H,dk,dk] */
    mb_tensor sums;    /* sum over t of (g_{t+1} .. g_N) k_t v_t^T, [B,H,dk,dv] */
} mb_mesa_state;

/* The mesa layer (2309.05858, eqs. 10 to 12): o_t = Phi_t q_t, where Phi_t: [dv,dk] is least for
 *
 *     1/2 sum over t' <= t of (g_{t'+1} .. g_t) |v_t' - Phi k_t'|^2 + (g_1 .. g_t) / (2 lambda) |Phi|^2
 *
 * by recursive least squares: with R_0 = lambda I and the Sherman-Morrison formula,
 *
 *     R_t = (R_{t-1} - R_{t-1} k_t k_t^T R_{t-1} / (g_t + k_t^T R_{t-1} k_t)) / g_t,
 *     o_t = sum over t' <= t of (g_{t'+1} .. g_t) v_t' k_t'^T R_t q_t,
 *
 * which is gated linear attention with the queries R_t q_t. N steps of dk^2 operations, one after the other.
 * lambda: positive, 0-d or [H]; as it goes to 0, o / lambda goes to causal linear attention. Where g < 1 the
 * ridge 1/lambda is forgotten too: keys should go on pointing in all directions. last: NULL, or where the
 * state after the last token goes. */
MB_API mb_tensor mb_mesa_attention_at(const char *site, mb_tensor q, mb_tensor k, mb_tensor v,
                                      mb_tensor log_forget, mb_tensor lambda, mb_mesa_options options,
                                      mb_mesa_state *last);
#define mb_mesa_attention(...) mb_mesa_attention_at(MB_HERE, __VA_ARGS__)

/* ------------------------------------------------------------------------------------------ MesaNet -- */

typedef struct mb_mesanet_options {
    int64_t steps;      /* J of conjugate gradients, at all tokens at once; dk are enough but for rounding */
    double tolerance;   /* a token whose residual is so small, relative to its query, takes no more steps */
    bool unrolled;      /* derivatives of the J steps; otherwise those of the solution, by a second solve of J
                           steps.      With J = 0 they always are those of what is computed */
    mb_tensor beta;     /* [B,H,N], how much a token counts; no tensor: 1 */
    int64_t chunk;      /* tokens at once, as in mb_gated_attention_options: there the time goes */
    int64_t keep_every; /* as in mb_scan_options */
} mb_mesanet_options;

/* The layer of MesaNet (von Oswald et al. 2506.05233, eq. 5), whose ridge stays where it is while the
 * sums are forgotten:
 *
 *     G_t = g_t G_{t-1} + beta_t v_t k_t^T,  H_t = g_t H_{t-1} + beta_t k_t k_t^T,
 *     o_t = G_t (H_t + diag(ridge))^-1 q_t,
 *
 * the system solved by conjugate gradients, from q_t divided by the diagonal of its matrix. A product with
 * H_t is gated linear attention, whose values are the keys, so all tokens go through a step together. With 0
 * steps it is gated linear attention with the scaled queries. ridge: [H,dk], or what broadcasts to
 * [B,H,N,dk]; positive. beta and g must not be negative. */
MB_API mb_tensor mb_mesanet_attention_at(const char *site, mb_tensor q, mb_tensor k, mb_tensor v,
                                         mb_tensor log_forget, mb_tensor ridge, mb_mesanet_options options);
#define mb_mesanet_attention(...) mb_mesanet_attention_at(MB_HERE, __VA_ARGS__)

/* ----------------------------------------------------------------------------------- as layers of x -- */

/* What is done with keys, values and queries: functions above and mb_gated_attention (recurrent.h). */
typedef enum mb_memory_rule {
    MB_MEMORY_LINEAR = 0,  /* causal linear attention */
    MB_MEMORY_GATED,       /* with a decay for each head: gated linear attention */
    MB_MEMORY_DELTA,       /* DeltaNet: beta */
    MB_MEMORY_GATED_DELTA, /* gated DeltaNet: a decay and beta */
    MB_MEMORY_MESA,        /* recursive least squares with forget factors, and lambda for each head */
    MB_MEMORY_MESANET,     /* forget factors, beta, and a ridge for each head and entry of a key */
} mb_memory_rule;

typedef struct mb_memory_options {
    mb_memory_rule rule;
    int64_t dim, heads; /* heads divide dim */
    int64_t key;        /* dk, entries of keys and queries of a head; 0: dim / heads, as values have */
    int64_t conv; /* tokens that the causal convolution of queries and keys looks at; 0: none, 1 to 64 */
    int64_t chunk, keep_every;
    mb_mesa_options mesa;       /* MESA: reversible is used */
    mb_mesanet_options mesanet; /* MESANET: steps, tolerance and unrolled are used */
} mb_memory_options;

/* What is not used by the rule is a null tensor. */
typedef struct mb_memory {
    mb_memory_options options;
    mb_tensor query, key;          /* [H dk, D] */
    mb_tensor value, out;          /* [D, D] */
    mb_tensor conv;                /* [2, conv, H dk]: of queries, of keys */
    mb_tensor forget, forget_bias; /* [H, D], [H] */
    mb_tensor beta, beta_bias;     /* [H, D], [H] */
    mb_tensor ridge; /* MESA [H]: lambda = exp of it; MESANET [H,dk]: the ridge is softplus of it + 1/4 */
    mb_tensor scale; /* [D / H], of the norm */
} mb_memory;

/* The block of MesaNet (2506.05233, figure 1), with any of the rules in its middle:
 *
 *     q, k = normalize(silu(conv(x W))),  v = x V,  g = sigmoid(x F + f),  beta = sigmoid(x B + b),
 *     y = rms_norm(rule(q, k, v, g, beta)) P,
 *
 * q and k of each head of length 1. silu only with conv. Parameters query, key, value, out (xavier), conv
 * (zeros but for the token's own, 1), forget and beta (xavier), forget_bias (4: g near 0.98), beta_bias (0),
 * ridge (lambda and ridge begin as 1), scale (ones); the last four and conv have no weight decay. */
MB_API mb_memory mb_memory_new_at(const char *site, mb_params *p, const char *name,
                                  mb_memory_options options);
#define mb_memory_new(...) mb_memory_new_at(MB_HERE, __VA_ARGS__)
/* x: [B,N,D] -> [B,N,D]; a token depends on those up to it. */
MB_API mb_tensor mb_memory_apply_at(const char *site, mb_memory layer, mb_tensor x);
#define mb_memory_apply(...) mb_memory_apply_at(MB_HERE, __VA_ARGS__)

#ifdef __cplusplus
}
#endif
#endif
