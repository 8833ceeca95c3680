# SPDX-License-Identifier: MIT
"""Whether examples/mttt trains and tests what it says: against other code, and against what must hold."""
import math
import random
import re
import resource

from harness import environment, expect, near, refused, run, succeed, test
from mttt import LEARNERS, Data, Result, same
from oracle import Model

# float32 against double precision. A forward pass is some 30 roundings deep, 30 x 6e-8, and a loss is about 1; the
# largest difference seen is below 1e-6.
FORWARD = 1e-5


@test
def learns_the_training_images(folder):
    """And only them: in the test other labels are right, so accuracy there is nothing."""
    for learner in LEARNERS:
        r = Data(folder / learner).train_to_end(folder / learner / "run", learner=learner, epochs=10)
        last = r.training[-10:]
        loss = sum(row["loss"] for row in last) / 10
        accuracy = sum(row["accuracy"] for row in last) / 10
        expect(loss < 0.5 * math.log(10), learner, "ends at a loss of", loss)
        expect(accuracy > 0.9, learner, "ends at an accuracy of", accuracy)
        expect(r.tests[-1]["test_loss"] > math.log(10), learner, "has a test loss of", r.tests[-1]["test_loss"])
        expect(r.tests[-1]["test_accuracy"] < 0.1, learner, "has a test accuracy of", r.tests[-1]["test_accuracy"])


@test
def test_results_are_those_of_the_checkpoint(folder):
    """Recomputed in double precision by other code. 37 images, in batches of 10: the last one is short."""
    data = Data(folder)
    cases = [{"learner": learner} for learner in LEARNERS]
    cases += [{"learner": "mlp", "inner_steps": 3, "inner_lr": 0.3, "depth": 2, "positions": "learned"},
              {"learner": "linear", "inner_steps": 2, "inner_lr": 0.5}, {"learner": "mlp", "inner_steps": 0},
              {"learner": "mlp", "decoder_norm": "off", "learned_start": "frozen", "hidden": 12},
              {"learner": "mlp", "learned_start": "off", "accumulate": 5},
              {"learner": "linear", "decoder_norm": "on", "learned_start": "on", "inner_steps": 2}]
    for n, case in enumerate(cases):
        r = data.train_to_end(folder / str(n), **case)
        losses, right, _ = Model(r.checkpoint, r.config).judge(data.test)
        loss, accuracy = sum(losses) / 37, sum(right) / 37
        expect(len(r.tests) == 1, "one epoch has", len(r.tests), "tests")
        row = r.tests[0]
        expect(near(row["test_loss"], loss, FORWARD), case, "test loss", row["test_loss"], "not", loss)
        expect(near(row["test_accuracy"], accuracy, 1e-8), case, "test accuracy", row["test_accuracy"], "not", accuracy)
        expect(f"test accuracy {accuracy:.4f}  loss {row['test_loss']:.4f} " in r.done.out, "printed:", r.done.out)


@test
def an_epoch_is_every_image_once(folder):
    """The learning rate is next to nothing, so the loss of a batch of one tells which image it was."""
    data = Data(folder, train=30, test=5)
    runs = [data.train_to_end(folder / str(seed), batch=1, epochs=3, lr=1e-12, seed=seed) for seed in (42, 43)]
    orders = []
    for r in runs:
        want = Model(r.checkpoint, r.config).judge(data.train)[0]
        orders.append([min(range(30), key=lambda i, loss=loss: abs(want[i] - loss)) for loss in r.losses()])
        for loss, image in zip(r.losses(), orders[-1]):
            expect(near(loss, want[image], FORWARD), "a loss of", loss, "is no image's; the nearest is", want[image])
    expect(orders[0] != orders[1], "two seeds have one order")
    a, b = (r.checkpoint.flat("vit.embed.weight") for r in runs)
    expect(sum(abs(x - y) for x, y in zip(a, b)) > 0.1 * sum(map(abs, a)), "two seeds have one start")
    order = orders[0]
    epochs = [order[:30], order[30:60], order[60:]]
    for e in epochs:
        expect(sorted(e) == list(range(30)), "an epoch is not every image once:", e)
        expect(e != list(range(30)), "an epoch is in the order of the file")
    expect(epochs[0] != epochs[1] and epochs[1] != epochs[2], "two epochs are in the same order")


@test
def the_rest_of_an_epoch_is_left_out(folder):
    data = Data(folder, train=25, test=5)
    r = data.train_to_end(folder / "run", epochs=2)
    expect([row["step"] for row in r.training] == [1, 2, 3, 4], "steps", [row["step"] for row in r.training])
    expect([row["epoch"] for row in r.training] == [0, 0, 1, 1], "epochs", [row["epoch"] for row in r.training])
    expect([(row["step"], row["epoch"]) for row in r.tests] == [(2, 0), (4, 1)], "tests", r.tests)


def two_steps(folder, **more):
    """The same run after one step and after two: one a epoch, and the warm-up does not know how long the run is."""
    data = Data(folder, train=10, test=5)
    more = {"warmup": 1000, "lr": 1, **more}
    return data, data.train_to_end(folder / "one", epochs=1, **more), data.train_to_end(folder / "two", epochs=2, **more)


def gradient(before, after, name):
    """What AdamW was given, clipped, from its first moments: m' = 0.9 m + 0.1 g."""
    m0, m1 = (c.flat(f"optimizer.m.{name}") for c in (before, after))
    return [(b - 0.9 * a) / 0.1 for a, b in zip(m0, m1)]


@test
def a_row_is_the_step_of_its_checkpoint(folder):
    """Loss, accuracy and inner losses of step 2 are those of the parameters after step 1."""
    for learner in ("mlp", "linear"):
        data, one, two = two_steps(folder / learner, learner=learner, inner_steps=2, inner_lr=0.5, depth=2)
        losses, right, inner = Model(one.checkpoint, one.config).judge(data.train)
        row = two.training[1]
        expect(near(row["loss"], sum(losses) / 10, FORWARD), "loss", row["loss"], "not", sum(losses) / 10)
        expect(row["accuracy"] == sum(right) / 10, "accuracy", row["accuracy"], "not", sum(right) / 10)
        rows = [r for r in two.inner if r["step"] == 2]
        expect([(r["block"], r["inner_step"]) for r in rows] == [(b, t) for b in range(2) for t in range(3)], rows)
        for r in rows:
            want = inner[int(r["block"])][int(r["inner_step"])]
            expect(near(r["loss"], want, FORWARD), "inner loss", r, "not", want)


@test
def a_step_follows_the_gradient(folder):
    """Through the inner steps: differences of the recomputed loss along what the optimiser was given, which is also
    what the table has the norm of. Central differences of a loss near 2.5 in steps of 1e-4 have some 1e-6 of it."""
    for learner in ("mlp", "linear"):
        data, one, two = two_steps(folder / learner, learner=learner, inner_steps=2, inner_lr=0.5, clip=0)
        names = one.checkpoint.parameters()
        g = {n: gradient(one.checkpoint, two.checkpoint, n) for n in names}
        norm = math.sqrt(sum(v * v for values in g.values() for v in values))
        expect(near(norm, two.training[1]["grad_norm"], 1e-4), "norm", two.training[1]["grad_norm"], "not", norm)
        rng = random.Random(3)
        start = {n: one.checkpoint.flat(n) for n in names}
        for direction in ({n: [v / norm for v in g[n]] for n in names},
                          {n: [rng.gauss(0, 0.03) for _ in g[n]] for n in names}):
            losses = []
            for e in (1e-4, -1e-4):
                for n in names:
                    one.checkpoint.set_flat(n, [a + e * b for a, b in zip(start[n], direction[n])])
                each = Model(one.checkpoint, one.config).judge(data.train)[0]
                losses.append(sum(each) / len(each))
            slope = (losses[0] - losses[1]) / 2e-4
            want = sum(a * b for n in names for a, b in zip(g[n], direction[n]))
            expect(abs(slope - want) < 2e-3 * norm, learner, "the loss changes by", slope, "along a direction, not", want)


@test
def a_step_is_that_of_adamw(folder):
    """From one checkpoint to the next; kernels shrink by the weight decay, vectors do not."""
    decay, rate, t = 0.5, 2 / 1000, 2
    _, one, two = two_steps(folder, weight_decay=decay, clip=0.7)
    squares = 0
    for n in one.checkpoint.parameters():
        g = gradient(one.checkpoint, two.checkpoint, n)
        squares += sum(v * v for v in g)
        shrinks = n.rsplit(".", 1)[1] in ("weight", "W1", "W2", "psi_k", "phi_k", "g_k", "h_k")
        old, new, m, v = (c.flat(k) for c, k in ((one.checkpoint, n), (two.checkpoint, n),
                                                 (two.checkpoint, f"optimizer.m.{n}"),
                                                 (two.checkpoint, f"optimizer.v.{n}")))
        v0 = one.checkpoint.flat(f"optimizer.v.{n}")
        for i, w in enumerate(old):
            want = w * (1 - rate * decay * shrinks)
            want -= rate * (m[i] / (1 - 0.9 ** t)) / (math.sqrt(v[i] / (1 - 0.999 ** t)) + 1e-8)
            expect(abs(new[i] - want) < 1e-6 * (1 + abs(want)), n, "is", new[i], "not", want)
            second = 0.999 * v0[i] + 0.001 * g[i] * g[i]
            expect(abs(v[i] - second) < 1e-4 * v[i] + 1e-9, "second moment of", n, "is", v[i], "not", second)
    expect(near(math.sqrt(squares), 0.7, 1e-4), "a gradient clipped to 0.7 has a norm of", math.sqrt(squares))


@test
def learning_rates_are_those_of_the_schedule(folder):
    r = Data(folder, train=50, test=5).train_to_end(folder / "run", epochs=5, warmup=8, lr=0.003)
    for i, row in enumerate(r.training):
        want = 0.003 * ((i + 1) / 8 if i < 8 else 0.5 * (1 + math.cos(math.pi * (i - 8) / (25 - 8))))
        expect(near(row["lr"], want, 1e-8), "step", i + 1, "has", row["lr"], "not", want)


@test
def rows_are_means_since_the_last(folder):
    data = Data(folder, train=80, test=5)
    every, some = (data.train_to_end(folder / str(n), epochs=2, log_every=n) for n in (1, 3))
    steps = [int(row["step"]) for row in some.training]
    expect(steps == [1, 3, 6, 8, 9, 12, 15, 16], "rows at", steps)
    begin = 0
    for row in some.training:
        window = every.training[begin:int(row["step"])]
        begin = int(row["step"])
        for key in ("loss", "accuracy"):
            want = sum(w[key] for w in window) / len(window)
            expect(near(row[key], want, 1e-7) or row[key] == want, key, "of step", begin, "is", row[key], "not", want)
    expect([row["step"] for row in every.inner] == [float(s) for s in range(1, 17) for _ in range(2)], "inner losses")


# Every flag that says what is computed, and another value for it.
OTHERS = {"learner": "linear", "dtype": "bfloat16", "inner-steps": 2, "inner-batch": 2, "inner-lr": 0.5, "patch": 2, "positions": "learned",
          "dim": 16, "heads": 4, "depth": 2, "decoder-norm": "off", "learned-start": "frozen",
          "hidden": 20, "epochs": 2, "batch": 8, "lr": 0.02, "weight-decay": 0.3, "clip": 0.1,
          "warmup": 3, "seed": 43, "train-images": 50, "test-images": 21, "log-every": 3}
# ... those that say how: the same to rounding, which a few steps of training keep small ...
HOW = {"scan": "yes", "keep-every": "sqrt", "checkpoint": "yes", "accumulate": 5}
# ... and those that do not matter at all.
NO_MATTER = {"threads": 2, "save-every": 2}


@test
def every_flag_changes_the_result(folder):
    data = Data(folder, train=60, test=22)
    plain = data.train_to_end(folder / "plain")
    same(plain, data.train_to_end(folder / "again"))
    asked = set(plain.config) - {"machines", "images"}
    tested = set(OTHERS) | set(HOW) | set(NO_MATTER) | {"backend", "data", "out", "resume", "force"}
    expect(asked == tested, "flags without a test:", asked ^ tested)
    for name, value in OTHERS.items():
        other = Result(folder / name, succeed("mttt", {**data.flags(folder / name), name: value}))
        expect(other.config[name] == value, "config.json has --" + name, other.config[name])
        tests_only = name == "test-images"
        before, after = plain.lasting(), other.lasting()
        expect(before[2] != after[2], "--" + name, value, "changes no row of metrics.csv")
        if name not in ("test-images", "log-every"):
            expect(before[0] != after[0], "--" + name, value, "changes nothing in the checkpoint")
        else:
            expect(before[0] == after[0], "--" + name, value, "changes the checkpoint")
        expect(tests_only or plain.training != other.training, "--" + name, "changes no row of training")
    for name, value in NO_MATTER.items():
        same(plain, Result(folder / name, succeed("mttt", {**data.flags(folder / name), name: value})))
    other = Result(folder / "reference", succeed("mttt", data.flags(folder / "reference", backend="reference")))
    expect(other.config["machines"][0]["backend"] == "reference", other.config["machines"])
    for a, b in zip(plain.losses()[:2], other.losses()):
        expect(near(a, b, FORWARD), "the reference backend has a loss of", b, "not", a)


@test
def scans_and_checkpoints_change_no_number(folder):
    data = Data(folder, train=60, test=22)
    flags = {"inner_steps": 4, "inner_lr": 0.5, "depth": 2}
    plain = data.train_to_end(folder / "plain", **flags)
    for name, value in HOW.items():
        more = {**flags, name: value, **({"scan": "yes"} if name == "keep-every" else {})}
        other = data.train_to_end(folder / name, **more)
        expect(other.config[name] in (value, True), "config.json has --" + name, other.config[name])
        expect(len(plain.losses()) == 6, len(plain.losses()), "rows")
        for a, b in zip(plain.losses(), other.losses()):
            expect(near(a, b, 1e-4), "--" + name, "has a loss of", b, "not", a)
        for a, b in zip(plain.training, other.training): # which AdamW's steps hardly tell
            expect(near(a["grad_norm"], b["grad_norm"], 1e-2), "--" + name, "has a gradient of", b["grad_norm"], "not", a["grad_norm"])
    for wrong in ("0", "-1", "root", "", "3x"):
        refused(run("mttt", data.flags(folder / "wrong", keep_every=wrong)), "--keep-every", "sqrt or log")


@test
def a_step_is_foretold(folder):
    """The parts are the whole; what loops keep is there with a scan, and less with --keep-every."""
    data = Data(folder, train=20, test=5)
    kept = []
    for n, more in enumerate(({"scan": "no"}, {"scan": "yes"}, {"scan": "yes", "keep_every": "sqrt"})):
        r = data.train_to_end(folder / str(n), inner_steps=9, dim=32, **more)
        lines = [line for line in r.done.err.splitlines() if line.startswith("a step: ")]
        expect(len(lines) == 1, "lines about a step:", lines)
        numbers = [float(x) for x in re.findall(r"[0-9]+\.[0-9]", lines[0])]
        whole, parts = numbers[0], numbers[1:7]
        expect(abs(whole - sum(parts)) < 0.4, "parts of", whole, "are", parts)
        kept.append(parts[3])
    expect(kept[0] == 0 < kept[2] < kept[1], "kept through loops:", kept)


@test
def a_step_is_planned_once(folder):
    """The first as well: a longer run makes no more plans, but for a second kind of step, without inner losses."""
    data = Data(folder, train=80, test=5)
    for n, (more, others) in enumerate((({"log_every": 1}, 0), ({"log_every": 5}, 1), ({"learner": "softmax", "log_every": 5}, 0),
                                        ({"log_every": 1, "accumulate": 5}, 0), ({"log_every": 1, "inner_batch": 2}, 0))):
        plans = []
        for images in (10, 80):
            dumps = folder / f"dumps-{n}-{images}"
            dumps.mkdir()
            succeed("mttt", data.flags(folder / f"{n}-{images}", train_images=images, **more),
                    env=environment(MB_DUMP="steps", MB_DUMP_TO=str(dumps)))
            plans.append(len(list(dumps.glob("*-steps.txt"))))
        expect(plans[1] - plans[0] == others, more, "makes", plans, "plans for one step and for eight")


@test
def parts_of_a_batch_take_less_memory(folder):
    data = Data(folder, train=40, test=5)
    needs = []
    for parts in (1, 4):
        r = data.train_to_end(folder / str(parts), batch=20, accumulate=parts, dim=32, inner_steps=3)
        lines = [line for line in r.done.err.splitlines() if " MB at most" in line]
        expect(len(lines) == (1 if parts == 1 else 2), "lines about a step:", lines)
        needs.append(max(float(re.search(r"temporaries ([0-9.]+)", line)[1]) for line in lines))
    expect(needs[1] < 0.35 * needs[0], "temporaries of a batch and of a quarter, in MB:", needs)
    refused(run("mttt", data.flags(folder / "wrong", batch=20, accumulate=3)), "--accumulate 3 does not divide --batch 20")


@test
def a_step_that_does_not_fit_is_refused(folder):
    """784 tokens in 100 images and 4 heads: a matrix of all pairs takes 1 GB, in the test with its one image 10 MB.
    In slices of the batch it fits."""
    def limited():
        resource.setrlimit(resource.RLIMIT_AS, (1200 << 20, 1200 << 20))
    data = Data(folder, train=100, test=1, side=28)
    flags = data.flags(folder / "run", learner="softmax", patch=1, heads=4, batch=100)
    whole = {"preexec_fn": limited, "env": environment(MB_DISABLE="slices")}
    done = run("mttt", flags, **whole)
    refused(done, "a step needs", "address space", "--force")
    expect(len([line for line in done.err.splitlines() if line.startswith("mttt: ")]) == 1, "more than a sentence:", done.err)
    expect(not (folder / "run" / "checkpoint.safetensors").exists(), "a checkpoint of nothing")
    refused(run("mttt", flags, ["--force"], **whole), "out of memory")
    succeed("mttt", flags, preexec_fn=limited)


@test
def inner_steps_and_batches_are_those_asked_for(folder):
    """With less than all tokens a step, a learner sees others: all inner losses but the first change."""
    data = Data(folder, train=10, test=5)
    full, part = (data.train_to_end(folder / str(n), inner_steps=3, inner_batch=n) for n in (0, 2))
    expect(len(full.inner) == len(part.inner) == 4, len(full.inner), len(part.inner))
    expect(near(full.inner[0]["loss"], part.inner[0]["loss"], 1e-6), "before the first step", full.inner[0], part.inner[0])
    for a, b in zip(full.inner[1:], part.inner[1:]):
        expect(not near(a["loss"], b["loss"], 1e-4), "the same", a, b)
