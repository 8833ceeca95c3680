#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Whether a command prints what a program does, to the last character; exits 1 and shows both if not.

  alike.py PROGRAM COMMAND [ARGUMENT...]
"""
import subprocess
import sys


def main(program, *command):
    said = [subprocess.run(c, stdout=subprocess.PIPE, text=True, check=True).stdout for c in ([program], command)]
    if not said[0] or said[0] != said[1]:
        sys.exit("\n".join(said))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
