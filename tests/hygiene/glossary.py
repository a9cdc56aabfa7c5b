#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""glossary.py: docs/glossary.md is true: each word is used, each name is in the code, and no word has come back that was given up
where it had a second meaning."""

import pathlib
import re
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
GLOSSARY = "docs/glossary.md"
CODE = ("guest-kmod", "guest-lib", "kvm-patches", "examples", "tests/unit")
# "Windows" and "marked" are the same words as these without their ends.
ENDING = r"(s|es|ed|d|ing)?"

GONE = (
    (r"epk_table_hide|hidden", ("guest-kmod",)),
    (r"struct epk_place|epk_place_ok", ("guest-kmod", "tests/firmware")),
    (r"(epk_)?region|epk_region_\w+", ("guest-kmod", "guest-lib/src/*table*")),
    (r"(epk_)?(un)?mark(ed|s)?", ("guest-kmod", "guest-lib/src/*.S", "guest-lib/src/component*", "guest-lib/src/state_page.h")),
    (r"(epk_copy_|is_|take_|count_)?(un)?marks?(_of)?|marked",
     ("guest-lib/src/*.[ch]", "kvm-patches/host/domain.c", "examples/nginx/provider/sessions.c")),
    (r"ctx->state|enum epk_state", ("guest-kmod",)),
    (r"views?", ("guest-kmod",)),
    (r"vault", ("examples/library",)),
    (r"\w+_place|place_of|struct place|places?\[|place\.c", ("examples/nginx/provider", "examples/nginx/leak", "tests/debug")),
    (r"heap_place|add_place|code_place|place_of|epk_word\.place|WORD_PLACE", ("guest-lib",)),
    (r"guards?", ("examples/nginx/provider", "guest-lib/pkeys")),
    (r"blocks?", ("examples/nginx/provider/decrypt.c", "examples/nginx/provider/heap.c")),
)


def found(pattern, *paths):
    """Whether it stands there, other than here; a hit has to end at a word's end."""
    command = ["git", "grep", "-qiwP", pattern, "--", *paths, f":!{GLOSSARY}", ":!docs/performance.md"]
    return subprocess.run(command, cwd=TOP, check=False).returncode == 0


def rows(text, heading):
    """The cells of the table under a heading, without its head."""
    part = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line.startswith("|")]
    return table[2:]


def name_pattern(name):
    """A file, or a name, which may be a part of one."""
    return rf"[\w]*{re.escape(name)}[\w]*"


def look(text):
    words = rows(text, "Words")
    for word, _, code in words:
        for each in word.split(", "):
            if not found(re.escape(each).replace(r"\ ", r"\s") + ENDING, "docs", *CODE):
                yield f"nobody says {each!r}"
        name = code.strip("`")
        if not found(name_pattern(name), *CODE) and not any(TOP.glob(f"guest-*/**/{name}")):
            yield f"{word}: there is no {name}"
    seen = [word for word, *_ in words]
    yield from (f"{word} stands there twice" for word in sorted(set(seen)) if seen.count(word) > 1)
    for word, paths in GONE:
        if found(word, *paths):
            yield f"{paths[0]} says {word} again, which is another thing's name"
    if len(words) < 20:
        yield "where is the table?"


def main():
    wrong = list(look((TOP / GLOSSARY).read_text(encoding="utf-8")))
    for line in wrong:
        print("glossary: " + line)
    if wrong:
        sys.exit(1)
    print("glossary: all words are used")


main()
