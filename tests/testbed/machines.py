# SPDX-License-Identifier: MIT
"""Which machines a run has, and which tests each of them."""

import itertools

import durations
from elsewhere import AloneRun, HereRun
from flavours import DEBIAN_FLAVOURS
from native import Native
from selection import HERE_NOT, HERE_TESTS, choose
from session import FiguresRun, Run
from testlist import is_named


def plan_machines(tests, args, kernels, native):
    """A machine for each guest kernel and number of CPUs, besides those of figures; and native tests beside them."""
    runs = []
    for each, cpus in itertools.product(kernels, args.cpus or ((1,) if args.fast else (1, 2))):
        chosen = choose(tests, args, each["guest"].flavour)
        mine = [test for test in chosen if cpus in test.cpus]
        alone = [test for test in mine if {"alone", "lone"} & set(test.needs)]
        mine = [test for test in mine if "lone" not in test.needs]
        settings = (cpus, each, args.keep, args.show and args.names)
        if args.here:
            mine = [test for test in mine if test.name not in HERE_NOT and
                    any(is_named(test, name) for name in HERE_TESTS)]
            runs.append(make(HereRun, mine, settings))
            continue
        debian = {args.kernel, each["guest"].flavour} & set(DEBIAN_FLAVOURS)
        # Without a host, another kernel of the host changes nothing.
        if alone and (args.alone or not debian and args.kernel == "normal"):
            runs.append(make(AloneRun, alone, settings))
        if not args.alone:
            if not debian and not args.names:
                mine = [test for test in mine if not is_spared(test, cpus)]
            figures = [test for test in mine if FiguresRun.wants(test, cpus, each)]
            parts = [(Run, [test for test in mine if test not in figures])]
            parts += [(FiguresRun, part) for part in of_figures(figures)]
            for kind, part in parts:
                if part:
                    runs.append(make(kind, with_selfcheck(tests, part, cpus), settings))
    if native:
        runs.append(Native(native, args.show))
    # The longest first, so that none goes on alone at the end; but native ones say at once what is wrong.
    known = durations.read()
    runs.sort(key=lambda run: (not isinstance(run, Native), -durations.expected(run, known)))
    return runs


def of_figures(tests):
    """
    Those of each machine.  The long ones, which run only if they are named, have one each: as many at once as there
    are CPUs, and with the same past whatever else is named.
    """
    long = [test for test in tests if "named" in test.needs]
    return [[test] for test in long] + [[test for test in tests if test not in long]]


def is_spared(test, cpus):
    """Whether the emulator, which is slow, leaves out what QEMU's has: on as many CPUs; all of it; or of no EPT."""
    without_epts = "alone" in test.needs and not {"epk", "core"} & test.needs
    return cpus > 1 and "uni" in test.needs or "spared" in test.needs or without_epts


def make(kind, tests, settings):
    cpus, kernels, keep, show = settings
    return kind(cpus, tests, kernels, keep, show)


def with_selfcheck(tests, mine, cpus):
    """A run that tests anything first tests the emulator; no guest without need."""
    levels = {"host"} | {test.level for test in mine}
    return [test for test in tests if cpus in test.cpus and
            (test in mine or test.name in {f"selfcheck-{level}" for level in levels})]
