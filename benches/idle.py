#!/usr/bin/env python3
"""Idle memory and start time of `portcullis run`.

Builds nothing: `cargo build --release` first. Runs the binary with one OIDC service whose identity provider is
down, and with its own CA, which a first start has made already. Measured, each time on a new process:

    start    from just before exec to the first TCP connection that exposedPort accepts
    served   from just before exec to the end of the first TLS handshake, which proves that a worker is up
    memory   resident memory (VmRSS) 2 s after the start, when only that handshake has happened

The median of `served` is held to 50 ms, which is the stricter of the two times, and the largest `memory` to
12 MB. Exit code 1 when one of them is over.
"""

import argparse
import os
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MOST_SECONDS = 0.050
MOST_BYTES = 12_000_000
IDLE_SECONDS = 2
PATIENCE_SECONDS = 15

CONFIG = """\
stateDirectory: {state}
admin: {{ listen: "127.0.0.1:{admin}" }}
limits: {{ shutdownDelay: 0s }}
services:
- name: idle
  type: HTTP
  authorizationType: OIDC
  OIDCProviderURL: http://127.0.0.1:9
  OIDCClientID: idle
  OIDCClientSecret: not-a-secret
  OIDCCallbackURL: https://localhost:{exposed}
  listenAddress: 127.0.0.1
  port: {application}
  exposedPort: {exposed}
  exposedAPIs:
  - - app=idle
httpResourceSpecs:
- name: idle
  associatedTags: [app=idle]
  endpoints:
  - {{ URI: /*, methods: ["*"], allowedScopes: [[group=staff]] }}
  - {{ URI: /public/*, methods: [GET], public: true }}
"""


def free_ports(count):
    """Ports of loopback that are free now, all different."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def connect(process, port, deadline):
    """Tries without a pause until somebody listens."""
    while True:
        if process.poll() is not None:
            raise SystemExit(f"it ended by itself with exit code {process.returncode}")
        if time.monotonic() > deadline:
            raise SystemExit(f"nothing listens on port {port} after {PATIENCE_SECONDS} s")
        client = socket.socket()
        try:
            client.connect(("127.0.0.1", port))
            return client
        except ConnectionRefusedError:
            client.close()


def shake_hands(client, authorities):
    """A TLS handshake that trusts only the CA of the state directory."""
    context = ssl.create_default_context(cafile=authorities)
    client.settimeout(PATIENCE_SECONDS)
    context.wrap_socket(client, server_hostname="localhost").close()


def memory(pid):
    """VmRSS, RssAnon and RssFile in bytes."""
    fields = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        fields[name] = value
    return [int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "RssAnon", "RssFile")]


def stop(process):
    """Asks it to end, and wants exit code 0."""
    process.send_signal(signal.SIGTERM)
    try:
        code = process.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise SystemExit(f"it did not end within {PATIENCE_SECONDS} s of SIGTERM") from None
    if code != 0:
        raise SystemExit(f"exit code {code} after SIGTERM instead of 0")


def measure(binary, config, port, authorities, idle):
    """One start: seconds to a connection, seconds to a handshake, memory."""
    environment = {name: value for name, value in os.environ.items() if name != "STATE_DIRECTORY"}
    command = [str(binary), "run", "-c", str(config)]
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    try:
        client = connect(process, port, began + PATIENCE_SECONDS)
        connected = time.monotonic() - began
        with client:
            shake_hands(client, authorities)
        served = time.monotonic() - began
        time.sleep(max(0, began + idle - time.monotonic()))
        used = memory(process.pid)
    except BaseException:
        process.kill()
        process.wait()
        raise
    stop(process)
    return connected, served, used


def row(name, unit, values):
    """One line of the result."""
    median, least, most = statistics.median(values), min(values), max(values)
    return f"{name:<8} median {median:7.1f} {unit}   min {least:7.1f} {unit}   max {most:7.1f} {unit}"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("binary", nargs="?", type=Path, default=ROOT / "target/release/portcullis")
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    if not arguments.binary.is_file():
        raise SystemExit(f"there is no {arguments.binary}; make it with: cargo build --release")

    with tempfile.TemporaryDirectory(prefix="portcullis-idle-") as directory:
        state = Path(directory) / "state"
        exposed, application, admin = free_ports(3)
        config = Path(directory) / "portcullis.yaml"
        config.write_text(
            CONFIG.format(state=state, exposed=exposed, application=application, admin=admin)
        )
        authorities = state / "certs/ca.pem"
        # The first start makes the CA and the session key. It is not counted; its handshake needs the file
        # that it makes, so it is trusted once the port is open.
        measure(arguments.binary, config, exposed, authorities, 0)
        results = [
            measure(arguments.binary, config, exposed, authorities, IDLE_SECONDS)
            for _ in range(arguments.repeats)
        ]

    connected, served, used = zip(*results, strict=True)
    resident, anonymous, files = zip(*used, strict=True)
    milliseconds = lambda values: [value * 1e3 for value in values]
    megabytes = lambda values: [value / 1e6 for value in values]
    print(f"{arguments.repeats} starts of {arguments.binary}, {len(os.sched_getaffinity(0))} CPUs")
    print(row("start", "ms", milliseconds(connected)))
    print(row("served", "ms", milliseconds(served)))
    print(row("memory", "MB", megabytes(resident)))
    print(
        f"         of which {statistics.median(megabytes(anonymous)):.1f} MB are its own and "
        f"{statistics.median(megabytes(files)):.1f} MB are pages of the binary and of libraries (medians)"
    )
    over = []
    if statistics.median(served) > MOST_SECONDS:
        over.append(f"the start takes more than {MOST_SECONDS * 1e3:.0f} ms")
    if max(resident) > MOST_BYTES:
        over.append(f"the memory is more than {MOST_BYTES / 1e6:.0f} MB")
    if over:
        print("OVER: " + ", ".join(over))
        return 1
    print(f"within {MOST_SECONDS * 1e3:.0f} ms and {MOST_BYTES / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
