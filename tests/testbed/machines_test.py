#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Which machines a run has, and what each of them tests."""

import os
import pathlib
import subprocess
import types
import unittest
from unittest import mock

import durations
import flavours
import machines
import testlist

TESTS = [testlist.Test(name, level, cpus, 4, set(needs.split(",")), "run") for name, level, cpus, needs in (
    ("selfcheck-host", "host", (1, 2), "core"),
    ("selfcheck-guest", "guest", (1, 2), "core"),
    ("kvm-x", "host", (1,), "-"),
    ("kmod-x", "guest", (1, 2), "epk"),
    ("kmod-uni", "guest", (1, 2), "alone,uni,epk"),
    ("kmod-spared", "guest", (1, 2), "alone,spared,epk"),
    ("kmod-lone", "guest", (1,), "lone"),
    ("unit-mpk", "guest", (1,), "alone"),
    ("unit-step-mpk", "guest", (1,), "lone"),
    ("unit-core-mpk", "guest", (1,), "alone,core"),
    ("bench-flat", "guest", (1, 2), "epk,figures"),
    ("bench-kvm", "host", (1,), "named,figures"),
    ("bench-long", "guest", (1,), "named,figures"),
    ("hygiene-x", "native", (), "self"))]


class Machines(unittest.TestCase):
    known = {}

    def plan(self, *names, host="normal", guest="normal", native=(), **given):
        args = types.SimpleNamespace(**{"names": names, "cpus": None, "fast": False, "here": False, "alone": False,
                                        "keep": False, "show": False, "kernel": host, **given})
        with mock.patch.object(durations, "read", lambda: self.known):
            runs = machines.plan_machines(TESTS, args, [flavours.pair(host, guest)], native)
        return {run.title(): [test.name for test in run.tests] for run in runs}

    def test_all(self):
        both = ["selfcheck-host", "selfcheck-guest"]
        self.assertEqual(self.plan(), {
            "[1 CPU]": both + ["kvm-x", "kmod-x", "kmod-uni", "unit-core-mpk"],
            "[1 CPU, figures]": both + ["bench-flat"],
            # Nothing compares its figures.
            "[2 CPUs]": both + ["kmod-x", "bench-flat"],
            "[1 CPU, alone]": ["kmod-uni", "kmod-spared", "kmod-lone", "unit-mpk", "unit-step-mpk", "unit-core-mpk"],
            "[2 CPUs, alone]": ["kmod-uni", "kmod-spared"]})

    def test_figures_have_the_same_past_by_name(self):
        by_name, whole = self.plan("bench-flat", cpus=[1]), self.plan(cpus=[1])
        self.assertEqual(list(by_name), ["[1 CPU, figures]"])
        self.assertEqual(by_name["[1 CPU, figures]"], whole["[1 CPU, figures]"])
        self.assertEqual(self.plan("bench-kvm"), {"[1 CPU, bench-kvm]": ["selfcheck-host", "bench-kvm"]})

    def test_long_figures_have_machines_of_their_own(self):
        self.known = {"emulated 1 normal/normal bench-long": 1000}
        by_machine = self.plan("bench-kvm", "bench-flat", "bench-long", cpus=[1])
        self.assertEqual(list(by_machine)[0], "[1 CPU, bench-long]")
        self.assertEqual({title: tests[-1] for title, tests in by_machine.items()}, {
            "[1 CPU, figures]": "bench-flat", "[1 CPU, bench-kvm]": "bench-kvm", "[1 CPU, bench-long]": "bench-long"})

    def test_other_kernels_have_no_figures(self):
        for host, guest in (("debug", "normal"), ("normal", "debug"), ("6.12", "normal")):
            runs = self.plan("bench-flat", "kmod-x", cpus=[1], host=host, guest=guest)
            self.assertEqual(list(runs.values()), [["selfcheck-host", "selfcheck-guest", "kmod-x", "bench-flat"]])

    def test_nothing_is_spared_that_is_named(self):
        self.assertIn("kmod-uni", self.plan("kmod-uni")["[2 CPUs]"])
        self.assertIn("unit-mpk", self.plan("unit")["[1 CPU]"])
        self.assertIn("kmod-spared", self.plan("kmod")["[1 CPU]"])

    def test_nothing_is_spared_on_real_machines(self):
        here = self.plan(here=True, cpus=[1])["[1 CPU, this machine]"]
        self.assertLessEqual({"unit-mpk", "kmod-spared"}, set(here))

    def test_debian_kernels_step_through_nothing(self):
        alone = {"guest": "backports", "alone": True, "cpus": [1]}
        self.assertNotIn("unit-step-mpk", self.plan(**alone)["[1 CPU, backports, alone]"])
        self.assertIn("unit-step-mpk", self.plan("unit", **alone)["[1 CPU, backports, alone]"])
        self.assertIn("unit-step-mpk", self.plan(alone=True)["[1 CPU, alone]"])

    def test_the_longest_begins_first(self):
        native = [TESTS[-1]]
        for slowest, title in (("emulated 1 normal/normal bench-flat", "[1 CPU, figures]"),
                               ("emulated 2 normal/normal kmod-x", "[2 CPUs]")):
            self.known = {slowest: 1000}
            titles = list(self.plan(native=native))
            self.assertEqual(titles[:2], [machines.Native.title(), title])

    def test_alone(self):
        self.assertEqual(list(self.plan(alone=True)), ["[1 CPU, alone]", "[2 CPUs, alone]"])

    def test_plan_that_nobody_reads_to_its_end(self):
        reader, writer = os.pipe()
        os.close(reader)
        run = subprocess.run([pathlib.Path(__file__).with_name("run.py"), "--plan", "selfcheck"], stdout=writer,
                             stderr=subprocess.PIPE, text=True, check=False)
        os.close(writer)
        self.assertEqual((run.returncode, run.stderr), (0, ""))


if __name__ == "__main__":
    unittest.main()
