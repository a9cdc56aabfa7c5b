#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""mutate.py FROM TO: copy the module's sources and put each defect of mutations.list into the copy.

Each takes effect when /sys/module/epk/parameters/mutation has its number.
"""

import pathlib
import shutil
import sys

HERE = pathlib.Path(__file__).resolve().parent
LIST = HERE / "mutations.list"


class ListError(Exception):
    pass


class Mutation:
    def __init__(self, number, file, test, defect):
        self.number, self.file, self.test, self.defect = number, file, test, defect
        # Pairs: lines that stand there, lines that take their place.
        self.changes = []

    def old(self, line):
        if not self.changes or self.changes[-1][1]:
            self.changes.append(([], []))
        self.changes[-1][0].append(line)

    def new(self, line):
        self.changes[-1][1].append(line)


def read_list(path=LIST):
    """The defects, numbered in the order of the list from 1."""
    mutations = []
    for line in path.read_text().splitlines():
        if line.startswith("@"):
            file, test, defect = line[1:].split(None, 2)
            mutations.append(Mutation(len(mutations) + 1, file, test, defect))
        elif line.startswith("-"):
            mutations[-1].old(line[1:])
        elif line.startswith("+"):
            mutations[-1].new(line[1:])
        elif line and not line.startswith("#"):
            raise ListError(f"{path.name}: what is {line!r}?")
    return mutations


def apply(folder, mutation):
    path = folder / mutation.file
    text = path.read_text()
    for lines, new_lines in mutation.changes:
        old, new = "\n".join(lines), "\n".join(new_lines)
        if text.count(old) != 1:
            raise ListError(f"{mutation.file} has {text.count(old)} times what is to be "
                            f"defect {mutation.number}:\n{old}")
        text = text.replace(old, new.replace("DEFECT",
                                             f"unlikely(epk_mutation == {mutation.number})"))
    path.write_text(text)


def main():
    if len(sys.argv) != 3 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    source, target = map(pathlib.Path, sys.argv[1:])
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.o", "*.ko", "*.mod*", ".*"))
    mutations = read_list()
    for mutation in mutations:
        apply(target, mutation)
    header = target / "compat.h"
    header.write_text(header.read_text() + "\nextern unsigned int epk_mutation;\n")
    main_c = target / "main.c"
    main_c.write_text(main_c.read_text() + "\nunsigned int epk_mutation;\n"
                      "module_param_named(mutation, epk_mutation, uint, 0600);\n")
    for mutation in mutations:
        print(mutation.number, mutation.test, mutation.defect)


if __name__ == "__main__":
    try:
        main()
    except ListError as error:
        sys.exit(str(error))
