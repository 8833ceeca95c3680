#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Whether a backend that is built apart from the library works: examples/backend, with the installed headers alone, is
run by the installed moebius-test-backend; copies of it that are wrong on purpose are caught; and what it writes is C.
Exits 1 and says what is wrong if not.

  apart.py BUILD FOLDER COMPILER...

The library of the build folder BUILD is installed under FOLDER, which is made anew.
"""
import os
import re
import shutil
import subprocess
import sys

from installed import ROOT, install, run

EXAMPLE = os.path.join(ROOT, "examples", "backend")
# What is broken: file, text, in its place, the cases that look there, and one that must fail.
WRONG = [
    ("run.c", "v > *to || isnan(v) ? v : *to", "v < *to ? v : *to", "op/max*", "op/max"),
    ("run.c", "sum += a[i * p->a_m + k * p->a_k]", "sum += a[i * p->a_m + k]", "op/matmul/turned", "op/matmul/turned"),
    ("ops.c", "chosen >= (double)size ? (double)(size - 1)", "chosen >= (double)size - 1 ? 0", "op/take*", "op/take"),
    ("backend.c", "mb__host_free(t->host, p, sizeof *p);\n        mb__host_free(t->host, registers",
     "mb__host_free(t->host, registers", "fault/*", "fault/each_once"),
    ("ops.c", "if (!take)\n        memset(n, 0", "if (0)\n        memset(n, 0", "op/scatter_add", "op/scatter_add"),
    ("element.c", "if (i->dtype != MB_INT32)", "if (1)", "op/*/int32_wraps", "op/add/int32_wraps"),
]


def build(source, folder, environment):
    run("meson", "setup", folder, source, env=environment)
    run("ninja", "-C", folder, env=environment)


def conformance(program, folder, environment, *arguments):
    """Its status and what it printed. A backend that crashes is caught, too."""
    done = subprocess.run([program, *arguments, "trace"], env={**environment, "MB_BACKEND_PATH": folder}, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.returncode, done.stdout


def right(program, folder, environment, compiler):
    written = os.path.join(folder, "trace.c")
    status, said = conformance(program, folder, environment, "--programs", "8")
    if status or not re.search(r"^\d\d\d+ passed, 0 failed$", said, flags=re.M):
        sys.exit(f"examples/backend: status {status}\n{said}")
    print(said.strip())
    conformance(program, folder, {**environment, "TRACE_TO": written}, "--only", "training/a*")
    run(*compiler, "-std=gnu17", "-fsyntax-only", written)


def wrong(program, folder, environment, case):
    file, text, instead, only, name = case
    source, built = os.path.join(folder, "source"), os.path.join(folder, "built")
    for old in (source, built):
        shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(EXAMPLE, source)
    with open(os.path.join(source, file), encoding="utf-8") as f:
        code = f.read()
    if code.count(text) != 1:
        sys.exit(f"examples/backend/{file}: \"{text}\" is there {code.count(text)} times")
    with open(os.path.join(source, file), "w", encoding="utf-8") as f:
        f.write(code.replace(text, instead))
    build(source, built, environment)
    status, said = conformance(program, built, environment, "--only", only)
    if status == 0 or f"FAILED: {name}" not in said:
        sys.exit(f"{file}: \"{instead}\" in place of \"{text}\" was not caught: status {status}\n{said}")


def main(built, folder, *compiler):
    folder = os.path.abspath(folder)
    environment = {**install(built, folder), "CC": " ".join(compiler)}
    environment = {k: v for k, v in environment.items() if not k.startswith(("MB_", "TRACE_"))}
    program = next(os.path.join(at, "moebius-test-backend") for at, _, names in os.walk(folder)
                   if "moebius-test-backend" in names)
    example = os.path.join(folder, "example")
    build(EXAMPLE, example, environment)
    right(program, example, environment, compiler)
    for case in WRONG:
        wrong(program, folder, environment, case)
    print(f"{len(WRONG)} wrong ones caught")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
