#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Run a program of one's own in the emulated guest, where EPK works, or get a shell there.

program.py [OPTION...] PROGRAM [ARGUMENT...]
program.py --shell [--files FILES] [FILE...]

The program and the FILEs lie in one folder of the guest, from where it starts, as root, and which is where its shared
objects are looked for, with EPK_BACKEND, EPK_DEBUG and EPK_STRICT as they are here.  The guest has busybox, the library and
its tools besides, and Python 3.11 if the program is a script of Python, or with --shell.  What it prints is printed, and its
exit status is this one's.

The shell is in a guest of QEMU's own emulation, which has protection keys and no EPK; so is a program with --alone.
"""
import argparse
import glob
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import elsewhere
import flavours
import testlist
from results import say
from session import Run
from testlist import TOP

FOLDER = pathlib.PurePath("epk/user")
PYTHON = "3.11"
SECONDS = 600       # emulated
BACKENDS = ("epk", "mpk", "vmfunc", "mprotect", "none")
# By which scripts may start there: what a path names, and what env finds.
ENV = "/usr/bin/env"
INTERPRETERS = ("/bin/sh", "/usr/bin/python3", f"/usr/bin/python{PYTHON}")
# What that folder has besides.
TAKEN = ("epk", ".start", "libepk.so.1")
# Of the environment here, what the program finds there.
PASSED = ("EPK_BACKEND", "EPK_DEBUG", "EPK_STRICT")


def fail(*words):
    sys.exit("program: " + " ".join(map(str, words)))


def called_by_env(argument):
    """What env starts when the kernel hands it that after #!: all of it as one word."""
    split = re.match(r"(?:-[0iv]*S|--split-string[= ])(.*)", argument)
    if not split:
        return argument
    words = iter(shlex.split(split[1]))
    for word in words:
        if word in ("-u", "-C"):
            next(words, None)
        elif not word.startswith("-") and "=" not in word:
            return word
    return ""


def interpreter(path):
    """Of a script: its interpreter; of an ELF file: ""."""
    with open(path, "rb") as file:
        start = file.read(256)
    if start.startswith(b"\x7fELF"):
        if start[4:5] != b"\2" or start[18:20] != b"\x3e\0":
            fail(path, "is not a program for x86-64")
        return ""
    line = start.split(b"\n")[0].decode(errors="replace")
    if not line.startswith("#!"):
        fail(path, "is neither a program nor a script (#!)")
    if line.endswith("\r"):
        fail(path, "has lines that end with CR and LF, which no kernel takes for a script's")
    words = line[2:].split(None, 1)
    if not words:
        fail(path, "names no interpreter after #!")
    name, there = words[0], INTERPRETERS
    if name == ENV:
        try:
            name = called_by_env(words[1].rstrip() if words[1:] else "")
        except ValueError as error:
            fail(f"{path}: {ENV} -S: {error}")
        there += tuple(pathlib.PurePath(known).name for known in INTERPRETERS)
    if name not in there:
        fail(f"{path} wants {name or 'nothing of ' + ENV}: the guest has {', '.join(INTERPRETERS)} and, for these, {ENV}")
    return name


def complete(files):
    """Is every shared object there that these want?"""
    there = {path.name for path in files} | {"libepk.so.1"}
    for path in files:
        said = subprocess.run(["readelf", "-d", path], check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
        for name in re.findall(r"\(NEEDED\).*\[(.*/.*)\]", said):
            fail(f"{path} wants {name} from that folder, which the guest has not: link it with -L and -l")
        said = subprocess.run(["ldd", path], check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
        missing = [name for name in re.findall(r"(\S+) => not found", said) if name not in there]
        if missing:
            fail(f"{path} needs {', '.join(missing)}: name them among the files")


def named(words):
    """The files that a shell's words name: what is quoted in them is one, and a pattern all that it fits."""
    for word in shlex.split(words):
        fits = sorted(glob.glob(word)) if not os.path.lexists(word) else []
        yield from map(pathlib.Path, fits or [word])


def look(program, files):
    """What is wrong before anything boots; is Python needed?"""
    for path in files:
        if path.is_dir():
            fail(path, "is a folder: single files can be brought, and no folders")
        if not path.is_file():
            fail("there is no file", path)
        if path.name in TAKEN:
            fail(f"{path}: the guest has its own {path.name} there: another name")
    names = [path.name for path in files]
    if len(set(names)) != len(names):
        fail("two files have one name")
    if program is None:
        complete(files)
        return True
    if program.suffix in (".c", ".cc", ".cpp", ".cxx"):
        fail(program, "is not compiled: docs/tutorial.md has how")
    if not os.access(program, os.X_OK):
        fail(program, "cannot be executed: chmod +x")
    python = "python" in interpreter(program)
    complete(files)
    return python


class User:
    """What the guest has of the user's."""

    def __init__(self, files, python):
        self.files, self.python = files, python

    def copy(self, guest):
        to = guest / FOLDER
        to.mkdir()
        for path in self.files:
            shutil.copy2(path, to)
            # images.sh takes for programs, which have libraries, what all may execute.
            if os.access(path, os.X_OK):
                (to / path.name).chmod(0o755)
        # The real one: busybox's does not know -S.
        (guest / "usr/bin").mkdir(parents=True, exist_ok=True)
        shutil.copy2(ENV, guest / "usr/bin")
        build = TOP / "guest-lib/build"
        for tool in ("epk-check", "epk-scan"):
            shutil.copy2(build / tool, guest / "epk/bin")
        (guest / "epk/bin/epk-info").symlink_to("epk-check")
        shutil.copy2(build / "libepk.so.1", to)
        if self.python:
            ignore = shutil.ignore_patterns("test", "tests", "__pycache__", "idlelib", "ensurepip", "lib2to3", "turtledemo")
            shutil.copytree(TOP / "guest-lib/python/epk", to / "epk", ignore=shutil.ignore_patterns("__pycache__"))
            library = guest / f"usr/lib/python{PYTHON}"
            shutil.copytree(f"/usr/lib/python{PYTHON}", library, symlinks=True, ignore=ignore)
            shutil.copy2(f"/usr/bin/python{PYTHON}", guest / "usr/bin")
            (guest / "usr/bin/python3").symlink_to(f"python{PYTHON}")

    def start(self, guest, backend, command):
        """A script with which it starts there."""
        script = guest / FOLDER / ".start"
        there = {name: os.environ[name] for name in PASSED if name in os.environ}
        there.update({"EPK_BACKEND": backend} if backend else {}, LD_LIBRARY_PATH=f"/{FOLDER}")
        exports = " ".join(f"{name}={shlex.quote(value)}" for name, value in there.items())
        script.write_text(f"#!/bin/sh\ncd /{FOLDER}\nexport {exports}\nexec {shlex.join(command)}\n")
        script.chmod(0o755)


def built():
    """All that runs there; what does not compile has said so."""
    try:
        return flavours.build(flavours.pair("normal", "normal"))
    except subprocess.CalledProcessError as error:
        fail(f"{pathlib.Path(error.cmd[0]).name} failed, for what stands above: nothing was started")


def machine(base, user, args):
    """A run of the one program."""
    class Program(base):
        def prepare_guest(self):
            super().prepare_guest()
            user.copy(self.work / "guest")
            user.start(self.work / "guest", args.backend, [f"./{args.program[0].name}", *args.program[1]])

        def test_line(self, line):
            # What it has printed last may be no whole line.
            last, end, rest = line.partition("EPK-TEST end program ")
            if last and end:
                self.test_line(last)
                line = end + rest
            if not line.startswith("EPK-TEST ") and self.current.get("name") == "program":
                print(line, flush=True)
            super().test_line(line)

        def finish(self, rc, now):
            if self.current["name"] == "program":
                self.status = rc
                # It is shown already.
                self.current["output"] = []
            super().finish(rc, now)

        def again(self, name):
            """Its user knows."""
            return ""

        status = None

    needs = {"epk", "alone"}
    tests = [testlist.Test("program", "guest", (args.cpus,), args.seconds, needs, f"/{FOLDER}/.start")]
    return Program(args.cpus, tests, built(), False, None)


def shell(user, cpus):
    """A console in a guest without EPK, on this terminal."""
    kernels = built()

    class Shell(elsewhere.AloneRun):
        def has_guest(self):
            return True

        def prepare_guest(self):
            super().prepare_guest()
            user.copy(self.work / "guest")

        def emulate(self):
            say("a shell in the guest: \"exit\" ends it")
            subprocess.run(["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-cpu", "max", "-m", "1024",
                            "-smp", f"{cpus},sockets={cpus}", "-kernel", self.kernels["guest"].path / "bzImage",
                            "-initrd", self.work / "guest.cpio", "-append", f"console=ttyS0 {self.guest_args()} loglevel=3 shell",
                            "-display", "none", "-net", "none", "-no-reboot", "-serial", "mon:stdio"], check=False)

    Shell(cpus, [], kernels, False, None).run()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpus", type=int, choices=(1, 2), default=1)
    parser.add_argument("--backend", choices=BACKENDS, help="as EPK_BACKEND has it")
    parser.add_argument("--files", default="", help="of the program's, in one word, in which a shell's quotes quote and its patterns fit")
    parser.add_argument("--alone", action="store_true", help="in a guest without EPK, which boots in a second")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="emulated ones, after which it is killed")
    parser.add_argument("--shell", action="store_true")
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="PROGRAM [ARGUMENT...]")
    args = parser.parse_args()
    try:
        files = list(named(args.files))
    except ValueError as error:
        parser.error(f"--files: {error}")
    if args.shell:
        files += [pathlib.Path(name) for name in args.words]
        shell(User(files, look(None, files)), args.cpus)
        return
    if not args.words or not args.words[0]:
        parser.error("which program?")
    backend = args.backend or os.environ.get("EPK_BACKEND")
    if backend and backend not in BACKENDS:
        fail(f"EPK_BACKEND is {backend} here: the backends are {', '.join(BACKENDS)}")
    program = pathlib.Path(args.words[0])
    args.program = program, args.words[1:]
    files = [program] + files
    user = User(files, look(program, files))
    ran = machine(elsewhere.AloneRun if args.alone else Run, user, args)
    ran.run()
    sys.exit(1 if ran.status is None else ran.status)


if __name__ == "__main__":
    main()
