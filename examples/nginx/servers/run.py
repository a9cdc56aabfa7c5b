#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Run programs with the provider, natively with the backend "none", each in a private machine.

run.py [--write] [NAME...]

A NAME is a recipe, NAME.sh beside this file; by default all.  Then the table in docs/tls.md has to be the
one that comes of it; --write makes it that.  drive.sh says what a recipe is.
"""

import argparse
import concurrent.futures
import os
import pathlib
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parents[2]
PAGE = TOP / "docs" / "tls.md"
BEGIN, END = "<!-- servers/run.py: begin -->\n", "<!-- servers/run.py: end -->\n"
HEAD = "| program | what was done | record keys in domains | besides |\n|---|---|---|---|\n"
# In the order of the table; the longest are not the last.
NAMES = ("nginx", "nginx_system", "haproxy", "apache_event", "apache_prefork", "stunnel", "lighttpd", "dovecot",
         "postgresql", "openvpn", "openssh", "python", "node", "curl", "lost", "setup")
NAMESPACES = ("unshare", "--mount", "--net", "--ipc", "--pid", "--fork", "--kill-child")
SECONDS = 120
AT_ONCE = 4


def own_namespaces():
    """Start again where what is mounted is nobody else's business."""
    if os.environ.get("EPK_SERVERS_INSIDE"):
        return
    tried = subprocess.run([*NAMESPACES, "true"], check=False)
    if tried.returncode:
        sys.exit("these need root, and namespaces of their own")
    os.environ["EPK_SERVERS_INSIDE"] = "1"
    os.execvp("unshare", ["unshare", "--mount", sys.executable, __file__, *sys.argv[1:]])


def make_layer(folder):
    """Debian's programs, the provider and the recipes, on a filesystem that can be laid over this machine's."""
    root = subprocess.run([HERE / "root.sh"], check=True, text=True, stdout=subprocess.PIPE).stdout.strip()
    subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True)
    subprocess.run(["cp", "-a", f"{root}/.", folder], check=True)
    subprocess.run([HERE / "stage.sh", folder], check=True)


def drive(name, layer):
    start = time.monotonic()
    try:
        done = subprocess.run([*NAMESPACES, HERE / "private.sh", layer, "/epk/servers/drive.sh", name],
                              env=dict(os.environ, BACKEND="none", PATIENCE="3", LD_LIBRARY_PATH=""), check=False,
                              text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              # Daemons end their process group.
                              stderr=subprocess.PIPE, timeout=SECONDS, errors="replace", start_new_session=True)
        failed, row, said = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as late:
        failed, row, said = 1, "", f"no end after {SECONDS} s\n{late.stderr}"
    print(f"{'FAIL' if failed else 'pass'}  {name}: {time.monotonic() - start:.0f} s", flush=True)
    if failed:
        print(said, end="", flush=True)
    return not failed, row


def compare(table, write):
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    there, _, after = rest.partition(END)
    if there == table:
        return True
    if write:
        PAGE.write_text(before + BEGIN + table + END + after)
        return True
    print(f"FAIL: {PAGE.name} has another table: run.py --write makes it this:\n{table}", end="")
    return False


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true")
    parser.add_argument("names", nargs="*", metavar="NAME")
    args = parser.parse_args()
    own_namespaces()
    names = args.names or NAMES
    # Other mounts are those of this namespace.
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    with tempfile.TemporaryDirectory() as layer, concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        make_layer(layer)
        results = list(pool.map(lambda name: drive(name, layer), names))
        subprocess.run(["umount", "-l", layer], check=True)
    if not all(passed for passed, _ in results):
        sys.exit(1)
    if not args.names and not compare(HEAD + "".join(row for _, row in results), args.write):
        sys.exit(1)
    print(f"PASS: {len(results)} programs")


if __name__ == "__main__":
    main()
