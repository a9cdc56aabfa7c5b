# SPDX-License-Identifier: MIT
"""What became of tests, and how people and machines are told."""

import errno
import re
import time
import xml.etree.ElementTree as xml

# Lines of a failed test that say what failed: of the tests' own checks, cmocka's, Python's, shell's.
TELLING = re.compile(r"(?<!\b0 )failed\b|FAILED  \]|ERROR   \]|LINE   \]|^not ok|Error\b|: error|^fail ")
MOST_TELLING = 12
MOST_OUTPUT = 40

# Numbers that may be error numbers: as a C program prints them, and as cmocka does.
NEGATIVE = re.compile(r"(?<![\w.])-(\d{1,3})(?![\w.:])")
UNSIGNED = re.compile(r"\b0xffffff(?:ffffffff)?([0-9a-f]{2})\b")


# Told of each result: durations.Progress, or nobody.
progress = None


def say(text):
    print(time.strftime("%H:%M:%S"), text, flush=True)


class Result:
    """Of one test in one run; @again is the command that repeats it, @logs what kernels said by port."""

    def __init__(self, name, outcome, detail="", output=(), seconds=0.0, again="", logs=None):
        self.name, self.outcome, self.detail = name, outcome, detail
        self.output, self.seconds, self.again = output, seconds, again
        self.logs = logs or {}

    def text(self):
        """All that is known of a failure."""
        return [*self.output, *self.ends_of_logs(), *([f"again: {self.again}"] if self.again else [])]

    def ends_of_logs(self):
        for port, lines in self.logs.items():
            if lines:
                yield f"{port} since about when it began:"
                yield from ("  " + line for line in lines)


def judge(name, rc, output, skips):
    """What an exit status other than 0 means."""
    reason = output[-1].strip() if output else ""
    if rc == 77 and (name, reason) in skips:
        return Result(name, "skip", reason)
    if rc == 77:
        return Result(name, "fail", f"skip that tests/skips.list lacks: {reason}")
    return Result(name, "fail", f"exit status {rc}", output)


def with_names(line):
    """A line of a failed check, in which error numbers have their names."""
    def name(number, text):
        known = errno.errorcode.get(number)
        return f"{text} ({known})" if known else text

    line = NEGATIVE.sub(lambda found: name(int(found[1]), found[0]), line)
    return UNSIGNED.sub(lambda found: name(256 - int(found[1], 16), found[0]), line)


def telling(output):
    """The lines of a failed test that say what failed; its last ones where none does."""
    lines = list(dict.fromkeys(line.strip() for line in output if TELLING.search(line)))
    return [with_names(line) for line in lines[:MOST_TELLING] or output[-3:]]


def shortened(result):
    """With no more of its output than fits a screen."""
    return Result(result.name, result.outcome, result.detail, result.output[-MOST_OUTPUT:], again=result.again,
                  logs=result.logs)


def report(result, tell):
    """At once."""
    tell(f"{result.outcome}  {result.name}  {result.seconds:.1f} s"
         + (f"  {result.detail}" if result.detail else ""))
    if result.outcome == "fail":
        for line in shortened(result).text():
            print("        " + line, flush=True)
    if progress:
        progress.one_more()


def summary(results, seconds):
    """At the end: what was skipped, and of each test that failed why, and how to repeat it."""
    for outcome in ("skip", "fail"):
        for result in results:
            if result.outcome != outcome:
                continue
            say(f"{outcome}  {result.name}  {result.detail}")
            if outcome == "fail":
                for line in telling(result.output):
                    print("        " + line)
                if result.again:
                    print("      again: " + result.again)
    say(f"took {seconds / 60:.1f} min")
    count = {outcome: sum(result.outcome == outcome for result in results)
             for outcome in ("pass", "fail", "skip")}
    print(f"{count['pass']} passed, {count['fail']} failed, {count['skip']} skipped")
    return 0 if count["pass"] and not count["fail"] else 1


def write_junit(path, results):
    """The form that most servers of continuous integration read."""
    suite = xml.Element("testsuite", name="epk", tests=str(len(results)),
                        failures=str(sum(result.outcome == "fail" for result in results)),
                        skipped=str(sum(result.outcome == "skip" for result in results)))
    for result in results:
        case = xml.SubElement(suite, "testcase", classname="epk", name=result.name,
                              time=f"{result.seconds:.1f}")
        # What XML has no way to write.
        text = re.sub(r"[^\t\n\r -\ud7ff\ue000-\ufffd]", "?", "\n".join(result.text()))
        if result.outcome == "fail":
            xml.SubElement(case, "failure", message=result.detail).text = text
        elif result.outcome == "skip":
            xml.SubElement(case, "skipped", message=result.detail)
    xml.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)


def write_ktap(path, results):
    """The form that the Linux kernel's tests have."""
    lines = ["KTAP version 1", f"1..{len(results)}"]
    for number, result in enumerate(results, 1):
        lines.append(f"{'not ok' if result.outcome == 'fail' else 'ok'} {number} {result.name}" +
                     (f" # SKIP {result.detail}" if result.outcome == "skip" else ""))
        if result.outcome == "fail":
            lines += ["# " + line for line in (result.detail, *result.text())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="replace")
