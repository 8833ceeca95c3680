# SPDX-License-Identifier: MIT
"""examples/hyper and examples/maml: their numbers by other ways of computing them."""
import re

from harness import environment, expect, near, succeed, test


def hyper(*more, **options):
    """{way: loss, three derivatives, time, memory}"""
    lines = succeed("hyper", (), list(map(str, more)), **options).out.splitlines()
    return {words[0]: list(map(float, words[1:])) for words in map(str.split, lines[1:]) if len(words) == 7}


@test
def hypergradients_agree(folder):
    """In reverse and forward the program compares itself; here with all steps on the tape, and other backends' loops."""
    both = hyper(60)
    expect(set(both) == {"reverse", "forward"}, both)
    others = [hyper(60, "unrolled")["unrolled"], hyper(60, "reverse", env=environment(MB_DISABLE="loops"))["reverse"],
              hyper(60, "forward", env=environment(MB_BACKEND="reference"))["forward"]]
    for other in others + [both["forward"]]:
        for a, b in zip(both["reverse"][:4], other[:4]):
            expect(abs(a - b) < 2e-6 * (1 + abs(b)), "of", both["reverse"], "and", other)  # six decimals are printed
    expect(all(abs(x) > 1e-3 for x in both["reverse"][:4]), "nothing to compare:", both)


@test
def hypergradients_keep_little(folder):
    """In MB: forward the same for ten times the steps; in reverse the square root of it at most, with what is constant."""
    few, many = hyper(100), hyper(1000)
    expect(many["forward"][5] < few["forward"][5] + 0.1, few, many)
    expect(many["reverse"][5] < 3.3 * few["reverse"][5], few, many)
    expect(hyper(100, "unrolled")["unrolled"][5] > 10 * few["reverse"][5], "of an unrolled loop:", few)


def maml(*more, **options):
    """Losses by steps of adaptation, and rates."""
    out = succeed("maml", (), list(map(str, more)), **options).out
    rows = re.findall(r"after +(\d+) steps on \d+ points: ([0-9.]+) ", out)
    return {int(t): float(loss) for t, loss in rows}, list(map(float, out.split("rates")[1].split()))


@test
def maml_adapts(folder):
    """A start that was learned adapts in one step, one that was not does not. In 1500 steps of the 20000 that the program
    takes by itself, to half the loss with 10 points."""
    before, _ = maml(10, 0)
    expect(before[1] > 0.8 * before[0], "a start that learned nothing adapts:", before)
    for way in ("full", "first-order", "learned-rates"):
        after, rates = maml(10, 1500, way)
        expect(after[1] < 0.5 * after[0], way, after)
        expect(all(near(r, 0.01, 1e-6) for r in rates) == (way != "learned-rates"), way, "has rates", rates)


@test
def maml_goes_through_its_loop(folder):
    """Derivatives through a scan of three steps are those of three steps one after the other. What is printed has three
    decimals, and float32 sums differ in the last bits, which ten steps of Adam do not blow up."""
    for way in ("full", "learned-rates"):
        scan, unrolled = maml(5, 10, way, 3), maml(5, 10, way, 3, env=environment(MB_DISABLE="loops"))
        for t, loss in scan[0].items():
            expect(abs(loss - unrolled[0][t]) <= 0.0021, way, scan, unrolled)
        for a, b in zip(scan[1], unrolled[1]):
            expect(abs(a - b) <= 0.00011, way, scan, unrolled)
    expect(maml(5, 10, "full", 3)[0] != maml(5, 10, "first-order", 3)[0], "the first order is the full one")
