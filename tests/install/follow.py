#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""follow.py [--plan | --keep]: do what docs/install.md says, word by word, in a fresh Debian 12.

What is done with each command stands in the file "plan".  --plan sees only that the plan has the document's commands, all of
them and in its order, and that the tests that it names are there.  Without it a Debian is installed, the commands run in it,
and in it again when it has booted in QEMU: there is no EPK from a host, so that the guest's module is alone.  What was compiled
before the boot is not compiled there: its compilers are ccache's.  That needs root.  --keep leaves the Debian where it is.
"""
import dataclasses
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parents[1]
DOCUMENT = TOP / "docs/install.md"
PLACES = {"root", "boot", "fail", "test", "none"}
BOOT_SECONDS = 6000
# A file of the module takes the emulator twenty seconds.
PATH = "/usr/lib/ccache:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = ["env", "-i", "PATH=" + PATH, "HOME=/root", "LC_ALL=C.UTF-8",
               "DEBIAN_FRONTEND=noninteractive"]
# No question is asked, as no user is there to answer: the words of the document stay what they are.
APT = 'APT::Get::Assume-Yes "true";\nAPT::Install-Recommends "false";\n'
# With keys; without what the emulator takes long for: copies byte by byte, page tables of five levels.
CPU = "max,-erms,-fsrm,-la57"
UNIT = """[Unit]
After=multi-user.target nginx.service
[Service]
Type=oneshot
ExecStart=/follow/run
[Install]
WantedBy=multi-user.target
"""


@dataclasses.dataclass
class Step:
    place: str
    command: str
    why: str = ""
    document: bool = True
    says: str = ""


def fail(*words):
    sys.exit("follow: " + " ".join(map(str, words)))


def say(*words):
    print(time.strftime("%H:%M:%S"), *words, flush=True)


def read_plan():
    steps = []
    for line in (HERE / "plan").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        place, *rest = line.split("\t")
        if place == ">":
            steps[-1].says = rest[0]
            continue
        step = Step(place.removeprefix("+ "), rest[-1], rest[0], not place.startswith("+"))
        if step.place not in PLACES or len(rest) != 1 + (step.place in ("test", "none")):
            fail("the plan has", line)
        steps.append(step)
    return steps


def commands():
    """The document's, without comments."""
    for block in re.findall(r"^```sh\n(.*?)^```$", DOCUMENT.read_text(), re.M | re.S):
        for line in block.splitlines():
            line = re.sub(r"(^|\s+)# .*", "", line).strip()
            if line:
                yield line


def check_plan(steps):
    planned = [step.command for step in steps if step.document]
    for number, command in enumerate(commands()):
        if number >= len(planned) or planned[number] != command:
            fail(f"{DOCUMENT.name} has\n\t{command}\nwhere the plan has\n\t"
                 f"{planned[number] if number < len(planned) else 'nothing more'}")
    if len(planned) > number + 1:
        fail(f"the plan has more than {DOCUMENT.name}: {planned[number + 1]}")
    names = {line.split("\t")[0] for line in (TOP / "tests/tests.list").read_text().splitlines()}
    for step in steps:
        if step.place == "test" and step.why not in names:
            fail("there is no test", step.why)


def call(log, *args, **options):
    with open(log, "a", encoding="utf-8") as out:
        return subprocess.run(args, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                              check=False, **options).returncode


def tail(log):
    return "\n".join(log.read_text(errors="replace").splitlines()[-30:])


def judge(step, status, text):
    """What is wrong with it, or nothing."""
    if (status != 0) != (step.place == "fail"):
        return f"exit status {status}"
    if step.says and not re.search(step.says, text):
        return f"it does not say {step.says}"
    return ""


class Debian:
    """A fresh one, in a folder."""

    def __init__(self, work):
        self.work, self.root, self.log = work, work / "root", work / "log"

    def install(self):
        mirror = subprocess.run(["apt-get", "indextargets", "--format", "$(SITE) $(CODENAME)", "Created-By: Packages"],
                                check=True, text=True, stdout=subprocess.PIPE).stdout
        mirror = [line.split()[0] for line in mirror.splitlines() if line.endswith(" bookworm")]
        if not mirror:
            fail("no source of Debian 12 is set up here")
        say("a fresh Debian 12 ...")
        include = "systemd-sysv,udev,kmod,git,make,ca-certificates,openssl,ccache"
        if call(self.log, "debootstrap", "--variant=minbase", f"--include={include}", "bookworm", self.root, mirror[0]):
            fail("debootstrap:", tail(self.log))
        (self.root / "etc/apt/apt.conf.d/90follow").write_text(APT)
        # All that its boot needs, which is read and unpacked in the emulator.
        (self.root / "etc/initramfs-tools/conf.d").mkdir(parents=True)
        (self.root / "etc/initramfs-tools/conf.d/follow").write_text("MODULES=list\n")
        (self.root / "etc/initramfs-tools/modules").write_text("virtio_pci\nvirtio_blk\next4\n")
        (self.root / "root/epk").mkdir()
        if call(self.log, "git", "clone", "-q", TOP, self.root / "root/epk"):
            fail("git:", tail(self.log))
        shutil.copy("/etc/resolv.conf", self.root / "etc")
        call(self.log, "mount", "-t", "proc", "proc", self.root / "proc")
        # The kernel that will boot, as each Debian has one.
        if self.run("apt-get update && apt-get install linux-image-amd64 initramfs-tools")[0]:
            fail("no kernel:", tail(self.log))

    def run(self, command):
        """Exit status and output of a command there."""
        log = self.work / "said"
        log.unlink(missing_ok=True)
        status = call(log, *ENVIRONMENT, "chroot", self.root, "bash", "-c", f"cd /root/epk && {command}")
        text = log.read_text(errors="replace")
        with open(self.log, "a", encoding="utf-8") as out:
            out.write(f"$ {command}\n{text}\n")
        return status, text

    def boot(self, steps):
        """What each of these says when it has booted: exit statuses and outputs."""
        follow = self.root / "follow"
        follow.mkdir()
        for number, step in enumerate(steps):
            (follow / f"{number}.sh").write_text(f"cd /root/epk && {step.command}\n")
        (follow / "run").write_text(
            f"#!/bin/sh\nsay() {{ echo \"follow: $1 $(cut -d ' ' -f 1 /proc/uptime)\" >/dev/ttyS1; }}\n"
            f"export PATH={PATH} HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive\n"
            f"for i in $(seq 0 {len(steps) - 1}); do\n"
            "\tsay $i\n\tbash /follow/$i.sh >/follow/$i.said 2>&1 </dev/null\n\techo $? >/follow/$i.rc\n"
            "done\nsay done\nsync\npoweroff\n")
        (follow / "run").chmod(0o755)
        (self.root / "etc/systemd/system/follow.service").write_text(UNIT)
        (self.root / "etc/fstab").write_text("/dev/vda / ext4 defaults 0 1\n")
        status, text = self.run("systemctl enable follow.service && update-initramfs -u -k all")
        if status:
            fail("no initial RAM disk:", text)
        self.umount()
        image = self.work / "disk"
        if call(self.log, "mkfs.ext4", "-q", "-d", self.root, image, "8G"):
            fail("no disk:", tail(self.log))
        kernel, = self.root.glob("boot/vmlinuz-*")
        say("it boots ...")
        # It must not outlive a run that is killed.
        call(self.log, "setpriv", "--pdeathsig", "TERM", "timeout", str(BOOT_SECONDS), "qemu-system-x86_64",
             "-machine", "q35", "-accel", "tcg", "-cpu", CPU, "-m", "2048", "-smp", "1", "-kernel", kernel, "-initrd", kernel.with_name(
                 kernel.name.replace("vmlinuz", "initrd.img")), "-append", "root=/dev/vda rw console=ttyS0 mitigations=off",
             "-drive", f"file={image},if=virtio,format=raw,cache=unsafe", "-display", "none", "-net", "none", "-no-reboot",
             "-serial", f"file:{self.work}/console", "-serial", f"file:{self.work}/steps")
        self.say_times(steps)
        results = []
        for number in range(len(steps)):
            said = [subprocess.run(["debugfs", "-R", f"cat /follow/{number}.{suffix}", image], check=False,
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout.decode(errors="replace")
                    for suffix in ("rc", "said")]
            results.append((int(said[0] or -1), said[1]))
        return results

    def say_times(self, steps):
        """How long each took there, in seconds of the emulated clock, and where its time ended."""
        began = re.findall(r"follow: (\w+) ([\d.]+)", (self.work / "steps").read_text(errors="replace"))
        for (step, begin), (_, end) in zip(began, began[1:]):
            say(f"{float(end) - float(begin):6.0f} s  {steps[int(step)].command}")
        if not began or began[-1][0] != "done":
            say(f"not ended within {BOOT_SECONDS} s:", steps[int(began[-1][0])].command if began else "the boot",
                "\n" + tail(self.work / "console"))

    def umount(self):
        subprocess.run(["umount", "-l", self.root / "proc"], check=False, stderr=subprocess.DEVNULL)


def follow(steps, keep):
    subprocess.run([TOP / "tests/testbed/packages.sh", TOP / "guest-lib/packaging/check-deb.list"], check=True)
    work = pathlib.Path(tempfile.mkdtemp(prefix="follow-"))
    debian = Debian(work)
    failed = 0
    try:
        debian.install()
        for step in (step for step in steps if step.place == "root"):
            say(step.command)
            wrong = judge(step, *debian.run(step.command))
            if wrong:
                fail(f"{step.command}: {wrong}\n{tail(debian.log)}")
        booted = [step for step in steps if step.place in ("boot", "fail")]
        for step, (status, text) in zip(booted, debian.boot(booted)):
            wrong = judge(step, status, text)
            failed += bool(wrong)
            say(f"{'fail' if wrong else 'done'}: {step.command}" + (f": {wrong}\n{text[-3000:]}" if wrong else ""))
    finally:
        debian.umount()
        if keep:
            say("left in", work)
        else:
            shutil.rmtree(work, ignore_errors=True)
    if failed:
        fail(failed, "of the commands")
    say("follow: all passed")


def main():
    args = sys.argv[1:]
    if args in (["--help"], ["-h"]):
        print(__doc__)
        return
    if args not in ([], ["--plan"], ["--keep"]):
        fail("--plan or --keep, not", *args)
    steps = read_plan()
    check_plan(steps)
    if args != ["--plan"]:
        follow(steps, args == ["--keep"])


if __name__ == "__main__":
    main()
