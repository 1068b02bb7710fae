"""Rows of paired slices: nginx A nginx B nginx C nginx ..., and what each subject costs of nginx.

A slice lets one generator go for a fraction of a second, with the counters read inside of it. A subject's slice is
divided by the mean of nginx's slices just before and just after it; the figure of a row is the median of these
ratios over all rounds. So what the machine does for longer than a second cancels out.
"""

import math
import statistics
import time
from dataclasses import dataclass, field

from .counter import ProcessorTime
from .processes import Failed, Running

MIB = 1 << 20
# A generator that was stopped needs a moment until all of its connections are busy again.
RAMP_SECONDS = 0.05
SETTLE_SECONDS = 0.6


@dataclass
class Figure:
    """What one case has cost in one row."""

    title: str
    #: Cost of one unit of work, in the counter's unit, at each slice.
    costs: list = field(default_factory=list)
    #: Cost over nginx's at each round; its own is 1 by definition.
    ratios: list = field(default_factory=list)
    #: Units of work each second over nginx's.
    rates: list = field(default_factory=list)
    #: How busy the cores were in its slices, from 0 to 1.
    busy_proxy: list = field(default_factory=list)
    busy_load: list = field(default_factory=list)

    def summary(self):
        """Medians and ranges, for the report."""
        return {
            "title": self.title,
            "cost": spread(self.costs),
            "ratio": spread(self.ratios),
            "rate": spread(self.rates),
            "busy_proxy": spread(self.busy_proxy),
            "busy_load": spread(self.busy_load),
            "slices": len(self.costs),
        }


def spread(values):
    """Median, quartiles, and ends."""
    if not values:
        return None
    ordered = sorted(values)
    if len(ordered) == 1:
        quartiles = [ordered[0]] * 3
    else:
        quartiles = statistics.quantiles(ordered, n=4, method="inclusive")
    return {
        "median": quartiles[1], "low": quartiles[0], "high": quartiles[2], "min": ordered[0], "max": ordered[-1],
    }


class Track:
    """One case in one row: its generator, and the counters of everything that works for it."""

    def __init__(self, case, load, bench):
        self.case, self.load, self.application = case, load, bench.application
        self.figure = Figure(case.title)
        command = load.command(case.proxy, case)
        output = bench.world.directory / f"load-{load.name}-{case.name}.out"
        self.generator = Running(command, bench.load_cores, output)
        self.output = output
        time.sleep(SETTLE_SECONDS)
        self.generator.check()
        self.generator.pause()
        self.cost = bench.counter(case.proxy.running)
        self.time = ProcessorTime(case.proxy.running)
        self.others = [ProcessorTime(self.generator), ProcessorTime(self.application.running)]

    def slice(self):
        """Cost of one unit of work, and units each second."""
        self.generator.resume()
        time.sleep(RAMP_SECONDS)
        began, before = time.monotonic(), self._read()
        time.sleep(self.load.slice_seconds)
        after, ended = self._read(), time.monotonic()
        self.generator.pause()
        self.generator.check()
        work, cost, own, others = (late - early for late, early in zip(after, before))
        if work <= 0:
            text = self.output.read_text(errors="replace")[-1000:]
            raise Failed(f"{self.load.name}: no answer through {self.case.title}: {text}")
        seconds = ended - began
        self.figure.busy_proxy.append(own / seconds / 1e9)
        self.figure.busy_load.append(others / seconds / 1e9)
        self.figure.costs.append(cost / work)
        return cost / work, work / seconds

    def _read(self):
        requests, received, sent = self.application.count()
        work = requests if self.load.per == "request" else (received + sent) / MIB
        return work, self.cost.read(), self.time.read(), sum(each.read() for each in self.others)

    def close(self):
        self.cost.close()
        self.generator.stop()


def measure(bench, load, cases, rounds):
    """A row: `cases[0]` is what the others are divided by."""
    tracks = []
    try:
        for case in cases:
            tracks.append(Track(case, load, bench))
        base, *others = tracks
        base.slice()
        base.figure.costs.clear()
        for track in others:
            track.slice()
            track.figure.costs.clear()
        before = base.slice()
        for number in range(rounds):
            # Every other round backwards, so that nobody is always behind the same neighbour.
            for track in others if number % 2 == 0 else reversed(others):
                own = track.slice()
                after = base.slice()
                track.figure.ratios.append(own[0] / mean(before[0], after[0]))
                track.figure.rates.append(own[1] / mean(before[1], after[1]))
                before = after
    finally:
        for track in tracks:
            track.close()
    return {track.case.name: track.figure.summary() for track in tracks}


def mean(one, other):
    """Of two costs: geometric, so that a ratio and its inverse agree."""
    return math.sqrt(one * other)
