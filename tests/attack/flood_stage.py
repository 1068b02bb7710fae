"""What the floods are measured with: the proxy, the development provider, an application for the attacks, people who use
the proxy and an application for them, each a process of its own, and what the system says about the one under attack.

The people have an application to themselves. The other one has its hands full with some of the attacks, whoever asks it,
and how long that takes it says nothing about the proxy."""

import json
import os
import resource
import subprocess
import time
from pathlib import Path

import servers

# As the flood knows it.
USERS_HOST = "users.localhost"
MEBIBYTE = 1 << 20
QUIET_SECONDS = 3
MOST_SECONDS = 400
TICKS = os.sysconf("SC_CLK_TCK")

# With the small budget everything that has a timeout would take longer than the attack itself.
SMALL_LIMITS = {"header_timeout": 2, "handshake_timeout": 2, "body_idle_timeout": 2, "response_timeout": 5}
WHOLE_LIMITS = {"header_timeout": 10, "handshake_timeout": 5, "body_idle_timeout": 10, "response_timeout": 15}

CONFIGURATION = """
services:
- name: app
  type: HTTP
  authorizationType: OIDC
  OIDCProviderURL: http://127.0.0.1:{provider}
  OIDCClientID: portcullis
  OIDCClientSecret: development-only
  OIDCCallbackURL: https://{host}:{port}
  OIDCScopes: [openid, email]
  exposedPort: {port}
  listenAddress: 127.0.0.1
  port: {app}
  exposedAPIs: [[app=app]]
- name: app-of-users
  type: HTTP
  authorizationType: OIDC
  OIDCProviderURL: http://127.0.0.1:{provider}
  OIDCClientID: portcullis
  OIDCClientSecret: development-only
  OIDCCallbackURL: https://{users_host}:{port}
  OIDCScopes: [openid, email]
  exposedPort: {port}
  listenAddress: 127.0.0.1
  port: {users_app}
  exposedAPIs: [[app=app]]
- name: app-of-http2
  type: HTTP
  authorizationType: OIDC
  OIDCProviderURL: http://127.0.0.1:{provider}
  OIDCClientID: portcullis
  OIDCClientSecret: development-only
  OIDCCallbackURL: https://{host}:{http2_port}
  exposedPort: {http2_port}
  listenAddress: 127.0.0.1
  upstream: h2c://127.0.0.1:{http2_app}
  exposedAPIs: [[app=app]]
httpResourceSpecs:
- name: app
  associatedTags: [app=app]
  endpoints:
  - {{ URI: '/public/*', methods: ['*'], public: true }}
  - {{ URI: '/app/*', methods: ['*'], allowedScopes: [['email=*@example.com']] }}
log: {{ format: json }}
admin: {{ listen: '127.0.0.1:{admin}' }}
limits:
  shutdownDelay: 0s
  drain: 5s
  headerTimeout: {header_timeout}s
  handshakeTimeout: {handshake_timeout}s
  bodyIdleTimeout: {body_idle_timeout}s
  responseTimeout: {response_timeout}s
"""


class Process:
    """What the system says about a process."""

    def __init__(self, pid):
        self.folder = Path(f"/proc/{pid}")

    def _status(self, name):
        for line in (self.folder / "status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
        raise KeyError(name)

    def resident(self):
        return self._status("VmRSS")

    def peak(self):
        """The most memory that was resident since `forget_peak`."""
        return self._status("VmHWM")

    def forget_peak(self):
        (self.folder / "clear_refs").write_text("5")

    def seconds(self):
        """What it has taken of the processors."""
        fields = (self.folder / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def sockets(self, port):
        """How many descriptors are connections that came to this port, and how many there are in all."""
        links = []
        for entry in os.scandir(self.folder / "fd"):
            try:
                links.append(os.readlink(entry.path))
            except OSError:
                pass  # Closed meanwhile.
        here = set()
        for line in (self.folder / "net" / "tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if int(fields[1].partition(":")[2], 16) == port:
                here.add(f"socket:[{fields[9]}]")
        return sum(link in here for link in links), len(links)


class Users:
    """Who uses the proxy, and what became of their requests."""

    def __init__(self, plan):
        self.running = servers.Running("users", [plan["port"]])
        self.running.start(servers.example("flood"), "users", json.dumps(plan))
        self.read, self.records = 0, []
        deadline = time.monotonic() + servers.START_SECONDS
        while '"ready"' not in self.running.output.read_text():
            if time.monotonic() > deadline or self.running.process.poll() is not None:
                said = self.running.output.read_text()
                self.running.stop()
                raise RuntimeError(f"nobody could log in: {said}")
            time.sleep(0.05)

    def between(self, begin, end):
        """The records of requests that began in this time and have ended, and of those that failed in it."""
        with self.running.output.open() as output:
            output.seek(self.read)
            for line in iter(output.readline, ""):
                if not line.endswith("\n"):
                    break
                self.read += len(line.encode())
                if line.startswith('{"at"'):
                    self.records.append(json.loads(line))
        if self.running.process.poll() is not None:
            raise RuntimeError("the users are gone")

        def counts(record):
            ended, began = record["at"], record["at"] - record["ms"] / 1000
            return begin <= began <= end or (record["failed"] and begin <= ended <= end)

        return [record for record in self.records if counts(record)]


def raise_limit():
    """As many open files as may be: a client and the proxy need one or two for each connection."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Stage:
    """The proxy and all around it. What its users cost and how long they wait is measured, or known from another."""

    def __init__(self, whole, like=None):
        self.limits = WHOLE_LIMITS if whole else SMALL_LIMITS
        self.like = like
        self.most_files = raise_limit()
        self.running = []
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self):
        port, http2_port, provider, app, http2_app, users_app, unused, admin = servers.free_ports(8)
        self.plan, self.http2_port = {"port": port, "provider": provider, **self.limits}, http2_port
        self._run("app", app, http2_app).start(servers.example("flood"), "app", app, http2_app)
        self._run("app-of-users", users_app, unused).start(servers.example("flood"), "app", users_app, unused)
        callback = f"https://{USERS_HOST}:{port}/aporeto/oidc/callback"
        idp = self._run("idp", provider)
        idp.start(servers.binary(), "dev-idp", "--port", provider, "--redirect-uri", callback)
        self.proxy = self._run("portcullis", port)
        names = {"host": servers.HOST, "port": port, "provider": provider, "app": app, "admin": admin}
        names |= {"http2_port": http2_port, "http2_app": http2_app}
        names |= {"users_host": USERS_HOST, "users_app": users_app}
        file = self.proxy.folder / "portcullis.yaml"
        file.write_text(CONFIGURATION.format(**names, **self.limits))
        folder = {"STATE_DIRECTORY": str(self.proxy.folder)}
        self.proxy.start(servers.binary(), "run", "-c", file, env=folder)
        self.process = Process(self.proxy.process.pid)
        self.idle = self.process.resident()
        self.users = Users(self.plan)
        self.running.append(self.users.running)
        self._measure_base()

    def _run(self, name, *ports):
        running = servers.Running(name, ports)
        self.running.append(running)
        return running

    def _measure_base(self):
        """What the users cost and how long they wait, with nobody else there. The first second is that of caches."""
        time.sleep(1)
        if self.like:
            self.rate, self.base = self.like.rate, self.like.base
        else:
            begin, before = time.time(), self.process.seconds()
            time.sleep(QUIET_SECONDS)
            self.rate = (self.process.seconds() - before) / (time.time() - begin)
            self.base = self.users.between(begin, time.time())
        _, self.descriptors = self.process.sockets(self.plan["port"])

    def stop(self):
        for running in reversed(self.running):
            running.stop()

    def end(self):
        """Ends users and proxy as an operator would; the proxy's exit status."""
        for running in (self.users.running, self.proxy):
            running.process.terminate()
            running.process.wait(timeout=20)
        return self.proxy.process.returncode


def renegotiate(port, count):
    """Asks for it by TLS 1.2 (RFC 5746 section 4.5 lets a server refuse)."""
    client = f"openssl s_client -connect 127.0.0.1:{port} -servername {servers.HOST} -tls1_2"
    once = f"(echo R; echo R; echo R; sleep 0.1) | {client} >>renegotiation 2>&1"
    return ["sh", "-c", f"for i in $(seq {count}); do {once}; done"]


def judge_renegotiation(folder, count):
    heard = (folder / "renegotiation").read_text(errors="replace")
    refused = heard.count("no renegotiation")
    wrong = [] if refused == count else [f"refused on {refused} connections of {count}"]
    return {"connections": 1, "wrong": wrong, "words": f"refused on each of {refused} connections"}


def attacked(name, plan, folder):
    """Runs an attack to its end: what it says of itself, and its processor time."""
    by_openssl = name == "renegotiation"
    command = [str(servers.example("flood")), "attack", name, json.dumps(plan)]
    if by_openssl:
        command = renegotiate(plan["port"], plan["count"])
    output = folder / "attack"
    with output.open("wb") as file:
        streams = {"stdout": file, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
        process = subprocess.Popen(command, cwd=folder, **streams)
    deadline = time.monotonic() + MOST_SECONDS
    while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            process.kill()
        time.sleep(0.02)
    _, status, usage = ended
    process.returncode = os.waitstatus_to_exitcode(status)
    taken = usage.ru_utime + usage.ru_stime
    if by_openssl:
        return judge_renegotiation(folder, plan["count"]), taken
    said = output.read_text(errors="replace").strip()
    try:
        return json.loads(said.splitlines()[-1]), taken
    except (IndexError, ValueError):
        wrong = [f"the attacker ended with {process.returncode}: {said[-400:]}"]
        return {"connections": 0, "wrong": wrong, "words": ""}, taken


def logins(plan, count):
    """Starts so many logins at once."""
    command = [str(servers.example("flood")), "logins", json.dumps({**plan, "count": count})]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
