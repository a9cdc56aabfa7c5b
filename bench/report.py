#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""report.py [--check]: write the tables of docs/performance.md and its plots from bench/results/emulated.json.

What stands between "<!-- bench: WORDS -->" and "<!-- end -->" there is generated; WORDS are
    rows TABLE [PREFIX]    a line for each case (of those whose names begin so)
    grid TABLE BY          a line for each value of BY (domains, bytes, threads), a column for each case
    crossed TABLE          of cases "LINE: COLUMN"
    modelled TABLE BY      the same, of modelled cycles
    threads TABLE          a line for each number of domains and threads, where there are several threads
    calls TABLE            a line for each number of callees and bytes of a message
    counts TABLE           a line for each place where it is measured, a column for each case
    overhead TABLE         the same, of per cent of modelled cycles that a case takes more than its baseline
    events TABLE           of the last number of domains, each size and case with its events and that overhead
    plot TABLE BY          an SVG plot of it, in docs/plots
    machine, model         where the figures come from
No digit may stand elsewhere in the document, but in `code` and in links: no figure is typed by hand.

With --check nothing is written: it fails if something would change.
"""
import re
import subprocess
import sys

import claims
import figures
import model

TOP = figures.HERE.parent
DOCUMENT = TOP / "docs/performance.md"
PLOTS = TOP / "docs/plots"
BLOCK = re.compile(r"(<!-- bench: (.*?) -->\n)(.*?)(<!-- end -->)", re.S)
BY = {"domains": "domains", "bytes": "bytes of a domain", "threads": "at once"}
# What the numbers of such a table are of.
PLACES = {
    "nginx": ("clients", "file"), "nginx anew": ("clients", "file"), "vdom httpd": ("keys", "file"), "vdom mysql": ("threads",),
    "vdom objects": ("objects",), "libmpk openssl": ("keys",), "libmpk jit": ("pages",),
}
UNITS = ((1 << 20, "MiB"), (1 << 10, "KiB"))
GNUPLOT = """set terminal svg size 760,420 font "sans,12" background "white"
set logscale xy
set key outside right
set grid
set xlabel "{label}"
set ylabel "instructions"
{ticks}set style data linespoints
set output "{out}"
plot {curves}
"""


def side_by_side(seconds, at_once=2):
    """How long all take that way, as tests/testbed/run.py has their machines."""
    machines = [0] * at_once
    for each in sorted(seconds, reverse=True):
        machines.sort()
        machines[0] += each
    return max(machines)


class Report:
    """What a run says."""

    def __init__(self, run):
        self.run, self.known = run, figures.by_key(run["figures"])

    def of(self, table):
        found = [figure for figure in self.run["figures"] if figure["table"] == table]
        if not found:
            sys.exit(f"report: there is no table {table}")
        return found

    def machine(self):
        run = self.run
        versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
        seconds = run["seconds"].values()
        later = "".join(f", `{table}` as of `{commit}`" for table, commit in run.get("later", {}).items())
        later = ", and in part later" + later if later else ""
        where = "emulated" if run["emulated"] else "real"
        return (f"Measured as of commit `{run['commit']}`{later}; {where}: {run['cpu']}; {run['kernel']}; "
                f"{versions}. The programs took {sum(seconds) / 60:.0f} minutes of one CPU, with other work "
                f"beside them; two at a time, the longest first, that is {side_by_side(seconds) / 60:.0f} minutes, and a boot for each.\n")

    @staticmethod
    def model():
        lines = ["| event | cycles | source |", "|---|---|---|"]
        lines += [f"| {name} | {number(constant.cycles)} | {constant.source} |" for name, constant in model.CONSTANTS.items()]
        return "\n".join(lines) + f"\n\n{model.LEFT_OUT}\n"

    def rows(self, table, *prefix):
        """Each case with what it is compared with."""
        found = [figure for figure in self.of(table) if figure["case"].startswith(" ".join(prefix))]
        events = [event for event in figures.EVENTS if any(figure.get(event) for figure in found)]
        modelled = any(model.cycles(figure) for figure in found)
        head = ["", "instructions"] + [NAMES[event] for event in events] + ["modelled cycles"] * modelled + ["compared with", "times"]
        lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        for figure in found:
            base = figures.baseline(figure, self.known)
            where = "".join(f", {quantity(figure[name], name)} {name}" for name in figures.WHERE if name in figure)
            cells = [figure["case"] + where, number(figure["count"])]
            cells += [happened(figure, event) for event in events]
            cells += [number(model.cycles(figure))] * modelled
            cells += [base["case"], f"{figure['count'] / base['count']:.2f}"] if base else ["", ""]
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines) + "\n"

    def table(self, table, by, value):
        """Cases in the order of the first point, and what @value says of each at each point."""
        # By one thread, unless there are threads to compare.
        found = [figure for figure in self.of(table) if by == "threads" or figure.get("threads", 1) == 1]
        cases = list(dict.fromkeys(figure["case"] for figure in found))
        points = sorted({figure[by] for figure in found})
        at = {(figure[by], figure["case"]): figure for figure in found}
        return cases, [(point, [value(at.get((point, case))) for case in cases]) for point in points]

    def grid(self, table, by, value=lambda figure: figure and figure.get("count")):
        cases, points = self.table(table, by, value)
        lines = ["| " + " | ".join([BY[by]] + cases) + " |", "|---" * (len(cases) + 1) + "|"]
        for point, values in points:
            lines.append("| " + " | ".join([quantity(point, by)] + [number(value) for value in values]) + " |")
        return "\n".join(lines) + "\n"

    def modelled(self, table, by):
        return self.grid(table, by, lambda figure: figure and model.cycles(figure))

    def by_two(self, found, names, heads):
        """A line for each pair of values of two parameters."""
        cases = list(dict.fromkeys(figure["case"] for figure in found))
        at = {tuple(figure.get(name, 0) for name in names) + (figure["case"],): figure.get("count") for figure in found}
        lines = ["| " + " | ".join(heads + cases) + " |", "|---" * (len(cases) + 2) + "|"]
        for place in sorted({key[:2] for key in at}):
            values = [number(at.get(place + (case,))) for case in cases]
            lines.append("| " + " | ".join([quantity(*pair) for pair in zip(place, names)] + values) + " |")
        return "\n".join(lines) + "\n"

    def threads(self, table):
        found = self.of(table)
        several = {figure["domains"] for figure in found if figure.get("threads", 1) > 1}
        return self.by_two([figure for figure in found if figure["domains"] in several], ("domains", "threads"),
                           ["domains", "threads"])

    def calls(self, table):
        return self.by_two(self.of(table), ("domains", "bytes"), ["callees", "bytes of the message"])

    def places(self, table, value, skip=()):
        """A line for each place, and what @value says of each case there."""
        found = [figure for figure in self.of(table) if figure["case"] not in skip]
        names = ("domains", "bytes")[:len(PLACES[table])]
        cases = list(dict.fromkeys(figure["case"] for figure in found))
        at = {tuple(figure[name] for name in names) + (figure["case"],): figure for figure in found}
        lines = ["| " + " | ".join(PLACES[table] + tuple(cases)) + " |", "|---" * (len(names) + len(cases)) + "|"]
        for place in sorted({key[:-1] for key in at}):
            values = [value(at.get(place + (case,))) for case in cases]
            lines.append("| " + " | ".join([quantity(*pair) for pair in zip(place, names)] + values) + " |")
        return "\n".join(lines) + "\n"

    def counts(self, table):
        return self.places(table, lambda figure: number(figure and figure.get("count")))

    def more(self, figure):
        """How much more than its baseline, in words."""
        percent = figure and model.percent_more(figure, figures.baseline(figure, self.known))
        return "–" if percent is None else f"{percent:+.1f} %"

    def overhead(self, table):
        return self.places(table, self.more, {figure["case"] for figure in self.of(table) if figure["baseline"] == "-"})

    def aim(self, table):
        """Whether what "epk" takes more is what the evaluation wants, and where it is not."""
        judged = [figure for figure in self.of(table) if figure["case"] == "epk" and figure["bytes"] >= claims.AIM_BYTES and
                  figure["domains"] >= claims.AIM_CLIENTS]
        more = [model.percent_more(figure, figures.baseline(figure, self.known)) for figure in judged]
        if not judged or None in more:
            sys.exit(f"report: table {table} does not tell whether the aim is met")
        over = [figure for figure, percent in zip(judged, more) if round(percent, 1) > claims.AIM_PERCENT]
        places = [f"with {figure['domains']} clients and {quantity(figure['bytes'], 'bytes')} ({self.more(figure)})" for figure in over]
        return (f"The evaluation's aim is at most {claims.AIM_PERCENT} % with {claims.AIM_CLIENTS} clients, from files of "
                f"{quantity(claims.AIM_BYTES, 'bytes')} on. " +
                (f"**It is missed** {', '.join(places)}.\n" if places else "It is met.\n"))

    def events(self, table):
        last = max(figure["domains"] for figure in self.of(table))
        found = [figure for figure in self.of(table) if figure["domains"] == last]
        found.sort(key=lambda figure: figure["bytes"])
        events = [event for event in figures.EVENTS if any(figure.get(event) for figure in found)]
        head = [PLACES[table][1], "", "instructions"] + [NAMES[event] for event in events] + ["modelled cycles", "more than unprotected"]
        lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        for figure in found:
            cells = [quantity(figure["bytes"], "bytes"), figure["case"]]
            if figure.get("impossible"):
                cells += [figure["impossible"]] + [""] * (len(head) - 3)
            else:
                cells += [number(figure["count"])] + [happened(figure, event) for event in events] + [number(model.cycles(figure))]
                cells += [self.more(figure) if figure["baseline"] != "-" else ""]
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines) + "\n"

    def crossed(self, table):
        """How much less or more than the baseline it is stands there, too."""
        lines, columns, cells = {}, {}, {}
        for figure in self.of(table):
            line, _, column = figure["case"].rpartition(": ")
            lines[line] = columns[column] = None
            base = figures.baseline(figure, self.known)
            cells[line, column] = number(figure.get("count"))
            if base and "count" in figure:
                cells[line, column] += f" ({figure['count'] / base['count']:.2f})"
        text = ["| " + " | ".join([""] + list(columns)) + " |", "|---" * (len(columns) + 1) + "|"]
        text += ["| " + " | ".join([line] + [cells.get((line, column), "–") for column in columns]) + " |" for line in lines]
        return "\n".join(text) + "\n"

    def plot(self, table, by):
        """Its script, and the line that shows it."""
        cases, points = self.table(table, by, lambda figure: figure and figure.get("count"))
        out = PLOTS / f"{table}-{by}.svg"
        data, curves = "", []
        for i, case in enumerate(cases):
            drawn = [(point, values[i]) for point, values in points if values[i]]
            data += f"$case{i} << END\n" + "".join(f"{point} {value}\n" for point, value in drawn) + "END\n"
            curves.append(f'$case{i} using 1:2 title "{case}"')
        ticks = ", ".join(f'"{quantity(point, by)}" {point}' for point, _ in points)
        script = data + GNUPLOT.format(label=BY[by], ticks=f"set xtics ({ticks})\n" if by == "bytes" else "", out="{out}",
                                       curves=", ".join(curves))
        self.plots[out] = script
        return f"![{table} by {by}: instructions](plots/{out.name})\n"

    def document(self, text):
        """The document anew, and the scripts of its plots."""
        self.plots = {}

        def block(match):
            what, *words = match[2].split()
            if what not in ("rows", "grid", "modelled", "plot", "threads", "calls", "crossed", "machine", "model", "counts", "overhead",
                            "events", "aim"):
                sys.exit(f"report: what is {match[2]}?")
            # The name of a table may have two words.
            if len(words) > 1 and " ".join(words[:2]) in {figure["table"] for figure in self.run["figures"]}:
                words[:2] = [" ".join(words[:2])]
            return match[1] + getattr(self, what)(*words) + match[4]

        return BLOCK.sub(block, text), self.plots


NAMES = {"wrpkru": "WRPKRU", "vmfunc": "VMFUNC", "syscalls": "system calls", "flushes": "of these, such as flush the TLB",
         "exits": "VM exits", "faults": "page faults"}


REASONS = {"hypercalls": "hypercalls", "links": "tables linked", "domain_faults": "domain faults", "refused": "refused"}


def happened(figure, event):
    """How often an event did, and if it is a VM exit, why."""
    text = number(figure.get(event, 0))
    why = [f"{number(figure[name])} {REASONS[name]}" for name in figures.REASONS if figure.get(name)]
    return f"{text} ({', '.join(why)})" if event == "exits" and why else text


def number(value):
    """As it stands in a table."""
    if value is None:
        return "–"
    value = round(value, 1 if value < 100 else 0)
    return f"{value:,.0f}" if value == round(value) else f"{value:,}"


def quantity(value, what):
    if what == "bytes":
        for size, unit in UNITS:
            if value >= size:
                return f"{value // size:,} {unit}"
    return f"{value:,}"


def draw(script, out):
    return subprocess.run(["gnuplot"], input=script.replace("{out}", str(out)), check=True, text=True).returncode


def typed(text):
    """Lines of the document that have a figure which nothing has generated."""
    rest = BLOCK.sub(r"\2", text)
    rest = re.sub(r"<!--.*?-->|`[^`]*`|\]\([^)]*\)", "", rest, flags=re.S)
    return [line for line in rest.splitlines() if re.search(r"\d", line)]


def stale(out, script):
    """Whether a plot is another than the script makes."""
    new = PLOTS / ".new.svg"
    draw(script, new)
    same = out.exists() and out.read_text() == new.read_text()
    new.unlink()
    return not same


def main():
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        sys.exit(__doc__)
    run = figures.read()
    text = DOCUMENT.read_text()
    wrong = figures.problems(run["figures"])
    wrong += claims.broken(run)
    wrong += [f"a figure that is typed by hand: {line}" for line in typed(text)]
    new, plots = Report(run).document(text)
    PLOTS.mkdir(exist_ok=True)
    if check:
        wrong += ["docs/performance.md is not what bench/results say: make bench-report"] * (new != text)
        wrong += [f"{out.relative_to(TOP)} is not: make bench-report" for out, script in plots.items() if stale(out, script)]
        wrong += [f"{path.relative_to(TOP)} is in no block" for path in PLOTS.glob("*.svg") if path not in plots]
    for line in wrong:
        print(f"report: {line}")
    if wrong:
        sys.exit(1)
    if not check:
        DOCUMENT.write_text(new)
        for out, script in plots.items():
            draw(script, out)
    print(f"report: {len(run['figures'])} figures, {len(plots)} plots")


if __name__ == "__main__":
    main()
