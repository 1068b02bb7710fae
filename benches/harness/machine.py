"""What the figures were measured on."""

import datetime
import os
import platform
import subprocess
import time
from pathlib import Path

from .subjects import SUBJECTS, first_line

TOOLS = {
    "h2load": ("h2load", "--version"),
    "wrk": ("wrk", "-v"),
    "valgrind": ("valgrind", "--version"),
    "strace": ("strace", "--version"),
    "node": ("node", "--version"),
}


def processor():
    """Its model's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model"):
            return value.strip()
    return platform.machine()


def hypervisor():
    """Whether this is a virtual machine."""
    return "hypervisor" in Path("/proc/cpuinfo").read_text()


def system():
    """The distribution."""
    for line in Path("/etc/os-release").read_text().splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.split("=", 1)[1].strip('"')
    return platform.system()


def revision(root):
    """The commit that was built, and whether the tree differs from it."""
    run = lambda *command: subprocess.run(
        ["git", *command], cwd=root, capture_output=True, text=True, check=False
    ).stdout.strip()
    changed = run("status", "--porcelain", "--untracked-files=no")
    return run("rev-parse", "--short=12", "HEAD") + (" with changes" if changed else "")


def others(seconds=3):
    """The share of the processors that is taken while the benchmark waits: by whoever else is here. A load average
    would count the compiler that made the binary."""

    def ticks():
        fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return sum(fields), fields[3] + fields[4]

    (all_before, idle_before) = ticks()
    time.sleep(seconds)
    (all_after, idle_after) = ticks()
    return 1 - (idle_after - idle_before) / max(all_after - all_before, 1)


def facts(bench, names):
    """For the head of the report."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "revision": revision(bench.root),
        "system": system(),
        "kernel": platform.release(),
        "processor": processor(),
        "virtual": hypervisor(),
        "cores": os.cpu_count(),
        "counter": bench.counter.name,
        "why_not_instructions": bench.why_not_instructions,
        "subjects": {name: SUBJECTS[name].version(bench.world) for name in names},
        "tools": {name: first_line(*command) for name, command in TOOLS.items()},
    }
