#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""matrix_test.py: docs/firmware.md as matrix.py --table writes it, where nothing and where one cell has been run."""

import pathlib
import tempfile
import unittest

import matrix

DOCUMENT = matrix.TOP / "docs/firmware.md"


def cells():
    return [matrix.Cell(machine, bits, gib, extra) for machine in matrix.MACHINES for bits in matrix.WIDTHS
            for gib in matrix.MEMORY for extra in matrix.WITH]


class Table(unittest.TestCase):
    def written(self, all_cells, text):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "table.md"
            if text is not None:
                path.write_text(text)
            matrix.write_table(path, all_cells)
            return path.read_text()

    def test_nothing_is_run(self):
        self.assertEqual(self.written(cells(), DOCUMENT.read_text()), DOCUMENT.read_text())

    def test_one_is_run(self):
        for name, column, why in (("q35-ovmf 39 64 BAR", 0, "windows of 1 GiB for 7 EPTs: the largest hole is here"),
                                  ("microvm 46 6 ", 2, "")):
            all_cells = cells()
            cell = next(cell for cell in all_cells if cell.name == name)
            cell.epts, cell.slots, cell.why = 7 if why else 512, 3, why
            before = DOCUMENT.read_text().splitlines()
            after = self.written(all_cells, DOCUMENT.read_text()).splitlines()
            changed = [(old, new) for old, new in zip(before, after) if old != new]
            self.assertEqual(len(before), len(after))
            self.assertEqual(len(changed), 2 if why else 1)
            row = [new.split(" | ")[2 + column] for _, new in changed if new.startswith("|")]
            self.assertEqual(row, [f"{cell.epts} × 3"])
            self.assertEqual([new for _, new in changed if new.startswith("-")],
                             ["- 64 GiB, 39 bits, BAR: the largest hole is here."] if why else [])

    def test_no_table_yet(self):
        lines = self.written(cells(), None).splitlines()
        self.assertIn("**microvm**", lines)
        self.assertTrue(any("not run" in line for line in lines))


if __name__ == "__main__":
    unittest.main()
