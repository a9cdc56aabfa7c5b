#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""commands.py [--list]: each command that a document shows is run by a test, or it is said why not.

Who runs which stands in the file "commands", by the words that they begin with; the longest that fits counts, and each line there
is some document's.  What whole blocks are run by is in BLOCKS.  Besides, make has what it is to do, and what begins tests is
asked for its plan, so that its options and the tests' names are right.  --list says what was found.
"""
import pathlib
import re
import shlex
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "tests/testbed"))
import testlist

LIST = TOP / "tests/docs/commands"
DOCUMENTS = [TOP / name for name in subprocess.run(["git", "ls-files", "*.md"], check=True, cwd=TOP, text=True,
                                                   stdout=subprocess.PIPE).stdout.split()]
# Of a document's blocks in a language: which of them the test runs.
BLOCKS = {
    ("README.md", "console"): ("docs-readme", lambda text: not text.startswith("make ")),
    ("docs/tutorial.md", "console"): ("docs-tutorial", lambda text: not text.startswith("make ")),
    ("docs/install.md", "sh"): ("hygiene-install", lambda text: True),
    ("docs/fleet.md", "sh"): ("tool-host", lambda text: "jq" in text),
}
PROGRAMS = re.compile(r"(make|git|apt|dkms|modprobe|systemctl|sysctl|virsh|virt-\w+|udevadm|mokutil|qemu-img|openssl|openstack"
                      r"|bpftrace|perf|gcc|epk-\w+) \S")
BEGINS_TESTS = re.compile(r"(?<!\S)tests/testbed/run\.py[^&;|\n]*")


def is_command(text):
    """Of code in a line of prose."""
    first = text.split(None, 1)[0] if text.strip() else ""
    path = TOP / first
    return bool(PROGRAMS.match(text)) or "/build/" in first and " " in text or (
        re.fullmatch(r"\w[\w/-]+/[\w-]+\.(?:py|sh)", first) is not None and path.is_file()
        and bool(path.stat().st_mode & 0o100))


def found_in(path):
    """(command, who runs it or None if that is for the list to say)"""
    text, name = path.read_text(), str(path.relative_to(TOP))
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S):
        test, runs = BLOCKS.get((name, language), (None, lambda _: False))
        if language == "sh" and runs(block):
            yield block.splitlines()[0], test
        elif language == "sh":
            yield from ((line, None) for line in block.splitlines())
        elif language == "console":
            for line in re.findall(r"^\$ (.*)$", block, re.M):
                yield line, test if runs(line) else None
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    for code in re.findall(r"`([^`\n]+)`", prose):
        if is_command(code):
            yield code, None


def read_list():
    """(test or None, command's first words)"""
    for line in LIST.read_text().splitlines():
        if line and not line.startswith("#"):
            test, words, *why = line.split("\t")
            if (test == "-") != (len(why) == 1 and bool(why[0])):
                sys.exit(f"commands: either a test runs it, or there is a reason: {line}")
            yield (None if test == "-" else test), words


def fits(words, command):
    return command == words or command.startswith(words if words.endswith("/") else words + " ")


def last_line(text):
    return (text.strip().splitlines() or ["it fails"])[-1]


def asked(command, tests):
    """What is wrong with it, without doing it."""
    for name in " ".join(re.findall(r'\bTESTS=(?:"([^"]*)"|(\S+))', command)[0] if "TESTS=" in command else ()).split():
        if not any(testlist.is_named(test, name) for test in tests):
            return f"no such test: {name}"
    if command.startswith("make "):
        told = subprocess.run(["sh", "-c", f"make -n {command[5:].split(' && ')[0]}"], check=False, cwd=TOP, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if told.returncode:
            return last_line(told.stderr)
        begun = BEGINS_TESTS.findall(told.stdout.replace("\\\n", " "))
    else:
        begun = BEGINS_TESTS.findall(command)
    for line in begun:
        planned = subprocess.run([*shlex.split(line), "--plan"], check=False, cwd=TOP, text=True, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.PIPE)
        if planned.returncode:
            return last_line(planned.stderr)
    return None


def main():
    if sys.argv[1:] not in ([], ["--list"]):
        sys.exit(__doc__)
    tests = testlist.read_tests()
    names = {test.name for test in tests}
    rows, used, wrong, seen = list(read_list()), set(), [], set()
    wrong += [f"no such test: {test}" for test, _ in [*rows, *BLOCKS.values()] if test and test not in names]
    for path in DOCUMENTS:
        for text, test in found_in(path):
            command = " ".join(re.sub(r"\s# .*", "", text).split())
            if test is None:
                row = max((row for row in rows if fits(row[1], command)), key=lambda row: len(row[1]), default=None)
                if row is None:
                    wrong.append(f"{path.name}: nobody runs: {command}")
                    continue
                used.add(row)
                test = row[0]
                said = asked(command, tests) if command not in seen and "..." not in command else None
                if said:
                    wrong.append(f"{path.name}: {command}: {said}")
            if sys.argv[1:] and command not in seen:
                print(f"{test or '-'}\t{command}")
            seen.add(command)
    wrong += [f"no document has: {words}" for test, words in rows if (test, words) not in used]
    for line in wrong:
        print(line)
    if wrong or len(seen) < 100:
        sys.exit(f"commands: {len(wrong)} wrong, of {len(seen)}")
    print(f"commands: {len(seen)}, each with who runs it")


if __name__ == "__main__":
    main()
