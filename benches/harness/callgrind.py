"""User-mode instructions and system calls of one request: counts that repeat on any machine, however busy.

A proxy is run twice under valgrind's callgrind (or under strace), with a number of requests and with more of them;
the difference is what the further requests have cost, free of start, handshakes and end. Callgrind sees no kernel:
its figure is half of the truth, and the system calls hint at the other half.
"""

import re
import subprocess
from pathlib import Path

from .processes import Failed

PATIENCE_SECONDS = 300


def drive(command):
    """Runs a generator to its end; every answer must be 2xx."""
    result = subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    done = re.search(r"requests: (\d+) total, .* (\d+) succeeded, (\d+) failed", result.stdout)
    codes = re.search(r"status codes: (\d+) 2xx", result.stdout)
    if not done or not codes or not done[1] == done[2] == codes[1]:
        raise Failed(f"not every request was answered with 2xx:\n{result.stdout[-1500:]}")


def generator(port, requests, path="/", headers=(), connections=1, streams=0):
    """h2load with a fixed number of requests."""
    command = ["h2load", "-n", requests, "-c", connections, "-t", 1, f"--connect-to=127.0.0.1:{port}"]
    command += ["-m", streams] if streams else ["--h1"]
    for header in headers:
        command += ["-H", header]
    return [*command, f"https://localhost:{port}{path}"]


def callgrind(output):
    """The wrapper that counts instructions into a file, and how to read it."""
    wrapper = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={output}"]

    def read():
        found = re.search(r"^(?:totals|summary): (\d+)", output.read_text(errors="replace"), re.MULTILINE)
        if not found:
            raise Failed(f"callgrind left no total in {output}")
        return int(found[1])

    return wrapper, read


def strace(output):
    """The wrapper that counts system calls into a file, and how to read it."""
    wrapper = ["strace", "-f", "-c", "-o", output]

    def read():
        calls = 0
        for line in output.read_text().splitlines():
            fields = line.split()
            if len(fields) >= 5 and fields[0][0].isdigit() and fields[-1] != "total":
                calls += int(fields[3])
        return calls

    return wrapper, read


def per_request(start, tool, output, few, many, load):
    """What one request costs.

    `start(wrapper)` gives a proxy that is up; `load(port, requests)` gives the command of a generator. The requests
    of `few` also warm up caches and connections.
    """
    counts = []
    for requests in (few, many):
        wrapper, read = tool(Path(f"{output}.{requests}"))
        proxy = start(wrapper)
        try:
            drive(load(proxy.port, requests))
        finally:
            proxy.stop()
        counts.append(read())
    return (counts[1] - counts[0]) / (many - few)
