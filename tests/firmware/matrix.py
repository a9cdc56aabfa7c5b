#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Where the windows find room, on the layouts that real firmware leaves.

matrix.py [--table FILE] [--keep FOLDER] [--again] [--all] [NAME...]

Boots a small kernel by each firmware in QEMU's own emulation, with memory that is never there,
and asks the module's chooser twice: in that kernel, and here, about what the kernel tells.  The
two have to agree.  Without a NAME it is the whole matrix, with "sample" the cells that tell most;
else a NAME is a part of a cell's, as "q35-ovmf 46".
--table writes the tables into FILE, as docs/firmware.md: what stands before them there stays, and what
it says of cells that have not been run.  --keep keeps each cell's log, and --again goes by those that are
there, as after a change of the chooser.

OVMF describes all of its address space in pages of 2 MiB, and then looks at each of these that is
in its PCI window, an eighth of the space: that takes minutes of emulation at 48 bits, of which it
takes 47 (OVMF_BITS).  So it does with more bits, and what 48 give is taken for these without --all.
"""

import argparse
import pathlib
import re
import struct
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parents[1]
SECONDS = 120
LONG_SECONDS = 600
# The host's windows are below, whatever the width.
MOST_BITS = 48
# It avoids paging by five levels, and linear addresses whose highest bit is set.
OVMF_BITS = 47
GIB = 1 << 30
OVMF = "/usr/share/OVMF/OVMF_CODE_4M.fd"

MACHINES = {
    "q35-seabios": ["-machine", "q35"],
    "q35-ovmf": ["-machine", "q35", "-drive", f"if=pflash,format=raw,readonly=on,file={OVMF}"],
    "i440fx-seabios": ["-machine", "pc"],
    "microvm": ["-machine", "microvm,rtc=on,acpi=off"],
    # Neither places a BAR: the kernel does.
    "q35-direct": ["-machine", "q35", "-bios", "qboot.rom"],
}
WIDTHS = (39, 40, 44, 46, 48, 52)
MEMORY = (1, 6, 64, 1024)
# A GPU's memory; room for as much RAM again.
WITH = {
    "": lambda gib: [],
    "BAR": lambda gib: ["-device", "pci-testdev,membar=64G"],
    "plug": lambda gib: ["plug"],
    "BAR+plug": lambda gib: ["-device", "pci-testdev,membar=64G", "plug"],
}
# What tells most, and what it has to be.
SAMPLE = {
    "q35-seabios 46 6 ": "512 × 16",
    "q35-seabios 40 6 plug": "512 × 1 of 16",
    "q35-ovmf 40 6 ": "512 × 1 of 8",
    "q35-ovmf 39 6 ": "471 × 1 of 8",
    "i440fx-seabios 46 6 BAR": "512 × 16",
    "microvm 40 1 ": "512 × 1",
    "q35-direct 46 64 BAR+plug": "512 × 64 of 256",
}


class Cell:
    """One machine with one memory, and what became of it"""

    def __init__(self, machine, bits, gib, extra):
        self.machine, self.bits, self.gib, self.extra = machine, bits, gib, extra
        self.name = f"{machine} {bits} {gib} {extra}"
        self.epts = self.slots = self.why = None
        self.trouble = None
        # Of an earlier run: what the table says, and the line below it.
        self.said = self.note = None

    def possible(self):
        """What QEMU has no such machine for"""
        if self.gib * GIB >= 1 << self.bits:
            return "no such width"
        if self.machine == "microvm" and self.extra:
            return "no such device"
        # It tells about OVMF, of whose wider ones there are few.
        if self.bits == 44 and self.machine != "q35-ovmf":
            return "like 46"
        return None

    def is_long(self):
        """What takes a minute"""
        return self.machine == "q35-ovmf" and self.bits > 44

    def like(self):
        """The name of another with the same layout, and the same address space for the chooser"""
        if self.machine != "q35-ovmf" or min(self.bits, MOST_BITS) <= OVMF_BITS:
            return self.name
        return f"{self.machine} {MOST_BITS} {self.gib} {self.extra}"

    def is_limited(self):
        """Whether the kernel is told to use less RAM; so it wants fewer slots"""
        return self.gib > 6

    def command(self, work, kernel):
        memory = f"{self.gib}G"
        extra = WITH[self.extra](self.gib)
        if "plug" in extra:
            extra.remove("plug")
            memory += f",slots=4,maxmem={2 * self.gib}G"
        command = ["setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", "-accel", "tcg",
                   "-cpu", f"max,vendor=GenuineIntel,phys-bits={self.bits}", *MACHINES[self.machine],
                   "-m", memory, "-object",
                   f"memory-backend-ram,id=ram,size={self.gib}G,reserve=off",
                   "-machine", "memory-backend=ram", *extra, "-nodefaults", "-no-user-config", "-display", "none",
                   "-no-reboot", "-serial", "stdio", "-kernel", str(kernel / "bzImage"),
                   "-initrd", str(work / "root.cpio")]
        # What describes 1,024 GiB of RAM would take 16 of them.
        limit = " mem=3G" if self.is_limited() else ""
        return command + ["-append", "console=ttyS0 panic=-1 reboot=t mitigations=off "
                          f"random.trust_cpu=on loglevel=4 tsc_early_khz=2000000 lpj=10000000"
                          f"{limit} bits={min(self.bits, MOST_BITS)}"]


def parts(log):
    """The log's parts by their names"""
    found = {}
    for line in log.splitlines():
        line = line.strip()
        if line.startswith("LAYOUT "):
            found[line[7:]] = current = []
        elif found:
            current.append(line)
    return found


def taken(layout):
    """(start, last, kind, name) of all that the kernel and the tables tell"""
    for line in layout["iomem_text"]:
        match = re.fullmatch(r"( *)([0-9a-f]+)-([0-9a-f]+) : (.*)", line)
        if not match:
            continue
        ram = match[4].startswith("System RAM")
        if ram or not match[1]:
            yield int(match[2], 16), int(match[3], 16), int(ram), match[4]
    # RAM that the kernel was told to leave alone is RAM.
    for line in layout["memmap"]:
        start, end, kind = line.split(maxsplit=2)
        if kind == "System RAM":
            yield int(start, 0), int(end, 0), 1, kind
    srat = bytes.fromhex("".join(layout["srat"]))
    at = 48
    while at + 2 <= len(srat):
        kind, length = srat[at], srat[at + 1]
        if kind == 1:
            start, size = struct.unpack_from("<QQ", srat, at + 8)
            flags, = struct.unpack_from("<I", srat, at + 28)
            if flags & 1 and size:
                yield (start, start + size - 1, 2 if flags & 2 else 0,
                       "hot-pluggable memory" if flags & 2 else "memory of the SRAT")
        at += length


def choose(cell, log):
    """Ask the chooser here, and compare with what it said there"""
    layout = parts(log)
    if "end" not in layout:
        cell.trouble = "no layout"
        return
    text = log[log.index("LAYOUT iomem"):log.index("LAYOUT memmap")]
    layout["iomem_text"] = [line.rstrip("\r") for line in text.splitlines()]
    ranges = "".join(f"{start:x} {last:x} {kind} {name[:35]}\n"
                     for start, last, kind, name in taken(layout))
    here = subprocess.run([HERE / "build/layout", str(min(cell.bits, MOST_BITS))], input=ranges, text=True,
                          stdout=subprocess.PIPE, check=False)
    lines = [line for line in here.stdout.splitlines() if line]
    there = [re.sub(r"^.*epk_room: ", "", line) for line in layout["room"] if "epk_room: " in line]
    there = [line for line in there if "taint" not in line]
    if not cell.is_limited() and sorted(lines) != sorted(there):
        cell.trouble = f"here: {lines}; there: {there}"
        return
    room = re.match(r"room: (\d+) EPTs, (\d+) slots, (0x[0-9a-f]+)", lines[0])
    if room:
        cell.epts, cell.slots, cell.base = int(room[1]), int(room[2]), int(room[3], 0)
        cell.why = lines[1] if len(lines) > 1 else ""
    else:
        cell.epts, cell.slots, cell.why = 0, 0, lines[0]


def boot(cell, work, kernel):
    """The log of one cell"""
    try:
        done = subprocess.run(cell.command(work, kernel), stdin=subprocess.DEVNULL,
                              timeout=LONG_SECONDS if cell.is_long() else SECONDS,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        return done.stdout.decode(errors="replace")
    except subprocess.TimeoutExpired as error:
        return (error.stdout or b"").decode(errors="replace")


def judge(cell, log):
    """What became of it"""
    low = re.search(r"Address space limit 0x[0-9a-f]+ < 0x([0-9a-f]+)", log)
    if low:
        cell.trouble = f"QEMU refuses: up to {int(low[1], 16):#x}"
        cell.epts = -1
    else:
        choose(cell, log)
        if cell.trouble:
            cell.trouble += "\n" + "\n".join(log.splitlines()[-15:])


def root(work):
    """The initramfs with the module"""
    kernel = pathlib.Path(subprocess.run([HERE / "kernel.sh"], check=True, text=True,
                                         stdout=subprocess.PIPE).stdout.strip())
    subprocess.run(["make", "-s", "-C", HERE, "all"], check=True)
    module = work / "tests/firmware/room"
    for source in ("guest-kmod", "tests/firmware/room"):
        (work / source).parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-r", TOP / source, work / source], check=True)
    made = subprocess.run(["make", "-C", kernel / "tree", f"M={module}", "clean", "modules"],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if made.returncode:
        sys.exit(made.stdout)
    files = work / "root"
    for folder in ("bin", "dev", "proc", "sys"):
        (files / folder).mkdir(parents=True)
    subprocess.run(["cp", "/bin/busybox", files / "bin"], check=True)
    for applet in ("sh", "mount", "cat", "hexdump", "insmod", "dmesg", "grep", "tail", "reboot"):
        (files / "bin" / applet).symlink_to("busybox")
    subprocess.run(["install", "-m", "755", HERE / "init", files], check=True)
    subprocess.run(["cp", module / "epk_room.ko", files], check=True)
    subprocess.run("find . | LC_ALL=C sort | cpio -o -H newc -R 0:0 --quiet >../root.cpio",
                   shell=True, cwd=files, check=True)
    return kernel


def short(cell):
    """A cell of the table"""
    if cell.possible():
        return "–"
    if cell.epts == -1:
        return "QEMU refuses"
    if cell.epts is None:
        return cell.said or "not run"
    if not cell.epts:
        return "none"
    wanted = re.search(r"not of (\d+) GiB", cell.why)
    of = f" of {wanted[1]}" if wanted and int(wanted[1]) != cell.slots else ""
    return f"{cell.epts} × {cell.slots}{of}"


def label(cell):
    """A cell's name below the table"""
    return f"- {cell.gib:,} GiB, {cell.bits} bits{', ' if cell.extra else ''}{cell.extra}: "


def widths_of(machine):
    return [bits for bits in WIDTHS if machine == "q35-ovmf" or bits != 44]


def read_table(cells, lines):
    """Have the cells what a table said of them, in an earlier run"""
    by = {cell.name: cell for cell in cells}
    machine = None
    for line in lines:
        if match := re.fullmatch(r"\*\*(.*)\*\*", line):
            machine = match[1]
        elif machine and (match := re.fullmatch(r"\| ([0-9,]+) \| ([A-Za-z+]*) \| (.*) \|", line)):
            for bits, said in zip(widths_of(machine), match[3].split(" | ")):
                by[f"{machine} {bits} {match[1].replace(',', '')} {match[2]}"].said = said
        elif machine and line.startswith("- "):
            for cell in cells:
                if cell.machine == machine and line.startswith(label(cell)):
                    cell.note = line


def note(cell):
    """The line below the table, if there is one of it"""
    if cell.epts is None:
        return cell.note
    return label(cell) + re.sub(r"^.*: ", "", cell.why) + "." if cell.why and cell.epts < 512 else None


def table(cells):
    """The whole matrix in Markdown"""
    by = {cell.name: cell for cell in cells}
    for machine in MACHINES:
        yield f"**{machine}**"
        yield ""
        widths = widths_of(machine)
        yield "| GiB of RAM | with | " + " | ".join(f"{bits} bits" for bits in widths) + " |"
        yield "|---|---|" + "---|" * len(widths)
        for gib in MEMORY:
            for extra in WITH:
                row = [by[f"{machine} {bits} {gib} {extra}"] for bits in widths]
                row = [by[cell.like()] if cell.epts is None else cell for cell in row]
                if all(cell.possible() for cell in row):
                    continue
                yield f"| {gib:,} | {extra} | " + " | ".join(map(short, row)) + " |"
        yield ""
        notes = [note(cell) for cell in cells if cell.machine == machine and note(cell)]
        yield from notes
        if notes:
            yield ""


def write_table(path, cells):
    """The text before the first table stays, and so does what was not run."""
    lines = path.read_text().splitlines() if path.exists() else []
    first = f"**{next(iter(MACHINES))}**"
    start = lines.index(first) if first in lines else len(lines)
    read_table(cells, lines[start:])
    path.write_text("\n".join((*lines[:start], *table(cells))))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=pathlib.Path)
    parser.add_argument("--keep", type=pathlib.Path)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()

    cells = [Cell(machine, bits, gib, extra) for machine in MACHINES for bits in WIDTHS
             for gib in MEMORY for extra in WITH]
    if args.names == ["sample"]:
        wanted = [cell for cell in cells if cell.name in SAMPLE]
    else:
        wanted = [cell for cell in cells
                  if not args.names or any(name in cell.name for name in args.names)]
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=True)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        kernel = root(work)
        for cell in wanted:
            if cell.possible():
                continue
            started = time.monotonic()
            kept = args.keep / cell.name.strip().replace(" ", "-") if args.keep else None
            if kept and args.again and kept.exists():
                log = kept.read_text()
            elif cell.like() != cell.name and not args.all:
                continue
            else:
                log = boot(cell, work, kernel)
            judge(cell, log)
            if not cell.trouble and short(cell) != SAMPLE.get(cell.name, short(cell)):
                cell.trouble = f"it has to be {SAMPLE[cell.name]}"
            bad = cell.trouble and cell.epts != -1
            if kept and not bad:
                kept.write_text(log)
            failed += bool(bad)
            print(f"{'fail ' if bad else ''}{cell.name}: {short(cell)}"
                  f"{'; ' + (cell.trouble or cell.why) if cell.trouble or cell.why else ''}"
                  f" ({time.monotonic() - started:.0f} s)", flush=True)
    if args.table:
        write_table(args.table, cells)
    sys.exit(1 if failed or not wanted else 0)


if __name__ == "__main__":
    main()
