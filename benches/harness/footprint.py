"""Rows that are no slices: memory, large bodies, starts, and latency at a constant rate."""

import os
import statistics
import subprocess
import time

from . import client
from .processes import Failed, forget_peak, peak, resident
from .slices import spread
from .subjects import Proxy

SETTLE_SECONDS = 1.0
WARM_CONNECTIONS = 50
LATENCY_CLIENTS = 25
LATENCY_RATE = 2000
LATENCY_SECONDS = 3
# A client asks every 12.5 ms, and one begins every 13 ms: half a millisecond between the requests of all. h2load lets
# them begin together unless it is told otherwise, and whoever shakes hands faster then gets more requests at once.
LATENCY_BETWEEN_CLIENTS = "13ms"
# Nothing is counted while they begin.
LATENCY_WARM_UP = 0.5


def memory(bench, subject, connections, sockets):
    """Bytes: of the idle process, per idle TLS connection, per live WebSocket. Each in a process of its own, because
    memory that one has given back would serve the next. In the place of what doesn't work is the error."""
    steps = {
        "idle": idle_memory,
        "connection": lambda proxy, headers: each(proxy, headers, client.idle_connections, connections),
        "websocket": lambda proxy, headers: each(proxy, headers, client.websockets, sockets),
    }
    found = {}
    for name, step in steps.items():
        proxy = Proxy(subject, bench.world)
        try:
            headers = [f"cookie: {proxy.log_in()}"] if subject.oidc and name != "idle" else []
            found[name] = step(proxy, headers)
        except (Failed, OSError) as error:
            found[name] = str(error)
        finally:
            proxy.stop()
    return found


def idle_memory(proxy, _headers):
    """After one handshake, which proves that it is up."""
    client.connect(proxy.port, client.context()).close()
    time.sleep(2 * SETTLE_SECONDS)
    return resident(proxy.running.pids())


def each(proxy, headers, opener, count):
    """What one of `count` connections adds, beyond what the first few have already added for all."""
    tls = client.context()
    with opener(proxy.port, "/", headers, WARM_CONNECTIONS, tls):
        time.sleep(SETTLE_SECONDS)
        before = resident(proxy.running.pids())
        with opener(proxy.port, "/", headers, count, tls):
            time.sleep(SETTLE_SECONDS)
            return (resident(proxy.running.pids()) - before) / count


def transfers(bench, subject, prefix, headers, size):
    """By how many bytes memory grows at most while one large body goes up, and one comes down."""
    tls = client.context()
    proxy = Proxy(subject, bench.world)
    found = {}
    try:
        for name, transfer in (("upload", client.upload), ("download", client.download)):
            transfer(proxy.port, prefix, headers, 1 << 20, tls)
            time.sleep(SETTLE_SECONDS)
            pids = proxy.running.pids()
            forget_peak(pids)
            before, began = resident(pids), time.monotonic()
            transfer(proxy.port, prefix, headers, size, tls)
            found[name] = {"growth": peak(pids) - before, "seconds": time.monotonic() - began}
        return found
    finally:
        proxy.stop()


def starts(bench, cases, rounds):
    """Seconds from exec to the end of the first answer, alternating between the cases, whose `proxy` is a subject."""
    tls = client.context()
    found = {case.name: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            # The wait for the port is part of it, with a look every millisecond.
            proxy = Proxy(case.proxy, bench.world)
            try:
                with client.connect(proxy.port, tls) as connection:
                    client.get(connection, proxy.port, case.prefix + "/", case.headers)
                found[case.name].append(time.monotonic() - proxy.running.began)
            finally:
                proxy.stop()
    return {name: spread(values) for name, values in found.items()}


def latency(bench, cases, rounds):
    """Microseconds of each request at a constant rate: median and tail of each round, and what the median is above
    that of `cases[0]` in the same round."""
    found = {case.name: {"p50": [], "p90": [], "p99": [], "added": []} for case in cases}
    each = LATENCY_RATE * LATENCY_SECONDS
    log = bench.world.directory / "latency.tsv"
    for _ in range(rounds):
        for case in cases:
            log.unlink(missing_ok=True)
            command = ["h2load", "--h1", "-t", 1, "-c", LATENCY_CLIENTS, "-n", each, "--log-file", log]
            command += ["--rate", 1, "--rate-period", LATENCY_BETWEEN_CLIENTS]
            command += ["--rps", LATENCY_RATE // LATENCY_CLIENTS, f"--connect-to=127.0.0.1:{case.proxy.port}"]
            for header in case.headers:
                command += ["-H", header]
            command.append(f"https://localhost:{case.proxy.port}{case.prefix}/")
            result = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
            lines = [line.split("\t") for line in log.read_text().splitlines()]
            good = [(int(fields[0]), int(fields[2])) for fields in lines if fields[1] == "200"]
            if len(good) < each:
                raise Failed(f"latency: {len(good)} of {each} answers were 200: {result.stdout[-500:]}")
            warm = min(begin for begin, _ in good) + LATENCY_WARM_UP * 1e6
            cuts = statistics.quantiles([taken for begin, taken in good if begin > warm], n=100)
            for name, at in (("p50", 49), ("p90", 89), ("p99", 98)):
                found[case.name][name].append(cuts[at])
            row, base = found[case.name], found[cases[0].name]
            row["added"].append(row["p50"][-1] - base["p50"][-1])
    return {case: {name: spread(values) for name, values in row.items()} for case, row in found.items()}


def raise_file_limit():
    """Thousands of connections need as many file descriptors."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most if most != resource.RLIM_INFINITY else os.sysconf("SC_OPEN_MAX")
