#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The example programs, from outside: what a run leaves behind is recomputed by other code, stopped and gone on with,
and met with whatever a file system, a terminal or another process can do.

  examples_test.py BUILD/examples [GLOB]     GLOB over module/test, such as 'mttt_resume/*'

Prints the tests that failed and, as its last line, "N passed, N failed"."""
import sys

sys.dont_write_bytecode = True  # the tree stays as it is

import harness
import convolutions  # noqa: F401  the modules register their tests
import in_context  # noqa: F401
import learning  # noqa: F401
import mttt_folder  # noqa: F401
import mttt_resume  # noqa: F401
import mttt_tables  # noqa: F401
import mttt_training  # noqa: F401

if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    sys.exit(harness.main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "*"))
