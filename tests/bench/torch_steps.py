#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The steps of steps.c in PyTorch: the same models, shapes, parameters and optimisers, float32.

Takes the flags of steps (but --backend) and prints the same kind of JSON line. Parameters carry the
library's names, so that --check can start both from the same closed-form values (see pattern); it then prints
the losses of the first steps. Runs on Debian's python3-torch; one step is what a PyTorch user would write who
knows about create_graph, batched products and functional inner loops.
"""
import argparse
import json
import math
import resource
import time

import torch
from torch.nn import functional as F

PATCH_VALUES, CLASSES, WARM_UP, CHECK_STEPS = 16, 10, 3, 3
MODELS = ["mttt-linear", "mttt-mlp", "linear-attention", "softmax-attention", "icl", "convnet"]
ICL = dict(d=5, pairs=20, layers=3, prompts=1000)


def flags():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("model", choices=MODELS)
    p.add_argument("--batch", type=int, default=64)
    p.add_argument("--tokens", type=int, default=49)
    p.add_argument("--dim", type=int, default=128)
    p.add_argument("--heads", type=int, default=2)
    p.add_argument("--depth", type=int, default=4)
    p.add_argument("--inner-steps", type=int, default=1)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--steps", type=int, default=20)
    p.add_argument("--forward-only", action="store_true")
    p.add_argument("--check", action="store_true")
    p.add_argument("--double", action="store_true")
    p.add_argument("--channels-last", action="store_true", help="convnet: as memory format")
    return p.parse_args()


def pattern(shape, tag, scale=1.0, base=0.0):
    i = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64)
    return (base + scale * torch.sin(0.7 * i + 1.3 * tag)).reshape(shape).to(torch.get_default_dtype())


class Parameters(dict):
    """name -> leaf tensor. A name's tag is the sum of its bytes."""

    def __init__(self, closed_form):
        super().__init__()
        self.closed_form = closed_form

    def make(self, name, shape, uniform=0.0, normal=0.0, constant=0.0):
        if self.closed_form:
            value = pattern(shape, sum(name.encode()), 0.1, 1.0 if "scale" in name else 0.0)
        elif uniform:
            value = torch.empty(shape).uniform_(-uniform, uniform)
        else:
            value = constant + normal * torch.randn(shape)
        self[name] = value.requires_grad_()

    def linear(self, name, inputs, outputs, bound=None, fan=None):
        bound = bound or math.sqrt(6 / (inputs + (fan or outputs)))
        self.make(name + ".weight", (outputs, inputs), uniform=bound)
        self.make(name + ".bias", (outputs,))

    def norm(self, name, dim):
        self.make(name + ".scale", (dim,), constant=1.0)
        self.make(name + ".bias", (dim,))


class Transformer:
    """Pre-norm vision transformer whose blocks mix tokens by self.mix."""

    def __init__(self, a):
        self.a, self.p = a, Parameters(a.check)
        D, p = a.dim, self.p
        self.dh = D // a.heads
        p.linear("embed", PATCH_VALUES, D, bound=math.sqrt(3 / PATCH_VALUES))
        p.make("positions", (a.tokens, D), normal=0.02)
        ttt = a.model.startswith("mttt")
        self.mix = self.test_time_training if ttt else self.attention
        for i in range(a.depth):
            b = f"blocks.{i}"
            p.norm(b + ".norm1", D)
            (self.make_ttt if ttt else self.make_attention)(b)
            p.norm(b + ".norm2", D)
            p.linear(b + ".mlp.up", D, 4 * D)
            p.linear(b + ".mlp.down", 4 * D, D)
        p.norm("norm", D)
        p.linear("head", D, CLASSES, bound=1 / math.sqrt(D))
        self.opt = torch.optim.AdamW(list(p.values()), lr=1e-3, weight_decay=1e-4)
        shape = (a.batch, a.tokens, PATCH_VALUES)
        self.x = pattern(shape, 0) if a.check else torch.randn(shape)
        self.y = (7 * torch.arange(a.batch) + 3) % CLASSES

    def dense(self, name, x):
        return F.linear(x, self.p[name + ".weight"], self.p[name + ".bias"])

    def normalize(self, name, x):
        return F.layer_norm(x, x.shape[-1:], self.p[name + ".scale"], self.p[name + ".bias"], 1e-6)

    # ---- attention

    def make_attention(self, block):
        D = self.a.dim
        self.p.linear(block + ".attention.qkv", D, 3 * D, fan=D)
        self.p.linear(block + ".attention.out", D, D)

    def attention(self, block, x):
        a = self.a
        qkv = self.dense(block + ".attention.qkv", x).view(a.batch, a.tokens, 3, a.heads, self.dh)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # [B,H,N,dh]
        if a.model == "linear-attention":
            y = torch.matmul(q, torch.matmul(k.mT, v) / (a.tokens * self.dh))
        else:
            y = torch.matmul(F.softmax(torch.matmul(q / math.sqrt(self.dh), k.mT), dim=-1), v)
        return self.dense(block + ".attention.out", y.transpose(1, 2).flatten(2))

    # ---- test-time training, Sun et al. 2310.13807

    def make_ttt(self, block):
        p, H, D, dh, name = self.p, self.a.heads, self.a.dim, self.dh, block + ".ttt."
        spread = math.sqrt(3 / D)
        for view in ("psi", "phi"):
            p.make(name + view + "_k", (H, D, dh), uniform=spread)
            p.make(name + view + "_b", (H, dh))
        for head in ("g", "h"):
            p.make(name + head + "_k", (H, dh, D), uniform=spread)
            p.make(name + head + "_bias", (1, D))
        if self.a.model == "mttt-mlp":
            xavier = math.sqrt(6 / (5 * dh))
            p.make(name + "W1", (H, dh, 4 * dh), uniform=xavier)
            p.make(name + "b1", (H, 4 * dh))
            p.make(name + "W2", (H, 4 * dh, dh), uniform=xavier)
            p.make(name + "b2", (H, dh))
            p.make(name + "norm_scale", (H, D), constant=1.0)
            p.make(name + "norm_bias", (H, D))

    def test_time_training(self, block, x):
        a, H, dh = self.a, self.a.heads, self.dh
        w = {k: self.p[f"{block}.ttt.{k}"] for k in
             ("psi_k", "psi_b", "phi_k", "phi_b", "g_k", "g_bias", "h_k", "h_bias")}
        tokens = x[:, None]  # [B,1,N,D]
        views = torch.matmul(tokens, w["phi_k"]) + w["phi_b"][:, None]
        if a.model == "mttt-mlp":
            start = [self.p[f"{block}.ttt.{k}"] for k in ("W1", "b1", "W2", "b2")]
            start = [t if t.dim() == 3 else t[:, None] for t in start]
            scale, shift = (self.p[f"{block}.ttt.norm_{k}"][:, None] for k in ("scale", "bias"))

            def learner(v, z):
                return torch.matmul(F.gelu(torch.matmul(z, v[0]) + v[1], approximate="tanh"), v[2]) + v[3]

            def decoder(e):
                r = torch.matmul(e, w["g_k"]) + w["g_bias"]
                return F.layer_norm(r, (a.dim,), None, None, 1e-6) * scale + shift
        else:
            start = [torch.zeros(H, dh, dh, requires_grad=True)]

            def learner(v, z):
                return torch.matmul(z, v[0])

            def decoder(e):
                return torch.matmul(e, w["g_k"]) + w["g_bias"]
        fast = [s.expand(a.batch, *s.shape) for s in start]  # a learner per image and head
        for _ in range(a.inner_steps):
            inner = (decoder(learner(fast, views)) - tokens).square().sum() * (0.5 / (a.tokens * dh))
            slopes = torch.autograd.grad(inner, fast, create_graph=True)
            fast = [v - s for v, s in zip(fast, slopes)]
        answers = learner(fast, torch.matmul(tokens, w["psi_k"]) + w["psi_b"][:, None])
        return torch.matmul(answers, w["h_k"]).sum(1) + w["h_bias"]

    def loss(self):
        z = self.dense("embed", self.x) + self.p["positions"]
        for i in range(self.a.depth):
            b = f"blocks.{i}"
            z = z + self.mix(b, self.normalize(b + ".norm1", z))
            hidden = F.gelu(self.dense(b + ".mlp.up", self.normalize(b + ".norm2", z)), approximate="tanh")
            z = z + self.dense(b + ".mlp.down", hidden)
        return F.cross_entropy(self.dense("head", self.normalize("norm", z).mean(1)), self.y)


class Convnet:
    """Two convolutions with batch norm and pools, and a linear layer: examples/convnet.c."""

    def __init__(self, a):
        self.check, p = a.check, Parameters(a.check)
        self.p = p
        for i, (inputs, outputs) in enumerate(((1, 32), (32, 64)), 1):
            bound = 1 / math.sqrt(9 * inputs)
            p.make(f"conv{i}.weight", (outputs, inputs, 3, 3), uniform=bound)
            p.make(f"conv{i}.bias", (outputs,), uniform=bound)
            p.norm(f"norm{i}", outputs)
        p.linear("head", 3136, CLASSES)
        self.running = [(torch.zeros(n), torch.ones(n)) for n in (32, 64)]
        self.opt = torch.optim.AdamW(list(p.values()), lr=1e-3, weight_decay=1e-4)
        self.x = pattern((a.batch, 1, 28, 28), 0) if a.check else torch.randn(a.batch, 1, 28, 28)
        if a.channels_last:
            self.x = self.x.contiguous(memory_format=torch.channels_last)
            for i in (1, 2):
                w = p[f"conv{i}.weight"]
                w.data = w.data.contiguous(memory_format=torch.channels_last)
        self.y = (7 * torch.arange(a.batch) + 3) % CLASSES

    def loss(self):
        p, z = self.p, self.x
        for i, (mean, variance) in enumerate(self.running, 1):
            z = F.conv2d(z, p[f"conv{i}.weight"], p[f"conv{i}.bias"], padding=1)
            z = F.batch_norm(z, mean, variance, p[f"norm{i}.scale"], p[f"norm{i}.bias"], True)
            z = F.max_pool2d(F.relu(z), 2)
        if self.check:
            z = z.permute(0, 2, 3, 1)
        z = F.dropout(z.flatten(1), 0.25, not self.check)
        return F.cross_entropy(F.linear(z, p["head.weight"], p["head.bias"]), self.y)


class InContext:
    """The linear transformer of Ahn et al. 2310.01082 on fresh prompts."""

    def __init__(self, a):
        self.check, d, L = a.check, ICL["d"], ICL["layers"]
        self.p = Parameters(a.check)
        self.p.make("P", (L, d, d), normal=0.05)
        self.p.make("Q", (L, d, d), normal=0.05)
        self.opt = torch.optim.Adam(list(self.p.values()), lr=0.02, betas=(0.9, 0.9))
        self.corner = torch.zeros(d + 1, d + 1)
        self.corner[d, d] = 1

    def loss(self):
        d, n, B = ICL["d"], ICL["pairs"], ICL["prompts"]
        if self.check:
            x, w = pattern((B, n + 1, d), 1), pattern((B, d, 1), 2)
        else:
            x, w = torch.randn(B, n + 1, d), torch.randn(B, d, 1)
        y = torch.matmul(x, w)
        z = torch.cat([x, F.pad(y[:, :n], (0, 0, 0, 1))], dim=2)  # rows are tokens
        for P, Q in zip(F.pad(self.p["P"], (0, 1, 0, 1)) + self.corner, F.pad(self.p["Q"], (0, 1, 0, 1)) / n):
            pairs = z[:, :n]
            M = torch.matmul(torch.matmul(P, torch.matmul(pairs.mT, pairs)), Q)
            z = z + torch.matmul(z, M.mT)
        return (z[:, n, d] + y[:, n, 0]).square().mean()


def main():
    a = flags()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    if a.double:
        torch.set_default_dtype(torch.float64)
    net = {"icl": InContext, "convnet": Convnet}.get(a.model, Transformer)(a)
    parameters = list(net.p.values())
    count = sum(t.numel() for t in parameters)

    def step():
        loss = net.loss()
        if not a.forward_only:
            net.opt.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            net.opt.step()
        return loss.item()

    if a.check:
        print(json.dumps(dict(model=a.model, params=count, losses=[step() for _ in range(CHECK_STEPS + 1)])))
        return
    ms = []
    for i in range(-WARM_UP, a.steps):
        begun = time.perf_counter()
        last = step()
        if i >= 0:
            ms.append(1e3 * (time.perf_counter() - begun))
    ms.sort()
    result = {k: getattr(a, k) for k in ("model", "threads", "batch", "tokens", "dim", "heads", "depth",
                                         "inner_steps", "forward_only")}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    result.update(torch=torch.__version__, params=count, median_ms=round(ms[len(ms) // 2], 3),
                  min_ms=round(ms[0], 3), peak_mb=peak, loss=round(last, 6))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
