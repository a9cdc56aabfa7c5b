#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""version.py [--write]: the number in VERSION is that of all parts.

Places that are read by themselves, from where they are installed, have it as well: with --write they get it.  The change logs,
and which symbols a release adds, are for people to write.
"""

import pathlib
import re
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
NUMBER = r"(\d+\.\d+)"
# (files as git names them, what has the number as its only group, how many there have to be in each)
WRITTEN = (
    ("guest-kmod/packaging/dkms.conf", rf'(?m)^PACKAGE_VERSION="{NUMBER}"$', 1),
    ("guest-kmod/packaging/dkms.conf", rf"/usr/src/epk-{NUMBER};", 1),
    ("kvm-patches/dkms/dkms.conf", rf'(?m)^PACKAGE_VERSION="{NUMBER}"$', 1),
    ("guest-lib/include/epk.h", r"(?m)^#define EPK_VERSION_MAJOR (\d+)$", 1),
    ("guest-lib/include/epk.h", r"(?m)^#define EPK_VERSION_MINOR (\d+)$", 1),
    (("guest-lib/man/*.[137]", "examples/nginx/*.[178]", "kvm-patches/host/*.8"), rf'(?m)^\.TH .*"libepk {NUMBER}"', 1),
    ("docs/install.md", rf"epk-kvm/{NUMBER} ", None),
)
CHECKED = (
    ("guest-lib/packaging/debian/changelog", rf"\Alibepk \({NUMBER}-\d+\)", 1),
    ("CHANGES.md", rf"(?s)\A# .*?\n## {NUMBER}\b", 1),
    ("guest-lib/libepk.map", r"(?m)^LIBEPK_(\d+)(?:\.\d+)? \{", None),
)


def files(patterns):
    names = subprocess.run(["git", "ls-files", "--", *([patterns] if isinstance(patterns, str) else patterns)], cwd=TOP,
                           check=True, text=True, stdout=subprocess.PIPE).stdout.split()
    return [TOP / name for name in names]


def part(pattern, version):
    """What of a version stands there: all of it, or one of its numbers."""
    major, minor = version.split(".")
    return major if "MAJOR" in pattern or "LIBEPK_" in pattern else minor if "MINOR" in pattern else version


def look(version, write):
    """What is wrong, line by line."""
    for places, may_write in ((WRITTEN, write), (CHECKED, False)):
        for patterns, pattern, count in places:
            want = part(pattern, version)
            found_files = files(patterns)
            if not found_files:
                yield f"there is no {patterns}"
            for path in found_files:
                text = path.read_text(encoding="utf-8")
                found = list(re.finditer(pattern, text))
                name = path.relative_to(TOP)
                if count and len(found) != count:
                    yield f"{name} says its version {len(found)} times, as {pattern}"
                for match in reversed(found):
                    if match[1] == want:
                        continue
                    if may_write:
                        text = text[:match.start(1)] + want + text[match.end(1):]
                    else:
                        yield f"{name} says {match[1]}, VERSION {version}"
                if may_write:
                    path.write_text(text, encoding="utf-8")


def main():
    if sys.argv[1:] not in ([], ["--write"]):
        sys.exit(__doc__)
    version = (TOP / "VERSION").read_text(encoding="ascii").strip()
    if not re.fullmatch(NUMBER, version):
        sys.exit(f"version: VERSION has {version!r}, which is no MAJOR.MINOR")
    wrong = list(look(version, bool(sys.argv[1:])))
    for line in wrong:
        print("version: " + line)
    if wrong:
        sys.exit(1)
    print(f"version: {version} everywhere")


main()
