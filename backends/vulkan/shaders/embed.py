#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes a C file with compiled shaders as arrays, and the table of that name that finds them (vulkan.h)."""
import os
import struct
import sys


def main(target, table, sources):
    out = ["/* Made from backends/vulkan/shaders. */", '#include "backends/vulkan/vulkan.h"', ""]
    names = []
    for source in sources:
        name = os.path.splitext(os.path.basename(source))[0]
        data = open(source, "rb").read()
        words = struct.unpack(f"<{len(data) // 4}I", data)
        names.append(name)
        out.append(f"static const uint32_t {name}[] = {{")
        for i in range(0, len(words), 12):
            out.append("    " + ", ".join(f"0x{w:08x}" for w in words[i:i + 12]) + ",")
        out.append("};")
    out += [f"extern const mb__vk_shader {table}[];", f"const mb__vk_shader {table}[] = {{"]
    out += [f'    {{"{n}", {n}, sizeof {n}}},' for n in names]
    out += ["    {0, 0, 0},", "};"]
    with open(target, "w", encoding="utf-8") as f:
        f.write("\n".join(out) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
