#!/usr/bin/env python3
"""Prints for every row of tests/catalogue/rows.toml whether the tests that hold it have run and passed.

    make test            # the steps of the tests, each kept by record.sh, and this at the end

Reads what record.sh kept in $RESULTS of the run $RUN, and nothing of any other run. A row passes if it names at least
one test, each of them exists and has run, and all of them passed. The same of the tests and rows that docs/security.md
names. Exit status: 0 if everything passes, else 1.

How tests are named in the list:

    it::login::a_transaction_is_used_once           a test of `cargo test`, by its full path
    e2e/login.test.mjs: suite > title               a test of `node --test`
    attack/framing: payloads before nginx           a row of tests/attack/attack.py
    attack/floods: DOS-01                           all rows of it that begin so, and at least one
    deploy: image                                   a check of tests/deploy/check.py, tests/tls/scan.py and the like
    step: deny                                      a whole step: its exit status
"""

import os
import re
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROWS = HERE / "rows.toml"
PROMISES = HERE.parents[1] / "docs" / "security.md"
# How the programs that print their own tables say what became of a check.
OUTCOMES = {"ok": "pass", "pass": "pass", "FAIL": "FAIL", "FAILED": "FAIL"}
WIDTH = 120


class Run:
    """What the steps of one run left."""

    def __init__(self, folder, name):
        self.tests = {}
        self.stale = []
        for log in sorted(folder.glob("*.log")):
            self.read(log, name)

    def read(self, log, name):
        text = log.read_text(errors="replace")
        step = log.stem
        head, _, body = text.partition("\n")
        ended = re.search(r"^exit (\d+)\n\Z", text, re.M)
        if head != f"run {name}" or not ended:
            self.stale.append(step)
            return
        self.note(f"step: {step}", "pass" if ended[1] == "0" else "FAIL")
        self.rust(body)
        self.tables(step, body)
        for lines in log.parent.glob(f"{step}.tests"):
            head, _, body = lines.read_text().partition("\n")
            if head == f"run {name}":
                for outcome, test in re.findall(r"^(pass|FAIL|skipped)  (.*)$", body, re.M):
                    self.note(f"{step}/{test}", outcome)

    def note(self, test, outcome):
        """A test that is run twice has to pass twice."""
        if self.tests.get(test, "pass") == "pass":
            self.tests[test] = outcome

    def rust(self, text):
        for test, outcome in re.findall(r"^test (\S+)(?: - should panic)? \.\.\. (ok|FAILED|ignored)", text, re.M):
            self.note(test, OUTCOMES.get(outcome, "skipped"))

    def tables(self, step, text):
        """Tables of `pass  what: words`, below headings such as `framing, 40 s`; or of `ok    what` without one."""
        section = step
        for line in text.splitlines():
            if heading := re.fullmatch(r"(\w+), \d+ s", line):
                section = f"attack/{heading[1]}"
            if row := re.fullmatch(r" *(ok|pass|FAIL) {2,}(.+)", line):
                what, _, words = row[2].partition(": ")
                self.note(f"{section}: {what}", OUTCOMES[row[1]])
                # Some names have a colon themselves, and some lines have no words.
                if words:
                    self.note(f"{section}: {what}: {words.partition(': ')[0]}", OUTCOMES[row[1]])


def holders(row, said, run):
    """The tests of a row: those that the list names, and every attack that is named after the row."""
    own = [test for test in run.tests if re.match(rf"attack/\w+: (?:[A-Z0-9]+-\d+ )*{re.escape(row)}\b[^:]*$", test)]
    # `attack/floods: DOS-01` in the list stands for at least one of them.
    wanted = [test for test in said["tests"] if not any(found.startswith(f"{test} ") for found in own)]
    return list(dict.fromkeys([*wanted, *own]))


def judge(row, said, run):
    """What to print about a row, and the tests that it lacks or that failed."""
    tests = holders(row, said, run)
    outcomes = {test: run.tests.get(test, "missing") for test in tests}
    wrong = [f"{outcome}: {test}" for test, outcome in outcomes.items() if outcome != "pass"]
    if any(outcome == "FAIL" for outcome in outcomes.values()):
        return "FAIL", tests, wrong
    return ("MISSING" if wrong or not tests else "pass"), tests, wrong


def promises(rows):
    """What docs/security.md names as holding its promises: tests, and rows of the list."""
    text = PROMISES.read_text()
    tests = re.findall(r"`([a-z]\w*(?:::\w+)+)`", text)
    named = re.findall(r"\b[A-Z][A-Z0-9]+-\d\d\b", text)
    return list(dict.fromkeys(tests)), [row for row in dict.fromkeys(named) if row not in rows]


def shown(tests):
    text = ", ".join(tests)
    return text if len(text) <= WIDTH else f"{text[:WIDTH - 1]}…"


def main():
    rows = tomllib.loads(ROWS.read_text())
    tests, unknown = promises(rows)
    rows["docs/security.md"] = {"tests": [*tests, *(f"row {row}" for row in unknown)]}
    run = Run(Path(os.environ.get("RESULTS", "target/results")), os.environ.get("RUN", ""))
    outcomes, column = [], max(map(len, rows))
    print(f"{'row':<{column}}  {'outcome':<7}  tests")
    for row, said in rows.items():
        outcome, tests, wrong = judge(row, said, run)
        outcomes.append(outcome)
        print(f"{row:<{column}}  {outcome:<7}  {len(tests):>2}  {shown(tests)}")
        for line in wrong:
            print(f"{'':{column + 2}}{line}")
    for step in run.stale:
        print(f"{step}: its results are of another run, or it was cut short; they do not count")
    counts = {outcome: outcomes.count(outcome) for outcome in ("pass", "FAIL", "MISSING")}
    print(f"catalogue: {len(rows)} rows: " + ", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    return 0 if counts["pass"] == len(rows) > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
