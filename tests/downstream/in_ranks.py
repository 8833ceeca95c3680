#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A program as N ranks of mpirun, within a minute; exits 1 with what they print if one of them does not exit with 0, or if
they hang. They have a folder in common, $TESTS_FOLDER.

  in_ranks.py N COMMAND [ARGUMENT...]
"""
import os
import subprocess
import sys
import tempfile

# As root in a container: allowed, and without the kernel's copies from process to process, which need a capability.
MORE = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "MB_THREADS": "1",
        "OMPI_MCA_btl_vader_single_copy_mechanism": "none"}


def main(n, *command):
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(["mpirun", "-n", n, "--oversubscribe", *command], text=True, timeout=60, check=False,
                                  env={**os.environ, **MORE, "TESTS_FOLDER": folder}, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT)
        except subprocess.TimeoutExpired as late:
            sys.exit(f"it hangs: {late.stdout}")
    print(done.stdout, end="")
    return done.returncode != 0


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
