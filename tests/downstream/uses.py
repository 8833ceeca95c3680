#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Whether a program uses every public function and macro once; exits 1 and names those that it does not.

  uses.py LIBRARY SOURCE... -- COMPILER [ARGUMENT...]

LIBRARY is the shared library, whose exported functions must be those that the headers declare and those that a SOURCE,
compiled, calls. A macro is used where a SOURCE, or another macro that it uses, expands it or asks for it: COMPILER is
one of gcc's, which can tell (-dU).
"""
import os
import re
import subprocess
import sys
import tempfile

PUBLIC = re.compile(r"(?!MB_(?:CUR|LEN)_MAX$)(?:MB|mb)_\w+")  # those two are the C library's


def output(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def symbols(nm, *arguments):
    return set(filter(PUBLIC.fullmatch, (line.split()[-1] for line in output(nm, *arguments).splitlines())))


def called(source, compiler):
    with tempfile.TemporaryDirectory() as folder:
        target = os.path.join(folder, "program.o")
        subprocess.run([*compiler, "-O0", "-c", source, "-o", target], check=True)
        return symbols("nm", "-u", target)


def preprocessed(source, compiler, *arguments):
    return output(*compiler, "-E", *arguments, source)


def macros(text):
    return set(filter(PUBLIC.fullmatch, re.findall(r"^#(?:define|undef) (\w+)", text, flags=re.M)))


def declared(text):
    return set(re.findall(r'visibility\("default"\)\)\)\s+[\w\s*]*?\b(mb_\w+)\(', text))


def main(library, sources, compiler):
    exported = symbols("nm", "-D", "--defined-only", library)
    in_headers, defined, calls, expanded = set(), set(), set(), set()
    for source in sources:
        in_headers |= declared(preprocessed(source, compiler, "-P"))
        defined |= macros(preprocessed(source, compiler, "-dM"))
        expanded |= macros(preprocessed(source, compiler, "-dU"))
        calls |= called(source, compiler)
    missing = [
        ("declared, but not exported", in_headers - exported),
        ("exported, but not declared", exported - in_headers),
        (f"not called in {' or '.join(sources)}", exported - calls),
        (f"not used in {' or '.join(sources)}", defined - expanded),
    ]
    for what, names in missing:
        for name in sorted(names):
            print(f"{name}: {what}")
    print(f"{len(exported)} functions, {len(defined)} macros")
    return any(names for _, names in missing)


if __name__ == "__main__":
    if "--" not in sys.argv[3:]:
        sys.exit(__doc__)
    split = sys.argv.index("--")
    sys.exit(main(sys.argv[1], sys.argv[2:split], sys.argv[split + 1:]))
