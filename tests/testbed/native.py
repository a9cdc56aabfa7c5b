# SPDX-License-Identifier: MIT
"""Tests of this machine, which need no emulator."""

import subprocess
import time

import testlist
from results import Result, judge, report, say


def run_native(tests, show):
    """Tests that need no emulator, one after the other."""
    skips, results = testlist.read_skips(), []
    for test in tests:
        say(f"run   {test.name}: {test.command}")
        start = time.monotonic()
        try:
            done = subprocess.run(test.command.split(), cwd=testlist.TOP, stdin=subprocess.DEVNULL,
                                  stdout=None if show else subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, errors="replace",
                                  timeout=test.timeout)
            rc, output = done.returncode, (done.stdout or "").splitlines()
        except subprocess.TimeoutExpired as error:
            rc, output = -1, [(error.stdout or b"").decode(errors="replace"),
                              f"still running after {test.timeout} s"]
        except OSError as error:
            rc, output = -1, [str(error)]
        result = Result(test.name, "pass") if rc == 0 else judge(test.name, rc, output, skips)
        result.seconds = time.monotonic() - start
        result.again = f"tests/testbed/run.py --native --show {test.name}"
        results.append(result)
        report(result, say)
    return results


def passed(results):
    """How long those took."""
    return {result.name: result.seconds for result in results if result.outcome == "pass"}


class Native:
    """Native tests, one after the other, while machines run: two of them might build the same."""

    KIND = "native"

    def __init__(self, tests, show):
        self.tests, self.show, self.results = tests, show, []

    @staticmethod
    def key(name):
        return name

    @staticmethod
    def title():
        return "native beside machines"

    def durations(self):
        return passed(self.results)

    def run(self):
        self.results = run_native(self.tests, self.show)
