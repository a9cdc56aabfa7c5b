#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Debian's Boehm collector, unmodified, in incremental mode with libepk-gc.so: what it keeps is what it keeps without.

collector.py [--times]: prints the CPU time of each way instead, in seconds of this machine: the least of five runs.
"""
import os
import pathlib
import resource
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
LIBRARY = HERE.parents[1] / "guest-lib/build"
SECONDS = 120
PRELOAD = ("env", f"LD_LIBRARY_PATH={LIBRARY}", f"LD_PRELOAD={LIBRARY}/libepk-gc.so", "EPK_DEBUG=1", "EPK_BACKEND=none")
TELLS = "tells the collector which pages are written to"
REFUSES = "the collector goes on as without it: the kernel cannot tell"


class Failed(Exception):
    """What a run has said."""


def run(program, mode, threads, *more, preload=False):
    """What it prints, and what it says besides."""
    words = [*(PRELOAD if preload else ()), str(program), mode, str(threads), *more]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False,
                          env={**os.environ, "GC_PRINT_STATS": "1"} if preload else None)
    if done.returncode:
        raise Failed(f"{' '.join(words)}: {done.returncode}: {done.stdout[-300:]} {done.stderr[-600:]}")
    return done.stdout.split("\n"), done.stderr


def digests(lines):
    """Of all that was reachable, however often it was collected."""
    return sorted(line.split()[-1] for line in lines if "digest" in line or "child" in line or "parent" in line)


def is_told(said):
    """The library answers, and the collector goes by that."""
    return TELLS in said and "Using soft-dirty bit feature" in said


def compare(program, threads, *more):
    """The same with the library as without, and the library has answered."""
    want = digests(run(program, "full", threads, *more)[0])
    lines, said = run(program, "incremental", threads, *more, preload=True)
    if digests(lines) != want or not want:
        raise Failed(f"{threads} threads {more}: {digests(lines)} is not {want}")
    if not is_told(said):
        raise Failed(f"{threads} threads {more}: the library does not answer: {said[:600]}")
    partial = [int(line.split()[2]) for line in said.split("\n") if line.startswith("Marked from")]
    if len(partial) < 5:
        raise Failed(f"{threads} threads {more}: {len(partial)} collections went by what was written to")


def refused(program):
    """Without userfaultfd it says so, and the collector keeps the same."""
    want = digests(run(program, "full", 2)[0])
    lines, said = run(program, "incremental", 2, "denied", preload=True)
    if REFUSES not in said or TELLS in said or digests(lines) != want:
        raise Failed(f"denied: {digests(lines)}, {want}, {said[:600]}")


def cpu(program, mode, preload):
    """Seconds of user and system."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = [*(PRELOAD[:3] if preload else ()), str(program), mode, "1"]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, timeout=SECONDS)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def times(program):
    """Each way that this machine has."""
    for name, mode, preload in (("full collections", "full", False), ("incremental, the collector's own", "incremental", False),
                                ("incremental, libepk-gc.so", "incremental", True)):
        print(f"{name:34} {min(cpu(program, mode, preload) for _ in range(5)):6.2f}")


def main():
    with tempfile.TemporaryDirectory() as folder:
        program = pathlib.Path(folder) / "collector_test"
        built = subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, HERE / "collector_test.c", "-lgc", "-lpthread"],
                               capture_output=True, text=True, check=False)
        if built.returncode:
            print(f"collector: {built.stderr[-600:]}")
            return 1
        if sys.argv[1:] == ["--times"]:
            times(program)
            return 0
        try:
            said = run(program, "incremental", 1, preload=True)[1]
            if not is_told(said) and REFUSES in said:
                print("the kernel cannot tell which pages are written to")
                return 77
            compare(program, 1)
            compare(program, 4)
            compare(program, 2, "others")
            compare(program, 2, "fork")
            # Partial ones that find all written to.
            compare(program, 2, "domains")
            refused(program)
        except (Failed, subprocess.TimeoutExpired) as error:
            print(f"collector: {error}")
            return 1
    print("collector: the same is kept, with 1, 2 and 4 threads, in a child, and where the kernel cannot tell")
    return 0


if __name__ == "__main__":
    sys.exit(main())
