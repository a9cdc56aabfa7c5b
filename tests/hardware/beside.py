#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""beside.py FILE: the figures that a machine has put into FILE (run.py --figures), beside those of bench/results.

A benchmark that is not in FILE as a whole is named, and the exit status is 1.
"""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench"))
import figures  # noqa: E402

# What bench/results has of a stock KVM, which is not loaded here.
NOT_HERE = "KVM"


def number(figure):
    """What a column has of it"""
    if figure is None:
        return "-"
    return f"{figure['count']:,.1f}" if "impossible" not in figure else "impossible"


def main():
    """Print a table; that a number is large is no failure, that it is missing is."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    path = pathlib.Path(sys.argv[1])
    here = figures.parse(path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else [])
    emulated = figures.by_key(figures.read()["figures"])
    print(f"{'':70}{'this machine':>16}{'emulated':>16}")
    for figure in here:
        print(f"{figures.name_of(figure):70}{number(figure):>16}{number(emulated.get(figures.key(figure))):>16}")
    missing = {key[0] for key in emulated} - {figure["table"] for figure in here} - {NOT_HERE}
    for table in sorted(missing):
        print(f"not measured here: {table}")
    return 1 if missing or not here else 0


if __name__ == "__main__":
    sys.exit(main())
