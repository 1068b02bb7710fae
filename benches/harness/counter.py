"""What a program has cost so far: instructions where the machine counts them, else processor time.

A counter is read twice around a stretch of load; the difference is the cost. Two kinds:

    Instructions     retired instructions of user and kernel mode, by perf_event_open on every thread. What to
                     compare: it repeats within a few per cent whatever else the machine does.
    ProcessorTime    nanoseconds on a core, from /proc/PID/task/TID/schedstat. The speed of a core of a shared
                     machine drifts within seconds, so only ratios of neighbouring slices mean something.
"""

import ctypes
import os
import struct
from pathlib import Path

PERF_TYPE_HARDWARE = 0
PERF_TYPE_SOFTWARE = 1
PERF_COUNT_HW_INSTRUCTIONS = 1
PERF_COUNT_SW_TASK_CLOCK = 1
# perf_event_attr up to PERF_ATTR_SIZE_VER5; the bit of the flags that makes new threads be counted too.
ATTRIBUTE_BYTES = 112
INHERIT = 1 << 1
SYSTEM_CALL = {"x86_64": 298, "aarch64": 241}


def threads(pids):
    """All threads of these processes."""
    found = []
    for pid in pids:
        try:
            found += [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
        except OSError:
            pass  # It has just ended.
    return found


class ProcessorTime:
    """Nanoseconds on a core."""

    name = "processor time"
    unit = "us"
    scale = 1e-3

    def __init__(self, running):
        self.running = running
        self.ended = {}

    def read(self):
        """The total; threads that end keep what they had at the last reading."""
        for thread in threads(self.running.pids()):
            try:
                spent = Path(f"/proc/{thread}/schedstat").read_text().split()[0]
            except OSError:
                continue
            self.ended[thread] = int(spent)
        return sum(self.ended.values())

    def close(self):
        """Nothing to give back."""


class PerfEvent:
    """One event of the kernel's performance counters, over all threads of a program."""

    def __init__(self, running, kind=PERF_TYPE_HARDWARE, config=PERF_COUNT_HW_INSTRUCTIONS):
        self.files = [open_event(thread, kind, config) for thread in threads(running.pids())]

    def read(self):
        return sum(struct.unpack("<Q", os.read(each, 8))[0] for each in self.files)

    def close(self):
        for each in self.files:
            os.close(each)
        self.files = []


class Instructions(PerfEvent):
    """Retired instructions, user and kernel mode."""

    name = "instructions"
    unit = "k instructions"
    scale = 1e-3


def open_event(thread, kind, config):
    """A file descriptor whose 8 bytes are the count for one thread and its later children."""
    attribute = struct.pack("<IIQQQQQ", kind, ATTRIBUTE_BYTES, config, 0, 0, 0, INHERIT)
    attribute = ctypes.create_string_buffer(attribute.ljust(ATTRIBUTE_BYTES, b"\0"), ATTRIBUTE_BYTES)
    library = ctypes.CDLL(None, use_errno=True)
    number = SYSTEM_CALL.get(os.uname().machine)
    if number is None:
        raise OSError("no known system call number of perf_event_open for this architecture")
    found = library.syscall(number, attribute, thread, -1, -1, 0)
    if found < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"perf_event_open: {os.strerror(error)}")
    return found


def best():
    """The counter of this machine, and why it is not instructions if it isn't."""
    try:
        os.close(open_event(os.getpid(), PERF_TYPE_HARDWARE, PERF_COUNT_HW_INSTRUCTIONS))
    except OSError as error:
        return ProcessorTime, f"this machine counts no instructions ({error})"
    return Instructions, ""
