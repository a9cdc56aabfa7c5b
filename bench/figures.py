# SPDX-License-Identifier: MIT
"""Figures of benchmarks: read from what they print, kept as JSON, compared with another run.

A figure is a dict as bench/figure.h prints it.  Its baseline is the row of the same table that it names,
with as many domains, bytes and threads, or else with none of these given.
"""
import json
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
COMMITTED = HERE / "results" / "emulated.json"

PERCENT = 3         # by which a count may differ from another run's
LEAST = 0.1         # what it may differ by in any case: figures are rounded
EVENTS = ("wrpkru", "vmfunc", "syscalls", "flushes", "exits", "faults")
REASONS = ("hypercalls", "links", "domain_faults", "refused")       # of exits
WHERE = ("domains", "bytes", "threads")


def parse(lines):
    """The figures among the lines of a benchmark's output."""
    return [json.loads(line) for line in lines if line.startswith('{"table"')]


def key(figure):
    return (figure["table"], figure["case"]) + tuple(figure.get(name, 0) for name in WHERE)


def name_of(figure):
    where = [f"{figure[name]} {name}" for name in WHERE if name in figure]
    return f"{figure['table']}: {figure['case']}" + (f" ({', '.join(where)})" if where else "")


def by_key(figures):
    return {key(figure): figure for figure in figures}


def baseline(figure, known):
    """The figure that this one is to be compared with; None if it is there for others."""
    if figure["baseline"] == "-":
        return None
    exact = (figure["table"], figure["baseline"]) + key(figure)[2:]
    return known.get(exact) or known[exact[:2] + (0,) * len(WHERE)]


def problems(figures):
    """What makes a set of figures useless, in words."""
    known, found = by_key(figures), []
    if not figures:
        return ["no figures"]
    if len(known) != len(figures):
        found.append("a figure stands there twice")
    for figure in figures:
        if not figure.get("impossible") and not figure.get("count", 0) > 0:
            found.append(f"{name_of(figure)}: measured as {figure.get('count')}")
        try:
            base = baseline(figure, known)
        except KeyError:
            found.append(f"{name_of(figure)}: its baseline, {figure['baseline']}, has not been measured")
            continue
        if base and base.get("impossible"):
            found.append(f"{name_of(figure)}: its baseline, {figure['baseline']}, is impossible")
    return found


def differs(new, old):
    """In what a figure is another than in the committed run; nothing if it is not."""
    if new.get("impossible") != old.get("impossible"):
        return f"{new.get('impossible', 'possible')}, was {old.get('impossible', 'possible')}"
    if "impossible" in new:
        return ""
    percent = old.get("within", PERCENT)
    if abs(new["count"] - old["count"]) > max(LEAST, old["count"] * percent / 100):
        # Of a document that is no longer true it does not matter in which way.
        better = " less, which is better: make bench" if new["count"] < old["count"] else ""
        return f"{new['count']:,}, was {old['count']:,}: over {percent} %{better}"
    for event in EVENTS + REASONS:
        # The kernel has a page come again now and then; as a part of each step the count would show it.
        few = 0.1 if event == "faults" else 0.01
        slack = max(old.get("loose", 0), few + old.get(event, 0) * PERCENT / 100)
        if abs(new.get(event, 0) - old.get(event, 0)) > slack:
            return f"{new.get(event, 0)} {event}, was {old.get(event, 0)}"
    return ""


def compare(figures, committed, whole=False):
    """What differs, in words; with @whole, also what the committed ones have besides."""
    known, found = by_key(committed), problems(figures)
    for figure in figures:
        old = known.get(key(figure))
        if not old:
            found.append(f"{name_of(figure)}: bench/results has no such figure: make bench")
        elif why := differs(figure, old):
            found.append(f"{name_of(figure)}: {why}")
    if whole:
        now = by_key(figures)
        found += [f"{name_of(old)}: not measured" for old in committed if key(old) not in now]
    return found


def merged(new, old, parts):
    """@old with what has been measured anew: whole tables, or with @parts, as of quick tests, single figures."""
    if not parts:
        tables = {figure["table"] for figure in new}
        return new + [figure for figure in old if figure["table"] not in tables]
    now = by_key(new)
    return [now.pop(key(figure), figure) for figure in old] + list(now.values())


def partly(head, committed, tables):
    """The header of a file in which only @tables are as of @head: all others stay what they were."""
    if "commit" not in committed:
        return head
    later = {**committed.get("later", {}), **{table: head["commit"] for table in tables}}
    return {**head, "commit": committed["commit"], "later": dict(sorted(later.items()))}


def read(path=COMMITTED):
    return json.loads(path.read_text())


def write(path, header, figures):
    """One figure a line, so that a change shows which, and the tables in their order."""
    path.parent.mkdir(exist_ok=True)
    tables = sorted({figure["table"] for figure in figures})
    lines = ",\n".join("  " + json.dumps(figure) for table in tables for figure in figures if figure["table"] == table)
    head = json.dumps(header, indent=1).removesuffix("\n}")
    path.write_text(f'{head},\n "figures": [\n{lines}\n ]\n}}\n')
