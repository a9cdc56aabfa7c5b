#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What people are told of tests that failed, and which folders of runs stay."""

import contextlib
import io
import os
import pathlib
import tempfile
import time
import unittest
import xml.etree.ElementTree as xml
from unittest import mock

import folders
import results
from results import Result

OF_C = ["06: a line", "12:00:00 kmod_x_test.c:7: failed: begin(id) == 0: -13, 0", "9 checks, 1 failed", "the end"]
OF_CMOCKA = ["[ RUN      ] a_case", "[  ERROR   ] --- 0xfffffffffffffff3 != 0", "[   LINE   ] --- x_test.c:9: error: Failure!",
             "[  FAILED  ] a_case", "[  PASSED  ] 3 test(s)."]


def told(*all_results):
    """The summary's exit status and text"""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        status = results.summary(all_results, 61)
    return status, out.getvalue()


class Told(unittest.TestCase):
    def test_why_and_how_again(self):
        status, text = told(Result("good", "pass", again="not this"),
                            Result("bad", "fail", "exit status 1", OF_C, again="run.py --native bad"))
        self.assertEqual(status, 1)
        self.assertIn("failed: begin(id) == 0: -13 (EACCES), 0", text)
        self.assertIn("again: run.py --native bad", text)
        self.assertNotIn("not this", text)
        self.assertNotIn("a line", text)
        self.assertIn("1 passed, 1 failed, 0 skipped", text)

    def test_names(self):
        for line, names in (("x: -22, 0", "-22 (EINVAL), 0"), ("0xfffffffffffffff3 != 0", "0xfffffffffffffff3 (EACCES) !="),
                            ("0xfffffff4 !=", "0xfffffff4 (ENOMEM) !="), ("failed: -1", "-1 (EPERM)"),
                            ("2026-11-30 x-22 1.-3", "2026-11-30 x-22 1.-3"), ("-999", "-999"),
                            ("0xffffffffffff0000", "0xffffffffffff0000"), ("kmod_test.c:7:", "kmod_test.c:7:")):
            self.assertIn(names, results.with_names(line))
        self.assertEqual(results.with_names("at 0x7fffffffe0f3"), "at 0x7fffffffe0f3")

    def test_telling_lines(self):
        self.assertEqual(len(results.telling(OF_CMOCKA)), 3)
        # Where no line says it, the last ones; not more than fit.
        self.assertEqual(results.telling(["a", "b", "c", "d"]), ["b", "c", "d"])
        self.assertEqual(results.telling([]), [])
        self.assertEqual(len(results.telling([f"x.c:{i}: failed: y" for i in range(100)])), results.MOST_TELLING)
        self.assertEqual(results.telling(["5 checks, 0 failed", "9 passed, 0 failed, 0 skipped", "it hangs"])[-1], "it hangs")

    def test_status(self):
        self.assertEqual(told(Result("a", "pass"))[0], 0)
        self.assertEqual(told(Result("a", "pass"), Result("b", "skip", "no keys"))[0], 0)
        # Nothing passed: nothing was tested.
        self.assertEqual(told()[0], 1)
        self.assertEqual(told(Result("b", "skip", "no keys"))[0], 1)

    def test_judge(self):
        skips = {("a", "no keys")}
        self.assertEqual(results.judge("a", 77, ["SKIP", "no keys"], skips).outcome, "skip")
        for name, rc, output in (("b", 77, ["no keys"]), ("a", 77, ["other"]), ("a", 77, []), ("a", 1, ["no keys"])):
            self.assertEqual(results.judge(name, rc, output, skips).outcome, "fail")

    def test_junit(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "results.xml"
            results.write_junit(path, [Result("a", "pass", seconds=1.5), Result("b", "fail", "exit status 1", ["<&\0\x1b[1m>"]),
                                       Result("c", "skip", "no keys")])
            suite = xml.parse(path).getroot()
        self.assertEqual((suite.get("tests"), suite.get("failures"), suite.get("skipped")), ("3", "1", "1"))
        self.assertEqual([case.get("name") for case in suite], ["a", "b", "c"])
        self.assertEqual(suite[1][0].text, "<&??[1m>")

    def test_ktap(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "results.ktap"
            results.write_ktap(path, [Result("a", "pass"), Result("b@alone", "fail", "exit status 1", ["one", "two"], again="run.py b"),
                                      Result("c", "skip", "no keys")])
            text = path.read_text()
        self.assertEqual(text.splitlines(), ["KTAP version 1", "1..3", "ok 1 a", "not ok 2 b@alone", "# exit status 1", "# one",
                                             "# two", "# again: run.py b", "ok 3 c # SKIP no keys"])

    def test_report_has_logs_and_the_command(self):
        out = io.StringIO()
        result = Result("bad", "fail", "exit status 1", [f"line {i}" for i in range(99)], again="run.py bad",
                        logs={"host.log": ["kvm: no"], "guest.log": []})
        with contextlib.redirect_stdout(out):
            results.report(result, print)
        self.assertEqual([line.strip() for line in out.getvalue().splitlines()[-4:]],
                         ["line 98", "host.log since about when it began:", "kvm: no", "again: run.py bad"])
        self.assertNotIn("line 58\n", out.getvalue())
        self.assertIn("line 59\n", out.getvalue())
        # Of what passed nothing more is told.
        out.truncate(0)
        with contextlib.redirect_stdout(out):
            results.report(Result("good", "pass", output=["a line"]), print)
        self.assertNotIn("a line", out.getvalue())


class Folders(unittest.TestCase):
    def setUp(self):
        self.cache = tempfile.TemporaryDirectory()
        self.addCleanup(self.cache.cleanup)
        patch = mock.patch.object(folders, "CACHE", pathlib.Path(self.cache.name))
        patch.start()
        self.addCleanup(patch.stop)

    def names(self):
        return {path.name for path in (folders.CACHE / "run").iterdir()}

    def test_the_last_stay(self):
        made = []
        for i in range(9):
            folder, fd = folders.make("x-")
            (folder / "log").write_text("text")
            os.utime(folder, (i, i))
            os.close(fd)
            made.append(folder.name)
        self.assertEqual(len(self.names()), folders.KEPT + 1)
        self.assertEqual(self.names() & set(made[:3]), set())
        self.assertLessEqual(set(made[4:]), self.names())

    def test_what_goes_on_stays(self):
        first, lock = folders.make("x-")
        os.utime(first, (1, 1))
        for i in range(8):
            folder, fd = folders.make("x-")
            os.utime(folder, (i + 2, i + 2))
            os.close(fd)
        self.assertIn(first.name, self.names())
        os.close(lock)
        os.close(folders.make("x-")[1])
        self.assertNotIn(first.name, self.names())

    def test_without_a_lock(self):
        runs = folders.CACHE / "run"
        runs.mkdir()
        now = time.time()
        for name, age in (("young", 3600), ("old", 2 * folders.A_DAY)):
            (runs / name).mkdir()
            os.utime(runs / name, (now - age, now - age))
        for _ in range(folders.KEPT):
            os.close(folders.make("x-")[1])
        os.close(folders.make("x-")[1])
        self.assertIn("young", self.names())
        self.assertNotIn("old", self.names())


if __name__ == "__main__":
    unittest.main()
