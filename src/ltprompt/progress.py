"""Progress on standard error: a live bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

SECONDS_BETWEEN_LINES = 15.0
WIDE = 60  # columns of a terminal, from which on a bar has room


class Advance(Protocol):
    """Reports `done` more units of work, with a short text such as the loss."""

    def __call__(self, done: int = 1, text: str = "") -> None:
        """Advance by `done` units."""


@contextmanager
def bar(title: str, total: int, unit: str = "step", first: int = 0) -> Iterator[Advance]:
    """Yield the function that advances a bar over `total` units of work, with rate and time left.

    first: units that were done before; they count in neither rate nor time left.
    """
    # FORCE_COLOR, which build servers set, makes rich take a log for a terminal.
    console = Console(stderr=True, force_interactive=None if _on_terminal() else False)
    if not console.is_interactive:
        yield _Lines(title, total, unit, first)
        return
    with Progress(*_columns(console), console=console, transient=False) as progress:
        task = progress.add_task(title, total=total, completed=first, text="", rate="")
        start, so_far = time.monotonic(), 0

        def advance(done: int = 1, text: str = "") -> None:
            nonlocal so_far
            so_far += done
            progress.update(task, advance=done, text=text, rate=_rate(so_far, start, unit))

        yield advance


def _on_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _columns(console: Console) -> list[ProgressColumn]:
    """Return what a live bar shows: all of it, or on a narrow terminal what is done, its text and the time left."""
    rate = TextColumn("{task.fields[rate]}")
    wide = console.width >= WIDE
    return [
        TextColumn("{task.description}", markup=False),
        *([BarColumn(console.width // 8)] if wide else []),
        MofNCompleteColumn(),
        *([rate] if wide else []),
        _Yielding("{task.fields[text]}", markup=False),
        *([TimeElapsedColumn()] if wide else []),
        TextColumn("left"),
        TimeRemainingColumn(),
    ]


class _Yielding(TextColumn):
    """Text that makes room where there is too little for all: the other columns are whole as long as it can."""

    def get_table_column(self) -> Column:
        return Column(no_wrap=False)  # the columns that may wrap are narrowed first

    def render(self, task: Task) -> Text:
        text = super().render(task)
        text.no_wrap, text.overflow = True, "crop"
        return text


class _Lines:
    """Prints a line every few seconds and at the end, for logs."""

    def __init__(self, title: str, total: int, unit: str, first: int) -> None:
        self.title, self.total, self.unit = title, total, unit
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
        # Not by rich, which in a notebook makes a display of HTML of every line, among the cell's results.
        print(", ".join(part for part in [*parts, f"{spent:.0f} s spent", left] if part), file=sys.stderr, flush=True)


def _rate(done: int, start: float, unit: str) -> str:
    """Return the rate so far; nothing while nothing is done, as there is none."""
    if not done:
        return ""
    rate = done / max(time.monotonic() - start, 1e-6)
    return f"{rate:.1f} {unit}s/s" if rate >= 1 else f"{1 / rate:.1f} s/{unit}"
