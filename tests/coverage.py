#!/usr/bin/env python3
"""Line coverage of the modules that decide who is let through, from an LCOV file of cargo-llvm-cov.

    tests/coverage.py LCOV_FILE

Counts the lines of the product: not those of tests, neither in files of their own nor at the end of others. Prints a
table of modules and the lines of each file that no test reaches. Exit status: 0 if every module has at least LEAST per
cent.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULES = ["src/policy", "src/path.rs", "src/session", "src/oidc", "src/server/front"]
LEAST = 95.0
# Files that only tests and fuzz targets compile.
OF_TESTS = re.compile(r"(/tests/|/tests?\.rs$|/tests_\w+\.rs$|_tests\.rs$|/testing\w*\.rs$|/fuzz\.rs$)")
INLINE_TESTS = re.compile(r"^#\[cfg\(test\)\]\n(?:#\[allow.*\]\n)?(?:pub\S* )?mod \w+ \{", re.M)


def read(file):
    """Line counts by file, relative to the project; a line that was compiled several times has the sum."""
    files, counts = {}, None
    for line in Path(file).read_text().splitlines():
        key, _, value = line.partition(":")
        if key == "SF":
            path = Path(value)
            name = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else None
            counts = files.setdefault(name, defaultdict(int)) if name else None
        elif key == "DA" and counts is not None:
            number, count = value.split(",")[:2]
            counts[int(number)] += int(count)
    return files


def product_lines(name, counts):
    """Without what is only compiled for tests."""
    text = (ROOT / name).read_text()
    tests = INLINE_TESTS.search(text)
    last = text[: tests.start()].count("\n") if tests else text.count("\n")
    return {number: count for number, count in counts.items() if number <= last}


def ranges(numbers):
    """1,2,3,5 as `1-3 5`."""
    parts = []
    for number in sorted(numbers):
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return " ".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def main():
    files = read(sys.argv[1])
    fine = True
    for module in MODULES:
        covered = total = 0
        missed = []
        for name, counts in sorted(files.items()):
            if not (name == module or name.startswith(f"{module}/")) or OF_TESTS.search(f"/{name}"):
                continue
            lines = product_lines(name, counts)
            unreached = [number for number, count in lines.items() if count == 0]
            covered, total = covered + len(lines) - len(unreached), total + len(lines)
            if unreached:
                missed.append(f"    {name}: {ranges(unreached)}")
        share = 100 * covered / total if total else 0
        fine = fine and share >= LEAST
        print(f"{'pass' if share >= LEAST else 'FAIL'}  {module}: {share:.1f} % of {total} lines")
        print("\n".join(missed))
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
