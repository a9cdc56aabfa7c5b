#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Run the benchmarks in the emulator and write their figures to bench/results/emulated.json.

evaluate.py [--compare] [TEST...]
evaluate.py --native FILE

A TEST is one of tests/tests.list, or the part before one of its dashes; without any, the whole evaluation.  Those
that are named replace what the file has of their tables, and quick ones the figures that they have; the file says
of which commit each table is.  With --compare nothing is written: the run fails
if a figure is another than the file has.

With --native the programs run on this machine, each case that it can, and FILE gets cycles of its time stamp counter.
"""
import argparse
import os
import pathlib
import re
import subprocess
import sys
import time

import figures

TOP = figures.HERE.parent
RUN = TOP / "tests/testbed/run.py"
TESTS = ("bench-switch", "bench-flat", "bench-micro", "bench-hash", "bench-ipc", "bench-sqlite", "bench-scale", "bench-nginx",
         "bench-peers", "bench-guest", "bench-kvm")
PROGRAMS = ("micro_bench", "hash_bench", "ipc_bench", "sqlite_bench", "scale_bench", "peers_bench", "nginx_bench")
NGINX = TOP / "examples/nginx"
VERSIONS = ("linux-source-6.1", "qemu-system-x86", "gcc", "libc6", "uthash-dev", "libsqlite3-dev")


def say(text):
    print(time.strftime("%H:%M:%S"), text, flush=True)


def output(*command):
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, cwd=TOP).stdout


def header(native=False):
    """Where the figures come from; before they are taken, as the tree may change meanwhile."""
    changed = [line for line in output("git", "status", "--porcelain").splitlines()
               if not line.endswith(("bench/results/", "emulated.json")) and "docs/" not in line]
    script = (TOP / "tests/testbed/bochs.sh").read_text(encoding="ascii")
    versions = {"bochs": re.search("^VERSION=(.*)", script, re.MULTILINE)[1]}
    for name in VERSIONS:
        versions[name] = output("dpkg-query", "-W", "-f", "${Version}", name)
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    kernel = re.match(r"[0-9.]*[0-9]", versions["linux-source-6.1"])[0]
    return {
        "emulated": not native,
        "unit": "cycles" if native else "instructions",
        "cpu": (cpu[1] if cpu else "unknown") if native else "Bochs corei7_icelake_u, 1 CPU",
        "kernel": f"Linux {os.uname().release}" if native else f"Linux {kernel}, host and guest",
        "versions": versions,
        "commit": output("git", "rev-parse", "--short=12", "HEAD").strip() + (" and changes" if changed else ""),
    }


def measure(tests):
    """The figures of these tests, in the emulator."""
    file = figures.HERE / "build" / "figures"
    file.parent.mkdir(exist_ok=True)
    command = [RUN, "--emulated", "--cpus", "1", "--figures", file, *tests]
    if subprocess.run(command, check=False, cwd=TOP).returncode:
        sys.exit(f"evaluate: a benchmark failed: nothing is written; what there is, {file} has")
    lines = file.read_text().splitlines()
    return figures.parse(lines), {name: int(seconds) for name, seconds in
                                  (line.split() for line in lines if line.startswith("bench-"))}


def measure_here(file):
    """What this machine can, in cycles."""
    found, start, head = [], time.monotonic(), header(native=True)
    subprocess.run(["make", "-s", "-C", figures.HERE], check=True)
    subprocess.run(["make", "-s", "-C", NGINX], check=True)
    os.environ["LD_LIBRARY_PATH"] = str(TOP / "guest-lib/build")
    for program in PROGRAMS:
        say(program)
        command = [figures.HERE / "build" / program, "some"]
        if program == "nginx_bench":
            command = [TOP / "tests/testbed/with-nginx.sh", command[0], NGINX / "build", "some"]
        found += figures.parse(output(*command).splitlines())
    for line in (wrong := figures.problems(found)):
        say(f"wrong: {line}")
    if not wrong:
        figures.write(file, {**head, "seconds": {"all": int(time.monotonic() - start)}}, found)
    return bool(wrong)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--native", type=pathlib.Path, metavar="FILE")
    parser.add_argument("tests", nargs="*")
    args = parser.parse_args()
    if args.native:
        sys.exit(measure_here(args.native))
    tests = args.tests or list(TESTS)
    start = time.monotonic()
    say(f"measuring {', '.join(tests)}, the long ones on machines of their own")
    head = header()
    found, seconds = measure(tests)
    took = time.monotonic() - start
    committed = figures.read() if figures.COMMITTED.exists() else {"figures": [], "seconds": {}}
    old = committed["figures"]
    tables = {figure["table"] for figure in found}
    parts = any(test.startswith("quick") for test in args.tests)
    if args.compare:
        wrong = figures.compare(found, [f for f in old if f["table"] in tables], whole=not parts)
    else:
        if args.tests:
            found = figures.merged(found, old, parts)
            seconds = {**committed["seconds"], **seconds}
            head = figures.partly(head, committed, tables)
        wrong = figures.problems(found)
    for line in wrong:
        say(f"wrong: {line}")
    if wrong:
        sys.exit(1)
    if not args.compare:
        figures.write(figures.COMMITTED, {**head, "seconds": seconds}, found)
    say(f"{len(found)} figures, {took / 60:.1f} min")


if __name__ == "__main__":
    main()
