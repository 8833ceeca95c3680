# SPDX-License-Identifier: MIT
"""The sweep of examples/mttt_tables: its rows recomputed from the checkpoints of its runs, its tables from its rows; killed,
stopped and gone on with, it ends at the bytes of one that never was."""
import json
import math
import signal
import statistics
import subprocess
import time

import formats
import harness
from harness import arguments, environment, expect, near, refused, run, succeed, test
from mttt import TIMES, Data
from mttt_training import FORWARD
from oracle import Model

# 4 tokens of 196 pixels, or 16 of 49.
SMALL = {"seeds": 2, "patch": 14, "pixel-patch": 7, "dim": 8, "heads": 2, "depth": 1, "batch": 10, "lr": 0.01, "warmup": 5,
         "epochs": 1, "train-images": 60, "pixel-images": 40, "test-images": 12, "most-steps": 2, "threads": 1, "save-every": 2}
TABLES = ("learners.csv", "ablation.csv", "steps.csv", "pixels.csv", "inner.csv")


def data_of(folder):
    return Data(folder, train=80, test=15, side=28)


def flags_of(data, out, **more):
    return {**SMALL, "data": data.folder, "out": out, **{k.replace("_", "-"): v for k, v in more.items()}}


def lasting(folder):
    """Everything that is the same bytes in each sweep of the same flags."""
    files = {f.name: f.read_bytes() for f in folder.glob("*.csv")}
    for each in sorted(f for f in folder.iterdir() if f.is_dir()):
        checkpoint = formats.Checkpoint(each / "checkpoint.safetensors")
        notes = {k: v for k, v in checkpoint.notes.items() if k not in ("seconds", "metrics_bytes")}
        rows = [{k: v for k, v in r.items() if k not in TIMES} for r in formats.table(each / "metrics.csv")]
        inner = (each / "inner_loss.csv").read_bytes() if (each / "inner_loss.csv").exists() else b""
        files[each.name] = (checkpoint.bits(), notes, rows, inner)
    return files


def same_sweep(a, b):
    a, b = lasting(a), lasting(b)
    differing = sorted(k for k in a.keys() | b.keys() if a.get(k) != b.get(k))
    expect(not differing, "differ:", differing[:5])


# ---- what the tables say ----

@test
def rows_are_those_of_the_checkpoints(folder):
    """In double precision, by other code; where tokens are not drawn."""
    data = data_of(folder)
    succeed("mttt_tables", flags_of(data, folder / "sweep"))
    data.test.labels = data.test.labels[:12]
    rows = formats.table(folder / "sweep/runs.csv")
    names = {r["run"] for r in rows}
    expect(len(rows) == 2 * len(names) and len(names) == 19, len(rows), "rows of", sorted(names))
    for r in rows:
        own = folder / "sweep" / f"{r['run']}-{r['seed']:.0f}"
        settings, checkpoint = json.loads((own / "config.json").read_text()), formats.Checkpoint(own / "checkpoint.safetensors")
        for key, flag in (("learner", "learner"), ("inner_steps", "inner-steps"), ("inner_batch", "inner-batch"), ("seed", "seed"),
                          ("decoder_norm", "decoder-norm"), ("learned_start", "learned-start"), ("hidden", "hidden")):
            expect(r[key] == settings[flag], r["run"], "says", key, r[key], "and was run with", settings[flag])
        frozen = ("W1", "b1", "W2", "b2") if r["learned_start"] == "frozen" else ()
        size = sum(len(checkpoint.flat(n)) for n in checkpoint.parameters() if n.rsplit(".", 1)[1] not in frozen)
        expect(r["parameters"] == size, r["run"], "has", size, "parameters, not", r["parameters"])
        if r["inner_batch"]:
            continue
        losses, right, _ = Model(checkpoint, settings).judge(data.test)
        expect(near(r["test_loss"], sum(losses) / 12, FORWARD), r["run"], "loss", r["test_loss"], "not", sum(losses) / 12)
        expect(near(r["test_accuracy"], sum(right) / 12, 1e-8), r["run"], "accuracy", r["test_accuracy"])
    tables_are_those_of_the_rows(folder / "sweep", rows)


def tables_are_those_of_the_rows(sweep, rows):
    def over_seeds(name):
        values = [100 * r["test_accuracy"] for r in rows if r["run"] == name]
        return statistics.fmean(values), statistics.pstdev(values)

    def matches(row, name, mean="accuracy", deviation="std"):
        want = over_seeds(name)
        return near(row[mean], want[0], 1e-7) and abs(row[deviation] - want[1]) < 1e-5

    def parameters(name):
        return next(r["parameters"] for r in rows if r["run"] == name)
    learners = formats.table(sweep / "learners.csv")
    order = ("linear-attention", "adaptive-attention", "linear", "mlp", "kernel", "softmax", "linear-attention-wide")
    expect(len(learners) == len(order), learners)
    for row, name in zip(learners, order):
        expect(matches(row, name) and row["parameters"] == parameters(name), name, row, over_seeds(name))
    expect([row["imagenet"] for row in learners] == [73.0, 73.2, 72.8, 74.6, 76.5, 76.5, None], "ImageNet", learners)
    expect(learners[0]["relative_flops"] == 1 and learners[3]["relative_flops"] > 1.2, "operations", learners)
    expect(abs(parameters("linear-attention-wide") - parameters("mlp")) <= 17 / 2, "not as many parameters:",
           parameters("linear-attention-wide"), parameters("mlp"))
    ablation = {(r["decoder_norm"], r["learned_start"]): r for r in formats.table(sweep / "ablation.csv")}
    for key, name, there in ((("on", "on"), "mlp", 74.6), (("off", "frozen"), "mlp-norm-no-start-frozen", 72.9),
                             (("off", "on"), "mlp-norm-no-start-learned", 73.0),
                             (("on", "frozen"), "mlp-norm-yes-start-frozen", 73.8)):
        expect(matches(ablation[key], name) and ablation[key]["imagenet"] == there, key, ablation[key])
    steps = [(r["tokens_of_a_step"], r["inner_steps"]) for r in formats.table(sweep / "steps.csv")]
    expect(steps == [("N", 0), ("N", 1), ("N", 2), ("N/T", 1), ("N/T", 2), ("N/T", 4)], "inner steps", steps)
    for row in formats.table(sweep / "steps.csv"):
        T = int(row["inner_steps"])
        name = "mlp" if T == 1 else f"mlp-{T}-steps" if row["tokens_of_a_step"] == "N" else f"mlp-{T}-parts"
        expect(matches(row, name), name, row)
    for row, name in zip(formats.table(sweep / "pixels.csv"), ("linear-attention", "adaptive-attention", "linear", "mlp")):
        expect(matches(row, "pixels-" + name, "pixels", "pixels_std") and matches(row, name, "patches", "patches_std"), name, row)
    for row in formats.table(sweep / "inner.csv"):
        own = formats.table(sweep / f"{row['run']}-{row['seed']:.0f}/inner_loss.csv")
        expect(row["step"] in (own[0]["step"], own[-1]["step"]), "inner losses of step", row["step"])
        expect(any(all(r[k] == row[k] for k in ("step", "block", "inner_step", "loss")) for r in own), "no run has", row)


@test
def flags_change_the_tables(folder):
    data = data_of(folder)
    plain = succeed("mttt_tables", flags_of(data, folder / "plain", seeds=1, save_every=0, tables="ablation"))
    expect("decoder norm, with a learned start" in plain.out, plain.out)
    before = (folder / "plain/runs.csv").read_bytes()
    others = {"patch": 28, "dim": 16, "heads": 4, "depth": 2, "epochs": 2, "batch": 12, "lr": 0.02, "warmup": 3, "first-seed": 7,
              "seeds": 2, "train-images": 50, "test-images": 11}
    for name, value in others.items():
        out = folder / name
        succeed("mttt_tables", {**flags_of(data, out, seeds=1, save_every=0, tables="ablation"), name: value})
        expect((out / "runs.csv").read_bytes() != before, "--" + name, "changes no row")
    for name, value, table in (("most-steps", 1, "steps"), ("pixel-patch", 14, "pixels"), ("pixel-epochs", 2, "pixels"),
                               ("pixel-images", 30, "pixels")):
        rows = []
        for n, more in enumerate(({}, {name: value})):
            out = folder / f"{name}-{n}"
            succeed("mttt_tables", {**flags_of(data, out, seeds=1, save_every=0, tables=table), **more})
            rows.append((out / "runs.csv").read_bytes())
        expect(rows[0] != rows[1], "--" + name, "changes no row")
    out = folder / "runs"
    succeed("mttt_tables", {**flags_of(data, out, seeds=1, save_every=0, tables="ablation"), "runs": "mlp,mlp-norm-no-start-frozen"})
    lines = before.splitlines(keepends=True)
    expect((out / "runs.csv").read_bytes() == b"".join(lines[:3]), "--runs", (out / "runs.csv").read_text())
    wrong = run("mttt_tables", flags_of(data, folder / "wrong", patch=5))
    refused(wrong, "must divide 28")
    expect(not (folder / "wrong").exists(), "a folder is left")


@test
def numbers_out_of_place_are_told(folder):
    """Next to no learning rate, and no learner is better than another; with few images they are so by chance."""
    data = data_of(folder)
    flags = flags_of(data, folder / "run", seeds=1, tables="steps", lr=1e-12)
    done = run("mttt_tables", flags)
    expect(done.status == 0 and "ok" in done.out, done.status, done.out)
    path = folder / "run/runs.csv"
    lines = path.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("mlp,"))
    for accuracy, status in (("0.001", 1), ("0.999", 0)):
        lines[at] = ",".join([*lines[at].split(",")[:-1], accuracy])
        path.write_text("\n".join(lines) + "\n")
        again = run("mttt_tables", flags, ["--resume", "--check"])
        expect(again.status == status and ("NOT at least" in again.out) == (status == 1), accuracy, again.status, again.out)
        expect(run("mttt_tables", flags, ["--resume"]).status == 0, "an error without --check")


@test
def a_run_that_diverges_ends_none_but_itself(folder):
    """Its row has no numbers, and neither has the mean over such; that is out of place, and the sweep goes on."""
    data = data_of(folder)
    flags = flags_of(data, folder / "run", tables="ablation", lr=1000, epochs=3)
    done = succeed("mttt_tables", flags)
    rows = formats.table(folder / "run/runs.csv")
    diverged = {r["run"] for r in rows if r["test_accuracy"] is None}
    expect(len(rows) == 8 and "mlp" in diverged and len(diverged) < 4, "diverged:", sorted(diverged), "of", len(rows), "rows")
    for row in formats.table(folder / "run/ablation.csv"):
        if row["decoder_norm"] == "on" and row["learned_start"] == "on":
            expect(row["accuracy"] is None and row["std"] is None, "a mean of nothing:", row)
    again = run("mttt_tables", flags, ["--resume", "--check"])
    expect(again.status == 1 and again.out == done.out, "another summary, or no error:", again.status, again.out)


# ---- stopped and gone on with ----

def begun(sweep):
    """Runs without a row that have a checkpoint already, and its step."""
    rows = sweep / "runs.csv"
    there = {",".join(line.split(",")[:2]) for line in rows.read_text().splitlines()[1:]} if rows.exists() else set()
    found = {}
    for f in sweep.glob("*/checkpoint.safetensors"):
        name, _, seed = f.parent.name.rpartition("-")
        if f"{name},{seed}" not in there:
            found[f.parent.name] = f
    return len(there), found


def interrupted(flags, sweep, more, after, how):
    """Ends the sweep once it has that many rows and is in the middle of another run. Its status, and that run's step."""
    process = subprocess.Popen([harness.programs / "mttt_tables", *arguments(flags), *more], stderr=subprocess.PIPE,
                               stdout=subprocess.PIPE, env=environment())
    for _ in range(20000):
        rows, found = begun(sweep)
        if process.poll() is not None or (rows >= after and found):
            break
        time.sleep(0.001)
    process.send_signal(how)
    process.communicate(timeout=100)
    rows, found = begun(sweep)
    steps = [int(formats.Checkpoint(f).notes["step"]) for f in found.values()]
    expect(len(steps) <= 1, "several runs are half done:", sorted(found))
    return process.returncode, steps[0] if steps else None


def mark(sweep):
    """Runs that are half done have taken 1000 seconds by now, as their checkpoints say: a new one would know nothing of that."""
    found = begun(sweep)[1]
    for f in found.values():
        checkpoint = formats.Checkpoint(f)
        checkpoint.notes["seconds"] = "1000"
        checkpoint.write()
    return set(found)


LONG = {"tables": "pixels", "seeds": 2, "batch": 1, "pixel_images": 80, "train_images": 80, "save_every": 7}


@test
def killed_and_stopped_again_and_again(folder):
    data = data_of(folder)
    flags = flags_of(data, folder / "sweep", **LONG)
    succeed("mttt_tables", {**flags, "out": folder / "plain"})
    more, steps, marked = [], [], set()
    for after, how in ((0, signal.SIGKILL), (2, signal.SIGINT), (3, signal.SIGKILL), (7, signal.SIGTERM), (9, signal.SIGKILL)):
        status, step = interrupted(flags, folder / "sweep", more, after, how)
        expect(status == (-signal.SIGKILL if how == signal.SIGKILL else 130), "status", status, "after", how)
        more = ["--resume"]
        steps.append(step)
        marked |= mark(folder / "sweep")
    expect(any(s is not None and 0 < s < 80 for s in steps), "no run was left half done:", steps)
    done = succeed("mttt_tables", flags, ["--resume"])
    expect("of which 0 are there" not in done.err, done.err)
    same_sweep(folder / "plain", folder / "sweep")
    for name in marked:
        last = formats.table(folder / "sweep" / name / "metrics.csv")[-1]
        expect(last["elapsed_s"] > 1000, name, "was begun anew:", last)


@test
def rows_that_are_cut_are_run_again(folder):
    """As a full disk or a power cut leaves them: the rest of the table is made again, from the runs' own checkpoints."""
    data = data_of(folder)
    flags = flags_of(data, folder / "sweep", seeds=1, tables="ablation")
    first = succeed("mttt_tables", flags)
    before, path = lasting(folder / "sweep"), folder / "sweep/runs.csv"
    whole = path.read_bytes()
    second = whole.index(b"\n", whole.index(b"\n") + 1) + 1
    for left in (whole[:-1], whole[:-5], whole[:second + 3], whole[:second], whole[:whole.index(b"\n") + 1]):
        path.write_bytes(left)
        again = succeed("mttt_tables", flags, ["--resume"])
        expect(lasting(folder / "sweep") == before, "other bytes after", left[-20:])
        expect(again.out == first.out, "another summary:", again.out)
    path.write_bytes(whole + b"nobody,0,mlp,4,1,0,on,on,32,1,1,1,1\n")
    refused(run("mttt_tables", flags, ["--resume"]), "is of no run of this sweep")
    path.write_bytes(whole + whole[second:].split(b"\n")[0] + b"\n")
    refused(run("mttt_tables", flags, ["--resume"]), "one that has a row")
    path.write_bytes(whole)
    refused(run("mttt_tables", {**flags, "lr": 0.5}, ["--resume"]), "--lr was", "other flags")
    refused(run("mttt_tables", flags), "holds a run already")


@test
def pictures_are_drawn(folder):
    data = data_of(folder)
    succeed("mttt_tables", flags_of(data, folder / "sweep", seeds=1), env=environment(pictures=True))
    for name in ("learners.png", "ablation.png", "steps.png", "pixels.png", "inner.png"):
        fault = formats.png_fault(folder / "sweep" / name)
        expect(not fault, name, fault)
    expect(not math.isnan(formats.table(folder / "sweep/runs.csv")[0]["test_loss"]), "no loss")
