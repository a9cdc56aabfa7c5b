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
NGINX_PERCENT = 2   # that "epk" takes more at most, in modelled cycles, than the same provider with no domain closed
AIM_PERCENT = 2     # than without protection, from files of so many bytes on: whether it is so is in the document
AIM_BYTES = 16 << 10
AIM_CLIENTS = 300   # and with as many clients as the paper has
VDOM_PERCENT = 2.65  # what VDom's httpd and MySQL take more at most
SQLITE_TIMES = 5    # and SQLite with gates of SQLite with a server
SCALE_PERCENT = 10  # by which one of many may take more than one alone


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

    def independent(self, table):
        """However many there are, each takes what one alone does."""
        for case in {figure["case"] for figure in self.found if figure["table"] == table and figure["case"].startswith("epk")}:
            counts = {figure["threads"]: figure["count"] for figure in self.found
                      if figure["table"] == table and figure["case"] == case}
            self.claim(len(counts) > 1 and max(counts.values()) <= counts[1] * (1 + SCALE_PERCENT / 100),
                       f"{table}: {case} does not grow: {counts}")

    def ahead(self, table, low, times, other, case="epk"):
        """In instructions or in modelled cycles."""
        pairs = [(mine, theirs) for mine in self.of(table, case) for theirs in self.of(table, other)
                 if mine.get("domains", 0) == theirs.get("domains", 0) >= low and mine.get("bytes") == theirs.get("bytes")]
        self.claim(bool(pairs), f"{table}: {case} and {other} have been measured")
        for mine, theirs in pairs:
            counts = theirs["count"] / mine["count"]
            cycles = (model.cycles(theirs) or 0) / (model.cycles(mine) or 1)
            self.claim(max(counts, cycles) >= times, f"{table}: {case} is {times} times ahead of {other}, "
                                                     f"{figures.name_of(mine)}: {counts:.1f}, modelled {cycles:.1f}")

    def at_most(self, table, case, percent, least=0, base=None, most=PLACES):
        """More than @base, or else its baseline, in modelled cycles, with files of @least bytes and more, and @most domains."""
        known = figures.by_key(self.found)
        mine = [figure for figure in self.of(table, case)
                if figure.get("bytes", 0) >= least and figure.get("domains", 0) <= most]
        self.claim(bool(mine), f"{table}: {case} has been measured")
        for figure in mine:
            theirs = known.get((table, base) + figures.key(figure)[2:]) if base else figures.baseline(figure, known)
            more = model.percent_more(figure, theirs)
            self.claim(more is not None and more <= percent,
                       f"{table}: {case} takes at most {percent} % more than {base or figure['baseline']}, "
                       f"{figures.name_of(figure)}: {more}")

    def least_of(self, table, case, others, fewest=0):
        """In modelled cycles, wherever one of the others is possible, with @fewest domains or more."""
        for other in others:
            self.claim(bool(self.of(table, other)), f"{table}: {other} has been measured")
            theirs = {figures.key(figure)[2:]: model.cycles(figure) for figure in self.of(table, other)}
            for figure in self.of(table, case):
                if figure.get("domains", fewest) < fewest:
                    continue
                cycles = theirs.get(figures.key(figure)[2:])
                self.claim(cycles is None or (model.cycles(figure) or cycles) < cycles,
                           f"{table}: {case} takes less than {other}, {figures.name_of(figure)}")


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
    # What the provider itself takes is more: docs/performance.md.
    claims.at_most("nginx", "epk", NGINX_PERCENT, 0, "none")
    claims.least_of("nginx", "epk", ("mpk", "mprotect"))
    claims.least_of("nginx anew", "epk", ("mprotect",))
    claims.least_of("nginx anew", "epk", ("mpk",), AIM_CLIENTS)
    claims.at_most("vdom httpd", "epk", VDOM_PERCENT)
    claims.at_most("vdom mysql", "epk", VDOM_PERCENT)
    for operation in ("insert", "select", "update", "delete"):
        for gates in ("epk, gates", "epk, gates across EPTs"):
            claims.ahead("sqlite", 0, SQLITE_TIMES, f"Unix socket, a message a call: {operation}", f"{gates}: {operation}")
    claims.independent("threads")
    claims.independent("processes")
    return claims.broken
