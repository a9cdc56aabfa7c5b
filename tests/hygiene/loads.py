#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""loads.py VERSION TREE: all that loads PKRU or an EPT in a kernel is in loads.list.

It begins with what has an instruction or a word of memory of ROOTS, in TREE, the source of Linux
VERSION, and goes on with the callers of each function that the list says "callers" of.  What
is found and not listed fails, and so does what is listed and not found.
"""

import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parents[1]
sys.path.insert(0, str(TOP / "tests/testbed"))
import testlist     # noqa: E402

LIST = HERE / "loads.list"
FOLDERS = ("arch/x86", "block", "crypto", "drivers", "fs", "include", "init", "io_uring", "ipc",
           "kernel", "lib", "mm", "net", "security", "sound", "virt")
# WRPKRU, XRSTOR, XRSTORS and VMFUNC, by name and by their bytes; what PKRU is loaded from; who
# has PKRU's place among the state that XSAVE and XRSTOR know.  FXRSTOR does not load it.
ROOTS = (r"\bwrpkru\b", r"\bxrstors?(?:64)?\b", r"\bXRSTORS?\b", r'"[^"\n]*\bvmfunc\b',
         r"0x0f *, *0x01 *, *0x(?:ef|d4)\b", r"0x0f *, *0xae *, *0x2f\b", r"0x0f *, *0xc7 *, *0x1f\b",
         r"(?:->|\.)\w*pkru *[|&]?=[^=]", r"\* *\w*pkru *[|&]?=[^=]", r"&[\w>.()-]*[>.]\w*pkru\b",
         r"\bXFEATURE_PKRU\b", r"\binit_pkru_value\b")
ROOT = re.compile("|".join(ROOTS))
STRIP = re.compile(r"/\*.*?\*/|//[^\n]*", re.S)
DEFINE = re.compile(r"#\s*define\s+(\w+)")
VARIABLE = re.compile(r"(\w+)\s*(?:\[[^\]]*\]\s*)*(?:__\w+\s*)*=")
# A function's or an entry's name, of a macro that makes one its argument.
HEAD = re.compile(r"\b(\w+)\s*\(\s*(\w*)")


class ListError(Exception):
    pass


class Entry:
    """A line of the list"""

    def __init__(self, line):
        versions, self.what, self.verdict, rest = (line.split(None, 3) + ["", "", ""])[:4]
        self.versions, self.rest, self.seen = versions.split(","), rest.split(), False
        self.file, _, self.name = self.what.partition(":")
        if self.verdict not in ("callers", "guard", "harmless") or not self.name:
            raise ListError(f"what is {line!r}?")
        if self.verdict == "guard":
            self.check_guard()
        elif self.verdict == "harmless" and not rest:
            raise ListError(f"{self.what}: why?")

    def check_guard(self):
        """FILE:WORD TEST..."""
        guard, *tests = self.rest
        file, _, word = guard.partition(":")
        path = TOP / "guest-kmod" / file
        if not path.is_file() or not re.search(rf"\b{word}\b", path.read_text()):
            raise ListError(f"{self.what}: no such guard: {guard}")
        known = {test.name for test in testlist.read_tests()}
        if not tests or set(tests) - known:
            raise ListError(f"{self.what}: no such test: {' '.join(set(tests) - known)}")


def read_list(version):
    lines = [line for line in LIST.read_text().splitlines() if line and not line.startswith("#")]
    entries = {}
    for entry in map(Entry, lines):
        if entry.what in entries:
            raise ListError(f"{entry.what}: twice")
        if version in entry.versions:
            entries[entry.what] = entry
    return entries


def blank(match):
    return "\n" * match.group().count("\n") or " "


def unit_name(head):
    """What is defined by what stands before its brace, and whether it is static"""
    if "=" in head:
        match = VARIABLE.search(head)
        return match and match.group(1)
    match = next((match for match in HEAD.finditer(head)
                  if match.group(1) not in ("__attribute__", "__printf", "__releases")), None)
    if not match:
        return None
    name, argument = match.groups()
    return argument if name.isupper() or name.startswith("SYSCALL") else name


def units(text):
    """(name, is it static, text) of each definition: kernel style has its end in the first column"""
    head, name, body, static = "", None, "", False
    macro = None
    for line in STRIP.sub(blank, text).splitlines():
        if macro is not None or line.lstrip().startswith("#"):
            macro = line if macro is None else macro + "\n" + line
            if line.endswith("\\"):
                continue
            match = DEFINE.match(macro.lstrip())
            if match:
                yield match.group(1), False, macro[macro.index(match.group(1)) +
                                                   len(match.group(1)):]
            macro = None
        elif name:
            body += line + "\n"
            if line.startswith("}"):
                yield name, static, body
                name, head = None, ""
        else:
            head += line + "\n"
            if "{" in line:
                name = unit_name(head[:head.index("{")])
                static = bool(re.search(r"\bstatic\b", head))
                body = head[head.index("{"):]
                if not name or line.rstrip().rstrip(";").endswith("}"):
                    if name:
                        yield name, static, body
                    name, head = None, ""
            elif line.rstrip().endswith(";"):
                match = VARIABLE.search(head)
                if match:
                    yield match.group(1), bool(re.search(r"\bstatic\b", head)), head[match.end():]
                head = ""


class Source:
    """The units of the files of a tree in which any of some words stand"""

    def __init__(self, tree, words):
        found = subprocess.run(
            ["grep", "-rlE", "--include=*.[chS]", "|".join(
                [rf"\<({'|'.join(sorted(words))})\>", "wrpkru|xrstor|XRSTOR|vmfunc|pkru|PKRU",
                 "0x0f *, *0x(01 *, *0x(ef|d4)|ae *, *0x2f|c7 *, *0x1f)"]),
             *FOLDERS], cwd=tree, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
        self.files = {file: list(units((tree / file).read_text(errors="replace")))
                      for file in sorted(found)}

    def all(self):
        for file, listed in self.files.items():
            for name, static, text in listed:
                yield file, name, static, text

    def callers(self, what):
        file, _, called = what.partition(":")
        word = re.compile(rf"\b{called}\b")
        static = any(name == called and static for name, static, _ in self.files[file])
        for other, name, _, text in self.all():
            if other != file and static and not file.endswith(".h"):
                continue
            if f"{other}:{name}" != what and word.search(text):
                yield f"{other}:{name}"


def check(version, tree):
    entries = read_list(version)
    source = Source(tree, {entry.name for entry in entries.values() if entry.verdict == "callers"})
    # (what, why)
    wanted = [(f"{file}:{name}", ROOT.search(text).group().strip())
              for file, name, _, text in source.all() if ROOT.search(text)]
    failed, new = False, {}
    while wanted:
        what, why = wanted.pop()
        entry = entries.get(what)
        if not entry:
            new.setdefault(what, why)
        elif not entry.seen:
            entry.seen = True
            if entry.verdict == "callers":
                callers = list(source.callers(what))
                wanted += [(caller, f"{entry.name}()") for caller in callers]
                if not callers:
                    failed = True
                    print(f"loads: {version}: nobody calls {what}")
    for what, why in sorted(new.items()):
        print(f"loads: {version}: {what} loads PKRU or an EPT, by {why}: loads.list lacks it")
    for entry in entries.values():
        if not entry.seen:
            failed = True
            print(f"loads: {version}: {entry.what} does so no more, or is gone")
    if not failed and not new:
        print(f"loads: {version}: {len(entries)} that load PKRU or an EPT, all listed")
    return not failed and not new


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        sys.exit(not check(sys.argv[1], pathlib.Path(sys.argv[2])))
    except (ListError, testlist.ListError) as error:
        sys.exit(f"loads: {error}")
