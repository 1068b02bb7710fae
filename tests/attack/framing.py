"""Framing: behind the proxy, nginx, Apache, Node and Python see exactly the requests that were judged.

Odd HTTP/1 requests, each with an honest one behind it (the canary), go over TLS through the running proxy to each of
the four. What the applications wrote down is compared with a strict reading of what was sent, and with the proxy's own
records. Beside them another client asks over a connection of its own, and must always get its own answer.
"""

import collections
import json
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import servers
from payloads import payloads, read_strictly

LANES = 3
# The proxy may wait for more of a request that promised more.
QUIET_SECONDS = 0.5
EXAMPLES = 10
# Payloads that are tried without the proxy.
UNPROTECTED = 100
# So many canaries must have been answered, or the attack is on a proxy that refuses everything.
LEAST_CANARIES = 0.1

NGINX = r"""
log_format record escape=json '$request_method	$request_uri	j:$request_body	$status';
server {
  listen 127.0.0.1:PORT; client_body_buffer_size 64k; client_max_body_size 1m;
  access_log FOLDER/record record;
  location / { proxy_http_version 1.1; proxy_pass http://127.0.0.1:INNER; }
}
server { listen 127.0.0.1:INNER; location / { return 200 "$request_method $request_uri"; } }
"""
# mod_lua and CGI know no chunked bodies as they came: what Apache read is what it sends on.
APACHE = """
ProxyPass / http://127.0.0.1:INNER/ nocanon disablereuse=On
<Proxy *>
  Require all granted
</Proxy>
"""


def start_nginx(port):
    (inner,) = servers.free_ports(1)
    return servers.nginx(NGINX.replace("PORT", str(port)).replace("INNER", str(inner)), [port, inner])


class ApacheBeforePython:
    """Apache, and the application that writes down what it sends on."""

    def __init__(self, port):
        (inner,) = servers.free_ports(1)
        self.recorder = start_python(inner)
        self.folder = self.recorder.folder
        try:
            self.apache = servers.apache(APACHE.replace("INNER", str(inner)), ["proxy", "proxy_http"], port)
        except RuntimeError:
            self.recorder.stop()
            raise

    def stop(self):
        self.apache.stop()
        self.recorder.stop()


def start_recorder(name, command, port):
    running = servers.Running(name, [port])
    return running.start(*command, port, running.folder / "record")


def start_python(port):
    return start_recorder("python", [sys.executable, servers.HERE / "recorder.py"], port)


APPLICATIONS = {
    "nginx": start_nginx,
    "Apache": ApacheBeforePython,
    "Node": lambda port: start_recorder("node", ["node", servers.HERE / "recorder.mjs"], port),
    "Python": start_python,
}


def recorded(running):
    """What an application wrote down: (method, target, body)."""
    for line in (running.folder / "record").read_bytes().decode("latin-1").splitlines():
        method, target, body, *status = line.split("\t")
        if status and status[0] != "200":
            continue
        kind, text = body[:2], body[2:]
        data = bytes.fromhex(text) if kind == "h:" else json.loads(f'"{text}"').encode("latin-1")
        yield method.encode("latin-1"), target.encode("latin-1"), data


def answers(port, data, tls=True):
    """Everything that comes back for `data`: (status, body) in order."""
    found = []
    try:
        connection = servers.connect(port, tls)
    except OSError:
        return found
    connection.settimeout(QUIET_SECONDS)
    stream = connection.makefile("rb")
    try:
        connection.sendall(data)
        while (answer := servers.read_answer(stream)) is not None:
            if answer[0] >= 200:
                found.append((answer[0], answer[2]))
    except (OSError, ValueError):
        pass
    stream.close()
    connection.close()
    return found


class Victim:
    """Somebody else, on a connection of their own, who asks one thing after another."""

    def __init__(self, port, host):
        self.port, self.host, self.connection, self.stream = port, host, None, None

    def ask(self, target):
        for _ in range(2):
            if self.connection is None:
                self.connection = servers.connect(self.port)
                self.stream = self.connection.makefile("rb")
            try:
                self.connection.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: " + self.host + b"\r\n\r\n")
                answer = servers.read_answer(self.stream)
            except OSError:
                answer = None
            if answer is not None:
                return answer[0], answer[2]
            self.connection = None
        return 0, b""


def lane(port, host, numbered, wrong, tally):
    victim = Victim(port, host)
    for at, data in numbered:
        canary = b"GET /public/c/%d" % at
        got = answers(port, data)
        # The answer to each request in its place.
        expected = [method + b" " + target for method, target, _ in read_strictly(data)]
        for place, (status, body) in enumerate(got):
            if status == 200 and body != (expected[place] if place < len(expected) else None):
                wrong.append((data, f"answer {place} is to {body!r}"))
        tally["canaries answered"] += any(body == canary for _, body in got)
        tally["accepted" if got and got[0][0] == 200 else "refused" if got else "no answer"] += 1
        target = b"/public/v/%d" % at
        if (answer := victim.ask(target)) != (200, b"GET " + target):
            wrong.append((data, f"somebody else's {target!r} got {answer}"))


def check_that_it_can_fail(sent):
    """Without the proxy, an application sees what no strict reader does."""
    (port,) = servers.free_ports(1)
    unprotected = start_python(port)
    try:
        for data in sent[:UNPROTECTED]:
            answers(port, data, tls=False)
        wrong = []
        compare_with_reading("Python", sent, list(recorded(unprotected)), wrong)
    finally:
        unprotected.stop()
    return len(wrong)


def compare_with_reading(name, sent, seen, wrong):
    """What the application saw, against a strict reading of what was sent."""
    allowed = collections.Counter()
    for data in sent:
        allowed.update(read_strictly(data))
    for request, times in collections.Counter(seen).items():
        method, target, body = request
        if target.startswith(b"/public/v/"):
            fine = (method, body) == (b"GET", b"") and times == 1
        else:
            fine = times <= allowed[request]
        if not fine:
            wrong.append((b"", f"{name} saw {times} times {method!r} {target!r} with body {body!r}"))


def compare_with_records(name, seen, records, wrong):
    """What the application saw, against the proxy's records: method, path, how often, and bytes of the body. Of a request
    that nobody waited for any more, the record only says that it was let through."""
    admitted, answered = collections.Counter(), collections.Counter()
    for record in records:
        if record.get("service") != name or "rule" not in record or record.get("dropReason") not in (None, "dial"):
            continue
        request = record["method"].encode("latin-1"), record["path"].encode("latin-1")
        admitted[request] += 1
        if 200 <= record["status"] < 300:
            answered[(*request, record["bytesIn"])] += 1
    whole = collections.Counter((method, target.partition(b"?")[0], len(body)) for method, target, body in seen)
    arrived = collections.Counter((method, target.partition(b"?")[0]) for method, target, _ in seen)
    for request in arrived - admitted:
        wrong.append((b"", f"{name} saw {request}, which no record admits: {[record for record in records if record['path'].encode() == request[1]]}"))
    for request in answered - whole:
        wrong.append((b"", f"the record has {request}, which {name} did not see"))
    return sum(answered.values())


def attack(count, seed):
    """Rows of the report (what, passed, words)."""
    ports = servers.free_ports(2 * len(APPLICATIONS))
    exposed, inner = ports[: len(APPLICATIONS)], ports[len(APPLICATIONS) :]
    running, rows = {}, []
    try:
        for (name, start), port in zip(APPLICATIONS.items(), inner):
            running[name] = start(port)
        proxy = servers.proxy([(name, port, to, "") for name, port, to in zip(APPLICATIONS, exposed, inner)])
        try:
            sent, wrong, tallies, jobs = {}, {name: [] for name in APPLICATIONS}, {}, []
            with ThreadPoolExecutor(LANES * len(APPLICATIONS)) as pool:
                for name, port in zip(APPLICATIONS, exposed):
                    host = f"{servers.HOST}:{port}".encode()
                    sent[name], tallies[name] = payloads(count, host, seed), collections.Counter()
                    numbered = [(int(re.search(rb"/public/c/(\d+)", data)[1]), data) for data in sent[name]]
                    jobs += [pool.submit(lane, port, host, numbered[at::LANES], wrong[name], tallies[name]) for at in range(LANES)]
                for job in jobs:
                    job.result()
            if proxy.process.poll() is not None:
                rows.append(("the proxy", False, f"ended with {proxy.process.returncode}"))
            proxy.process.terminate()
            proxy.process.wait(timeout=20)
            records = [json.loads(line) for line in proxy.output.read_text().splitlines() if '"durationMs"' in line]
        finally:
            code = proxy.stop()
        rows.append(("the proxy ended well", code == 0, f"exit status {code}"))
        time.sleep(QUIET_SECONDS)
        for name in APPLICATIONS:
            seen = list(recorded(running[name]))
            compare_with_reading(name, sent[name], seen, wrong[name])
            answered = compare_with_records(name, seen, records, wrong[name])
            for data, what in wrong[name][:EXAMPLES]:
                print(f"  {name}: {what}: {data[:400]!r}")
            tally = tallies[name]
            enough = tally["canaries answered"] >= len(sent[name]) * LEAST_CANARIES
            words = ", ".join(f"{number} {what}" for what, number in sorted(tally.items()))
            rows.append((f"payloads before {name}", not wrong[name] and enough, f"{len(sent[name])} sent: {words}; {len(seen)} requests seen, {answered} answered by the records; {len(wrong[name])} wrong"))
    finally:
        for application in running.values():
            application.stop()
    different = check_that_it_can_fail(sent["Python"])
    rows.append(("payloads without the proxy", different > 0, f"{different} requests that no strict reader finds"))
    return rows
