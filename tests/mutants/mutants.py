#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Breaks the code in one place after another, and shows for each which test notices.

  tests/mutants/mutants.py                        all tables
  tests/mutants/mutants.py examples               the table examples.py
  tests/mutants/mutants.py 'examples/resume*'     mutants by name: a glob over table/name
  tests/mutants/mutants.py --list [GLOB]          what there is

Works on a copy of the tree, tracked and new files, under build-mutants/, which it builds; the tree itself stays as it
is. Each table is a file beside this one, and has

  COMMANDS  {name: command}, run by the shell in the copy; must succeed where nothing is broken
  MUTANTS   [(name, file, old text, new text, command or commands that must fail)]

The old text is in the file exactly once. {build} in a command is the build folder. A mutant counts as caught by the
lines that its command prints with FAILED or FAIL in them, or by its exit status. One that does not compile says
nothing, and is an error of the table; so is one whose old text is not there any more. Where several commands are
named, they are tried in turn until one fails.

Prints a line for each mutant and exits with 1 if one was not caught, or says nothing. Not a part of tests/run: a
mutant costs what building and testing it costs: the 110 of examples.py take some ten minutes of processor time."""
import fnmatch
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
COPY = ROOT / "build-mutants/tree"
BUILD = ROOT / "build-mutants/build"
LIMIT = 600  # seconds for a command; a mutant may make one hang, and is caught then


def tables():
    for path in sorted(HERE.glob("*.py")):
        if path.name != pathlib.Path(__file__).name:
            spec = importlib.util.spec_from_file_location(path.stem, path)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            yield path.stem, module


def copy_tree():
    """Files that have not changed keep their times, so a second call builds little."""
    names = subprocess.run(["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                           check=True, capture_output=True).stdout.decode().split("\0")
    wanted = {n for n in names if n and (ROOT / n).is_file()}
    for n in wanted:
        target = COPY / n
        if not target.exists() or target.read_bytes() != (ROOT / n).read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / n, target)
    for path in [p for p in COPY.rglob("*") if p.is_file()]:
        if str(path.relative_to(COPY)) not in wanted:
            path.unlink()


def ninja():
    return subprocess.run(["ninja", "-C", BUILD], capture_output=True, text=True, check=False)


def build():
    if not (BUILD / "build.ninja").exists():
        subprocess.run(["meson", "setup", BUILD, COPY, "-Dtests=true"], check=True, stdout=subprocess.DEVNULL)
    done = ninja()
    if done.returncode:
        sys.exit(done.stdout[-3000:])


def command_run(command):
    """(succeeded, what it printed)"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MB_", "FUZZ_", "TESTS_"))}
    process = subprocess.Popen(command.format(build=BUILD), shell=True, cwd=COPY, env=environment, text=True,
                               errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               start_new_session=True)
    try:
        text = process.communicate(timeout=LIMIT)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.communicate()
        return False, f"FAILED: no end after {LIMIT} s"
    return process.returncode == 0, re.sub(r"\x1b\[[0-9;]*m", "", text)


def tests_of(text):
    """Names of tests in what a command has printed: our own lines, and Criterion's."""
    names = re.findall(r"^FAILED: ([\w/.-]+)", text, flags=re.M) + re.findall(r"^\[FAIL\] ([\w:]+)", text, flags=re.M)
    return list(dict.fromkeys(n.rstrip(":") for n in names))


def caught_by(commands, table):
    """None, or what noticed."""
    for command in commands:
        ok, text = command_run(table.COMMANDS[command])
        if not ok:
            names = tests_of(text)
            last = text.strip().splitlines()[-1:] or ["its exit status"]
            return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") or last[0]
    return None


def try_mutant(table, mutant):
    """(verdict, detail)"""
    _, file, old, new, commands = mutant
    path = COPY / file
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if text.count(old) != 1:
        return "INVALID", f"{file} has its text {text.count(old)} times"
    path.write_text(text.replace(old, new), encoding="utf-8")
    try:
        done = ninja()
        if done.returncode:
            line = next((x for x in done.stdout.splitlines() if "error" in x), "")
            return "INVALID", f"does not compile: {line}"
        by = caught_by([commands] if isinstance(commands, str) else commands, table)
        return ("caught", by) if by else ("MISSED", f"nothing in {commands} noticed")
    finally:
        path.write_text(text, encoding="utf-8")


def main(arguments):
    listing = "--list" in arguments
    globs = [a for a in arguments if a != "--list"] or ["*"]
    chosen = [(name, table, m) for name, table in tables() for m in table.MUTANTS
              if any(fnmatch.fnmatch(f"{name}/{m[0]}", g) or name == g for g in globs)]
    if not chosen:
        sys.exit("no such mutant; --list shows them")
    if listing:
        for name, _, m in chosen:
            print(f"{name}/{m[0]}: {m[1]}")
        return 0
    copy_tree()
    build()
    for name, table in {name: table for name, table, _ in chosen}.items():
        for command in dict.fromkeys(c for n, _, m in chosen if n == name
                                     for c in ([m[4]] if isinstance(m[4], str) else m[4])):
            ok, text = command_run(table.COMMANDS[command])
            if not ok:
                sys.exit(f"{name}: '{command}' fails where nothing is broken:\n{text[-3000:]}")
    bad = 0
    for name, table, mutant in chosen:
        started = time.monotonic()
        verdict, detail = try_mutant(table, mutant)
        bad += verdict != "caught"
        print(f"{verdict:8}{name}/{mutant[0]}: {detail}  ({time.monotonic() - started:.0f} s)", flush=True)
    build()
    print(f"{len(chosen) - bad} of {len(chosen)} caught")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
