#!/usr/bin/env python3
"""Runs h2spec (generic, http2 and hpack sections, strict) against the binary over TLS, before a small application.

    tests/conformance/h2spec.py [--binary target/debug/portcullis] [--rounds 3]

h2spec is installed by Go into .tools/bin, pinned, through the module proxy. Each failing case must be in
h2spec.expected with a reason, and each case there must fail: what changes is to be looked at. Exit status: 0 if
everything is as expected, else 1.
"""

import argparse
import http.server
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXPECTED = Path(__file__).with_name("h2spec.expected")
TOOLS = ROOT / ".tools" / "bin"
H2SPEC = "github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible"
# Cases that a whole run has; fewer would mean that something was left out.
LEAST_CASES = 146

CONFIG = """\
services:
- name: app
  authorizationType: None
  hosts: [localhost]
  listenAddress: 127.0.0.1
  exposedPort: {exposed}
  port: {port}
  exposedAPIs: [[app=app]]
httpResourceSpecs:
- name: app
  associatedTags: [app=app]
  endpoints:
  - {{URI: /public, methods: ['*'], public: true}}
admin: {{listen: 'unix:{directory}/admin'}}
log: {{format: json}}
limits: {{workers: 2, shutdownDelay: 1ms, drain: 5s}}
"""


class App(http.server.BaseHTTPRequestHandler):
    """Answers everything, and reads every body."""

    protocol_version = "HTTP/1.1"
    body = b"hello from the application, in a few more bytes than one"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(self.body)

    do_HEAD = do_GET

    def do_POST(self):
        if self.headers.get("Transfer-Encoding"):
            while size := int(self.rfile.readline().split(b";")[0], 16):
                self.rfile.read(size + 2)
            while self.rfile.readline().strip():
                pass
        else:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.do_GET()

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Clients that go away in the middle are what h2spec is about."""


def install():
    """h2spec, from .tools or freshly installed."""
    binary = TOOLS / "h2spec"
    stamp = TOOLS / "h2spec.stamp"
    if binary.exists() and stamp.exists() and stamp.read_text() == H2SPEC:
        return binary
    go = shutil.which("go")
    if not go:
        sys.exit("h2spec is installed by Go, which is missing: https://go.dev/dl/")
    TOOLS.mkdir(parents=True, exist_ok=True)
    subprocess.run([go, "install", H2SPEC], check=True, env=os.environ | {"GOBIN": str(TOOLS), "GOFLAGS": "-mod=mod"})
    stamp.write_text(H2SPEC)
    return binary


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(binary, directory, app_port):
    """The proxy, once it listens, and its port."""
    exposed = free_port()
    config = Path(directory) / "portcullis.yaml"
    config.write_text(CONFIG.format(exposed=exposed, port=app_port, directory=directory))
    log = open(Path(directory) / "log", "w")
    proxy = subprocess.Popen([binary, "run", "-c", config], stdout=log, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 20
    while proxy.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", exposed), timeout=1).close()
            return proxy, exposed
        except OSError:
            time.sleep(0.05)
    proxy.kill()
    sys.exit("portcullis did not start:\n" + (Path(directory) / "log").read_text())


def failures(h2spec, port, directory):
    """The cases that failed: `section: what it does`."""
    report = Path(directory) / "report.xml"
    report.unlink(missing_ok=True)
    command = [h2spec, "-S", "-t", "-k", "-h", "localhost", "-p", str(port), "-P", "/public", "-j", report]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600)
    if not report.exists():
        sys.exit(f"h2spec wrote no report:\n{run.stdout}")
    cases = list(ElementTree.parse(report).iter("testcase"))
    if len(cases) < LEAST_CASES:
        sys.exit(f"only {len(cases)} cases were run:\n{run.stdout}")
    name = lambda case: f"{case.get('package')}: {case.get('classname')}"
    failed = {name(case) for case in cases if case.find("failure") is not None or case.find("error") is not None}
    print(f"h2spec: {len(cases)} cases, {len(failed)} failed")
    return failed


def expected():
    lines = EXPECTED.read_text().splitlines()
    return {line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=ROOT / "target" / "debug" / "portcullis")
    parser.add_argument("--rounds", type=int, default=3, help="how often; each must be as expected")
    options = parser.parse_args()
    h2spec = install()
    app = Server(("127.0.0.1", 0), App)
    threading.Thread(target=app.serve_forever, daemon=True).start()
    known = expected()
    changed = set()
    with tempfile.TemporaryDirectory() as directory:
        proxy, port = start(options.binary, directory, app.server_address[1])
        try:
            for _ in range(options.rounds):
                failed = failures(h2spec, port, directory)
                changed |= {f"fails: {case}" for case in failed - known}
                changed |= {f"passes now, remove it from {EXPECTED.name}: {case}" for case in known - failed}
            if proxy.poll() is not None:
                changed.add("portcullis ended")
        finally:
            proxy.terminate()
            if proxy.wait(timeout=20) != 0:
                changed.add(f"portcullis ended with {proxy.returncode}")
    print("\n".join(sorted(changed)) or "as expected")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
