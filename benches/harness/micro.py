"""The micro-benchmarks of benches/micro.rs, run and read."""

import re

from . import install

UNITS = {"ps": 1e-3, "ns": 1.0, "µs": 1e3, "ms": 1e6, "s": 1e9}
NAME = re.compile(r"[├╰│─ ]*(?P<name>[A-Za-z_0-9]+)\s")
COLUMN = re.compile(r"(?P<number>[\d.]+) (?P<unit>ps|ns|µs|ms|s)\b")


def parse(text):
    """Fastest and median nanoseconds of each benchmark; those with arguments as `name/argument`."""
    found, parent = {}, None
    for line in text.splitlines():
        name = NAME.match(line)
        if not name:
            continue
        columns = [float(each["number"]) * UNITS[each["unit"]] for each in COLUMN.finditer(line)]
        nested = line.startswith(("│", "   "))
        if not columns:
            parent = name["name"]
        elif len(columns) >= 3:
            # Columns: fastest, slowest, median, mean.
            key = f"{parent}/{name['name']}" if nested and parent else name["name"]
            found[key] = {"fastest": columns[0], "median": columns[2]}
    return found


# They take nanoseconds, and run one after the other: whatever else the machine does for a second falls on one of them.
RUNS = 3


def measure(cores):
    """Builds them, and runs them all several times on the given core: of each, the run with the smallest median."""
    core = ",".join(map(str, sorted(cores)))
    install.run("cargo", "bench", "--bench", "micro", "--no-run", cwd=install.ROOT)
    runs = [
        parse(install.run("taskset", "-c", core, "cargo", "bench", "--bench", "micro", cwd=install.ROOT))
        for _ in range(RUNS)
    ]
    return {name: min((run[name] for run in runs), key=lambda row: row["median"]) for name in runs[0]}
