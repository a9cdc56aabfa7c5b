#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""differences.py [--list] [SERIES-FOLDER]: the series for each Linux are the same but for what kvm-patches/differences says.

Compared are, patch by patch, the message and what is added to and removed from each file, in its order; not the context, which
is Linux's, nor which line of Linux's something stands at.  Each difference is listed once, under the reason for it, with its
place: "@2 LINE" is after the second line of that patch and file in the first series that is LINE, "@0" at the beginning.
--list says for each file how much is the same, and prints the differences in the form of that list.
"""
import collections
import difflib
import pathlib
import re
import sys
import unicodedata

TOP = pathlib.Path(__file__).resolve().parents[2]
ONE, OTHER = "linux-6.1", "linux-6.12"


class Wrong(Exception):
    """What cannot be compared."""


def lines_of(path):
    """What is between newlines; nothing else that could pass for the end of a line, or hide one, is taken."""
    text = path.read_bytes().decode()
    for at, sign in enumerate(text):
        if sign not in "\n\t" and unicodedata.category(sign) in ("Cc", "Cf", "Zl", "Zp"):
            raise Wrong(f"{path}: line {text.count(chr(10), 0, at) + 1} has the character U+{ord(sign):04X}")
    return text.removesuffix("\n").split("\n")


def read(folder):
    """The lines of a series: {(patch, file or "message"): [line]}."""
    found = {}
    patches = [path for path in sorted(folder.glob("[0-9]*.patch")) if not path.name.startswith("0000-")]
    if not patches:
        raise Wrong(f"{folder}: where is the series?")
    for path in patches:
        lines = lines_of(path)
        body = next((at for at, line in enumerate(lines) if line.startswith("diff --git ")), len(lines))
        head = lines[1:body]
        message = head[:head.index("---")] if "---" in head else head
        found[path.stem, "message"] = [line for line in message if not line.startswith("Date: ")]
        file, left = "message", [0, 0]
        for line in lines[body:]:
            hunk = re.match(r"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@", line)
            if max(left) > 0:
                if line.startswith("\\"):
                    continue
                if line[:1] in ("+", "-"):
                    found[path.stem, file].append(line)
                left = [left[0] - (line[:1] != "+"), left[1] - (line[:1] != "-")]
            elif hunk:
                left = [int(number or 1) for number in hunk.groups()]
            elif line.startswith("diff --git "):
                file = line.split(" b/")[1]
                found[path.stem, file] = []
            elif line.startswith(("new file mode ", "deleted ", "rename ", "copy ", "old mode ", "new mode ", "Binary ")):
                found[path.stem, file].append(f"({line})")
    return found


def place(lines, begin):
    """Where something else begins than the first series has: after which line, and how many like it there are until then."""
    return f"@{lines[:begin].count(lines[begin - 1])} {lines[begin - 1]}".rstrip() if begin else "@0"


def compare(one, other):
    """The differences, each as (patch, file, place, (line...)), and how many lines are the same and in which of the two else."""
    differences, counts = [], {}
    for patch, file in sorted(set(one) | set(other)):
        pair = one.get((patch, file), []), other.get((patch, file), [])
        matcher = difflib.SequenceMatcher(None, *pair, autojunk=False)
        same = 0
        for kind, begin, end, to_begin, to_end in matcher.get_opcodes():
            if kind == "equal":
                same += end - begin
                continue
            lines = [f"-{line}" for line in pair[0][begin:end]] + [f"+{line}" for line in pair[1][to_begin:to_end]]
            differences.append((patch[:4], file, place(pair[0], begin), tuple(lines)))
        now = counts.setdefault(file, [0, 0, 0])
        for index, count in enumerate((same, len(pair[0]) - same, len(pair[1]) - same)):
            now[index] += count
    return differences, counts


def parse(text):
    """What a list says: [(patch, file, place, (line...))], and its reasons."""
    listed, reasons, file, after, lines = [], [], None, None, []

    def finish():
        if lines:
            if not file or not reasons or not after:
                raise Wrong(f"differences: of which file, where, and why?  {lines[0]}")
            listed.append((*file, after, tuple(lines)))
            lines.clear()

    for line in text:
        where = re.fullmatch(r"(\d{4}) (\S+)", line)
        if line.startswith(("+", "-")):
            lines.append(line)
            continue
        finish()
        if line.startswith("@"):
            after = line
            continue
        after = None
        if line.startswith("== "):
            reasons.append(line[3:])
            file = None
        elif where:
            file = where.groups()
        elif line and not line.startswith("#"):
            raise Wrong(f"differences: what is this?  {line}")
    finish()
    return listed, reasons


def tell(word, differences):
    for patch, file, after, lines in differences:
        print(f"{word}: {patch} {file}", after, *lines, sep="\n", file=sys.stderr)


def main():
    arguments = sys.argv[1:]
    listing = arguments[:1] == ["--list"]
    folder = pathlib.Path(arguments[listing]) if arguments[listing:] else TOP / "kvm-patches"
    series = [read(folder / name) for name in (ONE, OTHER)]
    patches = [{patch for patch, _ in lines} for lines in series]
    if patches[0] != patches[1]:
        raise Wrong(f"patches of one series alone: {' '.join(sorted(patches[0] ^ patches[1]))}")
    found, counts = compare(*series)
    if listing:
        for file, (same, one, other) in sorted(counts.items()):
            print(f"# {same:5} same, {one:3} {ONE} alone, {other:3} {OTHER} alone: {file}")
        for patch, file, after, lines in found:
            print(f"{patch} {file}", after, *lines, sep="\n")
        return 0
    listed, reasons = parse(lines_of(folder / "differences"))
    unlisted, gone = (collections.Counter(found) - collections.Counter(listed),
                      collections.Counter(listed) - collections.Counter(found))
    tell("not in kvm-patches/differences", unlisted.elements())
    tell("in kvm-patches/differences, and not in the series", gone.elements())
    same, one, other = (sum(count[index] for count in counts.values()) for index in range(3))
    if not unlisted and not gone:
        print(f"differences: {same} lines are the same, {one} and {other} are not: {len(found)} differences, of {len(reasons)} reasons")
    return 1 if unlisted or gone else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Wrong, OSError, UnicodeDecodeError) as error:
        print(error, file=sys.stderr)
        sys.exit(1)
