#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""examples/python/moebius.py: what it declares, by a C compiler; values and derivatives, by closed forms; errors, and the
lines that they name; who frees what. Exits 1 and says what is wrong if something is.

  python.py LIBRARY COMPILER [ARGUMENT...]     the arguments with which COMPILER finds moebius.h
"""
import array
import ctypes
import gc
import math
import os
import subprocess
import sys
import tempfile
import threading

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(ROOT, "examples", "python"))
import moebius  # noqa: E402
from moebius import BOOL, FLOAT32, FLOAT64, INT32  # noqa: E402

tests, failures = [], []


def test(function):
    tests.append(function)
    return function


def expect(ok, *what):
    if not ok:
        failures.append(f"line {sys._getframe(1).f_lineno}: {' '.join(map(str, what))}")


def equal(x, want):
    """Float64 of a few operations: 1e-12 is thousands of roundings."""
    got = x.tolist() if isinstance(x, moebius.Tensor) else x

    def close(a, b):
        if isinstance(b, list):
            return isinstance(a, list) and len(a) == len(b) and all(map(close, a, b))
        return abs(a - b) <= 1e-12 * (1 + abs(b))
    if not close(got, want):
        failures.append(f"line {sys._getframe(1).f_lineno}: {got}, not {want}")


def raises(kind, part, call, line=None):
    """And names the line of the call, or the one given, where it is the library's."""
    caller = sys._getframe(1)
    line, file = line or caller.f_lineno, caller.f_code.co_filename
    try:
        call()
    except kind as error:
        said = str(error)
        if part not in said or (kind is moebius.Error and f"{file}:{line}: " not in said):
            failures.append(f"line {line}: {said}")
        return
    failures.append(f"line {line}: nothing was raised")


def check_declarations(compiler, header, declarations, structures, enumerations):
    """A second declaration of a function, or of a size, that is another than the header's does not compile."""
    lines = [f"#include <{header}>", "#include <stddef.h>", *(d + ";" for d in declarations),
             f"_Static_assert(MB_MAX_RANK == {moebius.MAX_RANK}, \"MAX_RANK\");"]
    for name, s in structures.items():
        lines.append(f"_Static_assert(sizeof({name}) == {ctypes.sizeof(s)}, \"{name}\");")
        for field, kind in s._fields_:
            lines.append(f"_Static_assert(offsetof({name}, {field}) == {getattr(s, field).offset} && "
                         f"sizeof((({name} *)0)->{field}) == {ctypes.sizeof(kind)}, \"{name}.{field}\");")
    for prefix, names in enumerations:
        for i, name in enumerate(names):
            lines.append(f"_Static_assert((int){prefix}_{name.upper()} == {i}, \"{name}\");")
    done = subprocess.run([*compiler, "-x", "c", "-std=c17", "-fsyntax-only", "-"], input="\n".join(lines) + "\n", text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    expect(done.returncode == 0, done.stdout)


@test
def operators(mb):
    x, y = mb.tensor([1, 4], FLOAT64), mb.tensor(array.array("d", [2, -3]))
    equal(x + y, [3, 1])
    equal(x - y, [-1, 7])
    equal(2 * x - 1, [1, 7])
    equal(3 - x, [2, -1])
    equal(1 / x + True, [2, 1.25])
    equal(x / y, [0.5, -4 / 3])
    equal(abs(-x), [1, 4])
    equal(x ** 0.5 + 2 ** x, [3, 18])
    equal(y % 5, [2, 2])
    equal(7 % x, [0, 3])
    equal(moebius.where((x >= 1) & ~(y > 0), y, x), [1, -3])
    equal(moebius.where((x <= 0) | y.eq(2), -1.0, x), [-1, 4])
    equal(x.maximum(2) + x.minimum(y), [3, 1])
    equal(3 > x, [True, False])
    expect(bool(x[0] < x[1]) and not x[0] > x[1] and float(x[1]) == 4, "one truth value")
    z = x
    z += y
    equal(x, [1, 4])
    raises(TypeError, "", lambda: x + "1")
    raises(TypeError, "", lambda: x @ 2)
    raises(TypeError, "maximum", lambda: x.maximum("1"))


@test
def functions(mb):
    x = mb.tensor([[1, 2, 3], [4, 5, 6]], FLOAT64)
    equal(x.sum(), 21)
    equal(x.mean(0), [2.5, 3.5, 4.5])
    equal(x.sum((0, 1), keep=True), [[21]])
    equal(x @ x.transpose(), [[14, 32], [32, 77]])
    equal(moebius.einsum("ij,ij->i", x, x), [14, 77])
    equal(x.reshape(-1).slice(0, 5, 3, -2), [6, 4, 2])
    equal(x.permute(1, 0), [[1, 4], [2, 5], [3, 6]])
    equal(x.softmax().sum(), 2)
    equal(x[1], [4, 5, 6])
    equal(x[:, ::-2], [[3, 1], [6, 4]])
    equal(x[-1, 1:], [5, 6])
    equal(x[0:0], [])
    equal([row.sum().item() for row in x], [6, 15])
    equal(moebius.concat([x, -x], 1)[0], [1, 2, 3, -1, -2, -3])
    equal(moebius.stack([x[0], x[1]], 1)[0], [1, 4])
    equal(x.take(mb.tensor([2, 0], INT32), 1), [[3, 1], [6, 4]])
    equal(mb.eye(2, FLOAT64) + mb.zeros((2, 2), FLOAT64) + mb.full((), 0.5, FLOAT64), [[1.5, 0.5], [0.5, 1.5]])
    equal(x.cumsum(1)[1], [4, 9, 15])
    equal(x.clamp(2, 5)[0] + x.argmax(1).cast(FLOAT64).sum(), [6, 6, 7])
    equal(mb.normal(moebius.key(1, 2), 3) - mb.normal(moebius.key(1, 2), (3,)), [0, 0, 0])
    expect(mb.uniform(moebius.key(1), 3).tolist() != mb.uniform(moebius.key(1, 0), 3).tolist(), "two keys")
    raises(IndexError, "", lambda: x[2])
    raises(IndexError, "", lambda: x[0, 0, 0])


@test
def matrices(mb):
    a, b = mb.tensor([[4, 2], [2, 5]], FLOAT64), mb.tensor([[8], [8]], FLOAT64)
    lower = a.cholesky()
    equal(lower, [[2, 0], [1, 2]])
    for x in (a.solve_spd(b), lower.cholesky_solve(b), a.lstsq(b)):
        equal(x, [[1.5], [1]])
    equal(lower.triangular_solve(b), [[4], [2]])
    equal(lower.triangular_solve(b, transposed=True), [[2], [4]])
    equal(lower.triangular_solve(b, unit_diagonal=True), [[8], [0]])
    equal(lower.transpose().triangular_solve(b, upper=True), [[2], [4]])
    equal(mb.eye(2, FLOAT64).lstsq(b, mb.scalar(3, FLOAT64)), [[2], [2]])
    equal(a.log_det_spd(), math.log(16))
    equal(a.trace() + a.diagonal().sum(), 18)
    equal(a.diagonal().diagonal_matrix(), [[4, 0], [0, 5]])
    equal(a.tril(-1) + a.triu(1), [[0, 2], [2, 0]])
    equal(moebius.einsum("ii->", a) + moebius.einsum("ij,jk,kl->", a, a, a), 9 + 557)


@test
def along_axes(mb):
    x, index = mb.tensor([[1, 2, 3], [4, 5, 6]], FLOAT64), mb.tensor([[2], [0]], INT32)
    equal(x.cumprod(), [[1, 2, 6], [4, 20, 120]])
    equal(x.cumsum(0, reverse=True), [[5, 7, 9], [4, 5, 6]])
    equal((-x).cummax(), [[-1, -1, -1], [-4, -4, -4]])
    equal(x.cummin(reverse=True), x.tolist())
    equal(x.log().logsumexp(1), [math.log(6), math.log(15)])
    equal(x.median(), [2, 5])
    equal(x.quantile(0.25, 0), [1.75, 2.75, 3.75])
    equal(x.take_along(index), [[3], [4]])
    equal(x.gather(index), [[3], [4]])
    equal(x.scatter(index, -x.gather(index)), [[1, 2, -3], [-4, 5, 6]])
    equal(x.scatter_add_along(index, x.gather(index)), [[1, 2, 6], [8, 5, 6]])
    equal(x.scatter_add(mb.tensor([1, 1], INT32), 0, 3), [[0, 0, 0], [5, 7, 9], [0, 0, 0]])
    values, where = x.topk(2)
    equal(values, [[3, 2], [6, 5]])
    equal(where, [[2, 1], [2, 1]])
    equal(x.topk(1, 0, largest=False)[0], [[1, 2, 3]])
    left, right = x.split([1, 2])
    equal(left, [[1], [4]])
    equal(right, [[2, 3], [5, 6]])
    equal(x.unstack()[1], [4, 5, 6])
    equal(x.unstack(1)[2], [3, 6])
    equal(x.pad(1, 1, 0), [[0, 1, 2, 3], [0, 4, 5, 6]])
    equal(x.pad(1, 1, 0, mode="edge"), [[1, 1, 2, 3], [4, 4, 5, 6]])
    equal(x.pad(0, 0, 1, value=7)[2], [7, 7, 7])
    equal(x.unfold(1, 2), [[[1, 2], [2, 3]], [[4, 5], [5, 6]]])
    equal(x.unfold(1, 2).fold(1, 3), [[1, 4, 3], [4, 10, 6]])
    raises(ValueError, "'mirror' is none of value, edge, reflect, wrap", lambda: x.pad(1, 1, 1, mode="mirror"))
    raises(moebius.Error, "split", lambda: x.split([1, 1]))
    mb.clear()


@test
def parts_of_layers(mb):
    x, two = mb.iota(4, FLOAT64).reshape(1, 1, 4), mb.full((1, 1, 2), 2, FLOAT64)
    equal(x.conv1d(two), [[[2, 6, 10]]])
    equal(x.conv1d(two, mb.ones(1, FLOAT64), stride=2), [[[3, 11]]])
    equal(x.conv_transpose1d(two), [[[0, 2, 6, 10, 6]]])
    image, ones = x.reshape(1, 1, 2, 2), mb.ones((1, 1, 2, 2), FLOAT64)
    equal(image.conv2d(ones), [[[[6]]]])
    equal(image.conv2d(ones, padding=(0, 1)), [[[[2, 6, 4]]]])
    equal(image.conv_transpose2d(ones).sum(), 24)
    equal(x.max_pool1d(2), [[[1, 3]]])
    equal(x.avg_pool1d(2, stride=1), [[[0.5, 1.5, 2.5]]])
    equal(image.max_pool2d(2), [[[[3]]]])
    equal(image.avg_pool2d((2, 1)), [[[[1, 2]]]])
    normal = [[[v / math.sqrt(5) for v in (-3, -1, 1, 3)]]]
    for y in (x.layer_normalize(eps=0), x.group_normalize(1, eps=0), x.batch_normalize(eps=0)):
        equal(y, normal)
    equal(x.layer_normalize(mb.scalar(2, FLOAT64), mb.scalar(1, FLOAT64), 0), [[[2 * v + 1 for v in normal[0][0]]]])
    equal(x.rms_normalize(eps=0), [[[v / math.sqrt(3.5) for v in range(4)]]])
    equal(x.dropout(moebius.key(1), 0.5, training=False), x.tolist())
    equal(x.dropout(moebius.key(1), 1), [[[0, 0, 0, 0]]])
    same, values = mb.zeros((1, 2, 1, 1), FLOAT64), mb.tensor([[[[2]], [[4]]]], FLOAT64)
    equal(same.attend(same, values), [[[[3]], [[3]]]])
    equal(same.attend(same, values, causal=True), [[[[2]], [[3]]]])
    equal(same.attend(same, values, mask=mb.tensor([[True, False], [True, True]], BOOL)), [[[[2]], [[3]]]])
    equal(same.attend(same, values, kind="linear", scale=1), [[[[0]], [[0]]]])
    equal(mb.iota(8, FLOAT64).reshape(1, 2, 4).patchify(2), [[[0, 1, 4, 5], [2, 3, 6, 7]]])
    logits, labels = mb.zeros((2, 4), FLOAT64), mb.tensor([1, 3], INT32)
    equal(logits.cross_entropy(labels), math.log(4))
    equal(logits.cross_entropy(labels, each_row=True, ignore=True, ignored=3), [math.log(4), 0])


@test
def draws(mb):
    k = moebius.key(3)
    equal(mb.sphere(k, (2, 5), FLOAT64).square().sum(1), [1, 1])
    q = mb.orthogonal(k, (3, 3), FLOAT64)
    equal(q @ q.transpose() + 1, (mb.eye(3, FLOAT64) + 1).tolist())
    equal(mb.permutation(k, 4).sort(), [0, 1, 2, 3])
    for mean, want, error in ((mb.exponential(k, 40000).mean(), 1, 0.03), (mb.laplace(k, 40000).square().mean(), 2, 0.15),
                              (mb.gamma(k, 40000, 2, 0.5).mean(), 1, 0.03)):
        expect(abs(mean.item() - want) < error, mean.item(), want)
    equal(mb.tril_mask(2, 2), [[True, False], [True, True]])
    equal(mb.sincos2d(1, 2, 8)[0], [0, 0, 1, 1, 0, 0, 1, 1])


@test
def batches(mb):
    """Rows (2 i, 2 i + 1), i and half of i of five, in batches of two: 0 1, 2 3, 4, and again."""
    rows = memoryview(array.array("d", range(10))).cast("B").cast("d", (5, 2))
    loader = moebius.Loader(mb, [rows, array.array("i", range(5)), moebius.Scaled(bytes(range(5)), 0.5)], 2, in_order=True,
                            threads=1, last="pad")
    expect(loader.batches() == 3 and loader.step() == 0, "an epoch")
    for i, (x, number, half) in enumerate(loader):
        first = 2 * (i % 3)
        if first < 4:
            equal(x, [[2 * first, 2 * first + 1], [2 * first + 2, 2 * first + 3]])
            equal(half, [first / 2, first / 2 + 0.5])
        else:
            equal(number, [4, 0])
        expect(loader.rows == (2 if first < 4 else 1), loader.rows)
        if i == 5:
            break
    expect(loader.step() == 6, "counted over epochs")
    one = next(moebius.Loader(mb, [array.array("f", range(8))], 8, key=moebius.key(1)))[0].tolist()
    expect(one != sorted(one) and sorted(one) == list(range(8)), one)
    raises(ValueError, "as many rows", lambda: moebius.Loader(mb, [bytes(2), bytes(3)], 1))
    raises(TypeError, "wanted bytes", lambda: moebius.Loader(mb, [moebius.Scaled(array.array("d", [1]), 1)], 1))
    raises(moebius.Error, "loader", lambda: moebius.Loader(mb, [bytes(2)], 0))
    mb.clear()
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, name) for name in ("images", "labels")]
        for path, dims, data in ((paths[0], (2, 1, 3), bytes([0, 51, 255, 255, 0, 0])), (paths[1], (2,), bytes([7, 2]))):
            with open(path, "wb") as file:
                file.write(bytes([0, 0, 8, len(dims)]) + b"".join(d.to_bytes(4, "big") for d in dims) + data)
        images = moebius.Images(mb, *paths, std=0.5)
        x, y = images.batch(moebius.IN_ORDER, 0, 2)
        expect(len(images) == 2 and y.tolist() == [7, 2], len(images), y.tolist())
        equal(x.tolist()[1], [[2, 0, 0]])
        raises(moebius.Error, "images", lambda: moebius.Images(mb, folder + "/images2", paths[1]))
        mb.clear()


@test
def data_in_and_out(mb):
    for code, dtype in (("f", FLOAT32), ("d", FLOAT64), ("i", INT32)):
        view = memoryview(array.array(code, range(6))).cast("B").cast(code, (2, 3))
        x = mb.tensor(view)
        expect((x.dtype, x.shape, x.read().format, x.read().shape) == (dtype, (2, 3), code, (2, 3)), code)
        equal(x, [[0, 1, 2], [3, 4, 5]])
    equal(mb.tensor(memoryview(array.array("d", range(6)))[::2]), [0, 2, 4])
    equal(mb.tensor([[True, False]], BOOL), [[True, False]])
    equal(mb.tensor(2.5), 2.5)
    expect(mb.tensor([1]).dtype == FLOAT32 and mb.tensor(array.array("d", [1])).dtype == FLOAT64, "default dtypes")
    expect(mb.zeros((2, 0)).tolist() == [[], []] and mb.tensor([[], []]).shape == (2, 0), "no values")
    raises(TypeError, "'d'", lambda: mb.tensor(array.array("d", [1]), FLOAT32))
    raises(TypeError, "'H'", lambda: mb.tensor(array.array("H", [1])))
    raises(TypeError, "", lambda: mb.tensor([1.5], INT32))
    raises(ValueError, "length", lambda: mb.tensor([[1, 2], [3]]))
    try:
        import numpy
    except ImportError:
        return
    x = numpy.arange(6.0).reshape(2, 3).T
    equal(mb.tensor(x), x.tolist())
    expect((numpy.asarray(mb.tensor(x).read()) == x).all(), "to numpy")
    equal(numpy.float32(2) * mb.tensor(x), (2 * x).tolist())
    raises(TypeError, "", lambda: x * mb.tensor(x))


@test
def derivatives(mb):
    """f = sum(a^2 b), at a = (1, 2), b = (3, 5)."""
    a, b, u = (mb.tensor(v, FLOAT64) for v in ([1, 2], [3, 5], [1, -1]))
    f = (a * a * b).sum()
    da, db = moebius.grad(f, [a, b])
    equal(da, [6, 20])
    equal(db, [1, 4])
    equal(moebius.grad(moebius.grad(f, a).sum(), a), [6, 10])
    equal(moebius.vjp(a * b, u, a), [3, -5])
    equal(moebius.jvp(a * b, [a, b], [u, u]), [4, -7])
    equal(moebius.hvp(f, a, u), [6, -10])
    equal(moebius.hvp(f, (a, b), (u, u))[0], [8, -14])
    with mb.checkpoint():
        g = (a.exp() * b).sum()
    equal(moebius.grad(g, b), [math.e, math.e ** 2])
    with mb.checkpoint(products=True):
        g = a.exp().dot(b)
    equal(moebius.grad(g, b), [math.e, math.e ** 2])
    equal(moebius.jacobian(a * a, a), [[2, 0], [0, 4]])
    equal(moebius.hessian(f, [a, b]), [[6, 0, 2, 0], [0, 10, 0, 4], [2, 0, 0, 0], [0, 4, 0, 0]])
    equal(moebius.hessian_diagonal(f, [a, b])[0], [6, 10])
    first, second = moebius.directional(f, [a, b], [u, u])
    equal(first, 6 - 20 + 1 - 4)
    equal(second, 6 + 10 + 2 * (2 + 4))
    equal(moebius.hvp_reverse(f, (a, b), (u, u))[0], [8, -14])
    us = moebius.stack([u, 2 * u])
    equal(moebius.jvp_batch(a * b, [a, b], [us, us]), [[4, -7], [8, -14]])
    equal(moebius.hvp_batch(f, [a, b], [us, us])[0], [[8, -14], [16, -28]])
    alpha, beta = moebius.lanczos(f, a, 2, moebius.key(1))  # trace and determinant of diag(6, 10)
    equal(alpha.sum(), 16)
    equal(alpha.prod() - beta[0].square(), 60)
    equal([round(v, 9) for v in moebius.extreme_eigenvalues(f, a, 2, moebius.key(1))], [6, 10])
    raises(ValueError, "1 directions for 2", lambda: moebius.hvp(f, [a, b], [u]))
    raises(ValueError, "1 directions for 2", lambda: moebius.directional(f, [a, b], [u]))
    raises(ValueError, "2 directions for 1", lambda: moebius.jvp(f, a, [u, u]))


@test
def rules_of_inner_loops(mb):
    a, g, u, rate = (mb.tensor(v, FLOAT64) for v in ([1, 2], [3, 4], [1, -1], 0.5))
    equal(moebius.sgd_update(a, g, rate), [-0.5, 0])
    moved, velocity = moebius.momentum_update(a, g, rate, u, 0.5)
    equal(velocity, [3.5, 3.5])
    equal(moved, [-0.75, 0.25])
    for t in (1, mb.tensor(1, INT32)):
        moved, m, v = moebius.adam_update(a, g, rate, 0 * g, 0 * g, t, eps=1e-300)
        equal(moved, [0.5, 1.5])  # lr times the sign
        equal(m, [0.3, 0.4])
        equal(v, [0.009, 0.016])
    equal(moebius.global_norm([g, 0 * g + 12]), math.sqrt(25 + 288))
    (clipped,), norm = moebius.clip_norm([g], 2.5)
    equal(clipped, [1.5, 2])
    equal(norm, 5)
    equal(g.clip_value(3.5), [3, 3.5])


@test
def loops(mb):
    x, rates = mb.scalar(3, FLOAT64), mb.tensor([0.5, 0.25, 2], FLOAT64)

    def body(step, now, total):
        now = now * step.slice(rates)
        step.stack(now)
        step.stack(step.number())
        return now, total + now
    (last, total), (nows, steps) = mb.scan(3, [x, mb.scalar(0, FLOAT64)], body)
    equal(last, 0.75)
    equal(nows, [1.5, 0.375, 0.75])
    equal(steps, [0, 1, 2])
    equal(moebius.grad(total, x), 0.5 + 0.125 + 0.25)
    (early,), _ = mb.scan(9, [x], lambda step, now: (step.until(now * 2 > 10), now * 2)[1], keep_every=-1)
    equal(early, 12)

    xs, w = mb.tensor([[1, 2], [3, 4]], FLOAT64), mb.tensor([1, -1], FLOAT64)
    equal(mb.vmap(2, lambda one: moebius.grad(w.dot(one.of(xs)).square(), w)), [[-2, -4], [-6, -8]])
    columns, same = mb.vmap(2, lambda one: (one.of(xs, 1), w))
    equal(columns, [[1, 3], [2, 4]])
    equal(same, [[1, -1], [1, -1]])
    raises(ValueError, "of 1 carries the body returned 0", lambda: mb.scan(3, [x], lambda step, now: []))
    raises(ZeroDivisionError, "", lambda: mb.scan(3, [x], lambda step, now: 1 / 0))
    raises(ZeroDivisionError, "", lambda: mb.vmap(3, lambda one: 1 / 0))
    raises(TypeError, "no forwards", lambda: mb.scan(3, [x], body, forwards=True))
    equal(x * x, 9)


@test
def inverses(mb):
    """x <- x^2 from 2 on: 4, 16, 256; the derivative is 8 x^7. A gradient takes each step's x from the inverse."""
    x = mb.scalar(2, FLOAT64)

    loop = sys._getframe().f_lineno + 3

    def after(inverse, **options):
        return mb.scan(3, [x], lambda step, now: now.square(), inverse, **options)[0][0]
    y = after(lambda step, after: after.sqrt())
    equal(y, 256)
    equal(moebius.grad(y, x), 1024)
    equal(moebius.grad(after(lambda step, after: after.sqrt(), keep_every=2), x), 1024)
    equal(moebius.grad(after(lambda step, after: after * 0 + 1), x), 8)  # 2^3: what it was told
    factors = mb.tensor([3, 5], FLOAT64)

    def there(step, first, second):
        first = first + step.slice(factors) * second.square()
        return first, second - first

    def back(step, first, second):
        second = second + first
        return first - step.slice(factors) * second.square(), second
    (first, _), _ = mb.scan(2, [x, x], there, back)
    equal(first, 14 + 5 * 144)
    equal(moebius.grad(first, x), 13 + 10 * 144)
    raises(ValueError, "of 1 carries the inverse returned 0", lambda: after(lambda step, after: []))
    raises(ZeroDivisionError, "", lambda: after(lambda step, after: 1 / 0))
    equal(x * x, 4)  # no error is left of either
    raises(moebius.Error, "before a step", lambda: after(lambda step, after: mb.zeros(2)), loop)
    mb.clear()


@test
def functions_on_the_tape(mb):
    """Of sum(w^3 p): 3 w^2 p; of a step along it, w - r 3 w^2 p: 1 - 6 r w p."""
    w, p, start, q = (mb.tensor(v, FLOAT64) for v in ([2, -1], 5, 1, 4))
    dw = moebius.grad_mixed(lambda w, p: w ** 3 * p, w, [p])
    equal(dw, [60, 15])
    equal(moebius.grad(w - 0.5 * dw, w), [-29, 16])
    equal(moebius.grad(dw, p), 15)
    (last,), _ = mb.scan(3, [w], lambda step, now: now - 0.125 * moebius.grad_mixed(lambda w: 2 * w.square(), [now])[0])
    equal(last, [0.25, -0.125])
    equal(moebius.grad(last, w), [0.125, 0.125])

    def near(x, want):
        expect(abs(x.item() - want) < 1e-8, sys._getframe(1).f_lineno, x.item(), want)
    fixed = moebius.fixed_point(lambda x, q: x / 4 + q / 2, start, [q])
    near(fixed.xs, 8 / 3)
    near(moebius.grad(fixed.xs, q), 2 / 3)
    expect(bool(fixed.converged) and fixed.steps.item() > 3 and fixed.residual.item() < 1e-10, "what it tells")
    roots = moebius.root(lambda x, y, q: (x.square() - q, y - 3 * x), [start, start], [q], linear={"method": "direct"})
    near(roots.xs[1], 6)
    near(moebius.grad(roots.xs[1], q), 0.75)

    def unlike(x, q):
        return (x.square() - q).square()
    least = moebius.minimize(unlike, start, [q])
    near(least.xs, 2)
    near(moebius.grad(least.xs, q), 0.25)
    expect(not moebius.minimize(unlike, start, [q], steps=1, search="descent").converged, "no solution after one step")
    x = mb.tensor([1.25, 2.5], FLOAT64)
    down = moebius.custom_gradient(x.floor(), [x], lambda xs, ys, vs: [3 * vs[0]])
    equal(down, [1, 2])
    equal(moebius.grad(down.square(), x), [6, 12])
    zeros = moebius.custom_gradient(x.floor(), [x], lambda xs, ys, vs: [None])
    equal(moebius.grad(zeros + x, x), [1, 1])
    reads = [lambda x: x * w]
    raises(moebius.Error, "grad_mixed: the loss reads", lambda: moebius.grad_mixed(reads[0], x))
    mb.clear()
    raises(ZeroDivisionError, "", lambda: moebius.grad_mixed(lambda x: 1 / 0, x))
    mb.clear()
    raises(ValueError, "1 results were returned, of 2", lambda: moebius.fixed_point(lambda x, y: x, [start, start]))
    mb.clear()
    raises(ValueError, "'sgd' is none of newton, descent", lambda: moebius.minimize(unlike, start, [q], search="sgd"))


@test
def taps(mb):
    """x = 3, w = (2, 0.5): 6, 36, 18, 324; of the first product p it is p^4 / 4."""
    x = mb.scalar(3, FLOAT64)

    def told(x):
        for i, w in enumerate((2, 0.5)):
            with mb.prefix("blocks", i):
                x = (w * x).tell("product").square().tell("square")
        return x
    with mb.collect("blocks.*.product") as products:
        y = told(x)
    equal([y.item(), *(p.item() for p in products)], [324, 6, 18])
    equal(moebius.grad(y, products)[0], 216)
    equal(moebius.grad(y, products)[1], 36)
    with mb.replace("blocks.*.square", [None, mb.scalar(5, FLOAT64)]):
        equal(told(x), 5)
    names = []
    with mb.tap("", lambda name, x: names.append(name)):
        equal(told(x), 324)
    expect(names == ["blocks.0.product", "blocks.0.square", "blocks.1.product", "blocks.1.square"], names)
    with mb.tap("blocks.0.square", lambda _, x: x.stop_gradient()):
        y = told(x)
    equal(y, 324)
    equal(moebius.grad(y + x, x), 1)
    with mb.collect() as steps:
        mb.scan(3, [x], lambda step, now: (now * 2).tell("now"))
    equal(steps[0], [6, 12, 24])  # brought out of the loop

    def inside(tap, call):
        with tap:
            return call()
    raises(ZeroDivisionError, "", lambda: inside(mb.replace("blocks", [x]), lambda: 1 / 0))
    raises(ZeroDivisionError, "", lambda: inside(mb.collect(), lambda: 1 / 0))
    equal(x * x, 9)  # no error is left of either
    raises(ValueError, "4 tensors were told, of at most 3", lambda: inside(mb.collect("", 3), lambda: told(x)))
    ends = sys._getframe().f_lineno + 3

    def alone(tap):
        with tap:
            pass
    raises(moebius.Error, "only 0 were asked for", lambda: alone(mb.replace("nobody", [x])), ends)
    mb.clear()
    raises(moebius.Error, "in the place of \"a\"", lambda: inside(mb.replace("a", [mb.zeros(2)]), lambda: x.tell("a")))
    mb.clear()
    divides = sys._getframe().f_lineno + 1
    raises(ZeroDivisionError, "", lambda: inside(mb.tap("a", lambda name, x: 1 / 0), lambda: x.tell("a")))
    raises(moebius.Error, "ZeroDivisionError: division by zero", mb.check, divides)
    mb.clear()
    raises(TypeError, "", lambda: inside(mb.tap("a", lambda name: x), lambda: x.tell("a")))
    mb.clear()


@test
def parameters(mb):
    params, others = (moebius.Params(mb, seed, FLOAT64) for seed in (1, 2))
    for p in (params, others):
        with p.enter("model"):
            p.param("w", 3, moebius.init("normal", 1))
            p.param("b", 2, moebius.init("ones"))
    expect(params.names() == ["model.w", "model.b"] and params.size() == 5, params.names())
    w, b = params["model.w"], params["model.b"]
    start = w.tolist()
    snapshot, average = moebius.Snapshot(params), moebius.Average(params, 0.75)
    optimizer = moebius.Optimizer("sgd", params, lr=0.5)

    def step():
        with mb.scope():
            norm = optimizer.step_norm(w.sum() + 2 * b.sum()).item()
            average.update()
        return norm
    params.freeze("*.w")
    expect(len(params.trainable()) == 1 and params.size() == 2, "of what is not frozen")
    equal(step(), math.sqrt(8))
    equal(w, start)
    equal(b, [0, 0])
    equal(average["model.b"], [0.75, 0.75])
    average.swap()
    equal(b, [0.75, 0.75])
    average.swap()
    params.unfreeze()
    step()
    equal(w - snapshot["model.w"], [-0.5, -0.5, -0.5])
    equal(b, [-1, -1])
    optimizer.lr = 0.25
    with mb.scope():
        optimizer.apply([0 * w, 4 * b])
    optimizer.through(lambda gs: [gs[0], 0 * gs[1] - 4])

    def own_gradients():
        with mb.scope():
            optimizer.step(b.square().sum())
    own_gradients()
    equal(b, [1, 1])
    optimizer.through(lambda gs: 1 / 0)
    raises(ZeroDivisionError, "", own_gradients)
    mb.clear()
    optimizer.through(None)
    b.assign(0 * b)
    told = optimizer.lr, optimizer.steps(), optimizer.skipped(), optimizer.loss_scale()
    expect(told == (0.25, 4, 0, 1), told)
    equal(b, [0, 0])
    snapshot.restore("model.b")
    equal(b, [1, 1])
    equal(w - snapshot["model.w"], [-0.5, -0.5, -0.5])
    snapshot.take()
    params.reinit("model.w", 2)
    equal(w, others["model.w"].tolist())
    snapshot.restore()
    equal(w, [v - 0.5 for v in start])
    params.reinit("model.w", 1)
    equal(w, start)
    params.set_decay("model.w", False)
    adamw = moebius.Optimizer("adamw", params, lr=0.5, weight_decay=1)
    with mb.scope():
        adamw.step(w.sum() * 0 + b.sum() * 0)
    equal(w, start)
    equal(b, [0.5, 0.5])
    for wrong, rest in ((params.freeze, ()), (params.unfreeze, ()), (params.set_decay, (True,)), (params.reinit, (1,)),
                        (snapshot.restore, ())):
        raises(moebius.Error, "\"v\"", lambda wrong=wrong, rest=rest: wrong("v", *rest))
        mb.clear()
    raises(KeyError, "v", lambda: snapshot["v"])


@test
def files(mb):
    params = moebius.Params(mb, 1, FLOAT64)
    w = params.param("w", 2, moebius.init("ones"))
    optimizer = moebius.Optimizer("adam", params, lr=0.125)

    def step():
        with mb.scope():
            optimizer.step(w.square().sum())
        return w.tolist()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "checkpoint.safetensors")
        step()
        equal(optimizer.state()["optimizer.m.w"], [0.2, 0.2])  # a tenth of the gradient 2
        optimizer.save(path, {"epoch": "3", "of": "nine"})
        expect(mb.load_metadata(path) == {"epoch": "3", "of": "nine"}, mb.load_metadata(path))
        second = step()
        step()
        optimizer.load(path)
        expect(optimizer.steps() == 1 and step() == second, "the same second step")
        mb.save_safetensors(path, {"w": w, "twice": 2 * w}, {"a": "b"})
        expect(mb.load_metadata(path) == {"a": "b"}, mb.load_metadata(path))
        loaded = mb.load_safetensors(path)
        expect(set(loaded) == {"w", "twice"} and (loaded["twice"] - loaded["w"]).tolist() == second, loaded)
        w.save_npy(path)
        equal(mb.load_npy(path), second)
        with open(path, "w", encoding="ascii") as file:
            file.write("a;b\n1;2\n3;4.5\n")
        equal(mb.load_csv(path, FLOAT64, header=True, separator=";"), [[1, 2], [3, 4.5]])
        params.save(path)
        w.assign(0 * w)
        params.load(path)
        expect(w.tolist() == second, "loaded")
    for call in (params.load, mb.load_npy, mb.load_csv, mb.load_safetensors):
        raises(moebius.Error, path, lambda call=call: call(path))
        mb.clear()
    for call, rest in ((w.save_npy, ()), (mb.save_safetensors, ({},))):
        raises(moebius.Error, path, lambda call=call, rest=rest: call(path, *rest))
        mb.clear()
    with mb.scope():
        costs = mb.forecast(mb.ones((8, 8)) @ mb.uniform(moebius.key(1), (8, 8)))
    expect(costs.flops == 2 * 8 ** 3 and mb.stats().flushes > 3 and mb.backend, costs.flops, mb.stats().flushes)
    raises(moebius.Error, path, lambda: optimizer.save(path))
    mb.clear()


@test
def training(mb):
    params = moebius.Params(mb, 1, FLOAT64)
    w = params.param("w", 2, moebius.init("ones"))
    expect(params.param("x", (3, 4), moebius.init("xavier", 4, 3), decay=False).shape == (3, 4), "its shape")
    sgd = moebius.Optimizer("sgd", params, lr=0.25, schedule=moebius.schedule("steps", 1, 0.5))
    adam = moebius.Optimizer("adam", params, lr=0.125)
    for optimizer, want in ((sgd, 0.5), (sgd, 0.375), (adam, 0.25)):  # Adam's first step is lr
        with mb.scope():
            optimizer.accumulate((w * w).sum() * 0.25)
            optimizer.step((w * w).sum() * 0.75 + params["x"].sum() * 0)
        expect(abs(params["w"].tolist()[1] - want) < 1e-8, params["w"].tolist(), want)
    equal(params.trainable()[0], w.tolist())
    v = mb.variable((), FLOAT64)
    with mb.scope():
        v.assign(mb.scalar(7, FLOAT64))
    equal(v, 7)
    raises(TypeError, "no rate", lambda: moebius.Optimizer("adam", params, rate=1))


@test
def errors_stick_until_they_are_cleared(mb):
    x = mb.ones(2)

    def wrong(part, call, kind=moebius.Error):
        line = sys._getframe(1).f_lineno
        for again in (call, mb.check, lambda: x + 1):
            try:
                again()
                failures.append(f"line {line}: nothing was raised")
            except kind as error:
                expect(f"{__file__}:{line}: " in str(error) and part in str(error) and error.status == 1, line, error)
        mb.clear()
    wrong("add", lambda: x + mb.ones(3))
    wrong("matmul", lambda: x @ mb.ones(2, FLOAT64))
    wrong("reshape", lambda: x.reshape(7))
    wrong("rank", lambda: mb.ones((1,) * 9))
    wrong("sum", lambda: x.sum((0,) * 9))
    wrong("concat", lambda: moebius.concat([x, mb.ones(2, FLOAT64)]))
    wrong("grad", lambda: moebius.grad(x > 1, x))
    wrong("item", lambda: x.item())
    wrong("lr", lambda: moebius.Optimizer("adam", moebius.Params(mb, 1), lr=-1))
    raises(OverflowError, "no int", lambda: x.sum(1 << 32))
    raises(ctypes.ArgumentError, "no int", lambda: x.argmax(1 << 32))
    raises(OverflowError, "no long", lambda: mb.zeros(1 << 64))
    v = mb.variable((), FLOAT64)

    def step():
        with mb.scope():
            v.assign(mb.scalar(1, FLOAT64))
            x + mb.ones(3)
    try:
        step()
    except moebius.Error:
        mb.clear()
    equal(v, 0)
    with mb.scope():
        stale = x * 2
    raises(moebius.Error, "scope", lambda: stale.read())
    mb.clear()
    outer, inner = mb.scope(), mb.scope()
    outer.__enter__()
    inner.__enter__()
    raises(moebius.Error, "scope", lambda: outer.__exit__(None, None, None))
    mb.clear()
    raises(moebius.Error, "ended", lambda: inner.__exit__(None, None, None))  # with the outer one
    mb.clear()
    try:
        moebius.Context("no such backend")
        expect(False, "no such backend")
    except moebius.Error as error:
        expect(error.status == 4 and "no such backend" in str(error), error)


@test
def other_threads_are_refused(mb):
    x, refusals = mb.ones(2), []

    def add():
        return x + 1

    def try_to():
        try:
            add()
        except moebius.Error as error:
            refusals.append(error.status)
    other = threading.Thread(target=try_to)
    other.start()
    other.join()
    expect(refusals == [7], refusals)
    mb.clear()  # the owner is told
    equal(add(), [2, 2])


@test
def options(_):
    lines = []
    with moebius.Context("cpu", threads=1, log=lines.append) as mb:
        x, v = mb.scalar(1), mb.variable(())
        moebius.grad(x, v)
    expect(any("depends on none" in line for line in lines), lines)
    try:
        moebius.Context("cpu", disable="nonsense")
        expect(False, "no such pass")
    except moebius.Error as error:
        expect('no pass "nonsense"' in str(error), error)


@test
def closing(_):
    with moebius.Context() as mb:
        params = moebius.Params(mb, 1)
        w = params.param("w", 2)
        optimizer = moebius.Optimizer("adam", params, lr=1e-3)
    for late in (lambda: w + 1, lambda: 1 - w, w.item, lambda: w.shape, lambda: mb.scalar(1), lambda: optimizer.step(w),
                 lambda: params["w"], lambda: moebius.grad(w, w), lambda: moebius.Params(mb, 1)):
        raises(ValueError, "closed", late)
    mb.close()
    kept = moebius.Context().scalar(2.0)  # a tensor keeps its context
    gc.collect()
    equal(kept * kept, 4)


def main(library, *compiler):
    moebius.load(library)
    dtypes = ("MB", "float32 float64 int32 bool float16 bfloat16 int64 uint8".split())
    check_declarations(compiler, "moebius.h", moebius.DECLARATIONS, moebius.STRUCTURES, [dtypes, *moebius.CHOICES.values()])
    for function in tests:
        with moebius.Context() as mb:
            try:
                function(mb)
                mb.check()
            except Exception as error:  # what is left of a test, not of all
                failures.append(f"{function.__name__}: {type(error).__name__}: {error}")
    print("\n".join(failures) or f"{len(tests)} tests, {len(moebius.DECLARATIONS)} declarations")
    return bool(failures)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
