#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""examples/inner_loop.c in Python, by moebius.py: the same numbers. What they mean is told there."""
import moebius
from moebius import FLOAT64

TASKS, POINTS, INNER, OUTER = 16, 4, 2, 600


def task_loss(w, x, y):
    """w: [TASKS,2,1], x: [POINTS,2], y: [TASKS,POINTS,1] -> [TASKS]: a loss for each task."""
    return (x @ w - y).square().mean((1, 2)) * 0.5


def main():
    mb = moebius.Context()
    params = moebius.Params(mb, 1, FLOAT64)
    w0, rates = params.param("w0", (2, 1)), params.param("rates", INNER)
    rates.assign(mb.tensor([0.1, 0.2], FLOAT64))
    optimizer = moebius.Optimizer("adam", params, lr=0.02, schedule=moebius.schedule("warmup_cosine", 0, OUTER))

    for step in range(OUTER + 1):
        with mb.scope():
            x = mb.tensor([[2, 1], [2, -1], [-2, 1], [-2, -1]], FLOAT64)
            a = mb.normal(moebius.key(7, step), (TASKS, 2, 1), FLOAT64) + 3.0  # around (3,3)
            y = x @ a

            w = w0.broadcast(TASKS, 2, 1)
            before = task_loss(w, x, y).mean().item()
            for t in range(INNER):
                dw = moebius.grad(task_loss(w, x, y), w)  # of the sum over tasks: each task has its own w
                w = w - rates[t] * dw
            loss = task_loss(w, x, y).mean()
            if step % 100 == 0:
                print(f"outer step {step:3d}: loss {before:8.5f} before the inner steps, {loss.item():.3e} after")
            if step < OUTER:
                optimizer.step(loss)  # through both inner steps, to w0 and the rates

    learned, start = rates.read(), w0.reshape(-1).read()
    print(f"learned rates {learned[0]:.4f} {learned[1]:.4f}   (by hand: 0.25 and 1)")
    print(f"learned start {start[0]:.2f} {start[1]:.2f}")


if __name__ == "__main__":
    main()
