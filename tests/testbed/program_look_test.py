#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What program.py says of a program before anything boots, what it takes to the guest, and how make's words get there."""

import contextlib
import io
import os
import pathlib
import shutil
import stat
import subprocess
import tempfile
import unittest
from unittest import mock

import program
from testlist import TOP


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.work = pathlib.Path(folder.name)

    def file(self, text, name="own", mode=0o755):
        path = self.work / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        path.chmod(mode)
        return path

    def library(self, name, *options):
        path = self.work / name
        subprocess.run(["gcc", "-shared", "-fPIC", "-Wl,--no-as-needed", "-o", path, "-x", "c", "/dev/null", "-x", "none", *options],
                       check=True)
        return path


class Looks(Case):
    def look(self, path, *files):
        return program.look(path, [path, *files])

    def refuses(self, words, path, *files):
        with self.assertRaises(SystemExit) as refused:
            self.look(path, *files)
        self.assertIn(words, str(refused.exception))

    def test_scripts_that_run(self):
        for line, python in (("/bin/sh", False), (" /bin/sh -e ", False), ("/usr/bin/env sh", False), ("/usr/bin/env -S sh -e", False),
                             ("/usr/bin/python3", True), ("/usr/bin/python3 -B", True), ("/usr/bin/python3.11", True),
                             ("/usr/bin/env python3", True), ("/usr/bin/env python3.11", True), ("/usr/bin/env /usr/bin/python3", True),
                             ("/usr/bin/env -S python3 -u", True), ("/usr/bin/env -vS -u HOME A=b python3 -u", True),
                             ("/usr/bin/env --split-string=python3 -u", True)):
            with self.subTest(line):
                self.assertIs(self.look(self.file(f"#!{line}\n")), python)

    def test_scripts_that_do_not(self):
        for line, words in (("", "names no interpreter"), (" \t", "names no interpreter"), ("/usr/bin/perl", "wants /usr/bin/perl:"),
                            ("/opt/x/python3", "wants /opt/x/python3:"), ("/bin/bash", "wants /bin/bash:"), ("sh", "wants sh:"),
                            ("/usr/bin/env", "wants nothing of"), ("/usr/bin/env -S -u", "wants nothing of"),
                            ("/usr/bin/env perl", "wants perl:"), ("/usr/bin/env python3 -u", "wants python3 -u:"),
                            ("/usr/bin/env -S 'python3", "No closing quotation"), ("/bin/sh\r", "CR and LF"),
                            ("/usr/bin/python3 -B\r", "CR and LF")):
            with self.subTest(line):
                self.refuses(words, self.file(f"#!{line}\n"))
        self.refuses("names no interpreter", self.file("#!"))

    def test_elf_files_that_end(self):
        whole = pathlib.Path("/usr/bin/env").read_bytes()
        for size in (4, 5, 19):
            self.refuses("is not a program for x86-64", self.file(whole[:size]))
        self.assertIs(self.look(self.file(whole)), False)

    def test_libraries_of_files(self):
        for line in ("/usr/bin/python3", "/bin/sh"):
            script = self.file(f"#!{line}\n")
            other = self.library("libother.so")
            self.refuses("needs libother.so", script, self.library("ext.so", f"-L{self.work}", "-lother"))
            self.look(script, self.work / "ext.so", other)
            self.refuses("link it with -L and -l", script, self.library("ext.so", other), other)

    def test_libraries_of_a_shells_files(self):
        self.library("libother.so")
        wants = self.library("it's wants.so", f"-L{self.work}", "-lother")
        with self.assertRaises(SystemExit) as refused:
            program.look(None, [wants])
        self.assertIn("wants.so needs libother.so", str(refused.exception))
        self.assertIs(program.look(None, [wants, self.work / "libother.so", self.file("", "data", 0o600)]), True)

    def test_patterns(self):
        for name in ("a b", "c.so", "d.so", "[e]", "e"):
            self.file("", name)

        def named(words):
            return [path.name for path in program.named(words.replace("@", str(self.work)))]
        self.assertEqual(named("'@/a b' @/c.so"), ["a b", "c.so"])
        self.assertEqual(named("@/*.so"), ["c.so", "d.so"])
        # What there is is no pattern, and what fits nothing is a name.
        self.assertEqual(named("@/[e] @/[f] \"@/a\"*"), ["[e]", "[f]", "a b"])
        with self.assertRaisesRegex(ValueError, "No closing quotation"):
            named("@/it's")

    def test_names(self):
        script = self.file("#!/usr/bin/python3\n")
        for name in ("epk", ".start", "libepk.so.1"):
            self.refuses("another name", script, self.file("", name))
        (self.work / "d").mkdir()
        self.refuses("d is a folder", script, self.work / "d")
        self.refuses("there is no file", script, self.work / "none")

    def test_backends(self):
        for backend in ("typo", "ep", "EPK"):
            error = io.StringIO()
            with mock.patch("sys.argv", ["program.py", "--backend", backend, "/none"]), contextlib.redirect_stderr(error), \
                    self.assertRaises(SystemExit) as refused:
                program.main()
            self.assertEqual(refused.exception.code, 2)
            self.assertIn(f"invalid choice: '{backend}'", error.getvalue())
            with mock.patch("sys.argv", ["program.py", "/none"]), mock.patch.dict(os.environ, EPK_BACKEND=backend), \
                    self.assertRaises(SystemExit) as refused:
                program.main()
            self.assertIn(f"EPK_BACKEND is {backend} here: the backends are epk, mpk, vmfunc,", str(refused.exception))
        # What is asked for by name counts.
        with mock.patch("sys.argv", ["program.py", "--backend", "mpk", "/none"]), mock.patch.dict(os.environ, EPK_BACKEND="typo"), \
                self.assertRaisesRegex(SystemExit, "there is no file"):
            program.main()
        # All that the library has.
        names = subprocess.run(["grep", "-ohP", r"\.name = \"\K\w+", *(TOP / "guest-lib/src").glob("backend_*.c")],
                               check=True, text=True, stdout=subprocess.PIPE).stdout.split()
        self.assertEqual(set(program.BACKENDS), set(names))


class Brings(Case):
    def guest(self, files, python):
        """The guest's root, with what the tree has built in empty files."""
        for tool in ("epk-check", "epk-scan", "libepk.so.1"):
            (self.work / "guest-lib/build").mkdir(parents=True, exist_ok=True)
            (self.work / "guest-lib/build" / tool).touch()
        (self.work / "guest-lib/python/epk").mkdir(parents=True, exist_ok=True)
        guest = self.work / "guest"
        shutil.rmtree(guest, ignore_errors=True)
        (guest / "epk/bin").mkdir(parents=True)
        tree = shutil.copytree

        def copytree(from_, to, **options):
            if not pathlib.Path(from_).is_relative_to("/usr/lib"):
                tree(from_, to, **options)
        with mock.patch.object(program, "TOP", self.work), mock.patch("shutil.copytree", copytree):
            program.User(files, python).copy(guest)
        return guest

    def test_modes(self):
        guest = self.guest([self.file("", "own", 0o700), self.file("", "data", 0o600)], False)
        self.assertEqual(stat.S_IMODE((guest / "epk/user/own").stat().st_mode), 0o755)
        self.assertEqual(stat.S_IMODE((guest / "epk/user/data").stat().st_mode), 0o600)

    def test_interpreters(self):
        for python in (False, True):
            guest = self.guest([], python)
            said = subprocess.run([guest / "usr/bin/env", "-S", "echo a b"], check=True, text=True, stdout=subprocess.PIPE).stdout
            self.assertEqual(said, "a b\n")
            for path in program.INTERPRETERS:
                # busybox is the shell; what is linked lies beside it.
                there = guest / path.lstrip("/")
                self.assertEqual(there.is_file() and os.access(there, os.X_OK), python and "python" in path, path)


class Makes(Case):
    """make run, and what program.py is given."""

    def setUp(self):
        super().setUp()
        shutil.copy2(TOP / "Makefile", self.work)
        (self.work / "tests/testbed").mkdir(parents=True)
        self.file("#!/bin/sh\n", "tests/testbed/packages.sh")
        self.file("#!/bin/sh\nprintf '<%s>' \"$@\"\n", "tests/testbed/program.py")

    def given(self, *words, **environment):
        return self.makes("run", *words, **environment)

    def makes(self, target, *words, **environment):
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        return subprocess.run(["make", "-s", "-C", self.work, target, *words], check=False, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, env={**kept, **environment}).stdout

    def test_words(self):
        self.assertEqual(self.given("PROGRAM=./a b"), "<--files><><./a b>")
        self.assertEqual(self.given("PROGRAM=a", 'FILES="a b" \'c d\'', "ARGS=1 '2 3' \"4 5\""),
                         "<--files><\"a b\" 'c d'><a><1><2 3><4 5>")
        self.assertEqual(self.given('PROGRAM=a"$$(echo b)', "BACKEND=mpk", "CPUS=2"),
                         '<--backend><mpk><--cpus><2><--files><><a"$(echo b)>')
        self.assertEqual(self.given(PROGRAM="a", FILES='"a b"'), '<--files><"a b"><a>')

    def test_shell(self):
        self.assertEqual(self.makes("shell"), "<--files><><--shell>")
        self.assertEqual(self.makes("shell", "FILES='a b' it\"'\"s *.so $$(echo c)", "CPUS=2"),
                         "<--cpus><2><--files><'a b' it\"'\"s *.so $(echo c)><--shell>")

    def test_alone(self):
        for value, option in (("1", "<--alone>"), ("yes", "<--alone>"), ("0", ""), ("no", ""), ("", "")):
            self.assertEqual(self.given("PROGRAM=a", f"ALONE={value}"), f"{option}<--files><><a>", value)


if __name__ == "__main__":
    unittest.main()
