#!/usr/bin/env python3
"""Scans the TLS of the binary, with a certificate of its own authority, by testssl.sh and sslyze.

    tests/tls/scan.py [--binary target/debug/portcullis]

Installs what it needs: testssl.sh from Debian where it is missing and this is root, sslyze from PyPI, pinned, into
.tools/tls. A scan that can't run is a failure. Exit status: 0 if both find nothing wrong, else 1.
"""

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
TOOLS = ROOT / ".tools" / "tls"
START_SECONDS = 30
SCAN_SECONDS = 300
# Protocols, ciphers, forward secrecy, the server's preferences, its certificate, HTTP headers, vulnerabilities.
TESTSSL = ["testssl", "--quiet", "--color", "0", "--warnings", "off", "--ip", "127.0.0.1"]
PARTS = ["-p", "-s", "-f", "-P", "-S", "-h", "-U"]
# What testssl has to have said, or it has not looked.
SAID = [
    r"SSLv3 +not offered \(OK\)",
    r"TLS 1 +not offered",
    r"TLS 1\.1 +not offered",
    r"TLS 1\.2 +offered \(OK\)",
    r"TLS 1\.3 +offered \(OK\)",
    r"ALPN/HTTP2 +h2, http/1\.1 \(offered\)",
    r"Obsolete CBC ciphers .* not offered",
    r"Trust \(hostname\) +Ok via SAN",
    r"Chain of trust +Ok",
    r"Strict Transport Security +365 days",
    r"Heartbleed .*not vulnerable \(OK\)",
    r"LUCKY13 .*not vulnerable \(OK\)",
]
CONFIGURATION = """
services:
- name: app
  type: HTTP
  authorizationType: OIDC
  OIDCProviderURL: http://127.0.0.1:{closed}
  OIDCClientID: scanned
  OIDCClientSecret: secret-of-the-scan
  OIDCCallbackURL: https://localhost:{port}
  hosts: [localhost]
  listenAddress: 127.0.0.1
  port: {closed}
  exposedPort: {port}
  hsts: 365d
  exposedAPIs: [[app=scanned]]
httpResourceSpecs:
- name: app
  associatedTags: [app=scanned]
  endpoints:
  - {{ URI: /*, methods: [GET], allowedScopes: [['email=*']] }}
admin: {{ listen: '127.0.0.1:{admin}' }}
limits: {{ shutdownDelay: 0s }}
"""


def install():
    if not shutil.which("testssl"):
        if os.geteuid() != 0 or not shutil.which("apt-get"):
            sys.exit("install testssl.sh first")
        print("installing testssl.sh", flush=True)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], stdout=subprocess.DEVNULL, check=True)
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "testssl.sh"]
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    stamp = TOOLS / "requirements.txt"
    wanted = REQUIREMENTS.read_text()
    if not stamp.exists() or stamp.read_text() != wanted:
        print("installing sslyze into .tools/tls", flush=True)
        shutil.rmtree(TOOLS, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", TOOLS], check=True)
        pip = [TOOLS / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "-r", REQUIREMENTS], check=True)
        stamp.write_text(wanted)


def free_ports(count):
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def run(*command):
    result = subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SCAN_SECONDS,
        check=False,
    )
    return result.returncode, result.stdout + result.stderr


def testssl(address, authority):
    """Nothing that testssl.sh calls "NOT ok", and all that it has to have looked at."""
    _, text = run(*TESTSSL, "--add-ca", authority, *PARTS, address)
    wrong = [line.strip() for line in text.splitlines() if "NOT ok" in line]
    wrong += [f"not said: {pattern}" for pattern in SAID if not re.search(pattern, text)]
    return not wrong, "; ".join(wrong) or f"{len(text.splitlines())} lines, none of them NOT ok"


def testssl_notices(address, _):
    """Without the authority the same scan has to be unhappy: it sees what is wrong."""
    _, text = run(*TESTSSL, "-S", address)
    found = re.search(r"Chain of trust +NOT ok", text)
    return bool(found), "an unknown authority is NOT ok" if found else text[-300:]


def sslyze(address, authority):
    """Mozilla's intermediate configuration, a trusted chain, and no early data."""
    code, text, results = sslyze_report(authority, "--mozilla_config", "intermediate", address)
    compliant = code == 0 and "OK - Compliant" in text
    (deployment,) = results["certificate_info"]["result"]["certificate_deployments"]
    trusted = any(check["was_validation_successful"] for check in deployment["path_validation_results"])
    _, _, results = sslyze_report(authority, "--early_data", address)
    early = results["tls_1_3_early_data"]["result"]["supports_early_data"]
    words = f"intermediate: {'compliant' if compliant else text[-500:]}; trusted: {trusted}; early data: {early}"
    return compliant and trusted and early is False, words


def sslyze_report(authority, *arguments):
    """Exit status, output, and the results of the only server."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [TOOLS / "bin" / "sslyze", "--certinfo_ca_file", authority, "--json_out", report, *arguments]
        code, text = run(*command)
        (scan,) = json.loads(report.read_text())["server_scan_results"]
    return code, text, scan["scan_result"]


def serve(binary, folder):
    """The binary with a service of its own certificate; its process, its address and its authority."""
    port, admin, closed = free_ports(3)
    file = folder / "portcullis.yaml"
    file.write_text(CONFIGURATION.format(port=port, admin=admin, closed=closed))
    environment = {**os.environ, "STATE_DIRECTORY": str(folder / "state")}
    with (folder / "output").open("wb") as output:
        command = [binary, "run", "-c", file]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return process, f"localhost:{port}", folder / "state" / "certs" / "ca.pem"
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                sys.exit(f"the binary did not start:\n{(folder / 'output').read_text(errors='replace')}")
            time.sleep(0.05)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--binary", type=Path, default=ROOT / "target" / "debug" / "portcullis")
    binary = parser.parse_args().binary.resolve()
    install()
    scans = {"testssl": testssl, "testssl notices a mistake": testssl_notices, "sslyze": sslyze}
    fine = True
    with tempfile.TemporaryDirectory(prefix="portcullis-tls-") as folder:
        process, address, authority = serve(binary, Path(folder))
        try:
            for name, scan in scans.items():
                try:
                    passed, words = scan(address, authority)
                except Exception as error:  # pylint: disable=broad-except
                    passed, words = False, f"could not run: {type(error).__name__}: {error}"
                print(f"{'pass' if passed else 'FAIL'}  {name}: {words}", flush=True)
                fine = fine and passed
        finally:
            process.terminate()
            process.wait(timeout=30)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
