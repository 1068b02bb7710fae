"""The report: Markdown, a chart, and the raw figures."""

import json

from . import chart
from .subjects import SUBJECTS
from .targets import verdicts

KIB = 1024
# With more of the processors taken before the run, the machine was not the benchmark's alone.
MOST_OF_OTHERS = 0.05
BUSY = ", so **others were using the machine**: ratios and counts hold, latency and times of start do not"


def write(results, folder, name):
    """Writes `name`.md, `name`.svg and `name`.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    pieces = [head(results), targets(results)]
    if results["rows"].get("h1"):
        (folder / f"{name}.svg").write_text(picture(results))
        pieces.append(f"![What an authorised request costs]({name}.svg)\n")
    pieces += [rows(results), unlogged(results), sessions(results), counted(results), footprint(results)]
    pieces += [micro(results), missing(results), method(results)]
    (folder / f"{name}.md").write_text("\n".join(piece for piece in pieces if piece))


def table(columns, lines):
    """A Markdown table."""
    text = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    text += ["| " + " | ".join(str(cell) for cell in line) + " |" for line in lines]
    return "\n".join(text) + "\n"


def head(results):
    machine = results["machine"]
    where = "virtual machine" if machine["virtual"] else "machine"
    lines = [[SUBJECTS[name].title, version] for name, version in machine["subjects"].items()]
    tools = ", ".join(machine["tools"].values())
    why = f", because {machine['why_not_instructions']}" if machine["why_not_instructions"] else ""
    return (
        "# Benchmark\n\n"
        f"Written by `make {results['command']}` on {machine['date']}, revision {machine['revision']}: a {where} with "
        f"{machine['cores']} cores ({machine['processor']}), {machine['system']}, Linux {machine['kernel']}. "
        f"It took {results['seconds'] / 60:.0f} minutes; before it, others took {machine['others']:.0%} of the processors"
        f"{BUSY if machine['others'] > MOST_OF_OTHERS else ''}.\n\n"
        f"The counter of the rows is **{machine['counter']}**{why}. How it is used is [below](#method).\n\n"
        + table(["subject", "version"], lines)
        + f"\nTools: {tools}.\n"
    )


def targets(results):
    words = {True: "yes", False: "**no**", None: "-"}
    lines = [[v.what, v.limit, v.measured, words[v.met], v.how] for v in verdicts(results)]
    text = "## Targets\n\n" + table(["what", "target", "measured", "met", "counter"], lines)
    if any(v.met is False for v in verdicts(results)):
        text += (
            "\nWhat the profile shows of the targets that are not met, and why they are not: "
            "[decisions.md](decisions.md#where-a-request-goes-and-why-it-may-not-be-below-nginx-yet).\n"
        )
    return text


def picture(results):
    figures = results["rows"]["h1"]
    bars = [("nginx, no authentication", 1.0, 1.0, 1.0, False)]
    for name, figure in figures.items():
        if ratio := figure["ratio"]:
            bars.append(
                (figure["title"], ratio["median"], ratio["low"], ratio["high"], name.startswith("portcullis"))
            )
    bars.sort(key=lambda bar: bar[1])
    counter = results["machine"]["counter"]
    note = f"{counter} of a request over nginx's, one worker, TLS 1.3, HTTP/1.1 keep-alive, 1 KiB; median and quartiles"
    return chart.draw("Cost of a small request", note, bars)


def with_range(spread, digits=2, unit=""):
    if spread is None:
        return "-"
    return f"{spread['median']:.{digits}f}{unit} ({spread['low']:.{digits}f} to {spread['high']:.{digits}f})"


def scaled(value, by, unit):
    return "-" if value is None else f"{value / by:.1f} {unit}"


ROWS = {
    "h1": "Small GET, HTTP/1.1, 64 keep-alive connections",
    "h2": "Small GET, HTTP/2, 8 connections of 32 streams",
    "handshake": "Full TLS handshakes: a new connection for each small GET",
    "get1m": "1 MiB GET, HTTP/1.1, 8 connections",
    "post1m": "1 MiB POST, HTTP/1.1, 8 connections",
}


def figures(results, row):
    """The table of one row."""
    counter = results["machine"]["counter"]
    lines = []
    for figure in results["rows"][row].values():
        ratio = figure["ratio"]
        lines.append([
            figure["title"],
            "1" if ratio is None else with_range(ratio),
            "1" if ratio is None else with_range(figure["rate"]),
            f"{100 * figure['busy_proxy']['median']:.0f} %",
            f"{100 * figure['busy_load']['median']:.0f} %",
        ])
    columns = [f"{counter}, x nginx (quartiles)", "requests/s, x nginx (quartiles)", "proxy's core", "load's core"]
    return table(["subject", *columns], lines)


def rows(results):
    text = ""
    for row, title in ROWS.items():
        if row in results["rows"]:
            text += f"### {title}\n\n{figures(results, row)}\n"
    if "enforcing" in results["rows"]:
        pair = results["rows"]["enforcing"]["portcullis"]
        text += (
            "### Enforcing\n\nPortcullis against itself, slice by slice: a request with a session, a rule on tags and "
            f"identity headers costs {with_range(pair['ratio'])} x what one at a public endpoint costs.\n"
        )
    return f"## Against nginx\n\n{text}" if text else ""


def unlogged(results):
    if "h1-unlogged" not in results["rows"]:
        return ""
    return (
        "### Without records\n\nThe first row again. nginx has `access_log off`; Portcullis can't be told to keep no "
        f"records, so its go to /dev/null.\n\n{figures(results, 'h1-unlogged')}"
    )


def sessions(results):
    if "sessions" not in results["rows"]:
        return ""
    many = results["rows"]["sessions"]["many"]
    return (
        "### Many sessions\n\n"
        f"{many['title']}, each request with another one, cost {with_range(many['ratio'])} x what one session costs "
        f"({results['machine']['counter']}; load by wrk).\n"
    )


def counted(results):
    if not results["callgrind"]:
        return ""
    lines = []
    for load, row in results["callgrind"].items():
        base = row["nginx"]
        for name, figure in row.items():
            lines.append([
                ROWS[load],
                {"nginx": "nginx", "portcullis": "Portcullis", "portcullis-public": "Portcullis, public"}[name],
                f"{figure['instructions'] / 1000:.1f} k",
                f"{figure['instructions'] / base['instructions']:.2f}",
                f"{figure['calls']:.1f}",
            ])
    columns = ["load", "subject", "user instructions of a request", "x nginx", "system calls of a request"]
    text = (
        "## User mode, counted exactly\n\nBy valgrind's callgrind and by strace, one process or worker; these figures "
        "repeat on any machine. The kernel's part is not in them, and valgrind offers the cryptography of both sides "
        "no AVX-512.\n\n" + table(columns, lines)
    )
    if workers := results.get("workers"):
        text += f"\nPortcullis with two workers: {workers['instructions'] / 1000:.1f} k user instructions of a request"
        text += " (HTTP/1.1)."
        if workers.get("rate"):
            text += f" Two workers on two cores serve {with_range(workers['rate'])} x the requests of one."
        text += "\n"
    return text


def footprint(results):
    text = ""
    if "memory" in results:
        lines = [
            [SUBJECTS[name].title, scaled(row["idle"], 1e6, "MB"), scaled(row["connection"], KIB, "KiB"),
             scaled(row["websocket"], KIB, "KiB")]
            for name, row in results["memory"].items()
        ]
        text += "### Memory\n\n" + table(
            ["subject", "resident, idle", "per idle TLS connection (2,000)", "per live WebSocket (1,000)"], lines
        )
    if "transfers" in results:
        size = results["transfers"]["gibibytes"]
        lines = [
            [SUBJECTS[name].title, *[f"{row[way]['growth'] / KIB / KIB:.1f} MiB" for way in ("upload", "download")]]
            for name, row in results["transfers"].items() if name != "gibibytes"
        ]
        text += f"\n### Bodies of {size} GiB: growth of the peak of resident memory\n\n"
        text += table(["subject", "upload", "download"], lines)
    if "starts" in results:
        lines = [
            [SUBJECTS[name].title, f"{1e3 * row['median']:.0f} ms ({1e3 * row['min']:.0f} to {1e3 * row['max']:.0f})"]
            for name, row in results["starts"].items()
        ]
        text += "\n### From exec to the end of the first answer over TLS\n\n"
        text += table(["subject", "median (range)"], lines)
    if "latency" in results:
        titles = {"portcullis-public": "Portcullis, public endpoint"}
        lines = [
            [
                titles.get(name) or SUBJECTS[name].title,
                *[with_range(row[cut], 0) for cut in ("p50", "p90", "p99", "added")],
            ]
            for name, row in results["latency"].items()
        ]
        text += "\n### Latency at 2,000 requests/s, evenly spread over 25 connections, microseconds\n\n"
        text += table(["subject", "p50", "p90", "p99", "p50 above nginx's of the same round"], lines)
    return f"## Memory, start, latency\n\n{text}" if text else ""


def micro(results):
    if "micro" not in results:
        return ""
    lines = [
        [name.replace("/", " among ").replace("_", " "), f"{row['fastest']:.0f} ns", f"{row['median']:.0f} ns"]
        for name, row in results["micro"].items()
    ]
    text = "## Steps of a request, each alone\n\nOf several runs, the one with the smallest median.\n\n"
    return text + table(["step", "fastest", "median"], lines)


def missing(results):
    if not results["not_measured"]:
        return ""
    return "## Not measured\n\n" + "\n".join(f"- {each}" for each in results["not_measured"]) + "\n"


def method(results):
    return f"""\
## Method

- One worker of each proxy is bound to the first core; h2load (or wrk) and the application, a keep-alive responder in
  C, are bound to the others. Everything is on 127.0.0.1. TLS 1.3 with one ECDSA P-256 certificate, keep-alive on both
  sides, a warm pool of connections to the application.
- A row is slices of less than a second: nginx, A, nginx, B, nginx, ... The load of each subject is stopped between
  its slices, with its connections open. The cost of a slice is what the proxy's processes have used in it, over what
  the application has answered in it. It is divided by the mean of nginx's slices just before and just after. Given
  is the median of these ratios over all rounds, with the quartiles.
- *instructions* are those of user and kernel mode, by perf_event_open. *processor time* is nanoseconds on the core,
  by /proc/PID/task/*/schedstat, where a machine counts no instructions. Ratios of time and of instructions differ:
  an instruction of the kernel's network code waits longer for memory than the average one.
- Requests each second are given only as ratios of neighbouring slices, and mean something only where the proxy's core
  is busy and the load's is not.
- OIDC subjects: somebody has logged in at npm oidc-provider with the code flow, and every request carries the session
  cookie. Portcullis opens it, checks a rule on `groups`, sets three identity headers, and writes a record.
  mod_auth_openidc checks one claim and sets headers; oauth2-proxy checks a group; Envoy's oauth2 filter checks only
  its cookies' HMAC, which is less than the others do.
- Each side writes one record of each request to a file: nginx's access_log with a 64k buffer, the others as their
  configurations in benches/subjects say.
- Raw figures, with all ranges: [{results["name"]}.json]({results["name"]}.json).
"""
