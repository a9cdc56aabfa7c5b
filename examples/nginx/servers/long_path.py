# SPDX-License-Identifier: MIT
"""Map code of a file whose path, from some place on, is a line of /proc/PID/maps that names a FIFO:
long_path.py FOLDER FIFO.  Says "opened" if anyone opens that."""

import mmap
import os
import sys
import threading
import time

# Where a path begins in a line, and what a line of a path of PATH_MAX and what is before it has room for.
COLUMN, ROOM = 73, 4096 + 128 - 1
LINE = "00400000-00401000 r-xp 00000000 00:00 1 "

folder, fifo = sys.argv[1:]
os.chdir(folder)
at = COLUMN + len(folder) + 1


def enter(name):
    os.mkdir(name)
    os.chdir(name)


while ROOM - at > 201:
    enter("a" * 100)
    at += 101
enter("a" * (ROOM - at) + LINE)
*above, last = fifo.strip("/").split("/")
for part in above:
    enter(part)
code = os.open(last, os.O_CREAT | os.O_RDWR, 0o755)
os.write(code, bytes(4096))
mapped = mmap.mmap(code, 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)


def wait_for_reader():
    os.open(fifo, os.O_WRONLY)
    print("opened", flush=True)


threading.Thread(target=wait_for_reader, daemon=True).start()
time.sleep(0.2)
print("ready", flush=True)
time.sleep(60)
