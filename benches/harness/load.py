"""Load: generators that are stopped and let go again, so that slices of many subjects can follow one another closely.

Each generator is a process with its connections open. Between its slices it is stopped (SIGSTOP); nothing is
counted at its start or its end, so handshakes of keep-alive rows are never in a figure. How much was done is asked
from the application, which counts what it has answered.
"""

import socket
from dataclasses import dataclass, field
from pathlib import Path

from .processes import Failed, Running

# More than any run can do; the generators are ended, never finished.
ENDLESS = 2_000_000_000


@dataclass
class Load:
    """What is asked for: a row of the report."""

    name: str
    title: str
    path: str = "/"
    connections: int = 64
    #: Streams at once on each connection; 0 is HTTP/1.1.
    streams: int = 0
    headers: list = field(default_factory=list)
    #: A file that is sent as the body of a POST.
    body: object = None
    #: What one unit of work is: a request, or a MiB of bodies (large answers overlap the ends of slices).
    per: str = "request"
    slice_seconds: float = 0.4

    def command(self, proxy, case):
        """The generator for one case."""
        path = case.prefix + self.path
        command = ["h2load", "-n", ENDLESS, "-c", self.connections, "-t", 1, f"--connect-to=127.0.0.1:{proxy.port}"]
        command += ["-m", self.streams] if self.streams else ["--h1"]
        for header in [*case.headers, *self.headers]:
            command += ["-H", header]
        if self.body is not None:
            command += ["-d", self.body]
        return [*command, f"https://localhost:{proxy.port}{path}"]


class Application:
    """The upstream: its processor time, and what it has answered so far."""

    def __init__(self, program, port, cores, directory):
        self.running = Running([program, port], cores, directory / "upstream.out")
        self.port = port
        self.running.wait_for_port(port)
        self.socket = socket.create_connection(("127.0.0.1", port))

    def count(self):
        """Requests answered, bytes of bodies in, bytes of bodies out."""
        self.socket.sendall(b"GET /count HTTP/1.1\r\nHost: app\r\n\r\n")
        answer = b""
        while not answer.endswith(b"\n") or b"\r\n\r\n" not in answer:
            part = self.socket.recv(4096)
            if not part:
                raise Failed("the application has ended")
            answer += part
        return [int(number) for number in answer.rsplit(b"\r\n\r\n", 1)[1].split()]

    def stop(self):
        self.running.stop()


@dataclass
class Case:
    """A proxy under one kind of request: what the columns of a row are."""

    name: str
    title: str
    proxy: object
    prefix: str = ""
    headers: list = field(default_factory=list)
    #: For `SessionLoad`.
    cookie_file: object = None


@dataclass
class SessionLoad(Load):
    """Requests over HTTP/1.1 that each carry the next cookie of their case's file. By wrk: h2load can't."""

    def command(self, proxy, case):
        script = Path(__file__).resolve().parent.parent / "sessions.lua"
        url = f"https://localhost:{proxy.port}"
        # A day; generators are ended, never finished.
        options = ["-t", 1, "-c", self.connections, "-d", "24h", "--timeout", "60s", "-s", script]
        return ["wrk", *options, url, "--", case.cookie_file, case.prefix + self.path]
