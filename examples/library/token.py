#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A token in a domain: it comes from a pipe without ever being an object of Python, and who does not hold it has none of it."""
import os
import threading

import epk

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


def main():
    """Takes it, uses it, and looks at it from outside."""
    reader, writer = os.pipe()
    os.write(writer, WORDS)
    with epk.Domain() as secrets:
        token = secrets.buffer(100)
        with secrets.hold():
            got = token.read_from(reader)
            first = token.read(0, 1)
            outside = said_outside(token)
        print(f"backend {epk.backend()}: {got} bytes, the first is {first.decode()}; outside: {outside}")
        if got != len(WORDS) or first != WORDS[:1] or not isinstance(outside, str):
            raise SystemExit(1)


if __name__ == "__main__":
    main()
