#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""examples/hyper beside the same in PyTorch, in turn, on the machine as it is now, on one thread.

  hyper.py BUILD/examples/hyper [--steps 3000] [--rounds 3] [--skip-unrolled]

Microseconds a step of training for a loss and its derivatives, the median of the rounds, and how much memory that took
beyond what was there before: of the program by its own count, of PyTorch by the process's resident size. PyTorch keeps
every step (create_graph), as the plain loop on the tape does. Without PyTorch (Debian: python3-torch) it is left out."""
import argparse
import math
import os
import resource
import statistics
import subprocess
import sys
import time

PYTHON = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
HIDDEN, POINTS, START = 40, 64, (0.01, 0.9, 1e-4)


def torch_run(steps):
    """Prints microseconds a step, and MB."""
    import torch
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    h = [torch.tensor(v, requires_grad=True) for v in START]
    x = 1.2 * torch.randn(2, POINTS, 1)
    y = torch.sin(3 * x) + 0.2 * torch.randn(2, POINTS, 1)
    first = []
    for inputs, outputs in ((1, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, 1)):
        bound = math.sqrt(6 / (inputs + outputs))
        first += [torch.empty(inputs, outputs).uniform_(-bound, bound), torch.zeros(outputs)]

    def error(w, i):
        z = torch.tanh(torch.tanh(x[i] @ w[0] + w[1]) @ w[2] + w[3]) @ w[4] + w[5]
        return (z - y[i]).square().mean()

    def train(steps):
        w = [t.clone().requires_grad_() for t in first]
        v = [torch.zeros_like(t) for t in w]
        for _ in range(steps):
            g = torch.autograd.grad(error(w, 0), w, create_graph=True)
            v = [h[1] * a + b + h[2] * c for a, b, c in zip(v, g, w)]
            w = [c - h[0] * a for a, c in zip(v, w)]
        return torch.autograd.grad(error(w, 1), h)

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    sys.setrecursionlimit(10 ** 6)
    train(2)
    before, begun = peak(), time.perf_counter()
    train(steps)
    print(1e6 * (time.perf_counter() - begun) / steps, (peak() - before) * 1.048576)


def measure(command):
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "MB_THREADS": "1"})
    if done.returncode:
        sys.exit(f"{command}: status {done.returncode}: {done.stderr[-500:]}")
    return [float(x) for x in done.stdout.split()[-2:]]


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("program")
    p.add_argument("--steps", type=int, default=3000)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--skip-unrolled", action="store_true")
    p.add_argument("--torch", action="store_true", help="only PyTorch's part, in this process")
    a = p.parse_args()
    if a.torch:
        torch_run(a.steps)
        return
    ways = {mode: [a.program, str(a.steps), mode] for mode in ("reverse", "forward", "unrolled")}
    if a.skip_unrolled:
        del ways["unrolled"]
    if subprocess.run([PYTHON, "-c", "import torch"], capture_output=True).returncode == 0:
        ways["PyTorch"] = [PYTHON, os.path.abspath(__file__), a.program, "--torch", "--steps", str(a.steps)]
    results = {way: [] for way in ways}
    for _ in range(a.rounds):
        for way, command in ways.items():
            results[way].append(measure(command))
    print(f"{a.steps} steps{'':10}us a step    MB more")
    for way, rounds in results.items():
        print(f"{way:20}{statistics.median(r[0] for r in rounds):11.1f}{max(r[1] for r in rounds):11.2f}")


if __name__ == "__main__":
    main()
