#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Run tests on emulated machines, on one and on two CPUs at once.  Machines run at once, as many
as this one has CPUs.

run.py [--cpus 1|2]... [--native|--emulated|--alone|--here] [--show] [--keep]
       [--kernel FLAVOUR] [--guest-kernel FLAVOUR]... [--figures FILE] [--junit FILE] [NAME...]

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
import importlib
import itertools
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import folders
import results as outcome
import testlist
from bochs import Bochs
from here import Here
from qemu import Qemu
from results import Result, judge, report, say

HERE = pathlib.Path(__file__).resolve().parent
TOP = testlist.TOP
sys.path.append(str(TOP / "bench"))
figures = importlib.import_module("figures")

# What no kernel log may hold.  Nodes without a CPU make the stock kernel count wrongly.
TROUBLE = re.compile(
    r"WARNING: (?!workqueue cpumask)|BUG:|BUG at|Oops|Call Trace|Kernel panic|cut here|\[#\d+\]|"
    r"INFO: (?!NMI)|possible .* (detected|inversion)|suspicious RCU|"
    r"general protection fault, |unable to handle|soft lockup|stack guard|corruption")

# idle=nomwait: Bochs's MONITOR misses writes, so a CPU in MWAIT may never wake up.
HOST_ARGS = ("console=ttyS0 clearcpuid=321,323,124,580 tsc=reliable mitigations=off "
             "random.trust_cpu=on oops=panic panic=-1 rcupdate.rcu_expedited=1 "
             "idle=nomwait")
GUEST_ARGS = ("loglevel=5 mitigations=off random.trust_cpu=on oops=panic panic=-1 reboot=t")
HOST_FLAVOURS = ("normal", "debug", "6.12", "stock")
DEBIAN_FLAVOURS = ("stock", "cloud", "backports")
GUEST_FLAVOURS = ("normal", "debug") + DEBIAN_FLAVOURS
FLAVOUR_ARGS = {
    "normal": "",
    "debug": " page_owner=on",
    # A node for each GiB.  The clock's probe waits for a second, 40 s here.
    "stock": " initcall_blacklist=cmos_init numa=fake=3U",
    "cloud": " initcall_blacklist=cmos_init",
    "backports": " initcall_blacklist=cmos_init",
}
# The guest's memory in MiB and the number of EPTs it may have, 0 for all.  On the stock kernel
# it is wide: RAM in three GiB blocks, windows of two slots.
GUEST_MACHINE = {"normal": (512, 0), "debug": (512, 0), "stock": (3072, 256), "cloud": (512, 0),
                 "backports": (512, 0)}
# What runs if nothing is named, on Debian's kernel as the host
# (kvm-dirty wants the log that is off there, kvm-notifier a RAM disk) ...
STOCK_HOST_TESTS = ("selfcheck", "modules", "kvm-hypercall", "kvm-vmfunc", "kvm-owed", "kvm-fault",
                    "kvm-memslot", "kvm-destroy", "kvm-reset", "kvm-smm", "kvm-cap",
                    "kvm-state", "kvm-memory", "kvm-device", "kvm-nvmx", "kvm-emulator", "kvm-race",
                    "hypercall", "kmod-args", "kmod-switch", "kmod-move", "kmod-attack",
                    "lib-matrix")
# ... and as the guest; those that need the wide guest do, too.
DEBIAN_TESTS = ("selfcheck", "kmod-args", "kmod-process", "kmod-switch", "kmod-move",
                "kmod-signal", "kmod-frame", "kmod-rights", "kmod-pkru", "kmod-futex", "kmod-perf",
                "kmod-attack", "kmod-deputy", "kmod-life", "kmod-huge", "kmod-walkers",
                "kmod-return", "kmod-stack", "kmod-hold", "kmod-file-memfd",
                "lib-matrix", "unit-rights-epk", "unit-mapping-epk")
# Not on a host of Linux 6.12 unless it is named: the lists are of 6.1's selftests.
NOT_612 = ("selftests-core",)
# Debugging aids look at each page: the host has no more than it needs.
# lpj: CPU 1 would count its loops for 0.19 emulated seconds.  1497.6 MHz at HZ=100, or 250.
HOST_FLAVOUR_ARGS = {"normal": " lpj=14976000",
                     "debug": " lpj=14976000 page_owner=on mem=1200M",
                     "6.12": " lpj=14976000",
                     "stock": " lpj=5990400 initcall_blacklist=cmos_init earlyprintk=ttyS0"}
# Bochs 2.7 logs the addresses that were written, not those of their pages; KVM warns.
HOST_KVM_ARGS = {"normal": "", "debug": "", "6.12": "", "stock": "pml=0"}
# How many times as long as on the normal kernel things may take.
FLAVOUR_SLOWNESS = {"normal": 1, "debug": 5, "6.12": 2, "stock": 2, "cloud": 2, "backports": 2}

FIRMWARE = ("bios-256k.bin", "kvmvapic.bin", "linuxboot_dma.bin", "OVMF_CODE_4M.fd",
            "OVMF_VARS_4M.fd")

# On QEMU's emulation.
ALONE_SLOWNESS = 5
# On a real machine that others use, too.
HERE_SLOWNESS = 4
# There, not the tests of the testbed itself; the tool's is for the emulated host's files.
HERE_TESTS = ("kvm", "hypercall", "kmod", "lib", "unit", "example", "bench")
HERE_NOT = ("kvm-tool",)

SILENT_SECONDS = 45     # after which an emulator may be stuck; kmod-state says nothing for 20 on a busy machine

# An emulator takes a whole CPU, whatever number of them it emulates.
MACHINES = max(2, os.cpu_count() or 1)


class Kernel:
    """A flavour of the test kernel, and where it is."""

    def __init__(self, flavour, level):
        self.flavour = flavour
        if flavour not in DEBIAN_FLAVOURS:
            command = ("kernel.sh", flavour)
        elif level == "guest":
            command = ("debian-kernel.sh", flavour)
        else:
            command = ("dkms-kernel.sh",)
        self.path = pathlib.Path(self.output(*command))
        # Where the modules for it are built.
        self.modules = None

    @staticmethod
    def output(script, *args):
        return subprocess.run([HERE / script, *args], check=True, text=True,
                              stdout=subprocess.PIPE, stdin=subprocess.DEVNULL).stdout.strip()


class Stuck(Exception):
    """The emulator is, by a fault of its own, and says nothing about what was tested."""


class Run:
    """The tests of one number of CPUs on one emulated machine."""

    FLAG = "--emulated"
    LEVELS = ("host", "guest")
    FIRST_SECONDS = 300     # real seconds from power-on to the first test
    BOOT_SECONDS = 400      # real seconds between two tests, the guest's boot included
    WALL_PER_SECOND = 60    # real seconds that one emulated second may take

    def __init__(self, cpus, tests, kernels, keep, show):
        self.cpus, self.tests, self.kernels, self.keep = cpus, tests, kernels, keep
        # Names of the tests whose output goes straight to the terminal.
        self.show = show or ()
        self.results, self.trouble = [], []
        # What each test has printed of figures.
        self.figures = {}
        self.skips = testlist.read_skips()
        self.current = {}
        flavour = kernels["guest"].flavour
        # Only what differs from the ordinary run is told.
        self.where = f", {flavour}" if flavour != "normal" else ""
        self.mark = f"@{flavour}" if flavour != "normal" else ""
        host = kernels["host"].flavour
        if host in ("6.12", "stock"):
            self.where += f", {host} host"
            self.mark += f"@{host}-host"

    def say(self, text):
        say(f"[{self.cpus} CPU{'s' if self.cpus > 1 else ''}{self.where}] {text}")

    def run(self):
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
        return (self.COUNTS and not self.FIGURES_TO and self.cpus == 1 and
                all(kernel.flavour == "normal" for kernel in self.kernels.values()))

    def level(self, name):
        return [test for test in self.tests if test.level == name]

    def has_guest(self):
        return bool(self.level("guest")) or any("guest" in test.needs for test in self.tests)

    def prepare(self):
        """Put what the run needs where images.sh packs it."""
        for level in self.LEVELS:
            if level == "host" or self.has_guest():
                self.prepare_level(level)
        if any("nginx" in test.needs for test in self.tests):
            subprocess.run([HERE / "nginx-files.sh", self.work / "guest"], check=True,
                           stdin=subprocess.DEVNULL)
        if self.has_guest():
            self.prepare_guest()
        if "host" in self.LEVELS:
            self.prepare_host()
        self.make_images()

    def make_images(self):
        subprocess.run([HERE / "images.sh", self.work, self.kernels["host"].path,
                        self.kernels["guest"].path], check=True, stdin=subprocess.DEVNULL)

    def prepare_level(self, level):
        """What both have."""
        epk = self.work / level / "epk"
        (epk / "bin").mkdir(parents=True)
        shutil.copy2(HERE / "init" / level, self.work / level / "init")
        shutil.copy2(HERE / "init" / "runner", epk)
        shutil.copy2(TOP / "qemu-configs" / "microvm.sh", epk)
        flavour = self.kernels["guest"].flavour
        memory, epts = GUEST_MACHINE[flavour]
        (epk / "config").write_text(f"CPUS={self.cpus}\nGUEST_ARGS='{self.guest_args()}'\n"
                                    f"GUEST_FLAVOUR={flavour}\nGUEST_MEMORY={memory}\n"
                                    f"GUEST_EPTS={epts}\nGUEST_OUT={self.guest_out()}\n"
                                    f"GUEST_TESTS={len(self.level('guest'))}\n"
                                    f"KVM_ARGS='{HOST_KVM_ARGS[self.kernels['host'].flavour]}'\n")
        with open(epk / f"tests.{level}", "w") as out:
            for test in self.level(level):
                program, *args = test.command.split()
                needs = ",".join(sorted(test.needs)) or "-"
                path = program if program.startswith("/") else f"/epk/bin/{program}"
                timeout = test.timeout * self.slowness(level)
                print(test.name, timeout, needs, path, *args, file=out)
                for folder in (f"tests/{level}", "tests/unit", "tests/docs", "tests/kvm",
                               "tests/debug", "tests/testbed", "bench"):
                    source = TOP / folder / "build" / program
                    if source.exists():
                        shutil.copy2(source, epk / "bin")
                        break
                self.copy_tools(level, args)

    def copy_tools(self, level, args):
        """A tool that a test is about, and the library that a guest's finds where one is installed."""
        build = TOP / {"host": "kvm-patches/host", "guest": "guest-lib"}[level] / "build"
        libraries = self.work / level / "lib" / "x86_64-linux-gnu"
        for tool in (pathlib.Path(arg) for arg in args if arg.startswith("/epk/bin/")):
            shutil.copy2(build / tool.name, self.work / level / "epk" / "bin")
            if level == "guest":
                libraries.mkdir(parents=True, exist_ok=True)
                shutil.copy2(build / "libepk.so.1", libraries)

    def guest_args(self):
        return GUEST_ARGS + FLAVOUR_ARGS[self.kernels["guest"].flavour]

    def guest_out(self):
        """Where the guest's tests write to."""
        debian = self.kernels["guest"].flavour in DEBIAN_FLAVOURS
        return "/dev/ttyS1" if debian else "/dev/vport0p1"

    def prepare_guest(self):
        guest = self.kernels["guest"]
        for module in ("guest-kmod/epk.ko", "tests/guest/raw/epk_raw.ko",
                       "tests/firmware/room/epk_room.ko"):
            shutil.copy2(guest.modules / module, self.work / "guest" / "epk")
        # What a test of the host has its guest run.
        for program in (arg for test in self.level("host") if "guest" in test.needs
                        for arg in test.command.split() if arg.endswith("_test")):
            shutil.copy2(TOP / "tests/unit/build" / program, self.work / "guest" / "epk" / "bin")
        # What the kernel itself has as modules.
        if (guest.path / "modules").exists():
            shutil.copytree(guest.path / "modules", self.work / "guest" / "epk" / "modules")

    def prepare_host(self):
        for need, folder in (("selftests", "selftests"), ("mutations", "kvm/mutations")):
            if any(need in test.needs for test in self.tests):
                subprocess.run([TOP / "tests" / folder / "files.sh", self.work / "host",
                                self.kernels["host"].path], check=True,
                               stdin=subprocess.DEVNULL)
        if any("kmod-mutations" in test.needs for test in self.tests):
            subprocess.run([TOP / "tests/guest/mutations/files.sh", "epts", self.work / "guest",
                            self.kernels["guest"].path, self.work / "host/epk/kmod-mutations"],
                           check=True, stdin=subprocess.DEVNULL)
        if any("stock-host" in test.needs for test in self.tests):
            subprocess.run([TOP / "tests/dkms/files.sh", self.work / "host",
                            self.kernels["host"].path], check=True, stdin=subprocess.DEVNULL)
        if any("libvirt" in test.needs for test in self.tests):
            subprocess.run([TOP / "tests/libvirt/files.sh", self.work / "host",
                            self.kernels["guest"].path, self.kernels["guest"].modules], check=True,
                           stdin=subprocess.DEVNULL)
        for probe in "epk_omit.ko", "epk_hold.ko":
            shutil.copy2(TOP / "tests/kvm/omit" / probe, self.work / "host" / "epk")
        shutil.copy2(HERE / "build" / "epts.so", self.work / "host" / "epk")
        for script in "refused", "launched", "moved", "boots", "start-guest":
            shutil.copy2(HERE / "init" / script, self.work / "host" / "epk")
        if any("firmware" in test.needs for test in self.tests):
            self.prepare_firmware()
        flavour = self.kernels["host"].flavour
        (self.work / "syslinux.cfg").write_text(
            "DEFAULT epk\nLABEL epk\nLINUX /bzImage\nINITRD /base.img,/run.img\n"
            f"APPEND {HOST_ARGS}{HOST_FLAVOUR_ARGS[flavour]}\n")

    def prepare_firmware(self):
        """Debian's, for machines of PCs, with a kernel that it can start."""
        to = self.work / "host" / "epk" / "firmware"
        to.mkdir()
        shutil.copy2(self.kernels["guest"].path / "bzImage", to)
        for name in FIRMWARE:
            file = next(path for path in (pathlib.Path("/usr/share") / folder / name for folder in
                                          ("qemu", "seabios", "OVMF")) if path.exists())
            shutil.copy2(file, to)

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
        ended = False
        for port in ("host.log", "guest.log"):
            for line in machine.new_lines(port):
                if TROUBLE.search(line):
                    self.trouble.append(f"{port}: {line}")
                if "Kernel panic" in line and port == f"{self.LEVELS[0]}.log":
                    ended = True
        for port in ("host.out", "guest.out"):
            for line in machine.new_lines(port):
                self.silent = time.monotonic()
                self.test_line(line)
                if port == f"{self.LEVELS[0]}.out" and line.startswith("EPK-RUN end"):
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
            self.current = {"name": begin[1], "test": test, "since": now, "output": []}
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


class AloneRun(Run):
    """Tests of a guest, on a machine that has protection keys and no EPK."""

    FLAG = "--alone"
    LEVELS = ("guest",)
    COUNTS = False
    # Its seconds are real ones.
    FIRST_SECONDS = BOOT_SECONDS = 60
    WALL_PER_SECOND = 2

    def __init__(self, *args):
        super().__init__(*args)
        self.where += ", alone"
        self.mark += "@alone"

    def machine(self):
        return Qemu(self.work, self.cpus, self.kernels["guest"].path, self.guest_args())

    def slowness(self, level):
        return ALONE_SLOWNESS * FLAVOUR_SLOWNESS[self.kernels["guest"].flavour]

    def guest_out(self):
        return "/dev/ttyS1"


class HereRun(Run):
    """Tests of host and guest on this machine, with its own kernel and KVM."""

    FLAG = "--here"
    COUNTS = False
    # Real seconds.
    FIRST_SECONDS = BOOT_SECONDS = 120
    WALL_PER_SECOND = 2

    def __init__(self, cpus, tests, *args):
        # Limits are for instructions, which the TSC of an emulator counts.
        tests = [test._replace(command=test.command.removesuffix(" limits")) for test in tests]
        super().__init__(cpus, tests, *args)
        self.where += ", this machine"
        self.mark += "@here"

    def machine(self):
        return Here(self.work)

    def slowness(self, level):
        return HERE_SLOWNESS

    def prepare_host(self):
        epk = self.work / "host" / "epk"
        for script in "here", "start-guest":
            shutil.copy2(HERE / "init" / script, epk)
        # As topics load it anew, with other parameters.
        module = subprocess.run(["modinfo", "-n", "kvm_intel"], check=True, text=True,
                                stdout=subprocess.PIPE).stdout.strip()
        with open(epk / "kvm-intel.ko", "wb") as out:
            subprocess.run(["xzcat", "-f", module], check=True, stdout=out)

    def make_images(self):
        subprocess.run([HERE / "images.sh", self.work, "none", self.kernels["guest"].path],
                       check=True, stdin=subprocess.DEVNULL)


def main():
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
    parser.add_argument("--show", action="store_true",
                        help="let the output of the named tests through to the terminal")
    parser.add_argument("--figures", type=pathlib.Path, help="where to write them")
    parser.add_argument("--junit", type=pathlib.Path, metavar="FILE",
                        help="write the results there, too, as JUnit's XML")
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    Run.FIGURES_TO = args.figures

    started = time.monotonic()
    tests = testlist.read_tests()
    for name in args.names:
        if not any(is_named(test, name) for test in tests):
            sys.exit(f"no such test: {name}; see tests/tests.list")
    guests = args.guest_kernel or ["normal"]
    native, beside, results = [], [], []
    if not args.emulated and not args.alone and not args.here:
        native = [test for test in choose(tests, args, guests[0]) if test.level == "native"]
    kernels = []
    if not args.native or any("self" not in test.needs for test in native):
        kernels = [build(args.kernel, guest) for guest in guests]
    if not args.native:
        beside = [test for test in native if "beside" in test.needs]
    results += run_native([test for test in native if test not in beside], args.show)
    if not args.native:
        results += run_machines(tests, args, kernels, args.cpus or (1, 2), beside)
    if args.junit:
        outcome.write_junit(args.junit, results)
    sys.exit(outcome.summary(results, time.monotonic() - started))


def choose(tests, args, guest):
    """The tests that are named; else all that suit the kernels."""
    debian = guest in DEBIAN_FLAVOURS
    core = STOCK_HOST_TESTS if args.kernel == "stock" else DEBIAN_TESTS if debian else ()
    names = args.names or (core if not args.alone else ())
    chosen = [test for test in tests if test.name in names or "named" not in test.needs and
              (not names or any(is_named(test, name) for name in names))]
    # Nobody asked for these; what is named fails without its kernel.
    unasked = {need for flavour, need in (("debug", "debug"), ("stock", "stock-host"))
               if args.kernel != flavour}
    unasked.add("fast" if guest == "debug" else "guest-debug")
    if guest == "stock":
        chosen += [test for test in tests if "wide" in test.needs and not args.names]
    else:
        unasked.add("wide")
    if args.kernel == "6.12":
        chosen = [test for test in chosen if test.name in args.names or test.name not in NOT_612]
    return [test for test in chosen if test.name in args.names or not unasked & test.needs]


def build(host, guest):
    """The kernels of these flavours, and all that runs on them."""
    kernels = {"host": Kernel(host, "host"), "guest": Kernel(guest, "guest")}
    kernels["guest"].modules = pathlib.Path(Kernel.output("build.sh", kernels["guest"].path,
                                                          kernels["host"].path))
    return kernels


class Beside:
    """Native tests that nothing which runs at the time can disturb."""

    def __init__(self, tests, show):
        self.tests, self.show, self.results = tests, show, []

    def run(self):
        self.results = run_native(self.tests, self.show)


def run_machines(tests, args, kernels, cpu_counts, beside):
    """A machine for each guest kernel and number of CPUs."""
    runs = []
    for pair, cpus in itertools.product(kernels, cpu_counts):
        chosen = choose(tests, args, pair["guest"].flavour)
        mine = [test for test in chosen if cpus in test.cpus]
        alone = [test for test in mine if {"alone", "lone"} & set(test.needs)]
        # The emulator is slow, and QEMU's has had these on as many CPUs.
        spared = {"lone", "uni"} if cpus > 1 and not args.names else {"lone"}
        mine = [test for test in mine if not spared & set(test.needs)]
        if args.here:
            mine = [test for test in mine if test.name not in HERE_NOT and
                    any(is_named(test, name) for name in HERE_TESTS)]
            runs.append(HereRun(cpus, mine, pair, args.keep, args.show and args.names))
            continue
        debian = {args.kernel, pair["guest"].flavour} & set(DEBIAN_FLAVOURS)
        if alone and (args.alone or not debian):
            runs.append(AloneRun(cpus, alone, pair, args.keep, args.show and args.names))
        if mine and not args.alone:
            # A run that tests anything first tests the emulator; no guest without need.
            levels = {"host"} | {test.level for test in mine}
            mine = [test for test in tests if cpus in test.cpus and
                    (test in mine or test.name in {f"selfcheck-{level}" for level in levels})]
            runs.append(Run(cpus, mine, pair, args.keep, args.show and args.names))
    if beside:
        runs.append(Beside(beside, args.show))
    # The longest first, so that none goes on alone at the end.
    runs.sort(key=lambda run: (isinstance(run, Beside), isinstance(run, AloneRun), -len(run.tests)))
    with concurrent.futures.ThreadPoolExecutor(MACHINES) as machines:
        for _ in machines.map(lambda run: run.run(), runs):
            pass
    if args.figures:
        lines = [line for run in runs for test in getattr(run, "figures", {}).values() for line in test]
        times = [f"{result.name} {result.seconds:.0f}" for run in runs for result in run.results]
        args.figures.write_text("".join(line + "\n" for line in lines + times))
    return [result for run in runs for result in run.results]


def is_named(test, name):
    return test.name == name or test.name.startswith(name + "-")


def run_native(tests, show):
    """Tests that need no emulator, one after the other."""
    skips, results = testlist.read_skips(), []
    for test in tests:
        say(f"run   {test.name}: {test.command}")
        start = time.monotonic()
        try:
            done = subprocess.run(test.command.split(), cwd=TOP, stdin=subprocess.DEVNULL,
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


if __name__ == "__main__":
    main()
