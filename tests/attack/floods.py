"""Floods and stalls: what each costs the proxy, its attacker, and the people who use the proxy meanwhile.

One proxy for all rows, with its default limits but for a shorter `bodyIdleTimeout` (with the small budget also shorter
`headerTimeout` and `handshakeTimeout`), the development provider, and an application. Beside every attack, people who
are logged in ask for pages over connections that they keep, over HTTP/2 and over new ones, and others log in.

A row passes if
- the attack met what its row of the catalogue wants (the attacker sees to that, and says so),
- no request of anybody else failed, and their 99th percentile stayed within bounds,
- resident memory stayed at or below idle + 128 MiB + 32 KiB for each open connection,
- the proxy took at most 10 times the processor time of the attacking process; what the users cost is taken off,
- afterwards the proxy came back to the descriptors that it had, and it wrote of no panic and no error.

What the provider may do to the proxy (DOS-09, RP-27) is in tests/it/provider_floods.rs.
"""

import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import servers

FLOOD = servers.ROOT / "target" / servers.BINARY.parent.name / "examples" / "flood"
if not FLOOD.exists():
    FLOOD = servers.ROOT / "target" / "debug" / "examples" / "flood"
MEBIBYTE = 1 << 20
# The bounds of the catalogue.
ALLOWED_BYTES = 128 * MEBIBYTE
ALLOWED_BYTES_PER_CONNECTION = 32 * 1024
ALLOWED_RATIO = 10
FLAT_BYTES = 16 * MEBIBYTE
# What the users' part of the processor time may be misjudged by: a clock that ticks in hundredths, and rates that vary.
GRAIN_SECONDS = 0.15
# Where the catalogue wants it, the 99th percentile may double; below some milliseconds it is the machine's own. In the
# other rows attackers, users, application and proxy share two processors, and nobody may have to wait for long.
P99_FACTOR, P99_FLOOR_MS, P99_MOST_MS = 2, 100, 3000
# Connections of the users, and descriptors that come and go with them.
USERS = 12
BASE_SECONDS = 30
# Connections to the application that each of two workers may keep for later.
POOLED = 2 * 128
QUIET_SECONDS = 3
MOST_SECONDS = 400
TICKS = os.sysconf("SC_CLK_TCK")

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
httpResourceSpecs:
- name: app
  associatedTags: [app=app]
  endpoints:
  - {{ URI: '/public/*', methods: ['*'], public: true }}
  - {{ URI: '/app/*', methods: ['*'], allowedScopes: [['email=*@example.com']] }}
log: {{ format: json }}
admin: {{ listen: '127.0.0.1:{admin}' }}
limits: {{ shutdownDelay: 0s, drain: 5s, headerTimeout: {header_timeout}s, handshakeTimeout: {handshake_timeout}s, bodyIdleTimeout: {body_idle_timeout}s }}
"""
SMALL_LIMITS = {"header_timeout": 2, "handshake_timeout": 2, "body_idle_timeout": 2}
WHOLE_LIMITS = {"header_timeout": 10, "handshake_timeout": 5, "body_idle_timeout": 10}


@dataclass
class Row:
    """A row of the table: its name in the catalogue, what is done, and how much of it, small and whole."""

    name: str
    what: str
    attack: str
    small: dict
    whole: dict
    # Logins that must all finish while the attack goes on, small and whole.
    logins: tuple = (0, 0)
    # Memory may not even grow by more than this.
    flat: int = 0
    # Others may not feel it.
    unfelt: bool = False
    # All places for connections are taken, so that newcomers wait for theirs.
    crowded: bool = False


def counted(small, whole, seconds=(2, 10)):
    return {"count": small, "seconds": seconds[0]}, {"count": whole, "seconds": seconds[1]}


ROWS = [
    Row("DOS-04", "heads and targets of 64 KiB, 1,000 fields", "large-heads", *counted(100, 2_000)),
    Row("SES-08 SES-14", "cookies of 64 KiB, 1,000 pairs, false chunks", "cookies", *counted(90, 1_800)),
    Row("SMG-11", "chunk extensions of 1 MiB, tiny chunks with 4 KiB each", "chunk-extensions", *counted(30, 600)),
    Row("DOS-06", "uploads without end to a slow and a fast application", "endless-uploads", *counted(4, 4, (2, 20)), flat=FLAT_BYTES),
    Row("DOS-07", "pipelined requests on one connection, in order", "pipelined", *counted(2_000, 10_000)),
    Row("DOS-07", "pipelined requests, no answer read", "pipelined-unread", *counted(20, 200)),
    Row("DOS-08", "anonymous requests for protected pages during logins", "anonymous", *counted(6_400, 100_000), logins=(10, 50)),
    Row("RP-39", "garbage as back-channel logout, 1,000 a second", "logout-garbage", *counted(1_500, 10_000), unfelt=True),
    Row("RP-23", "forged logout tokens, each with its own key id", "forged-key-ids", *counted(1_000, 10_000), unfelt=True),
    Row("H2-01", "rapid reset, on one connection after the other", "rapid-reset", *counted(20_000, 100_000), unfelt=True),
    Row("H2-01", "requests that make the server reset", "made-you-reset", *counted(10_000, 100_000), unfelt=True),
    Row("H2-03", "CONTINUATION without end", "continuation", *counted(20_000, 100_000)),
    Row("H2-03", "HPACK bombs", "hpack", *counted(100, 1_000)),
    Row("H2-03", "header lists of 1 MiB", "header-list", *counted(1_300, 26_000)),
    Row("H2-04", "PING, SETTINGS, PRIORITY, empty DATA, unknown frames", "control-frames", *counted(60_000, 300_000, (4, 20))),
    Row("H2-04", "WINDOW_UPDATE by one, each with a PING", "window-updates", *counted(50_000, 500_000)),
    Row("H2-04", "100 streams a connection, no window", "zero-window", *counted(10, 100)),
    Row("DOS-02", "100 streams a connection, answers unread", "unread-streams", *counted(10, 100)),
    Row("DOS-02", "100 uploads a connection that nobody takes", "unread-upload-streams", *counted(20, 90, (3, 10))),
    Row("DOS-02", "uploads on HTTP/1 that nobody takes", "unread-uploads", *counted(100, 2_000, (3, 10))),
    Row("DOS-02", "answers unread on HTTP/1", "slow-readers", *counted(100, 2_000)),
    Row("DOS-02", "uploads of a byte a second", "slow-bodies", *counted(100, 2_000, (4, 20))),
    Row("DOS-02", "uploads that stand still", "stalled-bodies", *counted(100, 2_000)),
    Row("WS", "idle WebSockets", "websockets-idle", *counted(100, 2_000, (2, 10))),
    Row("WS", "empty messages without end", "websockets-tiny", *counted(4, 8, (2, 10))),
    Row("WS", "unread WebSockets", "websockets-unread", *counted(50, 1_000, (2, 10))),
    Row("TLS", "KeyUpdate without end", "key-updates", *counted(4_000, 100_000)),
    Row("TLS", "renegotiation asked for", "renegotiation", *counted(5, 50)),
    Row("DOS-03", "one ClientHello again and again", "hellos", *counted(500, 10_000)),
    Row("DOS-03", "a ClientHello and then nothing", "stalled-hellos", *counted(200, 3_000)),
    Row("DOS-03", "ClientHello byte by byte", "split-hellos", *counted(100, 1_000)),
    Row("DOS-01", "heads of which a field comes each second", "slow-heads", *counted(300, 5_000)),
    Row("DOS-01", "a byte of the request line each second", "byte-a-second", *counted(200, 2_000)),
    Row("DOS-03", "connections without a ClientHello", "silent", *counted(2_000, 10_000), crowded=True),
    Row("DOS-05", "idle TLS connections", "idle", *counted(500, 10_000, (2, 10)), unfelt=True),
]


class Process:
    """What the system says about the proxy."""

    def __init__(self, pid):
        self.folder = Path(f"/proc/{pid}")

    def status(self, name):
        for line in (self.folder / "status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
        raise KeyError(name)

    def resident(self):
        return self.status("VmRSS")

    def peak(self):
        return self.status("VmHWM")

    def forget_peak(self):
        (self.folder / "clear_refs").write_text("5")

    def seconds(self):
        fields = (self.folder / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def sockets(self, port):
        """The descriptors of connections that came to this port, and all descriptors."""
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
        self.running.start(FLOOD, "users", json.dumps(plan))
        self.read, self.records = 0, []
        deadline = time.monotonic() + servers.START_SECONDS
        while '"ready"' not in self.running.output.read_text():
            if time.monotonic() > deadline or self.running.process.poll() is not None:
                raise RuntimeError(f"nobody could log in: {self.running.output.read_text()}")
            time.sleep(0.05)

    def between(self, begin, end):
        """The records of requests that ended in this time."""
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
        return [record for record in self.records if begin <= record["at"] <= end]


def p99(records, *whats):
    times = sorted(record["ms"] for record in records if record["what"] in whats)
    return times[min(len(times) - 1, len(times) * 99 // 100)] if times else 0.0


def raise_limit():
    """As many open files as may be: a client and the proxy need one or two for each connection."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def renegotiate(port, count):
    """Asks for it by TLS 1.2, which the proxy must not grant (RFC 5746 allows to refuse all of it)."""
    client = f"openssl s_client -connect 127.0.0.1:{port} -servername {servers.HOST} -tls1_2"
    return ["sh", "-c", f"for i in $(seq {count}); do (echo R; echo R; echo R; sleep 0.1) | {client} >>renegotiation 2>&1; done"]


def attacked(row, plan, folder):
    """Runs the attack to its end: what it says of itself, and its processor time."""
    if row.attack == "renegotiation":
        command = renegotiate(plan["port"], plan["count"])
    else:
        command = [str(FLOOD), "attack", row.attack, json.dumps(plan)]
    output = folder / "attack"
    with output.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=folder)
    deadline = time.monotonic() + MOST_SECONDS
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        if time.monotonic() > deadline:
            process.kill()
            deadline += MOST_SECONDS
        time.sleep(0.02)
    process.returncode = os.waitstatus_to_exitcode(status)
    said = output.read_text(errors="replace").strip()
    if row.attack == "renegotiation":
        heard = (folder / "renegotiation").read_text(errors="replace")
        asked = heard.count("RENEGOTIATING")
        wrong = [] if asked else ["nothing was asked for"]
        wrong += ["a renegotiation was granted"] if "read R BLOCK\nread R BLOCK" in heard else []
        outcome = {"connections": 1, "wrong": wrong, "words": f"{plan['count']} connections, {asked} times asked, none granted"}
    else:
        try:
            outcome = json.loads(said.splitlines()[-1])
        except (IndexError, ValueError):
            outcome = {"connections": 0, "wrong": [f"the attacker ended with {process.returncode}: {said[-400:]}"], "words": ""}
    return outcome, usage.ru_utime + usage.ru_stime


class Stage:
    """The proxy and all around it."""

    def __init__(self, whole):
        self.whole, self.limits = whole, WHOLE_LIMITS if whole else SMALL_LIMITS
        self.most_files = raise_limit()
        self.stopping = []
        try:
            self.start()
        except BaseException:
            self.stop()
            raise

    def start(self):
        port, provider, app, admin = servers.free_ports(4)
        self.plan = {"port": port, "provider": provider, **self.limits}
        application = servers.Running("app", [app])
        self.stopping.append(application)
        application.start(FLOOD, "app", app)
        idp = servers.Running("idp", [provider])
        self.stopping.append(idp)
        callback = f"https://{servers.HOST}:{port}/aporeto/oidc/callback"
        idp.start(servers.BINARY, "dev-idp", "--port", provider, "--redirect-uri", callback)
        self.proxy = servers.Running("portcullis", [port])
        self.stopping.append(self.proxy)
        file = self.proxy.folder / "portcullis.yaml"
        file.write_text(CONFIGURATION.format(host=servers.HOST, port=port, provider=provider, app=app, admin=admin, **self.limits))
        self.proxy.start(servers.BINARY, "run", "-c", file, env={"STATE_DIRECTORY": str(self.proxy.folder)})
        self.process = Process(self.proxy.process.pid)
        self.idle = self.process.resident()
        self.users = Users(self.plan)
        self.stopping.append(self.users.running)
        self.measure_base()

    def measure_base(self):
        """What the users cost and wait, with nobody else there. The first second is that of caches."""
        time.sleep(1)
        begin, before = time.time(), self.process.seconds()
        time.sleep(QUIET_SECONDS)
        self.rate = (self.process.seconds() - before) / (time.time() - begin)
        self.base = self.users.between(begin, time.time())
        _, self.descriptors = self.process.sockets(self.plan["port"])

    def stop(self):
        for running in reversed(self.stopping):
            running.stop()

    def reduced(self, row, plan):
        """Fewer connections where the system allows no more; said aloud."""
        most = self.most_files // 2 - 300
        if row.attack in ("idle", "silent", "slow-heads", "slow-readers", "slow-bodies", "stalled-bodies") and plan["count"] > most:
            print(f"  !!! {row.name} {row.what}: only {most} instead of {plan['count']}, for a process may open {self.most_files} files", flush=True)
            plan["count"] = most
        return plan

    def run(self, row):
        """One row of the table."""
        budget = row.whole if self.whole else row.small
        plan = self.reduced(row, {**self.plan, **budget})
        self.process.forget_peak()
        resident, cpu, begin = self.process.resident(), self.process.seconds(), time.time()
        logins = row.logins[self.whole]
        together = None
        if logins:
            together = subprocess.Popen([str(FLOOD), "logins", json.dumps({**self.plan, "count": logins})], stdout=subprocess.PIPE, text=True)
        outcome, theirs = attacked(row, plan, self.proxy.folder)
        attack_end = time.time()
        wrong = list(outcome["wrong"])
        words = [outcome["words"]]
        if together:
            done = json.loads(together.communicate(timeout=MOST_SECONDS)[0].splitlines()[-1])
            words.append(f"{done['finished']}/{logins} logins in {done['seconds']:.1f} s")
            wrong += done["failed"][:3]
        base_after = self.come_back()
        end = time.time()
        ours = max(0.0, self.process.seconds() - cpu - self.rate * (end - begin))
        peak = self.process.peak()
        wrong += self.judge_memory(row, outcome, resident, peak)
        if ours > ALLOWED_RATIO * theirs + GRAIN_SECONDS:
            wrong.append(f"{ours:.2f} s of the processors for {theirs:.2f} s of the attacker")
        if base_after is None:
            wrong.append(f"{self.process.sockets(plan['port'])} connections of clients and descriptors {BASE_SECONDS} s later, {self.descriptors} descriptors before")
        wrong += self.judge_users(row, begin, attack_end, words)
        words.append(f"RSS {peak / MEBIBYTE:.0f} MiB with {outcome['connections']} connections (idle {self.idle / MEBIBYTE:.0f})")
        words.append(f"CPU {ours:.2f} s for {theirs:.2f} s ({ours / max(theirs, 0.01):.1f}x)")
        words.append(f"back after {base_after or 0:.1f} s")
        return f"{row.name} {row.what}", not wrong, "; ".join(words) + "".join(f"; WRONG: {one}" for one in wrong)

    def judge_memory(self, row, outcome, before, peak):
        most = self.idle + ALLOWED_BYTES + ALLOWED_BYTES_PER_CONNECTION * (outcome["connections"] + USERS)
        if peak > most:
            yield f"{peak / MEBIBYTE:.0f} MiB resident, {most / MEBIBYTE:.0f} allowed"
        if row.flat and peak > before + row.flat:
            yield f"grown by {(peak - before) / MEBIBYTE:.0f} MiB, {row.flat / MEBIBYTE:.0f} allowed"

    def judge_users(self, row, begin, end, words):
        records = self.users.between(begin, end)
        failed = [record for record in records if record["failed"]]
        kept, before = p99(records, "kept", "http2"), p99(self.base, "kept", "http2")
        fresh, fresh_before = p99(records, "fresh"), p99(self.base, "fresh")
        words.append(f"{len(failed)} of {len(records)} others failed; p99 {kept:.0f} ms (before {before:.0f}), new connections {fresh:.0f} ms ({fresh_before:.0f})")
        if failed:
            yield f"{len(failed)} requests of others failed, such as {failed[0]}"
        most = max(P99_FACTOR * before, P99_FLOOR_MS) if row.unfelt else P99_MOST_MS
        if kept > most:
            yield f"p99 {kept:.0f} ms, {before:.0f} before, {most:.0f} allowed"
        most += 2000 * self.limits["handshake_timeout"] if row.crowded else 0
        if fresh > most:
            yield f"p99 of new connections {fresh:.0f} ms, {fresh_before:.0f} before, {most:.0f} allowed"

    def come_back(self):
        """How long until the descriptors are those of the users alone; `None` if it takes too long."""
        begin = time.monotonic()
        while True:
            clients, descriptors = self.process.sockets(self.plan["port"])
            if clients <= 2 * USERS and descriptors <= self.descriptors + POOLED + USERS:
                return time.monotonic() - begin
            if time.monotonic() - begin > BASE_SECONDS:
                return None
            time.sleep(0.05)

    def judge_log(self):
        log = self.proxy.output.read_text(errors="replace").splitlines()
        bad = [line for line in log if "panicked" in line or '"level":"error"' in line]
        return "the log", not bad, f"{len(log)} lines, {len(bad)} of a panic or an error {bad[:2] if bad else ''}"


def attack(whole, seed, only=""):
    """Rows of the report (what, passed, words)."""
    del seed
    stage = Stage(whole)
    rows = []
    try:
        build = "a release" if servers.BINARY.parent.name == "release" else "a development"
        print(f"floods: {build} build, limits {stage.limits}, users cost {stage.rate * 100:.0f} % of a processor", flush=True)
        for row in ROWS:
            if only and only not in f"{row.name} {row.what} {row.attack}":
                continue
            began = time.monotonic()
            rows.append(stage.run(row))
            what, passed, words = rows[-1]
            if only or os.environ.get("FLOODS_LIVE"):
                print(f"    {time.monotonic() - began:.1f} s {'pass' if passed else 'FAIL'} {what}: {words}", flush=True)
            if stage.proxy.process.poll() is not None:
                rows.append(("the proxy", False, f"ended with {stage.proxy.process.returncode}"))
                break
        rows.append(stage.judge_log())
        time.sleep(QUIET_SECONDS)
        last = stage.users.between(time.time() - QUIET_SECONDS, time.time())
        fine = bool(last) and not any(record["failed"] for record in last)
        rows.append(("after all of it", fine, f"{len(last)} requests of users, RSS {stage.process.resident() / MEBIBYTE:.0f} MiB"))
        for running in (stage.users.running, stage.proxy):
            running.process.terminate()
            running.process.wait(timeout=20)
        rows.append(("the proxy ended well", stage.proxy.process.returncode == 0, f"exit status {stage.proxy.process.returncode}"))
    finally:
        stage.stop()
    return rows


if __name__ == "__main__":
    os.environ["FLOODS_LIVE"] = "1"
    for _ in attack("--whole" in sys.argv, 0, next((word for word in sys.argv[1:] if not word.startswith("-")), "")):
        pass
