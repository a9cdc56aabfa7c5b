# SPDX-License-Identifier: MIT
"""A machine that QEMU emulates without acceleration: it has protection keys, and no EPK."""

import subprocess

from machine import Machine


class Qemu(Machine):
    def __init__(self, work, cpus, kernel, append):
        super().__init__(work)
        # It must not outlive a run that is killed.
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", "-machine", "q35",
             # The firmware's table, which the test kernel goes by, has one CPU for each socket.
             "-accel", "tcg", "-cpu", "max", "-m", "1024", "-smp", f"{cpus},sockets={cpus}",
             "-kernel", kernel, "-initrd", work / "guest.cpio",
             "-append", f"console=ttyS0 {append}", "-display", "none", "-net", "none",
             "-no-reboot", "-serial", f"file:{work}/guest.log",
             "-serial", f"file:{work}/guest.out"],
            stdin=subprocess.DEVNULL, stdout=open(work / "qemu.log", "w"),
            stderr=subprocess.STDOUT, cwd=work, start_new_session=True)
