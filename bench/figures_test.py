#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What judges figures finds what is wrong with them: each case is wrong in one way."""
import copy
import unittest

import claims
import figures
import model
import report

GOOD = [
    {"table": "t", "case": "base", "baseline": "-", "count": 100.0},
    {"table": "t", "case": "one", "baseline": "base", "domains": 4, "count": 50.0, "wrpkru": 2, "vmfunc": 0, "syscalls": 0,
     "flushes": 0, "exits": 0, "faults": 0},
    {"table": "t", "case": "rough", "baseline": "base", "count": 1000.0, "within": 10},
    {"table": "t", "case": "never", "baseline": "base", "impossible": "no place"},
]


class Aim(unittest.TestCase):
    def told(self, more, table="nginx", clients=300):
        run = [{"table": "nginx", "case": case, "baseline": base, "domains": clients, "bytes": size, "count": count,
                **{event: 0 for event in figures.EVENTS}}
               for size in (1 << 10, 16 << 10) for case, base, count in (("no protection", "-", 1000.0), ("epk", "no protection", more))]
        return report.Report({"figures": run}).aim(table)

    def test_is_met(self):
        self.assertIn("It is met.", self.told(1020.0))

    def test_is_missed_there(self):
        self.assertEqual(self.told(1031.0).split("**")[1:],
                         ["It is missed", " with 300 clients and 16 KiB (+3.1 %).\n"])

    def test_is_of_as_many_clients(self):
        with self.assertRaisesRegex(SystemExit, "does not tell whether the aim is met"):
            self.told(1031.0, clients=32)

    def test_is_not_told_of_nothing(self):
        small = [{"table": "nginx", "case": case, "baseline": "-", "domains": 300, "bytes": 1 << 10}
                 for case in ("no protection", "epk")]
        others = [{"table": "nginx", "case": "mpk", "baseline": "-", "domains": 300, "bytes": 16 << 10}]
        never = [{"table": "nginx", "case": "epk", "baseline": "no protection", "domains": 300, "bytes": 16 << 10,
                  "impossible": "no place"},
                 {"table": "nginx", "case": "no protection", "baseline": "-", "domains": 300, "bytes": 16 << 10, "count": 1000.0}]
        for run in small, others, never:
            with self.assertRaisesRegex(SystemExit, "does not tell whether the aim is met"):
                report.Report({"figures": run}).aim("nginx")


class SideBySide(unittest.TestCase):
    def test_the_longest_goes_alone(self):
        self.assertEqual(report.side_by_side([10, 100, 20, 30]), 100)
        self.assertEqual(report.side_by_side([50, 50, 50]), 100)


class Figures(unittest.TestCase):
    def setUp(self):
        self.new = copy.deepcopy(GOOD)

    def found(self, **kwargs):
        return "; ".join(figures.compare(self.new, GOOD, **kwargs))

    def test_the_same(self):
        self.assertEqual(self.found(whole=True), "")

    def test_none(self):
        self.new = []
        self.assertIn("no figures", self.found())

    def test_missing_baseline(self):
        del self.new[0]
        self.assertIn("its baseline, base, has not been measured", self.found())

    def test_failed_baseline(self):
        self.new[0]["count"] = 0.0
        self.assertIn("measured as 0.0", self.found())

    def test_impossible_baseline(self):
        del self.new[0]["count"]
        self.new[0]["impossible"] = "no such call"
        self.assertIn("its baseline, base, is impossible", self.found())

    def test_baseline_of_the_same_point_first(self):
        self.new.append({"table": "t", "case": "base", "baseline": "-", "domains": 4, "count": 10.0})
        known = figures.by_key(self.new)
        self.assertEqual(figures.baseline(self.new[1], known)["count"], 10.0)

    def test_twice(self):
        self.new.append(copy.deepcopy(self.new[0]))
        self.assertIn("twice", self.found())

    def test_more(self):
        self.new[0]["count"] = 103.1
        self.assertTrue(self.found().endswith("103.1, was 100.0: over 3 %"))

    def test_a_little_more(self):
        self.new[0]["count"] = 102.9
        self.assertEqual(self.found(), "")

    def test_less_makes_the_document_wrong(self):
        self.new[0]["count"] = 96.9
        self.assertIn("96.9, was 100.0: over 3 % less, which is better: make bench", self.found())

    def test_rough(self):
        self.new[2]["count"] = 1099.0
        self.assertEqual(self.found(), "")
        self.new[2]["count"] = 1101.0
        self.assertIn("over 10 %", self.found())

    def test_another_tolerance_does_not_help(self):
        self.new[0].update(count=110.0, within=50)
        self.assertIn("over 3 %", self.found())

    def test_event(self):
        self.new[1]["wrpkru"] = 3
        self.assertIn("3 wrpkru, was 2", self.found())

    def test_loose_events(self):
        old = dict(GOOD[1], loose=2)
        self.assertEqual(figures.differs(dict(old, exits=2), old), "")
        self.assertEqual(figures.differs(dict(old, exits=2.1), old), "2.1 exits, was 0")
        self.assertIn("2 exits", figures.differs(dict(old, exits=2, loose=2), GOOD[1]))

    def test_reason_of_an_exit(self):
        self.new[1]["links"] = 1
        self.assertIn("1 links, was 0", self.found())

    def test_possible(self):
        del self.new[3]["impossible"]
        self.new[3]["count"] = 5.0
        self.assertIn("possible, was no place", self.found())

    def test_unknown(self):
        self.new[1]["domains"] = 5
        self.assertIn("has no such figure", self.found())

    def test_not_measured(self):
        del self.new[2]
        self.assertEqual(self.found(), "")
        self.assertIn("rough: not measured", self.found(whole=True))

    def test_modelled(self):
        self.assertEqual(model.cycles(GOOD[1]), 48 + 2 * model.CONSTANTS["wrpkru"].cycles)
        self.assertIsNone(model.cycles(GOOD[0]))

    def test_percent_more(self):
        base = dict(GOOD[1], count=100.0, wrpkru=0)
        self.assertAlmostEqual(model.percent_more(dict(base, count=102.0), base), 2)
        self.assertIsNone(model.percent_more(GOOD[3], base))
        self.assertIsNone(model.percent_more(base, GOOD[0]))


class Merged(unittest.TestCase):
    """A run of some tests, and a file that has more."""
    OLD = GOOD + [{"table": "other", "case": "base", "baseline": "-", "count": 7.0}]
    NEW = [{"table": "t", "case": "base", "baseline": "-", "count": 101.0}]

    def test_a_table_is_replaced(self):
        self.assertEqual(figures.merged(self.NEW, self.OLD, False), self.NEW + self.OLD[-1:])

    def test_a_part_leaves_the_rest(self):
        self.assertEqual(figures.merged(self.NEW, self.OLD, True), self.NEW + self.OLD[1:])

    def test_a_part_has_a_figure_more(self):
        more = [dict(self.NEW[0], domains=2)]
        self.assertEqual(figures.merged(more, self.OLD, True), self.OLD + more)

    def test_each_table_has_its_commit(self):
        head = figures.partly({"commit": "new", "cpu": "c"}, {"commit": "old", "later": {"a": "between", "t": "between"}}, {"t"})
        self.assertEqual(head, {"commit": "old", "cpu": "c", "later": {"a": "between", "t": "new"}})
        self.assertEqual(figures.partly({"commit": "new"}, {}, {"t"}), {"commit": "new"})


class Claims(unittest.TestCase):
    """On the committed run, spoilt."""

    def setUp(self):
        self.run_ = figures.read()

    def spoil(self, table, case, times, **where):
        for figure in self.run_["figures"]:
            if (figure["table"], figure["case"]) == (table, case) and all(figure.get(name) == value for name, value in where.items()):
                figure["count"] *= times
        return "; ".join(claims.broken(self.run_))

    def test_they_hold(self):
        self.assertEqual(claims.broken(self.run_), [])

    def test_flat_by_number(self):
        self.assertIn("domains: epk is flat", self.spoil("domains", "epk", 1.1, domains=4096))

    def test_flat_by_size(self):
        self.assertIn("sizes: epk is flat", self.spoil("sizes", "epk", 1.1, bytes=256 << 20))

    def test_hash_flat(self):
        self.assertIn("hash: epk is flat", self.spoil("hash", "epk", 1.1, domains=7680))

    def test_hash_ahead(self):
        self.assertIn("hash: epk is 10 times ahead of mpk", self.spoil("hash", "mpk", 0.1, domains=64))

    def test_ipc(self):
        self.assertIn("ipc: gate, another EPT is 5 times ahead of pipe", self.spoil("ipc", "pipe", 0.1))

    def test_nginx_domains_alone(self):
        self.assertIn("nginx: epk takes at most 2 % more than none", self.spoil("nginx", "none", 0.9, bytes=1 << 10))

    def test_nginx_least(self):
        self.assertIn("nginx: epk takes less than mpk", self.spoil("nginx", "mpk", 0.5))
        self.assertIn("nginx anew: epk takes less than mprotect", self.spoil("nginx anew", "mprotect", 0.5))
        self.assertIn("nginx anew: epk takes less than mpk", self.spoil("nginx anew", "mpk", 0.5))
        self.assertIn("vdom mysql: epk takes at most", self.spoil("vdom mysql", "epk", 1.1, domains=48))

    def test_vdom(self):
        self.assertIn("vdom mysql: epk takes at most 2.65 % more", self.spoil("vdom mysql", "epk", 1.1))

    def test_sqlite(self):
        self.assertIn("sqlite: epk, gates: insert is 5 times ahead",
                      self.spoil("sqlite", "Unix socket, a message a call: insert", 0.1))

    def test_threads_independent(self):
        self.assertIn("threads: epk: begin, access, end does not grow", self.spoil("threads", "epk: begin, access, end", 1.2, threads=64))

    def test_processes_independent(self):
        self.assertIn("processes: epk: epk_malloc, epk_free does not grow",
                      self.spoil("processes", "epk: epk_malloc, epk_free", 1.2, threads=32))

    def test_not_measured(self):
        self.run_["figures"] = [figure for figure in self.run_["figures"] if figure["case"] != "mpk"]
        self.assertIn("hash: epk and mpk have been measured", "; ".join(claims.broken(self.run_)))


if __name__ == "__main__":
    unittest.main()
