"""Where the time of one lap goes, operator by operator: what is looked at before anything is made faster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity

from benchmarks.cases import Case
from benchmarks.job import Clock, Job
from benchmarks.report import markdown_table
from benchmarks.shapes import Place
from ltprompt.errors import InputError


@dataclass(frozen=True)
class Cost:
    """An operator's own seconds in a lap, without those of the operators that it calls, and its calls."""

    operator: str
    seconds: float
    calls: int


class ProfiledClock(Clock):
    """A clock that has the lap after `skipped` others profiled; what follows is not."""

    def __init__(self, skipped: int) -> None:
        super().__init__()
        self._skipped = skipped
        self._running = False
        self._profile: Any = None

    def begin(self) -> None:
        """Start a lap anew; what was profiled since the last one ended is dropped."""
        if self._running:
            self._profile.stop()
        if len(self.seconds) == self._skipped:
            self._profile = torch.profiler.profile(activities=[ProfilerActivity.CPU])
            self._profile.start()
            self._running = True
        super().begin()

    def lap(self, loss: float = 0.0) -> None:
        """End a lap and start the next, which a case without warm-up says by `begin`."""
        super().lap(loss)
        if self._running:
            self._profile.stop()
            self._running = False
        elif len(self.seconds) == self._skipped:
            self.begin()

    def costs(self) -> list[Cost]:
        """Return the costs of the profiled lap, the dearest first. Raises `InputError` where nothing was computed."""
        if self._profile is None or not self._profile.key_averages():
            raise InputError("this case does no work of torch's in its own process, so there is nothing to profile")
        found = [Cost(each.key, each.self_cpu_time_total / 1e6, each.count) for each in self._profile.key_averages()]
        return sorted(found, key=lambda cost: -cost.seconds)


def profile(case: Case, name: str, place: Place, dtype: str, rows: int) -> list[Cost]:
    """Return what the first lap after the warm-up of an implementation costs."""
    clock = ProfiledClock(case.warm_up)
    case.find(name).load()(Job(place, True, dtype, rows, 0, case.warm_up + 1, clock))
    return clock.costs()


def table(costs: list[Cost], top: int) -> str:
    """Return the dearest operators as a Markdown table."""
    whole = sum(cost.seconds for cost in costs)
    shown = costs[:top]
    rest = Cost("all others", whole - sum(cost.seconds for cost in shown), sum(cost.calls for cost in costs[top:]))
    rows = [
        [cost.operator, f"{cost.seconds / whole:.1%}", f"{cost.seconds:.3f}", f"{cost.calls:,}"]
        for cost in [*shown, rest]
    ]
    return markdown_table(["operator", "share", "seconds", "calls"], rows)
