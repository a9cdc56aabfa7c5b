#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""messages.py [--list]: each line that the module or KVM logs is in docs/operations.md, and no other.

There what varies in a line is written as an ellipsis, and a line stands alone in the first column of a table.
"""
import pathlib
import re
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
DOCUMENT = TOP / "docs/operations.md"
STRING = r'"((?:[^"\\]|\\.)*)"'
PRINTS = re.compile(r"\bpr_(?:err|warn|notice|info)(?:_ratelimited|_once)?\(\s*((?:%s\s*|EPK_DEVICE\s*)+)" % STRING)
# What epk_choose() writes, for room.c to print.
CHOICES = re.compile(r"snprintf\(why, EPK_WHY_BYTES,\s*((?:%s\s*)+)" % STRING)


def line(match):
    """The line that a call logs, as the document has it."""
    text = match.group(1).replace("EPK_DEVICE", '"/dev/epk"')
    text = "".join(re.findall(STRING, text)).replace(r"\n", "")
    return re.sub("(?:…)+", "…", re.sub(r"%pR|%[-#0-9.lz]*[a-zA-Z]", "…", text))


def module_lines():
    """Of the guest's module."""
    for path in sorted((TOP / "guest-kmod").glob("*.c")):
        source = path.read_text()
        for pattern in (PRINTS, CHOICES):
            yield from (line(match) for match in pattern.finditer(source))


def kvm_lines():
    """Of the series: what it adds."""
    for path in sorted((TOP / "kvm-patches").glob("linux-*/*.patch")):
        added = "\n".join(text[1:] for text in path.read_text().splitlines()
                          if text.startswith("+") and not text.startswith("+++"))
        yield from (line(match) for match in PRINTS.finditer(added))


def main():
    """Compare."""
    logged = {text for text in (*module_lines(), *kvm_lines()) if text.strip("…")}
    if sys.argv[1:] == ["--list"]:
        print(*sorted(logged), sep="\n")
        return 0
    explained = set(re.findall(r"^\| `([^`]*)` \|", DOCUMENT.read_text(), re.M))
    messages = {text for text in explained if " " in text}
    for text in sorted(logged - messages):
        print(f"not in docs/operations.md: {text}", file=sys.stderr)
    for text in sorted(messages - logged):
        print(f"in docs/operations.md, and nobody logs it: {text}", file=sys.stderr)
    return 1 if logged != messages else 0


if __name__ == "__main__":
    sys.exit(main())
