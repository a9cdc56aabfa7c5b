#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""mutate.py FROM TO: copy the module's sources and put each defect of mutations.list into the copy.

Each takes effect when /sys/module/epk/parameters/mutation has its number.  Prints a line for each:
number, the level that shows it (alone, two, 6.12 or epts), test, what is wrong.
"""

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "testbed"))
import testlist     # noqa: E402

LIST = HERE / "mutations.list"


class ListError(Exception):
    pass


class Mutation:
    def __init__(self, number, file, test, defect):
        self.number, self.file, self.defect = number, file, defect
        *needs, name = test.split(":")
        self.test = next((test for test in testlist.read_tests() if test.name == name), None)
        if not self.test or needs not in ([], ["epts"], ["two"], ["6.12"]):
            raise ListError(f"defect {number}: no such test: {test}")
        alone = {"alone", "lone"} & set(self.test.needs)
        self.level = (needs or (["alone"] if alone else ["epts"]))[0]
        if not alone and self.level != "epts":
            raise ListError(f"defect {number}: {name} wants several EPTs")
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


def read_sources(folder):
    """What the module is built of: texts by their paths."""
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and
             (path.suffix in (".c", ".h", ".sh", ".conf") or path.name in ("Kbuild", "Makefile"))]
    return {str(path): (folder / path).read_text() for path in paths
            if not path.name.endswith(".mod.c")}


def apply(texts, mutation):
    text = texts[mutation.file]
    for lines, new_lines in mutation.changes:
        old, new = "\n".join(lines), "\n".join(new_lines)
        if text.count(old) != 1:
            raise ListError(f"{mutation.file} has {text.count(old)} times what is to be "
                            f"defect {mutation.number}:\n{old}")
        text = text.replace(old, new.replace("DEFECT",
                                             f"unlikely(epk_mutation == {mutation.number})"))
    texts[mutation.file] = text


def main():
    if len(sys.argv) != 3 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    source, target = map(pathlib.Path, sys.argv[1:])
    texts = read_sources(source)
    mutations = read_list()
    for mutation in mutations:
        apply(texts, mutation)
    texts["compat.h"] += "\nextern unsigned int epk_mutation;\n"
    texts["main.c"] += ("\nunsigned int epk_mutation;\n"
                        "module_param_named(mutation, epk_mutation, uint, 0600);\n")
    for name, text in texts.items():
        path = target / name
        # What is as it was need not be built again.
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    for mutation in mutations:
        print(mutation.number, mutation.level, mutation.test.name, mutation.defect)


if __name__ == "__main__":
    try:
        main()
    except (ListError, testlist.ListError) as error:
        sys.exit(str(error))
