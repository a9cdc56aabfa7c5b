# SPDX-License-Identifier: MIT
"""What machines boot: the folders that become the images of host and guest."""

import pathlib
import shutil
import subprocess

from flavours import (DEBIAN_FLAVOURS, FLAVOUR_ARGS, GUEST_ARGS, GUEST_MACHINE, HOST_ARGS, HOST_FLAVOUR_ARGS,
                      HOST_KVM_ARGS)
from testlist import TOP

HERE = pathlib.Path(__file__).resolve().parent
FIRMWARE = ("bios-256k.bin", "kvmvapic.bin", "linuxboot_dma.bin", "OVMF_CODE_4M.fd",
            "OVMF_VARS_4M.fd")


class Payload:
    """Of a run, which has self.work, the folder; self.tests, self.kernels, self.cpus and self.LEVELS."""

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
