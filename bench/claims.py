# SPDX-License-Identifier: MIT
"""What the figures have to show: what EPK is for."""
import figures
import model

PLACES = 7680       # domains that have a place at a time
FLAT_FROM = 16      # one more than an EPT has keys for
TWO_EPTS = 30       # with fewer, some begins in turn are in the same EPT as the one before
FLAT_PERCENT = 5
HASH_FROM = 64
HASH_TIMES = 10     # by which "epk" is ahead of "mpk" there
IPC_TIMES = 5       # and gates of what processes have


class Claims:
    """Claims about a run."""

    def __init__(self, run):
        self.found, self.broken = run["figures"], []

    def claim(self, holds, text):
        if not holds:
            self.broken.append(f"claim: {text}")

    def of(self, table, case):
        """Figures of one thread."""
        return [figure for figure in self.found if figure["table"] == table and figure["case"] == case
                and figure.get("threads", 1) == 1]

    def flat(self, table, by, low, high):
        counts = [figure["count"] for figure in self.of(table, "epk") if low <= figure[by] <= high]
        self.claim(len(counts) > 1 and max(counts) <= min(counts) * (1 + FLAT_PERCENT / 100),
                   f"{table}: epk is flat from {low} to {high} {by}: {counts}")

    def ahead(self, table, low, times, other, case="epk"):
        """In instructions or in modelled cycles."""
        pairs = [(mine, theirs) for mine in self.of(table, case) for theirs in self.of(table, other)
                 if mine["domains"] == theirs["domains"] >= low and mine.get("bytes") == theirs.get("bytes")]
        self.claim(bool(pairs), f"{table}: {case} and {other} have been measured")
        for mine, theirs in pairs:
            counts = theirs["count"] / mine["count"]
            cycles = (model.cycles(theirs) or 0) / (model.cycles(mine) or 1)
            self.claim(max(counts, cycles) >= times, f"{table}: {case} is {times} times ahead of {other}, "
                                                     f"{figures.name_of(mine)}: {counts:.1f}, modelled {cycles:.1f}")


def broken(run):
    """Those that do not hold, in words."""
    claims = Claims(run)
    claims.flat("domains", "domains", TWO_EPTS, PLACES)
    claims.flat("sizes", "bytes", 0, 1 << 30)
    claims.flat("hash", "domains", FLAT_FROM, PLACES)
    claims.ahead("hash", HASH_FROM, HASH_TIMES, "mpk")
    claims.ahead("domains", HASH_FROM, HASH_TIMES, "libmpk")
    for other in ("pipe", "Unix socket", "futex and shared memory"):
        claims.ahead("ipc", 1, IPC_TIMES, other, "gate, same EPT")
        claims.ahead("ipc", 1, IPC_TIMES, other, "gate, another EPT")
    return claims.broken
