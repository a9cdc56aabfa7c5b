# SPDX-License-Identifier: MIT
"""The tests of one machine: power on, read the serial ports, judge."""

import collections
import importlib
import os
import re
import shutil
import subprocess
import sys
import time

import folders
import testlist
from bochs import Bochs
from durations import BOOT
from flavours import FLAVOUR_SLOWNESS
from payload import Payload
from results import Result, judge, report, say
from testlist import TOP, is_named

sys.path.append(str(TOP / "bench"))
figures = importlib.import_module("figures")

# What no kernel log may hold.  Nodes without a CPU make the stock kernel count wrongly.
TROUBLE = re.compile(
    r"WARNING: (?!workqueue cpumask)|BUG:|BUG at|Oops|Call Trace|Kernel panic|cut here|\[#\d+\]|"
    r"INFO: (?!NMI)|possible .* (detected|inversion)|suspicious RCU|"
    r"general protection fault, |unable to handle|soft lockup|stack guard|corruption")

LOG_LINES = 20          # of each kernel's log, which a failed test shows
SILENT_SECONDS = 45     # after which an emulator may be stuck; kmod-state says nothing for 20 on a busy machine


class Stuck(Exception):
    """The emulator is, by a fault of its own, and says nothing about what was tested."""


class Run(Payload):
    """The tests of one number of CPUs on one emulated machine."""

    FLAG, KIND = "--emulated", "emulated"
    LEVELS = ("host", "guest")
    FIRST_SECONDS = 300     # real seconds from power-on to the first test
    BOOT_SECONDS = 400      # real seconds between two tests, the guest's boot included
    WALL_PER_SECOND = 60    # real seconds that one emulated second may take

    def __init__(self, cpus, tests, kernels, keep, show):
        self.cpus, self.tests, self.kernels, self.keep = cpus, tests, kernels, keep
        # Names of the tests whose output goes straight to the terminal.
        self.show = show or ()
        self.results, self.trouble = [], []
        # Of all, and from power-on to the first test of the guest.
        self.seconds, self.first = 0, None
        # What each test has printed of figures.
        self.figures = {}
        self.skips = testlist.read_skips()
        self.current = {}
        # The last lines of the kernels' logs since about when the current test began, and of the last look at the
        # ports, which come in no order.
        self.logs = {port: collections.deque(maxlen=LOG_LINES) for port in ("host.log", "guest.log")}
        self.fresh = {port: [] for port in self.logs}
        flavour = kernels["guest"].flavour
        # Only what differs from the ordinary run is told.
        self.where = f", {flavour}" if flavour != "normal" else ""
        self.mark = f"@{flavour}" if flavour != "normal" else ""
        host = kernels["host"].flavour
        if host in ("6.12", "stock"):
            self.where += f", {host} host"
            self.mark += f"@{host}-host"

    def title(self):
        return f"[{self.cpus} CPU{'s' if self.cpus > 1 else ''}{self.where}]"

    def say(self, text):
        say(f"{self.title()} {text}")

    def key(self, name):
        """Of a test, in durations.py."""
        flavours = "/".join(kernel.flavour for kernel in self.kernels.values())
        return f"{self.KIND} {self.cpus} {flavours} {name}"

    def durations(self):
        """What is to be known of those that passed; the boot is all else, if all was well."""
        tests = {self.key(result.name.removesuffix(self.mark)): result.seconds
                 for result in self.results if result.outcome == "pass"}
        if len(tests) == len(self.results) == len(self.tests):
            tests[self.key(BOOT)] = max(0, self.seconds - sum(tests.values()))
        return tests

    def run(self):
        begin = time.monotonic()
        self.work, lock = folders.make(f"{self.cpus}cpu-")
        try:
            self.prepare()
            self.emulate()
        except (subprocess.CalledProcessError, OSError) as error:
            self.trouble.append(f"the run failed: {error}")
        for test in self.tests:
            if not any(result.name == test.name + self.mark for result in self.results):
                self.results.append(Result(test.name + self.mark, "fail", "no result",
                                           again=self.again(test.name)))
                self.say(f"fail  {test.name}: no result")
        self.clean_up()
        self.seconds = time.monotonic() - begin
        os.close(lock)

    def again(self, name):
        """The command that repeats a test."""
        flags = [self.FLAG, f"--cpus {self.cpus}"]
        for option, kernel in (("--kernel", "host"), ("--guest-kernel", "guest")):
            flavour = self.kernels[kernel].flavour
            if flavour != "normal":
                flags.append(f"{option} {flavour}")
        return f"tests/testbed/run.py {' '.join(flags)} --keep --show {name}"

    def slowness(self, level):
        """Of a level; the guest is as slow as both together."""
        slow = FLAVOUR_SLOWNESS[self.kernels["host"].flavour]
        if level == "guest":
            slow *= FLAVOUR_SLOWNESS[self.kernels["guest"].flavour]
        return slow

    def machine(self):
        return Bochs(self.work, self.cpus)

    # Of the emulator, which counts instructions; FIGURES_TO is where they are written instead.
    COUNTS, FIGURES_TO = True, None

    def compares(self):
        """Whether figures have to be those of bench/results."""
        return self.COUNTS and not self.FIGURES_TO and is_measured(self.cpus, self.kernels)

    def emulate(self):
        self.start_time = time.monotonic()
        self.first = None
        for last in (False, False, True):
            self.say(f"power on: {len(self.tests)} tests, logs in {self.work}")
            try:
                why = self.run_machine()
            except Stuck as stuck:
                why = str(stuck)
                if not last:
                    self.say(f"once more: {why}")
                    self.results.clear()
                    continue
            if why:
                self.trouble.append(why)
            break

    def run_machine(self):
        """Run until the end of all tests; else say what went wrong."""
        self.deadline = time.monotonic() + self.FIRST_SECONDS * self.slowness("host")
        machine = self.machine()
        self.silent = time.monotonic()
        try:
            while not self.read_ports(machine):
                if not machine.running():
                    return "" if self.read_ports(machine) else "the emulator ended by itself"
                if time.monotonic() > self.silent + SILENT_SECONDS:
                    self.silent = time.monotonic()
                    if machine.stuck():
                        raise Stuck("\n        ".join(["QEMU is stuck in a breakpoint that is gone"]
                                                      + machine.standing()))
                if time.monotonic() > self.deadline:
                    why = "hang: " + (self.current.get("name") or "no test running")
                    return "\n        ".join([why] + machine.standing())
                time.sleep(0.2)
            return ""
        finally:
            machine.stop()
            self.trouble += machine.panics()

    def read_ports(self, machine):
        """Look at what arrived; true at the end of the run."""
        for lines in self.fresh.values():
            lines.clear()
        ended = self.read_logs(machine)
        for port in ("host.out", "guest.out"):
            for line in machine.new_lines(port):
                self.silent = time.monotonic()
                if line.startswith("EPK-TEST end"):
                    # What the kernels have said until then.
                    ended |= self.read_logs(machine)
                self.test_line(line)
                if port == f"{self.LEVELS[0]}.out" and line.startswith("EPK-RUN end"):
                    ended = True
                    if line != "EPK-RUN end":
                        self.trouble.append(line)
        return ended

    def read_logs(self, machine):
        """Look for trouble in what the kernels say; true if the first one has ended by it."""
        ended = False
        for port, last in self.logs.items():
            for line in machine.new_lines(port):
                last.append(line)
                self.fresh[port].append(line)
                if TROUBLE.search(line):
                    self.trouble.append(f"{port}: {line}")
                if "Kernel panic" in line and port == f"{self.LEVELS[0]}.log":
                    ended = True
        return ended

    def test_line(self, line):
        now = time.monotonic()
        begin = re.fullmatch(r"EPK-TEST begin (\S+)", line)
        end = re.fullmatch(r"EPK-TEST end (\S+) rc=(\d+)", line)
        if begin:
            test = next((t for t in self.tests if t.name == begin[1]), None)
            self.current = {"name": begin[1], "test": test, "since": now, "output": []}
            for port, last in self.logs.items():
                last.clear()
                last.extend(self.fresh[port])
            self.deadline = now + 60 + (self.WALL_PER_SECOND * test.timeout *
                                        self.slowness(test.level) if test else 60)
            if test and test.level == "guest" and not self.first:
                self.first = now - self.start_time
                self.say(f"first guest test after {self.first:.0f} s")
        elif end and self.current.get("name") == end[1]:
            self.finish(int(end[2]), now)
        elif self.current:
            self.current["output"].append(line)
            if self.current["test"] and any(is_named(self.current["test"], name) for name in self.show):
                say(line)

    def finish(self, rc, now):
        name, output = self.current["name"], self.current["output"]
        result = Result(name, "pass") if rc == 0 else judge(name, rc, output, self.skips)
        result.seconds = now - self.current["since"]
        self.figures[name] = [line for line in output if line.startswith('{"table"')]
        test = self.current["test"]
        if rc == 0 and test and "figures" in test.needs and self.compares():
            wrong = figures.compare(figures.parse(output), figures.read()["figures"])
            if wrong:
                result = Result(name, "fail", "other figures than bench/results has", wrong, result.seconds)
        result.again = self.again(name)
        if result.outcome == "fail":
            result.logs = {port: list(last) for port, last in self.logs.items()}
        self.results.append(result)
        report(result, self.say)
        result.name += self.mark
        self.current = {}
        self.deadline = now + self.BOOT_SECONDS * self.slowness("guest")

    def clean_up(self):
        if self.trouble:
            self.say("fail  kernel-log")
            self.results.append(Result("kernel-log" + self.mark, "fail", "the kernel complains",
                                       self.trouble[:20]))
            for line in self.trouble[:20]:
                print("        " + line, flush=True)
            for port in ("host.log", "host.out", "guest.log", "guest.out"):
                path = self.work / port
                if path.exists() and path.stat().st_size:
                    print(f"    end of {port}:")
                    for line in path.read_text(errors="replace").splitlines()[-30:]:
                        print("        " + line, flush=True)
        failed = any(result.outcome == "fail" for result in self.results)
        for image in ("disk.img", "guest.cpio"):
            (self.work / image).unlink(missing_ok=True)
        for level in ("host", "guest", "root"):
            shutil.rmtree(self.work / level, ignore_errors=True)
        if failed or self.keep:
            self.say(f"logs: {self.work}")
        else:
            shutil.rmtree(self.work)


def is_measured(cpus, kernels):
    """Whether bench/results has figures of such a machine."""
    return cpus == 1 and all(kernel.flavour == "normal" for kernel in kernels.values())


class FiguresRun(Run):
    """Figures alone: they would depend on what other tests have left of the guest's memory."""

    def __init__(self, *args):
        super().__init__(*args)
        self.where += ", " + (", ".join(test.name for test in self.tests if "named" in test.needs) or "figures")

    @staticmethod
    def wants(test, cpus, kernels):
        return "figures" in test.needs and is_measured(cpus, kernels)
