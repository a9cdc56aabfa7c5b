# SPDX-License-Identifier: MIT
"""Runs without the emulated host: in QEMU's own emulation, and on this machine's KVM."""

import shutil
import subprocess

from flavours import FLAVOUR_SLOWNESS
from here import Here
from payload import HERE
from qemu import Qemu
from session import Run

# On QEMU's emulation.
ALONE_SLOWNESS = 5
# On a real machine that others use, too.
HERE_SLOWNESS = 4


class AloneRun(Run):
    """Tests of a guest, on a machine that has protection keys and no EPK."""

    FLAG, KIND = "--alone", "alone"
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
