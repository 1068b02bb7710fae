"""What the attacks run: the proxy under test, and real servers as applications behind it. All of it on loopback, in
folders of its own, and ended by the process that was started."""

import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
BUILT = ROOT / "target" / "debug"
BINARY = Path(os.environ.get("PORTCULLIS", BUILT / "portcullis"))
JUDGE = BUILT / "examples" / "judge"
HOST = "app.localhost"
START_SECONDS = 30
SOCKET_SECONDS = 20
APACHE_MODULES = Path("/usr/lib/apache2/modules")
# Each brings its binary; the services that Debian would start are not wanted.
PACKAGES = {"nginx": "nginx-light", "apache2": "apache2-bin"}


def install():
    """nginx and Apache from Debian, where they are missing."""
    missing = [package for command, package in PACKAGES.items() if not shutil.which(command, path="/usr/sbin:/usr/bin")]
    if not missing:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        sys.exit(f"install these first: {' '.join(missing)}")
    print(f"installing {' '.join(missing)}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    subprocess.run(["apt-get", "update", "-qq"], stdout=subprocess.DEVNULL, check=True)
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)


def optimise():
    """From here on what is released runs, where no other binary is named, and whoever attacks it is optimised as well:
    figures of debug builds say little about either."""
    global BUILT
    BUILT = ROOT / "target" / "release"
    proxy = [] if "PORTCULLIS" in os.environ else ["--bin", "portcullis"]
    subprocess.run(["cargo", "build", "--release", *proxy, "--example", "flood"], cwd=ROOT, check=True)


def binary():
    """The proxy."""
    return Path(os.environ.get("PORTCULLIS", BUILT / "portcullis"))


def example(name):
    """An example of the package."""
    return BUILT / "examples" / name


def free_ports(count):
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


class Running:
    """A program in a folder of its own that listens on a port."""

    def __init__(self, name, ports):
        self.name, self.port, self.ports = name, ports[0], ports
        self.folder = Path(tempfile.mkdtemp(prefix=f"portcullis-attack-{name}-"))
        self.output = self.folder / "output"
        self.process = None

    def start(self, *command, env=None):
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=self.folder, env={**os.environ, **(env or {})},
            )
        deadline = time.monotonic() + START_SECONDS
        for port in self.ports:
            while True:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    said = self.output.read_text(errors="replace")
                    self.stop()
                    raise RuntimeError(f"{self.name} did not start:\n{said}")
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.05)
        return self

    def stop(self):
        """Ends the process; its exit status."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
        return self.process.returncode if self.process else None


NGINX = """
worker_processes 1; daemon off; {user} pid {folder}/pid; error_log {folder}/error crit;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 300s; large_client_header_buffers 8 64k; default_type text/plain;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  {servers}
}}
"""


def nginx(servers, ports):
    running = Running("nginx", ports)
    user = "user root;" if os.geteuid() == 0 else ""
    (running.folder / "conf").write_text(NGINX.format(folder=running.folder, servers=servers.replace("FOLDER", str(running.folder)), user=user))
    binary = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    return running.start(binary, "-p", running.folder, "-c", running.folder / "conf", "-e", running.folder / "error")


APACHE = """
ServerRoot {folder}
ServerName localhost
Listen 127.0.0.1:{port}
PidFile {folder}/pid
ErrorLog {folder}/error
LogLevel crit
{modules}
{user}
DocumentRoot {folder}/docs
KeepAlive On
MaxKeepAliveRequests 0
KeepAliveTimeout 300
LimitRequestLine 65536
Mutex file:{folder} default
ServerLimit 2
ThreadsPerChild 16
MaxRequestWorkers 32
StartServers 1
{config}
"""


def apache(config, modules, port, files=(), prepare=lambda folder: None):
    """Apache with these modules; `files` are made below its document root, the rest of its folder by `prepare`."""
    running = Running("apache", [port])
    (running.folder / "docs").mkdir()
    for name in files:
        file = running.folder / "docs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    running.folder.chmod(0o755)
    prepare(running.folder)
    load = "\n".join(
        f"LoadModule {module}_module {APACHE_MODULES}/mod_{module}.so" for module in ["mpm_event", "authz_core", *modules]
    )
    text = APACHE.format(
        folder=running.folder, port=port, modules=load, config=config.replace("FOLDER", str(running.folder)),
        user="User www-data\nGroup www-data" if os.geteuid() == 0 else "",
    )
    (running.folder / "conf").write_text(text)
    binary = shutil.which("apache2", path="/usr/sbin:/usr/bin")
    return running.start(binary, "-d", running.folder, "-f", running.folder / "conf", "-DFOREGROUND")


SERVICE = """
- name: {name}
  type: HTTP
  authorizationType: OIDC
  OIDCProviderURL: http://127.0.0.1:9/
  OIDCClientID: client
  OIDCClientSecret: secret
  OIDCCallbackURL: https://{host}:{exposed}
  exposedPort: {exposed}
  listenAddress: 127.0.0.1
  port: {port}
  exposedAPIs: [[app=app]]
  {extra}
"""
RULES = """
httpResourceSpecs:
- name: app
  associatedTags: [app=app]
  endpoints:
  - { URI: '/public/*', methods: ['*'], public: true }
  - { URI: '/public/secret/*', methods: ['*'], allowedScopes: [[group=staff]] }
  - { URI: '/admin/*', methods: ['*'], allowedScopes: [[group=staff]] }
log: { format: json }
"""


def configuration(services, admin):
    """Text of a configuration. `services` are (name, exposed port, application's port, further lines)."""
    parts = [SERVICE.format(name=name, host=HOST, exposed=exposed, port=port, extra=extra) for name, exposed, port, extra in services]
    return "services:" + "".join(parts) + RULES + f"admin: {{ listen: '127.0.0.1:{admin}' }}\nlimits: {{ shutdownDelay: 0s, drain: 5s }}\n"


def proxy(services):
    """The proxy; its access records are lines of `output`."""
    (admin,) = free_ports(1)
    running = Running("portcullis", [exposed for _, exposed, _, _ in services])
    file = running.folder / "portcullis.yaml"
    file.write_text(configuration(services, admin))
    return running.start(BINARY, "run", "-c", file, env={"STATE_DIRECTORY": str(running.folder)})


TLS = ssl.create_default_context()
TLS.check_hostname = False
TLS.verify_mode = ssl.CERT_NONE


def connect(port, tls=True):
    plain = socket.create_connection(("127.0.0.1", port), timeout=SOCKET_SECONDS)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return TLS.wrap_socket(plain, server_hostname=HOST) if tls else plain


def read_answer(stream):
    """One answer to a GET: status, fields by lower-case name, body; `None` where the connection ended before it."""
    line = stream.readline()
    if not line.startswith(b"HTTP/1."):
        return None
    status, fields = int(line.split(b" ", 2)[1]), {}
    while (line := stream.readline()) not in (b"\r\n", b""):
        name, _, value = line.partition(b":")
        fields[name.lower()] = value.strip()
    if b"chunked" in fields.get(b"transfer-encoding", b""):
        body = b""
        while size := int(stream.readline().split(b";")[0] or b"0", 16):
            body += stream.read(size)
            stream.readline()
        stream.readline()
        return status, fields, body
    return status, fields, stream.read(int(fields.get(b"content-length", 0)))


def ask_all(port, requests, tls=False, batch=100):
    """Answers to requests (bytes) in order, pipelined. Where the other side ends the connection after an answer, the rest
    is sent again on another one."""
    answers, connection, stream = [], None, None
    while len(answers) < len(requests):
        if connection is None:
            connection = connect(port, tls)
            stream = connection.makefile("rb")
            first = True
        sent = requests[len(answers) : len(answers) + batch]
        alive = True
        try:
            connection.sendall(b"".join(sent))
        except OSError:
            alive = False
        for _ in sent:
            try:
                answer = read_answer(stream)
            except OSError:
                answer = None
            if answer is None:
                alive = False
                if first:
                    # A new connection and no answer at all to its first request.
                    answers.append((0, {}, b""))
                break
            answers.append(answer)
            first = False
            if answer[1].get(b"connection", b"").lower() == b"close":
                alive = False
                break
        if not alive:
            stream.close()
            connection.close()
            connection = None
    return answers
