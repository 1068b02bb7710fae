"""What a run measures, step by step; every step puts its part into the results."""

from pathlib import Path

from . import callgrind, footprint, install, micro
from .browser import Browser
from .load import Case, Load, SessionLoad
from .processes import Failed
from .slices import measure
from .subjects import SUBJECTS, USER, Proxy

BASIC = ["nginx", "portcullis", "envoy-oauth2"]
MIB = 1 << 20
GIB = 1 << 30
SESSIONS = 5000
IDLE_CONNECTIONS = 2000
WEBSOCKETS = 1000
# Beneath the number of rounds in a row of slices; one round is two slices for each subject.
FEWEST_ROUNDS = 5
LATENCY_ROUNDS = 10
# Beside nginx in one row of handshakes. A generator is stopped for as long as the others have their slices, and servers
# give up a handshake that takes so long: after ten seconds, some.
MOST_HANDSHAKING = 4
# The steps that use the proxies which `up` has started; all others start their own, on the same ports.
KEEPS_PROXIES = {"rows", "unlogged", "sessions", "latency"}


class Plan:
    """One run."""

    def __init__(self, bench, full, rounds, missing):
        self.bench, self.full, self.rounds = bench, full, max(rounds, FEWEST_ROUNDS)
        self.names = [name for name in SUBJECTS if name in BASIC or full and name not in missing]
        self.results = {"rows": {}, "callgrind": {}}
        self.results["not_measured"] = [f"{name}: {why}" for name, why in missing.items()]
        self.proxies, self.cookies = {}, {}
        self.body = bench.world.directory / "1MiB"
        self.body.write_bytes(bytes(MIB))

    def run(self, only):
        """All steps, or those that are named."""
        steps = {
            "rows": self.rows, "unlogged": self.unlogged, "sessions": self.sessions, "latency": self.latency,
            "starts": self.starts, "memory": self.memory, "transfers": self.transfers, "callgrind": self.callgrind,
            "workers": self.workers, "micro": self.micro,
        }
        unknown = set(only) - set(steps)
        if unknown:
            raise Failed(f"no such step: {', '.join(sorted(unknown))}; there are {', '.join(steps)}")
        self.bench.start_provider()
        try:
            for name in self.names:
                self.up(name)
            for name, step in steps.items():
                if only and name not in only:
                    self.results["not_measured"].append(f"{name}: left out by the command line")
                    continue
                if name not in KEEPS_PROXIES:
                    self.down()
                step()
                self.bench.forget_logs()
        finally:
            self.down()

    def up(self, name):
        """Starts a proxy, and logs in where there is something to log in to."""
        subject = SUBJECTS[name]
        self.bench.say(f"starting {subject.title}")
        proxy = self.proxies[name] = Proxy(subject, self.bench.world)
        if subject.oidc:
            self.cookies[name] = [f"cookie: {proxy.log_in()}"]

    def down(self):
        for proxy in self.proxies.values():
            proxy.stop()
        self.proxies.clear()

    def case(self, name):
        """A subject with the cookie of its login."""
        title = "Portcullis, authorised" if name == "portcullis" else SUBJECTS[name].title
        return Case(name, title, self.proxies[name], headers=self.cookies.get(name, []))

    def public(self):
        """Portcullis for a stranger, at an endpoint that is open to all."""
        return Case("portcullis-public", "Portcullis, public endpoint", self.proxies["portcullis"], prefix="/public")

    def loads(self):
        return [
            Load("h1", "small GET, HTTP/1.1, 64 connections"),
            Load("h2", "small GET, HTTP/2, 8 connections of 32 streams", connections=8, streams=32),
            Load("handshake", "full TLS handshake and one small GET", connections=16, headers=["connection: close"]),
            Load("get1m", "1 MiB GET, HTTP/1.1, 8 connections", path=f"/bytes/{MIB}", connections=8, per="MiB",
                 slice_seconds=0.8),
            Load("post1m", "1 MiB POST, HTTP/1.1, 8 connections", path="/upload", connections=8, per="MiB",
                 body=self.body, slice_seconds=0.8),
        ]

    def rows(self):
        """The rows of slices."""
        for load in self.loads():
            self.bench.say(load.title)
            cases = [self.case(name) for name in self.names]
            if load.name in ("h1", "h2"):
                cases.insert(2, self.public())
            self.row(load, cases)
        # Both are near each other and far from nginx: a pair of neighbours says more than two quotients.
        self.bench.say("enforcing: authorised against public, HTTP/1.1")
        self.row(Load("enforcing", "the cost of enforcing"), [self.public(), self.case("portcullis")])

    def row(self, load, cases):
        base, *others = cases
        most = MOST_HANDSHAKING if load.name == "handshake" else len(others)
        found = {}
        for first in range(0, len(others), most):
            found |= measure(self.bench, load, [base, *others[first : first + most]], self.rounds)
        self.results["rows"][load.name] = found
        for name, figure in found.items():
            if figure["ratio"]:
                ratio, busy = figure["ratio"], figure["busy_proxy"]["median"]
                self.bench.say(
                    f"    {figure['title']}: {ratio['median']:.2f} x ({ratio['low']:.2f} to {ratio['high']:.2f}), "
                    f"core {100 * busy:.0f} % busy"
                )

    def unlogged(self):
        """The pair without records."""
        self.bench.say("small GET, HTTP/1.1, without records")
        world, ports = self.bench.world, self.bench.ports
        nginx = Proxy(SUBJECTS["nginx"], world, logged=False, port=ports["nginx-unlogged"])
        try:
            ours = Proxy(SUBJECTS["portcullis"], world, logged=False, port=ports["portcullis-unlogged"])
            try:
                cookie = [f"cookie: {ours.log_in()}"]
                cases = [
                    Case("nginx", "nginx, access_log off", nginx),
                    Case("portcullis", "Portcullis, records to /dev/null", ours, headers=cookie),
                ]
                self.row(Load("h1-unlogged", "small GET, HTTP/1.1, 64 connections, no records"), cases)
            finally:
                ours.stop()
        finally:
            nginx.stop()

    def sessions(self):
        """Another session at every request, against always the same."""
        self.bench.say(f"{SESSIONS} logins")
        proxy, browser = self.proxies["portcullis"], Browser()
        many = self.bench.world.directory / "sessions.txt"
        lines = []
        for _ in range(SESSIONS):
            browser.forget(proxy.origin)
            browser.log_in(f"{proxy.origin}/", USER)
            lines.append(browser.cookie_header(proxy.origin))
        many.write_text("\n".join(lines) + "\n")
        one = self.bench.world.directory / "session.txt"
        one.write_text(lines[0] + "\n")
        self.bench.say(f"{len(set(lines))} sessions against one")
        cases = [
            Case("one", "one session", proxy, cookie_file=one),
            Case("many", f"{len(set(lines))} sessions", proxy, cookie_file=many),
        ]
        self.row(SessionLoad("sessions", "small GET, HTTP/1.1, each request another session"), cases)

    def latency(self):
        """At a constant rate."""
        self.bench.say(f"latency at {footprint.LATENCY_RATE} requests/s")
        cases = [self.case(name) for name in self.names if self.full or name in ("nginx", "portcullis")]
        cases.append(self.public())
        self.results["latency"] = footprint.latency(self.bench, cases, LATENCY_ROUNDS)

    def starts(self):
        """From exec to the first answer."""
        self.bench.say("starts")
        names = [name for name in self.names if name == "portcullis" or not SUBJECTS[name].oidc]
        prefix = {"portcullis": "/public"}
        cases = [
            Case(name, SUBJECTS[name].title, SUBJECTS[name], prefix=prefix.get(name, "")) for name in names
        ]
        self.results["starts"] = footprint.starts(self.bench, cases, 10)

    def memory(self):
        """Idle, per connection, per WebSocket."""
        self.results["memory"] = {}
        footprint.raise_file_limit()
        for name in self.names:
            self.bench.say(f"memory of {SUBJECTS[name].title}")
            found = footprint.memory(self.bench, SUBJECTS[name], IDLE_CONNECTIONS, WEBSOCKETS)
            errors = {step: value for step, value in found.items() if isinstance(value, str)}
            self.results["not_measured"] += [f"memory of {name}, {step}: {why}" for step, why in errors.items()]
            self.results["memory"][name] = {
                step: None if step in errors else value for step, value in found.items()
            }

    def transfers(self):
        """Large bodies."""
        size = 10 if self.full else 1
        self.results["transfers"] = {"gibibytes": size}
        for name in ("nginx", "portcullis"):
            self.bench.say(f"{size} GiB up and down through {SUBJECTS[name].title}")
            self.results["transfers"][name] = footprint.transfers(
                self.bench, SUBJECTS[name], "", self.cookies.get(name, []), size * GIB
            )

    def callgrind(self):
        """User instructions and system calls, of nginx and Portcullis."""
        shapes = {
            "h1": ({"connections": 64}, 200, 1800),
            "h2": ({"connections": 8, "streams": 32}, 300, 1900),
            "handshake": ({"connections": 4, "more": ["connection: close"]}, 20, 140),
            "get1m": ({"path": f"/bytes/{MIB}", "connections": 4}, 10, 50),
        }
        cases = {
            "nginx": ("nginx", ""), "portcullis": ("portcullis", ""), "portcullis-public": ("portcullis", "/public"),
        }
        for load, (shape, few, many) in shapes.items():
            row = self.results["callgrind"][load] = {}
            for case, (subject, prefix) in cases.items():
                if case == "portcullis-public" and load not in ("h1", "h2"):
                    continue
                self.bench.say(f"instructions and system calls: {load}, {case}")
                row[case] = {
                    "instructions": self.count(subject, callgrind.callgrind, prefix, shape, few, many),
                    "calls": self.count(subject, callgrind.strace, prefix, shape, few, many),
                }

    def count(self, name, tool, prefix, shape, few, many, workers=1):
        """One figure of `callgrind`."""
        shape = dict(shape)
        cookies = [] if prefix else self.cookies.get(name, [])
        headers = [*cookies, *shape.pop("more", [])]
        path = prefix + shape.pop("path", "/")
        start = lambda wrapper: Proxy(
            SUBJECTS[name], self.bench.world, wrapper=wrapper, single=SUBJECTS[name].single, workers=workers
        )
        load = lambda port, requests: callgrind.generator(port, requests, path, headers, **shape)
        return callgrind.per_request(start, tool, self.bench.world.directory / "counted", few, many, load)

    def workers(self):
        """Two workers against one. What that does to the speed needs four cores; what it costs does not."""
        self.bench.say("two workers")
        found = self.results["workers"] = {}
        found["instructions"] = self.count(
            "portcullis", callgrind.callgrind, "", {"connections": 64}, 200, 1800, workers=2
        )
        cores = sorted(self.bench.proxy_cores | self.bench.load_cores)
        if len(cores) < 4:
            found["rate"] = None
            self.results["not_measured"].append(
                f"throughput of two workers over one: needs four cores, there are {len(cores)}; "
                "user instructions of a request were counted with both instead"
            )
            return
        found["rate"] = self.speed_up(cores)

    def speed_up(self, cores):
        """Requests each second of two workers on two cores over one worker on one, by slices."""
        bench, ports = self.bench, self.bench.ports
        bench.load_cores = set(cores[2:])
        one = Proxy(SUBJECTS["portcullis"], bench.world)
        try:
            two = Proxy(
                SUBJECTS["portcullis"], bench.world, workers=2, logged=False, cores=set(cores[:2]),
                port=ports["portcullis-unlogged"],
            )
            try:
                cases = [
                    Case("one", "one worker", one, headers=self.cookies["portcullis"]),
                    Case("two", "two workers", two, headers=[f"cookie: {two.log_in()}"]),
                ]
                return measure(bench, Load("workers", "two workers"), cases, self.rounds)["two"]["rate"]
            finally:
                two.stop()
        finally:
            one.stop()

    def micro(self):
        """The steps of a request, each alone."""
        self.bench.say("micro-benchmarks; the first time they have to be compiled")
        self.results["micro"] = micro.measure(self.bench.proxy_cores)


def tools(full):
    """Installs; gives the rivals that can't be had."""
    if full:
        return install.everything()
    install.basics()
    return {}


def binary():
    """The release build."""
    return Path(install.ROOT / "target" / "release" / "portcullis")
