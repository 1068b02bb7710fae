#!/usr/bin/env python3
"""Mutates the modules that decide who is let through, and looks whether their tests notice (cargo-mutants).

    tests/mutants.py [--shard K/N] [policy] [path] [front] [session] [redis] [oidc]

Each mutant is one change of one function, compiled and put before the tests of its group. `--shard` takes every N-th of
the mutants, from the K-th on: all of them take many hours. Prints how many of each group were noticed, and those that
were not; why some may stay is in tests/mutants.md. Exit status: 0 if at least LEAST per cent of each group were noticed.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOOL = ROOT / ".tools" / "cargo" / "bin" / "cargo-mutants"
OUT = ROOT / "target" / "mutants"
LEAST = 90.0
# The files of a group, and the tests of the library that are put before its mutants.
GROUPS = {
    "policy": (["src/policy/**"], ["policy::", "path::", "fuzzing::"]),
    "path": (["src/path.rs"], ["policy::", "path::", "fuzzing::"]),
    "front": (["src/server/front/**"], ["server::", "fuzzing::"]),
    "session": (["src/session/**"], ["session::", "fuzzing::"]),
    "redis": (["src/session/redis/**"], ["session::redis::"]),
    "oidc": (["src/oidc/**"], ["oidc::", "fuzzing::"]),
}
# What only tests and fuzz targets compile.
EXCLUDED = ["**/fuzz.rs", "**/testing*.rs", "**/tests/**", "**/tests*.rs", "**/*_tests.rs"]
TEST_SECONDS = 150


def command(group, shard):
    files, tests = GROUPS[group]
    excluded = EXCLUDED + (["src/session/redis/**"] if group == "session" else [])
    skipped = ["--skip", "session::redis::"] if group == "session" else []
    parts = [TOOL, "mutants", "--no-config", "--baseline", "skip", "--profile", "mutants", "--timeout", TEST_SECONDS]
    parts += ["--no-shuffle", "--colors", "never", "--output", OUT / group]
    for glob in files:
        parts += ["--file", glob]
    for glob in excluded:
        parts += ["--exclude", glob]
    if shard:
        parts += ["--shard", shard, "--sharding", "round-robin"]
    return [str(part) for part in [*parts, "--", "--lib", "--", *tests, *skipped]]


def run(group, shard):
    """How many were noticed, how many were not and which, how many did not compile."""
    shutil.rmtree(OUT / group, ignore_errors=True)
    (OUT / group).mkdir(parents=True)
    # One target for all groups and runs; the sources are a copy.
    environment = {**os.environ, "CARGO_TARGET_DIR": str(OUT / "target"), "RUST_BACKTRACE": "0"}
    subprocess.run(command(group, shard), cwd=ROOT, env=environment, check=False)
    outcomes = json.loads((OUT / group / "mutants.out" / "outcomes.json").read_text())
    missed = (OUT / group / "mutants.out" / "missed.txt").read_text().splitlines()
    return outcomes["caught"] + outcomes["timeout"], missed, outcomes["unviable"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shard", metavar="K/N")
    parser.add_argument("groups", nargs="*", metavar="group", help=f"of {', '.join(GROUPS)}; all by default")
    options = parser.parse_args()
    fine = True
    for group in options.groups or GROUPS:
        if group not in GROUPS:
            parser.error(f"`{group}` is none of {', '.join(GROUPS)}")
        noticed, missed, unviable = run(group, options.shard)
        share = 100 * noticed / (noticed + len(missed)) if noticed else 0
        passed = share >= LEAST
        fine = fine and passed
        counts = f"{noticed} of {noticed + len(missed)} noticed, {share:.1f} %; {unviable} did not compile"
        print(f"{'pass' if passed else 'FAIL'}  {group}: {counts}", flush=True)
        for mutant in missed:
            print(f"    {mutant}", flush=True)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
