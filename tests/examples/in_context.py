# SPDX-License-Identifier: MIT
"""examples/linear_transformer, icl_gd, mesa and lcgd, from outside: their tables recomputed, and what they do with folders,
streams and Ctrl-C."""
import json
import math
import os
import random
import resource
import statistics
import struct

import formats
from harness import Held, environment, expect, near, refused, run, succeed, test

# Less than a second each.
FLAGS = {
    "linear_transformer": {"experiments": "1", "steps": 4, "seeds": 2, "prompts": 50, "noise": 40, "noise-seeds": 2,
                           "noise-reference": 5, "evaluate-every": 1, "smooth-every": 0, "condition-every": 0,
                           "threads": 1},
    "icl_gd": {"models": "one", "steps": 2, "gd-steps": 5, "seeds": 2, "batch": 32, "validation": 64, "every": 1,
               "threads": 1},
    "mesa": {"models": "mesa-1", "steps": 2, "solver-steps": 2, "seeds": 2, "batch": 8, "validation": 16, "every": 1,
             "shots": 3, "prefix": 2, "tune-steps": 2, "bare-steps": 2, "distil-steps": 2, "size-steps": 0,
             "threads": 1},
    "lcgd": {"layers": 1, "width": 4, "heads": 1, "classes": 2, "words": 2, "text": 2, "shots": 2, "batch": 8, "steps": 4,
             "seeds": 2, "tasks": 2, "queries": 4, "rates": 2, "threads": 1},
}


def tables(folder):
    return {f.name: formats.table(f) for f in folder.glob("*.csv")}


# ---- what they measure ----

def moments(values):
    """Mean, standard deviation, skewness, excess kurtosis: of a normal sample the last two are near 0."""
    mean = statistics.fmean(values)
    central = [statistics.fmean((v - mean) ** k for v in values) for k in (2, 3, 4)]
    return mean, math.sqrt(central[0]), central[1] / central[0] ** 1.5, central[2] / central[0] ** 2 - 3


@test
def moments_are_those_of_the_sample(folder):
    """noise.csv has the sample itself. A kurtosis that is not the excess is off by 3."""
    succeed("linear_transformer", {**FLAGS["linear_transformer"], "out": folder / "run"})
    t = tables(folder / "run")
    expect(len(t["noise_moments.csv"]) == 2, "rows of moments:", t["noise_moments.csv"])
    for row in t["noise_moments.csv"]:
        sample = [r["norm"] for r in t["noise.csv"] if r["seed"] == row["seed"]]
        expect(len(sample) == row["samples"] == 40, len(sample), "samples")
        for key, want in zip(("mean", "std", "skewness", "excess_kurtosis"), moments(sample)):
            expect(abs(row[key] - want) < 1e-6 * (1 + abs(want)), key, "is", row[key], "not", want)
        expect(near(row["max_by_median"], max(sample) / sorted(sample)[20], 1e-7), "max_by_median", row)
    bins = t["noise_histogram.csv"]
    width = bins[1]["norm"] - bins[0]["norm"]
    expect(len(bins) == 100 and near(sum(b["density"] for b in bins) * width, 1, 1e-5), "the density's integral")


def test_losses(folder, name, **more):
    """{(optimiser, seed): losses}, with steps that change next to nothing."""
    succeed("linear_transformer", {**FLAGS["linear_transformer"], "noise": 0, "lr-sgd": 1e-9, "lr-adam": 1e-9,
                                   "out": folder / name, **more})
    curves = {}
    for row in formats.table(folder / name / "test_loss.csv"):
        curves.setdefault((row["optimizer"], row["seed"]), []).append(row["test_loss"])
    return curves


@test
def test_prompts_are_the_same_at_each_measurement(folder):
    """Models that stay as they are have one loss, and another on other prompts."""
    a = test_losses(folder, "a")
    expect(len(a) == 4, a.keys())
    for key, losses in a.items():
        expect(len(losses) == 5 and max(losses) - min(losses) < 1e-5 * losses[0], key, "has losses of", losses)
    c = test_losses(folder, "c", test_seed=5)
    expect(not near(c["sgd", 0][0], a["sgd", 0][0], 0.01), "--test-seed does not change the test prompts")


@test
def validation_tasks_are_the_same_at_each_measurement(folder):
    """Attention begins near 0, so at the start both seeds have the loss of answering 0, on the same tasks."""
    succeed("icl_gd", {**FLAGS["icl_gd"], "out": folder / "run"})
    t = tables(folder / "run")
    start = [row["loss"] for row in t["training.csv"] if row["step"] == 0]
    expect(len(start) == 2 and near(start[0], start[1], 0.02), "losses at the start:", start)
    other = succeed("icl_gd", {**FLAGS["icl_gd"], "first-seed": 1, "seeds": 1, "out": folder / "other"})
    expect(other.status == 0, other.status)
    moved = [row["loss"] for row in formats.table(folder / "other/training.csv") if row["step"] == 0]
    expect(not near(moved[0], start[0], 0.02), "--first-seed does not change the validation tasks")


@test
def means_are_over_seeds(folder):
    for program, name, keys, mean in (("linear_transformer", "test_loss", ("optimizer", "step"), "test_loss"),
                                      ("icl_gd", "training", ("model", "step"), "loss")):
        out = folder / program
        succeed(program, {**FLAGS[program], "seeds": 3, "out": out})
        rows = formats.table(out / f"{name}.csv")
        for m in formats.table(out / f"{name}_mean.csv"):
            if m.get("measure", "loss") != "loss":
                continue
            values = [r[mean] for r in rows if all(r[k] == m[k] for k in keys)]
            expect(len(values) == m["seeds"] == 3, program, len(values), "seeds")
            expect(near(m["mean"], statistics.fmean(values), 1e-6), program, "mean", m)
            expect(abs(m["std"] - statistics.pstdev(values)) < 1e-6 * m["mean"], program, "std", m, values)


@test
def means_of_lcgd(folder):
    """means.csv: over a seed's tasks, then over seeds; layers.csv has the same mean."""
    succeed("lcgd", {**FLAGS["lcgd"], "layers": 2, "seeds": 3, "out": folder / "run"})
    t = tables(folder / "run")
    measures = ("SimAOU", "SimAOU_norm", "SimAM", "SimAM_D", "Kendall")
    expect(len(t["tuning.csv"]) == 3 * 2 * 2 * 5 and len(t["means.csv"]) == 2 * 5, "rows")
    for m in t["means.csv"]:
        key = [m[k] for k in ("model", "variant", "rate")]
        rows = [r for r in t["tuning.csv"] if [r[k] for k in ("model", "variant", "rate")] == key]
        by_layer = [r for r in t["layers.csv"] if [r[k] for k in ("model", "variant", "rate")] == key]
        expect(len(rows) == 6 and len(by_layer) == 2, key, len(rows), len(by_layer))
        for what in (*measures, "accuracy"):
            seeds = [statistics.fmean(r[what] for r in rows if r["seed"] == s) for s in range(3)]
            expect(abs(m[what] - statistics.fmean(seeds)) < 1e-7, what, m, seeds)
            expect(abs(m[what + "_std"] - statistics.pstdev(seeds)) < 1e-7, what, m, seeds)
        for what in measures:
            expect(abs(m[what] - statistics.fmean(r[what] for r in by_layer)) < 1e-7, what, "by layer")


@test
def lcgd_goes_on(folder):
    """A run that was stopped, and one of another kind."""
    succeed("lcgd", {**FLAGS["lcgd"], "out": folder / "whole"})
    held = Held("lcgd", {**FLAGS["lcgd"], "out": folder / "parts"}, room=1)
    held.until(lambda: (folder / "parts/config.json").exists())
    held.interrupt()
    expect(held.finish().status == 130, "stopped")
    flags = {**FLAGS["lcgd"], "resume": folder / "parts"}
    refused(run("lcgd", {**flags, "width": 8}), "--width was", "other flags")
    succeed("lcgd", flags)
    expect(tables(folder / "parts") == tables(folder / "whole"), "other tables")
    refused(run("lcgd", {**FLAGS["lcgd"], "resume": folder / "nothing"}), "nothing")
    (folder / "parts/seed-0.safetensors").write_bytes(b"cut")
    refused(run("lcgd", flags), "seed-0.safetensors")


def killed(program, flags, checkpoint, steps):
    """Held up by nothing: killed when the training's file is there, and it is not at its end."""
    held = Held(program, flags)
    held.until(checkpoint.exists)
    held.kill()
    at = formats.Checkpoint(checkpoint).flat("optimizer.step")[0]
    expect(0 < at < steps, "the checkpoint is of step", at)


@test
def mesa_goes_on(folder):
    """Killed in the middle of each of its trainings, and stopped by Ctrl-C: at the end the same bytes."""
    flags = {**FLAGS["mesa"], "steps": 400, "solver-steps": 300, "every": 70, "tune-steps": 300}
    parts = folder / "parts"
    whole = succeed("mesa", {**flags, "out": folder / "whole"})
    killed("mesa", {**flags, "out": parts}, parts / "chebyshev-seed-0.safetensors", 300)
    killed("mesa", {**flags, "resume": parts}, parts / "mesa-1-seed-0.safetensors", 400)
    at = formats.Checkpoint(parts / "mesa-1-seed-0.safetensors").bytes_of("optimizer.step")
    held = Held("mesa", {**flags, "resume": parts}, room=400)
    held.until(lambda: formats.Checkpoint(parts / "mesa-1-seed-0.safetensors").bytes_of("optimizer.step") != at)
    held.interrupt()
    done = held.finish()
    expect(done.status == 130 and f"--resume {parts} goes on" in done.err, done.status, done.err)
    rows = tables(parts)["training.csv"]
    expect(rows and rows == tables(folder / "whole")["training.csv"][:len(rows)], "what was stopped tells:", rows)
    expect(len(rows) < len(tables(folder / "whole")["training.csv"]), "it was not stopped in the middle")
    killed("mesa", {**flags, "resume": parts}, parts / "mesa-1-prefix-seed-0.safetensors", 300)
    resumed = succeed("mesa", {**flags, "resume": parts})
    expect({f.name: f.read_bytes() for f in parts.glob("*.csv")} ==
           {f.name: f.read_bytes() for f in (folder / "whole").glob("*.csv")}, "other tables")
    expect(resumed.out.splitlines()[:-1] == whole.out.splitlines()[:-1], "another summary:", resumed.out)


@test
def mesa_makes_layers_linear(folder):
    """Killed in between, too."""
    flags = {**FLAGS["mesa"], "models": "softmax-2", "seeds": 1, "tune-steps": 0, "distil-steps": 300}
    succeed("mesa", {**flags, "out": folder / "whole"})
    t = tables(folder / "whole")
    loss = t["training.csv"][-1]["loss"]
    expect([row["layer"] for row in t["linearised.csv"]] == [1, 2], "layers:", t["linearised.csv"])
    for row in t["linearised.csv"]:
        expect(0 < row["left"] < 1 and near(row["ratio"], row["loss"] / loss, 1e-6), row)
    expect([row["entries"] for row in t["kernels.csv"]] == [4, 6, 10, 20, 40, 60], "kernels:", t["kernels.csv"])
    killed("mesa", {**flags, "out": folder / "parts"}, folder / "parts/softmax-2-linearised-seed-0.safetensors", 300)
    succeed("mesa", {**flags, "resume": folder / "parts"})
    expect(tables(folder / "parts") == t, "other tables")


@test
def mesa_compares_sizes(folder):
    """Killed in either training."""
    flags = {**FLAGS["mesa"], "models": "linear-1", "seeds": 1, "size-steps": 200, "most-entries": 6, "distil-steps": 200}
    succeed("mesa", {**flags, "out": folder / "whole"})
    t = tables(folder / "whole")
    expect([(row["entries"], row["layer"]) for row in t["sizes.csv"]] == [(4, 1), (4, 2), (6, 1), (6, 2)], t["sizes.csv"])
    for row in t["sizes.csv"]:
        expect(0 < row["left"] < 1 and near(row["ratio"], row["linearised_loss"] / row["loss"], 1e-6), row)
        expect(near(row["zero"], row["entries"] / 6, 0.2) and row["loss"] < 1.05 * row["zero"], row)
    parts = folder / "parts"
    killed("mesa", {**flags, "out": parts}, parts / "entries-6-seed-0.safetensors", 200)
    killed("mesa", {**flags, "resume": parts}, parts / "entries-6-linearised-seed-0.safetensors", 200)
    succeed("mesa", {**flags, "resume": parts})
    expect(tables(parts) == t, "other tables")


@test
def mesa_refuses(folder):
    flags = {**FLAGS["mesa"], "out": folder / "run"}
    succeed("mesa", flags)
    flags = {**FLAGS["mesa"], "resume": folder / "run"}
    refused(run("mesa", {**flags, "steps": 3}), "--steps was", "other flags")
    path = folder / "run/mesa-1-seed-1.safetensors"
    checkpoint = formats.Checkpoint(path)
    for notes, word in (({}, "no 'series.0'"), ({"series.0": "1 2 3 "}, "'series.0'"), ({"series.0": "1 2"}, "'series.0'")):
        checkpoint.header["__metadata__"] = notes
        checkpoint.write()
        refused(run("mesa", flags), path.name, word)
    path.write_bytes(b"cut")
    refused(run("mesa", flags), path.name)
    succeed("mesa", {**FLAGS["mesa"], "models": "linear-1", "out": folder / "other"})
    path.write_bytes((folder / "other/linear-1-seed-1.safetensors").read_bytes())
    refused(run("mesa", flags), path.name, "lambda")
    refused(run("mesa", {**FLAGS["mesa"], "resume": folder / "nothing"}), "nothing")


def tiny_gpt2(folder):
    """Random weights, a vocabulary of bytes and two words, and texts; their flags."""
    rng = random.Random(1)
    D, layers, V, context = 8, 2, 258, 200
    shapes = {"wte.weight": (V, D), "wpe.weight": (context, D), "ln_f.weight": (D,), "ln_f.bias": (D,)}
    for layer in range(layers):
        for name, shape in (("ln_1", (D,)), ("attn.c_attn", (D, 3 * D)), ("attn.c_proj", (D, D)), ("ln_2", (D,)),
                            ("mlp.c_fc", (D, 4 * D)), ("mlp.c_proj", (4 * D, D))):
            shapes[f"h.{layer}.{name}.weight"] = shape
            shapes[f"h.{layer}.{name}.bias"] = shape[-1:]
    header, data = {}, b""
    for name, shape in shapes.items():
        values = [rng.uniform(-0.5, 0.5) for _ in range(math.prod(shape))]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + 4 * len(values)]}
        data += struct.pack(f"<{len(values)}f", *values)
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    prints = [b for b in range(256) if 33 <= b <= 126 or b >= 161 and b != 173]
    others = iter(range(256, 512))
    signs = [chr(b) if b in prints else chr(next(others)) for b in range(256)]
    merges = [f"{signs[32]} g", f"{signs[32]} b"]
    tokens = {s: i for i, s in enumerate(signs + [m.replace(" ", "") for m in merges])}
    (folder / "vocab.json").write_text(json.dumps(tokens), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    lines = [f"{'good' if i % 3 else 'bad'}\ttext {'x' * (i % 4)} {i}" for i in range(20)]
    (folder / "texts.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {"weights": folder / "model.safetensors", "vocabulary": folder / "vocab.json", "heads": 2, "rates": 2,
            "merges": folder / "merges.txt", "texts": folder / "texts.tsv", "template": "In: {} Out:", "shots": 4,
            "queries": 6, "seeds": 2, "tasks": 2}


@test
def lcgd_with_weights_of_others(folder):
    flags = tiny_gpt2(folder)
    done = succeed("lcgd", {**flags, "out": folder / "run"})
    t = tables(folder / "run")
    expect("SimAM_D" in done.out and len(t["tuning.csv"]) == 2 * 2 * 2 * 5, "rows:", len(t["tuning.csv"]))
    for row in t["tuning.csv"]:
        for what in ("SimAOU", "SimAOU_norm", "SimAM", "SimAM_D", "Kendall"):
            expect(math.isfinite(row[what]) and abs(row[what]) <= 1, what, row)
    expect(not list((folder / "run").glob("*.safetensors")), "the weights are kept twice")
    refused(run("lcgd", {**flags, "texts": "", "out": folder / "a"}), "--texts")
    refused(run("lcgd", {**flags, "queries": 17, "out": folder / "b"}), "20 lines", "21")
    refused(run("lcgd", {**flags, "shots": 14, "out": folder / "c"}), "fewer --shots")
    refused(run("lcgd", {**flags, "heads": 3, "out": folder / "d"}), "does not divide")
    refused(run("lcgd", {**flags, "weights": folder / "texts.tsv", "out": folder / "e"}), "texts.tsv")
    refused(run("lcgd", {**flags, "vocabulary": folder / "texts.tsv", "out": folder / "f"}), "texts.tsv")


# ---- folders and streams ----

@test
def folders_belong_to_one_run(folder):
    for program, flags in FLAGS.items():
        out = folder / program
        held = Held(program, {**flags, "out": out}, room=1)
        held.until(lambda out=out: (out / "config.json").exists())
        refused(run(program, {**flags, "out": out}), "in use", str(held.process.pid))
        expect(held.finish().status == 0, program)
        before = {f.name: f.read_bytes() for f in out.iterdir()}
        expect("lock" not in before, "the lock is left")
        refused(run(program, {**flags, "out": out}), "holds a run already")
        expect({f.name: f.read_bytes() for f in out.iterdir()} == before, "something has changed")
        held = [Held(program, flags, room=1, cwd=folder) for _ in range(2)]
        for h in held:
            h.until(lambda: len(list(folder.glob(f"runs/{program.replace('_', '-')}-*/config.json"))) == 2)
        for done in [h.finish() for h in held]:
            expect(done.status == 0, program, "beside another:", done.status, done.err[-500:])


@test
def streams_and_disks(folder):
    for program, flags in FLAGS.items():
        with open("/dev/full", "w", encoding="utf-8") as full:
            refused(run(program, {**flags, "out": folder / f"{program}-full"}, stdout=full), "No space left")

        def closed():
            os.close(1)
            os.close(2)
        done = run(program, {**flags, "out": folder / f"{program}-closed"}, preexec_fn=closed)
        expect(done.status == 1, program, "with closed streams:", done.status)
        plain = succeed(program, {**flags, "out": folder / f"{program}-plain"})
        expect(plain.out, "nothing is printed")
        expect(tables(folder / f"{program}-closed") == tables(folder / f"{program}-plain"), program, "other tables")
        files = [f for f in (folder / f"{program}-plain").iterdir() if f.suffix in (".csv", ".safetensors")]
        largest = max(files, key=lambda f: f.stat().st_size)
        size = largest.stat().st_size

        def full_disk(limit=size - 1):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        refused(run(program, {**flags, "out": folder / f"{program}-cut"}, preexec_fn=full_disk), largest.suffix, "large")


@test
def no_cut_pictures(folder):
    def full_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (12 << 10, 12 << 10))
    for program, flags in FLAGS.items():
        out = folder / program
        flags = {**flags, "seeds": 1, "out": out}
        if program == "mesa":  # the networks, larger than pictures, are there already
            succeed(program, flags)
            flags["resume"] = flags.pop("out")
        done = run(program, flags, env=environment(pictures=True), preexec_fn=full_disk)
        refused(done, ".png")
        for f in out.glob("*.png*"):
            expect(not formats.png_fault(f), f.name, "is cut")


@test
def stopped_at_once(folder):
    """They tell that they were, and exit with 130; what they have measured is in their tables."""
    for program, flags in FLAGS.items():
        held = Held(program, {**flags, "out": folder / program}, room=1)
        held.until(lambda program=program: (folder / program / "config.json").exists())
        held.interrupt()
        done = held.finish()
        expect(done.status == 130 and "stopped:" in done.err, program, done.status, done.err)
        expect(tables(folder / program), program, "leaves no tables")
