# SPDX-License-Identifier: MIT
"""The lists of tests and of allowed skips."""

import collections
import pathlib
import re

TOP = pathlib.Path(__file__).resolve().parents[2]
TESTS = TOP / "tests" / "tests.list"
SKIPS = TOP / "tests" / "skips.list"

# What the list's head explains is all that a test may need.
NEED = re.compile(r"#\t([a-z-]+)\t+\S")
HEADING = re.compile(r"# == (?P<title>[^:]+): (?P<prefixes>[a-z0-9 -]+)$")

Test = collections.namedtuple("Test", "name level cpus timeout needs command")


class ListError(Exception):
    pass


def lines(path):
    for number, line in enumerate(path.read_text().splitlines(), 1):
        line = line.split("#")[0].strip()
        if line:
            yield f"{path.name}:{number}", line


def check_groups(path):
    """Each line lies under the heading that has the longest prefix of its name."""
    heading, owners, places = None, {}, {}
    for line in path.read_text().splitlines():
        found = HEADING.match(line)
        if found:
            heading = found["title"]
            for prefix in found["prefixes"].split():
                if owners.setdefault(prefix, heading) != heading:
                    raise ListError(f"{path.name}: {prefix} is a prefix of two groups")
        elif line and not line.startswith("#"):
            places[line.split()[0]] = heading
    for name, place in places.items():
        parts = name.split("-")
        prefixes = ("-".join(parts[:count]) for count in range(len(parts), 0, -1))
        right = next((owners[prefix] for prefix in prefixes if prefix in owners), None)
        if place != right:
            raise ListError(f"{path.name}: {name} belongs under {right!r}")


def read_tests(path=TESTS):
    """All tests, in the order of the list."""
    tests = []
    explained = set(NEED.findall(TESTS.read_text().partition("# command:")[0]))
    check_groups(path)
    for where, line in lines(path):
        fields = line.split(None, 5)
        if len(fields) != 6:
            raise ListError(f"{where}: want 6 columns")
        name, level, cpus, timeout, needs, command = fields
        if not re.fullmatch(r"[a-z0-9-]+", name):
            raise ListError(f"{where}: bad name {name}")
        if level not in ("native", "host", "guest"):
            raise ListError(f"{where}: bad level {level}")
        sets = {"-": (), "1": (1,), "2": (2,), "both": (1, 2)}
        if cpus not in sets or (level == "native") != (cpus == "-"):
            raise ListError(f"{where}: bad number of CPUs {cpus}")
        if not timeout.isdigit() or int(timeout) == 0:
            raise ListError(f"{where}: bad timeout {timeout}")
        needs = set() if needs == "-" else set(needs.split(","))
        if needs - explained:
            raise ListError(f"{where}: unknown need {needs - explained}")
        if "uni" in needs and ("alone" not in needs or cpus != "both"):
            raise ListError(f"{where}: uni without alone and both")
        if "spared" in needs and ("alone" not in needs or {"uni", "core"} & needs):
            raise ListError(f"{where}: spared without alone, or but for one CPU")
        if "core" in needs and level == "native" or "slow" in needs and level != "native":
            raise ListError(f"{where}: native tests are slow, others core, or neither")
        if "quiet" in needs and level != "native":
            raise ListError(f"{where}: only native tests are quiet")
        if any(test.name == name for test in tests):
            raise ListError(f"{where}: {name} stands there twice")
        tests.append(Test(name, level, sets[cpus], int(timeout), needs, command))
    return tests


def read_skips(path=SKIPS):
    """The allowed skips: a set of (name, reason)."""
    return {tuple(line.split(None, 1)) for _, line in lines(path)}


def is_named(test, name):
    return test.name == name or test.name.startswith(name + "-")
