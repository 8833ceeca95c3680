# SPDX-License-Identifier: MIT
"""Tests that run the example programs: what they share, and the loop over them."""
import fcntl
import fnmatch
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import time
import traceback

TESTS = []
programs = None  # folder of the built examples


def test(f):
    TESTS.append(f)
    return f


class Failure(Exception):
    pass


def expect(ok, *what):
    if not ok:
        raise Failure(" ".join(map(str, what)))


def near(a, b, relative):
    return abs(a - b) <= relative * max(abs(a), abs(b))


def environment(**more):
    """Nothing that steers the library, and no gnuplot, which takes most of a short run's time; pictures=True: with."""
    e = {k: v for k, v in os.environ.items() if not k.startswith(("MB_", "GNUPLOT", "CDPATH"))}
    if not more.pop("pictures", False):
        e["PATH"] = "/nonexistent"
    e.update(more)
    return e


def arguments(flags):
    return [f"--{k.replace('_', '-')}={v}" for k, v in flags.items()]


class Run:
    """A finished process."""

    def __init__(self, done):
        self.status, self.out, self.err = done.returncode, done.stdout, done.stderr


def run(program, flags=(), more=(), cwd=None, env=None, **options):
    """flags: a dictionary; more: further arguments."""
    options.setdefault("stdout", subprocess.PIPE)
    options.setdefault("stderr", subprocess.PIPE)
    return Run(subprocess.run([programs / program, *arguments(dict(flags)), *more], cwd=cwd, text=True, timeout=300,
                              env=env or environment(), check=False, **options))


def succeed(program, flags=(), more=(), **options):
    done = run(program, flags, more, **options)
    expect(done.status == 0, f"status {done.status}:", done.err[-2000:] if done.err else "")
    return done


def refused(done, *words):
    """It ended with 1 and said so."""
    expect(done.status == 1, f"status {done.status}, not 1:", (done.err or "")[-500:])
    for word in words:
        expect(word in done.err, f"no {word!r} in:", done.err[-500:])


class Held:
    """A process that is held up in the middle, without a clock: its stderr is a pipe of one page that nobody reads, so
    it stops in the middle of a line that does not fit any more. room: bytes that it may still write."""

    PAGE = 4096

    def __init__(self, program, flags, room=PAGE, more=(), cwd=None, env=None):
        self.ends = os.pipe()
        fcntl.fcntl(self.ends[1], fcntl.F_SETPIPE_SZ, self.PAGE)
        if room < self.PAGE:
            os.write(self.ends[1], b"." * (self.PAGE - room))
        self.filled = self.PAGE - room
        self.text = ""
        self.process = subprocess.Popen([programs / program, *arguments(flags), *more], stderr=self.ends[1],
                                        stdout=subprocess.PIPE, cwd=cwd, env=env or environment())
        os.close(self.ends[1])

    def until(self, condition):
        """Waits for something that the process does before it is held up, or while it is."""
        for _ in range(3000):
            if condition():
                return
            if self.process.poll() is not None:
                raise Failure("the process ended instead of being held up: " + self.finish().err[-500:])
            time.sleep(0.01)
        self.kill()
        raise Failure("nothing happened in 30 seconds")

    def until_held(self):
        """The next line has no room: lines are below 100 bytes."""
        def full():
            buffer = bytearray(4)
            fcntl.ioctl(self.ends[0], termios.FIONREAD, buffer)
            return int.from_bytes(buffer, sys.byteorder) > self.PAGE - 100
        self.until(full)
        time.sleep(0.05)  # it may be just about to write one more that fits

    def drain(self):
        """Lets it go on to its end."""
        chunks = []
        while chunk := os.read(self.ends[0], 65536):
            chunks.append(chunk)
        os.close(self.ends[0])
        self.text = b"".join(chunks)[self.filled:].decode()
        return self.text

    def finish(self):
        text = self.drain()
        out = self.process.stdout.read().decode()
        self.process.stdout.close()
        return Run(subprocess.CompletedProcess([], self.process.wait(timeout=300), out, text))

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        return self.finish()

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)


def main(folder, pattern):
    global programs
    programs = pathlib.Path(folder).resolve()
    passed = failed = 0
    for f in TESTS:
        name = f"{f.__module__}/{f.__name__}"
        if not fnmatch.fnmatch(name, pattern):
            continue
        started = time.monotonic()
        temporary = pathlib.Path(tempfile.mkdtemp(prefix="moebius-"))
        try:
            f(temporary)
            passed += 1
            print(f"ok      {name}  {time.monotonic() - started:.1f} s")
        except Exception as e:  # whatever a test meets is its failure
            failed += 1
            print(f"FAILED: {name}: {e if isinstance(e, Failure) else traceback.format_exc()}")
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    return 0 if passed and not failed else 1
