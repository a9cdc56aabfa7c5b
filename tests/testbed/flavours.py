# SPDX-License-Identifier: MIT
"""The flavours of the kernels that runs have, and what each wants."""

import pathlib
import subprocess

HERE = pathlib.Path(__file__).resolve().parent

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


class Kernel:
    """A flavour of the test kernel, and where it is."""

    def __init__(self, flavour, level):
        self.flavour, self.level = flavour, level
        # Where it is, and where the modules for it are built.
        self.path = self.modules = None

    def build(self):
        if self.flavour not in DEBIAN_FLAVOURS:
            command = ("kernel.sh", self.flavour)
        elif self.level == "guest":
            command = ("debian-kernel.sh", self.flavour)
        else:
            command = ("dkms-kernel.sh",)
        self.path = pathlib.Path(self.output(*command))

    @staticmethod
    def output(script, *args):
        return subprocess.run([HERE / script, *args], check=True, text=True,
                              stdout=subprocess.PIPE, stdin=subprocess.DEVNULL).stdout.strip()


def pair(host, guest):
    """The kernels of these flavours."""
    return {"host": Kernel(host, "host"), "guest": Kernel(guest, "guest")}


def build(kernels):
    """A pair of kernels, and all that runs on them."""
    for kernel in kernels.values():
        kernel.build()
    kernels["guest"].modules = pathlib.Path(Kernel.output("build.sh", kernels["guest"].path,
                                                          kernels["host"].path))
    return kernels
