#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What a run says of how long it will take, and what it remembers for that."""

import collections
import contextlib
import io
import pathlib
import tempfile
import unittest
from unittest import mock

import durations

Test = collections.namedtuple("Test", "name")


class Machine:
    """As a run is, for a plan."""

    KIND = "emulated"

    def __init__(self, *names):
        self.tests = [Test(name) for name in names]

    @staticmethod
    def key(name):
        return "m " + name

    @staticmethod
    def title():
        return "[m]"


class Durations(unittest.TestCase):
    def setUp(self):
        self.cache = tempfile.TemporaryDirectory()
        self.addCleanup(self.cache.cleanup)
        patch = mock.patch.object(durations, "CACHE", pathlib.Path(self.cache.name) / "new")
        patch.start()
        self.addCleanup(patch.stop)

    def test_what_is_recorded_stays(self):
        self.assertEqual(durations.read(), {})
        durations.record({"a": 1, "b": 2})
        durations.record({"b": 3})
        self.assertEqual(durations.read(), {"a": 1, "b": 3})

    def test_what_is_no_record(self):
        durations.record({"a": 1})
        (durations.CACHE / "durations.json").write_text("{")
        self.assertEqual(durations.read(), {})
        durations.record({"a": 2})
        self.assertEqual(durations.read(), {"a": 2})

    def test_plan(self):
        known = {"n": 10, "m a": 20, "m b": 30, "m c": 100, "m boot": 5, "build": 7}
        machines = [Machine("a", "b"), Machine("c"), Machine("a")]
        # 7 + 10, then 55 and 25 beside 105.
        plan = durations.Plan([Test("n")], machines, 2, True, known)
        self.assertEqual((plan.seconds, plan.guessed, plan.count()), (122, 0, 5))
        self.assertEqual(durations.Plan([Test("n")], machines, 1, True, known).seconds, 202)
        self.assertEqual(durations.Plan([Test("n")], [], 2, False, known).seconds, 10)
        self.assertEqual(list(plan.lines()), ["5 tests: 1 native, 2 [m], 1 [m], 1 [m]",
                                              "about 2 min, as when they last passed here, once all is built, which last took 7 s"])
        self.assertEqual(list(durations.Plan([Test("n")], [], 2, False, known).lines())[1],
                         "about 10 s, as when they last passed here")

    def test_guesses_are_told(self):
        plan = durations.Plan([Test("n")], [Machine("a")], 2, True, {})
        self.assertEqual(plan.guessed, 2)
        self.assertEqual(plan.seconds, sum(durations.GUESS[kind] for kind in ("build", "native", "boot", "emulated")))
        self.assertIn("2 have not yet", list(plan.lines())[1])

    def test_progress(self):
        clock = mock.Mock(return_value=1000)
        progress = durations.Progress(durations.Plan([Test("a"), Test("b"), Test("c")], [], 1, False,
                                                     {"a": 50, "b": 60, "c": 70}), clock)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            clock.return_value += 50
            progress.one_more()
            self.assertEqual(out.getvalue(), "")
            clock.return_value += 60
            progress.one_more()
            self.assertIn("2 of 3, about 70 s to go", out.getvalue())
            clock.return_value += 200
            progress.one_more()
        self.assertIn("3 of 3, already 2 min longer than expected", out.getvalue())


if __name__ == "__main__":
    unittest.main()
