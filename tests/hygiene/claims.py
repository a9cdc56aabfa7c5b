#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""claims.py: what docs/security.md says names a test that shows it, or says that it is by reading alone; each test that a
document names is in tests/tests.list; and what is not stopped has not become more."""

import pathlib
import re
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
SECURITY = "docs/security.md"
NAME = re.compile(r"`([a-z0-9]+(?:-[a-z0-9]+)+)`")
UNTESTED = ("by reading", "No test shows it")
# A new row is to take the place of one that has been mended.
NOT_STOPPED = 10


def read_tests():
    """The names of all tests, and the parts of them before a dash, which name several."""
    lines = (TOP / "tests/tests.list").read_text(encoding="utf-8").splitlines()
    names = {line.split()[0] for line in lines if line.strip() and not line.startswith("#")}
    parts = {"-".join(name.split("-")[:n]) for name in names for n in range(2, name.count("-") + 1)}
    return names | parts


def is_shown(text, tests):
    return any(name in tests for name in NAME.findall(text)) or any(words in text for words in UNTESTED)


def tables(text):
    """The tables, each a list of the cells of its rows, its head first."""
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
        table = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in block.splitlines()]
        del table[1]
        yield table


def section(text, heading):
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def points(text):
    """The points of a list, each one line."""
    return [" ".join(point.split()) for point in re.findall(r"^- ((?:.*\n)(?:  .*\n)*)", text, re.M)]


def unshown(text, tests):
    """What security.md says, and no test shows."""
    count = 0
    for table in tables(text):
        for row in table[1:]:
            count += 1
            if not is_shown(row[-1].strip("| "), tests):
                yield f"{SECURITY}: no test of: {' | '.join(row)[:90]}"
    for point in points(section(text, "The host")):
        count += 1
        if not is_shown(point, tests):
            yield f"{SECURITY}: no test of: {point[:90]}"
    if count < 100:
        yield f"{SECURITY}: only {count} claims?"
    left = section(text, "What is not stopped")
    if not left or text.rstrip().rpartition("\n## ")[2].partition("\n")[0] != "What is not stopped":
        yield f"{SECURITY} does not end with what is not stopped"
    rows = sum(len(table) - 1 for table in tables(left))
    if not 0 < rows <= NOT_STOPPED:
        yield f"{SECURITY}: {rows} rows of what is not stopped, not at most {NOT_STOPPED}"


def unknown(path, tests):
    """Names that look like tests' and are none."""
    groups = {name.partition("-")[0] for name in tests}
    for name in NAME.findall(path.read_text(encoding="utf-8")):
        if name.partition("-")[0] in groups and name not in tests:
            yield f"{path.relative_to(TOP)}: there is no test {name}"


def main():
    tests = read_tests()
    wrong = list(unshown((TOP / SECURITY).read_text(encoding="utf-8"), tests))
    for path in (*sorted((TOP / "docs").glob("*.md")), *sorted(TOP.glob("*.md"))):
        wrong += unknown(path, tests)
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
