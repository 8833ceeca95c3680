/* SPDX-License-Identifier: MIT
 *
 * recurrent.h - layers that go through a sequence step by step, on mb_scan (tensor/scan.h): a plan of one
 * step, whatever the length; gradients compute each step again from the states, which are stored, or some of
 * them (keep_every).
 *
 * As in layers.h: x has the dtype of p, or is a half of float32, mistakes are MB_INVALID at the caller's
 * line, all is differentiable to any order. Beside halves states are float32, and so may decays, beta and the
 * like be. Letters: B sequences, N tokens, H heads.
 *
 * Stability: as in tensor.h.
 */
#ifndef MB_RECURRENT_H
#define MB_RECURRENT_H

#include "layers/layers.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------- GRU and LSTM -- */

typedef enum mb_cell {
    MB_CELL_GRU = 0, /* Cho et al. 1406.1078, with the reset gate after the product:
                      *   r, z = sigmoid(x U_r^T + h V_r^T), sigmoid(x U_z^T + h V_z^T)
                      *   n = tanh(x U_n^T + r (h V_n^T)),  h' = (1 - z) n + z h       (biases left out) */
    MB_CELL_LSTM,    /* Hochreiter and Schmidhuber 1997, with a forget gate (Gers et al. 2000):
                      *   i, f, o = sigmoid(...), g = tanh(...),  c' = f c + i g,  h' = o tanh(c') */
} mb_cell;

typedef struct mb_recurrent_options {
    mb_cell cell;
    int64_t in, hidden;
    bool backwards;     /* from the last token to the first */
    int64_t keep_every; /* as in mb_scan_options */
} mb_recurrent_options;

typedef struct mb_recurrent {
    mb_recurrent_options options;
    mb_tensor input,
        hidden; /* U [G hidden, in], V [G hidden, hidden]; gates r, z, n (G = 3), or i, f, g, o */
    mb_tensor input_bias, hidden_bias; /* [G hidden] */
} mb_recurrent;

/* The state that goes from token to token, [B, hidden]; c of an LSTM only. One that is given as a half is
 * given back as one. */
typedef struct mb_recurrent_state {
    mb_tensor h, c;
} mb_recurrent_state;

/* Parameters input, hidden, input_bias, hidden_bias under the name, which start as U(+-1/sqrt(hidden));
 * biases take no weight decay. */
MB_API mb_recurrent mb_recurrent_new_at(const char *site, mb_params *p, const char *name,
                                        mb_recurrent_options options);
#define mb_recurrent_new(...) mb_recurrent_new_at(MB_HERE, __VA_ARGS__)
/* x: [B,N,in] -> [B,N,hidden], h after each token. state: NULL; or the state to begin with, zeros where it is
 * all zeros, which becomes the last one. */
MB_API mb_tensor mb_recurrent_apply_at(const char *site, mb_recurrent layer, mb_tensor x,
                                       mb_recurrent_state *state);
#define mb_recurrent_apply(...) mb_recurrent_apply_at(MB_HERE, __VA_ARGS__)

/* --------------------------------------------------------------------------- gated linear attention -- */

typedef struct mb_gated_attention_options {
    /* Tokens computed at once; 0 or 1: one by one. Within a chunk all is products, and with beta a triangular
     * system; between chunks there is a scan. With a decay for each entry of a key, factors exp(+-G) are
     * formed, where G is how much log_decay sums up to between a token and the middle of its chunk: in
     * float32 that must stay below 80 in size, in float64 below 700. With one for a whole key there is no
     * limit. */
    int64_t chunk;
    int64_t keep_every; /* as in mb_scan_options */
    mb_tensor beta;     /* [B,H,N]: the delta rule, see below. No tensor: k_t v_t^T is added as it is */
} mb_gated_attention_options;

/* Gated linear attention (Yang et al. 2312.06635, eq. 3): S_t = diag(a_t) S_{t-1} + k_t v_t^T, o_t = S_t^T
 * q_t, with S_0 = 0. q, k: [B,H,N,dk]; a = exp(log_decay), [B,H,N,dk] or [B,H,N,1], one for a whole key; v:
 * [B,H,N,dv] -> o [B,H,N,dv]. Without log_decay (no tensor) a is 1: causal linear attention. Linear in N.
 * last: NULL, or where S_N [B,H,dk,dv] goes.
 *
 * With beta it is the delta rule, a step of gradient descent on |S^T k_t - v_t|^2 / 2 from the decayed state:
 *
 *     S_t = (I - beta_t k_t k_t^T) diag(a_t) S_{t-1} + beta_t k_t v_t^T
 *
 * DeltaNet (Schlag et al. 2102.11174; in chunks Yang et al. 2406.06484), and with a decay for a whole
 * key gated DeltaNet (Yang et al. 2412.06464, eq. 10). It is stable where |k_t|^2 beta_t is below 2. */
MB_API mb_tensor mb_gated_attention_at(const char *site, mb_tensor q, mb_tensor k, mb_tensor v,
                                       mb_tensor log_decay, mb_gated_attention_options options,
                                       mb_tensor *last);
#define mb_gated_attention(...) mb_gated_attention_at(MB_HERE, __VA_ARGS__)

#ifdef __cplusplus
}
#endif
#endif
