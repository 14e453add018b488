"""What people see: progress on standard error, live on a terminal and a plain line now and then elsewhere; tables."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from html import escape
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
CUT = "..."  # stands where a table lacks columns; ASCII, as some terminals are
_GAP = "  "  # between two columns

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
    console = _console()
    if not console.is_interactive:
        yield _Lines(title, total, unit, first)
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
    if _console().is_interactive:
        with bar(title, total, unit="") as advance:
            yield advance
            if total == 1:
                advance()
        return
    lines = _PhaseLines(title, total)
    yield lines
    if total == 1:
        lines()


@contextmanager
def _live(console: Console) -> Iterator[Progress]:
    """Yield the display that is open, or a new one; the last bar to close takes it down."""
    if not _screen:
        progress = Progress(*_columns(console), console=console, transient=False)
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


def _console() -> Console:
    """Return standard error; a log is no terminal even where FORCE_COLOR, which build servers set, tells rich so."""
    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    return Console(stderr=True, force_interactive=None if on_terminal else False)


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


class _PhaseLines:
    """Prints a line as a phase begins, and one for each of its units."""

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total = title, total
        self.done, self.told, self.start = 0, "", time.monotonic()
        _print(f"{title} ...")

    def __call__(self, done: int = 1, text: str = "") -> None:
        if not done and text in ("", self.told):
            return
        self.done, self.told = self.done + done, text
        count = f"{self.done} of {self.total}" if self.total > 1 else "done" * (self.done > 0)
        spent = f"{time.monotonic() - self.start:.0f} s"
        _print(f"{self.title}: " + ", ".join(part for part in (count, text, spent) if part))


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
        _print(", ".join(part for part in [*parts, f"{spent:.0f} s spent", left] if part))


def _print(line: str) -> None:
    """Print a line of progress; not by rich, which in a notebook makes HTML of it among a cell's results."""
    print(line, file=sys.stderr, flush=True)


def _rate(done: int, start: float, unit: str) -> str:
    """Return the rate so far; nothing while nothing is done, or without a unit."""
    if not done or not unit:
        return ""
    rate = done / max(time.monotonic() - start, 1e-6)
    return f"{rate:.1f} {unit}s/s" if rate >= 1 else f"{1 / rate:.1f} s/{unit}"


@dataclass(frozen=True)
class Sheet:
    """A table before it is shown: the same cells as text on a terminal and as HTML in a notebook.

    header: one cell a column. rows: as long as it. note: a line that stands under the table.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def text(self, width: int | None = None) -> str:
        """Return the table, as `table` does, and its note."""
        return table(self.header, self.rows, width) + (f"\n{self.note}" if self.note else "")

    def html(self) -> str:
        """Return the table as HTML, every cell escaped."""
        head, *body = (_html_row(row, tag) for row, tag in [(self.header, "th"), *((row, "td") for row in self.rows)])
        note = f"<p>{escape(self.note)}</p>" if self.note else ""
        return f"<table><thead>{head}</thead><tbody>{''.join(body)}</tbody></table>{note}"

    def fits(self, width: int | None) -> bool:
        """Whether the table is no wider than `width` columns; anything fits where there is no width."""
        return width is None or _whole(_widths(self.header, self.rows)) <= width


def stdout_width() -> int | None:
    """Return how many columns standard output shows; None where it is no terminal, and so takes what comes."""
    on_terminal = sys.stdout is not None and sys.stdout.isatty()
    return shutil.get_terminal_size().columns if on_terminal else None


def table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """Return an aligned table: the first column to the left, the others to the right.

    width: columns of the terminal, if it is to fit one: of a wider table as many columns before the last are left out
    as must be, and a note under it says how many. The first and the last one stay, wide as they may be.
    """
    widths = _widths(header, rows)
    kept = len(header) if width is None else _kept(widths, width)
    if kept == len(header):
        return _aligned(header, rows, widths)
    short = [[*row[:kept], CUT, row[-1]] for row in [header, *rows]]
    missing = len(header) - kept - 1
    note = f"{CUT} {missing} more column{'s' if missing > 1 else ''}: a pipe has them all"
    return f"{_aligned(short[0], short[1:], [*widths[:kept], len(CUT), widths[-1]])}\n{note}"


def _kept(widths: Sequence[int], width: int) -> int:
    """Return how many columns are shown before the gap; all where none needs to go, or none but the first and last."""
    count = len(widths)
    if _whole(widths) <= width or count < 3:
        return count
    ends = (len(CUT), widths[-1])
    return max((kept for kept in range(1, count - 1) if _whole([*widths[:kept], *ends]) <= width), default=1)


def _widths(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(header, *rows, strict=True)]


def _whole(widths: Sequence[int]) -> int:
    """Return the width of a table with columns of these widths."""
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _aligned(header: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int]) -> str:
    lines = []
    for row in [header, *rows]:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append(_GAP.join(cells).rstrip())
    return "\n".join(lines)


def _html_row(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"
