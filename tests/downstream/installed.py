#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Whether the README's test of a layer builds and runs with the installed library, and is quoted as it is; exits 1 and
says what is wrong if not.

  installed.py BUILD FOLDER [COMPILER...]

The library of the build folder BUILD is installed under FOLDER, which is made anew.
"""
import os
import shlex
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))


def run(*command, **more):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **more)
    if done.returncode:
        sys.exit(f"{shlex.join(command)}: status {done.returncode}\n{done.stdout}")
    return done.stdout


def install(build, folder):
    """The environment in which pkg-config and programs find what was installed under the folder."""
    shutil.rmtree(folder, ignore_errors=True)
    run("meson", "install", "-C", build, "--no-rebuild", "--quiet", "--destdir", folder)
    configs = [at for at, _, names in os.walk(folder) if "moebius.pc" in names]
    if len(configs) != 1:
        sys.exit(f"moebius.pc is in {configs}")
    return {**os.environ, "PKG_CONFIG_PATH": configs[0], "PKG_CONFIG_SYSROOT_DIR": folder,
            "LD_LIBRARY_PATH": os.path.dirname(configs[0])}


def static(environment):
    """What pkg-config is told where there is the static library alone."""
    shared = os.path.exists(os.path.join(environment["LD_LIBRARY_PATH"], "libmoebius.so"))
    return [] if shared else ["--static"]


def quoted(name):
    """Whether the README quotes a source, after its head."""
    with open(os.path.join(HERE, name), encoding="utf-8") as f:
        code = f.read().split("*/\n", 1)[1]
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as f:
        return code.strip() in f.read()


def main(build, folder, *compiler):
    folder = os.path.abspath(folder)
    environment = install(build, folder)
    flags = shlex.split(run("pkg-config", "--cflags", "--libs", *static(environment), "moebius", env=environment) +
                        run("pkg-config", "--cflags", "--libs", "criterion"))
    program = os.path.join(folder, "glu_test")
    run(*compiler, "-std=gnu17", "-Wall", "-Werror", os.path.join(HERE, "glu_test.c"), "-o", program, *flags)
    said = run(program, env=environment)
    if "Passing: 1" not in said:
        sys.exit(said)
    if not quoted("glu_test.c"):
        sys.exit("README.md does not quote tests/downstream/glu_test.c")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:3], *(sys.argv[3:] or ["cc"]))
