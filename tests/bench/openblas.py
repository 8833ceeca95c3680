# SPDX-License-Identifier: MIT
"""The environment of programs that are timed: PyTorch of Debian multiplies with OpenBLAS, which takes its slowest kernels
on a CPU that is newer than itself. It is told the newest ones that the CPU has, then, as a user who looks for speed would."""
import os
import subprocess
import sys

PYTHON = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
UNKNOWN = {"Prescott", "Core2", "Nehalem", "Generic"}


def environment():
    told = dict(os.environ)
    if "OPENBLAS_CORETYPE" in told:
        return told
    done = subprocess.run([PYTHON, "-c", "import torch"], capture_output=True, text=True, env=told | {"OPENBLAS_VERBOSE": "2"}, check=False)
    core = next((line.split()[1] for line in done.stderr.splitlines() if line.startswith("Core: ")), "")
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as f:
            has = set(next((line for line in f if line.startswith("flags")), "").split())
    except OSError:
        has = set()
    kernels = "SkylakeX" if "avx512f" in has else "Haswell" if "avx2" in has else ""
    if core in UNKNOWN and kernels:
        print(f"OpenBLAS does not know this CPU ({core}): OPENBLAS_CORETYPE={kernels}", file=sys.stderr)
        told["OPENBLAS_CORETYPE"] = kernels
    return told
