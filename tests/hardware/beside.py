#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""beside.py HERE EMULATED: figures of the same benchmarks in two logs of run.py, side by side.

A figure is the first number at the end of a line, after what it is of and two blanks.
"""
import re
import sys

CLOCK = re.compile(r"^\d\d:\d\d:\d\d ")
FIGURE = re.compile(r"^(\S.*?)\s{2,}(\d+(?:\.\d+)?)(?:\s|$)")
HEADING = re.compile(r"^(backend .*|of \d+ domains):?")


def figures(path):
    """What a log has: ((heading, label), number), in its order."""
    heading, found = "", {}
    for line in open(path, encoding="utf-8", errors="replace"):
        line = CLOCK.sub("", line.rstrip("\n"))
        if HEADING.match(line):
            heading = line
        elif match := FIGURE.match(line):
            found.setdefault((heading, match[1]), match[2])
    return found


def main():
    """Print a table; nothing in it is a failure."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    here, emulated = map(figures, sys.argv[1:])
    print(f"{'':50}{'this machine':>14}{'emulated':>14}")
    last = None
    for heading, label in here:
        if heading != last:
            print(heading)
        last = heading
        print(f"{label:50}{here[heading, label]:>14}{emulated.get((heading, label), '-'):>14}")
    if not here:
        print("no figures", file=sys.stderr)
    return 0 if here else 1


if __name__ == "__main__":
    sys.exit(main())
