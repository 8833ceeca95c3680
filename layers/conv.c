/* SPDX-License-Identifier: MIT
 *
 * conv.c - convolutions as contractions over windows, channels last; and as a layer.
 *
 * Shapes are of D space axes: x [N, S.., C], windows of it [N, (S', K).., C], weight [K.., C, O]. With
 * groups, channels are two axes, [G, C/G].
 */
#include "layers/conv.h"
#include "layers/internal.h"
#include "tensor/internal.h"

#include <math.h>

/* A convolution of D space axes: what its options come to. */
typedef struct conv {
    const char *name;
    int D;
    bool transposed, channels_last;
    int64_t in, out, groups; /* channels */
    int64_t size[2], stride[2], padding[2], dilation[2], more[2];
    int64_t from[2], to[2]; /* space of x and of the result */
} conv;

static int64_t reach_of(const conv *c, int i)
{
    return (c->size[i] - 1) * c->dilation[i];
}

/* ---- checks ---- */

static bool refuse(mb_tensor x, mb_tensor weight, const conv *c)
{
    char a[MB__SHAPE_TEXT], b[MB__SHAPE_TEXT];
    const char *space = c->D == 1 ? "L" : "H,W", *window = c->D == 1 ? "K" : "KH,KW";
    mb_fail(
        x.ctx, MB_INVALID,
        "%s: got x %s, weight %s, groups %lld; wanted [N,%s%s%s], [%s,%s], with groups that divide C and O",
        c->name, mb__shape(a, x), mb__shape(b, weight), (long long)c->groups, c->channels_last ? space : "C",
        c->channels_last ? ",C" : ",", c->channels_last ? "" : space,
        c->transposed ? "C,O/groups" : "O,C/groups", window);
    return false;
}

static bool check_channels(mb_tensor x, mb_tensor weight, mb_tensor bias, conv *c)
{
    mb_shape s = mb_shape_of(x), w = mb_shape_of(weight);
    c->in = s.rank ? s.dim[c->channels_last ? s.rank - 1 : 1] : 0;
    bool ok = s.rank == c->D + 2 && w.rank == c->D + 2 && c->groups >= 1 && w.dim[0] >= 1 && w.dim[1] >= 1;
    int64_t outside = ok ? w.dim[0] : 0, inside = ok ? w.dim[1] : 0;
    ok = ok && inside <= MB_SIZE_MAX && c->groups <= MB_SIZE_MAX && outside % c->groups == 0;
    if (!ok || c->in != (c->transposed ? outside : inside * c->groups))
        return refuse(x, weight, c);
    c->out = c->transposed ? inside * c->groups : outside;
    for (int i = 0; i < c->D; i++) {
        c->from[i] = s.dim[c->channels_last ? 1 + i : 2 + i];
        c->size[i] = w.dim[2 + i];
    }
    char text[MB__SHAPE_TEXT];
    if (!bias.ctx || !mb_valid(bias) || (mb_shape_of(bias).rank == 1 && mb_dim(bias, 0) == c->out))
        return true;
    mb_fail(x.ctx, MB_INVALID, "%s: got the bias %s; wanted [%lld]", c->name, mb__shape(text, bias),
            (long long)c->out);
    return false;
}

/* Fills in the result's space. */
static bool check_space(mb_tensor x, conv *c)
{
    for (int i = 0; i < c->D; i++) {
        int64_t size = c->size[i], stride = c->stride[i], pad = c->padding[i], dilation = c->dilation[i];
        if (size < 1 || stride < 1 || dilation < 1 || pad < 0 || c->more[i] < 0 || size > MB_SIZE_MAX ||
            stride > MB_SIZE_MAX || dilation > MB_SIZE_MAX || pad > MB_SIZE_MAX ||
            c->more[i] >= (stride > dilation ? stride : dilation) || (c->more[i] && !c->transposed)) {
            mb_fail(
                x.ctx, MB_INVALID,
                "%s: got size %lld, stride %lld, padding %lld, dilation %lld, more %lld on space axis %d; "
                "wanted 1 to 2^31, padding from 0, and more below stride or dilation, of a transposed one",
                c->name, (long long)size, (long long)stride, (long long)pad, (long long)dilation,
                (long long)c->more[i], i);
            return false;
        }
        int64_t n = c->from[i], room = n + 2 * pad - reach_of(c, i) - 1;
        c->to[i] = c->transposed ? (n - 1) * stride - 2 * pad + reach_of(c, i) + 1 + c->more[i]
                                 : (room < 0 ? 0 : room / stride + 1);
        if (n < 1 || c->to[i] < 1) {
            mb_fail(
                x.ctx, MB_INVALID,
                "%s: windows of %lld with stride %lld, dilation %lld and padding %lld leave nothing of %lld "
                "elements on space axis %d",
                c->name, (long long)size, (long long)stride, (long long)dilation, (long long)pad,
                (long long)n, i);
            return false;
        }
    }
    return true;
}

static conv conv_of(const char *name, int D, bool transposed, const mb_conv_options *o)
{
    conv c = {.name = name,
              .D = D,
              .transposed = transposed,
              .channels_last = o->channels_last,
              .groups = o->groups ? o->groups : 1};
    for (int i = 0; i < D; i++) {
        c.stride[i] = o->stride[i] ? o->stride[i] : 1;
        c.dilation[i] = o->dilation[i] ? o->dilation[i] : 1;
        c.padding[i] = o->padding[i];
        c.more[i] = o->more[i];
    }
    return c;
}

/* ---- the parts ---- */

/* [N,C,S..] -> [N,S..,C] */
static mb_tensor channels_to_last(mb_tensor x)
{
    int rank = mb_shape_of(x).rank;
    mb_axes order = {rank, false, {0}};
    for (int i = 1; i < rank; i++)
        order.axis[i] = i + 1 < rank ? i + 1 : 1;
    return mb_permute(x, order);
}

static mb_tensor channels_to_front(mb_tensor x)
{
    int rank = mb_shape_of(x).rank;
    mb_axes order = {rank, false, {0}};
    for (int i = 1; i < rank; i++)
        order.axis[i] = i == 1 ? rank - 1 : i - 1;
    return mb_permute(x, order);
}

/* [N,S..,C] -> [N,S..,C], or [N,S..,G,C/G]. */
static mb_tensor grouped(mb_tensor x, const conv *c)
{
    mb_shape s = mb_shape_of(x);
    if (c->groups == 1 || !mb_valid(x))
        return x;
    s.dim[s.rank] = s.dim[s.rank - 1] / c->groups;
    s.dim[s.rank - 1] = c->groups;
    s.rank++;
    return mb_reshape(x, s);
}

/* The last two axes as one, where there are groups. */
static mb_tensor ungrouped(mb_tensor x, const conv *c)
{
    mb_shape s = mb_shape_of(x);
    if (c->groups == 1 || !mb_valid(x))
        return x;
    s.rank--;
    s.dim[s.rank - 1] *= s.dim[s.rank];
    return mb_reshape(x, s);
}

/* weight -> [K.., (G,) C/G, O/G] */
static mb_tensor weights(mb_tensor weight, const conv *c)
{
    mb_shape s = {c->D + 3, {c->groups, mb_dim(weight, 0) / c->groups, mb_dim(weight, 1)}};
    for (int i = 0; i < c->D; i++)
        s.dim[3 + i] = c->size[i];
    mb_axes order = {c->D + 3, false, {0}};
    int n = 0;
    for (int i = 0; i < c->D; i++)
        order.axis[n++] = 3 + i;
    order.axis[n++] = 0;
    order.axis[n++] = c->transposed ? 1 : 2;
    order.axis[n++] = c->transposed ? 2 : 1;
    mb_tensor w = mb_permute(mb_reshape(weight, s), order);
    return c->groups == 1 ? mb_squeeze(w, c->D) : w;
}

/* x with zeros on both sides of its space. */
static mb_tensor padded(mb_tensor x, const conv *c)
{
    mb_shape s = mb_shape_of(x);
    int64_t before[MB_MAX_RANK] = {0}, step[MB_MAX_RANK];
    bool any = false;
    for (int i = 0; i < s.rank; i++)
        step[i] = 1;
    for (int i = 0; i < c->D; i++) {
        before[1 + i] = c->padding[i];
        s.dim[1 + i] += 2 * c->padding[i];
        any |= c->padding[i] > 0;
    }
    return any && mb_valid(x) ? mb__pad_all(x, before, step, s.dim) : x;
}

static mb_window window_of(const conv *c, int i)
{
    return (mb_window){c->size[i], c->stride[i], c->dilation[i]};
}

/* Each channel by itself: products of nothing but a window are no work for a matrix product. x: windows, [N,
 * (S', K).., C]. */
static mb_tensor depthwise(mb_tensor x, mb_tensor weight, const conv *c)
{
    mb_shape s = {2 * c->D, {0}};
    for (int i = 0; i < c->D; i++) {
        s.dim[2 * i] = c->size[i];
        s.dim[2 * i + 1] = 1;
    }
    s.dim[s.rank - 1] = c->in; /* [K, 1, K, C], or [K, C] */
    mb_axes inside = {c->D, false, {2, 4}};
    return mb_sum(mb_mul(x, mb_reshape(weights(weight, c), s)), inside);
}

static mb_tensor forward(mb_tensor x, mb_tensor weight, const conv *c)
{
    static const char *const equation[2][2] = {{"nykc,kco->nyo", "nykgc,kgco->nygo"},
                                               {"nykxlc,klco->nyxo", "nykxlgc,klgco->nyxgo"}};
    bool each = c->groups > 1 && c->groups == c->in && c->in == c->out;
    x = padded(x, c);
    if (!each)
        x = grouped(x, c);
    for (int i = 0; i < c->D; i++)
        x = mb_unfold(x, 1 + 2 * i, window_of(c, i));
    if (each)
        return depthwise(x, weight, c);
    x = mb_einsum(equation[c->D - 1][c->groups > 1], x, weights(weight, c));
    return ungrouped(x, c);
}

static mb_tensor backward(mb_tensor x, mb_tensor weight, const conv *c)
{
    static const char *const equation[2][2] = {{"nyc,kco->nyko", "nygc,kgco->nykgo"},
                                               {"nyxc,klco->nykxlo", "nyxgc,klgco->nykxlgo"}};
    x = mb_einsum(equation[c->D - 1][c->groups > 1], grouped(x, c), weights(weight, c));
    for (int i = c->D; i-- > 0;) {
        int64_t covered = (c->from[i] - 1) * c->stride[i] + reach_of(c, i) + 1,
                wanted = c->padding[i] + c->to[i];
        x = mb_fold(x, 1 + 2 * i, window_of(c, i), covered > wanted ? covered : wanted);
    }
    for (int i = 0; i < c->D; i++)
        x = mb_slice(x, 1 + i, c->padding[i], c->to[i], 1);
    return ungrouped(x, c);
}

static mb_tensor convolve(const char *site, mb_tensor x, mb_tensor weight, mb_tensor bias, conv c)
{
    MB__APPLY(site, c.name, {"x", x, MB__NEEDED}, {"weight", weight, MB__NEEDED},
              {"bias", bias, MB__OPTIONAL});
    mb_context *ctx = x.ctx;
    if (!check_channels(x, weight, bias, &c) || !check_space(x, &c))
        return mb__poison(ctx);
    if (!c.channels_last)
        x = channels_to_last(x);
    x = c.transposed ? backward(x, weight, &c) : forward(x, weight, &c);
    if (bias.ctx)
        x = mb_add(x, bias);
    return c.channels_last || !mb_valid(x) ? x : channels_to_front(x);
}

mb_tensor mb_conv1d_at(const char *site, mb_tensor x, mb_tensor weight, mb_tensor bias,
                       mb_conv_options options)
{
    return convolve(site, x, weight, bias, conv_of("conv1d", 1, false, &options));
}

mb_tensor mb_conv2d_at(const char *site, mb_tensor x, mb_tensor weight, mb_tensor bias,
                       mb_conv_options options)
{
    return convolve(site, x, weight, bias, conv_of("conv2d", 2, false, &options));
}

mb_tensor mb_conv_transpose1d_at(const char *site, mb_tensor x, mb_tensor weight, mb_tensor bias,
                                 mb_conv_options options)
{
    return convolve(site, x, weight, bias, conv_of("conv_transpose1d", 1, true, &options));
}

mb_tensor mb_conv_transpose2d_at(const char *site, mb_tensor x, mb_tensor weight, mb_tensor bias,
                                 mb_conv_options options)
{
    return convolve(site, x, weight, bias, conv_of("conv_transpose2d", 2, true, &options));
}

/* ---- the layer ---- */

mb_conv mb_conv2d_new_at(const char *site, mb_params *p, const char *name, mb_conv_layer_options options)
{
    MB_SITE(mb_params_context(p), site);
    mb_conv layer = {.options = options.conv};
    int64_t groups = options.conv.groups ? options.conv.groups : 1, C = options.in, O = options.out;
    int64_t KH = options.size[0], KW = options.size[1] ? options.size[1] : KH;
    if (!p)
        return layer;
    if (C < 1 || O < 1 || KH < 1 || KW < 1 || groups < 1 || C % groups || O % groups || C > MB_SIZE_MAX ||
        O > MB_SIZE_MAX || KH > 65536 || KW > 65536) {
        mb_fail(
            mb_params_context(p), MB_INVALID,
            "mb_conv2d: in %lld, out %lld, size %lld by %lld, groups %lld: wanted 1 or more, sizes to 65536, "
            "and groups that divide in and out",
            (long long)C, (long long)O, (long long)KH, (long long)KW, (long long)groups);
        return layer;
    }
    mb_init init = mb_init_uniform(1 / sqrt((double)(C / groups) * (double)KH * (double)KW));
    if (mb_params_enter(p, name) != MB_OK)
        return layer;
    layer.weight = mb_param(p, "weight", MB_SHAPE(O, C / groups, KH, KW),
                            options.weight.kind == MB_INIT_DEFAULT ? init : options.weight);
    if (!options.no_bias)
        layer.bias = mb_param_no_decay(p, "bias", MB_SHAPE(O),
                                       options.bias.kind == MB_INIT_DEFAULT ? init : options.bias);
    mb_params_leave(p);
    return layer;
}

mb_tensor mb_conv2d_apply_at(const char *site, mb_conv layer, mb_tensor x)
{
    MB__APPLY(site, "conv2d", {"x", x, MB__NEEDED}, {"layer.weight", layer.weight, MB__NEEDED},
              {"layer.bias", layer.bias, MB__OPTIONAL});
    return mb_conv2d(x, mb__as(layer.weight, x), mb__as(layer.bias, x), layer.options);
}
