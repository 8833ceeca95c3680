#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The structure of the library, read from its includes and calls; exits 1 where it is not as it should be.

  structure.py ROOT          checks the tree
  structure.py ROOT --draw   also prints every arrow between folders
  structure.py --self-test   breaks a small tree in each way, and wants each noticed

What is wanted:
  - a folder uses only what USES names: every arrow goes down, and rooms that should not meet do not;
  - a folder within a folder uses nothing that the one around it may not (backends' own and tests/kit/ apart);
  - files form no circle, by includes and calls together;
  - a backend calls functions of its own folder, of backends/plan/, and its host; nothing else of the library.
"""
import os
import re
import sys
import tempfile

# Every folder of backends/ but these two is a backend.
BACKENDS_ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "backends")
BACKENDS = sorted(name for name in os.listdir(BACKENDS_ROOT)
                  if name not in ("plan", "engine") and os.path.isdir(os.path.join(BACKENDS_ROOT, name)))
# Folder -> what it may use, besides itself. An arrow to anything else is an error.
VULKAN = {
    "backends/vulkan/device": [],
    "backends/vulkan/pipeline": ["backends/vulkan/device"],
    "backends/vulkan/program": ["backends/vulkan/device", "backends/vulkan/pipeline"],
}
USES = {
    "tensor": [],
    "tensor/files": ["tensor"],
    "autograd": ["tensor"],
    "backends/plan": ["tensor"],
    **{f"backends/{b}": ["backends/plan", "tensor"] for b in BACKENDS},
    **{f: lower + ["backends/plan", "tensor"] for f, lower in VULKAN.items()},
    "backends/engine": ["backends/plan", "tensor"],
    "optim": ["autograd", "tensor", "tensor/files"],
    "optim/mpi": ["optim", "autograd", "tensor"],
    "layers": ["optim", "autograd", "tensor"],
    "tests/kit": ["optim", "autograd", "backends/engine", "tensor"],
    ".": ["tensor", "tensor/files", "autograd", "backends/engine", "optim", "layers", "tests/kit"],
}
USES["backends/vulkan"] += list(VULKAN)
# The op table and the dtypes are data, which anyone may read.
DATA = ["tensor/ops.c"]
FLOORS_MOST = 5 # vulkan's inner floors apart


def strip(text):
    """Without comments and the insides of strings."""
    return re.sub(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'',
                  lambda m: " " if m.group(0)[0] == "/" else '""', text, flags=re.S)


class Tree:
    def __init__(self, root):
        self.includes, self.words, self.defined, self.owner = {}, {}, {}, {}
        for folder, _, names in os.walk(root):
            room = os.path.relpath(folder, root)
            ours = ("tensor", "autograd", "backends", "optim", "layers")
            if room not in (".", "tests/kit") and room.split("/")[0] not in ours:
                continue
            for name in names:
                if name.endswith((".c", ".h")):
                    self.read(root, os.path.normpath(os.path.join(room, name)))
        for file, names in self.defined.items():
            for name in names:
                self.owner.setdefault(name, file)
        self.arrows = {f: self.arrows_of(f) for f in self.includes}

    def read(self, root, file):
        with open(os.path.join(root, file), encoding="utf-8") as f:
            text = f.read()
        self.includes[file] = re.findall(r'^#include "([^"]+)"', text, flags=re.M)
        code = strip(text)
        self.words[file] = set(re.findall(r"\bmb_\w+", code))
        # A function is defined where a line that begins at the margin has its name and "(", and "{" follows
        # at the margin; static ones are no one else's business.
        heads = re.findall(r"^(?!static\b|typedef\b|#)[A-Za-z][\w \*]*?\b(mb_\w+)\([^;{}]*\)\s*\n\{", code, flags=re.M)
        data = re.findall(r"^(?!static\b|extern\b|typedef\b|#)const [\w \*]*?\b(mb_\w+)(?:\[[^\]]*\])? = ", code, flags=re.M)
        self.defined[file] = set(heads + data) if file.endswith(".c") else set()

    def arrows_of(self, file):
        """{other file: what for}"""
        out = {i: "#include" for i in self.includes[file] if i in self.includes and i != file}
        for word in self.words[file] if file.endswith(".c") else ():
            other = self.owner.get(word) or self.owner.get(word + "_at")
            if other and other != file:
                out.setdefault(other, word)
        return out


def room(file):
    return os.path.dirname(file) or "."


def folders(tree):
    """Arrows that lead where they should not."""
    for file, arrows in sorted(tree.arrows.items()):
        if room(file) not in USES:
            yield f"{file}: the folder is unknown to tests/structure/structure.py"
            continue
        for other, why in sorted(arrows.items()):
            if room(other) != room(file) and room(other) not in USES[room(file)]:
                yield f"{file} uses {other} ({why}): {room(file)}/ may not use {room(other)}/"


def within():
    """Folders that use more than the one around them."""
    for folder, uses in USES.items():
        around = os.path.dirname(folder)
        if around not in USES or around == "backends":
            continue
        for other in uses:
            if other != around and other not in USES[around]:
                yield f"{folder}/ may use {other}/, and {around}/, which it is in, may not"


def rank(folder):
    """Its floor, counted from 1 at the ground."""
    return 1 + max((rank(f) for f in USES[folder]), default=0)


def circles(tree):
    """Strongly connected files, by Tarjan's algorithm without recursion."""
    index, low, stack, on, found = {}, {}, [], set(), []
    for start in sorted(tree.arrows):
        if start in index:
            continue
        work = [(start, iter(sorted(tree.arrows[start])))]
        index[start] = low[start] = len(index)
        stack.append(start)
        on.add(start)
        while work:
            file, rest = work[-1]
            for other in rest:
                if other not in index:
                    index[other] = low[other] = len(index)
                    stack.append(other)
                    on.add(other)
                    work.append((other, iter(sorted(tree.arrows[other]))))
                    break
                if other in on:
                    low[file] = min(low[file], index[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[file])
                if low[file] == index[file]:
                    group = []
                    while not group or group[-1] != file:
                        group.append(stack.pop())
                        on.discard(group[-1])
                    if len(group) > 1:
                        found.append(sorted(group))
    for group in found:
        inner = [f"{f} -> {o} ({tree.arrows[f][o]})" for f in group for o in sorted(tree.arrows[f]) if o in group]
        yield "a circle of files: " + "; ".join(inner)


def hosts(tree):
    """Functions of the library that a backend calls past its host."""
    for file, arrows in sorted(tree.arrows.items()):
        if not any(file.startswith(f"backends/{b}/") for b in BACKENDS):
            continue
        for other, why in sorted(arrows.items()):
            if why != "#include" and room(other).split("/")[0] == "tensor" and other not in DATA:
                names = sorted(w for w in tree.words[file] if tree.owner.get(w) == other)
                yield f"{file} calls {', '.join(names)} of {other}: a backend calls its host"


def floors():
    """USES itself: no circle, and few floors."""
    most = max(rank(f) for f in USES if not f.startswith("backends/vulkan"))
    if most > FLOORS_MOST:
        yield f"{most} floors, and {FLOORS_MOST} are the most"


def problems(tree):
    return [*floors(), *within(), *folders(tree), *circles(tree), *hosts(tree)]


def draw(tree):
    pairs = {}
    for file, arrows in tree.arrows.items():
        for other in arrows:
            if room(other) != room(file):
                pairs[room(file), room(other)] = pairs.get((room(file), room(other)), 0) + 1
    for (a, b), n in sorted(pairs.items()):
        print(f"{a}/ -> {b}/ ({n})")


SOUND = {
    "moebius.h": '#include "tensor/tensor.h"\n',
    "tensor/tensor.h": "void mb_one(void);\n",
    "tensor/one.c": '#include "tensor/tensor.h"\nvoid mb_one(void)\n{\n}\n',
    "tensor/two.c": '#include "tensor/tensor.h"\nvoid mb_two_at(void)\n{\n    mb_one();\n}\n',
    "backends/cpu/cpu.c": '#include "tensor/tensor.h"\nstatic void f(void)\n{\n    /* mb_two(); */\n}\n',
    "backends/plan/plan.c": "void mb__plan(void)\n{\n}\n",
    "autograd/grad.c": "void mb_grad(void)\n{\n    mb_two();\n}\n",
}
BROKEN = [
    ("tensor/one.c", '#include "backends/plan/plan.c"\n', "may not use"),
    ("autograd/grad.c", "void mb_grad(void)\n{\n    mb__plan();\n}\n", "may not use"),
    ("tensor/one.c", "void mb_one(void)\n{\n    mb_two();\n}\n", "circle"),
    ("tensor/tensor.h", '#include "tensor/one.c"\n', "circle"),
    ("backends/cpu/cpu.c", "static void f(void)\n{\n    mb_two();\n}\n", "host"),
    ("tensor/new/new.c", "int x;\n", "unknown"),
]


def self_test():
    for file, text, want in [(None, None, None), *BROKEN]:
        with tempfile.TemporaryDirectory() as root:
            for name, content in {**SOUND, **({file: text} if file else {})}.items():
                os.makedirs(os.path.dirname(os.path.join(root, name)), exist_ok=True)
                with open(os.path.join(root, name), "w", encoding="utf-8") as f:
                    f.write(content)
            found = problems(Tree(root))
        if not (any(want in p for p in found) if want else not found):
            print(f"{file}: wanted {want!r}, found {found}")
            return 1
    return 0


def main(arguments):
    if arguments == ["--self-test"]:
        return self_test()
    tree = Tree(arguments[0])
    if "--draw" in arguments:
        draw(tree)
    found = problems(tree)
    for p in found:
        print(p)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
