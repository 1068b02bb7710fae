#!/usr/bin/env python3
"""Mutates the modules that decide who is let through, and looks whether their tests notice.

    tests/mutants.py [--again] [--apart [N]] [--compare N] [policy] [path] [session] [oidc] [front] [redis]

cargo-mutants says what the mutants are; all of them are compiled at once (tests/schemata.py), and each is switched on
in turn, before the tests of its group that enter its function: the quick ones first, until one fails. Verdicts are kept
in target/mutants; `--again` takes only those mutants that nothing noticed so far, or whose function has changed. Those
that can't be switched, in constants and in functions that return `impl` something, are for cargo-mutants itself, a
minute or so for each: `--apart` runs them too, or N of each group. `--compare N` has cargo-mutants look at N of the verdicts again.
Why some survivors may stay is in tests/mutants.md. Exit status: 0 if at least LEAST per cent of each group are noticed.
"""

import argparse
import concurrent.futures
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import schemata

ROOT = Path(__file__).resolve().parents[1]
TOOL = ROOT / ".tools" / "cargo" / "bin" / "cargo-mutants"
OUT = ROOT / "target" / "mutants"
TREE = OUT / "tree"
CARGO = os.environ.get("CARGO", "cargo")
LEAST = 90.0
# The files of a group, and the tests of the library that are put before its mutants.
GROUPS = {
    "policy": (["src/policy/**"], ["policy::", "path::", "fuzzing::"]),
    "path": (["src/path.rs"], ["policy::", "path::", "fuzzing::"]),
    "session": (["src/session/**"], ["session::", "fuzzing::"]),
    "oidc": (["src/oidc/**"], ["oidc::", "fuzzing::"]),
    "front": (
        ["src/server/front/**", "src/server/intake.rs", "src/gate/forwarded.rs"],
        ["server::", "gate::forwarded::", "fuzzing::"],
    ),
    "redis": (["src/session/redis/**"], ["session::redis::"]),
}
# What only tests and fuzz targets compile.
EXCLUDED = ["**/fuzz.rs", "**/testing*.rs", "**/tests/**", "**/tests*.rs", "**/*_tests.rs"]
# Programs of tests at a time.
WORKERS = 2
# A test program may take this long, and then this many times what its tests take without a mutant.
PATIENCE_SECONDS, PATIENCE_TIMES = 20, 8
# How often a test may fail that has no mutant before it.
TRIES = 3
# A mutant that fills the memory is noticed, and nothing else is.
MOST_MEMORY = 4 << 30
# For cargo-mutants itself.
TEST_SECONDS = 150


def environment(target="target", **more):
    # One target for all runs, apart from that of the sources.
    return {**os.environ, "CARGO_TARGET_DIR": str(OUT / target), "RUST_BACKTRACE": "0", **more}


def filters(group):
    files, _ = GROUPS[group]
    parts = []
    for glob in files:
        parts += ["--file", glob]
    for glob in EXCLUDED + (["src/session/redis/**"] if group == "session" else []):
        parts += ["--exclude", glob]
    return parts


def listed():
    """All mutants, also of groups that aren't run: they are compiled together."""
    mutants, texts = [], {}
    for group in GROUPS:
        command = [TOOL, "mutants", "--no-config", "--list", "--json", *filters(group)]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
        for each in json.loads(done.stdout):
            if each["file"] not in texts:
                texts[each["file"]] = (ROOT / each["file"]).read_text()
            mutants.append(schemata.Mutant(len(mutants) + 1, group, each, texts[each["file"]]))
    return mutants


class Program:
    """The tests of the library, with every mutant in them."""

    def __init__(self, built):
        # A copy, which no later build replaces under a run.
        self.path = str(OUT / "tests")
        Path(self.path).unlink(missing_ok=True)
        shutil.copy(built, self.path)

    def names(self):
        done = subprocess.run([self.path, "--list"], cwd=TREE, stdout=subprocess.PIPE, text=True, check=True)
        return [line.removesuffix(": test") for line in done.stdout.splitlines() if line.endswith(": test")]

    def run(self, tests, seconds, **switches):
        """None if all tests pass, else the first that fails, or how the program ended instead."""
        with tempfile.TemporaryDirectory(prefix="mutant-") as scratch:
            env = environment(TMPDIR=scratch, CARGO_MANIFEST_DIR=str(TREE), **switches)
            # A session of its own: with the program end the servers that its tests began.
            child = subprocess.Popen(
                [self.path, "--exact", *tests], cwd=TREE, env=env, stdout=subprocess.PIPE, text=True, errors="replace",
                stderr=subprocess.DEVNULL, start_new_session=True, preexec_fn=confine,
            )
            late = threading.Event()
            timer = threading.Timer(seconds, lambda: (late.set(), kill(child)))
            timer.start()
            try:
                for line in child.stdout:
                    if line.startswith("test ") and line.rstrip().endswith("FAILED"):
                        return line.split()[1]
                status = child.wait()
                return "time-out" if late.is_set() else None if status == 0 else f"status {status}"
            finally:
                timer.cancel()
                kill(child)
                child.stdout.close()
                child.wait()


def confine():
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def kill(child):
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def survey(program, pool, groups):
    """For each test of the groups: how long it takes, and which functions with mutants it enters."""

    def one(test):
        with tempfile.NamedTemporaryFile("r", prefix="trace-") as trace:
            # A test of times may fail on a busy machine, but not always.
            for _ in range(TRIES):
                begun = time.monotonic()
                failed = program.run([test], 120, MUTANT_TRACE=trace.name)
                if not failed:
                    break
            else:
                raise SystemExit(f"mutants: without a mutant: {failed} ({test})")
            return test, time.monotonic() - begun, {int(line) for line in trace.read().split()}

    wanted = [test for test in program.names() if any(belongs(test, group) for group in groups)]
    return {test: (seconds, entered) for test, seconds, entered in pool.map(one, wanted)}


def belongs(test, group):
    return test.startswith(tuple(GROUPS[group][1]))


def judge(program, surveyed, heads, mutant):
    """What noticed the mutant, or None."""
    own = {
        test: seconds
        for test, (seconds, entered) in surveyed.items()
        if belongs(test, mutant.group) and heads[mutant.body, mutant.file] in entered
    }
    # First what is over in a moment, and only for what survives that the tests that wait for something. These are
    # believed when they fail again.
    tests = sorted(own, key=own.get)
    quick = [test for test in tests if own[test] < 0.5]
    for some, times in ((quick, 1), (tests[len(quick) :], 2)):
        patience = PATIENCE_SECONDS + PATIENCE_TIMES * sum(own[test] for test in some)
        noticed = None
        for _ in range(times if some else 0):
            noticed = program.run(some, patience, MUTANT=str(mutant.number))
            if not noticed:
                break
        if noticed:
            return noticed
    return None


def cargo_mutants(group, mutants, out):
    """What cargo-mutants says of some mutants: True if noticed, None if it does not compile."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    parts = [TOOL, "mutants", "--no-config", "--baseline", "skip", "--profile", "mutants", "--timeout", TEST_SECONDS]
    # The library alone, also when it is built: binaries, examples and other tests take longer than it does.
    parts += ["--cargo-arg=--lib", "--no-shuffle", "--colors", "never", "--output", out, *filters(group)]
    for mutant in mutants:
        parts += ["--re", f"^{re.escape(mutant.name)}$"]
    command = [str(part) for part in [*parts, "--", "--", *GROUPS[group][1]]]
    # A target of its own: to Cargo, the copies of cargo-mutants are the same package as ours, and it would take a
    # program that was made of theirs for one that has our mutants.
    env = environment("apart-target")
    subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, check=False)
    said = {}
    for name, verdict in (("caught", True), ("timeout", True), ("missed", False), ("unviable", None)):
        for line in (out / "mutants.out" / f"{name}.txt").read_text().splitlines():
            said[line] = verdict
    return said


class Verdicts:
    """What is known of each mutant, kept from run to run: what noticed it, or None."""

    def __init__(self, path):
        self.path = path
        kept = json.loads(path.read_text()) if path.exists() else {}
        self.refused, self.noticed = set(kept.get("refused", [])), kept.get("noticed", {})

    def save(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps({"refused": sorted(self.refused), "noticed": self.noticed}, indent=0))


def switch_through(mutants, verdicts, groups, again):
    switchable = [mutant for mutant in mutants if mutant.is_switchable()]
    try:
        program = Program(schemata.build(CARGO, ROOT, TREE, environment(), switchable, verdicts.refused))
    finally:
        verdicts.save()
    # A function goes by the number of its first mutant.
    heads = {}
    for mutant in switchable:
        if mutant.key not in verdicts.refused:
            heads.setdefault((mutant.body, mutant.file), mutant.number)
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        begun = time.monotonic()
        surveyed = survey(program, pool, groups)
        print(f"      {len(surveyed)} tests without a mutant: {time.monotonic() - begun:.0f} s", flush=True)
        for group in groups:
            begun = time.monotonic()
            due = [
                mutant
                for mutant in switchable
                if mutant.group == group
                and mutant.key not in verdicts.refused
                and not (again and verdicts.noticed.get(mutant.key))
            ]
            for mutant, noticed in zip(due, pool.map(lambda each: judge(program, surveyed, heads, each), due)):
                verdicts.noticed[mutant.key] = noticed
                # At once: a run that is stopped keeps what it has found out.
                verdicts.save()
            print(f"      {group}: {len(due)} mutants in {time.monotonic() - begun:.0f} s", flush=True)


def run_apart(mutants, verdicts, groups, again, most):
    """Those of the groups that can't be switched, `most` of each group, or all of them if that is 0."""
    for group in groups:
        due = [mutant for mutant in mutants if mutant.group == group and not mutant.is_switchable()]
        due = [mutant for mutant in due if mutant.key not in verdicts.refused]
        due = [mutant for mutant in due if not (again and verdicts.noticed.get(mutant.key))]
        due = random.sample(due, min(most, len(due))) if most else due
        said = cargo_mutants(group, due, OUT / "apart" / group) if due else {}
        for mutant in due:
            verdict = said[mutant.name]
            if verdict is None:
                verdicts.refused.add(mutant.key)
            else:
                verdicts.noticed[mutant.key] = "cargo-mutants" if verdict else None
        verdicts.save()


def compare(mutants, verdicts, groups, count):
    """Whether cargo-mutants agrees about some mutants: half of them survivors, as far as there are."""
    known = [m for m in mutants if m.group in groups and m.is_switchable()]
    known = [m for m in known if m.key in verdicts.noticed or m.key in verdicts.refused]
    random.shuffle(known)
    survivors = [m for m in known if m.key in verdicts.noticed and not verdicts.noticed[m.key]][: count // 2]
    others = [m for m in known if m not in survivors and verdicts.noticed.get(m.key, True)]
    sample = survivors + others[: count - len(survivors)]
    agreed = True
    for group in groups:
        own = [mutant for mutant in sample if mutant.group == group]
        said = cargo_mutants(group, own, OUT / "compared" / group) if own else {}
        for mutant in own:
            ours = None if mutant.key in verdicts.refused else bool(verdicts.noticed[mutant.key])
            agreed = agreed and ours == said[mutant.name]
            words = {True: "noticed", False: "missed", None: "does not compile"}
            same = "agree" if ours == said[mutant.name] else f"DIFFER (cargo-mutants: {words[said[mutant.name]]})"
            print(f"      {same}: {words[ours]}: {mutant.name}", flush=True)
    return agreed


def report(mutants, verdicts, groups):
    fine = True
    for group in groups:
        own = [mutant for mutant in mutants if mutant.group == group]
        refused = sum(mutant.key in verdicts.refused for mutant in own)
        judged = [mutant for mutant in own if mutant.key in verdicts.noticed]
        missed = [mutant for mutant in judged if not verdicts.noticed[mutant.key]]
        noticed = len(judged) - len(missed)
        share = 100 * noticed / len(judged) if judged else 0
        fine = fine and share >= LEAST
        counts = f"{noticed} of {len(judged)} noticed, {share:.1f} %; {refused} did not compile"
        counts += f", {len(own) - len(judged) - refused} not run; {len(own)} in all"
        print(f"{'pass' if share >= LEAST else 'FAIL'}  {group}: {counts}", flush=True)
        for mutant in missed:
            print(f"    {mutant.name}", flush=True)
    return fine


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--apart", metavar="N", type=int, nargs="?", const=0)
    parser.add_argument("--compare", metavar="N", type=int)
    parser.add_argument("groups", nargs="*", metavar="group", help=f"of {', '.join(GROUPS)}; all by default")
    options = parser.parse_args()
    for group in options.groups:
        if group not in GROUPS:
            parser.error(f"`{group}` is none of {', '.join(GROUPS)}")
    groups = options.groups or list(GROUPS)
    mutants, verdicts = listed(), Verdicts(OUT / "verdicts.json")
    if options.compare:
        return 0 if compare(mutants, verdicts, groups, options.compare) else 1
    switch_through(mutants, verdicts, groups, options.again)
    if options.apart is not None:
        run_apart(mutants, verdicts, groups, options.again, options.apart)
    return 0 if report(mutants, verdicts, groups) else 1


if __name__ == "__main__":
    sys.exit(main())
