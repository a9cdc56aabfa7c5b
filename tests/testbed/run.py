#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Run tests on emulated machines, on one and on two CPUs at once.  Machines run at once, as many
as this one has CPUs.

run.py [--cpus 1|2]... [--native|--emulated|--alone|--here] [--show] [--keep]
       [--fast] [--plan] [--kernel FLAVOUR] [--guest-kernel FLAVOUR]... [--figures FILE]
       [--junit FILE] [--ktap FILE] [NAME...]

Tests of a guest whose module can be alone run without a host, too: with QEMU's own
emulation, which has protection keys and no EPK.  --alone runs nothing else.

--here runs them on this machine, whose KVM has EPK; see tests/hardware/check.sh, which sees to that.

Figures that tests print, one emulated CPU compares with those in bench/results; or --figures FILE has them.

A NAME is a test of tests/tests.list, or the part before one of its dashes.
A FLAVOUR is normal or debug, or stock; of the host 6.12, and of the guest cloud or backports, too: see
tests/testbed/kernel.sh, dkms-kernel.sh and debian-kernel.sh.
"""

import argparse
import concurrent.futures
import os
import pathlib
import sys
import time

import bochs
import durations
import results as outcome
import testlist
from flavours import GUEST_FLAVOURS, HOST_FLAVOURS, build, pair
from machines import plan_machines
from native import passed, run_native
from results import say
from selection import choose
from session import Run
from testlist import is_named

# An emulator takes a whole CPU, whatever number of them it emulates.
MACHINES = max(2, os.cpu_count() or 1)


def arguments():
    """What is asked for"""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpus", type=int, choices=(1, 2), action="append")
    parser.add_argument("--keep", action="store_true", help="keep the logs")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--native", action="store_true", help="only tests of this machine")
    where.add_argument("--emulated", action="store_true", help="no native tests")
    where.add_argument("--alone", action="store_true", help="only tests of modules that are alone")
    where.add_argument("--here", action="store_true", help="on this machine's own KVM")
    parser.add_argument("--kernel", choices=HOST_FLAVOURS, default="normal",
                        help="of the emulated host")
    parser.add_argument("--guest-kernel", choices=GUEST_FLAVOURS, action="append",
                        help="each named one gets machines of its own")
    parser.add_argument("--fast", action="store_true",
                        help="the native tests that are not slow, and the core of the others on one CPU")
    parser.add_argument("--plan", action="store_true",
                        help="say what would run and for how long, and run nothing")
    parser.add_argument("--show", action="store_true",
                        help="let the output of the named tests through to the terminal")
    parser.add_argument("--figures", type=pathlib.Path, help="where to write them")
    parser.add_argument("--junit", type=pathlib.Path, metavar="FILE",
                        help="write the results there, too, as JUnit's XML")
    parser.add_argument("--ktap", type=pathlib.Path, metavar="FILE", help="likewise, as the kernel's tests do")
    parser.add_argument("names", nargs="*")
    return parser.parse_args()


def chosen(args, kernels, guests):
    """(native tests that run when no machine does, machines)"""
    tests = testlist.read_tests()
    for name in args.names:
        if not any(is_named(test, name) for test in tests):
            sys.exit(f"no such test: {name}; see tests/tests.list")
    native, runs = [], []
    if not args.emulated and not args.alone and not args.here:
        native = [test for test in choose(tests, args, guests[0]) if test.level == "native"]
    if not args.native:
        beside = [test for test in native if "quiet" not in test.needs]
        native = [test for test in native if test not in beside]
        runs = plan_machines(tests, args, kernels, beside)
    return native, runs


def say_plan(plan, is_all):
    try:
        for line in plan.lines():
            say(line)
    except BrokenPipeError:
        # Who asked for the plan alone has read enough of it.
        if not is_all:
            raise


def main():
    args = arguments()
    Run.FIGURES_TO = args.figures
    started = time.monotonic()
    guests = args.guest_kernel or ["normal"]
    kernels = [pair(args.kernel, guest) for guest in guests]
    native, runs = chosen(args, kernels, guests)
    builds = bool(runs) or any("self" not in test.needs for test in native)
    plan = durations.Plan(native, runs, MACHINES, builds)
    say_plan(plan, is_all=args.plan)
    if args.plan:
        return
    outcome.progress = durations.Progress(plan)
    took = {}
    if builds:
        for kernel in kernels:
            build(kernel)
        if any(run.KIND == "emulated" for run in runs):
            bochs.build()
        took[durations.BUILD] = time.monotonic() - started
    results = run_native(native, args.show)
    took.update(passed(results))
    results += run_machines(runs, args.figures)
    for run in runs:
        took.update(run.durations())
    durations.record(took)
    if args.junit:
        outcome.write_junit(args.junit, results)
    if args.ktap:
        outcome.write_ktap(args.ktap, results)
    sys.exit(outcome.summary(results, time.monotonic() - started))


def run_machines(runs, figures):
    """As many at once as there is room for; their results."""
    with concurrent.futures.ThreadPoolExecutor(MACHINES) as machines:
        for _ in machines.map(lambda run: run.run(), runs):
            pass
    if figures:
        lines = [line for run in runs for test in getattr(run, "figures", {}).values() for line in test]
        times = [f"{result.name} {result.seconds:.0f}" for run in runs for result in run.results]
        figures.write_text("".join(line + "\n" for line in lines + times))
    return [result for run in runs for result in run.results]


if __name__ == "__main__":
    main()
