#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""differences_test.py: what one series alone is given differences.py sees, wherever and however it stands there."""
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

TOP = pathlib.Path(__file__).resolve().parents[2]
TOOL = TOP / "tests/hygiene/differences.py"
ONE, OTHER = "linux-6.1", "linux-6.12"
HUNK = re.compile(r"^@@ -(\S+) \+(\d+),(\d+) @@", re.M)


class Differences(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="differences-"))
        self.addCleanup(shutil.rmtree, self.folder)
        for name in ONE, OTHER:
            shutil.copytree(TOP / "kvm-patches" / name, self.folder / name)
        shutil.copy(TOP / "kvm-patches/differences", self.folder)

    def say(self):
        done = subprocess.run([sys.executable, TOOL, self.folder], capture_output=True, text=True, timeout=120, check=False)
        return done.returncode, done.stderr

    def fails(self, word):
        rc, err = self.say()
        self.assertEqual((rc, word in err), (1, True), err)

    def pair(self):
        """Where the first patch of the second series has two added lines, one after the other, that are no longer than code."""
        for path in sorted((self.folder / OTHER).glob("0*.patch")):
            text = path.read_bytes()
            found = re.search(rb"^(\+\t+[a-z_]+\([^\n]*;)\n(\+\t+[a-z_]+\([^\n]*;)\n", text, re.M)
            if found and found[1] != found[2]:
                return path, text, found
        raise AssertionError("no two calls")

    def test_same(self):
        self.assertEqual(self.say(), (0, ""))

    def test_order(self):
        """Two lines that change places."""
        path, text, found = self.pair()
        path.write_bytes(text.replace(found[0], found[2] + b"\n" + found[1] + b"\n", 1))
        self.fails("not in kvm-patches/differences")
        path.write_bytes(text)
        path = next((self.folder / OTHER).glob("0006-*.patch"))
        text = path.read_text()
        self.assertEqual((text.count("_clearbit("), text.count("_setbit(")), (1, 1))
        path.write_text(text.replace("_clearbit(", "_@(").replace("_setbit(", "_clearbit(").replace("_@(", "_setbit("))
        self.fails("not in kvm-patches/differences")

    def test_place(self):
        """A difference that is listed, where it does not belong."""
        listed = re.findall(r"^@\d+ (\+.*)\n((?:\+\+.*\n)+)(?![-+])", (self.folder / "differences").read_text(), re.M)
        moved = 0
        for before, lines in listed:
            lines = re.sub(r"^\+", "", lines, flags=re.M)
            for path in sorted((self.folder / OTHER).glob("0*.patch")):
                text = path.read_text()
                found = re.search(f"^{re.escape(before)}\n{re.escape(lines)}(\\+.*\n)(\\+.*\n)(\\+.*\n)", text, re.M)
                if found:
                    path.write_text(text.replace(found[0], f"{before}\n{found[1]}{found[2]}{found[3]}{lines}", 1))
                    self.fails("not in kvm-patches/differences")
                    path.write_text(text)
                    moved += 1
        self.assertGreater(moved, 5)

    def test_characters(self):
        """What is the end of a line to some, and not to others, or is not seen."""
        path, text, found = self.pair()
        for sign in "\f", "\r", "\v", "\x85", "\u2028", "\u2029", "\u202e", "\0":
            path.write_bytes(text.replace(found[1], found[1] + sign.encode() + b"+\tevil();", 1))
            self.fails(f"has the character U+{ord(sign):04X}")
        path.write_bytes(text.replace(found[1], found[1] + b"\xff", 1))
        self.fails("utf-8")

    def test_no_newline(self):
        r"""A line that begins with \ is none of a hunk's, which goes on for as many lines as it says."""
        path = next(path for path in sorted((self.folder / OTHER).glob("0*.patch")) if HUNK.search(path.read_text()))
        head, *hunks = re.split(r"^(?=@@ )", path.read_text(), flags=re.M)
        where = HUNK.match(hunks[0])
        line, rest = hunks[0].split("\n", 1)
        more = line.replace(f"+{where[2]},{where[3]} @@", f"+{where[2]},{int(where[3]) + 1} @@")
        lines, left = rest.split("\n"), int(where[3])
        end = 0
        while left:
            left -= lines[end][:1] != "-"
            end += 1
        lines[end:end] = ["\\ No newline at end of file", "+evil"]
        path.write_text("".join([head, more + "\n" + "\n".join(lines), *hunks[1:]]))
        self.fails("++evil")

    def test_list(self):
        """Each difference there has a place."""
        path = self.folder / "differences"
        path.write_text(re.sub(r"^@.*\n", "", path.read_text(), count=1, flags=re.M))
        self.fails("of which file, where, and why?")


if __name__ == "__main__":
    unittest.main()
