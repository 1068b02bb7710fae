"""Paths: no target that the rules allow as public is one that a server resolves to a protected resource.

Targets of the grammar are judged by the proxy's own code in bulk (judge.rs), for each way in which a service can read
targets. What is public goes, in the form in which it would be forwarded, to nginx and Apache through sockets, to Node's
`URL` and `url.parse`, and to Python's `urllib` and `posixpath`. A sample goes through the running proxy, which must say
the same as the code that was asked in bulk.
"""

import json
import posixpath
import random
import struct
import subprocess
import tempfile
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import servers
from targets import targets

# How the services read targets.
VARIANTS = {"strict": "", "merge": "mergeSlashes: true", "keep": "encodedSlashes: keep"}
PROTECTED = ("/admin", "/public/secret")
# Fewer public ones would make a generator that proves nothing.
LEAST_PUBLIC_SHARE = 0.1
EXAMPLES = 10

NGINX_LOCATIONS = """
    location / { return 200 "other $uri"; }
    location /public { return 200 "public $uri"; }
    location = /public/secret { return 200 "protected $uri"; }
    location /public/secret/ { return 200 "protected $uri"; }
    location = /admin { return 200 "protected $uri"; }
    location /admin/ { return 200 "protected $uri"; }
"""
NGINX = "server { listen 127.0.0.1:PORT; merge_slashes MERGE; add_header X-Target $request_uri always;" + NGINX_LOCATIONS + "}\n"
APACHE = """
AllowEncodedSlashes On
Header always set X-Resolved "expr=[%{REQUEST_URI}]"
<Directory FOLDER/docs>
  Require all granted
  Header always set X-Place other
</Directory>
<Directory FOLDER/docs/admin>
  Header always set X-Place protected
</Directory>
<Directory FOLDER/docs/public/secret>
  Header always set X-Place protected
</Directory>
<Location /admin>
  Header always set X-Location protected
</Location>
<Location /public/secret>
  Header always set X-Location protected
</Location>
"""
FILES = ["admin/index.html", "public/index.html", "public/secret/index.html", "public/x/index.html", "index.html"]


def is_protected(path):
    """Whether a path that a server arrived at lies in a protected part."""
    return any(path == part or path.startswith(part + "/") for part in PROTECTED)


def judged(texts, exposed, admin):
    """Verdicts by variant, in the order of `texts`."""
    services = [(name, port, 1, extra) for (name, extra), port in zip(VARIANTS.items(), exposed)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "portcullis.yaml"
        file.write_text(servers.configuration(services, admin))
        framed = b"".join(struct.pack(">H", len(text)) + text for text in texts)
        result = subprocess.run([servers.JUDGE, file], input=framed, stdout=subprocess.PIPE, check=True, timeout=900)
    lines = result.stdout.split(b"\n")[:-1]
    if len(lines) != len(texts) * len(VARIANTS):
        raise RuntimeError(f"{len(lines)} verdicts for {len(texts)} targets in {len(VARIANTS)} variants")
    return {name: lines[at * len(texts) : (at + 1) * len(texts)] for at, name in enumerate(VARIANTS)}


def get(target):
    return b"GET " + target + b" HTTP/1.1\r\nHost: app.test\r\n\r\n"


def by_nginx(port, forwarded):
    """Whether it arrived at a protected resource, by target; a refusal is none."""
    answers = servers.ask_all(port, [get(target) for target in forwarded])
    for (status, _, body), target in zip(answers, forwarded):
        place, _, path = body.partition(b" ")
        yield target, status, place == b"protected" or is_protected(path.decode("latin-1"))


def by_apache(port, forwarded):
    answers = servers.ask_all(port, [get(target) for target in forwarded])
    for (status, fields, _), target in zip(answers, forwarded):
        places = (fields.get(b"x-place"), fields.get(b"x-location"))
        yield target, status, b"protected" in places or is_protected(fields.get(b"x-resolved", b"")[1:-1].decode("latin-1"))


def by_node(forwarded):
    script = servers.HERE / "resolve.mjs"
    text = b"".join(target + b"\n" for target in forwarded)
    result = subprocess.run(["node", script], input=text, stdout=subprocess.PIPE, check=True, timeout=900)
    lines = result.stdout.splitlines()
    if len(lines) != len(forwarded):
        raise RuntimeError(f"Node resolved {len(lines)} of {len(forwarded)} targets")
    for line, target in zip(lines, forwarded):
        host, path, old_host, old_path = json.loads(line)
        other_host = host != "app.test" or old_host != "app.test"
        yield target, 200, other_host or is_protected(path) or is_protected(old_path)


def by_python(forwarded):
    for target in forwarded:
        parts = urllib.parse.urlsplit(target)
        path = posixpath.normpath(urllib.parse.unquote(parts.path.decode("ascii"), errors="surrogateescape"))
        yield target, 200, parts.netloc != b"" or is_protected(path)


def by_parameters(forwarded):
    """As servlet containers do: parameters are cut off each segment before and after decoding, then dots resolved."""
    for target in forwarded:
        path = target.partition(b"?")[0].decode("ascii")
        cut = "/".join(part.partition(";")[0] for part in path.split("/"))
        path = urllib.parse.unquote(cut, errors="surrogateescape").replace("\\", "/")
        again = "/".join(part.partition(";")[0] for part in path.split("/"))
        yield target, 200, is_protected(posixpath.normpath(path)) or is_protected(posixpath.normpath(again))


def start_nginx():
    ports = servers.free_ports(2)
    text = "".join(NGINX.replace("PORT", str(port)).replace("MERGE", merge) for port, merge in zip(ports, ("on", "off")))
    return servers.nginx(text, ports)


def resolve(forwarded):
    """Targets that some server resolves to a protected resource, by server; and how many each refused."""
    (apache_port,) = servers.free_ports(1)
    nginx = start_nginx()
    try:
        apache = servers.apache(APACHE, ["headers", "dir"], apache_port, FILES)
        try:
            jobs = {
                "nginx": lambda: by_nginx(nginx.ports[0], forwarded),
                "nginx, merge_slashes off": lambda: by_nginx(nginx.ports[1], forwarded),
                "Apache": lambda: by_apache(apache.port, forwarded),
                "Node": lambda: by_node(forwarded),
                "Python": lambda: by_python(forwarded),
                "(parameters)": lambda: by_parameters(forwarded),
            }
            check_that_they_can_fail(nginx, apache)
            found, refused = {}, {}

            def run(name):
                answers = list(jobs[name]())
                found[name] = {target for target, _, protected in answers if protected}
                refused[name] = sum(1 for _, status, _ in answers if status == 0 or status == 400)

            with ThreadPoolExecutor(len(jobs)) as pool:
                list(pool.map(run, jobs))
            return found, refused
        finally:
            apache.stop()
    finally:
        nginx.stop()


def check_that_they_can_fail(nginx, apache):
    """Each resolver sees what a proxy that does not look would let through."""
    tries = [b"/public/../admin/", b"/public/%2e%2e/admin/x", b"/admin/x", b"/public/secret/"]
    answers = {
        "nginx": by_nginx(nginx.port, tries),
        "Apache": by_apache(apache.port, tries),
        "Node": by_node(tries),
        "Python": by_python(tries),
    }
    for name, given in answers.items():
        for target, status, protected in given:
            if not protected:
                raise RuntimeError(f"{name} does not resolve {target}: {status}")


def through_the_proxy(texts, verdicts, exposed, sample, seed):
    """The running proxy's answers to a sample beside the verdicts: differences, and counts of answers by status."""
    rng = random.Random(seed)
    differences, statuses = [], {}
    nginx = start_nginx()
    try:
        running = servers.proxy([(name, port, nginx.port, extra) for (name, extra), port in zip(VARIANTS.items(), exposed)])
        try:
            for name, port in zip(VARIANTS, exposed):
                chosen = rng.sample(range(len(texts)), min(len(texts), sample))
                # A line feed or a blank makes another request of it; whether that is refused is for framing to see.
                chosen = [at for at in chosen if not any(byte in texts[at] for byte in b"\r\n ")]
                host = f"Host: {servers.HOST}:{port}\r\n\r\n".encode()
                requests = [b"GET " + texts[at] + b" HTTP/1.1\r\n" + host for at in chosen]
                # The same in absolute form: a path is judged as if it had come alone.
                absolute = b"GET https://%s:%d" % (servers.HOST.encode(), port)
                rooted = [at for at in chosen if texts[at].startswith(b"/")][: len(chosen) // 4]
                requests += [absolute + texts[at] + b" HTTP/1.1\r\n" + host for at in rooted]
                answers = servers.ask_all(port, requests, tls=True, batch=1)
                for at, request, (status, fields, _) in zip(chosen + rooted, requests, answers):
                    statuses[status] = statuses.get(status, 0) + 1
                    verdict, _, wanted = verdicts[name][at].partition(b" ")
                    seen = fields.get(b"x-target")
                    fine = seen == wanted if verdict == b"public" else seen is None and status in (400, 401, 403, 414, 503)
                    if verdict == b"refused":
                        fine = fine and status in (400, 414)
                    if not fine and not texts[at].startswith((b"http", b"HTTP")):
                        differences.append(f"{name}: {request!r}: judged {verdicts[name][at]!r}, but {status}, application saw {seen!r}")
        finally:
            if running.stop() != 0:
                differences.append("the proxy did not end well")
    finally:
        nginx.stop()
    return differences, statuses


def attack(count, sample, seed):
    """Rows of the report (what, passed, words)."""
    *exposed, admin = servers.free_ports(len(VARIANTS) + 1)
    texts = targets(count, seed)
    verdicts = judged(texts, exposed, admin)
    rows, origin = [], {}
    for name, lines in verdicts.items():
        tally = {b"public": 0, b"other": 0, b"refused": 0}
        for text, line in zip(texts, lines):
            verdict, _, forwarded = line.partition(b" ")
            tally[verdict] += 1
            if verdict == b"public":
                origin.setdefault(forwarded, []).append((name, text))
        enough = tally[b"public"] >= count * LEAST_PUBLIC_SHARE
        words = ", ".join(f"{tally[verdict]:,} {verdict.decode()}" for verdict in tally)
        rows.append((f"targets, {name}", enough, f"{len(texts):,} generated: {words}"))
    forwarded = list(origin)
    found, refused = resolve(forwarded)
    for resolver, protected in found.items():
        by_variant = {name: [] for name in VARIANTS}
        for target in protected:
            for name, text in origin[target]:
                by_variant[name].append((text, target))
        for name, cases in by_variant.items():
            for text, target in cases[:EXAMPLES]:
                print(f"  {resolver}, {name}: {text!r} is public and forwarded as {target!r}")
        words = ", ".join(f"{name} {len(cases):,}" for name, cases in by_variant.items())
        what = f"{len(forwarded):,} public forms, {refused[resolver]:,} refused by it; protected: {words}"
        rows.append((f"resolved by {resolver}", not protected, what))
    differences, statuses = through_the_proxy(texts, verdicts, exposed, sample, seed)
    for difference in differences[:EXAMPLES]:
        print(f"  {difference}")
    words = ", ".join(f"{status}: {number:,}" for status, number in sorted(statuses.items()))
    rows.append(("targets through the proxy", not differences, f"{len(differences)} differences; {words}"))
    return rows
