#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the documents show works: on this machine, with the library as it is installed.

check.py man: each page of a call, and epk(7), has a program, which builds as a user builds one, and succeeds; each of a tool
has commands, which print what it says; and fits a terminal.
check.py readme, check.py tutorial: so do the programs of that document; what it has one type prints what it says.
"""
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

import extract

BACKENDS = ("none", "mprotect")
COLUMNS = 80
SECONDS = 30


class Installed:
    """The library, where nobody else's is, and programs that use it."""

    def __init__(self, folder):
        self.work = folder / "work"
        self.work.mkdir()
        prefix = folder / "usr"
        subprocess.run(["make", "-s", "-C", extract.TOP / "guest-lib", "install", f"PREFIX={prefix}"], check=True,
                       stdout=subprocess.DEVNULL)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("EPK_")}
        self.environment.update(PKG_CONFIG_PATH=f"{prefix}/lib/pkgconfig", LD_LIBRARY_PATH=f"{prefix}/lib", LC_ALL="C",
                                PATH=f"{prefix}/bin:{os.environ['PATH']}")
        packages = [str(folder) for folder in prefix.glob("lib/python*/dist-packages")]
        self.environment["PYTHONPATH"] = ":".join(packages)
        flags = self.run("pkg-config --cflags --libs libepk")
        if flags.returncode:
            raise extract.Wrong(f"pkg-config: {flags.stdout}")
        self.flags = shlex.split(flags.stdout)

    def run(self, command, backend=None):
        """A line of the shell."""
        environment = dict(self.environment, **({"EPK_BACKEND": backend} if backend else {}))
        return subprocess.run(["bash", "-c", command], check=False, cwd=self.work, env=environment, text=True,
                              errors="replace", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=SECONDS)

    def build(self, name, text):
        """Says what is wrong."""
        (self.work / f"{name}.c").write_text(text)
        done = subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-Wl,-z,now", "-o", name, f"{name}.c",
                               *self.flags],
                              check=False, cwd=self.work, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return f"{name} does not build: {done.stdout}" if done.returncode else None

    def wrong(self, name, text):
        """What is wrong with a program."""
        said = self.build(name, text)
        if said:
            return [said]
        found = []
        for backend in BACKENDS:
            done = self.run(f"exec ./{name}", backend)
            fault = extract.dies(text) and backend != "none"
            if done.returncode != (-11 if fault else 0):
                found.append(f"{name}, {backend}: exit status {done.returncode}: {done.stdout}")
        return found


def wide(path):
    """The lines of a page that do not fit a terminal."""
    shown = subprocess.run(["mandoc", "-T", "utf8", path], check=True, text=True, stdout=subprocess.PIPE).stdout
    lines = re.sub(".\x08", "", shown).splitlines()
    return [f"{path.name}: {len(line)} columns: {line.strip()}" for line in lines if len(line) > COLUMNS]


def check_man(library):
    """All pages."""
    found = []
    for path in extract.pages():
        try:
            found += library.wrong(path.stem, extract.page_program(path))
        except extract.Wrong as wrong:
            found.append(str(wrong))
    for path in extract.tool_pages():
        try:
            commands = list(extract.typed_in(extract.page_example(path)))
            found += [] if commands else [f"{path.name}: nothing is typed"]
            found += check_typed(library, commands)
        except extract.Wrong as wrong:
            found.append(str(wrong))
    path = extract.PAGES / "epk-scan.1"
    said = library.run("epk-scan $(pkg-config --variable=libdir libepk)/libepk.so.1").stdout
    functions = set(re.findall(r"\((\w+)\+0x", said))
    found += [f"{path.name} does not name {name}" for name in sorted(functions) if f" {name}" not in path.read_text()]
    found += [] if functions else [f"epk-scan finds nothing in the library: {said}"]
    every = [path for folder in ("guest-lib/man", "kvm-patches/host", "examples/nginx")
             for path in sorted((extract.TOP / folder).glob("*.[1378]")) if not path.is_symlink()]
    for path in every:
        found += wide(path)
        if re.search(r"^Parameters:\n(?!\.TP)", path.read_text(), re.M):
            found.append(f"{path.name}: names no parameter")
    return found


def like(shown):
    """A pattern of what is printed, in which dots stand for what differs each time."""
    return ".*".join(re.escape(part) for part in shown.split("..."))


def check_typed(library, commands):
    """What is printed is what the document says."""
    found = []
    for command, shown in commands:
        # documents_test sees in the guest what that prints.
        if command.startswith("make "):
            continue
        done = library.run(command)
        said = done.stdout
        if done.returncode in (-11, 139):
            said += "Segmentation fault\n"
        elif done.returncode:
            said += f"exit status {done.returncode}\n"
        if not re.fullmatch(like(shown), said, re.S):
            found.append(f"$ {command}\nprints:\n{said}and not:\n{shown}")
    return found


def check_document(library, path):
    """A document in Markdown."""
    found = []
    for name, text in extract.document_programs(path).items():
        found += library.wrong(name, text)
        (library.work / name).unlink(missing_ok=True)
    for name, text in extract.other_files(path).items():
        (library.work / name).write_text(text)
    found += check_typed(library, extract.typed(path)) + dangling(path)
    return found


def dangling(path):
    """What a document names that is not there: files, pages, headings, what make is to do."""
    text, found = path.read_text(), []
    headings = {"#" + re.sub(r"[^\w -]", "", line).strip().lower().replace(" ", "-")
                for line in re.findall(r"^#+ (.*)$", text, re.M)}
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if not (link in headings if link.startswith("#") else (path.parent / link).exists()):
            found.append(f"{path.name}: a link to {link}, which is not there")
    for page, section in re.findall(r"`((?:epk|EPK|domain|alloc|free)[\w-]*)\(([137])\)`", text):
        if not (extract.PAGES / f"{page}.{section}").exists():
            found.append(f"{path.name}: there is no page {page}({section})")
    for name in re.findall(r"`(examples/[\w/.-]+)`", text):
        if not (extract.TOP / name).exists():
            found.append(f"{path.name}: there is no {name}")
    for target in re.findall(r"^(?:\$ )?make (?!-)(\w[\w-]*)", text, re.M):
        if subprocess.run(["make", "-n", target], check=False, cwd=extract.TOP, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL).returncode:
            found.append(f"{path.name}: there is no make {target}")
    return found


def unnamed(path):
    """The short examples that README.md does not name."""
    return [f"{path.name} does not name {example.name}" for example in sorted((extract.TOP / "examples/library").iterdir())
            if example.suffix in (".c", ".py") and f"`{example.name}`" not in path.read_text()]


def main():
    if sys.argv[1:] not in (["man"], ["readme"], ["tutorial"]):
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        library = Installed(pathlib.Path(folder))
        try:
            if sys.argv[1] == "man":
                found = check_man(library)
            else:
                found = check_document(library, extract.README if sys.argv[1] == "readme" else extract.TUTORIAL)
                found += unnamed(extract.README) if sys.argv[1] == "readme" else []
        except extract.Wrong as wrong:
            found = [str(wrong)]
    for what in found:
        print(what)
    if found:
        sys.exit(1)
    print(f"{sys.argv[1]}: all passed")


if __name__ == "__main__":
    main()
