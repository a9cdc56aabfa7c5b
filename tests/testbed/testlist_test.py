#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What a list of tests may say."""

import pathlib
import tempfile
import unittest

import testlist

GROUPED = """# == One: a b
# name
a-x native - 5 - run a
b guest both 4 epk b_test
# == Two: c b-y
c host 1 4 guest c_test
b-y-z native - 5 slow run b
"""


class Lists(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = pathlib.Path(folder.name) / "tests.list"

    def read(self, text):
        self.path.write_text(text)
        return testlist.read_tests(self.path)

    def refused(self, text, why):
        with self.assertRaisesRegex(testlist.ListError, why):
            self.read(text)

    def test_lines(self):
        tests = self.read(GROUPED)
        self.assertEqual([test.name for test in tests], ["a-x", "b", "c", "b-y-z"])
        self.assertEqual((tests[1].cpus, tests[1].needs, tests[0].timeout), ((1, 2), {"epk"}, 5))

    def test_groups(self):
        self.read("a-x native - 5 - run\n")
        self.refused(GROUPED.replace("c host", "a-c host"), "a-c belongs under 'One'")
        self.refused(GROUPED.replace("b-y-z", "b-yz"), "b-yz belongs under 'One'")
        self.refused(GROUPED.replace("c host", "d host"), "d belongs under None")
        self.refused("a native - 5 - run\n" + GROUPED, "a belongs under 'One'")
        self.refused(GROUPED.replace("Two: c", "Two: c a"), "a is a prefix of two")

    def test_columns(self):
        for line, why in (("a native - 5 -", "6 columns"), ("A native - 5 - run", "bad name"), ("a user - 5 - run", "bad level"),
                          ("a native 1 5 - run", "number of CPUs"), ("a guest - 5 - run", "number of CPUs"),
                          ("a native - 0 - run", "timeout"), ("a native - 5 what - run", "unknown need"),
                          ("a guest 1 5 uni run", "uni without"), ("a native - 5 core run", "slow"),
                          ("a guest 1 5 slow run", "slow"),
                          ("a guest 1 5 quiet run", "quiet"), ("a guest 1 5 spared run", "spared without"),
                          ("a guest both 5 alone,uni,spared run", "but for one"), ("a native - 5 - run\na native - 5 - run", "twice")):
            self.refused(line + "\n", why)

    def test_needs(self):
        """What the list's head explains some test has; read_tests() sees to the contrary."""
        explained = testlist.NEED.findall(testlist.TESTS.read_text().partition("# command:")[0])
        self.assertEqual(set(explained), set().union(*(test.needs for test in testlist.read_tests())))
        self.assertEqual(len(explained), len(set(explained)))

    def test_programs(self):
        """One of the list is looked for by its name alone, so no two folders may have it that one machine's are from."""
        for folders in (("unit", "kvm", "debug", "testbed"), ("guest", "unit", "docs", "debug")):
            sources = [source for each in folders for source in (testlist.TOP / "tests" / each).glob("*_test.c")]
            sources += (testlist.TOP / "bench").glob("*_test.c")
            names = [source.name for source in sources]
            self.assertGreater(len(names), 40)
            self.assertEqual([name for name in set(names) if names.count(name) > 1], [])


if __name__ == "__main__":
    unittest.main()
