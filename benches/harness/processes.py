"""Processes of a run: started on given cores, waited for, and always ended.

Owns nothing but the processes that it started itself; it never looks for others by name.
"""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

PATIENCE_SECONDS = 30
STOP_SECONDS = 15


class Failed(Exception):
    """Something that the benchmark needs did not work; the text says what to look at."""


def free_ports(count):
    """Ports of loopback that are free now, all different."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def listens(port):
    """Whether somebody accepts on 127.0.0.1:`port`."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def children(pid):
    """The children of all threads of a process."""
    found = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    except OSError:
        pass  # It has just ended.
    return found


def tree(pid):
    """A process and everything below it."""
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        waiting += children(one)
    return found


def resident(pids):
    """Resident memory in bytes. Shared pages count once for each process, so give the pids of one program."""
    return sum(_status(pid, "VmRSS") for pid in pids)


def peak(pids):
    """The most memory that was ever resident since `forget_peak`, in bytes."""
    return sum(_status(pid, "VmHWM") for pid in pids)


def forget_peak(pids):
    """From here on `peak` begins anew."""
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def _status(pid, field):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return 0


class Running:
    """One started program with all its children."""

    def __init__(self, command, cores, output, errors=None, cwd=None, env=None):
        """Standard output and standard error are appended to files; errors go beside the output by default."""
        self.command = [str(part) for part in command]
        self.errors = errors or Path(f"{output}.err")
        with open(output, "ab") as out, open(self.errors, "ab") as err:
            #: Just before exec, by the monotonic clock.
            self.began = time.monotonic()
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=cwd,
                env={**os.environ, **(env or {})},
                start_new_session=True,
                preexec_fn=lambda: os.sched_setaffinity(0, cores),
            )
        self.pid = self.process.pid

    def pids(self):
        """The program and its children, as they are now."""
        return tree(self.pid)

    def check(self):
        """Raises if it has ended."""
        if self.process.poll() is not None:
            text = self.errors.read_text(errors="replace")[-2000:]
            raise Failed(f"{self.command[0]} ended with {self.process.returncode}: {text}")

    def wait_for_port(self, port):
        """Until somebody accepts on 127.0.0.1:`port`."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            self.check()
            if listens(port):
                return
            time.sleep(0.001)
        raise Failed(f"{self.command[0]} does not listen on port {port}")

    def pause(self):
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self):
        os.kill(self.pid, signal.SIGCONT)

    def stop(self):
        """Asks its session to end, insists after a while."""
        if self.process.poll() is None:
            try:
                os.killpg(self.pid, signal.SIGCONT)
                os.killpg(self.pid, signal.SIGTERM)
                self.process.wait(STOP_SECONDS)
            except (subprocess.TimeoutExpired, ProcessLookupError):
                pass
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
