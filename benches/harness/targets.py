"""What Portcullis promises, and whether this run kept it. All limits are here."""

from dataclasses import dataclass

KIB, MIB = 1024, 1 << 20


@dataclass
class Verdict:
    """One line of the table of targets."""

    what: str
    limit: str
    measured: str
    #: None: not measured.
    met: object
    how: str = ""


def at(results, *path):
    """A value deep in the results, or None where something on the way was not measured."""
    for step in path:
        if not isinstance(results, dict) or step not in results or results[step] is None:
            return None
        results = results[step]
    return results


def ratio(results, row, case):
    return at(results, "rows", row, case, "ratio", "median")


def quotient(results, row, case, other):
    """Cost of one case over another's, both by their ratios to nginx."""
    one, two = ratio(results, row, case), ratio(results, row, other)
    return one / two if one is not None and two else None


def user(results, load, case, other="nginx"):
    """User-mode instructions over another's."""
    one, two = (at(results, "callgrind", load, name, "instructions") for name in (case, other))
    return one / two if one and two else None


def number(text):
    return lambda value: text.format(value)


TIMES = number("{:.2f} x")


def verdicts(results):
    """All targets, in the order of the report."""
    counter = at(results, "machine", "counter")
    table = []

    def most(what, value, limit, show=TIMES, how=counter):
        met = None if value is None else value <= limit
        measured = "not measured" if value is None else show(value)
        table.append(Verdict(what, f"at most {show(limit)}", measured, met, how))

    nginx = "nginx without authentication"
    most(f"authorised small GET, HTTP/1.1, over {nginx}", ratio(results, "h1", "portcullis"), 0.85)
    most("the same over Envoy's oauth2 filter", quotient(results, "h1", "portcullis", "envoy-oauth2"), 1 / 4)
    most("the same over mod_auth_openidc", quotient(results, "h1", "portcullis", "apache-openidc"), 1 / 12)
    most(f"authorised small GET, HTTP/2, over {nginx}", ratio(results, "h2", "portcullis"), 1.0)
    most("enforcing: authorised over public, HTTP/1.1", ratio(results, "enforcing", "portcullis"), 1.08)
    most("enforcing, user mode only, HTTP/1.1", user(results, "h1", "portcullis", "portcullis-public"), 1.08,
         how="callgrind")
    most(f"full TLS handshakes over {nginx}", ratio(results, "handshake", "portcullis"), 0.55)
    most(f"1 MiB GET over {nginx}", ratio(results, "get1m", "portcullis"), 0.35)
    most(f"1 MiB POST over {nginx}", ratio(results, "post1m", "portcullis"), 0.55)
    decide(results, most)
    most("5,000 sessions over one session", at(results, "rows", "sessions", "many", "ratio", "median"), 1.3)
    footprint(results, most)
    start = quotient_of(results, "starts", "portcullis", "nginx")
    most("start to first answer over nginx", start, 2.0, how="clock")
    extra = at(results, "latency", "portcullis", "added", "median")
    most("added latency at 2,000 requests/s, p50, over nginx", extra, 50, number("{:.0f} us"), how="clock")
    two = at(results, "workers", "instructions")
    one = at(results, "callgrind", "h1", "portcullis", "instructions")
    most("two workers over one, user instructions of a request", two / one if two and one else None, 1.05,
         how="callgrind")
    return table


def decide(results, most):
    """The decision among few and many endpoints, by the fastest of many samples of a thousand each: whatever else the
    machine does can only add to these nanoseconds."""
    times = [at(results, "micro", f"decision/{count}", "fastest") for count in (10, 1000, 100000)]
    known = all(times)
    most("decision among 100,000 endpoints", times[2] if known else None, 300, number("{:.0f} ns"), how="clock")
    spread = max(times) / min(times) if known else None
    most("decision: slowest over fastest of 10, 1,000, 100,000 endpoints", spread, 1.2, how="clock")


def footprint(results, most):
    """Memory."""
    ours = at(results, "memory", "portcullis")
    megabytes, kibibytes, mebibytes = number("{:.1f} MB"), number("{:.1f} KiB"), number("{:.1f} MiB")
    scaled = lambda name, by: None if at(ours, name) is None else ours[name] / by
    most("resident memory, idle", scaled("idle", 1e6), 10, megabytes, how="VmRSS")
    most("memory per idle TLS connection", scaled("connection", KIB), 20, kibibytes, how="VmRSS")
    most("memory per live WebSocket", scaled("websocket", KIB), 40, kibibytes, how="VmRSS")
    for name in ("upload", "download"):
        growth = at(results, "transfers", "portcullis", name, "growth")
        size = at(results, "transfers", "gibibytes")
        most(f"growth of memory, {name} of {size or '?'} GiB", None if growth is None else growth / MIB, 16, mebibytes,
             how="VmHWM")


def quotient_of(results, row, one, two):
    one, two = (at(results, row, name, "median") for name in (one, two))
    return one / two if one and two else None
