/* SPDX-License-Identifier: MIT
 *
 * conv.h - convolutions, pools, the norms that go with them, and dropout.
 *
 * Images are [N,C,H,W], N of them with C channels, and sequences [N,C,L], as in PyTorch; with channels_last
 * they are [N,H,W,C] and [N,L,C]. Convolutions are computed in the latter, and of the former give a view,
 * which the next op puts in order: neither is much faster. Weights are the same in both.
 *
 * As in layers.h: mistakes are MB_INVALID at the caller's line, all is differentiable to any order, and made
 * of ordinary ops. A convolution is one product over windows (tensor/windows.h) that take no memory, and so
 * are its derivatives.
 *
 * Stability: as in tensor.h.
 */
#ifndef MB_CONV_H
#define MB_CONV_H

#include "layers/layers.h"
#include "tensor/windows.h"

#ifdef __cplusplus
extern "C" {
#endif

/* --------------------------------------------------------------------------------------- convolutions -- */

/* By axis: height and width, or length alone. */
typedef struct mb_conv_options {
    int64_t stride[2];   /* >= 1; 0 means 1 */
    int64_t padding[2];  /* zeros on both sides; for others: mb_pad_with, and none here */
    int64_t dilation[2]; /* >= 1; 0 means 1 */
    int64_t groups;      /* divides C and O: channels are split into as many convolutions; 0 means 1 */
    int64_t more[2]; /* of a transposed one: elements more at the end of the result, less than the larger of
                        stride and dilation */
    bool channels_last;
} mb_conv_options;

/* x: [N,C,H,W], weight: [O,C/groups,KH,KW], bias: [O] or no tensor -> [N,O,H',W'],
 *
 *     y[n,o,i,j] = bias[o] + sum_{c,k,l} weight[o,c,k,l] x[n,c, i stride + k dilation, j stride + l dilation]
 *
 * with x padded and H' = (H + 2 padding - (KH - 1) dilation - 1) / stride + 1, rounded down, at least 1.
 * Floats. N may be 0. */
MB_API mb_tensor mb_conv2d_at(const char *site, mb_tensor x, mb_tensor weight, mb_tensor bias,
                              mb_conv_options options);
#define mb_conv2d(...) mb_conv2d_at(MB_HERE, __VA_ARGS__)
/* x: [N,C,L], weight: [O,C/groups,K] -> [N,O,L'] */
MB_API mb_tensor mb_conv1d_at(const char *site, mb_tensor x, mb_tensor weight, mb_tensor bias,
                              mb_conv_options options);
#define mb_conv1d(...) mb_conv1d_at(MB_HERE, __VA_ARGS__)
/* The adjoint of a convolution from O to C channels by its input, plus bias: x: [N,C,H,W], weight:
 * [C,O/groups,KH,KW], bias: [O] -> [N,O,H',W'], H' = (H - 1) stride - 2 padding + (KH - 1) dilation + 1 +
 * more.
 */
MB_API mb_tensor mb_conv_transpose2d_at(const char *site, mb_tensor x, mb_tensor weight, mb_tensor bias,
                                        mb_conv_options options);
#define mb_conv_transpose2d(...) mb_conv_transpose2d_at(MB_HERE, __VA_ARGS__)
MB_API mb_tensor mb_conv_transpose1d_at(const char *site, mb_tensor x, mb_tensor weight, mb_tensor bias,
                                        mb_conv_options options);
#define mb_conv_transpose1d(...) mb_conv_transpose1d_at(MB_HERE, __VA_ARGS__)

/* A convolution as a layer. */
typedef struct mb_conv {
    mb_tensor weight; /* [O, C/groups, KH, KW], with weight decay */
    mb_tensor bias;   /* [O]; no tensor: none */
    mb_conv_options options;
} mb_conv;

typedef struct mb_conv_layer_options {
    int64_t in, out; /* C, O */
    int64_t size[2]; /* KH, KW; KW 0: as KH */
    mb_conv_options conv;
    bool no_bias;
    mb_init weight, bias; /* default: U(+-1/sqrt(fan)), fan = C/groups KH KW, of both: as PyTorch's */
} mb_conv_layer_options;

/* Makes the parameters "weight" and "bias". */
MB_API mb_conv mb_conv2d_new_at(const char *site, mb_params *p, const char *name,
                                mb_conv_layer_options options);
#define mb_conv2d_new(...) mb_conv2d_new_at(MB_HERE, __VA_ARGS__)
MB_API mb_tensor mb_conv2d_apply_at(const char *site, mb_conv layer, mb_tensor x);
#define mb_conv2d_apply(...) mb_conv2d_apply_at(MB_HERE, __VA_ARGS__)

/* ---------------------------------------------------------------------------------------------- pools -- */

typedef struct mb_pool_options {
    int64_t size[2];    /* of a window, height and width, or length alone; a width of 0 is the height */
    int64_t stride[2];  /* 0: the size, so that windows do not overlap */
    int64_t padding[2]; /* on both sides, at most half of the size; counts as -infinity for a maximum, and as
                           zeros in an average, as PyTorch has it */
    bool channels_last;
} mb_pool_options;

/* x: [N,C,H,W] -> [N,C,H',W'], H' = (H + 2 padding - size) / stride + 1, rounded down: the largest element or
 * the mean of each window. Equal largest elements share the derivative, pair by pair. Floats. */
MB_API mb_tensor mb_max_pool2d_at(const char *site, mb_tensor x, mb_pool_options options);
#define mb_max_pool2d(...) mb_max_pool2d_at(MB_HERE, __VA_ARGS__)
MB_API mb_tensor mb_avg_pool2d_at(const char *site, mb_tensor x, mb_pool_options options);
#define mb_avg_pool2d(...) mb_avg_pool2d_at(MB_HERE, __VA_ARGS__)
/* x: [N,C,L] -> [N,C,L'] */
MB_API mb_tensor mb_max_pool1d_at(const char *site, mb_tensor x, mb_pool_options options);
#define mb_max_pool1d(...) mb_max_pool1d_at(MB_HERE, __VA_ARGS__)
MB_API mb_tensor mb_avg_pool1d_at(const char *site, mb_tensor x, mb_pool_options options);
#define mb_avg_pool1d(...) mb_avg_pool1d_at(MB_HERE, __VA_ARGS__)

/* ---------------------------------------------------------------------------------------------- norms -- */

/* (x - mean) / sqrt(variance + eps) * scale + bias, with mean and biased variance over all axes but
 * `channels`, C of them (Ioffe and Szegedy 1502.03167, algorithm 1). scale, bias: [C], or no tensor. mean,
 * variance: NULL, or where those of x go, [C], float32 of a half. Floats. */
MB_API mb_tensor mb_batch_normalize_at(const char *site, mb_tensor x, int channels, mb_tensor scale,
                                       mb_tensor bias, double eps, mb_tensor *mean, mb_tensor *variance);
#define mb_batch_normalize(...) mb_batch_normalize_at(MB_HERE, __VA_ARGS__)
/* The same of each example (axis 0), over all other axes and groups of C/groups channels that lie next to
 * each other (Wu and He 1803.08494); groups = C is instance normalisation. */
MB_API mb_tensor mb_group_normalize_at(const char *site, mb_tensor x, int channels, int64_t groups,
                                       mb_tensor scale, mb_tensor bias, double eps);
#define mb_group_normalize(...) mb_group_normalize_at(MB_HERE, __VA_ARGS__)

typedef struct mb_batch_norm {
    mb_tensor scale, bias;    /* [C], ones and zeros */
    mb_tensor mean, variance; /* [C], zeros and ones: running, parameters that are not trainable */
    double eps, momentum;     /* 1e-5, 0.1; may be changed */
} mb_batch_norm;

/* Makes the parameters "scale", "bias", "mean" and "variance": all are saved and loaded. */
MB_API mb_batch_norm mb_batch_norm_new_at(const char *site, mb_params *p, const char *name, int64_t channels);
#define mb_batch_norm_new(...) mb_batch_norm_new_at(MB_HERE, __VA_ARGS__)
/* In training: by the mean and variance of x, and the running ones r are assigned r + momentum (of x - r),
 * where the variance of x counts as unbiased; so not inside of a scan, a vmap or a checkpoint (there:
 * mb_batch_normalize, and mb_assign after it). Else: by the running ones. */
MB_API mb_tensor mb_batch_norm_apply_at(const char *site, mb_batch_norm layer, mb_tensor x, int channels,
                                        bool training);
#define mb_batch_norm_apply(...) mb_batch_norm_apply_at(MB_HERE, __VA_ARGS__)

typedef struct mb_group_norm {
    mb_tensor scale, bias; /* [C], ones and zeros */
    int64_t groups;
    double eps; /* 1e-5; may be changed */
} mb_group_norm;

MB_API mb_group_norm mb_group_norm_new_at(const char *site, mb_params *p, const char *name, int64_t channels,
                                          int64_t groups);
#define mb_group_norm_new(...) mb_group_norm_new_at(MB_HERE, __VA_ARGS__)
MB_API mb_tensor mb_group_norm_apply_at(const char *site, mb_group_norm layer, mb_tensor x, int channels);
#define mb_group_norm_apply(...) mb_group_norm_apply_at(MB_HERE, __VA_ARGS__)

/* -------------------------------------------------------------------------------------------- dropout -- */

/* In training each element is 0 with probability p, 0 <= p <= 1, and divided by 1 - p else (Srivastava et al.
 * 2014); otherwise x. Which ones depends on key and shape alone: a new key for each step and layer
 * (mb_key_fold). The draws are made again where they are needed, and take no memory. Floats. */
MB_API mb_tensor mb_dropout_at(const char *site, mb_tensor x, mb_key key, double p, bool training);
#define mb_dropout(...) mb_dropout_at(MB_HERE, __VA_ARGS__)

#ifdef __cplusplus
}
#endif

#endif
