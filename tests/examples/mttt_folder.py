# SPDX-License-Identifier: MIT
"""What a file system, a shell and other processes can do to a run of examples/mttt and to its folder."""
import os
import resource
import shutil
import stat

import formats
from harness import Held, environment, expect, refused, run, succeed, test
from mttt import Data, Result, same

PICTURES = ("accuracy.png", "inner_loss.png", "loss.png")


def tables_are_clean(folder):
    """Rows of numbers only, as many fields as the header: formats.table raises where one has not."""
    for name in ("metrics.csv", "inner_loss.csv"):
        for row in formats.table(folder / name):
            expect(all(v is None or isinstance(v, float) for v in row.values()), name, "has", row)


# ---- one run in a folder at a time ----

@test
def a_second_run_is_refused(folder):
    """Before it has touched anything; the first ends as if nothing had been."""
    data = Data(folder, train=300, test=5)
    more = {"batch": 1, "log-every": 2, "save-every": 7}
    plain = data.train_to_end(folder / "plain", **more)
    flags = data.flags(folder / "run", **more)
    held = Held("mttt", flags)
    held.until_held()
    refused(run("mttt", flags), "in use", str(held.process.pid))
    refused(run("mttt", flags, ["--resume"]), "in use", str(held.process.pid))
    done = held.finish()
    expect(done.status == 0, done.status, done.err[-300:])
    same(plain, Result(folder / "run"))
    expect(not (folder / "run/lock").exists(), "the lock is left")


@test
def a_killed_run_locks_nobody_out(folder):
    data = Data(folder, train=300, test=5)
    flags = data.flags(folder / "run", batch=1, save_every=7)
    held = Held("mttt", flags)
    held.until_held()
    held.kill()
    expect((folder / "run/lock").exists(), "there was no lock")
    succeed("mttt", flags, ["--resume"])


@test
def runs_that_begin_together_get_their_own_folders(folder):
    data = Data(folder, train=20, test=5)
    flags = data.flags("")
    held = [Held("mttt", flags, room=1, cwd=folder) for _ in range(3)]
    for h in held:
        h.until(lambda: len(list((folder / "runs").glob("*/metrics.csv"))) == 3 if (folder / "runs").exists() else False)
    for h in held:
        expect(h.finish().status == 0, "status")
    results = [Result(folder / "runs" / f"mttt-mlp-00{i}") for i in (1, 2, 3)]
    same(results[0], results[1])
    same(results[0], results[2])
    done = succeed("mttt", flags, ["--resume"], cwd=folder)
    expect("runs/mttt-mlp-003" in done.err, done.err)


@test
def a_run_is_not_overwritten(folder):
    data = Data(folder, train=20, test=5)
    data.train_to_end(folder / "run")
    before = {f.name: f.read_bytes() for f in (folder / "run").iterdir()}
    refused(run("mttt", data.flags(folder / "run")), "holds a run already")
    expect({f.name: f.read_bytes() for f in (folder / "run").iterdir()} == before, "something has changed")
    refused(run("mttt", data.flags(folder / "nothing"), ["--resume"]), "there is no")
    expect(not (folder / "nothing").exists(), "--resume has made a folder")


@test
def what_cannot_be_trained_leaves_no_folder(folder):
    data = Data(folder, train=20, test=5)
    for more, words in (({"patch": 3}, "does not divide"), ({"batch": 21}, "above the 20 images"),
                        ({"train-images": 21}, "21 images wanted"), ({"heads": 3}, "heads"),
                        ({"data": folder / "nowhere"}, "nowhere"), ({"backend": "abacus"}, "abacus")):
        refused(run("mttt", {**data.flags(folder / "run"), **more}), words)
        expect(not (folder / "run").exists(), "a folder is left by", more)


@test
def steps_that_no_checkpoint_can_count_are_refused(folder):
    data = Data(folder, train=3000, test=5, side=4)
    refused(run("mttt", data.flags(folder / "run", batch=1, epochs=1000000)), "2147483647 steps")


@test
def images_of_two_sizes_are_refused(folder):
    data = Data(folder, train=20, test=5)
    formats.synthetic(5, 3, 2, side=4).write(data.folder, "test")
    refused(run("mttt", data.flags(folder / "run")), "8 by 8", "4 by 4")


# ---- standard streams ----

def closed(*streams):
    def close():
        for s in streams:
            os.close(s)
    return close


@test
def closed_streams_get_no_file(folder):
    """stdout, stderr or both are closed: what would go there goes nowhere, least of all into a table."""
    data = Data(folder, train=20, test=5)
    plain = data.train_to_end(folder / "plain")
    for streams, status in (((0,), 0), ((1,), 1), ((2,), 0), ((0, 1, 2), 1), ((0, 2), 0)):
        out = folder / "closed-{}".format("-".join(map(str, streams)))
        done = run("mttt", data.flags(out), preexec_fn=closed(*streams))
        expect(done.status == status, streams, "closed: status", done.status, done.err)
        tables_are_clean(out)
        same(plain, Result(out))
        if 1 in streams and 2 not in streams:
            expect("standard output could not be written" in done.err, done.err)


@test
def a_full_standard_output_is_an_error(folder):
    data = Data(folder, train=20, test=5)
    plain = data.train_to_end(folder / "plain")
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = run("mttt", data.flags(folder / "run"), stdout=full)
        refused(done, "standard output could not be written", "No space left")
        refused(run("mttt", more=["--help"], stdout=full), "No space left")
        same(plain, Result(folder / "run"))
        succeed("mttt", data.flags(folder / "err"), stderr=full)  # progress is no result
    same(plain, Result(folder / "err"))


# ---- pictures ----

@test
def pictures_are_drawn_whatever_the_folder_is_called(folder):
    data = Data(folder, train=10, test=5)
    names = ["-x", "-", "q'u\"o $(touch caught)", "line\nbreak", "dir/-é"]
    decoy = folder / "decoy"
    for n in names:
        (decoy / n).mkdir(parents=True)
    (folder / ".gnuplot").write_text("exit status 3\n")
    env = environment(pictures=True, CDPATH=str(decoy), HOME=str(folder))
    for n in names:
        succeed("mttt", data.flags(n, learner="softmax"), cwd=folder, env=env)
        for picture in ("accuracy.png", "loss.png"):
            fault = formats.png_fault(folder / n / picture)
            expect(not fault, n, picture, fault)
        expect({f.name for f in (folder / n).iterdir()}
               == {"accuracy.png", "checkpoint.safetensors", "config.json", "loss.png", "metrics.csv"},
               "in the folder:", sorted(f.name for f in (folder / n).iterdir()))
    expect(not list(folder.rglob("caught")), "the folder's name was run as a command")
    expect(not [f for f in decoy.rglob("*") if f.is_file()], "files are in the folder that CDPATH has")


@test
def no_cut_picture_is_left(folder):
    """Files may have 16 KB, as on a disk that fills: tables and the checkpoint fit, the pictures do not."""
    data = Data(folder, train=10, test=5)
    small = {"dim": 2, "heads": 1, "patch": 8, "positions": "learned"}
    limit = 16 << 10

    def full_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    env = environment(pictures=True)
    done = run("mttt", data.flags(folder / "run", **small), env=env, preexec_fn=full_disk)
    refused(done, "no ", "loss.png")
    expect("test accuracy" in done.out, "the result is not printed:", done.out)
    left = sorted(f.name for f in (folder / "run").iterdir())
    expect(not [n for n in left if ".png" in n], "left:", left)
    tables_are_clean(folder / "run")
    again = succeed("mttt", data.flags(folder / "run", **small), ["--resume"], env=env)
    for picture in PICTURES:
        fault = formats.png_fault(folder / "run" / picture)
        expect(not fault, picture, fault, again.err)
    before = (folder / "run/loss.png").read_bytes()
    refused(run("mttt", data.flags(folder / "run", **small), ["--resume"], env=env, preexec_fn=full_disk), "loss.png")
    expect((folder / "run/loss.png").read_bytes() == before, "the picture that was there is gone")


def fake_gnuplot(folder, script):
    """A folder whose gnuplot is this script."""
    folder.mkdir()
    path = folder / "gnuplot"
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return f"{folder}:/usr/bin:/bin"


@test
def whatever_gnuplot_does_is_told(folder):
    """It fails, dies, reads nothing, says that all is well and has drawn nothing, or half, or twice as much."""
    data = Data(folder, train=10, test=5)
    whole = folder / "whole.png"
    data.train_to_end(folder / "plain")
    succeed("mttt", data.flags(folder / "plain"), ["--resume"], env=environment(pictures=True))
    shutil.copy(folder / "plain/loss.png", whole)
    size = whole.stat().st_size
    name = "name=$(sed -n \"s/^set output '\\(.*\\)'/\\1/p\")\n"
    scripts = {"fails": "cat >/dev/null; exit 3", "draws and fails": f'{name}cat "{whole}" >"$name"; exit 3',
               "dies": "cat >/dev/null; kill -9 $$", "reads nothing": "exit 0",
               "draws nothing": "cat >/dev/null", "draws half": f'{name}head -c {size // 2} "{whole}" >"$name"',
               "cuts": f'{name}head -c {size - 1} "{whole}" >"$name"',
               "draws too much": f'{name}cat "{whole}" "{whole}" >"$name"',
               "leaves a page out": f'{name}(head -c 4096 "{whole}"; tail -c +8193 "{whole}") >"$name"',
               "draws text": f'{name}echo picture >"$name"'}
    for n, (what, script) in enumerate(scripts.items()):
        env = environment(PATH=fake_gnuplot(folder / f"bin{n}", script))
        done = run("mttt", data.flags(folder / f"run{n}"), env=env)
        expect(done.status == 1 and "loss.png" in done.err and "test accuracy" in done.out, what, done.status, done.err)
        expect(not list((folder / f"run{n}").glob("*.png*")), "gnuplot", what, "and leaves a picture")
    env = environment(PATH=fake_gnuplot(folder / "good", f'{name}cat "{whole}" >"$name"'))
    succeed("mttt", data.flags(folder / "run"), env=env)
    done = succeed("mttt", data.flags(folder / "without"))
    expect(done.err.count("gnuplot is not installed") == 1, done.err)
    expect(not (folder / "without/gnuplot.log").exists(), "an empty gnuplot.log is left")


# ---- disks ----

@test
def a_full_disk_leaves_the_last_checkpoint(folder):
    """At every size at which files can be cut off, the run ends with 1, and goes on afterwards to the same bits."""
    data = Data(folder, train=80, test=5)
    more = {"epochs": 2, "save-every": 3}
    plain = data.train_to_end(folder / "plain", **more)
    sizes = {f.name: f.stat().st_size for f in (folder / "plain").iterdir()}
    limits = {200, 700, sizes["inner_loss.csv"] // 2, sizes["metrics.csv"] // 2, sizes["metrics.csv"] - 1,
              sizes["checkpoint.safetensors"] - 1}
    for limit in sorted(limits):
        out = folder / f"limit-{limit}"
        flags = data.flags(out, **more)

        def full_disk(limit=limit):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        done = run("mttt", flags, preexec_fn=full_disk)
        refused(done, "File too large")
        left = {f.name for f in out.iterdir()}
        expect(not [n for n in left if ".tmp" in n], "left:", left)
        # A checkpoint is larger than tables are here: where those are cut, none has been written.
        succeed("mttt", flags, ["--resume"] if "checkpoint.safetensors" in left else [])
        same(plain, Result(out))


@test
def tables_that_are_cut_off_in_the_middle_go_on(folder):
    """The checkpoint is there, and then the disk is full: rows are cut in the middle, and resumed from before."""
    data = Data(folder, train=300, test=5)
    small = {"dim": 2, "heads": 1, "patch": 8, "positions": "learned", "batch": 1, "save-every": 20}
    plain = data.train_to_end(folder / "plain", **small)
    size = (folder / "plain/checkpoint.safetensors").stat().st_size
    limit = size + 100
    expect((folder / "plain/metrics.csv").stat().st_size > limit + 1000, "the table is not longer than", limit)

    def full_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    flags = data.flags(folder / "run", **small)
    refused(run("mttt", flags, preexec_fn=full_disk), "metrics.csv: File too large")
    at = int(formats.Checkpoint(folder / "run/checkpoint.safetensors").notes["step"])
    expect(0 < at < 300, "the checkpoint is of step", at)
    expect((folder / "run/metrics.csv").stat().st_size == limit, "the table was not cut off")
    succeed("mttt", flags, ["--resume"])
    same(plain, Result(folder / "run"))


@test
def config_is_replaced_as_a_whole(folder):
    """On another machine it grows; where there is no room for it, it stays."""
    data = Data(folder, train=20, test=5)
    data.train_to_end(folder / "run")
    before = {f.name: f.read_bytes() for f in (folder / "run").iterdir()}

    def full_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
    refused(run("mttt", data.flags(folder / "run", backend="reference"), ["--resume"], preexec_fn=full_disk),
            "config.json", "File too large")
    expect({f.name: f.read_bytes() for f in (folder / "run").iterdir()} == before, "something has changed")
