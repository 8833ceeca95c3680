#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""examples/python/moebius_mpi.py on one of two ranks: what it declares, by a C compiler; values and derivatives, by closed
forms; what ranks that disagree raise. Exits 1 and says what is wrong if something is.

  in_ranks.py 2 python_ranks.py LIBRARY MPI_LIBRARY COMPILER [ARGUMENT...]
"""
import os
import sys

import python as plain  # beside this file: the same words, for what one process does
from python import equal, expect, failures, moebius, raises
from moebius import FLOAT64
import moebius_mpi

tests = []


def test(function):
    tests.append(function)
    return function


@test
def operations(mb, ranks):
    """On rank r x = (r + 1) (1, 2), of which the sum is (3, 6)."""
    r = ranks.rank
    x = (r + 1) * mb.tensor([1, 2], FLOAT64)
    total = ranks.all_reduce(x)
    equal(total, [3, 6])
    equal(ranks.all_reduce(x, "mean"), [1.5, 3])
    equal(ranks.all_reduce(x, "max"), [2, 4])
    equal(ranks.all_gather(x), [[1, 2], [2, 4]])
    equal(ranks.reduce_scatter(x), 3 * (r + 1))
    equal(ranks.broadcast_from(x, 1), [2, 4])
    equal(moebius.grad(total.square(), x), [12, 24])  # 2 (3, 6) from each of the two
    expect(ranks.size == 2 and ranks.counted().ops > 5, ranks.size, ranks.counted().ops)
    raises(ValueError, "'least' is none of sum, mean, max", lambda: ranks.all_reduce(x, "least"))


@test
def training(mb, ranks):
    """Losses (r + 1) w on rank r: along the mean of the gradients, 1.5."""
    params = moebius.Params(mb, ranks.rank, FLOAT64)
    w = params.param("w", 2, moebius.init("normal", 1))
    own = w.tolist()
    ranks.broadcast(params, 1)
    expect((w.tolist() == own) == (ranks.rank == 1), "the root's")
    equal(ranks.all_gather(w)[0], w.tolist())
    optimizer = moebius.Optimizer("sgd", params, lr=0.5, momentum=0.5)
    ranks.share_gradients(optimizer)

    def step():
        before = mb.tensor(w.read())
        with mb.scope():
            optimizer.step((ranks.rank + 1) * w.sum())
        return (w - before).tolist()
    equal(step(), [-0.75, -0.75])
    path = os.path.join(os.environ["TESTS_FOLDER"], "optimizer.safetensors")
    ranks.save(optimizer, path)
    second = step()
    equal(second, [-1.125, -1.125])
    ranks.load(optimizer, path)
    equal(step(), second)
    means = ranks.mean_gradients([w * 0 + ranks.rank, w * 0 + 2])
    equal(means[0], [0.5, 0.5])
    equal(means[1], [2, 2])
    ranks.agree()
    raises(moebius.Error, "/nowhere", lambda: ranks.load(optimizer, "/nowhere/at/all"))
    mb.clear()


@test
def errors_of_one_are_of_all(mb, ranks):
    line = sys._getframe().f_lineno + 2
    if ranks.rank == 1:
        raises(moebius.Error, "reshape", lambda: mb.zeros(2).reshape(7), line)
    raises(moebius.Error, "reshape", ranks.agree, line)


@test
def ranks_that_disagree(mb, ranks):
    x = mb.zeros(2 + ranks.rank)
    line = sys._getframe().f_lineno + 1
    total = ranks.all_reduce(x)
    raises(moebius.Error, "rank 0 is at an all_reduce (sum) of 2 float32, and rank 1 at an all_reduce (sum) of 3 float32",
           total.read, line)


def main(library, mpi_library, *compiler):
    moebius.load(library)
    moebius_mpi.load(mpi_library)
    plain.check_declarations(compiler, "optim/mpi/ranks.h", moebius_mpi.DECLARATIONS, moebius_mpi.STRUCTURES,
                             [("MB_REDUCE", moebius_mpi.REDUCTIONS)])
    with moebius.Context() as outer:
        moebius_mpi.Ranks(outer)  # MPI ends with the last of them, and cannot begin again
        for function in tests:
            with moebius.Context() as mb:
                ranks = moebius_mpi.Ranks(mb, patience=30)
                try:
                    function(mb, ranks)
                except Exception as error:  # what is left of a test, not of all
                    failures.append(f"{function.__name__}: {type(error).__name__}: {error}")
    print("\n".join(failures) or f"{len(tests)} tests")
    return bool(failures)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
