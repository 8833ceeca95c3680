#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Whether the dumps that CONTRIBUTING.md quotes are what tests/tour/tour.c gives, and the programs that README.md
quotes are the examples as they are; exits 1 where they are not.

  check.py BUILD            checks
  check.py BUILD --write    puts the new ones in their place

A quoted dump is a fenced block under a comment that says what it is:

  <!-- tour: source 5-24 -->            lines of tour.c, numbered
  <!-- tour: file 3 tensor/ops.def X --> three lines of a file, from the first one with X in it
  <!-- tour: cpu output -->             what it prints on a backend
  <!-- tour: cpu graph.txt -->          a file of MB_DUMP
  <!-- tour: cpu groups.txt group 1: --> of that, the paragraph that begins so
  <!-- tour: vulkan kernel-01.spv -->   disassembled, of main what is done for an element
"""
import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
GUIDE = os.path.join(ROOT, "CONTRIBUTING.md")
BLOCK = re.compile(r"^<!-- tour: (.*?) -->\n```.*?\n(.*?)^```$", flags=re.M | re.S)


class Absent(Exception):
    """What a block shows cannot be made here."""


class Tour:
    """The program's runs, one a backend, each with its folder of dumps. The same on every machine."""

    def __init__(self, program, folder):
        self.program, self.folder, self.printed = program, folder, {}

    def run(self, backend):
        if backend in self.printed:
            return
        keep = {k: v for k, v in os.environ.items() if not k.startswith("MB_")}
        done = subprocess.run([self.program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={
            **keep, "MB_BACKEND": backend, "MB_THREADS": "1", "MB_CPU": "base", "MB_VULKAN_CACHE": "off",
            "MB_VULKAN_LIMITS": "minimum", "MB_DUMP": "all", "MB_DUMP_TO": os.path.join(self.folder, backend)})
        if done.returncode and backend == "vulkan":
            raise Absent(done.stdout.strip())
        done.check_returncode()
        self.printed[backend] = done.stdout

    def text(self, what):
        if what.startswith("source "):
            first, last = map(int, what.split()[1].split("-"))
            with open(os.path.join(HERE, "tour.c"), encoding="utf-8") as f:
                return "".join(f"{i:2} {line}".rstrip() + "\n" for i, line in enumerate(f, 1) if first <= i <= last)
        if what.startswith("file "):
            return lines_of(*what.split(" ", 3)[1:])
        backend, name, *beginning = what.split(" ", 2)
        self.run(backend)
        if name == "output":
            return self.printed[backend]
        path = os.path.join(self.folder, backend, "plan-0001-" + name)
        if name.endswith(".spv"):
            return disassembled(path)
        with open(path, encoding="utf-8") as f:
            text = re.sub(r"\S*/tour\.c:", "tour.c:", f.read())
        if beginning:
            parts = re.split(r"\n\n+", text[text.index("\n") + 1:].strip("\n"))  # without the head
            text = next(p for p in parts if p.startswith(beginning[0])) + "\n"
        return renumbered(text, r"\bv(\d{3,})\b", "v") if " as " in text or "uint v" in text else text


def lines_of(count, path, beginning):
    """Without the indentation that they share, and the backslashes of a macro."""
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        lines = f.read().splitlines()
    first = next(i for i, line in enumerate(lines) if beginning in line)
    taken = [re.sub(r"\s*\\$", "", line) for line in lines[first:first + int(count)]]
    return textwrap.dedent("\n".join(taken)) + "\n"


def renumbered(text, pattern, prefix):
    """Ids depend on the library of shaders; by their first use they do not."""
    ids = {}
    return re.sub(pattern, lambda m: prefix + str(ids.setdefault(m.group(1), len(ids) + 1)), text)


def disassembled(path):
    tool = shutil.which("spirv-dis")
    if not tool:
        raise Absent("spirv-dis is missing")
    done = subprocess.run([tool, "--no-header", path], check=True, stdout=subprocess.PIPE, text=True)
    main = done.stdout[done.stdout.rindex("OpBranchConditional"):]
    lines = [line.strip() for line in main[main.index("OpLabel"):main.index("OpBranch %")].splitlines()[1:]]
    return renumbered("".join(line + "\n" for line in lines if line), r"%(\d+)\b", "%")


def quoted_programs():
    """How many programs README.md quotes whole, after "[examples/NAME.c](examples/NAME.c):", and the wrong ones."""
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as f:
        quoted = re.findall(r"\]\((\S+\.(?:c|cpp|py))\)\)?:\n\n```\w+\n(.*?)^```$", f.read(), flags=re.M | re.S)
    wrong = []
    for path, text in quoted:
        with open(os.path.join(ROOT, path), encoding="utf-8") as f:
            if text not in f.read():
                wrong.append(path)
    return len(quoted), wrong


def main(build, write):
    with open(GUIDE, encoding="utf-8") as f:
        guide = f.read()
    wrong, absent = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        tour = Tour(os.path.join(build, "tests", "tour", "tour"), folder)

        def fresh(block):
            nonlocal wrong, absent
            try:
                text = tour.text(block.group(1))
            except Absent as why:
                absent += 1
                print(f"{block.group(1)}: left out: {why}")
                return block.group(0)
            if text != block.group(2):
                wrong += 1
                sys.stdout.writelines(difflib.unified_diff(
                    block.group(2).splitlines(True), text.splitlines(True), "CONTRIBUTING.md", block.group(1)))
            start, end = block.start(2) - block.start(), block.end(2) - block.start()
            return block.group(0)[:start] + text + block.group(0)[end:]

        new, count = BLOCK.subn(fresh, guide)
    if write and new != guide:
        with open(GUIDE, "w", encoding="utf-8") as f:
            f.write(new)
    print(f"{count} dumps, {wrong} {'written anew' if write else 'wrong'}, {absent} left out")
    programs, differ = quoted_programs()
    print(f"{programs} programs in README.md{', not as they are: ' if differ else ''}{', '.join(differ)}")
    if differ or not programs:
        return 1
    return 0 if count and count == len(re.findall("^<!-- tour: ", guide, flags=re.M)) and (write or not wrong) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], "--write" in sys.argv[2:]))
