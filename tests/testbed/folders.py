# SPDX-License-Identifier: MIT
"""The folders of runs: one that goes on is locked, and of those that are kept the last few stay."""

import fcntl
import os
import pathlib
import shutil
import tempfile
import time

KEPT = 5
A_DAY = 24 * 3600
CACHE = pathlib.Path(os.environ.get("EPK_CACHE") or pathlib.Path.home() / ".cache" / "epk")


def lock(folder):
    """An open lock, or None: somebody has it."""
    fd = os.open(folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd


def may_go(folder):
    """Not one of a run of before there were locks, until it has surely ended."""
    return folder.is_dir() and ((folder / "lock").exists() or
                                folder.stat().st_mtime < time.time() - A_DAY)


def prune(runs):
    """Remove all that ended but the last ones; those of processes that were killed are among them."""
    for folder in sorted(runs.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)[KEPT:]:
        fd = lock(folder) if may_go(folder) else None
        if fd is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(fd)


def make(prefix):
    """A new folder, and its lock, which holds as long as the process has it open."""
    runs = CACHE / "run"
    runs.mkdir(parents=True, exist_ok=True)
    # One at a time: none is pruned between its birth and its lock.
    with open(CACHE / "run.lock", "w", encoding="ascii") as one:
        fcntl.flock(one, fcntl.LOCK_EX)
        prune(runs)
        folder = pathlib.Path(tempfile.mkdtemp(prefix=prefix, dir=runs))
        return folder, lock(folder)
