#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""examples/python/moebius_layers.py: what it declares, by a C compiler; each layer beside what its own parameters make of the
same ops. Exits 1 and says what is wrong if something is.

  python_layers.py LIBRARY COMPILER [ARGUMENT...]     the arguments with which COMPILER finds moebius.h
"""
import math
import sys

import python as plain  # beside this file: the same words
from python import equal, expect, failures, moebius, raises
from moebius import BOOL, FLOAT64, INT32
import moebius_layers as layers

tests = []


def test(function):
    tests.append(function)
    return function


def near(x, want):
    """Float64 of some hundred operations."""
    difference = (x - want).abs().max().item()
    if x.shape != want.shape or not difference < 1e-12:
        failures.append(f"line {sys._getframe(1).f_lineno}: {x.shape}, {want.shape}: {difference}")


def draw(mb, seed, *shape):
    return mb.normal(moebius.key(seed), shape, FLOAT64)


@test
def pointwise(mb, params):
    x = draw(mb, 1, 2, 3)
    linear = layers.Linear(params, "f", 3, 4, bias=moebius.init("full", 0.5))
    equal(linear.bias, [0.5] * 4)
    near(linear(x), x @ linear.weight.transpose() + 0.5)
    bare = layers.Linear(params, "g", 3, 4, no_bias=True)
    expect(bare.bias is None and params.names() == ["f.weight", "f.bias", "g.weight"], params.names())
    near(bare(x), x @ params["g.weight"].transpose())
    ids = mb.tensor([[2, 0]], INT32)
    near(layers.Embedding(params, "e", 3, 5)(ids), params["e.weight"].take(ids, 0))
    near(layers.LayerNorm(params, "n", 3)(x), x.layer_normalize())
    norm = layers.RmsNorm(params, "r", 3)
    norm.scale.assign(mb.tensor([1, 2, 3], FLOAT64))
    near(norm(x), x.rms_normalize(params["r.scale"]))
    mlp = layers.Mlp(params, "m", 3, 5)
    near(mlp(x), (x @ params["m.up.weight"].transpose() + params["m.up.bias"]).gelu() @ params["m.down.weight"].transpose()
         + params["m.down.bias"])
    equal(moebius.grad(linear(x).sum(), linear.bias), [2] * 4)
    raises(moebius.Error, "\"f.weight\"", lambda: layers.Linear(params, "f", 3, 4))
    mb.clear()
    raises(moebius.Error, "linear", lambda: linear(draw(mb, 2, 2, 4)))
    mb.clear()
    raises(TypeError, "no width", lambda: layers.Linear(params, "h", 3, 4, width=2))
    raises(AttributeError, "scale", lambda: linear.scale)


@test
def images(mb, params):
    x = draw(mb, 1, 2, 3, 5, 5)
    conv = layers.Conv2d(params, "c", 3, 4, 3, padding=1, stride=(2, 1))
    near(conv(x), x.conv2d(params["c.weight"], params["c.bias"], padding=1, stride=(2, 1)))
    expect(conv(x).shape == (2, 4, 3, 5) and params["c.weight"].shape == (4, 3, 3, 3), conv(x).shape)
    norm = layers.BatchNorm(params, "b", 3)
    with mb.scope():
        near(norm(x), x.batch_normalize())
    near(norm.mean, 0.1 * x.mean((0, 2, 3)))
    near(norm(x, training=False).mean((0, 2, 3)) * (norm.variance + 1e-5).sqrt(), 0.9 * x.mean((0, 2, 3)))
    near(layers.GroupNorm(params, "g", 3, 3)(x), x.group_normalize(3))


@test
def attention(mb, params):
    x = draw(mb, 1, 2, 4, 6)
    layer = layers.Attention(params, "a", 6, 2, causal=True)
    q, k, v = (x @ params["a.qkv.weight"].transpose() + params["a.qkv.bias"]).split([6, 6, 6])
    q, k, v = (t.reshape(2, 4, 2, 3) for t in (q, k, v))
    out = params["a.out.weight"].transpose(), params["a.out.bias"]
    near(layer(x), q.attend(k, v, causal=True).reshape(2, 4, 6) @ out[0] + out[1])
    first = mb.tensor([True, False, False, False], BOOL)
    near(layer(x, first), v[:, 0:1].broadcast(2, 4, 2, 3).reshape(2, 4, 6) @ out[0] + out[1])
    with mb.collect("*", 9) as told:
        layer(x)
    expect(len(told) == 7 and told[3].shape == (2, 2, 4, 4), [t.shape for t in told])
    near(told[4], (told[3] + mb.tril_mask(4, 4).cast(FLOAT64).log()).softmax())
    with mb.replace("output", [0 * x]):
        equal(layer(x).abs().sum(), 0)
    raises(ZeroDivisionError, "", lambda: divides(mb, layer, x))
    mb.clear()


def divides(mb, layer, x):
    """A tap's function, within a layer that C applies."""
    with mb.tap("scores", lambda name, x: 1 / 0):
        layer(x)


@test
def sequences(mb, params):
    x = draw(mb, 1, 2, 3, 4)
    layer = layers.Recurrent(params, "r", 4, 5)
    y, (h, c) = layer(x)
    near(h, y[:, 2])
    expect(c is None, c)
    _, state = layer(x[:, 0:1])
    near(layer(x[:, 1:3], state)[0], y[:, 1:3])
    u, v = (x[:, 0] @ layer.input.transpose() + layer.input_bias).split([5] * 3), layer.hidden_bias.split([5] * 3)
    r, z = (u[0] + v[0]).sigmoid(), (u[1] + v[1]).sigmoid()
    near(y[:, 0], (1 - z) * (u[2] + r * v[2]).tanh())
    long = layers.Recurrent(params, "l", 4, 5, cell="lstm")
    expect(long(x)[1][1].shape == (2, 5) and params["l.input"].shape == (20, 4), params["l.input"].shape)
    q, k, v = (draw(mb, i, 1, 1, 3, 2) for i in (2, 3, 4))
    o, last = layers.gated_attention(q, k, v)
    near(o, (q @ k.transpose()).tril() @ v)
    near(last, k.transpose() @ v)
    memory = layers.Memory(params, "m", 4, 2, rule="mesanet", mesanet={"steps": 2})
    near(memory(x)[:, 0:2], memory(x[:, 0:2]))
    expect(memory.ridge.shape == (2, 2) and memory.conv is None, memory.ridge.shape)
    fixed = layers.Equilibrium(params, "q", 4, 5, solve={"tolerance": 1e-13})
    z = fixed(x)
    w = -(fixed.a.transpose() @ fixed.a) + fixed.b - fixed.b.transpose()
    near(z, (z @ w.transpose() + x @ fixed.input.transpose() + fixed.bias).relu())
    expect(fixed.converged.tolist() == [True] * 6, fixed.converged.tolist())


@test
def test_time_training(mb, params):
    """One step from W = 0 with rate 1 is linear attention, of values x g^T."""
    x = draw(mb, 1, 2, 3, 4)
    layer = layers.Ttt(params, "t", 4, 2, inner_steps=1)
    y, losses = layer(x, losses=True)
    expect(len(losses) == 2 and losses[1].item() < losses[0].item(), losses)
    near(losses[0], x.square().sum() / (2 * 3 * 2) + 0 * losses[0])  # two heads; images are averaged, two of them
    phi, psi, g, h = (params["t." + name] for name in ("phi_k", "psi_k", "g_k", "h_k"))
    keys, queries = (moebius.einsum("bnd,hde->bhne", x, k) for k in (phi, psi))
    values = moebius.einsum("bnd,hed->bhne", x, g)
    heads = queries @ keys.transpose() @ values / (3 * 2)
    near(y, moebius.einsum("bhne,hed->bnd", heads, h))
    layer.set_inner_lr(0, 0.5)
    near(layer(x), 0.5 * y)
    near(layers.Ttt(params, "u", 4, 2, inner_steps=2, inner_lr=[0, 0])(x), 0 * y)
    raises(ValueError, "1 rates for 2 steps", lambda: layers.Ttt(params, "v", 4, 2, inner_steps=2, inner_lr=[1]))
    raises(ValueError, "'tree' is none of linear, mlp", lambda: layers.Ttt(params, "v", 4, 2, learner="tree"))


@test
def prompts(mb, params):
    """A step of descent from 0 on pairs (x_i, y_i) predicts eta / n sum_i y_i x_i^T x of the query x."""
    x, y = draw(mb, 1, 2, 4, 3), draw(mb, 2, 2, 3)
    z = layers.prompt_tokens(x, y)
    near(z[:, :, 0:3], x)
    equal(z[:, 3, 3], [0, 0])
    steps = layers.SelfAttention.gd(mb.scalar(0.5, FLOAT64), 3, dim=3, layers=1)
    step = (y.unsqueeze(1) @ (x[:, 0:3] @ x[:, 3].unsqueeze(-1))).reshape(2, 1) * (0.5 / 3)
    near(steps.predict(z), step)
    near(steps(z)[:, 3, 3:], -step)
    layer = layers.SelfAttention(params, "s", dim=3, layers=2, heads=2, init=moebius.init("normal", 0.3))
    near(layer.products()(z), layer(z))
    expect(layer.query.shape == (2, 2, 4, 4) and params["s.key"].shape == (2, 2, 4, 4), layer.query.shape)
    form = {"dim": 3, "layers": 2, "sparse": True}
    linear = layers.LinearTransformer(params, "t", init=moebius.init("normal", 0.3), **form)
    expect(layers.LinearTransformer.size(**form) == 36, layers.LinearTransformer.size(**form))
    view = layers.LinearTransformer.view(moebius.concat([linear.P.reshape(-1), linear.Q.reshape(-1)]), **form)
    near(view(z), linear(z))
    near(linear.predict(z), -linear(z)[:, 3, 3:])
    raises(moebius.Error, "linear_transformer", lambda: layers.LinearTransformer(params, "u", dim=0, layers=1))
    mb.clear()


@test
def transformers(mb, params):
    x = draw(mb, 1, 2, 4, 3)
    vit = layers.Vit(params, "", tokens=4, patch_values=3, dim=8, depth=2, classes=5, head_init=moebius.init("normal", 1),
                     mixer={"kind": "ttt", "heads": 2, "ttt": {"learner": "mlp", "inner_steps": 2}})
    y, losses = vit(x, losses=True)
    expect(y.shape == (2, 5) and len(losses) == 6 and losses[5].item() < losses[3].item(), y.shape, len(losses))
    with mb.collect("mean") as means:
        near(vit(x), y)
    near(means[0] @ params["head.weight"].transpose(), y)
    seen = layers.Vit(params, "s", tokens=4, patch_values=3, dim=8, depth=1, classes=5, head_init=moebius.init("normal", 1),
                      mixer={"kind": "softmax", "heads": 2}, positions="none")
    there = mb.tensor([[True, True, False, False]] * 2, BOOL)
    near(seen(x, tokens=there), seen(x[:, 0:2]))
    expect(abs(seen(x).sum().item() - seen(x[:, 0:2]).sum().item()) > 1e-6, "what is not there counts")
    optimizer = moebius.Optimizer("adam", params, lr=1e-2)

    def step():
        with mb.scope():
            loss = vit(x).cross_entropy(mb.tensor([1, 3], INT32))
            optimizer.step(loss)
            return loss.item()
    before = step()
    for _ in range(8):
        after = step()
    expect(math.isfinite(after) and after < before / 2, before, after)


def main(library, *compiler):
    moebius.load(library)
    layers.load()
    plain.check_declarations(compiler, "moebius.h", layers.DECLARATIONS, layers.STRUCTURES, moebius.CHOICES.values())
    for function in tests:
        with moebius.Context() as mb:
            try:
                function(mb, moebius.Params(mb, 1, FLOAT64))
                mb.check()
            except Exception as error:  # what is left of a test, not of all
                failures.append(f"{function.__name__}: {type(error).__name__}: {error}")
    print("\n".join(failures) or f"{len(tests)} tests, {len(layers.DECLARATIONS)} declarations")
    return bool(failures)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
