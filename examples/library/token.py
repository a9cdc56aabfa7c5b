#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A token in a domain: this end of a pipe has the kernel write it there, and makes no object of Python of it but for
one byte.  Python's own calls refuse it to who does not hold it, whatever the backend; what gets at its address
by other ways, the backend stops: token.py --stray does that, and ends by SIGSEGV.
"""
import ctypes
import os
import signal
import subprocess
import sys
import threading

import epk

# Of who sends it.
WORDS = b"a token that nobody is to see"


def said_outside(token):
    """What a thread gets that holds nothing: in another one, whatever this one holds."""
    said = []

    def look():
        try:
            said.append(token.read(0, 1))
        except epk.Error as error:
            said.append(error.strerror)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return said[0]


def stray():
    """Whether a bug gets at it: in a process of its own, which that ends."""
    ended = subprocess.run([sys.executable, os.path.abspath(__file__), "--stray"], check=False).returncode
    if ended not in (0, -signal.SIGSEGV):
        raise SystemExit(f"token.py --stray ends by {ended}")
    return not ended


def main():
    """Takes it, uses it, and looks at it from outside."""
    if sys.argv[1:] == ["--stray"]:
        token = epk.Domain().buffer(100)
        ctypes.string_at(token.address, 1)
        return
    got_by_stray = stray()
    reader, writer = os.pipe()
    os.write(writer, WORDS)
    with epk.Domain() as secrets:
        token = secrets.buffer(100)
        with secrets.hold():
            got = token.read_from(reader)
            first = token.read(0, 1)
            outside = said_outside(token)
        print(f"backend {epk.backend()}: {got} bytes, the first is {first.decode()}; outside: {outside}; a stray read "
              f"{'goes through' if got_by_stray else 'is refused'}")
        if got != len(WORDS) or first != WORDS[:1] or not isinstance(outside, str) or got_by_stray != (epk.backend() == "none"):
            raise SystemExit(1)


if __name__ == "__main__":
    main()
