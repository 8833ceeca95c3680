# SPDX-License-Identifier: MIT
"""examples/convnet: what it learns, and that its numbers do not depend on how they are computed."""
import csv

from harness import environment, expect, near, succeed, test


def convnet(folder, name, *more, **flags):
    """Rows of metrics.csv, and what was printed."""
    env = flags.pop("env", None)
    done = succeed("convnet", {"out": folder / name, "threads": 1, **flags}, more, env=env)
    with open(folder / name / "metrics.csv", encoding="utf-8") as table:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(table)], done.out


@test
def convnet_learns(folder):
    """In 3000 images what --check wants of a quick run; the table says the same."""
    rows, out = convnet(folder, "a", "--quick", "--check")
    expect(len(rows) == 1 and f"{rows[0]['test_accuracy']:.4g}" in out, rows, out)
    expect((folder / "a" / "parameters.safetensors").stat().st_size > 4 * 50378, "no parameters")


@test
def convnet_by_other_ways(folder):
    """Three steps of training are the same with nothing simplified and nothing fused, where folds are pads and sums; and a
    second time."""
    few = {"train_images": 192, "test_images": 64, "epochs": 1}
    first, again = convnet(folder, "a", **few)[0], convnet(folder, "b", **few)[0]
    other = convnet(folder, "c", env=environment(MB_DISABLE="simplify,fuse"), **few)[0]
    for key in ("train_loss", "test_loss"):
        expect(first[0][key] == again[0][key], "another run:", first, again)
        expect(near(first[0][key], other[0][key], 1e-4), "otherwise:", first, other)
    expect(convnet(folder, "d", seed=2, **few)[0][0]["train_loss"] != first[0]["train_loss"], "the seed does nothing")
