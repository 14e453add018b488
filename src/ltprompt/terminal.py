"""What people see: progress on standard error, live on a terminal and a plain line now and then elsewhere; tables."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 15.0


class Advance(Protocol):
    """Reports `done` more units of work, with a short text such as the loss."""

    def __call__(self, done: int = 1, text: str = "") -> None:
        """Advance by `done` units."""


@contextmanager
def bar(title: str, total: int, unit: str = "step", first: int = 0) -> Iterator[Advance]:
    """Yield the function that advances a bar over `total` units of work, with rate and time left.

    first: units that were done before; they count in neither rate nor time left.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(console, title, total, unit, first)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[text]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=False) as progress:
        task = progress.add_task(title, total=total, completed=first, text="", rate="")
        start, so_far = time.monotonic(), 0

        def advance(done: int = 1, text: str = "") -> None:
            nonlocal so_far
            so_far += done
            progress.update(task, advance=done, text=text, rate=_rate(so_far, start, unit))

        yield advance


class _Lines:
    """Prints a line every few seconds and at the end, for logs."""

    def __init__(self, console: Console, title: str, total: int, unit: str, first: int) -> None:
        self.console, self.title, self.total, self.unit = console, title, total, unit
        self.first = self.done = first
        self.start = self.printed = time.monotonic()

    def __call__(self, done: int = 1, text: str = "") -> None:
        self.done += done
        now = time.monotonic()
        if self.done < self.total and now - self.printed < SECONDS_BETWEEN_LINES:
            return
        self.printed = now
        spent = now - self.start
        own = self.done - self.first
        left = f"{spent * (self.total - self.done) / own:.0f} s left" if own else ""
        parts = [f"{self.title} {self.done}/{self.total}", _rate(own, self.start, self.unit), text]
        self.console.print(
            ", ".join(part for part in [*parts, f"{spent:.0f} s spent", left] if part),
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip


def _rate(done: int, start: float, unit: str) -> str:
    """Return the rate so far; nothing while nothing is done, as there is none."""
    if not done:
        return ""
    rate = done / max(time.monotonic() - start, 1e-6)
    return f"{rate:.1f} {unit}s/s" if rate >= 1 else f"{1 / rate:.1f} s/{unit}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an aligned table: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = []
    for row in [header, *rows]:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
