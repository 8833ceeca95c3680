#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""From the rows of ops.def: ops.h, the declarations of the elementwise ops and functions of two operands; or ops.glsl, the functions that the
vulkan backend's kernels call for them."""
import re
import sys

TYPES = {"F": "float32, float64", "N": "float32, float64, int32", "I": "int32", "L": "bool"}
HEAD = """/* SPDX-License-Identifier: MIT
 *
 * ops.h - elementwise ops and functions of two operands, made from tensor/ops.def. Edit that.
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
}}

/* A number as one of the operands: what _Generic does in C. */
{overloads}#endif
#endif
"""
OVERLOADS = """inline mb_tensor {f}_at(const char *site, mb_tensor a, double b) {{ return {f}_right_at(site, a, b); }}
inline mb_tensor {f}_at(const char *site, double a, mb_tensor b) {{ return {f}_left_at(site, a, b); }}
"""


def rows(path):
    for line in open(path, encoding="utf-8"):
        m = re.match(r"MB_(UNARY|BINARY|COMPARE|FUNCTION)\s*\((.*)\)\s*$", line)
        if not m:
            continue
        body = m.group(2)
        doc = body[body.index('"') + 1:body.rindex('"')]
        cells = [c.strip() for c in body[:body.index('"')].split(",")]
        if m.group(1) == "FUNCTION":
            yield "COMPARE" if cells[2] == "bool" else "BINARY", cells[0], cells[1], doc, cells[2] == "bool", None
            continue
        name, types = cells[1], cells[2]
        after = {"UNARY": 1, "BINARY": 2, "COMPARE": 0}[m.group(1)]  # cells between the limits and the doc
        end = len(cells) - 1 - after
        limits = [] if m.group(1) == "COMPARE" else cells[end - 2:end]
        expression = ", ".join(cells[3:end - len(limits)])
        yield m.group(1), name, types, doc, not limits or limits == ["0.0", "0.0"], expression


GLSL_TYPES = {"F": ["f32", "f64"], "N": ["f32", "f64", "i32"], "I": ["i32"], "L": ["bool"]}
GLSL_NAMES = {"f32": "float", "f64": "double", "i32": "int", "bool": "bool"}


def glsl(source):
    """`precise`: an element has the same bits in whichever kernel it is computed."""
    out = ["/* ops.glsl - made from tensor/ops.def. */"]
    for kind, name, types, _, _, expression in rows(source):
        if expression is None:
            continue
        for t in GLSL_TYPES[types]:
            e = re.sub(r"M\((\w+)\)", r"m_\1", expression)
            if t == "bool":
                e = e.replace("&", "&&").replace("|", "||")
            arguments = ["x"] if kind == "UNARY" else ["a", "b"]
            result = "bool" if kind == "COMPARE" else GLSL_NAMES[t]
            # By value: SPIR-V passes other parameters through memory.
            parameters = ", ".join(f"const {GLSL_NAMES[t]} {a}" for a in arguments)
            if t == "f64":
                out.append("#ifdef HAVE_F64")
            out.append(f"{result} {t}_{name}({parameters}) {{ precise {result} r = {e}; return r; }}")
            if t == "f64":
                out.append("#endif")
    return out


def header(source):
    out, overloads = [HEAD], ""
    for kind, name, types, doc, constant, _ in rows(source):
        result = " -> bool" if kind == "COMPARE" else ""
        note = " No derivative." if constant else ""
        out.append(f"\n/* {doc}. {TYPES[types]}{result}.{note} */")
        f = f"mb_{name}"
        if kind == "UNARY":
            out.append(f"MB_API mb_tensor {f}_at(const char *site, mb_tensor x);")
            out.append(f"#define {f}(...) {f}_at(MB_HERE, __VA_ARGS__)")
            continue
        out.append(f"MB_API mb_tensor {f}_at(const char *site, mb_tensor a, mb_tensor b);")
        if types == "L":
            out.append(f"#define {f}(...) {f}_at(MB_HERE, __VA_ARGS__)")
            continue
        out.append(f"MB_API mb_tensor {f}_right_at(const char *site, mb_tensor a, double b);")
        out.append(f"MB_API mb_tensor {f}_left_at(const char *site, double a, mb_tensor b);")
        out.append("#ifdef __cplusplus")
        out.append(f"#define {f}(...) {f}_at(MB_HERE, __VA_ARGS__)")
        out.append("#else")
        out.append(f"#define {f}(a, b) _Generic((a), mb_tensor: _Generic((b), mb_tensor: {f}_at, "
                   f"default: {f}_right_at), default: {f}_left_at)(MB_HERE, a, b)")
        out.append("#endif")
        overloads += OVERLOADS.format(f=f)
    out.append(TAIL.format(overloads=overloads))
    return out


def main(source, target):
    lines = glsl(source) if target.endswith(".glsl") else header(source)
    with open(target, "w", encoding="utf-8") as f:
        f.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:3])
