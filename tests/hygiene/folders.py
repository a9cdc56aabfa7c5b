#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""folders.py: no two folders of sources in C include headers of each other, not by way of others either.

Public headers are of what they declare: who includes guest-lib/include/epk.h uses guest-lib/src.
So a library does not use its tools, nor a part its tests.  A name in <> or without a folder may be that of several
headers: it counts as all of them, unless one lies beside the source.
"""

import collections
import os
import pathlib
import re
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]', re.M)
# Whose headers lie in folders of their own.
OWNERS = {"guest-lib/include": "guest-lib/src"}
KINDS = (".c", ".h", ".S", ".cc", ".hpp")


def owner(file):
    """The folder that a source belongs to"""
    folder = str(file.parent)
    if folder.startswith("guest-kmod/include"):
        return "guest-kmod"
    return OWNERS.get(folder, folder)


def resolve(source, quote, name, files, by_name):
    """What such an include may mean, of the tree"""
    if quote == '"':
        beside = pathlib.Path(os.path.normpath(source.parent / name))
        if beside in files:
            return [beside]
    found = [file for file in by_name[pathlib.Path(name).name] if file.match(name)]
    if quote == "<":
        # epk.h is not linux/epk.h.
        found = [file for file in found
                 if str(file).endswith(("include/" + name, "uapi/" + name, "mpk/" + name))]
    return found


def find_arrows(files):
    """folder -> folder -> (source, header), one of those that make it use that"""
    by_name = collections.defaultdict(list)
    for file in files:
        by_name[file.name].append(file)
    arrows = collections.defaultdict(dict)
    for source in sorted(files):
        for quote, name in INCLUDE.findall((TOP / source).read_text(encoding="utf-8")):
            for header in resolve(source, quote, name, files, by_name):
                if owner(header) != owner(source):
                    arrows[owner(source)].setdefault(owner(header), (source, header))
    return arrows


def way(arrows, start, end):
    """The folders from start to end, along arrows, or nothing"""
    ways = collections.deque([[start]])
    seen = {start}
    while ways:
        here = ways.popleft()
        if here[-1] == end:
            return here
        for folder in sorted(arrows.get(here[-1], {}).keys() - seen):
            seen.add(folder)
            ways.append(here + [folder])
    return []


def main():
    """Each circle once"""
    if len(sys.argv) > 1:
        sys.exit(__doc__)
    listed = subprocess.run(["git", "ls-files"], cwd=TOP, check=True, capture_output=True, text=True)
    files = {pathlib.Path(name) for name in listed.stdout.splitlines()
             if name.endswith(KINDS) and (TOP / name).exists()}
    arrows = find_arrows(files)
    if "guest-lib/src" not in arrows["guest-lib/tools"] or "guest-kmod" not in arrows["guest-lib/src"]:
        sys.exit("folders: what do the folders use?")
    circles = {}
    for folder, others in arrows.items():
        for other in others:
            back = way(arrows, other, folder)
            if back:
                circles.setdefault(frozenset(back), [folder, *back])
    for circle in circles.values():
        print("folders: a circle:")
        for folder, other in zip(circle, circle[1:]):
            source, header = arrows[folder][other]
            print(f"folders:   {folder} uses {other}: {source} includes {header}")
    if circles:
        sys.exit(1)
    print(f"folders: {len(files)} sources in {len({owner(file) for file in files})} folders, "
          f"{sum(map(len, arrows.values()))} arrows, no circle")


main()
