#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes a C file with shaders as text, for what is compiled at run time: includes in place, without version and
main. texts.py TARGET FOLDER[:FOLDER...] NAME=FILE..."""
import os
import re
import sys


def expanded(path, folders):
    out = []
    for line in open(path, encoding="utf-8"):
        include = re.match(r'#include "(.*)"', line)
        if include:
            name = next(p for p in (os.path.join(f, include.group(1)) for f in folders) if os.path.exists(p))
            out += expanded(name, folders)
        elif not re.match(r"#version|#extension GL_GOOGLE_include_directive|void main\(\) \{\}", line):
            out.append(line)
    return out


def main(target, folders, *texts):
    out = ["/* Made from backends/vulkan/shaders. */", '#include "backends/vulkan/vulkan.h"', ""]
    for text in texts:
        name, path = text.split("=")
        source = "".join(expanded(path, folders.split(":")))
        source = re.sub(r"/\*.*?\*/", " ", source, flags=re.S).encode() + b"\0"
        out += [f"extern const char {name}[];", f"const char {name}[] = {{"]
        out += ["    " + ", ".join(str(b) for b in source[i:i + 24]) + "," for i in range(0, len(source), 24)]
        out.append("};")
    with open(target, "w", encoding="utf-8") as f:
        f.write("\n".join(out) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
