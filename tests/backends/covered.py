#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Whether foreign_calls.c has a line for each public function; exits 1 and names those that it has not.

  covered.py LIBRARY FOREIGN_CALLS      the shared library, and the program
"""
import subprocess
import sys


def output(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


exported = {line.split()[-1] for line in output("nm", "-D", "--defined-only", sys.argv[1]).splitlines()}
listed = set(output(sys.argv[2], "--list").split())
for name in sorted(exported - listed):
    print(f"{name}: no line of tests/backends/foreign_calls.c calls it")
for name in sorted(listed - exported):
    print(f"{name}: in tests/backends/foreign_calls.c, but not exported")
print(f"{len(exported)} functions")
sys.exit(exported != listed)
