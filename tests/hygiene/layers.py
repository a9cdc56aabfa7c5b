#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""layers.py LIST...: files lie in layers, and use what lies below them only.

A LIST names the layers of the folder that it lies in, from top to bottom, and of each its files: a
file may use what those behind it define, in its own layer and below.  So there is no circle.

Of the lines "headers:" and "names:" the first has the folder whose headers declare what is defined
here, besides those that lie here; the second how each name begins that other files can see.

Read are the sources themselves, so that each branch of #if counts and nothing has to be built.
What an inline function or a macro of a header uses, its user does.  What is not understood fails,
and so does a name that a header declares and no file defines.
"""

import pathlib
import re
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
TOKEN = re.compile(r"""
    (?P<space>[ \t\r\f\v]+|\\\n|//[^\n]*|/\*.*?\*/) |
    (?P<newline>\n) |
    (?P<string>"(?:\\.|[^"\\\n])*") |
    (?P<char>'(?:\\.|[^'\\\n])*') |
    (?P<name>[A-Za-z_]\w*) |
    (?P<number>\.?\d(?:[eEpP][+-]|[\w.])*) |
    (?P<mark>->|\.\.\.|\#\#|.)
""", re.X | re.S)
NAME = re.compile(r"[A-Za-z_]\w*")
OPEN, CLOSE = ("(", "[", "{"), (")", "]", "}")
ASM = ("asm", "__asm__")
# In the text of asm, where a file defines a function of that name.
INSTRUCTIONS = ("syscall",)
TAGS = ("struct", "union", "enum")
# Before or behind what is declared, with or without brackets.
ATTRIBUTES = ("__attribute__", "__ro_after_init")
# In the place of a name: whoever uses a tracepoint uses the file that makes them.
TRACEPOINTS = "CREATE_TRACE_POINTS"


class Wrong(Exception):
    """What cannot be understood, or is not as it has to be"""


class Token:
    """A word of a source"""

    def __init__(self, kind, text, line):
        self.kind, self.text, self.line = kind, text, line


def tokenize(text):
    """(what is no directive, the directives)"""
    code, directives, current, line, start = [], [], None, 1, True
    for match in TOKEN.finditer(text):
        kind, word = match.lastgroup, match.group()
        if kind == "newline":
            current, start = None, True
        elif kind != "space":
            if word == "#" and start:
                current = []
                directives.append(current)
            else:
                (code if current is None else current).append(Token(kind, word, line))
            start = False
        line += word.count("\n")
    return code, directives


def used_names(tokens):
    """The names, but for those of members and tags; also those in the text of asm"""
    asm = False
    depth = 0
    for before, token in zip([None] + tokens, tokens):
        if token.text in ASM:
            asm, depth = True, 0
        elif asm and token.text in OPEN:
            depth += 1
        elif asm and token.text in CLOSE:
            depth -= 1
            asm = depth > 0
        if token.kind == "name" and not (before and before.text in (".", "->", *TAGS)):
            yield token.text, token.line
        elif token.kind == "string" and asm:
            for name in NAME.findall(token.text):
                if name not in INSTRUCTIONS:
                    yield name, token.line


def name_before(head, mark):
    """The name that stands before such a mark, outside of brackets"""
    for name, after in zip(head, head[1:]):
        if after.text == mark and name.kind == "name":
            return name.text
    return None


def without_attributes(head):
    """What is in brackets is one token."""
    return [token for before, token in zip([None] + head, head)
            if token.text not in ATTRIBUTES and
            not (token.text == "(" and before and before.text in ATTRIBUTES)]


def is_alias(tokens):
    """Does an attribute say that it is another name of something?"""
    return any(token.text == "alias" and after.text == "(" and name.kind == "string"
               for token, after, name in zip(tokens, tokens[1:], tokens[2:]))


def is_function(head):
    """Is the brace that ends this that of a function?"""
    head = without_attributes(head)
    return name_before(head, "(") is not None and all(token.text != "=" for token in head)


class Source:
    """What one file defines, declares and uses"""

    def __init__(self, path):
        self.path, self.name, self.header = path, path.name, path.suffix == ".h"
        self.defines = {}       # name -> line
        self.made = {}          # likewise, by macros
        self.declares = {}
        self.own = set()        # static
        self.inlines = {}       # in a header: name -> names that it uses
        self.uses = []          # (name, line, where)
        text = path.read_text(encoding="utf-8")
        code, directives = tokenize(text)
        for tokens in directives:
            self.directive(tokens)
        if path.suffix == ".S" or (self.header and re.search(r"^\s*\.\w", text, re.M)):
            self.assembly(text, code)
        else:
            for head, tokens in self.items(code):
                self.item(head, tokens)

    def wrong(self, line, what):
        """Ends it"""
        raise Wrong(f"{self.path.relative_to(TOP)}:{line}: {what}")

    def add(self, where, tokens):
        """What such a function, or something else, uses"""
        if self.header:
            self.inlines.setdefault(where, set()).update(name for name, _ in used_names(tokens))
        else:
            self.uses += [(name, line, where) for name, line in used_names(tokens)]

    def directive(self, tokens):
        """A line that begins with #"""
        words = [token.text for token in tokens]
        if "##" in words:
            self.wrong(tokens[0].line, "## makes names that are not seen here")
        if words[:1] == ["define"]:
            if words[1] == TRACEPOINTS:
                self.defines[TRACEPOINTS] = tokens[1].line
            self.add(words[1], tokens[2:])
        elif words[:1] == ["include"] and tokens[1].kind == "string":
            file = words[1].strip('"')
            if not file.endswith(".h"):
                self.wrong(tokens[1].line, "what is included is no header")
            # Of assembly, in which it is more than macros.
            self.uses.append((file, tokens[1].line, self.name))

    def assembly(self, text, code):
        """A macro may make a name global that it is given, but none of several parts."""
        macro, arguments, makers = None, [], {}
        text = re.sub(r"/\*.*?\*/", lambda match: "\n" * match.group().count("\n"), text,
                      flags=re.S)
        for number, line in enumerate(text.splitlines(), 1):
            if re.search(r"(?<![%.\w])\w+\\\w|\\\w+\\", line):
                self.wrong(number, "names are made that are not seen here")
            words = re.findall(r"[\\.]?\w+", line)
            if words[:1] == [".macro"]:
                macro, arguments = words[1], words[2:]
            elif words[:1] == [".globl"]:
                for name in words[1:]:
                    if name.startswith("\\"):
                        makers[macro] = arguments.index(name[1:])
                    else:
                        self.defines[name] = number
            elif words and words[0] in makers:
                self.defines[words[1 + makers[words[0]]]] = number
        where, lines = self.name, {}
        for before, token in zip([None] + code, code):
            if before and before.text == "macro":
                where = token.text
            lines.setdefault((token.line, where), []).append(token)
            if before and before.text == "." and token.text == "endm":
                where = self.name
        for (_, where), tokens in lines.items():
            self.add(where, tokens)

    def bracket_end(self, tokens, start):
        """Behind the bracket that closes the one at the start"""
        depth = 0
        for at in range(start, len(tokens)):
            depth += tokens[at].text in OPEN
            depth -= tokens[at].text in CLOSE
            if not depth:
                return at + 1
        return self.wrong(tokens[start].line, "a bracket is not closed")

    def items(self, tokens):
        """The declarations: (the tokens outside of brackets, all tokens)"""
        words = [token.text for token in tokens]
        for at in range(len(words) - 2):
            if words[at:at + 3] == ["extern", '"C"', "{"]:
                end = self.bracket_end(tokens, at + 2)
                tokens = tokens[:at] + tokens[at + 3:end - 1] + tokens[end:]
                break
        head, first, at = [], 0, 0
        while at < len(tokens):
            token = tokens[at]
            head.append(token)
            body = False
            if token.text in CLOSE:
                self.wrong(token.line, "a bracket is closed that is not open")
            elif token.text in OPEN:
                at = self.bracket_end(tokens, at)
                body = token.text == "{" and is_function(head)
            else:
                at += 1
            if token.text == ";" or body:
                yield head, tokens[first:at]
                head, first = [], at
        if head:
            self.wrong(head[0].line, "a declaration does not end")

    def item(self, head, tokens):
        """One of them"""
        line, body = head[0].line, head[-1].text == "{"
        head = without_attributes(head)
        words = [token.text for token in head]
        if words[0] in ASM:
            for token in tokens:
                for name in re.findall(r"\.globl\s+(\w+)", token.text):
                    self.defines[name] = token.line
            return
        if words[0] == "TRACE_EVENT":
            self.inlines["trace_" + tokens[2].text] = {TRACEPOINTS}
            return
        call = name_before(head, "(")
        name = call or name_before(head, "=") or name_before(head, "[") or name_before(head, ";")
        # Another name of what is defined is defined, too.
        value = body or "=" in words or is_alias(tokens)
        if name is None or "typedef" in words:
            if value or not ({"typedef", *TAGS} & set(words)):
                self.wrong(line, "what is this?")
            return
        if value or not self.header:
            self.add(name, tokens)
        if {"static", "inline"} & set(words):
            self.own.add(name)
        elif value and self.header:
            self.wrong(line, f"{name} is defined in a header")
        elif value:
            self.defines[name] = line
        elif words[0] == call:
            # A macro.
            last = [token.text for token in tokens if token.kind == "name"][-1]
            if call.startswith("DECLARE_"):
                self.declares[last] = line
            elif call.startswith("DEFINE_"):
                self.made[last] = line
        elif call or "extern" in words:
            if "((" in "".join(words):
                self.wrong(line, "what is this?")
            self.declares[name] = line
        elif not (words[0] in TAGS and len(words) == 3):
            self.defines[name] = line


SETTINGS = ("headers", "names")


def read_list(path):
    """(the layers by their files, from top to bottom; what is set)"""
    layers, layer, settings = {}, None, {name: [] for name in SETTINGS}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words = line.partition("#")[0].split()
        if words and words[0].endswith(":"):
            layer = words.pop(0)[:-1]
        if layer in SETTINGS:
            settings[layer] += words
            continue
        for file in words:
            if file in layers or layer is None:
                raise Wrong(f"{path.relative_to(TOP)}:{number}: {file} has a layer already, "
                            "or the layer has no name")
            layers[file] = layer
    return layers, settings


def read_sources(path, layers, settings):
    """(files, headers) of a list's folder; each file is in the list"""
    folder = path.parent
    found = {file.name: file for file in sorted(folder.glob("*.[cS]"))
             if not file.name.endswith(".mod.c")}
    for name in sorted(found.keys() ^ layers.keys()):
        raise Wrong(f"{path.relative_to(TOP)}: " +
                    (f"{name} has no layer" if name in found else f"there is no {name}"))
    headers = [*folder.glob("*.h"), *(header for other in settings["headers"]
                                      for header in folder.glob(f"{other}/*.h"))]
    return ([Source(found[name]) for name in layers], [Source(header) for header in headers])


def find_homes(files, headers):
    """The file that defines each name"""
    declared = {name: source for source in files + headers for name in source.declares}
    homes = {}
    for file in files:
        made = [name for name in file.made if name in declared]
        for name in [*file.defines, *made]:
            if name == "main":
                continue
            if name in homes:
                raise Wrong(f"{name} is defined in {homes[name]} and in {file.name}")
            homes[name] = file.name
    for header in headers:
        # Assembly, which is its one user's.
        users = [file.name for file in files if header.name in (name for name, *_ in file.uses)]
        for name, line in header.defines.items():
            if len(users) != 1 or name in homes:
                header.wrong(line, f"whose is {name}?")
            homes[name] = users[0]
    for name, source in declared.items():
        # The system's begin with an underscore.
        if name not in homes and not name.startswith("_"):
            source.wrong(source.declares[name], f"nobody defines {name}")
    return homes


def find_arrows(files, headers):
    """(file, line, where, name, what of a header it comes by, the file that defines it)"""
    homes = find_homes(files, headers)
    inlines = {}
    for header in headers:
        for name, uses in header.inlines.items():
            inlines.setdefault(name, set()).update(uses)
    for file in files:
        for used, line, where in file.uses:
            todo, seen = [used], set(file.own)
            while todo:
                name = todo.pop()
                if name in seen:
                    continue
                seen.add(name)
                todo += inlines.get(name, ())
                if homes.get(name, file.name) != file.name:
                    yield file, line, where, name, used, homes[name]


def misnamed(files, starts):
    """What other files can see, and does not begin as it has to: as in find_arrows()"""
    for file in files:
        for name, line in file.defines.items():
            if starts and name not in file.own and not name.startswith(tuple(starts)):
                yield str(file.path.relative_to(TOP)), line, f"{name} does not begin with {starts[0]}"


def check(path):
    """False if a file of a list's folder uses what is above it, or has a name that does not begin as it has to"""
    layers, settings = read_list(path)
    files, headers = read_sources(path, layers, settings)
    order = list(layers)
    arrows = set()
    bad = set(misnamed(files, settings["names"]))
    for file, line, where, name, used, home in find_arrows(files, headers):
        arrows.add((file.name, home))
        if order.index(home) > order.index(file.name):
            continue
        by = "" if name == used else f" by {used}"
        if layers[home] != layers[file.name]:
            why = f"{layers[file.name]} does not use {layers[home]}"
        else:
            why = f"stands before {file.name}"
        bad.add((str(file.path.relative_to(TOP)), line,
                 f"{where} uses {name}{by}, of {home}: {why}"))
    if len(arrows) < len(files) / 2:
        raise Wrong(f"{path.relative_to(TOP)}: what do its files use?")
    for file, line, what in sorted(bad):
        print(f"layers: {file}:{line}: {what}")
    if not bad:
        print(f"layers: {path.parent.relative_to(TOP)}: {len(files)} files in "
              f"{len(set(layers.values()))} layers, {len(arrows)} arrows, none upwards")
    return not bad


def main():
    """All of the lists"""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        sys.exit(len(sys.argv) < 2)
    try:
        results = [check(pathlib.Path(path).resolve()) for path in sys.argv[1:]]
    except (Wrong, OSError) as error:
        sys.exit(f"layers: {error}")
    if not results or not all(results):
        sys.exit(1)


main()
