#!/usr/bin/env python3
"""Portcullis, nginx and OIDC rivals side by side: `make bench`, or with all rivals `make bench-full`.

Installs what it needs, builds nothing of Portcullis but the micro-benchmarks (`cargo build --release` first), and
writes a report with a chart and the raw figures. benches/README.md says how it works.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import install, machine, plan, report, targets  # noqa: E402
from harness.bench import Bench  # noqa: E402
from harness.processes import Failed  # noqa: E402

ROUNDS = 12


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="all rivals, and bodies of 10 GiB instead of 1 GiB")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of every row of slices (default {ROUNDS})")
    parser.add_argument("--only", default="", help="steps, with commas: rows,unlogged,sessions,latency,...")
    parser.add_argument("--binary", type=Path, default=plan.binary())
    parser.add_argument("--output", type=Path, default=install.ROOT / "docs" / "benchmarks")
    arguments = parser.parse_args()

    began, others = time.monotonic(), machine.others()
    missing = plan.tools(arguments.full)
    for name, why in missing.items():
        print(f"WITHOUT {name}: {why}", flush=True)
    bench = Bench(arguments.binary)
    try:
        run = plan.Plan(bench, arguments.full, arguments.rounds, missing)
        run.results["machine"] = machine.facts(bench, run.names) | {"others": others}
        bench.say(f"counter: {bench.counter.name}. {bench.why_not_instructions}")
        run.run([step for step in arguments.only.split(",") if step])
    finally:
        bench.close()
    results = run.results
    results["command"] = "bench-full" if arguments.full else "bench"
    results["name"] = "full" if arguments.full else "report"
    results["seconds"] = time.monotonic() - began
    report.write(results, arguments.output, results["name"])
    for verdict in targets.verdicts(results):
        mark = {True: "met    ", False: "NOT MET", None: "?      "}[verdict.met]
        print(f"{mark} {verdict.what}: {verdict.measured} (target: {verdict.limit})")
    print(f"{arguments.output / results['name']}.md")


if __name__ == "__main__":
    try:
        main()
    except Failed as error:
        sys.exit(f"bench: {error}")
