# SPDX-License-Identifier: MIT
"""The vision transformer of examples/mttt.c once more, in plain Python and double precision, from a checkpoint's
parameters: logits, loss and inner losses. Inner gradients are written out by hand; nothing is shared with the library.
Without inner batches, whose tokens are drawn."""
from math import cos, exp, log, pi, pow, sin, sqrt, tanh


# ---- matrices are lists of rows ----

def product(a, b):
    columns = list(zip(*b))
    return [[sum(x * y for x, y in zip(row, column)) for column in columns] for row in a]


def transposed(a):
    return [list(column) for column in zip(*a)]


def plus(a, b, scale=1.0):
    return [[x + scale * y for x, y in zip(p, q)] for p, q in zip(a, b)]


def plus_row(a, row):
    return [[x + y for x, y in zip(p, row)] for p in a]


def mapped(f, a):
    return [[f(x) for x in row] for row in a]


def times(a, b):
    return [[x * y for x, y in zip(p, q)] for p, q in zip(a, b)]


def column_sums(a):
    return [sum(column) for column in zip(*a)]


def dense(x, weight, bias):
    """weight [out, in]"""
    return plus_row(product(x, transposed(weight)), bias)


# ---- functions ----

ROOT = sqrt(2 / pi)


def gelu(x):
    return 0.5 * x * (1 + tanh(ROOT * (x + 0.044715 * x ** 3)))


def gelu_slope(x):
    t = tanh(ROOT * (x + 0.044715 * x ** 3))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * ROOT * (1 + 3 * 0.044715 * x * x)


def elu_plus_one(x):
    return x + 1 if x > 0 else exp(x)


def standardised(row):
    mean = sum(row) / len(row)
    scale = 1 / sqrt(sum((v - mean) ** 2 for v in row) / len(row) + 1e-6)
    return [(v - mean) * scale for v in row], scale


def layer_norm(x, scale, bias):
    return [[s * v + b for v, s, b in zip(standardised(row)[0], scale, bias)] for row in x]


def layer_norm_back(x, scale, d):
    """The gradient by x, from that by the result."""
    out = []
    for row, back in zip(x, d):
        y, factor = standardised(row)
        e = [s * v for s, v in zip(scale, back)]
        mean, slope = sum(e) / len(e), sum(p * q for p, q in zip(e, y)) / len(e)
        out.append([factor * (p - mean - q * slope) for p, q in zip(e, y)])
    return out


def softmax(row):
    top = max(row)
    e = [exp(v - top) for v in row]
    return [v / sum(e) for v in e]


def cross_entropy(logits, label):
    top = max(logits)
    return log(sum(exp(v - top) for v in logits)) + top - logits[label]


# ---- learners of one head, on one image: (answer(W, x), gradient(W, x, back)) ----

def mlp_answer(w, x):
    hidden = plus_row(product(x, w["W1"]), w["b1"])
    return plus_row(product(mapped(gelu, hidden), w["W2"]), w["b2"])


def mlp_gradient(w, x, back):
    hidden = plus_row(product(x, w["W1"]), w["b1"])
    d = times(product(back, transposed(w["W2"])), mapped(gelu_slope, hidden))
    return {"W1": product(transposed(x), d), "b1": column_sums(d),
            "W2": product(transposed(mapped(gelu, hidden)), back), "b2": column_sums(back)}


def linear_answer(w, x):
    return product(x, w["W1"])


def linear_gradient(w, x, back):
    return {"W1": product(transposed(x), back)}


class Model:
    """settings: the values of config.json."""

    def __init__(self, checkpoint, settings):
        self.s, self.w = settings, {n: checkpoint.tensor(n) for n in checkpoint.parameters()}

    def weight(self, *name):
        return self.w[".".join(["vit", *map(str, name)])]

    # ---- mixers: x [N][D] -> [N][D] ----

    def attention(self, block, x):
        heads, dim = self.s["heads"], self.s["dim"]
        dh, n = dim // heads, len(x)
        qkv = dense(x, self.weight("blocks", block, "attention.qkv.weight"),
                    self.weight("blocks", block, "attention.qkv.bias"))
        rows = [[] for _ in x]
        for h in range(heads):
            q, k, v = ([row[part * dim + h * dh:part * dim + (h + 1) * dh] for row in qkv] for part in range(3))
            adaptive = self.s["learner"] == "adaptive-attention"
            if adaptive:
                q, k = mapped(elu_plus_one, q), mapped(elu_plus_one, k)
            scores = product(q, transposed(k))
            if self.s["learner"] == "softmax":
                scores = [softmax([value / sqrt(dh) for value in row]) for row in scores]
            elif adaptive:
                scores = [[value / sum(row) for value in row] for row in scores]
            else:
                scores = mapped(lambda value: value / (n * dh), scores)
            for row, more in zip(rows, product(scores, v)):
                row.extend(more)
        return dense(rows, self.weight("blocks", block, "attention.out.weight"),
                     self.weight("blocks", block, "attention.out.bias"))

    def kernel(self, block, x):
        """Nadaraya and Watson's estimator, a weighted mean of the values, by its definition."""
        heads, dh = self.s["heads"], self.s["dim"] // self.s["heads"]
        q, k, z, = (dense(x, self.weight("blocks", block, f"kernel.{n}.weight"), self.weight("blocks", block, f"kernel.{n}.bias"))
                    for n in ("query", "key", "value"))
        rows = [[] for _ in x]
        for h in range(heads):
            part = slice(h * dh, h * dh + dh)
            for row, query in zip(rows, q):
                weights = [exp(sum(a * b for a, b in zip(query[part], key[part]))) for key in k]
                row.extend(sum(w * value[h * dh + e] for w, value in zip(weights, z)) / sum(weights) for e in range(dh))
        return dense(rows, self.weight("blocks", block, "kernel.out.weight"), self.weight("blocks", block, "kernel.out.bias"))

    def start(self, block, h):
        """W_0 of one head: parameters, or zeros where there are none."""
        dh = self.s["dim"] // self.s["heads"]
        shapes = {"W1": (dh, 4 * dh), "b1": (4 * dh,), "W2": (4 * dh, dh), "b2": (dh,)}
        if self.s["learner"] == "linear":
            shapes = {"W1": (dh, dh)}
        if f"vit.blocks.{block}.ttt.W1" in self.w:
            return {k: self.weight("blocks", block, "ttt", k)[h] for k in shapes}
        return {k: [[0.0] * s[1] for _ in range(s[0])] if len(s) > 1 else [0.0] * s[0] for k, s in shapes.items()}

    def head(self, block, h, x):
        """One head's learner on one image, trained: its share of the result, and its losses."""
        def own(name):
            return self.weight("blocks", block, "ttt", name)
        mlp = self.s["learner"] == "mlp"
        answer, gradient = (mlp_answer, mlp_gradient) if mlp else (linear_answer, linear_gradient)
        normed = f"vit.blocks.{block}.ttt.norm_scale" in self.w
        size = len(x) * (self.s["dim"] // self.s["heads"])
        phi = plus_row(product(x, own("phi_k")[h]), own("phi_b")[h])
        psi = plus_row(product(x, own("psi_k")[h]), own("psi_b")[h])
        w = self.start(block, h)
        losses = []
        for t in range(self.s["inner-steps"] + 1):
            decoded = plus_row(product(answer(w, phi), own("g_k")[h]), own("g_bias")[0])
            shown = layer_norm(decoded, own("norm_scale")[h], own("norm_bias")[h]) if normed else decoded
            error = plus(shown, x, -1)
            losses.append(sum(e * e for row in error for e in row) * 0.5 / size)
            if t == self.s["inner-steps"]:
                break
            back = mapped(lambda e: e / size, error)
            if normed:
                back = layer_norm_back(decoded, own("norm_scale")[h], back)
            g = gradient(w, phi, product(back, transposed(own("g_k")[h])))
            rate = self.s["inner-lr"]
            w = {k: plus(v, g[k], -rate) if isinstance(v[0], list) else [a - rate * b for a, b in zip(v, g[k])]
                 for k, v in w.items()}
        return product(answer(w, psi), own("h_k")[h]), losses

    def test_time_training(self, block, x, losses):
        out = [[0.0] * self.s["dim"] for _ in x]
        for h in range(self.s["heads"]):
            share, of_head = self.head(block, h, x)
            out = plus(out, share)
            losses[block] = [a + b for a, b in zip(losses[block], of_head)]
        return plus_row(out, self.weight("blocks", block, "ttt.h_bias")[0])

    def mixed(self, block, x, losses):
        if self.s["learner"] in ("mlp", "linear"):
            return self.test_time_training(block, x, losses)
        return self.kernel(block, x) if self.s["learner"] == "kernel" else self.attention(block, x)

    # ---- the whole ----

    def positions(self, rows):
        if self.s["positions"] == "learned":
            return self.weight("positions")
        quarter = self.s["dim"] // 4
        waves = [pow(10000, -i / (quarter - 1)) for i in range(quarter)]
        return [[f(at * wave) for at, f in ((x, sin), (x, cos), (y, sin), (y, cos)) for wave in waves]
                for y in range(rows) for x in range(rows)]

    def apply(self, image, side):
        """Logits of an image, a list of side x side values, and inner losses [depth][T + 1], summed over heads."""
        p = self.s["patch"]
        rows = side // p
        patches = [[image[(r * p + i) * side + c * p + j] for i in range(p) for j in range(p)]
                   for r in range(rows) for c in range(rows)]
        z = plus(dense(patches, self.weight("embed.weight"), self.weight("embed.bias")), self.positions(rows))
        losses = [[0.0] * (self.s["inner-steps"] + 1) for _ in range(self.s["depth"])]
        for b in range(self.s["depth"]):
            x = layer_norm(z, self.weight("blocks", b, "norm1.scale"), self.weight("blocks", b, "norm1.bias"))
            z = plus(z, self.mixed(b, x, losses))
            x = layer_norm(z, self.weight("blocks", b, "norm2.scale"), self.weight("blocks", b, "norm2.bias"))
            hidden = mapped(gelu, dense(x, self.weight("blocks", b, "mlp.up.weight"),
                                        self.weight("blocks", b, "mlp.up.bias")))
            z = plus(z, dense(hidden, self.weight("blocks", b, "mlp.down.weight"),
                              self.weight("blocks", b, "mlp.down.bias")))
        z = layer_norm(z, self.weight("norm.scale"), self.weight("norm.bias"))
        mean = [total / len(z) for total in column_sums(z)]
        return dense([mean], self.weight("head.weight"), self.weight("head.bias"))[0], losses

    def judge(self, images, which=None):
        """Of those images: each one's loss, whether its largest logit is its label, inner losses averaged."""
        each, right, inner = [], [], None
        which = range(len(images.labels)) if which is None else which
        for i in which:
            logits, losses = self.apply(images.normalised(i), images.side)
            each.append(cross_entropy(logits, images.labels[i]))
            right.append(max(range(len(logits)), key=lambda k: logits[k]) == images.labels[i])
            inner = losses if inner is None else [[a + b for a, b in zip(p, q)] for p, q in zip(inner, losses)]
        return each, right, [[v / len(each) for v in block] for block in inner]
