"""What people see: progress on standard error, live on a terminal and a plain line now and then elsewhere; tables."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 15.0

_screen: list[Progress] = []  # one entry for each live bar that is open: they share one display


class Advance(Protocol):
    """Reports `done` more units of work, with a short text such as the loss."""

    def __call__(self, done: int = 1, text: str = "") -> None:
        """Advance by `done` units."""


class Phase(Protocol):
    """Opens a phase of work, such as the loading of a backbone; leaving it without an error ends it as a whole."""

    def __call__(self, title: str, total: int = 1) -> AbstractContextManager[Advance]:
        """Open a phase. total: units of work, such as workers that start; one where it has no parts."""


def no_phase(title: str, total: int = 1) -> AbstractContextManager[Advance]:
    """Show nothing."""
    return nullcontext(_ignore)


def _ignore(done: int = 1, text: str = "") -> None:
    pass


@contextmanager
def bar(title: str, total: int, unit: str = "step", first: int = 0) -> Iterator[Advance]:
    """Yield the function that advances a bar over `total` units of work, with rate and time left.

    first: units that were done before; they count in neither rate nor time left.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(console, title, total, unit, first)
        return
    with _live(console) as progress:
        task = progress.add_task(title, total=total, completed=first, text="", rate="")
        start, so_far = time.monotonic(), 0

        def advance(done: int = 1, text: str = "") -> None:
            nonlocal so_far
            so_far += done
            progress.update(task, advance=done, text=text, rate=_rate(so_far, start, unit))

        yield advance
        progress.stop_task(task)


@contextmanager
def phase(title: str, total: int = 1) -> Iterator[Advance]:
    """Show what comes before the first unit of work: at once, on a terminal as a bar, elsewhere as a line and its end.

    total: units of work, such as workers that start; a phase of one is done when it is left without an error.
    """
    console = Console(stderr=True)
    if console.is_terminal:
        with bar(title, total, unit="") as advance:
            yield advance
            if total == 1:
                advance()
        return
    lines = _PhaseLines(console, title, total)
    yield lines
    if total == 1:
        lines()


@contextmanager
def _live(console: Console) -> Iterator[Progress]:
    """Yield the display that is open, or a new one; the last bar to close takes it down."""
    if not _screen:
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
        progress = Progress(*columns, console=console, transient=False)
        progress.start()
        _screen.append(progress)
    else:
        _screen.append(_screen[0])
    try:
        yield _screen[0]
    finally:
        progress = _screen.pop()
        if not _screen:
            progress.stop()


class _PhaseLines:
    """Prints a line as a phase begins, and one for each of its units."""

    def __init__(self, console: Console, title: str, total: int) -> None:
        self.console, self.title, self.total = console, title, total
        self.done, self.told, self.start = 0, "", time.monotonic()
        self._print(f"{title} ...")

    def __call__(self, done: int = 1, text: str = "") -> None:
        if not done and text in ("", self.told):
            return
        self.done, self.told = self.done + done, text
        count = f"{self.done} of {self.total}" if self.total > 1 else "done" * (self.done > 0)
        spent = f"{time.monotonic() - self.start:.0f} s"
        self._print(f"{self.title}: " + ", ".join(part for part in (count, text, spent) if part))

    def _print(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)


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
    """Return the rate so far; nothing while nothing is done, or without a unit."""
    if not done or not unit:
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
