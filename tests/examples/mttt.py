# SPDX-License-Identifier: MIT
"""Small runs of examples/mttt: their images, flags and results."""
import json

import formats
from harness import expect, succeed

# 4 tokens of 16 pixels: plain Python can keep up.
SMALL = {"patch": 4, "dim": 8, "heads": 2, "depth": 1, "batch": 10, "lr": 0.01, "warmup": 5, "epochs": 1, "threads": 1,
         "log-every": 1}
LEARNERS = ("mlp", "linear", "kernel", "softmax", "linear-attention", "adaptive-attention")
TIMES = ("images_per_s", "elapsed_s")  # the only columns that differ from run to run


class Data:
    """Ten classes whose labels in the test are not those in training: who is good at one is bad at the other."""

    def __init__(self, folder, train=120, test=37, **more):
        self.folder = folder / "data"
        self.folder.mkdir(parents=True)
        self.train, self.test = formats.synthetic(train, 0, 1, **more), formats.synthetic(test, 3, 2, **more)
        self.train.write(self.folder, "train")
        self.test.write(self.folder, "test")

    def flags(self, out, **more):
        return {**SMALL, "data": self.folder, "out": out, **{k.replace("_", "-"): v for k, v in more.items()}}

    def train_to_end(self, out, **more):
        return Result(out, succeed("mttt", self.flags(out, **more)))


class Result:
    def __init__(self, folder, done=None):
        self.folder, self.done = folder, done
        self.config = json.loads((folder / "config.json").read_text())
        self.checkpoint = formats.Checkpoint(folder / "checkpoint.safetensors")
        rows = formats.table(folder / "metrics.csv")
        self.training = [r for r in rows if r["loss"] is not None]
        self.tests = [r for r in rows if r["test_loss"] is not None]
        expect(len(rows) == len(self.training) + len(self.tests), "a row is neither of training nor of a test")
        inner = folder / "inner_loss.csv"
        self.inner = formats.table(inner) if inner.exists() else []

    def losses(self):
        return [r["loss"] for r in self.training]

    def lasting(self):
        """Everything that is the same bits in each run of the same flags."""
        rows = [{k: v for k, v in r.items() if k not in TIMES} for r in self.training + self.tests]
        notes = {k: v for k, v in self.checkpoint.notes.items() if k not in ("seconds", "metrics_bytes")}
        return self.checkpoint.bits(), notes, rows, self.inner


def same(a, b):
    """Two results, bit by bit."""
    for what, x, y in zip(("tensors", "notes", "metrics.csv", "inner_loss.csv"), a.lasting(), b.lasting()):
        if isinstance(x, dict):
            differing = sorted(k for k in x.keys() | y.keys() if x.get(k) != y.get(k))
            expect(not differing, what, "differ in", differing[:4], *([x.get(differing[0]), y.get(differing[0])]
                                                                      if differing and what == "notes" else []))
        expect(len(x) == len(y), what, "have", len(x), "and", len(y), "rows")
        for p, q in zip(x, y):
            expect(p == q, what, "differ:", p, q)
