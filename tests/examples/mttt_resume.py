# SPDX-License-Identifier: MIT
"""A run of examples/mttt that was stopped, or killed, and gone on with ends at the bits of one that never was."""
import random
import shutil

import formats
from harness import Held, environment, expect, near, refused, run, succeed, test
from mttt import Data, Result, same

# Lines of some 70 bytes, one in three steps, and a page of them before a run is held up: near step 170, in the first
# epoch of two. The checkpoint is of step 152 then: one row and two steps of the next came before, rows come after.
LONG = {"epochs": 2, "batch": 1, "log-every": 3, "save-every": 38}


def data_of(folder):
    return Data(folder, train=300, test=23)


def goes_on(data, folder, plain, program_flags):
    """The rest of the run in `folder`, against the one that was never stopped."""
    r = Result(folder, succeed("mttt", program_flags, ["--resume"]))
    same(plain, r)
    times = [row["elapsed_s"] for row in r.training]
    expect(times == sorted(times), "elapsed_s falls:", times)
    expect(f"test accuracy {plain.tests[-1]['test_accuracy']:.4f}" in r.done.out, r.done.out)
    return r


@test
def killed_in_the_middle(folder):
    data = data_of(folder)
    flags = data.flags(folder / "killed", **LONG)
    plain = data.train_to_end(folder / "plain", **LONG)
    held = Held("mttt", flags)
    held.until_held()
    held.kill()
    at = int(formats.Checkpoint(folder / "killed/checkpoint.safetensors").notes["step"])
    window = int(formats.Checkpoint(folder / "killed/checkpoint.safetensors").notes["window_steps"])
    rows = formats.table(folder / "killed/metrics.csv")
    expect(0 < at < 300 and window > 0, "the checkpoint is of step", at, "with", window, "steps since the last row")
    expect(rows[-1]["step"] > at, "no row came after the checkpoint of step", at)
    goes_on(data, folder / "killed", plain, flags)


@test
def stopped_in_float16(folder):
    """The loss's factor, and for how many steps it has been that, are in the checkpoint too."""
    data = data_of(folder)
    more = {**LONG, "dtype": "float16"}
    plain = data.train_to_end(folder / "plain", **more)
    flags = data.flags(folder / "stopped", **more)
    held = Held("mttt", flags)
    held.until_held()
    held.interrupt()
    expect(held.finish().status == 130, "not stopped")
    names = formats.Checkpoint(folder / "stopped/checkpoint.safetensors").names()
    expect({"optimizer.loss_scale", "optimizer.steps_at_scale"} <= set(names), names)
    goes_on(data, folder / "stopped", plain, flags)


@test
def stopped_in_the_middle(folder):
    """Again and again, by Ctrl-C, each time a page of lines later."""
    data = data_of(folder)
    plain = data.train_to_end(folder / "plain", **LONG)
    flags, more, steps = data.flags(folder / "stopped", **LONG), [], []
    for _ in range(3):
        held = Held("mttt", flags, more=more)
        held.until_held()
        held.interrupt()
        done = held.finish()
        more = ["--resume"]
        steps.append(int(formats.Checkpoint(folder / "stopped/checkpoint.safetensors").notes["step"]))
        expect(done.status == 130, "status", done.status)
        expect(f"stopped and saved at step {steps[-1]} of 600" in done.err, done.err[-200:])
        expect(done.out == "", "a stopped run has printed a result:", done.out)
    expect(0 < steps[0] < steps[1] < steps[2] < 600, "stopped at", steps)
    goes_on(data, folder / "stopped", plain, flags)


@test
def killed_between_parts_of_batches(folder):
    """Sums over parts are in no checkpoint: a step begins with its first part."""
    data = data_of(folder)
    more = {**LONG, "batch": 2, "accumulate": 2, "epochs": 4, "log-every": 2}
    flags = data.flags(folder / "killed", **more)
    plain = data.train_to_end(folder / "plain", **more)
    held = Held("mttt", flags)
    held.until_held()
    held.kill()
    at = int(formats.Checkpoint(folder / "killed/checkpoint.safetensors").notes["step"])
    expect(0 < at < 600, "the checkpoint is of step", at)
    goes_on(data, folder / "killed", plain, flags)


@test
def stopped_in_the_test(folder):
    """The epoch's test begins anew."""
    data = Data(folder, train=10, test=400)
    more = {"batch": 1, "train-images": 1, "epochs": 2}
    plain = data.train_to_end(folder / "plain", **more)
    flags = data.flags(folder / "stopped", **more)
    # Held up by the line that the test has at its end: that of the first step, the third, has no time yet, and one length only.
    lines = plain.done.err.replace("plain", "stopped").splitlines()
    held = Held("mttt", flags, room=sum(map(len, lines[:3])) + 12)
    held.until(lambda: (folder / "stopped/checkpoint.safetensors").exists())
    held.until_held()
    held.interrupt()
    done = held.finish()
    expect(done.status == 130 and "at step 1 of 2" in done.err, done.status, done.err)
    notes = formats.Checkpoint(folder / "stopped/checkpoint.safetensors").notes
    expect(notes["evaluated"] == "0", "the stopped test counts")
    goes_on(data, folder / "stopped", plain, flags)


def stopped_at_once(folder, flags):
    held = Held("mttt", flags, room=1)  # not even for the line before the first step
    held.until(lambda: (folder / "metrics.csv").exists())
    held.interrupt()
    return held.finish()


@test
def stopped_before_the_first_step(folder):
    """It is told that --resume goes on, and so it does."""
    data = Data(folder, train=30, test=5)
    plain = data.train_to_end(folder / "plain")
    flags = data.flags(folder / "stopped")
    done = stopped_at_once(folder / "stopped", flags)
    expect(done.status == 130 and "stopped and saved at step 0 of 3" in done.err, done.status, done.err)
    expect("--resume" in done.err, done.err)
    notes = formats.Checkpoint(folder / "stopped/checkpoint.safetensors").notes
    expect(notes["step"] == "0", "the checkpoint is of step", notes["step"])
    goes_on(data, folder / "stopped", plain, flags)


@test
def a_finished_run_stays_as_it_is(folder):
    data = Data(folder, train=30, test=5)
    first = data.train_to_end(folder / "run")
    before = {f.name: f.read_bytes() for f in (folder / "run").iterdir()}
    again = succeed("mttt", data.flags(folder / "run"), ["--resume"])
    expect(again.out.split("seconds")[0] == first.done.out.split("seconds")[0], again.out)
    after = {f.name: f.read_bytes() for f in (folder / "run").iterdir()}
    expect(before == after, "changed:", [n for n in before.keys() | after.keys() if before.get(n) != after.get(n)])


@test
def the_time_before_counts(folder):
    data = Data(folder, train=30, test=5)
    data.train_to_end(folder / "run")
    checkpoint = formats.Checkpoint(folder / "run/checkpoint.safetensors")
    checkpoint.notes["seconds"] = "1000"
    checkpoint.write()
    done = succeed("mttt", data.flags(folder / "run"), ["--resume"])
    expect(near(float(done.out.split("seconds")[1]), 1000, 0.05), done.out)


# What nobody's checkpoint says, in a run of 3 epochs of 4 steps. {} holds all that must be told.
NONSENSE = {
    "step": ["99999999", "13", "7.5", "10.5", "1e300", "nan", "inf", "-1", "", "x", "0x", "11", None],
    "evaluated": ["4", "-1", "2.5", "nan", "1e300", "0", "3", None],
    "window_steps": ["1", "3", "-2", "2.5", "nan", "1e18", None],
    "window_loss": ["nan", "-1", "inf", "", None],
    "window_correct": ["nan", "-1", "0.5", "21", "1e300", None],
    "seconds": ["nan", "-1", "inf", "1e300", None],
    "test_loss": ["-1", "x", None],
    "test_accuracy": ["2", "-0.1", "nan", None],
    "metrics_bytes": ["0", "10", "1e300", "nan", "-1", "100000", None],
    "inner_bytes": ["0", "5", "1e300", "nan", "100000", None],
}


@test
def no_number_of_a_checkpoint_is_believed(folder):
    data = Data(folder, train=40, test=5)
    flags = data.flags(folder / "run", epochs=3, log_every=4, save_every=2)
    # Held up by the line of step 12 and killed, the run has a checkpoint of step 10, two steps after a row: room for the
    # lines of the folder, of what a step takes, of steps 1, 4, 8 and of tests, but not for that one.
    plain = data.train_to_end(folder / "plain", epochs=3, log_every=4, save_every=2)
    text = succeed("mttt", data.flags(folder / "rehearsal", epochs=3, log_every=4, save_every=2)).err
    lines = text.replace("rehearsal", "run").splitlines(keepends=True)
    held = Held("mttt", flags, room=sum(map(len, lines[:7])) + 40)
    held.until(lambda: step_of(folder / "run/checkpoint.safetensors") == "10")
    held.kill()
    kept = {f.name: f.read_bytes() for f in (folder / "run").iterdir()}
    for key, values in NONSENSE.items():
        for value in values:
            checkpoint = formats.Checkpoint(folder / "run/checkpoint.safetensors")
            if value is None:
                del checkpoint.notes[key]
            else:
                checkpoint.notes[key] = value
            checkpoint.write()
            done = run("mttt", flags, ["--resume"])
            expect(done.status == 1, f"{key} = {value!r} is taken: status {done.status}", done.err[-300:])
            expect("mttt: " in done.err and len(done.err.splitlines()) <= 3, f"{key} = {value!r}:", done.err)
            for name in ("metrics.csv", "inner_loss.csv"):
                expect((folder / "run" / name).read_bytes() == kept[name], f"{key} = {value!r} has changed {name}")
            (folder / "run/checkpoint.safetensors").write_bytes(kept["checkpoint.safetensors"])
    goes_on(data, folder / "run", plain, flags)


def step_of(path):
    try:
        return formats.Checkpoint(path).notes["step"]
    except FileNotFoundError:
        return None


@test
def an_optimiser_at_another_step_is_refused(folder):
    data = Data(folder, train=30, test=5)
    data.train_to_end(folder / "run")
    checkpoint = formats.Checkpoint(folder / "run/checkpoint.safetensors")
    checkpoint.set_flat("optimizer.step", [2])
    checkpoint.write()
    refused(run("mttt", data.flags(folder / "run"), ["--resume"]), "at step 3", "optimiser at 2")


@test
def tables_must_be_those_of_the_checkpoint(folder):
    data = Data(folder, train=30, test=5)
    for name in ("metrics.csv", "inner_loss.csv"):
        out = folder / f"run-{name}"
        data.train_to_end(out)
        whole = (out / name).read_bytes()
        for what in (b"", whole[:-1], whole[:-30], b"x" + whole[1:], whole[:-1] + b"x", None):
            if what is None:
                (out / name).unlink()
            else:
                (out / name).write_bytes(what)
            refused(run("mttt", data.flags(out), ["--resume"]), name)
            expect(what is None or (out / name).read_bytes() == what, "changed:", name)
        (out / name).write_bytes(whole + b"rows,to,cut,off\n1,2")
        succeed("mttt", data.flags(out), ["--resume"])
        expect((out / name).read_bytes() == whole, "not cut:", name)


@test
def other_flags_and_images_are_refused(folder):
    data = Data(folder, train=30, test=12)
    data.train_to_end(folder / "run", train_images=20, test_images=11)
    flags = data.flags(folder / "run", train_images=20, test_images=11)
    for name, value in (("lr", 0.02), ("seed", 1), ("learner", "softmax"), ("log-every", 2), ("epochs", 2)):
        refused(run("mttt", {**flags, name: value}, ["--resume"]), f"--{name} was", "other flags")
    for kind in ("train", "test"):
        for change in ("pixels", "labels"):
            other = folder / f"{kind}-{change}"
            shutil.copytree(data.folder, other)
            images = getattr(Data(folder / f"again-{kind}-{change}", train=30, test=12), kind)
            if change == "pixels":
                images.pixels[3][5] ^= 1
            else:
                images.labels[3] = (images.labels[3] + 1) % 10
            images.write(other, kind)
            refused(run("mttt", {**flags, "data": other}, ["--resume"]), "other images")
    moved = folder / "moved"
    shutil.copytree(data.folder, moved)
    succeed("mttt", {**flags, "data": moved}, ["--resume"])


@test
def another_machine_is_told(folder):
    data = Data(folder, train=30, test=5)
    first = data.train_to_end(folder / "run")
    expect(len(first.config["machines"]) == 1 and "goes on with" not in first.done.err, first.config["machines"])
    flags = data.flags(folder / "run")
    expect("goes on with" not in succeed("mttt", flags, ["--resume"]).err, "the same machine is told")
    for n, (env, more, words) in enumerate((({"MB_CPU": "base"}, [], "base"), ({}, ["--backend=reference"], "reference"),
                                            ({"MB_BACKEND": "reference"}, [], None), ({}, ["--backend=cpu"], "cpu"))):
        done = succeed("mttt", flags, ["--resume", *more], env=environment(**env))
        told = [line for line in done.err.splitlines() if "goes on with" in line]
        expect(len(told) == (words is not None) and (not told or words in told[0]), env, more, done.err)
    machines = Result(folder / "run").config["machines"]
    expect([m["backend"] for m in machines] == ["cpu", "cpu", "reference", "cpu"], machines)
    expect(all(m["from-step"] == 3 for m in machines[1:]), machines)
    expect(machines[0] == {**machines[3], "from-step": 0}, "the same machine has other numbers", machines)
    expect(machines[2]["numbers"] != machines[0]["numbers"], "another backend has the same numbers", machines)
    path = folder / "run/config.json"
    path.write_text(path.read_text().replace(f'"instructions": "{machines[3]["instructions"]}"', '"instructions": "few"'))
    told = succeed("mttt", flags, ["--resume"]).err
    expect("cpu (few), and goes on" in told and "same bits on both" in told, told)


@test
def a_gradient_beyond_float32_reaches_no_checkpoint(folder):
    """Weights near the end of float32 behind a norm's scale near the other: the loss is below 1000, but what goes back
    through a weight is up to twice as large. The step that would make NaN of the parameters ends the run."""
    data = Data(folder, train=30, test=5)
    flags = data.flags(folder / "run", batch=1, save_every=1)
    stopped_at_once(folder / "run", flags)
    checkpoint = formats.Checkpoint(folder / "run/checkpoint.safetensors")
    rng = random.Random(5)
    checkpoint.set_flat("vit.head.weight", [rng.choice((-3e38, 3e38)) for _ in range(80)])
    checkpoint.set_flat("vit.norm.scale", [2e-38] * 8)
    checkpoint.write()
    refused(run("mttt", flags, ["--resume"]), "the norm of its gradient", "a smaller --lr or --inner-lr may help")
    r = Result(folder / "run")
    expect(all(loss < 1000 for loss in r.losses()), "the losses are", r.losses())
    for n in r.checkpoint.names():
        expect(all(abs(v) < float("inf") for v in r.checkpoint.flat(n)), n, "of the checkpoint is not finite")
