# SPDX-License-Identifier: MIT
"""How long tests took when they last passed on this machine, and so how long a run will take."""

import fcntl
import json
import os
import time

from folders import CACHE
from results import say

# Seconds of what has never passed here: the means of a machine of two cores.
GUESS = {"native": 8, "emulated": 5, "alone": 3, "boot": 90, "build": 60}
# Keys of what is no test.
BUILD, BOOT = "build", "boot"
# Between two lines that say how far it is.
TELL_SECONDS = 60


def read():
    """Seconds by key; a key is a native test's name, or Run.key()."""
    try:
        return json.loads((CACHE / "durations.json").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return {}


def record(new):
    """Merge them into the file, which other runs may be writing."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "durations.lock", "w", encoding="ascii") as one:
        fcntl.flock(one, fcntl.LOCK_EX)
        text = json.dumps({**read(), **new}, indent=0, sort_keys=True)
        part = CACHE / "durations.part"
        part.write_text(text, encoding="ascii")
        os.replace(part, CACHE / "durations.json")


def expected(run, known):
    """Seconds of all tests of a run, and of what its machine's boot takes."""
    seconds = sum(known.get(run.key(test.name), GUESS[run.KIND]) for test in run.tests)
    return seconds + (known.get(run.key(BOOT), GUESS["boot"]) if run.KIND != "native" else 0)


class Plan:
    """What a run will do: native tests, one after the other, then machines, and others beside them, some at once."""

    def __init__(self, native, runs, at_once, builds, known=None):
        self.native, self.runs, self.at_once = native, runs, at_once
        self.known = read() if known is None else known
        self.guessed = 0
        # With much or little to build, it is another.
        self.building = self.of(BUILD, "build", 0) if builds else 0
        self.seconds = self.building + sum(self.of(test.name, "native", 1) for test in native)
        workers = [0] * at_once
        # As the pool has it: the next one goes where there is room first.
        for run in runs:
            workers.sort()
            workers[0] += expected(run, self.known)
            self.guessed += sum(run.key(test.name) not in self.known for test in run.tests)
        self.seconds += max(workers)

    def of(self, key, kind, counts):
        if key not in self.known:
            self.guessed += counts
        return self.known.get(key, GUESS[kind])

    def count(self):
        return len(self.native) + sum(len(run.tests) for run in self.runs)

    def lines(self):
        parts = [f"{len(self.native)} native"] if self.native else []
        parts += [f"{len(run.tests)} {run.title()}" for run in self.runs]
        yield f"{self.count()} tests: {', '.join(parts)}"
        yield (f"about {minutes(self.seconds - self.building)}, as when they last passed here" +
               (f", once all is built, which last took {minutes(self.building)}" if self.building else "") +
               (f"; {self.guessed} have not yet, and are guessed at" if self.guessed else ""))


def minutes(seconds):
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


class Progress:
    """How far a run is, which its results tell."""

    def __init__(self, plan, clock=time.monotonic):
        self.total, self.seconds = plan.count(), plan.seconds
        self.done, self.clock = 0, clock
        self.begin = self.told = clock()

    def one_more(self):
        self.done += 1
        now = self.clock()
        if now >= self.told + TELL_SECONDS:
            self.told = now
            left = self.seconds - (now - self.begin)
            say(f"----  {self.done} of {self.total}, " +
                (f"about {minutes(left)} to go" if left > 0 else f"already {minutes(-left)} longer than expected"))
