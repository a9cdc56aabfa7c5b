# SPDX-License-Identifier: MIT
"""A machine that QEMU emulates without acceleration: it has protection keys, and no EPK."""

import bisect
import pathlib
import re
import subprocess
import time

from machine import Machine

HERE = pathlib.Path(__file__).resolve().parent
STACK_WORDS = 128
SAMPLES = 10     # of where a CPU stands


class Qemu(Machine):
    """@kernel: the folder with bzImage, and System.map, but of Debian's kernels"""

    def __init__(self, work, cpus, kernel, append):
        super().__init__(work)
        self.cpus, self.kernel = cpus, kernel
        # What the kernel would measure itself, and on a busy machine fails to.
        khz = subprocess.run([HERE / "build" / "tsc_khz"], check=True, text=True,
                             stdout=subprocess.PIPE).stdout.strip()
        # It must not outlive a run that is killed.
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", "-machine", "q35",
             # The firmware's table, which the test kernel goes by, has one CPU for each socket.
             "-accel", "tcg", "-cpu", "max", "-m", "1024", "-smp", f"{cpus},sockets={cpus}",
             "-kernel", kernel / "bzImage", "-initrd", work / "guest.cpio",
             "-append", f"console=ttyS0 tsc_early_khz={khz} {append}",
             "-display", "none", "-net", "none", "-no-reboot", "-monitor", "stdio",
             "-serial", f"file:{work}/guest.log", "-serial", f"file:{work}/guest.out"],
            stdin=subprocess.PIPE, stdout=open(work / "qemu.log", "w"),
            stderr=subprocess.STDOUT, cwd=work, start_new_session=True)

    def standing(self):
        symbols = self._symbols()
        lines = []
        for cpu in range(self.cpus):
            registers = self._ask(f"cpu {cpu}\ninfo registers\n")
            at, stack = (re.search(rf"{name}=([0-9a-f]{{16}})", registers) for name in ("RIP", "RSP"))
            if not at or not stack:
                lines.append(f"CPU {cpu}: the emulator does not say")
                continue
            lines.append(f"CPU {cpu} at {self._name(symbols, at[1]) or at[1]}")
            words = re.findall(r"0x([0-9a-f]{16})",
                               self._ask(f"x /{STACK_WORDS}gx 0x{stack[1]}\n"))
            lines += ["  " + name for name in map(lambda w: self._name(symbols, w), words) if name]
        return lines

    def stuck(self):
        """QEMU before 8.1 can go on with a breakpoint that the kernel, patching itself on another
        CPU, has taken away: the CPU then hits it for ever, and its kernel finds none."""
        symbols = self._symbols()
        seen = {"handler": 0, "gone": 0}
        for cpu in list(range(self.cpus)) * SAMPLES:
            registers = self._ask(f"cpu {cpu}\ninfo registers\n", 0.1)
            at = re.search(r"RIP=([0-9a-f]{16})", registers)
            if not at or "CPL=0" not in registers:
                continue
            if "int3" in (self._name(symbols, at[1]) or ""):
                seen["handler"] += 1
            elif not re.search(r": 0xcc", self._ask(f"x /1xb 0x{at[1]}\n", 0.1)):
                seen["gone"] += 1
        return all(seen.values())

    def _ask(self, command, seconds=1):
        """What QEMU's monitor answers."""
        log = self.work / "qemu.log"
        start = log.stat().st_size
        try:
            self.process.stdin.write(command.encode())
            self.process.stdin.flush()
        except OSError as error:
            return str(error)
        time.sleep(seconds)
        return log.read_text(errors="replace")[start:]

    def _symbols(self):
        """The kernel's own text, by address; it is not moved at boot."""
        if not (self.kernel / "System.map").exists():
            return []
        lines = [line.split() for line in (self.kernel / "System.map").read_text().splitlines()]
        found = sorted((int(address, 16), name) for address, kind, name in lines if kind in "tT")
        return found[:[name for _, name in found].index("_etext") + 1]

    @staticmethod
    def _name(symbols, word):
        """Of an address in the text of kernel or module; else nothing."""
        address = int(word, 16)
        if 0xffffffffc0000000 <= address < 0xffffffffff000000:
            return f"module {word}"
        i = bisect.bisect(symbols, (address, "\x7f")) - 1
        if i < 0 or i + 1 == len(symbols):
            return None
        return f"{symbols[i][1]}+{address - symbols[i][0]:#x}"
