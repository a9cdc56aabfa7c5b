#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The programs in the documents, as files: those of the man pages, of README.md and of docs/tutorial.md.

extract.py FOLDER: FOLDER/NAME.c of each, and FOLDER/programs.h: PROGRAM(NAME, DIES, SHOWN) of all; SHOWN is what the
document says that it prints in the guest, or NULL.
"""
import json
import pathlib
import re
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
PAGES = TOP / "guest-lib/man"
README = TOP / "README.md"
TUTORIAL = TOP / "docs/tutorial.md"
# By what roff writes characters that it would take for its own.
ESCAPES = {r"\e": "\\", r"\-": "-", r"\&": "", r"\(aq": "'", r"\(dq": '"', r"\(ha": "^", r"\(ti": "~"}


class Wrong(Exception):
    """What a document has not, or has wrongly."""


def pages():
    """Of the library and its calls, each once, by whatever names it goes."""
    return sorted(path for path in PAGES.glob("*.3") if not path.is_symlink()) + [PAGES / "epk.7"]


def tool_pages():
    """Of its tools, likewise."""
    return sorted(path for path in PAGES.glob("*.1") if not path.is_symlink())


def plain(line, where):
    """A line of roff between .EX and .EE, as it is shown."""
    if line.startswith((".", "'")):
        raise Wrong(f"{where}: a macro among the lines of the example: {line}")

    def character(found):
        if found[0] not in ESCAPES:
            raise Wrong(f"{where}: what is {found[0]} in an example?")
        return ESCAPES[found[0]]

    return re.sub(r"\\(\(..|.|$)", character, line)


def page_example(path):
    """What a man page shows."""
    section = re.search(r"^\.SH EXAMPLES\n(.*?)(?=^\.SH )", path.read_text(), re.M | re.S)
    if not section:
        raise Wrong(f"{path.name}: no section EXAMPLES")
    examples = re.findall(r"^\.EX\n(.*?)^\.EE$", section[1], re.M | re.S)
    if len(examples) != 1:
        raise Wrong(f"{path.name}: {len(examples)} examples, not one")
    return "".join(plain(line, path.name) + "\n" for line in examples[0].splitlines())


def page_program(path):
    """The program of a man page."""
    text = page_example(path)
    if not re.search(r"^int main\(", text, re.M):
        raise Wrong(f"{path.name}: the example is no whole program")
    if not re.search(rf"\b{path.stem}\b", text):
        raise Wrong(f"{path.name}: the example does without {path.stem}")
    return text


def blocks(path):
    """Of a document in Markdown: the language of each block of code, and its text."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", path.read_text(), re.M | re.S)


def document_programs(path):
    """Of such a document: the programs by name.  Each says in its first line what it is: /* NAME.c: ... */."""
    programs = {}
    for language, text in blocks(path):
        if language != "c":
            continue
        name = re.match(r"/\* (\w+)\.c: .*\*/\n", text)
        if not name:
            raise Wrong(f"{path.name}: what is this program's name? {text.splitlines()[0]}")
        if name[1] in programs:
            raise Wrong(f"{path.name}: two programs have the name {name[1]}")
        programs[name[1]] = text
    if not programs:
        raise Wrong(f"{path.name} has no program")
    return programs


def other_files(path):
    """Of such a document: what is in another language than C, by the name that its first line has."""
    files = {}
    for language, text in blocks(path):
        if language in ("cpp", "python"):
            name = re.match(r"(?://|#) (\w+\.(?:cc|py)): .*\n", text)
            if not name or name[1] in files:
                raise Wrong(f"{path.name}: what is this file's name? {text.splitlines()[0]}")
            files[name[1]] = text
    return files


def typed_in(text):
    """Each command that one types, and what it prints."""
    for part in re.split(r"^\$ ", text, flags=re.M)[1:]:
        yield part.partition("\n")[::2]


def typed(path):
    """Those of such a document."""
    for language, text in blocks(path):
        if language == "console":
            yield from typed_in(text)


def shown_in_guest(path):
    """What the programs print under EPK in the guest, between what the testbed says itself: by name."""
    shown = {}
    for command, lines in typed(path):
        name = re.match(r"make run PROGRAM=\./(\w+) .*BACKEND=epk", command)
        if name:
            shown[name[1]] = lines.removeprefix("...\n").removesuffix("...\n")
    return shown


def dies(text):
    """Whether a program says in its first line that it is to end by a fault."""
    return "SIGSEGV" in text.splitlines()[0]


def every_program():
    """The programs of all documents, by a name for each, and what they print."""
    found, shown = {f"man_{path.stem}": page_program(path) for path in pages()}, {}
    for path in (README, TUTORIAL):
        document = path.stem.lower()
        found.update({f"{document}_{name}": text for name, text in document_programs(path).items()})
        shown.update({f"{document}_{name}": text for name, text in shown_in_guest(path).items()})
    for name in shown:
        if name not in found:
            raise Wrong(f"there is no program {name}")
    return found, shown


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    try:
        programs, shown = every_program()
    except Wrong as wrong:
        sys.exit(f"extract: {wrong}")
    for old in folder.glob("*.c"):
        if old.stem not in programs:
            old.unlink()
    for name, text in programs.items():
        (folder / f"{name}.c").write_text(text)
    lines = [f"PROGRAM({name}, {int(dies(text))}, {json.dumps(shown[name]) if name in shown else 'NULL'})\n"
             for name, text in programs.items()]
    (folder / "programs.h").write_text("".join(lines))


if __name__ == "__main__":
    main()
