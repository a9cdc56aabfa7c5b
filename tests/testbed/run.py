#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Run tests on emulated machines, on one and on two CPUs at once.

run.py [--cpus 1|2]... [--keep] [NAME...]
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import testlist
from bochs import Bochs

HERE = pathlib.Path(__file__).resolve().parent
TOP = testlist.TOP
CACHE = pathlib.Path(os.environ.get("EPK_CACHE") or pathlib.Path.home() / ".cache" / "epk")

# What no kernel log may hold.
TROUBLE = re.compile(
    r"WARNING:|BUG:|BUG at|Oops|Call Trace|Kernel panic|cut here|\[#\d+\]|"
    r"INFO: (?!NMI)|possible .* (detected|inversion)|suspicious RCU|"
    r"general protection fault, |unable to handle|soft lockup|stack guard|corruption")

HOST_ARGS = ("console=ttyS0 clearcpuid=321,323,124,580 tsc=reliable mitigations=off "
             "random.trust_cpu=on oops=panic panic=-1")
GUEST_ARGS = ("loglevel=5 mitigations=off random.trust_cpu=on oops=panic panic=-1 reboot=t")

BOOT_SECONDS = 400      # real seconds from power-on to the first test of a level
WALL_PER_SECOND = 60    # real seconds that one emulated second may take


def say(text):
    print(time.strftime("%H:%M:%S"), text, flush=True)


class Result:
    def __init__(self, name, outcome, detail="", output=(), seconds=0.0):
        self.name, self.outcome, self.detail = name, outcome, detail
        self.output, self.seconds = output, seconds


class Run(threading.Thread):
    """The tests of one number of CPUs on one emulated machine."""

    def __init__(self, cpus, tests, kernel, keep):
        super().__init__()
        self.cpus, self.tests, self.kernel, self.keep = cpus, tests, kernel, keep
        self.results, self.trouble = [], []
        self.skips = testlist.read_skips()
        self.current = {}

    def say(self, text):
        say(f"[{self.cpus} CPU{'s' if self.cpus > 1 else ''}] {text}")

    def run(self):
        (CACHE / "run").mkdir(parents=True, exist_ok=True)
        self.work = pathlib.Path(tempfile.mkdtemp(prefix=f"{self.cpus}cpu-", dir=CACHE / "run"))
        try:
            self.prepare()
            self.emulate()
        except (subprocess.CalledProcessError, OSError) as error:
            self.trouble.append(f"the run failed: {error}")
        for test in self.tests:
            if not any(result.name == test.name for result in self.results):
                self.results.append(Result(test.name, "fail", "no result"))
                self.say(f"fail  {test.name}: no result")
        self.clean_up()

    def level(self, name):
        return [test for test in self.tests if test.level == name]

    def prepare(self):
        """Put what the run needs where images.sh packs it."""
        for level in ("host", "guest"):
            if not self.level(level) and level == "guest":
                continue
            epk = self.work / level / "epk"
            (epk / "bin").mkdir(parents=True)
            shutil.copy2(HERE / "init" / level, self.work / level / "init")
            shutil.copy2(HERE / "init" / "runner", epk)
            (epk / "config").write_text(f"CPUS={self.cpus}\nGUEST_ARGS='{GUEST_ARGS}'\n")
            with open(epk / f"tests.{level}", "w") as out:
                for test in self.level(level):
                    program, *args = test.command.split()
                    needs = ",".join(sorted(test.needs)) or "-"
                    print(test.name, test.timeout, needs, f"/epk/bin/{program}", *args, file=out)
                    for folder in (level, "unit", "testbed"):
                        source = TOP / "tests" / folder / "build" / program
                        if source.exists():
                            shutil.copy2(source, epk / "bin")
                            break
        if self.level("guest"):
            for module in ("guest-kmod/epk.ko", "tests/guest/raw/epk_raw.ko"):
                shutil.copy2(TOP / module, self.work / "guest" / "epk")
            leakcheck = TOP / "tests" / "guest" / "build" / "leakcheck"
            if leakcheck.exists():
                shutil.copy2(leakcheck, self.work / "guest" / "epk" / "bin")
        (self.work / "syslinux.cfg").write_text(
            "DEFAULT epk\nLABEL epk\nLINUX /bzImage\nINITRD /base.img,/run.img\n"
            f"APPEND {HOST_ARGS}\n")
        subprocess.run([HERE / "images.sh", self.work, self.kernel], check=True,
                       stdin=subprocess.DEVNULL)

    def emulate(self):
        self.say(f"power on: {len(self.tests)} tests, logs in {self.work}")
        self.start_time = time.monotonic()
        self.deadline = self.start_time + BOOT_SECONDS
        self.first = None
        machine = Bochs(self.work, self.cpus)
        try:
            ended = False
            while not ended:
                time.sleep(0.2)
                alive = machine.running()
                ended = self.read_ports(machine)
                if not alive and not ended:
                    self.trouble.append("the emulator ended by itself")
                    break
                if time.monotonic() > self.deadline:
                    self.trouble.append("hang: " + (self.current.get("name") or "no test running"))
                    break
        finally:
            machine.stop()
            self.trouble += machine.panics()

    def read_ports(self, machine):
        """Look at what arrived; true at the end of the run."""
        ended = False
        for port in ("host.log", "guest.log"):
            for line in machine.new_lines(port):
                if TROUBLE.search(line):
                    self.trouble.append(f"{port}: {line}")
                if "Kernel panic" in line and port == "host.log":
                    ended = True
        for port in ("host.out", "guest.out"):
            for line in machine.new_lines(port):
                self.test_line(line)
                if port == "host.out" and line.startswith("EPK-RUN end"):
                    ended = True
                    if line != "EPK-RUN end":
                        self.trouble.append(line)
        return ended

    def test_line(self, line):
        now = time.monotonic()
        begin = re.fullmatch(r"EPK-TEST begin (\S+)", line)
        end = re.fullmatch(r"EPK-TEST end (\S+) rc=(\d+)", line)
        if begin:
            test = next((t for t in self.tests if t.name == begin[1]), None)
            self.current = {"name": begin[1], "since": now, "output": []}
            self.deadline = now + 60 + WALL_PER_SECOND * (test.timeout if test else 1)
            if test and test.level == "guest" and not self.first:
                self.first = now - self.start_time
                self.say(f"first guest test after {self.first:.0f} s")
        elif end and self.current.get("name") == end[1]:
            self.finish(int(end[2]), now)
        elif self.current:
            self.current["output"].append(line)

    def finish(self, rc, now):
        name, output = self.current["name"], self.current["output"]
        seconds = now - self.current["since"]
        reason = output[-1].strip() if output else ""
        if rc == 0:
            result = Result(name, "pass")
        elif rc == 77 and (name, reason) in self.skips:
            result = Result(name, "skip", reason)
        elif rc == 77:
            result = Result(name, "fail", f"skip that tests/skips.list lacks: {reason}")
        else:
            result = Result(name, "fail", f"exit status {rc}", output)
        result.seconds = seconds
        self.results.append(result)
        self.say(f"{result.outcome}  {name}  {seconds:.1f} s"
                 + (f"  {result.detail}" if result.detail else ""))
        for line in result.output[-40:]:
            print("        " + line, flush=True)
        self.current = {}
        self.deadline = now + BOOT_SECONDS

    def clean_up(self):
        if self.trouble:
            self.say("fail  kernel-log")
            self.results.append(Result("kernel-log", "fail"))
            for line in self.trouble[:20]:
                print("        " + line, flush=True)
            for port in ("host.log", "host.out", "guest.log", "guest.out"):
                path = self.work / port
                if path.exists() and path.stat().st_size:
                    print(f"    end of {port}:")
                    for line in path.read_text(errors="replace").splitlines()[-30:]:
                        print("        " + line, flush=True)
        failed = any(result.outcome == "fail" for result in self.results)
        (self.work / "disk.img").unlink(missing_ok=True)
        for level in ("host", "guest"):
            shutil.rmtree(self.work / level, ignore_errors=True)
        if failed or self.keep:
            self.say(f"logs: {self.work}")
        else:
            shutil.rmtree(self.work)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpus", type=int, choices=(1, 2), action="append")
    parser.add_argument("--keep", action="store_true", help="keep the logs")
    parser.add_argument("--emulated", action="store_true", help="no native tests")
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()

    tests = testlist.read_tests()
    unknown = set(args.names) - {test.name for test in tests}
    if unknown:
        sys.exit(f"no such test: {' '.join(sorted(unknown))}")
    kernel = subprocess.run([HERE / "kernel.sh"], check=True, stdout=subprocess.PIPE,
                            stdin=subprocess.DEVNULL, text=True).stdout.strip()
    subprocess.run([HERE / "build.sh", kernel], check=True, stdin=subprocess.DEVNULL)
    runs = []
    for cpus in args.cpus or (1, 2):
        chosen = [test for test in tests if cpus in test.cpus and
                  (not args.names or test.name in args.names
                   or test.name.startswith("selfcheck-"))]
        if chosen:
            runs.append(Run(cpus, chosen, kernel, args.keep))
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    results = [result for run in runs for result in run.results]
    count = {outcome: sum(result.outcome == outcome for result in results)
             for outcome in ("pass", "fail", "skip")}
    print(f"{count['pass']} passed, {count['fail']} failed, {count['skip']} skipped")
    sys.exit(0 if count["pass"] and not count["fail"] else 1)


if __name__ == "__main__":
    main()
