#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What a run makes of what its machine's ports say."""

import contextlib
import io
import unittest

import flavours
import session
import testlist

PORTS = ("host.log", "guest.log", "host.out", "guest.out")


class Ports:
    """A machine that says what it is told to; each look at a port is one entry."""

    def __init__(self):
        self.said = {port: [] for port in PORTS}

    def new_lines(self, port):
        return self.said[port].pop(0) if self.said[port] else []


class Session(unittest.TestCase):
    def setUp(self):
        tests = [testlist.Test(name, "guest", (1,), 4, {"epk"}, f"{name}_test") for name in ("one", "two")]
        self.run_ = session.Run(1, tests, flavours.pair("normal", "normal"), False, None)
        self.run_.start_time = 0
        self.machine = Ports()

    def look(self, **said):
        """One look at all ports: logs are read before the tests' output, and again at each test's end."""
        for port, *looks in ((name.replace("_", "."), *lines) for name, lines in said.items()):
            self.machine.said[port] = list(looks)
        with contextlib.redirect_stdout(io.StringIO()) as out:
            ended = self.run_.read_ports(self.machine)
        return ended, out.getvalue()

    def begin(self, name, **logs):
        self.look(guest_out=[[f"EPK-TEST begin {name}"]], **logs)

    def end(self, name, rc, **logs):
        return self.look(guest_out=[[f"EPK-TEST end {name} rc={rc}"]], **logs)

    def test_a_failure_has_both_logs_since_it_began(self):
        self.begin("one")
        self.look(host_log=[["of one"]])
        self.end("one", 0)
        self.begin("two")
        self.look(host_log=[["kvm: two"]], guest_log=[["epk: early"]])
        _, text = self.end("two", 1, guest_log=[[], ["epk: late"]])
        self.assertEqual(self.run_.results[1].logs, {"host.log": ["kvm: two"], "guest.log": ["epk: early", "epk: late"]})
        for line in ("host.log since about", "  kvm: two", "  epk: late", "again: tests/testbed/run.py --emulated --cpus 1"):
            self.assertIn(line, text)
        self.assertNotIn("of one", text)
        self.assertEqual(self.run_.results[0].logs, {})

    def test_what_comes_with_the_begin_counts(self):
        self.begin("one", guest_log=[["epk: taints"]])
        self.end("one", 1)
        self.assertEqual(self.run_.results[0].logs["guest.log"], ["epk: taints"])

    def test_the_last_lines_only(self):
        self.begin("one")
        self.look(host_log=[[f"line {number}" for number in range(99)]])
        self.end("one", 1)
        self.assertEqual(self.run_.results[0].logs["host.log"][0], f"line {99 - session.LOG_LINES}")

    def test_trouble_at_the_end_is_trouble(self):
        self.begin("one")
        self.end("one", 0, guest_log=[[], ["BUG: bad page"]])
        self.assertEqual(self.run_.trouble, ["guest.log: BUG: bad page"])

    def test_a_panic_of_the_host_ends_it(self):
        self.begin("one")
        self.assertFalse(self.look(guest_log=[["Kernel panic"]])[0])
        self.assertTrue(self.look(host_log=[["Kernel panic"]])[0])

    def test_durations(self):
        self.begin("one")
        self.end("one", 0)
        self.begin("two")
        self.end("two", 1)
        self.assertEqual(list(self.run_.durations()), ["emulated 1 normal/normal one"])


if __name__ == "__main__":
    unittest.main()
