#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""make.py [--check]: the pictures of this folder.

NAME.svg is made of NAME.dot by graphviz; those of layers are made of the files that say how the module's and the library's
sources lie, which hygiene-layers holds the sources to.

With --check nothing is written, and graphviz not needed: it fails if a picture is not of its source as that is now, or is not
as it was made.
"""

import hashlib
import pathlib
import re
import subprocess
import sys
from xml.sax.saxutils import escape

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parents[1]
LAYERS = {"module-layers": TOP / "guest-kmod/layers", "library-layers": TOP / "guest-lib/src/layers"}
MARK = re.compile(r"<!-- make.py: source ([0-9a-f]{16}), picture ([0-9a-f]{16}) -->\n$")
# Of a file of layers what is none: see tests/hygiene/layers.py.
SETTINGS = "headers", "names"
# Of the pictures of layers, in pixels.
WIDTH, ROW, LINE, LETTERS = 760, 14, 17, 84
COLOURS = "#dce9f7", "#eef3fa"


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def marked(svg, source):
    """With what --check looks at, as the last line."""
    return svg + f"<!-- make.py: source {digest(source)}, picture {digest(svg)} -->\n"


def read_layers(text):
    """(name, files) from top to bottom"""
    layers = []
    for line in text.splitlines():
        for word in line.partition("#")[0].split():
            if word.endswith(":"):
                layers.append((word[:-1], []))
            else:
                layers[-1][1].append(word)
    return [(name, files) for name, files in layers if name not in SETTINGS]


def wrapped(words):
    lines = [""]
    for word in words:
        if len(lines[-1]) + 1 + len(word) > LETTERS:
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + word
    return lines


def draw_layers(text):
    """A bar for each layer, the higher ones above."""
    parts, y = [], 8
    for number, (name, files) in enumerate(read_layers(text)):
        lines = wrapped(files)
        height = ROW + LINE * len(lines)
        parts.append(f'<rect x="8" y="{y}" width="{WIDTH - 16}" height="{height}" rx="3" fill="{COLOURS[number % 2]}" '
                     'stroke="#5a6b80"/>')
        parts.append(f'<text x="20" y="{y + height / 2 + 5:g}" font-weight="bold">{escape(name)}</text>')
        parts += [f'<text x="130" y="{y + 7 + LINE * (at + 1) - 4}">{escape(line)}</text>' for at, line in enumerate(lines)]
        y += height + 4
    y += 16
    parts.append(f'<text x="{WIDTH - 12}" y="{y}" text-anchor="end" fill="#606060">a file uses what is below it, nothing above'
                 '</text>')
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 12}" '
            'font-family="Helvetica,Arial,sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n' +
            "\n".join(parts) + "\n</svg>\n")


def draw_graph(path):
    return subprocess.run(["dot", "-Tsvg", path], check=True, text=True, stdout=subprocess.PIPE).stdout


def check(name, source, picture):
    """What is wrong with a picture, or nothing."""
    if not picture.exists():
        return f"there is no {picture.name}"
    text = picture.read_text(encoding="utf-8")
    found = MARK.search(text)
    if not found:
        return f"{picture.name} does not say what it was made of"
    if found[1] != digest(source):
        return f"{picture.name} is older than what it is made of: docs/pictures/make.py"
    if found[2] != digest(text[:found.start()]):
        return f"{picture.name} is not as it was made: docs/pictures/make.py"
    if name in LAYERS and text != marked(draw_layers(source), source):
        return f"{picture.name} is not what make.py makes of the layers"
    return None


def main():
    sources = {path.stem: path for path in sorted(HERE.glob("*.dot"))} | LAYERS
    wrong = [f"nothing makes {path.name}" for path in HERE.glob("*.svg") if path.stem not in sources]
    for name, path in sources.items():
        source, picture = path.read_text(encoding="utf-8"), HERE / f"{name}.svg"
        if sys.argv[1:] == ["--check"]:
            wrong += filter(None, [check(name, source, picture)])
        elif not sys.argv[1:]:
            svg = draw_layers(source) if name in LAYERS else draw_graph(path)
            picture.write_text(marked(svg, source), encoding="utf-8")
        else:
            sys.exit(__doc__)
    for line in wrong:
        print("pictures: " + line)
    if wrong:
        sys.exit(1)
    print(f"pictures: {len(sources)}")


main()
