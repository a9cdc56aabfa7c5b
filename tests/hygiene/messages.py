#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""messages.py [--list]: each line that module, KVM, library or tools say is in docs/operations.md, and no other.

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
# What the library has of errors and causes, and says of a fault.
LIBRARY = (re.compile(r"\b(?:CAUSE|ERROR)\((?:\w+, )+((?:%s\s*)+)\)" % STRING), re.compile(r'\{ 0, "0", (%s)' % STRING),
           re.compile(r"\bepk_say\(EPK_LEVEL_\w+, ((?:%s\s*)+)\)" % STRING), re.compile(r'add\(&line, ("fault: [^"]*")'))
FAULTS = re.compile(r"^static const char \*reason\w*\(.*?^}", re.M | re.S)
# What tools say before they give up, in C and in shell.
FAILS = re.compile(r"\bfail\(\w+,\s*((?:%s\s*|STATISTICS\s*)+)" % STRING)
DIES = re.compile(r"\b(?:die|warn|refuse|fail) ((?:%s[ \t]*(?:\\\n\s*)?)+)" % STRING)
SCRIPTS = ("kvm-patches/host/modules.sh", "kvm-patches/dkms/prepare.sh", "kvm-patches/kernel-deb.sh", "qemu-configs/microvm.sh",
           "qemu-configs/cloud-init/make-seed.sh", "tests/hardware/check.sh")
VARIABLE = re.compile(r"\$\{[^}]*\}|\$\([^)]*\)|\$[A-Za-z0-9_*@]+")


def line(match):
    """The line that a call logs, as the document has it."""
    text = match.group(1).replace("EPK_DEVICE", '"/dev/epk"').replace("STATISTICS", '"/sys/kernel/debug/kvm"')
    text = "".join(re.findall(STRING, text)).replace(r"\n", "").replace(r"\"", '"').rstrip(" ")
    return re.sub("(?:…)+", "…", re.sub(r"%pR|%[-#0-9.lz]*[a-zA-Z]", "…", text))


def shell_line(match):
    """Likewise, of words of a shell."""
    text = VARIABLE.sub("…", " ".join(re.findall(STRING, match.group(1))))
    return re.sub("(?:…)+", "…", text)


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


def library_lines():
    """Of libepk."""
    for path in sorted((TOP / "guest-lib/src").glob("*.[ch]")):
        source = path.read_text()
        for pattern in LIBRARY:
            yield from (line(match) for match in pattern.finditer(source))
        for reasons in FAULTS.finditer(source):
            yield from re.findall("return %s;" % STRING, reasons[0])


def tool_lines():
    """Of the tools of the host, and of what is called by make."""
    for path in sorted((TOP / "kvm-patches/host").glob("*.c")):
        yield from (line(match) for match in FAILS.finditer(path.read_text()))
    for name in SCRIPTS:
        yield from (shell_line(match) for match in DIES.finditer((TOP / name).read_text()))


def main():
    """Compare."""
    sources = (module_lines(), kvm_lines(), library_lines(), tool_lines())
    logged = {text for lines in sources for text in lines if text.strip("…:; ")}
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
