#!/usr/bin/env python3
"""Attacks the proxy with generated targets, return URLs and HTTP/1 payloads, and compares how real servers read them;
then with floods and stalls, and measures what they cost.

    tests/attack/attack.py [--whole] [--seed N] [paths] [returns] [framing] [floods]

With a fixed, smaller budget unless `--whole` is given. Wants `cargo build --examples` and what tests/tools.sh installs;
nginx and Apache are installed here. Prints a table; exit status 0 if every row is as it must be, else 1.
"""

import argparse
import importlib
import sys
import time

import servers
from targets import DEFAULT_SEED

# What each attack takes, small and whole; the values are arguments of its `attack`.
BUDGETS = {
    "paths": ({"count": 20_000, "sample": 400}, {"count": 1_000_000, "sample": 5_000}),
    "returns": ({"count": 5_000, "logins": 20, "pages": 5}, {"count": 10_000, "logins": 200, "pages": 50}),
    "framing": ({"count": 300}, {"count": 2_000}),
    "floods": ({"whole": False}, {"whole": True}),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--whole", action="store_true", help="whole budgets, for some minutes")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED)
    parser.add_argument("attacks", nargs="*", metavar="attack", help=f"of {', '.join(BUDGETS)}; all by default")
    options = parser.parse_args()
    for name in options.attacks:
        if name not in BUDGETS:
            parser.error(f"`{name}` is none of {', '.join(BUDGETS)}")
    servers.install()
    fine = True
    for name in options.attacks or BUDGETS:
        begin = time.monotonic()
        rows = importlib.import_module(name).attack(**BUDGETS[name][options.whole], seed=options.seed)
        print(f"{name}, {time.monotonic() - begin:.0f} s")
        for what, passed, words in rows:
            print(f"  {'pass' if passed else 'FAIL'}  {what}: {words}", flush=True)
            fine = fine and passed
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
