# SPDX-License-Identifier: MIT
"""Which machines a run has, and which tests each of them."""

import itertools

from elsewhere import AloneRun, HereRun
from flavours import DEBIAN_FLAVOURS
from native import Beside
from selection import HERE_NOT, HERE_TESTS, choose
from session import FiguresRun, Run
from testlist import is_named


def plan_machines(tests, args, kernels, beside):
    """A machine for each guest kernel and number of CPUs, and for figures one of their own."""
    runs = []
    for each, cpus in itertools.product(kernels, args.cpus or ((1,) if args.fast else (1, 2))):
        chosen = choose(tests, args, each["guest"].flavour)
        mine = [test for test in chosen if cpus in test.cpus]
        alone = [test for test in mine if {"alone", "lone"} & set(test.needs)]
        # The emulator is slow, and QEMU's has had these on as many CPUs.
        spared = {"lone", "uni"} if cpus > 1 and not args.names else {"lone"}
        mine = [test for test in mine if not spared & set(test.needs)]
        settings = (cpus, each, args.keep, args.show and args.names)
        if args.here:
            mine = [test for test in mine if test.name not in HERE_NOT and
                    any(is_named(test, name) for name in HERE_TESTS)]
            runs.append(make(HereRun, mine, settings))
            continue
        debian = {args.kernel, each["guest"].flavour} & set(DEBIAN_FLAVOURS)
        if alone and (args.alone or not debian):
            runs.append(make(AloneRun, alone, settings))
        if not args.alone:
            figures = [test for test in mine if FiguresRun.wants(test, cpus, each)]
            for kind, part in (Run, [test for test in mine if test not in figures]), (FiguresRun, figures):
                if part:
                    runs.append(make(kind, with_selfcheck(tests, part, cpus), settings))
    if beside:
        runs.append(Beside(beside, args.show))
    # The longest first, so that none goes on alone at the end.
    runs.sort(key=lambda run: (isinstance(run, Beside), isinstance(run, AloneRun), -len(run.tests)))
    return runs


def make(kind, tests, settings):
    cpus, kernels, keep, show = settings
    return kind(cpus, tests, kernels, keep, show)


def with_selfcheck(tests, mine, cpus):
    """A run that tests anything first tests the emulator; no guest without need."""
    levels = {"host"} | {test.level for test in mine}
    return [test for test in tests if cpus in test.cpus and
            (test in mine or test.name in {f"selfcheck-{level}" for level in levels})]
