# SPDX-License-Identifier: MIT
"""Layers in Python: those of layers/ for moebius.py, by ctypes.

    import moebius, moebius_layers as layers
    params = moebius.Params(mb, 42)
    first = layers.Linear(params, "f1", 784, 128)        # f1.weight [128, 784], f1.bias [128]
    h = first(x).gelu()                                  # x [64, 784] -> [64, 128]

A layer is called with tensors; options are those of its struct in C, and their defaults 0. Its tensors are attributes, as
first.weight, and what it tells (taps.h) is heard by the taps of moebius.py. Left to C: mixers and blocks by themselves,
mesa_attention and mesanet_attention outside of Memory, learners and mixers of one's own.
"""
import ctypes
import sys

import moebius
from moebius import (CHOICES, DOUBLE, INT, LONG, PAIR, POINTER, TENSOR, TRUTH, Tensor, filled, handle_or_none, handles_at,
                     structure)

OF = moebius.STRUCTURES
CHOICES.update({
    "learner": ("MB_LEARNER", "linear mlp".split()),
    "inner_rule": ("MB_INNER", "sgd momentum adam".split()),
    **{name: ("MB", "auto off on".split()) for name in ("decoder_norm", "learned_start", "encoder_bias", "scan")},
    "mb_mixer_options.kind": ("MB_MIXER", "softmax linear adaptive ttt".split()),
    "positions": ("MB_POSITIONS", "learned sincos2d none".split()),
    "cell": ("MB_CELL", "gru lstm".split()),
    "scores": ("MB_SCORES", "linear softmax softmax_masked".split()),
    "rule": ("MB_MEMORY", "linear gated delta gated_delta mesa mesanet".split()),
})


def tensors(name, *names, **fields):
    return structure(name, **{field: TENSOR for field in names}, **fields)


LINEAR = tensors("mb_linear", "weight", "bias")
NORM = tensors("mb_layer_norm", "scale", "bias", eps=DOUBLE)
ATTENTION = structure("mb_attention_options", dim=LONG, heads=LONG, kind=INT, causal=TRUTH, scale=DOUBLE, no_bias=TRUTH,
                      chunk=LONG)
RECURRENT = structure("mb_recurrent_options", cell=INT, **{"in": LONG}, hidden=LONG, backwards=TRUTH, keep_every=LONG)
MESA = structure("mb_mesa_options", keep_every=LONG, reversible=TRUTH, normalize=TRUTH, chunk=LONG)
MESANET = structure("mb_mesanet_options", steps=LONG, tolerance=DOUBLE, unrolled=TRUTH, beta=TENSOR, chunk=LONG,
                    keep_every=LONG)
MEMORY = structure("mb_memory_options", rule=INT, dim=LONG, heads=LONG, key=LONG, conv=LONG, chunk=LONG, keep_every=LONG,
                   mesa=MESA, mesanet=MESANET)
EQUILIBRIUM = structure("mb_equilibrium_options", **{"in": LONG}, hidden=LONG, tanh=TRUTH, monotone=DOUBLE,
                        solve=OF["mb_implicit_options"])
LEARNER = structure("mb_learner", apply=POINTER, user=POINTER, weights=POINTER, n=INT)
TTT = structure("mb_ttt_options", dim=LONG, heads=LONG, learner=INT, custom=LEARNER, inner_steps=INT, inner_batch=LONG,
                inner_lr=POINTER, inner_rule=INT, inner_momentum=DOUBLE, inner_adam=OF["mb_adam_options"], decoder_norm=INT,
                learned_start=INT, encoder_bias=INT, scan=INT, keep_every=LONG, first_order=TRUTH)
MIXER = structure("mb_mixer_options", kind=INT, heads=LONG, causal=TRUTH, ttt=TTT, make=POINTER, user=POINTER)
CONV = OF["mb_conv_options"]
INIT = OF["mb_init"]
TRANSFORMER = structure("mb_linear_transformer_options", dim=LONG, outputs=LONG, layers=LONG, heads=LONG, tied=TRUTH,
                        sparse=TRUTH, unmasked=TRUTH, scores=INT, scale=DOUBLE, clip=DOUBLE, init=INIT)
SELF_ATTENTION = structure("mb_self_attention_options", dim=LONG, outputs=LONG, layers=LONG, heads=LONG, key=LONG, tied=TRUTH,
                           unmasked=TRUTH, scores=INT, clip=DOUBLE, init=INIT)
STRUCTURES = {s.__name__: s for s in (
    LINEAR, NORM, ATTENTION, RECURRENT, MESA, MESANET, MEMORY, EQUILIBRIUM, LEARNER, TTT, MIXER, TRANSFORMER, SELF_ATTENTION,
    tensors("mb_linear_transformer", "P", "Q", options=TRANSFORMER),
    tensors("mb_self_attention", "query", "key", "value", "projection", options=SELF_ATTENTION),
    structure("mb_linear_options", no_bias=TRUTH, weight=INIT, bias=INIT),
    tensors("mb_embedding", "weight"),
    tensors("mb_rms_norm", "scale", eps=DOUBLE),
    structure("mb_attention", qkv=LINEAR, out=LINEAR, options=ATTENTION),
    structure("mb_mlp", up=LINEAR, down=LINEAR),
    tensors("mb_conv", "weight", "bias", options=CONV),
    structure("mb_conv_layer_options", **{"in": LONG}, out=LONG, size=PAIR, conv=CONV, no_bias=TRUTH, weight=INIT, bias=INIT),
    tensors("mb_batch_norm", "scale", "bias", "mean", "variance", eps=DOUBLE, momentum=DOUBLE),
    tensors("mb_group_norm", "scale", "bias", groups=LONG, eps=DOUBLE),
    structure("mb_recurrent", options=RECURRENT, input=TENSOR, hidden=TENSOR, input_bias=TENSOR, hidden_bias=TENSOR),
    tensors("mb_recurrent_state", "h", "c"),
    structure("mb_gated_attention_options", chunk=LONG, keep_every=LONG, beta=TENSOR),
    structure("mb_memory", options=MEMORY, **{field: TENSOR for field in """query key value out conv forget forget_bias beta
              beta_bias ridge scale""".split()}),
    structure("mb_equilibrium", options=EQUILIBRIUM, input=TENSOR, bias=TENSOR, a=TENSOR, b=TENSOR),
    structure("mb_vit_options", tokens=LONG, patch_values=LONG, dim=LONG, depth=LONG, hidden=LONG, classes=LONG, mixer=MIXER,
              positions=INT, positions_init=INIT, rows=LONG, pre_logits=TRUTH, head_init=INIT, checkpoint=TRUTH),
    tensors("mb_vit_masks", "seen", "tokens"),
)}
DECLARATIONS = """
mb_linear mb_linear_new_with_at(const char *, mb_params *, const char *, int64_t, int64_t, mb_linear_options)
mb_tensor mb_linear_apply_at(const char *, mb_linear, mb_tensor)
mb_embedding mb_embedding_new_at(const char *, mb_params *, const char *, int64_t, int64_t)
mb_tensor mb_embedding_apply_at(const char *, mb_embedding, mb_tensor)
mb_layer_norm mb_layer_norm_new_at(const char *, mb_params *, const char *, int64_t)
mb_tensor mb_layer_norm_apply_at(const char *, mb_layer_norm, mb_tensor)
mb_rms_norm mb_rms_norm_new_at(const char *, mb_params *, const char *, int64_t)
mb_tensor mb_rms_norm_apply_at(const char *, mb_rms_norm, mb_tensor)
mb_attention mb_attention_new_at(const char *, mb_params *, const char *, mb_attention_options)
mb_tensor mb_attention_apply_with_at(const char *, mb_attention, mb_tensor, mb_tensor)
mb_mlp mb_mlp_new_at(const char *, mb_params *, const char *, int64_t, int64_t)
mb_tensor mb_mlp_apply_at(const char *, mb_mlp, mb_tensor)
mb_conv mb_conv2d_new_at(const char *, mb_params *, const char *, mb_conv_layer_options)
mb_tensor mb_conv2d_apply_at(const char *, mb_conv, mb_tensor)
mb_batch_norm mb_batch_norm_new_at(const char *, mb_params *, const char *, int64_t)
mb_tensor mb_batch_norm_apply_at(const char *, mb_batch_norm, mb_tensor, int, bool)
mb_group_norm mb_group_norm_new_at(const char *, mb_params *, const char *, int64_t, int64_t)
mb_tensor mb_group_norm_apply_at(const char *, mb_group_norm, mb_tensor, int)
mb_recurrent mb_recurrent_new_at(const char *, mb_params *, const char *, mb_recurrent_options)
mb_tensor mb_recurrent_apply_at(const char *, mb_recurrent, mb_tensor, mb_recurrent_state *)
mb_memory mb_memory_new_at(const char *, mb_params *, const char *, mb_memory_options)
mb_tensor mb_memory_apply_at(const char *, mb_memory, mb_tensor)
mb_equilibrium mb_equilibrium_new_at(const char *, mb_params *, const char *, mb_equilibrium_options)
mb_tensor mb_equilibrium_apply_at(const char *, mb_equilibrium, mb_tensor, mb_convergence *)
mb_tensor mb_prompt_tokens_at(const char *, mb_tensor, mb_tensor)
mb_linear_transformer mb_linear_transformer_new_at(const char *, mb_params *, const char *, mb_linear_transformer_options)
mb_linear_transformer mb_linear_transformer_view_at(const char *, mb_tensor, mb_linear_transformer_options)
int64_t mb_linear_transformer_size(const mb_linear_transformer_options *)
mb_tensor mb_linear_transformer_apply_at(const char *, mb_linear_transformer, mb_tensor)
mb_tensor mb_linear_transformer_predict_at(const char *, mb_linear_transformer, mb_tensor)
mb_self_attention mb_self_attention_new_at(const char *, mb_params *, const char *, mb_self_attention_options)
mb_self_attention mb_self_attention_gd_at(const char *, mb_tensor, mb_tensor, mb_tensor, int64_t, mb_self_attention_options)
mb_linear_transformer mb_self_attention_products_at(const char *, mb_self_attention)
mb_tensor mb_self_attention_apply_at(const char *, mb_self_attention, mb_tensor)
mb_tensor mb_self_attention_predict_at(const char *, mb_self_attention, mb_tensor)
mb_ttt *mb_ttt_new_at(const char *, mb_params *, const char *, mb_ttt_options)
mb_tensor mb_ttt_apply_at(const char *, const mb_ttt *, mb_tensor, mb_key, mb_tensor *)
int mb_ttt_inner_steps(const mb_ttt *)
void mb_ttt_set_inner_lr(mb_ttt *, int, double)
mb_vit *mb_vit_new_at(const char *, mb_params *, const char *, mb_vit_options)
mb_tensor mb_vit_apply_with_at(const char *, const mb_vit *, mb_tensor, mb_vit_masks, mb_key, mb_tensor *)
int mb_vit_losses(const mb_vit *)
int mb_vit_depth(const mb_vit *)
""".strip().splitlines()
DECLARATIONS += ["mb_tensor mb_gated_attention_at(const char *, mb_tensor, mb_tensor, mb_tensor, mb_tensor, "
                 "mb_gated_attention_options, mb_tensor *)"]

moebius.INSIDE.add(sys._getframe().f_code.co_filename)
library = None  # moebius.py's, with these functions


def load(path=None):
    """The library of moebius.load, which the first layer loads."""
    global library
    if library is None:
        library = moebius.declare(moebius.load(path), DECLARATIONS, {**moebius.TYPES, **STRUCTURES})
    return library


class Layer:
    """What C makes of a name and sizes or options, and applies to tensors."""

    def __init__(self, params, kind, name, *arguments, new="new"):
        self.context, self._kind = params.context, kind
        made = getattr(load(), f"mb_{kind}_{new}_at")(self.context.site(), params.pointer, name.encode(), *arguments)
        self.struct = self.context.checked(made)

    @classmethod
    def _of(cls, context, kind, struct):
        """One that is made of tensors."""
        layer = cls.__new__(cls)
        layer.context, layer._kind, layer.struct = context, kind, context.checked(struct)
        return layer

    def __getattr__(self, name):
        """A tensor of the struct, None where it has none; or what else is there."""
        if name == "struct":
            raise AttributeError(name)
        value = getattr(self.struct, name)
        if isinstance(value, TENSOR):
            return Tensor(self.context, TENSOR.from_buffer_copy(value)) if value.ctx else None
        return value

    def __call__(self, x):
        return self._apply(x)

    def _apply(self, *arguments, how="apply"):
        return self.context.record(f"{self._kind}_{how}", self.struct, *arguments)

    def _apply_telling(self, number, give, *arguments, how="apply"):
        """With the inner losses, of which there are so many, where they are asked for."""
        losses = (TENSOR * number)()
        result = self._apply(*arguments, losses if give else None, how=how)
        return (result, handles_at(self.context, ctypes.addressof(losses), number)) if give else result


class Linear(Layer):
    """x [..., in] -> [..., out]: x weight^T + bias. no_bias=True, weight=init(...), bias=init(...)"""

    def __init__(self, params, name, inputs, outputs, **options):
        options = filled(STRUCTURES["mb_linear_options"], options)
        super().__init__(params, "linear", name, inputs, outputs, options, new="new_with")


class Embedding(Layer):
    """ids [...] -> [..., dim]: rows of weight."""

    def __init__(self, params, name, vocabulary, dim):
        super().__init__(params, "embedding", name, vocabulary, dim)


class LayerNorm(Layer):
    """Over the last axis, with scale and bias."""

    def __init__(self, params, name, dim):
        super().__init__(params, "layer_norm", name, dim)


class RmsNorm(Layer):
    """Over the last axis, with scale."""

    def __init__(self, params, name, dim):
        super().__init__(params, "rms_norm", name, dim)


class Attention(Layer):
    """x [B, N, dim] -> the same; mask: bool, true where a query may see a key. kind="linear", causal=True, ..."""

    def __init__(self, params, name, dim, heads, **options):
        super().__init__(params, "attention", name, filled(ATTENTION, {"dim": dim, "heads": heads, **options}))

    def __call__(self, x, mask=None):
        return self._apply(x, handle_or_none(mask), how="apply_with")


class Mlp(Layer):
    """x [..., dim] -> hidden -> [..., dim] with gelu between."""

    def __init__(self, params, name, dim, hidden):
        super().__init__(params, "mlp", name, dim, hidden)


class Conv2d(Layer):
    """x [N, in, H, W] -> [N, out, H', W']. Options of mb_conv_options: stride=2, padding=(1, 1), ...; initial values."""

    def __init__(self, params, name, inputs, outputs, size, no_bias=False, weight=None, bias=None, **options):
        layer = {"in": inputs, "out": outputs, "size": size, "no_bias": no_bias, "weight": weight, "bias": bias}
        super().__init__(params, "conv2d", name, filled(STRUCTURES["mb_conv_layer_options"], {**layer, "conv": options}))


class BatchNorm(Layer):
    """Over all axes but that of the channels; in training by the batch, whose mean and variance the running ones follow."""

    def __init__(self, params, name, channels):
        super().__init__(params, "batch_norm", name, channels)

    def __call__(self, x, channels=1, training=True):
        return self._apply(x, channels, training)


class GroupNorm(Layer):
    """Of each example, over groups of channels."""

    def __init__(self, params, name, channels, groups):
        super().__init__(params, "group_norm", name, channels, groups)

    def __call__(self, x, channels=1):
        return self._apply(x, channels)


class Recurrent(Layer):
    """x [B, N, in] -> [B, N, hidden], and the last state (h, c), which may be given to begin with. cell="gru" or "lstm"."""

    def __init__(self, params, name, inputs, hidden, **options):
        super().__init__(params, "recurrent", name, filled(RECURRENT, {"in": inputs, "hidden": hidden, **options}))

    def __call__(self, x, state=(None, None)):
        last = STRUCTURES["mb_recurrent_state"](*map(handle_or_none, state))
        return self._apply(x, ctypes.byref(last)), tuple(handles_at(self.context, ctypes.addressof(last), 2))


class Memory(Layer):
    """x [B, N, dim] -> the same: MesaNet's block. rule="linear", "gated", "delta", "gated_delta", "mesa" or "mesanet"."""

    def __init__(self, params, name, dim, heads, **options):
        super().__init__(params, "memory", name, filled(MEMORY, {"dim": dim, "heads": heads, **options}))


class Equilibrium(Layer):
    """x [..., in] -> [..., hidden], a fixed point; converged says of which rows of the last call. solve={...}"""

    def __init__(self, params, name, inputs, hidden, **options):
        self.converged = None
        super().__init__(params, "equilibrium", name, filled(EQUILIBRIUM, {"in": inputs, "hidden": hidden, **options}))

    def __call__(self, x):
        told = OF["mb_convergence"]()
        result = self._apply(x, ctypes.byref(told))
        self.converged = Tensor(self.context, told.converged)
        return result


def rates(numbers):
    """As C wants them: of the inner steps."""
    return (DOUBLE * len(numbers))(*numbers)


class Ttt(Layer):
    """x [B, N, dim] -> the same, by learners that are trained at test time: learner="linear" or "mlp", inner_steps=2,
    inner_lr=[...], a rate for each. With losses=True also the inner losses, of each step and the last weights."""

    def __init__(self, params, name, dim, heads, inner_lr=None, **options):
        held = inner_lr and rates(inner_lr)
        options = filled(TTT, {"dim": dim, "heads": heads, **options})
        if held and len(held) != options.inner_steps:
            raise ValueError(f"ttt: {len(held)} rates for {options.inner_steps} steps")
        options.inner_lr = held and ctypes.cast(held, POINTER)
        super().__init__(params, "ttt", name, options)

    def __call__(self, x, key=moebius.KEY(), losses=False):
        return self._apply_telling(library.mb_ttt_inner_steps(self.struct) + 1, losses, x, key)

    def set_inner_lr(self, step, rate):
        """From the next call on."""
        library.mb_ttt_set_inner_lr(self.struct, step, rate)
        self.context.check()


class Vit(Layer):
    """patches [B, tokens, patch_values] -> logits [B, classes]: Vit(params, "", tokens=49, patch_values=16, dim=64, depth=3,
    classes=10, mixer={"kind": "ttt", "heads": 4, "ttt": {"learner": "mlp", "inner_steps": 1}}). seen and tokens are masks.
    With losses=True also the inner losses, block by block."""

    def __init__(self, params, name, **options):
        super().__init__(params, "vit", name, filled(STRUCTURES["mb_vit_options"], options))

    def __call__(self, patches, key=moebius.KEY(), seen=None, tokens=None, losses=False):
        masks = STRUCTURES["mb_vit_masks"](handle_or_none(seen), handle_or_none(tokens))
        number = library.mb_vit_depth(self.struct) * library.mb_vit_losses(self.struct)
        return self._apply_telling(number, losses, patches, masks, key, how="apply_with")


def prompt_tokens(x, y):
    """Pairs of a prompt, and the query as the last of x [B, n + 1, d], y [B, n] or [B, n, e] -> tokens [B, n + 1, d + e]."""
    load()
    return x.context.record("prompt_tokens", x, y)


class Prompted(Layer):
    """tokens [B, n + 1, m] -> the same after the last layer; predict gives the query's outputs alone, [B, e]."""

    def predict(self, z):
        return self._apply(z, how="predict")


class LinearTransformer(Prompted):
    """Of attention alone, in whose layers tokens z become z + c sum P S Q z: LinearTransformer(params, "t", dim=5, layers=2)."""

    def __init__(self, params, name, **options):
        super().__init__(params, "linear_transformer", name, filled(TRANSFORMER, options))

    @classmethod
    def view(cls, theta, **options):
        """Whose P and Q are views of theta [size(**options)]."""
        made = load().mb_linear_transformer_view_at(theta.context.site(), theta.handle, filled(TRANSFORMER, options))
        return cls._of(theta.context, "linear_transformer", made)

    @staticmethod
    def size(**options):
        """The number of scalars in P and Q together."""
        return load().mb_linear_transformer_size(ctypes.byref(filled(TRANSFORMER, options)))


class SelfAttention(Prompted):
    """The same by keys, queries, values and projections."""

    def __init__(self, params, name, **options):
        super().__init__(params, "self_attention", name, filled(SELF_ATTENTION, options))

    @classmethod
    def gd(cls, eta, n, gamma=None, start=None, **options):
        """Whose layers are steps of gradient descent of rate eta on the n pairs of a prompt; with gamma, GD++."""
        made = load().mb_self_attention_gd_at(eta.context.site(), eta.handle, handle_or_none(gamma), handle_or_none(start), n,
                                              filled(SELF_ATTENTION, options))
        return cls._of(eta.context, "self_attention", made)

    def products(self):
        """The equal linear transformer."""
        made = library.mb_self_attention_products_at(self.context.site(), self.struct)
        return LinearTransformer._of(self.context, "linear_transformer", made)


def gated_attention(q, k, v, log_decay=None, **options):
    """Gated linear attention, or with beta=... the delta rule; q, k [B, H, N, dk], v [B, H, N, dv] -> [B, H, N, dv] and the
    last state."""
    mb, last = q.context, TENSOR()
    load()
    options = filled(STRUCTURES["mb_gated_attention_options"], options)
    o = mb.record("gated_attention", q, k, v, handle_or_none(log_decay), options, ctypes.byref(last))
    return o, Tensor(mb, last)
