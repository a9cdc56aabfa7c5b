#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Programs that nobody here wrote, with keys from libepk-pkeys.so, on this machine's protection keys: what becomes of each is what
the table of docs/pkeys.md says.

programs.py [--print]: prints the table instead of comparing.
"""
import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parents[1]
LIBRARY = TOP / "guest-lib/build"
DOCUMENT = TOP / "docs/pkeys.md"
SECONDS = 40
# The headers that glibc's test includes, of which glibc.h is all.
SUPPORT = ("support/check.h", "support/support.h", "support/test-driver.h", "support/xsignal.h",
           "support/xthread.h", "support/xunistd.h")
ADD = "0,97,115,109,1,0,0,0,1,7,1,96,2,127,127,1,127,3,2,1,0,7,7,1,3,97,100,100,0,0,10,9,1,7,0,32,0,32,1,106,11"
WASM = f"WebAssembly.instantiate(new Uint8Array([{ADD}])).then(m => console.log(m.instance.exports.add(40, 2)))"


class Missing(Exception):
    """What this machine lacks."""


def run(*command, cwd=None, preload=False, settings=()):
    """With keys of the library, or as ever; the exit status, None if it does not end, and what it said."""
    words = [str(word) for word in command]
    if preload:
        words = ["env", f"LD_LIBRARY_PATH={LIBRARY}", f"LD_PRELOAD={LIBRARY}/libepk-pkeys.so", "EPK_BACKEND=mpk",
                 *settings, *words]
    with subprocess.Popen(words, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace") as process:
        try:
            said = process.communicate(timeout=SECONDS)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            return None, process.communicate()[0]
    return process.returncode, said


def wanted(*command, cwd=None):
    """A step without which there is no program."""
    status, said = run(*command, cwd=cwd)
    if status != 0:
        raise Missing(f"{command[0]}: {said[-300:]}")
    return said


def glibc_source(work):
    """glibc's source package of this Debian, by sources of the machine's own mirrors."""
    parts = work / "parts"
    lists = work / "lists/partial"
    parts.mkdir()
    lists.mkdir(parents=True)
    for path in pathlib.Path("/etc/apt/sources.list.d").glob("*.sources"):
        (parts / path.name).write_text(re.sub("(?m)^Types: deb$", "Types: deb-src", path.read_text()))
    options = ("-o", "Dir::Etc::sourcelist=/dev/null", "-o", f"Dir::Etc::sourceparts={parts}", "-o",
               f"Dir::State::lists={lists.parent}")
    wanted("apt-get", "-q", *options, "update")
    wanted("apt-get", "-q", *options, "source", "--download-only", "glibc", cwd=work)
    archive = next(work.glob("glibc_*.orig.tar.xz"))
    wanted("tar", "xf", archive, "--wildcards", "--strip-components=5", "*/sysdeps/unix/sysv/linux/tst-pkey.c", cwd=work)


def glibc(work):
    """Its tst-pkey.c, with its own helpers replaced by ours."""
    glibc_source(work)
    (work / "support").mkdir()
    for name in SUPPORT:
        (work / name).write_text('#include "glibc.h"\n')
    (work / "support/test-driver.c").write_text("")
    wanted("gcc", "-D_GNU_SOURCE", "-O1", "-w", "-pthread", f"-I{work}", f"-I{HERE}", "-o", "tst-pkey",
           "tst-pkey.c", cwd=work)
    plain, _ = run(work / "tst-pkey")
    if plain != 0:
        raise Missing("it fails with the CPU's own keys")
    status, said = run(work / "tst-pkey", preload=True)
    found = re.search(r"^(\d+) checks, 0 wrong$", said, re.M)
    if status is None and found:
        return "all its checks hold; then it waits for the number of a freed key to come again, which none does"
    return "passes" if status == 0 else f"exit status {status}: {said[-200:]}"


def selftest(work):
    """Linux's own."""
    sources = sorted(pathlib.Path.home().glob(".cache/epk/source-6.1*/tools/testing/selftests/vm/protection_keys.c"))
    if not sources:
        raise Missing("no source of Linux in the cache: tests/testbed/kernel.sh")
    wanted("gcc", "-w", "-O2", "-mxsave", f"-I{sources[0].parent}", "-o", "protection_keys", sources[0], "-lm", "-lrt",
           "-ldl", cwd=work)
    status, said = run(work / "protection_keys", preload=True)
    if status == 126 and "has a wrpkru of its own" in said:
        return "refused: it has WRPKRU of its own"
    return f"exit status {status}: {said[-200:]}"


def stress(work):
    """Debian's stress-ng."""
    command = ("stress-ng", "--pkey", "1", "--pkey-ops", "2000", "--verify", "--temp-path", work)
    wanted(*command)
    status, said = run(*command, preload=True)
    return "passes" if status == 0 and "fail" not in said else f"exit status {status}: {said[-200:]}"


def node(work):
    """JavaScript, of which nothing has keys."""
    (work / "loop.js").write_text("let s = 0; for (let i = 0; i < 3e6; i++) s += i % 7; console.log(s);")
    plain = wanted("node", work / "loop.js")
    status, said = run("node", work / "loop.js", preload=True)
    return "runs" if status == 0 and said == plain else f"exit status {status}: {said[-200:]}"


def wasm(work):
    """WebAssembly, whose code V8 keeps in memory with a key."""
    (work / "add.js").write_text(WASM)
    flag = next((word for word in re.findall(r"--[a-z-]*wasm-memory-protection-keys", wanted("node", "--v8-options"))
                 if not word.startswith("--no")), None)
    if not flag:
        raise Missing("this Node knows no keys")
    wanted("node", flag, work / "add.js")
    status, said = run("node", flag, work / "add.js", preload=True)
    if status not in (0, None) and "Commit wasm code space" in said:
        status, said = run("node", "--no-wasm-memory-protection-keys", work / "add.js", preload=True)
        if status == 0 and said == "42\n":
            return "ends: it is executable memory that has the key; without that option runs"
    return f"exit status {status}: {said[-200:]}"


PROGRAMS = (
    ("glibc 2.36, `tst-pkey`", glibc),
    ("Linux 6.1, `protection_keys` selftest", selftest),
    ("stress-ng, `--pkey`", stress),
    ("Node, JavaScript", node),
    ("Node, WebAssembly with V8's keys", wasm),
)


def main():
    """Exit status 77: something cannot be tried here."""
    told = DOCUMENT.read_text()
    failed = False
    wanted("make", "-s", "-C", TOP / "guest-lib", "build/libepk-pkeys.so")
    for name, try_it in PROGRAMS:
        with tempfile.TemporaryDirectory() as folder:
            try:
                row = f"| {name} | {try_it(pathlib.Path(folder))} |"
            except (Missing, FileNotFoundError) as error:
                print(f"{name}: {error}")
                return 77
        print(row)
        if row not in told and "--print" not in sys.argv:
            print(f"{DOCUMENT.name} says something else")
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
