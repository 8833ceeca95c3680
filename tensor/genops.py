#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes ops.h, the declarations of the elementwise ops, from the rows of ops.def."""
import re
import sys

TYPES = {"F": "float32, float64", "N": "float32, float64, int32", "L": "bool"}
HEAD = """/* SPDX-License-Identifier: MIT
 *
 * ops.h - elementwise ops, made from tensor/ops.def. Edit that.
 *
 * Shapes broadcast; dtypes of the operands must be the same, and are the result's unless stated.
 * Each is differentiable to any order unless marked "no derivative" (zero by definition).
 */
#ifndef MB_OPS_H
#define MB_OPS_H
#ifdef __cplusplus
extern "C" {
#endif
"""
TAIL = """
#ifdef __cplusplus
}
#endif
#endif
"""


def rows(path):
    for line in open(path, encoding="utf-8"):
        m = re.match(r"MB_(UNARY|BINARY|COMPARE)\s*\((.*)\)\s*$", line)
        if not m:
            continue
        body = m.group(2)
        doc = body[body.index('"') + 1:body.rindex('"')]
        cells = [c.strip() for c in body[:body.index('"')].split(",")]
        name, types = cells[1], cells[2]
        constant = m.group(1) == "COMPARE" or cells[-3:-1] == ["0.0", "0.0"]
        yield m.group(1), name, types, doc, constant


def main(source, target):
    out = [HEAD]
    for kind, name, types, doc, constant in rows(source):
        result = " -> bool" if kind == "COMPARE" else ""
        note = " No derivative." if constant else ""
        out.append(f"\n/* {doc}. {TYPES[types]}{result}.{note} */")
        f = f"mb_{name}"
        if kind == "UNARY":
            out.append(f"MB_API mb_tensor {f}_at(const char *where, mb_tensor x);")
            out.append(f"#define {f}(...) {f}_at(MB_HERE, __VA_ARGS__)")
            continue
        out.append(f"MB_API mb_tensor {f}_at(const char *where, mb_tensor a, mb_tensor b);")
        if types == "L":
            out.append(f"#define {f}(...) {f}_at(MB_HERE, __VA_ARGS__)")
            continue
        out.append(f"MB_API mb_tensor {f}_right_at(const char *where, mb_tensor a, double b);")
        out.append(f"MB_API mb_tensor {f}_left_at(const char *where, double a, mb_tensor b);")
        out.append("#ifndef __cplusplus")
        out.append(f"#define {f}(a, b) _Generic((a), mb_tensor: _Generic((b), mb_tensor: {f}_at, "
                   f"default: {f}_right_at), default: {f}_left_at)(MB_HERE, a, b)")
        out.append("#endif")
    out.append(TAIL)
    with open(target, "w", encoding="utf-8") as f:
        f.write("\n".join(out))


if __name__ == "__main__":
    main(*sys.argv[1:3])
