#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""moebius-mpi with several ranks, begun by mpirun; the last line is "N passed, N failed".

  ranks.py BUILD [--vulkan]

Each test is one mpirun, or some that are compared; none may take longer than a minute.
"""
import csv
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import time

BUILD = os.path.abspath(sys.argv[1])
RANK = os.path.join(BUILD, "tests", "mpi", "rank")
TESTS = []


def test(f):
    TESTS.append(f)
    return f


class Failure(Exception):
    pass


def expect(ok, *what):
    if not ok:
        raise Failure(" ".join(map(str, what)))


def environment(**more):
    """As root in a container: allowed, and without the kernel's copies from process to process, which need a capability."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MB_")}
    return {**kept, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "MB_THREADS": "1",
            "OMPI_MCA_btl_vader_single_copy_mechanism": "none", **more}


def ranks(n, *arguments, good=True, backend="cpu", **more):
    """What n ranks print, both streams; good: whether all should exit with 0, None: either."""
    command = ["mpirun", "-n", str(n), "--oversubscribe", *arguments]
    try:
        done = subprocess.run(command, env=environment(TESTS_BACKEND=backend, **more), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=60, check=False)
    except subprocess.TimeoutExpired as late:
        raise Failure(f"{command}: hangs: {late.stdout}") from late
    expect(good is None or (done.returncode == 0) == good, command, "status", done.returncode, "\n" + done.stdout)
    return done.stdout


def run(n, *arguments, **more):
    return ranks(n, RANK, *arguments, **more)


def ops_on(n, backend):
    def ops():
        run(n, "ops", backend=backend)
    ops.__name__ = f"ops_of_{n}_on_{backend}"
    return ops


for ranks_of, on in [(1, "cpu"), (2, "cpu"), (3, "cpu"), (2, "reference"), (3, "reference")]:
    test(ops_on(ranks_of, on))
if "--vulkan" in sys.argv:
    test(ops_on(2, "vulkan"))


@test
def mpi_of_the_programs_own():
    run(3, "own")


@test
def debug_asks_twice():
    """MB_DEBUG computes each op once more, by the reference backend: on all ranks alike."""
    run(2, "train", "/none", "none", "64", MB_DEBUG="1")


def expect_told(said, n, *wanted, by=None):
    """Each rank prints a sentence with all that is wanted."""
    for r in range(n) if by is None else by:
        lines = [line for line in said.splitlines() if line.startswith(f"rank {r}: ")]
        expect(len(lines) == 1, f"rank {r} prints", lines, "of", said)
        for w in wanted:
            expect(w in lines[0], f"wanted {w!r} in", lines[0])


DISAGREE = {
    "shape": ["rank 0 is at an all_reduce (sum) of 6 float32, and rank 2 at an all_reduce (sum) of 4 float32", "mistakes.c:"],
    "dtype": ["6 float32", "rank 2 at an all_reduce (sum) of 6 float64"],
    "op": ["an all_reduce (maximum) of 6 float32", "rank 2 at an all_gather of 6 float32"],
    "root": ["a broadcast_from rank 0 of", "rank 2 at a broadcast_from rank 1 of"],
    "order": ["an all_reduce (sum) of 4", "rank 2 at an all_reduce (sum) of 6"],
    "buckets": ["an all_reduce (mean) of 5", "rank 2 at an all_reduce (mean) of 6"],
}


def disagreeing(how, wanted):
    def disagree():
        expect_told(run(3, "disagree", how), 3, *wanted)
    disagree.__name__ = "disagree_on_" + how
    return disagree


for kind, sentence in DISAGREE.items():
    test(disagreeing(kind, sentence))


@test
def a_rank_that_closes():
    expect_told(run(3, "disagree", "close"), 3, "rank 2 is at mb_mpi_close, and rank 0 at an all_reduce", by=[0, 1])


@test
def a_rank_with_an_error():
    said = run(3, "disagree", "error")
    expect_told(said, 3, "rank 2 is at mb_mpi_close with the error: ", "matmul: ", by=[0, 1])
    expect_told(said, 3, "matmul: got a [6]", by=[2])


@test
def an_error_that_all_agree_on():
    expect_told(run(3, "disagree", "agree"), 3, "a file that only this rank reads")


@test
def a_rank_that_is_killed():
    said = run(3, "disagree", "killed", good=False)
    expect(re.search(r"rank 2 .*signal 9", said), said)


@test
def a_rank_that_exits():
    said = run(3, "disagree", "exits", good=False)
    expect("rank 2: this is what went wrong" in said, said)


@test
def patience():
    said = run(2, "disagree", "late", good=None, TESTS_PATIENCE="0.5")
    expect_told(said, 2, "other ranks did not come within 0.5 seconds", by=[0])


def losses(said):
    return [tuple(map(float, pair)) for pair in re.findall(r"^loss (\S+) norm (\S+)$", said, flags=re.M)]


def parameters(said):
    return re.findall(r"^parameters (\S+)$", said, flags=re.M)


def expect_same_training(a, b):
    """Batches are added in another order: float32's rounding, grown in ten steps of a loss that falls to a tenth."""
    expect(len(a) == len(b) and len(a) > 0, a, b)
    for (loss, norm), (other, other_norm) in zip(a, b):
        expect(abs(loss - other) <= 1e-6 * max(1, loss) and abs(norm - other_norm) <= 3e-6 * norm, a, b)


@test
def training():
    """With 1, 2 and 3 ranks the same losses and norms; with as many ranks the same bits in each run, and whatever the
    buckets; a checkpoint of any number of ranks goes on with any other."""
    with tempfile.TemporaryDirectory() as folder:
        said = {n: run(n, "train", f"{folder}/{n}", "save", "64") for n in (1, 2, 3)}
        for n in (2, 3):
            expect_same_training(losses(said[n]), losses(said[1]))
        for backend in ("cpu", "reference"):
            expect_same_training(losses(run(2, "train", "", "none", "0", backend=backend)), losses(said[1]))
        expect(parameters(run(3, "train", "", "none", "0")) == parameters(said[3]), "another run, other bits")
        for n, of in ((3, 1), (1, 3), (2, 3), (2, 2)):
            again = run(n, "train", f"{folder}/{of}", "load", "64")
            expect_same_training(losses(again), losses(said[of])[5:])
            if n == of:
                expect(parameters(again) == parameters(said[n]), "resumed, other bits")


@test
def a_file_that_rank_0_cannot_write():
    expect_told(run(2, "train", "", "missing", "0"), 2, "/nowhere/at/all: cannot make a file there")


@test
def buckets_begin_early():
    """Within the backward sweep, before its last product, and are waited for after it."""
    with tempfile.TemporaryDirectory() as folder:
        apart = f'MB_DUMP_TO="{folder}/$OMPI_COMM_WORLD_RANK" exec {shlex.quote(RANK)} train "" none 32'
        ranks(2, "sh", "-c", apart, MB_DUMP="steps")
        plans = [f.read_text(encoding="utf-8") for f in pathlib.Path(folder).glob("*/*.txt")]
    plans = [p for p in plans if "mean_gradients_begin" in p]
    expect(len(plans) >= 2, len(plans), "plans have buckets")
    for plan in plans:
        kinds = re.findall(r"\b(mean_gradients_begin|mean_gradients|product)\b", plan)
        last_product = len(kinds) - 1 - kinds[::-1].index("product")
        expect(kinds.index("mean_gradients_begin") < last_product < kinds.index("mean_gradients"), "in this order:", kinds)


MTTT = os.path.join(BUILD, "examples", "mttt")
SMALL = ["--train-images", "240", "--test-images", "50", "--depth", "1", "--dim", "16", "--patch", "7", "--batch", "12", "--log-every", "1",
         "--save-every", "5", "--warmup", "5", "--epochs", "1"]


def metrics(folder):
    with open(os.path.join(folder, "metrics.csv"), encoding="utf-8") as f:
        return list(csv.DictReader(f))


def expect_same_run(a, b):
    """Rows of two runs whose batches are added in another order: the first as exactly as float32 can be, later ones with
    what training makes of it."""
    expect(len(a) == len(b), len(a), "and", len(b), "rows")
    for x, y in zip(a, b):
        for what in ("loss", "accuracy", "test_loss", "test_accuracy", "grad_norm"):
            expect((x[what] == "") == (y[what] == ""), x, y)
            if x[what]:
                expect(abs(float(x[what]) - float(y[what])) <= 1e-6 * max(1, abs(float(x[what]))), what, x, y)


@test
def mttt():
    """One run by 1, 2 and 3 processes; and begun by 2, stopped somewhere, ended by 3."""
    if not os.path.exists(MTTT):
        return
    with tempfile.TemporaryDirectory() as folder:
        one, two, stopped = (os.path.join(folder, name) for name in ("one", "two", "stopped"))
        ranks(1, MTTT, *SMALL, "--out", one)
        said = ranks(2, MTTT, *SMALL, "--out", two)
        expect(said.count("test accuracy") == 1 and said.count("parameters, ") == 1, "printed more than once:", said)
        expect_same_run(metrics(one), metrics(two))
        begun = subprocess.Popen(["mpirun", "-n", "2", "--oversubscribe", MTTT, *SMALL, "--out", stopped], env=environment(),
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 40
        while time.monotonic() < end and not os.path.exists(os.path.join(stopped, "checkpoint.safetensors")):
            time.sleep(0.02)
        begun.terminate()
        begun.wait(timeout=20)
        said = ranks(3, MTTT, *SMALL, "--out", stopped, "--resume")
        expect_same_run(metrics(one), metrics(stopped))
        said = ranks(2, MTTT, *SMALL, "--batch", "15", "--out", os.path.join(folder, "odd"), good=False)
        expect("--batch 15 is not divided by 2 ranks" in said, said)


@test
def the_core_does_not_know_mpi():
    for name in os.listdir(BUILD):
        if re.fullmatch(r"libmoebius\.so[.0-9]*", name):
            said = subprocess.run(["ldd", os.path.join(BUILD, name)], stdout=subprocess.PIPE, text=True, check=True).stdout
            expect("libmpi" not in said and "open-rte" not in said, said)


def main():
    passed = failed = 0
    for f in TESTS:
        try:
            f()
            passed += 1
        except Failure as e:
            failed += 1
            print(f"FAILED: {f.__name__}: {e}", flush=True)
    print(f"{passed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
