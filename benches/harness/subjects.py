"""The proxies that are compared: how each is configured, started, and logged in to.

Owns the templates in benches/subjects. Every subject gets one worker on the proxy's core, TLS 1.3 only, the same
ECDSA P-256 certificate, a file for its records, and warm connections to the application.
"""

import base64
import os
import re
import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path

from . import install
from .browser import Browser
from .processes import Failed, Running, listens

TEMPLATES = Path(__file__).resolve().parent.parent / "subjects"
USER = "bob"


@dataclass
class World:
    """What all subjects of a run share."""

    directory: Path
    app_port: int
    issuer: str
    client_id: str
    client_secret: str
    certificate: Path
    key: Path
    cores: set
    ports: dict
    binary: Path


@dataclass
class Subject:
    """A proxy, ready to be started."""

    name: str
    title: str
    #: Gives the command and its environment, after writing what it needs.
    prepare: object
    #: Gives the version in one line.
    version: object
    #: Whether a login is needed, and with it a cookie.
    oidc: bool = False
    #: Whether it can be started with one process under valgrind.
    single: bool = False


class Proxy:
    """A subject that is up."""

    def __init__(self, subject, world, workers=1, logged=True, cores=None, wrapper=(), port=None, single=False):
        self.subject, self.world = subject, world
        self.port = port or world.ports[subject.name]
        self.origin = f"https://localhost:{self.port}"
        if listens(self.port):
            raise Failed(f"{subject.name}: somebody listens on port {self.port} already")
        self.output = world.directory / f"{subject.name}{'' if logged else '-unlogged'}.out"
        values = {
            "NAME": subject.name, "PORT": self.port, "APP_PORT": world.app_port, "DIRECTORY": world.directory,
            "ISSUER": world.issuer, "ISSUER_PORT": world.issuer.rsplit(":", 1)[1], "CLIENT_ID": world.client_id,
            "CLIENT_SECRET": world.client_secret, "CERTIFICATE": world.certificate, "KEY": world.key,
            "WORKERS": workers,
        }
        command, environment = subject.prepare(world, values, logged, single)
        self.running = Running(
            [*wrapper, *command],
            cores or world.cores,
            self.output if logged else Path(os.devnull),
            errors=Path(f"{self.output}.err"),
            env=environment,
        )
        self.running.wait_for_port(self.port)

    def log_in(self):
        """The Cookie header of somebody who has just logged in."""
        browser = Browser()
        browser.log_in(f"{self.origin}/", USER)
        return browser.cookie_header(self.origin)

    def stop(self):
        self.running.stop()


def fill(template, values):
    """The text of a template; a name without a value is a mistake."""
    text = (TEMPLATES / template).read_text()
    return re.sub(r"@([A-Z_]+)@", lambda found: str(values[found[1]]), text)


def write(world, name, text):
    path = world.directory / name
    path.write_text(text)
    return path


def first_line(*command):
    """Of what a command prints."""
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return result.stdout.strip().splitlines()[0] if result.stdout.strip() else "?"


def prepare_nginx(world, values, logged, single):
    log = f"{world.directory}/nginx-access.log combined buffer=64k flush=1s" if logged else "off"
    text = fill("nginx.conf", {**values, "ACCESS_LOG": log})
    if single:
        text = "master_process off;\n" + text
    name = "nginx.conf" if logged else "nginx-unlogged.conf"
    config = write(world, name, text.replace("nginx.pid", f"{name}.pid"))
    return ["nginx", "-p", world.directory, "-c", config], {}


def prepare_portcullis(world, values, logged, single):
    admin = world.ports["portcullis-admin" if logged else "portcullis-unlogged-admin"]
    directory = world.directory / ("portcullis" if logged else "portcullis-unlogged")
    directory.mkdir(exist_ok=True)
    text = fill("portcullis.yaml", {**values, "ADMIN_PORT": admin, "DIRECTORY": directory})
    config = directory / "portcullis.yaml"
    config.write_text(text)
    return [world.binary, "run", "-c", config], {}


def prepare_envoy(filters):
    def prepare(world, values, logged, single):
        for name in ("token", "hmac"):
            secret = world.client_secret if name == "token" else secrets.token_urlsafe(32)
            text = fill("envoy-secret.yaml", {"SECRET_NAME": name, "SECRET": secret})
            write(world, f"{name}-secret.yaml", text)
        inner = fill(filters, values).rstrip() if filters else ""
        config = write(world, f"{values['NAME']}.yaml", fill("envoy.yaml", {**values, "FILTERS": inner}))
        return [
            install.envoy(), "-c", config, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning",
        ], {}

    return prepare


def prepare_haproxy(world, values, logged, single):
    bundle = write(world, "bundle.pem", world.certificate.read_text() + world.key.read_text())
    config = write(world, "haproxy.cfg", fill("haproxy.cfg", {**values, "BUNDLE": bundle}))
    return ["haproxy", "-db", "-f", config], {}


def prepare_apache(world, values, logged, single):
    root = os.geteuid() == 0
    names = {"USER": "www-data" if root else os.environ.get("USER", "nobody"), "PASSPHRASE": secrets.token_hex(16)}
    names["GROUP"] = names["USER"]
    if root:
        # The worker gives up its rights and still has to come in.
        world.directory.chmod(0o755)
    config = write(world, "apache.conf", fill("apache-openidc.conf", {**values, **names}))
    return ["/usr/sbin/apache2", "-DFOREGROUND", "-f", config], {}


def prepare_caddy(world, values, logged, single):
    config = write(world, "Caddyfile", fill("Caddyfile", values))
    environment = {"GOMAXPROCS": "1", "HOME": str(world.directory)}
    return [install.caddy(), "run", "--adapter", "caddyfile", "--config", config], environment


def prepare_oauth2_proxy(world, values, logged, single):
    secret = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    config = write(world, "oauth2-proxy.cfg", fill("oauth2-proxy.cfg", {**values, "COOKIE_SECRET": secret}))
    return [install.oauth2_proxy(), "--config", config], {"GOMAXPROCS": "1"}


SUBJECTS = {
    each.name: each
    for each in [
        Subject("nginx", "nginx, no authentication", prepare_nginx,
                lambda world: first_line("nginx", "-v").removeprefix("nginx version: "), single=True),
        Subject("portcullis", "Portcullis", prepare_portcullis,
                lambda world: first_line(str(world.binary), "--version"), oidc=True, single=True),
        Subject("envoy-oauth2", "Envoy, oauth2 filter", prepare_envoy("envoy-oauth2.filter.yaml"),
                lambda world: envoy_version(), oidc=True),
        Subject("haproxy", "HAProxy, no authentication", prepare_haproxy, lambda world: first_line("haproxy", "-v")),
        Subject("apache-openidc", "Apache, mod_auth_openidc", prepare_apache,
                lambda world: apache_version(), oidc=True),
        Subject("envoy", "Envoy, no authentication", prepare_envoy(None), lambda world: envoy_version()),
        Subject("caddy", "Caddy, no authentication", prepare_caddy,
                lambda world: "caddy " + first_line(str(install.caddy()), "version").split()[0]),
        Subject("oauth2-proxy", "oauth2-proxy", prepare_oauth2_proxy,
                lambda world: first_line(str(install.oauth2_proxy()), "--version"), oidc=True),
    ]
}

#: Where each OIDC subject wants to be called back.
CALLBACKS = {
    "portcullis": "/aporeto/oidc/callback",
    "envoy-oauth2": "/callback",
    "apache-openidc": "/callback",
    "oauth2-proxy": "/oauth2/callback",
}


def envoy_version():
    return "envoy " + install.ENVOY_VERSION


def apache_version():
    text = first_line("/usr/sbin/apache2", "-v").removeprefix("Server version: ")
    module = first_line("dpkg-query", "-W", "-f=${Version}", "libapache2-mod-auth-openidc")
    return f"{text}, mod_auth_openidc {module}"
